//! The interactive shell: a terminal's bytes in, what to show out. The socket is the server's.

use std::sync::Arc;

use access::Door;
use command::{Outcome, Session};

use crate::{
    editor::{Editor, Key},
    history::Histories,
    pager::{Pager, Size},
};

/// Asked before a dangerous command.
const SURE: &str = "Are you sure?: yes/no ?> ";

/// The rights of a session: those of its account at each line, not at the log-in.
pub(crate) struct Standing {
    door: Door,
    /// Of the account's password: with a new one the session is over, except where it was changed.
    proof: Option<Arc<str>>,
}

impl Standing {
    pub(crate) fn new(door: Door, session: &Session) -> Self {
        let proof = door.proof(&session.caller.name);
        Self { door, proof }
    }

    /// Gives the session the rights of this moment; an error says why it is over.
    pub(crate) fn check(&self, session: &mut Session) -> Result<(), &'static str> {
        match self.door.anew(&session.caller) {
            Some(_) if self.door.proof(&session.caller.name) != self.proof => {
                Err("The password was changed; log in again.")
            }
            Some(caller) => {
                session.caller = caller;
                Ok(())
            }
            None => Err("This account was removed."),
        }
    }

    /// A line may have changed the operator's own password.
    pub(crate) fn renew(&mut self, line: &str, session: &Session) {
        if line.contains("password") {
            self.proof = self.door.proof(&session.caller.name);
        }
    }
}

/// See the module.
pub(crate) struct Shell {
    session: Session,
    standing: Standing,
    histories: Histories,
    editor: Editor,
    /// A command that waits for its confirmation.
    asked: Option<String>,
    pager: Option<Pager>,
    /// The terminal's size.
    size: Size,
}

/// What is next.
pub(crate) enum Next {
    /// More bytes.
    On,
    /// [`Shell::line`] with this line, once what was typed is shown: a command may take its time.
    Line(String),
    End,
}

impl Shell {
    pub(crate) fn new(session: Session, door: Door, histories: Histories) -> Self {
        let mut editor = Editor::default();
        for line in histories.of(&session.caller.name) {
            editor.remember(&line);
        }
        let standing = Standing::new(door, &session);
        Self { session, standing, histories, editor, asked: None, pager: None, size: Size::default() }
    }

    pub(crate) fn greeting(&mut self) -> String {
        let mut show = "Hypha CoCon. `help` lists the commands, Tab completes.\r\n".to_owned();
        self.prompt(&mut show);
        show
    }

    fn prompt(&mut self, show: &mut String) {
        let prompt = self.session.prompt();
        show.push_str(&prompt);
        self.editor.behind(&prompt);
    }

    pub(crate) fn resized(&mut self, size: Size) {
        if self.size == size {
            return;
        }
        self.size = size;
        self.editor.resized(size.columns);
        if let Some(pager) = &mut self.pager {
            pager.resized(size);
        }
    }

    /// Takes what was typed, up to the end of a line; what is left stays in `data`.
    pub(crate) fn bytes(&mut self, data: &mut &[u8], show: &mut String) -> Next {
        // A key of a pager comes alone, or as an escape sequence; what comes together was pasted, or typed ahead.
        let together = data.len() > 1
            && data.first() != Some(&0x1b)
            // Typed fast: the end of the pages, and what comes next.
            && (data.first() != Some(&b'q') || data.starts_with(b"quit"));
        if let Some(pager) = self.pager.as_mut().filter(|p| together && !p.searches()) {
            pager.give_way(show);
            self.pager = None;
            self.prompt(show);
        }
        while let Some((byte, rest)) = data.split_first() {
            *data = rest;
            if let Some(pager) = &mut self.pager {
                if !pager.byte(*byte, show) {
                    self.pager = None;
                    self.prompt(show);
                }
                continue;
            }
            let Some(key) = self.editor.byte(*byte, show) else { continue };
            match key {
                Key::Tab(before) if self.asked.is_none() => self.complete(&before, show),
                Key::Tab(_) => {}
                Key::Abandon => {
                    self.asked = None;
                    self.prompt(show);
                }
                Key::End => {
                    show.push_str("\r\n");
                    return Next::End;
                }
                Key::Line(line) => return Next::Line(line),
            }
        }
        Next::On
    }

    /// Runs a line; `false` ends the shell. Where more has been typed or pasted behind it, its answer has no pages.
    pub(crate) async fn line(&mut self, line: String, more: bool, show: &mut String) -> bool {
        if let Err(gone) = self.standing.check(&mut self.session) {
            show.push_str(&format!("{gone}\r\n"));
            return false;
        }
        let typed = line.clone();
        let outcome = match self.asked.take() {
            Some(command) if matches!(line.trim(), "yes" | "y") => {
                self.session.execute_confirmed(&command, None).await
            }
            Some(_) => Outcome::Said { text: "Nothing was done.\n".into(), status: 0 },
            None => self.run(line).await,
        };
        self.standing.renew(&typed, &self.session);
        match outcome {
            Outcome::Quiet => {}
            Outcome::Said { text, .. } => {
                let size = if more { Size::default() } else { self.size };
                self.pager = Pager::begin(&text, size, show);
            }
            Outcome::Asks { question } => {
                show.push_str(&format!("{question}\r\n{SURE}"));
                self.editor.behind(SURE);
            }
            Outcome::Exit => return false,
        }
        if self.asked.is_none() && self.pager.is_none() {
            self.prompt(show);
        }
        true
    }

    async fn run(&mut self, line: String) -> Outcome {
        if !self.session.holds_secret(&line) && self.editor.remember(&line) {
            self.histories.add(&self.session.caller.name, &line);
        }
        let outcome = self.session.execute(&line, None).await;
        if matches!(outcome, Outcome::Asks { .. }) {
            self.asked = Some(line);
        }
        outcome
    }

    fn complete(&mut self, before: &str, show: &mut String) {
        let completion = self.session.complete(before);
        let common = completion.common().to_owned();
        if common.len() > before.len() - completion.start {
            self.editor.replace(completion.start, &common, show);
            return;
        }
        if completion.candidates.len() > 1 {
            show.push_str("\r\n");
            for c in &completion.candidates {
                show.push_str(&format!("  {:<32} {}\r\n", c.text.trim_end(), c.help));
            }
            self.editor.redraw(show);
        }
    }
}
