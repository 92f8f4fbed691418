//! The actor `call/cdr-files`: writes the records of calls into files for billing, one line a record, as each domain's groups
//! say (`domain/<D>/cdr/add_cdr_group`).
//!
//! It follows the stream of records. What has been written, and how long the open files are, is kept as the snapshot of a
//! stream of its own: after a crash each file is cut to that length and goes on from there, so that every record is in one
//! file once. A file is `….csv.part` until it is closed.

use std::{
    collections::BTreeMap,
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Local, TimeDelta, Timelike, Utc};
use domain::{
    Estate, Picture,
    state::{CDR_GROUP, CdrGroup, CloseFile},
};
use kit::{
    Actor, Cx, ExitReason,
    alarm::{Alarms, Condition, Severity},
    journal::{Filter, Journal, Snapshot},
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::record::{Cdr, RecordEvent, Side};

/// The actor's name, and its stream's.
pub const NAME: &str = "call/cdr-files";
/// Class of the alarm of files that cannot be written.
const UNWRITTEN: &str = "call::files::unwritten";
/// Between two looks at the stream.
const EVERY: Duration = Duration::from_secs(2);
/// The group of calls that have none.
const DEFAULT: &str = "default";

const COLUMNS: [&str; 17] = [
    "call",
    "attempt",
    "domain",
    "group",
    "setup",
    "answered",
    "released",
    "seconds",
    "a",
    "b",
    "from",
    "to",
    "cause",
    "released_by",
    "diverted_by",
    "service",
    "user_agent",
];

/// A file that records are being added to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    /// Under the directory, without `.part`.
    file: String,
    opened: DateTime<Utc>,
    records: u32,
    length: u64,
}

/// What has been written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Written {
    /// Records up to this version.
    upto: u64,
    /// Files made, for their names.
    files: u64,
    /// By domain and group.
    open: BTreeMap<String, Open>,
    /// Files that were complete, and are to be named so.
    complete: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
struct FileError {
    path: PathBuf,
    error: std::io::Error,
}

fn on<T>(path: &Path, done: std::io::Result<T>) -> Result<T, FileError> {
    done.map_err(|error| FileError { path: path.to_owned(), error })
}

fn part(dir: &Path, file: &str) -> PathBuf {
    dir.join(format!("{file}.part"))
}

impl Written {
    /// After a start: what was not finished is cut off, what was complete is named so.
    fn recover(&mut self, dir: &Path) -> Result<(), FileError> {
        self.name_complete(dir)?;
        for open in self.open.values() {
            let path = part(dir, &open.file);
            let file = match std::fs::OpenOptions::new().write(true).open(&path) {
                // Somebody took it away: it begins anew where it was.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                file => on(&path, file)?,
            };
            on(&path, file.set_len(open.length).and_then(|()| file.sync_all()))?;
        }
        Ok(())
    }

    fn name_complete(&mut self, dir: &Path) -> Result<(), FileError> {
        while let Some(file) = self.complete.last() {
            let from = part(dir, file);
            match std::fs::rename(&from, dir.join(file)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                done => on(&from, done)?,
            }
            self.complete.pop();
        }
        Ok(())
    }

    /// Adds lines to a group's file, and begins others as it says.
    fn add(
        &mut self,
        dir: &Path,
        key: &str,
        group: &Group<'_>,
        lines: &[Vec<String>],
        now: DateTime<Utc>,
    ) -> Result<(), FileError> {
        let most = match group.group.close {
            CloseFile::Count(n) => n as usize,
            _ => usize::MAX,
        };
        let mut left = lines;
        while !left.is_empty() {
            if !self.open.contains_key(key) {
                self.files += 1;
                let (stamp, number) = (now.with_timezone(&Local).format("%Y%m%d_%H%M%S"), self.files);
                let file =
                    format!("{}/{}{}_{stamp}_{number}.csv", group.domain, group.group.prefix, group.name);
                let open = Open { file, opened: now, records: 0, length: 0 };
                self.open.insert(key.to_owned(), open);
            }
            let Some(open) = self.open.get_mut(key) else { return Ok(()) };
            let (these, after) = left.split_at(left.len().min(most.saturating_sub(open.records as usize)));
            left = after;
            let path = part(dir, &open.file);
            on(&path, path.parent().map_or(Ok(()), std::fs::create_dir_all))?;
            open.length = on(&path, append(&path, open.length, these))?;
            open.records += these.len() as u32;
            if open.records as usize >= most {
                self.close(key);
            }
        }
        Ok(())
    }

