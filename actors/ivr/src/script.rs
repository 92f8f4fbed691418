//! Scripts as JSON has them (manual, "IVR-скрипт"): blocks with parameters, and where each of their outcomes leads. What
//! editors keep for drawing stays as it came.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::condition::Condition;

/// Bytes of a script, and its blocks, at most.
pub const BYTES: usize = 1 << 20;
const BLOCKS: usize = 1_000;
/// What an outcome leads to when it ends the script.
const END: &str = "undefined";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("no JSON: {0}")]
    Json(String),
    #[error("larger than {BYTES} bytes")]
    Large,
    #[error("{0}")]
    Whole(&'static str),
    #[error("block {block}, {field}: {why}")]
    Block { block: String, field: String, why: String },
}

/// What is to be heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// Text to be spoken, with its voice and speed.
    Speech { text: String, voice: String, speed: String },
    /// A file of the node's prompts.
    File(String),
}

/// Whether a path stays among the prompts, and names nothing hidden.
pub(crate) fn is_prompt_file(path: &str) -> bool {
    !path.split('/').any(|part| part.starts_with('.'))
}

/// A choice of a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub key: String,
    pub phrases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    pub play: Vec<Prompt>,
    pub choices: Vec<Choice>,
    /// `host:port` of an auto-attendant.
    pub asr_service: Option<String>,
    /// One of the operator's JSGF files, by its name.
    pub grammar: Option<String>,
    pub interruption: bool,
    /// Seconds after the prompt.
    pub wait: u64,
    pub extension: bool,
    pub direct: bool,
    pub max_digits: usize,
    pub interdigit: u64,
}

/// How somebody is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Heard before.
    pub play: Vec<Prompt>,
    /// Seconds.
    pub most: u64,
    /// Seconds of silence that end it; 0: none do.
    pub silence: u64,
    /// Keys that end it.
    pub stop: String,
    /// Variable that is told the file; another one, with `_SECONDS`, how long it is.
    pub variable: String,
}

/// How somebody waits in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub queue: String,
    /// Who answers.
    pub numbers: Vec<String>,
    /// Callers that wait at most.
    pub most: usize,
    /// Seconds.
    pub wait: u64,
    /// Seconds that one of them may ring.
    pub patience: u64,
    /// How many of them are tried.
    pub attempts: u64,
    /// Heard while waiting, again and again.
    pub play: Vec<Prompt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Begin,
    Menu(Menu),
    Condition(Vec<(String, Condition)>),
    Set(Vec<(String, String)>),
    Dial {
        numbers: String,
        patience: u64,
    },
    Goto {
        target: String,
        hops: u64,
    },
    Play {
        play: Vec<Prompt>,
        replay: u64,
    },
    /// Speaks a text.
    Say(Prompt),
    Rpc {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        timeout: u64,
        limit: usize,
        outcomes: Vec<String>,
    },
    /// Compares a variable with masks: `?` is a digit, `%` the rest.
    Digitmap {
        variable: String,
        masks: Vec<(String, String)>,
    },
    /// Asks for the time of day and the day of the week.
    Time(Vec<Slot>),
    /// Notes a text in the call's ladder.
    Info(String),
    /// Keeps what the caller says in a file.
    Record(Recording),
    /// Keeps what the caller says in somebody's mailbox.
    LeaveMail {
        mailbox: String,
        recording: Recording,
    },
    /// Plays what is in a mailbox.
    HearMail {
        mailbox: String,
    },
    Queue(Waiting),
}

/// A time of the week: days 1 (Monday) to 7, minutes of the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub code: String,
    pub days: BTreeSet<u32>,
    pub from: u32,
    pub to: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub action: Action,
    /// Outcome to block; none ends the script.
    pub cases: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    pub name: String,
    pub begin: String,
    pub blocks: BTreeMap<String, Block>,
    /// As it came, for who exports it.
    pub json: Value,
}

/// Reads one block's parameters, and says which of them is wrong.
struct Fields<'b> {
    block: &'b str,
    params: &'b Value,
    speech: &'b Value,
}

/// A value that scripts write as a number or as a text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

