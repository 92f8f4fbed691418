//! `store`: where events and secrets live on this machine. Uses `kit` only.
//!
//! A [`kit::journal::Batch`] enters through [`SqliteJournal`], joins others in one SQLite transaction on the writer's
//! thread, and its answer leaves when that transaction is safe on disk. Secrets go through the [`KeyFile`]; a
//! [`Pkcs11Token`] holds a key that never leaves it.

mod keyfile;
mod lock;
mod mark;
mod schema;
mod sqlite;
mod token;
mod tree;

pub use keyfile::{KeyFile, KeyFileError};
pub use lock::{DataLock, LockError};
pub use mark::accept_loss;
pub use schema::OpenError;
pub use sqlite::{JournalStats, SqliteJournal};
pub use token::Pkcs11Token;
pub use tree::{JournalActor, child};
