//! Addresses by where they are.

use std::net::IpAddr;

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
