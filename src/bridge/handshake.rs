//! CONNECT and CONNACK on both sides of a bridge.

use std::borrow::Cow;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bridge::error::LinkError;
use crate::bridge::relay::Accepted;
use crate::bridge::wire;
use crate::config::bridge::{BridgeSettings, Secret};
use crate::dial::stream::ByteStream;
use crate::packet::connect::{Connect, ConnectProperties, Will};
use crate::packet::{Packet, ProtocolVersion, QoS};

/// Longest CONNACK accepted.
const CONNACK_BYTES_MAX: u32 = 64 * 1024;
/// Longest credential file accepted.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A connection that was accepted.
pub(crate) struct Connected<S> {
    /// The stream.
    pub(crate) stream: S,
    /// Bytes after the CONNACK.
    pub(crate) input: Vec<u8>,
    /// What the CONNACK granted.
    pub(crate) accepted: Accepted,
}

/// The current user name and password.
#[derive(Clone, Default)]
pub(crate) struct BridgeCredentials {
    user_name: Option<String>,
    password: Option<Vec<u8>>,
}

impl BridgeCredentials {
    /// Rereads the files, because credentials may be rotated.
    ///
    /// # Errors
    /// [`LinkError::Credentials`] names the file.
    pub(crate) async fn read(settings: &BridgeSettings) -> Result<Self, LinkError> {
        let user_name = read_secret(settings.username.as_ref()).await?;
        let user_name = user_name.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Self { user_name, password: read_secret(settings.password.as_ref()).await? })
    }
}

async fn read_secret(secret: Option<&Secret>) -> Result<Option<Vec<u8>>, LinkError> {
    match secret {
        None => Ok(None),
        Some(Secret::Text(text)) => Ok(Some(text.clone().into_bytes())),
        Some(Secret::File(path)) => {
            let failed =
                |source| LinkError::Credentials { path: path.display().to_string(), source };
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            let mut bytes = Vec::new();
            file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).await.map_err(failed)?;
            while bytes.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                bytes.pop();
            }
            Ok(Some(bytes))
        }
    }
}

/// The identity of one of the remote connections of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteIdentity {
    /// Its number; the first one also carries the notifications.
    pub(crate) lane: usize,
    /// Whether the bridge bit is set (3.x).
    pub(crate) bridge_bit: bool,
    /// Whether there is a Will Message that reports the end of the connection.
    pub(crate) has_will: bool,
}

/// Name of the remote Session of a lane.
#[must_use]
pub(crate) fn remote_client_id(settings: &BridgeSettings, lane: usize) -> String {
    match lane {
        0 => settings.client_id.clone(),
        lane => format!("{}-{lane}", settings.client_id),
    }
}

/// Connects a lane of the bridge to the remote broker.
///
/// # Errors
/// [`LinkError`] says why it was not accepted. The caller limits the time.
pub(crate) async fn connect_remote<S: ByteStream>(
    stream: S,
    settings: &BridgeSettings,
    credentials: &BridgeCredentials,
    identity: RemoteIdentity,
) -> Result<Connected<S>, LinkError> {
    let client_id = remote_client_id(settings, identity.lane);
    let will = identity.has_will.then(|| Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: &settings.notification_topic,
        payload: b"0",
        delay_seconds: None,
        message_expiry: None,
        properties: Cow::Borrowed(&[]),
    });
    let keep_alive_seconds = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let properties = match settings.protocol {
        ProtocolVersion::V5_0 => ConnectProperties {
            session_expiry_seconds: (!settings.clean_start)
                .then_some(settings.session_expiry_seconds),
            receive_maximum: Some(settings.receive_maximum),
            maximum_packet_bytes: Some(settings.max_packet_bytes).filter(|limit| *limit > 0),
            topic_alias_maximum: Some(settings.topic_alias_maximum).filter(|maximum| *maximum > 0),
            ..ConnectProperties::default()
        },
        _ => ConnectProperties::default(),
    };
    let connect = Connect {
        version: settings.protocol,
        bridge_bit: identity.bridge_bit && settings.protocol < ProtocolVersion::V5_0,
        clean_start: settings.clean_start,
        keep_alive_seconds,
        client_id: &client_id,
        will,
        user_name: credentials.user_name.as_deref(),
        password: credentials.password.as_deref(),
        properties,
    };
    let keep_alive = Duration::from_secs(u64::from(keep_alive_seconds));
    exchange(stream, &connect, keep_alive).await
}

/// Opens the Session of the bridge at the local broker.
///
/// # Errors
/// [`LinkError`] says why it was not accepted.
pub(crate) async fn connect_local<S: ByteStream>(
    stream: S,
    client_id: &str,
    receive_maximum: u16,
    lifetime: LocalLifetime,
) -> Result<Connected<S>, LinkError> {
    let clean = lifetime != LocalLifetime::Durable;
    let connect = Connect {
        version: ProtocolVersion::V5_0,
        bridge_bit: false,
        clean_start: clean,
        keep_alive_seconds: 0,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_seconds: (!clean).then_some(u32::MAX),
            receive_maximum: Some(receive_maximum.max(1)),
            ..ConnectProperties::default()
        },
    };
    match exchange(stream, &connect, Duration::ZERO).await {
        Err(LinkError::Refused { reason, .. }) => Err(LinkError::LocalRefused(reason)),
        Err(LinkError::RemoteClosed(_)) => Err(LinkError::LocalClosed),
        Err(LinkError::RemoteIo(error)) => Err(LinkError::Local(error.to_string())),
        Err(LinkError::RemoteMalformed(error)) => Err(LinkError::Local(error)),
        other => other,
    }
}

/// What happens to the local Session when its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalLifetime {
    /// It stays and keeps queueing messages.
    Durable,
    /// It goes.
    Transient,
}

async fn exchange<S: ByteStream>(
    mut stream: S,
    connect: &Connect<'_>,
    keep_alive: Duration,
) -> Result<Connected<S>, LinkError> {
    let version = connect.version;
    let mut output = Vec::with_capacity(256);
    wire::connect(&mut output, connect);
    stream.write_all(&output).await.map_err(LinkError::RemoteIo)?;
    stream.flush().await.map_err(LinkError::RemoteIo)?;
    let mut input = Vec::with_capacity(4096);
    loop {
        let found = wire::next(&input, version, CONNACK_BYTES_MAX);
        if let Some((packet, length)) = found.map_err(LinkError::RemoteMalformed)? {
            let accepted = accept(&packet, version, keep_alive)?;
            input.drain(..length);
            return Ok(Connected { stream, input, accepted });
        }
        let count = stream.read_buf(&mut input).await.map_err(LinkError::RemoteIo)?;
        if count == 0 {
            return Err(LinkError::RemoteClosed(" instead of answering CONNECT"));
        }
    }
}

fn accept(
    packet: &Packet<'_>,
    protocol: ProtocolVersion,
    keep_alive: Duration,
) -> Result<Accepted, LinkError> {
    match packet {
        Packet::Connack(connack) if connack.reason.is_failure() => {
            let text = connack.properties.reason_string.unwrap_or_default().to_owned();
            Err(LinkError::Refused { reason: connack.reason, text, protocol })
        }
        Packet::Connack(connack) => Ok(Accepted::from_connack(connack, keep_alive)),
        Packet::Auth(_) => Err(LinkError::RemoteViolation("AUTH without enhanced authentication")),
        _ => Err(LinkError::RemoteViolation("something other than CONNACK")),
    }
}
