//! The last read of a Network Connection that is about to be closed: everything that the system has received for it.
//!
//! A read that would block proves little: the runtime may not know yet that data has arrived, and part of what a Client
//! wrote may still be in its own system because ours had no room. So the system is asked how much there is; and after a
//! large read, or in the middle of a packet, the broker waits for a moment of silence. The last read is limited in time and
//! bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;

use crate::broker::connection::LastCallEnd;
use crate::durable::message::Timestamp;
use crate::net::connection::{Driver, Input, READ_BYTES, Scratch};
use crate::net::stream::ClientStream;
use crate::session::effects::Effects;

/// Most bytes read in one last call: what the buffers of both systems usually hold for one connection.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// After this many bytes, more may follow that the Client's system could not send before.
const MUCH: usize = READ_BYTES / 2;

/// Silence after which the input is considered complete.
const SILENCE: Duration = Duration::from_millis(50);

/// The reading state of a last call.
#[derive(Debug, Default)]
pub(super) struct LastInput {
    /// Bytes read in it.
    read: usize,
    /// Until when to wait for more.
    silent_until: Option<Timestamp>,
}

impl LastInput {
    /// When to check again, if more is expected.
    pub(super) fn silent_until(&self) -> Option<Timestamp> {
        self.silent_until
    }
}

impl<S: ClientStream> Driver<S> {
    /// Reads and handles one buffer of input that the Client sent before the last call.
    pub(super) fn poll_last_input(
        &mut self,
        now: Timestamp,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Input>> {
        let read = self.passing.fill().last_input.get_or_insert_default().read;
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
        if read >= MAX_BYTES {
            return Poll::Ready(Ok(Input::Last));
        }
        let mut buffer = ReadBuf::new(&mut scratch.input);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if self.stream.unread_bytes() > 0 => return Poll::Pending,
            Poll::Pending if self.expects_more(now, cx) => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(Input::Last)),
        }
        let input = buffer.filled();
        if input.is_empty() {
            return Poll::Ready(Ok(Input::Ended));
        }
        let read = read + input.len();
        self.passing.fill().last_input = Some(LastInput { read, silent_until: None });
        self.unhandled.extend_from_slice(input);
        self.handle_unhandled(now, &mut scratch.effects);
        Poll::Ready(Ok(Input::Handled))
    }

    /// Whether there may be more although the system has nothing now. Checked again after the silence.
    fn expects_more(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let is_inside_packet = !self.unhandled.is_empty();
        let Some(input) = &mut self.passing.fill().last_input else { return false };
        if input.read < MUCH && !is_inside_packet {
            return false;
        }
        if input.silent_until.is_none() {
            // The timer is armed at the beginning of a poll.
            cx.waker().wake_by_ref();
        }
        now < *input.silent_until.get_or_insert_with(|| now.plus(SILENCE))
    }

    /// Ends the last call, unless it should wait briefly for acknowledgements.
    pub(super) fn poll_last_call(&mut self, now: Timestamp, effects: &mut Effects) -> Poll<()> {
        match self.connection.end_last_call(now, effects) {
            LastCallEnd::Over => {
                self.passing.fill().last_input = None;
                Poll::Ready(())
            }
            LastCallEnd::Waits => Poll::Pending,
        }
    }

    /// Whether nothing can be written any more and everything that had arrived has been handled.
    pub(super) fn is_lost(&self) -> bool {
        self.has_failed() && !self.connection.is_last_call()
    }
}
