//! Logging to standard error, for people or for machines.
//!
//! Lines go through a bounded queue to a thread of its own, so that a terminal or log collector that stops reading
//! cannot block the broker. Lines that do not fit are counted, and the count is logged when there is room again.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use petrel::config::choice::{Level, LogFormat};
use petrel::config::table::Log;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may be queued.
const MAX_LINES: usize = 8192;

/// How long the program waits at exit for the last lines.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Starts logging. Keep the guard until the end: dropping it writes the lines still queued.
pub(crate) fn start(settings: &Log) -> anyhow::Result<LogGuard> {
    let (lines, guard) = start_thread(io::stderr(), settings.format)?;
    let subscriber = tracing_subscriber::registry().with(targets(settings));
    match settings.format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(lines);
            subscriber.with(layer).try_init()?;
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            subscriber.with(layer.with_writer(lines)).try_init()?;
            // A reader of JSON lines cannot parse the default panic message.
            std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "bug")));
        }
    }
    Ok(guard)
}

/// The log level of each module: the configured level for ours, `warn` and above for libraries unless they are named.
/// `rustls` is limited to errors because it warns about input from unauthenticated Clients; our own modules log what
/// happens to such connections.
fn targets(settings: &Log) -> Targets {
    let level = level_filter(settings.level);
    let libraries = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(libraries).with_target("petrel", level);
    let targets = targets.with_target("rustls", level.min(LevelFilter::ERROR));
    let modules = settings.modules.iter().map(|(name, level)| (name.clone(), level_filter(*level)));
    targets.with_targets(modules)
}

fn level_filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Writes the queued lines when dropped.
pub(crate) struct LogGuard {
    lines: SyncSender<Line>,
    thread: Option<JoinHandle<()>>,
}

enum Line {
    Text(Vec<u8>),
    End,
}

/// Passes lines to the thread.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// Collects one line.
struct LineWriter<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

fn start_thread(
    out: impl Write + Send + 'static,
    format: LogFormat,
) -> io::Result<(Lines, LogGuard)> {
    let (sender, receiver) = sync_channel(MAX_LINES);
    let lost = Arc::new(AtomicU64::new(0));
    let lines = Lines { sender: sender.clone(), lost: Arc::clone(&lost) };
    let thread = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&receiver, &lost, out, format))?;
    Ok((lines, LogGuard { lines: sender, thread: Some(thread) }))
}

fn write_lines(
    receiver: &Receiver<Line>,
    lost: &AtomicU64,
    mut out: impl Write,
    format: LogFormat,
) {
    while let Ok(Line::Text(text)) = receiver.recv() {
        // If the log itself cannot be written, there is nowhere to report it.
        let _gone = out.write_all(&text);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let problem = "log lines were lost here: the log is read too slowly";
            let _gone = match format {
                LogFormat::Human => writeln!(out, "... {lost} {problem}"),
                LogFormat::Json => {
                    let line =
                        serde_json::json!({ "level": "WARN", "lost": lost, "message": problem });
                    writeln!(out, "{line}")
                }
            };
        }
    }
    let _gone = out.flush();
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { lines: self, text: Vec::with_capacity(256) }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        let text = Line::Text(std::mem::take(&mut self.text));
        if let Err(TrySendError::Full(_)) = self.lines.sender.try_send(text) {
            self.lines.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_WAIT;
        // A reader that has stopped must not keep the program from exiting.
        while let Err(TrySendError::Full(_)) = self.lines.try_send(Line::End) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Writes into memory once it is opened.
    #[derive(Clone, Default)]
    struct Valve(Arc<(Mutex<Tank>, Condvar)>);

    /// Whether it is open, and what came through.
    type Tank = (bool, Vec<u8>);

    impl Valve {
        fn open(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Valve {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let closed = |tank: &mut Tank| !tank.0;
            let guard = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(guard, closed).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_blocks_nobody_and_its_gaps_are_counted() {
        let valve = Valve::default();
        let (lines, guard) = start_thread(valve.clone(), LogFormat::Human).unwrap();
        let count = MAX_LINES + 100;
        for number in 0..count {
            writeln!(lines.make_writer(), "line {number}").unwrap();
        }
        valve.open();
        drop(guard);
        let text = valve.text();
        assert!(text.starts_with("line 0\n"));
        assert!(text.contains("log lines were lost here"), "{}", text.len());
        let written = text.lines().filter(|line| line.starts_with("line ")).count();
        let lost: usize = text
            .lines()
            .filter_map(|line| line.strip_prefix("... ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(written + lost, count);
    }

    #[test]
    fn libraries_are_heard_from_warn_on_unless_named() {
        let modules = BTreeMap::from([("rustls".to_owned(), Level::Trace)]);
        let settings = Log { level: Level::Debug, modules, format: LogFormat::Human };
        let targets = targets(&settings);
        assert!(targets.would_enable("petrel::net", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("petrel::net", &tracing::Level::TRACE));
        assert!(!targets.would_enable("tokio", &tracing::Level::INFO));
        assert!(targets.would_enable("tokio", &tracing::Level::WARN));
        assert!(targets.would_enable("rustls::client", &tracing::Level::TRACE));
    }

    /// Every Client that sent an IP address as its server name caused a two-line warning, before any login.
    #[test]
    fn what_clients_say_to_rustls_is_no_warning() {
        let settings =
            Log { level: Level::Trace, modules: BTreeMap::new(), format: LogFormat::Human };
        let targets = targets(&settings);
        assert!(!targets.would_enable("rustls::msgs::handshake", &tracing::Level::WARN));
        assert!(targets.would_enable("rustls::msgs::handshake", &tracing::Level::ERROR));
    }
}
