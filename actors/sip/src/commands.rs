//! `domain/<D>/sip/user/registered` and `unregister`.

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, range};
use domain::Estate;
use kit::{
    Address, Node,
    ledger::{self, LedgerMsg},
};
use serde_json::json;

use crate::location::{RegistrationCommand, RegistrationsBook};

/// Adds the family's commands.
pub fn register(tree: &mut Tree, node: &Node, estate: &Estate) -> Result<(), DeclareError> {
    let (listing, clearing) = (estate.clone(), node.clone());
    tree.add([
        Command::look(
            "domain/{domain}/sip/user/registered",
            "shows where subscribers can be reached",
            "зарегистрированные абоненты",
            move |call| std::future::ready(registered(&listing, &call)),
        )
        .arg("users", Kind::Text, "* for all, an interface or a range", "* для всех, интерфейс или диапазон")
        .optional(),
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
    let mut table = Table::new(["Interface", "Contact", "From", "Path", "User agent", "Expires"]);
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

async fn unregister(node: &Node, call: &Call) -> Result<Output, CommandError> {
    let name = Address::new("sip/registrations").map_err(CommandError::failed)?;
    let ledger =
        node.registry().lookup::<LedgerMsg<RegistrationsBook>>(&name).map_err(CommandError::failed)?;
    let (domain, iface) = (call.var("domain").to_owned(), call.get("user").to_owned());
    let command = RegistrationCommand::Clear { domain, iface };
    ledger::change(&ledger, command, call.caller.origin()).await.map_err(CommandError::failed)?;
    Ok(Output::ok())
}
