//! Lawful interception, with programs of others at the mediator's place.

mod support;

use sorm::protocol::{Event, Kind, Said, Sign, Subject, Told};
use support::{
    Node,
    calls::{calls, cdrs, end, ladder, talked, until},
    phones::{Sipp, free_port},
    sorm::{Channels, DOMAIN, Radius, SECRET, Session, estate, phone, verified, written},
};

fn session(node: &Node) -> Session {
    let mut session = Session::open(node, DOMAIN, "sorm_password");
    assert!(session.is_open());
    session
}

/// Message, object and channel A of what was told of calls.
fn told(events: &[(u64, Event)]) -> Vec<(Said, u16, Option<u8>)> {
    let call = |(_, e): &(u64, Event)| match e {
        Event::Call { object, event, .. } => Some((event.said, *object, event.channels.a.map(|c| c.0))),
        Event::Test { .. } => None,
    };
    events.iter().filter_map(call).collect()
}

fn in_order(events: &[(u64, Event)]) {
    let numbers: Vec<u64> = events.iter().map(|(n, _)| *n).collect();
    let expected: Vec<u64> = (1..=u64::try_from(numbers.len()).expect("few")).collect();
    assert_eq!(numbers, expected, "each once, in order");
}

#[test]
fn calls_under_control_are_told_of_and_heard() {
    let port = free_port();
    let node = estate(port, "");
    let radius = Radius::start(port, SECRET);
    let channels = Channels::open();
    assert!(!Session::open(&node, DOMAIN, "wrong").is_open());
    let mut session = session(&node);
    // Nothing works before the start, and a command is acknowledged twice.
    assert!(matches!(
        session.command(sorm::protocol::Command::Version)[..],
        [Told::Received { status: 0x17, .. }]
    ));
    let start = session.done(sorm::protocol::Command::Start);
    assert!(matches!(start[..], [Told::Received { status: 0, .. }, Told::Done { .. }]), "{start:?}");
    session.media(channels.first);
    session.channel(1, 1, None);
    session.channel(2, 2, Some(3));
    session.put(7, Kind::Own, Sign::Own, "100", 0x01, Some(1));
    session.put(8, Kind::Own, Sign::Own, "101", 0x11, Some(2));
    let table = session.done(sorm::protocol::Command::Objects(Subject::ALL));
    assert_eq!(table.iter().filter(|t| matches!(t, Told::Object { .. })).count(), 2, "{table:?}");

    let dir = tempfile::tempdir().expect("a directory");
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
    // What an operator sees is as of any other call.
    talked(&node, 3);
    let shown = format!("{:?}{}", calls(&node), node.ok("node/tree"));
    assert!(!shown.to_lowercase().contains("tap"), "{shown}");
    alice.types("/hangup");
    until("the call has ended", || calls(&node).is_empty());

    until("all has been told", || radius.events().len() >= 6);
    let events = radius.events();
    in_order(&events);
    let each = [7, 8].map(|object| {
        let of = told(&events).into_iter().filter(|(_, o, _)| *o == object);
        of.map(|(said, _, channel)| (said, channel)).collect::<Vec<_>>()
    });
    let phases = [Said::Number, Said::Answer, Said::Release];
    assert_eq!(each, [phases.map(|s| (s, Some(1))).to_vec(), phases.map(|s| (s, Some(2))).to_vec()]);
    let record = &radius.records()[0];
    assert_eq!(
        (&record["Calling-Station-Id"][0], &record["Called-Station-Id"][0]),
        (&"100".into(), &"101".into())
    );
    let statuses: Vec<String> = radius.records().iter().map(|r| r["Acct-Status-Type"][0].clone()).collect();
    assert_eq!(statuses.iter().filter(|s| *s == "Start").count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| *s == "Stop").count(), 2, "{statuses:?}");

    // Both in one channel; each in its own.
    let tenths = [1, 2, 3].map(|c| [440.0, 1000.0].map(|f| channels.tenths(c, f)));
    assert!(tenths[0][0] > 20 && tenths[0][1] > 20, "both in one: {tenths:?}");
    assert!(tenths[1][0] > 20 && tenths[1][1] == 0, "the caller apart: {tenths:?}");
    assert!(tenths[2][0] == 0 && tenths[2][1] > 20, "the others apart: {tenths:?}");
    assert!(verified(&node).starts_with("ok: "));
}

