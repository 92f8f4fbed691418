//! Where names and numbers come from.

use std::time::Duration;

use domain::Estate;
use kit::Secret;
use ldap3::{LdapConnAsync, LdapConnSettings, Scope, SearchEntry, adapters::PagedResults};
use mysql_async::{Opts, OptsBuilder, Row, prelude::Queryable};

use crate::{ENTRIES, Entry};

/// How long a source may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Entries that a directory is asked for at a time.
const PAGE: i32 = 500;

/// A database.
#[derive(Clone)]
pub struct Sql {
    /// `mysql://USER@HOST:PORT/DATABASE`
    pub url: String,
    pub password: Option<Secret<String>>,
    /// Its columns are name, number and, where there is a third, mail.
    pub query: String,
}

/// A directory.
#[derive(Clone)]
pub struct Ldap {
    /// `ldap://HOST:PORT`, or `ldaps://…`
    pub url: String,
    /// Who asks; empty: nobody in particular.
    pub bind: String,
    pub password: Option<Secret<String>>,
    pub base: String,
    /// RFC 4515.
    pub filter: String,
    pub name: String,
    pub number: String,
    pub mail: String,
}

/// One source.
#[derive(Clone)]
pub enum Source {
    /// Numbers of this node's domains, with their `display_name`.
    Ssw(Estate),
    Sql(Sql),
    Ldap(Ldap),
}

/// Texts of a source's own errors may hold what it was asked with, but no password: those are never part of a question.
/// Whether a text is an address of a database.
///
/// # Errors
/// The text is no such address; the message says the form.
pub fn sql_url(text: &str) -> Result<(), String> {
    let wanted = "mysql://USER@HOST:PORT/DATABASE is wanted";
    Opts::from_url(text).map(drop).map_err(|e| format!("{wanted}, not {text:?}: {e}"))
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the database: {0}")]
    Sql(#[from] mysql_async::Error),
    #[error("the database's address: {0}")]
    SqlUrl(#[from] mysql_async::UrlError),
    #[error("the query has {0} columns; name, number and perhaps mail are wanted")]
    Columns(usize),
    #[error("the directory: {0}")]
    Ldap(#[from] ldap3::LdapError),
    #[error("it did not answer for {} s", PATIENCE.as_secs())]
    Slow,
    #[error("more than {ENTRIES} entries")]
    Many,
    #[error("there is no domain {0}")]
    Domain(String),
}

impl Source {
    /// Everybody in it, by name; `domain` narrows the node's own.
    pub async fn read(&self, domain: Option<&str>) -> Result<Vec<Entry>, SourceError> {
        let reading = async {
            match self {
                Self::Ssw(estate) => own(estate, domain),
                Self::Sql(sql) => sql.read().await,
                Self::Ldap(ldap) => ldap.read().await,
            }
        };
        let mut all = tokio::time::timeout(PATIENCE, reading).await.map_err(|_| SourceError::Slow)??;
        all.sort();
        Ok(all)
    }
}

fn own(estate: &Estate, wanted: Option<&str>) -> Result<Vec<Entry>, SourceError> {
    let picture = estate.picture();
    if let Some(wanted) = wanted.filter(|w| !picture.domains.contains_key(*w)) {
        return Err(SourceError::Domain(wanted.to_owned()));
    }
    let mut all = Vec::new();
    for (name, domain) in &picture.domains {
        if wanted.is_some_and(|w| w != name) {
            continue;
        }
        for alias in domain.aliases.values() {
            let name = match alias.properties.get("display_name") {
                Some(domain::state::Value::Plain(name)) => name.as_str(),
                _ => "",
            };
            all.extend(Entry::new(name, &alias.address, None));
        }
        if all.len() > ENTRIES {
            return Err(SourceError::Many);
        }
    }
    Ok(all)
}

impl Sql {
    async fn read(&self) -> Result<Vec<Entry>, SourceError> {
        let mut options = OptsBuilder::from_opts(Opts::from_url(&self.url)?);
        if let Some(password) = &self.password {
            options = options.pass(Some(password.expose().clone()));
        }
        let mut connection = mysql_async::Conn::new(options).await?;
        // One more than there may be shows that there are too many, and no more than that is held.
        let mut rows = connection.query_iter(self.query.as_str()).await?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().await? {
            all.extend(entry(row)?);
            if all.len() > ENTRIES {
                return Err(SourceError::Many);
            }
        }
        drop(rows);
        connection.disconnect().await?;
        Ok(all)
    }
}

/// A row as an entry; numbers may be numbers there.
fn entry(row: Row) -> Result<Option<Entry>, SourceError> {
    let columns = row.len();
    if !(2..=3).contains(&columns) {
        return Err(SourceError::Columns(columns));
    }
    let text = |value: mysql_async::Value| match value {
        mysql_async::Value::NULL => String::new(),
        mysql_async::Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    };
    let mut values = row.unwrap().into_iter().map(text);
    let (name, number) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
    Ok(Entry::new(&name, &number, values.next().as_deref()))
}

impl Ldap {
    async fn read(&self) -> Result<Vec<Entry>, SourceError> {
        let settings = LdapConnSettings::new().set_conn_timeout(PATIENCE);
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &self.url).await?;
        let driven = tokio::spawn(async move {
            if let Err(e) = connection.drive().await {
                tracing::debug!(error = %e, "the directory's connection has ended");
            }
        });
        let read = self.search(&mut ldap).await;
        let _ = ldap.unbind().await;
        driven.abort();
        read
    }

    async fn search(&self, ldap: &mut ldap3::Ldap) -> Result<Vec<Entry>, SourceError> {
        if !self.bind.is_empty() {
            let password = self.password.as_ref().map_or("", |p| p.expose().as_str());
            ldap.simple_bind(&self.bind, password).await?.success()?;
        }
        let attributes = vec![self.name.as_str(), self.number.as_str(), self.mail.as_str()];
        let pages: Vec<Box<dyn ldap3::adapters::Adapter<'_, &str, Vec<&str>>>> =
            vec![Box::new(PagedResults::new(PAGE))];
        let mut found =
            ldap.streaming_search_with(pages, &self.base, Scope::Subtree, &self.filter, attributes).await?;
        let mut all = Vec::new();
        while let Some(entry) = found.next().await? {
            let entry = SearchEntry::construct(entry);
            // Attributes' names are alike in any letters (RFC 4512, 2.5).
            let first = |wanted: &str| {
                let values = entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                values.and_then(|(_, all)| all.first()).map(String::as_str)
            };
            let number = first(&self.number).unwrap_or_default();
            all.extend(Entry::new(first(&self.name).unwrap_or_default(), number, first(&self.mail)));
            if all.len() > ENTRIES {
                return Err(SourceError::Many);
            }
        }
        found.finish().await.success()?;
        Ok(all)
    }
}
