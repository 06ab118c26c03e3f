//! A mistake in the configuration: where it is, what is wrong, and how to fix it.

use std::fmt;
use std::path::PathBuf;

/// The location of a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In the file.
    Line {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In the file as a whole: something is missing.
    File(PathBuf),
    /// In the built-in defaults, used if there is no file.
    Default,
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column } => {
                write!(out, "{}:{line}:{column}", file.display())
            }
            Self::Variable(name) => write!(out, "environment variable {name}"),
            Self::File(file) => write!(out, "{}", file.display()),
            Self::Default => out.write_str("built-in defaults"),
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Its location.
    pub(crate) place: Location,
    /// The full key, such as `listener[0].tls.key`; empty for syntax errors.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) problem: String,
    /// How to fix it, if known.
    pub(crate) cure: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.problem)?;
        match &self.cure {
            Some(cure) => write!(out, "\n    {cure}"),
            None => Ok(()),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {file}: {error}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// It contains these mistakes.
    #[error("{}", list(.0))]
    Mistakes(Vec<Mistake>),
}

fn list(mistakes: &[Mistake]) -> String {
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let mut lines = vec![format!("the configuration has {count}:")];
    lines.extend(mistakes.iter().map(ToString::to_string));
    lines.join("\n  ").replace("\n    ", "\n      ")
}

/// The candidate closest to `word`, if one is close enough.
#[must_use]
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["durability", "store", "block_cache"];
        assert_eq!(nearest("durabilty", names), Some("durability"));
        assert_eq!(nearest("blockcache", names), Some("block_cache"));
        assert_eq!(nearest("password", names), None);
    }
}
