//! Two agents talk over a network that loses what it likes, in virtual time.

use std::collections::VecDeque;

use bytes::Bytes;
use call::{Ladder, LegCommand, LegEvent, LegId, Outgoing, Party, Refer, Target};
use chrono::{DateTime, TimeDelta};
use kit::Address;
use proptest::prelude::*;

use super::*;

const LEG: LegId = LegId(1);
const SDP: &[u8] = b"v=0\r\n";

struct Net {
    start: Instant,
    at: Duration,
    /// The caller and the called.
    agents: [Agent; 2],
    way: VecDeque<(usize, Bytes)>,
    /// Whether the next datagrams are lost; afterwards none is.
    losses: VecDeque<bool>,
    heard: [Vec<String>; 2],
    events: [Vec<LegEvent>; 2],
    call: Address,
}

fn flow(of: usize) -> Flow {
    Flow::udp(([127, 0, 0, 1], 5060 + of as u16).into())
}

impl Net {
    fn new(losses: Vec<bool>) -> Self {
        let agent = |own: usize| {
            let ids = Identifiers::new(&[own as u8 + 77; 32]);
            Agent::new(ids, Box::new(move |_, _| flow(own).peer.to_string()))
        };
        Self {
            start: Instant::now(),
            at: Duration::ZERO,
            agents: [agent(0), agent(1)],
            way: VecDeque::new(),
            losses: losses.into(),
            heard: Default::default(),
            events: Default::default(),
            call: Address::new("domain/d/call/1").expect("a name"),
        }
    }

    fn now(&self) -> Now {
        let wall = DateTime::UNIX_EPOCH + TimeDelta::from_std(self.at).expect("short");
        Now { at: self.start + self.at, wall }
    }

    fn invite(&mut self) {
        let out = Outgoing {
            target: Target::Trunk { domain: "d".into(), trunk: "t".into(), last: true },
            from: Party { number: "100".into(), name: "A \"quoted\"".into(), ..Party::default() },
            to: Party { number: "101".into(), ..Party::default() },
            domain: "d".into(),
            sdp: Bytes::from_static(SDP),
            max_forwards: 70,
            history: vec![],
            uui: None,
        };
        let way = Way {
            flow: flow(1),
            uri: "sip:101@127.0.0.1:5061".into(),
            routes: vec![],
            trusted: true,
            follows: true,
            login: None,
            offers: Offers::default(),
            doubtful: false,
        };
        let (now, call) = (self.now(), self.call.clone());
        self.agents[0].call(now, LEG, &call, &Ladder::default(), &out, way);
        self.settle();
    }

    fn tell(&mut self, who: usize, command: LegCommand) {
        let (now, call) = (self.now(), self.call.clone());
        self.agents[who].command(now, LEG, &call, command);
        self.settle();
    }

