//! One leg as SIP sees it: a dialog (RFC 3261, 12) and what is under way in it.

use std::{collections::VecDeque, net::IpAddr, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use call::{Cause, Ladder, LegEvent, LegId};
use kit::Address;

use crate::{
    agent::{Refresher, session_expires},
    digest::Login,
    transaction::{Flow, Id, Transport},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::{Uri, without_headers},
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
    /// It holds a session description: the final answer waits for its PRACK (RFC 3262, 3).
    pub settles: bool,
}

/// An INVITE of ours that may have to be sent again: with credentials, or with a longer session.
pub(super) struct Repeat {
    pub invite: Message,
    /// Answers one challenge.
    pub login: Option<Login>,
    /// 422 may still be followed so many times (RFC 4028, 7.3).
    pub tries: u8,
}

/// Other phones behind one fork whose 2xx has been declined.
pub(super) const DECLINED: usize = 16;

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
    /// It was called over a trunk.
    pub trunk: bool,
    /// Its peer, where it is known.
    pub owner: Option<super::Owner>,
    /// The key of copies of its INVITE.
    pub merge_key: Option<super::MergeKey>,
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
    /// The INVITE's number, and whether its 2xx has our offer.
    pub unacknowledged_cseq: Option<u32>,
    pub offered_late: bool,
    pub client: Option<Id>,
    /// Our INVITE until it is answered.
    pub repeat: Option<Box<Repeat>>,
    /// Tags of 2xx that another phone behind a fork sent and that have had their BYE.
    pub declined: Vec<String>,
    /// The peer's BYE: it is answered when the call has kept the end.
    pub hung_up: Option<(Id, Box<Message>)>,
    /// A reliable provisional answer has settled the session: the peer may change it before the final one (RFC 3311, 5.1).
    pub settled: bool,
    /// A reliable provisional answer has our offer: the PRACK answers it (RFC 3262, 5), and what follows has none.
    pub offered_early: bool,
    /// Our answer, while a reliable provisional one with a session waits for its PRACK.
    pub waiting_answer: Option<Bytes>,
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
    /// Provisional answers that wait for the PRACK of the one before (RFC 3262, 3).
    pub queued: VecDeque<(u16, Option<Bytes>)>,
    /// The number of the INVITE that began it, where it was the peer's.
    pub invite_cseq: Option<u32>,
    /// The peer's last reliable provisional answer, by its tag: behind a fork each phone counts for itself.
    pub heard_rseq: Vec<(String, u32)>,
    /// A REFER that waits for its answer; afterwards its subscription.
    pub refer: Option<(Id, Box<Message>)>,
    pub referring: bool,
    /// The REFER asked for no NOTIFYs.
    pub untold: bool,
    /// Seconds of the session, and whether we refresh it.
    pub session: Option<(u32, bool)>,
    pub refreshed: Instant,
    /// When the session's alarm that counts is due; earlier ones are void.
    pub session_alarm: Option<Instant>,
    /// Refreshes that were refused since the last good one.
    pub refused_refreshes: u32,
    pub peer_updates: bool,
    pub peer_timer: bool,
    pub sdp: Option<Bytes>,
    /// What an offer of ours was sent with, whose answer the call waits for.
    pub offering: Option<Id>,
    /// When its peer wanted a whole picture last.
    pub picture_wanted: Option<Instant>,
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
            trunk: false,
            owner: None,
            merge_key: None,
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
            unacknowledged_cseq: None,
            offered_late: false,
            client: None,
            repeat: None,
            declined: Vec::new(),
            hung_up: None,
            settled: false,
            offered_early: false,
            waiting_answer: None,
            invited: None,
            update: None,
            ack: None,
            give_up: None,
            rseq: 0,
            reliable: None,
            wants_reliable: false,
            queued: VecDeque::new(),
            invite_cseq: None,
            heard_rseq: Vec::new(),
            refer: None,
            referring: false,
            untold: false,
            session: None,
            refreshed: now,
            session_alarm: None,
            refused_refreshes: 0,
            peer_updates: false,
            peer_timer: false,
            sdp: None,
            offering: None,
            picture_wanted: None,
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
        let (uri, routes) = addressed(&self.target, &self.routes);
        let mut message = Message::request(method, uri);
        message.push(Name::Via, via);
        for route in routes {
            message.push(Name::Route, route);
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
            self.target = without_headers(&contact.uri).into();
        }
        if self.follows && self.flow.transport == Transport::Udp {
            let first = self.routes.first().and_then(|r| address::list(r).ok()?.into_iter().next());
            let next = first.map_or_else(|| self.target.to_string(), |a| a.uri.to_string());
            self.flow.peer = Uri::parse(&next).ok().and_then(|u| u.socket()).unwrap_or(self.flow.peer);
        }
    }

    /// Whether a reliable provisional answer is the next of its phone.
    pub fn next_reliable(&mut self, response: &Message) -> bool {
        let Some(rseq) = response.header(&Name::RSeq).and_then(|r| r.trim().parse::<u32>().ok()) else {
            return false;
        };
        let tag = response.tag(&Name::To).unwrap_or_default();
        let Some(at) = self.heard_rseq.iter().position(|(t, _)| t == tag) else {
            let room = self.heard_rseq.len() < FORKS;
            if room {
                self.heard_rseq.push((tag.to_owned(), rseq));
            }
            return room;
        };
        let last = &mut self.heard_rseq[at].1;
        let next = last.checked_add(1) == Some(rseq);
        if next {
            *last = rseq;
        }
        next
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

    /// The session's time as a request of the peer has it (RFC 4028, 9, table 2). The peer refreshes where it can and
    /// did not ask us to. A request without the header leaves what we refresh ourselves as it is.
    pub fn take_session(&mut self, request: &Message) {
        self.peer_timer = request.lists(&Name::Supported, "timer");
        self.session = match session_expires(request) {
            None => self.session.filter(|(_, ours)| *ours),
            // Too short for a peer that would not understand 422, and we may not lengthen it: no timer.
            Some((seconds, _)) if seconds < MIN_SE => None,
            Some((seconds, refresher)) => {
                Some((seconds, !self.peer_timer || refresher == Some(Refresher::Uas)))
            }
        };
    }

    /// The session's time in our 2xx.
    pub fn session_headers(&self, response: &mut Message) {
        let Some((seconds, ours)) = self.session else { return };
        let refresher = if ours { "uas" } else { "uac" };
        response.push(Name::SessionExpires, format!("{seconds};refresher={refresher}"));
        if self.peer_timer {
            response.push(Name::Require, "timer");
        }
    }

    /// The session's time as a 2xx to a request of ours has it.
    pub fn agree_session(&mut self, response: &Message) {
        self.session = session_expires(response)
            .map(|(seconds, refresher)| (seconds.max(MIN_SE), refresher != Some(Refresher::Uas)));
        self.refused_refreshes = 0;
    }

    /// Whether a message's source is the peer as far as its address can tell: the host of the flow, of the target or of the
    /// first route, or one that a trunk's neighbour speaks from. A target that is a host name says nothing.
    pub fn is_peer(&self, flow: Flow) -> bool {
        let source = flow.peer.ip().to_canonical();
        let host =
            |uri: &str| -> Option<IpAddr> { Some(Uri::parse(uri).ok()?.socket()?.ip().to_canonical()) };
        let route = self.routes.first().and_then(|r| address::list(r).ok()?.into_iter().next());
        let neighbour = matches!(&self.owner, Some(super::Owner::Trunk(.., all)) if all.iter().any(|n| n.contains(&source)));
        let told = host(&self.target) == Some(source) || route.is_some_and(|r| host(&r.uri) == Some(source));
        self.flow.same_source(flow) || neighbour || self.follows && told
    }

    pub fn same_dialog(&self, request: &Message) -> bool {
        request.call_id() == &*self.call_id
            && self.remote_tag.as_deref().is_none_or(|tag| request.tag(&Name::From) == Some(tag))
    }
}

