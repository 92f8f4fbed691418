//! A file that becomes words is an actor, `speech/transcription/<N>`, around a thread that reads and listens.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use kit::{Actor, Address, ChildSpec, Cx, ExitReason, Node, SupervisorHandle};
use parking_lot::Mutex;
use strum::IntoStaticStr;
use tokio::sync::{mpsc, oneshot};

use super::Refusal;
use crate::{
    audio::{CHANNELS, Rate, Reader},
    dictionary::Dictionary,
    grammar::{self, Grammar},
    pool::Pool,
    recogniser::{RATE, RecogniserError, Task, Word},
    transcribe::{Cues, Said, WEBVTT, heading, line, speaker, vtt},
    vad::{Cutter, Pauses, Utterance},
};

/// Files worked on at once.
const AT_ONCE: usize = 8;
/// Lines that wait for a reader who is slow.
const WAITING: usize = 256;
/// The supervisor of those under way.
pub(crate) const TRANSCRIPTIONS: &str = "speech/transcriptions";

/// Files being worked on.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<BTreeMap<u64, Arc<Job>>>>, Arc<AtomicU64>);

#[derive(Debug, Default)]
struct Job {
    bytes: AtomicU64,
    /// Milliseconds of sound, and those that have been listened to.
    length: AtomicU64,
    done: AtomicU64,
    /// Its actor has ended: nobody wants it any more.
    stopped: AtomicBool,
}

impl Job {
    fn seen(&self, id: u64) -> serde_json::Value {
        let (length, done) = (self.length.load(Relaxed), self.done.load(Relaxed));
        serde_json::json!({
            "id": id, "bytes": self.bytes.load(Relaxed), "seconds": length as f64 / 1000.0, "done": done as f64 / 1000.0,
            "percent": (done * 100).checked_div(length).unwrap_or(0).min(100),
        })
    }
}

/// A place among them, until it is dropped.
pub(super) struct Working {
    jobs: Jobs,
    id: u64,
    job: Arc<Job>,
}

impl Jobs {
    pub(super) fn begin(&self) -> Result<Working, Refusal> {
        let mut all = self.0.lock();
        if all.len() >= AT_ONCE {
            return Err(Refusal::Busy(AT_ONCE));
        }
        let id = self.1.fetch_add(1, Relaxed) + 1;
        let job = Arc::<Job>::default();
        all.insert(id, job.clone());
        Ok(Working { jobs: self.clone(), id, job })
    }

    /// As JSON: what is worked on, and how far it is.
    pub fn seen(&self) -> serde_json::Value {
        self.0.lock().iter().map(|(id, job)| job.seen(*id)).collect()
    }
}

impl Working {
    /// Its file is here, of so many bytes.
    pub(super) fn came(&self, bytes: u64) {
        self.job.bytes.store(bytes, Relaxed);
    }

    /// How long its sound is, in milliseconds.
    pub(super) fn length(&self, length: u64) {
        self.job.length.store(length, Relaxed);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.jobs.0.lock().remove(&self.id);
    }
}

/// What a transcription works with, until it begins.
struct Parts {
    work: Work,
    file: File,
    out: mpsc::Sender<String>,
    done: oneshot::Sender<Result<(), Refusal>>,
}

/// The actor: it is there for as long as its file is worked on, and nothing more is done when it ends.
struct Transcription {
    id: u64,
    job: Arc<Job>,
    parts: Option<Parts>,
    /// Whoever waits for lines learns that no more will come.
    _alive: oneshot::Sender<()>,
}

#[derive(Debug, IntoStaticStr)]
enum TranscriptionMsg {}

impl Actor for Transcription {
    type Msg = TranscriptionMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some(Parts { work, file, out, done }) = self.parts.take() else { return Err(ExitReason::Normal) };
        let work = tokio::task::spawn_blocking(move || work.run(file, &out));
        cx.spawn(work, |_, worked, _| {
            // Whoever asked may have hung up.
            let _ = done.send(worked.unwrap_or_else(|e| Err(Refusal::Internal(e.to_string()))));
            Err(ExitReason::Normal)
        });
        Ok(())
    }

    fn handle(&mut self, msg: TranscriptionMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        self.job.seen(self.id)
    }
}

