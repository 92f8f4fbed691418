//! Phones written by others: baresip and SIPp.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A phone with a directory of its own that is typed to and read; it ends with the test.
pub struct SoftPhone {
    name: &'static str,
    child: Child,
    lines: mpsc::Receiver<String>,
    dir: tempfile::TempDir,
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port()
}

/// A port for TCP that nobody has now, below those that the system gives to connections: whoever listens there later finds it
/// free, and nobody who calls too early is connected with itself.
pub fn free_tcp_port() -> u16 {
    use std::{
        net::TcpListener,
        sync::atomic::{AtomicU16, Ordering::Relaxed},
    };
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 11_000 + (std::process::id() % 100) as u16 * 8;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Relaxed) % 800);
    ports.take(800).find(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok()).expect("a port")
}

/// A port whose successor is free too: baresip takes that one for TLS.
fn free_pair() -> u16 {
    use std::{
        net::TcpListener,
        sync::atomic::{AtomicU16, Ordering::Relaxed},
    };
    // Phones of one program never ask for the same pair, however soon one follows another.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the system gives to whoever asks for any: those may be taken between this look and the phone's.
    let first = 6_000 + (std::process::id() % 50) as u16 * 100;
    let pairs = std::iter::repeat_with(|| first + (NEXT.fetch_add(1, Relaxed) % 50) * 2);
    let free = |p: &u16| {
        let both = [*p, p + 1].map(|p| TcpListener::bind(("127.0.0.1", p)));
        both.iter().all(Result::is_ok) && UdpSocket::bind(("127.0.0.1", *p)).is_ok()
    };
    pairs.take(1000).find(free).expect("two ports beside each other")
}

/// Settings of a baresip.
struct Baresip<'s> {
    node: SocketAddr,
    user: &'s str,
    transport: &'s str,
    password: &'s str,
    /// Parameters of the account.
    more: &'s str,
    says: Option<&'s Path>,
    modules: &'s str,
    contacts: String,
    /// A network namespace that it lives in, and its address there; the tests' own, and loopback.
    place: Option<(&'s str, &'s str)>,
}

impl SoftPhone {
    /// A baresip that only registers.
    pub fn silent(node: SocketAddr, user: &str, transport: &str, password: &str) -> Self {
        Self::baresip(node, user, transport, password, "", None)
    }

    /// With more parameters of the account, and a file that it says.
    pub fn baresip(
        node: SocketAddr,
        user: &str,
        transport: &str,
        password: &str,
        more: &str,
        says: Option<&Path>,
    ) -> Self {
        let (modules, contacts) = ("", String::new());
        Self::of(Baresip { node, user, transport, password, more, says, modules, contacts, place: None })
    }

    /// A baresip that answers with sound and pictures.
    pub fn picture_phone(node: SocketAddr, user: &str, password: &str, says: &Path) -> Self {
        let more = ";answermode=auto;audio_codecs=PCMU,PCMA;video_codecs=VP8";
        let modules = "module vp8.so\nmodule fakevideo.so\nvideo_source fakevideo,nil\nvideo_display fakevideo,nil\n\
                       video_size 352x288\nvideo_bitrate 300000\nvideo_fps 10\n";
        let (transport, says, contacts) = ("udp", Some(says), String::new());
        Self::of(Baresip { node, user, transport, password, more, says, modules, contacts, place: None })
    }

    /// A baresip in a network namespace, at an address there.
    pub fn within(
        place: (&str, &str),
        node: SocketAddr,
        user: &str,
        password: &str,
        more: &str,
        says: &Path,
    ) -> Self {
        let (transport, says, modules, contacts) = ("udp", Some(says), "", String::new());
        Self::of(Baresip {
            node,
            user,
            transport,
            password,
            more,
            says,
            modules,
            contacts,
            place: Some(place),
        })
    }

    /// A baresip that watches somebody.
    pub fn watching(node: SocketAddr, user: &str, password: &str, whom: &str) -> Self {
        let contacts = format!("\"Friend\" <{whom}>;presence=p2p\n");
        let modules = "module contact.so\nmodule_app presence.so\n";
        let (transport, more, says) = ("udp", "", None);
        Self::of(Baresip { node, user, transport, password, more, says, modules, contacts, place: None })
    }

    /// A baresip with a lamp for messages, which says a file.
    pub fn with_lamp(node: SocketAddr, user: &str, password: &str, says: &Path) -> Self {
        let (transport, more, contacts) = ("udp", ";mwi=yes", String::new());
        let (says, modules) = (Some(says), "module_app mwi.so\n");
        Self::of(Baresip { node, user, transport, password, more, says, modules, contacts, place: None })
    }