    fn close(&mut self, key: &str) {
        if let Some(open) = self.open.remove(key) {
            self.complete.push(open.file);
        }
    }

    /// Closes files whose time has come, or whose group is no more.
    fn close_due(&mut self, picture: &Picture, now: DateTime<Utc>) {
        let due: Vec<String> = self
            .open
            .iter()
            .filter(|(key, open)| match group(picture, key) {
                Some(group) => is_due(&group.close, open.opened, now),
                None => true,
            })
            .map(|(key, _)| key.clone())
            .collect();
        due.iter().for_each(|key| self.close(key));
    }
}

/// A group with its names.
struct Group<'g> {
    domain: &'g str,
    name: &'g str,
    group: &'g CdrGroup,
}

fn group<'p>(picture: &'p Picture, key: &str) -> Option<&'p CdrGroup> {
    let (domain, name) = key.split_once(' ')?;
    picture.domains.get(domain)?.cdr_groups.get(name)
}

fn is_due(close: &CloseFile, opened: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    match close {
        CloseFile::Count(_) => false,
        CloseFile::Period(seconds) => now - opened >= TimeDelta::seconds(i64::from(*seconds)),
        CloseFile::Time(minutes) => {
            // Whether one of the times lies between the opening and now.
            let (from, to) = (opened.with_timezone(&Local), now.with_timezone(&Local));
            let days = (to.date_naive() - from.date_naive()).num_days();
            let minute = |t: DateTime<Local>| t.num_seconds_from_midnight();
            minutes.iter().map(|m| u32::from(*m) * 60).any(|at| match days {
                0 => minute(from) < at && at <= minute(to),
                1 => minute(from) < at || at <= minute(to),
                _ => days > 1,
            })
        }
    }
}

/// Writes lines behind `length` bytes, a head before the first; the answer is the new length, safe on disk.
fn append(path: &Path, length: u64, lines: &[Vec<String>]) -> std::io::Result<u64> {
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let length = length.min(file.metadata()?.len());
    file.set_len(length)?;
    file.seek(std::io::SeekFrom::Start(length))?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    if length == 0 {
        writer.write_record(COLUMNS)?;
    }
    for line in lines {
        writer.write_record(line)?;
    }
    let bytes = writer.into_inner().map_err(|e| std::io::Error::other(e.to_string()))?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(length + bytes.len() as u64)
}

/// The groups a record goes to: in the caller's domain its own, in each further one the default.
fn groups<'r>(picture: &'r Picture, cdr: &'r Cdr) -> Vec<(Group<'r>, &'r Side)> {
    let mut found: Vec<(Group<'r>, &'r Side)> = Vec::new();
    let Some(first) = cdr.sides.first() else { return found };
    for side in cdr.sides.iter().rev() {
        // Of several passes through a domain, the last one is where the call went.
        if found.iter().any(|(g, _)| g.domain == side.domain) {
            continue;
        }
        let Some(state) = picture.domains.get(&side.domain) else { continue };
        let own = (side.domain == first.domain).then(|| {
            state.cdr_group_of(&cdr.group).or_else(|| state.trunks.get(&first.from)?.property(CDR_GROUP))
        });
        let name = own.flatten().filter(|n| state.cdr_groups.contains_key(*n)).unwrap_or(DEFAULT);
        // What ended before there was the group is none of its.
        let known =
            state.cdr_groups.get_key_value(name).filter(|(_, g)| cdr.ended.is_none_or(|e| e >= g.since));
        if let Some((name, group)) = known {
            found.push((Group { domain: &side.domain, name, group }, side));
        }
    }
    found
}

