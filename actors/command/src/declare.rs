//! How a command is declared.

use std::{future::Future, sync::Arc};

use futures::future::BoxFuture;

use crate::{Call, CommandError, Output, page};

/// Language of help texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lang {
    #[default]
    En,
    Ru,
}

/// A text in both languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub en: &'static str,
    pub ru: &'static str,
}

impl Text {
    pub fn get(&self, lang: Lang) -> &'static str {
        match lang {
            Lang::En => self.en,
            Lang::Ru => self.ru,
        }
    }
}

/// Names that may stand in a place, given what stands before it (variables and arguments so far).
pub type Names = Arc<dyn Fn(&Call) -> Vec<String> + Send + Sync>;

/// What an argument may be.
#[derive(Clone)]
pub enum Kind {
    Text,
    /// A whole number between the bounds.
    Number(u64, u64),
    Bool,
    OneOf(&'static [&'static str]),
    /// Shown to nobody, kept out of history and logs.
    Secret,
}

/// One argument or option.
#[derive(Clone)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub help: Text,
    pub required: bool,
    /// Takes all words that are left.
    pub many: bool,
    pub names: Option<Names>,
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Output, CommandError>> + Send + Sync>;
type Question = Arc<dyn Fn(&Call) -> String + Send + Sync>;

