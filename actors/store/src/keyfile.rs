//! Secrets at rest: XChaCha20-Poly1305 under a key of this node, in a file only its user may read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use kit::{SealError, Sealed, Secret, Vault};
use rand::RngCore;
use zeroize::Zeroizing;

const NONCE: usize = 24;

/// The node's key.
pub struct KeyFile {
    cipher: XChaCha20Poly1305,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("key file {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("key file {0} must hold 32 bytes; restore it from a backup, since stored secrets need it")]
    Size(PathBuf),
    #[error("key file {0} may be read by others than its owner; chmod 600 it")]
    Open(PathBuf),
}

impl KeyFile {
    /// Reads the key, or makes one on the first start.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let io = |e| KeyFileError::Io(path.to_owned(), e);
        let mut key = Zeroizing::new([0u8; 32]);
        match File::open(path) {
            Ok(mut file) => {
                let meta = file.metadata().map_err(io)?;
                if meta.permissions().mode() & 0o077 != 0 {
                    return Err(KeyFileError::Open(path.to_owned()));
                }
                if meta.len() != 32 {
                    return Err(KeyFileError::Size(path.to_owned()));
                }
                file.read_exact(key.as_mut()).map_err(io)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                rand::rng().fill_bytes(key.as_mut());
                // Written beside and renamed, so that a crash leaves no half key.
                let fresh = path.with_extension("new");
                let mut file = OpenOptions::new()
                    .create(true)
                    .write(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&fresh)
                    .map_err(io)?;
                file.write_all(key.as_ref()).and_then(|()| file.sync_all()).map_err(io)?;
                std::fs::rename(&fresh, path).map_err(io)?;
                if let Some(dir) = path.parent() {
                    File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
                }
            }
            Err(e) => return Err(io(e)),
        }
        Ok(Self::of(&key))
    }

    /// A key that is kept elsewhere.
    pub fn of(key: &[u8; 32]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()) }
    }

    /// A key that is forgotten at the end; for replays and tests.
    pub fn ephemeral() -> Self {
        let mut key = Zeroizing::new([0u8; 32]);
        rand::rng().fill_bytes(key.as_mut());
        Self::of(&key)
    }
}

impl Vault for KeyFile {
    fn seal(&self, purpose: &str, secret: &Secret<String>) -> Result<Sealed, SealError> {
        let mut bytes = vec![0u8; NONCE];
        rand::rng().fill_bytes(&mut bytes);
        let payload = Payload { msg: secret.expose().as_bytes(), aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&bytes), payload).map_err(|_| SealError)?;
        bytes.extend(sealed);
        Ok(Sealed(STANDARD_NO_PAD.encode(bytes)))
    }

    fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret<String>, SealError> {
        let bytes = STANDARD_NO_PAD.decode(&sealed.0).map_err(|_| SealError)?;
        let (nonce, text) = bytes.split_at_checked(NONCE).ok_or(SealError)?;
        let payload = Payload { msg: text, aad: purpose.as_bytes() };
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError)?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| SealError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_and_purpose() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let vault = KeyFile::open(&path).expect("made");
        let sealed = vault.seal("a", &Secret::new("parol".into())).expect("sealed");
        assert!(!sealed.0.contains("parol"));
        let again = KeyFile::open(&path).expect("read");
        assert_eq!(again.open("a", &sealed).expect("opens").expose(), "parol");
        assert!(again.open("b", &sealed).is_err());
        assert!(KeyFile::ephemeral().open("a", &sealed).is_err());
        assert!(again.open("a", &Sealed("AAAA".into())).is_err());
    }

    #[test]
    fn a_key_file_for_all_eyes_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        drop(KeyFile::open(&path).expect("made"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(KeyFile::open(&path), Err(KeyFileError::Open(_))));
        std::fs::write(&path, b"short").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(matches!(KeyFile::open(&path), Err(KeyFileError::Size(_))));
    }
}
