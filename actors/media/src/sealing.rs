//! How the packets of a leg are sealed, as session descriptions say it: not at all, with keys in the description
//! (RFC 4568), or with keys of a DTLS handshake (RFC 5763) behind ICE (RFC 8839).

use std::{fmt::Write, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use kit::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A way to seal packets with a key from the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    Tag80,
    Tag32,
}

impl Suite {
    const ALL: [(Self, &str); 2] =
        [(Self::Tag80, "AES_CM_128_HMAC_SHA1_80"), (Self::Tag32, "AES_CM_128_HMAC_SHA1_32")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(s, _)| *s == self).map_or("", |(_, n)| n)
    }
}

/// Bytes of a key and its salt.
pub const KEY: usize = 16;
pub const SALT: usize = 14;

/// A key of one direction.
#[derive(Debug, Clone)]
pub struct Key {
    pub tag: u32,
    pub suite: Suite,
    /// Key and salt.
    pub master: Secret<Vec<u8>>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && bool::from(self.master.expose().ct_eq(other.master.expose()))
    }
}

impl Eq for Key {}

impl Key {
    pub fn random(tag: u32, suite: Suite) -> Self {
        let bytes: [u8; KEY + SALT] = rand::random();
        Self { tag, suite, master: Secret::new(bytes.to_vec()) }
    }

    /// Reads the value of `a=crypto`; none for what we cannot do.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split_ascii_whitespace();
        let tag = parts.next()?.parse().ok()?;
        let suite = parts.next()?;
        let suite = Suite::ALL.iter().find(|(_, n)| n.eq_ignore_ascii_case(suite))?.0;
        let mut key = parts.next()?.strip_prefix("inline:")?.split('|');
        let master = Secret::new(STANDARD.decode(key.next()?).ok()?);
        // Master key identifiers would be in every packet; session parameters change how packets are sealed.
        let plain = master.expose().len() == KEY + SALT && !key.any(|p| p.contains(':'));
        (plain && parts.next().is_none()).then_some(Self { tag, suite, master })
    }

    pub fn write(&self, sdp: &mut String) {
        let key = Secret::new(STANDARD.encode(self.master.expose()));
        // Writing to memory does not fail.
        let _ = write!(sdp, "a=crypto:{} {} inline:{}\r\n", self.tag, self.suite.name(), key.expose());
    }
}

/// Who begins the DTLS handshake (RFC 4145).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    Active,
    Passive,
    /// Either; the answerer chooses.
    Actpass,
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Actpass => "actpass",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Passive, Self::Actpass].into_iter().find(|s| s.name() == text)
    }
}

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// A side of ICE.
#[derive(Debug, Clone)]
pub struct Ice {
    pub ufrag: String,
    pub password: Secret<String>,
}

impl PartialEq for Ice {
    fn eq(&self, other: &Self) -> bool {
        let same = self.password.expose().as_bytes().ct_eq(other.password.expose().as_bytes());
        self.ufrag == other.ufrag && bool::from(same)
    }
}

impl Eq for Ice {}

/// What the peer says of its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    pub fingerprint: Fingerprint,
    pub setup: Setup,
    pub ice: Option<Ice>,
}

/// How the peer's packets are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealing {
    Open,
    /// One in an answer; those it would take in an offer.
    Keys(Vec<Key>),
    Handshake(Box<Handshake>),
}

impl Sealing {
    /// Reads it; `attribute` gives the values of an attribute, the media's before the session's.
    pub fn parse<'s>(proto: &str, attribute: impl Fn(&str) -> Vec<&'s str>) -> Option<Self> {
        match proto {
            "RTP/AVP" | "RTP/AVPF" => Some(Self::Open),
            "RTP/SAVP" | "RTP/SAVPF" if !attribute("crypto").is_empty() => {
                let keys: Vec<Key> = attribute("crypto").into_iter().filter_map(Key::parse).take(8).collect();
                (!keys.is_empty()).then_some(Self::Keys(keys))
            }
            "RTP/SAVP" | "RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF" => {
                let fingerprint = attribute("fingerprint").into_iter().find_map(fingerprint)?;
                let setup =
                    attribute("setup").first().and_then(|s| Setup::parse(s)).unwrap_or(Setup::Actpass);
                let first = |name: &str| attribute(name).first().map(|v| (*v).to_owned());
                let ice = first("ice-ufrag")
                    .zip(first("ice-pwd"))
                    .map(|(ufrag, password)| Ice { ufrag, password: Secret::new(password) });
                Some(Self::Handshake(Box::new(Handshake { fingerprint, setup, ice })))
            }
            _ => None,
        }
    }
}

fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, bytes) = value.trim().split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let bytes: Vec<u8> =
        bytes.trim().split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// The certificate this node shows in handshakes. It is made at each start: peers know it by the fingerprint in the
/// description alone.
pub struct Identity {
    pub certificate: dimpl::DtlsCertificate,
    pub fingerprint: Fingerprint,
    pub dtls: Arc<dimpl::Config>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("its settings: {0}")]
    Settings(#[from] dimpl::Error),
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub fn new() -> Result<Self, IdentityError> {
        let made = rcgen::generate_simple_self_signed(["hypha".to_owned()])?;
        let certificate = made.cert.der().to_vec();
        let fingerprint = Sha256::digest(&certificate).into();
        let certificate =
            dimpl::DtlsCertificate { certificate, private_key: made.signing_key.serialize_der() };
        let dtls = Arc::new(dimpl::Config::builder().build()?);
        Ok(Self { certificate, fingerprint, dtls })
    }
}

/// Our side of a leg.
#[derive(Debug, Clone)]
pub enum Ours {
    Open,
    Key(Key),
    Handshake { ice: Ice, identity: Arc<Identity>, setup: Setup },
}

impl Ours {
    pub fn handshake(identity: Arc<Identity>) -> Self {
        let creds = is::IceCreds::new();
        let ice = Ice { ufrag: creds.ufrag, password: Secret::new(creds.pass) };
        Self::Handshake { ice, identity, setup: Setup::Actpass }
    }

    /// What fits an offer of the peer.
    pub fn answering(theirs: &Sealing, identity: &Arc<Identity>) -> Self {
        match theirs {
            Sealing::Open => Self::Open,
            Sealing::Keys(keys) => {
                let best = keys.iter().find(|k| k.suite == Suite::Tag80).or(keys.first());
                best.map_or(Self::Open, |k| Self::Key(Key::random(k.tag, k.suite)))
            }
            Sealing::Handshake(_) => Self::handshake(identity.clone()),
        }
    }

    /// Whether it answers such an offer as it is.
    pub fn fits(&self, theirs: &Sealing) -> bool {
        match (self, theirs) {
            (Self::Open, Sealing::Open) | (Self::Handshake { .. }, Sealing::Handshake(_)) => true,
            (Self::Key(ours), Sealing::Keys(keys)) => {
                keys.iter().any(|k| k.tag == ours.tag && k.suite == ours.suite)
            }
            _ => false,
        }
    }

    pub fn proto(&self) -> &'static str {
        match self {
            Self::Open => "RTP/AVP",
            Self::Key(_) => "RTP/SAVP",
            Self::Handshake { .. } => "UDP/TLS/RTP/SAVPF",
        }
    }

    /// The session's attributes.
    pub fn write_session(&self, sdp: &mut String, bundled: &str) {
        if let Self::Handshake { .. } = self {
            // Peers come to us: a server has no way to find, and needs not ask for one.
            let _ = write!(sdp, "a=ice-lite\r\na=group:BUNDLE {bundled}\r\na=msid-semantic: WMS *\r\n");
        }
    }

    /// The media's attributes.
    pub fn write_media(&self, sdp: &mut String, mid: &str, named: bool, address: SocketAddr) {
        if named || matches!(self, Self::Handshake { .. }) {
            let _ = write!(sdp, "a=mid:{mid}\r\n");
        }
        match self {
            Self::Open => {}
            Self::Key(key) => key.write(sdp),
            Self::Handshake { ice, identity, setup } => {
                let hex: Vec<String> = identity.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
                let _ = write!(
                    sdp,
                    "a=rtcp-mux\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{}\r\n",
                    ice.ufrag,
                    ice.password.expose(),
                    hex.join(":"),
                    setup.name(),
                );
                let _ = write!(
                    sdp,
                    "a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
                    address.ip(),
                    address.port(),
                );
            }
        }
    }
}

