//! Actors on the real runtime: what a caller, a monitor and an operator see.

use std::time::Duration;

use kit::{
    Actor, Address, AskError, ChildSpec, Cx, ExitReason, LookupError, Mailbox, Node, Placement, Refused,
    Reply, Restart, Secret, Shutdown, Strategy, SupervisorHandle, SupervisorSpec, crash::CrashLog,
};
use serde_json::json;
use strum::IntoStaticStr;
use tokio::sync::oneshot;

#[derive(Debug, IntoStaticStr)]
enum Msg {
    Count(Reply<u32>),
    Crash,
    /// Waits for ever before the next message.
    Hang(Reply<()>),
    /// Blocks its thread until told.
    Block(std::sync::mpsc::Receiver<()>),
    Watch(Address, Reply<ExitReason>),
    Ended(ExitReason),
    /// Panics beside the mailbox.
    CrashLater,
}

struct Counter {
    count: u32,
    password: Secret<String>,
    watching: Option<Reply<ExitReason>>,
}

impl Actor for Counter {
    type Msg = Msg;
    const MAILBOX: u32 = 8;

    fn handle(&mut self, msg: Msg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            Msg::Count(reply) => {
                self.count += 1;
                reply.send(self.count);
            }
            Msg::Crash => panic!("on purpose"),
            Msg::Hang(reply) => {
                reply.send(());
                cx.wait(std::future::pending::<()>(), |_, (), _| Ok(()));
            }
            Msg::Block(until) => drop(until.recv()),
            Msg::Watch(target, reply) => {
                self.watching = Some(reply);
                cx.monitor(&target, |down| Msg::Ended(down.reason));
            }
            Msg::Ended(reason) => {
                if let Some(reply) = self.watching.take() {
                    reply.send(reason);
                }
            }
            Msg::CrashLater => cx.spawn(async { panic!("beside the mailbox") }, |_, (): (), _| Ok(())),
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({ "count": self.count, "password": self.password })
    }
}

fn counter(name: &str) -> ChildSpec {
    ChildSpec::worker(address(name), |_| async {
        Ok(Counter { count: 0, password: Secret::new("parol".into()), watching: None })
    })
}

fn address(name: &str) -> Address {
    Address::new(name).expect("a good name")
}

fn mailbox(node: &Node, name: &str) -> Mailbox<Msg> {
    node.registry().lookup(&address(name)).expect("it runs")
}

/// Until the actor under this name is another one than `pid`.
async fn reborn(node: &Node, name: &str, pid: u64) -> Mailbox<Msg> {
    loop {
        if let Ok(m) = node.registry().lookup::<Msg>(&address(name))
            && m.cell().pid() != pid
        {
            return m;
        }
        tokio::task::yield_now().await;
    }
}

async fn end_of(cell: &kit::Cell) -> ExitReason {
    let (tx, rx) = oneshot::channel();
    cell.watch(None, move |down| {
        let _ = tx.send(down.reason);
    });
    rx.await.expect("it ends")
}

async fn tree(node: &Node, strategy: Strategy, names: &[&str]) -> std::sync::Arc<kit::Cell> {
    let mut spec = SupervisorSpec::new(address("root"), strategy).intensity(3, Duration::from_secs(5));
    for name in names {
        spec = spec.child(counter(name));
    }
    spec.start_root(node).await.expect("it starts")
}

#[actix::test]
async fn a_panic_ends_one_actor_alone_and_leaves_a_report() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a", "b"]).await;
    let (a, b) = (mailbox(&node, "a"), mailbox(&node, "b"));
    assert_eq!(b.ask(Msg::Count).await, Ok(1));
    a.tell(Msg::Crash).expect("there is room");
    let lost = a.ask(Msg::Count).await;
    assert!(matches!(lost, Err(AskError::Unanswered | AskError::Gone)), "{lost:?}");
    let again = reborn(&node, "a", a.cell().pid()).await;
    assert_eq!(again.ask(Msg::Count).await, Ok(1));
    assert_eq!(again.cell().restarts(), 1);
    assert_eq!(b.ask(Msg::Count).await, Ok(2), "the sibling kept its state");
    let report = node.crashes().last_of(&address("a")).expect("a report");
    assert_eq!(report.during.as_deref(), Some("Crash"));
    assert!(matches!(&report.reason, ExitReason::Panic(text) if text.starts_with("on purpose at ")));
    assert_eq!(report.state, json!({ "count": 0, "password": "******" }));
    let total = node.totals().0["Counter"];
    assert_eq!((total.actors, total.handled), (2, 4), "the one that ended counts too: {total:?}");
}

