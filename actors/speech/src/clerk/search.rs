//! How the auto-attendant finds a number for what it heard (manual, "Алгоритм поиска").

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Book, key};

/// Strings that one recognised string becomes at most, aliases and permutations taken together.
const STRINGS: usize = 2_000;
/// Words of a name at most; more are not permuted.
const WORDS: usize = 4;

/// Short for long: женя is божена, евгений and евгения.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    /// A short name's full names, in order.
    pub soft: BTreeMap<String, BTreeSet<String>>,
    /// Whole phrases that stand for another: `директор`.
    pub hard: BTreeMap<String, String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As the phone book has it.
    pub name: String,
    pub number: String,
}

/// A string with its short names spelt out, the string itself first.
fn spelt_out(text: &str, aliases: &Aliases) -> Vec<String> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for word in text.split(' ') {
        let mut forms = vec![word.to_owned()];
        forms.extend(aliases.soft.get(&key(word)).into_iter().flatten().map(|full| key(full)));
        all = all
            .iter()
            .flat_map(|before| {
                forms.iter().map(move |form| before.iter().chain([form]).cloned().collect::<Vec<_>>())
            })
            .take(STRINGS)
            .collect();
    }
    all.into_iter().map(|words| words.join(" ")).collect()
}

/// All orders of a string's words, its own first.
fn permutations(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split(' ').collect();
    if words.len() > WORDS {
        return vec![text.to_owned()];
    }
    let mut out = Vec::new();
    permute(&words, &mut Vec::new(), &mut vec![false; words.len()], &mut out);
    out
}

fn permute(words: &[&str], chosen: &mut Vec<usize>, taken: &mut Vec<bool>, out: &mut Vec<String>) {
    if chosen.len() == words.len() {
        out.push(chosen.iter().map(|i| words[*i]).collect::<Vec<_>>().join(" "));
        return;
    }
    for i in 0..words.len() {
        if !taken[i] {
            taken[i] = true;
            chosen.push(i);
            permute(words, chosen, taken, out);
            chosen.pop();
            taken[i] = false;
        }
    }
}

/// Looks for the first of these strings that has a number. `heard` begins with the final result; what was thought before it
/// follows, since the right one may be among it.
pub fn search(heard: &[String], book: &Book, aliases: &Aliases) -> Option<Found> {
    let mut seen = BTreeSet::new();
    for text in heard {
        let text = key(text);
        if text.is_empty() || !seen.insert(text.clone()) {
            continue;
        }
        let text = aliases.hard.get(&text).map_or(text, |target| key(target));
        for spelt in spelt_out(&text, aliases) {
            for order in permutations(&spelt) {
                let whole = book.unique(&order).unwrap_or(order);
                if let Some(entry) = book.find(&whole) {
                    return Some(Found { name: entry.name.clone(), number: entry.number.clone() });
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clerk::book::Entry;

    fn book(all: &[(&str, &str)]) -> Book {
        Book::new(all.iter().map(|(name, number)| Entry::new(name, number)))
    }

    fn aliases() -> Aliases {
        let full = ["божена", "евгений", "евгения"].map(str::to_owned);
        Aliases {
            soft: [("женя".to_owned(), full.into())].into(),
            hard: [("начальник".to_owned(), "казарцев евгений".to_owned())].into(),
        }
    }

    fn heard(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_manuals_example_is_found() {
        let book = book(&[("Алексей Лосев", "4801"), ("Евгений Казарцев", "4819")]);
        let found = search(&heard(&["женя казарцев", "женя казарцев", "женя"]), &book, &aliases());
        assert_eq!(found.map(|f| f.number).as_deref(), Some("4819"));
        assert_eq!(
            spelt_out("женя казарцев", &aliases()),
            ["женя казарцев", "божена казарцев", "евгений казарцев", "евгения казарцев"]
        );
        assert_eq!(permutations("евгений казарцев"), ["евгений казарцев", "казарцев евгений"]);
    }

    #[test]
    fn what_was_thought_before_counts_when_the_end_is_wrong() {
        let book = book(&[("Алексей Лосев", "4801"), ("Алексей Лысенко", "4802"), ("Анна Лосева", "4803")]);
        let all = heard(&["алексей лишенко", "алексей лосев", "алексей"]);
        assert_eq!(search(&all, &book, &Aliases::default()).map(|f| f.number).as_deref(), Some("4801"));
    }

    #[test]
    fn a_name_that_only_one_has_is_enough_and_a_common_one_is_not() {
        let book = book(&[("Алексей Лосев", "1"), ("Алексей Лысенко", "2"), ("Пётр Семёнов", "3")]);
        let one = |text: &str| search(&heard(&[text]), &book, &Aliases::default()).map(|f| f.number);
        assert_eq!(one("лысенко").as_deref(), Some("2"));
        assert_eq!(one("семенов").as_deref(), Some("3"), "ё or е");
        assert_eq!(one("алексей"), None);
        assert_eq!(one(""), None);
        let boss =
            search(&heard(&["начальник"]), &super::tests::book(&[("Евгений Казарцев", "9")]), &aliases());
        assert_eq!(boss.map(|f| f.number).as_deref(), Some("9"));
    }

    proptest! {
        #[test]
        fn any_text_is_searched_in_bounded_steps(text in "([а-яё]{1,5} ?){0,12}") {
            let many = (0..30).map(|n| format!("имя{n}")).collect();
            let aliases = Aliases { soft: [("а".to_owned(), many)].into(), hard: BTreeMap::new() };
            let found = search(std::slice::from_ref(&text), &book(&[("А Б", "1")]), &aliases);
            let says = |name: &str| text.split(' ').any(|w| w == name);
            prop_assert!(found.is_none() || says("а") || says("б"), "{found:?} of {text}");
        }

        #[test]
        fn every_entry_is_found_in_any_order(first in "[а-я]{3,6}", last in "[а-я]{7,9}") {
            let book = book(&[(&format!("{first} {last}"), "1"), ("Сосед Соседов", "2")]);
            for text in [format!("{first} {last}"), format!("{last} {first}")] {
                prop_assert_eq!(search(&[text], &book, &Aliases::default()).map(|f| f.number), Some("1".into()));
            }
        }
    }
}
