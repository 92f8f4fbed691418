//! Masks as a fold over their events.

use std::{collections::BTreeMap, sync::Arc};

use kit::{
    alarm::{Alarms, Selection},
    journal::Fold,
    ledger::Book,
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::Published;

/// Masks at one time.
const MOST: usize = 1000;

/// Alarms that an operator wants to hear nothing of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    #[serde(flatten)]
    pub selection: Selection,
    /// The operator that set it.
    pub by: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Masks {
    pub all: BTreeMap<u64, Mask>,
    next: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum MaskEvent {
    #[strum(serialize = "AlarmMaskAdded")]
    Added { number: u64, mask: Mask },
    #[strum(serialize = "AlarmMaskRemoved")]
    Removed { number: u64 },
}

impl Fold for Masks {
    type Event = MaskEvent;

    fn apply(&mut self, event: &MaskEvent) {
        match event {
            MaskEvent::Added { number, mask } => {
                self.all.insert(*number, mask.clone());
                self.next = self.next.max(*number);
            }
            MaskEvent::Removed { number } => drop(self.all.remove(number)),
        }
    }
}

#[derive(Debug)]
pub enum MaskCommand {
    Add(Mask),
    Remove(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("mask {0} hides these alarms already")]
    Exists(u64),
    #[error("there is no mask {0}; alarms/mask/list shows all")]
    NotFound(u64),
    #[error("there are {MOST} masks already")]
    Many,
}

/// The masks' ledger; it puts them in force.
pub struct MasksBook {
    pub published: Published,
    pub alarms: Alarms,
}

impl Book for MasksBook {
    type State = Masks;
    type Command = MaskCommand;
    type Answer = u64;
    type Error = MaskError;

    fn decide(&self, state: &Masks, command: MaskCommand) -> Result<(Vec<MaskEvent>, u64), MaskError> {
        match command {
            MaskCommand::Add(mask) => {
                if let Some((number, _)) = state.all.iter().find(|(_, m)| m.selection == mask.selection) {
                    return Err(MaskError::Exists(*number));
                }
                if state.all.len() >= MOST {
                    return Err(MaskError::Many);
                }
                let number = state.next + 1;
                Ok((vec![MaskEvent::Added { number, mask }], number))
            }
            MaskCommand::Remove(number) if state.all.contains_key(&number) => {
                Ok((vec![MaskEvent::Removed { number }], number))
            }
            MaskCommand::Remove(number) => Err(MaskError::NotFound(number)),
        }
    }

    fn publish(&self, state: &Masks) {
        self.alarms.set_masks(state.all.values().map(|m| m.selection.clone()).collect());
        self.published.store(Arc::new(state.clone()));
    }

    fn summary(&self, state: &Masks) -> serde_json::Value {
        serde_json::json!({ "masks": state.all.len() })
    }
}
