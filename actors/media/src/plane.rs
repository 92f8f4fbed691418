//! The media plane: ports, negotiation for calls, and the threads where packets flow.
//!
//! A call's actor negotiates through [`Handle`] at once. Packets flow on threads of their own, each with its own runtime:
//! nothing there waits for a mailbox, and no actor waits for a packet. The handle commands its thread over a queue; the
//! thread tells the call what it must know through its mailbox.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use call::{
    CallMsg, LegId, MediaError, MediaPlane, MediaSession,
    media::{Change, MediaPart, Source, Wish},
};
use kit::Mailbox;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

use crate::{
    sdp::{self, Codec, Direction, Local, Remote},
    session::{Agreed, Out, Session},
    sound,
};

/// Commands that may wait for a thread.
const WAITING: usize = 65_536;
/// Between two reports to a peer.
const REPORT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);
/// Largest packet taken, bytes.
const MTU: usize = 2048;

/// What the plane is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    pub address: IpAddr,
    /// First and last port; pairs of them are used.
    pub ports: (u16, u16),
    pub threads: usize,
    /// A WAV file for those on hold.
    pub music: Option<std::path::PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    #[error("a thread for media: {0}")]
    Thread(#[from] std::io::Error),
    #[error("music on hold, {0}: {1}")]
    Music(std::path::PathBuf, sound::SoundError),
    #[error("media ports {0}-{1} are no range of pairs")]
    Ports(u16, u16),
}

/// Pairs of ports. A pair that was bound once stays bound: the longest unused is taken first, so that late packets of an
/// ended call meet nobody, and setting a call up costs no socket.
struct Ports {
    address: IpAddr,
    /// Not bound yet.
    fresh: Mutex<VecDeque<u16>>,
    /// By the thread that reads them.
    used: Vec<Mutex<VecDeque<(StdSocket, StdSocket, u16)>>>,
}

/// A pair of sockets; it is given back when nobody has it any more.
struct Pair {
    sockets: Option<(StdSocket, StdSocket)>,
    port: u16,
    /// The thread that reads it.
    thread: AtomicUsize,
    ports: Arc<Ports>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let (Some((rtp, rtcp)), Some(used)) =
            (self.sockets.take(), self.ports.used.get(self.thread.load(Relaxed)))
        {
            used.lock().push_back((rtp, rtcp, self.port));
        }
    }
}

/// Pairs that rest before one of them is taken again, while there are fresh ones.
const RESTING: usize = 64;

impl Ports {
    fn take(self: &Arc<Self>, thread: usize) -> Result<Arc<Pair>, MediaError> {
        let pair = |(rtp, rtcp, port): (StdSocket, StdSocket, u16), thread: usize| {
            let (sockets, thread) = (Some((rtp, rtcp)), AtomicUsize::new(thread));
            Ok(Arc::new(Pair { sockets, port, thread, ports: self.clone() }))
        };
        let again = |thread: usize, resting: usize| {
            let mut used = self.used.get(thread)?.lock();
            if used.len() > resting { used.pop_front() } else { None }
        };
        if let Some(rested) = again(thread, RESTING) {
            return pair(rested, thread);
        }
        // A port that somebody else has is tried again later.
        let tries = self.fresh.lock().len();
        for _ in 0..tries {
            let Some(port) = self.fresh.lock().pop_front() else { break };
            let bind = |port: u16| {
                let socket = StdSocket::bind((self.address, port))?;
                socket.set_nonblocking(true)?;
                Ok::<_, std::io::Error>(socket)
            };
            match (bind(port), bind(port + 1)) {
                (Ok(rtp), Ok(rtcp)) => return pair((rtp, rtcp, port), thread),
                _ => self.fresh.lock().push_back(port),
            }
        }
        let others = (0..self.used.len()).filter(|t| *t != thread);
        let found = std::iter::once(thread).chain(others).find_map(|t| Some((again(t, 0)?, t)));
        let (found, of) = found.ok_or(MediaError::NoPorts)?;
        pair(found, of)
    }
}

