//! RTP packets (RFC 3550) and telephone events (RFC 4733), read and written.

/// The parts of a packet that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'p> {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: &'p [u8],
}

pub const HEADER: usize = 12;

impl<'p> Packet<'p> {
    /// None for what is no RTP.
    pub fn parse(data: &'p [u8]) -> Option<Self> {
        let (first, second) = (*data.first()?, *data.get(1)?);
        if first >> 6 != 2 || data.len() < HEADER {
            return None;
        }
        let mut start = HEADER + usize::from(first & 0x0f) * 4;
        if first & 0x10 != 0 {
            let words = u16::from_be_bytes(data.get(start + 2..start + 4)?.try_into().ok()?);
            start += 4 + usize::from(words) * 4;
        }
        let mut end = data.len();
        if first & 0x20 != 0 {
            end = end.checked_sub(usize::from(*data.last()?))?;
        }
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([data[2], data[3]]),
            timestamp: word(4),
            ssrc: word(8),
            payload: data.get(start..end)?,
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(HEADER + self.payload.len());
        data.extend([0x80, self.payload_type | if self.marker { 0x80 } else { 0 }]);
        data.extend(self.sequence.to_be_bytes());
        data.extend(self.timestamp.to_be_bytes());
        data.extend(self.ssrc.to_be_bytes());
        data.extend(self.payload);
        data
    }
}

/// Keys by their event number.
const KEYS: &[u8; 16] = b"0123456789*#ABCD";

/// A telephone event's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    pub key: char,
    pub end: bool,
    /// In the clock of its format.
    pub duration: u16,
}

impl TelephoneEvent {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [event, flags, high, low] = *payload.first_chunk::<4>()?;
        let key = char::from(*KEYS.get(usize::from(event))?);
        Some(Self { key, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }

    pub fn write(self) -> Option<[u8; 4]> {
        let event = KEYS.iter().position(|k| char::from(*k) == self.key)?;
        let [high, low] = self.duration.to_be_bytes();
        // Volume −10 dBm0.
        Some([event as u8, 10 | if self.end { 0x80 } else { 0 }, high, low])
    }
}

/// What was received of a peer's stream (RFC 3550, 6.4.1 and A.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Reception {
    pub packets: u64,
    pub lost: u64,
    /// Timestamp units of the stream's clock.
    pub jitter: f64,
    /// Lowest extended number; numbers begin at [`FIRST_CYCLE`], so that one before the first is no turn of them.
    #[serde(skip)]
    base: Option<u32>,
    #[serde(skip)]
    highest: u32,
    #[serde(skip)]
    transit: Option<i64>,
    /// After a leap, the number that would show that the sender has begun anew.
    #[serde(skip)]
    after_leap: Option<u16>,
    /// Lost and received before the sender's numbers began anew.
    #[serde(skip)]
    before: (u64, u64),
    /// The timestamp that milliseconds are counted from.
    #[serde(skip)]
    moment: Option<(u32, f64)>,
}

/// Extended numbers begin in the second turn.
const FIRST_CYCLE: u32 = 1 << 16;
/// Leaps forward and backward that are losses and late packets (RFC 3550, A.1).
const DROPOUT: u16 = 3000;
const MISORDER: u16 = 100;

