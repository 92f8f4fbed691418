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
            && self.channels == other.channels
    }

    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// What we can decode and encode ourselves, the best first.
pub fn own() -> [Codec; 3] {
    [Codec::new(8, "PCMA", 8000), Codec::new(0, "PCMU", 8000), Codec::new(9, "G722", 8000)]
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

    /// Ours, where the peer's is this.
    pub fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same => same,
        }
    }
}

/// The peer's audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub address: SocketAddr,
    pub rtcp: SocketAddr,
    pub codecs: Vec<Codec>,
    /// Payload type of RFC 4733 events.
    pub events: Option<u8>,
    pub direction: Direction,
    /// Which `m=` line the audio is, and what the others were.
    pub index: usize,
    pub others: Vec<(usize, String)>,
    /// As its line names it; an answer says the same.
    pub proto: String,
    pub sealing: Sealing,
    /// Its name in the description (RFC 5888).
    pub mid: Option<String>,
}

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

impl Remote {
    pub fn parse(sdp: &[u8]) -> Result<Self, MediaError> {
        let malformed = |e: &dyn std::fmt::Display| MediaError::Malformed(e.to_string());
        let session = sdp_types::Session::parse(sdp).map_err(|e| malformed(&e))?;
        let audio = session
            .medias
            .iter()
            .enumerate()
            .find(|(_, m)| m.media.eq_ignore_ascii_case("audio") && m.port > 0);
        let Some((index, media)) = audio else { return Err(MediaError::Incompatible) };
        let connection = media.connections.first().or(session.connection.as_ref());
        let connection = connection.ok_or_else(|| malformed(&"no c= line"))?;
        let text = connection.connection_address.split('/').next().unwrap_or_default();
        let ip: IpAddr = text.parse().map_err(|_| malformed(&"c= is no address"))?;
        let attribute = |name: &str| {
            media
                .attributes
                .iter()
                .filter(move |a| a.attribute.eq_ignore_ascii_case(name))
                .filter_map(|a| a.value.as_deref())
                .collect::<Vec<_>>()
        };
        let of = |lines: &[&str], payload: u8| {
            lines
                .iter()
                .find_map(|l| l.strip_prefix(&payload.to_string())?.strip_prefix(' '))
                .map(str::to_owned)
        };
        let both = |name: &str| {
            let here = attribute(name);
            match here.is_empty() {
                true => session
                    .attributes
                    .iter()
                    .filter(|a| a.attribute.eq_ignore_ascii_case(name))
                    .filter_map(|a| a.value.as_deref())
                    .collect(),
                false => here,
            }
        };
        let sealing = Sealing::parse(&media.proto, both).ok_or(MediaError::Incompatible)?;
        let (maps, formats) = (attribute("rtpmap"), attribute("fmtp"));
        let (mut codecs, mut events) = (Vec::new(), None);
        for payload in media.fmt.split_whitespace().take(LIMIT).filter_map(|p| p.parse::<u8>().ok()) {
            let codec = of(&maps, payload).and_then(|m| mapped(payload, &m)).or_else(|| well_known(payload));
            match codec {
                Some(c) if c.is(EVENTS) && c.clock == 8000 => events = events.or(Some(payload)),
                Some(c) if c.is(EVENTS) || c.is("CN") => {}
                Some(c) => codecs.push(Codec { fmtp: of(&formats, payload), ..c }),
                None => {}
            }
        }
        if codecs.is_empty() {
            return Err(MediaError::Incompatible);
        }
        let has = |name: &str| {
            let here = media.attributes.iter().any(|a| a.attribute == name);
            let said = |a: &sdp_types::Attribute| {
                matches!(a.attribute.as_str(), "sendrecv" | "sendonly" | "recvonly" | "inactive")
            };
            here || (!media.attributes.iter().any(said)
                && session.attributes.iter().any(|a| a.attribute == name))
        };
        let direction = match () {
            _ if has("inactive") => Direction::Inactive,
            _ if has("sendonly") => Direction::SendOnly,
            _ if has("recvonly") => Direction::RecvOnly,
            // Hold as it was before RFC 3264.
            _ if ip.is_unspecified() && !matches!(sealing, Sealing::Handshake(_)) => Direction::SendOnly,
            _ => Direction::SendRecv,
        };
        let rtcp = attribute("rtcp").first().and_then(|r| r.split(' ').next()?.parse().ok());
        let rtcp = rtcp.unwrap_or(media.port.saturating_add(1));
        let other = |(at, m): (usize, &sdp_types::Media)| {
            (at != index).then(|| (at, format!("{} 0 {} {}", m.media, m.proto, m.fmt)))
        };
        let others = session.medias.iter().enumerate().filter_map(other).take(16).collect();
        let (address, rtcp) = (SocketAddr::new(ip, media.port), SocketAddr::new(ip, rtcp));
        let (proto, mid) = (media.proto.clone(), attribute("mid").first().map(|m| (*m).to_owned()));
        Ok(Self { address, rtcp, codecs, events, direction, index, others, proto, sealing, mid })
    }
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
    pub events: Option<u8>,
    pub direction: Direction,
    /// Where the audio stands among the lines, and lines of the peer that we refuse.
    pub index: usize,
    pub others: &'l [(usize, String)],
    /// As the peer's offer has it, in an answer.
    pub proto: Option<&'l str>,
    pub mid: Option<&'l str>,
    pub ours: &'l Ours,
    pub ssrc: u32,
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
        self.ours.write_session(&mut sdp, self.mid.unwrap_or("0"));
        for at in 0..=self.others.len() {
            if at == self.index {
                self.write_audio(&mut sdp);
            } else if let Some((_, line)) = self.others.iter().find(|(o, _)| *o == at) {
                let _ = write!(sdp, "m={line}\r\n");
            }
        }
        sdp.into()
    }

    fn write_audio(&self, sdp: &mut String) {
        let _ = write!(sdp, "m=audio {} {}", self.address.port(), self.proto.unwrap_or(self.ours.proto()));
        for payload in self.codecs.iter().map(|c| c.payload).chain(self.events) {
            let _ = write!(sdp, " {payload}");
        }
        sdp.push_str("\r\n");
        for c in self.codecs {
            let _ = write!(sdp, "a=rtpmap:{} {}/{}", c.payload, c.name, c.clock);
            if c.channels > 1 {
                let _ = write!(sdp, "/{}", c.channels);
            }
            sdp.push_str("\r\n");
            if let Some(fmtp) = &c.fmtp {
                let _ = write!(sdp, "a=fmtp:{} {fmtp}\r\n", c.payload);
            }
        }
        if let Some(events) = self.events {
            let _ = write!(sdp, "a=rtpmap:{events} {EVENTS}/8000\r\na=fmtp:{events} 0-15\r\n");
        }
        let _ = write!(sdp, "a=ptime:20\r\na={}\r\n", self.direction.name());
        self.ours.write_media(sdp, self.mid, self.address, self.ssrc);
    }
}

