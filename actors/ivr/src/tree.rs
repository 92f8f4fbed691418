//! The family's place in the tree.
//!
//! ```text
//! ivr           one_for_one
//! ├ ivr/scripts   all domains' scripts
//! ├ ivr/mail      all domains' mailboxes
//! ├ ivr/queues    dynamic, temporary: domain/<NAME>/queue/<QUEUE>
//! └ ivr/runs      dynamic, temporary: domain/<NAME>/ivr/<ID>, one for each caller, and …/asr/<N>, one for each stream heard
//! ```

use std::{sync::Arc, time::Duration};

use kit::{
    Address, AddressError, ChildSpec, Node, Strategy, SupervisorHandle, SupervisorSpec, journal::Journal,
};

use crate::{
    actor::{RUNS, Services},
    library, mail,
    queue::QUEUES,
};

/// Starts a child that does not come back when it ends, under one of the family's dynamic supervisors.
pub(crate) async fn start(node: &Node, supervisor: &str, child: ChildSpec) -> Result<(), String> {
    let supervisor = Address::new(supervisor).map_err(|e| e.to_string())?;
    SupervisorHandle::start_temporary(node, &supervisor, child).await.map_err(|e| e.to_string())
}

/// The family; before the calls that scripts answer.
pub fn child(services: &Services, journal: Arc<dyn Journal>) -> Result<ChildSpec, AddressError> {
    let many = |name| -> Result<ChildSpec, AddressError> {
        let spec = SupervisorSpec::new(Address::new(name)?, Strategy::Dynamic);
        Ok(spec.intensity(1_000_000, Duration::from_secs(1)).into_child())
    };
    let (estate, mail) = (services.estate.clone(), services.mail.clone());
    Ok(SupervisorSpec::new(Address::new("ivr")?, Strategy::OneForOne)
        .child(library::child(journal.clone(), services.library.clone())?)
        .child(mail::child(journal, mail, estate)?)
        .child(many(QUEUES)?)
        .child(many(RUNS)?)
        .into_child())
}
