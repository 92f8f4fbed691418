//! What one mediator is told of calls under control: a state machine without IO. It takes phases of calls and orders of the
//! control point, keeps what is going on and what is yet to be delivered, and says what is to be listened to.

mod actor;
mod kept;
pub mod radius;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use call::{
    Cause, LegId,
    media::Sink,
    service::Service,
    witness::{Phase as CallPhase, Seen, Trail, Written},
};
use chrono::{DateTime, Utc};
use domain::Picture;
use kit::journal::Fold;

pub use kept::{InterceptEvent, Kept, Key, Notice, Open, Status};

pub use actor::{Courier, InterceptMsg, Interception, Services};

use crate::{
    numbers::{self, Facts},
    protocol::{
        CallEvent, Category, Channel, Event, Intrusion, Moment, NONE, Operation, Pair, Party, Phase,
        Priority, Refusal, Reply, Said, Selection, Series, Text, Told,
    },
    settings::Mediator,
    station::{Desk, Media, Order, Station},
};

/// Starts or ends listening to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    pub call: String,
    pub tap: u64,
    pub left: LegId,
    pub sink: Option<Sink>,
}

/// Channels and call numbers in use at a mediator: one that works for several domains has them once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub channels: BTreeSet<Channel>,
    pub calls: BTreeSet<u16>,
    /// Channels with both parties in one.
    pub mixed: usize,
    /// Channels of calls that give them up to an object of high priority, and the domain of each.
    pub ordinary: BTreeMap<Pair, String>,
}

/// Another domain is asked for channels that its call of lower priority has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub domain: String,
    pub pair: Pair,
    /// What they are for.
    pub want: Want,
}

/// A call that waits for channels of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub key: Key,
    pub group: u8,
}

/// What became of a try to take channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seized {
    Taken,
    /// Another domain gives them up; then they are taken.
    Asked,
    None,
}

fn is_mixed(pair: Pair) -> bool {
    pair.a.is_some() && pair.b.is_none()
}

/// Surroundings of one step.
pub struct World<'w> {
    pub now: DateTime<Utc>,
    pub station: &'w Station,
    pub picture: &'w Picture,
    /// Number of the station's interception equipment.
    pub sorm: u8,
    /// Channels and call numbers that other domains use at the same mediator.
    pub others: &'w Claims,
    /// A number for a tap.
    pub fresh: &'w mut dyn FnMut() -> u64,
}

/// What one mediator of one domain is told.
pub struct Intercept {
    domain: String,
    mediator: Mediator,
    pub kept: Kept,
    events: Vec<InterceptEvent>,
    taps: Vec<Tap>,
    asks: Vec<Ask>,
}

impl Intercept {
    pub fn new(domain: String, mediator: Mediator, kept: Kept) -> Self {
        Self { domain, mediator, kept, events: Vec::new(), taps: Vec::new(), asks: Vec::new() }
    }

    /// What other domains are asked for.
    pub fn asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// What has happened since it was asked last.
    pub fn events(&mut self) -> Vec<InterceptEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn taps(&mut self) -> Vec<Tap> {
        std::mem::take(&mut self.taps)
    }

    fn keep(&mut self, event: InterceptEvent) {
        self.kept.apply(&event);
        self.events.push(event);
    }

    /// A phase of a call.
    pub fn see(&mut self, seen: &Seen, world: &mut World<'_>) {
        let Some(desk) = world.station.desks.get(&self.mediator).filter(|d| d.started) else { return };
        let of_call = |o: &&Open| o.key.call == seen.call.as_str() && o.key.attempt == seen.attempt;
        let known: Vec<Open> = self.kept.open.iter().filter(of_call).cloned().collect();
        match seen.phase {
            CallPhase::Routed => {
                let (domain, own) = (&self.domain, self.mediator);
                let facts = numbers::facts(world.station, world.picture, domain, &seen.trail, seen.at);
                let Some(facts) = facts else { return };
                let new = facts.hits.iter().filter(|((mediator, number), _)| {
                    *mediator == own && !known.iter().any(|o| o.key.object == *number)
                });
                for ((_, number), selection) in new {
                    self.open(seen, *number, *selection, &facts, desk, world);
                }
            }
            CallPhase::Answered => {
                for open in known.iter().filter(|o| !o.answered) {
                    self.keep(InterceptEvent::Answered(open.key.clone()));
                    self.tell(open, Said::Answer, operation(open), None, world);
                }
            }
            CallPhase::Released { cause, answered } => {
                for open in known {
                    self.close(&open, release(cause, answered || open.answered), world);
                }
            }
            CallPhase::Service(service) => {
                let forwarding =
                    matches!(service, Service::Cfu | Service::Cfb | Service::Cfnr | Service::Cfos);
                if let Some(code) = code_of(service)
                    && (!forwarding || world.station.settings.send_optional_cf_notification)
                {
                    for open in &known {
                        self.tell(open, Said::Service, operation(open), Some(code), world);
                    }
                }
            }
        }
    }

