//! What may be said, as words from state to state: what phrases begin with alike stands there once, and so does what they end
//! with. PocketSphinx makes such a graph of a JSGF text itself, but gives every alternative words of its own, which it then
//! all follows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use crate::grammar::{Grammar, GrammarError, PHRASES, Way, words};

const START: usize = 0;
const END: usize = 1;
/// Arcs of a state above which it has a second one within.
const WIDE: usize = 16;

/// Alternatives of one step, each of one word or more.
type Step = BTreeSet<Vec<String>>;

/// States, and what is said between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Graph {
    states: usize,
    arcs: BTreeSet<(usize, usize, String)>,
    /// States other than the last at which all may have been said.
    ends: BTreeSet<usize>,
}

/// A place between two steps, on the way to a graph.
#[derive(Default)]
struct Node {
    ends: bool,
    next: Vec<(usize, usize)>,
}

/// Steps that are the same are one.
#[derive(Default)]
struct Steps {
    all: Vec<Step>,
    known: HashMap<Step, usize>,
}

impl Steps {
    /// The words of some phrases; none where nothing is left of them.
    fn of<'a>(&mut self, phrases: impl IntoIterator<Item = &'a String>) -> Option<usize> {
        let step: Step = phrases.into_iter().map(|p| words(p)).filter(|w| !w.is_empty()).collect();
        if step.is_empty() {
            return None;
        }
        let number = self.known.entry(step).or_insert_with_key(|step| {
            self.all.push(step.clone());
            self.all.len() - 1
        });
        Some(*number)
    }
}

impl Graph {
    /// The graph of any closed grammar but an operator's own JSGF.
    pub fn of(grammar: &Grammar) -> Result<Self, GrammarError> {
        let mut steps = Steps::default();
        let nodes = match grammar {
            Grammar::Open | Grammar::Jsgf(_) => return Err(GrammarError::Open),
            Grammar::Phrases(all) => {
                many(all.len())?;
                let way = |p: &String| words(p).into_iter().map(|w| vec![w]).collect();
                tree(all.iter().map(way), &mut steps)
            }
            Grammar::Ways(all) => tree(all.iter().cloned(), &mut steps),
            Grammar::Loop { of, words } => {
                many(of.len())?;
                let step = steps.of(of).ok_or(GrammarError::Empty)?;
                let node = |n: usize| Node {
                    ends: n > 0,
                    next: if n < *words { vec![(step, n + 1)] } else { vec![] },
                };
                (0..=*words).map(node).collect()
            }
            Grammar::Names { first, last } => {
                many(first.len() + last.len())?;
                let (first, last) = (steps.of(first), steps.of(last));
                let node = |ends, next: [Option<(usize, usize)>; 2]| Node {
                    ends,
                    next: next.into_iter().flatten().collect(),
                };
                let to = |step: Option<usize>, node| step.map(|step| (step, node));
                vec![
                    node(false, [to(first, 1), to(last, 2)]),
                    node(true, [to(last, 3), None]),
                    node(true, [to(first, 3), None]),
                    node(true, [None, None]),
                ]
            }
        };
        if nodes.first().is_none_or(|root| root.next.is_empty()) {
            return Err(GrammarError::Empty);
        }
        Ok(drawn(&nodes, &steps.all))
    }

