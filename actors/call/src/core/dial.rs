//! Dials: from a number to the legs that ring, over forwarding, to success or failure.

use super::*;

impl Call {
    pub(super) fn new_dial(
        &mut self,
        waiting: LegId,
        by: Option<LegId>,
        service: &str,
        world: &World<'_>,
    ) -> Dial {
        self.dials += 1;
        let from = by.unwrap_or(waiting);
        let user_agent = self.legs.get(&from).map(|l| l.user_agent.clone()).unwrap_or_default();
        let cdr = Cdr {
            call: self.address.to_string(),
            attempt: self.dials,
            sides: Vec::new(),
            group: self.legs.get(&from).and_then(|l| l.alias.clone()).unwrap_or_default(),
            setup: world.now,
            answered: None,
            ended: None,
            cause: None,
            released_by: String::new(),
            diverted: None,
            service: service.to_owned(),
            user_agent,
        };
        Dial {
            number: self.dials,
            waiting,
            by,
            legs: Vec::new(),
            others: VecDeque::new(),
            from: Party::default(),
            early: None,
            ringing: false,
            to: Party::default(),
            trail: Trail::new(waiting),
            callee: None,
            failure: None,
            cdr,
            bridges: Vec::new(),
            diverted: Vec::new(),
            max_forwards: 70,
            uui: None,
        }
    }

    /// Routes a dial from its caller: the waiting party, or who transfers it.
    pub(super) fn route(&mut self, mut dial: Dial, number: String, world: &mut World<'_>) {
        let Some(from) = self.legs.get(&dial.by.unwrap_or(dial.waiting)) else { return };
        let mut query = query(&from.domain, &from.iface, &from.context, &from.party, &number, world.now);
        if std::mem::take(&mut dial.to.international) {
            query.b.nai = Nai::International;
        }
        dial.to = Party { number, ..Party::default() };
        self.follow(dial, &query, world);
    }

    /// Whom a dial calls for: the waiting party, or who transfers it.
    pub(super) fn caller(&self, dial: &Dial) -> Party {
        self.legs.get(&dial.by.unwrap_or(dial.waiting)).map(|l| l.party.clone()).unwrap_or_default()
    }

    pub(super) fn follow(&mut self, mut dial: Dial, query: &Query, world: &mut World<'_>) {
        let mut trace = route::route(world.picture, query);
        let sides = record::sides(&trace.stretches);
        self.note(format!("route {} -> {}: {}", query.a.digits, query.b.digits, way(&sides, &trace.outcome)));
        for side in &sides {
            if !self.domains.contains(&side.domain) {
                self.domains.push(side.domain.clone());
            }
        }
        if dial.cdr.sides.is_empty() {
            dial.cdr.sides = sides;
        } else {
            dial.cdr.sides.extend(sides);
        }
        dial.trail.extend(std::mem::take(&mut trace.stretches));
        self.tell(dial.number, &dial.trail, Phase::Routed, world);
        for bridge in &trace.bridges {
            let held = world.picture.bridges.all.get(bridge).zip(world.picture.calls.get(bridge)).and_then(
                |(b, count)| {
                    let places = b.capacity.map_or(u32::MAX, |c| c.saturating_sub(b.blocked));
                    Held::take(count, places)
                },
            );
            match held {
                Some(held) => {
                    self.bridges.push(bridge.clone());
                    dial.bridges.push(held);
                }
                None => {
                    // Somebody took the last place since the picture was read.
                    return self.failed(dial, Cause::NO_CIRCUIT, None, world);
                }
            }
        }
        // A rule that has changed the digits has made another number of them.
        let plus = |nai: Nai, digits: &str, asked: Nai, before: &str| {
            nai == Nai::International && (digits == before || asked != Nai::International)
        };
        let (a, b) = (&trace.a, &trace.b);
        let from = Party {
            number: a.digits.clone(),
            restricted: a.apri != Apri::Allowed,
            international: plus(a.nai, &a.digits, query.a.nai, &query.a.digits),
            ..self.caller(&dial)
        };
        dial.to.number.clone_from(&b.digits);
        dial.to.international = plus(b.nai, &b.digits, query.b.nai, &query.b.digits);
        match trace.outcome {
            Outcome::Refused { cause, .. } => self.failed(dial, cause.into(), None, world),
            Outcome::External { domain, trunk, others, .. } => {
                let to = dial.to.clone();
                let target = |trunk: String, last: bool| {
                    let leg = blank(&domain, &trunk, to.clone());
                    (leg, Target::Trunk { domain: domain.clone(), trunk, last })
                };
                let count = others.len();
                dial.others =
                    others.into_iter().enumerate().map(|(n, t)| target(t, n + 1 == count)).collect();
                self.launch(dial, vec![target(trunk, count == 0)], from, NO_ANSWER, world);
            }
            Outcome::Local { domain, alias, iface } => self.deliver(dial, from, domain, alias, iface, world),
        }
    }

