//! Services that the node can be without: pages, metrics, phone books, transcription. They live under a supervisor that ends
//! nothing else, and a keeper that starts each again after a pause, however often it ends or cannot start.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use strum::IntoStaticStr;

use crate::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Strategy, SupervisorError, SupervisorHandle,
    SupervisorSpec,
    alarm::{Condition, Severity},
};

/// Pauses before a service is started again: the first, doubled with each further end, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A service that has lived so long begins with the first pause again.
const SETTLED: Duration = Duration::from_secs(120);

/// Class of the alarm of a service that has ended.
const DOWN: &str = "node::service::down";

/// The supervisor of services, and behind it their keeper.
///
/// # Errors
/// `name` is no address.
pub fn children(name: &str, services: Vec<ChildSpec>) -> Result<[ChildSpec; 2], AddressError> {
    of(name, services, false)
}

/// The same for services that the node should have from its first call on: their keeper has started each once, in order, when it
/// has started itself, and starts one that has ended for the first time at once.
///
/// # Errors
/// `name` is no address.
pub fn duties(name: &str, services: Vec<ChildSpec>) -> Result<[ChildSpec; 2], AddressError> {
    of(name, services, true)
}

fn of(name: &str, services: Vec<ChildSpec>, first: bool) -> Result<[ChildSpec; 2], AddressError> {
    let supervisor = Address::new(name)?;
    // It never gives up: its children are temporary, and their ends are the keeper's business.
    let spec = SupervisorSpec::new(supervisor.clone(), Strategy::Dynamic)
        .intensity(u32::MAX, Duration::from_secs(1))
        .into_child();
    let keeper = ChildSpec::worker(supervisor.child("keeper")?, move |start| {
        let (supervisor, services) = (supervisor.clone(), services.clone());
        async move {
            let mut begun = Vec::new();
            for spec in services.iter().filter(|_| first) {
                let started = SupervisorHandle::start_temporary(&start.node, &supervisor, spec.clone()).await;
                begun.push((spec.address().clone(), started));
            }
            let services = services.into_iter().map(|s| (s.address().clone(), s)).collect();
            Ok(Keeper { supervisor, services, ends: HashMap::new(), first, begun })
        }
    });
    Ok([spec, keeper])
}

#[derive(Debug, IntoStaticStr)]
enum KeeperMsg {
    Start(Address),
    Started(Address, Result<(), SupervisorError>),
    Down(Address, ExitReason),
}

/// The ends of a service so far.
#[derive(Debug, Clone)]
struct Ends {
    count: u32,
    since: Instant,
    last: String,
    running: bool,
}

struct Keeper {
    supervisor: Address,
    services: HashMap<Address, ChildSpec>,
    ends: HashMap<Address, Ends>,
    /// They are wanted from the beginning, and at once after a first end.
    first: bool,
    begun: Vec<(Address, Result<(), SupervisorError>)>,
}

impl Keeper {
    fn again(&mut self, name: Address, why: String, cx: &mut Cx<'_, Self>) {
        let now = Instant::now();
        let ends = self.ends.entry(name.clone()).or_insert(Ends {
            count: 0,
            since: now,
            last: String::new(),
            running: false,
        });
        if ends.running && now.duration_since(ends.since) >= SETTLED {
            ends.count = 0;
        }
        let pause = match ends.count {
            0 if self.first => Duration::ZERO,
            count => FIRST.saturating_mul(1 << count.min(16)).min(LONGEST),
        };
        *ends = Ends { count: ends.count.saturating_add(1), since: now, last: why, running: false };
        metrics::counter!("hypha_service_ends_total").increment(1);
        let cause = format!("{}; it is started again in {} s", ends.last, pause.as_secs());
        cx.node().alarms().raise(Condition::new(DOWN, Severity::Major, name.to_string()).cause(cause));
        cx.after(pause, KeeperMsg::Start(name));
    }
}

impl Actor for Keeper {
    type Msg = KeeperMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        for (name, started) in std::mem::take(&mut self.begun) {
            let _ = cx.mailbox().tell(KeeperMsg::Started(name, started));
        }
        for name in self.services.keys().filter(|_| !self.first) {
            let _ = cx.mailbox().tell(KeeperMsg::Start(name.clone()));
        }
        Ok(())
    }

    fn handle(&mut self, msg: KeeperMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            KeeperMsg::Start(name) => {
                let Some(spec) = self.services.get(&name).cloned() else { return Ok(()) };
                let (node, supervisor) = (cx.node().clone(), self.supervisor.clone());
                let started =
                    async move { SupervisorHandle::start_temporary(&node, &supervisor, spec).await };
                cx.spawn(started, move |_, started, cx| {
                    let _ = cx.mailbox().tell(KeeperMsg::Started(name, started));
                    Ok(())
                });
            }
            // After its keeper has ended, a service may have gone on.
            KeeperMsg::Started(name, started)
                if started.is_ok() || cx.node().registry().find(&name).is_some() =>
            {
                let watched = name.clone();
                cx.monitor(&name, move |down| KeeperMsg::Down(watched, down.reason));
                if let Some(ends) = self.ends.get_mut(&name) {
                    (ends.since, ends.running) = (Instant::now(), true);
                    cx.node().alarms().clear(DOWN, None, name.as_str());
                }
            }
            KeeperMsg::Started(name, started) => {
                let why = started.err().map(|e| e.to_string()).unwrap_or_default();
                self.again(name, why, cx);
            }
            KeeperMsg::Down(name, reason) => self.again(name, reason.to_string(), cx),
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let of = |name: &Address| match self.ends.get(name) {
            Some(e) => serde_json::json!({ "ends": e.count, "last": e.last, "running": e.running }),
            None => serde_json::json!({ "ends": 0, "running": true }),
        };
        self.services.keys().map(|n| (n.to_string(), of(n))).collect::<serde_json::Map<_, _>>().into()
    }
}
