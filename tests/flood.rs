//! Noise. A program of its own, so that what it takes from the machine is taken from no other test.

mod support;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use support::Node;

/// Numbers that are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn ten_million_random_datagrams_leave_the_node_answering() {
    const EACH: u64 = 5_000_000;
    let node = Node::start_with("[sip]\nlisten = \"127.0.0.1:0\"\n", &[]);
    let to = node.sip();
    let files = std::fs::read_dir("fixtures/rfc4475").expect("the messages").flatten();
    let mut files: Vec<_> =
        files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "dat")).collect();
    files.sort();
    let tortures: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).expect("a message")).collect();
    std::thread::scope(|scope| {
        for seed in [1u64, 2] {
            let tortures = &tortures;
            scope.spawn(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                let mut noise = Noise(seed + 0x9E37_79B9_7F4A_7C15);
                let mut datagram = Vec::with_capacity(4096);
                for n in 0..EACH {
                    datagram.clear();
                    if n % 100 == 0 {
                        // Something like a message, with a few bytes changed.
                        datagram.extend(&tortures[(noise.next() % tortures.len() as u64) as usize]);
                        for _ in 0..noise.next() % 8 {
                            let at = (noise.next() % datagram.len() as u64) as usize;
                            datagram[at] = noise.next() as u8;
                        }
                    } else {
                        for _ in 0..1 + noise.next() % 12 {
                            datagram.extend(noise.next().to_le_bytes());
                        }
                    }
                    // The system may have no room for it now.
                    let _ = socket.send_to(&datagram, to);
                }
            });
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    let question = "OPTIONS sip:n SIP/2.0\r\nVia: SIP/2.0/UDP n;rport;branch=z9hG4bKlast\r\nFrom: <sip:p@p>;tag=1\r\n\
                    To: <sip:p@p>\r\nCall-ID: last\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + Duration::from_secs(60);
    let answer = loop {
        socket.send_to(question.as_bytes(), to).expect("sent");
        match socket.recv(&mut buffer) {
            Ok(n) => break String::from_utf8_lossy(&buffer[..n]).into_owned(),
            Err(e) => assert!(Instant::now() < deadline, "no answer: {e}"),
        }
    };
    assert!(answer.starts_with("SIP/2.0 200 OK"), "{answer}");
    assert!(node.resident() < 1 << 30, "{} bytes", node.resident());
    assert!(!node.ok("node/crash/list").contains("sip/"), "nothing crashed");
}
