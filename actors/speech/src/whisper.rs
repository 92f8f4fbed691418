//! Whisper: any speech, and phrases out of a list that may be long.

use std::{collections::HashMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperError, WhisperState,
    WhisperTokenId,
};

use crate::{
    grammar::{self, Grammar},
    recogniser::{Engine, Heard, Hypothesis, LONGEST, RATE, Recogniser, RecogniserError, Task, Word},
};

/// What the encoder sees of a second, and what it sees at least: with less it repeats itself without end.
const CONTEXT_A_SECOND: f32 = 50.0;
const CONTEXT: std::ops::RangeInclusive<i32> = 384..=1500;
/// Shorter utterances are filled up with silence, seconds.
const SHORTEST: f32 = 1.1;
/// Phrases that are looked at closely: those nearest to what was heard freely.
const NEAREST: usize = 12;
/// Hypotheses that are told.
const BEST: usize = 5;
/// Tokens of a second of speech at most.
const TOKENS_A_SECOND: f32 = 12.0;

pub struct Whisper {
    context: Arc<WhisperContext>,
    state: Arc<Mutex<WhisperState>>,
}

fn failed(e: WhisperError) -> RecogniserError {
    RecogniserError::Model(e.to_string())
}

impl Whisper {
    /// Loads weights in ggml's format.
    pub fn new(weights: &Path) -> Result<Self, RecogniserError> {
        whisper_rs::install_logging_hooks();
        let bad = |why: String| RecogniserError::Model(format!("{}: {why}", weights.display()));
        if !weights.is_file() {
            return Err(bad("no such file".into()));
        }
        let context = WhisperContext::new_with_params(weights, WhisperContextParameters::default())
            .map_err(|e| bad(e.to_string()))?;
        if !context.is_multilingual() {
            return Err(bad("these weights know English only".into()));
        }
        let state = context.create_state().map_err(failed)?;
        Ok(Self { context: Arc::new(context), state: Arc::new(Mutex::new(state)) })
    }

    /// Another one on the same weights, for another thread.
    pub fn another(&self) -> Result<Self, RecogniserError> {
        let state = self.context.create_state().map_err(failed)?;
        Ok(Self { context: self.context.clone(), state: Arc::new(Mutex::new(state)) })
    }
}

impl Engine for Whisper {
    fn name(&self) -> &'static str {
        "whisper"
    }

    fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError> {
        let phrases = match &*task.grammar {
            Grammar::Open => Vec::new(),
            Grammar::Phrases(all) if !all.is_empty() => all.clone(),
            Grammar::Phrases(_) => return Err(RecogniserError::Grammar("nothing to listen for".into())),
            _ => {
                return Err(RecogniserError::Grammar(
                    "whisper listens for any speech, or for phrases".into(),
                ));
            }
        };
        Ok(Box::new(Listener {
            context: self.context.clone(),
            state: self.state.clone(),
            phrases,
            samples: Vec::new(),
        }))
    }
}

struct Listener {
    context: Arc<WhisperContext>,
    state: Arc<Mutex<WhisperState>>,
    phrases: Vec<String>,
    samples: Vec<f32>,
}

/// A step of many phrases' common beginnings.
#[derive(Default)]
struct Step {
    next: HashMap<WhisperTokenId, usize>,
    ends: Option<usize>,
}

impl Listener {
    fn params(&self) -> FullParams<'static, 'static> {
        let seconds = self.samples.len() as f32 / RATE as f32;
        let context = (CONTEXT_A_SECOND * seconds) as i32 + 64;
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        params.set_language(Some("ru"));
        params.set_n_threads(1);
        params.set_print_progress(false);
        params.set_print_special(false);
        params.set_print_realtime(false);
        params.set_print_timestamps(false);
        params.set_no_context(true);
        params.set_no_timestamps(true);
        params.set_suppress_blank(true);
        params.set_suppress_nst(true);
        params.set_temperature_inc(0.0);
        params.set_single_segment(true);
        params.set_audio_ctx(context.clamp(*CONTEXT.start(), *CONTEXT.end()));
        params.set_max_tokens((TOKENS_A_SECOND * seconds) as i32 + 8);
        params
    }

