//! A and B numbers with their attributes (ITU-T Q.763 calling and called party number), in the original's words.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Display, EnumString, VariantNames)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] #[strum(serialize = $word)] $variant),* }
    };
}

words! {
    /// Kind of network the number belongs to (признак абонента).
    Ni {
        #[default]
        Undefined = "undefined",
        Private = "private",
        Local = "local",
        Zone = "zone",
        Intercity = "intercity",
        International = "international",
        Emergency = "emergency",
    }
}
words! {
    /// Nature of address indicator.
    Nai {
        #[default]
        Unknown = "unknown",
        Subscriber = "subscriberNumber",
        National = "nationalNumber",
        International = "internationalNumber",
        NetworkSpecific = "networkSpecificNumber",
    }
}
words! {
    /// Numbering plan indicator.
    Npi {
        #[default]
        Undefined = "undefined",
        Isdn = "isdntelephony",
        Data = "data",
        Telex = "telex",
        Private = "private",
    }
}
words! {
    /// Address presentation restricted indicator.
    Apri {
        #[default]
        Allowed = "presentationAllowed",
        Restricted = "presentationRestricted",
        NotAvailable = "addressNotAvailable",
        Spare = "spare",
    }
}
words! {
    /// Screening indicator.
    Screening {
        #[default]
        Network = "networkProvided",
        UserVerified = "userProvidedVerifiedPassed",
        UserNotVerified = "userProvidedNotVerified",
        UserFailed = "userProvidedVerifiedFailed",
    }
}
words! {
    /// Internal network number indicator.
    Inni {
        #[default]
        Undefined = "undefined",
        Allowed = "routingToInternalAllowed",
        NotAllowed = "routingToInternalNotAllowed",
    }
}

/// The calling party (А).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calling {
    pub digits: String,
    pub ni: Ni,
    pub nai: Nai,
    pub incomplete: bool,
    pub npi: Npi,
    pub apri: Apri,
    pub screening: Screening,
    /// Category of the calling party, 1..10 as Russian networks number it.
    pub category: u8,
}

impl Default for Calling {
    fn default() -> Self {
        Self {
            digits: String::new(),
            ni: Ni::Private,
            nai: Nai::Subscriber,
            incomplete: false,
            npi: Npi::Isdn,
            apri: Apri::Allowed,
            screening: Screening::Network,
            category: 1,
        }
    }
}

/// The called party (Б).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Called {
    pub digits: String,
    pub ni: Ni,
    pub nai: Nai,
    pub incomplete: bool,
    pub inni: Inni,
    pub npi: Npi,
}

/// What interception is told instead of the routed numbers (`sorm_digits`, `sorm_ni`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SormNumbers {
    pub ni_a: Option<Ni>,
    pub digits_a: Option<String>,
    pub ni_b: Option<Ni>,
    pub digits_b: Option<String>,
}

impl SormNumbers {
    /// What is said now counts, what is not stays.
    pub fn overlay(&mut self, said: &Self) {
        let Self { ni_a, digits_a, ni_b, digits_b } = said;
        self.ni_a = ni_a.or(self.ni_a);
        self.ni_b = ni_b.or(self.ni_b);
        if digits_a.is_some() {
            self.digits_a.clone_from(digits_a);
        }
        if digits_b.is_some() {
            self.digits_b.clone_from(digits_b);
        }
    }
}
