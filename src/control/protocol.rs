//! What is asked and answered on the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the broker is.
    Status,
    /// Its Sessions.
    Sessions {
        /// Only those whose Client Identifier begins so.
        #[serde(default)]
        prefix: String,
        /// At most so many.
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// Read certificates, users and bridges again, as SIGHUP does.
    Reload,
    /// Copy the store of the running broker.
    Backup {
        /// Into this directory, as the broker sees it.
        directory: PathBuf,
    },
    /// All bridges.
    BridgeList,
    /// One bridge.
    BridgeShow {
        /// Its name.
        name: String,
    },
    /// A new bridge, or a changed one.
    BridgeAdd {
        /// As in the configuration: the TOML of one `[[bridge]]` without that line.
        settings: String,
        /// Change one that is there.
        #[serde(default)]
        replace: bool,
    },
    /// Disconnect a bridge.
    BridgePause {
        /// Its name.
        name: String,
    },
    /// Let it connect.
    BridgeResume {
        /// Its name.
        name: String,
    },
    /// End it.
    BridgeRemove {
        /// Its name.
        name: String,
        /// And drop its queue.
        #[serde(default)]
        purge: bool,
    },
}

fn default_limit() -> usize {
    1000
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// More follows.
    Progress {
        /// So much is done.
        done: u64,
        /// Of so much; zero: unknown.
        total: u64,
    },
    /// Done; the result.
    Ok(serde_json::Value),
    /// Not done; why.
    Error(String),
}

/// The longest line that is read: a bridge with thousands of rules fits.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_plain_json() {
        let request: Request =
            serde_json::from_str(r#"{"command":"bridge-remove","name":"cloud"}"#).unwrap();
        assert_eq!(request, Request::BridgeRemove { name: "cloud".into(), purge: false });
        assert!(serde_json::from_str::<Request>(r#"{"command":"explode"}"#).is_err());
        assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"command":"status"}"#);
    }

    #[test]
    fn replies_are_plain_json() {
        let text = serde_json::to_string(&Reply::Error("no".into())).unwrap();
        assert_eq!(text, r#"{"error":"no"}"#);
        let text = serde_json::to_string(&Reply::Progress { done: 1, total: 2 }).unwrap();
        assert_eq!(text, r#"{"progress":{"done":1,"total":2}}"#);
    }
}
