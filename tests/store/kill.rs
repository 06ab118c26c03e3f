//! `kill -9` of a real process that writes as fast as it can: what it was told to be durable is there, in order, and
//! what it removed does not come back.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use petrel::durable::change::{Change, SessionChange};
use petrel::durable::message::SessionId;
use petrel::durable::{Batch, Durability, Store};

use crate::harness::*;

const DIRECTORY: &str = "PETREL_TEST_KILLED_STORE";
const QUEUES: u64 = 8;
const ROUNDS: u64 = 12;

/// Sixteen messages go in and eight come out with each batch.
const IN: u64 = 16;
const OUT: u64 = 8;

#[test]
fn nothing_durable_is_lost_by_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    // The longest waits first: later rounds start on a database that holds more.
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(directory.path(), Duration::from_millis(20 + 37 * round));
        let (store, loaded) = open(directory.path());
        let Some(last) = acknowledged else { continue };
        for queue in 0..QUEUES {
            let places = places(&store, queue);
            let first = places[0];
            let end = first + i64::try_from(places.len()).unwrap();
            assert!(places.iter().copied().eq(first..end), "queue {queue} has no holes");
            assert!(end as u64 >= (last + 1) * IN, "round {round}: queue {queue} lost its end");
            assert_eq!(first as u64, (end as u64 / IN) * OUT, "round {round}: a batch is whole");
            let session = find(&loaded, queue);
            assert_eq!(session.queue.message_count, places.len() as u64);
            assert_eq!(session.queue.end.0, end as u64);
        }
    }
}

/// Starts the writer, kills it after a while, and returns the last batch that it was told to be durable.
fn run_and_kill(directory: &Path, wait: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_process_to_be_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The test harness writes the name of the test in front of it.
    let opened = lines.by_ref().any(|line| line.ends_with("opened"));
    assert!(opened, "the process opens the store");
    let killer = std::thread::spawn(move || {
        // Not to wait for a condition, but to hit some moment of its work.
        std::thread::sleep(wait);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let last = lines.filter_map(|line| line.parse().ok()).last();
    killer.join().unwrap();
    last
}

/// Only the other test gives it a directory; by itself it has nothing to do.
#[test]
fn the_process_to_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (store, loaded) = open(Path::new(&directory));
    let mut next = loaded.sessions.first().map_or(0, |session| session.queue.end.0 / IN);
    let mut output = std::io::stdout();
    writeln!(output, "opened").unwrap();
    if loaded.sessions.is_empty() {
        commit(&store, (0..QUEUES).map(put_session).collect());
    }
    loop {
        let changes: Vec<Change> = (0..QUEUES).flat_map(|queue| changes(queue, next)).collect();
        let ticket =
            store.submit(Batch { changes, durability: Durability::Fsync, ..Batch::default() });
        wait_durable(&store, ticket);
        writeln!(output, "{next}").unwrap();
        next += 1;
    }
}

fn changes(queue: u64, batch: u64) -> Vec<Change> {
    let mut changes: Vec<Change> =
        (batch * IN..(batch + 1) * IN).map(|place| enqueue(queue, place)).collect();
    changes.extend((batch * OUT..(batch + 1) * OUT).map(|place| dequeue(queue, place)));
    if batch == 0 {
        // A Session of its own that is deleted again, so that ranges are deleted along the way.
        let other = SessionId(1000 + queue);
        let gone = SessionChange::Delete(other).into();
        changes.extend([put_session(other.0), enqueue(other.0, 0), gone]);
    }
    changes
}
