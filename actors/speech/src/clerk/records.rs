//! What the attendant heard, kept to be listened to: files beside each other, the oldest go when there are too many.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A kept piece of speech.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// A text in JSON: browsers' numbers have 53 bits.
    #[serde(with = "number")]
    pub id: u64,
    pub at: chrono::DateTime<chrono::Utc>,
    pub recognised: String,
    pub number: Option<String>,
    pub confidence: f32,
    /// Whether what was found was right, once somebody has told.
    #[serde(default)]
    pub good: Option<bool>,
    /// What was really said, once somebody has listened.
    #[serde(default)]
    pub correct: Option<String>,
}

mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }

    pub fn serialize<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
        match Either::deserialize(from)? {
            Either::Number(id) => Ok(id),
            Either::Text(id) => id.parse().map_err(D::Error::custom),
        }
    }
}

/// A directory of records; clones share it.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
    limit: usize,
}

impl Records {
    pub fn open(directory: &Path, limit: usize) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), limit })
    }

    fn path(&self, id: u64, what: &str) -> PathBuf {
        self.directory.join(format!("{id}.{what}"))
    }

    fn ids(&self) -> io::Result<Vec<u64>> {
        let mut all: Vec<u64> = fs::read_dir(&self.directory)?
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Keeps a record with its sound (8000 Hz); the oldest make room.
    pub fn keep(&self, record: &Record, samples: &[i16]) -> io::Result<()> {
        if self.limit == 0 {
            return Ok(());
        }
        crate::audio::write(&self.path(record.id, "wav"), samples)
            .map_err(|e| io::Error::other(e.to_string()))?;
        self.write(record)?;
        let all = self.ids()?;
        for id in all.iter().take(all.len().saturating_sub(self.limit)) {
            for what in ["json", "wav"] {
                let _ = fs::remove_file(self.path(*id, what));
            }
        }
        Ok(())
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other)?;
        let (new, path) = (self.path(record.id, "new"), self.path(record.id, "json"));
        fs::File::create(&new)?.write_all(&text)?;
        fs::rename(new, path)
    }

    pub fn get(&self, id: u64) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(id, "json")).ok()?).ok()
    }

    pub fn sound(&self, id: u64) -> Option<Vec<u8>> {
        fs::read(self.path(id, "wav")).ok()
    }

    /// The newest first.
    pub fn list(&self, limit: usize) -> io::Result<Vec<Record>> {
        Ok(self.ids()?.into_iter().rev().filter_map(|id| self.get(id)).take(limit).collect())
    }

    /// Changes what is known of a record; false when there is none.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut Record)) -> io::Result<bool> {
        let Some(mut record) = self.get(id) else { return Ok(false) };
        change(&mut record);
        self.write(&record).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_tags_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::open(directory.path(), 2).expect("opened");
        let record = |id| Record {
            id,
            at: chrono::DateTime::UNIX_EPOCH,
            recognised: "анна".into(),
            number: None,
            confidence: 0.5,
            good: None,
            correct: None,
        };
        (1..=3).for_each(|id| records.keep(&record(id), &[0; 800]).expect("kept"));
        assert!(records.change(3, |r| r.good = Some(true)).expect("written"));
        assert!(!records.change(1, |r| r.good = Some(true)).expect("read"), "it has made room");
        let all = records.list(10).expect("listed");
        assert_eq!(all.iter().map(|r| (r.id, r.good)).collect::<Vec<_>>(), [(3, Some(true)), (2, None)]);
        assert!(records.sound(2).is_some_and(|s| s.len() == 44 + 1600) && records.sound(1).is_none());
    }
}
