//! A virtual PBX as its events have made it.

use chrono::{DateTime, Utc};
use imbl::{OrdMap, OrdSet};
use kit::{Sealed, journal::Fold};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{
    licence::Terms,
    routing::{context::Context, digitmap::Digitmap},
};

/// Property of an alias or a trunk: where records of its calls go.
pub const CDR_GROUP: &str = "cdr_group";

/// How a subscriber's requests are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Authentication {
    QopAuthentication,
    NoQopAuthentication,
    NoAuthentication,
}

/// A SIP user: an interface with at most one alias of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SipUser {
    /// `200100@voip.local`
    pub iface: String,
    /// Identity of the interface, 16 hex digits.
    pub uid: String,
    pub group: String,
    pub context: String,
    pub authentication: Authentication,
    pub login: String,
    pub password: Sealed,
    #[serde(default)]
    pub properties: OrdMap<String, String>,
}

impl SipUser {
    /// What stands before the `@`.
    pub fn user(&self) -> &str {
        self.iface.split('@').next().unwrap_or_default()
    }
}

/// A change of a SIP user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
pub enum UserChange {
    Password(Sealed),
    Login(String),
    Group(String),
    Context(String),
    Authentication(Authentication),
}

/// A number inside the domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    pub address: String,
    pub group: String,
    pub iface: String,
    #[serde(default)]
    pub properties: OrdMap<String, Value>,
}

/// A property's value; passwords are sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Sealed { sealed: Sealed },
    Plain(String),
}

impl Value {
    pub fn shown(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Sealed { .. } => "******",
        }
    }
}

/// A number plan: full numbers and what each leads to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plan {
    #[serde(default)]
    pub digitmap: Option<Digitmap>,
    #[serde(default)]
    pub description: String,
    pub numbers: OrdMap<String, Binding>,
    /// Full numbers of a local one.
    pub of_alias: OrdMap<String, OrdSet<String>>,
}

/// What a full number is bound to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Binding {
    #[default]
    Free,
    /// The call goes over the bridge of this name.
    Bridge(String),
    /// One of them may be the master: it takes the calls.
    Aliases(Vec<BoundAlias>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundAlias {
    pub address: String,
    pub group: Option<String>,
    /// As given: the interface's uid or name.
    pub iface: Option<String>,
    pub master: bool,
}

impl Binding {
    /// Whom a call to the number reaches: the master, or the first bound.
    pub fn taker(&self) -> Option<&BoundAlias> {
        match self {
            Self::Aliases(all) => all.iter().find(|a| a.master).or(all.first()),
            _ => None,
        }
    }
}

impl Plan {
    /// The full number under which a local one appears outside: where it is the master, else the first.
    pub fn full_number(&self, local: &str) -> Option<&str> {
        let numbers = self.of_alias.get(local)?;
        let is_master = |number: &&String| match self.numbers.get(*number) {
            Some(Binding::Aliases(all)) => all.iter().any(|a| a.master && a.address == local),
            _ => false,
        };
        numbers.iter().find(is_master).or(numbers.get_min()).map(String::as_str)
    }
}

/// A trunk to a neighbour; it is declared here and comes alive with the SIP endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trunk {
    pub name: String,
    pub context: String,
    pub group: String,
    pub ip_set: String,
    pub kind: TrunkKind,
    pub listen_port: u16,
    #[serde(default)]
    pub properties: OrdMap<String, Value>,
}

impl Trunk {
    /// What its passwords are sealed for.
    pub fn purpose(domain: &str, trunk: &str) -> String {
        format!("domain/{domain}/trunk/{trunk}")
    }

    /// A property that is no secret.
    pub fn property(&self, name: &str) -> Option<&str> {
        match self.properties.get(name)? {
            Value::Plain(text) => Some(text),
            Value::Sealed { .. } => None,
        }
    }

