//! What systemd wants to hear (sd_notify(3)): ready, alive, stopping. Without systemd all of it is silence.

use std::time::Duration;

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason};
use sd_notify::NotifyState;
use strum::IntoStaticStr;

/// Tells systemd; nobody listening is no error.
pub fn tell(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %e, "systemd was not told");
    }
}

/// Whether standard output ends in systemd's journal, where a password must not go.
pub fn stdout_is_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(out) = std::fs::metadata("/dev/stdout") else { return false };
    stream == format!("{}:{}", out.dev(), out.ino())
}

/// The actor `watchdog`, where systemd asked for one: it lives on the main thread, so that a tree which no longer
/// moves is noticed.
pub fn watchdog() -> Result<Option<ChildSpec>, AddressError> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(None) };
    let address = Address::new("watchdog")?;
    Ok(Some(ChildSpec::worker(address, move |_| async move { Ok(Watchdog { every: limit / 3, told: 0 }) })))
}

struct Watchdog {
    every: Duration,
    told: u64,
}

#[derive(Debug, IntoStaticStr)]
enum WatchdogMsg {
    Alive,
}

impl Actor for Watchdog {
    type Msg = WatchdogMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.handle(WatchdogMsg::Alive, cx)
    }

    fn handle(&mut self, WatchdogMsg::Alive: WatchdogMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        tell(NotifyState::Watchdog);
        self.told += 1;
        cx.after(self.every, WatchdogMsg::Alive);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "every_ms": self.every.as_millis(), "told": self.told })
    }
}
