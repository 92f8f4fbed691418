//! `mediator/…`: the four tabs of settings, the monitor of streams, and how everything is.

use std::sync::atomic::Ordering::Relaxed;

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, with};
use e1::line::{Counters, State};
use kit::{Secret, ledger};
use serde_json::json;
use sorm::{
    audit::Entry,
    proposals::{Scoped, Two},
};
use strum::{IntoEnumIterator, VariantNames};

use crate::{
    book::{self, SettingsBook, SettingsCommand},
    outbox::Channel,
    services::Services,
    settings::{OfStream, Property, STREAMS, SettingError, Stream, Tab},
    tree::{Changed, follow},
};

impl Scoped for SettingsCommand {
    fn domain(&self) -> &str {
        ""
    }
}

/// What commands work with.
#[derive(Clone)]
struct Work {
    services: Services,
    two: Two<SettingsCommand>,
}

impl std::ops::Deref for Work {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// Adds the family's commands.
pub fn register(tree: &mut Tree, services: &Services) -> Result<(), DeclareError> {
    let (s, of_two) = (services, services.clone());
    let two = Two::new(&s.node, &s.audit, s.two_persons, move |call, change, action| {
        let s = of_two.clone();
        async move { carry_out(&s, &call, change, &action).await }
    });
    let waiting = two.commands(["mediator/proposals", "mediator/approve", "mediator/reject"]);
    tree.add(waiting.map(Command::system_only))?;
    let s = &Work { services: services.clone(), two };
    for (tab, [set, info, clean]) in [
        (Tab::Ssh, ["mediator/ssh/set", "mediator/ssh/info", "mediator/ssh/clean"]),
        (Tab::Sorm, ["mediator/sorm/set", "mediator/sorm/info", "mediator/sorm/clean"]),
        (Tab::Radius, ["mediator/radius/set", "mediator/radius/info", "mediator/radius/clean"]),
        (Tab::E1, ["mediator/e1/set", "mediator/e1/info", "mediator/e1/clean"]),
        (Tab::Etsi, ["mediator/etsi/set", "mediator/etsi/info", "mediator/etsi/clean"]),
    ] {
        tree.add(of_tab(s, tab, set, info, clean).map(Command::system_only))?;
    }
    tree.add(
        [
            Command::change(
                "mediator/ssh/forget-keys",
                "takes the key that the station shows next for its own",
                "забыть ключи станций: следующий предъявленный ключ будет принят",
                with!(s, |s, call| {
                    s.two.submit(call, SettingsCommand::ForgetKeys, "forget keys", true, APPROVE).await
                }),
            ),
            Command::change(
                "mediator/e1/stream",
                "sets a property of an E1 stream: enabled, mode (dte, dce), local and peer (ADDRESS:PORT of its packets)",
                "задать свойство потока E1: enabled, mode (dte, dce), local и peer (АДРЕС:ПОРТ пакетов)",
                with!(s, |s, call| set_stream(&s, &call).await),
            )
            .arg("stream", Kind::Number(0, STREAMS as u64 - 1), "its number", "номер потока")
            .arg("property", Kind::OneOf(OfStream::VARIANTS), "its name", "имя свойства")
            .arg("value", Kind::Text, "its value", "значение"),
            Command::look(
                "mediator/e1/streams",
                "shows the E1 streams with their settings",
                "показать настройки потоков E1",
                with!(s, |s, _call| Ok(streams(&s))),
            ),
            Command::look(
                "mediator/e1/monitor",
                "shows states and counters of the E1 streams",
                "мониторинг потоков E1",
                with!(s, |s, _call| Ok(monitor(&s))),
            ),
            Command::change(
                "mediator/e1/reset",
                "sets the counters of an E1 stream to 0",
                "сбросить счётчики потока E1",
                with!(s, |s, call| {
                    let number = call.number("stream").unwrap_or_default();
                    let port = usize::try_from(number).ok().and_then(|n| s.board.port(n));
                    let port = port.ok_or_else(|| CommandError::Failed(format!("stream {number} does not run")))?;
                    port.clear();
                    Ok(Output::ok())
                }),
            )
            .arg("stream", Kind::Number(0, STREAMS as u64 - 1), "its number", "номер потока"),
            Command::look(
                "mediator/state",
                "shows what works and what does not, and why",
                "показать состояние посредника",
                with!(s, |s, _call| Ok(state(&s))),
            ),
            Command::look(
                "mediator/network",
                "shows the machine's network interfaces, and which doors are open on them",
                "показать сетевые интерфейсы и открытые на них службы",
                with!(s, |s, _call| network(&s)),
            ),
        ]
        .map(Command::system_only),
    )
}

const APPROVE: &str = "mediator/approve";

fn of_tab(s: &Work, tab: Tab, set: &'static str, info: &'static str, clean: &'static str) -> [Command; 3] {
    // Made once, for as long as the program runs.
    let names: Vec<&'static str> =
        Property::iter().filter(|p| p.tab() == tab).map(|p| &*p.to_string().leak()).collect();
    let names: &'static [&'static str] = names.leak();
    [
        Command::change(
            set,
            "sets a property; info shows what it may be",
            "задать свойство; допустимые значения показывает info",
            with!(s, |s, call| {
                let property = property(&call)?;
                set_property(&s, &call, property, Some(call.get("value").to_owned())).await
            }),
        )
        .arg("property", Kind::OneOf(names), "its name", "имя свойства")
        // Some are secrets; none is kept in histories.
        .arg("value", Kind::Secret, "its value", "значение"),
        Command::look(
            info,
            "shows the properties and what they may be",
            "показать свойства и допустимые значения",
            with!(s, |s, _call| {
                let settings = s.settings.load();
                let mut table = Table::new(["Property", "Value", "May be"]);
                for (property, value) in settings.of(tab) {
                    table.row([property.to_string(), value, property.values().to_owned()]);
                }
                Ok(Output::table(table))
            }),
        ),
        Command::change(
            clean,
            "sets a property to what it was at first",
            "вернуть свойству заводское значение",
            with!(s, |s, call| {
                let property = property(&call)?;
                set_property(&s, &call, property, None).await
            }),
        )
        .arg("property", Kind::OneOf(names), "its name", "имя свойства"),
    ]
}

