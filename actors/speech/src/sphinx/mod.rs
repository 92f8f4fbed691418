//! PocketSphinx: closed grammars, with partial results, words' times and a confidence.

mod decoder;
mod ffi;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use self::decoder::{Decoder, ListensFor};
use crate::{
    audio::{Rate, to_i16},
    grammar::{Grammar, GrammarError},
    recogniser::{Engine, Heard, Hypothesis, LONGEST, RATE, Recogniser, RecogniserError, Task},
};

/// Samples a second that acoustic models of telephone speech know.
const TELEPHONE: u32 = 8000;
/// Decoders that are kept for the next utterance.
const IDLE: usize = 16;
/// Samples of less than this are not looked at: 100 ms.
const SHORTEST: usize = TELEPHONE as usize / 10;

/// Where an acoustic model is, and how it is used.
pub struct Sphinx {
    model: PathBuf,
    idle: Arc<Mutex<Vec<Decoder>>>,
}

impl Sphinx {
    /// Looks at the model once, so that a bad one is told of at once.
    pub fn new(model: &Path) -> Result<Self, RecogniserError> {
        let first = Decoder::open(model, true)?;
        Ok(Self { model: model.to_owned(), idle: Arc::new(Mutex::new(vec![first])) })
    }

    /// Takes one that nobody uses now, if one is as is wanted.
    fn take(&self, wanted: impl Fn(&Decoder) -> bool) -> Option<Decoder> {
        let mut idle = self.idle.lock();
        let at = idle.iter().position(wanted)?;
        Some(idle.swap_remove(at))
    }

    fn decoder(&self, task: &Task) -> Result<Decoder, RecogniserError> {
        let listens = |same: &dyn Fn(&ListensFor) -> bool| {
            let same = |l: &ListensFor| Arc::ptr_eq(&l.dictionary, &task.dictionary) && same(l);
            self.take(|d| d.listens_for.as_ref().is_some_and(same))
        };
        if let Some(decoder) = listens(&|l| Arc::ptr_eq(&l.grammar, &task.grammar)) {
            return Ok(decoder);
        }
        let wrong = |e: GrammarError| RecogniserError::Grammar(e.to_string());
        let closed = task.grammar.closed().map_err(wrong)?;
        let mut hasher = DefaultHasher::new();
        closed.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(decoder) = listens(&|l| l.hash == hash) {
            return Ok(decoder);
        }
        // A fresh one: words that another dictionary taught it would stay.
        let thorough = !loose(&task.grammar);
        let fresh = self.take(|d| d.listens_for.is_none() && d.thorough == thorough);
        let mut decoder = fresh.map_or_else(|| Decoder::open(&self.model, thorough), Ok)?;
        let mut unread = Vec::new();
        for word in task.grammar.vocabulary() {
            // A reading with phones that the model does not have is none; the rules may know another.
            let told = task.dictionary.readings(&word);
            let known = [told, crate::phones::readings(&word)]
                .iter()
                .any(|readings| !readings.is_empty() && decoder.learn(&word, readings).is_ok());
            if !known {
                unread.push(word);
            }
        }
        let closed = match (&*task.grammar, unread.is_empty()) {
            (_, true) => closed,
            (Grammar::Jsgf(_), false) => {
                let unread = unread.join(", ");
                return Err(RecogniserError::Grammar(format!("nobody knows how to say {unread}")));
            }
            // Phrases with such words cannot be said; the others can.
            (other, false) => {
                let sayable = |p: &String| !crate::grammar::words(p).iter().any(|w| unread.contains(w));
                other.only(sayable).closed().map_err(wrong)?
            }
        };
        let (grammar, dictionary) = (task.grammar.clone(), task.dictionary.clone());
        decoder.listen_for(&closed, ListensFor { grammar, dictionary, hash })?;
        Ok(decoder)
    }
}

