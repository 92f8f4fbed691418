//! The actor `speech/book`: reads the phone book from time to time, and has the attendant listen for it.

use std::{sync::Arc, time::Duration};

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason};
use strum::IntoStaticStr;

use crate::clerk::{Clerk, book::Book, state::Taught};

/// Bytes of a book at most.
const BYTES: usize = 64 << 20;
/// How long a book may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what operators have taught.
const LOOK: Duration = Duration::from_secs(1);
/// After a book could not be read.
const AGAIN: Duration = Duration::from_secs(10);

struct Importer {
    clerk: Clerk,
    book: Option<String>,
    every: Duration,
    taught: Arc<Taught>,
    names: usize,
    last_error: Option<String>,
}

#[derive(Debug, IntoStaticStr)]
enum ImporterMsg {
    Read,
    Look,
}

pub fn child(clerk: Clerk, book: Option<String>, every: Duration) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new("speech/book")?, move |_| {
        let (clerk, book) = (clerk.clone(), book.clone());
        let taught = clerk.taught.load_full();
        async move { Ok(Importer { clerk, book, every, taught, names: 0, last_error: None }) }
    }))
}

async fn read(from: String) -> Result<Book, String> {
    let text = match from.strip_prefix("file://").or_else(|| (!from.contains("://")).then_some(from.as_str()))
    {
        Some(path) => tokio::fs::read_to_string(path).await.map_err(|e| e.to_string())?,
        None => {
            let client = awc::Client::builder().timeout(PATIENCE).finish();
            let mut response = client.get(&from).send().await.map_err(|e| e.to_string())?;
            if !response.status().is_success() {
                return Err(format!("it answers {}", response.status()));
            }
            let body = response.body().limit(BYTES).await.map_err(|e| e.to_string())?;
            String::from_utf8(body.to_vec()).map_err(|_| "it is no UTF-8".to_owned())?
        }
    };
    let parsed = tokio::task::spawn_blocking(move || Book::from_xml(&text)).await;
    parsed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

impl Actor for Importer {
    type Msg = ImporterMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.clerk.rebuild();
        cx.after(LOOK, ImporterMsg::Look);
        if self.book.is_some() {
            cx.after(Duration::ZERO, ImporterMsg::Read);
        }
        Ok(())
    }

    fn handle(&mut self, msg: ImporterMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            ImporterMsg::Look => {
                let now = self.clerk.taught.load_full();
                if !Arc::ptr_eq(&now, &self.taught) {
                    self.taught = now;
                    self.clerk.rebuild();
                }
                cx.after(LOOK, ImporterMsg::Look);
            }
            ImporterMsg::Read => {
                let Some(from) = self.book.clone() else { return Ok(()) };
                cx.spawn(read(from), |me, book, cx| {
                    let wait = match book {
                        Ok(book) => {
                            me.names = book.len();
                            me.last_error = None;
                            if **me.clerk.book.load() != book {
                                tracing::info!(names = book.len(), "the phone book was read");
                                me.clerk.book.store(Arc::new(book));
                                me.clerk.rebuild();
                            }
                            me.every
                        }
                        Err(e) => {
                            // What was read before still holds.
                            if me.last_error.as_ref() != Some(&e) {
                                tracing::warn!(error = %e, "the phone book cannot be read");
                            }
                            me.last_error = Some(e);
                            AGAIN.min(me.every)
                        }
                    };
                    cx.after(wait, ImporterMsg::Read);
                    Ok(())
                });
            }
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "names": self.names, "last_error": self.last_error })
    }
}
