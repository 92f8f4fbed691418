//! INVITE: who calls, from where, and what it is that the call is told.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use call::{Incoming, LegId, Origin, Outgoing, Party, Target};
use domain::{
    Picture, Registration,
    state::{DomainState, Trunk, TrunkKind},
};
use imbl::OrdMap;
use ipnet::IpNet;
use kit::Vault;

use super::{
    register::{Answer, Registrar, iface, user_agent, warned},
    uplinks::login,
};
use crate::{
    agent::{MIN_SE, Offers, Owner, Way, session_too_short},
    health::TrunksHealth,
    transaction::{Flow, Transport},
    wire::{
        address, body,
        message::{Message, Name},
        uri::{Uri, escape_user, unescape, without_headers},
    },
};

/// Trunks by the address their calls come from. It is made anew when the domains have changed.
#[derive(Default)]
pub(super) struct Trunks {
    of: OrdMap<String, std::sync::Arc<DomainState>>,
    by_peer: HashMap<IpAddr, Vec<Neighbour>>,
    /// Networks that trunks allow.
    allowed: Vec<(IpNet, String, String)>,
    /// Addresses of neighbours named by host names.
    resolved: HashMap<Sought, Vec<SocketAddr>>,
    /// Which of its addresses a trunk's neighbour is called at.
    turns: HashMap<(String, String), usize>,
}

/// A trunk as its neighbour's address finds it.
#[derive(Debug, Clone)]
struct Neighbour {
    port: u16,
    /// The trunk names the address itself, not a host that was looked up.
    literal: bool,
    domain: String,
    trunk: String,
}

/// How a trunk's neighbour is spoken to (property `transport`).
pub(super) fn transport(trunk: &Trunk) -> Transport {
    match trunk.property("transport") {
        Some("tcp") => Transport::Tcp,
        Some("tls") => Transport::Tls,
        _ => Transport::Udp,
    }
}

/// A neighbour that is to be looked up: host, port (0: its servers are asked for) and transport.
pub(super) type Sought = (String, u16, Transport);

fn sought(trunk: &Trunk) -> Sought {
    let TrunkKind::Static { host, port } = &trunk.kind;
    (host.clone(), *port, transport(trunk))
}

/// Networks that a neighbour calls from beside its own address (property `allow`).
fn allowed(trunk: &Trunk) -> impl Iterator<Item = IpNet> {
    let text = trunk.property("allow").unwrap_or_default();
    text.split(',').filter_map(|n| kit::net::network(n.trim()))
}

impl Trunks {
    fn refresh(&mut self, picture: &Picture) {
        if self.of.ptr_eq(&picture.domains) {
            return;
        }
        self.of = picture.domains.clone();
        self.by_peer.clear();
        self.allowed.clear();
        for (domain, state) in &self.of {
            for trunk in state.trunks.values() {
                let TrunkKind::Static { host, .. } = &trunk.kind;
                let literal = host.parse::<IpAddr>().is_ok();
                for address in self.addresses(trunk) {
                    let (domain, trunk) = (domain.clone(), trunk.name.clone());
                    let neighbour = Neighbour { port: address.port(), literal, domain, trunk };
                    self.by_peer.entry(address.ip()).or_default().push(neighbour);
                }
                self.allowed.extend(allowed(trunk).map(|net| (net, domain.clone(), trunk.name.clone())));
            }
        }
    }

    /// All addresses of a trunk's neighbour.
    fn addresses(&self, trunk: &Trunk) -> Vec<SocketAddr> {
        let (host, port, transport) = sought(trunk);
        match host.parse::<IpAddr>() {
            Ok(ip) => {
                let usual = if transport == Transport::Tls { 5061 } else { 5060 };
                vec![SocketAddr::new(ip, if port == 0 { usual } else { port })]
            }
            Err(_) => self.resolved.get(&(host, port, transport)).cloned().unwrap_or_default(),
        }
    }

    /// The name that the neighbour at an address has to prove over TLS.
    pub fn name_of(&self, picture: &Picture, peer: SocketAddr) -> Option<String> {
        let trunks = picture.domains.values().flat_map(|d| d.trunks.values());
        let mut over_tls = trunks.filter(|t| transport(t) == Transport::Tls);
        over_tls.find(|t| self.addresses(t).contains(&peer)).map(|t| sought(t).0)
    }

