//! A domain's station as its mediators know it: settings, and for each mediator its password, channels and objects. A fold
//! over a sealed stream; [`execute`] decides on commands.

mod execute;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use imbl::OrdMap;
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

pub use execute::{Answer, Local, Order, execute};

use crate::{
    index::Index,
    protocol::{Category, Control, Digits, Kind, Pair, Password, Priority, Sign},
    settings::{Mediator, Property, Setting, Settings},
};

/// Trunk bundles under control for one mediator.
pub const TRUNKS: usize = 10;

/// What one mediator's control point has set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desk {
    pub started: bool,
    pub password: Password,
    pub groups: BTreeMap<u8, Group>,
    pub objects: OrdMap<u16, Object>,
    /// Where each channel's speech goes at the mediator.
    #[serde(default)]
    pub media: Option<Media>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            started: false,
            password: Password::FIRST,
            groups: BTreeMap::new(),
            objects: OrdMap::new(),
            media: None,
        }
    }
}

/// RTP ports of a mediator: channel `n` is at `first + 2 * n`, `n` as in [`crate::protocol::Channel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    pub ip: std::net::IpAddr,
    pub first: u16,
    /// How many channels the mediator can have with both parties mixed at once; none is no limit.
    #[serde(default)]
    pub mixed: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub control: Control,
    pub pairs: Vec<Pair>,
}

/// What is under control. `Debug` does not show its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub kind: Kind,
    pub sign: Option<Sign>,
    pub number: Digits,
    /// Number of a bundle of trunks.
    pub trunk: Option<u16>,
    pub category: Category,
    pub group: Option<u8>,
    pub priority: Priority,
    #[serde(default)]
    pub basis: Option<Basis>,
}

impl Object {
    /// Whether it is under control at this time.
    pub fn is_valid(&self, at: DateTime<Utc>) -> bool {
        self.basis
            .as_ref()
            .is_none_or(|b| b.from.is_none_or(|from| from <= at) && b.until.is_none_or(|until| at < until))
    }
}

/// Why an object is under control, and from when to when. Outside that time nothing is told; after it the object goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    pub from: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    /// The warrant, in whatever words.
    pub text: String,
}

/// Shows nothing: a warrant may name a person.
impl std::fmt::Debug for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(kit::MARK)
    }
}

/// The whole of a domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Station {
    pub settings: Settings,
    pub desks: BTreeMap<Mediator, Desk>,
    /// Numbers of trunks, given when first asked for and never to another.
    pub trunks: BTreeMap<u16, String>,
    /// By which calls are selected; made from the objects.
    #[serde(skip)]
    pub index: Index,
    /// When objects begin and end.
    #[serde(skip)]
    pub times: BTreeSet<(DateTime<Utc>, Mediator, u16)>,
}

#[derive(Deserialize)]
struct Stored {
    settings: Settings,
    desks: BTreeMap<Mediator, Desk>,
    trunks: BTreeMap<u16, String>,
}

fn times_of(object: &Object) -> impl Iterator<Item = DateTime<Utc>> {
    object.basis.iter().flat_map(|b| [b.from, b.until]).flatten()
}

