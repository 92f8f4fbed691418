//! What an agency may answer: a PDU that is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mediator::handover::pdu::{Pdu, Sender, cut};

fuzz_target!(|data: &[u8]| {
    let sender = Sender { country: "NZ".into(), operator: "o".into(), network_element: "n".into() };
    let mut left = data;
    while let Ok(Some(length)) = cut(left) {
        let (pdu, rest) = left.split_at(length);
        if let Ok(pdu) = Pdu::read(pdu) {
            let again = Pdu::read(&pdu.to_der(&sender)).expect("what was written is read");
            assert_eq!(again, pdu);
        }
        left = rest;
    }
});
