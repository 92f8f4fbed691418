//! A line editor without terminal: bytes in, what to show and what to do out.

use unicode_width::UnicodeWidthChar;

use crate::history::REMEMBERED;

/// Longest line, bytes.
const LIMIT: usize = 64 * 1024;

/// What the bytes led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A whole line was entered.
    Line(String),
    /// Tab: complete what stands before the cursor.
    Tab(String),
    /// Ctrl-C: the line is given up.
    Abandon,
    /// Ctrl-D on an empty line.
    End,
}

/// The line being edited, its history, and an unfinished escape sequence.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Place in the history while walking through it.
    walking: Option<usize>,
    saved: Vec<char>,
    escape: Vec<u8>,
    partial: Vec<u8>,
    after_return: bool,
}

impl Editor {
    /// Takes one byte; `show` gets what the terminal must print.
    pub fn byte(&mut self, byte: u8, show: &mut String) -> Option<Key> {
        if !self.escape.is_empty() {
            self.escaped(byte, show);
            return None;
        }
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            b'\r' => {
                self.after_return = true;
                Some(self.enter(show))
            }
            // CR LF is one line end.
            b'\n' if after_return => None,
            b'\n' => Some(self.enter(show)),
            b'\t' => Some(Key::Tab(self.line[..self.cursor].iter().collect())),
            0x1b => {
                self.escape.push(byte);
                None
            }
            0x7f | 0x08 => {
                self.erase(self.cursor.saturating_sub(1), self.cursor, show);
                None
            }
            0x01 => self.go(0, show),
            0x05 => self.go(self.line.len(), show),
            0x02 => self.go(self.cursor.saturating_sub(1), show),
            0x06 => self.go(self.cursor + 1, show),
            0x10 => self.walk(true, show),
            0x0e => self.walk(false, show),
            0x15 => {
                self.erase(0, self.cursor, show);
                None
            }
            0x0b => {
                self.erase(self.cursor, self.line.len(), show);
                None
            }
            0x17 => {
                let before = &self.line[..self.cursor];
                let word_end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |i| i + 1);
                let start = before[..word_end].iter().rposition(|c| c.is_whitespace()).map_or(0, |i| i + 1);
                self.erase(start, self.cursor, show);
                None
            }
            0x03 => {
                self.reset();
                show.push_str("^C\r\n");
                Some(Key::Abandon)
            }
            0x04 if self.line.is_empty() => Some(Key::End),
            0x04 => {
                self.erase(self.cursor, self.cursor + 1, show);
                None
            }
            0..0x20 => None,
            byte => {
                self.partial.push(byte);
                match std::str::from_utf8(&self.partial) {
                    Ok(text) => {
                        let text = text.to_owned();
                        self.partial.clear();
                        self.insert(&text, show);
                    }
                    Err(e) if e.error_len().is_some() || self.partial.len() >= 4 => self.partial.clear(),
                    Err(_) => {}
                }
                None
            }
        }
    }

    /// Puts text at the cursor, as completion does.
    pub fn insert(&mut self, text: &str, show: &mut String) {
        for c in text.chars().filter(|c| !c.is_control()) {
            if self.line.len() < LIMIT / 4 {
                self.line.insert(self.cursor, c);
                self.cursor += 1;
                show.push(c);
            }
        }
        self.rest(show);
    }

    /// Replaces what stands between `start` (bytes of the line) and the cursor.
    pub fn replace(&mut self, start: usize, text: &str, show: &mut String) {
        let mut at = 0;
        let from = self.line.iter().take_while(|c| {
            at += c.len_utf8();
            at <= start
        });
        let from = from.count().min(self.cursor);
        self.erase(from, self.cursor, show);
        self.insert(text, show);
    }

    /// The line and the cursor's place, drawn anew (behind a prompt).
    pub fn redraw(&self, show: &mut String) {
        show.extend(&self.line);
        back(width(&self.line[self.cursor..]), show);
    }

    /// Remembers a line that holds no secret; `false` when it says nothing new.
    pub fn remember(&mut self, line: &str) -> bool {
        if line.trim().is_empty() || self.history.last().is_some_and(|l| l == line) {
            return false;
        }
        if self.history.len() == REMEMBERED {
            self.history.remove(0);
        }
        self.history.push(line.to_owned());
        true
    }

    fn enter(&mut self, show: &mut String) -> Key {
        let line: String = self.line.iter().collect();
        self.reset();
        show.push_str("\r\n");
        Key::Line(line)
    }

    fn reset(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.walking = None;
    }

    fn escaped(&mut self, byte: u8, show: &mut String) {
        self.escape.push(byte);
        let done = match self.escape.as_slice() {
            [0x1b, b'[' | b'O'] => return,
            [0x1b, b'[', rest @ ..] | [0x1b, b'O', rest @ ..] => match rest {
                [b'A'] => self.walk(true, show),
                [b'B'] => self.walk(false, show),
                [b'C'] => self.go(self.cursor + 1, show),
                [b'D'] => self.go(self.cursor.saturating_sub(1), show),
                [b'H'] | b"1~" | b"7~" => self.go(0, show),
                [b'F'] | b"4~" | b"8~" => self.go(self.line.len(), show),
                b"3~" => {
                    self.erase(self.cursor, self.cursor + 1, show);
                    None
                }
                // A sequence ends with a letter or ~; what is too long is garbage.
                [.., 0x40..=0x7e] => None,
                _ if rest.len() > 16 => None,
                _ => return,
            },
            _ => None,
        };
        debug_assert!(done.is_none());
        self.escape.clear();
    }

    fn go(&mut self, to: usize, show: &mut String) -> Option<Key> {
        let to = to.min(self.line.len());
        if to < self.cursor {
            back(width(&self.line[to..self.cursor]), show);
        } else {
            show.extend(&self.line[self.cursor..to]);
        }
        self.cursor = to;
        None
    }

    fn erase(&mut self, from: usize, to: usize, show: &mut String) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.go(from, show);
        self.line.drain(from..to);
        self.rest(show);
    }

    /// What stands behind the cursor, and nothing behind that.
    fn rest(&self, show: &mut String) {
        show.extend(&self.line[self.cursor..]);
        show.push_str("\x1b[K");
        back(width(&self.line[self.cursor..]), show);
    }

    fn walk(&mut self, up: bool, show: &mut String) -> Option<Key> {
        let newest = self.history.len();
        let at = self.walking.unwrap_or(newest);
        let next = if up { at.checked_sub(1)? } else { at + 1 };
        if next > newest {
            return None;
        }
        if at == newest {
            self.saved = self.line.clone();
        }
        let text = self.history.get(next).map_or_else(|| self.saved.clone(), |l| l.chars().collect());
        self.walking = (next < newest).then_some(next);
        self.go(0, show);
        self.line = text;
        self.cursor = self.line.len();
        show.extend(&self.line);
        show.push_str("\x1b[K");
        None
    }
}

