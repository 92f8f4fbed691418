//! The index over a context's rules: finding the first rule that fits costs the length of the numbers, not the number
//! of rules. A trie over the cdpn masks; at the end of each mask a trie over the cgpn masks of the rules that have it.

use super::{
    context::{Facts, Rule},
    mask::{Mask, Set},
};

/// See the module.
#[derive(Default)]
pub struct Index {
    root: Trie<Trie<Vec<u32>>>,
}

/// A trie over masks: edges are sets of symbols. `first` is the smallest rule below, so that a walk leaves branches
/// that cannot win any more.
struct Trie<L> {
    nodes: Vec<Node<L>>,
}

struct Node<L> {
    /// Edges of a single symbol, by symbol; 0 is none (the root is nobody's child).
    exact: [u32; 16],
    /// Edges of several symbols.
    wide: Vec<(Set, u32)>,
    /// Masks that end here, with `%` and without.
    tail: Option<Box<L>>,
    end: Option<Box<L>>,
    first: u32,
}

impl<L> Node<L> {
    fn new() -> Self {
        Self { exact: [0; 16], wide: Vec::new(), tail: None, end: None, first: u32::MAX }
    }
}

impl<L> Default for Trie<L> {
    fn default() -> Self {
        Self { nodes: vec![Node::new()] }
    }
}

impl<L: Default> Trie<L> {
    fn leaf(&mut self, mask: &Mask, rule: u32) -> &mut L {
        let mut at = 0usize;
        self.nodes[0].first = self.nodes[0].first.min(rule);
        for set in &mask.sets {
            at = self.edge(at, *set);
            self.nodes[at].first = self.nodes[at].first.min(rule);
        }
        let node = &mut self.nodes[at];
        let place = if mask.tail { &mut node.tail } else { &mut node.end };
        place.get_or_insert_default()
    }

    fn edge(&mut self, from: usize, set: Set) -> usize {
        let fresh = self.nodes.len() as u32;
        let node = &mut self.nodes[from];
        let found = if set.0.count_ones() == 1 {
            let slot = &mut node.exact[set.0.trailing_zeros() as usize];
            if *slot == 0 {
                *slot = fresh;
            }
            *slot
        } else {
            match node.wide.iter().find(|(s, _)| *s == set) {
                Some((_, to)) => *to,
                None => {
                    node.wide.push((set, fresh));
                    fresh
                }
            }
        };
        if found == fresh {
            self.nodes.push(Node::new());
        }
        found as usize
    }
}

impl<L> Trie<L> {
    /// Gives every leaf whose mask matches to `found`; `best` bounds what is worth a look.
    fn walk(&self, number: &[u8], best: &mut u32, found: &mut impl FnMut(&L, &mut u32)) {
        self.step(0, number, best, found);
    }

    fn step(&self, at: usize, rest: &[u8], best: &mut u32, found: &mut impl FnMut(&L, &mut u32)) {
        let node = &self.nodes[at];
        if node.first >= *best {
            return;
        }
        if let Some(leaf) = &node.tail {
            found(leaf, best);
        }
        let Some((symbol, rest)) = rest.split_first() else {
            if let Some(leaf) = &node.end {
                found(leaf, best);
            }
            return;
        };
        let next = node.exact[usize::from(*symbol & 15)];
        if next != 0 {
            self.step(next as usize, rest, best, found);
        }
        for (set, next) in &node.wide {
            if set.has(*symbol) {
                self.step(*next as usize, rest, best, found);
            }
        }
    }
}

impl std::fmt::Debug for Index {
    /// The rules themselves say it better.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("index")
    }
}

impl Index {
    pub fn new(rules: &[Rule]) -> Self {
        let any = Mask::any();
        let mut root: Trie<Trie<Vec<u32>>> = Trie::default();
        for (i, rule) in rules.iter().enumerate() {
            let i = i as u32;
            let cdpn = rule.conditions.cdpn.as_ref().unwrap_or(&any);
            let cgpn = rule.conditions.cgpn.as_ref().unwrap_or(&any);
            root.leaf(cdpn, i).leaf(cgpn, i).push(i);
        }
        Self { root }
    }

    /// Place of the first rule that fits.
    pub fn first(&self, rules: &[Rule], cdpn: &[u8], cgpn: &[u8], facts: &Facts) -> Option<usize> {
        let mut best = u32::MAX;
        self.root.walk(cdpn, &mut best, &mut |callers, best| {
            callers.walk(cgpn, best, &mut |candidates, best| {
                let candidates = candidates.iter().take_while(|c| **c < *best);
                let fits =
                    |c: &&u32| rules.get(**c as usize).is_some_and(|r| r.conditions.others_hold(facts));
                if let Some(found) = candidates.into_iter().find(fits) {
                    *best = *found;
                }
            });
        });
        (best != u32::MAX).then_some(best as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::{
        context::{Conditions, RuleResult},
        mask::symbols,
        number::{Called, Calling, Ni},
    };

    fn mask() -> impl Strategy<Value = Option<Mask>> {
        let set = prop_oneof![Just("?".to_owned()), Just("(0-1)".into()), Just("(1,2)".into()), "[0-2]"];
        let text = (prop::collection::vec(set, 0..4), any::<bool>())
            .prop_map(|(sets, tail)| sets.concat() + if tail || sets.is_empty() { "%" } else { "" });
        prop::option::of(text.prop_map(|t| t.parse().expect("a mask")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn the_index_finds_what_reading_the_rules_in_order_finds(
            masks in prop::collection::vec((mask(), mask(), prop::option::of(any::<bool>())), 0..20),
            a in "[0-2]{0,4}", b in "[0-2]{0,4}",
        ) {
            let rules: Vec<Rule> = masks.into_iter().enumerate().map(|(i, (cdpn, cgpn, ni))| Rule {
                name: i.to_string(),
                conditions: Conditions {
                    cdpn, cgpn,
                    cdpn_ni: ni.map(|n| if n { Ni::Local } else { Ni::Zone }),
                    ..Conditions::default()
                },
                actions: vec![],
                result: RuleResult::Local,
            }).collect();
            let calling = Calling { digits: a.clone(), ..Calling::default() };
            let called = Called { digits: b.clone(), ni: Ni::Zone, ..Called::default() };
            let facts = Facts { a: &calling, b: &called, iface: "", at: chrono::DateTime::UNIX_EPOCH };
            let plain = rules.iter().position(|r| r.conditions.first_failed(&facts).is_none());
            let (a, b) = (symbols(&a).expect("a number"), symbols(&b).expect("a number"));
            prop_assert_eq!(Index::new(&rules).first(&rules, &b, &a, &facts), plain);
        }
    }
}
