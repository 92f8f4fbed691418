//! The actor `call/records`: keeps call records. All that arrives while the journal writes is written together next, so
//! that a thousand calls a second cost a few hundred commits.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use kit::{
    Actor, Address, Cx, ExitReason, Reply,
    alarm::{Condition, Severity},
    journal::{Batch, Fold, Journal, JournalError, NewEvent, Origin, Snapshot, restore},
};
use strum::IntoStaticStr;

use crate::{
    Cause,
    record::{Cdr, OpenCalls, RecordEvent, key},
};

/// Between two commits: who comes meanwhile goes with the next, so that many calls cost few commits. After silence the first
/// record is written at once.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
/// Between two signs of life while calls are under way: what a crash may cost a record at most.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(5);
/// Records that go at once, and the pauses before more of them are looked for: a node with many years of them stays as quick as it is.
const FORGOTTEN: u32 = 2_000;
const FORGET_MORE: std::time::Duration = std::time::Duration::from_secs(1);
const FORGET_AGAIN: std::time::Duration = std::time::Duration::from_secs(3600);
/// Events between two snapshots.
const SNAPSHOT: u64 = 5_000;

/// Events that are held in memory while the journal takes none: calls go on, and their records are written when there is room
/// again. Beyond them an answer is refused, so that no call is without a record.
const HELD: usize = 20_000;

/// Class of the alarm of records that cannot be kept.
const UNWRITTEN: &str = "call::records::unwritten";

/// The actor's name, and its stream's.
pub const NAME: &str = "call/records";

pub(crate) fn address() -> Result<Address, ExitReason> {
    Address::new(NAME).map_err(ExitReason::error)
}

#[derive(Debug, IntoStaticStr)]
pub enum RecordsMsg {
    Keep {
        event: RecordEvent,
        reply: Option<Reply<Result<(), JournalError>>>,
    },
    /// A call's actor, or all of them, ended without saying how their connections did.
    Lost {
        call: Option<Address>,
    },
    /// The pause after a commit, or after one that failed, is over.
    Rested,
    /// A sign of life is due.
    Alive,
    /// It is looked for records that are old enough to go.
    Forget,
}

type Waiting = (RecordEvent, Option<Reply<Result<(), JournalError>>>);

pub(crate) struct Records {
    journal: Arc<dyn Journal>,
    open: OpenCalls,
    version: u64,
    snapshot: u64,
    waiting: Vec<Waiting>,
    writing: bool,
    /// A commit is under way, not the pause behind it.
    committing: bool,
    /// The journal has refused the last commit.
    holding: bool,
    /// Ends that are being written.
    ending: Vec<String>,
    /// How long records are kept; none: for ever.
    keep: Option<std::time::Duration>,
    /// The node stops: the actor ends when everything is written.
    stopping: bool,
}

/// The end of an answered call that has lost its actor at `at`.
fn orphan(cdr: &Cdr, at: DateTime<Utc>, by: &str) -> RecordEvent {
    let cdr = Cdr {
        ended: Some(at.max(cdr.answered.unwrap_or(at))),
        cause: Some(Cause::TEMPORARY_FAILURE),
        released_by: by.into(),
        ..cdr.clone()
    };
    RecordEvent::Ended { cdr: Box::new(cdr), ladder: String::new() }
}

impl Records {
    /// Restores the stream. Calls still open belonged to a node that died: they ended at its last sign of life.
    pub(crate) async fn restore(
        journal: Arc<dyn Journal>,
        now: DateTime<Utc>,
        keep: Option<std::time::Duration>,
    ) -> Result<Self, ExitReason> {
        let (open, version) = restore::<OpenCalls>(&journal, NAME).await.map_err(ExitReason::error)?;
        let died = open.alive.map_or(now, |alive| alive.min(now));
        let waiting = open.calls.values().map(|cdr| (orphan(cdr, died, "outage"), None)).collect();
        Ok(Self {
            journal,
            open,
            version,
            snapshot: version,
            waiting,
            writing: false,
            committing: false,
            holding: false,
            ending: Vec::new(),
            keep,
            stopping: false,
        })
    }

