//! Speech on real calls: a phone says a name, the attendant finds its number.

mod support;

use std::{path::Path, process::Command, sync::Arc};

use speech::{
    grammar::Grammar,
    recogniser::{Engine, RATE, Task},
    sphinx::Sphinx,
};
use support::{
    Node,
    calls::{calls, cdrs, media_ports, talked, until},
    curl,
    phones::{self, SoftPhone, festival, free_tcp_port},
    sorm::{licence_for, license},
};

const BOOK: &str = "<CiscoIPPhoneDirectory>
<DirectoryEntry><Name>Евгений Казарцев</Name><Telephone>101</Telephone></DirectoryEntry>
<DirectoryEntry><Name>Алексей Лосев</Name><Telephone>102</Telephone></DirectoryEntry>
<DirectoryEntry><Name>Владислав Блинов</Name><Telephone>103</Telephone></DirectoryEntry>
<DirectoryEntry><Name>Анна Смирнова</Name><Telephone>104</Telephone></DirectoryEntry>
</CiscoIPPhoneDirectory>
";

/// A node with an attendant at a port, phones 100 to 105, and the manual's script at 105.
struct Station {
    node: Node,
    at: u16,
    dir: tempfile::TempDir,
}

impl Station {
    fn start() -> Self {
        let (dir, at) = (tempfile::tempdir().expect("a directory"), free_tcp_port());
        std::fs::write(dir.path().join("book.xml"), BOOK).expect("written");
        let (vendor, licence) = licence_for("asr");
        let book = dir.path().join("book.xml").display().to_string();
        let speech = format!(
            "[speech]\nasr = \"\"\nmanager = \"\"\nattendant = \"127.0.0.1:{at}\"\nphone_book = \"{book}\"\nsynthesis = \"festival\"\n"
        );
        let configuration = format!("[sip]\nlisten = \"127.0.0.1:0\"\n{}{speech}{vendor}", media_ports());
        let node = Node::start_with(&configuration, &[]);
        node.ok("domain/declare voip.test");
        node.route_all("voip.test", "<local/>");
        node.ok("domain/voip.test/sip/user/declare ctx g 10{0-5}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
        let station = Self { node, at, dir };
        let refused = station.curl(&["/test.pcm", "-X", "PUT", "--data-binary", "x"]);
        assert!(refused.0 == 403 && refused.1.contains("licence"), "{refused:?}");
        license(&station.node, &licence);
        let script = include_str!("../fixtures/ivr/simple_auto_attendant5.json");
        let script = script.replace("localhost:9010", &format!("127.0.0.1:{at}")).replace('\n', "");
        let import =
            format!("domain/voip.test/ivr/script/.import --id simple_auto_attendant5 --json {script}");
        let imported = station.node.ok(&import);
        assert!(
            imported.contains("Script successfully imported with id <<\"simple_auto_attendant5\">>"),
            "{imported}"
        );
        station.node.ok("domain/voip.test/ss/personal-ivr/activate 105 --script simple_auto_attendant5");
        station
    }

    /// Asks the attendant.
    fn curl(&self, arguments: &[&str]) -> (u16, String) {
        curl(self.at, arguments)
    }

    /// What the attendant has heard, the oldest first.
    fn records(&self) -> Vec<serde_json::Value> {
        let (status, body) = self.curl(&["/api/v1/records"]);
        assert_eq!(status, 200, "{body}");
        let mut all: Vec<serde_json::Value> = serde_json::from_str(&body).expect("JSON");
        all.reverse();
        all
    }

    /// Phone 100, which says this text so often, with so many seconds of silence before.
    fn caller(&self, text: &str, times: u32, silence: u32) -> SoftPhone {
        let said = self.dir.path().join("said.wav");
        let mut all = Vec::new();
        for _ in 0..times {
            all.extend(std::iter::repeat_n(0, 8000 * silence as usize));
            all.extend(festival(text));
        }
        all.extend(std::iter::repeat_n(0, 8000 * 60));
        phones::write(&said, all);
        let phone = SoftPhone::baresip(self.node.sip(), "100", "udp", "Geheim77", "", Some(&said));
        phone.says("200 OK");
        phone
    }
}

/// Seconds in which something is heard.
fn loud(samples: &[i16]) -> usize {
    samples.chunks(8000).filter(|s| s.iter().any(|v| v.abs() > 1_000)).count()
}

#[test]
fn the_attendant_hears_a_name_and_connects() {
    let station = Station::start();
    let tone = station.dir.path().join("tone.wav");
    phones::tone(&tone, 1000.0, 60);
    let bob =
        SoftPhone::baresip(station.node.sip(), "101", "udp", "Geheim77", ";answermode=auto", Some(&tone));
    bob.says("200 OK");
    let mut alice = station.caller("женя казарцев", 1, 5);
    alice.types("/dial sip:105@voip.test");
    alice.says("Call established");
    until("alice talks to bob", || {
        let calls = calls(&station.node);
        calls.len() == 1
            && calls[0]["b"] == "101"
            && calls[0]["legs"].as_array().is_some_and(|l| l.len() == 2)
    });
    talked(&station.node, 3);
    alice.types("/hangup");
    until("the call has ended", || calls(&station.node).is_empty());
    let samples = phones::samples(&alice.recordings()[0]);
    let tones = phones::heard(&samples, 1000.0);
    let first = tones.iter().position(|t| *t).expect("bob is heard");
    assert!(loud(&samples[..first * 800]) >= 3, "the greeting and \"Соединяю\" come before");
    let records = station.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((&records[0]["number"], &records[0]["good"]), (&"101".into(), &true.into()), "{records:?}");
    until("two records", || cdrs(&station.node).len() == 2);
    let of = |b: &str| cdrs(&station.node).into_iter().find(|c| c["side"]["b"] == b).unwrap_or_default();
    assert_eq!(of("105")["cdr"]["service"], "ivr", "{:?}", cdrs(&station.node));
    assert_eq!((&of("101")["cdr"]["cause"], &of("101")["side"]["a"]), (&16.into(), &"100".into()));
}

#[test]
fn who_asks_for_somebody_unknown_is_told_what_was_heard_three_times_and_then_goodbye() {
    let station = Station::start();
    let mut alice = station.caller("зинаида кукушкина", 12, 4);
    alice.types("/dial sip:105@voip.test");
    alice.says("Call established");
    // Three times eight seconds to answer, and what is said in between.
    let ends = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !calls(&station.node).is_empty() {
        assert!(std::time::Instant::now() < ends, "the script takes its leave");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let records = station.records();
    let heard = |r: &serde_json::Value| r["recognised"] == "зинаида кукушкина" && r["number"].is_null();
    assert!(records.iter().filter(|r| heard(r)).count() >= 3, "{records:?}");
    assert!(
        records.iter().filter(|r| r["good"] == false).count() == 3,
        "one verdict for each try: {records:?}"
    );
    assert!(loud(&phones::samples(&alice.recordings()[0])) >= 12, "it speaks to the caller");
    until("one record", || cdrs(&station.node).len() == 1);
    assert_eq!(cdrs(&station.node)[0]["cdr"]["released_by"], "a".to_owned(), "{:?}", cdrs(&station.node));
}

#[test]
fn the_attendants_api_answers_as_printed_and_refuses_what_is_wrong() {
    let station = Station::start();
    let pcm = station.dir.path().join("test.pcm");
    let said: Vec<u8> = festival("лосев алексей").iter().flat_map(|s| s.to_le_bytes()).collect();
    std::fs::write(&pcm, &said).expect("written");
    let file = pcm.to_str().expect("text").to_owned();
    let (status, body) = station.curl(&["/test.pcm", "-T", &file]);
    let answer: serde_json::Value =
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body}: {e}"));
    assert_eq!(
        (status, &answer["number"], &answer["name"]),
        (200, &"102".into(), &"Алексей Лосев".into()),
        "{body}"
    );
    // A short name is taught, and heard after.
    let wav = station.dir.path().join("boss.wav");
    phones::write(&wav, festival("начальник"));
    let wav = wav.to_str().expect("text");
    let (status, body) = station.curl(&["/boss-1.wav", "-T", wav]);
    assert_eq!(status, 206, "{body}");
    assert!(!body.contains("\"number\""), "{body}");
    let teach = "{\"name\":\"начальник\",\"target\":\"смирнова анна\"}";
    let json = ["-H", "Content-Type: application/json", "-d"];
    let post = |path: &str, body: &str| station.curl(&[&[path][..], &json, &[body]].concat());
    let (status, row) = post("/api/v1/hardAliases", teach);
    assert_eq!(status, 201, "{row}");
    assert_eq!(station.curl(&["/api/v1/recompile", "-X", "POST"]).0, 200);
    let (status, body) = station.curl(&["/boss-2.wav", "-T", wav]);
    assert!(status == 200 && body.contains("\"number\":\"104\""), "{status} {body}");
    // The same again, a word that is none, a table and a record that are not there.
    assert_eq!(post("/api/v1/hardAliases", teach).0, 409);
    assert_eq!(post("/api/v1/words", "{\"name\":\"word\"}").0, 400);
    assert_eq!(post("/api/v1/words", "{").0, 400);
    assert_eq!(post("/api/v1/numbers", teach).0, 404);
    assert_eq!(station.curl(&["/api/v1/records/1/positive", "-I"]).0, 404);
    // Bytes that are no speech.
    assert_eq!(station.curl(&["/x.pcm", "-X", "PUT", "--data-binary", "abc"]).0, 400);
    assert_eq!(station.curl(&["/x.wav", "-X", "PUT", "--data-binary", "RIFF----WAVEfmt "]).0, 400, "cut off");
    let movie =
        ["/x.wav", "-X", "PUT", "--data-binary", "RIFF----AVI LIST----hdrlavih and what follows there"];
    assert_eq!(station.curl(&movie).0, 415);
    let long = station.dir.path().join("long.pcm");
    std::fs::write(&long, vec![0; 61 * 16_000]).expect("written");
    assert_eq!(station.curl(&["/x.pcm", "-T", long.to_str().expect("text")]).0, 413);
    // Headers that lie: about the length, and about a rate that nobody has.
    let header = |rate: u32, length: u32| {
        let mut wav = b"RIFF".to_vec();
        wav.extend((length + 36).to_le_bytes());
        wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        wav.extend(rate.to_le_bytes());
        wav.extend((rate.wrapping_mul(2)).to_le_bytes());
        wav.extend(b"\x02\0\x10\0data");
        wav.extend(length.to_le_bytes());
        wav.extend([0; 1600]);
        let file = station.dir.path().join("lies.wav");
        std::fs::write(&file, wav).expect("written");
        station.curl(&["/lies.wav", "-T", file.to_str().expect("text")])
    };
    assert_eq!(header(8000, 800_000).0, 400, "so much is not there");
    assert_eq!(header(4_000_000_000, 1600).0, 415);
    // An upload without an end is cut, and what it took is given back.
    let files = || station.node.files();
    let before = files();
    for _ in 0..3 {
        let endless = format!(
            "head -c 60000000 /dev/zero | curl -s -m 60 -o /dev/null -w '%{{http_code}}' -T - http://127.0.0.1:{}/endless.pcm",
            station.at
        );
        let out = Command::new("sh").args(["-c", &endless]).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "413");
    }
    until("its files are closed", || files() <= before + 1);
    let row: serde_json::Value = serde_json::from_str(&row).expect("JSON");
    let id = row["data"]["id"].as_str().expect("an id");
    assert_eq!(station.curl(&[&format!("/api/v1/hardAliases/{id}"), "-X", "DELETE"]).0, 204);
    // A recogniser that is killed is back for the next one.
    station.node.ok("node/actor/kill speech/pocketsphinx/0 --force");
    until("it is back", || station.curl(&["/test.pcm", "-T", &file]).0 == 200);
}

