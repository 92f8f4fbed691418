//! A call as one state machine without IO: what its legs, timers and media tell it goes in, what they shall do comes out.
//!
//! A call has one origin, and dials: attempts to connect a party that waits with somebody else. The first dial connects
//! the origin; a transfer is another one for the party that stays. Everybody who has been connected is in `legs` as
//! `Talking`, and [`Call::reconnect`] says who hears whom.

mod app;
mod dial;
mod enter;
mod talk;
#[cfg(test)]
mod tests;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Picture,
    routing::{
        number::{Apri, Called, Calling, Nai},
        route::{self, Mode, Outcome, Query},
    },
    state::ServiceState,
};
use kit::{Address, MARK, Vault};
use strum::IntoStaticStr;

use crate::{
    Board, Cause, Incoming, LegCommand, LegEvent, LegId, MediaEvent, Party, Refer, Target,
    application::{AppEvent, AppWish, Begin},
    board::{CallView, Held, LegView, Meeting},
    leg::{Origin, Outgoing},
    media::{Change, MediaPart, MediaSession, Quality, Sink, Source, Tone, Wish},
    record::{self, Cdr, RecordEvent},
    service::{self, Code, Service},
    witness::{Phase, Seen, Trail, Witness},
};

/// How long a phone may ring.
const NO_ANSWER: Duration = Duration::from_secs(120);
/// How long a target may be without any answer where there is another to try: two copies of the INVITE are lost by then.
const LIFELESS: Duration = Duration::from_millis(1600);
/// How long it may only be trying (100), where there is another: setting up takes a network seconds.
const IDLE: Duration = Duration::from_secs(15);
/// How long it may ring before cfnr forwards, where nothing was said.
const FORWARD_AFTER: Duration = Duration::from_secs(20);
/// How long setting up may take in all.
const SETUP: Duration = Duration::from_secs(300);
/// Diversions one after another; more is a loop between subscribers.
const DIVERSIONS: usize = 5;
/// Parties of a conference (manual of the switch: up to 16).
pub const CONFERENCE: usize = 16;
/// Members of a meeting.
pub const MEETING: usize = 100;
/// How long a confirming tone is heard.
const CONFIRM: Duration = Duration::from_secs(2);
/// Longest conversation.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long a party of a failed call hears why, where it has been answered.
const BUSY_TONE: Duration = Duration::from_secs(5);

/// Longest announcement.
const ANNOUNCEMENT: Duration = Duration::from_secs(60);
/// The tap of a recording.
const RECORDING: u64 = 1;

/// Surroundings of one step.
pub struct World<'w> {
    /// As registrations count: the wall clock without its steps.
    pub steady: DateTime<Utc>,
    pub now: DateTime<Utc>,
    /// The same moment by a clock that nobody sets: conversations are measured by it.
    pub at: Instant,
    pub picture: &'w Picture,
    pub board: &'w Board,
    pub media: &'w mut dyn MediaSession,
    /// Opens passwords of meetings.
    pub vault: &'w dyn Vault,
    pub witness: &'w dyn Witness,
    pub applications: &'w dyn crate::application::Applications,
}

impl World<'_> {
    /// Options of a service that is active for this number now.
    fn active(&self, domain: &str, alias: &str, service: Service) -> Option<ServiceState> {
        service::active(self.picture, self.now, domain, alias, service)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
pub enum Timer {
    /// Nobody has answered this dial.
    NoAnswer(u32),
    /// This leg, for which there are others, has had its time to show any sign of life.
    Lifeless(LegId),
    /// It has had its time to come further than trying.
    Idle(LegId),
    Setup,
    /// What this leg heard for its information is over.
    Heard(LegId),
    /// An announcement has lasted long enough.
    Announced(LegId),
    Longest,
}

/// The party in whose name another one moves between calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub domain: String,
    pub iface: String,
    pub alias: Option<String>,
}

/// A party that comes from another call.
pub struct Adopt {
    pub leg: LegId,
    pub party: Leg,
    pub by: Authority,
    pub part: Option<MediaPart>,
    /// An offer not answered yet; with it the party is one that calls.
    pub how: How,
}

impl std::fmt::Debug for Adopt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.leg, self.how)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It takes the place of this leg.
    Replace(LegId),
    /// It answers what rings.
    Pickup,
    /// It joins a meeting, with the word or without.
    Join { speaks: bool },
}

