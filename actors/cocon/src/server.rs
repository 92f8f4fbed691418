//! One SSH connection: log-in, then a shell or single commands.

use std::{net::SocketAddr, sync::Arc};

use access::{
    Entry,
    ssh::{self, Arrival},
};
use bytes::BytesMut;
use command::{Caller, Outcome, Session};
use kit::{Clock, Secret};
use russh::{
    Channel, ChannelId, MethodKind,
    server::{Auth, Handler, Msg},
};
use tokio::sync::watch;

use crate::{
    pager::Size,
    pipe::{self, Over, Pipe},
    shell::{Next, Shell, Standing},
    tree::Front,
};

/// Most a command may be given on its standard input, bytes.
const INPUT_LIMIT: usize = pipe::LIMIT;

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
    /// Ends the connection.
    end: Arc<dyn Fn() + Send + Sync>,
    visit: Option<Entry>,
    asks: watch::Sender<bool>,
    /// The words for a person that has to wait.
    banner: Option<String>,
    /// There is a terminal at the other end.
    terminal: bool,
    alive: watch::Receiver<()>,
    /// The terminal's size.
    size: watch::Sender<Size>,
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
            end: arrival.end,
            visit: None,
            asks: arrival.asks,
            banner: None,
            terminal: false,
            alive: arrival.alive,
            size: watch::channel(Size::default()).0,
            whole: false,
        }
    }

    fn resized(&self, columns: u32, rows: u32) {
        let bounded = |n: u32| usize::try_from(n).unwrap_or_default().min(1000);
        self.size.send_replace(Size { rows: bounded(rows), columns: bounded(columns) });
    }

    fn from(&self) -> String {
        format!("ssh {}", self.at)
    }

    fn accept(&mut self, caller: Caller) -> Auth {
        let end = self.end.clone();
        let (visits, now) = (self.front.door.visits().clone(), self.clock.now());
        self.visit = Some(visits.enter(&caller.name, &caller.from, now, move || end()));
        self.user.send_replace(Some(caller.name.clone()));
        self.caller = Some(caller);
        Auth::Accept
    }

    fn line(&self, session: Session, channel: Channel<Msg>) -> Line {
        let standing = Standing::new(self.front.door.clone(), &session);
        Line { session, standing, pipe: Pipe::new(channel, self.alive.clone()) }
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

/// Whether a signature is RSA's with SHA-1, which is not taken (RFC 8332).
fn by_sha1(algorithm: &russh::keys::Algorithm) -> bool {
    matches!(algorithm, russh::keys::Algorithm::Rsa { hash: None })
}

/// OpenSSH form without comment.
fn plain(key: &russh::keys::PublicKey) -> String {
    let text = key.to_openssh().unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

impl Handler for Peer {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.asks.send_replace(true);
        Ok(self.banner.take())
    }

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
        let known = self.front.door.key(user, &plain(offer.public_key), self.from());
        let signed = known.ok().filter(|_| !by_sha1(offer.algorithm));
        Ok(signed.map_or_else(refusal, |_| Auth::Accept))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        match self.front.door.key(user, &plain(key.public_key), self.from()) {
            Ok(caller) if !by_sha1(key.algorithm) => Ok(self.accept(caller)),
            _ => Ok(refusal()),
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
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.resized(columns, rows);
        self.terminal = true;
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        _channel: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        self.resized(columns, rows);
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
                if !self.terminal {
                    tokio::spawn(run_script(self.line(session_of, channel)));
                    return Ok(());
                }
                let shell = Shell::new(session_of, self.front.door.clone(), self.front.histories.clone());
                tokio::spawn(run_shell(shell, Pipe::new(channel, self.alive.clone()), self.size.subscribe()));
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

    /// There are no files here; a client that asks for some (sftp, scp) is told so instead of waiting.
    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        // A refusal would be said in the client's own words.
        session.channel_success(id)?;
        session.extended_data(id, 1, format!("{NO_FILES}\n"))?;
        session.exit_status_request(id, 2)?;
        session.close(id)?;
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
                tokio::spawn(run_command(self.line(shell, channel), line, self.whole, self.terminal));
            }
            None => session.channel_failure(id)?,
        }
        Ok(())
    }
}

/// The answer to a client that wants to copy files.
const NO_FILES: &str = "hypha: no files are copied over this shell; commands that read or write one take it on standard input and give it \
                        on standard output (help)";

/// An operator's session, its standing and its channel.
struct Line {
    session: Session,
    standing: Standing,
    pipe: Pipe,
}

impl Line {
    /// Says an answer where its kind belongs; its status.
    async fn say(&mut self, text: &str, status: u32) -> Result<u32, Over> {
        match status {
            0 => self.pipe.write(text.as_bytes()).await?,
            _ => self.pipe.complain(text.as_bytes()).await?,
        }
        Ok(status)
    }
}

