//! The supervision tree as a picture of one moment.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{Address, Node, Pid, VitalsView, spec::Kind, supervisor::Status};

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
