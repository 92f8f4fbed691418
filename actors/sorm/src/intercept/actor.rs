//! The actor around an [`Intercept`], `domain/<D>/sorm/<MEDIATOR>`: it keeps what happens, then delivers it in order, and has
//! calls listened to. What it holds is shown to nobody.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use call::{
    Board, CallMsg,
    witness::{Seen, Written},
};
use domain::Estate;
use futures::future::BoxFuture;
use kit::{
    Actor, Address, Cx, ExitReason, Mailbox, Node, Reply, Secret, Vault,
    journal::{Batch, Journal, JournalError, NewEvent, Origin, Snapshot, restore},
};
use strum::IntoStaticStr;

use super::{Ask, Claims, Intercept, InterceptEvent, Kept, Tap, Want, World, radius};
use crate::{
    audit::{Audit, Entry},
    multi::Multi,
    protocol::{Intrusion, Pair, Refusal},
    settings::Mediator,
    station::Order,
    stations::{Stations, interception, secret_of},
};

/// Phases of calls that may wait; a call never waits for their place.
const MAILBOX: u32 = 1 << 16;
/// Between two looks at what is going on and what should be.
const LOOK: Duration = Duration::from_secs(1);
/// Events between two snapshots.
const SNAPSHOT: u64 = 2_000;
/// Age of a notification that is worth an alarm.
const OLD: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// Brings a packet to a mediator; the answer is whether it has confirmed it.
pub trait Courier: Send + Sync {
    fn bring(&self, to: Mediator, packet: Vec<u8>, secret: Secret<String>) -> BoxFuture<'static, bool>;
}

/// What the family's actors share.
#[derive(Clone)]
pub struct Services {
    pub node: Node,
    pub estate: Estate,
    pub board: Board,
    /// Sealed.
    pub journal: Arc<dyn Journal>,
    /// The key of interception, of its own.
    pub vault: Arc<dyn Vault>,
    pub stations: Stations,
    pub multi: Multi,
    pub audit: Audit,
    pub courier: Arc<dyn Courier>,
    /// Number of the station's interception equipment.
    pub sorm: u8,
    /// Whether passwords, secrets and mediators are changed by two persons.
    pub two_persons: bool,
}

#[derive(IntoStaticStr)]
pub enum InterceptMsg {
    /// A phase of a call, of any call of the domain.
    Seen(Arc<Seen>),
    /// A text, of any subscriber of the domain.
    Read(Arc<Written>),
    /// Somebody at this address tried to log in with a wrong password.
    Intrusion(std::net::IpAddr),
    Order(Order, Reply<Result<(), Refusal>>),
    /// A call of high priority in another domain wants these channels.
    Give(Pair, Want, Mailbox<InterceptMsg>),
    /// Channels that were asked for may be free.
    Take(Want),
    Look,
    /// A delivery is tried again.
    Again,
}

/// Shows nothing: traces are read by many.
impl fmt::Debug for InterceptMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

pub struct Interception {
    services: Services,
    domain: String,
    mediator: Mediator,
    stream: String,
    core: Intercept,
    version: u64,
    snapshot: u64,
    waiting: Vec<InterceptEvent>,
    writing: bool,
    /// The last notification that is safe.
    safe: u64,
    delivering: bool,
    /// Taps that had no order, or no effect, when it looked last.
    odd: BTreeSet<(String, u64)>,
    alarmed: Option<chrono::DateTime<chrono::Utc>>,
}

impl Interception {
    pub async fn restore(
        services: Services,
        domain: String,
        generation: u64,
        mediator: Mediator,
    ) -> Result<Self, ExitReason> {
        let stream = format!("domain/{domain}#{generation}/sorm/{mediator}");
        let (kept, version) = restore::<Kept>(&services.journal, &stream).await.map_err(ExitReason::error)?;
        let safe = kept.sequence;
        let core = Intercept::new(domain.clone(), mediator, kept);
        Ok(Self {
            services,
            domain,
            mediator,
            stream,
            core,
            version,
            snapshot: version,
            waiting: Vec::new(),
            writing: false,
            safe,
            delivering: false,
            odd: BTreeSet::new(),
            alarmed: None,
        })
    }

