//! SIP messages (RFC 3261, 7): read from bytes without copying their text, and written.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::address::{self, Address};

/// Largest message taken, bytes; a datagram cannot be larger.
pub const MAX_MESSAGE: usize = 65_535;
/// Header lines of one message at most, folded ones among them.
const MAX_HEADERS: usize = 256;
const MAX_LINES: usize = 1024;

macro_rules! names {
    ($($variant:ident = $long:literal $(, $short:literal)?;)*) => {
        /// A header's name.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Name { $($variant,)* Other(ByteString) }

        impl Name {
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $long,)* Self::Other(name) => name }
            }

            /// Names compare without case; some have a short form (RFC 3261, 7.3.3).
            pub fn known(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case($long) $(|| text.eq_ignore_ascii_case($short))? {
                    return Some(Self::$variant);
                })*
                None
            }
        }
    };
}

names! {
    Via = "Via", "v";
    From = "From", "f";
    To = "To", "t";
    CallId = "Call-ID", "i";
    CSeq = "CSeq";
    Contact = "Contact", "m";
    MaxForwards = "Max-Forwards";
    ContentLength = "Content-Length", "l";
    ContentType = "Content-Type", "c";
    Route = "Route";
    RecordRoute = "Record-Route";
    Allow = "Allow";
    Supported = "Supported", "k";
    UserAgent = "User-Agent";
    Server = "Server";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Unsupported = "Unsupported";
    Expires = "Expires";
    MinExpires = "Min-Expires";
    Date = "Date";
    Warning = "Warning";
    Reason = "Reason";
    RetryAfter = "Retry-After";
    Accept = "Accept";
    Event = "Event", "o";
    AllowEvents = "Allow-Events", "u";
    SubscriptionState = "Subscription-State";
    ReferTo = "Refer-To", "r";
    ReferredBy = "Referred-By", "b";
    Replaces = "Replaces";
    SessionExpires = "Session-Expires", "x";
    MinSe = "Min-SE";
    RSeq = "RSeq";
    RAck = "RAck";
    Path = "Path";
    Privacy = "Privacy";
    AssertedIdentity = "P-Asserted-Identity";
    PreferredIdentity = "P-Preferred-Identity";
    UserToUser = "User-to-User";
    HistoryInfo = "History-Info";
    Diversion = "Diversion";
    ContentEncoding = "Content-Encoding", "e";
    Subject = "Subject", "s";
    AlertInfo = "Alert-Info";
    CallInfo = "Call-Info";
    SipIfMatch = "SIP-If-Match";
    SipETag = "SIP-ETag";
}

macro_rules! methods {
    ($($variant:ident = $word:literal,)*) => {
        /// A request's method; unlike header names, methods have a case.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Method { $($variant,)* Other(ByteString) }

        impl Method {
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $word,)* Self::Other(word) => word }
            }

            pub fn known(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

methods! {
    Invite = "INVITE",
    Ack = "ACK",
    Bye = "BYE",
    Cancel = "CANCEL",
    Register = "REGISTER",
    Options = "OPTIONS",
    Prack = "PRACK",
    Update = "UPDATE",
    Info = "INFO",
    Refer = "REFER",
    Notify = "NOTIFY",
    Subscribe = "SUBSCRIBE",
    Message = "MESSAGE",
    Publish = "PUBLISH",
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Request { method: Method, uri: ByteString },
    Response { code: u16, reason: ByteString },
}

/// A message; its texts share the buffer they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub start: Start,
    pub headers: Vec<(Name, ByteString)>,
    pub body: Bytes,
}

