//! Typed mailboxes with a bound.

use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    Address, Cell,
    actor::Message,
    host::{self, Envelope},
};

/// The way to one actor. The policy of a full mailbox: the message comes back to its sender as [`Refused::Full`] and
/// is counted; nothing is dropped silently and nothing grows without bound. A sender that would rather wait uses
/// [`Mailbox::send`].
pub struct Mailbox<M: Message> {
    cell: Arc<Cell>,
    to: actix::Recipient<Envelope<M>>,
}

/// A message that was not taken; it is given back.
#[derive(Debug, thiserror::Error)]
pub enum Refused<M> {
    #[error("the mailbox is full")]
    Full(M),
    #[error("the actor has ended")]
    Gone(M),
}

/// Why a question got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("its mailbox is full")]
    Full,
    #[error("it has ended")]
    Gone,
    #[error("it ended, or dropped the question, before it answered")]
    Unanswered,
    #[error("it did not answer in time")]
    Timeout,
}

/// Where an answer goes. Dropping it tells the asker [`AskError::Unanswered`].
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    pub fn new() -> (Self, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), rx)
    }

    /// Answers; an asker that has gone away is no error.
    pub fn send(self, value: T) {
        let _ = self.0.send(value);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reply")
    }
}

impl<M: Message> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { cell: self.cell.clone(), to: self.to.clone() }
    }
}

impl<M: Message> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mailbox of {}", self.cell.address())
    }
}

impl<M: Message> Mailbox<M> {
    /// How long [`Mailbox::ask`] waits, as OTP's `gen_server:call`.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    pub(crate) fn new(cell: Arc<Cell>, to: actix::Recipient<Envelope<M>>) -> Self {
        Self { cell, to }
    }

    pub fn address(&self) -> &Address {
        self.cell.address()
    }

    pub fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Sends without waiting.
    #[allow(clippy::result_large_err, reason = "the refused message goes back to its sender")]
    pub fn tell(&self, msg: M) -> Result<(), Refused<M>> {
        if self.cell.ended().is_some() {
            return Err(Refused::Gone(msg));
        }
        let v = &self.cell.vitals;
        let before = v.depth.fetch_add(1, Relaxed);
        if before >= self.cell.mailbox_limit() {
            v.depth.fetch_sub(1, Relaxed);
            v.refused.fetch_add(1, Relaxed);
            metrics::counter!("hypha_mailbox_refused_total").increment(1);
            return Err(Refused::Full(msg));
        }
        self.post(msg, before + 1);
        Ok(())
    }

    /// Sends, waiting for room.
    pub async fn send(&self, msg: M) -> Result<(), Refused<M>> {
        // There nearly always is room, and then nothing to wait for.
        let mut msg = match self.tell(msg) {
            Err(Refused::Full(back)) => back,
            done => return done,
        };
        loop {
            let room = self.cell.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.tell(msg) {
                Err(Refused::Full(back)) => msg = back,
                done => return done,
            }
            room.await;
        }
    }

    /// Asks and waits [`Self::PATIENCE`] for the answer.
    pub fn ask<R: Send + 'static>(
        &self,
        make: impl FnOnce(Reply<R>) -> M,
    ) -> impl Future<Output = Result<R, AskError>> + Send + 'static {
        self.ask_for(Self::PATIENCE, make)
    }

    /// Asks and waits `patience` for the answer.
    pub fn ask_for<R: Send + 'static>(
        &self,
        patience: Duration,
        make: impl FnOnce(Reply<R>) -> M,
    ) -> impl Future<Output = Result<R, AskError>> + Send + 'static {
        let (reply, answer) = Reply::new();
        let sent = self.tell(make(reply)).map_err(|refused| match refused {
            Refused::Full(_) => AskError::Full,
            Refused::Gone(_) => AskError::Gone,
        });
        async move {
            sent?;
            match tokio::time::timeout(patience, answer).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(_)) => Err(AskError::Unanswered),
                Err(_) => Err(AskError::Timeout),
            }
        }
    }

    /// A message of the system itself (a timer, a monitor): it has a place beyond the bound, since its number is
    /// bounded by what the actor itself asked for.
    pub(crate) fn push_system(&self, msg: M) {
        let before = self.cell.vitals.depth.fetch_add(1, Relaxed);
        self.post(msg, before + 1);
    }

    fn post(&self, msg: M, depth: u32) {
        let peak = &self.cell.vitals.peak;
        if depth > peak.load(Relaxed) {
            peak.store(depth, Relaxed);
        }
        self.to.do_send(Envelope { msg, from: host::current() });
    }
}