    /// The next address of a neighbour that has several: the one so far does not do.
    pub fn turn(&mut self, domain: &str, trunk: &str) {
        *self.turns.entry((domain.to_owned(), trunk.to_owned())).or_default() += 1;
    }

    /// The trunk a request comes from: by address and port, else by the address alone. Where trunks of several domains have
    /// the neighbour, `host` decides, the domain that the Request-URI names; a domain cannot take another's calls by
    /// declaring its neighbour, and a host name cannot take those of an address.
    pub fn from(
        &mut self,
        picture: &Picture,
        peer: SocketAddr,
        host: Option<&str>,
    ) -> Option<(String, String)> {
        self.refresh(picture);
        // Calls for another domain of ours are no trunk's of this one: phones may live at an address that somebody declares.
        let named = host.and_then(|h| picture.domain_named(h)).map(|(domain, _)| domain.as_str());
        let meant = |domain: &str| named.is_none_or(|n| n == domain);
        let all = self.by_peer.get(&peer.ip().to_canonical());
        let all: Vec<&Neighbour> = all.into_iter().flatten().collect();
        let mut fitting: Vec<&Neighbour> = all.iter().copied().filter(|n| n.port == peer.port()).collect();
        if fitting.is_empty() && !peer.ip().is_loopback() {
            fitting = all;
        }
        if fitting.is_empty() {
            return self.allows(peer, host, named);
        }
        if fitting.iter().any(|n| n.literal) {
            fitting.retain(|n| n.literal);
        }
        fitting.retain(|n| meant(&n.domain));
        let Some(first) = fitting.first().copied() else { return self.allows(peer, host, named) };
        if fitting.iter().any(|n| n.domain != first.domain) {
            let named = fitting.iter().find(|n| host.is_some_and(|h| n.domain.eq_ignore_ascii_case(h)));
            if named.is_none() {
                metrics::counter!("hypha_sip_refused_total", "reason" => "trunk_ambiguous").increment(1);
                tracing::warn!(%peer, "trunks of several domains have this neighbour, and the Request-URI names none of them");
            }
            return named.map(|n| (n.domain.clone(), n.trunk.clone()));
        }
        Some((first.domain.clone(), first.trunk.clone()))
    }

    /// The trunk that allows calls from an address; where trunks of several domains do, the one of the domain that is named.
    fn allows(&self, peer: SocketAddr, host: Option<&str>, named: Option<&str>) -> Option<(String, String)> {
        let ip = peer.ip().to_canonical();
        let meant = |domain: &str| named.is_none_or(|n| n == domain);
        let mut all = self.allowed.iter().filter(|(net, domain, _)| net.contains(&ip) && meant(domain));
        let first = all.clone().next()?;
        let chosen = match all.clone().any(|(_, domain, _)| *domain != first.1) {
            false => first,
            true => all.find(|(_, domain, _)| host.is_some_and(|h| domain.eq_ignore_ascii_case(h)))?,
        };
        Some((chosen.1.clone(), chosen.2.clone()))
    }

    /// A trunk as the peer of a leg.
    pub fn owner(&self, picture: &Picture, domain: &str, trunk: &str) -> Owner {
        let known = picture.domains.get(domain).and_then(|d| d.trunks.get(trunk));
        let all = known.into_iter().flat_map(|t| {
            let own = self.addresses(t).into_iter().map(|a| IpNet::from(a.ip().to_canonical()));
            own.chain(allowed(t)).collect::<Vec<_>>()
        });
        Owner::Trunk(domain.to_owned(), trunk.to_owned(), all.collect())
    }

    /// Where a trunk's calls go.
    pub fn peer(&self, picture: &Picture, domain: &str, trunk: &str) -> Option<Flow> {
        let known = picture.domains.get(domain)?.trunks.get(trunk)?;
        let all = self.addresses(known);
        let turn = self.turns.get(&(domain.to_owned(), trunk.to_owned())).copied().unwrap_or(0);
        let peer = *all.get(turn.checked_rem(all.len())?)?;
        Some(Flow { transport: transport(known), peer, connection: 0 })
    }

