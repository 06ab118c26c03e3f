//! When and where a bridge connects.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use crate::bridge::local::local_client_id;
use crate::bridge::remote::dial;
use crate::bridge::status::{BridgeState, Counters};
use crate::bridge::worker::{Order, Worker};
use crate::config::bridge::{BridgeSettings, StartType};
use crate::dial::address::Address;
use crate::dial::connect::DialStage;

/// How often a lazy bridge checks its queue.
const LAZY_LOOK: Duration = Duration::from_millis(500);
/// Practically never.
const FAR: Duration = Duration::from_hours(8760);
/// A first address that answers but does not serve is tried less and less often, up to this many times the interval.
const PROBE_SLOWDOWN_MAX: u32 = 16;

impl Worker {
    /// Waits until the bridge should connect; false if the task must end.
    pub(super) async fn wait_until_due(&mut self) -> bool {
        loop {
            let order = *self.orders.borrow_and_update();
            let state = match (order, self.settings.start) {
                (Order::Stop, _) => return false,
                (Order::Pause, _) => BridgeState::Paused,
                (Order::Start, _) | (Order::Automatic, StartType::Automatic) => return true,
                (Order::Automatic, StartType::Once) if !self.had_its_turn => return true,
                (Order::Automatic, StartType::Lazy) if self.has_enough() => return true,
                (Order::Automatic, _) => BridgeState::Idle,
            };
            self.counters.set_state(state, SystemTime::now());
            let is_lazy = order == Order::Automatic && self.settings.start == StartType::Lazy;
            let look = if is_lazy { LAZY_LOOK } else { FAR };
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                }
                () = tokio::time::sleep(look) => {}
            }
        }
    }

    fn has_enough(&self) -> bool {
        let client_id = local_client_id(&self.settings.name, 0);
        let stats = self.context.broker.queue_stats(&client_id);
        stats.is_some_and(|stats| stats.messages >= self.settings.lazy_threshold)
    }
}

/// Detects that a lazy bridge is idle.
pub(super) struct IdleWatch {
    traffic: u64,
    since: Instant,
    is_lazy: bool,
}

impl IdleWatch {
    pub(super) fn new(
        settings: &BridgeSettings,
        order: Order,
        counters: &Counters,
        now: Instant,
    ) -> Self {
        let is_lazy = settings.start == StartType::Lazy && order == Order::Automatic;
        Self { traffic: counters.traffic(), since: now, is_lazy }
    }

    pub(super) fn next_look(&self) -> Instant {
        Instant::now() + if self.is_lazy { LAZY_LOOK } else { FAR }
    }

    pub(super) fn is_over(
        &mut self,
        settings: &BridgeSettings,
        counters: &Counters,
        now: Instant,
    ) -> bool {
        let traffic = counters.traffic();
        if traffic != self.traffic {
            (self.traffic, self.since) = (traffic, now);
        }
        self.is_lazy && now.duration_since(self.since) >= settings.idle_timeout
    }
}

/// How far an attempt came before it failed, or before its link was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reached {
    /// No connection.
    Nothing,
    /// A connection that did not last.
    Connection,
    /// A connection that lasted for `stable_after`.
    Stability,
}

/// Which address is next.
pub(super) struct AddressCursor {
    index: usize,
    /// Attempts in this round through all addresses.
    tried: usize,
    next_probe: Instant,
    slowdown: u32,
    probe: Option<JoinHandle<bool>>,
}

impl AddressCursor {
    pub(super) fn new(settings: &BridgeSettings, now: Instant) -> Self {
        let next_probe = now + settings.primary_retry;
        Self { index: 0, tried: 0, next_probe, slowdown: 1, probe: None }
    }

