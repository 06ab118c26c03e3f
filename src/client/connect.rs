//! From the settings to `rumqttc`'s options, and from its errors to ours.

use std::sync::Arc;

use rumqttc::{NetworkOptions, TlsConfiguration, TlsError, Transport, v5};

use crate::client::error::ClientError;
use crate::client::options::{PACKET_BYTES_MAX, Remote, Settings};
use crate::client::reason::{with_detail, words};
use crate::dial::address::Carrier;
use crate::dial::error::TlsFailure;
use crate::dial::tls::client_config;
use crate::packet::QoS;

/// Messages in flight that `rumqttc` keeps account of; the commands stay below it.
pub(super) const INFLIGHT_MAX: u16 = 2000;

/// A fixed header has at most five bytes.
const HEADER_BYTES_MAX: u32 = 5;

/// Our QoS for 3.1.1.
pub(super) fn qos_v4(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    }
}

/// Our QoS for 5.0.
pub(super) fn qos_v5(qos: QoS) -> v5::mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
    }
}

/// Options for 3.1.1. Reads the files of TLS.
///
/// # Errors
/// [`ClientError::Dial`] names the file.
pub(super) fn options_v4(settings: &Settings) -> Result<rumqttc::MqttOptions, ClientError> {
    let (host, port) = broker(settings);
    let mut options = rumqttc::MqttOptions::new(settings.client_id.clone(), host, port);
    options
        .set_transport(transport(settings)?)
        .set_keep_alive(settings.keep_alive)
        .set_clean_session(settings.clean_start)
        .set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize)
        .set_inflight(INFLIGHT_MAX)
        .set_manual_acks(true);
    if let Some((username, password)) = credentials(settings) {
        options.set_credentials(username, password);
    }
    if let Some(will) = &settings.will {
        options.set_last_will(rumqttc::LastWill {
            topic: will.topic.clone(),
            message: will.payload.clone(),
            qos: qos_v4(will.qos),
            retain: will.retain,
        });
    }
    Ok(options)
}

/// Options for 5.0. Reads the files of TLS.
///
/// # Errors
/// [`ClientError::Dial`] names the file.
pub(super) fn options_v5(settings: &Settings) -> Result<v5::MqttOptions, ClientError> {
    let (host, port) = broker(settings);
    let mut options = v5::MqttOptions::new(settings.client_id.clone(), host, port);
    let mut properties = settings.properties.connect.clone();
    // Without this, rumqttc accepts no packet larger than 10 KiB.
    properties.max_packet_size.get_or_insert(PACKET_BYTES_MAX + HEADER_BYTES_MAX);
    options
        .set_transport(transport(settings)?)
        .set_keep_alive(settings.keep_alive)
        .set_clean_start(settings.clean_start)
        .set_connect_properties(properties)
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_connection_timeout(settings.connect_timeout.as_secs())
        .set_network_options(network_options(settings))
        .set_manual_acks(true);
    if let Some((username, password)) = credentials(settings) {
        options.set_credentials(username, password);
    }
    if let Some(will) = &settings.will {
        options.set_last_will(v5::mqttbytes::v5::LastWill {
            topic: will.topic.clone().into(),
            message: will.payload.clone(),
            qos: qos_v5(will.qos),
            retain: will.retain,
            properties: will.properties.clone(),
        });
    }
    Ok(options)
}

/// Options of the socket.
pub(super) fn network_options(settings: &Settings) -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_connection_timeout(settings.connect_timeout.as_secs());
    options
}

fn credentials(settings: &Settings) -> Option<(String, String)> {
    match (&settings.username, &settings.password) {
        (None, None) => None,
        (username, password) => {
            Some((username.clone().unwrap_or_default(), password.clone().unwrap_or_default()))
        }
    }
}

/// The "host" and port for `rumqttc`: a URL for WebSocket, a path for a Unix socket.
fn broker(settings: &Settings) -> (String, u16) {
    match &settings.remote {
        Remote::Unix(path) => (path.to_string_lossy().into_owned(), 0),
        Remote::Network(address) => match address.carrier {
            Carrier::Stream => (address.host.clone(), address.port),
            Carrier::WebSocket { .. } => (address.to_string(), address.port),
        },
    }
}

fn transport(settings: &Settings) -> Result<Transport, ClientError> {
    let config = settings.tls.as_ref().map(client_config).transpose();
    let config = config.map_err(ClientError::Dial)?;
    let config = config.map(|config| TlsConfiguration::Rustls(Arc::new(config)));
    let Remote::Network(address) = &settings.remote else { return Ok(Transport::Unix) };
    Ok(match (&address.carrier, config) {
        (Carrier::Stream, None) => Transport::Tcp,
        (Carrier::Stream, Some(config)) => Transport::Tls(config),
        (Carrier::WebSocket { .. }, None) => Transport::Ws,
        (Carrier::WebSocket { .. }, Some(config)) => Transport::Wss(config),
    })
}

/// How far the connection got when an error occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// No CONNACK yet.
    Connecting,
    /// After CONNACK.
    Connected,
}

/// Explains errors of one connection.
pub(super) struct Explainer {
    pub(super) address: String,
    pub(super) reached: Reached,
    pub(super) timeout_seconds: u64,
}

