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
    type Command: fmt::Debug + Send + 'static;
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
    Change { command: B::Command, origin: Origin, reply: Reply<Outcome<B>> },
}

impl<B: Book> fmt::Debug for LedgerMsg<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Change { command, origin, .. } = self;
        write!(f, "{command:?} by {} from {}", origin.who, origin.from)
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
}

impl<B: Book> Ledger<B> {
    /// Restores the state of `stream`; the maker of a child specification calls it.
    pub async fn restore(book: B, journal: Arc<dyn Journal>, stream: String) -> Result<Self, ExitReason> {
        let (state, version) = restore::<B::State>(&journal, &stream).await.map_err(ExitReason::error)?;
        book.publish(&state);
        Ok(Self { book, journal, stream, state, version, snapshot: version })
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

impl<B: Book> Actor for Ledger<B> {
    type Msg = LedgerMsg<B>;

    fn handle(&mut self, msg: LedgerMsg<B>, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let LedgerMsg::Change { command, origin, reply } = msg;
        let (events, answer) = match self.book.decide(&self.state, command) {
            Ok(decided) => decided,
            Err(e) => {
                reply.send(Err(LedgerError::Refused(e)));
                return Ok(());
            }
        };
        if events.is_empty() {
            reply.send(Ok(answer));
            return Ok(());
        }
        let mut bodies = Vec::with_capacity(events.len());
        for event in &events {
            bodies.push(NewEvent::new(event.name(), event).map_err(ExitReason::error)?);
        }
        let batch = Batch {
            stream: self.stream.clone(),
            expected: self.version,
            at: cx.node().clock().now(),
            origin,
            events: bodies,
        };
        let appended = self.journal.append(batch);
        cx.wait(appended, move |me, appended, cx| match appended {
            Ok(version) => {
                for event in &events {
                    me.state.apply(event);
                }
                me.version = version;
                me.book.publish(&me.state);
                reply.send(Ok(answer));
                me.save_snapshot(cx);
                Ok(())
            }
            Err(e) => {
                // Somebody else wrote here: what this actor believes is old, so it starts again from the journal.
                let stale = matches!(e, JournalError::Conflict { .. });
                let reason = ExitReason::error(&e);
                reply.send(Err(LedgerError::Journal(e)));
                if stale { Err(reason) } else { Ok(()) }
            }
        });
        Ok(())
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
    ledger.ask_for(PATIENCE, |reply| LedgerMsg::Change { command, origin, reply }).await?
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
