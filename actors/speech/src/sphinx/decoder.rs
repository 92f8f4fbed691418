//! One decoder of libpocketsphinx, owned: the only unsafe code of the family.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, NulError, c_char, c_int, c_long},
    path::Path,
    ptr::{NonNull, null, null_mut},
    sync::{Arc, Once},
};

use super::ffi;
use crate::{
    dictionary::Dictionary,
    grammar::{Closed, Grammar},
    recogniser::{Hypothesis, RecogniserError, Word},
};

/// Frames a second.
const FRAMES: f32 = 100.0;
/// The search that listens for a task's grammar.
const SAID: &CStr = c"said";
/// Hypotheses of one utterance at most.
const BEST: usize = 5;

pub(super) struct Decoder {
    ps: NonNull<ffi::ps_decoder_t>,
    /// How many readings of a word it knows.
    known: HashMap<String, usize>,
    pub listens_for: Option<ListensFor>,
    /// Whether it looks far before it gives a way up.
    pub thorough: bool,
}

/// What a decoder's search listens for: a grammar, and the dictionary that told how its words are said. Both are kept alive
/// here, so that others are never taken for them.
pub(super) struct ListensFor {
    pub grammar: Arc<Grammar>,
    pub dictionary: Arc<Dictionary>,
    /// Hash of the grammar as the library takes it: another one may come to the same.
    pub hash: u64,
}

// SAFETY: the library keeps no state of a thread, and a decoder is used by one thread at a time.
unsafe impl Send for Decoder {}

/// What one pass over an utterance found.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub text: String,
    pub score: i32,
    pub frames: i32,
    pub words: Vec<Word>,
}

fn nul(_: NulError) -> RecogniserError {
    RecogniserError::Grammar("a text with a zero byte".into())
}

/// The library's name of a word's reading: `word(2)` is the second.
fn reading_of(word: &str, n: usize) -> String {
    if n == 0 { word.to_owned() } else { format!("{word}({})", n + 1) }
}

/// Whether a model's states share Gaussians (phonetically tied or semi-continuous): its features then come in several streams, as
/// its `feat.params` say.
fn shares_gaussians(feat: &str) -> bool {
    let words: Vec<&str> = feat.split_whitespace().collect();
    words.contains(&"-svspec") || words.contains(&"s2_4x")
}

/// A text of the library's, copied.
///
/// # Safety
/// `text` is null or points to a string that ends with zero.
unsafe fn copied(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: as the caller promised.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    }
}

impl Decoder {
    /// Loads the acoustic model in this directory.
    pub fn open(model: &Path, thorough: bool) -> Result<Self, RecogniserError> {
        static QUIET: Once = Once::new();
        // SAFETY: null means that nothing is logged.
        QUIET.call_once(|| {
            unsafe { ffi::err_set_logfp(null_mut()) };
        });
        let bad = |why: String| RecogniserError::Model(format!("{}: {why}", model.display()));
        for file in ["mdef", "means", "variances", "transition_matrices", "feat.params"] {
            if !model.join(file).is_file() {
                return Err(bad(format!("no {file}")));
            }
        }
        let path = model.to_str().ok_or_else(|| bad("a path that is no UTF-8".into()))?;
        let hmm = CString::new(path).map_err(nul)?;
        // Narrower beams lose names that begin alike (between words first, between phones last); wider ones take too long where
        // any name may follow any other.
        let [beam, words, phones] = match thorough {
            true => [c"1e-160", c"1e-120", c"1e-100"],
            false => [c"1e-110", c"1e-85", c"1e-85"],
        };
        // Where every state has its own Gaussians the nearest says nearly all; where states share them it takes several.
        let feat = std::fs::read_to_string(model.join("feat.params")).map_err(|e| bad(e.to_string()))?;
        let nearest = if shares_gaussians(&feat) { c"4" } else { c"1" };
        let settings = [
            c"-hmm",
            &hmm,
            c"-samprate",
            c"8000",
            c"-beam",
            beam,
            c"-wbeam",
            words,
            c"-pbeam",
            phones,
            c"-topn",
            nearest,
            c"-remove_noise",
            c"no",
            c"-remove_silence",
            c"no",
            c"-bestpath",
            c"no",
            c"-fsgusefiller",
            c"yes",
            c"-lw",
            c"1.0",
            c"-allphone_ci",
            c"yes",
        ]
        .map(CStr::as_ptr);
        // SAFETY: pairs of strings that live until the call returns; the library copies them.
        let config = unsafe {
            ffi::cmd_ln_parse_r(null_mut(), ffi::ps_args(), settings.len() as c_int, settings.as_ptr(), 1)
        };
        if config.is_null() {
            return Err(bad("the library does not take our settings".into()));
        }
        // SAFETY: a configuration that was just made; the decoder keeps its own reference.
        let ps = unsafe {
            let ps = ffi::ps_init(config);
            ffi::cmd_ln_free_r(config);
            ps
        };
        let ps = NonNull::new(ps).ok_or_else(|| bad("no model that the library takes".into()))?;
        let decoder = Self { ps, known: HashMap::new(), listens_for: None, thorough };
        // Any phones, each without regard to its neighbours: they say how well anything at all explains what was heard.
        // SAFETY: a decoder of ours, a string that the library copies, and no phonetic language model.
        if unsafe { ffi::ps_set_allphone_file(decoder.ps.as_ptr(), c"phones".as_ptr(), null()) } < 0 {
            return Err(bad("the library does not look for its phones".into()));
        }
        Ok(decoder)
    }

