//! The page's requests.

use std::net::{IpAddr, Ipv4Addr};

use access::DoorError;
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite},
    error::{InternalError, JsonPayloadError, PayloadError},
    http::header,
    web::{Data, Json},
};
use command::{Caller, Outcome, Session};
use kit::Secret;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    sessions::{Sessions, same},
    tree::Front,
};

/// Cookies are of a host, whatever the port (RFC 6265, 8.5): a node and a mediator on one host must not end each other's sessions.
fn cookie_name(request: &HttpRequest) -> String {
    format!("hypha-{}", request.app_config().local_addr().port())
}

/// What the server's workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) front: Front,
    pub(crate) sessions: Sessions,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    user: String,
    password: String,
}

#[derive(Deserialize)]
pub(crate) struct Run {
    line: String,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    confirmed: bool,
}

#[derive(Serialize)]
struct Ran {
    text: String,
    status: u32,
    data: Option<serde_json::Value>,
    question: Option<String>,
    cwd: String,
    prompt: String,
}

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers().get(name).and_then(|v| v.to_str().ok())
}

fn neighbour(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip().to_canonical())
}

/// Whether a request comes from a proxy whose word is believed.
fn proxied(request: &HttpRequest, shared: &Shared) -> bool {
    shared.front.proxies.trusted.contains(&neighbour(request))
}

/// Where a request comes from: behind trusted proxies the first address from the right in `X-Forwarded-For` that is none of theirs.
fn peer(request: &HttpRequest, shared: &Shared) -> IpAddr {
    let neighbour = neighbour(request);
    if !proxied(request, shared) {
        return neighbour;
    }
    let all = request.headers().get_all("x-forwarded-for").filter_map(|v| v.to_str().ok());
    let all: Vec<&str> = all.flat_map(|v| v.split(',')).collect();
    forwarded(neighbour, &all, &shared.front.proxies.trusted)
}

/// Of the addresses that proxies noted, each behind the one before, the last that is no proxy's. What stands before it, the
/// browser may have made up; where a proxy noted no address, its own is all that is known.
fn forwarded(neighbour: IpAddr, noted: &[&str], trusted: &[IpAddr]) -> IpAddr {
    let mut known = neighbour;
    for text in noted.iter().rev().map(|t| t.trim()) {
        let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip());
        let Some(address) = text.parse::<IpAddr>().ok().or_else(with_port) else { break };
        known = address.to_canonical();
        if !trusted.contains(&known) {
            break;
        }
    }
    known
}

/// Whether the browser speaks TLS, to the proxy before us.
fn sealed(request: &HttpRequest, shared: &Shared) -> bool {
    proxied(request, shared) && header(request, "x-forwarded-proto") == Some("https")
}

fn error(response: &mut actix_web::HttpResponseBuilder, text: &str) -> HttpResponse {
    response.json(json!({ "error": text }))
}

pub(crate) async fn nothing(request: HttpRequest) -> HttpResponse {
    error(&mut HttpResponse::NotFound(), &format!("there is no page {}", request.path()))
}

pub(crate) async fn not_so(request: HttpRequest) -> HttpResponse {
    let text = format!("{} does not take {}", request.path(), request.method());
    error(&mut HttpResponse::MethodNotAllowed(), &text)
}

/// Whether the process answers at all, for whatever watches over it.
pub(crate) async fn health() -> HttpResponse {
    HttpResponse::Ok().content_type(httpd::TEXT).body("ok\n")
}

/// Conditions under which calls are better sent elsewhere.
const UNREADY: [(&str, &str); 3] = [
    ("node::draining", "draining"),
    ("call::records::unwritten", "call records cannot be written"),
    ("store::journal::refuses", "the journal cannot be written"),
];

