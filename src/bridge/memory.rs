//! What a bridge remembers beyond its Sessions, in one small file: which Subscriptions it left behind on both sides and
//! which remote broker it spoke to last. Losing it costs nothing but repetitions of Retained Messages and a Subscription
//! that nobody takes back.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct BridgeMemory {
    /// The address of the last link.
    pub address: String,
    /// The local Session was created after the last link: what the remote broker knows of exchanges is void.
    pub is_fresh: bool,
    /// Local filters subscribed to, whose Retained Messages the remote broker has had.
    pub local_filters: Vec<String>,
    /// Remote filters subscribed to, by lane.
    pub remote_filters: Vec<Vec<String>>,
}

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct MemoryFile(Option<PathBuf>);

impl MemoryFile {
    /// The file of a bridge in `directory`; without one, nothing is kept beyond the process.
    #[must_use]
    pub fn new(directory: Option<&Path>, bridge: &str) -> Self {
        Self(directory.map(|directory| directory.join(format!("{bridge}.json"))))
    }

    /// Reads it. A file that is missing or damaged counts as empty.
    pub async fn read(&self) -> BridgeMemory {
        let Some(path) = &self.0 else { return BridgeMemory::default() };
        match tokio::fs::read(path).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => BridgeMemory::default(),
        }
    }

    /// Replaces it as a whole.
    ///
    /// # Errors
    /// What the system says; the bridge works all the same.
    pub async fn write(&self, memory: &BridgeMemory) -> io::Result<()> {
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
    /// What the system says.
    pub async fn remove(&self) -> io::Result<()> {
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
        };
        file.write(&memory).await.unwrap();
        assert_eq!(file.read().await, memory);
        std::fs::write(nested.join("b.json"), "{\"address\": 7").unwrap();
        assert_eq!(file.read().await, BridgeMemory::default());
        file.remove().await.unwrap();
        file.remove().await.unwrap();
    }
}
