//! Keeping what a caller says: a recording in a file, or a message in a mailbox.

use std::path::PathBuf;

use call::application::Begin;
use kit::{journal::Origin, ledger};
use tokio::sync::{mpsc, oneshot};

use crate::{
    actor::Services,
    hearing::{Hearing, Voice},
    mail::{self, Letter, MailBook, MailChange, MailError},
    run::{Event, RecordTo, Recorded},
};

/// Samples of a recording at most: half an hour.
const LONGEST_RECORDING: usize = 8000 * 1_800;

/// Keeps what a caller says.
pub(crate) struct Keeper {
    pub services: Services,
    pub begin: Begin,
    pub to: RecordTo,
}

impl Keeper {
    pub(crate) async fn run(
        self,
        mut hearing: Hearing,
        mut stopped: oneshot::Receiver<()>,
        tell: mpsc::UnboundedSender<Event>,
    ) {
        let Ok(mut voice) = Voice::new() else { return };
        let (mut samples, mut spoken) = (Vec::<i16>::new(), false);
        let mut sent = false;
        loop {
            let frame = tokio::select! {
                frame = hearing.recv() => frame,
                told = &mut stopped, if !sent => {
                    sent = true;
                    match told {
                        Ok(()) => None,
                        // The script has gone; the call's end ends the recording.
                        Err(_) => continue,
                    }
                }
            };
            let Some(frame) = frame.filter(|_| samples.len() < LONGEST_RECORDING) else { break };
            samples.extend_from_slice(&*frame);
            let Ok(heard) = voice.take(&frame[..]) else { break };
            let over = !heard.utterances.is_empty();
            spoken |= voice.speaking() || over;
            if heard.begins {
                drop(tell.send(Event::Speaks));
            }
            if over {
                drop(tell.send(Event::Silent));
            }
        }
        let kept =
            if spoken { self.keep(samples).await } else { Ok(Recorded { file: String::new(), seconds: 0 }) };
        drop(tell.send(Event::Recorded(kept)));
    }

    /// Puts a recording away; else the outcome.
    async fn keep(&self, samples: Vec<i16>) -> Result<Recorded, String> {
        let error = |e: &dyn std::fmt::Display| {
            tracing::error!(script = %self.begin.script, error = %e, "what a caller said is not kept");
            "Error".to_owned()
        };
        let data = self.services.data.clone().ok_or_else(|| error(&"nothing is kept here"))?;
        let seconds = (samples.len() as u64).div_ceil(8000);
        let domain = self.begin.domain.clone();
        let at = self.services.node.clock().now();
        let write = |path: PathBuf| async move {
            let written = tokio::task::spawn_blocking(move || {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|e| e.to_string())?;
                }
                speech::audio::write(&path, &samples).map_err(|e| e.to_string())
            });
            written.await.map_err(|e| e.to_string())?
        };
        match &self.to {
            RecordTo::File => {
                let id = self.services.node.random_id();
                let name = format!("{}-{id:08x}.wav", at.format("%Y%m%d-%H%M%S"));
                let path = data.join("recordings/ivr").join(&domain).join(name);
                let file = path.display().to_string();
                write(path).await.map_err(|e| error(&e))?;
                Ok(Recorded { file, seconds })
            }
            RecordTo::Mailbox(mailbox) => {
                let known = self.services.estate.picture();
                if !known.domains.get(&domain).is_some_and(|d| d.aliases.contains_key(mailbox)) {
                    return Err(error(&"there is no number for the mailbox"));
                }
                let caller = &self.begin.caller;
                let from = if caller.restricted { String::new() } else { caller.number.clone() };
                let letter = Letter { at, from, seconds, heard: false };
                let origin = Origin { who: "ivr".into(), from: self.begin.call.to_string() };
                let change = MailChange::Leave { domain: domain.clone(), mailbox: mailbox.clone(), letter };
                // The number first: a message without sound is told of, sound without a message is never heard.
                let left =
                    ledger::change_at::<MailBook>(&self.services.node, mail::NAME, change, origin).await;
                let id = match left {
                    Ok(id) => id,
                    Err(ledger::LedgerError::Refused(MailError::Full(_))) => return Err("Full".to_owned()),
                    Err(e) => return Err(error(&e)),
                };
                let path = mail::file(&data, &domain, mailbox, id);
                let file = path.display().to_string();
                write(path).await.map_err(|e| error(&e))?;
                Ok(Recorded { file, seconds })
            }
        }
    }
}
