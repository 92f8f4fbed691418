//! Ports of RTP, and their sockets.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use call::MediaError;
use kit::alarm::{Alarms, Condition, Severity};
use parking_lot::Mutex;

/// Pairs of ports. A pair that was bound once stays bound: the longest unused is taken first, so that late packets of an
/// ended call meet nobody, and setting a call up costs no socket.
pub(crate) struct Ports {
    /// One, or one of IPv4 and one of IPv6; the first is taken for peers whose family is not known.
    pub(crate) homes: Vec<Home>,
    pub(crate) alarms: Alarms,
}

/// An address of ours and its ports.
pub(crate) struct Home {
    address: IpAddr,
    advertised: Option<IpAddr>,
    /// Not bound yet.
    fresh: Mutex<VecDeque<u16>>,
    /// By the thread that reads them.
    used: Vec<Mutex<VecDeque<(StdSocket, StdSocket, u16)>>>,
}

impl Home {
    pub(crate) fn new(
        address: IpAddr,
        advertised: Option<IpAddr>,
        ports: VecDeque<u16>,
        threads: usize,
    ) -> Self {
        let used = std::iter::repeat_with(Mutex::default).take(threads).collect();
        Self { address, advertised, fresh: Mutex::new(ports), used }
    }
}

/// A pair of sockets; it is given back when nobody has it any more.
pub(crate) struct Pair {
    pub(crate) sockets: Option<(StdSocket, StdSocket)>,
    pub(crate) port: u16,
    /// The index of its address among our homes.
    home: usize,
    /// The thread that reads it.
    pub(crate) thread: AtomicUsize,
    pub(crate) ports: Arc<Ports>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let (Some((rtp, rtcp)), Some(used)) =
            (self.sockets.take(), self.ports.homes[self.home].used.get(self.thread.load(Relaxed)))
        {
            used.lock().push_back((rtp, rtcp, self.port));
        }
    }
}

impl Pair {
    /// Its number is unique in its family only.
    pub(crate) fn key(&self) -> (usize, u16) {
        (self.home, self.port)
    }

    /// Where it is bound.
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ports.homes[self.home].address, self.port)
    }

    /// The address that a peer is told: outside, and where its host is not known, the one that is known there.
    pub(crate) fn named(&self, peer: Option<IpAddr>) -> SocketAddr {
        let home = &self.ports.homes[self.home];
        let outside = home.advertised.filter(|_| peer.is_none_or(|p| !kit::net::is_inner(p)));
        SocketAddr::new(outside.unwrap_or(home.address), self.port)
    }

    /// Whether packets can go from it to an address.
    pub(crate) fn reaches(&self, peer: IpAddr) -> bool {
        self.local().is_ipv4() == peer.to_canonical().is_ipv4()
    }
}

/// Pairs that rest before one of them is taken again, while there are fresh ones.
const RESTING: usize = 64;

/// How long a want of ports or time is an alarm.
const RECENT: Duration = Duration::from_secs(60);

impl Ports {
    /// A thread does not take its commands in time.
    pub(crate) fn overloaded(&self) {
        let late = Condition::new("media::thread::overloaded", Severity::Critical, "threads");
        self.alarms.raise(late.cause("a media thread does not keep up").lasting(RECENT));
    }

    /// A pair of the peer's family, where we have it.
    pub(crate) fn take(
        self: &Arc<Self>,
        thread: usize,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Pair>, MediaError> {
        let same = |h: &Home| peer.is_some_and(|p| p.to_canonical().is_ipv4() == h.address.is_ipv4());
        let at = self.homes.iter().position(same).unwrap_or_default();
        let home = self.homes.get(at).ok_or(MediaError::NoPorts)?;
        let pair = |(rtp, rtcp, port): (StdSocket, StdSocket, u16), thread: usize| {
            let (sockets, thread) = (Some((rtp, rtcp)), AtomicUsize::new(thread));
            Ok(Arc::new(Pair { sockets, port, home: at, thread, ports: self.clone() }))
        };
        let again = |thread: usize, resting: usize| {
            let mut used = home.used.get(thread)?.lock();
            if used.len() > resting { used.pop_front() } else { None }
        };
        if let Some(rested) = again(thread, RESTING) {
            return pair(rested, thread);
        }
        // A port that somebody else has is tried again later.
        let tries = home.fresh.lock().len();
        for _ in 0..tries {
            let Some(port) = home.fresh.lock().pop_front() else { break };
            let bind = |port: u16| {
                let socket = StdSocket::bind((home.address, port))?;
                socket.set_nonblocking(true)?;
                Ok::<_, std::io::Error>(socket)
            };
            match (bind(port), bind(port + 1)) {
                (Ok(rtp), Ok(rtcp)) => return pair((rtp, rtcp, port), thread),
                _ => home.fresh.lock().push_back(port),
            }
        }
        let others = (0..home.used.len()).filter(|t| *t != thread);
        let found = std::iter::once(thread).chain(others).find_map(|t| Some((again(t, 0)?, t)));
        let (found, of) = found.ok_or_else(|| {
            let none = Condition::new("media::ports::none", Severity::Critical, "ports");
            self.alarms.raise(none.cause("all media ports are taken: calls are refused").lasting(RECENT));
            MediaError::NoPorts
        })?;
        pair(found, of)
    }
}
