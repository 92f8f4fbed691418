use super::*;
use crate::{
    coding::{Decoder, Encoder},
    sdp,
};

fn agreed(port: u16, codec: usize) -> Agreed {
    let codec = sdp::own()[codec].clone();
    Agreed {
        remote: SocketAddr::from(([127, 0, 0, 1], port)),
        rtcp: SocketAddr::from(([127, 0, 0, 1], port + 1)),
        signalled: None,
        receives: vec![codec.clone()],
        codec,
        events: Some(EventFormat { payload: 101, clock: 8000 }),
        events_in: vec![EventFormat { payload: 101, clock: 8000 }],
        hears: true,
        sealing: None,
        video: None,
    }
}

const POLICY: Policy = Policy { threshold: -30, latching: Latching::Signalling };

fn session(codecs: &[usize]) -> (Session, Instant) {
    let now = Instant::now();
    let mut s = Session::new(Arc::new(Library::new(sound::music())), POLICY, now);
    for (i, codec) in codecs.iter().enumerate() {
        let leg = LegId(i as u64 + 1);
        s.add(now, leg, 1000 * (i as u32 + 1));
        s.agree(now, leg, agreed(4000 + 10 * i as u16, *codec));
    }
    (s, now)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn wave(n: usize, frequency: f32) -> Vec<i16> {
    (0..FRAME)
        .map(|i| {
            (((n * FRAME + i) as f32 * frequency * std::f32::consts::TAU / 8000.0).sin() * 8000.0) as i16
        })
        .collect()
}

/// A packet of `samples` in A-law or µ-law.
fn packet(codec: usize, sequence: u16, samples: &[i16]) -> Vec<u8> {
    let own = &sdp::own()[codec];
    let payload = Encoder::of(own).expect("one of ours").encode(samples).remove(0);
    Packet {
        marker: false,
        payload_type: own.payload,
        sequence,
        timestamp: (i32::from(sequence as i16) * 160) as u32,
        ssrc: 7,
        payload: &payload,
    }
    .write()
}

fn sent(s: &mut Session, to: LegId) -> Vec<Vec<u8>> {
    s.outputs()
        .filter_map(|o| match o {
            Out::Rtp(l, _, b) if l == to => Some(b),
            _ => None,
        })
        .collect()
}

#[test]
fn like_codings_pass_with_new_numbers_and_others_are_transcoded() {
    for (codecs, same) in [([0, 0], true), ([0, 1], false), ([0, 2], false)] {
        let (mut s, now) = session(&codecs);
        s.hear(LegId(2), Source::Leg(LegId(1)));
        let mut numbers = Vec::new();
        for n in 0..5u16 {
            let data = packet(codecs[0], 65_533u16.wrapping_add(n), &wave(n.into(), 400.0));
            s.packet(now, LegId(1), at(4000), &data);
            let out = sent(&mut s, LegId(2));
            assert_eq!(out.len(), 1);
            let p = Packet::parse(&out[0]).expect("RTP");
            assert_eq!((p.ssrc, p.payload_type), (2000, sdp::own()[codecs[1]].payload));
            assert_eq!(p.payload == Packet::parse(&data).expect("RTP").payload, same);
            assert_eq!(p.payload.len(), 160);
            numbers.push((p.sequence, p.timestamp));
        }
        assert!(
            numbers
                .windows(2)
                .all(|w| w[1].0 == w[0].0.wrapping_add(1) && w[1].1 == w[0].1.wrapping_add(160)),
            "{numbers:?}"
        );
    }
}

#[test]
fn a_whole_picture_is_asked_of_the_party_that_is_seen() {
    let (mut s, now) = session(&[]);
    for (n, port) in [(1, 4000), (2, 4010)] {
        let video =
            VideoAgreed { remote: at(port + 2), rtcp: at(port + 3), bundled: false, payloads: vec![96] };
        s.add(now, LegId(n), 1000);
        s.agree(now, LegId(n), Agreed { video: Some(video), ..agreed(port, 0) });
        s.hear(LegId(n), Source::Leg(LegId(3 - n)));
    }
    s.want_picture(LegId(1));
    assert_eq!(s.outputs().count(), 0, "nothing has been seen yet");
    let frame = Packet {
        marker: true,
        payload_type: 96,
        sequence: 1,
        timestamp: 1,
        ssrc: 0x0a0b_0c0d,
        payload: &[1],
    };
    (0..5).for_each(|n| s.picture(now, LegId(2), at(4012), &Packet { sequence: n, ..frame }.write(), false));
    assert!(s.outputs().count() > 0);
    s.want_picture(LegId(1));
    let lost = vec![0x81, 206, 0, 2, 0, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d];
    assert_eq!(s.outputs().collect::<Vec<_>>(), [Out::VideoRtcp(LegId(2), at(4013), lost)]);
}

#[test]
fn a_stranger_cannot_take_a_stream_over() {
    let (mut s, now) = session(&[0, 0]);
    s.hear(LegId(1), Source::Leg(LegId(2)));
    s.hear(LegId(2), Source::Leg(LegId(1)));
    let stranger = "10.9.9.9:4000".parse().expect("an address");
    (0..50).for_each(|n| s.packet(now, LegId(1), stranger, &packet(0, n, &wave(0, 400.0))));
    assert_eq!(s.outputs().count(), 0, "it is not heard, although it was first");
    // The phone sends from another port than it named.
    (0..5).for_each(|n| s.packet(now, LegId(1), at(4005), &packet(0, n, &wave(0, 400.0))));
    assert_eq!(sent(&mut s, LegId(2)).len(), 3);
    (0..50).for_each(|n| s.packet(now, LegId(1), stranger, &packet(0, n, &wave(0, 400.0))));
    s.packet(now, LegId(2), at(4010), &packet(0, 1, &wave(0, 400.0)));
    let to: Vec<SocketAddr> = s
        .outputs()
        .filter_map(|o| match o {
            Out::Rtp(_, to, _) => Some(to),
            _ => None,
        })
        .collect();
    assert_eq!(to, [at(4005)], "symmetric RTP");
}

#[test]
fn everybody_hears_all_others_in_a_mix() {
    let (mut s, now) = session(&[0, 1, 0]);
    (1..=3).for_each(|l| s.hear(LegId(l), Source::Mix));
    let tones = [300.0, 700.0, 1900.0];
    let mut heard: Vec<Vec<i16>> = vec![Vec::new(); 3];
    let mut decoders: Vec<_> =
        [0, 1, 0].iter().map(|c| Decoder::of(&sdp::own()[*c]).expect("ours")).collect();
    for n in 0..40u16 {
        for (i, codec) in [0, 1, 0].into_iter().enumerate() {
            s.packet(
                now,
                LegId(i as u64 + 1),
                at(4000 + 10 * i as u16),
                &packet(codec, n, &wave(n.into(), tones[i])),
            );
        }
        s.tick(Instant::now());
        for out in s.outputs().collect::<Vec<_>>() {
            if let Out::Rtp(leg, _, bytes) = out {
                let i = leg.0 as usize - 1;
                heard[i].extend(decoders[i].decode(Packet::parse(&bytes).expect("RTP").payload).samples);
            }
        }
    }
    let power = |samples: &[i16], f: f32| {
        let (mut re, mut im) = (0.0f32, 0.0f32);
        for (i, s) in samples.iter().enumerate() {
            let w = std::f32::consts::TAU * f * i as f32 / 8000.0;
            re += f32::from(*s) * w.cos();
            im += f32::from(*s) * w.sin();
        }
        (re * re + im * im).sqrt() / samples.len() as f32
    };
    for (i, samples) in heard.iter().enumerate() {
        let settled = &samples[samples.len() / 2..];
        for (j, tone) in tones.iter().enumerate() {
            let p = power(settled, *tone);
            assert_eq!(p > 2000.0, i != j, "party {i} hears {tone} Hz at {p}");
        }
    }
}

#[test]
fn keys_pass_and_are_told_once() {
    let (mut s, now) = session(&[0, 0]);
    s.hear(LegId(2), Source::Leg(LegId(1)));
    for (n, end) in [(1, false), (2, true), (3, true), (4, true)] {
        let payload = TelephoneEvent { key: '5', end, duration: 160 }.write().expect("a key");
        let p = Packet {
            marker: n == 1,
            payload_type: 101,
            sequence: n,
            timestamp: 800,
            ssrc: 7,
            payload: &payload,
        };
        s.packet(now, LegId(1), at(4000), &p.write());
    }
    let out: Vec<Out> = s.outputs().collect();
    assert_eq!(out.iter().filter(|o| matches!(o, Out::Event(LegId(1), MediaEvent::Key('5')))).count(), 1);
    assert_eq!(out.iter().filter(|o| matches!(o, Out::Rtp(LegId(2), ..))).count(), 4);
    // And one of our own.
    s.press(LegId(2), '#', 100);
    let mut keys = Vec::new();
    while s.ticks() {
        s.tick(Instant::now());
        keys.extend(
            sent(&mut s, LegId(2)).iter().filter_map(|b| TelephoneEvent::parse(Packet::parse(b)?.payload)),
        );
    }
    assert_eq!(keys.len(), 8);
    assert!(keys.iter().all(|k| k.key == '#') && keys[5..].iter().all(|k| k.end && k.duration == 800));
}

#[test]
fn keys_have_the_clock_of_the_coding_they_stand_between() {
    let (mut s, now) = session(&[3, 0]);
    let wide = EventFormat { payload: 110, clock: 48_000 };
    s.agree(now, LegId(1), Agreed { events: Some(wide), events_in: vec![wide], ..agreed(4000, 3) });
    s.hear(LegId(2), Source::Leg(LegId(1)));
    s.hear(LegId(1), Source::Leg(LegId(2)));
    // (from, number, length there, to, number and length here)
    for (from, port, payload_type, duration, to, there) in
        [(1, 4000, 110, 9600, 2, (101, 1600)), (2, 4010, 101, 1600, 1, (110, 9600))]
    {
        let payload = TelephoneEvent { key: '5', end: true, duration }.write().expect("a key");
        let p =
            Packet { marker: true, payload_type, sequence: 1, timestamp: 800, ssrc: 7, payload: &payload };
        s.packet(now, LegId(from), at(port), &p.write());
        let out = sent(&mut s, LegId(to));
        let p = Packet::parse(&out[0]).expect("a packet");
        let event = TelephoneEvent::parse(p.payload).expect("a key");
        assert_eq!((p.payload_type, event.duration), there);
    }
    s.press(LegId(1), '#', 100);
    let mut last = None;
    while s.ticks() {
        s.tick(Instant::now());
        let keys = |b: &Vec<u8>| TelephoneEvent::parse(Packet::parse(b)?.payload);
        last = sent(&mut s, LegId(1)).iter().filter_map(keys).next_back().or(last);
    }
    assert_eq!(last.map(|k| (k.end, k.duration)), Some((true, 4800)), "100 ms at 48 kHz");
}

#[test]
fn a_key_is_known_whichever_of_its_packets_are_lost() {
    let event = |n: u16, timestamp: u32, key: char, end: bool| {
        let payload = TelephoneEvent { key, end, duration: 160 }.write().expect("a key");
        Packet { marker: false, payload_type: 101, sequence: n, timestamp, ssrc: 7, payload: &payload }
            .write()
    };
    // Of one key only the beginning came, of the next only an end, of a third all, and a copy of the second late.
    let came = [
        event(1, 800, '5', false),
        event(9, 8_000, '6', true),
        event(11, 16_000, '6', false),
        event(12, 16_000, '6', true),
        event(10, 8_000, '6', true),
        event(13, 16_000, '6', true),
    ];
    for mixed in [false, true] {
        let (mut s, now) = session(&[0, 0]);
        s.hear(LegId(2), if mixed { Source::Mix } else { Source::Leg(LegId(1)) });
        came.iter().for_each(|p| s.packet(now, LegId(1), at(4000), p));
        let mut told = Vec::new();
        let mut heard = std::collections::BTreeSet::new();
        for _ in 0..60 {
            for out in s.outputs().collect::<Vec<_>>() {
                match out {
                    Out::Event(LegId(1), MediaEvent::Key(key)) => told.push(key),
                    Out::Rtp(LegId(2), _, bytes) => {
                        let packet = Packet::parse(&bytes).expect("RTP");
                        let key =
                            TelephoneEvent::parse(packet.payload).filter(|_| packet.payload_type == 101);
                        heard.extend(key.map(|k| (packet.timestamp, k.key)));
                    }
                    _ => {}
                }
            }
            s.tick(Instant::now());
        }
        assert_eq!(told, ['5', '6', '6'], "mixed {mixed}");
        let keys: Vec<char> = heard.into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys.len(), 3, "mixed {mixed}: {keys:?}");
    }
}

