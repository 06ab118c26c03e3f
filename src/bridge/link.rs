//! The shell around a [`Relay`]: moves bytes between it and its connections until the link ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::bridge::error::LinkError;
use crate::bridge::handshake::Connected;
use crate::bridge::relay::{Progress, Relay, Unproven};
use crate::bridge::status::Counters;
use crate::dial::stream::BoxStream;

/// Read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS: usize = 16;
/// Most reads of pending data from the local broker when a link is lost.
const SALVAGED_READS: usize = 64;
/// Capacity that an empty output or input buffer keeps.
const KEPT_BYTES: usize = 256 * 1024;

/// One connection with its input.
struct Pipe {
    stream: BoxStream,
    /// Bytes read but not consumed: `start..end`. After them is initialised free space.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the output that were written.
    written: usize,
    must_flush: bool,
    is_closed: bool,
    /// Whether there is input that the relay has not seen since it was read or refused.
    has_news: bool,
}

/// A link: the relay with its connections.
pub(crate) struct Link {
    relay: Relay,
    locals: Vec<Option<Pipe>>,
    remotes: Vec<Pipe>,
    counters: Arc<Counters>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    name: Arc<str>,
    looping: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

/// How long [`Link::run`] moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Until the opening is complete, or the link ends before.
    Opened,
    /// Until the link ends.
    End,
}

