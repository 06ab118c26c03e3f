//! The client side of the control socket. It blocks, because the command line has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::control::command::Command;
use crate::control::protocol::Line;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection was lost.
    #[error("no answer from the broker: {0}")]
    Io(#[from] io::Error),
    /// The answer is malformed.
    #[error("cannot decode the answer of the broker: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The broker refused the command.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the control socket.
pub struct ControlClient(BufReader<UnixStream>);

impl ControlClient {
    /// Creates a client over an open connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a command and waits for the result; `progress` receives progress reports.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn ask(
        &mut self,
        command: &Command,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Value, AskError> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            match serde_json::from_str::<Line<Value>>(&line)? {
                Line::Progress { done, total } => progress(done, total),
                Line::Ok(value) => return Ok(value),
                Line::Error(problem) => return Err(AskError::Refused(problem)),
            }
        }
    }
}
