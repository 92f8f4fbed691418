//! An HTTP service as an actor: it ends with its server, and its port is given up with it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, Error, HttpMessage, HttpResponse, HttpServer,
    body::MessageBody,
    dev::{Payload, ServerHandle, ServiceRequest, ServiceResponse},
    error::PayloadError,
    middleware::{DefaultHeaders, Next, from_fn},
    web::ServiceConfig,
};
use futures::StreamExt;
use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason,
    alarm::{Condition, Severity},
    intake::HttpIntake,
};
use parking_lot::Mutex;
use strum::IntoStaticStr;
use tokio::sync::watch;

/// Class of the alarm of a port that cannot be opened.
const CLOSED: &str = "node::door::closed";

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
    /// Proxies: many browsers' connections are theirs.
    proxies: Arc<[IpAddr]>,
    intake: HttpIntake,
}

impl Door {
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            bound: watch::Sender::new(None),
            proxies: Arc::default(),
            intake: HttpIntake::default(),
        }
    }

    pub fn limited(mut self, intake: HttpIntake) -> Self {
        self.intake = intake;
        self
    }

    /// Connections of these addresses are a proxy's, and have no limit of their own.
    pub fn trusting(mut self, proxies: Vec<IpAddr>) -> Self {
        self.proxies = proxies.into();
        self
    }
}

/// Gives a body that does not come in time up: a few hundred slow ones would take every connection.
async fn patience<B: MessageBody + 'static>(
    intake: HttpIntake,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let body = request.take_payload();
    let began = tokio::time::Instant::now();
    let in_time = futures::stream::unfold(Some((body, 0u64)), move |state| async move {
        let (mut body, had) = state?;
        let whole =
            began + Duration::from_secs(intake.body_seconds + had / intake.body_bytes_a_second.max(1));
        let deadline =
            whole.min(tokio::time::Instant::now() + Duration::from_secs(intake.body_pause_seconds));
        match tokio::time::timeout_at(deadline, body.next()).await {
            Ok(Some(Ok(piece))) => {
                let had = had + piece.len() as u64;
                Some((Ok(piece), Some((body, had))))
            }
            Ok(Some(Err(e))) => Some((Err(e), None)),
            Ok(None) => None,
            Err(_) => Some((Err(PayloadError::Io(std::io::ErrorKind::TimedOut.into())), None)),
        }
    });
    request.set_payload(Payload::Stream { payload: Box::pin(in_time) });
    next.call(request).await
}

/// Connections by address.
type Crowd = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of a crowd, while its connection lives.
struct Guest {
    from: IpAddr,
    crowd: Crowd,
}

impl Guest {
    /// None where its address has as many as it may.
    fn enter(from: IpAddr, crowd: &Crowd, most: usize) -> Option<Self> {
        let from = kit::throttle::network(from);
        let mut all = crowd.lock();
        let count = all.entry(from).or_default();
        if *count >= most {
            metrics::counter!("hypha_http_refused_total").increment(1);
            return None;
        }
        *count += 1;
        Some(Self { from, crowd: crowd.clone() })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.crowd.lock();
        if let Some(count) = all.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.from);
            }
        }
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
        async move { Ok(Service { door, headers, routes, local: None, handle: None, trouble: None }) }
    }))
}

struct Service {
    door: Door,
    headers: Headers,
    routes: Routes,
    local: Option<SocketAddr>,
    handle: Option<ServerHandle>,
    /// Why it does not listen.
    trouble: Option<String>,
}

/// Between two tries to open a port.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, IntoStaticStr)]
enum ServiceMsg {
    /// Opens the port, or tries again later.
    Bind,
}

impl Actor for Service {
    type Msg = ServiceMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.bind(cx)
    }

    fn handle(&mut self, ServiceMsg::Bind: ServiceMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.bind(cx)
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "listen": self.local, "trouble": self.trouble })
    }
}

impl Service {
    fn bind(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let bound = TcpListener::bind(self.door.listen).and_then(|s| Ok((s.local_addr()?, s)));
        let (local, socket) = match bound {
            Ok(bound) => bound,
            Err(e) => {
                let closed = Condition::new(CLOSED, Severity::Major, cx.address().to_string());
                let cause = format!("{} cannot be opened: {e}; it is tried again", self.door.listen);
                cx.node().alarms().raise(closed.cause(cause));
                metrics::counter!("hypha_ports_failed_total").increment(1);
                self.trouble = Some(e.to_string());
                cx.after(AGAIN, ServiceMsg::Bind);
                return Ok(());
            }
        };
        cx.node().alarms().clear(CLOSED, None, cx.address().as_str());
        (self.local, self.trouble) = (Some(local), None);
        let (headers, routes) = (self.headers, self.routes.clone());
        let intake = self.door.intake;
        let make = move || {
            let routes = routes.clone();
            let headers = headers.iter().fold(DefaultHeaders::new(), |all, header| all.add(*header));
            App::new()
                .wrap(headers)
                .wrap(from_fn(move |request, next| patience(intake, request, next)))
                .default_service(actix_web::web::to(|| async {
                    HttpResponse::NotFound().content_type(TEXT).body("there is nothing here\n")
                }))
                .configure(move |config| routes(config))
        };
        let (crowd, proxies) = (Crowd::default(), self.door.proxies.clone());
        let (alarms, name) = (cx.node().alarms().clone(), cx.address().to_string());
        let server = HttpServer::new(make)
            .on_connect(move |io, extensions| {
                let Some(tcp) = io.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
                let Ok(peer) = tcp.peer_addr() else { return };
                if proxies.contains(&peer.ip().to_canonical()) {
                    return;
                }
                match Guest::enter(peer.ip(), &crowd, intake.connections_of_one) {
                    Some(guest) => drop(extensions.insert(guest)),
                    None => {
                        kit::intake::crowded(&alarms, &name, "http");
                        let _ = socket2::SockRef::from(tcp).shutdown(std::net::Shutdown::Both);
                    }
                }
            })
            .workers(1)
            .max_connections(intake.connections)
            .client_request_timeout(Duration::from_secs(intake.header_seconds))
            .shutdown_timeout(1)
            .disable_signals()
            .listen(socket)
            .map_err(ExitReason::error)?
            .run();
        self.handle = Some(server.handle());
        tracing::info!(service = %cx.address(), %local, "listens for HTTP");
        self.door.bound.send_replace(Some(local));
        cx.spawn(server, |_, ended, _| match ended {
            Ok(()) => Err(ExitReason::Error("the server has ended".into())),
            Err(e) => Err(ExitReason::error(e)),
        });
        Ok(())
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
