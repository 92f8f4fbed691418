//! Hypha's speed beside its peers', as ratios of one run. `ops/bench` sets up and runs it.

mod actors;
mod commands;
mod journal;
mod routing;
mod sip;
mod sorm;
mod speech;

use std::process::{Command, Stdio};

/// Each side of a ratio is the best of so many runs.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["one", framework, work] = words.as_slice() {
        println!("{}", actors::one(framework, work).unwrap_or_else(|| panic!("no work {framework} {work}")));
        return;
    }
    let parts: &[(&str, fn())] = &[
        ("actors", actors_table),
        ("routing", routing_table),
        ("commands", commands_table),
        ("journal", journal_table),
        ("sip", sip_table),
        ("sorm", sorm_table),
        ("speech", speech_table),
    ];
    let unknown = words.iter().find(|w| !parts.iter().any(|(name, _)| name == *w));
    if let Some(unknown) = unknown {
        let names: Vec<&str> = parts.iter().map(|(n, _)| *n).collect();
        eprintln!("there is no part {unknown:?}; there are {}, and none for all", names.join(", "));
        std::process::exit(2);
    }
    for (_, run) in parts.iter().filter(|(name, _)| words.is_empty() || words.contains(name)) {
        run();
    }
}

fn sorm_table() {
    println!("| interception, ns a call: objects | Hypha | to none | set of texts, two look-ups | ratio |");
    println!("|---|---|---|---|---|");
    let none = best(false, || sorm::hypha(0));
    for size in [0, 10_000, 1_000_000] {
        let (ours, set) = (best(false, || sorm::hypha(size)), best(false, || sorm::set(size)));
        println!("| {size} | {} | {:.2} | {} | {:.1} |", shown(ours), ours / none, shown(set), ours / set);
    }
    println!();
    set_up_table();
}

/// What the callers of a node see of interception.
fn set_up_table() {
    println!("| call set-up, INVITE to 200, ms at 200 calls/s | median | ratio | 99 of 100 | ratio |");
    println!("|---|---|---|---|---|");
    let measured = |objects| {
        let directory = tempfile::tempdir().expect("a directory");
        sorm::set_up(directory.path(), objects, ROUNDS)
    };
    let off = measured(None);
    for (name, [median, most]) in [("off", off), ("1,000,000 objects", measured(Some(1_000_000)))] {
        println!(
            "| interception {name} | {median:.2} | {:.2} | {most:.2} | {:.2} |",
            median / off[0],
            most / off[1]
        );
    }
    println!();
}

