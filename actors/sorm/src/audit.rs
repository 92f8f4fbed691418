//! The audit of interception: who did what, when, and what came of it. Each entry holds the digest of the one before, so that
//! nothing can be changed, taken out or put in between without [`verify`] seeing it. What an entry is about is sealed: whoever
//! verifies the chain need not be one who may read numbers.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat, Utc};
use kit::{Clock, Sealed, Secret, Vault};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a chain begins with.
const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Its name in the data directory.
pub const FILE: &str = "sorm-audit.jsonl";
const PURPOSE: &str = "sorm/audit";

/// Something that was done.
#[derive(Clone)]
pub struct Entry {
    domain: String,
    /// A mediator's address, an operator's name, or `system`.
    actor: String,
    action: String,
    details: serde_json::Value,
}

impl Entry {
    pub fn new(domain: &str, actor: &str, action: &str, details: serde_json::Value) -> Self {
        Self { domain: domain.to_owned(), actor: actor.to_owned(), action: action.to_owned(), details }
    }
}

/// An entry as it stands in the file, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    at: DateTime<Utc>,
    domain: String,
    actor: String,
    action: String,
    details: Sealed,
    previous: String,
    digest: String,
}

impl Line {
    fn computed(&self) -> String {
        let mut sha = Sha256::new();
        let at = self.at.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let sequence = self.sequence.to_string();
        let fields =
            [&sequence, &at, &self.domain, &self.actor, &self.action, &self.details.0, &self.previous];
        for field in fields {
            // With its length, so that no two entries have the same bytes.
            sha.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            sha.update(field.as_bytes());
        }
        hex::encode(sha.finalize())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("entry {0} cannot be read")]
    Unreadable(u64),
    #[error("entry {0} does not follow the one before it: something was changed, taken out or put in")]
    Broken(u64),
    #[error("entry {0} is not what it was when it was written")]
    Changed(u64),
    #[error("the last entry is cut off; the node will go on behind it")]
    CutOff,
}

/// Where a chain stands: what an auditor keeps elsewhere, to see whether its end is taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    pub digest: String,
    pub at: Option<DateTime<Utc>>,
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, digest: START.to_owned(), at: None }
    }
}

/// Checks a chain from its beginning.
pub fn verify(path: &Path) -> Result<Head, AuditError> {
    let file = File::open(path).map_err(|e| AuditError::Io(path.to_owned(), e))?;
    let mut reader = BufReader::new(file);
    let (mut head, mut text) = (Head::default(), String::new());
    loop {
        text.clear();
        let next = head.sequence + 1;
        match reader.read_line(&mut text) {
            Ok(0) => return Ok(head),
            Ok(_) if !text.ends_with('\n') => return Err(AuditError::CutOff),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(AuditError::Unreadable(next)),
            Err(e) => return Err(AuditError::Io(path.to_owned(), e)),
        }
        let line: Line = serde_json::from_str(&text).map_err(|_| AuditError::Unreadable(next))?;
        if line.sequence != next || line.previous != head.digest {
            return Err(AuditError::Broken(next));
        }
        if line.computed() != line.digest {
            return Err(AuditError::Changed(next));
        }
        head = Head { sequence: line.sequence, digest: line.digest, at: Some(line.at) };
    }
}

/// The audit of this node; clones share it.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    vault: Arc<dyn Vault>,
    clock: Clock,
    /// None in a node that keeps nothing.
    file: Option<Mutex<Chain>>,
}

/// The chain's file and where it stands.
struct Chain {
    file: File,
    head: Head,
    /// Bytes of whole entries.
    length: u64,
    /// Entries that could not be written since the last one that was.
    unwritten: u64,
}

impl Chain {
    /// Adds a line whole or not at all: what a full disk has taken of it is cut off again, or the next line would follow it.
    fn add(&mut self, text: &str) -> io::Result<()> {
        if self.file.metadata()?.len() != self.length {
            self.file.set_len(self.length)?;
        }
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => self.length += text.len() as u64,
            Err(e) => {
                let _ = self.file.set_len(self.length);
                return Err(e);
            }
        }
        Ok(())
    }
}