#[test]
fn recognisers_are_more_fewer_and_rebuilt_with_new_words_while_somebody_is_heard() {
    let at = free_tcp_port();
    let (vendor, licence) = licence_for("asr");
    let clerk = free_tcp_port();
    let dir = tempfile::tempdir().expect("a directory");
    let book = dir.path().join("book.xml");
    std::fs::write(&book, BOOK).expect("written");
    let speech = format!(
        "[speech]\nasr = \"\"\nattendant = \"127.0.0.1:{clerk}\"\nmanager = \"127.0.0.1:{at}\"\nphone_book = \"{}\"\n{vendor}",
        book.display()
    );
    let node = Node::start_with(&speech, &[]);
    license(&node, &licence);
    let json = |path: &str, body: &str| curl(at, &[path, "-H", "Content-Type: application/json", "-d", body]);
    let state =
        || -> serde_json::Value { serde_json::from_str(&curl(at, &["/api/v1/state"]).1).expect("JSON") };
    let instances = || {
        let state = state();
        let all = state["engines"]["pocketsphinx"]["instances"].as_array().expect("a list").clone();
        all.iter().map(|i| i["number"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    until("the book is read", || state()["names"] == 4);
    assert_eq!(instances(), [0]);
    let (status, body) = json("/api/v1/instances", "{\"engine\":\"pocketsphinx\"}");
    assert!(status == 201 && body.contains("\"number\":1"), "{status} {body}");
    assert_eq!(json("/api/v1/instances", "{\"engine\":\"parrot\"}").0, 404);
    assert_eq!(curl(at, &["/api/v1/instances/pocketsphinx/0", "-X", "DELETE"]).0, 202);
    until("the first has gone", || instances() == [1]);
    assert_eq!(curl(at, &["/api/v1/instances/pocketsphinx/1", "-X", "DELETE"]).0, 409, "the last one stays");
    // Callers speak without a pause, while everything is rebuilt with more words: none is refused.
    let wav = dir.path().join("said.wav");
    phones::write(&wav, festival("лосев алексей"));
    let wav = wav.to_str().expect("text");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|n| {
                let (over, curl) = (&over, &curl);
                scope.spawn(move || {
                    let (mut heard, mut file) = (0, 0);
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        file += 1;
                        let (status, body) = curl(clerk, &[&format!("/c{n}x{file}.wav"), "-T", wav]);
                        assert!(status == 200 && body.contains("\"number\":\"102\""), "{status} {body}");
                        heard += 1;
                    }
                    heard
                })
            })
            .collect();
        for (n, word) in ["абракад+абра", "кракоз+ябра", "тарат+айка"].iter().enumerate()
        {
            let (status, body) = json("/api/v1/words", &format!("{{\"words\":[\"{word}\"]}}"));
            assert!(status == 202 && body.contains("\"added\":1"), "{status} {body}");
            until("it was rebuilt", || state()["rebuild"]["count"] == n + 1);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(callers.into_iter().map(|c| c.join().expect("no caller is lost")).sum::<usize>() >= 3);
    });
    until("only the newest is there", || instances() == [4]);
    assert_eq!(json("/api/v1/words", "{\"words\":[\"word\"]}").0, 400);
    assert_eq!(json("/api/v1/words", "{\"words\":[]}").0, 400);
    // Words and grammars of the operator's files are taken when they change; a wrong file changes nothing.
    let words = node.data().join("speech/words");
    std::fs::create_dir_all(&words).expect("made");
    std::fs::write(words.join("own.dic"), "лосев L O1 S I F\n").expect("written");
    until("they are read", || node.log().contains("the operator's words and grammars were read"));
    std::fs::write(words.join("menu.gram"), "no grammar").expect("written");
    until("it is told", || node.ok("node/actor/info speech/book").contains("menu.gram"));
    // An engine whose supervisor is killed gets its instances again.
    node.ok("node/actor/kill speech/pocketsphinx --force");
    until("it is back", || curl(clerk, &["/z.wav", "-T", wav]).0 == 200);
}

