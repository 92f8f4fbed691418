//! What every recogniser answers, whichever engine is behind it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{dictionary::Dictionary, grammar::Grammar};

/// Samples a second that go into a recogniser; telephone speech has been brought to it.
pub const RATE: u32 = 16_000;
/// Longest utterance, seconds.
pub const LONGEST: u32 = 60;

/// A word that was heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    pub text: String,
    /// Seconds from the beginning of what was given.
    pub start: f32,
    /// Seconds.
    pub duration: f32,
    /// 0 to 1.
    pub confidence: f32,
}

/// What was heard of one utterance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// The likeliest first; none where nothing was understood.
    pub hypotheses: Vec<Hypothesis>,
    /// Words of the first hypothesis.
    pub words: Vec<Word>,
    /// How well the first hypothesis explains what was heard, for each hundredth of a second; of one engine's answers to one
    /// utterance the higher is the better. None where the engine does not tell.
    pub score: Option<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    pub text: String,
    /// 0 to 1.
    pub confidence: f32,
}

impl Heard {
    /// The likeliest text; empty where nothing was understood.
    pub fn text(&self) -> &str {
        self.hypotheses.first().map_or("", |h| &h.text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RecogniserError {
    /// More speech waits than the engine works through.
    #[error("all recognisers are busy")]
    Overloaded,
    #[error("the recogniser has stopped")]
    Stopped,
    /// What it was to listen for.
    #[error("{0}")]
    Grammar(String),
    /// Its model, dictionary or library.
    #[error("{0}")]
    Model(String),
    #[error("longer than {0} s")]
    Long(u32),
    /// Somebody else's recogniser, over the network.
    #[error("{0}")]
    Remote(String),
}

/// What a listener is to hear.
#[derive(Debug, Clone)]
pub struct Task {
    pub grammar: Arc<Grammar>,
    /// How words are said, beyond what rules tell.
    pub dictionary: Arc<Dictionary>,
    /// Whether the text so far is wanted while somebody speaks; it costs as much again.
    pub partial: bool,
    /// Whether it is to tell how sure it is; where phones decide that, it costs a third more.
    pub sure: bool,
    /// Whether it is to tell what else it may have been; with long lists that costs as much again.
    pub others: bool,
}

impl Task {
    /// For whole utterances: the likeliest text, and how sure it is.
    pub fn whole(grammar: Grammar, dictionary: Arc<Dictionary>) -> Self {
        Self::of(Arc::new(grammar), dictionary)
    }

    pub fn of(grammar: Arc<Grammar>, dictionary: Arc<Dictionary>) -> Self {
        Self { grammar, dictionary, partial: false, sure: true, others: false }
    }

    /// The likeliest text with its words' times, and nothing else.
    pub fn plain(self) -> Self {
        Self { sure: false, others: false, ..self }
    }
}

/// A way to recognise speech. It lives on one thread and opens listeners there.
pub trait Engine: Send {
    fn name(&self) -> &'static str;
    fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError>;
    /// Why it can do no more, if so: its thread ends then, and its supervisor starts another.
    fn ended(&self) -> Option<String> {
        None
    }
}

/// Who is told what was heard.
pub type Done = Box<dyn FnOnce(Result<Heard, RecogniserError>) + Send>;

/// One utterance, in pieces.
pub trait Recogniser {
    /// Takes samples at [`RATE`], between -1 and 1; the text so far, where it has changed.
    fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError>;
    /// The utterance is over.
    fn finish(&mut self) -> Result<Heard, RecogniserError>;
    /// As [`Self::finish`], without keeping the thread from others where the answer comes from elsewhere.
    fn conclude(mut self: Box<Self>, done: Done) {
        done(self.finish());
    }
}
