//! The asking end of the control socket: blocking, since a command line has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::control::protocol::{Reply, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no broker answers at {path}: {source}; is it running, and is this its [control] socket?"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the broker's answer did not arrive: {0}")]
    Io(#[from] io::Error),
    /// The answer is not what it should be.
    #[error("the broker's answer is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The broker says no.
    #[error("{0}")]
    Refused(String),
    /// What was to be sent cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Asks and waits for the result; `progress` sees how far it is.
///
/// # Errors
/// [`AskError`]
pub fn ask(
    path: &Path,
    request: &Request,
    mut progress: impl FnMut(u64, u64),
) -> Result<Value, AskError> {
    let connected = UnixStream::connect(path);
    let mut stream =
        connected.map_err(|source| AskError::Connect { path: path.to_owned(), source })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line?)? {
            Reply::Progress { done, total } => progress(done, total),
            Reply::Ok(value) => return Ok(value),
            Reply::Error(problem) => return Err(AskError::Refused(problem)),
        }
    }
    Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()))
}