enum Command {
    Open {
        session: u64,
        events: Mailbox<CallMsg>,
    },
    Add {
        session: u64,
        leg: LegId,
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
    Remove {
        session: u64,
        leg: LegId,
    },
    /// Another thread reads this port now.
    Forget {
        port: u16,
    },
    Close {
        session: u64,
    },
}

/// The media plane. Clones share it.
#[derive(Clone)]
pub struct Plane {
    ports: Arc<Ports>,
    threads: Arc<Vec<mpsc::Sender<Vec<Command>>>>,
    turn: Arc<AtomicUsize>,
}

impl Plane {
    /// Starts the threads. They end when the last handle and the plane have gone.
    pub fn start(settings: &Settings) -> Result<Self, PlaneError> {
        let (first, last) = settings.ports;
        let even = first + first % 2;
        let free: VecDeque<u16> = (even..last).step_by(2).collect();
        if free.is_empty() || first < 1024 {
            return Err(PlaneError::Ports(first, last));
        }
        let music = match &settings.music {
            Some(path) => sound::wav(path).map_err(|e| PlaneError::Music(path.clone(), e))?,
            None => sound::music(),
        };
        let mut threads = Vec::new();
        for number in 0..settings.threads.max(1) {
            let (tx, rx) = mpsc::channel(WAITING);
            let music = music.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("media-{number}")).spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, serve(rx, music));
            })?;
            threads.push(tx);
        }
        let used = threads.iter().map(|_| Mutex::default()).collect();
        let ports = Arc::new(Ports { address: settings.address, fresh: Mutex::new(free), used });
        Ok(Self { ports, threads: Arc::new(threads), turn: Arc::default() })
    }
}

impl MediaPlane for Plane {
    fn session(&self, events: Mailbox<CallMsg>) -> Box<dyn MediaSession> {
        let turn = self.turn.fetch_add(1, Relaxed);
        Box::new(Handle {
            ports: self.ports.clone(),
            threads: self.threads.clone(),
            number: turn % self.threads.len(),
            session: turn as u64,
            events: Some(events),
            queue: Vec::new(),
            legs: BTreeMap::new(),
        })
    }
}

/// A leg as negotiation sees it.
struct Leg {
    pair: Arc<Pair>,
    ssrc: u32,
    version: u64,
    remote: Option<Remote>,
    /// What we offered, or answered with.
    codecs: Vec<Codec>,
    events: Option<u8>,
    /// Whom it was offered like.
    like: Option<LegId>,
    agreed: Option<Agreed>,
    source: Source,
}

/// The media of one call, as its actor has it.
struct Handle {
    ports: Arc<Ports>,
    threads: Arc<Vec<mpsc::Sender<Vec<Command>>>>,
    /// Its thread among them.
    number: usize,
    session: u64,
    /// Until the thread knows of the session.
    events: Option<Mailbox<CallMsg>>,
    queue: Vec<Command>,
    legs: BTreeMap<LegId, Leg>,
}

impl Handle {
    /// For the thread, with what else the call wants in this step.
    fn send(&mut self, command: Command) {
        if let Some(events) = self.events.take() {
            self.queue.push(Command::Open { session: self.session, events });
        }
        self.queue.push(command);
    }

    /// Gives a leg's sockets to the thread; one that had them before forgets them.
    fn add(&mut self, leg: LegId, pair: Arc<Pair>, ssrc: u32) {
        let before = pair.thread.swap(self.number, Relaxed);
        if before != self.number
            && self.threads[before].try_send(vec![Command::Forget { port: pair.port }]).is_err()
        {
            tracing::error!("a media thread does not keep up");
        }
        let session = self.session;
        self.send(Command::Add { session, leg, pair, ssrc });
    }

    fn leg(&mut self, leg: LegId) -> Result<&mut Leg, MediaError> {
        if !self.legs.contains_key(&leg) {
            let pair = self.ports.take(self.number)?;
            let ssrc = rand::random();
            let new = Leg {
                pair,
                ssrc,
                version: 0,
                remote: None,
                codecs: Vec::new(),
                events: None,
                like: None,
                agreed: None,
                source: Source::Silence,
            };
            self.legs.insert(leg, new);
        }
        self.legs.get_mut(&leg).ok_or(MediaError::NoSession)
    }

    /// What our side and the peer's agree on; told to the thread.
    fn agree(&mut self, leg: LegId) -> Result<Change, MediaError> {
        let session = self.session;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        let remote = l.remote.as_ref().ok_or(MediaError::NoSession)?;
        let theirs = |c: &&Codec| l.codecs.iter().any(|o| o.same(c));
        let codec = remote.codecs.iter().find(theirs).cloned().ok_or(MediaError::Incompatible)?;
        let held = matches!(remote.direction, Direction::SendOnly | Direction::Inactive);
        let agreed = Agreed {
            remote: remote.address,
            rtcp: remote.rtcp,
            codec,
            receives: l.codecs.clone(),
            events: remote.events.filter(|_| l.events.is_some()),
            events_in: l.events.filter(|_| remote.events.is_some()),
            hears: !held,
        };
        if l.agreed.as_ref() != Some(&agreed) {
            let first = l.agreed.replace(agreed.clone()).is_none();
            let (pair, ssrc) = (l.pair.clone(), l.ssrc);
            if first {
                self.add(leg, pair, ssrc);
            }
            self.send(Command::Agree { session, leg, agreed: Box::new(agreed) });
        }
        Ok(Change { held })
    }

