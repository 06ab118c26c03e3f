//! One connection to the broker: connecting and subscribing step by step, then whole buffers at a time.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use crate::bench::error::BenchError;
use crate::bench::resumption::TlsSession;
use crate::bench::target::Target;
use crate::bench::wire::{self, Connack, Front, SessionKind, kind};
use crate::dial::connect::Dialed;
use crate::dial::stream::BoxStream;
use crate::packet::{ProtocolVersion, QoS};

/// A client that has been accepted by the broker.
pub(super) struct Client {
    stream: BoxStream,
    /// Whether TLS resumed a session; `None` without TLS.
    pub(super) is_resumed: Option<bool>,
    /// The version spoken.
    pub(super) version: ProtocolVersion,
    /// What the broker said when it accepted us.
    pub(super) connack: Connack,
    /// Packets to be sent; the first `sent_bytes` have been.
    pub(super) output: Vec<u8>,
    sent_bytes: usize,
    /// A packet of which only the first `partial_bytes` have arrived.
    partial: Vec<u8>,
    partial_bytes: usize,
}

/// How a client introduces itself.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    /// Selects the local address.
    pub(super) index: usize,
    /// Client Identifier.
    pub(super) client_id: String,
    /// Whether its Session survives the connection.
    pub(super) session: SessionKind,
    /// Size of the socket's receive buffer, when not the default.
    pub(super) receive_buffer_bytes: Option<u32>,
    /// What it kept of TLS from earlier connections.
    pub(super) tls_session: TlsSession,
}

impl Introduction {
    /// A client without a durable Session. Its name is unique enough for generators that run side by side, and fits
    /// into the 23 characters of MQTT 3.1.
    pub(super) fn clean(role: &str, index: usize) -> Self {
        let client_id = format!("{role}-{:x}-{index}", std::process::id());
        let session = SessionKind::Clean;
        let (receive_buffer_bytes, tls_session) = Default::default();
        Self { index, client_id, session, receive_buffer_bytes, tls_session }
    }
}

/// The longest a broker may take to answer while a client is set up.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

const SCRATCH_BYTES: usize = 256 * 1024;

