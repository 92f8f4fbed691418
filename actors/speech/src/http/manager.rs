//! The manager of recognisers over HTTP (the original's ASR manager, port 9011): their state, more and fewer instances, new
//! words, rebuilding.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Json, Path, ServiceConfig, delete, get, post, resource},
};
use httpd::Guard;
use kit::{Address, Node, Reply};
use serde::Deserialize;
use serde_json::json;

use super::{Refusal, teach};
use crate::{
    clerk::state::{Row, Table, Teach, TeachError},
    manager::{ManagerError, ManagerMsg, NAME},
};

/// Words of one request.
const WORDS: usize = 1_000;

#[derive(Clone)]
pub struct ManagerService {
    pub node: Node,
    pub guard: Guard,
}

/// The service's pages.
pub fn routes(service: ManagerService) -> impl Fn(&mut ServiceConfig) + Send + Sync {
    move |config| {
        config
            .app_data(Data::new(service.clone()))
            .service(resource("/").route(get().to(state)))
            .service(resource("/api/v1/state").route(get().to(state)))
            .service(resource("/api/v1/words").route(post().to(words)))
            .service(resource("/api/v1/rebuild").route(post().to(rebuild)))
            .service(resource("/api/v1/instances").route(post().to(start)))
            .service(resource("/api/v1/instances/{engine}/{number}").route(delete().to(stop)))
            .service(resource("/api/v1/openapi").route(get().to(openapi)));
    }
}

impl ManagerService {
    async fn ask<T: Send + 'static>(&self, make: impl FnOnce(Reply<T>) -> ManagerMsg) -> Result<T, Refusal> {
        let internal = |e: &dyn std::fmt::Display| Refusal::Internal(e.to_string());
        let name = Address::new(NAME).map_err(|e| internal(&e))?;
        let manager = self.node.registry().lookup::<ManagerMsg>(&name).map_err(|e| internal(&e))?;
        manager.ask(make).await.map_err(|e| internal(&e))
    }
}

impl From<ManagerError> for Refusal {
    fn from(e: ManagerError) -> Self {
        match e {
            ManagerError::Engine(_) | ManagerError::Instance(..) => Self::Unknown(e.to_string()),
            ManagerError::Many(_) | ManagerError::Last(_) | ManagerError::Busy => Self::Exists(e.to_string()),
            ManagerError::Failed(_) => Self::Internal(e.to_string()),
        }
    }
}

async fn state(request: HttpRequest, me: Data<ManagerService>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    Ok(HttpResponse::Ok().json(me.ask(ManagerMsg::Show).await?))
}

#[derive(Debug, Deserialize)]
struct NewWords {
    words: Vec<String>,
}

/// Teaches words, all or none that are new, and rebuilds with them.
async fn words(
    request: HttpRequest,
    new: Result<Json<NewWords>, actix_web::Error>,
    me: Data<ManagerService>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let Json(NewWords { words }) = new.map_err(|e| Refusal::Body(e.to_string()))?;
    if words.is_empty() || words.len() > WORDS {
        return Err(Refusal::Body(format!("1 to {WORDS} words are wanted")));
    }
    if let Some(word) = words.iter().find(|w| !crate::phones::readable(w.trim())) {
        return Err(Refusal::Body(TeachError::Word(word.clone()).to_string()));
    }
    let (mut added, mut known) = (0, 0);
    for word in words {
        let row = Row { name: word.trim().to_owned(), target: None };
        match teach(&me.node, &request, "asr-manager", Teach::Add { table: Table::Words, row }).await {
            Ok(_) => added += 1,
            Err(Refusal::Exists(_)) => known += 1,
            Err(e) => return Err(e),
        }
    }
    me.ask(ManagerMsg::Rebuild).await??;
    Ok(HttpResponse::Accepted().json(json!({ "added": added, "known": known })))
}

async fn rebuild(request: HttpRequest, me: Data<ManagerService>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    me.ask(ManagerMsg::Rebuild).await??;
    Ok(HttpResponse::Accepted().json(me.ask(ManagerMsg::Show).await?))
}

#[derive(Debug, Deserialize)]
struct NewInstance {
    engine: String,
}

async fn start(
    request: HttpRequest,
    new: Result<Json<NewInstance>, actix_web::Error>,
    me: Data<ManagerService>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let Json(NewInstance { engine }) = new.map_err(|e| Refusal::Body(e.to_string()))?;
    let number = me.ask(|reply| ManagerMsg::Start(engine.clone(), reply)).await??;
    Ok(HttpResponse::Created().json(json!({ "engine": engine, "number": number })))
}

async fn stop(
    request: HttpRequest,
    path: Path<(String, usize)>,
    me: Data<ManagerService>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let (engine, number) = path.into_inner();
    me.ask(|reply| ManagerMsg::Stop(engine, number, reply)).await??;
    Ok(HttpResponse::build(StatusCode::ACCEPTED).finish())
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(include_str!("manager.openapi.json"))
}
