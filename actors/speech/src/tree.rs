//! The family's place in the tree. Its children stand alone: who misses a recogniser for a moment is told so.
//!
//! ```text
//! speech                  one_for_one
//! ├ speech/attendant      what operators have taught
//! ├ speech/pocketsphinx   dynamic: closed grammars, speech/pocketsphinx/N, a thread and a process each
//! ├ speech/whisper        dynamic: any speech, threads and one process for all; or speech/remote
//! ├ speech/manager        how many there are, and their rebuilding
//! ├ speech/book           reads the phone book and the operator's words, and listens for them
//! ├ speech/transcriptions dynamic, temporary: files that become words, speech/transcription/N
//! ├ speech/asr            transcription over HTTP
//! ├ speech/clerk          the auto-attendant over HTTP
//! └ speech/asr-manager    the manager over HTTP
//! ```

use std::{path::PathBuf, sync::Arc, time::Duration};

use domain::Estate;
use httpd::{Door, Guard, HEADERS};
use kit::{Address, AddressError, ChildSpec, Node, Secret, Strategy, SupervisorSpec, journal::Journal};
use parking_lot::Mutex;

use crate::{
    apart,
    apart::Process,
    clerk::{Clerk, records::Records, state},
    http,
    http::{
        attendant,
        attendant::Attendant,
        manager::ManagerService,
        trans,
        trans::Trans,
        transcription::{Jobs, TRANSCRIPTIONS},
    },
    importer,
    importer::PhoneBook,
    manager,
    manager::Kind,
    pool::{Make, Pool},
    recogniser::{Engine, RecogniserError},
    remote::{Remote, RemoteEngine},
    sphinx::Sphinx,
    whisper::Whisper,
};

/// What the operator has chosen.
#[derive(Clone)]
pub struct Settings {
    /// Directory of an acoustic model for 8000 Hz; none: the program's own.
    pub acoustic: Option<PathBuf>,
    /// Threads of each engine.
    pub threads: usize,
    pub asr: Option<Door>,
    pub attendant: Option<Door>,
    pub manager: Option<Door>,
    /// Directory of the operator's own `.dic` and JSGF files.
    pub words: PathBuf,
    /// None: there is no book.
    pub book: Option<PhoneBook>,
    /// Between two readings of it.
    pub book_every: Duration,
    /// Pieces of speech that are kept.
    pub records: usize,
    /// Engines live in processes of their own.
    pub apart: bool,
    /// Where models and records are.
    pub data: PathBuf,
    /// What strangers show at doors that are not on loopback.
    pub token: Secret<String>,
}

/// What other families use of this one.
#[derive(Clone)]
pub struct Speech {
    pub clerk: Clerk,
    pub closed: Pool,
    pub open: Option<Pool>,
    pub jobs: Jobs,
    engine: OpenSpeech,
}

/// Who recognises any speech.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OpenSpeech {
    /// Only closed grammars are recognised.
    #[default]
    Nobody,
    /// By these weights, in ggml's format.
    Whisper(PathBuf),
    /// Another's recogniser, and the sampling rate it wants.
    Remote(Remote, u32),
}

impl Speech {
    pub fn new(engine: OpenSpeech) -> Self {
        let closed = Pool::new("pocketsphinx");
        let open = match &engine {
            OpenSpeech::Nobody => None,
            OpenSpeech::Whisper(_) => Some(Pool::new("whisper")),
            OpenSpeech::Remote(..) => Some(Pool::new("remote")),
        };
        let clerk = Clerk::new(closed.clone(), open.clone());
        Self { clerk, closed, open, jobs: Jobs::default(), engine }
    }

    /// How an engine for any speech is made.
    fn make(&self, apart: bool) -> Option<Make> {
        match self.engine.clone() {
            OpenSpeech::Nobody => None,
            OpenSpeech::Remote(remote, rate) => Some(Arc::new(move || {
                Ok(Box::new(RemoteEngine::new(remote.clone(), rate)?) as Box<dyn Engine>)
            })),
            OpenSpeech::Whisper(weights) if apart => {
                // One process for all threads: the weights are large.
                let shared: Mutex<Option<Arc<Process>>> = Mutex::default();
                Some(Arc::new(move || {
                    let mut shared = shared.lock();
                    if shared.as_ref().is_none_or(|p| p.has_ended()) {
                        *shared = Some(Arc::new(process(Kept::Whisper, &weights)?));
                    }
                    shared.as_ref().ok_or(RecogniserError::Stopped)?.engine("whisper")
                }))
            }
            OpenSpeech::Whisper(weights) => Some(Arc::new(whisper(weights))),
        }
    }
}

/// Engines that a process of their own may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Kept {
    Pocketsphinx,
    Whisper,
}

/// Makes Whispers: the weights are read once, and each thread has a state of its own.
fn whisper(weights: PathBuf) -> impl Fn() -> Result<Box<dyn Engine>, RecogniserError> + Send + Sync {
    let first: Mutex<Option<Whisper>> = Mutex::default();
    move || {
        let mut first = first.lock();
        if first.is_none() {
            *first = Some(Whisper::new(&weights)?);
        }
        let known = first.as_ref().ok_or(RecogniserError::Stopped)?;
        Ok(Box::new(known.another()?) as Box<dyn Engine>)
    }
}

