//! The node's SSH host key, made on the first start.

use std::{
    io,
    path::{Path, PathBuf},
};

use kit::Secret;
use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};

#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("host key {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("host key {0} cannot be used: {1}")]
    Key(PathBuf, russh::keys::ssh_key::Error),
}

/// Reads the key in OpenSSH form, or makes an Ed25519 one that only its owner may read.
pub fn host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let bad = |e| HostKeyError::Key(path.to_owned(), e);
    if path.exists() {
        return PrivateKey::read_openssh_file(path).map_err(bad);
    }
    let seed = Secret::new(rand::random::<[u8; 32]>());
    let key = PrivateKey::from(Ed25519Keypair::from_seed(seed.expose()));
    // The library writes it with mode 0600.
    key.write_openssh_file(path, LineEnding::LF).map_err(bad)?;
    Ok(key)
}
