//! `web`: the web admin (port 8080). Uses `kit`, `access` and `command`.
//!
//! Everything the page shows is the answer of a command of the tree, asked with the operator's own grants
//! ([`api`]); what changes while one looks comes as server-sent events ([`live`]). The page is three static files.

mod api;
mod live;
mod sessions;
mod tree;

pub use tree::{Front, Program, Proxies, child};
