//! The server side of the control socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::control::command::{Command, CommandTarget};
use crate::control::protocol::{LINE_BYTES_MAX, Line};

/// Simultaneous connections.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after a failed accept, so that a lack of file descriptors does not cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another broker answers there.
    #[error(
        "{0}: another broker listens on this control socket; give [control] socket another name"
    )]
    InUse(PathBuf),
    /// Something else is in the way.
    #[error("{0} exists and is not a socket; remove it or give [control] socket another name")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot create the control socket {path}: {source}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket. Its file goes with it.
pub(crate) struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlListener {
    /// Makes the socket, with mode 0600 from its first moment on: it is made under another name and renamed. A socket
    /// that a killed broker left behind is replaced.
    ///
    /// # Errors
    /// [`ControlError`]
    pub(crate) fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(ControlError::NotASocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ControlError::InUse(path.to_owned()));
            }
        }
        let draft = path.with_extension(format!("new{}", std::process::id()));
        let _left_behind = std::fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft).map_err(failed)?;
        let made = std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&draft, path));
        if let Err(error) = made {
            let _left_behind = std::fs::remove_file(&draft);
            return Err(failed(error));
        }
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until dropped.
    pub(crate) async fn run(self, target: Arc<dyn CommandTarget>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let target = Arc::clone(&target);
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &*target).await {
                            tracing::debug!(%error, "a control connection was lost");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, target: &dyn CommandTarget) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let mut limited = (&mut reader).take(limit);
        let read = limited.read_until(b'\n', &mut line);
        let Ok(read) = tokio::time::timeout(IDLE_TIMEOUT, read).await else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        if line.len() > LINE_BYTES_MAX {
            let problem = "the command is longer than 1 MiB".to_owned();
            return write(&mut writer, &Line::<()>::Error(problem)).await;
        }
        answer(&line, target, &mut writer).await?;
    }
}

async fn answer(
    line: &[u8],
    target: &dyn CommandTarget,
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let command = match serde_json::from_slice::<Command>(line) {
        Ok(command) => command,
        Err(error) => {
            return write(writer, &Line::<()>::Error(format!("invalid command: {error}"))).await;
        }
    };
    let (progress, mut steps) = mpsc::channel(16);
    let mut answer = target.handle(command, progress);
    let result = loop {
        tokio::select! {
            biased;
            Some((done, total)) = steps.recv() => {
                write(writer, &Line::<()>::Progress { done, total }).await?;
            }
            result = &mut answer => break result,
        }
    };
    while let Ok((done, total)) = steps.try_recv() {
        write(writer, &Line::<()>::Progress { done, total }).await?;
    }
    let last = match result {
        Ok(reply) => Line::Ok(reply),
        Err(error) => Line::Error(error.to_string()),
    };
    write(writer, &last).await
}

async fn write(
    writer: &mut (impl AsyncWriteExt + Unpin),
    line: &Line<impl Serialize>,
) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    writer.write_all(&bytes).await
}

#[cfg(test)]
mod tests;
