//! The actix actor around every actor of the house: it counts, traces, catches panics and reports the end.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Once,
        atomic::Ordering::{Acquire, Relaxed},
    },
};

use actix::{ActorContext, fut::ActorFutureExt};
use futures::FutureExt;
use tokio::sync::oneshot;

use crate::{
    Actor, Address, Cell, Cx, ExitReason, Node,
    actor::Message,
    alarm::{Condition, Severity},
    cell::CellParts,
    crash::CrashReport,
    spec::StartContext,
    trace::{self, Traced},
};

/// A message under way, with its sender while somebody traces.
pub struct Envelope<M> {
    pub(crate) msg: M,
    pub(crate) from: Option<Address>,
}

impl<M: Message> actix::Message for Envelope<M> {
    type Result = ();
}

/// What the system itself says to an actor; not subject to the mailbox's bound.
pub enum Control {
    /// Look at your orders.
    Wake,
    Inspect(oneshot::Sender<serde_json::Value>),
}

impl actix::Message for Control {
    type Result = ();
}

/// How long an actor's crash is an alarm.
const CRASHED: std::time::Duration = std::time::Duration::from_secs(600);

thread_local! {
    static CURRENT: RefCell<Option<Address>> = const { RefCell::new(None) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The actor whose handler runs on this thread; known only while somebody traces.
pub(crate) fn current() -> Option<Address> {
    if !trace::anyone_watches() {
        return None;
    }
    CURRENT.with(|c| c.borrow().clone())
}

/// Remembers a panic's message and place for the crash report instead of printing it; panics outside actors are
/// printed as ever.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(std::cell::Cell::get) {
                let text = info.payload_as_str().unwrap_or("a value that is not text");
                let place =
                    info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
                PANIC.with(|p| *p.borrow_mut() = Some(format!("{text}{place}")));
            } else {
                default(info);
            }
        }));
    });
}

/// Runs `f`, turning a panic into its text.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let before = GUARDED.with(|g| g.replace(true));
    let outcome = catch_unwind(AssertUnwindSafe(f));
    GUARDED.with(|g| g.set(before));
    outcome.map_err(|payload| panic_text(&*payload))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    PANIC.with(|p| p.borrow_mut().take()).unwrap_or_else(|| {
        payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a value that is not text".to_owned())
    })
}

