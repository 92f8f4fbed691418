//! A control point's commands and what it is told, in words: for replays and for whoever types by hand.

use std::fmt::Write;

use strum::IntoEnumIterator;

use crate::protocol::{
    CallEvent, Category, Channel, Command, Control, Digits, Event, Kind, NONE, Pair, Party, Password,
    Priority, Refusal, Sign, Subject, Told, Wanted,
};

/// What can be said.
pub const HELP: &str = "\
start | stop | version | interrupt | test NUMBER | password DIGITS
channel add GROUP combined A | channel add GROUP separate A B | channel remove GROUP A [B] | channels [GROUP]
put OBJECT own|full|partial SIGN NUMBER CATEGORY [GROUP] [high] | put OBJECT trunk TRUNK CATEGORY [GROUP] [high]
change OBJECT CATEGORY [GROUP] [high] | remove OBJECT | objects [OBJECT]
connect CALL KIND OBJECT GROUP | free CALL KIND OBJECT A [B] | services [NUMBER] | trunks [TRUNK]
SIGN: own, russia, abroad, emergency, mobile; CATEGORY: combined, separate, statistical";

/// Reads a command.
pub fn parse(text: &str) -> Result<Command, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let wrong = || format!("{text:?} is no command; there are:\n{HELP}");
    parsed(&words).ok_or_else(wrong)
}

fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn named<T: IntoEnumIterator + std::fmt::Display>(word: &str) -> Option<T> {
    T::iter().find(|one| one.to_string() == word)
}

fn pair(a: &str, b: Option<&&str>) -> Option<Pair> {
    let channel = |word: &str| number(word).map(Channel);
    Some(Pair {
        a: Some(channel(a)?),
        b: match b {
            Some(b) => Some(channel(b)?),
            None => None,
        },
    })
}

fn wanted(words: &[&str]) -> Option<Wanted> {
    let (category, rest) = words.split_first()?;
    let category: Category = named(category)?;
    let (group, rest) = match rest.split_first() {
        Some((group, rest)) if category != Category::Statistical => (number(group)?, rest),
        _ => (NONE, rest),
    };
    let priority = match rest {
        ["high"] => Priority::High,
        [] if category == Category::Statistical => Priority::Statistical,
        [] => Priority::Ordinary,
        _ => return None,
    };
    Some(Wanted { category: category.code(), group, priority: priority.code() })
}

fn parsed(words: &[&str]) -> Option<Command> {
    Some(match words {
        ["start"] => Command::Start,
        ["stop"] => Command::Stop,
        ["version"] => Command::Version,
        ["interrupt"] => Command::Interrupt,
        ["test", n] => Command::Test(number(n)?),
        ["password", new] => Command::SetPassword(Password(new.as_bytes().try_into().ok()?)),
        ["channel", "add", group, "combined", a] => Command::AddChannel {
            group: number(group)?,
            control: Control::Combined.code(),
            pair: pair(a, None)?,
        },
        ["channel", "add", group, "separate", a, b] => Command::AddChannel {
            group: number(group)?,
            control: Control::Separate.code(),
            pair: pair(a, Some(b))?,
        },
        ["channel", "remove", group, a, rest @ ..] if rest.len() < 2 => {
            Command::RemoveChannel { group: number(group)?, pair: pair(a, rest.first())? }
        }
        ["channels"] => Command::Channels { group: None, control: NONE, pair: Pair::default() },
        ["channels", group] => {
            Command::Channels { group: Some(number(group)?), control: NONE, pair: Pair::default() }
        }
        ["put", object, "trunk", trunk, how @ ..] => {
            let trunk = Some(number(trunk)?);
            let subject =
                Subject { object: Some(number(object)?), kind: Kind::Trunk.code(), trunk, ..Subject::ALL };
            Command::PutObject(subject, wanted(how)?)
        }
        ["put", object, kind, sign, digits, how @ ..] => {
            let (kind, sign): (Kind, Sign) = (named(kind)?, named(sign)?);
            let subject = Subject {
                object: Some(number(object)?),
                kind: kind.code(),
                sign: sign.code(),
                number: Digits::new(digits)?,
                trunk: None,
            };
            Command::PutObject(subject, wanted(how)?)
        }
        ["change", object, how @ ..] => Command::Change { object: number(object)?, wanted: wanted(how)? },
        ["remove", object] => {
            Command::RemoveObject(Subject { object: Some(number(object)?), ..Subject::ALL })
        }
        ["objects"] => Command::Objects(Subject::ALL),
        ["objects", object] => Command::Objects(Subject { object: Some(number(object)?), ..Subject::ALL }),
        ["connect", call, kind, object, group] => Command::Connect {
            call: number(call)?,
            kind: named::<Kind>(kind)?.code(),
            object: number(object)?,
            group: number(group)?,
        },
        ["free", call, kind, object, a, rest @ ..] if rest.len() < 2 => Command::Free {
            call: number(call)?,
            kind: named::<Kind>(kind)?.code(),
            object: number(object)?,
            pair: pair(a, rest.first())?,
        },
        ["services"] => Command::Services { sign: NONE, number: Digits::NONE },
        ["services", digits] => Command::Services { sign: Sign::Own.code(), number: Digits::new(digits)? },
        ["trunks"] => Command::Trunks(None),
        ["trunks", trunk] => Command::Trunks(Some(number(trunk)?)),
        _ => return None,
    })
}

