//! A ledger decides and keeps in groups; a journal that keeps only some of a group leaves it with just those.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
};

use futures::{FutureExt, future::BoxFuture};
use kit::{
    Address, ChildSpec, Mailbox, Node, Strategy, SupervisorSpec,
    journal::{Batch, Entry, Filter, Fold, Journal, JournalError, MemoryJournal, Origin, Snapshot},
    ledger::{self, Book, Ledger, LedgerError, LedgerMsg},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use tokio::sync::oneshot;

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
enum Event {
    Added(u64),
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Sum(Vec<u64>);

impl Fold for Sum {
    type Event = Event;
    fn apply(&mut self, Event::Added(n): &Event) {
        self.0.push(*n);
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{0} is there already")]
struct Twice(u64);

struct Set {
    published: Arc<Mutex<Vec<u64>>>,
    publications: Arc<AtomicU64>,
}

impl Book for Set {
    type State = Sum;
    type Command = u64;
    type Answer = usize;
    type Error = Twice;

    fn decide(&self, state: &Sum, n: u64) -> Result<(Vec<Event>, usize), Twice> {
        match state.0.contains(&n) {
            true => Err(Twice(n)),
            // Nothing changes with 0; its answer rests on what is there all the same.
            false if n == 0 => Ok((vec![], state.0.len())),
            false => Ok((vec![Event::Added(n)], state.0.len() + 1)),
        }
    }

    fn publish(&self, state: &Sum) {
        *self.published.lock() = state.0.clone();
        self.publications.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn snapshot_every(&self, _: &Sum) -> u64 {
        7
    }

    fn summary(&self, state: &Sum) -> serde_json::Value {
        state.0.len().into()
    }
}

/// Keeps an append when the test says so; those that are told to fail are not kept, nor those behind them.
#[derive(Default)]
struct Slow {
    inner: MemoryJournal,
    held: Arc<Mutex<VecDeque<oneshot::Sender<bool>>>>,
}

impl Journal for Slow {
    fn append(&self, batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>> {
        let (go, wait) = oneshot::channel();
        self.held.lock().push_back(go);
        let inner = self.inner.clone();
        async move {
            match wait.await {
                Ok(true) => inner.append(batch).await,
                _ => Err(JournalError::DiskFull),
            }
        }
        .boxed()
    }
    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        self.inner.read(stream, after)
    }
    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>> {
        self.inner.snapshot(stream)
    }
    fn save_snapshot(&self, stream: &str, s: Snapshot) -> BoxFuture<'static, Result<(), JournalError>> {
        self.inner.save_snapshot(stream, s)
    }
    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>> {
        self.inner.forget(stream, up_to)
    }
    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        self.inner.browse(filter)
    }
}

type Answer = Result<usize, LedgerError<Twice>>;

struct Bench {
    _node: Node,
    ledger: Mailbox<LedgerMsg<Set>>,
    held: Arc<Mutex<VecDeque<oneshot::Sender<bool>>>>,
    published: Arc<Mutex<Vec<u64>>>,
    publications: Arc<AtomicU64>,
}

impl Bench {
    async fn new() -> Self {
        let (node, journal) = (Node::builder("test").build(), Slow::default());
        let (published, publications) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicU64>::default());
        let held = journal.held.clone();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let address = Address::new("set").expect("a good name");
        let (p, q) = (published.clone(), publications.clone());
        let child = ChildSpec::worker(address.clone(), move |start| {
            let book = Set { published: p.clone(), publications: q.clone() };
            let journal = journal.clone();
            async move { Ledger::restore_named(book, journal, &start).await }
        });
        let root = SupervisorSpec::new(Address::new("root").expect("a good name"), Strategy::OneForOne);
        root.child(child).start_root(&node).await.expect("it starts");
        let ledger = node.registry().lookup(&address).expect("it runs");
        Self { _node: node, ledger, held, published, publications }
    }

    fn asks(&self, n: u64) -> tokio::task::JoinHandle<Answer> {
        let (ledger, origin) = (self.ledger.clone(), Origin { who: "test".into(), from: n.to_string() });
        tokio::task::spawn_local(async move { ledger::change::<Set>(&ledger, n, origin).await })
    }

    /// Until so many appends wait for the test's word.
    async fn held(&self, count: usize) {
        for _ in 0..10_000 {
            if self.held.lock().len() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} appends wait, not {count}", self.held.lock().len());
    }

    fn says(&self, kept: bool) {
        let go = self.held.lock().pop_front().expect("an append waits");
        let _ = go.send(kept);
    }
}

#[actix::test]
async fn changes_that_come_while_one_is_kept_are_kept_together() {
    let bench = Bench::new().await;
    let first = bench.asks(1);
    bench.held(1).await;
    // Among them one that is there already once the one before it is, and one that changes nothing.
    let more: Vec<_> = (2..60).chain([59, 0]).map(|n| bench.asks(n)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    bench.held(1).await;
    assert_eq!(*bench.published.lock(), [0u64; 0], "nothing is told before it is safe");
    bench.says(true);
    assert_eq!(first.await.expect("no panic").expect("kept"), 1);
    bench.held(58).await;
    assert_eq!(*bench.published.lock(), [1]);
    assert!(more.iter().all(|m| !m.is_finished()), "a refusal rests on what is not safe yet too");
    (0..58).for_each(|_| bench.says(true));
    let mut answers = Vec::new();
    for m in more {
        answers.push(m.await.expect("no panic"));
    }
    let sizes: Vec<_> = answers[..58].iter().map(|a| *a.as_ref().expect("kept")).collect();
    assert_eq!(sizes, (2..60).collect::<Vec<_>>());
    assert!(matches!(answers[58], Err(LedgerError::Refused(Twice(59)))));
    assert!(matches!(answers[59], Ok(59)));
    assert_eq!(*bench.published.lock(), (1..60).collect::<Vec<_>>());
    // When it began, and for each of the two groups.
    assert_eq!(bench.publications.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[actix::test]
async fn of_a_group_that_is_kept_in_part_just_that_part_is_there() {
    let bench = Bench::new().await;
    let first = bench.asks(1);
    bench.held(1).await;
    let more: Vec<_> = [2, 3, 4, 3, 0].map(|n| bench.asks(n)).into();
    bench.says(true);
    first.await.expect("no panic").expect("kept");
    bench.held(3).await;
    bench.says(true);
    bench.says(false);
    bench.says(false);
    let mut answers = Vec::new();
    for m in more {
        answers.push(m.await.expect("no panic"));
    }
    assert!(matches!(answers[0], Ok(2)));
    let failed = |a: &Answer| matches!(a, Err(LedgerError::Journal(JournalError::DiskFull)));
    assert!(answers[1..].iter().all(failed), "{answers:?}");
    // The same actor goes on, with what is in the journal.
    let again = bench.asks(3);
    bench.held(1).await;
    assert_eq!(*bench.published.lock(), [1, 2]);
    bench.says(true);
    assert_eq!(again.await.expect("no panic").expect("kept"), 3);
    assert_eq!(*bench.published.lock(), [1, 2, 3]);
    assert_eq!(bench.ledger.cell().restarts(), 0);
}
