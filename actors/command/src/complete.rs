//! Tab: paths, options and names.

use serde::Serialize;

use crate::{
    call::Call,
    caller::Caller,
    declare::{Command, Lang, Param},
    session::BUILT_IN,
    tree::{Tree, absolute, allowed},
    words,
};

/// One way to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    pub text: String,
    pub help: String,
}

/// All ways to go on from the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Completion {
    /// Where in the line the replaced word begins, bytes.
    pub start: usize,
    pub candidates: Vec<Candidate>,
}

impl Completion {
    /// What all candidates begin with.
    pub fn common(&self) -> &str {
        let Some(first) = self.candidates.first() else { return "" };
        let mut common = first.text.as_str();
        for c in &self.candidates[1..] {
            let same = common.char_indices().zip(c.text.chars()).find(|((_, a), b)| a != b);
            let end = same.map_or(common.len().min(c.text.len()), |((i, _), _)| i);
            common = &common[..end];
        }
        common
    }
}

/// Most candidates shown.
const LIMIT: usize = 200;

pub(crate) fn complete(tree: &Tree, cwd: &[String], caller: &Caller, line: &str, lang: Lang) -> Completion {
    let mut words: Vec<_> = words::split(line);
    let fresh =
        line.is_empty() || (line.ends_with(char::is_whitespace) && words.last().is_none_or(|w| w.closed));
    let current = if fresh { None } else { words.pop() };
    let (start, stem) = current.map_or((line.len(), String::new()), |w| (w.start, w.text));
    let mut candidates = match words.split_first() {
        None => path(tree, cwd, caller, &stem, true, lang),
        Some((first, _)) if matches!(first.text.as_str(), "cd" | "ls" | "help") => {
            path(tree, cwd, caller, &stem, first.text != "cd", lang)
        }
        Some((first, rest)) => {
            let segments = absolute(cwd, &first.text);
            let rest: Vec<String> = rest.iter().map(|w| w.text.clone()).collect();
            match tree.walk(&segments, caller) {
                Ok(place) => match &place.directory.command {
                    Some(command) if allowed(command, &place.vars, caller) => {
                        let mut call = Call::new(caller.clone(), place.vars, None);
                        call.fill_loosely(command, &rest);
                        argument(command, &call, &rest, &stem, lang)
                    }
                    _ => Vec::new(),
                },
                Err(_) => Vec::new(),
            }
        }
    };
    candidates.truncate(LIMIT);
    Completion { start, candidates }
}

fn path(tree: &Tree, cwd: &[String], caller: &Caller, stem: &str, files: bool, lang: Lang) -> Vec<Candidate> {
    let (directory, leaf) = stem.rfind('/').map_or(("", stem), |i| stem.split_at(i + 1));
    let Ok(place) = tree.walk(&absolute(cwd, directory), caller) else { return Vec::new() };
    let mut out = Vec::new();
    for (word, d) in &place.directory.words {
        // A leading dot hides a command, as in a file system.
        if !word.starts_with(leaf) || (word.starts_with('.') && !leaf.starts_with('.')) {
            continue;
        }
        if d.is_group() && d.visible(&place.vars, caller) {
            out.push(Candidate { text: format!("{directory}{word}/"), help: String::new() });
        }
        if let Some(c) = d.command.as_ref().filter(|c| files && allowed(c, &place.vars, caller)) {
            out.push(Candidate { text: format!("{directory}{word} "), help: c.help.get(lang).to_owned() });
        }
    }
    if let Some((variable, _)) = &place.directory.variable {
        let so_far = Call::new(caller.clone(), place.vars.clone(), None);
        let names = tree.variable_names(variable, &so_far);
        let fitting = names.into_iter().filter(|n| n.starts_with(leaf));
        out.extend(fitting.map(|n| Candidate { text: format!("{directory}{n}/"), help: String::new() }));
    }
    if directory.is_empty() && files {
        let fitting = BUILT_IN.iter().filter(|(name, _)| !leaf.is_empty() && name.starts_with(leaf));
        out.extend(fitting.map(|(n, t)| Candidate { text: format!("{n} "), help: t.get(lang).to_owned() }));
    }
    out
}

fn argument(command: &Command, call: &Call, before: &[String], stem: &str, lang: Lang) -> Vec<Candidate> {
    if stem.starts_with("--")
        || (stem.starts_with('-') && command.options.iter().any(|o| o.name.starts_with(stem)))
    {
        let options = command.options.iter().map(|o| (o.name, o.help));
        return options
            .chain(command.flags.iter().copied())
            .chain([("--json", crate::session::JSON_HELP), ("--help", crate::session::HELP_HELP)])
            .filter(|(n, _)| n.starts_with(stem) && !before.iter().any(|b| b == n))
            .map(|(n, t)| Candidate { text: format!("{n} "), help: t.get(lang).to_owned() })
            .collect();
    }
    let option = before.last().and_then(|last| command.options.iter().find(|o| o.name == last));
    let param: Option<&Param> = option.or_else(|| {
        let position = before.iter().filter(|w| !w.starts_with("--")).count();
        command.args.get(position).or_else(|| command.args.last().filter(|a| a.many))
    });
    let Some(param) = param else { return Vec::new() };
    let mut names = param.candidates(call);
    names.sort();
    names.dedup();
    let fitting = names.into_iter().filter(|n| n.starts_with(stem));
    fitting
        .map(|n| Candidate { text: if n.ends_with('=') { n } else { format!("{n} ") }, help: String::new() })
        .collect()
}
