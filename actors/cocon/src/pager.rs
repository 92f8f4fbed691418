//! Long answers, a screen at a time; knows no terminal.

use std::collections::VecDeque;

const PROMPT: &str = "-- more: space, Enter, q --";
const WIPE: &str = "\r\x1b[K";

/// What is still to be shown.
#[derive(Debug)]
pub struct Pager {
    lines: VecDeque<String>,
    rows: usize,
}

impl Pager {
    /// Shows the first screen. `None`: it was all of it. A terminal of no known height has no pages.
    pub fn begin(text: &str, rows: usize, show: &mut String) -> Option<Self> {
        let mut pager = Self { lines: text.lines().map(str::to_owned).collect(), rows };
        if rows < 2 || pager.lines.len() < rows {
            show.push_str(&text.replace('\n', "\r\n"));
            return None;
        }
        pager.lines(rows - 1, show);
        show.push_str(PROMPT);
        Some(pager)
    }

    /// Takes a byte from the terminal; `false` when there is nothing more to show.
    pub fn byte(&mut self, byte: u8, show: &mut String) -> bool {
        let count = match byte {
            b' ' => self.rows - 1,
            b'\r' | b'\n' => 1,
            b'q' | b'Q' | 0x03 | 0x04 => {
                show.push_str(WIPE);
                return false;
            }
            _ => return true,
        };
        show.push_str(WIPE);
        self.lines(count, show);
        if self.lines.is_empty() {
            return false;
        }
        show.push_str(PROMPT);
        true
    }

    fn lines(&mut self, count: usize, show: &mut String) {
        for line in self.lines.drain(..count.min(self.lines.len())) {
            show.push_str(&line);
            show.push_str("\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: usize) -> String {
        (1..=lines).map(|i| format!("line {i}\n")).collect()
    }

    #[test]
    fn short_answers_have_no_pages() {
        let mut show = String::new();
        assert!(Pager::begin(&text(4), 5, &mut show).is_none());
        assert!(Pager::begin(&text(400), 0, &mut show).is_none());
        assert!(show.starts_with("line 1\r\n") && show.ends_with("line 400\r\n"));
    }

    #[test]
    fn every_line_of_a_long_answer_is_shown_once_and_in_order() {
        let mut show = String::new();
        let mut pager = Pager::begin(&text(20), 5, &mut show).expect("pages");
        assert_eq!(show.matches("line").count(), 4);
        assert!(pager.byte(b'x', &mut show), "other keys do nothing");
        assert!(pager.byte(b'\r', &mut show));
        assert_eq!(show.matches("line").count(), 5);
        while pager.byte(b' ', &mut show) {}
        let seen = show.replace(WIPE, "").replace(PROMPT, "").replace("\r\n", "\n");
        assert_eq!(seen, text(20));
    }

    #[test]
    fn q_ends_it() {
        let mut show = String::new();
        let mut pager = Pager::begin(&text(20), 5, &mut show).expect("pages");
        assert!(!pager.byte(b'q', &mut show));
        assert!(!show.contains("line 5"));
    }
}