    fn add(&mut self, word: &str, phones: &str) -> Result<(), RecogniserError> {
        let (w, p) = (CString::new(word).map_err(nul)?, CString::new(phones).map_err(nul)?);
        // SAFETY: two strings, which the library copies.
        let added = unsafe { ffi::ps_add_word(self.ps.as_ptr(), w.as_ptr(), p.as_ptr(), 0) };
        match added < 0 {
            true => {
                let why = format!("the model does not know the phones of {word}: {phones}");
                Err(RecogniserError::Model(why))
            }
            false => Ok(()),
        }
    }

    /// Teaches it how a word is said.
    pub fn learn(&mut self, word: &str, readings: &[String]) -> Result<(), RecogniserError> {
        let known = self.known.get(word).copied().unwrap_or(0);
        for (n, reading) in readings.iter().enumerate().skip(known) {
            self.add(&reading_of(word, n), reading)?;
            self.known.insert(word.to_owned(), n + 1);
        }
        Ok(())
    }

    /// A word as it is known: once for each reading.
    fn readings(&self, word: &str) -> Vec<String> {
        let known = self.known.get(word).copied().unwrap_or(0);
        (0..known).map(|n| reading_of(word, n)).collect()
    }

    fn set_jsgf(&mut self, text: &str) -> Result<c_int, RecogniserError> {
        let text = CString::new(text).map_err(nul)?;
        // SAFETY: a decoder of ours and two strings, which the library copies.
        Ok(unsafe { ffi::ps_set_jsgf_string(self.ps.as_ptr(), SAID.as_ptr(), text.as_ptr()) })
    }

    fn set_fsg(&mut self, text: &str) -> Result<c_int, RecogniserError> {
        let text = CString::new(text).map_err(nul)?;
        // SAFETY: the stream reads memory that lives until it is closed, and nobody writes to it; the graph is ours until we
        // give our reference back, the search has its own.
        unsafe {
            let memory = text.as_ptr().cast_mut().cast();
            let stream = ffi::fmemopen(memory, text.as_bytes().len(), c"r".as_ptr());
            if stream.is_null() {
                return Ok(-1);
            }
            let fsg = ffi::fsg_model_read(stream, ffi::ps_get_logmath(self.ps.as_ptr()), 1.0);
            ffi::fclose(stream);
            if fsg.is_null() {
                return Ok(-1);
            }
            let set = ffi::ps_set_fsg(self.ps.as_ptr(), SAID.as_ptr(), fsg);
            ffi::fsg_model_free(fsg);
            Ok(set)
        }
    }

    /// What it listens for from now on.
    pub fn listen_for(&mut self, closed: &Closed, what: ListensFor) -> Result<(), RecogniserError> {
        self.listens_for = None;
        // In our graphs a word's readings stand beside it: where the library puts them there itself it looks at every state for
        // every reading.
        let readings = c_long::from(matches!(closed, Closed::Jsgf(_)));
        // SAFETY: the decoder's own settings, and a name that it has.
        unsafe {
            let config = ffi::ps_get_config(self.ps.as_ptr());
            ffi::cmd_ln_set_int_r(config, c"-fsgusealtpron".as_ptr(), readings);
        }
        let set = match closed {
            Closed::Fsg(graph) => self.set_fsg(&graph.fsg(|word| self.readings(word)))?,
            Closed::Jsgf(text) => self.set_jsgf(text)?,
        };
        if set < 0 {
            return Err(RecogniserError::Grammar("the grammar cannot be used".into()));
        }
        self.listens_for = Some(what);
        Ok(())
    }

    fn use_search(&mut self, name: &CStr) -> Result<(), RecogniserError> {
        // SAFETY: a string the library looks up.
        match unsafe { ffi::ps_set_search(self.ps.as_ptr(), name.as_ptr()) } {
            0 => Ok(()),
            _ => Err(RecogniserError::Stopped),
        }
    }