/// Why bytes are no message. What could be read is kept, so that a request can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing that could be answered.
    #[error("{0}")]
    Hopeless(&'static str),
    /// A request that gets 505.
    #[error("not SIP/2.0")]
    Version(Box<Message>),
    /// A request that gets 400, or a response to throw away.
    #[error("{1}")]
    Malformed(Box<Message>, &'static str),
}

/// Where the header ends: the offset of the body.
pub fn header_end(data: &[u8]) -> Option<usize> {
    data.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Where the header ends, where `from` bytes of it have been looked at before: the offset of the body.
pub fn header_end_from(data: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3).min(data.len());
    header_end(&data[from..]).map(|at| from + at)
}

/// The body's length that a header announces; a stream is cut by it (RFC 3261, 18.3). The header need not be text, and the
/// value may be folded onto the next line.
pub fn announced_length(header: &[u8]) -> Option<usize> {
    let mut lines = header.split(|b| *b == b'\n').skip(1).peekable();
    while let Some(line) = lines.next() {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = line[..colon].trim_ascii();
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let mut value = line[colon + 1..].trim_ascii();
        while value.is_empty()
            && let Some(folded) = lines.next_if(|l| l.starts_with(b" ") || l.starts_with(b"\t"))
        {
            value = folded.trim_ascii();
        }
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    None
}

fn is_control(b: u8) -> bool {
    b < 0x20 && b != b'\t' || b == 0x7f
}

pub(crate) fn has_control(text: &str) -> bool {
    text.bytes().any(is_control) || !text.is_ascii() && text.chars().any(kit::text::acts)
}

/// A value without its control characters, and whether they were there against the rules: one would be a line of its own to
/// another reader. Only quoted texts may hold some, behind a backslash each and no line end (RFC 3261, 25.1).
fn without_control(text: &str) -> (String, bool) {
    let (mut kept, mut quoted, mut escaped, mut fault) =
        (String::with_capacity(text.len()), false, false, false);
    for c in text.chars() {
        let control = u8::try_from(c).is_ok_and(is_control);
        if !c.is_ascii() && kit::text::acts(c) {
            // Beyond ASCII the grammar allows them; a reader's screen or spreadsheet does not need them.
        } else if control {
            match quoted && escaped && !matches!(c, '\r' | '\n') {
                // Its backslash goes with it.
                true => drop(kept.pop()),
                false => fault = true,
            }
        } else {
            kept.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    (kept, fault)
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

impl Message {
    /// Reads one message that fills `data` (a datagram, or what a stream was cut into).
    pub fn parse(data: &Bytes) -> Result<Self, ParseError> {
        use ParseError::{Hopeless, Malformed};
        if data.len() > MAX_MESSAGE {
            return Err(Hopeless("too long"));
        }
        let (end, body_at) = match header_end(data) {
            Some(at) => (at - 4, at),
            // A lost last line: the header is all there is.
            None => (data.len(), data.len()),
        };
        // Older phones write names in the code page of their country, which only quoted texts may hold.
        let (head, foreign) = match ByteString::try_from(data.slice(..end)) {
            Ok(head) => (head, false),
            Err(_) => (ByteString::from(code_page(&data[..end])), true),
        };
        let mut fault = None;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let (start, version) = start_line(&head, first, &mut fault)?;
        let mut headers: Vec<(Name, ByteString)> = Vec::with_capacity(16);
        // A value whose lines are folded is put together once, however many they are.
        let mut folded: Option<String> = None;
        for (number, line) in lines.enumerate() {
            if number == MAX_LINES {
                fault = Some("too many header lines");
                break;
            }
            if line.starts_with([' ', '\t']) {
                // One blank stands for the fold.
                match headers.last() {
                    Some((_, value)) => {
                        let value = folded.get_or_insert_with(|| value.to_string());
                        value.push(' ');
                        value.push_str(line.trim());
                    }
                    None => fault = Some("a folded line comes first"),
                }
                continue;
            }
            if let (Some(whole), Some((_, value))) = (folded.take(), headers.last_mut()) {
                *value = whole.trim().into();
            }
            if line.is_empty() {
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                fault = Some("a header line has no colon");
                continue;
            };
            let name = name.trim_end();
            if !is_token(name) {
                fault = Some("a header's name is no token");
                continue;
            }
            if headers.len() == MAX_HEADERS {
                fault = Some("too many headers");
                break;
            }
            let name = Name::known(name).unwrap_or_else(|| Name::Other(head.slice_ref(name)));
            headers.push((name, head.slice_ref(value.trim())));
        }
        if let (Some(whole), Some((_, value))) = (folded, headers.last_mut()) {
            *value = whole.trim().into();
        }
        let mut stray = has_control(first);
        // No answer and no request that goes on repeats them.
        for (_, value) in headers.iter_mut().filter(|(_, v)| has_control(v)) {
            let (kept, against) = without_control(value);
            stray |= against;
            *value = kept.into();
        }
        if stray {
            fault = fault.or(Some("a control character in the header"));
        }
        if foreign && headers.iter().any(|(n, v)| !quoted_only(n, v)) {
            fault = fault.or(Some("the header is not UTF-8"));
        }
        let mut message = Self { start, headers, body: data.slice(body_at..) };
        if body_at == data.len() && end == data.len() {
            fault = fault.or(Some("the header has no end"));
        }
        match message.content_length() {
            Ok(None) => {}
            Ok(Some(length)) if length <= message.body.len() => message.body.truncate(length),
            Ok(Some(_)) => fault = Some("the body is shorter than Content-Length"),
            Err(what) => fault = Some(what),
        }
        match fault {
            _ if !version => Err(ParseError::Version(Box::new(message))),
            Some(what) => Err(Malformed(Box::new(message), what)),
            None => Ok(message),
        }
    }

    /// The one `Content-Length`; none where the transport tells.
    fn content_length(&self) -> Result<Option<usize>, &'static str> {
        let mut found = None;
        for value in self.all(&Name::ContentLength) {
            let length = match value.bytes().all(|b| b.is_ascii_digit()) {
                true => value.parse().map_err(|_| "Content-Length is no number")?,
                false => return Err("Content-Length is no number"),
            };
            if found.replace(length).is_some_and(|before| before != length) {
                return Err("two values of Content-Length");
            }
        }
        Ok(found)
    }

    /// All lines of a header.
    pub fn all<'m>(&'m self, name: &Name) -> impl Iterator<Item = &'m ByteString> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v)
    }

    /// The first line of a header.
    pub fn header(&self, name: &Name) -> Option<&ByteString> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// All lines of a header as one list.
    pub fn joined(&self, name: &Name) -> Option<String> {
        let mut all = self.all(name);
        let mut text = all.next()?.to_string();
        all.for_each(|line| {
            text.push_str(", ");
            text.push_str(line);
        });
        Some(text)
    }

    /// The first address of a header.
    pub fn address(&self, name: &Name) -> Option<Address> {
        address::list(self.header(name)?).ok()?.into_iter().next()
    }

    /// Whether a list of tokens holds this one (`Require`, `Supported`, `Allow`).
    pub fn lists(&self, name: &Name, token: &str) -> bool {
        self.all(name).any(|line| line.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    pub fn method(&self) -> Option<&Method> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    pub fn uri(&self) -> &str {
        match &self.start {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => "",
        }
    }

    pub fn code(&self) -> Option<u16> {
        match &self.start {
            Start::Request { .. } => None,
            Start::Response { code, .. } => Some(*code),
        }
    }

    /// Number and method of `CSeq`.
    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header(&Name::CSeq)?.split_once([' ', '\t'])?;
        Some((number.parse().ok().filter(|n| *n < 1 << 31)?, method.trim()))
    }

    /// The `tag` of `From` or `To`.
    pub fn tag(&self, name: &Name) -> Option<&str> {
        parameter(after_address(self.header(name)?), "tag")
    }

    pub fn call_id(&self) -> &str {
        self.header(&Name::CallId).map_or("", |v| v)
    }

    /// `SIP/2.0/UDP host:port` and the parameters of the topmost `Via`.
    pub fn via(&self) -> Option<Via<'_>> {
        let line = self.header(&Name::Via)?;
        Via::parse(address::pieces(line, ',').ok()?.first()?)
    }

    /// The body's type without its parameters, in lower case.
    pub fn content_type(&self) -> Option<String> {
        let value = self.header(&Name::ContentType)?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    pub fn request(method: Method, uri: impl Into<ByteString>) -> Self {
        Self::new(Start::Request { method, uri: uri.into() })
    }

    pub fn response(code: u16) -> Self {
        Self::new(Start::Response { code, reason: reason(code).into() })
    }

    fn new(start: Start) -> Self {
        Self { start, headers: Vec::with_capacity(16), body: Bytes::new() }
    }

    pub fn with(mut self, name: Name, value: impl Into<ByteString>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds a header line. Control characters of the value are left out: no value can become a line of its own.
    pub fn push(&mut self, name: Name, value: impl Into<ByteString>) {
        let value = value.into();
        let value = match has_control(&value) {
            true => without_control(&value).0.into(),
            false => value,
        };
        self.headers.push((name, value));
    }

    /// Sets the body and its type.
    pub fn with_body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.push(Name::ContentType, ByteString::from_static(content_type));
        self.body = body;
        self
    }

    /// As sent; `Content-Length` is computed.
    pub fn to_bytes(&self) -> Bytes {
        use std::fmt::Write;
        let size = self.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum::<usize>();
        let mut out = BytesMut::with_capacity(size + self.body.len() + 128);
        // Writing to memory does not fail.
        let _ = match &self.start {
            Start::Request { method, uri } => write!(out, "{method} {uri} SIP/2.0\r\n"),
            Start::Response { code, reason } => write!(out, "SIP/2.0 {code} {reason}\r\n"),
        };
        for (name, value) in self.headers.iter().filter(|(n, _)| *n != Name::ContentLength) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let _ = write!(out, "Content-Length: {}\r\n\r\n", self.body.len());
        out.extend_from_slice(&self.body);
        out.freeze()
    }
}

/// Text that is not UTF-8, byte by byte: as windows-1251 where Cyrillic letters are the likelier reading, else as Latin-1.
fn code_page(bytes: &[u8]) -> String {
    // In windows-1251 letters are 0xC0 to 0xFF, Ё and ё are 0xA8 and 0xB8.
    let letter = |b: u8| match b {
        0xC0..=0xFF => char::from_u32(u32::from(b) - 0xC0 + 0x410),
        0xA8 => Some('Ё'),
        0xB8 => Some('ё'),
        0xB9 => Some('№'),
        _ => None,
    };
    let high = bytes.iter().filter(|b| **b >= 0x80).count();
    let letters = bytes.iter().filter(|b| letter(**b).is_some()).count();
    // Western names have one such letter here and there; Cyrillic ones have little else.
    let runs = bytes.windows(2).filter(|w| w.iter().all(|b| letter(*b).is_some())).count();
    let cyrillic = letters == high && 2 * runs >= letters;
    let read = |b: &u8| match *b {
        b if b < 0x80 || !cyrillic => char::from(b),
        b => letter(b).unwrap_or(char::from(b)),
    };
    // C1 control characters are no letters in either.
    bytes.iter().map(read).map(|c| if ('\u{80}'..'\u{a0}').contains(&c) { '?' } else { c }).collect()
}

/// Whether what is beyond ASCII in a value stands in quotes, as a name does, or in a header that is for people.
fn quoted_only(name: &Name, value: &str) -> bool {
    if matches!(name, Name::UserAgent | Name::Server | Name::Subject) {
        return true;
    }
    // Old phones write a name before its address without quotes.
    let of_address =
        matches!(name, Name::From | Name::To | Name::Contact | Name::AssertedIdentity | Name::ReferTo);
    let (mut quoted, mut escaped, mut named) = (false, false, of_address && value.contains('<'));
    value.chars().all(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => named = false,
            _ => {}
        }
        c.is_ascii() || quoted || named
    })
}

/// What follows an address: its parameters.
fn after_address(value: &str) -> &str {
    match value.rfind('>') {
        Some(at) => &value[at + 1..],
        None => value.find(';').map_or("", |at| &value[at..]),
    }
}

/// A parameter of `;name=value;…`.
fn parameter<'v>(text: &'v str, name: &str) -> Option<&'v str> {
    text.split(';').find_map(|p| {
        let (n, v) = p.split_once('=').unwrap_or((p, ""));
        n.trim().eq_ignore_ascii_case(name).then_some(v.trim())
    })
}

