//! The actor around the [`Desk`], `mediator/desk`: links, the station's session and the outbox tell it what happens.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Mailbox, journal::Origin, ledger};
use serde_json::json;
use sorm::{
    audit::Entry,
    protocol::{Reply, Told},
};
use strum::IntoStaticStr;
use tokio::sync::mpsc;

use crate::{
    desk::{Desk, Effect, Link},
    outbox::{self, Channel, OutboxBook, OutboxCommand, Unit},
    services::Services,
};

pub const NAME: &str = "mediator/desk";
/// Who acts in the audit.
const POINT: &str = "control point";
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(500);

#[derive(IntoStaticStr)]
pub enum DeskMsg {
    /// A link takes units.
    LinkUp(Link, mpsc::Sender<Vec<u8>>),
    LinkDown(Link),
    /// The oldest unit of a link has arrived.
    Taken(Link),
    Command(Link, Unit),
    Garbage(usize),
    /// The station's session, which takes commands; and its end, unless there is another by then.
    Station(mpsc::Sender<Vec<u8>>),
    StationGone(mpsc::Sender<Vec<u8>>),
    Reply(Unit),
    /// Something has changed.
    Look,
    Tick,
}

impl fmt::Debug for DeskMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.into())
    }
}

/// Finds it.
pub fn desk(services: &Services) -> Result<Mailbox<DeskMsg>, String> {
    let name = Address::new(NAME).map_err(|e| e.to_string())?;
    services.node.registry().lookup(&name).map_err(|e| e.to_string())
}

/// It as a child.
pub fn child(services: &Services) -> Result<ChildSpec, AddressError> {
    let services = services.clone();
    Ok(ChildSpec::worker(Address::new(NAME)?, move |_| {
        let services = services.clone();
        async move {
            let desk = Desk::new(&services.kept.load(), Duration::ZERO);
            services.board.links.lock().clear();
            Ok(DeskActor {
                services,
                desk,
                links: BTreeMap::new(),
                station: None,
                begun: Instant::now(),
                gone: [None; 2],
                telling: [false; 2],
            })
        }
    }))
}

struct DeskActor {
    services: Services,
    desk: Desk,
    links: BTreeMap<Link, mpsc::Sender<Vec<u8>>>,
    station: Option<mpsc::Sender<Vec<u8>>>,
    begun: Instant,
    /// What the outbox has to be told, and whether it is being told.
    gone: [Option<u64>; 2],
    telling: [bool; 2],
}

impl DeskActor {
    fn audit(&self, actor: &str, action: &str, details: serde_json::Value) {
        self.services.audit.write(Entry::new("", actor, action, details));
    }

    fn push(&mut self, cx: &mut Cx<'_, Self>) {
        let now = self.begun.elapsed();
        self.desk.push(&self.services.kept.load(), &self.services.settings.load(), now);
        for effect in self.desk.effects() {
            self.carry_out(effect, cx);
        }
        for channel in Channel::BOTH {
            self.tell_gone(channel, cx);
        }
    }

    fn carry_out(&mut self, effect: Effect, cx: &mut Cx<'_, Self>) {
        match effect {
            Effect::Command(unit) => {
                // The code; what it is about is the station's to keep.
                self.audit(POINT, "command", json!({ "code": unit.get(2) }));
                if self.station.as_ref().is_none_or(|s| s.try_send(unit).is_err()) {
                    tracing::error!("the station's session does not take commands; it is given up");
                    self.station = None;
                    self.desk.station(false);
                    let _ = cx.mailbox().tell(DeskMsg::Look);
                }
            }
            Effect::Unit(link, unit) => {
                if self.links.get(&link).is_none_or(|l| l.try_send(unit).is_err()) {
                    // It has ended, and says so.
                    tracing::warn!(?link, "a data channel does not take messages");
                }
            }
            Effect::Gone(channel, before) => {
                self.gone[channel.index()] = Some(before);
            }
            Effect::Discarded(channel, count) => {
                self.services.board.discarded.fetch_add(count, Relaxed);
                metrics::counter!("hypha_mediator_discarded_total").increment(count);
                let details = json!({ "channel": channel.index() + 1, "count": count });
                self.audit("system", "deleted unsent: no command came in time", details);
            }
            Effect::Blocked(on) => {
                self.services.board.blocked.store(on, Relaxed);
                match on {
                    true => tracing::error!("no command came in time: the data channels count as faulty"),
                    false => tracing::info!("the data channels are heard again"),
                }
                self.audit(
                    "system",
                    if on { "data channels blocked" } else { "data channels released" },
                    json!(null),
                );
            }
            Effect::Garbage(bytes) => {
                tracing::warn!(bytes, "the control point sent what is no command");
                self.audit(POINT, "no command", json!({ "bytes": bytes }));
            }
        }
    }