#[test]
fn a_script_that_cannot_run_is_refused_with_its_block_and_field() {
    let station = Station::start();
    let import = |json: &str| {
        station.node.ssh(&format!("domain/voip.test/ivr/script/.import --id x --json {json}"), b"")
    };
    let refused = import(
        r#"{"actions":{"a":{"name":"begin","cases":{"next":"b"}},"b":{"name":"dial","params":{},"cases":{}}}}"#,
    );
    assert!(
        refused.status != 0 && refused.stderr.contains("block b, numbers: a text is wanted"),
        "{refused:?}"
    );
    assert!(import("{").stderr.contains("no JSON"));
    let list = station.node.ok("domain/voip.test/ivr/script/list");
    assert!(list.contains("simple_auto_attendant5") && !list.contains("| x "), "{list}");
    let exported = station.node.ok("domain/voip.test/ivr/script/export simple_auto_attendant5");
    assert!(exported.contains("Произнесите имя"), "{exported}");
    // What a menu would understand of a recording, and where the script would go then.
    let wav = station.dir.path().join("menu.wav");
    phones::write(&wav, festival("отдел продаж"));
    let sound = Command::new("base64").arg("-w0").arg(&wav).output().expect("it runs").stdout;
    let menu = serde_json::json!({ "actions": {
        "b": { "name": "begin", "cases": { "next": "m" } },
        "m": { "name": "ivr", "params": { "ivr": [{ "code": "1", "phrases": ["отдел продаж", "бухгалтерия"] }] },
            "cases": { "1": "d", "No Match": "undefined" } },
        "d": { "name": "dial", "params": { "numbers": "104" }, "cases": {} },
    } });
    let sound = String::from_utf8(sound).expect("text");
    let ask = |block: &str| {
        let asked = serde_json::json!({ "script": menu, "block": block, "sound": sound }).to_string();
        station.node.ssh("domain/voip.test/ivr/script/hear --json -", asked.as_bytes())
    };
    let understood = ask("m");
    assert!(understood.stdout.contains("{\"phrase\":\"отдел продаж\"}"), "{understood:?}");
    assert!(ask("d").stderr.contains("there is no menu d"));
    let moves = serde_json::json!({ "script": menu, "moves": ["speaks", { "phrase": "отдел продаж" }] });
    let gone =
        station.node.ssh("domain/voip.test/ivr/script/rehearse --json -", moves.to_string().as_bytes());
    assert!(gone.stdout.contains("| d ") && gone.stdout.contains("104"), "{gone:?}");
    let missing = station.node.ssh("domain/voip.test/ss/personal-ivr/activate 104", b"");
    assert!(missing.status != 0 && missing.stderr.contains("--script"), "{missing:?}");
}

