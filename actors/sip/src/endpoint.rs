//! The adapter to the SIP stack: sockets, transactions and headers on one side, the registrar's plain types on the other.

use std::{net::SocketAddr, sync::Arc};

use chrono::{DateTime, Utc};
use domain::{Estate, Picture, state::Authentication, state::SipUser};
use kit::{
    Actor, Address, Cx, ExitReason, Node, Vault,
    journal::Origin,
    ledger::{self, LedgerError, LedgerMsg},
};
use parking_lot::Mutex;
use rand::RngCore;
use rsipstack::{
    EndpointBuilder,
    sip::{Header, HeadersExt, Method, Request, StatusCode, Uri, headers::untyped::*},
    transaction::{Endpoint, Transaction},
    transport::{
        SipAddr, SipConnection, TcpListenerConnection, TransportLayer,
        udp::{UdpConnection, UdpInner},
    },
};
use strum::IntoStaticStr;
use tokio_util::sync::CancellationToken;

use crate::{
    address,
    digest::{Authenticator, Credentials, Denied},
    location::{RegistrationCommand, RegistrationsBook},
    registrar::{self, ContactRequest, Contacts, MIN_EXPIRES, Refused},
    throttle::Throttle,
};

const ALLOW: &str = "REGISTER, OPTIONS";
/// Bursts of datagrams wait here rather than being lost.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Requests worked on at the same time; more get 503.
const AT_ONCE: usize = 10_000;

/// What requests are answered with.
#[derive(Clone)]
pub(crate) struct Registrar {
    pub node: Node,
    pub estate: Estate,
    pub vault: Arc<dyn Vault>,
    pub authenticator: Arc<Mutex<Authenticator>>,
    pub throttle: Arc<Mutex<Throttle>>,
}

/// The actor `sip/endpoint`: it ends with its sockets, and they with it.
pub(crate) struct EndpointActor {
    registrar: Registrar,
    endpoint: Option<Endpoint>,
    local: SocketAddr,
    cancel: CancellationToken,
}

#[derive(Debug, IntoStaticStr)]
pub(crate) enum EndpointMsg {}

impl EndpointActor {
    /// Takes UDP and TCP on one address.
    pub(crate) async fn bind(registrar: Registrar, listen: SocketAddr) -> Result<Self, ExitReason> {
        let failed =
            |e: &dyn std::fmt::Display| ExitReason::Error(format!("cannot listen for SIP on {listen}: {e}"));
        let domain = socket2::Domain::for_address(listen);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).map_err(|e| failed(&e))?;
        // The system may grant less; that costs retransmissions in a burst, nothing else.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.set_nonblocking(true).map_err(|e| failed(&e))?;
        socket.bind(&listen.into()).map_err(|e| failed(&e))?;
        let socket = tokio::net::UdpSocket::from_std(socket.into()).map_err(|e| failed(&e))?;
        let local = socket.local_addr().map_err(|e| failed(&e))?;
        let cancel = CancellationToken::new();
        let addr = SipAddr { r#type: Some(rsipstack::sip::Transport::Udp), addr: local.into() };
        let udp = UdpConnection::attach(
            UdpInner { conn: Arc::new(socket), addr },
            None,
            Some(cancel.child_token()),
        );
        let transports = TransportLayer::new(cancel.clone());
        transports.add_transport(udp.await.into());
        let tcp = TcpListenerConnection::new(local, None).await.map_err(|e| failed(&e))?;
        transports.add_transport(tcp.into());
        let endpoint = EndpointBuilder::new()
            .with_user_agent("Hypha")
            .with_transport_layer(transports)
            .with_cancel_token(cancel.clone())
            .build();
        Ok(Self { registrar, endpoint: Some(endpoint), local, cancel })
    }
}

impl Actor for EndpointActor {
    type Msg = EndpointMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some(endpoint) = self.endpoint.take() else { return Err(ExitReason::Normal) };
        let mut incoming = endpoint.incoming_transactions().map_err(ExitReason::error)?;
        tracing::info!(local = %self.local, "SIP over UDP and TCP");
        cx.spawn(async move { endpoint.serve().await }, |_, (), _| {
            Err(ExitReason::Error("the SIP stack has ended".into()))
        });
        let registrar = self.registrar.clone();
        let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let serving = async move {
            while let Some(mut transaction) = incoming.recv().await {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    let _ = transaction.reply(StatusCode::ServiceUnavailable).await;
                    continue;
                };
                let registrar = registrar.clone();
                tokio::spawn(async move {
                    registrar.serve(transaction).await;
                    drop(place);
                });
            }
        };
        cx.spawn(serving, |_, (), _| Err(ExitReason::Error("no more SIP transactions come".into())));
        Ok(())
    }

    fn handle(&mut self, msg: EndpointMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "listen": self.local })
    }
}