#[derive(Debug, IntoStaticStr)]
pub enum Event {
    Leg(LegId, LegEvent),
    Media(LegId, MediaEvent),
    Timer(Timer),
    Adopt(Box<Adopt>),
    /// What [`Effect::HandOver`] came to.
    HandedOver {
        by: LegId,
        done: bool,
    },
    /// Whether the service was changed.
    ServiceChanged(bool),
    /// An operator, or the end of the node, ends the call.
    Shutdown,
    /// An operator records the call into this file, or no more.
    Record(Option<PathBuf>),
    /// What the call's parties say goes there too, the leg's apart; or no more.
    Tap {
        tap: u64,
        left: LegId,
        sink: Option<Sink>,
    },
    /// A member of a meeting gets the word, or has it no more.
    Word {
        leg: LegId,
        speaks: bool,
    },
    /// A member of a meeting is sent away.
    Dismiss(LegId),
    /// The application wants something.
    App(AppWish),
    /// It is no more.
    AppGone,
}

#[derive(Debug, IntoStaticStr)]
pub enum Effect {
    Leg(LegId, LegCommand),
    After(Duration, Timer),
    /// To be safe in the journal before anything that follows is done.
    Keep(RecordEvent),
    /// Gives a party to another call.
    HandOver {
        to: HandTo,
        by: LegId,
        adopt: Box<Adopt>,
    },
    SetService {
        domain: String,
        alias: String,
        service: Service,
        active: bool,
        number: Option<String>,
    },
    /// Starts an application; [`Event::AppGone`] says that it did not start.
    Application(Box<Begin>),
    /// For the application.
    Tell(AppEvent),
    /// For the ladder.
    Note(String),
    Done,
}

/// The end of a conversation: now, unless the system's clock was set meanwhile. Then it lasted as long as it did.
fn ended(cdr: &Cdr, began: Instant, world: &World<'_>) -> DateTime<Utc> {
    let Some(answered) = cdr.answered else { return world.now };
    let lasted = TimeDelta::from_std(world.at.saturating_duration_since(began)).unwrap_or_default();
    match (world.now - answered - lasted).abs() > TimeDelta::seconds(2) {
        true => answered + lasted,
        false => world.now,
    }
}

/// Which call a party goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandTo {
    /// The one that this leg belongs to.
    LegOf(LegId),
    /// The one that rings longest at this interface.
    RingingAt(String),
    /// The meeting that this number's manager has opened.
    Meeting { domain: String, manager: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The origin before it is answered.
    Calling,
    /// A dialled leg before anything came back, and when it rings.
    Trying,
    Ringing,
    Talking,
}

/// One party.
#[derive(Debug)]
pub struct Leg {
    state: State,
    party: Party,
    domain: String,
    /// Subscriber's interface or trunk.
    iface: String,
    /// The subscriber's number, where it is one.
    alias: Option<String>,
    context: String,
    /// It has shown some sign of life since it was called.
    lives: bool,
    /// It has put the other side on hold.
    holds: bool,
    /// It came without an offer: the answer to ours comes with its confirmation.
    offers_late: bool,
    /// Its provisional answers are reliable.
    reliable: bool,
    /// Our answer, or our offer to one that came without, went with it before it was answered.
    early: Option<Bytes>,
    user_agent: String,
    /// How its media is sealed.
    ice: bool,
    sealed: bool,
    quality: Option<Quality>,
    /// In a meeting: it has not been given the word; it asks for it.
    muted: bool,
    hand: bool,
    _line: Option<Held>,
}

/// An attempt to connect a waiting party.
struct Dial {
    number: u32,
    waiting: LegId,
    /// Who asked for the transfer.
    by: Option<LegId>,
    legs: Vec<LegId>,
    /// Tried in their order where the ones before cannot take the call; with the calling party shown to them.
    others: VecDeque<(Leg, Target)>,
    from: Party,
    /// Whose early media the waiting party hears.
    early: Option<LegId>,
    ringing: bool,
    to: Party,
    /// Where it is delivered, for forwarding.
    callee: Option<(String, String)>,
    /// The best failure so far.
    failure: Option<(Cause, Option<u16>)>,
    cdr: Cdr,
    trail: Trail,
    bridges: Vec<Held>,
    diverted: Vec<String>,
    max_forwards: u8,
    uui: Option<String>,
}

/// A connection that was answered, until it ends.
struct Connection {
    cdr: Cdr,
    /// When it was answered.
    began: Instant,
    trail: Trail,
    legs: (LegId, LegId),
    _bridges: Vec<Held>,
}