    /// Somebody tried to get in: message 6, where the station has been started.
    pub fn intrusion(&mut self, code: Intrusion, from: &str, world: &World<'_>) {
        if world.station.desks.get(&self.mediator).is_some_and(|d| d.started) {
            let told = Told::Intrusion { code, at: Moment::of(&world.now), text: from.to_owned() };
            let unit = Reply::alone(world.sorm, told).to_bytes();
            let session = format!("{}-intrusion-{}", self.domain, self.kept.sequence + 1);
            self.note(Status::Interim, session, Party::default(), Party::default(), unit, world);
        }
    }

    /// A text that somebody wrote: message 12, one for each object, a long one as a series.
    pub fn read(&mut self, written: &Written, world: &World<'_>) {
        let Some(desk) = world.station.desks.get(&self.mediator).filter(|d| d.started) else { return };
        let trail = Trail { leg: LegId(0), way: written.way.clone(), joined: Vec::new() };
        let facts = numbers::facts(world.station, world.picture, &self.domain, &trail, written.at);
        let Some(facts) = facts else { return };
        let own = self.mediator;
        for (_, number) in facts.hits.keys().filter(|(mediator, _)| *mediator == own) {
            let Some(object) = desk.objects.get(number) else { continue };
            let parts: Vec<&[u8]> = match written.content.chunks(Text::MOST).collect() {
                none if Vec::is_empty(&none) => vec![&[]],
                parts => parts,
            };
            let total = u16::try_from(parts.len()).unwrap_or(u16::MAX);
            for (index, part) in (1u16..).zip(parts) {
                let text = Text {
                    object: *number,
                    kind: object.kind.code(),
                    sender: facts.calling,
                    state: u8::from(!written.delivered),
                    code: NONE,
                    at: Moment::of(&written.at),
                    receiver: facts.called,
                    sender_imsi: Party::default(),
                    receiver_imsi: Party::default(),
                    content: part.to_vec(),
                };
                let series = if total == 1 { Series::default() } else { Series { total, index } };
                let reply = Reply { sorm: world.sorm, series, told: Told::Text(Box::new(text)) };
                let session = format!("{}-text-{}", self.domain, self.kept.sequence + 1);
                let (calling, called) = (facts.calling, facts.called);
                self.note(Status::Interim, session, calling, called, reply.to_bytes(), world);
            }
        }
    }

    fn open(
        &mut self,
        seen: &Seen,
        number: u16,
        selection: Selection,
        facts: &Facts,
        desk: &Desk,
        world: &mut World<'_>,
    ) {
        let Some(object) = desk.objects.get(&number) else { return };
        let key = Key { call: seen.call.to_string(), attempt: seen.attempt, object: number };
        // All that belongs to one call has one number.
        let of_call = self.kept.open.iter().find(|o| o.key.call == key.call).map(|o| o.number);
        let open = Open {
            number: of_call.unwrap_or_else(|| self.free_number(world.others)),
            key,
            kind: object.kind.code(),
            category: object.category,
            priority: object.priority,
            group: object.group,
            selection,
            attribute: facts.attribute,
            calling: facts.calling,
            called: facts.called,
            trunk: facts.trunk,
            answered: false,
            leg: seen.trail.leg.0,
            channels: Pair::default(),
            tap: None,
        };
        self.keep(InterceptEvent::Opened(Box::new(open.clone())));
        let operation = match (object.category, object.group) {
            (Category::Statistical, _) | (_, None) => Operation::STATISTICAL,
            (_, Some(group)) => match self.seize(&open, group, desk, Operation::BY_PRIORITY, world) {
                Seized::Taken => Operation::NORMAL,
                Seized::Asked | Seized::None => Operation::NO_CHANNEL,
            },
        };
        self.tell(&open, Said::Number, operation, None, world);
    }

