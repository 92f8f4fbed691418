//! `domain`: the virtual PBX — domains with their properties, subscribers, number plans, routing contexts, bridges and
//! trunks, and the licence that bounds them. Uses `kit` and `command`.
//!
//! A change enters as a [`command`] of the tree, goes as a message to the actor named `domain/<NAME>` (or `domains`,
//! `bridges`, `licence`), becomes events in the journal and then state, which is published in the [`Estate`]. A call's
//! numbers enter [`routing::route::route`] with a picture of the estate and leave as a trace.

mod actor;
pub mod bridge;
pub mod commands;
mod decide;
mod estate;
mod guard;
pub mod licence;
pub mod routing;
pub mod state;
mod tree;

pub use actor::{DomainBook, DomainsBook, Services};
pub use decide::{DomainCommand, DomainError, NewUsers};
pub use estate::{Estate, Messages, Picture, Registration, is_elph};
pub use tree::{child, generations};
