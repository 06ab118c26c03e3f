//! `petrel ctl`: the command line of the control socket.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::control::client::{AskError, ask};
use crate::control::protocol::Request;
use crate::control::table::{list, table};

/// Ask or change a running broker
///
/// Speaks to the broker over its control socket, a file that only its owner may open ([control] socket in the
/// configuration, in the data directory).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  petrel ctl status
  petrel ctl bridge list
  petrel ctl bridge add --file cloud.toml        the keys of one [[bridge]], without that line
  petrel ctl bridge pause cloud                  its messages are queued until `resume`
  petrel ctl --json bridge show cloud | jq .queue_messages
  petrel ctl backup /var/backups/petrel

Exit codes: 0 done, 1 refused or no broker answers, 2 wrong command line.")]
pub struct ControlCommand {
    /// Control socket of the broker
    #[arg(
        long,
        value_name = "PATH",
        default_value = "data/petrel.sock",
        env = "PETREL_CONTROL_SOCKET"
    )]
    socket: PathBuf,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// How the broker is
    Status,
    /// The sessions: who is connected, what waits for whom
    Sessions {
        /// Only those whose client id begins so
        #[arg(long, default_value = "")]
        prefix: String,
        /// At most so many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Read certificates, users and bridges again, as SIGHUP does
    Reload,
    /// Copy the store while the broker runs
    Backup {
        /// Directory for the copy, as the broker sees it
        directory: PathBuf,
    },
    /// List, show, add, pause, resume and remove bridges
    #[command(subcommand)]
    Bridge(BridgeAction),
}

#[derive(Debug, Subcommand)]
enum BridgeAction {
    /// All bridges with state and queue
    List,
    /// Everything about one bridge
    Show {
        /// Its name
        name: String,
    },
    /// Add a bridge, or change one with --replace; its queue stays
    Add {
        /// File with the keys of one [[bridge]], without that line; `-` reads standard input
        #[arg(long, short)]
        file: PathBuf,
        /// Change a bridge that is there
        #[arg(long)]
        replace: bool,
    },
    /// Disconnect; messages are queued until `resume`
    Pause {
        /// Its name
        name: String,
    },
    /// Connect now, also a bridge of start type lazy, once or manual
    Resume {
        /// Its name
        name: String,
    },
    /// End a bridge; its queue stays and collects unless --purge
    Remove {
        /// Its name
        name: String,
        /// Drop what waits, and the session
        #[arg(long)]
        purge: bool,
    },
}

impl ControlCommand {
    /// Asks the broker and prints its answer.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn run(self) -> Result<(), AskError> {
        let request = self.action.request()?;
        let bar = ProgressBar::hidden();
        let answer = ask(&self.socket, &request, |done, total| show_progress(&bar, done, total));
        bar.finish_and_clear();
        let answer = answer?;
        let text = if self.json { format!("{answer:#}\n") } else { readable(&request, &answer) };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }
}

impl Action {
    fn request(&self) -> Result<Request, AskError> {
        Ok(match self {
            Self::Status => Request::Status,
            Self::Sessions { prefix, limit } => {
                Request::Sessions { prefix: prefix.clone(), limit: *limit }
            }
            Self::Reload => Request::Reload,
            Self::Backup { directory } => Request::Backup { directory: absolute(directory)? },
            Self::Bridge(action) => action.request()?,
        })
    }
}

impl BridgeAction {
    fn request(&self) -> Result<Request, AskError> {
        Ok(match self {
            Self::List => Request::BridgeList,
            Self::Show { name } => Request::BridgeShow { name: name.clone() },
            Self::Add { file, replace } => {
                Request::BridgeAdd { settings: read(file)?, replace: *replace }
            }
            Self::Pause { name } => Request::BridgePause { name: name.clone() },
            Self::Resume { name } => Request::BridgeResume { name: name.clone() },
            Self::Remove { name, purge } => {
                Request::BridgeRemove { name: name.clone(), purge: *purge }
            }
        })
    }
}

fn absolute(path: &PathBuf) -> Result<PathBuf, AskError> {
    std::path::absolute(path).map_err(|source| AskError::File { path: path.clone(), source })
}

fn read(path: &PathBuf) -> Result<String, AskError> {
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(path),
    };
    text.map_err(|source| AskError::File { path: path.clone(), source })
}

fn show_progress(bar: &ProgressBar, done: u64, total: u64) {
    if bar.is_hidden() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    }
    bar.set_length(total.max(done));
    bar.set_position(done);
}

fn readable(request: &Request, answer: &Value) -> String {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    match request {
        Request::BridgeList if rows.is_empty() => "no bridges\n".to_owned(),
        Request::BridgeList => table(
            rows,
            &[
                ("NAME", "name"),
                ("STATE", "state"),
                ("ADDRESS", "address"),
                ("QUEUED", "queue_messages"),
                ("OLDEST(s)", "oldest_seconds"),
                ("OUT", "messages_out"),
                ("IN", "messages_in"),
                ("ATTEMPTS", "attempts"),
                ("LAST ERROR", "last_error"),
            ],
        ),
        Request::Sessions { .. } if rows.is_empty() => "no sessions\n".to_owned(),
        Request::Sessions { .. } => table(
            rows,
            &[
                ("CLIENT ID", "client_id"),
                ("CONNECTED", "connected"),
                ("QUEUED", "queue_messages"),
                ("BYTES", "queue_bytes"),
                ("INFLIGHT", "inflight"),
                ("DROPPED", "dropped"),
            ],
        ),
        _ if answer.is_null() => "done\n".to_owned(),
        _ => list(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        control: ControlCommand,
    }

    fn request(arguments: &[&str]) -> Request {
        let program = Program::parse_from([&["ctl"], arguments].concat());
        program.control.action.request().unwrap()
    }

    #[test]
    fn arguments_become_requests() {
        assert_eq!(request(&["status"]), Request::Status);
        assert_eq!(request(&["bridge", "list"]), Request::BridgeList);
        let purge = Request::BridgeRemove { name: "a".into(), purge: true };
        assert_eq!(request(&["bridge", "remove", "a", "--purge"]), purge);
        let backup = Request::Backup { directory: "/b".into() };
        assert_eq!(request(&["backup", "/b"]), backup);
        let sessions = Request::Sessions { prefix: "x".into(), limit: 5 };
        assert_eq!(request(&["sessions", "--prefix", "x", "--limit", "5"]), sessions);
    }

    #[test]
    fn answers_are_readable() {
        let rows =
            serde_json::json!([{"name": "cloud", "state": "connected", "queue_messages": 3}]);
        let shown = readable(&Request::BridgeList, &rows);
        assert!(shown.contains("cloud") && shown.contains("connected"), "{shown}");
        assert_eq!(readable(&Request::Reload, &Value::Null), "done\n");
        assert_eq!(readable(&Request::BridgeList, &serde_json::json!([])), "no bridges\n");
    }
}
