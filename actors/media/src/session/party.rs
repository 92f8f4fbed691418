//! One party: what it sends is decoded and put in order, what it is sent continues one stream.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use audio_codec::{Decoder, Encoder, g722, pcma, pcmu};
use call::{LegId, media::Source};

use super::Agreed;
use crate::{
    guard::Guard,
    rtp::{Packet, Reception, TelephoneEvent},
    sdp::Codec,
    sound::{FRAME, Gate, KeyFinder, Sound},
};

/// Packets put in order before the first is played: 60 ms.
const AHEAD: usize = 3;
/// More than this waiting is latency nobody wants.
pub(super) const TOO_MANY: usize = 10;

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
    /// What is added to the numbers of a passing stream.
    pub(super) sequence_offset: u16,
    pub(super) timestamp_offset: u32,
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
    pub(super) latched: Option<SocketAddr>,
    pub(super) latched_rtcp: Option<SocketAddr>,
    pub(super) guard: Option<Guard>,
    /// Where its pictures, and reports of them, come from.
    pub(super) latched_video: [Option<SocketAddr>; 2],
    pub(super) sender: Sender,
    pub(super) reception: Reception,
    pub(super) remote_ssrc: Option<u32>,
    pub(super) decoder: Option<(u8, Box<dyn Decoder>)>,
    pub(super) encoder: Option<(String, Box<dyn Encoder>)>,
    pub(super) waiting: BTreeMap<u32, Vec<i16>>,
    pub(super) playing: Option<u32>,
    pub(super) pcm: VecDeque<i16>,
    pub(super) last_event: Option<u32>,
    pub(super) keys: KeyFinder,
    pub(super) gate: Gate,
    pub(super) muted: bool,
    pub(super) pressing: VecDeque<Pressing>,
    pub(super) heard: Instant,
    pub(super) peer_lost: Option<u8>,
    pub(super) round_trip: Option<u32>,
    pub(super) last_report: Option<(u32, Instant)>,
}

pub(super) fn decoder(codec: &Codec) -> Option<Box<dyn Decoder>> {
    match codec.name.to_ascii_uppercase().as_str() {
        "PCMA" => Some(Box::new(pcma::PcmaDecoder::new())),
        "PCMU" => Some(Box::new(pcmu::PcmuDecoder::new())),
        "G722" => Some(Box::new(g722::G722Decoder::with_options(g722::Bitrate::Mode1_64000, false, true))),
        _ => None,
    }
}

pub(super) fn encoder(codec: &Codec) -> Option<Box<dyn Encoder>> {
    match codec.name.to_ascii_uppercase().as_str() {
        "PCMA" => Some(Box::new(pcma::PcmaEncoder::new())),
        "PCMU" => Some(Box::new(pcmu::PcmuEncoder::new())),
        "G722" => Some(Box::new(g722::G722Encoder::with_options(g722::Bitrate::Mode1_64000, true, false))),
        _ => None,
    }
}

impl Party {
    pub(super) fn new(ssrc: u32, now: Instant) -> Self {
        let sender = Sender {
            ssrc,
            stream: None,
            sequence: ssrc as u16,
            timestamp: ssrc.rotate_left(7),
            sequence_offset: 0,
            timestamp_offset: 0,
            packets: 0,
            octets: 0,
        };
        Self {
            agreed: None,
            source: Source::Silence,
            sound: None,
            told_played: false,
            latched: None,
            latched_rtcp: None,
            guard: None,
            latched_video: [None; 2],
            sender,
            reception: Reception::default(),
            remote_ssrc: None,
            decoder: None,
            encoder: None,
            waiting: BTreeMap::new(),
            playing: None,
            pcm: VecDeque::new(),
            last_event: None,
            keys: KeyFinder::default(),
            gate: Gate::default(),
            muted: false,
            pressing: VecDeque::new(),
            heard: now,
            peer_lost: None,
            round_trip: None,
            last_report: None,
        }
    }

    pub(super) fn to(&self) -> Option<SocketAddr> {
        let agreed = self.agreed.as_ref().filter(|a| a.hears)?;
        let shown = self.guard.as_ref().and_then(Guard::peer);
        Some(shown.or(self.latched).unwrap_or(agreed.remote))
    }

    /// Decodes a packet of this party; none for a coding that is not ours.
    pub(super) fn decode(&mut self, packet: &Packet<'_>) -> Option<Vec<i16>> {
        if self.decoder.as_ref().is_none_or(|(pt, _)| *pt != packet.payload_type) {
            let agreed = self.agreed.as_ref()?;
            let codec = agreed.receives.iter().find(|c| c.payload == packet.payload_type)?;
            self.decoder = Some((packet.payload_type, decoder(codec)?));
        }
        let (_, decoder) = self.decoder.as_mut()?;
        Some(decoder.decode(packet.payload))
    }