    /// Carries datagrams until none is under way.
    fn settle(&mut self) {
        loop {
            let mut wishes = false;
            for who in 0..2 {
                for output in self.agents[who].outputs() {
                    wishes = true;
                    match output {
                        Output::Send(_, bytes) => {
                            if !self.losses.pop_front().unwrap_or(false) {
                                self.way.push_back((1 - who, bytes));
                            }
                        }
                        Output::Event { event, .. } => {
                            self.heard[who].push(<&'static str>::from(&event).to_owned());
                            let over = matches!(event, LegEvent::Released { .. });
                            self.events[who].push(event);
                            if over {
                                // As a call does, once it has kept the end.
                                let release = LegCommand::Release { cause: Cause::NORMAL, status: None };
                                let (now, call) = (self.now(), self.call.clone());
                                self.agents[who].command(now, LEG, &call, release);
                            }
                        }
                        Output::Request(id, message, from) => {
                            let now = self.now();
                            if message.method() == Some(&Method::Invite) {
                                let (ladder, follows) = (&Ladder::default(), false);
                                let adopted = Adopted { leg: LEG, ladder, follows };
                                self.agents[who].adopt(now, id, message, from, adopted);
                                self.agents[who].assign(LEG, &self.call);
                            } else {
                                self.agents[who].respond(now, id, &reply(&message, 404, Some("x")));
                            }
                        }
                        Output::Unproven(_, id, message, _) => {
                            let now = self.now();
                            self.agents[who].respond(now, id, &reply(&message, 403, None));
                        }
                        Output::Answer(..) => {}
                    }
                }
            }
            let Some((to, bytes)) = self.way.pop_front() else {
                match wishes {
                    true => continue,
                    false => return,
                }
            };
            let now = self.now();
            self.agents[to].receive(now, &bytes, flow(1 - to));
        }
    }

    /// Lets time pass.
    fn wait(&mut self, seconds: u64) {
        let until = self.at + Duration::from_secs(seconds);
        while let Some(next) = self.agents.iter().filter_map(Agent::deadline).min().map(|d| d - self.start) {
            if next > until {
                break;
            }
            self.at = next.max(self.at);
            let now = self.now();
            self.agents.iter_mut().for_each(|a| a.timeout(now));
            self.settle();
        }
        self.at = until;
    }

    fn answered(&mut self) {
        self.invite();
        self.wait(5);
        self.tell(1, LegCommand::Progress { status: 180, sdp: None });
        self.wait(1);
        self.tell(1, LegCommand::Answer { sdp: Bytes::from_static(SDP) });
        self.wait(10);
    }
}

fn sdp() -> Bytes {
    Bytes::from_static(SDP)
}

#[test]
fn a_call_is_set_up_changed_and_ended_by_either() {
    for ends in 0..2 {
        let mut net = Net::new(vec![]);
        net.answered();
        assert_eq!(net.heard[0], ["Progress", "Progress", "Answered"], "100, 180 and 200");
        assert_eq!(net.heard[1], ["Confirmed"]);
        net.tell(0, LegCommand::Offer { sdp: sdp() });
        assert_eq!(net.heard[1].last().map(String::as_str), Some("Offer"));
        net.tell(1, LegCommand::OfferAnswer(Ok(sdp())));
        net.wait(1);
        assert_eq!(net.heard[0].last().map(String::as_str), Some("OfferAnswered"));
        net.tell(ends, LegCommand::Release { cause: Cause::BUSY, status: None });
        net.wait(40);
        let told = net.events[1 - ends].last();
        assert!(
            matches!(told, Some(LegEvent::Released { cause: Cause::BUSY, .. })),
            "the cause travels: {told:?}"
        );
        assert_eq!([net.agents[0].sizes(), net.agents[1].sizes()], [(0, 0), (0, 0)]);
    }
}

#[test]
fn who_gives_up_cancels_and_who_refuses_says_why() {
    let mut net = Net::new(vec![]);
    net.invite();
    net.tell(1, LegCommand::Progress { status: 180, sdp: None });
    net.tell(0, LegCommand::Release { cause: Cause::NO_ANSWER, status: None });
    net.wait(40);
    assert_eq!(net.heard[1], ["Released"]);
    assert_eq!([net.agents[0].sizes(), net.agents[1].sizes()], [(0, 0), (0, 0)]);

    let mut net = Net::new(vec![]);
    net.invite();
    net.tell(1, LegCommand::Release { cause: Cause::BUSY, status: None });
    net.wait(40);
    let told = net.events[0].last();
    assert!(matches!(told, Some(LegEvent::Released { cause: Cause::BUSY, status: Some(486) })), "{told:?}");
    assert_eq!([net.agents[0].sizes(), net.agents[1].sizes()], [(0, 0), (0, 0)]);
}

#[test]
fn two_offers_at_once_are_told_apart() {
    let mut net = Net::new(vec![]);
    net.answered();
    // Both before either has arrived.
    let (now, call) = (net.now(), net.call.clone());
    for agent in &mut net.agents {
        agent.command(now, LEG, &call, LegCommand::Offer { sdp: sdp() });
    }
    net.settle();
    for events in &net.events {
        assert!(matches!(events.last(), Some(LegEvent::OfferAnswered(Err(491)))), "{events:?}");
    }
}

#[test]
fn a_session_is_refreshed_and_one_whose_peer_has_gone_ends() {
    let mut net = Net::new(vec![]);
    net.answered();
    net.wait(4 * 3600);
    assert_eq!(net.heard[0], ["Progress", "Progress", "Answered"], "half a day later it still stands");
    // The network goes.
    net.losses = std::iter::repeat_n(true, 10_000).collect();
    net.wait(2 * 3600);
    assert_eq!(net.heard[0].last().map(String::as_str), Some("Released"));
    assert_eq!(net.heard[1].last().map(String::as_str), Some("Released"));
    assert_eq!([net.agents[0].sizes(), net.agents[1].sizes()], [(0, 0), (0, 0)]);
}

#[test]
fn a_transfer_asked_for_is_accepted_and_told_of() {
    let mut net = Net::new(vec![]);
    net.answered();
    let now = net.now();
    let flow = flow(1);
    // The caller's leg asks as a phone would.
    let via = net.agents[0].via(flow);
    let leg = net.agents[0].legs.get_mut(&LEG).expect("a leg");
    let refer = leg.request(Method::Refer, via, None).with(Name::ReferTo, "<sip:102@d>");
    net.agents[0].transactions.request(now.at, refer, flow);
    net.agents[0].collect(now);
    net.settle();
    assert!(matches!(net.events[1].last(), Some(LegEvent::Refer(Refer::Number(n))) if n == "102"));
    net.tell(1, LegCommand::Transferred { status: 100 });
    net.tell(1, LegCommand::Transferred { status: 200 });
    net.wait(40);
    assert_eq!(net.agents[0].sizes().0, 1, "the dialog stands until somebody ends it");
}

/// An agent and a peer that is played by hand, message by message.
struct Bench {
    agent: Agent,
    now: Now,
    call: Address,
    sent: Vec<(Flow, Message)>,
    events: Vec<LegEvent>,
    unproven: Vec<(LegId, Id, Message, Flow)>,
}

const PEER: &str = "127.0.0.1:5061";

impl Bench {
    fn new() -> Self {
        Self {
            agent: Agent::new(Identifiers::new(&[9; 32]), Box::new(|_, _| "127.0.0.1:5060".into())),
            now: Now { at: Instant::now(), wall: DateTime::UNIX_EPOCH },
            call: Address::new("domain/d/call/1").expect("a name"),
            sent: vec![],
            events: vec![],
            unproven: vec![],
        }
    }

    fn from(peer: &str) -> Flow {
        Flow::udp(peer.parse().expect("an address"))
    }

