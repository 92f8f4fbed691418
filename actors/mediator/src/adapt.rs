//! What a unit of the station becomes on its way to the control point: digits, codes and fields as the agency wants them.

use sorm::protocol::{Digits, Event, NONE, Refusal, Reply, Sign, Told, Way};

use crate::settings::{Settings, Zero};

/// States of the data channels, a bit for each stream that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct States {
    pub first: u8,
    pub second: u8,
}

/// A unit as the control point gets it. One that cannot be read goes as it is: better strange than lost.
pub fn adapted(unit: &[u8], way: Way, states: States, settings: &Settings) -> Vec<u8> {
    let as_a = settings.digit_zero == Zero::A;
    match way {
        Way::Reply => match Reply::read(unit) {
            Ok(mut told) => {
                reply(&mut told.told, states, settings);
                if as_a { told.to_bytes_with_a() } else { told.to_bytes() }
            }
            Err(_) => unit.to_vec(),
        },
        _ => match Event::read(unit) {
            Ok(mut said) => {
                event(&mut said, states, settings);
                if as_a { said.to_bytes_with_a() } else { said.to_bytes() }
            }
            Err(_) => unit.to_vec(),
        },
    }
}

fn reply(told: &mut Told, states: States, settings: &Settings) {
    match told {
        Told::Received { status, .. } if !settings.extended_codes && *status != 0 => {
            *status = Refusal::from_repr(*status).map_or(0x01, Refusal::plain_received);
        }
        Told::Done { status, .. } if !settings.extended_codes && *status != 0 => {
            *status = Refusal::from_repr(*status).map_or(0x01, Refusal::plain_done);
        }
        Told::Version { node, .. } => *node = settings.node,
        Told::Test { first, second, .. } => (*first, *second) = (states.first, states.second),
        _ => {}
    }
}

fn event(said: &mut Event, states: States, settings: &Settings) {
    match said {
        Event::Test { first, second, .. } => (*first, *second) = (states.first, states.second),
        Event::Call { selection, event, .. } => {
            // Pairs of bits from the lowest: by A, by B, by a bundle of trunks.
            let by_a = selection.0 != NONE && selection.0 & 0b11 != 0;
            let own = matches!(event.called.sign, Some(Sign::Own | Sign::Russia));
            event.called.number = called(event.called.number, by_a && own, settings);
        }
    }
}

/// The called number; the prefixes that are added are for calls intercepted by the calling one alone.
fn called(number: Digits, may_add: bool, settings: &Settings) -> Digits {
    let mut text = number.reveal();
    for (wanted, from, to) in [(settings.exit_88_to_7, "88", "7"), (settings.exit_8_to_7, "8", "7")] {
        if wanted && let Some(rest) = text.strip_prefix(from) {
            text = format!("{to}{rest}");
            break;
        }
    }
    for (wanted, to) in [(settings.cdpn_add_8, "8"), (settings.cdpn_add_810, "810")] {
        if wanted
            && may_add
            && let Some(rest) = text.strip_prefix('7')
        {
            text = format!("{to}{rest}");
            break;
        }
    }
    Digits::lossy(&text)
}

#[cfg(test)]
mod tests {
    use sorm::protocol::{
        Attribute, CallEvent, Category, Moment, Node, Operation, Pair, Party, Phase, Priority, Said,
        Selection,
    };

    use super::*;
    use crate::settings::Property;

    const STATES: States = States { first: 0b101, second: 0b100 };

    fn call(selection: Selection, sign: Sign, number: &str) -> Event {
        let party =
            |sign, number: &str| Party { sign: Some(sign), number: Digits::new(number).expect("digits") };
        Event::Call {
            sorm: 1,
            call: 7,
            kind: 1,
            object: 3,
            selection,
            attribute: Some(Attribute::Outgoing),
            phase: Phase::Call,
            event: CallEvent {
                said: Said::Number,
                calling: party(Sign::Own, "73832710001"),
                called: party(sign, number),
                trunk: None,
                channels: Pair::default(),
                at: Moment { day: 4, hour: 22, minute: 18, second: 27 },
                priority: Priority::Ordinary,
                operation: Operation::NORMAL,
                service: None,
                additional: NONE,
            },
        }
    }

