//! A device that holds a key nobody can copy (a USB token or HSM), as whoever asks it for proof sees it.

use serde::{Deserialize, Serialize};

/// Which device, and which key in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIdentity {
    /// The device's serial number.
    pub serial: String,
    /// Its P-256 public key: the uncompressed point (SEC 1, 65 bytes) in hex.
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the PKCS#11 module {0} cannot be used: {1}")]
    Module(String, String),
    #[error("no token with a P-256 key pair {0:?} is plugged in")]
    Absent(String),
    #[error("the token's PIN cannot be read from {0}: {1}")]
    Pin(String, String),
    #[error("the token refuses: {0}")]
    Device(String),
}

/// Answers with the device's identity and an ECDSA signature (r and s, 64 bytes) over the 32 bytes given. Blocks while
/// the device works.
pub trait Token: Send + Sync {
    fn prove(&self, challenge: &[u8; 32]) -> Result<(TokenIdentity, Vec<u8>), TokenError>;
}
