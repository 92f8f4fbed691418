//! `bridge/…`.

use std::sync::Arc;

use command::{Call, Command, CommandError, Kind, Names, Output, Table};
use serde_json::json;

use super::{domains, with};
use crate::{
    Services,
    actor::{BridgesBook, change},
    bridge::{Bridge, BridgeCommand, PROPERTIES, Side, capacity},
};

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let bridges = || {
        let estate = s.estate.clone();
        Arc::new(move |call: &Call| {
            let seen = |domain: &str| call.caller.grants.sees_domain(domain);
            let picture = estate.picture();
            let all = picture.bridges.all.values().filter(|b| seen(&b.a.domain) || seen(&b.b.domain));
            all.map(|b| b.name.clone()).collect()
        }) as Names
    };
    let one = |c: Command| c.arg("name", Kind::Text, "bridge", "бридж").names(bridges());
    vec![
        Command::change(
            "bridge/declare",
            "declares a bridge between two domains",
            "объявить бридж между двумя доменами",
            with!(s, |s, call| declare(&s, &call).await),
        )
        .arg("name", Kind::Text, "unique name", "уникальное имя")
        .arg("duplex", Kind::Bool, "true: calls in both directions", "true — двунаправленный")
        .arg(
            "strict",
            Kind::Bool,
            "true: numbers are checked against np_b",
            "true — проверка номеров по np_b",
        )
        .arg(
            "capacity",
            Kind::Text,
            "calls at the same time, or unbounded",
            "количество вызовов или unbounded",
        )
        .arg("domain_a", Kind::Text, "first domain", "первый домен")
        .names(domains(s))
        .arg("np_a", Kind::Text, "its number plan", "его план нумерации")
        .arg("iface_a", Kind::Text, "name in its contexts, bridge:…", "имя в его контекстах, bridge:…")
        .arg("tg_a", Kind::Text, "its trunk group", "его транк-группа")
        .arg("routing_ctx_a", Kind::Text, "context of calls coming out there", "его контекст по умолчанию")
        .arg("domain_b", Kind::Text, "second domain", "второй домен")
        .names(domains(s))
        .arg("np_b", Kind::Text, "its number plan", "его план нумерации")
        .arg("iface_b", Kind::Text, "name in its contexts, bridge:…", "имя в его контекстах, bridge:…")
        .arg("tg_b", Kind::Text, "its trunk group", "его транк-группа")
        .arg("routing_ctx_b", Kind::Text, "context of calls coming out there", "его контекст по умолчанию")
        .system_only(),
        one(Command::change(
            "bridge/change",
            "changes a property of a bridge",
            "изменить свойство бриджа",
            with!(s, |s, call| {
                let own = |n: &str| call.get(n).to_owned();
                let (name, property, value) = (own("name"), own("property"), own("value"));
                if property.starts_with("domain_") {
                    known_domain(&s, &value)?;
                }
                let kept = property.starts_with("access_group");
                act(&s, &call, BridgeCommand::Change { name: name.clone(), property, value }).await?;
                let said = Output::text(format!("Bridge with name \"{name}\" changed successfully."));
                Ok(match kept {
                    true => {
                        said.and_text("note: access groups are kept; calls over bridges do not look at them")
                    }
                    false => said,
                })
            }),
        ))
        .arg("property", Kind::Text, "its property", "свойство")
        .names(Arc::new(|_| PROPERTIES.iter().map(|p| (*p).to_owned()).collect()))
        .arg("value", Kind::Text, "its new value", "новое значение")
        .system_only(),
        Command::look(
            "bridge/list",
            "lists the bridges that end in domains that one sees",
            "бриджи видимых доменов",
            with!(s, |s, call| Ok(list(&s, &call))),
        )
        .for_everyone(),
        one(Command::look(
            "bridge/info",
            "shows one bridge",
            "свойства бриджа",
            with!(s, |s, call| info(&s, call.get("name"))),
        )),
        one(Command::change(
            "bridge/remove",
            "removes a bridge",
            "удалить бридж",
            with!(s, |s, call| {
                act(&s, &call, BridgeCommand::Remove(call.get("name").to_owned())).await?;
                Ok(Output::ok())
            }),
        ))
        .system_only()
        .confirm(|c| format!("You are going to remove bridge {}.", c.get("name"))),
        Command::change(
            "bridge/cleanup",
            "removes all bridges",
            "удалить все бриджи",
            with!(s, |s, call| {
                act(&s, &call, BridgeCommand::CleanUp).await?;
                Ok(Output::ok())
            }),
        )
        .system_only()
        .confirm(|_| "You are going to cleanup all bridges in the system.".into()),
        one(Command::change(
            "bridge/block",
            "takes places of a bridge out of service; calls on it go on",
            "вывести места бриджа из обслуживания; текущие вызовы продолжаются",
            with!(s, |s, call| {
                let places = call.number("places").and_then(|p| u32::try_from(p).ok());
                act(&s, &call, BridgeCommand::Block { name: call.get("name").to_owned(), places }).await?;
                Ok(Output::ok())
            }),
        ))
        .arg(
            "places",
            Kind::Number(0, u32::MAX as u64),
            "how many; all when left out",
            "сколько; по умолчанию все",
        )
        .optional()
        .system_only(),
        one(Command::change(
            "bridge/unblock",
            "puts all places back into service",
            "вернуть места бриджа в обслуживание",
            with!(s, |s, call| {
                act(&s, &call, BridgeCommand::Unblock(call.get("name").to_owned())).await?;
                Ok(Output::ok())
            }),
        ))
        .system_only(),
    ]
}