    pub(super) fn encode(&mut self, samples: &[i16]) -> Option<Vec<u8>> {
        let codec = &self.agreed.as_ref()?.codec;
        if self.encoder.as_ref().is_none_or(|(name, _)| *name != codec.name) {
            self.encoder = Some((codec.name.clone(), encoder(codec)?));
        }
        let (_, encoder) = self.encoder.as_mut()?;
        Some(encoder.encode(samples))
    }

    /// A packet to the peer that continues whatever it got before.
    pub(super) fn emit(&mut self, stream: Stream, packet: Packet<'_>) -> Option<(SocketAddr, Vec<u8>)> {
        let to = self.to()?;
        let s = &mut self.sender;
        let mut marker = packet.marker;
        if s.stream != Some(stream) {
            s.sequence_offset = s.sequence.wrapping_add(1).wrapping_sub(packet.sequence);
            s.timestamp_offset = s.timestamp.wrapping_add(FRAME as u32).wrapping_sub(packet.timestamp);
            s.stream = Some(stream);
            marker = true;
        }
        let sequence = packet.sequence.wrapping_add(s.sequence_offset);
        let timestamp = packet.timestamp.wrapping_add(s.timestamp_offset);
        // A late packet does not turn the numbers back.
        if sequence.wrapping_sub(s.sequence) as i16 > 0 {
            s.sequence = sequence;
        }
        if timestamp.wrapping_sub(s.timestamp) as i32 > 0 {
            s.timestamp = timestamp;
        }
        s.packets += 1;
        s.octets += packet.payload.len() as u64;
        let out = Packet { marker, sequence, timestamp, ssrc: s.ssrc, ..packet };
        Some((to, out.write()))
    }

    /// 20 ms of our own making.
    pub(super) fn make(&mut self, samples: &[i16]) -> Option<(SocketAddr, Vec<u8>)> {
        let payload_type = self.agreed.as_ref()?.codec.payload;
        let payload = self.encode(samples)?;
        let fresh = self.sender.stream != Some(Stream::Made);
        if fresh {
            self.sender.stream = Some(Stream::Made);
            (self.sender.sequence_offset, self.sender.timestamp_offset) = (0, 0);
        }
        let packet = Packet {
            marker: fresh,
            payload_type,
            sequence: self.sender.sequence.wrapping_add(1),
            timestamp: self.sender.timestamp.wrapping_add(FRAME as u32),
            ssrc: 0,
            payload: &payload,
        };
        self.emit(Stream::Made, packet)
    }

    /// The next 20 ms of what this party says, silence where nothing has come.
    pub(super) fn next(&mut self) -> [i16; FRAME] {
        let ready = self.playing.is_some() || self.waiting.len() >= AHEAD;
        while ready && self.pcm.len() < FRAME {
            let Some((&first, _)) = self.waiting.first_key_value() else { break };
            let next = self.playing.map_or(first, |p| p.wrapping_add(1));
            let gap = first != next && self.waiting.len() < TOO_MANY;
            if gap && first.wrapping_sub(next) < 5 {
                // One is missing: its time passes in silence.
                self.pcm.extend([0; FRAME]);
                self.playing = Some(next);
                continue;
            }
            if let Some((at, samples)) = self.waiting.pop_first() {
                self.playing = Some(at);
                self.pcm.extend(samples);
            }
        }
        while self.waiting.len() > TOO_MANY {
            self.playing = self.waiting.pop_first().map(|(at, _)| at);
        }
        if self.pcm.is_empty() && self.waiting.is_empty() {
            self.playing = None;
        }
        let mut frame = [0; FRAME];
        for sample in &mut frame {
            *sample = self.pcm.pop_front().unwrap_or(0);
        }
        frame
    }
}

/// The next packet of a key that is being sent.
pub(super) fn press_on(party: &mut Party) -> Option<(SocketAddr, Vec<u8>)> {
    let payload_type = party.agreed.as_ref()?.events?;
    let pressing = party.pressing.front_mut()?;
    let first = pressing.event.duration == 0;
    if pressing.left > 0 {
        pressing.left -= 1;
        pressing.event.duration += FRAME as u16;
    } else {
        pressing.event.end = true;
        pressing.ends -= 1;
    }
    let (event, timestamp, over) = (pressing.event, pressing.timestamp, pressing.ends == 0);
    if over {
        party.pressing.pop_front();
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
