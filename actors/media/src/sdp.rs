//! Session descriptions (RFC 8866) as offers and answers (RFC 3264): what the peer can, and what we say.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use call::MediaError;

use crate::sealing::{Ours, Sealing};

/// A way to code audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    pub payload: u8,
    /// As `rtpmap` has it, in the peer's case: `PCMA`, `opus`.
    pub name: String,
    pub clock: u32,
    pub channels: u8,
    pub fmtp: Option<String>,
}

impl Codec {
    fn new(payload: u8, name: &str, clock: u32) -> Self {
        Self { payload, name: name.to_owned(), clock, channels: 1, fmtp: None }
    }

    /// The same coding, whatever its number.
    pub fn same(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
            && self.clock == other.clock
            // Opus is always written with two (RFC 7587, 7); some leave that out.
            && (self.channels == other.channels || self.is(OPUS))
    }

    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn write(&self, sdp: &mut String) {
        // Writing to memory does not fail.
        let _ = write!(sdp, "a=rtpmap:{} {}/{}", self.payload, self.name, self.clock);
        if self.channels > 1 {
            let _ = write!(sdp, "/{}", self.channels);
        }
        sdp.push_str("\r\n");
        if let Some(fmtp) = &self.fmtp {
            let _ = write!(sdp, "a=fmtp:{} {fmtp}\r\n", self.payload);
        }
    }
}

const OPUS: &str = "opus";

/// The codings that we decode and encode ourselves, in the order of an offer: the cheapest first.
pub fn own() -> [Codec; 4] {
    let opus = Codec {
        channels: 2,
        fmtp: Some("useinbandfec=1;maxplaybackrate=16000;stereo=0;sprop-stereo=0".to_owned()),
        ..Codec::new(111, OPUS, 48_000)
    };
    [Codec::new(8, "PCMA", 8000), Codec::new(0, "PCMU", 8000), Codec::new(9, "G722", 8000), opus]
}

/// Whether a coding is one of ours.
pub fn is_own(codec: &Codec) -> bool {
    own().iter().any(|o| o.same(codec))
}

pub const EVENTS: &str = "telephone-event";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|d| d.name() == name)
    }

    /// Ours, where the peer's is this.
    pub fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same => same,
        }
    }
}

/// A format of telephone events. Their clock is that of the audio between which they stand (RFC 4733, 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventFormat {
    pub payload: u8,
    pub clock: u32,
}

/// The format that goes with a coding; where there is none, the usual one: many phones know no other.
pub fn events_of(all: &[EventFormat], clock: u32) -> Option<EventFormat> {
    let of = |clock: u32| all.iter().find(|e| e.clock == clock).copied();
    of(clock).or_else(|| of(NARROW))
}

/// Clocks of the codings that we make.
const NARROW: u32 = 8000;
const WIDE: u32 = 48_000;

/// The peer's audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub address: SocketAddr,
    pub rtcp: SocketAddr,
    pub codecs: Vec<Codec>,
    pub events: Vec<EventFormat>,
    pub direction: Direction,
    /// Which `m=` line the audio is, and what the others were.
    pub index: usize,
    pub others: Vec<(usize, String)>,
    /// As its line names it; an answer says the same.
    pub proto: String,
    pub sealing: Sealing,
    /// Its name in the description (RFC 5888).
    pub mid: Option<String>,
    pub video: Option<Video>,
}

/// The peer's pictures; they pass as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    pub index: usize,
    pub address: SocketAddr,
    pub rtcp: SocketAddr,
    pub proto: String,
    pub sealing: Sealing,
    pub mid: Option<String>,
    pub codecs: Vec<Codec>,
    /// Values of `rtcp-fb`.
    pub feedback: Vec<String>,
    pub direction: Direction,
    /// Its line in an answer that refuses it.
    refused: String,
}

