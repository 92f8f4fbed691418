//! REGISTER, and who may send what: credentials of subscribers.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use domain::{
    Estate, Picture,
    state::{Authentication, DomainState, SipUser, Trunk},
};
use kit::{
    Address, Node, Sealed, Vault,
    alarm::{Condition, Severity},
    journal::Origin,
    ledger::{self, LedgerError, LedgerMsg},
    throttle::Throttle,
};
use parking_lot::Mutex;
use rand::RngCore;

use crate::{
    digest::{Authenticator, Checked, Credentials, Denied},
    location::{RegistrationCommand, RegistrationsBook},
    registrar::{self, ContactRequest, Contacts, MIN_EXPIRES, Refused},
    transaction::Flow,
    wire::{
        address,
        message::{Message, Name},
        uri::{Uri, unescape},
    },
};

/// What requests are answered with.
#[derive(Clone)]
pub(crate) struct Registrar {
    pub node: Node,
    pub estate: Estate,
    pub vault: Arc<dyn Vault>,
    pub authenticator: Arc<Mutex<Authenticator>>,
    pub throttle: Arc<Mutex<Throttle>>,
    /// Lines of the log about refused log-ins.
    pub refusals: Arc<Mutex<kit::Seldom>>,
}

/// An answer: status and headers.
pub(super) type Answer = (u16, Vec<(Name, String)>);

pub(super) fn plain(status: u16) -> Answer {
    (status, Vec::new())
}

/// With a text that says what is wrong (RFC 3261, 20.43; 399 is for people to read).
pub(super) fn warned(status: u16, text: &str) -> Answer {
    (status, vec![(Name::Warning, format!("399 hypha \"{text}\""))])
}

impl Registrar {
    pub(super) async fn register(&self, request: &Message, flow: Flow, local: String) -> Answer {
        match self.try_register(request, flow, local).await {
            Ok(answer) | Err(answer) => answer,
        }
    }

    async fn try_register(&self, request: &Message, flow: Flow, local: String) -> Result<Answer, Answer> {
        let bad = |text: &str| warned(400, text);
        let now = self.node.clock().steady();
        let picture = self.estate.picture();
        let uri = Uri::parse(request.uri()).map_err(|e| bad(&format!("Request-URI: {e}")))?;
        let Some((realm, domain)) = picture.domain_named(uri.host) else {
            self.refused(uri.host, flow.peer.ip(), "no such domain");
            return Err(warned(404, "there is no such domain here"));
        };
        let (realm, domain) = (realm.clone(), domain.clone());
        let to = request.address(&Name::To).ok_or_else(|| bad("To is no address"))?;
        let to = Uri::parse(&to.uri).map_err(|_| bad("To is no URI"))?;
        let iface = iface(&to, &realm);
        if !to.host.eq_ignore_ascii_case(&realm) {
            return Err(warned(404, "To is of another domain"));
        }
        let user = domain.users.get(&iface);
        self.authenticate(request, &realm, &iface, user, flow.peer.ip())?;

        let register = registrar::Request {
            domain: realm.clone(),
            iface: iface.clone(),
            contacts: contacts(request).map_err(|e| bad(&e))?,
            expires: request.header(&Name::Expires).and_then(|e| e.parse().ok()),
            call_id: request.call_id().to_owned(),
            cseq: request.cseq().map(|(n, _)| n).ok_or_else(|| bad("CSeq is no number"))?,
            path: path(request),
            received: flow.to_string(),
            local,
            user_agent: user_agent(request),
            at: now,
            elph_limit: elph_limit(&picture, &realm, self.node.clock().now()),
        };
        let origin = Origin { who: iface.clone(), from: format!("sip {flow}") };
        self.change(RegistrationCommand::Register(Box::new(register)), origin).await?;
        Ok(self.registered(request, &realm, &iface, now))
    }

