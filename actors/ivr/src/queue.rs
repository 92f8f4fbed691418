//! Queues of callers (очередь): who waits longest is connected with whoever has been free longest. One actor a queue,
//! `domain/<D>/queue/<NAME>`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node};
use strum::IntoStaticStr;
use tokio::sync::mpsc;

use crate::{
    run::{Event, QueueNews},
    tree,
};

/// The supervisor of all queues.
pub const QUEUES: &str = "ivr/queues";
/// How long somebody who did not answer is left alone.
const REST: Duration = Duration::from_secs(10);
/// How long a queue without anybody stays.
const EMPTY: Duration = Duration::from_secs(60);

/// What somebody who answers does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Agent {
    /// Free since the so-manieth event.
    Free(u64),
    /// Is being called for, or talks to, this caller.
    With(u64),
    Rests,
}

/// Who waits and who answers, without IO. Callers are numbers.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, Vec<String>)>,
    agents: BTreeMap<String, Agent>,
    events: u64,
}

impl Queue {
    /// False when too many wait.
    fn join(&mut self, caller: u64, agents: Vec<String>, most: usize) -> bool {
        if self.waiting.len() >= most {
            return false;
        }
        for agent in &agents {
            self.agents.entry(agent.clone()).or_insert(Agent::Free(0));
        }
        self.waiting.push_back((caller, agents));
        true
    }

    /// Brings callers and those who are free together.
    fn turns(&mut self) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        let mut still = VecDeque::new();
        for (caller, agents) in std::mem::take(&mut self.waiting) {
            let free = agents.iter().filter_map(|a| match self.agents.get(a) {
                Some(Agent::Free(since)) => Some((*since, a.clone())),
                _ => None,
            });
            match free.min() {
                Some((_, agent)) => {
                    self.agents.insert(agent.clone(), Agent::With(caller));
                    out.push((caller, agent));
                }
                None => still.push_back((caller, agents)),
            }
        }
        self.waiting = still;
        out
    }

    /// An agent did not answer: the caller is the first again.
    fn missed(&mut self, caller: u64, agent: &str, agents: Vec<String>) {
        if let Some(state) = self.agents.get_mut(agent) {
            *state = Agent::Rests;
        }
        self.waiting.push_front((caller, agents));
    }

    fn rested(&mut self, agent: &str) {
        self.events += 1;
        if let Some(state @ Agent::Rests) = self.agents.get_mut(agent) {
            *state = Agent::Free(self.events);
        }
    }

    /// A caller waits no more; whether somebody is with it.
    fn leave(&mut self, caller: u64) -> bool {
        self.waiting.retain(|(c, _)| *c != caller);
        self.agents.values().any(|a| *a == Agent::With(caller))
    }

    /// A caller's call has ended.
    fn gone(&mut self, caller: u64) {
        self.leave(caller);
        self.events += 1;
        for agent in self.agents.values_mut().filter(|a| **a == Agent::With(caller)) {
            *agent = Agent::Free(self.events);
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.agents.values().any(|a| matches!(a, Agent::With(_)))
    }
}

/// Somebody who joins.
#[derive(Debug)]
pub struct Join {
    /// The script's and the call's names.
    pub script: Address,
    pub call: Address,
    pub agents: Vec<String>,
    pub most: usize,
    pub tell: mpsc::UnboundedSender<Event>,
}

#[derive(Debug, IntoStaticStr)]
pub enum QueueMsg {
    Join(Box<Join>),
    /// An agent of this script's did not answer.
    Missed(Address, String),
    Leave(Address),
    /// The script, or the call, has ended.
    ScriptEnded(u64),
    CallEnded(u64),
    Rested(String),
    Empty,
}

struct QueueActor {
    queue: Queue,
    callers: BTreeMap<u64, Join>,
    next: u64,
}

impl QueueActor {
    fn caller(&self, script: &Address) -> Option<u64> {
        self.callers.iter().find(|(_, join)| join.script == *script).map(|(n, _)| *n)
    }

    fn turns(&mut self) {
        for (caller, agent) in self.queue.turns() {
            if let Some(known) = self.callers.get(&caller) {
                // A script that has gone is told of by its monitor.
                let _ = known.tell.send(Event::Queue(QueueNews::Turn(agent)));
            }
        }
    }
}

impl Actor for QueueActor {
    type Msg = QueueMsg;

