//! The doors of operators and mediators under strangers and clumsy clients, with OpenSSH's client beside them.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use support::{
    Node,
    calls::{calls, estate, until},
    phones::{self, SoftPhone},
};

/// Connections that say nothing, or only so much.
fn silent(at: SocketAddr, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(at).expect("a connection");
        // One that was ended to make room does not mind.
        let _ = stream.write_all(says);
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn key_exchanges_that_cost_the_node_more_than_its_peer_are_not_offered() {
    let node = Node::start();
    let with = |at: SocketAddr, algorithm: &str| {
        let mut ssh = node.client_at(at, "admin", Some(&node.password));
        ssh.args(["-o", &format!("KexAlgorithms={algorithm}"), "pwd"]).stdin(Stdio::null());
        let done = ssh.output().expect("ssh runs");
        done.status.code()
    };
    for weak in [
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group-exchange-sha256",
    ] {
        assert_eq!(with(node.address, weak), Some(255), "{weak}");
    }
    for good in ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"] {
        assert_eq!(with(node.address, good), Some(0), "{good}");
    }
}

#[test]
fn silent_connections_keep_nobody_out_and_are_ended() {
    let node = Node::start();
    let files = node.files();
    // From one address, as many as it likes; then half a handshake, which takes no order to end.
    let mut crowd = silent(node.address, 100, b"");
    crowd.extend(silent(node.address, 20, b"SSH-2.0-half\r\n\x00\x00\x00\x0c\x0a\x14"));
    let began = Instant::now();
    assert_eq!(node.ok("pwd").lines().next(), Some("/"));
    assert!(began.elapsed() < Duration::from_secs(15), "the operator was let in while they waited");
    // The places of all that were too many have been given back, and nothing is left of them.
    until("the crowd was thinned", || node.files() < files + 20);
    for stream in &mut crowd[..90] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let mut rest = Vec::new();
        // Its end, or the reset of one that was cut.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(!node.log().contains("panicked"));
    let lines = node.log().matches("without a log-in").count();
    assert!((1..=20).contains(&lines), "some lines a second at most: {lines}");
}

#[test]
fn each_transport_takes_what_its_policy_says_and_its_refusals_are_counted_and_told() {
    let policy = "[intake.sip]\nconnections_of_one = 2\nmessage_bytes = 1300\n[intake.http]\nconnections_of_one = 3\n\
                  [intake.ssh]\nstrangers_of_one = 2\nstrangers = 4\n";
    let node = Node::start_with(policy, &[]);
    let refused = |counter: &str| {
        let metrics = node.metrics();
        let of = |l: &&str| l.starts_with(counter);
        metrics.lines().filter(of).filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let sip = node.sip();
    let ask = |length: usize| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
        let at = socket.local_addr().expect("bound");
        let head = format!(
            "OPTIONS sip:{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{length}\r\nFrom: <sip:a@{at}>;tag=1\r\nTo: <sip:{sip}>\r\n\
             Call-ID: {length}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\nX-Long: "
        );
        let text = format!("{head}{}\r\n\r\n", "x".repeat(length - head.len() - 4));
        socket.send_to(text.as_bytes(), sip).expect("sent");
        socket.recv(&mut [0; 2048]).is_ok()
    };
    assert!(ask(1300), "as long as it may be");
    assert!(!ask(1301));
    assert_eq!(refused("hypha_sip_refused_total{reason=\"long\"}"), 1);
    let crowd = silent(sip, 5, b"");
    until("three were too many", || refused("hypha_sip_refused_total{reason=\"streams\"}") == 3);
    let operators = silent(node.address, 6, b"");
    until("four were ended", || refused("hypha_ssh_refused_total") >= 4);
    let http: SocketAddr = node.web.trim_start_matches("http://").parse().expect("an address");
    let browsers = silent(http, 3, b"");
    let mut late = silent(http, 1, b"GET / HTTP/1.0\r\n\r\n");
    late[0].set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    assert!(!matches!(late[0].read(&mut [0; 64]), Ok(1..)), "the fourth is not served");
    drop((crowd, operators, browsers, late));
    let told = node.ok("alarms/list");
    for door in ["SIP connections", "CoCon", "web"] {
        assert!(
            told.lines().any(|l| l.contains("node::door::crowded") && l.contains(door)),
            "{door}: {told}"
        );
    }
}

