//! RADIUS accounting (RFC 2866), as far as notifications need it: requests of the station and answers of the mediator.
//! Packets are few and of one kind; what matters is that authenticators are compared in constant time and secrets stay here.

use chrono::{DateTime, Utc};
use kit::Secret;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::Notice;
use crate::protocol::Digits;

const REQUEST: u8 = 4;
const RESPONSE: u8 = 5;
const HEADER: usize = 20;
/// Largest packet (RFC 2865, 3).
pub const MOST: usize = 4096;
/// IANA's number of Eltex, and its attribute of texts `name=value`.
const VENDOR: u32 = 35_265;
const AV_PAIR: u8 = 1;
const VENDOR_SPECIFIC: u8 = 26;

mod kind {
    pub const NAS_IDENTIFIER: u8 = 32;
    pub const CALLED_STATION_ID: u8 = 30;
    pub const CALLING_STATION_ID: u8 = 31;
    pub const ACCT_STATUS_TYPE: u8 = 40;
    pub const ACCT_SESSION_ID: u8 = 44;
    pub const EVENT_TIMESTAMP: u8 = 55;
}

fn attribute(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    // 253 bytes are all an attribute holds (RFC 2865, 5).
    let value = &value[..value.len().min(253)];
    out.extend([kind, u8::try_from(value.len() + 2).unwrap_or(u8::MAX)]);
    out.extend(value);
}

fn pair(out: &mut Vec<u8>, name: &str, value: &str) {
    let text = format!("sorm:{name}={value}");
    let text = &text.as_bytes()[..text.len().min(247)];
    let mut inner = VENDOR.to_be_bytes().to_vec();
    attribute(&mut inner, AV_PAIR, text);
    attribute(out, VENDOR_SPECIFIC, &inner);
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    md5.finalize().into()
}

fn finish(mut packet: Vec<u8>, authenticator: [u8; 16], secret: &Secret<String>) -> Vec<u8> {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[4..HEADER].copy_from_slice(&authenticator);
    let sealed = digest(&[&packet, secret.expose().as_bytes()]);
    packet[4..HEADER].copy_from_slice(&sealed);
    packet
}

/// A notification as a request. One that is sent again is the same, byte for byte: the mediator sees that it is.
pub fn request(
    notice: &Notice,
    identifier: u8,
    station: &str,
    platform: u32,
    secret: &Secret<String>,
) -> Vec<u8> {
    let mut out = vec![REQUEST, identifier, 0, 0];
    out.extend([0; 16]);
    attribute(&mut out, kind::ACCT_STATUS_TYPE, &(notice.status as u32).to_be_bytes());
    attribute(&mut out, kind::ACCT_SESSION_ID, notice.session.as_bytes());
    attribute(&mut out, kind::NAS_IDENTIFIER, station.as_bytes());
    for (kind, party) in
        [(kind::CALLING_STATION_ID, notice.calling), (kind::CALLED_STATION_ID, notice.called)]
    {
        if !party.number.is_empty() {
            attribute(&mut out, kind, party.number.reveal().as_bytes());
        }
    }
    let seconds = u32::try_from(notice.at.timestamp()).unwrap_or_default();
    attribute(&mut out, kind::EVENT_TIMESTAMP, &seconds.to_be_bytes());
    pair(&mut out, "seq", &notice.sequence.to_string());
    pair(&mut out, "platform", &platform.to_string());
    // A unit with a long text takes several attributes; their values are joined.
    for part in notice.unit.chunks(100) {
        pair(&mut out, "unit", &hex::encode(part));
    }
    finish(out, [0; 16], secret)
}

/// Whether this answers the request.
pub fn answers(response: &[u8], request: &[u8], secret: &Secret<String>) -> bool {
    let fits = response.len() >= HEADER
        && response.len() <= MOST
        && request.len() >= HEADER
        && response[0] == RESPONSE
        && response[1] == request[1]
        && usize::from(u16::from_be_bytes([response[2], response[3]])) == response.len();
    fits && {
        let expected =
            digest(&[&response[..4], &request[4..HEADER], &response[HEADER..], secret.expose().as_bytes()]);
        bool::from(expected.ct_eq(&response[4..HEADER]))
    }
}

/// The answer to a request.
pub fn response(request: &[u8], secret: &Secret<String>) -> Option<Vec<u8>> {
    let authenticator = request.get(4..HEADER)?.try_into().ok()?;
    let mut out = vec![RESPONSE, *request.get(1)?, 0, 0];
    out.extend([0; 16]);
    Some(finish(out, authenticator, secret))
}

/// What a mediator reads of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub sequence: u64,
    pub platform: u32,
    pub station: String,
    pub status: u32,
    pub session: String,
    pub at: Option<DateTime<Utc>>,
    pub calling: Digits,
    pub called: Digits,
    pub unit: Vec<u8>,
}

