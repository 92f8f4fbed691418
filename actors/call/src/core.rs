//! A call as one state machine without IO: what its legs, timers and media tell it goes in, what they shall do comes out.
//!
//! A call has one origin, and dials: attempts to connect a party that waits with somebody else. The first dial connects
//! the origin; a transfer is another one for the party that stays. Everybody who has been connected is in `legs` as
//! `Talking`, and [`Call::reconnect`] says who hears whom.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    Picture,
    routing::{
        number::{Apri, Called, Calling},
        route::{self, Mode, Outcome, Query},
    },
};
use kit::Address;
use strum::IntoStaticStr;

use crate::{
    Board, Cause, Incoming, LegCommand, LegEvent, LegId, MediaEvent, Party, Refer, Target,
    board::{CallView, Held, LegView},
    leg::{Origin, Outgoing},
    media::{Change, MediaPart, MediaSession, Quality, Source, Tone, Wish},
    record::{self, Cdr, RecordEvent},
    service::{self, Code, Service},
};

/// How long a phone may ring.
const NO_ANSWER: Duration = Duration::from_secs(120);
/// How long setting up may take in all.
const SETUP: Duration = Duration::from_secs(300);
/// Diversions one after another; more is a loop between subscribers.
const DIVERSIONS: usize = 5;
/// Parties of a conference (manual of the switch: up to 16).
pub const CONFERENCE: usize = 16;
/// How long a confirming tone is heard.
const CONFIRM: Duration = Duration::from_secs(2);
/// Longest conversation.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long a party of a failed call hears why, where it has been answered.
const BUSY_TONE: Duration = Duration::from_secs(5);

/// Surroundings of one step.
pub struct World<'w> {
    pub now: DateTime<Utc>,
    pub picture: &'w Picture,
    pub board: &'w Board,
    pub media: &'w mut dyn MediaSession,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
pub enum Timer {
    /// Nobody has answered this dial.
    NoAnswer(u32),
    Setup,
    /// What this leg heard for its information is over.
    Heard(LegId),
    Longest,
}

/// A party that comes from another call.
pub struct Adopt {
    pub leg: LegId,
    pub party: Leg,
    pub part: Option<MediaPart>,
    /// An offer not answered yet; with it the party is one that calls.
    pub how: How,
}

impl std::fmt::Debug for Adopt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.leg, self.how)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It takes the place of this leg.
    Replace(LegId),
    /// It answers what rings.
    Pickup,
}

#[derive(Debug, IntoStaticStr)]
pub enum Event {
    Leg(LegId, LegEvent),
    Media(LegId, MediaEvent),
    Timer(Timer),
    Adopt(Box<Adopt>),
    /// What [`Effect::HandOver`] came to.
    HandedOver {
        by: LegId,
        done: bool,
    },
    /// Whether the service was changed.
    ServiceChanged(bool),
    /// An operator, or the end of the node, ends the call.
    Shutdown,
}

#[derive(Debug, IntoStaticStr)]
pub enum Effect {
    Leg(LegId, LegCommand),
    After(Duration, Timer),
    /// To be safe in the journal before anything that follows is done.
    Keep(RecordEvent),
    /// Gives a party to another call.
    HandOver {
        to: HandTo,
        by: LegId,
        adopt: Box<Adopt>,
    },
    SetService {
        domain: String,
        alias: String,
        service: Service,
        active: bool,
        number: Option<String>,
    },
    /// For the ladder.
    Note(String),
    Done,
}

/// Which call a party goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandTo {
    /// The one that this leg belongs to.
    LegOf(LegId),
    Call(Address),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The origin before it is answered.
    Calling,
    /// A dialled leg before anything came back, and when it rings.
    Trying,
    Ringing,
    Talking,
}

/// One party.
#[derive(Debug)]
pub struct Leg {
    state: State,
    party: Party,
    domain: String,
    /// Subscriber's interface or trunk.
    iface: String,
    /// The subscriber's number, where it is one.
    alias: Option<String>,
    context: String,
    /// It has put the other side on hold.
    holds: bool,
    /// It came without an offer: the answer to ours comes with its confirmation.
    offers_late: bool,
    /// Our answer went with it before it was answered.
    early: Option<Bytes>,
    user_agent: String,
    ice: bool,
    /// The dial it belongs to; the origin has none.
    dial: Option<u32>,
    quality: Option<Quality>,
    _line: Option<Held>,
}

/// An attempt to connect a waiting party.
struct Dial {
    number: u32,
    waiting: LegId,
    /// Who asked for the transfer.
    by: Option<LegId>,
    legs: Vec<LegId>,
    /// Whose early media the waiting party hears.
    early: Option<LegId>,
    ringing: bool,
    to: Party,
    /// Where it is delivered, for forwarding.
    callee: Option<(String, String)>,
    /// The best failure so far.
    failure: Option<(Cause, Option<u16>)>,
    cdr: Cdr,
    bridges: Vec<Held>,
    diverted: Vec<String>,
    max_forwards: u8,
    uui: Option<String>,
}

/// A connection that was answered, until it ends.
struct Connection {
    cdr: Cdr,
    legs: (LegId, LegId),
    _bridges: Vec<Held>,
}

pub struct Call {
    address: Address,
    incoming: Option<Incoming>,
    origin: LegId,
    legs: BTreeMap<LegId, Leg>,
    dial: Option<Dial>,
    connections: Vec<Connection>,
    dials: u32,
    /// The leg that keeps the conference alive.
    chair: Option<LegId>,
    began: DateTime<Utc>,
    view_state: &'static str,
    b: String,
    bridges: Vec<String>,
    domains: Vec<String>,
    over: bool,
    out: Vec<Effect>,
}

impl Call {
    pub fn new(address: Address, incoming: Incoming, now: DateTime<Utc>) -> Self {
        let (origin, b, domains) = (incoming.leg, incoming.dialled.clone(), vec![incoming.domain.clone()]);
        Self {
            address,
            origin,
            incoming: Some(incoming),
            legs: BTreeMap::new(),
            dial: None,
            connections: Vec::new(),
            dials: 0,
            chair: None,
            began: now,
            view_state: "routing",
            b,
            bridges: Vec::new(),
            domains,
            over: false,
            out: Vec::new(),
        }
    }

