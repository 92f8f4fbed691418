//! `domain/<D>/trunk/sip/…`.

use command::{Command, Kind, Output, Table};

use super::{change_domain_ok, names, state, with};
use crate::{
    Services,
    decide::DomainCommand,
    state::{Trunk, TrunkKind},
};

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let port = Kind::Number(1, 65535);
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
                };
                change_domain_ok(&s, &call, DomainCommand::DeclareTrunk(trunk)).await
            }),
        )
        .arg("routing_context", Kind::Text, "context calls from it begin in", "контекст входящих вызовов")
        .names(names(s, |d| d.contexts.keys().cloned().collect()))
        .arg("group", Kind::Text, "trunk group", "группа")
        .arg("name", Kind::Text, "its name", "имя транка")
        .arg("ip_set", Kind::Text, "IP set it works on", "IP-набор")
        .arg(
            "registration",
            Kind::OneOf(&["static"]),
            "static: the neighbour's address is known",
            "static: адрес известен",
        )
        .arg("ip", Kind::Text, "the neighbour's address", "адрес встречной стороны")
        .arg("port", port.clone(), "its port", "её порт")
        .arg("mode", Kind::OneOf(&["sip-proxy"]), "sip-proxy", "sip-proxy")
        .arg("listen_port", port, "our port", "наш порт"),
        Command::look(
            "domain/{domain}/trunk/sip/list",
            "lists the SIP trunks",
            "список SIP-транков",
            with!(s, |s, call| {
                let mut table =
                    Table::new(["Name", "Group", "Context", "IP set", "Neighbour", "Listen port"]);
                for t in state(&s, &call)?.trunks.values() {
                    let TrunkKind::Static { host, port } = &t.kind;
                    let (neighbour, listen) = (format!("{host}:{port}"), t.listen_port.to_string());
                    table.row([&t.name, &t.group, &t.context, &t.ip_set, &neighbour, &listen]);
                }
                Ok(Output::table(table))
            }),
        ),
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
