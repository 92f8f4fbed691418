//! `ivr`: scripts that answer calls. Uses `call` and `speech`.
//!
//! A call that reaches a number with a personal IVR starts a script ([`call::Applications`]); [`run::Run`] is the script being
//! run, without IO, and the actor around it plays, listens, asks and dials.

mod actor;
pub mod commands;
pub mod condition;
mod fetch;
mod hearing;
mod keeper;
pub mod library;
pub mod mail;
mod queue;
mod rehearsal;
pub mod run;
pub mod script;
mod tree;
pub mod vars;

pub use actor::Services;
pub use fetch::{FetchError, Reach};
pub use tree::child;
