//! Reading for the last time: what the system has received for a Network Connection that is about to be closed.
//!
//! A read that would wait proves nothing: the runtime may not have heard yet of what arrived. So the system is asked how
//! much there is, once, and as much is read. Whoever goes on sending does not make it longer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use crate::broker::connection::LastCallEnd;
use crate::durable::message::Timestamp;
use crate::net::connection::{Driver, Input, READ_BYTES, Scratch};
use crate::net::stream::ClientStream;
use crate::session::effects::Effects;

impl<S: ClientStream> Driver<S> {
    /// Reads and handles one buffer of what had arrived when the last call began.
    pub(super) fn poll_last_input(
        &mut self,
        now: Timestamp,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Input>> {
        // What lies between the socket and us (TLS, WebSocket) may hold a buffer's worth that was read before.
        let stream = &self.stream;
        let left = *self.last_bytes.get_or_insert_with(|| stream.unread_bytes() + READ_BYTES);
        if self.connection.is_last_call_overdue(now) {
            return Poll::Ready(Ok(Input::Last));
        }
        if !self.connection.is_reading() {
            // For a commit, a step of an authentication, or the deadline.
            return Poll::Pending;
        }
        if !self.unhandled.is_empty() && !self.needs_more {
            self.handle_unhandled(now, &mut scratch.effects);
            return Poll::Ready(Ok(Input::Handled));
        }
        if left == 0 {
            return Poll::Ready(Ok(Input::Last));
        }
        let mut buffer = ReadBuf::new(&mut scratch.input);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if self.stream.unread_bytes() > 0 => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(Input::Last)),
        }
        let input = buffer.filled();
        if input.is_empty() {
            return Poll::Ready(Ok(Input::Ended));
        }
        self.last_bytes = Some(left.saturating_sub(input.len()));
        self.unhandled.extend_from_slice(input);
        self.handle_unhandled(now, &mut scratch.effects);
        Poll::Ready(Ok(Input::Handled))
    }

    /// Ends the last call, unless acknowledgements are worth a moment.
    pub(super) fn poll_last_call(&mut self, now: Timestamp, effects: &mut Effects) -> Poll<()> {
        match self.connection.end_last_call(now, effects) {
            LastCallEnd::Over => {
                self.last_bytes = None;
                Poll::Ready(())
            }
            LastCallEnd::Waits => Poll::Pending,
        }
    }

    /// Whether nothing can be written any more and everything that had arrived has been handled.
    pub(super) fn is_lost(&self) -> bool {
        self.failure.is_some() && !self.connection.is_last_call()
    }
}