/// Phones behind one fork whose reliable provisional answers are followed.
const FORKS: usize = 16;

/// Extensions that a request insists on and that are not known here, as `Unsupported` names them (RFC 3261, 8.2.2.3).
pub fn unsupported(request: &Message) -> Option<String> {
    let required = request.joined(&Name::Require).unwrap_or_default();
    let known = |tag: &str| SUPPORTED.split(", ").any(|k| k.eq_ignore_ascii_case(tag));
    let unknown: Vec<&str> =
        required.split(',').map(str::trim).filter(|tag| !tag.is_empty() && !known(tag)).collect();
    (!unknown.is_empty()).then(|| unknown.join(", "))
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

/// Request-URI and routes of a request in a dialog: a first proxy that routes strictly (RFC 2543, no `lr`) is named by the
/// Request-URI itself, and the target is the last route (RFC 3261, 12.2.1.1).
pub(crate) fn addressed(target: &ByteString, routes: &[ByteString]) -> (ByteString, Vec<ByteString>) {
    let strict = routes.split_first().and_then(|(first, rest)| {
        let named = address::list(first).ok()?.into_iter().next()?;
        Uri::parse(&named.uri).ok().filter(|u| u.parameter("lr").is_none())?;
        let last = ByteString::from(format!("<{target}>"));
        Some((without_headers(&named.uri).into(), rest.iter().cloned().chain([last]).collect()))
    });
    strict.unwrap_or_else(|| (target.clone(), routes.to_vec()))
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
