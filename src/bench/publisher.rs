//! A publisher: fills its output with messages as far as window, backlog and schedule allow, and counts
//! acknowledgements.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::bench::client::Client;
use crate::bench::inflight::{Acknowledged, Inflight};
use crate::bench::meter::{Clock, SharedHistogram};
use crate::bench::timer::Timer;
use crate::bench::wire::{self, PublishTemplate, Stamp, kind};
use crate::packet::QoS;

/// The plan of a publisher.
pub(super) struct PublisherPlan {
    /// One template for each topic, used in turn.
    pub(super) templates: Vec<PublishTemplate>,
    /// Number of the stream of the first topic; the others follow.
    pub(super) first_stream: u32,
    /// QoS of the templates.
    pub(super) qos: QoS,
    /// Most messages without acknowledgement (QoS 1 and 2).
    pub(super) window: u16,
    /// Most messages sent and not yet settled at their recipients; zero is no bound.
    pub(super) backlog: u64,
    /// How many recipients each message has, for the backlog.
    pub(super) recipients: u64,
    /// When to send.
    pub(super) pace: Pace,
    /// How many to send in all.
    pub(super) limit: u64,
}

/// When to send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Whenever there is room.
    Saturate,
    /// At fixed times, whatever the broker does: an open loop.
    Schedule {
        /// Time of the first message, nanoseconds of the [`Clock`].
        first: u64,
        /// Nanoseconds between messages.
        interval: u64,
    },
}

/// The shared state of a running publisher. Only the publisher writes the counters, once per batch.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct PublisherStatus {
    /// Messages sent (given to the output).
    pub(super) sent: AtomicU64,
    /// Messages acknowledged to the end.
    pub(super) acknowledged: AtomicU64,
    /// Messages refused with a Reason Code.
    pub(super) refused: AtomicU64,
    /// Acknowledgements that belong to no message.
    pub(super) unknown: AtomicU64,
    /// Nothing more is sent once this is set.
    pub(super) stopped: AtomicBool,
    /// The connection is over.
    pub(super) failed: AtomicBool,
    backlog: Backlog,
}

/// Deliveries settled at the recipients: what bounds the backlog.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Backlog {
    settled: AtomicU64,
    wake_at: AtomicU64,
    waker: AtomicWaker,
}

impl PublisherStatus {
    /// Recipients settled `count` more deliveries.
    pub(super) fn settle(&self, count: u64) {
        let settled = self.backlog.settled.fetch_add(count, Ordering::AcqRel) + count;
        if settled >= self.backlog.wake_at.load(Ordering::Acquire) {
            self.backlog.waker.wake();
        }
    }

    /// Treats everything sent as settled: the rest is lost, and waiting for it would take forever.
    pub(super) fn forgive(&self, recipients: u64) {
        let sent = self.sent.load(Ordering::Acquire) * recipients;
        let settled = self.backlog.settled.load(Ordering::Acquire);
        if sent > settled {
            self.settle(sent - settled);
        }
    }
}

/// A connected publisher.
pub(super) struct Publisher {
    client: Client,
    plan: PublisherPlan,
    status: Arc<PublisherStatus>,
    inflight: Inflight,
    latencies: SharedHistogram,
    clock: Clock,
    timer: Option<Timer>,
    timer_set_for: u64,
    next_template: usize,
    sent: u64,
    next_due: u64,
}

/// Output is filled up to here: enough for one large write.
const FILL_BYTES: usize = 64 * 1024;
/// Rounds before other connections of the thread get their turn.
const ROUNDS_PER_POLL: usize = 8;

impl Publisher {
    /// Creates a publisher from a connected client.
    pub(super) fn new(
        client: Client,
        plan: PublisherPlan,
        status: Arc<PublisherStatus>,
        latencies: SharedHistogram,
        clock: Clock,
    ) -> io::Result<Self> {
        let window = plan.window.min(client.connack.receive_maximum).max(1);
        let (timer, next_due) = match plan.pace {
            Pace::Saturate => (None, 0),
            Pace::Schedule { first, .. } => (Some(Timer::new()?), first),
        };
        Ok(Self {
            client,
            plan,
            status,
            inflight: Inflight::new(window),
            latencies,
            clock,
            timer,
            timer_set_for: 0,
            next_template: 0,
            sent: 0,
            next_due,
        })
    }

