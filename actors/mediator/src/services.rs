//! What the mediator's actors share, and what is seen of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use e1::port::Port;
use kit::{Node, Vault, journal::Journal};
use parking_lot::Mutex;
use sorm::audit::Audit;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    desk::Link,
    handover::Tap,
    outbox::Kept,
    settings::{STREAMS, Settings},
};

#[derive(Clone)]
pub struct Services {
    pub node: Node,
    /// Its own, sealed.
    pub journal: Arc<dyn Journal>,
    pub vault: Arc<dyn Vault>,
    pub audit: Audit,
    /// Whether secrets and addresses of the others are changed by two persons.
    pub two_persons: bool,
    pub settings: Arc<ArcSwap<Settings>>,
    pub kept: Arc<ArcSwap<Kept>>,
    /// Told of every change of the outbox.
    pub changed: watch::Sender<()>,
    pub board: Board,
    /// What channels carry, for the handover.
    pub tap: Tap,
    /// The thread where lines and speech flow.
    pub lines: Lines,
}

/// A thread of its own for what has to happen each millisecond; it ends with its last clone.
#[derive(Clone)]
pub struct Lines(Arc<Thread>);

struct Thread {
    handle: Handle,
    /// Ends the thread when it is dropped.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Lines {
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, (stop, stopped)) = (runtime.handle().clone(), tokio::sync::oneshot::channel());
        let run = move || drop(runtime.block_on(stopped));
        std::thread::Builder::new().name("e1".into()).spawn(run)?;
        Ok(Self(Arc::new(Thread { handle, _stop: stop })))
    }

    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.handle.spawn(work)
    }
}

/// How everything is; clones share it.
#[derive(Clone, Default)]
pub struct Board(Arc<Seen>);

#[derive(Default)]
pub struct Seen {
    ports: [Mutex<Option<Port>>; STREAMS],
    /// What each actor says of itself.
    states: Mutex<BTreeMap<String, String>>,
    /// Where doors are, and which opening of them it is.
    bound: Mutex<BTreeMap<String, (u64, SocketAddr)>>,
    openings: AtomicU64,
    pub links: Mutex<BTreeSet<Link>>,
    pub blocked: AtomicBool,
    /// Notifications that came, that came again, and packets that were none of the station's.
    pub received: AtomicU64,
    pub again: AtomicU64,
    pub strange: AtomicU64,
    /// Notifications that never came.
    pub missing: AtomicU64,
    /// Units that were deleted unsent.
    pub discarded: AtomicU64,
    /// Packets of speech that found no stream, or came from somebody else.
    pub stray: AtomicU64,
}

impl Deref for Board {
    type Target = Seen;

    fn deref(&self) -> &Seen {
        &self.0
    }
}

impl Seen {
    pub fn port(&self, stream: usize) -> Option<Port> {
        self.ports.get(stream)?.lock().clone()
    }

    pub(crate) fn set_port(&self, stream: usize, port: Port) {
        if let Some(place) = self.ports.get(stream) {
            *place.lock() = Some(port);
        }
    }

    /// Takes a port away, unless another is in its place by now.
    pub(crate) fn clear_port(&self, stream: usize, port: &Port) {
        if let Some(mut place) = self.ports.get(stream).map(Mutex::lock)
            && place.as_ref().is_some_and(|p| p.is(port))
        {
            *place = None;
        }
    }

    /// What an actor says of itself.
    pub fn say(&self, who: &str, state: impl Into<String>) {
        self.states.lock().insert(who.to_owned(), state.into());
    }

    pub fn states(&self) -> BTreeMap<String, String> {
        self.states.lock().clone()
    }

    pub fn bound(&self) -> BTreeMap<String, SocketAddr> {
        self.bound.lock().iter().map(|(who, (_, at))| (who.clone(), *at)).collect()
    }
}

/// A door is on the board for as long as this lives; one that was opened anew stays.
pub struct Bound {
    board: Board,
    who: String,
    opening: u64,
}

impl Bound {
    pub fn new(board: &Board, who: &str, at: SocketAddr) -> Self {
        let opening = board.openings.fetch_add(1, Relaxed);
        board.bound.lock().insert(who.to_owned(), (opening, at));
        Self { board: board.clone(), who: who.to_owned(), opening }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut bound = self.board.bound.lock();
        if bound.get(&self.who).is_some_and(|(opening, _)| *opening == self.opening) {
            bound.remove(&self.who);
        }
    }
}
