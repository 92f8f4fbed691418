//! What a recogniser listens for: phrases, or a grammar as JSGF has it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{graph::Graph, phones};

/// Phrases of a grammar at most.
pub const PHRASES: usize = 50_000;
/// Bytes of a JSGF text at most.
const BYTES: usize = 16 << 20;

/// Steps of a phrase, each with what may be said there.
pub type Way = Vec<Vec<String>>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grammar {
    /// Any speech.
    Open,
    /// One of these, whole.
    Phrases(Vec<String>),
    /// One of these, whole.
    Ways(Vec<Way>),
    /// Any words of these, in any order: `words` says how many at most.
    Loop { of: Vec<String>, words: usize },
    /// One of `first`, one of `last`, in either order, or one of either alone.
    Names { first: Vec<String>, last: Vec<String> },
    /// A grammar of the operator's, its first public rule.
    Jsgf(String),
}

/// A closed grammar, as PocketSphinx takes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Closed {
    Fsg(Graph),
    Jsgf(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("nothing to listen for")]
    Empty,
    #[error("this recogniser knows closed grammars only")]
    Open,
    #[error("more than {PHRASES} phrases")]
    Many,
    #[error("a grammar longer than {BYTES} bytes")]
    Long,
    #[error("\"{0}\" is no JSGF: {1}")]
    Jsgf(String, &'static str),
}

/// Words of a phrase as dictionaries have them: small letters; digits are said.
pub fn words(phrase: &str) -> Vec<String> {
    // Small letters first: some capitals become two signs, of which one is no letter.
    let said = crate::numbers::said(phrase).to_lowercase();
    said.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '+'))
        .filter(|w| w.chars().any(char::is_alphanumeric))
        .map(phones::normal)
        .collect()
}

/// A phrase as a recogniser returns it.
pub fn normal(phrase: &str) -> String {
    words(phrase).join(" ")
}

impl Grammar {
    pub fn phrases(all: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::Phrases(all.into_iter().map(|p| normal(p.as_ref())).filter(|p| !p.is_empty()).collect())
    }

    /// As PocketSphinx takes it.
    pub fn closed(&self) -> Result<Closed, GrammarError> {
        let Self::Jsgf(text) = self else { return Graph::of(self).map(Closed::Fsg) };
        let begin = || text.chars().take(20).collect::<String>();
        if text.len() > BYTES {
            return Err(GrammarError::Long);
        }
        if !text.trim_start_matches('\u{feff}').trim_start().starts_with("#JSGF") {
            return Err(GrammarError::Jsgf(begin(), "it begins with #JSGF"));
        }
        if text.contains('\0') || !text.contains("public") {
            return Err(GrammarError::Jsgf(begin(), "it has a public rule"));
        }
        Ok(Closed::Jsgf(text.clone()))
    }

    /// The same without phrases that cannot be said; a text of the operator's stays as it is.
    pub fn only(&self, sayable: impl Fn(&String) -> bool) -> Self {
        let keep = |all: &[String]| all.iter().filter(|p| sayable(p)).cloned().collect::<Vec<_>>();
        match self {
            Self::Phrases(all) => Self::Phrases(keep(all)),
            Self::Ways(all) => {
                Self::Ways(all.iter().map(|way| way.iter().map(|s| keep(s)).collect()).collect())
            }
            Self::Loop { of, words } => Self::Loop { of: keep(of), words: *words },
            Self::Names { first, last } => Self::Names { first: keep(first), last: keep(last) },
            Self::Open | Self::Jsgf(_) => self.clone(),
        }
    }

    /// Words that must have readings. Those of a JSGF text are what is left of it without its signs.
    pub fn vocabulary(&self) -> BTreeSet<String> {
        match self {
            Self::Open => BTreeSet::new(),
            Self::Phrases(all) | Self::Loop { of: all, .. } => all.iter().flat_map(|p| words(p)).collect(),
            Self::Ways(all) => all.iter().flatten().flatten().flat_map(|p| words(p)).collect(),
            Self::Names { first, last } => first.iter().chain(last).flat_map(|p| words(p)).collect(),
            Self::Jsgf(text) => jsgf_words(text),
        }
    }
}

/// Words of a JSGF text: not rules' names, tags, weights, nor remarks.
fn jsgf_words(text: &str) -> BTreeSet<String> {
    let body = text.split_once(';').map_or("", |(_, rest)| rest);
    let mut out = BTreeSet::new();
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let skip = |until: &str| rest.find(until).map_or("", |at| &rest[at + until.len()..]);
        rest = match c {
            '<' => skip(">"),
            '{' => skip("}"),
            '/' if rest.starts_with("//") => skip("\n"),
            '/' if rest.starts_with("/*") => skip("*/"),
            '/' => rest[1..].find('/').map_or("", |at| &rest[at + 2..]),
            c if c.is_alphabetic() => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '-')).unwrap_or(rest.len());
                let word = &rest[..end];
                if !matches!(word, "public" | "grammar" | "import") {
                    out.insert(word.to_lowercase());
                }
                &rest[end..]
            }
            c => &rest[c.len_utf8()..],
        };
    }
    // The grammar's own name.
    if let Some(name) = body.split_once("grammar").and_then(|(_, r)| r.split(';').next()) {
        out.remove(name.trim());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phrases_are_words_that_readings_are_wanted_for() {
        let grammar = Grammar::phrases(["Да", "Отдел продаж!", "да"]);
        assert_eq!(grammar.vocabulary().into_iter().collect::<Vec<_>>(), ["да", "отдел", "продаж"]);
        assert_eq!(Grammar::phrases([""]).closed(), Err(GrammarError::Empty));
        let turkish = normal("<\u{130}z*");
        assert_eq!(normal(&turkish), turkish, "a capital of two signs");
    }

    #[test]
    fn words_of_an_operators_grammar_are_found() {
        let text = "#JSGF V1.0 UTF-8;\ngrammar menu;\n// да, конечно\npublic <menu> = /10/ отдел <what> {x} | нет;\n\
                    <what> = продаж | кадров;\n";
        let words: Vec<String> = Grammar::Jsgf(text.into()).vocabulary().into_iter().collect();
        assert_eq!(words, ["кадров", "нет", "отдел", "продаж"]);
        assert!(Grammar::Jsgf("public <a> = да;".into()).closed().is_err());
    }

    proptest! {
        #[test]
        fn any_jsgf_is_looked_through(text in "\\PC{0,80}") {
            let all = normal(&text);
            for word in Grammar::Jsgf(format!("#JSGF;{text}")).vocabulary() {
                prop_assert!(all.contains(&normal(&word)), "{word} of {text}");
            }
        }

        #[test]
        fn any_phrase_has_words_that_stay(text in "\\PC{0,40}") {
            let once = normal(&text);
            prop_assert_eq!(normal(&once), once);
        }
    }
}
