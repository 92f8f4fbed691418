//! The media plane: ports, negotiation for calls, and the threads where packets flow.
//!
//! A call's actor negotiates through [`Handle`] at once. Packets flow on threads of their own, each with its own runtime:
//! nothing there waits for a mailbox, and no actor waits for a packet. The handle commands its thread over a queue; the
//! thread tells the call what it must know through its mailbox.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use call::{
    CallMsg, Cause, LegId, MediaError, MediaPlane, MediaSession,
    media::{self, Change, MediaPart, Source, Wish},
};
use kit::{Mailbox, alarm::Alarms};
use tokio::sync::mpsc;

use crate::{
    ports::{Home, Pair, Ports},
    sdp::{self, Codec, Direction, EventFormat, Local, LocalVideo, Remote, Video},
    sealing::{self, Identity, Key, Ours, Sealing, Suite},
    session::{Agreed, Latching, Policy, VideoAgreed},
    sink::recorder,
    sound::{self, Library},
    thread::{Command, Means, Stream, serve},
};

/// Commands that may wait for a thread.
const WAITING: usize = 65_536;

/// What the plane is made of.
#[derive(Clone)]
pub struct Settings {
    pub address: IpAddr,
    /// That address as peers outside know it.
    pub advertised: Option<IpAddr>,
    /// The same of the other family, for peers that have only that one (dual stack).
    pub second: Option<(IpAddr, Option<IpAddr>)>,
    /// First and last port; pairs of them are used.
    pub ports: (u16, u16),
    pub threads: usize,
    /// A WAV file for those on hold.
    pub music: Option<PathBuf>,
    /// A directory of what callers hear of failed calls: `17.wav` for cause 17.
    pub announcements: Option<PathBuf>,
    /// Below it there is silence, dBFS.
    pub silence_threshold: i8,
    /// Which sources of packets are believed.
    pub latching: Latching,
    /// Where it is told that ports, threads or disks do not suffice.
    pub alarms: Alarms,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    #[error("a thread for media: {0}")]
    Thread(#[from] std::io::Error),
    #[error("{0}: {1}")]
    Sound(PathBuf, sound::SoundError),
    #[error("announcements, {0}: {1}")]
    Announcements(PathBuf, std::io::Error),
    #[error("who we are in DTLS: {0}")]
    Identity(#[from] sealing::IdentityError),
    #[error("media ports {0}-{1} are no range of pairs")]
    Ports(u16, u16),
}

/// The media plane. Clones share it.
#[derive(Clone)]
pub struct Plane {
    ports: Arc<Ports>,
    threads: Arc<Vec<mpsc::Sender<Vec<Command>>>>,
    turn: Arc<AtomicUsize>,
    identity: Arc<Identity>,
    announcements: Arc<BTreeMap<u8, PathBuf>>,
}

/// The announcements of a directory, by cause. One that cannot be played is an error now, not in a call; what they say is
/// kept in the library.
fn announcements(directory: &Path, library: &mut Library) -> Result<BTreeMap<u8, PathBuf>, PlaneError> {
    let failed = |e| PlaneError::Announcements(directory.to_owned(), e);
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(directory).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        let cause = path.file_stem().and_then(|s| s.to_str()?.parse().ok());
        if let Some(cause) = cause.filter(|_| path.extension().is_some_and(|e| e == "wav")) {
            library.keep(&path).map_err(|e| PlaneError::Sound(path.clone(), e))?;
            all.insert(cause, path);
        }
    }
    Ok(all)
}

impl Plane {
    /// Starts the threads. They end when the last handle and the plane have gone.
    pub fn start(settings: &Settings) -> Result<Self, PlaneError> {
        let (first, last) = settings.ports;
        let even = first + first % 2;
        let mut free: Vec<u16> = (even..last).step_by(2).collect();
        // In no order that a stranger could follow.
        rand::seq::SliceRandom::shuffle(free.as_mut_slice(), &mut rand::rng());
        let free: VecDeque<u16> = free.into();
        if free.is_empty() || first < 1024 {
            return Err(PlaneError::Ports(first, last));
        }
        let music = match &settings.music {
            Some(path) => sound::wav(path).map_err(|e| PlaneError::Sound(path.clone(), e))?,
            None => sound::music(),
        };
        let mut library = Library::new(music);
        let announcements = settings.announcements.as_deref().map(|d| announcements(d, &mut library));
        let announcements = announcements.transpose()?.unwrap_or_default();
        let library = Arc::new(library);
        let policy = Policy { threshold: settings.silence_threshold, latching: settings.latching };
        let means = Means { library, policy, recorder: recorder(settings.alarms.clone())? };
        let mut threads = Vec::new();
        for number in 0..settings.threads.max(1) {
            let (tx, rx) = mpsc::channel(WAITING);
            let means = means.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("media-{number}")).spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, serve(rx, means));
            })?;
            threads.push(tx);
        }
        let first = (settings.address, settings.advertised);
        let homes = std::iter::once(first).chain(settings.second);
        let homes = homes.map(|(at, told)| Home::new(at, told, free.clone(), threads.len())).collect();
        let ports = Arc::new(Ports::new(homes, free.len(), settings.alarms.clone()));
        let identity = Arc::new(Identity::new()?);
        Ok(Self {
            ports,
            threads: Arc::new(threads),
            turn: Arc::default(),
            identity,
            announcements: Arc::new(announcements),
        })
    }
}