/// `ssh … 'domain/list'`: one line, its text, its status.
async fn run_command(mut of: Line, line: String, whole: bool, terminal: bool) -> Result<(), Over> {
    let program = line.split_whitespace().next().unwrap_or_default();
    if matches!(program, "scp" | "rsync" | "sftp-server") {
        // `scp -O` and others run their own program at the far end.
        of.pipe.complain(format!("{NO_FILES}\n").as_bytes()).await?;
        return of.pipe.finish(2).await;
    }
    // A terminal wants carriage returns (RFC 4254, 6.2: it is in raw mode).
    let shown = |text: String| if terminal { text.replace('\n', "\r\n") } else { text };
    let wants_input = line.split_whitespace().any(|w| w == "-");
    let mut input = wants_input.then(Vec::new);
    if let Some(input) = &mut input {
        while let Some(data) = of.pipe.read().await {
            input.extend_from_slice(&data);
            if input.len() > INPUT_LIMIT {
                break;
            }
        }
        if input.len() > INPUT_LIMIT || of.pipe.flooded() {
            let text = format!("Command error: the input is larger than {INPUT_LIMIT} bytes\n");
            of.pipe.complain(text.as_bytes()).await?;
            return of.pipe.finish(2).await;
        }
        // It may have taken its time.
        if let Err(gone) = of.standing.check(&mut of.session) {
            of.pipe.complain(format!("{gone}\n").as_bytes()).await?;
            return of.pipe.finish(3).await;
        }
    }
    let (answer, outcome) = of.session.execute_alone(&line, input).await;
    let status = match outcome {
        outcome if whole => {
            let (text, status) = match outcome {
                Outcome::Said { text, status } => (text, status),
                _ => (String::new(), 0),
            };
            let all = serde_json::json!({ "text": text, "data": answer.ok().map(|a| a.to_json()) });
            of.pipe.write(all.to_string().as_bytes()).await?;
            status
        }
        Outcome::Said { text, status } => of.say(&shown(text), status).await?,
        _ => 0,
    };
    of.pipe.finish(status).await
}

/// Longest line of a script, bytes.
const LINE_LIMIT: usize = 64 * 1024;

/// `ssh -T … < script`: lines without a terminal. There is no prompt, echo or pager; the status is that of the last command.
async fn run_script(mut of: Line) -> Result<(), Over> {
    let (mut waiting, mut status, mut over) = (BytesMut::new(), 0, false);
    while !over {
        match of.pipe.read().await {
            Some(data) => waiting.extend_from_slice(&data),
            None => over = true,
        }
        if over && !waiting.is_empty() && !waiting.ends_with(b"\n") {
            waiting.extend_from_slice(b"\n");
        }
        while let Some(end) = waiting.iter().position(|b| *b == b'\n') {
            let line = waiting.split_to(end + 1);
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            // Empty lines and comments pass.
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(gone) = of.standing.check(&mut of.session) {
                of.pipe.complain(format!("{gone}\n").as_bytes()).await?;
                return of.pipe.finish(3).await;
            }
            let outcome = of.session.execute_alone(&line, None).await.1;
            of.standing.renew(&line, &of.session);
            match outcome {
                Outcome::Said { text, status: said } => status = of.say(&text, said).await?,
                Outcome::Exit => {
                    over = true;
                    break;
                }
                _ => status = 0,
            }
        }
        if waiting.len() > LINE_LIMIT || of.pipe.flooded() {
            let text = match of.pipe.flooded() {
                true => format!("more than {INPUT_LIMIT} bytes came before they were run\n"),
                false => format!("line longer than {LINE_LIMIT} bytes\n"),
            };
            of.pipe.complain(text.as_bytes()).await?;
            (status, over) = (2, true);
        }
    }
    of.pipe.finish(status).await
}

/// The interactive shell, until its end.
async fn run_shell(mut shell: Shell, mut pipe: Pipe, size: watch::Receiver<Size>) -> Result<(), Over> {
    shell.resized(*size.borrow());
    pipe.write(shell.greeting().as_bytes()).await?;
    while let Some(data) = pipe.read().await {
        shell.resized(*size.borrow());
        let (mut left, mut show, mut on) = (&data[..], String::new(), true);
        while on {
            match shell.bytes(&mut left, &mut show) {
                Next::On => break,
                Next::Line(line) => {
                    pipe.write(std::mem::take(&mut show).as_bytes()).await?;
                    on = shell.line(line, !left.is_empty(), &mut show).await;
                }
                Next::End => on = false,
            }
        }
        pipe.write(show.as_bytes()).await?;
        if !on {
            return pipe.finish(0).await;
        }
    }
    Ok(())
}
