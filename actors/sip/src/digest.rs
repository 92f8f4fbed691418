//! Digest authentication of requests: RFC 7616 as RFC 8760 applies it to SIP, with MD5 (RFC 3261, 22.4) for older phones.
//!
//! Nonces are the node's own and carry their time and, sealed, the address they were made for; each is good for [`LIFETIME`],
//! and with `qop` each of its counts once. Times are the process's own: a step of the system's clock changes nothing.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac};
use kit::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::wire::{
    message::{Message, Name},
    uri::{Uri, unescape},
};

/// How long a nonce is taken.
const LIFETIME: Duration = Duration::from_secs(300);
/// Nonces of one user whose counts are remembered; with more, its oldest are stale. Other users are not concerned.
const REMEMBERED: usize = 64;
/// Users looked through at least before those without a live nonce are forgotten.
const SWEEP: usize = 1024;
/// Longest header looked at, bytes.
const LIMIT: usize = 4096;

/// Hash of an answer, the strongest first: challenges are offered in this order (RFC 8760, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Md5,
}

/// Which algorithms are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// Every phone knows it; some, such as baresip 1.0, give up when anything else is offered beside it.
    #[default]
    Md5,
    #[serde(rename = "sha-256")]
    Sha256,
    /// The strongest first.
    Both,
}

impl Offer {
    fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Md5 => &[Algorithm::Md5],
            Self::Sha256 => &[Algorithm::Sha256],
            Self::Both => &[Algorithm::Sha256, Algorithm::Md5],
        }
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// Lower-case hex, as answers hold it.
    fn hash(self, text: &str) -> String {
        match self {
            Self::Sha256 => hex(&Sha256::digest(text)),
            Self::Md5 => hex(&md5::Md5::digest(text)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The header says nothing that can be checked.
    #[error("malformed credentials: {0}")]
    Malformed(&'static str),
    /// Too old, not ours, or its count was used before: worth another challenge, marked stale.
    #[error("stale nonce")]
    Stale,
    /// Without the `qop` that was offered: worth another challenge.
    #[error("no qop")]
    NoQop,
    #[error("wrong name or password")]
    Wrong,
}

/// Parameters of an `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    parameters: HashMap<String, String>,
}

impl Credentials {
    /// Reads `Digest name=value, name="value", …`.
    pub fn parse(header: &str) -> Result<Self, Denied> {
        use Denied::Malformed;
        if header.len() > LIMIT {
            return Err(Malformed("too long"));
        }
        let header = header.trim_start();
        let rest = match header.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("digest ") => &header[7..],
            _ => return Err(Malformed("not Digest")),
        };
        let mut parameters = HashMap::new();
        let mut chars = rest.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_ascii_whitespace() || *c == ',').is_some() {}
            if chars.peek().is_none() {
                break;
            }
            let mut name = String::new();
            while let Some(c) = chars.next_if(|c| !matches!(c, '=' | ',' | '"') && !c.is_ascii_whitespace()) {
                name.push(c.to_ascii_lowercase());
            }
            while chars.next_if(char::is_ascii_whitespace).is_some() {}
            if name.is_empty() || chars.next() != Some('=') {
                return Err(Malformed("a parameter has no value"));
            }
            while chars.next_if(char::is_ascii_whitespace).is_some() {}
            let mut value = String::new();
            if chars.next_if_eq(&'"').is_some() {
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => value.extend(chars.next()),
                        Some(c) => value.push(c),
                        None => return Err(Malformed("a quote is not closed")),
                    }
                }
            } else {
                while let Some(c) = chars.next_if(|c| *c != ',' && !c.is_ascii_whitespace()) {
                    value.push(c);
                }
            }
            if parameters.insert(name, value).is_some() {
                return Err(Malformed("a parameter comes twice"));
            }
        }
        Ok(Self { parameters })
    }

    fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    pub fn username(&self) -> &str {
        self.get("username")
    }

    pub fn realm(&self) -> &str {
        self.get("realm")
    }
}

/// What we are known by at a neighbour.
#[derive(Debug, Clone)]
pub struct Login {
    pub name: String,
    pub password: Secret<String>,
}

