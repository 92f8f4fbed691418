//! What a peer may send to the media plane: session descriptions, RTP and RTCP, and on a sealed leg STUN, DTLS and SRTP.
#![no_main]

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use call::{LegId, media::Source};
use libfuzzer_sys::fuzz_target;
use media::{
    guard::Guard,
    sdp::{self, Remote},
    sealing::{Handshake, Ice, Identity, Key, Ours, Sealing, Settled, Setup, Suite, settle},
    session::{Agreed, Session},
    sound,
};

/// A guard that waits for a handshake, with ICE or without, and one with keys.
fn guards(now: Instant) -> Vec<Guard> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| Arc::new(Identity::new().expect("a certificate")));
    let here = ([127, 0, 0, 1], 4000).into();
    let handshake = |ice| {
        let theirs = Handshake { fingerprint: [7; 32], setup: Setup::Active, ice };
        settle(&mut Ours::handshake(identity.clone()), &Sealing::Handshake(Box::new(theirs)), here).flatten()
    };
    let ice = Ice { ufrag: "abcd".into(), password: "0123456789012345678901".to_owned().into() };
    let key = || Key::random(1, Suite::Tag80);
    let keys = Settled::Keys { ours: key(), theirs: key() };
    let all = [handshake(None), handshake(Some(ice)), Some(keys)];
    all.iter().flatten().filter_map(|s| Guard::new(now, s, here).ok()).collect()
}

fuzz_target!(|data: &[u8]| {
    if let Ok(remote) = Remote::parse(data) {
        let (codecs, events) = sdp::offer_like(Some(&remote));
        assert!(!codecs.is_empty() && codecs.iter().all(|c| c.payload != events));
    }
    let now = Instant::now();
    let mut session = Session::new(sound::music(), -30, now);
    let peer = ([127, 0, 0, 1], 4000).into();
    for leg in [LegId(1), LegId(2)] {
        session.add(now, leg, 7);
        let codec = sdp::own()[leg.0 as usize].clone();
        let agreed = Agreed {
            remote: peer,
            rtcp: peer,
            receives: sdp::own().to_vec(),
            codec,
            events: Some(101),
            events_in: Some(101),
            hears: true,
            sealing: None,
            video: None,
        };
        session.agree(now, leg, agreed);
        session.hear(
            leg,
            if data.first().is_some_and(|b| *b > 127) { Source::Mix } else { Source::Leg(LegId(3 - leg.0)) },
        );
    }
    for piece in data.chunks(172) {
        session.datagram(now, LegId(1), peer, piece, false);
        session.datagram(now, LegId(2), peer, piece, true);
        session.tick(now);
    }
    for mut guard in guards(now) {
        for piece in data.chunks(172) {
            // A handshake that fails is over; nothing of a stranger's is ever opened.
            match guard.receive(now, peer, piece) {
                Ok(opened) => assert!(opened.is_none(), "{opened:?}"),
                Err(_) => break,
            }
        }
        assert!(guard.outputs().count() < 1000);
    }
    session.housekeeping(now);
    assert!(session.outputs().all(|o| format!("{o:?}").len() < 100_000));
});
