//! Calls without SIP, RTP or clocks.

use std::sync::Arc;

use chrono::TimeDelta;
use domain::{
    Registration,
    routing::xml,
    state::{Alias, Authentication, DomainEvent, DomainState, ServiceState, SipUser, Trunk, TrunkKind},
};
use kit::{Sealed, journal::Fold};
use proptest::prelude::*;

use super::*;

const SDP: &[u8] = b"v=0\r\n";

/// Nothing is sealed here.
struct Closed;

impl Vault for Closed {
    fn seal(&self, _: &str, _: &kit::Secret<String>) -> Result<kit::Sealed, kit::SealError> {
        Err(kit::SealError)
    }

    fn open(&self, _: &str, sealed: &kit::Sealed) -> Result<kit::Secret<String>, kit::SealError> {
        Ok(kit::Secret::new(sealed.0.clone()))
    }
}

/// A domain's only script is `menu`.
struct Scripts;

impl crate::Applications for Scripts {
    fn has(&self, _: &str, script: &str) -> bool {
        script == "menu"
    }

    fn start(&self, _: Begin) -> futures::future::BoxFuture<'static, Result<Address, String>> {
        Box::pin(async { Err("nothing runs here".into()) })
    }
}

/// Whom each leg hears.
#[derive(Default)]
struct FakeMedia(BTreeMap<LegId, Source>);

impl MediaSession for FakeMedia {
    fn offer(&mut self, leg: LegId, _: Wish) -> Result<Bytes, crate::MediaError> {
        self.0.entry(leg).or_insert(Source::Silence);
        Ok(Bytes::from_static(SDP))
    }
    fn remote_offer(&mut self, leg: LegId, sdp: &Bytes) -> Result<Change, crate::MediaError> {
        self.0.entry(leg).or_insert(Source::Silence);
        Ok(Change { held: &sdp[..] == b"hold" })
    }
    fn answer(&mut self, _: LegId) -> Result<Bytes, crate::MediaError> {
        Ok(Bytes::from_static(SDP))
    }
    fn remote_answer(&mut self, _: LegId, sdp: &Bytes) -> Result<Change, crate::MediaError> {
        if &sdp[..] == b"unfit" { Err(crate::MediaError::Incompatible) } else { Ok(Change::default()) }
    }
    fn hear(&mut self, leg: LegId, source: Source) {
        if let Some(heard) = self.0.get_mut(&leg) {
            *heard = source;
        }
    }
    fn takes_keys(&self, _: LegId) -> bool {
        false
    }
    fn key(&mut self, _: LegId, _: char, _: u32) {}
    fn close(&mut self, leg: LegId) {
        self.0.remove(&leg);
    }
    fn detach(&mut self, leg: LegId) -> Option<MediaPart> {
        self.0.remove(&leg);
        None
    }
    fn attach(&mut self, leg: LegId, _: MediaPart) {
        self.0.insert(leg, Source::Silence);
    }
}

fn estate(contacts: &[(&str, usize)]) -> Picture {
    let mut state = DomainState::default();
    let all = "<context name=\"c\"><rule name=\"r\"><conditions><cdpn digits=\"%\"/></conditions>\
               <result><local/></result></rule></context>";
    state.apply(&DomainEvent::ContextImported { context: Box::new(xml::parse(all).expect("a context")) });
    let mut registrations = imbl::OrdMap::new();
    for (number, count) in contacts {
        let iface = format!("{number}@d");
        let user = SipUser {
            iface: iface.clone(),
            uid: (*number).into(),
            group: "g".into(),
            context: "c".into(),
            authentication: Authentication::NoAuthentication,
            login: String::new(),
            password: Sealed(String::new()),
            properties: [("core_forking".to_owned(), "true".to_owned())].into_iter().collect(),
        };
        let alias = Alias {
            address: (*number).into(),
            group: "g".into(),
            iface: iface.clone(),
            properties: Default::default(),
        };
        state.apply(&DomainEvent::UsersDeclared { users: vec![user], aliases: vec![alias] });
        let contact = |n: usize| Registration {
            key: n.to_string(),
            contact: format!("sip:{number}@h{n}"),
            q: 1000,
            ice: false,
            call_id: String::new(),
            cseq: 1,
            path: vec![],
            received: "udp 127.0.0.1:1".into(),
            local: String::new(),
            user_agent: String::new(),
            expires: DateTime::UNIX_EPOCH + TimeDelta::days(9),
        };
        if *count > 0 {
            registrations.insert(iface, Arc::new((0..*count).map(contact).collect::<Vec<_>>()));
        }
    }
    let mut picture = Picture::default();
    picture.domains.insert("d".into(), Arc::new(state));
    picture.registrations.insert("d".into(), registrations);
    picture
}

