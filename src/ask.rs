//! `hypha config --ask FILE`: the configuration as questions, each with what holds now as its default.

use std::{
    io::{BufRead, Write},
    path::Path,
};

use crate::{
    config::{self, Config, ConfigError, DEFAULTS},
    validate::{self, Wrong},
};

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the questions ended before their answers; nothing was written")]
    Cut,
}

/// One key of the defaults, with the comment above it.
struct Question {
    table: String,
    key: String,
    about: String,
    default: String,
}

fn questions() -> Vec<Question> {
    let (mut all, mut about, mut table) = (Vec::new(), String::new(), String::new());
    for line in DEFAULTS.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            about.push_str(comment);
            about.push('\n');
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            table = name.to_owned();
            about.clear();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let (table, key, default) = (table.clone(), key.to_owned(), value.to_owned());
            all.push(Question { table, key, about: std::mem::take(&mut about), default });
        } else {
            about.clear();
        }
    }
    all
}

/// An answer as TOML: text needs no quotes, since the default tells its type.
fn as_toml(question: &Question, answer: &str) -> String {
    match question.default.starts_with('"') {
        true => toml::Value::String(answer.to_owned()).to_string(),
        false => answer.to_owned(),
    }
}

/// The fault of an answer by itself; how answers fit each other is seen when all are there.
fn wrong(config: &Config, question: &Question) -> Option<Wrong> {
    let key = format!("{}.{}", question.table, question.key);
    let alone = !["sip.tls", "sip.wss", "media.last_port", "sorm.key_token"].contains(&key.as_str());
    validate::wrongs(config).into_iter().find(|w| alone && w.key == key && !w.wanted.contains("already"))
}

/// Asks for every key; an empty answer keeps what is shown. A wrong one is asked again. The file is written at the end,
/// with what differs from the defaults.
pub fn ask(file: &Path, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), AskError> {
    let now: toml::Table = match file.exists() {
        true => {
            Config::read(Some(file))?;
            toml::from_str(&std::fs::read_to_string(file)?).map_err(|e| config::syntax(file, e))?
        }
        false => toml::Table::new(),
    };
    let mut kept: Vec<(String, String, String)> = Vec::new();
    for q in questions() {
        let set = now.get(&q.table).and_then(|t| t.get(&q.key)).map(ToString::to_string);
        let current = set.unwrap_or_else(|| q.default.clone());
        loop {
            write!(out, "\n{}{}.{} [{current}]: ", q.about, q.table, q.key)?;
            out.flush()?;
            let mut answer = String::new();
            if input.read_line(&mut answer)? == 0 {
                return Err(AskError::Cut);
            }
            let value = match answer.trim() {
                "" => current.clone(),
                text => as_toml(&q, text),
            };
            match config::parse(file, &format!("[{}]\n{} = {value}", q.table, q.key)) {
                Ok(config) if let Some(wrong) = wrong(&config, &q) => writeln!(out, "{wrong}")?,
                Ok(_) => {
                    if value != q.default {
                        kept.push((q.table, q.key, value));
                    }
                    break;
                }
                Err(e) => writeln!(out, "{e}")?,
            }
        }
    }
    let mut text =
        String::from("# Hypha configuration; `hypha config --print` shows every key with its default.\n");
    let mut table = "";
    for (of, key, value) in &kept {
        if of != table {
            text.push_str(&format!("\n[{of}]\n"));
            table = of;
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    // Whole or not at all.
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, file)?;
    writeln!(out, "\nwritten to {}; it holds from the node's next start", file.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(file: &Path, answers: &str) -> Result<String, AskError> {
        let mut out = Vec::new();
        ask(file, &mut answers.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn answers_become_the_file_and_later_defaults() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("hypha.toml");
        let count = questions().len();
        assert!(count >= 15, "{count}");
        // The fifth question is cocon.listen: a wrong answer is asked again.
        let answers = format!("tel1\n\n\n\nnowhere\n127.0.0.1:2022\nmany\n9\n{}", "\n".repeat(count - 6));
        let said = answer(&file, &answers).expect("written");
        assert!(said.contains("node.name [\"ds1\"]: ") && said.contains("socket address"), "{said}");
        let written = std::fs::read_to_string(&file).expect("there");
        assert!(
            written.ends_with(
                "[node]\nname = \"tel1\"\n\n[cocon]\nlisten = \"127.0.0.1:2022\"\nconnections = 9\n"
            )
        );
        let config = Config::read(Some(&file)).expect("good");
        assert_eq!((config.node.name.as_str(), config.cocon.connections), ("tel1", 9));

        let said = answer(&file, &"\n".repeat(count)).expect("written");
        assert!(said.contains("node.name [\"tel1\"]: "), "{said}");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), written, "enter keeps everything");
        assert!(matches!(answer(&file, "x\n"), Err(AskError::Cut)));
        assert_eq!(std::fs::read_to_string(&file).expect("there"), written);
    }
}
