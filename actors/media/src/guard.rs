//! The sealed wire of one leg, without IO: what comes in is opened, what goes out is sealed; ICE (RFC 8445, as its lite
//! side), DTLS and SRTP (RFC 3711, RFC 5764) behind one value.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rtc_srtp::{
    context::Context,
    crypto::providers::RingCrypto,
    option::{srtcp_replay_protection, srtp_replay_protection},
    protection_profile::ProtectionProfile,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::sealing::{Fingerprint, Identity, KEY, Key, Settled, Suite};

/// Packets that may overtake each other.
const WINDOW: usize = 128;
/// Bytes of a report's flag and number (RFC 3711, 3.4).
const INDEX: usize = 4;
/// Type of a DTLS record that holds an alert (RFC 6347, 4.1); its epoch, bytes 3 and 4, is 0 in the clear.
const ALERT: u8 = 21;
/// Larger than any record of a handshake.
const RECORD: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the keys of a leg: {0}")]
    Keys(String),
    #[error("the handshake of a leg: {0}")]
    Handshake(String),
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    Rtp(Vec<u8>),
    Rtcp(Vec<u8>),
}

struct Seals {
    outwards: Context,
    inwards: Context,
    /// Bytes from the end of a report to the flag that it is encrypted; none where the flag itself is sealed.
    flag: Option<usize>,
}

/// Both contexts of a leg.
fn seals(
    profile: ProtectionProfile,
    ours: (&[u8], &[u8]),
    theirs: (&[u8], &[u8]),
) -> Result<Seals, GuardError> {
    let context = |(key, salt): (&[u8], &[u8])| {
        let (rtp, rtcp) = (srtp_replay_protection(WINDOW), srtcp_replay_protection(WINDOW));
        Context::new(key, salt, profile, Some(rtp), Some(rtcp), &RingCrypto)
            .map_err(|e| GuardError::Keys(e.to_string()))
    };
    let aead = matches!(profile, ProtectionProfile::AeadAes128Gcm | ProtectionProfile::AeadAes256Gcm);
    let flag = (!aead).then(|| profile.rtcp_auth_tag_len() + INDEX);
    Ok(Seals { outwards: context(ours)?, inwards: context(theirs)?, flag })
}

struct Handshaking {
    ice: Option<is::IceAgent>,
    dtls: Option<dimpl::Dtls>,
    identity: Arc<Identity>,
    fingerprint: Fingerprint,
    active: bool,
    local: SocketAddr,
    buffer: Vec<u8>,
}

pub struct Guard {
    seals: Option<Seals>,
    handshaking: Option<Box<Handshaking>>,
    /// Where the peer is, as it has shown itself.
    peer: Option<SocketAddr>,
    out: Vec<(SocketAddr, Vec<u8>)>,
}

impl Guard {
    pub fn new(now: Instant, settled: &Settled, remote: SocketAddr) -> Result<Self, GuardError> {
        match settled {
            Settled::Keys { ours, theirs } => {
                let profile = match ours.suite {
                    Suite::Tag80 => ProtectionProfile::Aes128CmHmacSha1_80,
                    Suite::Tag32 => ProtectionProfile::Aes128CmHmacSha1_32,
                };
                let parts =
                    |k: &Key| k.master.expose().split_at_checked(KEY).map(|(k, s)| (k.to_vec(), s.to_vec()));
                let both = parts(ours).zip(parts(theirs));
                let (ours, theirs) = both.ok_or_else(|| GuardError::Keys("too short".into()))?;
                let seals = seals(profile, (&ours.0, &ours.1), (&theirs.0, &theirs.1))?;
                Ok(Self { seals: Some(seals), handshaking: None, peer: None, out: Vec::new() })
            }
            Settled::Handshake { ours, theirs, identity, active, local } => {
                let mut ice = theirs.ice.as_ref().map(|t| {
                    let creds = |ice: &crate::sealing::Ice| is::IceCreds {
                        ufrag: ice.ufrag.clone(),
                        pass: ice.password.expose().clone(),
                    };
                    let mut agent = is::IceAgent::new(creds(ours));
                    agent.set_ice_lite(true);
                    agent.set_controlling(false);
                    agent.set_remote_credentials(creds(t));
                    agent
                });
                if let Some(agent) = &mut ice {
                    let candidate = is::Candidate::host(*local, "udp")
                        .map_err(|e| GuardError::Handshake(e.to_string()))?;
                    agent.add_local_candidate(candidate);
                }
                let peer = ice.is_none().then_some(remote);
                let handshaking = Handshaking {
                    ice,
                    dtls: None,
                    identity: identity.clone(),
                    fingerprint: theirs.fingerprint,
                    active: *active,
                    local: *local,
                    buffer: vec![0; RECORD],
                };
                let mut guard =
                    Self { seals: None, handshaking: Some(Box::new(handshaking)), peer, out: Vec::new() };
                guard.timeout(now)?;
                Ok(guard)
            }
        }
    }

