//! A scenario script as it is written.

use std::{
    collections::BTreeMap,
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
    /// Directory of `routing/import`, from the script's own.
    #[serde(default)]
    pub files: PathBuf,
    pub steps: Vec<Step>,
    #[serde(skip)]
    pub path: PathBuf,
}

/// One step: exactly one of `cocon`, `crash`, `wait`, `actor`.
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
    #[serde(default)]
    pub expect: Expect,
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
    #[error("{0}: step {1} wants exactly one of cocon, crash, wait and actor (a note alone may stand too)")]
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
            let actions =
                [step.cocon.is_some(), step.crash.is_some(), step.wait.is_some(), step.actor.is_some()];
            let count = actions.iter().filter(|a| **a).count();
            if count > 1 || (count == 0 && step.note.is_none()) {
                return Err(ScriptError::Step(path.to_owned(), i + 1));
            }
            if let Some(wait) = step.wait.filter(|w| !(0.0..=LONGEST).contains(w)) {
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
