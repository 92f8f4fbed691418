//! The family's place in the tree.
//!
//! ```text
//! ivr           one_for_one
//! ├ ivr/scripts   all domains' scripts
//! └ ivr/runs      dynamic, temporary: domain/<NAME>/ivr/<ID>, one for each caller
//! ```

use std::{sync::Arc, time::Duration};

use kit::{Address, AddressError, ChildSpec, Strategy, SupervisorSpec, journal::Journal};

use crate::{
    actor::{RUNS, Services},
    library,
};

/// The family; before the calls that scripts answer.
pub fn child(services: &Services, journal: Arc<dyn Journal>) -> Result<ChildSpec, AddressError> {
    let runs = SupervisorSpec::new(Address::new(RUNS)?, Strategy::Dynamic)
        .intensity(1_000_000, Duration::from_secs(1))
        .into_child();
    Ok(SupervisorSpec::new(Address::new("ivr")?, Strategy::OneForOne)
        .child(library::child(journal, services.library.clone())?)
        .child(runs)
        .into_child())
}
