//! Which source of packets is believed to be the peer. A description may hold an address behind a NAT, so packets are sent
//! to where the peer's come from (symmetric RTP); but a stranger that sends first, or louder, is not the peer.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Packets in a row from a new source before it is believed.
const IN_A_ROW: u8 = 3;
/// And where another source has been believed before, which must have been silent for [`SILENT`].
const TO_MOVE: u8 = 5;
const SILENT: Duration = Duration::from_millis(80);

/// Which sources may be the peer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latching {
    /// The host that the description names.
    Strict,
    /// Also the host that its signalling comes from: the phone behind a NAT.
    #[default]
    Signalling,
    /// Any, where it is the first and only one: for media from hosts that signalling does not show.
    Any,
}

/// A peer's address as its description and its signalling have it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// As the description has it.
    pub described: SocketAddr,
    /// The host that its signalling comes from.
    pub signalled: Option<IpAddr>,
    pub latching: Latching,
}

/// The source that is believed.
#[derive(Debug, Default)]
pub struct Latch {
    at: Option<SocketAddr>,
    last: Option<Instant>,
    /// One that may be next: its packets' name, the number of its last one, how many came in a row.
    candidate: Option<(SocketAddr, u32, u16, u8)>,
}

impl Latch {
    pub fn at(&self) -> Option<SocketAddr> {
        self.at
    }

    /// Whether a packet (its source and number) from here is the peer's.
    pub fn believes(
        &mut self,
        from: SocketAddr,
        ssrc: u32,
        number: u16,
        expected: &Expected,
        now: Instant,
    ) -> bool {
        if self.at == Some(from) {
            self.last = Some(now);
            return true;
        }
        let host = |ip: IpAddr| ip.to_canonical();
        let described = host(from.ip()) == host(expected.described.ip());
        let signalled = expected.signalled.is_some_and(|ip| host(ip) == host(from.ip()));
        let allowed = described
            || match expected.latching {
                Latching::Strict => false,
                Latching::Signalling => signalled,
                Latching::Any => signalled || self.at.is_none(),
            };
        if !allowed {
            return false;
        }
        // The very place that was agreed on needs no further proof.
        let exact = described && from.port() == expected.described.port();
        if exact && self.at.is_none_or(|at| host(at.ip()) != host(from.ip()) || self.silent(now)) {
            return self.move_to(from, now);
        }
        let in_a_row = match self.candidate {
            Some((place, source, last, count))
                if place == from && source == ssrc && matches!(number.wrapping_sub(last), 1..=3) =>
            {
                count.saturating_add(1)
            }
            _ => 1,
        };
        self.candidate = Some((from, ssrc, number, in_a_row));
        let enough = match self.at {
            None => in_a_row >= IN_A_ROW,
            Some(_) => in_a_row >= TO_MOVE && self.silent(now),
        };
        enough && self.move_to(from, now)
    }

    /// For messages without a number: the one behind the last.
    pub fn next_number(&self) -> u16 {
        self.candidate.map_or(0, |(_, _, last, _)| last.wrapping_add(1))
    }

    fn silent(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= SILENT)
    }

    fn move_to(&mut self, from: SocketAddr, now: Instant) -> bool {
        (self.at, self.last, self.candidate) = (Some(from), Some(now), None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn nat(latching: Latching) -> Expected {
        let signalled = Some("192.0.2.7".parse().expect("an address"));
        Expected { described: at("10.0.0.5:4000"), signalled, latching }
    }

    /// How many of so many packets in a row are believed.
    fn believed(latch: &mut Latch, from: &str, expected: &Expected, from_ms: u64, count: u16) -> usize {
        let start = Instant::now();
        let packet = |n: u16| {
            let now = start + Duration::from_millis(from_ms + 20 * u64::from(n));
            latch.believes(at(from), 7, n, expected, now)
        };
        (0..count).map(packet).filter(|b| *b).count()
    }

    #[test]
    fn a_stranger_that_sends_first_hears_nothing_and_the_phone_behind_its_nat_is_found() {
        let (mut latch, expected) = (Latch::default(), nat(Latching::Signalling));
        assert_eq!(believed(&mut latch, "198.51.100.9:9999", &expected, 0, 50), 0);
        assert_eq!(believed(&mut latch, "192.0.2.7:61000", &expected, 1000, 10), 8, "after three in a row");
        assert_eq!(latch.at(), Some(at("192.0.2.7:61000")));
        assert_eq!(believed(&mut latch, "198.51.100.9:9999", &expected, 2000, 50), 0);
        let (mut strict, expected) = (Latch::default(), nat(Latching::Strict));
        assert_eq!(believed(&mut strict, "192.0.2.7:61000", &expected, 0, 10), 0);
        let (mut any, expected) = (Latch::default(), nat(Latching::Any));
        assert_eq!(believed(&mut any, "198.51.100.9:9999", &expected, 0, 10), 8);
        assert_eq!(believed(&mut any, "203.0.113.1:5", &expected, 5000, 10), 0, "not a second one");
    }

    #[test]
    fn the_agreed_place_is_believed_at_once_and_another_port_only_when_it_falls_silent() {
        let expected = Expected { signalled: None, ..nat(Latching::Signalling) };
        let mut latch = Latch::default();
        let start = Instant::now();
        let ms = |n: u64| start + Duration::from_millis(n);
        assert!(latch.believes(at("10.0.0.5:4000"), 7, 1, &expected, start));
        // Another program of the same host talks over the phone.
        for n in 0..40u16 {
            assert!(!latch.believes(at("10.0.0.5:5555"), 9, n, &expected, ms(20 * u64::from(n))));
            assert!(latch.believes(at("10.0.0.5:4000"), 7, 2 + n, &expected, ms(20 * u64::from(n))));
        }
        // A NAT has given the phone another port: the old one is silent.
        let heard: usize = (0..10u16)
            .filter(|n| {
                latch.believes(at("10.0.0.5:4711"), 7, 100 + n, &expected, ms(1000 + 20 * u64::from(*n)))
            })
            .count();
        assert_eq!(heard, 6);
    }
}