impl Login {
    /// The header that answers a 401 or 407.
    pub fn proof(&self, challenge: &Message, method: &str, uri: &str, cnonce: u64) -> Option<(Name, String)> {
        let (asks, answers) = match challenge.code()? {
            401 => (Name::WwwAuthenticate, Name::Authorization),
            _ => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
        };
        let challenges = challenge.all(&asks).map(|c| &**c);
        Some((answers, self.answer(challenges, method, uri, cnonce)?))
    }

    /// The answer to a neighbour's challenges, to the strongest of them that we know.
    pub fn answer<'c>(
        &self,
        challenges: impl IntoIterator<Item = &'c str>,
        method: &str,
        uri: &str,
        cnonce: u64,
    ) -> Option<String> {
        let all: Vec<Credentials> =
            challenges.into_iter().filter_map(|c| Credentials::parse(c).ok()).collect();
        let (algorithm, c) = [Algorithm::Sha256, Algorithm::Md5].into_iter().find_map(|a| {
            let named = |c: &&Credentials| {
                let name = Some(c.get("algorithm")).filter(|n| !n.is_empty()).unwrap_or("MD5");
                a.name().eq_ignore_ascii_case(name)
            };
            Some((a, all.iter().find(named)?))
        })?;
        let (realm, nonce) = (c.get("realm"), c.get("nonce"));
        // What is quoted again must not end its quotes.
        if [realm, nonce, c.get("opaque"), &self.name, uri].iter().any(|t| t.contains(['"', '\\'])) {
            return None;
        }
        let ha1 = Secret::new(algorithm.hash(&format!("{}:{realm}:{}", self.name, self.password.expose())));
        let ha2 = algorithm.hash(&format!("{method}:{uri}"));
        let (middle, mut more) = match c.get("qop").split(',').any(|q| q.trim() == "auth") {
            true => (
                format!("00000001:{cnonce:016x}:auth:"),
                format!(", qop=auth, nc=00000001, cnonce=\"{cnonce:016x}\""),
            ),
            false if c.get("qop").is_empty() => (String::new(), String::new()),
            false => return None,
        };
        if !c.get("opaque").is_empty() {
            more.push_str(&format!(", opaque=\"{}\"", c.get("opaque")));
        }
        let response = algorithm.hash(&format!("{}:{nonce}:{middle}{ha2}", ha1.expose()));
        Some(format!(
            "Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={}{more}",
            self.name,
            algorithm.name()
        ))
    }
}

/// The nonces that one user has answered rightly.
#[derive(Default)]
struct Used {
    /// Of each nonce: its salt, when it was made, the highest count seen.
    nonces: Vec<([u8; 8], Duration, u32)>,
    /// Nonces made before are stale unless they are remembered.
    since: Duration,
}

impl Used {
    /// Uses a count up. Nonces whose time is over are forgotten, then the oldest beyond [`REMEMBERED`].
    fn take(&mut self, salt: [u8; 8], made: Duration, count: u32, now: Duration) -> Result<(), Denied> {
        if let Some((.., highest)) = self.nonces.iter_mut().find(|(s, ..)| *s == salt) {
            return match *highest >= count {
                true => Err(Denied::Stale),
                false => {
                    *highest = count;
                    Ok(())
                }
            };
        }
        if made <= self.since && self.since > Duration::ZERO {
            return Err(Denied::Stale);
        }
        self.nonces.retain(|(_, made, _)| *made + LIFETIME > now);
        if self.nonces.len() >= REMEMBERED
            && let Some(oldest) = (0..self.nonces.len()).min_by_key(|i| self.nonces[*i].1)
        {
            let (_, made, _) = self.nonces.swap_remove(oldest);
            self.since = self.since.max(made);
        }
        self.nonces.push((salt, made, count));
        Ok(())
    }
}

/// Makes challenges and checks what comes back.
pub struct Authenticator {
    key: [u8; 32],
    offer: Offer,
    start: Instant,
    /// By realm and name; only a right password makes an entry.
    used: HashMap<String, Used>,
    sweep: usize,
}

