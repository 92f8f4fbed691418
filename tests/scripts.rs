//! IVR scripts on real calls: messages, recordings, queues, and recognisers that fail in the middle.

mod support;

use std::path::PathBuf;

use support::{
    Node,
    calls::{calls, media_ports, talked, until},
    phones::{self, SoftPhone},
    sorm::{licence_for, license},
};

struct Station {
    node: Node,
    dir: tempfile::TempDir,
}

impl Station {
    /// A node with phones 100 to 109; what scripts say is said by espeak-ng.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (vendor, licence) = licence_for("asr");
        let speech = "[speech]\nasr = \"\"\nattendant = \"\"\nmanager = \"\"\nsynthesis = \"espeak-ng\"\n";
        let configuration = format!("[sip]\nlisten = \"127.0.0.1:0\"\n{}{speech}{vendor}", media_ports());
        let node = Node::start_with(&configuration, &[]);
        node.ok("domain/declare voip.test");
        node.route_all("voip.test", "<local/>");
        node.ok("domain/voip.test/sip/user/declare ctx g 10{0-9}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
        license(&node, &licence);
        Self { node, dir }
    }

    /// A script of these blocks answers a number.
    fn script(&self, number: &str, blocks: &serde_json::Value) {
        let script = serde_json::json!({ "actions": blocks });
        self.node.ok(&format!("domain/voip.test/ivr/script/.import --id s{number} --json {script}"));
        self.node.ok(&format!("domain/voip.test/ss/personal-ivr/activate {number} --script s{number}"));
    }

    /// Phone 100, which says these samples (8000 Hz).
    fn caller(&self, user: &str, samples: impl IntoIterator<Item = i16>) -> SoftPhone {
        let said = self.dir.path().join(format!("said{user}.wav"));
        phones::write(&said, samples);
        let phone = SoftPhone::baresip(self.node.sip(), user, "udp", "Geheim77", "", Some(&said));
        phone.says("200 OK");
        phone
    }

    fn tone(&self, name: &str, frequency: f32) -> PathBuf {
        let path = self.dir.path().join(name);
        phones::tone(&path, frequency, 60);
        path
    }
}

/// A text in festival's voice, with so many seconds of silence around it.
fn speech(text: &str, before: usize, after: usize) -> Vec<i16> {
    let silence = |n| std::iter::repeat_n(0, 8000 * n);
    silence(before).chain(phones::festival(text)).chain(silence(after)).collect()
}