/// Whisper's weights, where `ops/speech-weights` has put them together.
fn weights() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/whisper/ggml-base-q8_0.bin");
    path.is_file().then(|| path.display().to_string())
}

/// Start and end of a subtitle, seconds.
fn times(line: &str) -> (f64, f64) {
    let seconds =
        |t: &str| t.split(':').fold(0.0, |all, part| all * 60.0 + part.parse::<f64>().expect("a number"));
    let (start, end) = line.split_once(" --> ").expect("an arrow");
    (seconds(start), seconds(end))
}

#[test]
fn a_recorded_conversation_is_transcribed_with_labels_words_and_times() {
    let Some(weights) = weights() else {
        eprintln!("not tested: ops/speech-weights has not put the weights together");
        return;
    };
    let (dir, at) = (tempfile::tempdir().expect("a directory"), free_tcp_port());
    let (vendor, licence) = licence_for("asr");
    let speech = format!(
        "[speech]\nasr = \"127.0.0.1:{at}\"\nattendant = \"\"\nmanager = \"\"\nwhisper = \"{weights}\"\n{vendor}"
    );
    let node = Node::start_with(&speech, &[]);
    license(&node, &licence);
    // Alice on the left, Bob on the right, one after another.
    let said =
        ["Добрый день, меня зовут Александр.", "Здравствуйте, соедините меня с директором."].map(festival);
    let gap = 8000;
    let begins = [gap, gap + said[0].len() + gap];
    let length = begins[1] + said[1].len() + gap;
    let file = dir.path().join("talk.wav");
    let mut writer = hound::WavWriter::create(&file, telephone(2)).expect("a file");
    for n in 0..length {
        for (begin, samples) in begins.iter().zip(&said) {
            let sample = n.checked_sub(*begin).and_then(|i| samples.get(i)).copied().unwrap_or(0);
            writer.write_sample(sample).expect("written");
        }
    }
    writer.finalize().expect("finished");
    let file = file.to_str().expect("text").to_owned();
    // Any speech takes its time.
    let curl = |arguments: &[&str]| curl(at, &[arguments, &["-m", "120"]].concat());
    until("the recogniser is ready", || curl(&["/trans/mono", "-T", &file]).0 == 200);
    let labels = ["-H", "Calling: Алиса", "-H", "Called: Боб"];
    let (status, vtt) = curl(&[&["/trans/vtt", "-T", &file][..], &labels].concat());
    assert!(status == 200 && vtt.starts_with("WEBVTT\n\n1\n"), "{status} {vtt}");
    let cues: Vec<&str> = vtt.split("\n\n").skip(1).collect();
    assert_eq!(cues.len(), 2, "{vtt}");
    for (cue, (voice, word)) in cues.iter().zip([("Алиса", "добрый день"), ("Боб", "директором")])
    {
        assert!(cue.contains(&format!("<v {voice}>")) && cue.contains(word), "{vtt}");
    }
    // Where speech really begins and ends, by its loudness.
    for (cue, (begin, samples)) in cues.iter().zip(begins.iter().zip(&said)) {
        let (start, end) = times(cue.lines().nth(1).expect("times"));
        let loud = |s: &i16| s.abs() > 500;
        let first = begin + samples.iter().position(loud).expect("loud");
        let last = begin + samples.iter().rposition(loud).expect("loud");
        let (first, last) = (first as f64 / 8000.0, last as f64 / 8000.0);
        assert!(
            (start - first).abs() < 0.2 && (end - last).abs() < 0.2,
            "{start} {end}, really {first} {last}: {vtt}"
        );
    }
    let (status, text) = curl(&["/trans", "-T", &file]);
    assert!(status == 200 && text.starts_with("[Абонент: А]\ndecoder-test 1 "), "{status} {text}");
    let second = text.split("[Абонент: Б]\n").nth(1).expect("the other speaker");
    assert!(second.contains(" директором "), "{text}");
    let (_, mono) = curl(&["/trans/mono", "-T", &file]);
    assert!(mono.contains(" добрый ") && !mono.contains("директором") && !mono.contains('Б'), "{mono}");
    let (_, subtitles) = curl(&["/trans/mono/vtt", "-T", &file]);
    assert!(subtitles.starts_with("WEBVTT\n\n1\n") && subtitles.contains("<v Абонент А>"), "{subtitles}");
    // What is no sound is refused with a word, and nothing is left behind.
    let whole = std::fs::read(&file).expect("read");
    let cut = dir.path().join("cut.wav");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("written");
    let (status, body) = curl(&["/trans", "-T", cut.to_str().expect("text")]);
    assert!(status == 400 && body.contains("cut off"), "{status} {body}");
    let (status, _) =
        curl(&["/trans", "-X", "PUT", "--data-binary", "no sound at all, only words that stand here"]);
    assert_eq!(status, 415);
    assert_eq!(curl(&["/trans"]).0, 405);
    assert_eq!(curl(&["/trans/jobs"]), (200, "[]".to_owned()));
}

