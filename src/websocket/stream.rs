//! A WebSocket as a stream of bytes.
//!
//! Reading decodes inside the caller's buffer; writing adds a header to the caller's bytes and passes both on in one
//! vectored write. Neither direction has its own buffer. If a write begins a frame of N bytes, the next N bytes of the
//! stream belong to that frame, whatever the caller does.
//!
//! Different tasks may drive the two directions, because reading never replaces the waker of a waiting writer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::websocket::frame::{
    CloseCause, Decoded, Decoder, Demand, MAX_HEADER_BYTES, Mask, Opcode, Role, Violation, control,
    header,
};

/// MQTT bytes on top, WebSocket frames below.
///
/// After an error of kind [`io::ErrorKind::InvalidData`] (for example a text frame) a Close frame is pending; to let
/// it arrive, shut down and read until the end.
#[derive(Debug)]
pub struct WebSocketStream<S> {
    socket: S,
    role: Role,
    /// Raw bytes received with the handshake, or after a demand.
    early: Vec<u8>,
    decoder: Decoder,
    input: Input,
    output: Output,
    close_cause: CloseCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// A Close frame or the end of the connection was received.
    Closed,
    /// The other side violated the protocol; the reader does not know yet.
    Broken(Violation),
    /// The reader knows; all further input is discarded.
    Discarding,
}

#[derive(Debug, Default)]
struct Output {
    /// The unwritten part of the header of the frame in progress.
    header: SmallVec<[u8; MAX_HEADER_BYTES]>,
    /// Payload bytes of the frame in progress that the caller still has to provide.
    left: u64,
    mask: Mask,
    /// Control frames to send at the next frame boundary, and how much of them is written.
    control: Vec<u8>,
    control_written: usize,
    /// A control frame was written but may not be flushed.
    unflushed: bool,
    /// Our Close frame is written or in `control`.
    closing: bool,
    /// A writer waits for the socket: a reader must not replace its waker.
    writer_waits: bool,
}

/// Most bytes of control frames kept for a peer that does not read; of several Pings only the last needs an answer.
const MAX_PENDING_CONTROL_BYTES: usize = 512;

/// Slices of one vectored write.
const MAX_SLICES: usize = 32;

/// A Client masks, and so copies, at most this much at a time.
const MASKED_PORTION_BYTES: usize = 8 * 1024;

impl<S> WebSocketStream<S> {
    /// Creates the stream after the handshake; `early` is data read beyond it.
    #[must_use]
    pub(crate) fn new(socket: S, role: Role, early: Vec<u8>) -> Self {
        let (input, output, close_cause) = (Input::Open, Output::default(), CloseCause::Normal);
        Self { socket, role, early, decoder: Decoder::new(role), input, output, close_cause }
    }

    /// What the Close frame of a shutdown will say.
    pub fn set_close_cause(&mut self, close_cause: CloseCause) {
        self.close_cause = close_cause;
    }

    /// The stream below.
    pub(crate) const fn get_ref(&self) -> &S {
        &self.socket
    }

    #[cfg(test)]
    pub(super) fn pending_control_bytes(&self) -> usize {
        self.output.control.len()
    }

    fn mask_key(&self) -> Option<[u8; 4]> {
        // Unpredictable, so that nobody can control the bytes that proxies see. (RFC 6455, 10.3)
        (self.role == Role::Client).then(rand::random)
    }

