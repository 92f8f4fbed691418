//! `hypha licence`: the vendor's side of licences, and what an operator sends the vendor.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use domain::licence::{self, Terms};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding},
};
use kit::{Secret, token::Token};

use crate::{config::Config, run};

type Error = Box<dyn std::error::Error>;

#[derive(Subcommand)]
pub enum Licence {
    /// Make a vendor's key: the private half goes to FILE (PKCS#8), the public half is printed for [licence] vendor_key.
    Keygen {
        /// New file for the private key.
        file: PathBuf,
    },
    /// Print terms to begin with, in TOML.
    Terms,
    /// Sign terms; the licence is printed.
    Issue {
        /// The vendor's private key.
        #[arg(long)]
        key: PathBuf,
        /// Terms in TOML, as `hypha licence terms` prints them.
        #[arg(long)]
        terms: PathBuf,
    },
    /// Check a licence and print its terms.
    Show {
        /// The licence file.
        file: PathBuf,
        /// The vendor's public key, 64 hex digits; without it the configuration's.
        #[arg(long)]
        vendor_key: Option<String>,
        /// Configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print the identity of the hardware token, for the terms of a licence bound to it.
    Token {
        /// Configuration file whose [token] says where the token is.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

pub fn run(what: Licence) -> Result<(), Error> {
    match what {
        Licence::Keygen { file } => keygen(&file),
        Licence::Terms => {
            println!(
                "# Limits and switches of a licence. Times: not_before = \"2027-01-01T00:00:00Z\", not_after likewise."
            );
            println!("# Bound to a token: add the [token] that `hypha licence token` prints.");
            print!("{}", toml::to_string(&Terms::default())?);
            Ok(())
        }
        Licence::Issue { key, terms } => {
            let pem = Secret::new(read(&key)?);
            let key = SigningKey::from_pkcs8_pem(pem.expose())
                .map_err(|e| format!("{} is no Ed25519 private key (PKCS#8): {e}", key.display()))?;
            let text = read(&terms)?;
            let terms: Terms = toml::from_str(&text).map_err(|e| format!("{}: {e}", terms.display()))?;
            print!("{}", licence::issue(&terms, &key)?);
            Ok(())
        }
        Licence::Show { file, vendor_key, config } => {
            let key = match vendor_key {
                Some(key) => key,
                None => Config::read(config.as_deref())?.licence.vendor_key,
            };
            if key.is_empty() {
                return Err("which vendor's? say --vendor-key or --config".into());
            }
            let key = licence::vendor_key(&key)?;
            let terms = licence::verify(&read(&file)?, &key, chrono::Utc::now())?;
            print!("{}", toml::to_string(&terms)?);
            Ok(())
        }
        Licence::Token { config } => {
            let config = Config::read(config.as_deref())?;
            let token = run::token(&config.token)
                .ok_or("the configuration names no token; set [token] module and pin_file")?;
            let (identity, _) = token.prove(&[0; 32])?;
            println!("[token]");
            print!("{}", toml::to_string(&identity)?);
            Ok(())
        }
    }
}

fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()).into())
}

fn keygen(file: &Path) -> Result<(), Error> {
    let key = SigningKey::generate(&mut rand_core::OsRng);
    let pem = key.to_pkcs8_pem(LineEnding::LF)?;
    run::write_secret(file, &pem)?;
    let public: String = key.verifying_key().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    println!("[licence]\nvendor_key = \"{public}\"");
    Ok(())
}