    fn free_number(&self, others: &Claims) -> u16 {
        let own = self.kept.open.iter().map(|o| o.number);
        let taken: BTreeSet<u16> = own.chain(others.calls.iter().copied()).collect();
        (0..u16::MAX)
            .map(|n| self.kept.next_call.wrapping_add(n) % u16::MAX)
            .find(|n| !taken.contains(n))
            .unwrap_or(0)
    }

    /// Takes channels of a group for a call: free ones, or for an object of high priority those of an ordinary one, be it
    /// another domain's.
    fn seize(&mut self, open: &Open, group: u8, desk: &Desk, by: Operation, world: &mut World<'_>) -> Seized {
        let (Some(found), Some(media)) = (desk.groups.get(&group), desk.media) else { return Seized::None };
        let in_use = |pair: &Pair, kept: &Kept| {
            let used = kept.open.iter().flat_map(|o| [o.channels.a, o.channels.b]).flatten();
            let used = used.chain(world.others.channels.iter().copied());
            used.into_iter().any(|c| Some(c) == pair.a || Some(c) == pair.b)
        };
        let mixed = self.mixed() + world.others.mixed;
        let room = |p: &Pair| !is_mixed(*p) || media.mixed.is_none_or(|most| mixed < usize::from(most));
        let free = found.pairs.iter().find(|p| room(p) && !in_use(p, &self.kept)).copied();
        let may = open.priority == Priority::High || by == Operation::BY_COMMAND_7;
        let pair = free.or_else(|| {
            let ordinary = |o: &&Open| {
                o.channels != Pair::default()
                    && found.pairs.contains(&o.channels)
                    && o.priority != Priority::High
            };
            let victim = self.kept.open.iter().find(ordinary).filter(|_| may)?.clone();
            self.free(&victim, Some(by), world);
            Some(victim.channels)
        });
        let Some(channels) = pair else {
            let lent = found.pairs.iter().find_map(|p| Some((*p, world.others.ordinary.get(p)?.clone())));
            let Some((pair, domain)) = lent.filter(|_| may) else { return Seized::None };
            self.asks.push(Ask { domain, pair, want: Want { key: open.key.clone(), group } });
            return Seized::Asked;
        };
        let Some(sink) = sink(media, channels) else { return Seized::None };
        let tap = (world.fresh)();
        self.keep(InterceptEvent::Connected { key: open.key.clone(), group, channels, tap });
        self.taps.push(Tap { call: open.key.call.clone(), tap, left: LegId(open.leg), sink: Some(sink) });
        Seized::Taken
    }

    /// Gives channels up that an object of high priority in another domain wants.
    pub fn give(&mut self, pair: Pair, world: &World<'_>) {
        let ordinary = self.kept.open.iter().find(|o| o.channels == pair && o.priority != Priority::High);
        if let Some(open) = ordinary.cloned() {
            self.free(&open, Some(Operation::BY_PRIORITY), world);
        }
    }

    /// Channels that were asked for may be free now.
    pub fn take(&mut self, want: &Want, world: &mut World<'_>) {
        let open = self.kept.open.iter().find(|o| o.key == want.key && o.tap.is_none()).cloned();
        let desk = world.station.desks.get(&self.mediator);
        if let (Some(open), Some(desk)) = (open, desk)
            && self.seize(&open, want.group, desk, Operation::BY_PRIORITY, world) == Seized::Taken
        {
            self.tell(&open, Said::ChannelConnected, Operation::NORMAL, None, world);
        }
    }

    /// Frees a call's channels; `said` tells the control point why.
    fn free(&mut self, open: &Open, said: Option<Operation>, world: &World<'_>) {
        if let Some(tap) = open.tap {
            self.taps.push(Tap { call: open.key.call.clone(), tap, left: LegId(open.leg), sink: None });
        }
        if open.channels != Pair::default() {
            if let Some(operation) = said {
                self.tell(open, Said::ChannelFreed, operation, None, world);
            }
            self.keep(InterceptEvent::Freed(open.key.clone()));
        }
    }