    fn of(settings: Baresip<'_>) -> Self {
        let Baresip { node, user, transport, password, more, says, modules, contacts, place } = settings;
        let own = place.map_or("127.0.0.1", |(_, address)| address);
        let (dir, free) = (tempfile::tempdir().expect("a directory"), free_pair());
        let own: std::net::IpAddr = own.parse().expect("an address");
        let (at, family) = (SocketAddr::new(own, free), if own.is_ipv4() { "-4" } else { "-6" });
        let domain = if user.contains('@') { "" } else { "@voip.test" };
        let account = format!(
            "<sip:{user}{domain};transport={transport}>;auth_pass={password};\
             outbound=\"sip:{node};transport={transport}\";regint=600{more}\n"
        );
        // With Opus it plays files of no other rate than that one's.
        let opus = if more.contains("opus") { "module opus.so\n" } else { "" };
        let source = says.map(|p| format!("audio_source aufile,{}\n", p.display())).unwrap_or_default();
        let config = format!(
            "sip_listen {at}\nnet_interface {own}\nmodule_path /usr/lib/baresip/modules\n\
             {source}audio_player aubridge,nothing\nsnd_path {dir}\nstatmode_default off\nmodule srtp.so\n{modules}{opus}\
             module stdio.so\nmodule g711.so\nmodule g722.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
             module_app account.so\nmodule_app menu.so\n",
            dir = dir.path().display()
        );
        std::fs::write(dir.path().join("accounts"), account).expect("written");
        std::fs::write(dir.path().join("config"), config).expect("written");
        std::fs::write(dir.path().join("contacts"), contacts).expect("written");
        let mut command = match place {
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "baresip"]);
                command
            }
            None => Command::new("baresip"),
        };
        command.args([family, "-s", "-f"]).arg(dir.path());
        Self::run("baresip", command, dir)
    }

    /// A linphone, for what baresip cannot: attended transfer.
    pub fn linphone(node: SocketAddr, user: &str, password: &str) -> Self {
        Self::linphone_with(node, user, password, "")
    }

    /// A linphone that has one coding alone, answers by itself and says a file; `heard N` begins its recording N.
    pub fn linphone_in(node: SocketAddr, user: &str, password: &str, coding: &str, says: &Path) -> Self {
        const ALL: [(&str, u32, u8); 8] = [
            ("opus", 48_000, 2),
            ("speex", 16_000, 1),
            ("speex", 8_000, 1),
            ("PCMU", 8_000, 1),
            ("PCMA", 8_000, 1),
            ("GSM", 8_000, 1),
            ("G722", 8_000, 1),
            ("G729", 8_000, 1),
        ];
        let codec = |(n, (mime, rate, channels)): (usize, &(&str, u32, u8))| {
            let enabled = u8::from(*mime == coding);
            format!("[audio_codec_{n}]\nmime={mime}\nrate={rate}\nchannels={channels}\nenabled={enabled}\n")
        };
        let codecs: String = ALL.iter().enumerate().map(codec).collect();
        let mut phone = Self::linphone_with(node, user, password, &codecs);
        phone.types("autoanswer enable");
        phone.types("ec off");
        phone.types(&format!("play {}", says.display()));
        phone
    }

    fn linphone_with(node: SocketAddr, user: &str, password: &str, more: &str) -> Self {
        let (dir, free) = (tempfile::tempdir().expect("a directory"), free_port());
        let config = format!(
            "[sip]\nsip_port={free}\nsip_tcp_port=-1\nsip_tls_port=-1\ndefault_proxy=0\n\
             register_only_when_network_is_up=0\n[rtp]\naudio_rtp_port=-1\n\
             [proxy_0]\nreg_proxy=<sip:{node}>\nreg_route=<sip:{node};lr>\nreg_identity=sip:{user}@voip.test\n\
             reg_expires=600\nreg_sendregister=1\npublish=0\n\
             [auth_info_0]\nusername={user}\npasswd={password}\nrealm=voip.test\ndomain=voip.test\n{more}"
        );
        std::fs::write(dir.path().join("rc"), config).expect("written");
        std::fs::create_dir_all(dir.path().join(".local/share/linphone")).expect("made");
        let mut command = Command::new("linphonec");
        command.arg("-c").arg(dir.path().join("rc")).env("HOME", dir.path());
        let mut phone = Self::run("linphonec", command, dir);
        phone.types("soundcard use files");
        phone
    }

    /// A linphone writes its next call's sound there; a baresip does so by itself.
    pub fn records(&mut self, name: &str) {
        let path = self.dir.path().join(format!("{name}-dec.wav"));
        self.types(&format!("record {}", path.display()));
    }

    fn run(name: &'static str, mut command: Command, dir: tempfile::TempDir) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}; ops/test installs it"));
        let (said, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| said.send(l)));
        Self { name, child, lines, dir }
    }

    /// Types a command of its menu.
    pub fn types(&mut self, command: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{command}").and_then(|()| input.flush()).expect("typed");
    }

    /// Reads what it says until a text comes.
    pub fn says(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(wanted) {
                return;
            }
            seen.push(line);
        }
        panic!("{} does not say {wanted:?}: {seen:#?}", self.name);
    }

    /// What a baresip heard: recordings of decoded audio.
    pub fn recordings(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path()).expect("its directory");
        let mut all: Vec<PathBuf> =
            files.flatten().map(|f| f.path()).filter(|p| p.to_string_lossy().ends_with("-dec.wav")).collect();
        all.sort();
        all
    }
}

