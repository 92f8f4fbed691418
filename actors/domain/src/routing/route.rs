//! The way of a call through contexts, number plans and bridges: a pure function of the estate's picture.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    context::{Context, Facts, RuleResult},
    digitmap::Progress,
    mask::symbols,
    number::{Called, Calling, SormNumbers},
};
use crate::{
    bridge::{Bridge, End},
    estate::Picture,
    state::{Binding, DomainState, Trunk},
};

/// Name of a domain's own short numbering.
pub const DEFAULT_PLAN: &str = "default";
/// Contexts, plans and bridges a call may pass; more is a loop that changes the number on each round.
const MAX_HOPS: usize = 32;
/// Passed-over rules that a trace explains in each context.
const EXPLAINED: usize = 50;

/// How digits arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All at once.
    #[default]
    Enblock,
    /// One after another; more may come.
    Overlap,
}

/// A call to route.
#[derive(Debug, Clone)]
pub struct Query {
    pub domain: String,
    /// Originating interface: `200100@voip.local`, `bridge:c2v`, `trunk1`.
    pub iface: String,
    /// Context the interface begins in.
    pub context: String,
    pub a: Calling,
    pub b: Called,
    pub mode: Mode,
    pub at: DateTime<Utc>,
    /// Whether to explain each rule passed over; calls do not, traces do.
    pub explain: bool,
}

/// Where a call ends up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    Local {
        domain: String,
        alias: String,
        iface: String,
    },
    /// `others` are tried in their order where the trunk cannot take the call.
    External {
        domain: String,
        trunk: String,
        group: String,
        others: Vec<String>,
    },
    Refused {
        cause: Cause,
        text: String,
    },
}

/// ITU-T Q.850 cause values that routing gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    UnallocatedNumber = 1,
    NoRouteToDestination = 3,
    ExchangeRoutingError = 25,
    InvalidNumberFormat = 28,
    NoCircuitAvailable = 34,
    BearerCapabilityNotAuthorized = 57,
}

impl Cause {
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// One stop on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Step {
    Context {
        domain: String,
        context: String,
        np: Option<String>,
        a: String,
        b: String,
        /// The rule that fitted.
        rule: Option<String>,
        passed: Vec<Passed>,
        /// All that were passed over, also those not explained.
        passed_total: usize,
        /// Its result, in words.
        result: String,
    },
    /// A local number took its full form in a plan.
    Renumbered {
        domain: String,
        plan: String,
        from: String,
        to: String,
    },
    Number {
        domain: String,
        plan: String,
        number: String,
        bound: String,
    },
    Bridge {
        bridge: String,
        from: String,
        to: String,
        iface: String,
        calls: u32,
        capacity: Option<u32>,
    },
}

/// A rule that did not fit, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passed {
    pub rule: String,
    pub failed: String,
}

/// What one domain saw of a call that passed through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    pub domain: String,
    /// Interface or trunk it came by and went by; `bridge NAME` for a bridge, nothing where it was refused.
    pub from: String,
    pub to: String,
    /// Numbers as they entered the domain.
    pub calling: String,
    pub called: String,
    /// And as they left it.
    pub a: Calling,
    pub b: Called,
    /// What this domain's contexts say to interception.
    pub sorm: SormNumbers,
}

/// The way of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    pub steps: Vec<Step>,
    /// The domains it passed, the caller's first.
    pub stretches: Vec<Stretch>,
    pub outcome: Outcome,
    pub a: Calling,
    pub b: Called,
    pub sorm: SormNumbers,
    /// Bridges crossed, in order; a call holds a place on each for its life.
    pub bridges: Vec<String>,
}

impl Trace {
    /// Leaves out what happens in domains that are not seen; the answer is the first of them.
    pub fn cut(&mut self, seen: impl Fn(&str) -> bool) -> Option<String> {
        let of = |step: &Step| match step {
            Step::Context { domain, .. } | Step::Renumbered { domain, .. } | Step::Number { domain, .. } => {
                domain.clone()
            }
            Step::Bridge { from, .. } => from.clone(),
        };
        let end = |outcome: &Outcome| match outcome {
            Outcome::Local { domain, .. } | Outcome::External { domain, .. } => Some(domain.clone()),
            Outcome::Refused { .. } => None,
        };
        let first = self.steps.iter().position(|step| !seen(&of(step)));
        let beyond = match first {
            Some(first) => Some(of(&self.steps[first])),
            None => end(&self.outcome).filter(|domain| !seen(domain)),
        }?;
        self.steps.truncate(first.unwrap_or(self.steps.len()));
        self.stretches.retain(|s| seen(&s.domain));
        if let Some(Step::Bridge { iface, .. }) = self.steps.last_mut() {
            iface.clear();
        }
        Some(beyond)
    }
}

