//! The family's place in the tree.
//!
//! ```text
//! sorm             rest_for_one
//! ├ sorm/journal     watches the writer of its journal (not in replays)
//! ├ sorm/aggregates  log-ins that stand for several domains
//! ├ sorm/domains     dynamic: a domain's ledger `domain/<D>/sorm`, and what tells each of its mediators,
//! │                  `domain/<D>/sorm/<MEDIATOR>`
//! ├ sorm/keeper      starts and stops them with domains and settings; ends what nobody has ordered
//! ├ sorm/sessions    dynamic: one actor for each mediator that is logged in
//! ├ sorm/ssh         the listener (not in replays)
//! ├ sorm/multi       the same for MultiSORM, one port further
//! └ sorm/multi-ssh
//! ```

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use access::{Door, ssh};
use call::{CallMsg, LegId};
use chrono::{DateTime, Utc};
use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Strategy, SupervisorHandle, SupervisorSpec,
    intake::SshIntake,
    journal::Origin,
    ledger::{Ledger, change_at},
    supervisor::SupervisorError,
};
use russh::{MethodKind, keys::PrivateKey};
use strum::IntoStaticStr;

use crate::{
    audit::Entry,
    intercept::{Interception, Services},
    multi::{self, MultiBook},
    session::{Peer, join, order},
    settings::Mediator,
    station::{Object, Order},
    stations::{StationBook, StationCommand, interception, ledger},
};

/// Between two looks at domains and taps.
const LOOK: Duration = Duration::from_secs(1);
/// Mediators logged in at once.
const SESSIONS: usize = 256;
/// Mediators keep their sessions open; silence is answered by keep-alives.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Where mediators come in.
#[derive(Clone)]
pub struct Front {
    pub listen: SocketAddr,
    pub keys: Vec<PrivateKey>,
    pub intake: SshIntake,
}

impl Front {
    /// The listener of either kind. MultiSORM's port is the next one.
    fn listen(&self, services: &Services, multi: bool) -> Result<ssh::Listen, AddressError> {
        let (configured, aggregates) = (self.listen, services.multi.clone());
        let at = move || {
            let mut at = configured;
            at.set_port(aggregates.all().ssh_port.unwrap_or(configured.port()));
            if multi && at.port() != 0 {
                at.set_port(at.port().saturating_add(1));
            }
            at
        };
        let (listener, connections, what) = match multi {
            false => ("sorm/ssh", "sorm/sessions", "mediators"),
            true => ("sorm/multi-ssh", "sorm/multi", "mediators of several domains"),
        };
        Ok(ssh::Listen {
            listener: Address::new(listener)?,
            connections: Address::new(connections)?,
            what,
            at: Arc::new(at),
            thread: "mediators",
            keys: self.keys.clone(),
            limit: SESSIONS,
            intake: self.intake,
            idle: IDLE,
            methods: &[MethodKind::Password],
            bound: tokio::sync::watch::channel(None).0,
        })
    }
}

/// Listeners take the port that is set now.
pub(crate) fn rebind(services: &Services) {
    for name in ["sorm/ssh", "sorm/multi-ssh"] {
        let listener = Address::new(name).ok();
        let listener = listener.and_then(|n| services.node.registry().lookup::<ssh::ListenerMsg>(&n).ok());
        if let Some(listener) = listener {
            let _ = listener.tell(ssh::ListenerMsg::Bind);
        }
    }
}