    /// As Sphinx's programs read it; `readings` tells a word's readings by the names they have there.
    pub fn fsg(&self, readings: impl Fn(&str) -> Vec<String>) -> String {
        let mut out: BTreeMap<usize, usize> = BTreeMap::new();
        self.arcs.iter().for_each(|(from, ..)| *out.entry(*from).or_default() += 1);
        // Whenever a word ends the library looks at each arc of the state it leads to, for those that say nothing. From a wide
        // state one such arc leads to where the others are.
        let wide = out.iter().filter(|(state, arcs)| **state != START && **arcs > WIDE);
        let inner: BTreeMap<usize, usize> =
            wide.enumerate().map(|(n, (state, _))| (*state, self.states + n)).collect();
        let mut text = format!(
            "FSG_BEGIN said\nNUM_STATES {}\nSTART_STATE {START}\nFINAL_STATE {END}\n",
            self.states + inner.len()
        );
        // Writing to memory does not fail.
        for (from, to, word) in &self.arcs {
            let from = inner.get(from).unwrap_or(from);
            for reading in readings(word) {
                let _ = writeln!(text, "TRANSITION {from} {to} 1.0 {reading}");
            }
        }
        for (from, to) in inner.iter().chain(self.ends.iter().map(|from| (from, &END))) {
            let _ = writeln!(text, "TRANSITION {from} {to} 1.0");
        }
        text.push_str("FSG_END\n");
        text
    }
}

fn many(count: usize) -> Result<(), GrammarError> {
    if count > PHRASES { Err(GrammarError::Many) } else { Ok(()) }
}

