//! A station, a mediator and a control point, each a process of its own.

mod support;

use ::mediator::handover::pdu::{Direction, IriType, Payload, Pdu};
use support::{
    Node,
    agency::{self, Openssl},
    browser::Browser,
    calls::{calls, end, until},
    mediator::{ControlPoint, connect, connect_by_two, is_logged_in, mediator, row},
    phones::{free_port, free_tcp_port, heard},
    sorm::{door_of, estate, linear, phone, verified, written},
    wireshark,
};

/// X.25 and speech on a virtual E1: commands, notifications and content from phone to control point, and its alarms.
#[test]
fn a_control_point_on_e1_controls_and_hears_calls() {
    let radius = free_port();
    let node = estate(radius, "");
    let mediator = mediator(&node, radius, "");
    // Nobody is at the main address.
    mediator.ok("mediator/ssh/set server 127.0.0.2");
    mediator.ok("mediator/ssh/set reserve_server 127.0.0.1");
    let stream = connect(&mediator, 0, "dte");
    let dir = tempfile::tempdir().expect("a directory");
    let mut point = ControlPoint::start(&["--stream", &stream], &dir.path().join("heard"));
    point.says("channel 2 of stream 0 up");
    until("the mediator is logged in", || is_logged_in(&mediator));

    point.types("version");
    point.says("1 received 11: 02");
    point.done("start");
    let told = point.done("test 9");
    assert!(told.iter().any(|l| l == "1 test 9: 01 01"), "{told:?}");
    assert_eq!(point.event(), "test 9: 01 01");
    for command in [
        "channel add 1 combined 1",
        "channel add 2 separate 2 17",
        "put 7 own own 100 combined 1",
        "put 8 own own 101 separate 2",
    ] {
        point.done(command);
    }
    let table = point.done("objects");
    assert_eq!(table.iter().filter(|l| l.starts_with("1 object ")).count(), 2, "{table:?}");

    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
    until("both are heard", || point.tenths(1, 440.0) > 20 && point.tenths(1, 1000.0) > 20);
    until("each is heard apart", || point.tenths(2, 440.0) > 20 && point.tenths(17, 1000.0) > 20);
    alice.types("/hangup");
    let events: Vec<String> = (0..6).map(|_| point.event()).collect();
    let of = |object: &str| -> Vec<&str> {
        let of = events.iter().filter(|e| e.contains(&format!(" object {object}: ")));
        of.filter_map(|e| e.split_whitespace().next()).collect()
    };
    assert_eq!([of("7"), of("8")], [["number", "answer", "release"]; 2], "{events:#?}");
    let apart = [point.tenths(2, 1000.0), point.tenths(17, 440.0)];
    assert_eq!(apart, [0, 0], "each in its own");

    // Alarms of the line are what it does, and it comes back from each.
    let state = |row_of: &str| row(&mediator, "mediator/e1/monitor", row_of)[1].clone();
    for alarm in ["los", "ais", "rai", "lomf"] {
        point.types(&format!("line 0 {alarm}"));
        until(alarm, || state("state") == alarm.to_uppercase());
        point.types("line 0 work");
        until("it works again", || state("state") == "WORK");
    }
    until("so does X.25", || state("data channel 1") == "up" && state("data channel 2") == "up");
    point.done("test 10");
    let counted: u64 = state("bytes received").parse().expect("a number");
    assert!(counted > 100, "{counted}");
    mediator.ok("mediator/e1/reset 0");
    assert!(state("bytes received").parse::<u64>().expect("a number") < counted);
    assert_eq!(row(&mediator, "mediator/e1/monitor", "state")[1..], ["WORK", "OFF", "OFF", "OFF"]);
    assert!(verified(&mediator).starts_with("ok: ") && verified(&node).starts_with("ok: "));
}