/// Codings of pictures that pass. Repairs (`rtx`, `red`, FEC) are bound to sources by name, and stay between the peer and us.
const PICTURES: [&str; 7] = ["H264", "VP8", "VP9", "AV1", "H265", "H263-1998", "H263"];
/// Feedback that one peer understands of the other.
const FEEDBACK: [&str; 4] = ["nack", "nack pli", "ccm fir", "goog-remb"];

/// Names of static payload types (RFC 3551) that may come without `rtpmap`.
fn well_known(payload: u8) -> Option<Codec> {
    let (name, clock) = match payload {
        0 => ("PCMU", 8000),
        3 => ("GSM", 8000),
        8 => ("PCMA", 8000),
        9 => ("G722", 8000),
        18 => ("G729", 8000),
        _ => return None,
    };
    Some(Codec::new(payload, name, clock))
}

/// Codings of one description at most.
const LIMIT: usize = 64;

/// A media line with the session's lines behind it.
struct Line<'s> {
    session: &'s sdp_types::Session,
    media: &'s sdp_types::Media,
    /// The host that the peer's signalling comes from.
    signalled: Option<IpAddr>,
}

impl<'s> Line<'s> {
    fn values(attributes: &'s [sdp_types::Attribute], name: &str) -> Vec<&'s str> {
        let named = attributes.iter().filter(|a| a.attribute.eq_ignore_ascii_case(name));
        named.filter_map(|a| a.value.as_deref()).collect()
    }

    fn attribute(&self, name: &str) -> Vec<&'s str> {
        Self::values(&self.media.attributes, name)
    }

    fn sealing(&self) -> Option<Sealing> {
        Sealing::parse(&self.media.proto, |name| {
            let here = self.attribute(name);
            if here.is_empty() { Self::values(&self.session.attributes, name) } else { here }
        })
    }

    /// Where packets and reports go.
    fn addresses(&self) -> Result<(SocketAddr, SocketAddr), MediaError> {
        let malformed = |text: &str| MediaError::Malformed(text.to_owned());
        let connection = self.media.connections.first().or(self.session.connection.as_ref());
        let connection = connection.ok_or_else(|| malformed("no c= line"))?;
        let text = connection.connection_address.split('/').next().unwrap_or_default();
        // A host name (RFC 8866, 5.7) is not looked up while a call waits: packets go to the host that signals, until they show where
        // they come from.
        let name =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let signalled = self.signalled.filter(|_| name);
        let ip: IpAddr = text.parse().ok().or(signalled).ok_or_else(|| malformed("c= is no address"))?;
        let rtcp = self.attribute("rtcp").first().and_then(|r| r.split(' ').next()?.parse().ok());
        let rtcp = rtcp.unwrap_or(self.media.port.saturating_add(1));
        Ok((SocketAddr::new(ip, self.media.port), SocketAddr::new(ip, rtcp)))
    }

    fn codecs(&self) -> Vec<Codec> {
        let of = |lines: &[&str], payload: u8| {
            lines
                .iter()
                .find_map(|l| l.strip_prefix(&payload.to_string())?.strip_prefix(' '))
                .map(str::to_owned)
        };
        let (maps, formats) = (self.attribute("rtpmap"), self.attribute("fmtp"));
        let payloads = self.media.fmt.split_whitespace().take(LIMIT).filter_map(|p| p.parse::<u8>().ok());
        let codec = |payload| {
            let codec =
                of(&maps, payload).and_then(|m| mapped(payload, &m)).or_else(|| well_known(payload))?;
            Some(Codec { fmtp: of(&formats, payload), ..codec })
        };
        payloads.filter_map(codec).collect()
    }

    fn direction(&self) -> Direction {
        let said = |a: &sdp_types::Attribute| Direction::parse(&a.attribute);
        let found = self.media.attributes.iter().find_map(said);
        found.or_else(|| self.session.attributes.iter().find_map(said)).unwrap_or_default()
    }

