//! What the broker says at its start is there to be pasted.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::{Broker, DEADLINE};

/// Runs a printed command somewhere else, with nothing of ours on the path.
fn paste(directory: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", line.trim())]).current_dir(directory);
    command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// `make run` starts a program that is not on the path, and so does everybody who has just built it. The commands were
/// printed as if it were.
#[test]
fn the_printed_commands_work_where_petrel_is_not_on_the_path() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = env!("CARGO_BIN_EXE_petrel");
    std::os::unix::fs::symlink(program, home.path().join("petrel")).unwrap();
    for called in [program, "./petrel"] {
        let mut start = Command::new("sh");
        start.args(["-c", &format!("exec {called} serve")]).current_dir(home.path());
        let broker = Broker::start_by(start, home.path(), &[]);
        let line = |word: &str| broker.welcome.lines().find(|line| line.contains(word)).unwrap();
        let mut subscriber = paste(elsewhere.path(), line(" sub "));
        let mut subscriber = subscriber.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(subscriber.stdout.take().unwrap());
        let (first, heard) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            first.send(line).unwrap();
        });
        // The first one may come before the subscriber.
        let started = Instant::now();
        let line_heard = loop {
            assert!(started.elapsed() < DEADLINE, "nothing arrives");
            let status = paste(elsewhere.path(), line(" pub ")).status().unwrap();
            assert!(status.success(), "{called}: {}", broker.welcome);
            if let Ok(line) = heard.recv_timeout(Duration::from_millis(200)) {
                break line;
            }
            assert!(subscriber.try_wait().unwrap().is_none(), "{called}: {}", broker.welcome);
        };
        assert_eq!(line_heard, "hello/world good morning\n");
        reader.join().unwrap();
        subscriber.kill().unwrap();
        subscriber.wait().unwrap();
    }
}
