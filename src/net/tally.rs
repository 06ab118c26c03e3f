//! Adds the counts of the core to the broker's counters.

use crate::broker::connection::CloseReason;
use crate::metrics::counter::{Counter, Counters, DropCounter};
use crate::packet::reason_code::ReasonCode;
use crate::session::effects::{DropReason, Tally};

/// The stage of a Network Connection when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionStage {
    /// It had no Session yet.
    Connecting,
    /// It had a Session.
    Connected,
}

/// Adds a tally to the shared counters, and resets it to zero.
pub(crate) fn count(counters: &Counters, tally: &mut Tally) {
    if *tally == Tally::default() {
        return;
    }
    let counters = counters.local();
    let pairs = [
        (Counter::PacketsReceived, tally.packets_received),
        (Counter::BytesReceived, tally.bytes_received),
        (Counter::PublishReceived, tally.publish_received),
        (Counter::PublishBytesReceived, tally.publish_bytes_received),
        (Counter::PacketsSent, tally.packets_sent + tally.publish_sent),
        (Counter::PublishSent, tally.publish_sent),
        (Counter::PublishBytesSent, tally.publish_bytes_sent),
        (Counter::PublishDenied, tally.publish_denied),
        (Counter::PublishRefused, tally.publish_refused),
        (Counter::SubscribeDenied, tally.subscribe_denied),
        (Counter::UnsubscribeDenied, tally.unsubscribe_denied),
        (Counter::ReceiveDenied, tally.receive_denied),
        (Counter::WillDenied, tally.wills_denied),
        (Counter::SubscribeOverLimit, tally.subscribe_over_limit),
        (Counter::SubscriptionIdsLeftOut, tally.subscription_ids_left_out),
        (Counter::ConnectsNew, tally.connects_new),
        (Counter::ConnectsResumed, tally.connects_resumed),
        (Counter::SessionsExpired, tally.sessions_expired),
        (Counter::WillsPublished, tally.wills_published),
    ];
    for (counter, count) in pairs {
        if count > 0 {
            counters.add(counter, count);
        }
    }
    for (reason, &count) in DropReason::ALL.iter().zip(&tally.dropped) {
        if count > 0 {
            counters.add_dropped(drop_counter(*reason), count);
        }
    }
    *tally = Tally::default();
}

/// The counter of a reason to drop.
fn drop_counter(reason: DropReason) -> DropCounter {
    match reason {
        DropReason::OutboxFull => DropCounter::OutboxFull,
        DropReason::QueueFull => DropCounter::QueueFull,
        DropReason::Oldest => DropCounter::QueueFullOldest,
        DropReason::Loop => DropCounter::BridgeLoop,
        DropReason::OutsideMountPoint => DropCounter::OutsideMountPoint,
        DropReason::AccessDenied => DropCounter::AccessDenied,
        DropReason::Expired => DropCounter::Expired,
        DropReason::PacketTooLarge => DropCounter::PacketTooLarge,
        DropReason::StoreUnavailable => DropCounter::StoreUnavailable,
        DropReason::SessionEnded => DropCounter::SessionEnded,
        DropReason::Refused => DropCounter::RejectedByClient,
    }
}

/// The counter of an end that the Client, the network or nobody announced.
pub(crate) fn counter_of_loss(stage: ConnectionStage) -> Counter {
    match stage {
        ConnectionStage::Connecting => Counter::ConnectsAbandoned,
        ConnectionStage::Connected => Counter::DisconnectsByNetwork,
    }
}

/// The counter of a reason to close.
pub(crate) fn counter_of_close(reason: &CloseReason, stage: ConnectionStage) -> Counter {
    match (reason, stage) {
        (CloseReason::Malformed(_) | CloseReason::Violation(_), ConnectionStage::Connecting) => {
            Counter::ConnectsRefusedProtocol
        }
        (CloseReason::Malformed(_) | CloseReason::Violation(_), ConnectionStage::Connected) => {
            Counter::DisconnectsProtocol
        }
        (CloseReason::ClientDisconnected, _) => Counter::DisconnectsByClient,
        (CloseReason::TakenOver, _) => Counter::DisconnectsTakeOver,
        (
            CloseReason::KeepAliveTimeout | CloseReason::PacketTimeout | CloseReason::WriteTimeout,
            _,
        ) => Counter::DisconnectsKeepAlive,
        (CloseReason::ConnectTimeout, _) => Counter::ConnectsRefusedTimeout,
        (CloseReason::Refused(reason), _) => counter_of_refusal(*reason),
        (CloseReason::AuthenticationFailed(_), ConnectionStage::Connecting) => {
            Counter::ConnectsRefusedAuthentication
        }
        (CloseReason::ShuttingDown | CloseReason::Unavailable, ConnectionStage::Connecting) => {
            Counter::ConnectsRefusedUnavailable
        }
        (CloseReason::ShuttingDown, ConnectionStage::Connected) => Counter::DisconnectsShutdown,
        (
            CloseReason::AuthenticationFailed(_) | CloseReason::Unavailable,
            ConnectionStage::Connected,
        ) => Counter::DisconnectsOther,
        (CloseReason::PublishDenied, _) => Counter::DisconnectsOther,
        (CloseReason::CredentialsChanged, _) => Counter::DisconnectsAdministrative,
    }
}

fn counter_of_refusal(reason: ReasonCode) -> Counter {
    match reason {
        ReasonCode::ServerUnavailable
        | ReasonCode::ServerBusy
        | ReasonCode::QuotaExceeded
        | ReasonCode::ConnectionRateExceeded => Counter::ConnectsRefusedUnavailable,
        ReasonCode::BadUserNameOrPassword
        | ReasonCode::NotAuthorized
        | ReasonCode::Banned
        | ReasonCode::BadAuthenticationMethod => Counter::ConnectsRefusedAuthentication,
        _ => Counter::ConnectsRefusedProtocol,
    }
}
