//! `domain/…` and a domain's properties.

use std::sync::Arc;

use command::{Call, Command, CommandError, Kind, Output, Table};
use serde_json::json;

use super::{change_domain, change_domain_ok, domains, state, with};
use crate::{
    Services,
    actor::{DomainsBook, DomainsCommand, change},
    decide::{DomainCommand, SUBSCRIBERS},
    licence::Terms,
    tree,
};

/// Properties of a domain and the values they may have; none is any text.
const PROPERTIES: &[(&str, Option<&[&str]>)] = &[
    ("vats_type", Some(&["public", "private"])),
    ("node_control", Some(&["true", "false"])),
    ("description", None),
    ("timezone", None),
    ("language", Some(&["ru", "en"])),
];

/// What of the licence's terms bounds a restriction.
type Limit = fn(&Terms) -> u64;

/// Restrictions of a domain, each with the licence's limit that bounds it.
const RESTRICTIONS: &[(&str, Limit)] =
    &[(SUBSCRIBERS, |t| t.subscribers), ("elph\\member\\limit", |t| t.elph_members)];

pub(super) fn commands(s: &Services) -> Vec<Command> {
    vec![
        Command::change(
            "domain/declare",
            "declares a virtual PBX",
            "объявить виртуальную АТС",
            with!(s, |s, call| declare(&s, &call).await),
        )
        .arg("name", Kind::Text, "name of the domain", "имя домена")
        .system_only(),
        Command::look(
            "domain/list",
            "lists the domains",
            "список доменов",
            with!(s, |s, call| Ok(list(&s, &call))),
        )
        .for_everyone(),
        Command::change(
            "domain/remove",
            "removes a domain with all its settings",
            "удалить домен со всеми настройками",
            with!(s, |s, call| remove(&s, &call).await),
        )
        .arg("name", Kind::Text, "name of the domain", "имя домена")
        .names(domains(s))
        .system_only()
        .confirm(|c| {
            format!("You are going to remove domain {} with all its subscribers and settings.", c.get("name"))
        }),
        Command::change(
            "domain/copy",
            "copies all settings except aliases and interfaces into a new domain",
            "скопировать настройки в новый домен, кроме алиасов и интерфейсов",
            with!(s, |s, call| copy(&s, &call).await),
        )
        .arg("source", Kind::Text, "domain to copy", "исходный домен")
        .names(domains(s))
        .arg("target", Kind::Text, "new domain", "новый домен")
        .option(
            "--digitmap",
            Kind::Text,
            "digitmap of the copied contexts",
            "digitmap скопированных контекстов",
        )
        .option(
            "--to-main-bridge",
            Kind::Text,
            "bridge in the source's contexts, and the one to use instead",
            "бридж исходных контекстов и бридж ему на замену",
        )
        .option_many()
        .system_only(),
        Command::look(
            "domain/{domain}/properties/info",
            "shows the domain's properties",
            "свойства домена",
            with!(s, |s, call| properties(&s, &call)),
        ),
        Command::change(
            "domain/{domain}/properties/set",
            "sets a property",
            "задать свойство",
            with!(s, |s, call| set_property(&s, &call).await),
        )
        .arg("property", Kind::Text, "its name", "имя свойства")
        .names(Arc::new(|_| PROPERTIES.iter().map(|(n, _)| (*n).to_owned()).collect()))
        .arg("value", Kind::Text, "its value", "значение"),
        Command::look(
            "domain/{domain}/properties/restrictions/info",
            "shows the domain's restrictions",
            "ограничения домена",
            with!(s, |s, call| restrictions(&s, &call)),
        ),
        Command::change(
            "domain/{domain}/properties/restrictions/set",
            "sets a restriction within the licence",
            "задать ограничение в пределах лицензии",
            with!(s, |s, call| restrict(&s, &call).await),
        )
        .arg("restriction", Kind::Text, "its name", "имя ограничения")
        .names(Arc::new(|_| RESTRICTIONS.iter().map(|(n, _)| (*n).to_owned()).collect()))
        .arg("value", Kind::Number(0, u32::MAX as u64), "its value", "значение")
        .system_only(),
    ]
}

async fn declare(s: &Services, call: &Call) -> Result<Output, CommandError> {
    declare_named(s, call, call.get("name")).await?;
    Ok(Output::ok())
}

async fn declare_named(s: &Services, call: &Call, name: &str) -> Result<(), CommandError> {
    let limit = s.estate.picture().terms(s.node.clock().now()).domains;
    let command = DomainsCommand::Declare { name: name.to_owned(), limit };
    let declared = change::<DomainsBook>(&s.node, "domains", command, call.caller.origin()).await;
    for (name, generation) in declared.map_err(CommandError::failed)? {
        tree::start_domain(s, &name, generation).await.map_err(CommandError::failed)?;
    }
    Ok(())
}

