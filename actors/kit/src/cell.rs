//! An actor as others see it: identity, counters, monitors and its end.

use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use crate::{Address, ExitReason, host::Control, spec::Kind};

/// Identity of one life of an actor; a restart gets a new one.
pub type Pid = u64;

/// The end of an actor, told to its monitors.
#[derive(Debug, Clone)]
pub struct Down {
    pub pid: Pid,
    pub address: Address,
    pub reason: ExitReason,
}

/// Counters of one actor.
#[derive(Debug, Default)]
pub struct Vitals {
    pub(crate) handled: AtomicU64,
    pub(crate) depth: AtomicU32,
    pub(crate) peak: AtomicU32,
    pub(crate) refused: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    /// Raw clock reading at which the running handler began; 0 when idle.
    pub(crate) busy_since: AtomicU64,
}

/// Counters at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct VitalsView {
    pub handled: u64,
    /// Messages waiting.
    pub mailbox: u32,
    /// Most messages that ever waited.
    pub mailbox_peak: u32,
    pub mailbox_limit: u32,
    /// Messages given back to their senders because the mailbox was full.
    pub refused: u64,
    /// Time spent in handlers, microseconds.
    pub busy_us: u64,
    /// How long the running handler has been at it, microseconds; 0 when idle.
    pub running_us: u64,
}

type Watcher = Box<dyn FnOnce(Down) + Send>;

/// The shared side of an actor.
pub struct Cell {
    pid: Pid,
    address: Address,
    parent: Option<Address>,
    kind: Kind,
    type_name: &'static str,
    started: chrono::DateTime<chrono::Utc>,
    restarts: u32,
    mailbox_limit: u32,
    pub(crate) vitals: Vitals,
    pub(crate) room: Notify,
    /// Set with the reason when the actor must end before its next message.
    pub(crate) ordered: Mutex<Option<ExitReason>>,
    pub(crate) has_order: AtomicBool,
    pub(crate) interrupt: Notify,
    pub(crate) traced: AtomicBool,
    ended: OnceLock<ExitReason>,
    watchers: Mutex<Vec<(Option<Address>, Watcher)>>,
    pub(crate) inbox: Box<dyn Any + Send + Sync>,
    control: actix::Recipient<Control>,
    /// Children a supervisor has that are not running now.
    pub(crate) absent: Mutex<Vec<crate::tree::Absent>>,
}

pub(crate) struct CellParts {
    pub pid: Pid,
    pub address: Address,
    pub parent: Option<Address>,
    pub kind: Kind,
    pub type_name: &'static str,
    pub started: chrono::DateTime<chrono::Utc>,
    pub restarts: u32,
    pub mailbox_limit: u32,
    pub inbox: Box<dyn Any + Send + Sync>,
    pub control: actix::Recipient<Control>,
}

impl Cell {
    pub(crate) fn new(p: CellParts) -> Arc<Self> {
        Arc::new(Self {
            pid: p.pid,
            address: p.address,
            parent: p.parent,
            kind: p.kind,
            type_name: p.type_name,
            started: p.started,
            restarts: p.restarts,
            mailbox_limit: p.mailbox_limit,
            vitals: Vitals::default(),
            room: Notify::new(),
            ordered: Mutex::new(None),
            has_order: AtomicBool::new(false),
            interrupt: Notify::new(),
            traced: AtomicBool::new(false),
            ended: OnceLock::new(),
            watchers: Mutex::new(Vec::new()),
            inbox: p.inbox,
            control: p.control,
            absent: Mutex::new(Vec::new()),
        })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn parent(&self) -> Option<&Address> {
        self.parent.as_ref()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The Rust type of the actor.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    pub fn started_at(&self) -> chrono::DateTime<chrono::Utc> {
        self.started
    }

    /// How often its supervisor has started it again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    pub fn mailbox_limit(&self) -> u32 {
        self.mailbox_limit
    }

    pub fn vitals(&self, clock: &quanta::Clock) -> VitalsView {
        let v = &self.vitals;
        let since = v.busy_since.load(Relaxed);
        let running = if since == 0 { 0 } else { clock.delta_as_nanos(since, clock.raw()) / 1000 };
        VitalsView {
            handled: v.handled.load(Relaxed),
            mailbox: v.depth.load(Relaxed),
            mailbox_peak: v.peak.load(Relaxed),
            mailbox_limit: self.mailbox_limit,
            refused: v.refused.load(Relaxed),
            busy_us: v.busy_ns.load(Relaxed) / 1000,
            running_us: running,
        }
    }

    /// The reason it ended, once it has.
    pub fn ended(&self) -> Option<&ExitReason> {
        self.ended.get()
    }

    /// Whether its messages are published on the node's trace.
    pub fn is_traced(&self) -> bool {
        self.traced.load(Relaxed)
    }

    pub fn set_traced(&self, on: bool) {
        self.traced.store(on, Relaxed);
    }

    /// Asks it to end before its next message. A kill also interrupts what it waits for.
    pub fn exit(&self, reason: ExitReason) {
        let kill = reason == ExitReason::Killed;
        {
            let mut order = self.ordered.lock();
            if order.is_none() || kill {
                *order = Some(reason);
            }
        }
        self.has_order.store(true, std::sync::atomic::Ordering::Release);
        if kill {
            self.interrupt.notify_waiters();
            // Also covers a continuation that has not begun to wait yet.
            self.interrupt.notify_one();
        }
        self.control.do_send(Control::Wake);
    }

    /// Calls `then` once when the actor ends; at once when it already has.
    pub fn watch(&self, by: Option<Address>, then: impl FnOnce(Down) + Send + 'static) {
        {
            let mut watchers = self.watchers.lock();
            if self.ended.get().is_none() {
                watchers.push((by, Box::new(then)));
                return;
            }
        }
        let reason = self.ended.get().cloned().unwrap_or(ExitReason::NoActor);
        then(Down { pid: self.pid, address: self.address.clone(), reason });
    }

    /// Names of the actors that monitor it.
    pub fn monitored_by(&self) -> Vec<Address> {
        self.watchers.lock().iter().filter_map(|(by, _)| by.clone()).collect()
    }

    /// Marks the end and tells the monitors; the first call counts.
    pub(crate) fn finish(&self, reason: ExitReason) {
        let watchers = {
            let mut w = self.watchers.lock();
            if self.ended.set(reason.clone()).is_err() {
                return;
            }
            std::mem::take(&mut *w)
        };
        self.room.notify_waiters();
        for (_, told) in watchers {
            told(Down { pid: self.pid, address: self.address.clone(), reason: reason.clone() });
        }
    }

    /// The actor's own account of its state; `None` when it does not answer within `patience`.
    pub async fn inspect(&self, patience: Duration) -> Option<serde_json::Value> {
        let (tx, rx) = oneshot::channel();
        self.control.do_send(Control::Inspect(tx));
        tokio::time::timeout(patience, rx).await.ok()?.ok()
    }
}
