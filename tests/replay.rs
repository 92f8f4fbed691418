//! `hypha replay` as a user runs it.

mod support;

use std::process::Command;

fn replay(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_hypha")).arg("replay").args(args).output().expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text)
}

const SCRIPTS: [&str; 8] = [
    "scripts/multisorm.yaml",
    "scripts/trace.yaml",
    "scripts/crash.yaml",
    "scripts/calls.yaml",
    "scripts/crash-calls.yaml",
    "scripts/sorm-kinds.yaml",
    "scripts/sorm-refusals.yaml",
    "scripts/sorm-multi.yaml",
];

#[test]
fn every_script_passes_and_one_seed_gives_one_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = |name: &str, seed: &str| {
        let file = dir.path().join(name);
        let mut args = SCRIPTS.to_vec();
        args.extend(["--seed", seed, "--trace", file.to_str().expect("text")]);
        let (passed, text) = replay(&args);
        assert!(passed, "{text}");
        std::fs::read_to_string(file).expect("a trace")
    };
    let first = trace("first", "5");
    assert!(first.contains("outside -> domain/voip.local"), "messages are in the trace");
    assert_eq!(first, trace("second", "5"));
    assert_ne!(first, trace("third", "6"), "identities follow the seed");
}

#[test]
fn a_wrong_expectation_fails_with_a_readable_account() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("wrong.yaml");
    let text = "name: wrong\nsteps:\n  - cocon: domain/declare d\n  - cocon: domain/list\n    expect:\n      contains: [elements: 2]\n";
    std::fs::write(&script, text.replace("[elements: 2]", "[\"elements: 2\"]")).expect("written");
    let report = dir.path().join("report.html");
    let (passed, text) =
        replay(&[script.to_str().expect("text"), "--report", report.to_str().expect("text")]);
    assert!(!passed);
    for part in [
        "FAIL   2  cocon: domain/list",
        "\"elements: 2\" is not there",
        "elements: 1",
        "1 steps passed, 1 failed",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(std::fs::read_to_string(report).expect("a report").contains("class=\"fail\""));
}

#[test]
fn mistakes_in_a_script_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, hint) in [
        ("name: x\nsteps:\n  - cocn: domain/list\n", "unknown field `cocn`"),
        ("name: x\nsteps:\n  - cocon: a\n    crash: b\n", "step 1 wants exactly one of"),
        ("name: x\nsteps:\n  - wait: -1\n", "cannot be waited for"),
        ("name: x\nsteps:\n  - answer: a\n    wait: 1\n", "step 1 wants exactly one of"),
        ("name: x\nsteps:\n  - call: {phone: a}\n", "missing field `to`"),
        ("name: [\n", "line"),
    ] {
        let script = dir.path().join("bad.yaml");
        std::fs::write(&script, text).expect("written");
        let (passed, said) = replay(&[script.to_str().expect("text")]);
        assert!(!passed && said.contains(hint), "{hint:?} is missing: {said}");
    }
    let script = dir.path().join("phones.yaml");
    std::fs::write(&script, "name: x\nsteps:\n  - answer: nobody\n").expect("written");
    let (passed, said) = replay(&[script.to_str().expect("text")]);
    assert!(!passed && said.contains("there is no phone nobody: register or listen makes one"), "{said}");
    let (passed, said) = replay(&["no/such.yaml"]);
    assert!(!passed && said.contains("cannot read no/such.yaml"), "{said}");
}

#[test]
fn the_same_script_drives_a_running_node() {
    let node = support::Node::start();
    let out = Command::new(env!("CARGO_BIN_EXE_hypha"))
        .args(["replay", "scripts/multisorm.yaml", "scripts/crash.yaml", "scripts/calls.yaml"])
        .args(["--attach", &node.address.to_string()])
        .env("HYPHA_PASSWORD", &node.password)
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(node.ok("domain/list").contains("central_voip"));
    assert!(node.ok("node/crash/list").contains("domain/first"), "the script's crashes were real");
}

/// Mediators of a script are an SSH client and a RADIUS server at their own loopback addresses then.
#[test]
fn interception_is_played_against_a_running_node() {
    let (vendor, licence) = support::sorm::licence();
    for script in ["scripts/sorm-kinds.yaml", "scripts/sorm-refusals.yaml", "scripts/sorm-multi.yaml"] {
        let node = support::Node::start_with(&vendor, &[]);
        support::sorm::license(&node, &licence);
        let played = node.replay(script);
        assert!(played.status.success(), "{script}: {}", String::from_utf8_lossy(&played.stdout));
    }
}

/// Each refusal is provoked by a script, which says its code and its name.
#[test]
fn every_refusal_is_in_a_script() {
    use strum::IntoEnumIterator;
    let script = std::fs::read_to_string("scripts/sorm-refusals.yaml").expect("read");
    for refusal in sorm::protocol::Refusal::iter() {
        let said = format!("{:02x} {refusal}\"", refusal.code());
        assert!(script.contains(&said), "{said} is not in the script");
    }
}