/// Commands may come faster than they are carried out; far too many end the session with a word, and disturb nobody else.
#[test]
fn a_flood_of_commands_is_answered_or_ended() {
    let node = estate(free_port(), "");
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    let version = format!("command {}\n", hex::encode([&[0xCC, 1, 0x11, 0][..], b"123456"].concat()));
    session.types(&version.repeat(500));
    let mut dones = 0;
    // Received, or busy, or its three answers: each has one last word.
    while dones < 500 {
        let line = session.line();
        let told = sorm::protocol::Reply::read(&hex::decode(&line["reply ".len()..]).expect("digits"))
            .expect("a message")
            .told;
        dones += usize::from(matches!(told, Told::Done { .. } | Told::Received { status: 1.., .. }));
    }
    session.types(&version.repeat(50_000));
    let flooded = std::iter::repeat_with(|| session.line()).find(|l| l.starts_with("error "));
    assert_eq!(flooded.as_deref(), Some("error more than 4096 commands wait; the session ends"));
    let mut other = Session::open(&node, DOMAIN, "sorm_password");
    other.done(sorm::protocol::Command::Version);
    other.types("quit");
    other.ends();
}

#[test]
fn an_object_put_during_a_call_is_told_of_at_once() {
    let port = free_port();
    let node = estate(port, "");
    let radius = Radius::start(port, SECRET);
    let channels = Channels::open();
    let dir = tempfile::tempdir().expect("a directory");
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    session.media(channels.first);
    session.channel(1, 1, None);
    session.put(7, Kind::Own, Sign::Own, "101", 0x01, Some(1));
    until("it is told", || told(&radius.events()).len() == 2);
    until("it is heard", || channels.tenths(1, 1000.0) > 10);
    // And one that is removed is told of no more.
    session.done(sorm::protocol::Command::RemoveObject(Subject { object: Some(7), ..Subject::ALL }));
    until("the channel is free", || told(&radius.events()).len() == 3);
    let carried = || channels.samples(1).len();
    let before = carried();
    // The call goes on, and nothing of it is heard any more.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(carried(), before);
    // One with a time ends by itself when that is over.
    session.put(8, Kind::Own, Sign::Own, "100", 0x01, Some(1));
    let until_then = chrono::Utc::now() + chrono::TimeDelta::seconds(3);
    session.types(&format!("basis 8 - {} warrant 12", until_then.to_rfc3339()));
    assert_eq!(session.line(), "ok");
    until("its time is over", || told(&radius.events()).len() == 6);
    until("it is no object any more", || {
        let table = session.done(sorm::protocol::Command::Objects(Subject::ALL));
        !table.iter().any(|t| matches!(t, Told::Object { .. }))
    });
    end(&node);
    let said: Vec<Said> = told(&radius.events()).into_iter().map(|(said, ..)| said).collect();
    assert_eq!(said, [Said::Number, Said::Answer, Said::ChannelFreed].repeat(2));
}

