//! Where a neighbour is (RFC 3263): an address, a host with a port, or a domain whose servers DNS names (SRV).

use std::net::SocketAddr;

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};

use crate::transaction::Transport;

/// Addresses of one neighbour at most.
const MOST: usize = 8;

/// Looks names up.
pub(crate) struct Resolver {
    dns: Option<TokioResolver>,
    /// The name server is the configuration's: the system is not asked.
    own: bool,
}

impl Resolver {
    /// With the system's name servers, or another.
    pub(crate) fn new(server: Option<SocketAddr>) -> Self {
        let builder = match server {
            Some(server) => {
                let at = |mut to: ConnectionConfig| {
                    to.port = server.port();
                    to
                };
                let both = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                let servers = vec![NameServerConfig::new(server.ip(), true, both)];
                let config = ResolverConfig::from_parts(None, vec![], servers);
                Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
            }
            None => TokioResolver::builder_tokio(),
        };
        let dns = builder.and_then(hickory_resolver::ResolverBuilder::build);
        if let Err(e) = &dns {
            tracing::warn!(error = %e, "no name servers: neighbours are found by addresses and host names only");
        }
        Self { dns: dns.ok(), own: server.is_some() }
    }

    /// Where a neighbour is, the best first; nothing where it cannot be found now. Port 0 asks for its servers.
    pub(crate) async fn find(&self, host: &str, port: u16, transport: Transport) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        if port == 0 {
            for (target, port) in self.servers(host, transport).await {
                found.extend(self.addresses(&target, port).await);
            }
        }
        if found.is_empty() {
            let usual = if transport == Transport::Tls { 5061 } else { 5060 };
            found = self.addresses(host, if port == 0 { usual } else { port }).await;
        }
        found.truncate(MOST);
        found
    }

    /// The servers of a domain, by priority, then the heavier first.
    async fn servers(&self, host: &str, transport: Transport) -> Vec<(String, u16)> {
        let service = match transport {
            Transport::Tls => "_sips._tcp",
            Transport::Tcp => "_sip._tcp",
            _ => "_sip._udp",
        };
        let Some(dns) = &self.dns else { return Vec::new() };
        let Ok(answer) = dns.srv_lookup(format!("{service}.{}.", host.trim_end_matches('.'))).await else {
            return Vec::new();
        };
        let mut all: Vec<(u16, std::cmp::Reverse<u16>, String, u16)> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => {
                    let target = srv.target.to_utf8();
                    (target != ".").then_some((srv.priority, std::cmp::Reverse(srv.weight), target, srv.port))
                }
                _ => None,
            })
            .collect();
        all.sort();
        all.into_iter().take(MOST).map(|(_, _, target, port)| (target, port)).collect()
    }

    async fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        if let Some(dns) = self.dns.as_ref().filter(|_| self.own) {
            let found = dns.lookup_ip(format!("{}.", host.trim_end_matches('.'))).await;
            return found
                .map(|all| all.iter().map(|ip| SocketAddr::new(ip, port)).collect())
                .unwrap_or_default();
        }
        let found = tokio::net::lookup_host((host.trim_end_matches('.'), port)).await;
        found.map(Iterator::collect).unwrap_or_default()
    }
}
