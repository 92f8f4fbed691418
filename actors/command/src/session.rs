//! An operator's session: the place in the tree, the language, and one line after another.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::{
    CommandError, Output, Table,
    call::Call,
    caller::Caller,
    complete::{self, Completion},
    declare::{Command, Kind, Lang, Text},
    render,
    tree::{Tree, absolute, allowed},
    words,
};

/// Words of the shell itself, callable everywhere.
pub(crate) const BUILT_IN: &[(&str, Text)] = &[
    ("cd", Text { en: "go to a directory", ru: "перейти в каталог" }),
    ("ls", Text { en: "list a directory", ru: "показать каталог" }),
    ("pwd", Text { en: "show where you are", ru: "показать текущий каталог" }),
    (
        "help",
        Text {
            en: "explain a command or list all", ru: "описание команды или список всех"
        },
    ),
    ("lang", Text { en: "language of help: en or ru", ru: "язык подсказок: en или ru" }),
    ("exit", Text { en: "end the session", ru: "завершить сеанс" }),
];
pub(crate) const JSON_HELP: Text = Text { en: "answer as JSON", ru: "ответ в формате JSON" };
pub(crate) const HELP_HELP: Text = Text { en: "explain this command", ru: "описание команды" };

/// What the node says of itself in prompts and trailers.
#[derive(Clone)]
pub struct SessionInfo {
    /// `ds1@ecss1`
    pub node: String,
    /// The installation's name as the licence has it now, behind `#` in the prompt.
    pub installation: Arc<dyn Fn() -> String + Send + Sync>,
}

/// See the module.
pub struct Session {
    tree: Arc<Tree>,
    info: SessionInfo,
    clock: kit::Clock,
    pub caller: Caller,
    pub lang: Lang,
    cwd: Vec<String>,
}

/// What one line led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing to say (`cd`, an empty line).
    Quiet,
    /// Text to show and the exit status.
    Said {
        text: String,
        status: u32,
    },
    /// Wants a yes before it goes on; run the line again with [`Session::execute_confirmed`].
    Asks {
        question: String,
    },
    Exit,
}

/// The data of a command's answer.
pub type Answer = Result<Output, CommandError>;

enum Parsed {
    Quiet,
    Exit,
    Said(Output),
    Run(Box<(Arc<Command>, Call, bool)>),
}

impl Session {
    pub fn new(tree: Arc<Tree>, info: SessionInfo, clock: kit::Clock, caller: Caller) -> Self {
        Self { tree, info, clock, caller, lang: Lang::En, cwd: Vec::new() }
    }

    pub fn cwd(&self) -> String {
        format!("/{}", self.cwd.join("/"))
    }

    /// `admin@[ds1@ecss1#ECSS 010145]:/$ `, the manual's prompt.
    pub fn prompt(&self) -> String {
        format!("{}@[{}#{}]:{}$ ", self.caller.name, self.info.node, (self.info.installation)(), self.cwd())
    }

    pub fn complete(&self, line: &str) -> Completion {
        complete::complete(&self.tree, &self.cwd, &self.caller, line, self.lang)
    }

    /// Whether the line holds a secret, and so must not be remembered.
    pub fn holds_secret(&self, line: &str) -> bool {
        let words = words::split(line);
        let Some(first) = words.first() else { return false };
        let Ok(place) = self.tree.walk(&absolute(&self.cwd, &first.text), &self.caller) else { return false };
        let Some(command) = &place.directory.command else { return false };
        command.args.iter().chain(&command.options).any(|p| matches!(p.kind, Kind::Secret))
    }

    /// Runs a line for a person or a script that can be asked.
    pub async fn execute(&mut self, line: &str, input: Option<Vec<u8>>) -> Outcome {
        self.run(line, input, false).await
    }

    /// Runs a line that was answered with yes.
    pub async fn execute_confirmed(&mut self, line: &str, input: Option<Vec<u8>>) -> Outcome {
        self.run(line, input, true).await
    }

