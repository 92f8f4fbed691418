//! Routing over small estates: where calls end, and that none goes on for ever.

use std::sync::Arc;

use kit::journal::Fold;
use proptest::prelude::*;

use super::{
    number::{Called, Calling},
    route::{Cause, Mode, Outcome, Query, Trace, route},
    xml,
};
use crate::{
    bridge::{Bridge, BridgeCommand, Bridges, Side, decide},
    estate::Picture,
    state::{Alias, BoundAlias, DomainEvent, DomainState},
};

/// `(context, np, [(cdpn, result)])`
type Context<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)]);

fn domain(contexts: &[Context]) -> DomainState {
    let mut state = DomainState::default();
    for (name, np, rules) in contexts {
        let rules = rules.iter().enumerate().map(|(i, (mask, result))| {
            let (action, result) = result.split_once(';').map_or(("", *result), |(a, r)| (a, r));
            format!(
                "<rule name=\"{i}\"><conditions><cdpn digits=\"{mask}\"/></conditions>\
                 <actions>{action}</actions><result>{result}</result></rule>"
            )
        });
        let np = np.map(|np| format!(" np=\"{np}\"")).unwrap_or_default();
        let text = format!("<context name=\"{name}\"{np}>{}</context>", rules.collect::<String>());
        let context = Box::new(xml::parse(&text).expect("a context"));
        state.apply(&DomainEvent::ContextImported { context });
    }
    state
}

fn alias(state: &mut DomainState, address: &str) {
    let iface = format!("{address}@d");
    let alias = Alias { address: address.into(), group: "g".into(), iface, properties: Default::default() };
    state.apply(&DomainEvent::UsersDeclared { users: vec![], aliases: vec![alias] });
}

fn side(domain: &str, iface: &str) -> Side {
    Side {
        domain: domain.into(),
        np: "default".into(),
        iface: iface.into(),
        trunk_group: "tg".into(),
        context: "c".into(),
        access_group: String::new(),
    }
}

fn bridge(duplex: bool) -> Bridge {
    let (a, b) = (side("a", "bridge:ab"), side("b", "bridge:ba"));
    Bridge { name: "ab".into(), duplex, strict: false, capacity: None, blocked: 0, a, b }
}

fn picture(domains: Vec<(&str, DomainState)>, bridges: Vec<Bridge>) -> Picture {
    let mut all = Bridges::default();
    for bridge in bridges {
        for event in decide(&all.clone(), BridgeCommand::Declare(Box::new(bridge))).expect("a good bridge") {
            all.apply(&event);
        }
    }
    let domains = domains.into_iter().map(|(n, d)| (n.to_owned(), Arc::new(d))).collect();
    Picture { domains, bridges: Arc::new(all), ..Picture::default() }
}

fn call(picture: &Picture, domain: &str, to: &str, mode: Mode) -> Trace {
    let query = Query {
        domain: domain.into(),
        iface: "test".into(),
        context: "c".into(),
        a: Calling { digits: "100".into(), ..Calling::default() },
        b: Called { digits: to.into(), ..Called::default() },
        mode,
        at: chrono::DateTime::UNIX_EPOCH,
        explain: true,
    };
    route(picture, &query)
}

fn refusal(trace: &Trace) -> (Cause, &str) {
    match &trace.outcome {
        Outcome::Refused { cause, text } => (*cause, text),
        other => panic!("it was not refused: {other:?}"),
    }
}

const LOCAL: &str = "<local/>";

#[test]
fn contexts_that_continue_in_each_other_are_a_loop() {
    let d = domain(&[
        ("c", None, &[("%", "<continue context=\"d\"/>")]),
        ("d", None, &[("%", "<continue context=\"c\"/>")]),
    ]);
    let trace = call(&picture(vec![("a", d)], vec![]), "a", "1", Mode::Enblock);
    assert_eq!(refusal(&trace), (Cause::ExchangeRoutingError, "a loop: a/c -> a/d -> a/c"));
}

#[test]
fn bridges_that_lead_back_are_a_loop() {
    let over = |iface: &str| format!("<external><trunk value=\"{iface}\"/></external>");
    let a = domain(&[("c", None, &[("%", &over("bridge:ab"))])]);
    let b = domain(&[("c", None, &[("%", &over("bridge:ba"))])]);
    let trace = call(&picture(vec![("a", a), ("b", b)], vec![bridge(true)]), "a", "1", Mode::Enblock);
    let (cause, text) = refusal(&trace);
    assert_eq!(cause, Cause::ExchangeRoutingError);
    assert_eq!(text, "a loop: a/c -> bridge ab -> b/c -> bridge ab -> a/c");
}

