//! `command`: CoCon's command tree. A command is declared once (path, typed arguments, who may run it, help in English
//! and Russian, handler) and is then available over SSH, in the web console, in replays and in tests. Uses `kit` only.
//!
//! A line enters through [`Session::execute`], is split into words ([`words`]), led to a [`Command`] by the [`Tree`],
//! checked against the [`Caller`]'s grants and the declared parameters, run, and leaves as an [`Output`]: data first,
//! rendered as the manual's tables or as JSON ([`render`]).

mod call;
mod caller;
mod complete;
mod declare;
mod error;
mod output;
mod page;
pub mod range;
pub mod render;
mod session;
mod tree;
pub mod words;

pub use call::Call;
pub use caller::{Caller, Grants, GrantsError};
pub use complete::{Candidate, Completion};
pub use declare::{Command, Kind, Lang, Names, Param, Text};
pub use error::CommandError;
pub use output::{Block, Output, Table};
pub use page::{Page, Rows, said};
pub use session::{Answer, Outcome, Session, SessionInfo};
pub use tree::{DeclareError, Tree};

/// A handler with its share of the services: `with!(services, |services, call| …)`; what follows may await.
#[macro_export]
macro_rules! with {
    ($s:expr, |$services:ident, $call:ident| $body:expr) => {{
        let $services = $s.clone();
        move |$call: $crate::Call| {
            let $services = $services.clone();
            async move { $body }
        }
    }};
}
