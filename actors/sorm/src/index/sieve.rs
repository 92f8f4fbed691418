//! A Bloom filter in blocks of a cache line: of a number that was never put it says so after one look into memory, where a map of a
//! million would take several.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;

use super::{HashMap, Hit};
use crate::protocol::Digits;

/// Below so many objects the maps themselves are in the cache.
const FEW: usize = 1_000;
/// Bits for each number, and those that are set for it.
const BITS: usize = 16;
const SET: u32 = 4;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; 8]);

#[derive(Debug)]
struct Leads([AtomicU64; 64]);

impl Default for Leads {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; 64])
    }
}

/// Clones share the bits, which are only ever set: an older clone lets more through, and its map decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Sieve {
    blocks: Arc<[Block]>,
    /// The first three symbols of first digits that were put.
    leads: Arc<Leads>,
    hasher: RandomState,
    /// Numbers that were put, and how many may be before it grows.
    put: usize,
    room: usize,
}

type Map = HashMap<Digits, Vec<Hit>>;

impl Sieve {
    fn hash(&self, number: &Digits, first: bool) -> u64 {
        self.hasher.hash_one((number, first))
    }

    /// The bits of a hash: a block, and four places of nine bits in it.
    fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
        (0..SET).map(move |n| {
            let place = (hash >> (9 * n)) & 511;
            ((place >> 6) as usize, 1 << (place & 63))
        })
    }

    fn block(&self, hash: u64) -> Option<&Block> {
        // The upper half, so that it does not depend on the places.
        let at = ((hash >> 36) * self.blocks.len() as u64) >> 28;
        self.blocks.get(at as usize)
    }

    fn set(&self, hash: u64) {
        if let Some(block) = self.block(hash) {
            for (word, bit) in Self::places(hash) {
                block.0[word].fetch_or(bit, Relaxed);
            }
        }
    }

    /// After a number has been put into its map; `first` are numbers' first digits.
    pub(super) fn insert(&mut self, number: &Digits, first: bool, full: &Map, firsts: &Map) {
        if first && let Some(lead) = number.lead() {
            self.leads.0[lead >> 6].fetch_or(1 << (lead & 63), Relaxed);
        }
        self.put += 1;
        if self.put <= self.room {
            return self.set(self.hash(number, first));
        }
        let count = full.len() + firsts.len();
        if count < FEW {
            return;
        }
        // Numbers that are gone leave their bits until now.
        self.put = count;
        self.room = 2 * count;
        self.blocks = (0..(self.room * BITS).div_ceil(512)).map(|_| Block::default()).collect();
        let all = full.keys().map(|n| (n, false)).chain(firsts.keys().map(|n| (n, true)));
        all.for_each(|(number, first)| self.set(self.hash(number, first)));
    }

    /// Whether first digits of three symbols and more may fit a number; false is certain.
    pub(super) fn may_lead(&self, number: &Digits) -> bool {
        number.lead().is_some_and(|lead| self.leads.0[lead >> 6].load(Relaxed) & (1 << (lead & 63)) != 0)
    }

    /// Whether a number may have been put; false is certain.
    pub(super) fn may_have(&self, number: &Digits, first: bool) -> bool {
        let hash = self.hash(number, first);
        match self.block(hash) {
            None => true,
            Some(block) => Self::places(hash).all(|(word, bit)| block.0[word].load(Relaxed) & bit != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_put_is_missed_and_little_else_passes() {
        let (mut full, firsts) = (Map::default(), Map::default());
        let mut sieve = Sieve::default();
        let number = |n: usize| Digits::new(&format!("7{n:010}")).expect("a number");
        for n in 0..20_000 {
            full.insert(number(n), Vec::new());
            sieve.insert(&number(n), false, &full, &firsts);
        }
        assert!((0..20_000).all(|n| sieve.may_have(&number(n), false)));
        let passed = (20_000..120_000).filter(|n| sieve.may_have(&number(*n), false)).count();
        assert!(passed < 2_000, "{passed} of 100000");
        let other = (0..20_000).filter(|n| sieve.may_have(&number(*n), true)).count();
        assert!(other < 400, "first digits are another matter: {other}");
        let before = sieve.clone();
        full.insert(number(500_000), Vec::new());
        sieve.insert(&number(500_000), false, &full, &firsts);
        assert!(before.may_have(&number(1), false) && sieve.may_have(&number(500_000), false));
    }
}
