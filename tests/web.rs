//! The web admin in a real Chromium, driven over WebDriver.

mod support;

use fantoccini::Locator;
use support::{
    Node,
    browser::{Browser, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_sees_the_tree_kills_an_actor_and_traces_a_call() {
    let node = Node::start();
    node.ok("domain/declare voip.local");
    let context = b"<context name=\"c\"><rule name=\"own\"><conditions><cdpn digits=\"2%\"/></conditions><result><local/></result></rule></context>";
    assert_eq!(node.ssh("domain/voip.local/routing/import ecss1 -", context).status, 0);
    node.ok("domain/voip.local/sip/user/declare c g 20{0-1}@voip.local alias-as-user qop_authentication login-as-user password");
    let browser = Browser::open().await;

    browser.log_in(&node, "admin", "wrong password").await;
    browser.reads("[role=alert]", |t| t.contains("wrong name, password or key")).await;
    browser.log_in(&node, "admin", &node.password).await;

    // The tree: found by search, the rest is hidden.
    browser.shows("a[data-actor='cocon/ssh']").await;
    browser.shows("#search").await.send_keys("voip").await.expect("typed");
    browser.shows("a[data-actor='domain/voip.local']").await;
    assert!(
        browser.client.find(Locator::Css("a[data-actor='cocon/ssh']")).await.is_err(),
        "the search hides others"
    );

    // The actor: its state, a kill with confirmation, its restart seen live.
    browser.click("a[data-actor='domain/voip.local']").await;
    browser.reads("[data-fact=restarts]", |t| t == "0").await;
    browser.reads("pre", |t| t.contains("\"subscribers\": 2")).await;
    browser.click("form button.bad").await;
    browser.reads("#ask p", |t| t.contains("You are going to kill the actor domain/voip.local")).await;
    browser.click("#ask button[value=yes]").await;
    browser.reads("[data-fact=restarts]", |t| t == "1").await;
    browser.reads("pre", |t| t.contains("\"subscribers\": 2")).await;

    browser.click("form.row button:not(.bad)").await;
    browser.reads("#ask p", |t| t.contains("You are going to restart the actor domain/voip.local")).await;
    browser.click("#ask button[value=yes]").await;
    browser.reads("[data-fact=restarts]", |t| t == "2").await;

    // Every actor of the tree has a page that answers.
    let listed = browser.client.execute("return tree.map(l => l.address)", vec![]).await.expect("the tree");
    let listed: Vec<String> = serde_json::from_value(listed).expect("names");
    assert!(listed.len() >= 12, "{listed:?}");
    for actor in listed.iter().filter(|a| !a.starts_with("cocon/sessions/")) {
        browser
            .client
            .execute(
                "location.hash = encodeURIComponent('actor|' + arguments[0])",
                vec![actor.as_str().into()],
            )
            .await
            .expect("gone there");
        browser.reads("h2", |t| t == actor.as_str()).await;
        browser.shows("[data-fact=handled]").await;
    }

    // The way of a call.
    browser.client.execute("location.hash = 'trace'", vec![]).await.expect("gone there");
    browser.shows("input[name=From]").await.send_keys("200").await.expect("typed");
    browser.shows("input[name=To]").await.send_keys("201").await.expect("typed");
    browser.click("main form button").await;
    let outcome = browser.shows("[data-outcome=local]").await.text().await.expect("text");
    assert!(outcome.contains("201 (201@voip.local)"), "{outcome}");

    // The console.
    browser.client.execute("location.hash = 'console'", vec![]).await.expect("gone there");
    let line = browser.shows("#line").await;
    line.send_keys("dom\u{e004}").await.expect("typed");
    let value = "return document.getElementById('line').value";
    let deadline = std::time::Instant::now() + PATIENCE;
    while browser.client.execute(value, vec![]).await.expect("a value") != "domain/" {
        assert!(std::time::Instant::now() < deadline, "Tab completes nothing");
        tokio::task::yield_now().await;
    }
    line.send_keys("list\u{e007}").await.expect("typed");
    browser.reads("#console", |t| t.contains("elements: 1")).await;

    // By keys alone: to the log, which shows the crash as it came, to the domains, and to a subscriber's card.
    let press = |keys: &'static str| {
        let client = browser.client.clone();
        async move {
            let body = client.find(Locator::Css("body")).await.expect("a body");
            body.send_keys(keys).await.expect("typed");
        }
    };
    line.send_keys("\u{e00c}").await.expect("typed");
    press("gl").await;
    browser.reads("#log", |t| t.contains("actor crashed actor=domain/voip.local")).await;
    node.ok("node/actor/kill cocon/ssh --force");
    browser.reads("#log", |t| t.contains("actor crashed actor=cocon/ssh")).await;
    press("?").await;
    browser.reads("#help", |t| t.contains("g l")).await;
    browser.click("#help button").await;
    press("gd").await;
    browser.shows("main table a").await;
    press("j").await;
    let focused = "document.activeElement.click(); return document.activeElement.textContent";
    assert_eq!(browser.client.execute(focused, vec![]).await.expect("a link"), "voip.local");
    browser.click("a[href*='subscriber']").await;
    browser.reads("h2", |t| t == "Subscriber 200@voip.local").await;
    browser.reads("main", |t| t.contains("uid") && !t.contains("password")).await;

    // Russian, and the other pages.
    browser.click("#lang").await;
    browser.reads("nav", |t| t.contains("Дерево") || t.contains("Tree")).await;
    for page in
        ["domains", "domain|voip.local", "bridges", "licence", "journal", "log", "crashes", "messages"]
    {
        browser
            .client
            .execute("location.hash = encodeURIComponent(arguments[0])", vec![page.into()])
            .await
            .expect("gone there");
        browser.shows("main > *").await;
        let error = browser.client.find(Locator::Css("main > p.error")).await;
        assert!(error.is_err(), "{page}: {:?}", error.expect("an error").text().await);
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_seen_live_and_their_ladders_later() {
    use support::phones::{self, SoftPhone};
    let media = "[media]\nfirst_port = 62000\nlast_port = 62099\n";
    let node = Node::start_with(&format!("[sip]\nlisten = \"127.0.0.1:0\"\n{media}"), &[]);
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-1}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    let at = node.sip();
    let dir = tempfile::tempdir().expect("a directory");
    let tone = dir.path().join("tone.wav");
    phones::tone(&tone, 600.0, 60);
    let mut alice = SoftPhone::baresip(at, "100", "udp", "Geheim77", "", Some(&tone));
    let bob = SoftPhone::baresip(at, "101", "udp", "Geheim77", ";answermode=auto", Some(&tone));
    alice.says("200 OK");
    bob.says("200 OK");
    alice.types("/dial sip:101@voip.test");
    alice.says("Call established");

    let browser = Browser::open().await;
    browser.log_in(&node, "admin", &node.password).await;
    browser.shows("a[href='#calls']").await;
    browser.client.goto(&format!("{}/#calls", node.web)).await.expect("gone there");
    // Five seconds later the media plane tells how well each is heard, without a reload.
    browser.reads("#calls", |t| t.contains("talking") && t.contains("100") && t.contains("PCM")).await;
    browser.click("#calls td a").await;
    browser
        .reads("svg.ladder", |t| {
            t.contains("INVITE") && t.contains("200 OK") && t.contains("route 100 -> 101")
        })
        .await;
    alice.types("/hangup");
    // The ladder grows while one looks.
    browser.reads("svg.ladder", |t| t.contains("BYE")).await;
    browser.client.goto(&format!("{}/#calls", node.web)).await.expect("gone there");
    browser.reads("#records", |t| t.contains("101@voip.test") && t.contains("16")).await;
    browser.click("#records td a").await;
    browser.reads("svg.ladder", |t| t.contains("INVITE") && t.contains("BYE")).await;
    browser.close().await;
}

fn post(node: &Node, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    node.http(
        &format!(
            "POST {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ),
    )
}

#[test]
fn strangers_and_forged_requests_are_refused() {
    let node = Node::start();
    assert!(post(&node, "/api/run", "", "{\"line\":\"domain/list\"}").starts_with("HTTP/1.1 401"));
    assert!(
        node.http("GET /api/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 401")
    );
    let login = format!("{{\"user\":\"admin\",\"password\":\"{}\"}}", node.password);
    assert!(post(&node, "/api/login", "Origin: http://evil.example\r\n", &login).starts_with("HTTP/1.1 403"));
    let answer = post(&node, "/api/login", "", &login);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HttpOnly; SameSite=Strict"), "{answer}");
    assert!(answer.to_lowercase().contains("content-security-policy: default-src 'none'"), "{answer}");
    let cookie =
        answer.lines().find_map(|l| l.strip_prefix("set-cookie: ")).and_then(|c| c.split(';').next());
    let cookie = format!("Cookie: {}\r\n", cookie.expect("a cookie"));
    let run = "{\"line\":\"domain/list\"}";
    assert!(post(&node, "/api/run", &cookie, run).starts_with("HTTP/1.1 403"), "no token, no command");
    let (_, token) = answer.split_once("\"csrf\":\"").expect("a token");
    let both = format!("{cookie}X-CSRF: {}\r\n", &token[..64]);
    assert!(post(&node, "/api/run", &both, run).starts_with("HTTP/1.1 200"));
    assert!(post(&node, "/api/run", &both, "not json").starts_with("HTTP/1.1 400"));
    // Who announces too much is refused before sending it.
    let announced = format!(
        "POST /api/run HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 5000000\r\n{both}\r\n"
    );
    assert!(node.http(&announced).starts_with("HTTP/1.1 413"));
    assert!(node.http("garbage\r\n\r\n").starts_with("HTTP/1.1 400"));
}

/// Headers of a session that begins with these words.
fn log_in(node: &Node, user: &str, password: &str) -> String {
    let login = serde_json::json!({ "user": user, "password": password }).to_string();
    let answer = post(node, "/api/login", "", &login);
    let cookie =
        answer.lines().find_map(|l| l.strip_prefix("set-cookie: ")).and_then(|c| c.split(';').next());
    let (_, token) = answer.split_once("\"csrf\":\"").expect("a token");
    format!("Cookie: {}\r\nX-CSRF: {}\r\n", cookie.expect("a cookie"), &token[..64])
}

#[test]
fn a_stolen_session_ends_with_the_password_whatever_it_runs_meanwhile() {
    let node = Node::start();
    node.ok("cocon/user/add anna ecss-read-only Passw0rd-anna");
    let run = |headers: &str, line: &str| {
        post(&node, "/api/run", headers, &serde_json::json!({ "line": line, "cwd": "/cocon" }).to_string())
    };
    let (own, stolen) = (log_in(&node, "anna", "Passw0rd-anna"), log_in(&node, "anna", "Passw0rd-anna"));
    // Lines with the word in them, and the command itself with a guessed password.
    let lines = ["user/list --match password", "password guessed-one Passw0rd-mine", "help password"];
    std::thread::scope(|s| {
        let busy =
            s.spawn(|| (0..2_000).find(|n| run(&stolen, lines[n % 3]).starts_with("HTTP/1.1 401")).is_some());
        support::calls::until("it is busy", || node.ok("cocon/session/list").matches("anna").count() == 2);
        // Beside the guesses, the log-in of the right one may have to wait.
        support::calls::until("the password is changed", || {
            run(&own, "password Passw0rd-anna Passw0rd-other").contains("\"status\":0")
        });
        assert!(busy.join().expect("no panic"), "the stolen session has ended");
    });
    assert!(run(&own, "pwd").starts_with("HTTP/1.1 200"), "the own one goes on");
}

#[test]
fn whatever_comes_over_http_gets_an_answer_that_says_what_is_wrong() {
    let node = Node::start();
    let login = |body: &str| post(&node, "/api/login", "", body);
    let says = |answer: String, status: &str, text: &str| {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text),
            "{text}: {answer}"
        );
    };
    says(login("{\"user\":\"admin\"}"), "400", "missing field `password`");
    says(login("{\"user\":1,\"password\":\"x\"}"), "400", "expected a string");
    says(login("{\"user\":"), "400", "EOF while parsing");
    says(login("[]"), "400", "error");
    says(login("{\"user\":\"\u{0}\",\"password\":\"x\"}"), "400", "control character");
    says(login("{\"user\":\"nobody\",\"password\":\"x\"}"), "401", "wrong name, password or key");
    says(
        node.http("POST /api/login HTTP/1.1\r\nHost: n\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"),
        "400",
        "Content-Type: application/json",
    );
    says(
        node.http("GET /nothing HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"),
        "404",
        "there is no page /nothing",
    );
    says(
        node.http("PUT /api/run HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"),
        "405",
        "/api/run does not take PUT",
    );
    says(
        node.http("GET /api/session HTTP/1.1\r\nHost: n\r\nConnection: close\r\nCookie: hypha-80=\"\r\n\r\n"),
        "401",
        "log in first",
    );
    assert!(node.http("GET /healthz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n").contains("200 OK"));
    for path in ["/", "/healthz", "/metrics"] {
        let [get, head] = ["GET", "HEAD"].map(|method| {
            let answer =
                node.http(&format!("{method} {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"));
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            (head.lines().next().unwrap_or_default().to_owned(), body.len())
        });
        assert!(head.0 == get.0 && head.1 == 0 && get.1 > 0, "{path}: {get:?} {head:?}");
    }
    assert!(node.http("GET /readyz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n").contains("ready"));
    // A body that never comes holds its connection for a while only, and nobody else's.
    says(
        node.http("POST /api/login HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"),
        "408",
        "did not come in time",
    );
    // With a new password, sessions of the old one are over.
    node.ok("cocon/user/add oper ecss-read-only Passw0rd-oper");
    let entered = login("{\"user\":\"oper\",\"password\":\"Passw0rd-oper\"}");
    let cookie =
        entered.split("et-cookie: ").nth(1).and_then(|c| c.split(';').next()).expect("a cookie").to_owned();
    assert!(cookie.starts_with("hypha-"), "another program on this host has another: {cookie}");
    let session = || {
        node.http(&format!(
            "GET /api/session HTTP/1.1\r\nHost: n\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n"
        ))
    };
    assert!(session().contains("\"oper\""), "{}", session());
    node.ok("cocon/user/password oper Passw0rd-two");
    says(session(), "401", "log in first");
    // Five failures of one user from one address, and it has to wait; so has the right password.
    for _ in 0..5 {
        login("{\"user\":\"admin\",\"password\":\"guess\"}");
    }
    let right = format!("{{\"user\":\"admin\",\"password\":\"{}\"}}", node.password);
    says(login(&right), "429", "too many failures; wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_is_drawn_edited_checked_gone_through_and_kept_in_versions() {
    let node = Node::start();
    node.ok("domain/declare voip.test");
    let manual = include_str!("../fixtures/ivr/simple_auto_attendant5.json").replace('\n', "");
    node.ok(&format!("domain/voip.test/ivr/script/.import --id clerk --json {manual}"));
    let browser = Browser::open().await;
    browser.log_in(&node, "admin", &node.password).await;
    browser.shows("nav a[href='#ivr']").await;
    browser.click("nav a[href='#ivr']").await;
    browser.click("a[href*='clerk']").await;
    let count = |what: &'static str| {
        let client = browser.client.clone();
        async move {
            let script = "return document.querySelectorAll(arguments[0]).length";
            client.execute(script, vec![what.into()]).await.expect("a number").as_u64().expect("a number")
        }
    };
    browser.shows("[data-block=ivr_2]").await;
    let blocks = serde_json::from_str::<serde_json::Value>(&manual).expect("JSON")["actions"]
        .as_object()
        .expect("blocks")
        .len() as u64;
    assert_eq!(count("svg.ivr .block").await, blocks);
    assert!(count("svg.ivr .link").await >= blocks - 2, "blocks are linked");

    // A menu's phrases, through their dialogue.
    let press = |css: &'static str, keys: &'static str| {
        let client = browser.client.clone();
        async move {
            client.find(Locator::Css(css)).await.expect(css).send_keys(keys).await.expect("typed");
        }
    };
    press("[data-block=ivr_2]", "\u{e007}").await;
    browser.click("button[aria-label='Add ivr']").await;
    browser.click("[data-phrases='0']").await;
    press("#phrases", "отдел продаж\u{e007}купить").await;
    browser.click("#phrases-save").await;
    browser.reads("[data-phrases='0']", |t| t == "отдел продаж, купить").await;
    // A new block, and the choice's way to it.
    browser.click("[data-add=say]").await;
    browser.shows("[data-block^=say_]").await;
    let field = browser.shows("#panel [data-field=text]").await;
    field.send_keys("Отдел продаж.\t").await.expect("typed");
    press("[data-block=ivr_2]", "\u{e007}").await;
    let options = "const s = document.querySelector(\"select[aria-label='outcome 1']\"); s.value = [...s.options].map(o => o.value).find(v => v.startsWith('say_')); s.dispatchEvent(new Event('change')); return s.value";
    browser.shows("select[aria-label='outcome 1']").await;
    browser.client.execute(options, vec![]).await.expect("chosen");

    // What is wrong is told, with its block chosen.
    press("[data-block=dial_11]", "\u{e007}").await;
    let numbers = browser.shows("#panel [data-field=numbers]").await;
    numbers.clear().await.expect("cleared");
    numbers.send_keys("\t").await.expect("typed");
    press("[data-block=ivr_2]", "\u{e007}").await;
    browser.click("#validate").await;
    browser.reads("#told", |t| t == "block dial_11, numbers: a text is wanted").await;
    browser.reads("#panel h3", |t| t.contains("dial_11")).await;
    let numbers = browser.shows("#panel [data-field=numbers]").await;
    numbers.send_keys("%EXTENSION%\t").await.expect("typed");
    browser.click("#validate").await;
    browser.reads("#told", |t| t == "the script can run").await;

    // Step by step: the phrase leads to the new block; a variable is shown.
    browser.click("#steps").await;
    browser.reads("#now", |t| t == "ivr_2").await;
    let phrase = browser.shows("input[aria-label=phrase]").await;
    phrase.send_keys("купить\u{e007}").await.expect("typed");
    browser.reads("#now", |t| t.starts_with("say_")).await;
    browser.reads("#vars", |t| t.contains("ASR_RECOGNIZED") && t.contains("купить")).await;
    browser.reads(".log", |t| t.contains("▶ Отдел продаж.")).await;

    // Saved: a version more, and the drawing of the rest as it was.
    browser.click("#save").await;
    browser.reads("#told", |t| t == "saved").await;
    let versions = node.rows("domain/voip.test/ivr/script/versions clerk");
    assert_eq!(versions.len(), 2, "{versions:?}");
    let exported = |more: &str| -> serde_json::Value {
        let text = node.ok(&format!("domain/voip.test/ivr/script/export clerk {more}--json"));
        serde_json::from_str(&text).expect("JSON")
    };
    let (old, new) = (exported("--version 1 "), exported(""));
    let old: serde_json::Value = old.get("value").cloned().unwrap_or(old);
    let new: serde_json::Value = new.get("value").cloned().unwrap_or(new);
    let before: serde_json::Value = serde_json::from_str(&manual).expect("JSON");
    assert_eq!(old, before, "the first version is what was imported");
    for block in ["condition_4", "goto_17", "play_18"] {
        assert_eq!(new["actions"][block], before["actions"][block], "{block}");
    }
    let choice = &new["actions"]["ivr_2"]["params"]["ivr"][0];
    assert_eq!(choice["phrases"], serde_json::json!(["отдел продаж", "купить"]));
    // A block that is dragged keeps its links, and a new name its script.
    let drag = "const b = document.querySelector('[data-block=play_18] rect').getBoundingClientRect(); \
                const at = (t, x, y, to) => to.dispatchEvent(new PointerEvent(t, { bubbles: true, clientX: x, clientY: y })); \
                const [x, y] = [b.x + b.width / 2, b.y + b.height / 2]; \
                at('pointerdown', x, y, document.querySelector('[data-block=play_18] rect')); \
                at('pointermove', x + 720, y + 150, window); at('pointerup', x + 720, y + 150, window); \
                return document.querySelector('[data-block=play_18]').getAttribute('transform')";
    let place = "return document.querySelector('[data-block=play_18]').getAttribute('transform')";
    let was = browser.client.execute(place, vec![]).await.expect("a place");
    let is = browser.client.execute(drag, vec![]).await.expect("a place");
    assert_ne!(was, is, "it has moved");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_attendant_heard_is_judged_and_corrected_on_its_page() {
    use support::{
        phones::{self, free_tcp_port},
        sorm::{licence_for, license},
    };
    let (dir, at) = (tempfile::tempdir().expect("a directory"), free_tcp_port());
    let (vendor, licence) = licence_for("asr");
    let speech = format!("[speech]\nasr = \"\"\nmanager = \"\"\nattendant = \"127.0.0.1:{at}\"\n{vendor}");
    let node = Node::start_with(&speech, &[]);
    license(&node, &licence);
    let wav = dir.path().join("tone.wav");
    phones::tone(&wav, 500.0, 1);
    let put = |name: &str| {
        let url = format!("http://127.0.0.1:{at}/{name}.wav");
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "-T"]).arg(&wav).arg(url);
        String::from_utf8_lossy(&command.output().expect("curl runs").stdout).into_owned()
    };
    assert_eq!([put("one"), put("two")], ["206", "206"]);
    let browser = Browser::open().await;
    browser.client.goto(&format!("http://127.0.0.1:{at}/")).await.expect("the page");
    browser.reads("#count", |t| t == "2 из 2").await;
    browser.click("#rows tr:first-child button.bad").await;
    browser.shows("#rows tr:first-child button.bad[aria-pressed=true]").await;
    let said = browser.shows("#rows tr:first-child input").await;
    said.send_keys("анна смирнова\t").await.expect("typed");
    // It can be heard.
    browser.click("#rows tr:first-child td:nth-child(5) button").await;
    browser.shows("#rows tr:first-child audio[src^=blob]").await;
    let which =
        "const s = document.querySelector('#which'); s.value = 'bad'; s.dispatchEvent(new Event('change'))";
    browser.client.execute(which, vec![]).await.expect("chosen");
    browser.reads("#count", |t| t == "1 из 2").await;
    // It was kept.
    browser.click("#again").await;
    browser.reads("#count", |t| t == "1 из 2").await;
    let kept = "return document.querySelector('#rows tr:first-child input').value";
    assert_eq!(browser.client.execute(kept, vec![]).await.expect("a value"), "анна смирнова");
    browser.reads("#told", str::is_empty).await;
    browser.close().await;
}

