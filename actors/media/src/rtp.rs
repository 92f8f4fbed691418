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
    /// Samples at 8000 Hz.
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
    /// Timestamp units at 8000 Hz.
    pub jitter: f64,
    #[serde(skip)]
    base: Option<u32>,
    #[serde(skip)]
    highest: u32,
    #[serde(skip)]
    transit: Option<i64>,
}

impl Reception {
    /// Counts a packet; `arrival` in timestamp units. The answer is its extended sequence number.
    pub fn count(&mut self, packet: &Packet<'_>, arrival: u32) -> u32 {
        self.packets += 1;
        let extended = match self.base {
            None => {
                self.base = Some(u32::from(packet.sequence));
                u32::from(packet.sequence)
            }
            Some(_) => {
                let ahead = packet.sequence.wrapping_sub(self.highest as u16) as i16;
                self.highest.wrapping_add_signed(i32::from(ahead))
            }
        };
        if self.packets == 1 || extended > self.highest {
            self.highest = extended;
        }
        let expected = u64::from(self.highest.wrapping_sub(self.base.unwrap_or(0))) + 1;
        self.lost = expected.saturating_sub(self.packets);
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

    /// The peer began a new stream.
    pub fn restart(&mut self) {
        *self = Self { packets: 0, lost: 0, jitter: self.jitter, base: None, highest: 0, transit: None };
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
            r.count(&packet(sequence), 0);
        }
        assert_eq!((r.packets, r.lost), (4, 1));
        assert_eq!(r.count(&packet(0), 0), 65_536, "a late one fills its gap");
        assert_eq!(r.lost, 0);
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
