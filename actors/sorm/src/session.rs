//! A mediator's session over SSH: the log-in is the domain's name, the peer one of its mediators. Lines of text go both ways;
//! see `docs/sorm.md`. The core, [`Session`], knows neither SSH nor actors.

use std::{net::SocketAddr, time::Duration};

use access::{
    Door,
    ssh::{self, Arrival},
};
use kit::{Secret, journal::Origin, ledger};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, MethodKind,
    server::{Auth, Handler, Msg},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::{
    audit::Entry,
    intercept::{InterceptMsg, Services},
    protocol::{BadRequest, Command, Intrusion, Moment, Refusal, Reply, Request, Series, Told},
    settings::Mediator,
    station::{Answer, Media, Order},
    stations::{StationBook, StationCommand, interception, ledger as ledger_of},
};

/// Longest line a mediator may send.
const LINE: usize = 1024;
/// Lines that may wait while a command is carried out.
const WAITING: usize = 64;
/// How long a call may take to be told of an order.
const PATIENCE: Duration = Duration::from_secs(10);

const HELP: &str = "\
command HEX        a command of order 268, whole, as hexadecimal digits
media ADDRESS PORT where the speech of channel 0 would go; channel N goes to PORT + 2 N
help               this text
quit               ends the session
Answers: `reply HEX` is a message of order 268; `ok` and `error TEXT` answer all else.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Command(Vec<u8>),
    Media(Media),
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
            Ok(Line::Media(Media { ip, first }))
        }
        Some("command") => {
            let digits: String = words.collect();
            let bytes = digits.as_bytes().chunks(2).map(|pair| {
                let text = std::str::from_utf8(pair).ok().filter(|t| t.len() == 2)?;
                u8::from_str_radix(text, 16).ok()
            });
            bytes.collect::<Option<Vec<u8>>>().map(Line::Command).ok_or("those are no hexadecimal digits")
        }
        Some(_) => Err("there is no such order; help shows all"),
    }
}

fn reply_line(reply: &Reply) -> String {
    let hex: String = reply.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("reply {hex}\n")
}

/// One connection's handler.
pub(crate) struct Peer {
    at: SocketAddr,
    services: Services,
    door: Door,
    domain: Option<(String, Mediator)>,
    channel: Option<Channel<Msg>>,
    user: watch::Sender<Option<String>>,
    alive: watch::Receiver<()>,
}

impl Peer {
    pub(crate) fn new(arrival: Arrival, services: Services, door: Door) -> Self {
        let Arrival { peer, user, alive, .. } = arrival;
        Self { at: peer, services, door, domain: None, channel: None, user, alive }
    }

    /// The session of a channel; a channel takes one.
    fn begin(&mut self, id: ChannelId) -> Option<(Desk, Channel<Msg>)> {
        let (domain, mediator) = self.domain.clone()?;
        let channel = self.channel.take().filter(|c| c.id() == id)?;
        Some((Desk { services: self.services.clone(), domain, mediator, from: self.at }, channel))
    }

    fn open(
        &mut self,
        id: ChannelId,
        line: Option<String>,
        session: &mut russh::server::Session,
    ) -> Result<(), russh::Error> {
        let Some((desk, channel)) = self.begin(id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let mut alive = self.alive.clone();
        tokio::spawn(async move {
            let (domain, mediator) = (desk.domain.clone(), desk.mediator.to_string());
            let audit = desk.services.audit.clone();
            audit.write(Entry::new(&domain, &mediator, "session opened", json!(null)));
            tokio::select! {
                _ = serve(desk, channel, line) => {}
                _ = alive.changed() => {}
            }
            audit.write(Entry::new(&domain, &mediator, "session closed", json!(null)));
        });
        Ok(())
    }
}

impl Handler for Peer {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let no = || ssh::refusal(&[MethodKind::Password]);
        let (ip, from) = (self.at.ip(), format!("ssh {}", self.at));
        let password = Secret::new(password.to_owned());
        let audit = |action| Entry::new(user, &self.at.ip().to_string(), action, json!(null));
        if self.door.password(user, password, ip, from).await.is_err() {
            self.services.audit.write(audit("log-in refused"));
            return Ok(no());
        }
        let station = self.services.stations.get(user);
        let licensed = {
            let now = self.services.node.clock().now();
            self.services.estate.picture().terms(now).sorm
        };
        let ready = station.as_ref().is_some_and(|s| s.settings.ready().is_ok()) && licensed;
        let mediator = station.and_then(|s| s.settings.mediator_at(ip)).filter(|_| ready);
        let Some(mediator) = mediator else {
            // The right password from the wrong place, or for a domain that is not ready.
            tracing::warn!(domain = user, peer = %self.at, "a mediator may not work here: its address, the licence or the settings");
            self.services
                .audit
                .write(audit("log-in refused: not this domain's mediator, or it is not ready"));
            return Ok(no());
        };
        self.services.audit.write(audit("logged in"));
        self.user.send_replace(Some(user.to_owned()));
        self.domain = Some((user.to_owned(), mediator));
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        open: russh::server::ChannelOpenHandle,
        _: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        if self.channel.is_some() {
            open.reject(russh::ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channel = Some(channel);
        open.accept().await;
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.open(id, None, session)
    }

    /// One line, its answers, the end.
    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.open(id, Some(String::from_utf8_lossy(data).into_owned()), session)
    }
}

/// What a session works with.
struct Desk {
    services: Services,
    domain: String,
    mediator: Mediator,
    from: SocketAddr,
}

async fn serve(desk: Desk, channel: Channel<Msg>, only: Option<String>) -> Result<(), russh::Error> {
    let (read, write) = channel.split();
    let (lines, mut waiting) = mpsc::channel(WAITING);
    match only {
        Some(line) => drop(lines.try_send(line)),
        None => drop(tokio::spawn(take_lines(read, lines))),
    }
    while let Some(line) = waiting.recv().await {
        match parse(&line) {
            Ok(Line::Empty) => {}
            Ok(Line::Quit) => break,
            Ok(Line::Help) => say(&write, &format!("{HELP}\n")).await?,
            Ok(Line::Media(media)) => {
                let answer = match desk.change(StationCommand::Media(desk.mediator, media)).await {
                    Ok(_) => "ok\n".to_owned(),
                    Err(why) => format!("error {why}\n"),
                };
                say(&write, &answer).await?;
            }
            Ok(Line::Command(unit)) => desk.command(&unit, &write, &mut waiting).await?,
            Err(why) => say(&write, &format!("error {why}\n")).await?,
        }
    }
    write.exit_status(0).await?;
    write.eof().await?;
    write.close().await
}

async fn say(write: &ChannelWriteHalf<Msg>, text: &str) -> Result<(), russh::Error> {
    write.data(text.as_bytes()).await
}

/// Cuts what comes into lines; one that is too long ends the session.
async fn take_lines(mut read: ChannelReadHalf, lines: mpsc::Sender<String>) {
    let mut left: Vec<u8> = Vec::new();
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => left.extend_from_slice(&data),
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => continue,
        }
        while let Some(end) = left.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let line: Vec<u8> = left.drain(..=end).collect();
            if lines.send(String::from_utf8_lossy(&line).into_owned()).await.is_err() {
                return;
            }
        }
        if left.len() > LINE {
            return;
        }
    }
    // What came without an end is a line all the same.
    let _ = lines.send(String::from_utf8_lossy(&left).into_owned()).await;
}

