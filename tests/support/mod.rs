//! A node in a directory of its own, and OpenSSH to talk to it.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod agency;
pub mod browser;
pub mod calls;
pub mod mediator;
pub mod phones;
pub mod sorm;
pub mod wireshark;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

#[derive(Debug)]
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct Node {
    /// `run` or `mediator`.
    program: &'static str,
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    child: Child,
    pub address: SocketAddr,
    pub password: String,
    /// The web admin's address.
    pub web: String,
}

/// Asks a service at this port: status and body.
pub fn curl(at: u16, arguments: &[&str]) -> (u16, String) {
    let (path, more) = arguments.split_first().expect("a path");
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "60", "-w", "\n%{http_code}"]).args(more);
    let out = command.arg(format!("http://127.0.0.1:{at}{path}")).output().expect("curl runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

pub const HYPHA: &str = env!("CARGO_BIN_EXE_hypha");

impl Node {
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// With more configuration and environment.
    pub fn start_with(more: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_program("run", more, environment)
    }

    /// A mediator of interception.
    pub fn mediator(more: &str) -> Self {
        Self::start_program("mediator", more, &[])
    }

    fn start_program(program: &'static str, more: &str, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let doors =
            "[cocon]\nlisten = \"127.0.0.1:0\"\n[web]\nlisten = \"127.0.0.1:0\"\n[node]\nthreads = 2\n";
        let sorm = if more.contains("[sorm]") {
            ""
        } else {
            "[sorm]\nlisten = \"127.0.0.1:0\"\ntwo_persons = false\n"
        };
        // Whoever has more to say about SIP says all of it.
        let speech = if more.contains("[speech]") {
            ""
        } else {
            "[speech]\nasr = \"\"\nattendant = \"\"\nmanager = \"\"\n"
        };
        let book = if more.contains("[phone_book]") { "" } else { "[phone_book]\nlisten = \"\"\n" };
        let sip = if more.contains("[sip]") { "" } else { "[sip]\nlisten = \"127.0.0.1:0\"\n" };
        std::fs::write(dir.path().join("hypha.toml"), format!("{doors}{sip}{sorm}{speech}{book}{more}"))
            .expect("written");
        let environment: Vec<_> =
            environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let (child, address, password, web) = launch(program, dir.path(), &environment);
        let password = password.expect("the first start prints a password");
        Self { program, dir, environment, child, address, password, web }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged since it started last.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A request as any program may send it; the answer's head and body.
    pub fn http(&self, request: &str) -> String {
        use std::io::Read;
        let mut stream =
            std::net::TcpStream::connect(self.web.trim_start_matches("http://")).expect("it listens");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        // A server that hangs up on garbage may reset the connection.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer of `/metrics`.
    pub fn metrics(&self) -> String {
        let token =
            std::fs::read_to_string(self.data().join("metrics.token")).expect("made at the first start");
        self.http(&format!(
            "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            token.trim()
        ))
    }

    /// Metrics of the dashboard that this node does not show, of those whose names fit.
    pub fn metrics_missing(&self, fits: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let page = self.metrics();
        let names: std::collections::BTreeSet<&str> = include_str!("../../ops/grafana.json")
            .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
            .filter(|w| (w.starts_with("hypha_") || w.starts_with("process_")) && fits(w))
            .collect();
        assert!(!names.is_empty());
        let shown = |name: &&str| {
            page.lines().any(|l| l.strip_prefix(*name).is_some_and(|r| r.starts_with(['{', ' '])))
        };
        names.into_iter().filter(|name| !shown(name)).collect()
    }

    /// After [`Node::kill`]: the same data, another port.
    pub fn restart(&mut self) {
        let (child, address, password, web) = launch(self.program, self.dir.path(), &self.environment);
        assert_eq!(password, None, "accounts survive");
        (self.child, self.address, self.web) = (child, address, web);
    }

    /// Another configuration for the next start.
    pub fn configure(&self, from: &str, to: &str) {
        let file = self.dir.path().join("hypha.toml");
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&file, text.replacen(from, to, 1)).expect("written");
    }

    /// SIGTERM, then the same data on another port.
    pub fn restart_in_order(&mut self) {
        assert!(self.terminate().success());
        self.restart();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("sent");
        assert!(sent.success());
        self.child.wait().expect("it ends")
    }

    /// SIGUSR1: it ends when its calls have ended.
    pub fn drain(&self) {
        let sent = Command::new("kill").args(["-USR1", &self.child.id().to_string()]).status().expect("sent");
        assert!(sent.success());
    }

    /// Its end, by itself.
    pub fn ends(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// A second process on the same data.
    pub fn second(&self) -> Answer {
        answer(command(self.program, self.dir.path(), &self.environment).output().expect("it runs"))
    }

    pub fn ssh(&self, line: &str, input: &[u8]) -> Answer {
        self.ssh_as("admin", &self.password, line, input)
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, line: &str) -> String {
        let answer = self.ssh(line, b"");
        assert_eq!(answer.status, 0, "{line}: {answer:?}");
        answer.stdout
    }

    pub fn ssh_as(&self, user: &str, password: &str, line: &str, input: &[u8]) -> Answer {
        let mut child = self.client(user, Some(password)).arg(line).spawn().expect("ssh runs");
        // A client that was refused reads nothing.
        let _ = child.stdin.take().expect("a pipe").write_all(input);
        answer(child.wait_with_output().expect("it ends"))
    }

    /// The rows a command answers with.
    pub fn rows(&self, line: &str) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).expect("rows")
    }

    /// What the SIP endpoint says of itself.
    pub fn endpoint(&self) -> serde_json::Value {
        let info: serde_json::Value =
            serde_json::from_str(&self.ok("node/actor/info sip/endpoint --json")).expect("JSON");
        info["state"].clone()
    }

    /// Where SIP comes in over `listen` (UDP and TCP), `tls`, `ws` or `wss`.
    pub fn sip_over(&self, door: &str) -> SocketAddr {
        self.endpoint()[door].as_str().and_then(|a| a.parse().ok()).expect("an address")
    }

    pub fn sip(&self) -> SocketAddr {
        self.sip_over("listen")
    }

    /// A context `ctx` of one rule: every number, with this result.
    pub fn route_all(&self, domain: &str, result: &str) {
        let context = format!(
            "<context name=\"ctx\"><rule name=\"all\"><conditions><cdpn digits=\"%\"/></conditions>\
             <result>{result}</result></rule></context>"
        );
        let imported = self.ssh(&format!("domain/{domain}/routing/import ecss1 -"), context.as_bytes());
        assert_eq!(imported.status, 0, "{imported:?}");
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line");
        line.split_whitespace().next().and_then(|k| k.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Open files and sockets.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Plays a script on this node.
    pub fn replay(&self, script: &str) -> std::process::Output {
        let mut command = Command::new(HYPHA);
        command.args(["replay", script, "--attach", &self.address.to_string()]);
        command.env("HYPHA_PASSWORD", &self.password).output().expect("it runs")
    }

    pub fn spawn(&self, line: &str) -> Child {
        self.client("admin", Some(&self.password)).arg(line).spawn().expect("ssh runs")
    }

    /// An interactive shell with a terminal on the node's side.
    pub fn shell(&self) -> Child {
        self.shell_as("admin", &self.password)
    }

    pub fn shell_as(&self, user: &str, password: &str) -> Child {
        self.client(user, Some(password)).arg("-tt").spawn().expect("ssh runs")
    }

    /// A session in a terminal of so many rows: types, waits for a text, types again; everything shown until the end.
    pub fn terminal(&self, rows: u16, typed: &[u8], until: &str, then: &[u8]) -> String {
        use std::io::Read;
        let client = self.client("admin", Some(&self.password));
        let words: Vec<String> = std::iter::once(client.get_program())
            .chain(client.get_args())
            .map(|w| format!("'{}'", w.to_string_lossy()))
            .collect();
        let mut script = Command::new("script");
        script.args(["-qec", &format!("stty rows {rows} cols 120; {}", words.join(" ")), "/dev/null"]);
        for (name, value) in client.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
        let mut input = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let mut seen = Vec::new();
        let mut read_until = |wanted: &str| {
            let mut byte = [0];
            while !String::from_utf8_lossy(&seen).contains(wanted)
                && output.read(&mut byte).is_ok_and(|n| n == 1)
            {
                seen.push(byte[0]);
            }
            String::from_utf8_lossy(&seen).into_owned()
        };
        // What is typed before the shell is there would be echoed twice.
        read_until("completes.");
        input.write_all(typed).expect("typed");
        read_until(until);
        input.write_all(then).expect("typed");
        let all = read_until("no such text, so until its end");
        child.wait().expect("it ends");
        all
    }

    /// A fresh key pair; the public half.
    pub fn key(&self) -> String {
        let file = self.key_file();
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status();
        assert!(made.expect("it runs").success());
        std::fs::read_to_string(file.with_extension("pub")).expect("written").trim().to_owned()
    }

    pub fn ssh_by_key(&self, user: &str, line: &str) -> Answer {
        let mut client = self.client(user, None);
        client.arg("-i").arg(self.key_file()).args(["-o", "PreferredAuthentications=publickey"]);
        answer(client.arg(line).stdin(Stdio::null()).output().expect("ssh runs"))
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("operator")
    }

    fn client(&self, user: &str, password: Option<&str>) -> Command {
        self.client_at(self.address, user, password)
    }

    /// OpenSSH, its password from a helper program.
    pub fn client_at(&self, at: SocketAddr, user: &str, password: Option<&str>) -> Command {
        let mut ssh = Command::new("ssh");
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "NumberOfPasswordPrompts=1",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-F", "/dev/null", "-p", &at.port().to_string(), &format!("{user}@{}", at.ip())]);
        if let Some(password) = password {
            let helper = self.dir.path().join("askpass");
            if !helper.exists() {
                std::fs::write(&helper, "#!/bin/sh\nprintf '%s\\n' \"$SSH_TEST_PASSWORD\"\n")
                    .expect("written");
                std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o700)).expect("set");
            }
            ssh.env("SSH_ASKPASS", helper)
                .env("SSH_ASKPASS_REQUIRE", "force")
                .env("SSH_TEST_PASSWORD", password);
            ssh.args(["-o", "PreferredAuthentications=password"]);
        }
        ssh.env_remove("SSH_AUTH_SOCK");
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &str, dir: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(HYPHA);
    command.arg(program).arg("--config").arg(dir.join("hypha.toml")).arg("--data").arg(dir.join("data"));
    command.envs(environment.iter().map(|(n, v)| (n, v)));
    command
}

/// Starts the node and reads what it prints until it is ready.
fn launch(
    program: &str,
    dir: &Path,
    environment: &[(String, String)],
) -> (Child, SocketAddr, Option<String>, String) {
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    let mut child =
        command(program, dir, environment).stdout(Stdio::piped()).stderr(log).spawn().expect("hypha runs");
    let (mut password, mut web) = (None, String::new());
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while let Some(Ok(line)) = lines.next() {
        if let Some((_, p)) = line.split_once("user admin, password ") {
            password = Some(p.to_owned());
        }
        if let Some(url) = line.strip_prefix("web admin: ") {
            web = url.to_owned();
        }
        if let Some((_, rest)) = line.split_once(" is ready: ssh -p ") {
            let (port, host) = rest.split_once(" admin@").expect("port and host");
            let address = format!("{host}:{port}").parse().expect("an address");
            return (child, address, password, web);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("the node does not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
}

/// A certificate that signs itself, and its key.
pub fn certificate(dir: &Path, name: &str, extensions: &[&str]) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", &format!("/CN={name}"), "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    openssl.args(extensions.iter().flat_map(|e| ["-addext", e]));
    let made = openssl.output().expect("openssl runs; ops/test installs it");
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

fn answer(output: std::process::Output) -> Answer {
    Answer {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
