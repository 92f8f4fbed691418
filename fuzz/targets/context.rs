//! Any text is a context or an error; a context routes any number to an end.
#![no_main]

use std::sync::Arc;

use domain::{
    Picture,
    routing::{
        number::{Called, Calling},
        route::{Mode, Query, route},
        xml,
    },
    state::DomainState,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(context) = xml::parse(text) else { return };
    let name = context.name.clone();
    let state =
        DomainState { contexts: [(name.clone(), context)].into_iter().collect(), ..DomainState::default() };
    let picture =
        Picture { domains: [("d".to_owned(), Arc::new(state))].into_iter().collect(), ..Picture::default() };
    for digits in ["", "200100", "89001758964", "*71#"] {
        for mode in [Mode::Enblock, Mode::Overlap] {
            let query = Query {
                domain: "d".into(),
                iface: "200100@d".into(),
                context: name.clone(),
                a: Calling { digits: "200100".into(), ..Calling::default() },
                b: Called { digits: digits.into(), ..Called::default() },
                mode,
                at: chrono::DateTime::UNIX_EPOCH,
                explain: true,
            };
            let trace = route(&picture, &query);
            domain::routing::show::text(&query, &trace);
        }
    }
});
