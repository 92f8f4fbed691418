//! A mediator's session over SSH: the log-in is the domain's name, the peer one of its mediators. Lines of text go both ways;
//! see `docs/sorm.md`. [`Desk`] knows nothing of SSH; [`peer`] carries its lines.

mod peer;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use chrono::DateTime;
use kit::{journal::Origin, ledger};
use serde_json::json;
use tokio::sync::mpsc;

pub(crate) use peer::Peer;

use crate::{
    audit::Entry,
    intercept::{InterceptMsg, Services},
    multi,
    protocol::{BadRequest, Command, Intrusion, Moment, Refusal, Reply, Request, Series, Told, Way},
    settings::Mediator,
    station::{Answer, Basis, Media, Order},
    stations::{StationBook, StationCommand, interception, ledger as ledger_of},
};

/// Lines that may wait while a command is carried out.
const WAITING: usize = 64;
/// How long a call may take to be told of an order.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command whose payload is a password.
const SET_PASSWORD: u8 = 0x03;

const HELP: &str = "\
command HEX        a command of order 268, whole, as hexadecimal digits
basis OBJECT FROM UNTIL TEXT
                   why an object is under control, and when: RFC 3339, or - for no limit
media ADDRESS PORT [MIXED]
                   where the speech of channel 0 would go; channel N goes to PORT + 2 N; MIXED: how many channels may
                   have both parties in one at once
help               this text
quit               ends the session
Answers: `reply HEX` is a message of order 268; `ok` and `error TEXT` answer all else.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Command(Vec<u8>),
    Media(Media),
    Basis(u16, Basis),
    Help,
    Quit,
    Empty,
}

/// Reads a line.
fn parse(line: &str) -> Result<Line, &'static str> {
    let mut words = line.split_whitespace();
    match words.next() {
        None => Ok(Line::Empty),
        Some("help") => Ok(Line::Help),
        Some("quit") => Ok(Line::Quit),
        Some("media") => {
            let ip = words.next().and_then(|w| w.parse().ok()).ok_or("media wants an address and a port")?;
            let first: u16 =
                words.next().and_then(|w| w.parse().ok()).ok_or("media wants an address and a port")?;
            // 256 channels have to fit behind it.
            if first == 0 || first > u16::MAX - 512 {
                return Err("the port is from 1 to 65023");
            }
            let mixed = words.next().map(str::parse).transpose();
            let mixed = mixed.map_err(|_| "how many are mixed at once is a number")?;
            Ok(Line::Media(Media { ip, first, mixed }))
        }
        Some("basis") => {
            const WANTED: &str = "basis wants an object, two times and a text";
            let number = words.next().and_then(|w| w.parse().ok()).ok_or(WANTED)?;
            let mut time = || match words.next() {
                Some("-") => Ok(None),
                Some(text) => DateTime::parse_from_rfc3339(text)
                    .map(|t| Some(t.to_utc()))
                    .map_err(|_| "a time is as 2026-12-31T20:00:00Z"),
                None => Err(WANTED),
            };
            let (from, until) = (time()?, time()?);
            if from.zip(until).is_some_and(|(from, until)| from >= until) {
                return Err("it would end before it begins");
            }
            let text = words.collect::<Vec<_>>().join(" ");
            if text.is_empty() {
                return Err(WANTED);
            }
            Ok(Line::Basis(number, Basis { from, until, text }))
        }
        Some("command") => {
            let digits: String = words.collect();
            hex::decode(digits).map(Line::Command).map_err(|_| "those are no hexadecimal digits")
        }
        Some(_) => Err("there is no such order; help shows all"),
    }
}

fn reply_line(reply: &Reply) -> String {
    format!("reply {}\n", hex::encode(reply.to_bytes()))
}

/// What a log-in stands for.
#[derive(Debug, Clone)]
enum Works {
    One {
        domain: String,
        mediator: Mediator,
    },
    /// All domains of an aggregate: those of each moment.
    Several {
        user: String,
        ip: IpAddr,
    },
}