    pub fn secret(&self, name: &str) -> Option<&Sealed> {
        match self.properties.get(name)? {
            Value::Sealed { sealed } => Some(sealed),
            Value::Plain(_) => None,
        }
    }
}

/// A group of call records, kept in files of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrGroup {
    /// What its files' names begin with.
    pub prefix: String,
    pub close: CloseFile,
    /// When it was made: calls that ended before are none of its.
    pub since: DateTime<Utc>,
}

/// When a file of records is closed and the next one begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CloseFile {
    /// After so many records.
    Count(u32),
    /// After so many seconds.
    Period(u32),
    /// At these minutes of the day.
    Time(Vec<u16>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrunkKind {
    Static { host: String, port: u16 },
}

/// A supplementary service of a number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceState {
    pub active: bool,
    /// `number` of a forwarding, `timeout`, …
    pub options: OrdMap<String, String>,
}

/// A domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DomainState {
    pub properties: OrdMap<String, String>,
    pub restrictions: OrdMap<String, u64>,
    pub ip_sets: Vec<String>,
    pub profiles: OrdMap<String, OrdMap<String, String>>,
    pub users: OrdMap<String, SipUser>,
    /// uid to interface.
    pub uids: OrdMap<String, String>,
    pub aliases: OrdMap<String, Alias>,
    pub plans: OrdMap<String, Plan>,
    pub contexts: OrdMap<String, Context>,
    pub trunks: OrdMap<String, Trunk>,
    /// By number and name of the service.
    #[serde(default)]
    pub services: OrdMap<String, OrdMap<String, ServiceState>>,
    #[serde(default)]
    pub cdr_groups: OrdMap<String, CdrGroup>,
}

impl DomainState {
    /// Elph clients that may be registered: the domain's restriction, within the licence.
    pub fn elph_members(&self, terms: &Terms) -> u64 {
        let own = self.restrictions.get("elph\\member\\limit").copied();
        own.unwrap_or(terms.elph_members).min(terms.elph_members)
    }
}

/// Events of a domain's stream.
#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum DomainEvent {
    PropertySet { name: String, value: String },
    RestrictionSet { name: String, value: u64 },
    IpSetsSet { sets: Vec<String> },
    ProfileSet { profile: String, name: String, value: String },
    UsersDeclared { users: Vec<SipUser>, aliases: Vec<Alias> },
    UsersRemoved { ifaces: Vec<String> },
    UserSet { iface: String, name: String, value: String },
    UserChanged { iface: String, change: UserChange },
    AliasDeclared { alias: Alias },
    AliasesRemoved { addresses: Vec<String> },
    AliasesSet { addresses: Vec<String>, name: String, value: Value },
    AliasUnset { address: String, name: String },
    UidSet { iface: String, uid: String },
    PlanDeclared { plan: String, digitmap: Option<Digitmap>, description: String },
    PlanRemoved { plan: String },
    NumbersAdded { plan: String, numbers: Vec<String> },
    NumbersRemoved { plan: String, numbers: Vec<String> },
    NumbersBoundToBridge { plan: String, numbers: Vec<String>, bridge: String },
    NumbersBoundToAliases { plan: String, bound: Vec<(String, BoundAlias)> },
    NumbersUnbound { plan: String, numbers: Vec<String> },
    ContextImported { context: Box<Context> },
    ContextRemoved { name: String },
    TrunkDeclared { trunk: Trunk },
    TrunkRemoved { name: String },
    ServiceSet { address: String, service: String, state: ServiceState },
    TrunkSet { name: String, property: String, value: Value },
    CdrGroupSet { name: String, group: CdrGroup },
    CdrGroupRemoved { name: String },
}

impl Plan {
    fn unbind(&mut self, number: &str) {
        if let Some(Binding::Aliases(all)) = self.numbers.get(number) {
            for bound in all.clone() {
                self.forget_alias(&bound.address, number);
            }
        }
        if let Some(binding) = self.numbers.get_mut(number) {
            *binding = Binding::Free;
        }
    }

