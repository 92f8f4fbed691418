//! SSH connections as actors: a listener, and one actor for each connection, which ends with it, and it with the actor.
//! What is said on one is its handler's business.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node, Strategy, SupervisorHandle, SupervisorSpec,
};
use russh::{
    MethodKind, MethodSet,
    keys::PrivateKey,
    server::{Auth, Config, Handler},
};
use strum::IntoStaticStr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

/// Where connections come in.
#[derive(Clone)]
pub struct Listen {
    /// The listener's name, and that of the supervisor of its connections; a connection is a child of the latter's name.
    pub listener: Address,
    pub connections: Address,
    /// What the log calls it.
    pub what: &'static str,
    /// Asked at each start of the listener.
    pub at: Arc<dyn Fn() -> SocketAddr + Send + Sync>,
    pub key: PrivateKey,
    /// Connections at the same time.
    pub limit: usize,
    /// Time after which a silent connection ends.
    pub idle: Duration,
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
    /// Ends with the connection's actor.
    pub alive: watch::Receiver<()>,
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
        .into_child();
    let listener = ChildSpec::worker(listen.listener.clone(), move |_| {
        let (listen, make) = (listen.clone(), make.clone());
        async move {
            let at = (listen.at)();
            let taken = TcpListener::bind(at).await;
            let socket = taken
                .map_err(|e| ExitReason::Error(format!("cannot listen for {} on {at}: {e}", listen.what)))?;
            let local = socket.local_addr().map_err(ExitReason::error)?;
            tracing::info!(%local, what = listen.what, "listening for SSH");
            listen.bound.send_replace(Some(local));
            let config = Arc::new(config(&listen));
            let places = Arc::new(Semaphore::new(listen.limit.min(Semaphore::MAX_PERMITS)));
            Ok(Listener { listen, make, config, socket: Arc::new(socket), places, accepted: 0, refused: 0 })
        }
    });
    Ok([connections, listener])
}

fn config(listen: &Listen) -> Config {
    Config {
        keys: vec![listen.key.clone()],
        methods: MethodSet::from(listen.methods),
        auth_rejection_time: Duration::from_millis(500),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        inactivity_timeout: Some(listen.idle),
        keepalive_interval: Some(Duration::from_secs(30)),
        ..Config::default()
    }
}

/// Takes connections and gives each its actor.
struct Listener<F> {
    listen: Listen,
    make: F,
    config: Arc<Config>,
    socket: Arc<TcpListener>,
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, IntoStaticStr)]
enum Never {}

impl<H, F> Actor for Listener<F>
where
    H: Handler<Error: std::fmt::Debug> + Send + 'static,
    F: Fn(Arrival) -> H + Clone + Unpin + Send + Sync + 'static,
{
    type Msg = Never;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.accept(cx);
        Ok(())
    }

    fn handle(&mut self, msg: Never, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({
            "listen": self.socket.local_addr().ok(), "accepted": self.accepted, "refused": self.refused,
            "limit": self.listen.limit,
        })
    }
}

impl<H, F> Listener<F>
where
    H: Handler<Error: std::fmt::Debug> + Send + 'static,
    F: Fn(Arrival) -> H + Clone + Unpin + Send + Sync + 'static,
{
    fn accept(&mut self, cx: &mut Cx<'_, Self>) {
        let socket = self.socket.clone();
        cx.spawn(async move { socket.accept().await }, |me, accepted, cx| {
            match accepted {
                Ok((stream, peer)) => me.take(stream, peer, cx),
                // Out of file descriptors, most likely: a pause is kinder than a busy loop.
                Err(e) => {
                    tracing::warn!(error = %e, "accepting an SSH connection failed");
                    let pause = tokio::time::sleep(Duration::from_millis(100));
                    cx.wait(pause, |_, (), _| Ok(()));
                }
            }
            me.accept(cx);
            Ok(())
        });
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, cx: &mut Cx<'_, Self>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.refused += 1;
            tracing::warn!(%peer, limit = self.listen.limit, "too many SSH connections; one was refused");
            return;
        };
        // Small answers must not wait for the acknowledgement of what went before (Nagle).
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "TCP_NODELAY");
        }
        self.accepted += 1;
        let (make, config) = (self.make.clone(), self.config.clone());
        let Ok(address) = self.listen.connections.child(self.accepted.to_string()) else { return };
        let stream = Arc::new(parking_lot::Mutex::new(Some((stream, place))));
        let spec = ChildSpec::worker(address, move |start| {
            let taken = stream.lock().take();
            let (make, config) = (make.clone(), config.clone());
            async move {
                let (stream, place) = taken.ok_or(ExitReason::Normal)?;
                let (told, user) = watch::channel(None);
                let (ends, alive) = watch::channel(());
                let handler =
                    make(Arrival { peer, node: start.node.clone(), user: told, alive: alive.clone() });
                let stream = Some((stream, Box::new(handler)));
                Ok(Connection { stream, peer, config, user, _place: place, _ends: ends, alive })
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

/// The actor of a connection.
struct Connection<H> {
    stream: Option<(TcpStream, Box<H>)>,
    peer: SocketAddr,
    config: Arc<Config>,
    user: watch::Receiver<Option<String>>,
    /// Its place among the connections; given back with the actor.
    _place: OwnedSemaphorePermit,
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
    stream: TcpStream,
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