pub struct Call {
    address: Address,
    incoming: Option<Incoming>,
    origin: LegId,
    legs: BTreeMap<LegId, Leg>,
    dial: Option<Dial>,
    connections: Vec<Connection>,
    dials: u32,
    /// The leg that keeps the conference alive.
    chair: Option<LegId>,
    meeting: Option<Meeting>,
    /// Who hears why its call failed, and what is said to it then.
    announcing: Option<(LegId, Cause, u16)>,
    recording: Option<PathBuf>,
    /// Who talks to an application.
    app: Option<app::App>,
    /// Who listens in; nobody is shown them.
    taps: BTreeSet<u64>,
    began: DateTime<Utc>,
    view_state: &'static str,
    b: String,
    bridges: Vec<String>,
    domains: Vec<String>,
    over: bool,
    out: Vec<Effect>,
}

impl Call {
    pub fn new(address: Address, incoming: Incoming, now: DateTime<Utc>) -> Self {
        // A code may hold a password, which is nobody's to read.
        let b = match service::code(&incoming.dialled) {
            Some(Code::Join(manager, _)) => format!("*72*{manager}*{MARK}#"),
            _ => incoming.dialled.clone(),
        };
        let (origin, domains) = (incoming.leg, vec![incoming.domain.clone()]);
        Self {
            address,
            origin,
            incoming: Some(incoming),
            legs: BTreeMap::new(),
            dial: None,
            connections: Vec::new(),
            dials: 0,
            chair: None,
            meeting: None,
            announcing: None,
            recording: None,
            app: None,
            taps: BTreeSet::new(),
            began: now,
            view_state: "routing",
            b,
            bridges: Vec::new(),
            domains,
            over: false,
            out: Vec::new(),
        }
    }

    /// Takes up the call that came in.
    pub fn start(&mut self, world: &mut World<'_>) -> Vec<Effect> {
        if let Some(incoming) = self.incoming.take() {
            self.out.push(Effect::After(SETUP, Timer::Setup));
            if let Err((cause, text)) = self.enter(incoming, world) {
                self.note(format!("refused: {text}"));
                let origin = self.origin;
                self.release(origin, cause, None, world);
                self.end();
            }
        }
        std::mem::take(&mut self.out)
    }

    pub fn handle(&mut self, event: Event, world: &mut World<'_>) -> Vec<Effect> {
        if !self.over {
            match event {
                Event::Leg(leg, event) => self.on_leg(leg, event, world),
                Event::Media(leg, event) => self.on_media(leg, event, world),
                Event::Timer(timer) => self.on_timer(timer, world),
                Event::Adopt(adopt) => self.adopt(*adopt, world),
                Event::HandedOver { by, done } => self.handed_over(by, done, world),
                Event::ServiceChanged(done) => {
                    self.confirm(if done { Tone::Confirm } else { Tone::Error }, world)
                }
                Event::Shutdown => self.finish(Cause::TEMPORARY_FAILURE, "system", world),
                Event::Record(file) => self.record(file, world),
                Event::Tap { tap, left, sink } => self.tap(tap, left, sink, world),
                Event::Word { leg, speaks } => self.word(leg, speaks, world),
                Event::Dismiss(leg) if self.meeting.is_some() && self.legs.contains_key(&leg) => {
                    self.leave(leg, Cause::NORMAL, world);
                }
                Event::Dismiss(_) => {}
                Event::App(wish) => self.app_wish(wish, world),
                Event::AppGone => self.app_gone(world),
            }
        }
        std::mem::take(&mut self.out)
    }

