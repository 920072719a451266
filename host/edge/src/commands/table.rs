//! JSON of the API as aligned text: a list as a table, an object as a sheet.
//!
//! Columns and lines name JSON pointers, so that a member which the server does not send
//! shows as `-` instead of failing. Invariant: a cell is one line without control
//! characters.

use std::fmt::Write as _;

use serde_json::Value;

use crate::client::plain;

/// Stands for `null` and for what is not there.
const NOTHING: &str = "-";
/// Spaces between columns.
const GAP: usize = 2;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// A table in the making.
#[derive(Debug)]
pub(super) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let head = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { aligns: columns.iter().map(|(_, align)| *align).collect(), rows: vec![head] }
    }

    /// A table of a list: heading and JSON pointer of each column.
    pub(super) fn of<'a>(
        items: impl IntoIterator<Item = &'a Value>,
        columns: &[(&str, &str)],
    ) -> Self {
        let heads: Vec<_> = columns.iter().map(|(head, _)| (*head, Align::Left)).collect();
        let mut table = Self::new(&heads);
        for item in items {
            table.row(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))));
        }
        table
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Aligned lines, without spaces at their ends.
    pub(super) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                let fill = width - cell.chars().count();
                let (before, after) = match align {
                    Align::Left => (0, fill),
                    Align::Right => (fill, 0),
                };
                let after = after + GAP;
                // Writing to a String cannot fail.
                let _infallible = write!(line, "{:before$}{cell}{:after$}", "", "");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The items of a page.
pub(super) fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An object as lines of name and value: heading and JSON pointer of each.
pub(super) fn sheet(object: &Value, lines: &[(&str, &str)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + GAP;
    let mut text = String::new();
    for (name, pointer) in lines {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{name:width$}{}", cell(object.pointer(pointer)));
    }
    text
}

/// A value as one line.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(items)) => joined(items.iter().map(|item| cell(Some(item)))),
        Some(Value::Object(members)) => joined(
            members.iter().map(|(name, value)| format!("{}={}", plain(name), cell(Some(value)))),
        ),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let text = parts.collect::<Vec<_>>().join(", ");
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_lines_end_without_spaces() {
        let list = [json!({"slug": "a", "n": 1}), json!({"slug": "köln", "n": null})];
        let table = Table::of(&list, &[("SLUG", "/slug"), ("N", "/n"), ("X", "/x")]);
        assert_eq!(table.text(), "SLUG  N  X\na     1  -\nköln  -  -\n");
    }

    #[test]
    fn figures_stand_on_the_right() {
        let mut table = Table::new(&[("METRIC", Align::Left), ("USED", Align::Right)]);
        table.row(["users".into(), "12345".into()]);
        table.row(["x".into(), "1".into()]);
        assert_eq!(table.text(), "METRIC   USED\nusers   12345\nx           1\n");
    }

    #[test]
    fn a_list_without_items_is_its_heading() {
        assert_eq!(Table::of(&[], &[("ID", "/id")]).text(), "ID\n");
    }

    #[test]
    fn values_are_one_line_without_control_characters() {
        let value = json!({"a": ["x\u{1b}[2J", "y\nz"], "b": true, "c": {}, "d": 0.81});
        let shown = sheet(&value, &[("a", "/a"), ("flag", "/b"), ("c", "/c"), ("d", "/d")]);
        assert_eq!(shown, "a     x\\u{1b}[2J, y\\nz\nflag  yes\nc     -\nd     0.81\n");
    }
}