/// Requests of a page's own browser, of pages of other sites, and of strangers that claim to be a proxy.
#[test]
fn the_page_works_behind_a_proxy_and_believes_only_the_proxies_it_is_told() {
    let login = |node: &Node, password: &str, headers: &str| {
        let body = format!("{{\"user\":\"admin\",\"password\":\"{password}\"}}");
        post(node, "/api/login", headers, &body)
    };
    let node = Node::start();
    let password = node.password.clone();
    // A plain proxy_pass: the host is the inner one, the browser says whose page it is.
    let proxied = "Origin: https://admin.example.com\r\nSec-Fetch-Site: same-origin\r\n";
    assert!(login(&node, &password, proxied).starts_with("HTTP/1.1 200"));
    for foreign in ["cross-site", "same-site"] {
        let headers = format!("Origin: http://node\r\nSec-Fetch-Site: {foreign}\r\n");
        assert!(login(&node, &password, &headers).starts_with("HTTP/1.1 403"), "{foreign}");
    }
    // A stranger is no proxy by saying so: no Secure cookie, and the address in the log is the real one.
    let forged = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let answer = login(&node, &password, forged);
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("Secure"), "{answer}");
    assert!(!node.log().contains("203.0.113.7"));
    let page =
        |path: &str| node.http(&format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"));
    for path in ["/", "/app.js", "/live.js", "/ivr.js", "/mediator.js"] {
        let text = page(path);
        assert!(
            !["\"/api", "src=\"/", "href=\"/"].iter().any(|a| text.contains(a)),
            "{path} works below a path"
        );
    }

    let node = Node::start_with("", &[]);
    node.configure("[web]\n", "[web]\ntrusted_proxies = [\"127.0.0.1\"]\nnames = [\"admin.example.com\"]\n");
    let mut node = node;
    node.restart_in_order();
    let password = node.password.clone();
    let behind = "Origin: http://admin.example.com\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.7, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n";
    let answer = login(&node, &password, behind);
    assert!(
        answer.starts_with("HTTP/1.1 200")
            && answer.contains("Secure")
            && answer.contains("strict-transport-security"),
        "{answer}"
    );
    assert!(node.log().contains("web 203.0.113.7"), "the address that the proxy saw: {}", node.log());
    // One browser's wrong passwords do not shut another's out.
    for _ in 0..7 {
        login(&node, "wrong", "X-Forwarded-For: 198.51.100.9\r\n");
    }
    assert!(login(&node, &password, "X-Forwarded-For: 198.51.100.9\r\n").starts_with("HTTP/1.1 429"));
    assert!(login(&node, &password, "X-Forwarded-For: 203.0.113.7\r\n").starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tabs_share_one_stream_and_all_are_live() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = held.local_addr().expect("bound");
    let node = Node::start_with(&format!("[phone_book]\nlisten = \"{at}\"\n"), &[]);
    let browser = Browser::open().await;
    browser.log_in(&node, "admin", &node.password).await;
    browser.shows("#live.running").await;
    for _ in 0..7 {
        let tab = browser.client.new_window(true).await.expect("a tab");
        browser.client.switch_to_window(tab.handle).await.expect("there");
        browser.client.goto(&node.web).await.expect("the page");
        browser.shows("#live.running").await;
        browser.shows("a[data-actor='cocon/ssh']").await;
    }
    // The alarm of the taken port, its page, and its end.
    browser.reads("#alarms", |t| t == "1").await;
    browser.click("#alarms").await;
    browser.reads("#alarm-list", |t| t.contains("node::door::closed") && t.contains(&at.to_string())).await;
    drop(held);
    browser.reads("#alarm-list", |t| !t.contains("node::door::closed")).await;
}