    /// To a subscriber, as its services want.
    pub(super) fn deliver(
        &mut self,
        mut dial: Dial,
        mut from: Party,
        domain: String,
        alias: String,
        iface: String,
        world: &mut World<'_>,
    ) {
        dial.callee = Some((domain.clone(), alias.clone()));
        let has = |s| world.active(&domain, &alias, s);
        if has(Service::Cfu).is_some() {
            return self.forward(dial, Service::Cfu, Cause::UNSPECIFIED, world);
        }
        if has(Service::Dnd).is_some() {
            return self.failed(dial, Cause::BUSY, None, world);
        }
        if let Some(script) = has(Service::PersonalIvr).and_then(|s| s.options.get("script").cloned()) {
            return self.serve(dial, domain, alias, script, world);
        }
        if from.restricted || has(Service::Clip).is_none() {
            from = Party { restricted: true, ..Party::default() };
        }
        let now = world.steady;
        let known = world.picture.registrations.get(&domain).and_then(|all| all.get(&iface));
        let mut contacts: Vec<_> =
            known.iter().flat_map(|c| c.iter()).filter(|c| c.expires > now).cloned().collect();
        if contacts.is_empty() {
            return match has(Service::Cfos) {
                Some(_) => self.forward(dial, Service::Cfos, Cause::ABSENT, world),
                None => self.failed(dial, Cause::ABSENT, None, world),
            };
        }
        contacts.sort_by_key(|c| std::cmp::Reverse((c.q, c.expires)));
        let user = world.picture.domains.get(&domain).and_then(|d| d.users.get(&iface));
        let forking = user.and_then(|u| u.properties.get("core_forking")).is_some_and(|v| v == "true");
        let mut line = world.board.take_line(&domain, &iface, limit(world.picture, &domain, Some(&alias)));
        if line.is_none() {
            return self.failed(dial, Cause::BUSY, None, world);
        }
        let context = user.map(|u| u.context.clone()).unwrap_or_default();
        let wants =
            |property: &str| user.and_then(|u| u.properties.get(property)).is_some_and(|v| v == "true");
        // With one contact its interface says what it is; among several each contact does (manual, `core_forking`).
        let (ice, sealed) = (!forking && wants("ice/enabled"), wants("srtp"));
        let mut legs: Vec<(Leg, Target)> = contacts
            .into_iter()
            .map(|contact| {
                let leg = Leg {
                    alias: Some(alias.clone()),
                    context: context.clone(),
                    ice: ice || contact.ice,
                    sealed,
                    user_agent: contact.user_agent.clone(),
                    _line: line.take(),
                    ..blank(&domain, &iface, dial.to.clone())
                };
                let (domain, iface) = (domain.clone(), iface.clone());
                (leg, Target::Contact { domain, iface, contact: Box::new(contact) })
            })
            .collect();
        if !forking {
            // One at a time, the best first; the next where that cannot be reached.
            dial.others = legs.split_off(1).into();
        }
        let patience = has(Service::Cfnr).map_or(NO_ANSWER, |s| {
            let told = s.options.get("timeout").and_then(|t| t.parse().ok());
            told.map_or(FORWARD_AFTER, Duration::from_secs)
        });
        self.launch(dial, legs, from, patience, world);
    }