    /// Runs a line where nobody can be asked: `ssh … 'domain/list'`, the web, replays.
    pub async fn execute_alone(&mut self, line: &str, input: Option<Vec<u8>>) -> (Answer, Outcome) {
        let (answer, outcome) = self.run_whole(line, input, false).await;
        match outcome {
            Outcome::Asks { question } => {
                let json = line.split_whitespace().any(|w| w == "--json");
                failed(CommandError::Unconfirmed(question), json)
            }
            outcome => (answer, outcome),
        }
    }

    async fn run(&mut self, line: &str, input: Option<Vec<u8>>, confirmed: bool) -> Outcome {
        self.run_whole(line, input, confirmed).await.1
    }

    /// The path of the command that a line would run.
    pub fn command_of(&mut self, line: &str) -> Option<String> {
        match self.parse(line, None) {
            Ok(Parsed::Run(run)) => Some(run.0.path.to_owned()),
            _ => None,
        }
    }

    /// Runs a line and gives its data beside its text; for callers that ask their person themselves.
    pub async fn run_whole(
        &mut self,
        line: &str,
        input: Option<Vec<u8>>,
        confirmed: bool,
    ) -> (Answer, Outcome) {
        let began = self.clock.now();
        let (line, input) = match self.raw_part(line) {
            // As elsewhere, - is what comes on standard input.
            Some((line, "-")) => (line, input),
            Some((line, raw)) => (line, Some(raw.as_bytes().to_vec())),
            None => (line, input),
        };
        let wants_json = line.split_whitespace().any(|w| w == "--json");
        let (command, call, json) = match self.parse(line, input) {
            Ok(Parsed::Quiet) => return (Ok(Output::default()), Outcome::Quiet),
            Ok(Parsed::Exit) => return (Ok(Output::default()), Outcome::Exit),
            Ok(Parsed::Said(output)) => {
                let text = if wants_json { json_text(&output.to_json()) } else { render::text(&output) };
                return (Ok(output), Outcome::Said { text, status: 0 });
            }
            Ok(Parsed::Run(run)) => *run,
            Err(e) => return failed(e, wants_json),
        };
        if let Some(question) = command.question.as_ref().filter(|_| !confirmed && !call.flag("--force")) {
            let name = command.path.rsplit('/').next().unwrap_or_default();
            let question = format!("[{name}] {}", question(&call));
            return (Ok(Output::default()), Outcome::Asks { question });
        }
        let page = command.paged.then(|| call.page());
        let mut done = (command.handler)(call).await;
        if let (Some(page), Ok(output)) = (page, &mut done)
            && !output.paged
            && let Err(e) = page.cut(output)
        {
            done = Err(e);
        }
        count(&command, &done, (self.clock.now() - began).to_std().unwrap_or(Duration::ZERO));
        match done {
            Ok(output) => {
                let text = if json {
                    json_text(&output.to_json())
                } else {
                    render::text(&output) + &self.trailer(began)
                };
                (Ok(output), Outcome::Said { text, status: 0 })
            }
            Err(e) if json => failed(e, true),
            Err(e) => {
                let said = Outcome::Said { text: error_text(&e) + &self.trailer(began), status: e.status() };
                (Err(e), said)
            }
        }
    }

