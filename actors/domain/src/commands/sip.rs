//! `domain/<D>/sip/…`: network, users and their profiles.

use command::{Call, Command, CommandError, Kind, Output, Table, range};
use kit::Secret;

use super::{change_domain, change_domain_ok, names, state, with};
use crate::{
    Services,
    decide::{DomainCommand, NewUsers},
    state::{Authentication, UserChange},
};

const AUTHENTICATIONS: &[&str] = &["qop_authentication", "no_qop_authentication", "no_authentication"];
/// Properties of a profile (facts, manual 3880) and of a user.
const PROFILE: &[&str] =
    &["node_control", "nat_traversal", "rport", "session_timers", "reliable_provisional"];
const USER: &[&str] = &[
    "client-profile",
    "core_forking",
    "line_count",
    "ice/enabled",
    "srtp",
    "description",
    "password",
    "login",
    "group",
    "context",
    "authentication",
];

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let ifaces = || names(s, |d| d.users.keys().cloned().collect());
    let groups = || names(s, |d| d.users.values().map(|u| u.group.clone()).collect());
    let contexts = || names(s, |d| d.contexts.keys().cloned().collect());
    let profiles = || names(s, |d| d.profiles.keys().cloned().collect());
    vec![
        Command::change(
            "domain/{domain}/sip/network/set",
            "keeps the IP sets of the domain; this node listens where [sip] says",
            "хранит IP-наборы домена; узел слушает по настройкам [sip]",
            with!(s, |s, call| network(&s, &call).await),
        )
        .arg("property", Kind::OneOf(&["ip_set"]), "ip_set", "ip_set")
        .arg(
            "value",
            Kind::Text,
            "list of sets: [voip.local.set1]",
            "список наборов: [voip.local.set1]",
        ),
        Command::look(
            "domain/{domain}/sip/network/info",
            "shows the SIP network settings",
            "сетевые настройки SIP",
            with!(s, |s, call| {
                let mut table = Table::new(["Property", "Domain", "Value"]);
                table.row([
                    "ip_set",
                    call.var("domain"),
                    &format!("[{}]", state(&s, &call)?.ip_sets.join(",")),
                ]);
                Ok(Output::table(table))
            }),
        ),
        Command::change(
            "domain/{domain}/sip/user/declare",
            "declares SIP users",
            "объявить SIP-абонентов",
            with!(s, |s, call| declare(&s, &call).await),
        )
        .arg("routing_context", Kind::Text, "context their calls begin in", "контекст маршрутизации")
        .names(contexts())
        .arg("group", Kind::Text, "group of interfaces", "группа интерфейсов")
        .names(groups())
        .arg(
            "users",
            Kind::Text,
            "user@domain or a range: 2001{00-19}@voip.local",
            "user@domain или диапазон",
        )
        .arg(
            "alias",
            Kind::Text,
            "alias-as-user, no-alias, or a range of numbers",
            "alias-as-user, no-alias или диапазон",
        )
        .arg(
            "authentication",
            Kind::OneOf(AUTHENTICATIONS),
            "how requests are checked",
            "способ аутентификации",
        )
        .arg("login", Kind::Text, "login-as-user, or one login", "login-as-user или логин")
        .arg("password", Kind::Secret, "password of all of them", "пароль"),
        Command::look(
            "domain/{domain}/sip/user/info",
            "shows a SIP user with its aliases and numbers",
            "карточка абонента: алиасы и номера",
            with!(s, |s, call| card(&s, &call)),
        )
        .arg("user", Kind::Text, "interface", "интерфейс")
        .names(ifaces()),
        Command::look(
            "domain/{domain}/sip/user/list",
            "lists SIP users",
            "список SIP-абонентов",
            with!(s, |s, call| {
                let d = state(&s, &call)?;
                let mut table = Table::new([
                    "Interface",
                    "Uid",
                    "Group",
                    "Context",
                    "Authentication",
                    "Login",
                    "Properties",
                ]);
                for u in d.users.values() {
                    let properties: Vec<String> =
                        u.properties.iter().map(|(n, v)| format!("{n}={v}")).collect();
                    let authentication = u.authentication.to_string();
                    let properties = properties.join(" ");
                    table.row([
                        &u.iface,
                        &u.uid,
                        &u.group,
                        &u.context,
                        &authentication,
                        &u.login,
                        &properties,
                    ]);
                }
                Ok(Output::table(table).and_text(format!("elements: {}", d.users.len())))
            }),
        ),
        Command::change(
            "domain/{domain}/sip/user/remove",
            "removes SIP users and their aliases",
            "удалить SIP-абонентов и их алиасы",
            with!(s, |s, call| {
                let ifaces = call.range("users")?;
                let count = ifaces.len();
                change_domain(&s, &call, DomainCommand::RemoveUsers(ifaces)).await?;
                Ok(Output::text(format!("removed {count} subscribers")))
            }),
        )
        .arg("users", Kind::Text, "user@domain or a range", "user@domain или диапазон")
        .names(ifaces())
        .confirm(|c| format!("You are going to remove the subscribers {}.", c.get("users"))),
        Command::change(
            "domain/{domain}/sip/user/set",
            "sets a property of a SIP user",
            "задать свойство SIP-абонента",
            with!(s, |s, call| set_user(&s, &call, call.get("user")).await),
        )
        .arg("group", Kind::Text, "its group", "группа")
        .names(groups())
        .arg("user", Kind::Text, "user@domain", "user@domain")
        .names(ifaces())
        .arg("property", Kind::OneOf(USER), "its property", "свойство")
        .arg("value", Kind::Secret, "its value", "значение"),
        Command::change(
            "domain/{domain}/iface/user-set",
            "sets a property of an interface",
            "задать свойство интерфейса",
            with!(s, |s, call| set_user(&s, &call, call.get("iface")).await),
        )
        .arg(
            "adapter",
            Kind::Text,
            "SIP adapter, such as sip1; this node has one",
            "SIP-адаптер, например sip1",
        )
        .arg("group", Kind::Text, "its group", "группа")
        .names(groups())
        .arg("iface", Kind::Text, "user@domain", "user@domain")
        .names(ifaces())
        .arg("property", Kind::OneOf(USER), "its property", "свойство")
        .arg("value", Kind::Secret, "its value", "значение"),
        Command::change(
            "domain/{domain}/sip/user/profile/set",
            "sets a property of a profile, making the profile",
            "задать свойство профиля",
            with!(s, |s, call| {
                let own = |n: &str| call.get(n).to_owned();
                let (profile, name, value) = (own("profile"), own("property"), own("value"));
                let kept = (name == "node_control").then_some(
                    "note: node_control has a meaning in a cluster only; on one node it is kept and changes nothing",
                );
                change_domain(&s, &call, DomainCommand::SetProfile { profile, name, value }).await?;
                Ok(kept.into_iter().fold(Output::ok(), Output::and_text))
            }),
        )
        .arg("profile", Kind::Text, "name of the profile", "имя профиля")
        .names(profiles())
        .arg("property", Kind::OneOf(PROFILE), "its property", "свойство")
        .arg("value", Kind::Bool, "its value", "значение"),
        Command::look(
            "domain/{domain}/sip/user/profile/list",
            "lists the profiles",
            "список профилей",
            with!(s, |s, call| {
                let mut table = Table::new(["Profile", "Property", "Value"]);
                for (profile, values) in &state(&s, &call)?.profiles {
                    values.iter().for_each(|(n, v)| table.row([profile, n, v]));
                }
                Ok(Output::table(table))
            }),
        ),
    ]
}

