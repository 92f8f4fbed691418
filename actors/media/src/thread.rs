//! The threads where packets flow.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::UdpSocket as StdSocket,
    path::PathBuf,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use call::{CallMsg, LegId, media::Source};
use kit::Mailbox;
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

use crate::{
    ports::Pair,
    session::{Agreed, Out, Policy, Session},
    sink::{Recorder, Sink},
    sound::{self, Library},
};

/// Between two reports to a peer.
const REPORT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);
/// Largest packet taken, bytes.
const MTU: usize = 2048;

/// What a pair of sockets carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// And pictures, where both go one way.
    Audio,
    Video,
}

/// What a call's handle wants of a thread.
pub(crate) enum Command {
    Open {
        session: u64,
        events: Mailbox<CallMsg>,
    },
    Add {
        session: u64,
        leg: LegId,
        stream: Stream,
        pair: Arc<Pair>,
        ssrc: u32,
    },
    Agree {
        session: u64,
        leg: LegId,
        agreed: Box<Agreed>,
    },
    Hear {
        session: u64,
        leg: LegId,
        source: Source,
    },
    Press {
        session: u64,
        leg: LegId,
        key: char,
        millis: u32,
    },
    /// The leg wants a whole picture of the one it sees.
    Picture {
        session: u64,
        leg: LegId,
    },
    /// Somebody listens in.
    Tap {
        session: u64,
        tap: u64,
        left: LegId,
        sink: call::media::Sink,
    },
    Untap {
        session: u64,
        tap: u64,
    },
    Mute {
        session: u64,
        leg: LegId,
        on: bool,
    },
    Remove {
        session: u64,
        leg: LegId,
    },
    /// Another thread reads this port now.
    Forget {
        pair: (usize, u16),
    },
    Close {
        session: u64,
    },
}

/// A session on its thread.
struct Hosted {
    core: RefCell<Session>,
    lines: RefCell<HashMap<(LegId, Stream), Taken>>,
    sinks: RefCell<HashMap<u64, Sink>>,
    events: Mailbox<CallMsg>,
    ticking: RefCell<Option<JoinHandle<()>>>,
    keeping: RefCell<Option<JoinHandle<()>>>,
}

/// Whose packets a line's are; nobody's between two calls.
type Owner = Rc<RefCell<Option<(Weak<Hosted>, LegId, Stream)>>>;

/// A pair of sockets that this thread reads, whoever has it now.
struct Line {
    rtp: Rc<UdpSocket>,
    rtcp: Rc<UdpSocket>,
    owner: Owner,
    readers: [JoinHandle<()>; 2],
}

/// What a leg has: its line, and the pair, which is free again when the leg has gone.
struct Taken {
    line: Rc<Line>,
    _pair: Arc<Pair>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.line.owner.replace(None);
    }
}

impl Line {
    fn open(pair: &Pair) -> std::io::Result<Self> {
        let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        let (rtp, rtcp) = pair.sockets.as_ref().ok_or_else(gone)?;
        let socket = |s: &StdSocket| Ok::<_, std::io::Error>(Rc::new(UdpSocket::from_std(s.try_clone()?)?));
        let (rtp, rtcp) = (socket(rtp)?, socket(rtcp)?);
        let owner: Owner = Rc::default();
        let readers = [read(rtp.clone(), owner.clone(), false), read(rtcp.clone(), owner.clone(), true)];
        Ok(Self { rtp, rtcp, owner, readers })
    }
}

/// Reads a socket for whoever owns it; what comes for nobody is thrown away.
fn read(socket: Rc<UdpSocket>, owner: Owner, control: bool) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let mut buffer = [0; MTU];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(got) => got,
                // The peer's port is closed: it may open yet.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let found = owner.borrow().as_ref().and_then(|(h, l, s)| Some((h.upgrade()?, *l, *s)));
            let Some((hosted, leg, stream)) = found else { continue };
            {
                let mut core = hosted.core.borrow_mut();
                match stream {
                    Stream::Audio => core.datagram(now(), leg, from, &buffer[..length], control),
                    Stream::Video => core.picture(now(), leg, from, &buffer[..length], control),
                }
            }
            hosted.flush();
        }
    })
}