    pub(super) fn launch(
        &mut self,
        mut dial: Dial,
        targets: Vec<(Leg, Target)>,
        from: Party,
        patience: Duration,
        world: &mut World<'_>,
    ) {
        dial.from = from;
        self.call_targets(&mut dial, targets, world);
        while dial.legs.is_empty()
            && let Some(next) = dial.others.pop_front()
        {
            self.call_targets(&mut dial, vec![next], world);
        }
        if dial.legs.is_empty() {
            let (cause, status) = dial.failure.unwrap_or((Cause::UNAVAILABLE, None));
            return self.failed(dial, cause, status, world);
        }
        let patience = self.patience(dial.waiting).map_or(patience, |p| p.min(patience));
        self.out.push(Effect::After(patience, Timer::NoAnswer(dial.number)));
        if self.view_state != "conference" {
            self.view_state = "ringing";
        }
        self.b.clone_from(&dial.to.number);
        self.dial = Some(dial);
    }

    /// Calls targets of a dial at once.
    fn call_targets(&mut self, dial: &mut Dial, targets: Vec<(Leg, Target)>, world: &mut World<'_>) {
        let from = dial.from.clone();
        for (leg, target) in targets {
            let id = world.board.next_leg();
            // Records, and interception, name the trunk that is called now, not the first of its group.
            if let Target::Trunk { domain, trunk, .. } = &target {
                if let Some(side) = dial.cdr.sides.last_mut().filter(|s| s.domain == *domain) {
                    side.to.clone_from(trunk);
                }
                dial.trail.leaves_by(domain, trunk);
            }
            if let Some(peer) = target.peer(world.picture) {
                world.media.signalled(id, peer);
            }
            let wish = Wish { like: Some(dial.waiting), ice: leg.ice, sealed: leg.sealed };
            let sdp = match world.media.offer(id, wish) {
                Ok(sdp) => sdp,
                Err(e) => {
                    self.note(format!("no media for {id}: {e}"));
                    dial.failure = Some((e.cause(), None));
                    continue;
                }
            };
            let outgoing = Outgoing {
                target,
                from: from.clone(),
                to: leg.party.clone(),
                domain: leg.domain.clone(),
                sdp,
                max_forwards: dial.max_forwards,
                history: dial.diverted.clone(),
                uui: dial.uui.clone(),
            };
            self.legs.insert(id, leg);
            dial.legs.push(id);
            self.out.push(Effect::Leg(id, LegCommand::Call(Box::new(outgoing))));
            if !dial.others.is_empty() {
                self.out.push(Effect::After(LIFELESS, Timer::Lifeless(id)));
                self.out.push(Effect::After(IDLE, Timer::Idle(id)));
            }
        }
    }

    /// A trunk that is no first choice now comes behind the others, and is tried then whatever is known of it.
    pub(super) fn avoided(&mut self, id: LegId, world: &mut World<'_>) {
        let Some(dial) = self.dial.as_mut().filter(|d| d.legs.contains(&id)) else { return };
        dial.legs.retain(|l| *l != id);
        let Some(leg) = self.forget(id, world) else { return };
        let Some(mut dial) = self.dial.take() else { return };
        let target = Target::Trunk { domain: leg.domain.clone(), trunk: leg.iface.clone(), last: true };
        dial.others.push_back((blank(&leg.domain, &leg.iface, leg.party), target));
        if dial.legs.is_empty()
            && let Some(next) = dial.others.pop_front()
        {
            self.call_targets(&mut dial, vec![next], world);
        }
        self.dial = Some(dial);
    }

    /// Whether another target of the dial is tried after this failure: where this one could not take the call, not where the
    /// callee did not. Some of a direction's trunks may be full, or not let the number through.
    fn next_target(
        &mut self,
        dial: &mut Dial,
        cause: Cause,
        status: Option<u16>,
        world: &mut World<'_>,
    ) -> bool {
        let unable = match status {
            Some(status) => matches!(status, 401 | 403 | 407 | 408 | 430 | 480 | 500..=599),
            None => matches!(cause, Cause::ABSENT | Cause::TIMER | Cause::OUT_OF_ORDER | Cause::NO_CIRCUIT),
        };
        // A phone that refuses for its user is not a phone that cannot be reached.
        let of_phone = matches!(dial.others.front(), Some((_, Target::Contact { .. })));
        let unable =
            unable && (!of_phone || matches!(cause, Cause::ABSENT | Cause::TIMER | Cause::OUT_OF_ORDER));
        // A trunk that rings and then finds no way on has reached no callee.
        let of_trunk = matches!(dial.others.front(), Some((_, Target::Trunk { .. })));
        let rang_for_nothing = of_trunk && matches!(status, Some(500..=599));
        if !unable || dial.ringing && !rang_for_nothing {
            return false;
        }
        while dial.legs.is_empty()
            && let Some(next) = dial.others.pop_front()
        {
            self.note("the next way is tried".to_owned());
            self.call_targets(dial, vec![next], world);
        }
        !dial.legs.is_empty()
    }

