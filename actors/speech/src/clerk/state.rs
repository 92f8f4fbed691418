//! What operators have taught the auto-attendant, as a fold over the journal; what it knows from the start lies beneath.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use kit::{
    Address, AddressError, ChildSpec,
    journal::{Fold, Journal},
    ledger::{self, Ledger},
};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

use super::{book::key, search::Aliases};
use crate::{dictionary::Dictionary, phones};

/// Rows of a table at most.
const ROWS: usize = 100_000;
/// Letters of a text at most.
const LONGEST: usize = 200;
/// Numbers of rows that operators add begin here; below are those of the program's own base.
const OWN: u64 = 1 << 32;
/// The ledger's name, and its stream's.
pub const NAME: &str = "speech/attendant";

/// Full names and their short ones: `полное: короткое, короткое…`.
const FIRST: &str = include_str!("../../names/first.txt");
/// Patronymics and what people make of them: `полное: короткое, короткое…`.
const MIDDLE: &str = include_str!("../../names/middle.txt");
/// Surnames as men bear them.
const LAST: &str = include_str!("../../names/last.txt");

#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
    strum::Display,
)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Table {
    /// Names that are known.
    FullNames,
    /// A short name of a full one.
    Aliases,
    /// A phrase that stands for a name.
    HardAliases,
    /// Words for the recogniser; `+` before a vowel says where the stress is.
    Words,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// What it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taught {
    tables: BTreeMap<Table, BTreeMap<u64, Row>>,
    next: u64,
}

fn content(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
}

/// A number that stays the same however the base grows (FNV-1a, 32 bits).
fn base_id(text: &str) -> u64 {
    u64::from(text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)))
}

/// A surname as a woman bears it.
fn feminine(last: &str) -> Option<String> {
    let ends = |all: &[&str]| all.iter().any(|e| last.ends_with(e));
    if ends(&["ов", "ев", "ёв", "ин", "ын"]) {
        return Some(format!("{last}а"));
    }
    // The last two letters, of two bytes each, give way.
    ends(&["ский", "цкий", "ый", "ой"]).then(|| format!("{}ая", &last[..last.len() - 4]))
}

impl Default for Taught {
    /// The base: names and patronymics with their short forms, and surnames.
    fn default() -> Self {
        let mut tables: BTreeMap<Table, BTreeMap<u64, Row>> = BTreeMap::new();
        let mut add = |table: Table, name: &str, target: Option<&str>| {
            let id = base_id(&format!("{table} {name} {}", target.unwrap_or_default()));
            let row = Row { name: name.to_owned(), target: target.map(str::to_owned) };
            if let Some(before) = tables.entry(table).or_default().insert(id, row) {
                let before = (before.name.as_str(), before.target.as_deref());
                debug_assert_eq!(before, (name, target), "two rows with one number");
            }
        };
        for (table, lines) in [(Table::FullNames, FIRST), (Table::Words, MIDDLE)] {
            for line in content(lines) {
                let (full, short) = line.split_once(':').unwrap_or((line, ""));
                add(table, full.trim(), None);
                for alias in short.split(',').map(str::trim).filter(|a| !a.is_empty()) {
                    add(Table::Aliases, alias, Some(full.trim()));
                }
            }
        }
        for last in content(LAST) {
            add(Table::Words, last, None);
            if let Some(hers) = feminine(last) {
                add(Table::Words, &hers, None);
            }
        }
        Self { tables, next: OWN }
    }
}

impl Taught {
    pub fn rows(&self, table: Table) -> impl Iterator<Item = (u64, &Row)> {
        self.tables.get(&table).into_iter().flatten().map(|(id, row)| (*id, row))
    }

    pub fn aliases(&self) -> Aliases {
        let mut aliases = Aliases::default();
        for (_, row) in self.rows(Table::Aliases) {
            let target = row.target.clone().unwrap_or_default();
            aliases.soft.entry(key(&row.name)).or_default().insert(key(&target));
        }
        for (_, row) in self.rows(Table::HardAliases) {
            aliases.hard.insert(key(&row.name), key(row.target.as_deref().unwrap_or_default()));
        }
        aliases
    }

    /// How words are said that operators have told of.
    pub fn dictionary(&self) -> Dictionary {
        let mut dictionary = Dictionary::default();
        for (_, row) in self.rows(Table::Words).filter(|(_, r)| r.name.contains('+')) {
            dictionary.add(&row.name);
        }
        dictionary
    }

