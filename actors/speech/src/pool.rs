//! Threads where engines work, each under an actor `speech/<ENGINE>/<N>`. A listener is given to the thread that has the
//! fewest; what waits is bounded, and more is refused at once.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Queue, Refused};
use parking_lot::Mutex;
use strum::IntoStaticStr;
use tokio::sync::mpsc;

use crate::recogniser::{Engine, Heard, Recogniser, RecogniserError, Task};

/// Pieces of speech that wait for one thread.
const WAITING: usize = 2_048;
/// How often an idle thread looks whether its engine lives.
const LOOK: Duration = Duration::from_millis(500);
/// Listeners of one thread.
const LISTENERS: usize = 128;

/// What a listener tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The text so far.
    Partial(String),
    Heard(Result<Heard, RecogniserError>),
}

enum Job {
    Open(u64, Task, mpsc::UnboundedSender<Update>),
    Feed(u64, Vec<f32>),
    Finish(u64),
    Close(u64),
}

/// One thread, as its users see it.
struct Worker {
    number: usize,
    engine: &'static str,
    since: chrono::DateTime<chrono::Utc>,
    jobs: Queue<Job>,
    listeners: Arc<AtomicUsize>,
    /// It hears whom it has to the end, and takes nobody new.
    retired: bool,
}

/// One thread, as operators see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Instance {
    pub number: usize,
    pub engine: &'static str,
    pub since: chrono::DateTime<chrono::Utc>,
    pub listeners: usize,
    /// Pieces of speech that wait.
    pub waiting: usize,
    pub retiring: bool,
}

type Workers = Arc<Mutex<Vec<Worker>>>;
/// Makes an engine, on the thread where it will live.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Engine>, RecogniserError> + Send + Sync>;

/// All threads of one engine; clones share them.
#[derive(Clone)]
pub struct Pool {
    name: &'static str,
    workers: Workers,
    next: Arc<AtomicU64>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub utterances: AtomicU64,
    pub refused: AtomicU64,
    pub failed: AtomicU64,
}

/// Somebody being listened to. It ends unheard when it is dropped.
pub struct Ear {
    id: u64,
    jobs: Queue<Job>,
    pub updates: mpsc::UnboundedReceiver<Update>,
    done: bool,
}

fn put(jobs: &Queue<Job>, job: Job) -> Result<(), RecogniserError> {
    jobs.put(job).map_err(|e| match e {
        Refused::Full(_) => RecogniserError::Overloaded,
        Refused::Gone(_) => RecogniserError::Stopped,
    })
}

impl Ear {
    pub fn feed(&mut self, samples: Vec<f32>) -> Result<(), RecogniserError> {
        put(&self.jobs, Job::Feed(self.id, samples))
    }

    /// The utterance is over; what was heard comes as an [`Update::Heard`].
    pub fn finish(&mut self) -> Result<(), RecogniserError> {
        self.done = true;
        put(&self.jobs, Job::Finish(self.id))
    }

