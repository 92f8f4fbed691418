//! LAPB, the link layer of X.25 (ISO/IEC 7776, ITU-T X.25 2.2 to 2.4), modulo 8: frames in order, none lost, none twice.
//!
//! Both sides set the link up and hold it up for as long as they live. Where ISO/IEC 7776 lets a side answer a frame it
//! cannot take with FRMR or with setting the link up anew, this one does the latter.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

/// Which side of the line this is; it says the addresses of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Display, EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Side {
    /// The terminal's: its commands have address 1, the other side's 3.
    #[default]
    Dte,
    /// The network's: the other way round.
    Dce,
}

impl Side {
    /// Address of the commands it sends, and of those it gets.
    fn addresses(self) -> (u8, u8) {
        match self {
            Self::Dte => (0x01, 0x03),
            Self::Dce => (0x03, 0x01),
        }
    }
}

/// System parameters (X.25, 2.4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// T1: how long an answer is waited for.
    pub t1: Duration,
    /// N2: how often a frame is sent at most.
    pub n2: u8,
    /// k: I frames that may be on their way without an acknowledgement, 1 to 7.
    pub k: u8,
    /// A link that is silent for so long is asked whether it is there.
    pub idle: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { t1: Duration::from_secs(3), n2: 10, k: 7, idle: Duration::from_secs(10) }
    }
}

/// Longest frame, octets without check sequence: a packet of 128 octets of data, its header of three, and ours of two, with
/// room for call set-up.
pub const LONGEST: usize = 260;
/// Packets that wait for their turn at most.
const WAITING: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// A frame for the line, without check sequence.
    Frame(Vec<u8>),
    /// The link is there, or there anew: what was on its way before may be lost.
    Up,
    Down,
    /// A packet of the other side.
    Packet(Vec<u8>),
}

mod control {
    pub const SABM: u8 = 0x2F;
    pub const DISC: u8 = 0x43;
    pub const DM: u8 = 0x0F;
    pub const UA: u8 = 0x63;
    pub const FRMR: u8 = 0x87;
    pub const RR: u8 = 0x01;
    pub const RNR: u8 = 0x05;
    pub const REJ: u8 = 0x09;
    /// The poll or final bit.
    pub const PF: u8 = 0x10;
}
use control::{DISC, DM, FRMR, PF, REJ, RNR, RR, SABM, UA};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// SABM has been sent, so often.
    SetUp,
    Transfer,
}

/// One side of a link.
#[derive(Debug)]
pub struct Lapb {
    side: Side,
    parameters: Parameters,
    phase: Phase,
    /// N(S) of the next new frame, N(R) of what is expected, and the oldest frame without acknowledgement.
    vs: u8,
    vr: u8,
    va: u8,
    /// From `va` on: sent and not acknowledged, then those that wait.
    queue: VecDeque<Vec<u8>>,
    peer_busy: bool,
    /// REJ has been sent and not satisfied.
    rejected: bool,
    /// T1 ran out; nothing is sent until the other side says where it is.
    polling: bool,
    tries: u8,
    timer: Duration,
}

impl Lapb {
    /// A link that begins to set itself up.
    pub fn new(side: Side, parameters: Parameters, now: Duration, out: &mut Vec<Out>) -> Self {
        let mut link = Self {
            side,
            parameters: Parameters { k: parameters.k.clamp(1, 7), ..parameters },
            phase: Phase::SetUp,
            vs: 0,
            vr: 0,
            va: 0,
            queue: VecDeque::new(),
            peer_busy: false,
            rejected: false,
            polling: false,
            tries: 0,
            timer: now,
        };
        link.set_up(now, out);
        link
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Transfer
    }

    /// When [`Lapb::poll`] wants to be called.
    pub fn deadline(&self) -> Duration {
        self.timer
    }

    /// Sends a packet; `false` where the link is down or too much waits.
    pub fn send(&mut self, packet: Vec<u8>, now: Duration, out: &mut Vec<Out>) -> bool {
        if !self.is_up() || self.queue.len() >= WAITING {
            return false;
        }
        self.queue.push_back(packet);
        self.push(now, out);
        true
    }