impl Reception {
    /// Counts a packet that arrived so many microseconds after the session began. The answer is its extended number.
    pub fn count(&mut self, packet: &Packet<'_>, micros: u64, clock: u32) -> u32 {
        self.packets += 1;
        let ahead = packet.sequence.wrapping_sub(self.highest as u16);
        let near = !(DROPOUT..=u16::MAX - MISORDER).contains(&ahead);
        if !near && self.base.is_some() && self.after_leap != Some(packet.sequence) {
            // Perhaps a stray one: the next tells whether the numbers begin anew here.
            self.after_leap = Some(packet.sequence.wrapping_add(1));
            return self.highest.wrapping_add(1);
        }
        if !near && self.base.take().is_some() {
            self.before = (self.lost, self.packets - 1);
        }
        self.after_leap = None;
        let first = self.base.is_none();
        let extended = match first {
            // Behind what was before, so that numbers go on growing.
            true => (self.highest & !0xffff).wrapping_add(FIRST_CYCLE) | u32::from(packet.sequence),
            false => self.highest.wrapping_add_signed(i32::from(ahead as i16)),
        };
        self.base = Some(self.base.map_or(extended, |base| base.min(extended)));
        if first || extended > self.highest {
            self.highest = extended;
        }
        let expected = u64::from(self.highest.wrapping_sub(self.base.unwrap_or(0))) + 1;
        self.lost = self.before.0 + expected.saturating_sub(self.packets - self.before.1);
        let arrival = (u128::from(micros) * u128::from(clock) / 1_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(packet.timestamp) as i32);
        if let Some(before) = self.transit {
            self.jitter += ((transit - before).abs() as f64 - self.jitter) / 16.0;
        }
        self.transit = Some(transit);
        extended
    }

    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// A timestamp as milliseconds of the stream.
    pub fn milliseconds(&mut self, timestamp: u32, clock: u32) -> f64 {
        let (at, ms) = self.moment.unwrap_or((timestamp, 0.0));
        let since = f64::from(timestamp.wrapping_sub(at) as i32) * 1000.0 / f64::from(clock.max(1));
        self.moment = Some((timestamp, ms + since));
        ms + since
    }

    /// The peer began a new stream.
    pub fn restart(&mut self) {
        *self = Self { jitter: self.jitter, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32, payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let packet = Packet { marker, payload_type, sequence, timestamp, ssrc, payload: &payload };
            let bytes = packet.write();
            prop_assert_eq!(Packet::parse(&bytes), Some(packet));
        }

        #[test]
        fn any_bytes_are_a_packet_or_none(data in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(p) = Packet::parse(&data) {
                prop_assert!(p.payload.len() <= data.len());
                let _ = TelephoneEvent::parse(p.payload);
            }
        }
    }

    #[test]
    fn losses_are_counted_over_the_turn_of_the_sequence() {
        let mut r = Reception::default();
        let packet = |sequence: u16| Packet {
            marker: false,
            payload_type: 8,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 1,
            payload: &[],
        };
        for sequence in [65_534, 65_535, 1, 2] {
            r.count(&packet(sequence), 0, 8000);
        }
        assert_eq!((r.packets, r.lost), (4, 1));
        assert_eq!(r.count(&packet(0), 0, 8000), 2 * FIRST_CYCLE, "a late one fills its gap");
        assert_eq!(r.lost, 0);
    }

    #[test]
    fn packets_that_cross_the_turn_backwards_are_no_loss() {
        let packet = |sequence: u16| Packet {
            marker: false,
            payload_type: 8,
            sequence,
            timestamp: 0,
            ssrc: 1,
            payload: &[],
        };
        for (numbers, lost) in [
            (&[0u16, 65_535, 1, 2, 3][..], 0),
            (&[5, 3, 4, 6], 0),
            (&[10, 9, 12], 1),
            // The sender begins anew, twice with a stray packet before.
            (&[100, 101, 30_000, 30_001, 30_002], 1),
            (&[100, 101, 40_000, 102, 103], 0),
            (&[60_000, 60_002, 20, 21, 23], 3),
        ] {
            let mut r = Reception::default();
            let all: Vec<u32> = numbers.iter().map(|n| r.count(&packet(*n), 0, 8000)).collect();
            assert!(
                r.lost <= lost && r.packets == numbers.len() as u64,
                "{numbers:?}: {} lost, {all:?}",
                r.lost
            );
        }
    }

    #[test]
    fn keys_are_events() {
        for key in "0123456789*#ABCD".chars() {
            let event = TelephoneEvent { key, end: true, duration: 800 };
            assert_eq!(TelephoneEvent::parse(&event.write().expect("a key")), Some(event));
        }
        assert_eq!(TelephoneEvent { key: 'x', end: true, duration: 0 }.write(), None);
    }
}
