use proptest::prelude::*;

use super::*;

fn flow(transport: Transport) -> Flow {
    Flow { transport, peer: ([127, 0, 0, 1], 5070).into(), connection: 0 }
}

fn request(method: &str, branch: &str) -> Message {
    let text = format!(
        "{method} sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:a@h>;tag=1\r\n\
         To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
    );
    Message::parse(&text.into()).expect("a request")
}

fn response(to: &Message, code: u16) -> Message {
    crate::agent::reply(to, code, Some("2"))
}

fn sent(t: &mut Transactions) -> Vec<String> {
    let text = |o| match o {
        Output::Send(_, b) => String::from_utf8_lossy(&b).split("\r\n").next().unwrap_or_default().to_owned(),
        other => format!("{other:?}"),
    };
    t.outputs().map(text).collect()
}

/// Plays the timers until nothing is due any more; what was sent, with the milliseconds.
fn play(t: &mut Transactions, start: Instant) -> Vec<(u128, String)> {
    let mut all = Vec::new();
    while let Some(at) = t.deadline() {
        t.timeout(at);
        all.extend(sent(t).into_iter().map(|s| ((at - start).as_millis(), s)));
    }
    all
}

#[test]
fn an_invite_nobody_answers_is_sent_seven_times() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", &t.next_branch());
    let id = t.request(now, invite, flow(Transport::Udp));
    assert_eq!(sent(&mut t).len(), 1);
    let all = play(&mut t, now);
    let times: Vec<u128> = all.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500, 32_000]);
    assert_eq!(all[6].1, format!("{:?}", Output::Unanswered(id)));
    assert!(t.is_empty());
}

#[test]
fn a_request_on_a_stream_is_sent_once() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let bye = request("BYE", &t.next_branch());
    t.request(now, bye, flow(Transport::Tcp));
    assert_eq!(play(&mut t, now).len(), 2, "the request was there; then it is unanswered");
}

#[test]
fn a_failure_is_acknowledged_and_again_when_it_comes_again() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", &t.next_branch());
    let id = t.request(now, invite.clone(), flow(Transport::Udp));
    assert_eq!(t.answered(now, &response(&invite, 180), flow(Transport::Udp)), Some(id));
    assert_eq!(t.answered(now, &response(&invite, 486), flow(Transport::Udp)), Some(id));
    assert_eq!(t.answered(now, &response(&invite, 486), flow(Transport::Udp)), None, "no news");
    assert_eq!(sent(&mut t), ["INVITE sip:b@h SIP/2.0", "ACK sip:b@h SIP/2.0", "ACK sip:b@h SIP/2.0"]);
    assert!(play(&mut t, now).is_empty() && t.is_empty());
}

#[test]
fn a_cancel_waits_for_a_provisional_answer_and_shares_the_branch() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", &t.next_branch());
    let id = t.request(now, invite.clone(), flow(Transport::Udp));
    assert!(!t.cancel(now, id, None));
    t.answered(now, &response(&invite, 100), flow(Transport::Udp));
    assert!(t.cancel(now, id, None));
    assert_eq!(sent(&mut t), ["INVITE sip:b@h SIP/2.0", "CANCEL sip:b@h SIP/2.0"]);
    let mut to_cancel = response(&invite, 200);
    for (name, value) in &mut to_cancel.headers {
        if *name == Name::CSeq {
            *value = "1 CANCEL".into();
        }
    }
    assert_eq!(t.answered(now, &to_cancel, flow(Transport::Udp)), None, "that is for nobody");
    assert!(t.pending(id));
    assert_eq!(t.answered(now, &response(&invite, 487), flow(Transport::Udp)), Some(id));
    play(&mut t, now);
    assert!(t.is_empty());
}

#[test]
fn an_answer_from_who_never_saw_the_request_does_not_fit() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", &t.next_branch());
    t.request(now, invite, flow(Transport::Udp));
    for branch in ["z9hG4bK1", "z9hG4bK1.0", "z9hG4bKffffffffffffffffff.1", "x", ""] {
        assert_eq!(
            t.answered(now, &response(&request("INVITE", branch), 200), flow(Transport::Udp)),
            None,
            "{branch}"
        );
    }
}

#[test]
fn a_request_that_comes_again_gets_the_same_answer() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let bye = request("BYE", "z9hG4bKx");
    let Some(Arrival::New(id)) = t.receive(now, &bye, flow(Transport::Udp)) else { panic!("it is new") };
    assert_eq!(t.receive(now, &bye, flow(Transport::Udp)), Some(Arrival::Again));
    assert!(sent(&mut t).is_empty());
    t.respond(now, id, &response(&bye, 200));
    t.respond(now, id, &response(&bye, 500));
    assert_eq!(t.receive(now, &bye, flow(Transport::Udp)), Some(Arrival::Again));
    assert_eq!(sent(&mut t), ["SIP/2.0 200 OK", "SIP/2.0 200 OK"]);
    play(&mut t, now);
    assert!(t.is_empty(), "after timer J");
}

#[test]
fn an_answer_to_an_invite_goes_on_until_it_is_acknowledged() {
    for acknowledged in [false, true] {
        let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
        let invite = request("INVITE", "z9hG4bKx");
        let Some(Arrival::New(id)) = t.receive(now, &invite, flow(Transport::Tcp)) else {
            panic!("it is new")
        };
        t.respond(now, id, &response(&invite, 200));
        if acknowledged {
            t.acknowledged(id);
        }
        assert_eq!(sent(&mut t).len(), 1);
        let all = play(&mut t, now);
        match acknowledged {
            true => assert!(all.is_empty(), "{all:?}"),
            false => {
                assert!(all.len() > 8, "also on a stream: {all:?}");
                assert_eq!(
                    all.last().map(|l| l.1.clone()),
                    Some(format!("{:?}", Output::Unacknowledged(id)))
                );
            }
        }
        assert!(t.is_empty());
    }
}

