//! One party: what it sends is decoded and put in order, what it is sent continues one stream.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use call::{LegId, media::Source};

use super::{Agreed, latch::Latch};
use crate::{
    coding::{Decoder, Encoder, NARROW, Pcm, Rates},
    guard::Guard,
    playout::Playout,
    rtp::{Packet, Reception, TelephoneEvent},
    sound::{FRAME, Gate, KeyFinder, Sound},
};

/// Where a stream to a peer came from; when it changes, numbers are joined so that the peer sees one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Made,
    Of(LegId, u32),
}

pub(super) struct Sender {
    pub(super) ssrc: u32,
    pub(super) stream: Option<Stream>,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    /// The shift of a passing stream's sequence numbers.
    pub(super) sequence_offset: u16,
    /// A moment of the passing stream by its timestamp, and by ours.
    pub(super) moment: (u32, u32),
    pub(super) packets: u64,
    pub(super) octets: u64,
}

/// A key on its way out.
pub(super) struct Pressing {
    pub(super) event: TelephoneEvent,
    pub(super) left: u32,
    pub(super) ends: u8,
    pub(super) timestamp: u32,
}

pub(super) struct Party {
    pub(super) agreed: Option<Agreed>,
    pub(super) source: Source,
    pub(super) sound: Option<Sound>,
    pub(super) told_played: bool,
    /// Where its packets really come from (symmetric RTP).
    pub(super) latch: Latch,
    pub(super) latched_rtcp: Option<SocketAddr>,
    pub(super) guard: Option<Guard>,
    /// Since when the guard has waited for its keys.
    pub(super) unsealed: Option<Instant>,
    /// Where its pictures, and reports of them, come from.
    pub(super) latch_video: [Latch; 2],
    /// The stream of its pictures.
    pub(super) picture_ssrc: Option<u32>,
    pub(super) sender: Sender,
    pub(super) reception: Reception,
    pub(super) remote_ssrc: Option<u32>,
    pub(super) decoder: Option<(u8, Decoder)>,
    /// The coding's name, the encoder, and what brings samples to its rate.
    pub(super) encoder: Option<(String, Encoder, Rates)>,
    /// Brings its samples to the rate at which keys are found.
    pub(super) key_rates: Rates,
    /// Its sound in order and in time, while a listener wants it so.
    pub(super) playout: Playout,
    pub(super) last_event: Option<u32>,
    pub(super) keys: KeyFinder,
    pub(super) gate: Gate,
    pub(super) muted: bool,
    pub(super) pressing: VecDeque<Pressing>,
    /// Until when the last key that was sent lasts, in its timestamps.
    pub(super) pressed_until: Option<u32>,
    pub(super) heard: Instant,
    pub(super) peer_lost: Option<u8>,
    pub(super) round_trip: Option<u32>,
    pub(super) last_report: Option<(u32, Instant)>,
}

impl Party {
    pub(super) fn new(ssrc: u32, now: Instant) -> Self {
        let sender = Sender {
            ssrc,
            stream: None,
            sequence: ssrc as u16,
            timestamp: ssrc.rotate_left(7),
            sequence_offset: 0,
            moment: (0, 0),
            packets: 0,
            octets: 0,
        };
        Self {
            agreed: None,
            source: Source::Silence,
            sound: None,
            told_played: false,
            latch: Latch::default(),
            latched_rtcp: None,
            guard: None,
            unsealed: None,
            latch_video: [Latch::default(), Latch::default()],
            picture_ssrc: None,
            sender,
            reception: Reception::default(),
            remote_ssrc: None,
            decoder: None,
            encoder: None,
            key_rates: Rates::default(),
            playout: Playout::default(),
            last_event: None,
            keys: KeyFinder::default(),
            gate: Gate::default(),
            muted: false,
            pressing: VecDeque::new(),
            pressed_until: None,
            heard: now,
            peer_lost: None,
            round_trip: None,
            last_report: None,
        }
    }

    pub(super) fn to(&self) -> Option<SocketAddr> {
        let agreed = self.agreed.as_ref().filter(|a| a.hears)?;
        let shown = self.guard.as_ref().and_then(Guard::peer);
        Some(shown.or(self.latch.at()).unwrap_or(agreed.remote))
    }

