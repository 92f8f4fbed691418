//! `cocon`: the operator's shell over SSH (port 8023). Uses `kit`, `access` and `command`.
//!
//! Bytes of a terminal enter the [`editor`], which knows no socket and gives lines; lines go to a
//! [`command::Session`]; its text leaves over the channel. Each connection is an actor below `cocon/sessions`.

pub mod editor;
mod history;
mod keys;
pub mod pager;
mod pipe;
mod server;
mod shell;
mod tree;

pub use history::Histories;
pub use keys::{HostKeyError, host_keys};
pub use server::WHOLE;
pub use tree::{Front, child};