/// Reads a request that has the secret; nothing where it is none, or somebody else's.
pub fn read(request: &[u8], secret: &Secret<String>) -> Option<Received> {
    let length = usize::from(u16::from_be_bytes([*request.get(2)?, *request.get(3)?]));
    if request[0] != REQUEST || length != request.len() || !(HEADER..=MOST).contains(&length) {
        return None;
    }
    let expected = digest(&[&request[..4], &[0; 16], &request[HEADER..], secret.expose().as_bytes()]);
    if !bool::from(expected.ct_eq(&request[4..HEADER])) {
        return None;
    }
    let mut received = Received {
        sequence: 0,
        platform: 0,
        station: String::new(),
        status: 0,
        session: String::new(),
        at: None,
        calling: Digits::NONE,
        called: Digits::NONE,
        unit: Vec::new(),
    };
    let mut left = &request[HEADER..];
    while let [kind, length, ..] = left {
        let (whole, rest) = left.split_at_checked(usize::from(*length))?;
        let value = whole.get(2..)?;
        let text = || String::from_utf8_lossy(value).into_owned();
        let number = || value.try_into().ok().map(u32::from_be_bytes);
        match *kind {
            kind::ACCT_STATUS_TYPE => received.status = number()?,
            kind::ACCT_SESSION_ID => received.session = text(),
            kind::NAS_IDENTIFIER => received.station = text(),
            kind::CALLING_STATION_ID => received.calling = Digits::new(&text())?,
            kind::CALLED_STATION_ID => received.called = Digits::new(&text())?,
            kind::EVENT_TIMESTAMP => received.at = DateTime::from_timestamp(i64::from(number()?), 0),
            VENDOR_SPECIFIC => take_pair(value, &mut received)?,
            _ => {}
        }
        left = rest;
    }
    left.is_empty().then_some(received)
}

fn take_pair(value: &[u8], received: &mut Received) -> Option<()> {
    let (vendor, inner) = value.split_first_chunk::<4>()?;
    let [AV_PAIR, length, text @ ..] = inner else { return Some(()) };
    if u32::from_be_bytes(*vendor) != VENDOR || usize::from(*length) != inner.len() {
        return Some(());
    }
    let text = std::str::from_utf8(text).ok()?;
    let Some((name, value)) = text.strip_prefix("sorm:").and_then(|t| t.split_once('=')) else {
        return Some(());
    };
    match name {
        "seq" => received.sequence = value.parse().ok()?,
        "platform" => received.platform = value.parse().ok()?,
        "unit" => received.unit.extend(hex::decode(value).ok()?),
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        intercept::Status,
        protocol::{Party, Sign},
    };

    fn secret() -> Secret<String> {
        Secret::new("2testing123".to_owned())
    }

    fn notice(unit: Vec<u8>) -> Notice {
        Notice {
            sequence: 42,
            at: DateTime::UNIX_EPOCH,
            status: Status::Start,
            session: "p.city-7-1".into(),
            calling: Party { sign: Some(Sign::Own), number: Digits::lossy("28331") },
            called: Party { sign: Some(Sign::Russia), number: Digits::lossy("89001758964") },
            unit,
        }
    }

    #[test]
    fn a_request_is_read_and_answered_by_who_knows_the_secret() {
        let request = request(&notice((0..=255).collect()), 9, "p.city", 999, &secret());
        let read_back = read(&request, &secret()).expect("it is one");
        assert_eq!((read_back.sequence, read_back.platform, read_back.status), (42, 999, 1));
        assert_eq!((read_back.station.as_str(), read_back.session.as_str()), ("p.city", "p.city-7-1"));
        assert_eq!(
            (read_back.calling.reveal(), read_back.called.reveal()),
            ("28331".into(), "89001758964".into())
        );
        assert_eq!((read_back.unit, read_back.at), ((0..=255).collect(), Some(DateTime::UNIX_EPOCH)));
        let response = response(&request, &secret()).expect("an answer");
        assert!(answers(&response, &request, &secret()));
        let other = Secret::new("other".to_owned());
        assert_eq!(read(&request, &other), None);
        assert!(!answers(&response, &request, &other));
        let mut wrong = response;
        wrong[1] ^= 1;
        assert!(!answers(&wrong, &request, &secret()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80), at in 0usize..400, to: u8) {
            let _ = (read(&bytes, &secret()), response(&bytes, &secret()), answers(&bytes, &bytes, &secret()));
            let mut packet = request(&notice(vec![1; 60]), 1, "d", 1, &secret());
            let at = at % packet.len();
            let same = packet[at] == to;
            packet[at] = to;
            prop_assert_eq!(read(&packet, &secret()).is_some(), same);
        }

        /// Attributes of any shape, by somebody who knows the secret.
        #[test]
        fn any_attributes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let packet = finish([&[REQUEST, 1, 0, 0][..], &[0; 16], &body].concat(), [0; 16], &secret());
            // Attributes that do not fill the packet to its end are none (RFC 2866, 5).
            let mut left = &body[..];
            while let [_, length, ..] = left {
                let Some(rest) = (*length >= 2).then(|| left.get(usize::from(*length)..)).flatten() else { break };
                left = rest;
            }
            proptest::prop_assert!(read(&packet, &secret()).is_none() || left.is_empty());
        }
    }
}