/// The family under the node's root.
pub fn child(
    services: &Services,
    journal: Option<ChildSpec>,
    front: Option<&Front>,
) -> Result<ChildSpec, AddressError> {
    let (s, aggregates) = (services.clone(), services.clone());
    let mut spec = SupervisorSpec::new(Address::new("sorm")?, Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10));
    if let Some(journal) = journal {
        spec = spec.child(journal);
    }
    spec = spec
        .child(ChildSpec::worker(Address::new(multi::NAME)?, move |start| {
            let (journal, multi) = (aggregates.journal.clone(), aggregates.multi.clone());
            async move { Ledger::restore_named(MultiBook(multi), journal, &start).await }
        }))
        .child(
            SupervisorSpec::new(domains()?, Strategy::Dynamic)
                .intensity(20, Duration::from_secs(10))
                .into_child(),
        )
        .child(ChildSpec::worker(Address::new("sorm/keeper")?, move |_| {
            let services = s.clone();
            async move { Ok(Keeper { services, strays: BTreeSet::new(), looked: None }) }
        }));
    if let Some(front) = front {
        for multi in [false, true] {
            let listen = front.listen(services, multi)?;
            let accounts = if multi { services.multi.accounts() } else { services.stations.accounts() };
            let services = services.clone();
            match Door::new(accounts.clone(), front.intake.limits()) {
                Ok(door) => {
                    let peer = move |arrival| Peer::new(arrival, services.clone(), door.clone(), multi);
                    for child in ssh::children(listen, peer)? {
                        spec = spec.child(child);
                    }
                }
                // Without randomness there are no passwords, and no interception that could be trusted.
                Err(e) => tracing::error!(error = %e, "no door for mediators"),
            }
        }
    }
    Ok(spec.into_child())
}

fn domains() -> Result<Address, AddressError> {
    Address::new("sorm/domains")
}

/// Starts what a domain needs, as far as it does not run: its ledger, and an actor for each mediator.
pub async fn ensure(services: &Services, domain: &str, generation: u64) -> Result<(), SupervisorError> {
    let unnamed = |_| kit::LookupError::Unnamed;
    let supervisor = SupervisorHandle::find(&services.node, &domains().map_err(unnamed)?)?;
    let runs = |name: &Address| services.node.registry().find(name).is_some();
    let Some(name) = ledger(domain) else { return Ok(()) };
    if !runs(&name) {
        let (s, of) = (services.clone(), domain.to_owned());
        let spec = ChildSpec::worker(name, move |start| {
            let book = StationBook {
                domain: of.clone(),
                estate: s.estate.clone(),
                stations: s.stations.clone(),
                sorm: s.sorm,
                multi: s.multi.clone(),
            };
            let (journal, stream) = (s.journal.clone(), format!("{}#{generation}", start.address));
            async move { Ledger::restore(book, journal, stream).await }
        });
        supervisor.ensure_child(spec).await?;
    }
    let mediators: Vec<Mediator> = services
        .stations
        .get(domain)
        .map(|s| s.settings.radius_servers.keys().copied().collect())
        .unwrap_or_default();
    for mediator in mediators {
        let Some(name) = interception(domain, mediator).filter(|n| !runs(n)) else { continue };
        let (s, of) = (services.clone(), domain.to_owned());
        let spec = ChildSpec::worker(name, move |_| {
            Interception::restore(s.clone(), of.clone(), generation, mediator)
        });
        supervisor.ensure_child(spec).await?;
        services.stations.runs(domain, mediator, true);
    }
    Ok(())
}

/// Stops what belongs to a domain or a mediator that is no more.
async fn stop(services: &Services, name: &Address) -> Result<(), SupervisorError> {
    let unnamed = |_| kit::LookupError::Unnamed;
    let supervisor = SupervisorHandle::find(&services.node, &domains().map_err(unnamed)?)?;
    supervisor.terminate_child(name).await
}

/// Objects whose time has come since are looked for in calls under way; those whose time is over go.
async fn follow_times(services: &Services, domain: &str, since: DateTime<Utc>, now: DateTime<Utc>) {
    let Some(station) = services.stations.get(domain) else { return };
    let due = || station.times.iter().take_while(|(at, ..)| *at <= now);
    if due().next().is_none() {
        return;
    }
    let begun: BTreeSet<Mediator> = due().filter(|(at, ..)| *at > since).map(|(_, m, _)| *m).collect();
    for mediator in begun {
        let _ = order(services, domain, mediator, &Order::Look).await;
    }
    let over =
        |object: &Object| object.basis.as_ref().and_then(|b| b.until).is_some_and(|until| until <= now);
    let ends =
        due().filter(|(_, m, n)| station.desks.get(m).and_then(|d| d.objects.get(n)).is_some_and(over));
    let ends: BTreeSet<(Mediator, u16)> = ends.map(|(_, m, n)| (*m, *n)).collect();
    let Some(name) = ledger(domain).filter(|_| !ends.is_empty()) else { return };
    let (command, origin) = (StationCommand::Expire(now), Origin::system());
    match change_at::<StationBook>(&services.node, name.as_str(), command, origin).await {
        Ok(_) => {
            for (mediator, object) in ends {
                let details = serde_json::json!({ "object": object });
                services.audit.write(Entry::new(domain, &mediator.to_string(), "expired", details));
            }
        }
        Err(e) => tracing::error!(%domain, error = %e, "objects whose time is over could not be removed"),
    }
}