fn width(chars: &[char]) -> usize {
    chars.iter().map(|c| c.width().unwrap_or(0)).sum()
}

fn back(columns: usize, show: &mut String) {
    if columns > 0 {
        show.push_str(&format!("\x1b[{columns}D"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(editor: &mut Editor, bytes: &[u8]) -> Vec<Key> {
        let mut show = String::new();
        bytes.iter().filter_map(|b| editor.byte(*b, &mut show)).collect()
    }

    #[test]
    fn lines_are_edited() {
        let mut e = Editor::default();
        assert_eq!(keys(&mut e, b"list\x1b[D\x1b[D\x7fa\r"), [Key::Line("last".into())]);
        assert_eq!(keys(&mut e, "имя\x7f\r\n".as_bytes()), [Key::Line("им".into())]);
        assert_eq!(keys(&mut e, b"one two\x17\x01zero \r"), [Key::Line("zero one ".into())]);
        assert_eq!(keys(&mut e, b"abc\x03"), [Key::Abandon]);
        assert_eq!(keys(&mut e, b"\x04"), [Key::End]);
        assert_eq!(keys(&mut e, b"do\t"), [Key::Tab("do".into())]);
    }

    #[test]
    fn history_is_walked() {
        let mut e = Editor::default();
        e.remember("first");
        e.remember("second");
        assert_eq!(keys(&mut e, b"\x1b[A\x1b[A\r"), [Key::Line("first".into())]);
        assert_eq!(keys(&mut e, b"new\x1b[A\x1b[B\r"), [Key::Line("new".into())]);
    }

    #[test]
    fn completion_replaces_the_word() {
        let mut e = Editor::default();
        let mut show = String::new();
        keys(&mut e, "cd дом".as_bytes());
        e.replace(3, "domain/", &mut show);
        assert_eq!(keys(&mut e, b"\r"), [Key::Line("cd domain/".into())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut e = Editor::default();
            e.remember("history");
            keys(&mut e, &bytes);
            prop_assert!(e.cursor <= e.line.len());
        }
    }
}