    fn forget_alias(&mut self, address: &str, number: &str) {
        if let Some(numbers) = self.of_alias.get_mut(address) {
            numbers.remove(number);
            if numbers.is_empty() {
                self.of_alias.remove(address);
            }
        }
    }

    fn bind_alias(&mut self, number: &str, bound: &BoundAlias) {
        let Some(binding) = self.numbers.get_mut(number) else { return };
        let mut all = match std::mem::take(binding) {
            Binding::Aliases(all) => all,
            _ => Vec::new(),
        };
        all.retain(|a| a.address != bound.address);
        all.push(bound.clone());
        *binding = Binding::Aliases(all);
        self.of_alias.entry(bound.address.clone()).or_default().insert(number.to_owned());
    }
}

impl Fold for DomainState {
    type Event = DomainEvent;

    fn apply(&mut self, event: &DomainEvent) {
        use DomainEvent as E;
        match event {
            E::PropertySet { name, value } => drop(self.properties.insert(name.clone(), value.clone())),
            E::RestrictionSet { name, value } => drop(self.restrictions.insert(name.clone(), *value)),
            E::IpSetsSet { sets } => self.ip_sets.clone_from(sets),
            E::ProfileSet { profile, name, value } => {
                self.profiles.entry(profile.clone()).or_default().insert(name.clone(), value.clone());
            }
            E::UsersDeclared { users, aliases } => {
                for user in users {
                    self.uids.insert(user.uid.clone(), user.iface.clone());
                    self.users.insert(user.iface.clone(), user.clone());
                }
                for alias in aliases {
                    self.aliases.insert(alias.address.clone(), alias.clone());
                }
            }
            E::UsersRemoved { ifaces } => {
                for iface in ifaces {
                    if let Some(user) = self.users.remove(iface) {
                        self.uids.remove(&user.uid);
                    }
                }
                let gone: Vec<String> = self
                    .aliases
                    .values()
                    .filter(|a| ifaces.contains(&a.iface))
                    .map(|a| a.address.clone())
                    .collect();
                for address in gone {
                    self.aliases.remove(&address);
                    self.services.remove(&address);
                }
            }
            E::UserSet { iface, name, value } => {
                if let Some(user) = self.users.get_mut(iface) {
                    user.properties.insert(name.clone(), value.clone());
                }
            }
            E::UserChanged { iface, change } => self.change_user(iface, change),
            E::AliasDeclared { alias } => drop(self.aliases.insert(alias.address.clone(), alias.clone())),
            E::AliasesRemoved { addresses } => {
                for address in addresses {
                    self.aliases.remove(address);
                    self.services.remove(address);
                }
            }
            E::AliasesSet { addresses, name, value } => {
                for address in addresses {
                    if let Some(alias) = self.aliases.get_mut(address) {
                        alias.properties.insert(name.clone(), value.clone());
                    }
                }
            }
            E::AliasUnset { address, name } => {
                if let Some(alias) = self.aliases.get_mut(address) {
                    alias.properties.remove(name);
                }
            }
            E::UidSet { iface, uid } => {
                if let Some(user) = self.users.get_mut(iface) {
                    self.uids.remove(&user.uid);
                    user.uid.clone_from(uid);
                    self.uids.insert(uid.clone(), iface.clone());
                }
            }
            E::PlanDeclared { plan, digitmap, description } => {
                let plan = self.plans.entry(plan.clone()).or_default();
                plan.digitmap.clone_from(digitmap);
                plan.description.clone_from(description);
            }
            E::PlanRemoved { plan } => drop(self.plans.remove(plan)),
            E::NumbersAdded { plan, numbers } => {
                if let Some(plan) = self.plans.get_mut(plan) {
                    for number in numbers {
                        plan.numbers.entry(number.clone()).or_default();
                    }
                }
            }
            E::NumbersRemoved { plan, numbers } => {
                if let Some(plan) = self.plans.get_mut(plan) {
                    for number in numbers {
                        plan.unbind(number);
                        plan.numbers.remove(number);
                    }
                }
            }
            E::NumbersBoundToBridge { plan, numbers, bridge } => {
                if let Some(plan) = self.plans.get_mut(plan) {
                    for number in numbers {
                        plan.unbind(number);
                        plan.numbers.insert(number.clone(), Binding::Bridge(bridge.clone()));
                    }
                }
            }
            E::NumbersBoundToAliases { plan, bound } => {
                if let Some(plan) = self.plans.get_mut(plan) {
                    for (number, alias) in bound {
                        // As in the manual's example, binding a number also adds it to the plan.
                        plan.numbers.entry(number.clone()).or_default();
                        plan.bind_alias(number, alias);
                    }
                }
            }
            E::NumbersUnbound { plan, numbers } => {
                if let Some(plan) = self.plans.get_mut(plan) {
                    numbers.iter().for_each(|n| plan.unbind(n));
                }
            }
            E::ContextImported { context } => {
                drop(self.contexts.insert(context.name.clone(), (**context).clone()));
            }
            E::ContextRemoved { name } => drop(self.contexts.remove(name)),
            E::TrunkDeclared { trunk } => drop(self.trunks.insert(trunk.name.clone(), trunk.clone())),
            E::TrunkRemoved { name } => drop(self.trunks.remove(name)),
            E::TrunkSet { name, property, value } => {
                if let Some(trunk) = self.trunks.get_mut(name) {
                    trunk.properties.insert(property.clone(), value.clone());
                }
            }
            E::CdrGroupSet { name, group } => drop(self.cdr_groups.insert(name.clone(), group.clone())),
            E::CdrGroupRemoved { name } => drop(self.cdr_groups.remove(name)),
            E::ServiceSet { address, service, state } => {
                self.services.entry(address.clone()).or_default().insert(service.clone(), state.clone());
            }
        }
    }
}