async fn act(s: &Services, call: &Call, command: BridgeCommand) -> Result<(), CommandError> {
    change::<BridgesBook>(&s.node, "bridges", command, call.caller.origin())
        .await
        .map_err(CommandError::failed)
}

fn known_domain(s: &Services, name: &str) -> Result<(), CommandError> {
    match s.estate.picture().domains.contains_key(name) {
        true => Ok(()),
        false => Err(CommandError::Failed(format!("there is no domain {name}; domain/list shows all"))),
    }
}

async fn declare(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let own = |n: &str| call.get(n).to_owned();
    let side = |end: &str| Side {
        domain: own(&format!("domain_{end}")),
        np: own(&format!("np_{end}")),
        iface: own(&format!("iface_{end}")),
        trunk_group: own(&format!("tg_{end}")),
        context: own(&format!("routing_ctx_{end}")),
        access_group: String::new(),
    };
    let bridge = Bridge {
        name: own("name"),
        duplex: call.get("duplex") == "true",
        strict: call.get("strict") == "true",
        capacity: capacity(call.get("capacity")).map_err(|e| CommandError::Usage(e.to_string()))?,
        blocked: 0,
        a: side("a"),
        b: side("b"),
    };
    known_domain(s, &bridge.a.domain)?;
    known_domain(s, &bridge.b.domain)?;
    act(s, call, BridgeCommand::Declare(Box::new(bridge))).await?;
    Ok(Output::ok())
}

fn places(capacity: Option<u32>) -> String {
    capacity.map_or_else(|| "unbounded".to_owned(), |c| c.to_string())
}

fn list(s: &Services, call: &Call) -> Output {
    let picture = s.estate.picture();
    let seen = |domain: &str| call.caller.grants.sees_domain(domain);
    let mut table =
        Table::new(["Name", "Duplex", "Strict", "Capacity", "Blocked", "Calls", "Side A", "Side B"])
            .numbers(&["Capacity", "Calls"])
            .flags(&["Duplex", "Strict", "Blocked"]);
    let mut data = Vec::new();
    for b in picture.bridges.all.values().filter(|b| seen(&b.a.domain) || seen(&b.b.domain)) {
        // Of a domain that one does not see there is the name alone.
        let side = |s: &Side| match seen(&s.domain) {
            true => format!("{} ({}, {}, {})", s.domain, s.np, s.iface, s.context),
            false => s.domain.clone(),
        };
        let hidden = |s: &Side| if seen(&s.domain) { s.clone() } else { Side::named(&s.domain) };
        let shown = Bridge { a: hidden(&b.a), b: hidden(&b.b), ..b.clone() };
        data.push(json!({ "bridge": shown, "calls": picture.calls_on(&b.name) }));
        table.row([
            b.name.clone(),
            b.duplex.to_string(),
            b.strict.to_string(),
            places(b.capacity),
            b.blocked.to_string(),
            picture.calls_on(&b.name).to_string(),
            side(&b.a),
            side(&b.b),
        ]);
    }
    Output::table(table).with_data(json!(data))
}

fn info(s: &Services, name: &str) -> Result<Output, CommandError> {
    let picture = s.estate.picture();
    let bridge = picture.bridges.all.get(name);
    let b = bridge
        .ok_or_else(|| CommandError::Failed(format!("there is no bridge {name}; bridge/list shows all")))?;
    let mut table = Table::new(["Property", "Value"]);
    let mut rows = vec![
        ("blocked".to_owned(), b.blocked.to_string()),
        ("calls".to_owned(), picture.calls_on(name).to_string()),
        ("capacity".to_owned(), places(b.capacity)),
        ("duplex".to_owned(), b.duplex.to_string()),
        ("name".to_owned(), b.name.clone()),
        ("strict".to_owned(), b.strict.to_string()),
    ];
    for (end, side) in [("a", &b.a), ("b", &b.b)] {
        rows.push((format!("domain_{end}"), side.domain.clone()));
        rows.push((format!("np_{end}"), side.np.clone()));
        rows.push((format!("iface_{end}"), side.iface.clone()));
        rows.push((format!("trunk_group_{end}"), side.trunk_group.clone()));
        rows.push((format!("routing_contex_{end}"), side.context.clone()));
        rows.push((format!("access_group_{end}"), side.access_group.clone()));
    }
    rows.sort();
    rows.into_iter().for_each(|(n, v)| table.row([n, v]));
    Ok(Output::table(table))
}