    /// To a number behind a trunk.
    pub fn way(
        &self,
        picture: &Picture,
        vault: &dyn Vault,
        domain: &str,
        trunk: &str,
        to: &Party,
    ) -> Option<Way> {
        let flow = self.peer(picture, domain, trunk)?;
        let login = picture.domains.get(domain)?.trunks.get(trunk).and_then(|t| login(vault, domain, t));
        let follows = !behind_nat(picture, domain, trunk);
        let plus = if to.international { "+" } else { "" };
        Some(Way {
            flow,
            uri: format!("sip:{plus}{}@{}{}", escape_user(&to.number), flow.peer, flow.parameter()),
            routes: Vec::new(),
            trusted: true,
            follows,
            login,
            offers: Offers::default(),
            doubtful: false,
        })
    }

    /// What names were found to be; a name that cannot be found now keeps what it was.
    pub fn resolve(&mut self, found: HashMap<Sought, Vec<SocketAddr>>) {
        let before = self.resolved.clone();
        self.resolved.extend(found);
        if self.resolved != before {
            self.of = OrdMap::new();
        }
    }

    /// Neighbours whose names are to be looked up.
    pub fn names(&self, picture: &Picture) -> Vec<Sought> {
        let all = picture.domains.values().flat_map(|d| d.trunks.values()).map(sought);
        let names: std::collections::BTreeSet<Sought> =
            all.filter(|(h, ..)| h.parse::<IpAddr>().is_err()).collect();
        names.into_iter().collect()
    }
}

/// Whether a trunk's neighbour is behind a NAT (property `nat_traversal`): addresses that it tells of itself are not reached.
pub(super) fn behind_nat(picture: &Picture, domain: &str, trunk: &str) -> bool {
    let trunk = picture.domains.get(domain).and_then(|d| d.trunks.get(trunk));
    trunk.is_some_and(|t| t.property("nat_traversal") == Some("true"))
}

/// Every trunk, by its domain and name.
pub(super) fn trunks(picture: &Picture) -> impl Iterator<Item = (String, String)> {
    picture.domains.iter().flat_map(|(d, s)| s.trunks.keys().map(move |t| (d.clone(), t.clone())))
}

/// What a call is told of an INVITE, or the answer that refuses it.
pub(super) fn incoming(
    registrar: &Registrar,
    trunks: &mut Trunks,
    request: &Message,
    flow: Flow,
    leg: LegId,
    replaces: Option<LegId>,
) -> Result<Incoming, Answer> {
    let picture = registrar.estate.picture();
    let bad = |text: &str| warned(400, text);
    let uri = Uri::parse(request.uri()).map_err(|_| bad("the Request-URI is no URI"))?;
    let from = request.address(&Name::From).ok_or_else(|| bad("From is no address"))?;
    let from_uri = Uri::parse(&from.uri).map_err(|_| bad("From is no URI"))?;
    let not_taken = || (415, vec![(Name::Accept, body::ACCEPT.to_owned())]);
    let sdp = body::session(request).map_err(|_| not_taken())?;
    if request.header(&Name::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case("identity")) {
        return Err(not_taken());
    }
    let dialled = dialled(&uri);
    if dialled.chars().chain(from_uri.number().chars()).any(kit::text::acts) {
        return Err(bad("a number holds characters that are none"));
    }
    if dialled.is_empty() {
        return Err(warned(484, "nobody is called"));
    }
    let restricted = request
        .header(&Name::Privacy)
        .is_some_and(|p| p.split(';').any(|v| matches!(v.trim(), "id" | "user" | "header")));
    let by_address = trunks.from(&picture, flow.peer, Some(uri.host));
    let by_address =
        by_address.filter(|(domain, _)| !lives_there(&picture, &from_uri, domain, flow.peer.ip()));
    let known = match by_address {
        Some(known) => Some(known),
        // A neighbour that calls from anywhere proves who it is.
        None => registrar.trunk(&picture, request, flow, &[from_uri.host, uri.host])?,
    };
    let (domain, origin, from) = match known {
        Some((domain, trunk)) => {
            // A trusted neighbour's assertion is better than what From shows.
            let shown = request.address(&Name::AssertedIdentity).unwrap_or(from);
            let shown_uri = Uri::parse(&shown.uri);
            let number = shown_uri.as_ref().map(digits).unwrap_or_default();
            let international = shown_uri.as_ref().is_ok_and(is_international);
            let party = Party { number, name: shown.name, restricted, international };
            (domain, Origin::Trunk { name: trunk }, party)
        }
        None => {
            let strangers = "calls come from subscribers and from trunks";
            let (realm, _, user) = registrar.subscriber(&picture, request, flow, &from_uri, strangers)?;
            let (realm, iface) = (realm.to_owned(), user.iface.clone());
            if uri.is_sip() && picture.domain_named(uri.host).is_some_and(|(other, _)| *other != realm) {
                return Err(warned(404, "another domain is reached by its numbers, over a bridge"));
            }
            let party =
                Party { number: from_uri.number(), name: from.name, restricted, international: false };
            (realm, Origin::Subscriber { iface }, party)
        }
    };
    if session_too_short(request) {
        return Err((422, vec![(Name::MinSe, MIN_SE.to_string())]));
    }
    let history = request.all(&Name::HistoryInfo).filter_map(|v| address::list(v).ok()).flatten();
    let history = history.filter_map(|a| Uri::parse(&a.uri).ok().map(|u| u.number())).collect();
    let contact = request.address(&Name::Contact);
    Ok(Incoming {
        leg,
        domain,
        origin,
        from,
        dialled,
        international: is_international(&uri),
        sdp,
        max_forwards: request.header(&Name::MaxForwards).and_then(|m| m.parse().ok()).unwrap_or(70),
        history,
        uui: request.header(&Name::UserToUser).map(|u| u.to_string()),
        ice: contact.is_some_and(|c| c.parameter("+sip.ice").is_some()),
        reliable: request.lists(&Name::Require, "100rel"),
        replaces,
        user_agent: user_agent(request),
        peer: Some(flow.peer.ip()),
    })
}

