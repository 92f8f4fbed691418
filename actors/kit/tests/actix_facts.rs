//! What actix itself does, established by experiment: the ground `kit` is built on. `ARCHITECTURE.md` quotes these.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use actix::prelude::*;

#[derive(Message)]
#[rtype(result = "u32")]
enum Do {
    Answer,
    Panic,
    Stop,
}

struct Worker {
    started: Arc<AtomicU32>,
}

impl Actor for Worker {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.started.fetch_add(1, SeqCst);
    }
}

impl Supervised for Worker {}

impl Handler<Do> for Worker {
    type Result = u32;
    fn handle(&mut self, msg: Do, ctx: &mut Self::Context) -> u32 {
        match msg {
            Do::Answer => 42,
            Do::Panic => panic!("on purpose"),
            Do::Stop => {
                ctx.stop();
                0
            }
        }
    }
}

fn worker() -> (Worker, Arc<AtomicU32>) {
    let started = Arc::new(AtomicU32::new(0));
    (Worker { started: started.clone() }, started)
}

#[actix::test]
async fn a_panicking_handler_ends_its_actor_and_no_sibling_on_the_arbiter() {
    let (broken, sibling) = (worker().0.start(), worker().0.start());
    assert_eq!(broken.send(Do::Panic).await, Err(MailboxError::Closed));
    assert!(!broken.connected());
    assert_eq!(sibling.send(Do::Answer).await, Ok(42));
}

#[actix::test]
async fn actix_supervisor_does_not_restart_after_a_panic() {
    let (w, started) = worker();
    let addr = Supervisor::start(|_| w);
    assert_eq!(addr.send(Do::Panic).await, Err(MailboxError::Closed));
    assert!(addr.send(Do::Answer).await.is_err());
    assert_eq!(started.load(SeqCst), 1);
}

#[actix::test]
async fn actix_supervisor_restarts_after_an_orderly_stop_only() {
    let (w, started) = worker();
    let addr = Supervisor::start(|_| w);
    let _ = addr.send(Do::Stop).await;
    assert_eq!(addr.send(Do::Answer).await, Ok(42));
    assert_eq!(started.load(SeqCst), 2);
}

#[actix::test]
async fn do_send_passes_the_mailbox_bound_and_is_silent_when_the_actor_is_gone() {
    let addr = worker().0.start();
    for _ in 0..1000 {
        addr.do_send(Do::Answer);
    }
    assert_eq!(addr.send(Do::Answer).await, Ok(42));
    let _ = addr.send(Do::Panic).await;
    addr.do_send(Do::Answer);
}
