//! What a command says: data first.

use serde_json::Value;

/// Rows under named columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub title: Option<String>,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<C: ToString>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { title: None, columns: columns.into_iter().map(|c| c.to_string()).collect(), rows: Vec::new() }
    }

    pub fn title(mut self, title: impl ToString) -> Self {
        self.title = Some(title.to_string());
        self
    }

    pub fn row<C: ToString>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|c| c.to_string()).collect());
    }

    /// Rows as objects, keyed by the columns in lower case with `_` for blanks.
    pub fn to_json(&self) -> Value {
        let keys: Vec<String> = self.columns.iter().map(|c| c.to_lowercase().replace(' ', "_")).collect();
        let object = |row: &Vec<String>| {
            keys.iter()
                .cloned()
                .zip(row.iter().map(|v| Value::String(v.clone())))
                .collect::<serde_json::Map<_, _>>()
        };
        Value::Array(self.rows.iter().map(|r| Value::Object(object(r))).collect())
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
}

impl Output {
    pub fn text(text: impl ToString) -> Self {
        Self { blocks: vec![Block::Text(text.to_string())], data: None }
    }

    pub fn ok() -> Self {
        Self::text("ok")
    }

    pub fn table(table: Table) -> Self {
        Self { blocks: vec![Block::Table(table)], data: None }
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