impl DomainState {
    fn change_user(&mut self, iface: &str, change: &UserChange) {
        let Some(user) = self.users.get_mut(iface) else { return };
        match change {
            UserChange::Password(sealed) => user.password = sealed.clone(),
            UserChange::Login(login) => user.login.clone_from(login),
            UserChange::Context(context) => user.context.clone_from(context),
            UserChange::Authentication(how) => user.authentication = *how,
            UserChange::Group(group) => {
                user.group.clone_from(group);
                let own: Vec<String> =
                    self.aliases.values().filter(|a| a.iface == iface).map(|a| a.address.clone()).collect();
                for address in own {
                    if let Some(alias) = self.aliases.get_mut(&address) {
                        alias.group.clone_from(group);
                    }
                }
            }
        }
    }

    /// The group of call records of a subscriber's number.
    pub fn cdr_group_of(&self, alias: &str) -> Option<&str> {
        match self.aliases.get(alias)?.properties.get(CDR_GROUP)? {
            Value::Plain(group) => Some(group),
            Value::Sealed { .. } => None,
        }
    }

    /// The interface meant by a name or a uid.
    pub fn iface(&self, name_or_uid: &str) -> Option<&SipUser> {
        self.users.get(name_or_uid).or_else(|| self.users.get(self.uids.get(name_or_uid)?))
    }

    /// The number under which a subscriber calls: the alias of its own name, else one of its interface, else its name.
    pub fn number_of<'s>(&'s self, user: &'s SipUser) -> &'s str {
        // Nearly always the alias has the user's name; else it is looked for.
        let own = self.aliases.get(user.user()).filter(|a| a.iface == user.iface);
        let alias = own.or_else(|| self.aliases.values().find(|a| a.iface == user.iface));
        alias.map_or(user.user(), |a| a.address.as_str())
    }

    /// The context a call from this number starts in: its interface's.
    pub fn context_of(&self, alias: &str) -> Option<&str> {
        Some(&self.users.get(&self.aliases.get(alias)?.iface)?.context)
    }
}