/// Ways that begin alike share their beginnings. What comes later has a higher number.
fn tree(ways: impl Iterator<Item = Way>, steps: &mut Steps) -> Vec<Node> {
    let mut nodes = vec![Node::default()];
    let mut known: HashMap<(usize, usize), usize> = HashMap::new();
    for way in ways {
        let mut at = 0;
        // A way of which nobody can say a step is none.
        let Some(way) = way.iter().map(|phrases| steps.of(phrases)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        for step in way {
            at = *known.entry((at, step)).or_insert_with(|| {
                nodes.push(Node::default());
                let new = nodes.len() - 1;
                nodes[at].next.push((step, new));
                new
            });
        }
        nodes[at].ends = at > 0;
    }
    nodes
}

/// Nodes from which the same may follow become one state.
fn drawn(nodes: &[Node], steps: &[Step]) -> Graph {
    // What each node is the same as: itself, or one before.
    let mut same = vec![0; nodes.len()];
    let mut known: HashMap<(bool, Vec<(usize, usize)>), usize> = HashMap::new();
    for (n, node) in nodes.iter().enumerate().rev() {
        let mut next: Vec<(usize, usize)> = node.next.iter().map(|(step, to)| (*step, same[*to])).collect();
        next.sort_unstable();
        same[n] = *known.entry((node.ends, next)).or_insert(n);
    }
    let mut graph = Graph { states: 2, ..Graph::default() };
    let mut states: HashMap<usize, usize> = HashMap::from([(same[0], START)]);
    let mut waiting = vec![same[0]];
    while let Some(n) = waiting.pop() {
        let (node, from) = (&nodes[n], states[&n]);
        if node.ends {
            graph.ends.insert(from);
        }
        for (step, to) in &node.next {
            let to = same[*to];
            let over = nodes[to].next.is_empty();
            let to = *states.entry(to).or_insert_with(|| {
                if over {
                    return END;
                }
                waiting.push(to);
                graph.states += 1;
                graph.states - 1
            });
            for words in &steps[*step] {
                let mut at = from;
                for (i, word) in words.iter().enumerate() {
                    let next = if i + 1 == words.len() { to } else { graph.states };
                    graph.states += usize::from(i + 1 < words.len());
                    graph.arcs.insert((at, next, word.clone()));
                    at = next;
                }
            }
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that may be said, up to so many words.
    fn said(graph: &Graph, words: usize) -> BTreeSet<String> {
        let (mut out, mut on) = (BTreeSet::new(), vec![(START, String::new(), 0)]);
        while let Some((at, text, count)) = on.pop() {
            if at == END || graph.ends.contains(&at) {
                out.insert(text.clone());
            }
            if count < words {
                for (_, to, word) in graph.arcs.iter().filter(|(from, ..)| *from == at) {
                    let space = if text.is_empty() { "" } else { " " };
                    on.push((*to, format!("{text}{space}{word}"), count + 1));
                }
            }
        }
        out
    }

    #[test]
    fn what_begins_or_ends_alike_stands_there_once() {
        let graph = Graph::of(&Grammar::phrases(["а б в", "а б", "а г в", "д г в"])).expect("a graph");
        let all: Vec<String> = said(&graph, 9).into_iter().collect();
        assert_eq!(all, ["а б", "а б в", "а г в", "д г в"]);
        // START -а- {б, г}, START -д- {г}, б -в- or nothing, г -в-.
        assert_eq!((graph.states, graph.arcs.len(), graph.ends.len()), (6, 7, 1), "{graph:?}");
        let fsg = graph.fsg(|word| vec![word.to_owned(), format!("{word}(2)")]);
        assert!(fsg.contains(" 1.0 а\nTRANSITION") && fsg.contains(" 1.0 а(2)\n"));
        assert!(fsg.starts_with("FSG_BEGIN said\nNUM_STATES 6\nSTART_STATE 0\nFINAL_STATE 1\nTRANSITION 0 "));
        assert!(fsg.ends_with("1.0\nFSG_END\n"), "{fsg}");
    }

    #[test]
    fn steps_have_alternatives_of_one_word_or_more() {
        let way = |steps: &[&[&str]]| {
            steps.iter().map(|s| s.iter().map(|p| (*p).to_owned()).collect()).collect::<Way>()
        };
        let ways = Grammar::Ways(vec![
            way(&[&["александр", "сан саныч"], &["лосев"]]),
            way(&[&["лосев"], &["александр", "сан саныч"]]),
            way(&[&["лосев"], &["!"]]),
            way(&[&["лосев"]]),
        ]);
        let all: Vec<String> = said(&Graph::of(&ways).expect("a graph"), 9).into_iter().collect();
        let expected = ["александр лосев", "лосев", "лосев александр", "лосев сан саныч", "сан саныч лосев"];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_book_may_be_longer_than_a_list() {
        let letter = |n: usize| char::from_u32(u32::from('а') + (n % 32) as u32).expect("a letter");
        let word = |n: usize| (0..4).map(|i| letter(n >> (5 * i))).collect::<String>();
        let ways: Vec<Way> = (0..=PHRASES).map(|n| vec![vec![word(n)], vec![word(n / 2)]]).collect();
        let graph = Graph::of(&Grammar::Ways(ways)).expect("a graph");
        assert_eq!(graph.states, 2 + (PHRASES + 2) / 2, "the same second word is one state");
        let list = Grammar::Phrases((0..=PHRASES).map(word).collect());
        assert_eq!(Graph::of(&list), Err(GrammarError::Many));
    }

    #[test]
    fn names_come_in_either_order_and_words_as_often_as_they_may() {
        let names = Grammar::Names { first: vec!["а".into()], last: vec!["б".into(), "в".into()] };
        let all: Vec<String> = said(&Graph::of(&names).expect("a graph"), 9).into_iter().collect();
        assert_eq!(all, ["а", "а б", "а в", "б", "б а", "в", "в а"]);
        let graph =
            Graph::of(&Grammar::Loop { of: vec!["а".into(), "б".into()], words: 3 }).expect("a graph");
        assert_eq!(said(&graph, 9).len(), 2 + 4 + 8);
        for nothing in
            [Grammar::Ways(vec![]), Grammar::phrases(["!"]), Grammar::Loop { of: vec![], words: 2 }]
        {
            assert_eq!(Graph::of(&nothing), Err(GrammarError::Empty));
        }
    }

    proptest! {
        #[test]
        fn exactly_the_phrases_are_in_it(all in proptest::collection::vec("[абв]( [абв]){0,4}", 1..20)) {
            let graph = Graph::of(&Grammar::phrases(&all)).expect("a graph");
            prop_assert_eq!(said(&graph, 9), all.into_iter().collect::<BTreeSet<_>>());
        }
    }
}
