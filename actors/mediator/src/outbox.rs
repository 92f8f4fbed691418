//! What the station has told and the control point has not got yet: a notification is here before the station hears that it
//! has arrived, and stays until the data channel has taken it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use imbl::Vector;
use kit::{journal::Fold, ledger::Book};
use serde::{Deserialize, Serialize};
use sorm::{
    intercept::radius::Received,
    protocol::{Channel as Ksl, Event, Pair, Said},
};
use strum::IntoStaticStr;

use crate::{
    handover::pdu::Direction,
    settings::{Link, Settings},
};

/// Its name.
pub const NAME: &str = "mediator/outbox";
/// Units that wait at most, in each data channel; the station keeps the others.
const MOST: usize = 1_000_000;

/// A data channel (КПД), or what stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Channel {
    First,
    Second,
    /// The handover to an agency elsewhere.
    Handover,
}

impl Channel {
    /// Those of the control point.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    pub fn index(self) -> usize {
        self as usize
    }

    /// Where a unit belongs: messages 1 to 12 on the first, those of calls on the second.
    pub fn of(unit: &[u8]) -> Self {
        match unit.get(2) {
            Some(0x21..=0x2C) => Self::First,
            _ => Self::Second,
        }
    }
}

/// A unit; only ever written to a sealed journal, and shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unit(#[serde(with = "hex::serde")] pub Vec<u8>);

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

/// What is known of a station's series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Series {
    last: u64,
    /// The unit that began it: another with number 1 begins a new one.
    first: Option<Unit>,
}

/// Everything that waits, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    series: BTreeMap<String, Series>,
    waiting: [Vector<Unit>; 3],
    /// Units that were taken out so far: the number of the oldest that waits.
    base: [u64; 3],
    /// What each control channel (КСЛ) carries now.
    channels: BTreeMap<u8, Communication>,
}

/// The call and the object that a control channel's speech belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Communication {
    pub object: u16,
    pub call: u16,
    pub direction: Direction,
}

impl Kept {
    /// Numbers of what waits.
    pub fn range(&self, channel: Channel) -> std::ops::Range<u64> {
        let base = self.base[channel.index()];
        base..base + self.waiting[channel.index()].len() as u64
    }

    /// Whose speech is in a control channel.
    pub fn communication(&self, channel: Ksl) -> Option<Communication> {
        self.channels.get(&channel.0).copied()
    }

    /// Who has which control channels after a message.
    fn follow(&mut self, unit: &[u8]) {
        let Ok(Event::Call { call, object, selection, event, .. }) = Event::read(unit) else { return };
        if matches!(event.said, Said::Release | Said::ChannelFreed) {
            self.channels.retain(|_, c| (c.object, c.call) != (object, call));
            return;
        }
        let Pair { a, b } = event.channels;
        // In the channel for A is the calling party, or both.
        let by_a = selection.0 & 0b11 != 0;
        let (first, second) = match b {
            None => (Direction::Unknown, Direction::Unknown),
            Some(_) if by_a => (Direction::FromTarget, Direction::ToTarget),
            Some(_) => (Direction::ToTarget, Direction::FromTarget),
        };
        for (channel, direction) in [(a, first), (b, second)] {
            channel.map(|c| self.channels.insert(c.0, Communication { object, call, direction }));
        }
    }

    pub fn unit(&self, channel: Channel, number: u64) -> Option<&Unit> {
        let at = number.checked_sub(self.base[channel.index()])?;
        self.waiting[channel.index()].get(usize::try_from(at).ok()?)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum OutboxEvent {
    /// A notification of a station: its series and number there.
    Received {
        series: String,
        number: u64,
        unit: Unit,
        /// Whether the control point and the agency are to get it.
        to: [bool; 2],
    },
    /// All before this number have gone, or are deleted.
    Gone { channel: Channel, before: u64 },
}

impl Fold for Kept {
    type Event = OutboxEvent;

    fn apply(&mut self, event: &OutboxEvent) {
        match event {
            OutboxEvent::Received { series, number, unit, to: [point, agency] } => {
                let series = self.series.entry(series.clone()).or_insert(Series { last: 0, first: None });
                series.last = *number;
                if *number == 1 {
                    series.first = Some(unit.clone());
                }
                self.follow(&unit.0);
                for (channel, wanted) in [(Channel::of(&unit.0), point), (Channel::Handover, agency)] {
                    if *wanted {
                        self.waiting[channel.index()].push_back(unit.clone());
                    }
                }
            }
            OutboxEvent::Gone { channel, before } => {
                let (at, waiting) = (channel.index(), &mut self.waiting[channel.index()]);
                let count = usize::try_from(before.saturating_sub(self.base[at])).unwrap_or(usize::MAX);
                let count = count.min(waiting.len());
                *waiting = waiting.skip(count);
                self.base[at] += count as u64;
            }
        }
    }
}

pub enum OutboxCommand {
    Take(Received),
    Gone { channel: Channel, before: u64 },
}

impl fmt::Debug for OutboxCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take(received) => write!(f, "Take {}", received.sequence),
            Self::Gone { channel, before } => write!(f, "Gone {channel:?} {before}"),
        }
    }
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It has come before.
    Again,
    /// So many before it are missing.
    Gap(u64),
    /// Nothing was to be taken.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    #[error("{MOST} notifications wait for the control point already")]
    Full,
}

