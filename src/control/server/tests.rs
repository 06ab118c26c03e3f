//! The socket with a target that echoes.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::control::client::ControlClient;
use crate::control::command::{
    Answer, CommandError, ProgressSender, Reply, SessionPage, SessionQuery,
};
use serde_json::Value;

struct Echo;

impl CommandTarget for Echo {
    fn handle(&self, command: Command, progress: ProgressSender) -> Answer<'_> {
        Box::pin(async move {
            match command {
                Command::Sessions(_) => Ok(Reply::Sessions(SessionPage::default())),
                Command::Backup { .. } => {
                    for done in 1..=3 {
                        progress
                            .send((done, 3))
                            .await
                            .map_err(|e| CommandError::Bug(e.to_string()))?;
                    }
                    Ok(Reply::Done)
                }
                _ => Err(CommandError::StoreInMemory),
            }
        })
    }
}

fn start(path: &Path) -> tokio::task::JoinHandle<()> {
    tokio::spawn(ControlListener::bind(path).unwrap().run(Arc::new(Echo)))
}

async fn ask_for(path: &Path, command: Command) -> (Result<Value, String>, Vec<(u64, u64)>) {
    let path = path.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let mut steps = Vec::new();
        let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        let answer =
            ControlClient::new(stream).ask(&command, |done, total| steps.push((done, total)));
        (answer.map_err(|error| error.to_string()), steps)
    });
    asking.await.unwrap()
}

#[tokio::test]
async fn commands_are_answered_with_result_error_and_progress() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _server = start(&path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let sessions = Command::Sessions(SessionQuery::default());
    let (answer, _) = ask_for(&path, sessions.clone()).await;
    assert_eq!(answer.unwrap(), serde_json::json!({"sessions": [], "next": null}));
    let (answer, _) = ask_for(&path, Command::Reload).await;
    assert!(answer.unwrap_err().contains("nothing to back up"));
    let backup = Command::Backup { directory: "/x".into() };
    let (answer, steps) = ask_for(&path, backup).await;
    assert_eq!(answer, Ok(Value::Null));
    assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = start(&path);
    assert!(ask_for(&path, Command::Sessions(SessionQuery::default())).await.0.is_ok());
    assert!(matches!(ControlListener::bind(&path), Err(ControlError::InUse(_))));
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket goes with its listener");
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(ControlListener::bind(&path), Err(ControlError::NotASocket(_))));
}

#[tokio::test]
async fn nonsense_is_answered_and_too_much_of_it_ends_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _server = start(&path);
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.get_mut().write_all(b"what?\n").await.unwrap();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.contains("invalid command"), "{line}");
    line.clear();
    stream.get_mut().write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).await.unwrap();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.contains("longer than"), "{line}");
    line.clear();
    assert_eq!(stream.read_line(&mut line).await.unwrap_or(0), 0);
}
