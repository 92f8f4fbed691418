//! An agency elsewhere: OpenSSL's server, which takes all and answers nothing, or one of our own, which answers keep-alives.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use ::mediator::handover::pdu::{Payload, Pdu, Sender, cut};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A certificate for localhost and its key.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    super::certificate(
        dir,
        "localhost",
        &["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"],
    )
}

/// PDUs in a stream, each as it is.
pub fn pdus(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok(Some(length)) = cut(stream) {
        let (pdu, rest) = stream.split_at(length);
        all.push(pdu.to_vec());
        stream = rest;
    }
    all
}

/// `openssl s_server`, and what has come to it.
pub struct Openssl {
    child: Child,
    file: PathBuf,
}

impl Openssl {
    pub fn start(port: u16, (certificate, key): &(PathBuf, PathBuf), file: &Path) -> Self {
        let taken = std::fs::File::create(file).expect("a file");
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"])
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped())
            .stdout(taken)
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        Self { child, file: file.to_owned() }
    }

    pub fn pdus(&self) -> Vec<Vec<u8>> {
        pdus(&std::fs::read(&self.file).unwrap_or_default())
    }

    /// What OpenSSL makes of one as ASN.1.
    pub fn parse(&self, pdu: &[u8]) -> String {
        let file = self.file.with_extension("pdu");
        std::fs::write(&file, pdu).expect("written");
        let parsed = Command::new("openssl").args(["asn1parse", "-inform", "DER", "-in"]).arg(&file).output();
        let parsed = parsed.expect("it runs");
        assert!(parsed.status.success(), "{parsed:?}");
        String::from_utf8_lossy(&parsed.stdout).into_owned()
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an agency has got, over all connections.
pub type Got = Arc<Mutex<Vec<Pdu>>>;

/// Answers keep-alives, for as long as the test runs.
pub fn agency(port: u16, (certificate, key): &(PathBuf, PathBuf)) -> Got {
    let chain = CertificateDer::pem_file_iter(certificate).expect("read").map(|c| c.expect("a certificate"));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.collect(), PrivateKeyDer::from_pem_file(key).expect("a key"))
        .expect("they fit");
    let (config, got) = (Arc::new(config), Got::default());
    let (listener, into) = (TcpListener::bind(("127.0.0.1", port)).expect("a port"), got.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(config.clone()).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                held.extend_from_slice(&buffer[..length]);
                while let Ok(Some(length)) = cut(&held) {
                    let der: Vec<u8> = held.drain(..length).collect();
                    let pdu = Pdu::read(&der).expect("a PDU");
                    if pdu.payload == Payload::KeepAlive {
                        let answer = Pdu { payload: Payload::KeepAliveResponse, ..pdu.clone() };
                        let who = Sender {
                            country: "NZ".into(),
                            operator: "lea".into(),
                            network_element: "1".into(),
                        };
                        let _ = stream.write_all(&answer.to_der(&who));
                    }
                    into.lock().expect("whole").push(pdu);
                }
            }
        }
    });
    got
}
