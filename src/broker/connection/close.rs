//! The end of a Network Connection: the last packet to the Client, and the state of its Session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::connection::{ClientConnection, Phase, explain};
use crate::durable::message::Timestamp;
use crate::error::{self, CloseReason};
use crate::packet::ProtocolVersion;
use crate::packet::connack::{Connack, ConnackProperties};
use crate::packet::connect;
use crate::packet::disconnect::Disconnect;
use crate::packet::error::DecodeError;
use crate::packet::reason_code::ReasonCode;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;
use crate::session::violation::Violation;

impl ClientConnection {
    /// Starts closing: sends the last packet, if there is one, and reads no more input.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.closing.reason.is_some() {
            return;
        }
        match (&self.opening.phase, error::reason_code(&reason)) {
            (Phase::Connected | Phase::Opening, Some(code))
                if self.identity.version == ProtocolVersion::V5_0 =>
            {
                self.send_disconnect(code, &reason);
            }
            (Phase::AwaitsAuth(_), Some(code)) => {
                self.send_refusal(code, Some(&reason.to_string()));
            }
            (_, _) => {}
        }
        self.closing.reason = Some(reason);
    }

    /// Refuses the CONNECT. [MQTT-3.2.2-7]
    pub(super) fn refuse(&mut self, code: ReasonCode) {
        self.end_with_refusal(code, explain::words(code));
    }

    /// Refuses the CONNECT for a reason that its Reason Code does not name.
    pub(super) fn refuse_because(&mut self, code: ReasonCode, why: &'static str) {
        self.end_with_refusal(code, Some(why));
    }

    fn end_with_refusal(&mut self, code: ReasonCode, why: Option<&'static str>) {
        self.send_refusal(code, why);
        if self.closing.reason.is_none() {
            self.closing.reason = Some(CloseReason::Refused(code));
        }
    }

    fn send_refusal(&mut self, reason: ReasonCode, why: Option<&str>) {
        let version = self.identity.version;
        self.append_explained(why, |reason_string, out| {
            let properties = ConnackProperties { reason_string, ..ConnackProperties::default() };
            Connack { session_present: false, reason, properties }.encode(out, version);
        });
    }

    /// Answers a malformed CONNECT if its version can be determined. [MQTT-3.1.4-1]
    pub(super) fn answer_malformed_connect(&mut self, input: &[u8], error: &DecodeError) {
        if input.is_empty() || !connect::may_begin(input) {
            return;
        }
        let code = error::decode_reason_code(error);
        match connect::protocol_level(input) {
            Some(level) if level >= 5 => self.identity.version = ProtocolVersion::V5_0,
            Some(_) if code == ReasonCode::UnsupportedProtocolVersion => {
                self.identity.version = ProtocolVersion::V3_1_1;
            }
            Some(_) | None => return,
        }
        self.send_refusal(code, Some(&error.to_string()));
    }

    /// DISCONNECT from the Client. [MQTT-3.14.4-3]
    pub(super) fn handle_disconnect(&mut self, inbound: &mut Inbound, disconnect: &Disconnect<'_>) {
        if let Some(seconds) = disconnect.session_expiry_seconds {
            if inbound.expiry_seconds == 0 && seconds > 0 {
                self.close(CloseReason::Violation(Violation::SessionExpiryRaised));
                return;
            }
            inbound.expiry_seconds = seconds.min(self.broker.limits().max_session_expiry_seconds);
        }
        self.closing.discards_will = disconnect.reason == ReasonCode::Success;
        self.close(CloseReason::ClientDisconnected);
    }

    /// Called when the Network Connection has ended or is about to: the Session continues without it, or ends. Calling
    /// it again has no effect. Remaining output of the connection can be taken afterwards.
    pub fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects) {
        if matches!(self.opening.phase, Phase::Closed) {
            return;
        }
        self.opening.phase = Phase::Closed;
        self.output.pending.clear();
        self.output.pending_reasons = 0;
        self.input.filter_work = None;
        self.input.throttle = None;
        let Some(session) = self.opening.session.clone() else { return };
        let mut inbound = session.inbound();
        if inbound.ended || inbound.epoch != self.opening.epoch {
            return;
        }
        self.broker.figures().connected.fetch_sub(1, Ordering::Relaxed);
        inbound.disconnected = Some(now);
        effects.wakers.extend(inbound.successors.take());
        if self.closing.discards_will {
            inbound.will = None;
        }
        self.release_session(&session, &mut inbound, now, effects);
        // Before the lock is released: otherwise the record of a connection that takes over could be written before this
        // one, which would then replace it, and a crash between the two would lose the Will.
        self.broker.carry_out(effects);
        drop(inbound);
    }

    fn release_session(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let is_over = inbound.expiry_seconds == 0;
        if inbound.will.as_ref().is_some_and(|will| is_over || will.delay_seconds == 0)
            && let Some(will) = inbound.will.take()
        {
            self.broker.publish_will(session, inbound, &will, now, effects);
        }
        if is_over {
            self.broker.end_session(session, inbound, effects);
            return;
        }
        session.outbound().close(self.opening.epoch);
        for group in inbound.groups.iter() {
            group.handle_absence(session.id(), effects);
        }
        self.broker.persist_session(session, inbound, effects);
        self.broker.schedule(session, inbound);
    }
}
