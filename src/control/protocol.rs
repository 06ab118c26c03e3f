//! The protocol of the control socket: a [`Command`](crate::control::command::Command) and each part of its answer is one
//! line of JSON.

use serde::{Deserialize, Serialize};

/// One line of an answer. The broker writes it with a [`Reply`](crate::control::command::Reply), the command line reads
/// it with any JSON value.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line<R> {
    /// More follows.
    Progress {
        /// The amount done.
        done: u64,
        /// The total; zero if unknown.
        total: u64,
    },
    /// The result.
    Ok(R),
    /// The error.
    Error(String),
}

/// The longest line accepted: enough for a bridge with thousands of rules.
pub(crate) const LINE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_plain_json() {
        let text = serde_json::to_string(&Line::<()>::Error("no".into())).unwrap();
        assert_eq!(text, r#"{"error":"no"}"#);
        let text = serde_json::to_string(&Line::<()>::Progress { done: 1, total: 2 }).unwrap();
        assert_eq!(text, r#"{"progress":{"done":1,"total":2}}"#);
        assert_eq!(serde_json::to_string(&Line::Ok(())).unwrap(), r#"{"ok":null}"#);
    }
}
