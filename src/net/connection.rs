//! The loop of one Network Connection: moves bytes between a stream and the core, runs the jobs that the core cannot
//! wait for, and watches its deadlines.
//!
//! The future is written by hand rather than as `async` code, because an idle connection should take little memory
//! and a busy one should do much per wake-up: one poll reads, handles a whole buffer and writes the result. Buffers
//! for reading and for effects belong to the thread, not to the connection.

mod job;
mod last_input;
mod passing;
mod report;

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::access::Peer;
use crate::broker::Broker;
use crate::broker::connection::{ClientConnection, CloseReason, LastCallReason};
use crate::durable::message::Timestamp;
use crate::metrics::counter::{Counter, Counters};
use crate::net::accept::Handler;
use crate::net::client_log::ClientLog;
use crate::net::connection::job::{JobResult, start};
use crate::net::connection::passing::Passing;
use crate::net::connection::report::{close_cause, note_handled};
use crate::net::deadlines::{DeadlineSlot, Deadlines};
use crate::net::entrance::Place;
use crate::net::hash_pool::HashPool;
use crate::net::lingering::close_gracefully;
use crate::net::packet_log;
use crate::net::shutdown::Shutdown;
use crate::net::stream::ClientStream;
use crate::net::tally::{self, ConnectionStage};
use crate::packet::reason_code::ReasonCode;
use crate::session::effects::Effects;
use crate::session::outbox::Outbox;
use crate::session::rare::Rare;
use crate::session::work::Budget;
use crate::store::clock::BrokerClock;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads handled in one poll before other tasks get their turn.
const READS_PER_POLL: usize = 8;
/// Slices of one vectored write.
const SLICES: usize = 32;
/// How long, and for how many bytes, the broker waits until a Client notices that it was disconnected.
const LINGER_TIME: Duration = Duration::from_secs(3);
const LINGER_BYTES: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ_BYTES].into_boxed_slice(),
        effects: Effects::new(),
    });
}

/// Per-thread buffers that every poll needs.
struct Scratch {
    input: Box<[u8]>,
    effects: Effects,
}

/// Serves MQTT connections for one broker.
#[derive(Clone)]
pub struct MqttHandler {
    service: Arc<Service>,
}

/// What all connections to one broker use.
struct Service {
    broker: Arc<Broker>,
    clock: BrokerClock,
    counters: Counters,
    shutdown: Shutdown,
    deadlines: Deadlines,
    passwords: HashPool,
    log: ClientLog,
}

impl MqttHandler {
    /// Creates a handler for connections of `broker`.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        clock: BrokerClock,
        counters: Counters,
        shutdown: Shutdown,
    ) -> Self {
        let (deadlines, passwords) = (Deadlines::default(), HashPool::default());
        let log = ClientLog::new(counters.clone());
        let service = Service { broker, clock, counters, shutdown, deadlines, passwords, log };
        Self { service: Arc::new(service) }
    }

    /// Watches the deadlines of the connections: without this, no silent connection is closed.
    pub(crate) async fn keep_time(self) {
        self.service.deadlines.run(self.service.clock).await;
    }
}

impl Handler for MqttHandler {
    // Not an `async fn`: its future would keep room for the arguments beside the driver.
    fn handle<S: ClientStream>(
        self,
        stream: S,
        peer: Peer,
        place: Option<Place>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut driver = Driver::new(stream, self.service, peer, place);
        async move {
            let ending = (&mut driver).await;
            driver.end(&ending);
            // A connection that only waits for its Client to close needs no place.
            let farewell = driver.place.take().map(Place::into_farewell);
            if matches!(ending, Ending::Closing) && !matches!(farewell, Some(None)) {
                let stream = &mut driver.stream;
                // A Client that was sent nothing has nothing to receive.
                let time = if driver.has_spoken { LINGER_TIME } else { Duration::ZERO };
                // Boxed, because otherwise every connection would reserve memory for this future.
                Box::pin(close_gracefully(stream, time, LINGER_BYTES)).await;
            }
        }
    }
}

/// How the loop ended.
enum Ending {
    /// We close, and the Client should receive the last packet.
    Closing,
    /// The Client closed its side.
    Closed,
    /// The stream failed.
    Failed(io::Error),
}

/// The result of reading.
enum Input {
    /// Something was handled.
    Handled,
    /// The Client has closed its side.
    Ended,
    /// Everything that had arrived when the last call began has been handled, or its time is over.
    Last,
}

/// The state of the loop.
struct Driver<S> {
    stream: S,
    connection: ClientConnection,
    service: Arc<Service>,
    /// Bytes received but not handled yet; holds no memory when empty.
    unhandled: Vec<u8>,
    needs_more: bool,
    writing: Outbox,
    written: usize,
    needs_flush: bool,
    /// Whether anything was ever written.
    has_spoken: bool,
    /// What it has only at its beginning, at its end, or while something holds it up.
    passing: Rare<Passing>,
    /// The place at the listener; none within the process.
    place: Option<Place>,
    /// The entry in the table of deadlines, for Keep Alive and the connect timeout.
    deadline: Option<DeadlineSlot>,
    due: Timestamp,
}

