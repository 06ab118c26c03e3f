//! Timeouts for silent and slow Clients: Keep Alive, the connect timeout, and the progress of incomplete packets.
//!
//! While a Client sends a packet that takes longer than the Keep Alive, it cannot send anything else. So the bytes of the
//! packet count as activity if they arrive at a minimum rate; otherwise one byte now and then would hold a place and a buffer
//! forever.

use std::time::Duration;

use crate::broker::connection::{ClientConnection, CloseReason, LastCallReason, Phase};
use crate::durable::message::Timestamp;

/// The progress of an incomplete packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Bytes received of it; zero if there is no incomplete packet.
    bytes: u32,
    /// How many there were at the start of the current period.
    bytes_before: u32,
    /// The start of the current period.
    since: Timestamp,
}

/// How long the Client may be silent, in milliseconds; zero is for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(u32);

impl Patience {
    /// Until the Client is connected.
    pub(super) fn of_timeout(timeout: Duration) -> Self {
        Self(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))
    }

    /// One and a half Keep Alive periods. [MQTT-3.1.2-22]
    pub(super) fn of_keep_alive(seconds: u16) -> Self {
        Self(u32::from(seconds) * 1500)
    }

    fn as_duration(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_millis(u64::from(self.0)))
    }
}

impl Progress {
    /// Records that `left` bytes of an incomplete packet remain after `handled` bytes of complete packets.
    #[inline]
    fn note(&mut self, left: usize, handled: usize, now: Timestamp) {
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if handled > 0 {
            *self = Self { bytes: left, bytes_before: left, since: now };
        } else if self.bytes == 0 {
            *self = Self { bytes: left, bytes_before: 0, since: now };
        } else {
            self.bytes = left;
        }
    }

    /// Whether enough bytes have arrived in this period.
    fn is_enough(&self, bytes_per_second: u32, now: Timestamp) -> bool {
        let bytes = u64::from(self.bytes.saturating_sub(self.bytes_before));
        let milliseconds = now.0.saturating_sub(self.since.0);
        bytes > 0 && bytes * 1000 >= u64::from(bytes_per_second).saturating_mul(milliseconds)
    }
}

impl ClientConnection {
    /// Records received bytes, of which some were handled.
    #[inline]
    pub(super) fn note_input(&mut self, bytes: usize, handled: usize, now: Timestamp) {
        if handled > 0 {
            self.input.last_received = now;
            if let Some(call) = &mut self.closing.last_call {
                call.note_handled(handled);
            }
        }
        self.input.progress.note(bytes - handled, handled, now);
    }

    /// Handles timeouts: Keep Alive, the connect timeout, and packets that take too long.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.closing.reason.is_some() || self.closing.last_call.is_some() {
            return;
        }
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.opening.phase {
            // The input of the Client may be unread because of us.
            Phase::Authenticating(_) | Phase::TakingOver(_) | Phase::Opening | Phase::Closed => {}
            Phase::Connected if self.is_reading() && !self.has_progress(now) => {
                // Here, too, arrived input may be unread because of us.
                self.begin_last_call(LastCallReason::Silence, now);
            }
            Phase::Connected => {
                self.input.last_received = now;
                let progress = &mut self.input.progress;
                *progress = Progress { since: now, bytes_before: progress.bytes, ..*progress };
            }
            Phase::AwaitsConnect | Phase::AwaitsAuth(_) => {
                self.close(CloseReason::ConnectTimeout);
            }
        }
    }

    /// Whether an incomplete packet makes progress.
    pub(super) fn has_progress(&self, now: Timestamp) -> bool {
        self.input.progress.is_enough(self.broker.limits().min_bytes_per_second, now)
    }

    /// Whether the Client has no Keep Alive, or one that has not passed yet.
    pub(super) fn is_within_keep_alive(&self, now: Timestamp) -> bool {
        let patience = self.input.patience.as_duration();
        patience.is_none_or(|patience| now < self.input.last_received.plus(patience))
    }

    /// When to call [`Self::handle_timeout`] next.
    #[inline]
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let patience = self.input.patience.as_duration();
        let silence = patience.map(|patience| self.input.last_received.plus(patience));
        if self.input.progress.bytes == 0 || !self.is_connected() {
            return silence;
        }
        let packet = self.input.progress.since.plus(self.broker.limits().packet_timeout);
        Some(silence.map_or(packet, |silence| silence.min(packet)))
    }

    /// How long the stream may accept nothing although there is something to write: as long as the Client may be
    /// silent.
    #[must_use]
    pub(crate) fn write_patience(&self) -> Duration {
        let longest = self.broker.limits().write_timeout;
        self.input.patience.as_duration().map_or(longest, |patience| patience.min(longest))
    }
}
