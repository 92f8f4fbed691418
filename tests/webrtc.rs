//! A phone in a browser, and phones that seal their packets.

mod support;

use std::path::Path;

use fantoccini::Locator;
use support::{
    browser::Browser,
    calls::{calls, estate, estate_with, ladder, talked, until},
    phones::{self, SoftPhone},
};

/// JsSIP in Chromium, registered; it says the file.
async fn browser_phone(ws: std::net::SocketAddr, user: &str, says: &Path, more: &str) -> Browser {
    let file = format!("--use-file-for-fake-audio-capture={}", says.display());
    let browser = Browser::open_with(&[
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        "--allow-loopback-in-peer-connection",
        &file,
    ])
    .await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser-phone/phone.html");
    assert!(page.exists(), "ops/browser-phone builds it");
    let page =
        format!("file://{}#ws=ws://{ws}&uri=sip:{user}@voip.test&password=Geheim77{more}", page.display());
    browser.client.goto(&page).await.expect("the page");
    shows(&browser, "state", |s| s == "registered").await;
    browser
}

/// Words of a page and its connection, for a test that fails.
async fn circumstances(browser: &Browser) -> String {
    let said = "const done = arguments[0]; (async () => { const s = JSON.stringify(document.body.dataset); if (!window.peer) return s; \
                const all = [...(await window.peer.getStats()).values()].filter((r) => /inbound|outbound|candidate-pair|transport/.test(r.type)); \
                return s + JSON.stringify(all); })().then(done, (e) => done(String(e)));";
    let told = browser.client.execute_async(said, vec![]).await;
    told.map_or_else(|e| e.to_string(), |v| v.to_string())
}

/// Until an attribute of the page is as wanted.
async fn shows(browser: &Browser, what: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = std::time::Instant::now() + phones::PATIENCE;
    loop {
        let body = browser.client.find(Locator::Css("body")).await.expect("a page");
        let shown = body.attr(&format!("data-{what}")).await.ok().flatten().unwrap_or_default();
        if wanted(&shown) {
            return;
        }
        if std::time::Instant::now() >= deadline {
            panic!("{what} is {shown:?}: {}", circumstances(browser).await);
        }
        tokio::task::yield_now().await;
    }
}

/// A frequency as the page finds it: its steps are 6 Hz apart.
fn about(wanted: i32) -> impl Fn(&str) -> bool {
    move |shown| shown.parse::<i32>().is_ok_and(|f| (f - wanted).abs() < 15)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_and_a_phone_call_each_other() {
    let node = estate_with("ws = \"127.0.0.1:0\"\n");
    let dir = tempfile::tempdir().expect("a directory");
    let (low, high) = (dir.path().join("low.wav"), dir.path().join("high.wav"));
    phones::tone(&low, 440.0, 60);
    phones::tone(&high, 1000.0, 60);
    let mut bob = SoftPhone::baresip(
        node.sip(),
        "101",
        "udp",
        "Geheim77",
        ";answermode=auto;audio_codecs=PCMU,PCMA",
        Some(&high),
    );
    bob.says("200 OK");
    let browser = browser_phone(node.sip_over("ws"), "100", &low, "").await;

    browser.client.execute("dial('101')", vec![]).await.expect("dialled");
    shows(&browser, "state", |s| s == "talking").await;
    shows(&browser, "hears", about(1000)).await;
    talked(&node, 3);
    bob.types("/hangup");
    shows(&browser, "state", |s| s == "ended: remote").await;
    until("the call has ended", || calls(&node).is_empty());

    bob.types("/dial sip:100@voip.test");
    bob.says("Call established");
    shows(&browser, "state", |s| s == "talking").await;
    talked(&node, 3);
    let ladder = ladder(&node, &calls(&node)[0]["call"]);
    assert!(ladder.contains("INVITE"), "{ladder}");
    browser.client.execute("hangUp()", vec![]).await.expect("hung up");
    until("the call has ended", || calls(&node).is_empty());
    assert_eq!(bob.recordings().len(), 2);
    for file in bob.recordings() {
        hears(&file, 440.0);
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_pass_between_browsers_and_a_phone() {
    let node = estate_with("ws = \"127.0.0.1:0\"\n");
    let dir = tempfile::tempdir().expect("a directory");
    let low = dir.path().join("low.wav");
    phones::tone(&low, 440.0, 60);
    let phone = SoftPhone::picture_phone(node.sip(), "102", "Geheim77", &low);
    phone.says("200 OK");
    let alice = browser_phone(node.sip_over("ws"), "100", &low, "&video=yes").await;
    let bob = browser_phone(node.sip_over("ws"), "101", &low, "&video=yes").await;
    alice.client.execute("dial('101')", vec![]).await.expect("dialled");
    for browser in [&alice, &bob] {
        shows(browser, "state", |s| s == "talking").await;
        shows(browser, "hears", about(440)).await;
        shows(browser, "sees", |s| s.starts_with("640x")).await;
    }
    alice.client.execute("hangUp()", vec![]).await.expect("hung up");
    shows(&bob, "state", |s| s == "ended: remote").await;
    // The phone's pictures have another size.
    bob.client.execute("dial('102')", vec![]).await.expect("dialled");
    shows(&bob, "state", |s| s == "talking").await;
    shows(&bob, "sees", |s| s.starts_with("352x")).await;
    phone.says("incoming rtp for 'video' established");
    bob.client.execute("hangUp()", vec![]).await.expect("hung up");
    alice.close().await;
    bob.close().await;
}

/// A recording has the tone for a second and a half at least, without a gap.
fn hears(recorded: &Path, tone: f32) {
    let heard = phones::heard(&phones::samples(recorded), tone);
    let first = heard.iter().position(|h| *h).expect("the other's tone is heard");
    let last = heard.iter().rposition(|h| *h).expect("and its end");
    let gaps = heard[first..=last].iter().filter(|h| !**h).count();
    assert!(last - first >= 15 && gaps == 0, "{heard:?}");
}

#[test]
fn phones_seal_their_packets_with_keys_of_the_description() {
    let node = estate();
    node.ok("domain/voip.test/sip/user/set g 102@voip.test srtp true");
    let dir = tempfile::tempdir().expect("a directory");
    let (low, high) = (dir.path().join("low.wav"), dir.path().join("high.wav"));
    phones::tone(&low, 440.0, 60);
    phones::tone(&high, 1000.0, 60);
    let phone = |user: &str, more: &str, says| {
        let more = format!(";answermode=auto;audio_codecs=PCMA{more}");
        let phone = SoftPhone::baresip(node.sip(), user, "udp", "Geheim77", &more, Some(says));
        phone.says("200 OK");
        phone
    };
    let plain = phone("101", "", &high);
    let keys = phone("102", ";mediaenc=srtp-mand", &high);
    // Sealed by the caller alone, by both, by the called phone alone.
    for (enc, callee, number) in
        [(";mediaenc=srtp-mand", &plain, "101"), (";mediaenc=srtp-mand", &keys, "102"), ("", &keys, "102")]
    {
        let mut caller = phone("100", enc, &low);
        caller.types(&format!("/dial sip:{number}@voip.test"));
        caller.says("Call established");
        talked(&node, 2);
        caller.types("/hangup");
        until("the call has ended", || calls(&node).is_empty());
        hears(caller.recordings().last().expect("a recording"), 1000.0);
        hears(callee.recordings().last().expect("a recording"), 440.0);
    }
}
