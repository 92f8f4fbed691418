//! One data channel: units of any length over X.25 over LAPB, between whoever speaks and the frames of a time slot.

use std::time::Duration;

use crate::{
    lapb::{self, Lapb, Parameters, Side},
    x25::{self, Circuit, X25},
};

/// Which side, and how the other one is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    pub side: Side,
    pub circuit: Circuit,
    /// Number of the logical channel.
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// For the line.
    Frame(Vec<u8>),
    /// Units can be sent; what was on its way before is lost.
    Open,
    Closed,
    Unit(Vec<u8>),
    /// The oldest unit that was sent has arrived.
    Taken,
}

/// A link and its one logical channel.
#[derive(Debug)]
pub struct Channel {
    link: Lapb,
    packets: X25,
}

impl Channel {
    pub fn new(way: Way, now: Duration, out: &mut Vec<Out>) -> Self {
        let mut below = Vec::new();
        let link = Lapb::new(way.side, Parameters::default(), now, &mut below);
        let mut channel = Self { link, packets: X25::new(way.side, way.circuit, way.number) };
        channel.rise(below, now, out);
        channel
    }

    pub fn is_open(&self) -> bool {
        self.packets.is_open()
    }

    /// When [`Channel::poll`] wants to be called.
    pub fn deadline(&self) -> Duration {
        self.packets.deadline().map_or(self.link.deadline(), |at| at.min(self.link.deadline()))
    }

    /// What the link gave goes up to the packets, and what they say goes down.
    fn rise(&mut self, below: Vec<lapb::Out>, now: Duration, out: &mut Vec<Out>) {
        for event in below {
            let mut above = Vec::new();
            match event {
                lapb::Out::Frame(frame) => out.push(Out::Frame(frame)),
                lapb::Out::Up => self.packets.link_up(now, &mut above),
                lapb::Out::Down => self.packets.link_down(&mut above),
                lapb::Out::Packet(packet) => self.packets.receive(&packet, now, &mut above),
            }
            self.sink(above, now, out);
        }
    }

    fn sink(&mut self, above: Vec<x25::Out>, now: Duration, out: &mut Vec<Out>) {
        for event in above {
            match event {
                x25::Out::Packet(packet) => {
                    let mut below = Vec::new();
                    // One that finds no room is as one that was lost: the packet layer resets.
                    self.link.send(packet, now, &mut below);
                    self.rise(below, now, out);
                }
                x25::Out::Open => out.push(Out::Open),
                x25::Out::Closed => out.push(Out::Closed),
                x25::Out::Unit(unit) => out.push(Out::Unit(unit)),
                x25::Out::Taken => out.push(Out::Taken),
            }
        }
    }

    /// Takes a frame from the line.
    pub fn receive(&mut self, frame: &[u8], now: Duration, out: &mut Vec<Out>) {
        let mut below = Vec::new();
        self.link.receive(frame, now, &mut below);
        self.rise(below, now, out);
    }

    /// Sends a unit; `false` where the channel is not open or too much waits.
    pub fn send(&mut self, unit: &[u8], now: Duration, out: &mut Vec<Out>) -> bool {
        let mut above = Vec::new();
        let sent = self.packets.send(unit, &mut above);
        self.sink(above, now, out);
        sent
    }

    /// Does what the time asks for.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Out>) {
        let mut below = Vec::new();
        self.link.poll(now, &mut below);
        self.rise(below, now, out);
        let mut above = Vec::new();
        self.packets.poll(now, &mut above);
        self.sink(above, now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides, from silence to an answer, whichever begins.
    #[test]
    fn units_go_both_ways_over_either_circuit() {
        for circuit in [Circuit::Pvc, Circuit::Svc] {
            let way = |side| Way { side, circuit, number: 1 };
            let mut frames = [Vec::new(), Vec::new()];
            let now = Duration::from_millis(5);
            let mut sides = [
                Channel::new(way(Side::Dte), now, &mut frames[1]),
                Channel::new(way(Side::Dce), now, &mut frames[0]),
            ];
            let mut units = [Vec::new(), Vec::new()];
            let (mut taken, mut asked) = (0, false);
            while frames.iter().any(|f| !f.is_empty()) {
                for side in [0, 1] {
                    for event in std::mem::take(&mut frames[side]) {
                        let mut out = Vec::new();
                        match event {
                            Out::Frame(frame) => sides[side].receive(&frame, now, &mut out),
                            Out::Unit(unit) => units[1 - side].push(unit),
                            Out::Taken => taken += 1,
                            Out::Open | Out::Closed => {}
                        }
                        let (mine, others): (Vec<_>, Vec<_>) =
                            out.into_iter().partition(|o| !matches!(o, Out::Frame(_)));
                        frames[1 - side].extend(others);
                        for event in mine {
                            match event {
                                Out::Unit(unit) => units[side].push(unit),
                                Out::Taken => taken += 1,
                                _ => {}
                            }
                        }
                    }
                }
                if !asked && sides.iter().all(Channel::is_open) {
                    asked = true;
                    let [a, b] = &mut frames;
                    assert!(sides[0].send(&[1; 300], now, b) && sides[1].send(&[2; 20], now, a));
                }
            }
            assert_eq!(units, [vec![vec![2; 20]], vec![vec![1; 300]]], "{circuit}");
            assert_eq!(taken, 2, "{circuit}");
        }
    }
}
