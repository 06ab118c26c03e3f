//! The state after a kill: opens a copy of the files, taken while the store runs.

use petrel::durable::Store;
use petrel::durable::change::SessionChange;
use petrel::durable::message::{Sequence, SessionId};

use crate::harness::*;

#[test]
fn counts_and_positions_are_exact_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1)]);
    let mut next = 0;
    let mut oldest = 0;
    for round in 1..40_u64 {
        let adds = round % 7 + 3;
        commit(&store, (next..next + adds).map(|place| enqueue(1, place)).collect());
        next += adds;
        let removes = round % 5;
        commit(&store, (oldest..oldest + removes).map(|place| dequeue(1, place)).collect());
        oldest += removes;
        if round % 10 == 0 {
            let image = crash_image(directory.path());
            let (copy, loaded) = open(image.path());
            let session = find(&loaded, 1);
            assert_eq!(session.queue.message_count, next - oldest);
            assert_eq!((session.queue.start.0, session.queue.end.0), (oldest, next));
            assert_eq!(places(&copy, 1).len() as u64, next - oldest);
        }
    }
}

#[test]
fn a_torn_log_loses_only_its_last_writes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1)]);
    for place in 0..50 {
        commit(&store, vec![enqueue(1, place)]);
    }
    let image = crash_image(directory.path());
    let log = newest_log(image.path());
    let bytes = std::fs::read(&log).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in [1, 20, 100, 900] {
        std::fs::write(&log, &bytes[..written - cut]).unwrap();
        let torn = crash_image(image.path());
        let (copy, loaded) = open(torn.path());
        let found = places(&copy, 1);
        let expected: Vec<i64> = (0..i64::try_from(found.len()).unwrap()).collect();
        assert_eq!(found, expected, "a prefix is left");
        assert!(found.len() < 50 && found.len() > 30, "{} are left", found.len());
        assert_eq!(find(&loaded, 1).queue.message_count, found.len() as u64);
        assert_eq!(find(&loaded, 1).queue.end, Sequence(found.len() as u64));
    }
}

#[test]
fn a_queue_whose_session_never_became_durable_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0), enqueue(2, 0), enqueue(3, 0)]);
    let image = crash_image(directory.path());
    let (copy, loaded) = open(image.path());
    assert_eq!(copy.report().orphaned_queues, 2);
    assert_eq!(loaded.sessions.len(), 1);
    copy.close();
    let (copy, _) = open(image.path());
    assert_eq!(copy.report().orphaned_queues, 0);
}

#[test]
fn a_session_deleted_and_a_kill_do_not_bring_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0)]);
    commit(&store, vec![SessionChange::Delete(SessionId(1))]);
    let image = crash_image(directory.path());
    let (copy, loaded) = open(image.path());
    assert!(loaded.sessions.is_empty());
    assert!(copy.read_queue(SessionId(1), Sequence(0), Sequence(9), 9, 9).unwrap().is_empty());
}

fn newest_log(data_dir: &std::path::Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(data_dir.join("store")).unwrap().flatten();
    let logs = files.map(|file| file.path());
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|name| name == "log");
    logs.filter(is_log).max().unwrap()
}