impl Drop for Hosted {
    fn drop(&mut self) {
        for task in [self.ticking.take(), self.keeping.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

impl Hosted {
    /// Sends what the session wants sent.
    fn flush(self: &Rc<Self>) {
        let outs: Vec<Out> = self.core.borrow_mut().outputs().collect();
        let lines = self.lines.borrow();
        for out in outs {
            let (leg, stream, control, to, bytes) = match out {
                Out::Rtp(leg, to, bytes) | Out::Wire(leg, to, bytes) => {
                    (leg, Stream::Audio, false, to, bytes)
                }
                Out::Rtcp(leg, to, bytes) => (leg, Stream::Audio, true, to, bytes),
                Out::Video(leg, to, bytes) => (leg, Stream::Video, false, to, bytes),
                Out::VideoRtcp(leg, to, bytes) => (leg, Stream::Video, true, to, bytes),
                Out::Tap(tap, frames) => {
                    if let Some(sink) = self.sinks.borrow_mut().get_mut(&tap) {
                        sink.take(frames);
                    }
                    continue;
                }
                Out::Event(leg, event) => {
                    drop(self.events.tell(CallMsg::Media(leg, event)));
                    continue;
                }
                Out::Load(leg, path) => {
                    self.load(leg, path);
                    continue;
                }
            };
            if let Some(taken) = lines.get(&(leg, stream)) {
                let socket = if control { &taken.line.rtcp } else { &taken.line.rtp };
                // What does not fit now is lost, as packets are.
                drop(socket.try_send_to(&bytes, to));
            }
        }
    }

    /// Reads a file for a leg on a thread that may wait for a disk.
    fn load(self: &Rc<Self>, leg: LegId, path: PathBuf) {
        let me = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let wanted = path.clone();
            let read = tokio::task::spawn_blocking(move || sound::wav(&wanted)).await;
            let samples = match read {
                Ok(Ok(samples)) => samples,
                Ok(Err(e)) => {
                    tracing::warn!(path = %path.display(), error = %e, "sound file cannot be played");
                    Arc::new([])
                }
                Err(_) => return,
            };
            let Some(me) = me.upgrade() else { return };
            me.core.borrow_mut().loaded(leg, &path, samples);
            me.tick();
        });
    }

    fn add(self: &Rc<Self>, leg: LegId, stream: Stream, line: Rc<Line>, pair: Arc<Pair>, ssrc: u32) {
        if stream == Stream::Audio {
            self.core.borrow_mut().add(now(), leg, ssrc);
        }
        line.owner.replace(Some((Rc::downgrade(self), leg, stream)));
        self.lines.borrow_mut().insert((leg, stream), Taken { line, _pair: pair });
    }

    /// Makes sounds while there are any to make.
    fn tick(self: &Rc<Self>) {
        let mut ticking = self.ticking.borrow_mut();
        if ticking.as_ref().is_some_and(|t| !t.is_finished()) || !self.core.borrow().ticks() {
            return;
        }
        let me = Rc::downgrade(self);
        *ticking = Some(tokio::task::spawn_local(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                let Some(me) = me.upgrade() else { return };
                if !me.core.borrow().ticks() {
                    return;
                }
                me.core.borrow_mut().tick(now());
                me.flush();
            }
        }));
    }

    fn keep(self: &Rc<Self>) {
        let me = Rc::downgrade(self);
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(REPORT).await;
                let Some(me) = me.upgrade() else { return };
                me.core.borrow_mut().housekeeping(now());
                me.flush();
            }
        });
        *self.keeping.borrow_mut() = Some(task);
    }
}

/// What sessions of a thread share.
#[derive(Clone)]
pub(crate) struct Means {
    pub library: Arc<Library>,
    pub policy: Policy,
    pub recorder: Recorder,
}

/// A thread's work, until nobody commands it any more.
pub(crate) async fn serve(mut commands: mpsc::Receiver<Vec<Command>>, means: Means) {
    let mut sessions: HashMap<u64, Rc<Hosted>> = HashMap::new();
    let mut lines: HashMap<(usize, u16), Rc<Line>> = HashMap::new();
    while let Some(all) = commands.recv().await {
        for command in all {
            carry_out(command, &mut sessions, &mut lines, &means);
        }
    }
}

fn carry_out(
    command: Command,
    sessions: &mut HashMap<u64, Rc<Hosted>>,
    lines: &mut HashMap<(usize, u16), Rc<Line>>,
    means: &Means,
) {
    match command {
        Command::Open { session, events } => {
            let hosted = Rc::new(Hosted {
                core: RefCell::new(Session::new(means.library.clone(), means.policy, now())),
                lines: RefCell::default(),
                sinks: RefCell::default(),
                events,
                ticking: RefCell::default(),
                keeping: RefCell::default(),
            });
            hosted.keep();
            sessions.insert(session, hosted);
        }
        Command::Close { session } => drop(sessions.remove(&session)),
        Command::Add { session, leg, stream, pair, ssrc } => {
            let Some(hosted) = sessions.get(&session) else { return };
            let line = match lines.get(&pair.key()) {
                Some(line) => line.clone(),
                None => match Line::open(&pair) {
                    Ok(line) => lines.entry(pair.key()).insert_entry(Rc::new(line)).get().clone(),
                    Err(e) => {
                        tracing::error!(error = %e, "sockets of a leg cannot be used");
                        return;
                    }
                },
            };
            hosted.add(leg, stream, line, pair, ssrc);
        }
        Command::Agree { session, leg, agreed } => {
            with(sessions, session, |s| s.agree(now(), leg, *agreed));
        }
        Command::Hear { session, leg, source } => with(sessions, session, |s| s.hear(leg, source)),
        Command::Press { session, leg, key, millis } => {
            with(sessions, session, |s| s.press(leg, key, millis))
        }
        Command::Picture { session, leg } => with(sessions, session, |s| s.want_picture(leg)),
        Command::Tap { session, tap, left, sink } => {
            let Some(hosted) = sessions.get(&session) else { return };
            // Numbers of taps are the call's; of files, the node's.
            let number = session << 8 | (tap & 0xff);
            match Sink::new(number, sink, &means.recorder) {
                Ok(sink) => drop(hosted.sinks.borrow_mut().insert(tap, sink)),
                Err(e) => return tracing::error!(error = %e, "nobody can listen in"),
            }
            with(sessions, session, |s| s.tap(tap, left));
        }
        Command::Mute { session, leg, on } => with(sessions, session, |s| s.mute(leg, on)),
        Command::Untap { session, tap } => {
            with(sessions, session, |s| s.untap(tap));
            if let Some(hosted) = sessions.get(&session) {
                hosted.sinks.borrow_mut().remove(&tap);
            }
        }
        Command::Remove { session, leg } => {
            with(sessions, session, |s| s.remove(leg));
            if let Some(hosted) = sessions.get(&session) {
                hosted.lines.borrow_mut().retain(|(l, _), _| *l != leg);
            }
        }
        Command::Forget { pair } => drop(lines.remove(&pair)),
    }
}

fn with(sessions: &HashMap<u64, Rc<Hosted>>, session: u64, change: impl FnOnce(&mut Session)) {
    if let Some(hosted) = sessions.get(&session) {
        change(&mut hosted.core.borrow_mut());
        hosted.tick();
    }
}
