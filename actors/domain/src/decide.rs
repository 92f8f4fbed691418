//! What the commands on a domain lead to: pure decisions on its state.

use std::collections::HashSet;

use kit::Sealed;

use crate::{
    routing::{context::Context, digitmap::Digitmap, mask::symbols},
    state::{
        Alias, Authentication, Binding, BoundAlias, CDR_GROUP, CdrGroup, DomainEvent as E, DomainState,
        SipUser, Trunk, UserChange, Value,
    },
};

/// Users to declare, one for each interface.
#[derive(Debug)]
pub struct NewUsers {
    pub context: String,
    pub group: String,
    /// Interface, alias address if it gets one, login, uid, sealed password.
    pub users: Vec<(String, Option<String>, String, String, Sealed)>,
    pub authentication: Authentication,
    /// Subscribers the licence still allows.
    pub room: u64,
}

/// What an operator wants of a domain.
#[derive(Debug)]
pub enum DomainCommand {
    SetProperty {
        name: String,
        value: String,
    },
    SetRestriction {
        name: String,
        value: u64,
        licence_limit: u64,
    },
    SetIpSets(Vec<String>),
    SetProfile {
        profile: String,
        name: String,
        value: String,
    },
    DeclareUsers(NewUsers),
    RemoveUsers(Vec<String>),
    SetUser {
        group: String,
        iface: String,
        name: String,
        value: String,
    },
    ChangeUser {
        group: String,
        iface: String,
        change: UserChange,
    },
    DeclareAlias {
        address: String,
        group: String,
        iface: String,
    },
    RemoveAliases(Vec<String>),
    SetAliases {
        addresses: Vec<String>,
        group: String,
        iface: String,
        name: String,
        value: Value,
    },
    SetUid {
        address: String,
        group: String,
        iface: String,
        uid: String,
    },
    DeclarePlan {
        plan: String,
        digitmap: Option<Digitmap>,
        description: String,
    },
    RemovePlan(String),
    AddNumbers {
        plan: String,
        numbers: Vec<String>,
    },
    RemoveNumbers {
        plan: String,
        numbers: Vec<String>,
    },
    BindBridge {
        plan: String,
        numbers: Vec<String>,
        bridge: String,
    },
    BindAliases {
        plan: String,
        numbers: Vec<String>,
        aliases: Vec<String>,
        group: Option<String>,
        iface: Option<String>,
        master: bool,
    },
    Unbind {
        plan: String,
        numbers: Vec<String>,
    },
    Import(Box<Context>),
    RemoveContext(String),
    DeclareTrunk(Trunk),
    RemoveTrunk(String),
    SetTrunk {
        name: String,
        property: String,
        value: Value,
    },
    SetCdrGroup {
        name: String,
        group: CdrGroup,
    },
    RemoveCdrGroup(String),
    /// Switches a supplementary service of numbers; options given are added to those known.
    SetService {
        addresses: Vec<String>,
        service: String,
        active: bool,
        options: Vec<(String, String)>,
    },
    /// Takes over all settings of another domain except interfaces and aliases.
    Copy {
        from: std::sync::Arc<DomainState>,
        digitmap: Option<Digitmap>,
        bridge: Option<(String, String)>,
    },
}

/// Why a command on a domain was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("New value {value} for limit {name} more than licence limit {limit}.")]
    OverLicence { name: String, value: u64, limit: u64 },
    #[error("already_exists: {0}")]
    UserExists(String),
    #[error("already_exists: alias {0} belongs to {1}")]
    AliasExists(String, String),
    #[error("licence_limit: {wanted} subscribers wanted, the licence allows {room} more")]
    LicenceLimit { wanted: u64, room: u64 },
    #[error(
        "domain_limit: {wanted} subscribers wanted, the domain's restriction subscribers\\limit is {limit}"
    )]
    DomainLimit { wanted: u64, limit: u64 },
    #[error("no_such_iface: {0}; sip/user/list shows all")]
    NoIface(String),
    #[error("bad_group: interface {0} is in group {1}, not {2}")]
    BadGroup(String, String, String),
    #[error("alias {0} belongs to interface {1}, not {2}")]
    OtherIface(String, String, String),
    #[error("there is no alias {0}; alias/list shows all")]
    NoAlias(String),
    #[error("there is no number plan {0:?}; np/list shows all, np/declare makes one")]
    NoPlan(String),
    #[error("number plan {0:?} exists already")]
    PlanExists(String),
    #[error("{0:?} is no number: 1 to 64 of 0-9, *, #, A-D")]
    NotANumber(String),
    #[error("number {0} is not in plan {1}; np/numbers/add adds it")]
    NoNumber(String, String),
    #[error("{0} numbers cannot be bound to {1} local numbers: the ranges must be of one size")]
    Sizes(usize, usize),
    #[error("number {0} already has the master {1}; unbind it first")]
    SecondMaster(String, String),
    #[error("number {0} would be bound to itself")]
    ItsOwn(String),
    #[error("there is no context {0:?}; routing/list shows all")]
    NoContext(String),
    #[error("trunk {0:?} exists already")]
    TrunkExists(String),
    #[error("there is no trunk {0:?}; trunk/sip/list shows all")]
    NoTrunk(String),
    #[error(
        "there is no group of call records {0:?}; cdr/list_cdr_groups shows all, cdr/add_cdr_group makes one"
    )]
    NoCdrGroup(String),
    #[error("no_such_profile: {0:?}; sip/user/profile/list shows all")]
    NoProfile(String),
    #[error("uid {0} belongs to {1} already")]
    UidTaken(String, String),
}

