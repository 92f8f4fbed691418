//! Reports on what was sent and received (RFC 3550, 6).

use std::time::{Duration, Instant};

use super::party::Party;

/// The packets of a compound one (RFC 3550, 6.1), each of four bytes at least.
pub(super) fn compound(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])) * 4 + 4;
        let (packet, after) = rest.split_at_checked(length).filter(|_| head[0] >> 6 == 2)?;
        rest = after;
        Some(packet)
    })
}

/// Middle 32 bits of a 64-bit NTP time, counted from the session's beginning.
pub(super) fn ntp_middle(elapsed: Duration) -> u32 {
    ((elapsed.as_secs() as u32) << 16) | ((u64::from(elapsed.subsec_nanos()) << 16) / 1_000_000_000) as u32
}

/// A sender report with one block (RFC 3550, 6.4.1), and who we are.
pub(super) fn report(party: &Party, elapsed: Duration, now: Instant) -> Vec<u8> {
    let (s, r) = (&party.sender, &party.reception);
    let mut bytes = Vec::with_capacity(80);
    let blocks = u8::from(party.remote_ssrc.is_some());
    bytes.extend([0x80 | blocks, 200]);
    bytes.extend((6 + 6 * u16::from(blocks)).to_be_bytes());
    bytes.extend(s.ssrc.to_be_bytes());
    bytes.extend((elapsed.as_secs() as u32).to_be_bytes());
    bytes.extend((((u64::from(elapsed.subsec_nanos())) << 32) / 1_000_000_000).to_be_bytes()[4..].iter());
    bytes.extend(s.timestamp.to_be_bytes());
    bytes.extend((s.packets as u32).to_be_bytes());
    bytes.extend((s.octets as u32).to_be_bytes());
    if let Some(ssrc) = party.remote_ssrc {
        bytes.extend(ssrc.to_be_bytes());
        let fraction = (r.lost * 256).checked_div(r.packets + r.lost).unwrap_or(0).min(255);
        bytes.push(fraction as u8);
        bytes.extend(&(r.lost.min(0x7f_ffff) as u32).to_be_bytes()[1..]);
        bytes.extend(r.highest().to_be_bytes());
        bytes.extend((r.jitter as u32).to_be_bytes());
        let (last, since) =
            party.last_report.map_or((0, 0), |(l, at)| (l, ntp_middle(now.duration_since(at))));
        bytes.extend(last.to_be_bytes());
        bytes.extend(since.to_be_bytes());
    }
    // SDES with an empty-handed name: nobody is told who is behind it.
    bytes.extend([0x81, 202, 0, 3]);
    bytes.extend(s.ssrc.to_be_bytes());
    bytes.extend([1, 5]);
    bytes.extend(b"hypha\0");
    // Two bytes of item head, five of name, one end: padded to words.
    bytes
}