impl Audit {
    /// Goes on behind what there is. A chain that is broken is not gone on with: it is kept beside for whoever looks into it, and
    /// another begins, whose first entry says so; as does the one behind a file that was `lost`. The exchange does not stop
    /// for it.
    pub fn open(path: &Path, vault: Arc<dyn Vault>, clock: Clock, lost: bool) -> Result<Self, AuditError> {
        let io = |e| AuditError::Io(path.to_owned(), e);
        let options = || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = options().map_err(io)?;
        let (mut cut, mut broken) = (false, None);
        let lost = lost && file.metadata().map_err(io)?.len() == 0;
        let head = match verify(path) {
            Err(AuditError::CutOff) => {
                // A power cut in the middle of an entry: the rest of a line goes, and the chain says so.
                let mut all = Vec::new();
                file.read_to_end(&mut all).map_err(io)?;
                let whole = all.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                file.set_len(u64::try_from(whole).unwrap_or_default()).map_err(io)?;
                file.seek(SeekFrom::End(0)).map_err(io)?;
                cut = true;
                verify(path)
            }
            other => other,
        };
        let head = match head {
            Ok(head) => head,
            Err(e @ AuditError::Io(..)) => return Err(e),
            Err(e) => {
                let stamp = clock.now().format("%Y%m%dT%H%M%S%3fZ");
                let aside = path.with_extension(format!("jsonl.broken-{stamp}"));
                tracing::error!(error = %e, kept = %aside.display(), "the audit's chain is broken; another begins");
                std::fs::rename(path, &aside).map_err(io)?;
                file = options().map_err(io)?;
                broken = Some(e.to_string());
                Head::default()
            }
        };
        let length = file.metadata().map_err(io)?.len();
        let chain = Chain { file, head, length, unwritten: 0 };
        let audit = Self(Arc::new(Inner { vault, clock, file: Some(Mutex::new(chain)) }));
        let action = match &broken {
            Some(why) => format!("started; the chain before was broken and is kept: {why}"),
            None if lost => "started; the file of the chain before is missing".to_owned(),
            None if cut => "started; an entry had been cut off".to_owned(),
            None => "started".to_owned(),
        };
        audit.write(Entry::new("", "system", &action, serde_json::Value::Null));
        Ok(audit)
    }

    /// An audit of nothing, for replays.
    pub fn none(vault: Arc<dyn Vault>, clock: Clock) -> Self {
        Self(Arc::new(Inner { vault, clock, file: None }))
    }

    /// Writes an entry. What cannot be written is said loudly: interception without audit must not go unseen.
    pub fn write(&self, entry: Entry) {
        let Some(file) = &self.0.file else { return };
        let mut chain = file.lock();
        if chain.unwritten > 0 {
            let action = format!("{} entries could not be written", chain.unwritten);
            if !self.put(&mut chain, Entry::new("", "system", &action, serde_json::Value::Null)) {
                chain.unwritten += 1;
                return;
            }
            chain.unwritten = 0;
        }
        if !self.put(&mut chain, entry) {
            chain.unwritten += 1;
        }
    }

    /// Whether an entry has been written.
    fn put(&self, chain: &mut Chain, entry: Entry) -> bool {
        let Ok(details) = self.0.vault.seal(PURPOSE, &Secret::new(entry.details.to_string())) else {
            tracing::error!("an audit entry cannot be sealed");
            return false;
        };
        let Entry { domain, actor, action, .. } = entry;
        let mut line = Line {
            sequence: chain.head.sequence + 1,
            at: self.0.clock.now(),
            domain,
            actor,
            action,
            details,
            previous: chain.head.digest.clone(),
            digest: String::new(),
        };
        line.digest = line.computed();
        let written = serde_json::to_string(&line).map_err(io::Error::from);
        match written.and_then(|text| chain.add(&format!("{text}\n"))) {
            Ok(()) => {
                chain.head = Head { sequence: line.sequence, digest: line.digest, at: Some(line.at) };
                true
            }
            Err(e) => {
                if chain.unwritten == 0 {
                    tracing::error!(error = %e, "the audit cannot be written");
                }
                false
            }
        }
    }

    /// Puts what was written on disk; called now and then.
    pub fn sync(&self) {
        if let Some(file) = &self.0.file
            && let Err(e) = file.lock().file.sync_data()
        {
            tracing::error!(error = %e, "the audit cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path, count: u64) {
        let audit =
            Audit::open(path, Arc::new(store::KeyFile::ephemeral()), Clock::System, false).expect("opened");
        for n in 0..count {
            audit.write(Entry::new(
                "d",
                "127.0.0.1",
                "put",
                serde_json::json!({ "number": "73832710001", "n": n }),
            ));
        }
    }

    #[test]
    fn a_chain_goes_on_over_restarts_and_shows_no_numbers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        entries(&path, 3);
        entries(&path, 2);
        assert_eq!(verify(&path).expect("whole").sequence, 7);
        let text = std::fs::read_to_string(&path).expect("read");
        // The whole number: a few of its digits are in many a hash.
        assert!(!text.contains("73832710001") && text.contains("127.0.0.1"));
    }

    #[test]
    fn every_change_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        entries(&path, 4);
        let text = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        let with = |lines: &[&str]| {
            std::fs::write(&path, lines.iter().map(|l| format!("{l}\n")).collect::<String>())
                .expect("written");
            verify(&path)
        };
        assert!(matches!(with(&[lines[0], lines[2], lines[3]]), Err(AuditError::Broken(2))));
        assert!(matches!(with(&[lines[0], lines[2], lines[1]]), Err(AuditError::Broken(2))));
        let other = lines[1].replace("\"put\"", "\"get\"");
        assert!(matches!(with(&[lines[0], &other, lines[2]]), Err(AuditError::Changed(2))));
        assert!(matches!(with(&[lines[0], "{}"]), Err(AuditError::Unreadable(2))));
        // Whoever keeps the head elsewhere sees that the end is gone.
        assert_eq!(with(&lines[..2]).expect("whole").sequence, 2);
        std::fs::write(&path, format!("{}\n{}", lines[0], &lines[1][..20])).expect("written");
        assert!(matches!(verify(&path), Err(AuditError::CutOff)));
        entries(&path, 1);
        assert_eq!(verify(&path).expect("gone on").sequence, 3);
    }
}