    fn settle(&mut self) {
        loop {
            let outputs = self.agent.outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(flow, bytes) => {
                        self.sent.push((flow, Message::parse(&bytes).expect("ours")))
                    }
                    Output::Event { event, .. } => self.events.push(event),
                    Output::Request(id, message, flow) => {
                        let ladder = &Ladder::default();
                        let adopted = Adopted { leg: LEG, ladder, follows: false };
                        self.agent.adopt(self.now, id, message, flow, adopted);
                        self.agent.assign(LEG, &self.call);
                    }
                    Output::Unproven(leg, id, message, flow) => self.unproven.push((leg, id, *message, flow)),
                    Output::Answer(..) => {}
                }
            }
        }
    }

    fn get(&mut self, text: &str, peer: &str) {
        self.batch(&[text], peer);
    }

    /// Datagrams that come in before the agent's wishes are carried out.
    fn batch(&mut self, texts: &[&str], peer: &str) {
        for text in texts {
            let bytes = Bytes::from(text.replace('\n', "\r\n"));
            self.agent.receive(self.now, &bytes, Self::from(peer));
        }
        self.settle();
    }

    fn tell(&mut self, command: LegCommand) {
        self.agent.command(self.now, LEG, &self.call, command);
        self.settle();
    }

    fn wait(&mut self, seconds: u64) {
        let until = self.now.at + Duration::from_secs(seconds);
        while let Some(at) = self.agent.deadline().filter(|at| *at <= until) {
            self.now.at = at.max(self.now.at);
            self.agent.timeout(self.now);
            self.settle();
        }
        self.now.at = until;
    }

    /// The messages sent since the last look.
    fn lines(&mut self) -> Vec<String> {
        let line = |m: &Message| match (m.method(), m.code()) {
            (Some(method), _) => method.to_string(),
            (_, code) => code.unwrap_or(0).to_string(),
        };
        std::mem::take(&mut self.sent).iter().map(|(_, m)| line(m)).collect()
    }

    fn last(&self) -> &Message {
        &self.sent.last().expect("something was sent").1
    }

    /// The peer calls; `more` are further headers.
    fn called(&mut self, more: &str) {
        self.get(&incoming("INVITE", "z9hG4bKi", 1, None, more), PEER);
    }

    /// And is answered, and acknowledges.
    fn talks(&mut self, more: &str) -> String {
        self.called(more);
        self.tell(LegCommand::Answer { sdp: sdp() });
        let tag = self.last().tag(&Name::To).expect("a tag").to_owned();
        self.get(&incoming("ACK", "z9hG4bKa", 1, Some(&tag), ""), PEER);
        self.lines();
        tag
    }

    /// We call the peer.
    fn calls(&mut self) -> Message {
        self.calls_over(false)
    }

    /// Over a way whose dialog is followed, as to trunks, or not.
    fn calls_over(&mut self, follows: bool) -> Message {
        let out = Outgoing {
            target: Target::Trunk { domain: "d".into(), trunk: "t".into(), last: true },
            from: Party { number: "100".into(), ..Party::default() },
            to: Party { number: "101".into(), ..Party::default() },
            domain: "d".into(),
            sdp: sdp(),
            max_forwards: 70,
            history: vec![],
            uui: None,
        };
        let way = Way {
            flow: Self::from(PEER),
            uri: format!("sip:101@{PEER}"),
            routes: vec![],
            trusted: false,
            follows,
            login: None,
            offers: Offers::default(),
            doubtful: false,
        };
        let call = self.call.clone();
        self.agent.call(self.now, LEG, &call, &Ladder::default(), &out, way);
        self.settle();
        self.last().clone()
    }

    /// Answers a request of ours.
    fn answer(&mut self, request: &Message, code: u16, tag: &str, more: &[(Name, &str)], peer: &str) {
        let mut response = reply(request, code, Some(tag));
        response.push(Name::Contact, format!("<sip:101@{PEER}>"));
        more.iter().for_each(|(n, v)| response.push(n.clone(), *v));
        self.agent.receive(self.now, &response.to_bytes(), Self::from(peer));
        self.settle();
    }
}

fn incoming(method: &str, branch: &str, cseq: u32, tag: Option<&str>, more: &str) -> String {
    let tag = tag.map(|t| format!(";tag={t}")).unwrap_or_default();
    format!(
        "{method} sip:101@d SIP/2.0\nVia: SIP/2.0/UDP {PEER};branch={branch};rport\nFrom: <sip:100@d>;tag=peer\n\
         To: <sip:101@d>{tag}\nCall-ID: c\nCSeq: {cseq} {method}\nContact: <sip:100@{PEER}>\nMax-Forwards: 70\n\
         {more}Content-Length: 0\n\n"
    )
}

#[test]
fn a_response_from_another_host_connects_nothing() {
    let mut bench = Bench::new();
    let invite = bench.calls();
    // Even with the right branch, which cannot be guessed.
    bench.answer(&invite, 200, "thief", &[], "127.0.0.9:5061");
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    bench.answer(&invite, 200, "phone", &[], "127.0.0.1:40000");
    assert!(matches!(bench.events[..], [LegEvent::Answered { .. }]), "a NAT may choose another port");
}

