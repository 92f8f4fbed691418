//! Wireshark as the judge of what goes over a line.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use e1::{
    frame::Deframer,
    hdlc::{Found, Receiver},
    packet::Packet,
};

/// Packets of a line, each with whether the first end sent it.
pub type Seen = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// Stands between two ends of a line. Each end sends to the address it is given here, and gets what the other sends.
pub fn between(ends: [SocketAddr; 2]) -> ([SocketAddr; 2], Seen) {
    let sockets = [(); 2].map(|()| Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a port")));
    let at = sockets.each_ref().map(|s| s.local_addr().expect("bound"));
    let seen = Seen::default();
    for from in [0, 1] {
        let (from_socket, to_socket, seen) = (sockets[from].clone(), sockets[1 - from].clone(), seen.clone());
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, peer)) = from_socket.recv_from(&mut packet) {
                if peer == ends[from] {
                    seen.lock().expect("whole").push((from == 0, packet[..length].to_vec()));
                    let _ = to_socket.send_to(&packet[..length], ends[1 - from]);
                }
            }
        });
    }
    (at, seen)
}

/// The frames of a time slot, both ways, in the order they came.
pub fn frames(seen: &[(bool, Vec<u8>)], slot: usize) -> Vec<Vec<u8>> {
    let mut ends = [(); 2].map(|()| (Deframer::default(), Receiver::new(e1::lapb::LONGEST)));
    let mut all = Vec::new();
    for (first, packet) in seen {
        let Some(packet) = Packet::read(packet) else { continue };
        let (deframer, receiver) = &mut ends[usize::from(*first)];
        deframer.octets(&packet.bits, |frame| {
            receiver.octet(frame[slot], |found| {
                if let Found::Frame(frame) = found {
                    all.push(frame);
                }
            });
        });
    }
    all
}

/// What Wireshark makes of packets, a line each; `protocol` is what the outermost is.
pub fn reads(packets: &[Vec<u8>], protocol: &str, dir: &Path) -> Vec<String> {
    // A capture file of link type USER0.
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 147] {
        file.extend(word.to_le_bytes());
    }
    for packet in packets {
        let length = u32::try_from(packet.len()).expect("short");
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    let path = dir.join("line.pcap");
    std::fs::write(&path, file).expect("written");
    let user = format!("uat:user_dlts:\"User 0 (DLT=147)\",\"{protocol}\",\"0\",\"\",\"0\",\"\"");
    let read = Command::new("tshark").args(["-o", &user, "-r"]).arg(&path).output();
    let read = read.expect("tshark runs; ops/test installs it");
    assert!(read.status.success(), "{read:?}");
    String::from_utf8_lossy(&read.stdout).lines().map(str::to_owned).collect()
}