    /// The same handshake with another way to the peer (an ICE restart).
    pub fn renew(&mut self, now: Instant, settled: &Settled, remote: SocketAddr) -> Result<(), GuardError> {
        let mut fresh = Self::new(now, settled, remote)?;
        match (&mut self.handshaking, &mut fresh.handshaking) {
            (Some(old), Some(new)) if old.fingerprint == new.fingerprint && old.active == new.active => {
                old.ice = new.ice.take();
            }
            _ => *self = fresh,
        }
        Ok(())
    }

    /// Whether it wants the time often: until keys are there.
    pub fn is_waiting(&self) -> bool {
        self.seals.is_none() && self.handshaking.is_some()
    }

    /// Whether there are keys.
    pub fn is_ready(&self) -> bool {
        self.seals.is_some()
    }

    /// Nothing is opened or sealed any more.
    pub fn shut(&mut self) {
        (self.seals, self.handshaking) = (None, None);
    }

    /// Where sealed packets go; none where the description alone tells.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What is to be sent as it is.
    pub fn outputs(&mut self) -> std::vec::Drain<'_, (SocketAddr, Vec<u8>)> {
        self.out.drain(..)
    }

    /// The handshake begins when the peer is known, or waits for it.
    fn begin(&mut self, now: Instant) {
        let Some(h) = &mut self.handshaking else { return };
        if h.dtls.is_none() && (self.peer.is_some() || !h.active) {
            let mut dtls =
                dimpl::Dtls::new_auto(h.identity.dtls.clone(), h.identity.certificate.clone(), now);
            dtls.set_active(h.active);
            h.dtls = Some(dtls);
        }
    }

    /// A datagram from the leg's peer.
    pub fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &[u8],
    ) -> Result<Option<Opened>, GuardError> {
        // RFC 7983 tells them apart by the first byte.
        match data.first() {
            Some(0..=3) => {
                self.stun(now, from, data);
                self.timeout(now)?;
                Ok(None)
            }
            Some(20..=63) => {
                // Only the peer shakes hands. An alert in the clear may be anybody's, and ends nothing: a handshake that
                // fails is over with its time.
                if data[0] == ALERT && data.get(3..5) == Some(&[0, 0][..]) {
                    return Ok(None);
                }
                if self.peer != Some(from) || self.handshaking.as_ref().is_none_or(|h| h.dtls.is_none()) {
                    return Ok(None);
                }
                if let Some(dtls) = self.handshaking.as_mut().and_then(|h| h.dtls.as_mut()) {
                    // A record that does not belong to the handshake is dropped (RFC 6347, 4.1.2.7).
                    if let Err(e) = dtls.handle_packet(data) {
                        tracing::debug!(error = %e, "DTLS record dropped");
                    }
                }
                self.timeout(now)?;
                Ok(None)
            }
            Some(128..=191) => Ok(self.open(data)),
            _ => Ok(None),
        }
    }

    fn open(&mut self, data: &[u8]) -> Option<Opened> {
        let seals = self.seals.as_mut()?;
        // RFC 5761, 4: what would be a payload type of RTP is none here.
        match data.get(1)? & 0x7f {
            // Nobody has agreed on reports in the clear, and the library lets those pass without looking at their seal.
            64..=95 if seals.flag.is_some_and(|at| !encrypted(data, at)) => None,
            64..=95 => seals.inwards.decrypt_rtcp(data).ok().map(|b| Opened::Rtcp(b.to_vec())),
            _ => seals.inwards.decrypt_rtp(data).ok().map(|b| Opened::Rtp(b.to_vec())),
        }
    }

    fn stun(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        let Some(h) = &mut self.handshaking else { return };
        let (Some(ice), Ok(message)) = (&mut h.ice, is::stun::StunMessage::parse(data)) else { return };
        if !ice.accepts_message(&message) {
            return;
        }
        let packet =
            is::stun::StunPacket { proto: is::Protocol::Udp, source: from, destination: h.local, message };
        ice.handle_packet(now, packet);
    }

    /// Time has passed, or something has happened.
    pub fn timeout(&mut self, now: Instant) -> Result<(), GuardError> {
        let Some(h) = &mut self.handshaking else { return Ok(()) };
        if let Some(ice) = &mut h.ice {
            ice.handle_timeout(now);
            while let Some(sent) = ice.poll_transmit() {
                self.out.push((sent.destination, sent.contents.into()));
            }
            while let Some(event) = ice.poll_event() {
                if let is::IceAgentEvent::NominatedSend { destination, .. } = event {
                    self.peer = Some(destination);
                }
            }
        }
        self.begin(now);
        let (Some(h), Some(peer)) = (&mut self.handshaking, self.peer) else { return Ok(()) };
        let Some(dtls) = &mut h.dtls else { return Ok(()) };
        dtls.handle_timeout(now).map_err(|e| GuardError::Handshake(e.to_string()))?;
        loop {
            match dtls.poll_output(&mut h.buffer) {
                dimpl::Output::Packet(bytes) => self.out.push((peer, bytes.to_vec())),
                dimpl::Output::BufferTooSmall { needed } if needed <= 1 << 16 => h.buffer.resize(needed, 0),
                dimpl::Output::PeerCert(certificate) => {
                    let shown: Fingerprint = Sha256::digest(certificate).into();
                    if !bool::from(shown.ct_eq(&h.fingerprint)) {
                        return Err(GuardError::Handshake("the certificate is not the one announced".into()));
                    }
                }
                dimpl::Output::KeyingMaterial(keys, profile) => {
                    self.seals = Some(derived(&keys, profile, h.active)?);
                }
                dimpl::Output::CloseNotify => self.seals = None,
                dimpl::Output::Timeout(_) | dimpl::Output::BufferTooSmall { .. } => return Ok(()),
                _ => {}
            }
        }
    }

    /// Seals a packet; none until there are keys.
    pub fn seal_rtp(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        self.seals.as_mut()?.outwards.encrypt_rtp(data).ok().map(|b| b.to_vec())
    }

    pub fn seal_rtcp(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        self.seals.as_mut()?.outwards.encrypt_rtcp(data).ok().map(|b| b.to_vec())
    }

    /// Whether reports go where packets go (RFC 5761).
    pub fn muxes(&self) -> bool {
        self.handshaking.is_some()
    }
}

