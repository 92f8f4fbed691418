//! Settings of a domain's interception (`domain/<D>/sorm/…`, manual "Настройка внутреннего протокола взаимодействия").

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use kit::{MARK, Sealed};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoEnumIterator, VariantNames};

/// RADIUS accounting (RFC 2866).
pub const RADIUS_PORT: u16 = 1813;

/// Names of the settings, as `set`, `info` and `clean` know them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, EnumString, EnumIter, VariantNames, Display, Serialize, Deserialize,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Property {
    Adaptation,
    BDigitsMode,
    Enabled,
    FullDialNumber,
    Password,
    PlatformId,
    PrivatePhonePrefix,
    RadiusServers,
    SendOptionalCfNotification,
    StrictIntercityNumbers,
    StrictPrivateNumbers,
}

/// Which digits of the called party the control point gets (`b_digits_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, EnumString, Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum BDigits {
    /// As the subscriber dialled them (order 268).
    #[default]
    User,
    /// As routing made them.
    Routing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Routing context whose first fitting rule says the numbers for interception, where the call's own way says none.
    pub adaptation: Option<String>,
    pub b_digits_mode: BDigits,
    pub enabled: bool,
    /// The called number with all its prefixes, as it was sent on; before `b_digits_mode`.
    pub full_dial_number: bool,
    /// A hash; without one nobody logs in.
    pub password: Option<Sealed>,
    /// Tells stations apart at a mediator of several.
    pub platform_id: u32,
    /// What goes before short numbers; empty or `0` is nothing.
    pub private_phone_prefix: String,
    /// Mediators and the secrets shared with them.
    pub radius_servers: BTreeMap<Mediator, Sealed>,
    /// Whether a diversion is told as a service of its own (message 1.4).
    pub send_optional_cf_notification: bool,
    /// Numbers of the network are put under control with all eleven digits, and selected by calls of that sign only.
    pub strict_intercity_numbers: bool,
    /// Short numbers are selected in calls of private numbers only.
    pub strict_private_numbers: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            adaptation: None,
            b_digits_mode: BDigits::User,
            enabled: false,
            full_dial_number: false,
            password: None,
            platform_id: 0,
            private_phone_prefix: String::new(),
            radius_servers: BTreeMap::new(),
            send_optional_cf_notification: true,
            strict_intercity_numbers: false,
            strict_private_numbers: false,
        }
    }
}

/// A mediator by its address: `192.168.23.235`, or with a port that is not 1813.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mediator(pub SocketAddr);

impl Mediator {
    pub fn ip(&self) -> IpAddr {
        self.0.ip()
    }
}

impl std::fmt::Display for Mediator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.port() {
            RADIUS_PORT => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

impl std::str::FromStr for Mediator {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let ip = || text.parse().map(|ip: IpAddr| SocketAddr::new(ip, RADIUS_PORT));
        let at = text.parse().or_else(|_| ip()).map_err(|_| SettingError::Address(text.to_owned()))?;
        if at.ip().is_unspecified() || at.port() == 0 {
            return Err(SettingError::Address(text.to_owned()));
        }
        Ok(Self(at))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{0:?} is no address; 192.0.2.7 or 192.0.2.7:11813 is one")]
    Address(String),
    #[error("{0} is true or false, not {1:?}")]
    Bool(Property, String),
    #[error("b_digits_mode is user or routing, not {0:?}")]
    Mode(String),
    #[error("platform_id is a number from 0 to 65535, not {0:?}")]
    Platform(String),
    #[error("private_phone_prefix is up to 10 digits, not {0:?}")]
    Prefix(String),
    #[error(
        "radius_servers is set with: radius_servers add <ADDRESS> <SECRET>, or radius_servers remove <ADDRESS>"
    )]
    Servers,
    #[error("there is no mediator {0}; sorm/info shows all")]
    NoServer(Mediator),
    #[error("there is no routing context {0:?}; import it first")]
    NoContext(String),
    #[error("{0} wants one value")]
    OneValue(Property),
    #[error("the secret is empty")]
    EmptySecret,
    #[error("the licence does not grant interception; licence/current-limits shows what it grants")]
    Licence,
}

/// A change, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    Adaptation(String),
    BDigitsMode(BDigits),
    Enabled(bool),
    FullDialNumber(bool),
    Password(Sealed),
    PlatformId(u32),
    PrivatePhonePrefix(String),
    AddServer(Mediator, Sealed),
    RemoveServer(Mediator),
    SendOptionalCfNotification(bool),
    StrictIntercityNumbers(bool),
    StrictPrivateNumbers(bool),
}

impl Setting {
    /// Reads all that holds no secret; those are hashed and sealed by whoever may.
    pub fn plain(property: Property, value: &str) -> Result<Self, SettingError> {
        let flag = || value.parse::<bool>().map_err(|_| SettingError::Bool(property, value.to_owned()));
        Ok(match property {
            Property::Adaptation => Self::Adaptation(value.to_owned()),
            Property::BDigitsMode => {
                Self::BDigitsMode(value.parse().map_err(|_| SettingError::Mode(value.to_owned()))?)
            }
            Property::Enabled => Self::Enabled(flag()?),
            Property::FullDialNumber => Self::FullDialNumber(flag()?),
            Property::PlatformId => match value.parse::<u32>() {
                Ok(n) if n <= 0xFFFF => Self::PlatformId(n),
                _ => return Err(SettingError::Platform(value.to_owned())),
            },
            Property::PrivatePhonePrefix => {
                if value.len() > 10 || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(SettingError::Prefix(value.to_owned()));
                }
                Self::PrivatePhonePrefix(value.to_owned())
            }
            Property::SendOptionalCfNotification => Self::SendOptionalCfNotification(flag()?),
            Property::StrictIntercityNumbers => Self::StrictIntercityNumbers(flag()?),
            Property::StrictPrivateNumbers => Self::StrictPrivateNumbers(flag()?),
            Property::RadiusServers => return Err(SettingError::Servers),
            Property::Password => return Err(SettingError::EmptySecret),
        })
    }
}