#[actix::test]
async fn a_panic_beside_the_mailbox_ends_the_actor_too() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a"]).await;
    let a = mailbox(&node, "a");
    a.tell(Msg::CrashLater).expect("there is room");
    assert!(matches!(end_of(a.cell()).await, ExitReason::Panic(_)));
}

#[actix::test]
async fn a_full_mailbox_gives_the_message_back() {
    let node = Node::builder("test").arbiters(1).build();
    let spec = SupervisorSpec::new(address("root"), Strategy::OneForOne)
        .child(counter("a").place(Placement::Spread));
    spec.start_root(&node).await.expect("it starts");
    let a = mailbox(&node, "a");
    let (go, block) = std::sync::mpsc::channel();
    a.tell(Msg::Block(block)).expect("there is room");
    while a.cell().vitals(node.quanta()).handled == 0 {
        tokio::task::yield_now().await;
    }
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(a.ask(Msg::Count));
    }
    let (reply, _rest) = Reply::new();
    assert!(matches!(a.tell(Msg::Count(reply)), Err(Refused::Full(Msg::Count(_)))));
    assert_eq!(a.ask(Msg::Count).await, Err(AskError::Full));
    let waiting = {
        let a = a.clone();
        actix::spawn(async move {
            let (reply, answer) = Reply::new();
            a.send(Msg::Count(reply)).await.expect("room comes");
            answer.await
        })
    };
    tokio::task::yield_now().await;
    go.send(()).expect("it listens");
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await, Ok(i as u32 + 1));
    }
    assert_eq!(waiting.await.expect("it runs"), Ok(9));
    let vitals = a.cell().vitals(node.quanta());
    assert!(vitals.refused >= 2 && vitals.mailbox == 0, "{vitals:?}");
}

#[actix::test]
async fn a_kill_interrupts_what_an_actor_waits_for() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a"]).await;
    let a = mailbox(&node, "a");
    a.ask(Msg::Hang).await.expect("it answers first");
    a.cell().exit(ExitReason::Killed);
    assert_eq!(end_of(a.cell()).await, ExitReason::Killed);
}

#[actix::test]
async fn a_child_that_does_not_stop_in_time_is_killed() {
    let node = Node::builder("test").build();
    let spec = SupervisorSpec::new(address("root"), Strategy::OneForOne)
        .child(counter("a").shutdown(Shutdown::After(Duration::from_millis(20))));
    let root = spec.start_root(&node).await.expect("it starts");
    let a = mailbox(&node, "a");
    a.ask(Msg::Hang).await.expect("it answers first");
    root.exit(ExitReason::Shutdown);
    assert_eq!(end_of(a.cell()).await, ExitReason::Killed);
    assert_eq!(end_of(&root).await, ExitReason::Shutdown);
    assert!(node.registry().is_empty());
}

#[actix::test]
async fn an_actor_stuck_in_a_handler_is_abandoned_and_started_again() {
    let node = Node::builder("test").arbiters(2).build();
    let spec = SupervisorSpec::new(address("root"), Strategy::OneForOne)
        .child(counter("a").place(Placement::Spread).shutdown(Shutdown::Kill));
    spec.start_root(&node).await.expect("it starts");
    let a = mailbox(&node, "a");
    let (go, block) = std::sync::mpsc::channel();
    a.tell(Msg::Block(block)).expect("there is room");
    while a.cell().vitals(node.quanta()).handled == 0 {
        tokio::task::yield_now().await;
    }
    let root = SupervisorHandle::find(&node, &address("root")).expect("it runs");
    root.terminate_child(&address("a")).await.expect("it is abandoned");
    root.restart_child(&address("a")).await.expect("its name is free");
    assert_eq!(mailbox(&node, "a").ask(Msg::Count).await, Ok(1));
    go.send(()).expect("the old one still listens");
}

#[actix::test]
async fn too_many_restarts_end_the_supervisor_and_its_children() {
    let node = Node::builder("test").build();
    let root = tree(&node, Strategy::OneForOne, &["a", "b"]).await;
    let mut a = mailbox(&node, "a");
    for _ in 0..3 {
        a.tell(Msg::Crash).expect("there is room");
        a = reborn(&node, "a", a.cell().pid()).await;
    }
    a.tell(Msg::Crash).expect("there is room");
    assert_eq!(end_of(&root).await, ExitReason::Shutdown);
    assert!(node.registry().is_empty());
}

