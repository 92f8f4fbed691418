//! One SSH connection: log-in, then a shell or single commands.

use std::net::SocketAddr;

use access::ssh::{self, Arrival};
use command::{Caller, Outcome, Session};
use kit::{Clock, Secret};
use russh::{
    Channel, ChannelId, ChannelMsg, MethodKind,
    server::{Auth, Handler, Msg},
};
use tokio::sync::watch;

use crate::{
    shell::{Next, Shell},
    tree::Front,
};

/// Most a command may be given on its standard input, bytes.
const INPUT_LIMIT: usize = 64 * 1024 * 1024;

/// A client that sets this variable to `whole` (RFC 4254, 6.4) gets each command's answer as one JSON object with its
/// `text` and its `data`; replays do.
pub const WHOLE: &str = "HYPHA_ANSWER";

/// One connection's handler.
pub(crate) struct Peer {
    at: SocketAddr,
    front: Front,
    clock: Clock,
    caller: Option<Caller>,
    channel: Option<Channel<Msg>>,
    user: watch::Sender<Option<String>>,
    alive: watch::Receiver<()>,
    /// Height of the terminal.
    rows: watch::Sender<usize>,
    /// Whether commands answer with text and data at once, see [`WHOLE`].
    whole: bool,
}

impl Peer {
    pub(crate) fn new(arrival: Arrival, front: Front) -> Self {
        Self {
            at: arrival.peer,
            front,
            clock: *arrival.node.clock(),
            caller: None,
            channel: None,
            user: arrival.user,
            alive: arrival.alive,
            rows: watch::channel(0).0,
            whole: false,
        }
    }

    fn resized(&self, rows: u32) {
        self.rows.send_replace(usize::try_from(rows).unwrap_or_default().min(1000));
    }

    fn from(&self) -> String {
        format!("ssh {}", self.at)
    }

    fn accept(&mut self, caller: Caller) -> Auth {
        tracing::info!(user = %caller.name, peer = %self.at, "logged in");
        self.user.send_replace(Some(caller.name.clone()));
        self.caller = Some(caller);
        Auth::Accept
    }

    /// The session and channel of a request; a channel takes one.
    fn begin(&mut self, id: ChannelId) -> Option<(Session, Channel<Msg>)> {
        let caller = self.front.door.anew(self.caller.as_ref()?)?;
        let channel = self.channel.take().filter(|c| c.id() == id)?;
        let session = Session::new(self.front.tree.clone(), self.front.info.clone(), self.clock, caller);
        Some((session, channel))
    }
}

/// Ways to log in.
pub(crate) const METHODS: &[MethodKind] = &[MethodKind::PublicKey, MethodKind::Password];

fn refusal() -> Auth {
    ssh::refusal(METHODS)
}

/// OpenSSH form without comment.
fn plain(key: &russh::keys::PublicKey) -> String {
    let text = key.to_openssh().unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

impl Handler for Peer {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let password = Secret::new(password.to_owned());
        match self.front.door.password(user, password, self.at.ip(), self.from()).await {
            Ok(caller) => Ok(self.accept(caller)),
            Err(_) => Ok(refusal()),
        }
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.front.door.key(user, &plain(offer.public_key), self.at.ip(), self.from());
        Ok(known.map_or_else(|_| refusal(), |_| Auth::Accept))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        match self.front.door.key(user, &plain(key.public_key), self.at.ip(), self.from()) {
            Ok(caller) => Ok(self.accept(caller)),
            Err(_) => Ok(refusal()),
        }
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

    #[allow(clippy::too_many_arguments, reason = "the trait's")]
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.resized(rows);
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        _channel: ChannelId,
        _columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.resized(rows);
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        match self.begin(id) {
            Some((session_of, channel)) => {
                session.channel_success(id)?;
                let shell = Shell::new(session_of, self.front.door.clone(), self.front.histories.clone());
                let (mut alive, rows) = (self.alive.clone(), self.rows.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = run_shell(shell, channel, rows) => {}
                        _ = alive.changed() => {}
                    }
                });
            }
            None => session.channel_failure(id)?,
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        if name == WHOLE {
            self.whole = value == "whole";
            return session.channel_success(channel);
        }
        session.channel_failure(channel)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8_lossy(data).into_owned();
        match self.begin(id) {
            Some((shell, channel)) => {
                session.channel_success(id)?;
                tokio::spawn(run_command(shell, channel, line, self.whole));
            }
            None => session.channel_failure(id)?,
        }
        Ok(())
    }
}

/// `ssh … 'domain/list'`: one line, its text, its status.
async fn run_command(
    mut session: Session,
    mut channel: Channel<Msg>,
    line: String,
    whole: bool,
) -> Result<(), russh::Error> {
    let wants_input = line.split_whitespace().any(|w| w == "-");
    let input = if wants_input {
        match read_input(&mut channel).await {
            Some(input) => Some(input),
            None => {
                let text = format!("Command error: the input is larger than {INPUT_LIMIT} bytes\n");
                channel.extended_data(1, text.as_bytes()).await?;
                channel.exit_status(2).await?;
                return channel.close().await;
            }
        }
    } else {
        None
    };
    let (answer, outcome) = session.execute_alone(&line, input).await;
    let status = match outcome {
        outcome if whole => {
            let (text, status) = match outcome {
                Outcome::Said { text, status } => (text, status),
                _ => (String::new(), 0),
            };
            let all = serde_json::json!({ "text": text, "data": answer.ok().map(|a| a.to_json()) });
            channel.data(all.to_string().as_bytes()).await?;
            status
        }
        Outcome::Said { text, status: 0 } => {
            channel.data(text.as_bytes()).await?;
            0
        }
        Outcome::Said { text, status } => {
            channel.extended_data(1, text.as_bytes()).await?;
            status
        }
        _ => 0,
    };
    channel.exit_status(status).await?;
    channel.eof().await?;
    channel.close().await
}

async fn read_input(channel: &mut Channel<Msg>) -> Option<Vec<u8>> {
    let mut input = Vec::new();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => input.extend_from_slice(&data),
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
        if input.len() > INPUT_LIMIT {
            return None;
        }
    }
    Some(input)
}

/// The interactive shell, until its end.
async fn run_shell(
    mut shell: Shell,
    mut channel: Channel<Msg>,
    rows: watch::Receiver<usize>,
) -> Result<(), russh::Error> {
    channel.data(shell.greeting().as_bytes()).await?;
    while let Some(message) = channel.wait().await {
        let data = match message {
            ChannelMsg::Data { data } => data,
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => continue,
        };
        shell.rows = *rows.borrow();
        let (mut left, mut show, mut on) = (&data[..], String::new(), true);
        while on {
            match shell.bytes(&mut left, &mut show) {
                Next::On => break,
                Next::Line(line) => {
                    channel.data(std::mem::take(&mut show).as_bytes()).await?;
                    on = shell.line(line, &mut show).await;
                }
                Next::End => on = false,
            }
        }
        channel.data(show.as_bytes()).await?;
        if !on {
            channel.exit_status(0).await?;
            return channel.close().await;
        }
    }
    Ok(())
}
