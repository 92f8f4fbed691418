//! Recognisers of others, over the network: Kaldi's TCP server, as the original has it, and vosk-server's WebSocket. A
//! conversation is a task on the engine's own runtime; nobody waits for another's answer.

mod kaldi;
mod vosk;

use std::{
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
    sync::{mpsc, oneshot},
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
/// Bytes of an answer at most.
const ANSWER: usize = 1 << 20;
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
    partial: mpsc::UnboundedSender<String>,
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
        let (partial, partials) = mpsc::unbounded_channel();
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
    partials: mpsc::UnboundedReceiver<String>,
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
        let mut last = None;
        while let Ok(text) = self.partials.try_recv() {
            last = Some(text);
        }
        Ok(last)
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

/// Hypotheses: what was heard in the end, then what was thought on the way, the last first (manual, "Ответ от ASR").
fn hypotheses(last: &str, confidence: f32, before: &[String]) -> Vec<Hypothesis> {
    let mut all: Vec<Hypothesis> = Vec::new();
    let mut add = |text: &str, confidence: f32| {
        let text = crate::grammar::normal(text);
        if !text.is_empty() && all.len() < BEST && !all.iter().any(|h| h.text == text) {
            all.push(Hypothesis { text, confidence });
        }
    };
    add(last, confidence);
    before.iter().rev().for_each(|text| add(text, 0.0));
    all
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
        let before = ["алексей", "Алексей Лосев", "алексей лысенко"].map(str::to_owned);
        let all: Vec<String> =
            hypotheses("алексей лысенко", 1.0, &before).into_iter().map(|h| h.text).collect();
        assert_eq!(all, ["алексей лысенко", "алексей лосев", "алексей"], "the manual's example");
        assert!(hypotheses(" ", 1.0, &[]).is_empty());
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