    fn command(&self, control: u8) -> Out {
        Out::Frame(vec![self.side.addresses().0, control])
    }

    fn response(&self, control: u8) -> Out {
        Out::Frame(vec![self.side.addresses().1, control])
    }

    fn numbered(&self, control: u8) -> u8 {
        control | self.vr << 5
    }

    fn set_up(&mut self, now: Duration, out: &mut Vec<Out>) {
        if self.phase == Phase::Transfer {
            out.push(Out::Down);
        }
        self.phase = Phase::SetUp;
        self.queue.clear();
        self.timer = now + self.parameters.t1;
        out.push(self.command(SABM | PF));
    }

    fn established(&mut self, now: Duration, out: &mut Vec<Out>) {
        if self.phase == Phase::Transfer {
            out.push(Out::Down);
        }
        self.phase = Phase::Transfer;
        (self.vs, self.vr, self.va, self.tries) = (0, 0, 0, 0);
        (self.peer_busy, self.rejected, self.polling) = (false, false, false);
        self.queue.clear();
        self.timer = now + self.parameters.idle;
        out.push(Out::Up);
    }

    /// I frames on their way.
    fn under_way(&self) -> u8 {
        self.vs.wrapping_sub(self.va) & 7
    }

    /// Sends what the window has room for.
    fn push(&mut self, now: Duration, out: &mut Vec<Out>) {
        while !self.peer_busy && !self.polling && self.under_way() < self.parameters.k {
            let Some(packet) = self.queue.get(usize::from(self.under_way())) else { break };
            let mut frame = vec![self.side.addresses().0, self.vr << 5 | self.vs << 1];
            frame.extend(packet);
            out.push(Out::Frame(frame));
            if self.under_way() == 0 {
                self.timer = now + self.parameters.t1;
            }
            self.vs = (self.vs + 1) & 7;
        }
    }

    /// N(R) of the other side: `false` where it acknowledges what was never sent.
    fn acknowledge(&mut self, nr: u8, now: Duration) -> bool {
        let count = nr.wrapping_sub(self.va) & 7;
        if count > self.under_way() {
            return false;
        }
        if count > 0 {
            self.queue.drain(..usize::from(count));
            self.va = nr;
            self.tries = 0;
            let wait = if self.under_way() > 0 { self.parameters.t1 } else { self.parameters.idle };
            self.timer = now + wait;
        }
        true
    }

    /// Takes a frame from the line.
    pub fn receive(&mut self, frame: &[u8], now: Duration, out: &mut Vec<Out>) {
        let [address, control, packet @ ..] = frame else { return };
        let is_command = match *address {
            a if a == self.side.addresses().1 => true,
            a if a == self.side.addresses().0 => false,
            _ => return,
        };
        let pf = control & PF;
        match (control & !PF, is_command) {
            (SABM, true) => {
                out.push(self.response(UA | pf));
                self.established(now, out);
            }
            (DISC, true) => {
                let answer = if self.is_up() { UA } else { DM };
                out.push(self.response(answer | pf));
                if self.is_up() {
                    // The other side goes; it is called again in a while.
                    out.push(Out::Down);
                    self.phase = Phase::SetUp;
                    self.queue.clear();
                    self.timer = now + self.parameters.t1;
                }
            }
            (UA, false) if self.phase == Phase::SetUp => self.established(now, out),
            (DM, false) | (FRMR, false) if self.is_up() => self.set_up(now, out),
            _ if self.is_up() => self.transfer(*control, is_command, packet, now, out),
            // A command that wants an answer, from a side that believes the link is there.
            (_, true) if pf != 0 => out.push(self.response(DM | PF)),
            _ => {}
        }
    }

