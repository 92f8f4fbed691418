//! Transcription over HTTP (manual, "Транскрибирование разговоров"): a WAV file goes in, words with times come out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data, Payload, ServiceConfig, get, resource, to},
};
use httpd::{Guard, TEXT, label, spooled};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Refusal;
use crate::{
    audio::{AudioError, CHANNELS, Rate, Reader},
    dictionary::Dictionary,
    grammar::{self, Grammar},
    pool::Pool,
    recogniser::{RATE, RecogniserError, Task, Word},
    transcribe::{Cues, Said, WEBVTT, heading, line, speaker, vtt},
    vad::{Cutter, Pauses, Utterance},
};

/// Bytes of a file at most: 4 hours of two channels at 16000 Hz.
const BYTES: u64 = 1 << 30;
/// Files worked on at once.
const AT_ONCE: usize = 8;
/// Lines that wait for a reader who is slow.
const WAITING: usize = 256;

/// What transcription needs.
#[derive(Clone)]
pub struct Trans {
    /// Any speech.
    pub open: Option<Pool>,
    /// Closed grammars: it says when each word was said.
    pub closed: Pool,
    pub dictionary: Arc<Dictionary>,
    pub guard: Guard,
    /// Whether the licence grants it now.
    pub licensed: Arc<dyn Fn() -> bool + Send + Sync>,
    pub jobs: Jobs,
}

/// Files being worked on.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<BTreeMap<u64, Arc<Job>>>>, Arc<AtomicU64>);

#[derive(Debug, Default)]
struct Job {
    bytes: u64,
    /// Milliseconds of sound, and those that have been listened to.
    length: AtomicU64,
    done: AtomicU64,
}

struct Working {
    jobs: Jobs,
    id: u64,
    job: Arc<Job>,
}

impl Jobs {
    fn begin(&self, bytes: u64) -> Result<Working, Refusal> {
        let mut all = self.0.lock();
        if all.len() >= AT_ONCE {
            return Err(Refusal::Busy(AT_ONCE));
        }
        let id = self.1.fetch_add(1, Relaxed) + 1;
        let job = Arc::new(Job { bytes, ..Job::default() });
        all.insert(id, job.clone());
        Ok(Working { jobs: self.clone(), id, job })
    }

    /// As JSON: what is worked on, and how far it is.
    pub fn seen(&self) -> serde_json::Value {
        let one = |(id, job): (&u64, &Arc<Job>)| {
            let (length, done) = (job.length.load(Relaxed), job.done.load(Relaxed));
            serde_json::json!({
                "id": id, "bytes": job.bytes, "seconds": length as f64 / 1000.0, "done": done as f64 / 1000.0,
                "percent": (done * 100).checked_div(length).unwrap_or(0).min(100),
            })
        };
        self.0.lock().iter().map(one).collect()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.jobs.0.lock().remove(&self.id);
    }
}

/// The service's pages.
pub fn routes(trans: Trans) -> impl Fn(&mut ServiceConfig) + Send + Sync {
    move |config| {
        config.app_data(Data::new(trans.clone()));
        for (path, mono, subtitles) in [
            ("/trans", false, false),
            ("/trans/vtt", false, true),
            ("/trans/mono", true, false),
            ("/trans/mono/vtt", true, true),
        ] {
            let serve = move |request: HttpRequest, payload: Payload, trans: Data<Trans>| async move {
                transcribe(request, payload, trans, mono, subtitles).await
            };
            config.service(
                resource(path)
                    .route(actix_web::web::put().to(serve))
                    .route(actix_web::web::post().to(serve))
                    .default_service(to(|| async {
                        HttpResponse::MethodNotAllowed()
                            .insert_header(("Allow", "PUT, POST"))
                            .content_type(TEXT)
                            .body("a file is wanted: curl … -T file.wav\n")
                    })),
            );
        }
        config.service(resource("/trans/jobs").route(get().to(
            |request: HttpRequest, trans: Data<Trans>| async move {
                trans.guard.check(&request)?;
                Ok::<_, Refusal>(HttpResponse::Ok().json(trans.jobs.seen()))
            },
        )));
    }
}

