//! The supervisor as an actor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use foldhash::HashMap;
use futures::future::LocalBoxFuture;
use strum::IntoStaticStr;
use tokio::{sync::oneshot, time::Instant};

use super::core::{Core, Effect, Event, Intensity, Refusal, Status, Strategy, Token};
use crate::{
    Actor, Address, AskError, Cell, Cx, ExitReason, LookupError, Mailbox, Node, Pid, Reply,
    cell::Down,
    host::Host,
    spec::{ChildSpec, Kind, Restart, Shutdown, StartContext},
    tree::Absent,
};

/// A supervisor and its first children, as data one can read aloud.
#[derive(Debug, Clone)]
pub struct SupervisorSpec {
    pub address: Address,
    pub strategy: Strategy,
    pub intensity: Intensity,
    pub children: Vec<ChildSpec>,
}

type Answer = Reply<Result<Option<Pid>, Refusal>>;

/// What a supervisor is asked.
#[derive(Debug, IntoStaticStr)]
pub enum SupervisorMsg {
    StartChild(ChildSpec, Answer),
    TerminateChild(Address, Answer),
    RestartChild(Address, Answer),
    DeleteChild(Address, Answer),
    Describe(Reply<Strategy>),
    #[strum(serialize = "ChildStarted")]
    Started(Address, Result<Started, ExitReason>),
    #[strum(serialize = "ChildDown")]
    Down(Down),
    /// A child has not ended in its time.
    Overdue(Pid),
    /// A killed child has not even ended then: it is stuck inside a handler.
    Stuck(Pid),
}

/// A child that runs.
pub struct Started(Arc<Cell>);

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.0.pid())
    }
}

type Booted = oneshot::Sender<Result<(), ExitReason>>;

/// See [`SupervisorSpec`].
pub struct Supervisor {
    core: Core,
    specs: HashMap<Address, ChildSpec>,
    /// In order of start, so that children die in the same order in every replay.
    running: BTreeMap<Pid, Arc<Cell>>,
    asked: HashMap<Token, Answer>,
    next_token: Token,
    origin: Instant,
    booted: Option<Booted>,
}

/// Time a killed actor has to notice before its name is taken from it.
const STUCK: Duration = Duration::from_secs(1);

impl Supervisor {
    fn new(spec: &SupervisorSpec, booted: Booted) -> Self {
        let first = spec.children.iter().map(|c| (c.address.clone(), c.restart));
        Self {
            core: Core::new(spec.strategy, spec.intensity, first),
            specs: spec.children.iter().map(|c| (c.address.clone(), c.clone())).collect(),
            running: BTreeMap::new(),
            asked: HashMap::default(),
            next_token: 1,
            origin: Instant::now(),
            booted: Some(booted),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn token(&mut self, answer: Answer) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.asked.insert(token, answer);
        token
    }

    fn carry_out(&mut self, effects: Vec<Effect>, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let mut end = Ok(());
        for effect in effects {
            match effect {
                Effect::Start { child, restarts } => self.start(child, restarts, cx),
                Effect::Stop { pid, .. } => self.stop(pid, cx),
                Effect::Forget { child } => drop(self.specs.remove(&child)),
                Effect::Answer { token, answer } => {
                    if let Some(reply) = self.asked.remove(&token) {
                        reply.send(answer);
                    }
                }
                Effect::Booted => {
                    if let Some(booted) = self.booted.take() {
                        let _ = booted.send(Ok(()));
                    }
                }
                Effect::Exit { reason } => {
                    if let Some(booted) = self.booted.take() {
                        let _ = booted.send(Err(reason.clone()));
                        end = Err(ExitReason::Shutdown);
                    } else {
                        end = Err(reason);
                    }
                }
            }
        }
        self.publish_absent(cx.cell);
        end
    }

    fn start(&mut self, child: Address, restarts: u32, cx: &mut Cx<'_, Self>) {
        let Some(spec) = self.specs.get(&child) else { return };
        let context = StartContext {
            node: cx.node().clone(),
            address: child.clone(),
            parent: Some(cx.address().clone()),
            kind: spec.kind,
            restarts,
        };
        let me = cx.mailbox();
        let start = spec.start.clone();
        cx.node().run_on(spec.placement, move || async move {
            let outcome = start(context).await;
            if let Ok(cell) = &outcome {
                let watcher = me.clone();
                // The supervisor first learns that the child runs, then, perhaps at once, that it ended.
                me.push_system(SupervisorMsg::Started(child, Ok(Started(cell.clone()))));
                cell.watch(None, move |down| watcher.push_system(SupervisorMsg::Down(down)));
            } else if let Err(reason) = outcome {
                me.push_system(SupervisorMsg::Started(child, Err(reason)));
            }
        });
    }

    fn stop(&mut self, pid: Pid, cx: &mut Cx<'_, Self>) {
        let Some(cell) = self.running.get(&pid) else { return };
        let shutdown = self.specs.get(cell.address()).map_or(Shutdown::Kill, |s| s.shutdown);
        match shutdown {
            Shutdown::Kill => {
                cell.exit(ExitReason::Killed);
                cx.after(STUCK, SupervisorMsg::Stuck(pid));
            }
            Shutdown::After(patience) => {
                cell.exit(ExitReason::Shutdown);
                cx.after(patience, SupervisorMsg::Overdue(pid));
            }
            Shutdown::Infinity => cell.exit(ExitReason::Shutdown),
        }
    }

    /// Shows the tree which children are not running. A dynamic supervisor keeps none that are not.
    fn publish_absent(&self, cell: &Cell) {
        if self.core.strategy() == Strategy::Dynamic {
            return;
        }
        let absent =
            self.core.children().filter(|c| c.2 != Status::Running).map(|(a, _, status, _, restarts)| {
                let kind = self.specs.get(a).map_or(Kind::Worker, |s| s.kind);
                Absent { address: a.clone(), status, restarts, kind }
            });
        *cell.absent.lock() = absent.collect();
    }
}

impl Drop for Supervisor {
    /// Children do not outlive their supervisor, however it ended.
    fn drop(&mut self) {
        for cell in self.running.values().rev() {
            cell.exit(ExitReason::Killed);
        }
    }
}

impl Actor for Supervisor {
    type Msg = SupervisorMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let effects = self.core.boot(self.now());
        self.carry_out(effects, cx)
    }

