//! The actor around a [`Call`]: it carries effects out, in order, and writes the call's records.

use std::{collections::VecDeque, fmt::Display, sync::Arc};

use domain::Estate;
use kit::{
    Actor, Address, ChildSpec, Cx, ExitReason, Mailbox, Node, Refused, SupervisorHandle, Vault,
    journal::Origin,
};
use parking_lot::Mutex;
use strum::IntoStaticStr;

use crate::{
    AppEvent, AppWish, Applications, Board, Incoming, Ladder, LegCommand, LegEvent, LegId, MediaEvent,
    MediaPlane,
    core::{Adopt, Call, Effect, Event, HandTo, Timer, World},
    leg::{SIGNALLING, SignalMsg},
    media::{MediaSession, Sink},
    meter::Meter,
    record::RecordEvent,
    records::RecordsMsg,
    service::Service,
    switch::{Switch, switch},
    witness::Witness,
};

/// How long a call that is over waits for the last messages of its ladder.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// What calls need.
#[derive(Clone)]
pub struct Services {
    pub node: Node,
    pub estate: Estate,
    pub board: Board,
    pub media: Arc<dyn MediaPlane>,
    pub vault: Arc<dyn Vault>,
    pub witness: Arc<dyn Witness>,
    pub applications: Arc<dyn Applications>,
    /// Where files go: call records in `cdr`, recordings in `recordings`; nowhere in a node that keeps nothing.
    pub files: Option<std::path::PathBuf>,
}

#[derive(IntoStaticStr)]
pub enum CallMsg {
    Leg(LegId, LegEvent),
    Media(LegId, MediaEvent),
    Timer(Timer),
    /// A party from another call.
    Adopt {
        adopt: Box<Adopt>,
        from: Address,
        by: LegId,
    },
    Adopted {
        by: LegId,
    },
    /// It was not wanted.
    TakeBack {
        adopt: Box<Adopt>,
        by: LegId,
    },
    ServiceSet(bool),
    /// An operator ends the call.
    End,
    /// Records it, or no more.
    Record(Option<std::path::PathBuf>),
    /// Listens in, or no more; see [`Event::Tap`]. In counters, traces and crash reports it is one more report of quality, which
    /// every call gets all the time.
    #[strum(serialize = "Media")]
    Tap {
        tap: u64,
        left: LegId,
        sink: Option<Sink>,
    },
    /// He gives a member of a meeting the word, takes it, or sends it away.
    Word(LegId, bool),
    Dismiss(LegId),
    /// Its application wants something.
    App(AppWish),
    /// Its application is no more.
    AppGone,
    LastWords,
}

impl std::fmt::Debug for CallMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let label: &'static str = self.into();
        match self {
            Self::Media(leg, MediaEvent::Quality(_)) | Self::Tap { left: leg, .. } => {
                write!(f, "{label}({leg}, Quality)")
            }
            Self::Media(leg, event) => write!(f, "{label}({leg}, {event:?})"),
            Self::Leg(leg, event) => write!(f, "{label}({leg}, {event:?})"),
            Self::Timer(timer) => write!(f, "{label}({timer:?})"),
            Self::Adopt { adopt, from, by } => write!(f, "{label}({adopt:?} from {from} by {by})"),
            Self::Adopted { by } => write!(f, "{label}(by {by})"),
            Self::TakeBack { adopt, by } => write!(f, "{label}({adopt:?} by {by})"),
            Self::ServiceSet(done) => write!(f, "{label}({done})"),
            Self::Record(file) => write!(f, "{label}({file:?})"),
            Self::Word(leg, speaks) => write!(f, "{label}({leg}, {speaks})"),
            Self::Dismiss(leg) => write!(f, "{label}({leg})"),
            // A number that is dialled is in the ladder; a trace of messages is for anybody.
            Self::App(wish) => write!(f, "{label}({})", <&'static str>::from(wish)),
            Self::End | Self::AppGone | Self::LastWords => f.write_str(label),
        }
    }
}

/// `domain/<NAME>/call/<ID>`
pub(crate) struct CallActor {
    services: Services,
    /// Shared with the board, which looks at it when somebody asks.
    call: Arc<Mutex<Call>>,
    media: Option<Box<dyn MediaSession>>,
    ladder: Ladder,
    todo: VecDeque<Effect>,
    /// A record of it has been kept: its ladder follows.
    recorded: bool,
    /// The node goes down: what is left to write is written at once.
    stopping: bool,
    name: Address,
    /// Where its application is.
    application: Option<Address>,
    done: bool,
    meter: Meter,
}

