//! The supervisor's thinking, without runtime: which child to start or stop next. Follows `supervisor.erl` of
//! Erlang/OTP 25; where this text says "as OTP", that file is meant.

use std::{collections::VecDeque, time::Duration};

use foldhash::HashMap;
use serde::Serialize;

use crate::{Address, ExitReason, Pid, Restart};

/// What else happens when a child is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nothing.
    OneForOne,
    /// All others are stopped and started with it.
    OneForAll,
    /// Those started after it are stopped and started with it.
    RestForOne,
    /// Nothing; children come and go at run time and are forgotten when they end for good (`simple_one_for_one`).
    Dynamic,
}

/// More than `restarts` restarts within `within` and the supervisor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Intensity {
    pub restarts: u32,
    pub within: Duration,
}

impl Default for Intensity {
    /// OTP's default: 1 restart in 5 seconds.
    fn default() -> Self {
        Self { restarts: 1, within: Duration::from_secs(5) }
    }
}

/// Who asked; the answer carries it back.
pub type Token = u64;

/// What reaches a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Started {
        child: Address,
        pid: Pid,
    },
    StartFailed {
        child: Address,
        reason: ExitReason,
    },
    Exited {
        pid: Pid,
        reason: ExitReason,
    },
    StartChild {
        child: Address,
        restart: Restart,
        token: Token,
    },
    TerminateChild {
        child: Address,
        token: Token,
    },
    RestartChild {
        child: Address,
        token: Token,
    },
    DeleteChild {
        child: Address,
        token: Token,
    },
    /// From above: stop all children in reverse order and end.
    Shutdown {
        reason: ExitReason,
    },
    /// To itself: a restart failed and is tried again, behind what else waits.
    TryAgain {
        child: Address,
    },
}

/// What a supervisor does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Start {
        child: Address,
        restarts: u32,
    },
    Stop {
        child: Address,
        pid: Pid,
    },
    /// A child is gone and its specification with it.
    Forget {
        child: Address,
    },
    Answer {
        token: Token,
        answer: Result<Option<Pid>, Refusal>,
    },
    /// All children of the first specification run.
    Booted,
    /// The supervisor ends.
    Exit {
        reason: ExitReason,
    },
}

/// Why a request about a child was refused, in OTP's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum Refusal {
    #[error("already_started")]
    AlreadyStarted,
    #[error("already_present")]
    AlreadyPresent,
    #[error("not_found")]
    NotFound,
    #[error("running")]
    Running,
    #[error("restarting")]
    Restarting,
    #[error("it does not start: {0}")]
    StartFailed(ExitReason),
    #[error("the supervisor is stopping")]
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Stopped,
    Starting,
    Running,
    Stopping,
    /// Its last start failed; it is tried again.
    Restarting,
}

#[derive(Debug, Clone)]
struct Child {
    address: Address,
    restart: Restart,
    status: Status,
    pid: Option<Pid>,
    restarts: u32,
    /// Order of declaration; dynamic children are kept in a map and need it for listings.
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Boot,
    Request(Token),
    Restart,
}

#[derive(Debug, Clone)]
enum Step {
    Stop(Address),
    Start(Address, Purpose),
    /// After a requested stop.
    Stopped(Token),
    /// Stop everything in reverse order, then end.
    End(ExitReason),
    Booted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Waiting {
    Start(Address, Purpose),
    Stop(Pid),
    /// All dynamic children stop side by side.
    StopAll(usize),
}

/// A supervisor. Feed it events with the time since any fixed origin; carry out the effects in order.
#[derive(Debug)]
pub struct Core {
    strategy: Strategy,
    intensity: Intensity,
    children: Children,
    by_pid: HashMap<Pid, Address>,
    recent: VecDeque<Duration>,
    inbox: VecDeque<Event>,
    plan: VecDeque<Step>,
    waiting: Option<Waiting>,
    ending: Option<ExitReason>,
    booting: bool,
    dead: bool,
    total_restarts: u64,
    next_order: u64,
}

/// Children in order of declaration. A map beside the order keeps a dynamic supervisor with 100,000 children quick.
#[derive(Debug, Default)]
struct Children {
    by_name: HashMap<Address, Child>,
    order: std::collections::BTreeMap<u64, Address>,
}

impl Children {
    fn insert(&mut self, child: Child) {
        self.order.insert(child.order, child.address.clone());
        self.by_name.insert(child.address.clone(), child);
    }

    fn remove(&mut self, name: &Address) {
        if let Some(child) = self.by_name.remove(name) {
            self.order.remove(&child.order);
        }
    }