#[test]
fn reports_tell_what_was_lost() {
    let (mut s, now) = session(&[0, 0]);
    for n in [1, 2, 4] {
        s.packet(now, LegId(1), at(4000), &packet(0, n, &wave(0, 400.0)));
    }
    s.housekeeping(now);
    let reports: Vec<Vec<u8>> = s
        .outputs()
        .filter_map(|o| match o {
            Out::Rtcp(LegId(1), to, b) if to == at(4001) => Some(b),
            _ => None,
        })
        .collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].len() % 4, 0);
    assert_eq!(&reports[0][33..36], &[0, 0, 1], "one lost");
    s.housekeeping(now + SILENT);
    assert!(s.outputs().any(|o| o == Out::Event(LegId(1), MediaEvent::Silent)));
}

#[test]
fn whoever_listens_in_hears_one_party_apart_from_all_others() {
    let (mut s, now) = session(&[0, 1]);
    s.hear(LegId(1), Source::Leg(LegId(2)));
    s.hear(LegId(2), Source::Leg(LegId(1)));
    assert!(!s.ticks());
    s.tap(9, LegId(1));
    assert!(s.ticks());
    let mut sides = [0u32; 2];
    for n in 0..40u16 {
        s.datagram(now, LegId(1), at(4000), &packet(0, n, &wave(usize::from(n), 440.0)), false);
        // The other one is silent.
        s.datagram(now, LegId(2), at(4010), &packet(1, n, &[0; FRAME]), false);
        s.tick(now);
        for out in s.outputs() {
            if let Out::Tap(9, frames) = out {
                let loud = |f: &[i16; FRAME]| f.iter().any(|s| s.abs() > 4000);
                frames.iter().zip(&mut sides).for_each(|(f, count)| *count += u32::from(loud(f)));
            }
        }
    }
    assert!(sides[0] >= 30 && sides[1] == 0, "{sides:?}");
    s.untap(9);
    assert!(!s.ticks());
}
