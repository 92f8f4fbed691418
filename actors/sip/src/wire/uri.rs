//! URIs of SIP (RFC 3261, 19.1) and tel (RFC 3966), read without copying.

/// A URI's parts. Other schemes have only their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'u> {
    /// In the case it came in.
    pub scheme: &'u str,
    /// What stands before the `@`, without a password; of a tel URI the number.
    pub user: Option<&'u str>,
    /// Without a port; IPv6 in its brackets.
    pub host: &'u str,
    pub port: Option<u16>,
    /// `;name=value;…` with its first semicolon, or nothing.
    pub parameters: &'u str,
    /// What follows a `?`.
    pub headers: Option<&'u str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("it has no scheme")]
    Scheme,
    #[error("it has no host")]
    Host,
    #[error("its port is none")]
    Port,
}

impl<'u> Uri<'u> {
    /// The address it names, where that is no name that has to be looked up.
    pub fn socket(&self) -> Option<std::net::SocketAddr> {
        let ip = self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(std::net::SocketAddr::new(ip, self.port.unwrap_or(5060)))
    }

    pub fn parse(text: &'u str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        let name = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(name) {
            return Err(UriError::Scheme);
        }
        let bare = Self { scheme, user: None, host: "", port: None, parameters: "", headers: None };
        if scheme.eq_ignore_ascii_case("tel") {
            let (number, parameters) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            return Ok(Self { user: Some(number), parameters, ..bare });
        }
        if !bare.is_sip() {
            return Ok(bare);
        }
        // A user may hold `;` and `?`; a host may not hold `@`.
        let (user, rest) = match rest.rfind('@') {
            Some(at) => (Some(rest[..at].split(':').next().unwrap_or_default()), &rest[at + 1..]),
            None => (None, rest),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let (host, parameters) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let after = host.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match host[after..].find(':') {
            Some(colon) => {
                let port = host[after + colon + 1..].parse().map_err(|_| UriError::Port)?;
                (&host[..after + colon], Some(port))
            }
            None => (host, None),
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:%~".contains(&b) || b >= 0x80;
        if host.is_empty() || !host.bytes().all(good) {
            return Err(UriError::Host);
        }
        Ok(Self { user, host, port, parameters, headers, ..bare })
    }

    /// `sip` or `sips`.
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip") || self.scheme.eq_ignore_ascii_case("sips")
    }

    pub fn parameter(&self, name: &str) -> Option<&'u str> {
        self.parameters.split(';').skip(1).find_map(|p| {
            let (n, v) = p.split_once('=').unwrap_or((p, ""));
            n.eq_ignore_ascii_case(name).then_some(v)
        })
    }

    /// The user without escapes, and of a telephone number without its separators and parameters.
    pub fn number(&self) -> String {
        let user = unescape(self.user.unwrap_or_default());
        let number = user.split(';').next().unwrap_or_default();
        let telephone = |c: char| c.is_ascii_digit() || "+*#-.()".contains(c);
        match number.chars().all(telephone) {
            true => number.chars().filter(|c| !"-.()".contains(*c)).collect(),
            false => number.to_owned(),
        }
    }
}

/// A URI without its headers, as a Request-URI wants it (RFC 3261, 19.1.1).
pub fn without_headers(uri: &str) -> &str {
    uri.split('?').next().unwrap_or_default()
}

/// `%41` is `A`; what is no escape stays.
pub fn unescape(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        plain.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A user part with what a URI cannot hold escaped (RFC 3261, 25.1).
pub fn escape_user(user: &str) -> String {
    escape(user, b"-_.!~*'()&=+$,;?/")
}

/// A value as a header of a URI holds it.
pub fn escape_header(value: &str) -> String {
    escape(value, b"-_.!~*'()[]/?:+$")
}

/// Letters, digits and what is `plain` stay.
fn escape(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for b in text.bytes() {
        match b.is_ascii_alphanumeric() || plain.contains(&b) {
            true => escaped.push(char::from(b)),
            false => escaped.push_str(&format!("%{b:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_found() {
        let u =
            Uri::parse("sip:alice;day=tue:pw@[2001:db8::1]:5070;transport=tcp;lr?subject=x").expect("a URI");
        assert_eq!((u.user, u.host, u.port), (Some("alice;day=tue"), "[2001:db8::1]", Some(5070)));
        assert_eq!(
            (u.parameter("TRANSPORT"), u.parameter("lr"), u.parameter("x")),
            (Some("tcp"), Some(""), None)
        );
        assert_eq!(u.headers, Some("subject=x"));
        assert_eq!(Uri::parse("tel:+7-383-200;phone-context=x").expect("a URI").number(), "+7383200");
        assert_eq!(Uri::parse("sip:%2371%23@h").expect("a URI").number(), "#71#");
        assert_eq!(Uri::parse("sip:bob.smith@h").expect("a URI").number(), "bob.smith");
        assert!(!Uri::parse("nobodyKnowsThisScheme:totallyopaque").expect("a URI").is_sip());
        for bad in ["", "sip:", "sip:a@", "sip:a@h:x", "sip:a@h:99999", "1sip:a@h", "alice", "sip:a@h^"] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_uri_or_an_error(text in "\\PC{0,40}|sips?:[a-z@:;%?\\[\\]0-9]{0,30}") {
            if let Ok(uri) = Uri::parse(&text) {
                prop_assert!(text.contains(uri.host) && text.starts_with(uri.scheme));
                prop_assert!(uri.parameter("x").is_none_or(|x| text.contains(x)));
                let user = uri.user.unwrap_or_default();
                prop_assert!(unescape(user).contains(&uri.number()) || uri.number().chars().count() <= user.chars().count());
            }
        }

        #[test]
        fn what_is_escaped_comes_back(user in "\\PC{0,20}") {
            prop_assert_eq!(unescape(&escape_user(&user)), user);
        }
    }
}
