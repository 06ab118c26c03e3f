//! What must outlive the process: sessions, subscriptions, queues, QoS 2 state, Retained Messages, wills.
//!
//! [`Store`] is small and batch-shaped. The core hands over [`Batch`]es of [`Change`]s; batches become durable in the
//! order of their tickets, one atomic write each or many at once, and an acknowledgement leaves only when
//! [`Store::durable`] has reached the ticket of its batch. A ticket either becomes durable or never does: a failed
//! write makes the store unavailable, it does not report success, and what waits for it is never acknowledged.

pub mod backup;
pub mod clock;
pub mod directory_lock;
pub mod disk;
pub mod family;
pub mod faulty;
pub mod group;
pub mod image;
pub mod index;
pub mod key;
pub mod load;
pub mod maintenance;
pub mod memory;
pub mod migration;
pub mod open;
pub mod options;
pub mod queue_page;
pub mod reclaim;
pub mod repair;
pub mod rocks;
pub mod settings;
pub mod statistics;
pub mod survey;
pub mod value;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use crate::packet::subscribe::SubscriptionOptions;
use crate::packet::{PacketId, QoS};
use crate::session::message::{Message, Sequence, SessionId, Timestamp};

/// Names a submitted batch; tickets rise by submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// When a batch counts as safe, weakest first.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// At once: lost with the process.
    Memory,
    /// Written to the operating system: survives `kill -9`, not a power cut.
    Os,
    /// On disk: survives a power cut.
    #[default]
    Fsync,
}

/// Told when a batch it was submitted with has become durable. Called from the store's writer thread: must be quick and
/// must not call the store.
pub trait CommitListener: Send + Sync {
    /// [`Store::durable`] has advanced past a batch of yours.
    fn handle_commit(&self);
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub struct Batch {
    /// In order.
    pub changes: Vec<Change>,
    /// What this batch waits for. The strongest wish of its messages.
    pub durability: Durability,
    /// Told afterwards.
    pub listeners: SmallVec<[Arc<dyn CommitListener>; 1]>,
}

/// One change of durable state. Changes are idempotent: applying a batch twice equals once.
pub enum Change {
    /// Creates or replaces the record of a Session.
    PutSession(Box<SessionRecord>),
    /// Removes a Session (or group) with its Subscriptions, queue and QoS 2 identifiers.
    DeleteSession(SessionId),
    /// Creates or replaces a Subscription.
    PutSubscription(Box<SubscriptionRecord>),
    /// Removes a Subscription; the filter in full, with `$share/…/`.
    DeleteSubscription {
        /// Whose.
        session: SessionId,
        /// Which.
        filter: Arc<str>,
    },
    /// Appends to a queue, unless the entry was acknowledged before the writer came to it.
    Enqueue {
        /// Whose queue.
        session: SessionId,
        /// What.
        entry: Arc<QueueEntry>,
    },
    /// Removes a delivered (or dropped) message from a queue.
    Dequeue {
        /// Whose queue.
        session: SessionId,
        /// Which entry.
        sequence: Sequence,
    },
    /// The recipient sent PUBREC: the message is no longer needed, its Packet Identifier is (until PUBCOMP).
    Release {
        /// Whose queue.
        session: SessionId,
        /// Which entry.
        sequence: Sequence,
    },
    /// A QoS 2 Packet Identifier was received from the Client.
    PutIncoming {
        /// From whom.
        session: SessionId,
        /// Which identifier.
        packet_id: PacketId,
    },
    /// The Client released a QoS 2 Packet Identifier.
    DeleteIncoming {
        /// From whom.
        session: SessionId,
        /// Which identifier.
        packet_id: PacketId,
    },
    /// Sets the Retained Message of a topic.
    PutRetained(Arc<Message>),
    /// Clears the Retained Message of a topic.
    DeleteRetained(Arc<str>),
}

/// A message in one queue. Its state decides who still has to do something about it when an acknowledgement and the
/// write of the entry race each other.
pub struct QueueEntry {
    /// Its place.
    pub sequence: Sequence,
    /// What is delivered.
    pub message: Arc<Message>,
    /// QoS of this delivery, after all maxima.
    pub qos: QoS,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Subscription Identifiers of this delivery.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// Where it came from, for members of a Shared Subscription: the group's filter in full. Such a message may go to
    /// another member when its Session ends.
    pub group: Option<SessionId>,
    state: AtomicU8,
}

const PENDING: u8 = 0;
const WRITTEN: u8 = 1;
const COMMITTED: u8 = 2;
const ACKNOWLEDGED: u8 = 3;

/// What [`QueueEntry::acknowledge`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgedEntry {
    /// The writer has not come to it and will skip it: nothing to remove.
    NeverWritten,
    /// It is (about to be) in the store: a [`Change::Dequeue`] must follow.
    Stored,
}

impl QueueEntry {
    /// An entry that no store has seen.
    #[must_use]
    pub fn new(
        sequence: Sequence,
        message: Arc<Message>,
        qos: QoS,
        retain: bool,
        ids: &[u32],
    ) -> Self {
        let subscription_ids = SmallVec::from_slice(ids);
        Self {
            sequence,
            message,
            qos,
            retain,
            subscription_ids,
            group: None,
            state: AtomicU8::new(PENDING),
        }
    }

    /// The same as it comes back from the store: committed.
    #[must_use]
    pub fn into_committed(self) -> Self {
        self.state.store(COMMITTED, Ordering::Release);
        self
    }

