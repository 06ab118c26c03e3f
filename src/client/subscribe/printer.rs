//! Standard output, with the acknowledgements that wait for it.

use std::io::{self, Write as _};

use crate::client::error::ClientError;
use crate::client::format::Format;
use crate::client::message::Incoming;
use crate::client::timestamp::Timestamp;
use crate::packet::QoS;

/// Collected output that is written even when more messages are already there.
const COLLECTED_BYTES: usize = 64 * 1024;

/// Collects output, and the messages to acknowledge when it is written.
pub(in crate::client) struct Printer {
    format: Format,
    output: Vec<u8>,
    acknowledgements: Vec<(QoS, u16)>,
}

/// The result of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Printed {
    /// It is written.
    All,
    /// The reader has closed the output, as `head` does.
    NobodyReads,
}

impl Printer {
    /// An empty one.
    pub(in crate::client) fn new(format: Format) -> Self {
        Self { format, output: Vec::new(), acknowledgements: Vec::new() }
    }

    /// Collects a message.
    pub(in crate::client) fn print(&mut self, message: &Incoming) {
        self.format.write(message, Timestamp::now(), &mut self.output);
    }

    /// Registers a message to acknowledge when everything collected so far is written.
    pub(in crate::client) fn acknowledge(&mut self, message: &Incoming) {
        if message.qos > QoS::AtMostOnce {
            self.acknowledgements.push((message.qos, message.packet_id));
        }
    }

    /// Whether it is time to write.
    pub(in crate::client) fn is_full(&self) -> bool {
        self.output.len() >= COLLECTED_BYTES
    }

    /// Writes everything.
    ///
    /// # Errors
    /// Standard output cannot be written, for example because the disk is full.
    pub(in crate::client) fn flush(&mut self) -> Result<Printed, ClientError> {
        if self.output.is_empty() {
            return Ok(Printed::All);
        }
        let mut output = io::stdout().lock();
        let written = output.write_all(&self.output).and_then(|()| output.flush());
        self.output.clear();
        self.output.shrink_to(COLLECTED_BYTES);
        match written {
            Ok(()) => Ok(Printed::All),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::NobodyReads),
            Err(error) => Err(ClientError::Output(error)),
        }
    }

    /// The messages to acknowledge now.
    pub(in crate::client) fn take_acknowledgements(&mut self) -> Vec<(QoS, u16)> {
        std::mem::take(&mut self.acknowledgements)
    }

    /// Drops pending acknowledgements, because their connection has ended.
    pub(in crate::client) fn forget(&mut self) {
        self.acknowledgements.clear();
    }
}
