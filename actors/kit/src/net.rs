//! Addresses by where they are.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Whether an address is of this machine or of a network inside: private (RFC 1918, RFC 4193), loopback or link-local. It means the same
/// host to whoever is in there, and nothing to a peer outside.
///
/// ```
/// assert!(kit::net::is_inner("::ffff:192.168.1.7".parse()?));
/// assert!(!kit::net::is_inner("203.0.113.9".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn is_inner(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// An address as its own family writes it: a socket for both families shows IPv4 as a mapped address (RFC 4291, 2.5.5.2).
pub fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// A network, `192.0.2.0/24`, or one address as a network of its own.
///
/// ```
/// assert!(kit::net::network("192.0.2.0/24").is_some_and(|n| n.contains(&std::net::IpAddr::from([192, 0, 2, 7]))));
/// assert!(kit::net::network("::1").is_some() && kit::net::network("10.0.0.0/99").is_none());
/// ```
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