impl Engine for Sphinx {
    fn name(&self) -> &'static str {
        "pocketsphinx"
    }

    fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError> {
        let mut decoder = self.decoder(task)?;
        if task.partial {
            decoder.start()?;
        }
        Ok(Box::new(Listener {
            decoder: Some(decoder),
            live: task.partial,
            sure: task.sure && !loose(&task.grammar),
            others: task.others,
            rate: Rate::new(RATE, TELEPHONE).map_err(|e| RecogniserError::Model(e.to_string()))?,
            idle: self.idle.clone(),
            samples: Vec::new(),
            last: String::new(),
        }))
    }
}

/// Whether any word may follow any other.
fn loose(grammar: &Grammar) -> bool {
    matches!(grammar, Grammar::Names { .. } | Grammar::Loop { .. })
}

struct Listener {
    decoder: Option<Decoder>,
    /// An utterance is under way in the decoder.
    live: bool,
    /// Whether the answer says how sure it is, and what else it may have been.
    sure: bool,
    others: bool,
    idle: Arc<Mutex<Vec<Decoder>>>,
    rate: Rate,
    samples: Vec<i16>,
    last: String,
}

/// How sure a score makes us, by how much worse the words explain what was heard than any phones do, which need not be words.
fn confidence(score: i32, anything: i32, frames: i32) -> f32 {
    let better = (score - anything) as f32 / frames.max(1) as f32;
    1.0 / (1.0 + (-(better - CERTAIN.0) / CERTAIN.1).exp())
}

/// The difference a frame at which words are as likely wrong as right, and how fast that changes: of 180 names of a book of 300 and
/// 180 that are not in it, in three voices, it puts 16 on the wrong side; -23 puts 19 there, and -17 24.
const CERTAIN: (f32, f32) = (-20.0, 3.0);

impl Recogniser for Listener {
    fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError> {
        let samples = self.rate.push(samples).map_err(|e| RecogniserError::Model(e.to_string()))?;
        if self.samples.len() + samples.len() > (LONGEST * TELEPHONE) as usize {
            return Err(RecogniserError::Long(LONGEST));
        }
        if samples.is_empty() {
            return Ok(None);
        }
        let samples = to_i16(&samples);
        self.samples.extend_from_slice(&samples);
        if !self.live {
            return Ok(None);
        }
        let decoder = self.decoder.as_mut().ok_or(RecogniserError::Stopped)?;
        let text = decoder.feed(&samples)?;
        Ok((text != self.last).then(|| {
            self.last.clone_from(&text);
            text
        }))
    }

    fn finish(&mut self) -> Result<Heard, RecogniserError> {
        let decoder = self.decoder.as_mut().ok_or(RecogniserError::Stopped)?;
        if std::mem::take(&mut self.live) {
            decoder.end()?;
        }
        let rest = self.rate.finish().map_err(|e| RecogniserError::Model(e.to_string()))?;
        self.samples.extend(to_i16(&rest));
        if self.samples.len() < SHORTEST {
            return Ok(Heard::default());
        }
        // Once more as a whole: its loudness is known only now.
        let pass = decoder.whole(&self.samples)?;
        if pass.text.is_empty() {
            return Ok(Heard::default());
        }
        let others = if self.others { decoder.others(&pass.text) } else { Vec::new() };
        let sure = match self.sure {
            true => confidence(pass.score, decoder.anything(&self.samples)?, pass.frames),
            false => 0.0,
        };
        let words =
            pass.words.into_iter().map(|w| crate::recogniser::Word { confidence: sure, ..w }).collect();
        let first = Hypothesis { text: pass.text, confidence: sure };
        let score = Some(pass.score as f32 / pass.frames.max(1) as f32);
        Ok(Heard { hypotheses: std::iter::once(first).chain(others).collect(), words, score })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(mut decoder) = self.decoder.take() else { return };
        // One whose utterance cannot be ended is of no more use.
        if self.live && decoder.end().is_err() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= IDLE {
            idle.remove(0);
        }
        idle.push(decoder);
    }
}