    /// Runs until everything is sent and acknowledged, or the connection ends; returns the connection.
    pub(super) async fn run(mut self) -> io::Result<Client> {
        let result = poll_fn(|cx| self.poll_run(cx)).await;
        if result.is_err() {
            self.status.failed.store(true, Ordering::Release);
        }
        result.map(|()| self.client)
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS_PER_POLL {
            let received = self.poll_acknowledgements(cx)?;
            let is_blocked = self.fill(cx)?;
            let sent = self.client.poll_send(cx)?;
            if self.is_finished() && sent.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if received.is_pending() && (sent.is_pending() || is_blocked) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_finished(&self) -> bool {
        self.is_done_sending() && self.inflight.used() == 0
    }

    fn is_done_sending(&self) -> bool {
        self.sent >= self.plan.limit || self.status.stopped.load(Ordering::Acquire)
    }

    fn poll_acknowledgements(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let Self { client, inflight, latencies, clock, status, .. } = self;
        let mut counts = [0_u64; 3];
        let [acknowledged, refused, unknown] = &mut counts;
        let mut histogram = None;
        let mut now = 0;
        let received = client.poll_receive(cx, |output, first, body| {
            let Some((packet_id, code)) = wire::acknowledgement(body) else { return };
            match inflight.acknowledge(first, packet_id, code) {
                Acknowledged::Complete { since } => {
                    *acknowledged += 1;
                    if now == 0 {
                        now = clock.now();
                    }
                    histogram
                        .get_or_insert_with(|| latencies.lock())
                        .saturating_record(now - since.min(now));
                }
                Acknowledged::Refused => *refused += 1,
                Acknowledged::Release => {
                    wire::push_acknowledgement(output, kind::PUBREL, packet_id);
                }
                Acknowledged::Unknown => *unknown += 1,
            }
        });
        add(&status.acknowledged, counts[0]);
        add(&status.refused, counts[1]);
        add(&status.unknown, counts[2]);
        match received {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Appends messages to the output. Returns whether something other than the socket stops it, in which case that
    /// something will wake us.
    fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_done_sending() {
            return Ok(true);
        }
        let now = self.clock.now();
        let mut room = self.room(cx);
        // Only then was a waker registered: having used the room up just now is no reason to sleep.
        let is_blocked = room == 0;
        let is_scheduled = matches!(self.plan.pace, Pace::Schedule { .. });
        while room > 0 && self.client.unsent_bytes() < FILL_BYTES {
            if is_scheduled && self.next_due > now {
                break;
            }
            self.append_message(now);
            room -= 1;
        }
        self.status.sent.store(self.sent, Ordering::Release);
        if is_scheduled && room > 0 && self.next_due > now {
            return self.poll_schedule(cx, now);
        }
        Ok(is_blocked)
    }

    /// How many messages window, backlog and limit allow.
    fn room(&mut self, cx: &mut Context<'_>) -> u64 {
        let mut room = self.plan.limit - self.sent;
        if self.plan.qos > QoS::AtMostOnce {
            room = room.min(self.inflight.room() as u64);
        }
        if self.plan.backlog > 0 && room > 0 {
            room = room.min(self.backlog_room(cx));
        }
        room
    }

    /// Room in the backlog; when it is nearly used up, waits until a quarter is free again: small refills would make
    /// small batches, and the broker dear.
    fn backlog_room(&self, cx: &mut Context<'_>) -> u64 {
        let PublisherPlan { backlog, recipients, .. } = self.plan;
        let state = &self.status.backlog;
        let enough = (backlog / 4).max(1);
        for attempt in 0..2 {
            let settled = state.settled.load(Ordering::Acquire) / recipients;
            let room = (settled + backlog).saturating_sub(self.sent);
            if room >= enough {
                return room;
            }
            if attempt == 0 {
                let wake_at = (self.sent + enough).saturating_sub(backlog) * recipients;
                state.wake_at.store(wake_at, Ordering::Release);
                state.waker.register(cx.waker());
            }
        }
        0
    }

    fn append_message(&mut self, now: u64) {
        let time = match self.plan.pace {
            Pace::Saturate => now,
            Pace::Schedule { interval, .. } => {
                let due = self.next_due;
                self.next_due += interval;
                due
            }
        };
        let at = self.next_template;
        let Some(template) = self.plan.templates.get(at) else { return };
        let topics = self.plan.templates.len();
        let sequence = if topics == 1 { self.sent } else { self.sent / topics as u64 };
        self.next_template = if at + 1 == topics { 0 } else { at + 1 };
        let stream = self.plan.first_stream + u32::try_from(at).unwrap_or(0);
        let packet_id = if self.plan.qos > QoS::AtMostOnce { self.inflight.begin(time) } else { 0 };
        template.append(&mut self.client.output, packet_id, Stamp { stream, sequence, time });
        self.sent += 1;
    }

    /// Sets the timer for the next message. True when it will wake us.
    fn poll_schedule(&mut self, cx: &mut Context<'_>, now: u64) -> io::Result<bool> {
        let Some(timer) = &mut self.timer else { return Ok(false) };
        if self.timer_set_for != self.next_due {
            timer.set(Duration::from_nanos(self.next_due - now))?;
            self.timer_set_for = self.next_due;
        }
        match timer.poll_expired(cx) {
            Poll::Ready(result) => result.map(|()| {
                self.timer_set_for = 0;
                false
            }),
            Poll::Pending => Ok(true),
        }
    }
}

/// Adds to a counter that nobody else writes.
fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Release);
    }
}