    fn step<T>(
        &mut self,
        cx: &mut Cx<'_, Self>,
        with: impl FnOnce(&mut Intercept, &mut World<'_>) -> T,
    ) -> Result<Option<T>, ExitReason> {
        let Some(station) = self.services.stations.get(&self.domain) else { return Ok(None) };
        let picture = self.services.estate.picture();
        let node = cx.node().clone();
        let shared = self.services.stations.claims(self.mediator.ip());
        let mut claims = shared.lock();
        let mut others = Claims::default();
        for (_, claimed) in claims.iter().filter(|(domain, _)| **domain != self.domain) {
            others.channels.extend(&claimed.channels);
            others.calls.extend(&claimed.calls);
            others.mixed += claimed.mixed;
            others.ordinary.extend(claimed.ordinary.clone());
        }
        let mut world = World {
            now: node.clock().now(),
            station: &station,
            picture: &picture,
            sorm: self.services.sorm,
            others: &others,
            fresh: &mut || node.random_id(),
        };
        let outcome = with(&mut self.core, &mut world);
        claims.insert(self.domain.clone(), self.core.claims());
        drop(claims);
        for tap in self.core.taps() {
            self.tap(tap, cx);
        }
        for Ask { domain, pair, want } in self.core.asks() {
            // The same mediator may be known there by another port.
            let there =
                self.services.stations.running(&domain).into_iter().find(|m| m.ip() == self.mediator.ip());
            let name = there.and_then(|mediator| interception(&domain, mediator));
            let Some(to) = name.and_then(|name| cx.lookup::<InterceptMsg>(&name).ok()) else { continue };
            if to.tell(InterceptMsg::Give(pair, want, cx.mailbox())).is_err() {
                tracing::warn!(%domain, "channels could not be asked for");
            }
        }
        self.waiting.extend(self.core.events());
        self.write(cx)?;
        Ok(Some(outcome))
    }

    fn tap(&self, Tap { call, tap, left, sink }: Tap, cx: &Cx<'_, Self>) {
        self.services.stations.tapped(&call, tap, sink.is_some());
        let name = Address::new(&call).ok();
        let Some(to) = name.and_then(|name| cx.lookup::<CallMsg>(&name).ok()) else { return };
        if to.tell(CallMsg::Tap { tap, left, sink }).is_err() {
            // The next look finds what is missing.
            tracing::debug!("a call does not take a message");
        }
    }

    fn write(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if self.writing || self.waiting.is_empty() {
            return Ok(());
        }
        self.writing = true;
        let events = std::mem::take(&mut self.waiting);
        let mut bodies = Vec::with_capacity(events.len());
        for event in &events {
            let kind: &'static str = event.into();
            bodies.push(NewEvent::new(kind, event).map_err(|_| unsayable())?);
        }
        let batch = Batch {
            stream: self.stream.clone(),
            expected: self.version,
            at: cx.node().clock().now(),
            origin: Origin::system(),
            events: bodies,
        };
        let appended = self.services.journal.append(batch);
        cx.spawn(appended, move |me, appended, cx| {
            me.writing = false;
            match appended {
                Ok(version) => {
                    me.version = version;
                    let noted = events.iter().filter_map(|e| match e {
                        InterceptEvent::Noted(notice) => Some(notice.sequence),
                        _ => None,
                    });
                    me.safe = noted.max().unwrap_or(me.safe);
                    me.save_snapshot(cx);
                    me.deliver(cx);
                    me.write(cx)
                }
                // Somebody else wrote here; what this actor believes is old.
                Err(e @ (JournalError::Conflict { .. } | JournalError::Stopped)) => Err(ExitReason::error(e)),
                Err(e) => {
                    tracing::error!(domain = %me.domain, error = %e, "the interception journal takes nothing");
                    me.waiting.splice(..0, events);
                    Ok(())
                }
            }
        });
        Ok(())
    }

    fn save_snapshot(&mut self, cx: &mut Cx<'_, Self>) {
        if self.version - self.snapshot < SNAPSHOT || !self.waiting.is_empty() {
            return;
        }
        let Ok(state) = serde_json::to_value(&self.core.kept) else { return };
        self.snapshot = self.version;
        let snapshot = Snapshot { version: self.version, state };
        let (journal, stream, version) = (self.services.journal.clone(), self.stream.clone(), self.version);
        let saved = async move {
            journal.save_snapshot(&stream, snapshot).await?;
            // What was delivered is kept no longer.
            journal.forget(&stream, version).await
        };
        cx.spawn(saved, |me, saved, _| {
            if let Err(e) = saved {
                tracing::warn!(domain = %me.domain, error = %e, "no snapshot of an interception");
            }
            Ok(())
        });
    }

    /// Brings the oldest notification that is safe; one after another, so that they come in order.
    fn deliver(&mut self, cx: &mut Cx<'_, Self>) {
        if self.delivering {
            return;
        }
        let Some(station) = self.services.stations.get(&self.domain) else { return };
        let Some(sealed) = station.settings.radius_servers.get(&self.mediator) else { return };
        let Some((sequence, notice)) = self.core.kept.queue.first_key_value() else { return };
        if *sequence > self.safe {
            return;
        }
        let Ok(secret) = secret_of(&*self.services.vault, &self.domain, self.mediator, sealed) else {
            tracing::error!(domain = %self.domain, mediator = %self.mediator, "the secret of a mediator cannot be opened");
            return;
        };
        let (sequence, [identifier, ..]) = (*sequence, sequence.to_le_bytes());
        let packet = radius::request(notice, identifier, &self.domain, station.settings.platform_id, &secret);
        self.delivering = true;
        let brought = self.services.courier.bring(self.mediator, packet, secret);
        cx.spawn(brought, move |me, brought, cx| {
            me.delivering = false;
            if !brought {
                cx.after(LOOK, InterceptMsg::Again);
                return Ok(());
            }
            let session = me.core.kept.queue.get(&sequence).map(|n| n.session.clone()).unwrap_or_default();
            let details = serde_json::json!({ "sequence": sequence, "session": session });
            me.services.audit.write(Entry::new(&me.domain, &me.mediator.to_string(), "delivered", details));
            me.core.delivered(sequence);
            me.waiting.extend(me.core.events());
            me.write(cx)?;
            me.deliver(cx);
            Ok(())
        });
    }

    fn look(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let taps: Vec<(String, u64)> =
            self.services.board.taps().into_iter().map(|(call, tap)| (call.to_string(), tap)).collect();
        let calls: BTreeSet<String> = self.services.board.names().iter().map(Address::to_string).collect();
        self.step(cx, |core, world| core.reconcile(&calls, world))?;
        // What should be listened to and is not: once it may be under way, twice it is an alarm.
        let missing: BTreeSet<(String, u64)> = self.core.missing(&taps).collect();
        for (call, tap) in missing.intersection(&self.odd) {
            tracing::error!(domain = %self.domain, "content is missing; it is asked for again");
            metrics::counter!("hypha_sorm_content_missing_total").increment(1);
            let Some(again) =
                self.services.stations.get(&self.domain).and_then(|s| self.core.again(call, *tap, &s))
            else {
                continue;
            };
            self.tap(again, cx);
        }
        self.odd = missing;
        let now = cx.node().clock().now();
        let oldest = self.core.kept.queue.first_key_value().map(|(_, n)| n.at);
        if oldest.is_some_and(|at| now - at > OLD) && self.alarmed.is_none_or(|at| now - at > OLD) {
            self.alarmed = Some(now);
            tracing::warn!(domain = %self.domain, mediator = %self.mediator, "a mediator does not answer");
        }
        self.write(cx)?;
        self.deliver(cx);
        cx.after(LOOK, InterceptMsg::Look);
        Ok(())
    }
}

/// An event that does not serialise; what it is must not be said.
fn unsayable() -> ExitReason {
    ExitReason::Error("an event does not serialise".into())
}

impl Actor for Interception {
    type Msg = InterceptMsg;

