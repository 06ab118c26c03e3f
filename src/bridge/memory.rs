//! The persistent state of a bridge besides its Sessions, in one small file: its Subscriptions on both sides, and the
//! last remote broker. Losing it only causes repeated Retained Messages and a leftover Subscription.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct BridgeMemory {
    /// The address of the last link.
    pub(crate) address: String,
    /// Whether the local Session was created after the last link: then exchanges known to the remote broker are void.
    pub(crate) is_fresh: bool,
    /// Local filters subscribed to, whose Retained Messages the remote broker has received.
    pub(crate) local_filters: Vec<String>,
    /// Remote filters subscribed to, by lane.
    pub(crate) remote_filters: Vec<Vec<String>>,
    /// Addresses of brokers that refused the bridge bit, and when that was, in Unix seconds.
    pub(crate) without_bridge_bit: Vec<(String, u64)>,
}

/// What is remembered of the bridge bit for one remote broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RememberedBit {
    /// The broker has not refused it, or that was long ago.
    Unknown,
    /// The broker refused it.
    Refused,
}

/// Addresses remembered for having refused the bridge bit.
const REFUSALS_MAX: usize = 16;
/// How long they are remembered: there may be another broker by then, and asking costs one attempt.
const REFUSED_FOR_SECONDS: u64 = 7 * 24 * 3600;

impl BridgeMemory {
    /// What is remembered of the bridge bit for the broker at an address.
    #[must_use]
    pub(crate) fn bit(&self, address: &str, unix_seconds: u64) -> RememberedBit {
        let is_refused = self.without_bridge_bit.iter().any(|(known, since)| {
            known == address && unix_seconds < since.saturating_add(REFUSED_FOR_SECONDS)
        });
        if is_refused { RememberedBit::Refused } else { RememberedBit::Unknown }
    }

    /// Records that the broker at an address has refused or accepted the bridge bit.
    pub(crate) fn note_bit(&mut self, address: &str, refused_at: Option<u64>) {
        self.without_bridge_bit.retain(|(known, _)| known != address);
        if let Some(unix_seconds) = refused_at {
            self.without_bridge_bit.insert(0, (address.to_owned(), unix_seconds));
            self.without_bridge_bit.truncate(REFUSALS_MAX);
        }
    }
}

/// The location of the file.
#[derive(Debug, Clone)]
pub(crate) struct MemoryFile(Option<PathBuf>);

impl MemoryFile {
    /// The file of a bridge in `directory`; without one, nothing is kept beyond the process.
    #[must_use]
    pub(crate) fn new(directory: Option<&Path>, bridge: &str) -> Self {
        Self(directory.map(|directory| directory.join(format!("{bridge}.json"))))
    }

    /// Reads it. A file that is missing or damaged counts as empty.
    pub(crate) async fn read(&self) -> BridgeMemory {
        let Some(path) = &self.0 else { return BridgeMemory::default() };
        match tokio::fs::read(path).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => BridgeMemory::default(),
        }
    }

    /// Replaces it as a whole.
    ///
    /// # Errors
    /// The error of the operating system; the bridge still works.
    pub(crate) async fn write(&self, memory: &BridgeMemory) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        let draft = path.with_extension("json.new");
        tokio::fs::write(&draft, serde_json::to_vec(memory)?).await?;
        tokio::fs::rename(&draft, path).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_read_and_damage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("bridges");
        let file = MemoryFile::new(Some(&nested), "b");
        assert_eq!(file.read().await, BridgeMemory::default());
        let memory = BridgeMemory {
            address: "mqtt://a:1".into(),
            is_fresh: true,
            local_filters: vec!["x/#".into()],
            remote_filters: vec![vec!["y".into()], vec![]],
            without_bridge_bit: vec![("mqtt://a:1".into(), 7)],
        };
        file.write(&memory).await.unwrap();
        assert_eq!(file.read().await, memory);
        std::fs::write(nested.join("b.json"), "{\"address\": 7").unwrap();
        assert_eq!(file.read().await, BridgeMemory::default());
        file.remove().await.unwrap();
        file.remove().await.unwrap();
    }

    #[test]
    fn who_refused_the_bridge_bit_is_known_for_a_while() {
        let mut memory = BridgeMemory::default();
        (0..20).for_each(|number| memory.note_bit(&number.to_string(), Some(100)));
        assert_eq!(memory.bit("19", 100 + REFUSED_FOR_SECONDS - 1), RememberedBit::Refused);
        assert_eq!(memory.bit("19", 100 + REFUSED_FOR_SECONDS), RememberedBit::Unknown);
        assert_eq!(memory.bit("0", 100), RememberedBit::Unknown);
        memory.note_bit("19", None);
        assert_eq!(memory.bit("19", 100), RememberedBit::Unknown);
    }
}
