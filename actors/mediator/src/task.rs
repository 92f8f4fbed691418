//! Actors around work that goes on for as long as the outside lets it: a socket, a session. When it ends with an error it is
//! begun anew after a while; when it panics its actor crashes, and is restarted by its supervisor.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason};
use strum::IntoStaticStr;
use tokio::task::JoinHandle;

use crate::services::{Board, Services};

/// Between two tries: each failure doubles it, up to the second.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(3)];

type Work = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

struct Tasked {
    work: Work,
    board: Board,
    running: Option<JoinHandle<()>>,
    tries: u64,
    /// In a row.
    failures: u32,
    last_error: Option<String>,
}

#[derive(Debug, IntoStaticStr)]
enum TaskMsg {
    Begin,
}

/// A child of this name that does the work.
pub fn child<F, Fut>(name: &str, services: &Services, work: F) -> Result<ChildSpec, AddressError>
where
    F: Fn(Services) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    let (board, services) = (services.board.clone(), services.clone());
    let work: Work = Arc::new(move || Box::pin(work(services.clone())));
    Ok(ChildSpec::worker(Address::new(name)?, move |_| {
        let (work, board) = (work.clone(), board.clone());
        async move { Ok(Tasked { work, board, running: None, tries: 0, failures: 0, last_error: None }) }
    }))
}

impl Tasked {
    fn begin(&mut self, cx: &mut Cx<'_, Self>) {
        self.tries += 1;
        let (told, ended) = tokio::sync::oneshot::channel();
        let work = (self.work)();
        self.running = Some(tokio::spawn(async move {
            let _ = told.send(work.await);
        }));
        cx.spawn(ended, |me, ended, cx| {
            match ended {
                Ok(Ok(())) => (me.failures, me.last_error) = (0, None),
                Ok(Err(e)) => {
                    me.failures = (me.failures + 1).min(16);
                    if me.last_error.as_ref() != Some(&e) {
                        tracing::warn!(actor = %cx.address(), error = %e, "it is tried again");
                    }
                    me.board.say(cx.address().as_str(), e.clone());
                    me.last_error = Some(e);
                }
                Err(_) => return Err(ExitReason::Error("its work has crashed".into())),
            }
            let [first, longest] = AGAIN;
            cx.after((first * 2u32.pow(me.failures)).min(longest), TaskMsg::Begin);
            Ok(())
        });
    }
}

impl Actor for Tasked {
    type Msg = TaskMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.begin(cx);
        Ok(())
    }

    fn handle(&mut self, TaskMsg::Begin: TaskMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.begin(cx);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "tries": self.tries, "last_error": self.last_error })
    }
}

impl Drop for Tasked {
    /// However the actor ends, its sockets are given up.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}
