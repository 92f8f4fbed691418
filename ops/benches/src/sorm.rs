//! Whether a call is under control, with none, 10,000 and 1,000,000 objects; beside it a plain hash set of the same numbers.

use std::{collections::HashSet, hint::black_box, sync::Arc, time::Instant};

use call::{LegId, witness::Trail};
use domain::{
    Picture,
    routing::{
        number::{Called, Calling, SormNumbers},
        route::Stretch,
    },
    state::DomainState,
};
use kit::journal::Fold;
use sorm::{
    numbers::facts,
    protocol::{Category, Digits, Kind, Priority, Sign},
    settings::Mediator,
    station::{Object, Station, StationEvent},
};

const CALLS: usize = 100_000;

fn number(i: usize) -> String {
    format!("7{i:010}")
}

/// Half by full numbers, half by first digits of several lengths; each mediator has as many as the protocol can number.
fn station(size: usize) -> Station {
    let mut station = Station::default();
    for i in 0..size {
        let mediator: Mediator = format!("10.0.0.{}", i / 65_000 + 1).parse().expect("an address");
        let partial = i % 2 == 1;
        let text = if partial { format!("9{i:07}")[..4 + i % 4].to_owned() } else { number(i) };
        let object = Object {
            kind: if partial { Kind::Partial } else { Kind::Full },
            sign: Some(Sign::Russia),
            number: Digits::new(&text).expect("a number"),
            trunk: None,
            category: Category::Statistical,
            group: None,
            priority: Priority::Ordinary,
            basis: None,
        };
        let number = u16::try_from(i % 65_000).expect("small");
        station.apply(&StationEvent::ObjectPut { mediator, number, object });
    }
    station
}

fn trail(i: usize) -> Trail {
    // Odd numbers are nobody's: the common case is a call that is not under control.
    let (a, b) = (number(i * 2 + 1), number(i * 14 + 3));
    let stretch = Stretch {
        domain: "d".into(),
        from: "trunk1".into(),
        to: "trunk2".into(),
        calling: a.clone(),
        called: b.clone(),
        a: Calling { digits: a, ..Calling::default() },
        b: Called { digits: b, ..Called::default() },
        sorm: SormNumbers::default(),
    };
    Trail { leg: LegId(1), way: Arc::new(vec![stretch]), joined: Vec::new() }
}

/// Nanoseconds to decide on one call.
pub fn hypha(size: usize) -> f64 {
    let station = station(size);
    let mut picture = Picture::default();
    picture.domains.insert("d".into(), Arc::new(DomainState::default()));
    let trails: Vec<Trail> = (0..1000).map(|i| trail(i * 499)).collect();
    let began = Instant::now();
    for i in 0..CALLS {
        let found = facts(&station, &picture, "d", &trails[i % trails.len()], chrono::DateTime::UNIX_EPOCH);
        assert!(black_box(found).is_none());
    }
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

/// Nanoseconds to look both numbers up in a set of texts.
pub fn set(size: usize) -> f64 {
    let set: HashSet<String> = (0..size).map(number).collect();
    let calls: Vec<(String, String)> = (0..1000).map(|i| (format!("x{i}"), format!("y{i}"))).collect();
    let began = Instant::now();
    for i in 0..CALLS {
        let (a, b) = &calls[i % calls.len()];
        black_box((set.contains(a), set.contains(b)));
    }
    began.elapsed().as_nanos() as f64 / CALLS as f64
}
