//! The auto-attendant (автосекретарь): a name is said, its number found.

pub mod book;
pub mod listening;
pub mod records;
pub mod search;
pub mod state;

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;

use self::{
    book::Book,
    search::Found,
    state::{Table, Taught},
};
use crate::{
    dictionary::Dictionary,
    grammar::Grammar,
    lexicon::Lexicon,
    pool::Pool,
    recogniser::{Heard, RecogniserError, Task},
};

/// Below this a name of the book is not what was said.
const SURE: f32 = 0.5;
/// Words of a book that are looked for one by one, at most.
const BOOKS: usize = 5_000;
/// How much worse a frame than any other known name one of the book may explain what was said. Of 180 names of a book of 300, in
/// three voices, 3 are taken for none with it and 3 for another, and of 180 others 5 for one of the book; 0 to 1.5 do as well.
const WORSE: f32 = 0.5;

/// What the attendant listens for now, and what it looks into.
pub struct Picture {
    pub book: Arc<Book>,
    taught: Arc<Taught>,
    lexicon: Arc<Lexicon>,
    pub aliases: search::Aliases,
    /// None where the book is empty.
    task: Option<Task>,
    /// Any known name, of the book or not.
    names: Task,
}

/// The auto-attendant, as its service and scripts use it; clones share it.
#[derive(Clone)]
pub struct Clerk {
    pub closed: Pool,
    /// Any speech: it tells what was said where no name of the book was.
    pub open: Option<Pool>,
    pub taught: Arc<ArcSwap<Taught>>,
    pub book: Arc<ArcSwap<Book>>,
    /// Words and grammars of the operator's own files.
    pub lexicon: Arc<ArcSwap<Lexicon>>,
    picture: Arc<ArcSwap<Picture>>,
}

impl Picture {
    fn new(book: Arc<Book>, taught: Arc<Taught>, lexicon: Arc<Lexicon>) -> Self {
        let aliases = taught.aliases();
        let names = names(&taught, &lexicon, &book);
        let task = listening::grammar(&book, &aliases).map(|g| Task::whole(g, names.dictionary.clone()));
        Self { book, taught, lexicon, aliases, task, names }
    }

    /// How words are said, as operators have told; the same one until they tell more, so that recognisers know it again.
    pub fn dictionary(&self) -> Arc<Dictionary> {
        self.names.dictionary.clone()
    }

    /// What recognisers will be asked for, to make ready for.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.task.iter().chain([&self.names])
    }
}

/// What one piece of speech came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was said, as far as it was understood.
    pub recognised: String,
    pub found: Option<Found>,
    pub confidence: f32,
}

impl Clerk {
    pub fn new(closed: Pool, open: Option<Pool>) -> Self {
        let (taught, book, lexicon) = <(Arc<ArcSwap<_>>, Arc<ArcSwap<_>>, Arc<ArcSwap<_>>)>::default();
        let picture = Picture::new(book.load_full(), taught.load_full(), lexicon.load_full());
        let picture = Arc::new(ArcSwap::from_pointee(picture));
        Self { closed, open, taught, book, lexicon, picture }
    }

    pub fn picture(&self) -> Arc<Picture> {
        self.picture.load_full()
    }

    /// Listens for the book and the names as they are now; nothing is made again while they are the same. Who is being listened
    /// to is heard to the end with what was.
    pub fn rebuild(&self) {
        let (book, taught, lexicon) =
            (self.book.load_full(), self.taught.load_full(), self.lexicon.load_full());
        let now = self.picture();
        let same = Arc::ptr_eq(&book, &now.book)
            && Arc::ptr_eq(&taught, &now.taught)
            && Arc::ptr_eq(&lexicon, &now.lexicon);
        if !same {
            self.picture.store(Arc::new(Picture::new(book, taught, lexicon)));
        }
    }

    /// Hears one piece of speech. `before` is what was understood of the pieces before it.
    pub async fn hear(&self, samples: Vec<f32>, before: &str) -> Result<Answer, RecogniserError> {
        let picture = self.picture();
        let closed = match &picture.task {
            Some(task) => self.closed.hear(task.clone(), samples.clone()).await?,
            None => Heard::default(),
        };
        let confidence = closed.hypotheses.first().map_or(0.0, |h| h.confidence);
        // What else may have been said: any speech where that can be recognised, else any name that is known.
        let other = match self.open.as_ref().filter(|o| o.threads() > 0) {
            Some(open) if confidence < SURE => {
                let task = Task::whole(Grammar::Open, picture.dictionary());
                open.hear(task, samples).await?
            }
            Some(_) => Heard::default(),
            None => self.closed.hear(picture.names.clone(), samples).await?,
        };
        let same = book::key(closed.text()) == book::key(other.text());
        let in_book = match closed.score.zip(other.score) {
            Some((book, any)) => same || book >= any - WORSE,
            None => confidence >= SURE,
        };
        let heard: Vec<String> = match in_book {
            true => closed.hypotheses.iter().map(|h| h.text.clone()).collect(),
            // Of names that merely are known the likeliest counts; of any speech also what else it may have been.
            false => {
                let count = if self.open.is_some() { usize::MAX } else { 1 };
                other.hypotheses.iter().take(count).map(|h| h.text.clone()).collect()
            }
        };
        Ok(answer(heard, before, &picture, confidence))
    }
}

/// What was heard, looked up: alone, and behind what was understood before.
fn answer(mut heard: Vec<String>, before: &str, picture: &Picture, confidence: f32) -> Answer {
    let recognised = heard.first().cloned().unwrap_or_default();
    if !before.is_empty() && !recognised.is_empty() {
        heard.push(format!("{before} {recognised}"));
    }
    heard.retain(|h| !h.is_empty());
    let found = search::search(&heard, &picture.book, &picture.aliases);
    Answer { recognised, found, confidence }
}

/// All names that are known, one after another.
fn names(taught: &Taught, lexicon: &Lexicon, book: &Book) -> Task {
    let rows = |table| taught.rows(table).map(|(_, row)| row.name.clone());
    let first = rows(Table::FullNames).chain(rows(Table::Aliases)).collect();
    // Names of the book need not be among those that everybody knows.
    let own = book.entries().flat_map(|(name, _)| name.split(' ').map(str::to_owned)).take(BOOKS);
    let last: BTreeSet<String> = rows(Table::Words).chain(own).collect();
    let last = last.into_iter().collect();
    // What operators teach holds against their files.
    let mut dictionary = lexicon.dictionary.clone();
    dictionary.merge(taught.dictionary());
    Task::whole(Grammar::Names { first, last }, Arc::new(dictionary))
}
