//! What a command of the control point does: a function of the station and what the domain knows.

use std::collections::BTreeMap;

use strum::IntoEnumIterator;

use super::{Desk, Object, Station, StationEvent, TRUNKS};
use crate::{
    protocol::{
        Category, Channel, Command, Control, Digits, Intrusion, Kind, LineState, NONE, Node, Pair, Party,
        Priority, Refusal, Request, Sign, Subject, Told, Wanted,
    },
    settings::Mediator,
};

/// Streams (E1) a mediator may have, and the channels of each: time slots 16, 30 and 31 carry signalling.
const STREAMS: u8 = 4;

/// What a station must know of its domain.
pub trait Local {
    /// Whether a number is that of a subscriber: its own, or its full one in a number plan.
    fn subscriber(&self, number: &str) -> bool;
    fn trunks(&self) -> Vec<String>;
    /// Codes of the services that a subscriber has switched on; without a number, of all the station knows.
    fn services(&self, number: Option<&str>) -> Vec<u8>;
    /// Objects that a mediator may have.
    fn most_objects(&self) -> usize;
}

/// What is left to do where calls are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Objects that were put are looked for in calls under way.
    Look,
    /// Nothing more of these is told.
    Drop(u16),
    Stop,
    Connect {
        call: u16,
        object: u16,
        group: u8,
    },
    Free {
        call: u16,
        object: u16,
        pair: Pair,
    },
    Test(u8),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Message 7, "received".
    pub received: Option<Refusal>,
    /// Message 8, "carried out"; nothing is carried out that was not received.
    pub done: Option<Refusal>,
    /// Message 6.
    pub intrusion: Option<Intrusion>,
    /// Messages of a table.
    pub table: Vec<Told>,
    pub order: Option<Order>,
}

/// What went wrong, and at which of the two acknowledgements it is said.
enum Failed {
    Received(Refusal),
    Done(Refusal),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Done(refusal)
    }
}

/// Carries out a command as far as the station's own state goes.
pub fn execute(
    station: &Station,
    mediator: Mediator,
    request: &Request,
    sorm: u8,
    local: &dyn Local,
) -> (Vec<StationEvent>, Answer) {
    let new = Desk::default();
    let desk = station.desks.get(&mediator).unwrap_or(&new);
    if !desk.started && request.command != Command::Start {
        return (Vec::new(), Answer { received: Some(Refusal::NotStarted), ..Answer::default() });
    }
    if request.sorm != sorm {
        return (Vec::new(), refused(Refusal::SormNumber, Intrusion::WrongNumber));
    }
    if !bool::from(subtle::ConstantTimeEq::ct_eq(&request.password.0[..], &desk.password.0[..])) {
        return (Vec::new(), refused(Refusal::WrongPassword, Intrusion::WrongPassword));
    }
    let mut doing = Doing { station, desk, mediator, local, events: Vec::new(), answer: Answer::default() };
    match doing.carry_out(&request.command) {
        Ok(()) => (doing.events, doing.answer),
        Err(Failed::Received(refusal)) => {
            (Vec::new(), Answer { received: Some(refusal), ..Answer::default() })
        }
        Err(Failed::Done(refusal)) => (Vec::new(), Answer { done: Some(refusal), ..Answer::default() }),
    }
}

fn refused(refusal: Refusal, intrusion: Intrusion) -> Answer {
    Answer { done: Some(refusal), intrusion: Some(intrusion), ..Answer::default() }
}

struct Doing<'s> {
    station: &'s Station,
    desk: &'s Desk,
    mediator: Mediator,
    local: &'s dyn Local,
    events: Vec<StationEvent>,
    answer: Answer,
}