thread_local! {
    /// Read buffer of all connections of one thread: a connection at rest holds none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

impl Client {
    /// Connects and waits until the broker accepts.
    pub(super) async fn connect(
        target: &Target,
        introduction: &Introduction,
    ) -> Result<Self, BenchError> {
        let Introduction { index, client_id, session, receive_buffer_bytes, tls_session } =
            introduction;
        let connecting = async {
            let dialed = target.dial(*index, *receive_buffer_bytes, tls_session).await?;
            let mut client = Self::new(dialed, target.version);
            client.send(&wire::connect(target, client_id, *session), "connecting").await?;
            let (first, body) = client.read_packet("connecting").await?;
            if first != kind::CONNACK {
                return Err(BenchError::Protocol("the answer to CONNECT is not a CONNACK"));
            }
            client.connack = wire::connack(target.version, &body)
                .ok_or(BenchError::Protocol("the CONNACK is malformed"))?;
            match client.connack.code {
                0 => Ok(client),
                code => Err(BenchError::Refused { code }),
            }
        };
        in_time("connecting", connecting).await
    }

    fn new(dialed: Dialed, version: ProtocolVersion) -> Self {
        let Dialed { stream, is_resumed } = dialed;
        let connack = Connack { session_present: false, code: 0, receive_maximum: u16::MAX };
        Self {
            stream,
            is_resumed,
            version,
            connack,
            output: Vec::new(),
            sent_bytes: 0,
            partial: Vec::new(),
            partial_bytes: 0,
        }
    }

    /// Subscribes and waits for the answer. Messages that arrive meanwhile are dropped.
    pub(super) async fn subscribe(
        &mut self,
        filters: &[String],
        qos: QoS,
    ) -> Result<(), BenchError> {
        let packet = wire::subscribe(self.version, 1, filters.iter().map(String::as_str), qos);
        let subscribing = async {
            self.send(&packet, "subscribing").await?;
            loop {
                let (first, body) = self.read_packet("subscribing").await?;
                if first == kind::SUBACK {
                    return refused_code(self.version, &body)
                        .map_or(Ok(()), |code| Err(BenchError::SubscriptionRefused { code }));
                }
            }
        };
        in_time("subscribing", subscribing).await
    }

    /// Sends DISCONNECT and closes.
    pub(super) async fn disconnect(mut self) -> Result<(), BenchError> {
        self.send(&wire::DISCONNECT, "disconnecting").await?;
        // The broker may have closed already, which is what we want.
        let _closed = self.stream.shutdown().await;
        Ok(())
    }

    /// Sends bytes at once.
    pub(super) async fn send(
        &mut self,
        bytes: &[u8],
        during: &'static str,
    ) -> Result<(), BenchError> {
        let lost = |source| BenchError::Lost { during, source };
        self.stream.write_all(bytes).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }

    /// The next packet, copied; only for setting up. Reads byte by byte until the length is known, so that nothing
    /// behind the packet is taken from the loops that follow.
    pub(super) async fn read_packet(
        &mut self,
        during: &'static str,
    ) -> Result<(u8, Vec<u8>), BenchError> {
        let lost = |source| BenchError::Lost { during, source };
        let mut packet = Vec::with_capacity(8);
        loop {
            match wire::front(&packet) {
                Front::Packet { first, body, .. } => return Ok((first, body.to_vec())),
                Front::Malformed => return Err(BenchError::Protocol("a length of five bytes")),
                Front::Incomplete(needed) => {
                    let known = packet.len();
                    packet.resize(needed, 0);
                    let rest = packet.get_mut(known..).unwrap_or_default();
                    self.stream.read_exact(rest).await.map_err(lost)?;
                }
            }
        }
    }

    /// Reads once and hands every whole packet to `handle`, with the output for answers. Returns whether more may be
    /// waiting; an end of the stream is an error.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&mut Vec<u8>, u8, &[u8]),
    ) -> Poll<io::Result<()>> {
        if self.partial.len() > SCRATCH_BYTES / 2 {
            return self.poll_receive_large(cx, handle);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let carried = self.partial_bytes;
            if let (Some(to), Some(from)) =
                (scratch.get_mut(..carried), self.partial.get(..carried))
            {
                to.copy_from_slice(from);
            }
            let mut buffer = ReadBuf::new(scratch.as_mut_slice());
            buffer.advance(carried);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            if filled.len() == carried {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut rest = filled;
            loop {
                match wire::front(rest) {
                    Front::Packet { first, body, length } => {
                        handle(&mut self.output, first, body);
                        rest = rest.get(length..).unwrap_or_default();
                    }
                    Front::Incomplete(needed) => {
                        self.keep_partial(rest, needed);
                        return Poll::Ready(Ok(()));
                    }
                    Front::Malformed => {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                }
            }
        })
    }

    fn keep_partial(&mut self, rest: &[u8], needed: usize) {
        self.partial_bytes = rest.len();
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        if needed > SCRATCH_BYTES / 2 {
            self.partial.resize(needed, 0);
        } else if rest.is_empty() {
            self.partial = Vec::new();
        }
    }

    /// A large packet is read to where it stays, and nothing else with it.
    fn poll_receive_large(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&mut Vec<u8>, u8, &[u8]),
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(self.partial.as_mut_slice());
        buffer.advance(self.partial_bytes);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let filled_bytes = buffer.filled().len();
        if filled_bytes == self.partial_bytes {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.partial_bytes = filled_bytes;
        if filled_bytes == self.partial.len() {
            let packet = std::mem::take(&mut self.partial);
            self.partial_bytes = 0;
            if let Front::Packet { first, body, .. } = wire::front(&packet) {
                handle(&mut self.output, first, body);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes waiting to be sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len() - self.sent_bytes
    }

    /// Sends what is waiting.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = self.output.get(self.sent_bytes..)
            && !waiting.is_empty()
        {
            let sent = Pin::new(&mut self.stream).poll_write(cx, waiting);
            match std::task::ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.sent_bytes += bytes,
            }
        }
        self.output.clear();
        self.sent_bytes = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

/// The first failure among the codes of a SUBACK.
pub(super) fn refused_code(version: ProtocolVersion, body: &[u8]) -> Option<u8> {
    let properties = match (version, body.get(2)) {
        (ProtocolVersion::V5_0, Some(&length)) if length < 0x80 => 1 + usize::from(length),
        _ => 0,
    };
    body.get(2 + properties..)?.iter().copied().find(|code| *code >= 0x80)
}

/// Bounds a step of setting up.
pub(super) async fn in_time<T>(
    during: &'static str,
    step: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let seconds = ANSWER_TIMEOUT.as_secs();
    let timeout = |_elapsed| BenchError::Timeout { during, seconds };
    tokio::time::timeout(ANSWER_TIMEOUT, step).await.map_err(timeout)?
}
