use super::*;
use crate::protocol::{Channel, Command, Intrusion, NONE, Refusal, Request, Subject, Told, Wanted};

struct Town;

impl Local for Town {
    fn subscriber(&self, number: &str) -> bool {
        matches!(number, "28331" | "73832728331")
    }
    fn trunks(&self) -> Vec<String> {
        let more = (3..12).map(|n| format!("t{n}"));
        ["smg_trunk", "other"].map(str::to_owned).into_iter().chain(more).collect()
    }
    fn services(&self, number: Option<&str>) -> Vec<u8> {
        if number == Some("28331") { Vec::new() } else { vec![0x21, 0x29] }
    }
    fn most_objects(&self) -> usize {
        50
    }
}

/// A station with one mediator, as commands make it.
struct Point {
    station: Station,
    mediator: Mediator,
}

impl Point {
    fn new() -> Self {
        Self { station: Station::default(), mediator: "127.0.0.1".parse().expect("an address") }
    }

    fn started() -> Self {
        let mut point = Self::new();
        assert_eq!(point.say(Command::Start), Answer::default());
        for (group, control, a, b) in [(1, 1, 1, None), (2, 0x11, 2, Some(3))] {
            let pair = Pair { a: Some(Channel(a)), b: b.map(Channel) };
            assert_eq!(point.say(Command::AddChannel { group, control, pair }).done, None);
        }
        point
    }

    fn request(&mut self, request: &Request) -> Answer {
        let (events, answer) = execute(&self.station, self.mediator, request, 1, &Town);
        let again: Vec<StationEvent> = events
            .iter()
            .map(|e| serde_json::from_value(serde_json::to_value(e).expect("written")).expect("read"))
            .collect();
        again.iter().for_each(|e| self.station.apply(e));
        answer
    }

    fn say(&mut self, command: Command) -> Answer {
        self.request(&Request { sorm: 1, password: Password::FIRST, command })
    }

    /// The refusal of message 8.
    fn done(&mut self, command: Command) -> Option<Refusal> {
        self.say(command).done
    }

    fn desk(&self) -> &Desk {
        &self.station.desks[&self.mediator]
    }
}

fn subject(object: u16, kind: Kind, sign: Sign, number: &str) -> Subject {
    let number = Digits::new(number).expect("a number");
    Subject { object: Some(object), kind: kind.code(), sign: sign.code(), number, trunk: None }
}

fn trunk(object: u16, trunk: u16) -> Subject {
    let (kind, number) = (Kind::Trunk.code(), Digits::NONE);
    Subject { object: Some(object), kind, sign: NONE, number, trunk: Some(trunk) }
}

const STATISTICAL: Wanted = Wanted { category: 2, group: NONE, priority: NONE };
const COMBINED: Wanted = Wanted { category: 1, group: 1, priority: 2 };

fn own(object: u16) -> Command {
    Command::PutObject(subject(object, Kind::Own, Sign::Own, "28331"), COMBINED)
}

fn put(object: u16, kind: Kind, sign: Sign, number: &str) -> Command {
    Command::PutObject(subject(object, kind, sign, number), STATISTICAL)
}

#[test]
fn nothing_is_done_before_the_start_and_by_nobody_else() {
    let mut point = Point::new();
    assert_eq!(point.say(own(7)).received, Some(Refusal::NotStarted));
    let wrong = Request { sorm: 1, password: Password(*b"654321"), command: Command::Start };
    let answer = point.request(&wrong);
    assert_eq!(
        (answer.done, answer.intrusion),
        (Some(Refusal::WrongPassword), Some(Intrusion::WrongPassword))
    );
    let answer = point.request(&Request { sorm: 2, ..wrong });
    assert_eq!((answer.done, answer.intrusion), (Some(Refusal::SormNumber), Some(Intrusion::WrongNumber)));
    assert_eq!(point.say(Command::Start), Answer::default());
    assert_eq!(point.done(Command::Start), Some(Refusal::AlreadyStarted));
    // A new password counts from then on.
    let new = Password(*b"111111");
    assert_eq!(point.done(Command::SetPassword(new.clone())), None);
    assert_eq!(point.done(Command::Stop), Some(Refusal::WrongPassword));
    let stop = point.request(&Request { sorm: 1, password: new.clone(), command: Command::Stop });
    assert_eq!((stop.done, stop.order), (None, Some(Order::Stop)));
    // Tables stay, and work again after the next start.
    assert_eq!(point.request(&Request { sorm: 1, password: new, command: Command::Start }).done, None);
}