    fn close(&mut self, open: &Open, operation: Operation, world: &World<'_>) {
        self.tell(open, Said::Release, operation, None, world);
        self.free(open, None, world);
        self.keep(InterceptEvent::Closed(open.key.clone()));
    }

    fn tell(
        &mut self,
        open: &Open,
        said: Said,
        operation: Operation,
        service: Option<u8>,
        world: &World<'_>,
    ) {
        // What has happened to its channels since.
        let channels =
            self.kept.open.iter().find(|o| o.key == open.key).map_or(open.channels, |o| o.channels);
        let event = CallEvent {
            said,
            calling: open.calling,
            called: open.called,
            trunk: open.trunk,
            channels,
            at: Moment::of(&world.now),
            priority: open.priority,
            operation,
            service,
            additional: NONE,
        };
        let unit = Event::Call {
            sorm: world.sorm,
            call: open.number,
            kind: open.kind,
            object: open.key.object,
            selection: open.selection,
            attribute: Some(open.attribute),
            phase: if said == Said::Service { Phase::Activation } else { Phase::Call },
            event,
        };
        let status = match said {
            Said::Number => Status::Start,
            Said::Release => Status::Stop,
            _ => Status::Interim,
        };
        let session = format!("{}-{}-{}", self.domain, open.number, open.key.object);
        self.note(status, session, open.calling, open.called, unit.to_bytes(), world);
    }

    fn note(
        &mut self,
        status: Status,
        session: String,
        calling: Party,
        called: Party,
        unit: Vec<u8>,
        world: &World<'_>,
    ) {
        let (sequence, at) = (self.kept.sequence + 1, world.now);
        let notice = Notice { sequence, at, status, session, calling, called, unit };
        self.keep(InterceptEvent::Noted(Box::new(notice)));
    }

    /// An order that a command has led to.
    pub fn order(&mut self, order: &Order, world: &mut World<'_>) -> Result<(), Refusal> {
        let of = |object: &u16, call: Option<u16>| {
            let all = self.kept.open.iter();
            let all = all.filter(|o| o.key.object == *object && call.is_none_or(|c| c == o.number));
            all.cloned().collect::<Vec<Open>>()
        };
        match order {
            // Whoever sends it shows us the calls under way.
            Order::Look => {}
            Order::Drop(object) => {
                for open in of(object, None) {
                    self.end(&open, Operation::BY_COMMAND_6, world);
                }
            }
            Order::Stop => self.end_all(Operation::BY_COMMAND_2, world),
            Order::Connect { call, object, group } => {
                let open = of(object, Some(*call)).into_iter().find(|o| o.tap.is_none());
                let open = open.ok_or(Refusal::ConnectObject)?;
                let desk = world.station.desks.get(&self.mediator).ok_or(Refusal::NotStarted)?;
                match self.seize(&open, *group, desk, Operation::BY_COMMAND_7, world) {
                    Seized::Taken => self.tell(&open, Said::ChannelConnected, Operation::NORMAL, None, world),
                    // It is told when they are there.
                    Seized::Asked => {}
                    Seized::None => return Err(Refusal::Allocation),
                }
            }
            Order::Free { call, object, pair } => {
                let open =
                    of(object, Some(*call)).into_iter().find(|o| o.channels == *pair && o.tap.is_some());
                let open = open.ok_or(Refusal::NoSuchChannel)?;
                self.free(&open, Some(Operation::BY_COMMAND_8), world);
            }
            Order::Test(number) => {
                // Both channels of every stream lead through this station's journal: they work if it answers.
                let unit = Event::Test { sorm: world.sorm, number: *number, first: 1, second: 1 };
                let session = format!("{}-test-{number}", self.domain);
                self.note(
                    Status::Interim,
                    session,
                    Party::default(),
                    Party::default(),
                    unit.to_bytes(),
                    world,
                );
            }
        }
        Ok(())
    }

    /// Ends the control of a call that goes on.
    fn end(&mut self, open: &Open, operation: Operation, world: &World<'_>) {
        self.free(open, Some(operation), world);
        self.keep(InterceptEvent::Closed(open.key.clone()));
    }

