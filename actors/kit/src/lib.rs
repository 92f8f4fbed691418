//! `kit` gives actix actors the meaning Erlang/OTP gives processes: supervision trees, exit reasons, monitors,
//! names, bounded mailboxes, crash reports and inspection. It knows no telecom and uses nothing of the house.
//!
//! A message enters through a [`Mailbox`] (found by name in the [`Registry`]), is handled by an [`Actor`] inside a
//! [`host`], and an actor's end leaves as a [`Down`] to whoever monitors it and to its [`Supervisor`].

mod actor;
mod address;
pub mod alarm;
mod cell;
mod clock;
pub mod crash;
mod exit;
pub mod host;
pub mod intake;
pub mod journal;
pub mod ledger;
pub mod log;
mod mailbox;
pub mod net;
mod node;
pub mod optional;
mod queue;
mod registry;
mod secret;
mod seldom;
mod spec;
pub mod supervisor;
pub mod text;
pub mod throttle;
pub mod token;
pub mod trace;
pub mod tree;

pub use actor::{Actor, Cx, Message};
pub use address::{Address, AddressError};
pub use cell::{Cell, Down, Pid, Vitals, VitalsView};
pub use clock::Clock;
pub use exit::ExitReason;
pub use mailbox::{AskError, Mailbox, Refused, Reply};
pub use node::{Node, NodeBuilder, Placement};
pub use queue::Queue;
pub use registry::{LookupError, Registry};
pub use secret::{MARK, SealError, Sealed, Secret, Vault};
pub use seldom::Seldom;
pub use spec::{ChildSpec, Kind, Restart, Shutdown, StartContext};
pub use supervisor::{Intensity, Strategy, Supervisor, SupervisorError, SupervisorHandle, SupervisorSpec};
