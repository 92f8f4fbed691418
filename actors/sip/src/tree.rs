//! The family's place in the tree.
//!
//! ```text
//! sip                  rest_for_one
//! ├ call/records       keeps call records
//! ├ sip/registrations  where every subscriber can be reached
//! ├ sip/endpoint       sockets, transactions, legs
//! └ call               dynamic: one actor a call; they end with their signalling
//! ```
//!
//! Beside it, since no call ends with them: `sip/expiry` ends registrations in time, `call/cdr-files` writes call records into files.

use std::{sync::Arc, time::Duration};

use domain::Estate;
use kit::{
    Address, AddressError, ChildSpec, Strategy, SupervisorSpec, Vault, journal::Journal, ledger::Ledger,
    throttle::Throttle,
};

use parking_lot::Mutex;
use rand::RngCore;

use crate::{
    digest::{Authenticator, Offer},
    endpoint::{EndpointActor, Listen, Registrar},
    health::TrunksHealth,
    location::{Expiry, RegistrationsBook},
};

/// What the family needs.
#[derive(Clone)]
pub struct Settings {
    pub estate: Estate,
    pub journal: Arc<dyn Journal>,
    pub vault: Arc<dyn Vault>,
    /// Where SIP comes in; none in replays.
    pub listen: Option<Listen>,
    pub digest: Offer,
    pub calls: call::Services,
    pub health: TrunksHealth,
    /// How long call records are kept; none: for ever.
    pub keep_records: Option<Duration>,
}

/// The actors beside the family, which no call needs.
pub fn duties(settings: &Settings) -> Result<Vec<ChildSpec>, AddressError> {
    let mut all = vec![ChildSpec::worker(Address::new("sip/expiry")?, move |_| async move { Ok(Expiry) })];
    // Replays keep no files.
    if let (Some(dir), Some(_)) = (settings.calls.files.clone(), &settings.listen) {
        all.push(call::files(settings.journal.clone(), settings.estate.clone(), dir.join("cdr"))?);
    }
    Ok(all)
}

/// The family under the node's root.
pub fn child(settings: &Settings) -> Result<ChildSpec, AddressError> {
    let s = settings.clone();
    let spec = SupervisorSpec::new(Address::new("sip")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10))
        .child(call::records(settings.journal.clone(), settings.keep_records)?)
        .child(ChildSpec::worker(Address::new("sip/registrations")?, move |start| {
            let s = s.clone();
            let book = RegistrationsBook { estate: s.estate };
            async move { Ledger::restore_named(book, s.journal, &start).await }
        }));
    let Some(listen) = settings.listen.clone() else { return Ok(spec.into_child()) };
    let s = settings.clone();
    // Nonces and counts of failures outlive a restart of the sockets.
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    let start = tokio::time::Instant::now().into_std();
    let authenticator = Arc::new(Mutex::new(Authenticator::new(key, settings.digest, start)));
    let throttle = Arc::new(Mutex::new(Throttle::new(listen.intake.limits())));
    let refusals = Arc::new(Mutex::new(kit::Seldom::new(5)));
    let endpoint = ChildSpec::worker(Address::new("sip/endpoint")?, move |start| {
        let registrar = Registrar {
            node: start.node,
            estate: s.estate.clone(),
            vault: s.vault.clone(),
            authenticator: authenticator.clone(),
            throttle: Arc::clone(&throttle),
            refusals: Arc::clone(&refusals),
        };
        let (calls, health, listen) = (s.calls.clone(), s.health.clone(), listen.clone());
        async move { EndpointActor::bind(registrar, calls, health, listen).await }
    });
    Ok(spec.child(endpoint).child(call::calls()?).into_child())
}