    /// Waits for what was heard.
    pub async fn heard(&mut self) -> Result<Heard, RecogniserError> {
        loop {
            match self.updates.recv().await {
                Some(Update::Partial(_)) => {}
                Some(Update::Heard(heard)) => return heard,
                None => return Err(RecogniserError::Stopped),
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if !self.done {
            // A thread that is too busy to be told forgets the listener when it speaks to nobody.
            let _ = put(&self.jobs, Job::Close(self.id));
        }
    }
}

impl Pool {
    pub fn new(name: &'static str) -> Self {
        Self { name, workers: Workers::default(), next: Arc::default(), counts: Arc::default() }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Threads that take listeners.
    pub fn threads(&self) -> usize {
        self.workers.lock().iter().filter(|w| !w.retired).count()
    }

    pub fn instances(&self) -> Vec<Instance> {
        let seen = |w: &Worker| Instance {
            number: w.number,
            engine: w.engine,
            since: w.since,
            listeners: w.listeners.load(Relaxed),
            waiting: w.jobs.waiting(),
            retiring: w.retired,
        };
        let mut all: Vec<Instance> = self.workers.lock().iter().map(seen).collect();
        all.sort_by_key(|i| i.number);
        all
    }

    /// A thread takes nobody new from now on; false when there is none of this number.
    pub fn retire(&self, number: usize) -> bool {
        let mut workers = self.workers.lock();
        let worker = workers.iter_mut().find(|w| w.number == number);
        worker.map(|w| w.retired = true).is_some()
    }

    /// Whether nobody is heard by a thread any more.
    pub fn is_idle(&self, number: usize) -> bool {
        let workers = self.workers.lock();
        workers
            .iter()
            .find(|w| w.number == number)
            .is_none_or(|w| w.listeners.load(Relaxed) == 0 && w.jobs.waiting() == 0)
    }

    /// Has a thread make ready for a task before the first caller comes.
    pub fn warm(&self, number: usize, task: &Task) {
        let workers = self.workers.lock();
        if let Some(worker) = workers.iter().find(|w| w.number == number) {
            let id = self.next.fetch_add(1, Relaxed);
            let (told, _) = mpsc::unbounded_channel();
            // A thread with a full queue has other worries.
            let _ = put(&worker.jobs, Job::Open(id, task.clone(), told));
            let _ = put(&worker.jobs, Job::Close(id));
        }
    }

    /// A new listener.
    pub fn listen(&self, task: Task) -> Result<Ear, RecogniserError> {
        let opened = self.open(task);
        if matches!(opened, Err(RecogniserError::Overloaded)) {
            self.counts.refused.fetch_add(1, Relaxed);
        }
        opened
    }

    fn open(&self, task: Task) -> Result<Ear, RecogniserError> {
        let jobs = {
            let workers = self.workers.lock();
            let idlest = workers
                .iter()
                .filter(|w| !w.retired)
                .min_by_key(|w| w.listeners.load(Relaxed) + w.jobs.waiting());
            let idlest = idlest.ok_or(RecogniserError::Stopped)?;
            if idlest.listeners.load(Relaxed) >= LISTENERS {
                return Err(RecogniserError::Overloaded);
            }
            idlest.jobs.clone()
        };
        let id = self.next.fetch_add(1, Relaxed);
        let (told, updates) = mpsc::unbounded_channel();
        put(&jobs, Job::Open(id, task, told))?;
        Ok(Ear { id, jobs, updates, done: false })
    }

    /// Recognises a whole utterance.
    pub async fn hear(&self, task: Task, samples: Vec<f32>) -> Result<Heard, RecogniserError> {
        let mut ear = self.listen(task)?;
        ear.feed(samples)?;
        ear.finish()?;
        ear.heard().await
    }

    /// The supervisor of its threads' actors.
    pub fn supervisor(&self) -> Result<Address, AddressError> {
        Address::new(format!("speech/{}", self.name))
    }

    /// The name of one thread's actor.
    pub fn address(&self, number: usize) -> Result<Address, AddressError> {
        Address::new(format!("speech/{}/{number}", self.name))
    }

    /// The actor around one thread.
    pub fn child(&self, number: usize, make: Make) -> Result<ChildSpec, AddressError> {
        let pool = self.clone();
        Ok(ChildSpec::worker(self.address(number)?, move |_| {
            let (pool, make) = (pool.clone(), make.clone());
            async move { Thread::start(pool, number, make).await }
        }))
    }
}

/// The actor. It ends with its thread, and the thread with it.
struct Thread {
    pool: Pool,
    number: usize,
    engine: &'static str,
    listeners: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    ended: Option<tokio::sync::oneshot::Receiver<String>>,
}

#[derive(Debug, IntoStaticStr)]
enum ThreadMsg {}

impl Thread {
    async fn start(pool: Pool, number: usize, make: Make) -> Result<Self, ExitReason> {
        let (jobs, todo) = Queue::new(WAITING);
        let (ready, made) = tokio::sync::oneshot::channel();
        let (over, ended) = tokio::sync::oneshot::channel();
        let (listeners, stop): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let (l, s, counts) = (listeners.clone(), stop.clone(), pool.counts.clone());
        thread::Builder::new()
            .name(format!("{}-{number}", pool.name))
            .spawn(move || {
                let mut engine = match make() {
                    Ok(engine) => {
                        let _ = ready.send(Ok(engine.name()));
                        engine
                    }
                    Err(e) => {
                        let _ = ready.send(Err(e));
                        return;
                    }
                };
                let worked = catch_unwind(AssertUnwindSafe(|| work(&mut *engine, &todo, &l, &s, &counts)));
                l.store(0, Relaxed);
                let text = |p: Box<dyn std::any::Any + Send>| {
                    p.downcast_ref::<&str>().map(|s| (*s).to_owned()).unwrap_or_else(|| "a panic".into())
                };
                let _ = over.send(worked.unwrap_or_else(text));
            })
            .map_err(ExitReason::error)?;
        let engine = made
            .await
            .map_err(|_| ExitReason::Error("its thread has ended".into()))?
            .map_err(|e| ExitReason::Error(e.to_string()))?;
        let (since, retired) = (chrono::Utc::now(), false);
        pool.workers.lock().push(Worker {
            number,
            engine,
            since,
            jobs,
            listeners: listeners.clone(),
            retired,
        });
        Ok(Self { pool, number, engine, listeners, stop, ended: Some(ended) })
    }
}

/// The work of a thread, until it ends; the answer is why.
fn work(
    engine: &mut dyn Engine,
    todo: &Receiver<Job>,
    listeners: &AtomicUsize,
    stop: &AtomicBool,
    counts: &Arc<Counts>,
) -> String {
    let mut all: HashMap<u64, (Box<dyn Recogniser>, mpsc::UnboundedSender<Update>)> = HashMap::new();
    loop {
        if let Some(why) = engine.ended() {
            return why;
        }
        let job = match todo.recv_timeout(LOOK) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return "stopped".to_owned(),
        };
        if stop.load(Relaxed) {
            return "stopped".to_owned();
        }
        match job {
            Job::Open(id, task, told) => match engine.open(&task) {
                Ok(recogniser) => drop(all.insert(id, (recogniser, told))),
                Err(e) => {
                    counts.failed.fetch_add(1, Relaxed);
                    let _ = told.send(Update::Heard(Err(e)));
                }
            },
            Job::Feed(id, samples) => {
                let Some((recogniser, told)) = all.get_mut(&id) else { continue };
                let gone = match recogniser.feed(&samples) {
                    Ok(None) => told.is_closed(),
                    Ok(Some(text)) => told.send(Update::Partial(text)).is_err(),
                    Err(e) => {
                        counts.failed.fetch_add(1, Relaxed);
                        let _ = told.send(Update::Heard(Err(e)));
                        true
                    }
                };
                if gone {
                    all.remove(&id);
                }
            }
            Job::Finish(id) => {
                let Some((recogniser, told)) = all.remove(&id) else { continue };
                let counts = counts.clone();
                recogniser.conclude(Box::new(move |heard| {
                    let count = if heard.is_ok() { &counts.utterances } else { &counts.failed };
                    count.fetch_add(1, Relaxed);
                    let _ = told.send(Update::Heard(heard));
                }));
            }
            Job::Close(id) => drop(all.remove(&id)),
        }
        listeners.store(all.len(), Relaxed);
    }
}

impl Actor for Thread {
    type Msg = ThreadMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if let Some(ended) = self.ended.take() {
            cx.spawn(ended, |_, why, _| {
                Err(ExitReason::Error(why.unwrap_or_else(|_| "its thread has ended".into())))
            });
        }
        Ok(())
    }

    fn handle(&mut self, msg: ThreadMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "engine": self.engine, "listeners": self.listeners.load(Relaxed) })
    }
}

impl Drop for Thread {
    /// However it ends, its listeners are told, by losing their thread.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let mut workers = self.pool.workers.lock();
        if let Some(at) = workers.iter().position(|w| w.number == self.number) {
            let worker = workers.swap_remove(at);
            // It looks up from an empty queue.
            let _ = put(&worker.jobs, Job::Close(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::error::TryRecvError;

    use super::*;
    use crate::grammar::Grammar;

    #[test]
    fn who_still_waits_for_a_thread_that_ends_is_told_and_a_queue_has_an_end() {
        let (jobs, todo) = Queue::new(WAITING);
        let (told, mut updates) = mpsc::unbounded_channel();
        let task = Task::whole(Grammar::Open, Arc::default());
        put(&jobs, Job::Open(1, task, told)).expect("taken");
        (1..WAITING).for_each(|_| put(&jobs, Job::Finish(1)).expect("taken"));
        assert!(matches!(put(&jobs, Job::Finish(1)), Err(RecogniserError::Overloaded)));
        assert!(matches!(updates.try_recv(), Err(TryRecvError::Empty)));
        drop(todo);
        assert!(matches!(updates.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(matches!(put(&jobs, Job::Finish(1)), Err(RecogniserError::Stopped)));
    }
}
