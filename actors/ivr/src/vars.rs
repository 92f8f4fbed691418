//! Variables of a script: names in any case, values texts; `%NAME%` stands for a value, and for itself where there is none.

use std::collections::BTreeMap;

/// Variables of one script at most, and letters of a value.
const MANY: usize = 1_000;
const LONGEST: usize = 10_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    pub fn set(&mut self, name: &str, value: &str) {
        let name = name.trim().to_uppercase();
        if name.is_empty() || (self.0.len() >= MANY && !self.0.contains_key(&name)) {
            return;
        }
        self.0.insert(name, value.chars().take(LONGEST).collect());
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.trim().to_uppercase()).map(String::as_str)
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// A text with its variables' values; what they say is taken as it is.
    pub fn fill(&self, text: &str) -> String {
        self.filled(text, |_, _, value| value.to_owned())
    }

    /// As [`Vars::fill`], for a URL: behind its host a value is one piece of text, whatever signs are in it (RFC 3986, 2.1). A variable whose
    /// name ends in `_URL` holds a part of a URL, as the attendant's answers do.
    pub fn fill_url(&self, text: &str) -> String {
        self.filled(text, |before, name, value| {
            let path = before.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
            let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
            match path && !name.ends_with("_URL") {
                true => value
                    .bytes()
                    .map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
                    .collect(),
                false => value.to_owned(),
            }
        })
    }

    /// `put` gets the text before a value, its name, and the value.
    fn filled(&self, text: &str, put: impl Fn(&str, &str, &str) -> String) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let name = after.find('%').map(|end| &after[..end]);
            match name.and_then(|n| Some((n, self.get(n)?))) {
                Some((name, value)) => {
                    let value = put(&out, name, value);
                    out.push_str(&value);
                    rest = &after[name.len() + 1..];
                }
                None => {
                    out.push('%');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out.truncate(out.char_indices().nth(LONGEST).map_or(out.len(), |(at, _)| at));
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_in_a_url_stays_one_piece_of_it() {
        let mut vars = Vars::default();
        vars.set("HOST", "a.test:80");
        vars.set("DIGITS", "1&x=2#/../é");
        vars.set("ASR_POSITIVE_URL", "7.pcm?good=1");
        let filled = vars.fill_url("http://%HOST%/%ASR_POSITIVE_URL%&n=%DIGITS%");
        assert_eq!(filled, "http://a.test:80/7.pcm?good=1&n=1%26x%3D2%23%2F..%2F%C3%A9");
    }

    #[test]
    fn values_stand_for_names_and_unknown_names_for_themselves() {
        let mut vars = Vars::default();
        vars.set("cgpn", "100");
        vars.set("Odd", "%CGPN%");
        assert_eq!(vars.fill("/%CGPN%/prompt/%ALARM%.wav 100%"), "/100/prompt/%ALARM%.wav 100%");
        assert_eq!(vars.fill("%odd%"), "%CGPN%", "a value is not looked into");
    }

    proptest! {
        #[test]
        fn any_text_is_filled(text in "[%A-Z ]{0,40}", value in "\\PC{0,10}") {
            let mut vars = Vars::default();
            vars.set("A", &value);
            let filled = vars.fill(&text);
            if !text.contains('%') {
                prop_assert_eq!(&filled, &text);
            }
            prop_assert!(!filled.contains("%A%") || value.contains('%') || text.contains("%%"));
            prop_assert_eq!(vars.fill("%A%"), value, "as it is, and only once");
        }
    }
}