    /// All words that are known: names, short names, surnames.
    pub fn words(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum TaughtEvent {
    RowAdded { table: Table, id: u64, row: Row },
    RowRemoved { table: Table, id: u64 },
}

impl Fold for Taught {
    type Event = TaughtEvent;

    fn apply(&mut self, event: &TaughtEvent) {
        match event {
            TaughtEvent::RowAdded { table, id, row } => {
                self.tables.entry(*table).or_default().insert(*id, row.clone());
                self.next = self.next.max(id + 1);
            }
            TaughtEvent::RowRemoved { table, id } => {
                if let Some(rows) = self.tables.get_mut(table) {
                    rows.remove(id);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub enum Teach {
    Add { table: Table, row: Row },
    Remove { table: Table, id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TeachError {
    #[error("{0} has it already")]
    Exists(Table),
    #[error("{0} has no row {1}")]
    Unknown(Table, u64),
    #[error("\"{0}\" is no Russian word: letters, perhaps with + before the stressed vowel")]
    Word(String),
    #[error("a name of 1 to {LONGEST} letters is wanted")]
    Name,
    #[error("{0} wants to know what it stands for")]
    Target(Table),
    #[error("{0} is full")]
    Full(Table),
}

/// The ledger; others read what it publishes.
pub struct TaughtBook {
    pub published: Arc<ArcSwap<Taught>>,
}

impl ledger::Book for TaughtBook {
    type State = Taught;
    type Command = Teach;
    type Answer = u64;
    type Error = TeachError;

    fn decide(&self, state: &Taught, command: Teach) -> Result<(Vec<TaughtEvent>, u64), TeachError> {
        match command {
            Teach::Add { table, row } => {
                let good = |t: &str| !key(t).is_empty() && t.chars().count() <= LONGEST;
                if !good(&row.name) {
                    return Err(TeachError::Name);
                }
                if table == Table::Words && !phones::readable(&row.name) {
                    return Err(TeachError::Word(row.name));
                }
                let points = matches!(table, Table::Aliases | Table::HardAliases);
                if points && !row.target.as_deref().is_some_and(good) {
                    return Err(TeachError::Target(table));
                }
                let row = Row { target: row.target.filter(|_| points), ..row };
                if state.rows(table).any(|(_, r)| *r == row) {
                    return Err(TeachError::Exists(table));
                }
                if state.rows(table).count() >= ROWS {
                    return Err(TeachError::Full(table));
                }
                let id = state.next;
                Ok((vec![TaughtEvent::RowAdded { table, id, row }], id))
            }
            Teach::Remove { table, id } => {
                state.rows(table).find(|(i, _)| *i == id).ok_or(TeachError::Unknown(table, id))?;
                Ok((vec![TaughtEvent::RowRemoved { table, id }], id))
            }
        }
    }

    fn publish(&self, state: &Taught) {
        self.published.store(Arc::new(state.clone()));
    }

    fn summary(&self, state: &Taught) -> serde_json::Value {
        let counts = state.tables.iter().map(|(t, rows)| (t.to_string(), serde_json::json!(rows.len())));
        serde_json::Value::Object(counts.collect())
    }
}

/// The ledger as a child.
pub fn child(journal: Arc<dyn Journal>, published: Arc<ArcSwap<Taught>>) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new(NAME)?, move |start| {
        let book = TaughtBook { published: published.clone() };
        let journal = journal.clone();
        async move { Ledger::restore_named(book, journal, &start).await }
    }))
}

#[cfg(test)]
mod tests {
    use kit::ledger::Book as _;

    use super::*;

    #[test]
    fn the_base_knows_names_and_what_they_are_short_for() {
        let taught = Taught::default();
        let aliases = taught.aliases();
        let zhenya: Vec<&str> = aliases.soft["женя"].iter().map(String::as_str).collect();
        assert_eq!(zhenya, ["божена", "евгений", "евгения"], "the manual's example");
        let words: Vec<&str> = taught.rows(Table::Words).map(|(_, r)| r.name.as_str()).collect();
        assert!(words.contains(&"казарцев") && words.contains(&"казарцева"));
        for hers in ["высоцкая", "белая", "яровая", "шапошникова", "ильинична"]
        {
            assert!(words.contains(&hers), "{hers}");
        }
        assert!(aliases.soft["палыч"].contains("павлович"));
        for (table, row) in [Table::FullNames, Table::Aliases, Table::Words]
            .map(|t| taught.rows(t).map(move |r| (t, r)))
            .into_iter()
            .flatten()
        {
            assert!(phones::readable(&row.1.name), "{table} {}", row.1.name);
        }
        assert!(taught.words() > 6_400, "{}", taught.words());
    }

    #[test]
    fn what_is_taught_twice_or_makes_no_sense_is_refused() {
        let book = TaughtBook { published: Arc::default() };
        let mut state = Taught::default();
        let add = |table, name: &str, target: Option<&str>| Teach::Add {
            table,
            row: Row { name: name.to_owned(), target: target.map(str::to_owned) },
        };
        let (events, id) = book.decide(&state, add(Table::Aliases, "кузик", Some("кузьма"))).expect("added");
        events.iter().for_each(|e| state.apply(e));
        assert!(id >= OWN);
        let again = book.decide(&state, add(Table::Aliases, "кузик", Some("кузьма")));
        assert!(matches!(again, Err(TeachError::Exists(Table::Aliases))));
        assert!(matches!(
            book.decide(&state, add(Table::Aliases, "кузик", None)),
            Err(TeachError::Target(_))
        ));
        assert!(matches!(book.decide(&state, add(Table::Words, "word", None)), Err(TeachError::Word(_))));
        assert!(matches!(book.decide(&state, add(Table::FullNames, " ", None)), Err(TeachError::Name)));
        let gone = book.decide(&state, Teach::Remove { table: Table::Words, id: 7 });
        assert!(matches!(gone, Err(TeachError::Unknown(Table::Words, 7))));
    }
}