#[test]
fn a_refusal_of_an_invite_waits_for_its_ack() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", "z9hG4bKx");
    let Some(Arrival::New(id)) = t.receive(now, &invite, flow(Transport::Udp)) else { panic!("it is new") };
    assert_eq!(t.cancelled(&request("CANCEL", "z9hG4bKx"), flow(Transport::Udp)), Some(id));
    t.respond(now, id, &response(&invite, 486));
    t.timeout(now + T1);
    assert_eq!(sent(&mut t), ["SIP/2.0 486 Busy Here", "SIP/2.0 486 Busy Here"]);
    assert_eq!(
        t.receive(now, &request("ACK", "z9hG4bKx"), flow(Transport::Udp)),
        Some(Arrival::Acknowledged)
    );
    assert!(play(&mut t, now).is_empty() && t.is_empty());
    assert_eq!(t.receive(now, &request("ACK", "z9hG4bKy"), flow(Transport::Udp)), None, "an ACK to a 2xx");
}

#[test]
fn an_answer_to_a_stranger_is_sent_once_and_forgotten() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let invite = request("INVITE", "z9hG4bKa");
    for _ in 0..2 {
        let Some(Arrival::New(id)) = t.receive(now, &invite, flow(Transport::Udp)) else {
            panic!("a new one each time")
        };
        t.respond_once(id, &response(&invite, 401));
        assert_eq!(sent(&mut t).len(), 1);
        assert!(t.is_empty() && t.kept.is_empty());
    }
    assert!(play(&mut t, now).is_empty(), "nothing is repeated to a source that may be forged");
}

#[test]
fn answered_requests_of_one_network_fill_its_share() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let long = "x".repeat(50_000);
    let answered = |t: &mut Transactions, from: Flow, number: u32| {
        let options = request("OPTIONS", &format!("z9hG4bK{number}"));
        let Some(Arrival::New(id)) = t.receive(now, &options, from) else { panic!("a new one") };
        t.respond(now, id, &response(&options, 200).with(Name::Warning, long.as_str()));
        assert_eq!(sent(t).len(), 1, "each has its answer");
    };
    (0..1000).for_each(|number| answered(&mut t, flow(Transport::Udp), number));
    let kept = t.len();
    assert!((100..400).contains(&kept), "{kept}");
    answered(&mut t, Flow::udp("192.0.2.9:5060".parse().expect("an address")), 1);
    assert_eq!(t.len(), kept + 1, "another's is remembered");
    play(&mut t, now);
    assert!(t.is_empty() && t.kept.is_empty());
}

#[test]
fn a_flow_is_read_as_it_is_shown() {
    for text in ["udp 127.0.0.1:5060", "tls [::1]:5061", "wss 10.0.0.1:443"] {
        assert_eq!(text.parse::<Flow>().map(|f| f.to_string()), Ok(text.to_owned()));
    }
    for bad in ["", "udp", "udp 127.0.0.1", "sctp 127.0.0.1:1"] {
        assert_eq!(bad.parse::<Flow>(), Err(FlowError));
    }
}

#[test]
fn requests_of_rfc_2543_are_known_again_too() {
    let (mut t, now) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
    let old = request("OPTIONS", "1");
    assert!(matches!(t.receive(now, &old, flow(Transport::Udp)), Some(Arrival::New(_))));
    assert_eq!(t.receive(now, &old, flow(Transport::Udp)), Some(Arrival::Again));
}

proptest! {
    /// Whatever comes in whatever order: nothing is kept for ever.
    #[test]
    fn everything_ends(steps in prop::collection::vec((0u8..7, 0usize..4, 100u16..700, 0u64..2000), 0..40)) {
        let (mut t, start) = (Transactions::new(Identifiers::new(&[7; 32])), Instant::now());
        let mut now = start;
        let mut ours: Vec<(Id, Message)> = Vec::new();
        let mut theirs: Vec<Id> = Vec::new();
        for (what, which, code, wait) in steps {
            now += Duration::from_millis(wait);
            t.timeout(now);
            let method = ["INVITE", "BYE", "OPTIONS", "ACK"][which];
            match what {
                0 if method != "ACK" => {
                    let m = request(method, &t.next_branch());
                    ours.push((t.request(now, m.clone(), flow(Transport::Udp)), m));
                }
                1 | 2 => if let Some((_, m)) = ours.get(which) {
                    let _ = t.answered(now, &response(m, code), flow(Transport::Udp));
                },
                3 => if let Some((id, _)) = ours.get(which) {
                    t.cancel(now, *id, None);
                },
                4 => if let Some(Arrival::New(id)) = t.receive(now, &request(method, &format!("z9hG4bK{code}")), flow(Transport::Udp)) {
                    theirs.push(id);
                },
                5 => if let Some(id) = theirs.get(which) {
                    t.respond(now, *id, &response(&request("INVITE", "z9hG4bK1"), code));
                },
                _ => if let Some(id) = theirs.get(which) {
                    t.acknowledged(*id);
                },
            }
        }
        // What is never answered by its user is the user's; everything else ends by itself.
        for id in theirs {
            t.respond(now, id, &response(&request("INVITE", "z9hG4bK1"), 500));
        }
        for (_, m) in &ours {
            let _ = t.answered(now, &response(m, 500), flow(Transport::Udp));
        }
        while let Some(at) = t.deadline() {
            t.timeout(at);
        }
        prop_assert!(t.is_empty() && t.kept.is_empty());
    }
}