    fn handle(&mut self, msg: QueueMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            QueueMsg::Join(join) => {
                let caller = self.next;
                self.next += 1;
                if !self.queue.join(caller, join.agents.clone(), join.most) {
                    let _ = join.tell.send(Event::Queue(QueueNews::Full));
                    return Ok(());
                }
                cx.monitor(&join.script, move |_| QueueMsg::ScriptEnded(caller));
                self.callers.insert(caller, *join);
            }
            QueueMsg::Missed(script, agent) => {
                if let Some(caller) = self.caller(&script) {
                    let agents = self.callers[&caller].agents.clone();
                    self.queue.missed(caller, &agent, agents);
                    cx.after(REST, QueueMsg::Rested(agent));
                }
            }
            QueueMsg::Leave(script) => {
                if let Some(caller) = self.caller(&script) {
                    self.queue.gone(caller);
                    self.callers.remove(&caller);
                }
            }
            QueueMsg::ScriptEnded(caller) => {
                let Some(known) = self.callers.get(&caller) else { return Ok(()) };
                if self.queue.leave(caller) {
                    // It is connected: whoever answered is busy until that call ends.
                    cx.monitor(&known.call, move |_| QueueMsg::CallEnded(caller));
                } else {
                    self.callers.remove(&caller);
                }
            }
            QueueMsg::CallEnded(caller) => {
                self.queue.gone(caller);
                self.callers.remove(&caller);
            }
            QueueMsg::Rested(agent) => self.queue.rested(&agent),
            QueueMsg::Empty if self.queue.is_empty() && self.callers.is_empty() => {
                return Err(ExitReason::Normal);
            }
            QueueMsg::Empty => {}
        }
        self.turns();
        if self.queue.is_empty() && self.callers.is_empty() {
            cx.after(EMPTY, QueueMsg::Empty);
        }
        Ok(())
    }

    /// Numbers are the callers' and the agents'.
    fn inspect(&self) -> serde_json::Value {
        let count = |wanted: fn(&Agent) -> bool| self.queue.agents.values().filter(|a| wanted(a)).count();
        serde_json::json!({
            "waiting": self.queue.waiting.len(),
            "agents": self.queue.agents.len(),
            "free": count(|a| matches!(a, Agent::Free(_))),
            "busy": count(|a| matches!(a, Agent::With(_))),
        })
    }
}

/// The queue's name.
pub fn address(domain: &str, queue: &str) -> Result<Address, AddressError> {
    Address::new(format!("domain/{domain}/queue/{queue}"))
}

/// Joins a queue, which is there from its first caller on.
pub async fn join(node: &Node, queue: &Address, join: Join) -> Result<(), String> {
    if node.registry().find(queue).is_none() {
        let spec = ChildSpec::worker(queue.clone(), |_| async {
            Ok(QueueActor { queue: Queue::default(), callers: BTreeMap::new(), next: 1 })
        });
        // Somebody else may have been faster.
        let _ = tree::start(node, QUEUES, spec).await;
    }
    let mailbox = node.registry().lookup::<QueueMsg>(queue).map_err(|e| e.to_string())?;
    mailbox.tell(QueueMsg::Join(Box::new(join))).map_err(|_| "the queue does not listen".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agents(all: &[&str]) -> Vec<String> {
        all.iter().map(|a| (*a).to_owned()).collect()
    }

    #[test]
    fn the_longest_waiting_meets_the_longest_free() {
        let mut queue = Queue::default();
        let both = || agents(&["101", "102"]);
        assert!(queue.join(1, both(), 2) && queue.join(2, both(), 2));
        assert_eq!(queue.turns(), [(1, "101".into()), (2, "102".into())]);
        assert!(queue.join(3, both(), 2) && queue.join(4, both(), 2));
        assert!(!queue.join(5, both(), 2), "too many wait");
        assert_eq!(queue.turns(), []);
        queue.gone(2);
        assert_eq!(queue.turns(), [(3, "102".into())]);
        queue.missed(3, "102", both());
        assert_eq!(queue.turns(), [], "102 rests");
        queue.rested("102");
        assert_eq!(queue.turns(), [(3, "102".into())], "who was not answered is the first again");
        assert!(!queue.leave(4));
        queue.gone(1);
        queue.gone(3);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn nobody_is_given_twice_and_nobody_is_lost(steps in proptest::collection::vec((0_u8..5, 0_usize..6), 0..60)) {
            let mut queue = Queue::default();
            let all = agents(&["a", "b", "c"]);
            let (mut next, mut with) = (0, BTreeMap::<u64, String>::new());
            for (what, which) in steps {
                let some = with.iter().nth(which).map(|(c, a)| (*c, a.clone()));
                match (what, some) {
                    (0 | 1, _) => {
                        next += 1;
                        queue.join(next, all.clone(), 5);
                    }
                    (2, Some((caller, agent))) => {
                        with.remove(&caller);
                        queue.missed(caller, &agent, all.clone());
                    }
                    (3, Some((caller, _))) => {
                        with.remove(&caller);
                        queue.gone(caller);
                    }
                    _ => queue.rested(&all[which % 3]),
                }
                for (caller, agent) in queue.turns() {
                    prop_assert!(!with.values().any(|a| *a == agent));
                    prop_assert!(with.insert(caller, agent).is_none());
                }
            }
        }
    }
}
