//! The operators that are logged in, over SSH and in browsers, and what ends their sessions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Serialize;

/// A session of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Visit {
    /// Counts from 1 in each run of the node.
    pub id: u64,
    pub user: String,
    /// `ssh 127.0.0.1:50412`, `web 127.0.0.1`
    pub from: String,
    pub since: DateTime<Utc>,
}

type End = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inner {
    count: u64,
    all: BTreeMap<u64, (Visit, End)>,
}

/// All sessions; clones share them.
#[derive(Clone, Default)]
pub struct Visits(Arc<Mutex<Inner>>);

/// A session's entry; it goes with the session.
pub struct Entry {
    id: u64,
    visits: Weak<Mutex<Inner>>,
}

impl Visits {
    /// A log-in; `end` ends the session, and must not hold what its entry needs to go.
    pub fn enter(
        &self,
        user: &str,
        from: &str,
        since: DateTime<Utc>,
        end: impl Fn() + Send + Sync + 'static,
    ) -> Entry {
        tracing::info!(user, from, "logged in");
        let door = from.split(' ').next().unwrap_or_default().to_owned();
        metrics::counter!("hypha_logins_total", "door" => door).increment(1);
        let mut inner = self.0.lock();
        inner.count += 1;
        let id = inner.count;
        let visit = Visit { id, user: user.to_owned(), from: from.to_owned(), since };
        inner.all.insert(id, (visit, Arc::new(end)));
        Entry { id, visits: Arc::downgrade(&self.0) }
    }

    pub fn all(&self) -> Vec<Visit> {
        self.0.lock().all.values().map(|(visit, _)| visit.clone()).collect()
    }

    /// Ends the sessions that are meant; the answer is how many.
    pub fn end(&self, meant: impl Fn(&Visit) -> bool) -> usize {
        let ends: Vec<End> =
            self.0.lock().all.values().filter(|(v, _)| meant(v)).map(|(_, end)| end.clone()).collect();
        ends.iter().for_each(|end| end());
        ends.len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(visits) = self.visits.upgrade() else { return };
        let gone = visits.lock().all.remove(&self.id);
        if let Some((visit, _)) = gone {
            tracing::info!(user = visit.user, from = visit.from, "logged out");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[test]
    fn sessions_are_known_until_they_end() {
        let (visits, ended) = (Visits::default(), Arc::new(AtomicBool::new(false)));
        let told = ended.clone();
        let anna =
            visits.enter("anna", "ssh 127.0.0.1:9", DateTime::UNIX_EPOCH, move || told.store(true, Relaxed));
        let _bob = visits.enter("bob", "web 127.0.0.1", DateTime::UNIX_EPOCH, || {});
        assert_eq!(visits.all().iter().map(|v| v.user.as_str()).collect::<Vec<_>>(), ["anna", "bob"]);
        assert_eq!(visits.end(|v| v.user == "anna"), 1);
        assert!(ended.load(Relaxed));
        drop(anna);
        assert_eq!(visits.all().len(), 1);
    }
}
