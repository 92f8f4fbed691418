//! Frames of 256 bits and their alignment (ITU-T G.704, G.706): frame alignment signal, CRC-4 multiframe, remote alarm.

use crc::{Algorithm, Crc};

use crate::{Frame, SLOTS};

/// G.704, 2.3.3.5: x⁴ + x + 1, the first bit of the line first.
const CRC4: Crc<u8> = Crc::<u8>::new(&Algorithm {
    width: 4,
    poly: 0x3,
    init: 0,
    refin: false,
    refout: false,
    xorout: 0,
    check: 0,
    residue: 0,
});

/// Frame alignment signal, bits 2 to 8 of each second frame.
const FAS: u8 = 0x1B;
/// Bit 2 of the frames between.
const NOT_FAS: u8 = 0x40;
/// Bit 3 of those: the other side has an alarm.
const RAI: u8 = 0x20;
/// Bits 4 to 8 of those, unused.
const SPARE: u8 = 0x1F;
/// Bit 1 of the frames without signal: 0 0 1 0 1 1, then two that tell the other side of its errors.
const MULTIFRAME: u8 = 0b0010_1100;
/// Frames of a multiframe.
const MULTI: usize = 16;
/// Wrong signals in a row that lose the alignment (G.706, 4.1.1).
const WRONG: u8 = 3;
/// Frames in which a multiframe has to be found (G.706, 4.2): 400 ms.
const PATIENCE: u32 = 3200;
/// Equal alarm bits in a row that are believed.
const STEADY: u8 = 3;

/// Puts the signals of time slot 0 into frames.
#[derive(Debug, Default)]
pub struct Framer {
    /// Place in the multiframe.
    at: usize,
    /// Of the half multiframe before, and of this one so far.
    sent: u8,
    sum: Vec<u8>,
    /// The other side shall see an alarm.
    pub rai: bool,
    /// There shall be no multiframe, for tests of alarms.
    pub no_multiframe: bool,
    /// CRC errors of the other side's that it has to be told of.
    pub errors: u32,
}

impl Framer {
    /// Time slots 1 to 31 go out as they are.
    pub fn frame(&mut self, mut frame: Frame) -> Frame {
        let half = self.at % 8;
        if half == 0 {
            self.sent = CRC4.checksum(&self.sum);
            self.sum.clear();
        }
        let signal = match self.at % 2 {
            0 => FAS,
            _ => NOT_FAS | SPARE | if self.rai { RAI } else { 0 },
        };
        let first = match (self.no_multiframe, self.at) {
            (true, _) => true,
            (_, at) if at % 2 == 0 => self.sent >> (3 - half / 2) & 1 == 1,
            // E bits: 0 tells of an error.
            (_, 13 | 15) => {
                let wrong = self.errors > 0;
                self.errors = self.errors.saturating_sub(1);
                !wrong
            }
            (_, at) => MULTIFRAME >> (7 - at / 2) & 1 == 1,
        };
        // The sum takes its own bits as 0 (G.704, 2.3.3.5.2).
        frame[0] = if half.is_multiple_of(2) { signal } else { signal | u8::from(first) << 7 };
        self.sum.extend(frame);
        frame[0] = signal | u8::from(first) << 7;
        self.at = (self.at + 1) % MULTI;
        frame
    }
}

/// What stands in the bits of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Frames are found.
    pub aligned: bool,
    /// All ones.
    pub ais: bool,
    /// Frames without multiframes.
    pub lomf: bool,
    /// The other side has an alarm.
    pub rai: bool,
}

/// What went wrong so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Errors {
    /// Wrong bits in alignment signals.
    pub bits: u64,
    /// Half multiframes whose sum differs.
    pub crc: u64,
}

/// Finds frames in bits that need not begin where octets do.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Octets as they came; the first bit that was not used is `bit` of the first.
    held: Vec<u8>,
    bit: usize,
    aligned: bool,
    /// Whether the next frame has the signal.
    fas: bool,
    /// Wrong ones in a row, of frames without signal and with it.
    wrong: [u8; 2],
    multi: Multi,
    /// Alarm bits alike in a row.
    alike: u8,
    last_alarm: bool,
    seen: Seen,
    /// Zeros in a double frame, and octets of it.
    zeros: u32,
    octets: usize,
    /// Double frames of ones, or without, in a row.
    ones: u8,
    pub errors: Errors,
}

/// The search for multiframes, and their sums.
#[derive(Debug, Default)]
struct Multi {
    /// First bits of the last frames without signal, newest lowest.
    firsts: u8,
    /// Place of the next frame, where it is known.
    at: Option<usize>,
    /// Frames since a multiframe was seen.
    since: u32,
    sum: Vec<u8>,
    /// The sum of the half before, and what this half says of it.
    before: Option<u8>,
    said: u8,
}