#[test]
fn a_message_is_left_shown_by_a_lamp_heard_and_removed() {
    let station = Station::start();
    let node = &station.node;
    station.script(
        "105",
        &serde_json::json!({
            "b": { "name": "begin", "cases": { "next": "v" } },
            "v": { "name": "voicemail", "params": { "mailbox": "101", "silence_time": 2, "play": [] },
                "cases": { "next": "undefined" } },
        }),
    );
    station.script(
        "106",
        &serde_json::json!({
            "b": { "name": "begin", "cases": { "next": "v" } },
            "v": { "name": "voicemail", "params": { "mode": "listen", "mailbox": "101" },
                "cases": { "next": "undefined", "Empty": "undefined" } },
        }),
    );
    let quiet = station.dir.path().join("quiet.wav");
    phones::write(&quiet, std::iter::repeat_n(0, 8000 * 60));
    let mut bob = SoftPhone::with_lamp(node.sip(), "101", "Geheim77", &quiet);
    bob.says("200 OK");
    let mut alice = station.caller("100", speech("Перезвоните мне, пожалуйста, завтра утром.", 1, 60));
    alice.types("/dial sip:105@voip.test");
    alice.says("Call established");
    until("the silence has ended it", || calls(node).is_empty());
    let mail = || node.rows("domain/voip.test/voicemail/list");
    until("there is a message", || mail().len() == 1);
    bob.says("Messages-Waiting: yes");
    let row = mail().remove(0);
    assert_eq!((&row["from"], &row["heard"]), (&"100".into(), &"false".into()), "{row}");
    let wav = node.data().join("voicemail/voip.test/101/1.wav");
    until("its sound is there", || wav.is_file());
    let loud = |samples: &[i16]| samples.iter().filter(|s| s.abs() > 1_000).count();
    assert!(loud(&phones::samples(&wav)) > 2_000, "what was said is in it");
    // A phone that hangs up in the middle loses nothing of what it said.
    alice.types("/dial sip:105@voip.test");
    alice.says("Call established");
    talked(node, 3);
    alice.types("/hangup");
    until("there are two", || mail().len() == 2);
    // Another phone hears both; 3 removes the second one.
    bob.types("/dial sip:106@voip.test");
    bob.says("Call established");
    until("the first has been heard", || mail().iter().filter(|m| m["heard"] == "true").count() == 1);
    until("the second one too", || mail().iter().all(|m| m["heard"] == "true"));
    bob.types("3");
    until("the second is gone", || mail().len() == 1);
    until("it takes its leave", || calls(node).is_empty());
    assert!(loud(&phones::samples(&bob.recordings()[0])) > 2_000, "it was heard");
    assert!(!node.data().join("voicemail/voip.test/101/2.wav").exists());
    let first = node.ssh("domain/voip.test/voicemail/remove 101 7 --force", b"");
    assert!(first.status != 0 && first.stderr.contains("no message 7"), "{first:?}");
    node.ok("domain/voip.test/voicemail/remove 101 1 --force");
    assert!(!wav.exists() && mail().is_empty());
}

#[test]
fn callers_wait_for_whoever_is_free_in_turn() {
    let station = Station::start();
    let node = &station.node;
    station.script(
        "105",
        &serde_json::json!({
            "b": { "name": "begin", "cases": { "next": "q" } },
            "q": { "name": "queue", "params": { "numbers": ["103"], "max_calls": 1, "max_wait": 120 },
                "cases": { "FULL": "full", "ERROR": "undefined" } },
            "full": { "name": "dial", "params": { "numbers": "104" }, "cases": {} },
        }),
    );
    let answers = |user: &str, tone: f32| {
        let tone = station.tone(&format!("{user}.wav"), tone);
        let phone = SoftPhone::baresip(node.sip(), user, "udp", "Geheim77", ";answermode=auto", Some(&tone));
        phone.says("200 OK");
        phone
    };
    let (_agent, _overflow) = (answers("103", 700.0), answers("104", 1500.0));
    let call = |user: &str| {
        let mut phone = station.caller(user, std::iter::repeat_n(0, 8000 * 60));
        phone.types("/dial sip:105@voip.test");
        phone.says("Call established");
        phone
    };
    let with = |b: &str| {
        calls(node)
            .iter()
            .filter(|c| c["b"] == b && c["legs"].as_array().is_some_and(|l| l.len() == 2))
            .count()
    };
    // Two seconds have been said by both in a call.
    let spoken = |b: &str| {
        until("they talk", || {
            let all = calls(node);
            let call = all.iter().find(|c| c["b"] == b);
            let legs = call.and_then(|c| c["legs"].as_array().cloned()).unwrap_or_default();
            legs.len() == 2
                && legs.iter().all(|l| l["quality"]["received"].as_u64().is_some_and(|r| r >= 100))
        });
    };
    let mut first = call("100");
    until("the first talks to the agent", || with("103") == 1);
    let mut second = call("101");
    until("the second waits", || {
        node.ok("node/actor/info domain/voip.test/queue/q").contains("\"waiting\": 1")
    });
    let _third = call("102");
    until("the third is one too many", || with("104") == 1);
    spoken("103");
    first.types("/hangup");
    until("the second has its turn", || with("103") == 1 && calls(node).len() == 2);
    spoken("103");
    second.types("/hangup");
    until("it is over", || calls(node).len() == 1);
    let heard = phones::heard(&phones::samples(&second.recordings()[0]), 700.0);
    assert!(heard.iter().filter(|t| **t).count() >= 10, "the agent's tone reaches the second");
}

