//! What legs say, and who hears whom.

use super::{dial::query, *};

impl Call {
    // ---- what legs say

    pub(super) fn on_leg(&mut self, id: LegId, event: LegEvent, world: &mut World<'_>) {
        if !self.legs.contains_key(&id) {
            return;
        }
        match event {
            LegEvent::Progress { status, sdp } => self.progress(id, status, sdp, world),
            LegEvent::Answered { sdp } => self.answered(id, sdp, world),
            LegEvent::Confirmed { sdp } => {
                let late = self.legs.get_mut(&id).is_some_and(|l| std::mem::take(&mut l.offers_late));
                let answered = sdp.map(|sdp| world.media.remote_answer(id, &sdp));
                // Our offer was in the answer: without one of its own that fits, the leg would be mute (RFC 3261, 13.2.1).
                if late && !matches!(answered, Some(Ok(_))) {
                    let cause = if answered.is_some() { Cause::INCOMPATIBLE } else { Cause::PROTOCOL };
                    self.leave(id, cause, world);
                } else if let Some(change) = answered {
                    self.changed(id, change, world);
                }
            }
            LegEvent::Offer { sdp: None } => {
                let sdp = world.media.offer(id, Wish::default());
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.offers_late = true;
                }
                self.out.push(Effect::Leg(id, LegCommand::OfferAnswer(sdp.map_err(|_| 500))));
            }
            LegEvent::Offer { sdp: Some(sdp) } => {
                let change = world.media.remote_offer(id, &sdp);
                let answer =
                    change.as_ref().map_err(|_| 488).and_then(|_| world.media.answer(id).map_err(|_| 488));
                // An UPDATE before the answer: the final answer repeats what this one has settled (RFC 3311, 5.1).
                if let (Ok(sdp), Some(leg)) = (&answer, self.legs.get_mut(&id))
                    && leg.early.is_some()
                {
                    leg.early = Some(sdp.clone());
                }
                self.out.push(Effect::Leg(id, LegCommand::OfferAnswer(answer)));
                self.changed(id, change, world);
            }
            LegEvent::OfferAnswered(Ok(Some(sdp))) => {
                let change = world.media.remote_answer(id, &sdp);
                self.changed(id, change, world);
            }
            LegEvent::OfferAnswered(_) => {}
            LegEvent::Refer(refer) => self.refer(id, refer, world),
            LegEvent::Key { key, millis } => self.key(id, key, millis, false, world),
            LegEvent::PictureWanted => self.picture_wanted(id, world),
            LegEvent::Redirected { to } => self.redirected(id, &to, world),
            LegEvent::Avoided => self.avoided(id, world),
            LegEvent::Released { cause, status } => self.released(id, cause, status, world),
        }
    }

    pub(super) fn changed(
        &mut self,
        id: LegId,
        change: Result<Change, crate::MediaError>,
        world: &mut World<'_>,
    ) {
        let Ok(change) = change else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.holds != change.held {
            leg.holds = change.held;
            let text = format!("{id} {}", if change.held { "holds" } else { "retrieves" });
            self.note(text);
            if change.held {
                self.tell_service(id, Service::Chold, world);
            }
        }
        let held = self.legs.values().any(|l| l.state == State::Talking && l.holds);
        if self.dial.is_none() && self.chair.is_none() {
            self.view_state = if held { "held" } else { "talking" };
        }
        if self.legs.get(&id).is_some_and(|l| l.state == State::Talking) {
            self.reconnect(world);
        }
    }

    pub(super) fn progress(&mut self, id: LegId, status: u16, sdp: Option<Bytes>, world: &mut World<'_>) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.lives = true;
        }
        if status == 100 {
            return;
        }
        let Some(mut dial) = self.dial.take() else { return };
        if dial.legs.contains(&id) {
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.state = State::Ringing;
            }
            let answered = self.legs.get(&dial.waiting).is_some_and(|l| l.state == State::Talking);
            if let Some(sdp) = sdp
                && dial.early.is_none()
                && world.media.remote_answer(id, &sdp).is_ok()
            {
                dial.early = Some(id);
                world.media.hear(dial.waiting, Source::Leg(id));
                world.media.hear(id, Source::Leg(dial.waiting));
                if !answered {
                    self.early(dial.waiting, status, world);
                }
                dial.ringing = true;
            } else if !dial.ringing && dial.early.is_none() && status == 180 {
                dial.ringing = true;
                match answered {
                    // Somebody who is transferred hears that it rings.
                    true => world.media.hear(dial.waiting, Source::Tone(Tone::Ringback)),
                    false => {
                        self.tell_progress(dial.waiting, 180, world);
                    }
                }
            }
            if let Some(by) = dial.by {
                self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            }
        }
        self.dial = Some(dial);
    }

    /// A provisional answer; the first reliable one to a caller without an offer has ours (RFC 3262, 5).
    pub(super) fn tell_progress(&mut self, id: LegId, status: u16, world: &mut World<'_>) {
        let late = self.legs.get(&id).is_some_and(|l| l.offers_late && l.reliable);
        let sdp = if late { self.offer_early(id, world) } else { None };
        self.out.push(Effect::Leg(id, LegCommand::Progress { status, sdp }));
    }

    fn offer_early(&mut self, id: LegId, world: &mut World<'_>) -> Option<Bytes> {
        let leg = self.legs.get_mut(&id)?;
        if leg.early.is_none() {
            leg.early = world.media.offer(id, Wish { ice: leg.ice, ..Wish::default() }).ok();
        }
        leg.early.clone()
    }

    /// Early media towards a caller: where it has offered already, or takes our offer now.
    pub(super) fn early(&mut self, id: LegId, status: u16, world: &mut World<'_>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match (leg.offers_late, leg.reliable) {
            (true, false) => return self.tell_progress(id, 180, world),
            (true, true) => drop(self.offer_early(id, world)),
            (false, _) if leg.early.is_none() => leg.early = world.media.answer(id).ok(),
            (false, _) => {}
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let status = if status == 180 { 180 } else { 183 };
        let sdp = leg.early.clone();
        self.out.push(Effect::Leg(id, LegCommand::Progress { status, sdp }));
    }

    pub(super) fn answered(&mut self, id: LegId, sdp: Option<Bytes>, world: &mut World<'_>) {
        let Some(mut dial) = self.dial.take_if(|d| d.legs.contains(&id)) else {
            // It answered although it was given up.
            return self.leave(id, Cause::ANSWERED_ELSEWHERE, world);
        };
        // An answer without a description, now or before, answers no offer (RFC 3261, 13.2.1): the call would be mute.
        let described = match sdp {
            Some(sdp) => world.media.remote_answer(id, &sdp).map(drop).map_err(|e| e.to_string()),
            None if dial.early == Some(id) => Ok(()),
            None => Err("no session description".to_owned()),
        };
        if let Err(e) = described {
            self.note(format!("{id} answers what we cannot take: {e}"));
            self.dial = Some(dial);
            self.release(id, Cause::INCOMPATIBLE, None, world);
            return self.one_failed(id, Cause::INCOMPATIBLE, None, world);
        }
        dial.legs.retain(|l| *l != id);
        self.release_dialled(&mut dial, Cause::ANSWERED_ELSEWHERE, world);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.state = State::Talking;
        }
        self.connect(dial, id, world);
    }

    /// The waiting party of a dial and another leg are connected.
    pub(super) fn connect(&mut self, mut dial: Dial, id: LegId, world: &mut World<'_>) {
        let waiting = dial.waiting;
        dial.cdr.answered = Some(world.now);
        self.out.push(Effect::Keep(RecordEvent::Answered { cdr: Box::new(dial.cdr.clone()) }));
        if let Some(by) = dial.by {
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 200 }));
            if self.chair.is_none() {
                self.end_connection(|c| c.legs.0 == by || c.legs.1 == by, Cause::NORMAL, "transfer", world);
                self.release(by, Cause::NORMAL, None, world);
            }
        }
        self.app_done(waiting, world);
        self.tell(dial.number, &dial.trail, Phase::Answered, world);
        self.connected(dial.cdr, dial.trail, (waiting, id), dial.bridges, world);
        if self.legs.get(&waiting).is_some_and(|l| l.state == State::Calling)
            && let Err((cause, text)) = self.answer(waiting, world)
        {
            self.note(format!("the caller cannot be answered: {text}"));
            return self.finish(cause, "system", world);
        }
        if self.chair.is_none() {
            self.view_state = "talking";
        }
        self.out.push(Effect::After(LONGEST, Timer::Longest));
        self.reconnect(world);
    }

    /// 200 to a leg that calls.
    pub(super) fn answer(&mut self, id: LegId, world: &mut World<'_>) -> Result<(), (Cause, String)> {
        let Some(leg) = self.legs.get_mut(&id) else { return Ok(()) };
        let sdp = match (&leg.early, leg.offers_late) {
            (Some(sdp), _) => Ok(sdp.clone()),
            (None, true) => world.media.offer(id, Wish { ice: leg.ice, ..Wish::default() }),
            (None, false) => world.media.answer(id),
        };
        let sdp = sdp.map_err(|e| (e.cause(), e.to_string()))?;
        leg.state = State::Talking;
        self.out.push(Effect::Leg(id, LegCommand::Answer { sdp }));
        Ok(())
    }

    /// Says who hears whom.
    pub(super) fn reconnect(&mut self, world: &mut World<'_>) {
        let talking: Vec<(LegId, bool)> = self
            .legs
            .iter()
            .filter(|(_, l)| l.state == State::Talking)
            .map(|(id, l)| (*id, l.holds))
            .collect();
        let waits = self.dial.as_ref().map(|d| d.waiting);
        for (id, holds) in &talking {
            let other: Vec<&(LegId, bool)> = talking.iter().filter(|(o, _)| o != id).collect();
            let source = match (other.as_slice(), self.chair) {
                _ if *holds => Source::Silence,
                ([], Some(_)) => Source::Tone(Tone::Confirm),
                (_, Some(_)) => Source::Mix,
                // What an application plays goes on.
                ([], None) if self.with_app(*id) => continue,
                _ if waits == Some(*id) => Source::Music,
                ([(o, false)], None) => Source::Leg(*o),
                ([(_, true)], None) => Source::Music,
                ([], None) => Source::Silence,
                _ => Source::Mix,
            };
            world.media.hear(*id, source);
        }
    }

    /// A key goes on to the others. One that came as events in RTP has gone already to those that take them so.
    pub(super) fn key(&mut self, from: LegId, key: char, millis: u32, in_media: bool, world: &mut World<'_>) {
        if self.meeting.is_some() {
            return self.meeting_key(from, key, world);
        }
        if self.with_app(from) {
            return self.tell_app(AppEvent::Key(key));
        }
        let others: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, l)| **id != from && l.state == State::Talking)
            .map(|(id, _)| *id)
            .collect();
        for id in others {
            match world.media.takes_keys(id) {
                true if in_media && world.media.takes_keys(from) => {}
                true => world.media.key(id, key, millis),
                // A party without events heard in-band tones as they are.
                false if in_media && !world.media.takes_keys(from) => {}
                false => self.out.push(Effect::Leg(id, LegCommand::Key { key, millis })),
            }
        }
    }

    /// A party wants a whole picture of the one it sees, which is asked in signalling and by RTCP: it heeds the one it knows.
    fn picture_wanted(&mut self, from: LegId, world: &mut World<'_>) {
        world.media.picture(from);
        let talking = |(id, l): (&LegId, &Leg)| (*id != from && l.state == State::Talking).then_some(*id);
        for id in self.legs.iter().filter_map(talking) {
            self.out.push(Effect::Leg(id, LegCommand::Picture));
        }
    }

    pub(super) fn redirected(&mut self, id: LegId, to: &[String], world: &mut World<'_>) {
        let number = to.first().cloned();
        let Some(mut dial) = self.dial.take_if(|d| d.legs.contains(&id)) else { return };
        dial.legs.retain(|l| *l != id);
        let leg = self.forget(id, world);
        let Some(leg) = leg else { return self.failed(dial, Cause::INTERWORKING, None, world) };
        let Some(number) = number else {
            // It names no place: the others go on, or another way is tried.
            self.dial = Some(dial);
            let status = if leg.alias.is_some() { None } else { Some(502) };
            return self.one_failed(id, Cause::INTERWORKING, status, world);
        };
        // A phone that forwards by itself does so with its subscriber's rights.
        let alias = leg.alias.clone().unwrap_or_default();
        if !dial.legs.is_empty() || dial.diverted.len() >= DIVERSIONS || leg.alias.is_none() {
            // A neighbour names hosts that no operator has declared: another way is tried, none of its choice.
            let (cause, status) = match leg.alias {
                Some(_) => (Cause::CHANGED, None),
                None => (Cause::INTERWORKING, Some(502)),
            };
            self.dial = Some(dial);
            return self.one_failed(id, cause, status, world);
        }
        self.tell(dial.number, &dial.trail, Phase::Service(Service::Cfu), world);
        dial.diverted.push(alias.clone());
        dial.cdr.diverted = Some(alias);
        dial.cdr.service = "forward".into();
        dial.bridges.clear();
        let caller = self.caller(&dial);
        let query = query(&leg.domain, &leg.iface, &leg.context, &caller, &number, world.now);
        dial.to = Party { number, ..Party::default() };
        self.follow(dial, &query, world);
    }

    pub(super) fn released(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let dialled = self.dial.as_ref().is_some_and(|d| d.legs.contains(&id));
        if dialled {
            self.forget(id, world);
            return self.one_failed(id, cause, status, world);
        }
        self.left(id, cause, world);
    }

    /// A party has left a call that may go on without it.
    pub(super) fn left(&mut self, id: LegId, cause: Cause, world: &mut World<'_>) {
        let by = if id == self.origin { "a" } else { "b" };
        if self.dial.as_ref().is_some_and(|d| d.waiting == id) {
            if let Some(mut dial) = self.dial.take() {
                self.release_dialled(&mut dial, Cause::NORMAL, world);
                self.close_record(dial.cdr, &dial.trail, cause, "a", world);
                if let Some(by) = dial.by {
                    self.out.push(Effect::Leg(by, LegCommand::Transferred { status: 487 }));
                }
            }
        } else if let Some(dial) = self.dial.as_mut()
            && dial.by == Some(id)
        {
            // Who transfers may hang up and leave it to us.
            dial.by = None;
        }
        self.end_connection(|c| c.legs.0 == id || c.legs.1 == id, cause, by, world);
        // After the record, which is kept first: this answers the party's BYE, or hangs it up.
        self.release(id, cause, None, world);
        if self.chair == Some(id) {
            return self.finish(cause, by, world);
        }
        self.end_if_alone(cause, by, world);
        if !self.over {
            self.reconnect(world);
        }
    }

    /// Sends a party away.
    pub(super) fn leave(&mut self, id: LegId, cause: Cause, world: &mut World<'_>) {
        self.left(id, cause, world);
    }

    /// A call of one party, that is no conference and dials nobody, is over.
    pub(super) fn end_if_alone(&mut self, cause: Cause, by: &str, world: &mut World<'_>) {
        let alone = self.legs.len() <= 1 && self.chair.is_none() && self.dial.is_none() && self.app.is_none();
        if alone || self.legs.is_empty() {
            self.finish(cause, by, world);
        }
    }
}
