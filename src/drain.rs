//! Emptying a node before it is stopped: calls under way go on, new ones are asked to come elsewhere (503), and when the last is over the
//! node ends, if that is wanted.

use std::{sync::Arc, time::Duration};

use call::Board;
use command::{Command, CommandError, DeclareError, Kind, Output, Tree};
use kit::{
    Node,
    alarm::{Condition, Severity},
};
use serde_json::json;
use tokio::sync::Notify;

/// Class of the alarm of a node that takes no new calls.
const DRAINING: &str = "node::draining";
/// Between two looks at the calls under way.
const EVERY: Duration = Duration::from_millis(200);

/// Empties a node. Clones share it.
#[derive(Clone)]
pub struct Drain {
    pub node: Node,
    pub board: Board,
    /// Told when the node is to end.
    pub stop: Arc<Notify>,
}

impl Drain {
    pub fn begin(&self) {
        if !self.board.drain(true) {
            let draining = Condition::new(DRAINING, Severity::Warning, "calls");
            self.node.alarms().raise(draining.cause("new calls are refused with 503 (node/drain)"));
        }
    }

    pub fn end(&self) {
        self.board.drain(false);
        self.node.alarms().clear(DRAINING, None, "calls");
    }

    /// Whether no call is left before `patience` is over.
    pub async fn emptied(&self, patience: Duration) -> bool {
        let until = tokio::time::Instant::now() + patience;
        while self.board.count() > 0 {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(EVERY).await;
        }
        true
    }
}

pub fn register(tree: &mut Tree, drain: &Drain) -> Result<(), DeclareError> {
    let (beginning, ending) = (drain.clone(), drain.clone());
    tree.add([
        Command::change(
            "node/drain",
            "takes no new calls, and waits until those under way are over",
            "не принимать новых вызовов и дождаться конца текущих",
            move |call| {
                let drain = beginning.clone();
                async move {
                    drain.begin();
                    let patience = Duration::from_secs(call.number("--wait").unwrap_or(0));
                    let empty = drain.emptied(patience).await;
                    let left = drain.board.count();
                    let stops = empty && call.flag("--stop");
                    if stops {
                        drain.stop.notify_one();
                    }
                    match (empty, stops, patience.is_zero()) {
                        (true, true, _) => Ok(Output::text("no calls are left; the node stops")),
                        (true, false, _) => Ok(Output::text("no calls are left; node/undrain takes calls again")),
                        (false, _, true) => Ok(Output::text(format!(
                            "new calls are refused; {left} are under way. node/drain --wait SECONDS waits for them"
                        ))),
                        (false, ..) => {
                            Err(CommandError::Failed(format!("{left} calls are still under way; new ones are refused")))
                        }
                    }
                    .map(|o| o.with_data(json!({ "calls": left, "stops": stops })))
                }
            },
        )
        .option("--wait", Kind::Number(1, 86_400), "seconds to wait for the calls under way", "сколько секунд ждать")
        .flag("--stop", "then stop the node in order", "затем остановить узел")
        .system_only()
        .confirm(|_| "You are going to take no new calls on this node.".into()),
        Command::change("node/undrain", "takes new calls again", "снова принимать вызовы", move |_| {
            ending.end();
            std::future::ready(Ok(Output::ok()))
        })
        .system_only(),
    ])
}
