//! Formats JSON for people: a list of objects as a table, a single object as a list of its keys.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Shows `columns` of a list of objects, one line each.
#[must_use]
pub(super) fn table(rows: &[Value], columns: &[(&str, &str)]) -> String {
    let mut cells: Vec<Vec<String>> =
        vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
    for row in rows {
        cells.push(
            columns.iter().map(|(_, key)| text(row.get(*key).unwrap_or(&Value::Null))).collect(),
        );
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let mut output = String::new();
    for row in cells {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        output.push_str(line.trim_end());
        output.push('\n');
    }
    output
}

/// Shows all fields of one object, with nested keys joined by dots.
#[must_use]
pub(super) fn list(value: &Value) -> String {
    let mut lines = Vec::new();
    collect("", value, &mut lines);
    let width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default();
    let mut output = String::new();
    for (key, value) in lines {
        let _infallible = writeln!(output, "{key:<width$}  {value}");
    }
    output
}

fn collect(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => collect_fields(prefix, fields, lines),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                match item.as_array().map(Vec::as_slice) {
                    // A pair is a name with its value.
                    Some([Value::String(name), value]) => {
                        lines.push((format!("{prefix}.{name}"), text(value)));
                    }
                    _ => collect(&format!("{prefix}[{index}]"), item, lines),
                }
            }
        }
        other => lines.push((prefix.to_owned(), text(other))),
    }
}

fn collect_fields(prefix: &str, fields: &Map<String, Value>, lines: &mut Vec<(String, String)>) {
    for (key, value) in fields {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        collect(&key, value, lines);
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // Text from a remote broker must not control the terminal.
        Value::String(text) => {
            text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
        }
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned() {
        let rows = [json!({"name": "a", "count": 1000}), json!({"name": "long", "count": null})];
        let shown = table(&rows, &[("NAME", "name"), ("COUNT", "count")]);
        assert_eq!(shown, "NAME  COUNT\na     1000\nlong  -\n");
    }

    #[test]
    fn objects_are_listed_with_all_they_hold() {
        let shown = list(&json!({
            "name": "a\u{1b}[31m",
            "up": true,
            "queue": {"bytes": 7},
            "topics": ["x", "y"],
            "drops": [["loop", 1], ["topic", 0]],
        }));
        assert!(shown.contains("a?[31m"), "{shown}");
        assert!(shown.contains("queue.bytes  7"), "{shown}");
        assert!(shown.contains("topics       x, y"), "{shown}");
        assert!(shown.contains("drops.loop   1"), "{shown}");
    }
}
