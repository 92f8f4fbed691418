//! The real process, with OpenSSH's client as its operator.

mod support;

use std::io::{Read, Write};

use support::Node;

#[test]
fn the_first_start_prints_a_password_that_opens_the_shell() {
    let node = Node::start();
    let list = node.ssh("domain/list", b"");
    assert_eq!(list.status, 0, "{list:?}");
    assert!(list.stdout.contains("elements: 0") && list.stdout.contains("nodes: ds1@ecss1]"), "{list:?}");
    let wrong = node.ssh_as("admin", "wrong password", "domain/list", b"");
    assert!(wrong.status == 255 && wrong.stderr.contains("Permission denied"), "{wrong:?}");
}

#[test]
fn commands_answer_with_text_json_and_exit_status() {
    let node = Node::start();
    assert_eq!(node.ssh("domain/declare voip.local", b"").status, 0);
    let json = node.ssh("domain/list --json", b"");
    let rows: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(rows[0]["domain"], "voip.local");
    let twice = node.ssh("domain/declare voip.local", b"");
    assert!(
        twice.status == 1 && twice.stderr.contains("Command error: domain voip.local exists already"),
        "{twice:?}"
    );
    assert_eq!(node.ssh("domain/lst", b"").status, 2);
    assert_eq!(node.ssh("domain/remove voip.local", b"").status, 4);
    assert_eq!(node.ssh("domain/remove voip.local --force", b"").status, 0);
}

#[test]
fn a_context_is_imported_from_standard_input_and_a_broken_one_changes_nothing() {
    let node = Node::start();
    node.ok("domain/declare d");
    let good = include_bytes!("../fixtures/order70/ctx_from_local.xml");
    let imported = node.ssh("domain/d/routing/import ecss1 -", good);
    assert!(imported.stdout.contains("Context ctx_from_local imported: 1 rules."), "{imported:?}");
    let broken = String::from_utf8_lossy(good).replace("8%", "8%8");
    let refused = node.ssh("domain/d/routing/import ecss1 -", broken.as_bytes());
    assert!(refused.status == 1 && refused.stderr.contains("% must stand at the end"), "{refused:?}");
    assert!(refused.stderr.contains("line ") && refused.stderr.contains("column "), "{refused:?}");
    let kept = node.ssh("domain/d/routing/export ctx_from_local", b"");
    assert!(kept.stdout.contains("8%\""), "{kept:?}");
    let outside = node.ssh("domain/d/routing/import ecss1 ../secret.key", b"");
    assert!(outside.status == 1 && outside.stderr.contains("below the import directory"), "{outside:?}");
}

#[test]
fn roles_and_keys_bound_what_an_operator_may_do() {
    let node = Node::start();
    node.ok("domain/declare mine");
    node.ok("domain/declare other");
    node.ok("cocon/user/add owner ecss-mine-domain-admin longpassword");
    let run = |line: &str| node.ssh_as("owner", "longpassword", line, b"");
    assert_eq!(run("domain/mine/np/declare city").status, 0);
    assert_eq!(run("domain/other/np/declare city").status, 2);
    assert_eq!(run("cocon/user/list").status, 3);
    let key = node.key();
    node.ok(&format!("cocon/user/key-add owner {key}"));
    let by_key = node.ssh_by_key("owner", "domain/mine/np/list");
    assert!(by_key.status == 0 && by_key.stdout.contains("city"), "{by_key:?}");
    assert_eq!(node.ssh_by_key("admin", "domain/list").status, 255, "the key is the owner's only");
}

