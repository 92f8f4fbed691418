//! A script being run for one caller, without IO: what the caller does goes in, what is to be done comes out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use call::Cause;
use chrono::{DateTime, Datelike, FixedOffset, Timelike};

use crate::{
    script::{Action, Menu, Prompt, Script},
    vars::Vars,
};

/// Blocks that may follow one another without the caller doing or hearing anything; more is a loop.
const STEPS: u32 = 1_000;
/// Whom the caller is told nothing of.
const ASR: [&str; 4] = ["ASR_RECOGNIZED", "ASR_NUMBER", "ASR_POSITIVE_URL", "ASR_NEGATIVE_URL"];

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
    /// Listens for any name of an attendant's, or for these phrases.
    Listen {
        service: Option<String>,
        phrases: Vec<String>,
    },
    Deaf,
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
    Over,
}

/// A menu under way.
struct Asking {
    menu: Menu,
    left: VecDeque<Prompt>,
    playing: bool,
    digits: String,
    /// The caller speaks, or what was said is being looked at.
    speaking: bool,
    /// The time to answer has passed while the caller spoke.
    late: bool,
    /// Which timer counts.
    timer: u64,
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
                self.out.push(Effect::Http { method, url: self.vars.fill(&url), headers, timeout, limit });
            }
            Action::Menu(menu) => self.ask(menu),
        }
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
            (Some(prompt), _) => {
                let prompt = match prompt {
                    Prompt::Speech { text, voice, speed } => {
                        Prompt::Speech { text: self.vars.fill(&text), voice, speed }
                    }
                    Prompt::File(path) => Prompt::File(self.vars.fill(&path)),
                };
                self.out.push(Effect::Play(prompt));
            }
            (None, State::Playing { .. }) => {
                self.leave("next");
                self.enter();
            }
            (None, _) => self.wait_for_answer(),
        }
    }

    // ---- menus

    fn ask(&mut self, menu: Menu) {
        for name in ASR {
            self.vars.set(name, "");
        }
        let service = menu.asr_service.as_ref().map(|s| self.vars.fill(s));
        if let Some(service) = &service {
            self.vars.set("ASR_SERVICE", service);
        }
        let phrases: Vec<String> = menu.choices.iter().flat_map(|c| c.phrases.iter().cloned()).collect();
        if service.is_some() || !phrases.is_empty() {
            self.out.push(Effect::Listen { service, phrases });
        }
        let left: VecDeque<Prompt> = menu.play.iter().cloned().collect();
        let digits = String::new();
        self.state = State::Menu(Asking {
            menu,
            left,
            playing: false,
            digits,
            speaking: false,
            late: false,
            timer: 0,
        });
        self.play_on();
    }

    fn timer(&mut self, seconds: u64) {
        self.timers += 1;
        let number = self.timers;
        if let State::Menu(asking) = &mut self.state {
            asking.timer = number;
            self.out.push(Effect::After(Duration::from_secs(seconds), number));
        }
    }

    /// The prompt is over: the caller has so long.
    fn wait_for_answer(&mut self) {
        if let State::Menu(asking) = &self.state {
            let seconds = if asking.digits.is_empty() { asking.menu.wait } else { asking.menu.interdigit };
            self.timer(seconds);
        }
    }

    fn menu_done(&mut self, outcome: &str) {
        let State::Menu(asking) = &self.state else { return };
        if asking.playing {
            self.out.push(Effect::Quiet);
        }
        self.out.push(Effect::Deaf);
        self.leave(outcome);
        self.enter();
    }

    /// Keys are over: a choice, or an extension.
    fn digits_done(&mut self) {
        let State::Menu(asking) = &self.state else { return };
        let (digits, menu) = (asking.digits.clone(), asking.menu.clone());
        if let Some(choice) = menu.choices.iter().find(|c| c.key == digits) {
            let key = choice.key.clone();
            return self.menu_done(&key);
        }
        if !menu.extension || digits.is_empty() {
            return self.menu_done("No Match");
        }
        self.vars.set("EXTENSION", &digits);
        if menu.direct {
            if asking.playing {
                self.out.push(Effect::Quiet);
            }
            self.out.push(Effect::Deaf);
            self.state = State::Dialling { menu: true };
            self.out.push(Effect::Dial { number: digits, patience: Duration::from_secs(60) });
            return;
        }
        self.menu_done("Extension");
    }

    fn menu_key(&mut self, key: char) {
        let State::Menu(asking) = &mut self.state else { return };
        if asking.playing {
            if !asking.menu.interruption {
                return;
            }
            asking.playing = false;
            asking.left.clear();
            self.out.push(Effect::Quiet);
        }
        if key == '#' && !asking.digits.is_empty() {
            return self.digits_done();
        }
        asking.digits.push(key);
        let digits = asking.digits.clone();
        let longer = asking.menu.choices.iter().any(|c| c.key.starts_with(&digits) && c.key != digits);
        let may_grow = asking.menu.extension && digits.len() < asking.menu.max_digits;
        match !longer && !may_grow {
            true => self.digits_done(),
            false => {
                let seconds = asking.menu.interdigit;
                self.timer(seconds);
            }
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
            (State::Menu(_), Event::Key(key)) => self.menu_key(key),
            (State::Menu(asking), Event::Played) if asking.playing => self.play_on(),
            (State::Menu(asking), Event::Speaks) => {
                asking.speaking = true;
                if asking.playing && asking.menu.interruption {
                    asking.playing = false;
                    asking.left.clear();
                    self.out.push(Effect::Quiet);
                    self.wait_for_answer();
                }
            }
            (State::Menu(asking), Event::Answered(answer)) => {
                asking.speaking = false;
                let late = asking.late;
                let found = answer.number.clone();
                self.vars.set("ASR_RECOGNIZED", &answer.recognised);
                self.vars.set("ASR_NEGATIVE_URL", &answer.negative);
                if let Some(number) = found {
                    self.vars.set("ASR_NUMBER", &number);
                    self.vars.set("ASR_POSITIVE_URL", &answer.positive);
                    self.menu_done("Extension");
                } else if late {
                    self.menu_done("No Match");
                }
            }
            (State::Menu(asking), Event::Phrase(phrase)) => {
                asking.speaking = false;
                let late = asking.late;
                let said = speech::grammar::normal(&phrase);
                let fits =
                    |c: &&crate::script::Choice| c.phrases.iter().any(|p| speech::grammar::normal(p) == said);
                let key = asking.menu.choices.iter().find(fits).map(|c| c.key.clone());
                self.vars.set("ASR_RECOGNIZED", &phrase);
                match key {
                    Some(key) => self.menu_done(&key),
                    None if late => self.menu_done("No Match"),
                    None => {}
                }
            }
            (State::Menu(_), Event::Unheard) => self.menu_done("No Match"),
            (State::Menu(asking), Event::Due(timer)) if timer == asking.timer => {
                if asking.speaking && asking.digits.is_empty() && !asking.late {
                    // Who speaks is heard to the end, once more as long.
                    asking.late = true;
                    let seconds = asking.menu.wait.max(5);
                    return self.timer(seconds);
                }
                match asking.digits.is_empty() {
                    true => self.menu_done("No Match"),
                    false => self.digits_done(),
                }
            }
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
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const MANUAL: &str = include_str!("../../../fixtures/ivr/simple_auto_attendant5.json");

    fn now() -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339("2026-11-25T10:00:00+03:00").expect("a time")
    }

    fn run(script: Script) -> (Run, Vec<Effect>) {
        let mut run = Run::new(Arc::new(script), Vars::default(), now());
        let effects = run.handle(now(), Event::Begin);
        (run, effects)
    }

    fn manual() -> (Run, Vec<Effect>) {
        run(Script::parse(MANUAL).expect("read"))
    }

    fn spoken(effects: &[Effect]) -> Vec<&str> {
        effects
            .iter()
            .filter_map(|e| match e {
                Effect::Play(Prompt::Speech { text, .. }) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    fn timer(effects: &[Effect]) -> u64 {
        effects
            .iter()
            .rev()
            .find_map(|e| if let Effect::After(_, t) = e { Some(*t) } else { None })
            .expect("a timer")
    }

    fn found() -> Answer {
        Answer {
            recognised: "женя казарцев".into(),
            number: Some("4819".into()),
            positive: "api/v1/records/1/positive".into(),
            negative: "api/v1/records/1/negative".into(),
        }
    }

    #[test]
    fn the_manuals_attendant_connects_a_name_it_found() {
        let (mut run, effects) = manual();
        assert!(
            effects.contains(&Effect::Listen { service: Some("localhost:9010".into()), phrases: vec![] })
        );
        assert_eq!(spoken(&effects), ["Произнесите имя и фамилию абонента."]);
        let effects = run.handle(now(), Event::Speaks);
        assert!(effects.contains(&Effect::Quiet), "who speaks is not spoken to");
        let effects = run.handle(now(), Event::Answered(found()));
        assert!(effects.contains(&Effect::Deaf));
        assert!(
            matches!(&effects[..], [.., Effect::Http { method, url, .. }]
            if method == "HEAD" && url == "http://localhost:9010/api/v1/records/1/positive"),
            "{effects:?}"
        );
        let effects = run.handle(now(), Event::Http(Ok(String::new())));
        assert_eq!(spoken(&effects), ["Соединяю."]);
        let effects = run.handle(now(), Event::Played);
        let dial = Effect::Dial { number: "4819".into(), patience: Duration::from_secs(55) };
        assert!(effects.contains(&dial), "{effects:?}");
        run.handle(now(), Event::Connected);
        assert!(run.is_over());
    }

    #[test]
    fn who_is_not_found_is_told_what_was_heard_and_tries_twice_more() {
        let (mut run, mut effects) = manual();
        let mut said = Vec::new();
        for _ in 0..3 {
            effects.extend(run.handle(now(), Event::Played));
            let due = timer(&effects);
            run.handle(now(), Event::Speaks);
            let answer =
                Answer {
                    recognised: "вася пупкин".into(), negative: "n".into(), ..Answer::default()
                };
            assert!(run.handle(now(), Event::Answered(answer)).is_empty(), "the next piece may bring it");
            effects = run.handle(now(), Event::Due(due));
            assert!(effects.iter().any(|e| matches!(e, Effect::Http { url, .. } if url.ends_with("/n"))));
            effects = run.handle(now(), Event::Http(Err("it is not there".into())));
            said.extend(spoken(&effects).into_iter().map(str::to_owned));
            effects = run.handle(now(), Event::Played);
        }
        assert_eq!(said, ["Не удалось найти абонента вася пупкин"; 3]);
        assert_eq!(spoken(&effects), ["Исчерпан лимит попыток. До свидания."]);
        assert_eq!(run.handle(now(), Event::Played).last(), Some(&Effect::Hangup));
    }

    #[test]
    fn a_recogniser_that_fails_is_a_retry_and_not_silence() {
        let (mut run, _) = manual();
        run.handle(now(), Event::Speaks);
        let effects = run.handle(now(), Event::Unheard);
        assert_eq!(spoken(&effects), ["Не удалось распознать абонента."]);
        assert_eq!(spoken(&run.handle(now(), Event::Played)), ["Произнесите имя и фамилию абонента."]);
    }

    #[test]
    fn an_extension_that_is_keyed_is_dialled() {
        let (mut run, _) = manual();
        for key in ['2', '0'] {
            let effects = run.handle(now(), Event::Key(key));
            assert!(!effects.iter().any(|e| matches!(e, Effect::Dial { .. })));
        }
        let effects = run.handle(now(), Event::Key('1'));
        assert!(effects.iter().any(|e| matches!(e, Effect::Dial { number, .. } if number == "201")));
        let effects = run.handle(now(), Event::Failed(Cause::BUSY));
        assert_eq!(spoken(&effects), ["Не удалось распознать абонента."]);
    }

    fn menu() -> Value {
        json!({ "actions": {
            "b": { "name": "begin", "cases": { "next": "m" } },
            "m": { "name": "ivr", "params": {
                "play": [{ "type": "file", "name": "menu.wav", "location": "prompts" }],
                "ivr": [{ "code": "1", "phrases": ["отдел продаж", "купить"] }, { "code": "12", "phrases": [] }],
                "wait_time": 5, "interdigit_timeout": 2,
            }, "cases": { "1": "one", "12": "undefined", "No Match": "w" } },
            "one": { "name": "dial", "params": { "numbers": "100" }, "cases": {} },
            "w": { "name": "time", "params": { "slots": [{ "code": "day", "days": "1-5", "from": "09:00", "to": "18:00" }] },
                "cases": { "day": "one", "False": "undefined" } },
        } })
    }

    #[test]
    fn a_phrase_takes_the_way_of_its_key() {
        let script = || Script::read(menu()).expect("read");
        let (mut by_voice, effects) = run(script());
        assert_eq!(effects[2], Effect::Play(Prompt::File("prompts/menu.wav".into())));
        let dials = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Dial { .. }));
        assert!(dials(&by_voice.handle(now(), Event::Phrase("Отдел продаж".into()))));
        let (mut by_key, _) = run(script());
        let effects = by_key.handle(now(), Event::Key('1'));
        assert!(!dials(&effects), "12 is possible yet");
        let effects = by_key.handle(now(), Event::Due(timer(&effects)));
        assert!(dials(&effects));
        let (mut longer, _) = run(script());
        longer.handle(now(), Event::Key('1'));
        assert_eq!(longer.handle(now(), Event::Key('2')).last(), Some(&Effect::Hangup));
        let (mut nothing, _) = run(script());
        let effects = nothing.handle(now(), Event::Played);
        assert!(dials(&nothing.handle(now(), Event::Due(timer(&effects)))), "it is Wednesday, ten o'clock");
    }

    #[test]
    fn a_script_that_goes_round_is_ended() {
        let json = json!({ "actions": {
            "b": { "name": "begin", "cases": { "next": "s" } },
            "s": { "name": "set", "params": { "variables": [] }, "cases": { "next": "s" } },
        } });
        let (run, effects) = run(Script::read(json).expect("read"));
        assert!(run.is_over() && effects.contains(&Effect::Hangup));
    }

    proptest! {
        #[test]
        fn whatever_happens_a_run_waits_for_something_or_ends(events in proptest::collection::vec(0_u8..10, 0..60)) {
            let (mut run, first) = manual();
            let mut last = first;
            for e in events {
                let due = last.iter().rev().find_map(|e| if let Effect::After(_, t) = e { Some(*t) } else { None });
                let event = match e {
                    0 => Event::Key('1'),
                    1 => Event::Key('#'),
                    2 => Event::Played,
                    3 => Event::Speaks,
                    4 => Event::Answered(found()),
                    5 => Event::Answered(Answer::default()),
                    6 => Event::Unheard,
                    7 => Event::Due(due.unwrap_or(1)),
                    8 => Event::Http(Err(String::new())),
                    _ => Event::Failed(Cause::BUSY),
                };
                let effects = run.handle(now(), event);
                if run.is_over() {
                    return Ok(());
                }
                if !effects.is_empty() {
                    last = effects;
                }
            }
        }
    }
}
