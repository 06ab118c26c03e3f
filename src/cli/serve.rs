//! `petrel serve`: settings, logging, runtime and signals around a [`Node`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use petrel::config::settings::{ListenAddress, Settings};
use petrel::control::command::Command;
use petrel::net::listener::ListenError;
use petrel::node::commands::ReadAgain;
use petrel::node::{Node, NodeError};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tracing::{error, info, warn};

use crate::cli::check::durability;
use crate::cli::configuration::{ConfigurationOptions, describe};
use crate::cli::serve::signals::{SignalRequest, Signals};
use crate::cli::{explain, logging};

mod precautions;
mod signals;
mod welcome;

/// Runs the broker.
///
/// Stops on SIGTERM and SIGINT: it stops accepting, tells MQTT 5.0 clients (0x8B), writes what is in hand, and exits with
/// 0 within [shutdown] grace; a second signal stops it at once. SIGHUP makes it read certificates, users and bridges
/// again, without touching any connection.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel serve                               on ./config/petrel.toml, if there is one
  petrel serve --config petrel.toml
  PETREL_DATA_DIR=/srv/petrel petrel serve   every key has a variable: PETREL_SECTION__KEY

Exit codes: 0 stopped by a signal, 1 could not start or failed, 2 wrong command line.")]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// What the broker keeps is nobody else's business, whatever the umask of whoever starts it: files are made 0600,
/// directories 0700.
pub(crate) fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// After the end, how long threads that wait for a disk may hold the program up.
const LAST_WAIT: Duration = Duration::from_secs(2);

impl ServeCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        let mut settings = self.configuration.load()?;
        let file = self.configuration.file();
        let _log = logging::start(&settings.file.log)?;
        let open_files = raise_open_files();
        let possible = connections_within(open_files);
        let connections =
            settings.accept.max_connections.map_or(possible, |most| most.min(possible));
        settings.accept.max_connections = Some(connections);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            process = std::process::id(),
            configuration = describe(file.as_deref()),
            durability = durability(&settings),
            connections,
            "starting"
        );
        precautions::warn_of(&settings);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = settings.worker_threads {
            runtime.worker_threads(threads);
        }
        let runtime = runtime.enable_all().build().context("the runtime cannot be started")?;
        let served = runtime.block_on(serve(settings, file));
        runtime.shutdown_timeout(LAST_WAIT);
        match served {
            Ok(code) => {
                info!("stopped");
                Ok(code)
            }
            Err(error) => {
                error!(error = explain(&error), "failed");
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

async fn serve(settings: Settings, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    // Before anything slow: a signal during the start is answered as any other.
    let mut signals = Signals::listen().context("signals cannot be listened to")?;
    let grace = settings.shutdown_grace;
    let read_again =
        Box::new(move || Settings::load(file.as_deref(), std::env::vars_os())) as ReadAgain;
    let node = Node::open(settings.clone(), read_again).await.map_err(with_cure)?;
    let (handle, commands) = (node.handle(), node.commands());
    let addresses: Vec<ListenAddress> = node.addresses();
    let mut running = tokio::spawn(node.run());
    welcome::print(&settings, &addresses);
    loop {
        tokio::select! {
            request = signals.next() => match request {
                SignalRequest::Reload => {
                    if let Err(problems) = commands.ask(Command::Reload).await {
                        error!(%problems, "not reloaded, what was in force stays");
                    }
                }
                SignalRequest::Stop => break,
            },
            ended = &mut running => {
                ended.context("the broker ended in a bug")?;
                anyhow::bail!("the listeners have ended by themselves");
            }
        }
    }
    info!(?grace, "stopping");
    handle.stop();
    tokio::select! {
        ended = running => {
            ended.context("the broker ended in a bug")?;
            Ok(ExitCode::SUCCESS)
        }
        () = signals.stop_requested() => {
            warn!("a second signal: stopping at once");
            handle.stop_now();
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Adds what helps a newcomer most.
fn with_cure(error: NodeError) -> anyhow::Error {
    let cure = match &error {
        NodeError::Listen(ListenError::Tls { .. }) => {
            "`petrel certs` makes certificates for development, `petrel check` says what is wrong"
        }
        NodeError::Users(_) => "`petrel passwd FILE NAME` makes a users file",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {cure}")
}

/// Files that are no connections: the store's, listeners, logs, bridges.
const RESERVED_FILES: u64 = 640;

fn connections_within(open_files: u64) -> usize {
    // A system with very few files still serves some Clients.
    let rest = open_files.saturating_sub(RESERVED_FILES).max(open_files / 2);
    usize::try_from(rest).unwrap_or(usize::MAX)
}

/// Each connection is an open file: takes as many as the system grants without asking. Returns how many.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}
