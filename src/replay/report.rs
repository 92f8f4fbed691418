//! What a run has shown: in the terminal, in HTML, and as a trace to compare.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use kit::trace::Traced;

use super::script::{Script, Step};

pub struct Played {
    pub number: usize,
    pub at: DateTime<Utc>,
    pub step: Step,
    pub said: String,
    pub misses: Vec<String>,
    pub messages: Vec<Traced>,
}

pub struct Run {
    pub name: String,
    pub path: String,
    pub seed: u64,
    pub steps: Vec<Played>,
}

impl Run {
    pub fn new(script: &Script) -> Self {
        let path = script.path.display().to_string();
        Self { name: script.name.clone(), path, seed: script.seed, steps: Vec::new() }
    }

    pub fn failed(&self) -> usize {
        self.steps.iter().filter(|s| !s.misses.is_empty()).count()
    }

    pub fn passed(&self) -> usize {
        self.steps.len() - self.failed()
    }
}

fn ladder(messages: &[Traced]) -> String {
    let mut out = String::new();
    for m in messages {
        let from = m.from.as_ref().map_or("outside", |f| f.as_str());
        let _ = writeln!(out, "{} {from} -> {}: {}", m.at.format("%H:%M:%S%.3f"), m.to, m.text);
    }
    out
}

pub fn terminal(run: &Run, verbose: bool) {
    println!("{} ({}, seed {})", run.name, run.path, run.seed);
    for s in &run.steps {
        if let Some(note) = s.step.note.as_ref().filter(|_| verbose || !s.misses.is_empty()) {
            println!("  # {note}");
        }
        if s.misses.is_empty() {
            if verbose {
                println!("  ok   {:>3}  {}", s.number, s.step.line());
            }
            continue;
        }
        println!("  FAIL {:>3}  {}", s.number, s.step.line());
        s.misses.iter().for_each(|m| println!("         expected: {m}"));
        s.said.lines().for_each(|l| println!("         seen:     {l}"));
        ladder(&s.messages).lines().for_each(|l| println!("         message:  {l}"));
    }
    println!("  {} passed, {} failed", run.passed(), run.failed());
}

/// All that was said and sent; the same for every run of a script with one seed.
pub fn trace(run: &Run) -> String {
    let mut out = format!("# {} seed {}\n", run.name, run.seed);
    for s in &run.steps {
        let _ = writeln!(out, "{} {} {}", s.at.to_rfc3339(), s.number, s.step.line());
        out.push_str(&s.said);
        out.push_str(&ladder(&s.messages));
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub fn html(runs: &[Run]) -> String {
    let mut out = String::from(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Hypha replay</title><style>\
         :root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;\
         padding:0 1rem}pre{overflow:auto;background:#8881;padding:.5rem}.fail>summary{color:#c33;font-weight:600}\
         summary{cursor:pointer;font-family:ui-monospace,monospace}h3{margin:1.2rem 0 .2rem}</style><h1>Replay</h1>",
    );
    for run in runs {
        let (name, path) = (escape(&run.name), escape(&run.path));
        let (passed, failed) = (run.passed(), run.failed());
        let _ =
            write!(out, "<h2>{name}</h2><p>{path}, seed {}: {passed} passed, {failed} failed</p>", run.seed);
        for s in &run.steps {
            if let Some(note) = &s.step.note {
                let _ = write!(out, "<h3>{}</h3>", escape(note));
            }
            if s.step.line().is_empty() {
                continue;
            }
            let (class, open) = if s.misses.is_empty() { ("ok", "") } else { ("fail", " open") };
            let _ = write!(
                out,
                "<details class=\"{class}\"{open}><summary>{} {}</summary>",
                s.number,
                escape(&s.step.line())
            );
            for miss in &s.misses {
                let _ = write!(out, "<p><strong>expected:</strong> {}</p>", escape(miss));
            }
            let _ = write!(out, "<pre>{}</pre>", escape(&s.said));
            let ladder = ladder(&s.messages);
            if !ladder.is_empty() {
                let _ = write!(out, "<pre>{}</pre>", escape(&ladder));
            }
            out.push_str("</details>");
        }
    }
    out.push_str("</html>\n");
    out
}