impl Deframer {
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Nothing comes any more: what is found next begins anew.
    pub fn lose(&mut self) {
        *self = Self { errors: self.errors, ..Self::default() };
    }

    /// Takes octets of the line and gives the frames found in them; the answer is how many sums were wrong.
    pub fn octets(&mut self, octets: &[u8], mut found: impl FnMut(&Frame)) -> u32 {
        octets.iter().for_each(|o| self.watch_ones(*o));
        self.held.extend(octets);
        let before = self.errors.crc;
        loop {
            if !self.aligned && !self.search() {
                break;
            }
            let Some(frame) = self.take() else { break };
            if self.check(&frame) {
                found(&frame);
            }
        }
        let used = self.bit / 8;
        self.held.drain(..used.min(self.held.len()));
        self.bit %= 8;
        u32::try_from(self.errors.crc - before).unwrap_or(u32::MAX)
    }

    /// G.775, 5.2: two or fewer zeros in each of two double frames are AIS, three and more in each of two are none.
    fn watch_ones(&mut self, octet: u8) {
        self.zeros += octet.count_zeros();
        self.octets += 1;
        if self.octets < 2 * SLOTS {
            return;
        }
        let ones = std::mem::take(&mut self.zeros) <= 2;
        self.octets = 0;
        self.ones = if ones == self.seen.ais { 0 } else { self.ones + 1 };
        if self.ones >= 2 {
            self.seen.ais = ones;
            self.ones = 0;
        }
    }

    fn octet(&self, bit: usize) -> Option<u8> {
        let (first, next) = (self.held.get(bit / 8)?, self.held.get(bit / 8 + 1));
        match bit % 8 {
            0 => Some(*first),
            shift => Some(first << shift | next? >> (8 - shift)),
        }
    }

    /// Looks for the signal, none, and the signal again, a frame apart each.
    fn search(&mut self) -> bool {
        const BITS: usize = SLOTS * 8;
        while let Some(third) = self.octet(self.bit + 2 * BITS) {
            let at = |n: usize| self.octet(self.bit + n * BITS).unwrap_or(0);
            if third & 0x7F == FAS && at(0) & 0x7F == FAS && at(1) & NOT_FAS != 0 {
                (self.aligned, self.fas, self.wrong) = (true, true, [0; 2]);
                self.multi = Multi::default();
                self.seen = Seen { aligned: true, ais: false, lomf: false, rai: false };
                return true;
            }
            self.bit += 1;
        }
        false
    }

    fn take(&mut self) -> Option<Frame> {
        // Where bits are shifted, the last octet needs the one behind it.
        self.octet(self.bit + (SLOTS - 1) * 8)?;
        let mut frame = [0; SLOTS];
        for (slot, octet) in frame.iter_mut().enumerate() {
            *octet = self.octet(self.bit + slot * 8)?;
        }
        self.bit += SLOTS * 8;
        Some(frame)
    }

    /// `false` where the alignment is lost.
    fn check(&mut self, frame: &Frame) -> bool {
        let fas = self.fas;
        self.fas = !fas;
        let wrong_bits =
            if fas { ((frame[0] ^ FAS) & 0x7F).count_ones() } else { u32::from(frame[0] & NOT_FAS == 0) };
        self.errors.bits += u64::from(wrong_bits);
        let wrong = &mut self.wrong[usize::from(fas)];
        *wrong = if wrong_bits > 0 { *wrong + 1 } else { 0 };
        if *wrong >= WRONG {
            self.aligned = false;
            self.seen = Seen { ais: self.seen.ais, ..Seen::default() };
            return false;
        }
        if !fas {
            let alarm = frame[0] & RAI != 0;
            self.alike = if alarm == self.last_alarm { self.alike.saturating_add(1) } else { 1 };
            self.last_alarm = alarm;
            if self.alike >= STEADY {
                self.seen.rai = alarm;
            }
        }
        self.errors.crc += u64::from(self.multi.frame(frame, fas));
        self.seen.lomf = self.multi.since > PATIENCE;
        true
    }
}