/// The ledger; what it keeps is seen through `kept`, and `changed` is told.
pub struct OutboxBook {
    pub kept: Arc<ArcSwap<Kept>>,
    pub changed: tokio::sync::watch::Sender<()>,
    pub settings: Arc<ArcSwap<Settings>>,
}

impl Book for OutboxBook {
    type State = Kept;
    type Command = OutboxCommand;
    type Answer = Taken;
    type Error = OutboxError;

    const FORGETS: bool = true;

    fn decide(&self, state: &Kept, command: OutboxCommand) -> Result<(Vec<OutboxEvent>, Taken), OutboxError> {
        match command {
            OutboxCommand::Take(received) => {
                let name = format!("{}/{}", received.station, received.platform);
                let (number, unit) = (received.sequence, Unit(received.unit));
                let known = state.series.get(&name);
                let last = known.map_or(0, |s| s.last);
                let begins = number == 1 && known.is_none_or(|s| s.first.as_ref() != Some(&unit));
                if number <= last && !begins {
                    return Ok((Vec::new(), Taken::Again));
                }
                let settings = self.settings.load();
                let to = [settings.link != Link::None, settings.handover.is_some()];
                let channels = [Channel::of(&unit.0), Channel::Handover].into_iter().zip(to);
                if channels.filter(|(_, to)| *to).any(|(c, _)| state.waiting[c.index()].len() >= MOST) {
                    return Err(OutboxError::Full);
                }
                // A mediator that is new begins in the middle.
                let missing = number.saturating_sub(last + 1);
                let taken =
                    if missing == 0 || begins || known.is_none() { Taken::New } else { Taken::Gap(missing) };
                Ok((vec![OutboxEvent::Received { series: name, number, unit, to }], taken))
            }
            OutboxCommand::Gone { channel, before } => {
                let gone = before > state.base[channel.index()];
                Ok((gone.then_some(OutboxEvent::Gone { channel, before }).into_iter().collect(), Taken::None))
            }
        }
    }

    fn publish(&self, state: &Kept) {
        self.kept.store(Arc::new(state.clone()));
        self.changed.send_replace(());
    }

    /// Each snapshot writes all that waits.
    fn snapshot_every(&self, state: &Kept) -> u64 {
        let waiting: usize = state.waiting.iter().map(Vector::len).sum();
        (waiting as u64).max(1000)
    }

    fn summary(&self, state: &Kept) -> serde_json::Value {
        serde_json::json!({ "first": state.waiting[0].len(), "second": state.waiting[1].len(), "handover": state.waiting[2].len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sorm::protocol::Digits;

    use super::*;

    fn received(number: u64, unit: &[u8]) -> Received {
        Received {
            sequence: number,
            platform: 0,
            station: "voip.local".into(),
            status: 1,
            session: String::new(),
            at: None,
            calling: Digits::NONE,
            called: Digits::NONE,
            unit: unit.to_vec(),
        }
    }

    fn take(kept: &mut Kept, number: u64, unit: &[u8]) -> Taken {
        change(kept, OutboxCommand::Take(received(number, unit)))
    }

    fn change(kept: &mut Kept, command: OutboxCommand) -> Taken {
        let changed = tokio::sync::watch::channel(()).0;
        let book = OutboxBook { kept: Arc::default(), changed, settings: Arc::default() };
        let (events, taken) = book.decide(kept, command).expect("decided");
        events.iter().for_each(|e| kept.apply(e));
        taken
    }

    #[test]
    fn what_comes_again_is_taken_once() {
        let mut kept = Kept::default();
        let event = |n: u8| [0xCC, 1, 0x41, n];
        assert_eq!(take(&mut kept, 1, &event(1)), Taken::New);
        assert_eq!(take(&mut kept, 1, &event(1)), Taken::Again);
        assert_eq!(take(&mut kept, 2, &event(2)), Taken::New);
        assert_eq!(take(&mut kept, 1, &event(1)), Taken::Again);
        assert_eq!(take(&mut kept, 5, &event(5)), Taken::Gap(2));
        // The station's domain was declared anew.
        assert_eq!(take(&mut kept, 1, &event(9)), Taken::New);
        assert_eq!(take(&mut kept, 2, &event(2)), Taken::New);
        assert_eq!(take(&mut kept, 3, &[0xCC, 1, 0x2C]), Taken::New);
        assert_eq!((kept.range(Channel::First), kept.range(Channel::Second)), (0..1, 0..5));
        assert!(!format!("{kept:?}").contains("204"));
    }

    proptest! {
        #[test]
        fn what_has_gone_is_gone_and_the_rest_keeps_its_number(goes in prop::collection::vec((any::<bool>(), 0u64..12), 0..60)) {
            let (mut kept, mut number, mut gone) = (Kept::default(), 0u64, 0u64);
            for (more, n) in goes {
                if more {
                    number += 1;
                    take(&mut kept, number, &[0xCC, 1, 0x41, number as u8]);
                } else {
                    let before = gone + n;
                    change(&mut kept, OutboxCommand::Gone { channel: Channel::Second, before });
                    gone = gone.max(before.min(number));
                }
                prop_assert_eq!(kept.range(Channel::Second), gone..number);
                for at in gone..number {
                    prop_assert_eq!(kept.unit(Channel::Second, at), Some(&Unit(vec![0xCC, 1, 0x41, (at + 1) as u8])));
                }
                // As it is kept and read again.
                let text = serde_json::to_string(&kept).expect("text");
                kept = serde_json::from_str(&text).expect("read");
            }
        }
    }
}
