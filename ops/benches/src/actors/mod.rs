//! Actors: each work on each framework, in a process of its own.

mod on_kameo;
mod on_kit;
mod on_ractor;

pub const TELLS: u64 = 2_000_000;
pub const ASKS: u64 = 300_000;
pub const SPAWNS: u64 = 100_000;
pub const RESTARTS: u64 = 20_000;
/// Every ask has a time-out, as `gen_server:call` and [`::kit::Mailbox::ask`] have.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub const WORKS: &[(&str, &str, bool)] = &[
    ("tell", "tell, one sender to one receiver, messages/s", true),
    ("ask", "ask, round trips in sequence, /s", true),
    ("spawn", "start under a supervisor, actors/s", true),
    ("restart", "crash and restart by the supervisor, /s", true),
    ("memory", "memory of an idle supervised actor, bytes", false),
];

/// Bytes of this process in memory.
pub fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|p| p.parse::<f64>().ok()).unwrap_or_default() * 4096.0
}

pub fn rate(count: u64, began: std::time::Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// One work on one framework of this process.
pub fn one(framework: &str, work: &str) -> Option<f64> {
    match framework {
        "kit" => on_kit::run(work),
        "ractor" => on_ractor::run(work),
        "kameo" => on_kameo::run(work),
        _ => None,
    }
}