    fn on_media(&mut self, id: LegId, event: MediaEvent, world: &mut World<'_>) {
        match event {
            MediaEvent::Quality(quality) => {
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.quality = Some(quality);
                }
            }
            MediaEvent::Key(key) => self.key(id, key, 100, true, world),
            MediaEvent::Played if self.with_app(id) => {
                if self.app.as_mut().is_some_and(|a| std::mem::take(&mut a.playing)) {
                    world.media.hear(id, Source::Silence);
                    self.tell_app(AppEvent::Played);
                }
            }
            MediaEvent::Played => self.announced(id, world),
            MediaEvent::Unsealed => {
                let answered = self.connections.iter().filter(|c| c.legs.0 == id || c.legs.1 == id);
                let since = answered.filter_map(|c| c.cdr.answered).max();
                if since.is_some_and(|at| world.now - at >= chrono::TimeDelta::seconds(10)) {
                    // Deaf for good: better no call than one that is billed in silence.
                    self.note(format!("{id} has not agreed on keys"));
                    self.leave(id, Cause::INCOMPATIBLE, world);
                }
            }
            MediaEvent::Silent => {
                self.note(format!("nothing is heard from {id} any more"));
                self.leave(id, Cause::NETWORK_OUT_OF_ORDER, world);
            }
        }
    }

    fn on_timer(&mut self, timer: Timer, world: &mut World<'_>) {
        match timer {
            Timer::NoAnswer(number) => {
                let Some(mut dial) = self.dial.take_if(|d| d.number == number) else { return };
                self.release_dialled(&mut dial, Cause::NO_ANSWER, world);
                self.failed(dial, Cause::NO_ANSWER, None, world);
            }
            Timer::Lifeless(leg) | Timer::Idle(leg) => {
                let lives =
                    matches!(timer, Timer::Lifeless(_)) && self.legs.get(&leg).is_some_and(|l| l.lives);
                let dialled =
                    self.dial.as_ref().is_some_and(|d| d.legs.contains(&leg) && !d.others.is_empty());
                if dialled && !lives && self.legs.get(&leg).is_some_and(|l| l.state == State::Trying) {
                    self.release(leg, Cause::TIMER, Some(408), world);
                    self.one_failed(leg, Cause::TIMER, Some(408), world);
                }
            }
            Timer::Setup => {
                if self.legs.get(&self.origin).is_some_and(|l| l.state == State::Calling) {
                    self.finish(Cause::TIMER, "system", world);
                }
            }
            Timer::Announced(leg) => self.announced(leg, world),
            Timer::Heard(leg) => {
                if self.connections.is_empty() && self.legs.contains_key(&leg) {
                    self.leave(leg, Cause::NORMAL, world);
                }
            }
            Timer::Longest => {
                let limit = chrono::TimeDelta::from_std(LONGEST).unwrap_or_default();
                if world.now - self.began >= limit {
                    self.finish(Cause::TIMER, "system", world);
                }
            }
        }
    }

    /// An announcement is over: the caller is told in signalling what it has heard.
    fn announced(&mut self, id: LegId, world: &mut World<'_>) {
        let Some((leg, cause, status)) = self.announcing.take_if(|(leg, ..)| *leg == id) else { return };
        self.release(leg, cause, Some(status), world);
        self.end_if_alone(cause, "b", world);
    }

    fn record(&mut self, file: Option<PathBuf>, world: &mut World<'_>) {
        self.note(if file.is_some() { "recorded from now on" } else { "recorded no more" }.to_owned());
        match &file {
            Some(path) => world.media.tap(RECORDING, self.origin, Sink::File(path.clone())),
            None => world.media.untap(RECORDING),
        }
        self.recording = file;
    }

    fn tap(&mut self, tap: u64, left: LegId, sink: Option<Sink>, world: &mut World<'_>) {
        match sink {
            Some(sink) => {
                self.taps.insert(tap);
                world.media.tap(tap, left, sink);
            }
            None if self.taps.remove(&tap) => world.media.untap(tap),
            None => {}
        }
    }

    /// Taps on the call.
    pub fn taps(&self) -> impl Iterator<Item = u64> {
        self.taps.iter().copied()
    }

    /// Tells the witness of a phase.
    fn tell(&self, attempt: u32, trail: &Trail, phase: Phase, world: &World<'_>) {
        if trail.domains().any(|d| world.witness.watches(d)) {
            let (call, trail) = (self.address.clone(), trail.clone());
            world.witness.see(Seen { call, attempt, at: world.now, phase, trail });
        }
    }

    /// A party uses a service in all it takes part in.
    fn tell_service(&self, leg: LegId, service: Service, world: &World<'_>) {
        for c in self.connections.iter().filter(|c| c.legs.0 == leg || c.legs.1 == leg) {
            self.tell(c.cdr.attempt, &c.trail, Phase::Service(service), world);
        }
    }

    /// What a witness that comes only now has missed.
    pub fn under_way(&self, now: DateTime<Utc>) -> Vec<Seen> {
        let seen = |attempt, trail: &Trail, phase| {
            let (call, trail) = (self.address.clone(), trail.clone());
            Seen { call, attempt, at: now, phase, trail }
        };
        let dial = self.dial.iter().map(|d| seen(d.number, &d.trail, Phase::Routed));
        let talks = self.connections.iter();
        let talks =
            talks.flat_map(|c| [Phase::Routed, Phase::Answered].map(|p| seen(c.cdr.attempt, &c.trail, p)));
        dial.chain(talks).collect()
    }

    /// A service was asked for by code: the caller hears what came of it.
    fn confirm(&mut self, tone: Tone, world: &mut World<'_>) {
        let origin = self.origin;
        if self.answer(origin, world).is_err() {
            return self.finish(Cause::INCOMPATIBLE, "system", world);
        }
        world.media.hear(origin, Source::Tone(tone));
        self.out.push(Effect::After(CONFIRM, Timer::Heard(origin)));
    }

    fn end_connection(
        &mut self,
        which: impl Fn(&Connection) -> bool,
        cause: Cause,
        by: &str,
        world: &World<'_>,
    ) {
        let (over, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.connections).into_iter().partition(|c| which(c));
        self.connections = on;
        for Connection { cdr, trail, began, .. } in over {
            let ended = ended(&cdr, began, world);
            self.close_record_at(cdr, &trail, cause, by, ended, world);
        }
    }

    /// A record is complete; its ladder follows when the last message has been seen.
    fn close_record(&mut self, cdr: Cdr, trail: &Trail, cause: Cause, by: &str, world: &World<'_>) {
        self.close_record_at(cdr, trail, cause, by, world.now, world);
    }

    fn close_record_at(
        &mut self,
        mut cdr: Cdr,
        trail: &Trail,
        cause: Cause,
        by: &str,
        ended: DateTime<Utc>,
        world: &World<'_>,
    ) {
        let answered = cdr.answered.is_some();
        self.tell(cdr.attempt, trail, Phase::Released { cause, answered }, world);
        cdr.ended = Some(ended);
        cdr.cause = Some(cause);
        cdr.released_by = by.to_owned();
        self.out.push(Effect::Keep(RecordEvent::Ended { cdr: Box::new(cdr), ladder: String::new() }));
    }

    fn release(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        self.out.push(Effect::Leg(id, LegCommand::Release { cause, status }));
        self.forget(id, world);
    }

    /// Gives up whoever still rings for a dial.
    fn release_dialled(&mut self, dial: &mut Dial, cause: Cause, world: &mut World<'_>) {
        for leg in std::mem::take(&mut dial.legs) {
            self.release(leg, cause, None, world);
        }
    }

    fn forget(&mut self, id: LegId, world: &mut World<'_>) -> Option<Leg> {
        if self.app.take_if(|a| a.leg == id).is_some() {
            self.tell_app(AppEvent::Ended);
        }
        world.media.close(id);
        self.legs.remove(&id)
    }

    /// Ends everything.
    fn finish(&mut self, cause: Cause, by: &str, world: &mut World<'_>) {
        if let Some(dial) = self.dial.take() {
            self.close_record(dial.cdr, &dial.trail, cause, by, world);
        }
        self.end_connection(|_| true, cause, by, world);
        for id in self.legs.keys().copied().collect::<Vec<_>>() {
            self.release(id, cause, None, world);
        }
        self.end();
    }

    fn end(&mut self) {
        if !self.over {
            self.over = true;
            self.meeting = None;
            self.out.push(Effect::Done);
        }
    }

    fn note(&mut self, text: String) {
        self.out.push(Effect::Note(text));
    }

    /// Whether a leg is one of its own.
    pub(crate) fn has(&self, leg: LegId) -> bool {
        self.legs.contains_key(&leg)
    }

    /// As the board shows it.
    pub fn view(&self) -> CallView {
        let state = |s: State| match s {
            State::Calling => "calling",
            State::Trying => "trying",
            State::Ringing => "ringing",
            State::Talking => "talking",
        };
        let leg = |(id, l): (&LegId, &Leg)| LegView {
            leg: *id,
            domain: l.domain.clone(),
            iface: l.iface.clone(),
            number: l.party.number.clone(),
            state: state(l.state),
            holds: l.holds,
            quality: l.quality.clone(),
            muted: l.muted,
            hand: l.hand,
        };
        CallView {
            call: self.address.to_string(),
            domains: self.domains.clone(),
            a: self.legs.get(&self.origin).map(|l| l.party.number.clone()).unwrap_or_default(),
            restricted: self.legs.get(&self.origin).is_some_and(|l| l.party.restricted),
            b: self.b.clone(),
            state: self.view_state,
            since: self.began,
            answered: self.connections.first().and_then(|c| c.cdr.answered),
            legs: self.legs.iter().map(leg).collect(),
            bridges: self.bridges.clone(),
            recording: self.recording.as_ref().map(|p| p.display().to_string()),
            meeting: self.meeting.as_ref().map(|m| m.manager.clone()),
        }
    }
}