#[test]
fn what_a_mediator_missed_comes_once_and_in_order_over_kill_9() {
    let port = free_port();
    let mut node = estate(port, "");
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    session.put(7, Kind::Own, Sign::Own, "100", 0x02, None);
    let dir = tempfile::tempdir().expect("a directory");
    // No mediator listens. Two calls end, a third is under way when the node dies.
    {
        let mut alice = phone(&node, dir.path(), "100", 440.0, false);
        let _bob = phone(&node, dir.path(), "101", 1000.0, true);
        for _ in 0..2 {
            alice.types("/dial sip:101@voip.test");
            until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
            end(&node);
        }
        alice.types("/dial sip:101@voip.test");
        until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
        // Half a second is more than the journal takes.
        std::thread::sleep(std::time::Duration::from_millis(500));
        node.kill();
    }
    node.restart();
    let radius = Radius::start(port, SECRET);
    until("all has been told", || radius.events().len() >= 9);
    let events = radius.events();
    in_order(&events);
    let said: Vec<Said> = told(&events).into_iter().map(|(said, ..)| said).collect();
    assert_eq!(said, [Said::Number, Said::Answer, Said::Release].repeat(3));
    // Objects remain, and so does the start.
    let mut again = Session::open(&node, DOMAIN, "sorm_password");
    assert!(again.is_open());
    let table = again.done(sorm::protocol::Command::Objects(Subject::ALL));
    assert!(table.iter().any(|t| matches!(t, Told::Object { object: 7, .. })), "{table:?}");
    assert!(verified(&node).starts_with("ok: "));
}

/// Numbers that are under control and in no call are nowhere to be found.
#[test]
fn a_target_is_shown_to_nobody() {
    const CANARIES: [&str; 2] = ["73835550147", "49305550199"];
    let port = free_port();
    let node = estate(port, "[log]\nlevel = \"trace\"\n");
    let radius = Radius::start(port, SECRET);
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    session.put(1, Kind::Full, Sign::Russia, CANARIES[0], 0x02, None);
    session.put(2, Kind::Partial, Sign::Abroad, CANARIES[1], 0x02, None);
    let dir = tempfile::tempdir().expect("a directory");
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
    let mut all = String::new();
    for line in [
        "node/tree",
        "node/actor/info domain/voip.test/sorm",
        &format!("node/actor/info domain/voip.test/sorm/127.0.0.1:{port}"),
        "journal/list",
        "node/log/list",
        "node/crash/list",
        "domain/voip.test/sorm/info",
        "domain/voip.test/call/list --json",
        "domain/voip.test/cdr/list --json",
    ] {
        let answer = node.ssh(line, b"");
        assert_eq!(answer.status, 0, "{line}: {answer:?}");
        all.push_str(&format!("{line}: {}\n", answer.stdout));
    }
    assert!(!all.contains("sorm_password") && !all.contains(SECRET), "{all}");
    end(&node);
    assert!(node.http("GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0"));
    // A crash says where, not what.
    node.ok(&format!("node/actor/kill domain/voip.test/sorm/127.0.0.1:{port} --force"));
    all.push_str(&node.ok("node/crash/list"));
    all.push_str(&node.log());
    all.push_str(&written(&node.data()));
    assert!(all.contains("voip.test") && all.contains("TRACE"), "there is something to look through");
    for canary in CANARIES {
        // As it is, and as the protocol packs it.
        let packed: String = canary
            .as_bytes()
            .chunks(2)
            .map(|p| p.iter().rev().map(|b| *b as char).collect::<String>())
            .collect();
        assert!(!all.contains(canary) && !all.contains(&packed), "{canary} was found");
    }
    assert!(radius.records().is_empty());
    // Nor does a crash of the whole leave its memory on disk.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("it runs");
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).expect("a line");
    assert_eq!(core.split_whitespace().rev().nth(1), Some("0"), "{core}");
    // Who tries to get in is told of.
    assert!(!Session::open(&node, DOMAIN, "wrong").is_open());
    until("the intrusion is told", || {
        radius.replies().iter().any(|t| matches!(t, Told::Intrusion { text, .. } if text == "127.0.0.1"))
    });
}