    /// Words with their probabilities, without times.
    fn free(&mut self, state: &mut WhisperState) -> Result<Vec<(String, f32)>, RecogniserError> {
        state.full(self.params(), &self.samples).map_err(failed)?;
        // Letters may fall between two tokens, so bytes are gathered first.
        let mut words: Vec<(Vec<u8>, f32)> = Vec::new();
        for segment in state.as_iter() {
            for n in 0..segment.n_tokens() {
                let Some(token) = segment.get_token(n) else { continue };
                if token.token_id() >= self.context.token_eot() {
                    continue;
                }
                let bytes = token.to_bytes().map_err(failed)?;
                let p = token.token_probability();
                match words.last_mut() {
                    Some((word, sure)) if !bytes.starts_with(b" ") => {
                        word.extend_from_slice(bytes);
                        *sure = sure.min(p);
                    }
                    _ => words.push((bytes.to_vec(), p)),
                }
            }
        }
        let said = |(bytes, p): (Vec<u8>, f32)| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            grammar::words(&text).into_iter().map(move |w| (w, p)).collect::<Vec<_>>()
        };
        Ok(words.into_iter().flat_map(said).collect())
    }

    /// How likely each phrase is, by the decoder's own measure; the mean of its tokens' logarithms.
    fn close(
        &self,
        state: &mut WhisperState,
        candidates: &[&str],
    ) -> Result<Vec<(usize, f32)>, RecogniserError> {
        let mut steps = vec![Step::default()];
        for (i, phrase) in candidates.iter().enumerate() {
            let capital = |w: &str| {
                let mut c = w.chars();
                c.next().map(|f| f.to_uppercase().collect::<String>() + c.as_str()).unwrap_or_default()
            };
            let all = phrase.split(' ').map(capital).collect::<Vec<_>>().join(" ");
            for form in [(*phrase).to_owned(), capital(phrase), all] {
                let tokens = self.context.tokenize(&format!(" {form}"), 64).map_err(failed)?;
                let mut at = 0;
                for token in tokens {
                    at = match steps[at].next.get(&token) {
                        Some(n) => *n,
                        None => {
                            steps.push(Step::default());
                            let n = steps.len() - 1;
                            steps[at].next.insert(token, n);
                            n
                        }
                    };
                }
                steps[at].ends = Some(i);
            }
        }
        let russian = whisper_rs::get_lang_id("ru").unwrap_or_default();
        let c = &self.context;
        let begin = [c.token_sot(), c.token_lang(russian), c.token_transcribe(), c.token_not()];
        // One token at a time: of several only the first one's logits can be had.
        for (n, token) in begin.iter().enumerate() {
            state.decode(&[*token], n, 1).map_err(failed)?;
        }
        let mut found: HashMap<usize, f32> = HashMap::new();
        let mut todo = vec![(0_usize, begin.len(), 0.0_f32, None::<WhisperTokenId>)];
        while let Some((at, past, score, token)) = todo.pop() {
            if let Some(token) = token {
                state.decode(&[token], past - 1, 1).map_err(failed)?;
            }
            let logits = state.get_logits().map_err(failed)?;
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let all = logits.iter().map(|l| (l - most).exp()).sum::<f32>().ln() + most;
            let depth = (past - begin.len() + 1) as f32;
            if let Some(phrase) = steps[at].ends {
                let end = logits[c.token_eot() as usize] - all;
                let mean = (score + end.max(-4.0)) / depth;
                let best = found.entry(phrase).or_insert(f32::MIN);
                *best = best.max(mean);
            }
            let mut next: Vec<(WhisperTokenId, usize, f32)> =
                steps[at].next.iter().map(|(token, n)| (*token, *n, logits[*token as usize] - all)).collect();
            next.sort_by(|a, b| a.2.total_cmp(&b.2));
            // Depth first, the likeliest last pushed and so first looked at; what is hopeless beside it is not.
            let top = next.last().map_or(0.0, |n| n.2);
            for (token, n, p) in next.into_iter().filter(|n| n.2 > top - 7.0) {
                todo.push((n, past + 1, score + p, Some(token)));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// What two words that sound alike have in common: vowels and voice fall together.
fn key(text: &str) -> Vec<char> {
    let mut out: Vec<char> = Vec::new();
    for c in text.chars() {
        let c = match c {
            'о' | 'я' | 'а' => 'а',
            'е' | 'э' | 'ы' | 'й' | 'и' => 'и',
            'ё' => 'а',
            'ю' | 'у' => 'у',
            'б' | 'п' => 'п',
            'в' | 'ф' => 'ф',
            'г' | 'к' => 'к',
            'д' | 'т' => 'т',
            'ж' | 'ш' | 'щ' => 'ш',
            'з' | 'с' | 'ц' => 'с',
            'ъ' | 'ь' | ' ' | '-' => continue,
            other => other,
        };
        if out.last() != Some(&c) {
            out.push(c);
        }
    }
    out
}

/// Phrases that sound most like a text, nearest first.
pub fn nearest<'p>(text: &str, phrases: &'p [String], count: usize) -> Vec<(&'p str, f32)> {
    let heard = key(text);
    let mut all: Vec<(&str, f32)> = phrases
        .iter()
        .map(|p| {
            let k = key(p);
            let far = strsim::generic_levenshtein(&heard, &k) as f32;
            (p.as_str(), far / heard.len().max(k.len()).max(1) as f32)
        })
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all.truncate(count);
    all
}

impl Recogniser for Listener {
    fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError> {
        if self.samples.len() + samples.len() > (LONGEST * RATE) as usize {
            return Err(RecogniserError::Long(LONGEST));
        }
        self.samples.extend_from_slice(samples);
        Ok(None)
    }

    fn finish(&mut self) -> Result<Heard, RecogniserError> {
        if self.samples.len() < RATE as usize / 10 {
            return Ok(Heard::default());
        }
        let seconds = self.samples.len() as f32 / RATE as f32;
        if seconds < SHORTEST {
            self.samples.resize((SHORTEST * RATE as f32) as usize, 0.0);
        }
        let state = self.state.clone();
        let mut state = state.lock();
        let words = self.free(&mut state)?;
        if words.is_empty() {
            return Ok(Heard::default());
        }
        let text = words.iter().map(|(w, _)| w.as_str()).collect::<Vec<_>>().join(" ");
        let sure = words.iter().map(|(_, p)| *p).sum::<f32>() / words.len() as f32;
        let spread = |words: &[(String, f32)]| {
            // Where nobody aligns them, words share the time by their letters.
            let letters: usize = words.iter().map(|(w, _)| w.chars().count() + 1).sum();
            let mut at = 0.0;
            let word = |(text, confidence): &(String, f32)| {
                let duration = seconds * (text.chars().count() + 1) as f32 / letters.max(1) as f32;
                let start = at;
                at += duration;
                Word { text: text.clone(), start, duration, confidence: *confidence }
            };
            words.iter().map(word).collect::<Vec<_>>()
        };
        if self.phrases.is_empty() {
            let words = spread(&words);
            return Ok(Heard { hypotheses: vec![Hypothesis { text, confidence: sure }], words, score: None });
        }
        let near = nearest(&text, &self.phrases, NEAREST);
        let candidates: Vec<&str> = near.iter().map(|(p, _)| *p).collect();
        let likely = self.close(&mut state, &candidates)?;
        // The decoder's measure and the ear's together.
        let score = |i: usize, p: f32| p - 3.0 * near[i].1;
        let mut all: Vec<(usize, f32)> = likely.into_iter().map(|(i, p)| (i, score(i, p))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f32 = all.iter().map(|(_, s)| (4.0 * s).exp()).sum();
        let hypotheses: Vec<Hypothesis> = all
            .iter()
            .take(BEST)
            .map(|(i, s)| {
                let among = (4.0 * s).exp() / total.max(f32::MIN_POSITIVE);
                // A phrase nothing like what was heard is not sure, however alone it stands.
                let like = (1.0 - near[*i].1).clamp(0.0, 1.0);
                Hypothesis { text: candidates[*i].to_owned(), confidence: (among * like).clamp(0.0, 1.0) }
            })
            .collect();
        let first: Vec<(String, f32)> = hypotheses
            .first()
            .map_or_else(Vec::new, |h| h.text.split(' ').map(|w| (w.to_owned(), h.confidence)).collect());
        Ok(Heard { words: spread(&first), hypotheses, score: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_that_sound_alike_are_near() {
        let phrases = ["отдел продаж", "отдел кадров", "бухгалтерия"].map(str::to_owned);
        assert_eq!(nearest("атдел продаш", &phrases, 1)[0], ("отдел продаж", 0.0));
        assert_eq!(nearest("бугалтерия", &phrases, 1)[0].0, "бухгалтерия");
        assert!(nearest("погода", &phrases, 1)[0].1 > 0.5);
    }
}