impl<S> Drop for Driver<S> {
    /// A connection that is dropped in the middle (the broker stops, or a bug) still releases its Session.
    fn drop(&mut self) {
        let now = self.service.clock.now();
        let mut effects = Effects::new();
        effects.budget = Budget::turn();
        self.connection.handle_closed(now, &mut effects);
        tally::count(&self.service.counters, &mut effects.tally);
        if let Some(deadline) = self.deadline.take() {
            self.service.deadlines.remove(deadline);
        }
        if let Some(job) = self.passing.as_ref().and_then(|passing| passing.job.as_ref()) {
            // The result of a password check is no longer needed.
            job.abort();
        }
    }
}

impl<S: ClientStream> Driver<S> {
    fn new(stream: S, service: Arc<Service>, peer: Peer, place: Option<Place>) -> Self {
        let now = service.clock.now();
        let mut shutdown = service.shutdown.clone();
        let mut connection = ClientConnection::new(Arc::clone(&service.broker), peer, now);
        if place.as_ref().is_some_and(|place| place.full().is_some()) {
            connection.set_guest();
        }
        let mut passing = Rare::<Passing>::default();
        passing.fill().draining = Some(Box::pin(async move { shutdown.draining().await }));
        Self {
            stream,
            connection,
            service,
            unhandled: Vec::new(),
            needs_more: true,
            writing: Outbox::default(),
            written: 0,
            needs_flush: false,
            has_spoken: false,
            passing,
            place,
            deadline: None,
            due: Timestamp(0),
        }
    }

    /// Some rounds, each of: what changed elsewhere, timers, jobs, write, read. What a read produces is written in the
    /// next round, so that a whole buffer becomes one write.
    fn poll_once(&mut self, scratch: &mut Scratch, cx: &mut Context<'_>) -> Poll<Ending> {
        let now = self.service.clock.now();
        scratch.effects.budget = Budget::turn();
        let passing = self.passing.as_mut();
        if passing.is_some_and(|passing| passing.poll_draining(cx).is_ready())
            && self.connection.session().is_none()
        {
            self.connection.close(CloseReason::ShuttingDown);
        }
        for _ in 0..READS_PER_POLL {
            self.connection.handle_wake(now, &mut scratch.effects);
            self.poll_timer(now, cx);
            if self.poll_jobs(now, &mut scratch.effects, cx) {
                continue;
            }
            let is_written = self.poll_written(now, cx);
            if self.connection.closing().is_some() {
                self.begin_farewell(now, &mut scratch.effects, cx);
                return match is_written {
                    true => Poll::Ready(self.ending(Ending::Closing)),
                    false => self.poll_farewell(now),
                };
            }
            // The time of a last call is limited, even if there is more work.
            if scratch.effects.budget.is_spent() && !self.connection.is_last_call_overdue(now) {
                return give_way(cx);
            }
            if self.connection.watch_others(now, cx.waker()) {
                continue;
            }
            let input = match self.connection.is_last_call() {
                true => self.poll_last_input(now, scratch, cx),
                false => self.poll_input(now, scratch, cx),
            };
            match ready!(input) {
                Ok(Input::Handled) => {}
                Ok(Input::Ended) => return Poll::Ready(self.ending(Ending::Closed)),
                Ok(Input::Last) => ready!(self.poll_last_call(now, &mut scratch.effects)),
                Err(error) => return Poll::Ready(Ending::Failed(error)),
            }
            if self.is_lost() {
                return Poll::Ready(self.ending(Ending::Closed));
            }
        }
        give_way(cx)
    }

    /// Writes all pending output; true when done. Input that the Client sent before the connection was lost counts,
    /// so a write error does not end the connection before that input has been handled.
    fn poll_written(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        if self.has_failed() {
            return false;
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => {
                self.note_progress();
                true
            }
            Poll::Ready(Err(error)) => {
                self.passing.fill().failure = Some(error);
                self.connection.begin_last_call(LastCallReason::Lost, now);
                self.poll_wait(now, cx);
                false
            }
            Poll::Pending => {
                if self.stalled_since().is_none() {
                    self.passing.fill().stalled_since = Some(now);
                    if self.deadline.is_none()
                        || self.write_deadline().is_some_and(|at| at < self.due)
                    {
                        self.arm(now, cx);
                    }
                }
                false
            }
        }
    }

