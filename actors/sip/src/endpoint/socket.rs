//! Sockets: how they are opened, and what is taken from them.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Weak,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kit::alarm::{Alarms, Condition, Severity};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Shared, budget::Counted, closed, got, stream};
use crate::{
    net::Port,
    transaction::{Flow, Transport},
    wire::message::MAX_MESSAGE,
};

/// Bursts of datagrams wait here rather than being lost.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams taken before anything else gets its turn.
const BATCH: usize = 64;

/// A socket that takes streams of one kind.
pub(super) struct Door {
    pub transport: Transport,
    pub listener: TcpListener,
    pub local: SocketAddr,
    pub tls: Option<TlsAcceptor>,
}

/// Between two tries to open a door.
const AGAIN: Duration = Duration::from_secs(5);

/// A door for connections, sealed where its transport is; an error says what stands in the way.
pub(super) async fn open(
    transport: Transport,
    at: SocketAddr,
    certificate: &std::path::Path,
    key: &std::path::Path,
) -> Result<Door, String> {
    let tls = match transport {
        Transport::Tls | Transport::Wss => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let listener = TcpListener::bind(at).await.map_err(|e| e.to_string())?;
    let local = listener.local_addr().map_err(|e| e.to_string())?;
    Ok(Door { transport, listener, local, tls })
}

/// Tries until it opens; meanwhile it is an alarm.
pub(super) async fn open_later(
    transport: Transport,
    at: SocketAddr,
    mut why: String,
    (certificate, key): &(std::path::PathBuf, std::path::PathBuf),
    alarms: &Alarms,
) -> Door {
    let name = format!("SIP over {} on {at}", transport.upper());
    loop {
        alarms.raise(Condition::new("node::door::closed", Severity::Major, &name).cause(&why));
        tokio::time::sleep(AGAIN).await;
        match open(transport, at, certificate, key).await {
            Ok(door) => {
                alarms.clear("node::door::closed", None, &name);
                return door;
            }
            Err(e) => why = e,
        }
    }
}

/// UDP and TCP on one port. Where any port will do, one is sought that is free for both.
pub(super) async fn plain(listen: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if listen.port() == 0 { 32 } else { 1 };
    loop {
        tries -= 1;
        let udp = datagram_socket(listen)?;
        match TcpListener::bind(udp.local_addr()?).await {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {}
            tcp => return Ok((udp, tcp?)),
        }
    }
}

pub(super) fn datagram_socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    // The system may grant less; that costs retransmissions in a burst, nothing else.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// How we name ourselves: to peers outside as the configuration says; else by the address we listen on; where that is all of them,
/// by the one the peer sees.
pub(super) fn named(own: SocketAddr, peer: SocketAddr, advertised: Option<&str>) -> String {
    if let Some(advertised) = advertised.filter(|_| !kit::net::is_inner(peer.ip())) {
        let host = match advertised.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => format!("[{v6}]"),
            Err(_) => advertised.to_owned(),
        };
        return format!("{host}:{}", own.port());
    }
    if !own.ip().is_unspecified() {
        return own.to_string();
    }
    // Connecting a datagram socket sends nothing; it tells which way the system would go.
    let peer = kit::net::canonical(peer);
    let any = match peer.ip() {
        IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let seen = std::net::UdpSocket::bind(any).and_then(|s| s.connect(peer).and_then(|()| s.local_addr()));
    SocketAddr::new(seen.map_or(IpAddr::from([127, 0, 0, 1]), |a| a.ip()), own.port()).to_string()
}

/// The certificate and key of the configuration.
pub(super) fn acceptor(
    certificate: &std::path::Path,
    key_file: &std::path::Path,
) -> Result<TlsAcceptor, String> {
    use tokio_rustls::rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    let of = |file: &std::path::Path, e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    if certificate.as_os_str().is_empty() || key_file.as_os_str().is_empty() {
        return Err("TLS wants [sip] certificate and key".into());
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| of(certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| of(key_file, &e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|c| c.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| of(certificate, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How neighbours over TLS are met; made once, apart, since authorities are files.
pub(super) async fn connector(
    kept: &Arc<std::sync::OnceLock<Result<TlsConnector, String>>>,
    authorities: Option<std::path::PathBuf>,
) -> Result<TlsConnector, String> {
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    };
    if kept.get().is_none() {
        let made = tokio::task::spawn_blocking(move || {
            let mut roots = RootCertStore::empty();
            match authorities {
                Some(file) => {
                    let read =
                        CertificateDer::pem_file_iter(&file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                    roots.add_parsable_certificates(read.map_err(|e| format!("{}: {e}", file.display()))?);
                }
                None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            }
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?;
            let config = config.with_root_certificates(roots).with_no_client_auth();
            Ok(TlsConnector::from(Arc::new(config)))
        });
        let made = made.await.unwrap_or_else(|e| Err(e.to_string()));
        let _ = kept.set(made);
    }
    kept.get().cloned().unwrap_or_else(|| Err("no authorities".to_owned()))
}

/// Takes connections until the socket fails.
pub(super) async fn accept(door: Door, weak: Weak<RefCell<Shared>>) -> std::io::Error {
    let Door { transport, listener, tls, .. } = door;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, kit::net::canonical(peer)),
            // Out of file descriptors passes; anything else comes again and is seen then.
            Err(e) => {
                tracing::warn!(error = %e, "a SIP connection was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let Some(shared) = weak.upgrade() else { return std::io::ErrorKind::Interrupted.into() };
        let Some((id, out)) = shared.borrow_mut().open(transport, peer) else { continue };
        let share = shared.borrow().unfinished.share(kit::throttle::network(peer.ip()));
        let intake = shared.borrow().intake;
        let alarms = shared.borrow().registrar.node.alarms().clone();
        drop(shared);
        let (weak, tls) = (weak.clone(), tls.clone());
        actix::spawn(async move {
            let flow = Flow { transport, peer, connection: id };
            let stream = Counted { stream, share: share.clone(), alarms };
            let take = |bytes: Bytes| {
                share.clear();
                // A keep-alive is an empty message.
                if !bytes.is_empty() {
                    got(&weak, &bytes, flow);
                }
            };
            match (tls, transport) {
                (None, Transport::Ws) => stream::serve_web(stream, out, intake, take).await,
                (None, _) => stream::serve(stream, out, intake, take).await,
                (Some(tls), _) => {
                    let shaken = tokio::time::timeout(intake.handshake(), tls.accept(stream)).await;
                    match shaken {
                        Ok(Ok(sealed)) if transport == Transport::Wss => {
                            stream::serve_web(sealed, out, intake, take).await;
                        }
                        Ok(Ok(sealed)) => stream::serve(sealed, out, intake, take).await,
                        // Whoever does not speak TLS is nobody to tell.
                        _ => {}
                    }
                }
            }
            closed(&weak, transport, peer, id);
        });
    }
}

/// Takes datagrams, many at a time.
pub(super) async fn datagrams(udp: Arc<Port>, weak: Weak<RefCell<Shared>>) -> std::io::Error {
    let mut buffer = BytesMut::new();
    loop {
        if let Err(e) = udp.readable().await {
            return e;
        }
        let Some(shared) = weak.upgrade() else { return std::io::ErrorKind::Interrupted.into() };
        if let Err(e) = take_datagrams(&udp, &mut shared.borrow_mut(), &mut buffer) {
            return e;
        }
        drop(shared);
        tokio::task::yield_now().await;
    }
}

pub(super) fn take_datagrams(udp: &Port, shared: &mut Shared, buffer: &mut BytesMut) -> std::io::Result<()> {
    for _ in 0..BATCH {
        buffer.resize(MAX_MESSAGE, 0);
        match udp.take(buffer) {
            Ok((length, peer)) => {
                if length > shared.intake.message_bytes {
                    metrics::counter!("hypha_sip_refused_total", "reason" => "long").increment(1);
                    continue;
                }
                // Keep-alives: line ends, or nothing at all.
                if buffer[..length].iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                shared.receive(&bytes, Flow::udp(peer));
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
            // ICMP told that somebody we sent to has gone.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_peer_is_told_an_address_that_it_can_reach() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (own, peer, advertised, name) in [
            ("[::]:5060", "127.0.0.1:5062", None, "127.0.0.1:5060"),
            ("[::]:5060", "[::ffff:127.0.0.1]:5062", None, "127.0.0.1:5060"),
            ("[::]:5060", "[::1]:5062", None, "[::1]:5060"),
            ("0.0.0.0:5060", "127.0.0.1:5062", Some("sip.example.com"), "127.0.0.1:5060"),
            ("10.0.0.5:5060", "192.168.1.7:5062", Some("203.0.113.9"), "10.0.0.5:5060"),
            ("10.0.0.5:5060", "198.51.100.7:5062", Some("203.0.113.9"), "203.0.113.9:5060"),
            ("10.0.0.5:5060", "[2001:db8::7]:5062", Some("2001:db8::1"), "[2001:db8::1]:5060"),
        ] {
            assert_eq!(named(at(own), at(peer), advertised), name, "{own} {peer}");
        }
    }

    #[tokio::test]
    async fn any_port_is_one_that_is_free_for_both() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut held = Vec::new();
        for _ in 0..200 {
            // Ports that only TCP holds are met sooner or later.
            held.push(TcpListener::bind(any).await.expect("a port"));
            let (udp, tcp) = plain(any).await.expect("two sockets");
            assert_eq!(udp.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
        }
        let taken = held[0].local_addr().expect("bound");
        assert!(plain(taken).await.is_err(), "a port that was asked for is that one or none");
    }
}
