//! Subscribers and administrators of one domain against the calls of another: a stranger that knows everything of a call but
//! its phones' passwords.

mod support;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use sip::{
    digest::Login,
    wire::message::{Message, Name},
};
use support::{Node, calls::calls};

/// Of every subscriber of a domain; names are the same in both.
fn password(domain: &str) -> &'static str {
    if domain == "voip.test" { "Geheim77" } else { "Boeses77" }
}

/// A phone of this test's own: what it says is written out here.
struct Phone {
    socket: UdpSocket,
    node: SocketAddr,
    user: &'static str,
    domain: &'static str,
}

/// A dialog as one of its parties has it.
#[derive(Clone)]
struct Dialog {
    call_id: String,
    from: String,
    to: String,
    target: String,
    number: u32,
}

impl Phone {
    fn at(ip: &str, node: SocketAddr, user: &'static str, domain: &'static str) -> Self {
        let ip: IpAddr = ip.parse().expect("an address");
        let socket = UdpSocket::bind((ip, 0)).expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        Self { socket, node, user, domain }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.node).expect("sent");
    }

    /// The next message that fits; others are passed by.
    fn hears(&self, fits: impl Fn(&Message) -> bool) -> Option<Message> {
        let mut buffer = [0; 65_535];
        loop {
            let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
            let message = Message::parse(&Bytes::copy_from_slice(&buffer[..length]));
            if let Some(message) = message.ok().filter(|m| fits(m)) {
                return Some(message);
            }
        }
    }

    /// A request, and again with its own password where it is asked for one; the final answer.
    fn asks(&self, method: &str, dialog: &Dialog, from: &str, more: &str, body: &str) -> Message {
        let mut proof = String::new();
        for turn in 0..2 {
            let (number, at) = (dialog.number + turn, self.address());
            let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            self.send(&format!(
                "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {at};rport;branch=z9hG4bK{number}{port}{method}\r\nFrom: {from}\r\nTo: {to}\r\n\
                 Call-ID: {id}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\nContact: <sip:{user}@{at}>\r\n{more}{proof}{content}\
                 Content-Length: {length}\r\n\r\n{body}",
                port = at.port(),
                target = dialog.target,
                to = dialog.to,
                id = dialog.call_id,
                user = self.user,
                length = body.len(),
            ));
            let cseq = format!("{number} {method}");
            let fits = |m: &Message| {
                m.code().is_some_and(|c| c >= 200) && m.header(&Name::CSeq).is_some_and(|c| **c == *cseq)
            };
            let answer = self.hears(fits).expect("an answer");
            if answer.code() != Some(401) || turn == 1 {
                return answer;
            }
            let login =
                Login { name: self.user.into(), password: kit::Secret::new(password(self.domain).into()) };
            let (_, value) = login.proof(&answer, method, &dialog.target, 7).expect("a challenge");
            proof = format!("Authorization: {value}\r\n");
        }
        unreachable!("two turns")
    }

    fn registers(&self) {
        let me = format!("<sip:{}@{}>", self.user, self.domain);
        let dialog = Dialog {
            call_id: format!("r{}", self.address().port()),
            from: format!("{me};tag=1"),
            to: me,
            target: format!("sip:{}", self.domain),
            number: 1,
        };
        let from = dialog.from.clone();
        assert_eq!(self.asks("REGISTER", &dialog, &from, "Expires: 600\r\n", "").code(), Some(200));
    }

    fn sdp(&self) -> String {
        let ip = self.address().ip();
        format!("v=0\r\no=x 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n")
    }

    /// An INVITE that is sent and not waited for.
    fn invites(&self, target: &str) -> Dialog {
        let me = format!("<sip:{}@{}>;tag=1", self.user, self.domain);
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (at, sdp) = (self.address(), self.sdp());
        let call_id = format!("c{}-{}", at.port(), NEXT.fetch_add(1, Relaxed));
        self.send(&format!(
            "INVITE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {at};rport;branch=z9hG4bK{call_id}\r\nFrom: {me}\r\nTo: <{target}>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:{user}@{at}>\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}",
            user = self.user,
            length = sdp.len(),
        ));
        Dialog { call_id, from: me, to: format!("<{target}>"), target: target.to_owned(), number: 1 }
    }

    /// Takes the next call.
    fn answers(&self) {
        let invite = self.hears(|m| m.method().is_some_and(|m| m.as_str() == "INVITE")).expect("it rings");
        let sdp = self.sdp();
        let copied: String =
            [("Via", Name::Via), ("From", Name::From), ("Call-ID", Name::CallId), ("CSeq", Name::CSeq)]
                .iter()
                .map(|(text, name)| format!("{text}: {}\r\n", invite.header(name).expect("it has one")))
                .collect();
        self.send(&format!(
            "SIP/2.0 200 OK\r\n{copied}To: {};tag=9\r\nContact: <sip:{}@{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            invite.header(&Name::To).expect("it has one"),
            self.user,
            self.address(),
            sdp.len(),
        ));
    }
}