    /// A line whose command takes the rest of it as it is: what stands before, and that rest.
    fn raw_part<'l>(&self, line: &'l str) -> Option<(&'l str, &'l str)> {
        let words = words::split(line);
        let place = self.tree.walk(&absolute(&self.cwd, &words.first()?.text), &self.caller).ok()?;
        let (name, _) = place.directory.command.as_ref()?.raw?;
        let at = words.iter().find(|w| w.text == name)?.start;
        let raw = line[at + name.len()..].trim();
        (!raw.is_empty()).then_some((&line[..at], raw))
    }

    fn trailer(&self, began: DateTime<Utc>) -> String {
        let spent = (self.clock.now() - began).to_std().unwrap_or(Duration::ZERO);
        render::trailer(began, spent, &self.info.node)
    }

    fn parse(&mut self, line: &str, input: Option<Vec<u8>>) -> Result<Parsed, CommandError> {
        let words: Vec<String> = words::split_whole(line)?.into_iter().map(|w| w.text).collect();
        let Some((first, rest)) = words.split_first() else { return Ok(Parsed::Quiet) };
        match first.as_str() {
            "cd" => {
                let target = absolute(&self.cwd, rest.first().map_or("/", String::as_str));
                let place = self.tree.walk(&target, &self.caller)?;
                if !place.directory.is_group() {
                    return Err(CommandError::Usage(format!(
                        "/{} is a command, not a directory",
                        target.join("/")
                    )));
                }
                self.cwd = target;
                return Ok(Parsed::Quiet);
            }
            "pwd" => return Ok(Parsed::Said(Output::text(self.cwd()))),
            "ls" => return self.list(rest.first().map_or("", String::as_str)).map(Parsed::Said),
            "help" | "?" => return self.help(rest.first().map(String::as_str)).map(Parsed::Said),
            "lang" => {
                self.lang = match rest.first().map(String::as_str) {
                    Some("en") => Lang::En,
                    Some("ru") => Lang::Ru,
                    _ => return Err(CommandError::Usage("lang en or lang ru".into())),
                };
                return Ok(Parsed::Quiet);
            }
            "exit" | "quit" | "logout" => return Ok(Parsed::Exit),
            _ => {}
        }
        let segments = absolute(&self.cwd, first);
        // A command of the root is global, as in the original: callable from anywhere by its bare name.
        let place = self.tree.walk(&segments, &self.caller).or_else(|e| {
            if first.contains('/') {
                Err(e)
            } else {
                self.tree.walk(std::slice::from_ref(first), &self.caller).map_err(|_| e)
            }
        })?;
        let Some(command) = place.directory.command.clone() else {
            return Err(CommandError::Usage(format!(
                "/{0} is a directory; `cd {0}` goes there, `ls {0}` lists it",
                segments.join("/")
            )));
        };
        if rest.iter().any(|w| w == "--help") {
            return Ok(Parsed::Said(Output::text(explain(&command, self.lang))));
        }
        if !allowed(&command, &place.vars, &self.caller) {
            let roles = self.caller.grants.to_string();
            return Err(CommandError::Denied(format!("your roles ({roles}) do not allow /{}", command.path)));
        }
        let json = rest.iter().any(|w| w == "--json");
        let rest: Vec<String> = rest.iter().filter(|w| *w != "--json").cloned().collect();
        let mut call = Call::new(self.caller.clone(), place.vars, input);
        call.json = json;
        call.fill(&command, &rest)?;
        Ok(Parsed::Run(Box::new((command, call, json))))
    }

    fn list(&self, typed: &str) -> Result<Output, CommandError> {
        let place = self.tree.walk(&absolute(&self.cwd, typed), &self.caller)?;
        let mut table = Table::new(["Name", "Kind", "Description"]);
        for (word, d) in place.directory.words.iter().filter(|(w, _)| !w.starts_with('.')) {
            if d.is_group() && d.visible(&place.vars, &self.caller) {
                table.row([format!("{word}/"), "directory".into(), String::new()]);
            }
            if let Some(c) = d.command.as_ref().filter(|c| allowed(c, &place.vars, &self.caller)) {
                table.row([*word, "command", c.help.get(self.lang)]);
            }
        }
        if let Some((variable, _)) = &place.directory.variable {
            let so_far = Call::new(self.caller.clone(), place.vars.clone(), None);
            for name in self.tree.variable_names(variable, &so_far) {
                table.row([format!("{name}/"), "directory".into(), (*variable).to_owned()]);
            }
        }
        Ok(Output::table(table))
    }

    fn help(&self, typed: Option<&str>) -> Result<Output, CommandError> {
        if let Some(typed) = typed {
            if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == typed) {
                return Ok(Output::text(format!("{name}: {}", text.get(self.lang))));
            }
            let place = self.tree.walk(&absolute(&self.cwd, typed), &self.caller)?;
            if let Some(command) = &place.directory.command {
                return Ok(Output::text(explain(command, self.lang)));
            }
        }
        let prefix = absolute(&self.cwd, typed.unwrap_or("/")).join("/");
        let mut table = Table::new(["Command", "Description"]);
        if typed.is_none() {
            for (name, text) in BUILT_IN {
                table.row([(*name).to_owned(), text.get(self.lang).to_owned()]);
            }
        }
        for command in self.tree.commands() {
            let shown = command.path.replace('{', "<").replace('}', ">");
            let seen = self.caller.grants.system
                || command.everyone
                || (!command.system
                    && (self.caller.grants.read_only || command.path.starts_with("domain/{domain}/")));
            // A path with a real domain lists what stands under the variable.
            let generic = generic(&prefix);
            if seen && (command.path.starts_with(&prefix) || command.path.starts_with(&generic)) {
                table.row([format!("/{shown}"), command.help.get(self.lang).to_owned()]);
            }
        }
        let hint = match self.lang {
            Lang::En => {
                "help <command> explains one; Tab completes; --json answers as JSON; lang ru speaks Russian"
            }
            Lang::Ru => {
                "help <команда> — подробно; Tab — дополнение; --json — ответ в JSON; lang en — английский"
            }
        };
        Ok(Output::table(table).and_text(hint))
    }
}

