//! A call comes in: who calls, and whether a code or a number was dialled.

use domain::state::Value;
use subtle::ConstantTimeEq;

use super::{
    dial::{blank, limit},
    *,
};

impl Call {
    pub(super) fn enter(&mut self, incoming: Incoming, world: &mut World<'_>) -> Result<(), (Cause, String)> {
        let refuse = |cause: Cause, text: &str| Err((cause, text.to_owned()));
        let Incoming { leg, domain: name, origin, from, dialled, sdp, .. } = &incoming;
        let Some(domain) = world.picture.domains.get(name) else {
            return refuse(Cause::NO_ROUTE, "its domain has gone");
        };
        let (iface, context, alias, mut party) = match origin {
            Origin::Subscriber { iface } => {
                let Some(user) = domain.users.get(iface) else {
                    return refuse(Cause::REJECTED, "no such subscriber");
                };
                let number = domain.number_of(user).to_owned();
                let party = Party { number: number.clone(), ..from.clone() };
                (iface.clone(), user.context.clone(), Some(number), party)
            }
            Origin::Trunk { name } => match domain.trunks.get(name) {
                Some(trunk) => (name.clone(), trunk.context.clone(), None, from.clone()),
                None => return refuse(Cause::REJECTED, "no such trunk"),
            },
        };
        if let Some(alias) = &alias {
            let has = |s| world.active(name, alias, s).is_some();
            party.restricted |= has(Service::Clir);
            let apri = domain.aliases.get(alias).and_then(|a| a.properties.get("apri"));
            party.restricted |= apri.is_some_and(|v| v.shown() == "presentationRestricted");
            if !has(Service::Cnip) {
                party.name.clear();
            }
        }
        let line = match alias.is_some() {
            true => match world.board.take_line(name, &iface, limit(world.picture, name, alias.as_deref())) {
                Some(line) => Some(line),
                None => return refuse(Cause::UNAVAILABLE, "the subscriber has as many calls as it may"),
            },
            false => None,
        };
        let origin_leg = Leg {
            state: State::Calling,
            alias: alias.clone(),
            context,
            offers_late: sdp.is_none(),
            user_agent: incoming.user_agent.clone(),
            ice: incoming.ice,
            reliable: incoming.reliable,
            _line: line,
            ..blank(name, &iface, party)
        };
        self.legs.insert(*leg, origin_leg);
        if let Some(peer) = incoming.peer {
            world.media.signalled(*leg, peer);
        }
        if let Some(sdp) = sdp {
            world.media.remote_offer(*leg, sdp).map_err(|e| (e.cause(), e.to_string()))?;
        }
        if let Some(replaced) = incoming.replaces {
            self.give_away(*leg, HandTo::LegOf(replaced), How::Replace(replaced), *leg, world);
            return Ok(());
        }
        if let Some(alias) = &alias
            && let Some(code) = service::code(dialled)
        {
            return self.code(code, name.clone(), alias.clone(), world);
        }
        if incoming.max_forwards == 0 {
            return refuse(Cause::ROUTING_ERROR, "too many hops");
        }
        if incoming.history.iter().filter(|n| *n == dialled).count() > 1 {
            return refuse(Cause::ROUTING_ERROR, "a loop: the number was diverted from before");
        }
        let dial = self.new_dial(*leg, None, "call", world);
        let dial = Dial {
            max_forwards: incoming.max_forwards - 1,
            diverted: incoming.history.clone(),
            uui: incoming.uui.clone(),
            to: Party { international: incoming.international, ..Party::default() },
            ..dial
        };
        self.route(dial, dialled.clone(), world);
        Ok(())
    }