struct Walk<'p> {
    picture: &'p Picture,
    query: &'p Query,
    domain: String,
    iface: String,
    /// Number plan the numbers are in now.
    plan: String,
    a: Calling,
    b: Called,
    sorm: SormNumbers,
    steps: Vec<Step>,
    stretches: Vec<Stretch>,
    /// The domain has just been entered over a bridge.
    fresh: bool,
    seen: HashSet<(String, String, String, String)>,
    bridges: Vec<String>,
    hops: usize,
}

/// What is next: a context by name, or the end.
enum Next {
    Context(String),
    End(Outcome),
}

/// Leads a call to its end. Costs the length of the numbers times the contexts passed, however many rules and numbers
/// there are (except for the explanations of a trace).
pub fn route(picture: &Picture, query: &Query) -> Trace {
    let mut walk = Walk {
        picture,
        query,
        domain: query.domain.clone(),
        iface: query.iface.clone(),
        plan: DEFAULT_PLAN.into(),
        a: query.a.clone(),
        b: query.b.clone(),
        sorm: SormNumbers::default(),
        steps: Vec::new(),
        stretches: Vec::new(),
        fresh: true,
        seen: HashSet::new(),
        bridges: Vec::new(),
        hops: 0,
    };
    let mut context = query.context.clone();
    let outcome = loop {
        match walk.enter(&context) {
            Next::Context(next) => context = next,
            Next::End(outcome) => break outcome,
        }
    };
    walk.leave(match &outcome {
        Outcome::Local { iface, .. } => iface.clone(),
        Outcome::External { trunk, .. } => trunk.clone(),
        Outcome::Refused { .. } => String::new(),
    });
    let Walk { steps, stretches, a, b, sorm, bridges, .. } = walk;
    Trace { steps, stretches, outcome, a, b, sorm, bridges }
}

/// What the first fitting rule of a context says to interception of these numbers; calls do not pass it.
pub fn adapted(
    domain: &DomainState,
    context: &str,
    iface: &str,
    a: &Calling,
    b: &Called,
    at: DateTime<Utc>,
) -> Option<SormNumbers> {
    let context = domain.contexts.get(context)?;
    let (from, to) = (symbols(&a.digits)?, symbols(&b.digits)?);
    let found = context.index.first(&context.rules, &to, &from, &Facts { a, b, iface, at })?;
    let mut said = SormNumbers::default();
    context.rules.get(found)?.act(&mut a.clone(), &mut b.clone(), &mut said);
    Some(said)
}

fn refused(cause: Cause, text: impl Into<String>) -> Next {
    Next::End(Outcome::Refused { cause, text: text.into() })
}

impl<'p> Walk<'p> {
    /// Notes that a domain has been entered, with its numbers as its first context sees them.
    fn arrive(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        self.stretches.push(Stretch {
            domain: self.domain.clone(),
            from: self.iface.clone(),
            to: String::new(),
            calling: self.a.digits.clone(),
            called: self.b.digits.clone(),
            a: self.a.clone(),
            b: self.b.clone(),
            sorm: SormNumbers::default(),
        });
    }

    fn leave(&mut self, to: String) {
        // A call refused before its first context has been in no domain, but somebody asked one for it.
        self.arrive();
        if let Some(last) = self.stretches.last_mut() {
            last.to = to;
            last.a.clone_from(&self.a);
            last.b.clone_from(&self.b);
        }
    }

