//! One end of a line: packets in, packets out, what its time slots carry, and how it is.

use std::time::Duration;

use serde::Serialize;
use strum::{Display, EnumString};

use crate::{
    Frame, IDLE, SLOTS,
    frame::{Deframer, Framer, Seen},
    hdlc::{self, Found, Wrong},
    lapb,
    packet::{FRAMES, Next, PAYLOAD, Packet, Sequence},
};

/// How a line is (manual, "Мониторинг потоков E1").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Display)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum State {
    /// Frames and multiframes are found.
    Work,
    /// Nothing comes.
    Los,
    /// It is switched off.
    #[default]
    Off,
    /// There is nothing it could be connected to.
    Absent,
    /// All ones come.
    Ais,
    /// No multiframes are found, or no frames.
    Lomf,
    /// The other side has an alarm.
    Rai,
}

/// What an end can be made to do, so that the other one's alarms can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString)]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Provoke {
    #[default]
    Work,
    /// It sends nothing.
    Los,
    /// All ones.
    Ais,
    /// It says that it has an alarm.
    Rai,
    /// Frames without multiframes.
    Lomf,
}

/// What a line has counted. A line over packets has neither pulses nor a clock of its own, so two of a real line's counters
/// mean what comes nearest: code violations are packets that were lost, late or no packets of a line; slips are
/// milliseconds that came more (positive) or less (negative) than went out, beyond the elastic store of 32 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Since they began.
    pub seconds: u64,
    pub positive_slips: u64,
    pub negative_slips: u64,
    /// Octets of frames in the data channels.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub short_packets: u64,
    pub big_packets: u64,
    /// Frames that could not wait any more.
    pub overflows: u64,
    /// Frames of the data channels whose check sequence was wrong.
    pub crc_errors: u64,
    /// Packets the network did not take.
    pub transmit_failures: u64,
    pub code_violations: u64,
    /// Half multiframes with a wrong CRC-4.
    pub crc4_errors: u64,
    /// Wrong bits in alignment signals.
    pub bit_errors: u64,
}

/// Data channels of a line.
pub const CHANNELS: usize = 2;

/// How a line is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Time slots of the first and the second data channel, where they are on this line.
    pub data: Option<[usize; CHANNELS]>,
}

/// Silence that is a loss of signal.
const SILENCE: Duration = Duration::from_millis(100);
/// Milliseconds the elastic store holds.
const STORE: i64 = 32;

struct Data {
    slot: usize,
    sender: hdlc::Sender,
    receiver: hdlc::Receiver,
}

/// One end.
pub struct Line {
    data: Vec<Data>,
    framer: Framer,
    deframer: Deframer,
    sequence: Sequence,
    /// Number of the next packet out.
    out: u16,
    heard: Option<Duration>,
    remote: bool,
    /// Milliseconds in less milliseconds out.
    store: i64,
    since: Duration,
    counters: Counters,
    pub provoke: Provoke,
}

impl Line {
    pub fn new(layout: Layout, now: Duration) -> Self {
        let data = layout.data.iter().flatten().map(|slot| Data {
            slot: *slot % SLOTS,
            sender: hdlc::Sender::default(),
            receiver: hdlc::Receiver::new(lapb::LONGEST),
        });
        Self {
            data: data.collect(),
            framer: Framer::default(),
            deframer: Deframer::default(),
            sequence: Sequence::default(),
            out: 0,
            heard: None,
            remote: false,
            store: 0,
            since: now,
            counters: Counters::default(),
            provoke: Provoke::default(),
        }
    }

    fn silent(&self, now: Duration) -> bool {
        self.heard.is_none_or(|at| now > at + SILENCE)
    }

    pub fn state(&self, now: Duration) -> State {
        let Seen { aligned, ais, lomf, rai } = self.deframer.seen();
        match (self.silent(now), ais, aligned && !lomf, rai || self.remote) {
            (true, ..) => State::Los,
            (_, true, ..) => State::Ais,
            (_, _, false, _) => State::Lomf,
            (.., true) => State::Rai,
            _ => State::Work,
        }
    }