fn property(call: &Call) -> Result<Property, CommandError> {
    call.get("property").parse().map_err(|_| CommandError::Usage("there is no such property".into()))
}

/// `None` is what it was at first.
async fn set_property(
    s: &Work,
    call: &Call,
    property: Property,
    value: Option<String>,
) -> Result<Output, CommandError> {
    // Whoever approves it sees what it becomes.
    let action = match &value {
        None => format!("clean {property}"),
        Some(_) if property.is_secret() => format!("set {property}"),
        Some(value) => format!("set {property} {value}"),
    };
    let command = match value {
        None if property.is_secret() => SettingsCommand::Seal(property, None),
        None => {
            let first = crate::settings::Settings::default();
            // A user has no first value that could be set.
            if property == Property::User {
                return Err(CommandError::Usage("the user is set, not cleaned".into()));
            }
            SettingsCommand::Set(property, first.shown(property))
        }
        Some(value) if property.is_secret() => {
            if value.is_empty() {
                return Err(CommandError::Usage("the secret is empty".into()));
            }
            let sealed = s.vault.seal(&property.to_string(), &Secret::new(value));
            SettingsCommand::Seal(property, Some(sealed.map_err(CommandError::failed)?))
        }
        Some(value) => {
            s.settings.load().as_ref().clone().set(property, &value).map_err(usage)?;
            SettingsCommand::Set(property, value)
        }
    };
    s.two.submit(call.clone(), command, &action, property.wants_two(), APPROVE).await
}

fn usage(e: SettingError) -> CommandError {
    CommandError::Usage(e.to_string())
}

async fn set_stream(s: &Work, call: &Call) -> Result<Output, CommandError> {
    let (number, value) = (call.get("stream").to_owned(), call.get("value").to_owned());
    let property: OfStream = call
        .get("property")
        .parse()
        .map_err(|_| CommandError::Usage("there is no such property of a stream".into()))?;
    s.settings.load().as_ref().clone().set_stream(&number, property, &value).map_err(usage)?;
    let action = format!("set {property} of stream {number} to {value}");
    // Where speech goes is as much as who may listen.
    let two = property == OfStream::Peer;
    let command = SettingsCommand::Stream(number, property, value);
    s.two.submit(call.clone(), command, &action, two, APPROVE).await
}

async fn carry_out(
    s: &Services,
    call: &Call,
    change: SettingsCommand,
    action: &str,
) -> Result<Output, CommandError> {
    let origin = call.caller.origin();
    let details = json!({ "from": origin.from });
    let changed = match &change {
        SettingsCommand::Set(property, _) | SettingsCommand::Seal(property, _) => {
            Changed::Property(*property)
        }
        SettingsCommand::Stream(number, ..) => Changed::Stream(number.clone()),
        SettingsCommand::HostKey(..) | SettingsCommand::ForgetKeys => Changed::Keys,
    };
    let kept = ledger::change_at::<SettingsBook>(&s.node, book::NAME, change, origin).await;
    kept.map_err(CommandError::failed)?;
    s.audit.write(Entry::new("", &call.caller.name, action, details));
    follow(s, &changed).await.map_err(CommandError::failed)?;
    Ok(Output::ok())
}

