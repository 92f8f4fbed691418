//! What a peer may send on a sealed leg: STUN, DTLS and SRTP.
#![no_main]

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use libfuzzer_sys::fuzz_target;
use media::{
    guard::Guard,
    sealing::{Handshake, Ice, Identity, Key, Ours, Sealing, Settled, Setup, Suite, settle},
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
    let (now, peer) = (Instant::now(), ([127, 0, 0, 1], 4000).into());
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
});
