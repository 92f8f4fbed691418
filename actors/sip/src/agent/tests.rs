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
        let agent =
            |own: usize| Agent::new(own as u64 + 77, Box::new(move |_, _| flow(own).peer.to_string()));
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
            target: Target::Trunk { domain: "d".into(), trunk: "t".into() },
            from: Party { number: "100".into(), name: "A \"quoted\"".into(), restricted: false },
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
            login: None,
            offers: Offers::default(),
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
            for who in 0..2 {
                for output in self.agents[who].outputs() {
                    match output {
                        Output::Send(_, bytes) => {
                            if !self.losses.pop_front().unwrap_or(false) {
                                self.way.push_back((1 - who, bytes));
                            }
                        }
                        Output::Event { event, .. } => {
                            self.heard[who].push(<&'static str>::from(&event).to_owned());
                            self.events[who].push(event);
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
                        Output::Answer(..) => {}
                    }
                }
            }
            let Some((to, bytes)) = self.way.pop_front() else { return };
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
        assert_eq!(net.heard[0], ["Progress", "Answered"]);
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
    assert_eq!(net.heard[0], ["Progress", "Answered"], "half a day later it still stands");
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
    net.settle();
    assert!(matches!(net.events[1].last(), Some(LegEvent::Refer(Refer::Number(n))) if n == "102"));
    net.tell(1, LegCommand::Transferred { status: 100 });
    net.tell(1, LegCommand::Transferred { status: 200 });
    net.wait(40);
    assert_eq!(net.agents[0].sizes().0, 1, "the dialog stands until somebody ends it");
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
        prop_assert!(net.agents.iter().all(|a| a.purposes.is_empty() && a.invites.is_empty() && a.by_call.is_empty()));
    }
}
