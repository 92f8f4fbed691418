//! Steady load. A program of its own, so that nothing else moves what it measures.

mod support;

use std::time::{Duration, Instant};

use support::{
    Node,
    phones::{self, Sipp},
};

#[test]
fn a_steady_load_leaves_nothing_behind() {
    let caller = phones::free_port();
    let callee = phones::free_port();
    let node = Node::start_with(
        "[sip]\nlisten = \"127.0.0.1:0\"\n[media]\nfirst_port = 60000\nlast_port = 61999\n",
        &[],
    );
    node.ok("domain/declare load");
    node.route_all("load", "<external><trunk value=\"out\"/></external>");
    for (name, port) in [("in", caller), ("out", callee)] {
        node.ok(&format!(
            "domain/load/trunk/sip/declare ctx g {name} set static 127.0.0.1 {port} sip-proxy 5060"
        ));
    }
    let at = node.sip();
    let load = |rate: u32, seconds: u32| {
        let callee = Sipp::built_in("uas", callee, at, &[]);
        let calls = (rate * seconds).to_string();
        Sipp::built_in(
            "uac",
            caller,
            at,
            &["-s", "4000", "-d", "1000", "-r", &rate.to_string(), "-m", &calls],
        )
        .ends();
        drop(callee);
    };
    let state = || {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let state = node.endpoint();
            // Neighbours that are silent now are still being asked how they are.
            let few = state["transactions"].as_u64().is_some_and(|t| t < 20);
            if few && state["legs"] == 0 && state["calls_watched"] == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "calls do not end: {state}");
            std::thread::sleep(Duration::from_millis(200));
        }
        (node.resident(), node.files(), node.ok("node/tree --json").matches("\"address\"").count())
    };
    // The peak makes the sockets that later calls take again.
    load(80, 15);
    load(40, 50);
    let first = state();
    load(40, 50);
    let second = state();
    // The question itself is a connection that may still be closing.
    assert!(second.1 <= first.1 + 4, "files: {} and then {}", first.1, second.1);
    assert_eq!(first.2, second.2, "actors");
    assert!(second.0 < first.0 + first.0 / 10 + 4_000_000, "memory: {} and then {}", first.0, second.0);
}