/// Starts the actor of a call that came in.
pub async fn start(services: &Services, incoming: Incoming, ladder: Ladder) -> Result<Address, String> {
    let id = services.node.random_id();
    let name =
        Address::new(format!("domain/{}/call/{id:016x}", incoming.domain)).map_err(|e| e.to_string())?;
    let supervisor = Address::new("call").map_err(|e| e.to_string())?;
    let s = services.clone();
    let spec = ChildSpec::worker(name.clone(), move |start| {
        let now = s.node.clock().now();
        let actor = CallActor {
            call: Arc::new(Mutex::new(Call::new(start.address.clone(), incoming.clone(), now))),
            services: s.clone(),
            media: None,
            ladder: ladder.clone(),
            todo: VecDeque::new(),
            recorded: false,
            stopping: false,
            name: start.address,
            application: None,
            done: false,
            meter: Meter::default(),
        };
        async move { Ok(actor) }
    })
    .shutdown(kit::Shutdown::After(crate::tree::WRITING));
    // With its signalling: a wake-up of another thread for each message would cost more than the call itself.
    let started = SupervisorHandle::start_temporary(&services.node, &supervisor, spec).await;
    started.map_err(|e| e.to_string())?;
    Ok(name)
}

impl CallActor {
    fn step(
        &mut self,
        cx: &mut Cx<'_, Self>,
        with: impl FnOnce(&mut Call, &mut World<'_>) -> Vec<Effect>,
    ) -> Result<(), ExitReason> {
        if self.done {
            return Ok(());
        }
        let picture = self.services.estate.picture();
        let media = self.media.get_or_insert_with(|| {
            let several = picture.domains.len() > 1;
            let tenant = self.name.as_str().split('/').nth(1).filter(|_| several);
            self.services.media.session(cx.mailbox(), tenant)
        });
        let mut world = World {
            steady: cx.node().clock().steady(),
            now: cx.node().clock().now(),
            at: tokio::time::Instant::now().into_std(),
            picture: &picture,
            board: &self.services.board,
            media: media.as_mut(),
            vault: &*self.services.vault,
            witness: &*self.services.witness,
            applications: &*self.services.applications,
        };
        let effects = with(&mut self.call.lock(), &mut world);
        media.flush();
        self.todo.extend(effects);
        self.carry_out(cx)
    }

    fn note(&self, from: impl Display, to: impl Display, text: impl Display, cx: &Cx<'_, Self>) {
        self.ladder.add(cx.node().clock().now(), from, to, text);
    }

    fn carry_out(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        while let Some(effect) = self.todo.pop_front() {
            match effect {
                Effect::Leg(leg, command) => self.signal(leg, command, cx)?,
                Effect::After(delay, timer) => cx.after(delay, CallMsg::Timer(timer)),
                Effect::Note(text) => self.note("call", "call", text, cx),
                Effect::Keep(event) => {
                    let records =
                        cx.lookup::<RecordsMsg>(&crate::records::address()?).map_err(ExitReason::error)?;
                    let ended = matches!(event, RecordEvent::Ended { .. });
                    self.meter.kept(&event, &self.services.estate.picture());
                    self.recorded |= ended;
                    let kept = async move {
                        records.ask(|reply| RecordsMsg::Keep { event, reply: Some(reply) }).await
                    };
                    cx.wait(kept, move |me, kept, cx| {
                        let kept = kept.map_err(ExitReason::error)?;
                        // Without a record no call begins. One that cannot be written now still ends: the end is tried again.
                        if !ended {
                            kept.map_err(ExitReason::error)?;
                        }
                        me.carry_out(cx)
                    });
                    return Ok(());
                }
                Effect::HandOver { to, by, adopt } => self.hand_over(&to, by, adopt, cx)?,
                Effect::SetService { domain, alias, service, active, number } => {
                    self.set_service(&domain, alias, service, active, number, cx);
                }
                Effect::Application(begin) => {
                    let started = self.services.applications.start(*begin);
                    cx.wait(started, |me, started, cx| {
                        match started {
                            Ok(name) => {
                                cx.monitor(&name, |_| CallMsg::AppGone);
                                me.application = Some(name);
                            }
                            Err(e) => {
                                tracing::error!(error = %e, "an application did not start");
                                let _ = cx.mailbox().tell(CallMsg::AppGone);
                            }
                        }
                        me.carry_out(cx)
                    });
                    return Ok(());
                }
                Effect::Tell(event) => {
                    // One that has gone, or does not keep up, is told of by its end.
                    if let Some(app) = &self.application
                        && let Ok(app) = cx.lookup::<AppEvent>(app)
                    {
                        let _ = app.tell(event);
                    }
                }
                Effect::Done => {
                    self.done = true;
                    self.meter.over();
                    self.media = None;
                    self.services.board.over(&self.name);
                    let pause = if self.stopping { LAST_WORDS / 20 } else { LAST_WORDS };
                    cx.after(pause, CallMsg::LastWords);
                }
            }
        }
        Ok(())
    }

    fn signal(&mut self, leg: LegId, command: LegCommand, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let label: &'static str = (&command).into();
        self.note("call", leg, label, cx);
        self.meter.told(&command);
        // Where the signalling has gone, its legs have gone with it, and this call ends soon: its records are yet to be written.
        let Ok(to) = cx.lookup::<SignalMsg>(&signalling()?) else { return Ok(()) };
        let call = self.name.clone();
        match to.tell(SignalMsg::Leg { leg, call, command }) {
            Ok(()) | Err(Refused::Gone(_)) => Ok(()),
            Err(e) => Err(ExitReason::Error(format!("{leg}: {e}"))),
        }
    }

    fn hand_over(
        &mut self,
        to: &HandTo,
        by: LegId,
        adopt: Box<Adopt>,
        cx: &mut Cx<'_, Self>,
    ) -> Result<(), ExitReason> {
        let to = match to {
            HandTo::RingingAt(iface) => self.services.board.ringing_at(iface),
            HandTo::LegOf(leg) => self.services.board.call_of(*leg),
            HandTo::Meeting { domain, manager } => self.services.board.meeting(domain, manager),
        };
        let mailbox = to.filter(|t| *t != self.name).and_then(|t| cx.lookup::<CallMsg>(&t).ok());
        let Some(mailbox) = mailbox else { return self.take_back(*adopt, by, cx) };
        self.note("call", mailbox.address(), format_args!("hand over {adopt:?}"), cx);
        match mailbox.tell(CallMsg::Adopt { adopt, from: self.name.clone(), by }) {
            Ok(()) => Ok(()),
            Err(
                Refused::Full(CallMsg::Adopt { adopt, .. }) | Refused::Gone(CallMsg::Adopt { adopt, .. }),
            ) => self.take_back(*adopt, by, cx),
            Err(_) => Ok(()),
        }
    }

    /// The other call does not take the leg; `by`, where it is another, hears that its transfer has failed.
    fn take_back(&mut self, adopt: Adopt, by: LegId, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.step(cx, |call, world| {
            let mut effects = call.take_back(adopt, world);
            effects.extend(call.handle(Event::HandedOver { by, done: false }, world));
            effects
        })
    }

    fn set_service(
        &mut self,
        domain: &str,
        alias: String,
        service: Service,
        active: bool,
        number: Option<String>,
        cx: &mut Cx<'_, Self>,
    ) {
        let options = number.map(|n| ("number".to_owned(), n)).into_iter().collect();
        let origin = Origin { who: alias.clone(), from: self.name.to_string() };
        let wanted = Switch { domain: domain.to_owned(), addresses: vec![alias], service, active, options };
        let (node, estate) = (cx.node().clone(), self.services.estate.clone());
        let set = async move { switch(&node, &estate, wanted, origin).await.is_ok() };
        cx.spawn(set, |_, done, cx| {
            // Through the mailbox, as everything else that happens to a call.
            let _ = cx.mailbox().tell(CallMsg::ServiceSet(done));
            Ok(())
        });
    }

    fn last_words(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if !self.recorded {
            return Err(ExitReason::Normal);
        }
        let records: Mailbox<RecordsMsg> =
            cx.lookup(&crate::records::address()?).map_err(ExitReason::error)?;
        let event = RecordEvent::Traced { call: self.name.to_string(), ladder: self.ladder.written() };
        let sent = async move {
            let keep = RecordsMsg::Keep { event, reply: None };
            records.send(keep).await.map_err(|e| ExitReason::Error(e.to_string()))
        };
        cx.wait(sent, |_, sent: Result<(), ExitReason>, _| {
            sent?;
            Err(ExitReason::Normal)
        });
        Ok(())
    }
}

fn signalling() -> Result<Address, ExitReason> {
    Address::new(SIGNALLING).map_err(ExitReason::error)
}

impl Actor for CallActor {
    type Msg = CallMsg;

