use std::sync::Arc;

use call::{Cause, witness::Trail};
use domain::{
    routing::{
        number::{Called, Calling, Ni, SormNumbers},
        route::Stretch,
    },
    state::{Alias, Authentication, DomainEvent, DomainState, SipUser},
};
use kit::Address;

use super::*;
use crate::{
    protocol::{Attribute, Channel, Control, Digits, Kind, Sign},
    station::{Basis, Group, Media, Object, StationEvent},
};

const DOMAIN: &str = "test.domain";

fn mediator() -> Mediator {
    "127.0.0.1".parse().expect("an address")
}

/// A domain with the manual's subscriber 28331.
fn picture() -> Picture {
    let mut state = DomainState::default();
    let user = SipUser {
        iface: format!("28331@{DOMAIN}"),
        uid: "1".into(),
        group: "g".into(),
        context: "c".into(),
        authentication: Authentication::NoAuthentication,
        login: String::new(),
        password: kit::Sealed(String::new()),
        properties: Default::default(),
    };
    let alias = Alias {
        address: "28331".into(),
        group: "g".into(),
        iface: user.iface.clone(),
        properties: Default::default(),
    };
    state.apply(&DomainEvent::UsersDeclared { users: vec![user], aliases: vec![alias] });
    let mut picture = Picture::default();
    picture.domains.insert(DOMAIN.into(), Arc::new(state));
    picture
}

/// A station that controls these objects; channels 1 and 2 are in group 1.
fn station(objects: &[(u16, Object)]) -> Station {
    let mut station = Station::default();
    station.settings.enabled = true;
    station.apply(&StationEvent::Started(mediator()));
    let media = Media { ip: [127, 0, 0, 1].into(), first: 20_000, mixed: None };
    station.apply(&StationEvent::MediaSet(mediator(), media));
    let pairs = [1, 2].map(|c| Pair { a: Some(Channel(c)), b: None }).to_vec();
    let group = Group { control: Control::Combined, pairs };
    if let Some(desk) = station.desks.get_mut(&mediator()) {
        desk.groups.insert(1, group);
    }
    for (number, object) in objects {
        station.apply(&StationEvent::ObjectPut {
            mediator: mediator(),
            number: *number,
            object: object.clone(),
        });
    }
    station
}

fn object(kind: Kind, sign: Sign, number: &str, priority: Priority) -> Object {
    Object {
        kind,
        sign: Some(sign),
        number: Digits::new(number).expect("a number"),
        trunk: None,
        category: Category::Combined,
        group: Some(1),
        priority,
        basis: None,
    }
}

fn own() -> Object {
    object(Kind::Own, Sign::Own, "28331", Priority::Ordinary)
}

fn intercity() -> Object {
    object(Kind::Full, Sign::Russia, "89001758964", Priority::Ordinary)
}

/// The manual's call: 28331 dials 89001758964, and both numbers are changed on their way.
fn trail() -> Trail {
    let stretch = Stretch {
        domain: DOMAIN.into(),
        from: format!("28331@{DOMAIN}"),
        to: "smg_trunk".into(),
        calling: "28331".into(),
        called: "89001758964".into(),
        a: Calling { digits: "3832728331".into(), ..Calling::default() },
        b: Called { digits: "9001758964".into(), ni: Ni::Intercity, ..Called::default() },
        sorm: SormNumbers {
            ni_a: Some(Ni::Private),
            digits_a: Some("28331".into()),
            ni_b: Some(Ni::Intercity),
            digits_b: Some("89001758964".into()),
        },
    };
    Trail { leg: LegId(5), way: Arc::new(vec![stretch]), joined: Vec::new() }
}

fn seen(call: u32, phase: CallPhase) -> Seen {
    let call = Address::new(format!("domain/{DOMAIN}/call/{call}")).expect("a name");
    Seen { call, attempt: 1, at: DateTime::UNIX_EPOCH, phase, trail: trail() }
}

struct Run {
    core: Intercept,
    picture: Picture,
    tap: u64,
    others: Claims,
}

impl Run {
    fn new() -> Self {
        let core = Intercept::new(DOMAIN.into(), mediator(), Kept::default());
        Self { core, picture: picture(), tap: 100, others: Claims::default() }
    }

