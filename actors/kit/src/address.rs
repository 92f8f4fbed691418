//! Names of actors: `domain/voip.local/call/8f3c`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A name in the registry: segments joined by `/`, none of them empty. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Arc<str>);

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address needs at least one segment")]
    Empty,
    #[error("address {0:?} has an empty segment")]
    EmptySegment(String),
    #[error("address {0:?} holds a blank or a control character")]
    Blank(String),
    #[error("an address is at most {max} bytes, this one has {0}", max = Address::MAX_LEN)]
    TooLong(usize),
}

impl Address {
    /// Longest address in bytes.
    pub const MAX_LEN: usize = 512;

    /// Checks and takes a name.
    pub fn new(text: impl AsRef<str>) -> Result<Self, AddressError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(AddressError::TooLong(text.len()));
        }
        if text.split('/').any(str::is_empty) {
            return Err(AddressError::EmptySegment(text.to_owned()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(AddressError::Blank(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name of a child of this actor.
    pub fn child(&self, segment: impl AsRef<str>) -> Result<Self, AddressError> {
        Self::new(format!("{}/{}", self.0, segment.as_ref()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::new(s)
    }
}

impl From<Address> for String {
    fn from(a: Address) -> Self {
        a.0.as_ref().to_owned()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_must_not_be_empty_or_blank() {
        assert_eq!(Address::new(""), Err(AddressError::Empty));
        assert!(matches!(Address::new("a//b"), Err(AddressError::EmptySegment(_))));
        assert!(matches!(Address::new("/a"), Err(AddressError::EmptySegment(_))));
        assert!(matches!(Address::new("a b"), Err(AddressError::Blank(_))));
        assert!(matches!(Address::new("x".repeat(513)), Err(AddressError::TooLong(513))));
        let call = Address::new("domain/voip.local").and_then(|a| a.child("call"));
        assert_eq!(call.map(|a| a.leaf().to_owned()), Ok("call".to_owned()));
    }
}
