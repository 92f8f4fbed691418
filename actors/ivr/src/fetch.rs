//! Requests over HTTP that a tenant's script asks for. They reach the networks outside; loopback, the machine's own network and private ones
//! only where the configuration allows them, since services there trust whoever can ask.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use awc::http::{Method, Uri, header::HOST};
use ipnet::IpNet;

/// Where scripts may reach.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Networks inside that are allowed.
    pub networks: Arc<[IpNet]>,
    /// The node's own attendant.
    pub attendant: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is no address of a service: http://HOST[:PORT]/PATH is wanted")]
    Url(String),
    #[error("{0} cannot be found")]
    Unknown(String),
    #[error("{0} is inside; scripts reach it where [scripts] networks allows it")]
    Inside(IpAddr),
    #[error("{0}")]
    Failed(String),
}

/// Whether an address is of the networks outside: neither inside, nor nobody's or everybody's.
fn is_outside(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if kit::net::is_inner(ip) || ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            // This network, and the one between a provider and its customers (RFC 6598).
            !(v4.is_broadcast() || a == 0 || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => {
            // A translated address is as much inside as the one it stands for (RFC 6052).
            let [.., c, d] = v6.segments();
            let inner = IpAddr::from([(c >> 8) as u8, c as u8, (d >> 8) as u8, d as u8]);
            v6.segments()[..6] != [0x64, 0xff9b, 0, 0, 0, 0] || is_outside(inner)
        }
    }
}

/// Requests of scripts to the attendant, which all tenants share: to understand a piece of speech, and to note whether it was right.
/// Its names, words and records are operators'.
fn asked_of_attendant(method: &Method, path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, &parts[..]) {
        (&Method::PUT | &Method::POST, [piece]) => !piece.is_empty(),
        (&Method::GET | &Method::HEAD, ["api", "v1", "records", _, "positive" | "negative"]) => true,
        _ => false,
    }
}

impl Reach {
    fn allows(&self, at: SocketAddr) -> bool {
        let ip = at.ip().to_canonical();
        is_outside(ip) || self.networks.iter().any(|n| n.contains(&ip))
    }

    fn is_attendant(&self, at: SocketAddr) -> bool {
        self.attendant
            .is_some_and(|own| own.ip().to_canonical() == at.ip().to_canonical() && own.port() == at.port())
    }

    /// The first address of a host that may be reached. What is connected to is what was looked at: a name cannot change between.
    async fn find(&self, host: &str, port: u16, of_attendant: bool) -> Result<SocketAddr, FetchError> {
        let unknown = || FetchError::Unknown(host.to_owned());
        let all = tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?;
        let all: Vec<SocketAddr> = all.collect();
        let first = *all.first().ok_or_else(unknown)?;
        let allowed = |at: &SocketAddr| self.allows(*at) || of_attendant && self.is_attendant(*at);
        all.iter().copied().find(allowed).ok_or(FetchError::Inside(first.ip()))
    }

    /// A request to a place that may be reached; it follows nobody elsewhere.
    ///
    /// # Errors
    /// The place is none, cannot be found, or is inside.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        timeout: Duration,
    ) -> Result<awc::ClientRequest, FetchError> {
        let wrong = || FetchError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let scripts_may = asked_of_attendant(&method, uri.path());
        let at =
            tokio::time::timeout(timeout, self.find(host, authority.port_u16().unwrap_or(80), scripts_may));
        let at = at.await.map_err(|_| FetchError::Unknown(host.to_owned()))??;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let client = awc::Client::builder().timeout(timeout).disable_redirects().finish();
        Ok(client.request(method, format!("http://{at}{path}")).insert_header((HOST, authority.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn reach(networks: &[&str]) -> Reach {
        let networks = networks.iter().map(|n| n.parse().expect("a network")).collect();
        Reach { networks, attendant: None }
    }

    #[test]
    fn what_is_inside_is_reached_only_where_it_is_allowed() {
        actix_rt::System::new().block_on(inside_is_reached_where_it_is_allowed());
    }

    async fn inside_is_reached_where_it_is_allowed() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = socket.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut head = [0; 1024];
                let n = stream.read(&mut head).unwrap_or(0);
                let host = String::from_utf8_lossy(&head[..n]).to_lowercase().contains("host: localhost:");
                let text = if host { "named" } else { "not named" };
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            }
        });
        let get = |reach: Reach, url: String| async move {
            let request = reach.request(awc::http::Method::GET, &url, Duration::from_secs(5)).await?;
            let mut answer = request.send().await.map_err(|e| FetchError::Failed(e.to_string()))?;
            let body = answer.body().await.map_err(|e| FetchError::Failed(e.to_string()))?;
            Ok::<_, FetchError>(String::from_utf8_lossy(&body).into_owned())
        };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let refused = get(reach(&[]), format!("http://{host}:{}/", at.port())).await;
            assert!(
                matches!(refused, Err(FetchError::Inside(_) | FetchError::Unknown(_))),
                "{host}: {refused:?}"
            );
        }
        let allowed = get(reach(&["127.0.0.0/8"]), format!("http://localhost:{}/x?y", at.port())).await;
        assert_eq!(allowed.as_deref(), Ok("named"), "the service sees the name that was asked for");
        let own = Reach { attendant: Some(at), ..Reach::default() };
        let verdict = format!("http://127.0.0.1:{}/api/v1/records/7/positive?n=1", at.port());
        assert!(get(own.clone(), verdict).await.is_ok());
        // Names and records that all tenants share are not a script's to read or change.
        for path in ["", "api/v1/aliases", "api/v1/records", "api/v1/records/7/sound"] {
            let url = format!("http://127.0.0.1:{}/{path}", at.port());
            assert!(matches!(get(own.clone(), url).await, Err(FetchError::Inside(_))), "{path}");
        }
        let piece = |method| asked_of_attendant(&method, "/piece.wav");
        assert!(piece(Method::PUT) && piece(Method::POST) && !piece(Method::GET) && !piece(Method::DELETE));
        assert!(!asked_of_attendant(&Method::DELETE, "/api/v1/aliases/1"));
        assert!(matches!(get(own, "http://127.0.0.1:1/".into()).await, Err(FetchError::Inside(_))));
        for wrong in ["https://a.test/", "file:///etc/passwd", "http://", "http://u:p@a.test/", "gopher://x"]
        {
            assert!(matches!(get(reach(&[]), wrong.into()).await, Err(FetchError::Url(_))), "{wrong}");
        }
    }

    #[test]
    fn inside_is_all_that_no_stranger_reaches() {
        for inside in [
            "127.9.9.9",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "::",
        ] {
            assert!(!is_outside(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["192.0.2.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "64:ff9b::c000:201"] {
            assert!(is_outside(outside.parse().expect("an address")), "{outside}");
        }
    }
}