fn generic(prefix: &str) -> String {
    match prefix.strip_prefix("domain/").and_then(|r| r.split_once('/').or(Some((r, "")))) {
        Some((first, rest)) if !first.is_empty() => format!("domain/{{domain}}/{rest}"),
        _ => prefix.to_owned(),
    }
}

fn failed(e: CommandError, json: bool) -> (Answer, Outcome) {
    let text =
        if json { json_text(&json!({ "error": e.to_string(), "code": e.code() })) } else { error_text(&e) };
    let status = e.status();
    (Err(e), Outcome::Said { text, status })
}

fn error_text(e: &CommandError) -> String {
    format!("Command error: {e}\n")
}

fn json_text(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn count(command: &Command, done: &Answer, took: Duration) {
    let outcome = if done.is_ok() { "ok" } else { "error" };
    metrics::counter!("hypha_commands_total", "path" => command.path, "outcome" => outcome).increment(1);
    metrics::histogram!("hypha_command_seconds").record(took.as_secs_f64());
}

/// Help for one command.
fn explain(command: &Command, lang: Lang) -> String {
    let (usage, arguments, options) = match lang {
        Lang::En => ("Usage", "Arguments", "Options"),
        Lang::Ru => ("Вызов", "Аргументы", "Ключи"),
    };
    let mut out = format!("{}\n{usage}: {}\n", command.help.get(lang), command.usage());
    if !command.args.is_empty() {
        out.push_str(&format!("{arguments}:\n"));
        for a in &command.args {
            out.push_str(&format!(
                "  {:<24} {}{}\n",
                format!("<{}>", a.name),
                a.help.get(lang),
                bounds(&a.kind)
            ));
        }
    }
    out.push_str(&format!("{options}:\n"));
    for o in &command.options {
        out.push_str(&format!("  {:<24} {}{}\n", o.name, o.help.get(lang), bounds(&o.kind)));
    }
    let own = command.flags.iter().copied().chain(command.raw);
    let common = [("--json", JSON_HELP), ("--help", HELP_HELP)];
    let common = common.into_iter().filter(|(flag, _)| command.raw.is_none_or(|(name, _)| name != *flag));
    for (flag, text) in own.chain(common) {
        out.push_str(&format!("  {flag:<24} {}\n", text.get(lang)));
    }
    out
}

fn bounds(kind: &Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => String::new(),
        Kind::Number(low, high) => format!(" ({low}..{high})"),
        Kind::Bool => " (true | false)".into(),
        Kind::OneOf(words) => format!(" ({})", words.join(" | ")),
    }
}

impl crate::tree::Directory {
    /// Whether the caller may run anything below.
    pub(crate) fn visible(
        &self,
        vars: &std::collections::BTreeMap<&'static str, String>,
        caller: &Caller,
    ) -> bool {
        if caller.grants.system {
            return true;
        }
        self.command.as_ref().is_some_and(|c| allowed(c, vars, caller))
            || self.words.values().any(|d| d.visible(vars, caller))
            || self.variable.as_ref().is_some_and(|(name, d)| {
                if *name == "domain" {
                    !caller.grants.domains.is_empty() || caller.grants.read_only
                } else {
                    d.visible(vars, caller)
                }
            })
    }
}

#[cfg(test)]
mod tests;
