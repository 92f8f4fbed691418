//! What the auto-attendant listens for: every name of the book, as people say it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{book::Book, search::Aliases};
use crate::{grammar::Grammar, phones};

/// Short forms of one word at most.
const FORMS: usize = 12;

/// The grammar of a book: names in either order, short for long, and what is enough of a name.
pub fn grammar(book: &Book, aliases: &Aliases) -> Option<Grammar> {
    // Which short names stand for a full one.
    let mut short: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (alias, full) in &aliases.soft {
        for name in full {
            short.entry(super::book::key(name)).or_default().push(alias);
        }
    }
    let sayable = |text: &str| text.split(' ').all(phones::readable);
    let forms = |word: &str| {
        let more = short.get(word).into_iter().flatten().filter(|s| sayable(s)).take(FORMS);
        let all: Vec<&str> = std::iter::once(word).chain(more.copied()).collect();
        if all.len() == 1 { word.to_owned() } else { format!("({})", all.join("|")) }
    };
    let mut alternatives: Vec<String> = Vec::new();
    for (name, _) in book.entries().filter(|(name, _)| sayable(name)) {
        let words: Vec<String> = name.split(' ').map(forms).collect();
        alternatives.push(words.join(" "));
        match words.as_slice() {
            [first, last] => alternatives.push(format!("{last} {first}")),
            [a, b, c] => {
                alternatives.push(format!("{b} {c} {a}"));
                alternatives.push(format!("{b} {a}"));
                alternatives.push(format!("{a} {b}"));
            }
            _ => {}
        }
    }
    alternatives.extend(book.unique_names().filter(|n| !n.contains(' ') && sayable(n)).map(forms));
    alternatives.extend(aliases.hard.keys().filter(|p| sayable(p)).cloned());
    if alternatives.is_empty() {
        return None;
    }
    let mut text = "#JSGF V1.0 UTF-8;\ngrammar book;\npublic <said> = ".to_owned();
    for (n, alternative) in alternatives.iter().enumerate() {
        // Writing to memory does not fail.
        let _ = write!(text, "{}{alternative}", if n == 0 { "" } else { " | " });
    }
    text.push_str(";\n");
    Some(Grammar::Jsgf(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clerk::book::Entry;

    #[test]
    fn names_are_listened_for_in_either_order_and_short() {
        let book = Book::new([Entry::new("Евгений Казарцев", "1"), Entry::new("John Smith", "2")]);
        let aliases = Aliases {
            soft: [("женя".to_owned(), ["евгений".to_owned()].into())].into(),
            hard: BTreeMap::new(),
        };
        let Some(Grammar::Jsgf(text)) = grammar(&book, &aliases) else { panic!("a grammar") };
        assert!(text.contains("(евгений|женя) казарцев | казарцев (евгений|женя)"), "{text}");
        assert!(!text.contains("smith"), "nobody knows how that is said in Russian");
        assert!(grammar(&Book::default(), &Aliases::default()).is_none());
    }
}
