//! Pronunciations: `.dic` files as Sphinx reads them, and words read by rule where a file says nothing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, Read},
    path::Path,
};

use crate::phones;

/// Words of a dictionary at most.
const WORDS: usize = 500_000;
/// Bytes of a file at most.
const BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DictionaryError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("line {0}: a word and its phones are wanted")]
    Line(usize),
    #[error("more than {WORDS} words")]
    Many,
}

/// Words with their readings.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dictionary {
    words: BTreeMap<String, Vec<String>>,
}

impl Dictionary {
    /// Reads a `.dic` file: `word phones` or `word(2) phones`, one a line; `#` and `;;` begin remarks.
    pub fn read(path: &Path) -> Result<Self, DictionaryError> {
        Self::parse(std::io::BufReader::new(std::fs::File::open(path)?.take(BYTES)))
    }

    pub fn parse(from: impl BufRead) -> Result<Self, DictionaryError> {
        let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (number, line) in from.lines().enumerate() {
            let line = line?;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with(";;") {
                continue;
            }
            let mut parts = line.split_whitespace();
            let word = parts.next().unwrap_or_default();
            // `word(2)` is another reading.
            let word = word.split_once('(').filter(|(w, _)| !w.is_empty()).map_or(word, |(w, _)| w);
            let reading = parts.collect::<Vec<_>>().join(" ");
            if reading.is_empty() {
                return Err(DictionaryError::Line(number + 1));
            }
            if words.len() >= WORDS {
                return Err(DictionaryError::Many);
            }
            let all = words.entry(word.to_lowercase()).or_default();
            if !all.contains(&reading) {
                all.push(reading);
            }
        }
        Ok(Self { words })
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub fn contains(&self, word: &str) -> bool {
        self.words.contains_key(word)
    }

    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.keys().map(String::as_str)
    }

    /// How a word is said: as the dictionary has it, else by rule; none when it cannot be read.
    pub fn readings(&self, word: &str) -> Vec<String> {
        let normal = phones::normal(word);
        self.words.get(&normal).cloned().unwrap_or_else(|| phones::readings(word))
    }

    /// Adds a word as it is said by rule; false when it cannot be read.
    pub fn add(&mut self, word: &str) -> bool {
        let normal = phones::normal(word);
        if self.words.contains_key(&normal) && !word.contains('+') {
            return true;
        }
        let readings = phones::readings(word);
        if readings.is_empty() || self.words.len() >= WORDS {
            return false;
        }
        self.words.insert(normal, readings);
        true
    }

    /// Takes over another's words; its readings hold where both have a word.
    pub fn merge(&mut self, other: Self) {
        self.words.extend(other.words);
    }

    pub fn remove(&mut self, word: &str) -> bool {
        self.words.remove(&phones::normal(word)).is_some()
    }

    /// As a `.dic` file.
    pub fn written(&self) -> String {
        let mut out = String::new();
        for (word, readings) in &self.words {
            for (n, reading) in readings.iter().enumerate() {
                // Writing to memory does not fail.
                let _ = match n {
                    0 => writeln!(out, "{word} {reading}"),
                    n => writeln!(out, "{word}({}) {reading}", n + 1),
                };
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_and_written_with_all_readings() {
        let text = "# слова\nдва D V A\nодин A D1 I N\nодин(2) O D1 I N\n";
        let mut dictionary = Dictionary::parse(text.as_bytes()).expect("read");
        assert_eq!(dictionary.readings("Один"), ["A D1 I N", "O D1 I N"]);
        assert!(dictionary.add("тр+и") && !dictionary.add("three"));
        let written = dictionary.written();
        assert_eq!(written, "два D V A\nодин A D1 I N\nодин(2) O D1 I N\nтри T R1 I\n");
        assert_eq!(Dictionary::parse(written.as_bytes()).expect("read again"), dictionary);
        assert!(matches!(Dictionary::parse("один\n".as_bytes()), Err(DictionaryError::Line(1))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            if let Ok(dictionary) = Dictionary::parse(text.as_bytes()) {
                prop_assert!(Dictionary::parse(dictionary.written().as_bytes()).is_ok());
            }
        }
    }
}
