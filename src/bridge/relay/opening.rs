//! The opening of a link: Subscriptions on both sides, and the release of meaningless identifiers.

use std::sync::Arc;
use std::time::Instant;

use crate::bridge::relay::side::{answer_sweep, fill_sweep};
use crate::bridge::relay::{Announcement, Relay, RelayPhase};
use crate::bridge::wire;
use crate::config::bridge::rule::{RuleSet, filters_overlap};
use crate::packet::subscribe::{RetainHandling, Suback, SubscriptionOptions};
use crate::packet::{PacketId, ProtocolVersion, QoS};

/// Most filters in one SUBSCRIBE, because brokers have limits and packets should stay small.
const FILTERS_PER_PACKET: usize = 32;

/// The Subscriptions of one connection at the remote broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LanePlan {
    /// Filters to subscribe to.
    pub(crate) subscribe: Vec<(String, QoS)>,
    /// Filters to unsubscribe from, because an older configuration may have left them.
    pub(crate) unsubscribe: Vec<String>,
}

/// Spreads the incoming rules over the connections. Overlapping filters stay together, so that no message arrives
/// twice; those whose messages could match an outgoing rule stay on lane 0, whose local Session has the outgoing
/// Subscriptions, because No Local works only there.
#[must_use]
pub(crate) fn lane_plans(rules: &RuleSet, lanes: usize) -> Vec<LanePlan> {
    let filters = rules.remote_filters();
    let mut lane_of: Vec<usize> = Vec::with_capacity(filters.len());
    for (index, (filter, _)) in filters.iter().enumerate() {
        lane_of.push(if comes_back(rules, filter) { 0 } else { index % lanes.max(1) });
    }
    // Until nothing changes, because an overlap may join separate groups.
    let mut moved = true;
    while moved {
        moved = false;
        for first in 0..filters.len() {
            for second in 0..first {
                let pair = (filters.get(first), filters.get(second));
                let (Some((left, _)), Some((right, _))) = pair else { continue };
                if lane_of[first] != lane_of[second] && filters_overlap(left, right) {
                    let lane = lane_of[first].min(lane_of[second]);
                    (lane_of[first], lane_of[second]) = (lane, lane);
                    moved = true;
                }
            }
        }
    }
    let mut plans = vec![LanePlan::default(); lanes];
    for (filter, lane) in filters.into_iter().zip(lane_of) {
        if let Some(plan) = plans.get_mut(lane) {
            plan.subscribe.push(filter);
        }
    }
    plans
}

/// Has each connection unsubscribe from what an older configuration may have left: filters that are on another connection
/// now, and those of outgoing rules.
pub(crate) fn unsubscribe_from_leftovers(plans: &mut [LanePlan], rules: &RuleSet) {
    let incoming = rules.remote_filters().into_iter().map(|(filter, _)| filter);
    let filters: Vec<_> = incoming.chain(rules.remote_out_filters()).collect();
    for plan in plans {
        let LanePlan { subscribe, unsubscribe } = plan;
        let is_left = |filter: &&String| !subscribe.iter().any(|(wanted, _)| wanted == *filter);
        unsubscribe.extend(filters.iter().filter(is_left).cloned());
    }
}

/// Whether messages of this incoming filter could match an outgoing rule.
fn comes_back(rules: &RuleSet, remote_filter: &str) -> bool {
    let incoming = rules.rules.iter().filter(|rule| rule.direction.is_in());
    incoming.filter(|rule| rule.remote_filter == remote_filter).any(|rule| {
        let mut outgoing = rules.rules.iter().filter(|rule| rule.direction.is_out());
        outgoing.any(|out| filters_overlap(&out.local_filter, &rule.local_filter))
    })
}