impl Fields<'_> {
    fn wrong(&self, field: &str, why: impl Into<String>) -> ScriptError {
        ScriptError::Block { block: self.block.to_owned(), field: field.to_owned(), why: why.into() }
    }

    fn text(&self, field: &str) -> Option<String> {
        self.params.get(field).and_then(text)
    }

    fn wanted(&self, field: &str) -> Result<String, ScriptError> {
        let found = self.text(field).filter(|t| !t.trim().is_empty());
        found.ok_or_else(|| self.wrong(field, "a text is wanted"))
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, ScriptError> {
        match self.text(field).as_deref() {
            None | Some("") => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(self.wrong(field, "true or false is wanted")),
        }
    }

    fn number(
        &self,
        field: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ScriptError> {
        let Some(found) = self.text(field).filter(|t| !t.is_empty()) else { return Ok(default) };
        found.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
            self.wrong(field, format!("a number from {} to {} is wanted", range.start(), range.end()))
        })
    }

    fn list(&self, field: &str) -> Result<&[Value], ScriptError> {
        match self.params.get(field) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(all)) => Ok(all),
            Some(_) => Err(self.wrong(field, "a list is wanted")),
        }
    }

    fn prompts(&self, field: &str) -> Result<Vec<Prompt>, ScriptError> {
        self.list(field)?.iter().map(|item| self.prompt(field, item)).collect()
    }

    fn prompt(&self, field: &str, item: &Value) -> Result<Prompt, ScriptError> {
        let get = |name: &str| item.get(name).and_then(text).unwrap_or_default();
        let name = get("name");
        if name.trim().is_empty() {
            return Err(self.wrong(field, "what is to be heard has no name"));
        }
        match get("type").as_str() {
            "speech" => {
                let tts = item.get("tts").unwrap_or(&Value::Null);
                // A setting of its own holds where it says so; else the script's.
                let setting = |what: &str| {
                    let own = tts.get(format!("is_use_{what}")).and_then(Value::as_bool).unwrap_or(false);
                    let from = if own { tts } else { self.speech };
                    from.get(what).and_then(text).unwrap_or_default()
                };
                Ok(Prompt::Speech { text: name, voice: setting("voice"), speed: setting("speed") })
            }
            "file" | "" => {
                let path = format!("{}/{name}", get("location"));
                let path = path.trim_start_matches('/').to_owned();
                match is_prompt_file(&path) {
                    true => Ok(Prompt::File(path)),
                    false => Err(self.wrong(field, "a file of the node's prompts is wanted")),
                }
            }
            other => Err(self.wrong(field, format!("type {other} is not known; speech and file are"))),
        }
    }

    fn recording(&self, most: u64) -> Result<Recording, ScriptError> {
        let stop = self.text("stop_keys").unwrap_or_else(|| "#".into());
        if !stop.chars().all(|c| matches!(c, '0'..='9' | '*' | '#' | 'A'..='D')) {
            return Err(self.wrong("stop_keys", "keys are wanted: 0-9, *, #"));
        }
        Ok(Recording {
            play: self.prompts("play")?,
            most: self.number("max_time", most, 1..=1_800)?,
            silence: self.number("silence_time", 4, 0..=60)?,
            stop,
            variable: self
                .text("variable")
                .filter(|v| !v.trim().is_empty())
                .unwrap_or_else(|| "RECORD".into()),
        })
    }

    fn pairs(&self, field: &str, key: &str, value: &str) -> Result<Vec<(String, String)>, ScriptError> {
        let pair = |item: &Value| {
            let get = |name: &str| item.get(name).and_then(text);
            let both = get(key).filter(|k| !k.trim().is_empty()).zip(get(value));
            both.ok_or_else(|| self.wrong(field, format!("{key} and {value} are wanted")))
        };
        self.list(field)?.iter().map(pair).collect()
    }

    fn action(&self, name: &str) -> Result<Action, ScriptError> {
        Ok(match name {
            "begin" => Action::Begin,
            "ivr" => {
                let mut choices = Vec::new();
                for row in self.list("ivr")? {
                    let get = |names: &[&str]| names.iter().find_map(|n| row.get(*n)).and_then(text);
                    let key = get(&["code", "choice", "digit", "key"]).filter(|k| !k.is_empty());
                    let key = key.ok_or_else(|| self.wrong("ivr", "a row without its key (code)"))?;
                    let phrases = match row.get("phrases") {
                        Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
                        Some(Value::String(one)) => {
                            one.split([',', ';', '\n']).map(|p| p.trim().to_owned()).collect()
                        }
                        _ => Vec::new(),
                    };
                    choices.push(Choice {
                        key,
                        phrases: phrases.into_iter().filter(|p| !p.is_empty()).collect(),
                    });
                }
                Action::Menu(Menu {
                    play: self.prompts("play")?,
                    choices,
                    asr_service: self.text("asr_service").filter(|s| !s.trim().is_empty()),
                    grammar: self.text("grammar").filter(|s| !s.trim().is_empty()),
                    interruption: self.flag("playback_interruption", true)?,
                    wait: self.number("wait_time", 8, 0..=600)?,
                    extension: self.flag("extension_dialing", false)?,
                    direct: self.flag("direct_call_to_extension", false)?,
                    max_digits: self.number("max_digits", 20, 1..=40)? as usize,
                    interdigit: self.number("interdigit_timeout", 4, 1..=60)?,
                })
            }
            "condition" => {
                let all = self.pairs("conditions", "code", "condition")?;
                let read = |(code, text): (String, String)| {
                    let condition = Condition::parse(&text);
                    condition
                        .map(|c| (code.clone(), c))
                        .map_err(|e| self.wrong("conditions", format!("{code}: {e}")))
                };
                Action::Condition(all.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            "set" => Action::Set(self.pairs("variables", "key", "value")?),
            "dial" => Action::Dial {
                numbers: self.wanted("numbers")?,
                patience: self.number("noanswer_timeout", 60, 1..=600)?,
            },
            "goto" => {
                Action::Goto { target: self.wanted("goto")?, hops: self.number("max_hops", 1, 0..=1_000)? }
            }
            "play" => {
                Action::Play { play: self.prompts("play")?, replay: self.number("replay", 1, 1..=100)? }
            }
            "say" => {
                let voice = |what: &str| self.speech.get(what).and_then(text).unwrap_or_default();
                Action::Say(Prompt::Speech {
                    text: self.wanted("text")?,
                    voice: voice("voice"),
                    speed: voice("speed"),
                })
            }
            "rpc" => {
                let kind = self.text("type").unwrap_or_else(|| "HTTP".into());
                if !kind.eq_ignore_ascii_case("http") {
                    return Err(self.wrong("type", "HTTP is wanted"));
                }
                let method = self.text("method").unwrap_or_else(|| "GET".into()).to_uppercase();
                if !matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "DELETE") {
                    return Err(self.wrong("method", "GET, HEAD, POST, PUT or DELETE is wanted"));
                }
                let outcome = |v: &Value| text(v).or_else(|| v.get("name").and_then(text));
                Action::Rpc {
                    method,
                    url: self.wanted("url")?,
                    headers: self.pairs("headers", "key", "value")?,
                    timeout: self.number("request_timeout", 10, 0..=120)?,
                    limit: self.number("max_bytes", 10_000, 0..=1_000_000)? as usize,
                    outcomes: self.list("rpc_comm")?.iter().filter_map(outcome).collect(),
                }
            }
            "digitmap" => Action::Digitmap {
                variable: self.wanted("variable")?,
                masks: self.pairs("masks", "code", "mask")?,
            },
            "time" => {
                let minutes = |t: &str| {
                    let (h, m) = t.split_once(':')?;
                    let (h, m): (u32, u32) = (h.parse().ok()?, m.parse().ok()?);
                    (h < 24 && m < 60 || (h, m) == (24, 0)).then_some(h * 60 + m)
                };
                let slot = |item: &Value| {
                    let get = |name: &str| item.get(name).and_then(text);
                    let code = get("code").ok_or_else(|| self.wrong("slots", "code is wanted"))?;
                    let at = |name: &str, default: &str| {
                        let told = get(name).unwrap_or_else(|| default.to_owned());
                        minutes(&told).ok_or_else(|| self.wrong("slots", format!("{name}: 09:00 is wanted")))
                    };
                    let days = get("days").unwrap_or_else(|| "1-7".into());
                    let mut all = BTreeSet::new();
                    for part in days.split(',') {
                        let (a, b) = part.split_once('-').unwrap_or((part, part));
                        let day = |d: &str| d.trim().parse().ok().filter(|d| (1..=7).contains(d));
                        let (a, b): (u32, u32) =
                            day(a).zip(day(b)).ok_or_else(|| self.wrong("slots", "days: 1-5,7 is wanted"))?;
                        all.extend(a..=b);
                    }
                    Ok(Slot { code, days: all, from: at("from", "00:00")?, to: at("to", "24:00")? })
                };
                Action::Time(self.list("slots")?.iter().map(slot).collect::<Result<_, ScriptError>>()?)
            }
            "record" => Action::Record(self.recording(60)?),
            "voicemail" => {
                let mailbox = self.text("mailbox").filter(|m| !m.trim().is_empty());
                let mailbox = mailbox.unwrap_or_else(|| "%CDPN%".into());
                match self.text("mode").as_deref() {
                    None | Some("" | "leave") => {
                        Action::LeaveMail { mailbox, recording: self.recording(180)? }
                    }
                    Some("listen") => Action::HearMail { mailbox },
                    Some(_) => return Err(self.wrong("mode", "leave or listen is wanted")),
                }
            }
            "queue" => {
                let numbers = match self.params.get("numbers") {
                    Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
                    _ => vec![self.wanted("numbers")?],
                };
                if numbers.is_empty() {
                    return Err(self.wrong("numbers", "who answers is wanted"));
                }
                let queue = self.text("queue").filter(|q| !q.trim().is_empty());
                Action::Queue(Waiting {
                    queue: queue.unwrap_or_else(|| self.block.to_owned()),
                    numbers,
                    most: self.number("max_calls", 20, 1..=1_000)? as usize,
                    wait: self.number("max_wait", 300, 1..=7_200)?,
                    patience: self.number("noanswer_timeout", 20, 1..=600)?,
                    attempts: self.number("attempts", 3, 1..=100)?,
                    play: self.prompts("play")?,
                })
            }
            "info" => Action::Info(self.text("text").unwrap_or_default()),
            other => return Err(self.wrong("name", format!("no block is called {other}"))),
        })
    }
}

