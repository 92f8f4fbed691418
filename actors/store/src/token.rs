//! The hardware token through PKCS#11.

use std::path::PathBuf;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::Error,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass},
    session::UserType,
    slot::Slot,
    types::AuthPin,
};
use kit::token::{Token, TokenError, TokenIdentity};

/// A key pair, or a key, on whichever token of this module has it.
#[derive(Debug, Clone)]
pub struct Pkcs11Token {
    /// The vendor's shared library.
    pub module: PathBuf,
    /// Its label (CKA_LABEL).
    pub label: String,
    /// File with the user PIN; it is read at each use and kept nowhere.
    pub pin_file: PathBuf,
}

fn device(e: Error) -> TokenError {
    TokenError::Device(e.to_string())
}

impl Token for Pkcs11Token {
    fn prove(&self, challenge: &[u8; 32]) -> Result<(TokenIdentity, Vec<u8>), TokenError> {
        self.with_module(|module| self.ask(module, challenge))
    }
}

impl Pkcs11Token {
    fn with_module<T>(&self, work: impl FnOnce(&Pkcs11) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let unusable = |e: Error| TokenError::Module(self.module.display().to_string(), e.to_string());
        // Loaded anew each time: a token that was pulled out or plugged in since is seen as it is.
        let module = Pkcs11::new(&self.module).map_err(unusable)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(unusable)?;
        let done = work(&module);
        if let Err(e) = module.finalize() {
            tracing::debug!(error = %e, "PKCS#11 module did not finalize");
        }
        done
    }

    /// The PIN, read at each use and kept nowhere.
    fn pin(&self) -> Result<AuthPin, TokenError> {
        let unread = |e: String| TokenError::Pin(self.pin_file.display().to_string(), e);
        let pin = std::fs::read_to_string(&self.pin_file).map_err(|e| unread(e.to_string()))?;
        let pin = zeroize::Zeroizing::new(pin);
        Ok(AuthPin::from(pin.trim()))
    }

    /// A key of 32 bytes that the token keeps for us: a private data object (CKO_DATA) of this label. One that is not there
    /// yet is made, on the first token, when `make` says so.
    pub fn key(&self, make: bool) -> Result<zeroize::Zeroizing<[u8; 32]>, TokenError> {
        self.with_module(|module| {
            let slots = module.get_slots_with_initialized_token().map_err(device)?;
            for slot in &slots {
                let session = module.open_ro_session(*slot).map_err(device)?;
                session.login(UserType::User, Some(&self.pin()?)).map_err(device)?;
                let label = Attribute::Label(self.label.clone().into());
                let found =
                    session.find_objects(&[Attribute::Class(ObjectClass::DATA), label]).map_err(device)?;
                let Some(object) = found.first() else { continue };
                let read = session.get_attributes(*object, &[AttributeType::Value]).map_err(device)?;
                let value = read.into_iter().find_map(|a| match a {
                    Attribute::Value(value) => Some(zeroize::Zeroizing::new(value)),
                    _ => None,
                });
                let key = value.and_then(|v| <[u8; 32]>::try_from(v.as_slice()).ok());
                let key = key
                    .ok_or_else(|| TokenError::Device(format!("{} holds no key of 32 bytes", self.label)))?;
                return Ok(zeroize::Zeroizing::new(key));
            }
            let (Some(slot), true) = (slots.first(), make) else {
                return Err(TokenError::Absent(self.label.clone()));
            };
            let mut key = zeroize::Zeroizing::new([0u8; 32]);
            rand::RngCore::fill_bytes(&mut rand::rng(), key.as_mut());
            let session = module.open_rw_session(*slot).map_err(device)?;
            session.login(UserType::User, Some(&self.pin()?)).map_err(device)?;
            let object = [
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Label(self.label.clone().into()),
                Attribute::Value(key.to_vec()),
            ];
            session.create_object(&object).map_err(device)?;
            Ok(key)
        })
    }

    fn ask(&self, module: &Pkcs11, challenge: &[u8; 32]) -> Result<(TokenIdentity, Vec<u8>), TokenError> {
        for slot in module.get_slots_with_initialized_token().map_err(device)? {
            if let Some(proof) = self.ask_slot(module, slot, challenge)? {
                return Ok(proof);
            }
        }
        Err(TokenError::Absent(self.label.clone()))
    }

    /// `None`: another token.
    fn ask_slot(
        &self,
        module: &Pkcs11,
        slot: Slot,
        challenge: &[u8; 32],
    ) -> Result<Option<(TokenIdentity, Vec<u8>)>, TokenError> {
        let session = module.open_ro_session(slot).map_err(device)?;
        let named = |class| {
            [
                Attribute::Class(class),
                Attribute::KeyType(KeyType::EC),
                Attribute::Label(self.label.clone().into()),
            ]
        };
        let public = session.find_objects(&named(ObjectClass::PUBLIC_KEY)).map_err(device)?;
        let Some(public) = public.first() else { return Ok(None) };
        let read = session.get_attributes(*public, &[AttributeType::EcPoint]).map_err(device)?;
        let Some(point) = read.iter().find_map(|a| match a {
            Attribute::EcPoint(der) => uncompressed(der),
            _ => None,
        }) else {
            return Ok(None);
        };
        session.login(UserType::User, Some(&self.pin()?)).map_err(device)?;
        let private = session.find_objects(&named(ObjectClass::PRIVATE_KEY)).map_err(device)?;
        let Some(private) = private.first() else { return Ok(None) };
        let signature = session.sign(&Mechanism::Ecdsa, *private, challenge).map_err(device)?;
        let serial = module.get_token_info(slot).map_err(device)?.serial_number().trim().to_owned();
        let key = point.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Some((TokenIdentity { serial, key }, signature)))
    }
}

/// The point from CKA_EC_POINT: a DER octet string as PKCS#11 asks for, or bare as some modules give it.
fn uncompressed(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x04, 0x41, point @ ..] if point.len() == 65 => Some(point),
        [0x04, ..] if der.len() == 65 => Some(der),
        _ => None,
    }
}