    fn transfer(&mut self, control: u8, is_command: bool, packet: &[u8], now: Duration, out: &mut Vec<Out>) {
        let (nr, pf) = (control >> 5, control & PF);
        let supervisory = control & 0x0F;
        let is_information = control & 1 == 0;
        let known = is_information && is_command || matches!(supervisory, RR | RNR | REJ);
        if !known {
            return;
        }
        if !self.acknowledge(nr, now) {
            return self.set_up(now, out);
        }
        if self.under_way() == 0 && !self.polling {
            self.timer = now + self.parameters.idle;
        }
        if is_information {
            let ns = control >> 1 & 7;
            if ns == self.vr {
                self.vr = (self.vr + 1) & 7;
                self.rejected = false;
                out.push(Out::Packet(packet.to_vec()));
            } else if !self.rejected {
                // A gap: what comes until it is filled is dropped.
                self.rejected = true;
                out.push(self.response(self.numbered(REJ | pf)));
                return self.push(now, out);
            }
            let before = out.len();
            if pf == 0 {
                self.push(now, out);
            }
            // Frames of ours carry the acknowledgement; without one it goes alone.
            if out.len() == before {
                out.push(self.response(self.numbered(RR | pf)));
                self.push(now, out);
            }
            return;
        }
        self.peer_busy = supervisory == RNR;
        let answers_poll = !is_command && pf != 0 && self.polling;
        if answers_poll {
            self.polling = false;
            self.tries = 0;
            self.timer = now + self.parameters.idle;
        }
        if supervisory == REJ || answers_poll {
            self.vs = self.va;
        }
        if is_command && pf != 0 {
            out.push(self.response(self.numbered(RR | PF)));
        }
        self.push(now, out);
    }