fn party(party: &Party) -> String {
    let sign = party.sign.map_or_else(|| "-".to_owned(), |s| s.to_string());
    let number = if party.number.is_empty() { "-".to_owned() } else { party.number.reveal() };
    format!("{sign} {number}")
}

fn channels(pair: &Pair) -> String {
    let all: Vec<String> = [pair.a, pair.b].into_iter().flatten().map(|c| c.0.to_string()).collect();
    if all.is_empty() { "-".into() } else { all.join("+") }
}

fn status(code: u8) -> String {
    let words =
        if code == 0 { Some("ok".to_owned()) } else { Refusal::from_repr(code).map(|r| r.to_string()) };
    format!("{code:02x} {}", words.unwrap_or_else(|| "?".into()))
}

/// A message of the first channel in one line. It shows numbers: it is for the control point.
pub fn told(told: &Told) -> String {
    match told {
        Told::Alarm { kind, code } => format!("alarm {kind} {code}"),
        Told::Restarted => "restarted".into(),
        Told::Object { object, kind, party: who, trunk, category, group, priority, .. } => {
            let mut text = format!("object {object}: {kind} {} {category}", party(who));
            let _ = group.map(|g| write!(text, " group {g}"));
            let _ = trunk.map(|t| write!(text, " trunk {t}"));
            text + &format!(" {priority}")
        }
        Told::Channels(all) => {
            let each = all.iter().map(|(group, _, pair)| format!("group {group}: {}", channels(pair)));
            format!("channels {}", each.collect::<Vec<_>>().join(", "))
        }
        Told::Services { party: who, codes } => format!("services of {}: {}", party(who), hex::encode(codes)),
        Told::Intrusion { code, text, .. } => format!("intrusion {code} {text}"),
        Told::Received { command, status: code } => format!("received {command:02x}: {}", status(*code)),
        Told::Done { command, status: code } => format!("done {command:02x}: {}", status(*code)),
        Told::Test { number, first, second } => format!("test {number}: {first:02x} {second:02x}"),
        Told::Trunk { trunk, name } => format!("trunk {trunk}: {name}"),
        Told::Version { text, node } => format!("version {text}, {node}"),
        Told::Text(text) => format!(
            "text object {}: {} -> {}: {}",
            text.object,
            party(&text.sender),
            party(&text.receiver),
            String::from_utf8_lossy(&text.content)
        ),
    }
}

/// A message of the second channel in one line.
pub fn event(event: &Event) -> String {
    match event {
        Event::Test { number, first, second, .. } => format!("test {number}: {first:02x} {second:02x}"),
        Event::Call { call, object, selection, attribute, event, .. } => {
            let CallEvent { said, calling, called, trunk, channels: used, operation, service, .. } = event;
            let attribute = attribute.map_or_else(|| "-".to_owned(), |a| a.to_string());
            let mut text = format!(
                "{said} call {call} object {object}: {} -> {}, {attribute}, selected {:02x}, channel {}, operation {:02x}",
                party(calling),
                party(called),
                selection.0,
                channels(used),
                operation.0
            );
            let _ = trunk.map(|t| write!(text, ", trunk {t}"));
            let _ = service.map(|s| write!(text, ", service {s:02x}"));
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Request;

    #[test]
    fn every_command_can_be_said() {
        let all = [
            "start",
            "stop",
            "password 654321",
            "channel add 1 separate 2 3",
            "put 7 own own 28331 combined 1 high",
            "remove 7",
            "connect 1 own 7 1",
            "free 1 own 7 1",
            "channel remove 1 2 3",
            "objects",
            "channels 1",
            "services 28331",
            "interrupt",
            "test 9",
            "change 7 statistical",
            "trunks",
            "version",
        ];
        for (code, text) in (1u8..).zip(all) {
            let command = parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(command.code(), code, "{text}");
            let request = Request { sorm: 1, password: Password::FIRST, command };
            assert_eq!(Request::read(&request.to_bytes()), Ok(request));
        }
        let trunk = parse("put 8 trunk 3 separate 2").expect("a command");
        assert!(matches!(
            trunk,
            Command::PutObject(Subject { trunk: Some(3), .. }, Wanted { category: 0x11, .. })
        ));
        for wrong in ["", "go", "put 7 own own x combined 1", "put 7 own own 1 big", "password 1", "test 256"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