    fn describe(&mut self, leg: LegId, direction: Direction, answer: bool) -> Result<Bytes, MediaError> {
        let address = self.ports.address;
        let session = self.session;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        l.version += 1;
        let (index, others) = match (&l.remote, answer) {
            (Some(remote), true) => (remote.index, remote.others.as_slice()),
            _ => (0, &[][..]),
        };
        let local = Local {
            session: u64::from(l.ssrc) << 16 | (session & 0xffff),
            version: l.version,
            address: SocketAddr::new(address, l.pair.port),
            codecs: &l.codecs,
            events: l.events,
            direction,
            index,
            others,
        };
        Ok(local.write())
    }
}

impl MediaSession for Handle {
    fn offer(&mut self, leg: LegId, wish: Wish) -> Result<Bytes, MediaError> {
        let like = wish.like.and_then(|l| self.legs.get(&l)).and_then(|l| l.remote.clone());
        let l = self.leg(leg)?;
        if l.agreed.is_none() {
            let (codecs, events) = sdp::offer_like(like.as_ref());
            (l.codecs, l.events, l.like) = (codecs, Some(events), wish.like);
        }
        self.describe(leg, Direction::SendRecv, false)
    }

    fn remote_offer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        let remote = Remote::parse(sdp)?;
        let held = matches!(remote.direction, Direction::SendOnly | Direction::Inactive);
        let l = self.leg(leg)?;
        l.remote = Some(remote);
        Ok(Change { held })
    }

    fn answer(&mut self, leg: LegId) -> Result<Bytes, MediaError> {
        let l = self.legs.get(&leg).ok_or(MediaError::NoSession)?;
        let remote = l.remote.clone().ok_or(MediaError::NoSession)?;
        // The coding in use stays; else what the other side took; else what we can transcode.
        let kept = l.agreed.as_ref().map(|a| a.codec.clone());
        let others = self.legs.values().filter(|o| o.like == Some(leg)).filter_map(|o| o.agreed.as_ref());
        let taken: Vec<Codec> = others.map(|a| a.codec.clone()).collect();
        let offered = |c: &Codec| remote.codecs.iter().find(|r| r.same(c)).cloned();
        let codec = kept
            .and_then(|c| offered(&c))
            .or_else(|| taken.iter().find_map(offered))
            .or_else(|| remote.codecs.iter().find(|c| sdp::is_own(c)).cloned())
            .ok_or(MediaError::Incompatible)?;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        (l.codecs, l.events) = (vec![codec], remote.events);
        self.agree(leg)?;
        self.describe(leg, remote.direction.reversed(), true)
    }

    fn remote_answer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        let remote = Remote::parse(sdp)?;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        l.remote = Some(remote);
        self.agree(leg)
    }

    fn hear(&mut self, leg: LegId, source: Source) {
        let session = self.session;
        let Some(l) = self.legs.get_mut(&leg) else { return };
        if l.source == source {
            return;
        }
        l.source = source.clone();
        self.send(Command::Hear { session, leg, source });
    }

    fn takes_keys(&self, leg: LegId) -> bool {
        self.legs.get(&leg).and_then(|l| l.agreed.as_ref()).is_some_and(|a| a.events.is_some())
    }

    fn key(&mut self, leg: LegId, key: char, millis: u32) {
        let session = self.session;
        self.send(Command::Press { session, leg, key, millis });
    }

    fn close(&mut self, leg: LegId) {
        let session = self.session;
        if self.legs.remove(&leg).is_some_and(|l| l.agreed.is_some()) {
            self.send(Command::Remove { session, leg });
        }
    }

    fn flush(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.queue);
        if self.threads[self.number].try_send(all).is_err() {
            tracing::error!("a media thread does not keep up");
        }
    }

    fn detach(&mut self, leg: LegId) -> Option<MediaPart> {
        let session = self.session;
        let part = self.legs.remove(&leg)?;
        if part.agreed.is_some() {
            self.send(Command::Remove { session, leg });
        }
        Some(Box::new(part))
    }

    fn attach(&mut self, leg: LegId, part: MediaPart) {
        let Ok(part) = part.downcast::<Leg>() else { return };
        let session = self.session;
        let (agreed, pair, ssrc) = (part.agreed.clone(), part.pair.clone(), part.ssrc);
        self.legs.insert(leg, Leg { source: Source::Silence, like: None, ..*part });
        if let Some(agreed) = agreed {
            self.add(leg, pair, ssrc);
            self.send(Command::Agree { session, leg, agreed: Box::new(agreed) });
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.events.is_none() {
            let session = self.session;
            self.send(Command::Close { session });
        }
        self.flush();
    }
}