impl Works {
    fn name(&self) -> &str {
        match self {
            Self::One { domain, .. } => domain,
            Self::Several { user, .. } => user,
        }
    }

    fn targets(&self, services: &Services) -> Result<Vec<(String, Mediator)>, String> {
        match self {
            Self::One { domain, mediator } => Ok(vec![(domain.clone(), *mediator)]),
            Self::Several { user, ip } => services.multi.domains(user, &services.stations, *ip),
        }
    }
}

/// Brings domains that an aggregate has taken since to where the others are.
pub(crate) async fn join(services: &Services, user: &str, ip: IpAddr) {
    let Ok(targets) = services.multi.domains(user, &services.stations, ip) else { return };
    let stations: Vec<_> =
        targets.iter().filter_map(|(d, m)| Some((d.clone(), *m, services.stations.get(d)?))).collect();
    for (domain, mediator, _) in stations.iter().filter(|(_, m, s)| !s.desks.contains_key(m)) {
        let others: Vec<_> = stations.iter().map(|(_, m, s)| (*m, s.clone())).collect();
        let commands = multi::catch_up(&others, services.sorm);
        if commands.is_empty() {
            continue;
        }
        let origin = Origin { who: user.to_owned(), from: "sorm".into() };
        let Some(name) = ledger_of(domain) else { continue };
        for command in commands {
            let command = command.of(*mediator);
            // What a domain refuses (a number that is not its own) it would have refused then.
            let told =
                ledger::change_at::<StationBook>(&services.node, name.as_str(), command, origin.clone())
                    .await;
            if let Err(e) = told {
                tracing::error!(%domain, error = %e, "a domain does not join");
                return;
            }
        }
        let details = json!({ "user": user });
        services.audit.write(Entry::new(domain, &mediator.to_string(), "joined", details));
        // A domain whose calls nobody tells of yet has none that were missed.
        let _ = order(services, domain, *mediator, &Order::Look).await;
    }
}

/// Tells whoever sees a domain's calls.
pub(crate) async fn order(
    services: &Services,
    domain: &str,
    mediator: Mediator,
    order: &Order,
) -> Result<(), Refusal> {
    let name = interception(domain, mediator).ok_or(Refusal::NotStarted)?;
    let to = services.node.registry().lookup::<InterceptMsg>(&name).map_err(|_| Refusal::NotStarted)?;
    let told = to.ask_for(PATIENCE, |reply| InterceptMsg::Order(order.clone(), reply)).await;
    told.unwrap_or(Err(Refusal::Busy))
}

/// What a session works with.
pub struct Desk {
    services: Services,
    works: Works,
    from: SocketAddr,
}

/// Whoever listens has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Ended;

type Out = mpsc::Sender<String>;

async fn say(out: &Out, text: &str) -> Result<(), Ended> {
    out.send(text.to_owned()).await.map_err(|_| Ended)
}

impl Desk {
    /// The session of one domain's mediator; without SSH, for replays.
    pub fn of_domain(services: Services, domain: &str, mediator: Mediator) -> Self {
        Self { services, works: Works::One { domain: domain.to_owned(), mediator }, from: mediator.0 }
    }

    /// The same for an aggregate; its domains have to be ready.
    pub fn of_aggregate(services: Services, user: &str, mediator: Mediator) -> Result<Self, String> {
        let works = Works::Several { user: user.to_owned(), ip: mediator.ip() };
        works.targets(&services)?;
        Ok(Self { services, works, from: mediator.0 })
    }