    fn with<T>(&mut self, station: &Station, step: impl FnOnce(&mut Intercept, &mut World<'_>) -> T) -> T {
        let tap = &mut self.tap;
        let mut fresh = || {
            *tap += 1;
            *tap
        };
        let now = DateTime::UNIX_EPOCH;
        step(
            &mut self.core,
            &mut World {
                now,
                station,
                picture: &self.picture,
                sorm: 1,
                others: &self.others,
                fresh: &mut fresh,
            },
        )
    }

    fn see(&mut self, station: &Station, seen: &Seen) {
        self.with(station, |core, world| core.see(seen, world));
    }

    /// What has been told since it was asked last: message, object, channel A, operation.
    fn told(&mut self) -> Vec<(Said, u16, Option<u8>, u8)> {
        let events = self.core.events();
        // Whatever is kept is folded to the same by a restart.
        let noted = events.iter().filter_map(|e| match e {
            InterceptEvent::Noted(notice) => Some(Event::read(&notice.unit).expect("a message")),
            _ => None,
        });
        noted
            .map(|e| match e {
                Event::Call { object, event, .. } => {
                    (event.said, object, event.channels.a.map(|c| c.0), event.operation.0)
                }
                Event::Test { .. } => panic!("no test was asked for"),
            })
            .collect()
    }
}

#[test]
fn the_manuals_call_is_told_with_its_numbers_from_both_sides() {
    let station = station(&[(1, own()), (2, intercity())]);
    let mut run = Run::new();
    run.see(&station, &seen(1, CallPhase::Routed));
    let units: Vec<Event> =
        run.core.kept.queue.values().map(|n| Event::read(&n.unit).expect("a message")).collect();
    let parties = |e: &Event| match e {
        Event::Call { event, selection, attribute, .. } => {
            let shown = |p: Party| (p.sign, p.number.reveal());
            (shown(event.calling), shown(event.called), selection.0, *attribute)
        }
        Event::Test { .. } => panic!("no test"),
    };
    let (a, b) = ((Some(Sign::Own), "28331".to_owned()), (Some(Sign::Russia), "89001758964".to_owned()));
    let expected = |selection| (a.clone(), b.clone(), selection, Some(Attribute::Outgoing));
    assert_eq!(units.iter().map(parties).collect::<Vec<_>>(), vec![expected(0x01), expected(0x04)]);
    assert_eq!(run.told(), vec![(Said::Number, 1, Some(1), 0), (Said::Number, 2, Some(2), 0)]);
    run.see(&station, &seen(1, CallPhase::Answered));
    run.see(&station, &seen(1, CallPhase::Answered));
    assert_eq!(run.told().len(), 2, "an answer is told once");
    run.see(&station, &seen(1, CallPhase::Service(Service::Chold)));
    assert_eq!(run.told(), vec![(Said::Service, 1, Some(1), 0), (Said::Service, 2, Some(2), 0)]);
    run.see(&station, &seen(1, CallPhase::Released { cause: Cause::NORMAL, answered: true }));
    assert_eq!(run.told(), vec![(Said::Release, 1, Some(1), 5), (Said::Release, 2, Some(2), 5)]);
    let taps: Vec<(u64, bool)> = run.core.taps().iter().map(|t| (t.tap, t.sink.is_some())).collect();
    assert_eq!(taps, vec![(101, true), (102, true), (101, false), (102, false)]);
    assert!(run.core.kept.open.is_empty());
}

#[test]
fn the_last_channel_goes_to_the_object_of_high_priority() {
    let high = object(Kind::Partial, Sign::Russia, "8900", Priority::High);
    let (quiet, all) =
        (station(&[(1, own()), (2, intercity())]), station(&[(1, own()), (2, intercity()), (3, high)]));
    let mut run = Run::new();
    run.see(&quiet, &seen(1, CallPhase::Routed));
    run.see(&quiet, &seen(2, CallPhase::Routed));
    let told = run.told();
    assert_eq!(told[2..], [(Said::Number, 1, None, 1), (Said::Number, 2, None, 1)], "no channel is free");
    // The third object takes one in the first call it is in.
    run.see(&all, &seen(2, CallPhase::Routed));
    assert_eq!(run.told(), vec![(Said::ChannelFreed, 1, Some(1), 2), (Said::Number, 3, Some(1), 0)]);
    // By command 7 one without a channel gets the other.
    let order = Order::Connect { call: 1, object: 2, group: 1 };
    assert_eq!(run.with(&all, |core, world| core.order(&order, world)), Ok(()));
    assert_eq!(
        run.told(),
        vec![(Said::ChannelFreed, 2, Some(2), 3), (Said::ChannelConnected, 2, Some(2), 0)]
    );
    let free = |pair| Order::Free { call: 1, object: 2, pair };
    let wrong = free(Pair { a: Some(Channel(9)), b: None });
    assert_eq!(run.with(&all, |core, world| core.order(&wrong, world)), Err(Refusal::NoSuchChannel));
    let right = free(Pair { a: Some(Channel(2)), b: None });
    assert_eq!(run.with(&all, |core, world| core.order(&right, world)), Ok(()));
    assert_eq!(run.told(), vec![(Said::ChannelFreed, 2, Some(2), 1)]);
}

#[test]
fn objects_that_go_and_stations_that_stop_end_what_is_told() {
    let station = station(&[(1, own()), (2, intercity())]);
    let mut run = Run::new();
    run.see(&station, &seen(1, CallPhase::Routed));
    run.told();
    assert_eq!(run.with(&station, |core, world| core.order(&Order::Drop(1), world)), Ok(()));
    assert_eq!(run.told(), vec![(Said::ChannelFreed, 1, Some(1), 5)]);
    assert_eq!(run.with(&station, |core, world| core.order(&Order::Stop, world)), Ok(()));
    assert_eq!(run.told(), vec![(Said::ChannelFreed, 2, Some(2), 6)]);
    run.see(&station, &seen(1, CallPhase::Released { cause: Cause::NORMAL, answered: true }));
    assert_eq!(run.told(), vec![]);
}

#[test]
fn after_a_restart_calls_that_are_no_more_are_released_and_the_rest_is_delivered() {
    let station = station(&[(1, own())]);
    let mut run = Run::new();
    run.see(&station, &seen(1, CallPhase::Routed));
    let kept: Kept =
        serde_json::from_value(serde_json::to_value(&run.core.kept).expect("written")).expect("read");
    let mut folded = Kept::default();
    run.core.events().iter().for_each(|e| folded.apply(e));
    assert_eq!(folded, kept);
    run.core = Intercept::new(DOMAIN.into(), mediator(), folded);
    run.with(&station, |core, world| core.reconcile(&BTreeSet::new(), world));
    assert_eq!(run.told(), vec![(Said::Release, 1, Some(1), 1)]);
    assert_eq!(run.core.kept.queue.keys().copied().collect::<Vec<_>>(), vec![1, 2]);
    run.core.delivered(1);
    assert_eq!(run.core.kept.queue.keys().copied().collect::<Vec<_>>(), vec![2]);
    // The next notification goes on counting.
    run.see(&station, &seen(2, CallPhase::Routed));
    assert_eq!(run.core.kept.sequence, 3);
}

#[test]
fn content_that_is_missing_is_asked_for_again() {
    let station = station(&[(1, own())]);
    let mut run = Run::new();
    run.see(&station, &seen(1, CallPhase::Routed));
    let [tap] = run.core.taps().try_into().expect("one");
    let there = vec![(tap.call.clone(), tap.tap)];
    assert_eq!(run.core.missing(&there).count(), 0);
    assert_eq!(run.core.missing(&[]).collect::<Vec<_>>(), there);
    assert_eq!(run.core.again(&tap.call, tap.tap, &station), Some(tap));
}

#[test]
fn a_subscriber_of_ours_is_told_by_its_full_number_and_what_it_dialled_as_it_dialled() {
    let mut run = Run::new();
    let station = station(&[(1, own())]);
    let mut plain = seen(1, CallPhase::Routed);
    let mut stretch = plain.trail.way[0].clone();
    stretch.sorm = SormNumbers::default();
    plain.trail.way = Arc::new(vec![stretch]);
    let facts = |run: &Run, station: &Station, seen: &Seen| {
        let facts =
            numbers::facts(station, &run.picture, DOMAIN, &seen.trail, seen.at).expect("it takes part");
        (facts.calling.number.reveal(), facts.called.number.reveal())
    };
    assert_eq!(facts(&run, &station, &plain), ("28331".into(), "89001758964".into()));
    let mut routed = station.clone();
    routed.settings.b_digits_mode = crate::settings::BDigits::Routing;
    routed.settings.private_phone_prefix = "738327".into();
    assert_eq!(
        facts(&run, &routed, &plain),
        ("73832728331".into(), "79001758964".into()),
        "eleven digits from 7"
    );
    routed.settings.full_dial_number = true;
    assert_eq!(facts(&run, &routed, &plain).1, "9001758964");
    run.see(&station, &plain);
    assert_eq!(run.told().len(), 1);
}

#[test]
fn an_adaptation_context_says_what_the_way_did_not() {
    let context = "<context name=\"ctx_sorm\"><rule name=\"r\"><conditions><cdpn digits=\"8%\"/></conditions><actions>\
                   <called sorm_digits=\"7{\" sorm_ni=\"intercity\"/><calling sorm_digits=\"738327{1,2,3,4,5}\"/></actions>\
                   <result><local/></result></rule></context>";
    let mut run = Run::new();
    let mut state = (*run.picture.domains[DOMAIN]).clone();
    let context = Box::new(domain::routing::xml::parse(context).expect("a context"));
    state.apply(&DomainEvent::ContextImported { context });
    run.picture.domains.insert(DOMAIN.into(), Arc::new(state));
    let mut station = station(&[(2, object(Kind::Full, Sign::Russia, "79001758964", Priority::Ordinary))]);
    let mut call = seen(1, CallPhase::Routed);
    let stretch = Stretch {
        sorm: SormNumbers { ni_a: Some(Ni::Private), ..SormNumbers::default() },
        ..call.trail.way[0].clone()
    };
    call.trail.way = Arc::new(vec![stretch]);
    run.see(&station, &call);
    assert!(run.told().is_empty(), "by no number of its own");
    station.settings.adaptation = Some("ctx_sorm".into());
    run.see(&station, &call);
    assert_eq!(run.told(), vec![(Said::Number, 2, Some(1), 0)]);
    let notice = &run.core.kept.queue[&1];
    let numbers = (notice.calling.number.reveal(), notice.called.number.reveal());
    assert_eq!(numbers, ("73832728331".into(), "79001758964".into()));
}

#[test]
fn texts_are_told_by_message_12_long_ones_as_a_series() {
    let station = station(&[(1, own()), (2, intercity())]);
    let mut run = Run::new();
    let content = "длинный текст ".repeat(20);
    let written = |content: &str, delivered| Written {
        at: DateTime::UNIX_EPOCH,
        way: trail().way,
        content: content.to_owned().into(),
        delivered,
    };
    run.with(&station, |core, world| core.read(&written(&content, true), world));
    run.with(&station, |core, world| core.read(&written("", false), world));
    let told: Vec<Reply> =
        run.core.kept.queue.values().map(|n| Reply::read(&n.unit).expect("a message")).collect();
    let texts = |object: u16| {
        told.iter().filter_map(move |r| match &r.told {
            Told::Text(text) if text.object == object => Some((r.series, text.clone())),
            _ => None,
        })
    };
    for object in [1, 2] {
        let all: Vec<_> = texts(object).collect();
        let joined: Vec<u8> = all.iter().flat_map(|(_, t)| t.content.clone()).collect();
        assert_eq!(String::from_utf8(joined).expect("UTF-8"), content);
        let series: Vec<_> = all.iter().map(|(s, t)| (s.total, s.index, t.state)).collect();
        assert_eq!(series, [(3, 1, 0), (3, 2, 0), (3, 3, 0), (0, 0, 1)]);
        let (_, first) = &all[0];
        let numbers = (first.sender.number.reveal(), first.receiver.number.reveal());
        assert_eq!(numbers, ("28331".into(), "89001758964".into()));
    }
}

#[test]
fn outside_its_time_an_object_is_under_no_control() {
    let start = DateTime::UNIX_EPOCH;
    let later = start + chrono::TimeDelta::hours(1);
    let basis = |from, until| Some(Basis { from, until, text: "warrant 12".into() });
    let with = |basis| station(&[(1, Object { basis, ..own() })]);
    let mut run = Run::new();
    for none in [basis(Some(later), None), basis(None, Some(start))] {
        run.see(&with(none), &seen(1, CallPhase::Routed));
        assert!(run.told().is_empty());
    }
    run.see(&with(basis(Some(start), Some(later))), &seen(1, CallPhase::Routed));
    assert_eq!(run.told(), vec![(Said::Number, 1, Some(1), 0)]);
    // Its time ends in the middle of the call.
    let calls: BTreeSet<String> = [seen(1, CallPhase::Routed).call.to_string()].into();
    let over = with(basis(None, Some(start)));
    run.with(&over, |core, world| core.reconcile(&calls, world));
    assert_eq!(run.told(), vec![(Said::ChannelFreed, 1, Some(1), 5)]);
    assert!(!format!("{over:?}").contains("warrant"));
}

#[test]
fn an_intrusion_is_told_to_a_station_that_works() {
    let mut run = Run::new();
    let from = "192.0.2.1";
    run.with(&Station::default(), |core, world| core.intrusion(Intrusion::WrongPassword, from, world));
    assert!(run.core.kept.queue.is_empty());
    run.with(&station(&[]), |core, world| core.intrusion(Intrusion::WrongPassword, from, world));
    let told = Reply::read(&run.core.kept.queue[&1].unit).expect("a message").told;
    assert!(matches!(told, Told::Intrusion { code: Intrusion::WrongPassword, text, .. } if text == from));
}

#[test]
fn what_another_domain_uses_at_the_mediator_is_not_used_twice() {
    let station = station(&[(1, own()), (2, intercity())]);
    let mut run = Run::new();
    run.others =
        Claims { channels: [Channel(1)].into(), calls: [0, 1].into(), mixed: 1, ..Claims::default() };
    run.see(&station, &seen(1, CallPhase::Routed));
    assert_eq!(run.told(), vec![(Said::Number, 1, Some(2), 0), (Said::Number, 2, None, 1)]);
    let claims = run.core.claims();
    assert_eq!((claims.channels, claims.calls, claims.mixed), ([Channel(2)].into(), [2].into(), 1));
}

#[test]
fn an_object_of_high_priority_takes_channels_of_another_domain() {
    let high = Object { priority: Priority::High, ..own() };
    let (asks, lends) = (station(&[(1, high)]), station(&[(1, own())]));
    let (mut asking, mut lending) = (Run::new(), Run::new());
    // The other domain has both channels in use, the second of them for an ordinary object.
    let pair = |c| Pair { a: Some(Channel(c)), b: None };
    lending.others.channels = [Channel(1)].into();
    lending.see(&lends, &seen(1, CallPhase::Routed));
    asking.others = lending.core.claims();
    asking.others.channels.insert(Channel(1));
    assert_eq!(asking.others.ordinary.get(&pair(2)).map(String::as_str), Some(DOMAIN));
    asking.see(&asks, &seen(2, CallPhase::Routed));
    assert_eq!(asking.told(), vec![(Said::Number, 1, None, 1)], "no channel yet");
    let ask = asking.core.asks().pop().expect("it asks");
    assert_eq!((ask.pair, ask.domain.as_str()), (pair(2), DOMAIN));
    lending.told();
    lending.with(&lends, |core, world| core.give(ask.pair, world));
    assert_eq!(lending.told(), vec![(Said::ChannelFreed, 1, Some(2), Operation::BY_PRIORITY.0)]);
    asking.others = lending.core.claims();
    asking.others.channels.insert(Channel(1));
    asking.with(&asks, |core, world| core.take(&ask.want, world));
    assert_eq!(asking.told(), vec![(Said::ChannelConnected, 1, Some(2), 0)]);
    // An ordinary one asks nobody.
    let mut ordinary = Run::new();
    ordinary.others = asking.core.claims();
    ordinary.others.channels.insert(Channel(1));
    ordinary.see(&lends, &seen(3, CallPhase::Routed));
    assert!(ordinary.core.asks().is_empty());
}

#[test]
fn no_more_are_mixed_than_the_mediator_can() {
    let mut station = station(&[(1, own()), (2, intercity())]);
    let media = Media { ip: [127, 0, 0, 1].into(), first: 20_000, mixed: Some(28) };
    station.apply(&StationEvent::MediaSet(mediator(), media));
    let mut run = Run::new();
    // 27 in another domain: there is room for one.
    run.others.mixed = 27;
    run.see(&station, &seen(1, CallPhase::Routed));
    assert_eq!(run.told(), vec![(Said::Number, 1, Some(1), 0), (Said::Number, 2, None, 1)]);
}

#[test]
fn nobody_is_told_of_calls_of_others() {
    let station = station(&[(1, object(Kind::Full, Sign::Russia, "79990000000", Priority::High))]);
    let mut run = Run::new();
    for phase in [CallPhase::Routed, CallPhase::Answered] {
        run.see(&station, &seen(1, phase));
    }
    assert!(run.told().is_empty() && run.core.taps().is_empty() && run.core.kept == Kept::default());
}
