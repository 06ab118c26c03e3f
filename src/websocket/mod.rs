//! MQTT over WebSocket: the server side of the HTTP handshake. The client side is in [`crate::dial::websocket`], the frames of
//! both in [`stream`].
//!
//! The handshake is parsed and answered with `tungstenite`. Its frame layer is not used: it keeps a read buffer for
//! each connection and collects whole messages, while MQTT needs a stream of bytes and ignores frame boundaries.
//! [MQTT-6.0.0-2]

pub(crate) mod door;
pub(crate) mod frame;
pub(crate) mod stream;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, Request};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::websocket::door::{Door, Refusal, text};
use crate::websocket::frame::Role;
pub(crate) use crate::websocket::stream::WebSocketStream;

/// The longest request or response head accepted.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The supported sub-protocols, best first. [MQTT-6.0.0-4] MQTT 3.1 had a name of its own.
pub(crate) const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended or was lost.
    #[error("the connection ended within the handshake: {0}")]
    Io(#[from] io::Error),
    /// Not HTTP, or not well-formed.
    #[error("malformed handshake: {0}")]
    Malformed(tungstenite::Error),
    /// The head is too long.
    #[error("a handshake of more than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// We refused the Client with this status.
    #[error("refused: {0} ({1})")]
    Refused(StatusCode, &'static str),
    /// The rules of the listener refuse the request.
    #[error("{refusal}")]
    NotLetIn {
        /// Why.
        refusal: Refusal,
        /// The request.
        asked: Box<Asked>,
    },
    /// The server refused us with this status.
    #[error("the server answered {0} instead of switching to WebSocket")]
    Status(StatusCode),
    /// The answer violates the protocol.
    #[error("the server's answer is invalid: {0}")]
    Answer(&'static str),
}

/// The fields of a refused request, as sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The path.
    pub(crate) path: String,
    /// The value of Host.
    pub(crate) host: String,
    /// The page, if a browser sent it.
    pub(crate) origin: String,
}

/// The server side of the handshake. A refused Client gets an HTTP status.
pub(crate) async fn accept<S>(
    mut stream: S,
    door: Door<'_>,
) -> Result<WebSocketStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = match read_head::<Request, S>(&mut stream).await {
        // A Client must not send frames before our answer.
        Ok((request, tail)) if tail.is_empty() => answer(&request, door),
        Ok(_) => Err(HandshakeError::Refused(StatusCode::BAD_REQUEST, "data before the answer")),
        Err(error) => Err(error),
    };
    match accepted {
        Ok(head) => {
            stream.write_all(&head).await?;
            stream.flush().await?;
            Ok(WebSocketStream::new(stream, Role::Server, Vec::new()))
        }
        Err(error) => {
            let (status, reason) = match &error {
                HandshakeError::Refused(status, reason) => (*status, (*reason).to_owned()),
                HandshakeError::NotLetIn { refusal, .. } => (refusal.status(), refusal.to_string()),
                HandshakeError::Malformed(_) => {
                    (StatusCode::BAD_REQUEST, "malformed request".to_owned())
                }
                HandshakeError::TooLong => {
                    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request too long".to_owned())
                }
                _ => return Err(error),
            };
            stream.write_all(refusal(status, &reason).as_bytes()).await?;
            stream.shutdown().await?;
            Err(error)
        }
    }
}

/// Reads until the head is complete; also returns the bytes read beyond it.
pub(crate) async fn read_head<H, S>(stream: &mut S) -> Result<(H, Vec<u8>), HandshakeError>
where
    H: TryParse,
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    loop {
        let room = MAX_HEAD_BYTES.saturating_sub(head.len());
        if room == 0 {
            return Err(HandshakeError::TooLong);
        }
        if (&mut *stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some((length, parsed)) = H::try_parse(&head).map_err(HandshakeError::Malformed)? {
            return Ok((parsed, head.split_off(length.min(head.len()))));
        }
    }
}

/// The head of the answer to an acceptable request.
fn answer(request: &Request, door: Door<'_>) -> Result<Vec<u8>, HandshakeError> {
    let refuse = |status, reason| Err(HandshakeError::Refused(status, reason));
    let headers = request.headers();
    let let_in = door.check(request.uri(), headers);
    if let Err(refusal @ Refusal::Path) = let_in {
        return Err(not_let_in(refusal, request));
    }
    let Ok(mut response) = server::create_response(request) else {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is an MQTT over WebSocket endpoint");
    };
    let_in.map_err(|refusal| not_let_in(refusal, request))?;
    // [MQTT-6.0.0-3] [MQTT311-6.0.0-3]
    let Some(protocol) = choose_protocol(headers) else {
        return refuse(StatusCode::BAD_REQUEST, "the sub-protocol mqtt is required");
    };
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let mut head = Vec::with_capacity(256);
    server::write_response(&mut head, &response).map_err(HandshakeError::Malformed)?;
    Ok(head)
}

fn not_let_in(refusal: Refusal, request: &Request) -> HandshakeError {
    let header = |name| text(request.headers(), &name).to_owned();
    let (host, origin) = (header(header::HOST), header(header::ORIGIN));
    let asked = Asked { path: request.uri().path().to_owned(), host, origin };
    HandshakeError::NotLetIn { refusal, asked: Box::new(asked) }
}

fn choose_protocol(headers: &HeaderMap) -> Option<&'static str> {
    PROTOCOLS.into_iter().find(|known| {
        let mut offers = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','));
        offers.any(|offer| offer.trim() == *known)
    })
}

fn refusal(status: StatusCode, reason: &str) -> String {
    let upgrade = if status == StatusCode::UPGRADE_REQUIRED {
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    } else {
        ""
    };
    let length = reason.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         {upgrade}Content-Length: {length}\r\n\r\n{reason}\n"
    )
}

#[cfg(test)]
mod tests;
