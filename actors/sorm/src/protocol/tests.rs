use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hexadecimal digits")
}

fn request(command: Command) -> Request {
    Request { sorm: 1, password: Password::FIRST, command }
}

fn number(text: &str) -> Digits {
    Digits::new(text).expect("a number")
}

/// Object 7 of the facts' vectors.
fn put() -> Command {
    let subject = Subject {
        object: Some(7),
        kind: Kind::Own.code(),
        sign: Sign::Own.code(),
        number: number("73832710001"),
        trunk: None,
    };
    Command::PutObject(subject, Wanted { category: 1, group: 1, priority: 2 })
}

fn first_event() -> Event {
    Event::Call {
        sorm: 1,
        call: 0x0102,
        kind: 1,
        object: 7,
        selection: Selection::by_a(Category::Combined),
        attribute: Some(Attribute::Outgoing),
        phase: Phase::Call,
        event: CallEvent {
            said: Said::Number,
            calling: Party { sign: Some(Sign::Own), number: number("73832710001") },
            called: Party { sign: Some(Sign::Russia), number: number("79001758964") },
            trunk: Some(3),
            channels: Pair { a: Some(Channel(1)), b: None },
            at: Moment { day: 4, hour: 22, minute: 18, second: 27 },
            priority: Priority::Ordinary,
            operation: Operation::NORMAL,
            service: None,
            additional: NONE,
        },
    }
}

#[test]
fn commands_are_the_bytes_of_the_order() {
    let vectors = [
        (request(Command::Start), "CC 01 01 00 31 32 33 34 35 36"),
        (
            request(Command::AddChannel {
                group: 1,
                control: 1,
                pair: Pair { a: Some(Channel(1)), b: None },
            }),
            "CC 01 04 04 31 32 33 34 35 36 01 01 01 FF",
        ),
        (
            request(put()),
            "CC 01 05 13 31 32 33 34 35 36 07 00 01 01 0B 37 38 72 01 00 F1 FF FF FF FF FF 01 01 02",
        ),
    ];
    for (request, bytes) in vectors {
        assert_eq!(request.to_bytes(), hex(bytes), "{:?}", request.command);
        assert_eq!(Request::read(&hex(bytes)), Ok(request));
    }
    let with_a = "CC 01 05 13 31 32 33 34 35 36 07 00 01 01 0B 37 38 72 A1 AA F1 FF FF FF FF FF 01 01 02";
    assert_eq!(request(put()).to_bytes_with_a(), hex(with_a));
    assert_eq!(Request::read(&hex(with_a)), Ok(request(put())), "a zero may come as A");
}

#[test]
fn every_command_has_the_length_of_the_order() {
    let pair = Pair::default();
    let all = [
        (Command::Start, 10),
        (Command::Stop, 10),
        (Command::SetPassword(Password(*b"654321")), 16),
        (Command::AddChannel { group: 1, control: 1, pair }, 14),
        (put(), 29),
        (Command::RemoveObject(Subject::ALL), 26),
        (Command::Connect { call: 1, kind: 1, object: 7, group: 1 }, 16),
        (Command::Free { call: 1, kind: 1, object: 7, pair }, 17),
        (Command::RemoveChannel { group: 1, pair }, 13),
        (Command::Objects(Subject::ALL), 26),
        (Command::Channels { group: None, control: NONE, pair }, 14),
        (Command::Services { sign: NONE, number: Digits::NONE }, 21),
        (Command::Interrupt, 10),
        (Command::Test(9), 11),
        (Command::Change { object: 7, wanted: Wanted { category: 2, group: NONE, priority: NONE } }, 15),
        (Command::Trunks(None), 12),
        (Command::Version, 10),
    ];
    for (code, (command, length)) in (1u8..).zip(all) {
        let (bytes, request) = (request(command.clone()).to_bytes(), request(command));
        assert_eq!((request.command.code(), bytes.len()), (code, length), "{request:?}");
        assert_eq!(Request::read(&bytes), Ok(request));
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(Request::read(&long).map_err(|e| (e.code, e.refusal)), Err((code, Refusal::Length)));
    }
}