fn list(s: &Services, call: &Call) -> Output {
    let counted = ["Subscribers", "Aliases", "Contexts", "Number plans", "Trunks"];
    let mut table = Table::new(std::iter::once("Domain").chain(counted)).numbers(&counted);
    let picture = s.estate.picture();
    for (name, d) in picture.domains.iter().filter(|(n, _)| call.caller.grants.sees_domain(n)) {
        let counts = [d.users.len(), d.aliases.len(), d.contexts.len(), d.plans.len(), d.trunks.len()];
        table.row(std::iter::once(name.clone()).chain(counts.map(|c| c.to_string())));
    }
    let mut below = format!("elements: {}", table.rows.len());
    for (name, why) in picture.broken.iter().filter(|(n, _)| call.caller.grants.sees_domain(n)) {
        below.push_str(&format!("\ndomain {name} did not start: {why}"));
    }
    Output::table(table).and_text(below)
}

async fn remove(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let name = call.get("name");
    let held: Vec<String> = s.estate.picture().bridges.of_domain(name).map(|b| b.name.clone()).collect();
    if !held.is_empty() {
        let held = held.join(", ");
        return Err(CommandError::Failed(format!(
            "bridges end in domain {name}: {held}; bridge/remove them first"
        )));
    }
    let command = DomainsCommand::Remove(name.to_owned());
    change::<DomainsBook>(&s.node, "domains", command, call.caller.origin())
        .await
        .map_err(CommandError::failed)?;
    tree::stop_domain(s, name).await.map_err(CommandError::failed)?;
    Ok(Output::ok())
}

async fn copy(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (source, target) = (call.get("source"), call.get("target"));
    let from = s.estate.picture().domains.get(source).cloned();
    let from = from
        .ok_or_else(|| CommandError::Failed(format!("there is no domain {source}; domain/list shows all")))?;
    let digitmap = call.opt("--digitmap").map(str::parse).transpose();
    let digitmap =
        digitmap.map_err(|e: crate::routing::digitmap::DigitmapError| CommandError::Usage(e.to_string()))?;
    let bridge = match call.all("--to-main-bridge") {
        [] => None,
        [from, to] => Some((from.clone(), to.clone())),
        _ => {
            return Err(CommandError::Usage(
                "--to-main-bridge wants two bridges: the source's and the target's".into(),
            ));
        }
    };
    declare_named(s, call, target).await?;
    let command = DomainCommand::Copy { from, digitmap, bridge };
    let copied =
        change::<crate::DomainBook>(&s.node, &format!("domain/{target}"), command, call.caller.origin())
            .await;
    copied.map_err(CommandError::failed)?;
    Ok(Output::ok())
}

fn properties(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let d = state(s, call)?;
    let mut table = Table::new(["Property", "Domain", "Value"]);
    for (name, value) in &d.properties {
        table.row([name.as_str(), call.var("domain"), value.as_str()]);
    }
    Ok(Output::table(table))
}

async fn set_property(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (name, value) = (call.get("property").to_owned(), call.get("value").to_owned());
    match PROPERTIES.iter().find(|(n, _)| *n == name) {
        None => {
            let known: Vec<&str> = PROPERTIES.iter().map(|(n, _)| *n).collect();
            Err(CommandError::Failed(format!(
                "a domain has no property {name:?}; it has {}",
                known.join(", ")
            )))
        }
        Some((_, Some(values))) if !values.contains(&value.as_str()) => {
            Err(CommandError::Failed(format!("{name} is one of {}, not {value:?}", values.join(", "))))
        }
        Some(_) => change_domain_ok(s, call, DomainCommand::SetProperty { name, value }).await,
    }
}

fn restrictions(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let d = state(s, call)?;
    let terms = s.estate.picture().terms(s.node.clock().now());
    let mut table = Table::new(["Restriction", "Domain", "Value", "Licence"]);
    let mut data = Vec::new();
    for (name, limit) in RESTRICTIONS {
        let limit = limit(&terms);
        let value = d.restrictions.get(*name).copied().unwrap_or(limit);
        table.row([(*name).to_owned(), call.var("domain").to_owned(), value.to_string(), limit.to_string()]);
        data.push(json!({ "restriction": name, "value": value, "licence": limit }));
    }
    Ok(Output::table(table).with_data(json!(data)))
}

async fn restrict(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let name = call.get("restriction").to_owned();
    let Some((_, limit)) = RESTRICTIONS.iter().find(|(n, _)| *n == name) else {
        let known: Vec<&str> = RESTRICTIONS.iter().map(|(n, _)| *n).collect();
        return Err(CommandError::Failed(format!(
            "there is no restriction {name:?}; there are {}",
            known.join(", ")
        )));
    };
    let value = call.number("value").unwrap_or_default();
    let licence_limit = limit(&s.estate.picture().terms(s.node.clock().now()));
    let before = state(s, call)?.restrictions.get(&name).copied().unwrap_or(licence_limit);
    change_domain(s, call, DomainCommand::SetRestriction { name: name.clone(), value, licence_limit })
        .await?;
    Ok(Output::text(format!("Restriction {name} changed from {before} to {value}.")))
}