    /// Takes up the call that came in.
    pub fn start(&mut self, world: &mut World<'_>) -> Vec<Effect> {
        if let Some(incoming) = self.incoming.take() {
            self.out.push(Effect::After(SETUP, Timer::Setup));
            if let Err((cause, text)) = self.enter(incoming, world) {
                self.note(format!("refused: {text}"));
                let origin = self.origin;
                self.release(origin, cause, None, world);
                self.end();
            }
        }
        std::mem::take(&mut self.out)
    }

    pub fn handle(&mut self, event: Event, world: &mut World<'_>) -> Vec<Effect> {
        if !self.over {
            match event {
                Event::Leg(leg, event) => self.on_leg(leg, event, world),
                Event::Media(leg, event) => self.on_media(leg, event, world),
                Event::Timer(timer) => self.on_timer(timer, world),
                Event::Adopt(adopt) => self.adopt(*adopt, world),
                Event::HandedOver { by, done } => self.handed_over(by, done, world),
                Event::ServiceChanged(done) => {
                    self.confirm(if done { Tone::Confirm } else { Tone::Error }, world)
                }
                Event::Shutdown => self.finish(Cause::TEMPORARY_FAILURE, "system", world),
            }
        }
        std::mem::take(&mut self.out)
    }

    // ---- coming in

    fn enter(&mut self, incoming: Incoming, world: &mut World<'_>) -> Result<(), (Cause, String)> {
        let refuse = |cause: Cause, text: &str| Err((cause, text.to_owned()));
        let Incoming { leg, domain: name, origin, from, dialled, sdp, .. } = &incoming;
        let Some(domain) = world.picture.domains.get(name) else {
            return refuse(Cause::NO_ROUTE, "its domain has gone");
        };
        let (iface, context, alias, mut party) = match origin {
            Origin::Subscriber { iface } => {
                let Some(user) = domain.users.get(iface) else {
                    return refuse(Cause::REJECTED, "no such subscriber");
                };
                let alias = domain.aliases.values().find(|a| a.iface == *iface && a.address == user.user());
                let alias = alias.or_else(|| domain.aliases.values().find(|a| a.iface == *iface));
                let number = alias.map_or(user.user(), |a| a.address.as_str()).to_owned();
                let party = Party { number: number.clone(), ..from.clone() };
                (iface.clone(), user.context.clone(), Some(number), party)
            }
            Origin::Trunk { name } => match domain.trunks.get(name) {
                Some(trunk) => (name.clone(), trunk.context.clone(), None, from.clone()),
                None => return refuse(Cause::REJECTED, "no such trunk"),
            },
        };
        if let Some(alias) = &alias {
            let has = |s| service::active(world.picture, world.now, name, alias, s).is_some();
            party.restricted |= has(Service::Clir);
            let apri = domain.aliases.get(alias).and_then(|a| a.properties.get("apri"));
            party.restricted |= apri.is_some_and(|v| v.shown() == "presentationRestricted");
            if !has(Service::Cnip) {
                party.name.clear();
            }
        }
        let line = match alias.is_some() {
            true => match world.board.take_line(name, &iface, limit(world.picture, name, alias.as_deref())) {
                Some(line) => Some(line),
                None => return refuse(Cause::UNAVAILABLE, "the subscriber has as many calls as it may"),
            },
            false => None,
        };
        let origin_leg = Leg {
            state: State::Calling,
            party,
            domain: name.clone(),
            iface,
            alias: alias.clone(),
            context,
            holds: false,
            offers_late: sdp.is_none(),
            early: None,
            user_agent: incoming.user_agent.clone(),
            ice: incoming.ice,
            dial: None,
            quality: None,
            _line: line,
        };
        self.legs.insert(*leg, origin_leg);
        if let Some(sdp) = sdp {
            world.media.remote_offer(*leg, sdp).map_err(|e| (Cause::INCOMPATIBLE, e.to_string()))?;
        }
        if let Some(replaced) = incoming.replaces {
            self.give_away(*leg, HandTo::LegOf(replaced), How::Replace(replaced), *leg, world);
            return Ok(());
        }
        if let Some(alias) = &alias
            && let Some(code) = service::code(dialled)
        {
            return self.code(code, name.clone(), alias.clone(), world);
        }
        if incoming.max_forwards == 0 {
            return refuse(Cause::ROUTING_ERROR, "too many hops");
        }
        if incoming.history.iter().filter(|n| *n == dialled).count() > 1 {
            return refuse(Cause::ROUTING_ERROR, "a loop: the number was diverted from before");
        }
        let dial = self.new_dial(*leg, None, "call", world);
        let dial = Dial {
            max_forwards: incoming.max_forwards - 1,
            diverted: incoming.history.clone(),
            uui: incoming.uui.clone(),
            ..dial
        };
        self.route(dial, dialled.clone(), world);
        Ok(())
    }

    fn code(
        &mut self,
        code: Code,
        domain: String,
        alias: String,
        world: &mut World<'_>,
    ) -> Result<(), (Cause, String)> {
        let allowed = |s: Service| world.picture.allows(s.name(), world.now);
        let not_granted =
            || Err((Cause::NOT_SUBSCRIBED, "the licence does not grant this service".to_owned()));
        match code {
            Code::Activate(service, _) | Code::Deactivate(service) if !allowed(service) => not_granted(),
            Code::Activate(service, number) => {
                self.out.push(Effect::SetService { domain, alias, service, active: true, number });
                Ok(())
            }
            Code::Deactivate(service) => {
                self.out.push(Effect::SetService { domain, alias, service, active: false, number: None });
                Ok(())
            }
            Code::Conference => {
                if service::active(world.picture, world.now, &domain, &alias, Service::Conference).is_none() {
                    return Err((Cause::NOT_SUBSCRIBED, "no conference service".into()));
                }
                let origin = self.origin;
                self.chair = Some(origin);
                self.view_state = "conference";
                self.answer(origin, world)?;
                self.reconnect(world);
                self.out.push(Effect::After(LONGEST, Timer::Longest));
                Ok(())
            }
            Code::Pickup(number) => {
                if service::active(world.picture, world.now, &domain, &alias, Service::Pickup).is_none() {
                    return Err((Cause::NOT_SUBSCRIBED, "no pickup service".into()));
                }
                let iface = world
                    .picture
                    .domains
                    .get(&domain)
                    .and_then(|d| d.aliases.get(&number))
                    .map(|a| a.iface.clone());
                let call = iface.and_then(|i| world.board.ringing_at(&i));
                let call = call.ok_or((Cause::NO_ROUTE, "nothing rings there".to_owned()))?;
                let origin = self.origin;
                self.give_away(origin, HandTo::Call(call), How::Pickup, origin, world);
                Ok(())
            }
        }
    }

