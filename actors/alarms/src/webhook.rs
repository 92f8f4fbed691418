//! Alarms to a webhook: one `POST` of JSON for each change, in order.
//!
//! ```json
//! {"event": "raised", "alarm": {"id": 7, "class": "sip::trunk::down", "severity": "major", "domain": "a.test",
//!  "instance": "city", "location": "ds1@ecss1", "cause": "408", "since": "2026-01-01T10:00:00Z", …}}
//! ```

use std::{collections::VecDeque, time::Duration};

use kit::{Actor, Address, ChildSpec, Cx, ExitReason, alarm::Alarm};
use serde_json::json;
use strum::IntoStaticStr;
use tokio::sync::broadcast::{self, error::RecvError};

const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts; then the message is given up for the next.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?} is no address of a webhook: http://HOST[:PORT]/PATH is wanted (TLS by a proxy before it)")]
    Url(String),
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri = text.parse::<awc::http::Uri>().ok();
        let good =
            uri.is_some_and(|u| u.scheme_str() == Some("http") && u.host().is_some_and(|h| !h.is_empty()));
        if good { Ok(Self(text.to_owned())) } else { Err(TargetError::Url(text.to_owned())) }
    }
}

pub(crate) fn child(name: Address, target: Target) -> ChildSpec {
    ChildSpec::worker(name, move |start| {
        let news = start.node.alarms().news();
        // Alarms raised before its start are told first.
        let known = start.node.alarms().active().into();
        let hook = Hook { target: target.clone(), news: Some((known, news)), sent: 0, given_up: 0 };
        async move { Ok(hook) }
    })
}

/// Alarms to be told, and those that come.
type News = (VecDeque<Alarm>, broadcast::Receiver<Alarm>);

struct Hook {
    target: Target,
    /// Away while the next change is waited for.
    news: Option<News>,
    sent: u64,
    given_up: u64,
}

#[derive(Debug, IntoStaticStr)]
enum HookMsg {
    Next,
}

impl Hook {
    fn next(&mut self, cx: &mut Cx<'_, Self>) {
        let Some((mut known, mut news)) = self.news.take() else { return };
        let target = self.target.clone();
        let working = async move {
            let message = loop {
                let next = match known.pop_front() {
                    Some(alarm) => Ok(alarm),
                    None => news.recv().await,
                };
                match next {
                    Ok(alarm) if alarm.masked => {}
                    Ok(alarm) => {
                        let event = if alarm.cleared.is_some() { "cleared" } else { "raised" };
                        break Some(json!({ "event": event, "alarm": alarm }));
                    }
                    Err(RecvError::Lagged(missed)) => {
                        break Some(json!({ "event": "missed", "count": missed }));
                    }
                    Err(RecvError::Closed) => break None,
                }
            };
            let sent = match message {
                Some(message) => deliver(&target, &message).await,
                None => return None,
            };
            Some(((known, news), sent))
        };
        cx.spawn(working, |me, done, cx| {
            let Some((news, sent)) = done else { return Ok(()) };
            match sent {
                Ok(()) => me.sent += 1,
                Err(e) => {
                    me.given_up += 1;
                    tracing::warn!(error = e, "an alarm did not reach the webhook");
                }
            }
            me.news = Some(news);
            let _ = cx.mailbox().tell(HookMsg::Next);
            Ok(())
        });
    }
}

async fn deliver(target: &Target, message: &serde_json::Value) -> Result<(), String> {
    let client = awc::Client::builder().timeout(PATIENCE).disable_redirects().finish();
    let mut pauses = PAUSES.into_iter();
    loop {
        let outcome = match client.post(&target.0).send_json(message).await {
            Ok(answer) if answer.status().is_success() => "ok",
            Ok(_) => "refused",
            Err(_) => "unreachable",
        };
        metrics::counter!("hypha_alarm_messages_total", "outcome" => outcome).increment(1);
        if outcome == "ok" {
            return Ok(());
        }
        match pauses.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(outcome.to_owned()),
        }
    }
}

impl Actor for Hook {
    type Msg = HookMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.next(cx);
        Ok(())
    }

    fn handle(&mut self, HookMsg::Next: HookMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.next(cx);
        Ok(())
    }

    /// The address may hold a token.
    fn inspect(&self) -> serde_json::Value {
        json!({ "sent": self.sent, "given_up": self.given_up })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_webhooks() {
        for good in ["http://127.0.0.1:9/x", "http://alerts.test", "http://[::1]:80/a?token=b"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["", "alerts.test", "https://alerts.test", "http://", "file:///etc/passwd", "http://a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
