//! The phone book service (manual, "Автосекретарь"; port 9990): names and numbers out of one source, the node's own
//! subscribers (`/ssw`), a database (`/sql`) or a directory (`/ldap`), as XML in the shape a phone reads.
//!
//! `curl 'localhost:9990/ssw?host=book&user_agent=cisco_search&translit=false&skip_no_disp=true'`

mod latin;
mod service;
mod shape;
mod sources;

pub use service::{Service, child};
pub use sources::{Ldap, Source, SourceError, Sql, sql_url};

/// Entries of an answer at most.
pub const ENTRIES: usize = 100_000;
/// Letters of a name, number or address at most.
const LONGEST: usize = 200;

/// Somebody who can be called.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Empty where the source has none.
    pub name: String,
    pub number: String,
    pub mail: Option<String>,
}

impl Entry {
    /// None where there is no number; what is too long is cut.
    pub fn new(name: &str, number: &str, mail: Option<&str>) -> Option<Self> {
        let text = |t: &str| t.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>();
        let number = text(number);
        (!number.is_empty()).then(|| Self {
            name: text(name),
            number,
            mail: mail.map(text).filter(|m| !m.is_empty()),
        })
    }
}