    pub(super) fn current<'a>(&self, settings: &'a BridgeSettings) -> &'a Address {
        // Settings have at least one address, and the index stays below their number.
        &settings.addresses[self.index % settings.addresses.len()]
    }

    /// Records that an attempt failed or a link was lost. True if a pause is due, because all addresses have had
    /// their turn.
    pub(super) fn failed(&mut self, settings: &BridgeSettings, reached: Reached) -> bool {
        let count = settings.addresses.len();
        self.probe = None;
        if reached > Reached::Nothing {
            // The first address is tried first again, unless all are equal: then the next one is.
            self.tried = 0;
            self.index = if settings.round_robin { (self.index + 1) % count } else { 0 };
            if reached == Reached::Stability {
                self.slowdown = 1;
            }
            return true;
        }
        self.tried += 1;
        self.index = (self.index + 1) % count;
        if self.tried < count {
            return false;
        }
        self.tried = 0;
        true
    }

    /// When to try the first address in parallel, if another one is in use.
    pub(super) fn next_probe(&self, settings: &BridgeSettings) -> Instant {
        match settings.round_robin || self.index == 0 || self.probe.is_some() {
            true => Instant::now() + FAR,
            false => self.next_probe,
        }
    }

    /// Connects to the first address without MQTT, because a CONNECT with the same client id would end the link if
    /// both addresses lead to one broker.
    pub(super) fn start_probe(&mut self, settings: &Arc<BridgeSettings>, now: Instant) {
        self.next_probe = now + settings.primary_retry * self.slowdown;
        let settings = Arc::clone(settings);
        self.probe = Some(tokio::spawn(async move {
            let Some(primary) = settings.addresses.first() else { return false };
            let stage = DialStage::default();
            let connecting = dial(primary, &settings, &stage);
            let connected = tokio::time::timeout(settings.connect_timeout, connecting).await;
            matches!(connected, Ok(Ok(_)))
        }));
    }

    /// Resolves when a probe has ended: true if the first address is back. Cancellation safe.
    pub(super) async fn probed(&mut self) -> bool {
        let found = match &mut self.probe {
            Some(probe) => probe.await.unwrap_or(false),
            None => std::future::pending().await,
        };
        self.probe = None;
        found
    }

    /// The next attempt goes to the first address.
    pub(super) fn return_to_primary(&mut self, now: Instant) {
        self.index = 0;
        self.tried = 0;
        self.probe = None;
        self.slowdown = (self.slowdown * 2).min(PROBE_SLOWDOWN_MAX);
        self.next_probe = now;
    }
}

impl Drop for AddressCursor {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bridge::BridgeFile;

    fn file() -> BridgeFile {
        BridgeFile {
            name: "b".into(),
            addresses: vec!["one".into(), "two".into(), "three".into()],
            topics: vec!["#".into()],
            ..BridgeFile::default()
        }
    }

    fn check(file: &BridgeFile) -> BridgeSettings {
        BridgeSettings::check(file, "h").unwrap()
    }

    #[test]
    fn failures_walk_through_all_addresses_before_a_pause() {
        let settings = check(&file());
        let mut cursor = AddressCursor::new(&settings, Instant::now());
        let mut walk = Vec::new();
        for _ in 0..6 {
            walk.push((
                cursor.current(&settings).host.clone(),
                cursor.failed(&settings, Reached::Nothing),
            ));
        }
        let expected = [("one", false), ("two", false), ("three", true)];
        let expected: Vec<_> =
            expected.iter().cycle().take(6).map(|(host, all)| ((*host).to_owned(), *all)).collect();
        assert_eq!(walk, expected);
    }

    #[test]
    fn a_lost_link_starts_again_at_the_first_address() {
        let settings = check(&file());
        let mut cursor = AddressCursor::new(&settings, Instant::now());
        cursor.failed(&settings, Reached::Nothing);
        assert_eq!(cursor.current(&settings).host, "two");
        cursor.failed(&settings, Reached::Stability);
        assert_eq!(cursor.current(&settings).host, "one");
    }

    #[test]
    fn round_robin_goes_on_and_never_probes() {
        let settings = check(&BridgeFile { round_robin: true, ..file() });
        let mut cursor = AddressCursor::new(&settings, Instant::now());
        cursor.failed(&settings, Reached::Stability);
        assert_eq!(cursor.current(&settings).host, "two");
        assert!(cursor.next_probe(&settings) > Instant::now() + Duration::from_secs(3600));
    }

    #[test]
    fn a_first_address_that_fails_to_serve_is_probed_less_often() {
        let settings = check(&file());
        let mut cursor = AddressCursor::new(&settings, Instant::now());
        for _ in 0..10 {
            cursor.return_to_primary(Instant::now());
        }
        assert_eq!(cursor.slowdown, PROBE_SLOWDOWN_MAX);
    }
}
