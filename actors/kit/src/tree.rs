//! The supervision tree as a picture of one moment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{Address, Cell, Node, Pid, VitalsView, spec::Kind, supervisor::Status};

/// A child that is not running now.
#[derive(Debug, Clone, Serialize)]
pub struct Absent {
    pub address: Address,
    pub status: Status,
    pub restarts: u32,
    pub kind: Kind,
}

/// One actor in the picture.
#[derive(Debug, Clone, Serialize)]
pub struct Leaf {
    pub address: Address,
    pub parent: Option<Address>,
    pub kind: Kind,
    pub status: Status,
    pub restarts: u32,
    pub pid: Option<Pid>,
    pub actor: Option<&'static str>,
    pub started: Option<DateTime<Utc>>,
    pub vitals: Option<VitalsView>,
    pub traced: bool,
}

/// All actors, running or not, in order of their start (children after their supervisor).
pub fn picture(node: &Node) -> Vec<Leaf> {
    let mut cells = node.registry().all();
    cells.sort_by_key(|c| c.pid());
    let mut leaves = Vec::with_capacity(cells.len());
    for cell in &cells {
        leaves.push(Leaf {
            address: cell.address().clone(),
            parent: cell.parent().cloned(),
            kind: cell.kind(),
            status: Status::Running,
            restarts: cell.restarts(),
            pid: Some(cell.pid()),
            actor: Some(cell.type_name()),
            started: Some(cell.started_at()),
            vitals: Some(cell.vitals(node.quanta())),
            traced: cell.is_traced(),
        });
    }
    for cell in &cells {
        for absent in cell.absent.lock().iter() {
            if leaves.iter().any(|l| l.address == absent.address) {
                continue;
            }
            leaves.push(Leaf {
                address: absent.address.clone(),
                parent: Some(cell.address().clone()),
                kind: absent.kind,
                status: absent.status,
                restarts: absent.restarts,
                pid: None,
                actor: None,
                started: None,
                vitals: None,
                traced: false,
            });
        }
    }
    leaves
}

/// What the actors of one type have done together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Running now.
    pub actors: u64,
    /// Messages waiting now.
    pub mailbox: u64,
    pub handled: u64,
    pub refused: u64,
    /// Time spent in handlers, microseconds.
    pub busy_us: u64,
}

/// Totals by Rust type, without generic arguments and modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals(pub BTreeMap<&'static str, Total>);

impl Totals {
    pub(crate) fn add(&mut self, cell: &Cell, clock: &quanta::Clock, alive: bool) {
        let vitals = cell.vitals(clock);
        let total = self.0.entry(short(cell.type_name())).or_default();
        if alive {
            total.actors += 1;
            total.mailbox += u64::from(vitals.mailbox);
        }
        total.handled += vitals.handled;
        total.refused += vitals.refused;
        total.busy_us += vitals.busy_us;
    }
}

/// `Ledger<DomainBook>` says more as `DomainBook`, `supervisor::actor::Supervisor` as `Supervisor`.
fn short(type_name: &'static str) -> &'static str {
    let inner = type_name.split_once('<').map_or(type_name, |(_, inner)| inner.trim_end_matches('>'));
    inner.rsplit("::").next().unwrap_or(inner)
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn type_names_are_short() {
        assert_eq!(short("kit::ledger::Ledger<domain::actor::DomainBook>"), "DomainBook");
        assert_eq!(short("kit::supervisor::actor::Supervisor"), "Supervisor");
        assert_eq!(short("u8"), "u8");
    }
}