fn streams(s: &Services) -> Output {
    let settings = s.settings.load();
    let at = |a: Option<std::net::SocketAddr>| a.map_or("-".to_owned(), |a| a.to_string());
    let mut table = Table::new(["Stream", "Enabled", "Mode", "Local", "Peer"]);
    for (number, Stream { enabled, mode, local, peer }) in settings.streams.iter().enumerate() {
        table.row([number.to_string(), enabled.to_string(), mode.to_string(), at(*local), at(*peer)]);
    }
    Output::table(table)
}

/// State and counters of a stream.
fn look(s: &Services, number: usize) -> (State, Counters) {
    let stream = s.settings.load().streams.get(number).copied().unwrap_or_default();
    match s.board.port(number) {
        Some(port) => port.look(),
        None if stream.enabled => (State::Absent, Counters::default()),
        None => (State::Off, Counters::default()),
    }
}

/// As the manual's page has it: a column for each stream, a row for each counter.
fn monitor(s: &Services) -> Output {
    let all: Vec<(State, Counters)> = (0..STREAMS).map(|n| look(s, n)).collect();
    let mut table = Table::new(["Stream".to_owned()].into_iter().chain((0..STREAMS).map(|n| n.to_string())));
    let mut row = |name: &str, value: &dyn Fn(usize, &(State, Counters)) -> String| {
        let cells = all.iter().enumerate().map(|(n, one)| value(n, one));
        table.row([name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>());
    };
    row("state", &|_, (state, _)| state.to_string());
    let states = s.board.links.lock().clone();
    for channel in Channel::BOTH {
        row(&format!("data channel {}", channel.index() + 1), &|n, (state, _)| {
            let up = states.iter().any(|l| l.channel == channel && usize::from(l.stream) == n);
            match state {
                State::Off | State::Absent => "no".to_owned(),
                _ if up => "up".to_owned(),
                _ => "down".to_owned(),
            }
        });
    }
    type Of = fn(&Counters) -> u64;
    let counters: [(&str, Of); 13] = [
        ("seconds counted", |c| c.seconds),
        ("positive slips", |c| c.positive_slips),
        ("negative slips", |c| c.negative_slips),
        ("bytes received", |c| c.bytes_received),
        ("bytes sent", |c| c.bytes_sent),
        ("short packets", |c| c.short_packets),
        ("big packets", |c| c.big_packets),
        ("overflows", |c| c.overflows),
        ("CRC errors", |c| c.crc_errors),
        ("transmit failures", |c| c.transmit_failures),
        ("code violations", |c| c.code_violations),
        ("CRC-4 errors", |c| c.crc4_errors),
        ("bit errors", |c| c.bit_errors),
    ];
    for (name, of) in counters {
        row(name, &|_, (_, counters)| of(counters).to_string());
    }
    Output::table(table)
}

fn state(s: &Services) -> Output {
    let (kept, board) = (s.kept.load(), &s.board);
    let waiting = |c| {
        let range: std::ops::Range<u64> = kept.range(c);
        (range.end - range.start).to_string()
    };
    let mut table = Table::new(["What", "State"]);
    for (name, state) in board.states() {
        table.row([name, state]);
    }
    let blocked = board.blocked.load(Relaxed);
    table.row(["data channels", if blocked { "faulty: no command came in time" } else { "in use" }]);
    table.row(["waiting for data channel 1".to_owned(), waiting(Channel::First)]);
    table.row(["waiting for data channel 2".to_owned(), waiting(Channel::Second)]);
    table.row(["waiting for the handover".to_owned(), waiting(Channel::Handover)]);
    for (name, counter) in [
        ("notifications received", &board.received),
        ("received again", &board.again),
        ("missing", &board.missing),
        ("deleted unsent", &board.discarded),
        ("strange packets at the accounting port", &board.strange),
        ("stray packets of speech", &board.stray),
    ] {
        table.row([name.to_owned(), counter.load(Relaxed).to_string()]);
    }
    Output::table(table)
}

fn network(s: &Services) -> Result<Output, CommandError> {
    let bound = s.board.bound();
    let mut table = Table::new(["Interface", "Address", "Doors"]);
    let interfaces = if_addrs::get_if_addrs().map_err(CommandError::failed)?;
    for interface in interfaces {
        let here = |at: &std::net::SocketAddr| at.ip() == interface.ip() || at.ip().is_unspecified();
        let doors = bound.iter().filter(|(_, at)| here(at)).map(|(name, at)| format!("{name} {}", at.port()));
        let doors = doors.collect::<Vec<_>>().join(", ");
        table.row([interface.name.clone(), interface.ip().to_string(), doors]);
    }
    Ok(Output::table(table))
}
