//! Whatever comes to a stream's end: packets, bits, frames of data channels, packets in those.
#![no_main]

use std::time::Duration;

use e1::{
    channel::{Channel, Out, Way},
    frame::Deframer,
    lapb::Side,
    line::{Layout, Line},
    packet::Packet,
    x25::{Circuit, X25},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    Deframer::default().octets(data, |_| {});
    let now = Duration::from_millis(1);
    // The bits of whole packets, numbered as they come.
    let mut line = Line::new(Layout { data: Some([30, 31]) }, now);
    for (sequence, bits) in (0u16..).zip(data.chunks(256)) {
        let packet = Packet { lost: false, remote: false, sequence, bits: bits.to_vec() }.to_bytes();
        line.packet(&packet, now, |_, frame| assert!(frame.len() <= e1::lapb::LONGEST), |_| {});
        line.packet(bits, now, |_, _| {}, |_| {});
    }
    // Frames and packets cut by a first byte that says their length.
    let (circuit, side) = match data.first() {
        Some(b) if b % 2 == 0 => (Circuit::Pvc, Side::Dte),
        _ => (Circuit::Svc, Side::Dce),
    };
    let mut out = Vec::new();
    let mut channel = Channel::new(Way { side, circuit, number: 1 }, now, &mut out);
    let mut packets = X25::new(side, circuit, 1);
    packets.link_up(now, &mut Vec::new());
    let (mut left, mut at) = (data, now);
    while let Some((length, rest)) = left.split_first() {
        let (frame, after) = rest.split_at(usize::from(*length).min(rest.len()));
        at += Duration::from_millis(u64::from(*length) * 20);
        channel.receive(frame, at, &mut out);
        channel.send(frame, at, &mut out);
        channel.poll(at, &mut out);
        packets.receive(frame, at, &mut Vec::new());
        for event in out.drain(..) {
            if let Out::Frame(frame) = event {
                assert!(frame.len() <= e1::lapb::LONGEST);
            }
        }
        left = after;
    }
});
