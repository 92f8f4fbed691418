//! What a call asks of the media plane. Negotiation is answered at once; packets flow elsewhere, in real time, and tell the
//! call only what it must know.

use std::{any::Any, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use kit::Mailbox;

use crate::{CallMsg, Cause, LegId};

/// What a party hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Silence,
    /// The other party.
    Leg(LegId),
    /// Music on hold.
    Music,
    /// A tone of ITU-T E.180 as the national plan has it.
    Tone(Tone),
    /// An announcement, once or again and again.
    File {
        path: PathBuf,
        repeat: bool,
    },
    /// Everybody else of the call.
    Mix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Ringback,
    Busy,
    /// A service did what was asked.
    Confirm,
    /// It did not.
    Error,
}

/// What a session description of the peer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The peer does not want to hear us: hold.
    pub held: bool,
}

/// How well a leg is heard (RFC 3550, 6.4).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Quality {
    pub codec: String,
    /// Packets received, and those that never came.
    pub received: u64,
    pub lost: u64,
    pub jitter_ms: f64,
    pub sent: u64,
    /// Percent of ours that the peer lost, and the time to it and back.
    pub peer_lost_percent: Option<f64>,
    pub round_trip_ms: Option<u32>,
}

/// What the media plane tells a call.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaEvent {
    /// How well the leg is heard, every few seconds.
    Quality(Quality),
    /// A key, from RFC 4733 events or in-band tones.
    Key(char),
    /// Nothing has come from the leg for long.
    Silent,
    /// The leg's handshake has not come to keys in its time: it hears nothing, and is not heard.
    Unsealed,
    /// A file or a tone that is not repeated has been played.
    Played,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    #[error("no session description: {0}")]
    Malformed(String),
    #[error("no codec or transport in common")]
    Incompatible,
    #[error("all media ports are taken")]
    NoPorts,
    #[error("the media plane has stopped")]
    Stopped,
    #[error("this leg has no session")]
    NoSession,
}

impl MediaError {
    /// The cause with which a call that meets it ends. Without ports another switch may still take it (503).
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoPorts | Self::Stopped => Cause::UNAVAILABLE,
            Self::Malformed(_) | Self::Incompatible | Self::NoSession => Cause::INCOMPATIBLE,
        }
    }
}

/// How a leg's media is to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Codecs in the order, and with the video, of this leg's offer.
    pub like: Option<LegId>,
    /// ICE and DTLS-SRTP.
    pub ice: bool,
    /// SRTP with keys in the description.
    pub sealed: bool,
}

/// Where what is heard of a call goes beside its parties: a recording, a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A WAV file: the party apart on the left, all others on the right.
    File(PathBuf),
    /// RTP in A-law: all together to the first address, or, where there is a second, the party apart to the first and all
    /// others to the second.
    Rtp { to: SocketAddr, others: Option<SocketAddr> },
    /// What the party apart says, to somebody in this process.
    Feed(crate::application::Feed),
}

/// Opens sessions.
pub trait MediaPlane: Send + Sync {
    /// `tenant`: the domain whose part of the ports it takes; none where the node has one domain alone.
    fn session(&self, events: Mailbox<CallMsg>, tenant: Option<&str>) -> Box<dyn MediaSession>;
}

/// A leg's media under way from one call to another.
pub type MediaPart = Box<dyn Any + Send>;

/// The media of one call.
pub trait MediaSession: Send {
    /// Our offer to a leg; a leg that has a session already gets one that changes nothing.
    fn offer(&mut self, leg: LegId, wish: Wish) -> Result<Bytes, MediaError>;
    fn remote_offer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError>;
    /// Our answer to the peer's last offer; before its codec is settled by others, what we would take.
    fn answer(&mut self, leg: LegId) -> Result<Bytes, MediaError>;
    fn remote_answer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError>;
    fn hear(&mut self, leg: LegId, source: Source);
    /// The host that a leg's signalling comes from: its media may come from there, though its description says otherwise.
    fn signalled(&mut self, _: LegId, _: std::net::IpAddr) {}
    /// Whether keys go to the leg as RFC 4733 events; where another leg sends them so, they pass by themselves.
    fn takes_keys(&self, leg: LegId) -> bool;
    fn key(&mut self, leg: LegId, key: char, millis: u32);
    /// The leg wants a whole picture of the party it sees.
    fn picture(&mut self, _leg: LegId) {}
    fn close(&mut self, leg: LegId);
    /// Listens in from now on, over hold, transfer and conference, until [`MediaSession::untap`] or the end; `left` is the
    /// party apart. A tap is a number of the caller's.
    fn tap(&mut self, _tap: u64, _left: LegId, _sink: Sink) {}
    fn untap(&mut self, _tap: u64) {}
    /// Whether the others of a mix do not hear the leg.
    fn mute(&mut self, _leg: LegId, _on: bool) {}
    /// What a caller hears of why its call failed, where somebody has recorded it.
    fn announcement(&self, _cause: Cause) -> Option<PathBuf> {
        None
    }
    /// What was asked for in this step is carried out.
    fn flush(&mut self) {}
    fn detach(&mut self, leg: LegId) -> Option<MediaPart>;
    fn attach(&mut self, leg: LegId, part: MediaPart);
}

/// A media plane without packets, for replays: every session is agreed on, nothing is heard.
pub struct Mute;

struct MuteSession;

const MUTE_SDP: &[u8] =
    b"v=0\r\no=hypha 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 8\r\n";

impl MediaPlane for Mute {
    fn session(&self, _: Mailbox<CallMsg>, _: Option<&str>) -> Box<dyn MediaSession> {
        Box::new(MuteSession)
    }
}

/// Whether a description puts the other side on hold.
fn holds(sdp: &Bytes) -> Change {
    let held = [&b"a=sendonly"[..], b"a=inactive"].iter().any(|h| sdp.windows(h.len()).any(|w| w == *h));
    Change { held }
}

impl MediaSession for MuteSession {
    fn offer(&mut self, _: LegId, _: Wish) -> Result<Bytes, MediaError> {
        Ok(Bytes::from_static(MUTE_SDP))
    }

    fn remote_offer(&mut self, _: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        Ok(holds(sdp))
    }

    fn answer(&mut self, _: LegId) -> Result<Bytes, MediaError> {
        Ok(Bytes::from_static(MUTE_SDP))
    }

    fn remote_answer(&mut self, _: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        Ok(holds(sdp))
    }

    fn hear(&mut self, _: LegId, _: Source) {}

    fn takes_keys(&self, _: LegId) -> bool {
        false
    }

    fn key(&mut self, _: LegId, _: char, _: u32) {}

    fn close(&mut self, _: LegId) {}

    fn detach(&mut self, _: LegId) -> Option<MediaPart> {
        None
    }

    fn attach(&mut self, _: LegId, _: MediaPart) {}
}
