//! Menus: a prompt, and then what the caller keys or says.

use std::{collections::VecDeque, time::Duration};

use super::{Effect, Event, Run, State};
use crate::script::{Choice, Menu, Prompt};

/// What an attendant answers with, in variables that each menu empties.
const ASR: [&str; 4] = ["ASR_RECOGNIZED", "ASR_NUMBER", "ASR_POSITIVE_URL", "ASR_NEGATIVE_URL"];

/// A menu under way.
pub(super) struct Asking {
    pub(super) menu: Menu,
    pub(super) left: VecDeque<Prompt>,
    pub(super) playing: bool,
    digits: String,
    /// What the caller says or has said, and nobody has understood yet: pieces.
    said: usize,
    /// The time to answer has passed while the caller spoke.
    late: bool,
    /// Which timer counts.
    timer: u64,
}

impl Asking {
    /// A piece is understood; whether the time to answer is over with it.
    fn understood(&mut self) -> bool {
        self.said = self.said.saturating_sub(1);
        self.late && self.said == 0
    }
}

impl Run {
    pub(super) fn ask(&mut self, menu: Menu) {
        for name in ASR {
            self.vars.set(name, "");
        }
        let service = menu.asr_service.as_ref().map(|s| self.vars.fill(s));
        if let Some(service) = &service {
            self.vars.set("ASR_SERVICE", service);
        }
        let phrases: Vec<String> = menu.choices.iter().flat_map(|c| c.phrases.iter().cloned()).collect();
        let grammar = menu.grammar.clone();
        if service.is_some() || grammar.is_some() || !phrases.is_empty() {
            self.out.push(Effect::Listen { service, phrases, grammar });
        }
        let left: VecDeque<Prompt> = menu.play.iter().cloned().collect();
        let digits = String::new();
        self.state =
            State::Menu(Asking { menu, left, playing: false, digits, said: 0, late: false, timer: 0 });
        self.play_on();
    }

    fn menu_timer(&mut self, seconds: u64) {
        if matches!(self.state, State::Menu(_)) {
            let number = self.timer(seconds);
            if let State::Menu(asking) = &mut self.state {
                asking.timer = number;
            }
        }
    }

    /// The prompt is over: the caller has so long.
    pub(super) fn wait_for_answer(&mut self) {
        if let State::Menu(asking) = &self.state {
            let seconds = if asking.digits.is_empty() { asking.menu.wait } else { asking.menu.interdigit };
            self.menu_timer(seconds);
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
                self.menu_timer(seconds);
            }
        }
    }

    pub(super) fn menu_on(&mut self, event: Event) {
        let State::Menu(asking) = &mut self.state else { return };
        match (asking, event) {
            (_, Event::Key(key)) => self.menu_key(key),
            (asking, Event::Played) if asking.playing => self.play_on(),
            (asking, Event::Speaks) => {
                asking.said += 1;
                if asking.playing && asking.menu.interruption {
                    asking.playing = false;
                    asking.left.clear();
                    self.out.push(Effect::Quiet);
                    self.wait_for_answer();
                }
            }
            (asking, Event::Answered(answer)) => {
                let last = asking.understood();
                let found = answer.number.clone();
                self.vars.set("ASR_RECOGNIZED", &answer.recognised);
                self.vars.set("ASR_NEGATIVE_URL", &answer.negative);
                if let Some(number) = found {
                    self.vars.set("ASR_NUMBER", &number);
                    self.vars.set("ASR_POSITIVE_URL", &answer.positive);
                    self.menu_done("Extension");
                } else if last {
                    self.menu_done("No Match");
                }
            }
            (asking, Event::Phrase(phrase)) => {
                let last = asking.understood();
                let said = speech::grammar::normal(&phrase);
                let fits = |c: &&Choice| c.phrases.iter().any(|p| speech::grammar::normal(p) == said);
                let key = asking.menu.choices.iter().find(fits).map(|c| c.key.clone());
                self.vars.set("ASR_RECOGNIZED", &phrase);
                let by_grammar = asking.menu.grammar.is_some() && !said.is_empty();
                match key {
                    Some(key) => self.menu_done(&key),
                    None if by_grammar => self.menu_done("Recognized"),
                    None if last => self.menu_done("No Match"),
                    None => {}
                }
            }
            (_, Event::Unheard) => self.menu_done("No Match"),
            (asking, Event::Due(timer)) if timer == asking.timer => {
                if asking.said > 0 && asking.digits.is_empty() && !asking.late {
                    // Who speaks is heard to the end, once more as long.
                    asking.late = true;
                    let seconds = asking.menu.wait.max(5);
                    return self.menu_timer(seconds);
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