type Decided = Result<Vec<E>, DomainError>;

/// Name of the restriction on declared subscribers.
pub const SUBSCRIBERS: &str = "subscribers\\limit";

pub(crate) fn decide(state: &DomainState, command: DomainCommand) -> Decided {
    use DomainCommand as C;
    match command {
        C::SetProperty { name, value } => Ok(vec![E::PropertySet { name, value }]),
        C::SetRestriction { name, value, licence_limit } => {
            if value > licence_limit {
                return Err(DomainError::OverLicence { name, value, limit: licence_limit });
            }
            Ok(vec![E::RestrictionSet { name, value }])
        }
        C::SetIpSets(sets) => Ok(vec![E::IpSetsSet { sets }]),
        C::SetProfile { profile, name, value } => Ok(vec![E::ProfileSet { profile, name, value }]),
        C::DeclareUsers(new) => declare_users(state, new),
        C::RemoveUsers(ifaces) => match ifaces.iter().find(|i| !state.users.contains_key(*i)) {
            Some(missing) => Err(DomainError::NoIface(missing.clone())),
            None => Ok(vec![E::UsersRemoved { ifaces }]),
        },
        C::SetUser { group, iface, name, value } => {
            let user = iface_in(state, &iface, &group)?;
            if name == "client-profile" && !state.profiles.contains_key(&value) {
                return Err(DomainError::NoProfile(value));
            }
            Ok(vec![E::UserSet { iface: user.iface.clone(), name, value }])
        }
        C::ChangeUser { group, iface, change } => {
            let user = iface_in(state, &iface, &group)?;
            Ok(vec![E::UserChanged { iface: user.iface.clone(), change }])
        }
        C::DeclareAlias { address, group, iface } => {
            let user = iface_in(state, &iface, &group)?;
            if let Some(owner) = state.aliases.get(&address) {
                return Err(DomainError::AliasExists(address, owner.iface.clone()));
            }
            check_numbers(std::slice::from_ref(&address))?;
            let iface = user.iface.clone();
            let alias = Alias { address, group, iface, properties: imbl::OrdMap::new() };
            Ok(vec![E::AliasDeclared { alias }])
        }
        C::RemoveAliases(addresses) => match addresses.iter().find(|a| !state.aliases.contains_key(*a)) {
            Some(missing) => Err(DomainError::NoAlias(missing.clone())),
            None => Ok(vec![E::AliasesRemoved { addresses }]),
        },
        C::SetAliases { name, value: Value::Plain(group), .. } if unknown_group(state, &name, &group) => {
            Err(DomainError::NoCdrGroup(group))
        }
        C::SetAliases { addresses, group, iface, name, value } => {
            for address in &addresses {
                alias_on(state, address, &group, &iface)?;
            }
            Ok(vec![E::AliasesSet { addresses, name, value }])
        }
        C::SetUid { address, group, iface, uid } => {
            let user = alias_on(state, &address, &group, &iface)?;
            match state.uids.get(&uid) {
                Some(owner) if *owner != user.iface => Err(DomainError::UidTaken(uid, owner.clone())),
                _ => Ok(vec![E::UidSet { iface: user.iface.clone(), uid }]),
            }
        }
        C::DeclarePlan { plan, digitmap, description } => {
            if state.plans.contains_key(&plan) {
                return Err(DomainError::PlanExists(plan));
            }
            Ok(vec![E::PlanDeclared { plan, digitmap, description }])
        }
        C::RemovePlan(plan) => known_plan(state, &plan).map(|_| vec![E::PlanRemoved { plan: plan.clone() }]),
        C::AddNumbers { plan, numbers } => {
            let known = known_plan(state, &plan)?;
            check_numbers(&numbers)?;
            let numbers: Vec<String> =
                numbers.into_iter().filter(|n| !known.numbers.contains_key(n)).collect();
            Ok(if numbers.is_empty() { vec![] } else { vec![E::NumbersAdded { plan, numbers }] })
        }
        C::RemoveNumbers { plan, numbers } => {
            numbers_of(state, &plan, &numbers)?;
            Ok(vec![E::NumbersRemoved { plan, numbers }])
        }
        C::BindBridge { plan, numbers, bridge } => {
            numbers_of(state, &plan, &numbers)?;
            Ok(vec![E::NumbersBoundToBridge { plan, numbers, bridge }])
        }
        C::BindAliases { plan, numbers, aliases, group, iface, master } => {
            bind_aliases(state, plan, &numbers, &aliases, group, iface, master)
        }
        C::Unbind { plan, numbers } => {
            numbers_of(state, &plan, &numbers)?;
            Ok(vec![E::NumbersUnbound { plan, numbers }])
        }
        C::Import(context) => Ok(vec![E::ContextImported { context }]),
        C::RemoveContext(name) if !state.contexts.contains_key(&name) => Err(DomainError::NoContext(name)),
        C::RemoveContext(name) => Ok(vec![E::ContextRemoved { name }]),
        C::DeclareTrunk(trunk) if state.trunks.contains_key(&trunk.name) => {
            Err(DomainError::TrunkExists(trunk.name))
        }
        C::DeclareTrunk(trunk) => Ok(vec![E::TrunkDeclared { trunk }]),
        C::RemoveTrunk(name) if !state.trunks.contains_key(&name) => Err(DomainError::NoTrunk(name)),
        C::RemoveTrunk(name) => Ok(vec![E::TrunkRemoved { name }]),
        C::SetTrunk { name, .. } if !state.trunks.contains_key(&name) => Err(DomainError::NoTrunk(name)),
        C::SetTrunk { property, value: Value::Plain(group), .. }
            if unknown_group(state, &property, &group) =>
        {
            Err(DomainError::NoCdrGroup(group))
        }
        C::SetTrunk { name, property, value } => Ok(vec![E::TrunkSet { name, property, value }]),
        C::SetCdrGroup { name, mut group } => {
            group.since = state.cdr_groups.get(&name).map_or(group.since, |known| known.since);
            Ok(vec![E::CdrGroupSet { name, group }])
        }
        C::RemoveCdrGroup(name) if !state.cdr_groups.contains_key(&name) => {
            Err(DomainError::NoCdrGroup(name))
        }
        C::RemoveCdrGroup(name) => Ok(vec![E::CdrGroupRemoved { name }]),
        C::SetService { addresses, service, active, options } => {
            let set = |address: String| {
                if !state.aliases.contains_key(&address) {
                    return Err(DomainError::NoAlias(address));
                }
                let known = state.services.get(&address).and_then(|all| all.get(&service));
                let mut set = known.cloned().unwrap_or_default();
                set.active = active;
                set.options.extend(options.iter().cloned());
                Ok(E::ServiceSet { address, service: service.clone(), state: set })
            };
            addresses.into_iter().map(set).collect()
        }
        C::Copy { from, digitmap, bridge } => Ok(copy(&from, digitmap, bridge)),
    }
}

