//! An engine in a process of its own: what its C code does to memory, and how it ends, is not the node's.
//!
//! The node's thread asks and waits, one question at a time; a process serves the threads of one engine (`instance`). A frame is
//! the length of its JSON and the number of its samples (both u32, little endian), the JSON, and the samples (f32, little endian).

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    dictionary::Dictionary,
    grammar::Grammar,
    recogniser::{Engine, Heard, LONGEST, RATE, Recogniser, RecogniserError, Task},
};

/// Bytes of a frame's JSON, and samples, at most.
const JSON: u32 = 256 << 20;
const SAMPLES: u32 = LONGEST * RATE * 2;
/// Grammars, and dictionaries, that a process remembers for one thread.
const REMEMBERED: usize = 64;
/// A process that does not answer for so long is ended.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of a process's last words that are told when it ends.
const LAST_WORDS: usize = 2_000;

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Make an engine.
    Begin,
    Grammar {
        id: u64,
        grammar: Grammar,
    },
    Dictionary {
        id: u64,
        dictionary: Dictionary,
    },
    Forget {
        id: u64,
    },
    Open {
        listener: u64,
        grammar: u64,
        dictionary: u64,
        partial: bool,
        sure: bool,
        others: bool,
    },
    Feed {
        listener: u64,
    },
    Finish {
        listener: u64,
    },
    Close {
        listener: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(Result<(), RecogniserError>),
    Fed(Result<Option<String>, RecogniserError>),
    Heard(Result<Heard, RecogniserError>),
}

#[derive(Serialize, Deserialize)]
struct Of<T> {
    instance: u64,
    what: T,
}

fn write<T: Serialize>(to: &mut impl Write, frame: &Of<T>, samples: &[f32]) -> io::Result<()> {
    let json = serde_json::to_vec(frame)?;
    let long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame that is too long");
    let (length, count) =
        (u32::try_from(json.len()).map_err(long)?, u32::try_from(samples.len()).map_err(long)?);
    let mut all = Vec::with_capacity(8 + json.len() + 4 * samples.len());
    all.extend(length.to_le_bytes());
    all.extend(count.to_le_bytes());
    all.extend(json);
    samples.iter().for_each(|s| all.extend(s.to_le_bytes()));
    to.write_all(&all)?;
    to.flush()
}

fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(Of<T>, Vec<f32>)> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let (length, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if length > JSON || count > SAMPLES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    let mut json = vec![0; length as usize];
    from.read_exact(&mut json)?;
    let mut bytes = vec![0; 4 * count as usize];
    from.read_exact(&mut bytes)?;
    let samples = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok((serde_json::from_slice(&json)?, samples))
}

/// Threads of the node that wait for a process, by instance.
type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

/// The node's end of a process.
pub struct Process {
    to: Mutex<Box<dyn Write + Send>>,
    waiting: Waiting,
    next: AtomicU64,
    /// Why it has ended.
    ended: Arc<OnceLock<String>>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Starts a program whose standard input and output are the ends of [`serve`].
    pub fn start(mut command: Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        // A group of its own: a terminal's Ctrl-C is the node's to heed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let (to, from) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
        let errors = child.stderr.take().ok_or_else(missing)?;
        let last_words =
            thread::Builder::new().name("last-words".into()).spawn(move || last_words(errors))?;
        let why = move || {
            let said = last_words.join().unwrap_or_default();
            let said = said.trim();
            if said.is_empty() { "the recogniser's process has ended".to_owned() } else { said.to_owned() }
        };
        let process = Self::over(from, to, why)?;
        *process.child.lock() = Some(child);
        Ok(process)
    }

