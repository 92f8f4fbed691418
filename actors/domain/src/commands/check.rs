//! `domain/<D>/check`: every way in a domain that leads nowhere.

use command::{Command, Output, Table};

use super::{state, with};
use crate::{
    Services,
    estate::Picture,
    routing::context::RuleResult,
    state::{Binding, DomainState},
};

pub(super) fn commands(s: &Services) -> Vec<Command> {
    vec![Command::look(
        "domain/{domain}/check",
        "lists every way in the domain that leads nowhere",
        "все пути домена, которые никуда не ведут",
        with!(s, |s, call| {
            let mut table = Table::new(["Where", "Name", "Trouble"]);
            let found = dead_ends(&s.estate.picture(), call.var("domain"), &*state(&s, &call)?);
            let count = found.len();
            for (place, name, trouble) in found {
                table.row([place.to_owned(), name, trouble]);
            }
            let said = if count == 0 {
                "ok: every way leads somewhere".to_owned()
            } else {
                format!("elements: {count}")
            };
            Ok(Output::table(table).and_text(said))
        }),
    )]
}

type Trouble = (&'static str, String, String);

/// Where, of what, and why.
fn dead_ends(picture: &Picture, domain: &str, d: &DomainState) -> Vec<Trouble> {
    let mut found = Vec::new();
    let no_context =
        |context: &str| (!d.contexts.contains_key(context)).then(|| format!("there is no context {context}"));
    for user in d.users.values() {
        found.extend(no_context(&user.context).map(|why| ("subscriber", user.iface.clone(), why)));
        if let Some(profile) = user.properties.get("client-profile").filter(|p| !d.profiles.contains_key(*p))
        {
            found.push(("subscriber", user.iface.clone(), format!("there is no profile {profile}")));
        }
    }
    for alias in d.aliases.values().filter(|a| !d.users.contains_key(&a.iface)) {
        found.push(("alias", alias.address.clone(), format!("there is no interface {}", alias.iface)));
    }
    for trunk in d.trunks.values() {
        found.extend(no_context(&trunk.context).map(|why| ("trunk", trunk.name.clone(), why)));
    }
    for bridge in picture.bridges.of_domain(domain) {
        for side in [&bridge.a, &bridge.b].into_iter().filter(|s| s.domain == domain) {
            found.extend(no_context(&side.context).map(|why| ("bridge", bridge.name.clone(), why)));
        }
    }
    for context in d.contexts.values() {
        if let Some(plan) = context.np.as_ref().filter(|p| !d.plans.contains_key(*p)) {
            found.push(("context", context.name.clone(), format!("there is no number plan {plan}")));
        }
        for rule in context.rules.iter() {
            let why = match &rule.result {
                RuleResult::Local => None,
                RuleResult::Continue(next) => no_context(next),
                RuleResult::Direction(group) => (!d.trunks.values().any(|t| t.group == *group))
                    .then(|| format!("no trunk is of the group {group}")),
                RuleResult::Trunk(to) => {
                    let leads = d.trunks.contains_key(to) || picture.bridges.by_iface(domain, to).is_some();
                    (!leads).then(|| format!("there is no trunk and no bridge {to}"))
                }
            };
            found.extend(why.map(|why| ("rule", format!("{} {}", context.name, rule.name), why)));
        }
    }
    for (name, plan) in &d.plans {
        for (number, binding) in &plan.numbers {
            let place = || format!("{name} {number}");
            match binding {
                Binding::Free => {}
                Binding::Bridge(bridge) => {
                    if picture.bridges.end_in(bridge, domain).is_none() {
                        found.push(("number", place(), format!("no bridge {bridge} ends in this domain")));
                    }
                }
                Binding::Aliases(all) => {
                    let missing = |a: &&crate::state::BoundAlias| {
                        !d.aliases.contains_key(&a.address) && !plan.numbers.contains_key(&a.address)
                    };
                    for bound in all.iter().filter(missing) {
                        found.push(("number", place(), format!("there is no alias {}", bound.address)));
                    }
                }
            }
        }
    }
    for (address, services) in &d.services {
        for (service, set) in services.iter().filter(|(_, s)| s.active) {
            if let Some(number) = set.options.get("number").filter(|n| !crate::routing::is_dialled(n)) {
                found.push(("service", format!("{address} {service}"), format!("{number:?} is no number")));
            }
        }
    }
    found
}
