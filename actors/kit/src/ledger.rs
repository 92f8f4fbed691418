//! An actor whose state is a fold over a stream of the journal: it decides on the state it has, appends the events,
//! and only then applies them and answers.

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;
use strum::IntoStaticStr;

use crate::{
    Actor, Address, AskError, Cx, ExitReason, LookupError, Mailbox, Node, Reply, StartContext,
    journal::{Batch, Fold, Journal, JournalError, NewEvent, Origin, Snapshot, restore},
};

/// What is particular about one kind of ledger. `decide` is pure: the same state and command give the same events.
pub trait Book: Unpin + 'static {
    type State: Fold<Event: Named> + Unpin;
    type Command: fmt::Debug + Send + Unpin + 'static;
    type Answer: fmt::Debug + Send + 'static;
    type Error: std::error::Error + Send + 'static;

    /// Events a command leads to, and what its caller is told once they are safe.
    #[allow(clippy::type_complexity, reason = "the pair is the meaning")]
    fn decide(
        &self,
        state: &Self::State,
        command: Self::Command,
    ) -> Result<(Vec<<Self::State as Fold>::Event>, Self::Answer), Self::Error>;

    /// The state has changed, or was restored: read models follow.
    fn publish(&self, state: &Self::State);

    /// Events between two snapshots. A large state is written less often, so that a change costs the same.
    fn snapshot_every(&self, _: &Self::State) -> u64 {
        500
    }

    /// Whether the events behind a snapshot are of no more use: nobody asks who registered which phone last year.
    const FORGETS: bool = false;

    /// For inspection; counts rather than contents where there can be many.
    fn summary(&self, state: &Self::State) -> serde_json::Value;
}

/// An event that knows its name.
pub trait Named {
    fn name(&self) -> &'static str;
}

impl<T> Named for T
where
    for<'a> &'a T: Into<&'static str>,
{
    fn name(&self) -> &'static str {
        self.into()
    }
}

/// Why a command on a ledger did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError<E: std::error::Error> {
    #[error(transparent)]
    Refused(E),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the actor does not answer: {0}")]
    Ask(#[from] AskError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

type Outcome<B> = Result<<B as Book>::Answer, LedgerError<<B as Book>::Error>>;

#[derive(IntoStaticStr)]
pub enum LedgerMsg<B: Book> {
    Change(Change<B>),
    /// Decide on the changes that have come: the ledger tells itself so.
    Decide,
}

/// A change that is asked for.
pub struct Change<B: Book> {
    command: B::Command,
    origin: Origin,
    reply: Reply<Outcome<B>>,
}

impl<B: Book> fmt::Debug for LedgerMsg<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(Change { command, origin, .. }) => {
                write!(f, "{command:?} by {} from {}", origin.who, origin.from)
            }
            Self::Decide => f.write_str("decide"),
        }
    }
}

/// The actor around a [`Book`].
pub struct Ledger<B: Book> {
    book: B,
    journal: Arc<dyn Journal>,
    stream: String,
    state: B::State,
    version: u64,
    snapshot: u64,
    /// Changes that have come since the last group; no more than the mailbox holds.
    waiting: Vec<Change<B>>,
    /// The state holds events that were not kept: it is read from the journal again before anything is decided on it.
    doubtful: bool,
}

/// A change that was decided.
struct Decided<B: Book> {
    outcome: Outcome<B>,
    reply: Reply<Outcome<B>>,
    /// The version of the stream on which the outcome rests.
    version: u64,
}

impl<B: Book> Ledger<B> {
    /// Restores the state of `stream`; the maker of a child specification calls it.
    pub async fn restore(book: B, journal: Arc<dyn Journal>, stream: String) -> Result<Self, ExitReason> {
        let (state, version) = restore::<B::State>(&journal, &stream).await.map_err(ExitReason::error)?;
        book.publish(&state);
        Ok(Self {
            book,
            journal,
            stream,
            state,
            version,
            snapshot: version,
            waiting: Vec::new(),
            doubtful: false,
        })
    }

    /// As [`Ledger::restore`], for an actor whose stream is its own name.
    pub async fn restore_named(
        book: B,
        journal: Arc<dyn Journal>,
        start: &StartContext,
    ) -> Result<Self, ExitReason> {
        Self::restore(book, journal, start.address.to_string()).await
    }

    fn save_snapshot(&mut self, cx: &mut Cx<'_, Self>) {
        if self.version - self.snapshot < self.book.snapshot_every(&self.state) {
            return;
        }
        self.snapshot = self.version;
        match serde_json::to_value(&self.state) {
            Ok(state) => {
                let saved =
                    self.journal.save_snapshot(&self.stream, Snapshot { version: self.version, state });
                let (journal, stream, version) = (self.journal.clone(), self.stream.clone(), self.version);
                let saved = async move {
                    saved.await?;
                    if B::FORGETS { journal.forget(&stream, version).await } else { Ok(()) }
                };
                cx.spawn(saved, |me, saved, _| {
                    if let Err(e) = saved {
                        tracing::warn!(stream = %me.stream, error = %e, "no snapshot; the next start reads more events");
                    }
                    Ok(())
                });
            }
            Err(e) => tracing::warn!(stream = %self.stream, error = %e, "state does not serialise"),
        }
    }
}