/// A service of a number, as an operator would switch it.
fn serve(picture: &mut Picture, number: &str, service: Service, options: &[(&str, &str)]) {
    let mut state = (*picture.domains["d"]).clone();
    let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    state.apply(&DomainEvent::ServiceSet {
        address: number.into(),
        service: service.name().into(),
        state: ServiceState { active: true, options },
    });
    picture.domains.insert("d".into(), Arc::new(state));
}

struct Play {
    call: Call,
    picture: Picture,
    board: Board,
    media: FakeMedia,
    seconds: i64,
    /// Seconds that the system's clock was set forward by.
    stepped: i64,
    start: Instant,
    effects: Vec<Effect>,
}

const A: LegId = LegId(1);

impl Play {
    /// 100 calls this number.
    fn new(picture: Picture, dialled: &str) -> Self {
        Self::offering(picture, dialled, Some(Bytes::from_static(SDP)))
    }

    fn offering(picture: Picture, dialled: &str, sdp: Option<Bytes>) -> Self {
        Self::calling(picture, dialled, sdp, false)
    }

    fn calling(picture: Picture, dialled: &str, sdp: Option<Bytes>, reliable: bool) -> Self {
        let board = Board::default();
        assert_eq!(board.next_leg(), A);
        let incoming = Incoming {
            peer: None,
            international: false,
            leg: A,
            domain: "d".into(),
            origin: Origin::Subscriber { iface: "100@d".into() },
            from: Party { number: "666".into(), name: "Alice".into(), ..Party::default() },
            dialled: dialled.into(),
            sdp,
            max_forwards: 70,
            history: vec![],
            uui: None,
            ice: false,
            reliable,
            replaces: None,
            user_agent: String::new(),
        };
        let name = Address::new("domain/d/call/1").expect("a name");
        let call = Call::new(name, incoming, DateTime::UNIX_EPOCH);
        let mut play = Self {
            call,
            picture,
            board,
            media: FakeMedia::default(),
            seconds: 0,
            stepped: 0,
            start: Instant::now(),
            effects: vec![],
        };
        play.step(|c, w| c.start(w));
        play
    }

