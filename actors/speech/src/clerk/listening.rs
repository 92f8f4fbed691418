//! What the auto-attendant listens for: every name of the book, as people say it.

use std::collections::BTreeMap;

use super::{book::Book, search::Aliases};
use crate::{
    grammar::{Grammar, Way},
    phones,
};

/// Short forms of one word at most.
const FORMS: usize = 12;

/// The grammar of a book: names in either order, short for long, and what is enough of a name.
pub fn grammar(book: &Book, aliases: &Aliases) -> Option<Grammar> {
    // Which short names stand for a full one.
    let mut short: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (alias, full) in &aliases.soft {
        for name in full {
            short.entry(super::book::key(name)).or_default().push(alias);
        }
    }
    let sayable = |text: &str| text.split(' ').all(phones::readable);
    let forms = |word: &str| -> Vec<String> {
        let more = short.get(word).into_iter().flatten().filter(|s| sayable(s)).take(FORMS);
        std::iter::once(word.to_owned()).chain(more.map(|s| (*s).clone())).collect()
    };
    let mut ways: Vec<Way> = Vec::new();
    for (name, _) in book.entries().filter(|(name, _)| sayable(name)) {
        let words: Way = name.split(' ').map(forms).collect();
        match words.as_slice() {
            [first, last] => ways.push(vec![last.clone(), first.clone()]),
            [a, b, c] => {
                ways.push([b, c, a].map(Clone::clone).into());
                ways.push([b, a].map(Clone::clone).into());
                ways.push([a, b].map(Clone::clone).into());
            }
            _ => {}
        }
        ways.push(words);
    }
    let alone = book.unique_names().filter(|n| !n.contains(' ') && sayable(n));
    ways.extend(alone.map(|n| vec![forms(n)]));
    let hard = aliases.hard.keys().filter(|p| sayable(p));
    ways.extend(hard.map(|p| p.split(' ').map(|w| vec![w.to_owned()]).collect::<Way>()));
    (!ways.is_empty()).then_some(Grammar::Ways(ways))
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
        let Some(Grammar::Ways(ways)) = grammar(&book, &aliases) else { panic!("ways") };
        let ways: Vec<String> =
            ways.iter().map(|w| w.iter().map(|s| s.join("|")).collect::<Vec<_>>().join(" ")).collect();
        // Nobody knows how John Smith is said in Russian.
        let expected = ["казарцев евгений|женя", "евгений|женя казарцев", "евгений|женя", "казарцев"];
        assert_eq!(ways, expected);
        assert!(grammar(&Book::default(), &Aliases::default()).is_none());
    }
}