#[test]
fn a_loop_that_changes_the_number_is_found_too() {
    let grow = "<cdpn digits=\"7{\"/>;<continue context=\"c\"/>";
    let trace =
        call(&picture(vec![("a", domain(&[("c", None, &[("%", grow)])]))], vec![]), "a", "1", Mode::Enblock);
    assert!(refusal(&trace).1.starts_with("a loop that changes the number: 32 stops"));
}

#[test]
fn numbers_bound_to_each_other_are_a_loop() {
    let mut d = domain(&[("c", Some("city"), &[("%", LOCAL)])]);
    d.apply(&DomainEvent::PlanDeclared { plan: "city".into(), digitmap: None, description: String::new() });
    let bound = |from: &str, to: &str| {
        let alias = BoundAlias { address: to.into(), group: None, iface: None, master: true };
        (from.to_owned(), alias)
    };
    let bound = vec![bound("1", "2"), bound("2", "3"), bound("3", "1")];
    d.apply(&DomainEvent::NumbersBoundToAliases { plan: "city".into(), bound });
    let trace = call(&picture(vec![("a", d)], vec![]), "a", "1", Mode::Enblock);
    assert_eq!(refusal(&trace).1, "a loop of numbers: 1 -> 2 -> 3 -> 1");
}

#[test]
fn a_one_way_bridge_refuses_the_other_way() {
    let mut a = domain(&[("c", None, &[("%", LOCAL)])]);
    alias(&mut a, "5");
    let b = domain(&[("c", None, &[("%", "<external><trunk value=\"bridge:ba\"/></external>")])]);
    let both = picture(vec![("a", a.clone()), ("b", b.clone())], vec![bridge(true)]);
    assert!(matches!(call(&both, "b", "5", Mode::Enblock).outcome, Outcome::Local { .. }));
    let one = picture(vec![("a", a), ("b", b)], vec![bridge(false)]);
    assert!(refusal(&call(&one, "b", "5", Mode::Enblock)).1.contains("from a to b only"));
}

#[test]
fn in_overlap_an_incomplete_number_asks_for_more() {
    let p = picture(vec![("a", domain(&[("c", None, &[("2?????", LOCAL)])]))], vec![]);
    assert!(refusal(&call(&p, "a", "200", Mode::Overlap)).1.contains("more digits are needed"));
    assert_eq!(refusal(&call(&p, "a", "200", Mode::Enblock)).0, Cause::NoRouteToDestination);
    assert_eq!(refusal(&call(&p, "a", "300", Mode::Overlap)).0, Cause::NoRouteToDestination);
}

#[test]
fn a_trace_names_the_condition_that_failed() {
    let p = picture(vec![("a", domain(&[("c", None, &[("3?", LOCAL), ("2?", LOCAL)])]))], vec![]);
    let trace = call(&p, "a", "20", Mode::Enblock);
    let shown = format!("{:?}", trace.steps);
    assert!(shown.contains(r#"cdpn \"20\" does not match 3?"#), "{shown}");
    assert_eq!(refusal(&trace).0, Cause::UnallocatedNumber);
}

proptest! {
    /// Whatever contexts and bridges say, a call comes to an end.
    #[test]
    fn every_call_ends(ways in prop::collection::vec((0..4usize, 0..6usize), 1..8), to in "[0-9]{1,4}") {
        let masks = ["%", "1%", "??", "7%"];
        let results = [
            LOCAL,
            "<continue context=\"c\"/>",
            "<continue context=\"d\"/>",
            "<external><trunk value=\"bridge:ab\"/></external>",
            "<external><trunk value=\"bridge:ba\"/></external>",
            "<cdpn digits=\"7{1-60}\"/>;<continue context=\"c\"/>",
        ];
        let rules: Vec<(&str, &str)> = ways.iter().map(|(m, r)| (masks[*m], results[*r])).collect();
        let turned: Vec<(&str, &str)> = rules.iter().rev().copied().collect();
        let make = || domain(&[("c", None, rules.as_slice()), ("d", None, turned.as_slice())]);
        let p = picture(vec![("a", make()), ("b", make())], vec![bridge(true)]);
        prop_assert!(call(&p, "a", &to, Mode::Enblock).steps.len() < 200);
    }
}
