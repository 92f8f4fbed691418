//! What a command says: data first.

use serde_json::Value;

/// Type of a column's values in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Values {
    #[default]
    Text,
    /// Numbers; an empty cell is null.
    Number,
    /// `true` or `false`; an empty cell is null.
    Bool,
}

/// Rows under named columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub title: Option<String>,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    values: Vec<Values>,
    /// Leading columns whose values are shown once for all rows that share them.
    pub grouped: usize,
}

impl Table {
    pub fn new<C: ToString>(columns: impl IntoIterator<Item = C>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(|c| c.to_string()).collect();
        Self { values: vec![Values::Text; columns.len()], columns, ..Self::default() }
    }

    pub fn title(mut self, title: impl ToString) -> Self {
        self.title = Some(title.to_string());
        self
    }

    /// These columns hold numbers, and are numbers in JSON.
    pub fn numbers(self, columns: &[&str]) -> Self {
        self.typed(columns, Values::Number)
    }

    /// These columns hold `true` or `false`, and are that in JSON.
    pub fn flags(self, columns: &[&str]) -> Self {
        self.typed(columns, Values::Bool)
    }

    fn typed(mut self, columns: &[&str], values: Values) -> Self {
        for (_, v) in self.columns.iter().zip(&mut self.values).filter(|(c, _)| columns.contains(&c.as_str()))
        {
            *v = values;
        }
        self
    }

    /// Consecutive rows that share the first `columns` cells show them once; in JSON each row has them.
    pub fn grouped(mut self, columns: usize) -> Self {
        self.grouped = columns;
        self
    }

    pub fn row<C: ToString>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|c| c.to_string()).collect());
    }

    /// Rows as objects, keyed by the columns in lower case with `_` for blanks.
    ///
    /// ```
    /// let mut table = command::Table::new(["Domain", "Used lines"]).numbers(&["Used lines"]);
    /// table.row(["a.test", "3"]);
    /// assert_eq!(table.to_json(), serde_json::json!([{ "domain": "a.test", "used_lines": 3 }]));
    /// ```
    pub fn to_json(&self) -> Value {
        let keys: Vec<String> = self.columns.iter().map(|c| c.to_lowercase().replace(' ', "_")).collect();
        let value = |(cell, values): (&String, &Values)| match values {
            Values::Number | Values::Bool if cell.is_empty() => Value::Null,
            Values::Number => {
                cell.parse::<serde_json::Number>().map_or_else(|_| cell.as_str().into(), Value::Number)
            }
            Values::Bool => cell.parse::<bool>().map_or_else(|_| cell.as_str().into(), Value::Bool),
            Values::Text => cell.as_str().into(),
        };
        let object = |row: &Vec<String>| {
            let cells = row.iter().zip(&self.values).map(value);
            Value::Object(keys.iter().cloned().zip(cells).collect())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    Text(String),
    Table(Table),
}

/// The answer of a command: blocks to read and, where they say less than there is to know, the data itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    pub blocks: Vec<Block>,
    data: Option<Value>,
    /// Set where the handler has cut its list itself.
    pub(crate) paged: bool,
}

impl Output {
    pub fn text(text: impl ToString) -> Self {
        Self { blocks: vec![Block::Text(text.to_string())], ..Self::default() }
    }

    pub fn ok() -> Self {
        Self::text("ok")
    }

    pub fn table(table: Table) -> Self {
        Self { blocks: vec![Block::Table(table)], ..Self::default() }
    }

    pub fn and_text(mut self, text: impl ToString) -> Self {
        self.blocks.push(Block::Text(text.to_string()));
        self
    }

    pub fn and_table(mut self, table: Table) -> Self {
        self.blocks.push(Block::Table(table));
        self
    }

    /// What `--json` shows instead of the blocks.
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// For a list that its handler has cut by [`crate::Page::rows`].
    pub fn in_pages(mut self) -> Self {
        self.paged = true;
        self
    }

    pub(crate) fn data_mut(&mut self) -> Option<&mut Value> {
        self.data.as_mut()
    }

    /// The data: what was given, or the only table's rows, or the text.
    pub fn to_json(&self) -> Value {
        if let Some(data) = &self.data {
            return data.clone();
        }
        let tables: Vec<&Table> =
            self.blocks.iter().filter_map(|b| if let Block::Table(t) = b { Some(t) } else { None }).collect();
        match tables.as_slice() {
            [] => {
                let texts = self
                    .blocks
                    .iter()
                    .filter_map(|b| if let Block::Text(t) = b { Some(t.as_str()) } else { None });
                serde_json::json!({ "message": texts.collect::<Vec<_>>().join("\n") })
            }
            [only] => only.to_json(),
            many => Value::Array(many.iter().map(|t| t.to_json()).collect()),
        }
    }
}