/// One `Via` value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via<'v> {
    pub version: &'v str,
    /// `UDP`, `TCP`, `TLS`, `WS`, `WSS`
    pub transport: &'v str,
    /// Host and port as the sender believes itself to be.
    pub sent_by: &'v str,
    parameters: &'v str,
}

impl<'v> Via<'v> {
    pub fn parse(value: &'v str) -> Option<Self> {
        // Blanks may stand around the slashes, and more slashes in the parameters.
        let second = value.match_indices('/').nth(1)?.0;
        let (protocol, rest) = (&value[..second], &value[second + 1..]);
        let (name, version) = protocol.split_once('/')?;
        if !name.trim().eq_ignore_ascii_case("SIP") {
            return None;
        }
        let rest = rest.trim_start();
        let (transport, rest) = rest.split_at(rest.find([' ', '\t'])?);
        let (sent_by, parameters) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let sent_by = sent_by.trim();
        (!sent_by.is_empty() && is_token(transport)).then_some(Self {
            version: version.trim(),
            transport,
            sent_by,
            parameters,
        })
    }

    pub fn parameter(&self, name: &str) -> Option<&'v str> {
        parameter(self.parameters, name)
    }

    pub fn branch(&self) -> Option<&'v str> {
        self.parameter("branch").filter(|b| !b.is_empty())
    }

    /// The port of `sent-by`.
    pub fn port(&self) -> Option<u16> {
        let after = self.sent_by.rsplit_once(']').map_or(self.sent_by, |(_, p)| p);
        after.rsplit_once(':').and_then(|(_, p)| p.trim().parse().ok())
    }
}

