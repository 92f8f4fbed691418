//! The family's place in the tree.
//!
//! ```text
//! mediator            rest_for_one
//! ├ mediator/journal    watches the writer of its journal
//! ├ mediator/settings   the ledger of its settings
//! ├ mediator/outbox     what the control point has not got yet
//! ├ mediator/desk       decides what goes where
//! ├ mediator/stream/0…3 E1 streams with the X.25 of their data channels
//! ├ mediator/speech     channels from the station into time slots
//! ├ mediator/point/1, 2 data channels over TCP
//! ├ mediator/handover   to agencies elsewhere (ETSI)
//! ├ mediator/station    the SSH session
//! └ mediator/radius     the accounting server; last, so that what it keeps can go on at once
//! ```

use std::{sync::Arc, time::Duration};

use kit::{
    Address, AddressError, ChildSpec, Strategy, SupervisorHandle, SupervisorSpec, ledger::Ledger,
    supervisor::SupervisorError,
};

use crate::{
    actor,
    book::{self, SettingsBook},
    handover,
    outbox::{self, Channel, OutboxBook},
    point, radius,
    services::Services,
    settings::{Property, STREAMS},
    speech, station, stream, task,
};

const NAME: &str = "mediator";

/// The family under the node's root.
pub fn child(services: &Services, journal: ChildSpec) -> Result<ChildSpec, AddressError> {
    let (s, o) = (services.clone(), services.clone());
    let turn = Arc::default();
    let mut spec = SupervisorSpec::new(Address::new(NAME)?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10))
        .child(journal)
        .child(ChildSpec::worker(Address::new(book::NAME)?, move |start| {
            let (journal, book) = (s.journal.clone(), SettingsBook(s.settings.clone()));
            async move { Ledger::restore_named(book, journal, &start).await }
        }))
        .child(ChildSpec::worker(Address::new(outbox::NAME)?, move |start| {
            let (journal, book) = (
                o.journal.clone(),
                OutboxBook { kept: o.kept.clone(), changed: o.changed.clone(), settings: o.settings.clone() },
            );
            async move { Ledger::restore_named(book, journal, &start).await }
        }))
        .child(actor::child(services)?);
    for number in 0..STREAMS {
        spec = spec.child(task::child(&stream::name(number), services, move |s| stream::serve(s, number))?);
    }
    spec = spec.child(task::child(speech::NAME, services, speech::serve)?);
    for channel in Channel::BOTH {
        spec = spec.child(task::child(&point::name(channel), services, move |s| point::serve(s, channel))?);
    }
    let station = move |s| station::serve(s, Arc::clone(&turn));
    let spec = spec
        .child(task::child(handover::NAME, services, handover::serve)?)
        .child(task::child(station::NAME, services, station)?)
        .child(task::child(radius::NAME, services, radius::serve)?);
    Ok(spec.into_child())
}

/// Whoever has read a setting begins anew; what is read at each use needs nobody.
fn readers(property: Property) -> Vec<String> {
    let streams = || (0..STREAMS).map(stream::name);
    let points = || Channel::BOTH.into_iter().map(point::name);
    let both = || vec![speech::NAME.to_owned(), station::NAME.to_owned()];
    match property {
        Property::Server
        | Property::ReserveServer
        | Property::SshPort
        | Property::User
        | Property::Password
        | Property::Autonomous => vec![station::NAME.to_owned()],
        Property::RadiusAddress | Property::RadiusPort | Property::Secret => vec![radius::NAME.to_owned()],
        Property::RtpAddress | Property::RtpPort => both(),
        Property::Link => streams().chain(points()).collect(),
        Property::ListenAddress | Property::TcpPort1 | Property::TcpPort2 | Property::ControlPoint => {
            points().collect()
        }
        Property::Circuit | Property::LogicalChannel => streams().collect(),
        // They are not speech any more, and what they were is.
        Property::Slot1 | Property::Slot2 => streams().chain(both()).collect(),
        // Speech is taken for it alone, too.
        Property::Handover => [vec![handover::NAME.to_owned()], both()].concat(),
        Property::HandoverName
        | Property::HandoverCa
        | Property::HandoverCertificate
        | Property::HandoverKey
        | Property::KeepAlive
        | Property::LiidPrefix
        | Property::Country
        | Property::Operator
        | Property::NetworkElement => vec![handover::NAME.to_owned()],
        Property::Timeout
        | Property::DigitZero
        | Property::Node
        | Property::ExtendedCodes
        | Property::CdpnAdd8
        | Property::Exit8To7
        | Property::Exit88To7
        | Property::CdpnAdd810 => Vec::new(),
    }
}

/// What follows a change of the settings.
pub(crate) async fn follow(services: &Services, change: &Changed) -> Result<(), SupervisorError> {
    let names = match change {
        Changed::Property(property) => readers(*property),
        // Its channels come or go, and the station is told how many are mixed.
        Changed::Stream(number) => {
            vec![format!("mediator/stream/{number}"), speech::NAME.to_owned(), station::NAME.to_owned()]
        }
        Changed::Keys => vec![station::NAME.to_owned()],
    };
    let unnamed = |_| kit::LookupError::Unnamed;
    let supervisor = SupervisorHandle::find(&services.node, &Address::new(NAME).map_err(unnamed)?)?;
    for name in names {
        let name = Address::new(&name).map_err(unnamed)?;
        supervisor.terminate_child(&name).await?;
        supervisor.restart_child(&name).await?;
    }
    Ok(())
}

/// What was changed.
#[derive(Debug, Clone)]
pub(crate) enum Changed {
    Property(Property),
    Stream(String),
    Keys,
}
