//! `sip`: SIP. Uses `kit`, `command`, `domain` and `call`.
//!
//! Bytes enter [`endpoint`]'s sockets and become messages ([`wire`]), which [`transaction`] knows again when they come
//! twice. [`agent`] makes legs of them: what a call tells a leg goes out as requests and answers, what the peer says comes
//! back as events. A REGISTER is let in by [`digest`], becomes a plain [`registrar::Request`], and leaves the ledger
//! `sip/registrations` as events; the contacts are in the estate's picture. Only `endpoint` does IO.

pub mod agent;
mod commands;
pub mod digest;
mod endpoint;
pub mod health;
pub mod identifiers;
pub mod location;
pub mod net;
pub mod registrar;
mod resolve;
pub mod subscriptions;
pub mod transaction;
mod tree;
pub mod wire;

pub use commands::register;
pub use digest::Offer;
pub use endpoint::{
    Listen, authorities, certificate,
    stream::{Cut, cut},
};
pub use health::TrunksHealth;
pub use tree::{Settings, child, duties};