impl Relay {
    /// Writes the first packets to the local broker.
    pub(super) fn open_local(&mut self) {
        let remote_is_new = self.remotes.iter().any(|remote| !remote.session_present);
        let filters = self.settings.rules.local_filters();
        let known = std::mem::take(&mut self.known_local_filters);
        let stale = std::mem::take(&mut self.stale_local_filters);
        if let Some(Some(local)) = self.locals.first_mut() {
            let mut ids = (1..=u16::MAX).filter_map(wire::packet_id);
            for chunk in stale.chunks(FILTERS_PER_PACKET) {
                let Some(id) = ids.next() else { break };
                wire::unsubscribe(&mut local.output, ProtocolVersion::V5_0, id, chunk);
                local.awaited.insert(id, chunk.to_vec());
            }
            // Retained Messages that the remote broker has had are sent again only if its Session is new: perhaps the
            // whole broker is. While it was away, changes of them waited in the queue.
            let subscriptions: Vec<_> = filters
                .into_iter()
                .map(|(filter, qos)| {
                    let is_known =
                        known.contains(&filter) && local.session_present && !remote_is_new;
                    let retain_handling =
                        if is_known { RetainHandling::DoNotSend } else { RetainHandling::Send };
                    (filter, bridge_options(qos, retain_handling))
                })
                .collect();
            for chunk in subscriptions.chunks(FILTERS_PER_PACKET) {
                let Some(id) = ids.next() else { break };
                wire::subscribe(&mut local.output, ProtocolVersion::V5_0, id, chunk);
                local.awaited.insert(id, chunk.iter().map(|(filter, _)| filter.clone()).collect());
            }
        }
        for local in self.locals.iter_mut().flatten() {
            fill_sweep(&mut local.sweep, &mut local.output, ProtocolVersion::V5_0);
        }
    }

