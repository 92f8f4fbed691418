//! The packets of one call, without sockets: what a leg sends goes to those who hear it; what nobody sends is made here.
//!
//! Where two legs code alike, packets pass with their numbers rewritten. Else they are decoded and encoded one by one.
//! Mixes, tones and music are made every 20 ms, from what [`crate::playout`] has put in order; mixes are wide-band.

mod latch;
mod party;
mod report;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use call::{
    LegId, MediaEvent,
    media::{Quality, Source},
};

use crate::{
    coding::{NARROW, Pcm, Rates, WIDE},
    guard::{Guard, GuardError, Opened},
    playout,
    rtp::{Packet, TelephoneEvent},
    sdp::{Codec, EventFormat},
    sealing::Settled,
    sound::{self, FRAME, Library, Sound},
};
use latch::Expected;
pub use latch::Latching;
use party::{Party, Pressing, Stream, press_on};
use report::{compound, ntp_middle, report};

/// A leg that sends nothing for so long has gone (the manual's `rtp-timeout`).
pub const SILENT: Duration = Duration::from_secs(350);
/// How long a sealed leg may take for its handshake; then its call ends, rather than be deaf.
pub const UNSEALED: Duration = Duration::from_secs(10);
/// 20 ms of a mix.
const WIDE_FRAME: usize = playout::FRAME;

/// What negotiation settled for a leg.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    pub remote: SocketAddr,
    pub rtcp: SocketAddr,
    /// The host that the peer's signalling comes from: where a phone behind a NAT really is.
    pub signalled: Option<IpAddr>,
    /// What we send.
    pub codec: Codec,
    /// All it may send, by our numbers.
    pub receives: Vec<Codec>,
    /// How we send events.
    pub events: Option<EventFormat>,
    /// How they may come to us.
    pub events_in: Vec<EventFormat>,
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

/// Keys that wait to be sent to one leg.
const PRESSINGS: usize = 64;
/// How long a key is passed on in a conference, where it has only begun, milliseconds.
const PRESSED: u32 = 100;

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
    /// What one party said, and all others, in 20 ms: for whoever listens in.
    Tap(u64, Box<[[i16; FRAME]; 2]>),
    Event(LegId, MediaEvent),
    /// Read a file that a leg shall hear, elsewhere than here; [`Session::loaded`] takes it.
    Load(LegId, PathBuf),
}

/// How a session treats packets.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Below this level a party of a conference is not mixed in, dBFS.
    pub threshold: i8,
    pub latching: Latching,
}

/// A listener that is no party: one party apart from all others.
struct Tap {
    left: LegId,
    rates: [Rates; 2],
}

/// The media of one call.
pub struct Session {
    parties: BTreeMap<LegId, Party>,
    taps: BTreeMap<u64, Tap>,
    policy: Policy,
    library: Arc<Library>,
    started: Instant,
    out: Vec<Out>,
}

/// A guard that has failed takes no more part: nothing passes in the clear instead.
fn guarded<T>(leg: LegId, guard: &mut Option<Guard>, done: Result<T, GuardError>) -> Option<T> {
    if let (Err(e), Some(guard)) = (&done, guard.as_mut()) {
        tracing::warn!(%leg, error = %e, "a sealed leg is not heard");
        guard.shut();
    }
    done.ok()
}

impl Session {
    pub fn new(library: Arc<Library>, policy: Policy, now: Instant) -> Self {
        let (parties, taps) = (BTreeMap::new(), BTreeMap::new());
        Self { parties, taps, policy, library, started: now, out: Vec::new() }
    }

    /// Listens in from now on: `left` is apart from all others.
    pub fn tap(&mut self, tap: u64, left: LegId) {
        self.taps.insert(tap, Tap { left, rates: Default::default() });
    }

    pub fn untap(&mut self, tap: u64) {
        self.taps.remove(&tap);
        self.rest();
    }

    /// Whether the others of a mix do not hear a leg.
    pub fn mute(&mut self, leg: LegId, on: bool) {
        if let Some(party) = self.parties.get_mut(&leg) {
            party.muted = on;
        }
    }

    /// Whether what parties say is put in order here.
    fn gathers(&self) -> bool {
        !self.taps.is_empty() || self.parties.values().any(|p| p.source == Source::Mix)
    }

