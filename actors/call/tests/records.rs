//! Call records while the journal takes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use call::{
    RecordsMsg,
    record::{Cdr, RecordEvent},
};
use futures::{FutureExt, future::BoxFuture};
use kit::{
    Address, Mailbox, Node, Strategy, SupervisorSpec,
    journal::{Batch, Entry, Filter, Journal, JournalError, MemoryJournal, Snapshot},
};

/// Its disk is full while the test says so.
#[derive(Clone, Default)]
struct Disk {
    kept: MemoryJournal,
    full: Arc<AtomicBool>,
}

impl Journal for Disk {
    fn append(&self, batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>> {
        match self.full.load(Relaxed) {
            true => futures::future::ready(Err(JournalError::DiskFull)).boxed(),
            false => self.kept.append(batch),
        }
    }
    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        self.kept.read(stream, after)
    }
    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>> {
        self.kept.snapshot(stream)
    }
    fn save_snapshot(&self, stream: &str, s: Snapshot) -> BoxFuture<'static, Result<(), JournalError>> {
        self.kept.save_snapshot(stream, s)
    }
    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>> {
        self.kept.forget(stream, up_to)
    }
    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        self.kept.browse(filter)
    }
}

fn cdr(call: u32) -> Box<Cdr> {
    let at = chrono::DateTime::UNIX_EPOCH;
    Box::new(Cdr {
        call: format!("domain/d/call/{call}"),
        attempt: 1,
        sides: vec![],
        group: String::new(),
        setup: at,
        answered: Some(at),
        ended: None,
        cause: None,
        released_by: String::new(),
        diverted: None,
        service: "call".into(),
        user_agent: String::new(),
    })
}

async fn kept(records: &Mailbox<RecordsMsg>, event: RecordEvent) -> Result<(), JournalError> {
    records.ask(|reply| RecordsMsg::Keep { event, reply: Some(reply) }).await.expect("it answers")
}

#[actix::test]
async fn calls_go_on_while_the_disk_is_full_and_their_records_are_written_later() {
    let (node, disk) = (Node::builder("test").build(), Disk::default());
    let journal: Arc<dyn Journal> = Arc::new(disk.clone());
    let root = SupervisorSpec::new(Address::new("root").expect("a name"), Strategy::OneForOne);
    let root = root.child(call::records(journal, None).expect("a name"));
    root.start_root(&node).await.expect("it starts");
    let name = Address::new(call::RECORDS).expect("a name");
    let records = node.registry().lookup::<RecordsMsg>(&name).expect("it runs");
    let unwritten = || node.alarms().active().into_iter().any(|a| a.class == "call::records::unwritten");

    disk.full.store(true, Relaxed);
    for call in 0..50 {
        assert!(kept(&records, RecordEvent::Answered { cdr: cdr(call) }).await.is_ok(), "call {call}");
        let ended = RecordEvent::Ended { cdr: cdr(call), ladder: String::new() };
        assert!(kept(&records, ended).await.is_ok());
    }
    assert!(unwritten());
    assert_eq!(disk.read(call::RECORDS, 0).await.expect("read").len(), 0);
    disk.full.store(false, Relaxed);
    // Whatever is kept from now on comes behind them.
    assert!(kept(&records, RecordEvent::Answered { cdr: cdr(99) }).await.is_ok());
    let mut all = Vec::new();
    for _ in 0..500 {
        all = disk.read(call::RECORDS, 0).await.expect("read");
        if all.len() == 101 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let calls: Vec<(String, String)> = all.iter().map(|e| (e.kind.clone(), e.body.to_string())).collect();
    assert_eq!(calls.len(), 101);
    for (n, pair) in calls[..100].chunks(2).enumerate() {
        let of = |(kind, body): &(String, String)| (kind.clone(), body.contains(&format!("call/{n}\"")));
        assert_eq!(
            pair.iter().map(of).collect::<Vec<_>>(),
            [("CallAnswered".into(), true), ("CallEnded".into(), true)]
        );
    }
    assert!(!unwritten());
}