/// What both sides settled on.
#[derive(Debug, Clone)]
pub enum Settled {
    Keys { ours: Key, theirs: Key },
    Handshake { ours: Ice, theirs: Box<Handshake>, identity: Arc<Identity>, active: bool, local: SocketAddr },
}

impl PartialEq for Settled {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Keys { ours: a, theirs: b }, Self::Keys { ours: c, theirs: d }) => a == c && b == d,
            (
                Self::Handshake { ours: a, theirs: b, active: c, .. },
                Self::Handshake { ours: d, theirs: e, active: f, .. },
            ) => a == d && b.ice == e.ice && b.fingerprint == e.fingerprint && c == f,
            _ => false,
        }
    }
}

/// Ours beside the peer's; none where they do not fit.
pub fn settle(ours: &mut Ours, theirs: &Sealing, local: SocketAddr) -> Option<Option<Settled>> {
    match (ours, theirs) {
        (Ours::Open, Sealing::Open) => Some(None),
        (Ours::Key(ours), Sealing::Keys(keys)) => {
            let theirs = keys.iter().find(|k| k.tag == ours.tag && k.suite == ours.suite)?.clone();
            Some(Some(Settled::Keys { ours: ours.clone(), theirs }))
        }
        (Ours::Handshake { ice, identity, setup }, Sealing::Handshake(theirs)) => {
            // Once chosen, the roles stay. We wait where we may: behind a NAT only the peer can begin.
            if *setup == Setup::Actpass {
                *setup = if theirs.setup == Setup::Passive { Setup::Active } else { Setup::Passive };
            }
            let active = *setup == Setup::Active;
            let (ours, identity) = (ice.clone(), identity.clone());
            Some(Some(Settled::Handshake { ours, theirs: theirs.clone(), identity, active, local }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_written_and_read() {
        let key = Key::random(3, Suite::Tag32);
        let mut line = String::new();
        key.write(&mut line);
        let value = line.trim_end().strip_prefix("a=crypto:").expect("an attribute");
        assert_eq!(Key::parse(value), Some(key));
        assert_eq!(Key::parse(&format!("{value}|2^20")).map(|k| k.tag), Some(3), "a lifetime is no matter");
        for bad in ["|1:4", " KDR=1", "AAAA"] {
            assert_eq!(Key::parse(&format!("{value}{bad}")), None, "{bad}");
        }
        assert!(!format!("{:?}", Key::parse(value)).contains(&value[30..]), "no key is shown");
    }

    #[test]
    fn the_example_of_rfc_8122_is_a_fingerprint() {
        let text = "sha-256 12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD";
        assert_eq!(fingerprint(text).map(|f| (f[0], f[31])), Some((0x12, 0xad)));
        assert_eq!(fingerprint("sha-1 12:DF"), None);
    }

    proptest! {
        #[test]
        fn any_value_is_a_key_or_none(value in "[0-9]{0,3} ?(AES_CM_128_HMAC_SHA1_80)? ?(inline:)?\\PC{0,60}") {
            let key = Key::parse(&value);
            let mut written = String::new();
            if let Some(key) = &key {
                key.write(&mut written);
                let again = Key::parse(written.trim_start_matches("a=crypto:").trim_end());
                prop_assert_eq!(again.as_ref().map(|k| k.tag), Some(key.tag));
                prop_assert!(again.as_ref() == Some(key));
            }
            prop_assert!(key.is_none() || value.contains("inline:"));
            prop_assert!(fingerprint(&value).is_none(), "a digest names its function");
        }

        #[test]
        fn a_key_that_is_written_is_read(tag in any::<u32>(), master in prop::collection::vec(any::<u8>(), KEY + SALT)) {
            let key = Key { tag, suite: Suite::Tag80, master: Secret::new(master) };
            let mut written = String::new();
            key.write(&mut written);
            let again = Key::parse(written.trim_start_matches("a=crypto:").trim_end());
            prop_assert!(again.is_some_and(|k| k == key && k.tag == tag));
        }
    }
}