impl Drop for EndpointActor {
    /// However the actor ends, its sockets are given up.
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// An answer: status and headers.
type Answer = (StatusCode, Vec<Header>);

fn plain(status: StatusCode) -> Answer {
    (status, Vec::new())
}

/// With a text that says what is wrong (RFC 3261, 20.43; 399 is for people to read).
fn warned(status: StatusCode, text: &str) -> Answer {
    (status, vec![Header::Warning(Warning::new(format!("399 Hypha \"{text}\"")))])
}

/// All values of a header that may come several times, as one list.
fn joined<'r>(request: &'r Request, pick: impl Fn(&'r Header) -> Option<&'r str>) -> Option<String> {
    let all: Vec<&str> = request.headers.iter().filter_map(pick).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

impl Registrar {
    async fn serve(&self, mut transaction: Transaction) {
        let (status, headers) = match transaction.original.method {
            Method::Register => match self.register(&transaction).await {
                Ok(answer) | Err(answer) => answer,
            },
            Method::Options => (
                StatusCode::OK,
                vec![
                    Header::Allow(Allow::new(ALLOW)),
                    Header::Accept(Accept::new("application/sdp")),
                    Header::Supported(Supported::new("path")),
                ],
            ),
            // Nothing to say to an ACK; a CANCEL without its INVITE is answered by the stack.
            Method::Ack | Method::Cancel => return,
            _ => (StatusCode::MethodNotAllowed, vec![Header::Allow(Allow::new(ALLOW))]),
        };
        metrics::counter!("hypha_sip_responses_total", "code" => status.code().to_string()).increment(1);
        if let Err(e) = transaction.reply_with(status, headers, None).await {
            tracing::debug!(error = %e, "a SIP response was not sent");
        }
    }

    async fn register(&self, transaction: &Transaction) -> Result<Answer, Answer> {
        let request = &transaction.original;
        let bad = |text: &str| warned(StatusCode::BadRequest, text);
        let now = self.node.clock().now();
        let picture = self.estate.picture();
        let realm = request.uri.host().to_string();
        let Some(domain) = picture.domains.get(&realm).cloned() else {
            return Err(warned(StatusCode::NotFound, "there is no such domain here"));
        };
        self.extensions(request)?;
        let to = request.to_header().map_err(|_| bad("there is no To"))?;
        let to = address::list(to.value()).map_err(|e| bad(&format!("To: {e}")))?;
        let to =
            to.first().and_then(|a| Uri::try_from(a.uri.as_str()).ok()).ok_or_else(|| bad("To is no URI"))?;
        let iface = format!("{}@{realm}", to.user().unwrap_or_default());
        if to.host().to_string() != realm {
            return Err(warned(StatusCode::NotFound, "To is of another domain"));
        }
        let source = source(request).ok_or_else(|| bad("Via cannot be read"))?;
        let user = domain.users.get(&iface);
        self.authenticate(request, &realm, &iface, user, &source, now)?;

        let cseq = request.cseq_header().ok().and_then(|c| c.value().split(' ').next()?.parse().ok());
        let register = registrar::Request {
            domain: realm.clone(),
            iface: iface.clone(),
            contacts: contacts(request).map_err(|e| bad(&e))?,
            expires: expires(request),
            call_id: request.call_id_header().map_err(|_| bad("there is no Call-ID"))?.value().to_owned(),
            cseq: cseq.ok_or_else(|| bad("CSeq is no number"))?,
            path: path(request),
            received: source.shown.clone(),
            local: transaction.connection.as_ref().map(|c| c.get_addr().to_string()).unwrap_or_default(),
            user_agent: user_agent(request),
            at: now,
            elph_limit: elph_limit(&picture, &realm, now),
        };
        let origin = Origin { who: iface.clone(), from: format!("sip {}", source.shown) };
        self.change(RegistrationCommand::Register(Box::new(register)), origin).await?;
        Ok(self.registered(request, &realm, &iface, now))
    }

    /// Extensions the phone insists on (RFC 3261, 8.2.2.3).
    fn extensions(&self, request: &Request) -> Result<(), Answer> {
        let required = joined(request, |h| match h {
            Header::Require(r) => Some(r.value()),
            _ => None,
        });
        let required = required.unwrap_or_default();
        let unknown: Vec<&str> = required
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty() && !tag.eq_ignore_ascii_case("path"))
            .collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => {
                let header = Header::Unsupported(Unsupported::new(unknown.join(", ")));
                Err((StatusCode::BadExtension, vec![header]))
            }
        }
    }

