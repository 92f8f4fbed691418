//! HDLC frames in a 64 kbit/s time slot (ISO/IEC 13239): flags, zero insertion, frame check sequence of 16 bits. The bit that is
//! sent first is the first of its octet in a frame and the first of the time slot.

use std::collections::VecDeque;

use crc::{CRC_16_IBM_SDLC, Crc};

const FCS: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);
const FLAG: u8 = 0x7E;
/// Address, control and check sequence are the least a frame has.
const LEAST: usize = 4;
/// Frames that wait at most; further ones are refused.
const WAITING: usize = 64;

/// Makes octets for a time slot out of frames; between them it sends flags.
#[derive(Debug, Default)]
pub struct Sender {
    waiting: VecDeque<Vec<u8>>,
    /// What is being sent, and where it is.
    frame: Vec<u8>,
    bit: usize,
    /// Ones sent in a row.
    ones: u8,
    /// Bits that do not fill an octet yet, the first one highest.
    held: u32,
    count: u8,
}

impl Sender {
    /// Queues a frame without its check sequence; `false` where too many wait.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        let mut whole = frame.to_vec();
        whole.extend(FCS.checksum(frame).to_le_bytes());
        self.waiting.push_back(whole);
        true
    }

    /// The next octet of the slot.
    pub fn octet(&mut self) -> u8 {
        while self.count < 8 {
            self.advance();
        }
        self.count -= 8;
        let octet = self.held >> self.count & 0xFF;
        self.held &= (1 << self.count) - 1;
        octet as u8
    }

    fn push(&mut self, bit: bool) {
        self.held = self.held << 1 | u32::from(bit);
        self.count += 1;
    }

    fn flag(&mut self) {
        (0..8).for_each(|at| self.push(FLAG >> at & 1 == 1));
        self.ones = 0;
    }

    fn advance(&mut self) {
        match self.frame.get(self.bit / 8) {
            Some(octet) => {
                let one = octet >> (self.bit % 8) & 1 == 1;
                self.bit += 1;
                self.push(one);
                self.ones = if one { self.ones + 1 } else { 0 };
                if self.ones == 5 {
                    self.push(false);
                    self.ones = 0;
                }
            }
            // A flag ends a frame, begins the next, and fills what is between.
            None => {
                self.flag();
                self.frame = self.waiting.pop_front().unwrap_or_default();
                self.bit = 0;
            }
        }
    }
}

/// What a receiver has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Without its check sequence.
    Frame(Vec<u8>),
    Wrong(Wrong),
}

/// Why bits between flags are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Fewer octets than a frame has, or bits that fill no octet.
    Short,
    Long,
    /// The check sequence differs.
    Check,
}

/// Finds frames in the octets of a time slot.
#[derive(Debug)]
pub struct Receiver {
    longest: usize,
    /// Whether a flag has been seen and no abort since.
    inside: bool,
    ones: u8,
    frame: Vec<u8>,
    octet: u8,
    bits: u8,
    /// More came than a frame may have.
    long: bool,
}

impl Receiver {
    /// Takes frames of up to so many octets, without their check sequence.
    pub fn new(longest: usize) -> Self {
        let frame = Vec::with_capacity(longest + 2);
        Self { longest: longest + 2, inside: false, ones: 0, frame, octet: 0, bits: 0, long: false }
    }

    /// Takes an octet of the slot.
    pub fn octet(&mut self, octet: u8, mut found: impl FnMut(Found)) {
        for at in (0..8).rev() {
            if let Some(all) = self.bit(octet >> at & 1 == 1) {
                found(all);
            }
        }
    }

    fn bit(&mut self, one: bool) -> Option<Found> {
        if one {
            self.ones = self.ones.saturating_add(1);
            match self.ones {
                // Seven and more are an abort, or an idle line.
                7.. => self.inside = false,
                // Six may be a flag; its first bits are taken off when it is whole.
                _ => self.take(true),
            }
            return None;
        }
        match std::mem::take(&mut self.ones) {
            5 => None,
            6 => self.flag(),
            _ => {
                self.take(false);
                None
            }
        }
    }

