//! `access`: operators' accounts, their roles, and the limits on logging in. Uses `kit` and `command`.
//!
//! A name and a password (or a key) enter through [`Door`], and leave as a [`Caller`]; changes of accounts are commands
//! of the tree and events of the stream `accounts`.

mod accounts;
mod commands;
mod cut;
mod door;
pub mod ssh;
mod visits;

pub use accounts::{Account, AccountCommand, AccountError, Accounts, AccountsBook, child};
pub use commands::{OWN_PASSWORD, register};
pub use door::{Door, DoorError, hash, hash_apart, random_password};
pub use visits::{Entry, Visit, Visits};
