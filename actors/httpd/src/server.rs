//! An HTTP service as an actor: it ends with its server, and its port is given up with it.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer, dev::ServerHandle, middleware::DefaultHeaders, web::ServiceConfig,
};
use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason};
use strum::IntoStaticStr;
use tokio::sync::watch;

const CONNECTIONS: usize = 256;

type Routes = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// Headers of every answer.
pub type Headers = &'static [(&'static str, &'static str)];

/// Those of a service for programs.
pub const HEADERS: Headers = &[("X-Content-Type-Options", "nosniff")];

/// Where a service listens, and where it is told once it does.
#[derive(Clone)]
pub struct Door {
    pub listen: SocketAddr,
    pub bound: watch::Sender<Option<SocketAddr>>,
}

impl Door {
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, bound: watch::Sender::new(None) }
    }
}

/// A service as a child of a supervisor.
pub fn child(
    name: &str,
    door: &Door,
    headers: Headers,
    routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static,
) -> Result<ChildSpec, AddressError> {
    let (door, routes): (_, Routes) = (door.clone(), Arc::new(routes));
    Ok(ChildSpec::worker(Address::new(name)?, move |_| {
        let (door, routes) = (door.clone(), routes.clone());
        async move {
            let failed = |e| ExitReason::Error(format!("cannot listen for HTTP on {}: {e}", door.listen));
            let socket = TcpListener::bind(door.listen).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            Ok(Service { door: door.clone(), headers, routes, socket: Some(socket), local, handle: None })
        }
    }))
}

struct Service {
    door: Door,
    headers: Headers,
    routes: Routes,
    socket: Option<TcpListener>,
    local: SocketAddr,
    handle: Option<ServerHandle>,
}

#[derive(Debug, IntoStaticStr)]
enum ServiceMsg {}

impl Actor for Service {
    type Msg = ServiceMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some(socket) = self.socket.take() else { return Err(ExitReason::Normal) };
        let (headers, routes) = (self.headers, self.routes.clone());
        let make = move || {
            let routes = routes.clone();
            let headers = headers.iter().fold(DefaultHeaders::new(), |all, header| all.add(*header));
            App::new()
                .wrap(headers)
                .default_service(actix_web::web::to(|| async {
                    HttpResponse::NotFound().content_type(TEXT).body("there is nothing here\n")
                }))
                .configure(move |config| routes(config))
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
        tracing::info!(service = %cx.address(), local = %self.local, "listens for HTTP");
        self.door.bound.send_replace(Some(self.local));
        cx.spawn(server, |_, ended, _| match ended {
            Ok(()) => Err(ExitReason::Error("the server has ended".into())),
            Err(e) => Err(ExitReason::error(e)),
        });
        Ok(())
    }

    fn handle(&mut self, msg: ServiceMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "listen": self.local })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            drop(handle.stop(false));
        }
    }
}

/// Answers in words.
pub const TEXT: &str = "text/plain; charset=utf-8";
