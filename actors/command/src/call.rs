//! A command under way: who called, with what.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Caller, Command, CommandError, page::Page, range};

/// What a handler is given; every word has passed its parameter's check.
#[derive(Debug, Clone)]
pub struct Call {
    pub caller: Caller,
    vars: BTreeMap<&'static str, String>,
    args: BTreeMap<&'static str, Vec<String>>,
    flags: BTreeSet<&'static str>,
    /// What came with the command on its standard input.
    pub input: Option<Vec<u8>>,
    /// Whether the answer is read by a program.
    pub json: bool,
}

impl Call {
    pub(crate) fn new(caller: Caller, vars: BTreeMap<&'static str, String>, input: Option<Vec<u8>>) -> Self {
        Self { caller, vars, args: BTreeMap::new(), flags: BTreeSet::new(), input, json: false }
    }

    /// A variable of the path, `{domain}`.
    pub fn var(&self, name: &str) -> &str {
        self.vars.get(name).map_or("", String::as_str)
    }

    /// An argument or option; empty when optional and not given.
    pub fn get(&self, name: &str) -> &str {
        self.args.get(name).and_then(|w| w.first()).map_or("", String::as_str)
    }

    pub fn opt(&self, name: &str) -> Option<&str> {
        self.args.get(name).and_then(|w| w.first()).map(String::as_str)
    }

    /// All words of an argument or option that takes many.
    pub fn all(&self, name: &str) -> &[String] {
        self.args.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.flags.contains(name)
    }

    /// A number that its parameter's bounds have let through.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.opt(name)?.parse().ok()
    }

    /// The rows of a list that are asked for.
    pub fn page(&self) -> Page {
        let own = |name| self.opt(name).map(str::to_owned);
        let limit = self.number("--limit").and_then(|l| usize::try_from(l).ok());
        Page::new(own("--match"), own("--after"), limit, self.json)
    }

    /// An argument as a range of numbers.
    pub fn range(&self, name: &str) -> Result<Vec<String>, CommandError> {
        range::expand(self.get(name)).map_err(|e| CommandError::Usage(e.to_string()))
    }

    /// Lays words out over the declared parameters.
    pub(crate) fn fill(&mut self, command: &Command, words: &[String]) -> Result<(), CommandError> {
        let mut left = words.iter().map(String::as_str).peekable();
        let mut positional = 0;
        while let Some(word) = left.next() {
            if word.starts_with("--") || command.options.iter().any(|o| o.name == word) {
                let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
                if let Some((flag, _)) = command.flags.iter().find(|(f, _)| *f == name) {
                    self.flags.insert(flag);
                    continue;
                }
                let option = command
                    .options
                    .iter()
                    .find(|o| o.name == name)
                    .ok_or_else(|| unknown_option(command, name))?;
                let mut values: Vec<&str> = value.into_iter().collect();
                while value.is_none() && (values.is_empty() || option.many) {
                    match left
                        .next_if(|w| !w.starts_with("--") && command.options.iter().all(|o| o.name != *w))
                    {
                        Some(w) => values.push(w),
                        None => break,
                    }
                }
                if values.is_empty() {
                    return Err(CommandError::Usage(format!(
                        "{name} wants a value. Usage: {}",
                        command.usage()
                    )));
                }
                for v in &values {
                    option.check(v)?;
                }
                self.args.insert(option.name, values.into_iter().map(str::to_owned).collect());
                continue;
            }
            let Some(param) = command.args.get(positional) else {
                return Err(CommandError::Usage(format!(
                    "{word:?} is one argument too many. Usage: {}",
                    command.usage()
                )));
            };
            param.check(word)?;
            self.args.entry(param.name).or_default().push(word.to_owned());
            if !param.many {
                positional += 1;
            }
        }
        let missing = command.args.iter().find(|a| a.required && !self.args.contains_key(a.name));
        if let Some(param) = missing {
            let usage = command.usage();
            return Err(CommandError::Usage(format!(
                "<{}> is missing: {}. Usage: {usage}",
                param.name, param.help.en
            )));
        }
        Ok(())
    }

    /// As [`Call::fill`], as far as it goes; for completion.
    pub(crate) fn fill_loosely(&mut self, command: &Command, words: &[String]) {
        let plain = words.iter().filter(|w| !w.starts_with("--"));
        for (param, word) in command.args.iter().zip(plain) {
            self.args.entry(param.name).or_default().push(word.clone());
        }
    }
}

fn unknown_option(command: &Command, name: &str) -> CommandError {
    let known = command.options.iter().map(|o| o.name).chain(command.flags.iter().map(|(f, _)| *f));
    CommandError::Usage(match crate::tree::nearest(name, known) {
        Some(near) => format!("there is no option {name}; did you mean {near}? Usage: {}", command.usage()),
        None => format!("there is no option {name}. Usage: {}", command.usage()),
    })
}