/// A property of a SIP user, by either of the commands that set one.
async fn set_user(s: &Services, call: &Call, iface: &str) -> Result<Output, CommandError> {
    let own = |n: &str| call.get(n).to_owned();
    let (group, iface, name, value) = (own("group"), iface.to_owned(), own("property"), own("value"));
    let given = |what: &str| match value.trim() {
        "" => Err(CommandError::Usage(format!("{what}: a value is wanted"))),
        value if value.chars().any(char::is_control) => {
            Err(CommandError::Usage(format!("{what}: no control characters, please")))
        }
        value => Ok(value.to_owned()),
    };
    let mut note = None;
    let change = match name.as_str() {
        "password" => {
            let known = state(s, call)?.iface(&iface).map_or(iface.clone(), |u| u.iface.clone());
            let purpose = purpose(call.var("domain"), &known);
            let sealed = s.vault.seal(&purpose, &Secret::new(given("password")?));
            UserChange::Password(sealed.map_err(CommandError::failed)?)
        }
        "login" => UserChange::Login(given("login")?),
        "group" => UserChange::Group(given("group")?),
        "context" => {
            note = missing_context(s, call, &value);
            UserChange::Context(given("context")?)
        }
        "authentication" => {
            let wrong = |_| {
                CommandError::Usage(format!(
                    "authentication: one of {} is wanted",
                    AUTHENTICATIONS.join(", ")
                ))
            };
            UserChange::Authentication(value.parse().map_err(wrong)?)
        }
        "core_forking" | "ice/enabled" | "srtp" if !matches!(value.as_str(), "true" | "false") => {
            return Err(CommandError::Usage(format!("{name} is true or false, not {value:?}")));
        }
        "line_count" if !value.parse::<u32>().is_ok_and(|n| (1..=1000).contains(&n)) => {
            return Err(CommandError::Usage(format!("line_count is a number from 1 to 1000, not {value:?}")));
        }
        _ => return change_domain_ok(s, call, DomainCommand::SetUser { group, iface, name, value }).await,
    };
    change_domain(s, call, DomainCommand::ChangeUser { group, iface, change }).await?;
    Ok(note.into_iter().fold(Output::ok(), Output::and_text))
}

/// Purpose that a user's password is sealed for.
fn purpose(domain: &str, iface: &str) -> String {
    format!("domain/{domain}/user/{iface}")
}