#[test]
fn an_actor_is_restarted_in_order_and_none_is_stopped_for_good() {
    let node = Node::start();
    node.ok("domain/declare d");
    let pid = |actor: &str| -> (u64, u64) {
        let info: serde_json::Value =
            serde_json::from_str(&node.ok(&format!("node/actor/info {actor} --json"))).expect("JSON");
        (info["pid"].as_u64().expect("a number"), info["restarts"].as_u64().expect("a number"))
    };
    for actor in ["domain/d", "bridges"] {
        let (before, _) = pid(actor);
        node.ok(&format!("node/actor/restart {actor} --force"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while node.ssh(&format!("node/actor/info {actor}"), b"").status != 0 || pid(actor).0 == before {
            assert!(std::time::Instant::now() < deadline, "{actor} does not come back");
        }
    }
    let stopped = node.ssh("node/actor/stop domain/d --force", b"");
    assert!(stopped.status == 1 && stopped.stderr.contains("is a dynamic child"), "{stopped:?}");
    node.ok("node/actor/stop bridges --force");
    assert_eq!(node.ssh("node/actor/info bridges", b"").status, 1);
    node.ok("node/actor/start bridges");
    node.ok("bridge/list");
    assert!(node.ok("domain/list").contains("elements: 1"));
}

#[test]
fn the_shell_completes_remembers_and_asks() {
    let node = Node::start();
    node.ok("domain/declare voip.local");
    let mut shell = node.shell();
    let mut input = shell.stdin.take().expect("a pipe");
    // Tab completes the path; the arrow brings the line back; a dangerous command asks; exit ends it.
    input
        .write_all(b"dom\tl\t\r\x1b[A\rcd domain/voip.l\t\rbridge/cleanup\r/bridge/cleanup\rno\rexit\r")
        .expect("written");
    let mut seen = String::new();
    shell.stdout.take().expect("a pipe").read_to_string(&mut seen).expect("text");
    assert!(shell.wait().expect("it ends").success());
    assert_eq!(seen.matches("elements: 1").count(), 2, "{seen}");
    assert!(seen.contains("admin@[ds1@ecss1#EVALUATION]:/domain/voip.local$ "), "{seen}");
    assert!(seen.contains("[cleanup] You are going to cleanup all bridges in the system."), "{seen}");
    assert!(seen.contains("Are you sure?: yes/no ?>") && seen.contains("Nothing was done."), "{seen}");
}

#[test]
fn the_shell_remembers_over_sessions_and_obeys_changes_of_the_account_at_once() {
    let mut node = Node::start();
    node.ok("domain/declare a.local");
    node.ok("cocon/user/add oper ecss-system-admin Passw0rd-oper");
    let mut shell = node.shell_as("oper", "Passw0rd-oper");
    let mut input = shell.stdin.take().expect("a pipe");
    let mut output = std::io::BufReader::new(shell.stdout.take().expect("a pipe"));
    let mut until = |wanted: &str| {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let mut byte = [0];
            assert_eq!(
                output.read(&mut byte).expect("read"),
                1,
                "{wanted}: {}",
                String::from_utf8_lossy(&seen)
            );
            seen.push(byte[0]);
        }
    };
    input.write_all(b"domain/declare b.local\rcocon/user/password oper Passw0rd-two\r").expect("written");
    until("ok");
    node.ok("cocon/user/roles oper ecss-read-only");
    input.write_all(b"domain/declare c.local\r").expect("written");
    until("Command error");
    node.ok("cocon/user/remove oper --force");
    input.write_all(b"domain/list\r").expect("written");
    until("This account was removed.");
    assert!(shell.wait().expect("it ends").success());
    assert!(!node.ok("domain/list").contains("c.local"));

    node.restart_in_order();
    let kept = std::fs::read_to_string(node.data().join("history/oper")).expect("kept");
    assert_eq!(kept, "domain/declare b.local\ndomain/declare c.local\n", "no line with a secret");
}

#[test]
fn a_terminal_gets_long_answers_a_screen_at_a_time() {
    let node = Node::start();
    let seen = node.terminal(8, b"help\r", "-- more", b"qexit\r");
    assert!(seen.contains("-- more") && !seen.contains("node/tree"), "{seen}");
}

#[test]
fn kill_9_keeps_everything_that_was_acknowledged() {
    let mut node = Node::start();
    node.ok("domain/declare d");
    node.ok("domain/d/np/declare city");
    let mut declared = 0;
    for round in 0..4 {
        // Killed right after an acknowledgement, with a further command under way.
        for _ in 0..=round {
            node.ok(&format!("domain/d/np/numbers/add city 7383270{declared:04}"));
            declared += 1;
        }
        let mut under_way = node.spawn(&format!("domain/d/sip/user/declare ctx g 3{round:03}@d alias-as-user qop_authentication login-as-user password"));
        node.kill();
        let _ = under_way.kill();
        let _ = under_way.wait();
        node.restart();
        let numbers = node.ok("domain/d/np/numbers/list city");
        assert!(numbers.contains(&format!("elements: {declared}")), "round {round}: {numbers}");
        // A half-declared user would have an interface without its alias.
        let json = |line: &str| -> serde_json::Value { serde_json::from_str(&node.ok(line)).expect("JSON") };
        let users = json("domain/d/sip/user/list --json").as_array().map_or(0, Vec::len);
        let aliases = node.ok("domain/d/alias/list");
        assert!(aliases.contains(&format!("elements: {users}")), "round {round}: {aliases}");
    }
}

#[test]
fn sigterm_stops_in_order_and_a_second_node_is_refused() {
    let mut node = Node::start();
    let second = node.second();
    assert!(
        second.status == 2 && second.stderr.contains("another node runs with the data directory"),
        "{second:?}"
    );
    assert!(node.terminate().success());
}

#[test]
fn a_killed_actor_is_seen_restarting_with_its_state() {
    let node = Node::start();
    node.ok("domain/declare d");
    node.ok("domain/d/np/declare city");
    node.ok("node/actor/kill domain/d --force");
    let plans = loop {
        // Between death and rebirth the name is free.
        let plans = node.ssh("domain/d/np/list", b"");
        let info = node.ssh("node/actor/info domain/d --json", b"");
        if info.status == 0 && info.stdout.contains("\"restarts\": 1") {
            break plans;
        }
    };
    assert!(plans.stdout.contains("city"), "{plans:?}");
    assert!(node.ok("node/crash/list").contains("killed"));
    assert!(node.ok("journal/list --stream domain/d").contains("PlanDeclared"));
}
