//! Connects to the remote broker as configured.

use crate::bridge::error::LinkError;
use crate::config::bridge::BridgeSettings;
use crate::dial::address::Address;
use crate::dial::connect::{DialStage, Route, SocketOptions, Tls, connect};
use crate::dial::stream::BoxStream;

/// Connects to one address, up to where MQTT begins. Runs on the bridge's own task, where no local Client waits for it.
///
/// # Errors
/// [`LinkError::Dial`] says which step failed and why. The caller limits the time.
pub(crate) async fn dial(
    address: &Address,
    settings: &BridgeSettings,
    stage: &DialStage,
) -> Result<BoxStream, LinkError> {
    let socket = SocketOptions {
        local_address: settings.bind_address,
        connect_timeout: settings.connect_timeout,
        user_timeout: Some(settings.keep_alive / 2 + settings.response_timeout),
        receive_buffer_bytes: None,
    };
    let tls = address.tls.then_some(Tls::Settings(&settings.tls));
    let route = Route { address, resolved: None, tls, socket };
    Ok(connect(&route, stage).await?.stream)
}
