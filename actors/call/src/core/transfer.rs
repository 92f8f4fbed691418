//! Transfer, conference, and parties that move between calls.

use super::*;

impl Call {
    pub(super) fn refer(&mut self, by: LegId, refer: Refer, world: &mut World<'_>) {
        let refuse = |me: &mut Self, status| me.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
        let may = self.legs.get(&by).is_some_and(|l| match &l.alias {
            Some(alias) => world.active(&l.domain, alias, Service::Ctr).is_some(),
            None => true,
        });
        if !may {
            return refuse(self, 403);
        }
        let stays: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, l)| **id != by && l.state == State::Talking)
            .map(|(id, _)| *id)
            .collect();
        let stays = match (stays.as_slice(), self.chair, &refer) {
            ([one], None, _) => *one,
            // In a conference, a new party is brought in.
            (_, Some(chair), Refer::Number(_)) if stays.len() + 1 < CONFERENCE => chair,
            _ => return refuse(self, 400),
        };
        if self.dial.is_some() {
            return refuse(self, 491);
        }
        self.tell_service(by, Service::Ctr, world);
        match refer {
            Refer::Number(number) => {
                self.note(format!("transfer to {number}"));
                let mut dial = self.new_dial(stays, Some(by), "transfer", world);
                // The call is the transferring party's, but the one that stays takes part.
                dial.trail.joined.extend(self.who(stays));
                self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 100 }));
                self.route(dial, number, world);
                if self.chair.is_none() && self.dial.is_some() {
                    world.media.hear(stays, Source::Music);
                }
            }
            Refer::Leg(other) => self.give_away(stays, HandTo::LegOf(other), How::Replace(other), by, world),
            Refer::Unknown => refuse(self, 481),
        }
    }

    pub(super) fn give_away(&mut self, leg: LegId, to: HandTo, how: How, by: LegId, world: &mut World<'_>) {
        let Some(asks) = self.legs.get(&by) else { return };
        let authority =
            Authority { domain: asks.domain.clone(), iface: asks.iface.clone(), alias: asks.alias.clone() };
        let Some(party) = self.legs.remove(&leg) else { return };
        let part = world.media.detach(leg);
        let adopt = Box::new(Adopt { leg, party, by: authority, part, how });
        self.out.push(Effect::HandOver { to, by, adopt });
    }

    pub(super) fn handed_over(&mut self, by: LegId, done: bool, world: &mut World<'_>) {
        if self.legs.contains_key(&by) {
            // The same as of a dialog that nobody has: whose there are is nobody else's business.
            let status = if done { 200 } else { 481 };
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            if done {
                self.end_connection(|c| c.legs.0 == by || c.legs.1 == by, Cause::NORMAL, "transfer", world);
                self.leave(by, Cause::NORMAL, world);
            }
        }
        if done && self.legs.is_empty() {
            self.end();
        }
    }

    /// A leg's domain and number.
    fn who(&self, leg: LegId) -> Option<(String, String)> {
        self.legs.get(&leg).map(|l| (l.domain.clone(), l.party.number.clone()))
    }

    /// A party takes part in the meeting from now on, and has a record of it.
    fn member(&mut self, leg: LegId, world: &World<'_>) {
        let Some((domain, manager)) = self.meeting.as_ref().map(|m| (m.domain.clone(), m.manager.clone()))
        else {
            return;
        };
        let dial = self.new_dial(leg, None, "teleconference", world);
        let Some(party) = self.legs.get(&leg) else { return };
        let side = record::Side {
            domain,
            from: party.iface.clone(),
            to: "teleconference".into(),
            a: party.party.number.clone(),
            b: manager,
        };
        let mut trail = dial.trail;
        trail.joined.extend(self.who(leg));
        for phase in [Phase::Routed, Phase::Answered] {
            self.tell(dial.number, &trail, phase, world);
        }
        let cdr = Cdr { answered: Some(world.now), sides: vec![side], ..dial.cdr };
        self.out.push(Effect::Keep(RecordEvent::Answered { cdr: Box::new(cdr.clone()) }));
        self.connected(cdr, trail, (leg, leg), Vec::new(), world);
    }

    /// A connection begins now.
    pub(super) fn connected(
        &mut self,
        cdr: Cdr,
        trail: Trail,
        legs: (LegId, LegId),
        bridges: Vec<Held>,
        world: &World<'_>,
    ) {
        self.connections.push(Connection { cdr, began: world.at, trail, legs, _bridges: bridges });
    }

    /// Gives a member of a meeting the word, or takes it.
    pub(super) fn word(&mut self, id: LegId, speaks: bool, world: &mut World<'_>) {
        let chair = self.chair;
        let Some(leg) = self.legs.get_mut(&id).filter(|_| self.meeting.is_some() && chair != Some(id)) else {
            return;
        };
        leg.muted = !speaks;
        leg.hand &= !speaks;
        world.media.mute(id, !speaks);
        self.note(format!("{id} {}", if speaks { "has the word" } else { "listens" }));
    }

    /// Keys in a meeting: a member asks for the word with 1; the manager gives it with 1 to whoever asks, and takes it from
    /// all with 0.
    pub(super) fn meeting_key(&mut self, from: LegId, key: char, world: &mut World<'_>) {
        let manager = self.chair == Some(from);
        match key {
            '1' if manager => {
                let asking: Vec<LegId> =
                    self.legs.iter().filter(|(_, l)| l.hand).map(|(id, _)| *id).collect();
                asking.into_iter().for_each(|id| self.word(id, true, world));
            }
            '0' if manager => {
                let all: Vec<LegId> = self.legs.keys().copied().collect();
                all.into_iter().for_each(|id| self.word(id, false, world));
            }
            '1' => {
                if let Some(leg) = self.legs.get_mut(&from).filter(|l| l.muted) {
                    leg.hand = !leg.hand;
                    self.note(format!("{from} asks for the word"));
                }
            }
            _ => {}
        }
    }

    /// Takes a party back that nobody wanted.
    pub fn take_back(&mut self, adopt: Adopt, world: &mut World<'_>) -> Vec<Effect> {
        let Adopt { leg, party, part, how, .. } = adopt;
        if let Some(part) = part {
            world.media.attach(leg, part);
        }
        let calling = party.state == State::Calling;
        self.legs.insert(leg, party);
        if calling {
            let status = match how {
                How::Pickup => 404,
                // The manager has not opened it yet.
                How::Join { .. } => 480,
                How::Replace(_) => 481,
            };
            self.release(leg, Cause::NO_ROUTE, Some(status), world);
            self.end();
        } else {
            self.reconnect(world);
        }
        std::mem::take(&mut self.out)
    }

    /// Whether a party may come here.
    pub fn would_adopt(&self, adopt: &Adopt, picture: &Picture, now: DateTime<Utc>) -> bool {
        let most = if self.meeting.is_some() { MEETING } else { CONFERENCE };
        let room = self.chair.is_none() || self.legs.len() < most;
        !self.over
            && room
            && match adopt.how {
                How::Replace(leg) => self.may_replace(leg, &adopt.by, picture, now),
                How::Pickup => self.dial.as_ref().is_some_and(|d| d.by.is_none()),
                How::Join { .. } => self.meeting.is_some(),
            }
    }

    /// Whether a leg may be replaced in this party's name (RFC 3891, 5): by parties of the call, and while it rings by numbers
    /// of the same domain that may pick calls up.
    fn may_replace(&self, leg: LegId, by: &Authority, picture: &Picture, now: DateTime<Utc>) -> bool {
        let Some(replaced) = self.legs.get(&leg).filter(|l| l.domain == by.domain) else { return false };
        let party = self.legs.values().any(|l| l.domain == by.domain && l.iface == by.iface);
        let rings = matches!(replaced.state, State::Trying | State::Ringing);
        let picks_up = by
            .alias
            .as_ref()
            .is_some_and(|alias| service::active(picture, now, &by.domain, alias, Service::Pickup).is_some());
        party || rings && picks_up
    }

    pub(super) fn adopt(&mut self, adopt: Adopt, world: &mut World<'_>) {
        let Adopt { leg, party, part, how, .. } = adopt;
        if let Some(part) = part {
            world.media.attach(leg, part);
        }
        let calls = party.state == State::Calling;
        self.legs.insert(leg, party);
        self.note(format!("{leg} joins"));
        match how {
            How::Pickup => {
                let Some(mut dial) = self.dial.take() else { return };
                self.release_dialled(&mut dial, Cause::ANSWERED_ELSEWHERE, world);
                dial.cdr.service = "pickup".into();
                dial.trail.joined.extend(self.who(leg));
                self.tell(dial.number, &dial.trail, Phase::Routed, world);
                self.tell(dial.number, &dial.trail, Phase::Service(Service::Pickup), world);
                if self.answer(leg, world).is_ok() {
                    self.connect(dial, leg, world);
                }
            }
            How::Join { speaks } => {
                if self.answer(leg, world).is_err() {
                    return self.leave(leg, Cause::INCOMPATIBLE, world);
                }
                self.member(leg, world);
                self.word(leg, speaks, world);
                self.reconnect(world);
            }
            How::Replace(replaced) => {
                if calls && self.answer(leg, world).is_err() {
                    return self.leave(leg, Cause::INCOMPATIBLE, world);
                }
                if self.chair == Some(replaced) {
                    // Whoever is transferred to the conference's chair joins the conference.
                    return self.reconnect(world);
                }
                let who = self.who(leg);
                for connection in &mut self.connections {
                    let (a, b) = &mut connection.legs;
                    let takes = *a == replaced || *b == replaced;
                    if *a == replaced {
                        *a = leg;
                    }
                    if *b == replaced {
                        *b = leg;
                    }
                    if takes {
                        connection.trail.joined.extend(who.clone());
                    }
                }
                for c in self.connections.iter().filter(|c| c.legs.0 == leg || c.legs.1 == leg) {
                    for phase in [Phase::Routed, Phase::Answered] {
                        self.tell(c.cdr.attempt, &c.trail, phase, world);
                    }
                }
                if let Some(dial) = self.dial.as_mut().filter(|d| d.waiting == replaced) {
                    dial.waiting = leg;
                }
                if self.dial.as_ref().is_some_and(|d| d.legs.contains(&replaced)) {
                    // It rang there; now it is answered here.
                    if let Some(mut dial) = self.dial.take() {
                        self.release_dialled(&mut dial, Cause::ANSWERED_ELSEWHERE, world);
                        return self.connect(dial, leg, world);
                    }
                }
                if self.origin == replaced {
                    self.origin = leg;
                }
                self.release(replaced, Cause::NORMAL, None, world);
                self.view_state = if self.dial.is_some() { "ringing" } else { "talking" };
                self.reconnect(world);
            }
        }
    }
}
