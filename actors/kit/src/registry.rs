//! Names to actors.

use std::sync::Arc;

use dashmap::{DashMap, mapref::entry::Entry};

use crate::{Address, Cell, Mailbox, actor::Message, host::Envelope};

/// Who has which name on this node.
#[derive(Default)]
pub struct Registry {
    names: DashMap<Address, Arc<Cell>>,
}

/// Why a name led to no mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("there is no actor named {0}")]
    NotFound(Address),
    #[error("that is no name of an actor")]
    Unnamed,
    #[error("the actor named {0} does not take such messages")]
    OtherProtocol(Address),
}

impl Registry {
    /// The mailbox of the actor that has this name.
    pub fn lookup<M: Message>(&self, name: &Address) -> Result<Mailbox<M>, LookupError> {
        let cell = self.find(name).ok_or_else(|| LookupError::NotFound(name.clone()))?;
        match cell.inbox.downcast_ref::<actix::Recipient<Envelope<M>>>() {
            Some(to) => Ok(Mailbox::new(cell.clone(), to.clone())),
            None => Err(LookupError::OtherProtocol(name.clone())),
        }
    }

    pub fn find(&self, name: &Address) -> Option<Arc<Cell>> {
        self.names.get(name).map(|c| c.clone())
    }

    /// All actors, in no order.
    pub fn all(&self) -> Vec<Arc<Cell>> {
        self.names.iter().map(|c| c.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Waits, for a moment, for a holder of the name that is about to end.
    pub(crate) async fn vacated(&self, name: &Address) {
        if let Some(holder) = self.find(name) {
            let (tx, rx) = tokio::sync::oneshot::channel();
            holder.watch(None, move |_| {
                let _ = tx.send(());
            });
            let _ = tokio::time::timeout(Self::VACATE, rx).await;
        }
    }

    /// How long a start waits for its name.
    const VACATE: std::time::Duration = std::time::Duration::from_secs(2);

    /// Takes a free name; `false` when somebody has it.
    pub(crate) fn register(&self, cell: &Arc<Cell>) -> bool {
        match self.names.entry(cell.address().clone()) {
            Entry::Vacant(free) => {
                free.insert(cell.clone());
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Gives a name up, if this life of the actor still has it.
    pub(crate) fn unregister(&self, cell: &Cell) {
        self.names.remove_if(cell.address(), |_, held| held.pid() == cell.pid());
    }
}
