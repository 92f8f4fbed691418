//! The packets of one call, without sockets: what a leg sends goes to those who hear it; what nobody sends is made here.
//!
//! Where two legs code alike, packets pass with their numbers rewritten. Else they are decoded and encoded one by one.
//! Mixes, tones and music are made every 20 ms, from what a short queue has put in order.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use audio_codec::{Decoder, Encoder, g722, pcma, pcmu};
use call::{
    LegId, MediaEvent,
    media::{Quality, Source},
};

use crate::{
    guard::{Guard, GuardError, Opened},
    rtp::{Packet, Reception, TelephoneEvent},
    sdp::Codec,
    sealing::Settled,
    sound::{self, FRAME, KeyFinder, Sound},
};

/// Packets put in order before the first is played: 60 ms.
const AHEAD: usize = 3;
/// More than this waiting is latency nobody wants.
const TOO_MANY: usize = 10;
/// A leg that sends nothing for so long has gone (the manual's `rtp-timeout`).
pub const SILENT: Duration = Duration::from_secs(350);

/// What negotiation settled for a leg.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    pub remote: SocketAddr,
    pub rtcp: SocketAddr,
    /// What we send.
    pub codec: Codec,
    /// All it may send, by our numbers.
    pub receives: Vec<Codec>,
    pub events: Option<u8>,
    /// The number under which events come to us.
    pub events_in: Option<u8>,
    /// Whether it wants to hear us.
    pub hears: bool,
    /// How its packets are sealed; none: not at all.
    pub sealing: Option<Settled>,
    pub video: Option<VideoAgreed>,
}

/// Pictures pass as they are, under the numbers that both sides use.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoAgreed {
    pub remote: SocketAddr,
    pub rtcp: SocketAddr,
    /// On the way of the audio.
    pub bundled: bool,
    pub payloads: Vec<u8>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Out {
    /// Send from the leg's own socket to its peer.
    Rtp(LegId, SocketAddr, Vec<u8>),
    Rtcp(LegId, SocketAddr, Vec<u8>),
    /// From the leg's socket for packets, as it is.
    Wire(LegId, SocketAddr, Vec<u8>),
    /// From its sockets for pictures.
    Video(LegId, SocketAddr, Vec<u8>),
    VideoRtcp(LegId, SocketAddr, Vec<u8>),
    Event(LegId, MediaEvent),
}

/// Where a stream to a peer came from; when it changes, numbers are joined so that the peer sees one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Made,
    Of(LegId, u32),
}

struct Sender {
    ssrc: u32,
    stream: Option<Stream>,
    sequence: u16,
    timestamp: u32,
    /// What is added to the numbers of a passing stream.
    sequence_offset: u16,
    timestamp_offset: u32,
    packets: u64,
    octets: u64,
}

/// A key on its way out.
struct Pressing {
    event: TelephoneEvent,
    left: u32,
    ends: u8,
    timestamp: u32,
}

struct Party {
    agreed: Option<Agreed>,
    source: Source,
    sound: Option<Sound>,
    told_played: bool,
    /// Where its packets really come from (symmetric RTP).
    latched: Option<SocketAddr>,
    latched_rtcp: Option<SocketAddr>,
    guard: Option<Guard>,
    /// Where its pictures, and reports of them, come from.
    latched_video: [Option<SocketAddr>; 2],
    sender: Sender,
    reception: Reception,
    remote_ssrc: Option<u32>,
    decoder: Option<(u8, Box<dyn Decoder>)>,
    encoder: Option<(String, Box<dyn Encoder>)>,
    waiting: BTreeMap<u32, Vec<i16>>,
    playing: Option<u32>,
    pcm: VecDeque<i16>,
    last_event: Option<u32>,
    keys: KeyFinder,
    pressing: VecDeque<Pressing>,
    heard: Instant,
    peer_lost: Option<u8>,
    round_trip: Option<u32>,
    last_report: Option<(u32, Instant)>,
}

/// The media of one call.
pub struct Session {
    parties: BTreeMap<LegId, Party>,
    music: Arc<[i16]>,
    started: Instant,
    out: Vec<Out>,
}