fn estate() -> Node {
    let node = Node::start_with("[sip]\nlisten = \"0.0.0.0:0\"\n", &[]);
    for domain in ["voip.test", "evil.test"] {
        node.ok(&format!("domain/declare {domain}"));
        node.route_all(domain, "<local/>");
        node.ok(&format!("domain/{domain}/sip/user/declare ctx g 10{{0-3}}@{domain} alias-as-user no_authentication login-as-user x"));
        node.ok(&format!(
            "domain/{domain}/sip/user/declare ctx g 66{{0-1}}@{domain} alias-as-user qop_authentication login-as-user {}",
            password(domain)
        ));
    }
    node
}

fn node_at(node: &Node) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], node.sip().port()))
}

#[test]
fn a_call_is_changed_and_ended_by_its_own_parties_alone() {
    let node = estate();
    let at = node_at(&node);
    // (the caller, and what it is asked for when it has moved to another host)
    for (caller, moves) in [("100", false), ("660", true)] {
        let alice = Phone::at("127.0.0.1", at, caller, "voip.test");
        let bob = Phone::at("127.0.0.1", at, "101", "voip.test");
        bob.registers();
        // Phones with passwords register and call as others do, with their proof.
        let dialog = if moves {
            let me = format!("<sip:{caller}@voip.test>;tag=1");
            let target = "sip:101@voip.test".to_owned();
            let id = format!("c{}", alice.address().port());
            let dialog =
                Dialog { call_id: id, from: me.clone(), to: format!("<{target}>"), target, number: 1 };
            let rings = std::thread::spawn(move || bob.answers());
            let answer = alice.asks("INVITE", &dialog, &me, "", &alice.sdp());
            rings.join().expect("answered");
            established(&alice, dialog, &answer)
        } else {
            let dialog = alice.invites("sip:101@voip.test");
            bob.answers();
            let answer = alice.hears(|m| m.code() == Some(200)).expect("answered");
            established(&alice, dialog, &answer)
        };
        support::calls::until("talking", || calls(&node).iter().any(|c| c["state"] == "talking"));
        // Subscribers with good passwords, elsewhere, who know the call's names.
        for (user, domain) in [("660", "evil.test"), ("661", "voip.test"), ("100", "evil.test")] {
            let stranger = Phone::at("127.0.0.9", at, user, domain);
            for method in ["INVITE", "UPDATE", "INFO", "REFER", "BYE"] {
                let from = format!("<sip:{user}@{domain}>;tag=1");
                let body = if method == "INVITE" { stranger.sdp() } else { String::new() };
                let dialog = Dialog { number: 100, ..dialog.clone() };
                let answer =
                    stranger.asks(method, &dialog, &from, "Refer-To: <sip:102@voip.test>\r\n", &body);
                assert!(matches!(answer.code(), Some(401 | 403)), "{user}@{domain} {method}: {answer:?}");
            }
        }
        assert!(calls(&node).iter().any(|c| c["state"] == "talking"), "the call goes on");
        // The phone itself, from another host: only where it has a password to prove that.
        let moved = Phone::at("127.0.0.8", at, caller, "voip.test");
        let dialog = Dialog { number: 200, ..dialog };
        let answer = moved.asks("BYE", &dialog, &dialog.from, "", "");
        assert_eq!(answer.code(), Some(if moves { 200 } else { 403 }));
        if !moves {
            assert_eq!(alice.asks("BYE", &dialog, &dialog.from, "", "").code(), Some(200));
        }
        support::calls::until("the call has ended", || calls(&node).is_empty());
    }
}

/// The dialog that an answer has made, acknowledged.
fn established(phone: &Phone, dialog: Dialog, answer: &Message) -> Dialog {
    let contact = answer.address(&Name::Contact).expect("a contact").uri.to_owned();
    let to = answer.header(&Name::To).expect("it has one").to_string();
    let number = answer.cseq().expect("it has one").0;
    phone.send(&format!(
        "ACK {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {at};rport;branch=z9hG4bKa{port}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {number} ACK\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        dialog.from,
        dialog.call_id,
        at = phone.address(),
        port = phone.address().port(),
    ));
    Dialog { to, target: contact, ..dialog }
}

#[test]
fn a_trunk_to_an_address_where_phones_of_another_domain_live_takes_none_of_their_calls() {
    let node = estate();
    let at = node_at(&node);
    let phone = Phone::at("127.0.0.5", at, "100", "voip.test");
    let (right, wrong) =
        (Phone::at("127.0.0.1", at, "101", "voip.test"), Phone::at("127.0.0.1", at, "101", "evil.test"));
    [&phone, &right, &wrong].iter().for_each(|p| p.registers());
    node.ok(&format!(
        "domain/evil.test/trunk/sip/declare ctx g t set static 127.0.0.5 {} sip-proxy 5060",
        phone.address().port()
    ));
    // By name of the domain, by the node's address, and without any.
    for target in ["sip:101@voip.test".to_owned(), format!("sip:101@{at}"), "tel:101".to_owned()] {
        phone.invites(&target);
        let rings = |p: &Phone| p.hears(|m| m.method().is_some_and(|m| m.as_str() == "INVITE")).is_some();
        assert!(rings(&right), "{target}");
        wrong.socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        assert!(!rings(&wrong), "{target}");
    }
}
