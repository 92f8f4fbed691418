//! The packet layer of X.25 (ITU-T X.25, 3 to 5; ISO/IEC 8208) for one logical channel, modulo 8: a unit of any length goes as
//! packets of 128 octets joined by the M bit, at most a window of them without an acknowledgement.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use crate::lapb::Side;

/// How the two sides come to a logical channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Display, EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Circuit {
    /// It is always there.
    #[default]
    Pvc,
    /// The DTE calls, the DCE takes calls.
    Svc,
}

/// Octets of data in a packet.
const DATA: usize = 128;
/// Packets on their way.
const WINDOW: u8 = 2;
/// Largest unit taken.
const LONGEST: usize = 4096;
/// Units that wait at most.
const WAITING: usize = 256;
/// T20 to T23, and T10 to T13 of the DCE: how long a confirmation is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

mod kind {
    pub const CALL: u8 = 0x0B;
    pub const CALL_ACCEPTED: u8 = 0x0F;
    pub const CLEAR: u8 = 0x13;
    pub const CLEAR_CONFIRMED: u8 = 0x17;
    pub const RESET: u8 = 0x1B;
    pub const RESET_CONFIRMED: u8 = 0x1F;
    pub const INTERRUPT: u8 = 0x23;
    pub const INTERRUPT_CONFIRMED: u8 = 0x27;
    pub const RESTART: u8 = 0xFB;
    pub const RESTART_CONFIRMED: u8 = 0xFF;
    pub const RR: u8 = 0x01;
    pub const RNR: u8 = 0x05;
    pub const REJ: u8 = 0x09;
}

/// Diagnostic codes (X.25, annex E).
mod why {
    pub const NONE: u8 = 0;
    pub const PS: u8 = 1;
    pub const PR: u8 = 2;
    pub const TOO_LONG: u8 = 39;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// A packet for the link.
    Packet(Vec<u8>),
    /// Units can be sent; what was on its way before is lost.
    Open,
    Closed,
    Unit(Vec<u8>),
    /// The oldest unit that was sent has been taken by the other side.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no link.
    Down,
    Restarting,
    /// The channel is free; a call of the DTE is under way, or one is waited for.
    Calling,
    Clearing,
    Resetting,
    Open,
}

/// One side of a logical channel.
#[derive(Debug)]
pub struct X25 {
    side: Side,
    circuit: Circuit,
    channel: u16,
    state: State,
    ps: u8,
    pr: u8,
    /// The oldest packet without acknowledgement.
    pa: u8,
    /// Packets from `pa` on, each with whether it ends a unit.
    queue: VecDeque<(Vec<u8>, bool)>,
    peer_busy: bool,
    unit: Vec<u8>,
    timer: Option<Duration>,
}

