//! The family's place in the tree.
//!
//! ```text
//! call-records   keeps call records: `call/records`
//! call           dynamic: one actor a call, `domain/<NAME>/call/<ID>`
//! ```

use std::{sync::Arc, time::Duration};

use kit::{Address, AddressError, ChildSpec, Strategy, SupervisorSpec, journal::Journal};

use crate::records::Records;

/// Keeps records; before whatever makes calls.
pub fn records(journal: Arc<dyn Journal>) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new(crate::records::NAME)?, move |start| {
        let journal = journal.clone();
        async move { Records::restore(journal, start.node.clock().now()).await }
    }))
}

/// The calls; behind their signalling, since they end with it. A call that crashes is no reason to end others.
pub fn calls() -> Result<ChildSpec, AddressError> {
    Ok(SupervisorSpec::new(Address::new("call")?, Strategy::Dynamic)
        .intensity(1_000_000, Duration::from_secs(1))
        .into_child())
}
