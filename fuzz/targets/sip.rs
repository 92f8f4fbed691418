//! What a phone may write into `Contact` and `Authorization`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip::{
    Offer,
    digest::{Authenticator, Credentials},
    wire::address,
};

fuzz_target!(|text: &str| {
    if let Ok(all) = address::list(text) {
        for a in &all {
            assert!(!a.uri.is_empty());
            address::q_of(a.parameter("q"));
        }
    }
    if let Ok(credentials) = Credentials::parse(text) {
        let mut authenticator = Authenticator::new([1; 32], Offer::Both);
        let password = kit::Secret::new("parol".to_owned());
        let now = chrono::DateTime::UNIX_EPOCH;
        let realm = credentials.realm().to_owned();
        assert!(authenticator.check(&credentials, &realm, "REGISTER", &password, true, now).is_err());
    }
});
