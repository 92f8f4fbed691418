//! Recognisers of others, over the network: Kaldi's TCP server, as the original has it, and vosk-server's WebSocket. A
//! conversation is a task on the engine's own runtime; nobody waits for another's answer.

pub mod kaldi;
pub mod vosk;

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    audio::{Rate, to_i16},
    grammar::Grammar,
    recogniser::{Done, Engine, Heard, Hypothesis, LONGEST, RATE, Recogniser, RecogniserError, Task},
};

/// How long the other side may take to be connected with, to take a piece, or to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Conversations of one engine.
const AT_ONCE: usize = 64;
/// Pieces that wait for a slow other side.
const WAITING: usize = 1_024;
/// Bytes of all answers of a conversation at most.
const ANSWER: usize = 1 << 20;
/// Stretches that are done, of a conversation, at most.
const STRETCHES: usize = 1_000;
/// Hypotheses that are kept.
const BEST: usize = 20;

/// Where another's recogniser is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// `kaldi://HOST:PORT`: `online2-tcp-nnet3-decode-faster`, PCM in, lines out.
    Kaldi { address: String },
    /// `ws://HOST:PORT`: vosk-server.
    Vosk { url: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no recogniser: kaldi://HOST:PORT or ws://HOST:PORT is wanted")]
pub struct RemoteError(String);

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let wrong = || RemoteError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let address = rest.split('/').next().unwrap_or_default();
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        match scheme {
            "kaldi" => Ok(Self::Kaldi { address: address.to_owned() }),
            "ws" => Ok(Self::Vosk { url: text.to_owned() }),
            _ => Err(wrong()),
        }
    }
}

fn failed(e: impl std::fmt::Display) -> RecogniserError {
    RecogniserError::Remote(e.to_string())
}

/// An end to waiting.
async fn soon<T, E: std::fmt::Display>(
    what: impl Future<Output = Result<T, E>>,
) -> Result<T, RecogniserError> {
    match tokio::time::timeout(PATIENCE, what).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(failed(format!("nothing came for {} s", PATIENCE.as_secs()))),
    }
}

/// What one conversation was told on its way, and what it came to.
struct Talk {
    phrases: Vec<String>,
    /// Samples a second that the other side wants.
    rate: u32,
    /// PCM, 16 bits, little endian; its end is the utterance's.
    pieces: mpsc::Receiver<Vec<u8>>,
    partial: watch::Sender<String>,
}

/// What the other side has said so far: what is done, and what it thought on its way there.
#[derive(Debug, Default)]
struct Told {
    text: String,
    stretches: usize,
    /// The last few texts, the newest behind.
    before: VecDeque<String>,
    bytes: usize,
}

impl Told {
    /// Counts what was read: nobody may talk without end.
    fn read(&mut self, bytes: usize) -> Result<(), RecogniserError> {
        self.bytes += bytes;
        if self.bytes > ANSWER { Err(failed("it talks without end")) } else { Ok(()) }
    }

    fn so_far(&self, more: &str) -> String {
        let space = if self.text.is_empty() || more.is_empty() { "" } else { " " };
        format!("{}{space}{more}", self.text)
    }

    /// A text of the stretch it listens to now; all of it, where that is news.
    fn thinks(&mut self, partial: &str) -> Option<String> {
        let text = self.so_far(partial.trim());
        if text.is_empty() || self.before.back() == Some(&text) {
            return None;
        }
        if self.before.len() == BEST {
            self.before.pop_front();
        }
        self.before.push_back(text.clone());
        Some(text)
    }

    /// A stretch is done.
    fn heard(&mut self, text: &str) -> Result<(), RecogniserError> {
        self.text = self.so_far(text.trim());
        self.stretches += 1;
        if self.stretches > STRETCHES { Err(failed("it talks without end")) } else { Ok(()) }
    }

    /// What was heard in the end, then what else the other side says it may have been, then what it thought on its way, the
    /// last first (manual, "Ответ от ASR").
    fn hypotheses(&self, confidence: f32, others: &[String]) -> Vec<Hypothesis> {
        let last = [(&self.text, confidence)];
        let rest = others.iter().chain(self.before.iter().rev()).map(|text| (text, 0.0));
        let mut all: Vec<Hypothesis> = Vec::new();
        for (text, confidence) in last.into_iter().chain(rest) {
            let text = crate::grammar::normal(text);
            if !text.is_empty() && all.len() < BEST && !all.iter().any(|h| h.text == text) {
                all.push(Hypothesis { text, confidence });
            }
        }
        all
    }
}