    /// Answers lines until they end, or one says so.
    pub async fn run(self, mut waiting: mpsc::Receiver<String>, out: Out) -> Result<(), Ended> {
        while let Some(line) = waiting.recv().await {
            match parse(&line) {
                Ok(Line::Empty) => {}
                Ok(Line::Quit) => break,
                Ok(Line::Help) => say(&out, &format!("{HELP}\n")).await?,
                Ok(Line::Media(media)) => {
                    let answer = match self.every(|m| StationCommand::Media(m, media)).await {
                        Ok(_) => "ok\n".to_owned(),
                        Err(why) => format!("error {why}\n"),
                    };
                    say(&out, &answer).await?;
                }
                Ok(Line::Basis(number, basis)) => {
                    let told = self.every(|m| StationCommand::Basis(m, number, basis.clone())).await;
                    let known = told.map(|all| all.iter().any(|(.., answer)| answer.done.is_none()));
                    let Basis { from, until, text } = &basis;
                    let details = json!({ "object": number, "from": from, "until": until, "text": text });
                    self.audit("basis", details);
                    let answer = match known {
                        Ok(true) => "ok\n".to_owned(),
                        Ok(false) => format!("error there is no object {number}\n"),
                        Err(why) => format!("error {why}\n"),
                    };
                    say(&out, &answer).await?;
                }
                Ok(Line::Command(unit)) => self.command(&unit, &out, &mut waiting).await?,
                Err(why) => say(&out, &format!("error {why}\n")).await?,
            }
        }
        Ok(())
    }

    fn audit(&self, action: &str, details: serde_json::Value) {
        let entry = Entry::new(self.works.name(), &self.from.ip().to_string(), action, details);
        self.services.audit.write(entry);
    }

    /// Gives a command to every domain.
    async fn every(
        &self,
        command: impl Fn(Mediator) -> StationCommand,
    ) -> Result<Vec<(String, Mediator, Answer)>, String> {
        if let Works::Several { user, ip } = &self.works {
            join(&self.services, user, *ip).await;
        }
        let mut all = Vec::new();
        for (domain, mediator) in self.works.targets(&self.services)? {
            let name = ledger_of(&domain).ok_or("the domain has no name")?;
            let origin = Origin { who: mediator.to_string(), from: format!("ssh {}", self.from) };
            let (node, command) = (&self.services.node, command(mediator));
            let changed = ledger::change_at::<StationBook>(node, name.as_str(), command, origin).await;
            all.push((domain, mediator, changed.map_err(|e| e.to_string())?.0));
        }
        Ok(all)
    }

    /// One command with both its acknowledgements, and the table between them.
    async fn command(
        &self,
        unit: &[u8],
        write: &Out,
        waiting: &mut mpsc::Receiver<String>,
    ) -> Result<(), Ended> {
        let sorm = self.services.sorm;
        let alone = |told| Reply::alone(sorm, told);
        let request = match Request::read(unit) {
            Ok(request) => request,
            Err(BadRequest { code, refusal, .. }) => {
                self.audit("command", json!({ "code": code, "received": refusal.code() }));
                return say(
                    write,
                    &reply_line(&alone(Told::Received { command: code, status: refusal.code() })),
                )
                .await;
            }
        };
        let code = request.command.code();
        let asked = self.every(|mediator| StationCommand::Execute(mediator, request.clone())).await;
        let mut answers = match asked {
            Ok(answers) => answers,
            Err(why) => {
                tracing::error!(name = self.works.name(), error = %why, "a command of a mediator could not be kept");
                return say(write, &format!("error {why}\n")).await;
            }
        };
        let mut tested = false;
        for (domain, mediator, answer) in &mut answers {
            let Some(wanted) = answer.order.clone() else { continue };
            // One test is answered once.
            if matches!(wanted, Order::Test(_)) && std::mem::replace(&mut tested, true) {
                continue;
            }
            answer.done = order(&self.services, domain, *mediator, &wanted).await.err();
        }
        let each: serde_json::Map<String, serde_json::Value> = answers
            .iter()
            .map(|(domain, _, a)| (domain.clone(), json!(a.received.or(a.done).map_or(0, Refusal::code))))
            .collect();
        let answer = multi::merge(&request.command, answers.into_iter().map(|(.., a)| a).collect());
        // Without the password of its header, and without the one it may set.
        let shown = if code == SET_PASSWORD {
            &[][..]
        } else {
            unit.get(Way::Command.header()..).unwrap_or_default()
        };
        let hex = format!("{code:02x} {}", hex::encode(shown));
        if let Some(refusal) = answer.received {
            self.audit("command", json!({ "unit": hex, "received": refusal.code(), "domains": each }));
            return say(write, &reply_line(&alone(Told::Received { command: code, status: refusal.code() })))
                .await;
        }
        say(write, &reply_line(&alone(Told::Received { command: code, status: 0 }))).await?;
        let mut done = answer.done;
        if done.is_none() && !self.table(&answer.table, write, waiting).await? {
            done = Some(Refusal::Interrupted);
        }
        if let Some(intrusion) = answer.intrusion {
            say(write, &reply_line(&alone(self.intrusion(intrusion)))).await?;
        }
        let status = done.map_or(0, Refusal::code);
        self.audit("command", json!({ "unit": hex, "received": 0, "done": status, "domains": each }));
        if let (Some(Order::Test(number)), 0) = (&answer.order, status) {
            let told = Told::Test { number: *number, first: 1, second: 1 };
            say(write, &reply_line(&alone(told))).await?;
        }
        say(write, &reply_line(&alone(Told::Done { command: code, status }))).await
    }

