//! Supervisors: [`core`] decides, the actor in this room carries it out.

mod actor;
pub mod core;
#[cfg(test)]
mod model;

pub use actor::{Supervisor, SupervisorError, SupervisorHandle, SupervisorMsg, SupervisorSpec};
pub use core::{Intensity, Refusal, Status, Strategy};
