//! The front's place in the tree.
//!
//! ```text
//! cocon           rest_for_one
//! ├ cocon/sessions  dynamic: one actor for each connection, temporary
//! └ cocon/ssh       the listener
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use access::Door;
use command::{SessionInfo, Tree};
use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Restart, Strategy, SupervisorHandle,
    SupervisorSpec,
};
use russh::{keys::PrivateKey, server::Config};
use strum::IntoStaticStr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{Histories, server::Connection};

/// What the front needs.
#[derive(Clone)]
pub struct Front {
    pub listen: SocketAddr,
    pub key: PrivateKey,
    pub tree: Arc<Tree>,
    pub info: SessionInfo,
    pub door: Door,
    pub histories: Histories,
    /// Connections at the same time.
    pub limit: usize,
    /// Time after which a silent session ends.
    pub idle: Duration,
    /// Told the address once the listener has one; tests listen on port 0.
    pub bound: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

/// The family under the node's root.
pub fn child(front: &Front) -> Result<ChildSpec, AddressError> {
    let front = front.clone();
    let spec = SupervisorSpec::new(Address::new("cocon")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10))
        .child(
            SupervisorSpec::new(Address::new("cocon/sessions")?, Strategy::Dynamic)
                .intensity(100, Duration::from_secs(1))
                .into_child(),
        )
        .child(ChildSpec::worker(Address::new("cocon/ssh")?, move |_| {
            let front = front.clone();
            async move {
                let taken = TcpListener::bind(front.listen).await;
                let socket = taken.map_err(|e| {
                    ExitReason::Error(format!("cannot listen for SSH on {}: {e}", front.listen))
                })?;
                let local = socket.local_addr().map_err(ExitReason::error)?;
                tracing::info!(%local, "CoCon listens for SSH");
                front.bound.send_replace(Some(local));
                let config = Arc::new(config(&front));
                let places = Arc::new(Semaphore::new(front.limit.min(Semaphore::MAX_PERMITS)));
                Ok(Listener { front, config, socket: Arc::new(socket), places, accepted: 0, refused: 0 })
            }
        }));
    Ok(spec.into_child())
}

fn config(front: &Front) -> Config {
    Config {
        keys: vec![front.key.clone()],
        auth_rejection_time: Duration::from_millis(500),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        inactivity_timeout: Some(front.idle),
        keepalive_interval: Some(Duration::from_secs(30)),
        ..Config::default()
    }
}

/// Takes connections and gives each its actor.
struct Listener {
    front: Front,
    config: Arc<Config>,
    socket: Arc<TcpListener>,
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, IntoStaticStr)]
enum ListenerMsg {}

impl Actor for Listener {
    type Msg = ListenerMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.accept(cx);
        Ok(())
    }

    fn handle(&mut self, msg: ListenerMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({
            "listen": self.socket.local_addr().ok(), "accepted": self.accepted, "refused": self.refused,
            "limit": self.front.limit,
        })
    }
}

impl Listener {
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
            tracing::warn!(%peer, limit = self.front.limit, "too many SSH connections; one was refused");
            return;
        };
        // Small answers must not wait for the acknowledgement of what went before (Nagle).
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "TCP_NODELAY");
        }
        self.accepted += 1;
        let (front, config) = (self.front.clone(), self.config.clone());
        let name = Address::new(format!("cocon/session/{}", self.accepted));
        let (Ok(address), Ok(sessions)) = (name, Address::new("cocon/sessions")) else { return };
        let stream = Arc::new(parking_lot::Mutex::new(Some((stream, place))));
        let spec = ChildSpec::worker(address, move |start| {
            let taken = stream.lock().take();
            let (front, config) = (front.clone(), config.clone());
            async move {
                let (stream, place) = taken.ok_or(ExitReason::Normal)?;
                Ok(Connection::new(stream, peer, place, front, config, &start.node))
            }
        });
        let spec = spec.restart(Restart::Temporary);
        let node = cx.node().clone();
        let started = async move {
            match SupervisorHandle::find(&node, &sessions) {
                Ok(supervisor) => supervisor.start_child(spec).await.map(drop),
                Err(e) => Err(e),
            }
        };
        cx.spawn(started, |_, started, _| {
            if let Err(e) = started {
                tracing::warn!(error = %e, "no actor for an SSH connection");
            }
            Ok(())
        });
    }
}