/// Users and trunks may be declared before their context is imported; a name that is not there yet is said.
pub(super) fn missing_context(s: &Services, call: &Call, context: &str) -> Option<String> {
    let known = state(s, call).is_ok_and(|d| d.contexts.contains_key(context));
    (!known).then(|| format!("warning: there is no context {context} yet; calls from here go nowhere until routing/import brings it"))
}

async fn network(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let value = call.get("value");
    let inner = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
    let inner = inner.ok_or_else(|| {
        CommandError::Usage(format!("ip_set wants a list, [voip.local.set1], not {value:?}"))
    })?;
    let sets: Vec<String> = inner.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
    change_domain_ok(s, call, DomainCommand::SetIpSets(sets)).await
}

async fn declare(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let usage = |text: String| CommandError::Usage(text);
    let ifaces = call.range("users")?;
    if let Some(bad) =
        ifaces.iter().find(|i| i.split_once('@').is_none_or(|(u, d)| u.is_empty() || d.is_empty()))
    {
        return Err(usage(format!("users: user@domain is wanted, not {bad:?}")));
    }
    let user = |iface: &String| iface.split('@').next().unwrap_or_default().to_owned();
    let aliases: Vec<Option<String>> = match call.get("alias") {
        "alias-as-user" => ifaces.iter().map(|i| Some(user(i))).collect(),
        "no-alias" => vec![None; ifaces.len()],
        numbers => {
            let numbers = range::expand(numbers).map_err(|e| usage(e.to_string()))?;
            if numbers.len() != ifaces.len() {
                return Err(usage(format!("{} users cannot have {} aliases", ifaces.len(), numbers.len())));
            }
            numbers.into_iter().map(Some).collect()
        }
    };
    let authentication = match call.get("authentication") {
        "qop_authentication" => Authentication::QopAuthentication,
        "no_qop_authentication" => Authentication::NoQopAuthentication,
        _ => Authentication::NoAuthentication,
    };
    let one = s.declaring.lock().await;
    let picture = s.estate.picture();
    let room = picture.terms(s.node.clock().now()).subscribers.saturating_sub(picture.subscribers() as u64);
    let mut users = Vec::with_capacity(ifaces.len());
    for (iface, alias) in ifaces.iter().zip(aliases) {
        let login =
            if call.get("login") == "login-as-user" { user(iface) } else { call.get("login").to_owned() };
        let uid = format!("{:016x}", s.node.random_id());
        let purpose = purpose(call.var("domain"), iface);
        let password = s.vault.seal(&purpose, &Secret::new(call.get("password").to_owned()));
        users.push((iface.clone(), alias, login, uid, password.map_err(CommandError::failed)?));
    }
    let new = NewUsers {
        context: call.get("routing_context").to_owned(),
        group: call.get("group").to_owned(),
        users,
        authentication,
        room,
    };
    change_domain(s, call, DomainCommand::DeclareUsers(new)).await?;
    drop(one);
    let (first, last, count) = (&ifaces[0], &ifaces[ifaces.len() - 1], ifaces.len());
    let said = Output::text(format!(
        "Executed on the {}\nDeclaration for range: {first}..{last} ({count})\n| declared {count} subscribers |",
        s.node.name()
    ));
    let note = missing_context(s, call, call.get("routing_context"));
    Ok(note.into_iter().fold(said, Output::and_text))
}

/// A subscriber with all that leads to them.
fn card(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let d = state(s, call)?;
    let iface = call.get("user");
    let Some(user) = d.users.get(iface) else {
        let text = format!("there is no user {iface}; sip/user/list shows all");
        return Err(CommandError::Failed(text));
    };
    let aliases: Vec<_> = d.aliases.values().filter(|a| a.iface == iface).collect();
    let full = |alias: &str| -> Vec<_> {
        let of_plan = |(name, plan): (&String, &crate::state::Plan)| {
            plan.full_number(alias).map(|n| format!("{n} ({name})"))
        };
        d.plans.iter().filter_map(of_plan).collect()
    };
    let mut table = Table::new(["Property", "Value"]).title(format!("Subscriber {iface}"));
    table.row(["uid", &user.uid]);
    table.row(["group", &user.group]);
    table.row(["context", &user.context]);
    table.row(["authentication", &user.authentication.to_string()]);
    table.row(["login", &user.login]);
    user.properties.iter().for_each(|(n, v)| table.row([n, v]));
    for alias in &aliases {
        table.row(["alias", &alias.address]);
        full(&alias.address).iter().for_each(|n| table.row(["full number", n]));
        alias.properties.iter().for_each(|(n, v)| table.row([n.as_str(), v.shown()]));
    }
    let picture = s.estate.picture();
    let contacts = picture.registrations.get(call.var("domain")).and_then(|all| all.get(iface));
    for contact in contacts.into_iter().flat_map(|c| c.iter()) {
        table.row(["registered", &contact.contact]);
    }
    Ok(Output::table(table))
}
