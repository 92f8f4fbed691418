//! The proof of the supervisor's meaning: random trees and random crashes, played by [`super::core`] and by a small
//! model that calls itself recursively the way `supervisor.erl` does. Both must start and stop the same children in
//! the same order.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::core::{Core, Effect, Event, Intensity, Strategy as Restarting};
use crate::{Address, ExitReason, Pid, Restart};

/// A child's specification as drawn: how it restarts, and what it is.
#[derive(Debug, Clone)]
struct Spec {
    restart: Restart,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Worker,
    Supervisor(Tree),
}

#[derive(Debug, Clone)]
struct Tree {
    strategy: Restarting,
    intensity: u32,
    children: Vec<Spec>,
}

/// What happens to the tree from outside, one thing at a time.
#[derive(Debug, Clone)]
enum Blow {
    /// The n-th running worker ends so.
    Exit(usize, ExitReason),
    /// The n-th worker name fails its next starts this often.
    FailStarts(usize, u32),
    /// Seconds pass.
    Pause(u64),
}

type Log = Vec<String>;

/// Start failures that are due, by worker name; shared notion of both players.
type Failures = BTreeMap<String, u32>;

fn take_failure(failures: &mut Failures, name: &str) -> bool {
    match failures.get_mut(name) {
        Some(n) if *n > 0 => {
            *n -= 1;
            true
        }
        _ => false,
    }
}

/// The model: `supervisor.erl` as plain recursion.
mod oracle {
    use super::*;

    pub struct Sup {
        name: String,
        tree: Tree,
        children: Vec<Child>,
        recent: Vec<u64>,
    }

    struct Child {
        name: String,
        spec: Spec,
        run: Option<Run>,
    }

    enum Run {
        Worker,
        Sup(Box<Sup>),
    }

    pub struct World<'a> {
        pub now: u64,
        pub failures: &'a mut Failures,
        pub log: &'a mut Log,
    }

    impl Sup {
        pub fn start(name: &str, tree: &Tree, w: &mut World) -> Option<Self> {
            let children = tree
                .children
                .iter()
                .enumerate()
                .map(|(i, spec)| Child { name: format!("{name}/{i}"), spec: spec.clone(), run: None })
                .collect();
            let mut sup = Self { name: name.to_owned(), tree: tree.clone(), children, recent: vec![] };
            for i in 0..sup.children.len() {
                if !sup.start_child(i, w) {
                    sup.terminate(w);
                    return None;
                }
            }
            Some(sup)
        }

        fn start_child(&mut self, i: usize, w: &mut World) -> bool {
            let child = &mut self.children[i];
            let run = match &child.spec.what {
                What::Worker => {
                    if take_failure(w.failures, &child.name) {
                        w.log.push(format!("fail {}", child.name));
                        return false;
                    }
                    w.log.push(format!("start {}", child.name));
                    Run::Worker
                }
                What::Supervisor(tree) => match Sup::start(&child.name, tree, w) {
                    Some(sup) => Run::Sup(Box::new(sup)),
                    None => return false,
                },
            };
            child.run = Some(run);
            true
        }

        fn stop_child(child: &mut Child, w: &mut World) {
            match child.run.take() {
                Some(Run::Worker) => w.log.push(format!("stop {}", child.name)),
                Some(Run::Sup(mut sup)) => sup.terminate(w),
                None => {}
            }
        }

        pub fn terminate(&mut self, w: &mut World) {
            for child in self.children.iter_mut().rev() {
                Self::stop_child(child, w);
            }
        }

        pub fn running(&self, out: &mut Vec<String>) {
            for c in &self.children {
                match &c.run {
                    Some(Run::Worker) => out.push(c.name.clone()),
                    Some(Run::Sup(s)) => s.running(out),
                    None => {}
                }
            }
        }

        /// A worker below ended. `false`: this supervisor has ended too.
        pub fn exit(&mut self, name: &str, reason: &ExitReason, w: &mut World) -> bool {
            let Some(i) = self
                .children
                .iter()
                .position(|c| name == c.name || name.starts_with(&format!("{}/", c.name)))
            else {
                return true;
            };
            let ended = match &mut self.children[i].run {
                Some(Run::Sup(sup)) if sup.name != name => {
                    if sup.exit(name, reason, w) {
                        return true;
                    }
                    ExitReason::Shutdown
                }
                _ => reason.clone(),
            };
            self.children[i].run = None;
            let again = match self.children[i].spec.restart {
                Restart::Permanent => true,
                Restart::Transient => ended.is_abnormal(),
                Restart::Temporary => {
                    self.children.remove(i);
                    false
                }
            };
            if !again {
                return true;
            }
            let mut failed = self.children[i].name.clone();
            loop {
                self.recent.push(w.now);
                self.recent.retain(|t| w.now - t <= 5);
                if self.recent.len() > self.tree.intensity as usize {
                    self.terminate(w);
                    return false;
                }
                match self.restart(&failed, w) {
                    Ok(()) => return true,
                    Err(name) => failed = name,
                }
            }
        }

        fn restart(&mut self, name: &str, w: &mut World) -> Result<(), String> {
            let at = self.children.iter().position(|c| c.name == name).expect("it is known");
            let from = match self.tree.strategy {
                Restarting::OneForOne | Restarting::Dynamic => {
                    return if self.start_child(at, w) { Ok(()) } else { Err(name.to_owned()) };
                }
                Restarting::OneForAll => 0,
                Restarting::RestForOne => at,
            };
            for child in self.children[from..].iter_mut().rev() {
                Self::stop_child(child, w);
            }
            let mut position = 0;
            self.children.retain(|c| {
                position += 1;
                position <= from || c.spec.restart != Restart::Temporary
            });
            for i in from..self.children.len() {
                if !self.start_child(i, w) {
                    return Err(self.children[i].name.clone());
                }
            }
            Ok(())
        }
    }
}