impl Drop for Transcription {
    fn drop(&mut self) {
        self.job.stopped.store(true, Relaxed);
    }
}

/// What a file says, as it is understood.
pub(super) struct Lines {
    lines: mpsc::Receiver<String>,
    alive: oneshot::Receiver<()>,
    done: oneshot::Receiver<Result<(), Refusal>>,
}

impl Lines {
    /// The next ones, or why there are none; nothing at the end.
    pub(super) async fn next(&mut self) -> Option<Result<String, Refusal>> {
        let next = tokio::select! {
            biased;
            lines = self.lines.recv() => lines,
            // The thread may go on for a while when its actor is ended.
            _ = &mut self.alive => None,
        };
        if let Some(lines) = next {
            return Some(Ok(lines));
        }
        (&mut self.done).await.unwrap_or(Err(RecogniserError::Stopped.into())).err().map(Err)
    }
}

/// Has a file worked on.
pub(super) async fn start(node: &Node, work: Work, file: File) -> Result<Lines, Refusal> {
    let internal = |e: &dyn std::fmt::Display| Refusal::Internal(e.to_string());
    let (id, job) = (work.working.id, work.working.job.clone());
    let (out, lines) = mpsc::channel(WAITING);
    let ((done, ended), (here, alive)) = (oneshot::channel(), oneshot::channel());
    let parts = Arc::new(Mutex::new(Some((Parts { work, file, out, done }, here))));
    let name = Address::new(format!("speech/transcription/{id}")).map_err(|e| internal(&e))?;
    let spec = ChildSpec::worker(name, move |_| {
        let (job, parts) = (job.clone(), parts.lock().take());
        async move {
            let Some((parts, here)) = parts else { return Err(ExitReason::Normal) };
            Ok(Transcription { id, job, parts: Some(parts), _alive: here })
        }
    });
    let supervisor = Address::new(TRANSCRIPTIONS).map_err(|e| internal(&e))?;
    SupervisorHandle::start_temporary(node, &supervisor, spec).await.map_err(|e| internal(&e))?;
    Ok(Lines { lines, alive, done: ended })
}

/// One file's work, on a thread that may wait.
pub(super) struct Work {
    /// Any speech.
    pub open: Pool,
    /// Closed grammars: it says when each word was said.
    pub closed: Pool,
    pub dictionary: Arc<Dictionary>,
    pub working: Working,
    pub mono: bool,
    pub subtitles: bool,
    /// Whose channels they are, where the request says so.
    pub labels: [Option<String>; 2],
}

impl Work {
    fn label(&self, channel: usize) -> String {
        let said = self.labels.get(channel).cloned().flatten();
        said.unwrap_or_else(|| format!("Абонент {}", speaker(channel)))
    }