impl Doing<'_> {
    fn carry_out(&mut self, command: &Command) -> Result<(), Failed> {
        let mediator = self.mediator;
        match command {
            Command::Start if self.desk.started => return Err(Refusal::AlreadyStarted.into()),
            Command::Start => self.events.push(StationEvent::Started(mediator)),
            Command::Stop => {
                self.events.push(StationEvent::Stopped(mediator));
                self.answer.order = Some(Order::Stop);
            }
            Command::SetPassword(new) => {
                if !new.0.iter().all(u8::is_ascii_digit) {
                    return Err(Failed::Received(Refusal::Parameters));
                }
                self.events.push(StationEvent::PasswordSet(mediator, new.clone()));
            }
            Command::AddChannel { group, control, pair } => self.add_channel(*group, *control, *pair)?,
            Command::RemoveChannel { group, pair } => {
                let found = self.desk.groups.get(group).ok_or(Refusal::Group)?;
                if !found.pairs.contains(pair) {
                    return Err(Refusal::NoSuchChannel.into());
                }
                self.events.push(StationEvent::ChannelRemoved { mediator, group: *group, pair: *pair });
            }
            Command::PutObject(subject, wanted) => self.put(subject, *wanted)?,
            Command::RemoveObject(subject) => {
                let number = subject.object.ok_or(Refusal::ObjectNumber)?;
                let object = self.desk.objects.get(&number).ok_or(Refusal::ObjectNumber)?;
                same(object, subject)?;
                self.events.push(StationEvent::ObjectRemoved { mediator, number });
                self.answer.order = Some(Order::Drop(number));
            }
            Command::Change { object: number, wanted } => {
                self.desk.objects.get(number).ok_or(Refusal::ObjectNumber)?;
                let (category, group, priority) = self.wanted(*wanted)?;
                let number = *number;
                self.events.push(StationEvent::ObjectChanged { mediator, number, category, group, priority });
            }
            Command::Connect { call, kind, object, group } => {
                let known = self.desk.objects.get(object).ok_or(Refusal::ConnectObject)?;
                let control = control_of(known.category).ok_or(Refusal::Category)?;
                let found = self.desk.groups.get(group).ok_or(Refusal::Group)?;
                if found.control != control {
                    return Err(Refusal::GroupControl.into());
                }
                if known.kind.code() != *kind {
                    return Err(Refusal::ObjectKind.into());
                }
                self.answer.order = Some(Order::Connect { call: *call, object: *object, group: *group });
            }
            Command::Free { call, kind, object, pair } => {
                let known = self.desk.objects.get(object).ok_or(Refusal::ConnectObject)?;
                if known.kind.code() != *kind {
                    return Err(Refusal::ObjectKind.into());
                }
                self.answer.order = Some(Order::Free { call: *call, object: *object, pair: *pair });
            }
            Command::Objects(subject) => self.objects(subject)?,
            Command::Channels { group, control, pair } => {
                let wanted = |g: &u8, c: Control, p: &Pair| {
                    group.is_none_or(|wanted| wanted == *g)
                        && (*control == NONE || *control == c.code())
                        && pair.a.is_none_or(|a| p.a == Some(a))
                        && pair.b.is_none_or(|b| p.b == Some(b))
                };
                let all = self.desk.groups.iter().flat_map(|(g, found)| {
                    found
                        .pairs
                        .iter()
                        .filter(|p| wanted(g, found.control, p))
                        .map(|p| (*g, found.control.code(), *p))
                });
                let all: Vec<_> = all.collect();
                if group.is_some() && all.is_empty() {
                    return Err(Refusal::Group.into());
                }
                self.answer.table = Told::channels(&all);
            }
            Command::Services { sign, number } => self.services(*sign, *number)?,
            // Whoever sends a table sees this one first.
            Command::Interrupt => return Err(Refusal::NothingToInterrupt.into()),
            Command::Test(number) => self.answer.order = Some(Order::Test(*number)),
            Command::Trunks(wanted) => {
                let numbered = self.number_trunks();
                let all: Vec<_> =
                    numbered.into_iter().filter(|(n, _)| wanted.is_none_or(|w| w == *n)).collect();
                if wanted.is_some() && all.is_empty() {
                    return Err(Refusal::NoSuchTrunk.into());
                }
                self.answer.table =
                    all.into_iter().map(|(trunk, name)| Told::Trunk { trunk, name }).collect();
            }
            Command::Version => {
                let text = format!("Hypha {}", env!("CARGO_PKG_VERSION"));
                self.answer.table = vec![Told::Version { text, node: Node::TerminalTransit }];
            }
        }
        Ok(())
    }

    fn add_channel(&mut self, group: u8, control: u8, pair: Pair) -> Result<(), Failed> {
        if group == 0 || group == NONE {
            return Err(Failed::Received(Refusal::Group));
        }
        let control = Control::from_repr(control).ok_or(Failed::Received(Refusal::Parameters))?;
        if self.desk.groups.get(&group).is_some_and(|g| g.control != control) {
            return Err(Refusal::GroupControl.into());
        }
        let a = pair.a.is_some_and(carries_speech);
        let b = match control {
            Control::Combined => pair.b.is_none(),
            Control::Separate => pair.b.is_some_and(carries_speech) && pair.b != pair.a,
        };
        match (a, b) {
            (false, false) => return Err(Refusal::Channels.into()),
            (false, true) => return Err(Refusal::ChannelA.into()),
            (true, false) => return Err(Refusal::ChannelB.into()),
            (true, true) => {}
        }
        let taken = |c: Option<Channel>| {
            let pairs = self.desk.groups.values().flat_map(|g| &g.pairs);
            c.is_some() && pairs.flat_map(|p| [p.a, p.b]).any(|p| p == c)
        };
        if taken(pair.a) || taken(pair.b) {
            return Err(Refusal::ChannelInGroup.into());
        }
        self.events.push(StationEvent::ChannelAdded { mediator: self.mediator, group, control, pair });
        Ok(())
    }

    /// Category, group and priority of an object, where the group has channels for it.
    fn wanted(&self, wanted: Wanted) -> Result<(Category, Option<u8>, Priority), Failed> {
        let (category, group, priority) = wanted.checked().map_err(Failed::Received)?;
        if let (Some(group), Some(control)) = (group, control_of(category)) {
            let found = self.desk.groups.get(&group).ok_or(Refusal::ChannelNotSet)?;
            if found.control != control {
                return Err(Refusal::GroupControl.into());
            }
        }
        Ok((category, group, priority))
    }

    fn put(&mut self, subject: &Subject, wanted: Wanted) -> Result<(), Failed> {
        let kind = subject.kind().map_err(Failed::Received)?;
        let sign = subject.sign().map_err(Failed::Received)?;
        let object = subject.object.ok_or(Failed::Received(Refusal::ObjectNumber))?;
        let (category, group, priority) = self.wanted(wanted)?;
        match (kind, subject.trunk, subject.number.is_empty()) {
            (_, Some(_), false) => return Err(Refusal::NumberAndTrunk.into()),
            (Kind::Trunk, None, true) => return Err(Refusal::TrunkParameters.into()),
            (Kind::Trunk, None, false) => return Err(Refusal::TrunkHasNoNumber.into()),
            (Kind::Trunk, Some(trunk), true) => self.check_trunk(trunk)?,
            (_, _, true) => return Err(Refusal::NeitherNumberNorTrunk.into()),
            (_, None, false) => self.check_number(kind, sign, &subject.number)?,
        }
        if self.desk.objects.contains_key(&object) {
            return Err(Refusal::ObjectSet.into());
        }
        if self.desk.objects.len() >= self.local.most_objects() {
            return Err(Refusal::TableFull.into());
        }
        let same = |o: &&Object| o.kind == kind && o.number == subject.number && kind != Kind::Trunk;
        // By the index: there may be many objects.
        let known = self.station.index.number(&subject.number).filter(|(m, _)| *m == self.mediator);
        if known.filter_map(|(_, n)| self.desk.objects.get(&n)).any(|o| same(&o)) {
            return Err(Refusal::NumberSet.into());
        }
        let sign = sign.filter(|_| kind != Kind::Trunk);
        let (number, trunk) = (subject.number, subject.trunk);
        let put = Object { kind, sign, number, trunk, category, group, priority, basis: None };
        self.events.push(StationEvent::ObjectPut { mediator: self.mediator, number: object, object: put });
        self.answer.order = Some(Order::Look);
        Ok(())
    }

    fn check_trunk(&mut self, trunk: u16) -> Result<(), Failed> {
        let name = self.number_trunks().remove(&trunk).ok_or(Refusal::NoSuchTrunk)?;
        // It has a number from when it was declared, and is no more.
        if !self.local.trunks().contains(&name) {
            return Err(Refusal::TrunkNotSet.into());
        }
        let trunks = || self.desk.objects.values().filter(|o| o.kind == Kind::Trunk);
        if trunks().any(|o| o.trunk == Some(trunk)) {
            return Err(Refusal::TrunkSet.into());
        }
        if trunks().count() >= TRUNKS {
            return Err(Refusal::TrunksFull.into());
        }
        Ok(())
    }

    fn check_number(&self, kind: Kind, sign: Option<Sign>, number: &Digits) -> Result<(), Failed> {
        let sign = sign.ok_or(Refusal::NumberSign)?;
        match (kind, sign) {
            (Kind::Own, Sign::Own) if self.local.subscriber(&number.reveal()) => Ok(()),
            (Kind::Own, Sign::Own) => Err(Refusal::NotLocal.into()),
            (Kind::Own, Sign::Mobile) | (_, Sign::Mobile) => Err(Refusal::SignWrong.into()),
            (Kind::Own, _) => Err(Refusal::KindOrSign.into()),
            (_, Sign::Own) if self.local.subscriber(&number.reveal()) => Err(Refusal::KindOfLocal.into()),
            (_, Sign::Own) => Err(Refusal::LocalSignOfOther.into()),
            (Kind::Full, Sign::Russia)
                if self.station.settings.strict_intercity_numbers && number.len() != 11 =>
            {
                Err(Refusal::DigitCount.into())
            }
            _ => Ok(()),
        }
    }

    fn objects(&mut self, subject: &Subject) -> Result<(), Failed> {
        let row = |(number, o): (&u16, &Object)| Told::Object {
            object: *number,
            kind: o.kind,
            party: Party { sign: o.sign, number: o.number },
            trunk: o.trunk,
            category: o.category,
            group: o.group,
            priority: o.priority,
            line: if o.kind == Kind::Own { LineState::Good } else { LineState::Unknown },
        };
        if let Some(number) = subject.object {
            let object = self.desk.objects.get(&number).ok_or(Refusal::ObjectNumber)?;
            same(object, subject)?;
            self.answer.table = vec![row((&number, object))];
            return Ok(());
        }
        let all = self.desk.objects.iter().filter(|(_, o)| same(o, subject).is_ok());
        self.answer.table = all.map(row).collect();
        if self.answer.table.is_empty() && !subject.number.is_empty() {
            return Err(Refusal::NumberNotFound.into());
        }
        Ok(())
    }

    fn services(&mut self, sign: u8, number: Digits) -> Result<(), Failed> {
        let text = number.reveal();
        let asked = (!number.is_empty()).then_some(text.as_str());
        if let Some(number) = asked
            && !self.local.subscriber(number)
        {
            return Err(Refusal::NothingFound.into());
        }
        let codes = self.local.services(asked);
        if asked.is_some() && codes.is_empty() {
            return Err(Refusal::NoServices.into());
        }
        let party = Party { sign: Sign::from_repr(sign), number };
        self.answer.table = vec![Told::Services { party, codes }];
        Ok(())
    }

    /// Numbers of all trunks; those that have none get the next.
    fn number_trunks(&mut self) -> BTreeMap<u16, String> {
        let mut all = self.station.trunks.clone();
        for name in self.local.trunks() {
            let next = all.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
            if next != u16::MAX && !all.values().any(|known| *known == name) {
                self.events.push(StationEvent::TrunkNumbered { number: next, name: name.clone() });
                all.insert(next, name);
            }
        }
        all
    }
}

fn control_of(category: Category) -> Option<Control> {
    match category {
        Category::Combined => Some(Control::Combined),
        Category::Separate => Some(Control::Separate),
        Category::Statistical => None,
    }
}

fn carries_speech(channel: Channel) -> bool {
    channel.stream() < STREAMS && matches!(channel.number(), 1..=15 | 17..=29)
}

/// Whether what a command says of an object is what it is; fields that say nothing fit.
fn same(object: &Object, subject: &Subject) -> Result<(), Refusal> {
    if subject.kind != NONE && Kind::iter().find(|k| k.code() == subject.kind) != Some(object.kind) {
        return Err(Refusal::ObjectUnfit);
    }
    if subject.sign != NONE && object.sign.map(Sign::code) != Some(subject.sign) {
        return Err(Refusal::KindOrSign);
    }
    if !subject.number.is_empty() && object.number != subject.number {
        return Err(Refusal::NumberCoincides);
    }
    if subject.trunk.is_some() && object.trunk != subject.trunk {
        return Err(Refusal::TrunkDiffers);
    }
    Ok(())
}
