//! A licence's hardware token, with SoftHSM in its place.

use std::{path::Path, process::Command};

use kit::token::{Token, TokenError};
use store::Pkcs11Token;

fn run(dir: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .env("SOFTHSM2_CONF", dir.join("softhsm2.conf"))
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; ops/test installs it"));
    assert!(output.status.success(), "{program}: {output:?}");
}

// One test, since SoftHSM finds its tokens through the environment.
#[test]
fn the_token_proves_itself_and_its_absence_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens");
    std::fs::create_dir(&tokens).expect("made");
    let conf = dir.path().join("softhsm2.conf");
    std::fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).expect("written");
    // SAFETY: no other thread of this test program runs yet.
    unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
    let module = Path::new("/usr/lib/softhsm/libsofthsm2.so");
    let pin_file = dir.path().join("pin");
    let token = Pkcs11Token { module: module.to_owned(), label: "hypha".into(), pin_file: pin_file.clone() };
    assert_eq!(token.prove(&[1; 32]), Err(TokenError::Absent("hypha".into())));

    run(
        dir.path(),
        "softhsm2-util",
        &["--init-token", "--free", "--label", "t", "--so-pin", "1234", "--pin", "5678"],
    );
    let make =
        ["--login", "--pin", "5678", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "hypha"];
    run(dir.path(), "pkcs11-tool", &[&["--module", &module.display().to_string()], &make[..]].concat());
    assert!(matches!(token.prove(&[1; 32]), Err(TokenError::Pin(..))));
    std::fs::write(&pin_file, "5678\n").expect("written");

    let (identity, signature) = token.prove(&[1; 32]).expect("a proof");
    assert_eq!((identity.key.len(), signature.len()), (130, 64));
    assert!(domain_agrees(&identity.key, &[1; 32], &signature));
    assert!(!domain_agrees(&identity.key, &[2; 32], &signature));
    let (again, _) = token.prove(&[2; 32]).expect("a proof");
    assert_eq!(again, identity);

    std::fs::write(&pin_file, "0000").expect("written");
    assert!(matches!(token.prove(&[1; 32]), Err(TokenError::Device(_))));
    std::fs::rename(&tokens, dir.path().join("away")).expect("pulled out");
    std::fs::create_dir(&tokens).expect("made");
    assert_eq!(token.prove(&[1; 32]), Err(TokenError::Absent("hypha".into())));
    let nowhere = Pkcs11Token { module: dir.path().join("no.so"), ..token };
    assert!(matches!(nowhere.prove(&[1; 32]), Err(TokenError::Module(..))));
}

/// The check the licence makes, written again here: this crate does not know that family.
fn domain_agrees(key: &str, challenge: &[u8; 32], signature: &[u8]) -> bool {
    use p256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
    let point: Vec<u8> =
        (0..key.len() / 2).map(|i| u8::from_str_radix(&key[2 * i..2 * i + 2], 16).expect("hex")).collect();
    let key = VerifyingKey::from_sec1_bytes(&point).expect("a point");
    let signature = Signature::from_slice(signature).expect("r and s");
    key.verify_prehash(challenge, &signature).is_ok()
}