    fn handle(&mut self, msg: SupervisorMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let event = match msg {
            SupervisorMsg::StartChild(spec, reply) => {
                let (child, restart) = (spec.address.clone(), spec.restart);
                // A refused start leaves the known specification as it is.
                self.specs.entry(child.clone()).or_insert(spec);
                Event::StartChild { child, restart, token: self.token(reply) }
            }
            SupervisorMsg::TerminateChild(child, reply) => {
                Event::TerminateChild { child, token: self.token(reply) }
            }
            SupervisorMsg::RestartChild(child, reply) => {
                Event::RestartChild { child, token: self.token(reply) }
            }
            SupervisorMsg::DeleteChild(child, reply) => {
                Event::DeleteChild { child, token: self.token(reply) }
            }
            SupervisorMsg::Describe(reply) => {
                reply.send(self.core.strategy());
                return Ok(());
            }
            SupervisorMsg::Started(child, Ok(Started(cell))) => {
                let pid = cell.pid();
                self.running.insert(pid, cell);
                Event::Started { child, pid }
            }
            SupervisorMsg::Started(child, Err(reason)) => {
                tracing::error!(%child, %reason, "child does not start");
                Event::StartFailed { child, reason }
            }
            SupervisorMsg::Down(down) => {
                self.running.remove(&down.pid);
                tracing::debug!(child = %down.address, reason = %down.reason, "child ended");
                Event::Exited { pid: down.pid, reason: down.reason }
            }
            SupervisorMsg::Overdue(pid) => {
                if let Some(cell) = self.running.get(&pid) {
                    tracing::warn!(child = %cell.address(), "child did not stop in time and is killed");
                    cell.exit(ExitReason::Killed);
                    cx.after(STUCK, SupervisorMsg::Stuck(pid));
                }
                return Ok(());
            }
            SupervisorMsg::Stuck(pid) => {
                if let Some(cell) = self.running.get(&pid).cloned() {
                    tracing::error!(child = %cell.address(), "killed child is stuck in a handler; it is abandoned");
                    cx.node().registry().unregister(&cell);
                    cell.finish(ExitReason::Killed);
                }
                return Ok(());
            }
        };
        let before = self.core.total_restarts();
        let effects = self.core.handle(self.now(), event);
        let restarts = self.core.total_restarts() - before;
        if restarts > 0 {
            metrics::counter!("hypha_actor_restarts_total").increment(restarts);
        }
        self.carry_out(effects, cx)
    }

    fn exit_requested(&mut self, reason: &ExitReason, cx: &mut Cx<'_, Self>) -> bool {
        let effects = self.core.handle(self.now(), Event::Shutdown { reason: reason.clone() });
        self.carry_out(effects, cx).is_err()
    }