    /// Decodes a packet of this party as it comes; none for a coding that is not ours.
    pub(super) fn decode(&mut self, packet: &Packet<'_>) -> Option<Pcm> {
        if self.decoder.as_ref().is_none_or(|(pt, _)| *pt != packet.payload_type) {
            let agreed = self.agreed.as_ref()?;
            let codec = agreed.receives.iter().find(|c| c.payload == packet.payload_type)?;
            self.decoder = Some((packet.payload_type, Decoder::of(codec)?));
        }
        let (_, decoder) = self.decoder.as_mut()?;
        Some(decoder.decode(packet.payload))
    }

    /// The encoder of what the party is sent; none for a coding that is not ours.
    fn encoder(&mut self) -> Option<&mut (String, Encoder, Rates)> {
        let codec = &self.agreed.as_ref()?.codec;
        if self.encoder.as_ref().is_none_or(|(name, ..)| *name != codec.name) {
            self.encoder = Some((codec.name.clone(), Encoder::of(codec)?, Rates::default()));
        }
        self.encoder.as_mut()
    }

    /// Payloads of these samples for the party.
    pub(super) fn encode(&mut self, pcm: &Pcm) -> Option<Vec<Vec<u8>>> {
        let (_, encoder, rates) = self.encoder()?;
        let samples = rates.to(encoder.rate(), pcm);
        Some(encoder.encode(&samples))
    }

    /// Whether packets to the party have a length of their own making.
    pub(super) fn frames(&mut self) -> bool {
        self.encoder().is_some_and(|(_, e, _)| e.frames())
    }

    /// Ticks of the party's RTP clock in 20 ms.
    pub(super) fn ticks(&self) -> u32 {
        self.agreed.as_ref().map_or(FRAME as u32, |a| a.codec.clock / 50)
    }

    /// A packet to the peer that continues whatever it got before. `clock` is that of the packet's timestamp.
    pub(super) fn emit(
        &mut self,
        stream: Stream,
        clock: u32,
        packet: Packet<'_>,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let to = self.to()?;
        let (ticks, own) = (self.ticks(), self.agreed.as_ref().map_or(clock, |a| a.codec.clock));
        let s = &mut self.sender;
        let mut marker = packet.marker;
        if s.stream != Some(stream) {
            s.sequence_offset = s.sequence.wrapping_add(1).wrapping_sub(packet.sequence);
            s.moment = (packet.timestamp, s.timestamp.wrapping_add(ticks));
            s.stream = Some(stream);
            marker = true;
        }
        let sequence = packet.sequence.wrapping_add(s.sequence_offset);
        let since = i64::from(packet.timestamp.wrapping_sub(s.moment.0) as i32);
        let timestamp = s.moment.1.wrapping_add((since * i64::from(own) / i64::from(clock.max(1))) as u32);
        // A late packet does not turn the numbers back.
        if sequence.wrapping_sub(s.sequence) as i16 > 0 {
            s.sequence = sequence;
        }
        if timestamp.wrapping_sub(s.timestamp) as i32 > 0 {
            (s.timestamp, s.moment) = (timestamp, (packet.timestamp, timestamp));
        }
        s.packets += 1;
        s.octets += packet.payload.len() as u64;
        let out = Packet { marker, sequence, timestamp, ssrc: s.ssrc, ..packet };
        Some((to, out.write()))
    }