    fn done(code: c_int) -> Result<(), RecogniserError> {
        if code < 0 { Err(RecogniserError::Stopped) } else { Ok(()) }
    }

    /// An utterance that comes in pieces begins.
    pub fn start(&mut self) -> Result<(), RecogniserError> {
        self.use_search(SAID)?;
        // SAFETY: a decoder of ours.
        Self::done(unsafe { ffi::ps_start_utt(self.ps.as_ptr()) })
    }

    pub fn feed(&mut self, samples: &[i16]) -> Result<String, RecogniserError> {
        // SAFETY: a decoder of ours, and samples that live until the call returns.
        unsafe {
            Self::done(ffi::ps_process_raw(self.ps.as_ptr(), samples.as_ptr(), samples.len(), 0, 0))?;
            let mut score = 0;
            Ok(copied(ffi::ps_get_hyp(self.ps.as_ptr(), &mut score)))
        }
    }

    /// The utterance that came in pieces is over.
    pub fn end(&mut self) -> Result<(), RecogniserError> {
        // SAFETY: a decoder of ours.
        Self::done(unsafe { ffi::ps_end_utt(self.ps.as_ptr()) })
    }

    fn pass(&mut self, search: &CStr, samples: &[i16]) -> Result<Pass, RecogniserError> {
        self.use_search(search)?;
        let ps = self.ps.as_ptr();
        // SAFETY: a decoder of ours, and samples that live until the call returns.
        unsafe {
            Self::done(ffi::ps_start_utt(ps))?;
            let processed = ffi::ps_process_raw(ps, samples.as_ptr(), samples.len(), 0, 1);
            Self::done(ffi::ps_end_utt(ps))?;
            Self::done(processed)?;
            let mut pass = Pass::default();
            pass.text = copied(ffi::ps_get_hyp(ps, &mut pass.score));
            Ok(pass)
        }
    }

    /// The whole utterance at once, as [`Decoder::listen_for`] said.
    pub fn whole(&mut self, samples: &[i16]) -> Result<Pass, RecogniserError> {
        let mut pass = self.pass(SAID, samples)?;
        // SAFETY: an iterator over the decoder's last result, used until it says that it is over.
        unsafe {
            let mut seg = ffi::ps_seg_iter(self.ps.as_ptr());
            while !seg.is_null() {
                let word = copied(ffi::ps_seg_word(seg));
                let (mut first, mut last) = (0, 0);
                ffi::ps_seg_frames(seg, &mut first, &mut last);
                pass.frames = pass.frames.max(last + 1);
                // Silences stand in brackets; `word(2)` is a word's second reading.
                let text = word.split('(').next().unwrap_or_default();
                if !word.starts_with(['<', '[', '(']) && !text.is_empty() {
                    let (start, frames) = (first as f32 / FRAMES, (last - first + 1) as f32);
                    pass.words.push(Word {
                        text: text.to_owned(),
                        start,
                        duration: frames / FRAMES,
                        confidence: 0.0,
                    });
                }
                seg = ffi::ps_seg_next(seg);
            }
        }
        Ok(pass)
    }

    /// What else the last pass may have heard than this, the likeliest first.
    pub fn others(&mut self, than: &str) -> Vec<Hypothesis> {
        let mut others: Vec<Hypothesis> = Vec::new();
        // SAFETY: an iterator over the decoder's last result, used until it says that it is over, or freed.
        unsafe {
            let mut nbest = ffi::ps_nbest(self.ps.as_ptr());
            while !nbest.is_null() {
                let mut score = 0;
                let text = copied(ffi::ps_nbest_hyp(nbest, &mut score));
                if !text.is_empty() && text != than && !others.iter().any(|h| h.text == text) {
                    others.push(Hypothesis { text, confidence: 0.0 });
                }
                if others.len() >= BEST {
                    ffi::ps_nbest_free(nbest);
                    break;
                }
                nbest = ffi::ps_nbest_next(nbest);
            }
        }
        others
    }

    /// How well any phones at all explain the utterance: a score.
    pub fn anything(&mut self, samples: &[i16]) -> Result<i32, RecogniserError> {
        Ok(self.pass(c"phones", samples)?.score)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: a decoder of ours, not used any more.
        unsafe { ffi::ps_free(self.ps.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_tell_whether_their_states_share_gaussians() {
        // The model of ours; CMU's phonetically tied and semi-continuous ones.
        let ours = include_str!("../../../../fixtures/speech/ru-8k/feat.params");
        assert!(!shares_gaussians(ours));
        assert!(shares_gaussians("-feat 1s_c_d_dd\n-svspec 0-12/13-25/26-38\n-agc none\n"));
        assert!(shares_gaussians("-feat s2_4x\n-cmn current\n"));
    }
}