/// The player under test: nested [`Core`]s whose effects are carried out at once, in order.
struct Cores<'a> {
    cores: BTreeMap<String, Core>,
    trees: BTreeMap<String, Tree>,
    pids: BTreeMap<String, Pid>,
    next_pid: Pid,
    now: u64,
    failures: &'a mut Failures,
    log: &'a mut Log,
    ended: bool,
}

impl Cores<'_> {
    fn start_supervisor(&mut self, name: &str, tree: &Tree) {
        let children =
            tree.children.iter().enumerate().map(|(i, s)| (address(&format!("{name}/{i}")), s.restart));
        let intensity = Intensity { restarts: tree.intensity, within: Duration::from_secs(5) };
        let mut core = Core::new(tree.strategy, intensity, children);
        self.trees.insert(name.to_owned(), tree.clone());
        let effects = core.boot(Duration::from_secs(self.now));
        self.cores.insert(name.to_owned(), core);
        self.carry_out(name, effects);
    }

    fn tell(&mut self, name: &str, event: Event) {
        let now = Duration::from_secs(self.now);
        if let Some(effects) = self.cores.get_mut(name).map(|c| c.handle(now, event)) {
            self.carry_out(name, effects);
        }
    }

    fn tell_parent(&mut self, child: &str, event: Event) {
        match child.rsplit_once('/') {
            Some((parent, _)) => self.tell(parent, event),
            None => self.ended |= matches!(event, Event::Exited { .. } | Event::StartFailed { .. }),
        }
    }

    fn carry_out(&mut self, sup: &str, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { child, .. } => {
                    let name = child.as_str();
                    let index: usize = child.leaf().parse().expect("children are numbered");
                    match self.trees[sup].children[index].what.clone() {
                        What::Supervisor(tree) => self.start_supervisor(name, &tree),
                        What::Worker if take_failure(self.failures, name) => {
                            self.log.push(format!("fail {name}"));
                            let reason = ExitReason::Error("init".into());
                            self.tell(sup, Event::StartFailed { child: child.clone(), reason });
                        }
                        What::Worker => {
                            self.log.push(format!("start {name}"));
                            self.started(name);
                        }
                    }
                }
                Effect::Stop { child, pid } => {
                    if self.cores.contains_key(child.as_str()) {
                        self.tell(child.as_str(), Event::Shutdown { reason: ExitReason::Shutdown });
                    } else {
                        self.log.push(format!("stop {child}"));
                        self.pids.remove(child.as_str());
                        self.tell(sup, Event::Exited { pid, reason: ExitReason::Shutdown });
                    }
                }
                Effect::Booted => self.started(sup),
                Effect::Exit { reason } => {
                    self.cores.remove(sup);
                    match self.pids.remove(sup) {
                        Some(pid) => self.tell_parent(sup, Event::Exited { pid, reason }),
                        None => self.tell_parent(sup, Event::StartFailed { child: address(sup), reason }),
                    }
                }
                Effect::Forget { .. } | Effect::Answer { .. } => {}
            }
        }
    }

    fn started(&mut self, name: &str) {
        self.next_pid += 1;
        self.pids.insert(name.to_owned(), self.next_pid);
        let pid = self.next_pid;
        self.tell_parent(name, Event::Started { child: address(name), pid });
    }

    fn workers(&self) -> Vec<String> {
        let mut names: Vec<_> = self.pids.keys().filter(|n| !self.cores.contains_key(*n)).cloned().collect();
        names.sort_by_key(|n| {
            n.split('/').skip(1).filter_map(|s| s.parse::<usize>().ok()).collect::<Vec<_>>()
        });
        names
    }
}

