//! Ports of RTP, and their sockets.

use std::{
    collections::{HashMap, VecDeque},
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
    /// Pairs that each domain has.
    shares: Mutex<HashMap<Arc<str>, usize>>,
    /// Pairs of one home.
    pairs: usize,
    pub(crate) alarms: Alarms,
}

/// The last part of the ports is kept for domains that have less than half of them: one tenant cannot take all of them.
const KEPT_BACK: usize = 8;

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
    /// The domain whose call it is, where there are several.
    owner: Option<Arc<str>>,
    /// The thread that reads it.
    pub(crate) thread: AtomicUsize,
    pub(crate) ports: Arc<Ports>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.ports.give_back(self.owner.as_ref());
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

    pub(crate) fn new(homes: Vec<Home>, pairs: usize, alarms: Alarms) -> Self {
        Self { homes, shares: Mutex::default(), pairs, alarms }
    }

    /// Takes a part of the ports for a domain.
    fn share(&self, owner: Option<&Arc<str>>) -> Result<(), MediaError> {
        let Some(owner) = owner else { return Ok(()) };
        let mut shares = self.shares.lock();
        let (all, own) = (shares.values().sum::<usize>(), shares.get(owner).copied().unwrap_or(0));
        if own >= self.pairs / 2 && all + self.pairs / KEPT_BACK >= self.pairs {
            drop(shares);
            let much = Condition::new("media::ports::share", Severity::Major, &**owner);
            let cause = "the domain has half of all media ports, and the rest is kept for others: its calls are refused";
            self.alarms.raise(much.cause(cause).lasting(RECENT));
            return Err(MediaError::NoPorts);
        }
        *shares.entry(owner.clone()).or_default() += 1;
        Ok(())
    }

    fn give_back(&self, owner: Option<&Arc<str>>) {
        let Some(owner) = owner else { return };
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get_mut(owner) {
            *share -= 1;
            if *share == 0 {
                shares.remove(owner);
            }
        }
    }

    /// A pair of the peer's family, where we have it.
    pub(crate) fn take(
        self: &Arc<Self>,
        owner: Option<&Arc<str>>,
        thread: usize,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Pair>, MediaError> {
        self.share(owner)?;
        self.pair(owner, thread, peer).inspect_err(|_| self.give_back(owner))
    }

    fn pair(
        self: &Arc<Self>,
        owner: Option<&Arc<str>>,
        thread: usize,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Pair>, MediaError> {
        let same = |h: &Home| peer.is_some_and(|p| p.to_canonical().is_ipv4() == h.address.is_ipv4());
        let at = self.homes.iter().position(same).unwrap_or_default();
        let home = self.homes.get(at).ok_or(MediaError::NoPorts)?;
        let pair = |(rtp, rtcp, port): (StdSocket, StdSocket, u16), thread: usize| {
            let (sockets, thread) = (Some((rtp, rtcp)), AtomicUsize::new(thread));
            Ok(Arc::new(Pair { sockets, port, home: at, owner: owner.cloned(), thread, ports: self.clone() }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_domain_leaves_others_a_part_of_the_ports() {
        let free: VecDeque<u16> = (0..40).map(|n| 52_000 + 2 * n).collect();
        let pairs = free.len();
        let home = Home::new(IpAddr::from([127, 0, 0, 1]), None, free, 1);
        let ports = Arc::new(Ports::new(vec![home], pairs, Alarms::new("n", kit::Clock::System)));
        let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
        let held: Vec<_> = std::iter::from_fn(|| ports.take(Some(&greedy), 0, None).ok()).collect();
        // Ports that other programs have are left out.
        assert!((pairs / 2..=pairs - pairs / KEPT_BACK).contains(&held.len()), "{}", held.len());
        let late = ports.take(Some(&other), 0, None);
        assert!(late.is_ok() && ports.take(Some(&greedy), 0, None).is_err());
        drop((held, late));
        assert!(ports.shares.lock().is_empty() && ports.take(Some(&greedy), 0, None).is_ok());
    }
}