#[test]
fn rsa_keys_log_in_and_an_agent_with_many_keys_too() {
    let node = Node::start();
    let dir = tempfile::tempdir().expect("a directory");
    let make = |name: &str, kind: &[&str]| {
        let file = dir.path().join(name);
        let mut keygen = std::process::Command::new("ssh-keygen");
        assert!(
            keygen.args(["-q", "-N", "", "-f"]).arg(&file).args(kind).status().expect("it runs").success()
        );
        std::fs::read_to_string(file.with_extension("pub")).expect("written").trim().to_owned()
    };
    let enters = |files: &[&str], more: &[&str]| {
        let mut ssh = node.client_at(node.address, "admin", None);
        for file in files {
            ssh.arg("-i").arg(dir.path().join(file));
        }
        ssh.args(["-o", "PreferredAuthentications=publickey", "-o", "IdentitiesOnly=yes"]).args(more);
        ssh.arg("pwd").stdin(Stdio::null()).output().expect("ssh runs").status.success()
    };
    let rsa = make("rsa", &["-t", "rsa", "-b", "2048"]);
    node.ok(&format!("cocon/user/key-add admin {rsa}"));
    assert!(enters(&["rsa"], &[]));
    assert!(enters(&["rsa"], &["-o", "PubkeyAcceptedAlgorithms=rsa-sha2-256"]));
    assert!(!enters(&["rsa"], &["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"]), "signed with SHA-1");
    // The eleventh key of an agent is the right one.
    let others: Vec<String> = (0..10).map(|n| format!("other{n}")).collect();
    others.iter().for_each(|o| drop(make(o, &["-t", "ed25519"])));
    let mut offered: Vec<&str> = others.iter().map(String::as_str).collect();
    offered.push("rsa");
    assert!(enters(&offered, &[]), "keys that fit nobody are no guesses");
    for (key, said) in [
        ("ssh-ed25519 AAAA", "not a key in OpenSSH form"),
        (make("small", &["-t", "rsa", "-b", "1024"]).as_str(), "an RSA key of 1024 bits is not taken"),
    ] {
        let refused = node.ssh(&format!("cocon/user/key-add admin {key}"), b"");
        assert!(refused.status != 0 && refused.stderr.contains(said), "{refused:?}");
    }
}

#[test]
fn a_script_on_standard_input_is_played_without_a_terminal() {
    let node = Node::start();
    let play = |script: &[u8]| {
        let mut ssh = node.client_at(node.address, "admin", Some(&node.password));
        let mut child = ssh.arg("-T").spawn().expect("ssh runs");
        child.stdin.take().expect("a pipe").write_all(script).expect("written");
        let done = child.wait_with_output().expect("it ends");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (status, out, _) = play(b"# a comment\ndomain/declare d.test\n\ncd domain/d.test\npwd");
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("ok") && out.contains("/domain/d.test"), "{out}");
    assert!(!out.contains('\x1b') && !out.contains('$'), "no prompt, no escapes: {out:?}");
    let (status, _, said) = play(b"pwd\nno/such/command\n");
    assert!(status.is_some_and(|s| s != 0) && said.contains("there is no /no"), "{status:?} {said}");
    let (status, ..) = play(b"no/such/command\npwd\n");
    assert_eq!(status, Some(0), "the status of the last command");
    let (status, out, _) = play(b"pwd\nexit\nno/such/command\n");
    assert_eq!((status, out.matches('/').count() >= 1), (Some(0), true));
}

/// A script on standard input, by somebody.
fn script(node: &Node, user: &str, password: &str) -> std::process::Child {
    let mut ssh = node.client_at(node.address, user, Some(password));
    ssh.arg("-T").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ssh.spawn().expect("ssh runs")
}

