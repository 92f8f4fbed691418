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
    /// A search through the history, backwards: what is searched for, and the place of what was found.
    searching: Option<(String, usize)>,
    /// The text erased last by a word or to an end, for Ctrl-Y.
    killed: Vec<char>,
    escape: Vec<u8>,
    partial: Vec<u8>,
    after_return: bool,
    /// The prompt before the line.
    prompt: String,
    /// Width of the terminal; 0 where it is not known.
    columns: usize,
    /// Row of the cursor, as drawn last, below that of the prompt.
    row: usize,
}

impl Editor {
    /// Takes one byte; `show` gets what the terminal must print.
    pub fn byte(&mut self, byte: u8, show: &mut String) -> Option<Key> {
        if !self.escape.is_empty() {
            self.escaped(byte, show);
            return None;
        }
        if self.searching.is_some() && self.sought(byte, show) {
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
            0x7f | 0x08 => self.erase(self.cursor.saturating_sub(1), self.cursor, show),
            0x01 => self.go(0, show),
            0x05 => self.go(self.line.len(), show),
            0x02 => self.go(self.cursor.saturating_sub(1), show),
            0x06 => self.go(self.cursor + 1, show),
            0x10 => self.walk(true, show),
            0x0e => self.walk(false, show),
            0x15 => self.kill(0, self.cursor, show),
            0x0b => self.kill(self.cursor, self.line.len(), show),
            0x17 => {
                let before = &self.line[..self.cursor];
                let word_end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |i| i + 1);
                let start = before[..word_end].iter().rposition(|c| c.is_whitespace()).map_or(0, |i| i + 1);
                self.kill(start, self.cursor, show)
            }
            0x19 => {
                let killed: String = self.killed.iter().collect();
                self.insert(&killed, show);
                None
            }
            0x14 => self.swap(show),
            0x12 => {
                self.searching = Some((String::new(), self.history.len()));
                self.saved = self.line.clone();
                self.refresh(show);
                None
            }
            0x0c => {
                show.push_str("\x1b[H\x1b[2J");
                self.row = 0;
                self.refresh(show);
                None
            }
            0x03 => {
                self.go(self.line.len(), show);
                self.reset();
                show.push_str("^C\r\n");
                Some(Key::Abandon)
            }
            0x04 if self.line.is_empty() => Some(Key::End),
            0x04 => self.erase(self.cursor, self.cursor + 1, show),
            0..0x20 => None,
            byte => {
                if let Some(text) = self.letter(byte) {
                    self.insert(&text, show);
                }
                None
            }
        }
    }

    /// A byte of UTF-8; the letter, once it is whole.
    fn letter(&mut self, byte: u8) -> Option<String> {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => {
                let text = text.to_owned();
                self.partial.clear();
                Some(text)
            }
            Err(e) if e.error_len().is_some() || self.partial.len() >= 4 => {
                self.partial.clear();
                None
            }
            Err(_) => None,
        }
    }

    /// The prompt from now on; it has just been shown.
    pub fn behind(&mut self, prompt: &str) {
        prompt.clone_into(&mut self.prompt);
        self.row = 0;
    }

    /// The terminal has another width: what is shown on it has been wrapped anew.
    pub fn resized(&mut self, columns: usize) {
        self.columns = columns;
        self.row = self.place(&self.line[..self.cursor]).0;
    }

    /// Puts text at the cursor, as completion does.
    pub fn insert(&mut self, text: &str, show: &mut String) {
        let at_end = self.cursor == self.line.len();
        let from = show.len();
        for c in text.chars().filter(|c| !c.is_control()) {
            if self.line.len() < LIMIT / 4 {
                self.line.insert(self.cursor, c);
                self.cursor += 1;
                show.push(c);
            }
        }
        // Text at the end of a row that has room is shown as it is typed.
        let (row, column) = self.place(&self.line);
        if !(at_end && row == self.row && column > 0) {
            show.truncate(from);
            self.refresh(show);
        }
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

    /// The prompt, the line and the cursor's place, drawn anew on a row of their own.
    pub fn redraw(&mut self, show: &mut String) {
        self.row = 0;
        self.refresh(show);
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
        self.go(self.line.len(), show);
        let line: String = self.line.iter().collect();
        self.reset();
        show.push_str("\r\n");
        Key::Line(line)
    }

    fn reset(&mut self) {
        self.line.clear();
        (self.cursor, self.row) = (0, 0);
        self.walking = None;
        self.searching = None;
    }

    fn escaped(&mut self, byte: u8, show: &mut String) {
        self.escape.push(byte);
        let word_left = |me: &Self| me.word(false);
        let word_right = |me: &Self| me.word(true);
        let done = match self.escape.as_slice() {
            [0x1b, b'[' | b'O'] => return,
            [0x1b, b'[', rest @ ..] | [0x1b, b'O', rest @ ..] => match rest {
                [b'A'] => self.walk(true, show),
                [b'B'] => self.walk(false, show),
                [b'C'] => self.go(self.cursor + 1, show),
                [b'D'] => self.go(self.cursor.saturating_sub(1), show),
                b"1;5C" | b"1;3C" => self.go(word_right(self), show),
                b"1;5D" | b"1;3D" => self.go(word_left(self), show),
                [b'H'] | b"1~" | b"7~" => self.go(0, show),
                [b'F'] | b"4~" | b"8~" => self.go(self.line.len(), show),
                b"3~" => self.erase(self.cursor, self.cursor + 1, show),
                // A sequence ends with a letter or ~; what is too long is garbage.
                [.., 0x40..=0x7e] => None,
                _ if rest.len() > 16 => None,
                _ => return,
            },
            [0x1b, b'b' | b'B'] => self.go(word_left(self), show),
            [0x1b, b'f' | b'F'] => self.go(word_right(self), show),
            [0x1b, b'd' | b'D'] => self.kill(self.cursor, word_right(self), show),
            [0x1b, 0x7f | 0x08] => self.kill(word_left(self), self.cursor, show),
            _ => None,
        };
        debug_assert!(done.is_none());
        self.escape.clear();
    }

    /// The beginning of the word before the cursor, or the end of the one behind it, as a shell finds them.
    fn word(&self, right: bool) -> usize {
        let of_word = |c: &char| c.is_alphanumeric();
        if right {
            let rest = &self.line[self.cursor..];
            let begin = rest.iter().position(of_word).unwrap_or(rest.len());
            let end = rest[begin..].iter().position(|c| !of_word(c)).unwrap_or(rest.len() - begin);
            return self.cursor + begin + end;
        }
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(of_word).map_or(0, |i| i + 1);
        before[..end].iter().rposition(|c| !of_word(c)).map_or(0, |i| i + 1)
    }

    /// Puts the two letters around the cursor the other way round.
    fn swap(&mut self, show: &mut String) -> Option<Key> {
        let at = self.cursor.min(self.line.len().saturating_sub(1));
        if at > 0 {
            self.line.swap(at - 1, at);
            self.cursor = at + 1;
            self.refresh(show);
        }
        None
    }

    fn go(&mut self, to: usize, show: &mut String) -> Option<Key> {
        let to = to.min(self.line.len());
        if to != self.cursor {
            self.cursor = to;
            self.refresh(show);
        }
        None
    }

    fn erase(&mut self, from: usize, to: usize, show: &mut String) -> Option<Key> {
        let to = to.min(self.line.len());
        if from < to {
            self.line.drain(from..to);
            self.cursor = from;
            self.refresh(show);
        }
        None
    }

    /// Erases so that Ctrl-Y puts it back.
    fn kill(&mut self, from: usize, to: usize, show: &mut String) -> Option<Key> {
        let to = to.min(self.line.len());
        if from < to {
            self.killed = self.line[from..to].to_vec();
        }
        self.erase(from, to, show)
    }

    /// A byte of a search through the history; whether it was one.
    fn sought(&mut self, byte: u8, show: &mut String) -> bool {
        let Some((mut text, at)) = self.searching.take() else { return false };
        let before = match byte {
            // The same again, further back.
            0x12 => at,
            0x7f | 0x08 => {
                text.pop();
                self.history.len()
            }
            0x07 | 0x03 => {
                self.line = self.saved.clone();
                self.cursor = self.line.len();
                self.refresh(show);
                return byte == 0x07;
            }
            0x20.. => {
                if let Some(letter) = self.letter(byte) {
                    text.push_str(&letter);
                }
                (at + 1).min(self.history.len())
            }
            // Any other key takes what was found.
            _ => {
                self.refresh(show);
                return false;
            }
        };
        let found = self.history[..before].iter().rposition(|l| !text.is_empty() && l.contains(&text));
        if let Some(found) = found {
            self.line = self.history[found].chars().collect();
            self.cursor = self.line.len();
        }
        self.searching = Some((text, found.unwrap_or(at)));
        self.refresh(show);
        true
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
        self.line = text;
        self.cursor = self.line.len();
        self.refresh(show);
        None
    }

    // ---- drawing

    /// The prompt now: a search has its own.
    fn shown_prompt(&self) -> String {
        match &self.searching {
            Some((text, _)) => format!("(search {text}): "),
            None => self.prompt.clone(),
        }
    }

    /// Row and column behind the prompt and these letters; a full row ends in the next one.
    fn place(&self, letters: &[char]) -> (usize, usize) {
        let prompt = self.shown_prompt();
        let all = prompt.chars().chain(letters.iter().copied());
        let widths = all.map(|c| c.width().unwrap_or(0));
        if self.columns == 0 {
            return (0, widths.sum());
        }
        widths.fold((0, 0), |(row, column), width| match column + width {
            end if end > self.columns => (row + 1, width),
            end if end == self.columns => (row + 1, 0),
            end => (row, end),
        })
    }

    /// Draws the prompt and the line over what was drawn last.
    fn refresh(&mut self, show: &mut String) {
        if self.row > 0 {
            show.push_str(&format!("\x1b[{}A", self.row));
        }
        // Before it is drawn: a wide letter that does not fit at the end of a row leaves a hole there.
        show.push_str("\r\x1b[J");
        show.push_str(&self.shown_prompt());
        show.extend(&self.line);
        let ((end, column), (row, at)) = (self.place(&self.line), self.place(&self.line[..self.cursor]));
        // A terminal waits at the end of a full row for the next letter.
        if end > 0 && column == 0 {
            show.push_str("\r\n");
        }
        if end > row {
            show.push_str(&format!("\x1b[{}A", end - row));
        }
        if (end, column) != (row, at) {
            show.push('\r');
            if at > 0 {
                show.push_str(&format!("\x1b[{at}C"));
            }
        }
        self.row = row;
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
    fn words_are_moved_over_and_erased_and_put_back() {
        let mut e = Editor::default();
        assert_eq!(keys(&mut e, b"one two three\x1bb\x1bbX\r"), [Key::Line("one Xtwo three".into())]);
        assert_eq!(keys(&mut e, b"one two\x01\x1bd\x05\x19\r"), [Key::Line(" twoone".into())]);
        assert_eq!(keys(&mut e, b"ab\x14\r"), [Key::Line("ba".into())]);
        assert_eq!(keys(&mut e, b"a b\x1b[1;5DX\r"), [Key::Line("a Xb".into())]);
    }

    #[test]
    fn the_history_is_searched_backwards() {
        let mut e = Editor::default();
        for line in ["domain/list", "np/list city", "domain/declare a.test"] {
            e.remember(line);
        }
        assert_eq!(keys(&mut e, b"\x12list\r"), [Key::Line("np/list city".into())]);
        assert_eq!(keys(&mut e, b"\x12list\x12\r"), [Key::Line("domain/list".into())]);
        assert_eq!(keys(&mut e, b"kept\x12list\x07\r"), [Key::Line("kept".into())]);
        assert_eq!(keys(&mut e, b"\x12declare\x05!\r"), [Key::Line("domain/declare a.test!".into())]);
    }

    /// A terminal, as much of one as the editor needs.
    struct Screen {
        columns: usize,
        cells: std::collections::BTreeMap<(usize, usize), char>,
        at: (usize, usize),
    }

    impl Screen {
        fn print(&mut self, text: &str) {
            for c in text.chars() {
                match c {
                    '\r' => self.at.1 = 0,
                    '\n' => self.at.0 += 1,
                    c => {
                        let width = c.width().unwrap_or(0);
                        if self.at.1 + width > self.columns {
                            self.at = (self.at.0 + 1, 0);
                        }
                        // A wide letter takes the cell behind it too.
                        for behind in 1..width {
                            self.cells.remove(&(self.at.0, self.at.1 + behind));
                        }
                        self.cells.insert(self.at, c);
                        self.at.1 += width;
                    }
                }
            }
        }

        fn draw(&mut self, text: &str) {
            let mut rest = text;
            while let Some(at) = rest.find('\x1b') {
                self.print(&rest[..at]);
                let sequence = &rest[at + 2..];
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
                let count: usize = sequence[..end].parse().unwrap_or(1);
                match &sequence[end..=end] {
                    "A" => self.at.0 -= count,
                    "C" => self.at.1 += count,
                    "J" => {
                        let at = self.at;
                        self.cells.retain(|place, _| *place < at);
                    }
                    other => panic!("{other}"),
                }
                rest = &sequence[end + 1..];
            }
            self.print(rest);
        }

        fn text(&self) -> String {
            self.cells.values().collect()
        }
    }

    proptest! {
        #[test]
        fn what_the_terminal_shows_is_the_line(
            edits in prop::collection::vec(prop_oneof![
                "[a-z имя漢]{1,30}".prop_map(String::into_bytes),
                Just(b"\x01".to_vec()), Just(b"\x05".to_vec()), Just(b"\x7f".to_vec()), Just(b"\x1b[D".to_vec()),
                Just(b"\x1bb".to_vec()), Just(b"\x0b".to_vec()), Just(b"\x1b[A".to_vec()), Just(b"\x14".to_vec()),
            ], 1..20),
            columns in 8usize..40,
        ) {
            let mut e = Editor::default();
            e.remember("a line of the history that is longer than one row of most of the terminals of this test");
            let mut screen = Screen { columns, cells: Default::default(), at: (0, 0) };
            e.resized(columns);
            e.behind("ab$ ");
            screen.draw("ab$ ");
            for byte in edits.concat() {
                let mut show = String::new();
                e.byte(byte, &mut show);
                screen.draw(&show);
                prop_assert_eq!(screen.text(), format!("ab$ {}", e.line.iter().collect::<String>()));
                let (row, column) = e.place(&e.line[..e.cursor]);
                // At the end of a full row a terminal may still wait in it.
                let waits = column == 0 && screen.at == (row.saturating_sub(1), columns);
                prop_assert!(screen.at == (row, column) || waits, "{:?} {:?}", screen.at, (row, column));
            }
        }
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
