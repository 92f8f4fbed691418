use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;

enum Msg {
    Add,
    Total(RpcReplyPort<u64>),
    Crash,
}

struct Counter;

type Up = Option<UnboundedSender<ActorRef<Msg>>>;

impl Actor for Counter {
    type Msg = Msg;
    type State = u64;
    type Arguments = Up;

    async fn pre_start(&self, me: ActorRef<Msg>, up: Up) -> Result<u64, ActorProcessingErr> {
        if let Some(up) = up {
            let _ = up.send(me);
        }
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Msg>, msg: Msg, count: &mut u64) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Add => *count += 1,
            Msg::Total(reply) => drop(reply.send(*count)),
            Msg::Crash => return Err("crash".into()),
        }
        Ok(())
    }
}

/// ractor tells the parent of a child's end and leaves the restart to it.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = Up;
    type Arguments = Up;

    async fn pre_start(&self, _: ActorRef<()>, up: Up) -> Result<Up, ActorProcessingErr> {
        Ok(up)
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<()>,
        event: SupervisionEvent,
        up: &mut Up,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            Actor::spawn_linked(None, Counter, up.clone(), me.get_cell()).await?;
        }
        Ok(())
    }
}

pub fn run(work: &str) -> Option<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let work = work.to_owned();
    // The sender is a task of the pool, as an actor would be.
    let done = runtime.spawn(async move {
        let (tx, mut ups) = unbounded_channel();
        let up = (work == "restart").then_some(tx);
        let (parent, _) = Actor::spawn(None, Parent, up.clone()).await.expect("started");
        let start = || Actor::spawn_linked(None, Counter, up.clone(), parent.get_cell());
        match work.as_str() {
            "tell" => {
                let (c, _) = start().await.expect("started");
                let began = Instant::now();
                for _ in 0..TELLS {
                    c.cast(Msg::Add).expect("alive");
                }
                let total = c.call(Msg::Total, None).await.expect("alive").expect("an answer");
                assert_eq!(total, TELLS);
                Some(rate(TELLS, began))
            }
            "ask" => {
                let (c, _) = start().await.expect("started");
                let began = Instant::now();
                for _ in 0..ASKS {
                    c.call(Msg::Total, Some(PATIENCE)).await.expect("alive").expect("an answer");
                }
                Some(rate(ASKS, began))
            }
            "spawn" | "memory" => {
                let before = resident();
                let began = Instant::now();
                for _ in 0..SPAWNS {
                    start().await.expect("started");
                }
                Some(if work == "spawn" {
                    rate(SPAWNS, began)
                } else {
                    (resident() - before) / SPAWNS as f64
                })
            }
            "restart" => {
                start().await.expect("started");
                let mut c = ups.recv().await.expect("up");
                let began = Instant::now();
                for _ in 0..RESTARTS {
                    c.cast(Msg::Crash).expect("alive");
                    c = ups.recv().await.expect("up");
                }
                Some(rate(RESTARTS, began))
            }
            _ => None,
        }
    });
    runtime.block_on(done).expect("done")
}
