//! The session description among what a message carries: alone, or a part of several (RFC 5621, RFC 2046, 5.1), as gateways of SIP-I and
//! callers that send their place do.

use bytes::Bytes;

use super::{
    address::pieces,
    message::{Message, Name},
};

const SDP: &str = "application/sdp";
/// Types that are taken, for `Accept`.
pub const ACCEPT: &str = "application/sdp, multipart/mixed";
/// Parts looked at in one body, and how deep they may lie in each other.
const PARTS: usize = 32;
const DEPTH: usize = 4;

/// A body that is of no known type, or has a part that must be understood and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is of a type that is not taken")]
pub struct NotTaken;

/// The description; none where the body is empty, or is of parts that may be passed over.
pub fn session(message: &Message) -> Result<Option<Bytes>, NotTaken> {
    if message.body.is_empty() {
        return Ok(None);
    }
    let Some(content) = message.header(&Name::ContentType) else { return Err(NotTaken) };
    find(content, &message.body, DEPTH)
}

/// Type in lower case, and the parameters behind it.
fn typed(value: &str) -> (String, Vec<(String, String)>) {
    let all = pieces(value, ';').unwrap_or_default();
    let kind = all.first().map(|k| k.trim().to_ascii_lowercase()).unwrap_or_default();
    let parameter = |p: &&str| {
        let (name, value) = p.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        Some((name.trim().to_ascii_lowercase(), bare.to_owned()))
    };
    (kind, all.iter().skip(1).filter_map(parameter).collect())
}

