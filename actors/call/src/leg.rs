//! What a call and the adapters of its legs tell each other. Nothing here knows SIP's bytes; session descriptions pass as
//! they are, from an adapter to the media plane and back.

use bytes::Bytes;
use domain::{Picture, Registration, state::TrunkKind};
use kit::Address;
use serde::Serialize;
use strum::IntoStaticStr;

use crate::Cause;

/// Number of a leg in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct LegId(pub u64);

impl std::fmt::Display for LegId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "leg {}", self.0)
    }
}

/// A party as the other one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Party {
    pub number: String,
    pub name: String,
    /// The number must not be shown (CLIR); trusted peers get it marked so.
    pub restricted: bool,
    /// An international number that was written with a plus (E.164): trunks get it so.
    pub international: bool,
}

/// Who a call came from, as its adapter has established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A subscriber's interface, `100@voip.local`.
    Subscriber { iface: String },
    /// A trunk's name.
    Trunk { name: String },
}

/// A call that came in.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub leg: LegId,
    pub domain: String,
    pub origin: Origin,
    /// As the peer presents itself; a subscriber's number is not taken from here.
    pub from: Party,
    /// Digits dialled.
    pub dialled: String,
    /// They were written with a plus.
    pub international: bool,
    pub sdp: Option<Bytes>,
    pub max_forwards: u8,
    /// Numbers the call was diverted from before it came here (RFC 7044), the newest last.
    pub history: Vec<String>,
    /// User-to-user information, as it came (RFC 7433).
    pub uui: Option<String>,
    /// Whether the peer wants ICE: its contact is tagged `+sip.ice`.
    pub ice: bool,
    /// Whether provisional answers to it are to be reliable (RFC 3262): one without an offer gets ours in the first of them.
    pub reliable: bool,
    /// The leg of ours that this one takes the place of (RFC 3891).
    pub replaces: Option<LegId>,
    pub user_agent: String,
    /// The host that its signalling comes from.
    pub peer: Option<std::net::IpAddr>,
}

/// Where a leg goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Contact {
        domain: String,
        iface: String,
        contact: Box<Registration>,
    },
    /// `last` has no other behind it: it is tried though its neighbour is believed to be down.
    Trunk {
        domain: String,
        trunk: String,
        last: bool,
    },
}

impl Target {
    /// The host that signals for it, where it is known without asking a name server.
    pub fn peer(&self, picture: &Picture) -> Option<std::net::IpAddr> {
        match self {
            Self::Contact { contact, .. } => contact.peer(),
            Self::Trunk { domain, trunk, .. } => {
                let TrunkKind::Static { host, .. } = &picture.domains.get(domain)?.trunks.get(trunk)?.kind;
                host.trim_matches(['[', ']']).parse().ok()
            }
        }
    }
}

/// A leg to set up.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub target: Target,
    pub from: Party,
    pub to: Party,
    /// The domain the numbers are of.
    pub domain: String,
    pub sdp: Bytes,
    pub max_forwards: u8,
    pub history: Vec<String>,
    pub uui: Option<String>,
}

/// What a call tells a leg.
#[derive(Debug, Clone, IntoStaticStr)]
pub enum LegCommand {
    Call(Box<Outgoing>),
    /// 180 or 183 to the caller.
    Progress {
        status: u16,
        sdp: Option<Bytes>,
    },
    Answer {
        sdp: Bytes,
    },
    /// Offers a changed session.
    Offer {
        sdp: Bytes,
    },
    /// Answers one; `Err` refuses with a status.
    OfferAnswer(Result<Bytes, u16>),
    /// How a transfer that the peer asked for goes: a status, as `NOTIFY` carries it.
    Transferred {
        status: u16,
    },
    /// A key pressed at the other end, for peers that take keys in signalling only.
    Key {
        key: char,
        millis: u32,
    },
    /// The other end wants a whole picture.
    Picture,
    /// Ends the leg: refuses, cancels or hangs up, whatever its state asks for.
    Release {
        cause: Cause,
        /// A status to refuse with rather than the cause's own.
        status: Option<u16>,
    },
}

/// What a leg tells its call.
#[derive(Debug, Clone, IntoStaticStr)]
pub enum LegEvent {
    /// A provisional answer to our call.
    Progress { status: u16, sdp: Option<Bytes> },
    /// Our call was answered.
    Answered { sdp: Option<Bytes> },
    /// The caller has our answer; with the session when that answer was an offer.
    Confirmed { sdp: Option<Bytes> },
    /// The peer changes the session; none asks us to offer.
    Offer { sdp: Option<Bytes> },
    /// The answer to our offer, or the status it was refused with.
    OfferAnswered(Result<Option<Bytes>, u16>),
    /// The peer wants the other party transferred.
    Refer(Refer),
    /// A key pressed, told in signalling.
    Key { key: char, millis: u32 },
    /// The peer wants a whole picture (RFC 5168).
    PictureWanted,
    /// Other contacts to try (3xx).
    Redirected { to: Vec<String> },
    /// The leg was not tried: its trunk could not take a call a moment ago. The others come first.
    Avoided,
    /// The leg has ended.
    Released { cause: Cause, status: Option<u16> },
}

/// Where a peer wants the other party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refer {
    /// To a number (blind).
    Number(String),
    /// To the party at the other end of that leg of ours (attended).
    Leg(LegId),
    /// To a dialog that is none of ours.
    Unknown,
}

/// A message to the adapter of legs; its actor is named [`SIGNALLING`].
#[derive(Debug, IntoStaticStr)]
pub enum SignalMsg {
    /// A call speaks to one of its legs.
    Leg { leg: LegId, call: Address, command: LegCommand },
    /// A leg has another call now.
    Moved { leg: LegId, call: Address },
    /// A call has ended, however it did: what is left of its legs goes.
    #[strum(serialize = "CallDown")]
    CallDown { call: Address, crashed: bool },
    /// The adapter is to end, and looks whether its last requests have been answered.
    Leave,
}

/// The adapter's name.
pub const SIGNALLING: &str = "sip/endpoint";
