//! Reads the file and the environment into a [`File`], and finds all mistakes of syntax, name and type at once.
//!
//! The derived deserializers stop at their first error. So after each error its key is removed from the document and
//! reading starts again, until it succeeds: then all mistakes are known, and the rest can be checked.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::config::document::Document;
use crate::config::environment;
use crate::config::mistake::{ConfigError, Location, Mistake, nearest};
use crate::config::table::{File, sections};

/// The text of a configuration and the variables that override it.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Where the text comes from; `None`: there is no file.
    pub file: Option<PathBuf>,
    /// The text.
    pub text: String,
    /// Overrides, by name of the variable.
    pub overrides: Vec<(String, OsString)>,
}

/// The result of reading.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    /// The values, with defaults for missing or wrong ones.
    pub(crate) file: File,
    /// The document, to locate keys.
    pub(crate) document: Document<'a>,
    /// The mistakes so far.
    pub(crate) mistakes: Vec<Mistake>,
}

/// Largest configuration file: a larger one is probably a wrong path.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl Source {
    /// Reads `file` (or only the environment, if it is `None`).
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] if the file cannot be read.
    pub(crate) fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut text = String::new();
        if let Some(path) = file {
            let read = std::fs::File::open(path)
                .and_then(|open| open.take(MAX_FILE_BYTES).read_to_string(&mut text));
            read.map_err(|error| ConfigError::Unreadable { file: path.to_owned(), error })?;
        }
        let overrides = environment::overrides(environment);
        Ok(Self { file: file.map(Path::to_owned), text, overrides })
    }

    /// Parses the text, inserts the overrides, and reads the values.
    #[must_use]
    pub(crate) fn parse(&self) -> Reading<'_> {
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        let mut document = Document {
            file: self.file.as_deref(),
            text: &self.text,
            variables: Vec::new(),
            root: root.into_inner(),
        };
        let mut mistakes: Vec<_> =
            errors.iter().map(|error| syntax_mistake(&document, error)).collect();
        if !mistakes.is_empty() {
            // After a syntax error, further messages would only confuse.
            return Reading { file: File::default(), document, mistakes };
        }
        mistakes.extend(environment::apply(&mut document, &self.overrides));
        let file = read_values(&document, &self.overrides, &mut mistakes);
        Reading { file, document, mistakes }
    }
}

fn syntax_mistake(document: &Document<'_>, error: &toml::de::Error) -> Mistake {
    let place = document.place(&error.span().unwrap_or_default());
    let problem = error.message().trim().replace('\n', ", ");
    Mistake { place, key: String::new(), problem, cure: None }
}

fn read_values(
    document: &Document<'_>,
    overrides: &[(String, OsString)],
    mistakes: &mut Vec<Mistake>,
) -> File {
    let mut rest = document.clone();
    loop {
        let root = Spanned::new(0..document.text.len(), rest.root.clone());
        let error = match File::deserialize(Deserializer::from(root)) {
            Ok(file) => return file,
            Err(error) => error,
        };
        let path = error.span().and_then(|span| rest.path_of(&span));
        let variable = error.span().and_then(|span| rest.variable_of(&span));
        if let (Some(path), Some(variable)) = (&path, variable) {
            // In the environment, a string such as `123` or `true` looks like a number or a boolean.
            let raw = overrides.get(variable).and_then(|(_, value)| value.to_str());
            if let (Some(raw), Some(value)) = (raw, rest.value_mut(path))
                && !value.get_ref().is_str()
                && !value.get_ref().is_table()
            {
                *value.get_mut() = DeValue::String(Cow::Owned(raw.to_owned()));
                continue;
            }
        }
        mistakes.push(value_mistake(document, &error));
        if !path.is_some_and(|path| rest.remove(&path)) {
            return File::default();
        }
    }
}

fn value_mistake(document: &Document<'_>, error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or_default();
    let path = document.path_of(&span).map(|path| path.to_string()).unwrap_or_default();
    let place = match error.span() {
        Some(span) => document.place(&span),
        None => document.file.map_or(Location::Default, |file| Location::File(file.to_owned())),
    };
    let message = error.message().trim();
    let (problem, cure) = match message.strip_prefix("unknown field ") {
        Some(rest) => unknown_key(&path, rest),
        None => wrong_value(message),
    };
    Mistake { place, key: path, problem, cure }
}

/// `rest` is what follows "unknown field" in the reader's message: names in backticks, the unknown one first.
fn unknown_key(path: &str, rest: &str) -> (String, Option<String>) {
    let mut names = rest.split('`').skip(1).step_by(2);
    let name = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let cure = match (nearest(name, known.iter().copied()), section_of(name)) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, Some(home)) => format!("this key belongs to {home}"),
        (None, None) => match section {
            "" => format!("keys and sections at this place: {}", known.join(", ")),
            _ => format!("keys of {section}: {}", known.join(", ")),
        },
    };
    ("unknown key".to_owned(), Some(cure))
}

/// The section that has a key of this name, for keys in the wrong section.
fn section_of(name: &str) -> Option<String> {
    let all = sections();
    let home =
        all.iter().find(|section| section.settings.iter().any(|setting| setting.key == name));
    home.map(|section| match section.header {
        "" => "the top of the file, before the first section".to_owned(),
        header => header.to_owned(),
    })
}

fn wrong_value(message: &str) -> (String, Option<String>) {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let name = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let listed = known.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
        let cure = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"? Known: {}", listed.join(", ")),
            None => format!("write one of {}", listed.join(", ")),
        };
        return (format!("unknown value \"{name}\""), Some(cure));
    }
    let plain = message
        .replace("expected u64", "expected a whole number from 0")
        .replace("expected a string", "expected a string in quotes")
        .replace("expected a sequence", "expected a list in [ ]")
        .replace("expected a boolean", "expected true or false")
        .replace("invalid type: ", "wrong type: found ")
        .replace("invalid value: ", "wrong value: found ")
        .replace("string \"", "text \"")
        .replace("floating point", "number");
    match plain.split_once(", expected ") {
        Some((problem, expected)) => (problem.to_owned(), Some(format!("write {expected}"))),
        None => (plain, None),
    }
}

#[cfg(test)]
mod tests;
