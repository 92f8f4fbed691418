//! Runs of scripts, event by event.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MANUAL: &str = include_str!("../../../../fixtures/ivr/simple_auto_attendant5.json");

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
    assert!(effects.contains(&Effect::Listen {
        service: Some("localhost:9010".into()),
        phrases: vec![],
        grammar: None
    }));
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
            Answer { recognised: "вася пупкин".into(), negative: "n".into(), ..Answer::default() };
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
fn who_goes_on_speaking_while_a_piece_is_understood_is_heard_to_the_end() {
    let (mut run, _) = manual();
    let due = timer(&run.handle(now(), Event::Speaks));
    run.handle(now(), Event::Speaks);
    let nobody = Answer { recognised: "вася".into(), ..Answer::default() };
    run.handle(now(), Event::Answered(nobody.clone()));
    let effects = run.handle(now(), Event::Due(due));
    assert!(
        matches!(&effects[..], [Effect::After(..)]),
        "the second piece is not understood yet: {effects:?}"
    );
    let effects = run.handle(now(), Event::Answered(nobody));
    assert!(effects.contains(&Effect::Deaf), "now it is, too late for another: {effects:?}");
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

fn one(name: &str, params: Value, cases: Value) -> Script {
    let json = json!({ "actions": {
        "b": { "name": "begin", "cases": { "next": "x" } },
        "x": { "name": name, "params": params, "cases": cases },
        "said": { "name": "say", "params": { "text": "%RECORD%" }, "cases": { "next": "undefined" } },
    } });
    Script::read(json).expect("read")
}

#[test]
fn a_recording_ends_with_silence_a_key_or_its_time() {
    let params =
        json!({ "play": [{ "type": "speech", "name": "Говорите" }], "max_time": 60, "silence_time": 3 });
    let begin = || {
        let (mut run, effects) = run(one("record", params.clone(), json!({ "next": "said" })));
        assert_eq!(spoken(&effects), ["Говорите"]);
        let effects = run.handle(now(), Event::Played);
        assert_eq!(effects[0], Effect::Record(RecordTo::File));
        (run, effects)
    };
    let kept = || Event::Recorded(Ok(Recorded { file: "a.wav".into(), seconds: 7 }));
    let (mut silent, _) = begin();
    silent.handle(now(), Event::Speaks);
    let effects = silent.handle(now(), Event::Silent);
    assert_eq!(silent.handle(now(), Event::Due(timer(&effects))), [Effect::RecordStop]);
    assert_eq!(spoken(&silent.handle(now(), kept())), ["a.wav"]);
    let (mut keyed, effects) = begin();
    assert_eq!(keyed.handle(now(), Event::Key('1')), [], "only # ends it");
    assert_eq!(keyed.handle(now(), Event::Key('#')), [Effect::RecordStop]);
    let Effect::After(_, most) = effects[1] else { panic!("a timer") };
    assert_eq!(keyed.handle(now(), Event::Due(most)), [], "it ends once");
    let nothing = Event::Recorded(Ok(Recorded { file: String::new(), seconds: 0 }));
    assert_eq!(spoken(&keyed.handle(now(), nothing)), ["%RECORD%"], "without Empty it goes on");
}

#[test]
fn a_mailbox_is_left_a_message_or_says_that_it_is_full() {
    let params = json!({ "mailbox": "101" });
    let cases = json!({ "next": "undefined", "Full": "said" });
    let (mut run, effects) = run(one("voicemail", params, cases));
    assert_eq!(effects[1], Effect::Record(RecordTo::Mailbox("101".into())));
    assert_eq!(spoken(&run.handle(now(), Event::Recorded(Err("Full".into())))), ["%RECORD%"]);
}

#[test]
fn messages_are_heard_again_passed_over_and_removed() {
    let params = json!({ "mode": "listen", "mailbox": "%CDPN%" });
    let (mut run, effects) = run(one("voicemail", params, json!({ "next": "undefined", "Empty": "said" })));
    assert_eq!(effects[1], Effect::MailList("%CDPN%".into()), "an unknown variable stays");
    let plays = |id| Effect::PlayMail("%CDPN%".into(), id);
    assert_eq!(run.handle(now(), Event::Mail(vec![3, 5])), [plays(3)]);
    let effects = run.handle(now(), Event::Played);
    assert_eq!(effects[0], Effect::MailHeard("%CDPN%".into(), 3));
    assert_eq!(run.handle(now(), Event::Key('1')), [Effect::Quiet, plays(3)]);
    assert_eq!(run.handle(now(), Event::Due(timer(&effects))), [], "it is being heard again");
    let removed = run.handle(now(), Event::Key('3'));
    assert_eq!(removed, [Effect::Quiet, Effect::MailRemove("%CDPN%".into(), 3), plays(5)]);
    assert!(run.handle(now(), Event::Key('#')).contains(&Effect::Hangup));
}

#[test]
fn who_waits_is_connected_in_turn_or_told_that_nobody_came() {
    let params = json!({ "numbers": ["101", "102"], "max_wait": 60, "attempts": 2,
        "play": [{ "type": "file", "name": "music.wav" }] });
    let cases = json!({ "FULL": "undefined", "ERROR": "said" });
    let (mut run, effects) = run(one("queue", params, cases));
    let joins = Effect::Join { queue: "x".into(), agents: vec!["101".into(), "102".into()], most: 20 };
    assert_eq!(effects[1], joins);
    let late = timer(&effects);
    let music = Effect::Play(Prompt::File("music.wav".into()));
    assert!(run.handle(now(), Event::Played).contains(&music), "round and round");
    let turn = run.handle(now(), Event::Queue(QueueNews::Turn("101".into())));
    assert!(matches!(&turn[..], [Effect::Quiet, Effect::Dial { number, .. }] if number == "101"));
    let missed = run.handle(now(), Event::Failed(Cause::NO_ANSWER));
    assert_eq!(missed, [Effect::Missed("101".into()), music]);
    run.handle(now(), Event::Queue(QueueNews::Turn("102".into())));
    assert_eq!(run.handle(now(), Event::Due(late)), [], "somebody is being called");
    let effects = run.handle(now(), Event::Failed(Cause::BUSY));
    assert!(effects.contains(&Effect::LeaveQueue) && spoken(&effects) == ["%RECORD%"]);
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
