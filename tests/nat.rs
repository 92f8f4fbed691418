//! Phones behind an address translation: network namespaces of the tests' own, a router between them and the node that gives
//! every connection another port. Needs root.

mod support;

use std::{net::SocketAddr, process::Command};

use support::{
    Node,
    calls::{calls, talked, until},
    phones::{self, SoftPhone},
};

/// A network of phones, a router, and this side of it; gone when it is dropped.
struct Nat {
    phones: String,
    router: String,
    /// Of the phones' network, and of the one between router and node.
    inside: String,
    outside: String,
}

fn run(words: &str) {
    let mut all = words.split_whitespace();
    let mut command = Command::new(all.next().expect("a program"));
    let done = command.args(all).output().expect("it runs; ops/test installs it");
    assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Nat {
    fn start() -> Self {
        let id = std::process::id();
        let (x, y) = (100 + id % 100, 1 + id / 100 % 100);
        let nat = Self {
            phones: format!("hp{id}"),
            router: format!("hr{id}"),
            inside: format!("10.{x}.{y}"),
            outside: format!("10.{x}.{}", y + 100),
        };
        let Self { phones, router, inside, outside } = &nat;
        for line in [
            format!("ip netns add {phones}"),
            format!("ip netns add {router}"),
            format!("ip link add hyi{id} netns {phones} type veth peer name hyj{id} netns {router}"),
            format!("ip link add hyo{id} type veth peer name hyw{id} netns {router}"),
            format!("ip -n {phones} addr add {inside}.2/24 dev hyi{id}"),
            format!("ip -n {router} addr add {inside}.1/24 dev hyj{id}"),
            format!("ip -n {router} addr add {outside}.2/24 dev hyw{id}"),
            format!("ip addr add {outside}.1/24 dev hyo{id}"),
            format!("ip -n {phones} link set hyi{id} up"),
            format!("ip -n {phones} link set lo up"),
            format!("ip -n {router} link set hyj{id} up"),
            format!("ip -n {router} link set hyw{id} up"),
            format!("ip link set hyo{id} up"),
            format!("ip -n {phones} route add default via {inside}.1"),
            format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"),
            format!("ip netns exec {router} nft add table ip nat"),
            format!(
                "ip netns exec {router} nft add chain ip nat out {{ type nat hook postrouting priority 100 ; }}"
            ),
            format!("ip netns exec {router} nft add rule ip nat out oifname hyw{id} masquerade random"),
        ] {
            run(&line);
        }
        nat
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        for name in [&self.phones, &self.router] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

#[test]
fn phones_behind_an_address_translation_register_call_and_hear_each_other() {
    let nat = Nat::start();
    let at = format!("{}.1", nat.outside);
    let media = support::calls::media_ports();
    let node = Node::start_with(&format!("[sip]\nlisten = \"{at}:0\"\n{media}address = \"{at}\"\n"), &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-5}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    let sip: SocketAddr = node.sip();
    let dir = tempfile::tempdir().expect("a directory");
    let inside = format!("{}.2", nat.inside);
    let phone = |user: &str, frequency: f32, more: &str| {
        let file = dir.path().join(format!("{user}.wav"));
        phones::tone(&file, frequency, 60);
        let place = (nat.phones.as_str(), inside.as_str());
        let phone = SoftPhone::within(place, sip, user, "Geheim77", more, &file);
        phone.says("200 OK");
        phone
    };
    let mut alice = phone("100", 500.0, ";audio_codecs=PCMA");
    let bob = phone("101", 800.0, ";answermode=auto;audio_codecs=PCMU");
    let registered = node.rows("domain/voip.test/sip/user/registered");
    assert!(
        registered.iter().all(|r| r.to_string().contains(&format!("{}.2", nat.outside))),
        "{registered:?}"
    );
    alice.types("/dial sip:101@voip.test");
    until("talking", || calls(&node).iter().any(|c| c["state"] == "talking"));
    talked(&node, 3);
    alice.types("/hangup");
    until("the call has ended", || calls(&node).is_empty());
    for (phone, frequency) in [(&alice, 800.0), (&bob, 500.0)] {
        let heard = phone.recordings().iter().any(|recording| {
            let heard = phones::heard(&phones::samples(recording), frequency);
            heard.windows(20).any(|w| w.iter().all(|h| *h))
        });
        assert!(heard, "{frequency} Hz is heard behind the router");
    }
}

/// A network that has IPv6 alone, and this side of it; gone when it is dropped.
struct Six(String);

impl Six {
    fn start() -> Self {
        let id = std::process::id();
        let phones = format!("hs{id}");
        let six = Self(phones.clone());
        for line in [
            format!("ip netns add {phones}"),
            format!("ip link add hyx{id} type veth peer name hyz{id} netns {phones}"),
            format!("ip -n {phones} addr add {}/64 dev hyz{id} nodad", six.at(2)),
            format!("ip addr add {}/64 dev hyx{id} nodad", six.at(1)),
            format!("ip -n {phones} link set hyz{id} up"),
            format!("ip -n {phones} link set lo up"),
            format!("ip link set hyx{id} up"),
        ] {
            run(&line);
        }
        six
    }

    fn at(&self, host: u8) -> String {
        format!("fd00:{:x}::{host}", std::process::id() % 0x10000)
    }
}

impl Drop for Six {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_phone_that_has_ipv6_alone_and_one_of_ipv4_hear_each_other() {
    let six = Six::start();
    let media = support::calls::media_ports();
    let more = format!("{media}second_address = \"{}\"\n[sip]\nlisten = \"[::]:0\"\n", six.at(1));
    let node = Node::start_with(&more, &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-5}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    let port = node.sip().port();
    let dir = tempfile::tempdir().expect("a directory");
    let says = |user: &str, frequency: f32| {
        let file = dir.path().join(format!("{user}.wav"));
        phones::tone(&file, frequency, 60);
        file
    };
    let four = SocketAddr::from(([127, 0, 0, 1], port));
    let more = ";answermode=auto;audio_codecs=PCMA";
    let mut alice = SoftPhone::baresip(four, "100", "udp", "Geheim77", more, Some(&says("100", 500.0)));
    let own = six.at(2);
    let at = SocketAddr::new(six.at(1).parse().expect("an address"), port);
    let mut bob = SoftPhone::within((&six.0, &own), at, "101", "Geheim77", more, &says("101", 800.0));
    for phone in [&alice, &bob] {
        phone.says("200 OK");
    }
    // Either family's phone is offered an address of its own.
    for (caller, number) in [(&mut alice, "101"), (&mut bob, "100")] {
        caller.types(&format!("/dial sip:{number}@voip.test"));
        until("talking", || calls(&node).iter().any(|c| c["state"] == "talking"));
        talked(&node, 3);
        caller.types("/hangup");
        until("the call has ended", || calls(&node).is_empty());
    }
    for (phone, frequency) in [(&alice, 800.0), (&bob, 500.0)] {
        let recordings = phone.recordings();
        let times = recordings.iter().filter(|recording| {
            let heard = phones::heard(&phones::samples(recording), frequency);
            heard.windows(20).any(|w| w.iter().all(|h| *h))
        });
        assert_eq!(times.count(), 2, "{frequency} Hz is heard in both calls");
    }
}
