//! Switching a subscriber's services, whoever asks: an operator, a dialled code, a phone's own menu.

use domain::{DomainBook, DomainCommand, Estate};
use kit::{
    Address, Node,
    journal::Origin,
    ledger::{self, LedgerMsg},
};

use crate::service::Service;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Switch {
    pub domain: String,
    pub addresses: Vec<String>,
    pub service: Service,
    pub active: bool,
    /// `number`, `timeout`, `limit`; what is not given stays.
    pub options: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    #[error("the licence does not grant {0}")]
    Licence(Service),
    #[error("{0} wants --number")]
    Number(Service),
    #[error("{0} wants --script")]
    Script(Service),
    #[error("there is no domain {0}")]
    NoDomain(String),
    #[error("{0}")]
    Refused(String),
}

/// Switches a service, where the licence grants it and it has what it needs.
pub async fn switch(node: &Node, estate: &Estate, wanted: Switch, origin: Origin) -> Result<(), SwitchError> {
    let Switch { domain, addresses, service, active, options } = wanted;
    let picture = estate.picture();
    if active && !picture.allows(service.name(), node.clock().now()) {
        return Err(SwitchError::Licence(service));
    }
    let has = |what: &str, a: &String| {
        let known = picture.domains.get(&domain).and_then(|d| d.services.get(a)?.get(service.name()));
        known.is_some_and(|k| k.options.contains_key(what))
    };
    let missing = |what: &str| {
        let given = options.iter().any(|(n, v)| n == what && !v.is_empty());
        active && !given && !addresses.iter().all(|a| has(what, a))
    };
    if service.wants_number() && missing("number") {
        return Err(SwitchError::Number(service));
    }
    if service == Service::PersonalIvr && missing("script") {
        return Err(SwitchError::Script(service));
    }
    let ledger = Address::new(format!("domain/{domain}"))
        .ok()
        .and_then(|a| node.registry().lookup::<LedgerMsg<DomainBook>>(&a).ok())
        .ok_or(SwitchError::NoDomain(domain))?;
    let command = DomainCommand::SetService { addresses, service: service.name().into(), active, options };
    ledger::change(&ledger, command, origin).await.map_err(|e| SwitchError::Refused(e.to_string()))
}