fn address(name: &str) -> Address {
    Address::new(name).expect("a good name")
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let restart = prop_oneof![
        4 => Just(Restart::Permanent), 2 => Just(Restart::Transient), 1 => Just(Restart::Temporary)
    ];
    let strategy =
        prop_oneof![Just(Restarting::OneForOne), Just(Restarting::OneForAll), Just(Restarting::RestForOne)];
    let worker = restart.clone().prop_map(|restart| Spec { restart, what: What::Worker });
    let spec = worker.prop_recursive(3, 24, 4, move |inner| {
        (restart.clone(), strategy.clone(), 0..4u32, prop::collection::vec(inner, 0..4)).prop_map(
            |(restart, strategy, intensity, children)| Spec {
                restart,
                what: What::Supervisor(Tree { strategy, intensity, children }),
            },
        )
    });
    let strategy =
        prop_oneof![Just(Restarting::OneForOne), Just(Restarting::OneForAll), Just(Restarting::RestForOne)];
    (strategy, 0..5u32, prop::collection::vec(spec, 1..5)).prop_map(|(strategy, intensity, children)| Tree {
        strategy,
        intensity,
        children,
    })
}

fn any_blow() -> impl Strategy<Value = Blow> {
    let reason = prop_oneof![
        Just(ExitReason::Normal),
        Just(ExitReason::Shutdown),
        Just(ExitReason::Killed),
        Just(ExitReason::Panic("boom".into()))
    ];
    prop_oneof![
        5 => (any::<usize>(), reason).prop_map(|(n, r)| Blow::Exit(n, r)),
        2 => (any::<usize>(), 1..3u32).prop_map(|(n, times)| Blow::FailStarts(n, times)),
        2 => (0..8u64).prop_map(Blow::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_trees_restart_as_otp_would(tree in any_tree(), blows in prop::collection::vec(any_blow(), 1..25)) {
        let (mut model_log, mut core_log) = (Log::new(), Log::new());
        let (mut model_failures, mut core_failures) = (Failures::new(), Failures::new());
        let mut now = 0;
        let mut model = oracle::Sup::start("r", &tree, &mut oracle::World {
            now, failures: &mut model_failures, log: &mut model_log
        });
        let mut cores = Cores {
            cores: BTreeMap::new(), trees: BTreeMap::new(), pids: BTreeMap::new(), next_pid: 0, now,
            failures: &mut core_failures, log: &mut core_log, ended: false,
        };
        cores.start_supervisor("r", &tree);
        for blow in blows {
            let Some(sup) = model.as_mut() else { break };
            let mut running = Vec::new();
            sup.running(&mut running);
            prop_assert_eq!(&running, &cores.workers());
            if running.is_empty() {
                break;
            }
            match blow {
                Blow::Exit(n, reason) => {
                    let name = running[n % running.len()].clone();
                    let mut world = oracle::World { now, failures: &mut model_failures, log: &mut model_log };
                    if !sup.exit(&name, &reason, &mut world) {
                        model = None;
                    }
                    cores.now = now;
                    if let Some(pid) = cores.pids.remove(&name) {
                        cores.tell_parent(&name, Event::Exited { pid, reason });
                    }
                }
                Blow::FailStarts(n, times) => {
                    let name = running[n % running.len()].clone();
                    model_failures.insert(name.clone(), times);
                    cores.failures.insert(name, times);
                }
                Blow::Pause(seconds) => now += seconds,
            }
            prop_assert_eq!(model.is_none(), cores.ended);
            prop_assert_eq!(&model_log, &*cores.log);
        }
    }
}

/// The same trees and blows on the real runtime, in virtual time.
mod runtime {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use strum::IntoStaticStr;

    use super::*;
    use crate::{Actor, ChildSpec, Cx, Node, SupervisorSpec};

    #[derive(Default)]
    pub struct Shared {
        pub log: Log,
        pub failures: Failures,
    }

    struct Worker {
        name: String,
        shared: Arc<Mutex<Shared>>,
    }

    #[derive(Debug, IntoStaticStr)]
    enum Msg {
        End(ExitReason),
    }

    impl Actor for Worker {
        type Msg = Msg;

        fn handle(&mut self, Msg::End(reason): Msg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
            // Not an orderly stop that the supervisor asked for, so `stopping` must not log it.
            self.name.clear();
            match reason {
                ExitReason::Panic(text) => panic!("{text}"),
                reason => Err(reason),
            }
        }

        fn stopping(&mut self) {
            if !self.name.is_empty() {
                self.shared.lock().log.push(format!("stop {}", self.name));
            }
        }

        fn inspect(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
    }

    fn spec(name: &str, tree: &Tree, shared: &Arc<Mutex<Shared>>) -> SupervisorSpec {
        // The model counts whole seconds, the runtime also the moments between.
        let within = Duration::from_millis(5500);
        let mut sup = SupervisorSpec::new(address(name), tree.strategy).intensity(tree.intensity, within);
        for (i, child) in tree.children.iter().enumerate() {
            let name = format!("{name}/{i}");
            let made = match &child.what {
                What::Supervisor(tree) => spec(&name, tree, shared).into_child(),
                What::Worker => {
                    let shared = shared.clone();
                    ChildSpec::worker(address(&name), move |start| {
                        let shared = shared.clone();
                        async move {
                            let name = start.address.to_string();
                            let mut s = shared.lock();
                            if take_failure(&mut s.failures, &name) {
                                s.log.push(format!("fail {name}"));
                                return Err(ExitReason::Error("init".into()));
                            }
                            s.log.push(format!("start {name}"));
                            drop(s);
                            Ok(Worker { name, shared })
                        }
                    })
                }
            };
            sup = sup.child(made.restart(child.restart));
        }
        sup
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub async fn play(tree: Tree, blows: Vec<Blow>) -> Result<(), TestCaseError> {
        let node = Node::builder("test").build();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mut model_log = Log::new();
        let mut model_failures = Failures::new();
        let mut now = 0;
        let mut model = oracle::Sup::start(
            "r",
            &tree,
            &mut oracle::World { now, failures: &mut model_failures, log: &mut model_log },
        );
        let root = spec("r", &tree, &shared).start_root(&node).await;
        let Ok(root) = root else { return Err(TestCaseError::fail("the tree does not start")) };
        for blow in blows {
            let Some(sup) = model.as_mut() else { break };
            let mut running = Vec::new();
            sup.running(&mut running);
            if running.is_empty() {
                break;
            }
            match blow {
                Blow::Exit(n, reason) => {
                    let name = running[n % running.len()].clone();
                    let mut world = oracle::World { now, failures: &mut model_failures, log: &mut model_log };
                    if !sup.exit(&name, &reason, &mut world) {
                        model = None;
                    }
                    let cell = node.registry().find(&address(&name));
                    let Some(cell) = cell else {
                        return Err(TestCaseError::fail(format!("{name} is not there")));
                    };
                    match reason {
                        ExitReason::Killed => cell.exit(ExitReason::Killed),
                        reason => {
                            let mailbox = node.registry().lookup::<Msg>(&address(&name));
                            let sent = mailbox.ok().map(|m| m.tell(Msg::End(reason)).is_ok());
                            prop_assert_eq!(sent, Some(true));
                        }
                    }
                }
                Blow::FailStarts(n, times) => {
                    let name = running[n % running.len()].clone();
                    model_failures.insert(name.clone(), times);
                    shared.lock().failures.insert(name, times);
                }
                Blow::Pause(seconds) => {
                    now += seconds;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
            }
            settle().await;
            prop_assert_eq!(&model_log, &shared.lock().log);
            prop_assert_eq!(model.is_none(), root.ended().is_some());
        }
        root.exit(ExitReason::Shutdown);
        settle().await;
        prop_assert!(node.registry().is_empty(), "names left behind: {:?}", node.registry().len());
        Ok(())
    }

    /// Runs `work` on an actix system whose clock moves only when every actor waits.
    pub fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
        actix::System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .expect("a runtime")
        })
        .block_on(work)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn random_trees_of_real_actors_restart_as_otp_would(
        tree in any_tree(), blows in prop::collection::vec(any_blow(), 1..25)
    ) {
        runtime::in_virtual_time(runtime::play(tree, blows))?;
    }
}

#[test]
fn a_second_crash_while_the_group_restarts_is_not_a_second_restart() {
    let names: Vec<Address> = ["a", "b"].iter().map(|n| address(n)).collect();
    let intensity = Intensity { restarts: 1, within: Duration::from_secs(5) };
    let mut core =
        Core::new(Restarting::OneForAll, intensity, names.iter().map(|n| (n.clone(), Restart::Permanent)));
    let zero = Duration::ZERO;
    core.boot(zero);
    core.handle(zero, Event::Started { child: names[0].clone(), pid: 1 });
    core.handle(zero, Event::Started { child: names[1].clone(), pid: 2 });
    let crash = ExitReason::Panic("boom".into());
    let stop = core.handle(zero, Event::Exited { pid: 1, reason: crash.clone() });
    assert_eq!(stop, [Effect::Stop { child: names[1].clone(), pid: 2 }]);
    // b crashes by itself before the order reaches it: its end is the end that was waited for.
    let start = core.handle(zero, Event::Exited { pid: 2, reason: crash });
    assert_eq!(start, [Effect::Start { child: names[0].clone(), restarts: 1 }]);
    core.handle(zero, Event::Started { child: names[0].clone(), pid: 3 });
    core.handle(zero, Event::Started { child: names[1].clone(), pid: 4 });
    assert_eq!(core.total_restarts(), 1);
}

#[test]
fn a_request_during_the_end_is_answered() {
    let a = address("a");
    let mut core = Core::new(Restarting::OneForOne, Intensity::default(), [(a.clone(), Restart::Permanent)]);
    let zero = Duration::ZERO;
    core.boot(zero);
    core.handle(zero, Event::Started { child: a, pid: 1 });
    core.handle(zero, Event::Shutdown { reason: ExitReason::Shutdown });
    core.handle(zero, Event::StartChild { child: address("b"), restart: Restart::Permanent, token: 7 });
    let end = core.handle(zero, Event::Exited { pid: 1, reason: ExitReason::Shutdown });
    assert!(matches!(end[0], Effect::Answer { token: 7, answer: Err(_) }), "{end:?}");
    assert!(matches!(end[1], Effect::Exit { .. }));
}