    fn over(
        from: impl Read + Send + 'static,
        to: impl Write + Send + 'static,
        why: impl FnOnce() -> String + Send + 'static,
    ) -> io::Result<Self> {
        let (waiting, ended) = (Waiting::default(), Arc::<OnceLock<String>>::default());
        let (w, e) = (waiting.clone(), ended.clone());
        thread::Builder::new().name("recogniser".into()).spawn(move || {
            let mut from = BufReader::new(from);
            while let Ok((Of { instance, what }, _)) = read::<Answer>(&mut from) {
                if let Some(to) = w.lock().get(&instance) {
                    let _ = to.try_send(what);
                }
            }
            let _ = e.set(why());
            // Its askers learn it by losing their channels.
            w.lock().clear();
        })?;
        Ok(Self {
            to: Mutex::new(Box::new(to)),
            waiting,
            next: AtomicU64::new(0),
            ended,
            child: Mutex::default(),
        })
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// An engine of this process, for one thread.
    pub fn engine(self: &Arc<Self>, name: &'static str) -> Result<Box<dyn Engine>, RecogniserError> {
        let instance = self.next.fetch_add(1, Relaxed);
        let (told, said) = bounded(4);
        self.waiting.lock().insert(instance, told);
        let line = Line {
            process: self.clone(),
            instance,
            said,
            grammars: Vec::new(),
            dictionaries: Vec::new(),
            next: 0,
        };
        line.done(&Question::Begin)?;
        Ok(Box::new(Apart { name, line: Arc::new(Mutex::new(line)) }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The end of what a program wrote, without control characters.
fn last_words(mut from: impl Read) -> String {
    let (mut last, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        last.extend_from_slice(&piece[..n]);
        let over = last.len().saturating_sub(LAST_WORDS);
        last.drain(..over);
    }
    String::from_utf8_lossy(&last).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One thread's way to its engine.
struct Line {
    process: Arc<Process>,
    instance: u64,
    said: Receiver<Answer>,
    /// Known to the process, the oldest first.
    grammars: Vec<(u64, Arc<Grammar>)>,
    dictionaries: Vec<(u64, Arc<Dictionary>)>,
    next: u64,
}

impl Line {
    fn tell(&self, ask: &Question, samples: &[f32]) -> Result<(), RecogniserError> {
        let frame = Of { instance: self.instance, what: ask };
        write(&mut *self.process.to.lock(), &frame, samples).map_err(|_| RecogniserError::Stopped)
    }

    fn ask(&self, ask: &Question, samples: &[f32]) -> Result<Answer, RecogniserError> {
        self.tell(ask, samples)?;
        self.said.recv_timeout(PATIENCE).map_err(|e| {
            if matches!(e, RecvTimeoutError::Timeout)
                && let Some(child) = &mut *self.process.child.lock()
            {
                let _ = child.kill();
            }
            RecogniserError::Stopped
        })
    }

    fn done(&self, ask: &Question) -> Result<(), RecogniserError> {
        match self.ask(ask, &[])? {
            Answer::Done(done) => done,
            _ => Err(RecogniserError::Stopped),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The number under which the process knows this grammar; it is told it once.
    fn grammar(&mut self, grammar: &Arc<Grammar>) -> Result<u64, RecogniserError> {
        let tell = |id| Question::Grammar { id, grammar: (**grammar).clone() };
        self.known(|l| &mut l.grammars, grammar, tell)
    }

    fn dictionary(&mut self, dictionary: &Arc<Dictionary>) -> Result<u64, RecogniserError> {
        let tell = |id| Question::Dictionary { id, dictionary: (**dictionary).clone() };
        self.known(|l| &mut l.dictionaries, dictionary, tell)
    }

    fn known<T>(
        &mut self,
        among: impl Fn(&mut Self) -> &mut Vec<(u64, Arc<T>)>,
        wanted: &Arc<T>,
        tell: impl FnOnce(u64) -> Question,
    ) -> Result<u64, RecogniserError> {
        if let Some((id, _)) = among(self).iter().find(|(_, known)| Arc::ptr_eq(known, wanted)) {
            return Ok(*id);
        }
        let id = self.number();
        self.tell(&tell(id), &[])?;
        let all = among(self);
        all.push((id, wanted.clone()));
        if all.len() > REMEMBERED {
            let (id, _) = all.remove(0);
            self.tell(&Question::Forget { id }, &[])?;
        }
        Ok(id)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.process.waiting.lock().remove(&self.instance);
    }
}

struct Apart {
    name: &'static str,
    line: Arc<Mutex<Line>>,
}

impl Engine for Apart {
    fn name(&self) -> &'static str {
        self.name
    }

    fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError> {
        let mut line = self.line.lock();
        let (grammar, dictionary) = (line.grammar(&task.grammar)?, line.dictionary(&task.dictionary)?);
        let listener = line.number();
        let Task { partial, sure, others, .. } = *task;
        line.done(&Question::Open { listener, grammar, dictionary, partial, sure, others })?;
        Ok(Box::new(Far { line: self.line.clone(), listener }))
    }

    fn ended(&self) -> Option<String> {
        self.line.lock().process.ended.get().cloned()
    }
}

/// A listener of the process.
struct Far {
    line: Arc<Mutex<Line>>,
    listener: u64,
}

impl Recogniser for Far {
    fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError> {
        match self.line.lock().ask(&Question::Feed { listener: self.listener }, samples)? {
            Answer::Fed(fed) => fed,
            _ => Err(RecogniserError::Stopped),
        }
    }

    fn finish(&mut self) -> Result<Heard, RecogniserError> {
        match self.line.lock().ask(&Question::Finish { listener: self.listener }, &[])? {
            Answer::Heard(heard) => heard,
            _ => Err(RecogniserError::Stopped),
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // A process that has ended has forgotten it.
        let _ = self.line.lock().tell(&Question::Close { listener: self.listener }, &[]);
    }
}

/// The process's end: serves engines until the node closes `from`.
pub fn serve<E>(from: impl Read, to: impl Write + Send + 'static, make: E) -> io::Result<()>
where
    E: Fn() -> Result<Box<dyn Engine>, RecogniserError> + Send + Sync + 'static,
{
    let (make, to) = (Arc::new(make), Arc::new(Mutex::new(to)));
    let mut threads: HashMap<u64, Sender<(Question, Vec<f32>)>> = HashMap::new();
    let mut from = BufReader::new(from);
    loop {
        let (Of { instance, what }, samples) = match read::<Question>(&mut from) {
            Ok(frame) => frame,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let thread = match threads.entry(instance) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let (asked, asks) = unbounded();
                let (make, to) = (make.clone(), to.clone());
                thread::Builder::new().name(format!("engine-{instance}")).spawn(move || {
                    let say = |what: Answer| write(&mut *to.lock(), &Of { instance, what }, &[]);
                    // Whatever cannot be said is known to the node by the end of this process.
                    let _ = answer(&*make, &asks, say);
                })?;
                new.insert(asked)
            }
        };
        if thread.send((what, samples)).is_err() {
            return Err(io::Error::other("an engine's thread has ended"));
        }
    }
}

/// One thread of the process.
fn answer(
    make: &(impl Fn() -> Result<Box<dyn Engine>, RecogniserError> + ?Sized),
    asks: &Receiver<(Question, Vec<f32>)>,
    mut say: impl FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    let mut engine: Option<Box<dyn Engine>> = None;
    let (mut grammars, mut dictionaries) =
        (HashMap::<u64, Arc<Grammar>>::new(), HashMap::<u64, Arc<Dictionary>>::new());
    let mut listeners: HashMap<u64, Box<dyn Recogniser>> = HashMap::new();
    while let Ok((ask, samples)) = asks.recv() {
        match ask {
            Question::Begin => {
                let made = make().map(|made| engine = Some(made));
                say(Answer::Done(made))?;
            }
            Question::Grammar { id, grammar } => drop(grammars.insert(id, Arc::new(grammar))),
            Question::Dictionary { id, dictionary } => drop(dictionaries.insert(id, Arc::new(dictionary))),
            Question::Forget { id } => {
                grammars.remove(&id);
                dictionaries.remove(&id);
            }
            Question::Open { listener, grammar, dictionary, partial, sure, others } => {
                let known = grammars.get(&grammar).cloned().zip(dictionaries.get(&dictionary).cloned());
                let opened = known.zip(engine.as_mut()).ok_or(RecogniserError::Stopped).and_then(
                    |((grammar, dictionary), engine)| {
                        let task = Task { grammar, dictionary, partial, sure, others };
                        listeners.insert(listener, engine.open(&task)?);
                        Ok(())
                    },
                );
                say(Answer::Done(opened))?;
            }
            Question::Feed { listener } => {
                let fed = listeners.get_mut(&listener).ok_or(RecogniserError::Stopped);
                say(Answer::Fed(fed.and_then(|l| l.feed(&samples))))?;
            }
            Question::Finish { listener } => {
                let heard = listeners.remove(&listener).ok_or(RecogniserError::Stopped);
                say(Answer::Heard(heard.and_then(|mut l| l.finish())))?;
            }
            Question::Close { listener } => drop(listeners.remove(&listener)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;
    use crate::recogniser::Hypothesis;

    /// Hears how many phrases it listens for, and how many samples came.
    struct Counter;
    struct Count(usize, usize, bool);

    impl Engine for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }
        fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError> {
            match &*task.grammar {
                Grammar::Phrases(all) => Ok(Box::new(Count(all.len(), 0, task.partial))),
                _ => Err(RecogniserError::Grammar("phrases are wanted".into())),
            }
        }
    }

    impl Recogniser for Count {
        fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError> {
            self.1 += samples.len();
            Ok(self.2.then(|| self.1.to_string()))
        }
        fn finish(&mut self) -> Result<Heard, RecogniserError> {
            let text = format!("{} {}", self.0, self.1);
            Ok(Heard { hypotheses: vec![Hypothesis { text, confidence: 0.5 }], ..Heard::default() })
        }
    }

    fn served() -> (Arc<Process>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (from, to) = (far.try_clone().expect("a clone"), far.try_clone().expect("a clone"));
        thread::spawn(move || serve(from, to, || Ok(Box::new(Counter) as Box<dyn Engine>)));
        let reader = near.try_clone().expect("a clone");
        (Arc::new(Process::over(reader, near, || "gone".into()).expect("a thread")), far)
    }

    fn task(count: usize) -> Task {
        let phrases = (0..count).map(|n| format!("p{n}")).collect();
        Task::whole(Grammar::Phrases(phrases), Arc::default())
    }

    #[test]
    fn an_engine_apart_answers_as_one_at_hand() {
        let (process, _far) = served();
        let mut threads: Vec<_> = (0..2).map(|_| process.engine("counter").expect("an engine")).collect();
        // More grammars than are remembered, and the first again.
        let tasks: Vec<Task> = (1..=REMEMBERED + 2).map(task).collect();
        for engine in &mut threads {
            for (n, task) in tasks.iter().chain(&tasks[..1]).enumerate() {
                let mut one = engine.open(&Task { partial: true, ..task.clone() }).expect("opened");
                let mut other = engine.open(task).expect("opened");
                assert_eq!(one.feed(&[0.25; 100]).expect("fed").as_deref(), Some("100"));
                assert_eq!(other.feed(&[0.5; 10]).expect("fed"), None);
                drop(other);
                assert_eq!(one.feed(&[0.0; 7]).expect("fed").as_deref(), Some("107"));
                let phrases = n % tasks.len() + 1;
                assert_eq!(one.finish().expect("heard").text(), format!("{phrases} 107"));
                assert_eq!(one.finish(), Err(RecogniserError::Stopped), "it is over");
            }
            let open = Task::whole(Grammar::Open, Arc::default());
            assert!(matches!(engine.open(&open), Err(RecogniserError::Grammar(_))));
        }
    }

    #[test]
    fn listeners_of_a_process_that_ends_are_told() {
        let (process, far) = served();
        let mut engine = process.engine("counter").expect("an engine");
        let mut ear = engine.open(&task(1)).expect("opened");
        assert_eq!(engine.ended(), None);
        far.shutdown(std::net::Shutdown::Both).expect("shut");
        assert_eq!(ear.finish(), Err(RecogniserError::Stopped));
        assert!(matches!(engine.open(&task(2)), Err(RecogniserError::Stopped)));
        while engine.ended().is_none() {
            thread::yield_now();
        }
        assert_eq!(engine.ended().as_deref(), Some("gone"));
    }

    proptest! {
        /// Garbage ends the process's work with an error, or is waited for to the end.
        #[test]
        fn garbage_is_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serve(&bytes[..], Vec::new(), || Ok(Box::new(Counter) as Box<dyn Engine>));
            let mut from = &bytes[..];
            while let Ok((Of { .. }, samples)) = read::<Answer>(&mut from) {
                prop_assert!(samples.len() <= SAMPLES as usize);
            }
        }

        #[test]
        fn a_frame_is_read_as_it_was_written(listener in any::<u64>(), samples in prop::collection::vec(-1f32..1.0, 0..50)) {
            let mut bytes = Vec::new();
            write(&mut bytes, &Of { instance: 3, what: Question::Feed { listener } }, &samples).expect("written");
            let (frame, read) = read::<Question>(&mut &bytes[..]).expect("read");
            let same = matches!(frame.what, Question::Feed { listener: l } if l == listener);
            prop_assert!(frame.instance == 3 && same);
            prop_assert_eq!(read, samples);
        }
    }
}
