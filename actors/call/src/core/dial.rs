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
        let query = query(&from.domain, &from.iface, &from.context, &from.party, &number, world.now);
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
        let from = Party {
            number: trace.a.digits.clone(),
            restricted: trace.a.apri != Apri::Allowed,
            ..self.caller(&dial)
        };
        dial.to.number.clone_from(&trace.b.digits);
        match trace.outcome {
            Outcome::Refused { cause, .. } => self.failed(dial, cause.into(), None, world),
            Outcome::External { domain, trunk, .. } => {
                let (to, target) =
                    (dial.to.clone(), Target::Trunk { domain: domain.clone(), trunk: trunk.clone() });
                self.launch(dial, vec![(blank(&domain, &trunk, to), target)], from, NO_ANSWER, world);
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
        let now = world.now;
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
        if !forking {
            contacts.truncate(1);
        }
        let mut line = world.board.take_line(&domain, &iface, limit(world.picture, &domain, Some(&alias)));
        if line.is_none() {
            return self.failed(dial, Cause::BUSY, None, world);
        }
        let context = user.map(|u| u.context.clone()).unwrap_or_default();
        let wants =
            |property: &str| user.and_then(|u| u.properties.get(property)).is_some_and(|v| v == "true");
        // With one contact its interface says what it is; among several each contact does (manual, `core_forking`).
        let (ice, sealed) = (!forking && wants("ice/enabled"), wants("srtp"));
        let legs = contacts
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
        for (leg, target) in targets {
            let id = world.board.next_leg();
            if let Target::Contact { contact, .. } = &target
                && let Some(peer) = contact.peer()
            {
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
            self.out.push(Effect::Leg(dial.waiting, LegCommand::Progress { status: 181, sdp: None }));
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
        let late = self.legs.get(&id).is_none_or(|l| l.offers_late);
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
    Query {
        domain: domain.to_owned(),
        iface: iface.to_owned(),
        context: context.to_owned(),
        a: Calling { digits: caller.number.clone(), apri, ..Calling::default() },
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
        holds: false,
        offers_late: false,
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
