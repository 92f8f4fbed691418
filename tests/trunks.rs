//! Trunks over TCP and TLS, found by DNS, with more than one server; phones of both families on one socket; bodies of several parts.

mod support;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use support::{
    Node,
    calls::{cdrs, media_ports, until},
    phones::{self, Sipp},
};

/// A name server that knows servers (SRV: priority, weight, port, target) and addresses.
fn name_server(
    servers: HashMap<String, Vec<(u16, u16, u16, String)>>,
    hosts: HashMap<String, Ipv4Addr>,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("bound");
    let encoded = |name: &str| {
        let mut out = Vec::new();
        for label in name.trim_end_matches('.').split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let (mut at, mut labels) = (12, Vec::new());
            while query[at] != 0 {
                let size = usize::from(query[at]);
                labels.push(String::from_utf8_lossy(&query[at + 1..=at + size]).to_lowercase());
                at += size + 1;
            }
            let (name, kind) = (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]));
            let mut records: Vec<(u16, Vec<u8>)> = Vec::new();
            if let (33, Some(all)) = (kind, servers.get(&name)) {
                for (priority, weight, port, target) in all {
                    let mut data: Vec<u8> =
                        [*priority, *weight, *port].iter().flat_map(|n| n.to_be_bytes()).collect();
                    data.extend(encoded(target));
                    records.push((33, data));
                }
            }
            if let (1, Some(ip)) = (kind, hosts.get(&name)) {
                records.push((1, ip.octets().to_vec()));
            }
            let mut answer = query[..2].to_vec();
            answer.extend([0x85, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
            answer.extend_from_slice(&query[12..at + 5]);
            for (kind, data) in records {
                answer.extend([0xc0, 12]);
                answer.extend(kind.to_be_bytes());
                answer.extend([0, 1, 0, 0, 0, 30]);
                answer.extend((data.len() as u16).to_be_bytes());
                answer.extend(data);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    at
}

/// A node whose domain sends every call to the trunk `on`.
fn passing_on(more: &str) -> Node {
    let node = Node::start_with(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{more}{}", media_ports()), &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<external><trunk value=\"on\"/></external>");
    node
}

fn declare(node: &Node, name: &str, host: &str, port: u16) {
    node.ok(&format!(
        "domain/voip.test/trunk/sip/declare ctx g {name} set static {host} {port} sip-proxy 5060"
    ));
}

/// The far node: calls come from anywhere on loopback, and go on to SIPp.
fn far(more: &str) -> (Node, Sipp) {
    let node = passing_on(more);
    let callee = phones::free_port();
    declare(&node, "from", "192.0.2.1", 5060);
    node.ok("domain/voip.test/trunk/sip/set from allow 127.0.0.1/32");
    declare(&node, "on", "127.0.0.1", callee);
    let sipp = Sipp::built_in("uas", callee, node.sip(), &[]);
    (node, sipp)
}

/// Three calls of SIPp's come through both nodes.
fn three_calls(near: &Node, far: &Node) {
    let caller = phones::free_port();
    declare(near, "caller", "127.0.0.1", caller);
    until("the neighbour answers", || {
        near.rows("domain/voip.test/trunk/sip/health")
            .iter()
            .any(|h| h["trunk"] == "on" && h["health"]["up"] == true)
    });
    let arguments = ["-s", "73832000001", "-m", "3", "-r", "3", "-d", "200"];
    Sipp::built_in("uac", caller, near.sip(), &arguments).ends();
    for node in [near, far] {
        until("the records are there", || cdrs(node).len() == 3);
        assert!(cdrs(node).iter().all(|c| c["cdr"]["answered"].is_string()));
    }
}

#[test]
fn a_trunk_over_tcp_takes_the_server_of_dns_that_lives() {
    let (far, _callee) = far("");
    // A port where nobody listens comes first.
    let dead = phones::free_tcp_port();
    let servers =
        vec![(10, 5, dead, "one.far.test".to_owned()), (20, 5, far.sip().port(), "two.far.test".to_owned())];
    let hosts = ["one.far.test", "two.far.test"].map(|h| (h.to_owned(), Ipv4Addr::LOCALHOST));
    let dns = name_server([("_sip._tcp.far.test".to_owned(), servers)].into(), hosts.into());
    let near = passing_on(&format!("dns = \"{dns}\"\n"));
    declare(&near, "on", "far.test", 0);
    let wrong = near.ssh("domain/voip.test/trunk/sip/set on transport sctp", b"");
    assert_eq!(wrong.status, 2, "{wrong:?}");
    near.ok("domain/voip.test/trunk/sip/set on transport tcp");
    three_calls(&near, &far);
    assert!(far.endpoint()["streams"].as_u64().is_some_and(|n| n > 0), "they came over TCP");
}

#[test]
fn a_trunk_over_tls_wants_its_neighbours_name_proved() {
    let dir = tempfile::tempdir().expect("a directory");
    let (certificate, key) = support::certificate(
        dir.path(),
        "far",
        &["subjectAltName=DNS:far.test", "basicConstraints=critical,CA:FALSE"],
    );
    let tls = phones::free_tcp_port();
    let files =
        |c: &PathBuf, k: &PathBuf| format!("certificate = \"{}\"\nkey = \"{}\"\n", c.display(), k.display());
    let (far, _callee) = far(&format!("tls = \"127.0.0.1:{tls}\"\n{}", files(&certificate, &key)));
    let servers = vec![(10, 5, tls, "gw.far.test".to_owned())];
    let named = ["_sips._tcp.far.test", "_sips._tcp.other.test"].map(|n| (n.to_owned(), servers.clone()));
    let dns = name_server(named.into(), [("gw.far.test".to_owned(), Ipv4Addr::LOCALHOST)].into());
    let near = passing_on(&format!("dns = \"{dns}\"\nauthorities = \"{}\"\n", certificate.display()));
    declare(&near, "on", "far.test", 0);
    near.ok("domain/voip.test/trunk/sip/set on transport tls");
    three_calls(&near, &far);
    assert!(far.endpoint()["streams"].as_u64().is_some_and(|n| n > 0));

    // The same server under a name that its certificate does not have.
    let near = passing_on(&format!("dns = \"{dns}\"\nauthorities = \"{}\"\n", certificate.display()));
    declare(&near, "on", "other.test", 0);
    near.ok("domain/voip.test/trunk/sip/set on transport tls");
    until("it is told from the right one", || !near.rows("alarms/list -c sip::trunk::down").is_empty());
}

/// Answers to a phone by hand.
fn asks(from: &UdpSocket, node: SocketAddr, text: &str) -> Vec<String> {
    from.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    from.send_to(text.as_bytes(), node).expect("sent");
    let (mut answers, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let Ok((n, _)) = from.recv_from(&mut buffer) else { return answers };
        let answer = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let last = !answer.starts_with("SIP/2.0 1");
        answers.push(answer);
        if last {
            return answers;
        }
    }
}

fn register(port: u16, at: &str) -> String {
    format!(
        "REGISTER sip:voip.test SIP/2.0\r\nVia: SIP/2.0/UDP {at}:{port};branch=z9hG4bKr{port};rport\r\nFrom: <sip:100@voip.test>;tag=1\r\n\
         To: <sip:100@voip.test>\r\nCall-ID: r{port}\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:100@{at}:{port}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[test]
fn one_socket_serves_phones_of_both_families_in_their_own_addresses() {
    let node = Node::start_with("[sip]\nlisten = \"[::]:0\"\n", &[]);
    node.ok("domain/declare voip.test");
    node.ok("domain/voip.test/sip/user/declare ctx g 100@voip.test alias-as-user no_authentication login-as-user Geheim77");
    let port = node.sip().port();
    for (host, shown) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let phone = UdpSocket::bind((host, 0)).expect("a port");
        let own = phone.local_addr().expect("bound").port();
        let node_at = SocketAddr::new(host.parse().expect("an address"), port);
        let answers = asks(&phone, node_at, &register(own, shown));
        let answer = answers.last().expect("an answer");
        assert!(answer.starts_with("SIP/2.0 200") && !answer.contains("ffff"), "{answer}");
        let bare = shown.trim_matches(['[', ']']);
        assert!(
            answer.contains(&format!("received={bare}")) || answer.contains(&format!("received={shown}")),
            "{answer}"
        );
        // A call to it shows an address of its own family.
        let invite = format!(
            "INVITE sip:900@voip.test SIP/2.0\r\nVia: SIP/2.0/UDP {shown}:{own};branch=z9hG4bKi{own};rport\r\nFrom: <sip:100@voip.test>;tag=2\r\n\
             To: <sip:900@voip.test>\r\nCall-ID: i{own}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContact: <sip:100@{shown}:{own}>\r\n\
             Content-Length: 0\r\n\r\n"
        )
        .replacen("INVITE sip", "OPTIONS sip", 1);
        let answers = asks(&phone, node_at, &invite);
        assert!(answers.last().is_some_and(|a| !a.contains("::ffff:")), "{answers:?}");
    }
    let rows = node.rows("domain/voip.test/sip/user/registered");
    assert!(rows.iter().all(|r| !r["registration"]["received"].to_string().contains("ffff")), "{rows:?}");
}

#[test]
fn an_offer_among_several_parts_is_a_call() {
    let node = passing_on("");
    let (caller, callee) = (UdpSocket::bind("127.0.0.1:0").expect("a port"), phones::free_port());
    let own = caller.local_addr().expect("bound").port();
    declare(&node, "caller", "127.0.0.1", own);
    declare(&node, "on", "127.0.0.1", callee);
    let _callee = Sipp::built_in("uas", callee, node.sip(), &[]);
    let sdp = "v=0\r\no=x 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8 0\r\n";
    let invite = |number: u32, content: &str, body: &str| {
        format!(
            "INVITE sip:73832000001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKm{number}\r\n\
             From: \u{418}\u{432}\u{430}\u{43d} (\u{434}\u{43e}\u{43c}) <sip:73832999999@127.0.0.1>;tag={number}\r\nTo: <sip:73832000001@127.0.0.1>\r\n\
             Call-ID: m{number}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:x@127.0.0.1:{own}>\r\nContent-Type: {content}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let parts = |handling: &str| {
        format!(
            "--b\r\nContent-Type: application/isup\r\nContent-Disposition: signal;handling={handling}\r\n\r\n\u{1}\u{2}\r\n\
             --b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b--\r\n"
        )
    };
    let answers = asks(&caller, node.sip(), &invite(1, "multipart/mixed;boundary=b", &parts("optional")));
    assert!(
        answers.last().is_some_and(|a| a.starts_with("SIP/2.0 200") && a.contains("m=audio")),
        "{answers:?}"
    );
    let answers = asks(&caller, node.sip(), &invite(2, "multipart/mixed;boundary=b", &parts("required")));
    let refused = answers.iter().find(|a| a.contains("Call-ID: m2") && !a.starts_with("SIP/2.0 1"));
    assert!(
        refused.is_some_and(|a| a.starts_with("SIP/2.0 415") && a.contains("multipart/mixed")),
        "{answers:?}"
    );
    support::calls::end(&node);
}
