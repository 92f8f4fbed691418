//! What a phone may write into `Contact`, `Authorization` and the body of a feature's subscription, and a neighbour into its
//! challenge.
#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use libfuzzer_sys::fuzz_target;
use sip::{
    Offer,
    digest::{Authenticator, Checked, Credentials, Login},
    subscriptions,
    wire::address,
};

fuzz_target!(|text: &str| {
    if let Ok(all) = address::list(text) {
        for a in &all {
            assert!(!a.uri.is_empty());
            address::q_of(a.parameter("q"));
        }
    }
    let _ = subscriptions::switch(text);
    let login = Login { name: "100".to_owned(), password: kit::Secret::new("parol".to_owned()) };
    if let Some(answer) = login.answer([text], "REGISTER", "sip:d", 1) {
        assert!(Credentials::parse(&answer).is_ok_and(|c| c.username() == "100"), "{answer}");
    }
    if let Ok(credentials) = Credentials::parse(text) {
        let now = Instant::now();
        let mut authenticator = Authenticator::new([1; 32], Offer::Both, now);
        let password = kit::Secret::new("parol".to_owned());
        let realm = credentials.realm().to_owned();
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let of = Checked { realm: &realm, method: "REGISTER", uri: "sip:d", source, qop: true, now };
        assert!(authenticator.check(&credentials, Some(&password), of).is_err());
    }
});