    const MAILBOX: u32 = 256;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.services.board.show(&self.name, &self.call, &self.ladder);
        self.meter.begin(self.name.as_str().split('/').nth(1).unwrap_or_default());
        self.step(cx, |call, world| call.start(world))
    }

    fn handle(&mut self, msg: CallMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            CallMsg::Leg(leg, event) => {
                let label: &'static str = (&event).into();
                self.note(leg, "call", label, cx);
                self.step(cx, |call, world| call.handle(Event::Leg(leg, event), world))
            }
            CallMsg::Media(leg, event) => {
                if let MediaEvent::Quality(quality) = &event {
                    self.meter.heard(leg, quality);
                } else {
                    self.note("media", "call", format_args!("{leg}: {event:?}"), cx);
                }
                self.step(cx, |call, world| call.handle(Event::Media(leg, event), world))
            }
            CallMsg::Timer(timer) => self.step(cx, |call, world| call.handle(Event::Timer(timer), world)),
            CallMsg::Adopt { adopt, from, by } => {
                let leg = adopt.leg;
                let other = cx.lookup::<CallMsg>(&from);
                let picture = self.services.estate.picture();
                let now = cx.node().clock().now();
                if self.done || !self.call.lock().would_adopt(&adopt, &picture, now) {
                    if let Ok(other) = other {
                        let _ = other.tell(CallMsg::TakeBack { adopt, by });
                    }
                    return Ok(());
                }
                let to = cx.lookup::<SignalMsg>(&signalling()?).map_err(ExitReason::error)?;
                to.tell(SignalMsg::Moved { leg, call: self.name.clone() })
                    .map_err(|e| ExitReason::Error(e.to_string()))?;
                if let Ok(other) = other {
                    let _ = other.tell(CallMsg::Adopted { by });
                }
                self.step(cx, |call, world| call.handle(Event::Adopt(adopt), world))
            }
            CallMsg::Adopted { by } => {
                self.step(cx, |call, world| call.handle(Event::HandedOver { by, done: true }, world))
            }
            CallMsg::TakeBack { adopt, by } => self.take_back(*adopt, by, cx),
            CallMsg::ServiceSet(done) => {
                self.step(cx, |call, world| call.handle(Event::ServiceChanged(done), world))
            }
            CallMsg::Tap { tap, left, sink } => {
                self.step(cx, |call, world| call.handle(Event::Tap { tap, left, sink }, world))
            }
            CallMsg::Record(file) => self.step(cx, |call, world| call.handle(Event::Record(file), world)),
            CallMsg::Word(leg, speaks) => {
                self.step(cx, |call, world| call.handle(Event::Word { leg, speaks }, world))
            }
            CallMsg::Dismiss(leg) => self.step(cx, |call, world| call.handle(Event::Dismiss(leg), world)),
            CallMsg::App(wish) => {
                let label: &'static str = (&wish).into();
                self.note("script", "call", label, cx);
                self.step(cx, |call, world| call.handle(Event::App(wish), world))
            }
            CallMsg::AppGone => self.step(cx, |call, world| call.handle(Event::AppGone, world)),
            CallMsg::End => self.step(cx, |call, world| call.handle(Event::Shutdown, world)),
            CallMsg::LastWords => self.last_words(cx),
        }
    }

    /// The node, or the signalling, goes down: the parties are told, the records written.
    fn exit_requested(&mut self, _: &ExitReason, cx: &mut Cx<'_, Self>) -> bool {
        if self.done {
            // The records are written at once.
            return self.last_words(cx).is_err();
        }
        self.stopping = true;
        self.step(cx, |call, world| call.handle(Event::Shutdown, world)).is_err()
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::to_value(self.call.lock().view()).unwrap_or_default()
    }
}

impl Drop for CallActor {
    /// However it ends, it is in progress no longer.
    fn drop(&mut self) {
        self.services.board.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_looks_like_what_every_call_gets() {
        let tap = CallMsg::Tap { tap: 1, left: LegId(7), sink: None };
        let quality = crate::media::Quality {
            codec: "PCMA".into(),
            received: 0,
            lost: 0,
            jitter_ms: 0.0,
            sent: 0,
            peer_lost_percent: None,
            round_trip_ms: None,
        };
        let quality = CallMsg::Media(LegId(7), MediaEvent::Quality(quality));
        assert_eq!(format!("{tap:?}"), format!("{quality:?}"));
        assert_eq!(<&'static str>::from(&tap), <&'static str>::from(&quality));
    }
}