    fn mid(&self) -> Option<String> {
        self.attribute("mid").first().map(|m| (*m).to_owned())
    }

    fn refused(&self) -> String {
        format!("{} 0 {} {}", self.media.media, self.media.proto, self.media.fmt)
    }

    fn video(&self, index: usize) -> Option<Video> {
        let (address, rtcp) = self.addresses().ok()?;
        let pass = |c: &Codec| PICTURES.iter().any(|p| c.is(p));
        let codecs: Vec<Codec> = self.codecs().into_iter().filter(pass).collect();
        let wanted = |f: &&str| {
            let (payload, what) = f.split_once(' ').unwrap_or_default();
            FEEDBACK.contains(&what)
                && (payload == "*" || codecs.iter().any(|c| c.payload.to_string() == payload))
        };
        let feedback = self.attribute("rtcp-fb").into_iter().filter(wanted).map(str::to_owned).collect();
        let sealing = self.sealing()?;
        (!codecs.is_empty()).then(|| Video {
            index,
            address,
            rtcp,
            proto: self.media.proto.clone(),
            sealing,
            mid: self.mid(),
            feedback,
            codecs,
            direction: self.direction(),
            refused: self.refused(),
        })
    }
}

impl Remote {
    pub fn parse(sdp: &[u8]) -> Result<Self, MediaError> {
        Self::parse_from(sdp, None)
    }

    /// As [`Remote::parse`], of a peer whose signalling comes from a host.
    pub fn parse_from(sdp: &[u8], signalled: Option<IpAddr>) -> Result<Self, MediaError> {
        // Names and texts may be in another code page than RFC 8866 wants; nothing depends on them.
        let text = String::from_utf8_lossy(sdp);
        let sdp = text.as_bytes();
        let session = sdp_types::Session::parse(sdp)
            .or_else(|e| with_origin(sdp).map_or(Err(e), |mended| sdp_types::Session::parse(&mended)));
        let session = session.map_err(|e| MediaError::Malformed(e.to_string()))?;
        let of = |kind: &'static str| {
            let all = session.medias.iter().enumerate();
            all.filter(move |(_, m)| m.media.eq_ignore_ascii_case(kind) && m.port > 0)
        };
        // Of several sections the first that can be taken (RFC 3264, 6): one may be sealed in a way, or coded, as we cannot.
        let mut refusal = MediaError::Incompatible;
        for (index, _) in of("audio").take(16) {
            match Self::of(&session, index, of("video").next(), signalled) {
                Ok(remote) => return Ok(remote),
                Err(e) => refusal = e,
            }
        }
        Err(refusal)
    }

    /// With the audio of this section.
    fn of(
        session: &sdp_types::Session,
        index: usize,
        pictures: Option<(usize, &sdp_types::Media)>,
        signalled: Option<IpAddr>,
    ) -> Result<Self, MediaError> {
        let line = |media| Line { session, media, signalled };
        let media = session.medias.get(index).ok_or(MediaError::Incompatible)?;
        let audio = line(media);
        let (address, rtcp) = audio.addresses()?;
        let sealing = audio.sealing().ok_or(MediaError::Incompatible)?;
        let (mut codecs, mut events) = (Vec::new(), Vec::<EventFormat>::new());
        for codec in audio.codecs() {
            match codec {
                c if c.is(EVENTS) && [NARROW, WIDE].contains(&c.clock) => {
                    if events.iter().all(|e| e.clock != c.clock) {
                        events.push(EventFormat { payload: c.payload, clock: c.clock });
                    }
                }
                c if c.is(EVENTS) || c.is("CN") => {}
                c => codecs.push(c),
            }
        }
        if codecs.is_empty() {
            return Err(MediaError::Incompatible);
        }
        let direction = match audio.direction() {
            // Hold as it was before RFC 3264; in WebRTC the address is a place-holder.
            Direction::SendRecv
                if address.ip().is_unspecified() && !matches!(sealing, Sealing::Handshake(_)) =>
            {
                Direction::SendOnly
            }
            said => said,
        };
        let video = pictures.and_then(|(at, m)| line(m).video(at));
        let taken = video.as_ref().map(|v| v.index);
        let other = |(at, m): (usize, _)| (at != index && Some(at) != taken).then(|| (at, line(m).refused()));
        let others = session.medias.iter().enumerate().filter_map(other).take(16).collect();
        let (proto, mid) = (media.proto.clone(), audio.mid());
        Ok(Self { address, rtcp, codecs, events, direction, index, others, proto, sealing, mid, video })
    }

    /// The lines that an answer without video, or with it, refuses.
    pub fn refused(&self, video: bool) -> Vec<(usize, String)> {
        let pictures = self.video.iter().filter(|_| !video).map(|v| (v.index, v.refused.clone()));
        self.others.iter().cloned().chain(pictures).collect()
    }
}

