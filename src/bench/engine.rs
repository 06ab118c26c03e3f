//! The threads that clients run on, and what all scenarios share: target, clock, progress, the broker's process.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::bench::OutputOptions;
use crate::bench::error::BenchError;
use crate::bench::meter::{Clock, Histograms};
use crate::bench::process::{Process, ProcessFigures};
use crate::bench::target::Target;

/// A running generator.
pub(super) struct Engine {
    workers: Vec<Worker>,
    /// The broker.
    pub(super) target: Arc<Target>,
    /// What stamps are measured by.
    pub(super) clock: Clock,
    process: Option<Process>,
    shows_progress: bool,
}

/// One thread with its runtime; it ends when this is dropped.
struct Worker {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

/// A runtime that runs on the thread that blocks on it.
pub(super) fn single_threaded_runtime() -> Result<Runtime, BenchError> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build()
        .map_err(BenchError::Runtime)
}

impl Engine {
    /// Starts the threads.
    pub(super) fn start(
        threads: usize,
        output: &OutputOptions,
        target: Target,
    ) -> Result<Self, BenchError> {
        if threads == 0 || threads > 1_024 {
            return Err(BenchError::Options("--threads must be between 1 and 1024".to_owned()));
        }
        let workers = (0..threads).map(|_| Worker::start()).collect::<Result<_, _>>()?;
        let process = output.pid.map(Process::open).transpose()?;
        let shows_progress = !output.quiet && !output.json;
        let target = Arc::new(target);
        Ok(Self { workers, target, clock: Clock::start(), process, shows_progress })
    }

    /// Number of threads.
    pub(super) fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Histograms, one for each thread.
    pub(super) fn histograms(&self) -> Result<Histograms, BenchError> {
        Histograms::new(self.threads())
    }

    /// Runs a client's future on the thread for clients with this index. Whatever uses a socket must have opened it
    /// there.
    pub(super) fn spawn<F>(&self, index: usize, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        // There is at least one thread.
        self.workers[index % self.workers.len()].handle.spawn(future)
    }

    /// Sets `count` clients up, at most `concurrency` at a time, and returns them in order. The first failure ends it.
    pub(super) async fn set_up<T, F>(
        &self,
        what: &'static str,
        count: usize,
        concurrency: usize,
        make: impl Fn(usize) -> F,
    ) -> Result<Vec<T>, BenchError>
    where
        F: Future<Output = Result<T, BenchError>> + Send + 'static,
        T: Send + 'static,
    {
        let progress = self.progress(what, count as u64);
        let permits = Arc::new(Semaphore::new(concurrency.max(1)));
        let mut handles = Vec::with_capacity(count);
        for index in 0..count {
            let permits = Arc::clone(&permits);
            let client = make(index);
            let progress = progress.clone();
            handles.push(self.spawn(index, async move {
                let _permit = permits.acquire_owned().await;
                let made = client.await;
                progress.inc(1);
                made
            }));
        }
        let mut made = Vec::with_capacity(count);
        for handle in handles {
            made.push(handle.await??);
        }
        progress.finish_and_clear();
        Ok(made)
    }

    /// The broker's figures now, if its process is known.
    pub(super) fn process_figures(&self) -> Result<Option<ProcessFigures>, BenchError> {
        self.process.map(Process::figures).transpose()
    }

    /// The generator's own figures, where the system has them.
    pub(super) fn generator_figures() -> Option<ProcessFigures> {
        Process::open(std::process::id()).and_then(Process::figures).ok()
    }

    /// A bar towards `length`, shown on a terminal only.
    pub(super) fn progress(&self, what: &'static str, length: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length), self.draw_target());
        if let Ok(style) = ProgressStyle::with_template(
            "{msg:<24} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        ) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar
    }

    /// Waits for a time, with a bar.
    pub(super) async fn wait(&self, what: &'static str, time: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        let bar = ProgressBar::with_draw_target(
            Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            self.draw_target(),
        );
        if let Ok(style) = ProgressStyle::with_template("{msg:<24} {wide_bar} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep_until(end.min(tokio::time::Instant::now() + STEP)).await;
            bar.inc(u64::try_from(STEP.as_millis()).unwrap_or(0));
        }
        bar.finish_and_clear();
    }

    fn draw_target(&self) -> ProgressDrawTarget {
        if self.shows_progress {
            ProgressDrawTarget::stderr_with_hz(4)
        } else {
            ProgressDrawTarget::hidden()
        }
    }
}

impl Worker {
    fn start() -> Result<Self, BenchError> {
        let runtime = single_threaded_runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("bench-worker".to_owned())
            .spawn(move || {
                let _dropped = runtime.block_on(stopped);
            })
            .map_err(BenchError::Runtime)?;
        Ok(Self { handle, _stop: stop })
    }
}
