//! Pages of lists: `--match`, `--limit` and `--after` are the same for all of them.

use crate::{Block, CommandError, Output, Table};

/// Rows that a person is shown where no limit is given.
const SHOWN: usize = 1000;
/// Rows of one answer at most.
pub(crate) const LONGEST: usize = 100_000;

/// The rows of a list that are asked for. A row, here, may be several lines that share their first cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    matching: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    json: bool,
}

impl Page {
    pub(crate) fn new(
        matching: Option<String>,
        after: Option<String>,
        limit: Option<usize>,
        json: bool,
    ) -> Self {
        Self { matching: matching.map(|m| m.to_lowercase()), after, limit, json }
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(if self.json { LONGEST } else { SHOWN })
    }

    fn matches(&self, rows: &[Vec<String>]) -> bool {
        let Some(matching) = &self.matching else { return true };
        rows.iter().flatten().any(|cell| cell.to_lowercase().contains(matching))
    }

    /// Rows of a list that is too long to be made whole, offered in order of their keys.
    pub fn rows<'p>(&'p self, table: &'p mut Table) -> Rows<'p> {
        Rows { page: self, table, shown: 0, total: 0, last: None, more: false }
    }

    /// Cuts the first table of an answer, and its data where that is one value for each row.
    pub(crate) fn cut(&self, output: &mut Output) -> Result<(), CommandError> {
        let Some(at) = output.blocks.iter().position(|b| matches!(b, Block::Table(_))) else { return Ok(()) };
        let Block::Table(table) = &mut output.blocks[at] else { return Ok(()) };
        let all = std::mem::take(&mut table.rows);
        let lines = all.len();
        let mut groups: Vec<Vec<Vec<String>>> = Vec::new();
        for row in all {
            match groups.last_mut() {
                Some(last) if table.grouped > 0 && last[0].first() == row.first() => last.push(row),
                _ => groups.push(vec![row]),
            }
        }
        let firsts: Vec<usize> = groups
            .iter()
            .scan(0, |line, g| {
                let first = *line;
                *line += g.len();
                Some(first)
            })
            .collect();
        let key = |g: &[Vec<String>]| g.first().and_then(|r| r.first()).cloned().unwrap_or_default();
        let from = match &self.after {
            None => 0,
            Some(after) => match groups.iter().position(|g| key(g) == *after) {
                Some(found) => found + 1,
                // The row may have gone since it was shown.
                None if groups.is_sorted_by_key(|g| key(g)) => groups.partition_point(|g| key(g) <= *after),
                None => {
                    return Err(CommandError::Failed(format!("no row of this list begins with {after:?}")));
                }
            },
        };
        let whole = groups.len();
        let (mut total, mut kept, mut more) = (0, Vec::new(), false);
        for (i, group) in groups.into_iter().enumerate() {
            if !self.matches(&group) {
                continue;
            }
            total += 1;
            if i >= from {
                match kept.len() < self.limit() {
                    true => kept.push((i, group)),
                    false => more = true,
                }
            }
        }
        let last = kept.last().map(|(_, g)| key(g));
        let places: Vec<usize> = kept.iter().map(|(i, _)| *i).collect();
        let of_lines: Vec<usize> =
            places.iter().flat_map(|i| firsts[*i]..firsts.get(i + 1).copied().unwrap_or(lines)).collect();
        table.rows = kept.into_iter().flat_map(|(_, g)| g).collect();
        let said = said(places.len(), total, last.filter(|_| more));
        output.blocks.insert(at + 1, Block::Text(said));
        if let Some(serde_json::Value::Array(data)) = output.data_mut()
            && (data.len() == whole || data.len() == lines)
        {
            // One value for each row, or for each of its lines.
            let places = if data.len() == lines { of_lines } else { places };
            let mut old: Vec<_> = std::mem::take(data).into_iter().map(Some).collect();
            *data = places.iter().filter_map(|i| old.get_mut(*i).and_then(Option::take)).collect();
        }
        self.too_long(more)
    }

    /// A program that has asked for everything must not take a part of it for that.
    fn too_long(&self, more: bool) -> Result<(), CommandError> {
        match more && self.json && self.limit.is_none() {
            true => Err(CommandError::Usage(format!(
                "the list has more than {LONGEST} rows; ask for pages: --limit 10000, then --after the last row's first value"
            ))),
            false => Ok(()),
        }
    }
}

/// The line under a list; `next` is where its next page begins.
pub fn said(shown: usize, total: usize, next: Option<String>) -> String {
    match next {
        Some(last) => format!("{shown} of {total} shown; the next: --after {last}"),
        None => format!("{shown} of {total} shown"),
    }
}