    /// The writer takes the entry for writing: false if it was acknowledged already and must be skipped.
    pub fn begin_write(&self) -> bool {
        let taken =
            self.state.compare_exchange(PENDING, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken != Err(ACKNOWLEDGED)
    }

    /// The writer has made it durable.
    pub fn end_write(&self) {
        // Fails when acknowledged meanwhile, which is right: its Dequeue is on the way.
        let _raced =
            self.state.compare_exchange(WRITTEN, COMMITTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether it is durable (or was acknowledged) and can be read back from the store.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.state.load(Ordering::Acquire) >= COMMITTED
    }

    /// The recipient acknowledged it, or it was dropped.
    pub fn acknowledge(&self) -> AcknowledgedEntry {
        match self.state.swap(ACKNOWLEDGED, Ordering::AcqRel) {
            PENDING => AcknowledgedEntry::NeverWritten,
            _ => AcknowledgedEntry::Stored,
        }
    }
}

/// The durable record of a Session or of a group of Shared Subscriptions.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// Whether a Client or a group owns the queue.
    pub owner: QueueOwner,
    /// Raised by every take-over; late effects of older epochs are refused.
    pub epoch: u64,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_seconds: u32,
    /// When the Network Connection ended; `None` while it is open (or was, when the broker stopped).
    pub disconnected: Option<Timestamp>,
    /// Messages below this place may have been sent before: DUP is set when they are sent again.
    pub sent_until: Sequence,
    /// The Will Message that is still to be published, and its Will Delay Interval in seconds.
    pub will: Option<(Arc<Message>, u32)>,
    /// User name the Session belongs to, when authenticated.
    pub user_name: Option<Arc<str>>,
}

/// Who owns a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueOwner {
    /// The Session of a Client.
    Client {
        /// Its Client Identifier.
        client_id: Arc<str>,
    },
    /// A group of Shared Subscriptions: messages that wait for any member.
    Group {
        /// The Topic Filter in full, `$share/{name}/{filter}`.
        filter: Arc<str>,
    },
}

/// The durable record of a Subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Whose.
    pub session: SessionId,
    /// The Topic Filter in full, with `$share/…/`.
    pub filter: Arc<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier.
    pub subscription_id: Option<u32>,
}

/// What is in a queue, read back.
pub enum StoredEntry {
    /// A message to deliver (committed).
    Message(Arc<QueueEntry>),
    /// A message whose recipient sent PUBREC: only its PUBREL is to be repeated.
    Released(Sequence),
}

/// One queue as found at opening, from the index, without reading its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSession {
    /// Its record.
    pub record: SessionRecord,
    /// Its Subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Received QoS 2 identifiers.
    pub incoming: Vec<PacketId>,
    /// The first place that may hold an entry.
    pub queue_start: Sequence,
    /// The first place never used.
    pub queue_end: Sequence,
    /// Messages in the queue (exact or, after a crash, a recount; documented by the implementation).
    pub message_count: u64,
    /// Bytes in the queue by [`Message::size_bytes`].
    pub message_bytes: u64,
}

/// What opening found.
pub struct Loaded {
    /// Sessions and groups.
    pub sessions: Vec<LoadedSession>,
    /// Retained Messages.
    pub retained: Vec<Arc<Message>>,
    /// Raised by every opening; part of every [`SessionId`].
    pub incarnation: u32,
    /// Broker time at which this opening happened, see [`Timestamp`].
    pub now: Timestamp,
}

/// Whether the store can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// Batches become durable.
    Available = 0,
    /// No space: nothing becomes durable until there is some.
    Full = 1,
    /// A write or a sync failed: nothing becomes durable until the store was reopened or the broker restarted.
    Failed = 2,
}

/// The durable state of the broker. The core never knows which implementation runs.
pub trait Store: Send + Sync {
    /// Takes over a batch. Never waits for the disk. Batches become durable in the order of their tickets.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Every batch up to this ticket is durable in the mode it asked for.
    fn durable(&self) -> Ticket;

    /// Whether batches become durable at present.
    fn state(&self) -> StoreState;

    /// Bytes of batches that were submitted and are not yet durable: what back-pressure looks at.
    fn pending_bytes(&self) -> usize;

    /// Entries of a queue in `from..to`, in order. The page is full at `max_count` entries, or with the entry that brings
    /// the sum of [`Message::size_bytes`] to `max_bytes`; a page that is not full has reached `to`. Blocks for the disk:
    /// the shell calls it on a blocking thread. Sees what was durable before the call; places may be missing (dropped).
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn read_queue(
        &self,
        session: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;
}

/// Why a store could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// The database is being opened again after a failed write.
    #[error("the store is not available: it is being opened again after a failed write")]
    Unavailable,
    /// The data directory cannot be made or written.
    #[error("the data directory {} cannot be used: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another broker holds the data directory.
    #[error("the data directory {} is in use by {}: stop it, or choose another data_dir", path.display(), holder(*process))]
    InUse {
        /// Which.
        path: PathBuf,
        /// Process id of the holder, if it left one.
        process: Option<u32>,
    },
    /// The database was written by a newer Petrel.
    #[error(
        "the store has format {found}, this petrel knows up to {known}: run the newer petrel that wrote it"
    )]
    NewerFormat {
        /// Its format version.
        found: u64,
        /// The newest one known here.
        known: u64,
    },
    /// The database cannot be opened and not be repaired.
    #[error("the store in {} cannot be opened: {reason}", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
    /// The backup directory holds something already, or no backup.
    #[error("{}: {reason}", path.display())]
    Backup {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".into(), |id| format!("process {id}"))
}
