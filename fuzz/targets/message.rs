//! Whatever a datagram or a stream holds: read, written, and acted on by an agent that nobody else talks to.
#![no_main]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sip::{
    agent::{Agent, Now, Output, reply},
    identifiers::Identifiers,
    transaction::{Flow, Transport},
    wire::{
        body,
        message::{Message, Method, Name},
        uri::Uri,
        validate,
    },
};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(message) = Message::parse(&bytes) {
        let written = message.to_bytes();
        let again = Message::parse(&written).expect("what was written is read");
        assert_eq!(again.start, message.start);
        assert_eq!(again.body, message.body);
        let _ = (validate::request(&message), message.via(), message.cseq(), Uri::parse(message.uri()));
        let _ = body::session(&message);
        // The same bytes as a body of parts.
        let mut parts = Message::request(Method::Invite, "sip:a@b");
        parts.push(Name::ContentType, "multipart/mixed;boundary=a");
        parts.body = bytes.clone();
        let _ = body::session(&parts);
    }
    let mut stream = BytesMut::from(data);
    while let sip::Cut::Message(message) = sip::cut(&mut stream) {
        assert!(!message.is_empty());
    }
    let mut agent = Agent::new(Identifiers::new(&[1; 32]), Box::new(|_, _| "127.0.0.1:5060".to_owned()));
    let flow = Flow { transport: Transport::Udp, peer: ([127, 0, 0, 1], 5061).into(), connection: 0 };
    let mut now = Now { at: Instant::now(), wall: chrono::DateTime::UNIX_EPOCH };
    agent.receive(now, &bytes, flow);
    for output in agent.outputs() {
        match output {
            Output::Request(id, message, _) => agent.respond(now, id, &reply(&message, 404, Some("t"))),
            Output::Send(_, answer) => assert!(Message::parse(&answer).is_ok(), "our own answers are read"),
            _ => {}
        }
    }
    now.at += Duration::from_secs(60);
    agent.timeout(now);
    agent.outputs();
    assert_eq!(agent.sizes(), (0, 0), "nothing is left");
});