impl Desk {
    fn audit(&self, action: &str, details: serde_json::Value) {
        self.services.audit.write(Entry::new(&self.domain, &self.mediator.to_string(), action, details));
    }

    async fn change(&self, command: StationCommand) -> Result<Answer, String> {
        let name = ledger_of(&self.domain).ok_or("the domain has no name")?;
        let origin = Origin { who: self.mediator.to_string(), from: format!("ssh {}", self.from) };
        let changed =
            ledger::change_at::<StationBook>(&self.services.node, name.as_str(), command, origin).await;
        changed.map(|executed| executed.0).map_err(|e| e.to_string())
    }

    /// One command with both its acknowledgements, and the table between them.
    async fn command(
        &self,
        unit: &[u8],
        write: &ChannelWriteHalf<Msg>,
        waiting: &mut mpsc::Receiver<String>,
    ) -> Result<(), russh::Error> {
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
        let answer = match self.change(StationCommand::Execute(self.mediator, request)).await {
            Ok(answer) => answer,
            Err(why) => {
                tracing::error!(domain = %self.domain, error = %why, "a command of a mediator could not be kept");
                return say(write, &format!("error {why}\n")).await;
            }
        };
        let hex: String = unit.iter().map(|b| format!("{b:02x}")).collect();
        if let Some(refusal) = answer.received {
            self.audit("command", json!({ "unit": hex, "received": refusal.code() }));
            return say(write, &reply_line(&alone(Told::Received { command: code, status: refusal.code() })))
                .await;
        }
        say(write, &reply_line(&alone(Told::Received { command: code, status: 0 }))).await?;
        let mut done = answer.done;
        if let Some(order) = &answer.order {
            done = self.order(order).await.err();
        }
        if done.is_none() && !self.table(&answer.table, write, waiting).await? {
            done = Some(Refusal::Interrupted);
        }
        if let Some(intrusion) = answer.intrusion {
            say(write, &reply_line(&alone(self.intrusion(intrusion)))).await?;
        }
        let status = done.map_or(0, Refusal::code);
        self.audit("command", json!({ "unit": hex, "received": 0, "done": status }));
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

    /// Tells whoever sees the calls.
    async fn order(&self, order: &Order) -> Result<(), Refusal> {
        let name = interception(&self.domain, self.mediator).ok_or(Refusal::NotStarted)?;
        let to =
            self.services.node.registry().lookup::<InterceptMsg>(&name).map_err(|_| Refusal::NotStarted)?;
        let told = to.ask_for(PATIENCE, |reply| InterceptMsg::Order(order.clone(), reply)).await;
        told.unwrap_or(Err(Refusal::Busy))
    }

    /// Sends a table; `false` where it was interrupted. Other commands have to wait for its end.
    async fn table(
        &self,
        table: &[Told],
        write: &ChannelWriteHalf<Msg>,
        waiting: &mut mpsc::Receiver<String>,
    ) -> Result<bool, russh::Error> {
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
        let media = Media { ip: [127, 0, 0, 1].into(), first: 20_000 };
        assert_eq!(parse("media 127.0.0.1 20000"), Ok(Line::Media(media)));
        assert_eq!(
            (parse(""), parse("quit"), parse("help")),
            (Ok(Line::Empty), Ok(Line::Quit), Ok(Line::Help))
        );
        for wrong in ["command c", "command xx", "media", "media 127.0.0.1", "media 127.0.0.1 65535", "start"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
