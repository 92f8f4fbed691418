//! Phones of a replay: real SIP user agents, on a network of this process in virtual time or on loopback.

use std::{cell::RefCell, collections::BTreeMap, fmt::Write, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use call::{Cause, Ladder, LegCommand, LegEvent, LegId, Outgoing, Party, Target};
use kit::{Address, Secret};
use sip::{
    agent::{Adopted, Agent, Now, Offers, Output, Way, reply},
    digest::Login,
    identifiers::Identifiers,
    net::Port,
    transaction::{Flow, Id},
    wire::{
        message::{Message, Method, Name},
        uri::Uri,
    },
};
use tokio::sync::Notify;

use super::script::{Action, Step};

/// A call of a phone.
struct Line {
    state: &'static str,
    other: String,
    /// What it has asked for and waits to be told.
    holding: Option<bool>,
}

/// A phone without a network.
struct Phone {
    agent: Agent,
    at: SocketAddr,
    /// The node.
    server: SocketAddr,
    user: String,
    domain: String,
    login: Option<Login>,
    registering: Option<(Id, bool)>,
    registered: String,
    lines: BTreeMap<LegId, Line>,
    next: u64,
    keys: String,
    /// How the last call ended.
    ended: String,
}

/// Whom the agent believes to serve.
fn nobody() -> Address {
    Address::new("replay/phone").unwrap_or_else(|_| unreachable!("a good name"))
}

fn sdp(at: SocketAddr, direction: &str) -> Bytes {
    format!(
        "v=0\r\no=phone 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n\
         a=rtpmap:8 PCMA/8000\r\na={direction}\r\n",
        ip = at.ip(),
        port = at.port().wrapping_add(2).max(1024)
    )
    .into()
}

fn holds(sdp: &Option<Bytes>) -> bool {
    let text = sdp.as_ref().map(|s| String::from_utf8_lossy(s).into_owned()).unwrap_or_default();
    text.contains("a=sendonly") || text.contains("a=inactive")
}

impl Phone {
    fn flow(&self) -> Flow {
        Flow::udp(self.server)
    }

    fn register(&mut self, now: Now, challenge: Option<&Message>) {
        let (user, domain, at) = (self.user.clone(), self.domain.clone(), self.at);
        let uri = format!("sip:{domain}");
        let proof = challenge.and_then(|c| self.login.as_ref()?.proof(c, "REGISTER", &uri, self.next));
        self.next += 1;
        let (number, flow) = (self.next, self.flow());
        let id = self.agent.send(now, flow, |via, _| {
            let mut register = Message::request(Method::Register, uri)
                .with(Name::Via, via)
                .with(Name::MaxForwards, "70")
                .with(Name::From, format!("<sip:{user}@{domain}>;tag=r{user}"))
                .with(Name::To, format!("<sip:{user}@{domain}>"))
                .with(Name::CallId, format!("register-{user}@{at}"))
                .with(Name::CSeq, format!("{number} REGISTER"))
                .with(Name::Contact, format!("<sip:{user}@{at}>"))
                .with(Name::Expires, "3600");
            if let Some((name, value)) = proof {
                register.push(name, value);
            }
            register
        });
        self.registering = Some((id, challenge.is_some()));
        if challenge.is_none() {
            self.registered = "registering".into();
        }
    }

    fn registered(&mut self, now: Now, answer: Option<Box<Message>>, proved: bool) {
        self.registering = None;
        match answer.as_deref().map(|a| (a.code(), a)) {
            Some((Some(401), challenge)) if !proved => self.register(now, Some(challenge)),
            Some((Some(200..300), _)) => self.registered = "registered".into(),
            Some((code, _)) => self.registered = format!("not registered ({})", code.unwrap_or(0)),
            None => self.registered = "not registered (no answer)".into(),
        }
    }

    fn leg(&mut self) -> LegId {
        self.next += 1;
        LegId(self.next)
    }

    fn call(&mut self, now: Now, to: &str) {
        let leg = self.leg();
        let party = |number: &str| Party { number: number.to_owned(), ..Party::default() };
        let out = Outgoing {
            target: Target::Trunk { domain: self.domain.clone(), trunk: String::new(), last: true },
            from: party(&self.user),
            to: party(to),
            domain: self.domain.clone(),
            sdp: sdp(self.at, "sendrecv"),
            max_forwards: 70,
            history: Vec::new(),
            uui: None,
        };
        let uri = format!("sip:{}@{}", sip::wire::uri::escape_user(to), self.domain);
        let (flow, login) = (self.flow(), self.login.clone());
        let way = Way {
            flow,
            uri,
            routes: Vec::new(),
            trusted: false,
            follows: false,
            login,
            offers: Offers::default(),
            doubtful: false,
        };
        self.ended.clear();
        self.lines.insert(leg, Line { state: "calling", other: to.to_owned(), holding: None });
        self.agent.call(now, leg, &nobody(), &Ladder::default(), &out, way);
    }

    fn command(&mut self, now: Now, leg: LegId, command: LegCommand) {
        self.agent.command(now, leg, &nobody(), command);
    }

    /// The newest line in one of these states.
    fn line(&self, states: &[&str]) -> Result<LegId, String> {
        let found = self.lines.iter().rev().find(|(_, l)| states.contains(&l.state));
        found
            .map(|(id, _)| *id)
            .ok_or_else(|| format!("no call is {}: {}", states.join(" or "), self.shown()))
    }

    fn request(&mut self, now: Now, id: Id, message: Box<Message>, flow: Flow) {
        if message.method() != Some(&Method::Invite) {
            let code = if message.tag(&Name::To).is_some() { 481 } else { 200 };
            return self.agent.respond(now, id, &reply(&message, code, Some("p")));
        }
        let leg = self.leg();
        let from = message.address(&Name::From);
        let other = from.and_then(|f| Uri::parse(&f.uri).ok().map(|u| u.number())).unwrap_or_default();
        let ladder = Ladder::default();
        self.agent.adopt(now, id, message, flow, Adopted { leg, ladder: &ladder, follows: false });
        self.agent.assign(leg, &nobody());
        self.lines.insert(leg, Line { state: "ringing", other, holding: None });
        self.command(now, leg, LegCommand::Progress { status: 180, sdp: None });
    }

    fn event(&mut self, now: Now, leg: LegId, event: LegEvent) {
        let at = self.at;
        if matches!(event, LegEvent::Released { .. }) {
            // Answers the peer's BYE.
            let cause = call::Cause::NORMAL;
            self.agent.command(now, leg, &nobody(), LegCommand::Release { cause, status: None });
        }
        let Some(line) = self.lines.get_mut(&leg) else { return };
        match event {
            LegEvent::Progress { status, .. } if status >= 180 => line.state = "ringback",
            LegEvent::Answered { sdp } => line.state = if holds(&sdp) { "held" } else { "talking" },
            LegEvent::Confirmed { .. } if line.state == "answering" => line.state = "talking",
            LegEvent::Offer { sdp: offer } => {
                let held = holds(&offer);
                line.state = if held { "held" } else { "talking" };
                let answer = sdp(at, if held { "recvonly" } else { "sendrecv" });
                self.command(now, leg, LegCommand::OfferAnswer(Ok(answer)));
            }
            LegEvent::OfferAnswered(answer) => match (answer, line.holding.take()) {
                (Ok(_), Some(true)) => line.state = "holding",
                (Ok(_), _) => line.state = "talking",
                (Err(_), _) => {}
            },
            LegEvent::Key { key, .. } => self.keys.push(key),
            LegEvent::Redirected { .. } | LegEvent::Released { .. } => {
                self.lines.remove(&leg);
                self.ended = match event {
                    LegEvent::Released { status: Some(status), .. } => format!("ended with {status}"),
                    _ => "ended".into(),
                };
            }
            _ => {}
        }
    }

    /// Sends what the agent wants sent, and hears what it has heard.
    fn step(&mut self, now: Now) -> Vec<(SocketAddr, Bytes)> {
        let mut sent = Vec::new();
        loop {
            let outputs = self.agent.outputs();
            if outputs.is_empty() {
                return sent;
            }
            for output in outputs {
                match output {
                    Output::Send(flow, bytes) => sent.push((flow.peer, bytes)),
                    Output::Event { leg, event, .. } => self.event(now, leg, event),
                    Output::Request(id, message, flow) => self.request(now, id, message, flow),
                    Output::Unproven(_, id, message, _) => {
                        self.agent.respond(now, id, &reply(&message, 403, None));
                    }
                    Output::Answer(id, answer) => {
                        if let Some((_, proved)) = self.registering.filter(|(asked, _)| *asked == id) {
                            self.registered(now, answer, proved);
                        }
                    }
                }
            }
        }
    }

    fn act(&mut self, now: Now, action: &Action) -> Result<(), String> {
        match action {
            Action::Register(_) => self.register(now, None),
            Action::Listen(_) | Action::Look => {}
            Action::Call(to) => self.call(now, to),
            Action::Answer => {
                let leg = self.line(&["ringing"])?;
                let answer = sdp(self.at, "sendrecv");
                self.command(now, leg, LegCommand::Answer { sdp: answer });
                if let Some(line) = self.lines.get_mut(&leg) {
                    line.state = "answering";
                }
            }
            Action::Hold(on) => {
                let leg = self.line(&[if *on { "talking" } else { "holding" }])?;
                let offer = sdp(self.at, if *on { "sendonly" } else { "sendrecv" });
                if let Some(line) = self.lines.get_mut(&leg) {
                    line.holding = Some(*on);
                }
                self.command(now, leg, LegCommand::Offer { sdp: offer });
            }
            Action::Transfer(Some(to)) => {
                let leg = self.line(&["talking", "holding"])?;
                let to = format!("sip:{}@{}", sip::wire::uri::escape_user(to), self.domain);
                self.agent.transfer(now, leg, &to, None);
            }
            Action::Transfer(None) => {
                let (first, second) = (self.line(&["holding"])?, self.line(&["talking"])?);
                let other = self.lines.get(&second).map(|l| l.other.clone()).unwrap_or_default();
                let to = format!("sip:{}@{}", sip::wire::uri::escape_user(&other), self.domain);
                self.agent.transfer(now, first, &to, Some(second));
            }
            Action::Keys(keys) => {
                let leg = self.line(&["talking"])?;
                for key in keys.chars() {
                    self.command(now, leg, LegCommand::Key { key, millis: 160 });
                }
            }
            Action::HangUp => {
                let leg = *self.lines.keys().next_back().ok_or("there is no call to hang up")?;
                let busy = self.lines.get(&leg).is_some_and(|l| l.state == "ringing");
                let cause = if busy { Cause::REJECTED } else { Cause::NORMAL };
                self.command(now, leg, LegCommand::Release { cause, status: None });
                self.lines.remove(&leg);
                self.ended = "hung up".into();
            }
        }
        Ok(())
    }

    fn shown(&self) -> String {
        let mut text = self.registered.clone();
        for line in self.lines.values() {
            let _ = write!(text, ", {} {}", line.state, line.other);
        }
        if self.lines.is_empty() {
            let ended = if self.ended.is_empty() { "idle" } else { &self.ended };
            let _ = write!(text, ", {ended}");
        }
        if !self.keys.is_empty() {
            let _ = write!(text, ", keys {}", self.keys);
        }
        text
    }
}

/// A phone on a network.
struct Wired {
    phone: RefCell<Phone>,
    port: Port,
    wake: Notify,
    wall: Box<dyn Fn() -> chrono::DateTime<chrono::Utc>>,
}

impl Wired {
    fn now(&self) -> Now {
        Now { at: tokio::time::Instant::now().into_std(), wall: (self.wall)() }
    }

    fn flush(&self) {
        let sent = self.phone.borrow_mut().step(self.now());
        for (to, bytes) in sent {
            // Lost, as datagrams are.
            let _ = self.port.send(&bytes, to);
        }
        self.wake.notify_one();
    }

    async fn run(self: Rc<Self>) {
        let mut buffer = vec![0; 65_536];
        loop {
            let due = self.phone.borrow().agent.deadline();
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = self.port.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    while let Ok((length, from)) = self.port.take(&mut buffer) {
                        let bytes = Bytes::copy_from_slice(&buffer[..length]);
                        let flow = Flow::udp(from);
                        self.phone.borrow_mut().agent.receive(self.now(), &bytes, flow);
                    }
                }
                () = sleep => self.phone.borrow_mut().agent.timeout(self.now()),
                () = self.wake.notified() => continue,
            }
            self.flush();
        }
    }
}

