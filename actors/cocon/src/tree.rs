//! The front's place in the tree.
//!
//! ```text
//! cocon           rest_for_one
//! ├ cocon/sessions  dynamic: one actor for each connection, temporary
//! └ cocon/ssh       the listener
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use access::{
    Door,
    ssh::{self, Listen},
};
use command::{SessionInfo, Tree};
use kit::{Address, AddressError, ChildSpec, Strategy, SupervisorSpec, intake::SshIntake};
use russh::keys::PrivateKey;

use crate::{
    Histories,
    server::{METHODS, Peer},
};

/// What the front needs.
#[derive(Clone)]
pub struct Front {
    pub listen: SocketAddr,
    pub keys: Vec<PrivateKey>,
    pub tree: Arc<Tree>,
    pub info: SessionInfo,
    pub door: Door,
    pub histories: Histories,
    /// Connections at the same time.
    pub limit: usize,
    pub intake: SshIntake,
    /// Time after which a silent session ends.
    pub idle: Duration,
    /// Told the address once the listener has one; tests listen on port 0.
    pub bound: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

/// The family under the node's root.
pub fn child(front: &Front) -> Result<ChildSpec, AddressError> {
    let at = front.listen;
    let listen = Listen {
        listener: Address::new("cocon/ssh")?,
        connections: Address::new("cocon/sessions")?,
        what: "CoCon",
        at: Arc::new(move || at),
        thread: "operators",
        keys: front.keys.clone(),
        limit: front.limit,
        intake: front.intake,
        idle: front.idle,
        methods: METHODS,
        bound: front.bound.clone(),
    };
    let front = front.clone();
    let [sessions, listener] = ssh::children(listen, move |arrival| Peer::new(arrival, front.clone()))?;
    let spec = SupervisorSpec::new(Address::new("cocon")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10))
        .child(sessions)
        .child(listener);
    Ok(spec.into_child())
}