    pub fn counters(&self, now: Duration) -> Counters {
        Counters {
            seconds: now.saturating_sub(self.since).as_secs(),
            code_violations: self.counters.code_violations + self.sequence.lost + self.sequence.late,
            crc4_errors: self.deframer.errors.crc,
            bit_errors: self.deframer.errors.bits,
            ..self.counters
        }
    }

    /// Counters begin anew.
    pub fn clear(&mut self, now: Duration) {
        self.counters = Counters::default();
        (self.sequence.lost, self.sequence.late) = (0, 0);
        self.deframer.errors = Default::default();
        self.since = now;
    }

    /// A packet could not be sent.
    pub fn failed(&mut self) {
        self.counters.transmit_failures += 1;
    }

    /// Queues a frame in a data channel.
    pub fn send(&mut self, channel: usize, frame: &[u8]) {
        let sent = self.data.get_mut(channel).is_some_and(|d| d.sender.send(frame));
        match sent {
            true => self.counters.bytes_sent += frame.len() as u64,
            false => self.counters.overflows += 1,
        }
    }

    /// Takes a packet: frames of data channels by their number, and each frame of the line.
    pub fn packet(
        &mut self,
        packet: &[u8],
        now: Duration,
        mut data: impl FnMut(usize, Vec<u8>),
        mut heard: impl FnMut(&Frame),
    ) {
        let Some(packet) = Packet::read(packet) else {
            self.counters.code_violations += 1;
            return;
        };
        if self.silent(now) {
            // A line that comes back begins anew.
            self.sequence.reset();
            self.deframer.lose();
            self.store = 0;
        }
        self.heard = Some(now);
        self.remote = packet.remote;
        let (channels, deframer, counters) = (&mut self.data, &mut self.deframer, &mut self.counters);
        let (store, framer) = (&mut self.store, &mut self.framer);
        self.sequence.take(packet, |next| {
            *store += 1;
            let bits = match next {
                Next::Bits(bits) => bits,
                Next::Lost => vec![0xFF; PAYLOAD],
            };
            framer.errors += deframer.octets(&bits, |frame| {
                for (number, channel) in channels.iter_mut().enumerate() {
                    channel.receiver.octet(frame[channel.slot], |found| match found {
                        Found::Frame(frame) => {
                            counters.bytes_received += frame.len() as u64;
                            data(number, frame);
                        }
                        Found::Wrong(Wrong::Short) => counters.short_packets += 1,
                        Found::Wrong(Wrong::Long) => counters.big_packets += 1,
                        Found::Wrong(Wrong::Check) => counters.crc_errors += 1,
                    });
                }
                heard(frame);
            });
        });
        if self.store > STORE {
            self.counters.positive_slips += 1;
            self.store = 0;
        }
    }

