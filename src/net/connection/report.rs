//! Log lines about one connection: its beginning and end, denied requests, its packets; and the cause in the Close frame of a
//! WebSocket.

use std::fmt;

use tracing::debug;

use crate::broker::connection::{ClientConnection, CloseReason};
use crate::error::{decode_reason_code, reason_code};
use crate::net::client_log::ClientLog;
use crate::net::connection::Driver;
use crate::net::packet_log;
use crate::packet::reason_code::ReasonCode;
use crate::websocket::frame::CloseCause;

impl<S> Driver<S> {
    /// Logs once that the Client is connected.
    #[cold]
    pub(super) fn announce(&mut self) {
        if let Some(introduction) = self.connection.take_introduction() {
            self.service.log.connected(&self.connection, &introduction);
        }
    }

    fn speaks_other_version(&self) -> bool {
        let Some(CloseReason::Malformed(error)) = self.connection.closing() else { return false };
        decode_reason_code(error) == ReasonCode::UnsupportedProtocolVersion
    }

    pub(super) fn log_end(&mut self, reason: &dyn fmt::Display) {
        let log = &self.service.log;
        match (self.connection.session().is_some(), self.connection.take_introduction()) {
            (true, introduction) => {
                if let Some(introduction) = introduction {
                    log.connected(&self.connection, &introduction);
                }
                log.disconnected(&self.connection, reason);
            }
            (false, Some(introduction)) => log.refused(&self.connection, &introduction, reason),
            // An unsupported MQTT version comes from a Client; anything else may be anything.
            (false, None) if self.speaks_other_version() => log.stranger(&self.connection, reason),
            (false, None) => {
                let address = self.connection.peer().address;
                debug!(?address, %reason, "network connection ended before CONNECT");
            }
        }
    }
}

/// Logs the handled bytes, as configured.
#[inline]
pub(super) fn note_handled(
    connection: &mut ClientConnection,
    log: &ClientLog,
    input: &[u8],
    consumed: usize,
) {
    if packet_log::is_on() {
        packet_log::write_received(connection, input.get(..consumed).unwrap_or_default());
    }
    if connection.has_remarks() {
        let remarks = connection.take_remarks();
        log.denied(connection, remarks);
    }
}

/// What a stream is to say of the end, if it can.
pub(super) fn close_cause(reason: Option<&CloseReason>) -> CloseCause {
    match reason.and_then(reason_code) {
        Some(ReasonCode::PacketTooLarge) => CloseCause::TooLarge,
        Some(ReasonCode::ServerShuttingDown) => CloseCause::GoingAway,
        _ => CloseCause::Normal,
    }
}