    /// Another party's sound, in packets of our own length. A gap in it is one in the timestamps.
    pub(super) fn emit_framed(
        &mut self,
        stream: Stream,
        clock: u32,
        packet: &Packet<'_>,
        pcm: &Pcm,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let (ticks, own) = (self.ticks(), self.agreed.as_ref().map_or(clock, |a| a.codec.clock));
        let fresh = self.sender.stream != Some(stream);
        if fresh {
            self.sender.stream = Some(stream);
            self.sender.moment = (packet.timestamp, self.sender.timestamp.wrapping_add(ticks));
        }
        let (theirs, ours) = self.sender.moment;
        let since = i64::from(packet.timestamp.wrapping_sub(theirs) as i32);
        if since < 0 {
            // It comes too late to be put in its place.
            return Vec::new();
        }
        if since > 0 || fresh {
            // Time has passed that nothing was said in: what waited for a full packet is of before.
            let at = ours.wrapping_add((since * i64::from(own) / i64::from(clock.max(1))) as u32);
            self.sender.timestamp = at.wrapping_sub(ticks);
            if let Some((_, encoder, _)) = &mut self.encoder {
                encoder.restart();
            }
        }
        let payloads = self.encode(pcm).unwrap_or_default();
        let said = u64::from(clock) * pcm.samples.len() as u64 / u64::from(pcm.rate.max(1));
        let next = packet.timestamp.wrapping_add(said as u32);
        let mut sent = Vec::new();
        for (n, payload) in payloads.iter().enumerate() {
            sent.extend(self.next_packet(fresh && n == 0, payload));
        }
        let waits = match &self.encoder {
            Some((_, Encoder::Opus(_, waiting), _)) => waiting.len() as u64 * u64::from(own) / 16_000,
            _ => 0,
        };
        let at = self.sender.timestamp.wrapping_add(ticks).wrapping_add(waits as u32);
        self.sender.moment = (next, at);
        sent
    }

    /// A packet of our own numbers behind the last one.
    fn next_packet(&mut self, marker: bool, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let (to, ticks) = (self.to()?, self.ticks());
        let payload_type = self.agreed.as_ref()?.codec.payload;
        let s = &mut self.sender;
        s.sequence = s.sequence.wrapping_add(1);
        s.timestamp = s.timestamp.wrapping_add(ticks);
        s.packets += 1;
        s.octets += payload.len() as u64;
        let (sequence, timestamp, ssrc) = (s.sequence, s.timestamp, s.ssrc);
        Some((to, Packet { marker, payload_type, sequence, timestamp, ssrc, payload }.write()))
    }

    /// 20 ms of our own making.
    pub(super) fn make(&mut self, pcm: &Pcm) -> Option<(SocketAddr, Vec<u8>)> {
        self.to()?;
        let payload = self.encode(pcm)?.into_iter().next()?;
        let fresh = self.sender.stream.replace(Stream::Made) != Some(Stream::Made);
        self.next_packet(fresh, &payload)
    }

    /// A key in what the party says, where it sends keys as tones.
    pub(super) fn find_key(&mut self, pcm: &Pcm) -> Option<char> {
        let samples = self.key_rates.to(NARROW, pcm);
        self.keys.feed(&samples)
    }
}

/// The next packet of a key that is being sent.
pub(super) fn press_on(party: &mut Party) -> Option<(SocketAddr, Vec<u8>)> {
    let format = party.agreed.as_ref()?.events?;
    let (payload_type, step) = (format.payload, u16::try_from(format.clock / 50).unwrap_or(FRAME as u16));
    let now = party.sender.timestamp.wrapping_add(party.ticks());
    let after = party.pressed_until;
    let pressing = party.pressing.front_mut()?;
    let first = pressing.event.duration == 0;
    if first {
        // A key begins when the one before it is over: two of the same would be one to the peer.
        pressing.timestamp = match after {
            Some(after) if after.wrapping_sub(now) < 1 << 31 => after,
            _ => now,
        };
    }
    if pressing.left > 0 {
        pressing.left -= 1;
        pressing.event.duration = pressing.event.duration.saturating_add(step);
    } else {
        pressing.event.end = true;
        pressing.ends -= 1;
    }
    let (event, timestamp, over) = (pressing.event, pressing.timestamp, pressing.ends == 0);
    if over {
        party.pressing.pop_front();
        party.pressed_until =
            Some(timestamp.wrapping_add(u32::from(event.duration)).wrapping_add(u32::from(step)));
    }
    let to = party.to()?;
    let payload = event.write()?;
    party.sender.sequence = party.sender.sequence.wrapping_add(1);
    party.sender.sequence_offset = party.sender.sequence_offset.wrapping_add(1);
    party.sender.packets += 1;
    let packet = Packet {
        marker: first,
        payload_type,
        sequence: party.sender.sequence,
        timestamp,
        ssrc: party.sender.ssrc,
        payload: &payload,
    };
    Some((to, packet.write()))
}
