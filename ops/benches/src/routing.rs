//! Routing with 100, 10,000 and 1,000,000 rules and numbers; beside it a set of regular expressions over the same masks.

use std::{hint::black_box, sync::Arc, time::Instant};

use domain::{
    Picture,
    routing::{
        context::{Conditions, Context, Rule, RuleResult},
        number::{Called, Calling},
        route::{Mode, Outcome, Query, route},
    },
    state::{Alias, DomainState},
};

fn number(i: usize) -> String {
    format!("{i:07}")
}

fn picture(size: usize) -> Picture {
    let rules = (0..size).map(|i| {
        let cdpn = Some(number(i).parse().expect("a mask"));
        let conditions = Conditions { cdpn, ..Conditions::default() };
        Rule { name: i.to_string(), conditions, actions: vec![], result: RuleResult::Local }
    });
    let context = Context::new("c".into(), None, None, rules.collect(), "");
    let alias = |i| Alias {
        address: number(i),
        group: "g".into(),
        iface: format!("{}@d", number(i)),
        properties: Default::default(),
    };
    let state = DomainState {
        contexts: [("c".to_owned(), context)].into_iter().collect(),
        aliases: (0..size).map(|i| (number(i), alias(i))).collect(),
        ..DomainState::default()
    };
    Picture { domains: [("d".to_owned(), Arc::new(state))].into_iter().collect(), ..Picture::default() }
}

/// Numbers spread over the estate, the same in every run.
fn called(size: usize, calls: usize) -> impl Iterator<Item = String> {
    (0..calls).map(move |i| number(i.wrapping_mul(7_919) % size))
}

/// Nanoseconds to route one call.
pub fn hypha(size: usize) -> f64 {
    let picture = picture(size);
    let queries: Vec<Query> = called(size, 100_000)
        .map(|digits| Query {
            domain: "d".into(),
            iface: "1@d".into(),
            context: "c".into(),
            a: Calling { digits: "0000001".into(), ..Calling::default() },
            b: Called { digits, ..Called::default() },
            mode: Mode::Enblock,
            at: chrono::DateTime::UNIX_EPOCH,
            explain: false,
        })
        .collect();
    let began = Instant::now();
    for query in &queries {
        let trace = black_box(route(&picture, query));
        assert!(matches!(trace.outcome, Outcome::Local { .. }));
    }
    began.elapsed().as_nanos() as f64 / queries.len() as f64
}

/// Nanoseconds to find the first rule that fits, by the `regex` crate.
pub fn regex(size: usize) -> Option<f64> {
    let set = regex::RegexSetBuilder::new((0..size).map(|i| format!("^{}$", number(i))))
        .size_limit(1 << 30)
        .build()
        .ok()?;
    let calls: Vec<String> = called(size, 2_000).collect();
    let began = Instant::now();
    for digits in &calls {
        black_box(set.matches(digits).iter().next()?);
    }
    Some(began.elapsed().as_nanos() as f64 / calls.len() as f64)
}