    // ---- dialling

    fn new_dial(&mut self, waiting: LegId, by: Option<LegId>, service: &str, world: &World<'_>) -> Dial {
        self.dials += 1;
        let from = by.unwrap_or(waiting);
        let user_agent = self.legs.get(&from).map(|l| l.user_agent.clone()).unwrap_or_default();
        let cdr = Cdr {
            call: self.address.to_string(),
            attempt: self.dials,
            sides: Vec::new(),
            group: self.legs.get(&from).and_then(|l| l.alias.clone()).unwrap_or_default(),
            setup: world.now,
            answered: None,
            ended: None,
            cause: None,
            released_by: String::new(),
            diverted: None,
            service: service.to_owned(),
            user_agent,
        };
        Dial {
            number: self.dials,
            waiting,
            by,
            legs: Vec::new(),
            early: None,
            ringing: false,
            to: Party::default(),
            callee: None,
            failure: None,
            cdr,
            bridges: Vec::new(),
            diverted: Vec::new(),
            max_forwards: 70,
            uui: None,
        }
    }

    /// Routes a dial from its caller: the waiting party, or who transfers it.
    fn route(&mut self, mut dial: Dial, number: String, world: &mut World<'_>) {
        let Some(from) = self.legs.get(&dial.by.unwrap_or(dial.waiting)) else { return };
        let apri = if from.party.restricted { Apri::Restricted } else { Apri::Allowed };
        let query = Query {
            domain: from.domain.clone(),
            iface: from.iface.clone(),
            context: from.context.clone(),
            a: Calling { digits: from.party.number.clone(), apri, ..Calling::default() },
            b: Called { digits: number.clone(), ..Called::default() },
            mode: Mode::Enblock,
            at: world.now,
            explain: false,
        };
        dial.to = Party { number, ..Party::default() };
        self.follow(dial, &query, world);
    }

    fn follow(&mut self, mut dial: Dial, query: &Query, world: &mut World<'_>) {
        let trace = route::route(world.picture, query);
        let out = match &trace.outcome {
            Outcome::Local { iface, .. } => iface.clone(),
            Outcome::External { trunk, .. } => trunk.clone(),
            Outcome::Refused { .. } => String::new(),
        };
        let sides =
            record::sides(&trace, &query.domain, &query.iface, &query.a.digits, &query.b.digits, &out);
        self.note(format!("route {} -> {}: {}", query.a.digits, query.b.digits, way(&sides, &trace.outcome)));
        for side in &sides {
            if !self.domains.contains(&side.domain) {
                self.domains.push(side.domain.clone());
            }
        }
        if dial.cdr.sides.is_empty() {
            dial.cdr.sides = sides;
        } else {
            dial.cdr.sides.extend(sides);
        }
        for bridge in &trace.bridges {
            let held = world.picture.bridges.all.get(bridge).zip(world.picture.calls.get(bridge)).and_then(
                |(b, count)| {
                    let places = b.capacity.map_or(u32::MAX, |c| c.saturating_sub(b.blocked));
                    Held::take(count, places)
                },
            );
            match held {
                Some(held) => {
                    self.bridges.push(bridge.clone());
                    dial.bridges.push(held);
                }
                None => {
                    // Somebody took the last place since the picture was read.
                    return self.failed(dial, Cause::NO_CIRCUIT, None, world);
                }
            }
        }
        let from = Party {
            number: trace.a.digits.clone(),
            restricted: trace.a.apri != Apri::Allowed,
            ..self.legs.get(&dial.by.unwrap_or(dial.waiting)).map(|l| l.party.clone()).unwrap_or_default()
        };
        dial.to.number.clone_from(&trace.b.digits);
        match trace.outcome {
            Outcome::Refused { cause, .. } => self.failed(dial, cause.into(), None, world),
            Outcome::External { domain, trunk, .. } => {
                let (to, target) =
                    (dial.to.clone(), Target::Trunk { domain: domain.clone(), trunk: trunk.clone() });
                let leg = Leg { alias: None, ..blank(&domain, &trunk, to) };
                self.launch(dial, vec![(leg, target)], from, NO_ANSWER, world);
            }
            Outcome::Local { domain, alias, iface } => self.deliver(dial, from, domain, alias, iface, world),
        }
    }

    /// To a subscriber, as its services want.
    fn deliver(
        &mut self,
        mut dial: Dial,
        mut from: Party,
        domain: String,
        alias: String,
        iface: String,
        world: &mut World<'_>,
    ) {
        dial.callee = Some((domain.clone(), alias.clone()));
        let has = |s| service::active(world.picture, world.now, &domain, &alias, s);
        if has(Service::Cfu).is_some() {
            return self.forward(dial, Service::Cfu, Cause::UNSPECIFIED, world);
        }
        if has(Service::Dnd).is_some() {
            return self.failed(dial, Cause::BUSY, None, world);
        }
        if from.restricted || has(Service::Clip).is_none() {
            let party = Party { restricted: true, ..Party::default() };
            from = party;
        }
        let now = world.now;
        let known = world.picture.registrations.get(&domain).and_then(|all| all.get(&iface));
        let mut contacts: Vec<_> =
            known.iter().flat_map(|c| c.iter()).filter(|c| c.expires > now).cloned().collect();
        if contacts.is_empty() {
            return match has(Service::Cfos) {
                Some(_) => self.forward(dial, Service::Cfos, Cause::ABSENT, world),
                None => self.failed(dial, Cause::ABSENT, None, world),
            };
        }
        contacts.sort_by_key(|c| std::cmp::Reverse((c.q, c.expires)));
        let user = world.picture.domains.get(&domain).and_then(|d| d.users.get(&iface));
        let forking = user.and_then(|u| u.properties.get("core_forking")).is_some_and(|v| v == "true");
        if !forking {
            contacts.truncate(1);
        }
        let mut line = world.board.take_line(&domain, &iface, limit(world.picture, &domain, Some(&alias)));
        if line.is_none() {
            return self.failed(dial, Cause::BUSY, None, world);
        }
        let context = user.map(|u| u.context.clone()).unwrap_or_default();
        let legs = contacts
            .into_iter()
            .map(|contact| {
                let leg = Leg {
                    alias: Some(alias.clone()),
                    context: context.clone(),
                    ice: contact.ice,
                    user_agent: contact.user_agent.clone(),
                    _line: line.take(),
                    ..blank(&domain, &iface, dial.to.clone())
                };
                let (domain, iface) = (domain.clone(), iface.clone());
                (leg, Target::Contact { domain, iface, contact: Box::new(contact) })
            })
            .collect();
        let patience =
            has(Service::Cfnr).and_then(|s| s.options.get("timeout")?.parse().ok()).map(Duration::from_secs);
        let patience = patience.unwrap_or(if has(Service::Cfnr).is_some() {
            Duration::from_secs(20)
        } else {
            NO_ANSWER
        });
        self.launch(dial, legs, from, patience, world);
    }

