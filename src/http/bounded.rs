//! A listener whose connections are bounded in number, in time and in what they may send.
//!
//! A connection is *silent* until it has sent a whole request, and again when that is answered. Silent ones end after a few
//! seconds, and when all places are taken, a newcomer gets that of a silent one: of the address that has most, the one that
//! is silent for longest. So whoever only opens connections cannot keep out those who ask. One that does not read its answer
//! counts as silent when it should have it.

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

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// A request has to be complete this long after the connection was opened, or after the last answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is closed after this time, whatever it does. Those who ask more rarely connect again.
const LIFETIME: Duration = Duration::from_secs(30);

/// Bytes that a connection may send in this time: some hundred requests.
const MAX_RECEIVED_BYTES: usize = 64 * 1024;

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// What ends the head of a request.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

/// Accepts for `axum`.
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
    by_number: HashMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    address: IpAddr,
    /// A request is being answered.
    is_answering: bool,
    /// Since it is so.
    since: Instant,
    /// To be told when the place is given to somebody else.
    task: Option<Waker>,
}

impl BoundedListener {
    /// Around a bound listener.
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
    /// Takes a place, that of a silent connection if need be; waits where all are being answered.
    async fn enter(&self, address: IpAddr) -> u64 {
        loop {
            if let Some(number) = self.taken.lock().enter(address, Instant::now()) {
                return number;
            }
            // Those who do not read their answers become silent without a word.
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
        let place = Place { address, is_answering: false, since: now, task: None };
        self.by_number.insert(number, place);
        Some(number)
    }

    fn longest_silent(&self, now: Instant) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in self.by_number.values() {
            *counts.entry(place.address).or_default() += 1;
        }
        let is_silent = |place: &Place| {
            !place.is_answering || now.duration_since(place.since) > REQUEST_TIMEOUT
        };
        let silent = self.by_number.iter().filter(|(_, place)| is_silent(place));
        let rank = |(_, place): &(&u64, &Place)| {
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
    /// How much of the end of a head was seen last.
    matched: usize,
    is_answering: bool,
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
            is_answering: false,
            has_written: false,
            places,
            number,
        }
    }

    /// Whether the connection is over: it is old, its place is gone, or its request was not complete in time.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self.places.taken.lock().by_number.get_mut(&self.number) {
            Some(place) => place.task = Some(cx.waker().clone()),
            None => return true,
        }
        let is_late = !self.is_answering && self.request_due.as_mut().poll(cx).is_ready();
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
                self.set_answering(true);
            }
        }
    }

    fn set_answering(&mut self, is_answering: bool) {
        if self.is_answering == is_answering {
            return;
        }
        self.is_answering = is_answering;
        if !is_answering {
            self.request_due.as_mut().reset(Instant::now() + REQUEST_TIMEOUT);
        }
        if let Some(place) = self.places.taken.lock().by_number.get_mut(&self.number) {
            (place.is_answering, place.since) = (is_answering, Instant::now());
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
    /// Beyond the bounds the connection has ended, as far as the server can see.
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
        // Flushed when all that there was to say was written: the answer is complete.
        if std::mem::take(&mut self.has_written) {
            self.set_answering(false);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
