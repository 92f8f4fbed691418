//! `domain/<D>/trunk/sip/…`.

use command::{Call, Command, CommandError, Kind, Output, Table};
use kit::Secret;

use super::{change_domain, change_domain_ok, names, sip::missing_context, state, with};
use crate::{
    Services,
    decide::DomainCommand,
    state::{Trunk, TrunkKind, Value},
};

/// Properties of a trunk. `login` and `password` are ours towards the neighbour; `peer_login` and `peer_password` are what a
/// neighbour that calls from anywhere has to know.
const PROPERTIES: &[&str] = &[
    "cdr_group",
    "login",
    "password",
    "register",
    "peer_login",
    "peer_password",
    "priority",
    "weight",
    "description",
    "transport",
    "allow",
    "nat_traversal",
];

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let (port, or_servers) = (Kind::Number(1, 65535), Kind::Number(0, 65535));
    vec![
        Command::change(
            "domain/{domain}/trunk/sip/declare",
            "declares a SIP trunk",
            "объявить SIP-транк",
            with!(s, |s, call| {
                let own = |n: &str| call.get(n).to_owned();
                let number = |n: &str| call.number(n).and_then(|p| u16::try_from(p).ok()).unwrap_or_default();
                let trunk = Trunk {
                    name: own("name"),
                    context: own("routing_context"),
                    group: own("group"),
                    ip_set: own("ip_set"),
                    kind: TrunkKind::Static { host: own("ip"), port: number("port") },
                    listen_port: number("listen_port"),
                    properties: imbl::OrdMap::new(),
                };
                let TrunkKind::Static { host, .. } = &trunk.kind;
                host_name(host)?;
                foreign_neighbour(&s, &call, &trunk)?;
                let note = missing_context(&s, &call, &trunk.context);
                change_domain(&s, &call, DomainCommand::DeclareTrunk(trunk)).await?;
                let believed = "note: calls from this neighbour are believed by their address alone; peer_login and peer_password \
                                (trunk/sip/set) make it prove itself, transport tls seals the way";
                Ok(note.into_iter().fold(Output::ok().and_text(believed), Output::and_text))
            }),
        )
        .arg("routing_context", Kind::Text, "context calls from it begin in", "контекст входящих вызовов")
        .names(names(s, |d| d.contexts.keys().cloned().collect()))
        .arg("group", Kind::Text, "trunk group", "группа")
        .arg("name", Kind::Text, "its name", "имя транка")
        .arg("ip_set", Kind::Text, "kept as it is given", "хранится как задано")
        .arg(
            "registration",
            Kind::OneOf(&["static"]),
            "static: the neighbour's address is known",
            "static: адрес известен",
        )
        .arg("ip", Kind::Text, "the neighbour's address", "адрес встречной стороны")
        .arg("port", or_servers, "its port; 0: as DNS names its servers (SRV)", "её порт; 0: по записям SRV")
        .arg("mode", Kind::OneOf(&["sip-proxy"]), "sip-proxy", "sip-proxy")
        .arg(
            "listen_port",
            port,
            "kept as it is given: this node listens where [sip] says",
            "хранится, узел слушает по настройкам [sip]",
        ),
        Command::look(
            "domain/{domain}/trunk/sip/list",
            "lists the SIP trunks",
            "список SIP-транков",
            with!(s, |s, call| {
                let mut table =
                    Table::new(["Name", "Group", "Context", "IP set", "Neighbour", "Listen port"]).numbers(&["Listen port"]);
                for t in state(&s, &call)?.trunks.values() {
                    let TrunkKind::Static { host, port } = &t.kind;
                    let (neighbour, listen) = (format!("{host}:{port}"), t.listen_port.to_string());
                    table.row([&t.name, &t.group, &t.context, &t.ip_set, &neighbour, &listen]);
                }
                Ok(Output::table(table))
            }),
        ),
        Command::change(
            "domain/{domain}/trunk/sip/set",
            "sets a property of a SIP trunk",
            "задать свойство SIP-транка",
            with!(s, |s, call| set(&s, &call).await),
        )
        .arg("name", Kind::Text, "its name", "имя транка")
        .names(names(s, |d| d.trunks.keys().cloned().collect()))
        .arg(
            "property",
            Kind::OneOf(PROPERTIES),
            "register: true where we register with the neighbour; login, password: ours there; peer_login, \
             peer_password: the neighbour's here, from any address; allow: addresses and networks it calls from beside its own; transport: udp, \
             tcp or tls; priority, weight: its turn in its group (lowest \
             priority first, equal ones by weight); cdr_group",
            "register: true, если мы регистрируемся у встречной стороны; login, password: наши у неё; peer_login, \
             peer_password: её у нас, с любого адреса; allow: адреса и сети, с которых она звонит помимо своего; transport: udp, tcp или \
             tls; priority, weight: очередь в группе (меньший priority раньше, \
             равные по весу); cdr_group",
        )
        .arg("value", Kind::Secret, "its value", "значение"),
        Command::look(
            "domain/{domain}/trunk/sip/info",
            "shows a SIP trunk with its properties",
            "SIP-транк и его свойства",
            with!(s, |s, call| info(&s, &call)),
        )
        .arg("name", Kind::Text, "its name", "имя транка")
        .names(names(s, |d| d.trunks.keys().cloned().collect())),
        Command::change(
            "domain/{domain}/trunk/sip/remove",
            "removes a SIP trunk",
            "удалить SIP-транк",
            with!(s, |s, call| {
                change_domain_ok(&s, &call, DomainCommand::RemoveTrunk(call.get("name").to_owned())).await
            }),
        )
        .arg("name", Kind::Text, "its name", "имя транка")
        .names(names(s, |d| d.trunks.keys().cloned().collect()))
        .confirm(|c| format!("You are going to remove trunk {}.", c.get("name"))),
    ]
}