fn find(content: &str, body: &Bytes, depth: usize) -> Result<Option<Bytes>, NotTaken> {
    let (kind, parameters) = typed(content);
    if kind == SDP {
        return Ok(Some(body.clone()));
    }
    let boundary = parameters.iter().find(|(n, _)| n == "boundary").map(|(_, v)| v.as_str());
    let boundary =
        boundary.filter(|b| (1..=70).contains(&b.len()) && kind.starts_with("multipart/") && depth > 0);
    let boundary = boundary.ok_or(NotTaken)?;
    let mut found = None;
    for part in parts(body, boundary).into_iter().take(PARTS) {
        let (content, disposition, inner) = headers(&part);
        let optional =
            typed(&disposition).1.iter().any(|(n, v)| n == "handling" && v.eq_ignore_ascii_case("optional"));
        match find(&content, &inner, depth - 1) {
            Ok(Some(sdp)) => found = found.or(Some(sdp)),
            Ok(None) => {}
            // Of an alternative one part that is understood will do.
            Err(NotTaken) if optional || kind == "multipart/alternative" => {}
            // RFC 5621, 8.3.1, would have it understood where nothing is said; gateways say nothing, and mean otherwise.
            Err(NotTaken) if !typed(&disposition).1.iter().any(|(n, _)| n == "handling") => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The bytes between the boundaries.
fn parts(body: &Bytes, boundary: &str) -> Vec<Bytes> {
    let line = format!("--{boundary}");
    let (mut all, mut from, mut at) = (Vec::new(), None, 0);
    while at < body.len() {
        let end = body[at..].iter().position(|b| *b == b'\n').map_or(body.len(), |n| at + n + 1);
        let text = body[at..end].trim_ascii_end();
        let rest = text.strip_prefix(line.as_bytes());
        if let Some(rest) = rest.filter(|r| r.is_empty() || *r == b"--") {
            if let Some(from) = from {
                // The line end before a boundary is the boundary's.
                let whole = body[from..at]
                    .strip_suffix(b"\n")
                    .map_or(&body[from..at], |w| w.strip_suffix(b"\r").unwrap_or(w));
                all.push(body.slice_ref(whole));
            }
            from = rest.is_empty().then_some(end);
            if from.is_none() || all.len() >= PARTS {
                return all;
            }
        }
        at = end;
    }
    // A last boundary that was forgotten ends with the body.
    if let Some(from) = from.filter(|f| *f < body.len()) {
        all.push(body.slice(from..));
    }
    all
}

/// The type and the disposition of a part, and its body. A part without a type is text (RFC 2046, 5.1).
fn headers(part: &Bytes) -> (String, String, Bytes) {
    let (mut content, mut disposition, mut at) = ("text/plain".to_owned(), String::new(), 0);
    while at < part.len() {
        let end = part[at..].iter().position(|b| *b == b'\n').map_or(part.len(), |n| at + n + 1);
        let line = String::from_utf8_lossy(part[at..end].trim_ascii_end()).into_owned();
        at = end;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" | "c" => value.trim().clone_into(&mut content),
            "content-disposition" => value.trim().clone_into(&mut disposition),
            _ => {}
        }
    }
    (content, disposition, part.slice(at..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::message::Method;

    fn message(content: &str, body: &str) -> Message {
        let mut m = Message::request(Method::Invite, "sip:a@b");
        m.push(Name::ContentType, content.to_owned());
        m.body = Bytes::copy_from_slice(body.as_bytes());
        m
    }

    fn sdp(content: &str, body: &str) -> Result<Option<String>, NotTaken> {
        let found = session(&message(content, body))?;
        Ok(found.map(|s| String::from_utf8_lossy(&s).into_owned()))
    }

    #[test]
    fn the_description_is_found_among_parts() {
        let mixed = "preamble\r\n--x 1\r\nContent-Type: application/ISUP;version=itu-t92+\r\n\
                     Content-Disposition: signal;handling=optional\r\n\r\n\x01\x02\r\n--x 1\r\n\
                     content-type: application/SDP\r\n\r\nv=0\r\no=- 1 1 IN IP4 1.1.1.1\r\n\r\n--x 1--\r\nepilogue";
        let found = sdp("multipart/mixed; boundary=\"x 1\"", mixed);
        assert_eq!(found, Ok(Some("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\n".into())));
        assert_eq!(sdp("Application/SDP;charset=utf-8", "v=0"), Ok(Some("v=0".into())));
        let required = mixed.replace("optional", "required");
        assert_eq!(sdp("multipart/mixed;boundary=\"x 1\"", &required), Err(NotTaken));
        let unsaid = mixed.replace(";handling=optional", "");
        assert!(sdp("multipart/mixed;boundary=\"x 1\"", &unsaid).is_ok_and(|s| s.is_some()));
        let nested = "--o\r\nContent-Type: multipart/alternative;boundary=i\r\n\r\n--i\r\nContent-Type: text/plain\r\n\r\nhi\r\n\
                      --i\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--i--\r\n--o--";
        assert_eq!(sdp("multipart/related;boundary=o", nested), Ok(Some("v=0".into())));
        let place = "--o\nContent-Type: application/pidf+xml\nContent-Disposition: render;handling=optional\n\n<x/>\n--o--";
        assert_eq!(sdp("multipart/mixed;boundary=o", place), Ok(None), "an offer that comes late");
        for (content, body) in
            [("text/plain", "v=0"), ("multipart/mixed", "--x"), ("multipart/mixed;boundary=", "v"), ("", "v")]
        {
            assert_eq!(sdp(content, body), Err(NotTaken), "{content}");
        }
        assert_eq!(sdp("text/plain", ""), Ok(None));
    }

    proptest! {
        #[test]
        fn a_description_comes_through_whatever_lies_around_it(
            before in "[a-z \r\n-]{0,60}", boundary in "[a-zA-Z0-9'+_.=-]{1,40}", inner in "[a-z=0-9\r\n]{1,80}",
        ) {
            prop_assume!(!before.contains(&boundary) && !inner.contains(&boundary) && !inner.ends_with(['\r', '\n']));
            let body = format!("{before}\r\n--{boundary}\r\nContent-Type: application/sdp\r\n\r\n{inner}\r\n--{boundary}--");
            let found = sdp(&format!("multipart/mixed;boundary=\"{boundary}\""), &body);
            prop_assert_eq!(found, Ok(Some(inner)));
        }

        #[test]
        fn any_bytes_are_a_body_or_not(content in "multipart/mixed;boundary=[a-]{0,3}|\\PC{0,30}", body in "[a\r\n-]{0,200}") {
            if let Ok(Some(found)) = session(&message(&content, &body)) {
                prop_assert!(body.as_bytes().windows(found.len().max(1)).any(|w| w == &found[..]) || found.is_empty());
            }
        }
    }
}
