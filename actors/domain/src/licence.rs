//! The licence: a signed file with limits and switches (manual, "Лицензирование Elph", "Инсталляция лицензии").
//!
//! The file is two lines of base64 between marks: the terms as JSON, and their Ed25519 signature. Without one the node
//! runs with [`Terms::default`], enough to try everything on a small scale. So it does when the licence has run out or its
//! hardware token is gone: what exists goes on, what is new is held to those terms.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use kit::{journal::Fold, token::TokenIdentity};
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
    /// The hardware token it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenIdentity>,
    /// Supplementary services that may be used; absent, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

impl Terms {
    /// Whether a supplementary service may be used.
    pub fn allows(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|all| all.iter().any(|s| s == service))
    }
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
            token: None,
            services: None,
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

/// What the last check of the hardware token saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// Why there is none.
    Absent(String),
    /// It signed a fresh challenge.
    Proven(TokenIdentity),
}

impl Default for TokenState {
    fn default() -> Self {
        Self::Absent("it was not looked for yet".into())
    }
}

/// Whether the installed licence's terms hold now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    #[error("no licence is installed: evaluation")]
    Evaluation,
    #[error("valid")]
    Valid,
    #[error("valid from {0} only")]
    NotYet(DateTime<Utc>),
    #[error("expired at {0}")]
    Expired(DateTime<Utc>),
    #[error("its hardware token {0} is missing: {1}")]
    NoToken(String, String),
}

impl Licence {
    pub fn standing(&self, token: &TokenState, now: DateTime<Utc>) -> Standing {
        if self.file.is_none() {
            return Standing::Evaluation;
        }
        match (self.terms.not_before, self.terms.not_after) {
            (Some(from), _) if now < from => return Standing::NotYet(from),
            (_, Some(to)) if now > to => return Standing::Expired(to),
            _ => {}
        }
        match (&self.terms.token, token) {
            (None, _) => Standing::Valid,
            (Some(wanted), TokenState::Proven(found)) if wanted == found => Standing::Valid,
            (Some(wanted), TokenState::Proven(found)) => {
                Standing::NoToken(wanted.serial.clone(), format!("another is plugged in, {}", found.serial))
            }
            (Some(wanted), TokenState::Absent(why)) => Standing::NoToken(wanted.serial.clone(), why.clone()),
        }
    }

    /// The terms in force: the licence's own while it is valid.
    pub fn in_force(&self, token: &TokenState, now: DateTime<Utc>) -> Terms {
        match self.standing(token, now) {
            Standing::Valid => self.terms.clone(),
            _ => Terms { installation: self.terms.installation.clone(), ..Terms::default() },
        }
    }
}

/// Whether a token's answer to a challenge proves that it holds its key.
pub fn token_proves(identity: &TokenIdentity, challenge: &[u8; 32], signature: &[u8]) -> bool {
    use p256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
    let Some(point) = unhex(&identity.key) else { return false };
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(&point), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify_prehash(challenge, &signature).is_ok()
}

/// Bytes from hex digits.
fn unhex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect()
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
    let bytes: [u8; 32] = unhex(hex.trim()).and_then(|b| b.try_into().ok()).ok_or_else(bad)?;
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
    fn a_licence_bound_to_a_token_holds_while_that_token_proves_itself() {
        use p256::ecdsa::{SigningKey, signature::hazmat::PrehashSigner};
        let device = SigningKey::from_slice(&[3; 32]).expect("a key");
        let point = device.verifying_key().to_encoded_point(false);
        let hex = point.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let identity = TokenIdentity { serial: "0a1b".into(), key: hex };
        let signature: p256::ecdsa::Signature = device.sign_prehash(&[5; 32]).expect("signed");
        assert!(token_proves(&identity, &[5; 32], &signature.to_bytes()));
        assert!(!token_proves(&identity, &[6; 32], &signature.to_bytes()));
        assert!(!token_proves(&TokenIdentity { key: "04".into(), ..identity.clone() }, &[5; 32], &[]));

        let terms = Terms { domains: 99, token: Some(identity.clone()), ..Terms::default() };
        let licence = Licence { file: Some(String::new()), terms };
        let now = DateTime::UNIX_EPOCH;
        let proven = TokenState::Proven(identity.clone());
        assert_eq!(licence.standing(&proven, now), Standing::Valid);
        assert_eq!(licence.in_force(&proven, now).domains, 99);
        let other = TokenState::Proven(TokenIdentity { serial: "ffff".into(), ..identity });
        for state in [TokenState::default(), other] {
            assert!(matches!(licence.standing(&state, now), Standing::NoToken(..)));
            assert_eq!(licence.in_force(&state, now).domains, Terms::default().domains);
        }
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
        // One that was installed runs out too.
        let licence = Licence { file: Some(file), terms };
        let token = TokenState::default();
        assert_eq!(licence.standing(&token, start), Standing::Valid);
        assert_eq!(licence.standing(&token, start + day * 2), Standing::Expired(start + day));
    }
}
