//! Plays a script's CoCon steps against a running node over SSH. Files that the script imports are sent along.

use std::{net::SocketAddr, sync::Arc};

use russh::{
    ChannelMsg,
    client::{self, Handle},
    keys::{HashAlg, PublicKey},
};

use super::{
    Error, Options,
    report::{Played, Run},
    script::Script,
};

struct Client {
    /// The fingerprint to see; none on loopback.
    expected: Option<String>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKey) -> Result<bool, Self::Error> {
        let seen = key.fingerprint(HashAlg::Sha256).to_string();
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client { expected: options.host_key.clone() };
        let mut session = client::connect(Arc::new(client::Config::default()), address, client)
            .await
            .map_err(|e| format!("cannot connect to {address}: {e}"))?;
        if !session.authenticate_password(&options.user, password).await?.success() {
            return Err(format!("{address} refuses the name {} with this password", options.user).into());
        }
        let mut run = Run::new(script);
        for (i, step) in script.steps.iter().enumerate() {
            let at = chrono::Utc::now();
            let (said, misses) = match &step.cocon {
                None => (String::new(), Vec::new()),
                Some(line) => {
                    let (line, input) = with_file(script, line)?;
                    let (text, status) = exec(&mut session, &line, input.clone()).await?;
                    let data = match step.expect.json.is_empty() {
                        true => None,
                        false => serde_json::from_str(
                            &exec(&mut session, &format!("{line} --json"), input).await?.0,
                        )
                        .ok(),
                    };
                    let misses = step.expect.misses(status, &text, data.as_ref());
                    (text, misses)
                }
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

async fn exec(
    session: &mut Handle<Client>,
    line: &str,
    input: Option<Vec<u8>>,
) -> Result<(String, u32), Error> {
    let mut channel = session.channel_open_session().await?;
    channel.exec(true, line).await?;
    if let Some(input) = input {
        channel.data(input.as_slice()).await?;
        channel.eof().await?;
    }
    let (mut text, mut status) = (Vec::new(), 0);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                text.extend_from_slice(&data)
            }
            ChannelMsg::ExitStatus { exit_status } => status = exit_status,
            _ => {}
        }
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), status))
}
