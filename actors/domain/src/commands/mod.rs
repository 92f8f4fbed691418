//! The family's commands. Each file is a directory of the tree; all are declared in one shape.

mod alias;
mod bridge;
mod cdr;
mod check;
mod domain;
mod licence;
mod np;
mod routing;
mod sip;
mod trunk;

use std::sync::Arc;

use command::{Call, CommandError, DeclareError, Names, Output, Tree};

use crate::{
    Services,
    actor::{DomainBook, change},
    decide::DomainCommand,
    state::DomainState,
};

/// Adds all commands and the names of their variables.
pub fn register(tree: &mut Tree, services: &Services) -> Result<(), DeclareError> {
    let s = services;
    tree.variable("domain", domains(s));
    tree.add(domain::commands(s))?;
    tree.add(sip::commands(s))?;
    tree.add(alias::commands(s))?;
    tree.add(np::commands(s))?;
    tree.add(routing::commands(s))?;
    tree.add(trunk::commands(s))?;
    tree.add(bridge::commands(s))?;
    tree.add(cdr::commands(s))?;
    tree.add(check::commands(s))?;
    tree.add(licence::commands(s))
}

/// A change of the domain that the command's path names.
async fn change_domain(s: &Services, call: &Call, command: DomainCommand) -> Result<(), CommandError> {
    let address = format!("domain/{}", call.var("domain"));
    change::<DomainBook>(&s.node, &address, command, call.caller.origin()).await.map_err(CommandError::failed)
}

async fn change_domain_ok(s: &Services, call: &Call, command: DomainCommand) -> Result<Output, CommandError> {
    change_domain(s, call, command).await.map(|()| Output::ok())
}

/// The state of the domain that the command's path names.
fn state(s: &Services, call: &Call) -> Result<Arc<DomainState>, CommandError> {
    let name = call.var("domain");
    let picture = s.estate.picture();
    if let Some(found) = picture.domains.get(name) {
        return Ok(found.clone());
    }
    Err(CommandError::Failed(match picture.broken.get(name) {
        Some(why) => format!("domain {name} did not start: {why}"),
        None => format!("there is no domain {name}"),
    }))
}

fn domains(s: &Services) -> Names {
    let estate = s.estate.clone();
    Arc::new(move |call| {
        let seen = |d: &&String| call.caller.grants.sees_domain(d);
        estate.picture().domains.keys().filter(seen).cloned().collect()
    })
}

/// Names out of the domain in the command's path.
fn names(s: &Services, list: impl Fn(&DomainState) -> Vec<String> + Send + Sync + 'static) -> Names {
    let s = s.clone();
    Arc::new(move |call| state(&s, call).map(|d| list(&d)).unwrap_or_default())
}

fn plans(s: &Services) -> Names {
    names(s, |d| d.plans.keys().cloned().collect())
}

use command::with;