/// An address, or a name as DNS has them (RFC 1123, 2.1): not digits and dots alone, no port, no `sip:`.
fn host_name(host: &str) -> Result<(), CommandError> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let numbers = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let is_name = name.len() <= 253 && !numbers && name.split('.').all(label);
    match host.parse::<std::net::IpAddr>().is_ok() || is_name {
        true => Ok(()),
        false => Err(CommandError::Usage(format!(
            "{host:?} is neither an IP address nor a host name, such as 192.0.2.10 or sip.example.com"
        ))),
    }
}

/// A neighbour that a trunk of another domain has already: calls from it are told apart by the domain in their Request-URI
/// alone, so only the system's administrator may declare it again.
fn foreign_neighbour(s: &Services, call: &Call, trunk: &Trunk) -> Result<(), CommandError> {
    let TrunkKind::Static { host, .. } = &trunk.kind;
    let own = call.var("domain");
    let picture = s.estate.picture();
    let taken = picture.domains.iter().filter(|(name, _)| name.as_str() != own).any(|(_, state)| {
        state.trunks.values().any(|t| {
            let TrunkKind::Static { host: known, .. } = &t.kind;
            same_host(known, host)
        })
    });
    match taken && !call.caller.grants.system {
        true => Err(CommandError::Failed(format!(
            "{host} is the neighbour of another domain's trunk; only the system's administrator may declare it again"
        ))),
        false => Ok(()),
    }
}

/// Whether two texts name one host, as far as that can be said without asking a name server.
fn same_host(a: &str, b: &str) -> bool {
    let address = |text: &str| match text.trim_matches(['[', ']']) {
        name if name.eq_ignore_ascii_case("localhost") => Some(std::net::Ipv4Addr::LOCALHOST.into()),
        text => text.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_canonical()),
    };
    let name = |text: &str| text.trim_end_matches('.').to_lowercase();
    match (address(a), address(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => name(a) == name(b),
        _ => false,
    }
}

async fn set(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let own = |n: &str| call.get(n).to_owned();
    let (name, property, value) = (own("name"), own("property"), own("value"));
    if matches!(property.as_str(), "register" | "nat_traversal")
        && !matches!(value.as_str(), "true" | "false")
    {
        return Err(CommandError::Usage(format!("{property} is true or false, not {value:?}")));
    }
    if matches!(property.as_str(), "priority" | "weight") && !value.parse::<u16>().is_ok_and(|n| n <= 1000) {
        return Err(CommandError::Usage(format!("{property} is a number from 0 to 1000, not {value:?}")));
    }
    if property == "transport" && !matches!(value.as_str(), "udp" | "tcp" | "tls") {
        return Err(CommandError::Usage(format!("transport is udp, tcp or tls, not {value:?}")));
    }
    if property == "allow" {
        if let Some(wrong) =
            value.split(',').map(str::trim).find(|n| !n.is_empty() && kit::net::network(n).is_none())
        {
            return Err(CommandError::Usage(format!(
                "allow is a list of addresses and networks, 192.0.2.7,198.51.100.0/24, not {wrong:?}"
            )));
        }
        if !call.caller.grants.system {
            return Err(CommandError::Denied("networks are allowed by the system's administrator".into()));
        }
    }
    let value = if property.ends_with("password") {
        let purpose = Trunk::purpose(call.var("domain"), &name);
        Value::Sealed { sealed: s.vault.seal(&purpose, &Secret::new(value)).map_err(CommandError::failed)? }
    } else {
        Value::Plain(value)
    };
    change_domain_ok(s, call, DomainCommand::SetTrunk { name, property, value }).await
}

fn info(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (state, name) = (state(s, call)?, call.get("name"));
    let none = || CommandError::Failed(format!("there is no trunk {name:?}; trunk/sip/list shows all"));
    let trunk = state.trunks.get(name).ok_or_else(none)?;
    let TrunkKind::Static { host, port } = &trunk.kind;
    let mut table = Table::new(["Property", "Value"]);
    table.row(["context", &trunk.context]);
    table.row(["group", &trunk.group]);
    table.row(["neighbour", &format!("{host}:{port}")]);
    for (name, value) in &trunk.properties {
        table.row([name.as_str(), value.shown()]);
    }
    Ok(Output::table(table))
}