impl Action {
    /// Outcomes it may have. Those in the second list need lead nowhere: the script ends with them.
    fn outcomes(&self) -> (Vec<String>, Vec<&'static str>) {
        let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        match self {
            Self::Begin | Self::Set(_) | Self::Play { .. } | Self::Say(_) | Self::Info(_) => {
                (all(&["next"]), vec![])
            }
            Self::Menu(menu) => {
                let keys = menu.choices.iter().map(|c| c.key.clone());
                (keys.chain(["No Match".to_owned()]).collect(), vec!["Extension", "Recognized"])
            }
            Self::Condition(list) => {
                (list.iter().map(|(code, _)| code.clone()).chain(["False".to_owned()]).collect(), vec![])
            }
            Self::Dial { .. } => (vec![], vec!["Busy/No answer", "Error"]),
            Self::Goto { .. } => (all(&["Exit"]), vec!["Goto"]),
            Self::Rpc { outcomes, .. } => (outcomes.clone(), vec!["Error"]),
            Self::Digitmap { masks, .. } => {
                (masks.iter().map(|(code, _)| code.clone()).chain(["No Match".to_owned()]).collect(), vec![])
            }
            Self::Record(_) => (all(&["next"]), vec!["Empty", "Error"]),
            Self::LeaveMail { .. } => (all(&["next"]), vec!["Empty", "Full", "Error"]),
            Self::HearMail { .. } => (all(&["next"]), vec!["Empty", "Error"]),
            Self::Queue(_) => (all(&["FULL", "ERROR"]), vec!["OK"]),
            Self::Time(slots) => {
                (slots.iter().map(|s| s.code.clone()).chain(["False".to_owned()]).collect(), vec![])
            }
        }
    }
}

