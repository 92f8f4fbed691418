//! By which numbers calls are selected. A question costs a few look-ups, however many objects there are.

mod sieve;

use foldhash::fast::RandomState;
use imbl::GenericHashMap;

use self::sieve::Sieve;

use crate::{
    protocol::{Digits, Kind},
    settings::Mediator,
    station::Object,
};

/// What is dialled cannot choose its place: the seed is this process's.
type HashMap<K, V> = GenericHashMap<K, V, RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// An object of a mediator.
pub type Hit = (Mediator, u16);

/// Objects of one domain, by number. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Index {
    full: HashMap<Digits, Vec<Hit>>,
    first: HashMap<Digits, Vec<Hit>>,
    /// How many objects have first digits of each length.
    lengths: [u32; 19],
    trunks: HashMap<u16, Vec<Hit>>,
    /// Says of most numbers at once that they are nobody's.
    sieve: Sieve,
}

impl Index {
    pub fn insert(&mut self, mediator: Mediator, number: u16, object: &Object) {
        let hit = (mediator, number);
        match (object.kind, object.trunk) {
            (Kind::Trunk, Some(trunk)) => self.trunks.entry(trunk).or_default().push(hit),
            (Kind::Trunk, None) => {}
            (Kind::Partial, _) => {
                self.first.entry(object.number).or_default().push(hit);
                self.lengths[object.number.len()] += 1;
                self.sieve.insert(&object.number, true, &self.full, &self.first);
            }
            _ => {
                self.full.entry(object.number).or_default().push(hit);
                self.sieve.insert(&object.number, false, &self.full, &self.first);
            }
        }
    }

    pub fn remove(&mut self, mediator: Mediator, number: u16, object: &Object) {
        fn take<K: Clone + Eq + std::hash::Hash>(map: &mut HashMap<K, Vec<Hit>>, key: &K, hit: Hit) -> bool {
            let Some(hits) = map.get_mut(key) else { return false };
            let before = hits.len();
            hits.retain(|h| *h != hit);
            let (gone, empty) = (hits.len() < before, hits.is_empty());
            if empty {
                map.remove(key);
            }
            gone
        }
        let hit = (mediator, number);
        match (object.kind, object.trunk) {
            (Kind::Trunk, trunk) => drop(trunk.map(|t| take(&mut self.trunks, &t, hit))),
            (Kind::Partial, _) => {
                if take(&mut self.first, &object.number, hit) {
                    self.lengths[object.number.len()] -= 1;
                }
            }
            _ => drop(take(&mut self.full, &object.number, hit)),
        }
    }

    /// Objects that this number selects.
    pub fn number<'i>(&'i self, number: &'i Digits) -> impl Iterator<Item = Hit> + 'i {
        let full = self.sieve.may_have(number, false).then(|| self.full.get(number)).flatten();
        let full = full.into_iter().flatten();
        // Most numbers do not even begin like anybody's first digits.
        let longest = if self.sieve.may_lead(number) { number.len() } else { number.len().min(2) };
        let lengths = (1..=longest).filter(|n| self.lengths[*n] > 0).map(|n| number.first(n));
        let first = lengths
            .filter(|digits| self.sieve.may_have(digits, true))
            .filter_map(|digits| self.first.get(&digits))
            .flatten();
        full.chain(first).copied()
    }

    pub fn trunk(&self, trunk: u16) -> impl Iterator<Item = Hit> {
        self.trunks.get(&trunk).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Category, Priority, Sign};

    fn object(kind: Kind, number: &str) -> Object {
        Object {
            kind,
            sign: Some(Sign::Russia),
            number: Digits::new(number).expect("a number"),
            trunk: (kind == Kind::Trunk).then_some(3),
            category: Category::Statistical,
            group: None,
            priority: Priority::Ordinary,
            basis: None,
        }
    }

    proptest! {
        /// The index finds what looking at every object finds, also after some have gone.
        #[test]
        fn whatever_fits_is_found(
            set in proptest::collection::vec((any::<bool>(), "[0-3]{1,4}"), 0..40),
            gone in proptest::collection::vec(any::<bool>(), 40),
            asked in "[0-3]{1,5}",
        ) {
            let mediator = "127.0.0.1".parse().expect("an address");
            let kind = |partial: bool| if partial { Kind::Partial } else { Kind::Full };
            let all: Vec<(u16, Object)> =
                (0u16..).zip(set.iter().map(|(p, n)| object(kind(*p), n))).collect();
            let mut index = Index::default();
            all.iter().for_each(|(n, o)| index.insert(mediator, *n, o));
            let (stay, go): (Vec<_>, Vec<_>) = all.iter().partition(|(n, _)| !gone[usize::from(*n)]);
            go.iter().for_each(|(n, o)| index.remove(mediator, *n, o));
            let fits = |o: &Object| match o.kind {
                Kind::Partial => asked.starts_with(&o.number.reveal()),
                _ => asked == o.number.reveal(),
            };
            let mut expected: Vec<u16> = stay.iter().filter(|(_, o)| fits(o)).map(|(n, _)| *n).collect();
            let digits = Digits::new(&asked).expect("a number");
            let mut found: Vec<u16> = index.number(&digits).map(|(_, n)| n).collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