/// Whether it does its work: 503 while what calls, or a mediator, need is not there, and while it drains.
pub(crate) async fn ready(shared: Data<Shared>) -> HttpResponse {
    let registry = shared.front.node.registry();
    let lives = |name: &str| kit::Address::new(name).is_ok_and(|n| registry.find(&n).is_some());
    let alarms = shared.front.node.alarms().active();
    let unready = UNREADY.iter().find(|(class, _)| alarms.iter().any(|a| a.class == *class));
    if let Some((_, why)) = unready {
        return HttpResponse::ServiceUnavailable().content_type(httpd::TEXT).body(format!("{why}\n"));
    }
    match lives("accounts") && (lives("sip/endpoint") || lives("mediator/desk")) {
        true => HttpResponse::Ok().content_type(httpd::TEXT).body("ready\n"),
        false => HttpResponse::ServiceUnavailable().content_type(httpd::TEXT).body("not ready\n"),
    }
}

/// A body that cannot be read.
pub(crate) fn bad_json(e: JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    let response = match &e {
        JsonPayloadError::ContentType => {
            error(&mut HttpResponse::BadRequest(), "the body must be JSON: Content-Type: application/json")
        }
        JsonPayloadError::Overflow { limit } | JsonPayloadError::OverflowKnownLength { limit, .. } => {
            error(&mut HttpResponse::PayloadTooLarge(), &format!("the body is larger than {limit} bytes"))
        }
        JsonPayloadError::Payload(PayloadError::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut => {
            error(&mut HttpResponse::RequestTimeout(), "the body did not come in time")
        }
        e => error(&mut HttpResponse::BadRequest(), &format!("the body cannot be read: {e}")),
    };
    InternalError::from_response(e, response).into()
}

/// Why a request was not heard.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Stranger,
    Forged,
}

impl Refusal {
    pub(crate) fn response(self) -> HttpResponse {
        match self {
            Self::Stranger => error(&mut HttpResponse::Unauthorized(), "log in first"),
            Self::Forged => {
                let text = "the request does not come from the admin page; load it anew";
                error(&mut HttpResponse::Forbidden(), text)
            }
        }
    }
}

/// The operator behind a request's cookie.
pub(crate) fn caller(request: &HttpRequest, shared: &Shared) -> Result<(Caller, String), Refusal> {
    let id = request.cookie(&cookie_name(request));
    let found = id.and_then(|c| shared.sessions.caller(c.value(), peer(request, shared)));
    found.ok_or(Refusal::Stranger)
}

/// As [`caller`], for requests that change something: they must come from our own page.
fn own_page(request: &HttpRequest, shared: &Shared) -> Result<Caller, Refusal> {
    let (caller, csrf) = caller(request, shared)?;
    let sent = request.headers().get("x-csrf").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if same(sent, &csrf) { Ok(caller) } else { Err(Refusal::Forged) }
}