    fn launch(
        &mut self,
        mut dial: Dial,
        targets: Vec<(Leg, Target)>,
        from: Party,
        patience: Duration,
        world: &mut World<'_>,
    ) {
        for (mut leg, target) in targets {
            let id = world.board.next_leg();
            let wish = Wish { like: Some(dial.waiting), ice: leg.ice };
            let sdp = match world.media.offer(id, wish) {
                Ok(sdp) => sdp,
                Err(e) => {
                    self.note(format!("no media for {id}: {e}"));
                    dial.failure = Some((Cause::UNAVAILABLE, None));
                    continue;
                }
            };
            leg.dial = Some(dial.number);
            let outgoing = Outgoing {
                target,
                from: from.clone(),
                to: leg.party.clone(),
                domain: leg.domain.clone(),
                sdp,
                max_forwards: dial.max_forwards,
                history: dial.diverted.clone(),
                uui: dial.uui.clone(),
            };
            self.legs.insert(id, leg);
            dial.legs.push(id);
            self.out.push(Effect::Leg(id, LegCommand::Call(Box::new(outgoing))));
        }
        if dial.legs.is_empty() {
            let (cause, status) = dial.failure.unwrap_or((Cause::UNAVAILABLE, None));
            return self.failed(dial, cause, status, world);
        }
        self.out.push(Effect::After(patience, Timer::NoAnswer(dial.number)));
        if self.view_state != "conference" {
            self.view_state = "ringing";
        }
        self.b.clone_from(&dial.to.number);
        self.dial = Some(dial);
    }

    /// Sends a dial on to the number its callee has set; where it cannot, the call fails with `cause`.
    fn forward(&mut self, mut dial: Dial, service: Service, cause: Cause, world: &mut World<'_>) {
        let Some((domain, alias)) = dial.callee.take() else {
            return self.failed_for_good(dial, cause, None, world);
        };
        let options = service::active(world.picture, world.now, &domain, &alias, service);
        let number = options.and_then(|o| o.options.get("number").cloned());
        let looped = |n: &String| dial.diverted.len() >= DIVERSIONS || dial.diverted.contains(n);
        let Some(number) = number.filter(|n| !n.is_empty() && !looped(n) && *n != alias) else {
            let cause = if dial.diverted.len() >= DIVERSIONS { Cause::ROUTING_ERROR } else { cause };
            return self.failed_for_good(dial, cause, None, world);
        };
        let user =
            world.picture.domains.get(&domain).and_then(|d| d.users.get(&d.aliases.get(&alias)?.iface));
        let Some(user) = user else { return self.failed_for_good(dial, cause, None, world) };
        self.note(format!("{service}: {alias} -> {number}"));
        dial.diverted.push(alias.clone());
        dial.cdr.diverted = Some(alias.clone());
        dial.cdr.service = "forward".into();
        dial.failure = None;
        if dial.by.is_none() {
            self.out.push(Effect::Leg(dial.waiting, LegCommand::Progress { status: 181, sdp: None }));
        }
        let caller =
            self.legs.get(&dial.by.unwrap_or(dial.waiting)).map(|l| l.party.clone()).unwrap_or_default();
        let apri = if caller.restricted { Apri::Restricted } else { Apri::Allowed };
        // The caller stays the calling party; the way is the diverting subscriber's.
        let query = Query {
            domain,
            iface: user.iface.clone(),
            context: user.context.clone(),
            a: Calling { digits: caller.number, apri, ..Calling::default() },
            b: Called { digits: number.clone(), ..Called::default() },
            mode: Mode::Enblock,
            at: world.now,
            explain: false,
        };
        dial.to = Party { number, ..Party::default() };
        dial.bridges.clear();
        self.follow(dial, &query, world);
    }

    /// A dial came to nothing: perhaps its callee wants it elsewhere.
    fn failed(&mut self, dial: Dial, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let service = match cause {
            Cause::BUSY => Service::Cfb,
            Cause::NO_ANSWER | Cause::NO_RESPONSE => Service::Cfnr,
            Cause::ABSENT | Cause::TIMER | Cause::OUT_OF_ORDER => Service::Cfos,
            _ => return self.failed_for_good(dial, cause, status, world),
        };
        let wants = dial.callee.as_ref().is_some_and(|(domain, alias)| {
            service::active(world.picture, world.now, domain, alias, service).is_some()
        });
        match wants {
            true => self.forward(dial, service, cause, world),
            false => self.failed_for_good(dial, cause, status, world),
        }
    }

    fn failed_for_good(&mut self, mut dial: Dial, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        dial.cdr.ended = Some(world.now);
        dial.cdr.cause = Some(cause);
        dial.cdr.released_by = "b".into();
        self.out.push(Effect::Keep(RecordEvent::Ended { cdr: Box::new(dial.cdr), ladder: String::new() }));
        self.dial = None;
        let status = status.unwrap_or(cause.status());
        if let Some(by) = dial.by {
            // A transfer that failed: the parties are as before.
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            self.view_state = if self.chair.is_some() { "conference" } else { "talking" };
            return self.reconnect(world);
        }
        match self.legs.get(&dial.waiting).map(|l| l.state) {
            Some(State::Calling) => {
                self.release(dial.waiting, cause, Some(status), world);
                self.end_if_alone(cause, "b", world);
            }
            // Already answered: it hears that it was in vain.
            Some(_) => {
                world.media.hear(dial.waiting, Source::Tone(Tone::Busy));
                self.out.push(Effect::After(BUSY_TONE, Timer::Heard(dial.waiting)));
            }
            None => self.end_if_alone(cause, "b", world),
        }
    }