#[test]
fn a_script_that_answers_more_than_is_read_meanwhile_goes_on_to_its_end() {
    let node = Node::start();
    // Lines come in pieces while answers go out: neither direction waits for the other.
    for _ in 0..4 {
        let mut shell = script(&node, "admin", &node.password);
        let (mut typed, mut said) = (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
        let writer = std::thread::spawn(move || {
            for _ in 0..600 {
                typed.write_all(b"pwd\npwd\nhelp\npwd\npwd\n").expect("taken");
            }
        });
        let mut all = String::new();
        said.read_to_string(&mut all).expect("text");
        writer.join().expect("all was written");
        assert_eq!(all.lines().filter(|l| *l == "/").count(), 2400);
        assert!(shell.wait().expect("it ends").success());
    }
    until("no session is left", || node.rows("cocon/session/list").len() == 1);
}

#[test]
fn an_open_script_has_no_rights_that_its_account_has_lost() {
    let node = Node::start();
    for (name, change) in [
        ("boss1", "cocon/user/remove boss1 --force"),
        ("boss2", "cocon/user/password boss2 Passwort99"),
        ("boss3", "cocon/user/roles boss3 ecss-read-only"),
    ] {
        node.ok(&format!("cocon/user/add {name} ecss-system-admin Passwort77"));
        let mut shell = script(&node, name, "Passwort77");
        let (mut typed, mut said) = (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
        typed.write_all(b"pwd\n").expect("taken");
        let mut first = [0; 1];
        said.read_exact(&mut first).expect("it runs");
        node.ok(change);
        typed
            .write_all(format!("cocon/user/add by-{name} ecss-system-admin Passwort88\n").as_bytes())
            .expect("taken");
        drop(typed);
        assert!(!shell.wait().expect("it ends").success(), "{change}");
    }
    assert!(!node.ok("cocon/user/list").contains("by-boss"));
}

#[test]
fn clients_that_know_one_kind_of_host_key_get_in() {
    let node = Node::start();
    for kind in ["ssh-ed25519", "ecdsa-sha2-nistp256"] {
        let mut ssh = node.client_at(node.address, "admin", Some(&node.password));
        ssh.args(["-o", &format!("HostKeyAlgorithms={kind}"), "pwd"]).stdin(Stdio::null());
        let out = ssh.output().expect("ssh runs");
        assert!(out.status.success(), "{kind}: {out:?}");
    }
}

#[test]
fn clients_that_copy_files_are_told_that_there_are_none() {
    let node = Node::start();
    for arguments in [["-s", "sftp"], ["scp", "-t"]] {
        let mut ssh = node.client_at(node.address, "admin", Some(&node.password));
        let mut child = match arguments {
            ["-s", subsystem] => {
                // The option stands before the host, as sftp gives it.
                let mut all: Vec<_> = ssh.get_args().map(std::ffi::OsStr::to_owned).collect();
                all.insert(0, "-s".into());
                let mut again = std::process::Command::new("ssh");
                again.args(all).arg(subsystem);
                again.envs(ssh.get_envs().filter_map(|(name, value)| Some((name, value?))));
                again.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                again.spawn().expect("ssh runs")
            }
            all => ssh.args(all).stdin(Stdio::null()).spawn().expect("ssh runs"),
        };
        until(&format!("{arguments:?} ends"), || child.try_wait().expect("a child").is_some());
        let out = child.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("no files are copied"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_tenant_cannot_declare_a_neighbour_of_another() {
    let node = Node::start();
    let context = b"<context name=\"in\"><rule name=\"all\"><conditions><cdpn digits=\"%\"/></conditions><result><local/></result></rule></context>";
    for domain in ["aaa.test", "other.test"] {
        node.ok(&format!("domain/declare {domain}"));
        assert_eq!(node.ssh(&format!("domain/{domain}/routing/import ecss1 -"), context).status, 0);
    }
    node.ok("cocon/user/add tenant ecss-aaa.test-domain-admin Passw0rd-tenant");
    let declare = |domain: &str, name: &str| {
        format!("domain/{domain}/trunk/sip/declare in g {name} ipset static 192.0.2.10 5060 sip-proxy 5060")
    };
    node.ok(&declare("other.test", "provider"));
    let stolen = node.ssh_as("tenant", "Passw0rd-tenant", &declare("aaa.test", "mine"), b"");
    assert!(stolen.status != 0 && stolen.stderr.contains("another domain's trunk"), "{stolen:?}");
    let twin = declare("aaa.test", "mine").replace("192.0.2.10", "::ffff:192.0.2.10");
    assert!(
        node.ssh_as("tenant", "Passw0rd-tenant", &twin, b"").status != 0,
        "the same address, written otherwise"
    );
    // The system's administrator may: then calls are told apart by the domain that they name.
    node.ok(&declare("aaa.test", "mine"));
}

#[test]
fn however_often_a_service_ends_calls_and_signalling_go_on() {
    let node = estate();
    // A port of the system's choice: another one would be another endpoint.
    let before = node.sip();
    let talking = |node: &Node| calls(node).iter().any(|c| c["state"] == "talking");
    let dir = tempfile::tempdir().expect("a directory");
    let tone = dir.path().join("tone.wav");
    phones::tone(&tone, 440.0, 60);
    let mut phone = SoftPhone::baresip(before, "100", "udp", "Geheim77", "", Some(&tone));
    let other = SoftPhone::baresip(before, "101", "udp", "Geheim77", ";answermode=auto", Some(&tone));
    phone.says("200 OK");
    other.says("200 OK");
    phone.types("/dial sip:101@voip.test");
    until("they talk", || talking(&node));
    for service in [
        "web",
        "metrics",
        "phonebook",
        "speech",
        "ivr",
        "ivr/mail",
        "ivr/queues",
        "sorm",
        "call/cdr-files",
        "sip/expiry",
    ] {
        // It may be down at this moment.
        node.ssh("", format!("node/actor/kill {service} --force\n").repeat(8).as_bytes());
    }
    assert_eq!(node.ok("pwd").lines().next(), Some("/"), "the node lives, and its shell");
    assert_eq!(node.sip(), before, "signalling was not restarted");
    assert!(talking(&node), "the call goes on");
    let down = node.rows("alarms/list --cleared --masked -c node::service::down");
    assert!(!down.is_empty(), "each end is an alarm");
}

#[test]
fn a_port_that_somebody_else_has_is_tried_before_it_is_kept_and_ends_nothing() {
    let node = Node::start();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("bound").port();
    let refused = node.ssh(&format!("sorm/set ssh_port {port}"), b"");
    assert!(refused.status != 0 && refused.stderr.contains("cannot be opened"), "{refused:?}");
    assert_eq!(node.ok("pwd").lines().next(), Some("/"));
    // One that is taken at the start is tried again, and the node does its work meanwhile.
    let at = held.local_addr().expect("bound");
    let also = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ws = also.local_addr().expect("bound");
    let doors = format!("[phone_book]\nlisten = \"{at}\"\n[sip]\nlisten = \"127.0.0.1:0\"\nws = \"{ws}\"\n");
    let mut node = Node::start_with(&doors, &[]);
    assert_eq!(node.ok("pwd").lines().next(), Some("/"));
    until("both are alarms", || {
        let closed = node.ok("alarms/list -c node::door::closed");
        closed.contains("phonebook") && closed.contains("SIP over WS")
    });
    drop((held, also));
    until("the ports are open", || TcpStream::connect(at).is_ok() && TcpStream::connect(ws).is_ok());
    until("and no alarm is left", || node.rows("alarms/list -c node::door::closed").is_empty());
    // A port that is given up is closed at once.
    let [first, second] = [phones::free_tcp_port(), phones::free_tcp_port() + 2];
    node.ok(&format!("sorm/set ssh_port {first}"));
    until("it is open", || TcpStream::connect(("127.0.0.1", first)).is_ok());
    node.ok(&format!("sorm/set ssh_port {second}"));
    until("the next one is, and not the first", || {
        TcpStream::connect(("127.0.0.1", second)).is_ok() && TcpStream::connect(("127.0.0.1", first)).is_err()
    });
    assert!(node.terminate().success());
}
