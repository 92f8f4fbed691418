//! Child specifications, as in Erlang/OTP's supervisor(3).

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::future::LocalBoxFuture;
use serde::Serialize;

use crate::{
    Actor, Address, Cell, ExitReason, Node, Placement,
    host::{self, Host},
};

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    Permanent,
    /// When it ended abnormally.
    Transient,
    /// Never; its specification goes with it.
    Temporary,
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asked, and killed after this time.
    After(Duration),
    /// Killed without asking.
    Kill,
    /// Asked, and waited for; right for supervisors.
    Infinity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Worker,
    Supervisor,
}

/// What a starting actor is given.
#[derive(Clone)]
pub struct StartContext {
    pub node: Node,
    pub address: Address,
    pub parent: Option<Address>,
    pub kind: Kind,
    /// How often this child has been started again.
    pub restarts: u32,
}

type Start =
    Arc<dyn Fn(StartContext) -> LocalBoxFuture<'static, Result<Arc<Cell>, ExitReason>> + Send + Sync>;

/// One child of a supervisor: what to start and when to start it again.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) address: Address,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) kind: Kind,
    pub(crate) placement: Placement,
    pub(crate) start: Start,
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {:?})", self.address, self.restart, self.kind)
    }
}

impl ChildSpec {
    /// Time a worker is given to stop.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// A permanent worker; `make` builds its first state, and every later one after a restart.
    pub fn worker<A, F, Fut>(address: Address, make: F) -> Self
    where
        A: Actor,
        F: Fn(StartContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, ExitReason>> + 'static,
    {
        let start: Start = Arc::new(move |context| {
            let made = make(context.clone());
            Box::pin(async move {
                context.node.registry().vacated(&context.address).await;
                match host::guarded_future(made).await {
                    Ok(Ok(actor)) => Host::launch(actor, &context),
                    Ok(Err(reason)) => Err(reason),
                    Err(panic) => Err(ExitReason::Panic(panic)),
                }
            })
        });
        Self {
            address,
            restart: Restart::Permanent,
            shutdown: Shutdown::After(Self::PATIENCE),
            kind: Kind::Worker,
            placement: Placement::Here,
            start,
        }
    }

    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    pub fn place(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}