#[test]
fn a_recogniser_killed_in_the_middle_of_a_word_is_a_retry_that_the_caller_hears() {
    let station = Station::start();
    let node = &station.node;
    let say = |text: &str| serde_json::json!([{ "type": "speech", "name": text }]);
    station.script(
        "105",
        &serde_json::json!({
            "b": { "name": "begin", "cases": { "next": "m" } },
            "m": { "name": "ivr", "params": { "play": say("Скажите, с кем соединить"), "wait_time": 20,
                "ivr": [{ "code": "1", "phrases": ["отдел продаж", "бухгалтерия"] }] },
                "cases": { "1": "d", "No Match": "again" } },
            "again": { "name": "play", "params": { "play": say("Повторите, пожалуйста") }, "cases": { "next": "g" } },
            "g": { "name": "goto", "params": { "goto": "m", "max_hops": 3 }, "cases": { "Exit": "undefined" } },
            "d": { "name": "dial", "params": { "numbers": "103" }, "cases": {} },
        }),
    );
    let tone = station.tone("103.wav", 700.0);
    let agent = SoftPhone::baresip(node.sip(), "103", "udp", "Geheim77", ";answermode=auto", Some(&tone));
    agent.says("200 OK");
    // The phrase again and again, with pauses: one utterance is lost, the next one counts.
    let phrase = speech("отдел продаж", 0, 4);
    let mut alice = station.caller("100", std::iter::repeat_n(phrase, 12).flatten());
    alice.types("/dial sip:105@voip.test");
    alice.says("Call established");
    // The stream is an actor of its own: when it dies, the caller is asked again.
    let stream = || {
        let tree = node.rows("node/tree");
        let name = |leaf: &serde_json::Value| leaf["address"].as_str().map(str::to_owned);
        tree.iter().filter_map(name).find(|a| a.contains("/asr/"))
    };
    until("a stream is heard", || stream().is_some());
    let first = stream().expect("its name");
    node.ok(&format!("node/actor/kill {first} --force"));
    until("another is", || stream().is_some_and(|s| s != first));
    // The library's process dies, as where memory is short: the node and its calls do not, and another one is there.
    let processes = || {
        let found = std::process::Command::new("pgrep")
            .args(["-P", &node.pid().to_string(), "-f", "recogniser pocketsphinx"])
            .output()
            .expect("pgrep runs");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        text.split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    let before = processes();
    assert!(!before.is_empty(), "recognisers have processes of their own");
    for process in &before {
        let killed = std::process::Command::new("kill").args(["-KILL", process]).status();
        assert!(killed.is_ok_and(|s| s.success()));
    }
    until("others have taken their place", || {
        let now = processes();
        now.len() == before.len() && now.iter().all(|p| !before.contains(p))
    });
    assert_eq!(calls(node).len(), 1, "no call has ended for it");
    // While the caller speaks, the recognisers die, and stay away until it is known that an utterance was lost.
    node.ok("node/actor/stop speech/pocketsphinx --force");
    until("an utterance is lost", || node.log().contains("what a caller said is lost"));
    node.ok("node/actor/start speech/pocketsphinx");
    until("the next utterance connects", || {
        calls(node).iter().any(|c| c["b"] == "103" && c["legs"].as_array().is_some_and(|l| l.len() == 2))
    });
    talked(node, 2);
    alice.types("/hangup");
    until("it is over", || calls(node).is_empty());
    let samples = phones::samples(&alice.recordings()[0]);
    let tones = phones::heard(&samples, 700.0);
    let first = tones.iter().position(|t| *t).expect("the agent is heard");
    let loud = samples[..first * 800].chunks(800).filter(|s| s.iter().any(|v| v.abs() > 1_000)).count();
    assert!(loud >= 25, "two prompts and the retry are heard, not silence: {loud} tenths");
}
