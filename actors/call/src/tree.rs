//! The family's place in the tree.
//!
//! ```text
//! call-records   keeps call records: `call/records`
//! call-files     writes them into files: `call/cdr-files`
//! call           dynamic: one actor a call, `domain/<NAME>/call/<ID>`
//! ```

use std::{path::PathBuf, sync::Arc, time::Duration};

use domain::Estate;
use kit::{
    Address, AddressError, ChildSpec, Placement, Shutdown, Strategy, SupervisorSpec, journal::Journal,
};

use crate::{files::CdrFiles, records::Records};

/// How long a disk may take to write the last records before the node stops without them.
pub(crate) const WRITING: Duration = Duration::from_secs(30);

/// Keeps records; before whatever makes calls.
pub fn records(journal: Arc<dyn Journal>, keep: Option<Duration>) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new(crate::records::NAME)?, move |start| {
        let journal = journal.clone();
        async move { Records::restore(journal, start.node.clock().now(), keep).await }
    })
    .shutdown(Shutdown::After(WRITING)))
}

/// Writes records into files for billing; behind the records.
pub fn files(journal: Arc<dyn Journal>, estate: Estate, dir: PathBuf) -> Result<ChildSpec, AddressError> {
    // Disks make one wait, and this one is waited for.
    Ok(ChildSpec::worker(Address::new(crate::files::NAME)?, move |start| {
        let (journal, estate, dir) = (journal.clone(), estate.clone(), dir.clone());
        async move { CdrFiles::restore(journal, estate, dir, start.node.alarms().clone()).await }
    })
    .place(Placement::Apart("files")))
}

/// The calls; behind their signalling, since they end with it. A call that crashes is no reason to end others.
pub fn calls() -> Result<ChildSpec, AddressError> {
    Ok(SupervisorSpec::new(Address::new("call")?, Strategy::Dynamic)
        .intensity(1_000_000, Duration::from_secs(1))
        .into_child())
}
