//! Numbers of a call as interception sees them: by which it is selected, and which are told (orders 70 and 268, manual
//! "Проверка соответствия формата выдачи номеров").

use std::{borrow::Cow, collections::BTreeMap};

use call::witness::Trail;
use chrono::{DateTime, Utc};
use domain::{
    Picture,
    routing::{
        number::{Called, Calling, Ni},
        route::{Stretch, adapted},
    },
    state::DomainState,
};

use crate::{
    index::Hit,
    protocol::{Attribute, Category, Digits, Kind, Party, Selection, Sign},
    settings::{BDigits, Settings},
    station::{Object, Station},
};

/// A call as one domain's station tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub calling: Party,
    pub called: Party,
    pub trunk: Option<u16>,
    pub attribute: Attribute,
    /// Objects it is selected by, and how.
    pub hits: BTreeMap<Hit, Selection>,
}

/// The numbers that the adaptation context says, where the call's own way says none.
fn adapt<'s>(
    state: &DomainState,
    settings: &Settings,
    stretch: &'s Stretch,
    at: DateTime<Utc>,
) -> Cow<'s, Stretch> {
    let Some(context) = &settings.adaptation else { return Cow::Borrowed(stretch) };
    let a = Calling { digits: stretch.calling.clone(), ..stretch.a.clone() };
    let b = Called { digits: stretch.called.clone(), ..stretch.b.clone() };
    let Some(mut sorm) = adapted(state, context, &stretch.from, &a, &b, at) else {
        return Cow::Borrowed(stretch);
    };
    sorm.overlay(&stretch.sorm);
    Cow::Owned(Stretch { sorm, ..stretch.clone() })
}

/// One party of a stretch.
struct Side {
    own: bool,
    sign: Sign,
    numbers: Vec<Digits>,
}

/// What a domain's station makes of an attempt; `None` where it is none of an object's.
pub fn facts(
    station: &Station,
    picture: &Picture,
    domain: &str,
    trail: &Trail,
    at: DateTime<Utc>,
) -> Option<Facts> {
    let state = picture.domains.get(domain)?;
    let settings = &station.settings;
    let mut hits = BTreeMap::new();
    let own = trail.way.iter().filter(|s| s.domain == domain);
    let stretches: Vec<Cow<'_, Stretch>> = own.map(|s| adapt(state, settings, s, at)).collect();
    for stretch in &stretches {
        for (side, by) in [(a_side(state, stretch), true), (b_side(state, stretch), false)] {
            for number in &side.numbers {
                select(station, &mut hits, number, by, Some(&side), at);
            }
        }
        for trunk in [&stretch.from, &stretch.to] {
            for hit in station.trunk(trunk).iter().flat_map(|t| station.index.trunk(*t)) {
                note(station, &mut hits, hit, Selection::by_trunk, at);
            }
        }
    }
    for (_, number) in trail.joined.iter().filter(|(d, _)| d == domain) {
        for number in of_alias(state, number) {
            select(station, &mut hits, &number, true, None, at);
        }
    }
    if hits.is_empty() {
        return None;
    }
    let Some((first, last)) = stretches.first().zip(stretches.last()) else {
        // It takes part through somebody who joined only.
        let (_, number) = trail.joined.iter().find(|(d, _)| d == domain)?;
        let calling = Party { sign: Some(Sign::Own), number: told_own(state, settings, number) };
        return Some(Facts {
            calling,
            called: Party::default(),
            trunk: None,
            attribute: Attribute::Internal,
            hits,
        });
    };
    let (a, b) = (a_side(state, first), b_side(state, last));
    let attribute = match (a.own, b.own) {
        (true, true) => Attribute::Internal,
        (true, false) => Attribute::Outgoing,
        (false, true) => Attribute::Incoming,
        (false, false) if a.sign == Sign::Abroad || b.sign == Sign::Abroad => Attribute::InternationalTransit,
        (false, false) => Attribute::IntercityTransit,
    };
    Some(Facts {
        calling: Party { sign: Some(a.sign), number: told_a(state, settings, first, &a) },
        called: Party { sign: Some(b.sign), number: told_b(state, settings, first, last, a.own, &b) },
        trunk: station.trunk(&last.to).or_else(|| station.trunk(&first.from)),
        attribute,
        hits,
    })
}

fn select(
    station: &Station,
    hits: &mut BTreeMap<Hit, Selection>,
    number: &Digits,
    a: bool,
    side: Option<&Side>,
    at: DateTime<Utc>,
) {
    for hit in station.index.number(number) {
        let Some(object) = object(station, hit) else { continue };
        if side.is_none_or(|s| fits(&station.settings, object, s)) {
            note(station, hits, hit, if a { Selection::by_a } else { Selection::by_b }, at);
        }
    }
}

fn object(station: &Station, (mediator, number): Hit) -> Option<&Object> {
    station.desks.get(&mediator)?.objects.get(&number)
}

fn note(
    station: &Station,
    hits: &mut BTreeMap<Hit, Selection>,
    hit: Hit,
    by: fn(Category) -> Selection,
    at: DateTime<Utc>,
) {
    if let Some(object) = object(station, hit).filter(|o| o.is_valid(at)) {
        let selection = hits.entry(hit).or_default();
        *selection = selection.and(by(object.category));
    }
}

