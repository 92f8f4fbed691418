//! The mediator (посредник СОРМ) between a station and a control point (ПУ): towards the station a client of SSH and an accounting
//! server of RADIUS, towards the control point order 268 over TCP or X.25, with speech in the time slots of E1 streams.
//!
//! A command comes in by [`point`] or [`stream`], goes through the [`desk`] to [`station`], and its answer comes back the same
//! way. A notification comes in by [`radius`], waits in the [`outbox`], and leaves by the desk. Speech goes from [`speech`] into
//! the stream it is for.

pub mod actor;
pub mod adapt;
pub mod book;
pub mod commands;
pub mod desk;
pub mod handover;
pub mod outbox;
pub mod point;
pub mod radius;
pub mod services;
pub mod settings;
pub mod speech;
pub mod station;
pub mod stream;
mod task;
mod tree;

pub use tree::child;
