//! Life as the Client shows it: Keep Alive, the connect timeout, and whether a packet that is not complete yet comes
//! along.
//!
//! A packet that takes longer than the Keep Alive leaves its Client no way to show life but by the packet itself. So its bytes
//! count, if there are enough of them: a minimum rate, or one byte now and then would hold a place and a buffer for ever.

use std::time::Duration;

use crate::broker::connection::{ClientConnection, CloseReason, LastCallReason, Phase};
use crate::durable::message::Timestamp;

/// How the packet comes along that is not complete yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Bytes of it that are here; zero without such a packet.
    bytes: u32,
    /// How many there were when its present time began.
    bytes_before: u32,
    /// When that was.
    since: Timestamp,
}

impl Progress {
    /// `left` bytes have not been handled, after the packets before them were or there were none.
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

    /// Whether as many bytes have come as should in this time.
    fn is_enough(&self, bytes_per_second: u32, now: Timestamp) -> bool {
        let bytes = u64::from(self.bytes.saturating_sub(self.bytes_before));
        let milliseconds = now.0.saturating_sub(self.since.0);
        bytes > 0 && bytes * 1000 >= u64::from(bytes_per_second).saturating_mul(milliseconds)
    }
}

impl ClientConnection {
    /// Bytes have come, and some of them were handled.
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

    /// What time brings: Keep Alive, the connect timeout, and the end of the patience with a packet.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.closing.reason.is_some() || self.closing.last_call.is_some() {
            return;
        }
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.opening.phase {
            // What the Client sent may lie unread because of us.
            Phase::Authenticating(_) | Phase::TakingOver(_) | Phase::Opening | Phase::Closed => {}
            Phase::Connected if self.is_reading() && !self.has_progress(now) => {
                // What has arrived may lie unread because of us as well.
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

    /// Whether a packet comes along that is not complete yet.
    pub(super) fn has_progress(&self, now: Timestamp) -> bool {
        self.input.progress.is_enough(self.broker.limits().min_bytes_per_second, now)
    }

    /// Whether the Client has no Keep Alive, or one that has not passed yet.
    pub(super) fn is_within_keep_alive(&self, now: Timestamp) -> bool {
        let patience = self.input.patience;
        patience.is_zero() || now < self.input.last_received.plus(patience)
    }

    /// When [`Self::handle_timeout`] is to be called next.
    #[inline]
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let patience = self.input.patience;
        let silence = (!patience.is_zero()).then(|| self.input.last_received.plus(patience));
        if self.input.progress.bytes == 0 || !self.is_connected() {
            return silence;
        }
        let packet = self.input.progress.since.plus(self.broker.limits().packet_timeout);
        Some(silence.map_or(packet, |silence| silence.min(packet)))
    }

    /// How long the stream may take nothing although there is something to write: as long as the Client may be silent,
    /// because one that does not read shows no life either.
    #[must_use]
    pub fn write_patience(&self) -> Duration {
        let longest = self.broker.limits().write_timeout;
        match self.input.patience {
            Duration::ZERO => longest,
            patience => patience.min(longest),
        }
    }
}
