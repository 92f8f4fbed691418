//! The licence: a signed file with limits and switches (manual, "Лицензирование Elph", "Инсталляция лицензии").
//!
//! The file is two lines of base64 between marks: the terms as JSON, and their Ed25519 signature. Without one the node
//! runs with [`Terms::default`], enough to try everything on a small scale.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

const BEGIN: &str = "-----BEGIN HYPHA LICENCE-----";
const END: &str = "-----END HYPHA LICENCE-----";

/// What a licence grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Name of the installation, as in the prompt.
    pub installation: String,
    pub domains: u64,
    pub subscribers: u64,
    pub sorm: bool,
    pub asr: bool,
    pub elph_groups: u64,
    pub elph_members: u64,
    #[serde(default)]
    pub not_before: Option<DateTime<Utc>>,
    #[serde(default)]
    pub not_after: Option<DateTime<Utc>>,
}

impl Default for Terms {
    /// Without a licence. Elph's numbers are the manual's.
    fn default() -> Self {
        Self {
            installation: "EVALUATION".into(),
            domains: 8,
            subscribers: 64,
            sorm: false,
            asr: false,
            elph_groups: 1,
            elph_members: 10,
            not_before: None,
            not_after: None,
        }
    }
}

/// A licence in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Licence {
    /// The signed file, once one was installed.
    pub file: Option<String>,
    pub terms: Terms,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum LicenceEvent {
    #[strum(serialize = "LicenceAdded")]
    Added { file: String, terms: Box<Terms> },
}

impl Fold for Licence {
    type Event = LicenceEvent;
    fn apply(&mut self, LicenceEvent::Added { file, terms }: &LicenceEvent) {
        *self = Self { file: Some(file.clone()), terms: (**terms).clone() };
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LicenceError {
    #[error("bad_licence: the file does not look like a licence; it begins with {BEGIN}")]
    Format,
    #[error("bad_licence: the signature does not fit; the file is damaged or for another vendor key")]
    Signature,
    #[error("bad_licence: the terms cannot be read: {0}")]
    Terms(String),
    #[error("bad_licence: valid from {0} only")]
    NotYet(DateTime<Utc>),
    #[error("bad_licence: expired at {0}")]
    Expired(DateTime<Utc>),
    #[error(
        "this node has no vendor key to check licences with; set [licence] vendor_key in the configuration"
    )]
    NoKey,
    #[error("{0:?} is no vendor key: 64 hex digits are wanted")]
    Key(String),
}

/// A vendor's public key from 64 hex digits.
pub fn vendor_key(hex: &str) -> Result<VerifyingKey, LicenceError> {
    let bad = || LicenceError::Key(hex.to_owned());
    let hex = hex.trim();
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(bad());
    }
    let mut bytes = [0u8; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    VerifyingKey::from_bytes(&bytes).map_err(|_| bad())
}

/// Writes a licence file; the vendor's side.
pub fn issue(terms: &Terms, key: &SigningKey) -> Result<String, LicenceError> {
    let body = serde_json::to_vec(terms).map_err(|e| LicenceError::Terms(e.to_string()))?;
    let signature = key.sign(&body);
    Ok(format!("{BEGIN}\n{}\n{}\n{END}\n", STANDARD.encode(body), STANDARD.encode(signature.to_bytes())))
}

/// Checks a licence file and reads its terms.
pub fn verify(file: &str, key: &VerifyingKey, now: DateTime<Utc>) -> Result<Terms, LicenceError> {
    let lines: Vec<&str> = file.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let [BEGIN, body, signature, END] = lines.as_slice() else { return Err(LicenceError::Format) };
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| LicenceError::Format);
    let body = decode(body)?;
    let signature = Signature::from_slice(&decode(signature)?).map_err(|_| LicenceError::Format)?;
    key.verify(&body, &signature).map_err(|_| LicenceError::Signature)?;
    let terms: Terms = serde_json::from_slice(&body).map_err(|e| LicenceError::Terms(e.to_string()))?;
    match (terms.not_before, terms.not_after) {
        (Some(from), _) if now < from => Err(LicenceError::NotYet(from)),
        (_, Some(to)) if now > to => Err(LicenceError::Expired(to)),
        _ => Ok(terms),
    }
}

/// What an operator wants of the licence.
#[derive(Debug)]
pub enum LicenceCommand {
    Add { file: String, now: DateTime<Utc> },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_licence_holds_only_as_it_was_signed() {
        let terms = Terms { sorm: true, ..Terms::default() };
        let file = issue(&terms, &key()).expect("issued");
        let now = DateTime::UNIX_EPOCH;
        let public = key().verifying_key();
        assert_eq!(verify(&file, &public, now), Ok(terms));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(verify(&file, &other, now), Err(LicenceError::Signature));
        let richer = issue(&Terms { domains: 999, ..Terms::default() }, &key()).expect("issued");
        let mixed: Vec<&str> = [1, 2]
            .iter()
            .map(|i| if *i == 1 { &richer } else { &file }.lines().nth(*i).expect("a line"))
            .collect();
        let forged = format!("{BEGIN}\n{}\n{}\n{END}", mixed[0], mixed[1]);
        assert_eq!(verify(&forged, &public, now), Err(LicenceError::Signature));
        assert_eq!(verify("nonsense", &public, now), Err(LicenceError::Format));
    }

    #[test]
    fn a_licence_has_its_time() {
        let day = chrono::TimeDelta::days(1);
        let start = DateTime::UNIX_EPOCH + day;
        let terms = Terms { not_before: Some(start), not_after: Some(start + day), ..Terms::default() };
        let file = issue(&terms, &key()).expect("issued");
        let public = key().verifying_key();
        assert!(matches!(verify(&file, &public, start - day), Err(LicenceError::NotYet(_))));
        assert!(verify(&file, &public, start).is_ok());
        assert!(matches!(verify(&file, &public, start + day * 2), Err(LicenceError::Expired(_))));
    }
}