    fn write(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if self.stopping && !self.writing && self.waiting.is_empty() {
            return Err(ExitReason::Shutdown);
        }
        if self.writing || self.waiting.is_empty() {
            return Ok(());
        }
        self.writing = true;
        self.committing = true;
        let (events, replies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let mut bodies = Vec::with_capacity(events.len());
        for event in &events {
            if let RecordEvent::Ended { cdr, .. } = event {
                self.ending.push(key(cdr));
            }
            let kind: &'static str = event.into();
            bodies.push(NewEvent::new(kind, event).map_err(ExitReason::error)?);
        }
        let batch = Batch {
            stream: NAME.into(),
            expected: self.version,
            at: cx.node().clock().now(),
            origin: Origin::system(),
            events: bodies,
        };
        let appended = self.journal.append(batch);
        cx.spawn(appended, move |me, appended, cx| {
            me.ending.clear();
            me.committing = false;
            let outcome = appended.map(|version| {
                for event in &events {
                    me.open.apply(event);
                }
                me.version = version;
            });
            let lost = matches!(outcome, Err(JournalError::Conflict { .. } | JournalError::Stopped));
            let held = outcome.is_err() && !lost && !me.stopping && events.len() + me.waiting.len() <= HELD;
            for reply in replies.into_iter().flatten() {
                reply.send(if held { Ok(()) } else { outcome.clone() });
            }
            me.holding = held;
            match outcome {
                Err(e @ (JournalError::Conflict { .. } | JournalError::Stopped)) => {
                    return Err(ExitReason::error(e));
                }
                Err(e) => {
                    // Ends are tried again with the next; so are answers, unless they have been refused.
                    let count = me.waiting.len() + events.len();
                    let cause = format!("{e}; {count} events are held in memory, {HELD} at most");
                    cx.node()
                        .alarms()
                        .raise(Condition::new(UNWRITTEN, Severity::Critical, NAME).cause(cause));
                    let again = |e: &RecordEvent| match e {
                        RecordEvent::Alive { .. } => false,
                        RecordEvent::Answered { .. } => held,
                        _ => true,
                    };
                    me.waiting.splice(..0, events.into_iter().filter(again).map(|e| (e, None)));
                    cx.after(std::time::Duration::from_secs(1), RecordsMsg::Rested);
                    return Ok(());
                }
                Ok(()) => cx.node().alarms().clear(UNWRITTEN, None, NAME),
            }
            me.save_snapshot(cx);
            if me.stopping {
                me.writing = false;
                return me.write(cx);
            }
            cx.after(PAUSE, RecordsMsg::Rested);
            Ok(())
        });
        Ok(())
    }

    /// Records whose time is over go; calls under way are in the snapshot.
    fn forget(&self, cx: &mut Cx<'_, Self>) {
        let Some(keep) = self.keep.and_then(|k| chrono::TimeDelta::from_std(k).ok()) else { return };
        let before = cx.node().clock().now() - keep;
        let forgotten = self.journal.forget_old(NAME, before, FORGOTTEN);
        cx.spawn(forgotten, |_, forgotten, cx| {
            let pause = match forgotten {
                Ok(n) if n >= u64::from(FORGOTTEN) => FORGET_MORE,
                Ok(_) => FORGET_AGAIN,
                Err(e) => {
                    tracing::warn!(error = %e, "old call records stay");
                    FORGET_AGAIN
                }
            };
            cx.after(pause, RecordsMsg::Forget);
            Ok(())
        });
    }

    fn save_snapshot(&mut self, cx: &mut Cx<'_, Self>) {
        if self.version - self.snapshot >= SNAPSHOT {
            self.snapshot_now(cx);
        }
    }

    fn snapshot_now(&mut self, cx: &mut Cx<'_, Self>) {
        if self.version == self.snapshot {
            return;
        }
        self.snapshot = self.version;
        let Ok(state) = serde_json::to_value(&self.open) else { return };
        let saved = self.journal.save_snapshot(NAME, Snapshot { version: self.version, state });
        cx.spawn(saved, |_, saved, _| {
            if let Err(e) = saved {
                tracing::warn!(error = %e, "no snapshot of the call records");
            }
            Ok(())
        });
    }
}

impl Actor for Records {
    type Msg = RecordsMsg;

    const MAILBOX: u32 = 100_000;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.after(ALIVE, RecordsMsg::Alive);
        if self.keep.is_some() {
            cx.after(FORGET_MORE, RecordsMsg::Forget);
        }
        self.write(cx)
    }

    /// Records that wait, ends of calls above all, are written before the actor ends.
    fn exit_requested(&mut self, _: &ExitReason, cx: &mut Cx<'_, Self>) -> bool {
        self.stopping = true;
        if !self.writing && self.waiting.is_empty() {
            return true;
        }
        // Between two commits nothing is under way: the pause need not pass.
        if !self.committing {
            self.writing = false;
        }
        self.write(cx).is_err()
    }

    fn handle(&mut self, msg: RecordsMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            RecordsMsg::Rested => self.writing = false,
            RecordsMsg::Forget => {
                // Records up to the snapshot may go; the journal takes one request after the other.
                self.snapshot_now(cx);
                self.forget(cx);
            }
            RecordsMsg::Alive => {
                cx.after(ALIVE, RecordsMsg::Alive);
                let now = cx.node().clock().now();
                if !self.open.calls.is_empty() && self.open.alive.is_none_or(|at| at + ALIVE <= now) {
                    self.waiting.push((RecordEvent::Alive { at: now }, None));
                }
            }
            RecordsMsg::Keep { event, reply } => {
                let room = self.holding && self.waiting.len() < HELD;
                let reply = match reply {
                    // It is not waited for the next try.
                    Some(reply) if room => {
                        reply.send(Ok(()));
                        None
                    }
                    reply => reply,
                };
                self.waiting.push((event, reply));
            }
            RecordsMsg::Lost { call } => {
                let now = cx.node().clock().now();
                let under_way = |cdr: &Cdr| {
                    self.ending.contains(&key(cdr))
                        || self.waiting.iter().any(
                            |(e, _)| matches!(e, RecordEvent::Ended { cdr: c, .. } if key(c) == key(cdr)),
                        )
                };
                let open: Vec<RecordEvent> = self
                    .open
                    .calls
                    .values()
                    .filter(|c| call.as_ref().is_none_or(|call| c.call == call.as_str()) && !under_way(c))
                    .map(|c| orphan(c, now, "system"))
                    .collect();
                self.waiting.extend(open.into_iter().map(|e| (e, None)));
            }
        }
        self.write(cx)
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "open": self.open.calls.len(), "version": self.version, "waiting": self.waiting.len() })
    }
}