fn decoder(codec: &Codec) -> Option<Box<dyn Decoder>> {
    match codec.name.to_ascii_uppercase().as_str() {
        "PCMA" => Some(Box::new(pcma::PcmaDecoder::new())),
        "PCMU" => Some(Box::new(pcmu::PcmuDecoder::new())),
        "G722" => Some(Box::new(g722::G722Decoder::with_options(g722::Bitrate::Mode1_64000, false, true))),
        _ => None,
    }
}

fn encoder(codec: &Codec) -> Option<Box<dyn Encoder>> {
    match codec.name.to_ascii_uppercase().as_str() {
        "PCMA" => Some(Box::new(pcma::PcmaEncoder::new())),
        "PCMU" => Some(Box::new(pcmu::PcmuEncoder::new())),
        "G722" => Some(Box::new(g722::G722Encoder::with_options(g722::Bitrate::Mode1_64000, true, false))),
        _ => None,
    }
}

/// A guard that has failed takes no more part: nothing passes in the clear instead.
fn guarded<T>(leg: LegId, done: Result<T, GuardError>) -> Option<T> {
    done.inspect_err(|e| tracing::warn!(%leg, error = %e, "a sealed leg is not heard")).ok()
}

impl Party {
    fn new(ssrc: u32, now: Instant) -> Self {
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
            pressing: VecDeque::new(),
            heard: now,
            peer_lost: None,
            round_trip: None,
            last_report: None,
        }
    }

    fn to(&self) -> Option<SocketAddr> {
        let agreed = self.agreed.as_ref().filter(|a| a.hears)?;
        let shown = self.guard.as_ref().and_then(Guard::peer);
        Some(shown.or(self.latched).unwrap_or(agreed.remote))
    }

    /// Decodes a packet of this party; none for a coding that is not ours.
    fn decode(&mut self, packet: &Packet<'_>) -> Option<Vec<i16>> {
        if self.decoder.as_ref().is_none_or(|(pt, _)| *pt != packet.payload_type) {
            let agreed = self.agreed.as_ref()?;
            let codec = agreed.receives.iter().find(|c| c.payload == packet.payload_type)?;
            self.decoder = Some((packet.payload_type, decoder(codec)?));
        }
        let (_, decoder) = self.decoder.as_mut()?;
        Some(decoder.decode(packet.payload))
    }

    fn encode(&mut self, samples: &[i16]) -> Option<Vec<u8>> {
        let codec = &self.agreed.as_ref()?.codec;
        if self.encoder.as_ref().is_none_or(|(name, _)| *name != codec.name) {
            self.encoder = Some((codec.name.clone(), encoder(codec)?));
        }
        let (_, encoder) = self.encoder.as_mut()?;
        Some(encoder.encode(samples))
    }

    /// A packet to the peer that continues whatever it got before.
    fn emit(&mut self, stream: Stream, packet: Packet<'_>) -> Option<(SocketAddr, Vec<u8>)> {
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
    fn make(&mut self, samples: &[i16]) -> Option<(SocketAddr, Vec<u8>)> {
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
    fn next(&mut self) -> [i16; FRAME] {
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

impl Session {
    pub fn new(music: Arc<[i16]>, now: Instant) -> Self {
        Self { parties: BTreeMap::new(), music, started: now, out: Vec::new() }
    }

    pub fn add(&mut self, now: Instant, leg: LegId, ssrc: u32) {
        self.parties.insert(leg, Party::new(ssrc, now));
    }

    pub fn remove(&mut self, leg: LegId) {
        self.parties.remove(&leg);
    }

    pub fn agree(&mut self, now: Instant, leg: LegId, agreed: Agreed) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        if party.agreed.as_ref().is_none_or(|a| a.sealing != agreed.sealing) {
            let done = match (&agreed.sealing, &mut party.guard) {
                (None, guard) => {
                    *guard = None;
                    Ok(())
                }
                (Some(s), Some(guard)) => guard.renew(now, s, agreed.remote),
                (Some(s), guard) => Guard::new(now, s, agreed.remote).map(|g| *guard = Some(g)),
            };
            guarded(leg, done);
        }
        if party.agreed.as_ref().is_none_or(|a| a.remote != agreed.remote) {
            // It has moved: what came from the old place counts no more.
            party.latched = None;
            party.latched_rtcp = None;
        }
        party.agreed = Some(agreed);
        party.decoder = None;
    }

    pub fn hear(&mut self, leg: LegId, source: Source) {
        let music = self.music.clone();
        let Some(party) = self.parties.get_mut(&leg) else { return };
        if party.source == source {
            return;
        }
        party.told_played = false;
        party.sound = match &source {
            Source::Music => Some(Sound::new(music, true)),
            Source::Tone(tone) => Some(sound::tone(*tone)),
            Source::File { path, repeat } => match sound::wav(path) {
                Ok(samples) => Some(Sound::new(samples, *repeat)),
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "an announcement cannot be played");
                    Some(Sound::new(Arc::new([]), false))
                }
            },
            _ => None,
        };
        party.source = source;
        let mixing = self.parties.values().any(|p| p.source == Source::Mix);
        if !mixing {
            for party in self.parties.values_mut() {
                party.waiting.clear();
                party.pcm.clear();
                party.playing = None;
            }
        }
    }

    /// Sends a key as RFC 4733 events.
    pub fn press(&mut self, leg: LegId, key: char, millis: u32) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let event = TelephoneEvent { key, end: false, duration: 0 };
        let timestamp = party.sender.timestamp.wrapping_add(FRAME as u32);
        party.pressing.push_back(Pressing { event, left: millis.clamp(40, 5000) / 20, ends: 3, timestamp });
    }

    /// Whether [`Session::tick`] has anything to make.
    pub fn ticks(&self) -> bool {
        let busy = |p: &Party| {
            p.sound.is_some()
                || p.source == Source::Mix
                || !p.pressing.is_empty()
                || p.guard.as_ref().is_some_and(Guard::is_waiting)
        };
        self.parties.values().any(busy)
    }

    /// What is to be done, with everything sealed that has to be.
    pub fn outputs(&mut self) -> impl Iterator<Item = Out> + use<> {
        let mut all = Vec::with_capacity(self.out.len());
        for (leg, party) in &mut self.parties {
            if let Some(guard) = &mut party.guard {
                all.extend(guard.outputs().map(|(to, bytes)| Out::Wire(*leg, to, bytes)));
            }
        }
        for out in self.out.drain(..) {
            let sealed = match &out {
                Out::Rtp(leg, ..) | Out::Rtcp(leg, ..) => self.parties.get_mut(leg),
                _ => None,
            };
            let wants = sealed.filter(|p| p.agreed.as_ref().is_some_and(|a| a.sealing.is_some()));
            match (wants, out) {
                (None, out) => all.push(out),
                // Without its guard a sealed leg gets nothing.
                (Some(party), out) => all.extend(party.guard.as_mut().and_then(|g| sealed_out(g, out))),
            }
        }
        all.into_iter()
    }

    /// A datagram from a leg's peer: sealed or not, media, or what keeps its way open.
    pub fn datagram(&mut self, now: Instant, leg: LegId, from: SocketAddr, data: &[u8], control: bool) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let opened = match (&mut party.guard, &party.agreed) {
            (Some(guard), _) => {
                let done = guard.receive(now, from, data);
                guarded(leg, done).flatten()
            }
            (None, Some(Agreed { sealing: Some(_), .. })) => None,
            (None, _) if control => return self.control(now, leg, from, data),
            (None, _) => return self.packet(now, leg, from, data),
        };
        let video = party.agreed.as_ref().and_then(|a| a.video.as_ref()).filter(|v| v.bundled);
        let pictures = |data: &[u8]| {
            video.is_some_and(|v| data.get(1).is_some_and(|b| v.payloads.contains(&(b & 0x7f))))
        };
        match opened {
            Some(Opened::Rtp(data)) if pictures(&data) => self.pass(leg, &data, false),
            Some(Opened::Rtp(data)) => self.packet(now, leg, from, &data),
            Some(Opened::Rtcp(data)) => {
                if video.is_some() {
                    self.pass_feedback(leg, &data);
                }
                self.control(now, leg, from, &data);
            }
            None => {}
        }
    }

    /// A datagram at a leg's sockets for pictures.
    pub fn picture(&mut self, leg: LegId, from: SocketAddr, data: &[u8], control: bool) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(video) = party.agreed.as_ref().and_then(|a| a.video.as_ref()) else { return };
        let latched = &mut party.latched_video[usize::from(control)];
        if video.bundled || latched.is_some_and(|l| l.ip() != from.ip()) && from.ip() != video.remote.ip() {
            return;
        }
        *latched = Some(from);
        let known = data.first().is_some_and(|b| b >> 6 == 2)
            && (control || data.get(1).is_some_and(|b| video.payloads.contains(&(b & 0x7f))));
        if known {
            self.pass(leg, data, control);
        }
    }

    /// Pictures, or what is said of them, to whoever listens to this leg.
    fn pass(&mut self, leg: LegId, data: &[u8], control: bool) {
        for (id, party) in &self.parties {
            let video = party.agreed.as_ref().filter(|a| a.hears).and_then(|a| a.video.as_ref());
            let Some(video) = video.filter(|_| party.source == Source::Leg(leg)) else { continue };
            let out = match (video.bundled, control) {
                (true, _) => {
                    let Some(to) = party.to() else { continue };
                    let out = if control { Out::Rtcp } else { Out::Rtp };
                    out(*id, to, data.to_vec())
                }
                (false, true) => {
                    Out::VideoRtcp(*id, party.latched_video[1].unwrap_or(video.rtcp), data.to_vec())
                }
                (false, false) => {
                    Out::Video(*id, party.latched_video[0].unwrap_or(video.remote), data.to_vec())
                }
            };
            self.out.push(out);
        }
    }

    /// Of a bundled leg's reports, the feedback on pictures (RFC 4585) passes; audio's are ours.
    fn pass_feedback(&mut self, leg: LegId, data: &[u8]) {
        for packet in compound(data) {
            if matches!(packet[1], 205 | 206) {
                self.pass(leg, packet, true);
            }
        }
    }

    /// A packet of a leg's peer, in the clear.
    fn packet(&mut self, now: Instant, leg: LegId, from: SocketAddr, data: &[u8]) {
        let Some(packet) = Packet::parse(data) else { return };
        let arrival = (now.duration_since(self.started).as_micros() / 125) as u32;
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(agreed) = &party.agreed else { return };
        // Symmetric RTP: answers go to where packets come from, but only the host that was agreed on, or whoever speaks
        // first from behind a NAT, is believed.
        if party.latched != Some(from) {
            let expected = from.ip() == agreed.remote.ip();
            if party.latched.is_some_and(|l| l.ip() != from.ip()) && !expected {
                return;
            }
            party.latched = Some(from);
        }
        party.heard = now;
        let known = agreed.receives.iter().any(|c| c.payload == packet.payload_type);
        let event = agreed.events_in == Some(packet.payload_type);
        if !known && !event {
            return;
        }
        if party.remote_ssrc.replace(packet.ssrc).is_some_and(|before| before != packet.ssrc) {
            party.reception.restart();
            party.waiting.clear();
            party.playing = None;
        }
        let extended = party.reception.count(&packet, arrival);
        if event {
            return self.event(leg, &packet);
        }
        let in_band = agreed.events_in.is_none();
        let code = agreed.receives.iter().find(|c| c.payload == packet.payload_type).cloned();
        let Some(code) = code else { return };

        let mixing = self.parties.values().any(|p| p.source == Source::Mix);
        let listeners: Vec<LegId> =
            self.parties.iter().filter(|(_, p)| p.source == Source::Leg(leg)).map(|(id, _)| *id).collect();
        let alike = |p: &Party| p.agreed.as_ref().is_some_and(|a| a.codec.same(&code));
        let transcode = listeners.iter().any(|l| self.parties.get(l).is_some_and(|p| !alike(p)));
        let mut samples = None;
        if mixing || transcode || in_band {
            samples = self.parties.get_mut(&leg).and_then(|p| p.decode(&packet));
        }
        if let (true, Some(samples)) = (in_band, &samples)
            && let Some(key) = self.parties.get_mut(&leg).and_then(|p| p.keys.feed(samples))
        {
            self.out.push(Out::Event(leg, MediaEvent::Key(key)));
        }
        for listener in listeners {
            let Some(p) = self.parties.get_mut(&listener) else { continue };
            let stream = Stream::Of(leg, packet.ssrc);
            let sent = if alike(p) {
                let payload_type = p.agreed.as_ref().map_or(0, |a| a.codec.payload);
                p.emit(stream, Packet { payload_type, ..packet })
            } else {
                let Some(payload) = samples.as_ref().and_then(|s| p.encode(s)) else { continue };
                let payload_type = p.agreed.as_ref().map_or(0, |a| a.codec.payload);
                p.emit(stream, Packet { payload_type, payload: &payload, ..packet })
            };
            if let Some((to, bytes)) = sent {
                self.out.push(Out::Rtp(listener, to, bytes));
            }
        }
        if let (true, Some(samples), Some(p)) = (mixing, samples, self.parties.get_mut(&leg)) {
            let late = p.playing.is_some_and(|at| extended <= at);
            if !late && p.waiting.len() <= 2 * TOO_MANY {
                p.waiting.insert(extended, samples);
            }
        }
    }

    /// A telephone event: it passes to listeners that take events; its end is told once.
    fn event(&mut self, leg: LegId, packet: &Packet<'_>) {
        let listeners: Vec<LegId> =
            self.parties.iter().filter(|(_, p)| p.source == Source::Leg(leg)).map(|(id, _)| *id).collect();
        for listener in listeners {
            let Some(p) = self.parties.get_mut(&listener) else { continue };
            let Some(payload_type) = p.agreed.as_ref().and_then(|a| a.events) else { continue };
            let sent = p.emit(Stream::Of(leg, packet.ssrc), Packet { payload_type, ..*packet });
            if let Some((to, bytes)) = sent {
                self.out.push(Out::Rtp(listener, to, bytes));
            }
        }
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(event) = TelephoneEvent::parse(packet.payload) else { return };
        if event.end && party.last_event != Some(packet.timestamp) {
            party.last_event = Some(packet.timestamp);
            self.out.push(Out::Event(leg, MediaEvent::Key(event.key)));
        }
    }

    /// Makes 20 ms of everything that is made here.
    pub fn tick(&mut self, now: Instant) {
        for (leg, party) in &mut self.parties {
            if let Some(guard) = party.guard.as_mut().filter(|g| g.is_waiting()) {
                let done = guard.timeout(now);
                guarded(*leg, done);
            }
        }
        let mixing = self.parties.values().any(|p| p.source == Source::Mix);
        let said: Vec<(LegId, [i16; FRAME])> = match mixing {
            true => self.parties.iter_mut().map(|(id, p)| (*id, p.next())).collect(),
            false => Vec::new(),
        };
        let mut sum = [0i32; FRAME];
        for (_, frame) in &said {
            sum.iter_mut().zip(frame).for_each(|(s, f)| *s += i32::from(*f));
        }
        for (id, party) in &mut self.parties {
            if let Some(bytes) = press_on(party) {
                self.out.push(Out::Rtp(*id, bytes.0, bytes.1));
                continue;
            }
            let frame = match (&mut party.sound, &party.source) {
                (Some(sound), _) => match sound.frame() {
                    Some(frame) => frame,
                    None => {
                        if !std::mem::replace(&mut party.told_played, true) {
                            self.out.push(Out::Event(*id, MediaEvent::Played));
                        }
                        party.sound = None;
                        continue;
                    }
                },
                (None, Source::Mix) => {
                    let own = said.iter().find(|(o, _)| o == id).map_or([0; FRAME], |(_, f)| *f);
                    std::array::from_fn(|i| {
                        (sum[i] - i32::from(own[i])).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
                    })
                }
                _ => continue,
            };
            if let Some((to, bytes)) = party.make(&frame) {
                self.out.push(Out::Rtp(*id, to, bytes));
            }
        }
    }

    // ---- RTCP

    /// A control packet of a leg's peer.
    fn control(&mut self, now: Instant, leg: LegId, from: SocketAddr, data: &[u8]) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        party.latched_rtcp = Some(from);
        for packet in compound(data) {
            let reports = match packet[1] {
                200 if packet.len() >= 28 => {
                    // The middle of its time, to be named in our report.
                    let middle = u32::from_be_bytes([packet[10], packet[11], packet[12], packet[13]]);
                    party.last_report = Some((middle, now));
                    &packet[28..]
                }
                201 if packet.len() >= 8 => &packet[8..],
                _ => continue,
            };
            for block in reports.as_chunks::<24>().0 {
                let word =
                    |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
                if word(0) != party.sender.ssrc {
                    continue;
                }
                party.peer_lost = Some(block[4]);
                let (last, delay) = (word(16), word(20));
                if last != 0 {
                    let here = ntp_middle(now.duration_since(self.started));
                    let trip = here.wrapping_sub(last).wrapping_sub(delay);
                    party.round_trip =
                        (trip < 1 << 22).then_some(trip.wrapping_mul(1000) >> 16).or(party.round_trip);
                }
            }
        }
    }

    /// Reports to the peers, and finds legs that have gone silent; every few seconds.
    pub fn housekeeping(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.started);
        for (id, party) in &mut self.parties {
            if let Some(guard) = &mut party.guard {
                let done = guard.timeout(now);
                guarded(*id, done);
            }
            let Some(agreed) = &party.agreed else { continue };
            if now.duration_since(party.heard) >= SILENT && agreed.hears {
                party.heard = now;
                self.out.push(Out::Event(*id, MediaEvent::Silent));
            }
            if party.reception.packets == 0 && party.sender.packets == 0 {
                continue;
            }
            let quality = Quality {
                codec: agreed.codec.name.clone(),
                received: party.reception.packets,
                lost: party.reception.lost,
                jitter_ms: party.reception.jitter / 8.0,
                sent: party.sender.packets,
                peer_lost_percent: party.peer_lost.map(|l| f64::from(l) * 100.0 / 256.0),
                round_trip_ms: party.round_trip,
            };
            self.out.push(Out::Event(*id, MediaEvent::Quality(quality)));
            let to = party.latched_rtcp.unwrap_or(agreed.rtcp);
            let bytes = report(party, elapsed, now);
            self.out.push(Out::Rtcp(*id, to, bytes));
        }
    }
}

