//! The tree of all commands: a directory is a group, a file is a command.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    CommandError,
    call::Call,
    caller::Caller,
    declare::{Command, Names},
};

/// All commands of the node.
#[derive(Default)]
pub struct Tree {
    root: Directory,
    /// Who names what may stand for a variable.
    variables: BTreeMap<&'static str, Names>,
}

#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) words: BTreeMap<&'static str, Directory>,
    pub(crate) variable: Option<(&'static str, Box<Directory>)>,
    pub(crate) command: Option<Arc<Command>>,
}

/// A place in the tree and the variables on the way.
pub(crate) struct Place<'t> {
    pub(crate) directory: &'t Directory,
    pub(crate) vars: BTreeMap<&'static str, String>,
}

/// A command declared twice; found when the node starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the command /{0} is declared twice")]
pub struct DeclareError(&'static str);

impl Tree {
    pub fn add(&mut self, commands: impl IntoIterator<Item = Command>) -> Result<(), DeclareError> {
        for command in commands {
            let mut at = &mut self.root;
            for segment in command.path.split('/') {
                at = match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                    Some(variable) => &mut at.variable.get_or_insert_with(|| (variable, Box::default())).1,
                    None => at.words.entry(segment).or_default(),
                };
            }
            if at.command.is_some() {
                return Err(DeclareError(command.path));
            }
            at.command = Some(Arc::new(command.pages()));
        }
        Ok(())
    }

    /// Who knows the names that a path variable may have.
    pub fn variable(&mut self, name: &'static str, names: Names) {
        self.variables.insert(name, names);
    }

    /// Every command, in order of path.
    pub fn commands(&self) -> Vec<Arc<Command>> {
        let mut out = Vec::new();
        self.root.collect(&mut out);
        out
    }

    pub(crate) fn variable_names(&self, variable: &str, call: &Call) -> Vec<String> {
        let mut names = self.variables.get(variable).map(|n| n(call)).unwrap_or_default();
        if variable == "domain" {
            names.retain(|d| call.caller.grants.sees_domain(d));
        }
        names
    }

    /// Follows segments from the root; every variable must have a name somebody knows.
    pub(crate) fn walk(&self, segments: &[String], caller: &Caller) -> Result<Place<'_>, CommandError> {
        let mut place = Place { directory: &self.root, vars: BTreeMap::new() };
        for (i, segment) in segments.iter().enumerate() {
            let here = place.directory;
            if let Some(next) = here.words.get(segment.as_str()) {
                place.directory = next;
                continue;
            }
            let shown = segments[..=i].join("/");
            let so_far = Call::new(caller.clone(), place.vars.clone(), None);
            let mut known: Vec<String> = here.words.keys().map(|w| (*w).to_owned()).collect();
            if let Some((variable, next)) = &here.variable {
                let names = self.variable_names(variable, &so_far);
                if names.iter().any(|n| n == segment) {
                    place.vars.insert(variable, segment.clone());
                    place.directory = next;
                    continue;
                }
                known.extend(names);
            }
            let near = nearest(segment, known.iter().map(String::as_str));
            let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
            return Err(CommandError::Unknown(format!("there is no /{shown}{hint}")));
        }
        Ok(place)
    }
}

impl Directory {
    fn collect(&self, out: &mut Vec<Arc<Command>>) {
        out.extend(self.command.clone());
        for d in self.words.values() {
            d.collect(out);
        }
        if let Some((_, d)) = &self.variable {
            d.collect(out);
        }
    }

    pub(crate) fn is_group(&self) -> bool {
        !self.words.is_empty() || self.variable.is_some()
    }
}

/// A path as typed, made absolute: `..`, `.`, `./declare`, `/bridge/list`, `np/list`.
pub(crate) fn absolute(cwd: &[String], typed: &str) -> Vec<String> {
    let mut out: Vec<String> = if typed.starts_with('/') { Vec::new() } else { cwd.to_vec() };
    for segment in typed.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(out.pop()),
            s => out.push(s.to_owned()),
        }
    }
    out
}

/// The known word most like `word`, if any is alike at all.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::jaro_winkler(word, k), k))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Whether the caller may run this command with these variables.
pub(crate) fn allowed(command: &Command, vars: &BTreeMap<&'static str, String>, caller: &Caller) -> bool {
    let g = &caller.grants;
    if g.system {
        return true;
    }
    if command.everyone {
        return g.read_only || !g.domains.is_empty();
    }
    if command.system {
        return false;
    }
    let own_domain = command.path.starts_with("domain/{domain}/")
        && vars.get("domain").is_some_and(|d| g.domains.contains(d));
    own_domain || (g.read_only && !command.changes)
}