/// What to offer somebody who shall talk to a peer that can these: the peer's own first, so that nothing is transcoded where
/// that can be, then what we can transcode.
pub fn offer_like(remote: Option<&Remote>) -> (Vec<Codec>, u8) {
    let mut codecs: Vec<Codec> = remote.map(|r| r.codecs.clone()).unwrap_or_default();
    for codec in own() {
        if !codecs.iter().any(|c| c.same(&codec)) && !codecs.iter().any(|c| c.payload == codec.payload) {
            codecs.push(codec);
        }
    }
    let taken = |p: u8| codecs.iter().any(|c| c.payload == p);
    let asked = remote.and_then(|r| r.events);
    let events = asked.into_iter().chain([101]).chain(96..=127).find(|p| !taken(*p)).unwrap_or(101);
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
        assert_eq!((r.events, r.direction, r.rtcp.port()), (Some(101), Direction::SendOnly, 4001));
        let (codecs, events) = offer_like(Some(&r));
        assert_eq!(codecs.iter().map(|c| c.payload).collect::<Vec<_>>(), [96, 8, 0, 9]);
        assert_eq!(events, 101);
        let local = Local {
            session: 1,
            version: 1,
            address: "10.0.0.2:6000".parse().expect("an address"),
            codecs: &codecs[1..2],
            events: Some(101),
            direction: r.direction.reversed(),
            index: r.index,
            others: &r.others,
            proto: None,
            mid: None,
            ours: &Ours::Open,
            ssrc: 7,
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
                prop_assert!(codecs.iter().all(|c| c.payload != events));
            }
        }
    }
}
