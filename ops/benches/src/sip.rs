//! Calls: Hypha as a B2BUA between two trunks, with routing, media relay, journal and records, beside Kamailio as a stateful
//! proxy. SIPp's own scenarios call and answer; each call talks for a second.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::commands::{Node, Server};

/// What one run showed.
pub struct Seen {
    /// Microseconds of processor time for a call.
    pub cpu: f64,
    /// Bytes more than before, for a call, right after the last one and a minute later.
    pub kept: f64,
    pub kept_later: f64,
    /// The highest rate tried at which SIPp saw no retransmission and no failure, calls a second.
    pub clean: u32,
}

const RATE: u32 = 1_000;
const CALLS: u32 = 20_000;
const RATES: &[u32] = &[500, 1_000, 1_500, 2_000, 2_500];

struct Peer {
    pids: Vec<u32>,
    port: u16,
    caller: u16,
    callee: u16,
}

pub fn free() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port()
}

impl Peer {
    /// Processor time so far, seconds.
    fn time(&self) -> f64 {
        let of = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit(')').next().unwrap_or_default();
            let ticks = |i: usize| after.split_whitespace().nth(i).and_then(|t| t.parse::<f64>().ok());
            (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
        };
        self.pids.iter().map(of).sum()
    }

    /// Resident memory, bytes.
    fn memory(&self) -> f64 {
        let of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:").map(str::to_owned));
            line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
        };
        self.pids.iter().map(of).sum()
    }

    /// Calls at a rate; whether all of them went without a retransmission.
    fn calls(&self, rate: u32, calls: u32, directory: &Path) -> bool {
        let here = directory.join("stat.csv");
        let _ = fs::remove_file(&here);
        let mut uac = makes_calls(rate, calls, self.caller, self.port, directory);
        uac.args(["-trace_stat", "-fd", "1", "-stf"]).arg(&here);
        let ended = uac.status().expect("it runs");
        let text = fs::read_to_string(&here).unwrap_or_default();
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let last: Vec<&str> = lines.last().unwrap_or_default().split(';').collect();
        let count = |name: &str| {
            let at = names.iter().position(|n| *n == name)?;
            last.get(at)?.parse::<u64>().ok()
        };
        ended.success() && count("Retransmissions(C)") == Some(0) && count("FailedCall(C)") == Some(0)
    }

    fn measure(&self, directory: &Path) -> Seen {
        let _uas = takes_calls(self.callee, directory);
        std::thread::sleep(Duration::from_secs(1));
        // Threads, tables and ports that the first calls make.
        self.calls(RATE, CALLS / 4, directory);
        std::thread::sleep(Duration::from_secs(60));
        let (time, memory) = (self.time(), self.memory());
        self.calls(RATE, CALLS, directory);
        let (spent, more) = (self.time() - time, self.memory() - memory);
        std::thread::sleep(Duration::from_secs(60));
        let later = self.memory() - memory;
        let clean = RATES.iter().take_while(|rate| self.calls(**rate, **rate * 5, directory)).last();
        let each = f64::from(CALLS);
        Seen {
            cpu: spent * 1e6 / each,
            kept: more / each,
            kept_later: later / each,
            clean: clean.copied().unwrap_or(0),
        }
    }
}

pub fn hypha(directory: &Path) -> Seen {
    let (port, caller, callee) = (free(), free(), free());
    let node = Node::start(directory, &format!("127.0.0.1:{port}"), "");
    trunks(&node, directory, caller, callee);
    Peer { pids: vec![node.server.0.id()], port, caller, callee }.measure(directory)
}

/// A domain that passes calls from one trunk to the other.
pub fn trunks(node: &Node, directory: &Path, caller: u16, callee: u16) {
    let imports = directory.join("data/imports");
    fs::write(
        imports.join("ctx.xml"),
        "<context name=\"ctx\"><rule name=\"all\"><conditions><cdpn digits=\"%\"/></conditions>\
         <result><external><trunk value=\"out\"/></external></result></rule></context>",
    )
    .expect("written");
    let trunk = |name: &str, at: u16| {
        format!("domain/bench/trunk/sip/declare ctx g {name} set static 127.0.0.1 {at} sip-proxy 5060")
    };
    node.run(&[
        "domain/declare bench",
        "domain/bench/routing/import ecss1 ctx.xml",
        &trunk("in", caller),
        &trunk("out", callee),
    ]);
}

/// SIPp that makes calls of a second each; more may be asked of it.
pub fn makes_calls(rate: u32, calls: u32, caller: u16, port: u16, directory: &Path) -> Command {
    let mut uac = Command::new("sipp");
    uac.arg(format!("127.0.0.1:{port}"));
    uac.args([
        "-sn",
        "uac",
        "-aa",
        "-s",
        "4000",
        "-d",
        "1000",
        "-timeout",
        "120s",
        "-i",
        "127.0.0.1",
        "-nostdin",
    ]);
    uac.args(
        [("-p", u32::from(caller)), ("-r", rate), ("-m", calls)]
            .map(|(name, n)| [name.to_owned(), n.to_string()])
            .concat(),
    );
    uac.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    uac
}

/// SIPp that takes calls.
pub fn takes_calls(callee: u16, directory: &Path) -> Server {
    let mut uas = Command::new("sipp");
    uas.args(["-sn", "uas", "-aa", "-i", "127.0.0.1", "-nostdin", "-p", &callee.to_string()]);
    uas.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Server(uas.spawn().expect("ops/bench installs it"))
}

pub fn kamailio(directory: &Path) -> Seen {
    let (port, caller, callee) = (free(), free(), free());
    let modules = ["tm", "sl", "rr", "pv", "maxfwd", "siputils", "textops"]
        .map(|m| format!("loadmodule \"{m}.so\"\n"))
        .concat();
    let config = format!(
        "debug=0\nlog_stderror=yes\nchildren=1\nlisten=udp:127.0.0.1:{port}\ndisable_tcp=yes\nauto_aliases=no\n{modules}\
         request_route {{\n if (!mf_process_maxfwd_header(\"10\")) {{ sl_send_reply(\"483\",\"Too Many Hops\"); exit; }}\n\
         if (is_method(\"INVITE\")) {{ record_route(); }}\n $du = \"sip:127.0.0.1:{callee}\";\n\
         if (is_method(\"ACK\")) {{ t_relay(); exit; }}\n if (!t_relay()) {{ sl_reply_error(); }}\n}}\n"
    );
    fs::write(directory.join("kamailio.cfg"), config).expect("written");
    let mut command = Command::new("kamailio");
    command.arg("-f").arg(directory.join("kamailio.cfg")).args(["-DD", "-E", "-m", "512", "-M", "16", "-Y"]);
    command.arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
    let main: Child = command.spawn().expect("ops/bench installs it");
    let mut server = Server(main);
    std::thread::sleep(Duration::from_secs(2));
    let ended = server.0.try_wait().expect("a child");
    assert!(ended.is_none(), "kamailio does not take its configuration: {ended:?}");
    let parent = server.0.id();
    let mut pids = vec![parent];
    let deadline = Instant::now() + Duration::from_secs(5);
    while pids.len() < 2 && Instant::now() < deadline {
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        pids = std::iter::once(parent)
            .chain(children.split_whitespace().filter_map(|c| c.parse().ok()))
            .collect();
    }
    let seen = Peer { pids, port, caller, callee }.measure(directory);
    // Asked, it takes its workers with it; killed, it would leave them.
    let _ = Command::new("kill").arg(parent.to_string()).status();
    let _ = server.0.wait();
    seen
}