    fn names(&self) -> impl DoubleEndedIterator<Item = &Address> {
        self.order.values()
    }
}

impl Core {
    /// A supervisor that starts `children` in this order; call [`Core::boot`] next.
    pub fn new(
        strategy: Strategy,
        intensity: Intensity,
        children: impl IntoIterator<Item = (Address, Restart)>,
    ) -> Self {
        let mut core = Self {
            strategy,
            intensity,
            children: Children::default(),
            by_pid: HashMap::default(),
            recent: VecDeque::new(),
            inbox: VecDeque::new(),
            plan: VecDeque::new(),
            waiting: None,
            ending: None,
            booting: true,
            dead: false,
            total_restarts: 0,
            next_order: 0,
        };
        for (address, restart) in children {
            core.add(address, restart);
        }
        core
    }

    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    pub fn intensity(&self) -> Intensity {
        self.intensity
    }

    /// Restarts over its whole life.
    pub fn total_restarts(&self) -> u64 {
        self.total_restarts
    }

    /// Children in order of declaration, with their state.
    pub fn children(&self) -> impl Iterator<Item = (&Address, Restart, Status, Option<Pid>, u32)> {
        self.children.names().filter_map(|n| {
            let c = self.children.by_name.get(n)?;
            Some((&c.address, c.restart, c.status, c.pid, c.restarts))
        })
    }

    /// Begins: all children in order.
    pub fn boot(&mut self, now: Duration) -> Vec<Effect> {
        self.plan.extend(self.children.names().map(|a| Step::Start(a.clone(), Purpose::Boot)));
        self.plan.push_back(Step::Booted);
        let mut out = Vec::new();
        self.drive(now, &mut out);
        out
    }

    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.dead {
            if let Some(token) = token_of(&event) {
                out.push(Effect::Answer { token, answer: Err(Refusal::Stopping) });
            }
            return out;
        }
        match event {
            Event::Started { child, pid } => self.started(child, pid, &mut out),
            Event::StartFailed { child, reason } => self.start_failed(child, reason, &mut out),
            Event::Exited { pid, reason } => self.exited(pid, reason),
            Event::Shutdown { reason } => {
                // Whatever was planned gives way; a start under way is awaited, then stopped with the rest.
                self.ending.get_or_insert(reason);
            }
            other => self.inbox.push_back(other),
        }
        self.drive(now, &mut out);
        out
    }

    fn add(&mut self, address: Address, restart: Restart) {
        let order = self.next_order;
        self.next_order += 1;
        self.children.insert(Child {
            address,
            restart,
            status: Status::Stopped,
            pid: None,
            restarts: 0,
            order,
        });
    }

    fn child(&mut self, name: &Address) -> Option<&mut Child> {
        self.children.by_name.get_mut(name)
    }

    fn started(&mut self, name: Address, pid: Pid, out: &mut Vec<Effect>) {
        let waited = matches!(&self.waiting, Some(Waiting::Start(n, _)) if *n == name);
        debug_assert!(waited, "a child started that nobody waited for");
        if let Some(child) = self.child(&name) {
            child.pid = Some(pid);
            child.status = Status::Running;
        }
        self.by_pid.insert(pid, name);
        if let Some(Waiting::Start(_, Purpose::Request(token))) = self.waiting.take() {
            out.push(Effect::Answer { token, answer: Ok(Some(pid)) });
        }
    }

    fn start_failed(&mut self, name: Address, reason: ExitReason, out: &mut Vec<Effect>) {
        let Some(Waiting::Start(_, purpose)) = self.waiting.take() else { return };
        match purpose {
            Purpose::Boot => {
                if let Some(c) = self.child(&name) {
                    c.status = Status::Stopped;
                }
                self.ending.get_or_insert(reason);
            }
            Purpose::Request(token) => {
                let fresh =
                    self.child(&name).is_some_and(|c| c.restarts == 0 && c.status == Status::Starting);
                if let Some(c) = self.child(&name) {
                    c.status = Status::Stopped;
                }
                // A child that never ran is not kept; one that was asked to run again keeps its specification.
                if fresh {
                    self.children.remove(&name);
                    out.push(Effect::Forget { child: name });
                }
                out.push(Effect::Answer { token, answer: Err(Refusal::StartFailed(reason)) });
            }
            Purpose::Restart => {
                self.plan.clear();
                if let Some(c) = self.child(&name) {
                    c.status = Status::Restarting;
                }
                self.inbox.push_back(Event::TryAgain { child: name });
            }
        }
    }