    fn queue_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let full = self.output.control.len() > MAX_PENDING_CONTROL_BYTES;
        if self.output.closing || (full && opcode == Opcode::Pong) {
            return;
        }
        self.output.closing = opcode == Opcode::Close;
        let frame = control(opcode, payload, self.mask_key());
        self.output.control.extend_from_slice(&frame);
    }

    fn queue_close(&mut self, code: Option<u16>) {
        let code = code.map(u16::to_be_bytes);
        self.queue_control(Opcode::Close, code.as_ref().map_or(&[], |code| &code[..]));
    }

    fn handle_demand(&mut self, demand: Demand) {
        match demand {
            Demand::Pong(payload) => self.queue_control(Opcode::Pong, &payload),
            Demand::Close(code) => {
                self.input = Input::Closed;
                self.queue_close(code);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Reads raw bytes into `target`; 0 is the end.
    fn poll_raw(&mut self, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let count = target.len().min(self.early.len());
            for (to, from) in target.iter_mut().zip(self.early.drain(..count)) {
                *to = from;
            }
            if self.early.is_empty() {
                self.early = Vec::new();
            }
            return Poll::Ready(Ok(count));
        }
        let mut raw = ReadBuf::new(target);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut raw))?;
        Poll::Ready(Ok(raw.filled().len()))
    }

    /// Decodes in place; returns how many payload bytes there are.
    fn decode(&mut self, raw: &mut [u8]) -> usize {
        let mut decoded = Decoded::default();
        while self.input == Input::Open && decoded.consumed_bytes < raw.len() {
            match self.decoder.decode(raw, &mut decoded) {
                Ok(()) => {
                    if let Some(demand) = decoded.demand.take() {
                        self.handle_demand(demand);
                    }
                }
                Err(violation) => {
                    self.queue_close(Some(violation.close_code()));
                    self.input = Input::Broken(violation);
                }
            }
        }
        decoded.payload_bytes
    }

    /// Writes pending control frames, if no frame is in progress.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let output = &mut self.output;
        if output.left > 0 || !output.header.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = output.control.get(output.control_written..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.control_written += count;
            output.unflushed = true;
        }
        output.control = Vec::new();
        output.control_written = 0;
        if output.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            output.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Answers while reading. Errors are left to the writer: there may still be something to read.
    fn try_control(&mut self, cx: &mut Context<'_>) {
        let waiting = !self.output.control.is_empty() || self.output.unflushed;
        if waiting && !self.output.writer_waits {
            let _written_or_left_for_the_writer = self.poll_control(cx);
        }
    }

    /// Writes from `slices`; returns how many of their bytes were taken.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices: SmallVec<[&[u8]; 4]> =
            slices.iter().map(|slice| &**slice).filter(|slice| !slice.is_empty()).collect();
        let slices = slices.get(..MAX_SLICES).unwrap_or(&slices);
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.output.left == 0 && self.output.header.is_empty() {
            ready!(self.poll_control(cx))?;
            if self.output.closing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let key = self.mask_key();
            self.output.header = header(Opcode::Binary, total as u64, key);
            self.output.left = total as u64;
            self.output.mask = Mask::new(key.unwrap_or_default());
        }
        loop {
            let count = match self.role {
                Role::Server => ready!(self.poll_plain(cx, slices))?,
                Role::Client => ready!(self.poll_masked(cx, slices))?,
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let output = &mut self.output;
            let header_bytes = count.min(output.header.len());
            output.header.drain(..header_bytes);
            let payload_bytes = count - header_bytes;
            if payload_bytes > 0 {
                output.left = output.left.saturating_sub(payload_bytes as u64);
                output.mask.advance(payload_bytes);
                return Poll::Ready(Ok(payload_bytes));
            }
        }
    }

    /// Header and payload without a copy.
    fn poll_plain(&mut self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut left = usize::try_from(self.output.left).unwrap_or(usize::MAX);
        let mut vector: SmallVec<[IoSlice<'_>; 5]> = SmallVec::new();
        if !self.output.header.is_empty() {
            vector.push(IoSlice::new(&self.output.header));
        }
        for slice in slices {
            let slice = slice.get(..left).unwrap_or(slice);
            left -= slice.len();
            if !slice.is_empty() {
                vector.push(IoSlice::new(slice));
            }
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, &vector)
    }

    /// Header and payload, masked in a portion on the stack.
    fn poll_masked(&mut self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut portion = [0; MASKED_PORTION_BYTES];
        let header_bytes = self.output.header.len();
        let left = usize::try_from(self.output.left).unwrap_or(usize::MAX);
        let room = MASKED_PORTION_BYTES.min(header_bytes.saturating_add(left));
        let mut length = 0;
        for source in std::iter::once(&self.output.header[..]).chain(slices.iter().copied()) {
            let target = portion.get_mut(length..room).unwrap_or_default();
            length += target.len().min(source.len());
            for (to, from) in target.iter_mut().zip(source) {
                *to = *from;
            }
        }
        let mut mask = self.output.mask;
        if let Some(payload) = portion.get_mut(header_bytes..length) {
            mask.apply(payload);
        }
        let portion = portion.get(..length).unwrap_or_default();
        Pin::new(&mut self.socket).poll_write(cx, portion)
    }

    /// Remembers whether a writer waits.
    fn note<T>(&mut self, poll: Poll<T>) -> Poll<T> {
        self.output.writer_waits = poll.is_pending();
        poll
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.try_control(cx);
            match self.input {
                Input::Closed => return Poll::Ready(Ok(())),
                Input::Broken(violation) => {
                    self.input = Input::Discarding;
                    let error = io::Error::new(io::ErrorKind::InvalidData, violation);
                    return Poll::Ready(Err(error));
                }
                Input::Open | Input::Discarding if buffer.remaining() == 0 => {
                    return Poll::Ready(Ok(()));
                }
                Input::Open | Input::Discarding => {}
            }
            let target = buffer.initialize_unfilled();
            let count = ready!(self.poll_raw(cx, target))?;
            if count == 0 {
                self.input = Input::Closed;
                return Poll::Ready(Ok(()));
            }
            let payload_bytes = target.get_mut(..count).map_or(0, |raw| self.decode(raw));
            if payload_bytes > 0 {
                buffer.advance(payload_bytes);
                self.try_control(cx);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_frame(cx, &[IoSlice::new(bytes)]);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_frame(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match self.poll_control(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.socket).poll_flush(cx),
            other => other,
        };
        self.note(flushed)
    }

    /// Sends Close, unless a frame is incomplete, and then shuts the socket down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let code = self.close_cause.close_code();
        self.queue_close(Some(code));
        let done = match self.poll_control(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.socket).poll_shutdown(cx),
            other => other,
        };
        self.note(done)
    }
}