#[test]
fn a_request_in_a_dialog_from_another_host_must_be_proven() {
    let mut bench = Bench::new();
    let tag = bench.talks("");
    for (n, method) in ["BYE", "INVITE", "UPDATE", "REFER", "INFO"].into_iter().enumerate() {
        let branch = format!("z9hG4bKx{n}");
        let more = "Refer-To: <sip:900@d>\n";
        bench.get(&incoming(method, &branch, 2, Some(&tag), more), "127.0.0.9:5061");
    }
    assert_eq!(bench.unproven.len(), 5);
    assert!(
        matches!(bench.events[..], [LegEvent::Confirmed { .. }]),
        "nothing has happened: {:?}",
        bench.events
    );
    let (leg, id, message, flow) = bench.unproven.remove(0);
    bench.agent.admit(bench.now, leg, id, message, flow);
    bench.settle();
    assert!(matches!(bench.events.last(), Some(LegEvent::Released { .. })), "one that has proven itself");
}

#[test]
fn an_invite_that_comes_by_two_ways_is_one_call() {
    let mut bench = Bench::new();
    bench.called("");
    bench.lines();
    bench.get(&incoming("INVITE", "z9hG4bKother", 1, None, ""), "127.0.0.8:5061");
    assert_eq!(bench.lines(), ["482"]);
    // Another call of the same phone, and one after the first is over.
    bench.tell(LegCommand::Release { cause: Cause::BUSY, status: None });
    assert_eq!(bench.lines(), ["486"]);
    bench.get(&incoming("INVITE", "z9hG4bKnext", 2, None, ""), PEER);
    assert_ne!(bench.lines(), ["482"]);
}

#[test]
fn a_contact_that_is_a_name_makes_nobody_a_peer() {
    for (contact, hosts, known) in [
        ("gw.example.test", "", false),
        ("gw.example.test", "127.0.0.9", true),
        ("127.0.0.9", "", true),
        ("127.0.0.8", "", false),
    ] {
        let mut bench = Bench::new();
        let invite = bench.calls_over(true);
        let nets = hosts.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        let owner = Owner::Trunk("d".into(), "t".into(), nets.into_iter().collect());
        bench.agent.belongs(LEG, owner);
        let answer =
            reply(&invite, 200, Some("peer")).with(Name::Contact, format!("<sip:gw@{contact}:5070>"));
        bench.agent.receive(bench.now, &answer.to_bytes(), Bench::from(PEER));
        bench.settle();
        let tag = invite.tag(&Name::From).expect("a tag").to_owned();
        let refer = incoming("REFER", "z9hG4bKx", 2, Some(&tag), "Refer-To: <sip:900@d>\n");
        let refer = refer.replace("Call-ID: c", &format!("Call-ID: {}", invite.call_id()));
        bench.get(&refer, "127.0.0.9:5061");
        assert_eq!(bench.unproven.is_empty(), known, "{contact} {hosts}");
    }
}

#[test]
fn a_bye_is_answered_when_the_call_has_kept_its_end_or_after_a_while() {
    for kept in [true, false] {
        let mut bench = Bench::new();
        let tag = bench.talks("");
        bench.get(&incoming("BYE", "z9hG4bKb", 2, Some(&tag), ""), PEER);
        assert_eq!(bench.lines(), [""; 0], "the end is not kept yet");
        assert!(matches!(bench.events.last(), Some(LegEvent::Released { .. })));
        match kept {
            true => bench.tell(LegCommand::Release { cause: Cause::NORMAL, status: None }),
            false => bench.wait(5),
        }
        assert_eq!(bench.lines(), ["200"]);
        assert_eq!(bench.agent.sizes().0, 0);
    }
}

