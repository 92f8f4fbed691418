//! What a phone may write into `Contact`, `Authorization` and the body of a feature's subscription, and a neighbour into its
//! challenge.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip::{
    Offer,
    digest::{Authenticator, Credentials, Login},
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
        let mut authenticator = Authenticator::new([1; 32], Offer::Both);
        let password = kit::Secret::new("parol".to_owned());
        let now = chrono::DateTime::UNIX_EPOCH;
        let realm = credentials.realm().to_owned();
        assert!(authenticator.check(&credentials, &realm, "REGISTER", &password, true, now).is_err());
    }
});
