//! The node's SSH host keys, made on the first start.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
};

use kit::Secret;
use russh::keys::{
    PrivateKey,
    ssh_key::{
        EcdsaCurve, LineEnding,
        private::{EcdsaKeypair, Ed25519Keypair},
        rand_core::{TryCryptoRng, TryRng},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("host key {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("host key {0} cannot be used: {1}")]
    Key(PathBuf, russh::keys::ssh_key::Error),
}

/// Our generator, as the library's version of the traits has it.
struct Random;

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(rand::random())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(rand::random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

/// The keys of a door: Ed25519 in `NAME_ed25519_key`, and ECDSA for clients that know no other, in `NAME_ecdsa_key`.
///
/// # Errors
/// A file is no key, or cannot be written.
pub fn host_keys(data: &Path, name: &str) -> Result<Vec<PrivateKey>, HostKeyError> {
    let first = host_key(&data.join(format!("{name}_ed25519_key")))?;
    let path = data.join(format!("{name}_ecdsa_key"));
    let bad = |e| HostKeyError::Key(path.clone(), e);
    if path.exists() {
        return Ok(vec![first, PrivateKey::read_openssh_file(&path).map_err(bad)?]);
    }
    let second = EcdsaKeypair::random(&mut Random, EcdsaCurve::NistP256).map_err(bad)?;
    let second = PrivateKey::from(second);
    second.write_openssh_file(&path, LineEnding::LF).map_err(bad)?;
    Ok(vec![first, second])
}

/// Reads the key in OpenSSH form, or makes an Ed25519 one that only its owner may read.
fn host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
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
