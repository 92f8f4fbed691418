//! The root of a mediator's tree.
//!
//! ```text
//! root            rest_for_one
//! ├ store/journal   watches the journal's writer
//! ├ accounts        operators
//! ├ mediator        stations on one side, the control point on the other
//! ├ alarms          masks, messages to a webhook
//! ├ cocon           the SSH front
//! ├ web             the web admin
//! ├ metrics         keeps histograms current
//! └ watchdog        where systemd asks for one
//! ```

use std::{path::Path, sync::Arc, time::Duration};

use access::Accounts;
use command::{SessionInfo, Tree};
use kit::{Address, Node, Strategy, SupervisorSpec, journal::Journal};
use mediator::services::{Lines, Services};
use sorm::journal::SealedJournal;
use store::SqliteJournal;

use crate::{
    boot::House,
    commands,
    config::Config,
    run::{audit, interceptions_key},
};

/// Its own journal, sealed; a node has none of this name.
pub const JOURNAL: &str = "mediator.db";

/// A mediator with its commands.
pub fn house(config: &Config, data: &Path, node: &Node) -> Result<House, Box<dyn std::error::Error>> {
    let journal = SqliteJournal::open(&data.join("journal.db"))?;
    let shared: Arc<dyn Journal> = Arc::new(journal.clone());
    let accounts: Arc<arc_swap::ArcSwap<Accounts>> = Arc::default();
    let vault = interceptions_key(config, data, JOURNAL)?;
    let own = SqliteJournal::open_quiet(&data.join(JOURNAL))?;
    own.prove(&*vault)?;
    let services = Services {
        node: node.clone(),
        journal: Arc::new(SealedJournal::new(Arc::new(own.clone()), vault.clone())),
        audit: audit(data, vault.clone(), node)?,
        vault,
        two_persons: config.sorm.two_persons,
        settings: Arc::default(),
        kept: Arc::default(),
        changed: tokio::sync::watch::channel(()).0,
        board: mediator::services::Board::default(),
        tap: mediator::handover::Tap::default(),
        lines: Lines::start()?,
    };
    let mut tree = Tree::default();
    commands::register(&mut tree, node, &shared)?;
    let visits = access::Visits::default();
    access::register(&mut tree, node, &accounts, &visits, None)?;
    let masks = alarms::Published::default();
    alarms::register(&mut tree, node, &masks)?;
    mediator::commands::register(&mut tree, &services)?;
    let watcher = store::child(Address::new("mediator/journal")?, own);
    let alarmed = shared.clone();
    let root = SupervisorSpec::new(Address::new("root")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(30))
        .child(store::child(Address::new("store/journal")?, journal))
        .child(access::child(Address::new("accounts")?, shared, accounts.clone()))
        .child(mediator::child(&services, watcher)?);
    let info = SessionInfo { node: node.name().to_owned(), installation: Arc::new(String::new) };
    let optional = vec![alarms::child(alarmed, masks, config.alarms.target()?, Some(data.to_owned()))?];
    Ok(House {
        node: node.clone(),
        tree: Arc::new(tree),
        accounts,
        visits,
        drain: None,
        info,
        root,
        optional,
    })
}
