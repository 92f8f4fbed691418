//! The actor `speech/book`: reads the phone book from time to time, and operators' words and grammars when they change, and
//! has the attendant listen for them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason};
use strum::IntoStaticStr;

use crate::{
    clerk::{Clerk, book::Book},
    lexicon::{self, Lexicon, Seen},
};

/// Bytes of a book at most.
const BYTES: usize = 64 << 20;
/// How long a book may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what operators have taught.
const LOOK: Duration = Duration::from_secs(1);
/// After a book could not be read.
const AGAIN: Duration = Duration::from_secs(10);

/// Where a phone book is.
#[derive(Clone)]
pub struct PhoneBook {
    /// A file, or `http://…`.
    pub from: String,
    /// What its door asks for, where it is the node's own.
    pub token: Option<kit::Secret<String>>,
}

struct Importer {
    clerk: Clerk,
    book: Option<PhoneBook>,
    every: Duration,
    /// Where the operator's words and grammars are, and what was seen there.
    words: PathBuf,
    seen: Seen,
    names: usize,
    last_error: Option<String>,
    words_error: Option<String>,
}

#[derive(Debug, IntoStaticStr)]
enum ImporterMsg {
    Read,
    Look,
}

pub fn child(
    clerk: Clerk,
    book: Option<PhoneBook>,
    every: Duration,
    words: PathBuf,
) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new("speech/book")?, move |_| {
        let importer = Importer {
            clerk: clerk.clone(),
            book: book.clone(),
            every,
            words: words.clone(),
            seen: Seen::new(),
            names: 0,
            last_error: None,
            words_error: None,
        };
        async move { Ok(importer) }
    }))
}

async fn read(PhoneBook { from, token }: PhoneBook) -> Result<Book, String> {
    let text = match from.strip_prefix("file://").or_else(|| (!from.contains("://")).then_some(from.as_str()))
    {
        Some(path) => tokio::fs::read_to_string(path).await.map_err(|e| e.to_string())?,
        None => {
            let client = awc::Client::builder().timeout(PATIENCE).finish();
            let mut request = client.get(&from);
            if let Some(token) = token {
                request = request.bearer_auth(token.expose());
            }
            let mut response = request.send().await.map_err(|e| e.to_string())?;
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

impl Importer {
    /// Looks whether the operator's files have changed, and takes them when they are right.
    fn look_at_words(&mut self, cx: &mut Cx<'_, Self>) {
        let (words, before) = (self.words.clone(), self.seen.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let seen = lexicon::seen(&words);
            (seen != before).then(|| (Lexicon::read(&words, &seen), seen))
        });
        cx.spawn(looking, |me, looked, cx| {
            if let Ok(Some((lexicon, seen))) = looked {
                me.seen = seen;
                match lexicon {
                    Ok(lexicon) => {
                        let (words, grammars) = (lexicon.dictionary.len(), lexicon.grammars.len());
                        tracing::info!(words, grammars, "the operator's words and grammars were read");
                        me.words_error = None;
                        me.clerk.lexicon.store(Arc::new(lexicon));
                        me.clerk.rebuild();
                    }
                    Err(e) => {
                        // What was read before still holds.
                        tracing::warn!(error = %e, "the operator's words and grammars stay as they were");
                        me.words_error = Some(e.to_string());
                    }
                }
            }
            cx.after(LOOK, ImporterMsg::Look);
            Ok(())
        });
    }
}

impl Actor for Importer {
    type Msg = ImporterMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.after(Duration::ZERO, ImporterMsg::Look);
        if self.book.is_some() {
            cx.after(Duration::ZERO, ImporterMsg::Read);
        }
        Ok(())
    }

    fn handle(&mut self, msg: ImporterMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {
            ImporterMsg::Look => {
                // Operators may have taught something.
                self.clerk.rebuild();
                self.look_at_words(cx);
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
        serde_json::json!({
            "names": self.names,
            "last_error": self.last_error,
            "words": self.words,
            "words_error": self.words_error,
        })
    }
}
