//! Opens all connections of a link: the remote ones first, then the local ones, because the local broker repeats
//! messages in flight as soon as it is connected.

use std::time::Instant;

use futures_util::future::try_join_all;

use crate::bridge::error::LinkError;
use crate::bridge::handshake::{
    BridgeCredentials, Connected, LocalLifetime, RemoteIdentity, connect_local, connect_remote,
};
use crate::bridge::link::Link;
use crate::bridge::local::local_client_id;
use crate::bridge::policies;
use crate::bridge::relay::{
    Accepted, Announcement, LaneOptions, LanePlan, Relay, RelayOptions, lane_plans,
    unsubscribe_from_leftovers,
};
use crate::bridge::remote::dial;
use crate::bridge::worker::Worker;
use crate::bridge::worker::concessions::Asked;
use crate::config::bridge::rule::{Direction, filters_overlap};
use crate::dial::address::Address;
use crate::dial::connect::DialStage;
use crate::dial::stream::BoxStream;
use crate::packet::{ProtocolVersion, QoS};
use crate::session::policies::Trail;

/// The limits granted to a lane by both brokers.
struct LaneEnds<'a> {
    remote: &'a Accepted,
    local: Option<&'a Accepted>,
}

impl Worker {
    pub(super) async fn open_link(
        &mut self,
        address: &Address,
        stage: &DialStage,
    ) -> Result<Link, LinkError> {
        let name = address.to_string();
        let bit = self.memory.bit(&name, super::unix_seconds());
        let asked = self.concessions.ask(&name, bit);
        self.connect_link(address, asked, stage).await
    }

    async fn connect_link(
        &mut self,
        address: &Address,
        asked: Asked,
        stage: &DialStage,
    ) -> Result<Link, LinkError> {
        let settings = &self.settings;
        let credentials = BridgeCredentials::read(settings).await?;
        let lanes = (0..settings.connections)
            .map(|lane| self.open_remote(address, &credentials, (lane, asked), stage));
        let remotes = try_join_all(lanes).await?;
        // The window of the local Session is that of the remote broker, so that nothing has to wait in between.
        let granted =
            remotes.iter().map(|remote| u32::from(remote.accepted.window(settings.max_inflight)));
        let window = u16::try_from(granted.sum::<u32>()).unwrap_or(u16::MAX);
        let address = address.to_string();
        let plans = self.plans(&address);
        let mut locals = Vec::with_capacity(remotes.len());
        for (lane, plan) in plans.iter().enumerate() {
            locals.push(match lane == 0 || !plan.subscribe.is_empty() {
                true => Some(self.open_local(lane, window).await?),
                false => None,
            });
        }
        let options = self.relay_options(&address, plans, asked, &remotes, &locals);
        let relay = Relay::new(options, Instant::now());
        let counters = std::sync::Arc::clone(&self.counters);
        Ok(Link::new(self.name.clone(), relay, locals, remotes, counters))
    }

    async fn open_remote(
        &self,
        address: &Address,
        credentials: &BridgeCredentials,
        (lane, asked): (usize, Asked),
        stage: &DialStage,
    ) -> Result<Connected<BoxStream>, LinkError> {
        let stream = dial(address, &self.settings, stage).await?;
        stage.awaits_connack();
        let identity = RemoteIdentity {
            lane,
            bridge_bit: asked.bridge_bit,
            has_will: lane == 0 && asked.notifications,
        };
        let connecting = connect_remote(stream, &self.settings, credentials, identity);
        let connected = tokio::time::timeout(self.settings.response_timeout, connecting).await;
        connected.unwrap_or(Err(LinkError::RemoteSilent("CONNECT")))
    }

    async fn open_local(
        &self,
        lane: usize,
        window: u16,
    ) -> Result<Connected<BoxStream>, LinkError> {
        let broker = &self.context.broker;
        // Messages leave by the first lane; if echoes are expected, they are remembered from routing on.
        let trail = match lane == 0 && !self.settings.outgoing_echo_window().is_zero() {
            true => Trail::Lost,
            false => Trail::Kept,
        };
        let connecting = broker.connect(policies::of_ours(trail));
        let stream = connecting.await.map_err(|error| LinkError::Local(error.to_string()))?;
        let lifetime = match self.settings.local_clean_start && lane == 0 {
            true => LocalLifetime::Transient,
            false => LocalLifetime::Durable,
        };
        let client_id = local_client_id(&self.settings.name, lane);
        let connected = connect_local(stream, &client_id, window, lifetime).await?;
        if lane == 0 {
            broker.set_queue_limits(&client_id, self.settings.queue);
        }
        Ok(connected)
    }

    /// The Subscriptions of each lane, and leftovers at this address to remove.
    pub(super) fn plans(&self, address: &str) -> Vec<LanePlan> {
        let settings = &self.settings;
        let mut plans = lane_plans(&settings.rules, settings.connections);
        if settings.unsubscribe {
            unsubscribe_from_leftovers(&mut plans, &settings.rules);
        }
        if self.memory.address == address {
            for (plan, left) in plans.iter_mut().zip(&self.memory.remote_filters) {
                for filter in left {
                    let is_wanted = plan.subscribe.iter().any(|(wanted, _)| wanted == filter);
                    if !is_wanted && !plan.unsubscribe.contains(filter) {
                        plan.unsubscribe.push(filter.clone());
                    }
                }
            }
        }
        plans
    }

