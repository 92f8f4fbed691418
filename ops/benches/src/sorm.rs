//! Whether a call is under control, with none, 10,000 and 1,000,000 objects; beside it a plain hash set of the same numbers. And
//! what a caller sees of it: the time from INVITE to 200, with interception and without.

use std::{
    collections::HashSet,
    hint::black_box,
    net::Ipv4Addr,
    ops::Range,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

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
    point,
    protocol::{Category, Digits, Kind, Password, Priority, Request, Sign},
    settings::Mediator,
    station::{Object, Station, StationEvent},
};

use russh::ChannelMsg;

use crate::{
    commands::{self, Node},
    sip,
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

const RATE: u32 = 200;
/// Objects of one mediator: their numbers have two bytes (order 268).
const MOST: usize = 62_500;

/// Milliseconds from INVITE to 200 of calls that are not under control: the median, and what 99 of 100 stay below; of so many
/// rounds the quickest. `objects` are put by mediators' sessions; without, interception is off.
pub fn set_up(directory: &Path, objects: Option<usize>, rounds: usize) -> [f64; 2] {
    let (port, caller, callee) = (sip::free(), sip::free(), sip::free());
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let hypha = |arguments: &[&str]| {
        let binary = std::env::current_exe().expect("a path").with_file_name("hypha");
        let made = Command::new(binary).args(arguments).output().expect("it runs");
        assert!(made.status.success(), "{made:?}");
        made.stdout
    };
    let vendor = String::from_utf8(hypha(&["licence", "keygen", &at("vendor.pem")])).expect("text");
    let terms =
        String::from_utf8(hypha(&["licence", "terms"])).expect("text").replace("sorm = false", "sorm = true");
    std::fs::write(at("terms.toml"), terms).expect("written");
    let licence = hypha(&["licence", "issue", "--key", &at("vendor.pem"), "--terms", &at("terms.toml")]);
    let door = sip::free();
    let more = format!("{vendor}\n[sorm]\nlisten = \"127.0.0.1:{door}\"\ntwo_persons = false\n");
    let node = Node::start(directory, &format!("127.0.0.1:{port}"), &more);
    node.say("cluster/storage/ds1/licence/add -", &licence);
    sip::trunks(&node, directory, caller, callee);
    if let Some(objects) = objects {
        node.run(&["domain/bench/sorm/set enabled true", "domain/bench/sorm/set password secret"]);
        let radius = sip::free();
        for (mediator, first) in (2_u8..).zip((0..objects).step_by(MOST)) {
            let at = Ipv4Addr::new(127, 0, 0, mediator);
            node.run(&[&format!("domain/bench/sorm/set radius_servers add {at}:{radius} secret")]);
            put(door, at, first..objects.min(first + MOST));
        }
    }
    let _uas = sip::takes_calls(callee, directory);
    std::thread::sleep(Duration::from_secs(1));
    let measured = |calls| {
        let mut uac = sip::makes_calls(RATE, calls, caller, port, directory);
        uac.args(["-trace_rtt", "-rtt_freq", "1"]);
        assert!(uac.status().expect("ops/bench installs it").success(), "every call goes");
        let found = std::fs::read_dir(directory).expect("read").flatten().map(|e| e.path());
        let files: Vec<_> = found.filter(|p| p.to_string_lossy().ends_with("_rtt.csv")).collect();
        let text: String = files.iter().filter_map(|f| std::fs::read_to_string(f).ok()).collect();
        files.iter().for_each(|f| drop(std::fs::remove_file(f)));
        let mut times: Vec<f64> =
            text.lines().filter_map(|l| l.split(';').nth(1)?.trim().parse().ok()).collect();
        times.sort_by(f64::total_cmp);
        assert!(!times.is_empty(), "SIPp says how long calls took");
        [times[times.len() / 2], times[times.len() * 99 / 100]]
    };
    // The first calls make threads, tables and ports.
    measured(RATE * 2);
    let runs = (0..rounds).map(|_| measured(RATE * 15));
    runs.reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1])]).unwrap_or_default()
}

/// Puts numbers of nobody under control, as the mediator at this address does.
fn put(door: u16, at: Ipv4Addr, objects: Range<usize>) {
    commands::runtime().block_on(async {
        let mut session = commands::connect_from(at.into(), ([127, 0, 0, 1], door).into()).await;
        assert!(session.authenticate_password("bench", "secret").await.expect("answered").success());
        let mut channel = session.channel_open_session().await.expect("a channel");
        channel.request_shell(true).await.expect("a shell");
        let line = |said: &str| {
            let command = point::parse(said).expect("a command");
            let request = Request { sorm: 1, password: Password::FIRST, command };
            let digits: String = request.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
            format!("command {digits}\n")
        };
        let puts = (0..).zip(objects).map(|(n, object): (u16, _)| {
            line(&format!("put {n} full russia {} statistical", number(object)))
        });
        let all: Vec<String> = std::iter::once(line("start")).chain(puts).collect();
        for some in all.chunks(1000) {
            channel.data(some.concat().as_bytes()).await.expect("sent");
            // Each is acknowledged twice.
            let mut answers = 0;
            while answers < 2 * some.len() {
                if let ChannelMsg::Data { data } = channel.wait().await.expect("it goes on") {
                    answers += data.iter().filter(|b| **b == b'\n').count();
                }
            }
        }
    });
}
