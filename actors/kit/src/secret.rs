//! Values that must not be seen.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

/// A value that no log, trace, crash report or inspection can show: its `Debug` and its serialised form are a mark,
/// and its memory is wiped when dropped. To use it one writes [`Secret::expose`], which is easy to search for.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(T);

/// What is shown in a secret's place.
pub const MARK: &str = "******";

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)
    }
}

impl<T: Zeroize> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(MARK)
    }
}

/// A secret as it is stored: encrypted under the node's key. Safe in the journal; `Debug` shows a mark all the same.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)
    }
}

/// A sealed text that does not open: another key, another purpose, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret does not open with this node's key")]
pub struct SealError;

/// Who holds the node's key. The purpose (`domain/voip.local/user/200100`) is bound into the seal, so that a sealed
/// text cannot be moved to where it would mean something else.
pub trait Vault: Send + Sync {
    fn seal(&self, purpose: &str, secret: &Secret<String>) -> Result<Sealed, SealError>;
    fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret<String>, SealError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_its_mark() {
        let s = Secret::new("parol".to_owned());
        assert_eq!(format!("{s:?}"), MARK);
        assert_eq!(serde_json::to_string(&s).ok().as_deref(), Some("\"******\""));
        assert_eq!(s.expose(), "parol");
    }
}
