//! Memory that answered requests of others hold until their time is over, by the network they came from: an answer is as long
//! as its request made it, and nothing has been proven by then.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

/// Bytes of all together, and of one network (of IPv6, a /64): a neighbour's or a proxy's.
const ALL: usize = 32 << 20;
const ONE: usize = 16 << 20;
/// Of one transaction beside its answer: what the tables take.
const EACH: usize = 400;

#[derive(Default)]
pub(super) struct Kept {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

impl Kept {
    /// Whether there is room for one more.
    pub(super) fn room(&self, peer: SocketAddr) -> bool {
        let mine = self.of.get(&kit::throttle::network(peer.ip())).copied().unwrap_or(0);
        self.all < ALL && mine < ONE
    }

    pub(super) fn begin(&mut self, peer: SocketAddr, key: usize) {
        self.add(peer, EACH + 2 * key);
    }

    pub(super) fn add(&mut self, peer: SocketAddr, bytes: usize) {
        self.all += bytes;
        *self.of.entry(kit::throttle::network(peer.ip())).or_default() += bytes;
    }

    pub(super) fn end(&mut self, peer: SocketAddr, key: usize) {
        self.less(peer, EACH + 2 * key);
    }

    pub(super) fn less(&mut self, peer: SocketAddr, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        let network = kit::throttle::network(peer.ip());
        if let Some(mine) = self.of.get_mut(&network) {
            *mine = mine.saturating_sub(bytes);
            if *mine == 0 {
                self.of.remove(&network);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all == 0 && self.of.is_empty()
    }
}