impl Script {
    pub fn parse(json: &str) -> Result<Self, ScriptError> {
        if json.len() > BYTES {
            return Err(ScriptError::Large);
        }
        Self::read(serde_json::from_str(json).map_err(|e| ScriptError::Json(e.to_string()))?)
    }

    /// Reads a script and looks whether it can run: what is wrong is told with its block and field.
    pub fn read(json: Value) -> Result<Self, ScriptError> {
        let actions = json.get("actions").and_then(Value::as_object);
        let actions = actions.ok_or(ScriptError::Whole("a script has \"actions\""))?;
        if actions.len() > BLOCKS {
            return Err(ScriptError::Whole("a script has at most 1000 blocks"));
        }
        let speech = json.pointer("/settings/speech").cloned().unwrap_or(Value::Null);
        let empty = Value::Object(serde_json::Map::new());
        let (mut blocks, mut begin) = (BTreeMap::new(), Vec::new());
        for (id, block) in actions {
            let params = block.get("params").unwrap_or(&empty);
            let fields = Fields { block: id, params, speech: &speech };
            let name = block.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| fields.wrong("name", "which block it is must be said"))?;
            let action = fields.action(name)?;
            if action == Action::Begin {
                begin.push(id.clone());
            }
            let mut cases = BTreeMap::new();
            for (outcome, to) in block.get("cases").and_then(Value::as_object).into_iter().flatten() {
                let to = to.as_str().ok_or_else(|| fields.wrong(outcome, "an outcome leads to a block"))?;
                let to = (to != END && !to.is_empty()).then(|| to.to_owned());
                if let Some(to) = to.as_ref().filter(|t| !actions.contains_key(*t)) {
                    return Err(fields.wrong(outcome, format!("there is no block {to}")));
                }
                cases.insert(outcome.clone(), to);
            }
            let (wanted, may) = action.outcomes();
            if let Some(missing) = wanted.iter().find(|w| !cases.contains_key(*w)) {
                return Err(fields.wrong(
                    "cases",
                    format!("outcome \"{missing}\" leads nowhere; \"{END}\" ends the script"),
                ));
            }
            let known = |c: &String| wanted.contains(c) || may.contains(&c.as_str());
            if let Some(strange) = cases.keys().find(|c| !known(c)) {
                return Err(fields.wrong("cases", format!("it has no outcome \"{strange}\"")));
            }
            if let Action::Goto { target, .. } = &action
                && !actions.contains_key(target)
            {
                return Err(fields.wrong("goto", format!("there is no block {target}")));
            }
            blocks.insert(id.clone(), Block { action, cases });
        }
        let [begin] = begin.as_slice() else {
            return Err(ScriptError::Whole("a script has one block begin"));
        };
        let name = json.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { name, begin: begin.clone(), blocks, json })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANUAL: &str = include_str!("../../../fixtures/ivr/simple_auto_attendant5.json");

    #[test]
    fn the_manuals_script_is_read_and_kept_as_it_came() {
        let script = Script::parse(MANUAL).expect("read");
        assert_eq!((script.name.as_str(), script.begin.as_str()), ("simple_auto_attendant5", "begin_1"));
        assert_eq!(script.json, serde_json::from_str::<Value>(MANUAL).expect("JSON"));
        let Action::Menu(menu) = &script.blocks["ivr_2"].action else { panic!("a menu") };
        assert_eq!((menu.max_digits, menu.wait, menu.asr_service.as_deref()), (3, 8, Some("localhost:9010")));
        let spoken =
            |text: &str| Prompt::Speech { text: text.into(), voice: "zahar".into(), speed: "1.2".into() };
        assert_eq!(menu.play, [spoken("Произнесите имя и фамилию абонента.")]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_block_and_field() {
        let change = |pointer: &str, value: Value| {
            let mut json: Value = serde_json::from_str(MANUAL).expect("JSON");
            *json.pointer_mut(pointer).expect("there") = value;
            Script::read(json).expect_err("wrong").to_string()
        };
        for (pointer, value, told) in [
            (
                "/actions/ivr_2/params/wait_time",
                "soon".into(),
                "block ivr_2, wait_time: a number from 0 to 600 is wanted",
            ),
            ("/actions/dial_11/params/numbers", "".into(), "block dial_11, numbers: a text is wanted"),
            ("/actions/set_10/cases/next", "nowhere".into(), "block set_10, next: there is no block nowhere"),
            ("/actions/goto_17/params/goto", "x".into(), "block goto_17, goto: there is no block x"),
            ("/actions/play_18/name", "sing".into(), "block play_18, name: no block is called sing"),
            ("/actions/begin_1/name", "info".into(), "a script has one block begin"),
        ] {
            assert_eq!(change(pointer, value), told);
        }
        let condition = change("/actions/condition_4/params/conditions/0/condition", "%A%".into());
        assert!(condition.starts_with("block condition_4, conditions: 0: at letter 4"), "{condition}");
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(name in "[a-z]{2,8}", field in "[a-z_]{2,12}", value in "\\PC{0,12}") {
            let json = serde_json::json!({ "actions": { "x": { "name": name, "params": { field: value }, "cases": { "next": value } } } });
            // A script begins somewhere; nothing that only has a block is one.
            prop_assert!(Script::read(json.clone()).is_err() || name == "begin", "{json}");
        }
    }
}
