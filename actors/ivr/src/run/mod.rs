//! A script being run for one caller, without IO: what the caller does goes in, what is to be done comes out.

mod keeping;
mod menu;
mod queueing;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use call::Cause;
use chrono::{DateTime, Datelike, FixedOffset, Timelike};

use self::{
    keeping::{Keeping, Mail},
    menu::Asking,
    queueing::Queued,
};
pub use self::{
    keeping::{RecordTo, Recorded},
    queueing::QueueNews,
};
use crate::{
    script::{Action, Prompt, Script},
    vars::Vars,
};

/// Blocks that may follow one another without the caller doing or hearing anything; more is a loop.
const STEPS: u32 = 1_000;

/// What an auto-attendant has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub recognised: String,
    pub number: Option<String>,
    pub positive: String,
    pub negative: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Begin,
    Key(char),
    /// A prompt has been played, or could not be.
    Played,
    /// The caller begins to speak.
    Speaks,
    /// The caller has said something, which nobody was to understand.
    Silent,
    /// What the caller said is kept; else the outcome.
    Recorded(Result<Recorded, String>),
    /// Messages of a mailbox, by their numbers.
    Mail(Vec<u64>),
    Queue(QueueNews),
    /// What an auto-attendant understood.
    Answered(Answer),
    /// One of a menu's phrases was said.
    Phrase(String),
    /// The recogniser failed: nobody will answer.
    Unheard,
    Due(u64),
    /// Which outcome an HTTP request had, and what came.
    Http(Result<String, String>),
    Failed(Cause),
    Connected,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Play(Prompt),
    Quiet,
    /// Listens for any name of an attendant's, for these phrases, or by a grammar of the operator's files.
    Listen {
        service: Option<String>,
        phrases: Vec<String>,
        grammar: Option<String>,
    },
    Deaf,
    /// Keeps what the caller says from now on.
    Record(RecordTo),
    RecordStop,
    MailList(String),
    PlayMail(String, u64),
    MailHeard(String, u64),
    MailRemove(String, u64),
    /// Waits for one of these; no more than so many may.
    Join {
        queue: String,
        agents: Vec<String>,
        most: usize,
    },
    /// Whose turn it was did not answer.
    Missed(String),
    LeaveQueue,
    After(Duration, u64),
    Http {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        timeout: Duration,
        limit: usize,
    },
    Dial {
        number: String,
        patience: Duration,
    },
    Note(String),
    Hangup,
}

enum State {
    /// Between blocks.
    Moving,
    Playing {
        left: VecDeque<Prompt>,
    },
    Menu(Asking),
    Dialling {
        menu: bool,
    },
    Asking,
    Recording(Keeping),
    Mail(Mail),
    Queue(Queued),
    Over,
}

/// One run.
pub struct Run {
    script: Arc<Script>,
    pub vars: Vars,
    at: String,
    state: State,
    hops: BTreeMap<String, u64>,
    timers: u64,
    now: DateTime<FixedOffset>,
    out: Vec<Effect>,
}

impl Run {
    pub fn new(script: Arc<Script>, vars: Vars, now: DateTime<FixedOffset>) -> Self {
        let at = script.begin.clone();
        let (hops, out) = (BTreeMap::new(), Vec::new());
        Self { script, vars, at, state: State::Moving, hops, timers: 0, now, out }
    }

