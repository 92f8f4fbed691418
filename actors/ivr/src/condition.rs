//! Conditions of scripts: `(%ASR_NUMBER%<>"")and(%EXTENSION%="")`.
//!
//! `or`, `and`, `not`, parentheses; `=`, `<>`, `<`, `>`, `<=`, `>=` between texts in quotation marks, variables, numbers and words.
//! Two numbers are compared as numbers, else as texts.

use std::cmp::Ordering;

use crate::vars::Vars;

/// Parentheses and negations inside each other at most.
const DEEP: usize = 64;
const LONGEST: usize = 4_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Or(Box<Condition>, Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare(String, Relation, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    Unequal,
    Less,
    More,
    AtMost,
    AtLeast,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error("at letter {0}: {1}")]
    At(usize, &'static str),
    #[error("longer than {LONGEST} letters")]
    Long,
}

struct Parser<'t> {
    all: &'t str,
    at: usize,
    deep: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.all[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, ConditionError> {
        Err(ConditionError::At(self.all[..self.at].chars().count() + 1, why))
    }

    /// Takes a sign, or a word that ends there.
    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let Some(begin) = self.rest().get(..sign.len()) else { return false };
        let word = sign.chars().all(char::is_alphabetic);
        let next = self.rest()[sign.len()..].chars().next();
        if !begin.eq_ignore_ascii_case(sign) || word && next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            return false;
        }
        self.at += sign.len();
        true
    }

    fn or(&mut self) -> Result<Condition, ConditionError> {
        let mut left = self.and()?;
        while self.take("or") {
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, ConditionError> {
        let mut left = self.one()?;
        while self.take("and") {
            left = Condition::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Condition, ConditionError> {
        self.deep += 1;
        if self.deep > DEEP {
            return self.wrong("too deep");
        }
        let found = if self.take("not") {
            Condition::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let inner = self.or()?;
            if !self.take(")") {
                return self.wrong("a ) is missing");
            }
            inner
        } else {
            let left = self.operand()?;
            let all = [
                ("<>", Relation::Unequal),
                ("<=", Relation::AtMost),
                (">=", Relation::AtLeast),
                ("=", Relation::Equal),
                ("<", Relation::Less),
                (">", Relation::More),
            ];
            let Some((_, relation)) = all.into_iter().find(|(sign, _)| self.take(sign)) else {
                return self.wrong("=, <>, <, >, <= or >= is wanted");
            };
            Condition::Compare(left, relation, self.operand()?)
        };
        self.deep -= 1;
        Ok(found)
    }

    fn operand(&mut self) -> Result<String, ConditionError> {
        self.space();
        if let Some(body) = self.rest().strip_prefix('"') {
            let Some(end) = body.find('"') else { return self.wrong("a text that does not end") };
            let text = body[..end].to_owned();
            self.at += end + 2;
            return Ok(text);
        }
        let word = self.rest().find(|c: char| c.is_whitespace() || "()<>=\"".contains(c));
        let word = self.rest()[..word.unwrap_or(self.rest().len())].to_owned();
        if word.is_empty() {
            return self.wrong("a text in quotation marks, a %VARIABLE% or a number is wanted");
        }
        self.at += word.len();
        Ok(word)
    }
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        if text.len() > LONGEST {
            return Err(ConditionError::Long);
        }
        let mut parser = Parser { all: text, at: 0, deep: 0 };
        let found = parser.or()?;
        parser.space();
        if parser.rest().is_empty() { Ok(found) } else { parser.wrong("nothing more was expected") }
    }

    pub fn holds(&self, vars: &Vars) -> bool {
        match self {
            Self::Or(a, b) => a.holds(vars) || b.holds(vars),
            Self::And(a, b) => a.holds(vars) && b.holds(vars),
            Self::Not(a) => !a.holds(vars),
            Self::Compare(a, relation, b) => {
                let (a, b) = (vars.fill(a), vars.fill(b));
                let number = |t: &str| t.trim().parse::<f64>().ok().filter(|n| n.is_finite());
                let order = match number(&a).zip(number(&b)) {
                    Some((a, b)) => a.total_cmp(&b),
                    None => a.cmp(&b),
                };
                match relation {
                    Relation::Equal => order == Ordering::Equal,
                    Relation::Unequal => order != Ordering::Equal,
                    Relation::Less => order == Ordering::Less,
                    Relation::More => order == Ordering::Greater,
                    Relation::AtMost => order != Ordering::Greater,
                    Relation::AtLeast => order != Ordering::Less,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, vars: &[(&str, &str)]) -> bool {
        let mut all = Vars::default();
        vars.iter().for_each(|(n, v)| all.set(n, v));
        Condition::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).holds(&all)
    }

    #[test]
    fn the_manuals_conditions_hold_when_they_should() {
        let found = "(%ASR_RECOGNIZED%<>\"\")and(%ASR_NUMBER%<>\"\")";
        assert!(holds(found, &[("ASR_RECOGNIZED", "женя"), ("ASR_NUMBER", "4819")]));
        assert!(!holds(found, &[("ASR_RECOGNIZED", "женя"), ("ASR_NUMBER", "")]));
        assert!(holds("not (%A% >= 10) or %B% = \"x y\"", &[("A", "9"), ("B", "")]));
        assert!(holds("%A%=\"%A%\"", &[]), "an unknown variable is its own name");
        assert!(holds("%A%=\"say \"", &[("A", "say ")]));
        assert!(!holds("%A%=\"x\"", &[("A", "\"x\" or \"\"=\"\"")]), "a value is no condition");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at) in [("", 1), ("%A%", 4), ("(%A%=1", 7), ("%A%=1 x", 7), ("\"a", 1), ("%A%==1", 5)] {
            match Condition::parse(text) {
                Err(ConditionError::At(found, _)) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(Condition::parse(&"not ".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_refused(text in "[()<>=\"%A a-z]{0,40}") {
            if let Ok(condition) = Condition::parse(&text) {
                let vars = Vars::default();
                let wrapped = Condition::parse(&format!("({text})")).expect("as it was");
                prop_assert_eq!(wrapped.holds(&vars), condition.holds(&vars));
            }
        }
    }
}