impl Settings {
    pub fn apply(&mut self, setting: &Setting) {
        match setting.clone() {
            Setting::Adaptation(name) => self.adaptation = Some(name),
            Setting::BDigitsMode(mode) => self.b_digits_mode = mode,
            Setting::Enabled(on) => self.enabled = on,
            Setting::FullDialNumber(on) => self.full_dial_number = on,
            Setting::Password(hash) => self.password = Some(hash),
            Setting::PlatformId(id) => self.platform_id = id,
            Setting::PrivatePhonePrefix(prefix) => self.private_phone_prefix = prefix,
            Setting::AddServer(mediator, secret) => drop(self.radius_servers.insert(mediator, secret)),
            Setting::RemoveServer(mediator) => drop(self.radius_servers.remove(&mediator)),
            Setting::SendOptionalCfNotification(on) => self.send_optional_cf_notification = on,
            Setting::StrictIntercityNumbers(on) => self.strict_intercity_numbers = on,
            Setting::StrictPrivateNumbers(on) => self.strict_private_numbers = on,
        }
    }

    pub fn clean(&mut self, property: Property) {
        let new = Self::default();
        match property {
            Property::Adaptation => self.adaptation = new.adaptation,
            Property::BDigitsMode => self.b_digits_mode = new.b_digits_mode,
            Property::Enabled => self.enabled = new.enabled,
            Property::FullDialNumber => self.full_dial_number = new.full_dial_number,
            Property::Password => self.password = new.password,
            Property::PlatformId => self.platform_id = new.platform_id,
            Property::PrivatePhonePrefix => self.private_phone_prefix = new.private_phone_prefix,
            Property::RadiusServers => self.radius_servers = new.radius_servers,
            Property::SendOptionalCfNotification => {
                self.send_optional_cf_notification = new.send_optional_cf_notification;
            }
            Property::StrictIntercityNumbers => self.strict_intercity_numbers = new.strict_intercity_numbers,
            Property::StrictPrivateNumbers => self.strict_private_numbers = new.strict_private_numbers,
        }
    }

    /// Every setting as the table shows it; secrets are marks.
    pub fn shown(&self) -> Vec<(Property, String)> {
        let servers = self.radius_servers.keys().map(|m| format!("\"{m}\": \"{MARK}\""));
        let value = |property| match property {
            Property::Adaptation => self.adaptation.clone().unwrap_or_default(),
            Property::BDigitsMode => self.b_digits_mode.to_string(),
            Property::Enabled => self.enabled.to_string(),
            Property::FullDialNumber => self.full_dial_number.to_string(),
            Property::Password => self.password.as_ref().map_or("", |_| MARK).to_owned(),
            Property::PlatformId => self.platform_id.to_string(),
            Property::PrivatePhonePrefix => self.private_phone_prefix.clone(),
            Property::RadiusServers => servers.clone().collect::<Vec<_>>().join(", "),
            Property::SendOptionalCfNotification => self.send_optional_cf_notification.to_string(),
            Property::StrictIntercityNumbers => self.strict_intercity_numbers.to_string(),
            Property::StrictPrivateNumbers => self.strict_private_numbers.to_string(),
        };
        Property::iter().map(|p| (p, value(p))).collect()
    }

    /// The mediator that works from this address.
    pub fn mediator_at(&self, ip: IpAddr) -> Option<Mediator> {
        self.radius_servers.keys().find(|m| m.ip() == ip).copied()
    }

    /// What is missing before a mediator can work with the domain.
    pub fn ready(&self) -> Result<(), &'static str> {
        if !self.enabled {
            return Err("enabled is false");
        }
        if self.radius_servers.is_empty() {
            return Err("radius_servers is empty");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_cleaned_to_what_they_were() {
        let mut settings = Settings::default();
        for (property, good, bad) in [
            (Property::BDigitsMode, "routing", "both"),
            (Property::Enabled, "true", "yes"),
            (Property::PlatformId, "999", "70000"),
            (Property::PrivatePhonePrefix, "38327", "+7"),
            (Property::StrictPrivateNumbers, "true", ""),
            (Property::SendOptionalCfNotification, "false", "0"),
        ] {
            assert!(Setting::plain(property, bad).is_err(), "{property}");
            settings.apply(&Setting::plain(property, good).expect("a value"));
            assert!(settings.shown().contains(&(property, good.to_owned())), "{property}");
            settings.clean(property);
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn mediators_are_addresses_and_their_secrets_are_not_shown() {
        let mediator: Mediator = "192.168.23.235".parse().expect("an address");
        assert_eq!((mediator.0.port(), mediator.to_string()), (RADIUS_PORT, "192.168.23.235".to_owned()));
        assert_eq!("127.0.0.1:4000".parse::<Mediator>().map(|m| m.to_string()), Ok("127.0.0.1:4000".into()));
        assert!("0.0.0.0".parse::<Mediator>().is_err() && "mediator".parse::<Mediator>().is_err());
        let mut settings = Settings::default();
        settings.apply(&Setting::AddServer(mediator, Sealed("2testing123".into())));
        settings.apply(&Setting::Password(Sealed("123".into())));
        let shown = format!("{:?} {settings:?}", settings.shown());
        assert!(shown.contains("192.168.23.235") && !shown.contains("123\"") && !shown.contains("testing"));
    }
}