    /// What was put in order is of no use when nobody wants it.
    fn rest(&mut self) {
        if !self.gathers() {
            self.parties.values_mut().for_each(|p| p.playout.restart());
        }
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
            guarded(leg, &mut party.guard, done);
            party.unsealed = party.guard.as_ref().filter(|g| g.is_waiting()).map(|_| now);
        }
        if party.agreed.as_ref().is_none_or(|a| a.remote != agreed.remote) {
            // It has moved: what came from the old place counts no more.
            party.latch = latch::Latch::default();
            party.latched_rtcp = None;
        }
        party.agreed = Some(agreed);
        party.decoder = None;
    }

    pub fn hear(&mut self, leg: LegId, source: Source) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        if party.source == source {
            return;
        }
        party.told_played = false;
        party.sound = match &source {
            Source::Music => Some(Sound::new(self.library.music(), true)),
            Source::Tone(tone) => Some(sound::tone(*tone)),
            Source::File { path, repeat } => match self.library.kept(path) {
                Some(samples) => Some(Sound::new(samples, *repeat)),
                None => {
                    self.out.push(Out::Load(leg, path.clone()));
                    None
                }
            },
            _ => None,
        };
        party.source = source;
        self.rest();
    }

    /// A file has been read for a leg that still wants it.
    pub fn loaded(&mut self, leg: LegId, path: &Path, samples: Arc<[i16]>) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        if let Source::File { path: wanted, repeat } = &party.source
            && wanted == path
            && party.sound.is_none()
        {
            party.sound = Some(Sound::new(samples, *repeat));
        }
    }

    /// Sends a key as RFC 4733 events.
    pub fn press(&mut self, leg: LegId, key: char, millis: u32) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let event = TelephoneEvent { key, end: false, duration: 0 };
        if party.pressing.len() < PRESSINGS {
            let left = millis.clamp(40, 5000) / 20;
            party.pressing.push_back(Pressing { event, left, ends: 3, timestamp: 0 });
        }
    }

    /// Whether [`Session::tick`] has anything to make.
    pub fn ticks(&self) -> bool {
        let busy = |p: &Party| {
            p.sound.is_some()
                || p.source == Source::Mix
                || !p.pressing.is_empty()
                || p.guard.as_ref().is_some_and(Guard::is_waiting)
        };
        !self.taps.is_empty() || self.parties.values().any(busy)
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
                guarded(leg, &mut party.guard, done).flatten()
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
    pub fn picture(&mut self, now: Instant, leg: LegId, from: SocketAddr, data: &[u8], control: bool) {
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(agreed) = &party.agreed else { return };
        let Some(video) = agreed.video.as_ref().filter(|v| !v.bundled) else { return };
        let described = if control { video.rtcp } else { video.remote };
        let expected = Expected { described, signalled: agreed.signalled, latching: self.policy.latching };
        // Reports have no numbers: each is one behind the last.
        let latch = &mut party.latch_video[usize::from(control)];
        let (ssrc, number) = match Packet::parse(data).filter(|_| !control) {
            Some(packet) => (packet.ssrc, packet.sequence),
            None => (0, latch.next_number()),
        };
        if !latch.believes(from, ssrc, number, &expected, now) {
            return;
        }
        let known = data.first().is_some_and(|b| b >> 6 == 2)
            && (control || data.get(1).is_some_and(|b| video.payloads.contains(&(b & 0x7f))));
        if known {
            self.pass(leg, data, control);
        }
    }

    /// A leg wants a whole picture of the one it sees: that one is told as a browser would tell it (RFC 4585, 6.3.1).
    pub fn want_picture(&mut self, leg: LegId) {
        let Some(Source::Leg(seen)) = self.parties.get(&leg).map(|p| p.source.clone()) else { return };
        let Some(stream) = self.parties.get(&seen).and_then(|p| p.picture_ssrc) else { return };
        let mut lost = vec![0x81, 206, 0, 2, 0, 0, 0, 0];
        lost.extend(stream.to_be_bytes());
        self.pass(leg, &lost, true);
    }

    /// Pictures, or what is said of them, to whoever listens to this leg.
    fn pass(&mut self, leg: LegId, data: &[u8], control: bool) {
        if let (false, Some(ssrc), Some(party)) =
            (control, data.get(8..12).and_then(|b| b.try_into().ok()), self.parties.get_mut(&leg))
        {
            party.picture_ssrc = Some(u32::from_be_bytes(ssrc));
        }
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
                    Out::VideoRtcp(*id, party.latch_video[1].at().unwrap_or(video.rtcp), data.to_vec())
                }
                (false, false) => {
                    Out::Video(*id, party.latch_video[0].at().unwrap_or(video.remote), data.to_vec())
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
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(agreed) = &party.agreed else { return };
        let latching = self.policy.latching;
        let expected = Expected { described: agreed.remote, signalled: agreed.signalled, latching };
        // A packet that a guard has opened is the peer's, wherever it comes from.
        let sealed = agreed.sealing.is_some();
        if !sealed && !party.latch.believes(from, packet.ssrc, packet.sequence, &expected, now) {
            metrics::counter!("hypha_media_strangers_total").increment(1);
            return;
        }
        party.heard = now;
        let event = agreed.events_in.iter().find(|e| e.payload == packet.payload_type).copied();
        let code = agreed.receives.iter().find(|c| c.payload == packet.payload_type).cloned();
        if code.is_none() && event.is_none() {
            return;
        }
        let clock = code.as_ref().map_or(agreed.codec.clock, |c| c.clock);
        if party.remote_ssrc.replace(packet.ssrc).is_some_and(|before| before != packet.ssrc) {
            party.reception.restart();
            party.playout.restart();
            party.last_event = None;
        }
        let micros = now.duration_since(self.started).as_micros() as u64;
        let number = party.reception.count(&packet, micros, clock);
        if let Some(event) = event {
            return self.event(leg, &packet, event.clock);
        }
        let in_band = agreed.events_in.is_empty();
        let Some(code) = code else { return };
        let mixing = self.gathers();
        let listeners: Vec<LegId> =
            self.parties.iter().filter(|(_, p)| p.source == Source::Leg(leg)).map(|(id, _)| *id).collect();
        let alike = |p: &Party| p.agreed.as_ref().is_some_and(|a| a.codec.same(&code));
        let transcode = listeners.iter().any(|l| self.parties.get(l).is_some_and(|p| !alike(p)));
        let mut pcm = None;
        if transcode || in_band {
            pcm = self.parties.get_mut(&leg).and_then(|p| p.decode(&packet));
        }
        if let (true, Some(pcm)) = (in_band, &pcm)
            && let Some(key) = self.parties.get_mut(&leg).and_then(|p| p.find_key(pcm))
        {
            self.out.push(Out::Event(leg, MediaEvent::Key(key)));
        }
        let stream = Stream::Of(leg, packet.ssrc);
        for listener in listeners {
            let Some(p) = self.parties.get_mut(&listener) else { continue };
            let payload_type = p.agreed.as_ref().map_or(0, |a| a.codec.payload);
            let sent: Vec<_> = if alike(p) {
                p.emit(stream, clock, Packet { payload_type, ..packet }).into_iter().collect()
            } else {
                let Some(pcm) = &pcm else { continue };
                match p.frames() {
                    true => p.emit_framed(stream, clock, &packet, pcm),
                    false => {
                        let payload = p.encode(pcm).and_then(|all| all.into_iter().next());
                        let made = |payload: Vec<u8>| {
                            p.emit(stream, clock, Packet { payload_type, payload: &payload, ..packet })
                        };
                        payload.and_then(made).into_iter().collect()
                    }
                }
            };
            self.out.extend(sent.into_iter().map(|(to, bytes)| Out::Rtp(listener, to, bytes)));
        }
        if let (true, Some(p)) = (mixing, self.parties.get_mut(&leg)) {
            let at = p.reception.milliseconds(packet.timestamp, clock);
            p.playout.insert(number, packet.payload_type, packet.payload, at, micros as f64 / 1000.0);
        }
    }

    /// A telephone event: it passes to listeners that take events; its end is told once, and then pressed for those who hear
    /// the party in a mix.
    fn event(&mut self, leg: LegId, packet: &Packet<'_>, units: u32) {
        let listeners: Vec<LegId> =
            self.parties.iter().filter(|(_, p)| p.source == Source::Leg(leg)).map(|(id, _)| *id).collect();
        let clock = self.clock(leg);
        for listener in listeners {
            let Some(p) = self.parties.get_mut(&listener) else { continue };
            let Some(format) = p.agreed.as_ref().and_then(|a| a.events) else { continue };
            // Lengths are in the units of the format that each side has.
            let mut payload = packet.payload.to_vec();
            if format.clock != units
                && let Some([high, low]) = payload.get_mut(2..4)
            {
                let length = u64::from(u16::from_be_bytes([*high, *low])) * u64::from(format.clock)
                    / u64::from(units.max(1));
                [*high, *low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            }
            let packet = Packet { payload_type: format.payload, payload: &payload, ..*packet };
            let sent = p.emit(Stream::Of(leg, packet.ssrc), clock, packet);
            if let Some((to, bytes)) = sent {
                self.out.push(Out::Rtp(listener, to, bytes));
            }
        }
        let Some(party) = self.parties.get_mut(&leg) else { return };
        let Some(event) = TelephoneEvent::parse(packet.payload) else { return };
        // Known by its beginning: its ends may all be lost (RFC 4733, 2.5.1.4). An older one comes late.
        let newer = |last: u32| packet.timestamp != last && packet.timestamp.wrapping_sub(last) < 1 << 31;
        if party.last_event.is_none_or(newer) {
            party.last_event = Some(packet.timestamp);
            self.out.push(Out::Event(leg, MediaEvent::Key(event.key)));
            let muted = party.muted;
            let mixed =
                self.parties.iter().filter(|(id, p)| **id != leg && p.source == Source::Mix && !muted);
            let mixed: Vec<LegId> = mixed.map(|(id, _)| *id).collect();
            for other in mixed {
                self.press(other, event.key, (u32::from(event.duration) * 1000 / units.max(1)).max(PRESSED));
            }
        }
    }

    /// The RTP clock of what a leg sends.
    fn clock(&self, leg: LegId) -> u32 {
        self.parties.get(&leg).and_then(|p| p.agreed.as_ref()).map_or(NARROW, |a| a.codec.clock)
    }

    /// Makes 20 ms of everything that is made here.
    pub fn tick(&mut self, now: Instant) {
        for (leg, party) in &mut self.parties {
            if let Some(guard) = party.guard.as_mut().filter(|g| g.is_waiting()) {
                let done = guard.timeout(now);
                guarded(*leg, &mut party.guard, done);
            }
        }
        let said: Vec<(LegId, [i16; WIDE_FRAME], bool)> = match self.gathers() {
            true => {
                let threshold = self.policy.threshold;
                let next = |(id, p): (&LegId, &mut Party)| {
                    let codecs = p.agreed.as_ref().map_or(&[][..], |a| &a.receives);
                    let frame = p.playout.frame(codecs);
                    (*id, frame, p.gate.passes(&frame, threshold) && !p.muted)
                };
                self.parties.iter_mut().map(next).collect()
            }
            false => Vec::new(),
        };
        for (number, tap) in &mut self.taps {
            let left = tap.left;
            let mut side = |is_left: bool| {
                let frames = said.iter().filter(|(id, ..)| (*id == left) == is_left).map(|(_, f, _)| f);
                let pcm = Pcm { rate: WIDE, samples: mixed(frames).to_vec() };
                let narrow = tap.rates[usize::from(is_left)].to(NARROW, &pcm);
                std::array::from_fn(|i| narrow.get(i).copied().unwrap_or(0))
            };
            let frames = Box::new([side(true), side(false)]);
            self.out.push(Out::Tap(*number, frames));
        }
        for (id, party) in &mut self.parties {
            if let Some(bytes) = press_on(party) {
                self.out.push(Out::Rtp(*id, bytes.0, bytes.1));
                continue;
            }
            let frame = match (&mut party.sound, &party.source) {
                (Some(sound), _) => match sound.frame() {
                    Some(frame) => Pcm { rate: NARROW, samples: frame.to_vec() },
                    None => {
                        if !std::mem::replace(&mut party.told_played, true) {
                            self.out.push(Out::Event(*id, MediaEvent::Played));
                        }
                        party.sound = None;
                        continue;
                    }
                },
                // A party that is silent adds only noise.
                (None, Source::Mix) => {
                    let others = said.iter().filter(|(o, _, speaks)| o != id && *speaks);
                    Pcm { rate: WIDE, samples: mixed(others.map(|(_, f, _)| f)).to_vec() }
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
        let Some(agreed) = &party.agreed else { return };
        // Reports in the clear count from the hosts that packets may come from, and only where they are reports: the answer is
        // larger than a byte that a stranger sends.
        let host = |ip: IpAddr| ip.to_canonical();
        let hosts = [Some(agreed.rtcp.ip()), Some(agreed.remote.ip()), party.latch.at().map(|a| a.ip())];
        let known = hosts.into_iter().flatten().any(|ip| host(ip) == host(from.ip()));
        let sender = compound(data).next().filter(|p| matches!(p[1], 200 | 201)).and_then(|p| p.get(4..8));
        if agreed.sealing.is_none() && !(known && sender.is_some()) {
            return;
        }
        // From elsewhere than agreed, a report counts where it names the stream that is heard.
        let names = |ssrc: u32| sender == Some(&ssrc.to_be_bytes()[..]);
        let agreed_on = from == agreed.rtcp || party.remote_ssrc.is_none_or(names);
        if agreed.sealing.is_none() && !agreed_on {
            return;
        }
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
                guarded(*id, &mut party.guard, done);
            }
            // Said again until the call acts on it: before it is answered, a peer may not begin yet.
            if party.unsealed.is_some_and(|since| now.duration_since(since) >= UNSEALED) {
                match party.guard.as_ref().is_some_and(Guard::is_ready) {
                    true => party.unsealed = None,
                    false => self.out.push(Out::Event(*id, MediaEvent::Unsealed)),
                }
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
                jitter_ms: party.reception.jitter * 1000.0 / f64::from(agreed.codec.clock.max(1)),
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

/// Voices together, as loud as a sample can be.
fn mixed<'f>(frames: impl Iterator<Item = &'f [i16; WIDE_FRAME]>) -> [i16; WIDE_FRAME] {
    let mut sum = [0i32; WIDE_FRAME];
    for frame in frames {
        sum.iter_mut().zip(frame).for_each(|(s, f)| *s += i32::from(*f));
    }
    sum.map(|s| s.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16)
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

#[cfg(test)]
mod tests;
