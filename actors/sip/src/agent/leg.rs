//! One leg as SIP sees it: a dialog (RFC 3261, 12) and what is under way in it.

use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use call::{Cause, Ladder, LegEvent, LegId};
use kit::Address;

use crate::{
    digest::Login,
    transaction::{Flow, Id, Transport},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::Uri,
    },
};

pub(crate) const ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, PRACK, UPDATE, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE";
pub(crate) const SUPPORTED: &str = "100rel, timer, replaces, path, norefersub";
/// What a session is refreshed within, and the least anybody may ask for, seconds (RFC 4028).
pub(super) const SESSION: u32 = 1800;
pub(crate) const MIN_SE: u32 = 90;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// We were called and have not answered.
    Incoming,
    /// We call.
    Calling,
    /// There is a dialog.
    Confirmed,
}

/// A provisional answer that must be acknowledged (RFC 3262).
pub(super) struct Reliable {
    pub rseq: u32,
    pub bytes: Bytes,
    pub pause: std::time::Duration,
    pub since: Instant,
}

pub(super) struct Leg {
    pub id: LegId,
    /// Whom events go to; none until the call's actor has started.
    pub call: Option<Address>,
    /// What happened before.
    pub early: Vec<LegEvent>,
    pub ladder: Ladder,
    pub state: State,
    pub flow: Flow,
    /// Requests go where the dialog says (RFC 3261, 12.2.1.1); to phones, that may be behind a NAT, they go back the way
    /// theirs came.
    pub follows: bool,
    pub call_id: ByteString,
    pub local: ByteString,
    pub local_tag: String,
    pub remote: ByteString,
    pub remote_tag: Option<String>,
    pub target: ByteString,
    pub routes: Vec<ByteString>,
    pub cseq: u32,
    pub remote_cseq: Option<u32>,
    /// The INVITE under way: of the peer (to be answered), or ours.
    pub server: Option<Id>,
    /// Its request, to answer it.
    pub request: Option<Box<Message>>,
    /// An INVITE whose 2xx waits for its ACK.
    pub unacknowledged: Option<Id>,
    pub client: Option<Id>,
    /// What answers a challenge to our INVITE, and the INVITE.
    pub proof: Option<Box<(Login, Message)>>,
    /// The INVITE that began it, where it was ours: its 2xx may come again.
    pub invited: Option<Id>,
    /// An UPDATE with an offer, to be answered.
    pub update: Option<(Id, Box<Message>)>,
    /// The ACK to the last 2xx, in case that comes again.
    pub ack: Option<Bytes>,
    /// The leg shall end as soon as it can be cancelled.
    pub give_up: Option<Cause>,
    pub rseq: u32,
    pub reliable: Option<Reliable>,
    pub wants_reliable: bool,
    /// A REFER that waits for its answer; afterwards its subscription.
    pub refer: Option<(Id, Box<Message>)>,
    pub referring: bool,
    /// Seconds of the session, and whether we refresh it.
    pub session: Option<(u32, bool)>,
    pub refreshed: Instant,
    pub peer_updates: bool,
    pub peer_timer: bool,
    pub sdp: Option<Bytes>,
    /// What an offer of ours was sent with, whose answer the call waits for.
    pub offering: Option<Id>,
}

/// What a leg begins with; [`Leg::new`] adds what every leg begins with.
pub(super) struct Beginning<'b> {
    pub id: LegId,
    pub state: State,
    pub flow: Flow,
    pub call_id: ByteString,
    /// `From` or `To` of ours, without the tag.
    pub local: &'b str,
    pub local_tag: String,
    pub remote: ByteString,
    pub target: ByteString,
    pub routes: Vec<ByteString>,
    pub ladder: &'b Ladder,
    pub now: Instant,
    pub follows: bool,
}

