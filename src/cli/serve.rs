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
/// On SIGTERM or SIGINT the broker stops accepting connections, notifies MQTT 5.0 clients (0x8B), finishes pending writes
/// and exits with 0 within [shutdown] grace; a second signal stops it at once. On SIGHUP it reloads certificates, users
/// and bridges without closing connections that are not affected.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel serve                               use ./config/petrel.toml, if it exists
  petrel serve --config petrel.toml
  PETREL_DATA_DIR=/srv/petrel petrel serve   every key has a variable: PETREL_SECTION__KEY

Exit codes: 0 stopped by a signal, 1 failed or could not start, 2 wrong command line.")]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// Makes new files private whatever the umask of the caller: 0600 for files, 0700 for directories.
pub(crate) fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// How long threads that wait for a disk may delay the exit.
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
        let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
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
    // Before anything slow, so that a signal during startup is handled like any other.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
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
                        error!(%problems, "reload failed, the previous settings stay in force");
                    }
                }
                SignalRequest::Stop => break,
            },
            ended = &mut running => {
                ended.context("the broker stopped because of a bug")?;
                anyhow::bail!("the listeners stopped unexpectedly");
            }
        }
    }
    info!(?grace, "stopping");
    handle.stop();
    tokio::select! {
        ended = running => {
            ended.context("the broker stopped because of a bug")?;
            Ok(ExitCode::SUCCESS)
        }
        () = signals.stop_requested() => {
            warn!("a second signal: stopping at once");
            handle.stop_now();
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Adds a hint on how to fix the error.
fn with_cure(error: NodeError) -> anyhow::Error {
    let cure = match &error {
        NodeError::Listen(ListenError::Tls { .. }) => {
            "`petrel certs` creates certificates for development, `petrel check` explains the mistake"
        }
        NodeError::Users(_) => "`petrel passwd FILE NAME` creates a users file",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {cure}")
}

/// Files that are not connections: store, listeners, logs, bridges.
const RESERVED_FILES: u64 = 640;

fn connections_within(open_files: u64) -> usize {
    // A system with a very low limit still serves some Clients.
    let rest = open_files.saturating_sub(RESERVED_FILES).max(open_files / 2);
    usize::try_from(rest).unwrap_or(usize::MAX)
}

/// Raises the limit on open files, of which each connection is one, as far as the system allows. Returns the limit.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}
