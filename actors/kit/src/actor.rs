//! What an actor of the house implements, and what it may ask of its surroundings.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use actix::AsyncContext;

use crate::{
    Address, ExitReason, LookupError, Mailbox, Node, Pid,
    cell::{Cell, Down},
    host::{self, Host},
};

/// A message: its `Debug` is what a trace shows, its label what counters and crash reports name. Enums get the label
/// from `strum::IntoStaticStr`.
pub trait Message: fmt::Debug + Send + 'static {
    fn label(&self) -> &'static str;
}

impl<T> Message for T
where
    T: fmt::Debug + Send + 'static,
    for<'a> &'a T: Into<&'static str>,
{
    fn label(&self) -> &'static str {
        self.into()
    }
}

/// An actor: one kind of message, handled one at a time. `Err` ends it with that reason; a panic ends it with
/// [`ExitReason::Panic`]; neither touches any other actor.
pub trait Actor: Sized + Unpin + 'static {
    type Msg: Message;

    /// Messages it may have waiting; the next one is refused to its sender.
    const MAILBOX: u32 = 1024;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let _ = cx;
        Ok(())
    }

    fn handle(&mut self, msg: Self::Msg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason>;

    /// Asked to end; `true` obeys at once. A supervisor answers `false`, stops its children first and ends then.
    /// Not asked when it is killed.
    fn exit_requested(&mut self, reason: &ExitReason, cx: &mut Cx<'_, Self>) -> bool {
        let _ = (reason, cx);
        true
    }

    /// An orderly stop: last words, quickly. Not called after a panic, an error or a kill.
    fn stopping(&mut self) {}

    /// State for inspection. Secrets are of type [`crate::Secret`] and show as a mark.
    fn inspect(&self) -> serde_json::Value;
}

/// An actor's surroundings while it handles something.
pub struct Cx<'a, A: Actor> {
    pub(crate) ctx: &'a mut actix::Context<Host<A>>,
    pub(crate) cell: &'a Arc<Cell>,
    pub(crate) node: &'a Node,
}

impl<A: Actor> Cx<'_, A> {
    pub fn node(&self) -> &Node {
        self.node
    }

    pub fn address(&self) -> &Address {
        self.cell.address()
    }

    pub fn pid(&self) -> Pid {
        self.cell.pid()
    }

    /// The actor's own mailbox.
    pub fn mailbox(&self) -> Mailbox<A::Msg> {
        Mailbox::new(self.cell.clone(), self.ctx.address().recipient())
    }

    /// Sends to a name; see [`Mailbox::tell`] for what happens when it is full.
    pub fn lookup<M: Message>(&self, to: &Address) -> Result<Mailbox<M>, LookupError> {
        self.node.registry().lookup(to)
    }

    /// Handles `msg` after `delay`.
    pub fn after(&mut self, delay: Duration, msg: A::Msg) {
        let me = self.mailbox();
        self.ctx.run_later(delay, move |_, _| me.push_system(msg));
    }

    /// Runs `work` beside the mailbox and gives its outcome to `then`. A panic in either ends the actor.
    pub fn spawn<F, T>(&mut self, work: F, then: T)
    where
        F: Future + 'static,
        T: FnOnce(&mut A, F::Output, &mut Cx<'_, A>) -> Result<(), ExitReason> + 'static,
    {
        self.ctx.spawn(host::continuation(work, then, self.cell.clone()));
    }

    /// Runs `work` before the next message is taken. An orderly stop waits for it, a kill does not.
    pub fn wait<F, T>(&mut self, work: F, then: T)
    where
        F: Future + 'static,
        T: FnOnce(&mut A, F::Output, &mut Cx<'_, A>) -> Result<(), ExitReason> + 'static,
    {
        self.ctx.wait(host::continuation(work, then, self.cell.clone()));
    }

    /// Tells this actor, once, when the actor named `target` ends; at once if there is none.
    pub fn monitor(&mut self, target: &Address, then: impl FnOnce(Down) -> A::Msg + Send + 'static) {
        let me = self.mailbox();
        let told = move |down: Down| me.push_system(then(down));
        match self.node.registry().find(target) {
            Some(cell) => cell.watch(Some(self.cell.address().clone()), told),
            None => told(Down { pid: 0, address: target.clone(), reason: ExitReason::NoActor }),
        }
    }
}
