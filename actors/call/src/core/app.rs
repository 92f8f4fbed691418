//! A caller and an application (`call::application`): the caller is answered, and does what the application wants until it is
//! connected with somebody or goes.

use super::*;
use crate::application::{AppEvent, AppWish, Begin};

/// The tap that an application listens with; nobody is shown it.
const LISTENING: u64 = 2;

/// Who talks to an application.
#[derive(Debug)]
pub(super) struct App {
    pub leg: LegId,
    patience: Option<Duration>,
    /// It plays something: the caller hears that, and not the silence of being alone.
    pub playing: bool,
}

impl Call {
    /// A dial has come to a number that a script answers.
    pub(super) fn serve(
        &mut self,
        mut dial: Dial,
        domain: String,
        alias: String,
        script: String,
        world: &mut World<'_>,
    ) {
        let leg = dial.waiting;
        if !world.applications.has(&domain, &script) {
            self.note(format!("there is no script {script}"));
            return self.failed_for_good(dial, Cause::OUT_OF_ORDER, None, world);
        }
        dial.cdr.answered = Some(world.now);
        dial.cdr.service = "ivr".into();
        self.out.push(Effect::Keep(RecordEvent::Answered { cdr: Box::new(dial.cdr.clone()) }));
        self.tell(dial.number, &dial.trail, Phase::Answered, world);
        self.connected(dial.cdr, dial.trail, (leg, leg), dial.bridges, world);
        if self.legs.get(&leg).is_some_and(|l| l.state == State::Calling)
            && let Err((cause, text)) = self.answer(leg, world)
        {
            self.note(format!("the caller cannot be answered: {text}"));
            return self.finish(cause, "system", world);
        }
        self.view_state = "application";
        self.app = Some(App { leg, patience: None, playing: false });
        self.note(format!("script {script}"));
        let caller = self.legs.get(&leg).map(|l| l.party.clone()).unwrap_or_default();
        let call = self.address.clone();
        self.out.push(Effect::Application(Box::new(Begin {
            call,
            domain,
            script,
            leg,
            caller,
            called: alias,
        })));
        self.out.push(Effect::After(LONGEST, Timer::Longest));
    }

    /// The application could not start, or has crashed.
    pub(super) fn app_gone(&mut self, world: &mut World<'_>) {
        if let Some(app) = self.app.take() {
            self.leave(app.leg, Cause::TEMPORARY_FAILURE, world);
        }
    }

    pub(super) fn app_wish(&mut self, wish: AppWish, world: &mut World<'_>) {
        let Some(app) = self.app.as_mut() else { return };
        let leg = app.leg;
        match wish {
            AppWish::Play(path) => {
                app.playing = true;
                world.media.hear(leg, Source::File { path, repeat: false });
            }
            AppWish::Quiet => {
                app.playing = false;
                world.media.hear(leg, Source::Silence);
            }
            AppWish::Listen(feed) => world.media.tap(LISTENING, leg, Sink::Feed(feed)),
            AppWish::Deaf => world.media.untap(LISTENING),
            AppWish::Hangup => self.leave(leg, Cause::NORMAL, world),
            AppWish::Dial { number, patience } => {
                if self.dial.is_some() {
                    return;
                }
                app.patience = Some(patience);
                world.media.hear(leg, Source::Silence);
                let dial = self.new_dial(leg, None, "ivr", world);
                self.route(dial, number, world);
            }
        }
    }

    /// How long a number that an application dials may ring.
    pub(super) fn patience(&self, leg: LegId) -> Option<Duration> {
        self.app.as_ref().filter(|a| a.leg == leg)?.patience
    }

    pub(super) fn tell_app(&mut self, event: AppEvent) {
        self.out.push(Effect::Tell(event));
    }

    /// Whether a party talks to an application, and to nobody else.
    pub(super) fn with_app(&self, leg: LegId) -> bool {
        self.app.as_ref().is_some_and(|a| a.leg == leg)
    }

    /// An application's caller is connected with somebody: it is over.
    pub(super) fn app_done(&mut self, leg: LegId, world: &mut World<'_>) {
        if self.with_app(leg) {
            self.app = None;
            world.media.untap(LISTENING);
            self.end_connection(|c| c.legs == (leg, leg), Cause::NORMAL, "ivr", world);
            self.tell_app(AppEvent::Connected);
        }
    }
}
