//! `sip`: SIP endpoints. Uses `kit`, `command` and `domain`.
//!
//! A REGISTER enters through the [`endpoint`]'s stack, is let in by [`digest`], becomes a plain
//! [`registrar::Request`], and leaves the ledger `sip/registrations` as events; the contacts are in the estate's picture.
//! Only `endpoint` knows the stack.

pub mod address;
mod commands;
pub mod digest;
mod endpoint;
pub mod location;
pub mod registrar;
pub mod throttle;
mod tree;

pub use commands::register;
pub use digest::Offer;
pub use tree::{Settings, child};
