//! Long answers, a screen at a time; knows no terminal.

use unicode_width::UnicodeWidthStr;

const PROMPT: &str = "-- more: space, Enter, b, /, q --";
const WIPE: &str = "\r\x1b[K";
/// To the upper left, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Longest text that is searched for, characters.
const SEARCH: usize = 200;

/// What is still to be shown.
#[derive(Debug)]
pub struct Pager {
    lines: Vec<String>,
    /// The first line on the screen, and the one behind the last.
    top: usize,
    next: usize,
    rows: usize,
    columns: usize,
    /// A text that is being typed, to be searched for.
    search: Option<String>,
    sought: String,
    escape: Vec<u8>,
}

/// Rows and columns of a terminal; 0 where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
}

impl Pager {
    /// Shows the first screen. `None`: it was all of it. A terminal of no known height has no pages.
    pub fn begin(text: &str, size: Size, show: &mut String) -> Option<Self> {
        let mut pager = Self {
            lines: text.lines().map(str::to_owned).collect(),
            top: 0,
            next: 0,
            rows: size.rows,
            columns: size.columns,
            search: None,
            sought: String::new(),
            escape: Vec::new(),
        };
        let all: usize = pager.lines.iter().map(|l| pager.height(l)).sum();
        if size.rows < 2 || all < size.rows {
            show.push_str(&text.replace('\n', "\r\n"));
            return None;
        }
        pager.page(show);
        show.push_str(PROMPT);
        Some(pager)
    }

    /// Rows that a line takes.
    fn height(&self, line: &str) -> usize {
        match self.columns {
            0 => 1,
            columns => line.width().div_ceil(columns).max(1),
        }
    }

    /// Whether a text to search for is being typed.
    pub fn searches(&self) -> bool {
        self.search.is_some()
    }

    pub fn resized(&mut self, size: Size) {
        (self.rows, self.columns) = (size.rows.max(2), size.columns);
    }

    /// Shows the rest at once: pasted text, or text typed ahead, is for the shell.
    pub fn give_way(&mut self, show: &mut String) {
        show.push_str(WIPE);
        self.lines_of(usize::MAX, show);
    }

    /// Takes a byte from the terminal; `false` when there is nothing more to show.
    pub fn byte(&mut self, byte: u8, show: &mut String) -> bool {
        if self.search.is_some() {
            return self.typed(byte, show);
        }
        if !self.escape.is_empty() || byte == 0x1b {
            return self.escaped(byte, show);
        }
        match byte {
            b' ' | b'f' => self.on(|me, show| me.page(show), show),
            b'\r' | b'\n' | b'j' => self.on(|me, show| me.lines_of(1, show), show),
            b'b' | b'k' | b'g' => {
                self.top = match byte {
                    b'g' => 0,
                    b'k' => self.top.saturating_sub(1),
                    _ => self.before(),
                };
                self.anew(show)
            }
            b'G' => {
                self.give_way(show);
                false
            }
            b'/' => {
                self.search = Some(String::new());
                show.push_str(WIPE);
                show.push('/');
                true
            }
            b'n' => self.find(show),
            b'q' | b'Q' | 0x03 | 0x04 => {
                show.push_str(WIPE);
                false
            }
            _ => true,
        }
    }

    /// Arrows and page keys.
    fn escaped(&mut self, byte: u8, show: &mut String) -> bool {
        self.escape.push(byte);
        let key = match self.escape.as_slice() {
            [0x1b] | [0x1b, b'[' | b'O'] => return true,
            [0x1b, _, b'A'] => b'k',
            [0x1b, _, b'B'] => b'j',
            [0x1b, _, b'5', b'~'] => b'b',
            [0x1b, _, b'6', b'~'] => b' ',
            [0x1b, b'[', b'0'..=b'9', ..] if byte != b'~' && self.escape.len() < 8 => return true,
            _ => 0,
        };
        self.escape.clear();
        self.byte(key, show)
    }

    /// A byte of what is searched for.
    fn typed(&mut self, byte: u8, show: &mut String) -> bool {
        let Some(search) = &mut self.search else { return true };
        match byte {
            b'\r' | b'\n' => {
                let search = self.search.take().unwrap_or_default();
                if !search.is_empty() {
                    self.sought = search.to_lowercase();
                }
                return self.find(show);
            }
            0x03 | 0x1b => {
                self.search = None;
                show.push_str(WIPE);
                show.push_str(PROMPT);
            }
            0x7f | 0x08 => {
                search.pop();
                show.push_str(WIPE);
                show.push_str(&format!("/{search}"));
            }
            0x20..0x7f if search.len() < SEARCH => {
                search.push(char::from(byte));
                show.push(char::from(byte));
            }
            _ => {}
        }
        true
    }

    /// The next screen that begins with a line with the text.
    fn find(&mut self, show: &mut String) -> bool {
        let found =
            self.lines[self.top..].iter().skip(1).position(|l| l.to_lowercase().contains(&self.sought));
        match found.filter(|_| !self.sought.is_empty()) {
            Some(found) => {
                self.top += found + 1;
                self.anew(show)
            }
            None => {
                show.push_str(WIPE);
                show.push_str(&format!("not found; {PROMPT}"));
                true
            }
        }
    }

