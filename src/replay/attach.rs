//! Plays a script against a running node over SSH, in real time. Files that the script imports are sent along.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use russh::{
    ChannelMsg,
    client::{self, Handle},
    keys::{HashAlg, PublicKeyOrCertificate},
};

use super::{
    Error, Options,
    phone::Phones,
    point::Mediators,
    report::{Played, Run},
    script::{Point, Script, Step},
};

/// How long an actor has to come back.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client {
    /// The fingerprint to see; none on loopback.
    pub expected: Option<String>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let seen = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        Ok(self.expected.as_ref().is_none_or(|e| *e == seen))
    }
}

pub fn play(script: &Script, address: SocketAddr, options: &Options) -> Result<Run, Error> {
    if options.host_key.is_none() && !address.ip().is_loopback() {
        return Err(
            format!("{address} is not loopback: say --host-key SHA256:…, as ssh-keygen -l shows it").into()
        );
    }
    let password =
        std::env::var("HYPHA_PASSWORD").map_err(|_| "set HYPHA_PASSWORD to the operator's password")?;
    actix::System::new().block_on(async {
        let client = Client { expected: options.host_key.clone() };
        let mut session = client::connect(
            Arc::new(client::Config { preferred: access::ssh::preferred(), ..client::Config::default() }),
            address,
            client,
        )
        .await
        .map_err(|e| format!("cannot connect to {address}: {e}"))?;
        if !session.authenticate_password(&options.user, password).await?.success() {
            return Err(format!("{address} refuses the name {} with this password", options.user).into());
        }
        let mut run = Run::new(script);
        let mut phones = match script.steps.iter().any(|s| s.action().is_some()) {
            true => Some(phones(script, options, &mut session).await?),
            false => None,
        };
        let mut doors = [None, None];
        if script.sorm {
            doors =
                [listens(&mut session, "sorm/ssh").await?, listens(&mut session, "sorm/multi-ssh").await?];
        }
        let mut mediators = Mediators::new(doors, options.sorm);
        for (i, step) in script.steps.iter().enumerate() {
            let at = chrono::Utc::now();
            if let (true, Some(line)) = (script.sorm, &step.cocon) {
                mediators.learn(line).await?;
            }
            let (said, misses) = match (step.action(), &mut phones, &step.sorm) {
                (Some((phone, action)), Some(phones), _) => phones.play(phone, &action, step).await,
                (.., Some(point)) => match &point.say {
                    None => mediators.told(point, step).await,
                    Some(said) => say(&mediators, point, said, step, &mut session).await?,
                },
                _ => one(step, script, &mut session).await?,
            };
            run.steps.push(Played {
                number: i + 1,
                at,
                step: step.clone(),
                said,
                misses,
                messages: Vec::new(),
            });
        }
        session.disconnect(russh::Disconnect::ByApplication, "", "en").await?;
        Ok(run)
    })
}

/// Phones with sockets on loopback, for the node's SIP.
async fn phones(script: &Script, options: &Options, session: &mut Handle<Client>) -> Result<Phones, Error> {
    let server = match options.sip {
        Some(server) => server,
        None => listens(session, "sip/endpoint")
            .await?
            .ok_or("the node does not say where its SIP listens: say --sip")?,
    };
    let open = |at: Option<SocketAddr>| {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = std::net::UdpSocket::bind(at.unwrap_or(any))?;
        socket.set_nonblocking(true)?;
        sip::net::Port::of(tokio::net::UdpSocket::from_std(socket)?)
    };
    // Phones of two runs against one node must not be taken for each other.
    let salt = script.seed ^ u64::from(std::process::id()) << 32;
    Ok(Phones::new(server, salt, open, chrono::Utc::now))
}

/// Where an actor listens.
async fn listens(session: &mut Handle<Client>, actor: &str) -> Result<Option<SocketAddr>, Error> {
    let answer = exec(session, &format!("node/actor/info {actor}"), None).await?;
    Ok(answer.data.as_ref().and_then(|d| d["state"]["listen"].as_str()?.parse().ok()))
}

