//! Lists of addresses as `Contact` and its like hold them (RFC 3261, 20.10): `"Name" <sip:a@b;x>;q=0.5, sip:c@d`.

/// One address of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The display name, without quotes.
    pub name: String,
    /// What stands between the angle brackets, or the bare URI.
    pub uri: String,
    /// Parameters behind it, names in lower case, values without quotes.
    pub parameters: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("a quote or bracket is not closed")]
    Open,
    #[error("there is no URI")]
    NoUri,
    #[error("more than {LIMIT} addresses")]
    TooMany,
}

/// Addresses in one request at most.
const LIMIT: usize = 64;

impl Address {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Cuts at a separator outside quotes and angle brackets.
pub(crate) fn pieces(text: &str, separator: char) -> Result<Vec<&str>, AddressError> {
    let (mut all, mut from, mut quoted, mut escaped, mut inside) = (Vec::new(), 0, false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if !inside => quoted = !quoted,
            _ if quoted => {}
            '<' if !inside => inside = true,
            '>' if inside => inside = false,
            c if c == separator && !inside => {
                all.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if quoted || inside {
        return Err(AddressError::Open);
    }
    all.push(&text[from..]);
    Ok(all)
}

/// Reads a header's value.
pub fn list(text: &str) -> Result<Vec<Address>, AddressError> {
    let all = pieces(text, ',')?;
    if all.len() > LIMIT {
        return Err(AddressError::TooMany);
    }
    all.into_iter().map(one).collect()
}

fn one(text: &str) -> Result<Address, AddressError> {
    let parts = pieces(text, ';')?;
    let (first, rest) = parts.split_first().ok_or(AddressError::NoUri)?;
    // Without brackets every parameter is the header's (RFC 3261, 20.10).
    let (name, uri) = match (first.rfind('<'), first.rfind('>')) {
        (Some(open), Some(close)) if open < close => (first[..open].trim(), &first[open + 1..close]),
        _ => ("", *first),
    };
    let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => unescaped(quoted),
        None => name.to_owned(),
    };
    let uri = uri.trim();
    if uri.is_empty() {
        return Err(AddressError::NoUri);
    }
    let parameter = |p: &&str| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        (name.trim().to_ascii_lowercase(), bare.to_owned())
    };
    Ok(Address { name, uri: uri.to_owned(), parameters: rest.iter().map(parameter).collect() })
}

fn unescaped(quoted: &str) -> String {
    let mut chars = quoted.chars();
    let mut plain = String::with_capacity(quoted.len());
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

/// A name as a quoted string, with its separator; nothing for no name.
pub fn display(name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let mut quoted = String::with_capacity(name.len() + 3);
    quoted.push('"');
    for c in name.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push_str("\" ");
    quoted
}

/// `q` as thousandths; 1000 when it is absent or no number.
pub fn q_of(text: Option<&str>) -> u16 {
    let q = text.and_then(|t| t.trim().parse::<f32>().ok()).filter(|q| (0.0..=1.0).contains(q));
    q.map_or(1000, |q| (q * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_cut_where_addresses_end() {
        let all = list(
            "\"Mr, <W>\" <sip:w@h;transport=tcp>;q=0.7;expires=60, sip:c@d ;+sip.instance=\"<urn:x,y>\"",
        );
        let all = all.expect("a list");
        assert_eq!(all[0].name, "Mr, <W>");
        assert_eq!(list(&format!("{}<sip:a>", display("a \"b\" \\"))).expect("a list")[0].name, "a \"b\" \\");
        assert_eq!(all[0].uri, "sip:w@h;transport=tcp");
        assert_eq!((all[0].parameter("q"), all[0].parameter("expires")), (Some("0.7"), Some("60")));
        assert_eq!(all[1].uri, "sip:c@d");
        assert_eq!(all[1].parameter("+sip.instance"), Some("<urn:x,y>"));
        assert_eq!(list("*").expect("a star")[0].uri, "*");
        for bad in ["", "<>", "\"x <sip:a@b>", "<sip:a@b", "a,,b"] {
            assert!(list(bad).is_err(), "{bad}");
        }
        assert_eq!(list(&"<sip:a>,".repeat(99)), Err(AddressError::TooMany));
        assert_eq!(
            [q_of(None), q_of(Some("0.5")), q_of(Some("2")), q_of(Some("NaN"))],
            [1000, 500, 1000, 1000]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(text in "[<>\",;=*a\\\\ ]{0,40}|\\PC{0,40}") {
            if let Ok(all) = list(&text) {
                prop_assert!(all.iter().all(|a| !a.uri.is_empty()));
            }
        }
    }
}