/// Whether a property names a group of call records that is not there.
fn unknown_group(state: &DomainState, property: &str, group: &str) -> bool {
    property == CDR_GROUP && !group.is_empty() && !state.cdr_groups.contains_key(group)
}

fn known_plan<'s>(state: &'s DomainState, plan: &str) -> Result<&'s crate::state::Plan, DomainError> {
    state.plans.get(plan).ok_or_else(|| DomainError::NoPlan(plan.to_owned()))
}

fn check_numbers(numbers: &[String]) -> Result<(), DomainError> {
    match numbers.iter().find(|n| n.is_empty() || symbols(n).is_none()) {
        Some(bad) => Err(DomainError::NotANumber(bad.clone())),
        None => Ok(()),
    }
}

fn numbers_of(state: &DomainState, plan: &str, numbers: &[String]) -> Result<(), DomainError> {
    let known = known_plan(state, plan)?;
    match numbers.iter().find(|n| !known.numbers.contains_key(*n)) {
        Some(missing) => Err(DomainError::NoNumber(missing.clone(), plan.to_owned())),
        None => Ok(()),
    }
}

fn iface_in<'s>(state: &'s DomainState, iface: &str, group: &str) -> Result<&'s SipUser, DomainError> {
    let user = state.iface(iface).ok_or_else(|| DomainError::NoIface(iface.to_owned()))?;
    if user.group != group {
        return Err(DomainError::BadGroup(user.iface.clone(), user.group.clone(), group.to_owned()));
    }
    Ok(user)
}

