//! Number ranges of the command line: `738327{0-1}000{0-1}`, `{101,102,110-120}`.

/// Most numbers one range may stand for.
pub const LIMIT: usize = 1_000_000;

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("range {0:?}: a brace is not closed")]
    Open(String),
    #[error("range {0:?}: {1:?} is neither a number nor from-to")]
    Item(String, String),
    #[error("range {0:?}: {1}-{2} goes backwards")]
    Backwards(String, String, String),
    #[error("range {0:?} stands for more than {LIMIT} numbers")]
    TooMany(String),
    #[error("an empty range")]
    Empty,
}

/// All numbers of a range, in order: text and `{item,item}` parts, multiplied out. An item `0-19` counts, with the
/// width of its lower bound; any other item stands for itself.
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    if text.is_empty() {
        return Err(RangeError::Empty);
    }
    let mut all = vec![String::new()];
    let mut rest = text;
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            all.iter_mut().for_each(|n| n.push_str(rest));
            break;
        };
        all.iter_mut().for_each(|n| n.push_str(&rest[..open]));
        let close = rest[open..].find('}').ok_or_else(|| RangeError::Open(text.into()))? + open;
        let choices = items(text, &rest[open + 1..close], LIMIT / all.len())?;
        all = all.iter().flat_map(|n| choices.iter().map(move |c| format!("{n}{c}"))).collect();
        rest = &rest[close + 1..];
    }
    Ok(all)
}

fn items(whole: &str, list: &str, room: usize) -> Result<Vec<String>, RangeError> {
    let mut out = Vec::new();
    for item in list.split(',').map(str::trim) {
        match item.split_once('-') {
            Some((from, to)) => {
                let bad = || RangeError::Item(whole.into(), item.into());
                let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
                if !digits(from) || !digits(to) {
                    return Err(bad());
                }
                let (low, high) =
                    (from.parse::<u64>().map_err(|_| bad())?, to.parse::<u64>().map_err(|_| bad())?);
                if low > high {
                    return Err(RangeError::Backwards(whole.into(), from.into(), to.into()));
                }
                if high - low >= (room.saturating_sub(out.len())) as u64 {
                    return Err(RangeError::TooMany(whole.into()));
                }
                out.extend((low..=high).map(|n| format!("{n:0width$}", width = from.len())));
            }
            None if item.is_empty() || item.contains('{') => {
                return Err(RangeError::Item(whole.into(), item.into()));
            }
            None => out.push(item.to_owned()),
        }
    }
    if out.len() > room {
        return Err(RangeError::TooMany(whole.into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_manuals_ranges() {
        let numbers = expand("738327{0-1}000{0-1}");
        assert_eq!(
            numbers,
            Ok(["73832700000", "73832700001", "73832710000", "73832710001"].map(String::from).to_vec())
        );
        assert_eq!(expand("24010{0-1}").map(|n| n.len()), Ok(2));
        assert_eq!(expand("{101,102,103,110-120}").map(|n| n.len()), Ok(14));
        assert_eq!(expand("{08-11}"), Ok(["08", "09", "10", "11"].map(String::from).to_vec()));
        assert_eq!(expand("300001@local.voip"), Ok(vec!["300001@local.voip".into()]));
    }

    #[test]
    fn bad_ranges_are_named() {
        assert!(matches!(expand("7{1"), Err(RangeError::Open(_))));
        assert!(matches!(expand("7{a-b}"), Err(RangeError::Item(..))));
        assert!(matches!(expand("7{5-1}"), Err(RangeError::Backwards(..))));
        assert!(matches!(expand("{0-9999999}"), Err(RangeError::TooMany(_))));
        assert!(matches!(expand("{0-999}{0-999}{0-9}"), Err(RangeError::TooMany(_))));
        assert!(matches!(expand(""), Err(RangeError::Empty)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_range_or_an_error(text in "[0-9{},a-]{0,12}") {
            if let Ok(all) = expand(&text) {
                prop_assert!(all.len() <= LIMIT);
            }
        }
    }
}
