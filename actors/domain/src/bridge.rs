//! Bridges between domains (manual, "Декларация бриджей").

use imbl::OrdMap;
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// One end of a bridge.
#[derive(Default, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub domain: String,
    /// Number plan whose numbers cross here; `default` is the domain's short numbering.
    pub np: String,
    /// Name the domain's contexts call it by, `bridge:c2v`.
    pub iface: String,
    pub trunk_group: String,
    /// Context where calls that come out here begin.
    pub context: String,
    #[serde(default)]
    pub access_group: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    A,
    B,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    pub name: String,
    /// Calls in both directions, or only from A to B.
    pub duplex: bool,
    /// Whether numbers are checked against side B's plan.
    pub strict: bool,
    /// Calls at the same time; none is unbounded.
    pub capacity: Option<u32>,
    /// Places taken out of service by an operator.
    #[serde(default)]
    pub blocked: u32,
    pub a: Side,
    pub b: Side,
}

impl Side {
    /// One of which there is nothing to be seen but its domain.
    pub fn named(domain: &str) -> Self {
        Self { domain: domain.to_owned(), ..Self::default() }
    }
}

impl Bridge {
    pub fn side(&self, end: End) -> &Side {
        match end {
            End::A => &self.a,
            End::B => &self.b,
        }
    }
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// All bridges of the system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bridges {
    pub all: OrdMap<String, Bridge>,
    /// `domain` and `iface`, joined by a blank, to bridge and end.
    ends: OrdMap<String, (String, End)>,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum BridgeEvent {
    #[strum(serialize = "BridgeDeclared")]
    Declared { bridge: Box<Bridge> },
    #[strum(serialize = "BridgeChanged")]
    Changed { name: String, bridge: Box<Bridge> },
    #[strum(serialize = "BridgeRemoved")]
    Removed { name: String },
    #[strum(serialize = "BridgesCleanedUp")]
    CleanedUp,
    #[strum(serialize = "BridgeBlocked")]
    Blocked { name: String, blocked: u32 },
}

fn key(domain: &str, iface: &str) -> String {
    format!("{domain} {iface}")
}

impl Bridges {
    /// The bridge that a domain's contexts call `iface`.
    pub fn by_iface(&self, domain: &str, iface: &str) -> Option<(&Bridge, End)> {
        let (name, end) = self.ends.get(&key(domain, iface))?;
        Some((self.all.get(name)?, *end))
    }

    /// The end of a bridge in a domain; both ends may be in one.
    pub fn end_in(&self, name: &str, domain: &str) -> Option<(&Bridge, End)> {
        let bridge = self.all.get(name)?;
        let end = [End::A, End::B].into_iter().find(|e| bridge.side(*e).domain == domain)?;
        Some((bridge, end))
    }

    /// Bridges that end in a domain.
    pub fn of_domain(&self, domain: &str) -> impl Iterator<Item = &Bridge> {
        self.all.values().filter(move |b| b.a.domain == domain || b.b.domain == domain)
    }

    fn insert(&mut self, bridge: &Bridge) {
        for end in [End::A, End::B] {
            let side = bridge.side(end);
            self.ends.insert(key(&side.domain, &side.iface), (bridge.name.clone(), end));
        }
        self.all.insert(bridge.name.clone(), bridge.clone());
    }

    fn remove(&mut self, name: &str) {
        if let Some(bridge) = self.all.remove(name) {
            for end in [End::A, End::B] {
                let side = bridge.side(end);
                self.ends.remove(&key(&side.domain, &side.iface));
            }
        }
    }
}

impl Fold for Bridges {
    type Event = BridgeEvent;

