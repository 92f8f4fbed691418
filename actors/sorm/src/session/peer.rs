//! A mediator's connection over SSH: who may come in, and lines out of bytes.

use std::net::SocketAddr;

use access::{
    Door, DoorError,
    ssh::{self, Arrival},
};
use kit::Secret;
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, MethodKind,
    server::{Auth, Handler, Msg},
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Desk, WAITING, Works};
use crate::{
    audit::Entry,
    intercept::{InterceptMsg, Services},
    stations::interception,
};

/// Longest line a mediator may send.
const LINE: usize = 1024;
/// Lines that may wait: a control point sends one command after another, so there are few.
const LINES: usize = 4096;

/// One connection's handler.
pub(crate) struct Peer {
    at: SocketAddr,
    services: Services,
    door: Door,
    /// Whether log-ins are of several domains.
    multi: bool,
    works: Option<Works>,
    channel: Option<Channel<Msg>>,
    user: watch::Sender<Option<String>>,
    asks: watch::Sender<bool>,
    alive: watch::Receiver<()>,
}

impl Peer {
    pub(crate) fn new(arrival: Arrival, services: Services, door: Door, multi: bool) -> Self {
        let Arrival { peer, user, asks, alive, .. } = arrival;
        Self { at: peer, services, door, multi, works: None, channel: None, user, asks, alive }
    }

    /// What a log-in stands for, where all of it is ready for this peer.
    fn works(&self, user: &str) -> Result<Works, String> {
        let now = self.services.node.clock().now();
        if !self.services.estate.picture().terms(now).sorm {
            return Err("the licence does not grant interception".into());
        }
        let ip = self.at.ip();
        if self.multi {
            let works = Works::Several { user: user.to_owned(), ip };
            return works.targets(&self.services).map(|_| works);
        }
        let station = self.services.stations.get(user).ok_or("there is no such domain")?;
        station.settings.ready()?;
        let mediator = station.settings.mediator_at(ip);
        let mediator = mediator.ok_or("radius_servers does not hold the mediator's address")?;
        Ok(Works::One { domain: user.to_owned(), mediator })
    }

    /// Tells every mediator of the domain that somebody tried to get in.
    fn tell_intrusion(&self, domain: &str) {
        let station = self.services.stations.get(domain).filter(|s| s.settings.enabled);
        for mediator in station.iter().flat_map(|s| s.settings.radius_servers.keys()) {
            let name = interception(domain, *mediator);
            let to = name.and_then(|n| self.services.node.registry().lookup::<InterceptMsg>(&n).ok());
            if to.is_some_and(|to| to.tell(InterceptMsg::Intrusion(self.at.ip())).is_err()) {
                tracing::error!(%domain, "an intrusion could not be told");
            }
        }
    }

    /// The session of a channel; a channel takes one.
    fn begin(&mut self, id: ChannelId) -> Option<(Desk, Channel<Msg>)> {
        let works = self.works.clone()?;
        let channel = self.channel.take().filter(|c| c.id() == id)?;
        Some((Desk { services: self.services.clone(), works, from: self.at }, channel))
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
            let (domain, mediator) = (desk.works.name().to_owned(), desk.from.ip().to_string());
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

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.asks.send_replace(true);
        Ok(None)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let no = || ssh::refusal(&[MethodKind::Password]);
        let (ip, from) = (self.at.ip(), format!("ssh {}", self.at));
        let password = Secret::new(password.to_owned());
        let audit = |action| Entry::new(user, &self.at.ip().to_string(), action, json!(null));
        if let Err(e) = self.door.password(user, password, ip, from).await {
            self.services.audit.write(audit("log-in refused"));
            // Whoever has to wait is told of once, not at each try.
            if e == DoorError::Refused {
                self.tell_intrusion(user);
            }
            return Ok(no());
        }
        let works = match self.works(user) {
            Ok(works) => works,
            // The right password from the wrong place, or for what is not ready.
            Err(why) => {
                tracing::warn!(user, peer = %self.at, why, "a mediator may not log in");
                self.services.audit.write(audit(&format!("log-in refused: {why}")));
                return Ok(no());
            }
        };
        self.services.audit.write(audit("logged in"));
        self.user.send_replace(Some(user.to_owned()));
        self.works = Some(works);
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

    /// None is offered; a client that asks for one must not wait for ever.
    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
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

async fn serve(desk: Desk, channel: Channel<Msg>, only: Option<String>) -> Result<(), russh::Error> {
    let (read, write) = channel.split();
    let (lines, waiting) = mpsc::channel(LINES);
    let (flooded, mut floods) = oneshot::channel();
    match only {
        Some(line) => drop(lines.try_send(line)),
        None => drop(tokio::spawn(async move {
            // The session goes on until this has been said.
            let _lines = lines.clone();
            if let Err(flood) = take_lines(read, lines).await {
                let _ = flooded.send(flood);
            }
        })),
    }
    let (out, mut said) = mpsc::channel::<String>(WAITING);
    let carried = async {
        while let Some(text) = said.recv().await {
            write.data(text.as_bytes()).await?;
        }
        Ok::<(), russh::Error>(())
    };
    let (_, carried) = tokio::join!(desk.run(waiting, out), carried);
    carried?;
    if let Ok(flood) = floods.try_recv() {
        tracing::warn!(%flood, "a mediator's session was ended");
        write.data(format!("error {flood}\n").as_bytes()).await?;
    }
    write.exit_status(0).await?;
    write.eof().await?;
    write.close().await
}

/// More than a session takes.
#[derive(Debug, thiserror::Error)]
enum Flood {
    #[error("a line is longer than {LINE} bytes; the session ends")]
    Line,
    #[error("more than {LINES} commands wait; the session ends")]
    Lines,
}

/// Cuts what comes into lines. It never waits: the connection would stand still with it, and with that the answers that are
/// waited for.
async fn take_lines(mut read: ChannelReadHalf, lines: mpsc::Sender<String>) -> Result<(), Flood> {
    let give = |line: &[u8]| match lines.try_send(String::from_utf8_lossy(line).into_owned()) {
        Err(mpsc::error::TrySendError::Full(_)) => Err(Flood::Lines),
        // Whoever took them has ended.
        _ => Ok(()),
    };
    let mut left: Vec<u8> = Vec::new();
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => left.extend_from_slice(&data),
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => continue,
        }
        while let Some(end) = left.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            give(&left[..end])?;
            left.drain(..=end);
        }
        if left.len() > LINE {
            return Err(Flood::Line);
        }
    }
    // What came without an end is a line all the same.
    give(&left)
}
