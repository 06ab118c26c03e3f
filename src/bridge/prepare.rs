//! Creates and removes the local Session of a bridge, independently of any link, so that messages are queued from the
//! start even if the remote broker was never reached.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bridge::error::{LinkError, reason_in_words};
use crate::bridge::handshake::{Connected, LocalLifetime, connect_local};
use crate::bridge::local::{LocalBroker, local_client_id};
use crate::bridge::{policies, wire};
use crate::config::bridge::BridgeSettings;
use crate::dial::stream::BoxStream;
use crate::packet::subscribe::{RetainHandling, SubscriptionOptions};
use crate::packet::{Packet, ProtocolVersion, QoS};
use crate::session::policies::Trail;

const VERSION: ProtocolVersion = ProtocolVersion::V5_0;
/// Filters in one packet.
const FILTERS_PER_PACKET: usize = 32;

/// Creates the Session of the bridge, or updates the Subscriptions of an existing one, and leaves it to queue
/// messages. True if it existed before.
///
/// # Errors
/// [`LinkError`] of the local side.
pub(crate) async fn prepare_session(
    broker: &dyn LocalBroker,
    settings: &BridgeSettings,
) -> Result<bool, LinkError> {
    let client_id = local_client_id(&settings.name, 0);
    // Retained Messages are requested only when there is a link, because those of QoS 0 would not be queued.
    let options = |qos: QoS| SubscriptionOptions {
        qos,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = settings.rules.local_filters();
    let filters: Vec<_> = filters.into_iter().map(|(filter, qos)| (filter, options(qos))).collect();
    if broker.replace_subscriptions(&client_id, &filters) {
        broker.set_queue_limits(&client_id, settings.queue);
        return Ok(true);
    }
    let mut connected = open(broker, &client_id, LocalLifetime::Durable).await?;
    broker.set_queue_limits(&client_id, settings.queue);
    let mut output = Vec::new();
    let mut ids = (1..=u16::MAX).filter_map(wire::packet_id);
    let mut awaited = 0_usize;
    for chunk in filters.chunks(FILTERS_PER_PACKET) {
        let Some(id) = ids.next() else { break };
        wire::subscribe(&mut output, VERSION, id, chunk);
        awaited += 1;
    }
    let session_present = connected.accepted.session_present;
    send(&mut connected.stream, &output).await?;
    await_answers(&mut connected, awaited).await?;
    finish(connected).await?;
    Ok(session_present)
}

/// Removes the Sessions of a bridge with their contents.
///
/// # Errors
/// [`LinkError`] of the local side.
pub(crate) async fn purge_sessions(
    broker: &dyn LocalBroker,
    settings: &BridgeSettings,
) -> Result<(), LinkError> {
    for lane in 0..settings.connections {
        let client_id = local_client_id(&settings.name, lane);
        finish(open(broker, &client_id, LocalLifetime::Transient).await?).await?;
    }
    Ok(())
}

async fn open(
    broker: &dyn LocalBroker,
    client_id: &str,
    lifetime: LocalLifetime,
) -> Result<Connected<BoxStream>, LinkError> {
    // Nothing is sent through this connection.
    let connecting = broker.connect(policies::of_ours(Trail::Kept));
    let stream = connecting.await.map_err(|error| LinkError::Local(error.to_string()))?;
    connect_local(stream, client_id, 1, lifetime).await
}

async fn send(stream: &mut BoxStream, bytes: &[u8]) -> Result<(), LinkError> {
    let failed = |error: std::io::Error| LinkError::Local(error.to_string());
    stream.write_all(bytes).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

/// Waits for answers. Messages that arrive meanwhile are not acknowledged, so they are sent again.
async fn await_answers(
    connected: &mut Connected<BoxStream>,
    mut awaited: usize,
) -> Result<(), LinkError> {
    while awaited > 0 {
        let found = wire::next(&connected.input, VERSION, u32::MAX).map_err(LinkError::Local)?;
        let Some((packet, length)) = found else {
            let count = connected.stream.read_buf(&mut connected.input).await;
            if count.map_err(|error| LinkError::Local(error.to_string()))? == 0 {
                return Err(LinkError::LocalClosed);
            }
            continue;
        };
        match packet {
            Packet::Suback(ack) => {
                awaited -= 1;
                if let Some(reason) = ack.reasons.iter().find(|reason| reason.is_failure()) {
                    let why = reason_in_words(*reason);
                    tracing::warn!("the local broker refused a subscription of the bridge: {why}");
                }
            }
            Packet::Disconnect(disconnect) => {
                return Err(LinkError::LocalRefused(disconnect.reason));
            }
            _ => {}
        }
        connected.input.drain(..length);
    }
    Ok(())
}

/// Disconnects and waits until the broker has closed the connection, so that the next connection does not take over
/// this one.
async fn finish(mut connected: Connected<BoxStream>) -> Result<(), LinkError> {
    let mut output = Vec::new();
    wire::disconnect(&mut output, VERSION);
    send(&mut connected.stream, &output).await?;
    let mut rest = [0; 1024];
    while !matches!(connected.stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    Ok(())
}