/// What a telephone's recording is like.
fn telephone(channels: u16) -> hound::WavSpec {
    let sample_format = hound::SampleFormat::Int;
    hound::WavSpec { channels, sample_rate: 8000, bits_per_sample: 16, sample_format }
}

#[test]
fn a_transcription_that_is_ended_ends_its_answer_and_leaves_nothing() {
    let (dir, at) = (tempfile::tempdir().expect("a directory"), free_tcp_port());
    let (vendor, licence) = licence_for("asr");
    // Another's recogniser that takes what it is given and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let remote = silent.local_addr().expect("its address");
    let node = Node::start_with(
        &format!(
            "[speech]\nasr = \"127.0.0.1:{at}\"\nattendant = \"\"\nmanager = \"\"\nremote = \"kaldi://{remote}\"\n{vendor}"
        ),
        &[],
    );
    license(&node, &licence);
    let file = dir.path().join("talk.wav");
    let mut writer = hound::WavWriter::create(&file, telephone(1)).expect("a file");
    let said = festival("Добрый день");
    for sample in [&vec![0; 8000], &said, &vec![0; 16_000]].into_iter().flatten() {
        writer.write_sample(*sample).expect("written");
    }
    writer.finalize().expect("finished");
    let file = file.to_str().expect("text").to_owned();
    until("the engine is there", || node.ssh("node/actor/info speech/remote/0", b"").status == 0);
    let asked = std::thread::spawn(move || curl(at, &["/trans", "-T", &file]));
    until("it is worked on", || curl(at, &["/trans/jobs"]).1.contains("\"id\":1"));
    until("it is an actor", || node.ssh("node/actor/kill speech/transcription/1 --force", b"").status == 0);
    let (status, body) = asked.join().expect("asked");
    assert!(status == 503 && body.contains("stopped"), "{status} {body}");
    // What had been said to the silent one is over when it hangs up.
    drop(silent);
    until("nothing is left of it", || curl(at, &["/trans/jobs"]).1 == "[]");
}