    fn enter(&mut self, name: &str) -> Next {
        let Some(domain) = self.picture.domains.get(&self.domain) else {
            return refused(Cause::NoRouteToDestination, format!("there is no domain {}", self.domain));
        };
        let Some(context) = domain.contexts.get(name) else {
            let text = format!("domain {} has no context {name}", self.domain);
            return refused(Cause::NoRouteToDestination, text);
        };
        if self.stretches.is_empty() {
            self.arrive();
        }
        if let Some(plan) = &context.np {
            self.renumber(domain, plan);
        }
        self.arrive();
        if let Some(again) = self.looped(name) {
            return again;
        }
        let (Some(a), Some(b)) = (symbols(&self.a.digits), symbols(&self.b.digits)) else {
            let text = format!("{:?} or {:?} is no number", self.a.digits, self.b.digits);
            return refused(Cause::InvalidNumberFormat, text);
        };
        let facts = Facts { a: &self.a, b: &self.b, iface: &self.iface, at: self.query.at };
        let found = context.index.first(&context.rules, &b, &a, &facts);
        let (passed, passed_total) = self.passed(context, found, &facts);
        let rule = found.and_then(|i| context.rules.get(i));
        self.steps.push(Step::Context {
            domain: self.domain.clone(),
            context: name.to_owned(),
            np: context.np.clone(),
            a: self.a.digits.clone(),
            b: self.b.digits.clone(),
            rule: rule.map(|r| r.name.clone()),
            passed,
            passed_total,
            result: rule.map_or_else(|| "no rule fits".to_owned(), |r| words(&r.result)),
        });
        let Some(rule) = rule else {
            if self.query.mode == Mode::Overlap && more_may_come(context, &b) {
                let text = format!("{:?} is incomplete: more digits are needed", self.b.digits);
                return refused(Cause::InvalidNumberFormat, text);
            }
            let text = format!("no rule of context {name} in domain {} fits", self.domain);
            return refused(Cause::NoRouteToDestination, text);
        };
        let mut said = SormNumbers::default();
        rule.act(&mut self.a, &mut self.b, &mut said);
        if let Some(here) = self.stretches.last_mut() {
            here.sorm.overlay(&said);
        }
        self.sorm.overlay(&said);
        match &rule.result {
            RuleResult::Local => self.local(domain),
            RuleResult::Continue(next) => Next::Context(next.clone()),
            RuleResult::Trunk(value) => match self.picture.bridges.by_iface(&self.domain, value) {
                Some((bridge, end)) => self.cross(domain, bridge, end),
                None => match domain.trunks.get(value) {
                    Some(trunk) => self.external(&trunk.name, &trunk.group, Vec::new()),
                    None if value.starts_with("bridge:") => refused(
                        Cause::NoRouteToDestination,
                        format!(
                            "domain {} has no bridge interface {value}; bridge/list shows all",
                            self.domain
                        ),
                    ),
                    None => {
                        let text = format!("domain {} has no trunk {value}", self.domain);
                        refused(Cause::NoRouteToDestination, text)
                    }
                },
            },
            RuleResult::Direction(value) => {
                let all = match domain.trunks.get(value) {
                    Some(trunk) => vec![trunk],
                    None => self.in_order(domain.trunks.values().filter(|t| t.group == *value)),
                };
                match all.split_first() {
                    Some((trunk, others)) => {
                        let others = others.iter().map(|t| t.name.clone()).collect();
                        self.external(&trunk.name, &trunk.group, others)
                    }
                    None => refused(
                        Cause::NoRouteToDestination,
                        format!("domain {} has neither a trunk {value} nor one of that group", self.domain),
                    ),
                }
            }
        }
    }

    fn external(&self, trunk: &str, group: &str, others: Vec<String>) -> Next {
        let (domain, trunk, group) = (self.domain.clone(), trunk.to_owned(), group.to_owned());
        Next::End(Outcome::External { domain, trunk, group, others })
    }