    fn exited(&mut self, pid: Pid, reason: ExitReason) {
        match &mut self.waiting {
            Some(Waiting::Stop(stopping)) if *stopping == pid => {
                self.waiting = None;
                self.settle(pid);
            }
            Some(Waiting::StopAll(left)) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.waiting = None;
                }
                self.settle(pid);
            }
            _ => self.inbox.push_back(Event::Exited { pid, reason }),
        }
    }

    /// A stopped child: not running, and forgotten when temporary.
    fn settle(&mut self, pid: Pid) {
        let Some(name) = self.by_pid.remove(&pid) else { return };
        if let Some(child) = self.child(&name) {
            child.pid = None;
            child.status = Status::Stopped;
        }
    }

    fn drive(&mut self, now: Duration, out: &mut Vec<Effect>) {
        while self.waiting.is_none() && !self.dead {
            if let Some(reason) = self.ending.take() {
                self.abandon_plan(out);
                self.plan.push_back(Step::End(reason));
            }
            if let Some(step) = self.plan.pop_front() {
                self.step(step, out);
            } else if let Some(event) = self.inbox.pop_front() {
                self.interpret(now, event, out);
            } else {
                return;
            }
        }
    }

    /// Those who asked for what will not happen any more are told.
    fn abandon_plan(&mut self, out: &mut Vec<Effect>) {
        for step in self.plan.drain(..) {
            if let Step::Stopped(token) | Step::Start(_, Purpose::Request(token)) = step {
                out.push(Effect::Answer { token, answer: Err(Refusal::Stopping) });
            }
        }
    }

    /// Whether this life has ended already and only the news of it waits; takes the news.
    fn ended_unnoticed(&mut self, pid: Pid) -> bool {
        let found = self.inbox.iter().position(|e| matches!(e, Event::Exited { pid: p, .. } if *p == pid));
        if let Some(at) = found {
            self.inbox.remove(at);
            self.settle(pid);
        }
        found.is_some()
    }

    fn step(&mut self, step: Step, out: &mut Vec<Effect>) {
        match step {
            Step::Start(name, purpose) => {
                let Some(child) = self.child(&name) else { return };
                child.status = Status::Starting;
                let restarts = child.restarts;
                self.waiting = Some(Waiting::Start(name.clone(), purpose));
                out.push(Effect::Start { child: name, restarts });
            }
            Step::Stop(name) => {
                let Some(child) = self.child(&name) else { return };
                let temporary = child.restart == Restart::Temporary;
                child.status = Status::Stopping;
                let pid = child.pid;
                match pid {
                    Some(pid) if !self.ended_unnoticed(pid) => {
                        self.waiting = Some(Waiting::Stop(pid));
                        out.push(Effect::Stop { child: name.clone(), pid });
                    }
                    _ => {
                        if let Some(child) = self.child(&name) {
                            child.status = Status::Stopped;
                        }
                    }
                }
                if temporary {
                    self.children.remove(&name);
                    out.push(Effect::Forget { child: name });
                }
            }
            Step::Stopped(token) => out.push(Effect::Answer { token, answer: Ok(None) }),
            Step::Booted => {
                self.booting = false;
                out.push(Effect::Booted);
            }
            Step::End(reason) => self.end(reason, out),
        }
    }

    /// Stops what runs, last first (dynamic children side by side), then ends.
    fn end(&mut self, reason: ExitReason, out: &mut Vec<Effect>) {
        let running: Vec<(Address, Pid)> = self
            .children
            .names()
            .rev()
            .filter_map(|n| self.children.by_name.get(n).and_then(|c| Some((n.clone(), c.pid?))))
            .collect();
        let running: Vec<_> = running.into_iter().filter(|(_, pid)| !self.ended_unnoticed(*pid)).collect();
        if running.is_empty() {
            self.dead = true;
            for event in self.inbox.drain(..) {
                if let Some(token) = token_of(&event) {
                    out.push(Effect::Answer { token, answer: Err(Refusal::Stopping) });
                }
            }
            out.push(Effect::Exit { reason });
            return;
        }
        self.plan.push_back(Step::End(reason));
        let at_once = if self.strategy == Strategy::Dynamic { running.len() } else { 1 };
        self.waiting = Some(match (self.strategy, running[0].1) {
            (Strategy::Dynamic, _) => Waiting::StopAll(running.len()),
            (_, pid) => Waiting::Stop(pid),
        });
        for (name, pid) in running.into_iter().take(at_once) {
            if let Some(child) = self.child(&name) {
                child.status = Status::Stopping;
            }
            out.push(Effect::Stop { child: name, pid });
        }
    }

    fn interpret(&mut self, now: Duration, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Exited { pid, reason } => self.child_ended(now, pid, &reason, out),
            Event::TryAgain { child } => {
                if self.child(&child).is_some_and(|c| c.status == Status::Restarting) {
                    self.restart(now, child);
                }
            }
            Event::StartChild { child, restart, token } => {
                let refused = self.child(&child).map(|known| match known.pid {
                    Some(_) => Refusal::AlreadyStarted,
                    None => Refusal::AlreadyPresent,
                });
                match refused {
                    Some(refusal) => out.push(Effect::Answer { token, answer: Err(refusal) }),
                    None => {
                        self.add(child.clone(), restart);
                        self.plan.push_back(Step::Start(child, Purpose::Request(token)));
                    }
                }
            }
            Event::TerminateChild { child, token } => match self.child(&child) {
                None => out.push(Effect::Answer { token, answer: Err(Refusal::NotFound) }),
                Some(_) => {
                    self.plan.push_back(Step::Stop(child.clone()));
                    self.plan.push_back(Step::Stopped(token));
                    if self.strategy == Strategy::Dynamic {
                        // As OTP: a terminated dynamic child is not kept.
                        self.inbox.push_front(Event::DeleteChild { child, token: NOBODY });
                    }
                }
            },
            Event::RestartChild { child, token } => {
                let refusal = match self.child(&child).map(|c| c.status) {
                    None => Some(Refusal::NotFound),
                    Some(Status::Restarting) => Some(Refusal::Restarting),
                    Some(Status::Stopped) => None,
                    Some(_) => Some(Refusal::Running),
                };
                match refusal {
                    Some(refusal) => out.push(Effect::Answer { token, answer: Err(refusal) }),
                    None => {
                        if let Some(c) = self.child(&child) {
                            c.restarts += 1;
                        }
                        self.plan.push_back(Step::Start(child, Purpose::Request(token)));
                    }
                }
            }
            Event::DeleteChild { child, token } => {
                let answer = match self.child(&child).map(|c| c.status) {
                    None => Err(Refusal::NotFound),
                    Some(Status::Stopped) => {
                        self.children.remove(&child);
                        out.push(Effect::Forget { child });
                        Ok(None)
                    }
                    Some(Status::Restarting) => Err(Refusal::Restarting),
                    Some(_) => Err(Refusal::Running),
                };
                if token != NOBODY {
                    out.push(Effect::Answer { token, answer });
                }
            }
            Event::Started { .. } | Event::StartFailed { .. } | Event::Shutdown { .. } => {}
        }
    }

    fn child_ended(&mut self, now: Duration, pid: Pid, reason: &ExitReason, out: &mut Vec<Effect>) {
        // Unknown when a group restart has stopped it meanwhile.
        let Some(name) = self.by_pid.remove(&pid) else { return };
        let Some(child) = self.child(&name) else { return };
        child.pid = None;
        child.status = Status::Stopped;
        let kind = child.restart;
        let again = match kind {
            Restart::Permanent => true,
            Restart::Transient => reason.is_abnormal(),
            Restart::Temporary => false,
        };
        if again {
            self.restart(now, name);
        } else if kind == Restart::Temporary || self.strategy == Strategy::Dynamic {
            self.children.remove(&name);
            out.push(Effect::Forget { child: name });
        }
    }

    fn restart(&mut self, now: Duration, name: Address) {
        if !self.within_intensity(now) {
            self.ending = Some(ExitReason::Shutdown);
            return;
        }
        self.total_restarts += 1;
        let group: Vec<Address> = match self.strategy {
            Strategy::OneForOne | Strategy::Dynamic => vec![name],
            Strategy::OneForAll => self.children.names().cloned().collect(),
            Strategy::RestForOne => self.children.names().skip_while(|n| **n != name).cloned().collect(),
        };
        for member in group.iter().rev() {
            let running =
                self.child(member).is_some_and(|c| c.pid.is_some() || c.restart == Restart::Temporary);
            if running {
                self.plan.push_back(Step::Stop(member.clone()));
            }
        }
        for member in group {
            let Some(child) = self.child(&member) else { continue };
            // As OTP: temporary ones go with the group, and transient ones that had ended come back with it.
            if child.restart != Restart::Temporary {
                child.restarts += 1;
                self.plan.push_back(Step::Start(member, Purpose::Restart));
            }
        }
    }

    fn within_intensity(&mut self, now: Duration) -> bool {
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.saturating_sub(*first) > self.intensity.within) {
            self.recent.pop_front();
        }
        self.recent.len() <= self.intensity.restarts as usize
    }
}

const NOBODY: Token = 0;

fn token_of(event: &Event) -> Option<Token> {
    match event {
        Event::StartChild { token, .. }
        | Event::TerminateChild { token, .. }
        | Event::RestartChild { token, .. }
        | Event::DeleteChild { token, .. } => Some(*token).filter(|t| *t != NOBODY),
        _ => None,
    }
}
