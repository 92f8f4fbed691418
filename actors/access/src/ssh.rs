//! SSH connections as actors: a listener, and one actor for each connection, which ends with it, and it with the actor.
//! What is said on one is its handler's business.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node, Placement, Seldom, Strategy,
    SupervisorHandle, SupervisorSpec,
    alarm::{Condition, Severity},
    intake::SshIntake,
};
use parking_lot::Mutex;
use russh::{
    MethodKind, MethodSet, Preferred, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey},
    server::{Auth, Config, Handler},
};
use strum::IntoStaticStr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

/// Class of the alarm of a port that cannot be opened.
const CLOSED: &str = "node::door::closed";

/// Where connections come in.
#[derive(Clone)]
pub struct Listen {
    /// The listener's name, and that of the supervisor of its connections; a connection is a child of the latter's name.
    pub listener: Address,
    pub connections: Address,
    /// What the log calls it.
    pub what: &'static str,
    /// The thread of its connections: key exchanges of strangers hold up nothing else.
    pub thread: &'static str,
    /// Asked at each start of the listener.
    pub at: Arc<dyn Fn() -> SocketAddr + Send + Sync>,
    pub keys: Vec<PrivateKey>,
    /// Connections at the same time.
    pub limit: usize,
    /// Time after which a silent connection ends.
    pub idle: Duration,
    pub intake: SshIntake,
    /// Ways to prove who one is.
    pub methods: &'static [MethodKind],
    /// Told the address once the listener has one; tests listen on port 0.
    pub bound: watch::Sender<Option<SocketAddr>>,
}

/// A connection that has come in.
pub struct Arrival {
    pub peer: SocketAddr,
    pub node: Node,
    /// To be told who has logged in.
    pub user: watch::Sender<Option<String>>,
    /// To be told that keys are exchanged and the peer asks to log in.
    pub asks: watch::Sender<bool>,
    /// Ends with the connection's actor.
    pub alive: watch::Receiver<()>,
    /// Ends the connection.
    pub end: Arc<dyn Fn() + Send + Sync>,
}

/// No, and what may be tried.
pub fn refusal(methods: &[MethodKind]) -> Auth {
    Auth::Reject { proceed_with_methods: Some(MethodSet::from(methods)), partial_success: false }
}

/// Both children: the supervisor of the connections, then the listener.
pub fn children<H, F>(listen: Listen, make: F) -> Result<[ChildSpec; 2], AddressError>
where
    H: Handler<Error: std::fmt::Debug> + Send + 'static,
    F: Fn(Arrival) -> H + Clone + Unpin + Send + Sync + 'static,
{
    let connections = SupervisorSpec::new(listen.connections.clone(), Strategy::Dynamic)
        .intensity(100, Duration::from_secs(1))
        .into_child()
        .place(Placement::Apart(listen.thread));
    let thread = listen.thread;
    let listener = ChildSpec::worker(listen.listener.clone(), move |_| {
        let (listen, make) = (listen.clone(), make.clone());
        async move {
            let config = Arc::new(config(&listen));
            let places = Arc::new(Semaphore::new(listen.limit.min(Semaphore::MAX_PERMITS)));
            Ok(Listener {
                listen,
                make,
                config,
                socket: None,
                turn: 0,
                given_up: Arc::default(),
                trouble: None,
                places,
                strangers: Arc::default(),
                lines: Seldom::new(1),
                accepted: 0,
                refused: 0,
            })
        }
    })
    .place(Placement::Apart(thread));
    Ok([connections, listener])
}

fn config(listen: &Listen) -> Config {
    Config {
        keys: listen.keys.clone(),
        methods: MethodSet::from(listen.methods),
        preferred: preferred(),
        // Wrong passwords are slowed by the door; a key of an agent that fits no account costs nothing.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: listen.intake.offers,
        inactivity_timeout: Some(listen.idle),
        keepalive_interval: Some(Duration::from_secs(30)),
        ..Config::default()
    }
}

/// Key exchanges without Diffie-Hellman over primes: an answer to those costs this side far more than the other (CVE-2002-20001,
/// DHEat). Signatures without SHA-1.
pub fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::ECDH_SHA2_NISTP256,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const KEYS: &[Algorithm] = &[
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    Preferred { kex: Cow::Borrowed(KEX), key: Cow::Borrowed(KEYS), ..Preferred::DEFAULT }
}

/// A place among the connections, until it is given back.
type Place = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// Connections that have not logged in, by number: where from, since when, and what ends them.
type Strangers = Arc<Mutex<HashMap<u64, (IpAddr, Instant, crate::cut::Switch, Place)>>>;

/// Takes connections and gives each its actor.
struct Listener<F> {
    listen: Listen,
    make: F,
    config: Arc<Config>,
    socket: Option<Arc<TcpListener>>,
    /// Which socket it is; what an earlier one still brings counts no more.
    turn: u64,
    /// Told when the port of this turn is no longer ours.
    given_up: Arc<tokio::sync::Notify>,
    /// Why there is none.
    trouble: Option<String>,
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    strangers: Strangers,
    lines: Seldom,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, IntoStaticStr)]