    /// Does what the time asks for.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Out>) {
        if now < self.timer {
            return;
        }
        if self.phase == Phase::SetUp {
            return self.set_up(now, out);
        }
        self.tries += 1;
        if self.tries > self.parameters.n2 {
            self.tries = 0;
            return self.set_up(now, out);
        }
        self.polling = true;
        self.timer = now + self.parameters.t1;
        out.push(self.command(self.numbered(RR | PF)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Two sides and the line between them, which loses what it is told to.
    struct Pair {
        now: Duration,
        sides: [Lapb; 2],
        /// Frames to each side.
        line: [VecDeque<Vec<u8>>; 2],
        got: [Vec<Vec<u8>>; 2],
        ups: [u32; 2],
    }

    impl Pair {
        fn new() -> Self {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            // The properties lose so much that it has to ask often.
            let p = Parameters { n2: 60, ..Parameters::default() };
            let sides = [
                Lapb::new(Side::Dte, p, Duration::ZERO, &mut a),
                Lapb::new(Side::Dce, p, Duration::ZERO, &mut b),
            ];
            let mut pair = Self {
                now: Duration::ZERO,
                sides,
                line: Default::default(),
                got: Default::default(),
                ups: [0; 2],
            };
            pair.take(0, a);
            pair.take(1, b);
            pair
        }

        fn take(&mut self, side: usize, out: Vec<Out>) {
            for out in out {
                match out {
                    Out::Frame(frame) => self.line[1 - side].push_back(frame),
                    Out::Packet(packet) => self.got[side].push(packet),
                    Out::Up => self.ups[side] += 1,
                    Out::Down => {}
                }
            }
        }

        fn send(&mut self, side: usize, packet: &[u8]) -> bool {
            let mut out = Vec::new();
            let sent = self.sides[side].send(packet.to_vec(), self.now, &mut out);
            self.take(side, out);
            sent
        }

        /// Lets the line carry everything; each frame is asked for.
        fn carry(&mut self, mut loses: impl FnMut() -> bool) {
            while self.line.iter().any(|l| !l.is_empty()) {
                for side in [0, 1] {
                    let Some(frame) = self.line[side].pop_front() else { continue };
                    if loses() {
                        continue;
                    }
                    let mut out = Vec::new();
                    self.sides[side].receive(&frame, self.now, &mut out);
                    self.take(side, out);
                }
            }
        }

        fn wait(&mut self) {
            self.now = self.sides[0].deadline().min(self.sides[1].deadline()).max(self.now) + MS;
            for side in [0, 1] {
                let mut out = Vec::new();
                self.sides[side].poll(self.now, &mut out);
                self.take(side, out);
            }
        }
    }

    #[test]
    fn frames_are_as_the_standard_has_them() {
        let mut out = Vec::new();
        let mut dte = Lapb::new(Side::Dte, Parameters::default(), Duration::ZERO, &mut out);
        assert_eq!(out, [Out::Frame(vec![0x01, 0x3F])], "SABM with P, address B");
        out.clear();
        dte.receive(&[0x01, 0x73], MS, &mut out);
        assert_eq!(out, [Out::Up], "UA with F, address B");
        out.clear();
        assert!(dte.send(vec![0x10, 0x00, 0xFB], MS, &mut out));
        assert_eq!(out, [Out::Frame(vec![0x01, 0x00, 0x10, 0x00, 0xFB])]);
        out.clear();
        dte.receive(&[0x03, 0x20, 0xAA], MS, &mut out);
        assert_eq!(out, [Out::Packet(vec![0xAA]), Out::Frame(vec![0x03, 0x21])], "RR, N(R) 1, address A");
        out.clear();
        dte.receive(&[0x03, 0x53], MS, &mut out);
        assert_eq!(out, [Out::Frame(vec![0x03, 0x73]), Out::Down]);
    }

    #[test]
    fn a_side_that_was_away_is_called_until_it_answers() {
        let mut pair = Pair::new();
        pair.line = Default::default();
        for _ in 0..5 {
            pair.wait();
            pair.carry(|| true);
        }
        pair.wait();
        pair.carry(|| false);
        assert!(pair.sides[0].is_up() && pair.sides[1].is_up());
        // One goes without a word: the other sees it, and sets up anew when it is back.
        let mut out = Vec::new();
        for _ in 0..100 {
            let now = pair.sides[0].deadline() + MS;
            pair.sides[0].poll(now, &mut out);
        }
        assert!(out.contains(&Out::Down), "{out:?}");
    }

    proptest! {
        #[test]
        fn packets_arrive_once_and_in_order_over_a_line_that_loses(
            sends in prop::collection::vec((0usize..2, 1u8..20), 1..20), losses in prop::collection::vec(any::<u8>(), 400)
        ) {
            let mut pair = Pair::new();
            pair.carry(|| false);
            let (ups, mut expected) = (pair.ups, [Vec::new(), Vec::new()]);
            let mut losses = losses.into_iter();
            let mut number = 0u32;
            for (side, count) in sends {
                for _ in 0..count {
                    number += 1;
                    let packet = number.to_be_bytes().to_vec();
                    prop_assert!(pair.send(side, &packet));
                    expected[1 - side].push(packet);
                }
                // A third is lost, until the losses have run out.
                pair.carry(|| losses.next().is_some_and(|l| l % 3 == 0));
                // Nobody is asked often enough to be given up.
                for _ in 0..4 {
                    pair.wait();
                    pair.carry(|| losses.next().is_some_and(|l| l % 3 == 0));
                }
            }
            for _ in 0..30 {
                pair.wait();
                pair.carry(|| losses.next().is_some_and(|_| false));
            }
            prop_assert_eq!(pair.ups, ups, "the link was never given up");
            prop_assert_eq!(pair.got, expected);
        }

        #[test]
        fn any_frames_are_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..60)) {
            let mut out = Vec::new();
            let mut link = Lapb::new(Side::Dce, Parameters::default(), Duration::ZERO, &mut out);
            for (at, frame) in frames.iter().enumerate() {
                let now = Duration::from_millis(at as u64 * 700);
                link.receive(frame, now, &mut out);
                link.send(vec![1], now, &mut out);
                link.poll(now, &mut out);
                prop_assert!(link.queue.len() <= WAITING && out.len() < 10_000);
            }
        }
    }
}