/// With an origin that can be read in place of one that cannot: nothing here looks at it, and some phones leave a field out.
fn with_origin(sdp: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(sdp).ok()?;
    let fields = |line: &str| line.starts_with("o=") && line.split_ascii_whitespace().count() != 6;
    text.lines().any(fields).then(|| {
        let line = |l: &str| {
            if fields(l) { "o=- 0 0 IN IP4 0.0.0.0\r\n".to_owned() } else { format!("{}\r\n", l.trim_end()) }
        };
        text.lines().map(line).collect::<String>().into_bytes()
    })
}

fn mapped(payload: u8, map: &str) -> Option<Codec> {
    let mut parts = map.trim().split('/');
    let name = parts.next().filter(|n| !n.is_empty())?.to_owned();
    let clock = parts.next()?.trim().parse().ok()?;
    let channels = parts.next().and_then(|c| c.trim().parse().ok()).unwrap_or(1);
    Some(Codec { payload, name, clock, channels, fmtp: None })
}

/// What we say.
#[derive(Debug, Clone)]
pub struct Local<'l> {
    pub session: u64,
    pub version: u64,
    pub address: SocketAddr,
    pub codecs: &'l [Codec],
    pub events: &'l [EventFormat],
    pub direction: Direction,
    /// Where the audio stands among the lines, and lines of the peer that we refuse.
    pub index: usize,
    pub others: &'l [(usize, String)],
    /// As the peer's offer has it, in an answer.
    pub proto: Option<&'l str>,
    pub mid: Option<&'l str>,
    pub ours: &'l Ours,
    pub ssrc: u32,
    pub video: Option<LocalVideo<'l>>,
}

/// What we say of pictures: another peer's words.
#[derive(Debug, Clone)]
pub struct LocalVideo<'l> {
    pub index: usize,
    /// Ours for pictures; the audio's where both go one way.
    pub port: u16,
    pub like: &'l Video,
    pub direction: Direction,
    pub proto: Option<&'l str>,
    pub mid: Option<&'l str>,
}