    /// One event of the outbox for all that has gone since the last.
    fn tell_gone(&mut self, channel: Channel, cx: &mut Cx<'_, Self>) {
        let at = channel.index();
        if self.telling[at] {
            return;
        }
        let Some(before) = self.gone[at].take() else { return };
        self.telling[at] = true;
        let node = self.services.node.clone();
        let told = async move {
            let command = OutboxCommand::Gone { channel, before };
            ledger::change_at::<OutboxBook>(&node, outbox::NAME, command, Origin::system()).await
        };
        cx.spawn(told, move |me, told, cx| {
            me.telling[at] = false;
            // What was not taken out would be sent again by the next desk: that is better than never.
            told.map_err(ExitReason::error)?;
            // Delivered, or deleted: what was deleted has an entry of its own.
            me.audit(POINT, "kept no longer", json!({ "channel": at + 1, "before": before }));
            me.tell_gone(channel, cx);
            Ok(())
        });
    }
}

impl Actor for DeskActor {
    type Msg = DeskMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let (mut changed, me) = (self.services.changed.subscribe(), cx.mailbox());
        tokio::spawn(async move {
            while changed.changed().await.is_ok() && me.send(DeskMsg::Look).await.is_ok() {}
        });
        cx.after(LOOK, DeskMsg::Tick);
        Ok(())
    }

    fn handle(&mut self, msg: DeskMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            DeskMsg::LinkUp(link, units) => {
                self.audit(
                    POINT,
                    "data channel up",
                    json!({ "channel": link.channel.index() + 1, "stream": link.stream }),
                );
                self.links.insert(link, units);
                self.desk.link_up(link);
                self.services.board.links.lock().insert(link);
            }
            DeskMsg::LinkDown(link) => {
                if self.links.remove(&link).is_some() {
                    let details = json!({ "channel": link.channel.index() + 1, "stream": link.stream });
                    self.audit(POINT, "data channel down", details);
                }
                self.desk.link_down(link);
                self.services.board.links.lock().remove(&link);
            }
            DeskMsg::Taken(link) => self.desk.taken(link),
            DeskMsg::Command(link, unit) => self.desk.command(link, unit.0, self.begun.elapsed()),
            DeskMsg::Garbage(bytes) => self.desk.garbage(bytes),
            DeskMsg::Station(session) => {
                self.desk.station(true);
                self.station = Some(session);
            }
            DeskMsg::StationGone(session) => {
                if self.station.as_ref().is_some_and(|s| s.same_channel(&session)) {
                    self.desk.station(false);
                    self.station = None;
                }
            }
            DeskMsg::Reply(unit) => {
                if let Ok(Reply {
                    told: Told::Received { command, status } | Told::Done { command, status },
                    ..
                }) = Reply::read(&unit.0)
                {
                    self.audit(POINT, "answer", json!({ "code": command, "status": status }));
                }
                self.desk.reply(unit.0);
            }
            DeskMsg::Look => {}
            DeskMsg::Tick => {
                let kept = self.services.kept.load();
                for (channel, name) in
                    [(Channel::First, "first"), (Channel::Second, "second"), (Channel::Handover, "handover")]
                {
                    let waiting = kept.range(channel).count();
                    metrics::gauge!("hypha_mediator_waiting", "channel" => name).set(waiting as f64);
                }
                cx.after(LOOK, DeskMsg::Tick);
            }
        }
        self.push(cx);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let links: Vec<String> =
            self.links.keys().map(|l| format!("{} of stream {}", l.channel.index() + 1, l.stream)).collect();
        json!({ "links": links, "station": self.desk.has_station(), "blocked": self.desk.is_blocked() })
    }
}