/// A text in festival's voice, as recognisers take it.
fn heard_as(text: &str) -> Vec<f32> {
    speech::audio::wide(&festival(text)).expect("samples")
}

#[test]
fn texts_come_with_the_piece_that_brought_them_and_words_with_their_times() {
    let data = tempfile::tempdir().expect("a directory");
    let model = speech::unpack(data.path()).expect("unpacked");
    let mut engine = Sphinx::new(&model).expect("the program's own model");
    let grammar =
        Grammar::phrases(["соедините с отделом продаж", "соедините с бухгалтерией", "перезвоните завтра"]);
    let task = Task { partial: true, others: true, ..Task::whole(grammar, Arc::default()) };
    let samples = heard_as("соедините с отделом продаж");
    let mut ear = engine.open(&task).expect("open");
    // Each feed is 100 ms of speech: what it tells is told before the next 100 ms are spoken.
    let mut told = Vec::new();
    for (n, piece) in samples.chunks(RATE as usize / 10).enumerate() {
        told.extend(ear.feed(piece).expect("taken").map(|text| (n, text)));
    }
    let heard = ear.finish().expect("heard");
    assert_eq!(heard.text(), "соедините с отделом продаж");
    assert!(heard.hypotheses[0].confidence > 0.5, "{:?}", heard.hypotheses);
    // Something else that was said is not taken for one of the phrases.
    let mut other = engine.open(&Task { partial: false, ..task.clone() }).expect("open");
    other.feed(&heard_as("вчера шёл сильный дождь")).expect("taken");
    let unlike = other.finish().expect("heard");
    assert!(unlike.hypotheses.first().is_none_or(|h| h.confidence < 0.5), "{:?}", unlike.hypotheses);
    let pieces = samples.len().div_ceil(RATE as usize / 10);
    let first = told.iter().find(|(_, t)| t.contains("соедините")).expect("a text while it is spoken");
    assert!(first.0 + 5 < pieces, "the first word is told before the phrase is over: {told:?} of {pieces}");
    assert!(told.windows(2).all(|w| w[0].1 != w[1].1), "nothing is told twice");
    let times: Vec<f32> = heard.words.iter().map(|w| w.start).collect();
    assert!(heard.words.len() == 4 && times.is_sorted(), "{:?}", heard.words);
    let end = heard.words.last().map(|w| w.start + w.duration).expect("a word");
    assert!(end <= samples.len() as f32 / RATE as f32 + 0.05, "{:?}", heard.words);
}
