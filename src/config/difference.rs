//! Finds the keys of the configuration that have changed since startup and need a restart.

use std::collections::BTreeMap;

use crate::config::table::File;

/// The full keys whose values differ, such as `limits.max_inflight`. Bridges are left out, because a reload applies
/// them.
#[must_use]
pub(crate) fn changed_keys(old: &File, new: &File) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let mut keys: Vec<String> = old
        .iter()
        .filter(|(key, value)| new.get(*key) != Some(value))
        .map(|(key, _)| key.clone())
        .chain(new.keys().filter(|key| !old.contains_key(*key)).cloned())
        .collect();
    keys.sort();
    keys
}

fn flat(file: &File) -> BTreeMap<String, toml::Value> {
    let mut values = BTreeMap::new();
    if let Ok(mut table) = toml::Table::try_from(file) {
        table.remove("bridge");
        collect("", toml::Value::Table(table), &mut values);
    }
    values
}

fn collect(path: &str, value: toml::Value, values: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                collect(&path, value, values);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (index, item) in items.into_iter().enumerate() {
                collect(&format!("{path}[{index}]"), item, values);
            }
        }
        value => drop(values.insert(path.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Source;

    fn file(text: &str) -> File {
        Source { text: text.to_owned(), ..Source::default() }.parse().file
    }

    #[test]
    fn changed_keys_are_named_in_full() {
        let old = file("[limits]\nmax_inflight = 5\n[[listener]]\nname = \"a\"\n");
        let new = file("[limits]\nmax_inflight = 6\n[[listener]]\nname = \"b\"\n[[bridge]]\n");
        assert_eq!(changed_keys(&old, &new), ["limits.max_inflight", "listener[0].name"]);
        assert_eq!(changed_keys(&old, &old), [""; 0]);
        let more = file("[limits]\nmax_inflight = 5\n[[listener]]\nname = \"a\"\n[[overflow]]\n");
        assert!(changed_keys(&old, &more).contains(&"overflow[0].filter".to_owned()));
    }
}
