//! What each operator typed, kept over sessions and restarts: one file an operator, its newest line last. Lines that
//! hold secrets never come here.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Lines an operator gets back.
pub const REMEMBERED: usize = 500;
/// Size at which a file is cut to [`REMEMBERED`] lines.
const FILE_LIMIT: u64 = 256 * 1024;

/// The directory of the files.
#[derive(Debug, Clone)]
pub struct Histories(PathBuf);

impl Histories {
    /// Makes the directory, for the node's eyes only.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self(directory.to_owned()))
    }

    /// Names of accounts are plain words; anything else has no history.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (name.chars().all(plain) && !name.starts_with('.') && !name.is_empty()).then(|| self.0.join(name))
    }

    /// The newest lines, the oldest of them first.
    pub fn of(&self, name: &str) -> Vec<String> {
        let text = self.file(name).and_then(|f| std::fs::read(f).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(REMEMBERED)..].iter().map(|l| (*l).to_owned()).collect()
    }

    /// Adds a line; a disk that does not take it costs the line only.
    pub fn add(&self, name: &str, line: &str) {
        let Some(file) = self.file(name) else { return };
        if let Err(e) = self.write(&file, name, line) {
            tracing::debug!(error = %e, "shell history was not written");
        }
    }

    fn write(&self, file: &Path, name: &str, line: &str) -> std::io::Result<()> {
        let mut open = OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
        writeln!(open, "{line}")?;
        if open.metadata()?.len() > FILE_LIMIT {
            let fresh = file.with_extension("new");
            let mut out =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
            out.write_all((self.of(name).join("\n") + "\n").as_bytes())?;
            std::fs::rename(&fresh, file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_the_file_stays_small() {
        let dir = tempfile::tempdir().expect("a directory");
        let histories = Histories::open(&dir.path().join("history")).expect("made");
        for i in 0..2000 {
            histories.add("admin", &format!("domain/list --number {i} {}", "x".repeat(200)));
        }
        let lines = histories.of("admin");
        assert_eq!(lines.len(), REMEMBERED);
        assert!(lines[REMEMBERED - 1].contains(" 1999 ") && lines[0].contains(" 1500 "));
        let size = std::fs::metadata(dir.path().join("history/admin")).expect("there").len();
        assert!(size <= FILE_LIMIT, "{size}");
        assert!(histories.of("other").is_empty());
        histories.add("../admin", "x");
        histories.add(".hidden", "x");
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "no file elsewhere");
    }
}