    // ---- what legs say

    fn on_leg(&mut self, id: LegId, event: LegEvent, world: &mut World<'_>) {
        if !self.legs.contains_key(&id) {
            return;
        }
        match event {
            LegEvent::Progress { status, sdp } => self.progress(id, status, sdp, world),
            LegEvent::Answered { sdp } => self.answered(id, sdp, world),
            LegEvent::Confirmed { sdp } => {
                let late = self.legs.get_mut(&id).is_some_and(|l| std::mem::take(&mut l.offers_late));
                if let Some(sdp) = sdp {
                    let change = world.media.remote_answer(id, &sdp);
                    self.changed(id, change, world);
                } else if late {
                    self.leave(id, Cause::PROTOCOL, world);
                }
            }
            LegEvent::Offer { sdp: None } => {
                let sdp = world.media.offer(id, Wish::default());
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.offers_late = true;
                }
                self.out.push(Effect::Leg(id, LegCommand::OfferAnswer(sdp.map_err(|_| 500))));
            }
            LegEvent::Offer { sdp: Some(sdp) } => {
                let change = world.media.remote_offer(id, &sdp);
                let answer =
                    change.as_ref().map_err(|_| 488).and_then(|_| world.media.answer(id).map_err(|_| 488));
                self.out.push(Effect::Leg(id, LegCommand::OfferAnswer(answer)));
                self.changed(id, change, world);
            }
            LegEvent::OfferAnswered(Ok(Some(sdp))) => {
                let change = world.media.remote_answer(id, &sdp);
                self.changed(id, change, world);
            }
            LegEvent::OfferAnswered(_) => {}
            LegEvent::Refer(refer) => self.refer(id, refer, world),
            LegEvent::Key { key, millis } => self.key(id, key, millis, false, world),
            LegEvent::Redirected { to } => self.redirected(id, &to, world),
            LegEvent::Released { cause, status } => self.released(id, cause, status, world),
        }
    }

    fn changed(&mut self, id: LegId, change: Result<Change, crate::MediaError>, world: &mut World<'_>) {
        let Ok(change) = change else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.holds != change.held {
            leg.holds = change.held;
            let text = format!("{id} {}", if change.held { "holds" } else { "retrieves" });
            self.note(text);
        }
        let held = self.legs.values().any(|l| l.state == State::Talking && l.holds);
        if self.dial.is_none() && self.chair.is_none() {
            self.view_state = if held { "held" } else { "talking" };
        }
        if self.legs.get(&id).is_some_and(|l| l.state == State::Talking) {
            self.reconnect(world);
        }
    }

    fn progress(&mut self, id: LegId, status: u16, sdp: Option<Bytes>, world: &mut World<'_>) {
        let Some(mut dial) = self.dial.take() else { return };
        if dial.legs.contains(&id) {
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.state = State::Ringing;
            }
            let answered = self.legs.get(&dial.waiting).is_some_and(|l| l.state == State::Talking);
            if let Some(sdp) = sdp
                && dial.early.is_none()
                && world.media.remote_answer(id, &sdp).is_ok()
            {
                dial.early = Some(id);
                world.media.hear(dial.waiting, Source::Leg(id));
                world.media.hear(id, Source::Leg(dial.waiting));
                if !answered {
                    self.early(dial.waiting, status, world);
                }
                dial.ringing = true;
            } else if !dial.ringing && dial.early.is_none() && status == 180 {
                dial.ringing = true;
                match answered {
                    // Somebody who is transferred hears that it rings.
                    true => world.media.hear(dial.waiting, Source::Tone(Tone::Ringback)),
                    false => {
                        self.out
                            .push(Effect::Leg(dial.waiting, LegCommand::Progress { status: 180, sdp: None }));
                    }
                }
            }
            if let Some(by) = dial.by {
                self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            }
        }
        self.dial = Some(dial);
    }

    /// Early media towards a caller: only where it has offered already.
    fn early(&mut self, id: LegId, status: u16, world: &mut World<'_>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.offers_late {
            self.out.push(Effect::Leg(id, LegCommand::Progress { status: 180, sdp: None }));
            return;
        }
        if leg.early.is_none() {
            leg.early = world.media.answer(id).ok();
        }
        let status = if status == 180 { 180 } else { 183 };
        let sdp = leg.early.clone();
        self.out.push(Effect::Leg(id, LegCommand::Progress { status, sdp }));
    }

    fn answered(&mut self, id: LegId, sdp: Option<Bytes>, world: &mut World<'_>) {
        let Some(mut dial) = self.dial.take_if(|d| d.legs.contains(&id)) else {
            // It answered although it was given up.
            return self.release(id, Cause::ANSWERED_ELSEWHERE, None, world);
        };
        if let Some(sdp) = sdp
            && let Err(e) = world.media.remote_answer(id, &sdp)
        {
            self.note(format!("{id} answers what we cannot take: {e}"));
            self.dial = Some(dial);
            self.release(id, Cause::INCOMPATIBLE, None, world);
            return self.one_failed(id, Cause::INCOMPATIBLE, None, world);
        }
        for other in std::mem::take(&mut dial.legs).into_iter().filter(|l| *l != id) {
            self.release(other, Cause::ANSWERED_ELSEWHERE, None, world);
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.state = State::Talking;
        }
        self.connect(dial, id, world);
    }

    /// The waiting party of a dial and another leg are connected.
    fn connect(&mut self, mut dial: Dial, id: LegId, world: &mut World<'_>) {
        let waiting = dial.waiting;
        dial.cdr.answered = Some(world.now);
        self.out.push(Effect::Keep(RecordEvent::Answered { cdr: Box::new(dial.cdr.clone()) }));
        if let Some(by) = dial.by {
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 200 }));
            if self.chair.is_none() {
                self.end_connection(
                    |c| c.legs.0 == by || c.legs.1 == by,
                    Cause::NORMAL,
                    "transfer",
                    world.now,
                );
                self.release(by, Cause::NORMAL, None, world);
            }
        }
        self.connections.push(Connection { cdr: dial.cdr, legs: (waiting, id), _bridges: dial.bridges });
        if self.legs.get(&waiting).is_some_and(|l| l.state == State::Calling)
            && let Err((cause, text)) = self.answer(waiting, world)
        {
            self.note(format!("the caller cannot be answered: {text}"));
            return self.finish(cause, "system", world);
        }
        if self.chair.is_none() {
            self.view_state = "talking";
        }
        self.out.push(Effect::After(LONGEST, Timer::Longest));
        self.reconnect(world);
    }

    /// 200 to a leg that calls.
    fn answer(&mut self, id: LegId, world: &mut World<'_>) -> Result<(), (Cause, String)> {
        let Some(leg) = self.legs.get_mut(&id) else { return Ok(()) };
        let sdp = match (&leg.early, leg.offers_late) {
            (Some(sdp), _) => Ok(sdp.clone()),
            (None, true) => world.media.offer(id, Wish { like: None, ice: leg.ice }),
            (None, false) => world.media.answer(id),
        };
        let sdp = sdp.map_err(|e| (Cause::INCOMPATIBLE, e.to_string()))?;
        leg.state = State::Talking;
        self.out.push(Effect::Leg(id, LegCommand::Answer { sdp }));
        Ok(())
    }

    /// Says who hears whom.
    fn reconnect(&mut self, world: &mut World<'_>) {
        let talking: Vec<(LegId, bool)> = self
            .legs
            .iter()
            .filter(|(_, l)| l.state == State::Talking)
            .map(|(id, l)| (*id, l.holds))
            .collect();
        let waits = self.dial.as_ref().map(|d| d.waiting);
        for (id, holds) in &talking {
            let other: Vec<&(LegId, bool)> = talking.iter().filter(|(o, _)| o != id).collect();
            let source = match (other.as_slice(), self.chair) {
                _ if *holds => Source::Silence,
                ([], Some(_)) => Source::Tone(Tone::Confirm),
                (_, Some(_)) => Source::Mix,
                _ if waits == Some(*id) => Source::Music,
                ([(o, false)], None) => Source::Leg(*o),
                ([(_, true)], None) => Source::Music,
                ([], None) => Source::Silence,
                _ => Source::Mix,
            };
            world.media.hear(*id, source);
        }
    }

    /// A key goes on to the others. One that came as events in RTP has gone already to those that take them so.
    fn key(&mut self, from: LegId, key: char, millis: u32, in_media: bool, world: &mut World<'_>) {
        let others: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, l)| **id != from && l.state == State::Talking)
            .map(|(id, _)| *id)
            .collect();
        for id in others {
            match world.media.takes_keys(id) {
                true if in_media && world.media.takes_keys(from) => {}
                true => world.media.key(id, key, millis),
                // A party without events heard in-band tones as they are.
                false if in_media && !world.media.takes_keys(from) => {}
                false => self.out.push(Effect::Leg(id, LegCommand::Key { key, millis })),
            }
        }
    }

    fn redirected(&mut self, id: LegId, to: &[String], world: &mut World<'_>) {
        let number = to.first().cloned();
        let Some(mut dial) = self.dial.take_if(|d| d.legs.contains(&id)) else { return };
        dial.legs.retain(|l| *l != id);
        let leg = self.forget(id, world);
        let (Some(number), Some(leg)) = (number, leg) else {
            return self.failed(dial, Cause::INTERWORKING, None, world);
        };
        // A phone that forwards by itself does so with its subscriber's rights.
        let alias = leg.alias.clone().unwrap_or_default();
        if !dial.legs.is_empty() || dial.diverted.len() >= DIVERSIONS || leg.alias.is_none() {
            self.dial = Some(dial);
            return self.one_failed(id, Cause::CHANGED, None, world);
        }
        dial.diverted.push(alias.clone());
        dial.cdr.diverted = Some(alias);
        dial.cdr.service = "forward".into();
        dial.bridges.clear();
        let caller = self.legs.get(&dial.waiting).map(|l| l.party.clone()).unwrap_or_default();
        let query = Query {
            domain: leg.domain.clone(),
            iface: leg.iface.clone(),
            context: leg.context.clone(),
            a: Calling { digits: caller.number, ..Calling::default() },
            b: Called { digits: number.clone(), ..Called::default() },
            mode: Mode::Enblock,
            at: world.now,
            explain: false,
        };
        dial.to = Party { number, ..Party::default() };
        self.follow(dial, &query, world);
    }

    fn released(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let dialled = self.dial.as_ref().is_some_and(|d| d.legs.contains(&id));
        if dialled {
            self.forget(id, world);
            return self.one_failed(id, cause, status, world);
        }
        self.left(id, cause, world);
    }

    /// One leg of a dial is no more; when it was the last, the dial has failed.
    fn one_failed(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let Some(mut dial) = self.dial.take() else { return };
        dial.legs.retain(|l| *l != id);
        if dial.early == Some(id) {
            dial.early = None;
        }
        // Among several, busy tells the caller most.
        if !matches!(dial.failure, Some((Cause::BUSY | Cause::REJECTED, _))) {
            dial.failure = Some((cause, status));
        }
        if dial.legs.is_empty() {
            let (cause, status) = dial.failure.unwrap_or((cause, status));
            return self.failed(dial, cause, status, world);
        }
        self.dial = Some(dial);
    }

    /// A party has left a call that may go on without it.
    fn left(&mut self, id: LegId, cause: Cause, world: &mut World<'_>) {
        let by = if id == self.origin { "a" } else { "b" };
        if self.dial.as_ref().is_some_and(|d| d.waiting == id) {
            if let Some(mut dial) = self.dial.take() {
                for leg in std::mem::take(&mut dial.legs) {
                    self.release(leg, Cause::NORMAL, None, world);
                }
                dial.cdr.ended = Some(world.now);
                dial.cdr.cause = Some(cause);
                dial.cdr.released_by = "a".into();
                self.out.push(Effect::Keep(RecordEvent::Ended {
                    cdr: Box::new(dial.cdr),
                    ladder: String::new(),
                }));
                if let Some(by) = dial.by {
                    self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 487 }));
                }
            }
        } else if let Some(dial) = self.dial.as_mut()
            && dial.by == Some(id)
        {
            // Who transfers may hang up and leave it to us.
            dial.by = None;
        }
        self.end_connection(|c| c.legs.0 == id || c.legs.1 == id, cause, by, world.now);
        self.forget(id, world);
        if self.chair == Some(id) {
            return self.finish(cause, by, world);
        }
        self.end_if_alone(cause, by, world);
        if !self.over {
            self.reconnect(world);
        }
    }

    /// Sends a party away.
    fn leave(&mut self, id: LegId, cause: Cause, world: &mut World<'_>) {
        self.out.push(Effect::Leg(id, LegCommand::Release { cause, status: None }));
        self.left(id, cause, world);
    }

    /// A call of one party, that is no conference and dials nobody, is over.
    fn end_if_alone(&mut self, cause: Cause, by: &str, world: &mut World<'_>) {
        let alone = self.legs.len() <= 1 && self.chair.is_none() && self.dial.is_none();
        if alone || self.legs.is_empty() {
            self.finish(cause, by, world);
        }
    }

    // ---- transfer, and parties that move between calls

    fn refer(&mut self, by: LegId, refer: Refer, world: &mut World<'_>) {
        let refuse = |me: &mut Self, status| me.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
        let may = self.legs.get(&by).is_some_and(|l| match &l.alias {
            Some(alias) => {
                service::active(world.picture, world.now, &l.domain, alias, Service::Ctr).is_some()
            }
            None => true,
        });
        if !may {
            return refuse(self, 403);
        }
        let stays: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, l)| **id != by && l.state == State::Talking)
            .map(|(id, _)| *id)
            .collect();
        let stays = match (stays.as_slice(), self.chair, &refer) {
            ([one], None, _) => *one,
            // In a conference, a new party is brought in.
            (_, Some(chair), Refer::Number(_)) if stays.len() + 1 < CONFERENCE => chair,
            _ => return refuse(self, 400),
        };
        if self.dial.is_some() {
            return refuse(self, 491);
        }
        match refer {
            Refer::Number(number) => {
                self.note(format!("transfer to {number}"));
                let dial = self.new_dial(stays, Some(by), "transfer", world);
                self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 100 }));
                self.route(dial, number, world);
                if self.chair.is_none() && self.dial.is_some() {
                    world.media.hear(stays, Source::Music);
                }
            }
            Refer::Leg(other) => self.give_away(stays, HandTo::LegOf(other), How::Replace(other), by, world),
            Refer::Unknown => refuse(self, 481),
        }
    }

    fn give_away(&mut self, leg: LegId, to: HandTo, how: How, by: LegId, world: &mut World<'_>) {
        let Some(party) = self.legs.remove(&leg) else { return };
        let part = world.media.detach(leg);
        self.out.push(Effect::HandOver { to, by, adopt: Box::new(Adopt { leg, party, part, how }) });
    }

    fn handed_over(&mut self, by: LegId, done: bool, world: &mut World<'_>) {
        if self.legs.contains_key(&by) {
            let status = if done { 200 } else { 503 };
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            if done {
                self.end_connection(
                    |c| c.legs.0 == by || c.legs.1 == by,
                    Cause::NORMAL,
                    "transfer",
                    world.now,
                );
                self.leave(by, Cause::NORMAL, world);
            }
        }
        if done && self.legs.is_empty() {
            self.end();
        }
    }

    /// Takes a party back that nobody wanted.
    pub fn take_back(&mut self, adopt: Adopt, world: &mut World<'_>) -> Vec<Effect> {
        let Adopt { leg, party, part, .. } = adopt;
        if let Some(part) = part {
            world.media.attach(leg, part);
        }
        let calling = party.state == State::Calling;
        self.legs.insert(leg, party);
        if calling {
            self.release(leg, Cause::NO_ROUTE, Some(481), world);
            self.end();
        } else {
            self.reconnect(world);
        }
        std::mem::take(&mut self.out)
    }

    /// Whether a party may come here.
    pub fn would_adopt(&self, how: How) -> bool {
        let room = self.chair.is_none() || self.legs.len() < CONFERENCE;
        !self.over
            && room
            && match how {
                How::Replace(leg) => self.legs.contains_key(&leg),
                How::Pickup => self.dial.as_ref().is_some_and(|d| d.by.is_none()),
            }
    }

    fn adopt(&mut self, adopt: Adopt, world: &mut World<'_>) {
        let Adopt { leg, mut party, part, how } = adopt;
        if let Some(part) = part {
            world.media.attach(leg, part);
        }
        party.dial = None;
        let calls = party.state == State::Calling;
        self.legs.insert(leg, party);
        self.note(format!("{leg} joins"));
        match how {
            How::Pickup => {
                let Some(mut dial) = self.dial.take() else { return };
                for other in std::mem::take(&mut dial.legs) {
                    self.release(other, Cause::ANSWERED_ELSEWHERE, None, world);
                }
                dial.cdr.service = "pickup".into();
                if self.answer(leg, world).is_ok() {
                    self.connect(dial, leg, world);
                }
            }
            How::Replace(replaced) => {
                if calls && self.answer(leg, world).is_err() {
                    return self.leave(leg, Cause::INCOMPATIBLE, world);
                }
                if self.chair == Some(replaced) {
                    // Whoever is transferred to the conference's chair joins the conference.
                    return self.reconnect(world);
                }
                for connection in &mut self.connections {
                    let (a, b) = &mut connection.legs;
                    if *a == replaced {
                        *a = leg;
                    }
                    if *b == replaced {
                        *b = leg;
                    }
                }
                if let Some(dial) = self.dial.as_mut().filter(|d| d.waiting == replaced) {
                    dial.waiting = leg;
                }
                if self.dial.as_ref().is_some_and(|d| d.legs.contains(&replaced)) {
                    // It rang there; now it is answered here.
                    if let Some(mut dial) = self.dial.take() {
                        for other in std::mem::take(&mut dial.legs) {
                            self.release(other, Cause::ANSWERED_ELSEWHERE, None, world);
                        }
                        return self.connect(dial, leg, world);
                    }
                }
                if self.origin == replaced {
                    self.origin = leg;
                }
                self.release(replaced, Cause::NORMAL, None, world);
                self.view_state = if self.dial.is_some() { "ringing" } else { "talking" };
                self.reconnect(world);
            }
        }
    }

    // ---- the rest

    fn on_media(&mut self, id: LegId, event: MediaEvent, world: &mut World<'_>) {
        match event {
            MediaEvent::Quality(quality) => {
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.quality = Some(quality);
                }
            }
            MediaEvent::Key(key) => self.key(id, key, 100, true, world),
            MediaEvent::Played => {}
            MediaEvent::Silent => {
                self.note(format!("nothing is heard from {id} any more"));
                self.leave(id, Cause::NETWORK_OUT_OF_ORDER, world);
            }
        }
    }

    fn on_timer(&mut self, timer: Timer, world: &mut World<'_>) {
        match timer {
            Timer::NoAnswer(number) => {
                let Some(mut dial) = self.dial.take_if(|d| d.number == number) else { return };
                for leg in std::mem::take(&mut dial.legs) {
                    self.release(leg, Cause::NO_ANSWER, None, world);
                }
                self.failed(dial, Cause::NO_ANSWER, None, world);
            }
            Timer::Setup => {
                if self.legs.get(&self.origin).is_some_and(|l| l.state == State::Calling) {
                    self.finish(Cause::TIMER, "system", world);
                }
            }
            Timer::Heard(leg) => {
                if self.connections.is_empty() && self.legs.contains_key(&leg) {
                    self.leave(leg, Cause::NORMAL, world);
                }
            }
            Timer::Longest => {
                let limit = chrono::TimeDelta::from_std(LONGEST).unwrap_or_default();
                if world.now - self.began >= limit {
                    self.finish(Cause::TIMER, "system", world);
                }
            }
        }
    }

    /// A service was asked for by code: the caller hears what came of it.
    fn confirm(&mut self, tone: Tone, world: &mut World<'_>) {
        let origin = self.origin;
        if self.answer(origin, world).is_err() {
            return self.finish(Cause::INCOMPATIBLE, "system", world);
        }
        world.media.hear(origin, Source::Tone(tone));
        self.out.push(Effect::After(CONFIRM, Timer::Heard(origin)));
    }

    fn end_connection(
        &mut self,
        which: impl Fn(&Connection) -> bool,
        cause: Cause,
        by: &str,
        now: DateTime<Utc>,
    ) {
        let (over, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.connections).into_iter().partition(|c| which(c));
        self.connections = on;
        for Connection { mut cdr, .. } in over {
            cdr.ended = Some(now);
            cdr.cause = Some(cause);
            cdr.released_by = by.to_owned();
            self.out.push(Effect::Keep(RecordEvent::Ended { cdr: Box::new(cdr), ladder: String::new() }));
        }
    }

    fn release(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        self.out.push(Effect::Leg(id, LegCommand::Release { cause, status }));
        self.forget(id, world);
    }

    fn forget(&mut self, id: LegId, world: &mut World<'_>) -> Option<Leg> {
        world.media.close(id);
        self.legs.remove(&id)
    }

    /// Ends everything.
    fn finish(&mut self, cause: Cause, by: &str, world: &mut World<'_>) {
        if let Some(mut dial) = self.dial.take() {
            dial.cdr.ended = Some(world.now);
            dial.cdr.cause = Some(cause);
            dial.cdr.released_by = by.to_owned();
            self.out
                .push(Effect::Keep(RecordEvent::Ended { cdr: Box::new(dial.cdr), ladder: String::new() }));
        }
        self.end_connection(|_| true, cause, by, world.now);
        for id in self.legs.keys().copied().collect::<Vec<_>>() {
            self.release(id, cause, None, world);
        }
        self.end();
    }

    fn end(&mut self) {
        if !self.over {
            self.over = true;
            self.out.push(Effect::Done);
        }
    }

    fn note(&mut self, text: String) {
        self.out.push(Effect::Note(text));
    }

    /// As the board shows it.
    pub fn view(&self) -> CallView {
        let state = |s: State| match s {
            State::Calling => "calling",
            State::Trying => "trying",
            State::Ringing => "ringing",
            State::Talking => "talking",
        };
        let leg = |(id, l): (&LegId, &Leg)| LegView {
            leg: *id,
            iface: l.iface.clone(),
            number: l.party.number.clone(),
            state: state(l.state),
            holds: l.holds,
            quality: l.quality.clone(),
        };
        CallView {
            call: self.address.to_string(),
            domains: self.domains.clone(),
            a: self.legs.get(&self.origin).map(|l| l.party.number.clone()).unwrap_or_default(),
            b: self.b.clone(),
            state: self.view_state,
            since: self.began,
            answered: self.connections.first().and_then(|c| c.cdr.answered),
            legs: self.legs.iter().map(leg).collect(),
            bridges: self.bridges.clone(),
        }
    }
}

