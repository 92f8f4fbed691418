//! The family's place in the tree.
//!
//! ```text
//! call-records   keeps call records: `call/records`
//! call           dynamic: one actor a call, `domain/<NAME>/call/<ID>`
//! ```

use std::{sync::Arc, time::Duration};

use kit::{Address, AddressError, ChildSpec, Strategy, SupervisorSpec, journal::Journal};
use tokio::sync::broadcast;

use crate::{record::Cdr, records::Records};

/// Records that a slow reader may be behind.
const BEHIND: usize = 10_000;

/// Where finished records are told of.
#[derive(Clone)]
pub struct Written(pub broadcast::Sender<Arc<Cdr>>);

impl Default for Written {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

/// Keeps records; before whatever makes calls.
pub fn records(journal: Arc<dyn Journal>, written: &Written) -> Result<ChildSpec, AddressError> {
    let written = written.clone();
    Ok(ChildSpec::worker(Address::new(crate::records::NAME)?, move |start| {
        let (journal, written) = (journal.clone(), written.0.clone());
        async move { Records::restore(journal, written, start.node.clock().now()).await }
    }))
}

/// The calls; behind their signalling, since they end with it. A call that crashes is no reason to end others.
pub fn calls() -> Result<ChildSpec, AddressError> {
    Ok(SupervisorSpec::new(Address::new("call")?, Strategy::Dynamic)
        .intensity(1_000_000, Duration::from_secs(1))
        .into_child())
}