    /// Closes the connection: releases the Session, and reads nothing more.
    fn begin_farewell(&mut self, now: Timestamp, effects: &mut Effects, cx: &mut Context<'_>) {
        if self.closing_since().is_none() {
            self.passing.fill().closing_since = Some(now);
            self.stream.set_close_cause(close_cause(self.connection.closing()));
            self.connection.handle_closed(now, effects);
            self.arm(now, cx);
        }
    }

    /// Ends the connection if the rest could not be written, or not within the time limit.
    fn poll_farewell(&mut self, now: Timestamp) -> Poll<Ending> {
        if self.has_failed() {
            return Poll::Ready(self.ending(Ending::Closed));
        }
        match self.closing_since().is_some_and(|since| since.plus(LINGER_TIME) <= now) {
            true => Poll::Ready(Ending::Closing),
            false => Poll::Pending,
        }
    }

    /// How the connection ended, unless writing has failed before.
    fn ending(&mut self, ending: Ending) -> Ending {
        let passing = self.passing.as_mut();
        let failure = passing.and_then(|passing| passing.failure.take());
        failure.map_or(ending, Ending::Failed)
    }

    /// Reads and handles one buffer.
    fn poll_input(
        &mut self,
        now: Timestamp,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Input>> {
        if !self.connection.is_reading() {
            return Poll::Pending;
        }
        if !self.unhandled.is_empty() && !self.needs_more {
            self.handle_unhandled(now, &mut scratch.effects);
            return Poll::Ready(Ok(Input::Handled));
        }
        let mut buffer = ReadBuf::new(&mut scratch.input);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let input = buffer.filled();
        if input.is_empty() {
            return Poll::Ready(Ok(Input::Ended));
        }
        if self.unhandled.is_empty() {
            let consumed = self.connection.handle_bytes(input, now, &mut scratch.effects);
            note_handled(&mut self.connection, &self.service.log, input, consumed);
            let rest = input.get(consumed..).unwrap_or_default();
            if !rest.is_empty() {
                self.unhandled.extend_from_slice(rest);
                self.needs_more = self.connection.is_reading();
            }
            return Poll::Ready(Ok(Input::Handled));
        }
        self.unhandled.extend_from_slice(input);
        self.handle_unhandled(now, &mut scratch.effects);
        Poll::Ready(Ok(Input::Handled))
    }

    fn handle_unhandled(&mut self, now: Timestamp, effects: &mut Effects) {
        let consumed = self.connection.handle_bytes(&self.unhandled, now, effects);
        note_handled(&mut self.connection, &self.service.log, &self.unhandled, consumed);
        self.unhandled.drain(..consumed);
        // Stopped although it may read, because the first packet is not complete.
        self.needs_more = self.connection.is_reading();
        if self.unhandled.is_empty() {
            self.unhandled = Vec::new();
        }
    }

    /// Writes all pending output. `Pending` if the stream accepts no more; then it wakes the task.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.writing.bytes() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = self.writing.slices(self.written, &mut slices);
                let slices = slices.get(..filled).unwrap_or_default();
                let stream = Pin::new(&mut self.stream);
                let count = match slices {
                    [single] => ready!(stream.poll_write(cx, single))?,
                    many => ready!(stream.poll_write_vectored(cx, many))?,
                };
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += count;
                self.note_progress();
                self.needs_flush = true;
                self.has_spoken = true;
                self.service.counters.add(Counter::BytesSent, count as u64);
            }
            self.written = 0;
            self.writing.discard();
            let has_output = self.connection.take_output(&mut self.writing, cx.waker());
            if !self.writing.is_empty() {
                if packet_log::is_on() {
                    packet_log::write_sent(&self.connection, &self.writing);
                }
                continue;
            }
            if self.needs_flush {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                self.needs_flush = false;
            }
            if has_output {
                // A signal without bytes: the loop must check again.
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Acts on a deadline that has passed, and arms the next one. A deadline that moves is checked only at its old
    /// time, so packets do not update it.
    #[inline]
    fn poll_timer(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let passing = self.passing.as_mut().filter(|passing| passing.draining.is_some());
        if let Some(passing) = passing
            && self.connection.is_connected()
        {
            passing.draining = None;
            if let Some(place) = &mut self.place {
                place.settle();
            }
            self.announce();
        }
        let has_timer = self.passing.as_ref().is_some_and(|passing| passing.timer.is_some());
        if has_timer || self.waits_until().is_some() {
            self.poll_wait(now, cx);
        }
        let Some(next) = self.next_deadline() else { return };
        if next <= now {
            self.connection.handle_timeout(now);
            if self.write_deadline().is_some_and(|at| at <= now) {
                self.connection.close(CloseReason::WriteTimeout);
            }
        }
        let must_arm = self.deadline.is_none() || next < self.due || self.due <= now;
        if must_arm {
            self.arm(now, cx);
        }
    }

    fn arm(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let Some(next) = self.next_deadline() else { return };
        self.due = next.max(now.plus(Duration::from_millis(1)));
        let deadlines = &self.service.deadlines;
        match self.deadline {
            Some(place) => deadlines.set(place, self.due),
            None => self.deadline = Some(deadlines.add(self.due, cx.waker())),
        }
    }

    /// When to check the clock again.
    #[inline]
    fn next_deadline(&self) -> Option<Timestamp> {
        if let Some(since) = self.closing_since() {
            return Some(since.plus(LINGER_TIME));
        }
        let timeout = self.connection.next_timeout();
        match self.stalled_since() {
            None => timeout,
            Some(_) => timeout.into_iter().chain(self.write_deadline()).min(),
        }
    }

    /// When a Client that reads nothing is disconnected.
    fn write_deadline(&self) -> Option<Timestamp> {
        Some(self.stalled_since()?.plus(self.connection.write_patience()))
    }

    /// When a short wait is over: for recipients that lag behind, or for the end of the last input.
    #[inline]
    fn waits_until(&self) -> Option<Timestamp> {
        let last_input = self.passing.as_ref().and_then(|passing| passing.last_input.as_ref());
        let silent = last_input.and_then(|input| input.silent_until());
        silent.or_else(|| self.connection.waits_until())
    }

    /// Handles short waits, which are too short for the table of deadlines.
    fn poll_wait(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let waits_until = self.waits_until();
        let timer = &mut self.passing.fill().timer;
        let Some(until) = waits_until else {
            *timer = None;
            return;
        };
        let at = Instant::now() + until.since(now).max(Duration::from_millis(1));
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.is_elapsed() || timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Starts jobs that may block, one at a time.
    fn start_job(&mut self) {
        if self.passing.as_ref().is_some_and(|passing| passing.job.is_some()) {
            return;
        }
        let Some(request) = self.connection.poll_request() else { return };
        let service = Arc::clone(&self.service);
        self.passing.fill().job = Some(start(service, request));
    }

    /// Starts the next job if none is running, and handles the result of a finished one; returns true if there is
    /// more to do. A started job must be polled so that its end wakes the task.
    fn poll_jobs(&mut self, now: Timestamp, effects: &mut Effects, cx: &mut Context<'_>) -> bool {
        self.start_job();
        let Some(job) = self.passing.as_mut().map(|passing| &mut passing.job) else { return false };
        let Some(running) = job else { return false };
        let Poll::Ready(result) = Pin::new(running).poll(cx) else { return false };
        *job = None;
        match result {
            Ok(JobResult::Authenticated(result)) => {
                self.connection.handle_authenticated(result, now, effects);
            }
            Ok(JobResult::Exchanged(exchanged)) => {
                self.connection.handle_exchange(exchanged, now, effects);
            }
            Ok(JobResult::Page(request, page)) => {
                self.connection.handle_page(request, page, now, effects);
            }
            Err(_panicked) => {
                let refused = Err(ReasonCode::ServerUnavailable);
                self.connection.handle_authenticated(refused, now, effects);
            }
        }
        effects.wake();
        true
    }

    /// Releases the Session, logs and counts the end.
    fn end(&mut self, ending: &Ending) {
        let now = self.service.clock.now();
        let mut effects = Effects::new();
        effects.budget = Budget::turn();
        let stage = match self.connection.session() {
            Some(_) => ConnectionStage::Connected,
            None => ConnectionStage::Connecting,
        };
        let closing = self.connection.closing().cloned();
        let cause = match &closing {
            Some(reason) => tally::counter_of_close(reason, stage),
            None => tally::counter_of_loss(stage),
        };
        match (ending, &closing) {
            (_, Some(reason)) => self.log_end(reason),
            (Ending::Failed(error), None) => {
                self.log_end(&format_args!("connection lost: {error}"));
            }
            (Ending::Closing | Ending::Closed, None) => {
                self.log_end(&"connection closed without DISCONNECT");
            }
        }
        self.service.counters.add(cause, 1);
        self.connection.handle_closed(now, &mut effects);
        tally::count(&self.service.counters, &mut effects.tally);
        self.unhandled = Vec::new();
        self.passing = Rare::default();
    }
}

impl<S: ClientStream> Future for Driver<S> {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        SCRATCH.with_borrow_mut(|scratch| {
            let result = self.poll_once(scratch, cx);
            if self.passing.as_ref().is_some_and(Passing::is_over) {
                self.passing = Rare::default();
            }
            tally::count(&self.service.counters, &mut scratch.effects.tally);
            result
        })
    }
}

/// Yields with more to do. The next turn comes after all ready tasks and after a check of the sockets: a task that only
/// wakes itself would be polled dozens of times before the sockets are checked.
fn give_way<T>(cx: &mut Context<'_>) -> Poll<T> {
    let next_turn = pin!(tokio::task::yield_now());
    if next_turn.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}
