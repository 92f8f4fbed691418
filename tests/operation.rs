//! What an operator's other programs see: Prometheus, systemd, the licence's hardware token.

mod support;

use std::{os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration};

use support::{HYPHA, Node};

fn metrics(node: &Node, token: &str) -> String {
    node.http(&format!(
        "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    ))
}

#[test]
fn prometheus_gets_every_metric_the_dashboard_shows() {
    let node = Node::start();
    node.ok("domain/declare voip.local");
    node.ok("node/actor/kill domain/voip.local --force");
    // Until the killed actor is back: the order to die is acknowledged before it is carried out.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !node.ssh("node/actor/info domain/voip.local --json", b"").stdout.contains("\"restarts\": 1") {
        assert!(std::time::Instant::now() < deadline, "the actor does not come back");
    }
    let token = std::fs::read_to_string(node.data().join("metrics.token")).expect("made at the first start");
    assert!(metrics(&node, "guess").starts_with("HTTP/1.1 401"));
    let page = metrics(&node, token.trim());
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("hypha_actors{actor=\"DomainBook\"} 1"), "{page}");
    assert!(page.contains("hypha_actor_crashes_total 1"), "{page}");
    let _ = node.ssh_as("nobody", "wrong password", "pwd", b"");
    // Those of calls and trunks are looked for where there are some, in the tests of calls.
    let of_calls = |name: &str| name.starts_with("hypha_call") || name.starts_with("hypha_trunk");
    let missing = node.metrics_missing(|name| !of_calls(name) && name != "hypha_sip_auth_failures_total");
    assert!(missing.is_empty(), "{missing:?} are not in\n{page}");
}

#[test]
fn systemd_hears_of_start_life_and_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let heard = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted} did not come: {e}"));
            if std::str::from_utf8(&buffer[..n]).expect("text").lines().any(|l| l == wanted) {
                return;
            }
        }
    };
    let notify = path.display().to_string();
    let mut node = Node::start_with("", &[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "300000")]);
    heard("READY=1");
    heard("WATCHDOG=1");
    heard("WATCHDOG=1");
    assert!(node.ok("node/tree").contains("watchdog"));
    assert!(node.terminate().success());
    heard("STOPPING=1");
}

#[test]
fn the_log_can_be_read_from_inside_and_names_no_secret() {
    let node = Node::start();
    node.ok("domain/declare voip.local");
    node.ok(
        "domain/voip.local/sip/user/declare c g 200@voip.local alias-as-user qop_authentication l Geheim77",
    );
    node.ok("node/actor/kill domain/voip.local --force");
    let listed = node.ok("node/log/list --level error");
    assert!(listed.contains("actor crashed") && listed.contains("actor=domain/voip.local"), "{listed}");
    assert!(!listed.contains("logged in"), "only errors");
    let all = node.ok("node/log/list --json");
    assert!(all.contains("logged in"), "{all}");
    let written =
        std::fs::read_to_string(node.data().parent().expect("a parent").join("log")).expect("there");
    for text in [&all, &written] {
        assert!(!text.contains("Geheim77") && !text.contains(&node.password));
    }
}