/// A text of a peer as a cell: without characters that act, some of which are line ends to readers by line, and marked where a
/// spreadsheet would take it for a formula, also behind spaces and in wide signs. A plus or minus before digits is a number.
fn cell(text: &str) -> String {
    let text: String = text.chars().filter(|c| !kit::text::acts(*c)).collect();
    let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let begins = text.trim_start();
    match begins.chars().next() {
        Some('=' | '@' | '＝' | '＠' | '﹦' | '﹫' | '＋' | '－' | '﹢' | '﹣') => format!("'{text}"),
        Some('+' | '-') if !(number(&text[1..]) && begins.len() == text.len()) => format!("'{text}"),
        _ => text,
    }
}

fn line(cdr: &Cdr, group: &str, side: &Side) -> Vec<String> {
    let time = |t: &Option<DateTime<Utc>>| {
        t.map_or(String::new(), |t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    };
    let own = cell;
    vec![
        own(cdr.call.rsplit('/').next().unwrap_or(&cdr.call)),
        cdr.attempt.to_string(),
        own(&side.domain),
        own(group),
        time(&Some(cdr.setup)),
        time(&cdr.answered),
        time(&cdr.ended),
        cdr.seconds().to_string(),
        own(&side.a),
        own(&side.b),
        own(&side.from),
        own(&side.to),
        cdr.cause.map(|c| c.0.to_string()).unwrap_or_default(),
        own(&cdr.released_by),
        own(cdr.diverted.as_deref().unwrap_or_default()),
        own(&cdr.service),
        own(&cdr.user_agent),
    ]
}

pub(crate) struct CdrFiles {
    journal: Arc<dyn Journal>,
    estate: Estate,
    dir: PathBuf,
    written: Written,
    /// Whether the files are as [`Written`] says.
    recovered: bool,
    /// Why they are not being written; the disk may be full now, but no call ends for that.
    trouble: Option<String>,
    alarms: Alarms,
}

#[derive(Debug, IntoStaticStr)]
pub enum FilesMsg {
    Look,
}

impl CdrFiles {
    pub(crate) async fn restore(
        journal: Arc<dyn Journal>,
        estate: Estate,
        dir: PathBuf,
        alarms: Alarms,
    ) -> Result<Self, ExitReason> {
        let known = journal.snapshot(NAME).await.map_err(ExitReason::error)?;
        let written: Written = match known {
            Some(s) => serde_json::from_value(s.state).map_err(ExitReason::error)?,
            None => Written::default(),
        };
        Ok(Self { journal, estate, dir, written, recovered: false, trouble: None, alarms })
    }

    /// What has come since the last look, into its files.
    fn write(&self, ended: &[Cdr], upto: u64, now: DateTime<Utc>) -> Result<Written, FileError> {
        let picture = self.estate.picture();
        let mut written = self.written.clone();
        written.close_due(&picture, now);
        let mut lines: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for cdr in ended {
            for (group, side) in groups(&picture, cdr) {
                let key = format!("{} {}", group.domain, group.name);
                lines.entry(key).or_default().push(line(cdr, group.name, side));
            }
        }
        for (key, lines) in &lines {
            let (Some((domain, name)), Some(group)) = (key.split_once(' '), group(&picture, key)) else {
                continue;
            };
            written.add(&self.dir, key, &Group { domain, name, group }, lines, now)?;
        }
        written.upto = upto;
        Ok(written)
    }

    /// What fails now is tried again at the next look; nothing is lost by that.
    fn well<T>(&mut self, done: Result<T, impl std::fmt::Display>) -> Option<T> {
        match done {
            Ok(done) => {
                self.alarms.clear(UNWRITTEN, None, NAME);
                self.trouble = None;
                Some(done)
            }
            Err(e) => {
                self.alarms.raise(Condition::new(UNWRITTEN, Severity::Major, NAME).cause(&e));
                self.trouble = Some(e.to_string());
                None
            }
        }
    }

    /// What has been written is known to be; then files that are complete get their names.
    fn keep(&mut self, written: Written, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let state = serde_json::to_value(&written).map_err(ExitReason::error)?;
        let saved = self.journal.save_snapshot(NAME, Snapshot { version: written.upto, state });
        cx.wait(saved, move |me, saved, cx| {
            match saved {
                Ok(()) => {
                    me.written = written;
                    let done = me.written.name_complete(&me.dir);
                    me.well(done);
                }
                // The same lines are written over these at the next look.
                Err(e) => drop(me.well(Err::<(), _>(e))),
            }
            cx.after(EVERY, FilesMsg::Look);
            Ok(())
        });
        Ok(())
    }
}

impl Actor for CdrFiles {
    type Msg = FilesMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.after(EVERY, FilesMsg::Look);
        Ok(())
    }

    fn handle(&mut self, FilesMsg::Look: FilesMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if !self.recovered {
            let done = self.written.recover(&self.dir);
            self.recovered = self.well(done).is_some();
        }
        if !self.recovered {
            cx.after(EVERY, FilesMsg::Look);
            return Ok(());
        }
        let used = self.estate.picture().domains.values().any(|d| !d.cdr_groups.is_empty());
        let (journal, after) = (self.journal.clone(), self.written.upto);
        let newest =
            Filter { stream_prefix: Some(crate::records::NAME.into()), limit: 1, ..Filter::default() };
        let read = async move {
            match used {
                true => journal.read(crate::records::NAME, after).await,
                // Nobody wants files: what has been is over.
                false => journal.browse(newest).await,
            }
        };
        cx.wait(read, move |me, read, cx| {
            let entries = read.map_err(ExitReason::error)?;
            let upto = entries.last().map_or(after, |e| e.version);
            if !used {
                me.written.upto = upto;
            }
            let ended =
                entries.into_iter().filter(|_| used).filter_map(|e| match serde_json::from_value(e.body) {
                    Ok(RecordEvent::Ended { cdr, .. }) => Some(*cdr),
                    _ => None,
                });
            let ended: Vec<Cdr> = ended.collect();
            let done = me.write(&ended, upto, cx.node().clock().now());
            match me.well(done) {
                Some(written) if written != me.written => me.keep(written, cx)?,
                _ => cx.after(EVERY, FilesMsg::Look),
            }
            Ok(())
        });
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "written": self.written, "trouble": self.trouble })
    }
}