/// Whether `From` names a subscriber of another domain whose phone has registered from that address: its calls are no trunk's,
/// whoever has declared the address.
fn lives_there(picture: &Picture, from: &Uri<'_>, domain: &str, source: IpAddr) -> bool {
    let Some((realm, _)) = picture.domain_named(from.host).filter(|(realm, _)| *realm != domain) else {
        return false;
    };
    let contacts = picture.registrations.get(realm).and_then(|all| all.get(&iface(from, realm)));
    let there = |r: &Registration| r.peer().is_some_and(|ip| ip.to_canonical() == source.to_canonical());
    contacts.is_some_and(|all| all.iter().any(there))
}

/// Digits dialled. What is no number stays as it is: it reaches nobody, and routing says so.
pub(super) fn dialled(uri: &Uri<'_>) -> String {
    Some(digits(uri)).filter(|d| !d.is_empty()).unwrap_or_else(|| uri.number())
}

/// Whether a URI's number is written with a plus (E.164).
fn is_international(uri: &Uri<'_>) -> bool {
    uri.number().strip_prefix('+').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The number of a URI as routing takes it: without the plus of an international one; nothing for a name.
fn digits(uri: &Uri<'_>) -> String {
    let number = uri.number();
    let number = number.strip_prefix('+').unwrap_or(&number);
    let digit = |c: char| c.is_ascii_digit() || "*#ABCD".contains(c);
    if number.chars().all(digit) { number.to_owned() } else { String::new() }
}

/// A property of the profile that a subscriber's phone has (`sip/user/profile/set`).
pub(super) fn property<'p>(picture: &'p Picture, domain: &str, iface: &str, name: &str) -> Option<&'p str> {
    let state = picture.domains.get(domain)?;
    let profile = state.profiles.get(state.users.get(iface)?.properties.get("client-profile")?)?;
    profile.get(name).map(String::as_str)
}

/// Whether the phone that a request comes from, as its `From` says, has a profile with `rport`; looked at only where the
/// request itself does not ask for it.
pub(super) fn is_symmetric(picture: &Picture, message: &Message) -> bool {
    if message.via().is_none_or(|v| v.parameter("rport").is_some()) {
        return false;
    }
    let Some(from) = message.address(&Name::From) else { return false };
    let Ok(uri) = Uri::parse(&from.uri) else { return false };
    let Some((realm, _)) = picture.domain_named(uri.host) else { return false };
    let iface = format!("{}@{realm}", unescape(uri.user.unwrap_or_default()));
    property(picture, realm, &iface, "rport") == Some("true")
}

