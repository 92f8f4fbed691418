//! `domain/<D>/sip/user/registered` and `unregister`.

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, range};
use domain::Estate;
use kit::{
    Address, Node,
    ledger::{self, LedgerMsg},
};
use serde_json::json;

use crate::{
    health::TrunksHealth,
    location::{RegistrationCommand, RegistrationsBook},
};

/// Adds the family's commands.
pub fn register(
    tree: &mut Tree,
    node: &Node,
    estate: &Estate,
    health: &TrunksHealth,
) -> Result<(), DeclareError> {
    let (listing, clearing) = (estate.clone(), node.clone());
    let (of, trunks) = (health.clone(), estate.clone());
    tree.add([
        Command::look(
            "domain/{domain}/sip/user/registered",
            "shows where subscribers can be reached",
            "зарегистрированные абоненты",
            move |call| std::future::ready(registered(&listing, &call)),
        )
        .arg("users", Kind::Text, "* for all, an interface or a range", "* для всех, интерфейс или диапазон")
        .optional()
        .paged(),
        Command::change(
            "domain/{domain}/sip/user/unregister",
            "ends all registrations of a subscriber",
            "снять регистрации абонента",
            move |call| {
                let node = clearing.clone();
                async move { unregister(&node, &call).await }
            },
        )
        .arg("user", Kind::Text, "interface", "интерфейс"),
        Command::look(
            "domain/{domain}/trunk/sip/health",
            "shows whether the neighbours behind trunks answer",
            "отвечают ли встречные стороны транков",
            move |call| std::future::ready(neighbours(&of, &trunks, &call)),
        )
        .paged(),
    ])
}

fn registered(estate: &Estate, call: &Call) -> Result<Output, CommandError> {
    let wanted = match call.opt("users") {
        None | Some("*") => None,
        Some(users) => Some(range::expand(users).map_err(CommandError::failed)?),
    };
    let picture = estate.picture();
    let all = picture.registrations.get(call.var("domain")).into_iter().flatten();
    let all = all.filter(|(iface, _)| wanted.as_ref().is_none_or(|w| w.contains(iface)));
    let mut table = Table::new(["Interface", "Contact", "From", "Path", "User agent", "Expires"]).grouped(1);
    let mut data = Vec::new();
    for (iface, contacts) in all {
        for r in contacts.iter() {
            let (path, expires) = (r.path.join(", "), r.expires.to_rfc3339());
            table.row([iface, &r.contact, &r.received, &path, &r.user_agent, &expires]);
            data.push(json!({ "interface": iface, "registration": r }));
        }
    }
    let count = data.len();
    Ok(Output::table(table).and_text(format!("elements: {count}")).with_data(json!(data)))
}

fn neighbours(health: &TrunksHealth, estate: &Estate, call: &Call) -> Result<Output, CommandError> {
    let (picture, domain) = (estate.picture(), call.var("domain"));
    let state = picture
        .domains
        .get(domain)
        .ok_or_else(|| CommandError::Failed(format!("there is no domain {domain}")))?;
    let mut table = Table::new(["Trunk", "State", "Since", "Asked", "Said", "Registered until"]);
    let mut data = Vec::new();
    for trunk in state.trunks.keys() {
        let known = health.of(domain, trunk);
        let time = |t: chrono::DateTime<chrono::Utc>| t.format("%d.%m.%Y %H:%M:%S").to_string();
        let uplink = health.uplink(domain, trunk);
        let until =
            uplink.as_ref().map_or(String::new(), |u| u.until.map_or(format!("no: {}", u.said), time));
        match &known {
            Some(h) => {
                let state = if h.up { "up" } else { "down" };
                table.row([trunk, state, &time(h.since), &time(h.asked), &h.said, &until]);
            }
            None => table.row([trunk.as_str(), "not asked yet", "", "", "", until.as_str()]),
        }
        data.push(json!({ "trunk": trunk, "health": known, "registration": uplink }));
    }
    Ok(Output::table(table).with_data(json!(data)))
}

async fn unregister(node: &Node, call: &Call) -> Result<Output, CommandError> {
    let name = Address::new("sip/registrations").map_err(CommandError::failed)?;
    let ledger =
        node.registry().lookup::<LedgerMsg<RegistrationsBook>>(&name).map_err(CommandError::failed)?;
    let (domain, iface) = (call.var("domain").to_owned(), call.get("user").to_owned());
    let command = RegistrationCommand::Clear { domain, iface };
    ledger::change(&ledger, command, call.caller.origin()).await.map_err(CommandError::failed)?;
    Ok(Output::ok())
}
