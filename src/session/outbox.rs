//! Encoded packets for a Client: senders encode packets directly into an [`Outbox`], and the task of the Network
//! Connection writes them. Large payloads are held by reference instead of copied, so that each exists once however
//! many Clients receive it.

use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;

use crate::durable::message::Message;
use crate::packet::publish::OutgoingPublish;
use crate::packet::{PacketId, ProtocolVersion};
use crate::session::rare::Rare;

/// Payloads (with the forwarded properties before them) of at least this many bytes are held by reference; smaller ones are copied,
/// which costs less than the bookkeeping.
pub(crate) const REFERENCED_PAYLOAD_BYTES: usize = 2048;

/// Encoded packets in order, with large parts held by reference.
#[derive(Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    references: Rare<References>,
}

/// What is not in the buffer because it exists once for all recipients.
#[derive(Default)]
struct References {
    splices: Vec<Splice>,
    bytes: usize,
}

/// The end of a packet that belongs after the first `at` bytes of the buffer.
struct Splice {
    at: usize,
    message: Arc<Message>,
    end: ReferencedPart,
}

/// Which part of a packet stays in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReferencedPart {
    /// The payload.
    Payload,
    /// Forwarded properties and payload, which are adjacent in the message as in a 5.0 packet.
    PropertiesAndPayload,
}

impl Splice {
    fn bytes(&self) -> &[u8] {
        match self.end {
            ReferencedPart::Payload => self.message.payload(),
            ReferencedPart::PropertiesAndPayload => self.message.properties_and_payload(),
        }
    }
}

impl Outbox {
    /// Bytes waiting, those held by reference included.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.references.as_ref().map_or(0, |references| references.bytes)
    }

    /// Whether it is empty: what is held by reference always has the beginning of its packet before it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Appends the output of `encode`.
    #[inline]
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.buffer.capacity() == 0 {
            self.buffer = take_buffer(FRESH_BUFFER_BYTES);
        }
        encode(&mut self.buffer);
    }

    /// Appends a PUBLISH whose payload is copied.
    #[inline]
    pub(crate) fn append_publish(
        &mut self,
        publish: &OutgoingPublish<'_>,
        version: ProtocolVersion,
        payload: &[u8],
    ) {
        self.append(|out| {
            publish.encode_head(out, version);
            out.extend_from_slice(payload);
        });
    }

    /// Appends a PUBLISH whose `end` stays in `message`.
    pub(crate) fn append_referenced(
        &mut self,
        publish: &OutgoingPublish<'_>,
        version: ProtocolVersion,
        message: &Arc<Message>,
        end: ReferencedPart,
    ) {
        match end {
            ReferencedPart::Payload => self.append(|out| publish.encode_head(out, version)),
            ReferencedPart::PropertiesAndPayload => {
                self.append(|out| publish.encode_before_properties(out, version));
            }
        }
        let splice = Splice { at: self.buffer.len(), message: Arc::clone(message), end };
        let references = self.references.fill();
        references.bytes += splice.bytes().len();
        references.splices.push(splice);
    }

    /// Moves everything to the end of `target` and leaves this one without memory.
    pub(crate) fn move_into(&mut self, target: &mut Self) {
        if target.is_empty() {
            std::mem::swap(self, target);
        } else {
            let offset = target.buffer.len();
            target.buffer.extend_from_slice(&self.buffer);
            if self.references.as_ref().is_some() {
                let References { splices, bytes } = self.references.take();
                let moved = splices.into_iter().map(|it| Splice { at: it.at + offset, ..it });
                let references = target.references.fill();
                references.splices.extend(moved);
                references.bytes += bytes;
            }
        }
        self.discard();
    }

    /// What was appended, without payloads held by reference.
    #[inline]
    pub(super) fn copied(&self) -> &[u8] {
        &self.buffer
    }

    /// Appends packets, with ascending Packet Identifiers written over those that are `places` after `before`.
    #[inline]
    pub(super) fn append_numbered(
        &mut self,
        packets: &[u8],
        (before, places): (usize, &[u32]),
        first: PacketId,
    ) {
        self.make_room(packets.len());
        self.append(|out| {
            let start = out.len();
            out.extend_from_slice(packets);
            let copy = out.get_mut(start..).unwrap_or_default();
            let mut packet_id = first;
            for place in places {
                let place = *place as usize - before;
                if let Some(bytes) = copy.get_mut(place..place + 2) {
                    bytes.copy_from_slice(&packet_id.get().to_be_bytes());
                }
                packet_id = packet_id.next();
            }
        });
    }

    /// Appends plain bytes.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.append(|out| out.extend_from_slice(bytes));
    }

    /// Takes a buffer, if there is none, that need not grow for so many bytes.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.buffer.capacity() == 0 {
            self.buffer = take_buffer(bytes.max(FRESH_BUFFER_BYTES));
        }
    }

    /// Drops everything and releases the buffer.
    pub fn discard(&mut self) {
        give_buffer(std::mem::take(&mut self.buffer));
        self.references = Rare::default();
    }

    /// The bytes from `position` on, as slices for a vectored write; fills `slices` and returns how
    /// many it filled.
    pub fn slices<'a>(&'a self, position: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut skip = position;
        let mut start = 0;
        let splices = self.references.as_ref().map_or(&[][..], |references| &references.splices);
        let ends = splices.iter().map(|splice| (splice.at, Some(splice)));
        for (end, splice) in ends.chain(std::iter::once((self.buffer.len(), None))) {
            let copied = self.buffer.get(start..end).unwrap_or_default();
            let referenced = splice.map(Splice::bytes).unwrap_or_default();
            start = end;
            for part in [copied, referenced] {
                let rest = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if rest.is_empty() {
                    continue;
                }
                let Some(slice) = slices.get_mut(filled) else { return filled };
                *slice = IoSlice::new(rest);
                filled += 1;
            }
        }
        filled
    }
}

/// Bytes of the buffers kept by each thread: memory that is not given back, so not more than what speeds things up.
const KEPT_BYTES: usize = 1024 * 1024;
/// Most buffers kept by each thread.
const KEPT_BUFFERS: usize = 64;
/// Room of a fresh buffer.
const FRESH_BUFFER_BYTES: usize = 1024;

/// Empty buffers: an idle Client holds none, and a busy one gets one that has already grown.
struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { buffers: Vec::new(), bytes: 0 }) };
}

/// A buffer of the pool, of any size, or a fresh one with this much room.
fn take_buffer(fresh_bytes: usize) -> Vec<u8> {
    let kept = POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        let buffer = pool.buffers.pop()?;
        pool.bytes -= buffer.capacity();
        Some(buffer)
    });
    kept.unwrap_or_else(|| Vec::with_capacity(fresh_bytes))
}

fn give_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.buffers.len() < KEPT_BUFFERS && pool.bytes + buffer.capacity() <= KEPT_BYTES {
            pool.bytes += buffer.capacity();
            pool.buffers.push(buffer);
        }
    });
}