    /// Enters the next phase when the current one is complete.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.phase == RelayPhase::OpeningLocal
            && self.locals.iter().flatten().all(super::side::LocalSide::is_open)
        {
            self.phase = RelayPhase::OpeningRemote;
            self.open_remote(now);
        }
        if self.phase == RelayPhase::OpeningRemote
            && self.remotes.iter().all(super::side::RemoteSide::is_open)
        {
            match self.announcement {
                Announcement::Present => self.announce(now),
                Announcement::None => self.run(now),
            }
        }
    }

    fn announce(&mut self, now: Instant) {
        self.phase = RelayPhase::Announcing;
        let settings = Arc::clone(&self.settings);
        self.publish_remote(&settings.notification_topic, b"1", now);
        if let Some(remote) = self.remotes.first_mut() {
            // An earlier PINGREQ proves nothing.
            remote.must_ping_again = remote.ping_sent.is_some();
            remote.ping(now);
        }
    }

    fn run(&mut self, now: Instant) {
        self.phase = RelayPhase::Running;
        self.pump_held(now);
        self.refresh_if_due(now);
    }

    /// Records that a queued message has crossed or was dropped.
    pub(super) fn note_crossed(&mut self, now: Instant) {
        if let Some(left) = &mut self.backlog {
            *left = left.saturating_sub(1);
            self.refresh_if_due(now);
        }
    }

    /// Requests the remote broker's Retained Messages once local changes have crossed, because values that were set there
    /// meanwhile and not queued arrive only this way. If requested earlier, its old values would overwrite newer local
    /// ones.
    fn refresh_if_due(&mut self, now: Instant) {
        if self.phase < RelayPhase::Running || self.backlog != Some(0) {
            return;
        }
        self.backlog = None;
        let version = self.settings.protocol;
        for remote in &mut self.remotes {
            if !remote.session_present {
                continue;
            }
            let options = |(filter, qos): &(String, QoS)| {
                (filter.clone(), bridge_options(*qos, RetainHandling::Send))
            };
            let subscriptions: Vec<_> = remote.plan.subscribe.iter().map(options).collect();
            let mut ids = (1..=u16::MAX).rev().filter_map(wire::packet_id);
            for chunk in subscriptions.chunks(FILTERS_PER_PACKET) {
                let free = ids.find(|id| !remote.inflight.contains(*id));
                let Some(id) = free else { break };
                wire::subscribe(&mut remote.output, version, id, chunk);
                let filters = chunk.iter().map(|(filter, _)| filter.clone()).collect();
                remote.expect_answer(id, filters, now);
            }
        }
    }

    fn open_remote(&mut self, now: Instant) {
        let version = self.settings.protocol;
        for remote in &mut self.remotes {
            if remote.sweep.is_some() {
                remote.awaited_since = now;
                fill_sweep(&mut remote.sweep, &mut remote.output, version);
            }
            let mut ids = (1..=u16::MAX).rev().filter_map(wire::packet_id);
            let plan = remote.plan.clone();
            if remote.session_present && !remote.is_tidy {
                for chunk in plan.unsubscribe.chunks(FILTERS_PER_PACKET) {
                    let Some(id) = ids.next() else { break };
                    wire::unsubscribe(&mut remote.output, version, id, chunk);
                    remote.expect_answer(id, chunk.to_vec(), now);
                }
            }
            // 3.x sends all Retained Messages at each SUBSCRIBE: a Session that has its Subscriptions is left alone until
            // what changed here has crossed.
            if remote.is_subscribed && remote.session_present {
                continue;
            }
            let options = |(filter, qos): &(String, QoS)| {
                (filter.clone(), bridge_options(*qos, RetainHandling::SendIfNew))
            };
            let subscriptions: Vec<_> = plan.subscribe.iter().map(options).collect();
            for chunk in subscriptions.chunks(FILTERS_PER_PACKET) {
                let Some(id) = ids.next() else { break };
                wire::subscribe(&mut remote.output, version, id, chunk);
                let filters = chunk.iter().map(|(filter, _)| filter.clone()).collect();
                remote.expect_answer(id, filters, now);
            }
        }
    }

    pub(super) fn local_suback(&mut self, lane: usize, ack: &Suback<'_>, now: Instant) {
        let awaited = self.locals.get(lane).and_then(Option::as_ref).map(|local| &local.awaited);
        let filters = awaited.and_then(|awaited| awaited.get(&ack.packet_id));
        self.warnings.extend(refusals("local", filters, ack));
        self.local_done(lane, ack.packet_id, now);
    }

    pub(super) fn local_done(&mut self, lane: usize, packet_id: PacketId, now: Instant) {
        if let Some(Some(local)) = self.locals.get_mut(lane) {
            local.awaited.remove(&packet_id);
            local.opening_since = now;
        }
        self.advance(now);
    }

    pub(super) fn remote_suback(&mut self, lane: usize, ack: &Suback<'_>, now: Instant) {
        let awaited = self.remotes.get(lane).map(|remote| &remote.awaited);
        let filters = awaited.and_then(|awaited| awaited.get(&ack.packet_id));
        self.warnings.extend(refusals("remote", filters, ack));
        self.remote_done(lane, ack.packet_id, now);
    }

    pub(super) fn remote_done(&mut self, lane: usize, packet_id: PacketId, now: Instant) {
        if let Some(remote) = self.remotes.get_mut(lane) {
            remote.awaited.remove(&packet_id);
            remote.awaited_since = now;
        }
        match self.phase {
            // A message that has waited for the identifier may go.
            RelayPhase::Running => self.pump_held(now),
            RelayPhase::OpeningLocal | RelayPhase::OpeningRemote => self.advance(now),
            RelayPhase::Announcing => {}
        }
    }

    /// Handles PINGRESP: everything sent before the PINGREQ has arrived.
    pub(super) fn remote_pingresp(&mut self, lane: usize, now: Instant) {
        let Some(remote) = self.remotes.get_mut(lane) else { return };
        if remote.ping_sent.take().is_none() {
            return;
        }
        remote.unproven.note_answer();
        if std::mem::take(&mut remote.must_ping_again) || remote.unproven.wants_ping() {
            remote.ping(now);
        } else if self.phase == RelayPhase::Announcing && lane == 0 {
            self.run(now);
        }
    }

    /// Releases messages that were held because they seemed to circle, when it is time.
    pub(super) fn release_watched(&mut self, now: Instant) {
        self.release_outgoing(now);
        self.release_incoming(now);
    }

    /// A PUBCOMP that answers a sweep of the local Session.
    pub(super) fn local_swept(&mut self, lane: usize, now: Instant) -> bool {
        let Some(Some(local)) = self.locals.get_mut(lane) else { return false };
        let swept = answer_sweep(&mut local.sweep, &mut local.output, ProtocolVersion::V5_0);
        local.opening_since = now;
        if swept && local.sweep.is_none() {
            self.advance(now);
        }
        swept
    }

    /// A PUBCOMP that answers a sweep of the remote Session.
    pub(super) fn remote_swept(&mut self, lane: usize, now: Instant) -> bool {
        let version = self.settings.protocol;
        let Some(remote) = self.remotes.get_mut(lane) else { return false };
        let swept = answer_sweep(&mut remote.sweep, &mut remote.output, version);
        if swept {
            remote.awaited_since = now;
        }
        if swept && remote.sweep.is_none() {
            self.advance(now);
        }
        swept
    }
}

/// What keeps messages from returning and their RETAIN flag as it was; 3.x encodes only the QoS, and remote brokers
/// that understand the bridge bit act as if the rest stood there, too.
fn bridge_options(qos: QoS, retain_handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions { qos, no_local: true, retain_as_published: true, retain_handling }
}

fn refusals(side: &str, filters: Option<&Vec<String>>, ack: &Suback<'_>) -> Vec<String> {
    let filters = filters.map(Vec::as_slice).unwrap_or_default();
    let refused = filters.iter().zip(&ack.reasons).filter(|(_, reason)| reason.is_failure());
    refused
        .map(|(filter, reason)| {
            let why = crate::bridge::error::reason_in_words(*reason);
            format!("the {side} broker refused the subscription to \"{filter}\": {why}")
        })
        .collect()
}
