//! What a caller says and is kept: blocks `record` and `voicemail`; and hearing what was kept.

use std::collections::VecDeque;

use super::{Effect, Event, Run, State};
use crate::script::{Prompt, Recording};

/// How long a caller may think about what to do with a message.
const CHOOSE: u64 = 5;

/// Where a recording goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordTo {
    File,
    Mailbox(String),
}

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub file: String,
    pub seconds: u64,
}

/// A recording under way.
pub(super) struct Keeping {
    of: Recording,
    to: RecordTo,
    left: VecDeque<Prompt>,
    /// The caller is being recorded.
    running: bool,
    /// It is over, and is being put away.
    ending: bool,
    /// Timers of the whole, and of silence.
    most: u64,
    quiet: u64,
}

/// Messages being heard.
pub(super) struct Mail {
    mailbox: String,
    /// Messages to come, by their numbers.
    left: VecDeque<u64>,
    now: Option<u64>,
    timer: u64,
}

impl Run {
    pub(super) fn record(&mut self, of: Recording, to: RecordTo) {
        let left = of.play.iter().cloned().collect();
        let keeping = Keeping { of, to, left, running: false, ending: false, most: 0, quiet: 0 };
        self.state = State::Recording(keeping);
        self.recording_play();
    }

    /// Prompts first, then the recording.
    fn recording_play(&mut self) {
        let State::Recording(keeping) = &mut self.state else { return };
        if let Some(prompt) = keeping.left.pop_front() {
            return self.play_one(prompt);
        }
        keeping.running = true;
        let (to, most, quiet) = (keeping.to.clone(), keeping.of.most, keeping.of.silence);
        self.out.push(Effect::Record(to));
        let most = self.timer(most);
        let quiet = if quiet > 0 { self.timer(quiet.max(CHOOSE)) } else { 0 };
        if let State::Recording(keeping) = &mut self.state {
            (keeping.most, keeping.quiet) = (most, quiet);
        }
    }

    pub(super) fn recording_on(&mut self, event: Event) {
        let State::Recording(keeping) = &mut self.state else { return };
        match event {
            Event::Played if !keeping.running => self.recording_play(),
            // Who knows the greeting may skip it.
            Event::Key(_) if !keeping.running => {
                keeping.left.clear();
                self.out.push(Effect::Quiet);
                self.recording_play();
            }
            Event::Speaks => keeping.quiet = 0,
            Event::Silent if keeping.running && !keeping.ending && keeping.of.silence > 0 => {
                let seconds = keeping.of.silence;
                let timer = self.timer(seconds);
                if let State::Recording(keeping) = &mut self.state {
                    keeping.quiet = timer;
                }
            }
            Event::Key(key) if !keeping.ending && keeping.of.stop.contains(key) => self.recording_ends(),
            Event::Due(t) if !keeping.ending && t != 0 && (t == keeping.most || t == keeping.quiet) => {
                self.recording_ends();
            }
            Event::Recorded(kept) => {
                let variable = keeping.of.variable.clone();
                self.out.push(Effect::Deaf);
                match kept {
                    Ok(Recorded { file, seconds }) if seconds > 0 => {
                        self.vars.set(&variable, &file);
                        self.vars.set(&format!("{variable}_SECONDS"), &seconds.to_string());
                        self.leave("next");
                    }
                    Ok(_) => self.leave_or("Empty", "next"),
                    Err(outcome) => self.leave_or(&outcome, "next"),
                }
                self.enter();
            }
            _ => {}
        }
    }

    fn recording_ends(&mut self) {
        if let State::Recording(keeping) = &mut self.state {
            keeping.ending = true;
        }
        self.out.push(Effect::RecordStop);
    }

    // ---- hearing

    pub(super) fn hear_mail(&mut self, mailbox: String) {
        self.out.push(Effect::MailList(mailbox.clone()));
        self.state = State::Mail(Mail { mailbox, left: VecDeque::new(), now: None, timer: 0 });
    }

    pub(super) fn mail_on(&mut self, event: Event) {
        let State::Mail(mail) = &mut self.state else { return };
        match event {
            Event::Mail(all) => {
                if all.is_empty() {
                    self.leave_or("Empty", "next");
                    return self.enter();
                }
                mail.left = all.into();
                self.mail_next();
            }
            Event::Played => {
                if let Some(id) = mail.now {
                    let mailbox = mail.mailbox.clone();
                    self.out.push(Effect::MailHeard(mailbox, id));
                    let timer = self.timer(CHOOSE);
                    if let State::Mail(mail) = &mut self.state {
                        mail.timer = timer;
                    }
                }
            }
            Event::Due(timer) if timer == mail.timer && timer != 0 => self.mail_next(),
            Event::Key(key) => {
                let Some(id) = mail.now else { return };
                let mailbox = mail.mailbox.clone();
                self.out.push(Effect::Quiet);
                match key {
                    '1' => {
                        mail.timer = 0;
                        self.out.push(Effect::PlayMail(mailbox, id));
                    }
                    '3' => {
                        self.out.push(Effect::MailRemove(mailbox, id));
                        self.mail_next();
                    }
                    '*' | '#' => {
                        self.leave("next");
                        self.enter();
                    }
                    _ => self.mail_next(),
                }
            }
            _ => {}
        }
    }

    fn mail_next(&mut self) {
        let State::Mail(mail) = &mut self.state else { return };
        mail.timer = 0;
        mail.now = mail.left.pop_front();
        match mail.now {
            Some(id) => {
                let mailbox = mail.mailbox.clone();
                self.out.push(Effect::PlayMail(mailbox, id));
            }
            None => {
                self.leave("next");
                self.enter();
            }
        }
    }
}