/// All phones of a script.
pub struct Phones {
    all: BTreeMap<String, Rc<Wired>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    server: SocketAddr,
    open: Box<dyn Fn(Option<SocketAddr>) -> std::io::Result<Port>>,
    wall: Rc<dyn Fn() -> chrono::DateTime<chrono::Utc>>,
    salt: u64,
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// How long an expectation may take to come true unless its step says otherwise.
const WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

impl Phones {
    /// `open` gives a phone its place on the network, where the script does not name one.
    pub fn new(
        server: SocketAddr,
        salt: u64,
        open: impl Fn(Option<SocketAddr>) -> std::io::Result<Port> + 'static,
        wall: impl Fn() -> chrono::DateTime<chrono::Utc> + 'static,
    ) -> Self {
        let (all, tasks, open, wall) = (BTreeMap::new(), Vec::new(), Box::new(open), Rc::new(wall));
        Self { all, tasks, server, open, wall, salt }
    }

    fn connect(&mut self, name: &str, action: &Action) -> Result<Rc<Wired>, String> {
        if let Some(known) = self.all.get(name) {
            return Ok(known.clone());
        }
        let (at, user, login) = match action {
            Action::Register(who) => {
                let (user, _) = who.user.split_once('@').ok_or("register: user is name@domain")?;
                let password = Secret::new(who.password.clone());
                (None, who.user.clone(), Some(Login { name: user.to_owned(), password }))
            }
            Action::Listen(at) => (Some(*at), format!("{name}@{at}"), None),
            _ => return Err(format!("there is no phone {name}: register or listen makes one")),
        };
        let port = (self.open)(at).map_err(|e| format!("phone {name}: {e}"))?;
        let at = port.local().map_err(|e| e.to_string())?;
        let (user, domain) = user.split_once('@').unwrap_or((&user, ""));
        self.salt = self.salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.salt.to_be_bytes());
        let phone = Phone {
            agent: Agent::new(Identifiers::new(&key), Box::new(move |_, _| at.to_string())),
            at,
            server: self.server,
            user: user.to_owned(),
            domain: domain.to_owned(),
            login,
            registering: None,
            registered: "not registered".into(),
            lines: BTreeMap::new(),
            next: 0,
            keys: String::new(),
            ended: String::new(),
        };
        let wall = self.wall.clone();
        let wall = Box::new(move || wall());
        let wired = Rc::new(Wired { phone: RefCell::new(phone), port, wake: Notify::new(), wall });
        self.tasks.push(actix::spawn(wired.clone().run()));
        self.all.insert(name.to_owned(), wired.clone());
        Ok(wired)
    }

    /// Carries a phone's step out and waits for what it expects.
    pub async fn play(&mut self, name: &str, action: &Action, step: &Step) -> (String, Vec<String>) {
        let wired = match self.connect(name, action) {
            Ok(wired) => wired,
            Err(e) => return (String::new(), vec![e]),
        };
        let patience = step.within.map_or(WITHIN, Duration::from_secs_f64);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let done = wired.phone.borrow_mut().act(wired.now(), action);
            wired.flush();
            match done {
                Ok(()) => break,
                // A call may be on its way yet.
                Err(_) if matches!(action, Action::Answer) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(e) => return (String::new(), vec![e]),
            }
        }
        let mut expect = step.expect.clone();
        if expect.contains.is_empty() {
            expect.contains.extend(action.leads_to().map(str::to_owned));
        }
        loop {
            let shown = wired.phone.borrow().shown();
            let misses = expect.misses(expect.status, &shown, None);
            if misses.is_empty() || tokio::time::Instant::now() >= deadline {
                return (format!("{name}: {shown}\n"), misses);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