    pub(super) fn code(
        &mut self,
        code: Code,
        domain: String,
        alias: String,
        world: &mut World<'_>,
    ) -> Result<(), (Cause, String)> {
        let allowed = |s: Service| world.picture.allows(s.name(), world.now);
        let not_granted =
            || Err((Cause::NOT_SUBSCRIBED, "the licence does not grant this service".to_owned()));
        match code {
            Code::Activate(service, _) | Code::Deactivate(service) if !allowed(service) => not_granted(),
            Code::Activate(service, number) => {
                self.out.push(Effect::SetService { domain, alias, service, active: true, number });
                Ok(())
            }
            Code::Deactivate(service) => {
                self.out.push(Effect::SetService { domain, alias, service, active: false, number: None });
                Ok(())
            }
            Code::Conference => {
                let own = world.active(&domain, &alias, Service::Conference);
                if own.is_none() && self.meeting.is_none() {
                    return Err((Cause::NOT_SUBSCRIBED, "no conference service".into()));
                }
                let origin = self.origin;
                self.chair = Some(origin);
                self.view_state = "conference";
                self.answer(origin, world)?;
                self.reconnect(world);
                self.out.push(Effect::After(LONGEST, Timer::Longest));
                Ok(())
            }
            Code::Meeting => {
                if world.active(&domain, &alias, Service::Teleconference).is_none() {
                    return Err((Cause::NOT_SUBSCRIBED, "no teleconference service".into()));
                }
                if !is_manager(world.picture, &domain, &alias) {
                    return Err((Cause::NOT_SUBSCRIBED, "only a manager opens a meeting".into()));
                }
                self.meeting = world.board.open(&domain, &alias, &self.address);
                if self.meeting.is_none() {
                    return Err((Cause::BUSY, "the meeting is open already".into()));
                }
                self.code(Code::Conference, domain, alias, world)
            }
            Code::Join(manager, password) => {
                if world.active(&domain, &manager, Service::Teleconference).is_none() {
                    return Err((Cause::UNALLOCATED, "no such meeting".into()));
                }
                if world.board.guessed(&domain, &manager, false, world.now) {
                    return Err((Cause::REJECTED, "too many wrong passwords; wait a minute".into()));
                }
                if !right(world, &domain, &manager, &password) {
                    world.board.guessed(&domain, &manager, true, world.now);
                    return Err((Cause::REJECTED, "not the meeting's password".into()));
                }
                let speaks = is_manager(world.picture, &domain, &alias);
                let origin = self.origin;
                self.give_away(
                    origin,
                    HandTo::Meeting { domain, manager },
                    How::Join { speaks },
                    origin,
                    world,
                );
                Ok(())
            }
            Code::Pickup(number) => {
                if world.active(&domain, &alias, Service::Pickup).is_none() {
                    return Err((Cause::NOT_SUBSCRIBED, "no pickup service".into()));
                }
                let known = world.picture.domains.get(&domain).and_then(|d| d.aliases.get(&number));
                let iface = known
                    .map(|a| a.iface.clone())
                    .ok_or((Cause::UNALLOCATED, "no such number".to_owned()))?;
                let origin = self.origin;
                self.give_away(origin, HandTo::RingingAt(iface), How::Pickup, origin, world);
                Ok(())
            }
        }
    }
}

/// Property of an alias: its role in meetings.
fn is_manager(picture: &Picture, domain: &str, alias: &str) -> bool {
    let alias = picture.domains.get(domain).and_then(|d| d.aliases.get(alias));
    alias.and_then(|a| a.properties.get("teleconference\\role")).is_some_and(|r| r.shown() == "manager")
}

/// Whether this is the password of the manager's meeting; a meeting without one lets nobody in.
fn right(world: &World<'_>, domain: &str, manager: &str, password: &str) -> bool {
    const NAME: &str = "teleconference\\password";
    let alias = world.picture.domains.get(domain).and_then(|d| d.aliases.get(manager));
    let Some(Value::Sealed { sealed }) = alias.and_then(|a| a.properties.get(NAME)) else { return false };
    match world.vault.open(&format!("domain/{domain}/alias/{NAME}"), sealed) {
        Ok(known) => bool::from(known.expose().as_bytes().ct_eq(password.as_bytes())),
        Err(e) => {
            tracing::error!(domain, error = %e, "a meeting's password cannot be opened");
            false
        }
    }
}