impl Multi {
    /// Takes a frame; whether a half multiframe has ended whose sum was wrong.
    fn frame(&mut self, frame: &Frame, fas: bool) -> bool {
        self.since = self.since.saturating_add(1);
        let first = frame[0] >> 7;
        if !fas {
            self.firsts = self.firsts << 1 | first;
            // The six bits of the pattern have come with frame 11.
            if self.firsts & 0x3F == MULTIFRAME >> 2 && self.at.is_none_or(|at| at == 11 || self.since > 64) {
                if self.at != Some(11) {
                    (self.at, self.before) = (Some(11), None);
                    self.sum.clear();
                }
                self.since = 0;
            }
        }
        let Some(at) = self.at else { return false };
        let mut wrong = false;
        if at % 8 == 0 {
            let sum = CRC4.checksum(&self.sum);
            // A half that began before the search ended has no sum.
            self.before = (self.sum.len() == 8 * SLOTS).then_some(sum);
            self.sum.clear();
            self.said = 0;
        }
        if fas {
            self.said = self.said << 1 | first;
            if at % 8 == 6 {
                wrong = self.before.is_some_and(|sum| sum != self.said) && self.since < 64;
            }
        }
        let mut plain = *frame;
        if fas {
            plain[0] &= 0x7F;
        }
        self.sum.extend(plain);
        self.at = Some((at + 1) % MULTI);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn speech(n: usize) -> Frame {
        std::array::from_fn(|slot| (n * 31 + slot * 7) as u8)
    }

    fn sent(framer: &mut Framer, frames: usize) -> Vec<u8> {
        (0..frames).flat_map(|n| framer.frame(speech(n))).collect()
    }

    fn shifted(octets: &[u8], by: u32) -> Vec<u8> {
        let mut last = 0xFF;
        let shift = |o: &u8| (u16::from_be_bytes([std::mem::replace(&mut last, *o), *o]) >> by) as u8;
        octets.iter().map(shift).collect()
    }

    proptest! {
        #[test]
        fn frames_are_found_at_any_bit_and_whole(by in 0u32..8, noise in prop::collection::vec(any::<u8>(), 0..100), cut in 1usize..300) {
            let octets = [noise, sent(&mut Framer::default(), 200)].concat();
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            for part in shifted(&octets, by).chunks(cut) {
                prop_assert_eq!(deframer.octets(part, |f| got.push(*f)), 0);
            }
            prop_assert!(got.len() > 180, "{}", got.len());
            let last = 200 - if by == 0 { 1 } else { 2 };
            prop_assert_eq!(&got[got.len() - 1][1..], &speech(last)[1..]);
            prop_assert_eq!(deframer.seen(), Seen { aligned: true, ..Seen::default() });
            prop_assert_eq!(deframer.errors.crc, 0);
        }

        #[test]
        fn any_bits_are_survived(octets in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut deframer = Deframer::default();
            deframer.octets(&octets, |_| {});
            prop_assert!(deframer.held.len() <= 3 * SLOTS);
        }
    }

    #[test]
    fn alarms_are_what_the_line_says() {
        let (mut framer, mut deframer) = (Framer::default(), Deframer::default());
        deframer.octets(&sent(&mut framer, 100), |_| {});
        assert!(deframer.seen().aligned);
        framer.rai = true;
        deframer.octets(&sent(&mut framer, 20), |_| {});
        assert_eq!(deframer.seen(), Seen { aligned: true, rai: true, ..Seen::default() });
        framer.rai = false;
        deframer.octets(&sent(&mut framer, 20), |_| {});
        assert!(!deframer.seen().rai);
        framer.no_multiframe = true;
        deframer.octets(&sent(&mut framer, 3300), |_| {});
        assert_eq!(deframer.seen(), Seen { aligned: true, lomf: true, ..Seen::default() });
        framer.no_multiframe = false;
        deframer.octets(&sent(&mut framer, 64), |_| {});
        assert_eq!(deframer.seen(), Seen { aligned: true, ..Seen::default() });
        deframer.octets(&[0xFF; 64 * 4], |_| {});
        assert_eq!(deframer.seen(), Seen { ais: true, ..Seen::default() });
        deframer.octets(&sent(&mut framer, 20), |_| {});
        assert_eq!(deframer.seen(), Seen { aligned: true, ..Seen::default() });
    }

    #[test]
    fn bits_that_change_on_the_way_are_counted() {
        let (mut framer, mut deframer) = (Framer::default(), Deframer::default());
        let mut octets = sent(&mut framer, 160);
        // In a speech slot of the sixth multiframe.
        octets[90 * SLOTS + 5] ^= 0x10;
        assert_eq!(deframer.octets(&octets, |_| {}), 1);
        let mut octets = sent(&mut framer, 32);
        octets[2 * SLOTS] ^= 0x08;
        deframer.octets(&octets, |_| {});
        assert_eq!(deframer.errors.bits, 1);
        // Who is told of errors says so in its E bits, which are no part of the pattern.
        framer.errors = 5;
        deframer.octets(&sent(&mut framer, 160), |_| {});
        assert_eq!((framer.errors, deframer.seen().lomf), (0, false));
    }
}
