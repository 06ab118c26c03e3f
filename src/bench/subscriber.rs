//! A subscriber: checks and counts what arrives, and acknowledges it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::bench::client::Client;
use crate::bench::meter::{Clock, SharedHistogram};
use crate::bench::publisher::PublisherStatus;
use crate::bench::tracker::{Faults, OrderTracker, SetTracker};
use crate::bench::wire::{self, Stamp, kind};
use crate::packet::ProtocolVersion;

/// What a subscriber expects.
#[derive(Clone)]
pub(super) struct SubscriberPlan {
    /// The publishers, to whom settled deliveries are reported.
    pub(super) publishers: Arc<[Arc<PublisherStatus>]>,
    /// Streams of each publisher: the publisher of a stream is its number divided by this.
    pub(super) streams_per_publisher: u32,
    /// The streams that should arrive here.
    pub(super) streams: std::ops::Range<u32>,
    /// Where the members of a Shared Subscription meet; `None` for an ordinary one.
    pub(super) group: Option<Arc<Mutex<Vec<SetTracker>>>>,
    /// One message in so many is timed (a power of two).
    pub(super) timed_one_in: u64,
}

/// What others see of a running subscriber.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct SubscriberStatus {
    /// Messages received.
    pub(super) received: AtomicU64,
    /// Reads that brought something, part of a large message perhaps.
    pub(super) reads: AtomicU64,
    /// Messages that should not have come here.
    pub(super) foreign: AtomicU64,
    /// Nothing more is read once this is set.
    pub(super) stopped: AtomicBool,
    /// The connection is over.
    pub(super) failed: AtomicBool,
    trackers: Mutex<Vec<OrderTracker>>,
}

impl SubscriberStatus {
    /// Faults of the streams from `streams.start` on, when so many messages were `sent` in each.
    pub(super) fn faults(&self, sent: impl Iterator<Item = u64>) -> Faults {
        let trackers = self.trackers.lock();
        let mut total = Faults::default();
        for (i, sent) in sent.enumerate() {
            total += match trackers.get(i) {
                Some(tracker) => tracker.faults(sent),
                None => OrderTracker::default().faults(sent),
            };
        }
        total
    }
}

/// A connected subscriber.
pub(super) struct Subscriber {
    client: Client,
    plan: SubscriberPlan,
    status: Arc<SubscriberStatus>,
    latencies: SharedHistogram,
    clock: Clock,
}

/// Reads before other connections of the thread get their turn.
const READS_PER_POLL: usize = 4;

impl Subscriber {
    /// Takes a subscribed client over.
    pub(super) fn new(
        client: Client,
        plan: SubscriberPlan,
        status: Arc<SubscriberStatus>,
        latencies: SharedHistogram,
        clock: Clock,
    ) -> Self {
        let count = if plan.group.is_some() { 0 } else { plan.streams.len() };
        status.trackers.lock().resize(count, OrderTracker::default());
        Self { client, plan, status, latencies, clock }
    }

    /// Receives until the connection ends or the task is aborted, or returns the connection when it is stopped.
    pub(super) async fn run(mut self) -> io::Result<Client> {
        let result = poll_fn(|cx| self.poll_run(cx)).await;
        if result.is_err() {
            self.status.failed.store(true, Ordering::Release);
        }
        result.map(|()| self.client)
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..READS_PER_POLL {
            if self.status.stopped.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            let received = self.poll_batch(cx);
            // Acknowledgements that do not fit wait for the socket, and so does reading: a broker that sends but does
            // not read must not fill our memory.
            let sent = self.client.poll_send(cx)?;
            if received?.is_pending() || sent.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let Self { client, plan, status, latencies, clock } = self;
        let version = client.version;
        let mut trackers = status.trackers.lock();
        let mut batch = Batch::new(plan, &mut trackers);
        let received = client.poll_receive(cx, |output, first, body| {
            batch.handle(version, output, first, body, latencies, clock);
        });
        let Batch { received: count, foreign, .. } = batch.finish();
        if count > 0 {
            status
                .received
                .store(status.received.load(Ordering::Relaxed) + count, Ordering::Release);
        }
        if foreign > 0 {
            status.foreign.fetch_add(foreign, Ordering::AcqRel);
        }
        match received {
            Poll::Ready(result) => {
                let reads = status.reads.load(Ordering::Relaxed) + 1;
                status.reads.store(reads, Ordering::Relaxed);
                result.map(Poll::Ready)
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

/// Sums over one read buffer.
struct Batch<'a> {
    plan: &'a SubscriberPlan,
    trackers: &'a mut [OrderTracker],
    received: u64,
    foreign: u64,
    now: u64,
    /// The publisher of the last message, and how many of its deliveries are settled and not yet reported.
    publisher: u32,
    settled: u64,
}

impl<'a> Batch<'a> {
    fn new(plan: &'a SubscriberPlan, trackers: &'a mut [OrderTracker]) -> Self {
        Self { plan, trackers, received: 0, foreign: 0, now: 0, publisher: u32::MAX, settled: 0 }
    }

    #[inline]
    fn handle(
        &mut self,
        version: ProtocolVersion,
        output: &mut Vec<u8>,
        first: u8,
        body: &[u8],
        latencies: &SharedHistogram,
        clock: &Clock,
    ) {
        if first & 0xF0 != 0x30 {
            if first == kind::PUBREL
                && let Some((packet_id, _)) = wire::acknowledgement(body)
            {
                wire::push_acknowledgement(output, kind::PUBCOMP, packet_id);
            }
            return;
        }
        let Some(incoming) = wire::incoming(version, first, body) else { return };
        match incoming.qos {
            0 => {}
            1 => wire::push_acknowledgement(output, kind::PUBACK, incoming.packet_id),
            _ => wire::push_acknowledgement(output, kind::PUBREC, incoming.packet_id),
        }
        self.received += 1;
        if let Some(stamp) = Stamp::read(incoming.payload) {
            self.note(stamp);
            if stamp.sequence & (self.plan.timed_one_in - 1) == 0 {
                if self.now == 0 {
                    self.now = clock.now();
                }
                latencies.lock().saturating_record(self.now - stamp.time.min(self.now));
            }
        }
    }

    #[inline]
    fn note(&mut self, stamp: Stamp) {
        let publisher = stamp.stream / self.plan.streams_per_publisher;
        if publisher != self.publisher {
            self.report_settled();
            self.publisher = publisher;
        }
        let at = stamp.stream.wrapping_sub(self.plan.streams.start) as usize;
        match &self.plan.group {
            None => match self.trackers.get_mut(at) {
                Some(tracker) => self.settled += tracker.arrive(stamp.sequence),
                None => self.foreign += 1,
            },
            Some(group) => match group.lock().get_mut(at) {
                Some(tracker) => self.settled += u64::from(tracker.arrive(stamp.sequence)),
                None => self.foreign += 1,
            },
        }
    }

    fn report_settled(&mut self) {
        if self.settled > 0
            && let Some(publisher) = self.plan.publishers.get(self.publisher as usize)
        {
            publisher.settle(self.settled);
        }
        self.settled = 0;
    }

    fn finish(mut self) -> Self {
        self.report_settled();
        self
    }
}