impl Local<'_> {
    pub fn write(&self) -> Bytes {
        let mut sdp = String::with_capacity(400);
        let ip = self.address.ip();
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        // Writing to memory does not fail.
        let _ = write!(
            sdp,
            "v=0\r\no=hypha {} {} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n",
            self.session, self.version
        );
        let video = self.video.as_ref().map(|v| v.mid.unwrap_or("1"));
        let bundled: Vec<&str> = std::iter::once(self.mid.unwrap_or("0")).chain(video).collect();
        self.ours.write_session(&mut sdp, &bundled.join(" "));
        for at in 0..=self.others.len() + usize::from(self.video.is_some()) {
            if at == self.index {
                self.write_audio(&mut sdp);
            } else if let Some(video) = self.video.as_ref().filter(|v| v.index == at) {
                self.write_video(video, &mut sdp);
            } else if let Some((_, line)) = self.others.iter().find(|(o, _)| *o == at) {
                let _ = write!(sdp, "m={line}\r\n");
            }
        }
        sdp.into()
    }

    fn write_audio(&self, sdp: &mut String) {
        let _ = write!(sdp, "m=audio {} {}", self.address.port(), self.proto.unwrap_or(self.ours.proto()));
        for payload in self.codecs.iter().map(|c| c.payload).chain(self.events.iter().map(|e| e.payload)) {
            let _ = write!(sdp, " {payload}");
        }
        sdp.push_str("\r\n");
        self.codecs.iter().for_each(|c| c.write(sdp));
        for EventFormat { payload, clock } in self.events {
            let _ = write!(sdp, "a=rtpmap:{payload} {EVENTS}/{clock}\r\na=fmtp:{payload} 0-15\r\n");
        }
        let _ = write!(sdp, "a=ptime:20\r\na={}\r\n", self.direction.name());
        self.ours.write_media(sdp, self.mid.unwrap_or("0"), self.mid.is_some(), self.address);
        if let Ours::Handshake { .. } = self.ours {
            let _ = write!(sdp, "a=msid:hypha audio\r\na=ssrc:{} cname:hypha\r\n", self.ssrc);
        }
    }

    fn write_video(&self, v: &LocalVideo<'_>, sdp: &mut String) {
        let _ = write!(sdp, "m=video {} {}", v.port, v.proto.unwrap_or(self.ours.proto()));
        for codec in &v.like.codecs {
            let _ = write!(sdp, " {}", codec.payload);
        }
        sdp.push_str("\r\n");
        v.like.codecs.iter().for_each(|c| c.write(sdp));
        // Feedback is of the profile with F (RFC 4585); others do not mind.
        for value in &v.like.feedback {
            let _ = write!(sdp, "a=rtcp-fb:{value}\r\n");
        }
        let _ = write!(sdp, "a={}\r\n", v.direction.name());
        self.ours.write_media(sdp, v.mid.unwrap_or("1"), v.mid.is_some(), self.address);
        if let Ours::Handshake { .. } = self.ours {
            sdp.push_str("a=msid:hypha video\r\n");
        }
    }
}

