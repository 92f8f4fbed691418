//! `domain/<D>/alias/…`.

use std::sync::Arc;

use command::{Call, Command, CommandError, Kind, Output, Table};
use kit::Secret;

use super::{change_domain, names, state, with};
use crate::{Services, decide::DomainCommand, state::Value};

/// Properties of an alias (facts, "Приложение А"; manual 2604-2635, 3985-4048) and the values they may have.
const PROPERTIES: &[(&str, Option<&[&str]>)] = &[
    ("access_group", None),
    ("access_type", None),
    ("api\\call\\enabled", Some(&["true", "false"])),
    ("apri", Some(&["presentationAllowed", "presentationRestricted", "addressNotAvailable", "spare"])),
    ("billing_id", None),
    ("billing_password", None),
    ("category", None),
    ("cdr_group", None),
    ("category_override", Some(&["true", "false"])),
    ("display_name", None),
    ("password", None),
    ("s4b\\email", None),
    ("s4b\\password", None),
    ("s4b\\username", None),
    ("site", None),
    ("subscriber_portal\\login", None),
    ("subscriber_portal\\password", None),
    ("teleconference\\password", None),
    ("teleconference\\role", Some(&["user", "manager"])),
    ("terminal_type", Some(&["smart", "basic"])),
    ("timezone", None),
    ("uid", None),
    ("user_agent", None),
    ("zone", None),
];

const LEGEND: &str = "Legend:
  a: Setup alias address
  i: Setup alias interface
  !: Setup broken. Alias already exists
  *: Setup broken. Alias not exists
  L: Setup broken. No free subscriber licences.
  x: Setup broken. Unexpected error
  <empty>: Successful setup";

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let aliases = || names(s, |d| d.aliases.keys().cloned().collect());
    let groups = || names(s, |d| d.users.values().map(|u| u.group.clone()).collect());
    let ifaces = || names(s, |d| d.users.keys().cloned().collect());
    vec![
        Command::change(
            "domain/{domain}/alias/set",
            "sets a property of aliases",
            "задать свойство алиаса",
            with!(s, |s, call| set(&s, &call).await),
        )
        .arg("address", Kind::Text, "number or range", "номер или диапазон")
        .names(aliases())
        .arg("group", Kind::Text, "group of its interface", "группа интерфейса")
        .names(groups())
        .arg("iface", Kind::Text, "its interface, user@domain or uid", "интерфейс, user@domain или uid")
        .names(ifaces())
        .arg("property", Kind::Text, "name of the property", "имя свойства")
        .names(Arc::new(|_| PROPERTIES.iter().map(|(n, _)| (*n).to_owned()).collect()))
        .arg("value", Kind::Secret, "its value", "значение"),
        Command::change(
            "domain/{domain}/alias/declare",
            "declares one more alias of an interface",
            "объявить ещё один алиас интерфейса",
            with!(s, |s, call| {
                let own = |n: &str| call.get(n).to_owned();
                let command = DomainCommand::DeclareAlias {
                    address: own("address"),
                    group: own("group"),
                    iface: own("iface"),
                };
                change_domain(&s, &call, command).await.map(|()| Output::ok())
            }),
        )
        .arg("address", Kind::Text, "number", "номер")
        .arg("group", Kind::Text, "group of the interface", "группа интерфейса")
        .names(groups())
        .arg("iface", Kind::Text, "the interface, user@domain or uid", "интерфейс, user@domain или uid")
        .names(ifaces()),
        Command::change(
            "domain/{domain}/alias/remove",
            "removes aliases with their services",
            "удалить алиасы с их услугами",
            with!(s, |s, call| {
                let addresses = call.range("addresses")?;
                let count = addresses.len();
                change_domain(&s, &call, DomainCommand::RemoveAliases(addresses)).await?;
                Ok(Output::text(format!("removed {count} aliases")))
            }),
        )
        .arg("addresses", Kind::Text, "number or range", "номер или диапазон")
        .names(aliases())
        .confirm(|c| format!("You are going to remove the aliases {}.", c.get("addresses"))),
        Command::look(
            "domain/{domain}/alias/info",
            "shows an alias with its properties",
            "алиас и его свойства",
            with!(s, |s, call| info(&s, &call, Some(call.get("address")))),
        )
        .arg("address", Kind::Text, "number", "номер")
        .names(aliases()),
        Command::look(
            "domain/{domain}/alias/list",
            "lists all aliases",
            "список алиасов",
            with!(s, |s, call| info(&s, &call, None)),
        ),
    ]
}

async fn set(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let own = |n: &str| call.get(n).to_owned();
    let (name, value, domain) = (own("property"), own("value"), call.var("domain"));
    let Some((_, values)) = PROPERTIES.iter().find(|(n, _)| *n == name) else {
        let known: Vec<&str> = PROPERTIES.iter().map(|(n, _)| *n).collect();
        return Err(CommandError::Failed(format!(
            "an alias has no property {name}; it has {}",
            known.join(", ")
        )));
    };
    if let Some(values) = values.filter(|v| !v.contains(&value.as_str())) {
        return Err(CommandError::Failed(format!("{name} is one of {}, not {value:?}", values.join(", "))));
    }
    let addresses = call.range("address")?;
    let (group, iface) = (own("group"), own("iface"));
    let command = if name == "uid" {
        if value.len() != 16 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(CommandError::Failed(format!("uid: 16 hex digits are wanted, not {value:?}")));
        }
        let [address] = addresses.as_slice() else {
            return Err(CommandError::Failed("uid: one alias at a time".into()));
        };
        DomainCommand::SetUid { address: address.clone(), group, iface, uid: value }
    } else {
        let value = if name.ends_with("password") {
            // One range, one password: the purpose names the property, not each number.
            let purpose = format!("domain/{domain}/alias/{name}");
            let sealed = s.vault.seal(&purpose, &Secret::new(value)).map_err(CommandError::failed)?;
            Value::Sealed { sealed }
        } else {
            Value::Plain(value)
        };
        DomainCommand::SetAliases { addresses: addresses.clone(), group, iface, name: name.clone(), value }
    };
    change_domain(s, call, command).await?;
    let d = state(s, call)?;
    let mut text =
        format!("There are aliases within domain {domain} affected by settings property {name}:\n");
    for address in &addresses {
        let uid = d.aliases.get(address).and_then(|a| d.users.get(&a.iface)).map_or("", |u| u.uid.as_str());
        text.push_str(&format!("  {address} <-> {uid}\n"));
    }
    Ok(Output::text(format!("{text}\n{LEGEND}")))
}

fn info(s: &Services, call: &Call, one: Option<&str>) -> Result<Output, CommandError> {
    let d = state(s, call)?;
    let domain = call.var("domain");
    let mut table = Table::new(["Address", "Iface", "A W", "Property", "Value"])
        .grouped(3)
        .title(format!("Aliases in domain {domain}"));
    let chosen: Vec<_> = match one {
        Some(address) => d.aliases.get(address).into_iter().collect(),
        None => d.aliases.values().collect(),
    };
    if let (Some(address), true) = (one, chosen.is_empty()) {
        return Err(CommandError::Failed(format!(
            "there is no alias {address} in domain {domain}; alias/list shows all"
        )));
    }
    for alias in &chosen {
        let uid = d.users.get(&alias.iface).map_or("", |u| u.uid.as_str());
        table.row([alias.address.as_str(), alias.iface.as_str(), "", "uid", uid]);
        for (name, value) in &alias.properties {
            table.row([&alias.address, &alias.iface, "", name.as_str(), value.shown()]);
        }
    }
    Ok(Output::table(table).and_text(format!("elements: {}", chosen.len())))
}