// ---- the threads

/// A session on its thread.
struct Hosted {
    core: RefCell<Session>,
    lines: RefCell<HashMap<LegId, Taken>>,
    events: Mailbox<CallMsg>,
    ticking: RefCell<Option<JoinHandle<()>>>,
    keeping: RefCell<Option<JoinHandle<()>>>,
}

/// Whose packets a line's are; nobody's between two calls.
type Owner = Rc<RefCell<Option<(Weak<Hosted>, LegId)>>>;

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
            let Some((hosted, leg)) = owner.borrow().as_ref().and_then(|(h, l)| Some((h.upgrade()?, *l)))
            else {
                continue;
            };
            {
                let mut core = hosted.core.borrow_mut();
                match control {
                    true => core.control(now(), leg, from, &buffer[..length]),
                    false => core.packet(now(), leg, from, &buffer[..length]),
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
    fn flush(&self) {
        let outs: Vec<Out> = self.core.borrow_mut().outputs().collect();
        let lines = self.lines.borrow();
        for out in outs {
            match out {
                // What does not fit now is lost, as packets are.
                Out::Rtp(leg, to, bytes) => drop(lines.get(&leg).map(|t| t.line.rtp.try_send_to(&bytes, to))),
                Out::Rtcp(leg, to, bytes) => {
                    drop(lines.get(&leg).map(|t| t.line.rtcp.try_send_to(&bytes, to)))
                }
                Out::Event(leg, event) => drop(self.events.tell(CallMsg::Media(leg, event))),
            }
        }
    }

    fn add(self: &Rc<Self>, leg: LegId, line: Rc<Line>, pair: Arc<Pair>, ssrc: u32) {
        self.core.borrow_mut().add(now(), leg, ssrc);
        line.owner.replace(Some((Rc::downgrade(self), leg)));
        self.lines.borrow_mut().insert(leg, Taken { line, _pair: pair });
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
                me.core.borrow_mut().tick();
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

async fn serve(mut commands: mpsc::Receiver<Vec<Command>>, music: Arc<[i16]>) {
    let mut sessions: HashMap<u64, Rc<Hosted>> = HashMap::new();
    let mut lines: HashMap<u16, Rc<Line>> = HashMap::new();
    while let Some(all) = commands.recv().await {
        for command in all {
            carry_out(command, &mut sessions, &mut lines, &music);
        }
    }
}

fn carry_out(
    command: Command,
    sessions: &mut HashMap<u64, Rc<Hosted>>,
    lines: &mut HashMap<u16, Rc<Line>>,
    music: &Arc<[i16]>,
) {
    match command {
        Command::Open { session, events } => {
            let hosted = Rc::new(Hosted {
                core: RefCell::new(Session::new(music.clone(), now())),
                lines: RefCell::default(),
                events,
                ticking: RefCell::default(),
                keeping: RefCell::default(),
            });
            hosted.keep();
            sessions.insert(session, hosted);
        }
        Command::Close { session } => drop(sessions.remove(&session)),
        Command::Add { session, leg, pair, ssrc } => {
            let Some(hosted) = sessions.get(&session) else { return };
            let line = match lines.get(&pair.port) {
                Some(line) => line.clone(),
                None => match Line::open(&pair) {
                    Ok(line) => lines.entry(pair.port).insert_entry(Rc::new(line)).get().clone(),
                    Err(e) => {
                        tracing::error!(error = %e, "sockets of a leg cannot be used");
                        return;
                    }
                },
            };
            hosted.add(leg, line, pair, ssrc);
        }
        Command::Agree { session, leg, agreed } => {
            with(sessions, session, |s| s.agree(leg, *agreed));
        }
        Command::Hear { session, leg, source } => with(sessions, session, |s| s.hear(leg, source)),
        Command::Press { session, leg, key, millis } => {
            with(sessions, session, |s| s.press(leg, key, millis))
        }
        Command::Remove { session, leg } => {
            with(sessions, session, |s| s.remove(leg));
            if let Some(hosted) = sessions.get(&session) {
                hosted.lines.borrow_mut().remove(&leg);
            }
        }
        Command::Forget { port } => drop(lines.remove(&port)),
    }
}

fn with(sessions: &HashMap<u64, Rc<Hosted>>, session: u64, change: impl FnOnce(&mut Session)) {
    if let Some(hosted) = sessions.get(&session) {
        change(&mut hosted.core.borrow_mut());
        hosted.tick();
    }
}