    fn apply(&mut self, event: &BridgeEvent) {
        match event {
            BridgeEvent::Declared { bridge } => self.insert(bridge),
            BridgeEvent::Changed { name, bridge } => {
                self.remove(name);
                self.insert(bridge);
            }
            BridgeEvent::Removed { name } => self.remove(name),
            BridgeEvent::CleanedUp => *self = Self::default(),
            BridgeEvent::Blocked { name, blocked } => {
                if let Some(bridge) = self.all.get_mut(name) {
                    bridge.blocked = *blocked;
                }
            }
        }
    }
}

/// What an operator wants of the bridges.
#[derive(Debug)]
pub enum BridgeCommand {
    Declare(Box<Bridge>),
    /// A property of a bridge, in the original's spelling.
    Change {
        name: String,
        property: String,
        value: String,
    },
    Remove(String),
    CleanUp,
    /// Takes this many places out of service; none is all of them.
    Block {
        name: String,
        places: Option<u32>,
    },
    Unblock(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BridgeError {
    #[error("bridge {0:?} exists already; bridge/change changes it, bridge/remove removes it")]
    Exists(String),
    #[error("there is no bridge {0:?}; bridge/list shows all")]
    NotFound(String),
    #[error("domain {0} already has an interface {1}, of bridge {2}")]
    IfaceTaken(String, String, String),
    #[error("both ends of a bridge are the same interface {1} of domain {0}")]
    SameEnds(String, String),
    #[error("{0}: {1}")]
    Value(String, String),
    #[error("a bridge has no property {0:?}; it has {all}", all = PROPERTIES.join(", "))]
    Property(String),
    #[error("the capacity of bridge {0} is unbounded; say how many places to block, or set a capacity first")]
    Unbounded(String),
}

/// The original's names, also where it misspells them.
pub const PROPERTIES: &[&str] = &[
    "name",
    "duplex",
    "strict",
    "capacity",
    "domain_a",
    "np_a",
    "iface_a",
    "trunk_group_a",
    "routing_contex_a",
    "access_group_a",
    "domain_b",
    "np_b",
    "iface_b",
    "trunk_group_b",
    "routing_contex_b",
    "access_group_b",
];

/// `unbounded` or a positive number.
pub fn capacity(text: &str) -> Result<Option<u32>, BridgeError> {
    match text {
        "unbounded" => Ok(None),
        _ => match text.parse::<u32>() {
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => Err(BridgeError::Value(
                "capacity".into(),
                format!("a positive number or unbounded is wanted, not {text:?}"),
            )),
        },
    }
}

fn flag(property: &str, text: &str) -> Result<bool, BridgeError> {
    text.parse()
        .map_err(|_| BridgeError::Value(property.into(), format!("true or false is wanted, not {text:?}")))
}

/// Events a command leads to.
pub fn decide(bridges: &Bridges, command: BridgeCommand) -> Result<Vec<BridgeEvent>, BridgeError> {
    let known = |name: &str| bridges.all.get(name).ok_or_else(|| BridgeError::NotFound(name.to_owned()));
    match command {
        BridgeCommand::Declare(bridge) => {
            if bridges.all.contains_key(&bridge.name) {
                return Err(BridgeError::Exists(bridge.name));
            }
            ends_are_free(bridges, &bridge, None)?;
            Ok(vec![BridgeEvent::Declared { bridge }])
        }
        BridgeCommand::Change { name, property, value } => {
            let mut bridge = known(&name)?.clone();
            change(&mut bridge, &property, value)?;
            if bridge.name != name && bridges.all.contains_key(&bridge.name) {
                return Err(BridgeError::Exists(bridge.name));
            }
            ends_are_free(bridges, &bridge, Some(&name))?;
            Ok(vec![BridgeEvent::Changed { name, bridge: Box::new(bridge) }])
        }
        BridgeCommand::Remove(name) => {
            known(&name).map(|_| vec![BridgeEvent::Removed { name: name.clone() }])
        }
        BridgeCommand::CleanUp if bridges.all.is_empty() => Ok(vec![]),
        BridgeCommand::CleanUp => Ok(vec![BridgeEvent::CleanedUp]),
        BridgeCommand::Block { name, places } => {
            let bridge = known(&name)?;
            let places = places.or(bridge.capacity).ok_or_else(|| BridgeError::Unbounded(name.clone()))?;
            if bridge.capacity.is_some_and(|c| places > c) {
                return Err(BridgeError::Value(
                    "places".into(),
                    format!("bridge {name} has fewer than {places}"),
                ));
            }
            Ok(vec![BridgeEvent::Blocked { name, blocked: places }])
        }
        BridgeCommand::Unblock(name) => {
            known(&name)?;
            Ok(vec![BridgeEvent::Blocked { name, blocked: 0 }])
        }
    }
}

fn ends_are_free(bridges: &Bridges, bridge: &Bridge, itself: Option<&str>) -> Result<(), BridgeError> {
    let (a, b) = (&bridge.a, &bridge.b);
    if a.domain == b.domain && a.iface == b.iface {
        return Err(BridgeError::SameEnds(a.domain.clone(), a.iface.clone()));
    }
    for side in [a, b] {
        if let Some((other, _)) = bridges.by_iface(&side.domain, &side.iface)
            && Some(other.name.as_str()) != itself
        {
            return Err(BridgeError::IfaceTaken(side.domain.clone(), side.iface.clone(), other.name.clone()));
        }
    }
    Ok(())
}

fn change(bridge: &mut Bridge, property: &str, value: String) -> Result<(), BridgeError> {
    if value.is_empty() {
        return Err(BridgeError::Value(property.into(), "the value is empty".into()));
    }
    match property {
        "name" => bridge.name = value,
        "duplex" => bridge.duplex = flag(property, &value)?,
        "strict" => bridge.strict = flag(property, &value)?,
        // The original's own example says bandwidth where its list says capacity.
        "capacity" | "bandwidth" => bridge.capacity = capacity(&value)?,
        _ => {
            let unknown = || BridgeError::Property(property.to_owned());
            let (field, end) = property.rsplit_once('_').ok_or_else(unknown)?;
            let side = match end {
                "a" => &mut bridge.a,
                "b" => &mut bridge.b,
                _ => return Err(unknown()),
            };
            match field {
                "domain" => side.domain = value,
                "np" => side.np = value,
                "iface" => side.iface = value,
                "trunk_group" => side.trunk_group = value,
                "routing_contex" | "routing_context" => side.context = value,
                "access_group" => side.access_group = value,
                _ => return Err(unknown()),
            }
        }
    }
    Ok(())
}
