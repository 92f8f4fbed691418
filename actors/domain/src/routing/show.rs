//! A trace in the manual's words.

use std::fmt::Write;

use chrono::Local;

use super::route::{Mode, Outcome, Query, Step, Trace};

/// A trace up to the border of a domain that one may not look into.
pub fn until(query: &Query, trace: &Trace, beyond: &str) -> String {
    format!("{}-----\nRouting result: on in domain {beyond}, which you may not see\n", way(query, trace))
}

/// The call, and its steps.
fn way(query: &Query, trace: &Trace) -> String {
    let mut out = String::new();
    let at = query.at.with_timezone(&Local).format("%d.%m.%Y %H:%M:%S");
    let whole = if query.mode == Mode::Enblock { "final number" } else { "overlap" };
    let _ = writeln!(
        out,
        "Traceroute to {} from {}(<<\"{}\">>) at {at}, {whole}",
        query.b.digits, query.a.digits, query.iface
    );
    let _ = writeln!(out, "Default context is {{\"{}\",{}}}", query.domain, query.context);
    for step in &trace.steps {
        write_step(&mut out, step);
    }
    out
}

/// The text of `routing/trace`.
pub fn text(query: &Query, trace: &Trace) -> String {
    let mut out = way(query, trace);
    out.push_str("-----\n");
    let _ = match &trace.outcome {
        Outcome::Local { domain, alias, iface } => {
            writeln!(out, "Routing result: local\nTo: {alias} (<<\"{iface}\">>) in domain {domain}")
        }
        Outcome::External { domain, trunk, group, .. } => {
            writeln!(out, "Routing result: external\nTo: trunk {trunk} (group {group}) of domain {domain}")
        }
        Outcome::Refused { cause, text } => {
            writeln!(out, "Routing result: refused\nCause: {} ({cause:?}): {text}", cause.code())
        }
    };
    let (a, b) = (&trace.a, &trace.b);
    let _ = writeln!(
        out,
        "A: \"{}\"(ni={}, nai={}, inc={}, npi={}, apri={}, screening={})",
        a.digits, a.ni, a.nai, a.incomplete, a.npi, a.apri, a.screening
    );
    let _ = writeln!(
        out,
        "B: \"{}\"(ni={}, nai={}, inc={}, inni={}, npi={})",
        b.digits, b.ni, b.nai, b.incomplete, b.inni, b.npi
    );
    let sorm = &trace.sorm;
    let options: Vec<String> = [
        sorm.ni_a.map(|ni| format!("{{sorm_ni_a,{ni}}}")),
        sorm.digits_a.as_ref().map(|d| format!("{{sorm_digits_a,\"{d}\"}}")),
        sorm.ni_b.map(|ni| format!("{{sorm_ni_b,{ni}}}")),
        sorm.digits_b.as_ref().map(|d| format!("{{sorm_digits_b,\"{d}\"}}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let _ = writeln!(out, "Options: [{}]", options.join(",\n          "));
    out
}

fn write_step(out: &mut String, step: &Step) {
    let _ = match step {
        Step::Context { domain, context, np, a, b, rule, passed, passed_total, result } => {
            let plan = np.as_ref().map(|np| format!(", number plan {np}")).unwrap_or_default();
            let _ = writeln!(out, "Context {{\"{domain}\",{context}}}{plan}: A {a}, B {b}");
            for p in passed {
                let _ = writeln!(out, "  - {}: {}", p.rule, p.failed);
            }
            if *passed_total > passed.len() {
                let _ = writeln!(out, "  - and {} more", passed_total - passed.len());
            }
            match rule {
                Some(rule) => writeln!(out, "  + {rule}: {result}"),
                None => writeln!(out, "  ! {result}"),
            }
        }
        Step::Renumbered { domain, plan, from, to } => {
            writeln!(out, "Number plan {{\"{domain}\",{plan}}}: A {from} appears as {to}")
        }
        Step::Number { domain, plan, number, bound } => {
            writeln!(out, "Number plan {{\"{domain}\",{plan}}}: {number} is bound to {bound}")
        }
        Step::Bridge { bridge, from, to, iface, calls, capacity } => {
            let places = capacity.map_or_else(|| "unbounded".to_owned(), |c| c.to_string());
            writeln!(out, "Bridge {bridge}: {from} -> {to} ({iface}), {calls} of {places} calls")
        }
    };
}