    fn end_all(&mut self, operation: Operation, world: &World<'_>) {
        for open in self.kept.open.clone() {
            self.end(&open, operation, world);
        }
    }

    /// Channels it has both parties in.
    fn mixed(&self) -> usize {
        self.kept.open.iter().filter(|o| is_mixed(o.channels)).count()
    }

    /// What it uses at its mediator.
    pub fn claims(&self) -> Claims {
        Claims {
            channels: self.kept.open.iter().flat_map(|o| [o.channels.a, o.channels.b]).flatten().collect(),
            calls: self.kept.open.iter().map(|o| o.number).collect(),
            mixed: self.mixed(),
            ordinary: self
                .kept
                .open
                .iter()
                .filter(|o| o.priority != Priority::High && o.channels != Pair::default())
                .map(|o| (o.channels, self.domain.clone()))
                .collect(),
        }
    }

    /// A notification has been confirmed.
    pub fn delivered(&mut self, sequence: u64) {
        self.keep(InterceptEvent::Delivered(sequence));
    }

    /// Ends what must not go on: calls that are no more, objects that are none.
    pub fn reconcile(&mut self, calls: &BTreeSet<String>, world: &World<'_>) {
        let desk = world.station.desks.get(&self.mediator);
        let works = world.station.settings.enabled && desk.is_some_and(|d| d.started);
        for open in self.kept.open.clone() {
            if !calls.contains(&open.key.call) {
                self.close(&open, Operation::TECHNICAL, world);
            } else if !works {
                self.end(&open, Operation::BY_COMMAND_2, world);
            } else if desk
                .is_some_and(|d| !d.objects.get(&open.key.object).is_some_and(|o| o.is_valid(world.now)))
            {
                self.end(&open, Operation::BY_COMMAND_6, world);
            }
        }
    }

    /// Taps (call and number) that were ordered and are not among these.
    pub fn missing(&self, taps: &[(String, u64)]) -> impl Iterator<Item = (String, u64)> {
        let ordered = self.kept.open.iter().filter_map(|o| Some((o.key.call.clone(), o.tap?)));
        ordered.filter(|t| !taps.contains(t))
    }

    /// The order for a tap, once more.
    pub fn again(&self, call: &str, tap: u64, station: &Station) -> Option<Tap> {
        let open = self.kept.open.iter().find(|o| o.key.call == call && o.tap == Some(tap))?;
        let media = station.desks.get(&self.mediator)?.media?;
        Some(Tap {
            call: call.to_owned(),
            tap,
            left: LegId(open.leg),
            sink: Some(sink(media, open.channels)?),
        })
    }
}

/// Where the speech of these channels goes.
fn sink(media: Media, channels: Pair) -> Option<Sink> {
    let port = |c: Channel| (media.ip, media.first.saturating_add(u16::from(c.0) * 2)).into();
    Some(Sink::Rtp { to: channels.a.map(port)?, others: channels.b.map(port) })
}

fn operation(open: &Open) -> Operation {
    match (open.category, open.tap) {
        (Category::Statistical, _) => Operation::STATISTICAL,
        (_, Some(_)) => Operation::NORMAL,
        (_, None) => Operation::NO_CHANNEL,
    }
}

fn release(cause: Cause, answered: bool) -> Operation {
    match cause {
        _ if answered => Operation::AFTER_CONVERSATION,
        Cause::BUSY => Operation::BUSY,
        Cause::NO_ANSWER | Cause::NO_RESPONSE | Cause::NORMAL => Operation::NO_ANSWER,
        Cause::INVALID_NUMBER | Cause::UNALLOCATED => Operation::INCOMPLETE,
        _ => Operation::TECHNICAL,
    }
}

/// Code of a service (3GPP TS 29.002).
pub fn code_of(service: Service) -> Option<u8> {
    Some(match service {
        Service::Cfu => 0x21,
        Service::Cfb => 0x29,
        Service::Cfnr => 0x2A,
        Service::Cfos => 0x2B,
        Service::Ctr => 0x31,
        Service::Pickup => 0x32,
        Service::Chold => 0x42,
        Service::Conference => 0x51,
        Service::Teleconference => 0x50,
        _ => return None,
    })
}