/// See [`Page::rows`].
pub struct Rows<'p> {
    page: &'p Page,
    table: &'p mut Table,
    shown: usize,
    total: usize,
    last: Option<String>,
    more: bool,
}

impl Rows<'_> {
    /// A row, or several lines of one; they are made only if they may be shown.
    pub fn offer(&mut self, key: &str, make: impl FnOnce() -> Vec<Vec<String>>) {
        let behind = self.page.after.as_ref().is_none_or(|after| key > after.as_str());
        let room = self.shown < self.page.limit();
        if self.page.matching.is_none() && !(behind && room) {
            (self.total, self.more) = (self.total + 1, self.more || behind);
            return;
        }
        let made = make();
        if !self.page.matches(&made) {
            return;
        }
        self.total += 1;
        match behind && room {
            true => {
                (self.shown, self.last) = (self.shown + 1, Some(key.to_owned()));
                self.table.rows.extend(made);
            }
            false => self.more |= behind,
        }
    }

    /// The line below the list.
    ///
    /// # Errors
    /// A program wants all rows and there are too many for one answer.
    pub fn end(self) -> Result<String, CommandError> {
        self.page.too_long(self.more)?;
        Ok(said(self.shown, self.total, self.last.filter(|_| self.more)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> Output {
        let mut table = Table::new(["Number", "Bound to", "Lines"]).numbers(&["Lines"]).grouped(1);
        for (number, to) in [("100", "Anna"), ("101", "bridge b"), ("101", "anna too"), ("102", "")] {
            table.row([number, to, "7"]);
        }
        Output::table(table)
    }

    fn page(matching: Option<&str>, after: Option<&str>, limit: Option<usize>) -> (Vec<String>, String) {
        let mut output = list();
        let own = |o: Option<&str>| o.map(str::to_owned);
        Page::new(own(matching), own(after), limit, false).cut(&mut output).expect("a page");
        let [Block::Table(table), Block::Text(said)] = output.blocks.as_slice() else { panic!("{output:?}") };
        // The same by offers.
        let mut offered = Table::new(["Number", "Bound to", "Lines"]);
        let asked = Page::new(own(matching), own(after), limit, false);
        let mut rows = asked.rows(&mut offered);
        let row = |n: &str, to: &str| vec![n.to_owned(), to.to_owned(), "7".to_owned()];
        rows.offer("100", || vec![row("100", "Anna")]);
        rows.offer("101", || vec![row("101", "bridge b"), row("101", "anna too")]);
        rows.offer("102", || vec![row("102", "")]);
        assert_eq!((&rows.end().expect("a page"), &offered.rows), (said, &table.rows));
        (table.rows.iter().map(|r| r[1].clone()).collect(), said.clone())
    }

    #[test]
    fn lists_are_cut_by_rows_and_say_how_much_there_is() {
        let all = |rows: &[&str]| rows.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            page(None, None, None),
            (all(&["Anna", "bridge b", "anna too", ""]), "3 of 3 shown".into())
        );
        let first = (all(&["Anna"]), "1 of 3 shown; the next: --after 100".into());
        assert_eq!(page(None, None, Some(1)), first);
        let second = (all(&["bridge b", "anna too"]), "1 of 3 shown; the next: --after 101".into());
        assert_eq!(page(None, Some("100"), Some(1)), second);
        // A row that has gone meanwhile.
        assert_eq!(page(None, Some("1011"), None), (all(&[""]), "1 of 3 shown".into()));
        let matching = (all(&["Anna", "bridge b", "anna too"]), "2 of 2 shown".into());
        assert_eq!(page(Some("ANNA"), None, None), matching);
        assert_eq!(page(Some("nobody"), None, None), (all(&[]), "0 of 0 shown".into()));
    }

    #[test]
    fn data_is_cut_as_its_rows_are_and_never_in_silence() {
        let mut table = Table::new(["Name"]);
        (0..4).for_each(|i| table.row([format!("n{i}")]));
        let mut output = Output::table(table.clone()).with_data(json!([0, 1, 2, 3]));
        Page::new(None, Some("n1".into()), Some(1), true).cut(&mut output).expect("a page");
        assert_eq!(output.to_json(), json!([2]));
        let mut grouped = list().with_data(json!(["a", "b", "c", "d"]));
        Page::new(None, Some("100".into()), Some(1), true).cut(&mut grouped).expect("a page");
        assert_eq!(grouped.to_json(), json!(["b", "c"]), "one value for each line of a row");
        let mut long = Table::new(["Name"]);
        (0..=LONGEST).for_each(|i| long.row([format!("{i:06}")]));
        let all = Page::new(None, None, None, true);
        assert!(matches!(all.cut(&mut Output::table(long)), Err(CommandError::Usage(_))));
    }
}