/// Reads the first line. `Err` when not even its kind can be told; the flag says whether it is SIP/2.0.
fn start_line(
    head: &ByteString,
    line: &str,
    fault: &mut Option<&'static str>,
) -> Result<(Start, bool), ParseError> {
    use ParseError::Hopeless;
    if line.len() > 4 && line.as_bytes()[..4].eq_ignore_ascii_case(b"SIP/") {
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        let code = parts.next().filter(|c| c.len() == 3).and_then(|c| c.parse().ok());
        let code = code.filter(|c| (100..700).contains(c)).ok_or(Hopeless("no status code"))?;
        let reason = head.slice_ref(parts.next().unwrap_or_default());
        return Ok((Start::Response { code, reason }, version.eq_ignore_ascii_case("SIP/2.0")));
    }
    let (method, rest) = line.split_once(' ').ok_or(Hopeless("no request line"))?;
    if !is_token(method) {
        return Err(Hopeless("the method is no token"));
    }
    let trimmed = rest.trim_end();
    let (uri, version) = trimmed.rsplit_once(' ').ok_or(Hopeless("no request line"))?;
    if !version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case("SIP/")) {
        return Err(Hopeless("no request line"));
    }
    if trimmed.len() != rest.len() {
        *fault = Some("blanks behind the version");
    }
    if uri.is_empty() || uri.contains([' ', '\t', '<', '>', '"']) {
        *fault = Some("the Request-URI holds what no URI may hold");
    }
    let method = Method::known(method).unwrap_or_else(|| Method::Other(head.slice_ref(method)));
    let start = Start::Request { method, uri: head.slice_ref(uri) };
    Ok((start, version.eq_ignore_ascii_case("SIP/2.0")))
}

