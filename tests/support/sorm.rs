//! A mediator made of programs by others: OpenSSH for commands, FreeRADIUS for notifications. And what hears its channels.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use sorm::protocol::{
    Channel, Command as Order, Control, Digits, Event, Kind, NONE, Pair, Password, Reply, Request, Sign,
    Subject, Told, Wanted,
};

use super::{
    HYPHA, Node,
    calls::media_ports,
    phones::{PATIENCE, SoftPhone, free_port, heard, tone},
};

/// Lines for the configuration and a licence that grants interception.
pub fn licence() -> (String, Vec<u8>) {
    licence_for("sorm")
}

/// The same for any switch of the licence.
pub fn licence_for(switch: &str) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let hypha = |arguments: &[&str]| {
        let made = Command::new(HYPHA).args(arguments).output().expect("it runs");
        assert!(made.status.success(), "{made:?}");
        made.stdout
    };
    let vendor = String::from_utf8(hypha(&["licence", "keygen", &at("vendor.pem")])).expect("text");
    let terms = String::from_utf8(hypha(&["licence", "terms"])).expect("text");
    let terms = terms.replace(&format!("{switch} = false"), &format!("{switch} = true"));
    std::fs::write(at("terms.toml"), terms).expect("written");
    let licence = hypha(&["licence", "issue", "--key", &at("vendor.pem"), "--terms", &at("terms.toml")]);
    (vendor, licence)
}

/// Installs it.
pub fn license(node: &Node, licence: &[u8]) {
    let added = node.ssh("cluster/storage/ds1/licence/add -", licence);
    assert_eq!(added.status, 0, "{added:?}");
}

pub const DOMAIN: &str = "voip.test";
pub const SECRET: &str = "2testing123";

/// An estate of phones 100 to 105 whose interception is set up for a mediator at this port.
pub fn estate(port: u16, more: &str) -> Node {
    let (vendor, licence) = licence();
    let configuration = format!("[sip]\nlisten = \"127.0.0.1:0\"\n{}{vendor}{more}", media_ports());
    let node = Node::start_with(&configuration, &[]);
    node.ok("domain/declare voip.test");
    node.route_all(DOMAIN, "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-5}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    let refused = node.ssh("domain/voip.test/sorm/set enabled true", b"");
    assert!(refused.status != 0 && refused.stderr.contains("licence"), "{refused:?}");
    license(&node, &licence);
    node.ok("domain/voip.test/sorm/set enabled true");
    node.ok("domain/voip.test/sorm/set password sorm_password");
    node.ok(&format!("domain/voip.test/sorm/set radius_servers add 127.0.0.1:{port} {SECRET}"));
    node
}

/// The audit's chain is whole.
pub fn verified(node: &Node) -> String {
    let data = node.data();
    let arguments = ["audit", "verify", "--data", data.to_str().expect("text")];
    let verified = Command::new(HYPHA).args(arguments).output().expect("it runs");
    assert!(verified.status.success(), "{verified:?}");
    String::from_utf8(verified.stdout).expect("text")
}

/// A phone that says a tone for a minute.
pub fn phone(node: &Node, dir: &Path, user: &str, frequency: f32, answers: bool) -> SoftPhone {
    let file = dir.join(format!("{user}.wav"));
    tone(&file, frequency, 60);
    let more = if answers { ";answermode=auto" } else { "" };
    let phone = SoftPhone::baresip(node.sip(), user, "udp", "Geheim77", more, Some(&file));
    phone.says("200 OK");
    phone
}

/// All that the files of a directory hold.
pub fn written(dir: &Path) -> String {
    let (mut all, mut files) = (String::new(), vec![dir.to_owned()]);
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("read").map(|e| e.expect("an entry").path()));
        } else {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(&path).expect("read")));
        }
    }
    all
}

/// Where the station listens for mediators.
pub fn door_of(node: &Node, door: &str) -> SocketAddr {
    let info: serde_json::Value =
        serde_json::from_str(&node.ok(&format!("node/actor/info {door} --json"))).expect("JSON");
    info["state"]["listen"].as_str().and_then(|a| a.parse().ok()).expect("an address")
}

/// A mediator's session: OpenSSH at the station's door.
pub struct Session {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Session {
    /// At the door of single domains.
    pub fn open(node: &Node, domain: &str, password: &str) -> Self {
        Self::at(node, "sorm/ssh", domain, password)
    }

