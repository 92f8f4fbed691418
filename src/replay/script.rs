//! A scenario script as it is written.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// One script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub name: String,
    #[serde(default)]
    #[allow(dead_code, reason = "for the reader of the script")]
    pub about: String,
    #[serde(default)]
    pub seed: u64,
    /// Time at which the virtual clock begins.
    #[serde(default)]
    pub start: DateTime<Utc>,
    /// Whether the licence grants interception.
    #[serde(default)]
    pub sorm: bool,
    /// Directory of `routing/import`, from the script's own.
    #[serde(default)]
    pub files: PathBuf,
    pub steps: Vec<Step>,
    #[serde(skip)]
    pub path: PathBuf,
}

/// One step: exactly one of `cocon`, `crash`, `wait`, `actor` or something a phone does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// A heading for those who read the report.
    #[serde(default)]
    pub note: Option<String>,
    /// A CoCon command line.
    #[serde(default)]
    pub cocon: Option<String>,
    /// An actor that is to be killed.
    #[serde(default)]
    pub crash: Option<String>,
    /// Seconds to let pass.
    #[serde(default)]
    pub wait: Option<f64>,
    /// An actor that must be running, see `expect.restarts`.
    #[serde(default)]
    pub actor: Option<String>,
    /// A phone that registers; with that it is there.
    #[serde(default)]
    pub register: Option<Register>,
    /// A neighbour without registration, at an address of its own: a trunk's other end.
    #[serde(default)]
    pub listen: Option<Listen>,
    #[serde(default)]
    pub call: Option<To>,
    /// A phone that answers what rings.
    #[serde(default)]
    pub answer: Option<String>,
    #[serde(default)]
    pub hold: Option<String>,
    /// A phone that takes up the call it holds.
    #[serde(default)]
    pub resume: Option<String>,
    /// A phone that transfers: to a number, or, without one, the party it holds to the party it talks with.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    #[serde(default)]
    pub dtmf: Option<Keys>,
    #[serde(default, rename = "hang up")]
    pub hang_up: Option<String>,
    /// A phone that is looked at.
    #[serde(default)]
    pub phone: Option<String>,
    /// What a control point says, or is told.
    #[serde(default)]
    pub sorm: Option<Point>,
    /// Seconds in which a phone's expectation must have come true; 5 when left out.
    #[serde(default)]
    pub within: Option<f64>,
    #[serde(default)]
    pub expect: Expect,
}

/// A control point behind a mediator: it says something, or shows what it was told since it was looked at last.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// The mediator's address, as in `radius_servers`.
    pub mediator: String,
    /// The domain it works with, or the user of an aggregate.
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(default)]
    pub aggregate: Option<String>,
    /// A command, as `sorm::point::HELP` lists them.
    #[serde(default)]
    pub say: Option<String>,
}

impl Point {
    fn line(&self) -> String {
        let who = self.domain.as_ref().or(self.aggregate.as_ref()).map_or(&self.mediator, |d| d);
        match &self.say {
            Some(said) => format!("sorm: {who}: {said}"),
            None => format!("sorm: what {who} was told"),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    pub phone: String,
    /// `100@voip.local`
    pub user: String,
    pub password: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub phone: String,
    pub at: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    pub phone: String,
    pub to: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    pub phone: String,
    #[serde(default)]
    pub to: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub phone: String,
    pub keys: String,
}

/// What a phone does.
#[derive(Debug, Clone)]
pub enum Action {
    Register(Register),
    Listen(SocketAddr),
    Call(String),
    Answer,
    Hold(bool),
    Transfer(Option<String>),
    Keys(String),
    HangUp,
    Look,
}

impl Action {
    /// In one line; passwords are nobody's to read.
    fn line(&self, phone: &str) -> String {
        match self {
            Self::Register(who) => format!("register: {phone} as {}", who.user),
            Self::Listen(at) => format!("listen: {phone} at {at}"),
            Self::Call(to) => format!("call: {phone} to {to}"),
            Self::Answer => format!("answer: {phone}"),
            Self::Hold(true) => format!("hold: {phone}"),
            Self::Hold(false) => format!("resume: {phone}"),
            Self::Transfer(Some(to)) => format!("transfer: {phone} to {to}"),
            Self::Transfer(None) => format!("transfer: {phone}"),
            Self::Keys(keys) => format!("dtmf: {phone} {keys}"),
            Self::HangUp => format!("hang up: {phone}"),
            Self::Look => format!("phone: {phone}"),
        }
    }

    /// What is expected of it where the step says nothing.
    pub fn leads_to(&self) -> Option<&'static str> {
        match self {
            Self::Register(_) => Some("registered"),
            Self::Answer | Self::Hold(false) => Some("talking"),
            Self::Hold(true) => Some("holding"),
            Self::HangUp => Some("hung up"),
            _ => None,
        }
    }
}

/// What must be seen.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Exit status; 0 when left out.
    #[serde(default)]
    pub status: u32,
    /// Texts that must be there.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Texts that must not.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// JSON pointer (RFC 6901) into the command's data, and the value there.
    #[serde(default)]
    pub json: BTreeMap<String, serde_json::Value>,
    /// How often the actor has been started again.
    #[serde(default)]
    pub restarts: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Syntax(PathBuf, serde_yaml_ng::Error),
    #[error(
        "{0}: step {1} wants exactly one of cocon, crash, wait, actor, register, listen, call, answer, hold, resume, transfer, dtmf, hang up, phone and sorm (a note alone may stand too)"
    )]
    Step(PathBuf, usize),
    #[error("{0}: step {1}: {2} seconds cannot be waited for")]
    Wait(PathBuf, usize, f64),
}