/// The usual phrase of a status (RFC 3261, 21, and its extensions).
pub fn reason(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match code / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Message, ParseError> {
        Message::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_message_is_read_in_all_its_spellings() {
        let m = parse(
            "INVITE sip:b@h SIP/2.0\r\nv : SIP / 2.0 / UDP  h:5070 ;branch=z9hG4bKx;rport\r\nf: \"A\" <sip:a@h>;tag=7\r\n\
             t: <sip:b@h>\r\ni: c\r\nCSeq:  9\r\n  INVITE\r\nREQUIRE: a, 100rel\r\nX-Own: y\r\nl: 3\r\n\r\nabcd",
        )
        .expect("a message");
        assert_eq!((m.method(), m.uri(), m.cseq()), (Some(&Method::Invite), "sip:b@h", Some((9, "INVITE"))));
        assert_eq!((m.tag(&Name::From), m.tag(&Name::To), m.call_id()), (Some("7"), None, "c"));
        assert!(m.lists(&Name::Require, "100REL") && !m.lists(&Name::Require, "timer"));
        let via = m.via().expect("a Via");
        assert_eq!(
            (via.transport, via.sent_by, via.port(), via.branch()),
            ("UDP", "h:5070", Some(5070), Some("z9hG4bKx"))
        );
        assert_eq!(via.parameter("rport"), Some(""));
        assert_eq!(&m.body[..], b"abc", "what follows is not its own");
        assert_eq!(m.header(&Name::Other("X-Own".into())).map(|v| v.to_string()), Some("y".into()));
        assert_eq!(parse("SIP/2.0 486 Busy Here\r\n\r\n").expect("a response").code(), Some(486));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_could_be_read() {
        let broken = |text: &str| match parse(text) {
            Err(ParseError::Malformed(m, what)) => (m.call_id().to_owned(), what),
            other => panic!("{other:?}"),
        };
        let with = |line: &str| broken(&format!("BYE sip:b@h SIP/2.0\r\nCall-ID: c\r\n{line}\r\n\r\n"));
        assert_eq!(with("Content-Length: 5"), ("c".into(), "the body is shorter than Content-Length"));
        assert_eq!(with("Content-Length: -1"), ("c".into(), "Content-Length is no number"));
        assert_eq!(with("l: 0\r\nContent-Length: 1"), ("c".into(), "two values of Content-Length"));
        assert_eq!(with("no colon here"), ("c".into(), "a header line has no colon"));
        assert!(matches!(parse("BYE sip:b@h SIP/3.0\r\n\r\n"), Err(ParseError::Version(_))));
        for hopeless in ["", "\r\n\r\n", "hello", "SIP/2.0 99 x\r\n\r\n", "BYE sip:b@h HTTP/1.1\r\n\r\n"] {
            assert!(matches!(parse(hopeless), Err(ParseError::Hopeless(_))), "{hopeless:?}");
        }
    }

    #[test]
    fn a_header_folded_many_times_is_read_in_time_that_grows_with_its_length_or_refused() {
        let fold = |n: usize| format!("OPTIONS sip:a SIP/2.0\r\nSubject: a{}\r\n\r\n", "\r\n b".repeat(n));
        let m = parse(&fold(1000)).expect("a message");
        assert_eq!(m.header(&Name::Subject).map(|v| v.len()), Some(1 + 2 * 1000));
        assert!(matches!(parse(&fold(16_000)), Err(ParseError::Malformed(_, "too many header lines"))));
    }

    #[test]
    fn a_control_character_makes_no_line_of_its_own() {
        for bad in ["00\nP-Asserted-Identity: <sip:112@f>", "00\rX: y", "a\u{0}b", "a\u{7f}b", "a\u{1b}[2Jb"]
        {
            for name in ["User-to-User", "Subject", "From", "Path", "Content-Type", "X-Own"] {
                let text = format!("INVITE sip:b@h SIP/2.0\r\n{name}: {bad}\r\nCall-ID: c\r\n\r\n");
                match parse(&text) {
                    Err(ParseError::Malformed(m, _)) => {
                        assert!(!m.headers.iter().any(|(_, v)| has_control(v)), "{name}: {bad:?}");
                    }
                    other => panic!("{name}: {bad:?} is {other:?}"),
                }
            }
            let ours = Message::request(Method::Invite, "sip:b@h").with(Name::UserToUser, bad).to_bytes();
            let lines = String::from_utf8_lossy(&ours).lines().count();
            assert_eq!(lines, 4, "the writer makes none either");
        }
        assert!(matches!(parse("INVITE sip:b\u{1}@h SIP/2.0\r\n\r\n"), Err(ParseError::Malformed(..))));
    }

    #[test]
    fn names_in_old_code_pages_are_read_and_anything_else_in_them_is_not() {
        let with = |from: &[u8]| {
            let mut text = b"INVITE sip:b@h SIP/2.0\r\nFrom: ".to_vec();
            text.extend_from_slice(from);
            text.extend_from_slice(b"\r\nCall-ID: c\r\n\r\n");
            Message::parse(&text.into())
        };
        let name =
            |from: &[u8]| with(from).expect("a message").address(&Name::From).expect("an address").name;
        assert_eq!(name(b"\"\xcf\xb8\xf2\xf0 \xc8\xe2\xe0\xed\xee\xe2\" <sip:a@h>"), "Пётр Иванов");
        assert_eq!(name(b"\"Andr\xe9\" <sip:a@h>"), "André");
        assert_eq!(name(b"\xcf\xe5\xf2\xf0 <sip:a@h>"), "Петр", "without quotes, as old phones write it");
        for bad in [&b"\xcf <sip:\xcf@h>"[..], b"<sip:\xcf@h>", b"<sip:a@h>;tag=\xcf", b"sip:\xcf@h"] {
            assert!(matches!(with(bad), Err(ParseError::Malformed(_, "the header is not UTF-8"))), "{bad:?}");
        }
        let header = b"X SIP/2.0\r\nFrom: \"\xcf\"\r\nContent-Length:\r\n 5\r\n\r\n";
        assert_eq!(
            announced_length(header),
            Some(5),
            "found in bytes that are no text, and on the next line"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(data in prop::collection::vec(any::<u8>(), 0..200)) {
            // A message that is taken is as it would be written.
            if let Ok(m) = Message::parse(&data.into()) {
                prop_assert_eq!(Message::parse(&m.to_bytes()), Ok(m));
            }
        }

        #[test]
        fn what_is_written_is_read(
            code in prop::option::of(100u16..700),
            headers in prop::collection::vec(("[A-Za-z][A-Za-z-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..12),
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut m = match code {
                Some(code) => Message::response(code),
                None => Message::request(Method::Options, "sip:a@b"),
            };
            for (name, value) in headers {
                let name = Name::known(&name).unwrap_or(Name::Other(name.into()));
                if name != Name::ContentLength {
                    m.push(name, value);
                }
            }
            m.body = body.into();
            let mut again = Message::parse(&m.to_bytes()).expect("our own");
            again.headers.retain(|(n, _)| *n != Name::ContentLength);
            prop_assert_eq!(again, m);
        }
    }
}