#[test]
fn a_command_that_cannot_be_read_says_which_it_was() {
    let mut bytes = request(put()).to_bytes();
    bytes[14] = 19;
    let bad = |code, refusal| Err(BadRequest { sorm: 1, code, refusal });
    assert_eq!(Request::read(&bytes), bad(5, Refusal::NumberLength));
    bytes[14] = 11;
    bytes[15] = 0xEE;
    assert_eq!(Request::read(&bytes), bad(5, Refusal::Length));
    bytes[2] = 0x7E;
    assert_eq!(Request::read(&bytes), bad(0x7E, Refusal::Parameters));
    assert!(Request::read(b"\xCC\x01").is_err() && Request::read(b"").is_err());
}

#[test]
fn replies_are_the_bytes_of_the_order() {
    let vectors = [
        (Told::Received { command: 5, status: 0 }, "CC 01 27 02 00 00 00 00 FF 02 05 00", 12),
        (Told::Done { command: 5, status: 0 }, "CC 01 28 02 00 00 00 00 FF 02 05 00", 12),
        (Told::Done { command: 5, status: 0x33 }, "CC 01 28 02 00 00 00 00 FF 02 05 33", 12),
        (Told::Alarm { kind: Alarm::TablesLost, code: 1 }, "", 12),
        (Told::Restarted, "", 10),
        (
            Told::Object {
                object: 7,
                kind: Kind::Own,
                party: Party { sign: Some(Sign::Own), number: number("73832710001") },
                trunk: None,
                category: Category::Combined,
                group: Some(1),
                priority: Priority::Ordinary,
                line: LineState::Good,
            },
            "",
            30,
        ),
        (Told::Channels(vec![(1, 1, Pair { a: Some(Channel(1)), b: None })]), "", 55),
        (Told::Services { party: Party::default(), codes: Vec::new() }, "", 55),
        (Told::Services { party: Party::default(), codes: vec![0x21, 0x29] }, "", 28),
        (
            Told::Intrusion {
                code: Intrusion::WrongPassword,
                at: Moment::default(),
                text: "192.0.2.1".into(),
            },
            "",
            55,
        ),
        (Told::Test { number: 9, first: 1, second: 1 }, "", 13),
        (Told::Trunk { trunk: 3, name: "smg_trunk".into() }, "", 55),
        (Told::Version { text: "Hypha 0.1".into(), node: Node::TerminalTransit }, "", 55),
        (
            Told::Text(Box::new(Text {
                object: 7,
                kind: 1,
                sender: Party { sign: Some(Sign::Own), number: number("2001") },
                state: 0,
                code: NONE,
                at: Moment::default(),
                receiver: Party { sign: Some(Sign::Russia), number: number("79001758964") },
                sender_imsi: Party::default(),
                receiver_imsi: Party::default(),
                content: "привет".into(),
            })),
            "",
            10 + 53 + 12,
        ),
    ];
    for (told, bytes, length) in vectors {
        let reply = Reply::alone(1, told);
        let written = reply.to_bytes();
        assert_eq!(written.len(), length, "{reply:?}");
        assert!(bytes.is_empty() || written == hex(bytes), "{reply:?}");
        assert_eq!(Reply::read(&written), Ok(reply.clone()));
        assert_eq!(Reply::read(&reply.to_bytes_with_a()), Ok(reply));
    }
}

#[test]
fn events_are_the_bytes_of_the_order() {
    let bytes = hex(
        "CC 01 41 24 02 01 01 07 00 01 11 00 01 0B 37 38 72 01 00 F1 FF FF FF 04 0B 97 00 71 85 69 F4 FF \
                     FF FF 03 00 01 FF 40 22 81 72 02 00 FF FF FF FF",
    );
    assert_eq!(first_event().to_bytes(), bytes);
    assert_eq!(Event::read(&bytes), Ok(first_event()));
    assert_eq!(Event::read(&first_event().to_bytes_with_a()), Ok(first_event()));
    let test = Event::Test { sorm: 1, number: 9, first: 1, second: 1 };
    assert_eq!(test.to_bytes(), hex("CC 01 53 03 FF FF FF FF FF FF FF FF 09 01 01"));
    assert_eq!(Event::read(&test.to_bytes()), Ok(test));
}

