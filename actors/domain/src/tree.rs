//! The family's place in the tree.
//!
//! ```text
//! domain-family   rest_for_one
//! ├ licence       what may be declared
//! ├ licence/token whether the licence's token is plugged in
//! ├ domains       which domains there are
//! ├ domain        dynamic: one ledger each, `domain/<NAME>`
//! ├ domain/boot   starts a ledger for each known domain, then is done
//! └ bridges       between them
//! ```

use std::time::Duration;

use imbl::OrdMap;
use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Placement, Strategy, SupervisorHandle,
    SupervisorSpec,
    alarm::{Condition, Severity},
    ledger::Ledger,
};
use strum::IntoStaticStr;

use crate::{
    actor::{BridgesBook, DomainBook, DomainsBook, DomainsCommand, LicenceBook, Services, change},
    guard,
};

/// The family under the node's root.
pub fn child(services: &Services) -> Result<ChildSpec, AddressError> {
    let s = services;
    let (licence, domains, bridges) = (s.clone(), s.clone(), s.clone());
    let spec = SupervisorSpec::new(Address::new("domain-family")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10))
        .child(ChildSpec::worker(Address::new("licence")?, move |start| {
            let s = licence.clone();
            let book = LicenceBook { estate: s.estate.clone(), vendor_key: s.vendor_key };
            async move { Ledger::restore_named(book, s.journal, &start).await }
        }))
        .child(guard::child(s)?)
        .child(ChildSpec::worker(Address::new("domains")?, move |start| {
            let s = domains.clone();
            async move { Ledger::restore_named(DomainsBook, s.journal, &start).await }
        }))
        .child(
            SupervisorSpec::new(Address::new("domain")?, Strategy::Dynamic)
                .intensity(20, Duration::from_secs(10))
                .into_child(),
        )
        .child({
            let s = s.clone();
            ChildSpec::worker(Address::new("domain/boot")?, move |_| {
                let s = s.clone();
                async move {
                    start_known(&s).await?;
                    Ok(Booted)
                }
            })
        })
        .child(ChildSpec::worker(Address::new("bridges")?, move |start| {
            let s = bridges.clone();
            let book = BridgesBook { estate: s.estate.clone() };
            async move { Ledger::restore_named(book, s.journal, &start).await }
        }));
    Ok(spec.into_child())
}

/// Stands for "every known domain has been started": it is started anew whenever one before it was.
struct Booted;

#[derive(Debug, IntoStaticStr)]
enum Never {}

impl Actor for Booted {
    type Msg = Never;

    fn handle(&mut self, msg: Never, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!("every known domain has been started")
    }
}

/// Every domain, and how often one of its name has been declared.
pub async fn generations(node: &kit::Node) -> Result<Vec<(String, u64)>, ExitReason> {
    let origin = kit::journal::Origin::system();
    let known = change::<DomainsBook>(node, "domains", DomainsCommand::List, origin).await;
    known.map_err(ExitReason::error)
}

async fn start_known(services: &Services) -> Result<(), ExitReason> {
    services.estate.change(|p| (p.domains, p.broken) = (OrdMap::new(), OrdMap::new()));
    for (name, generation) in generations(&services.node).await? {
        let Err(why) = start_domain(services, &name, generation).await else { continue };
        // One tenant's journal must not keep the others from calling.
        let broken = Condition::new("domain::journal::damaged", Severity::Critical, name.as_str());
        services.node.alarms().raise(broken.domain(&name).cause(format!("the domain does not start: {why}")));
        services.estate.change(|p| drop(p.broken.insert(name, why.to_string())));
    }
    Ok(())
}

/// Starts the ledger of a domain.
pub(crate) async fn start_domain(
    services: &Services,
    name: &str,
    generation: u64,
) -> Result<(), kit::supervisor::SupervisorError> {
    let supervisor = SupervisorHandle::find(&services.node, &address("domain")?)?;
    let child = domain_address(name)?;
    let (s, name) = (services.clone(), name.to_owned());
    let spec = ChildSpec::worker(child, move |start| {
        let book = DomainBook { name: name.clone(), estate: s.estate.clone() };
        let (journal, stream) = (s.journal.clone(), format!("{}#{generation}", start.address));
        async move { Ledger::restore(book, journal, stream).await }
    });
    supervisor.start_child(spec.place(Placement::Spread)).await?;
    Ok(())
}

/// Stops it and takes the domain out of the picture.
pub(crate) async fn stop_domain(
    services: &Services,
    name: &str,
) -> Result<(), kit::supervisor::SupervisorError> {
    if services.estate.picture().broken.contains_key(name) {
        services.estate.change(|p| drop(p.broken.remove(name)));
        return Ok(());
    }
    let supervisor = SupervisorHandle::find(&services.node, &address("domain")?)?;
    supervisor.terminate_child(&domain_address(name)?).await?;
    services.estate.change(|p| drop(p.domains.remove(name)));
    Ok(())
}

fn address(name: &str) -> Result<Address, kit::LookupError> {
    Address::new(name).map_err(|_| kit::LookupError::Unnamed)
}

fn domain_address(name: &str) -> Result<Address, kit::LookupError> {
    address(&format!("domain/{name}"))
}
