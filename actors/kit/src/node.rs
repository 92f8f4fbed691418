//! One node: its names, threads, clock, crash log and trace.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use actix::ArbiterHandle;
use parking_lot::Mutex;
use rand::{RngCore, SeedableRng, rngs::StdRng};

use crate::{
    Cell, Clock, Pid, Registry, alarm::Alarms, crash::CrashLog, host, log::LogRing, trace::Trace,
    tree::Totals,
};

/// Which thread (actix arbiter) an actor lives on. Actors that ask each other belong together: an ask across arbiters
/// costs two thread wake-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// With its supervisor.
    #[default]
    Here,
    /// On the next arbiter in turn.
    Spread,
    /// On an arbiter of this name, made when it is first asked for: work of strangers or of people, which must not hold up
    /// anybody else's.
    Apart(&'static str),
}

/// What all actors of a node share. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    name: String,
    registry: Registry,
    arbiters: Vec<ArbiterHandle>,
    apart: Mutex<HashMap<&'static str, ArbiterHandle>>,
    turn: AtomicUsize,
    pids: AtomicU64,
    clock: Clock,
    quanta: quanta::Clock,
    crashes: CrashLog,
    log: Arc<LogRing>,
    alarms: Alarms,
    trace: Trace,
    retired: Mutex<Totals>,
    rng: Mutex<StdRng>,
}

/// How to make a [`Node`].
pub struct NodeBuilder {
    name: String,
    arbiters: usize,
    clock: Clock,
    crashes: CrashLog,
    log: Arc<LogRing>,
    seed: Option<u64>,
}

impl Node {
    pub fn builder(name: impl Into<String>) -> NodeBuilder {
        NodeBuilder {
            name: name.into(),
            arbiters: 0,
            clock: Clock::System,
            crashes: CrashLog::default(),
            log: Arc::default(),
            seed: None,
        }
    }

    /// The node's name as the operator sees it, `ds1@ecss1`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub fn quanta(&self) -> &quanta::Clock {
        &self.0.quanta
    }

    pub fn crashes(&self) -> &CrashLog {
        &self.0.crashes
    }

    /// The newest lines of the log.
    pub fn log(&self) -> &LogRing {
        &self.0.log
    }

    /// Conditions that an operator must act on.
    pub fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// What all actors have done since the node's start, by their type; those that have ended count too.
    pub fn totals(&self) -> Totals {
        // The lock keeps an actor that ends right now from being counted twice, or not at all.
        let retired = self.0.retired.lock();
        let mut totals = retired.clone();
        for cell in self.registry().all() {
            totals.add(&cell, self.quanta(), true);
        }
        totals
    }

    /// Gives an ended actor's name up and keeps its counts.
    pub(crate) fn retire(&self, cell: &Cell) {
        let mut retired = self.0.retired.lock();
        retired.add(cell, self.quanta(), false);
        self.registry().unregister(cell);
    }

    pub(crate) fn next_pid(&self) -> Pid {
        self.0.pids.fetch_add(1, Relaxed)
    }

    /// Random bits for identities that need not be secret; the same in every replay with the same seed. The generator is a
    /// cryptographic one: what it has given away tells nothing of what follows.
    pub fn random_id(&self) -> u64 {
        self.0.rng.lock().next_u64()
    }

    /// A random key for the process's own use; the same in every replay with the same seed, else the system's randomness.
    pub fn random_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        self.0.rng.lock().fill_bytes(&mut key);
        key
    }

    /// Runs `make`'s future on the thread that `placement` names.
    pub(crate) fn run_on<F, Fut>(&self, placement: Placement, make: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        match (placement, self.0.arbiters.len()) {
            // Replays keep everything on one thread.
            (Placement::Here, _) | (Placement::Spread | Placement::Apart(_), 0) => {
                actix::spawn(make());
            }
            (Placement::Spread, n) => {
                let turn = self.0.turn.fetch_add(1, Relaxed) % n;
                self.0.arbiters[turn].spawn_fn(move || {
                    actix::spawn(make());
                });
            }
            (Placement::Apart(name), _) => {
                let mut apart = self.0.apart.lock();
                let arbiter = apart.entry(name).or_insert_with(|| actix::Arbiter::new().handle());
                arbiter.spawn_fn(move || {
                    actix::spawn(make());
                });
            }
        }
    }
}

impl NodeBuilder {
    /// Threads for actors beside the one that calls; none keeps everything on the caller's, as replays want.
    pub fn arbiters(mut self, n: usize) -> Self {
        self.arbiters = n;
        self
    }

    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub fn crashes(mut self, crashes: CrashLog) -> Self {
        self.crashes = crashes;
        self
    }

    /// A ring that the process's log already writes to.
    pub fn log(mut self, log: Arc<LogRing>) -> Self {
        self.log = log;
        self
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the arbiters; needs a running actix system.
    pub fn build(self) -> Node {
        host::install_panic_hook();
        let arbiters = (0..self.arbiters).map(|_| actix::Arbiter::new().handle()).collect();
        Node(Arc::new(Inner {
            alarms: Alarms::new(self.name.clone(), self.clock),
            name: self.name,
            registry: Registry::default(),
            arbiters,
            apart: Mutex::default(),
            turn: AtomicUsize::new(0),
            pids: AtomicU64::new(1),
            clock: self.clock,
            quanta: quanta::Clock::new(),
            crashes: self.crashes,
            log: self.log,
            retired: Mutex::default(),
            trace: Trace::default(),
            rng: Mutex::new(self.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64)),
        }))
    }
}