impl<B: Book> Ledger<B> {
    /// Decides on all changes that have come, each on the state that those before it lead to, and has their events kept: the
    /// journal commits them together. Nobody is answered, and nothing published, before that.
    fn decide(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let mut version = self.version;
        let (mut decided, mut appends) = (Vec::new(), Vec::new());
        for Change { command, origin, reply } in std::mem::take(&mut self.waiting) {
            let (events, outcome) = match self.book.decide(&self.state, command) {
                Ok((events, answer)) => (events, Ok(answer)),
                Err(e) => (Vec::new(), Err(LedgerError::Refused(e))),
            };
            if !events.is_empty() {
                let mut bodies = Vec::with_capacity(events.len());
                for event in &events {
                    bodies.push(NewEvent::new(event.name(), event).map_err(ExitReason::error)?);
                }
                let stream = self.stream.clone();
                let at = cx.node().clock().now();
                appends.push(self.journal.append(Batch {
                    stream,
                    expected: version,
                    at,
                    origin,
                    events: bodies,
                }));
                version += events.len() as u64;
                events.iter().for_each(|e| self.state.apply(e));
            }
            decided.push(Decided { outcome, reply, version });
        }
        if appends.is_empty() {
            decided.into_iter().for_each(|d| d.reply.send(d.outcome));
            return Ok(());
        }
        let kept = async move {
            // In the order of the stream: behind one that fails, none is kept.
            let mut kept = Ok(None);
            for append in appends {
                match append.await {
                    Ok(version) if kept.is_ok() => kept = Ok(Some(version)),
                    Ok(_) => {}
                    Err(e) => kept = kept.and_then(|version| Err((version, e))),
                }
            }
            kept
        };
        cx.wait(kept, move |me, kept, cx| me.kept(decided, kept, cx));
        Ok(())
    }

    /// Answers: `kept` is the version up to which events are safe, and why no later ones are.
    fn kept(
        &mut self,
        decided: Vec<Decided<B>>,
        kept: Result<Option<u64>, (Option<u64>, JournalError)>,
        cx: &mut Cx<'_, Self>,
    ) -> Result<(), ExitReason> {
        let (safe, failed) = match kept {
            Ok(version) => (version, None),
            Err((version, e)) => (version, Some(e)),
        };
        self.version = safe.unwrap_or(self.version);
        let Some(e) = failed else {
            self.book.publish(&self.state);
            decided.into_iter().for_each(|d| d.reply.send(d.outcome));
            self.save_snapshot(cx);
            return Ok(());
        };
        for Decided { outcome, reply, version } in decided {
            let safe = version <= self.version;
            reply.send(if safe { outcome } else { Err(LedgerError::Journal(e.clone())) });
        }
        if matches!(e, JournalError::Conflict { .. }) {
            // Another writer was here: what this actor believes is old, so it starts again from the journal.
            return Err(ExitReason::error(&e));
        }
        self.doubtful = true;
        self.doubt(cx);
        Ok(())
    }

    /// Reads the state again after events of it were not kept; changes wait for it, and are told if it cannot be read.
    fn doubt(&mut self, cx: &mut Cx<'_, Self>) {
        let (journal, stream) = (self.journal.clone(), self.stream.clone());
        let read = async move { restore::<B::State>(&journal, &stream).await };
        cx.wait(read, |me, read, cx| match read {
            Ok((state, version)) => {
                (me.state, me.version, me.doubtful) = (state, version, false);
                me.book.publish(&me.state);
                me.decide(cx)
            }
            Err(e) => {
                let waiting = std::mem::take(&mut me.waiting);
                waiting.into_iter().for_each(|c| c.reply.send(Err(LedgerError::Journal(e.clone()))));
                Ok(())
            }
        });
    }
}

impl<B: Book> Actor for Ledger<B> {
    type Msg = LedgerMsg<B>;

    fn handle(&mut self, msg: LedgerMsg<B>, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            LedgerMsg::Change(change) => {
                // The first of a group: behind it in the mailbox stand those that have come while the last group was kept.
                if self.waiting.is_empty() {
                    cx.mailbox().push_system(LedgerMsg::Decide);
                }
                self.waiting.push(change);
                Ok(())
            }
            LedgerMsg::Decide if self.doubtful => {
                self.doubt(cx);
                Ok(())
            }
            LedgerMsg::Decide => self.decide(cx),
        }
    }

    fn inspect(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct View<'a> {
            stream: &'a str,
            version: u64,
            state: serde_json::Value,
        }
        let view =
            View { stream: &self.stream, version: self.version, state: self.book.summary(&self.state) };
        serde_json::to_value(view).unwrap_or_default()
    }
}

/// Longest a change may take: a commit on a slow disk behind a long queue.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a ledger for a change and waits until it is safe.
pub async fn change<B: Book>(
    ledger: &Mailbox<LedgerMsg<B>>,
    command: B::Command,
    origin: Origin,
) -> Outcome<B> {
    ledger.ask_for(PATIENCE, |reply| LedgerMsg::Change(Change { command, origin, reply })).await?
}

/// As [`change`], of the ledger of this name.
pub async fn change_at<B: Book>(
    node: &Node,
    address: &str,
    command: B::Command,
    origin: Origin,
) -> Outcome<B> {
    let address = Address::new(address).map_err(|_| AskError::Gone)?;
    let mailbox = node.registry().lookup::<LedgerMsg<B>>(&address)?;
    change(&mailbox, command, origin).await
}