/// Longest wait, seconds.
const LONGEST: f64 = 86_400.0 * 366.0;

impl Script {
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path).map_err(|e| ScriptError::Read(path.to_owned(), e))?;
        let mut script: Self =
            serde_yaml_ng::from_str(&text).map_err(|e| ScriptError::Syntax(path.to_owned(), e))?;
        script.path = path.to_owned();
        for (i, step) in script.steps.iter().enumerate() {
            let actions = [&step.cocon, &step.crash, &step.actor].map(Option::is_some);
            let actions = actions.into_iter().chain([step.wait.is_some(), step.sorm.is_some()]);
            let count = actions.filter(|a| *a).count() + step.phones().len();
            if count > 1 || (count == 0 && step.note.is_none()) {
                return Err(ScriptError::Step(path.to_owned(), i + 1));
            }
            let spans = [step.wait, step.within].into_iter().flatten();
            if let Some(wait) = spans.into_iter().find(|w| !(0.0..=LONGEST).contains(w)) {
                return Err(ScriptError::Wait(path.to_owned(), i + 1, wait));
            }
        }
        Ok(script)
    }

    pub fn files(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(&self.files)
    }
}

impl Step {
    /// What phones do in it: none, or one thing.
    fn phones(&self) -> Vec<(&str, Action)> {
        let register = self.register.as_ref().map(|r| (r.phone.as_str(), Action::Register(r.clone())));
        let listen = self.listen.as_ref().map(|l| (l.phone.as_str(), Action::Listen(l.at)));
        let call = self.call.as_ref().map(|c| (c.phone.as_str(), Action::Call(c.to.clone())));
        let transfer = self.transfer.as_ref().map(|t| (t.phone.as_str(), Action::Transfer(t.to.clone())));
        let keys = self.dtmf.as_ref().map(|k| (k.phone.as_str(), Action::Keys(k.keys.clone())));
        let named = [
            (&self.answer, Action::Answer),
            (&self.hold, Action::Hold(true)),
            (&self.resume, Action::Hold(false)),
            (&self.hang_up, Action::HangUp),
            (&self.phone, Action::Look),
        ];
        let named = named.into_iter().filter_map(|(name, action)| Some((name.as_deref()?, action)));
        [register, listen, call, transfer, keys].into_iter().flatten().chain(named).collect()
    }

    /// The phone of this step and what it does.
    pub fn action(&self) -> Option<(&str, Action)> {
        self.phones().into_iter().next()
    }

    pub fn pause(&self) -> Option<Duration> {
        self.wait.map(Duration::from_secs_f64)
    }

    /// The step in one line.
    pub fn line(&self) -> String {
        let part = |name: &str, value: &Option<String>| value.as_ref().map(|v| format!("{name}: {v}"));
        part("cocon", &self.cocon)
            .or_else(|| part("crash", &self.crash))
            .or_else(|| part("actor", &self.actor))
            .or_else(|| self.wait.map(|w| format!("wait: {w} s")))
            .or_else(|| self.sorm.as_ref().map(Point::line))
            .or_else(|| self.action().map(|(phone, action)| action.line(phone)))
            .unwrap_or_default()
    }
}

impl Expect {
    /// What is not as expected; empty when all is.
    pub fn misses(&self, status: u32, text: &str, data: Option<&serde_json::Value>) -> Vec<String> {
        let mut misses = Vec::new();
        if status != self.status {
            misses.push(format!("status {} was expected, {status} was seen", self.status));
        }
        misses.extend(
            self.contains.iter().filter(|t| !text.contains(*t)).map(|t| format!("{t:?} is not there")),
        );
        misses.extend(self.lacks.iter().filter(|t| text.contains(*t)).map(|t| format!("{t:?} is there")));
        for (pointer, want) in &self.json {
            let seen = data.and_then(|d| d.pointer(pointer));
            if seen != Some(want) {
                let seen = seen.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                misses.push(format!("{pointer}: {want} was expected, {seen} was seen"));
            }
        }
        misses
    }
}