impl X25 {
    /// A channel by its number, 1 to 4095.
    pub fn new(side: Side, circuit: Circuit, channel: u16) -> Self {
        Self {
            side,
            circuit,
            channel: channel.clamp(1, 0xFFF),
            state: State::Down,
            ps: 0,
            pr: 0,
            pa: 0,
            queue: VecDeque::new(),
            peer_busy: false,
            unit: Vec::new(),
            timer: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// When [`X25::poll`] wants to be called.
    pub fn deadline(&self) -> Option<Duration> {
        self.timer
    }

    fn packet(&self, channel: u16, rest: &[u8]) -> Out {
        let [high, low] = channel.to_be_bytes();
        // General format identifier: modulo 8.
        let mut packet = vec![0x10 | high & 0x0F, low];
        packet.extend(rest);
        Out::Packet(packet)
    }

    fn say(&self, rest: &[u8], out: &mut Vec<Out>) {
        out.push(self.packet(self.channel, rest));
    }

    fn go(&mut self, state: State, timer: Option<Duration>, out: &mut Vec<Out>) {
        if self.state == State::Open && state != State::Open {
            out.push(Out::Closed);
        }
        self.state = state;
        self.timer = timer;
        (self.ps, self.pr, self.pa, self.peer_busy) = (0, 0, 0, false);
        self.unit.clear();
        self.queue.clear();
        if state == State::Open {
            out.push(Out::Open);
        }
    }

    /// The link has come up, or anew.
    pub fn link_up(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.go(State::Restarting, Some(now + PATIENCE), out);
        out.push(self.packet(0, &[kind::RESTART, 0, 0]));
    }

    pub fn link_down(&mut self, out: &mut Vec<Out>) {
        self.go(State::Down, None, out);
    }

    /// Sends a unit; `false` where the channel is not open or too much waits.
    pub fn send(&mut self, unit: &[u8], out: &mut Vec<Out>) -> bool {
        if !self.is_open()
            || unit.is_empty()
            || self.queue.iter().filter(|(_, last)| *last).count() >= WAITING
        {
            return false;
        }
        let mut parts = unit.chunks(DATA).peekable();
        while let Some(part) = parts.next() {
            self.queue.push_back((part.to_vec(), parts.peek().is_none()));
        }
        self.push(out);
        true
    }

    fn under_way(&self) -> u8 {
        self.ps.wrapping_sub(self.pa) & 7
    }

    fn push(&mut self, out: &mut Vec<Out>) {
        while !self.peer_busy && self.under_way() < WINDOW {
            let Some((data, last)) = self.queue.get(usize::from(self.under_way())) else { break };
            let more = if *last { 0 } else { 0x10 };
            let mut rest = vec![self.pr << 5 | more | self.ps << 1];
            rest.extend(data);
            self.say(&rest, out);
            self.ps = (self.ps + 1) & 7;
        }
    }

    /// P(R) of the other side: `false` where it acknowledges what was never sent.
    fn acknowledge(&mut self, pr: u8, out: &mut Vec<Out>) -> bool {
        let count = pr.wrapping_sub(self.pa) & 7;
        if count > self.under_way() {
            return false;
        }
        let taken = self.queue.drain(..usize::from(count)).filter(|(_, last)| *last).count();
        out.extend((0..taken).map(|_| Out::Taken));
        self.pa = pr;
        true
    }

    fn reset(&mut self, diagnostic: u8, now: Duration, out: &mut Vec<Out>) {
        self.go(State::Resetting, Some(now + PATIENCE), out);
        self.say(&[kind::RESET, 0, diagnostic], out);
    }

    /// Behind a restart, or a call that was cleared.
    fn ready(&mut self, now: Duration, out: &mut Vec<Out>) {
        match (self.circuit, self.side) {
            (Circuit::Pvc, _) => self.go(State::Open, None, out),
            (Circuit::Svc, Side::Dce) => self.go(State::Calling, None, out),
            (Circuit::Svc, Side::Dte) => self.call(now, out),
        }
    }

    fn call(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.go(State::Calling, Some(now + PATIENCE), out);
        // Neither addresses nor facilities.
        self.say(&[kind::CALL, 0, 0], out);
    }

    /// Takes a packet from the link.
    pub fn receive(&mut self, packet: &[u8], now: Duration, out: &mut Vec<Out>) {
        let [first, low, code, rest @ ..] = packet else { return };
        if first & 0x30 != 0x10 || self.state == State::Down {
            return;
        }
        let channel = u16::from_be_bytes([first & 0x0F, *low]);
        match (channel, *code) {
            (0, kind::RESTART) => {
                // Two requests that meet confirm each other.
                if self.state != State::Restarting {
                    out.push(self.packet(0, &[kind::RESTART_CONFIRMED]));
                }
                return self.ready(now, out);
            }
            (0, kind::RESTART_CONFIRMED) if self.state == State::Restarting => return self.ready(now, out),
            (channel, _) if channel != self.channel => return,
            _ => {}
        }
        match (*code, self.state) {
            (_, State::Down | State::Restarting) => {}
            (kind::CALL, State::Calling) if self.circuit == Circuit::Svc && self.side == Side::Dce => {
                self.say(&[kind::CALL_ACCEPTED], out);
                self.go(State::Open, None, out);
            }
            (kind::CALL_ACCEPTED, State::Calling) if self.side == Side::Dte => {
                self.go(State::Open, None, out)
            }
            (kind::CLEAR, _) if self.circuit == Circuit::Svc => {
                self.say(&[kind::CLEAR_CONFIRMED], out);
                self.go(State::Calling, Some(now + PATIENCE), out);
            }
            (kind::CLEAR_CONFIRMED, State::Clearing) => self.ready(now, out),
            (kind::RESET, State::Open) => {
                self.say(&[kind::RESET_CONFIRMED], out);
                out.push(Out::Closed);
                self.state = State::Resetting;
                self.go(State::Open, None, out);
            }
            (kind::RESET | kind::RESET_CONFIRMED, State::Resetting) => self.go(State::Open, None, out),
            (kind::INTERRUPT, State::Open) => self.say(&[kind::INTERRUPT_CONFIRMED], out),
            (code, State::Open) => self.transfer(code, rest, now, out),
            _ => {}
        }
    }

    fn transfer(&mut self, code: u8, data: &[u8], now: Duration, out: &mut Vec<Out>) {
        let pr = code >> 5;
        if code & 1 == 0 {
            if !self.acknowledge(pr, out) {
                return self.reset(why::PR, now, out);
            }
            if code >> 1 & 7 != self.pr {
                return self.reset(why::PS, now, out);
            }
            self.pr = (self.pr + 1) & 7;
            if data.len() > DATA || self.unit.len() + data.len() > LONGEST {
                return self.reset(why::TOO_LONG, now, out);
            }
            self.unit.extend(data);
            if code & 0x10 == 0 {
                out.push(Out::Unit(std::mem::take(&mut self.unit)));
            }
            let before = out.len();
            self.push(out);
            if out.len() == before {
                self.say(&[self.pr << 5 | kind::RR], out);
            }
            return;
        }
        match code & 0x1F {
            kind::RR | kind::RNR => {
                self.peer_busy = code & 0x1F == kind::RNR;
                if !self.acknowledge(pr, out) {
                    return self.reset(why::PR, now, out);
                }
                self.push(out);
            }
            kind::REJ => {
                if !self.acknowledge(pr, out) {
                    return self.reset(why::PR, now, out);
                }
                self.ps = self.pa;
                self.push(out);
            }
            _ => {}
        }
    }

    /// Does what the time asks for.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Out>) {
        if self.timer.is_none_or(|at| now < at) {
            return;
        }
        match self.state {
            State::Restarting => self.link_up(now, out),
            State::Calling if self.side == Side::Dte => {
                // Nobody took the call; it is taken back, and tried anew.
                self.say(&[kind::CLEAR, 0, why::NONE], out);
                self.go(State::Clearing, Some(now + PATIENCE), out);
            }
            State::Clearing => self.ready(now, out),
            State::Resetting => self.reset(why::NONE, now, out),
            _ => self.timer = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    struct Pair {
        sides: [X25; 2],
        line: [VecDeque<Vec<u8>>; 2],
        units: [Vec<Vec<u8>>; 2],
        taken: [usize; 2],
    }

    impl Pair {
        fn new(circuit: Circuit) -> Self {
            let sides = [X25::new(Side::Dte, circuit, 1), X25::new(Side::Dce, circuit, 1)];
            let mut pair = Self { sides, line: Default::default(), units: Default::default(), taken: [0; 2] };
            for side in [0, 1] {
                let mut out = Vec::new();
                pair.sides[side].link_up(Duration::ZERO, &mut out);
                pair.take(side, out);
            }
            pair.carry();
            pair
        }

        fn take(&mut self, side: usize, out: Vec<Out>) {
            for out in out {
                match out {
                    Out::Packet(packet) => self.line[1 - side].push_back(packet),
                    Out::Unit(unit) => self.units[side].push(unit),
                    Out::Taken => self.taken[side] += 1,
                    Out::Open | Out::Closed => {}
                }
            }
        }

        fn carry(&mut self) {
            while self.line.iter().any(|l| !l.is_empty()) {
                for side in [0, 1] {
                    let Some(packet) = self.line[side].pop_front() else { continue };
                    let mut out = Vec::new();
                    self.sides[side].receive(&packet, NOW, &mut out);
                    self.take(side, out);
                }
            }
        }
    }

    #[test]
    fn packets_are_as_the_recommendation_has_them() {
        let mut out = Vec::new();
        let mut dte = X25::new(Side::Dte, Circuit::Svc, 1);
        dte.link_up(Duration::ZERO, &mut out);
        assert_eq!(out, [Out::Packet(vec![0x10, 0x00, 0xFB, 0, 0])]);
        out.clear();
        dte.receive(&[0x10, 0x00, 0xFF], NOW, &mut out);
        assert_eq!(out, [Out::Packet(vec![0x10, 0x01, 0x0B, 0, 0])], "a call");
        out.clear();
        dte.receive(&[0x10, 0x01, 0x0F], NOW, &mut out);
        assert_eq!(out, [Out::Open]);
        out.clear();
        assert!(dte.send(&[7; 130], &mut out));
        assert_eq!(out.len(), 2);
        assert!(
            matches!(&out[0], Out::Packet(p) if p[..3] == [0x10, 0x01, 0x10] && p.len() == 131),
            "with M"
        );
        assert_eq!(out[1], Out::Packet(vec![0x10, 0x01, 0x02, 7, 7]));
        out.clear();
        dte.receive(&[0x10, 0x01, 0x41], NOW, &mut out);
        assert_eq!(out, [Out::Taken], "RR with P(R) 2");
        out.clear();
        dte.receive(&[0x10, 0x01, 0xE1], NOW, &mut out);
        assert_eq!(
            out,
            [Out::Closed, Out::Packet(vec![0x10, 0x01, 0x1B, 0, 2])],
            "P(R) of what was never sent"
        );
        out.clear();
        dte.receive(&[0x10, 0x01, 0x1F], NOW, &mut out);
        assert_eq!(out, [Out::Open]);
    }

    #[test]
    fn a_call_that_nobody_takes_is_made_again() {
        let mut out = Vec::new();
        let mut dte = X25::new(Side::Dte, Circuit::Svc, 2);
        dte.link_up(Duration::ZERO, &mut out);
        dte.receive(&[0x10, 0x00, 0xFF], NOW, &mut out);
        let codes = |out: &[Out]| -> Vec<u8> {
            out.iter().filter_map(|o| if let Out::Packet(p) = o { Some(p[2]) } else { None }).collect()
        };
        dte.poll(NOW + PATIENCE, &mut out);
        dte.receive(&[0x10, 0x02, 0x17], NOW + PATIENCE, &mut out);
        assert_eq!(codes(&out), [0xFB, 0x0B, 0x13, 0x0B]);
        out.clear();
        // Cleared by the network, it calls again after a while.
        dte.receive(&[0x10, 0x02, 0x13, 0, 0], NOW + PATIENCE, &mut out);
        dte.poll(NOW + PATIENCE * 2, &mut out);
        dte.poll(NOW + PATIENCE * 3, &mut out);
        assert_eq!(codes(&out), [0x17, 0x13, 0x0B]);
    }

    proptest! {
        #[test]
        fn units_arrive_whole_and_are_acknowledged(
            svc in any::<bool>(), units in prop::collection::vec((0usize..2, prop::collection::vec(any::<u8>(), 1..700)), 0..20)
        ) {
            let mut pair = Pair::new(if svc { Circuit::Svc } else { Circuit::Pvc });
            let mut expected = [Vec::new(), Vec::new()];
            for (side, unit) in units {
                let mut out = Vec::new();
                prop_assert!(pair.sides[side].send(&unit, &mut out));
                pair.take(side, out);
                expected[1 - side].push(unit);
            }
            pair.carry();
            prop_assert_eq!(pair.taken, [expected[1].len(), expected[0].len()]);
            prop_assert_eq!(pair.units, expected);
        }

        #[test]
        fn any_packets_are_survived(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..60)) {
            let mut out = Vec::new();
            let mut side = X25::new(Side::Dce, Circuit::Pvc, 1);
            side.link_up(Duration::ZERO, &mut out);
            side.receive(&[0x10, 0, 0xFF], NOW, &mut out);
            for packet in packets {
                let mut packet = packet;
                if let Some(first) = packet.first_mut() {
                    *first = 0x10;
                }
                side.receive(&packet, NOW, &mut out);
                side.send(&[1], &mut out);
                prop_assert!(side.unit.len() <= LONGEST);
            }
        }
    }
}