#[test]
fn channels_are_put_into_groups_once_each() {
    let mut point = Point::started();
    let pair = |a: Option<u8>, b: Option<u8>| Pair { a: a.map(Channel), b: b.map(Channel) };
    let mut add = |group, control, pair| point.done(Command::AddChannel { group, control, pair });
    assert_eq!(add(1, 1, pair(Some(1), None)), Some(Refusal::ChannelInGroup));
    assert_eq!(add(1, 1, pair(Some(3), None)), Some(Refusal::ChannelInGroup), "as the second of a pair");
    assert_eq!(add(1, 0x11, pair(Some(4), Some(5))), Some(Refusal::GroupControl));
    assert_eq!(add(1, 1, pair(Some(16), None)), Some(Refusal::ChannelA), "time slot 16");
    assert_eq!(add(1, 1, pair(Some(30), None)), Some(Refusal::ChannelA), "a data channel");
    assert_eq!(add(2, 0x11, pair(Some(4), None)), Some(Refusal::ChannelB));
    assert_eq!(add(2, 0x11, pair(None, None)), Some(Refusal::Channels));
    assert_eq!(add(3, 0x11, pair(Some(0x21), Some(0x22))), None, "the second stream");
    let table = point.say(Command::Channels { group: None, control: NONE, pair: Pair::default() }).table;
    let all = vec![
        (1, 1, pair(Some(1), None)),
        (2, 0x11, pair(Some(2), Some(3))),
        (3, 0x11, pair(Some(0x21), Some(0x22))),
    ];
    assert_eq!(table, vec![Told::Channels(all)]);
    let mut remove = |group, pair| point.done(Command::RemoveChannel { group, pair });
    assert_eq!(remove(9, pair(Some(1), None)), Some(Refusal::Group));
    assert_eq!(remove(1, pair(Some(2), None)), Some(Refusal::NoSuchChannel));
    assert_eq!(remove(1, pair(Some(1), None)), None);
    assert_eq!(point.done(own(7)), Some(Refusal::ChannelNotSet), "a group without channels is none");
}

#[test]
fn objects_of_every_kind_are_put_asked_for_and_removed() {
    let mut point = Point::started();
    assert_eq!(point.say(own(7)).order, Some(Order::Look));
    for (object, kind, sign, number) in [
        (8, Kind::Full, Sign::Russia, "73832123456"),
        (9, Kind::Full, Sign::Abroad, "49301234567"),
        (10, Kind::Full, Sign::Emergency, "112"),
        (11, Kind::Partial, Sign::Russia, "7900"),
    ] {
        assert_eq!(point.done(put(object, kind, sign, number)), None, "{object}");
    }
    assert_eq!(point.done(Command::PutObject(trunk(12, 1), STATISTICAL)), None);
    let table = point.say(Command::Objects(Subject::ALL)).table;
    assert_eq!(table.len(), 6);
    assert!(matches!(&table[5], Told::Object { trunk: Some(1), kind: Kind::Trunk, .. }));
    let one = point.say(Command::Objects(Subject { object: Some(9), ..Subject::ALL })).table;
    assert!(
        matches!(&one[..], [Told::Object { object: 9, party, .. }] if party.number.reveal() == "49301234567")
    );
    // By the index, calls are selected by whole numbers, first digits and trunks.
    let hits = |number: &str| {
        let digits = Digits::new(number).expect("a number");
        point.station.index.number(&digits).map(|(_, n)| n).collect::<Vec<_>>()
    };
    assert_eq!((hits("28331"), hits("79001758964"), hits("7383212345")), (vec![7], vec![11], vec![]));
    let removal = point.say(Command::RemoveObject(Subject { object: Some(7), ..Subject::ALL }));
    assert_eq!(removal.order, Some(Order::Drop(7)));
    let none: Vec<_> = point.station.index.number(&Digits::new("28331").expect("a number")).collect();
    assert!(none.is_empty() && !point.desk().objects.contains_key(&7));
    // A restart folds the same index.
    let stored = serde_json::to_value(&point.station).expect("written");
    let again: Station = serde_json::from_value(stored).expect("read");
    assert_eq!(again.index.number(&Digits::new("79001").expect("a number")).count(), 1);
    assert_eq!(again.index.trunk(1).count(), 1);
}

