//! A mediator between a station and a control point.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use super::{
    HYPHA, Node,
    phones::{PATIENCE, free_port, heard, samples},
    sorm::{DOMAIN, SECRET, door_of},
};

/// A mediator that works for the station, and takes its notifications at this port.
pub fn mediator(node: &Node, radius: u16, more: &str) -> Node {
    let mediator = Node::mediator(more);
    for line in [
        "mediator/ssh/set server 127.0.0.1".to_owned(),
        format!("mediator/ssh/set ssh_port {}", door_of(node, "sorm/ssh").port()),
        format!("mediator/ssh/set user {DOMAIN}"),
        "mediator/ssh/set password sorm_password".to_owned(),
        format!("mediator/radius/set radius_port {radius}"),
        format!("mediator/radius/set secret {SECRET}"),
        format!("mediator/sorm/set rtp_port {}", speech_ports()),
    ] {
        mediator.ok(&line);
    }
    mediator
}

/// Ports for the channels of one stream, below those that the system gives away.
fn speech_ports() -> u16 {
    let free = |first: &u16| (0..32).all(|n| std::net::UdpSocket::bind(("127.0.0.1", first + 2 * n)).is_ok());
    let begin = 22_000 + (std::process::id() % 90) as u16 * 80;
    (0..100).map(|n| begin + n * 80).find(free).expect("free ports")
}

/// The two ends of a stream's packets.
pub fn ends() -> (String, String) {
    let local = free_port();
    let peer = std::iter::repeat_with(free_port).find(|p| *p != local).expect("a port");
    (format!("127.0.0.1:{local}"), format!("127.0.0.1:{peer}"))
}

/// Connects a stream; what the control point is told of it.
pub fn connect(mediator: &Node, stream: usize, mode: &str) -> String {
    let (local, peer) = ends();
    for (property, value) in [("mode", mode), ("local", &local), ("peer", &peer), ("enabled", "true")] {
        mediator.ok(&format!("mediator/e1/stream {stream} {property} {value}"));
    }
    format!("{peer}={local}")
}

/// As [`connect`], where the other side of a stream takes two persons: `second` is the password of the other one.
pub fn connect_by_two(mediator: &Node, stream: usize, second: &str) -> String {
    let (local, peer) = ends();
    for (property, value) in [("local", &*local), ("enabled", "true")] {
        mediator.ok(&format!("mediator/e1/stream {stream} {property} {value}"));
    }
    let said = mediator.ok(&format!("mediator/e1/stream {stream} peer {peer}"));
    let approve = said.split_once(": ").and_then(|(_, line)| line.lines().next()).expect("what approves it");
    let approved = mediator.ssh_as("second", second, approve, b"");
    assert_eq!(approved.status, 0, "{approved:?}");
    format!("{peer}={local}")
}

/// Whether it has a session at the station.
pub fn is_logged_in(mediator: &Node) -> bool {
    row(mediator, "mediator/state", "mediator/station")[1].contains("logged in")
}

/// A row of a table whose first column is this.
pub fn row(mediator: &Node, table: &str, name: &str) -> Vec<String> {
    let rows = mediator.rows(table);
    let cells = |r: &serde_json::Value| -> Vec<String> {
        let object = r.as_object().expect("a row");
        object.values().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
    };
    rows.iter().map(cells).find(|r| r[0] == name).unwrap_or_else(|| panic!("{name} in {rows:?}"))
}

/// The program of a control point, and what it has printed.
pub struct ControlPoint {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Messages of the second data channel; they come when they come.
    events: mpsc::Receiver<String>,
    pub recordings: PathBuf,
}

impl ControlPoint {
    pub fn start(arguments: &[&str], recordings: &Path) -> Self {
        let mut child = Command::new(HYPHA)
            .args(["control-point", "--stay", "--record"])
            .arg(recordings)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let ((tell, lines), (tell_event, events)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|l| match l.strip_prefix("2 ") {
                Some(event) => tell_event.send(event.to_owned()).is_ok(),
                None => tell.send(l).is_ok(),
            })
        });
        Self { child, lines, events, recordings: recordings.to_owned() }
    }

    pub fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{line}").expect("it reads");
    }

    /// All it prints up to a line with this in it; the last one is that line.
    pub fn says(&self, wanted: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => all.push(line),
                Err(_) => panic!("{wanted:?} is not among {all:#?}"),
            }
            if all.last().is_some_and(|l| l.contains(wanted)) {
                return all;
            }
        }
    }

    /// A command that has to be carried out; what was told on the way.
    pub fn done(&mut self, command: &str) -> Vec<String> {
        self.types(command);
        let all = self.says("1 done");
        assert!(all.last().is_some_and(|l| l.ends_with(": 00 ok")), "{command}: {all:#?}");
        all
    }

    /// The next message of the second data channel.
    pub fn event(&self) -> String {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Tenths of a second in which this tone was heard in a slot of stream 0.
    pub fn tenths(&self, slot: u8, frequency: f32) -> usize {
        let file = self.recordings.join(format!("0-{slot}.wav"));
        if file.exists() { heard(&samples(&file), frequency).iter().filter(|h| **h).count() } else { 0 }
    }
}

impl Drop for ControlPoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