#[test]
fn a_cancel_wins_over_its_invite_in_one_batch() {
    let mut bench = Bench::new();
    let invite = incoming("INVITE", "z9hG4bKi", 1, None, "");
    bench.batch(&[&invite, &incoming("CANCEL", "z9hG4bKi", 1, None, "")], PEER);
    assert_eq!(bench.lines(), ["200", "487"]);
    assert!(bench.events.is_empty() && bench.agent.sizes().0 == 0);
    // Another host cannot take the INVITE back.
    let mut bench = Bench::new();
    bench.called("");
    bench.get(&incoming("CANCEL", "z9hG4bKi", 1, None, ""), "127.0.0.9:5061");
    assert_eq!(bench.lines(), ["100", "481"]);
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_with_a_bye() {
    let mut bench = Bench::new();
    bench.called("");
    bench.tell(LegCommand::Answer { sdp: sdp() });
    bench.wait(33);
    assert_eq!(bench.lines().last().map(String::as_str), Some("BYE"));
    assert!(matches!(bench.events.last(), Some(LegEvent::Released { .. })));
}

#[test]
fn a_prack_that_crosses_the_answer_is_taken() {
    let mut bench = Bench::new();
    bench.called("Require: 100rel\n");
    bench.tell(LegCommand::Progress { status: 180, sdp: None });
    let tag = bench.last().tag(&Name::To).expect("a tag").to_owned();
    bench.tell(LegCommand::Answer { sdp: sdp() });
    bench.lines();
    bench.get(&incoming("PRACK", "z9hG4bKp", 2, Some(&tag), "RAck: 1 1 INVITE\n"), PEER);
    assert_eq!(bench.lines(), ["200"]);
    bench.get(&incoming("PRACK", "z9hG4bKq", 3, Some(&tag), "RAck: 7 1 INVITE\n"), PEER);
    assert_eq!(bench.lines(), ["481"], "of an answer that never was");
}

#[test]
fn an_answer_waits_for_the_prack_of_a_provisional_one_that_settled_the_session() {
    let mut bench = Bench::new();
    bench.called("Require: 100rel\n");
    bench.tell(LegCommand::Progress { status: 183, sdp: Some(sdp()) });
    let tag = bench.last().tag(&Name::To).expect("a tag").to_owned();
    bench.tell(LegCommand::Answer { sdp: sdp() });
    assert_eq!(bench.lines(), ["100", "183"]);
    bench.get(&incoming("PRACK", "z9hG4bKp", 2, Some(&tag), "RAck: 1 1 INVITE\n"), PEER);
    assert_eq!(bench.lines(), ["200", "200"], "of the PRACK, then of the INVITE");
    assert_eq!(bench.agent.sizes().0, 1);
}

#[test]
fn a_caller_without_an_offer_gets_ours_in_the_first_reliable_answer_and_answers_in_its_prack() {
    let mut bench = Bench::new();
    let invite = incoming("INVITE", "z9hG4bKi", 1, None, "Require: 100rel\n");
    bench.get(&invite, PEER);
    bench.tell(LegCommand::Progress { status: 180, sdp: Some(sdp()) });
    assert!(!bench.last().body.is_empty(), "our offer");
    let tag = bench.last().tag(&Name::To).expect("a tag").to_owned();
    // Another, and the answer, wait for it; neither offers again.
    bench.tell(LegCommand::Progress { status: 183, sdp: Some(sdp()) });
    bench.tell(LegCommand::Answer { sdp: sdp() });
    assert_eq!(bench.lines(), ["100", "180"]);
    let prack = incoming("PRACK", "z9hG4bKp", 2, Some(&tag), "RAck: 1 1 INVITE\n");
    let described = "Content-Type: application/sdp\nContent-Length: 5\n\nv=0\n";
    bench.get(&prack.replace("Content-Length: 0\n\n", described), PEER);
    assert!(bench.last().body.is_empty(), "the session is settled");
    assert_eq!(bench.lines(), ["200", "200"], "of the PRACK, then of the INVITE");
    assert!(
        bench.events.iter().any(|e| matches!(e, LegEvent::Confirmed { sdp: Some(_) })),
        "{:?}",
        bench.events
    );
    // A later INVITE of the dialog is answered with a session of its own.
    bench.get(&incoming("ACK", "z9hG4bKa", 1, Some(&tag), ""), PEER);
    let again = incoming("INVITE", "z9hG4bKj", 3, Some(&tag), "");
    bench.get(&again.replace("Content-Length: 0\n\n", described), PEER);
    bench.tell(LegCommand::OfferAnswer(Ok(sdp())));
    assert!(bench.last().code() == Some(200) && !bench.last().body.is_empty(), "{:?}", bench.last());
}

#[test]
fn a_proxy_that_routes_strictly_is_named_by_the_request_uri() {
    // (Record-Route of the answer, Request-URI and Route of what follows)
    let cases = [
        ("<sip:127.0.0.1:5080>", format!("sip:127.0.0.1:5080 | <sip:101@{PEER}>")),
        ("<sip:127.0.0.1:5080;lr>", format!("sip:101@{PEER} | <sip:127.0.0.1:5080;lr>")),
        ("<sip:127.0.0.1:5080;LR=on>", format!("sip:101@{PEER} | <sip:127.0.0.1:5080;LR=on>")),
        // Routes are the other way round in an answer; only the first proxy's own kind counts.
        (
            "<sip:b.test;lr>, \"x, y\" <sip:a@127.0.0.1:5080;maddr=127.0.0.1?Subject=x>;z",
            format!("sip:a@127.0.0.1:5080;maddr=127.0.0.1 | <sip:b.test;lr>, <sip:101@{PEER}>"),
        ),
        (
            "<sip:b.test>, <sip:127.0.0.1:5080;lr>",
            format!("sip:101@{PEER} | <sip:127.0.0.1:5080;lr>, <sip:b.test>"),
        ),
    ];
    for (recorded, expected) in cases {
        let mut bench = Bench::new();
        let invite = bench.calls();
        bench.answer(&invite, 200, "phone", &[(Name::RecordRoute, recorded)], PEER);
        bench.tell(LegCommand::Release { cause: Cause::NORMAL, status: None });
        let [.., (_, ack), (_, bye)] = &bench.sent[..] else { panic!("{:?}", bench.sent) };
        for (request, method) in [(ack, Method::Ack), (bye, Method::Bye)] {
            assert_eq!(request.method(), Some(&method));
            let routes = super::routes(request, &Name::Route).join(", ");
            assert_eq!(format!("{} | {routes}", request.uri()), expected, "{recorded}");
        }
    }
}

#[test]
fn a_phone_that_registers_from_another_port_is_reached_there_in_its_call() {
    let subscriber = || ("d".to_owned(), "100@d".to_owned());
    let (was, is) = (Bench::from(PEER), Bench::from("127.0.0.1:40000"));
    let contact = format!("sip:100@{PEER};transport=udp");
    // (whose leg it is, contact that registers, where it was, whether the leg follows)
    let cases = [
        (subscriber(), contact.as_str(), Some(was), true),
        (("d".to_owned(), "200@d".to_owned()), &contact, Some(was), false),
        (subscriber(), "sip:100@127.0.0.1:5099", Some(was), false),
        (subscriber(), &contact, Some(is), false),
        (subscriber(), &contact, None, false),
    ];
    for (owner, contact, before, follows) in cases {
        let mut bench = Bench::new();
        bench.talks("");
        bench.agent.belongs(LEG, Owner::Subscriber(owner.0.clone(), owner.1.clone()));
        bench.agent.rebound(&subscriber(), contact, before, is, |_| true);
        bench.tell(LegCommand::Release { cause: Cause::NORMAL, status: None });
        let (to, bye) = bench.sent.last().expect("a BYE");
        assert_eq!(bye.method(), Some(&Method::Bye));
        assert_eq!(*to == is, follows, "{owner:?} {contact} {before:?}");
    }
}

#[test]
fn a_whole_picture_is_asked_for_and_not_too_often() {
    let mut bench = Bench::new();
    let tag = bench.talks("");
    let info = |n: u32, word: &str| {
        let body = format!(
            "<media_control><vc_primitive><to_encoder><{word}/></to_encoder></vc_primitive></media_control>"
        );
        let more = "Content-Type: application/media_control+xml\n";
        let head = incoming("INFO", &format!("z9hG4bKm{n}"), n, Some(&tag), more);
        head.replace("Content-Length: 0\n\n", &format!("Content-Length: {}\n\n{body}", body.len()))
    };
    let wanted = |b: &Bench| b.events.iter().filter(|e| matches!(e, LegEvent::PictureWanted)).count();
    bench.get(&info(2, "picture_fast_update"), PEER);
    bench.get(&info(3, "picture_fast_update"), PEER);
    bench.get(&info(4, "something_else"), PEER);
    assert_eq!((bench.lines(), wanted(&bench)), (vec!["200".to_owned(); 3], 1));
    bench.wait(2);
    bench.get(&info(5, "picture_fast_update"), PEER);
    assert_eq!(wanted(&bench), 2);
    bench.lines();
    bench.tell(LegCommand::Picture);
    assert_eq!(bench.last().content_type().as_deref(), Some("application/media_control+xml"));
    assert!(bench.last().body.windows(22).any(|w| w == b"<picture_fast_update/>"));
}

#[test]
fn provisional_answers_come_one_after_the_other_and_each_waits_for_its_prack() {
    let mut bench = Bench::new();
    bench.called("Require: 100rel\n");
    bench.tell(LegCommand::Progress { status: 180, sdp: None });
    bench.tell(LegCommand::Progress { status: 183, sdp: Some(sdp()) });
    let tag = bench.last().tag(&Name::To).expect("a tag").to_owned();
    assert_eq!(bench.lines(), ["100", "180"], "the next one waits");
    let mut cseq = 1;
    for wrong in ["RAck: 1 2 INVITE\n", "RAck: 1 1 UPDATE\n", "RAck: 1\n", "RAck: 2 1 INVITE\n", ""] {
        let branch = format!("z9hG4bKw{}{}", wrong.len(), wrong.contains("UPDATE"));
        cseq += 1;
        bench.get(&incoming("PRACK", &branch, cseq, Some(&tag), wrong), PEER);
        assert_eq!(bench.lines(), ["481"], "{wrong:?} acknowledges nothing");
    }
    bench.get(&incoming("PRACK", "z9hG4bKp", 20, Some(&tag), "RAck: 1 1 INVITE\n"), PEER);
    let rseq = bench.last().header(&Name::RSeq).cloned();
    assert_eq!((bench.lines(), rseq.as_deref()), (vec!["200".to_owned(), "183".to_owned()], Some("2")));
}

#[test]
fn a_reliable_answer_is_acknowledged_once_and_in_its_order() {
    let mut bench = Bench::new();
    let invite = bench.calls();
    bench.lines();
    let mut rings = |rseq: &str, tag: &str| {
        bench.answer(&invite, 180, tag, &[(Name::Require, "100rel"), (Name::RSeq, rseq)], PEER);
        bench.lines()
    };
    assert_eq!(rings("9", "one"), ["PRACK"]);
    assert_eq!(rings("9", "one"), [""; 0], "a copy");
    assert_eq!(rings("11", "one"), [""; 0], "one is missing");
    assert_eq!(rings("40", "two"), ["PRACK"], "another phone behind a fork");
    assert_eq!(rings("10", "one"), ["PRACK"]);
    assert_eq!(rings("8", "one"), [""; 0]);
    assert_eq!(rings("", "one"), [""; 0]);
}

#[test]
fn extensions_that_a_request_insists_on_are_refused_in_a_dialog_too() {
    for method in ["INVITE", "UPDATE", "OPTIONS", "INFO", "REFER", "MESSAGE", "NOTIFY", "BYE"] {
        let mut bench = Bench::new();
        let tag = bench.talks("");
        let more = "Require: timer, foo-bar\nRequire: explicitsub\nRefer-To: <sip:900@d>\n";
        bench.get(&incoming(method, "z9hG4bKr", 2, Some(&tag), more), PEER);
        if method == "BYE" {
            assert!(matches!(bench.events.last(), Some(LegEvent::Released { .. })));
            continue;
        }
        let named = bench.last().header(&Name::Unsupported).cloned();
        assert_eq!((bench.lines(), named.as_deref()), (vec!["420".to_owned()], Some("foo-bar, explicitsub")));
    }
}

#[test]
fn a_stranger_that_has_seen_a_branch_takes_nothing_back_and_spoils_nothing() {
    let mut bench = Bench::new();
    let cancel = incoming("CANCEL", "z9hG4bKi", 1, None, "");
    // Before the INVITE: from a stranger, and from the caller itself.
    bench.get(&cancel, "127.0.0.9:5061");
    bench.get(&cancel, PEER);
    bench.called("");
    bench.get(&cancel, "127.0.0.9:5061");
    assert_eq!(bench.lines(), ["481", "481", "100", "481"]);
    bench.get(&cancel, PEER);
    assert_eq!(bench.lines(), ["200", "487"]);
}

#[test]
fn only_the_acknowledgement_of_this_answer_ends_its_copies() {
    let mut bench = Bench::new();
    bench.called("");
    bench.tell(LegCommand::Answer { sdp: sdp() });
    let tag = bench.last().tag(&Name::To).expect("a tag").to_owned();
    bench.lines();
    bench.get(&incoming("ACK", "z9hG4bKa", 2, Some(&tag), ""), PEER);
    assert!(bench.events.is_empty());
    bench.get(&incoming("ACK", "z9hG4bKb", 1, Some(&tag), ""), PEER);
    assert!(matches!(bench.events[..], [LegEvent::Confirmed { .. }]));
}

#[test]
fn offers_that_meet_ours_and_bodies_of_other_types_are_refused() {
    let with = |text: String, kind: &str| {
        let body = "v=0\n";
        let head = format!("Content-Type: {kind}\nContent-Length: {}\n\n{body}", body.len());
        text.replace("Content-Length: 0\n\n", &head)
    };
    for method in ["UPDATE", "INVITE"] {
        let mut bench = Bench::new();
        let tag = bench.talks("");
        bench.get(&with(incoming(method, "z9hG4bKt", 2, Some(&tag), ""), "text/plain"), PEER);
        assert_eq!(bench.lines(), ["415"], "{method}");
    }
    // A re-INVITE without an offer has ours in its 200, which waits for its answer.
    let mut bench = Bench::new();
    let tag = bench.talks("");
    bench.get(&incoming("INVITE", "z9hG4bKu", 2, Some(&tag), ""), PEER);
    bench.tell(LegCommand::OfferAnswer(Ok(sdp())));
    assert_eq!(bench.lines(), ["200"]);
    bench.get(&with(incoming("UPDATE", "z9hG4bKv", 3, Some(&tag), ""), "application/sdp"), PEER);
    assert_eq!(bench.lines(), ["491"]);
}

#[test]
fn a_transfer_has_one_target_which_is_called() {
    for (more, code) in [
        ("Refer-To: <sip:900@d>\nRefer-To: <sip:901@d>\n", "400"),
        ("Refer-To: <sip:900@d>, <sip:901@d>\n", "400"),
        ("Refer-To: <sip:900@d;method=BYE>\n", "501"),
        ("Refer-To: <sip:900@d;method=SUBSCRIBE>\n", "501"),
    ] {
        let mut bench = Bench::new();
        let tag = bench.talks("");
        bench.get(&incoming("REFER", "z9hG4bKr", 2, Some(&tag), more), PEER);
        assert_eq!(bench.lines(), [code], "{more}");
        assert!(!bench.events.iter().any(|e| matches!(e, LegEvent::Refer(_))));
    }
}

#[test]
fn sessions_are_refreshed_by_the_side_that_can() {
    // (headers of the caller, what our 2xx says)
    let cases = [
        ("Session-Expires: 90\n", Some("90;refresher=uas")),
        ("Session-Expires: 90;refresher=uac\n", Some("90;refresher=uas")),
        ("Supported: timer\nSession-Expires: 120\n", Some("120;refresher=uac")),
        ("Supported: timer\nSession-Expires: 120;refresher=uas\n", Some("120;refresher=uas")),
        ("Session-Expires: 20\n", None),
        ("Supported: timer\n", None),
    ];
    for (headers, said) in cases {
        let mut bench = Bench::new();
        bench.called(headers);
        bench.tell(LegCommand::Answer { sdp: sdp() });
        assert_eq!(bench.last().header(&Name::SessionExpires).map(|v| &**v), said, "{headers}");
    }
}

#[test]
fn a_session_that_is_too_short_is_refused_in_every_request() {
    let mut bench = Bench::new();
    let tag = bench.talks("");
    for (n, method) in ["INVITE", "UPDATE"].into_iter().enumerate() {
        let more = "Supported: timer\nSession-Expires: 60\n";
        bench.get(&incoming(method, &format!("z9hG4bKs{n}"), 2 + n as u32, Some(&tag), more), PEER);
        assert_eq!(bench.last().code(), Some(422), "{method}");
        assert_eq!(bench.last().header(&Name::MinSe).map(|v| &**v), Some("90"));
    }
}

#[test]
fn a_refused_refresh_is_tried_again_and_silence_ends_with_a_bye() {
    let mut bench = Bench::new();
    bench.talks("Session-Expires: 90\n");
    bench.wait(46);
    let refresh = bench.last().clone();
    assert_eq!(refresh.method(), Some(&Method::Invite));
    bench.lines();
    bench.answer(&refresh, 491, "x", &[], PEER);
    bench.wait(6);
    let lines = bench.lines();
    assert_eq!(lines.last().map(String::as_str), Some("INVITE"), "{lines:?}");
    // It is never answered: the session ends before its time, with a BYE.
    bench.wait(40);
    assert!(bench.lines().contains(&"BYE".to_owned()));
    assert!(matches!(bench.events.last(), Some(LegEvent::Released { .. })));
}

#[test]
fn a_session_that_the_callee_finds_too_short_is_offered_longer() {
    let mut bench = Bench::new();
    let invite = bench.calls();
    bench.answer(&invite, 422, "x", &[(Name::MinSe, "2000")], PEER);
    let again = bench.last().clone();
    assert_eq!((again.method(), again.cseq()), (Some(&Method::Invite), Some((2, "INVITE"))));
    assert_eq!(again.header(&Name::SessionExpires).map(|v| &**v), Some("2000"));
    assert_eq!(again.header(&Name::MinSe).map(|v| &**v), Some("2000"));
    bench.answer(&again, 422, "x", &[], PEER);
    assert!(
        matches!(bench.events.last(), Some(LegEvent::Released { status: Some(502), .. })),
        "{:?}",
        bench.events
    );
}

#[test]
fn another_phone_behind_a_fork_is_hung_up_the_way_its_answer_came() {
    let mut bench = Bench::new();
    let invite = bench.calls();
    bench.answer(&invite, 200, "one", &[], PEER);
    bench.lines();
    for _ in 0..3 {
        // The Contact names a third party.
        let mut response = reply(&invite, 200, Some("two"));
        response.push(Name::Contact, "<sip:x@10.9.9.9:9999>");
        bench.agent.receive(bench.now, &response.to_bytes(), Bench::from(PEER));
        bench.settle();
    }
    assert!(bench.sent.iter().all(|(flow, _)| *flow == Bench::from(PEER)), "no third party is sent to");
    assert_eq!(bench.lines(), ["ACK", "BYE", "ACK", "ACK"], "one BYE");
}

#[test]
fn replaces_needs_both_tags_of_a_dialog_that_may_be_replaced() {
    let mut bench = Bench::new();
    let invite = bench.calls();
    bench.answer(&invite, 180, "phone", &[], PEER);
    let (call_id, ours) = (invite.call_id(), invite.tag(&Name::From).expect("ours"));
    let replaced = |value: String| bench.agent.replaced(&value);
    let good = replaced(format!("{call_id};to-tag={ours};from-tag=phone"));
    assert_eq!(good, Ok(Replaced { leg: LEG, early: true }));
    assert_eq!(replaced(format!("{call_id}; From-Tag=phone ;early-only;to-tag={ours}")), good);
    for unknown in [
        format!("{call_id};to-tag={ours};from-tag=other"),
        format!("{call_id};to-tag=phone;from-tag={ours}"),
        format!("x;to-tag={ours};from-tag=phone"),
    ] {
        assert_eq!(replaced(unknown), Err(ReplacesError::Unknown));
    }
    for malformed in [
        format!("{call_id};to-tag={ours}"),
        format!("{call_id};to-tag={ours};from-tag=a;from-tag=phone"),
        call_id.to_owned(),
    ] {
        assert_eq!(replaced(malformed), Err(ReplacesError::Malformed));
    }
    bench.answer(&invite, 200, "phone", &[], PEER);
    let early = format!("{call_id};to-tag={ours};from-tag=phone;early-only");
    assert_eq!(bench.agent.replaced(&early), Err(ReplacesError::Answered));
}

proptest! {
    /// Datagrams are lost as it comes, and the parties do what they like: in the end both know that it is over, and nothing is
    /// kept of it.
    #[test]
    fn a_lossy_network_delays_but_keeps_nothing(
        losses in prop::collection::vec(any::<bool>(), 0..60),
        steps in prop::collection::vec((0usize..2, 0u8..7, 0u64..20), 0..12),
    ) {
        let mut net = Net::new(losses);
        net.invite();
        for (who, what, wait) in steps {
            match what {
                0 => net.tell(1, LegCommand::Progress { status: 183, sdp: Some(sdp()) }),
                1 => net.tell(1, LegCommand::Answer { sdp: sdp() }),
                2 => net.tell(who, LegCommand::Offer { sdp: sdp() }),
                3 => net.tell(who, LegCommand::OfferAnswer(Ok(sdp()))),
                4 => net.tell(who, LegCommand::OfferAnswer(Err(488))),
                5 => net.tell(who, LegCommand::Key { key: '5', millis: 100 }),
                _ => net.tell(who, LegCommand::Transferred { status: 200 }),
            }
            net.wait(wait);
        }
        net.wait(100);
        for who in 0..2 {
            net.tell(who, LegCommand::Release { cause: Cause::NORMAL, status: None });
            net.wait(40);
        }
        net.wait(4000);
        prop_assert_eq!([net.agents[0].sizes(), net.agents[1].sizes()], [(0, 0), (0, 0)]);
        prop_assert!(net.agents.iter().all(|a| a.purposes.is_empty() && a.invites.is_empty() && a.answered.is_empty() && a.by_call.is_empty()));
    }
}
