//! A station, a mediator and a control point, each a process of its own.

mod support;

use support::{
    calls::{calls, end, until},
    mediator::{ControlPoint, connect, mediator, row},
    phones::free_port,
    sorm::{estate, phone, verified},
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
    until("the mediator is logged in", || {
        row(&mediator, "mediator/state", "mediator/station")[1].contains("logged in")
    });

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
    let ports = [free_port(), free_port()];
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
    until("the mediator is logged in", || {
        row(&mediator, "mediator/state", "mediator/station")[1].contains("logged in")
    });
    point.done("start");
    // 79001758964 is a subscriber of ours to those who number so.
    point.done("put 7 own own 100 statistical");
    // Plain codes, then the extended ones.
    point.types("put 7 own own 100 statistical");
    assert!(point.says("1 done 05").pop().is_some_and(|l| l.contains(": 01")));
    mediator.ok("mediator/sorm/set extended_codes true");
    point.types("put 7 own own 100 statistical");
    assert!(point.says("1 done 05").pop().is_some_and(|l| l.contains(": 33")));
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
    let waiting =
        |mediator: &support::Node| row(mediator, "mediator/state", "waiting for data channel 2")[1].clone();
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
    let channels = |m: &support::Node| row(m, "mediator/state", "data channels")[1].clone();
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