#[cfg(test)]
mod tests {
    use domain::state::DomainState;

    use super::*;
    use crate::Cause;

    #[test]
    fn what_peers_say_is_neither_a_formula_nor_a_line() {
        for (said, kept) in [
            ("=HYPERLINK(\"x\")", "'=HYPERLINK(\"x\")"),
            ("@SUM(1)", "'@SUM(1)"),
            ("+1+1", "'+1+1"),
            ("+73832001122", "+73832001122"),
            ("-5", "-5"),
            ("\r\n=1+1", "'=1+1"),
            ("a\u{1b}[2Jb", "a[2Jb"),
            ("100", "100"),
            ("\u{a0}=1+1", "'\u{a0}=1+1"),
            ("＝1+1", "'＝1+1"),
            (" +7383", "' +7383"),
            ("a\u{2028}b\u{202e}c\u{85}", "abc"),
            ("Пётр", "Пётр"),
        ] {
            assert_eq!(cell(said), kept);
        }
    }

    fn cdr(call: u32, ended: DateTime<Utc>) -> Cdr {
        let side = Side {
            domain: "d".into(),
            from: "100@d".into(),
            to: "101@d".into(),
            a: "100".into(),
            b: "101, \"x\"".into(),
        };
        Cdr {
            call: format!("domain/d/call/{call}"),
            attempt: 1,
            sides: vec![side],
            group: "100".into(),
            setup: ended,
            answered: None,
            ended: Some(ended),
            cause: Some(Cause::NORMAL),
            released_by: "a".into(),
            diverted: None,
            service: "call".into(),
            user_agent: String::new(),
        }
    }

