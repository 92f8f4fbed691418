//! What control points of a script say and are told, in words; and mediators on loopback that carry it to a running node.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use kit::Secret;
use parking_lot::Mutex;
use russh::{
    ChannelMsg,
    client::{self, AuthResult},
};
use sorm::{
    intercept::radius::{self, Received},
    protocol::{Event, Password, Reply, Request},
    settings::Mediator,
};
use tokio::{
    net::{TcpSocket, UdpSocket},
    time::{Instant, sleep, timeout},
};

use super::{
    attach::Client,
    script::{Point, Step},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing has to come, where nothing shall.
const QUIET: Duration = Duration::from_secs(1);

/// Lines for a mediator's session: commands in words, several with `;` between them; `raw` and hexadecimal digits are one as
/// it is, `media` is the session's own.
pub fn lines(said: &str, sorm: u8) -> Result<Vec<String>, String> {
    let line = |said: &str| match said.split_once(' ') {
        Some(("media", _)) => Ok(said.to_owned()),
        Some(("raw", digits)) => Ok(format!("command {digits}")),
        _ => {
            let request = Request { sorm, password: Password::FIRST, command: sorm::point::parse(said)? };
            Ok(format!("command {}", hex::encode(request.to_bytes())))
        }
    };
    said.split(';').map(|one| line(one.trim())).collect()
}

/// A line of the station's in words.
pub fn answer(line: &str) -> String {
    let unit = line.trim().strip_prefix("reply ").and_then(|h| hex::decode(h).ok());
    let reply = unit.and_then(|u| Reply::read(&u).ok());
    reply.map_or(format!("{}\n", line.trim_end()), |r| format!("{}\n", sorm::point::told(&r.told)))
}

/// Notifications in words; of one domain, where the step names it.
pub fn told(all: impl Iterator<Item = Received>, point: &Point) -> String {
    let line = |unit: &[u8]| match (Event::read(unit), Reply::read(unit)) {
        (Ok(event), _) => sorm::point::event(&event),
        (_, Ok(reply)) => sorm::point::told(&reply.told),
        _ => "unreadable".to_owned(),
    };
    let wanted = all.filter(|r| point.domain.as_ref().is_none_or(|d| *d == r.station));
    wanted.map(|r| format!("{} {}: {}\n", r.station, r.sequence, line(&r.unit))).collect()
}

/// Mediators of a script that is played against a running node: an SSH client and a RADIUS server at each one's address.
#[derive(Default)]
pub struct Mediators {
    /// Of domains and aggregates, as the script has set them.
    passwords: HashMap<String, String>,
    brought: HashMap<String, Arc<Mutex<Vec<Received>>>>,
    /// Doors of the node: for one domain, for several.
    doors: [Option<SocketAddr>; 2],
    /// Number of the station's interception equipment.
    sorm: u8,
}

impl Mediators {
    pub fn new(doors: [Option<SocketAddr>; 2], sorm: u8) -> Self {
        Self { doors, sorm, ..Self::default() }
    }

    /// Learns from a command what a mediator has to know, and opens the door of one that is new.
    pub async fn learn(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [path, "radius_servers", "add", mediator, secret]
                if path.ends_with("/sorm/set") && !self.brought.contains_key(mediator) =>
            {
                let at: Mediator = mediator.parse().map_err(|e| format!("{e}"))?;
                let socket = UdpSocket::bind(at.0).await;
                let socket = socket.map_err(|e| format!("no mediator can be at {}: {e}", at.0))?;
                let brought = Arc::default();
                tokio::spawn(serve(socket, Secret::new(secret.to_owned()), Arc::clone(&brought)));
                self.brought.insert(mediator.to_owned(), brought);
            }
            ["sorm/set", "aggregate_sorm_settings", "add", user, password, ..] => {
                self.passwords.insert(user.to_owned(), password.to_owned());
            }
            [path, "password", password] => {
                if let Some(domain) = path.strip_prefix("domain/").and_then(|p| p.strip_suffix("/sorm/set")) {
                    self.passwords.insert(domain.to_owned(), password.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A command, and all that is answered; nothing where the log-in was refused.
    pub async fn say(&self, point: &Point, said: &str) -> Result<Option<String>, String> {
        let (user, door) = match (&point.domain, &point.aggregate) {
            (Some(domain), None) => (domain, self.doors[0]),
            (None, Some(user)) => (user, self.doors[1]),
            _ => return Err("a domain or an aggregate is wanted".into()),
        };
        let door = door.ok_or("the node does not say where it listens for mediators")?;
        let from: Mediator = point.mediator.parse().map_err(|e| format!("{e}"))?;
        let password =
            self.passwords.get(user).ok_or(format!("the script has set no password for {user}"))?;
        let text = |e: russh::Error| format!("{user} at {door}: {e}");
        let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
        socket.bind(SocketAddr::new(from.ip(), 0)).map_err(|e| format!("{}: {e}", from.ip()))?;
        let stream = timeout(PATIENCE, socket.connect(door)).await.map_err(|_| "the door does not open")?;
        let stream = stream.map_err(|e| format!("{door}: {e}"))?;
        let known = Client { expected: None };
        let mut session = client::connect_stream(Arc::default(), stream, known).await.map_err(text)?;
        match session.authenticate_password(user, password).await.map_err(text)? {
            AuthResult::Success => {}
            AuthResult::Failure { .. } => return Ok(None),
        }
        let mut channel = session.channel_open_session().await.map_err(text)?;
        channel.request_shell(true).await.map_err(text)?;
        let said: String = lines(said, self.sorm)?.into_iter().map(|l| l + "\n").collect();
        channel.data(said.as_bytes()).await.map_err(text)?;
        channel.eof().await.map_err(text)?;
        let mut bytes = Vec::new();
        while let Some(message) = timeout(PATIENCE, channel.wait()).await.map_err(|_| "no answer")? {
            if let ChannelMsg::Data { data } = message {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Some(String::from_utf8_lossy(&bytes).lines().map(answer).collect()))
    }

    /// What a mediator has been brought since it was asked last, once it is what is expected.
    pub async fn told(&self, point: &Point, step: &Step) -> (String, Vec<String>) {
        let Some(brought) = self.brought.get(&point.mediator) else {
            return (String::new(), vec![format!("the script has no mediator {}", point.mediator)]);
        };
        let begun = Instant::now();
        loop {
            let all = brought.lock().clone();
            let text = told(all.iter().cloned(), point);
            let misses = step.expect.misses(0, &text, None);
            let waited = begun.elapsed();
            if misses.is_empty() && waited > QUIET || waited > PATIENCE {
                brought.lock().drain(..all.len());
                return (text, misses);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve(socket: UdpSocket, secret: Secret<String>, brought: Arc<Mutex<Vec<Received>>>) {
    let mut packet = vec![0; radius::MOST];
    let mut last: HashMap<String, u64> = HashMap::new();
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let packet = &packet[..length];
        let Some(received) = radius::read(packet, &secret) else { continue };
        // One that is sent again is the one that came last.
        if last.insert(received.station.clone(), received.sequence) != Some(received.sequence) {
            brought.lock().push(received);
        }
        if let Some(answer) = radius::response(packet, &secret) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}