/// Three digits that matter.
fn shown(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v if v >= 1e3 => format!("{:.1} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn best(more: bool, mut run: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| run()).reduce(|a, b| if more { a.max(b) } else { a.min(b) }).unwrap_or_default()
}

/// A number printed by a program.
fn number(command: &mut Command) -> f64 {
    let output = command.stderr(Stdio::inherit()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{command:?} printed {text:?}"))
}

fn actors_table() {
    let me = std::env::current_exe().expect("a path");
    let here = env!("CARGO_MANIFEST_DIR");
    let beam = tempfile::tempdir().expect("a directory");
    let compiled =
        Command::new("erlc").arg("-o").arg(beam.path()).arg(format!("{here}/hypha_peer.erl")).status();
    assert!(compiled.expect("ops/bench installs it").success());
    println!(
        "| actors (ratio: Hypha to peer) | Hypha | Erlang/OTP | ratio | ractor | ratio | kameo | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (work, about, more) in actors::WORKS {
        let rust = |framework: &str| best(*more, || number(Command::new(&me).args(["one", framework, work])));
        let kit = rust("kit");
        let erlang = best(*more, || {
            let call = format!("hypha_peer:main([\"{work}\"])");
            number(Command::new("erl").args(["-noshell", "-pa"]).arg(beam.path()).args(["-eval", &call]))
        });
        let (ractor, kameo) = (rust("ractor"), rust("kameo"));
        print!("| {about} | {}", shown(kit));
        for peer in [erlang, ractor, kameo] {
            print!(" | {} | {:.2}", shown(peer), kit / peer);
        }
        println!(" |");
    }
    println!();
}

fn routing_table() {
    println!("| routing one call: rules and numbers | Hypha, ns | to 100 rules | regex set, ns | ratio |");
    println!("|---|---|---|---|---|");
    let mut least = None;
    for size in [100, 10_000, 1_000_000] {
        let ours = best(false, || routing::hypha(size));
        let least = *least.get_or_insert(ours);
        // A million expressions do not fit into a set.
        let peer = (size <= 10_000).then(|| routing::regex(size)).flatten();
        let (peer, ratio) =
            peer.map_or(("–".into(), "–".into()), |p| (shown(p), format!("{:.3}", ours / p)));
        println!("| {size} | {} | {:.2} | {peer} | {ratio} |", shown(ours), ours / least);
    }
    println!();
}

fn commands_table() {
    let fresh = || tempfile::tempdir().expect("a directory");
    let peer = best(true, || commands::openssh(fresh().path()));
    let ours = best(true, || commands::hypha(fresh().path()));
    println!("| commands/s over one SSH connection | Hypha `domain/list` | OpenSSH `/bin/true` | ratio |");
    println!("|---|---|---|---|");
    println!("| one after another | {} | {} | {:.2} |\n", shown(ours), shown(peer), ours / peer);
}

fn journal_table() {
    // Beside this program: a directory for temporary files may be in memory.
    let place = std::env::current_exe().expect("a path");
    let place = place.parent().expect("a directory");
    let fresh = || tempfile::tempdir_in(place).expect("a directory");
    let bare = best(true, || journal::sqlite(fresh().path()));
    println!("| journal, appends/s on disk | Hypha | bare SQLite, one writer | ratio |");
    println!("|---|---|---|---|");
    for writers in [1, 16, 256] {
        let ours = best(true, || journal::hypha(fresh().path(), writers));
        println!("| writers at a time: {writers} | {} | {} | {:.2} |", shown(ours), shown(bare), ours / bare);
    }
    println!();
}

fn speech_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = ::speech::unpack(directory.path()).expect("unpacked");
    let names = speech::names(3_000);
    let voices = speech::say(directory.path(), &names);
    println!(
        "| names in the grammar, voice never trained on | right | word errors | processor s a second of sound | streams a core | the same with a confidence | the engine's own program: right | word errors | ratio of time |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in [30, 300, 3_000] {
        for voice in &voices {
            // One after another in each round, so that what else the machine does meets all alike. The longest list takes minutes.
            let rounds = if size > 300 { 2 } else { 2 * ROUNDS };
            let runs = (0..rounds).map(|_| {
                [
                    speech::ours(&model, voice, &names, size, false),
                    speech::ours(&model, voice, &names, size, true),
                    speech::program(&model, directory.path(), voice, &names, size),
                ]
            });
            let runs: Vec<_> = runs.collect();
            let best = |of: usize| {
                runs.iter().map(|run| &run[of]).min_by(|a, b| a.factor.total_cmp(&b.factor)).expect("a run")
            };
            let [ours, sure, peer] = [0, 1, 2].map(best);
            println!(
                "| {size}, {} | {:.0} % | {:.1} % | {:.3} | {:.0} | {:.0} | {:.0} % | {:.1} % | {:.2} |",
                voice.name,
                ours.right * 100.0,
                ours.errors * 100.0,
                ours.factor,
                1.0 / ours.factor,
                1.0 / sure.factor,
                peer.right * 100.0,
                peer.errors * 100.0,
                ours.factor / peer.factor
            );
        }
    }
    for voice in &voices {
        if let Some(seen) = speech::whisper(voice, &names) {
            println!(
                "| any speech (Whisper), {} | {:.0} % | {:.1} % | {:.3} | {:.1} | {:.1} | – | – | – |",
                voice.name,
                seen.right * 100.0,
                seen.errors * 100.0,
                seen.factor,
                1.0 / seen.factor,
                1.0 / seen.factor,
            );
        }
    }
    println!();
}

fn sip_table() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (hypha, kamailio) = (sip::hypha(one.path()), sip::kamailio(two.path()));
    println!(
        "| calls of one second at 1,000 a second, SIPp on the same machine | Hypha (B2BUA, media, journal, records) | Kamailio (stateful proxy) | ratio |"
    );
    println!("|---|---|---|---|");
    let row =
        |what: &str, a: f64, b: f64| println!("| {what} | {} | {} | {:.2} |", shown(a), shown(b), a / b);
    row("processor time a call, µs", hypha.cpu, kamailio.cpu);
    row("memory more after 20,000 calls, bytes a call", hypha.kept, kamailio.kept);
    row("the same a minute later", hypha.kept_later, kamailio.kept_later);
    row(
        "highest rate tried without retransmissions, calls/s",
        f64::from(hypha.clean),
        f64::from(kamailio.clean),
    );
}