#[test]
fn what_cannot_be_put_is_refused_with_its_code() {
    let mut point = Point::started();
    assert_eq!(point.done(own(7)), None);
    let with = |subject: Subject, wanted: Wanted| Command::PutObject(subject, wanted);
    let mine = subject(8, Kind::Own, Sign::Own, "28331");
    let refused = [
        (
            with(
                Subject { object: Some(7), ..subject(7, Kind::Full, Sign::Russia, "73832000000") },
                STATISTICAL,
            ),
            Refusal::ObjectSet,
        ),
        (own(8), Refusal::NumberSet),
        (put(8, Kind::Own, Sign::Own, "28332"), Refusal::NotLocal),
        (put(8, Kind::Own, Sign::Russia, "28331"), Refusal::KindOrSign),
        (put(8, Kind::Full, Sign::Own, "28331"), Refusal::KindOfLocal),
        (put(8, Kind::Full, Sign::Own, "73830000000"), Refusal::LocalSignOfOther),
        (put(8, Kind::Full, Sign::Mobile, "250011234567890"), Refusal::SignWrong),
        (with(Subject { sign: NONE, ..mine }, STATISTICAL), Refusal::NumberSign),
        (with(Subject { number: Digits::NONE, ..mine }, STATISTICAL), Refusal::NeitherNumberNorTrunk),
        (with(Subject { trunk: Some(1), ..mine }, STATISTICAL), Refusal::NumberAndTrunk),
        (with(Subject { trunk: None, ..trunk(8, 1) }, STATISTICAL), Refusal::TrunkParameters),
        (
            with(Subject { trunk: None, number: mine.number, ..trunk(8, 1) }, STATISTICAL),
            Refusal::TrunkHasNoNumber,
        ),
        (with(trunk(8, 77), STATISTICAL), Refusal::NoSuchTrunk),
        (with(mine, Wanted { group: 9, ..COMBINED }), Refusal::ChannelNotSet),
        (with(mine, Wanted { group: 2, ..COMBINED }), Refusal::GroupControl),
        (Command::RemoveObject(Subject::ALL), Refusal::ObjectNumber),
        (Command::RemoveObject(Subject { object: Some(99), ..Subject::ALL }), Refusal::ObjectNumber),
        (Command::RemoveObject(subject(7, Kind::Full, Sign::Own, "28331")), Refusal::ObjectUnfit),
        (Command::RemoveObject(subject(7, Kind::Own, Sign::Russia, "28331")), Refusal::KindOrSign),
        (Command::RemoveObject(subject(7, Kind::Own, Sign::Own, "28332")), Refusal::NumberCoincides),
        (
            Command::RemoveObject(Subject { trunk: Some(2), object: Some(7), ..Subject::ALL }),
            Refusal::TrunkDiffers,
        ),
        (Command::Objects(Subject { number: Digits::lossy("1"), ..Subject::ALL }), Refusal::NumberNotFound),
        (Command::Change { object: 99, wanted: COMBINED }, Refusal::ObjectNumber),
        (Command::Connect { call: 1, kind: 1, object: 99, group: 1 }, Refusal::ConnectObject),
        (Command::Connect { call: 1, kind: 1, object: 7, group: 9 }, Refusal::Group),
        (Command::Connect { call: 1, kind: 1, object: 7, group: 2 }, Refusal::GroupControl),
        (Command::Connect { call: 1, kind: 2, object: 7, group: 1 }, Refusal::ObjectKind),
        (Command::Free { call: 1, kind: 1, object: 99, pair: Pair::default() }, Refusal::ConnectObject),
        (Command::Services { sign: 1, number: Digits::lossy("28332") }, Refusal::NothingFound),
        (Command::Services { sign: 1, number: Digits::lossy("28331") }, Refusal::NoServices),
        (Command::Interrupt, Refusal::NothingToInterrupt),
        (Command::Trunks(Some(77)), Refusal::NoSuchTrunk),
    ];
    for (command, refusal) in refused {
        let shown = format!("{command:?}");
        assert_eq!(point.done(command), Some(refusal), "{shown}");
    }
    let at_once = [
        (with(Subject { kind: 9, ..mine }, STATISTICAL), Refusal::ObjectKind),
        (with(Subject { sign: 9, ..mine }, STATISTICAL), Refusal::NumberSign),
        (with(Subject { object: None, ..mine }, STATISTICAL), Refusal::ObjectNumber),
        (with(mine, Wanted { category: 9, ..COMBINED }), Refusal::Category),
        (with(mine, Wanted { priority: 9, ..COMBINED }), Refusal::Priority),
        (with(mine, Wanted { group: NONE, ..COMBINED }), Refusal::Group),
        (Command::AddChannel { group: 0, control: 1, pair: Pair::default() }, Refusal::Group),
        (Command::AddChannel { group: 1, control: 9, pair: Pair::default() }, Refusal::Parameters),
        (Command::SetPassword(Password(*b"12345a")), Refusal::Parameters),
    ];
    for (command, refusal) in at_once {
        let shown = format!("{command:?}");
        assert_eq!(point.say(command).received, Some(refusal), "{shown}");
    }
    assert_eq!(point.desk().objects.len(), 1, "nothing of that was kept");
    point.station.settings.strict_intercity_numbers = true;
    assert_eq!(point.done(put(8, Kind::Full, Sign::Russia, "2833100")), Some(Refusal::DigitCount));
}

