//! What a control point may send, and what a mediator and the point may be answered: whatever is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sorm::protocol::{Cut, Event, Reply, Request, Way, cut};

fuzz_target!(|data: &[u8]| {
    for way in [Way::Command, Way::Reply, Way::Event] {
        let mut left = data;
        while let Cut::Unit(n) | Cut::Garbage(n) = cut(left, way) {
            assert!(n > 0);
            let (unit, rest) = left.split_at(n);
            if let Ok(request) = Request::read(unit) {
                assert_eq!(Request::read(&request.to_bytes_with_a()), Ok(request));
            }
            if let Ok(reply) = Reply::read(unit) {
                assert_eq!(Reply::read(&reply.to_bytes_with_a()), Ok(reply));
            }
            if let Ok(event) = Event::read(unit) {
                assert_eq!(Event::read(&event.to_bytes_with_a()), Ok(event));
            }
            left = rest;
        }
    }
});