async fn transcribe(
    request: HttpRequest,
    payload: Payload,
    trans: Data<Trans>,
    mono: bool,
    subtitles: bool,
) -> Result<HttpResponse, Refusal> {
    trans.guard.check(&request)?;
    if !(trans.licensed)() {
        return Err(Refusal::Licence);
    }
    let none =
        || RecogniserError::Model("no recogniser of open speech: [speech] whisper names its weights".into());
    let open = trans.open.clone().ok_or_else(none)?;
    if open.threads() == 0 {
        return Err(RecogniserError::Stopped.into());
    }
    let (file, bytes) = spooled(payload, BYTES).await?;
    let working = trans.jobs.begin(bytes)?;
    let labels = [label(&request, "Calling"), label(&request, "Called")];
    // What cannot be read to its end is refused before anything is answered.
    let (file, length) = tokio::task::spawn_blocking(move || checked(file))
        .await
        .map_err(|e| Refusal::Internal(e.to_string()))??;
    working.job.length.store(length, Relaxed);
    let (out, mut pieces) = mpsc::channel::<String>(WAITING);
    let work = Work {
        open,
        closed: trans.closed.clone(),
        dictionary: trans.dictionary.clone(),
        working,
        mono,
        labels,
    };
    let done = tokio::task::spawn_blocking(move || work.run(file, subtitles, &out));
    // The first words decide whether it works at all.
    let Some(first) = pieces.recv().await else {
        return match done.await {
            Ok(Ok(())) => Ok(HttpResponse::Ok().content_type(TEXT).body(if subtitles { WEBVTT } else { "" })),
            Ok(Err(e)) => Err(e),
            Err(e) => Err(Refusal::Internal(e.to_string())),
        };
    };
    let rest = futures::stream::unfold(Some((pieces, done)), |state| async move {
        let (mut pieces, done) = state?;
        match pieces.recv().await {
            Some(text) => Some((Ok(Bytes::from(text)), Some((pieces, done)))),
            None => match done.await {
                Ok(Ok(())) => None,
                // The answer has begun: that it is cut off is all that can be told.
                Ok(Err(e)) => Some((Err(std::io::Error::other(e.to_string())), None)),
                Err(e) => Some((Err(std::io::Error::other(e)), None)),
            },
        }
    });
    let all = futures::StreamExt::chain(
        futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(Bytes::from(first)))),
        rest,
    );
    let kind = if subtitles { "text/vtt; charset=utf-8" } else { TEXT };
    Ok(HttpResponse::Ok().content_type(kind).streaming(all))
}

/// Reads a file to its end; how long it is, in milliseconds.
fn checked(mut file: File) -> Result<(File, u64), Refusal> {
    let copy = file.try_clone().map_err(AudioError::from)?;
    let mut reader = Reader::open(copy)?;
    let mut frames = 0;
    while let Some(channels) = reader.read()? {
        frames += channels.first().map_or(0, Vec::len) as u64;
    }
    if frames == 0 {
        return Err(Refusal::Body("no sound in the file".into()));
    }
    file.seek(SeekFrom::Start(0)).map_err(AudioError::from)?;
    Ok((file, frames * 1000 / u64::from(reader.rate)))
}

/// One file's work, on a thread that may wait.
struct Work {
    open: Pool,
    closed: Pool,
    dictionary: Arc<Dictionary>,
    working: Working,
    mono: bool,
    labels: [Option<String>; 2],
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

    fn run(self, file: File, subtitles: bool, out: &mpsc::Sender<String>) -> Result<(), Refusal> {
        let mut reader = Reader::open(file)?;
        let channels = if self.mono { 1 } else { reader.channels.min(CHANNELS) };
        let mut rates = (0..channels).map(|_| Rate::new(reader.rate, RATE)).collect::<Result<Vec<_>, _>>()?;
        let mut cutters: Vec<Cutter> = (0..channels).map(|_| Cutter::new(Pauses::RECORDING)).collect();
        let mut page =
            Page { out, subtitles, cues: Cues::default(), number: 0, waiting: Vec::new(), later: Vec::new() };
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
