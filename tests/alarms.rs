//! Alarms as an operator meets them: lists, masks, clearing, a webhook; and what operators may see and change of their own.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::Value;
use support::{Node, calls::until};

/// A webhook that fails `refuses` times, then takes everything.
fn webhook(mut refuses: usize) -> (SocketAddr, Receiver<Value>) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (at, (told, news)) = (socket.local_addr().expect("bound"), channel());
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                continue;
            }
            let status = if refuses > 0 { "503 No" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(answer.as_bytes());
            if refuses > 0 {
                refuses -= 1;
            } else if told.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
                break;
            }
        }
    });
    (at, news)
}

fn of_class<'a>(all: &'a [Value], class: &str) -> Option<&'a Value> {
    all.iter().find(|a| a["class"] == class)
}

#[test]
fn a_condition_is_an_alarm_everywhere_until_it_is_over() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = held.local_addr().expect("bound");
    let (hook, news) = webhook(1);
    let more = format!(
        "[phone_book]\nlisten = \"{at}\"\n[alarms]\nwebhook = \"http://{hook}/alarms?token=secret\"\n"
    );
    let node = Node::start_with(&more, &[]);
    const CLOSED: &str = "node::door::closed";

    // Services start behind what calls need.
    until("an alarm", || of_class(&node.rows("alarms/list"), CLOSED).is_some());
    let listed = node.rows("alarms/list");
    let alarm = of_class(&listed, CLOSED).expect("an alarm");
    assert_eq!((&alarm["severity"], &alarm["instance"]), (&"major".into(), &"phonebook".into()));
    assert!(
        alarm["cause"].as_str().is_some_and(|c| c.contains(&at.to_string())) && alarm["since"].is_string()
    );
    let text = node.ok("alarms/list -c node::door::* --severity major");
    assert!(text.contains(CLOSED) && text.contains("1 of 1 shown"), "{text}");
    assert!(node.rows("alarms/list --severity critical").iter().all(|a| a["severity"] == "critical"));
    assert!(node.rows("alarms/list --match nothing-like-that").is_empty());
    let log = node.log();
    assert!(log.lines().any(|l| l.contains("ERROR") && l.contains("alarm") && l.contains(CLOSED)), "{log}");
    let token = std::fs::read_to_string(node.data().join("metrics.token")).expect("a token");
    let metrics = || {
        node.http(&format!(
            "GET /metrics HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            token.trim()
        ))
    };
    let raised = "hypha_alarms{class=\"node::door::closed\",severity=\"major\"} 1";
    assert!(metrics().contains(raised), "{}", metrics());

    // Masked, it is neither shown nor counted; the mask outlives a restart of its keeper, and ends with its removal.
    node.ok("alarms/mask/add -c node::door::closed");
    let again = node.ssh("alarms/mask/add -c node::door::closed", b"");
    assert!(again.status == 1 && again.stderr.contains("already"), "{again:?}");
    assert!(of_class(&node.rows("alarms/list"), CLOSED).is_none());
    assert!(of_class(&node.rows("alarms/list --masked"), CLOSED).is_some());
    assert!(metrics().contains("hypha_alarms{class=\"node::door::closed\",severity=\"major\"} 0"));
    assert_eq!(node.rows("alarms/mask/list")[0]["mask"], 1, "a number in JSON");
    node.ok("alarms/mask/remove 1");
    assert!(metrics().contains(raised));

    drop(held);
    until("it is over", || of_class(&node.rows("alarms/list"), CLOSED).is_none());
    let over = node.rows("alarms/list --cleared");
    let cleared = of_class(&over, CLOSED).expect("kept");
    assert_eq!(cleared["cleared_by"], "[system]");

    // The webhook was told of both, in order, though it refused the first time.
    let mut told = Vec::new();
    while told.last().is_none_or(|(event, _)| event != "cleared") {
        let message = news.recv_timeout(Duration::from_secs(30)).expect("a message");
        if message["alarm"]["class"] == CLOSED {
            told.push((
                message["event"].as_str().expect("a word").to_owned(),
                message["alarm"]["id"].clone(),
            ));
        }
    }
    assert_eq!(told.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["raised", "cleared"]);
    assert_eq!(told[0].1, told[1].1);
    assert!(!node.ok("node/actor/info alarms/webhook").contains("secret"), "its address may hold a token");

    for bad in ["alarms/clear", "alarms/clear all -c x", "alarms/mask/add"] {
        assert_eq!(node.ssh(&format!("{bad} --force"), b"").status, 2, "{bad}");
    }
    assert!(node.ok("alarms/clear all --force").contains("cleared: "));
}

