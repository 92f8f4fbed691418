//! The manual's look: framed tables, the trailer, JSON.

use std::{fmt::Write, time::Duration};

use chrono::{DateTime, Utc};
use unicode_width::UnicodeWidthStr;

use crate::{Block, Output, Table};

/// The blocks as text, each line ending in `\n`.
pub fn text(output: &Output) -> String {
    let mut out = String::new();
    for block in &output.blocks {
        match block {
            Block::Text(t) => {
                out.push_str(t.trim_end_matches('\n'));
                out.push('\n');
            }
            Block::Table(t) => table(t, &mut out),
        }
    }
    out
}

fn table(t: &Table, out: &mut String) {
    if let Some(title) = &t.title {
        out.push_str(title);
        out.push('\n');
    }
    let cells =
        |row: &[String]| row.iter().map(|c| c.lines().map(clean).collect()).collect::<Vec<Vec<String>>>();
    let rows: Vec<Vec<Vec<String>>> = t.rows.iter().map(|r| cells(r)).collect();
    let header = cells(&t.columns);
    let width = |i: usize| {
        let of =
            |row: &Vec<Vec<String>>| row.get(i).into_iter().flatten().map(|l| l.width()).max().unwrap_or(0);
        rows.iter().map(of).chain([of(&header)]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..t.columns.len()).map(width).collect();
    let rule: String =
        widths.iter().map(|w| format!("+{}", "-".repeat(w + 2))).chain(["+\n".into()]).collect();
    out.push_str(&rule);
    line(&header, &widths, out);
    out.push_str(&rule);
    let mut above: Option<&Vec<Vec<String>>> = None;
    for row in &rows {
        let shared = match above {
            Some(above) => (0..t.grouped).take_while(|i| above.get(*i) == row.get(*i)).count(),
            None => 0,
        };
        if shared == 0 {
            line(row, &widths, out);
        } else {
            let mut shown = row.clone();
            shown.iter_mut().take(shared).for_each(Vec::clear);
            line(&shown, &widths, out);
        }
        above = Some(row);
    }
    if !rows.is_empty() {
        out.push_str(&rule);
    }
}

fn line(cells: &[Vec<String>], widths: &[usize], out: &mut String) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(1).max(1);
    for y in 0..height {
        for (i, width) in widths.iter().enumerate() {
            let text = cells.get(i).and_then(|c| c.get(y)).map_or("", String::as_str);
            let pad = width.saturating_sub(text.width());
            let _ = write!(out, "| {text}{} ", " ".repeat(pad));
        }
        out.push_str("|\n");
    }
}

/// Characters that act would let stored text move an operator's cursor, or show another text than there is.
fn clean(line: &str) -> String {
    line.chars().map(|c| if kit::text::acts(c) { '\u{fffd}' } else { c }).collect()
}

/// `[exec at: 22.12.2019 13:20:18, exec time: 16ms, nodes: ds1@ecss1]` after a blank line, as the manual prints it.
pub fn trailer(at: DateTime<Utc>, spent: Duration, node: &str) -> String {
    let at = at.with_timezone(&chrono::Local).format("%d.%m.%Y %H:%M:%S");
    format!("\n[exec at: {at}, exec time: {}, nodes: {node}]\n", duration(spent))
}

/// `80mks`, `16ms`, `2.5s`.
pub fn duration(d: Duration) -> String {
    match d.as_micros() {
        us @ 0..1000 => format!("{us}mks"),
        us @ 1000..1_000_000 => format!("{}ms", us / 1000),
        us => format!("{:.1}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_frame_with_russian_text_and_lines_in_cells() {
        let mut t = Table::new(["Property", "Value"]);
        t.row(["имя", "a\nbc"]);
        t.row(["x", "\u{1b}[31mred"]);
        let expected = "\
+----------+-----------+
| Property | Value     |
+----------+-----------+
| имя      | a         |
|          | bc        |
| x        | \u{fffd}[31mred |
+----------+-----------+
";
        let shown = text(&Output::table(t));
        assert_eq!(shown.lines().count(), expected.lines().count());
        assert!(shown.contains("| имя      | a         |") || shown.contains("| имя      | a "), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        let widths: std::collections::BTreeSet<usize> = shown.lines().map(|l| l.width()).collect();
        assert_eq!(widths.len(), 1, "{shown}");
    }

    #[test]
    fn durations_read_as_in_the_manual() {
        assert_eq!(duration(Duration::from_micros(80)), "80mks");
        assert_eq!(duration(Duration::from_millis(16)), "16ms");
        assert_eq!(duration(Duration::from_millis(2500)), "2.5s");
    }
}