fn blank(domain: &str, iface: &str, party: Party) -> Leg {
    Leg {
        state: State::Trying,
        party,
        domain: domain.to_owned(),
        iface: iface.to_owned(),
        alias: None,
        context: String::new(),
        holds: false,
        offers_late: false,
        early: None,
        user_agent: String::new(),
        ice: false,
        dial: None,
        quality: None,
        _line: None,
    }
}

/// Calls a subscriber may have at once: one without multiline, else what the service or the domain says.
fn limit(picture: &Picture, domain: &str, alias: Option<&str>) -> u32 {
    let Some(state) = picture.domains.get(domain) else { return 0 };
    let of_domain =
        state.restrictions.get("calls\\limit").map_or(u32::MAX, |l| u32::try_from(*l).unwrap_or(u32::MAX));
    let known = alias.and_then(|a| state.services.get(a)).and_then(|all| all.get(Service::Ml.name()));
    let of_line = match known {
        Some(ml) if !ml.active => 1,
        Some(ml) => ml.options.get("limit").and_then(|l| l.parse().ok()).unwrap_or(u32::MAX),
        None => u32::MAX,
    };
    let user = alias.and_then(|a| state.users.get(&state.aliases.get(a)?.iface));
    let of_user = user.and_then(|u| u.properties.get("line_count")?.parse().ok()).unwrap_or(u32::MAX);
    of_line.min(of_domain).min(of_user)
}

fn way(sides: &[record::Side], outcome: &Outcome) -> String {
    let mut text: Vec<&str> =
        sides.iter().flat_map(|s| [s.domain.as_str(), s.to.as_str()]).filter(|t| !t.is_empty()).collect();
    if let Outcome::Refused { text: why, .. } = outcome {
        text.push(why);
    }
    text.join(" -> ")
}
