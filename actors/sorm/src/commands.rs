//! `domain/<D>/sorm/…` and what an auditor needs.

use std::str::FromStr;

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, with};
use kit::{Secret, ledger};
use serde_json::json;
use strum::VariantNames;

use crate::{
    audit::Entry,
    intercept::Services,
    multi::{self, Aggregate, MultiBook, MultiCommand, MultiError, Templates},
    proposals::{Change, Scoped, Two},
    settings::{Mediator, Property, Setting, SettingError},
    stations::{StationBook, StationCommand, ledger as ledger_of, seal_secret},
    tree::{ensure, rebind},
};

/// What commands work with.
#[derive(Clone)]
struct Work {
    services: Services,
    two: Two<Change>,
}

impl std::ops::Deref for Work {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// Adds the family's commands.
pub fn register(tree: &mut Tree, s: &Services) -> Result<(), DeclareError> {
    let services = s.clone();
    let two = Two::new(&s.node, &s.audit, s.two_persons, move |call, change, action| {
        let s = services.clone();
        async move { carry_out(&s, &call, change, &action).await }
    });
    tree.add(two.commands([
        "domain/{domain}/sorm/proposals",
        "domain/{domain}/sorm/approve",
        "domain/{domain}/sorm/reject",
    ]))?;
    let of_all = two.commands(["sorm/proposals", "sorm/approve", "sorm/reject"]);
    tree.add(of_all.map(Command::system_only))?;
    let s = &Work { services: s.clone(), two };
    tree.add([
        Command::change(
            "domain/{domain}/sorm/set",
            "sets a property of interception: enabled, password, radius_servers add <ADDRESS> <SECRET>, …",
            "задать свойство СОРМ: enabled, password, radius_servers add <ADDRESS> <SECRET>, …",
            with!(s, |s, call| set(&s, &call).await),
        )
        .arg("property", Kind::OneOf(Property::VARIANTS), "its name", "имя свойства")
        // Some are secrets; none is kept in histories.
        .arg(
            "value",
            Kind::Secret,
            "its value; of radius_servers: add <ADDRESS> <SECRET>, or remove <ADDRESS>",
            "значение; для radius_servers: add <ADDRESS> <SECRET> или remove <ADDRESS>",
        )
        .many(),
        Command::look(
            "domain/{domain}/sorm/info",
            "shows the properties of interception",
            "показать свойства СОРМ",
            with!(s, |s, call| info(&s, &call).await),
        ),
        Command::change(
            "domain/{domain}/sorm/clean",
            "sets a property of interception to what it was at first",
            "вернуть свойству СОРМ заводское значение",
            with!(s, |s, call| {
                let property = property(&call)?;
                change(&s, &call, StationCommand::Clean(property), &format!("clean {property}")).await
            }),
        )
        .arg("property", Kind::OneOf(Property::VARIANTS), "its name", "имя свойства")
        .confirm(|c| match c.get("property") {
            "radius_servers" => {
                "You are going to remove all mediators, and all that they have set.".to_owned()
            }
            other => format!("You are going to set {other} to what it was at first."),
        }),
        Command::change(
            "sorm/set",
            "sets what all domains share: ssh_port <PORT>, objects_limit <NUMBER>, aggregate_sorm_settings add <USER> <PASSWORD> <DOMAIN>…",
            "задать общие свойства СОРМ: ssh_port <PORT>, objects_limit <NUMBER>, aggregate_sorm_settings add <USER> <PASSWORD> <DOMAIN>…",
            with!(s, |s, call| set_all(&s, &call).await),
        )
        .arg("property", Kind::OneOf(&["ssh_port", "objects_limit", "aggregate_sorm_settings"]), "its name", "имя свойства")
        .arg(
            "value",
            Kind::Secret,
            "a port, MultiSORM takes the next one; how many objects a mediator may have in a domain; or add <USER> <PASSWORD> <DOMAIN>…, remove <USER>. * in a domain stands \
             for anything, - before it leaves it out",
            "порт, MultiSORM использует следующий; предельное число объектов посредника в домене; либо add <USER> <PASSWORD> <DOMAIN>…, remove <USER>. * в имени домена \
             заменяет любые символы, - перед именем исключает домен",
        )
        .many()
        .system_only(),
        Command::look(
            "sorm/info",
            "shows what all domains share",
            "показать общие свойства СОРМ",
            with!(s, |s, _call| Ok(info_all(&s))),
        )
        .system_only(),
    ])
}

fn property(call: &Call) -> Result<Property, CommandError> {
    Property::from_str(call.get("property"))
        .map_err(|_| CommandError::Usage("there is no such property".into()))
}

fn usage(e: SettingError) -> CommandError {
    CommandError::Usage(e.to_string())
}

async fn set(s: &Work, call: &Call) -> Result<Output, CommandError> {
    let (property, values) = (property(call)?, call.all("value"));
    let words: Vec<&str> = values.iter().map(String::as_str).collect();
    let setting = match (property, words.as_slice()) {
        (Property::RadiusServers, ["add", address, secret]) => {
            let mediator = Mediator::from_str(address).map_err(usage)?;
            if secret.is_empty() {
                return Err(usage(SettingError::EmptySecret));
            }
            let secret = Secret::new((*secret).to_owned());
            let sealed = seal_secret(&*s.vault, call.var("domain"), mediator, &secret);
            Setting::AddServer(mediator, sealed.map_err(CommandError::failed)?)
        }
        (Property::RadiusServers, ["remove", address]) => {
            Setting::RemoveServer(Mediator::from_str(address).map_err(usage)?)
        }
        (Property::RadiusServers, _) => return Err(usage(SettingError::Servers)),
        (Property::Password, [""]) => return Err(usage(SettingError::EmptySecret)),
        (Property::Password, [password]) => {
            let hash = access::hash_apart(Secret::new((*password).to_owned())).await;
            let hash = hash.map_err(CommandError::failed)?;
            Setting::Password(kit::Sealed(hash))
        }
        (_, [value]) => Setting::plain(property, value).map_err(usage)?,
        _ => return Err(usage(SettingError::OneValue(property))),
    };
    if let Setting::Adaptation(name) = &setting
        && !s.estate.picture().domains.get(call.var("domain")).is_some_and(|d| d.contexts.contains_key(name))
    {
        return Err(CommandError::failed(SettingError::NoContext(name.clone())));
    }
    if setting == Setting::Enabled(true) && !s.estate.picture().terms(s.node.clock().now()).sorm {
        return Err(CommandError::failed(SettingError::Licence));
    }
    let action = match &setting {
        Setting::AddServer(mediator, _) => format!("set radius_servers add {mediator}"),
        Setting::RemoveServer(mediator) => format!("set radius_servers remove {mediator}"),
        _ => format!("set {property}"),
    };
    change(s, call, StationCommand::Set(setting), &action).await
}

async fn change(
    s: &Work,
    call: &Call,
    command: StationCommand,
    action: &str,
) -> Result<Output, CommandError> {
    let domain = call.var("domain").to_owned();
    start(s, &domain).await?;
    let two = match &command {
        StationCommand::Set(Setting::Password(_) | Setting::AddServer(..) | Setting::RemoveServer(_)) => true,
        StationCommand::Clean(property) => matches!(property, Property::Password | Property::RadiusServers),
        _ => false,
    };
    let approve = format!("domain/{domain}/sorm/approve");
    s.two.submit(call.clone(), Change::Domain(domain, command), action, two, &approve).await
}

async fn carry_out(s: &Services, call: &Call, change: Change, action: &str) -> Result<Output, CommandError> {
    let origin = call.caller.origin();
    let details = json!({ "from": origin.from });
    let domain = change.domain().to_owned();
    let mut rebinds = false;
    match change {
        Change::Domain(domain, command) => {
            let name = ledger_of(&domain).ok_or_else(|| no_domain(&domain))?;
            let changed = ledger::change_at::<StationBook>(&s.node, name.as_str(), command, origin).await;
            changed.map_err(CommandError::failed)?;
            // A mediator that is new works at once.
            start(s, &domain).await?;
        }
        Change::All(command) => {
            rebinds = matches!(command, MultiCommand::Port(_));
            let changed = ledger::change_at::<MultiBook>(&s.node, multi::NAME, command, origin).await;
            changed.map_err(CommandError::failed)?;
        }
    }
    s.audit.write(Entry::new(&domain, &call.caller.name, action, details));
    if rebinds {
        rebind(s);
    }
    Ok(Output::ok())
}

fn no_domain(domain: &str) -> CommandError {
    CommandError::Failed(format!("there is no domain {domain}"))
}

/// A domain that was declared a moment ago may not have been seen yet.
async fn start(s: &Services, domain: &str) -> Result<(), CommandError> {
    let known = domain::generations(&s.node).await.map_err(CommandError::failed)?;
    let found = known.into_iter().find(|(name, _)| name == domain);
    let (_, generation) = found.ok_or_else(|| no_domain(domain))?;
    ensure(s, domain, generation).await.map_err(CommandError::failed)
}

async fn set_all(s: &Work, call: &Call) -> Result<Output, CommandError> {
    let wrong = |e: MultiError| CommandError::Usage(e.to_string());
    let values = call.all("value");
    let words: Vec<&str> = values.iter().map(String::as_str).collect();
    let (command, action) = match (call.get("property"), words.as_slice()) {
        ("ssh_port", [port]) => {
            // The next one has to be a port too.
            let number = port.parse().ok().filter(|p| (1..u16::MAX).contains(p));
            let number = number.ok_or_else(|| wrong(MultiError::Port((*port).to_owned())))?;
            // Tried before it is kept: a port that somebody else has would be no door.
            let now = s.multi.all().ssh_port;
            for port in
                [number, number + 1].into_iter().filter(|p| now.is_none_or(|n| *p != n && *p != n + 1))
            {
                std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
                    .map_err(|e| CommandError::Failed(format!("port {port} cannot be opened: {e}")))?;
            }
            (MultiCommand::Port(number), "set ssh_port".to_owned())
        }
        ("objects_limit", [most]) => {
            let number = most.parse().ok().filter(|n| (1..=65_535).contains(n));
            let number = number.ok_or_else(|| wrong(MultiError::Objects((*most).to_owned())))?;
            (MultiCommand::Objects(number), "set objects_limit".to_owned())
        }
        ("aggregate_sorm_settings", ["add", user, password, ..]) => {
            let domains = Templates::new(values.get(3..).unwrap_or_default()).map_err(wrong)?;
            let hash = access::hash_apart(Secret::new((*password).to_owned())).await;
            let hash = hash.map_err(CommandError::failed)?;
            let aggregate = Aggregate { password: kit::Sealed(hash), domains };
            (MultiCommand::Add((*user).to_owned(), aggregate), format!("add aggregate {user}"))
        }
        ("aggregate_sorm_settings", ["remove", user]) => {
            (MultiCommand::Remove((*user).to_owned()), format!("remove aggregate {user}"))
        }
        ("ssh_port", _) => return Err(wrong(MultiError::Port(words.join(" ")))),
        ("objects_limit", _) => return Err(wrong(MultiError::Objects(words.join(" ")))),
        _ => return Err(wrong(MultiError::NoDomains)),
    };
    let two = !matches!(command, MultiCommand::Port(_) | MultiCommand::Objects(_));
    s.two.submit(call.clone(), Change::All(command), &action, two, "sorm/approve").await
}

fn info_all(s: &Services) -> Output {
    let all = s.multi.all();
    let mut table = Table::new(["Property", "Value"]);
    table.row(["ssh_port".to_owned(), all.ssh_port.map_or("as configured".to_owned(), |p| p.to_string())]);
    let most = all.objects_limit.map_or("65535".to_owned(), |n| n.to_string());
    table.row(["objects_limit".to_owned(), most]);
    for (user, aggregate) in &all.users {
        let shown = format!("{user} {} {}", kit::MARK, aggregate.domains);
        table.row(["aggregate_sorm_settings".to_owned(), shown]);
    }
    Output::table(table)
}

async fn info(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let domain = call.var("domain");
    start(s, domain).await?;
    let station = s.stations.get(domain).ok_or_else(|| no_domain(domain))?;
    let mut table = Table::new(["Property", "Domain", "Value"]);
    for (property, value) in station.settings.shown() {
        table.row([property.to_string(), domain.to_owned(), value]);
    }
    Ok(Output::table(table))
}