#[test]
fn selection_says_by_whom_and_how() {
    let codes = [Category::Combined, Category::Separate, Category::Statistical].map(|c| {
        [Selection::by_a(c), Selection::by_b(c), Selection::by_trunk(c), Selection::by_service(c)]
            .map(|s| s.0)
    });
    assert_eq!(codes, [[0x01, 0x04, 0x10, 0x40], [0x03, 0x0C, 0x30, 0xC0], [0x02, 0x08, 0x20, 0x80]]);
}

#[test]
fn a_stream_is_cut_where_units_end() {
    let bytes = [request(Command::Start).to_bytes(), request(put()).to_bytes()].concat();
    assert_eq!(cut(&bytes, Way::Command), Cut::Unit(10));
    assert_eq!(cut(&bytes[10..], Way::Command), Cut::Unit(29));
    assert_eq!(cut(&bytes[10..38], Way::Command), Cut::More);
    assert_eq!(cut(b"\x00\x01\xCC", Way::Command), Cut::Garbage(2));
    assert_eq!(cut(b"", Way::Event), Cut::More);
}

#[test]
fn a_number_is_not_shown_by_accident() {
    assert!(!format!("{:?}", request(put())).contains("7383"));
    assert!(!format!("{:?}", first_event()).contains("7900"));
    assert!(Refusal::iter().all(|r| !r.to_string().is_empty()));
}

proptest! {
    #[test]
    fn any_number_comes_back(text in "[0-9*#]{1,18}", cut in 0usize..20) {
        let digits = Digits::new(&text).expect("a number");
        prop_assert_eq!(digits.reveal(), text.clone());
        prop_assert_eq!(digits.first(cut).reveal(), &text[..cut.min(text.len())]);
        let mut field = Vec::new();
        digits.write(&mut field);
        let packed: [u8; 9] = field[1..].try_into().expect("nine bytes");
        prop_assert_eq!(Digits::read(field[0], packed), Some(digits));
        number::zero_as_a(field[0], &mut field[1..]);
        prop_assert_eq!(Digits::read(field[0], field[1..].try_into().expect("nine bytes")), Some(digits));
    }

    #[test]
    fn a_longer_or_stranger_number_is_none(text in "[0-9]{19,40}|[0-9]{0,5}[a-zA-Z+ ][0-9]{0,5}") {
        prop_assert_eq!(Digits::new(&text), None);
    }

    /// Whatever can be read is written as it was read.
    #[test]
    fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..300), code in 0u8..0x60) {
        let length = tail.len().saturating_sub(6).min(255);
        let command = [&[PREAMBLE, 1, code % 18, u8::try_from(length).expect("small")], &tail[..]].concat();
        if let Ok(request) = Request::read(&command) {
            prop_assert_eq!(Request::read(&request.to_bytes()), Ok(request));
        }
        let unit = [&[PREAMBLE, 1, code, u8::try_from(length).expect("small")], &tail[..]].concat();
        if let Ok(reply) = Reply::read(&unit) {
            prop_assert_eq!(Reply::read(&reply.to_bytes()), Ok(reply));
        }
        if let Ok(event) = Event::read(&unit) {
            prop_assert_eq!(Event::read(&event.to_bytes()), Ok(event));
        }
        for way in [Way::Command, Way::Reply, Way::Event] {
            match cut(&tail, way) {
                Cut::Unit(n) | Cut::Garbage(n) => prop_assert!(n > 0 && n <= tail.len()),
                Cut::More => {}
            }
        }
    }
}
