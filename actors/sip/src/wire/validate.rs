//! What a request must hold before anybody acts on it (RFC 3261, 8.2; the tortures of RFC 4475).

use super::{
    address,
    message::{Message, Name},
    uri::Uri,
};

/// A status and what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub code: u16,
    pub text: &'static str,
}

fn bad(text: &'static str) -> Fault {
    Fault { code: 400, text }
}

/// Headers that come once.
const ONCE: [Name; 6] =
    [Name::From, Name::To, Name::CallId, Name::CSeq, Name::MaxForwards, Name::ContentType];

/// Longest value of a header, bytes; of those that answers repeat, dialogs keep and requests carry on, less, and of all the
/// lines of one together.
const VALUE: usize = 8 * 1024;
const REPEATED: usize = 2 * 1024;
const TOGETHER: usize = 8 * 1024;

fn lengths(message: &Message) -> Result<(), Fault> {
    let long = Err(Fault { code: 513, text: "a header is too long" });
    if message.uri().len() > REPEATED || message.headers.iter().any(|(_, v)| v.len() > VALUE) {
        return long;
    }
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq, Name::Contact] {
        if message.all(&name).any(|v| v.len() > REPEATED) {
            return long;
        }
    }
    for name in [Name::Via, Name::RecordRoute, Name::Route, Name::Contact, Name::Path] {
        if message.all(&name).map(|v| v.len()).sum::<usize>() > TOGETHER {
            return long;
        }
    }
    Ok(())
}

/// Checks a request; also the parts the rest of the house takes for granted.
pub fn request(message: &Message) -> Result<(), Fault> {
    for name in &ONCE {
        if message.all(name).count() > 1 {
            return Err(bad("a header that comes once comes twice"));
        }
    }
    lengths(message)?;
    if message.call_id().is_empty() {
        return Err(bad("there is no Call-ID"));
    }
    addresses(message)?;
    let (_, method) = message.cseq().ok_or(bad("CSeq is no number and method"))?;
    if message.method().is_none_or(|m| m.as_str() != method) {
        return Err(bad("CSeq names another method"));
    }
    for (name, most) in [(Name::MaxForwards, 255u64), (Name::Expires, u64::from(u32::MAX))] {
        if let Some(value) = message.header(&name)
            && value.parse::<u64>().ok().is_none_or(|n| n > most)
        {
            return Err(bad("a number is none, or too large"));
        }
    }
    for name in [Name::Via, Name::Contact, Name::Route, Name::RecordRoute] {
        for line in message.all(&name) {
            let pieces = address::pieces(line, ',').map_err(|_| bad("a quote or bracket is not closed"))?;
            if pieces.iter().any(|p| p.trim().is_empty() || !well_separated(p)) {
                return Err(bad("separators without anything between them"));
            }
        }
    }
    if message.via().is_none_or(|v| v.version != "2.0") {
        return Err(bad("Via cannot be read"));
    }
    if let Some(date) = message.header(&Name::Date)
        && !date.ends_with("GMT")
    {
        return Err(bad("Date is not in GMT"));
    }
    uri(message.uri())
}

/// `From` and `To`, each one address.
fn addresses(message: &Message) -> Result<(), Fault> {
    for name in [Name::From, Name::To] {
        let value = message.header(&name).ok_or(bad("From or To is missing"))?;
        let all = address::list(value).map_err(|_| bad("From or To is no address"))?;
        let [one] = all.as_slice() else { return Err(bad("From or To is more than one address")) };
        Uri::parse(&one.uri).map_err(|_| bad("From or To holds no URI"))?;
        // Phones write names in their own letters, and with brackets, without quotes; what would cut the header elsewhere must be quoted.
        let plain = |c: char| !matches!(c, '"' | '\\' | ',' | ';' | '<' | '>');
        if !value.starts_with('"') && !one.name.chars().all(plain) {
            return Err(bad("a name that must be quoted is not"));
        }
    }
    // A URI with a query wants brackets (RFC 3261, 20).
    for line in message.all(&Name::Contact) {
        if line.contains('?') && !line.contains('<') {
            return Err(bad("Contact holds a URI that wants brackets"));
        }
    }
    Ok(())
}

fn well_separated(value: &str) -> bool {
    address::pieces(value, ';').is_ok_and(|parts| parts.iter().all(|p| !p.trim().is_empty()))
}

fn uri(text: &str) -> Result<(), Fault> {
    let uri = Uri::parse(text).map_err(|_| bad("the Request-URI is no URI"))?;
    if !uri.is_sip() && !uri.scheme.eq_ignore_ascii_case("tel") {
        return Err(Fault { code: 416, text: "the Request-URI is neither sip nor tel" });
    }
    if uri.headers.is_some() {
        return Err(bad("the Request-URI holds headers"));
    }
    Ok(())
}