    fn with(settings: &[Property]) -> Settings {
        let mut all = Settings::default();
        settings.iter().for_each(|p| all.set(*p, "true").expect("set"));
        all
    }

    #[test]
    fn called_numbers_become_what_is_set() {
        use Property::{CdpnAdd8, CdpnAdd810, Exit8To7, Exit88To7};
        let (a, b) = (Selection::by_a(Category::Combined), Selection::by_b(Category::Combined));
        for (settings, selection, sign, number, expected) in [
            (&[][..], a, Sign::Russia, "79001758964", "79001758964"),
            (&[CdpnAdd8], a, Sign::Russia, "79001758964", "89001758964"),
            (&[CdpnAdd8], a, Sign::Own, "73832710001", "83832710001"),
            (&[CdpnAdd8], b, Sign::Russia, "79001758964", "79001758964"),
            (&[CdpnAdd8], a, Sign::Abroad, "7900", "7900"),
            (&[CdpnAdd8], a, Sign::Russia, "28331", "28331"),
            (&[CdpnAdd810], a, Sign::Russia, "79001758964", "8109001758964"),
            (&[CdpnAdd810], b, Sign::Russia, "79001758964", "79001758964"),
            (&[Exit8To7], b, Sign::Russia, "89001758964", "79001758964"),
            (&[Exit8To7], a, Sign::Abroad, "810491234", "710491234"),
            (&[Exit88To7], b, Sign::Russia, "889001758964", "79001758964"),
            (&[Exit88To7], b, Sign::Russia, "89001758964", "89001758964"),
            (&[Exit8To7, Exit88To7], b, Sign::Russia, "889001758964", "79001758964"),
            // What came as 8 is a 7 first, and an 8 for those who want it again.
            (&[Exit8To7, CdpnAdd8], a, Sign::Russia, "89001758964", "89001758964"),
        ] {
            let unit = call(selection, sign, number).to_bytes();
            let got = Event::read(&adapted(&unit, Way::Event, STATES, &with(settings))).expect("an event");
            assert_eq!(got, call(selection, sign, expected), "{settings:?} {number}");
        }
    }

    #[test]
    fn codes_zeros_and_states_are_the_mediators() {
        let done = |status| Reply::alone(1, Told::Done { command: 5, status }).to_bytes();
        let received = |status| Reply::alone(1, Told::Received { command: 5, status }).to_bytes();
        let (plain, extended) = (Settings::default(), with(&[Property::ExtendedCodes]));
        let through = |unit: &[u8], settings| adapted(unit, Way::Reply, STATES, settings);
        assert_eq!(through(&done(0x33), &plain), done(0x01));
        assert_eq!(through(&done(0x33), &extended), done(0x33));
        assert_eq!(through(&done(0x16), &plain), done(0x07));
        assert_eq!(through(&done(0), &plain), done(0));
        assert_eq!(through(&received(0x17), &plain), received(0x02));
        let test = |first, second| Event::Test { sorm: 1, number: 9, first, second }.to_bytes();
        assert_eq!(adapted(&test(1, 1), Way::Event, STATES, &plain), test(0b101, 0b100));
        let version = |node| Reply::alone(1, Told::Version { text: "Hypha".into(), node }).to_bytes();
        assert_eq!(through(&version(Node::Terminal), &plain), version(Node::TerminalTransit));
        let unit = call(Selection::by_b(Category::Combined), Sign::Russia, "79001758964");
        let as_a = Settings { digit_zero: Zero::A, ..Settings::default() };
        assert_eq!(adapted(&unit.to_bytes(), Way::Event, STATES, &as_a), unit.to_bytes_with_a());
        assert_eq!(adapted(&[1, 2, 3], Way::Event, STATES, &as_a), [1, 2, 3]);
    }
}