    /// At MultiSORM's.
    pub fn open_multi(node: &Node, user: &str, password: &str) -> Self {
        Self::at(node, "sorm/multi-ssh", user, password)
    }

    fn at(node: &Node, door: &str, domain: &str, password: &str) -> Self {
        let at = door_of(node, door);
        let mut child = node.client_at(at, domain, Some(password)).spawn().expect("ssh runs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Self { child, lines }
    }

    /// Whether the station let it in.
    pub fn is_open(&mut self) -> bool {
        self.types("help");
        self.lines.recv_timeout(PATIENCE).is_ok_and(|l| l.starts_with("command HEX")) && {
            while self.line()
                != "Answers: `reply HEX` is a message of order 268; `ok` and `error TEXT` answer all else."
            {
            }
            true
        }
    }

    pub fn types(&mut self, line: &str) {
        // One that was refused is gone.
        let _ = writeln!(self.child.stdin.as_mut().expect("a pipe"), "{line}");
    }

    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Waits for its orderly end.
    pub fn ends(mut self) {
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }

    pub fn media(&mut self, first: u16) {
        self.types(&format!("media 127.0.0.1 {first}"));
        assert_eq!(self.line(), "ok");
    }

    /// All that is answered to a command, its last acknowledgement last.
    pub fn command(&mut self, command: Order) -> Vec<Told> {
        let request = Request { sorm: 1, password: Password::FIRST, command };
        self.types(&format!("command {}", hex::encode(request.to_bytes())));
        let mut all = Vec::new();
        loop {
            let line = self.line();
            let hex = line.strip_prefix("reply ").unwrap_or_else(|| panic!("{line}"));
            let bytes = hex::decode(hex).expect("hexadecimal digits");
            let told = Reply::read(&bytes).expect("a message").told;
            all.push(told.clone());
            match told {
                Told::Received { status, .. } if status != 0 => return all,
                Told::Done { .. } => return all,
                _ => {}
            }
        }
    }

    /// A command that has to be carried out.
    pub fn done(&mut self, command: Order) -> Vec<Told> {
        let all = self.command(command.clone());
        assert!(matches!(all.last(), Some(Told::Done { status: 0, .. })), "{command:?}: {all:?}");
        all
    }

    pub fn channel(&mut self, group: u8, a: u8, b: Option<u8>) {
        let control = if b.is_some() { Control::Separate } else { Control::Combined };
        let pair = Pair { a: Some(Channel(a)), b: b.map(Channel) };
        self.done(Order::AddChannel { group, control: control.code(), pair });
    }

    /// Puts a number under control: with speech in a group, or without.
    pub fn put(
        &mut self,
        object: u16,
        kind: Kind,
        sign: Sign,
        number: &str,
        category: u8,
        group: Option<u8>,
    ) {
        let number = Digits::new(number).expect("a number");
        let subject =
            Subject { object: Some(object), kind: kind.code(), sign: sign.code(), number, trunk: None };
        let priority = if group.is_some() { 2 } else { NONE };
        self.done(Order::PutObject(subject, Wanted { category, group: group.unwrap_or(NONE), priority }));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An accounting record as FreeRADIUS has written it.
pub type Record = BTreeMap<String, Vec<String>>;

/// A FreeRADIUS that takes accounting, with a directory of its own.
pub struct Radius {
    child: Child,
    dir: tempfile::TempDir,
}

impl Radius {
    pub fn start(port: u16, secret: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().display();
        let configuration = format!(
            "localstatedir = {at}\nlogdir = {at}\nrun_dir = {at}\npidfile = {at}/pid\nlibdir = /usr/lib/freeradius\n\
             client here {{\nipaddr = 127.0.0.1\nsecret = {secret}\n}}\n\
             modules {{\ndetail {{\nfilename = {at}/detail\npermissions = 0600\n}}\n}}\n\
             server default {{\nlisten {{\ntype = acct\nipaddr = 127.0.0.1\nport = {port}\n}}\n\
             accounting {{\ndetail\n}}\n}}\n"
        );
        std::fs::write(dir.path().join("radiusd.conf"), configuration).expect("written");
        let mut child = Command::new("freeradius")
            .arg("-d")
            .arg(dir.path())
            .args(["-f", "-l", "stdout"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("freeradius runs; ops/test installs it");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let ready = output.by_ref().map_while(Result::ok).any(|l| l.contains("Ready to process requests"));
        assert!(ready, "freeradius starts");
        std::thread::spawn(move || output.map_while(Result::ok).for_each(drop));
        Self { child, dir }
    }

    pub fn records(&self) -> Vec<Record> {
        read(&self.dir.path().join("detail"))
    }

    /// Messages of the second data channel as they came, with their numbers.
    pub fn events(&self) -> Vec<(u64, Event)> {
        self.records().iter().map(|r| (number(r), event(r))).collect()
    }

    /// Messages of the first data channel that came by accounting: texts and intrusions.
    pub fn replies(&self) -> Vec<Told> {
        let units =
            self.records().into_iter().map(|r| hex::decode(pair(&r, "unit")).expect("hexadecimal digits"));
        units.filter_map(|u| Reply::read(&u).ok()).map(|r| r.told).collect()
    }
}

impl Drop for Radius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Blank lines part records; `\tName = "value"` is an attribute.
fn read(detail: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(detail).unwrap_or_default();
    let record = |block: &str| {
        let mut record = Record::new();
        for (name, value) in block.lines().filter_map(|l| l.strip_prefix('\t')?.split_once(" = ")) {
            record.entry(name.to_owned()).or_default().push(value.trim_matches('"').to_owned());
        }
        record
    };
    // One that is being written has no end yet.
    text.split_inclusive("\n\n")
        .filter(|b| b.ends_with("\n\n"))
        .map(record)
        .filter(|r| !r.is_empty())
        .collect()
}

/// What `Eltex-AVPair` says of this name.
fn pair(record: &Record, name: &str) -> String {
    let prefix = format!("sorm:{name}=");
    let all = record.get("Eltex-AVPair").into_iter().flatten();
    all.filter_map(|v| v.strip_prefix(&prefix)).collect()
}

fn number(record: &Record) -> u64 {
    pair(record, "seq").parse().expect("a number")
}

fn event(record: &Record) -> Event {
    let bytes = hex::decode(pair(record, "unit")).expect("hexadecimal digits");
    Event::read(&bytes).expect("a message")
}

/// Sixteen ports in a row for channels, and what has come to each.
pub struct Channels {
    pub first: u16,
    heard: Vec<Arc<Mutex<Vec<i16>>>>,
    ends: Arc<AtomicBool>,
}

impl Channels {
    pub fn open() -> Self {
        let taken = |first: u16| {
            let all = (0..16).map(|n| UdpSocket::bind(("127.0.0.1", first.checked_add(2 * n)?)).ok());
            all.collect::<Option<Vec<_>>>()
        };
        // The system says which port is free; those behind it mostly are too.
        let free = (0..200).map(|_| free_port()).filter(|p| *p < 65_000).find_map(|p| Some((p, taken(p)?)));
        let (first, sockets) = free.expect("free ports");
        let ends = Arc::new(AtomicBool::new(false));
        let heard = sockets.into_iter().map(|socket| {
            let (heard, ends) = (Arc::<Mutex<Vec<i16>>>::default(), ends.clone());
            let into = heard.clone();
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
            std::thread::spawn(move || {
                let mut packet = [0; 2000];
                while !ends.load(Relaxed) {
                    if let Ok(length) = socket.recv(&mut packet) {
                        assert_eq!(packet[1] & 0x7F, 8, "A-law");
                        into.lock().expect("whole").extend(packet[12..length].iter().map(|b| linear(*b)));
                    }
                }
            });
            heard
        });
        Self { first, heard: heard.collect(), ends }
    }

    /// All that a channel has carried so far.
    pub fn samples(&self, channel: u8) -> Vec<i16> {
        self.heard[usize::from(channel)].lock().expect("whole").clone()
    }

    /// Tenths of a second in which this tone was in a channel.
    pub fn tenths(&self, channel: u8, frequency: f32) -> usize {
        heard(&self.samples(channel), frequency).iter().filter(|h| **h).count()
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

/// ITU-T G.711, A-law.
pub fn linear(code: u8) -> i16 {
    let code = code ^ 0x55;
    let (exponent, mantissa) = (code >> 4 & 7, i16::from(code & 0x0F));
    let level = if exponent == 0 { (mantissa << 4) + 8 } else { ((mantissa << 4) + 0x108) << (exponent - 1) };
    if code & 0x80 == 0 { -level } else { level }
}