#[test]
fn trunks_have_numbers_that_stay() {
    let mut point = Point::started();
    let table = point.say(Command::Trunks(None)).table;
    let names = vec![
        Told::Trunk { trunk: 1, name: "smg_trunk".into() },
        Told::Trunk { trunk: 2, name: "other".into() },
    ];
    assert_eq!(table[..2], names);
    assert_eq!(point.say(Command::Trunks(Some(2))).table, names[1..]);
    assert_eq!(point.done(Command::PutObject(trunk(1, 2), STATISTICAL)), None);
    assert_eq!(point.done(Command::PutObject(trunk(2, 2), STATISTICAL)), Some(Refusal::TrunkSet));
    for object in 3..12 {
        assert_eq!(point.done(Command::PutObject(trunk(object, object), STATISTICAL)), None);
    }
    // One that was undeclared keeps its number, and is not there.
    point.station.trunks.insert(20, "gone".into());
    assert_eq!(point.done(Command::PutObject(trunk(2, 20), STATISTICAL)), Some(Refusal::TrunkNotSet));
    assert_eq!(point.done(Command::PutObject(trunk(2, 1), STATISTICAL)), Some(Refusal::TrunksFull));
}

#[test]
fn a_mediator_that_is_removed_leaves_nothing() {
    let mut point = Point::started();
    assert_eq!(point.done(own(7)), None);
    point.station.apply(&StationEvent::Set(Setting::RemoveServer(point.mediator)));
    assert!(point.station.desks.is_empty());
    assert_eq!(point.station.index.number(&Digits::lossy("28331")).count(), 0);
}

#[test]
fn nothing_shows_a_number() {
    let mut point = Point::started();
    assert_eq!(point.done(own(7)), None);
    assert!(!format!("{:?}", point.station).contains("28331"));
}
