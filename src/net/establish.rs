//! Turns an accepted socket into a stream of MQTT bytes: PROXY header, TLS, WebSocket, as the listener is configured.
//!
//! One deadline covers all steps, so a Client cannot add up separate limits. A connection that fails here has not
//! used MQTT yet: it is counted, logged at debug level and closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use crate::access::Peer;
use crate::config::settings::Transport;
use crate::metrics::counter::{Counter, Counters};
use crate::net::accept::Handler;
use crate::net::client_text::shown;
use crate::net::entrance::Place;
use crate::net::line_budget::LineBudget;
use crate::net::proxy_protocol::{self, HeaderError};
use crate::net::stream::ClientStream;
use crate::net::tls::TlsAcceptor;
use crate::websocket::door::Door;
use crate::websocket::{self, HandshakeError, WebSocketStream};

/// The layers between the socket and MQTT on one listener.
pub(crate) struct Establishment {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) transport: Transport,
    pub(crate) proxy_protocol: bool,
    pub(crate) timeout: Duration,
    pub(crate) counters: Counters,
    /// For log lines about refused requests that an operator may have meant to accept.
    pub(crate) lines: LineBudget,
}

/// Any stream, for the kinds of connection that are too rare to be compiled for each kind of socket.
type AnyStream = Box<dyn ClientStream>;

/// A stream of MQTT bytes. Large variants are boxed, because the task of a connection moves it once.
enum Established<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
    WebSocket(WebSocketStream<AnyStream>),
}

#[derive(Debug, thiserror::Error)]
enum EstablishError {
    #[error("PROXY protocol: {0}")]
    ProxyHeader(#[from] HeaderError),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("WebSocket handshake: {0}")]
    WebSocket(#[from] HandshakeError),
    #[error("not established in time")]
    Timeout,
}

impl EstablishError {
    const fn counter(&self) -> Counter {
        match self {
            Self::ProxyHeader(_) => Counter::TurnedAwayProxyHeader,
            Self::Tls(_) => Counter::TurnedAwayTls,
            Self::WebSocket(_) => Counter::TurnedAwayWebSocket,
            Self::Timeout => Counter::TurnedAwayTimeout,
        }
    }
}

impl Establishment {
    /// Whether the socket itself is the stream, without layers.
    pub(crate) fn is_direct(&self) -> bool {
        self.tls.is_none() && self.transport == Transport::Mqtt && !self.proxy_protocol
    }

    async fn establish<S>(
        &self,
        mut socket: S,
        peer: &mut Peer,
    ) -> Result<Established<S>, EstablishError>
    where
        S: ClientStream,
    {
        if self.proxy_protocol
            && let Some(address) = proxy_protocol::read_header(&mut socket).await?
        {
            peer.address = Some(address);
        }
        let Some(tls) = &self.tls else {
            return match &self.transport {
                Transport::Mqtt => Ok(Established::Plain(socket)),
                Transport::WebSocket { paths, origins } => {
                    let boxed: AnyStream = Box::new(socket);
                    let door = Door { paths, origins };
                    Ok(Established::WebSocket(websocket::accept(boxed, door).await?))
                }
            };
        };
        let stream = tls.accept(socket).await.map_err(EstablishError::Tls)?;
        peer.certificate_name = tls.client_name(&stream);
        match &self.transport {
            Transport::Mqtt => Ok(Established::Tls(Box::new(stream))),
            Transport::WebSocket { paths, origins } => {
                let boxed: AnyStream = Box::new(stream);
                let door = Door { paths, origins };
                Ok(Established::WebSocket(websocket::accept(boxed, door).await?))
            }
        }
    }
}

/// Establishes and serves one Network Connection. The handshakes are boxed, so that their memory is freed when they
/// are done.
pub(crate) async fn serve_established<H, S>(
    establishment: Arc<Establishment>,
    handler: H,
    socket: S,
    mut peer: Peer,
    mut place: Place,
) where
    H: Handler,
    S: ClientStream,
{
    let established = {
        let work = Box::pin(establishment.establish(socket, &mut peer));
        timeout(establishment.timeout, work).await.unwrap_or(Err(EstablishError::Timeout))
    };
    if establishment.proxy_protocol
        && let Some(address) = peer.address
    {
        place.set_address(address);
    }
    let place = Some(place);
    match established {
        Ok(Established::Plain(stream)) => Box::pin(handler.handle(stream, peer, place)).await,
        Ok(Established::Tls(stream)) => Box::pin(handler.handle(stream, peer, place)).await,
        Ok(Established::WebSocket(stream)) => Box::pin(handler.handle(stream, peer, place)).await,
        Err(error) => {
            establishment.counters.add(error.counter(), 1);
            let listener = &peer.listener.name;
            let address = peer.address;
            match error {
                EstablishError::WebSocket(HandshakeError::NotLetIn { refusal, asked }) => {
                    if establishment.lines.permit() {
                        info!(
                            listener,
                            ?address,
                            path = &*shown(&asked.path),
                            host = &*shown(&asked.host),
                            origin = &*shown(&asked.origin),
                            reason = %refusal,
                            "WebSocket request refused"
                        );
                    }
                }
                error => debug!(listener, ?address, %error, "connection not established"),
            }
        }
    }
}
