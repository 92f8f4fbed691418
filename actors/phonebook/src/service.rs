//! The service over HTTP, as an actor.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::StatusCode,
    web::{Data, Path, Query, ServiceConfig, get, resource},
};
use httpd::{BodyError, Door, Guard, HEADERS, TEXT};
use kit::{
    AddressError, ChildSpec,
    alarm::{Alarms, Condition, Severity},
};
use serde::Deserialize;

use crate::{
    Entry,
    latin::latin,
    shape::{PAGE, Reader, xml},
    sources::{Source, SourceError},
};

/// How long an answer of a source outside serves again: phones page, and many start at once.
const FRESH: Duration = Duration::from_secs(5);

/// What the service needs.
#[derive(Clone)]
pub struct Service {
    /// `ssw`, `sql`, `ldap`.
    pub sources: Arc<BTreeMap<&'static str, Source>>,
    pub guard: Guard,
    known: Arc<BTreeMap<&'static str, Answered>>,
    alarms: Alarms,
}

/// The last answer of a source outside; each has a lock of its own, so that a slow one holds up no other.
type Answered = tokio::sync::Mutex<Option<(Instant, Arc<Vec<Entry>>)>>;

/// Class of the alarm of a source that cannot be read.
const UNREADABLE: &str = "phonebook::source::unreadable";

impl Service {
    pub fn new(sources: BTreeMap<&'static str, Source>, guard: Guard, alarms: Alarms) -> Self {
        let known = sources.keys().map(|name| (*name, Answered::default())).collect();
        Self { sources: Arc::new(sources), guard, known: Arc::new(known), alarms }
    }

    /// Everybody in a source. Who asks while it is being read waits for the same answer.
    async fn entries(&self, name: &str, domain: Option<String>) -> Result<Arc<Vec<Entry>>, Refusal> {
        let source = self.sources.get(name);
        let source = source.ok_or_else(|| {
            let known = self.sources.keys().copied().collect::<Vec<_>>().join(", ");
            Refusal::Unknown(format!("there is no source {name}; configured are: {known}"))
        })?;
        if matches!(source, Source::Ssw(_)) {
            return Ok(Arc::new(source.read(domain.as_deref()).await?));
        }
        let answered =
            self.known.get(name).ok_or_else(|| Refusal::Unknown(format!("there is no source {name}")))?;
        let mut last = answered.lock().await;
        if let Some((_, all)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(all.clone());
        }
        *last = None;
        let all = match source.read(None).await {
            Ok(all) => Arc::new(all),
            Err(e) => {
                self.alarms.raise(Condition::new(UNREADABLE, Severity::Minor, name).cause(&e));
                return Err(e.into());
            }
        };
        self.alarms.clear(UNREADABLE, None, name);
        *last = Some((Instant::now(), all.clone()));
        Ok(all)
    }
}

/// The service as a child.
pub fn child(door: &Door, service: Service) -> Result<ChildSpec, AddressError> {
    httpd::child("phonebook", door, HEADERS, move |config: &mut ServiceConfig| {
        config.app_data(Data::new(service.clone())).service(resource("/{source}").route(get().to(book)));
    })
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Request(#[from] BodyError),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Question(String),
    #[error("{0}")]
    Source(#[from] SourceError),
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Request(e) => e.status(),
            Self::Unknown(_) | Self::Source(SourceError::Domain(_)) => StatusCode::NOT_FOUND,
            Self::Question(_) => StatusCode::BAD_REQUEST,
            Self::Source(SourceError::Slow) => StatusCode::GATEWAY_TIMEOUT,
            Self::Source(_) => StatusCode::BAD_GATEWAY,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Source(e) = self {
            tracing::warn!(error = %e, "the phone book's source cannot be read");
        }
        HttpResponse::build(self.status_code()).content_type(TEXT).body(format!("{self}\n"))
    }
}

#[derive(Debug, Deserialize)]
struct Question {
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    translit: bool,
    /// Leaves out who has no name; else their numbers are their names.
    #[serde(default)]
    skip_no_disp: bool,
    /// Narrows the node's own to one domain.
    domain: Option<String>,
    /// Part of a name or number.
    #[serde(default, alias = "q")]
    search: String,
    /// Entries to pass over.
    #[serde(default)]
    start: usize,
}

async fn book(
    request: HttpRequest,
    source: Path<String>,
    question: Result<Query<Question>, actix_web::Error>,
    me: Data<Service>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let Query(question) = question.map_err(|e| Refusal::Question(e.to_string()))?;
    let reader = match question.user_agent.as_str() {
        "" => Reader::default(),
        name => name.to_lowercase().parse().map_err(|_| {
            Refusal::Question("user_agent is cisco_search, cisco, yealink or grandstream".into())
        })?,
    };
    let domain = question.domain.filter(|d| !d.is_empty());
    let all = me.entries(&source, domain).await?;
    let part = question.search.to_lowercase();
    let mut shown: Vec<Entry> = all
        .iter()
        .filter(|e| !(question.skip_no_disp && e.name.is_empty()))
        .filter(|e| part.is_empty() || e.name.to_lowercase().contains(&part) || e.number.contains(&part))
        .cloned()
        .collect();
    for entry in &mut shown {
        if entry.name.is_empty() {
            entry.name.clone_from(&entry.number);
        }
        if question.translit {
            entry.name = latin(&entry.name);
        }
    }
    let whole = shown.len();
    let mut shown = shown.split_off(question.start.min(whole));
    let mut next = None;
    if reader == Reader::Cisco && shown.len() > PAGE {
        shown.truncate(PAGE);
        let connection = request.connection_info();
        let kept = request.query_string().split('&').filter(|p| !p.starts_with("start=") && !p.is_empty());
        let query = kept.map(str::to_owned).chain([format!("start={}", question.start + PAGE)]);
        let query = query.collect::<Vec<_>>().join("&");
        next = Some(format!("{}://{}{}?{query}", connection.scheme(), connection.host(), request.path()));
    }
    Ok(HttpResponse::Ok().content_type("text/xml; charset=utf-8").body(xml(reader, &shown, next.as_deref())))
}