/// This program again, as [`keep`] of an engine.
fn process(engine: Kept, model: &std::path::Path) -> Result<Process, RecogniserError> {
    // As it runs now, also after an upgrade has replaced its file.
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("recogniser").arg(<&'static str>::from(engine)).arg(model);
    Process::start(command).map_err(|e| RecogniserError::Model(format!("no process for it: {e}")))
}

/// Serves an engine to the node that started this process, over standard input and output, until that ends.
pub fn keep(engine: Kept, model: PathBuf) -> std::io::Result<()> {
    // Where memory is short, this process goes before the node does.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let (from, to) = (std::io::stdin(), std::io::stdout());
    match engine {
        Kept::Pocketsphinx => {
            apart::serve(from, to, move || Ok(Box::new(Sphinx::new(&model)?) as Box<dyn Engine>))
        }
        Kept::Whisper => apart::serve(from, to, whisper(model)),
    }
}

/// The program's own acoustic model (`ops/voices/train`).
const MODEL: &[(&str, &[u8])] = &[
    ("feat.params", include_bytes!("../../../fixtures/speech/ru-8k/feat.params")),
    ("mdef", include_bytes!("../../../fixtures/speech/ru-8k/mdef")),
    ("means", include_bytes!("../../../fixtures/speech/ru-8k/means")),
    ("mixture_weights", include_bytes!("../../../fixtures/speech/ru-8k/mixture_weights")),
    ("noisedict", include_bytes!("../../../fixtures/speech/ru-8k/noisedict")),
    ("transition_matrices", include_bytes!("../../../fixtures/speech/ru-8k/transition_matrices")),
    ("variances", include_bytes!("../../../fixtures/speech/ru-8k/variances")),
];

/// Writes the program's own model where the library can read it.
pub fn unpack(data: &std::path::Path) -> std::io::Result<PathBuf> {
    let directory = data.join("speech/ru-8k");
    std::fs::create_dir_all(&directory)?;
    for (name, bytes) in MODEL {
        let path = directory.join(name);
        if std::fs::read(&path).ok().as_deref() != Some(*bytes) {
            let new = directory.join(format!("{name}.new"));
            std::fs::write(&new, bytes)?;
            std::fs::rename(new, path)?;
        }
    }
    Ok(directory)
}

#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("speech cannot use {0}: {1}")]
    Io(PathBuf, std::io::Error),
}

/// The family as a child of the node's root.
pub fn child(
    node: &Node,
    estate: &Estate,
    journal: Arc<dyn Journal>,
    speech: &Speech,
    settings: &Settings,
) -> Result<ChildSpec, SpeechError> {
    let io = |e| SpeechError::Io(settings.data.clone(), e);
    let model = match &settings.acoustic {
        Some(model) => model.clone(),
        None => unpack(&settings.data).map_err(io)?,
    };
    let records = Records::open(&settings.data.join("speech/records"), settings.records).map_err(io)?;
    let licensed = {
        let (estate, node) = (estate.clone(), node.clone());
        Arc::new(move || estate.picture().terms(node.clock().now()).asr)
    };
    let guard = |door: &Door| Guard { open: door.listen.ip().is_loopback(), token: settings.token.clone() };
    let mut family = SupervisorSpec::new(Address::new("speech")?, Strategy::OneForOne)
        .child(state::child(journal, speech.clerk.taught.clone())?);
    let closed: Make = match settings.apart {
        // A process for each thread: one that ends takes its own listeners with it alone.
        true => Arc::new(move || Arc::new(process(Kept::Pocketsphinx, &model)?).engine("pocketsphinx")),
        false => Arc::new(move || Ok(Box::new(Sphinx::new(&model)?) as Box<dyn Engine>)),
    };
    let mut kinds = vec![Kind { pool: speech.closed.clone(), make: closed }];
    kinds
        .extend(speech.open.clone().zip(speech.make(settings.apart)).map(|(pool, make)| Kind { pool, make }));
    for kind in &kinds {
        let instances = SupervisorSpec::new(kind.pool.supervisor()?, Strategy::Dynamic);
        family = family.child(instances.intensity(10, Duration::from_secs(10)).into_child());
    }
    family = family.child(manager::child(node, &speech.clerk, kinds, settings.threads)?);
    family = family.child(importer::child(
        speech.clerk.clone(),
        settings.book.clone(),
        settings.book_every,
        settings.words.clone(),
    )?);
    if let Some(door) = &settings.asr {
        let files = SupervisorSpec::new(Address::new(TRANSCRIPTIONS)?, Strategy::Dynamic);
        family = family.child(files.intensity(1_000_000, Duration::from_secs(1)).into_child());
        let trans = Trans {
            node: node.clone(),
            clerk: speech.clerk.clone(),
            guard: guard(door),
            licensed: licensed.clone(),
            jobs: speech.jobs.clone(),
        };
        family = family.child(httpd::child("speech/asr", door, HEADERS, trans::routes(trans))?);
    }
    if let Some(door) = &settings.attendant {
        let clerk = Attendant::new(node.clone(), speech.clerk.clone(), records, guard(door), licensed);
        family = family.child(httpd::child("speech/clerk", door, HEADERS, attendant::routes(clerk))?);
    }
    if let Some(door) = &settings.manager {
        let service = ManagerService { node: node.clone(), guard: guard(door) };
        family =
            family.child(httpd::child("speech/asr-manager", door, HEADERS, http::manager::routes(service))?);
    }
    Ok(family.into_child())
}
