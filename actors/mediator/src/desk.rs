//! What the mediator decides: which unit goes to the control point when and on which stream, what a command becomes, and when
//! the data channels count as faulty. Plain values: the actor around it ([`crate::actor`]) carries the effects out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sorm::protocol::{Reply, Told, Way};

use crate::{
    adapt::{States, adapted},
    outbox::{Channel, Kept},
    settings::Settings,
};

/// Units a link may have that it has not taken yet.
const UNDER_WAY: usize = 8;
/// Answers of the station that wait for the first data channel.
const ANSWERS: usize = 10_000;

/// A data channel on one stream; over TCP there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    pub channel: Channel,
    pub stream: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A command for the station.
    Command(Vec<u8>),
    /// A unit for the control point.
    Unit(Link, Vec<u8>),
    /// All before this number of the outbox have gone.
    Gone(Channel, u64),
    /// So many units were deleted unsent (order 70, 1.5).
    Discarded(Channel, u64),
    /// The control point has said nothing for too long, or says something again.
    Blocked(bool),
    /// What the control point sent is no command.
    Garbage(usize),
}

/// What is on its way over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Answer(Vec<u8>),
    Kept(u64),
}

/// Everything under way between a station and a control point.
#[derive(Debug, Default)]
pub struct Desk {
    links: BTreeMap<Link, VecDeque<Sent>>,
    /// Stream of each channel that is used.
    used: [Option<u8>; 2],
    answers: VecDeque<Vec<u8>>,
    /// The next of the outbox to be sent.
    next: [u64; 2],
    /// All before have been reported as gone.
    gone: [u64; 2],
    station: bool,
    /// Commands that the station has not carried out yet: SORM number and code.
    pending: VecDeque<(u8, u8)>,
    blocked: bool,
    heard: Duration,
    effects: Vec<Effect>,
}