    /// The block it is at.
    pub fn at(&self) -> &str {
        &self.at
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub fn handle(&mut self, now: DateTime<FixedOffset>, event: Event) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::Begin => self.enter(),
            Event::Ended | Event::Connected => self.state = State::Over,
            event => self.on(event),
        }
        std::mem::take(&mut self.out)
    }

    fn end(&mut self) {
        self.out.push(Effect::Hangup);
        self.state = State::Over;
    }

    /// Goes where an outcome leads.
    fn leave(&mut self, outcome: &str) {
        self.out.push(Effect::Note(format!("{} {outcome}", self.at)));
        let next = self.script.blocks.get(&self.at).and_then(|b| b.cases.get(outcome).cloned()).flatten();
        match next {
            Some(next) => {
                self.at = next;
                self.state = State::Moving;
            }
            None => self.end(),
        }
    }

    /// As [`Self::leave`], by another outcome where the first leads nowhere.
    fn leave_or(&mut self, outcome: &str, other: &str) {
        let known = self.script.blocks.get(&self.at).is_some_and(|b| b.cases.contains_key(outcome));
        self.leave(if known { outcome } else { other });
    }

    /// Runs blocks until one waits for something.
    fn enter(&mut self) {
        for _ in 0..STEPS {
            if !matches!(self.state, State::Moving) {
                return;
            }
            let Some(block) = self.script.clone().blocks.get(&self.at).cloned() else { return self.end() };
            self.step(block.action);
        }
        self.out.push(Effect::Note(format!("{}: a loop without an end", self.at)));
        self.end();
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Begin => self.leave("next"),
            Action::Info(text) => {
                let text = self.vars.fill(&text);
                self.out.push(Effect::Note(text));
                self.leave("next");
            }
            Action::Set(all) => {
                for (name, value) in all {
                    let value = self.vars.fill(&value);
                    self.vars.set(&name, &value);
                }
                self.leave("next");
            }
            Action::Condition(all) => {
                let first = all.iter().find(|(_, condition)| condition.holds(&self.vars));
                let code = first.map_or("False", |(code, _)| code).to_owned();
                self.leave(&code);
            }
            Action::Digitmap { variable, masks } => {
                let value = self.vars.get(&variable).unwrap_or_default().to_owned();
                let first = masks.iter().find(|(_, mask)| fits(&self.vars.fill(mask), &value));
                let code = first.map_or("No Match", |(code, _)| code).to_owned();
                self.leave(&code);
            }
            Action::Time(slots) => {
                let (day, minute) =
                    (self.now.weekday().number_from_monday(), self.now.hour() * 60 + self.now.minute());
                // A slot over midnight belongs to the day it begins on.
                let within = |s: &crate::script::Slot| match s.from <= s.to {
                    true => s.days.contains(&day) && (s.from..s.to).contains(&minute),
                    false => {
                        let before = if day == 1 { 7 } else { day - 1 };
                        s.days.contains(&day) && minute >= s.from || s.days.contains(&before) && minute < s.to
                    }
                };
                let code = slots.iter().find(|s| within(s)).map_or("False", |s| &s.code).to_owned();
                self.leave(&code);
            }
            Action::Goto { target, hops } => {
                let made = self.hops.entry(self.at.clone()).or_default();
                if *made < hops {
                    *made += 1;
                    self.out.push(Effect::Note(format!("{} Goto", self.at)));
                    self.at = target;
                } else {
                    self.leave("Exit");
                }
            }
            Action::Play { play, replay } => {
                let left = (0..replay).flat_map(|_| play.iter().cloned()).collect();
                self.state = State::Playing { left };
                self.play_on();
            }
            Action::Say(prompt) => {
                self.state = State::Playing { left: [prompt].into() };
                self.play_on();
            }
            Action::Dial { numbers, patience } => {
                let number: String = self.vars.fill(&numbers).trim().to_owned();
                if number.is_empty() || number.contains('%') {
                    return self.leave("Error");
                }
                self.state = State::Dialling { menu: false };
                self.out.push(Effect::Dial { number, patience: Duration::from_secs(patience) });
            }
            Action::Rpc { method, url, headers, timeout, limit, .. } => {
                let headers = headers.iter().map(|(n, v)| (n.clone(), self.vars.fill(v))).collect();
                // Zero is as long as it takes, and no longer than a caller waits.
                let timeout = Duration::from_secs(if timeout == 0 { 10 } else { timeout });
                self.state = State::Asking;
                self.out.push(Effect::Http {
                    method,
                    url: self.vars.fill_url(&url),
                    headers,
                    timeout,
                    limit,
                });
            }
            Action::Menu(menu) => self.ask(menu),
            Action::Record(recording) => self.record(recording, RecordTo::File),
            Action::LeaveMail { mailbox, recording } => {
                let mailbox = self.vars.fill(&mailbox);
                self.record(recording, RecordTo::Mailbox(mailbox));
            }
            Action::HearMail { mailbox } => {
                let mailbox = self.vars.fill(&mailbox);
                self.hear_mail(mailbox);
            }
            Action::Queue(waiting) => self.queue(waiting),
        }
    }

    /// A timer; its number.
    fn timer(&mut self, seconds: u64) -> u64 {
        self.timers += 1;
        self.out.push(Effect::After(Duration::from_secs(seconds), self.timers));
        self.timers
    }

    fn play_one(&mut self, prompt: Prompt) {
        let prompt = match prompt {
            Prompt::Speech { text, voice, speed } => {
                Prompt::Speech { text: self.vars.fill(&text), voice, speed }
            }
            Prompt::File(path) => Prompt::File(self.vars.fill(&path)),
        };
        self.out.push(Effect::Play(prompt));
    }

    fn play_on(&mut self) {
        let next = match &mut self.state {
            State::Playing { left } => left.pop_front(),
            State::Menu(asking) => {
                let next = asking.left.pop_front();
                asking.playing = next.is_some();
                next
            }
            _ => return,
        };
        match (next, &self.state) {
            (Some(prompt), _) => self.play_one(prompt),
            (None, State::Playing { .. }) => {
                self.leave("next");
                self.enter();
            }
            (None, _) => self.wait_for_answer(),
        }
    }

    fn on(&mut self, event: Event) {
        match (&mut self.state, event) {
            (State::Playing { .. }, Event::Played) => self.play_on(),
            (State::Asking, Event::Http(answer)) => {
                let block = self.script.blocks.get(&self.at).cloned();
                let outcomes = match block.map(|b| b.action) {
                    Some(Action::Rpc { outcomes, .. }) => outcomes,
                    _ => Vec::new(),
                };
                // Without outcomes of its own a request leaves by Error, also when it was answered.
                let outcome = match answer {
                    Ok(body) if !outcomes.is_empty() => {
                        self.vars.set("RPC_RESULT", &body);
                        let said = body.trim();
                        outcomes.iter().find(|o| *o == said).or(outcomes.first()).cloned().unwrap_or_default()
                    }
                    _ => "Error".to_owned(),
                };
                self.leave(&outcome);
                self.enter();
            }
            (State::Dialling { menu }, Event::Failed(cause)) => {
                let outcome = match (*menu, cause) {
                    (true, _) => "No Match",
                    (false, Cause::BUSY | Cause::NO_ANSWER | Cause::NO_RESPONSE | Cause::REJECTED) => {
                        "Busy/No answer"
                    }
                    (false, _) => "Error",
                };
                self.leave(outcome);
                self.enter();
            }
            (State::Menu(_), event) => self.menu_on(event),
            (State::Recording(_), event) => self.recording_on(event),
            (State::Mail(_), event) => self.mail_on(event),
            (State::Queue(_), event) => self.queue_on(event),
            _ => {}
        }
    }
}

/// Whether a mask fits a text: `?` is one character, `%` the rest.
fn fits(mask: &str, text: &str) -> bool {
    let mut text = text.chars();
    for m in mask.chars() {
        match (m, text.next()) {
            ('%', _) => return true,
            ('?', Some(_)) => {}
            (m, Some(t)) if m == t => {}
            _ => return false,
        }
    }
    text.next().is_none()
}

#[cfg(test)]
mod tests;
