//! SIP with stock peers: baresip and SIPp register.

mod support;

use std::{
    net::{SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use support::{
    Node,
    calls::{self, until},
    phones::{self, PATIENCE, Sipp, SoftPhone},
};

fn estate(digest: &str) -> Node {
    let node = Node::start_with(&format!("[sip]\nlisten = \"127.0.0.1:0\"\ndigest = \"{digest}\"\n"), &[]);
    node.ok("domain/declare voip.test");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-1}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    node.ok("domain/voip.test/sip/user/declare ctx g 102@voip.test alias-as-user no_qop_authentication login-as-user Geheim77");
    node
}

fn registered(node: &Node) -> Vec<serde_json::Value> {
    serde_json::from_str(&node.ok("domain/voip.test/sip/user/registered --json")).expect("rows")
}

#[test]
fn phones_register_over_udp_and_tcp_and_stay_registered_over_kill_9() {
    let mut node = estate("md5");
    let at = node.sip();
    let udp = SoftPhone::silent(at, "100", "udp", "Geheim77");
    udp.says("200 OK");
    let tcp = SoftPhone::silent(at, "101", "tcp", "Geheim77");
    tcp.says("200 OK");
    let wrong = SoftPhone::silent(at, "102", "udp", "falsch");
    wrong.says("403 Forbidden");
    let rows = registered(&node);
    let ifaces: Vec<_> = rows.iter().map(|r| r["interface"].as_str().unwrap_or_default()).collect();
    assert_eq!(ifaces, ["100@voip.test", "101@voip.test"], "{rows:?}");
    let received = |i: usize| rows[i]["registration"]["received"].as_str().unwrap_or_default().to_owned();
    assert!(received(0).starts_with("udp 127.0.0.1:") && received(1).starts_with("tcp 127.0.0.1:"));
    let agent = rows[0]["registration"]["user_agent"].as_str().unwrap_or_default();
    assert!(agent.starts_with("baresip"), "{agent}");

    node.kill();
    node.restart();
    assert_eq!(registered(&node), rows, "every acknowledged registration is there");
    node.ok("domain/voip.test/sip/user/unregister 100@voip.test");
    assert_eq!(registered(&node).len(), 1);
    // Neither passwords nor what proves them are written anywhere.
    let log = std::fs::read_to_string(node.data().parent().expect("a parent").join("log")).expect("there");
    assert!(!log.contains("Geheim77") && !log.contains("response="), "{log}");
}

/// One transaction by hand: what a phone would send, and the answer.
struct Phone {
    socket: UdpSocket,
    node: SocketAddr,
    cseq: u32,
}

impl Phone {
    fn new(node: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        Self { socket, node, cseq: 0 }
    }

    fn register(&mut self, user: &str, more: &str) -> String {
        self.register_in("voip.test", user, more)
    }

    fn register_in(&mut self, domain: &str, user: &str, more: &str) -> String {
        self.cseq += 1;
        let (cseq, port) = (self.cseq, self.socket.local_addr().expect("bound").port());
        let text = format!(
            "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{port}x{cseq};rport\r\n\
             From: <sip:{user}@{domain}>;tag=1\r\nTo: <sip:{user}@{domain}>\r\nCall-ID: {port}\r\n\
             CSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\n{more}Content-Length: 0\r\n\r\n"
        );
        // As a phone does, it asks again when nothing comes.
        self.socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
        let mut buffer = [0; 8192];
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.socket.send_to(text.as_bytes(), self.node).expect("sent");
            match self.socket.recv(&mut buffer) {
                Ok(n) => return String::from_utf8_lossy(&buffer[..n]).into_owned(),
                Err(e) => assert!(Instant::now() < deadline, "no answer: {e}"),
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_registration_is_said() {
    let node = estate("both");
    let mut phone = Phone::new(node.sip());
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let challenged = phone.register("100", "Contact: <sip:100@127.0.0.1>\r\n");
    assert_eq!(status(&challenged), "401");
    let challenges: Vec<&str> = challenged.lines().filter(|l| l.starts_with("WWW-Authenticate")).collect();
    assert!(
        challenges.len() == 2 && challenges[0].contains("SHA-256") && challenges[1].contains("MD5"),
        "{challenged}"
    );
    let unknown = phone.register("999", "");
    assert_eq!(status(&unknown), "401", "an unknown name looks like a known one: {unknown}");
    let bad = phone.register("100", "Authorization: Digest realm=\"voip.test\r\n");
    assert!(status(&bad) == "400" && bad.contains("a quote is not closed"), "{bad}");
    let forged = "Authorization: Digest username=\"100\", realm=\"voip.test\", nonce=\"00\", uri=\"sip:x\", response=\"0\"\r\n";
    let stale = phone.register("100", forged);
    assert!(status(&stale) == "401" && stale.contains("stale=true"), "{stale}");
    let required = phone.register("100", "Require: gruu\r\n");
    assert!(status(&required) == "420" && required.contains("Unsupported: gruu"), "{required}");

    node.ok("domain/declare open.test");
    let none = "domain/open.test/sip/user/declare ctx g 200@open.test alias-as-user no_authentication login-as-user x";
    node.ok(none);
    let mut open = |more: &str| phone.register_in("open.test", "200", more);
    let brief = open("Contact: <sip:200@127.0.0.1>;expires=5\r\n");
    assert!(status(&brief) == "423" && brief.contains("Min-Expires: 60"), "{brief}");
    let star = open("Contact: *\r\n");
    assert_eq!(status(&star), "400", "{star}");
    let broken = open("Contact: <sip:200@127.0.0.1\r\n");
    assert!(status(&broken) == "400" && broken.contains("not closed"), "{broken}");
    let good = open(
        "Contact: \"A, B\" <sip:200@127.0.0.1:5070;ob>;q=0.5, <sip:200@127.0.0.1:5072>\r\nPath: <sip:p.test;lr>\r\nSupported: path\r\n",
    );
    assert!(
        status(&good) == "200"
            && good.matches("\r\nContact:").count() == 2
            && good.contains("Path: <sip:p.test;lr>"),
        "{good}"
    );
    assert!(good.contains("expires=3600") || good.contains("expires=3599"), "{good}");
    let gone = open("Contact: *\r\nExpires: 0\r\n");
    assert!(status(&gone) == "200" && !gone.contains("\r\nContact:"), "{gone}");
}

#[test]
fn elph_clients_are_counted_and_the_one_too_many_is_refused() {
    let node = estate("md5");
    node.ok("domain/voip.test/sip/user/declare ctx g 20{0-1}@voip.test alias-as-user no_authentication login-as-user x");
    node.ok("domain/voip.test/properties/restrictions/set elph\\member\\limit 1");
    let at = node.sip();
    let elph = |user: &str, phone: &mut Phone| {
        let more = format!("User-Agent: Elph-desktop 2.1.1+6\r\nContact: <sip:{user}@127.0.0.1>\r\n");
        phone.register(user, &more)
    };
    let (mut first, mut second) = (Phone::new(at), Phone::new(at));
    assert!(elph("200", &mut first).starts_with("SIP/2.0 200"));
    let refused = elph("201", &mut second);
    let warning = "Warning: 399 Elph \"Licence limit is exceeded!\"";
    assert!(refused.starts_with("SIP/2.0 403") && refused.contains(warning), "{refused}");
    assert!(elph("200", &mut first).starts_with("SIP/2.0 200"), "a refresh is not refused");
    let usage = node.ok("system/licence/elph/usage --domains");
    let row = |name: &str| usage.lines().find(|l| l.contains(name)).unwrap_or_default().to_owned();
    let cells: Vec<String> = row("voip.test").split('|').map(|c| c.trim().to_owned()).collect();
    assert_eq!(cells[1..4], ["voip.test", "1", "1"], "{usage}");
    let listed = node.ok("domain/voip.test/sip/user/elph-registered *");
    assert!(listed.contains("200@voip.test") && listed.contains("Elph-desktop 2.1.1+6"), "{listed}");
    assert!(listed.contains("elements: 1"), "{listed}");
}

#[test]
fn who_guesses_passwords_has_to_wait() {
    let node = estate("md5");
    let at = node.sip();
    let dir = tempfile::tempdir().expect("a directory");
    let scenario = dir.path().join("guess.xml");
    std::fs::write(&scenario, include_str!("support/register.xml")).expect("written");
    let sipp = |user: &str, password: &str, calls: u32| {
        let mut sipp = Command::new("sipp");
        sipp.arg(at.to_string()).arg("-sf").arg(&scenario).args(["-i", "127.0.0.1", "-nostdin", "-au", user]);
        sipp.args([
            "-ap",
            password,
            "-m",
            &calls.to_string(),
            "-l",
            "1",
            "-key",
            "user",
            user,
            "-timeout",
            "30",
        ]);
        let out = sipp.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        out.status().expect("sipp runs; ops/test installs it").success()
    };
    assert!(sipp("100", "Geheim77", 3), "SIPp registers");
    assert!(!sipp("100", "falsch", 25));
    assert!(!sipp("100", "Geheim77", 1), "twenty failures, and the right password waits too");
    assert!(sipp("101", "Geheim77", 1), "another subscriber at the same address does not wait");
}

#[test]
fn garbage_leaves_the_node_answering() {
    let node = estate("md5");
    let at = node.sip();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let seed = b"REGISTER sip:voip.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\nCSeq: 1 REGISTER\r\nTo: <sip:1@voip.test>\r\n\r\n";
    for _ in 0..20_000 {
        let mut datagram = seed.to_vec();
        for _ in 0..8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state >> 8) as usize % datagram.len();
            datagram[at] = state as u8;
        }
        datagram.truncate(1 + (state >> 32) as usize % seed.len());
        let _ = socket.send_to(&datagram, at);
    }
    assert!(Phone::new(at).register("100", "").starts_with("SIP/2.0 401"), "the node answers again");
    assert!(
        node.ok("node/crash/list").contains("elements: 0") || !node.ok("node/crash/list").contains("sip/")
    );
}

/// Asks for the answer at the socket it was sent from: RFC 4475's senders are elsewhere.
fn with_rport(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let start = text.split("\r\n").scan(0, |at, line| {
        let here = *at;
        *at += line.len() + 2;
        Some((here, line))
    });
    let lines: Vec<(usize, &str)> = start.collect();
    let is_via = |l: &str| {
        let name = l.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        l.contains(':') && (name == "via" || name == "v")
    };
    let Some(via) = lines.iter().position(|(_, l)| is_via(l)) else { return message.to_vec() };
    let last =
        (via + 1..lines.len()).take_while(|i| lines[*i].1.starts_with([' ', '\t'])).last().unwrap_or(via);
    let whole = &text[lines[via].0..lines[last].0 + lines[last].1.len()];
    let end = lines[via].0 + whole.find(',').unwrap_or(whole.len());
    // Bytes, since some messages are no text.
    let at = if text.len() == message.len() { end } else { String::from_utf8_lossy(message)[..end].len() };
    [&message[..at], b";rport", &message[at..]].concat()
}

/// What RFC 4475 asks for: statuses, none of them for silence; `0` stands for any but 400.
const TORTURES: &[(&str, &[u16])] = &[
    ("wsinv", &[0]),
    ("intmeth", &[501]),
    ("esc01", &[0]),
    ("escnull", &[0]),
    ("esc02", &[501]),
    ("lwsdisp", &[200]),
    ("longreq", &[0]),
    ("dblreq", &[0]),
    ("semiuri", &[200]),
    ("transports", &[200]),
    ("mpart01", &[0]),
    ("unreason", &[]),
    ("noreason", &[]),
    ("badinv01", &[400]),
    ("clerr", &[400]),
    ("ncl", &[400]),
    ("scalar02", &[400]),
    ("scalarlg", &[]),
    ("quotbal", &[400]),
    ("ltgtruri", &[400]),
    ("lwsruri", &[400]),
    ("lwsstart", &[400]),
    ("trws", &[400, 200]),
    ("escruri", &[400]),
    ("baddate", &[400]),
    ("regbadct", &[400]),
    ("badaspec", &[400, 200]),
    ("baddn", &[400, 200]),
    ("badvers", &[505]),
    ("mismatch01", &[400]),
    ("mismatch02", &[400, 501]),
    ("bigcode", &[]),
    ("badbranch", &[200]),
    ("insuf", &[400]),
    ("unkscm", &[416]),
    ("novelsc", &[416]),
    ("unksm2", &[400, 404, 416]),
    ("bext01", &[420]),
    ("invut", &[415]),
    ("regaut01", &[401]),
    ("multi01", &[400]),
    ("mcl01", &[400]),
    ("bcast", &[]),
    ("zeromf", &[200, 483]),
    ("cparam01", &[401]),
    ("cparam02", &[401]),
    ("regescrt", &[401]),
    ("sdp01", &[406, 0]),
    ("inv2543", &[0]),
];

#[test]
fn every_torture_of_rfc_4475_gets_the_answer_it_asks_for() {
    let node = estate("md5");
    node.ok("domain/declare example.com");
    let to = node.sip();
    let files = std::fs::read_dir("fixtures/rfc4475").expect("the messages").flatten();
    let all = files.filter(|f| f.path().extension().is_some_and(|e| e == "dat")).count();
    assert_eq!(all, TORTURES.len(), "each message has its expectation");
    let mut wrong = Vec::new();
    for (name, wanted) in TORTURES {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let message = std::fs::read(format!("fixtures/rfc4475/{name}.dat")).expect("a message");
        socket.send_to(&with_rport(&message), to).expect("sent");
        // Behind it goes a question that is always answered, so that silence is seen without waiting.
        let me = socket.local_addr().expect("an address");
        let probe = format!(
            "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me};rport;branch=z9hG4bKprobe{name}\r\nFrom: <sip:p@p>;tag=1\r\n\
             To: <sip:p@p>\r\nCall-ID: probe{name}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(probe.as_bytes(), to).expect("sent");
        let (mut statuses, mut buffer) = (Vec::new(), [0; 65_535]);
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if answer.contains(&format!("probe{name}")) {
                break;
            }
            let status: u16 = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
            if status >= 200 {
                statuses.push(status);
            }
        }
        // A registration is answered a moment after the probe.
        if statuses.is_empty() && !wanted.is_empty() {
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
            if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                statuses.extend(answer.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok()));
            }
        }
        let good = match statuses.as_slice() {
            [] => wanted.is_empty(),
            [one] => wanted.contains(one) || (wanted.contains(&0) && *one != 400 && *one >= 200),
            _ => false,
        };
        if !good {
            wrong.push(format!("{name}: {statuses:?}, not {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_phone_registers_over_tls_and_calls_come_to_it_on_its_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).display().to_string();
    support::certificate(dir.path(), "127.0.0.1", &["subjectAltName=IP:127.0.0.1"]);
    let doors = format!(
        "[sip]\nlisten = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
         [media]\nfirst_port = 62100\nlast_port = 62199\n",
        file("cert.pem"),
        file("key.pem")
    );
    let node = Node::start_with(&doors, &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-1}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    let tls = node.sip_over("tls");
    let tone = dir.path().join("tone.wav");
    phones::tone(&tone, 700.0, 60);
    let bob = SoftPhone::baresip(tls, "101", "tls", "Geheim77", ";answermode=auto", Some(&tone));
    bob.says("200 OK");
    let rows = registered(&node);
    assert!(
        rows[0]["registration"]["received"].as_str().is_some_and(|r| r.starts_with("tls 127.0.0.1:")),
        "{rows:?}"
    );
    let mut alice = SoftPhone::baresip(node.sip(), "100", "udp", "Geheim77", "", Some(&tone));
    alice.says("200 OK");
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");
    alice.types("/hangup");
    until("the call has ended", || node.ok("domain/voip.test/call/list").contains("elements: 0"));
}

#[test]
fn a_subscriber_writes_to_a_number_and_hears_what_came_of_it() {
    let node = estate("md5");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 20{0-1}@voip.test alias-as-user no_authentication login-as-user x");
    let to = node.sip();
    let open = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket
    };
    let (writer, reader) = (open(), open());
    let read = |socket: &UdpSocket| {
        let mut buffer = [0; 65_535];
        let (length, _) = socket.recv_from(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let at = reader.local_addr().expect("an address");
    let register = format!(
        "REGISTER sip:voip.test SIP/2.0\r\nVia: SIP/2.0/UDP {at};rport;branch=z9hG4bKr\r\nFrom: <sip:201@voip.test>;tag=1\r\n\
         To: <sip:201@voip.test>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:201@{at}>\r\nContent-Length: 0\r\n\r\n"
    );
    reader.send_to(register.as_bytes(), to).expect("sent");
    assert!(read(&reader).starts_with("SIP/2.0 200"));
    let write = |number: &str, text: &str| {
        let message = format!(
            "MESSAGE sip:{number}@voip.test SIP/2.0\r\nVia: SIP/2.0/UDP x;rport;branch=z9hG4bK{number}{}\r\nFrom: <sip:200@voip.test>;tag=1\r\n\
             To: <sip:{number}@voip.test>\r\nCall-ID: m{number}\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{text}",
            text.len(),
            text.len()
        );
        writer.send_to(message.as_bytes(), to).expect("sent");
    };
    write("201", "Привет");
    let got = read(&reader);
    assert!(got.starts_with(&format!("MESSAGE sip:201@{at} SIP/2.0")) && got.ends_with("Привет"), "{got}");
    assert!(got.contains("From: <sip:200@voip.test>;tag="), "{got}");
    let lines = got
        .split("\r\n")
        .filter(|l| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|n| l.starts_with(n)));
    let answer = format!(
        "SIP/2.0 202 Accepted\r\n{}\r\nContent-Length: 0\r\n\r\n",
        lines.collect::<Vec<_>>().join("\r\n")
    );
    reader.send_to(answer.as_bytes(), to).expect("sent");
    assert!(read(&writer).starts_with("SIP/2.0 202"));
    write("200", "nobody is registered there");
    assert!(read(&writer).starts_with("SIP/2.0 480"));
    write("201", &"x".repeat(1301));
    assert!(read(&writer).starts_with("SIP/2.0 413"));
}

#[tokio::test]
async fn a_websocket_speaks_sip_and_nothing_else() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let node = Node::start_with("[sip]\nlisten = \"127.0.0.1:0\"\nws = \"127.0.0.1:0\"\n", &[]);
    node.ok("domain/declare voip.test");
    node.ok("domain/voip.test/sip/user/declare ctx g 100@voip.test alias-as-user no_authentication login-as-user x");
    let at = node.sip_over("ws").to_string();
    let open = |protocol: Option<&'static str>| {
        let at = at.clone();
        async move {
            let mut request = format!("ws://{at}/").into_client_request().expect("a request");
            if let Some(protocol) = protocol {
                request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a value"));
            }
            let stream = tokio::net::TcpStream::connect(&at).await.expect("connected");
            tokio_tungstenite::client_async(request, stream).await
        }
    };
    assert!(open(None).await.is_err() && open(Some("chat")).await.is_err(), "RFC 7118 names the protocol");
    let (mut socket, answer) = open(Some("sip")).await.expect("opened");
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "sip");
    let register = "REGISTER sip:voip.test SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKasudf\r\n\
        From: <sip:100@voip.test>;tag=1\r\nTo: <sip:100@voip.test>\r\nCall-ID: ws\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\n\
        Contact: <sip:100@df7jal23ls0d.invalid;transport=ws>;+sip.ice\r\nContent-Length: 0\r\n\r\n";
    socket.send(Message::text(register)).await.expect("sent");
    let said =
        socket.next().await.expect("an answer").expect("a frame").into_text().expect("text").to_string();
    assert!(said.starts_with("SIP/2.0 200 OK") && said.contains("df7jal23ls0d.invalid"), "{said}");
    let rows = registered(&node);
    assert!(
        rows[0]["registration"]["received"].as_str().is_some_and(|r| r.starts_with("ws 127.0.0.1:")),
        "{rows:?}"
    );
    assert_eq!(rows[0]["registration"]["ice"], true);
    socket.send(Message::text("garbage")).await.expect("sent");
    socket
        .send(Message::text(register.replace("CSeq: 1", "CSeq: 2").replace("asudf", "again")))
        .await
        .expect("sent");
    let again =
        socket.next().await.expect("an answer").expect("a frame").into_text().expect("text").to_string();
    assert!(again.starts_with("SIP/2.0 200 OK"), "garbage does no harm: {again}");
}

#[test]
fn phones_watch_each_other_and_switch_services_from_their_menus() {
    let node = calls::estate();
    node.ok("domain/voip.test/sip/user/declare ctx g 110@voip.test alias-as-user no_authentication login-as-user Geheim77");
    // A phone's own list of contacts, and its light for messages.
    let dir = tempfile::tempdir().expect("a directory");
    let low = dir.path().join("low.wav");
    phones::tone(&low, 440.0, 10);
    let mut watched = SoftPhone::baresip(node.sip(), "101", "udp", "Geheim77", "", Some(&low));
    watched.says("200 OK");
    let watching = SoftPhone::watching(node.sip(), "100", "Geheim77", "sip:101@voip.test");
    watching.says("Online");
    // A lamp follows a call; it ends where it began.
    let lamp = Sipp::start("watch.xml", node.sip(), &["-m", "1"]);
    let subscribed = |count: u64| node.endpoint()["subscriptions"].as_u64().is_some_and(|n| n >= count);
    until("the lamp watches", || subscribed(2));
    let mut other = SoftPhone::baresip(node.sip(), "102", "udp", "Geheim77", "", Some(&low));
    other.says("200 OK");
    let told = || node.endpoint()["notifications"].as_u64().unwrap_or_default();
    let before = told();
    watched.types("/dial sip:102@voip.test");
    // The lamp, and the list of the watching phone, which does not care for calls that ring.
    until("the lamp blinks", || told() > before);
    other.types("/accept");
    watched.says("Call established");
    calls::talked(&node, 2);
    watched.types("/hangup");
    lamp.ends();
    // A key of the phone switches a service, an operator switches it back, and the phone shows it.
    let key = Sipp::start("feature.xml", node.sip(), &["-m", "1"]);
    let dnd = || {
        let rows = node.rows("domain/voip.test/ss/list 110");
        rows.iter().any(|r| r["service"] == "dnd" && r["active"] == true)
    };
    until("do not disturb is on", dnd);
    node.ok("domain/voip.test/ss/dnd/deactivate 110");
    key.ends();
}

#[test]
fn a_call_that_was_diverted_from_its_number_before_is_a_loop() {
    let node = calls::estate();
    node.ok("domain/voip.test/sip/user/declare ctx g 110@voip.test alias-as-user no_authentication login-as-user Geheim77");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let port = socket.local_addr().expect("bound").port();
    let final_answer = |number: u32, history: &str| {
        let invite = format!(
            "INVITE sip:102@voip.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKloop{number};rport\r\n\
             From: <sip:110@voip.test>;tag=1\r\nTo: <sip:102@voip.test>\r\nCall-ID: loop{number}{port}\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:110@127.0.0.1:{port}>\r\n{history}Content-Length: 0\r\n\r\n"
        );
        socket.send_to(invite.as_bytes(), node.sip()).expect("sent");
        let mut buffer = [0; 8192];
        loop {
            let length = socket.recv(&mut buffer).expect("an answer");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let mine = text.contains(&format!("loop{number}{port}"));
            let code = text.split(' ').nth(1).unwrap_or_default().to_owned();
            if mine && !code.starts_with('1') {
                return code;
            }
        }
    };
    let once = "History-Info: <sip:102@voip.test>;index=1\r\n";
    assert_eq!(final_answer(1, ""), "480", "nobody is registered there");
    assert_eq!(final_answer(2, once), "480", "it comes back to the number once");
    assert_eq!(final_answer(3, &format!("{once}{once}")), "483", "and for ever");
}
