//! The web server's place in the tree: one actor, `web`, that ends with its server.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use access::Door;
use actix_web::{
    App, HttpResponse, HttpServer,
    dev::ServerHandle,
    middleware::DefaultHeaders,
    web::{Data, JsonConfig, get, post},
};
use command::{SessionInfo, Tree};
use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node, Secret};
use serde::Serialize;
use strum::IntoStaticStr;

use crate::{
    api::{self, Shared},
    live,
    sessions::Sessions,
};

/// What the web admin needs.
#[derive(Clone)]
pub struct Front {
    pub listen: SocketAddr,
    /// What it is the admin of: the page has other pages for each.
    pub program: Program,
    pub node: Node,
    pub tree: Arc<Tree>,
    pub info: SessionInfo,
    pub door: Door,
    /// What `/metrics` answers, and to whom.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub metrics_token: Secret<String>,
    /// Told the address once there is one; tests listen on port 0.
    pub bound: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    Node,
    Mediator,
}

/// Largest request, bytes.
const BODY: usize = 256 * 1024;
const CONNECTIONS: usize = 256;

/// The server as a child of the node's root.
pub fn child(front: &Front) -> Result<ChildSpec, AddressError> {
    let front = front.clone();
    // Sessions outlive a restart of the server.
    let shared = Shared { sessions: Sessions::new(front.door.clone()), front: front.clone() };
    Ok(ChildSpec::worker(Address::new("web")?, move |_| {
        let shared = shared.clone();
        async move {
            let failed =
                |e| ExitReason::Error(format!("cannot listen for HTTP on {}: {e}", shared.front.listen));
            let socket = TcpListener::bind(shared.front.listen).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            Ok(Server { shared: shared.clone(), socket: Some(socket), local, handle: None })
        }
    }))
}

struct Server {
    shared: Shared,
    socket: Option<TcpListener>,
    local: SocketAddr,
    handle: Option<ServerHandle>,
}

#[derive(Debug, IntoStaticStr)]
enum ServerMsg {}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, text: &'static str) -> impl Fn() -> std::future::Ready<HttpResponse> + Clone {
    move || std::future::ready(HttpResponse::Ok().content_type(kind).body(text))
}

/// A page that says so when a method does not fit it.
fn here(path: &'static str) -> actix_web::Resource {
    actix_web::web::resource(path).default_service(actix_web::web::to(api::not_so))
}

impl Actor for Server {
    type Msg = ServerMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some(socket) = self.socket.take() else { return Err(ExitReason::Normal) };
        let shared = Data::new(self.shared.clone());
        let make = move || {
            let headers = DefaultHeaders::new()
                .add(("Content-Security-Policy", POLICY))
                .add(("X-Content-Type-Options", "nosniff"))
                .add(("Referrer-Policy", "no-referrer"))
                .add(("Cache-Control", "no-store"));
            App::new()
                .wrap(headers)
                .app_data(shared.clone())
                .app_data(JsonConfig::default().limit(BODY).error_handler(api::bad_json))
                .service(
                    here("/")
                        .route(get().to(file("text/html; charset=utf-8", include_str!("page/index.html")))),
                )
                .service(
                    here("/app.js")
                        .route(get().to(file("text/javascript; charset=utf-8", include_str!("page/app.js")))),
                )
                .service(here("/mediator.js").route(
                    get().to(file("text/javascript; charset=utf-8", include_str!("page/mediator.js"))),
                ))
                .service(
                    here("/style.css")
                        .route(get().to(file("text/css; charset=utf-8", include_str!("page/style.css")))),
                )
                .service(here("/api/login").route(post().to(api::login)))
                .service(here("/api/logout").route(post().to(api::logout)))
                .service(here("/api/session").route(get().to(api::session)))
                .service(here("/api/run").route(post().to(api::run)))
                .service(here("/api/complete").route(post().to(api::complete)))
                .service(here("/api/live").route(get().to(live::live)))
                .service(here("/metrics").route(get().to(api::metrics)))
                .default_service(actix_web::web::to(api::nothing))
        };
        let server = HttpServer::new(make)
            .workers(1)
            .max_connections(CONNECTIONS)
            .client_request_timeout(Duration::from_secs(10))
            .shutdown_timeout(1)
            .disable_signals()
            .listen(socket)
            .map_err(ExitReason::error)?
            .run();
        self.handle = Some(server.handle());
        tracing::info!(local = %self.local, "web admin listens for HTTP");
        self.shared.front.bound.send_replace(Some(self.local));
        cx.spawn(server, |_, ended, _| match ended {
            Ok(()) => Err(ExitReason::Error("the server has ended".into())),
            Err(e) => Err(ExitReason::error(e)),
        });
        Ok(())
    }

    fn handle(&mut self, msg: ServerMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "listen": self.local })
    }
}

impl Drop for Server {
    /// However the actor ends, its port is given up.
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            drop(handle.stop(false));
        }
    }
}