fn alias_on<'s>(
    state: &'s DomainState,
    address: &str,
    group: &str,
    iface: &str,
) -> Result<&'s SipUser, DomainError> {
    let alias = state.aliases.get(address).ok_or_else(|| DomainError::NoAlias(address.to_owned()))?;
    let user = iface_in(state, iface, group)?;
    if alias.iface != user.iface {
        return Err(DomainError::OtherIface(address.to_owned(), alias.iface.clone(), user.iface.clone()));
    }
    Ok(user)
}

fn declare_users(state: &DomainState, new: NewUsers) -> Decided {
    let wanted = new.users.len() as u64;
    if wanted > new.room {
        return Err(DomainError::LicenceLimit { wanted, room: new.room });
    }
    if let Some(limit) = state.restrictions.get(SUBSCRIBERS)
        && state.users.len() as u64 + wanted > *limit
    {
        return Err(DomainError::DomainLimit { wanted, limit: *limit });
    }
    let mut users = Vec::new();
    let mut aliases = Vec::new();
    let mut taken = HashSet::new();
    for (iface, alias, login, uid, password) in new.users {
        if state.users.contains_key(&iface) || !taken.insert(iface.clone()) {
            return Err(DomainError::UserExists(iface));
        }
        if let Some(address) = alias {
            if let Some(owner) = state.aliases.get(&address) {
                return Err(DomainError::AliasExists(address, owner.iface.clone()));
            }
            check_numbers(std::slice::from_ref(&address))?;
            let (group, iface) = (new.group.clone(), iface.clone());
            aliases.push(Alias { address, group, iface, properties: imbl::OrdMap::new() });
        }
        users.push(SipUser {
            iface,
            uid,
            group: new.group.clone(),
            context: new.context.clone(),
            authentication: new.authentication,
            login,
            password,
            properties: imbl::OrdMap::new(),
        });
    }
    Ok(vec![E::UsersDeclared { users, aliases }])
}

fn bind_aliases(
    state: &DomainState,
    plan: String,
    numbers: &[String],
    aliases: &[String],
    group: Option<String>,
    iface: Option<String>,
    master: bool,
) -> Decided {
    let known = known_plan(state, &plan)?;
    check_numbers(numbers)?;
    if numbers.len() != aliases.len() {
        return Err(DomainError::Sizes(numbers.len(), aliases.len()));
    }
    let mut bound = Vec::new();
    for (number, address) in numbers.iter().zip(aliases) {
        if number == address {
            return Err(DomainError::ItsOwn(number.clone()));
        }
        match (&group, &iface) {
            (Some(g), Some(i)) => drop(alias_on(state, address, g, i)?),
            // A number may also lead to another number of the plan.
            _ if !state.aliases.contains_key(address) && !known.numbers.contains_key(address) => {
                return Err(DomainError::NoAlias(address.clone()));
            }
            _ => {}
        }
        if let (true, Some(Binding::Aliases(all))) = (master, known.numbers.get(number))
            && let Some(other) = all.iter().find(|a| a.master && a.address != *address)
        {
            return Err(DomainError::SecondMaster(number.clone(), other.address.clone()));
        }
        let (group, iface) = (group.clone(), iface.clone());
        bound.push((number.clone(), BoundAlias { address: address.clone(), group, iface, master }));
    }
    Ok(vec![E::NumbersBoundToAliases { plan, bound }])
}

fn copy(from: &DomainState, digitmap: Option<Digitmap>, bridge: Option<(String, String)>) -> Vec<E> {
    let mut events = Vec::new();
    let own = |s: &String| s.clone();
    events.extend(from.properties.iter().map(|(n, v)| E::PropertySet { name: own(n), value: own(v) }));
    events.extend(from.restrictions.iter().map(|(n, v)| E::RestrictionSet { name: own(n), value: *v }));
    if !from.ip_sets.is_empty() {
        events.push(E::IpSetsSet { sets: from.ip_sets.clone() });
    }
    for (profile, values) in &from.profiles {
        let set =
            |(n, v): (&String, &String)| E::ProfileSet { profile: own(profile), name: own(n), value: own(v) };
        events.extend(values.iter().map(set));
    }
    for (name, plan) in &from.plans {
        let description = plan.description.clone();
        events.push(E::PlanDeclared { plan: own(name), digitmap: plan.digitmap.clone(), description });
        let numbers: Vec<String> = plan.numbers.keys().cloned().collect();
        if !numbers.is_empty() {
            events.push(E::NumbersAdded { plan: own(name), numbers });
        }
    }
    for context in from.contexts.values() {
        let mut context = context.clone();
        if digitmap.is_some() {
            context.digitmap.clone_from(&digitmap);
        }
        if let Some((source, target)) = &bridge {
            context = context.with_bridge(source, target);
        }
        events.push(E::ContextImported { context: Box::new(context) });
    }
    events
}