fn hypha(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output =
        Command::new(HYPHA).args(arguments).envs(environment.iter().copied()).output().expect("runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A hardware token in software: SoftHSM, in a directory of its own.
struct SoftToken {
    dir: tempfile::TempDir,
}

impl SoftToken {
    const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

    fn new() -> Self {
        let token = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(token.at("tokens")).expect("made");
        let conf = format!("directories.tokendir = {}\n", token.at("tokens"));
        std::fs::write(token.at("softhsm2.conf"), conf).expect("written");
        std::fs::write(token.at("pin"), "5678\n").expect("written");
        token.tool("softhsm2-util", "--init-token --free --label t --so-pin 1234 --pin 5678");
        token
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn environment(&self) -> [(&'static str, String); 1] {
        [("SOFTHSM2_CONF", self.at("softhsm2.conf"))]
    }

    /// What a program of others says to it.
    fn tool(&self, program: &str, line: &str) -> String {
        let made = Command::new(program).args(line.split(' ')).envs(self.environment()).output();
        let made = made.unwrap_or_else(|e| panic!("{program}: {e}; ops/test installs it"));
        assert!(made.status.success(), "{made:?}");
        String::from_utf8_lossy(&made.stdout).into_owned()
    }

    fn configuration(&self) -> String {
        format!(
            "[token]\nmodule = \"{}\"\npin_file = \"{}\"\ncheck_seconds = 1\n",
            Self::MODULE,
            self.at("pin")
        )
    }
}

/// The key of interception is on the token: nothing of it is on disk, and without the token the node does not start.
#[test]
fn interception_is_sealed_under_a_key_of_the_token() {
    let token = SoftToken::new();
    let environment = token.environment();
    let environment = environment.each_ref().map(|(n, v)| (*n, v.as_str()));
    let sorm = "[sorm]\nlisten = \"127.0.0.1:0\"\ntwo_persons = false\nkey_token = \"interception\"\n";
    let mut node = Node::start_with(&format!("{sorm}{}", token.configuration()), &environment);
    node.ok("domain/declare voip.test");
    node.ok("domain/voip.test/sorm/set radius_servers add 127.0.0.1 2testing123");
    assert!(!node.data().join("sorm.key").exists() && node.data().join("sorm.db").exists());
    let list = format!("--module {} --login --pin 5678 --list-objects --type data", SoftToken::MODULE);
    assert!(token.tool("pkcs11-tool", &list).contains("interception"));
    node.restart_in_order();
    assert!(node.ok("domain/voip.test/sorm/info").contains("\"127.0.0.1\": \"******\""));
    node.kill();
    // Not a new key, with which nothing could be read again.
    std::fs::rename(token.at("tokens"), token.at("away")).expect("moved");
    std::fs::create_dir(token.at("tokens")).expect("made");
    token.tool("softhsm2-util", "--init-token --free --label other --so-pin 1234 --pin 5678");
    let without = node.second();
    assert!(without.status != 0 && without.stderr.contains("cannot be had from the token"), "{without:?}");
    std::fs::remove_dir_all(token.at("tokens")).expect("removed");
    std::fs::rename(token.at("away"), token.at("tokens")).expect("moved");
    node.restart();
    assert!(node.ok("domain/voip.test/sorm/info").contains("127.0.0.1"));
}

#[test]
fn a_licence_is_made_bound_to_a_token_installed_and_ends_with_the_token() {
    let softtoken = SoftToken::new();
    let at = |name: &str| softtoken.at(name);
    let environment = softtoken.environment();
    let environment = environment.each_ref().map(|(n, v)| (*n, v.as_str()));
    softtoken.tool(
        "pkcs11-tool",
        &format!(
            "--module {} --login --pin 5678 --keypairgen --key-type EC:prime256v1 --label hypha",
            SoftToken::MODULE
        ),
    );

    // The vendor's and the operator's steps, by hand.
    let vendor = hypha(&["licence", "keygen", &at("vendor.pem")], &[]);
    let again = Command::new(HYPHA).args(["licence", "keygen", &at("vendor.pem")]).output().expect("runs");
    assert_eq!(again.status.code(), Some(2), "a key is never overwritten");
    let config = format!("{vendor}{}", softtoken.configuration());
    std::fs::write(at("hypha.toml"), &config).expect("written");
    let identity = hypha(&["licence", "token", "--config", &at("hypha.toml")], &environment);
    let terms = hypha(&["licence", "terms"], &[]).replace("domains = 8", "domains = 77");
    std::fs::write(at("terms.toml"), format!("{terms}\n{identity}")).expect("written");
    let licence = hypha(&["licence", "issue", "--key", &at("vendor.pem"), "--terms", &at("terms.toml")], &[]);
    std::fs::write(at("licence"), &licence).expect("written");
    let shown = hypha(&["licence", "show", &at("licence"), "--config", &at("hypha.toml")], &[]);
    assert!(shown.contains("domains = 77"), "{shown}");

    let node = Node::start_with(&config, &environment);
    let added = node.ssh("cluster/storage/ds1/licence/add -", licence.as_bytes());
    assert_eq!(added.status, 0, "{added:?}");
    let domains = |wanted: &str, state: &str| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let shown = node.ok("cluster/storage/ds1/licence/show-licence --details 1");
            let row = |name: &str, value: &str| shown.lines().any(|l| l.contains(name) && l.contains(value));
            if row("Count of domains", wanted) && row("State", state) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{shown}");
        }
    };
    domains(" 77 ", " valid ");
    let pull =
        |from: &str, to: &str| std::fs::rename(Path::new(&at(from)), Path::new(&at(to))).expect("moved");
    pull("tokens", "away");
    std::fs::create_dir(at("tokens")).expect("made");
    domains(" 8 ", "is missing");
    assert!(node.ok("node/log/list --level error").contains("the licence does not hold"));
    std::fs::remove_dir(at("tokens")).expect("removed");
    pull("away", "tokens");
    domains(" 77 ", " valid ");
}

#[test]
fn a_key_or_journal_that_has_vanished_is_said_and_never_made_anew() {
    let mut node = Node::start();
    node.ok("domain/declare d.test");
    assert!(node.terminate().success());
    for (lost, kept) in [
        ("secret.key", "journal.db"),
        ("journal.db", "secret.key"),
        ("sorm.key", "sorm.db"),
        ("sorm.db", "sorm.key"),
    ] {
        let (from, aside) = (node.data().join(lost), node.data().join("aside"));
        std::fs::rename(&from, &aside).expect("moved");
        let refused = node.second();
        assert_eq!(refused.status, 2, "{lost}: {refused:?}");
        assert!(refused.stderr.contains(lost) && refused.stderr.contains(kept), "{refused:?}");
        assert!(
            !from.exists() || std::fs::metadata(&from).is_ok_and(|m| m.len() == 0),
            "{lost} was not made anew"
        );
        let _ = std::fs::remove_file(&from);
        std::fs::rename(&aside, &from).expect("moved back");
    }
    // Both at once: what interception keeps says that there was a node.
    let gone = ["journal.db", "secret.key"].map(|name| node.data().join(name));
    gone.iter().for_each(|f| std::fs::rename(f, f.with_extension("aside")).expect("moved"));
    let refused = node.second();
    assert!(refused.status == 2 && refused.stderr.contains("sorm.db"), "{refused:?}");
    gone.iter().for_each(|f| std::fs::rename(f.with_extension("aside"), f).expect("moved back"));
    // A key that is damaged is not used for as long as the next secret is sealed with it.
    for name in ["secret.key", "sorm.key"] {
        let path = node.data().join(name);
        let whole = std::fs::read(&path).expect("read");
        let mut damaged = whole.clone();
        damaged[11] ^= 0x20;
        std::fs::write(&path, damaged).expect("written");
        let refused = node.second();
        assert!(refused.status == 2 && refused.stderr.contains("another key"), "{name}: {refused:?}");
        std::fs::write(&path, whole).expect("written");
    }
    node.restart();
    assert!(node.ok("domain/list").contains("d.test"));
}

#[test]
fn files_that_are_made_anew_are_told_where_they_were_there_before() {
    let mut node = Node::start();
    assert!(!node.ok("alarms/list").contains("node::file::missing"), "a first start misses nothing");
    let made = ["journal.db-mark", "sorm.db-mark", "sorm-audit.jsonl", "ssh_host_ecdsa_key", "metrics.token"];
    assert!(node.terminate().success());
    for name in made {
        std::fs::remove_file(node.data().join(name)).expect(name);
    }
    node.restart();
    let alarms = node.ok("alarms/list");
    for name in made {
        assert!(
            alarms.lines().any(|l| l.contains("node::file::missing") && l.contains(name)),
            "{name}: {alarms}"
        );
    }
    let audit = std::fs::read_to_string(node.data().join("sorm-audit.jsonl")).expect("begun anew");
    assert!(audit.contains("the chain before is missing"), "{audit}");
    node.restart_in_order();
    assert!(!node.ok("alarms/list").contains("node::file::missing"), "the next start knows them");
}

#[test]
fn no_hash_of_a_password_is_shown_with_the_journal() {
    let node = Node::start();
    node.ok("cocon/user/add oper ecss-read-only Passw0rd-oper");
    let shown = node.ok("journal/list --stream accounts --json");
    assert!(shown.contains("oper") && !shown.contains("$argon2"), "{shown}");
}

#[test]
fn a_domain_whose_journal_is_damaged_keeps_no_other_from_starting() {
    let mut node = Node::start();
    node.ok("domain/declare good.test");
    node.ok("domain/declare bad.test");
    node.ok(
        "domain/bad.test/sip/user/declare ctx g 100@bad.test alias-as-user qop_authentication l Geheim77",
    );
    assert!(node.terminate().success());
    let journal = rusqlite::Connection::open(node.data().join("journal.db")).expect("opens");
    let bad = "stream LIKE 'domain/bad.test#%'";
    journal.execute(&format!("DELETE FROM snapshots WHERE {bad}"), []).expect("a table of snapshots");
    let damage = format!("UPDATE events SET body = '{{\"Nonsense\":' || x'07' WHERE {bad}");
    assert!(journal.execute(&damage, []).expect("written") > 0);
    drop(journal);
    node.restart();
    let list = node.ok("domain/list");
    assert!(list.contains("good.test") && list.contains("elements: 1"), "{list}");
    assert!(list.contains("domain bad.test did not start: "), "{list}");
    node.ok(
        "domain/good.test/sip/user/declare ctx g 100@good.test alias-as-user qop_authentication l Geheim77",
    );
    let refused = node.ssh("domain/bad.test/properties/info", b"");
    assert!(refused.status != 0 && refused.stderr.contains("bad.test"), "{refused:?}");
    assert!(node.ok("journal/list --json").contains("damaged"));
    node.ok("domain/remove bad.test --force");
    assert!(!node.ok("domain/list").contains("bad.test"));
}

/// The two sides of one rule: a start refuses what a check refuses, in the same words.
#[test]
fn a_check_of_the_configuration_says_what_a_start_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hypha.toml");
    let hypha = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hypha"));
        command.args(arguments).output().expect("it runs")
    };
    let file_name = file.to_str().expect("text");
    for (text, words) in [
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("[cocon]\nconnections = 0\n[media]\nlast_port = 1\n", "media.last_port"),
        ("[web]\nlisten = \"127.0.0.1:8023\"\n", "cocon.listen"),
    ] {
        std::fs::write(&file, text).expect("written");
        let check = hypha(&["config", "--check", file_name]);
        let data = dir.path().join("data");
        let run = hypha(&["run", "--config", file_name, "--data", data.to_str().expect("text")]);
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert_eq!((check.status.code(), run.status.code()), (Some(2), Some(2)), "{said}");
        assert_eq!(said, String::from_utf8_lossy(&run.stderr), "{text}");
        assert!(said.contains(words), "{said}");
        assert!(!data.exists(), "nothing was begun");
    }
    let completion = hypha(&["completion", "bash"]);
    assert!(String::from_utf8_lossy(&completion.stdout).contains("control-point"));
    let pages = dir.path().join("man");
    std::fs::create_dir(&pages).expect("made");
    assert!(hypha(&["man", pages.to_str().expect("text")]).status.success());
    assert!(std::fs::read_to_string(pages.join("hypha-run.1")).expect("a page").contains("accept"));
}
