//! A parsed TOML document that records the origin of each value: a line of the file, or an environment variable.
//! `source` builds and reads it; `check` uses it to locate keys.

use std::fmt;
use std::ops::Range;
use std::path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::mistake::Location;

/// The document.
#[derive(Debug, Clone)]
pub(crate) struct Document<'a> {
    /// `None`: there is no file, the defaults apply.
    pub(crate) file: Option<&'a path::Path>,
    /// The text of the file.
    pub(crate) text: &'a str,
    /// Variables whose values were inserted into `root`, in the order of their spans.
    pub(crate) variables: Vec<&'a str>,
    /// The values.
    pub(crate) root: DeTable<'a>,
}

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathStep {
    /// Into a table.
    Key(String),
    /// Into an array.
    Index(usize),
}

/// The path to a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Path(pub(crate) Vec<PathStep>);

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Key(key) if position == 0 => out.write_str(key)?,
                PathStep::Key(key) => write!(out, ".{key}")?,
                PathStep::Index(index) => write!(out, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Path {
    /// Reads `listener[0].tls.key`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (key, index) = part.split_once('[').unwrap_or((part, ""));
            steps.push(PathStep::Key(key.to_owned()));
            if let Ok(index) = index.trim_end_matches(']').parse() {
                steps.push(PathStep::Index(index));
            }
        }
        Self(steps)
    }
}

/// Spans reserved for each variable: one for each step of its path.
const SPANS_PER_VARIABLE: usize = 32;

impl<'a> Document<'a> {
    /// The span for step `depth` of the path of a variable. Such spans are after the end of the file, so that they
    /// cannot be confused with those of the file.
    #[must_use]
    pub(crate) fn variable_span(&self, variable: usize, depth: usize) -> Range<usize> {
        let depth = depth.min(SPANS_PER_VARIABLE - 1);
        let at = self.text.len() + 1 + variable * SPANS_PER_VARIABLE + depth;
        at..at
    }

    /// The variable that a span belongs to.
    #[must_use]
    pub(crate) fn variable_of(&self, span: &Range<usize>) -> Option<usize> {
        span.start.checked_sub(self.text.len() + 1).map(|at| at / SPANS_PER_VARIABLE)
    }

    /// The place of a span.
    #[must_use]
    pub(crate) fn place(&self, span: &Range<usize>) -> Location {
        if let Some(variable) = self.variable_of(span) {
            return Location::Variable((*self.variables.get(variable).unwrap_or(&"")).to_owned());
        }
        let Some(file) = self.file else { return Location::Default };
        let file = file.to_owned();
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Location::Line { file, line, column }
    }

    /// The place of a key, or of the nearest enclosing element in the file.
    #[must_use]
    pub(crate) fn place_of(&self, key: &str) -> Location {
        let mut place = self.file.map_or(Location::Default, |file| Location::File(file.to_owned()));
        let mut table = Some(&self.root);
        let mut value: Option<&Spanned<DeValue<'a>>> = None;
        for step in Path::parse(key).0 {
            let span = match &step {
                PathStep::Key(name) => {
                    let Some((key, found)) = table.and_then(|table| table.get_key_value(&**name))
                    else {
                        break;
                    };
                    value = Some(found);
                    if found.get_ref().is_table() { key.span() } else { found.span() }
                }
                PathStep::Index(index) => {
                    let array = value.and_then(|value| value.get_ref().as_array());
                    let Some(found) = array.and_then(|array| array.get(*index)) else { break };
                    value = Some(found);
                    found.span()
                }
            };
            place = self.place(&span);
            table = value.and_then(|value| value.get_ref().as_table());
        }
        place
    }

    /// The path of the key or value with this span.
    #[must_use]
    pub(crate) fn path_of(&self, span: &Range<usize>) -> Option<Path> {
        let mut steps = Vec::new();
        find_in_table(&self.root, span, &mut steps).then_some(Path(steps))
    }

    /// The value at `path`.
    pub(crate) fn value_mut(&mut self, path: &Path) -> Option<&mut Spanned<DeValue<'a>>> {
        let (PathStep::Key(first), rest) = path.0.split_first()? else { return None };
        let mut value = self.root.get_mut(&**first)?;
        for step in rest {
            value = match (step, value.get_mut()) {
                (PathStep::Key(key), DeValue::Table(table)) => table.get_mut(&**key)?,
                (PathStep::Index(index), DeValue::Array(array)) => array.get_mut(*index)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// Removes the value at `path`, so that the rest can be read. False if there was none.
    pub(crate) fn remove(&mut self, path: &Path) -> bool {
        let Some((last, parents)) = path.0.split_last() else { return false };
        if parents.is_empty() {
            return matches!(last, PathStep::Key(key) if self.root.remove(&**key).is_some());
        }
        let parent = self.value_mut(&Path(parents.to_vec()));
        match (last, parent.map(Spanned::get_mut)) {
            (PathStep::Key(key), Some(DeValue::Table(table))) => table.remove(&**key).is_some(),
            (PathStep::Index(index), Some(DeValue::Array(array))) if *index < array.len() => {
                let rest = array.iter().enumerate().filter(|(at, _)| at != index);
                *array = rest.map(|(_, value)| value.clone()).collect();
                true
            }
            _ => false,
        }
    }
}

fn find_in_table(table: &DeTable<'_>, span: &Range<usize>, steps: &mut Vec<PathStep>) -> bool {
    for (key, value) in table {
        steps.push(PathStep::Key(key.get_ref().to_string()));
        if key.span() == *span || find_in_value(value, span, steps) {
            return true;
        }
        steps.pop();
    }
    false
}

fn find_in_value(
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    steps: &mut Vec<PathStep>,
) -> bool {
    if value.span() == *span {
        return true;
    }
    match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span, steps),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, value)| {
            steps.push(PathStep::Index(index));
            let found = find_in_value(value, span, steps);
            if !found {
                steps.pop();
            }
            found
        }),
        _ => false,
    }
}
