use std::time::{Duration, Instant};

use kameo::{error::Infallible, prelude::*, supervision::RestartPolicy};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;

#[derive(Clone)]
struct Counter {
    count: u64,
    up: Option<UnboundedSender<ActorRef<Counter>>>,
}

impl Actor for Counter {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(me: Self, myself: ActorRef<Self>) -> Result<Self, Infallible> {
        if let Some(up) = &me.up {
            let _ = up.send(myself);
        }
        Ok(me)
    }
}

struct Add;
struct Total;
struct Crash;

impl Message<Add> for Counter {
    type Reply = ();
    async fn handle(&mut self, _: Add, _: &mut Context<Self, ()>) {
        self.count += 1;
    }
}

impl Message<Total> for Counter {
    type Reply = u64;
    async fn handle(&mut self, _: Total, _: &mut Context<Self, u64>) -> u64 {
        self.count
    }
}

impl Message<Crash> for Counter {
    type Reply = Result<(), String>;
    async fn handle(&mut self, _: Crash, _: &mut Context<Self, Result<(), String>>) -> Result<(), String> {
        Err("crash".into())
    }
}

#[derive(Clone)]
struct Parent;

impl Actor for Parent {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(me: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(me)
    }
}

pub fn run(work: &str) -> Option<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let work = work.to_owned();
    let done = runtime.spawn(async move {
        let (tx, mut ups) = unbounded_channel();
        let up = (work == "restart").then_some(tx);
        let parent = Parent::spawn(Parent);
        let start = || {
            Counter::supervise(&parent, Counter { count: 0, up: up.clone() })
                .restart_policy(RestartPolicy::Permanent)
                .restart_limit(u32::MAX, Duration::from_secs(1))
                .spawn()
        };
        match work.as_str() {
            "tell" => {
                let c = start().await;
                let began = Instant::now();
                for _ in 0..TELLS {
                    c.tell(Add).await.expect("alive");
                }
                assert_eq!(c.ask(Total).await.expect("an answer"), TELLS);
                Some(rate(TELLS, began))
            }
            "ask" => {
                let c = start().await;
                let began = Instant::now();
                for _ in 0..ASKS {
                    c.ask(Total).reply_timeout(PATIENCE).await.expect("an answer");
                }
                Some(rate(ASKS, began))
            }
            "spawn" | "memory" => {
                let before = resident();
                let began = Instant::now();
                for _ in 0..SPAWNS {
                    start().await;
                }
                Some(if work == "spawn" {
                    rate(SPAWNS, began)
                } else {
                    (resident() - before) / SPAWNS as f64
                })
            }
            "restart" => {
                start().await;
                let mut c = ups.recv().await.expect("up");
                let began = Instant::now();
                for _ in 0..RESTARTS {
                    c.tell(Crash).await.expect("alive");
                    c = ups.recv().await.expect("up");
                }
                Some(rate(RESTARTS, began))
            }
            _ => None,
        }
    });
    runtime.block_on(done).expect("done")
}
