//! All connections of a link: the remote ones first, then the local ones, since the local broker repeats what was in
//! flight as soon as it is connected.

use std::time::Instant;

use futures_util::future::try_join_all;

use crate::bridge::error::LinkError;
use crate::bridge::handshake::{
    BridgeCredentials, Connected, LocalLifetime, RemoteIdentity, connect_local, connect_remote,
};
use crate::bridge::link::Link;
use crate::bridge::local::local_client_id;
use crate::bridge::relay::{LaneOptions, LanePlan, Relay, RelayOptions, lane_plan};
use crate::bridge::remote::dial;
use crate::bridge::worker::Worker;
use crate::config::bridge::rule::Direction;
use crate::dial::address::Address;
use crate::dial::connect::Stage;
use crate::dial::stream::BoxStream;
use crate::packet::QoS;

impl Worker {
    pub(super) async fn open_link(
        &self,
        address: &Address,
        stage: &Stage,
    ) -> Result<Link, LinkError> {
        let settings = &self.settings;
        let credentials = BridgeCredentials::read(settings).await?;
        let lanes = (0..settings.connections)
            .map(|lane| self.open_remote(address, &credentials, lane, stage));
        let remotes = try_join_all(lanes).await?;
        // The window of the local Session is what the remote broker takes: then nothing has to wait in between.
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
        let relay =
            Relay::new(self.relay_options(&address, plans, &remotes, &locals), Instant::now());
        let counters = std::sync::Arc::clone(&self.counters);
        Ok(Link::new(self.name.clone(), relay, locals, remotes, counters))
    }

    async fn open_remote(
        &self,
        address: &Address,
        credentials: &BridgeCredentials,
        lane: usize,
        stage: &Stage,
    ) -> Result<Connected<BoxStream>, LinkError> {
        let stream = dial(address, &self.settings, stage).await?;
        stage.awaits_connack();
        let identity = RemoteIdentity { lane, bridge_bit: self.bridge_bit };
        connect_remote(stream, &self.settings, credentials, identity).await
    }

    async fn open_local(
        &self,
        lane: usize,
        window: u16,
    ) -> Result<Connected<BoxStream>, LinkError> {
        let broker = &self.context.broker;
        let stream = broker.connect().await.map_err(|error| LinkError::Local(error.to_string()))?;
        let lifetime = match self.settings.local_clean_start && lane == 0 {
            true => LocalLifetime::Transient,
            false => LocalLifetime::Durable,
        };
        let client_id = local_client_id(&self.settings.name, lane);
        let connected = connect_local(stream, &client_id, window, lifetime).await?;
        if lane == 0 {
            broker.set_queue_limits(&client_id, self.settings.queue);
            let leaves_without_trail = !self.settings.outgoing_echo_window().is_zero();
            broker.set_leaves_without_trail(&client_id, leaves_without_trail);
        }
        Ok(connected)
    }

    /// What each lane subscribes to, with what it may have left behind at this address.
    pub(super) fn plans(&self, address: &str) -> Vec<LanePlan> {
        let settings = &self.settings;
        let mut plans = lane_plan(&settings.rules, settings.connections, settings.unsubscribe);
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

    fn relay_options(
        &self,
        address: &str,
        plans: Vec<LanePlan>,
        remotes: &[Connected<BoxStream>],
        locals: &[Option<Connected<BoxStream>>],
    ) -> RelayOptions {
        let rules = &self.settings.rules.rules;
        let sends_qos2 = rules
            .iter()
            .any(|rule| rule.direction != Direction::In && rule.qos == QoS::ExactlyOnce);
        let is_elsewhere = !self.memory.address.is_empty() && self.memory.address != address;
        let subscribed = match &self.subscribed {
            Some((known, plans)) if known == address => plans.as_slice(),
            _ => &[],
        };
        let mut lanes = Vec::with_capacity(plans.len());
        for ((lane, plan), (remote, local)) in
            plans.into_iter().enumerate().zip(remotes.iter().zip(locals))
        {
            let receives_qos2 = plan.subscribe.iter().any(|(_, qos)| *qos == QoS::ExactlyOnce);
            let remote_present = remote.accepted.session_present;
            let local_present = local.as_ref().is_some_and(|local| local.accepted.session_present);
            // Compared without `unsubscribe`, which grows and shrinks with what is remembered.
            let is_subscribed =
                subscribed.get(lane).is_some_and(|known| known.subscribe == plan.subscribe);
            let client_id = local_client_id(&self.settings.name, lane);
            lanes.push(LaneOptions {
                origin: self.context.broker.origin(&client_id),
                is_subscribed,
                sweep_remote: sends_qos2
                    && remote_present
                    && (self.memory.is_fresh || is_elsewhere),
                sweep_local: receives_qos2 && local_present && (!remote_present || is_elsewhere),
                plan,
                remote: remote.accepted.clone(),
                local: local.as_ref().map(|local| local.accepted.clone()),
            });
        }
        RelayOptions {
            settings: std::sync::Arc::clone(&self.settings),
            broker_id: std::sync::Arc::clone(&self.context.broker_id),
            lanes,
            stale_local_filters: self.stale_filters(),
            known_local_filters: match is_elsewhere {
                true => Vec::new(),
                false => self.memory.local_filters.clone(),
            },
            echoes: std::sync::Arc::clone(&self.context.echoes),
        }
    }
}