/// TCP: what waits survives kill -9 and comes once; numbers and codes as they are set; the time-out of order 70.
#[test]
fn a_control_point_over_tcp_misses_nothing() {
    let radius = free_port();
    let node = estate(radius, "");
    let mut mediator = mediator(&node, radius, "");
    let ports = [free_tcp_port(), free_tcp_port()];
    for line in [
        "sorm/set link tcp".to_owned(),
        format!("sorm/set tcp_port1 {}", ports[0]),
        format!("sorm/set tcp_port2 {}", ports[1]),
    ] {
        mediator.ok(&format!("mediator/{line}"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let at = format!("{},{}", ports[0], ports[1]);
    let arguments = ["--tcp", "127.0.0.1", "--ports", &at];
    let begin = || {
        let point = ControlPoint::start(&arguments, &dir.path().join("heard"));
        point.says("up");
        point.says("up");
        point
    };
    let mut point = begin();
    until("the mediator is logged in", || is_logged_in(&mediator));
    point.done("start");
    // 79001758964 is a subscriber of ours to those who number so.
    point.done("put 7 own own 100 statistical");
    // Plain codes, then the extended ones.
    point.types("put 7 own own 100 statistical");
    assert!(point.says("1 done 05").pop().is_some_and(|l| l.contains(": 01")));
    mediator.ok("mediator/sorm/set extended_codes true");
    point.types("put 7 own own 100 statistical");
    assert!(point.says("1 done 05").pop().is_some_and(|l| l.contains(": 33")));
    // A control point that comes anew takes the place of what it left behind; what comes to it then is told.
    let again = begin();
    drop(std::mem::replace(&mut point, again));
    // What is no command is skipped, and the next one is heard.
    point.types("raw 0102030405");
    point.done("test 1");
    assert_eq!(point.event(), "test 1: 01 01");
    drop(point);

    // Nobody is there while a call is made, and the mediator dies.
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    let call = |alice: &mut support::phones::SoftPhone| {
        alice.types("/dial sip:101@voip.test");
        until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
        end(&node);
    };
    call(&mut alice);
    let waiting = |mediator: &Node| row(mediator, "mediator/state", "waiting for data channel 2")[1].clone();
    until("three wait", || waiting(&mediator) == "3");
    mediator.kill();
    call(&mut alice);
    mediator.restart();
    until("six wait", || waiting(&mediator) == "6");
    let mut point = begin();
    let said: Vec<String> = (0..6).map(|_| point.event()).collect();
    let said: Vec<&str> = said.iter().filter_map(|e| e.split_whitespace().next()).collect();
    assert_eq!(said, ["number", "answer", "release"].repeat(2));
    until("nothing waits", || waiting(&mediator) == "0");
    assert_eq!(row(&mediator, "mediator/state", "missing")[1], "0");

    // Without commands the channels count as faulty, and what comes is deleted; a command brings them back.
    mediator.ok("mediator/sorm/set timeout 1");
    let channels = |m: &Node| row(m, "mediator/state", "data channels")[1].clone();
    until("no command came", || channels(&mediator).contains("faulty"));
    call(&mut alice);
    until("it is deleted", || row(&mediator, "mediator/state", "deleted unsent")[1] == "3");
    mediator.ok("mediator/sorm/set timeout 600");
    until("a command is heard", || {
        point.types("test 2");
        point.says("1 done").pop().is_some_and(|l| l.ends_with("ok"))
    });
    assert_eq!(channels(&mediator), "in use");
    assert!(verified(&mediator).starts_with("ok: "));
}

/// The handover to agencies elsewhere: OpenSSL's server takes events and content, its parser reads them; and what was handed
/// over to nobody comes again until somebody says that it came.
#[test]
fn an_agency_elsewhere_gets_events_and_content() {
    let radius = free_port();
    let node = estate(radius, "");
    let mut mediator = mediator(&node, radius, "");
    let dir = tempfile::tempdir().expect("a directory");
    let files = agency::certificate(dir.path());
    let (points, to) = ([free_tcp_port(), free_tcp_port()], free_tcp_port());
    for line in [
        "sorm/set link tcp".to_owned(),
        format!("sorm/set tcp_port1 {}", points[0]),
        format!("sorm/set tcp_port2 {}", points[1]),
        // Speech is taken for the handover alone.
        "e1/stream 0 enabled true".to_owned(),
        format!("etsi/set handover_ca {}", files.0.display()),
        "etsi/set keep_alive 0".to_owned(),
        "etsi/set liid_prefix T-".to_owned(),
        "etsi/set country NZ".to_owned(),
        format!("etsi/set handover 127.0.0.1:{to}"),
    ] {
        mediator.ok(&format!("mediator/{line}"));
    }
    let at = format!("{},{}", points[0], points[1]);
    let mut point = ControlPoint::start(&["--tcp", "127.0.0.1", "--ports", &at], dir.path());
    point.says("up");
    until("the mediator is logged in", || is_logged_in(&mediator));
    for command in ["start", "channel add 1 separate 1 2", "put 7 own own 100 separate 1"] {
        point.done(command);
    }
    let openssl = Openssl::start(to, &files, &dir.path().join("taken"));
    let state = |m: &Node, what: &str| row(m, "mediator/state", what)[1].clone();
    until("it is connected", || state(&mediator, "mediator/handover").contains("connected with"));
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    let mut call = |long: bool| {
        alice.types("/dial sip:101@voip.test");
        until("they talk", || calls(&node).iter().any(|c| c["state"] == "talking"));
        if long {
            until("it is heard", || openssl.pdus().len() > 200);
        }
        end(&node);
    };
    call(true);
    let read = |all: &[Vec<u8>]| -> Vec<Pdu> { all.iter().map(|p| Pdu::read(p).expect("a PDU")).collect() };
    let events = |all: &[Pdu]| -> Vec<(IriType, u32)> {
        let event = |p: &Pdu| match &p.payload {
            Payload::Iri { kind, .. } => Some((*kind, p.sequence)),
            _ => None,
        };
        all.iter().filter_map(event).collect()
    };
    let whole = [(IriType::Begin, 0), (IriType::Continue, 1), (IriType::End, 2)];
    until("all has come", || events(&read(&openssl.pdus())) == whole);
    let (raw, all) = (openssl.pdus(), read(&openssl.pdus()));
    assert_eq!(all[0].payload, Payload::CinReset);
    // Each voice by itself, whole, in IP packets.
    for (direction, own, other) in
        [(Direction::FromTarget, 440.0, 1000.0), (Direction::ToTarget, 1000.0, 440.0)]
    {
        let packets = all.iter().filter_map(|p| match &p.payload {
            Payload::Cc { direction: d, packet } if *d == direction => Some(packet),
            _ => None,
        });
        let samples: Vec<i16> = packets.flat_map(|p| p[40..].iter().map(|b| linear(*b))).collect();
        let heard = [own, other].map(|f| heard(&samples, f).iter().filter(|h| **h).count());
        assert!(heard[0] > 10 && heard[1] == 0, "{direction:?}: {heard:?}");
    }
    let content = all.iter().filter(|p| matches!(p.payload, Payload::Cc { .. }));
    assert!(content.clone().all(|p| p.liid == "T-7" && p.cin == Some(0)));
    assert!(content.zip(0u32..).all(|(p, n)| p.sequence == n), "none is missing");
    // As a stranger reads it.
    let begin = raw.iter().zip(&all).find(|(_, p)| matches!(p.payload, Payload::Iri { .. }));
    let shown = openssl.parse(begin.expect("an event").0);
    let lines: Vec<&str> = shown.lines().map(|l| l.split_whitespace().last().unwrap_or_default()).collect();
    assert!(shown.contains("cont [ 1 ]") && shown.contains("cont [ 2 ]") && lines.len() > 15, "{shown}");

    // Nobody answers: what is told comes again with each connection, and waits for an answer over kill -9.
    mediator.ok("mediator/etsi/set keep_alive 1");
    call(false);
    until("it comes again", || {
        events(&read(&openssl.pdus())).iter().filter(|(k, _)| *k == IriType::Begin).count() >= 3
    });
    assert_eq!(state(&mediator, "waiting for the handover"), "3");
    drop(openssl);
    mediator.kill();
    let got = agency::agency(to, &files);
    mediator.restart();
    until("all has gone", || state(&mediator, "waiting for the handover") == "0");
    let got = got.lock().expect("whole").clone();
    assert_eq!(events(&got), whole, "{got:?}");
    // The certificate has to be the agency's.
    mediator.ok("mediator/etsi/set handover_name elsewhere.example");
    until("it is refused", || state(&mediator, "mediator/handover").contains("certificate"));
}

/// Bits, frames and packets between mediator and control point are what Wireshark takes them for.
#[test]
fn wireshark_reads_what_goes_over_the_line() {
    let mediator = Node::mediator("");
    let ends = [(); 2].map(|()| std::net::SocketAddr::from(([127, 0, 0, 1], free_port())));
    let (between, seen) = wireshark::between(ends);
    for (property, value) in
        [("local", ends[0].to_string()), ("peer", between[0].to_string()), ("enabled", "true".into())]
    {
        mediator.ok(&format!("mediator/e1/stream 0 {property} {value}"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let stream = format!("{}={}", ends[1], between[1]);
    let mut point = ControlPoint::start(&["--stream", &stream], dir.path());
    point.says("channel 2 of stream 0 up");
    // There is no station: the mediator says so itself. A unit of more than 128 bytes goes in two packets.
    point.types("test 7");
    point.says("1 received 0e: 01");
    point.types(&format!("raw cc0107b4313233343536{}", "00".repeat(180)));
    point.says("1 received 07: 01");
    drop(point);
    let seen = seen.lock().expect("whole").clone();
    let packets: Vec<Vec<u8>> = seen.iter().take(50).map(|(_, p)| p.clone()).collect();
    let read = wireshark::reads(&packets, "pw_satop_udp", dir.path());
    assert!(
        read.len() == 50 && read.iter().all(|l| l.contains("SAToP (no RTP) 260 TDM octets:256")),
        "{read:#?}"
    );
    for slot in [30, 31] {
        let read = wireshark::reads(&wireshark::frames(&seen, slot), "lapb", dir.path());
        let has = |wanted: &str| read.iter().any(|l| l.contains(wanted));
        assert!(has("LAPB 2 U P, func=SABM") && has("LAPB 2 U P, func=UA"), "{read:#?}");
        assert!(has("X.25 7 Restart ind./Restart req."), "{read:#?}");
        assert!(!read.iter().any(|l| l.contains("Malformed") || l.contains("Unknown")), "{read:#?}");
        if slot == 30 {
            let data = ["Data VC:1 P(S):0 P(R):0", "Data VC:1 P(S):1 P(R):1  M", "Data VC:1 P(S):2 P(R):1"];
            assert!(data.into_iter().all(has), "{read:#?}");
        }
    }
}

/// What passes through is shown to nobody, and nobody else is let in.
#[test]
fn nobody_else_is_let_in_and_numbers_are_shown_to_nobody() {
    const CANARY: &str = "73835550147";
    let radius = free_port();
    let node = estate(radius, "");
    let mut mediator = mediator(&node, radius, "[log]\nlevel = \"trace\"\n");
    let stream = connect(&mediator, 0, "dce");
    mediator.ok("mediator/e1/set circuit svc");
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = ["--stream", &stream, "--mode", "dte", "--circuit", "svc"];
    let mut point = ControlPoint::start(&arguments, &dir.path().join("heard"));
    point.says("channel 2 of stream 0 up");
    until("the mediator is logged in", || is_logged_in(&mediator));
    point.done("start");
    point.done(&format!("put 1 full russia {CANARY} statistical"));
    point.done("put 2 own own 100 statistical");
    assert!(point.done("objects").iter().any(|l| l.contains(CANARY)));
    let mut alice = phone(&node, dir.path(), "100", 440.0, false);
    let _bob = phone(&node, dir.path(), "101", 1000.0, true);
    alice.types("/dial sip:101@voip.test");
    assert!(point.event().starts_with("number "));
    end(&node);
    // Notifications with another secret are none.
    let notice = sorm::intercept::Notice {
        sequence: 1,
        at: chrono::Utc::now(),
        status: sorm::intercept::Status::Start,
        session: "voip.test-1-1".into(),
        calling: Default::default(),
        called: Default::default(),
        unit: vec![0xCC, 1, 0x41],
    };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let forged =
        sorm::intercept::radius::request(&notice, 1, "voip.test", 0, &kit::Secret::new("guess".into()));
    for packet in [&forged[..], b"", &[4; 4096]] {
        socket.send_to(packet, ("127.0.0.1", radius)).expect("sent");
    }
    let strange = || row(&mediator, "mediator/state", "strange packets at the accounting port")[1] == "3";
    until("they are counted", strange);
    // A station that shows another key is not trusted until somebody says so.
    std::fs::remove_file(node.data().join("sorm_host_ed25519_key")).expect("removed");
    let port = door_of(&node, "sorm/ssh").port();
    let mut node = node;
    node.kill();
    node.configure("[sorm]\nlisten = \"127.0.0.1:0\"", &format!("[sorm]\nlisten = \"127.0.0.1:{port}\""));
    node.restart();
    let station = |m: &Node| row(m, "mediator/state", "mediator/station")[1].clone();
    until("the key is seen", || station(&mediator).contains("another key"));
    mediator.ok("mediator/ssh/forget-keys");
    until("it is trusted again", || is_logged_in(&mediator));

    let mut all = String::new();
    for line in [
        "node/tree",
        "node/log/list",
        "journal/list",
        "mediator/state",
        "mediator/ssh/info",
        "mediator/radius/info",
    ] {
        all.push_str(&mediator.ok(line));
    }
    for actor in ["mediator/desk", "mediator/outbox", "mediator/settings", "mediator/station"] {
        all.push_str(&mediator.ok(&format!("node/actor/info {actor}")));
        mediator.ok(&format!("node/actor/kill {actor} --force"));
    }
    until("what was killed works again", || is_logged_in(&mediator));
    assert!(row(&mediator, "mediator/ssh/info", "user")[1] == "voip.test");
    all.push_str(&mediator.ok("node/crash/list"));
    all.push_str(&mediator.log());
    mediator.kill();
    all.push_str(&written(&mediator.data()));
    assert!(all.contains("TRACE") && all.contains("voip.test"), "there is something to look through");
    for canary in [CANARY, "3738555510", "sorm_password", "2testing123"] {
        assert!(
            !all.contains(canary),
            "{canary} was found: {:?}",
            &all[all.find(canary).unwrap_or(0)..][..400]
        );
    }
}

/// Who the others are is changed by two persons, on pages as on the command line; the monitor shows what the line does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_streams_are_pages() {
    let mediator = Node::mediator("[sorm]\nlisten = \"127.0.0.1:0\"\ntwo_persons = true\n");
    let browser = Browser::open().await;
    browser.log_in(&mediator, "admin", &mediator.password).await;
    browser.reads("#mediator-state", |t| t.contains("it wants server, user and password")).await;
    let set = async |page: &str, property: &str, value: &str| {
        browser.client.goto(&format!("{}/#{page}", mediator.web)).await.expect("the page");
        let field = browser.shows(&format!("#set-{property}")).await;
        let kind = field.html(false).await.expect("a field");
        if kind.contains("checkbox") {
            field.click().await.expect("clicked");
        } else if kind.starts_with("<select") {
            field.select_by_label(value).await.expect("selected");
        } else {
            field.clear().await.expect("cleared");
            field.send_keys(value).await.expect("typed");
        }
        browser.click("main form button").await;
    };
    set("ssh", "user", "voip.local").await;
    browser.reads(".told", |t| t.contains("Saved")).await;
    set("sorm", "digit_zero", "A").await;
    browser.reads(".told", |t| t.contains("Saved")).await;
    set("sorm", "cdpn_add_8", "").await;
    browser.reads(".told", |t| t.contains("Saved")).await;
    set("sorm", "timeout", "much").await;
    browser.reads(".told.error", |t| t.contains("0..86400")).await;
    set("radius", "secret", "2testing123").await;
    browser.reads(".told", |t| t.contains("waits for somebody else")).await;
    set("etsi", "country", "NZ").await;
    browser.reads(".told", |t| t.contains("Saved")).await;
    assert_eq!(row(&mediator, "mediator/sorm/info", "digit_zero")[1], "A");
    assert_eq!(row(&mediator, "mediator/sorm/info", "cdpn_add_8")[1], "true");
    // Not by who proposed it.
    browser.client.goto(&format!("{}/#changes", mediator.web)).await.expect("the page");
    browser.click("td button").await;
    browser.reads("main [role=status]", |t| t.contains("somebody else has to approve it")).await;
    mediator.ok("cocon/user/add second ecss-system-admin Second-77-person");
    assert_eq!(mediator.ssh_as("second", "Second-77-person", "mediator/approve 1", b"").status, 0);
    assert_eq!(row(&mediator, "mediator/radius/info", "secret")[1], "******");

    // A stream with nobody at its other end, then with somebody.
    let stream = connect_by_two(&mediator, 1, "Second-77-person");
    browser.client.goto(&format!("{}/#monitor", mediator.web)).await.expect("the page");
    let state = "td[data-counter=state][data-stream='1']";
    browser.reads(state, |t| t == "LOS").await;
    let dir = tempfile::tempdir().expect("a directory");
    let _point = ControlPoint::start(&["--stream", &stream], dir.path());
    browser.reads(state, |t| t == "WORK").await;
    browser.reads("td[data-counter='data channel 1'][data-stream='1']", |t| t == "up").await;
    browser.client.goto(&format!("{}/#network", mediator.web)).await.expect("the page");
    browser.reads("main table", |t| t.contains("mediator/stream/1")).await;
}
