//! The manager of recognisers, `speech/manager` (the original's ASR manager): how many instances each engine has, and their
//! rebuilding one after another. An instance that is replaced hears its callers to the end; its successor takes the new ones.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node, Reply, SupervisorError, SupervisorHandle,
};
use serde::Serialize;
use strum::IntoStaticStr;

use crate::{
    clerk::Clerk,
    pool::{Instance, Make, Pool},
    recogniser::LONGEST,
};

pub const NAME: &str = "speech/manager";
/// Instances of an engine at most.
pub const MANY: usize = 64;
/// Between two looks whether a retired instance has nobody left.
const LOOK: Duration = Duration::from_millis(200);
/// Before a supervisor that has ended is looked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// After so many looks it is stopped anyway: nobody speaks so long.
const LOOKS: u32 = 5 * (LONGEST + 30);

/// An engine, and how an instance of it is made.
#[derive(Clone)]
pub struct Kind {
    pub pool: Pool,
    pub make: Make,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    #[error("there is no engine {0}")]
    Engine(String),
    #[error("{0} has no instance {1}")]
    Instance(String, usize),
    #[error("{0} has {MANY} instances, which is the most")]
    Many(String),
    #[error("the last instance of {0} stays")]
    Last(String),
    #[error("a rebuild is under way")]
    Busy,
    #[error("{0}")]
    Failed(String),
}