/// Whether a report says that it is encrypted.
fn encrypted(data: &[u8], from_end: usize) -> bool {
    data.len().checked_sub(from_end).and_then(|at| data.get(at)).is_some_and(|b| b & 0x80 != 0)
}

/// Keys of the handshake in the order of RFC 5764, 4.2.
fn derived(keys: &[u8], profile: dimpl::SrtpProfile, active: bool) -> Result<Seals, GuardError> {
    let (profile, key, salt) = match profile {
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => (ProtectionProfile::Aes128CmHmacSha1_80, 16, 14),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => (ProtectionProfile::AeadAes128Gcm, 16, 12),
        dimpl::SrtpProfile::AEAD_AES_256_GCM => (ProtectionProfile::AeadAes256Gcm, 32, 12),
        _ => return Err(GuardError::Keys("an unknown profile".into())),
    };
    if keys.len() != 2 * (key + salt) {
        return Err(GuardError::Keys("keys of another length".into()));
    }
    let client = (&keys[..key], &keys[2 * key..2 * key + salt]);
    let server = (&keys[key..2 * key], &keys[2 * key + salt..]);
    let (ours, theirs) = if active { (client, server) } else { (server, client) };
    seals(profile, ours, theirs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        rtp::Packet,
        sealing::{Handshake, Ice, Ours, Sealing, Setup, settle},
    };

    fn packet(sequence: u16) -> Vec<u8> {
        let head =
            Packet { marker: false, payload_type: 8, sequence, timestamp: 160, ssrc: 7, payload: b"speech" };
        head.write()
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn keys_of_the_description_open_what_they_seal() {
        let (a, b) = (Key::random(1, Suite::Tag80), Key::random(1, Suite::Tag80));
        let end = |ours: &Key, theirs: &Key| {
            let settled = Settled::Keys { ours: ours.clone(), theirs: theirs.clone() };
            Guard::new(Instant::now(), &settled, at(1)).expect("keys")
        };
        let (mut one, mut other) = (end(&a, &b), end(&b, &a));
        let sealed = one.seal_rtp(&packet(1)).expect("a packet");
        assert!(!sealed.windows(6).any(|w| w == b"speech"));
        let opened = other.receive(Instant::now(), at(1), &sealed).expect("no handshake");
        assert_eq!(opened, Some(Opened::Rtp(packet(1))));
        assert_eq!(other.receive(Instant::now(), at(1), &sealed).expect("a replay"), None);
        let mut broken = one.seal_rtp(&packet(2)).expect("a packet");
        broken[14] ^= 1;
        assert_eq!(other.receive(Instant::now(), at(1), &broken).expect("a forgery"), None);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        // A report in the clear, with anything for a seal.
        let forged = [&report[..], &[0; 14]].concat();
        assert_eq!(other.receive(Instant::now(), at(1), &forged).expect("a forgery"), None);
        let sealed = one.seal_rtcp(&report).expect("a report");
        assert_eq!(
            other.receive(Instant::now(), at(1), &sealed).expect("good"),
            Some(Opened::Rtcp(report.to_vec()))
        );
    }

    /// Two guards without ICE; `told` is the fingerprint that the second is told of the first.
    fn handshaken(told: impl FnOnce(Fingerprint) -> Fingerprint) -> Result<(Guard, Guard), GuardError> {
        let identity = || Arc::new(Identity::new().expect("a certificate"));
        let (a, b) = (identity(), identity());
        let theirs =
            |fingerprint, setup| Sealing::Handshake(Box::new(Handshake { fingerprint, setup, ice: None }));
        let (mut ours_a, mut ours_b) = (Ours::handshake(a.clone()), Ours::handshake(b.clone()));
        let settled_a = settle(&mut ours_a, &theirs(b.fingerprint, Setup::Actpass), at(1)).flatten();
        let settled_b = settle(&mut ours_b, &theirs(told(a.fingerprint), Setup::Passive), at(2)).flatten();
        let mut now = Instant::now();
        let mut one = Guard::new(now, &settled_a.expect("settled"), at(2))?;
        let mut other = Guard::new(now, &settled_b.expect("settled"), at(1))?;
        for _ in 0..200 {
            now += Duration::from_millis(20);
            for (_, bytes) in one.outputs().collect::<Vec<_>>() {
                other.receive(now, at(1), &bytes)?;
            }
            for (_, bytes) in other.outputs().collect::<Vec<_>>() {
                one.receive(now, at(2), &bytes)?;
            }
            one.timeout(now)?;
            other.timeout(now)?;
            if !one.is_waiting() && !other.is_waiting() {
                break;
            }
        }
        Ok((one, other))
    }

    #[test]
    fn a_handshake_gives_both_the_same_keys() {
        let (mut one, mut other) = handshaken(|f| f).expect("hands are shaken");
        let sealed = one.seal_rtp(&packet(1)).expect("keys are there");
        let opened = other.receive(Instant::now(), at(1), &sealed).expect("good");
        assert_eq!(opened, Some(Opened::Rtp(packet(1))));
        let sealed = other.seal_rtp(&packet(9)).expect("keys are there");
        let opened = one.receive(Instant::now(), at(2), &sealed).expect("good");
        assert_eq!(opened, Some(Opened::Rtp(packet(9))));
    }

    #[test]
    fn a_certificate_that_was_not_announced_gets_no_keys() {
        let failed = handshaken(|mut f| {
            f[0] ^= 1;
            f
        });
        assert!(matches!(failed, Err(GuardError::Handshake(_))));
    }

    #[test]
    fn a_guard_that_is_shut_takes_and_gives_nothing() {
        let (mut one, mut other) = handshaken(|f| f).expect("hands are shaken");
        other.shut();
        let sealed = one.seal_rtp(&packet(1)).expect("keys are there");
        assert_eq!(other.receive(Instant::now(), at(1), &sealed).expect("no error"), None);
        assert_eq!(other.receive(Instant::now(), at(1), &[22; 40]).expect("no error"), None);
        assert!(other.seal_rtp(&packet(1)).is_none() && !other.is_waiting());
    }

    #[test]
    fn whoever_knows_the_password_is_found_and_nobody_else() {
        let identity = Arc::new(Identity::new().expect("a certificate"));
        let mut ours = Ours::handshake(identity.clone());
        let Ours::Handshake { ice, .. } = &ours else { panic!("a handshake") };
        let named = is::IceCreds { ufrag: ice.ufrag.clone(), pass: ice.password.expose().clone() };
        let browser = is::IceCreds::new();
        let theirs = Handshake {
            fingerprint: identity.fingerprint,
            setup: Setup::Actpass,
            ice: Some(Ice { ufrag: browser.ufrag.clone(), password: browser.pass.clone().into() }),
        };
        let settled =
            settle(&mut ours, &Sealing::Handshake(Box::new(theirs)), at(1)).flatten().expect("settled");
        for (knows, found) in [(true, Some(at(2))), (false, None)] {
            let mut now = Instant::now();
            let mut guard = Guard::new(now, &settled, at(9)).expect("a guard");
            let mut peer = is::IceAgent::new(browser.clone());
            peer.set_controlling(true);
            let pass = if knows { named.pass.clone() } else { "somethingelsesomethingelse".to_owned() };
            peer.set_remote_credentials(is::IceCreds { pass, ..named.clone() });
            peer.add_local_candidate(is::Candidate::host(at(2), "udp").expect("a candidate"));
            peer.add_remote_candidate(is::Candidate::host(at(1), "udp").expect("a candidate"));
            for _ in 0..100 {
                now += Duration::from_millis(20);
                peer.handle_timeout(now);
                while let Some(sent) = peer.poll_transmit() {
                    let bytes: Vec<u8> = sent.contents.into();
                    assert_eq!(guard.receive(now, at(2), &bytes).expect("no matter"), None);
                }
                for (to, bytes) in guard.outputs().collect::<Vec<_>>() {
                    assert_eq!(to, at(2));
                    if let Ok(message) = is::stun::StunMessage::parse(&bytes) {
                        let packet = is::stun::StunPacket {
                            proto: is::Protocol::Udp,
                            source: at(1),
                            destination: at(2),
                            message,
                        };
                        peer.handle_packet(now, packet);
                    }
                }
            }
            assert_eq!(guard.peer(), found);
        }
    }
}
