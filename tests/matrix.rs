//! Phones of three makers and SIPp hear each other in every pair of codings: baresip, linphone, JsSIP in Chromium.
//!
//! Every phone has one coding and a tone of its own; SIPp gives back what it hears, so that a phone hears itself.

mod support;

use std::{
    collections::HashSet,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use support::{
    Node,
    browser::Browser,
    calls::{calls, media_ports, until},
    phones::{self, PATIENCE, Sipp, SoftPhone},
    sorm::{licence_for, license},
};

const CODINGS: [&str; 4] = ["PCMA", "PCMU", "G722", "opus"];

/// The tone that a script plays.
const TONE: f32 = 2_900.0;

/// As a description of a session has it.
fn map(coding: &str) -> String {
    let rate = if coding == "opus" { "48000/2" } else { "8000" };
    format!("{coding}/{rate}")
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Maker {
    Baresip,
    Linphone,
    JsSip,
}

struct Phone {
    maker: Maker,
    coding: &'static str,
    number: String,
    frequency: f32,
    /// A program; a phone of the page has none.
    program: Option<Mutex<SoftPhone>>,
}

struct Hall {
    node: Node,
    dir: tempfile::TempDir,
    browser: Browser,
    phones: Vec<Phone>,
    /// SIPp's port for each coding: a trunk, called by 90 to 93.
    echoes: [u16; 4],
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// A hall full of phones is enough for one machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Hall {
    async fn open() -> Self {
        let turn = TURN.lock().await;
        let (vendor, licence) = licence_for("asr");
        let sip = "[sip]\nlisten = \"127.0.0.1:0\"\nws = \"127.0.0.1:0\"\n";
        let node = Node::start_with(&format!("{sip}{}{vendor}", media_ports()), &[]);
        license(&node, &licence);
        node.ok("domain/declare voip.test");
        let rule = |n: usize| {
            format!(
                "<rule name=\"e{n}\"><conditions><cdpn digits=\"9{n}\"/></conditions><result><external><trunk value=\"echo{n}\"/>\
                 </external></result></rule>"
            )
        };
        let rules: String = (0..4).map(rule).collect();
        let local =
            "<rule name=\"in\"><conditions><cdpn digits=\"%\"/></conditions><result><local/></result></rule>";
        let context = format!("<context name=\"ctx\">{rules}{local}</context>");
        let routed = node.ssh("domain/voip.test/routing/import ecss1 -", context.as_bytes());
        assert_eq!(routed.status, 0, "{routed:?}");
        node.ok("domain/voip.test/sip/user/declare ctx g 1{0-1}{0-9}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
        let echoes = [(); 4].map(|()| phones::free_port());
        for (n, port) in echoes.iter().enumerate() {
            node.ok(&format!("domain/voip.test/trunk/sip/declare ctx g echo{n} voip.test.set1 static 127.0.0.1 {port} sip-proxy 5060"));
        }
        let browser = Browser::open_with(&[
            "--autoplay-policy=no-user-gesture-required",
            "--allow-loopback-in-peer-connection",
        ])
        .await;
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser-phone/phones.html");
        assert!(page.exists(), "ops/browser-phone builds it");
        browser.client.goto(&format!("file://{}", page.display())).await.expect("the page");
        let mut hall = Self {
            node,
            dir: tempfile::tempdir().expect("a directory"),
            browser,
            phones: Vec::new(),
            echoes,
            _turn: turn,
        };
        for (m, maker) in [Maker::Baresip, Maker::Linphone, Maker::JsSip].into_iter().enumerate() {
            for (c, coding) in CODINGS.into_iter().enumerate() {
                hall.add(maker, coding, m * 4 + c).await;
            }
        }
        let registered = || hall.node.rows("domain/voip.test/sip/user/registered").len();
        until("every phone is registered", || registered() == hall.phones.len());
        hall
    }

    /// Tones are spread over the telephone band, none a multiple of another.
    fn frequency(n: usize) -> f32 {
        510.0 + 190.0 * n as f32
    }

    async fn add(&mut self, maker: Maker, coding: &'static str, n: usize) {
        let (number, frequency, at) = (format!("{}", 100 + n), Self::frequency(n), self.node.sip());
        let file = self.dir.path().join(format!("{number}.wav"));
        let program = match maker {
            Maker::Baresip => {
                phones::tone_for(&file, coding, frequency, 60);
                let more = format!(
                    ";answermode=auto;audio_codecs={}",
                    match coding {
                        "opus" => "opus/48000/2",
                        "G722" => "G722/16000/1",
                        narrow => narrow,
                    }
                );
                Some(SoftPhone::baresip(at, &number, "udp", "Geheim77", &more, Some(&file)))
            }
            Maker::Linphone => {
                phones::tone_for(&file, "PCMA", frequency, 60);
                Some(SoftPhone::linphone_in(at, &number, "Geheim77", coding, &file))
            }
            Maker::JsSip => {
                let tones: Vec<f32> = (0..12).map(Self::frequency).chain([TONE]).collect();
                let ws = format!("ws://{}", self.node.sip_over("ws"));
                let wanted = serde_json::json!({ "user": number, "coding": coding, "frequency": frequency, "ws": ws, "tones": tones });
                self.browser.client.execute("have(arguments[0])", vec![wanted]).await.expect("made");
                None
            }
        };
        self.phones.push(Phone { maker, coding, number, frequency, program: program.map(Mutex::new) });
    }

    async fn does(&self, phone: &Phone, baresip: &str, linphone: &str, page: &str) {
        let Some(program) = &phone.program else {
            let script = format!("phones['{}'].{page}", phone.number);
            self.browser.client.execute(&script, vec![]).await.unwrap_or_else(|e| panic!("{script}: {e}"));
            return;
        };
        let command = if phone.maker == Maker::Baresip { baresip } else { linphone };
        program.lock().expect("no test has died").types(command);
    }

    async fn dials(&self, phone: &Phone, number: &str) {
        // The page's library encodes the number itself.
        let (encoded, plain) = (number.replace('#', "%23"), number);
        let dial = format!("/dial sip:{encoded}@voip.test");
        self.does(phone, &dial, &format!("call sip:{encoded}@voip.test"), &format!("dial('{plain}')")).await;
    }

    async fn hangs_up(&self, phone: &Phone) {
        self.does(phone, "/hangup", "terminate", "hangUp()").await;
    }

    /// The next calls are heard anew.
    fn forget(&self) {
        for phone in &self.phones {
            let Some(program) = &phone.program else { continue };
            let mut program = program.lock().expect("no test has died");
            program.recordings().iter().for_each(|r| std::fs::remove_file(r).expect("removed"));
            if phone.maker == Maker::Linphone {
                program.records("next");
            }
        }
    }

    /// For each tenth of a second of its last call: whether a phone heard a tone.
    async fn tenths(&self, phone: &Phone, frequency: f32) -> Vec<bool> {
        let Some(program) = &phone.program else {
            let script =
                format!("return phones['{}'].own.heard.map((t) => t.includes({frequency}))", phone.number);
            let told = self.browser.client.execute(&script, vec![]).await.expect("told");
            return serde_json::from_value(told).expect("a list");
        };
        let recordings = program.lock().expect("no test has died").recordings();
        recordings.last().map(|r| phones::heard(&phones::samples(r), frequency)).unwrap_or_default()
    }

    /// A second and a half on end, or a second where a phone looks at what it hears ten times a second only.
    async fn hears(&self, phone: &Phone, frequency: f32) -> bool {
        let least = if phone.program.is_some() { 15 } else { 10 };
        self.tenths(phone, frequency).await.windows(least).any(|w| w.iter().all(|h| *h))
    }

    /// Until it hears: a program may write its recording a little after its call.
    async fn must_hear(&self, phone: &Phone, frequency: f32, said_by: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.hears(phone, frequency).await {
            if Instant::now() > deadline {
                let heard = self.tenths(phone, frequency).await;
                let heard: String = heard.iter().map(|h| if *h { '#' } else { '.' }).collect();
                let (maker, coding, number) = (phone.maker, phone.coding, &phone.number);
                panic!("{maker:?} with {coding} ({number}) does not hear {said_by}: {heard:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until there are so many calls, and so many tenths of a second have come from each party of each.
    fn talked(&self, count: usize, tenths: u64) {
        let enough = |call: &serde_json::Value| {
            let legs = call["legs"].as_array().cloned().unwrap_or_default();
            legs.len() > 1
                && legs.iter().all(|l| l["quality"]["received"].as_u64().is_some_and(|r| r >= tenths * 5))
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = calls(&self.node);
            if all.len() == count && all.iter().all(enough) {
                return;
            }
            assert!(Instant::now() < deadline, "{count} calls are heard: {all:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn over(&self) {
        until("the calls are over", || calls(&self.node).is_empty());
    }

    /// SIPp with one of the scenarios, each `(from, to)` of it replaced.
    fn sipp(&self, coding: usize, scenario: &str, changes: &[(&str, &str)], arguments: &[&str]) -> Sipp {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(scenario);
        let mut text = std::fs::read_to_string(file).expect("a scenario");
        for (from, to) in changes {
            text = text.replace(from, to);
        }
        let path = self.dir.path().join(format!("{coding}-{scenario}"));
        std::fs::write(&path, text.replace("CODING", &map(CODINGS[coding]))).expect("written");
        let media = phones::free_port().to_string();
        let mut all = vec!["-rtp_echo", "-mp", &media];
        all.extend(arguments);
        Sipp::at(self.echoes[coding], path.to_str().expect("text"), self.node.sip(), &all)
    }
}

/// Every pair of these once, as rounds in which each is in one pair (the circle method).
fn rounds(of: usize) -> Vec<Vec<(usize, usize)>> {
    let place = |round: usize, n: usize| if n == 0 { 0 } else { (n + round - 1) % (of - 1) + 1 };
    let pair = |round: usize, n: usize| {
        let (a, b) = (place(round, n), place(round, of - 1 - n));
        if (round + n).is_multiple_of(2) { (a, b) } else { (b, a) }
    };
    (0..of - 1).map(|round| (0..of / 2).map(|n| pair(round, n)).collect()).collect()
}

#[test]
fn rounds_have_every_pair_once() {
    let all: Vec<_> = rounds(12).into_iter().flatten().map(|(a, b)| (a.min(b), a.max(b))).collect();
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (66, 66));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phone_hears_every_other_in_every_pair_of_codings() {
    let hall = Hall::open().await;
    for round in rounds(hall.phones.len()) {
        hall.forget();
        for (a, b) in &round {
            hall.dials(&hall.phones[*a], &hall.phones[*b].number).await;
        }
        hall.talked(round.len(), 25);
        for (a, _) in &round {
            hall.hangs_up(&hall.phones[*a]).await;
        }
        hall.over();
        for (a, b) in round {
            let (a, b) = (&hall.phones[a], &hall.phones[b]);
            hall.must_hear(a, b.frequency, &format!("the {:?} with {} it called", b.maker, b.coding)).await;
            hall.must_hear(b, a.frequency, &format!("its caller, a {:?} with {}", a.maker, a.coding)).await;
        }
    }
    holds(&hall).await;
    hall.browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phone_hears_sipp_in_every_coding_with_early_media_and_late_offers() {
    let hall = Hall::open().await;
    echoes(&hall).await;
    asked(&hall).await;
    hall.browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phone_is_heard_and_hears_in_a_meeting_and_by_a_script() {
    let hall = Hall::open().await;
    confer(&hall).await;
    script(&hall).await;
    hall.browser.close().await;
}

/// Held, a phone hears music and no tone; retrieved, the tone again.
async fn holds(hall: &Hall) {
    for turned in [false, true] {
        hall.forget();
        let pairs: Vec<_> = rounds(hall.phones.len())
            .remove(3)
            .into_iter()
            .map(|(a, b)| if turned { (b, a) } else { (a, b) })
            .collect();
        for (a, b) in &pairs {
            hall.dials(&hall.phones[*a], &hall.phones[*b].number).await;
        }
        hall.talked(pairs.len(), 20);
        let all_are =
            |state: &str| calls(&hall.node).iter().filter(|c| c["state"] == state).count() == pairs.len();
        for (a, _) in &pairs {
            hall.does(&hall.phones[*a], "/hold", "pause", "hold()").await;
        }
        until("all are held", || all_are("held"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        for (a, _) in &pairs {
            hall.does(&hall.phones[*a], "/resume", "resume", "resume()").await;
        }
        until("all are retrieved", || all_are("talking"));
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        for (a, _) in &pairs {
            hall.hangs_up(&hall.phones[*a]).await;
        }
        hall.over();
        for (a, b) in pairs {
            let (a, b) = (&hall.phones[a], &hall.phones[b]);
            hall.must_hear(b, a.frequency, "its caller").await;
            let heard: String =
                hall.tenths(b, a.frequency).await.iter().map(|h| if *h { '#' } else { '.' }).collect();
            let [before, music, after] =
                ["##########", "........", "##########"].map(|p| (heard.find(p), heard.rfind(p)));
            let (maker, coding) = (b.maker, b.coding);
            assert!(
                before.0 < music.1 && music.0 < after.1 && music.0.is_some(),
                "{maker:?} with {coding} held by {:?} hears the tone, music, the tone: {heard}",
                a.maker
            );
        }
    }
}

/// Every phone calls SIPp in every coding: answered, and with early media alone.
async fn echoes(hall: &Hall) {
    for (status, answered) in [("200 OK", "retrans=\"500\""), ("183 Session Progress", "")] {
        for shift in 0..CODINGS.len() {
            hall.forget();
            let changes = [("STATUS", status), ("ANSWERED", answered)];
            let _echoes: Vec<_> =
                (0..CODINGS.len()).map(|c| hall.sipp(c, "echo.xml", &changes, &[])).collect();
            let number = |n: usize| format!("9{}", (n + shift) % CODINGS.len());
            for (n, phone) in hall.phones.iter().enumerate() {
                hall.dials(phone, &number(n)).await;
            }
            hall.talked(hall.phones.len(), 25);
            for phone in &hall.phones {
                hall.hangs_up(phone).await;
            }
            hall.over();
            for (n, phone) in hall.phones.iter().enumerate() {
                let coding = CODINGS[(n + shift) % CODINGS.len()];
                hall.must_hear(phone, phone.frequency, &format!("SIPp's echo in {coding} ({status})")).await;
            }
        }
    }
}

/// SIPp calls every phone in every coding: with an offer, and with a late one.
async fn asked(hall: &Hall) {
    let body = |payload: &str| {
        format!(
            "Content-Type: application/sdp\nContent-Length: [len]\n\nv=0\no=city 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n\
             m=audio [media_port] RTP/AVP {payload}\na=rtpmap:{payload} CODING"
        )
    };
    let numbers = hall.dir.path().join("numbers.csv");
    let list: String = hall.phones.iter().map(|p| format!("{}\n", p.number)).collect();
    std::fs::write(&numbers, format!("SEQUENTIAL\n{list}")).expect("written");
    let count = hall.phones.len().to_string();
    for late in [false, true] {
        for (c, coding) in CODINGS.into_iter().enumerate() {
            hall.forget();
            let payload = ["8", "0", "9", "107"][c];
            let (early, late_body) = (body(payload), body("[$2]"));
            let none = "Content-Length: 0\n\n";
            let (offer, answer) = if late { (none, late_body.as_str()) } else { (early.as_str(), none) };
            let arguments = ["-inf", numbers.to_str().expect("text"), "-m", &count, "-r", "12"];
            let sipp = hall.sipp(c, "asks.xml", &[("OFFER", offer), ("ANSWER", answer)], &arguments);
            hall.talked(hall.phones.len(), 25);
            for phone in &hall.phones {
                hall.hangs_up(phone).await;
            }
            hall.over();
            sipp.ends();
            for phone in &hall.phones {
                let how = if late { "late offer" } else { "offer" };
                hall.must_hear(phone, phone.frequency, &format!("SIPp's echo in {coding} ({how})")).await;
            }
        }
    }
}

/// Four meetings, in each a phone of each maker, all with other codings; all speak, and each hears both others.
async fn confer(hall: &Hall) {
    hall.forget();
    let meetings: Vec<[&Phone; 3]> =
        (0..4).map(|n| [0, 1, 2].map(|m| &hall.phones[m * 4 + (n + m) % 4])).collect();
    let node = &hall.node;
    for [manager, ..] in &meetings {
        let number = &manager.number;
        node.ok(&format!("domain/voip.test/ss/teleconference/activate {number}"));
        node.ok(&format!(
            "domain/voip.test/alias/set {number} g {number}@voip.test teleconference\\role manager"
        ));
        node.ok(&format!(
            "domain/voip.test/alias/set {number} g {number}@voip.test teleconference\\password 4321"
        ));
        hall.dials(manager, "*72#").await;
    }
    until("the meetings are open", || node.rows("domain/voip.test/teleconference/list").len() == 4);
    for [manager, members @ ..] in &meetings {
        for member in members {
            hall.dials(member, &format!("*72*{}*4321#", manager.number)).await;
        }
    }
    let legs = |call: &serde_json::Value| call["legs"].as_array().map_or(0, Vec::len);
    until("all are in", || calls(node).iter().filter(|c| legs(c) == 3).count() == 4);
    for [manager, members @ ..] in &meetings {
        for member in members {
            node.ok(&format!("domain/voip.test/teleconference/mic {} {} on", manager.number, member.number));
        }
    }
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    for [manager, ..] in &meetings {
        hall.hangs_up(manager).await;
    }
    hall.over();
    for members in meetings {
        for phone in members {
            for other in members.iter().filter(|o| o.number != phone.number) {
                hall.must_hear(
                    phone,
                    other.frequency,
                    &format!("a {:?} with {} in a meeting", other.maker, other.coding),
                )
                .await;
            }
        }
    }
}

/// A script plays a tone to every phone, and is played what each says: the recording of its call has both sides.
async fn script(hall: &Hall) {
    hall.forget();
    let node = &hall.node;
    std::fs::create_dir_all(node.data().join("prompts")).expect("made");
    phones::tone(&node.data().join("prompts/tone.wav"), TONE, 60);
    let script = serde_json::json!({ "actions": {
        "b": { "name": "begin", "cases": { "next": "p" } },
        "p": { "name": "play", "params": { "play": [{ "type": "file", "name": "tone.wav" }] },
            "cases": { "next": "undefined" } },
    } });
    node.ok(&format!("domain/voip.test/ivr/script/.import --id s119 --json {script}"));
    node.ok("domain/voip.test/ss/personal-ivr/activate 119 --script s119");
    for phone in &hall.phones {
        hall.dials(phone, "119").await;
    }
    until("the script has every call", || calls(node).len() == hall.phones.len());
    let all = calls(node);
    let commands = |what: &str| -> String {
        all.iter()
            .map(|c| format!("domain/voip.test/call/record/{what} {}\n", support::calls::id(&c["call"])))
            .collect()
    };
    let started = node.ssh("", commands("start").as_bytes());
    assert_eq!(started.status, 0, "{started:?}");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let stopped = node.ssh("", commands("stop").as_bytes());
    assert_eq!(stopped.status, 0, "{stopped:?}");
    for phone in &hall.phones {
        hall.hangs_up(phone).await;
    }
    hall.over();
    let files: Vec<&str> = started.stdout.lines().filter(|l| l.ends_with(".wav")).collect();
    assert_eq!(files.len(), all.len(), "{started:?}");
    for phone in &hall.phones {
        hall.must_hear(phone, TONE, "the script").await;
        let n = all.iter().position(|c| c["a"] == phone.number.as_str()).expect("its call");
        let heard = phones::heard(&phones::samples(Path::new(files[n])), phone.frequency);
        let (maker, coding) = (phone.maker, phone.coding);
        assert!(
            heard.windows(10).any(|w| w.iter().all(|h| *h)),
            "a script hears {maker:?} with {coding}: {heard:?}"
        );
    }
}
