//! Templates that make a number from the one that matched: `38327{1,2,3,4,5}`, `7{`, `{2-11}`.
//!
//! Text stands for itself; `{1,2,3}` and `{2-11}` are digits of the original number by position, counted from 1;
//! `{%}` is what the mask's `%` stood for. A brace that is not closed at the end, `7{`, is the manual's way to write
//! `7{%}`. Positions beyond the number's end give nothing.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::mask::{MAX_DIGITS, Mask, symbol_index};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    parts: Vec<Part>,
    text: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// From position to position, counted from 1.
    Digits(usize, usize),
    Tail,
}

/// Why a text is no template; positions count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("template {0:?}, position {1}: {2:?} is none of 0-9, *, #, A-D and {{…}}")]
    Symbol(String, usize, char),
    #[error(
        "template {0:?}: {1:?} is no list of positions from 1 to {MAX_DIGITS}; write {{1,2,3}}, {{2-11}} or {{%}}"
    )]
    Positions(String, String),
    #[error("template {0:?} gives more than {MAX_DIGITS} digits")]
    Long(String),
}

impl Template {
    /// Whether it speaks of the mask's `%`.
    pub fn needs_tail(&self) -> bool {
        self.parts.contains(&Part::Tail)
    }

    /// The number made from `number`, which `mask` has matched. All symbols are single bytes.
    pub fn apply(&self, number: &str, mask: Option<&Mask>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(t) => out.push_str(t),
                Part::Digits(from, to) => out.extend(number.chars().skip(from - 1).take(to + 1 - from)),
                Part::Tail => out.extend(number.chars().skip(mask.map_or(0, Mask::head))),
            }
        }
        out
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut length = 0;
        while !rest.is_empty() {
            let plain = rest.find('{').unwrap_or(rest.len());
            if plain > 0 {
                if let Some((at, c)) = rest[..plain].char_indices().find(|(_, c)| symbol_index(*c).is_none())
                {
                    let at = text.len() - rest.len() + at + 1;
                    return Err(TemplateError::Symbol(text.into(), at, c));
                }
                parts.push(Part::Text(rest[..plain].into()));
                length += plain;
            }
            rest = &rest[plain..];
            let Some(inner) = rest.strip_prefix('{') else { break };
            match inner.find('}') {
                None if inner.is_empty() => {
                    parts.push(Part::Tail);
                    break;
                }
                None => return Err(TemplateError::Positions(text.into(), inner.into())),
                Some(close) => {
                    let list = &inner[..close];
                    if list == "%" {
                        parts.push(Part::Tail);
                    } else {
                        for item in list.split(',').map(str::trim) {
                            let bad = || TemplateError::Positions(text.into(), list.into());
                            let (from, to) = item.split_once('-').unwrap_or((item, item));
                            let position = |s: &str| {
                                let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
                                digits
                                    .then(|| s.parse::<usize>().ok())
                                    .flatten()
                                    .filter(|n| (1..=MAX_DIGITS).contains(n))
                            };
                            let (from, to) = (position(from).ok_or_else(bad)?, position(to).ok_or_else(bad)?);
                            if from > to {
                                return Err(bad());
                            }
                            length += to + 1 - from;
                            parts.push(Part::Digits(from, to));
                        }
                    }
                    rest = &inner[close + 1..];
                }
            }
        }
        if length > MAX_DIGITS {
            return Err(TemplateError::Long(text.into()));
        }
        Ok(Self { parts, text: text.into() })
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;
    fn try_from(s: String) -> Result<Self, TemplateError> {
        s.parse()
    }
}

impl From<Template> for String {
    fn from(t: Template) -> Self {
        t.text
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(template: &str, number: &str, mask: &str) -> String {
        let template: Template = template.parse().expect("a template");
        template.apply(number, Some(&mask.parse().expect("a mask")))
    }

    #[test]
    fn the_manuals_templates() {
        assert_eq!(apply("8{", "89001758964", "8%"), "89001758964");
        assert_eq!(apply("7{", "89001758964", "8%"), "79001758964");
        assert_eq!(apply("{", "89001758964", "8%"), "9001758964");
        assert_eq!(apply("38327{1,2,3,4,5}", "28331", "28???"), "3832728331");
        assert_eq!(apply("{1,2,3,4,5,6,7,8,9,10,11}", "73832123456", "73832??????"), "73832123456");
        assert_eq!(apply("{2-11}", "89001758964", "8%"), "9001758964");
        assert_eq!(apply("{1-3}", "12", "??"), "12", "beyond the end is nothing");
    }

    #[test]
    fn bad_templates_are_named() {
        let error = |t: &str| t.parse::<Template>().expect_err("no template").to_string();
        assert!(error("7x{").contains("position 2"));
        assert!(error("7{0}").contains("positions from 1"));
        assert!(error("7{a-}").contains("positions from 1"));
        assert!(error("7{3-1}").contains("positions from 1"));
        assert!(error("7{1,2").contains("positions from 1"));
        assert!(error("{1-64}{1-64}").contains("more than"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(text in any::<String>(), number in "[0-9]{0,20}") {
            if let Ok(t) = text.parse::<Template>() {
                prop_assert!(t.apply(&number, None).len() <= 2 * MAX_DIGITS + text.len());
                prop_assert_eq!(String::from(t), text);
            }
        }
    }
}
