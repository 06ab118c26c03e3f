//! How a [`Command`](crate::control::command::Command) and its answer travel on the control socket: one line of JSON each.

use serde::{Deserialize, Serialize};

/// One line of an answer. The broker writes it with a [`Reply`](crate::control::command::Reply) inside, the command line
/// reads it with any JSON.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line<R> {
    /// More follows.
    Progress {
        /// So much is done.
        done: u64,
        /// Of so much; zero: unknown.
        total: u64,
    },
    /// Done; the result.
    Ok(R),
    /// Not done; why.
    Error(String),
}

/// The longest line that is read: a bridge with thousands of rules fits.
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
