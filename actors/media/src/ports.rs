//! Ports of RTP, and their sockets.

use std::{
    collections::VecDeque,
    net::{IpAddr, UdpSocket as StdSocket},
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
    pub(crate) address: IpAddr,
    pub(crate) advertised: Option<IpAddr>,
    /// Not bound yet.
    pub(crate) fresh: Mutex<VecDeque<u16>>,
    /// By the thread that reads them.
    pub(crate) used: Vec<Mutex<VecDeque<(StdSocket, StdSocket, u16)>>>,
    pub(crate) alarms: Alarms,
}

/// A pair of sockets; it is given back when nobody has it any more.
pub(crate) struct Pair {
    pub(crate) sockets: Option<(StdSocket, StdSocket)>,
    pub(crate) port: u16,
    /// The thread that reads it.
    pub(crate) thread: AtomicUsize,
    pub(crate) ports: Arc<Ports>,
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

/// How long a want of ports or time is an alarm.
const RECENT: Duration = Duration::from_secs(60);

impl Ports {
    /// The address that a peer is told: outside, and where its host is not known, the one that is known there.
    pub(crate) fn named(&self, peer: Option<IpAddr>) -> IpAddr {
        self.advertised.filter(|_| peer.is_none_or(|p| !kit::net::is_inner(p))).unwrap_or(self.address)
    }

    /// A thread does not take its commands in time.
    pub(crate) fn overloaded(&self) {
        let late = Condition::new("media::thread::overloaded", Severity::Critical, "threads");
        self.alarms.raise(late.cause("a media thread does not keep up").lasting(RECENT));
    }

    pub(crate) fn take(self: &Arc<Self>, thread: usize) -> Result<Arc<Pair>, MediaError> {
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
        let (found, of) = found.ok_or_else(|| {
            let none = Condition::new("media::ports::none", Severity::Critical, "ports");
            self.alarms.raise(none.cause("all media ports are taken: calls are refused").lasting(RECENT));
            MediaError::NoPorts
        })?;
        pair(found, of)
    }
}
