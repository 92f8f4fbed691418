//! Digitmaps tell, digit by digit, when a dialled number is complete: alternatives separated by `|`, `X` for a digit,
//! `[0-9*]` for a set, `.` for any number of repetitions of what stands before it, parentheses around, blanks between.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::mask::{MAX_DIGITS, Set};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digitmap {
    alternatives: Vec<Vec<Item>>,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Item {
    set: Set,
    repeats: bool,
}

/// How far a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// No alternative begins so.
    No,
    /// More digits are needed.
    Partial,
    /// Complete, and more digits may follow.
    Complete,
    /// Complete, and no digit can follow.
    Final,
}

/// Why a text is no digitmap; positions count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigitmapError {
    #[error("digitmap {0:?}, position {1}: {2:?} does not belong there")]
    Symbol(String, usize, char),
    #[error("digitmap {0:?}: a bracket is not closed")]
    Open(String),
    #[error("digitmap {0:?} has an empty alternative")]
    Empty(String),
    #[error("digitmap {0:?} is too long")]
    Long(String),
}

impl Digitmap {
    pub fn progress(&self, number: &[u8]) -> Progress {
        let mut complete = false;
        let mut open = false;
        for alternative in &self.alternatives {
            let (c, o) = run(alternative, number);
            complete |= c;
            open |= o;
        }
        match (complete, open) {
            (true, true) => Progress::Complete,
            (true, false) => Progress::Final,
            (false, true) => Progress::Partial,
            (false, false) => Progress::No,
        }
    }
}

/// Whether the items can stop at the number's end, and whether a further digit could follow.
fn run(items: &[Item], number: &[u8]) -> (bool, bool) {
    // Bit i: "the next digit may be taken by item i"; bit len: the end.
    let close = |mut states: Vec<bool>| {
        for i in 0..items.len() {
            if states[i] && items[i].repeats {
                states[i + 1] = true;
            }
        }
        states
    };
    let mut states = vec![false; items.len() + 1];
    states[0] = true;
    states = close(states);
    for symbol in number {
        let mut next = vec![false; items.len() + 1];
        for (i, item) in items.iter().enumerate() {
            if states[i] && item.set.has(*symbol) {
                next[if item.repeats { i } else { i + 1 }] = true;
            }
        }
        states = close(next);
    }
    (states[items.len()], states[..items.len()].contains(&true))
}

impl FromStr for Digitmap {
    type Err = DigitmapError;

    fn from_str(text: &str) -> Result<Self, DigitmapError> {
        let own = || text.to_owned();
        if text.len() > 4096 {
            return Err(DigitmapError::Long(text.chars().take(40).collect()));
        }
        let mut alternatives = Vec::new();
        let mut items: Vec<Item> = Vec::new();
        let mut depth = 0;
        let mut chars = text.chars().enumerate();
        let mut finish = |items: &mut Vec<Item>| {
            if items.is_empty() {
                return Err(DigitmapError::Empty(own()));
            }
            alternatives.push(std::mem::take(items));
            Ok(())
        };
        while let Some((at, c)) = chars.next() {
            let bad = || DigitmapError::Symbol(own(), at + 1, c);
            match c {
                c if c.is_whitespace() => {}
                '(' if items.is_empty() => depth += 1,
                ')' if depth > 0 => depth -= 1,
                '|' => finish(&mut items)?,
                '.' => match items.last_mut() {
                    Some(item) if !item.repeats => {
                        // `x.` is x, then more of it: as in the original, at least what stands there once.
                        let again = Item { repeats: true, ..*item };
                        items.push(again);
                    }
                    _ => return Err(bad()),
                },
                'x' | 'X' => items.push(Item { set: Set::DIGITS, repeats: false }),
                '[' => {
                    let mut inner = Vec::new();
                    loop {
                        match chars.next() {
                            Some((_, ']')) => break,
                            Some((_, c)) if c.is_whitespace() => {}
                            Some((_, c)) => inner.push(c),
                            None => return Err(DigitmapError::Open(own())),
                        }
                    }
                    items.push(Item { set: bracket(&inner).ok_or_else(bad)?, repeats: false });
                }
                c => items.push(Item { set: Set::of(c).ok_or_else(bad)?, repeats: false }),
            }
            if items.len() > MAX_DIGITS {
                return Err(DigitmapError::Long(own()));
            }
        }
        if depth != 0 {
            return Err(DigitmapError::Open(own()));
        }
        finish(&mut items)?;
        Ok(Self { alternatives, text: own() })
    }
}

