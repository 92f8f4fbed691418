use std::time::{Duration, Instant};

use kit::{
    Actor, Address, ChildSpec, Cx, ExitReason, Mailbox, Node, Placement, Reply, Shutdown, Strategy,
    SupervisorHandle, SupervisorSpec,
};
use strum::IntoStaticStr;
use tokio::sync::mpsc::UnboundedSender;

use super::*;

#[derive(Debug, IntoStaticStr)]
enum Msg {
    Add,
    Total(Reply<u64>),
    Crash,
}

struct Counter {
    count: u64,
    up: Option<UnboundedSender<()>>,
}

impl Actor for Counter {
    type Msg = Msg;
    const MAILBOX: u32 = 65_536;

    fn started(&mut self, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if let Some(up) = &self.up {
            let _ = up.send(());
        }
        Ok(())
    }

    fn handle(&mut self, msg: Msg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            Msg::Add => self.count += 1,
            Msg::Total(reply) => reply.send(self.count),
            Msg::Crash => return Err(ExitReason::Error("crash".into())),
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        self.count.into()
    }
}

fn address(text: &str) -> Address {
    Address::new(text).expect("a good address")
}

fn spec(name: &str, up: Option<UnboundedSender<()>>) -> ChildSpec {
    ChildSpec::worker(address(name), move |_| {
        let up = up.clone();
        async move { Ok(Counter { count: 0, up }) }
    })
    .shutdown(Shutdown::Kill)
}

pub fn run(work: &str) -> Option<f64> {
    let work = work.to_owned();
    actix::System::new().block_on(async move {
        let node = Node::builder("bench").arbiters(1).build();
        let root = SupervisorSpec::new(address("root"), Strategy::Dynamic)
            .intensity(u32::MAX, Duration::from_secs(1));
        root.start_root(&node).await.expect("started");
        let supervisor = SupervisorHandle::find(&node, &address("root")).expect("there");
        let found = |name: &str| -> Mailbox<Msg> { node.registry().lookup(&address(name)).expect("there") };
        match work.as_str() {
            "tell" => {
                supervisor.start_child(spec("c", None).place(Placement::Spread)).await.expect("started");
                let c = found("c");
                let began = Instant::now();
                for _ in 0..TELLS {
                    c.send(Msg::Add).await.expect("alive");
                }
                assert_eq!(c.ask_for(Duration::from_secs(60), Msg::Total).await, Ok(TELLS));
                Some(rate(TELLS, began))
            }
            "ask" => {
                supervisor.start_child(spec("c", None)).await.expect("started");
                let c = found("c");
                let began = Instant::now();
                for _ in 0..ASKS {
                    c.ask(Msg::Total).await.expect("an answer");
                }
                Some(rate(ASKS, began))
            }
            "spawn" | "memory" => {
                let before = resident();
                let began = Instant::now();
                for i in 0..SPAWNS {
                    supervisor.start_child(spec(&format!("c/{i}"), None)).await.expect("started");
                }
                Some(if work == "spawn" {
                    rate(SPAWNS, began)
                } else {
                    (resident() - before) / SPAWNS as f64
                })
            }
            "restart" => {
                let (tx, mut up) = tokio::sync::mpsc::unbounded_channel();
                supervisor.start_child(spec("c", Some(tx))).await.expect("started");
                up.recv().await;
                let began = Instant::now();
                for _ in 0..RESTARTS {
                    found("c").tell(Msg::Crash).expect("there is room");
                    up.recv().await;
                }
                Some(rate(RESTARTS, began))
            }
            _ => None,
        }
    })
}