    /// One leg of a dial is no more; when it was the last and there is no other way, the dial has failed.
    pub(super) fn one_failed(&mut self, id: LegId, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let Some(mut dial) = self.dial.take() else { return };
        dial.legs.retain(|l| *l != id);
        if dial.early == Some(id) {
            dial.early = None;
        }
        // Among several, busy tells the caller most.
        if !matches!(dial.failure, Some((Cause::BUSY | Cause::REJECTED, _))) {
            dial.failure = Some((cause, status));
        }
        if dial.legs.is_empty() && !self.next_target(&mut dial, cause, status, world) {
            let (cause, status) = dial.failure.unwrap_or((cause, status));
            return self.failed(dial, cause, status, world);
        }
        self.dial = Some(dial);
    }

    /// Sends a dial on to the number its callee has set; where it cannot, the call fails with `cause`.
    pub(super) fn forward(&mut self, mut dial: Dial, service: Service, cause: Cause, world: &mut World<'_>) {
        let Some((domain, alias)) = dial.callee.take() else {
            return self.failed_for_good(dial, cause, None, world);
        };
        let options = world.active(&domain, &alias, service);
        let number = options.and_then(|o| o.options.get("number").cloned());
        let looped = |n: &String| dial.diverted.len() >= DIVERSIONS || dial.diverted.contains(n);
        let Some(number) = number.filter(|n| !n.is_empty() && !looped(n) && *n != alias) else {
            let cause = if dial.diverted.len() >= DIVERSIONS { Cause::ROUTING_ERROR } else { cause };
            return self.failed_for_good(dial, cause, None, world);
        };
        let user =
            world.picture.domains.get(&domain).and_then(|d| d.users.get(&d.aliases.get(&alias)?.iface));
        let Some(user) = user else { return self.failed_for_good(dial, cause, None, world) };
        self.note(format!("{service}: {alias} -> {number}"));
        self.tell(dial.number, &dial.trail, Phase::Service(service), world);
        dial.diverted.push(alias.clone());
        dial.cdr.diverted = Some(alias.clone());
        dial.cdr.service = "forward".into();
        dial.failure = None;
        if dial.by.is_none() {
            self.tell_progress(dial.waiting, 181, world);
        }
        // The caller stays the calling party; the way is the diverting subscriber's.
        let caller = self.caller(&dial);
        let query = query(&domain, &user.iface, &user.context, &caller, &number, world.now);
        dial.to = Party { number, ..Party::default() };
        dial.bridges.clear();
        self.follow(dial, &query, world);
    }

    /// A dial came to nothing: perhaps its callee wants it elsewhere.
    pub(super) fn failed(&mut self, dial: Dial, cause: Cause, status: Option<u16>, world: &mut World<'_>) {
        let service = match cause {
            Cause::BUSY => Service::Cfb,
            Cause::NO_ANSWER | Cause::NO_RESPONSE => Service::Cfnr,
            Cause::ABSENT | Cause::TIMER | Cause::OUT_OF_ORDER => Service::Cfos,
            _ => return self.failed_for_good(dial, cause, status, world),
        };
        let wants = dial
            .callee
            .as_ref()
            .is_some_and(|(domain, alias)| world.active(domain, alias, service).is_some());
        match wants {
            true => self.forward(dial, service, cause, world),
            false => self.failed_for_good(dial, cause, status, world),
        }
    }

    /// Lets a caller hear why its call failed, where there is an announcement of that: early, so that nobody pays for it.
    fn announce(&mut self, id: LegId, cause: Cause, status: u16, world: &mut World<'_>) -> bool {
        let late = self.legs.get(&id).is_none_or(|l| l.offers_late && !l.reliable);
        let Some(path) = world.media.announcement(cause).filter(|_| !late) else { return false };
        self.early(id, 183, world);
        if self.legs.get(&id).is_none_or(|l| l.early.is_none()) {
            return false;
        }
        self.note(format!("announcement {}", path.display()));
        world.media.hear(id, Source::File { path, repeat: false });
        self.announcing = Some((id, cause, status));
        self.out.push(Effect::After(ANNOUNCEMENT, Timer::Announced(id)));
        true
    }

