//! Waiting for somebody who is free: block `queue`.

use std::time::Duration;

use super::{Effect, Event, Run, State};
use crate::script::Waiting;

/// What a queue tells who waits in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueNews {
    /// So many wait already.
    Full,
    /// Somebody is free: they are to be called.
    Turn(String),
}

/// A caller in a queue.
pub(super) struct Queued {
    of: Waiting,
    /// Which prompt comes next.
    next: usize,
    /// Whom it is being connected with.
    agent: Option<String>,
    attempts: u64,
    /// The longest wait is over.
    late: bool,
    timer: u64,
}

impl Run {
    pub(super) fn queue(&mut self, of: Waiting) {
        let (queue, most) = (self.vars.fill(&of.queue), of.most);
        let agents: Vec<String> = of
            .numbers
            .iter()
            .flat_map(|n| self.vars.fill(n).split([',', ' ']).map(str::to_owned).collect::<Vec<_>>())
            .filter(|n| !n.is_empty() && !n.contains('%'))
            .collect();
        if agents.is_empty() {
            return self.leave("ERROR");
        }
        self.out.push(Effect::Join { queue, agents, most });
        let timer = self.timer(of.wait);
        self.state = State::Queue(Queued { of, next: 0, agent: None, attempts: 0, late: false, timer });
        self.queue_plays();
    }

    /// The next of its prompts, round and round.
    fn queue_plays(&mut self) {
        let State::Queue(queued) = &mut self.state else { return };
        let prompts = &queued.of.play;
        if let Some(prompt) = prompts.get(queued.next % prompts.len().max(1)).cloned() {
            queued.next += 1;
            self.play_one(prompt);
        }
    }

    fn queue_gives_up(&mut self) {
        self.out.push(Effect::LeaveQueue);
        self.out.push(Effect::Quiet);
        self.leave("ERROR");
        self.enter();
    }

    pub(super) fn queue_on(&mut self, event: Event) {
        let State::Queue(queued) = &mut self.state else { return };
        match event {
            Event::Queue(QueueNews::Full) => {
                self.out.push(Effect::Quiet);
                self.leave("FULL");
                self.enter();
            }
            Event::Queue(QueueNews::Turn(agent)) => {
                queued.agent = Some(agent.clone());
                let patience = Duration::from_secs(queued.of.patience);
                self.vars.set("QUEUE_AGENT", &agent);
                self.out.push(Effect::Quiet);
                self.out.push(Effect::Dial { number: agent, patience });
            }
            Event::Failed(_) => {
                let Some(agent) = queued.agent.take() else { return };
                queued.attempts += 1;
                if queued.late || queued.attempts >= queued.of.attempts {
                    return self.queue_gives_up();
                }
                self.out.push(Effect::Missed(agent));
                self.queue_plays();
            }
            Event::Played if queued.agent.is_none() => self.queue_plays(),
            Event::Due(timer) if timer == queued.timer => {
                queued.late = true;
                // Whom somebody is just being called for is not sent away.
                if queued.agent.is_none() {
                    self.queue_gives_up();
                }
            }
            _ => {}
        }
    }
}