    /// Words of one utterance, with the times at which they were said.
    fn words(&self, utterance: Utterance) -> Result<Vec<Word>, RecogniserError> {
        let task = |grammar| Task::whole(grammar, self.dictionary.clone());
        let heard =
            futures::executor::block_on(self.open.hear(task(Grammar::Open), utterance.samples.clone()))?;
        let mut words = heard.words;
        if words.is_empty() {
            return Ok(words);
        }
        // The other engine hears just these words, and so when each was said.
        let phrase =
            Grammar::Phrases(vec![words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ")]);
        let aligned = futures::executor::block_on(self.closed.hear(task(phrase).plain(), utterance.samples));
        if let Ok(aligned) = aligned
            && aligned.words.len() == words.len()
        {
            for (word, at) in words.iter_mut().zip(aligned.words) {
                (word.start, word.duration) = (at.start, at.duration);
            }
        }
        for word in &mut words {
            word.start += utterance.start as f32;
            word.text = grammar::normal(&word.text);
        }
        Ok(words)
    }

    fn run(self, file: File, out: &mpsc::Sender<String>) -> Result<(), Refusal> {
        let mut reader = Reader::open(file)?;
        let channels = if self.mono { 1 } else { reader.channels.min(CHANNELS) };
        let mut rates = (0..channels).map(|_| Rate::new(reader.rate, RATE)).collect::<Result<Vec<_>, _>>()?;
        let mut cutters: Vec<Cutter> = (0..channels).map(|_| Cutter::new(Pauses::RECORDING)).collect();
        let mut page = Page {
            out,
            subtitles: self.subtitles,
            cues: Cues::default(),
            number: 0,
            waiting: Vec::new(),
            later: Vec::new(),
        };
        let mut frames = 0_u64;
        loop {
            let read = reader.read()?;
            let over = read.is_none();
            let pieces = read.unwrap_or_else(|| vec![Vec::new(); channels]);
            frames += pieces.first().map_or(0, Vec::len) as u64;
            for (channel, piece) in pieces.into_iter().take(channels).enumerate() {
                let mut samples = rates[channel].push(&piece)?;
                if over {
                    samples.extend(rates[channel].finish()?);
                }
                let mut utterances = cutters[channel].push(&samples);
                if over {
                    utterances.extend(cutters[channel].finish());
                }
                for utterance in utterances {
                    if self.working.job.stopped.load(Relaxed) {
                        return Err(RecogniserError::Stopped.into());
                    }
                    let words = self.words(utterance)?;
                    page.add(channel, words)?;
                }
            }
            // What is said from here on begins later than this.
            let safe = cutters.iter().map(Cutter::begins).fold(f64::INFINITY, f64::min);
            page.flush(if over { f64::INFINITY } else { safe }, &self)?;
            self.working.job.done.store(frames * 1000 / u64::from(reader.rate), Relaxed);
            if over {
                break;
            }
        }
        page.end(channels, &self)
    }
}

/// Words on their way to whoever asked.
struct Page<'p> {
    out: &'p mpsc::Sender<String>,
    subtitles: bool,
    cues: Cues,
    number: usize,
    /// Words that wait for earlier ones of other channels.
    waiting: Vec<Said>,
    /// Lines of the second channel and those behind it, which follow the first one's.
    later: Vec<Said>,
}

impl Page<'_> {
    fn say(&self, text: String) -> Result<(), Refusal> {
        self.out.blocking_send(text).map_err(|_| Refusal::Internal("nobody listens any more".into()))
    }

    fn add(&mut self, channel: usize, words: Vec<Word>) -> Result<(), Refusal> {
        let all = words.into_iter().map(|word| Said { channel, word });
        if self.subtitles {
            self.waiting.extend(all);
            return Ok(());
        }
        for said in all {
            match channel {
                0 => {
                    let head = if self.number == 0 { heading(0) } else { String::new() };
                    self.number += 1;
                    self.say(head + &line(&said.word))?;
                }
                _ => self.later.push(said),
            }
        }
        Ok(())
    }

    fn flush(&mut self, safe: f64, work: &Work) -> Result<(), Refusal> {
        self.waiting.sort_by(|a, b| a.word.start.total_cmp(&b.word.start));
        let ready = self.waiting.partition_point(|s| f64::from(s.word.start) < safe);
        for said in self.waiting.drain(..ready).collect::<Vec<_>>() {
            if let Some(cue) = self.cues.add(&said) {
                self.cue(&cue, work)?;
            }
        }
        Ok(())
    }

    fn cue(&mut self, cue: &crate::transcribe::Cue, work: &Work) -> Result<(), Refusal> {
        let head = if self.number == 0 { WEBVTT } else { "" };
        self.number += 1;
        self.say(format!("{head}{}", vtt(self.number, cue, &work.label(cue.channel))))
    }

    fn end(mut self, channels: usize, work: &Work) -> Result<(), Refusal> {
        if self.subtitles {
            if let Some(cue) = self.cues.finish() {
                self.cue(&cue, work)?;
            }
            return Ok(());
        }
        let mut text = if self.number == 0 { heading(0) } else { String::new() };
        for channel in 1..channels {
            text.push_str(&heading(channel));
            text.extend(self.later.iter().filter(|s| s.channel == channel).map(|s| line(&s.word)));
        }
        self.say(text)
    }
}