/// `0-9*`: ranges and symbols without separators.
fn bracket(inner: &[char]) -> Option<Set> {
    let mut set = Set(0);
    let mut i = 0;
    while i < inner.len() {
        if inner.get(i + 1) == Some(&'-') {
            set = set.union(Set::range(inner[i], *inner.get(i + 2)?)?);
            i += 3;
        } else {
            set = set.union(Set::of(inner[i])?);
            i += 1;
        }
    }
    (set.0 != 0).then_some(set)
}

impl TryFrom<String> for Digitmap {
    type Error = DigitmapError;
    fn try_from(s: String) -> Result<Self, DigitmapError> {
        s.parse()
    }
}

impl From<Digitmap> for String {
    fn from(d: Digitmap) -> Self {
        d.text
    }
}

impl fmt::Debug for Digitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Digitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::mask::symbols;
    use proptest::prelude::*;

    const MANUAL: &str = "(*[0-9*][0-9*].#|#[0-9*][0-9*].#|*#[0-9*][0-9*].#|1xx.|10xx.)";

    fn progress(map: &str, number: &str) -> Progress {
        let map: Digitmap = map.parse().expect("a digitmap");
        map.progress(&symbols(number).expect("a number"))
    }

    #[test]
    fn the_manuals_digitmap_collects_codes_and_numbers() {
        assert_eq!(progress(MANUAL, "*2"), Progress::Partial);
        assert_eq!(progress(MANUAL, "*21*5#"), Progress::Final);
        assert_eq!(progress(MANUAL, "#21#"), Progress::Final);
        assert_eq!(progress(MANUAL, "112"), Progress::Complete);
        assert_eq!(progress(MANUAL, "1"), Progress::Partial);
        assert_eq!(progress(MANUAL, "2"), Progress::No);
        assert_eq!(progress("X.", "12345"), Progress::Complete);
        assert_eq!(progress("[2-4]xxxxx", "300001"), Progress::Final);
    }

    #[test]
    fn blanks_do_not_matter_and_errors_have_places() {
        let spaced: Digitmap = MANUAL.replace('#', "# ").parse().expect("a digitmap");
        assert_eq!(spaced.progress(&symbols("112").expect("a number")), Progress::Complete);
        let error = |m: &str| m.parse::<Digitmap>().expect_err("none").to_string();
        assert!(error("1|").contains("empty"));
        assert!(error("[0-9").contains("not closed"));
        assert!(error("1y").contains("position 2"));
        assert!(error(".1").contains("position 1"));
        assert!(error("(1").contains("not closed"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_digitmap_or_an_error(text in any::<String>(), number in "[0-9*#]{0,12}") {
            if let Ok(map) = text.parse::<Digitmap>() {
                let number = symbols(&number).expect("a number");
                let again = map.to_string().parse::<Digitmap>().expect("as it is shown");
                prop_assert_eq!(again.progress(&number), map.progress(&number));
            }
        }

        #[test]
        fn more_digits_never_revive_a_dead_number(map in "[0-9x|\\[\\].*#-]{1,12}", number in "[0-9*#]{1,8}") {
            if let Ok(map) = map.parse::<Digitmap>() {
                let number = symbols(&number).expect("a number");
                let dead = |p| matches!(p, Progress::No | Progress::Final);
                if dead(map.progress(&number[..number.len() - 1])) {
                    prop_assert_eq!(map.progress(&number), Progress::No);
                }
            }
        }
    }
}