/// How a target is reached.
pub(super) fn way(
    trunks: &Trunks,
    health: &TrunksHealth,
    picture: &Picture,
    vault: &dyn Vault,
    out: &Outgoing,
) -> Option<Way> {
    match &out.target {
        Target::Contact { domain, iface, contact } => {
            let way = to_contact(contact)?;
            let off = |name: &str| property(picture, domain, iface, name).is_some_and(|v| v == "false");
            let offers = Offers { timers: !off("session_timers"), reliable: !off("reliable_provisional") };
            Some(Way { offers, ..way })
        }
        Target::Trunk { domain, trunk, .. } => {
            let way = trunks.way(picture, vault, domain, trunk, &out.to)?;
            Some(Way { doubtful: health.is_down(domain, trunk), ..way })
        }
    }
}

/// To a phone, back the way its registration came.
pub(super) fn to_contact(contact: &Registration) -> Option<Way> {
    let flow = contact.received.parse().ok()?;
    Some(Way {
        flow,
        uri: without_headers(&contact.contact).to_owned(),
        routes: contact.path.clone(),
        trusted: false,
        follows: false,
        login: None,
        offers: Offers::default(),
        doubtful: false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::state::{DomainEvent, Trunk};
    use kit::journal::Fold;

    use super::*;

    fn estate(trunks: &[(&str, &str, u16)]) -> Picture {
        let mut picture = Picture::default();
        for (domain, host, port) in trunks {
            let mut state = picture.domains.get(*domain).map(|d| (**d).clone()).unwrap_or_default();
            let trunk = Trunk {
                name: format!("to-{host}"),
                context: "in".into(),
                group: "g".into(),
                ip_set: String::new(),
                kind: TrunkKind::Static { host: (*host).into(), port: *port },
                listen_port: 5060,
                properties: OrdMap::new(),
            };
            state.apply(&DomainEvent::TrunkDeclared { trunk });
            picture.domains.insert((*domain).into(), Arc::new(state));
        }
        picture
    }

    #[test]
    fn a_neighbour_of_two_domains_is_told_apart_by_the_domain_that_is_called() {
        // aaa.test comes first by name, and has declared the provider of other.test too.
        let picture = estate(&[
            ("other.test", "192.0.2.10", 5060),
            ("aaa.test", "192.0.2.10", 5060),
            ("bbb.test", "trap.example", 5060),
        ]);
        let mut trunks = Trunks::default();
        let sought = ("trap.example".to_owned(), 5060, Transport::Udp);
        trunks.resolve([(sought, vec![SocketAddr::from(([192, 0, 2, 10], 5060))])].into());
        let from = |trunks: &mut Trunks, port: u16, host: Option<&str>| {
            let peer = SocketAddr::from(([192, 0, 2, 10], port));
            trunks.from(&picture, peer, host).map(|(domain, _)| domain)
        };
        for port in [5060, 40_000] {
            assert_eq!(from(&mut trunks, port, Some("OTHER.test")).as_deref(), Some("other.test"));
            assert_eq!(from(&mut trunks, port, Some("192.0.2.1")), None, "it names neither");
            assert_eq!(
                from(&mut trunks, port, Some("bbb.test")),
                None,
                "a host name takes no address's calls"
            );
        }
        // Its phones live behind an address that another domain has declared.
        let declared = estate(&[("evil.test", "192.0.2.10", 5060), ("voip.test", "192.0.2.77", 5060)]);
        let peer = SocketAddr::from(([192, 0, 2, 10], 5060));
        assert_eq!(Trunks::default().from(&declared, peer, Some("voip.test")), None);
        let alone = estate(&[("other.test", "192.0.2.10", 5060)]);
        let peer = SocketAddr::from(([192, 0, 2, 10], 40_000));
        assert_eq!(
            Trunks::default().from(&alone, peer, Some("192.0.2.1")).map(|t| t.0).as_deref(),
            Some("other.test")
        );
    }
}
