//! Calls between phones written by others.

mod support;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use support::{
    Node,
    calls::{self, calls, cdrs, end, estate, ladder, media_ports, talked, until},
    phones::{self, Provider, Sipp, SoftPhone},
};

#[test]
fn two_phones_talk_both_ways_without_gaps() {
    let node = estate();
    let at = node.sip();
    let dir = tempfile::tempdir().expect("a directory");
    let (low, high) = (dir.path().join("low.wav"), dir.path().join("high.wav"));
    phones::tone(&low, 440.0, 60);
    phones::tone(&high, 1000.0, 60);
    let mut alice = SoftPhone::baresip(at, "100", "udp", "Geheim77", "", Some(&low));
    let bob = SoftPhone::baresip(at, "101", "tcp", "Geheim77", ";answermode=auto", Some(&high));
    alice.says("200 OK");
    bob.says("200 OK");
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    until("the call is shown", || calls(&node).iter().any(|c| c["state"] == "talking"));
    talked(&node, 4);
    let measured = || {
        let all = calls(&node);
        let legs = all.first().and_then(|c| c["legs"].as_array()).cloned().unwrap_or_default();
        legs.len() == 2 && legs.iter().all(|l| l["quality"].is_object())
    };
    until("both legs are measured", measured);
    let ladder = ladder(&node, &calls(&node)[0]["call"]);
    assert!(
        ladder.contains("INVITE") && ladder.contains("route 100 -> 101") && ladder.contains("200 OK"),
        "{ladder}"
    );
    alice.types("/hangup");
    until("the call has ended", || calls(&node).is_empty());
    for (phone, tone, other) in [(&alice, 1000.0, 440.0), (&bob, 440.0, 1000.0)] {
        let recorded = phone.recordings();
        assert_eq!(recorded.len(), 1, "{recorded:?}");
        let samples = phones::samples(&recorded[0]);
        let heard = phones::heard(&samples, tone);
        let first = heard.iter().position(|h| *h).expect("the other's tone is heard");
        let last = heard.iter().rposition(|h| *h).expect("and its end");
        assert!(last - first >= 30, "three seconds at least: {heard:?}");
        assert!(heard[first..=last].iter().all(|h| *h), "without a gap: {heard:?}");
        assert!(!phones::heard(&samples, other).contains(&true), "nobody hears himself");
    }
    until("the record is written", || !cdrs(&node).is_empty());
    let cdr = &cdrs(&node)[0];
    assert_eq!((&cdr["side"]["a"], &cdr["side"]["b"]), (&"100".into(), &"101".into()), "{cdr}");
    assert!(cdr["seconds"].as_i64().is_some_and(|s| s >= 4) && cdr["cdr"]["cause"] == 16, "{cdr}");
    let missing = node.metrics_missing(|name| name.starts_with("hypha_call"));
    assert!(missing.is_empty(), "{missing:?}");
    let page = node.metrics();
    let ended = page.lines().find(|l| l.starts_with("hypha_calls_ended_total{")).unwrap_or_default();
    assert!(
        ["domain=\"voip.test\"", "cause=\"16\"", "answered=\"true\"", "} 1"]
            .iter()
            .all(|p| ended.contains(p)),
        "{page}"
    );
    let score = |part: &str| {
        let line = page.lines().find_map(|l| l.strip_prefix(&format!("hypha_call_mos_{part} ")));
        line.and_then(|v| v.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    assert!(score("count") == 2.0 && score("sum") > 2.0 * 4.0, "both legs sound well: {page}");
    // The same ladder, from the journal.
    let past = self::ladder(&node, &cdr["cdr"]["call"]);
    assert!(past.contains("INVITE") && past.contains("BYE"), "{past}");
}

/// Registered, with a tone of its own, answering by itself.
fn answering(at: SocketAddr, dir: &std::path::Path, user: &str, frequency: f32) -> SoftPhone {
    let file = dir.join(format!("{user}.wav"));
    phones::tone(&file, frequency, 60);
    let phone = SoftPhone::baresip(at, user, "udp", "Geheim77", ";answermode=auto", Some(&file));
    phone.says("200 OK");
    phone
}

/// The newest recording holds this tone for two seconds on end.
fn hears(phone: &SoftPhone, frequency: f32) -> bool {
    phone.recordings().iter().any(|recording| {
        let heard = phones::heard(&phones::samples(recording), frequency);
        heard.windows(20).any(|w| w.iter().all(|h| *h))
    })
}

fn states(node: &Node) -> Vec<String> {
    calls(node).iter().map(|c| c["state"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_phone_holds_and_transfers_blindly() {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let mut alice = answering(at, dir.path(), "100", 500.0);
    let bob = answering(at, dir.path(), "101", 800.0);
    let carol = answering(at, dir.path(), "102", 1200.0);
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    alice.types("/hold");
    until("held", || states(&node) == ["held"]);
    // The phone's two ACKs and ours: it is ready for the next.
    until("acknowledged", || ladder(&node, &calls(&node)[0]["call"]).matches("ACK").count() == 3);
    alice.types("/resume");
    until("retrieved", || states(&node) == ["talking"]);
    alice.types("/transfer sip:102@voip.test");
    until("bob talks to carol", || {
        calls(&node).iter().any(|c| {
            c["state"] == "talking" && c["b"] == "102" && c["legs"].as_array().is_some_and(|l| l.len() == 2)
        })
    });
    talked(&node, 3);
    drop(alice);
    end(&node);
    until("bob hears carol", || hears(&bob, 1200.0));
    until("carol hears bob", || hears(&carol, 800.0));
    until("two records", || cdrs(&node).len() == 2);
    assert!(cdrs(&node).iter().any(|c| c["cdr"]["service"] == "transfer" && c["side"]["b"] == "102"));
}

#[test]
fn a_phone_transfers_after_asking() {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let bob = answering(at, dir.path(), "101", 800.0);
    let carol = answering(at, dir.path(), "102", 1200.0);
    let mut alice = SoftPhone::linphone(at, "100", "Geheim77");
    until("registered", || node.rows("domain/voip.test/sip/user/registered").len() == 3);
    alice.types("call sip:101@voip.test");
    // The phone takes no order before it says so itself.
    alice.says("for call 1 (audio)");
    until("the first call", || states(&node) == ["talking"]);
    alice.types("pause 1");
    until("held", || states(&node) == ["held"]);
    alice.says("is now paused");
    alice.types("call sip:102@voip.test");
    alice.says("for call 2 (audio)");
    until("the second call", || states(&node) == ["held", "talking"]);
    alice.types("transfer 1 --to-call 2");
    until("one call is left", || calls(&node).len() == 1 && calls(&node)[0]["state"] == "talking");
    talked(&node, 3);
    drop(alice);
    assert_eq!(states(&node), ["talking"]);
    end(&node);
    until("bob hears carol", || hears(&bob, 1200.0));
    until("carol hears bob", || hears(&carol, 800.0));
}

#[test]
fn three_phones_confer_and_each_hears_the_others() {
    let node = estate();
    node.ok("domain/voip.test/ss/conference/activate 100");
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let bob = answering(at, dir.path(), "101", 800.0);
    let carol = answering(at, dir.path(), "102", 1200.0);
    let dave = answering(at, dir.path(), "103", 1700.0);
    let mut alice = SoftPhone::linphone(at, "100", "Geheim77");
    until("registered", || node.rows("domain/voip.test/sip/user/registered").len() == 4);
    alice.types("call sip:*71%23@voip.test");
    alice.says("for call 1 (audio)");
    until("the conference", || states(&node) == ["conference"]);
    alice.types("pause");
    alice.says("is now paused");
    for (number, of, call) in [("101", 2, 2), ("102", 3, 3), ("103", 4, 4)] {
        alice.types(&format!("call sip:{number}@voip.test"));
        alice.says(&format!("for call {call} (audio)"));
        until("a call to add", || states(&node).iter().any(|s| s == "talking"));
        alice.types(&format!("transfer {call} --to-call 1"));
        until("joined", || {
            calls(&node).len() == 1 && calls(&node)[0]["legs"].as_array().is_some_and(|l| l.len() == of)
        });
    }
    talked(&node, 4);
    end(&node);
    let tones = [800.0, 1200.0, 1700.0];
    for (i, phone) in [&bob, &carol, &dave].into_iter().enumerate() {
        for (j, tone) in tones.iter().enumerate().filter(|(j, _)| i != *j) {
            until(&format!("{i} hears {j}"), || hears(phone, *tone));
        }
        assert!(!hears(phone, tones[i]), "{i} does not hear itself");
    }
}

/// The manual's MultiSORM estate, its trunk leading to a port here.
fn multisorm(trunk: u16) -> Node {
    let node = Node::start_with(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{}", media_ports()), &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/multisorm.yaml");
    let played = node.replay(script);
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stdout));
    node.ok("domain/central_voip/trunk/sip/remove trunk1 --force");
    node.ok(&format!(
        "domain/central_voip/trunk/sip/declare default_routing central_voip trunk1 voip.local.set1 static 127.0.0.1 {trunk} sip-proxy 5060"
    ));
    node
}

#[test]
fn a_trunk_calls_in_and_is_called_across_the_bridges_of_the_multisorm_estate() {
    let trunk = phones::free_port();
    let node = multisorm(trunk);
    let at = node.sip();
    let dir = tempfile::tempdir().expect("a directory");
    let tone = dir.path().join("tone.wav");
    phones::tone(&tone, 600.0, 60);
    let inside =
        SoftPhone::baresip(at, "300001@local.voip", "udp", "300001", ";answermode=auto", Some(&tone));
    inside.says("200 OK");
    let in_call = Sipp::at(trunk, "trunk_in.xml", at, &["-s", "73832710001", "-m", "1"]);
    let of = |domain: &str| node.rows(&format!("domain/{domain}/call/list"));
    until("both domains see the call", || {
        ["central_voip", "local.voip"].iter().all(|d| of(d).iter().any(|c| c["state"] == "talking"))
    });
    assert!(of("voip.local").is_empty(), "and no other does");
    let on_bridge = |name: &str| node.ok(&format!("bridge/info {name}"));
    assert!(
        on_bridge("c2l").contains("calls")
            && on_bridge("c2l").lines().any(|l| l.contains("calls") && l.contains('1')),
        "{}",
        on_bridge("c2l")
    );
    in_call.ends();
    until("its place is free again", || {
        on_bridge("c2l").lines().any(|l| l.contains("calls") && l.contains('0'))
    });
    let record =
        |domain: &str| node.rows(&format!("domain/{domain}/cdr/list")).first().cloned().unwrap_or_default();
    until("both domains have its record", || {
        ["central_voip", "local.voip"]
            .iter()
            .all(|d| record(d)["seconds"].as_i64() == Some(3) || record(d)["seconds"].as_i64() == Some(4))
    });
    assert_eq!(record("central_voip")["side"]["to"], "bridge c2l");
    assert_eq!(record("local.voip")["side"]["to"], "300001@local.voip");

    let out_call = Sipp::at(trunk, "trunk_out.xml", at, &["-m", "1"]);
    let mut outside = SoftPhone::baresip(at, "200100@voip.local", "udp", "200100", "", Some(&tone));
    outside.says("200 OK");
    outside.types("/dial sip:73832123456@voip.local");
    outside.says("Call established");
    until("the call leaves by the trunk", || of("central_voip").iter().any(|c| c["state"] == "talking"));
    // The people of one domain see their side of it.
    node.ok("cocon/user/add tenant ecss-voip.local-domain-admin Passw0rd-tenant");
    let tenant =
        |line: &str| node.ssh_as("tenant", "Passw0rd-tenant", &format!("domain/voip.local/{line}"), b"");
    let foreign = |text: &str| text.contains("central_voip") || text.contains("73832700000");
    let seen = tenant("call/list --json");
    assert!(seen.stdout.contains("200100@voip.local") && !foreign(&seen.stdout), "{seen:?}");
    let id = calls::id(&of("central_voip")[0]["call"]);
    let ladder = tenant(&format!("call/ladder {id}"));
    assert!(ladder.status == 3 && ladder.stderr.contains("another domain"), "{ladder:?}");
    outside.types("/hangup");
    out_call.ends();
    until("its record is there", || record("voip.local")["side"]["to"] == "bridge c2v");
    let past = tenant("cdr/list --json");
    assert!(past.stdout.contains("200100@voip.local") && !foreign(&past.stdout), "{past:?}");
    assert_eq!(tenant(&format!("call/ladder {id}")).status, 3, "nor afterwards");
    assert!(node.ok(&format!("domain/voip.local/call/ladder {id}")).contains("INVITE"));
    assert_eq!(record("central_voip")["side"]["a"], "73832700000", "the caller's full number");
}

#[test]
fn every_pair_of_codings_is_heard_in_both_directions() {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let codings = ["PCMA", "PCMU", "G722", "opus"];
    let phone = |user: &str, coding: &str, frequency: f32, more: &str| {
        let file = dir.path().join(format!("{user}-{coding}.wav"));
        phones::tone_for(&file, coding, frequency, 120);
        let wanted = match coding {
            "opus" => "opus/48000/2",
            "G722" => "G722/16000/1",
            narrow => narrow,
        };
        let more = format!("{more};audio_codecs={wanted}");
        let phone = SoftPhone::baresip(at, user, "udp", "Geheim77", &more, Some(&file));
        phone.says("200 OK");
        phone
    };
    // Frequencies that no other phone has, within the telephone band.
    let (of_callee, of_caller) = (|n: usize| 500.0 + 300.0 * n as f32, |n: usize| 1700.0 + 300.0 * n as f32);
    let callees: Vec<SoftPhone> = codings
        .iter()
        .enumerate()
        .map(|(n, coding)| phone(&format!("10{n}"), coding, of_callee(n), ";answermode=auto"))
        .collect();
    for (c, coding) in codings.iter().enumerate() {
        let mut caller = phone("104", coding, of_caller(c), "");
        for (n, other) in codings.iter().enumerate() {
            caller.types(&format!("/dial sip:10{n}@voip.test"));
            until(&format!("{coding} and {other} talk"), || states(&node) == ["talking"]);
            talked(&node, 3);
            caller.types("/hangup");
            until("the call has ended", || calls(&node).is_empty());
            assert!(hears(&caller, of_callee(n)), "a caller with {coding} hears {other}");
            assert!(hears(&callees[n], of_caller(c)), "a callee with {other} hears {coding}");
        }
    }
}

#[test]
fn a_direction_whose_first_trunk_is_dead_carries_every_call_by_the_next() {
    let first = 60_000 - (std::process::id() % 10) as u16 * 400;
    let media = format!("[media]\nfirst_port = {}\nlast_port = {}\n", first, first + 399);
    let node = support::Node::start_with(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{media}"), &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<external><direction value=\"out\"/></external>");
    let (from, dead, live) = (phones::free_port(), phones::free_port(), phones::free_port());
    for (group, name, port) in [("in", "city", from), ("out", "dead", dead), ("out", "live", live)] {
        node.ok(&format!(
            "domain/voip.test/trunk/sip/declare ctx {group} {name} ipset static 127.0.0.1 {port} sip-proxy 5060"
        ));
    }
    node.ok("domain/voip.test/trunk/sip/set dead priority 1");
    node.ok("domain/voip.test/trunk/sip/set live priority 2");
    let wrong = node.ssh("domain/voip.test/trunk/sip/set live weight heavy", b"");
    assert!(wrong.status != 0 && wrong.stderr.contains("weight is a number from 0 to 1000"), "{wrong:?}");
    // With no count of calls: it would count the node's OPTIONS as some of them.
    let _callee = Sipp::built_in("uas", live, node.sip(), &[]);
    // A call that is not answered fails its scenario, and SIPp with it.
    let arguments = ["-s", "73832000001", "-m", "1000", "-r", "50", "-l", "100", "-d", "100"];
    Sipp::built_in("uac", from, node.sip(), &arguments).ends();
    until("all records are there", || {
        cdrs(&node).iter().filter(|c| c["cdr"]["answered"].is_string()).count() >= 50
    });
    let missing = node.metrics_missing(|name| name.starts_with("hypha_trunk"));
    assert!(missing.is_empty(), "{missing:?}");
    let page = node.metrics();
    let live = page
        .lines()
        .find(|l| l.starts_with("hypha_trunk_calls_ended_total{") && l.contains("trunk=\"live\""));
    assert!(live.is_some_and(|l| l.ends_with("} 1000") && l.contains("direction=\"out\"")), "{page}");
    assert!(
        cdrs(&node).iter().all(|c| c["side"]["to"] == "live"),
        "records name the trunk that took the call"
    );
}

#[test]
fn a_call_whose_actor_is_killed_ends_for_both_and_no_other_does() {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let mut phones: Vec<SoftPhone> =
        (0..4).map(|i| answering(at, dir.path(), &format!("10{i}"), 500.0 + 300.0 * i as f32)).collect();
    phones[0].types("/dial sip:101@voip.test");
    phones[2].types("/dial sip:103@voip.test");
    until("two calls", || states(&node) == ["talking", "talking"]);
    let victim = calls(&node).into_iter().find(|c| c["a"] == "100").expect("its call");
    node.ok(&format!("node/actor/kill {} --force", victim["call"].as_str().expect("its name")));
    phones[0].says("BYE");
    phones[1].says("BYE");
    until("one call goes on", || states(&node) == ["talking"] && calls(&node)[0]["a"] == "102");
    until("the killed one has a record", || {
        cdrs(&node).iter().any(|c| c["side"]["a"] == "100" && c["cdr"]["released_by"] == "system")
    });
    phones[2].types("/hangup");
    until("both have ended", || calls(&node).is_empty() && cdrs(&node).len() == 2);
}

/// Two phones of a node that talk, and the time.
fn talking() -> (Node, tempfile::TempDir, [SoftPhone; 2]) {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let mut alice = answering(at, dir.path(), "100", 500.0);
    let bob = answering(at, dir.path(), "101", 800.0);
    alice.types("/dial sip:101@voip.test");
    until("talking", || states(&node) == ["talking"]);
    (node, dir, [alice, bob])
}

fn time(of: &serde_json::Value) -> chrono::DateTime<chrono::Utc> {
    of.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{of} is no time"))
}

#[test]
fn a_node_that_dies_writes_a_record_for_every_answered_call_and_bills_no_outage() {
    let (mut node, _dir, _phones) = talking();
    node.kill();
    let died = chrono::Utc::now();
    node.restart();
    assert_eq!(node.rows("domain/voip.test/sip/user/registered").len(), 2);
    until("its record", || cdrs(&node).len() == 1);
    let cdr = &cdrs(&node)[0]["cdr"];
    assert!(cdr["cause"] == 41 && cdr["released_by"] == "outage", "{cdr}");
    assert!(
        time(&cdr["answered"]) <= time(&cdr["ended"]) && time(&cdr["ended"]) <= died,
        "died {died}: {cdr}"
    );
    node.kill();
    node.restart();
    assert_eq!(cdrs(&node).len(), 1, "and only one");
}

#[test]
fn a_call_that_ended_before_the_node_died_ended_then() {
    let (mut node, _dir, mut phones) = talking();
    phones[0].types("/hangup");
    until("over", || calls(&node).is_empty());
    // At once: nothing is left to a second thought.
    node.kill();
    node.restart();
    let all = cdrs(&node);
    assert!(all.len() == 1 && all[0]["cdr"]["cause"] == 16 && all[0]["cdr"]["released_by"] == "a", "{all:?}");
}

#[test]
fn a_node_that_is_stopped_writes_the_ends_of_its_calls_first() {
    let (mut node, _dir, _phones) = talking();
    let before = chrono::Utc::now();
    assert!(node.terminate().success());
    let stopped = chrono::Utc::now();
    node.restart();
    let all = cdrs(&node);
    let cdr = &all[0]["cdr"];
    assert!(all.len() == 1 && cdr["released_by"] == "system", "{all:?}");
    assert!((before..=stopped).contains(&time(&cdr["ended"])), "{before} {stopped} {cdr}");
    let ladder = ladder(&node, &cdr["call"]);
    assert!(ladder.contains("BYE"), "its ladder is kept too: {ladder}");
}

#[test]
fn services_lead_calls_elsewhere_by_command_and_by_code() {
    let node = estate();
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let mut alice = answering(at, dir.path(), "100", 500.0);
    let mut bob = answering(at, dir.path(), "101", 800.0);
    let carol = answering(at, dir.path(), "102", 1200.0);
    let _ = &carol;
    let reaches = |alice: &mut SoftPhone, number: &str| {
        alice.types("/dial sip:101@voip.test");
        until(&format!("the call is with {number}"), || {
            calls(&node).iter().any(|c| c["state"] == "talking" && c["b"] == number)
        });
        alice.types("/hangup");
        until("it has ended", || calls(&node).is_empty());
    };
    reaches(&mut alice, "101");
    let wants = node.ssh("domain/voip.test/ss/cfu/activate 101", b"");
    assert!(wants.status == 1 && wants.stderr.contains("cfu wants --number"), "{wants:?}");
    let done = node.ok("domain/voip.test/ss/cfu/activate 101 --number 102");
    assert!(
        done.contains(
            "Success: Supplementary service cfu activated for domain \"voip.test\" address \"101\""
        )
    );
    reaches(&mut alice, "102");
    node.ok("domain/voip.test/ss/cfu/deactivate 101");
    reaches(&mut alice, "101");

    // Do not disturb, by the phone's own code; the caller is told that it is busy.
    bob.types("/dial sip:*26%23@voip.test");
    bob.says("Call established");
    let active = |service: &str| {
        node.rows("domain/voip.test/ss/list 101")
            .iter()
            .any(|s| s["service"] == service && s["active"] == true)
    };
    until("it is on", || active("dnd"));
    until("the code's call ends by itself", || calls(&node).is_empty());
    alice.types("/dial sip:101@voip.test");
    alice.says("486 Busy Here");
    // Busy leads on, where the subscriber wants it.
    node.ok("domain/voip.test/ss/cfb/activate 101 --number 102");
    reaches(&mut alice, "102");
    bob.types("/dial sip:%2326%23@voip.test");
    until("it is off", || !active("dnd"));
    until("the code's call ends by itself", || calls(&node).is_empty());
    // A circle of forwardings ends.
    node.ok("domain/voip.test/ss/cfu/activate 101 --number 102");
    node.ok("domain/voip.test/ss/cfu/activate 102 --number 101");
    alice.types("/dial sip:101@voip.test");
    alice.says("session closed");
    until("nothing is left of it", || calls(&node).is_empty());
    assert!(cdrs(&node).iter().any(|c| c["cdr"]["service"] == "forward" && c["cdr"]["diverted"] == "101"));
}

#[test]
fn a_call_that_rings_is_picked_up_elsewhere_and_forks_ring_together() {
    let node = estate();
    node.ok("domain/voip.test/ss/pickup/activate 102");
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let tone = dir.path().join("tone.wav");
    phones::tone(&tone, 900.0, 60);
    let quiet = |user: &str| {
        let phone = SoftPhone::baresip(at, user, "udp", "Geheim77", "", Some(&tone));
        phone.says("200 OK");
        phone
    };
    let (mut alice, _bob, mut carol) = (quiet("100"), quiet("101"), quiet("102"));
    alice.types("/dial sip:101@voip.test");
    until("it rings", || states(&node) == ["ringing"]);
    carol.types("/dial sip:*8*101%23@voip.test");
    until("carol has it", || {
        calls(&node).len() == 1
            && calls(&node)[0]["state"] == "talking"
            && calls(&node)[0]["legs"].to_string().contains("102@voip.test")
    });
    alice.types("/hangup");
    until("it has ended", || calls(&node).is_empty());
    until("its record", || cdrs(&node).iter().any(|c| c["cdr"]["service"] == "pickup"));

    // Two phones of one subscriber: with core_forking both ring, the first answer wins.
    let second = SoftPhone::baresip(at, "101", "tcp", "Geheim77", ";answermode=auto", Some(&tone));
    second.says("200 OK");
    until("two contacts", || node.rows("domain/voip.test/sip/user/registered 101@voip.test").len() == 2);
    node.ok("domain/voip.test/iface/user-set sip1 g 101@voip.test core_forking true");
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    until("one phone has the call", || {
        calls(&node)
            .iter()
            .any(|c| c["state"] == "talking" && c["legs"].as_array().is_some_and(|l| l.len() == 2))
    });
    alice.types("/hangup");
    until("it has ended", || calls(&node).is_empty());
}

#[test]
fn records_of_calls_are_in_the_files_of_their_groups() {
    let mut node = estate();
    node.ok("domain/voip.test/cdr/add_cdr_group default period 3600");
    node.ok("domain/voip.test/cdr/add_cdr_group vip count 2 --prefix bill_");
    let wrong = node.ssh("domain/voip.test/alias/set 100 g 100@voip.test cdr_group nobody", b"");
    assert!(wrong.status != 0 && wrong.stderr.contains("list_cdr_groups"), "{wrong:?}");
    node.ok("domain/voip.test/alias/set 100 g 100@voip.test cdr_group vip");
    let mut vip = SoftPhone::silent(node.sip(), "100", "udp", "Geheim77");
    let mut other = SoftPhone::silent(node.sip(), "101", "udp", "Geheim77");
    vip.says("200 OK");
    other.says("200 OK");
    // To nobody who is there: each attempt is a record.
    for _ in 0..3 {
        vip.types("/dial sip:102@voip.test");
        vip.says("SIP/2.0 480");
    }
    other.types("/dial sip:102@voip.test");
    other.says("SIP/2.0 480");
    let files = |node: &Node| -> Vec<String> {
        let rows = node.rows("domain/voip.test/cdr/files");
        rows.iter().filter_map(|r| Some(r["file"].as_str()?.to_owned())).collect()
    };
    let of = |all: &[String], group: &str, end: &str| {
        all.iter().find(|f| f.contains(group) && f.ends_with(end)).cloned()
    };
    until("the files are written", || {
        let all = files(&node);
        of(&all, "bill_vip_", ".csv")
            .and(of(&all, "bill_vip_", ".part"))
            .and(of(&all, "default_", ".part"))
            .is_some()
    });
    node.kill();
    node.restart();
    let all = files(&node);
    let lines = |name: Option<String>| {
        let text = node.ok(&format!("domain/voip.test/cdr/show {}", name.expect("a file")));
        text.lines().filter(|l| l.contains(",voip.test,")).map(str::to_owned).collect::<Vec<_>>()
    };
    let complete = lines(of(&all, "bill_vip_", ".csv"));
    assert_eq!(complete.len(), 2, "{complete:?}");
    assert!(complete.iter().all(|l| l.contains(",vip,") && l.contains(",100,102,")), "{complete:?}");
    assert_eq!(lines(of(&all, "bill_vip_", ".part")).len(), 1);
    assert_eq!(lines(of(&all, "default_", ".part")).len(), 1);
}

#[test]
fn a_trunk_registers_proves_who_it_is_and_wants_the_same_of_its_neighbour() {
    let phone_port = phones::free_port();
    let provider = Provider::start(phone_port);
    let node = estate();
    node.ok(&format!(
        "domain/voip.test/trunk/sip/declare ctx g city voip.test.set1 static 127.0.0.1 {} sip-proxy 5060",
        provider.port
    ));
    for (property, value) in [
        ("login", "line7"),
        ("password", "Leitung77"),
        ("peer_login", "city"),
        ("peer_password", "Stadt77"),
        ("register", "true"),
    ] {
        node.ok(&format!("domain/voip.test/trunk/sip/set city {property} {value}"));
    }
    let info = node.ok("domain/voip.test/trunk/sip/info city");
    assert!(info.contains("line7") && !info.contains("Leitung77") && !info.contains("Stadt77"), "{info}");
    let registration = || node.rows("domain/voip.test/trunk/sip/health")[0]["registration"].clone();
    until("we are registered with the neighbour", || registration()["until"].is_string());

    // Out: the neighbour asks who we are.
    let context = "<context name=\"ctx\"><rule name=\"out\"><conditions><cdpn digits=\"9%\"/></conditions>\
         <result><external><trunk value=\"city\"/></external></result></rule><rule name=\"in\"><conditions>\
         <cdpn digits=\"1%\"/></conditions><result><local/></result></rule></context>";
    let imported = node.ssh("domain/voip.test/routing/import ecss1 -", context.as_bytes());
    assert_eq!(imported.status, 0, "{imported:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let low = dir.path().join("low.wav");
    phones::tone(&low, 440.0, 10);
    let answers = Sipp::built_in("uas", phone_port, node.sip(), &["-m", "1"]);
    let mut phone = SoftPhone::baresip(node.sip(), "101", "udp", "Geheim77", ";answermode=auto", Some(&low));
    phone.says("200 OK");
    phone.types("/dial sip:9001@voip.test");
    phone.says("Call established");
    phone.types("/hangup");
    answers.ends();
    until("the call has ended", || calls(&node).is_empty());

    // In, from a port nobody knows: we ask who the neighbour is.
    let city = ";auth_user=city;regint=0";
    let mut stranger = SoftPhone::baresip(node.sip(), "73832123456", "udp", "Stadt77", city, Some(&low));
    stranger.types("/dial sip:101@voip.test");
    stranger.says("Call established");
    stranger.types("/hangup");
    until("the record is there", || cdrs(&node).iter().any(|c| c["side"]["from"] == "city"));
}

#[test]
fn a_call_is_recorded_and_one_that_fails_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let (low, high) = (dir.path().join("low.wav"), dir.path().join("high.wav"));
    phones::tone(&low, 440.0, 60);
    phones::tone(&high, 1000.0, 60);
    // What is heard where nobody is registered.
    let announcements = dir.path().join("announcements");
    std::fs::create_dir(&announcements).expect("made");
    phones::tone(&announcements.join("20.wav"), 1300.0, 2);
    let node = calls::estate_media(&format!("announcements = \"{}\"\n", announcements.display()));
    let mut alice = SoftPhone::baresip(node.sip(), "100", "udp", "Geheim77", "", Some(&low));
    let bob = SoftPhone::baresip(node.sip(), "101", "udp", "Geheim77", ";answermode=auto", Some(&high));
    alice.says("200 OK");
    bob.says("200 OK");
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    let call = node.rows("domain/voip.test/call/list")[0]["call"].as_str().expect("a call").to_owned();
    let id = call.rsplit('/').next().expect("its identity");
    let said = node.ok(&format!("domain/voip.test/call/record/start {id}"));
    let file = said.lines().next().expect("its file").to_owned();
    talked(&node, 6);
    node.ok(&format!("domain/voip.test/call/record/stop {id}"));
    alice.types("/hangup");
    until("the call has ended", || calls(&node).is_empty());
    let mut reader = hound::WavReader::open(&file).expect("a recording");
    assert_eq!(reader.spec().channels, 2);
    let all: Vec<i16> = reader.samples::<i16>().map_while(Result::ok).collect();
    for (side, tone, other) in [(0, 440.0, 1000.0), (1, 1000.0, 440.0)] {
        let samples: Vec<i16> = all.iter().skip(side).step_by(2).copied().collect();
        let heard = phones::heard(&samples, tone);
        assert!(heard.iter().filter(|h| **h).count() >= 10, "a second at least: {heard:?}");
        assert!(!phones::heard(&samples, other).contains(&true), "each side by itself");
    }
    // Nobody is at 102: the caller hears so before it is told.
    alice.types("/dial sip:102@voip.test");
    alice.says("SIP/2.0 480");
    until("the announcement is heard", || {
        let recorded = alice.recordings();
        let heard = phones::heard(&phones::samples(recorded.last().expect("early media")), 1300.0);
        heard.iter().filter(|h| **h).count() >= 10
    });
}

#[test]
fn a_manager_opens_a_meeting_and_gives_the_word() {
    let node = estate();
    node.ok("domain/voip.test/ss/teleconference/activate 100");
    node.ok("domain/voip.test/alias/set 100 g 100@voip.test teleconference\\role manager");
    node.ok("domain/voip.test/alias/set 100 g 100@voip.test teleconference\\password 4321");
    let (at, dir) = (node.sip(), tempfile::tempdir().expect("a directory"));
    let phone = |user: &str, tone: f32| {
        let file = dir.path().join(format!("{user}.wav"));
        phones::tone(&file, tone, 60);
        let phone = SoftPhone::baresip(at, user, "udp", "Geheim77", ";audio_codecs=PCMA", Some(&file));
        phone.says("200 OK");
        phone
    };
    let (mut alice, mut bob, mut carol) = (phone("100", 800.0), phone("101", 1200.0), phone("102", 1700.0));
    bob.types("/dial sip:*72*100*4321%23@voip.test");
    bob.says("SIP/2.0 480");
    alice.types("/dial sip:*72%23@voip.test");
    alice.says("Call established");
    bob.types("/dial sip:*72*100*9999%23@voip.test");
    bob.says("SIP/2.0 403");
    for member in [&mut bob, &mut carol] {
        member.types("/dial sip:*72*100*4321%23@voip.test");
        member.says("Call established");
    }
    let microphones = || {
        let rows = node.rows("domain/voip.test/teleconference/list");
        let legs = rows[0]["legs"].as_array().cloned().unwrap_or_default();
        legs.iter().filter(|l| l["muted"] == false).count()
    };
    until("only the manager speaks", || microphones() == 1);
    talked(&node, 2);
    node.ok("domain/voip.test/teleconference/mic 100 101 on");
    until("another one speaks", || microphones() == 2);
    talked(&node, 6);
    node.ok("domain/voip.test/teleconference/drop 100 102");
    until("one is sent away", || calls(&node)[0]["legs"].as_array().is_some_and(|l| l.len() == 2));
    alice.types("/hangup");
    until("the meeting is over with its manager", || calls(&node).is_empty());
    until("all is written", || hears(&carol, 800.0) && hears(&bob, 800.0) && hears(&alice, 1200.0));
    assert!(hears(&carol, 1200.0), "who has the word is heard by all");
    assert!(!hears(&alice, 1700.0) && !hears(&bob, 1700.0), "who has not is heard by nobody");
    let of = |service: &str| cdrs(&node).iter().filter(|c| c["cdr"]["service"] == service).count();
    until("each member has a record", || of("teleconference") == 2);
}

#[test]
fn a_node_that_is_drained_lets_its_calls_end_takes_no_others_and_stops() {
    let (mut node, _dir, mut phones) = talking();
    let drained = node.ok("node/drain --force");
    assert!(drained.contains("1 are under way"), "{drained}");
    assert_eq!(node.rows("alarms/list -c node::draining").len(), 1);
    let carol = UdpSocket::bind("127.0.0.1:0").expect("a port");
    carol.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let port = carol.local_addr().expect("bound").port();
    let invite = format!(
        "INVITE sip:101@voip.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKd1\r\nFrom: <sip:100@voip.test>;tag=1\r\n\
         To: <sip:101@voip.test>\r\nCall-ID: d1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:100@127.0.0.1:{port}>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let at = node.sip();
    let mut count = 1;
    let mut asks = || {
        count += 1;
        carol.send_to(invite.replace("d1", &format!("d{count}")).as_bytes(), at).expect("sent");
        let mut buffer = [0; 4096];
        let (n, _) = carol.recv_from(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let refused = asks();
    assert!(refused.starts_with("SIP/2.0 503") && refused.contains("Retry-After: 10"), "{refused}");
    let ready = |node: &Node| node.http("GET /readyz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
    assert!(ready(&node).starts_with("HTTP/1.1 503") && ready(&node).contains("draining"));
    node.ok("node/undrain");
    assert!(ready(&node).starts_with("HTTP/1.1 200"));
    assert!(!asks().starts_with("SIP/2.0 503"));
    let left = node.ssh("node/drain --wait 1 --force", b"");
    assert!(left.status == 1 && left.stderr.contains("1 calls are still under way"), "{left:?}");
    assert_eq!(calls(&node).len(), 1, "it goes on");
    // As an upgrade does it: it ends with its last call.
    node.drain();
    phones[0].types("/hangup");
    assert!(node.ends().success());
}