    pub(super) fn failed_for_good(
        &mut self,
        dial: Dial,
        cause: Cause,
        status: Option<u16>,
        world: &mut World<'_>,
    ) {
        self.close_record(dial.cdr, &dial.trail, cause, "b", world);
        self.dial = None;
        let status = status.unwrap_or(cause.status());
        if let Some(by) = dial.by {
            // A transfer that failed: the parties are as before.
            self.out.push(Effect::Leg(by, LegCommand::Transferred { status }));
            self.view_state = if self.chair.is_some() { "conference" } else { "talking" };
            return self.reconnect(world);
        }
        if self.with_app(dial.waiting) {
            // Its application says how it goes on.
            self.view_state = "application";
            world.media.hear(dial.waiting, Source::Silence);
            return self.tell_app(AppEvent::Failed(cause));
        }
        match self.legs.get(&dial.waiting).map(|l| l.state) {
            Some(State::Calling) if self.announce(dial.waiting, cause, status, world) => {}
            Some(State::Calling) => {
                self.release(dial.waiting, cause, Some(status), world);
                self.end_if_alone(cause, "b", world);
            }
            // Already answered: it hears that it was in vain.
            Some(_) => {
                world.media.hear(dial.waiting, Source::Tone(Tone::Busy));
                self.out.push(Effect::After(BUSY_TONE, Timer::Heard(dial.waiting)));
            }
            None => self.end_if_alone(cause, "b", world),
        }
    }
}

/// What routing is asked for a call by this party, on the way of that interface.
pub(super) fn query(
    domain: &str,
    iface: &str,
    context: &str,
    caller: &Party,
    number: &str,
    at: DateTime<Utc>,
) -> Query {
    let apri = if caller.restricted { Apri::Restricted } else { Apri::Allowed };
    let nai = if caller.international { Nai::International } else { Calling::default().nai };
    Query {
        domain: domain.to_owned(),
        iface: iface.to_owned(),
        context: context.to_owned(),
        a: Calling { digits: caller.number.clone(), apri, nai, ..Calling::default() },
        b: Called { digits: number.to_owned(), ..Called::default() },
        mode: Mode::Enblock,
        at,
        explain: false,
    }
}

pub(super) fn blank(domain: &str, iface: &str, party: Party) -> Leg {
    Leg {
        state: State::Trying,
        party,
        domain: domain.to_owned(),
        iface: iface.to_owned(),
        alias: None,
        context: String::new(),
        lives: false,
        holds: false,
        offers_late: false,
        reliable: false,
        early: None,
        user_agent: String::new(),
        ice: false,
        sealed: false,
        quality: None,
        muted: false,
        hand: false,
        _line: None,
    }
}

/// Calls a subscriber may have at once: one without multiline, else what the service or the domain says.
pub(super) fn limit(picture: &Picture, domain: &str, alias: Option<&str>) -> u32 {
    let Some(state) = picture.domains.get(domain) else { return 0 };
    let of_domain =
        state.restrictions.get("calls\\limit").map_or(u32::MAX, |l| u32::try_from(*l).unwrap_or(u32::MAX));
    let known = alias.and_then(|a| state.services.get(a)).and_then(|all| all.get(Service::Ml.name()));
    let of_line = match known {
        Some(ml) if !ml.active => 1,
        Some(ml) => ml.options.get("limit").and_then(|l| l.parse().ok()).unwrap_or(u32::MAX),
        None => u32::MAX,
    };
    let user = alias.and_then(|a| state.users.get(&state.aliases.get(a)?.iface));
    let of_user = user.and_then(|u| u.properties.get("line_count")?.parse().ok()).unwrap_or(u32::MAX);
    of_line.min(of_domain).min(of_user)
}

pub(super) fn way(sides: &[record::Side], outcome: &Outcome) -> String {
    let mut text: Vec<&str> =
        sides.iter().flat_map(|s| [s.domain.as_str(), s.to.as_str()]).filter(|t| !t.is_empty()).collect();
    if let Outcome::Refused { text: why, .. } = outcome {
        text.push(why);
    }
    text.join(" -> ")
}