    fn files(dir: &Path, close: CloseFile, now: DateTime<Utc>) -> CdrFiles {
        let mut state = DomainState::default();
        state.cdr_groups.insert(DEFAULT.into(), CdrGroup { prefix: "x_".into(), close, since: now });
        let estate = Estate::default();
        estate.change(|p| drop(p.domains.insert("d".into(), Arc::new(state.clone()))));
        let journal = Arc::new(kit::journal::MemoryJournal::default());
        CdrFiles {
            journal,
            estate,
            dir: dir.to_owned(),
            written: Written::default(),
            recovered: true,
            trouble: None,
            alarms: Alarms::new("n", kit::Clock::System),
        }
    }

    fn lines(dir: &Path) -> Vec<(String, usize)> {
        let mut all: Vec<(String, usize)> = std::fs::read_dir(dir.join("d"))
            .expect("a directory")
            .flatten()
            .map(|f| {
                let text = std::fs::read_to_string(f.path()).expect("text");
                (f.file_name().to_string_lossy().into_owned(), text.lines().count() - 1)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn records_are_in_files_once_even_after_a_crash() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = Utc::now();
        let mut f = files(dir.path(), CloseFile::Count(3), now);
        let all: Vec<Cdr> = (0..4).map(|n| cdr(n, now)).collect();
        f.written = f.write(&all, 4, now).expect("written");
        f.written.name_complete(dir.path()).expect("named");
        let counts = |dir: &Path| lines(dir).iter().map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(counts(dir.path()), [3, 1]);
        assert!(
            lines(dir.path())[0].0.starts_with("x_default_") && lines(dir.path())[1].0.ends_with(".part")
        );
        // A crash: written, but not known to be.
        let _lost = f.write(&[cdr(4, now), cdr(5, now)], 6, now).expect("written");
        f.written.recover(dir.path()).expect("recovered");
        assert_eq!(counts(dir.path()), [3, 1]);
        f.written = f.write(&[cdr(4, now), cdr(5, now)], 6, now).expect("written");
        f.written.name_complete(dir.path()).expect("named");
        assert_eq!(counts(dir.path()), [3, 3]);
        let text = std::fs::read_to_string(dir.path().join("d").join(&lines(dir.path())[0].0)).expect("text");
        assert!(text.contains(r#","101, ""x""","#), "{text}");
        assert_eq!(
            f.write(&[cdr(9, now - TimeDelta::hours(1))], 7, now).expect("written").open,
            BTreeMap::new()
        );
    }

    #[test]
    fn files_close_when_their_time_has_come() {
        let at = |day: u32, hour: u32| {
            let naive = chrono::NaiveDate::from_ymd_opt(2026, 3, day).and_then(|d| d.and_hms_opt(hour, 0, 0));
            naive.and_then(|n| n.and_local_timezone(Local).earliest()).expect("a time").with_timezone(&Utc)
        };
        let time = CloseFile::Time(vec![12 * 60]);
        assert!(!is_due(&time, at(1, 13), at(1, 14)) && !is_due(&time, at(1, 13), at(2, 11)));
        assert!(is_due(&time, at(1, 11), at(1, 12)) && is_due(&time, at(1, 13), at(2, 12)));
        assert!(is_due(&time, at(1, 13), at(3, 1)));
        assert!(is_due(&CloseFile::Period(3600), at(1, 1), at(1, 2)));
        assert!(!is_due(&CloseFile::Period(3601), at(1, 1), at(1, 2)));
    }
}
