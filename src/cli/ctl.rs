//! `petrel ctl`: the command line of the control socket.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use petrel::control::client::{AskError, ControlClient};
use petrel::control::command::{
    AskedOperation, Command, ExplainQuery, PAGE_SESSIONS_MAX, SessionQuery,
};
use serde_json::Value;

use crate::cli::configuration::ConfigurationOptions;
use crate::cli::ctl::table::{list, table};

mod socket;
mod table;

/// Query or control a running broker
///
/// Talks to the broker over its control socket, a file in the data directory that only its owner may open ([control]
/// socket in the configuration). The socket is found through the same configuration files and variables as `petrel
/// serve` uses; if none of them names a data directory, /var/lib/petrel is tried as well.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  petrel ctl status
  petrel ctl bridge list
  petrel ctl bridge add --file cloud.toml        the keys of one [[bridge]], without the header line
  petrel ctl bridge pause cloud                  queue its messages until `resume`
  petrel ctl --json bridge show cloud | jq .queue_messages
  petrel ctl backup /var/backups/petrel
  petrel ctl explain ann sensor-1 publish alarms/fire     which access rule decides
  petrel ctl explain - sensor-1 subscribe 'alarms/#'      - is a client without a user name

Exit codes: 0 done, 1 refused or no broker answers, 2 wrong command line.")]
pub(crate) struct ControlCommand {
    /// Control socket of the broker [default: from the configuration]
    #[arg(long, value_name = "PATH", env = "PETREL_CONTROL_SOCKET")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    configuration: ConfigurationOptions,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the state of the broker
    Status,
    /// List the sessions, their connections and queues
    Sessions {
        /// Only sessions whose client id begins with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// Show at most this many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Say whether a client may publish, subscribe or receive, and which access rule decides
    Explain {
        /// User name; `-` for a client without one
        user: String,
        /// Client id
        client: String,
        /// What it wants to do
        operation: OperationArgument,
        /// With which topic, or topic filter to subscribe to
        topic: String,
        /// QoS of the message or the subscription
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// The message is retained
        #[arg(long)]
        retain: bool,
    },
    /// Reload certificates, users, access rules and bridges, as SIGHUP does
    Reload,
    /// Back up the store while the broker runs
    Backup {
        /// Directory for the backup, as seen by the broker
        directory: PathBuf,
    },
    /// List, show, add, pause, resume and remove bridges
    #[command(subcommand)]
    Bridge(BridgeAction),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OperationArgument {
    Publish,
    Receive,
    Subscribe,
    Unsubscribe,
}

#[derive(Debug, Subcommand)]
enum BridgeAction {
    /// List all bridges with their state and queue
    List,
    /// Show everything about one bridge
    Show {
        /// Name of the bridge
        name: String,
    },
    /// Add a bridge, or change one with --replace; the queue is kept
    Add {
        /// File with the keys of one [[bridge]], without the header line; `-` reads standard input
        #[arg(long, short)]
        file: PathBuf,
        /// Replace an existing bridge
        #[arg(long)]
        replace: bool,
    },
    /// Disconnect a bridge; its messages are queued until `resume`
    Pause {
        /// Name of the bridge
        name: String,
    },
    /// Connect a bridge now, including one with start type lazy, once or manual
    Resume {
        /// Name of the bridge
        name: String,
    },
    /// Remove a bridge; unless --purge is given, its queue stays and keeps filling
    Remove {
        /// Name of the bridge
        name: String,
        /// Also drop its queue and session
        #[arg(long)]
        purge: bool,
    },
}

impl ControlCommand {
    /// Sends the command and prints the answer.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let stream = socket::connect(self.socket.as_deref(), &self.configuration)?;
        let mut client = ControlClient::new(stream);
        let answer = match &self.action {
            Action::Sessions { prefix, limit } => sessions(&mut client, prefix, *limit)?,
            action => {
                let command = action.command()?;
                let bar = ProgressBar::hidden();
                let answer = client.ask(&command, |done, total| show_progress(&bar, done, total));
                bar.finish_and_clear();
                answer?
            }
        };
        let text =
            if self.json { format!("{answer:#}\n") } else { readable(&self.action, &answer) };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }
}

/// Requests page after page until there are enough.
fn sessions(client: &mut ControlClient, prefix: &str, limit: usize) -> Result<Value, AskError> {
    let mut query = SessionQuery { prefix: prefix.to_owned(), ..SessionQuery::default() };
    let mut rows = Vec::new();
    while rows.len() < limit {
        query.limit = PAGE_SESSIONS_MAX.min(limit - rows.len());
        let mut page = client.ask(&Command::Sessions(query.clone()), |_, _| {})?;
        if let Some(Value::Array(found)) = page.get_mut("sessions").map(Value::take) {
            rows.extend(found);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => query.after = Some(next.to_owned()),
            None => break,
        }
    }
    // The broker's own order means nothing to a reader.
    rows.sort_by_cached_key(|row| row["client_id"].as_str().map(str::to_owned));
    Ok(Value::Array(rows))
}

impl Action {
    fn command(&self) -> anyhow::Result<Command> {
        Ok(match self {
            Self::Status => Command::Status,
            Self::Sessions { prefix, limit } => {
                let (prefix, limit) = (prefix.clone(), *limit);
                Command::Sessions(SessionQuery { prefix, limit, ..SessionQuery::default() })
            }
            Self::Explain { user, client, operation, topic, qos, retain } => {
                Command::Explain(ExplainQuery {
                    user_name: Some(user.clone()).filter(|user| user != "-"),
                    client_id: client.clone(),
                    operation: match operation {
                        OperationArgument::Publish => AskedOperation::Publish,
                        OperationArgument::Receive => AskedOperation::Receive,
                        OperationArgument::Subscribe => AskedOperation::Subscribe,
                        OperationArgument::Unsubscribe => AskedOperation::Unsubscribe,
                    },
                    topic: topic.clone(),
                    qos: *qos,
                    retain: *retain,
                })
            }
            Self::Reload => Command::Reload,
            Self::Backup { directory } => {
                let directory = std::path::absolute(directory)
                    .with_context(|| format!("{} is not a path", directory.display()))?;
                Command::Backup { directory }
            }
            Self::Bridge(action) => action.command()?,
        })
    }
}

impl BridgeAction {
    fn command(&self) -> anyhow::Result<Command> {
        Ok(match self {
            Self::List => Command::BridgeList,
            Self::Show { name } => Command::BridgeShow { name: name.clone() },
            Self::Add { file, replace } => {
                Command::BridgeAdd { settings: read(file)?, replace: *replace }
            }
            Self::Pause { name } => Command::BridgePause { name: name.clone() },
            Self::Resume { name } => Command::BridgeResume { name: name.clone() },
            Self::Remove { name, purge } => {
                Command::BridgeRemove { name: name.clone(), purge: *purge }
            }
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(path),
    };
    text.with_context(|| format!("cannot read {}", path.display()))
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

fn readable(action: &Action, answer: &Value) -> String {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    match action {
        Action::Bridge(BridgeAction::List) if rows.is_empty() => "no bridges\n".to_owned(),
        Action::Bridge(BridgeAction::List) => table(
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
        Action::Sessions { .. } if rows.is_empty() => "no sessions\n".to_owned(),
        Action::Sessions { .. } => table(
            rows,
            &[
                ("CLIENT ID", "client_id"),
                ("CONNECTED(s)", "connected_seconds"),
                ("FROM", "address"),
                ("LISTENER", "listener"),
                ("MQTT", "protocol"),
                ("QUEUED", "queue_messages"),
                ("BYTES", "queue_bytes"),
                ("INFLIGHT", "inflight"),
                ("DROPPED", "dropped"),
            ],
        ),
        Action::Explain { .. } => {
            let verdict = if answer["allowed"] == true { "allowed" } else { "denied" };
            format!("{verdict}: {}\n", answer["reason"].as_str().unwrap_or_default())
        }
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

    fn action(arguments: &[&str]) -> Action {
        Program::parse_from([&["ctl"], arguments].concat()).control.action
    }

    fn command(arguments: &[&str]) -> Command {
        action(arguments).command().unwrap()
    }

    #[test]
    fn arguments_become_commands() {
        assert_eq!(command(&["status"]), Command::Status);
        assert_eq!(command(&["bridge", "list"]), Command::BridgeList);
        let purge = Command::BridgeRemove { name: "a".into(), purge: true };
        assert_eq!(command(&["bridge", "remove", "a", "--purge"]), purge);
        let backup = Command::Backup { directory: "/b".into() };
        assert_eq!(command(&["backup", "/b"]), backup);
        let explain = ExplainQuery {
            user_name: None,
            client_id: "c".into(),
            operation: AskedOperation::Publish,
            topic: "a/b".into(),
            qos: 1,
            retain: true,
        };
        assert_eq!(
            command(&["explain", "-", "c", "publish", "a/b", "--qos", "1", "--retain"]),
            Command::Explain(explain)
        );
        let query = SessionQuery { prefix: "x".into(), limit: 5, after: None };
        assert_eq!(
            command(&["sessions", "--prefix", "x", "--limit", "5"]),
            Command::Sessions(query)
        );
    }

    #[test]
    fn answers_are_readable() {
        let rows =
            serde_json::json!([{"name": "cloud", "state": "connected", "queue_messages": 3}]);
        let bridges = action(&["bridge", "list"]);
        let shown = readable(&bridges, &rows);
        assert!(shown.contains("cloud") && shown.contains("connected"), "{shown}");
        assert_eq!(readable(&action(&["reload"]), &Value::Null), "done\n");
        assert_eq!(readable(&bridges, &serde_json::json!([])), "no bridges\n");
    }
}
