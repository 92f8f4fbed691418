//! Which source of packets is believed to be the peer. A description may hold an address behind a NAT, so packets are sent
//! to where the peer's come from (symmetric RTP); but a stranger that sends first, or louder, is not the peer.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Packets in a row from a new source before it is believed.
const IN_A_ROW: u8 = 3;
/// And where another source has been believed before, which must have been silent: a moment where the same stream goes on from
/// a new port (a NAT has forgotten the old one), longer than a pause of a phone that sends no silence where it is another stream.
const TO_MOVE: u8 = 5;
const SILENT: Duration = Duration::from_millis(80);
const SILENT_LONG: Duration = Duration::from_secs(5);

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
    /// The name of the stream that was believed last.
    stream: Option<u32>,
    /// It came from the agreed place, or has gone on from there.
    proven: bool,
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
            (self.last, self.stream) = (Some(now), Some(ssrc));
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
        if exact && self.at.is_none_or(|at| host(at.ip()) != host(from.ip()) || self.silent(now, SILENT)) {
            return self.move_to(from, ssrc, true, now);
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
        let goes_on = self.stream == Some(ssrc);
        let enough = match self.at {
            None => in_a_row >= IN_A_ROW,
            // It takes its stream back from a source that only spoke in its pauses.
            Some(_) if exact && !self.proven => in_a_row >= IN_A_ROW,
            Some(_) if goes_on => in_a_row >= TO_MOVE && self.silent(now, SILENT),
            Some(_) => in_a_row >= TO_MOVE && self.silent(now, SILENT_LONG),
        };
        enough && self.move_to(from, ssrc, exact || self.proven && goes_on, now)
    }

    /// For messages without a number: the one behind the last.
    pub fn next_number(&self) -> u16 {
        self.candidate.map_or(0, |(_, _, last, _)| last.wrapping_add(1))
    }

    fn silent(&self, now: Instant, enough: Duration) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= enough)
    }

    fn move_to(&mut self, from: SocketAddr, ssrc: u32, proven: bool, now: Instant) -> bool {
        (self.at, self.last, self.candidate) = (Some(from), Some(now), None);
        (self.stream, self.proven) = (Some(ssrc), proven);
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

    #[test]
    fn a_pause_of_the_phone_gives_its_stream_to_nobody_and_a_longer_silence_only_until_it_speaks() {
        let expected = Expected { signalled: None, ..nat(Latching::Signalling) };
        let (phone, other) = ("10.0.0.5:4000", "10.0.0.5:5555");
        let mut latch = Latch::default();
        let start = Instant::now();
        let mut hears = |from: &str, ssrc: u32, from_ms: u64, count: u16| -> usize {
            let packet = |n: u16| {
                let now = start + Duration::from_millis(from_ms + 20 * u64::from(n));
                latch.believes(at(from), ssrc, n, &expected, now)
            };
            (0..count).map(packet).filter(|b| *b).count()
        };
        assert_eq!(hears(phone, 7, 0, 10), 10);
        // It sends no silence (RFC 3389) for four seconds; another port of its host has sent all the time.
        assert_eq!(hears(other, 9, 200, 200), 0);
        assert_eq!(hears(phone, 7, 4_200, 10), 10);
        // Silent for longer, it may have been started anew elsewhere; it has its stream back as soon as it speaks.
        assert_eq!(hears(other, 9, 4_400, 350), 350 - 249);
        assert_eq!(hears(phone, 7, 11_400, 10), 8, "beside the other one");
        assert_eq!(hears(other, 9, 11_600, 50), 0);
    }
}
