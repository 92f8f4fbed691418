//! The ledger of registrations, and the actor that ends them in time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{Estate, Registration};
use kit::{
    Actor, Cx, ExitReason,
    journal::Origin,
    ledger::{self, Book, LedgerMsg},
};
use strum::IntoStaticStr;

use crate::{
    registrar::{Locations, Refused, RegistrationEvent, Request, decide},
    transaction::{Flow, Transport},
    wire::uri::Uri,
};

/// Whether a contact cannot be reached but by the connection that its registration came by: browsers and TLS phones do not
/// listen, nor does a phone whose contact names the connection's own address.
fn only_by_connection(registration: &Registration) -> bool {
    let Ok(flow) = registration.received.parse::<Flow>() else { return false };
    match flow.transport {
        Transport::Udp => false,
        Transport::Tcp => {
            let named = Uri::parse(&registration.contact).ok().and_then(|u| u.socket());
            named.is_none_or(|at| at == flow.peer)
        }
        Transport::Tls | Transport::Ws | Transport::Wss => true,
    }
}

/// Where every subscriber can be reached.
pub struct RegistrationsBook {
    pub estate: Estate,
}

#[derive(Debug)]
pub enum RegistrationCommand {
    Register(Box<Request>),
    /// Ends what has run out by now.
    Expire(DateTime<Utc>),
    /// The connection that contacts came by has closed: those that can be reached no other way are gone.
    Closed {
        domain: String,
        iface: String,
        received: String,
    },
    /// An operator, or the end of the subscriber, ends all of an interface.
    Clear {
        domain: String,
        iface: String,
    },
}

impl Book for RegistrationsBook {
    type State = Locations;
    type Command = RegistrationCommand;
    type Answer = ();
    type Error = Refused;

    /// Old registrations are of no use to anybody.
    const FORGETS: bool = true;

    fn snapshot_every(&self, state: &Locations) -> u64 {
        state.count.max(500)
    }

    fn decide(
        &self,
        state: &Locations,
        command: RegistrationCommand,
    ) -> Result<(Vec<RegistrationEvent>, ()), Refused> {
        let events = match command {
            RegistrationCommand::Register(request) => decide(state, &request)?,
            RegistrationCommand::Expire(at) => {
                let mut contacts = state.all.values().flat_map(|i| i.values()).flat_map(|c| c.iter());
                match contacts.any(|r| r.expires <= at) {
                    true => vec![RegistrationEvent::Expired { at }],
                    false => vec![],
                }
            }
            RegistrationCommand::Closed { domain, iface, received } => {
                let gone = |r: &&Registration| r.received == received && only_by_connection(r);
                let contacts = state.contacts(&domain, &iface).iter();
                let keys: Vec<String> = contacts.filter(gone).map(|r| r.key.clone()).collect();
                match keys.is_empty() {
                    true => vec![],
                    false => vec![RegistrationEvent::Unregistered { domain, iface, keys }],
                }
            }
            RegistrationCommand::Clear { domain, iface } => {
                let keys: Vec<String> =
                    state.contacts(&domain, &iface).iter().map(|r| r.key.clone()).collect();
                match keys.is_empty() {
                    true => vec![],
                    false => vec![RegistrationEvent::Unregistered { domain, iface, keys }],
                }
            }
        };
        Ok((events, ()))
    }

    fn publish(&self, state: &Locations) {
        metrics::gauge!("hypha_sip_registrations").set(state.count as f64);
        self.estate.change(|p| p.registrations = state.all.clone());
    }

    fn summary(&self, state: &Locations) -> serde_json::Value {
        serde_json::json!({
            "contacts": state.count,
            "by_domain": state.all.iter().map(|(d, ifaces)| (d.clone(), ifaces.len())).collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}

/// How often registrations are looked through.
const EVERY: Duration = Duration::from_secs(2);

/// The actor `sip/expiry`.
pub(crate) struct Expiry;

#[derive(Debug, IntoStaticStr)]
pub(crate) enum ExpiryMsg {
    Look,
}

impl Actor for Expiry {
    type Msg = ExpiryMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.after(EVERY, ExpiryMsg::Look);
        Ok(())
    }

    fn handle(&mut self, ExpiryMsg::Look: ExpiryMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let ledger = kit::Address::new("sip/registrations").map_err(ExitReason::error)?;
        let ledger = cx.lookup::<LedgerMsg<RegistrationsBook>>(&ledger).map_err(ExitReason::error)?;
        let command = RegistrationCommand::Expire(cx.node().clock().steady());
        let changed = async move { ledger::change(&ledger, command, Origin::system()).await };
        cx.wait(changed, |_, changed, cx| {
            if let Err(e) = changed {
                tracing::warn!(error = %e, "registrations were not looked through");
            }
            cx.after(EVERY, ExpiryMsg::Look);
            Ok(())
        });
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "every_s": EVERY.as_secs() })
    }
}
