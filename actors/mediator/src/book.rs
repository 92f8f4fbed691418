//! The ledger of the settings.

use std::{fmt, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use kit::{Sealed, journal::Fold, ledger::Book};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::settings::{OfStream, Property, SettingError, Settings};

pub const NAME: &str = "mediator/settings";

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum SettingsEvent {
    Set(Property, String),
    Sealed(Property, Option<Sealed>),
    Stream(String, OfStream, String),
    HostKey(SocketAddr, String),
    KeysForgotten,
}

pub enum SettingsCommand {
    Set(Property, String),
    Seal(Property, Option<Sealed>),
    Stream(String, OfStream, String),
    /// A station's key, where it has none yet.
    HostKey(SocketAddr, String),
    ForgetKeys,
}

impl fmt::Debug for SettingsCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(property, _) | Self::Seal(property, _) => write!(f, "Set {property}"),
            Self::Stream(number, property, _) => write!(f, "Set {property} of stream {number}"),
            Self::HostKey(at, _) => write!(f, "HostKey {at}"),
            Self::ForgetKeys => f.write_str("ForgetKeys"),
        }
    }
}

/// Everything set so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct State(pub Settings);

impl Fold for State {
    type Event = SettingsEvent;

    fn apply(&mut self, event: &SettingsEvent) {
        // Events were checked when they were decided; a value that a later version refuses is left as it was.
        let outcome = match event {
            SettingsEvent::Set(property, value) => self.0.set(*property, value),
            SettingsEvent::Sealed(property, sealed) => {
                self.0.set_sealed(*property, sealed.clone());
                Ok(())
            }
            SettingsEvent::Stream(number, property, value) => self.0.set_stream(number, *property, value),
            SettingsEvent::HostKey(at, key) => {
                self.0.host_keys.insert(*at, key.clone());
                Ok(())
            }
            SettingsEvent::KeysForgotten => {
                self.0.host_keys.clear();
                Ok(())
            }
        };
        if let Err(e) = outcome {
            tracing::warn!(error = %e, "a setting of an earlier version does not hold any more");
        }
    }
}

pub struct SettingsBook(pub Arc<ArcSwap<Settings>>);

impl Book for SettingsBook {
    type State = State;
    type Command = SettingsCommand;
    type Answer = ();
    type Error = SettingError;

    fn decide(
        &self,
        state: &State,
        command: SettingsCommand,
    ) -> Result<(Vec<SettingsEvent>, ()), SettingError> {
        let mut tried = state.0.clone();
        let event = match command {
            SettingsCommand::Set(property, value) => {
                tried.set(property, &value)?;
                SettingsEvent::Set(property, value)
            }
            SettingsCommand::Seal(property, sealed) => SettingsEvent::Sealed(property, sealed),
            SettingsCommand::Stream(number, property, value) => {
                tried.set_stream(&number, property, &value)?;
                SettingsEvent::Stream(number, property, value)
            }
            SettingsCommand::HostKey(at, _) if state.0.host_keys.contains_key(&at) => {
                return Ok((Vec::new(), ()));
            }
            SettingsCommand::HostKey(at, key) => SettingsEvent::HostKey(at, key),
            SettingsCommand::ForgetKeys => SettingsEvent::KeysForgotten,
        };
        Ok((vec![event], ()))
    }

    fn publish(&self, state: &State) {
        self.0.store(Arc::new(state.0.clone()));
    }

    fn summary(&self, state: &State) -> serde_json::Value {
        let shown = state.0.streams.iter().map(|s| serde_json::json!(s)).collect::<Vec<_>>();
        serde_json::json!({ "user": state.0.user, "streams": shown })
    }
}