    /// Whether Retained Messages were dropped for lack of room since the last call.
    fn takes_retained_missed(&self) -> bool {
        let client_id = local_client_id(&self.settings.name, 0);
        self.context.broker.take_missed_retained(&client_id)
    }

    /// Local filters that are also fetched from the remote broker: its Retained Messages may be newer than ours.
    fn filters_with_newer_values(&self) -> Vec<String> {
        let rules = &self.settings.rules.rules;
        let incoming: Vec<_> = rules.iter().filter(|rule| rule.direction.is_in()).collect();
        let is_fetched = |filter: &&String| {
            incoming.iter().any(|rule| filters_overlap(&rule.local_filter, filter))
        };
        self.memory.local_filters.iter().filter(is_fetched).cloned().collect()
    }

    /// Whether a message that was sent may come back by a rule that brings it.
    fn expects_echoes(&self, asked: Asked) -> bool {
        let rules = &self.settings.rules.rules;
        let outgoing = || rules.iter().filter(|rule| rule.direction.is_out());
        let mut incoming = rules.iter().filter(|rule| rule.direction.is_in());
        let is_stranger = !asked.bridge_bit || self.settings.connections > 1;
        self.settings.protocol < ProtocolVersion::V5_0
            && is_stranger
            && incoming.any(|rule| {
                outgoing().any(|out| filters_overlap(&out.remote_filter, &rule.remote_filter))
            })
    }

    fn relay_options(
        &mut self,
        address: &str,
        plans: Vec<LanePlan>,
        asked: Asked,
        remotes: &[Connected<BoxStream>],
        locals: &[Option<Connected<BoxStream>>],
    ) -> RelayOptions {
        let ends = remotes.iter().zip(locals).map(|(remote, local)| LaneEnds {
            remote: &remote.accepted,
            local: local.as_ref().map(|local| &local.accepted),
        });
        let lanes: Vec<_> = (0..)
            .zip(plans)
            .zip(ends)
            .map(|((lane, plan), ends)| self.lane_options(address, (lane, asked), plan, ends))
            .collect();
        let is_elsewhere = self.was_elsewhere(address);
        let forgot = lanes
            .iter()
            .any(|lane| !lane.plan.subscribe.is_empty() && !lane.remote.session_present);
        if forgot || is_elsewhere {
            self.account.lock().clear();
        }
        let has_missed = self.unproven.take_incomplete();
        let client_id = local_client_id(&self.settings.name, 0);
        let waiting = self.context.broker.queue_stats(&client_id);
        RelayOptions {
            account: self.expects_echoes(asked).then(|| std::sync::Arc::clone(&self.account)),
            backlog: waiting.map_or(0, |stats| stats.messages),
            unproven: std::mem::take(&mut self.unproven),
            announcement: match asked.notifications {
                true => Announcement::Present,
                false => Announcement::None,
            },
            settings: std::sync::Arc::clone(&self.settings),
            broker_id: std::sync::Arc::clone(&self.context.broker_id),
            lanes,
            stale_local_filters: self.stale_filters(),
            known_local_filters: match is_elsewhere {
                true => Vec::new(),
                false if self.takes_retained_missed() || has_missed || !self.had_link => {
                    self.filters_with_newer_values()
                }
                false => self.memory.local_filters.clone(),
            },
            echoes: std::sync::Arc::clone(&self.context.echoes),
        }
    }

    fn lane_options(
        &self,
        address: &str,
        (lane, asked): (usize, Asked),
        plan: LanePlan,
        ends: LaneEnds<'_>,
    ) -> LaneOptions {
        let rules = &self.settings.rules.rules;
        let sends_qos2 = rules
            .iter()
            .any(|rule| rule.direction != Direction::In && rule.qos == QoS::ExactlyOnce);
        let receives_qos2 = plan.subscribe.iter().any(|(_, qos)| *qos == QoS::ExactlyOnce);
        let remote_present = ends.remote.session_present;
        let local_present = ends.local.is_some_and(|local| local.session_present);
        let is_elsewhere = self.was_elsewhere(address);
        // Compared without `unsubscribe`, which grows and shrinks with what is remembered.
        let is_tidy = self.subscribed.as_ref().is_some_and(|(known, plans)| {
            known == address
                && plans.get(lane).is_some_and(|known| known.subscribe == plan.subscribe)
        });
        let client_id = local_client_id(&self.settings.name, lane);
        LaneOptions {
            origin: self.context.broker.origin(&client_id),
            is_subscribed: is_tidy || !is_elsewhere && self.has_subscribed(lane, &plan),
            is_tidy,
            has_bridge_bit: asked.bridge_bit,
            sweep_remote: sends_qos2 && remote_present && (self.memory.is_fresh || is_elsewhere),
            sweep_local: receives_qos2 && local_present && (!remote_present || is_elsewhere),
            plan,
            remote: ends.remote.clone(),
            local: ends.local.cloned(),
        }
    }

    /// Whether the last link went to another address.
    fn was_elsewhere(&self, address: &str) -> bool {
        !self.memory.address.is_empty() && self.memory.address != address
    }

    /// Whether the remote Session was subscribed to the filters of this plan when there was a link last.
    fn has_subscribed(&self, lane: usize, plan: &LanePlan) -> bool {
        let known = self.memory.remote_filters.get(lane);
        known.is_some_and(|known| plan.subscribe.iter().map(|(filter, _)| filter).eq(known))
    }
}