impl Explainer {
    /// An error of 3.1.1.
    pub(super) fn explain_v4(&self, error: rumqttc::ConnectionError) -> ClientError {
        use rumqttc::{ConnectionError, StateError};
        match error {
            ConnectionError::ConnectionRefused(code) => self.refused(words(&code)),
            ConnectionError::Tls(error) => self.tls(error),
            ConnectionError::Io(error)
            | ConnectionError::MqttState(
                StateError::Io(error)
                | StateError::Deserialization(rumqttc::mqttbytes::Error::Io(error)),
            ) => self.io(&error),
            ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => self.timeout(),
            ConnectionError::MqttState(StateError::ConnectionAborted) => self.closed(),
            ConnectionError::MqttState(StateError::AwaitPingResp) => self.silent(),
            ConnectionError::MqttState(StateError::Deserialization(error)) => {
                self.malformed(&error)
            }
            ConnectionError::ResponseValidation(_) => self.no_sub_protocol(),
            ConnectionError::Websocket(error) => self.websocket(&error),
            other => self.broken(other.to_string()),
        }
    }

    /// An error of 5.0.
    pub(super) fn explain_v5(&self, error: v5::ConnectionError) -> ClientError {
        use v5::{ConnectionError, StateError};
        match error {
            ConnectionError::ConnectionRefused(code) => self.refused(words(&code)),
            ConnectionError::Tls(error) => self.tls(error),
            ConnectionError::Io(error)
            | ConnectionError::MqttState(
                StateError::Io(error)
                | StateError::Deserialization(v5::mqttbytes::Error::Io(error)),
            ) => self.io(&error),
            ConnectionError::Timeout(_) => self.timeout(),
            ConnectionError::MqttState(StateError::ConnectionAborted) => self.closed(),
            ConnectionError::MqttState(StateError::AwaitPingResp) => self.silent(),
            ConnectionError::MqttState(
                StateError::OutgoingPacketTooLarge { pkt_size, max }
                | StateError::Deserialization(v5::mqttbytes::Error::OutgoingPacketTooLarge {
                    pkt_size,
                    max,
                }),
            ) => ClientError::Rejected(format!(
                "the packet has {pkt_size} bytes; {} takes at most {max}",
                self.address
            )),
            ConnectionError::MqttState(StateError::InvalidAlias { alias, max }) => {
                ClientError::Rejected(format!(
                    "topic alias {alias} is more than {} allows, which is {max}",
                    self.address
                ))
            }
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string,
            }) => self.disconnected(reason_code, reason_string.as_ref()),
            ConnectionError::MqttState(StateError::Deserialization(error)) => {
                self.malformed(&error)
            }
            ConnectionError::ResponseValidation(_) => self.no_sub_protocol(),
            ConnectionError::Websocket(error) => self.websocket(&error),
            other => self.broken(other.to_string()),
        }
    }

    fn disconnected(
        &self,
        code: v5::mqttbytes::v5::DisconnectReasonCode,
        detail: Option<&String>,
    ) -> ClientError {
        use v5::mqttbytes::v5::DisconnectReasonCode as Code;
        let reason = with_detail(words(&code), detail);
        match code {
            Code::ServerShuttingDown
            | Code::ServerBusy
            | Code::KeepAliveTimeout
            | Code::ConnectionRateExceeded
            | Code::UseAnotherServer
            | Code::ServerMoved
            | Code::UnspecifiedError
            | Code::NormalDisconnection => self.broken(format!("the broker closed it: {reason}")),
            _ => ClientError::Rejected(format!("{} closed the connection: {reason}", self.address)),
        }
    }

    fn refused(&self, reason: String) -> ClientError {
        ClientError::Refused { address: self.address.clone(), reason }
    }

    fn tls(&self, error: TlsError) -> ClientError {
        self.tls_failure(match &error {
            TlsError::Io(error) => error.into(),
            TlsError::TLS(error) => error.into(),
            other => TlsFailure::Other(other.to_string()),
        })
    }

    fn tls_failure(&self, failure: TlsFailure) -> ClientError {
        ClientError::Tls { address: self.address.clone(), failure }
    }

    fn io(&self, error: &std::io::Error) -> ClientError {
        match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            true => self.tls_failure(error.into()),
            false => self.broken(error.to_string()),
        }
    }

    fn timeout(&self) -> ClientError {
        self.broken(match self.reached {
            Reached::Connecting => format!("no answer within {} s", self.timeout_seconds),
            Reached::Connected => format!("it accepted nothing for {} s", self.timeout_seconds),
        })
    }

    fn closed(&self) -> ClientError {
        self.broken(match self.reached {
            Reached::Connecting => {
                "closed before CONNACK; is it an MQTT broker, on a port without \
                TLS, and does it speak this version (-V)?"
                    .to_owned()
            }
            Reached::Connected => "the broker closed it".to_owned(),
        })
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> ClientError {
        self.broken(match self.reached {
            Reached::Connecting => {
                format!("the answer is not MQTT ({error}); does this port speak TLS (--cafile)?")
            }
            Reached::Connected => format!("the broker sent invalid MQTT: {error}"),
        })
    }

    fn silent(&self) -> ClientError {
        self.broken("the broker did not answer PINGREQ".to_owned())
    }

    fn no_sub_protocol(&self) -> ClientError {
        self.broken("the server does not support the WebSocket sub-protocol mqtt".to_owned())
    }

    fn websocket(&self, error: &dyn std::fmt::Display) -> ClientError {
        self.broken(format!("WebSocket: {error}; is the path right (--ws=/path)?"))
    }

    fn broken(&self, reason: String) -> ClientError {
        let address = self.address.clone();
        match self.reached {
            Reached::Connecting => ClientError::Connect { address, reason },
            Reached::Connected => ClientError::Lost { address, reason },
        }
    }
}