/// As [`guarded`], for a future: each poll is guarded.
pub(crate) async fn guarded_future<F: Future>(work: F) -> Result<F::Output, String> {
    let mut work = Box::pin(work);
    std::future::poll_fn(move |cx| match guarded(|| work.poll_unpin(cx)) {
        Ok(std::task::Poll::Ready(v)) => std::task::Poll::Ready(Ok(v)),
        Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

/// Beside-the-mailbox work of an actor; see [`Cx::spawn`].
pub(crate) fn continuation<A, F, T>(
    work: F,
    then: T,
    cell: Arc<Cell>,
) -> impl actix::fut::ActorFuture<Host<A>, Output = ()> + 'static
where
    A: Actor,
    F: Future + 'static,
    T: FnOnce(&mut A, F::Output, &mut Cx<'_, A>) -> Result<(), ExitReason> + 'static,
{
    let work = async move {
        tokio::select! {
            biased;
            () = cell.interrupt.notified() => None,
            outcome = guarded_future(work) => Some(outcome),
        }
    };
    actix::fut::wrap_future::<_, Host<A>>(work).map(|outcome, host, ctx| match outcome {
        None => host.obey(ctx),
        Some(Ok(value)) => host.run("continuation", ctx, |actor, cx| then(actor, value, cx)),
        Some(Err(panic)) => host.end(ExitReason::Panic(panic), Some("continuation"), ctx),
    })
}

/// The actix side of an actor.
pub struct Host<A: Actor> {
    actor: Option<A>,
    cell: Arc<Cell>,
    node: Node,
}

impl<A: Actor> Host<A> {
    /// Starts `actor` on the current arbiter under the name of `start`.
    pub(crate) fn launch(actor: A, start: &StartContext) -> Result<Arc<Cell>, ExitReason> {
        let ctx = actix::Context::<Self>::new();
        let addr = actix::AsyncContext::address(&ctx);
        let cell = Cell::new(CellParts {
            pid: start.node.next_pid(),
            address: start.address.clone(),
            parent: start.parent.clone(),
            kind: start.kind,
            type_name: std::any::type_name::<A>(),
            started: start.node.clock().now(),
            restarts: start.restarts,
            mailbox_limit: A::MAILBOX,
            inbox: Box::new(addr.clone().recipient::<Envelope<A::Msg>>()),
            control: addr.recipient::<Control>(),
        });
        if !start.node.registry().register(&cell) {
            return Err(ExitReason::Error(format!("the name {} is taken", start.address)));
        }
        ctx.run(Self { actor: Some(actor), cell: cell.clone(), node: start.node.clone() });
        Ok(cell)
    }

    /// Runs one handler under guard and draws the consequence.
    fn run(
        &mut self,
        label: &'static str,
        ctx: &mut actix::Context<Self>,
        f: impl FnOnce(&mut A, &mut Cx<'_, A>) -> Result<(), ExitReason>,
    ) {
        let Some(actor) = self.actor.as_mut() else { return };
        let clock = self.node.quanta();
        let began = clock.raw();
        self.cell.vitals.busy_since.store(began, Relaxed);
        let watched = trace::anyone_watches();
        if watched {
            CURRENT.with(|c| *c.borrow_mut() = Some(self.cell.address().clone()));
        }
        let outcome = guarded(|| {
            let mut cx = Cx { ctx, cell: &self.cell, node: &self.node };
            f(actor, &mut cx)
        });
        if watched {
            CURRENT.with(|c| *c.borrow_mut() = None);
        }
        let spent = clock.delta_as_nanos(began, clock.raw());
        self.cell.vitals.busy_since.store(0, Relaxed);
        self.cell.vitals.busy_ns.fetch_add(spent, Relaxed);
        match outcome {
            Ok(Ok(())) => self.obey(ctx),
            Ok(Err(reason)) => self.end(reason, Some(label), ctx),
            Err(panic) => self.end(ExitReason::Panic(panic), Some(label), ctx),
        }
    }

    /// Carries out an order to end, if there is one.
    fn obey(&mut self, ctx: &mut actix::Context<Self>) {
        if self.cell.has_order.load(Acquire) {
            let order = self.cell.ordered.lock().take();
            self.cell.has_order.store(false, Relaxed);
            match order {
                None => {}
                Some(ExitReason::Killed) => self.end(ExitReason::Killed, None, ctx),
                Some(reason) => self.run("exit", ctx, |actor, cx| match actor.exit_requested(&reason, cx) {
                    true => Err(reason),
                    false => Ok(()),
                }),
            }
        }
    }

    fn end(&mut self, reason: ExitReason, during: Option<&'static str>, ctx: &mut actix::Context<Self>) {
        self.bury(reason, during);
        ctx.terminate();
    }

    /// The end, whatever led to it: last words, crash report, the name given up, monitors told.
    fn bury(&mut self, reason: ExitReason, during: Option<&'static str>) {
        let Some(mut actor) = self.actor.take() else { return };
        if reason.is_abnormal() {
            let state = guarded(|| actor.inspect()).unwrap_or(serde_json::Value::Null);
            self.node.crashes().record(CrashReport {
                id: 0,
                at: self.node.clock().now(),
                address: self.cell.address().clone(),
                pid: self.cell.pid(),
                actor: self.cell.type_name().to_owned(),
                reason: reason.clone(),
                during: during.map(str::to_owned),
                mailbox: self.cell.vitals.depth.load(Relaxed),
                handled: self.cell.vitals.handled.load(Relaxed),
                restarts: self.cell.restarts(),
                state,
            });
            metrics::counter!("hypha_actor_crashes_total").increment(1);
            let crashed = Condition::new("node::actor::crashed", Severity::Minor, self.cell.type_name());
            let cause = format!("{}: {reason}", self.cell.address());
            self.node.alarms().raise(crashed.cause(cause).lasting(CRASHED));
        } else {
            let _ = guarded(|| actor.stopping());
        }
        // The state is dropped under guard too: a destructor may panic.
        let _ = guarded(move || drop(actor));
        self.node.retire(&self.cell);
        self.cell.finish(reason);
    }
}

impl<A: Actor> Drop for Host<A> {
    /// The net under it all: an arbiter that went away takes its actors with it, and their monitors learn it.
    fn drop(&mut self) {
        self.bury(ExitReason::Killed, None);
    }
}

impl<A: Actor> actix::Actor for Host<A> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run("started", ctx, |actor, cx| actor.started(cx));
    }
}

impl<A: Actor> actix::Handler<Envelope<A::Msg>> for Host<A> {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<A::Msg>, ctx: &mut Self::Context) {
        let before = self.cell.vitals.depth.fetch_sub(1, Relaxed);
        if before == self.cell.mailbox_limit() || before == self.cell.mailbox_limit() / 2 {
            self.cell.room.notify_waiters();
        }
        if self.cell.has_order.load(Acquire) {
            self.obey(ctx);
        }
        if self.actor.is_none() {
            return;
        }
        self.cell.vitals.handled.fetch_add(1, Relaxed);
        let Envelope { msg, from } = envelope;
        let label = msg.label();
        if trace::anyone_watches() {
            self.node.trace().publish(&self.cell, || Traced {
                at: self.node.clock().now(),
                from,
                to: self.cell.address().clone(),
                label,
                text: format!("{msg:?}"),
            });
        }
        self.run(label, ctx, |actor, cx| actor.handle(msg, cx));
    }
}

impl<A: Actor> actix::Handler<Control> for Host<A> {
    type Result = ();

    fn handle(&mut self, control: Control, ctx: &mut Self::Context) {
        match control {
            Control::Wake => self.obey(ctx),
            Control::Inspect(to) => {
                if let Some(actor) = self.actor.as_ref() {
                    match guarded(|| actor.inspect()) {
                        Ok(state) => drop(to.send(state)),
                        Err(panic) => self.end(ExitReason::Panic(panic), Some("inspect"), ctx),
                    }
                }
            }
        }
    }
}