    fn authenticate(
        &self,
        request: &Request,
        realm: &str,
        iface: &str,
        user: Option<&SipUser>,
        source: &Source,
        now: DateTime<Utc>,
    ) -> Result<(), Answer> {
        let kind = user.map_or(Authentication::QopAuthentication, |u| u.authentication);
        let qop = match kind {
            Authentication::NoAuthentication => return Ok(()),
            Authentication::QopAuthentication => true,
            Authentication::NoQopAuthentication => false,
        };
        let challenge = |stale| {
            let mut salt = [0; 8];
            rand::rng().fill_bytes(&mut salt);
            let values = self.authenticator.lock().challenges(realm, now, salt, qop, stale);
            let headers = values.into_iter().map(|v| Header::WwwAuthenticate(WwwAuthenticate::new(v)));
            (StatusCode::Unauthorized, headers.collect())
        };
        if !self.throttle.lock().may_try(source.ip, now) {
            return Err(warned(StatusCode::Forbidden, "too many failures; wait a minute"));
        }
        let sent = request.headers.iter().filter_map(|h| match h {
            Header::Authorization(a) => Some(a.value()),
            _ => None,
        });
        // A phone may answer for several realms.
        let mut refused = None;
        let mine = sent.map(Credentials::parse).find_map(|c| match c {
            Ok(c) if c.realm() == realm => Some(c),
            Ok(_) => None,
            Err(e) => {
                refused = Some(e);
                None
            }
        });
        let credentials = match (mine, refused) {
            (Some(c), _) => c,
            (None, Some(e)) => return Err(warned(StatusCode::BadRequest, &e.to_string())),
            (None, None) => return Err(challenge(false)),
        };
        let checked = match user.filter(|u| u.login == credentials.username()) {
            // An unknown name gets as far as a wrong password does.
            None => Err(Denied::Wrong),
            Some(user) => {
                let purpose = format!("domain/{realm}/user/{iface}");
                let password = self.vault.open(&purpose, &user.password).map_err(|e| {
                    tracing::error!(%iface, error = %e, "a stored password cannot be opened");
                    plain(StatusCode::ServerInternalError)
                })?;
                let method = request.method.to_string();
                self.authenticator.lock().check(&credentials, realm, &method, &password, qop, now)
            }
        };
        match checked {
            Ok(()) => Ok(()),
            Err(Denied::Stale) => Err(challenge(true)),
            Err(Denied::Malformed(what)) => Err(warned(StatusCode::BadRequest, what)),
            Err(Denied::Wrong) => {
                self.throttle.lock().failed(source.ip, now);
                Err(plain(StatusCode::Forbidden))
            }
        }
    }

    async fn change(&self, command: RegistrationCommand, origin: Origin) -> Result<(), Answer> {
        let unavailable = || plain(StatusCode::ServiceUnavailable);
        let name = Address::new("sip/registrations").map_err(|_| unavailable())?;
        let registry = self.node.registry();
        let ledger = registry.lookup::<LedgerMsg<RegistrationsBook>>(&name).map_err(|_| unavailable())?;
        match ledger::change(&ledger, command, origin).await {
            Ok(()) => Ok(()),
            Err(LedgerError::Refused(refused)) => Err(match refused {
                Refused::Brief => {
                    let header = Header::MinExpires(MinExpires::new(MIN_EXPIRES.to_string()));
                    (StatusCode::IntervalTooBrief, vec![header])
                }
                Refused::Star => warned(StatusCode::BadRequest, &refused.to_string()),
                Refused::OutOfOrder => warned(StatusCode::ServerInternalError, &refused.to_string()),
                Refused::TooMany => warned(StatusCode::Forbidden, &refused.to_string()),
                Refused::Licence => {
                    let header = Warning::new(format!("399 Elph \"{refused}\""));
                    (StatusCode::Forbidden, vec![Header::Warning(header)])
                }
            }),
            Err(e) => {
                tracing::error!(error = %e, "a registration was not kept");
                Err(unavailable())
            }
        }
    }