/// A page of another site must not log anybody in here either. Browsers say so themselves (Fetch Metadata), except over HTTP to
/// another host; then the page's origin must be the host that was asked, as the browser named it.
fn same_origin(request: &HttpRequest, shared: &Shared) -> bool {
    if let Some(site) = header(request, "sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = header(request, "origin") else { return true };
    let Some((_, origin)) = origin.split_once("://") else { return false };
    let asked =
        [header(request, "host"), header(request, "x-forwarded-host").filter(|_| proxied(request, shared))];
    let name = origin.rsplit_once(':').map_or(origin, |(name, _)| name);
    asked.into_iter().flatten().any(|host| host == origin)
        || shared.front.proxies.names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

fn who(shared: &Shared, caller: &Caller, csrf: &str) -> serde_json::Value {
    json!({ "program": shared.front.program, "user": caller.name, "roles": caller.grants.roles(), "csrf": csrf })
}

pub(crate) async fn login(request: HttpRequest, shared: Data<Shared>, login: Json<Login>) -> HttpResponse {
    if !same_origin(&request, &shared) {
        let text = "log in from the admin page; behind a proxy its name must be in [web] names";
        return error(&mut HttpResponse::Forbidden(), text);
    }
    let Login { user, password } = login.into_inner();
    let (peer, password) = (peer(&request, &shared), Secret::new(password));
    match shared.sessions.door().password(&user, password, peer, format!("web {peer}")).await {
        Ok(caller) => {
            let now = shared.front.node.clock().now();
            let (id, csrf) = shared.sessions.begin(caller.name.clone(), &caller.from, now);
            let cookie = Cookie::build(cookie_name(&request), id);
            let sealed = sealed(&request, &shared);
            let cookie = cookie.http_only(true).secure(sealed).same_site(SameSite::Strict).path("/").finish();
            let mut answer = HttpResponse::Ok();
            if sealed {
                answer.insert_header((header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
            }
            answer.cookie(cookie).json(who(&shared, &caller, &csrf))
        }
        Err(e) => {
            let mut answer = match &e {
                DoorError::Wait(_) | DoorError::Busy => HttpResponse::TooManyRequests(),
                _ => HttpResponse::Unauthorized(),
            };
            if let DoorError::Wait(seconds) = &e {
                answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
            }
            error(&mut answer, &e.to_string())
        }
    }
}

pub(crate) async fn session(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    match caller(&request, &shared) {
        Ok((caller, csrf)) => HttpResponse::Ok().json(who(&shared, &caller, &csrf)),
        Err(refusal) => refusal.response(),
    }
}

pub(crate) async fn logout(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    if let Err(refusal) = own_page(&request, &shared) {
        return refusal.response();
    }
    let name = cookie_name(&request);
    if let Some(cookie) = request.cookie(&name) {
        shared.sessions.end(cookie.value());
    }
    let mut gone = Cookie::build(name, "").path("/").finish();
    gone.make_removal();
    HttpResponse::Ok().cookie(gone).json(json!({}))
}

async fn shell(shared: &Shared, caller: Caller, cwd: &str) -> Session {
    let front = &shared.front;
    let mut session = Session::new(front.tree.clone(), front.info.clone(), *front.node.clock(), caller);
    if !cwd.is_empty() {
        // A directory that is gone leaves the session at the root.
        let _ = session.execute(&format!("cd {cwd}"), None).await;
    }
    session
}

pub(crate) async fn run(request: HttpRequest, shared: Data<Shared>, run: Json<Run>) -> HttpResponse {
    let caller = match own_page(&request, &shared) {
        Ok(caller) => caller,
        Err(refusal) => return refusal.response(),
    };
    let mut session = shell(&shared, caller, &run.cwd).await;
    let changes_own = session.command_of(&run.line).is_some_and(|path| path == access::OWN_PASSWORD);
    let (answer, outcome) = session.run_whole(&run.line, None, run.confirmed).await;
    // Only the session whose operator has just shown the old password goes on with the new one.
    if changes_own
        && matches!(outcome, Outcome::Said { status: 0, .. })
        && let Some(cookie) = request.cookie(&cookie_name(&request))
    {
        shared.sessions.renew(cookie.value());
    }
    let (text, status, question) = match outcome {
        Outcome::Said { text, status } => (text, status, None),
        Outcome::Asks { question } => (String::new(), 0, Some(question)),
        Outcome::Quiet | Outcome::Exit => (String::new(), 0, None),
    };
    let data = answer.ok().map(|a| a.to_json());
    HttpResponse::Ok().json(Ran {
        text,
        status,
        data,
        question,
        cwd: session.cwd(),
        prompt: session.prompt(),
    })
}

pub(crate) async fn complete(request: HttpRequest, shared: Data<Shared>, run: Json<Run>) -> HttpResponse {
    match own_page(&request, &shared) {
        Ok(caller) => HttpResponse::Ok().json(shell(&shared, caller, &run.cwd).await.complete(&run.line)),
        Err(refusal) => refusal.response(),
    }
}

/// For Prometheus, which shows the token of the node's file (`authorization: credentials_file`).
pub(crate) async fn metrics(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match sent.strip_prefix("Bearer ").is_some_and(|t| same(t, shared.front.metrics_token.expose())) {
        true => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body((shared.front.metrics)()),
        false => error(
            HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Bearer")),
            "the token of metrics.token is wanted: Authorization: Bearer TOKEN",
        ),
    }
}
