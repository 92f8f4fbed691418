//! One SSH connection: log-in, then a shell or single commands.

use std::{net::SocketAddr, sync::Arc};

use command::{Caller, Outcome, Session};
use kit::{Actor, Clock, Cx, ExitReason, Node, Secret};
use russh::{
    Channel, ChannelId, ChannelMsg, MethodKind, MethodSet,
    server::{Auth, Config, Handler, Msg},
};
use strum::IntoStaticStr;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
};

use crate::{
    editor::{Editor, Key},
    tree::Front,
};

/// Most a command may be given on its standard input, bytes.
const INPUT_LIMIT: usize = 64 * 1024 * 1024;

/// The actor of a connection. It ends with the connection, and the connection with it.
pub(crate) struct Connection {
    stream: Option<TcpStream>,
    peer: SocketAddr,
    front: Front,
    config: Arc<Config>,
    clock: Clock,
    user: watch::Receiver<Option<String>>,
    told: watch::Sender<Option<String>>,
    /// Its place among the connections; given back with the actor.
    _place: OwnedSemaphorePermit,
    /// Dropped with the actor: the connection's tasks end then.
    alive: watch::Sender<()>,
}

#[derive(Debug, IntoStaticStr)]
pub(crate) enum ConnectionMsg {}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
        front: Front,
        config: Arc<Config>,
        node: &Node,
    ) -> Self {
        let (told, user) = watch::channel(None);
        let alive = watch::channel(()).0;
        let clock = *node.clock();
        Self { stream: Some(stream), peer, front, config, clock, user, told, _place: place, alive }
    }
}

impl Actor for Connection {
    type Msg = ConnectionMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some(stream) = self.stream.take() else { return Err(ExitReason::Normal) };
        let peer = Peer {
            at: self.peer,
            front: self.front.clone(),
            clock: self.clock,
            caller: None,
            channel: None,
            user: self.told.clone(),
            alive: self.alive.subscribe(),
        };
        let config = self.config.clone();
        let mut alive = self.alive.subscribe();
        let served = async move {
            let session = russh::server::run_stream(config, stream, peer).await?;
            let handle = session.handle();
            tokio::select! {
                ended = session => ended,
                _ = alive.changed() => {
                    let _ = handle.disconnect(russh::Disconnect::ByApplication, "stopped".into(), "en".into()).await;
                    Ok(())
                }
            }
        };
        cx.spawn(served, |_, served, _| {
            if let Err(e) = served {
                tracing::debug!(error = %e, "SSH connection ended");
            }
            Err(ExitReason::Normal)
        });
        Ok(())
    }

    fn handle(&mut self, msg: ConnectionMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "peer": self.peer, "user": *self.user.borrow() })
    }
}

/// The protocol's side.
struct Peer {
    at: SocketAddr,
    front: Front,
    clock: Clock,
    caller: Option<Caller>,
    channel: Option<Channel<Msg>>,
    user: watch::Sender<Option<String>>,
    alive: watch::Receiver<()>,
}

impl Peer {
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
        let caller = self.caller.clone()?;
        let channel = self.channel.take().filter(|c| c.id() == id)?;
        let session = Session::new(self.front.tree.clone(), self.front.info.clone(), self.clock, caller);
        Some((session, channel))
    }
}

fn refusal() -> Auth {
    let methods = MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]);
    Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
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
        key: &russh::keys::PublicKey,
    ) -> Result<Auth, Self::Error> {
        let known = self.front.door.key(user, &plain(key), self.at.ip(), self.from());
        Ok(known.map_or_else(|_| refusal(), |_| Auth::Accept))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: &russh::keys::PublicKey,
    ) -> Result<Auth, Self::Error> {
        match self.front.door.key(user, &plain(key), self.at.ip(), self.from()) {
            Ok(caller) => Ok(self.accept(caller)),
            Err(_) => Ok(refusal()),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        _: &mut russh::server::Session,
    ) -> Result<bool, Self::Error> {
        if self.channel.is_some() {
            return Ok(false);
        }
        self.channel = Some(channel);
        Ok(true)
    }

    #[allow(clippy::too_many_arguments, reason = "the trait's")]
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        match self.begin(id) {
            Some((shell, channel)) => {
                session.channel_success(id)?;
                let mut alive = self.alive.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = run_shell(shell, channel) => {}
                        _ = alive.changed() => {}
                    }
                });
            }
            None => session.channel_failure(id)?,
        }
        Ok(())
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
                tokio::spawn(run_command(shell, channel, line));
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
    let status = match session.execute_alone(&line, input).await.1 {
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

/// The interactive shell.
async fn run_shell(mut session: Session, mut channel: Channel<Msg>) -> Result<(), russh::Error> {
    let mut editor = Editor::default();
    let mut asked: Option<String> = None;
    let greeting = format!("Hypha CoCon. `help` lists the commands, Tab completes.\r\n{}", session.prompt());
    channel.data(greeting.as_bytes()).await?;
    while let Some(message) = channel.wait().await {
        let data = match message {
            ChannelMsg::Data { data } => data,
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => continue,
        };
        let mut show = String::new();
        for byte in data.iter() {
            let Some(key) = editor.byte(*byte, &mut show) else { continue };
            match key {
                Key::Tab(before) if asked.is_none() => complete(&session, &mut editor, &before, &mut show),
                Key::Tab(_) => {}
                Key::Abandon => {
                    asked = None;
                    show.push_str(&session.prompt());
                }
                Key::End => {
                    show.push_str("\r\n");
                    channel.data(show.as_bytes()).await?;
                    channel.exit_status(0).await?;
                    return channel.close().await;
                }
                Key::Line(line) => {
                    channel.data(std::mem::take(&mut show).as_bytes()).await?;
                    let outcome = match asked.take() {
                        Some(command) if matches!(line.trim(), "yes" | "y") => {
                            session.execute_confirmed(&command, None).await
                        }
                        Some(_) => Outcome::Said { text: "Nothing was done.\n".into(), status: 0 },
                        None => {
                            if !session.holds_secret(&line) {
                                editor.remember(&line);
                            }
                            let outcome = session.execute(&line, None).await;
                            if matches!(outcome, Outcome::Asks { .. }) {
                                asked = Some(line);
                            }
                            outcome
                        }
                    };
                    match outcome {
                        Outcome::Quiet => {}
                        Outcome::Said { text, .. } => show.push_str(&text.replace('\n', "\r\n")),
                        Outcome::Asks { question } => {
                            show.push_str(&format!("{question}\r\nAre you sure?: yes/no ?> "));
                        }
                        Outcome::Exit => {
                            channel.exit_status(0).await?;
                            return channel.close().await;
                        }
                    }
                    if asked.is_none() {
                        show.push_str(&session.prompt());
                    }
                }
            }
        }
        channel.data(show.as_bytes()).await?;
    }
    Ok(())
}

fn complete(session: &Session, editor: &mut Editor, before: &str, show: &mut String) {
    let completion = session.complete(before);
    let common = completion.common().to_owned();
    if common.len() > before.len() - completion.start {
        editor.replace(completion.start, &common, show);
        return;
    }
    if completion.candidates.len() > 1 {
        show.push_str("\r\n");
        for c in &completion.candidates {
            show.push_str(&format!("  {:<32} {}\r\n", c.text.trim_end(), c.help));
        }
        show.push_str(&session.prompt());
        editor.redraw(show);
    }
}
