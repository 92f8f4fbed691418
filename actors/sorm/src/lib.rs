//! Lawful interception (СОРМ): who is under control, what is told of their calls, and who did what.
//!
//! This crate alone can read targets. What it keeps is sealed under a key of its own; what it shows to operators never says
//! that a number is under control.

pub mod audit;
pub mod commands;
pub mod courier;
mod index;
pub mod intercept;
pub mod journal;
pub mod multi;
pub mod numbers;
pub mod point;
pub mod proposals;
pub mod protocol;
pub mod session;
pub mod settings;
pub mod station;
pub mod stations;
mod tree;

pub use tree::{Front, child};
