//! Mailboxes (голосовая почта): messages that callers have left, as a fold over the journal. Their sound is in files beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use domain::{Estate, Messages};
use imbl::OrdMap;
use kit::{
    Address, AddressError, ChildSpec, Node,
    journal::{Fold, Journal, Origin},
    ledger::{self, Book, Ledger},
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// The ledger's name, and its stream's.
pub const NAME: &str = "ivr/mail";
/// Messages of a mailbox at most.
pub const MANY: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub at: DateTime<Utc>,
    /// Empty where the caller is not shown.
    pub from: String,
    pub seconds: u64,
    #[serde(default)]
    pub heard: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    next: u64,
    pub letters: BTreeMap<u64, Letter>,
}

impl Mailbox {
    /// Messages in the order they are to be heard: new ones first.
    pub fn order(&self) -> Vec<u64> {
        let part = |heard| self.letters.iter().filter(move |(_, l)| l.heard == heard).map(|(id, _)| *id);
        part(false).chain(part(true)).collect()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailboxes(BTreeMap<String, BTreeMap<String, Mailbox>>);

impl Mailboxes {
    pub fn of(&self, domain: &str) -> impl Iterator<Item = (&str, &Mailbox)> {
        self.0.get(domain).into_iter().flatten().map(|(name, mailbox)| (name.as_str(), mailbox))
    }

    pub fn get(&self, domain: &str, mailbox: &str) -> Option<&Mailbox> {
        self.0.get(domain)?.get(mailbox)
    }
}

/// Where a message's sound is.
pub fn file(data: &Path, domain: &str, mailbox: &str, id: u64) -> PathBuf {
    data.join("voicemail").join(domain).join(mailbox).join(format!("{id}.wav"))
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum MailEvent {
    MessageLeft { domain: String, mailbox: String, id: u64, letter: Letter },
    MessageHeard { domain: String, mailbox: String, id: u64 },
    MessageRemoved { domain: String, mailbox: String, id: u64 },
}

impl Fold for Mailboxes {
    type Event = MailEvent;

    fn apply(&mut self, event: &MailEvent) {
        match event {
            MailEvent::MessageLeft { domain, mailbox, id, letter } => {
                let all = self.0.entry(domain.clone()).or_default().entry(mailbox.clone()).or_default();
                all.next = all.next.max(id + 1);
                all.letters.insert(*id, letter.clone());
            }
            MailEvent::MessageHeard { domain, mailbox, id } => {
                if let Some(letter) = self.letter(domain, mailbox, *id) {
                    letter.heard = true;
                }
            }
            MailEvent::MessageRemoved { domain, mailbox, id } => {
                if let Some(all) = self.0.get_mut(domain).and_then(|d| d.get_mut(mailbox)) {
                    all.letters.remove(id);
                }
            }
        }
    }
}

impl Mailboxes {
    fn letter(&mut self, domain: &str, mailbox: &str, id: u64) -> Option<&mut Letter> {
        self.0.get_mut(domain)?.get_mut(mailbox)?.letters.get_mut(&id)
    }
}

#[derive(Debug, Clone)]
pub enum MailChange {
    Leave { domain: String, mailbox: String, letter: Letter },
    Hear { domain: String, mailbox: String, id: u64 },
    Remove { domain: String, mailbox: String, id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    #[error("mailbox {0} has {MANY} messages, which is the most")]
    Full(String),
    #[error("mailbox {0} has no message {1}; voicemail/list shows all")]
    Unknown(String, u64),
}

/// The ledger; others read what it publishes.
pub struct MailBook {
    pub published: Arc<ArcSwap<Mailboxes>>,
    /// Phones with a lamp are told through it (RFC 3842).
    pub estate: Estate,
}

impl Book for MailBook {
    type State = Mailboxes;
    type Command = MailChange;
    /// The message's number.
    type Answer = u64;
    type Error = MailError;

    fn decide(&self, state: &Mailboxes, change: MailChange) -> Result<(Vec<MailEvent>, u64), MailError> {
        let known = |domain: &str, mailbox: &str, id: u64| {
            let letter = state.get(domain, mailbox).and_then(|m| m.letters.get(&id));
            letter.ok_or_else(|| MailError::Unknown(mailbox.to_owned(), id))
        };
        match change {
            MailChange::Leave { domain, mailbox, letter } => {
                let before = state.get(&domain, &mailbox);
                if before.is_some_and(|m| m.letters.len() >= MANY) {
                    return Err(MailError::Full(mailbox));
                }
                let id = before.map_or(1, |m| m.next.max(1));
                Ok((vec![MailEvent::MessageLeft { domain, mailbox, id, letter }], id))
            }
            MailChange::Hear { domain, mailbox, id } => {
                let heard = known(&domain, &mailbox, id)?.heard;
                let event = MailEvent::MessageHeard { domain, mailbox, id };
                Ok((if heard { vec![] } else { vec![event] }, id))
            }
            MailChange::Remove { domain, mailbox, id } => {
                known(&domain, &mailbox, id)?;
                Ok((vec![MailEvent::MessageRemoved { domain, mailbox, id }], id))
            }
        }
    }

    fn publish(&self, state: &Mailboxes) {
        self.published.store(Arc::new(state.clone()));
        let count = |m: &Mailbox| {
            let old = m.letters.values().filter(|l| l.heard).count() as u32;
            Messages { new: m.letters.len() as u32 - old, old }
        };
        let of_domain = |all: &BTreeMap<String, Mailbox>| -> OrdMap<String, Messages> {
            all.iter().map(|(n, m)| (n.clone(), count(m))).collect()
        };
        let all = state.0.iter().map(|(domain, all)| (domain.clone(), of_domain(all))).collect();
        self.estate.change(|picture| picture.messages = all);
    }

    fn summary(&self, state: &Mailboxes) -> serde_json::Value {
        let letters = |all: &BTreeMap<String, Mailbox>| all.values().map(|m| m.letters.len()).sum::<usize>();
        let counts = state.0.iter().map(|(d, all)| (d.clone(), serde_json::json!(letters(all))));
        serde_json::Value::Object(counts.collect())
    }
}

/// Changes a mailbox; the sound of what is removed goes with it.
pub async fn change(
    node: &Node,
    data: Option<&Path>,
    change: MailChange,
    origin: Origin,
) -> Result<(), ledger::LedgerError<MailError>> {
    let gone = match &change {
        MailChange::Remove { domain, mailbox, id } => data.map(|d| file(d, domain, mailbox, *id)),
        _ => None,
    };
    ledger::change_at::<MailBook>(node, NAME, change, origin).await?;
    if let Some(path) = gone
        && let Err(e) = tokio::fs::remove_file(&path).await
    {
        tracing::warn!(error = %e, "the sound of a removed message stays");
    }
    Ok(())
}

/// The ledger as a child.
pub fn child(
    journal: Arc<dyn Journal>,
    published: Arc<ArcSwap<Mailboxes>>,
    estate: Estate,
) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new(NAME)?, move |start| {
        let book = MailBook { published: published.clone(), estate: estate.clone() };
        let journal = journal.clone();
        async move { Ledger::restore_named(book, journal, &start).await }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter { at: DateTime::UNIX_EPOCH, from: "100".into(), seconds: 3, heard: false }
    }

    #[test]
    fn messages_are_counted_heard_and_removed() {
        let book = MailBook { published: Arc::default(), estate: Estate::default() };
        let mut state = Mailboxes::default();
        let mut make = |change: MailChange| {
            let (events, id) = book.decide(&state, change)?;
            events.iter().for_each(|e| state.apply(e));
            book.publish(&state);
            Ok::<_, MailError>((id, state.clone()))
        };
        let leave = || MailChange::Leave { domain: "d".into(), mailbox: "101".into(), letter: letter() };
        let (first, _) = make(leave()).expect("left");
        let (second, _) = make(leave()).expect("left");
        let at = |id| ("d".to_owned(), "101".to_owned(), id);
        let (domain, mailbox, id) = at(first);
        let (_, state) = make(MailChange::Hear { domain, mailbox, id }).expect("heard");
        assert_eq!(state.get("d", "101").expect("a mailbox").order(), [second, first], "new ones first");
        assert_eq!(book.estate.picture().messages["d"]["101"], Messages { new: 1, old: 1 });
        let (domain, mailbox, id) = at(second);
        make(MailChange::Remove { domain, mailbox, id }).expect("removed");
        let (third, _) = make(leave()).expect("left");
        assert!(third > second, "a number is not used twice");
        let (domain, mailbox, id) = at(second);
        assert!(matches!(make(MailChange::Hear { domain, mailbox, id }), Err(MailError::Unknown(..))));
        for _ in 2..MANY {
            make(leave()).expect("left");
        }
        assert!(matches!(make(leave()), Err(MailError::Full(_))));
    }
}