/// The request that credentials have to fit.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'c> {
    pub realm: &'c str,
    pub method: &'c str,
    /// The Request-URI.
    pub uri: &'c str,
    /// Where the request came from.
    pub source: IpAddr,
    pub qop: bool,
    pub now: Instant,
}

impl Authenticator {
    /// `key` is secret and lives as long as the process.
    pub fn new(key: [u8; 32], offer: Offer, start: Instant) -> Self {
        Self { key, offer, start, used: HashMap::new(), sweep: SWEEP }
    }

    fn seal(&self, realm: &str, source: IpAddr, time: &[u8], salt: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        // HMAC takes keys of any length.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) {
            mac.update(time);
            mac.update(salt);
            mac.update(&source.to_canonical().to_string().into_bytes());
            mac.update(b" ");
            mac.update(realm.as_bytes());
            short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        short
    }

    /// Values for `WWW-Authenticate`, one an algorithm. `salt` is random and fresh.
    pub fn challenges(
        &self,
        realm: &str,
        source: IpAddr,
        now: Instant,
        salt: [u8; 8],
        qop: bool,
        stale: bool,
    ) -> Vec<String> {
        let time = (now.saturating_duration_since(self.start).as_millis() as u64).to_be_bytes();
        let seal = self.seal(realm, source, &time, &salt);
        let nonce = hex(&[&time[..], &salt, &seal].concat());
        let qop = if qop { ", qop=\"auth\"" } else { "" };
        let stale = if stale { ", stale=true" } else { "" };
        let one = |a: &Algorithm| {
            format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={}{qop}{stale}", a.name())
        };
        self.offer.algorithms().iter().map(one).collect()
    }

    /// Checks the answer to a challenge of ours. `password` is that of the user named; without one, for a user that is not
    /// known, the same work ends in [`Denied::Wrong`] at best. The nonce is looked at first: nothing else is said to a sender
    /// that has not had one.
    pub fn check(
        &mut self,
        credentials: &Credentials,
        password: Option<&Secret<String>>,
        of: Checked<'_>,
    ) -> Result<(), Denied> {
        use Denied::{Malformed, NoQop, Stale, Wrong};
        let c = credentials;
        let Checked { realm, method, uri, source, qop, now } = of;
        if c.realm() != realm {
            return Err(Stale);
        }
        let (salt, made) = self.nonce(c.get("nonce"), realm, source, now).ok_or(Stale)?;
        let name = Some(c.get("algorithm")).filter(|n| !n.is_empty()).unwrap_or("MD5");
        let offered = self.offer.algorithms().iter().find(|a| a.name().eq_ignore_ascii_case(name));
        let algorithm = *offered.ok_or(Malformed("an algorithm that was not offered"))?;
        if !same_resource(c.get("uri"), uri) {
            return Err(Malformed("digest uri is not the Request-URI"));
        }
        let known = password.map_or("", |p| p.expose());
        let ha1 = Secret::new(algorithm.hash(&format!("{}:{realm}:{known}", c.username())));
        let ha2 = algorithm.hash(&format!("{method}:{}", c.get("uri")));
        let nonce = c.get("nonce");
        let counted = match (c.get("qop"), qop) {
            ("auth", true) => {
                let digits = c.get("nc");
                let fits = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let count = u32::from_str_radix(digits, 16).ok().filter(|n| fits && *n > 0);
                Some(count.ok_or(Malformed("nc is no count"))?)
            }
            ("", false) => None,
            ("", true) => return Err(NoQop),
            _ => return Err(Malformed("another qop than was offered")),
        };
        let wanted = match counted {
            Some(_) => {
                let (nc, cnonce) = (c.get("nc"), c.get("cnonce"));
                algorithm.hash(&format!("{}:{nonce}:{nc}:{cnonce}:auth:{ha2}", ha1.expose()))
            }
            None => algorithm.hash(&format!("{}:{nonce}:{ha2}", ha1.expose())),
        };
        let given = c.get("response").to_ascii_lowercase();
        let right = bool::from(wanted.as_bytes().ct_eq(given.as_bytes()));
        if !right || password.is_none() {
            return Err(Wrong);
        }
        // Only a sender that knows the password may use a count up. Without qop the nonce itself is good for one request.
        let count = counted.unwrap_or(u32::MAX);
        let now = now.saturating_duration_since(self.start);
        if self.used.len() >= self.sweep {
            self.used.retain(|_, u| u.nonces.iter().any(|(_, made, _)| *made + LIFETIME > now));
            self.sweep = (2 * self.used.len()).max(SWEEP);
        }
        let used = self.used.entry(format!("{realm} {}", c.username())).or_default();
        used.take(salt, made, count, now)
    }