#[test]
fn a_services_end_and_a_guessers_tries_are_alarms() {
    let node = Node::start();
    until("the service is there", || node.ssh("node/actor/kill metrics --force", b"").status == 0);
    until("the service is up again", || {
        let over = node.rows("alarms/list --cleared");
        of_class(&over, "node::service::down").is_some_and(|a| a["instance"] == "metrics")
    });
    assert!(of_class(&node.rows("alarms/list"), "node::actor::crashed").is_some());
    for _ in 0..8 {
        let _ = node.ssh_as("nobody", "wrong password", "pwd", b"");
    }
    let guessing = node.rows("alarms/list");
    assert!(of_class(&guessing, "access::login::guessing").is_some(), "{guessing:?}");
}

#[test]
fn a_tenants_administrator_sees_the_own_and_nothing_else() {
    let node = Node::start();
    for domain in ["a.test", "b.test"] {
        node.ok(&format!("domain/declare {domain}"));
        node.route_all(domain, "<local/>");
    }
    node.ok("bridge/declare link true false unbounded a.test default bridge:x tg ctx b.test default bridge:y tg ctx");
    for (domain, trunk) in [("a.test", "mine"), ("b.test", "theirs")] {
        node.ok(&format!(
            "domain/{domain}/trunk/sip/declare ctx g {trunk} set static nobody.invalid 5060 sip-proxy 5060"
        ));
    }
    node.ok("cocon/user/add tenant ecss-a.test-domain-admin Passw0rd-tenant");
    let tenant = |line: &str| node.ssh_as("tenant", "Passw0rd-tenant", line, b"");
    let list = tenant("domain/list");
    assert!(
        list.status == 0 && list.stdout.contains("a.test") && !list.stdout.contains("b.test"),
        "{list:?}"
    );
    let bridges = tenant("bridge/list --json");
    assert!(
        bridges.status == 0 && bridges.stdout.contains("bridge:x") && !bridges.stdout.contains("bridge:y")
    );
    until("both neighbours are silent", || node.rows("alarms/list -c sip::trunk::down").len() == 2);
    let alarms = tenant("alarms/list");
    assert!(alarms.stdout.contains("mine") && !alarms.stdout.contains("theirs"), "{alarms:?}");
    assert_eq!(tenant("domain/b.test/alarms/list").status, 2, "what is not seen is not there");
    assert_eq!(tenant("alarms/clear all --force").status, 3);
    assert_eq!(tenant("domain/a.test/alarms/clear all --force").status, 0);
    // A trace ends at the border.
    node.route_all("a.test", "<external><trunk value=\"bridge:x\"/></external>");
    let line = "domain/a.test/routing/trace context=ctx cgpn.digits=100 cdpn.digits=555";
    let (own, all) = (tenant(line), node.ok(line));
    assert!(all.contains("b.test") && !own.stdout.contains("Context {\"b.test\""), "{own:?}");
}

#[test]
fn operators_change_their_own_password_and_keys_and_end_their_own_sessions() {
    let node = Node::start();
    node.ok("cocon/user/add anna ecss-read-only Passw0rd-anna");
    let anna = |password: &str, line: &str| node.ssh_as("anna", password, line, b"");
    let sessions = anna("Passw0rd-anna", "cocon/session/list --json");
    assert!(sessions.status == 0 && !sessions.stdout.contains("\"admin\""), "{sessions:?}");
    let wrong = anna("Passw0rd-anna", "cocon/password guessed Passw0rd-other");
    assert!(wrong.status == 3 && wrong.stderr.contains("another"), "{wrong:?}");
    let key = node.key();
    assert_eq!(anna("Passw0rd-anna", &format!("cocon/key/add {key}")).status, 0);
    assert_eq!(anna("Passw0rd-anna", &format!("cocon/key/add {key}")).status, 1, "twice");
    assert_eq!(node.ssh_by_key("anna", "pwd").status, 0);
    let keys = anna("Passw0rd-anna", "cocon/key/list");
    assert!(keys.stdout.contains("SHA256:"), "{keys:?}");
    assert_eq!(anna("Passw0rd-anna", "cocon/key/remove 1").status, 0);
    assert_ne!(node.ssh_by_key("anna", "pwd").status, 0);
    // A shell of hers ends when the password is changed elsewhere.
    let mut shell = node.shell_as("anna", "Passw0rd-anna");
    let mut typed = shell.stdin.take().expect("a pipe");
    until("the shell is there", || node.ok("cocon/session/list").contains("anna"));
    let changed = anna("Passw0rd-anna", "cocon/password Passw0rd-anna Passw0rd-other");
    assert_eq!(changed.status, 0, "{changed:?}");
    writeln!(typed, "pwd").expect("typed");
    let _ = shell.wait();
    assert_ne!(anna("Passw0rd-anna", "pwd").status, 0);
    assert_eq!(anna("Passw0rd-other", "pwd").status, 0);
    // The administrator ends a session of hers.
    let mut shell = node.shell_as("anna", "Passw0rd-other");
    let found = || {
        let all = node.rows("cocon/session/list");
        all.iter().find(|s| s["user"] == "anna").map(|s| s["id"].clone())
    };
    until("the shell is there", || found().is_some());
    node.ok(&format!("cocon/session/end {}", found().expect("there")));
    let _ = shell.wait();
    assert!(found().is_none());
    // The last way in stays open.
    assert_eq!(node.ssh("node/actor/stop cocon/ssh --force", b"").status, 0, "the page is still there");
}