/// A command of the tree.
#[derive(Clone)]
pub struct Command {
    /// `domain/{domain}/np/declare`; `{…}` is a variable.
    pub path: &'static str,
    pub help: Text,
    pub args: Vec<Param>,
    pub options: Vec<Param>,
    pub flags: Vec<(&'static str, Text)>,
    /// What stands behind this option, to the end of the line, is the command's input as it is, whatever signs are in it.
    pub raw: Option<(&'static str, Text)>,
    /// Whether it changes anything; readers may not run it then.
    pub changes: bool,
    /// Only for system administrators, even to look.
    pub system: bool,
    /// For operators of any role: the handler shows and changes only the caller's own.
    pub everyone: bool,
    /// Whether its answer is a list that `--match`, `--limit` and `--after` cut.
    pub paged: bool,
    pub(crate) question: Option<Question>,
    pub(crate) handler: Handler,
}

impl Command {
    /// A command that only looks.
    pub fn look<F, Fut>(path: &'static str, en: &'static str, ru: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Output, CommandError>> + Send + 'static,
    {
        Self {
            path,
            help: Text { en, ru },
            args: Vec::new(),
            options: Vec::new(),
            flags: Vec::new(),
            raw: None,
            changes: false,
            system: false,
            everyone: false,
            paged: false,
            question: None,
            handler: Arc::new(move |call| Box::pin(handler(call))),
        }
    }

    /// A command that changes something.
    pub fn change<F, Fut>(path: &'static str, en: &'static str, ru: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Output, CommandError>> + Send + 'static,
    {
        Self { changes: true, ..Self::look(path, en, ru, handler) }
    }

    pub fn system_only(mut self) -> Self {
        self.system = true;
        self
    }

    /// Any operator may run it: the handler looks at [`Call::caller`] and keeps to the caller's own.
    pub fn for_everyone(mut self) -> Self {
        self.everyone = true;
        self
    }

    /// Gives a list its pages; lists get them when they are added to a [`crate::Tree`].
    pub(crate) fn pages(self) -> Self {
        let list = !self.changes && self.path.rsplit('/').next() == Some("list");
        if list && !self.options.iter().any(|o| o.name == "--limit") { self.paged() } else { self }
    }

    /// A command of another name that shows a list: it gets the same options.
    pub fn paged(self) -> Self {
        let mut me = self
            .option("--match", Kind::Text, "rows with this text, in any case", "строки с этим текстом")
            .option(
                "--limit",
                Kind::Number(1, page::LONGEST as u64),
                "rows at most; 1000, all with --json",
                "не больше строк; 1000, с --json все",
            )
            .option("--after", Kind::Text, "rows behind the one that begins so", "строки после этой");
        me.paged = true;
        me
    }

    /// Asks before it runs, unless `--force` is given. The text should say what is about to happen.
    pub fn confirm(mut self, question: impl Fn(&Call) -> String + Send + Sync + 'static) -> Self {
        self.question = Some(Arc::new(question));
        let help = Text { en: "do not ask", ru: "не спрашивать подтверждения" };
        self.flags.push(("--force", help));
        self
    }

    /// `--name ANYTHING`, to the end of the line: the command's input, where it does not come on standard input.
    pub fn raw(mut self, name: &'static str, en: &'static str, ru: &'static str) -> Self {
        self.raw = Some((name, Text { en, ru }));
        self
    }

    pub fn arg(mut self, name: &'static str, kind: Kind, en: &'static str, ru: &'static str) -> Self {
        let help = Text { en, ru };
        self.args.push(Param { name, kind, help, required: true, many: false, names: None });
        self
    }

    /// Makes the argument declared last optional.
    pub fn optional(mut self) -> Self {
        if let Some(a) = self.args.last_mut() {
            a.required = false;
        }
        self
    }

    /// Lets the argument declared last take all words that are left.
    pub fn many(mut self) -> Self {
        if let Some(a) = self.args.last_mut() {
            a.many = true;
        }
        self
    }

    /// Completion for the argument declared last.
    pub fn names(mut self, names: Names) -> Self {
        if let Some(a) = self.args.last_mut() {
            a.names = Some(names);
        }
        self
    }

    /// `--name VALUE`; the name includes the dashes.
    pub fn option(mut self, name: &'static str, kind: Kind, en: &'static str, ru: &'static str) -> Self {
        let help = Text { en, ru };
        self.options.push(Param { name, kind, help, required: false, many: false, names: None });
        self
    }

    /// Lets the option declared last take several words, up to the next `--`.
    pub fn option_many(mut self) -> Self {
        if let Some(o) = self.options.last_mut() {
            o.many = true;
        }
        self
    }

    pub fn option_names(mut self, names: Names) -> Self {
        if let Some(o) = self.options.last_mut() {
            o.names = Some(names);
        }
        self
    }

    pub fn flag(mut self, name: &'static str, en: &'static str, ru: &'static str) -> Self {
        self.flags.push((name, Text { en, ru }));
        self
    }

    /// One line: path and parameters.
    pub fn usage(&self) -> String {
        let mut out = format!("/{}", self.path.replace('{', "<").replace('}', ">"));
        for a in &self.args {
            let name = if a.many { format!("{}…", a.name) } else { a.name.to_owned() };
            out.push_str(&if a.required { format!(" <{name}>") } else { format!(" [<{name}>]") });
        }
        for o in &self.options {
            out.push_str(&format!(" [{} <{}>]", o.name, o.name.trim_start_matches('-')));
        }
        for (flag, _) in &self.flags {
            out.push_str(&format!(" [{flag}]"));
        }
        out
    }
}

impl Param {
    /// Checks one word.
    pub(crate) fn check(&self, word: &str) -> Result<(), CommandError> {
        let wrong = |what: String| Err(CommandError::Usage(format!("{}: {what}, not {word:?}", self.name)));
        match &self.kind {
            Kind::Text | Kind::Secret => Ok(()),
            Kind::Number(low, high) => match word.parse::<u64>() {
                Ok(n) if (*low..=*high).contains(&n) => Ok(()),
                _ => wrong(format!("a number from {low} to {high} is wanted")),
            },
            Kind::Bool if matches!(word, "true" | "false") => Ok(()),
            Kind::Bool => wrong("true or false is wanted".into()),
            Kind::OneOf(words) if words.contains(&word) => Ok(()),
            Kind::OneOf(words) => wrong(format!("one of {} is wanted", words.join(", "))),
        }
    }

    /// Words that may stand here.
    pub(crate) fn candidates(&self, call: &Call) -> Vec<String> {
        match (&self.names, &self.kind) {
            (Some(names), _) => names(call),
            (None, Kind::Bool) => vec!["true".into(), "false".into()],
            (None, Kind::OneOf(words)) => words.iter().map(|w| (*w).to_owned()).collect(),
            _ => Vec::new(),
        }
    }
}