/// A command of a control point; why its mediator may not log in is in the node's log.
async fn say(
    mediators: &Mediators,
    point: &Point,
    said: &str,
    step: &Step,
    session: &mut Handle<Client>,
) -> Result<(String, Vec<String>), Error> {
    let text = match mediators.say(point, said).await {
        Ok(Some(text)) => text,
        Ok(None) => {
            let log = exec(session, "node/log/list --text \"may not log in\" --limit 1", None).await?;
            let why = log.data.as_ref().and_then(|d| d[0]["text"].as_str()?.split_once("why=\""));
            let why = why.and_then(|(_, why)| why.split_once('"'));
            format!("log-in refused: {}\n", why.map_or("the log does not say why", |(why, _)| why))
        }
        Err(why) => return Ok((String::new(), vec![why])),
    };
    let misses = step.expect.misses(0, &text, None);
    Ok((text, misses))
}

/// `routing/import HOST FILE` names a file of the script: it goes over standard input.
fn with_file(script: &Script, line: &str) -> Result<(String, Option<Vec<u8>>), Error> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [path, host, file] if path.ends_with("routing/import") && *file != "-" => {
            let full = script.files().join(file);
            let bytes = std::fs::read(&full).map_err(|e| format!("cannot read {}: {e}", full.display()))?;
            Ok((format!("{path} {host} -"), Some(bytes)))
        }
        _ => Ok((line.to_owned(), None)),
    }
}

async fn one(
    step: &Step,
    script: &Script,
    session: &mut Handle<Client>,
) -> Result<(String, Vec<String>), Error> {
    if let Some(line) = &step.cocon {
        let (line, input) = with_file(script, line)?;
        let answer = exec(session, &line, input).await?;
        let misses = step.expect.misses(answer.status, &answer.text, answer.data.as_ref());
        return Ok((answer.text, misses));
    }
    if let Some(pause) = step.pause() {
        tokio::time::sleep(pause).await;
        return Ok(Default::default());
    }
    if let Some(name) = &step.crash {
        let answer = exec(session, &format!("node/actor/kill {name} --force"), None).await?;
        let misses = (answer.status != 0).then(|| answer.text.trim().to_owned());
        return Ok((answer.text, misses.into_iter().collect()));
    }
    let Some(name) = &step.actor else { return Ok(Default::default()) };
    // Here time is real: an actor may be on its way back.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = exec(session, &format!("node/actor/info {name}"), None).await?;
        let seen = answer.data.as_ref().and_then(|d| d["restarts"].as_u64());
        let miss = match (seen, step.expect.restarts) {
            (None, _) => Some(format!("there is no actor {name}")),
            (Some(seen), Some(wanted)) if seen != u64::from(wanted) => {
                Some(format!("{wanted} restarts were expected, {seen} were seen"))
            }
            _ => None,
        };
        if miss.is_none() || tokio::time::Instant::now() > deadline {
            let text = seen.map_or_else(String::new, |seen| format!("running, {seen} restarts\n"));
            return Ok((text, miss.into_iter().collect()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Answer {
    text: String,
    data: Option<serde_json::Value>,
    status: u32,
}

async fn exec(session: &mut Handle<Client>, line: &str, input: Option<Vec<u8>>) -> Result<Answer, Error> {
    let mut channel = session.channel_open_session().await?;
    channel.set_env(false, cocon::WHOLE, "whole").await?;
    channel.exec(true, line).await?;
    if let Some(input) = input {
        channel.data(input.as_slice()).await?;
        channel.eof().await?;
    }
    let (mut bytes, mut status) = (Vec::new(), 0);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                bytes.extend_from_slice(&data)
            }
            ChannelMsg::ExitStatus { exit_status } => status = exit_status,
            _ => {}
        }
    }
    #[derive(serde::Deserialize)]
    struct Whole {
        text: String,
        data: Option<serde_json::Value>,
    }
    let whole = serde_json::from_slice::<Whole>(&bytes);
    let Whole { text, data } = whole.map_err(|e| {
        format!(
            "{line}: the peer is no Hypha node, or an older one ({e}): {}",
            String::from_utf8_lossy(&bytes)
        )
    })?;
    Ok(Answer { text, data, status })
}