impl Drop for SoftPhone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a tone to a WAV file.
pub fn tone(path: &Path, frequency: f32, seconds: u32) {
    let sample = |n: u32| (n as f32 * frequency * std::f32::consts::TAU / 8000.0).sin() * 8000.0;
    write(path, (0..seconds * 8000).map(|n| sample(n) as i16));
}

/// A tone as a phone with this coding wants its file: baresip plays no other rate than the coding's.
pub fn tone_for(path: &Path, coding: &str, frequency: f32, seconds: u32) {
    let (sample_rate, channels) = match coding {
        "G722" => (16_000, 1),
        "opus" => (48_000, 2),
        _ => (8000, 1),
    };
    let spec = hound::WavSpec {
        channels,
        sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a file");
    for n in 0..seconds * sample_rate {
        let sample = (n as f32 / sample_rate as f32 * frequency * std::f32::consts::TAU).sin() * 8000.0;
        (0..channels).for_each(|_| writer.write_sample(sample as i16).expect("written"));
    }
    writer.finalize().expect("written");
}

/// A WAV file, 8000 Hz.
pub fn write(path: &Path, samples: impl IntoIterator<Item = i16>) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a file");
    samples.into_iter().for_each(|s| writer.write_sample(s).expect("written"));
    writer.finalize().expect("written");
}

/// A text in festival's Russian voice, 8000 Hz.
pub fn festival(text: &str) -> Vec<i16> {
    let wav = tempfile::NamedTempFile::new().expect("a file");
    let mut child = Command::new("text2wave")
        .args(["-eval", "(voice_msu_ru_nsh_clunits)", "-F", "8000", "-o"])
        .arg(wav.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ops/test installs it");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success());
    let samples = samples(wav.path());
    assert!(!samples.is_empty());
    samples
}

/// A recording's samples at 8000 Hz, whatever its rate and channels.
pub fn samples(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).expect("a recording");
    let spec = reader.spec();
    let together = usize::from(spec.channels) * (spec.sample_rate / 8000).max(1) as usize;
    let all: Vec<i16> = reader.samples::<i16>().map_while(Result::ok).collect();
    let mean = |c: &[i16]| (c.iter().map(|s| i32::from(*s)).sum::<i32>() / c.len() as i32) as i16;
    all.chunks(together).map(mean).collect()
}

/// For each tenth of a second: whether this tone is in it.
pub fn heard(samples: &[i16], frequency: f32) -> Vec<bool> {
    samples
        .chunks_exact(800)
        .map(|chunk| {
            let (mut re, mut im) = (0.0f32, 0.0f32);
            for (i, s) in chunk.iter().enumerate() {
                let w = std::f32::consts::TAU * frequency * i as f32 / 8000.0;
                re += f32::from(*s) * w.cos();
                im += f32::from(*s) * w.sin();
            }
            (re * re + im * im).sqrt() / 800.0 > 1000.0
        })
        .collect()
}

/// SIPp with a scenario of this directory's, until it ends.
pub struct Sipp {
    child: Child,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Sipp {
    /// `arguments` follow the scenario's; calls to be made, where it makes them, are among them.
    pub fn start(scenario: &str, node: SocketAddr, arguments: &[&str]) -> Self {
        let port = free_port();
        Self::at(port, scenario, node, arguments)
    }

    pub fn at(port: u16, scenario: &str, node: SocketAddr, arguments: &[&str]) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(scenario);
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(file).args(["-trace_msg", "-timeout", "60s", "-timeout_error"]);
        Self::run(command, port, node, arguments)
    }

    /// One of SIPp's own scenarios.
    pub fn built_in(scenario: &str, port: u16, node: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = Command::new("sipp");
        command.args(["-sn", scenario, "-timeout", "300s"]);
        Self::run(command, port, node, arguments)
    }

    fn run(mut command: Command, port: u16, node: SocketAddr, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin", "-aa"]);
        command.arg("-trace_err").args(arguments);
        let child = command
            .arg(node.to_string())
            .current_dir(dir.path())
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sipp runs; ops/test installs it");
        Self { child, dir, port }
    }

    /// Waits for its end; all its calls must have gone as written.
    pub fn ends(mut self) {
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {}", self.said());
    }

    fn said(&self) -> String {
        let files = std::fs::read_dir(self.dir.path()).expect("its directory").flatten();
        files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kamailio as a provider that asks who calls (`neighbour.cfg`); calls go on to a phone's port.
pub struct Provider {
    child: Child,
    _dir: tempfile::TempDir,
    pub port: u16,
}

impl Provider {
    pub fn start(phone: u16) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/neighbour.cfg");
        let config = std::fs::read_to_string(file).expect("its configuration");
        let config = config.replace("PHONE", &phone.to_string());
        let path = dir.path().join("kamailio.cfg");
        std::fs::write(&path, format!("{config}\nlisten=udp:127.0.0.1:{port}\n")).expect("written");
        let child = Command::new("kamailio")
            .args(["-DD", "-E", "-m", "64", "-M", "8", "-f"])
            .arg(&path)
            .arg("-Y")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kamailio runs; ops/test installs it");
        Self { child, _dir: dir, port }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It takes its workers with it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