enum Never {}

#[derive(Debug, IntoStaticStr)]
pub enum ListenerMsg {
    /// Takes the port that is set now. One that is taken by somebody else is tried again, and the one before is kept.
    Bind,
}

/// Between two tries to open a port.
const AGAIN: Duration = Duration::from_secs(5);

impl<H, F> Actor for Listener<F>
where
    H: Handler<Error: std::fmt::Debug> + Send + 'static,
    F: Fn(Arrival) -> H + Clone + Unpin + Send + Sync + 'static,
{
    type Msg = ListenerMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.bind(cx);
        Ok(())
    }

    fn handle(&mut self, ListenerMsg::Bind: ListenerMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.bind(cx);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({
            "listen": self.socket.as_ref().and_then(|s| s.local_addr().ok()), "trouble": self.trouble, "accepted": self.accepted, "refused": self.refused,
            "limit": self.listen.limit,
        })
    }
}

impl<H, F> Listener<F>
where
    H: Handler<Error: std::fmt::Debug> + Send + 'static,
    F: Fn(Arrival) -> H + Clone + Unpin + Send + Sync + 'static,
{
    fn bind(&mut self, cx: &mut Cx<'_, Self>) {
        let at = (self.listen.at)();
        if self.socket.as_ref().is_some_and(|s| at.port() == 0 || s.local_addr().is_ok_and(|l| l == at)) {
            return;
        }
        let bound = std::net::TcpListener::bind(at).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let local = socket.local_addr()?;
            Ok((TcpListener::from_std(socket)?, local))
        });
        match bound {
            Ok((socket, local)) => {
                tracing::info!(%local, what = self.listen.what, "listening for SSH");
                cx.node().alarms().clear(CLOSED, None, self.listen.what);
                self.listen.bound.send_replace(Some(local));
                (self.socket, self.trouble) = (Some(Arc::new(socket)), None);
                self.turn += 1;
                // The port before is closed now, not after one more connection.
                std::mem::take(&mut self.given_up).notify_one();
                self.accept(self.turn, cx);
            }
            Err(e) => {
                let closed = Condition::new(CLOSED, Severity::Major, self.listen.what);
                cx.node()
                    .alarms()
                    .raise(closed.cause(format!("{at} cannot be opened: {e}; it is tried again")));
                metrics::counter!("hypha_ports_failed_total").increment(1);
                self.trouble = Some(format!("{at}: {e}"));
                cx.after(AGAIN, ListenerMsg::Bind);
            }
        }
    }

    fn accept(&mut self, turn: u64, cx: &mut Cx<'_, Self>) {
        let Some(socket) = self.socket.clone().filter(|_| turn == self.turn) else { return };
        let given_up = self.given_up.clone();
        let accepted = async move {
            tokio::select! {
                accepted = socket.accept() => Some(accepted),
                () = given_up.notified() => None,
            }
        };
        cx.spawn(accepted, move |me, accepted, cx| {
            let Some(accepted) = accepted else { return Ok(()) };
            match accepted {
                Ok((stream, peer)) => me.take(stream, peer, cx),
                // Out of file descriptors, most likely: a pause is kinder than a busy loop.
                Err(e) => {
                    tracing::warn!(error = %e, "accepting an SSH connection failed");
                    let pause = tokio::time::sleep(Duration::from_millis(100));
                    cx.wait(pause, |_, (), _| Ok(()));
                }
            }
            me.accept(turn, cx);
            Ok(())
        });
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, cx: &mut Cx<'_, Self>) {
        let from = kit::throttle::network(peer.ip());
        {
            let mut all = self.strangers.lock();
            let of = |ip: IpAddr| all.values().filter(|(other, ..)| *other == ip).count();
            let crowd = match () {
                () if of(from) >= self.listen.intake.strangers_of_one => Some(from),
                () if all.len() >= self.listen.intake.strangers => {
                    all.values().map(|(ip, ..)| *ip).max_by_key(|ip| (of(*ip), *ip))
                }
                () => None,
            };
            // A newcomer always gets in; the oldest of the greediest address that still says nothing makes room for it.
            let oldest = crowd.and_then(|ip| {
                all.iter().filter(|(_, (other, ..))| *other == ip).min_by_key(|(_, (_, since, ..))| *since)
            });
            if let Some(number) = oldest.map(|(number, _)| *number)
                && let Some((_, _, switch, place)) = all.remove(&number)
            {
                // At once, not when its actor has gone: the newcomer needs it now.
                drop(place.lock().take());
                self.refused += 1;
                metrics::counter!("hypha_ssh_refused_total", "reason" => "strangers").increment(1);
                kit::intake::crowded(cx.node().alarms(), self.listen.what, "ssh");
                if let Some(withheld) = self.lines.allow(Instant::now()) {
                    tracing::warn!(address = %peer.ip(), withheld, "many SSH connections without a log-in: the oldest was ended");
                }
                switch.cut();
            }
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.refused += 1;
            metrics::counter!("hypha_ssh_refused_total", "reason" => "limit").increment(1);
            kit::intake::crowded(cx.node().alarms(), self.listen.what, "ssh");
            if let Some(withheld) = self.lines.allow(Instant::now()) {
                tracing::warn!(%peer, limit = self.listen.limit, withheld, "too many SSH connections; one was refused");
            }
            return;
        };
        // Small answers must not wait for the acknowledgement of what went before (Nagle).
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "TCP_NODELAY");
        }
        self.accepted += 1;
        let (make, config) = (self.make.clone(), self.config.clone());
        let Ok(address) = self.listen.connections.child(self.accepted.to_string()) else { return };
        let (stream, switch) = crate::cut::Cut::new(stream);
        let (number, strangers, intake) = (self.accepted, self.strangers.clone(), self.listen.intake);
        let place: Place = Arc::new(Mutex::new(Some(place)));
        strangers.lock().insert(number, (from, Instant::now(), switch.clone(), place.clone()));
        let stream = Arc::new(Mutex::new(Some((stream, place))));
        let spec = ChildSpec::worker(address, move |start| {
            let taken = stream.lock().take();
            let (make, config, strangers, switch) =
                (make.clone(), config.clone(), strangers.clone(), switch.clone());
            async move {
                let (stream, place) = taken.ok_or(ExitReason::Normal)?;
                let (told, user) = watch::channel(None);
                let (asks, asked) = watch::channel(false);
                let (ends, alive) = watch::channel(());
                let cut = switch.clone();
                let arrival = Arrival {
                    peer,
                    node: start.node.clone(),
                    user: told,
                    asks,
                    alive: alive.clone(),
                    end: Arc::new(move || cut.cut()),
                };
                let stream = Some((stream, Box::new(make(arrival))));
                let stranger = Stranger { number, strangers, switch };
                let (_place, _ends) = (place, ends);
                Ok(Connection { stream, peer, config, intake, user, asked, stranger, _place, _ends, alive })
            }
        });
        let (node, connections) = (cx.node().clone(), self.listen.connections.clone());
        let started = async move { SupervisorHandle::start_temporary(&node, &connections, spec).await };
        cx.spawn(started, |_, started, _| {
            if let Err(e) = started {
                tracing::warn!(error = %e, "no actor for an SSH connection");
            }
            Ok(())
        });
    }
}