struct Keeper {
    services: Services,
    /// Taps without an order when it looked last: an order may be under way.
    strays: BTreeSet<(Address, u64)>,
    /// When it looked last.
    looked: Option<DateTime<Utc>>,
}

#[derive(Debug, IntoStaticStr)]
enum KeeperMsg {
    Look,
}

impl Keeper {
    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let services = self.services.clone();
        let now = cx.node().clock().now();
        let since = self.looked.replace(now).unwrap_or(now);
        let kept = async move {
            let known = domain::generations(&services.node).await?;
            let mut wrong = None;
            for (domain, generation) in &known {
                // One domain that does not start must not keep the others from being followed.
                if let Err(e) = ensure(&services, domain, *generation).await {
                    wrong = Some(ExitReason::error(e));
                }
            }
            for domain in services.stations.domains() {
                let gone = !known.iter().any(|(name, _)| *name == domain);
                let station = services.stations.get(&domain);
                let wanted =
                    |m: &Mediator| !gone && station.iter().any(|s| s.settings.radius_servers.contains_key(m));
                for mediator in services.stations.running(&domain).iter().filter(|m| !wanted(m)) {
                    if let Some(name) = interception(&domain, *mediator)
                        && let Err(e) = stop(&services, &name).await
                    {
                        wrong = Some(ExitReason::error(e));
                        continue;
                    }
                    services.stations.runs(&domain, *mediator, false);
                    services.stations.claims(mediator.ip()).lock().remove(&domain);
                }
                if gone && let Some(name) = ledger(&domain) {
                    match stop(&services, &name).await {
                        Ok(()) => services.stations.publish(&domain, None),
                        Err(e) => wrong = Some(ExitReason::error(e)),
                    }
                }
            }
            for domain in services.stations.domains() {
                follow_times(&services, &domain, since, now).await;
            }
            for (user, ip) in services.stations.mediators(&services.multi.all()) {
                join(&services, &user, ip).await;
            }
            wrong.map_or(Ok(()), Err)
        };
        cx.spawn(kept, |me, kept: Result<(), ExitReason>, cx| {
            if let Err(e) = kept {
                tracing::warn!(error = %e, "interception does not follow the domains; it is tried again");
            }
            me.end_strays(cx);
            me.services.audit.sync();
            cx.after(LOOK, KeeperMsg::Look);
            Ok(())
        });
    }

    /// A tap that nobody has ordered is ended, and an alarm.
    fn end_strays(&mut self, cx: &Cx<'_, Self>) {
        let strays: BTreeSet<(Address, u64)> =
            self.services.stations.strays(self.services.board.taps()).into_iter().collect();
        for (call, tap) in strays.intersection(&self.strays) {
            tracing::error!("a call was listened to without an order; that has been ended");
            metrics::counter!("hypha_sorm_stray_taps_total").increment(1);
            let entry = Entry::new("", "system", "stray tap ended", serde_json::json!({ "call": call }));
            self.services.audit.write(entry);
            if let Ok(to) = cx.lookup::<CallMsg>(call) {
                let _ = to.tell(CallMsg::Tap { tap: *tap, left: LegId(0), sink: None });
            }
        }
        self.strays = strays;
    }
}

impl Actor for Keeper {
    type Msg = KeeperMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.look(cx);
        Ok(())
    }

    fn handle(&mut self, KeeperMsg::Look: KeeperMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.look(cx);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::String(kit::MARK.into())
    }
}