/// Whether a party with a number of an object is the object.
fn fits(settings: &Settings, object: &Object, side: &Side) -> bool {
    match object.kind {
        Kind::Own => side.own && (!settings.strict_private_numbers || side.sign == Sign::Own),
        Kind::Full | Kind::Partial => {
            !settings.strict_intercity_numbers
                || object.sign != Some(Sign::Russia)
                || matches!(side.sign, Sign::Russia | Sign::Own)
        }
        Kind::Trunk => true,
    }
}

fn a_side(state: &DomainState, s: &Stretch) -> Side {
    let own = state.users.get(&s.from).map(|u| state.number_of(u));
    // A network's number is private where nobody said what it is.
    let ni = Some(s.a.ni).filter(|ni| *ni != Ni::Private || own.is_some());
    let sign = sign(own.is_some(), s.sorm.ni_a, ni, &s.a.digits);
    let texts = [Some(&s.calling), Some(&s.a.digits), s.sorm.digits_a.as_ref()];
    Side { own: own.is_some(), sign, numbers: numbers(state, texts, own) }
}

fn b_side(state: &DomainState, s: &Stretch) -> Side {
    let own = state.users.get(&s.to).map(|u| state.number_of(u));
    let sign = sign(own.is_some(), s.sorm.ni_b, Some(s.b.ni), &s.b.digits);
    let texts = [Some(&s.called), Some(&s.b.digits), s.sorm.digits_b.as_ref()];
    Side { own: own.is_some(), sign, numbers: numbers(state, texts, own) }
}

/// Every form of a party's number, each once.
fn numbers(state: &DomainState, texts: [Option<&String>; 3], own: Option<&str>) -> Vec<Digits> {
    let mut all: Vec<Digits> = texts.into_iter().flatten().filter_map(|t| Digits::new(t)).collect();
    all.extend(own.into_iter().flat_map(|alias| of_alias(state, alias)));
    all.sort_unstable();
    all.dedup();
    all.retain(|n| !n.is_empty());
    all
}

/// A subscriber's number and its full ones in all number plans.
fn of_alias(state: &DomainState, alias: &str) -> Vec<Digits> {
    let full = state.plans.values().filter_map(|p| p.of_alias.get(alias)).flatten();
    full.map(String::as_str).chain([alias]).filter_map(Digits::new).collect()
}

fn sign(own: bool, sorm: Option<Ni>, ni: Option<Ni>, digits: &str) -> Sign {
    let of = |ni: Ni| match ni {
        Ni::Private => Some(Sign::Own),
        Ni::Local | Ni::Zone | Ni::Intercity => Some(Sign::Russia),
        Ni::International => Some(Sign::Abroad),
        Ni::Emergency => Some(Sign::Emergency),
        Ni::Undefined => None,
    };
    if let Some(said) = sorm.and_then(of) {
        return said;
    }
    if own {
        return Sign::Own;
    }
    let said = ni.and_then(of).filter(|s| *s != Sign::Own);
    said.unwrap_or(match digits {
        d if d.starts_with("810") => Sign::Abroad,
        d if d.len() <= 3 => Sign::Emergency,
        _ => Sign::Russia,
    })
}

/// A number of the network: eleven digits from 7, without 810 if it is of another country.
fn network(sign: Sign, digits: &str) -> Digits {
    let text = match sign {
        Sign::Abroad => digits.strip_prefix("810").unwrap_or(digits).to_owned(),
        Sign::Russia if digits.len() == 10 => format!("7{digits}"),
        Sign::Russia if digits.len() == 11 && digits.starts_with('8') => format!("7{}", &digits[1..]),
        _ => digits.to_owned(),
    };
    Digits::lossy(&text)
}

/// A subscriber's: the full one where a plan has one.
fn told_own(state: &DomainState, settings: &Settings, alias: &str) -> Digits {
    if let Some(full) = state.plans.values().find_map(|p| p.full_number(alias)) {
        return Digits::lossy(full);
    }
    let prefix = match settings.private_phone_prefix.as_str() {
        "0" => "",
        prefix => prefix,
    };
    Digits::lossy(&format!("{prefix}{alias}"))
}

fn told_a(state: &DomainState, settings: &Settings, s: &Stretch, a: &Side) -> Digits {
    if let Some(said) = &s.sorm.digits_a {
        return Digits::lossy(said);
    }
    match state.users.get(&s.from) {
        Some(user) => told_own(state, settings, state.number_of(user)),
        None => network(a.sign, &s.a.digits),
    }
}

fn told_b(
    state: &DomainState,
    settings: &Settings,
    first: &Stretch,
    last: &Stretch,
    a_own: bool,
    b: &Side,
) -> Digits {
    if let Some(said) = &last.sorm.digits_b {
        return Digits::lossy(said);
    }
    // What a subscriber of ours dialled goes on as it was dialled; where a call was diverted, nobody dialled where to.
    let as_dialled = settings.b_digits_mode == BDigits::User && !settings.full_dial_number && a_own;
    if as_dialled && first.called == last.called {
        return Digits::lossy(&first.called);
    }
    if settings.full_dial_number {
        return Digits::lossy(&last.b.digits);
    }
    match state.users.get(&last.to) {
        Some(user) => told_own(state, settings, state.number_of(user)),
        None => network(b.sign, &last.b.digits),
    }
}
