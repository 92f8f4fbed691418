//! What a peer may send to the media plane: session descriptions, RTP and RTCP.
#![no_main]

use std::{sync::Arc, time::Instant};

use call::{LegId, media::Source};
use libfuzzer_sys::fuzz_target;
use media::{
    sdp::{self, EventFormat, Remote},
    session::{Agreed, Latching, Policy, Session},
    sound::Library,
};

const EVENTS: EventFormat = EventFormat { payload: 101, clock: 8000 };
const POLICY: Policy = Policy { threshold: -30, latching: Latching::Signalling };

fuzz_target!(|data: &[u8]| {
    if let Ok(remote) = Remote::parse(data) {
        let (codecs, events) = sdp::offer_like(Some(&remote));
        let events = |p: u8| events.iter().any(|e| e.payload == p);
        assert!(!codecs.is_empty() && codecs.iter().all(|c| !events(c.payload)));
    }
    let now = Instant::now();
    let mut session = Session::new(Arc::new(Library::new(Arc::from([7i16; 160]))), POLICY, now);
    let peer = ([127, 0, 0, 1], 4000).into();
    for leg in [LegId(1), LegId(2)] {
        session.add(now, leg, 7);
        let codec = sdp::own()[leg.0 as usize].clone();
        let agreed = Agreed {
            remote: peer,
            rtcp: peer,
            signalled: None,
            receives: sdp::own().to_vec(),
            codec,
            events: Some(EVENTS),
            events_in: vec![EVENTS],
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
    session.housekeeping(now);
    assert!(session.outputs().all(|o| format!("{o:?}").len() < 100_000));
});
