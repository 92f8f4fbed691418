//! Speech synthesis: a text becomes a WAV file that calls can hear. What has been said once is not made again.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, watch},
};

use crate::audio;

/// Letters of a text at most.
const LONGEST: usize = 2_000;
/// Texts that are made at once.
const AT_ONCE: usize = 2;
/// Files that are kept; the oldest go.
const KEPT: usize = 5_000;
/// How long a synthesiser may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds of a prompt at most.
const SECONDS: u32 = 300;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SynthesisError {
    #[error("longer than {LONGEST} letters")]
    Long,
    #[error("nothing to say")]
    Empty,
    #[error("{0}")]
    Engine(String),
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    Slow,
}

/// What is to be said, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text {
    pub text: String,
    /// As engines know their voices; empty: the engine's own.
    pub voice: String,
    /// 1.0 is as fast as the voice speaks; empty too.
    pub speed: String,
}

/// A way to make speech: WAV of any rate.
pub trait Synthesiser: Send + Sync {
    fn name(&self) -> &str;
    fn say(&self, text: Text) -> BoxFuture<'static, Result<Vec<u8>, SynthesisError>>;
}

/// Which synthesiser a configuration names.
pub fn by_name(name: &str) -> Option<Arc<dyn Synthesiser>> {
    match name {
        "" => None,
        "festival" => Some(Arc::new(Festival)),
        url if url.starts_with("http://") => Some(Arc::new(Http(url.to_owned()))),
        voice => voice.strip_prefix("espeak-ng").map(|v| {
            let voice = v.strip_prefix(':').unwrap_or("ru").to_owned();
            Arc::new(Espeak(voice)) as Arc<dyn Synthesiser>
        }),
    }
}

/// Festival with its recorded Russian voice.
struct Festival;

/// espeak-ng, with one of its voices.
struct Espeak(String);

/// Whoever answers a POST of a text with WAV.
struct Http(String);

fn rate(speed: &str) -> f32 {
    speed.trim().parse().ok().filter(|s: &f32| s.is_finite()).unwrap_or(1.0).clamp(0.5, 2.0)
}

/// Runs a program that reads the text and writes WAV.
async fn program(command: &str, arguments: Vec<String>, text: String) -> Result<Vec<u8>, SynthesisError> {
    let failed = |e: io::Error| SynthesisError::Engine(format!("{command}: {e}"));
    let mut child = tokio::process::Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut input = child.stdin.take();
    let write = async {
        if let Some(input) = &mut input {
            // Whoever does not read it to the end says so in its exit status.
            let _ = input.write_all(text.as_bytes()).await;
        }
        drop(input);
    };
    let both = async { futures::join!(write, child.wait_with_output()).1 };
    let out =
        tokio::time::timeout(PATIENCE, both).await.map_err(|_| SynthesisError::Slow)?.map_err(failed)?;
    if !out.status.success() {
        let why: String = String::from_utf8_lossy(&out.stderr).chars().take(200).collect();
        return Err(SynthesisError::Engine(format!("{command} ended with {}: {why}", out.status)));
    }
    Ok(out.stdout)
}

impl Synthesiser for Festival {
    fn name(&self) -> &str {
        "festival"
    }

    fn say(&self, text: Text) -> BoxFuture<'static, Result<Vec<u8>, SynthesisError>> {
        let stretch = 1.0 / rate(&text.speed);
        let settings =
            format!("(begin (voice_msu_ru_nsh_clunits) (Parameter.set 'Duration_Stretch {stretch:.2}))");
        Box::pin(async move {
            let failed = |e: io::Error| SynthesisError::Engine(format!("text2wave: {e}"));
            // Into a pipe it writes a header that says 0 samples.
            let file = tempfile::NamedTempFile::new().map_err(failed)?;
            let into = file.path().to_string_lossy().into_owned();
            let arguments = ["-eval", &settings, "-o", &into].map(str::to_owned).into();
            program("text2wave", arguments, format!("{}\n", text.text)).await?;
            tokio::fs::read(file.path()).await.map_err(failed)
        })
    }
}

impl Synthesiser for Espeak {
    fn name(&self) -> &str {
        "espeak-ng"
    }

    fn say(&self, text: Text) -> BoxFuture<'static, Result<Vec<u8>, SynthesisError>> {
        let words = (150.0 * rate(&text.speed)) as u32;
        let arguments =
            ["-v", &self.0, "-s", &words.to_string(), "--stdin", "--stdout"].map(str::to_owned).into();
        Box::pin(program("espeak-ng", arguments, text.text))
    }
}

impl Synthesiser for Http {
    fn name(&self) -> &str {
        "http"
    }

    fn say(&self, text: Text) -> BoxFuture<'static, Result<Vec<u8>, SynthesisError>> {
        let url = self.0.clone();
        // The client belongs to one thread; its answer does not.
        let (told, answer) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let work = async {
                let failed = |e: String| SynthesisError::Engine(format!("{url}: {e}"));
                let client = awc::Client::builder().timeout(PATIENCE).finish();
                let request = client
                    .post(&url)
                    .insert_header(("Content-Type", "text/plain; charset=utf-8"))
                    .insert_header(("Voice", text.voice))
                    .insert_header(("Speed", text.speed));
                let mut answer = request.send_body(text.text).await.map_err(|e| failed(e.to_string()))?;
                if !answer.status().is_success() {
                    return Err(failed(answer.status().to_string()));
                }
                let body = answer.body().limit(32 << 20).await.map_err(|e| failed(e.to_string()))?;
                Ok(body.to_vec())
            };
            let _ = told.send(work.await);
        });
        Box::pin(async move { answer.await.unwrap_or(Err(SynthesisError::Engine("it has gone".into()))) })
    }
}