/// The engine: a runtime of its own on a thread, which ends with it.
pub struct RemoteEngine {
    remote: Remote,
    rate: u32,
    runtime: runtime::Handle,
    talks: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl RemoteEngine {
    pub fn new(remote: Remote, rate: u32) -> Result<Self, RecogniserError> {
        let model = |e: std::io::Error| RecogniserError::Model(e.to_string());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(model)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("remote-speech".into())
            .spawn(move || {
                // An error is the engine's end, too.
                let _ = runtime.block_on(stopped);
            })
            .map_err(model)?;
        Ok(Self { remote, rate, runtime: handle, talks: Arc::default(), _stop: stop })
    }
}

/// Counts one conversation for as long as it lasts.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Engine for RemoteEngine {
    fn name(&self) -> &'static str {
        match self.remote {
            Remote::Kaldi { .. } => "kaldi",
            Remote::Vosk { .. } => "vosk",
        }
    }

    fn open(&mut self, task: &Task) -> Result<Box<dyn Recogniser>, RecogniserError> {
        let phrases = match &*task.grammar {
            Grammar::Open => Vec::new(),
            Grammar::Phrases(all) => all.clone(),
            _ => return Err(RecogniserError::Grammar("it listens for any speech, or for phrases".into())),
        };
        if self.talks.fetch_add(1, Relaxed) >= AT_ONCE {
            self.talks.fetch_sub(1, Relaxed);
            return Err(RecogniserError::Overloaded);
        }
        let counted = Counted(self.talks.clone());
        let (feed, pieces) = mpsc::channel(WAITING);
        let (partial, partials) = watch::channel(String::new());
        let (done, ended) = oneshot::channel();
        let (remote, talk) = (self.remote.clone(), Talk { phrases, rate: self.rate, pieces, partial });
        self.runtime.spawn(async move {
            let _counted = counted;
            // Who is not listened to any more is not talked to any more.
            let mut done = done;
            let heard = tokio::select! {
                heard = async {
                    match &remote {
                        Remote::Kaldi { address } => kaldi::converse(address, talk).await,
                        Remote::Vosk { url } => vosk::converse(url, talk).await,
                    }
                } => heard,
                () = done.closed() => return,
            };
            let _ = done.send(heard);
        });
        Ok(Box::new(Listener {
            rate: Rate::new(RATE, self.rate).map_err(failed)?,
            feed: Some(feed),
            partials,
            ended: Some(ended),
            taken: 0,
            runtime: self.runtime.clone(),
        }))
    }
}

struct Listener {
    rate: Rate,
    feed: Option<mpsc::Sender<Vec<u8>>>,
    partials: watch::Receiver<String>,
    ended: Option<oneshot::Receiver<Result<Heard, RecogniserError>>>,
    taken: usize,
    runtime: runtime::Handle,
}

impl Listener {
    fn send(&mut self, samples: &[f32]) -> Result<(), RecogniserError> {
        let bytes: Vec<u8> = to_i16(samples).iter().flat_map(|s| s.to_le_bytes()).collect();
        if bytes.is_empty() {
            return Ok(());
        }
        let feed = self.feed.as_ref().ok_or(RecogniserError::Stopped)?;
        match feed.try_send(bytes) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(RecogniserError::Overloaded),
            // Its end tells why.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// The rest goes out, and what was heard will come.
    fn over(&mut self) -> Result<oneshot::Receiver<Result<Heard, RecogniserError>>, RecogniserError> {
        let rest = self.rate.finish().map_err(failed)?;
        self.send(&rest)?;
        self.feed = None;
        self.ended.take().ok_or(RecogniserError::Stopped)
    }
}

impl Recogniser for Listener {
    fn feed(&mut self, samples: &[f32]) -> Result<Option<String>, RecogniserError> {
        self.taken += samples.len();
        if self.taken > (LONGEST * RATE) as usize {
            return Err(RecogniserError::Long(LONGEST));
        }
        let samples = self.rate.push(samples).map_err(failed)?;
        self.send(&samples)?;
        // Who has hung up says nothing new.
        let new = self.partials.has_changed().unwrap_or(false);
        Ok(new.then(|| self.partials.borrow_and_update().clone()))
    }

    fn finish(&mut self) -> Result<Heard, RecogniserError> {
        self.over()?.blocking_recv().map_err(|_| RecogniserError::Stopped)?
    }

    fn conclude(mut self: Box<Self>, done: Done) {
        match self.over() {
            Ok(ended) => {
                self.runtime.clone().spawn(async move {
                    done(ended.await.unwrap_or(Err(RecogniserError::Stopped)));
                });
            }
            Err(e) => done(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_which_protocol() {
        assert_eq!("kaldi://h:5050".parse(), Ok(Remote::Kaldi { address: "h:5050".into() }));
        assert_eq!("ws://h:2700/x".parse(), Ok(Remote::Vosk { url: "ws://h:2700/x".into() }));
        for wrong in ["", "h:1", "kaldi://h", "kaldi://:1", "http://h:1", "ws://h:x"] {
            assert!(wrong.parse::<Remote>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_thought_on_the_way_comes_behind() {
        let mut told = Told::default();
        for text in ["алексей", "Алексей Лосев", "алексей лысенко"] {
            assert_eq!(told.thinks(text).as_deref(), Some(text));
            assert_eq!(told.thinks(text), None, "no news");
        }
        told.heard("алексей лысенко").expect("taken");
        let all: Vec<String> = told.hypotheses(1.0, &[]).into_iter().map(|h| h.text).collect();
        assert_eq!(all, ["алексей лысенко", "алексей лосев", "алексей"], "the manual's example");
        assert!(Told::default().hypotheses(1.0, &[" ".into()]).is_empty());
    }

    #[test]
    fn who_talks_without_end_is_cut_short() {
        let mut told = Told::default();
        for n in 0..10 * BEST {
            told.thinks(&n.to_string());
        }
        assert_eq!(told.before.len(), BEST, "what it thought long ago is not kept");
        let mut lines = kaldi::Lines::default();
        assert!(lines.take("да\n".repeat(STRETCHES).as_bytes()).is_ok());
        assert!(lines.take("да\n".as_bytes()).is_err());
        assert!(kaldi::Lines::default().take(&vec![b'a'; ANSWER + 1]).is_err());
    }

    #[test]
    fn nobody_there_is_an_error_and_not_silence() {
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        for remote in
            [Remote::Kaldi { address: free.to_string() }, Remote::Vosk { url: format!("ws://{free}") }]
        {
            // The listener was dropped: nobody is behind the port.
            let mut engine = RemoteEngine::new(remote, 8000).expect("an engine");
            let mut ear = engine.open(&Task::whole(Grammar::Open, Arc::default())).expect("open");
            ear.feed(&[0.1; 1600]).expect("taken");
            assert!(matches!(ear.finish(), Err(RecogniserError::Remote(_))));
        }
    }
}