    fn inspect(&self) -> serde_json::Value {
        let children: Vec<_> = self
            .core
            .children()
            .take(1000)
            .map(|(address, restart, status, pid, restarts)| {
                serde_json::json!({
                    "address": address, "restart": restart, "status": status, "pid": pid, "restarts": restarts
                })
            })
            .collect();
        serde_json::json!({
            "strategy": self.core.strategy(),
            "intensity": {
                "restarts": self.core.intensity().restarts,
                "within_seconds": self.core.intensity().within.as_secs_f64(),
            },
            "restarts": self.core.total_restarts(),
            "children": children,
        })
    }
}

impl SupervisorSpec {
    pub fn new(address: Address, strategy: Strategy) -> Self {
        Self { address, strategy, intensity: Intensity::default(), children: Vec::new() }
    }

    pub fn intensity(mut self, restarts: u32, within: Duration) -> Self {
        self.intensity = Intensity { restarts, within };
        self
    }

    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// This supervisor as a child of another. It counts as started when all its first children are.
    pub fn into_child(self) -> ChildSpec {
        let address = self.address.clone();
        let start = Arc::new(move |context: StartContext| {
            let spec = self.clone();
            Box::pin(async move {
                context.node.registry().vacated(&context.address).await;
                let (booted, boot) = oneshot::channel();
                let cell = Host::launch(Supervisor::new(&spec, booted), &context)?;
                match boot.await {
                    Ok(Ok(())) => Ok(cell),
                    Ok(Err(reason)) => Err(reason),
                    Err(_) => Err(ExitReason::Killed),
                }
            }) as LocalBoxFuture<'static, Result<Arc<Cell>, ExitReason>>
        });
        ChildSpec {
            address,
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            kind: Kind::Supervisor,
            placement: crate::Placement::Here,
            start,
        }
    }

    /// Starts this supervisor as the root of a tree, on the current arbiter.
    pub async fn start_root(self, node: &Node) -> Result<Arc<Cell>, ExitReason> {
        let context = StartContext {
            node: node.clone(),
            address: self.address.clone(),
            parent: None,
            kind: Kind::Supervisor,
            restarts: 0,
        };
        let spec = self.into_child();
        (spec.start)(context).await
    }
}

/// A supervisor by name.
#[derive(Clone)]
pub struct SupervisorHandle(Mailbox<SupervisorMsg>);

/// Why a request to a supervisor failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupervisorError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the supervisor does not answer: {0}")]
    Ask(#[from] AskError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl SupervisorHandle {
    /// Starting or stopping children takes as long as they take; this is the last resort.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub fn find(node: &Node, address: &Address) -> Result<Self, SupervisorError> {
        Ok(Self(node.registry().lookup(address)?))
    }

    pub async fn start_child(&self, spec: ChildSpec) -> Result<Option<Pid>, SupervisorError> {
        self.ask(|r| SupervisorMsg::StartChild(spec, r)).await
    }

    /// Starts a child that does not come back when it ends, under the supervisor of this name.
    pub async fn start_temporary(
        node: &Node,
        supervisor: &Address,
        spec: ChildSpec,
    ) -> Result<(), SupervisorError> {
        Self::find(node, supervisor)?.start_child(spec.restart(Restart::Temporary)).await.map(drop)
    }

    /// Starts it unless it runs: who looks whether it does and then starts it may find that another was faster.
    pub async fn ensure_child(&self, spec: ChildSpec) -> Result<(), SupervisorError> {
        match self.start_child(spec).await {
            Ok(_) | Err(SupervisorError::Refused(Refusal::AlreadyStarted)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    pub async fn terminate_child(&self, child: &Address) -> Result<(), SupervisorError> {
        self.ask(|r| SupervisorMsg::TerminateChild(child.clone(), r)).await.map(drop)
    }

    pub async fn restart_child(&self, child: &Address) -> Result<Option<Pid>, SupervisorError> {
        self.ask(|r| SupervisorMsg::RestartChild(child.clone(), r)).await
    }

    pub async fn delete_child(&self, child: &Address) -> Result<(), SupervisorError> {
        self.ask(|r| SupervisorMsg::DeleteChild(child.clone(), r)).await.map(drop)
    }

    pub async fn strategy(&self) -> Result<Strategy, SupervisorError> {
        Ok(self.0.ask(SupervisorMsg::Describe).await?)
    }

    async fn ask(&self, make: impl FnOnce(Answer) -> SupervisorMsg) -> Result<Option<Pid>, SupervisorError> {
        Ok(self.0.ask_for(Self::PATIENCE, make).await??)
    }
}
