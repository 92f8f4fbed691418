//! A script step by step, for who writes it: what the caller does is given, what would be done and the variables are shown.
//! Nothing is kept between two steps: a rehearsal is played from its beginning each time.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use call::Cause;
use chrono::{DateTime, FixedOffset};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use speech::{Speech, audio};

use crate::{
    Reach,
    hearing::Listener,
    run::{Answer, Effect, Event, QueueNews, Recorded, Run},
    script::{Action, Prompt, Script, ScriptError},
    vars::Vars,
};

/// Moves of a rehearsal at most.
const MOVES: usize = 1_000;

/// What happens to a script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Move {
    Key(char),
    Played,
    Speaks,
    Silent,
    Answered {
        #[serde(default)]
        recognized: String,
        #[serde(default)]
        number: Option<String>,
        #[serde(default)]
        positive_url: String,
        #[serde(default)]
        negative_url: String,
    },
    Phrase(String),
    Unheard,
    /// Time passes, to the newest timer.
    Due,
    Http {
        ok: bool,
        #[serde(default)]
        body: String,
    },
    /// Whom it dialled: `busy`, `no_answer` or `error`.
    Failed(String),
    Connected,
    Recorded(u64),
    Mail(Vec<u64>),
    QueueFull,
    QueueTurn(String),
    Hangup,
}

/// What is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Rehearsal {
    pub script: Value,
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    #[serde(default)]
    pub moves: Vec<Move>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RehearsalError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("more than {MOVES} moves")]
    Many,
    #[error("move {0}: \"{1}\" is not busy, no_answer or error")]
    Cause(usize, String),
    #[error("there is no menu {0}")]
    Menu(String),
    #[error("sound in base64 is wanted")]
    Base64,
    #[error(transparent)]
    Audio(#[from] audio::AudioError),
}

fn prompt(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Speech { text, voice, .. } => json!({ "say": text, "voice": voice }),
        Prompt::File(path) => json!({ "file": path }),
    }
}

fn shown(effect: &Effect) -> Value {
    match effect {
        Effect::Play(p) => json!({ "play": prompt(p) }),
        Effect::Quiet => json!("quiet"),
        Effect::Listen { service, phrases, grammar } => {
            json!({ "listen": { "service": service, "phrases": phrases, "grammar": grammar } })
        }
        Effect::Deaf => json!("deaf"),
        Effect::Record(to) => json!({ "record": format!("{to:?}") }),
        Effect::RecordStop => json!("record_stop"),
        Effect::MailList(mailbox) => json!({ "mail_list": mailbox }),
        Effect::PlayMail(mailbox, id) => json!({ "play_mail": [mailbox, id] }),
        Effect::MailHeard(mailbox, id) => json!({ "mail_heard": [mailbox, id] }),
        Effect::MailRemove(mailbox, id) => json!({ "mail_remove": [mailbox, id] }),
        Effect::Join { queue, agents, most } => {
            json!({ "queue": { "name": queue, "agents": agents, "most": most } })
        }
        Effect::Missed(agent) => json!({ "missed": agent }),
        Effect::LeaveQueue => json!("queue_leave"),
        Effect::After(time, _) => json!({ "timer": time.as_secs() }),
        Effect::Http { method, url, headers, .. } => {
            json!({ "http": { "method": method, "url": url, "headers": headers } })
        }
        Effect::Dial { number, patience } => {
            json!({ "dial": { "number": number, "patience": patience.as_secs() } })
        }
        Effect::Note(text) => json!({ "note": text }),
        Effect::Hangup => json!("hangup"),
    }
}

impl Rehearsal {
    /// Plays it: for each move the block that comes next, what would be done, and the variables.
    pub(crate) fn play(self, now: DateTime<FixedOffset>) -> Result<Value, RehearsalError> {
        if self.moves.len() > MOVES {
            return Err(RehearsalError::Many);
        }
        let script = Arc::new(Script::read(self.script)?);
        let mut vars = Vars::default();
        self.vars.iter().for_each(|(name, value)| vars.set(name, value));
        let mut run = Run::new(script, vars, now);
        let mut steps = Vec::new();
        let mut timer = 0;
        let moves = self.moves.into_iter().map(Some);
        for (n, made) in std::iter::once(None).chain(moves).enumerate() {
            let event = match made.clone() {
                None => Event::Begin,
                Some(m) => event(m, n, timer)?,
            };
            let effects = run.handle(now, event);
            for effect in &effects {
                if let Effect::After(_, t) = effect {
                    timer = *t;
                }
            }
            let vars: BTreeMap<&str, &str> = run.vars.all().collect();
            steps.push(json!({
                "move": made,
                "block": run.at(),
                "effects": effects.iter().map(shown).collect::<Vec<_>>(),
                "vars": vars,
                "over": run.is_over(),
            }));
        }
        Ok(json!({ "steps": steps }))
    }
}

