//! The whole estate as one picture: what routing reads. Each domain publishes its state here after every change;
//! a reader takes a picture and is not disturbed by changes that follow.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use parking_lot::Mutex;

use crate::{bridge::Bridges, licence::Licence, state::DomainState};

/// Domains, bridges and licence at one moment.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub domains: OrdMap<String, Arc<DomainState>>,
    pub bridges: Arc<Bridges>,
    /// Calls on each bridge.
    pub calls: OrdMap<String, Arc<AtomicU32>>,
    pub licence: Arc<Licence>,
}

impl Picture {
    /// Calls now on a bridge.
    pub fn calls_on(&self, bridge: &str) -> u32 {
        self.calls.get(bridge).map_or(0, |c| c.load(Relaxed))
    }

    /// Declared subscribers of all domains.
    pub fn subscribers(&self) -> usize {
        self.domains.values().map(|d| d.users.len()).sum()
    }
}

/// Where the newest picture hangs. Clones share it.
#[derive(Clone, Default)]
pub struct Estate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    picture: ArcSwap<Picture>,
    /// Changes are rare and one at a time; readers never wait for them.
    change: Mutex<()>,
}

impl Estate {
    pub fn picture(&self) -> Arc<Picture> {
        self.0.picture.load_full()
    }

    /// Hangs a changed picture.
    pub fn change(&self, change: impl FnOnce(&mut Picture)) {
        let _one = self.0.change.lock();
        let mut picture = (*self.picture()).clone();
        change(&mut picture);
        self.0.picture.store(Arc::new(picture));
    }
}
