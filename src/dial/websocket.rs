//! The client side of the WebSocket handshake. [MQTT-6.0.0-1]

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::client::{self, Response, generate_request};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderValue, StatusCode, header};

use crate::websocket::frame::Role;
use crate::websocket::{HandshakeError, PROTOCOLS, WebSocketStream, read_head};

/// Upgrades a connected stream. `host` is the value of the `Host` header.
///
/// # Errors
/// The connection was lost, or the server did not switch to WebSocket.
pub async fn upgrade<S>(
    mut stream: S,
    host: &str,
    path: &str,
) -> Result<WebSocketStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let malformed = |error: tungstenite::http::Error| HandshakeError::Malformed(error.into());
    let request = Request::builder()
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, client::generate_key())
        // [MQTT-6.0.0-3]
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOLS[0])
        .body(())
        .map_err(malformed)?;
    let (head, key) = generate_request(request).map_err(HandshakeError::Malformed)?;
    stream.write_all(&head).await?;
    stream.flush().await?;
    let (response, early) = read_head::<Response, S>(&mut stream).await?;
    check(&response, &derive_accept_key(key.as_bytes()))?;
    Ok(WebSocketStream::new(stream, Role::Client, early))
}

fn check(response: &Response, accept_key: &str) -> Result<(), HandshakeError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(HandshakeError::Status(response.status()));
    }
    let headers = response.headers();
    let is = |name, expected: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
    };
    if !is(header::UPGRADE, "websocket") || !is(header::CONNECTION, "Upgrade") {
        return Err(HandshakeError::Answer("no upgrade to WebSocket"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    if key.is_none_or(|key| key.as_bytes() != accept_key.as_bytes()) {
        return Err(HandshakeError::Answer("the key does not fit"));
    }
    // Some servers omit the sub-protocol; one that chooses another does not offer MQTT here. [MQTT-6.0.0-4]
    match headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if chosen.as_bytes() != PROTOCOLS[0].as_bytes() => {
            Err(HandshakeError::Answer("the sub-protocol is not mqtt"))
        }
        _ => Ok(()),
    }
}