    /// 200 with all contacts and the time each has left.
    fn registered(&self, request: &Request, domain: &str, iface: &str, now: DateTime<Utc>) -> Answer {
        let picture = self.estate.picture();
        let contacts = picture.registrations.get(domain).and_then(|all| all.get(iface)).cloned();
        let mut headers: Vec<Header> = contacts
            .iter()
            .flat_map(|c| c.iter())
            .filter(|r| r.expires > now)
            .map(|r| {
                let left = (r.expires - now).num_seconds().max(1);
                Header::Contact(Contact::new(format!("<{}>;expires={left}", r.contact)))
            })
            .collect();
        headers.extend(path(request).into_iter().map(|p| Header::Path(Path::new(p))));
        headers.push(Header::Date(Date::new(now.format("%a, %d %b %Y %H:%M:%S GMT").to_string())));
        (StatusCode::OK, headers)
    }
}

/// Where a request came from, as the stack noted it in the topmost Via (RFC 3581).
struct Source {
    ip: std::net::IpAddr,
    shown: String,
}

fn source(request: &Request) -> Option<Source> {
    let (transport, target) = SipConnection::parse_target_from_via(request.via_header().ok()?).ok()?;
    let ip = target.host.to_string().trim_matches(['[', ']']).parse().ok()?;
    Some(Source { ip, shown: format!("{} {target}", transport.to_string().to_lowercase()) })
}

fn contacts(request: &Request) -> Result<Contacts, String> {
    let all = joined(request, |h| match h {
        Header::Contact(c) => Some(c.value()),
        _ => None,
    });
    let Some(all) = all else { return Ok(Contacts::Query) };
    let all = address::list(&all).map_err(|e| format!("Contact: {e}"))?;
    match all.as_slice() {
        [star] if star.uri == "*" => return Ok(Contacts::All),
        all if all.iter().any(|a| a.uri == "*") => return Err(Refused::Star.to_string()),
        _ => {}
    }
    let one = |a: &address::Address| {
        let uri = Uri::try_from(a.uri.as_str()).map_err(|_| format!("Contact: {} is no URI", a.uri))?;
        let expires = a.parameter("expires").map(|e| e.parse().unwrap_or(registrar::DEFAULT_EXPIRES));
        // RFC 5626: the same instance over the same flow is the same contact, wherever it is now.
        let key = match a.parameter("+sip.instance") {
            Some(instance) => format!("{instance} {}", a.parameter("reg-id").unwrap_or_default()),
            None => format!("{}@{}", uri.user().unwrap_or_default(), uri.host_with_port).to_lowercase(),
        };
        let (uri, q) = (a.uri.clone(), address::q_of(a.parameter("q")));
        Ok(ContactRequest { key, uri, q, ice: a.parameter("+sip.ice").is_some(), expires })
    };
    all.iter().map(one).collect::<Result<_, String>>().map(Contacts::These)
}

fn expires(request: &Request) -> Option<u32> {
    request.headers.iter().find_map(|h| match h {
        Header::Expires(e) => e.value().trim().parse().ok(),
        _ => None,
    })
}

fn path(request: &Request) -> Vec<String> {
    let pick = |h: &Header| match h {
        Header::Path(p) => Some(p.value().to_owned()),
        _ => None,
    };
    request.headers.iter().filter_map(pick).collect()
}

/// Longest name of a phone that is kept, characters.
const USER_AGENT: usize = 200;

fn user_agent(request: &Request) -> String {
    let found = request.headers.iter().find_map(|h| match h {
        Header::UserAgent(u) => Some(u.value()),
        _ => None,
    });
    found.unwrap_or_default().chars().filter(|c| !c.is_control()).take(USER_AGENT).collect()
}

fn elph_limit(picture: &Picture, domain: &str, now: DateTime<Utc>) -> u64 {
    let terms = picture.terms(now);
    picture.domains.get(domain).map_or(0, |d| d.elph_members(&terms))
}
