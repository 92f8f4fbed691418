//! Changes as they happen: the tree every second; traced messages, crashes, alarms and log lines at once.

use std::{collections::VecDeque, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web::Bytes, web::Data};
use kit::{alarm::Alarm, crash::CrashReport, log::LogLine, trace::Watch, tree::picture};
use tokio::{sync::broadcast, time::Interval};

use crate::api::{Shared, caller};

const EVERY: Duration = Duration::from_secs(1);

struct Stream {
    shared: Data<Shared>,
    request: HttpRequest,
    tick: Interval,
    watch: Watch,
    crashes: broadcast::Receiver<CrashReport>,
    log: broadcast::Receiver<LogLine>,
    alarms: broadcast::Receiver<Alarm>,
    last: String,
    ready: VecDeque<Bytes>,
}

/// One event of the stream (HTML standard, server-sent events); JSON has no line breaks.
fn event(name: &str, value: &impl serde::Serialize) -> Option<Bytes> {
    let text = serde_json::to_string(value).ok()?;
    Some(Bytes::from(format!("event: {name}\ndata: {text}\n\n")))
}

pub(crate) async fn live(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let system = match caller(&request, &shared) {
        Ok((caller, _)) => caller.grants.system,
        Err(refusal) => return refusal.response(),
    };
    if !system {
        return HttpResponse::Forbidden().json(serde_json::json!({ "error": "for system administrators" }));
    }
    let node = shared.front.node.clone();
    let stream = Stream {
        tick: tokio::time::interval(EVERY),
        watch: node.trace().watch(),
        crashes: node.crashes().news(),
        log: node.log().news(),
        alarms: node.alarms().news(),
        last: String::new(),
        ready: VecDeque::new(),
        shared,
        request,
    };
    let events = futures::stream::unfold(stream, |mut s| async move {
        let bytes = next(&mut s).await?;
        Some((Ok::<_, actix_web::Error>(bytes), s))
    });
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(Box::pin(events))
}

async fn next(s: &mut Stream) -> Option<Bytes> {
    loop {
        if let Some(bytes) = s.ready.pop_front() {
            return Some(bytes);
        }
        tokio::select! {
            _ = s.tick.tick() => {
                // A session that ended, or lost its role, sees nothing more.
                let (caller, _) = caller(&s.request, &s.shared).ok()?;
                if !caller.grants.system {
                    return None;
                }
                let tree = serde_json::to_string(&picture(&s.shared.front.node)).ok()?;
                if tree == s.last {
                    // A comment keeps the connection known to be alive.
                    return Some(Bytes::from_static(b": \n\n"));
                }
                let bytes = Bytes::from(format!("event: tree\ndata: {tree}\n\n"));
                s.last = tree;
                return Some(bytes);
            }
            message = s.watch.messages.recv() => s.ready.extend(news("message", message)?),
            crash = s.crashes.recv() => s.ready.extend(news("crash", crash)?),
            line = s.log.recv() => s.ready.extend(news("log", line)?),
            alarm = s.alarms.recv() => s.ready.extend(news("alarm", alarm)?),
        }
    }
}

/// What is told of something received; `None` ends the stream.
fn news<T: serde::Serialize>(
    name: &str,
    received: Result<T, broadcast::error::RecvError>,
) -> Option<Option<Bytes>> {
    match received {
        Ok(value) => Some(event(name, &value)),
        Err(broadcast::error::RecvError::Lagged(missed)) => Some(event("missed", &missed)),
        Err(broadcast::error::RecvError::Closed) => None,
    }
}