type Made = Result<PathBuf, SynthesisError>;

/// Texts under way, and what came of them.
type Making = HashMap<u64, watch::Receiver<Option<Made>>>;

/// Makes prompts, each once; clones share what is made.
#[derive(Clone)]
pub struct Prompts {
    engine: Arc<dyn Synthesiser>,
    directory: PathBuf,
    making: Arc<Mutex<Making>>,
    places: Arc<Semaphore>,
}

impl Prompts {
    pub fn new(engine: Arc<dyn Synthesiser>, directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self { engine, directory: directory.to_owned(), making: Arc::default(), places })
    }

    /// The file of a text, which is made when it is not there. Who asks for what is being made waits for it.
    pub async fn say(&self, text: Text) -> Made {
        if text.text.trim().is_empty() {
            return Err(SynthesisError::Empty);
        }
        if text.text.chars().count() > LONGEST {
            return Err(SynthesisError::Long);
        }
        let mut hasher = DefaultHasher::new();
        (self.engine.name(), &text).hash(&mut hasher);
        let hash = hasher.finish();
        let path = self.directory.join(format!("{hash:016x}.wav"));
        if path.is_file() {
            return Ok(path);
        }
        let mut wait = {
            let mut making = self.making.lock();
            match making.get(&hash) {
                Some(wait) => wait.clone(),
                None => {
                    let (tell, wait) = watch::channel(None);
                    making.insert(hash, wait.clone());
                    let me = self.clone();
                    let said = self.engine.say(text);
                    tokio::spawn(async move {
                        let made = me.make(said, &path).await;
                        me.making.lock().remove(&hash);
                        let _ = tell.send(Some(made.map(|()| path)));
                    });
                    wait
                }
            }
        };
        let gone = || SynthesisError::Engine("it was given up".into());
        let made = wait.wait_for(Option::is_some).await.map_err(|_| gone())?;
        made.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn make(
        &self,
        said: BoxFuture<'static, Result<Vec<u8>, SynthesisError>>,
        path: &Path,
    ) -> Result<(), SynthesisError> {
        let engine = |e: String| SynthesisError::Engine(e);
        let _place = self.places.acquire().await.map_err(|e| engine(e.to_string()))?;
        let wav = said.await?;
        let (directory, path) = (self.directory.clone(), path.to_owned());
        let write = move || -> Result<(), String> {
            let samples = audio::mono(io::Cursor::new(wav), 8000, SECONDS).map_err(|e| e.to_string())?;
            let new = path.with_extension("new");
            audio::write(&new, &samples).map_err(|e| e.to_string())?;
            std::fs::rename(new, path).map_err(|e| e.to_string())?;
            make_room(&directory).map_err(|e| e.to_string())
        };
        tokio::task::spawn_blocking(write).await.map_err(|e| engine(e.to_string()))?.map_err(engine)
    }
}

fn make_room(directory: &Path) -> io::Result<()> {
    let mut all: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(directory)?
        .filter_map(|e| {
            let e = e.ok()?;
            Some((e.metadata().ok()?.modified().ok()?, e.path()))
        })
        .collect();
    if all.len() > KEPT {
        all.sort();
        all.iter().take(all.len() - KEPT).for_each(|(_, path)| drop(std::fs::remove_file(path)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Counting(Arc<AtomicU32>);

    impl Synthesiser for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn say(&self, text: Text) -> BoxFuture<'static, Result<Vec<u8>, SynthesisError>> {
            self.0.fetch_add(1, Relaxed);
            Box::pin(async move {
                if text.text == "no" {
                    return Err(SynthesisError::Engine("it cannot say no".into()));
                }
                let mut wav = io::Cursor::new(Vec::new());
                let spec = hound::WavSpec {
                    channels: 1,
                    sample_rate: 16_000,
                    bits_per_sample: 16,
                    sample_format: hound::SampleFormat::Int,
                };
                let mut writer = hound::WavWriter::new(&mut wav, spec).expect("a header");
                (0..16_000).for_each(|_| writer.write_sample(0_i16).expect("written"));
                writer.finalize().expect("finished");
                Ok(wav.into_inner())
            })
        }
    }

    #[tokio::test]
    async fn what_was_said_once_is_not_made_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let counting = Counting::default();
        let count = counting.0.clone();
        let prompts = Prompts::new(Arc::new(counting), directory.path()).expect("opened");
        let text = |t: &str| Text { text: t.into(), voice: String::new(), speed: String::new() };
        let (a, b) = futures::join!(prompts.say(text("да")), prompts.say(text("да")));
        assert_eq!((a.clone(), count.load(Relaxed)), (b, 1));
        assert_eq!(prompts.say(text("да")).await, a);
        assert_eq!(count.load(Relaxed), 1);
        let reader = hound::WavReader::open(a.expect("made")).expect("a WAV file");
        assert_eq!((reader.spec().sample_rate, reader.len()), (8000, 8000));
        assert!(matches!(prompts.say(text("no")).await, Err(SynthesisError::Engine(_))));
        assert_eq!(prompts.say(text(" ")).await, Err(SynthesisError::Empty));
        assert_eq!(prompts.say(text(&"а".repeat(LONGEST + 1))).await, Err(SynthesisError::Long));
    }

    #[test]
    fn synthesisers_are_named() {
        assert_eq!(by_name("festival").map(|s| s.name().to_owned()).as_deref(), Some("festival"));
        assert_eq!(by_name("espeak-ng:ru+f3").map(|s| s.name().to_owned()).as_deref(), Some("espeak-ng"));
        assert!(by_name("").is_none() && by_name("nobody").is_none());
    }
}
