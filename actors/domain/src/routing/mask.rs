//! Masks of numbers: digits, `?` for one digit, `(0-1)` or `(1,3,5-7)` for one digit of a set, `%` at the end for any
//! tail, also none (manual, "Создание контекстов маршрутизации").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest number and mask, digits; E.164 allows 15, prefixes and codes make it longer.
pub const MAX_DIGITS: usize = 64;

/// A set of the sixteen symbols a number is made of: 0-9, `*`, `#`, A-D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Set(pub u16);

impl Set {
    /// What `?` and `X` stand for.
    pub const DIGITS: Self = Self(0x03ff);
    pub const ALL: Self = Self(0xffff);

    pub fn of(symbol: char) -> Option<Self> {
        symbol_index(symbol).map(|i| Self(1 << i))
    }

    pub fn has(self, symbol: u8) -> bool {
        self.0 >> symbol & 1 == 1
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `from-to` within the digits, or within the letters.
    pub fn range(from: char, to: char) -> Option<Self> {
        let (low, high) = (symbol_index(from)?, symbol_index(to)?);
        let both_digits = low < 10 && high < 10;
        let both_letters = (12..16).contains(&low) && (12..16).contains(&high);
        if low > high || !(both_digits || both_letters) {
            return None;
        }
        (low..=high).map(|i| Self(1 << i)).reduce(Self::union)
    }
}

/// Place of a symbol in a set.
pub fn symbol_index(symbol: char) -> Option<u8> {
    match symbol {
        '0'..='9' => Some(symbol as u8 - b'0'),
        '*' => Some(10),
        '#' => Some(11),
        'A'..='D' => Some(12 + symbol as u8 - b'A'),
        'a'..='d' => Some(12 + symbol as u8 - b'a'),
        _ => None,
    }
}

const SYMBOLS: &[u8; 16] = b"0123456789*#ABCD";

/// A number's symbols as indices; `None` when it holds anything else or is too long.
pub fn symbols(number: &str) -> Option<Vec<u8>> {
    if number.len() > MAX_DIGITS {
        return None;
    }
    number.chars().map(symbol_index).collect()
}

/// A mask. Written back it is the text it was read from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mask {
    pub(crate) sets: Vec<Set>,
    /// Ends in `%`.
    pub(crate) tail: bool,
    text: String,
}

/// Why a text is no mask; positions count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("mask {0:?} is empty; % matches any number")]
    Empty(String),
    #[error("mask {0:?}, position {1}: {2:?} is none of 0-9, *, #, A-D, ?, (…) and %")]
    Symbol(String, usize, char),
    #[error("mask {0:?}, position {1}: % must stand at the end")]
    Tail(String, usize),
    #[error("mask {0:?}, position {1}: the bracket is not closed")]
    Open(String, usize),
    #[error("mask {0:?}, position {1}: {2:?} is no set; write (0-1) or (1,3,5-7)")]
    Set(String, usize, String),
    #[error("mask {0:?} is longer than {MAX_DIGITS} digits")]
    Long(String),
}

impl Mask {
    /// `%`, which matches every number.
    pub fn any() -> Self {
        Self { sets: Vec::new(), tail: true, text: "%".into() }
    }

    pub fn is_any(&self) -> bool {
        self.tail && self.sets.is_empty()
    }

    /// Whether it ends in `%`.
    pub fn has_tail(&self) -> bool {
        self.tail
    }

    /// How many digits stand before the `%`.
    pub fn head(&self) -> usize {
        self.sets.len()
    }

    pub fn matches(&self, number: &[u8]) -> bool {
        let long_enough =
            if self.tail { number.len() >= self.sets.len() } else { number.len() == self.sets.len() };
        long_enough && self.sets.iter().zip(number).all(|(set, n)| set.has(*n))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Self, MaskError> {
        let own = || text.to_owned();
        let chars: Vec<char> = text.chars().collect();
        let mut sets = Vec::new();
        let mut tail = false;
        let mut i = 0;
        while i < chars.len() {
            match chars[i] {
                '%' if i + 1 == chars.len() => tail = true,
                '%' => return Err(MaskError::Tail(own(), i + 1)),
                '?' => sets.push(Set::DIGITS),
                '(' => {
                    let close = chars[i..]
                        .iter()
                        .position(|c| *c == ')')
                        .ok_or_else(|| MaskError::Open(own(), i + 1))?;
                    let inner: String = chars[i + 1..i + close].iter().collect();
                    sets.push(set(&inner).ok_or_else(|| MaskError::Set(own(), i + 1, inner))?);
                    i += close;
                }
                c => sets.push(Set::of(c).ok_or_else(|| MaskError::Symbol(own(), i + 1, c))?),
            }
            i += 1;
        }
        if sets.is_empty() && !tail {
            return Err(MaskError::Empty(own()));
        }
        if sets.len() > MAX_DIGITS {
            return Err(MaskError::Long(own()));
        }
        Ok(Self { sets, tail, text: own() })
    }
}

/// `0-1`, `1,3,5-7`.
fn set(inner: &str) -> Option<Set> {
    let item = |item: &str| {
        let chars: Vec<char> = item.trim().chars().collect();
        match chars.as_slice() {
            [one] => Set::of(*one),
            [from, '-', to] => Set::range(*from, *to),
            _ => None,
        }
    };
    inner.split(',').map(item).reduce(|a, b| Some(a?.union(b?)))?
}

impl TryFrom<String> for Mask {
    type Error = MaskError;
    fn try_from(s: String) -> Result<Self, MaskError> {
        s.parse()
    }
}

impl From<Mask> for String {
    fn from(m: Mask) -> Self {
        m.text
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// Symbols back to text.
pub fn text_of(symbols: &[u8]) -> String {
    symbols.iter().map(|s| SYMBOLS[usize::from(*s & 15)] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(mask: &str, number: &str) -> bool {
        let mask: Mask = mask.parse().expect("a mask");
        mask.matches(&symbols(number).expect("a number"))
    }

    #[test]
    fn the_manuals_masks() {
        assert!(matches("8%", "89001758964") && matches("8%", "8") && !matches("8%", "7"));
        assert!(matches("45???", "45123") && !matches("45???", "4512") && !matches("45???", "451234"));
        assert!(matches("738327(0-1)????", "73832710000") && !matches("738327(0-1)????", "73832720000"));
        assert!(matches("(1,3,5-7)%", "6") && !matches("(1,3,5-7)%", "4"));
        assert!(matches("*21*%", "*21*5#") && matches("%", ""));
        assert!(!matches("?", "*"), "? is a digit");
    }

    #[test]
    fn bad_masks_are_named_with_their_place() {
        let error = |m: &str| m.parse::<Mask>().expect_err("no mask").to_string();
        assert!(error("").contains("empty"));
        assert!(error("7%3").contains("position 2"));
        assert!(error("73832x").contains("position 6"));
        assert!(error("7(0-1").contains("not closed"));
        assert!(error("7(1-0)").contains("no set"));
        assert!(error(&"1".repeat(65)).contains("longer"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_mask_or_an_error(text in any::<String>()) {
            if let Ok(mask) = text.parse::<Mask>() {
                prop_assert_eq!(String::from(mask), text);
            }
        }

        #[test]
        fn a_number_is_matched_by_itself(number in "[0-9*#A-D]{1,20}") {
            prop_assert!(matches(&number, &number));
            let s = symbols(&number).expect("symbols");
            prop_assert_eq!(text_of(&s), number);
        }
    }
}