impl Leg {
    pub fn new(of: Beginning<'_>) -> Self {
        let Beginning {
            id,
            state,
            flow,
            call_id,
            local,
            local_tag,
            remote,
            target,
            routes,
            ladder,
            now,
            follows,
        } = of;
        Self {
            id,
            call: None,
            early: Vec::new(),
            ladder: ladder.clone(),
            state,
            flow,
            follows,
            call_id,
            local: format!("{local};tag={local_tag}").into(),
            local_tag,
            remote,
            remote_tag: None,
            target,
            routes,
            cseq: 0,
            remote_cseq: None,
            server: None,
            request: None,
            unacknowledged: None,
            client: None,
            proof: None,
            invited: None,
            update: None,
            ack: None,
            give_up: None,
            rseq: 0,
            reliable: None,
            wants_reliable: false,
            refer: None,
            referring: false,
            session: None,
            refreshed: now,
            peer_updates: false,
            peer_timer: false,
            sdp: None,
            offering: None,
        }
    }

    /// A request in the dialog.
    pub fn request(&mut self, method: Method, via: String, contact: Option<&str>) -> Message {
        self.cseq += 1;
        let number = self.cseq;
        self.numbered(method, number, via, contact)
    }

    pub fn numbered(&self, method: Method, number: u32, via: String, contact: Option<&str>) -> Message {
        let word = method.as_str().to_owned();
        let mut message = Message::request(method, self.target.clone());
        message.push(Name::Via, via);
        for route in &self.routes {
            message.push(Name::Route, route.clone());
        }
        message.push(Name::MaxForwards, "70");
        message.push(Name::From, self.local.clone());
        message.push(Name::To, self.remote.clone());
        message.push(Name::CallId, self.call_id.clone());
        message.push(Name::CSeq, format!("{number} {word}"));
        if let Some(contact) = contact {
            message.push(Name::Contact, contact);
        }
        message
    }

    /// Where the peer wants further requests.
    pub fn retarget(&mut self, message: &Message) {
        if let Some(contact) = message.address(&Name::Contact) {
            self.target = contact.uri.into();
        }
        if self.follows && self.flow.transport == Transport::Udp {
            let first = self.routes.first().and_then(|r| address::list(r).ok()?.into_iter().next());
            let next = first.map_or_else(|| self.target.to_string(), |a| a.uri.to_string());
            self.flow.peer = Uri::parse(&next).ok().and_then(|u| u.socket()).unwrap_or(self.flow.peer);
        }
    }

    /// Learns the dialog from an answer of the peer.
    pub fn learn(&mut self, response: &Message) {
        if let Some(to) = response.header(&Name::To) {
            self.remote = to.clone();
            self.remote_tag = response.tag(&Name::To).map(str::to_owned);
        }
        let mut routes: Vec<ByteString> = routes(response, &Name::RecordRoute);
        routes.reverse();
        self.routes = routes;
        self.retarget(response);
        self.peer_updates |= response.lists(&Name::Allow, "UPDATE");
    }

    pub fn same_dialog(&self, request: &Message) -> bool {
        request.call_id() == &*self.call_id
            && self.remote_tag.as_deref().is_none_or(|tag| request.tag(&Name::From) == Some(tag))
    }
}

/// All routes of a header, one value each.
pub(crate) fn routes(message: &Message, name: &Name) -> Vec<ByteString> {
    let lines = message.all(name);
    lines
        .flat_map(|line| {
            let pieces = address::pieces(line, ',').unwrap_or_default();
            pieces.into_iter().map(|p| ByteString::from(p.trim())).collect::<Vec<_>>()
        })
        .collect()
}

/// An answer to a request, with what it must repeat (RFC 3261, 8.2.6.2).
pub fn reply(request: &Message, code: u16, tag: Option<&str>) -> Message {
    let mut response = Message::response(code);
    for (name, value) in &request.headers {
        match name {
            Name::Via | Name::From | Name::CallId | Name::CSeq => response.push(name.clone(), value.clone()),
            Name::RecordRoute if (101..300).contains(&code) => response.push(name.clone(), value.clone()),
            Name::To => match tag.filter(|_| request.tag(&Name::To).is_none()) {
                Some(tag) => response.push(Name::To, format!("{value};tag={tag}")),
                None => response.push(Name::To, value.clone()),
            },
            _ => {}
        }
    }
    response
}