impl Desk {
    /// Begins behind what an earlier desk has reported as gone.
    pub fn new(kept: &Kept, now: Duration) -> Self {
        let base = Channel::BOTH.map(|c| kept.range(c).start);
        Self { next: base, gone: base, heard: now, ..Self::default() }
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub fn is_up(&self, link: Link) -> bool {
        self.links.contains_key(&link)
    }

    /// A bit for each stream whose channel works.
    pub fn states(&self) -> States {
        let of = |channel| {
            let streams = self.links.keys().filter(|l| l.channel == channel).map(|l| l.stream);
            streams.fold(0u8, |bits, stream| bits | 1 << (stream & 7))
        };
        States { first: of(Channel::First), second: of(Channel::Second) }
    }

    pub fn link_up(&mut self, link: Link) {
        // One that comes up anew has lost what it had.
        self.link_down(link);
        self.links.insert(link, VecDeque::new());
        self.used[link.channel.index()].get_or_insert(link.stream);
    }

    pub fn link_down(&mut self, link: Link) {
        let Some(lost) = self.links.remove(&link) else { return };
        for sent in lost.into_iter().rev() {
            match sent {
                Sent::Answer(unit) => self.answers.push_front(unit),
                Sent::Kept(number) => {
                    let next = &mut self.next[link.channel.index()];
                    *next = number.min(*next);
                }
            }
        }
        if self.used[link.channel.index()] == Some(link.stream) {
            let other = self.links.keys().find(|l| l.channel == link.channel);
            self.used[link.channel.index()] = other.map(|l| l.stream);
        }
    }

    /// The oldest unit on a link has arrived.
    pub fn taken(&mut self, link: Link) {
        let Some(Sent::Kept(_)) = self.links.get_mut(&link).and_then(VecDeque::pop_front) else { return };
        self.report_gone(link.channel);
    }

    /// What has gone is all before the oldest that is on its way.
    fn report_gone(&mut self, channel: Channel) {
        let of_channel = self.links.iter().filter(|(l, _)| l.channel == channel).flat_map(|(_, sent)| sent);
        let oldest = of_channel.filter_map(|s| if let Sent::Kept(n) = s { Some(*n) } else { None }).min();
        let at = channel.index();
        let gone = oldest.unwrap_or(self.next[at]).min(self.next[at]);
        if gone > self.gone[at] {
            self.gone[at] = gone;
            self.effects.push(Effect::Gone(channel, gone));
        }
    }

    /// A whole command of the control point, over this link.
    pub fn command(&mut self, link: Link, command: Vec<u8>, now: Duration) {
        self.heard = now;
        if std::mem::take(&mut self.blocked) {
            self.effects.push(Effect::Blocked(false));
        }
        // Answers go where the question came from.
        if self.is_up(link) {
            self.used[link.channel.index()] = Some(link.stream);
        }
        let [_, sorm, code, ..] = command[..] else { return };
        if !self.station {
            return self.refuse(sorm, code, true);
        }
        self.pending.push_back((sorm, code));
        self.effects.push(Effect::Command(command));
    }

    /// The control point sent what is no command.
    pub fn garbage(&mut self, bytes: usize) {
        self.effects.push(Effect::Garbage(bytes));
    }

    /// The station cannot be asked: the mediator says so itself, with "not accepted" of the plain codes.
    fn refuse(&mut self, sorm: u8, command: u8, at_once: bool) {
        const NOT: u8 = 0x01;
        let told = match at_once {
            true => Told::Received { command, status: NOT },
            false => Told::Done { command, status: NOT },
        };
        self.answer(Reply::alone(sorm, told).to_bytes());
    }

    fn answer(&mut self, unit: Vec<u8>) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back(unit);
        }
    }

    /// The session at the station has begun or ended. Commands it still owes an answer to will get none from it.
    pub fn station(&mut self, up: bool) {
        self.station = up;
        for (sorm, code) in std::mem::take(&mut self.pending) {
            self.refuse(sorm, code, false);
        }
    }

    pub fn has_station(&self) -> bool {
        self.station
    }

    /// A message of the station's session.
    pub fn reply(&mut self, unit: Vec<u8>) {
        if let Ok(Reply { told, .. }) = Reply::read(&unit) {
            let ended = match told {
                Told::Done { command, .. } => Some(command),
                Told::Received { command, status } if status != 0 => Some(command),
                _ => None,
            };
            if let Some(at) = ended.and_then(|c| self.pending.iter().position(|(_, code)| *code == c)) {
                self.pending.remove(at);
            }
        }
        self.answer(unit);
    }

    /// Sends what can be sent, and deletes what must not wait.
    pub fn push(&mut self, kept: &Kept, settings: &Settings, now: Duration) {
        self.check_time(settings, now);
        if self.blocked {
            return self.discard(kept);
        }
        let states = self.states();
        for channel in Channel::BOTH {
            let Some(stream) = self.used[channel.index()] else { continue };
            let link = Link { channel, stream };
            let Some(sent) = self.links.get_mut(&link) else { continue };
            let next = &mut self.next[channel.index()];
            *next = (*next).max(kept.range(channel).start);
            while sent.len() < UNDER_WAY {
                let (what, unit) = match channel {
                    Channel::First if !self.answers.is_empty() => {
                        let Some(unit) = self.answers.pop_front() else { break };
                        (Sent::Answer(unit.clone()), unit)
                    }
                    _ => {
                        let Some(unit) = kept.unit(channel, *next) else { break };
                        *next += 1;
                        (Sent::Kept(*next - 1), unit.0.clone())
                    }
                };
                let way = if channel == Channel::First { Way::Reply } else { Way::Event };
                self.effects.push(Effect::Unit(link, adapted(&unit, way, states, settings)));
                sent.push_back(what);
            }
        }
    }

    /// When [`Desk::push`] has to be called at the latest.
    pub fn deadline(&self, settings: &Settings) -> Option<Duration> {
        (settings.timeout > 0 && !self.blocked)
            .then(|| self.heard + Duration::from_secs(settings.timeout.into()))
    }

    fn check_time(&mut self, settings: &Settings, now: Duration) {
        if settings.timeout == 0 {
            // The rule was switched off.
            if std::mem::take(&mut self.blocked) {
                self.heard = now;
                self.effects.push(Effect::Blocked(false));
            }
        } else if self.deadline(settings).is_some_and(|at| now >= at) {
            self.blocked = true;
            self.effects.push(Effect::Blocked(true));
        }
    }

    fn discard(&mut self, kept: &Kept) {
        for channel in Channel::BOTH {
            let at = channel.index();
            let range = kept.range(channel);
            let first = self.next[at].max(range.start);
            let mut count = range.end.saturating_sub(first);
            self.next[at] = range.end.max(first);
            if channel == Channel::First {
                count += self.answers.len() as u64;
                self.answers.clear();
            }
            if count > 0 {
                self.effects.push(Effect::Discarded(channel, count));
            }
            self.report_gone(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use kit::journal::Fold;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        outbox::{OutboxEvent, Unit},
        settings::Property,
    };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn event(n: u8) -> Vec<u8> {
        vec![0xCC, 1, 0x41, n]
    }

    fn keep(kept: &mut Kept, n: u8) {
        kept.apply(&OutboxEvent::Received {
            series: "d/0".into(),
            number: n.into(),
            unit: Unit(event(n)),
            to: [true, false],
        });
    }

    fn link(channel: Channel, stream: u8) -> Link {
        Link { channel, stream }
    }

    fn done(command: u8, status: u8) -> Vec<u8> {
        Reply::alone(1, Told::Done { command, status }).to_bytes()
    }

    fn test_command() -> Vec<u8> {
        hex::decode("cc010e0131323334353609").expect("digits")
    }

    #[test]
    fn units_wait_for_a_link_and_go_again_where_it_fails() {
        let (mut kept, settings) = (Kept::default(), Settings::default());
        (1..=3).for_each(|n| keep(&mut kept, n));
        let mut desk = Desk::new(&kept, at(0));
        desk.push(&kept, &settings, at(0));
        assert_eq!(desk.effects(), []);
        let (one, two) = (link(Channel::Second, 1), link(Channel::Second, 2));
        desk.link_up(one);
        desk.link_up(two);
        desk.push(&kept, &settings, at(0));
        assert_eq!(desk.effects(), [1, 2, 3].map(|n| Effect::Unit(one, event(n))));
        desk.taken(one);
        assert_eq!(desk.effects(), [Effect::Gone(Channel::Second, 1)]);
        desk.link_down(one);
        desk.push(&kept, &settings, at(1));
        assert_eq!(desk.effects(), [2, 3].map(|n| Effect::Unit(two, event(n))), "over the other stream");
        desk.taken(two);
        desk.taken(two);
        assert_eq!(desk.effects(), [2, 3].map(|n| Effect::Gone(Channel::Second, n)));
        assert_eq!(desk.states(), States { first: 0, second: 0b100 });
    }

    #[test]
    fn commands_need_a_station_and_answers_go_where_they_came_from() {
        let (kept, settings) = (Kept::default(), Settings::default());
        let mut desk = Desk::new(&kept, at(0));
        let (zero, three) = (link(Channel::First, 0), link(Channel::First, 3));
        desk.link_up(zero);
        desk.link_up(three);
        desk.command(three, test_command(), at(1));
        desk.push(&kept, &settings, at(1));
        let refused = Reply::alone(1, Told::Received { command: 14, status: 1 }).to_bytes();
        assert_eq!(desk.effects(), [Effect::Unit(three, refused)]);
        desk.station(true);
        desk.command(zero, test_command(), at(2));
        assert_eq!(desk.effects(), [Effect::Command(test_command())]);
        desk.reply(done(14, 0));
        desk.push(&kept, &settings, at(2));
        assert_eq!(desk.effects(), [Effect::Unit(zero, done(14, 0))]);
        // One that the station has not answered when its session ends is answered all the same.
        desk.command(zero, test_command(), at(3));
        desk.station(false);
        desk.push(&kept, &settings, at(3));
        assert_eq!(desk.effects(), [Effect::Command(test_command()), Effect::Unit(zero, done(14, 1))]);
    }

    #[test]
    fn without_commands_nothing_is_sent_and_what_waits_is_deleted() {
        let mut kept = Kept::default();
        let mut settings = Settings::default();
        settings.set(Property::Timeout, "10").expect("set");
        let mut desk = Desk::new(&kept, at(0));
        let (first, second) = (link(Channel::First, 0), link(Channel::Second, 0));
        desk.link_up(second);
        desk.station(true);
        keep(&mut kept, 1);
        desk.push(&kept, &settings, at(9));
        assert_eq!(desk.effects(), [Effect::Unit(second, event(1))]);
        keep(&mut kept, 2);
        desk.reply(done(5, 0));
        assert_eq!(desk.deadline(&settings), Some(at(10)));
        desk.push(&kept, &settings, at(10));
        assert_eq!(
            desk.effects(),
            [
                Effect::Blocked(true),
                Effect::Discarded(Channel::First, 1),
                Effect::Discarded(Channel::Second, 1),
            ]
        );
        // What was on its way may still arrive; then all is gone.
        desk.taken(second);
        assert_eq!(desk.effects(), [Effect::Gone(Channel::Second, 2)]);
        keep(&mut kept, 3);
        desk.push(&kept, &settings, at(11));
        assert_eq!(desk.effects(), [Effect::Discarded(Channel::Second, 1), Effect::Gone(Channel::Second, 3)]);
        desk.link_up(first);
        desk.command(first, test_command(), at(20));
        keep(&mut kept, 4);
        desk.push(&kept, &settings, at(20));
        assert_eq!(
            desk.effects(),
            [Effect::Blocked(false), Effect::Command(test_command()), Effect::Unit(second, event(4))]
        );
        // 0 switches the rule off, also for one that is blocked.
        desk.push(&kept, &settings, at(40));
        assert!(desk.is_blocked());
        settings.set(Property::Timeout, "0").expect("set");
        desk.push(&kept, &settings, at(41));
        assert!(!desk.is_blocked() && desk.deadline(&settings).is_none());
    }

    proptest! {
        /// Whatever links do, each unit arrives at least once, in order but for repetitions, and goes only when it has.
        #[test]
        fn nothing_is_lost_over_links_that_come_and_go(steps in prop::collection::vec((0u8..5, 0u8..3), 0..80)) {
            let (mut kept, settings) = (Kept::default(), Settings::default());
            let mut desk = Desk::new(&kept, at(0));
            let mut on_link: BTreeMap<Link, VecDeque<u8>> = BTreeMap::new();
            let (mut number, mut arrived, mut gone) = (0u8, 0u8, 0u64);
            let all_up = (0..3).map(|s| (1, s)).chain((0..200).map(|n| (3, n % 3)));
            for (step, stream) in steps.into_iter().chain(all_up) {
                let link = link(Channel::Second, stream);
                match step {
                    0 => { number += 1; keep(&mut kept, number); }
                    1 => { on_link.insert(link, VecDeque::new()); desk.link_up(link); }
                    2 => { on_link.remove(&link); desk.link_down(link); }
                    _ => if let Some(n) = on_link.get_mut(&link).and_then(VecDeque::pop_front) {
                        prop_assert!(n <= arrived + 1, "{n} came before {}", arrived + 1);
                        arrived = arrived.max(n);
                        desk.taken(link);
                    }
                }
                desk.push(&kept, &settings, at(0));
                for effect in desk.effects() {
                    match effect {
                        Effect::Unit(link, unit) => on_link.entry(link).or_default().push_back(unit[3]),
                        Effect::Gone(_, before) => {
                            gone = before;
                            prop_assert!(before <= u64::from(arrived));
                            kept.apply(&OutboxEvent::Gone { channel: Channel::Second, before });
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
            }
            prop_assert_eq!((arrived, gone), (number, number.into()));
        }
    }
}