impl From<SupervisorError> for ManagerError {
    fn from(e: SupervisorError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<AddressError> for ManagerError {
    fn from(e: AddressError) -> Self {
        Self::Failed(e.to_string())
    }
}

/// What the manager shows.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    pub engines: BTreeMap<&'static str, EngineState>,
    pub rebuild: Rebuild,
    /// Entries of the phone book that are listened for.
    pub names: usize,
    /// Words that operators and the base have taught.
    pub words: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct EngineState {
    pub instances: Vec<Instance>,
    pub utterances: u64,
    pub refused: u64,
    pub failed: u64,
}

/// The last rebuild.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rebuild {
    pub running: bool,
    /// Instances that are yet to be replaced.
    pub left: usize,
    /// How often all were.
    pub count: u64,
    pub ended: Option<chrono::DateTime<chrono::Utc>>,
    pub error: Option<String>,
}

#[derive(Debug, IntoStaticStr)]
pub enum ManagerMsg {
    Show(Reply<State>),
    /// One more instance; its number.
    Start(String, Reply<Result<usize, ManagerError>>),
    /// One less: it hears its callers to the end.
    Stop(String, usize, Reply<Result<(), ManagerError>>),
    /// Replaces all instances, one by one.
    Rebuild(Reply<Result<(), ManagerError>>),
    /// An engine's supervisor has ended, and its instances with it.
    Refill(&'static str),
    /// Looks whether a retired one has nobody left, for the so-manieth time.
    Idle(&'static str, usize, u32),
}

pub struct Manager {
    node: Node,
    clerk: Clerk,
    kinds: BTreeMap<&'static str, Kind>,
    /// The next instance's number, by engine.
    next: BTreeMap<&'static str, usize>,
    /// How many there are to be.
    wanted: BTreeMap<&'static str, usize>,
    todo: VecDeque<(&'static str, usize)>,
    rebuild: Rebuild,
}

/// The manager as a child, behind the supervisors of the instances; it starts `threads` of each.
pub fn child(
    node: &Node,
    clerk: &Clerk,
    kinds: Vec<Kind>,
    threads: usize,
) -> Result<ChildSpec, AddressError> {
    let (node, clerk) = (node.clone(), clerk.clone());
    Ok(ChildSpec::worker(Address::new(NAME)?, move |_| {
        let (node, clerk, kinds) = (node.clone(), clerk.clone(), kinds.clone());
        async move {
            let (mut next, mut wanted) = (BTreeMap::new(), BTreeMap::new());
            for kind in &kinds {
                // A manager that comes back finds the instances it had.
                let there = kind.pool.instances();
                let mut number = there.iter().map(|i| i.number + 1).max().unwrap_or(0);
                let taking = there.iter().filter(|i| !i.retiring).count();
                for _ in taking..threads.clamp(1, MANY) {
                    start(&node, kind, number).await.map_err(ExitReason::error)?;
                    number += 1;
                }
                next.insert(kind.pool.name(), number);
                wanted.insert(kind.pool.name(), taking.max(threads.clamp(1, MANY)));
            }
            let kinds = kinds.into_iter().map(|k| (k.pool.name(), k)).collect();
            Ok(Manager {
                node,
                clerk,
                kinds,
                next,
                wanted,
                todo: VecDeque::new(),
                rebuild: Rebuild::default(),
            })
        }
    }))
}

async fn start(node: &Node, kind: &Kind, number: usize) -> Result<(), ManagerError> {
    let supervisor = SupervisorHandle::find(node, &kind.pool.supervisor()?)?;
    supervisor.start_child(kind.pool.child(number, kind.make.clone())?).await?;
    Ok(())
}

async fn stop(node: Node, pool: Pool, number: usize) -> Result<(), ManagerError> {
    let supervisor = SupervisorHandle::find(&node, &pool.supervisor()?)?;
    Ok(supervisor.terminate_child(&pool.address(number)?).await?)
}

impl Manager {
    fn kind(&self, name: &str) -> Result<&Kind, ManagerError> {
        self.kinds.get(name).ok_or_else(|| ManagerError::Engine(name.to_owned()))
    }

    fn number(&mut self, engine: &'static str) -> usize {
        let next = self.next.entry(engine).or_default();
        *next += 1;
        *next - 1
    }

    fn show(&self) -> State {
        use std::sync::atomic::Ordering::Relaxed;
        let engine = |(name, kind): (&&'static str, &Kind)| {
            let counts = kind.pool.counts();
            let state = EngineState {
                instances: kind.pool.instances(),
                utterances: counts.utterances.load(Relaxed),
                refused: counts.refused.load(Relaxed),
                failed: counts.failed.load(Relaxed),
            };
            (*name, state)
        };
        State {
            engines: self.kinds.iter().map(engine).collect(),
            rebuild: self.rebuild.clone(),
            names: self.clerk.picture().book.len(),
            words: self.clerk.taught.load().words(),
        }
    }

    /// Watches an engine's supervisor; one that has come back has no instances, and gets them again.
    fn watch(&self, engine: &'static str, cx: &mut Cx<'_, Self>) {
        if let Some(Ok(supervisor)) = self.kinds.get(engine).map(|k| k.pool.supervisor()) {
            cx.monitor(&supervisor, move |_| ManagerMsg::Refill(engine));
        }
    }

    fn refill(&mut self, engine: &'static str, cx: &mut Cx<'_, Self>) {
        let Some(kind) = self.kinds.get(engine).cloned() else { return };
        let there = kind.pool.supervisor().is_ok_and(|s| SupervisorHandle::find(&self.node, &s).is_ok());
        if !there {
            return cx.after(AGAIN, ManagerMsg::Refill(engine));
        }
        self.watch(engine, cx);
        let numbers: Vec<usize> =
            (0..self.wanted.get(engine).copied().unwrap_or(1)).map(|_| self.number(engine)).collect();
        let node = self.node.clone();
        let starting = async move {
            for number in numbers {
                start(&node, &kind, number).await?;
            }
            Ok::<_, ManagerError>(())
        };
        cx.spawn(starting, move |_, started, _| match started {
            Ok(()) => Ok(()),
            Err(e) => Err(ExitReason::Error(e.to_string())),
        });
    }

    /// Nobody new for an instance, and its end when nobody is left.
    fn retire(&self, engine: &'static str, number: usize, cx: &mut Cx<'_, Self>) {
        if let Some(kind) = self.kinds.get(engine)
            && kind.pool.retire(number)
        {
            cx.after(LOOK, ManagerMsg::Idle(engine, number, 0));
        }
    }

    fn next(&mut self, cx: &mut Cx<'_, Self>) {
        self.rebuild.left = self.todo.len();
        let Some((engine, old)) = self.todo.pop_front() else {
            self.rebuild.running = false;
            self.rebuild.count += 1;
            self.rebuild.ended = Some(chrono::Utc::now());
            tracing::info!("the recognisers were rebuilt");
            return;
        };
        let new = self.number(engine);
        let Some(kind) = self.kinds.get(engine).cloned() else { return };
        let node = self.node.clone();
        let starting = async move { start(&node, &kind, new).await };
        cx.spawn(starting, move |me, started, cx| {
            match started {
                Ok(()) => me.replaced(engine, old, new, cx),
                Err(e) => {
                    // Those that are there stay.
                    tracing::error!(engine, error = %e, "the recognisers are not rebuilt");
                    me.todo.clear();
                    me.rebuild.running = false;
                    me.rebuild.left = 0;
                    me.rebuild.error = Some(e.to_string());
                }
            }
            Ok(())
        });
    }

    /// A successor is there.
    fn replaced(&mut self, engine: &'static str, old: usize, new: usize, cx: &mut Cx<'_, Self>) {
        if let Some(kind) = self.kinds.get(engine) {
            // The first caller does not wait for the grammar to be built.
            self.clerk.picture().tasks().for_each(|task| kind.pool.warm(new, task));
        }
        self.retire(engine, old, cx);
        self.next(cx);
    }
}

impl Actor for Manager {
    type Msg = ManagerMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.kinds.keys().for_each(|engine| self.watch(engine, cx));
        Ok(())
    }

    fn handle(&mut self, msg: ManagerMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            ManagerMsg::Show(reply) => reply.send(self.show()),
            ManagerMsg::Start(engine, reply) => match self.kind(&engine) {
                Err(e) => reply.send(Err(e)),
                Ok(kind) if kind.pool.instances().len() >= MANY => {
                    reply.send(Err(ManagerError::Many(engine)))
                }
                Ok(kind) => {
                    let (kind, node) = (kind.clone(), self.node.clone());
                    let number = self.number(kind.pool.name());
                    *self.wanted.entry(kind.pool.name()).or_default() += 1;
                    let starting = async move { start(&node, &kind, number).await };
                    cx.spawn(starting, move |_, started, _| {
                        reply.send(started.map(|()| number));
                        Ok(())
                    });
                }
            },
            ManagerMsg::Stop(engine, number, reply) => {
                let stopped = self.kind(&engine).and_then(|kind| {
                    let all = kind.pool.instances();
                    if !all.iter().any(|i| i.number == number && !i.retiring) {
                        return Err(ManagerError::Instance(engine.clone(), number));
                    }
                    if all.iter().filter(|i| !i.retiring).count() == 1 {
                        return Err(ManagerError::Last(engine.clone()));
                    }
                    Ok(kind.pool.name())
                });
                if let Ok(engine) = stopped {
                    let wanted = self.wanted.entry(engine).or_default();
                    *wanted = wanted.saturating_sub(1).max(1);
                    self.retire(engine, number, cx);
                }
                reply.send(stopped.map(drop));
            }
            ManagerMsg::Rebuild(reply) => {
                if self.rebuild.running {
                    reply.send(Err(ManagerError::Busy));
                    return Ok(());
                }
                self.clerk.rebuild();
                for (engine, kind) in &self.kinds {
                    let all = kind.pool.instances();
                    self.todo.extend(all.iter().filter(|i| !i.retiring).map(|i| (*engine, i.number)));
                }
                self.rebuild.running = true;
                self.rebuild.error = None;
                reply.send(Ok(()));
                self.next(cx);
            }
            ManagerMsg::Refill(engine) => self.refill(engine, cx),
            ManagerMsg::Idle(engine, number, looks) => {
                let Some(kind) = self.kinds.get(engine) else { return Ok(()) };
                if !kind.pool.is_idle(number) && looks < LOOKS {
                    cx.after(LOOK, ManagerMsg::Idle(engine, number, looks + 1));
                    return Ok(());
                }
                cx.spawn(stop(self.node.clone(), kind.pool.clone(), number), move |_, stopped, _| {
                    if let Err(e) = stopped {
                        tracing::warn!(engine, number, error = %e, "a retired recogniser does not stop");
                    }
                    Ok(())
                });
            }
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::to_value(self.show()).unwrap_or_default()
    }
}