/// One log-in for the manual's three domains, by template: all of them are told, and one that comes later joins.
#[test]
fn one_log_in_stands_for_many_domains() {
    let port = free_port();
    let node = estate(port, "");
    let radius = Radius::start(port, SECRET);
    for domain in ["city.test", "late.test", "other"] {
        node.ok(&format!("domain/declare {domain}"));
        node.route_all(domain, "<local/>");
    }
    node.ok("domain/late.test/sip/user/declare ctx g 20{0-1}@late.test alias-as-user qop_authentication login-as-user Geheim77");
    let on = |domain: &str| {
        node.ok(&format!("domain/{domain}/sorm/set enabled true"));
        node.ok(&format!("domain/{domain}/sorm/set radius_servers add 127.0.0.1:{port} {SECRET}"));
    };
    // Every domain that is named has to be ready.
    node.ok("sorm/set aggregate_sorm_settings add multi 1234 voip.test city.test");
    assert!(!Session::open_multi(&node, "multi", "1234").is_open());
    on("city.test");
    assert!(Session::open_multi(&node, "multi", "1234").is_open());
    assert!(!Session::open_multi(&node, "multi", "wrong").is_open());
    node.ok("sorm/set aggregate_sorm_settings add multi 1234 *.test -other");
    let mut session = Session::open_multi(&node, "multi", "1234");
    assert!(session.is_open());
    session.done(sorm::protocol::Command::Start);
    // Of one domain, and of none yet.
    session.put(1, Kind::Own, Sign::Own, "100", 0x02, None);
    session.put(2, Kind::Full, Sign::Russia, "74957000000", 0x02, None);
    let none = sorm::protocol::Digits::new("201").expect("a number");
    let subject = Subject { object: Some(3), kind: 1, sign: 1, number: none, trunk: None };
    let wanted = sorm::protocol::Wanted { category: 2, group: 0xFF, priority: 0xFF };
    let put = sorm::protocol::Command::PutObject(subject, wanted);
    assert!(
        matches!(session.command(put.clone()).last(), Some(Told::Done { status: 0x54, .. })),
        "not local"
    );
    on("late.test");
    session.done(put);
    let table = session.done(sorm::protocol::Command::Objects(Subject::ALL));
    let objects: Vec<u16> = table
        .iter()
        .filter_map(|t| if let Told::Object { object, .. } = t { Some(*object) } else { None })
        .collect();
    assert_eq!(objects, [1, 2, 3], "each once");
    // The domain that came later knows what was put before: asked alone, it has the number of the network too.
    node.ok("domain/late.test/sorm/set password late");
    let mut alone = Session::open(&node, "late.test", "late");
    assert!(alone.is_open());
    let table = alone.done(sorm::protocol::Command::Objects(Subject::ALL));
    assert_eq!(table.iter().filter(|t| matches!(t, Told::Object { .. })).count(), 2, "{table:?}");
    // A test is answered once; a call in one of the domains is told of.
    session.done(sorm::protocol::Command::Test(9));
    until("the test is answered", || radius.events().len() == 1);
    let dir = tempfile::tempdir().expect("a directory");
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
    end(&node);
    until("it is told", || told(&radius.events()).len() == 3);
    // Removed everywhere.
    session.done(sorm::protocol::Command::RemoveObject(Subject { object: Some(2), ..Subject::ALL }));
    let table = alone.done(sorm::protocol::Command::Objects(Subject::ALL));
    assert_eq!(table.iter().filter(|t| matches!(t, Told::Object { .. })).count(), 1, "{table:?}");
    // Another port, at once and after a restart.
    let first = free_port();
    node.ok(&format!("sorm/set ssh_port {first}"));
    until("the doors have moved", || {
        let info = node.ssh("node/actor/info sorm/multi-ssh --json", b"");
        info.stdout.contains(&format!("127.0.0.1:{}", first + 1))
    });
    assert!(verified(&node).starts_with("ok: "));
}

/// What each pair of speakers said, in order; legs are called by when they first spoke. How the pairs' lines fall between each
/// other is the phones' doing.
fn conversations(ladder: &str) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut legs: Vec<String> = Vec::new();
    let mut all = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in ladder.lines().filter(|l| l.starts_with("| ") && !l.contains("From")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, from, to, message, _] = cells[..] else { panic!("{line}") };
        let mut name = |who: &str| match who.strip_prefix("leg ") {
            Some(leg) => {
                let at = legs.iter().position(|l| l == leg).unwrap_or_else(|| {
                    legs.push(leg.to_owned());
                    legs.len() - 1
                });
                format!("leg {at}")
            }
            None => who.to_owned(),
        };
        let (from, to) = (name(from), name(to));
        let pair = if from < to { format!("{from}, {to}") } else { format!("{to}, {from}") };
        all.entry(pair).or_default().push(format!("{from}: {message}"));
    }
    all
}