    const MAILBOX: u32 = MAILBOX;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.look(cx)
    }

    fn handle(&mut self, msg: InterceptMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            InterceptMsg::Seen(seen) => self.step(cx, |core, world| core.see(&seen, world)).map(drop),
            InterceptMsg::Read(written) => self.step(cx, |core, world| core.read(&written, world)).map(drop),
            InterceptMsg::Intrusion(from) => {
                let (code, from) = (Intrusion::WrongPassword, from.to_string());
                self.step(cx, |core, world| core.intrusion(code, &from, world)).map(drop)
            }
            InterceptMsg::Order(order, reply) => {
                let done = self.step(cx, |core, world| core.order(&order, world))?;
                reply.send(done.unwrap_or(Err(Refusal::NotStarted)));
                if order == Order::Look {
                    let now = cx.node().clock().now();
                    for seen in self.services.board.under_way(&self.domain, now) {
                        self.step(cx, |core, world| core.see(&seen, world))?;
                    }
                }
                Ok(())
            }
            InterceptMsg::Give(pair, want, to) => {
                self.step(cx, |core, world| core.give(pair, world))?;
                // One that is gone wants nothing any more.
                let _ = to.tell(InterceptMsg::Take(want));
                Ok(())
            }
            InterceptMsg::Take(want) => self.step(cx, |core, world| core.take(&want, world)).map(drop),
            InterceptMsg::Look => self.look(cx),
            InterceptMsg::Again => {
                self.deliver(cx);
                Ok(())
            }
        }
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::String(kit::MARK.into())
    }
}