    /// A group's trunks in the order in which they are tried (as RFC 2782 has it): the lowest `priority` first; among equal
    /// ones by chance, each as often first as its `weight` says. The call's time is the chance, so that a replay repeats it.
    fn in_order<'t>(&self, trunks: impl Iterator<Item = &'t Trunk>) -> Vec<&'t Trunk> {
        let number = |t: &Trunk, name: &str, usual: u64| {
            t.property(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(usual)
        };
        let mut left: Vec<&Trunk> = trunks.collect();
        left.sort_by_key(|t| number(t, "priority", 0));
        let mut chance = self.query.at.timestamp_subsec_nanos() as u64 ^ self.query.at.timestamp() as u64;
        let mut order = Vec::with_capacity(left.len());
        while let Some(first) = left.first() {
            let priority = number(first, "priority", 0);
            let equal = left.iter().take_while(|t| number(t, "priority", 0) == priority).count();
            let total: u64 = left[..equal].iter().map(|t| number(t, "weight", 1)).sum();
            chance = chance.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            let mut drawn = chance.checked_rem(total).unwrap_or(0);
            let at = left[..equal].iter().position(|t| {
                let weight = number(t, "weight", 1);
                let hit = drawn < weight;
                drawn = drawn.saturating_sub(weight);
                hit
            });
            order.push(left.remove(at.unwrap_or(0)));
        }
        order
    }

    /// Refuses to go where the call has been with the same numbers, and to go on for ever with other ones.
    fn looped(&mut self, context: &str) -> Option<Next> {
        self.hops += 1;
        let state = (self.domain.clone(), context.to_owned(), self.a.digits.clone(), self.b.digits.clone());
        let again = !self.seen.insert(state);
        if !again && self.hops <= MAX_HOPS {
            return None;
        }
        let way: Vec<String> = self.steps.iter().filter_map(stop_name).collect();
        let here = format!("{}/{context}", self.domain);
        let text = if again {
            let from = way.iter().position(|w| *w == here).unwrap_or(0);
            format!("a loop: {} -> {here}", way[from..].join(" -> "))
        } else {
            let last = way.len().saturating_sub(6);
            format!(
                "a loop that changes the number: {MAX_HOPS} stops passed, the last {} -> {here}",
                way[last..].join(" -> ")
            )
        };
        Some(refused(Cause::ExchangeRoutingError, text))
    }

    fn passed(&self, context: &Context, found: Option<usize>, facts: &Facts) -> (Vec<Passed>, usize) {
        let total = found.unwrap_or(context.rules.len());
        if !self.query.explain {
            return (Vec::new(), total);
        }
        let explain = |r: &super::context::Rule| Passed {
            rule: r.name.clone(),
            failed: r.conditions.first_failed(facts).unwrap_or_default(),
        };
        (context.rules.iter().take(total.min(EXPLAINED)).map(explain).collect(), total)
    }

    /// The calling number as the plan knows it outside; a number the plan does not know stays.
    fn renumber(&mut self, domain: &DomainState, plan: &str) {
        if self.plan == plan {
            return;
        }
        self.plan = plan.to_owned();
        let full = domain.plans.get(plan).and_then(|p| p.full_number(&self.a.digits));
        if let Some(full) = full {
            self.steps.push(Step::Renumbered {
                domain: self.domain.clone(),
                plan: plan.to_owned(),
                from: self.a.digits.clone(),
                to: full.to_owned(),
            });
            self.a.digits = full.to_owned();
        }
    }

    /// A number of this domain: an alias, or a number of the plan in force that leads on.
    fn local(&mut self, domain: &'p DomainState) -> Next {
        let mut number = self.b.digits.clone();
        if self.plan != DEFAULT_PLAN {
            let Some(plan) = domain.plans.get(&self.plan) else {
                let text = format!("domain {} has no number plan {}", self.domain, self.plan);
                return refused(Cause::NoRouteToDestination, text);
            };
            // A number may be bound to another number of the plan; a chain that comes back is a loop.
            let mut chain = Vec::new();
            loop {
                let Some(binding) = plan.numbers.get(&number) else {
                    if !chain.is_empty() {
                        break;
                    }
                    let text =
                        format!("{number} is not in the number plan {} of domain {}", self.plan, self.domain);
                    return refused(Cause::UnallocatedNumber, text);
                };
                if chain.contains(&number) {
                    let text = format!("a loop of numbers: {} -> {number}", chain.join(" -> "));
                    return refused(Cause::ExchangeRoutingError, text);
                }
                let mut bound = |to: String| {
                    self.steps.push(Step::Number {
                        domain: self.domain.clone(),
                        plan: self.plan.clone(),
                        number: number.clone(),
                        bound: to,
                    });
                };
                match binding {
                    Binding::Free => {
                        bound("nothing".into());
                        let text =
                            format!("{number} is in the number plan {}, but bound to nothing", self.plan);
                        return refused(Cause::UnallocatedNumber, text);
                    }
                    Binding::Bridge(name) => {
                        bound(format!("bridge {name}"));
                        return match self.picture.bridges.end_in(name, &self.domain) {
                            Some((bridge, end)) => self.cross(domain, bridge, end),
                            None => {
                                let text = format!(
                                    "{number} leads to bridge {name}, which does not end in {}",
                                    self.domain
                                );
                                refused(Cause::NoRouteToDestination, text)
                            }
                        };
                    }
                    Binding::Aliases(_) => {
                        let Some(taker) = binding.taker() else {
                            return refused(
                                Cause::UnallocatedNumber,
                                format!("{number} is bound to nothing"),
                            );
                        };
                        bound(format!("alias {}", taker.address));
                        chain.push(std::mem::replace(&mut number, taker.address.clone()));
                        if domain.aliases.contains_key(&number) {
                            break;
                        }
                    }
                }
            }
        }
        match domain.aliases.get(&number) {
            Some(alias) => Next::End(Outcome::Local {
                domain: self.domain.clone(),
                alias: number,
                iface: alias.iface.clone(),
            }),
            None => {
                let text = format!("domain {} has no subscriber {number}", self.domain);
                refused(Cause::UnallocatedNumber, text)
            }
        }
    }

    fn cross(&mut self, domain: &DomainState, bridge: &Bridge, from: End) -> Next {
        let (near, far) = (bridge.side(from), bridge.side(from.other()));
        if from == End::B && !bridge.duplex {
            let text = format!(
                "bridge {} takes calls from {} to {} only",
                bridge.name, bridge.a.domain, bridge.b.domain
            );
            return refused(Cause::NoRouteToDestination, text);
        }
        if near.np != DEFAULT_PLAN {
            self.renumber(domain, &near.np);
        }
        let calls = self.picture.calls_on(&bridge.name);
        self.steps.push(Step::Bridge {
            bridge: bridge.name.clone(),
            from: near.domain.clone(),
            to: far.domain.clone(),
            iface: far.iface.clone(),
            calls,
            capacity: bridge.capacity,
        });
        if let Some(capacity) = bridge.capacity
            && calls.saturating_add(bridge.blocked) >= capacity
        {
            let text = format!(
                "bridge {} is full: {capacity} places, {calls} with calls, {} blocked",
                bridge.name, bridge.blocked
            );
            return refused(Cause::NoCircuitAvailable, text);
        }
        if bridge.strict
            && let Some(stranger) = self.stranger(bridge, from)
        {
            return refused(Cause::BearerCapabilityNotAuthorized, stranger);
        }
        self.bridges.push(bridge.name.clone());
        self.leave(format!("bridge {}", bridge.name));
        self.fresh = true;
        self.domain.clone_from(&far.domain);
        self.iface.clone_from(&far.iface);
        self.plan.clone_from(&far.np);
        Next::Context(far.context.clone())
    }

    /// The strict check: towards B the called number, from B the calling one, must be in side B's plan.
    fn stranger(&self, bridge: &Bridge, from: End) -> Option<String> {
        let side = &bridge.b;
        let (what, number) = match from {
            End::A => ("called", &self.b.digits),
            End::B => ("calling", &self.a.digits),
        };
        let domain = self.picture.domains.get(&side.domain);
        let known = domain.is_some_and(|d| match side.np.as_str() {
            DEFAULT_PLAN => d.aliases.contains_key(number),
            np => d.plans.get(np).is_some_and(|p| p.numbers.contains_key(number)),
        });
        (!known).then(|| {
            let Bridge { name, .. } = bridge;
            format!(
                "bridge {name} is strict: the {what} number {number} is not in plan {} of {}",
                side.np, side.domain
            )
        })
    }
}

fn more_may_come(context: &Context, number: &[u8]) -> bool {
    let by_map = context.digitmap.as_ref().is_some_and(|d| d.progress(number) == Progress::Partial);
    let by_rule = |r: &super::context::Rule| {
        r.conditions.cdpn.as_ref().is_some_and(|m| {
            m.sets.len() > number.len() && m.sets.iter().zip(number).all(|(set, n)| set.has(*n))
        })
    };
    by_map || context.rules.iter().any(by_rule)
}

fn words(result: &RuleResult) -> String {
    match result {
        RuleResult::Local => "local".into(),
        RuleResult::Trunk(t) => format!("external, trunk {t}"),
        RuleResult::Direction(d) => format!("external, direction {d}"),
        RuleResult::Continue(c) => format!("continue in {c}"),
    }
}

fn stop_name(step: &Step) -> Option<String> {
    match step {
        Step::Context { domain, context, .. } => Some(format!("{domain}/{context}")),
        Step::Bridge { bridge, .. } => Some(format!("bridge {bridge}")),
        _ => None,
    }
}