/// What to offer somebody who shall talk to a peer that can these: the peer's own first, so that nothing is transcoded where
/// that can be, then what we can transcode.
pub fn offer_like(remote: Option<&Remote>) -> (Vec<Codec>, Vec<EventFormat>) {
    let mut codecs: Vec<Codec> = remote.map(|r| r.codecs.clone()).unwrap_or_default();
    for codec in own() {
        if codecs.iter().any(|c| c.same(&codec)) {
            continue;
        }
        // Only dynamic numbers may be others (RFC 3551, 3).
        let events = remote.map_or(&[][..], |r| &r.events);
        let free = |p: &u8| !codecs.iter().any(|c| c.payload == *p) && events.iter().all(|e| e.payload != *p);
        let dynamic = (codec.payload >= 96).then_some(96..=127).into_iter().flatten();
        if let Some(payload) = std::iter::once(codec.payload).chain(dynamic).find(free) {
            codecs.push(Codec { payload, ..codec });
        }
    }
    let mut events: Vec<EventFormat> = Vec::new();
    for (clock, usual) in [(NARROW, 101), (WIDE, 110)] {
        if !codecs.iter().any(|c| c.clock == clock) {
            continue;
        }
        let taken = |p: u8| codecs.iter().any(|c| c.payload == p) || events.iter().any(|e| e.payload == p);
        let asked = remote.and_then(|r| r.events.iter().find(|e| e.clock == clock)).map(|e| e.payload);
        let payload = asked.into_iter().chain([usual]).chain(96..=127).find(|p| !taken(*p));
        events.extend(payload.map(|payload| EventFormat { payload, clock }));
    }
    (codecs, events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHONE: &[u8] = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 96 8 0 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\nm=video 5000 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n";

    #[test]
    fn a_phone_is_understood() {
        let r = Remote::parse(PHONE).expect("audio");
        assert_eq!(r.address, "10.0.0.1:4000".parse().expect("an address"));
        assert_eq!(r.codecs.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["opus", "PCMA", "PCMU"]);
        let usual = EventFormat { payload: 101, clock: 8000 };
        assert_eq!(
            (r.events.as_slice(), r.direction, r.rtcp.port()),
            (&[usual][..], Direction::SendOnly, 4001)
        );
        let (codecs, events) = offer_like(Some(&r));
        assert_eq!(codecs.iter().map(|c| c.payload).collect::<Vec<_>>(), [96, 8, 0, 9]);
        let plain = offer_like(None).0;
        assert_eq!(plain.iter().map(|c| c.payload).collect::<Vec<_>>(), [8, 0, 9, 111]);
        assert_eq!(events, [usual, EventFormat { payload: 110, clock: 48_000 }], "one for each clock");
        assert_eq!([8000, 48_000].map(|c| events_of(&events, c).map(|e| e.payload)), [Some(101), Some(110)]);
        assert_eq!(events_of(&r.events, 48_000), Some(usual), "a phone that knows no other");
        let local = Local {
            session: 1,
            version: 1,
            address: "10.0.0.2:6000".parse().expect("an address"),
            codecs: &codecs[1..2],
            events: &[usual],
            direction: r.direction.reversed(),
            index: r.index,
            others: &r.refused(false),
            proto: None,
            mid: None,
            ours: &Ours::Open,
            ssrc: 7,
            video: None,
        };
        let text = String::from_utf8(local.write().to_vec()).expect("text");
        assert!(text.contains("a=recvonly") && text.ends_with("m=video 0 RTP/AVP 97\r\n"), "{text}");
        assert_eq!(Remote::parse(text.as_bytes()).expect("our own").codecs, codecs[1..2]);
    }

    #[test]
    fn what_is_no_audio_is_refused() {
        let video = b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 1.1.1.1\r\nt=0 0\r\nm=video 5000 RTP/AVP 97\r\n";
        assert_eq!(Remote::parse(video), Err(MediaError::Incompatible));
        assert!(matches!(Remote::parse(b"nonsense"), Err(MediaError::Malformed(_))));
        // A host name stands for the host that signals; an origin that lacks a field is nobody's loss.
        let named = "v=0\r\no=x 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 gw.example.com\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
        let host = "192.0.2.7".parse().expect("an address");
        let found = Remote::parse_from(named.as_bytes(), Some(host)).expect("audio");
        assert_eq!(found.address.to_string(), "192.0.2.7:4000");
        assert!(matches!(Remote::parse(named.as_bytes()), Err(MediaError::Malformed(_))));
        assert!(
            Remote::parse_from(named.replace("gw.example.com", "gw example").as_bytes(), Some(host)).is_err()
        );
        // Of two sections the one that can be taken; the other is refused in its place.
        let two = "v=0\r\no=x 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 1.1.1.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 8\r\na=crypto:1 UNKNOWN inline:x\r\n\
                   m=audio 4002 RTP/AVP 8\r\n";
        let found = Remote::parse(two.as_bytes()).expect("the second");
        assert_eq!(
            (found.index, found.address.port(), found.refused(false)),
            (1, 4002, vec![(0, "audio 0 RTP/SAVP 8".into())])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_description_or_an_error(cut in 0usize..PHONE.len(), put in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = PHONE[..cut].to_vec();
            bytes.extend(put);
            bytes.extend(&PHONE[cut..]);
            if let Ok(r) = Remote::parse(&bytes) {
                prop_assert!(!r.codecs.is_empty());
                let (codecs, events) = offer_like(Some(&r));
                prop_assert!(codecs.iter().all(|c| events.iter().all(|e| e.payload != c.payload)));
            }
        }
    }
}