    fn take(&mut self, one: bool) {
        if !self.inside || self.long {
            return;
        }
        self.octet = self.octet >> 1 | u8::from(one) << 7;
        self.bits += 1;
        if self.bits == 8 {
            self.frame.push(self.octet);
            self.bits = 0;
            // One octet more than may be: seven bits of the closing flag come before it is known.
            self.long = self.frame.len() > self.longest + 1;
        }
    }

    /// A flag: what came before it is a frame or none. Its own first seven bits have been taken.
    fn flag(&mut self) -> Option<Found> {
        let was_inside = std::mem::replace(&mut self.inside, true);
        let bits = self.frame.len() * 8 + usize::from(self.bits);
        let long = std::mem::take(&mut self.long);
        let mut frame = std::mem::take(&mut self.frame);
        (self.octet, self.bits) = (0, 0);
        // Flags that follow each other have nothing between them.
        let bits = bits.checked_sub(7).filter(|b| was_inside && *b > 0)?;
        if long || bits / 8 > self.longest {
            return Some(Found::Wrong(Wrong::Long));
        }
        if bits % 8 != 0 || bits / 8 < LEAST {
            return Some(Found::Wrong(Wrong::Short));
        }
        frame.truncate(bits / 8);
        let check = frame.split_off(frame.len() - 2);
        match FCS.checksum(&frame).to_le_bytes() == check[..] {
            true => Some(Found::Frame(frame)),
            false => Some(Found::Wrong(Wrong::Check)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn carry(octets: impl IntoIterator<Item = u8>) -> Vec<Found> {
        let (mut receiver, mut all) = (Receiver::new(260), Vec::new());
        octets.into_iter().for_each(|o| receiver.octet(o, |f| all.push(f)));
        all
    }

    fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut sender = Sender::default();
        frames.iter().for_each(|f| assert!(sender.send(f)));
        let most: usize = frames.iter().map(|f| (f.len() + 3) * 2 + 4).sum();
        (0..most + 4).map(|_| sender.octet()).collect()
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 2..260), 0..6), shift in 0u32..8
        ) {
            // A slot need not begin where a flag does.
            let mut last = 0;
            let octets = sent(&frames).into_iter().map(|o| {
                let both = u16::from_be_bytes([std::mem::replace(&mut last, o), o]);
                (both >> shift) as u8
            });
            let all: Vec<Found> = carry(octets).into_iter().filter(|f| matches!(f, Found::Frame(_))).collect();
            prop_assert_eq!(all, frames.into_iter().map(Found::Frame).collect::<Vec<_>>());
        }

        #[test]
        fn a_bit_that_is_wrong_is_seen(frame in prop::collection::vec(any::<u8>(), 2..40), at in any::<prop::sample::Index>()) {
            let mut octets = sent(std::slice::from_ref(&frame));
            let bits = 8 + frame.len() * 8;
            let at = 8 + at.index(bits - 8);
            octets[at / 8] ^= 0x80 >> (at % 8);
            prop_assert!(!carry(octets).contains(&Found::Frame(frame)));
        }

        #[test]
        fn any_bits_are_survived(octets in prop::collection::vec(any::<u8>(), 0..2000)) {
            for found in carry(octets) {
                if let Found::Frame(frame) = found {
                    prop_assert!((2..=260).contains(&frame.len()));
                }
            }
        }
    }

    #[test]
    fn mistakes_have_their_names() {
        // SABM of a DTE: address 1, control 3F; as X.25's check sequence has it.
        assert_eq!(FCS.checksum(&[0x01, 0x3F]).to_le_bytes(), [0xEB, 0xDF]);
        let good = sent(&[vec![1, 0x3F]]);
        assert_eq!(carry(good), [Found::Frame(vec![1, 0x3F])]);
        assert_eq!(carry(sent(&[vec![0; 300]])), [Found::Wrong(Wrong::Long)]);
        assert_eq!(carry(sent(&[vec![1]])), [Found::Wrong(Wrong::Short)]);
        let mut wrong = sent(&[vec![1, 0x3F, 0, 0, 0]]);
        wrong[4] ^= 1;
        assert_eq!(carry(wrong), [Found::Wrong(Wrong::Check)]);
        // An idle line of ones, and one of zeros.
        assert_eq!(carry([0xFF; 100]), []);
        assert_eq!(carry([0; 100]), []);
    }
}