impl Link {
    /// Creates a link from its parts, including bytes received after the CONNACKs.
    #[must_use]
    pub(crate) fn new(
        name: Arc<str>,
        relay: Relay,
        locals: Vec<Option<Connected<BoxStream>>>,
        remotes: Vec<Connected<BoxStream>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            relay,
            locals: locals.into_iter().map(|connected| connected.map(Pipe::new)).collect(),
            remotes: remotes.into_iter().map(Pipe::new).collect(),
            counters,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            name,
            looping: 0,
        }
    }

    /// The relay, for use between two calls of [`Link::run`].
    pub(crate) fn relay(&mut self) -> &mut Relay {
        &mut self.relay
    }

    /// Moves bytes until the link ends, or until the opening is complete if it was not before. Cancellation safe.
    ///
    /// # Errors
    /// Why the link ended.
    pub(crate) async fn run(&mut self) -> Result<(), LinkError> {
        let until = match self.relay.is_running() {
            true => Until::End,
            false => Until::Opened,
        };
        poll_fn(|context| self.poll_run(context, until)).await
    }

    /// Closes the link in an orderly way: messages in flight get `patience` to be acknowledged, then both sides are
    /// disconnected. Returns messages that may not have arrived.
    pub(crate) async fn close(
        mut self,
        patience: Duration,
        farewell: Option<(&str, &[u8])>,
    ) -> Unproven {
        self.relay.drain(Instant::now());
        let drained = poll_fn(|context| self.poll_drain(context));
        let _patience_is_over = tokio::time::timeout(patience, drained).await;
        if let Some((topic, payload)) = farewell {
            self.relay.publish_remote(topic, payload, Instant::now());
        }
        self.relay.disconnect();
        let flushed = poll_fn(|context| self.poll_flush(context));
        let _patience_is_over = tokio::time::timeout(patience, flushed).await;
        self.note_tally();
        self.relay.take_unproven()
    }

    /// After a failure, saves messages that the local broker has handed out. Returns messages that may not have arrived.
    pub(crate) fn salvage(mut self) -> Unproven {
        let mut context = Context::from_waker(Waker::noop());
        let now = Instant::now();
        if let Some(Some(pipe)) = self.locals.first_mut() {
            for _ in 0..SALVAGED_READS {
                let bytes = pipe.input.get(pipe.start..pipe.end).unwrap_or_default();
                pipe.start += self.relay.salvage(bytes, now);
                if !matches!(pipe.poll_read(&mut context), Ok(true)) || pipe.is_closed {
                    break;
                }
            }
        }
        self.note_tally();
        self.relay.take_unproven()
    }

    fn poll_run(&mut self, context: &mut Context<'_>, until: Until) -> Poll<Result<(), LinkError>> {
        for _ in 0..ROUNDS {
            let moved = self.round(context);
            self.note_tally();
            match moved {
                Err(error) => {
                    // Writes what can still be written: acknowledgements for messages that the other side has
                    // accepted.
                    let _written = self.write_all(context);
                    return Poll::Ready(Err(error));
                }
                Ok(_) if until == Until::Opened && self.relay.is_running() => {
                    return Poll::Ready(Ok(()));
                }
                Ok(true) => {}
                Ok(false) => return self.poll_timer(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Registers for the next timeout; timeouts that are due were handled in the previous round.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let now = Instant::now();
        let Some(at) = self.relay.next_timeout() else { return Poll::Pending };
        if self.timer_at != Some(at) {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(at.into());
        }
        if self.timer.as_mut().poll_timer_ready(context) || at <= now {
            self.timer_at = None;
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads once from every connection whose input is wanted, runs the relay, writes once to every connection. True
    /// if anything moved.
    fn round(&mut self, context: &mut Context<'_>) -> Result<bool, LinkError> {
        let now = Instant::now();
        let mut moved = false;
        if self.relay.next_timeout().is_some_and(|at| at <= now) {
            self.relay.handle_timeout(now)?;
            moved = true;
        }
        // The local side first, so that outgoing messages on 3.x links are remembered before their echo can be read.
        for lane in 0..self.locals.len() {
            moved |= self.read(Side::Local, lane, now, context)?;
        }
        for lane in 0..self.remotes.len() {
            moved |= self.read(Side::Remote, lane, now, context)?;
        }
        moved |= self.write_all(context)?;
        Ok(moved)
    }

    fn read(
        &mut self,
        side: Side,
        lane: usize,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<bool, LinkError> {
        let pipe = match side {
            Side::Local => self.locals.get_mut(lane).and_then(Option::as_mut),
            Side::Remote => self.remotes.get_mut(lane),
        };
        let Some(pipe) = pipe else { return Ok(false) };
        let is_welcome = match side {
            Side::Local => self.relay.wants_local(lane),
            Side::Remote => self.relay.wants_remote(lane),
        };
        if !is_welcome {
            return Ok(false);
        }
        let received = pipe.poll_read(context).map_err(|error| broken(side, error))?;
        if received && side == Side::Remote {
            self.relay.note_progress(lane, Progress::Received, now);
        }
        let mut moved = received;
        if pipe.has_news {
            let bytes = pipe.input.get(pipe.start..pipe.end).unwrap_or_default();
            let taken = match side {
                Side::Local => self.relay.handle_local(lane, bytes, now)?,
                Side::Remote => self.relay.handle_remote(lane, bytes, now)?,
            };
            moved |= taken > 0;
            pipe.start += taken;
            // Input left because the relay was full is tried again when it has room; incomplete input, when more has
            // arrived.
            pipe.has_news = match side {
                Side::Local => !self.relay.wants_local(lane),
                Side::Remote => !self.relay.wants_remote(lane),
            };
        }
        if pipe.is_closed && !pipe.has_news {
            return Err(match side {
                Side::Local => LinkError::LocalClosed,
                Side::Remote => LinkError::RemoteClosed(""),
            });
        }
        Ok(moved)
    }

    fn write_all(&mut self, context: &mut Context<'_>) -> Result<bool, LinkError> {
        let mut moved = false;
        for (lane, pipe) in self.remotes.iter_mut().enumerate() {
            if let Some(output) = self.relay.remote_output(lane) {
                let wrote = pipe.poll_write(output, context);
                moved |= wrote.map_err(|error| broken(Side::Remote, error))?;
            }
        }
        for (lane, pipe) in self.locals.iter_mut().enumerate() {
            if let (Some(pipe), Some(output)) = (pipe, self.relay.local_output(lane)) {
                let wrote = pipe.poll_write(output, context);
                moved |= wrote.map_err(|error| broken(Side::Local, error))?;
            }
        }
        Ok(moved)
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.round(context) {
                Err(_) => return Poll::Ready(()),
                Ok(_) if self.relay.is_drained() => return Poll::Ready(()),
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
            }
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.write_all(context) {
                Err(_) => return Poll::Ready(()),
                Ok(true) => {}
                Ok(false) => break,
            }
        }
        for lane in 0..self.remotes.len() {
            if self.relay.remote_output(lane).is_some_and(|output| !output.is_empty()) {
                return Poll::Pending;
            }
        }
        // A shutdown sends the closing messages of TLS and WebSocket.
        for pipe in &mut self.remotes {
            if Pin::new(&mut pipe.stream).poll_shutdown(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn note_tally(&mut self) {
        self.counters.add(&self.relay.take_tally());
        let (looping, found) = self.relay.take_loops();
        if looping != self.looping || !found.is_empty() {
            self.looping = looping;
            self.counters.set_loops(looping, None);
            for topic in found {
                tracing::warn!(
                    bridge = %self.name, topic,
                    "a message is circling in a ring of brokers and is slowed down, see docs/bridges.md#loops"
                );
                self.counters.set_loops(looping, Some(topic));
            }
        }
        for warning in self.relay.take_warnings() {
            tracing::warn!(bridge = %self.name, "{warning}");
            self.counters.set_error(warning, std::time::SystemTime::now());
        }
    }
}

fn broken(side: Side, error: std::io::Error) -> LinkError {
    match side {
        Side::Local => LinkError::Local(error.to_string()),
        Side::Remote => LinkError::RemoteIo(error),
    }
}

/// Polls a `Sleep` like everything else in a round.
trait PollTimer {
    fn poll_timer_ready(self, context: &mut Context<'_>) -> bool;
}

impl PollTimer for Pin<&mut Sleep> {
    fn poll_timer_ready(self, context: &mut Context<'_>) -> bool {
        self.poll(context).is_ready()
    }
}

impl Pipe {
    fn new(connected: Connected<BoxStream>) -> Self {
        let end = connected.input.len();
        Self {
            stream: connected.stream,
            input: connected.input,
            start: 0,
            end,
            written: 0,
            must_flush: false,
            is_closed: false,
            has_news: end > 0,
        }
    }

    /// True if something was read (or the end was reached).
    fn poll_read(&mut self, context: &mut Context<'_>) -> std::io::Result<bool> {
        if self.is_closed {
            return Ok(false);
        }
        self.make_room();
        let mut buffer = ReadBuf::new(self.input.get_mut(self.end..).unwrap_or_default());
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.end += count;
                self.is_closed = count == 0;
                self.has_news |= count > 0;
                Ok(true)
            }
        }
    }

    /// Keeps at least half a read free; for a packet larger than the buffer, the buffer grows with the bytes
    /// received.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.input.len() > KEPT_BYTES {
                self.input = Vec::new();
            }
        }
        if self.input.len() - self.end >= READ_BYTES / 2 {
            return;
        }
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.input.len() - self.end < READ_BYTES / 2 {
            self.input.resize((self.end * 2).max(READ_BYTES), 0);
        }
    }

    /// True if something was written.
    fn poll_write(
        &mut self,
        output: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> std::io::Result<bool> {
        let mut moved = false;
        while self.written < output.len() {
            let rest = output.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    moved = true;
                }
            }
        }
        if self.written > 0 && self.written == output.len() {
            output.clear();
            output.shrink_to(KEPT_BYTES);
            self.written = 0;
        } else if self.written >= READ_BYTES {
            output.drain(..self.written);
            self.written = 0;
        }
        self.must_flush |= moved;
        // TLS and WebSocket buffer bytes until they are flushed.
        if self.must_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context)
        {
            flushed?;
            self.must_flush = false;
        }
        Ok(moved)
    }
}