    /// The packet of the next millisecond; `speech` fills time slots that carry no data.
    pub fn tick(&mut self, now: Duration, mut speech: impl FnMut(usize) -> u8) -> Option<Vec<u8>> {
        let state = self.state(now);
        if state != State::Los {
            self.store -= 1;
            if self.store < -STORE {
                self.counters.negative_slips += 1;
                self.store = 0;
            }
        }
        self.framer.rai =
            self.provoke == Provoke::Rai || matches!(state, State::Los | State::Ais | State::Lomf);
        self.framer.no_multiframe = self.provoke == Provoke::Lomf;
        let mut bits = Vec::with_capacity(PAYLOAD);
        for _ in 0..FRAMES {
            let mut frame = [IDLE; SLOTS];
            for (slot, octet) in frame.iter_mut().enumerate().skip(1) {
                *octet = speech(slot);
            }
            for channel in &mut self.data {
                frame[channel.slot] = channel.sender.octet();
            }
            bits.extend(self.framer.frame(frame));
        }
        let sequence = self.out;
        self.out = self.out.wrapping_add(1);
        if self.provoke == Provoke::Ais {
            bits.fill(0xFF);
        }
        let packet = Packet { lost: false, remote: state == State::Los, sequence, bits };
        (self.provoke != Provoke::Los).then(|| packet.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Pair {
        now: Duration,
        ends: [Line; 2],
        frames: Vec<(usize, usize, Vec<u8>)>,
        heard: Vec<u8>,
    }

    impl Pair {
        fn new() -> Self {
            let end = || Line::new(Layout { data: Some([30, 31]) }, Duration::ZERO);
            Self { now: Duration::ZERO, ends: [end(), end()], frames: Vec::new(), heard: Vec::new() }
        }

        fn run(&mut self, millis: u32, mut change: impl FnMut(&mut Vec<u8>) -> bool) {
            for _ in 0..millis {
                self.now += MS;
                for from in [0, 1] {
                    let packet = self.ends[from].tick(self.now, |slot| slot as u8);
                    let Some(mut packet) = packet else { continue };
                    if !change(&mut packet) {
                        continue;
                    }
                    let (frames, heard) = (&mut self.frames, &mut self.heard);
                    self.ends[1 - from].packet(
                        &packet,
                        self.now,
                        |channel, frame| frames.push((1 - from, channel, frame)),
                        |frame| heard.push(frame[5]),
                    );
                }
            }
        }

        fn states(&self) -> [State; 2] {
            [self.ends[0].state(self.now), self.ends[1].state(self.now)]
        }
    }

    #[test]
    fn both_ends_find_each_other_and_carry_data_and_speech() {
        let mut pair = Pair::new();
        assert_eq!(pair.states(), [State::Los; 2]);
        pair.run(20, |_| true);
        assert_eq!(pair.states(), [State::Work; 2]);
        pair.ends[0].send(0, b"first");
        pair.ends[0].send(1, b"second");
        pair.ends[1].send(1, b"back");
        pair.run(20, |_| true);
        pair.frames.sort();
        let expected = [(0, 1, &b"back"[..]), (1, 0, b"first"), (1, 1, b"second")];
        assert_eq!(pair.frames, expected.map(|(end, channel, frame)| (end, channel, frame.to_vec())));
        assert!(!pair.heard.is_empty() && pair.heard.iter().all(|o| *o == 5));
        let counters = pair.ends[1].counters(pair.now);
        assert_eq!((counters.bytes_received, counters.bytes_sent), (11, 4));
    }

    #[test]
    fn every_alarm_can_be_provoked_and_goes() {
        let mut pair = Pair::new();
        for (provoke, seen, answer) in [
            (Provoke::Los, State::Los, State::Rai),
            (Provoke::Ais, State::Ais, State::Rai),
            (Provoke::Rai, State::Rai, State::Work),
            (Provoke::Lomf, State::Lomf, State::Rai),
        ] {
            pair.ends[0].provoke = Provoke::Work;
            pair.run(50, |_| true);
            assert_eq!(pair.states(), [State::Work; 2], "before {provoke}");
            pair.ends[0].provoke = provoke;
            pair.run(500, |_| true);
            assert_eq!(pair.states(), [answer, seen], "{provoke}");
        }
    }

    #[test]
    fn what_the_network_does_is_counted() {
        let mut pair = Pair::new();
        pair.run(50, |_| true);
        let mut n = 0;
        pair.run(100, |_| {
            n += 1;
            n != 40
        });
        pair.run(1, |p| {
            p.truncate(7);
            true
        });
        pair.run(5, |_| true);
        let counters: Vec<Counters> = pair.ends.iter().map(|e| e.counters(pair.now)).collect();
        // One that was lost; two that were cut, and are missing too.
        assert_eq!(counters.iter().map(|c| c.code_violations).sum::<u64>(), 5, "{counters:?}");
        pair.ends[0].failed();
        pair.ends[0].clear(pair.now);
        assert_eq!(pair.ends[0].counters(pair.now), Counters::default());
        // What is too much for the queue is counted, not kept.
        (0..100).for_each(|_| pair.ends[0].send(0, &[0; 100]));
        assert_eq!(pair.ends[0].counters(pair.now).overflows, 36);
    }
}
