//! `alarms`: what operators see and do of the node's alarms. Uses `kit` and `command`.
//!
//! A condition enters through [`kit::alarm::Alarms`] from any family; here it is listed and cleared by commands, masked by an
//! operator's choice (stream `alarms/masks`), and leaves as a message to a webhook.

mod commands;
mod masks;
mod webhook;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Placement, Strategy, SupervisorSpec,
    alarm::{Alarms, Condition, Severity, Time},
    journal::Journal,
    ledger::Ledger,
};
use strum::IntoStaticStr;

pub use commands::register;
pub use masks::{Mask, MaskCommand, MaskError, Masks, MasksBook};
pub use webhook::{Target, TargetError};

/// How often it is looked whether an alarm's time is over.
const EVERY: Duration = Duration::from_secs(1);

/// Looks between two looks at the disk.
const DISK_EVERY: u64 = 10;
/// How long a step of the clock is an alarm.
const STEPPED: Duration = Duration::from_secs(3600);
/// Class of the alarm of a disk with little room, as the original has it.
const DISK: &str = "HW::Disks";
const TEN_GB: u64 = 10 << 30;

/// The masks in force, as the ledger publishes them.
pub type Published = Arc<ArcSwap<Masks>>;

/// The supervisor `alarms` with its children; `data` is the directory whose disk is watched.
///
/// # Errors
/// A name is no address.
pub fn child(
    journal: Arc<dyn Journal>,
    published: Published,
    target: Option<Target>,
    data: Option<PathBuf>,
) -> Result<ChildSpec, AddressError> {
    let top = Address::new("alarms")?;
    let masks = ChildSpec::worker(top.child("masks")?, move |start| {
        let book = MasksBook { published: published.clone(), alarms: start.node.alarms().clone() };
        let journal = journal.clone();
        async move { Ledger::restore_named(book, journal, &start).await }
    });
    // A disk that hangs must hold up nobody else.
    let clock = ChildSpec::worker(top.child("clock")?, move |_| {
        let ticking = Ticking { last: None, data: data.clone(), looks: 0 };
        async move { Ok(ticking) }
    })
    .place(Placement::Apart("files"));
    let mut family = SupervisorSpec::new(top.clone(), Strategy::OneForOne)
        .intensity(5, Duration::from_secs(30))
        .child(masks)
        .child(clock);
    if let Some(target) = target {
        family = family.child(webhook::child(top.child("webhook")?, target));
    }
    Ok(family.into_child())
}

/// Ends alarms whose time is over, and raises those of the machine: its clock, its disk.
struct Ticking {
    /// The wall clock and the monotonic one at the last look.
    last: Option<(Time, tokio::time::Instant)>,
    data: Option<PathBuf>,
    looks: u64,
}

#[derive(Debug, IntoStaticStr)]
enum Tick {
    Look,
}

impl Ticking {
    fn clock(&mut self, alarms: &Alarms, wall: Time) {
        let now = tokio::time::Instant::now();
        let before = self.last.replace((wall, now));
        let Some(step) = before.and_then(|(w, m)| step(wall - w, now - m)) else { return };
        let stepped = Condition::new("node::clock::stepped", Severity::Minor, "clock");
        alarms.raise(stepped.cause(format!("the clock was moved by {step} s")).lasting(STEPPED));
    }

    fn disk(&self, alarms: &Alarms) {
        let Some(data) = &self.data else { return };
        let Ok(disk) = rustix::fs::statvfs(data) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        metrics::gauge!("hypha_disk_free_bytes").set(free as f64);
        let percent = disk.f_bavail.saturating_mul(100) / disk.f_blocks.max(1);
        let severity = match (percent, free) {
            (0..3, _) | (_, 0..104_857_600) => Severity::Critical,
            (3..10, 0..TEN_GB) => Severity::Minor,
            _ => return alarms.clear(DISK, None, &data.to_string_lossy()),
        };
        let cause = format!("{percent} % free, {} MB", free >> 20);
        alarms.raise(Condition::new(DISK, severity, data.to_string_lossy()).cause(cause));
    }
}

/// Seconds by which the wall clock was moved, if it was.
fn step(wall: chrono::TimeDelta, monotonic: Duration) -> Option<i64> {
    let step = wall - chrono::TimeDelta::from_std(monotonic).ok()?;
    (step.abs() >= chrono::TimeDelta::seconds(2)).then(|| step.num_seconds())
}

impl Actor for Ticking {
    type Msg = Tick;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.handle(Tick::Look, cx)
    }

    fn handle(&mut self, Tick::Look: Tick, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let alarms = cx.node().alarms().clone();
        alarms.settle();
        self.clock(&alarms, cx.node().clock().now());
        if self.looks.is_multiple_of(DISK_EVERY) {
            self.disk(&alarms);
        }
        self.looks += 1;
        cx.after(EVERY, Tick::Look);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "looks": self.looks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_clock_is_told_from_a_slow_look() {
        let wall = chrono::TimeDelta::seconds;
        assert_eq!(step(wall(1), Duration::from_millis(1200)), None);
        assert_eq!(step(wall(30), Duration::from_secs(30)), None, "nobody looked for long");
        assert_eq!(step(wall(14_401), Duration::from_secs(1)), Some(14_400));
        assert_eq!(step(wall(-7_199), Duration::from_secs(1)), Some(-7_200));
    }
}
