//! `cluster/storage/ds1/licence/…` and `system/licence/…`.

use command::{Call, Command, CommandError, Kind, Output, Table, range};
use serde_json::json;

use super::{state, with};
use crate::{
    Services,
    actor::{LicenceBook, change},
    licence::{LicenceCommand, Terms},
};

pub(super) fn commands(s: &Services) -> Vec<Command> {
    vec![
        Command::change(
            "cluster/storage/ds1/licence/add",
            "installs a licence file, given on standard input",
            "установить файл лицензии со стандартного ввода",
            with!(s, |s, call| add(&s, &call).await),
        )
        .arg("source", Kind::OneOf(&["-"]), "-: standard input", "-: стандартный ввод")
        .system_only(),
        Command::look(
            "cluster/storage/ds1/licence/show-licence",
            "shows the licence in force",
            "показать действующую лицензию",
            with!(s, |s, call| Ok(show(&s, &call))),
        )
        .option("--details", Kind::Number(0, 1), "1: with all limits", "1: со всеми ограничениями"),
        Command::look(
            "cluster/storage/ds1/licence/current-limits",
            "shows the limits in force and what is used",
            "действующие ограничения и их использование",
            with!(s, |s, _call| Ok(limits(&s))),
        ),
        Command::look(
            "system/licence/elph/usage",
            "shows how many Elph clients are registered, and how many may be",
            "использование лицензий Elph",
            with!(s, |s, call| Ok(elph_usage(&s, &call))),
        )
        .flag("--domains", "also by domain", "также по доменам")
        .system_only(),
        Command::look(
            "domain/{domain}/sip/user/elph-registered",
            "shows the registered Elph clients",
            "зарегистрированные клиенты Elph",
            with!(s, |s, call| elph_registered(&s, &call)),
        )
        .arg("users", Kind::Text, "* for all, an interface or a range", "* для всех, интерфейс или диапазон")
        .optional(),
    ]
}

async fn add(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let file = call.input.as_ref().and_then(|i| std::str::from_utf8(i).ok()).unwrap_or_default();
    let command = LicenceCommand::Add { file: file.to_owned(), now: s.node.clock().now() };
    change::<LicenceBook>(&s.node, "licence", command, call.caller.origin())
        .await
        .map_err(CommandError::failed)?;
    Ok(Output::ok())
}

fn rows(t: &Terms) -> Vec<(&'static str, String)> {
    vec![
        ("Count of domains", t.domains.to_string()),
        ("Count of subscribers", t.subscribers.to_string()),
        ("Sorm enabled", t.sorm.to_string()),
        ("Automatic Speech Recognition (ASR) subsystem enabled", t.asr.to_string()),
        ("Elph: total count of Elph group", t.elph_groups.to_string()),
        ("Elph: total count of members of the one Elph group", t.elph_members.to_string()),
    ]
}

fn show(s: &Services, call: &Call) -> Output {
    let (picture, now) = (s.estate.picture(), s.node.clock().now());
    let (licence, standing) = (picture.licence.clone(), picture.standing(now));
    let mut table = Table::new(["Property", "Value"]);
    let day = |d: &Option<chrono::DateTime<chrono::Utc>>| {
        d.map_or_else(|| "unlimited".to_owned(), |d| d.to_rfc3339())
    };
    table.row(["Installation", &licence.terms.installation]);
    table.row(["Installed", if licence.file.is_some() { "true" } else { "false" }]);
    table.row(["State", &standing.to_string()]);
    table.row(["Valid to", &day(&licence.terms.not_after)]);
    let token = licence.terms.token.as_ref().map_or("none", |t| t.serial.as_str());
    table.row(["Bound to token", token]);
    if call.number("--details") == Some(1) {
        rows(&picture.terms(now)).into_iter().for_each(|(n, v)| table.row([n.to_owned(), v]));
    }
    Output::table(table)
}

fn limits(s: &Services) -> Output {
    let (picture, now) = (s.estate.picture(), s.node.clock().now());
    let terms = picture.terms(now);
    let mut table = Table::new(["Property", "Value", "Used"]);
    let used = [picture.domains.len().to_string(), picture.subscribers().to_string()];
    for (i, (name, value)) in rows(&terms).into_iter().enumerate() {
        table.row([name.to_owned(), value, used.get(i).cloned().unwrap_or_default()]);
    }
    let data = json!({
        "terms": terms,
        "standing": picture.standing(now).to_string(),
        "used": { "domains": picture.domains.len(), "subscribers": picture.subscribers() },
    });
    Output::table(table).with_data(data)
}

/// The manual's two tables.
fn elph_usage(s: &Services, call: &Call) -> Output {
    let picture = s.estate.picture();
    let terms = picture.terms(s.node.clock().now());
    let domains: Vec<(&String, usize, u64)> = picture
        .domains
        .iter()
        .map(|(name, d)| (name, picture.elph(name).len(), d.elph_members(&terms)))
        .collect();
    let members: usize = domains.iter().map(|(_, members, _)| members).sum();
    let mut system = Table::new(["Members", "System Limit"]);
    system.row([members.to_string(), terms.elph_members.to_string()]);
    let mut by_domain = Table::new(["Domain", "Members", "Domain restriction"]);
    for (name, members, limit) in &domains {
        by_domain.row([(*name).clone(), members.to_string(), limit.to_string()]);
    }
    let data = json!({
        "members": members,
        "limit": terms.elph_members,
        "domains": domains.iter().map(|(n, m, l)| json!({ "domain": n, "members": m, "limit": l })).collect::<Vec<_>>(),
    });
    let output = Output::text("System usage:").and_table(system);
    let output = match call.flag("--domains") {
        true => output.and_text("Licences distributed by domains:").and_table(by_domain),
        false => output,
    };
    output.with_data(data)
}

fn elph_registered(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let domain = state(s, call)?;
    let picture = s.estate.picture();
    let wanted = match call.opt("users") {
        None | Some("*") => None,
        Some(range) => Some(range::expand(range).map_err(CommandError::failed)?),
    };
    let found: Vec<_> = picture
        .elph(call.var("domain"))
        .into_iter()
        .filter(|(iface, _)| wanted.as_ref().is_none_or(|w| w.iter().any(|i| i == iface)))
        .collect();
    let mut table =
        Table::new(["Interface", "Number", "Contact", "Registered on", "From", "User agent", "Expires"]);
    let mut data = Vec::new();
    for (iface, r) in found {
        let number = domain.aliases.iter().find(|(_, a)| a.iface == iface);
        let number = number.map_or("", |(n, _)| n.as_str());
        let expires = r.expires.to_rfc3339();
        table.row([iface, number, &r.contact, &r.local, &r.received, &r.user_agent, &expires]);
        data.push(json!({ "interface": iface, "number": number, "registration": r }));
    }
    let elements = format!("elements: {}", data.len());
    let output = Output::text(format!("Executed on the {}", s.node.name())).and_table(table);
    Ok(output.and_text(elements).with_data(json!(data)))
}
