//! A command line as words. A backslash is a letter (`api\call\enabled`), quotes and brackets hold blanks together.

use crate::CommandError;

/// Longest command line, bytes; a routing context given on the line itself fits.
pub const LINE_LIMIT: usize = 64 * 1024;

/// A word and where it begins in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub start: usize,
    /// Whether its quotes and brackets are closed.
    pub closed: bool,
}

/// Splits a line. Words in `'…'` or `"…"` lose the quotes; `[…]` and `{…}` keep their brackets and may hold blanks.
pub fn split(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut depth = 0usize;
    for (at, c) in line.char_indices() {
        if let Some(q) = quote {
            match word.as_mut() {
                Some(_) if c == q => quote = None,
                Some(w) => w.text.push(c),
                None => {}
            }
            continue;
        }
        if c.is_whitespace() && depth == 0 {
            words.extend(word.take());
            continue;
        }
        let w = word.get_or_insert_with(|| Word { text: String::new(), start: at, closed: true });
        match c {
            '"' | '\'' => quote = Some(c),
            '[' | '{' => {
                depth += 1;
                w.text.push(c);
            }
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                w.text.push(c);
            }
            c => w.text.push(c),
        }
    }
    if let Some(mut w) = word {
        w.closed = quote.is_none() && depth == 0;
        words.push(w);
    }
    words
}

/// As [`split`], refusing what is not complete.
pub fn split_whole(line: &str) -> Result<Vec<Word>, CommandError> {
    if line.len() > LINE_LIMIT {
        return Err(CommandError::Usage(format!("the line is longer than {LINE_LIMIT} bytes")));
    }
    let words = split(line);
    match words.last() {
        Some(w) if !w.closed => {
            Err(CommandError::Usage(format!("a quote or bracket is not closed: {}", w.text)))
        }
        _ => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn backslashes_stay_and_brackets_hold_together() {
        assert_eq!(texts(r"alias/set 101 loc.gr api\call\enabled true").len(), 5);
        assert_eq!(texts("ip_set [a, b] {1, 2-3}"), ["ip_set", "[a, b]", "{1, 2-3}"]);
        assert_eq!(texts(r#"say "two words" 'a "b"'"#), ["say", "two words", r#"a "b""#]);
        assert!(split_whole("say \"open").is_err());
    }

    proptest! {
        #[test]
        fn any_line_splits(line in any::<String>()) {
            for word in split(&line) {
                prop_assert!(line.is_char_boundary(word.start));
            }
        }
    }
}