fn event(m: Move, n: usize, timer: u64) -> Result<Event, RehearsalError> {
    Ok(match m {
        Move::Key(key) => Event::Key(key),
        Move::Played => Event::Played,
        Move::Speaks => Event::Speaks,
        Move::Silent => Event::Silent,
        Move::Answered { recognized, number, positive_url, negative_url } => Event::Answered(Answer {
            recognised: recognized,
            number: number.filter(|n| !n.is_empty()),
            positive: positive_url,
            negative: negative_url,
        }),
        Move::Phrase(text) => Event::Phrase(text),
        Move::Unheard => Event::Unheard,
        Move::Due => Event::Due(timer),
        Move::Http { ok: true, body } => Event::Http(Ok(body)),
        Move::Http { ok: false, body } => Event::Http(Err(body)),
        Move::Failed(why) => Event::Failed(match why.as_str() {
            "busy" => Cause::BUSY,
            "no_answer" => Cause::NO_ANSWER,
            "error" => Cause::TEMPORARY_FAILURE,
            _ => return Err(RehearsalError::Cause(n, why)),
        }),
        Move::Connected => Event::Connected,
        Move::Recorded(seconds) => Event::Recorded(Ok(Recorded { file: "rehearsal.wav".into(), seconds })),
        Move::Mail(all) => Event::Mail(all),
        Move::QueueFull => Event::Queue(QueueNews::Full),
        Move::QueueTurn(agent) => Event::Queue(QueueNews::Turn(agent)),
        Move::Hangup => Event::Ended,
    })
}

/// Something said to a menu.
#[derive(Debug, Deserialize)]
pub(crate) struct Spoken {
    pub script: Value,
    pub block: String,
    /// WAV in base64.
    pub sound: String,
}

impl Spoken {
    /// What the menu would understand: the move it is, and the word for people.
    pub(crate) async fn understood(
        self,
        speech: &Speech,
        reach: &Reach,
        name: &str,
    ) -> Result<Move, RehearsalError> {
        let script = Script::read(self.script)?;
        let Some(Action::Menu(menu)) = script.blocks.get(&self.block).map(|b| &b.action) else {
            return Err(RehearsalError::Menu(self.block));
        };
        let wav = STANDARD.decode(self.sound.trim()).map_err(|_| RehearsalError::Base64)?;
        let low = audio::mono(std::io::Cursor::new(wav), 8000, speech::recogniser::LONGEST)?;
        let samples = audio::wide(&low)?;
        let listener = Listener {
            speech: speech.clone(),
            service: menu.asr_service.clone(),
            phrases: menu.choices.iter().flat_map(|c| c.phrases.iter().cloned()).collect(),
            grammar: menu.grammar.clone(),
            name: name.to_owned(),
            reach: reach.clone(),
        };
        Ok(match listener.understand(samples, 1).await {
            Event::Answered(a) => Move::Answered {
                recognized: a.recognised,
                number: a.number,
                positive_url: a.positive,
                negative_url: a.negative,
            },
            Event::Phrase(text) => Move::Phrase(text),
            _ => Move::Unheard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../../fixtures/ivr/simple_auto_attendant5.json");

    #[test]
    fn the_manuals_script_is_gone_through_step_by_step() {
        let asked = json!({
            "script": serde_json::from_str::<Value>(MANUAL).expect("JSON"),
            "vars": { "CGPN": "100" },
            "moves": ["speaks", { "answered": { "recognized": "женя казарцев", "number": "4819" } },
                { "http": { "ok": true } }, "played", { "failed": "busy" }],
        });
        let rehearsal: Rehearsal = serde_json::from_value(asked).expect("read");
        let now = DateTime::parse_from_rfc3339("2026-11-25T10:00:00+03:00").expect("a time");
        let played = rehearsal.play(now).expect("played");
        let blocks: Vec<&str> = played["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .map(|s| s["block"].as_str().expect("a block"))
            .collect();
        assert_eq!(blocks.len(), 6);
        assert_eq!(&blocks[..2], ["ivr_2", "ivr_2"]);
        let dialled = &played["steps"][4];
        assert_eq!(dialled["vars"]["EXTENSION"], "4819");
        assert!(dialled["effects"].to_string().contains("\"number\":\"4819\""), "{dialled}");
        let wrong = json!({ "script": { "actions": {} } });
        let rehearsal: Rehearsal = serde_json::from_value(wrong).expect("read");
        assert!(matches!(rehearsal.play(now), Err(RehearsalError::Script(_))));
    }
}
