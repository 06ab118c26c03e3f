//! A listener that limits the number of connections, their lifetime and the bytes they may send.
//!
//! A connection is *silent* until it has sent a complete request, and again after the answer. Silent connections are closed
//! after a few seconds. If all places are taken, a new connection replaces the one that has been silent longest among those
//! of the address with the most silent connections. So connections without requests cannot keep others out. A connection
//! that does not read its answer counts as silent once the answer should have been read.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::serve::Listener;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Simultaneous connections.
const MAX_CONNECTIONS: usize = 64;

/// A request must be complete this long after the connection was opened, or after the last answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is closed after this time, whatever it does. Slower clients reconnect.
const LIFETIME: Duration = Duration::from_secs(30);

/// Bytes that a connection may send in its lifetime: several hundred requests.
const MAX_RECEIVED_BYTES: usize = 64 * 1024;

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The end of the head of a request.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

/// The listener used by `axum`.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    places: Arc<Places>,
}

/// The places of all connections.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_number: HashMap<u64, OpenConnection>,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// It waits for a request, or receives one.
    Receiving,
    /// Its request is being answered.
    Answering,
}

#[derive(Debug)]
struct OpenConnection {
    address: IpAddr,
    activity: Activity,
    /// Since when.
    since: Instant,
    /// Woken when the place is given to another connection.
    task: Option<Waker>,
}

impl BoundedListener {
    /// Wraps a bound listener.
    #[must_use]
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::default() }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let number = self.places.enter(address.ip()).await;
                    let places = Arc::clone(&self.places);
                    return (BoundedStream::new(stream, places, number), address);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an http connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Places {
    /// Takes a place, that of a silent connection if necessary; waits if all connections are being answered.
    async fn enter(&self, address: IpAddr) -> u64 {
        loop {
            if let Some(number) = self.taken.lock().enter(address, Instant::now()) {
                return number;
            }
            // Connections that do not read their answers become silent without an event.
            let _looks_again = timeout(PAUSE, self.freed.notified()).await;
        }
    }
}

impl Taken {
    fn enter(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        if self.by_number.len() >= MAX_CONNECTIONS {
            let evicted = self.by_number.remove(&self.longest_silent(now)?)?;
            if let Some(task) = evicted.task {
                task.wake();
            }
        }
        let number = self.next;
        self.next += 1;
        let place =
            OpenConnection { address, activity: Activity::Receiving, since: now, task: None };
        self.by_number.insert(number, place);
        Some(number)
    }

    fn longest_silent(&self, now: Instant) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in self.by_number.values() {
            *counts.entry(place.address).or_default() += 1;
        }
        let is_silent = |place: &OpenConnection| {
            place.activity == Activity::Receiving
                || now.duration_since(place.since) > REQUEST_TIMEOUT
        };
        let silent = self.by_number.iter().filter(|(_, place)| is_silent(place));
        let rank = |(_, place): &(&u64, &OpenConnection)| {
            (counts.get(&place.address).copied(), Reverse(place.since))
        };
        silent.max_by_key(rank).map(|(number, _)| *number)
    }
}

/// One connection with its bounds.
pub(crate) struct BoundedStream {
    stream: TcpStream,
    lifetime: Pin<Box<Sleep>>,
    request_due: Pin<Box<Sleep>>,
    left: usize,
    /// How much of [`HEAD_END`] was matched so far.
    matched: usize,
    activity: Activity,
    has_written: bool,
    places: Arc<Places>,
    number: u64,
}

impl BoundedStream {
    fn new(stream: TcpStream, places: Arc<Places>, number: u64) -> Self {
        Self {
            stream,
            lifetime: Box::pin(sleep(LIFETIME)),
            request_due: Box::pin(sleep(REQUEST_TIMEOUT)),
            left: MAX_RECEIVED_BYTES,
            matched: 0,
            activity: Activity::Receiving,
            has_written: false,
            places,
            number,
        }
    }

    /// Whether the connection must end: it is too old, its place is taken, or its request was not complete in time.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self.places.taken.lock().by_number.get_mut(&self.number) {
            Some(place) => place.task = Some(cx.waker().clone()),
            None => return true,
        }
        let is_late =
            self.activity == Activity::Receiving && self.request_due.as_mut().poll(cx).is_ready();
        is_late || self.lifetime.as_mut().poll(cx).is_ready()
    }

    fn look_for_head(&mut self, received: &[u8]) {
        for byte in received {
            self.matched = match self.matched {
                matched if HEAD_END.get(matched) == Some(byte) => matched + 1,
                _ => usize::from(*byte == b'\r'),
            };
            if self.matched == HEAD_END.len() {
                self.matched = 0;
                self.turn_to(Activity::Answering);
            }
        }
    }

    fn turn_to(&mut self, activity: Activity) {
        if self.activity == activity {
            return;
        }
        self.activity = activity;
        if activity == Activity::Receiving {
            self.request_due.as_mut().reset(Instant::now() + REQUEST_TIMEOUT);
        }
        if let Some(place) = self.places.taken.lock().by_number.get_mut(&self.number) {
            (place.activity, place.since) = (activity, Instant::now());
        }
        self.places.freed.notify_one();
    }
}

impl Drop for BoundedStream {
    fn drop(&mut self) {
        self.places.taken.lock().by_number.remove(&self.number);
        self.places.freed.notify_one();
    }
}

impl AsyncRead for BoundedStream {
    /// To the server, a connection beyond its limits looks closed.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 || self.is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining().min(self.left);
        let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bounded))?;
        let count = bounded.filled().len();
        let start = buffer.filled().len();
        buffer.advance(count);
        self.left -= count;
        let received = buffer.filled().get(start..).unwrap_or_default();
        self.look_for_head(received);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // `axum` flushes when everything is written: the answer is complete.
        if std::mem::take(&mut self.has_written) {
            self.turn_to(Activity::Receiving);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