    fn step(&mut self, with: impl FnOnce(&mut Call, &mut World<'_>) -> Vec<Effect>) {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(self.seconds);
        let (board, vault) = (&self.board, &Closed);
        let witness = &crate::witness::Nobody;
        let applications = &Scripts;
        let lived = u64::try_from(self.seconds - self.stepped).unwrap_or_default();
        let at = self.start + Duration::from_secs(lived);
        let mut world = World {
            steady: DateTime::UNIX_EPOCH + TimeDelta::seconds(self.seconds - self.stepped),
            now,
            at,
            picture: &self.picture,
            board,
            media: &mut self.media,
            vault,
            witness,
            applications,
        };
        self.effects.extend(with(&mut self.call, &mut world));
    }

    fn leg(&mut self, leg: LegId, event: LegEvent) {
        self.step(|c, w| c.handle(Event::Leg(leg, event), w));
    }

    fn answers(&mut self, leg: LegId) {
        self.leg(leg, LegEvent::Answered { sdp: Some(Bytes::from_static(SDP)) });
    }

    /// Legs called so far, with their numbers.
    fn called(&self) -> Vec<(LegId, String)> {
        let of = |e: &Effect| match e {
            Effect::Leg(leg, LegCommand::Call(out)) => Some((*leg, out.to.number.clone())),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    /// What a leg was told, by label.
    fn told(&self, leg: LegId) -> Vec<String> {
        let of = |e: &Effect| match e {
            Effect::Leg(l, LegCommand::Release { cause, .. }) if *l == leg => {
                Some(format!("release {}", cause.0))
            }
            Effect::Leg(l, LegCommand::Progress { status, .. }) if *l == leg => Some(status.to_string()),
            Effect::Leg(l, command) if *l == leg => Some(<&'static str>::from(command).to_owned()),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn ended(&self) -> Vec<&Cdr> {
        let of = |e| match e {
            &Effect::Keep(RecordEvent::Ended { ref cdr, .. }) => Some(&**cdr),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn over(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Done))
    }
}

fn two() -> Picture {
    estate(&[("100", 1), ("101", 1), ("102", 1)])
}

#[test]
fn a_clock_that_is_set_meanwhile_changes_no_bill() {
    for step in [0, 4 * 3600, -7200] {
        let mut play = Play::new(estate(&[("100", 1), ("101", 1)]), "101");
        play.seconds = 100_000;
        play.stepped = 100_000;
        play.leg(LegId(2), LegEvent::Answered { sdp: Some(Bytes::from_static(SDP)) });
        play.seconds += 5 + step;
        play.stepped += step;
        play.leg(A, LegEvent::Released { cause: Cause::NORMAL, status: None });
        let ended = play.effects.iter().find_map(|e| match e {
            Effect::Keep(RecordEvent::Ended { cdr, .. }) => Some(cdr.clone()),
            _ => None,
        });
        let cdr = ended.expect("a record");
        assert_eq!(cdr.seconds(), 5, "set by {step} s");
        assert!(cdr.ended >= cdr.answered);
    }
}

#[test]
fn a_call_rings_is_answered_is_held_and_ends() {
    let mut p = Play::new(two(), "101");
    let (b, number) = p.called()[0].clone();
    assert_eq!(number, "101");
    p.leg(b, LegEvent::Progress { status: 180, sdp: None });
    p.answers(b);
    assert_eq!(p.told(A), ["180", "Answer"]);
    let kept = p.effects.iter().position(|e| matches!(e, Effect::Keep(RecordEvent::Answered { .. })));
    let told = p.effects.iter().position(|e| matches!(e, Effect::Leg(A, LegCommand::Answer { .. })));
    assert!(kept < told, "the record is safe before the caller hears of it");
    assert_eq!((&p.media.0[&A], &p.media.0[&b]), (&Source::Leg(b), &Source::Leg(A)));
    p.leg(A, LegEvent::Offer { sdp: Some(Bytes::from_static(b"hold")) });
    assert_eq!((&p.media.0[&A], &p.media.0[&b]), (&Source::Silence, &Source::Music));
    p.leg(A, LegEvent::Offer { sdp: Some(Bytes::from_static(SDP)) });
    assert_eq!(p.media.0[&b], Source::Leg(A));
    p.seconds = 61;
    p.leg(b, LegEvent::Released { cause: Cause::NORMAL, status: None });
    assert!(p.over() && p.media.0.is_empty());
    let cdr = p.ended()[0];
    assert_eq!((cdr.seconds(), cdr.released_by.as_str(), cdr.cause), (61, "b", Some(Cause::NORMAL)));
    assert_eq!((cdr.sides[0].a.as_str(), cdr.sides[0].b.as_str()), ("100", "101"), "not what From says");
    assert_eq!(p.told(A), ["180", "Answer", "OfferAnswer", "OfferAnswer", "release 16"]);
}

#[test]
fn of_several_phones_the_first_answer_wins_and_busy_counts_more_than_silence() {
    let mut p = Play::new(estate(&[("100", 1), ("101", 3)]), "101");
    let legs: Vec<LegId> = p.called().into_iter().map(|(l, _)| l).collect();
    assert_eq!(legs.len(), 3);
    p.answers(legs[1]);
    assert_eq!(p.told(legs[0]).last().map(String::as_str), Some("release 26"));
    assert_eq!(p.told(legs[2]).last().map(String::as_str), Some("release 26"));
    p.answers(legs[2]);
    assert_eq!(p.told(legs[2]).last().map(String::as_str), Some("release 26"), "too late");

    let mut p = Play::new(estate(&[("100", 1), ("101", 2)]), "101");
    let legs: Vec<LegId> = p.called().into_iter().map(|(l, _)| l).collect();
    p.leg(legs[0], LegEvent::Released { cause: Cause::BUSY, status: Some(486) });
    p.leg(legs[1], LegEvent::Released { cause: Cause::TIMER, status: Some(408) });
    assert_eq!(p.told(A), ["release 17"]);
    assert!(p.over());
}

#[test]
fn forwardings_lead_on_and_end_when_they_go_round() {
    let mut picture = two();
    serve(&mut picture, "101", Service::Cfnr, &[("number", "102"), ("timeout", "10")]);
    let mut p = Play::new(picture, "101");
    let ten = |e: &Effect| matches!(e, Effect::After(t, Timer::NoAnswer(_)) if t.as_secs() == 10);
    assert!(p.effects.iter().any(ten));
    p.step(|c, w| c.handle(Event::Timer(Timer::NoAnswer(1)), w));
    assert_eq!(p.called().iter().map(|(_, n)| n.as_str()).collect::<Vec<_>>(), ["101", "102"]);
    assert_eq!(p.told(A), ["181"]);
    let (c, _) = p.called()[1].clone();
    p.answers(c);
    p.leg(A, LegEvent::Released { cause: Cause::NORMAL, status: None });
    let cdr = p.ended()[0];
    assert_eq!((cdr.service.as_str(), cdr.diverted.as_deref()), ("forward", Some("101")));

    let mut picture = two();
    serve(&mut picture, "101", Service::Cfu, &[("number", "102")]);
    serve(&mut picture, "102", Service::Cfu, &[("number", "101")]);
    let p = Play::new(picture, "101");
    assert!(p.over() && p.called().is_empty());

    let mut picture = estate(&[("100", 1), ("101", 0), ("102", 1)]);
    serve(&mut picture, "101", Service::Cfos, &[("number", "102")]);
    assert_eq!(Play::new(picture, "101").called()[0].1, "102", "no phone is registered");
    let mut picture = two();
    serve(&mut picture, "101", Service::Dnd, &[]);
    assert_eq!(Play::new(picture, "101").told(A), ["release 17"]);
}

#[test]
fn a_number_that_is_withheld_stays_so_where_a_phone_redirects_the_call() {
    let mut picture = two();
    serve(&mut picture, "100", Service::Clir, &[]);
    let mut p = Play::new(picture, "101");
    let (b, _) = p.called()[0].clone();
    p.leg(b, LegEvent::Redirected { to: vec!["102".into()] });
    let shown = |e: &Effect| match e {
        Effect::Leg(_, LegCommand::Call(out)) => Some((out.to.number.clone(), out.from.clone())),
        _ => None,
    };
    let shown: Vec<(String, Party)> = p.effects.iter().filter_map(shown).collect();
    let nobody = Party { restricted: true, ..Party::default() };
    assert_eq!(shown, [("101".to_owned(), nobody.clone()), ("102".to_owned(), nobody)]);
}

/// All numbers lead to a direction of two trunks, t1 and t2.
fn direction() -> Picture {
    let mut picture = two();
    let mut state = (*picture.domains["d"]).clone();
    let out = "<context name=\"c\"><rule name=\"r\"><conditions><cdpn digits=\"%\"/></conditions>\
               <result><external><direction value=\"gd\"/></external></result></rule></context>";
    state.apply(&DomainEvent::ContextImported { context: Box::new(xml::parse(out).expect("a context")) });
    for name in ["t1", "t2"] {
        let trunk = Trunk {
            name: name.into(),
            context: "c".into(),
            group: "gd".into(),
            ip_set: String::new(),
            kind: TrunkKind::Static { host: "192.0.2.1".into(), port: 5060 },
            listen_port: 5060,
            properties: Default::default(),
        };
        state.apply(&DomainEvent::TrunkDeclared { trunk });
    }
    picture.domains.insert("d".into(), Arc::new(state));
    picture
}

/// Trunks called so far.
fn tried(p: &Play) -> Vec<String> {
    let trunk = |e: &Effect| match e {
        Effect::Leg(_, LegCommand::Call(out)) => match &out.target {
            Target::Trunk { trunk, last, .. } => Some(format!("{trunk}{}", if *last { "!" } else { "" })),
            _ => None,
        },
        _ => None,
    };
    p.effects.iter().filter_map(trunk).collect()
}

#[test]
fn a_trunk_that_is_no_first_choice_comes_last_and_is_not_forgotten() {
    let mut p = Play::new(direction(), "9001");
    let (first, _) = p.called()[0].clone();
    p.leg(first, LegEvent::Avoided);
    assert_eq!(tried(&p), ["t1", "t2!"]);
    let (second, _) = p.called()[1].clone();
    p.leg(second, LegEvent::Released { cause: Cause::CONGESTION, status: Some(503) });
    assert_eq!(tried(&p), ["t1", "t2!", "t1!"]);
    let (third, _) = p.called()[2].clone();
    p.answers(third);
    assert!(p.told(A).contains(&"Answer".to_owned()), "{:?}", p.told(A));
}

#[test]
fn a_trunk_that_only_tries_is_given_up_for_the_next_in_time() {
    let mut p = Play::new(direction(), "9001");
    let (first, _) = p.called()[0].clone();
    p.leg(first, LegEvent::Progress { status: 100, sdp: None });
    p.step(|c, w| c.handle(Event::Timer(Timer::Lifeless(first)), w));
    assert_eq!(tried(&p), ["t1"], "it lives");
    p.step(|c, w| c.handle(Event::Timer(Timer::Idle(first)), w));
    assert_eq!(tried(&p), ["t1", "t2!"]);
    // One that rings is left alone.
    let mut p = Play::new(direction(), "9001");
    let (first, _) = p.called()[0].clone();
    p.leg(first, LegEvent::Progress { status: 180, sdp: None });
    p.step(|c, w| c.handle(Event::Timer(Timer::Idle(first)), w));
    assert_eq!(tried(&p), ["t1"]);
}

#[test]
fn a_late_offer_that_gets_no_fitting_answer_is_no_call() {
    for (answer, ends) in [(None, true), (Some("unfit"), true), (Some("v=0"), false)] {
        let mut p = Play::offering(two(), "101", None);
        let (b, _) = p.called()[0].clone();
        p.answers(b);
        p.leg(A, LegEvent::Confirmed { sdp: answer.map(|a| Bytes::from_static(a.as_bytes())) });
        assert_eq!(p.told(b).iter().any(|t| t.starts_with("release")), ends, "{answer:?}");
        assert_eq!(p.told(A).iter().any(|t| t.starts_with("release")), ends, "{answer:?}");
    }
}

#[test]
fn a_caller_without_an_offer_whose_answers_are_reliable_gets_ours_while_it_rings() {
    let answer =
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
    for (reliable, fits) in [(true, true), (true, false), (false, true)] {
        let mut p = Play::calling(two(), "101", None, reliable);
        let (b, _) = p.called()[0].clone();
        p.leg(b, LegEvent::Progress { status: 180, sdp: None });
        let offered =
            |e: &Effect| matches!(e, Effect::Leg(A, LegCommand::Progress { status: 180, sdp: Some(_) }));
        assert_eq!(p.effects.iter().any(offered), reliable);
        if reliable {
            // By its PRACK.
            p.leg(A, LegEvent::Confirmed { sdp: fits.then(|| Bytes::from_static(answer.as_bytes())) });
        }
        if !fits {
            assert!(p.over() && p.told(A).iter().any(|t| t.starts_with("release")), "{:?}", p.told(A));
            continue;
        }
        p.answers(b);
        if !reliable {
            p.leg(A, LegEvent::Confirmed { sdp: Some(Bytes::from_static(answer.as_bytes())) });
        }
        assert!(!p.over() && p.told(A).contains(&"Answer".to_owned()), "{:?}", p.told(A));
    }
}

#[test]
fn a_neighbour_that_redirects_is_passed_by() {
    let mut p = Play::new(direction(), "9001");
    for at in 0..2 {
        let (leg, number) = p.called()[at].clone();
        assert_eq!(number, "9001", "the number that was dialled, never one of the neighbour's choice");
        p.leg(leg, LegEvent::Redirected { to: vec!["9777".into()] });
    }
    let refused = |e: &Effect| matches!(e, Effect::Leg(A, LegCommand::Release { status: Some(502), .. }));
    assert_eq!(p.called().len(), 2);
    assert!(p.effects.iter().any(refused) && p.over(), "{:?}", p.told(A));
}

#[test]
fn pictures_that_one_party_wants_are_asked_of_the_other() {
    let mut p = Play::new(two(), "101");
    let (b, _) = p.called()[0].clone();
    p.answers(b);
    p.leg(A, LegEvent::PictureWanted);
    assert_eq!(p.told(b).last().map(String::as_str), Some("Picture"));
    assert!(!p.told(A).contains(&"Picture".to_owned()));
}

#[test]
fn a_transfer_connects_who_stays_and_a_failed_one_changes_nothing() {
    for succeeds in [true, false] {
        let mut p = Play::new(two(), "101");
        let (b, _) = p.called()[0].clone();
        p.answers(b);
        p.leg(A, LegEvent::Refer(Refer::Number("102".into())));
        let (c, number) = p.called()[1].clone();
        assert_eq!((number.as_str(), &p.media.0[&b]), ("102", &Source::Music));
        match succeeds {
            true => {
                p.answers(c);
                assert_eq!((&p.media.0[&b], &p.media.0[&c]), (&Source::Leg(c), &Source::Leg(b)));
                assert_eq!(p.told(A).last().map(String::as_str), Some("release 16"));
                p.leg(c, LegEvent::Released { cause: Cause::NORMAL, status: None });
                assert_eq!(p.ended().len(), 2, "a record for each connection");
            }
            false => {
                p.leg(c, LegEvent::Released { cause: Cause::BUSY, status: Some(486) });
                assert_eq!((&p.media.0[&b], &p.media.0[&A]), (&Source::Leg(A), &Source::Leg(b)));
                p.leg(A, LegEvent::Released { cause: Cause::NORMAL, status: None });
            }
        }
        assert!(p.over() && p.media.0.is_empty());
    }
}

#[test]
fn a_line_takes_as_many_calls_as_it_may() {
    let mut picture = two();
    serve(&mut picture, "101", Service::Ml, &[("limit", "1")]);
    let mut p = Play::new(picture.clone(), "101");
    let (b, _) = p.called()[0].clone();
    p.answers(b);
    assert_eq!(p.board.on_line("d", "101@d"), 1);
    assert!(p.board.take_line("d", "101@d", 1).is_none());
    p.leg(A, LegEvent::Released { cause: Cause::NORMAL, status: None });
    assert_eq!((p.board.on_line("d", "101@d"), p.board.on_line("d", "100@d")), (0, 0));
}

proptest! {
    /// Whatever happens in whatever order: once everybody has gone the call is over, nothing is heard any more, every
    /// answered connection has its record, and no place is held.
    #[test]
    fn every_call_ends(steps in prop::collection::vec((0u8..10, 0usize..5), 0..40), services in 0u8..8) {
        let mut picture = estate(&[("100", 1), ("101", 2), ("102", 1), ("103", 0)]);
        if services & 1 != 0 { serve(&mut picture, "101", Service::Cfb, &[("number", "102")]); }
        if services & 2 != 0 { serve(&mut picture, "102", Service::Cfu, &[("number", "103")]); }
        if services & 4 != 0 { serve(&mut picture, "103", Service::Cfos, &[("number", "101")]); }
        let mut p = Play::new(picture, "101");
        for (what, which) in steps {
            p.seconds += 1;
            let mut legs = vec![A];
            legs.extend(p.called().into_iter().map(|(l, _)| l));
            let leg = legs[which % legs.len()];
            let sdp = || Some(Bytes::from_static(SDP));
            match what {
                0 => p.leg(leg, LegEvent::Progress { status: 180, sdp: None }),
                1 => p.leg(leg, LegEvent::Progress { status: 183, sdp: sdp() }),
                2 | 3 => p.answers(leg),
                4 => p.leg(leg, LegEvent::Offer { sdp: Some(Bytes::from_static(b"hold")) }),
                5 => p.leg(leg, LegEvent::Released { cause: Cause::BUSY, status: Some(486) }),
                6 => p.leg(leg, LegEvent::Refer(Refer::Number(["102", "103", "999"][which % 3].into()))),
                7 => p.leg(leg, LegEvent::Redirected { to: vec!["102".into()] }),
                8 => {
                    let dials = p.call.dials;
                    p.step(|c, w| c.handle(Event::Timer(Timer::NoAnswer(dials)), w));
                }
                _ => p.leg(leg, LegEvent::Key { key: '5', millis: 100 }),
            }
        }
        let mut legs = vec![A];
        legs.extend(p.called().into_iter().map(|(l, _)| l));
        for leg in legs {
            p.leg(leg, LegEvent::Released { cause: Cause::NORMAL, status: None });
        }
        // Somebody may still be dialled: nobody answers.
        for _ in 0..8 {
            let dials = p.call.dials;
            p.step(|c, w| c.handle(Event::Timer(Timer::NoAnswer(dials)), w));
            let legs: Vec<LegId> = p.called().into_iter().map(|(l, _)| l).collect();
            for leg in legs {
                p.leg(leg, LegEvent::Released { cause: Cause::NORMAL, status: None });
            }
        }
        prop_assert!(p.over(), "{:?}", p.call.view());
        prop_assert!(p.media.0.is_empty());
        let answered = p.effects.iter().filter(|e| matches!(e, Effect::Keep(RecordEvent::Answered { .. }))).count();
        prop_assert_eq!(p.ended().iter().filter(|c| c.answered.is_some()).count(), answered);
        for iface in ["100@d", "101@d", "102@d", "103@d"] {
            prop_assert_eq!(p.board.on_line("d", iface), 0, "{}", iface);
        }
    }
}

/// 101 is answered by a script, and 100 calls it.
fn with_script() -> Play {
    let mut picture = two();
    serve(&mut picture, "101", Service::PersonalIvr, &[("script", "menu")]);
    Play::new(picture, "101")
}

#[test]
fn a_script_answers_is_heard_and_connects_its_caller() {
    use crate::AppWish;
    let mut p = with_script();
    assert!(p.called().is_empty() && p.told(A) == ["Answer"], "{:?}", p.told(A));
    let begins = |e: &Effect| matches!(e, Effect::Application(b) if b.script == "menu" && b.called == "101" && b.leg == A);
    assert!(p.effects.iter().any(begins));
    let wish = |p: &mut Play, wish| p.step(|c, w| c.handle(Event::App(wish), w));
    let told = |p: &Play| {
        p.effects
            .iter()
            .filter_map(|e| if let Effect::Tell(e) = e { Some(e.clone()) } else { None })
            .collect::<Vec<_>>()
    };
    let path: PathBuf = "menu.wav".into();
    wish(&mut p, AppWish::Play(path.clone()));
    assert_eq!(p.media.0[&A], Source::File { path, repeat: false });
    p.step(|c, w| c.handle(Event::Media(A, MediaEvent::Key('1')), w));
    p.step(|c, w| c.handle(Event::Media(A, MediaEvent::Played), w));
    p.step(|c, w| c.handle(Event::Media(A, MediaEvent::Played), w));
    assert_eq!(told(&p), [AppEvent::Key('1'), AppEvent::Played], "once");
    // Busy: the script goes on, and the caller with it.
    let dial = || AppWish::Dial { number: "102".into(), patience: Duration::from_secs(5) };
    wish(&mut p, dial());
    let (c, _) = p.called()[0].clone();
    assert!(p.effects.iter().any(|e| matches!(e, Effect::After(t, Timer::NoAnswer(_)) if t.as_secs() == 5)));
    p.leg(c, LegEvent::Released { cause: Cause::BUSY, status: Some(486) });
    assert_eq!(told(&p).last(), Some(&AppEvent::Failed(Cause::BUSY)));
    assert!(!p.over());
    wish(&mut p, dial());
    let (c, _) = p.called()[1].clone();
    p.answers(c);
    assert_eq!(told(&p).last(), Some(&AppEvent::Connected));
    assert_eq!((&p.media.0[&A], &p.media.0[&c]), (&Source::Leg(c), &Source::Leg(A)));
    p.leg(c, LegEvent::Released { cause: Cause::NORMAL, status: None });
    assert!(p.over(), "nobody is left to talk to");
    let records: Vec<_> = p.ended().iter().map(|c| (c.service.as_str(), c.answered.is_some())).collect();
    assert_eq!(records, [("ivr", false), ("ivr", true), ("ivr", true)]);
}

#[test]
fn a_caller_that_leaves_ends_its_script_and_a_script_that_crashes_ends_its_call() {
    let mut p = with_script();
    p.leg(A, LegEvent::Released { cause: Cause::NORMAL, status: None });
    assert!(p.over() && p.effects.iter().any(|e| matches!(e, Effect::Tell(AppEvent::Ended))));
    assert_eq!(p.ended().len(), 1);

    let mut p = with_script();
    p.step(|c, w| c.handle(Event::AppGone, w));
    assert!(p.over());
    assert_eq!(p.told(A), ["Answer", "release 41"]);

    let mut picture = two();
    serve(&mut picture, "101", Service::PersonalIvr, &[("script", "gone")]);
    let p = Play::new(picture, "101");
    assert_eq!(p.told(A), ["release 27"], "there is no such script");
}