/// Who is under control finds nothing changed: the same messages in the same order.
#[test]
fn a_call_under_control_is_as_any_other() {
    let port = free_port();
    let node = estate(port, "");
    let radius = Radius::start(port, SECRET);
    let channels = Channels::open();
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    session.media(channels.first);
    session.channel(1, 1, None);
    let dir = tempfile::tempdir().expect("a directory");
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    let mut said = || {
        alice.types("/dial sip:101@voip.test");
        until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
        let call = calls(&node)[0]["call"].clone();
        talked(&node, 1);
        alice.types("/hangup");
        until("the call has ended", || calls(&node).is_empty());
        until("its record is written", || cdrs(&node).iter().any(|r| r["cdr"]["call"] == call));
        conversations(&ladder(&node, &call))
    };
    let free = said();
    session.put(7, Kind::Own, Sign::Own, "100", 0x01, Some(1));
    let controlled = said();
    // Each phone's messages, what each leg and the call said to each other, and the way.
    assert_eq!(free.len(), 5, "{free:?}");
    assert_eq!(free, controlled);
    assert!(!told(&radius.events()).is_empty() && channels.tenths(1, 440.0) > 5);
}

/// What SIPp has received, message by message; what is new in each call (identities, ports, times) is a mark.
fn received(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("SIPp wrote it");
    let messages = text
        .split("-----------------------------------------------")
        .filter(|m| m.contains("message received"));
    let word = |word: &str| {
        let (text, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
        let digits = |t: &str| t.bytes().any(|b| b.is_ascii_digit());
        // Identities, ports, and the number of a leg in a tag.
        let new =
            text.len() >= 4 && digits(text) && text != "4000" || text.strip_prefix('h').is_some_and(digits);
        format!("{}{end}", if new { "#" } else { text })
    };
    let line = |line: &str| match line.split_once(": ") {
        // A port has four digits or five.
        Some((name @ ("Call-ID" | "Content-Length"), _)) => name.to_owned(),
        _ => line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(word).collect(),
    };
    let bodies = messages.filter_map(|m| m.split_once("\n\n")).map(|(_, body)| body);
    // Questions whether a trunk is there come when they come.
    let of_call = bodies.filter(|b| !b.starts_with("OPTIONS"));
    of_call.map(|b| b.lines().map(line).collect::<Vec<String>>().join("\n")).collect()
}

/// Every message that both sides get from the node, byte for byte but for what is new in each call.
#[test]
fn messages_of_a_call_under_control_are_those_of_any_other() {
    let port = free_port();
    let node = estate(port, "");
    let radius = Radius::start(port, SECRET);
    let channels = Channels::open();
    let context = "<context name=\"via\"><rule name=\"all\"><conditions><cdpn digits=\"%\"/></conditions>\
                   <result><external><trunk value=\"out\"/></external></result></rule></context>";
    let imported = node.ssh("domain/voip.test/routing/import ecss1 -", context.as_bytes());
    assert_eq!(imported.status, 0, "{imported:?}");
    let (caller, callee) = (free_port(), free_port());
    for (trunk, at) in [("in", caller), ("out", callee)] {
        node.ok(&format!(
            "domain/voip.test/trunk/sip/declare via g {trunk} set static 127.0.0.1 {at} sip-proxy 5060"
        ));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let call = |name: &str| {
        let files = ["uac", "uas"].map(|side| dir.path().join(format!("{name}-{side}")));
        let [uac, uas] = [&files[0], &files[1]].map(|f| f.to_str().expect("text"));
        let trace = ["-trace_msg", "-message_file"];
        // Without a number of calls after which it ends: it counts the node's OPTIONS among them.
        let _called = Sipp::built_in("uas", callee, node.sip(), &[&trace[..], &[uas]].concat());
        let calling = [&trace[..], &[uac, "-m", "1", "-s", "4000", "-d", "500"]].concat();
        Sipp::built_in("uac", caller, node.sip(), &calling).ends();
        until("the call has ended", || calls(&node).is_empty());
        until("the callee has its INVITE, ACK and BYE", || received(&files[1]).len() >= 3);
        files.map(|f| received(&f))
    };
    let free = call("free");
    let mut session = session(&node);
    session.done(sorm::protocol::Command::Start);
    session.media(channels.first);
    session.channel(1, 1, None);
    session.put(7, Kind::Full, Sign::Russia, "4000", 0x01, Some(1));
    let controlled = call("controlled");
    assert!(free.iter().all(|side| side.len() >= 3), "{free:#?}");
    assert_eq!(free, controlled);
    until("it was told of", || told(&radius.events()).len() == 3);
    assert!(told(&radius.events()).iter().all(|(.., channel)| *channel == Some(1)));
    // FreeRADIUS's log has every call that SIPp makes, whether there is a channel for it or not.
    let _called = Sipp::built_in("uas", callee, node.sip(), &[]);
    Sipp::built_in("uac", caller, node.sip(), &["-m", "10", "-r", "10", "-s", "4000", "-d", "500"]).ends();
    until("all are told of", || told(&radius.events()).len() == 3 + 10 * 3);
    in_order(&radius.events());
    let records = radius.records();
    let of = |status: &str| records.iter().filter(|r| r["Acct-Status-Type"][0] == status).count();
    assert_eq!((of("Start"), of("Stop"), of("Interim-Update")), (11, 11, 11));
    assert!(records.iter().all(|r| r["Called-Station-Id"][0] == "4000"));
    let sessions: std::collections::BTreeSet<_> = records.iter().map(|r| &r["Acct-Session-Id"][0]).collect();
    assert_eq!(sessions.len(), 11, "each call has its own");
}

#[test]
fn passwords_and_mediators_are_changed_by_two_persons() {
    let node = Node::start_with("[sorm]\nlisten = \"127.0.0.1:0\"\n", &[]);
    node.ok("domain/declare voip.test");
    node.ok("cocon/user/add boris ecss-voip.test-domain-admin Geheim77");
    let waits = node.ok(&format!("domain/voip.test/sorm/set radius_servers add 127.0.0.1 {SECRET}"));
    assert!(waits.contains("proposal 1 waits for somebody else"), "{waits}");
    let info = || node.ok("domain/voip.test/sorm/info");
    assert!(!info().contains("127.0.0.1"));
    let own = node.ssh("domain/voip.test/sorm/approve 1", b"");
    assert!(own.status != 0 && own.stderr.contains("somebody else has to approve"), "{own:?}");
    let shown = node.ssh_as("boris", "Geheim77", "domain/voip.test/sorm/proposals", b"");
    assert!(
        shown.stdout.contains("radius_servers add 127.0.0.1") && !shown.stdout.contains(SECRET),
        "{shown:?}"
    );
    let approved = node.ssh_as("boris", "Geheim77", "domain/voip.test/sorm/approve 1", b"");
    assert_eq!(approved.status, 0, "{approved:?}");
    assert!(info().contains("127.0.0.1") && !info().contains(SECRET));
    // What is neither key nor password nor mediator is changed at once.
    node.ok("domain/voip.test/sorm/set platform_id 999");
    assert!(info().contains("999"));
    // What concerns all domains is for those who administrate all.
    node.ok("sorm/set aggregate_sorm_settings add multi 1234 *");
    let refused = node.ssh_as("boris", "Geheim77", "sorm/approve 2", b"");
    assert!(refused.status != 0, "{refused:?}");
    node.ok("sorm/reject 2");
    assert!(verified(&node).starts_with("ok: "));
}