impl MediaPlane for Plane {
    fn session(&self, events: Mailbox<CallMsg>, tenant: Option<&str>) -> Box<dyn MediaSession> {
        let turn = self.turn.fetch_add(1, Relaxed);
        Box::new(Handle {
            owner: tenant.map(Into::into),
            ports: self.ports.clone(),
            threads: self.threads.clone(),
            identity: self.identity.clone(),
            announcements: self.announcements.clone(),
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
    events: Vec<EventFormat>,
    /// Whom it was offered like.
    like: Option<LegId>,
    agreed: Option<Agreed>,
    /// How we seal.
    ours: Ours,
    /// What we say of pictures: the other party's words.
    video: Option<Video>,
    /// Their port, where they have one of their own.
    pictures: Option<Arc<Pair>>,
    source: Source,
    signalled: Option<IpAddr>,
}

impl Leg {
    /// Pictures as both sides have them, under the same numbers.
    fn agree_video(&self) -> Option<VideoAgreed> {
        let (ours, remote) = (self.video.as_ref()?, self.remote.as_ref()?);
        let theirs = remote.video.as_ref()?;
        let bundled = matches!(self.ours, Ours::Handshake { .. });
        let fits = match theirs.sealing {
            Sealing::Open => !bundled,
            Sealing::Handshake(_) => bundled,
            Sealing::Keys(_) => false,
        };
        let same = |c: &&Codec| ours.codecs.iter().any(|o| o.payload == c.payload && o.same(c));
        let payloads: Vec<u8> = theirs.codecs.iter().filter(same).map(|c| c.payload).collect();
        let agreed = VideoAgreed { remote: theirs.address, rtcp: theirs.rtcp, bundled, payloads };
        (fits && !agreed.payloads.is_empty()).then_some(agreed)
    }
}

/// The media of one call, as its actor has it.
struct Handle {
    /// The domain, where there are several.
    owner: Option<Arc<str>>,
    ports: Arc<Ports>,
    threads: Arc<Vec<mpsc::Sender<Vec<Command>>>>,
    identity: Arc<Identity>,
    announcements: Arc<BTreeMap<u8, PathBuf>>,
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
    fn add(&mut self, leg: LegId, stream: Stream, pair: Arc<Pair>, ssrc: u32) {
        let before = pair.thread.swap(self.number, Relaxed);
        if before != self.number
            && self.threads[before].try_send(vec![Command::Forget { pair: pair.key() }]).is_err()
        {
            self.ports.overloaded();
        }
        let session = self.session;
        self.send(Command::Add { session, leg, stream, pair, ssrc });
    }

    /// The leg; a new one gets ports of the family of its peer.
    fn leg(&mut self, leg: LegId, peer: Option<IpAddr>) -> Result<&mut Leg, MediaError> {
        if !self.legs.contains_key(&leg) {
            let pair = self.ports.take(self.owner.as_ref(), self.number, peer)?;
            let ssrc = rand::random();
            let new = Leg {
                pair,
                ssrc,
                version: 0,
                remote: None,
                codecs: Vec::new(),
                events: Vec::new(),
                like: None,
                agreed: None,
                ours: Ours::Open,
                video: None,
                pictures: None,
                source: Source::Silence,
                signalled: None,
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
        // Nothing would be heard; a call that says so is better. In WebRTC the address is a place-holder.
        let ends = matches!(remote.sealing, Sealing::Handshake(_)) || remote.address.ip().is_unspecified();
        if !ends && !l.pair.reaches(remote.address.ip()) {
            return Err(MediaError::Incompatible);
        }
        let theirs = |c: &&Codec| l.codecs.iter().any(|o| o.same(c));
        let codec = remote.codecs.iter().find(theirs).cloned().ok_or(MediaError::Incompatible)?;
        let held = matches!(remote.direction, Direction::SendOnly | Direction::Inactive);
        let sealing =
            sealing::settle(&mut l.ours, &remote.sealing, l.pair.local()).ok_or(MediaError::Incompatible)?;
        let agreed = Agreed {
            remote: remote.address,
            rtcp: remote.rtcp,
            signalled: l.signalled,
            codec: codec.clone(),
            receives: l.codecs.clone(),
            events: sdp::events_of(&remote.events, codec.clock).filter(|_| !l.events.is_empty()),
            events_in: l.events.iter().copied().filter(|_| !remote.events.is_empty()).collect(),
            hears: !held,
            sealing,
            video: l.agree_video(),
        };
        if l.agreed.as_ref() != Some(&agreed) {
            let apart = |a: &Agreed| a.video.as_ref().is_some_and(|v| !v.bundled);
            let before = l.agreed.replace(agreed.clone());
            let (pair, ssrc, source) = (l.pair.clone(), l.ssrc, l.source.clone());
            let pictures =
                l.pictures.clone().filter(|_| apart(&agreed) && !before.as_ref().is_some_and(apart));
            if before.is_none() {
                self.add(leg, Stream::Audio, pair, ssrc);
            }
            if let Some(pictures) = pictures {
                self.add(leg, Stream::Video, pictures, ssrc);
            }
            self.send(Command::Agree { session, leg, agreed: Box::new(agreed) });
            // The source of its sound may have been chosen before there was a description to send to.
            if before.is_none() && source != Source::Silence {
                self.send(Command::Hear { session, leg, source });
            }
        }
        Ok(Change { held })
    }

    /// Says of pictures to a leg what another one says of them; nothing where they cannot pass.
    fn show(&mut self, leg: LegId, video: Option<Video>) -> Result<(), MediaError> {
        let number = self.number;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        let bundled = matches!(l.ours, Ours::Handshake { .. });
        let numbers = |v: &Video| {
            let taken = |p: u8| {
                l.codecs.iter().map(|c| c.payload).chain(l.events.iter().map(|e| e.payload)).any(|o| o == p)
            };
            v.codecs.iter().any(|c| taken(c.payload))
        };
        l.video = video.filter(|v| !(matches!(l.ours, Ours::Key(_)) || bundled && numbers(v)));
        if l.video.is_some() && !bundled && l.pictures.is_none() {
            l.pictures = Some(self.ports.take(self.owner.as_ref(), number, Some(l.pair.local().ip()))?);
        }
        Ok(())
    }

    fn describe(&mut self, leg: LegId, direction: Direction) -> Result<Bytes, MediaError> {
        let session = self.session;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        l.version += 1;
        let remote = l.remote.as_ref();
        let theirs = remote.and_then(|r| r.video.as_ref());
        let video = l.video.as_ref().map(|like| LocalVideo {
            index: theirs.map_or(1, |v| v.index),
            port: l.pictures.as_ref().map_or(l.pair.port, |p| p.port),
            like,
            direction: theirs.map_or(Direction::SendRecv, |v| v.direction.reversed()),
            proto: theirs.map(|v| v.proto.as_str()),
            mid: theirs.and_then(|v| v.mid.as_deref()),
        });
        let others = remote.map(|r| r.refused(video.is_some())).unwrap_or_default();
        let local = Local {
            session: u64::from(l.ssrc) << 16 | (session & 0xffff),
            version: l.version,
            address: l.pair.named(l.signalled),
            codecs: &l.codecs,
            events: &l.events,
            direction,
            index: remote.map_or(0, |r| r.index),
            others: &others,
            proto: remote.map(|r| r.proto.as_str()),
            mid: remote.and_then(|r| r.mid.as_deref()),
            ours: &l.ours,
            ssrc: l.ssrc,
            video,
        };
        Ok(local.write())
    }
}

impl MediaSession for Handle {
    fn offer(&mut self, leg: LegId, wish: Wish) -> Result<Bytes, MediaError> {
        let like = wish.like.and_then(|l| self.legs.get(&l)).and_then(|l| l.remote.clone());
        let identity = self.identity.clone();
        let l = self.leg(leg, None)?;
        if l.agreed.is_none() {
            l.ours = match wish {
                Wish { ice: true, .. } => Ours::handshake(identity),
                Wish { sealed: true, .. } => Ours::Key(Key::random(1, Suite::Tag80)),
                _ => Ours::Open,
            };
            let (codecs, events) = sdp::offer_like(like.as_ref());
            (l.codecs, l.events, l.like) = (codecs, events, wish.like);
            self.show(leg, like.and_then(|r| r.video))?;
        }
        self.describe(leg, Direction::SendRecv)
    }

    fn remote_offer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        let signalled = self.legs.get(&leg).and_then(|l| l.signalled);
        let remote = Remote::parse_from(sdp, signalled)?;
        let held = matches!(remote.direction, Direction::SendOnly | Direction::Inactive);
        let (identity, at) = (self.identity.clone(), remote.address.ip());
        let ports = (!at.is_unspecified()).then_some(at).or(signalled);
        let (number, owner) = (self.number, self.owner.clone());
        let l = self.leg(leg, ports)?;
        // Its signalling may come by another family than its media; later, ports are moved no more.
        if l.agreed.is_none() && !at.is_unspecified() && !l.pair.reaches(at) {
            let pair = l.pair.ports.clone().take(owner.as_ref(), number, Some(at))?;
            l.pair = pair;
        }
        // What is agreed on stays while the peer offers its like.
        let kept = l.agreed.is_some() && l.ours.fits(&remote.sealing);
        if !kept {
            l.ours = Ours::answering(&remote.sealing, &identity);
        }
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
        // Pictures: what the other side took of them.
        let paired = |(id, o): &(&LegId, &Leg)| o.like == Some(leg) || l.like == Some(**id);
        let seen = self.legs.iter().filter(paired).find_map(|(_, o)| {
            let taken = o.agreed.as_ref()?.video.as_ref()?;
            let mut video = o.remote.as_ref()?.video.clone()?;
            video.codecs.retain(|c| taken.payloads.contains(&c.payload));
            Some(video)
        });
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        l.events = sdp::events_of(&remote.events, codec.clock).into_iter().collect();
        l.codecs = vec![codec];
        self.show(leg, seen.filter(|_| remote.video.is_some()))?;
        self.agree(leg)?;
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        if l.agreed.as_ref().is_some_and(|a| a.video.is_none()) {
            l.video = None;
        }
        self.describe(leg, remote.direction.reversed())
    }

    fn remote_answer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, MediaError> {
        let l = self.legs.get_mut(&leg).ok_or(MediaError::NoSession)?;
        let remote = Remote::parse_from(sdp, l.signalled)?;
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
        if l.agreed.is_some() {
            self.send(Command::Hear { session, leg, source });
        }
    }

    fn signalled(&mut self, leg: LegId, from: IpAddr) {
        if let Ok(l) = self.leg(leg, Some(from)) {
            l.signalled = Some(from);
        }
    }

    fn takes_keys(&self, leg: LegId) -> bool {
        self.legs.get(&leg).and_then(|l| l.agreed.as_ref()).is_some_and(|a| a.events.is_some())
    }

    fn key(&mut self, leg: LegId, key: char, millis: u32) {
        let session = self.session;
        self.send(Command::Press { session, leg, key, millis });
    }

    fn picture(&mut self, leg: LegId) {
        let session = self.session;
        self.send(Command::Picture { session, leg });
    }

    fn close(&mut self, leg: LegId) {
        let session = self.session;
        if self.legs.remove(&leg).is_some_and(|l| l.agreed.is_some()) {
            self.send(Command::Remove { session, leg });
        }
    }

    fn tap(&mut self, tap: u64, left: LegId, sink: media::Sink) {
        let session = self.session;
        self.send(Command::Tap { session, tap, left, sink });
    }

    fn untap(&mut self, tap: u64) {
        let session = self.session;
        self.send(Command::Untap { session, tap });
    }

    fn mute(&mut self, leg: LegId, on: bool) {
        let session = self.session;
        self.send(Command::Mute { session, leg, on });
    }

    fn announcement(&self, cause: Cause) -> Option<PathBuf> {
        self.announcements.get(&cause.0).cloned()
    }

    fn flush(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.queue);
        if self.threads[self.number].try_send(all).is_err() {
            self.ports.overloaded();
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
        // Pictures were agreed on with another.
        let agreed = part.agreed.clone().map(|a| Agreed { video: None, ..a });
        let (pair, ssrc) = (part.pair.clone(), part.ssrc);
        let moved = Leg { source: Source::Silence, like: None, video: None, agreed: agreed.clone(), ..*part };
        self.legs.insert(leg, moved);
        if let Some(agreed) = agreed {
            self.add(leg, Stream::Audio, pair, ssrc);
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