    /// The salt of a nonce of ours that is still good, and when it was made.
    fn nonce(&self, nonce: &str, realm: &str, source: IpAddr, now: Instant) -> Option<([u8; 8], Duration)> {
        if nonce.len() != 64 || !nonce.is_ascii() {
            return None;
        }
        let bytes: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&nonce[2 * i..2 * i + 2], 16).ok()).collect::<Option<_>>()?;
        let (time, salt, seal) = (&bytes[..8], &bytes[8..16], &bytes[16..]);
        if !bool::from(self.seal(realm, source, time, salt).ct_eq(seal)) {
            return None;
        }
        let made = Duration::from_millis(u64::from_be_bytes(time.try_into().ok()?));
        let live = made + LIFETIME > now.saturating_duration_since(self.start);
        live.then_some((salt.try_into().ok()?, made))
    }
}

/// Whether the `uri` of credentials names what the request asks for (RFC 7616, 3.4.6). Proxies and phones add and drop ports
/// and parameters on the way; user and host must be the same. Some (SIPp) name the server by its address alone, whatever they
/// ask of it: that names no other resource.
fn same_resource(uri: &str, request_uri: &str) -> bool {
    let (Ok(one), Ok(other)) = (Uri::parse(uri), Uri::parse(request_uri)) else { return uri == request_uri };
    let user = |u: &Uri<'_>| u.user.map(unescape).unwrap_or_default();
    let server = one.user.is_none() && one.socket().is_some();
    server || one.host.eq_ignore_ascii_case(other.host) && user(&one) == user(&other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn made(key: u8, offer: Offer, now: Instant) -> Authenticator {
        Authenticator::new([key; 32], offer, now)
    }

    fn challenges(a: &Authenticator, now: Instant, salt: u64, qop: bool) -> Vec<String> {
        a.challenges("d", HOME, now, salt.to_be_bytes(), qop, false)
    }

    fn password() -> Secret<String> {
        Secret::new("parol".to_owned())
    }

    /// A phone's answer.
    fn answer(challenge: &str, algorithm: Algorithm, nc: Option<u32>, secret: &str) -> Credentials {
        let c = Credentials::parse(challenge).expect("a challenge");
        let nonce = c.get("nonce");
        let ha1 = algorithm.hash(&format!("100:d:{secret}"));
        let ha2 = algorithm.hash("REGISTER:sip:d");
        let (middle, rest) = match nc {
            Some(nc) => (format!("{nc:08x}:abc:auth:"), format!(", qop=auth, nc={nc:08x}, cnonce=\"abc\"")),
            None => (String::new(), String::new()),
        };
        let response = algorithm.hash(&format!("{ha1}:{nonce}:{middle}{ha2}"));
        let text = format!(
            "Digest username=\"100\", realm=\"d\", nonce=\"{nonce}\", uri=\"sip:d\", response=\"{response}\", algorithm={}{rest}",
            algorithm.name()
        );
        Credentials::parse(&text).expect("credentials")
    }

    fn check(a: &mut Authenticator, c: &Credentials, qop: bool, now: Instant) -> Result<(), Denied> {
        a.check(c, Some(&password()), checked(qop, now))
    }

    fn checked(qop: bool, now: Instant) -> Checked<'static> {
        Checked { realm: "d", method: "REGISTER", uri: "sip:d", source: HOME, qop, now }
    }

    #[test]
    fn the_vectors_of_rfc_7616_hold() {
        let ha1 = |a: Algorithm| a.hash("Mufasa:http-auth@example.org:Circle of Life");
        let ha2 = |a: Algorithm| a.hash("GET:/dir/index.html");
        let response = |a: Algorithm| {
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            a.hash(&format!("{}:{nonce}:00000001:{cnonce}:auth:{}", ha1(a), ha2(a)))
        };
        assert_eq!(response(Algorithm::Md5), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(
            response(Algorithm::Sha256),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    #[test]
    fn a_right_answer_counts_once_and_for_its_time() {
        for (i, algorithm) in Offer::Both.algorithms().iter().copied().enumerate() {
            let now = Instant::now();
            let mut a = made(1, Offer::Both, now);
            let challenge = challenges(&a, now, 2, true)[i].clone();
            let good = answer(&challenge, algorithm, Some(1), "parol");
            assert_eq!(
                check(&mut a, &answer(&challenge, algorithm, Some(1), "guess"), true, now),
                Err(Denied::Wrong)
            );
            assert_eq!(check(&mut a, &good, true, now), Ok(()));
            assert_eq!(check(&mut a, &good, true, now), Err(Denied::Stale), "a replay");
            let next = answer(&challenge, algorithm, Some(2), "parol");
            assert_eq!(check(&mut a, &next, true, now + LIFETIME), Err(Denied::Stale), "too late");
            assert_eq!(check(&mut a, &next, true, now), Ok(()));
            let other = challenges(&made(9, Offer::Both, now), now, 2, true)[i].clone();
            let foreign = answer(&other, algorithm, Some(3), "parol");
            assert_eq!(check(&mut a, &foreign, true, now), Err(Denied::Stale), "another node's nonce");
        }
    }

    #[test]
    fn without_qop_a_nonce_is_good_once_and_qop_cannot_be_talked_away() {
        let now = Instant::now();
        let mut a = made(1, Offer::Both, now);
        let challenge = challenges(&a, now, 2, false)[0].clone();
        let plain = answer(&challenge, Algorithm::Sha256, None, "parol");
        assert_eq!(check(&mut a, &plain, true, now), Err(Denied::NoQop), "another challenge");
        assert_eq!(check(&mut a, &plain, false, now), Ok(()));
        assert_eq!(check(&mut a, &plain, false, now), Err(Denied::Stale));
    }

    #[test]
    fn our_own_answer_is_taken_and_is_to_the_strongest() {
        for (offer, qop) in [(Offer::Md5, true), (Offer::Sha256, false), (Offer::Both, true)] {
            let now = Instant::now();
            let mut a = made(1, offer, now);
            let challenges = challenges(&a, now, 2, qop);
            let login = Login { name: "100".into(), password: password() };
            let answer = login.answer(challenges.iter().map(String::as_str), "REGISTER", "sip:d", 7);
            let answer = answer.expect("one we know");
            assert_eq!(answer.contains("SHA-256"), offer != Offer::Md5);
            let credentials = Credentials::parse(&answer).expect("credentials");
            assert_eq!(check(&mut a, &credentials, qop, now), Ok(()));
            assert!(
                login
                    .answer(["Digest realm=\"d\", nonce=\"1\", algorithm=SHA-512-256"], "A", "b", 7)
                    .is_none()
            );
        }
    }

    #[test]
    fn only_what_was_offered_is_taken() {
        let now = Instant::now();
        let challenge = challenges(&made(1, Offer::Both, now), now, 2, true);
        let md5 = answer(&challenge[1], Algorithm::Md5, Some(1), "parol");
        let mut strict = made(1, Offer::Sha256, now);
        assert_eq!(challenges(&strict, now, 2, true).len(), 1);
        assert!(matches!(check(&mut strict, &md5, true, now), Err(Denied::Malformed(_))));
        assert_eq!(check(&mut made(1, Offer::Md5, now), &md5, true, now), Ok(()));
    }

    #[test]
    fn headers_are_read_as_phones_write_them() {
        let c = Credentials::parse("digest  username = \"a\\\"b, c\",REALM=d ,nc=00000001").expect("good");
        assert_eq!((c.username(), c.realm(), c.get("nc")), ("a\"b, c", "d", "00000001"));
        for bad in ["Basic x", "Digest a", "Digest a=\"x", "Digest a=1, a=2", "Digest =x"] {
            assert!(Credentials::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_user_with_many_nonces_makes_only_its_own_stale() {
        let now = Instant::now();
        let mut a = made(1, Offer::Md5, now);
        let at = |n: u64| now + Duration::from_millis(n);
        let first = challenges(&a, at(1), 1, true)[0].clone();
        for n in 1..=1000 {
            let c = challenges(&a, at(n), n, true)[0].clone();
            assert_eq!(
                check(&mut a, &answer(&c, Algorithm::Md5, Some(1), "parol"), true, at(n)),
                Ok(()),
                "{n}"
            );
        }
        assert!(a.used.values().all(|u| u.nonces.len() <= REMEMBERED), "bounded by user");
        for nc in [1, 2] {
            let again = answer(&first, Algorithm::Md5, Some(nc), "parol");
            assert_eq!(
                check(&mut a, &again, true, at(1000)),
                Err(Denied::Stale),
                "forgotten is not forgiven"
            );
        }
        // Another user answers an old nonce of its own.
        let other = challenges(&a, at(2), 77, true)[0].clone();
        let used = Used::default().take([7; 8], at(2) - now, 1, at(1000) - now);
        assert_eq!(used, Ok(()));
        assert_eq!(
            a.nonce(Credentials::parse(&other).expect("one").get("nonce"), "d", HOME, at(1000)).map(|n| n.1),
            Some(Duration::from_millis(2))
        );
    }

    #[test]
    fn a_nonce_is_good_at_the_address_it_was_made_for() {
        let now = Instant::now();
        let mut a = made(1, Offer::Md5, now);
        let c = challenges(&a, now, 1, true)[0].clone();
        let good = answer(&c, Algorithm::Md5, Some(1), "parol");
        let elsewhere = Checked { source: IpAddr::from([10, 0, 0, 1]), ..checked(true, now) };
        assert_eq!(a.check(&good, Some(&password()), elsewhere), Err(Denied::Stale));
        let mapped =
            Checked { source: "::ffff:127.0.0.1".parse().expect("an address"), ..checked(true, now) };
        assert_eq!(a.check(&good, Some(&password()), mapped), Ok(()), "the same address as IPv6 writes it");
    }

    #[test]
    fn an_unknown_user_and_another_uri_are_refused_after_the_nonce() {
        let now = Instant::now();
        let mut a = made(1, Offer::Md5, now);
        let c = challenges(&a, now, 1, true)[0].clone();
        let good = answer(&c, Algorithm::Md5, Some(1), "parol");
        assert_eq!(a.check(&good, None, checked(true, now)), Err(Denied::Wrong));
        // Even with the password that stands for none.
        assert_eq!(
            a.check(&answer(&c, Algorithm::Md5, Some(1), ""), None, checked(true, now)),
            Err(Denied::Wrong)
        );
        let call = Checked { uri: "sip:900@d", ..checked(true, now) };
        assert!(matches!(a.check(&good, Some(&password()), call), Err(Denied::Malformed(_))));
        let forged = "Digest username=\"x\", realm=\"d\", nonce=\"00\", uri=\"sip:d\", response=\"0\"";
        let forged = Credentials::parse(forged).expect("credentials");
        for password in [None, Some(&password())] {
            assert_eq!(a.check(&forged, password, checked(true, now)), Err(Denied::Stale));
        }
        assert!(same_resource("sip:%31%30@D:5060;transport=udp", "sip:10@d"));
        assert!(same_resource("sip:192.0.2.1:5060", "sip:900@d"), "the server, as SIPp names it");
        assert!(!same_resource("sip:d", "sip:900@d") && !same_resource("sip:1@192.0.2.1", "sip:2@192.0.2.1"));
        assert!(!same_resource("sip:10@d", "sip:11@d") && !same_resource("sip:10@d", "sip:10@e"));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "(Digest )?\\PC{0,80}") {
            if let Ok(c) = Credentials::parse(&text) {
                let now = Instant::now();
            let mut a = made(1, Offer::Both, now);
                prop_assert!(check(&mut a, &c, true, now).is_err());
            }
        }
    }
}
