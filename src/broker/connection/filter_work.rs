//! The progress of a SUBSCRIBE or UNSUBSCRIBE. One packet may contain tens of thousands of Topic Filters: each turn
//! processes as many as its budget allows. Nothing is read from the Client meanwhile, so that packets stay in order; there
//! is one answer, which is sent when all changes are durable.

use crate::broker::connection::ClientConnection;
use crate::broker::connection::pending::{PendingPacket, Promise, Wait};
use crate::broker::connection::remark::Remark;
use crate::broker::connection::turn::Turn;
use crate::durable::message::Timestamp;
use crate::packet::PacketId;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::{Subscribe, SubscriptionOptions};
use crate::packet::unsubscribe::Unsubscribe;
use crate::session::effects::Effects;
use crate::session::work::SUBSCRIPTION_STEPS;

/// The position in the packet.
pub(super) struct FilterWork {
    packet_id: PacketId,
    request: FilterRequest,
    /// All filters concatenated, and the end of each.
    text: Box<str>,
    ends: Box<[usize]>,
    /// Reason Codes so far, one for each processed filter.
    reasons: Vec<ReasonCode>,
    /// Whether any change must be durable before the answer is sent.
    must_wait: bool,
}

enum FilterRequest {
    Subscribe { subscription_id: u32, options: Box<[SubscriptionOptions]> },
    Unsubscribe,
}

impl FilterWork {
    pub(super) fn subscribe(subscribe: &Subscribe<'_>) -> Self {
        let options = subscribe.filters.iter().map(|(_, options)| *options).collect();
        let subscription_id = subscribe.subscription_id.unwrap_or(0);
        let request = FilterRequest::Subscribe { subscription_id, options };
        Self::new(subscribe.packet_id, request, subscribe.filters.iter().map(|(filter, _)| *filter))
    }

    pub(super) fn unsubscribe(unsubscribe: &Unsubscribe<'_>) -> Self {
        let filters = unsubscribe.filters.iter().copied();
        Self::new(unsubscribe.packet_id, FilterRequest::Unsubscribe, filters)
    }

    fn new<'a>(
        packet_id: PacketId,
        request: FilterRequest,
        filters: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let mut text = String::with_capacity(filters.clone().map(str::len).sum());
        let ends: Box<[usize]> = filters
            .map(|filter| {
                text.push_str(filter);
                text.len()
            })
            .collect();
        let reasons = Vec::with_capacity(ends.len());
        let text = text.into_boxed_str();
        Self { packet_id, request, text, ends, reasons, must_wait: false }
    }

    /// The next filter; `None` when all are done.
    fn next(&self) -> Option<&str> {
        let done = self.reasons.len();
        let end = *self.ends.get(done)?;
        let start = done.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.text.get(start.unwrap_or(0)..end)
    }

    fn into_answer(self) -> PendingPacket {
        match self.request {
            FilterRequest::Subscribe { .. } => PendingPacket::Suback(self.packet_id, self.reasons),
            FilterRequest::Unsubscribe => {
                PendingPacket::Unsuback(self.packet_id, self.reasons.into_boxed_slice())
            }
        }
    }
}

impl ClientConnection {
    /// Continues the packet from the previous turn.
    pub(super) fn resume_filter_work(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(session) = self.opening.session.clone() else { return };
        let mut inbound = session.inbound();
        if inbound.ended || inbound.epoch != self.opening.epoch {
            // The take-over will be noticed, and the rest of the packet is dropped with the connection.
            return;
        }
        let Some(work) = self.input.filter_work.take() else { return };
        let mut turn = Turn { session: &session, inbound: &mut inbound, now, effects };
        self.work_through(&mut turn, *work);
        self.finish_turn(&session, now, effects);
        drop(inbound);
    }

    /// Processes filters until all are done, and then answers, or until the budget of the turn is spent.
    pub(super) fn work_through(&mut self, turn: &mut Turn<'_>, mut work: FilterWork) {
        let promise = Promise::begin(turn.effects);
        // Connections that add Subscriptions also help to remove those of ended Sessions.
        self.broker.take_ended_apart(turn.effects);
        while let Some(filter) = work.next() {
            if turn.effects.budget.is_spent() {
                work.must_wait |= promise.wait(turn.effects) == Wait::ForCommit;
                self.input.filter_work = Some(Box::new(work));
                self.input.gave_way = true;
                return;
            }
            turn.effects.budget.spend(SUBSCRIPTION_STEPS);
            let reason = match &work.request {
                FilterRequest::Subscribe { subscription_id, options } => {
                    let options = options.get(work.reasons.len()).copied().unwrap_or_default();
                    self.subscribe(turn, filter, options, *subscription_id)
                }
                FilterRequest::Unsubscribe => self.unsubscribe(turn, filter),
            };
            if reason.is_failure() && matches!(work.request, FilterRequest::Subscribe { .. }) {
                self.note(|| Remark::subscribe_refused(filter, reason));
            }
            work.reasons.push(reason);
        }
        let wait = match work.must_wait {
            true => Wait::for_earlier(turn.effects),
            false => promise.wait(turn.effects),
        };
        self.output.watches_others = true;
        self.answer(work.into_answer(), wait, turn.effects);
    }
}