impl From<Stored> for Station {
    fn from(Stored { settings, desks, trunks }: Stored) -> Self {
        let (mut index, mut times) = (Index::default(), BTreeSet::new());
        for (mediator, desk) in &desks {
            for (number, object) in &desk.objects {
                index.insert(*mediator, *number, object);
                times.extend(times_of(object).map(|at| (at, *mediator, *number)));
            }
        }
        Self { settings, desks, trunks, index, times }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum StationEvent {
    Set(Setting),
    Cleaned(Property),
    Started(Mediator),
    Stopped(Mediator),
    PasswordSet(Mediator, Password),
    MediaSet(Mediator, Media),
    ChannelAdded {
        mediator: Mediator,
        group: u8,
        control: Control,
        pair: Pair,
    },
    ChannelRemoved {
        mediator: Mediator,
        group: u8,
        pair: Pair,
    },
    ObjectPut {
        mediator: Mediator,
        number: u16,
        object: Object,
    },
    ObjectRemoved {
        mediator: Mediator,
        number: u16,
    },
    ObjectBased {
        mediator: Mediator,
        number: u16,
        basis: Basis,
    },
    ObjectChanged {
        mediator: Mediator,
        number: u16,
        category: Category,
        group: Option<u8>,
        priority: Priority,
    },
    TrunkNumbered {
        number: u16,
        name: String,
    },
}

impl Station {
    fn desk(&mut self, mediator: Mediator) -> &mut Desk {
        self.desks.entry(mediator).or_default()
    }

    fn unindex(&mut self, mediator: Mediator, number: u16) {
        if let Some(object) = self.desks.get(&mediator).and_then(|d| d.objects.get(&number)) {
            self.index.remove(mediator, number, object);
            for at in times_of(object) {
                self.times.remove(&(at, mediator, number));
            }
        }
    }

    /// The number of a trunk, where it has one.
    pub fn trunk(&self, name: &str) -> Option<u16> {
        self.trunks.iter().find(|(_, n)| *n == name).map(|(number, _)| *number)
    }
}

impl Fold for Station {
    type Event = StationEvent;

    fn apply(&mut self, event: &StationEvent) {
        match event {
            StationEvent::Set(setting) => {
                self.settings.apply(setting);
                // What a mediator had set goes with it.
                if let Setting::RemoveServer(mediator) = setting {
                    self.forget(*mediator);
                }
            }
            StationEvent::Cleaned(property) => {
                self.settings.clean(*property);
                if *property == Property::RadiusServers {
                    self.desks.keys().copied().collect::<Vec<_>>().into_iter().for_each(|m| self.forget(m));
                }
            }
            StationEvent::Started(mediator) => self.desk(*mediator).started = true,
            StationEvent::Stopped(mediator) => self.desk(*mediator).started = false,
            StationEvent::PasswordSet(mediator, password) => {
                self.desk(*mediator).password = password.clone();
            }
            StationEvent::MediaSet(mediator, media) => self.desk(*mediator).media = Some(*media),
            StationEvent::ChannelAdded { mediator, group, control, pair } => {
                let new = || Group { control: *control, pairs: Vec::new() };
                self.desk(*mediator).groups.entry(*group).or_insert_with(new).pairs.push(*pair);
            }
            StationEvent::ChannelRemoved { mediator, group, pair } => {
                let groups = &mut self.desk(*mediator).groups;
                if let Some(found) = groups.get_mut(group) {
                    found.pairs.retain(|p| p != pair);
                    if found.pairs.is_empty() {
                        groups.remove(group);
                    }
                }
            }
            StationEvent::ObjectPut { mediator, number, object } => {
                self.unindex(*mediator, *number);
                self.index.insert(*mediator, *number, object);
                self.desk(*mediator).objects.insert(*number, object.clone());
            }
            StationEvent::ObjectRemoved { mediator, number } => {
                self.unindex(*mediator, *number);
                self.desk(*mediator).objects.remove(number);
            }
            StationEvent::ObjectBased { mediator, number, basis } => {
                let Some(mut object) = self.desk(*mediator).objects.get(number).cloned() else { return };
                self.unindex(*mediator, *number);
                object.basis = Some(basis.clone());
                self.index.insert(*mediator, *number, &object);
                self.times.extend(times_of(&object).map(|at| (at, *mediator, *number)));
                self.desk(*mediator).objects.insert(*number, object);
            }
            StationEvent::ObjectChanged { mediator, number, category, group, priority } => {
                if let Some(object) = self.desk(*mediator).objects.get_mut(number) {
                    (object.category, object.group, object.priority) = (*category, *group, *priority);
                }
            }
            StationEvent::TrunkNumbered { number, name } => drop(self.trunks.insert(*number, name.clone())),
        }
    }
}

impl Station {
    fn forget(&mut self, mediator: Mediator) {
        if let Some(desk) = self.desks.remove(&mediator) {
            for (number, object) in &desk.objects {
                self.index.remove(mediator, *number, object);
                for at in times_of(object) {
                    self.times.remove(&(at, mediator, *number));
                }
            }
        }
    }
}
