//! An operator's own words and grammars: `.dic` files and JSGF files of one directory, read again when they change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    dictionary::{Dictionary, DictionaryError},
    grammar::{Grammar, GrammarError},
};

/// Files of the directory at most.
const FILES: usize = 1_000;
/// Bytes of a grammar's file at most.
const BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LexiconError {
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Dictionary(PathBuf, DictionaryError),
    #[error("{0}: {1}")]
    Grammar(PathBuf, GrammarError),
    #[error("{0}: larger than {BYTES} bytes")]
    Large(PathBuf),
    #[error("{0}: more than {FILES} files")]
    Many(PathBuf),
}

/// What the directory says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lexicon {
    pub dictionary: Dictionary,
    /// By the file's name without its ending.
    pub grammars: BTreeMap<String, Arc<Grammar>>,
}

/// What tells whether something has changed: names, sizes, times.
pub type Seen = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// The directory's files that matter; none where there is no directory.
pub fn seen(directory: &Path) -> Seen {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let matters = |path: &Path| {
        path.extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| matches!(e, "dic" | "gram" | "jsgf" | "jsfg"))
    };
    let mut all: Seen = entries
        .filter_map(|e| {
            let entry = e.ok()?;
            let about = entry.metadata().ok()?;
            (about.is_file() && matters(&entry.path()))
                .then(|| (entry.path(), about.len(), about.modified().ok()))
        })
        .take(FILES + 1)
        .collect();
    all.sort();
    all
}

impl Lexicon {
    /// Reads all of them; one that is wrong refuses all, so that nobody hears half a change.
    pub fn read(directory: &Path, files: &Seen) -> Result<Self, LexiconError> {
        if files.len() > FILES {
            return Err(LexiconError::Many(directory.to_owned()));
        }
        let mut lexicon = Self::default();
        for (path, length, _) in files {
            if path.extension().is_some_and(|e| e == "dic") {
                let more = Dictionary::read(path).map_err(|e| LexiconError::Dictionary(path.clone(), e))?;
                lexicon.dictionary.merge(more);
                continue;
            }
            if *length > BYTES {
                return Err(LexiconError::Large(path.clone()));
            }
            let text = std::fs::read_to_string(path).map_err(|e| LexiconError::Io(path.clone(), e))?;
            let grammar = Grammar::Jsgf(text);
            grammar.closed().map_err(|e| LexiconError::Grammar(path.clone(), e))?;
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            lexicon.grammars.insert(name, Arc::new(grammar));
        }
        Ok(lexicon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_together_and_a_wrong_one_names_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("a.dic", "альфа A L F A\n");
        write("b.dic", "бета B E T A\n");
        write("menu.gram", "#JSGF V1.0 UTF-8;\ngrammar menu;\npublic <menu> = альфа | бета;\n");
        write("notes.txt", "not looked at");
        let before = seen(directory.path());
        let lexicon = Lexicon::read(directory.path(), &before).expect("read");
        assert_eq!(lexicon.dictionary.len(), 2);
        assert_eq!(lexicon.grammars.keys().collect::<Vec<_>>(), ["menu"]);
        write("b.dic", "бета\n");
        let after = seen(directory.path());
        assert_ne!(before, after);
        let wrong = Lexicon::read(directory.path(), &after).expect_err("a word without phones").to_string();
        assert!(wrong.contains("b.dic: line 1"), "{wrong}");
        assert!(seen(&directory.path().join("none")).is_empty());
    }
}