    /// Where the screen before this one begins.
    fn before(&self) -> usize {
        let (mut top, mut room) = (self.top, self.rows - 1);
        while top > 0 {
            let height = self.height(&self.lines[top - 1]);
            if height > room {
                break;
            }
            (top, room) = (top - 1, room - height);
        }
        top
    }

    fn anew(&mut self, show: &mut String) -> bool {
        self.next = self.top;
        show.push_str(CLEAR);
        self.page(show);
        show.push_str(PROMPT);
        true
    }

    /// Goes on; nothing is left behind the last line.
    fn on(&mut self, step: impl FnOnce(&mut Self, &mut String), show: &mut String) -> bool {
        show.push_str(WIPE);
        step(self, show);
        if self.next == self.lines.len() {
            return false;
        }
        show.push_str(PROMPT);
        true
    }

    /// A screen full, less the row of the prompt; a line that is higher than the screen is shown whole.
    fn page(&mut self, show: &mut String) {
        let (from, mut room) = (self.next, self.rows - 1);
        while let Some(line) = self.lines.get(self.next) {
            let height = self.height(line);
            if height > room && self.next > from {
                break;
            }
            room = room.saturating_sub(height);
            show.push_str(line);
            show.push_str("\r\n");
            self.next += 1;
            if room == 0 {
                break;
            }
        }
        self.top = from;
    }

    fn lines_of(&mut self, count: usize, show: &mut String) {
        let to = self.next.saturating_add(count).min(self.lines.len());
        for line in &self.lines[self.next..to] {
            show.push_str(line);
            show.push_str("\r\n");
        }
        (self.top, self.next) = (self.top + (to - self.next), to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(lines: usize) -> String {
        (1..=lines).map(|i| format!("line {i}\n")).collect()
    }

    fn size(rows: usize) -> Size {
        Size { rows, columns: 80 }
    }

    fn keys(pager: &mut Pager, bytes: &[u8]) -> String {
        let mut show = String::new();
        for byte in bytes {
            pager.byte(*byte, &mut show);
        }
        show
    }

    #[test]
    fn short_answers_have_no_pages() {
        let mut show = String::new();
        assert!(Pager::begin(&text(4), size(5), &mut show).is_none());
        assert!(Pager::begin(&text(400), size(0), &mut show).is_none());
        assert!(show.starts_with("line 1\r\n") && show.ends_with("line 400\r\n"));
    }

    #[test]
    fn every_line_of_a_long_answer_is_shown_once_and_in_order() {
        let mut show = String::new();
        let mut pager = Pager::begin(&text(20), size(5), &mut show).expect("pages");
        assert_eq!(show.matches("line").count(), 4);
        assert!(pager.byte(b'x', &mut show), "other keys do nothing");
        assert!(pager.byte(b'\r', &mut show));
        assert_eq!(show.matches("line").count(), 5);
        while pager.byte(b' ', &mut show) {}
        let seen = show.replace(WIPE, "").replace(PROMPT, "").replace("\r\n", "\n");
        assert_eq!(seen, text(20));
    }

    #[test]
    fn q_ends_it_and_what_was_pasted_shows_the_rest() {
        let mut show = String::new();
        let mut pager = Pager::begin(&text(20), size(5), &mut show).expect("pages");
        assert!(!pager.byte(b'q', &mut show));
        assert!(!show.contains("line 5"));
        pager.give_way(&mut show);
        assert!(show.ends_with("line 19\r\nline 20\r\n"));
    }

    #[test]
    fn rows_are_counted_by_width() {
        let wide: String = (1..=6).map(|i| format!("{i}{}\n", "x".repeat(100))).collect();
        let mut show = String::new();
        Pager::begin(&wide, Size { rows: 7, columns: 40 }, &mut show).expect("pages");
        assert_eq!(show.matches("\r\n").count(), 2, "three rows each: {show}");
    }

    #[test]
    fn one_goes_back_and_searches() {
        let mut show = String::new();
        let mut pager = Pager::begin(&text(100), size(11), &mut show).expect("pages");
        keys(&mut pager, b"  ");
        let back = keys(&mut pager, b"b");
        assert!(
            back.contains("line 11\r\n") && back.contains("line 20\r\n") && !back.contains("line 21"),
            "{back}"
        );
        let found = keys(&mut pager, b"/LINE 77\r");
        assert!(
            found.contains("line 77\r\n") && found.contains("line 86\r\n") && !found.contains("line 76"),
            "{found}"
        );
        assert!(keys(&mut pager, b"/nothing\r").contains("not found"));
        assert!(keys(&mut pager, b"g").contains("line 1\r\n"));
        assert!(keys(&mut pager, b"\x1b[6~\x1b[5~").contains("line 1\r\n"), "page down and up");
    }

    proptest! {
        #[test]
        fn any_keys_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100), rows in 2usize..9) {
            let mut show = String::new();
            if let Some(mut pager) = Pager::begin(&text(30), Size { rows, columns: 5 }, &mut show) {
                for byte in bytes {
                    if !pager.byte(byte, &mut show) {
                        break;
                    }
                }
            }
            // Nothing that was typed comes back as it is: a terminal would obey it.
            let obeyed = |c: char| c.is_control() && !matches!(c, '\r' | '\n' | '\u{1b}');
            prop_assert!(!show.contains(obeyed), "{show:?}");
        }
    }
}
