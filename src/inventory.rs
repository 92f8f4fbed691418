//! Files of the data directory that a start makes where they are not there. One that was there before has been lost: the node
//! works on without it, and says so.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use kit::alarm::{Alarms, Condition, Severity};

/// Where the names of those that have been made stand, one a line.
const FILE: &str = "inventory";

/// Names, and the loss of each.
const MADE: &[(&str, &str)] = &[
    ("journal.db-mark", "a loss at the end of the journal before this start cannot be seen"),
    ("sorm.db-mark", "a loss at the end of interception's journal before this start cannot be seen"),
    ("mediator.db-mark", "a loss at the end of the journal before this start cannot be seen"),
    (sorm::audit::FILE, "interception's audit before this start is gone"),
    ("ssh_host_ed25519_key", "operators' programs are shown another host key"),
    ("ssh_host_ecdsa_key", "operators' programs are shown another host key"),
    ("sorm_host_ed25519_key", "mediators are shown another host key"),
    ("sorm_host_ecdsa_key", "mediators are shown another host key"),
    ("metrics.token", "programs that read /metrics want the new token"),
    ("speech.token", "programs that use speech want the new token"),
];

/// Whether a start before this one made the file.
pub fn was_made(data: &Path, name: &str) -> bool {
    std::fs::read_to_string(data.join(FILE)).is_ok_and(|all| all.lines().any(|line| line == name))
}

/// Raises an alarm for each file that has been lost; before any is made.
pub fn look(data: &Path, alarms: &Alarms, loss_accepted: bool) {
    if loss_accepted {
        let accepted = Condition::new("node::journal::loss_accepted", Severity::Major, "journals");
        alarms.raise(
            accepted.cause(
                "the node was started with --accept-loss: changes that a journal had lost are given up",
            ),
        );
    }
    for (name, loss) in MADE {
        let given_up = loss_accepted && name.ends_with("-mark");
        if !given_up && !data.join(name).exists() && was_made(data, name) {
            let missing = Condition::new("node::file::missing", Severity::Major, *name);
            alarms
                .raise(missing.cause(format!("it was missing at the start and has been made anew: {loss}")));
        }
    }
}

/// Keeps the names of those that are there.
///
/// # Errors
/// The list cannot be written.
pub fn keep(data: &Path) -> std::io::Result<()> {
    let there = MADE.iter().filter(|(name, _)| data.join(name).exists());
    let names: String = there.map(|(name, _)| format!("{name}\n")).collect();
    if std::fs::read_to_string(data.join(FILE)).is_ok_and(|kept| kept == names) {
        return Ok(());
    }
    let new = data.join("inventory.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(names.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, data.join(FILE))
}
