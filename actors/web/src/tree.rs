//! The web server's place in the tree: one actor, `web`, that ends with its server.

use std::{net::IpAddr, sync::Arc};

use access::Door;
use actix_web::{
    HttpResponse,
    guard::{Any, Get, Head},
    web::{Data, JsonConfig, ServiceConfig, post},
};
use command::{SessionInfo, Tree};
use kit::{AddressError, ChildSpec, Node, Secret};
use serde::Serialize;

use crate::{
    api::{self, Shared},
    live,
    sessions::Sessions,
};

/// What the web admin needs.
#[derive(Clone)]
pub struct Front {
    pub http: httpd::Door,
    /// What it is the admin of: the page has other pages for each.
    pub program: Program,
    pub node: Node,
    pub tree: Arc<Tree>,
    pub info: SessionInfo,
    pub door: Door,
    /// What `/metrics` answers, and to whom.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub metrics_token: Secret<String>,
    pub proxies: Proxies,
}

/// Proxies before the server, if there are any.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
    pub trusted: Vec<IpAddr>,
    /// Names by which browsers know the server.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    Node,
    Mediator,
}

/// Largest request, bytes: a script with a minute of speech.
const BODY: usize = 4 << 20;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every answer: pages that run nothing but their own scripts, and that nobody frames or keeps.
const HEADERS: httpd::Headers = &[
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// The server as a child of the node's root.
pub fn child(front: &Front) -> Result<ChildSpec, AddressError> {
    // Sessions outlive a restart of the server.
    let shared = Shared { sessions: Sessions::new(front.door.clone()), front: front.clone() };
    httpd::child("web", &front.http, HEADERS, move |config| routes(config, &shared))
}

/// A page of the program's own.
const PAGES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/ivr.js", SCRIPT, include_str!("page/ivr.js")),
    ("/live.js", SCRIPT, include_str!("page/live.js")),
    ("/mediator.js", SCRIPT, include_str!("page/mediator.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

fn file(kind: &'static str, text: &'static str) -> impl Fn() -> std::future::Ready<HttpResponse> + Clone {
    move || std::future::ready(HttpResponse::Ok().content_type(kind).body(text))
}

/// A page that says so when a method does not fit it.
fn here(path: &'static str) -> actix_web::Resource {
    actix_web::web::resource(path).default_service(actix_web::web::to(api::not_so))
}

/// Whatever can be read can be asked about (RFC 9110, 9.3.2); the server leaves the body out.
fn get() -> actix_web::Route {
    actix_web::web::route().guard(Any(Get()).or(Head()))
}

fn routes(config: &mut ServiceConfig, shared: &Shared) {
    config
        .app_data(Data::new(shared.clone()))
        .app_data(JsonConfig::default().limit(BODY).error_handler(api::bad_json));
    for (path, kind, text) in PAGES {
        config.service(here(path).route(get().to(file(kind, text))));
    }
    config
        .service(here("/healthz").route(get().to(api::health)))
        .service(here("/readyz").route(get().to(api::ready)))
        .service(here("/api/login").route(post().to(api::login)))
        .service(here("/api/logout").route(post().to(api::logout)))
        .service(here("/api/session").route(get().to(api::session)))
        .service(here("/api/run").route(post().to(api::run)))
        .service(here("/api/complete").route(post().to(api::complete)))
        .service(here("/api/live").route(actix_web::web::get().to(live::live)))
        .service(here("/metrics").route(get().to(api::metrics)))
        .default_service(actix_web::web::to(api::nothing));
}