#[actix::test]
async fn a_killed_supervisor_takes_its_children_with_it_and_comes_back_whole() {
    let node = Node::builder("test").build();
    let inner = SupervisorSpec::new(address("inner"), Strategy::OneForOne).child(counter("inner/a"));
    let root = SupervisorSpec::new(address("root"), Strategy::OneForOne).child(inner.into_child());
    root.start_root(&node).await.expect("it starts");
    let a = mailbox(&node, "inner/a");
    node.registry().find(&address("inner")).expect("it runs").exit(ExitReason::Killed);
    let again = reborn(&node, "inner/a", a.cell().pid()).await;
    assert_eq!(end_of(a.cell()).await, ExitReason::Killed);
    assert_eq!(again.ask(Msg::Count).await, Ok(1));
}

#[actix::test]
async fn monitors_learn_the_reason_and_a_missing_actor_at_once() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a", "b"]).await;
    let (a, b) = (mailbox(&node, "a"), mailbox(&node, "b"));
    let told = b.ask(|r| Msg::Watch(address("a"), r));
    assert_eq!(b.ask(Msg::Count).await, Ok(1));
    assert_eq!(a.cell().monitored_by(), [address("b")]);
    a.cell().exit(ExitReason::Shutdown);
    assert_eq!(told.await, Ok(ExitReason::Shutdown));
    assert_eq!(b.ask(|r| Msg::Watch(address("nobody"), r)).await, Ok(ExitReason::NoActor));
}

#[actix::test]
async fn dynamic_children_come_and_go() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::Dynamic, &[]).await;
    let root = SupervisorHandle::find(&node, &address("root")).expect("it runs");
    root.start_child(counter("a").restart(Restart::Transient)).await.expect("a new name");
    let twice = root.start_child(counter("a")).await.expect_err("the name is taken");
    assert_eq!(twice.to_string(), "already_started");
    // Two who both saw that there is none.
    let (one, other) = futures::join!(root.ensure_child(counter("b")), root.ensure_child(counter("b")));
    assert_eq!((one, other), (Ok(()), Ok(())));
    root.terminate_child(&address("b")).await.expect("it stops");
    let a = mailbox(&node, "a");
    a.tell(Msg::Crash).expect("there is room");
    let a = reborn(&node, "a", a.cell().pid()).await;
    a.cell().exit(ExitReason::Normal);
    end_of(a.cell()).await;
    root.start_child(counter("a")).await.expect("its specification went with it");
    root.terminate_child(&address("a")).await.expect("it stops");
    assert_eq!(root.restart_child(&address("a")).await.map_err(|e| e.to_string()), Err("not_found".into()));
}

#[actix::test]
async fn names_lead_to_the_right_protocol_only() {
    #[derive(Debug, IntoStaticStr)]
    enum Other {
        _Nothing,
    }
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a"]).await;
    let wrong = node.registry().lookup::<Other>(&address("a")).map(drop);
    assert_eq!(wrong, Err(LookupError::OtherProtocol(address("a"))));
    let missing = node.registry().lookup::<Msg>(&address("z")).map(drop);
    assert_eq!(missing, Err(LookupError::NotFound(address("z"))));
}

#[actix::test]
async fn the_trace_shows_sender_and_message_while_watched() {
    let node = Node::builder("test").build();
    tree(&node, Strategy::OneForOne, &["a", "b"]).await;
    let a = mailbox(&node, "a");
    let mut watch = node.trace().watch();
    a.cell().set_traced(true);
    assert_eq!(a.ask(Msg::Count).await, Ok(1));
    let seen = watch.messages.recv().await.expect("a message");
    assert_eq!((seen.to.as_str(), seen.label, seen.text.as_str()), ("a", "Count", "Count(reply)"));
}

#[actix::test]
async fn crash_reports_survive_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("crashes.jsonl");
    {
        let node = Node::builder("test").crashes(CrashLog::with_file(&file).expect("a file")).build();
        tree(&node, Strategy::OneForOne, &["a"]).await;
        let a = mailbox(&node, "a");
        a.tell(Msg::Crash).expect("there is room");
        end_of(a.cell()).await;
    }
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"{\"id\": 9, \"cut"))
        .expect("it can be written");
    let again = CrashLog::with_file(&file).expect("it reads");
    assert_eq!(again.newest(10).len(), 1);
    assert_eq!(again.newest(1)[0].id, 1);
}