#[test]
fn daily_changes_of_subscribers_need_no_new_declaration() {
    let node = Node::start();
    node.ok("domain/declare v.test");
    let early = node.ok("domain/v.test/sip/user/declare ctx g {100-101}@v.test alias-as-user qop_authentication login-as-user Geheim77");
    assert!(early.contains("warning: there is no context ctx yet"), "{early}");
    let check = node.ok("domain/v.test/check");
    assert!(check.contains("there is no context ctx"), "{check}");
    node.route_all("v.test", "<local/>");
    assert!(node.ok("domain/v.test/check").contains("every way leads somewhere"));
    let set = |rest: &str| format!("domain/v.test/sip/user/set g 100@v.test {rest}");
    node.ok(&set("password Neues88Wort"));
    node.ok(&set("login anna"));
    node.ok(&set("authentication no_authentication"));
    assert!(node.ok(&set("context other")).contains("warning"));
    node.ok(&set("group staff"));
    let card = node.ok("domain/v.test/sip/user/info 100@v.test");
    for part in ["staff", "anna", "no_authentication", "other"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(!node.ok("journal/list --limit 50 --json").contains("Neues88Wort"));
    node.ok("domain/v.test/alias/declare 555 staff 100@v.test");
    assert_eq!(node.ssh("domain/v.test/alias/declare 555 g 101@v.test", b"").status, 1, "taken");
    assert!(node.ok("domain/v.test/alias/list").contains("555"));
    node.ok("domain/v.test/alias/remove 555 --force");
    assert!(!node.ok("domain/v.test/alias/list").contains("555"));
    // Typing errors are said.
    for (line, status) in [
        ("domain/v.test/trunk/sip/declare ctx g t set static 300.1.1.1 5060 sip-proxy 5060", 2),
        (
            "domain/v.test/trunk/sip/declare ctx g t set static sip:127.0.0.1;transport=tcp 5060 sip-proxy 5060",
            2,
        ),
        ("domain/v.test/ss/cfu/activate 100 --number abc", 2),
        ("domain/v.test/sip/user/set staff 100@v.test authentication sometimes", 2),
    ] {
        let said = node.ssh(line, b"");
        assert_eq!(said.status, status, "{line}: {said:?}");
    }
    let role = node.ok("cocon/user/add bob ecss-nowhere.test-domain-admin Passw0rd-bob");
    assert!(role.contains("warning: there is no domain nowhere.test"), "{role}");
}

#[test]
fn lists_come_in_pages_and_as_typed_values() {
    let node = Node::start();
    node.ok("domain/declare v.test");
    node.ok("domain/v.test/np/declare city");
    node.ok("domain/v.test/np/numbers/add city 7383{0000-2999}");
    let list = "domain/v.test/np/numbers/list city";
    let all = node.ok(list);
    assert!(all.contains("1000 of 3000 shown; the next: --after 73830999"), "{}", &all[all.len() - 200..]);
    assert_eq!(node.rows(list).len(), 3000, "a program gets all");
    let page = node.rows(&format!("{list} --limit 2 --after 73830999"));
    assert_eq!(
        page.iter().map(|r| r["number"].as_str()).collect::<Vec<_>>(),
        [Some("73831000"), Some("73831001")]
    );
    assert!(node.ok(&format!("{list} --match 2999")).contains("1 of 1 shown"));
    let domains = node.rows("domain/list");
    assert_eq!((&domains[0]["domain"], &domains[0]["number_plans"]), (&"v.test".into(), &1.into()));
    let error = node.ssh("domain/v.test/np/numbers/list town --json", b"");
    let error: Value = serde_json::from_str(&error.stderr).expect("JSON");
    assert_eq!(error["code"], "failed");
    assert!(error["error"].as_str().is_some_and(|e| e.contains("town")));
}
