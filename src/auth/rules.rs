//! The file with access rules of a running broker, in either format, and its mistakes.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::client_rights::Rules;
use crate::access::rule_set::{RuleDraft, RuleSet};
use crate::auth::{acl_file, rules_file};

/// Most mistakes reported at once.
const MAX_MISTAKES: usize = 20;

/// The format of a file with rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleFormat {
    /// Petrel's own, see [`rules_file`].
    Petrel,
    /// mosquitto's ACL file, see [`acl_file`].
    Mosquitto,
}

/// Why a file with rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("cannot read the rules in {file}: {error}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// It has mistakes.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
}

/// A mistake in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The word that is wrong.
    pub word: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub cure: String,
}

/// The file with the rules of a running broker.
#[derive(Debug)]
pub struct RulesFile {
    path: PathBuf,
    format: RuleFormat,
    rules: Arc<Rules>,
    /// The text that is in force.
    text: Mutex<String>,
}

impl RulesFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`RulesError`] if it cannot be read or has mistakes.
    pub fn open(path: &Path, format: RuleFormat) -> Result<Self, RulesError> {
        let text = read(path)?;
        let draft = parse(&text, path, format)?;
        let rules = Arc::new(Rules::new(RuleSet::compile(draft)));
        Ok(Self { path: path.to_owned(), format, rules, text: Mutex::new(text) })
    }

    /// Rereads the file; if it has mistakes, the old rules stay. Returns whether rules were replaced.
    ///
    /// # Errors
    /// [`RulesError`] if it cannot be read or has mistakes.
    pub(crate) fn reload(&self) -> Result<bool, RulesError> {
        let text = read(&self.path)?;
        let mut current = self.text.lock();
        if *current == text {
            return Ok(false);
        }
        let draft = parse(&text, &self.path, self.format)?;
        self.rules.replace(RuleSet::compile(draft));
        *current = text;
        Ok(true)
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }
}

fn read(path: &Path) -> Result<String, RulesError> {
    std::fs::read_to_string(path)
        .map_err(|error| RulesError::Unreadable { file: path.to_owned(), error })
}

fn parse(text: &str, path: &Path, format: RuleFormat) -> Result<RuleDraft, RulesError> {
    let file = path.display().to_string();
    match format {
        RuleFormat::Petrel => rules_file::parse(text, &file),
        RuleFormat::Mosquitto => acl_file::parse(text, &file),
    }
}

fn join(mistakes: &[Mistake]) -> String {
    let shown = mistakes.iter().take(MAX_MISTAKES).map(ToString::to_string);
    let mut lines: Vec<_> = shown.collect();
    if let Some(more) = mistakes.len().checked_sub(MAX_MISTAKES).filter(|more| *more > 0) {
        lines.push(format!("and {more} more mistakes"));
    }
    lines.join("\n")
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, word, problem, cure } = self;
        write!(formatter, "{file}:{line}: {word:?}: {problem}; {cure}")
    }
}
