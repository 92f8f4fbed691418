//! Who runs a command and what that person may do.

use std::{collections::BTreeSet, fmt, str::FromStr};

use kit::journal::Origin;
use serde::{Deserialize, Serialize};

/// What an operator's roles grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// `ecss-system-admin`: everything.
    #[serde(default)]
    pub system: bool,
    /// `ecss-read-only`: every command that only looks, except those for system administrators.
    #[serde(default)]
    pub read_only: bool,
    /// `ecss-<DOMAIN>-domain-admin`: everything below `/domain/<DOMAIN>`, and nothing else.
    #[serde(default)]
    pub domains: BTreeSet<String>,
}

/// A text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role; roles are ecss-system-admin, ecss-read-only and ecss-<DOMAIN>-domain-admin")]
pub struct GrantsError(String);

impl Grants {
    pub fn system() -> Self {
        Self { system: true, ..Self::default() }
    }

    /// The names of the roles.
    pub fn roles(&self) -> Vec<String> {
        let mut roles = Vec::new();
        if self.system {
            roles.push("ecss-system-admin".to_owned());
        }
        if self.read_only {
            roles.push("ecss-read-only".to_owned());
        }
        roles.extend(self.domains.iter().map(|d| format!("ecss-{d}-domain-admin")));
        roles
    }

    /// Whether this person may see anything of a domain.
    pub fn sees_domain(&self, domain: &str) -> bool {
        self.system || self.read_only || self.domains.contains(domain)
    }

    /// Takes one more role.
    pub fn add(&mut self, role: &str) -> Result<(), GrantsError> {
        match role {
            "ecss-system-admin" => self.system = true,
            "ecss-read-only" => self.read_only = true,
            _ => {
                let domain = role.strip_prefix("ecss-").and_then(|r| r.strip_suffix("-domain-admin"));
                let domain = domain.filter(|d| !d.is_empty()).ok_or_else(|| GrantsError(role.to_owned()))?;
                self.domains.insert(domain.to_owned());
            }
        }
        Ok(())
    }
}

impl FromStr for Grants {
    type Err = GrantsError;

    /// Roles separated by commas.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut grants = Self::default();
        for role in s.split(',').map(str::trim) {
            grants.add(role)?;
        }
        Ok(grants)
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.roles().join(","))
    }
}

/// The person, or program, behind a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    /// Where from: `ssh 127.0.0.1:50412`, `web 127.0.0.1`, `replay`.
    pub from: String,
    pub grants: Grants,
}

impl Caller {
    pub fn origin(&self) -> Origin {
        Origin { who: self.name.clone(), from: self.from.clone() }
    }
}
