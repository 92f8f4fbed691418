//! Packets of a line's bits: SAToP over UDP (RFC 4553), without RTP header, 256 octets (a millisecond) each.

use std::collections::BTreeMap;

use crate::SLOTS;

/// Frames in a packet.
pub const FRAMES: usize = 8;
/// Octets in a packet (RFC 4553, 3.3.1: what every implementation has for E1).
pub const PAYLOAD: usize = FRAMES * SLOTS;
const HEADER: usize = 4;
/// Octets of a packet on the wire.
pub const WHOLE: usize = HEADER + PAYLOAD;

/// The control word (RFC 4553, 4.3), and the bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// L: the sender's line is down; its bits mean nothing.
    pub lost: bool,
    /// R: the sender does not get our packets.
    pub remote: bool,
    pub sequence: u16,
    pub bits: Vec<u8>,
}

impl Packet {
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (header, bits) = packet.split_first_chunk::<HEADER>()?;
        let [first, second, high, low] = *header;
        // Neither a fragment nor a length: a whole packet has none.
        let plain = first & 0xF0 == 0 && second == 0;
        let lost = first & 0x08 != 0;
        (plain && (bits.len() == PAYLOAD || lost && bits.is_empty())).then(|| Self {
            lost,
            remote: first & 0x04 != 0,
            sequence: u16::from_be_bytes([high, low]),
            bits: bits.to_vec(),
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let [high, low] = self.sequence.to_be_bytes();
        let mut out = vec![u8::from(self.lost) << 3 | u8::from(self.remote) << 2, 0, high, low];
        out.extend(&self.bits);
        out
    }
}

/// Packets that wait for one before them.
const AHEAD: usize = 4;
/// Further away than this, the other side has begun anew.
const FAR: u16 = 1000;

/// What comes out of the sequence.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Bits(Vec<u8>),
    /// All ones stand for what was lost (RFC 4553, 6.2.2).
    Lost,
}

/// Brings packets into order.
#[derive(Debug, Default)]
pub struct Sequence {
    next: Option<u16>,
    ahead: BTreeMap<u16, Packet>,
    /// Packets that came too late or twice.
    pub late: u64,
    pub lost: u64,
}

impl Sequence {
    pub fn reset(&mut self) {
        self.next = None;
        self.ahead.clear();
    }

    pub fn take(&mut self, packet: Packet, mut out: impl FnMut(Next)) {
        let next = *self.next.get_or_insert(packet.sequence);
        let distance = packet.sequence.wrapping_sub(next);
        match distance {
            0..FAR => drop(self.ahead.insert(packet.sequence, packet)),
            _ if distance > u16::MAX - FAR => {
                self.late += 1;
                return;
            }
            _ => {
                self.reset();
                self.next = Some(packet.sequence);
                self.ahead.insert(packet.sequence, packet);
            }
        }
        while let Some(next) = self.next {
            if let Some(packet) = self.ahead.remove(&next) {
                out(if packet.lost { Next::Lost } else { Next::Bits(packet.bits) });
            } else if self.ahead.len() > AHEAD {
                self.lost += 1;
                out(Next::Lost);
            } else {
                break;
            }
            self.next = Some(next.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u16) -> Packet {
        Packet { lost: false, remote: false, sequence, bits: vec![sequence as u8; PAYLOAD] }
    }

    fn through(numbers: impl IntoIterator<Item = u16>) -> (Vec<Option<u8>>, Sequence) {
        let (mut sequence, mut all) = (Sequence::default(), Vec::new());
        for n in numbers {
            sequence.take(packet(n), |next| {
                all.push(if let Next::Bits(b) = next { Some(b[0]) } else { None });
            });
        }
        (all, sequence)
    }

    #[test]
    fn the_control_word_is_as_the_rfc_draws_it() {
        let mut whole = packet(0x1234);
        assert_eq!(whole.to_bytes()[..4], [0, 0, 0x12, 0x34]);
        (whole.lost, whole.remote) = (true, true);
        assert_eq!(whole.to_bytes()[..4], [0x0C, 0, 0x12, 0x34]);
        assert_eq!(Packet::read(&whole.to_bytes()), Some(whole));
        assert_eq!(Packet::read(&[0x08, 0, 0, 1]).map(|p| p.lost), Some(true), "bits may be left out");
        for wrong in [&[][..], &[0, 0, 0], &[0, 0, 0, 1], &[0x10; WHOLE], &[0; WHOLE + 1]] {
            assert_eq!(Packet::read(wrong), None);
        }
    }

    #[test]
    fn order_is_restored_and_gaps_are_filled() {
        let (all, sequence) = through([65534, 0, 65535, 1, 1, 3, 4, 5, 6, 7, 2]);
        let some = |n: u16| Some(n as u8);
        assert_eq!(
            all,
            [some(65534), some(65535), some(0), some(1), None, some(3), some(4), some(5), some(6), some(7)]
        );
        assert_eq!((sequence.lost, sequence.late), (1, 2));
        // The other side was started anew.
        assert_eq!(through([10, 11, 30_000, 30_001]).0.len(), 4);
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30), numbers in prop::collection::vec(any::<u16>(), 0..200)) {
            packets.iter().for_each(|p| drop(Packet::read(p)));
            let (_, sequence) = through(numbers);
            prop_assert!(sequence.ahead.len() <= AHEAD + 1);
        }
    }
}
