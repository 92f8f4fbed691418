//! The session at the station: an SSH client that tries the main and the reserve address in turn.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use kit::{Mailbox, journal::Origin, ledger};
use russh::{
    ChannelMsg, client,
    keys::{HashAlg, PublicKeyOrCertificate},
};
use serde_json::json;
use sorm::audit::Entry;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    actor::{DeskMsg, desk},
    book::{self, SettingsBook, SettingsCommand},
    outbox::Unit,
    services::Services,
    settings::Property,
};

pub const NAME: &str = "mediator/station";
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line of the station.
const LINE: usize = 64 * 1024;
const WAITING: usize = 64;

/// Checks the station's key against the one it had first.
struct Known {
    expected: Option<String>,
    found: Arc<parking_lot::Mutex<Option<String>>>,
}

impl client::Handler for Known {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256),
            PublicKeyOrCertificate::Certificate(_) => return Ok(false),
        };
        let found = key.to_string();
        let good = self.expected.as_ref().is_none_or(|e| *e == found);
        *self.found.lock() = Some(found);
        Ok(good)
    }
}

/// The desk has a station for as long as this lives.
struct Session(Mailbox<DeskMsg>, mpsc::WeakSender<Vec<u8>>);

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(session) = self.1.upgrade() {
            let _ = self.0.tell(DeskMsg::StationGone(session));
        }
    }
}

/// Holds a session until it ends; the next call tries the other address.
pub async fn serve(services: Services, turn: Arc<AtomicUsize>) -> Result<(), String> {
    let settings = services.settings.load_full();
    let all: Vec<_> = [settings.server, settings.reserve_server].into_iter().flatten().collect();
    let (Some(sealed), false, false) = (&settings.password, all.is_empty(), settings.user.is_empty()) else {
        services.board.say(NAME, "it wants server, user and password");
        return std::future::pending().await;
    };
    let password = services.vault.open(&Property::Password.to_string(), sealed).map_err(|e| e.to_string())?;
    let at = SocketAddr::new(all[turn.fetch_add(1, Relaxed) % all.len()], settings.ssh_port);
    services.board.say(NAME, format!("connecting to {at}"));
    let config = client::Config {
        keepalive_interval: Some(Duration::from_secs(10)),
        keepalive_max: 3,
        preferred: access::ssh::preferred(),
        ..client::Config::default()
    };
    let found = Arc::default();
    let known = Known { expected: settings.host_keys.get(&at).cloned(), found: Arc::clone(&found) };
    let connected = timeout(PATIENCE, client::connect(Arc::new(config), at, known)).await;
    let key = found.lock().take();
    let mut handle = match connected {
        Ok(Ok(handle)) => handle,
        Ok(Err(_)) if key.is_some() && settings.host_keys.get(&at) != key.as_ref() => {
            let why =
                format!("{at} shows another key than before; mediator/ssh/forget-keys takes the new one");
            services.audit.write(Entry::new(
                &settings.user,
                "system",
                "the station's key differs",
                json!(null),
            ));
            return Err(why);
        }
        Ok(Err(e)) => return Err(format!("{at}: {e}")),
        Err(_) => return Err(format!("{at} does not answer")),
    };
    let logged_in =
        timeout(PATIENCE, handle.authenticate_password(&settings.user, password.expose().as_str()));
    match logged_in.await {
        Ok(Ok(client::AuthResult::Success)) => {}
        Ok(Ok(_)) => return Err(format!("{at} refuses the user or the password")),
        Ok(Err(e)) => return Err(format!("{at}: {e}")),
        Err(_) => return Err(format!("{at} does not answer")),
    }
    if let Some(key) = key.filter(|_| !settings.host_keys.contains_key(&at)) {
        let command = SettingsCommand::HostKey(at, key);
        let kept =
            ledger::change_at::<SettingsBook>(&services.node, book::NAME, command, Origin::system()).await;
        kept.map_err(|e| format!("the station's key cannot be kept: {e}"))?;
    }
    let text = |e: russh::Error| format!("{at}: {e}");
    let mut channel = handle.channel_open_session().await.map_err(text)?;
    channel.request_shell(false).await.map_err(text)?;
    let media = format!("media {} {} {}\n", settings.rtp_address, settings.rtp_port, settings.mixed());
    channel.data(media.as_bytes()).await.map_err(text)?;
    let desk = desk(&services)?;
    let (commands, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
    let gone = |_| "the desk is gone".to_owned();
    let _session = Session(desk.clone(), commands.downgrade());
    desk.send(DeskMsg::Station(commands)).await.map_err(gone)?;
    services.board.say(NAME, format!("logged in at {at}"));
    services.audit.write(Entry::new(
        &settings.user,
        "system",
        "logged in at the station",
        json!({ "at": at }),
    ));
    let mut held: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            command = waiting.recv() => {
                // A desk that has given the session up, or is gone, ends it; another one follows.
                let Some(command) = command else { return Ok(()) };
                let line = format!("command {}\n", hex::encode(command));
                channel.data(line.as_bytes()).await.map_err(text)?;
            }
            message = channel.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    held.extend_from_slice(&data);
                    while let Some(end) = held.iter().position(|b| *b == b'\n') {
                        let line: Vec<u8> = held.drain(..=end).collect();
                        hear(&String::from_utf8_lossy(&line), &desk).await?;
                    }
                    if held.len() > LINE {
                        return Err(format!("{at} sends a line without end"));
                    }
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Err(format!("{at} has ended the session")),
                Some(_) => {}
            }
        }
    }
}

async fn hear(line: &str, desk: &Mailbox<DeskMsg>) -> Result<(), String> {
    match line.trim().split_once(' ') {
        Some(("reply", digits)) => match hex::decode(digits) {
            Ok(unit) => {
                desk.send(DeskMsg::Reply(Unit(unit))).await.map_err(|_| "the desk is gone".to_owned())?
            }
            Err(_) => tracing::error!("the station's answer is no message"),
        },
        Some(("error", why)) => tracing::error!(why, "the station refuses"),
        _ => {}
    }
    Ok(())
}