/// The packets of a compound one (RFC 3550, 6.1), each of four bytes at least.
fn compound(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])) * 4 + 4;
        let (packet, after) = rest.split_at_checked(length).filter(|_| head[0] >> 6 == 2)?;
        rest = after;
        Some(packet)
    })
}

/// A packet as the wire sees it; none while there are no keys.
fn sealed_out(guard: &mut Guard, out: Out) -> Option<Out> {
    match out {
        Out::Rtp(leg, to, bytes) => Some(Out::Rtp(leg, to, guard.seal_rtp(&bytes)?)),
        Out::Rtcp(leg, to, bytes) => {
            let bytes = guard.seal_rtcp(&bytes)?;
            match guard.peer().filter(|_| guard.muxes()) {
                Some(peer) => Some(Out::Wire(leg, peer, bytes)),
                None => Some(Out::Rtcp(leg, to, bytes)),
            }
        }
        out => Some(out),
    }
}

/// The next packet of a key that is being sent.
fn press_on(party: &mut Party) -> Option<(SocketAddr, Vec<u8>)> {
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

/// Middle 32 bits of a 64-bit NTP time, counted from the session's beginning.
fn ntp_middle(elapsed: Duration) -> u32 {
    ((elapsed.as_secs() as u32) << 16) | ((u64::from(elapsed.subsec_nanos()) << 16) / 1_000_000_000) as u32
}

/// A sender report with one block (RFC 3550, 6.4.1), and who we are.
fn report(party: &Party, elapsed: Duration, now: Instant) -> Vec<u8> {
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

#[cfg(test)]
mod tests;
