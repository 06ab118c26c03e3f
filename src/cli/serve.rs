//! `petrel serve`: settings, logging, runtime and signals around a [`Node`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use petrel::bridge::manager::{BridgeManager, ReloadReport};
use petrel::config::choice::StoreKind;
use petrel::config::settings::{ListenAddress, Settings};
use petrel::control::server::ControlListener;
use petrel::net::listener::ListenError;
use petrel::node::bridges::{publish_bridges, start_bridges};
use petrel::node::control::{NodeControl, Reload};
use petrel::node::{Node, NodeError, NodeHandle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::system::uname;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::cli::check::durability;
use crate::cli::configuration::{ConfigurationOptions, describe};
use crate::cli::serve::signals::{Request, Signals};
use crate::cli::{explain, logging};

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

/// After the end, how long threads that wait for a disk may hold the program up.
const LAST_WAIT: Duration = Duration::from_secs(2);

impl ServeCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
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
    let node = Node::open(&settings).await.map_err(with_cure)?;
    let handle = node.handle();
    let addresses: Vec<ListenAddress> = node.addresses();
    let control = settings.control_socket.as_deref().map(bind_control).transpose()?;
    let mut running = tokio::spawn(node.run());
    let parts = Arc::new(Parts::start(handle.clone(), settings.clone(), file)?);
    let _side_tasks = parts.side_tasks(control);
    welcome::print(&settings, &addresses);
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Reload => {
                    if let Err(problems) = parts.reload().await {
                        error!(problems, "not reloaded, what was in force stays");
                    }
                }
                Request::Stop => break,
            },
            ended = &mut running => {
                ended.context("the broker ended in a bug")?;
                anyhow::bail!("the listeners have ended by themselves");
            }
        }
    }
    info!(grace = ?settings.shutdown_grace, "stopping");
    let end = async {
        // Bridges say goodbye first: their Sessions are still there to take the last acknowledgements.
        let patience = settings.shutdown_grace / 2;
        let _patience_is_over = tokio::time::timeout(patience, parts.bridges.shut_down()).await;
        handle.stop();
        running.await
    };
    tokio::select! {
        ended = end => {
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

fn bind_control(path: &Path) -> anyhow::Result<ControlListener> {
    // A store in memory makes no data directory.
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
    }
    Ok(ControlListener::bind(path)?)
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

/// What runs beside the node, and what a reload has to reach.
struct Parts {
    handle: NodeHandle,
    bridges: Arc<BridgeManager>,
    settings: Settings,
    file: Option<PathBuf>,
}

impl Parts {
    fn start(
        handle: NodeHandle,
        settings: Settings,
        file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let is_kept = settings.file.persistence.store != StoreKind::Memory;
        let directory = is_kept.then_some(settings.data_dir.as_path());
        let bridges = start_bridges(&handle, directory, settings.bridges.clone())
            .context("the bridges cannot keep their state in the data directory")?;
        Ok(Self { handle, bridges, settings, file })
    }

    /// The control socket and the `$SYS` topics of the bridges; they end with what is returned.
    fn side_tasks(self: &Arc<Self>, control: Option<ControlListener>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(period) = self.settings.sys_interval {
            let (handle, bridges) = (self.handle.clone(), Arc::clone(&self.bridges));
            tasks.spawn(publish_bridges(handle, bridges, period));
        }
        if let Some(control) = control {
            let parts = Arc::clone(self);
            let reload: Reload = Box::new(move || {
                let parts = Arc::clone(&parts);
                Box::pin(async move { parts.reload().await.map(|report| json!(report)) })
            });
            let (handle, bridges) = (self.handle.clone(), Arc::clone(&self.bridges));
            let host = uname().nodename().to_string_lossy().into_owned();
            tasks.spawn(control.run(Arc::new(NodeControl::new(handle, bridges, host, reload))));
        }
        tasks
    }

    /// Reads again what can change without a restart. Each part on its own: a mistake in one leaves that one as it is.
    async fn reload(&self) -> Result<ReloadReport, String> {
        info!("reading certificates, users and bridges again");
        let other = self.handle.clone();
        let mut problems = match tokio::task::spawn_blocking(move || other.reload()).await {
            Ok(problems) => problems,
            Err(bug) => vec![bug.to_string()],
        };
        let mut report = ReloadReport::default();
        match Settings::load(self.file.as_deref(), std::env::vars_os()) {
            Ok(new) => {
                let mut covered = self.settings.file.clone();
                covered.bridge.clone_from(&new.file.bridge);
                if new.file != covered {
                    warn!(
                        "the configuration has changed in more than its bridges: that waits for a restart"
                    );
                }
                report = self.bridges.reload(new.bridges).await;
                info!(?report, "bridges are up to date");
            }
            Err(error) => problems.push(error.to_string()),
        }
        if problems.is_empty() { Ok(report) } else { Err(problems.join("; ")) }
    }
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
