//! Environment variables that override the file: `PETREL_SECTION__KEY=value`.
//!
//! The name is `PETREL_` and the key's path in capitals, its parts joined by two underscores; a list is indexed by
//! number or by the `name` (or `filter`) of an entry, and the number after the last one appends an entry. A value is
//! read as TOML if it is a number, `true`, `false`, a quoted string, a list or an inline table, and as a string
//! otherwise. Names without two underscores that are not a top-level key are ignored, such as `PETREL_CONFIG`, and
//! `PETREL_PORT`, which Kubernetes creates for a service called "petrel".

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::document::Document;
use crate::config::mistake::{Location, Mistake};
use crate::config::setting::Section;
use crate::config::table::sections;

/// The prefix of every variable.
pub(crate) const PREFIX: &str = "PETREL_";

/// Keys outside of any section.
fn top_level() -> Vec<&'static str> {
    let top = sections().into_iter().filter(|section| section.header.is_empty());
    top.flat_map(|section| section.settings).map(|setting| setting.key).collect()
}

/// Lists of tables: the only lists that a path can lead into.
fn lists() -> Vec<&'static str> {
    let all = sections();
    let lists = all.iter().filter(|section| section.is_list()).map(Section::path);
    lists.chain(["bridge"]).collect()
}

/// Variables that override a key, sorted by name so that the result does not depend on their order in the
/// environment.
#[must_use]
pub(crate) fn overrides(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(String, OsString)> {
    let top_level = top_level();
    let mut found: Vec<_> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| {
            let key = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase);
            key.is_some_and(|key| key.contains("__") || top_level.contains(&&*key))
        })
        .collect();
    found.sort();
    found
}

/// Inserts the variables into the document. Returns those that have no place.
pub(crate) fn apply<'a>(
    document: &mut Document<'a>,
    overrides: &'a [(String, OsString)],
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let lists = lists();
    for (name, value) in overrides {
        let index = document.variables.len();
        document.variables.push(name);
        let result = match value.to_str() {
            Some(value) => insert(document, &lists, index, name, value),
            None => Err("the value is not UTF-8".to_owned()),
        };
        if let Err(problem) = result {
            let place = Location::Variable(name.clone());
            mistakes.push(Mistake { place, key: String::new(), problem, cure: None });
        }
    }
    mistakes
}

fn insert<'a>(
    document: &mut Document<'a>,
    lists: &[&str],
    index: usize,
    name: &str,
    value: &'a str,
) -> Result<(), String> {
    let key = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    let parts: Vec<&str> = key.split("__").collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err("a part of the name between two underscores is empty".into());
    }
    let spans: Vec<_> =
        (0..parts.len()).map(|depth| document.variable_span(index, depth)).collect();
    let leaf = spans.last().cloned().unwrap_or_default();
    let mut value = Some(Spanned::new(leaf.clone(), read_value(value, &leaf)));

    let mut table = &mut document.root;
    let mut path = String::new();
    let mut steps = parts.iter().zip(spans).peekable();
    while let Some((part, span)) = steps.next() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
        let key = Spanned::new(span.clone(), Cow::Owned((*part).to_owned()));
        if steps.peek().is_none() {
            // Removed first, because inserting would keep the old key with its old place.
            table.remove(*part);
            if let Some(value) = value.take() {
                table.insert(key, value);
            }
            return Ok(());
        }
        let is_list = lists.contains(&&*path);
        let next = table.entry(key).or_insert_with(|| {
            let list = is_list.then(|| DeValue::Array(DeArray::new()));
            Spanned::new(span.clone(), list.unwrap_or_else(|| DeValue::Table(DeTable::new())))
        });
        table = match next.get_mut() {
            DeValue::Table(table) => table,
            DeValue::Array(array) if is_list => {
                let Some((part, span)) = steps.next().filter(|_| steps.peek().is_some()) else {
                    return Err(format!("an entry of `{path}` has keys: name one of them"));
                };
                entry(array, part, &path, &span)?
            }
            _ => return Err(format!("`{path}` has no keys inside it")),
        };
    }
    Ok(())
}

/// The entry of a list that `part` names.
fn entry<'t, 'a>(
    array: &'t mut DeArray<'a>,
    part: &str,
    path: &str,
    span: &Range<usize>,
) -> Result<&'t mut DeTable<'a>, String> {
    let named = |value: &Spanned<DeValue<'_>>| {
        ["name", "filter"].iter().any(|key| {
            let name = value.get_ref().get(*key).and_then(|name| name.get_ref().as_str());
            name.is_some_and(|name| name.to_ascii_lowercase().replace('-', "_") == *part)
        })
    };
    let count = array.len();
    let index = match part.parse::<usize>() {
        Ok(index) if index <= count => index,
        Ok(_) => return Err(format!("`{path}` has {count} entries; {count} appends one")),
        Err(_) => array.iter().position(named).ok_or_else(|| {
            format!("no entry of `{path}` is called `{part}`; write its name, or a number from 0")
        })?,
    };
    if index == count {
        array.push(Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    match array.get_mut(index).map(Spanned::get_mut) {
        Some(DeValue::Table(table)) => Ok(table),
        _ => Err(format!("`{path}[{index}]` has no keys inside it")),
    }
}

fn read_value<'a>(text: &'a str, span: &Range<usize>) -> DeValue<'a> {
    match DeValue::parse(text.trim()) {
        Ok(value) if !value.get_ref().is_datetime() => respan(value.into_inner(), span),
        _ => DeValue::String(Cow::Borrowed(text)),
    }
}

/// Gives every value inside `value` the variable's span.
fn respan<'a>(value: DeValue<'a>, span: &Range<usize>) -> DeValue<'a> {
    let inside =
        |value: Spanned<DeValue<'a>>| Spanned::new(span.clone(), respan(value.into_inner(), span));
    match value {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(inside).collect()),
        DeValue::Table(table) => {
            let entries = table.into_iter();
            let entries = entries
                .map(|(key, value)| (Spanned::new(span.clone(), key.into_inner()), inside(value)));
            DeValue::Table(entries.collect())
        }
        value => value,
    }
}