    /// The subscriber a request comes from, once it has proved so, with its domain. `strangers` is said to others.
    pub(super) fn subscriber<'p>(
        &self,
        picture: &'p Picture,
        request: &Message,
        flow: Flow,
        from: &Uri<'_>,
        strangers: &str,
    ) -> Result<(&'p str, &'p DomainState, &'p SipUser), Answer> {
        let Some((realm, domain)) = picture.domain_named(from.host) else {
            self.refused(&format!("{}@{}", from.number(), from.host), flow.peer.ip(), "no such domain");
            return Err(warned(403, strangers));
        };
        let iface = iface(from, realm);
        let user = domain.users.get(&iface);
        self.authenticate(request, realm, &iface, user, flow.peer.ip())?;
        Ok((realm, domain, user.ok_or_else(|| warned(403, "no such subscriber"))?))
    }

    /// Whether the sender of a request in a dialog proves to be the subscriber whose leg it is.
    pub(super) fn dialog_peer(
        &self,
        picture: &Picture,
        request: &Message,
        flow: Flow,
        domain: &str,
        iface: &str,
    ) -> Result<(), Answer> {
        let user = picture.domains.get(domain).and_then(|d| d.users.get(iface)).ok_or_else(another_host)?;
        // A subscriber without a password has nothing to prove with.
        match user.authentication {
            Authentication::NoAuthentication => Err(another_host()),
            _ => self.authenticate(request, domain, iface, Some(user), flow.peer.ip()),
        }
    }

    /// The trunk whose neighbour a request comes from, by what it proves: one of these domains' with a `peer_login`. A
    /// neighbour that has not been asked yet is asked.
    pub(super) fn trunk(
        &self,
        picture: &Picture,
        request: &Message,
        flow: Flow,
        hosts: &[&str],
    ) -> Result<Option<(String, String)>, Answer> {
        let found = hosts.iter().find_map(|h| {
            let (realm, state) = picture.domain_named(h)?;
            state.trunks.values().any(|t| t.property("peer_login").is_some()).then_some((realm, state))
        });
        let Some((realm, state)) = found else { return Ok(None) };
        // A subscriber of this domain proves that it is one.
        let subscriber = request.address(&Name::From).and_then(|f| {
            let from = Uri::parse(&f.uri).ok()?;
            state.users.get(&iface(&from, realm))
        });
        if subscriber.is_some() {
            return Ok(None);
        }
        let mut named = None;
        self.prove(request, realm, true, flow.peer.ip(), |name| {
            let trunk = state.trunks.values().find(|t| t.property("peer_login") == Some(name))?;
            named = Some(trunk.name.clone());
            Some((Trunk::purpose(realm, &trunk.name), trunk.secret("peer_password")?.clone()))
        })?;
        Ok(named.map(|trunk| (realm.clone(), trunk)))
    }

    /// Whether a request comes from the subscriber it says; the answer otherwise.
    pub(super) fn authenticate(
        &self,
        request: &Message,
        realm: &str,
        iface: &str,
        user: Option<&SipUser>,
        source: IpAddr,
    ) -> Result<(), Answer> {
        let kind = user.map_or(Authentication::QopAuthentication, |u| u.authentication);
        let qop = match kind {
            Authentication::NoAuthentication => return Ok(()),
            Authentication::QopAuthentication => true,
            Authentication::NoQopAuthentication => false,
        };
        self.prove(request, realm, qop, source, |name| {
            let user = user.filter(|u| u.login == name)?;
            Some((format!("domain/{realm}/user/{iface}"), user.password.clone()))
        })
    }

    /// Whether a request's credentials are those that `known` has for their name: a sealed password and its purpose.
    fn prove(
        &self,
        request: &Message,
        realm: &str,
        qop: bool,
        source: IpAddr,
        known: impl FnOnce(&str) -> Option<(String, Sealed)>,
    ) -> Result<(), Answer> {
        let now = tokio::time::Instant::now().into_std();
        let challenge = |stale| {
            let mut salt = [0; 8];
            rand::rng().fill_bytes(&mut salt);
            let values = self.authenticator.lock().challenges(realm, source, now, salt, qop, stale);
            let headers = values.into_iter().map(|v| (Name::WwwAuthenticate, v));
            (401, headers.collect())
        };
        let sent = request.all(&Name::Authorization);
        // A phone may answer for several realms, and in schemes we do not speak.
        let digest = |h: &&ByteString| h.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("digest"));
        let sent: Vec<_> = sent.filter(digest).map(|h| Credentials::parse(h)).collect();
        let mine = sent.iter().flatten().find(|c| c.realm() == realm);
        if let (None, Some(Err(e))) = (mine, sent.iter().find(|c| c.is_err())) {
            return Err(warned(400, &e.to_string()));
        }
        let Some(credentials) = mine else { return Err(challenge(false)) };
        let account = format!("{}@{realm}", credentials.username());
        let may_try = self.throttle.lock().may_try(source, &account, now);
        if let Err(wait) = may_try {
            self.refused(&account, source, "throttled");
            let mut answer = warned(403, "too many failures; try again later");
            answer.1.push((Name::RetryAfter, (wait.as_secs() + 1).to_string()));
            return Err(answer);
        }
        let password = match known(credentials.username()) {
            // The same work follows as for a wrong password.
            None => None,
            Some((purpose, sealed)) => Some(self.vault.open(&purpose, &sealed).map_err(|e| {
                tracing::error!(purpose, error = %e, "a stored password cannot be opened");
                plain(500)
            })?),
        };
        let method = request.method().map_or("", |m| m.as_str());
        let of = Checked { realm, method, uri: request.uri(), source, qop, now };
        let checked = self.authenticator.lock().check(credentials, password.as_ref(), of);
        match checked {
            Ok(()) => {
                self.throttle.lock().succeeded(source, &account, now);
                Ok(())
            }
            Err(Denied::Stale) => Err(challenge(true)),
            Err(Denied::NoQop) => Err(challenge(false)),
            Err(Denied::Malformed(what)) => Err(warned(400, what)),
            Err(Denied::Wrong) => {
                self.throttle.lock().failed(source, &account, now);
                self.refused(&account, source, "wrong password");
                Err(plain(403))
            }
        }
    }

    /// Counts a refused log-in, and logs it in a form that tools such as fail2ban read: at most some lines a second.
    fn refused(&self, account: &str, source: IpAddr, reason: &'static str) {
        metrics::counter!("hypha_sip_auth_failures_total", "reason" => reason.replace(' ', "_")).increment(1);
        if reason == "throttled" {
            let guessing = Condition::new("sip::login::guessing", Severity::Warning, "phones");
            let cause = format!("too many wrong passwords, the last from {source}");
            self.node.alarms().raise(guessing.cause(cause).lasting(Duration::from_secs(300)));
        }
        if let Some(withheld) = self.refusals.lock().allow(tokio::time::Instant::now().into_std()) {
            tracing::warn!(account, address = %source, reason, withheld, "SIP authentication failed");
        }
    }

    async fn change(&self, command: RegistrationCommand, origin: Origin) -> Result<(), Answer> {
        let unavailable = || plain(503);
        let name = Address::new("sip/registrations").map_err(|_| unavailable())?;
        let registry = self.node.registry();
        let ledger = registry.lookup::<LedgerMsg<RegistrationsBook>>(&name).map_err(|_| unavailable())?;
        match ledger::change(&ledger, command, origin).await {
            Ok(()) => Ok(()),
            Err(LedgerError::Refused(refused)) => Err(match refused {
                Refused::Brief => (423, vec![(Name::MinExpires, MIN_EXPIRES.to_string())]),
                Refused::Star => warned(400, &refused.to_string()),
                Refused::OutOfOrder => warned(500, &refused.to_string()),
                Refused::TooMany => warned(403, &refused.to_string()),
                Refused::Licence => (403, vec![(Name::Warning, format!("399 Elph \"{refused}\""))]),
            }),
            Err(e) => {
                tracing::error!(error = %e, "a registration was not kept");
                Err(unavailable())
            }
        }
    }

    /// The domain and interface that a REGISTER is for.
    pub(super) fn named(&self, request: &Message) -> Option<(String, String)> {
        let picture = self.estate.picture();
        let (realm, _) = picture.domain_named(Uri::parse(request.uri()).ok()?.host)?;
        let to = request.address(&Name::To)?;
        Some((realm.clone(), iface(&Uri::parse(&to.uri).ok()?, realm)))
    }

    /// A connection has closed that this interface has registered on.
    pub(super) fn closed(&self, (domain, iface): (String, String), flow: Flow) {
        let me = self.clone();
        let origin = Origin { who: iface.clone(), from: format!("sip {flow}") };
        let command = RegistrationCommand::Closed { domain, iface, received: flow.to_string() };
        actix::spawn(async move {
            // A failure is told in the log; the contact ends with its time.
            let _ = me.change(command, origin).await;
        });
    }

    /// 200 with all contacts and the time each has left.
    /// Contacts of an interface, with what they are reached over.
    pub(super) fn contacts_of(&self, (domain, iface): &(String, String)) -> Vec<domain::Registration> {
        let picture = self.estate.picture();
        let contacts = picture.registrations.get(domain).and_then(|all| all.get(iface));
        contacts.map(|c| c.to_vec()).unwrap_or_default()
    }

    fn registered(&self, request: &Message, domain: &str, iface: &str, now: DateTime<Utc>) -> Answer {
        let picture = self.estate.picture();
        let contacts = picture.registrations.get(domain).and_then(|all| all.get(iface)).cloned();
        let mut headers: Vec<(Name, String)> = contacts
            .iter()
            .flat_map(|c| c.iter())
            .filter(|r| r.expires > now)
            .map(|r| {
                let left = (r.expires - now).num_seconds().max(1);
                (Name::Contact, format!("<{}>;expires={left}", r.contact))
            })
            .collect();
        headers.extend(path(request).into_iter().map(|p| (Name::Path, p)));
        // Phones set their clocks by it.
        let wall = self.node.clock().now();
        headers.push((Name::Date, wall.format("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        (200, headers)
    }
}

/// Extensions the phone insists on (RFC 3261, 8.2.2.3).
pub(super) fn extensions(request: &Message) -> Result<(), Answer> {
    match crate::agent::unsupported(request) {
        None => Ok(()),
        Some(unknown) => Err((420, vec![(Name::Unsupported, unknown)])),
    }
}

/// The interface that a URI names in a domain; escapes in its user are undone (RFC 3261, 19.1.4).
pub(super) fn iface(uri: &Uri<'_>, realm: &str) -> String {
    format!("{}@{realm}", unescape(uri.user.unwrap_or_default()))
}

fn contacts(request: &Message) -> Result<Contacts, String> {
    let Some(all) = request.joined(&Name::Contact) else { return Ok(Contacts::Query) };
    let all = address::list(&all).map_err(|e| format!("Contact: {e}"))?;
    match all.as_slice() {
        [star] if star.uri == "*" => return Ok(Contacts::All),
        all if all.iter().any(|a| a.uri == "*") => return Err(Refused::Star.to_string()),
        _ => {}
    }
    let one = |a: &address::Address| {
        let uri = Uri::parse(&a.uri).map_err(|_| format!("Contact: {} is no URI", a.uri))?;
        let expires = a.parameter("expires").map(|e| e.parse().unwrap_or(registrar::DEFAULT_EXPIRES));
        // RFC 5626: the same instance over the same flow is the same contact, wherever it is now.
        let key = match a.parameter("+sip.instance") {
            Some(instance) => format!("{instance} {}", a.parameter("reg-id").unwrap_or_default()),
            None => {
                let port = uri.port.map(|p| format!(":{p}")).unwrap_or_default();
                format!("{}@{}{port}", uri.user.unwrap_or_default(), uri.host).to_lowercase()
            }
        };
        let (uri, q) = (a.uri.clone(), address::q_of(a.parameter("q")));
        Ok(ContactRequest { key, uri, q, ice: a.parameter("+sip.ice").is_some(), expires })
    };
    all.iter().map(one).collect::<Result<_, String>>().map(Contacts::These)
}

fn path(request: &Message) -> Vec<String> {
    request.all(&Name::Path).map(|p| p.to_string()).collect()
}

/// The answer to a request in somebody else's dialog.
pub(super) fn another_host() -> Answer {
    warned(403, "this dialog belongs to another host")
}

/// Longest name of a phone that is kept, characters.
const USER_AGENT: usize = 200;

pub(super) fn user_agent(request: &Message) -> String {
    let found = request.header(&Name::UserAgent).map_or("", |u| u);
    found.chars().filter(|c| !c.is_control()).take(USER_AGENT).collect()
}

fn elph_limit(picture: &Picture, domain: &str, now: DateTime<Utc>) -> u64 {
    let terms = picture.terms(now);
    picture.domains.get(domain).map_or(0, |d| d.elph_members(&terms))
}