    fn intrusion(&self, code: Intrusion) -> Told {
        let at = Moment::of(&self.services.node.clock().now());
        self.audit("intrusion", json!({ "code": code.code() }));
        Told::Intrusion { code, at, text: self.from.ip().to_string() }
    }

    /// Sends a table; `false` where it was interrupted. Other commands have to wait for its end.
    async fn table(
        &self,
        table: &[Told],
        write: &Out,
        waiting: &mut mpsc::Receiver<String>,
    ) -> Result<bool, Ended> {
        let sorm = self.services.sorm;
        let total = u16::try_from(table.len()).unwrap_or(u16::MAX);
        for (index, told) in (1u16..).zip(table) {
            let reply = Reply { sorm, series: Series { total, index }, told: told.clone() };
            say(write, &reply_line(&reply)).await?;
            while let Ok(line) = waiting.try_recv() {
                let Ok(Line::Command(unit)) = parse(&line) else { continue };
                let (command, status) = match Request::read(&unit) {
                    Ok(Request { command: Command::Interrupt, .. }) => (Command::Interrupt.code(), 0),
                    Ok(Request { command, .. }) => (command.code(), Refusal::Busy.code()),
                    Err(bad) => (bad.code, Refusal::Busy.code()),
                };
                say(write, &reply_line(&Reply::alone(sorm, Told::Received { command, status }))).await?;
                if status == 0 {
                    say(write, &reply_line(&Reply::alone(sorm, Told::Done { command, status }))).await?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused() {
        assert_eq!(parse("command CC 01 01 00"), Ok(Line::Command(vec![0xCC, 1, 1, 0])));
        assert_eq!(parse(" command cc010100 "), Ok(Line::Command(vec![0xCC, 1, 1, 0])));
        let media = Media { ip: [127, 0, 0, 1].into(), first: 20_000, mixed: None };
        assert_eq!(parse("media 127.0.0.1 20000"), Ok(Line::Media(media)));
        let media = Media { mixed: Some(27), ..media };
        assert_eq!(parse("media 127.0.0.1 20000 27"), Ok(Line::Media(media)));
        assert_eq!(
            (parse(""), parse("quit"), parse("help")),
            (Ok(Line::Empty), Ok(Line::Quit), Ok(Line::Help))
        );
        let times = "basis 7 2026-11-24T00:00:00Z - warrant 12 of the city court";
        assert!(matches!(parse(times), Ok(Line::Basis(7, Basis { from: Some(_), until: None, .. }))));
        for wrong in [
            "basis 7 - -",
            "basis 7 tomorrow - x",
            "basis x - - x",
            "basis 7 2026-11-24T00:00:00Z 2026-11-23T00:00:00Z x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "command c",
            "command xx",
            "media",
            "media 127.0.0.1",
            "media 127.0.0.1 65535",
            "media 127.0.0.1 1 x",
            "start",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