/// A connection among those that have not logged in; with it goes its stream, whatever the library still waits for.
struct Stranger {
    number: u64,
    strangers: Strangers,
    switch: crate::cut::Switch,
}

impl Stranger {
    fn logged_in(&self) {
        self.strangers.lock().remove(&self.number);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.logged_in();
        self.switch.cut();
    }
}

/// The actor of a connection.
struct Connection<H> {
    stream: Option<(crate::cut::Cut, Box<H>)>,
    asked: watch::Receiver<bool>,
    stranger: Stranger,
    peer: SocketAddr,
    config: Arc<Config>,
    intake: SshIntake,
    user: watch::Receiver<Option<String>>,
    /// Its place among the connections; given back with the actor.
    _place: Place,
    /// Dropped with the actor: the connection's tasks end then.
    _ends: watch::Sender<()>,
    alive: watch::Receiver<()>,
}

impl<H: Handler<Error: std::fmt::Debug> + Send + 'static> Actor for Connection<H> {
    type Msg = Never;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some((stream, handler)) = self.stream.take() else { return Err(ExitReason::Normal) };
        let served = serve(self.config.clone(), stream, *handler, self.alive.clone());
        cx.spawn(served, |_, served, _| {
            if let Err(e) = served {
                tracing::debug!(error = ?e, "SSH connection ended");
            }
            Err(ExitReason::Normal)
        });
        let (mut asked, mut user) = (self.asked.clone(), self.user.clone());
        let silent = Duration::from_secs(self.intake.handshake_seconds);
        let grace = Duration::from_secs(self.intake.log_in_seconds);
        let enters = async move {
            let asks = async { asked.wait_for(|asks| *asks).await.is_ok() };
            if !tokio::time::timeout(silent, asks).await.unwrap_or(false) {
                return false;
            }
            let enters = async { user.wait_for(Option::is_some).await.is_ok() };
            tokio::time::timeout(grace, enters).await.unwrap_or(false)
        };
        cx.spawn(enters, |me, entered, _| match entered {
            true => {
                me.stranger.logged_in();
                Ok(())
            }
            false => Err(ExitReason::Normal),
        });
        Ok(())
    }

    fn handle(&mut self, msg: Never, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "peer": self.peer, "user": *self.user.borrow() })
    }
}

async fn serve<H: Handler<Error: std::fmt::Debug> + Send + 'static>(
    config: Arc<Config>,
    stream: crate::cut::Cut,
    handler: H,
    mut alive: watch::Receiver<()>,
) -> Result<(), H::Error> {
    let session = russh::server::run_stream(config, stream, handler).await?;
    let handle = session.handle();
    tokio::select! {
        ended = session => ended,
        _ = alive.changed() => {
            let _ = handle.disconnect(russh::Disconnect::ByApplication, "stopped".into(), "en".into()).await;
            Ok(())
        }
    }
}
