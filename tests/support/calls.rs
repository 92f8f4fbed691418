//! An estate of SIP phones, and its calls as the node shows them.

use std::time::{Duration, Instant};

use super::{Node, phones::PATIENCE};

/// Media ports of this process's tests: each node has its own.
pub fn media_ports() -> String {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 20) as u16 * 2000 + NEXT.fetch_add(1, Relaxed) * 100;
    format!("[media]\nfirst_port = {first}\nlast_port = {}\n", first + 99)
}

pub fn estate() -> Node {
    estate_with("")
}

/// With more lines of `[sip]`.
pub fn estate_with(more: &str) -> Node {
    declared(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{more}{}", media_ports()))
}

/// With more lines of `[media]`.
pub fn estate_media(more: &str) -> Node {
    declared(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{}{more}", media_ports()))
}

fn declared(configuration: &str) -> Node {
    let node = Node::start_with(configuration, &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-5}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    node
}

pub fn calls(node: &Node) -> Vec<serde_json::Value> {
    node.rows("domain/voip.test/call/list")
}

pub fn cdrs(node: &Node) -> Vec<serde_json::Value> {
    node.rows("domain/voip.test/cdr/list")
}

/// What a call's legs and actors said to each other, now or in the past.
pub fn ladder(node: &Node, call: &serde_json::Value) -> String {
    node.ok(&format!("domain/voip.test/call/ladder {}", id(call)))
}

/// The last part of a call's name, by which commands know it.
pub fn id(call: &serde_json::Value) -> String {
    call.as_str().and_then(|c| c.rsplit('/').next()).expect("its identity").to_owned()
}

/// An operator ends the oldest call.
pub fn end(node: &Node) {
    node.ok(&format!("domain/voip.test/call/end {} --force", id(&calls(node)[0]["call"])));
    until("the call has ended", || calls(node).is_empty());
}

/// Until so many seconds of audio have come from each party of the only call that holds nobody, as the media plane tells.
pub fn talked(node: &Node, seconds: u64) {
    let all = |c: &serde_json::Value| {
        let legs = c["legs"].as_array().cloned().unwrap_or_default();
        legs.iter()
            .filter(|l| l["holds"] == false)
            .all(|l| l["quality"]["received"].as_u64().is_some_and(|r| r >= seconds * 50))
    };
    until("everybody has been heard", || {
        let calls = calls(node);
        calls.len() == 1 && all(&calls[0])
    });
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
