//! Damaged files: the store starts with what can be read, sets the rest aside and says what was lost.

use std::path::{Path, PathBuf};

use petrel::durable::Store;
use petrel::durable::change::RetainedChange;
use petrel::store::maintenance::{Health, StoreCommand, run};

use crate::harness::*;

const SESSIONS: u64 = 20;
const MESSAGES: u64 = 200;

/// A store with files, not only a log.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, (0..SESSIONS).map(put_session).collect());
    for place in 0..MESSAGES {
        commit(&store, (0..SESSIONS).map(|session| enqueue(session, place)).collect());
    }
    commit(&store, vec![RetainedChange::Put(message(1, b"on"))]);
    store.close();
    // Opening turns the log into files.
    open(directory.path()).0.close();
    directory
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("store")).unwrap().flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    paths
}

fn spoil(path: &Path, at: impl Fn(usize) -> std::ops::Range<usize>) {
    let mut bytes = std::fs::read(path).unwrap();
    let range = at(bytes.len());
    for byte in &mut bytes[range] {
        *byte ^= 0x5A;
    }
    std::fs::write(path, bytes).unwrap();
}

fn messages(store: &dyn Store) -> usize {
    (0..SESSIONS).map(|session| places(store, session).len()).sum()
}

#[test]
fn a_damaged_block_costs_what_is_in_it_and_no_more() {
    let directory = filled();
    spoil(&files(directory.path(), "sst")[0], |length| length / 3..length / 3 + 64);
    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.sessions.len(), SESSIONS as usize);
    // Opening reads only a part of the queues: reading comes across the damage, and the writer sets the file aside.
    let read = |session| {
        use petrel::durable::message::{Sequence, SessionId};
        let (from, to) = (Sequence(0), Sequence(u64::MAX));
        store.read_queue(SessionId(session), from, to, usize::MAX, usize::MAX).is_ok()
    };
    let all = || (0..SESSIONS).all(read);
    wait_until("every queue can be read", all);
    let left = messages(&store) as u64;
    // The 64 bytes lie in two neighbouring blocks at most.
    assert!((SESSIONS * MESSAGES - 1000..SESSIONS * MESSAGES).contains(&left), "{left} left");
    // And it goes on.
    commit(&store, vec![enqueue(3, 1000)]);
    assert_eq!(places(&store, 3).last(), Some(&1000));
    let of_one = places(&store, 3).len();
    store.close();
    let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
    let aside: Vec<_> = aside
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"))
        .flat_map(|entry| std::fs::read_dir(entry.path()).unwrap().flatten())
        .collect();
    assert_eq!(aside.len(), 1);
    let (store, loaded) = open(directory.path());
    assert_eq!(find(&loaded, 3).queue.message_count, of_one as u64);
    assert_eq!(places(&store, 3).len(), of_one);
}

#[test]
fn each_file_in_turn_may_be_cut_missing_or_spoilt_and_the_store_opens() {
    let directory = filled();
    let count = files(directory.path(), "sst").len();
    assert!(count >= 5, "{count} files");
    for position in 0..count {
        for harm in ["cut", "missing", "spoilt"] {
            let image = crash_image(directory.path());
            let path = &files(image.path(), "sst")[position];
            let bytes = std::fs::read(path).unwrap();
            match harm {
                "cut" => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                "missing" => std::fs::remove_file(path).unwrap(),
                _ => spoil(path, |length| 0..length),
            }
            let (store, _) = open(image.path());
            assert!(store.report().has_losses(), "{harm} {position}");
            commit(&store, vec![put_session(100), enqueue(100, 0)]);
            store.close();
            let (store, _) = open(image.path());
            assert!(!store.report().has_losses(), "{harm} {position}: mended for good");
            assert_eq!(places(&store, 100), [0]);
        }
    }
}

#[test]
fn a_spoilt_list_of_files_is_rebuilt_without_loss() {
    for harm in ["spoilt manifest", "no manifest", "no current", "empty current"] {
        let directory = filled();
        let store = directory.path().join("store");
        let manifest = std::fs::read_dir(&store).unwrap().flatten().map(|entry| entry.path());
        let mut manifest = manifest.filter(|path| path.to_string_lossy().contains("MANIFEST"));
        let manifest = manifest.next().unwrap();
        match harm {
            "spoilt manifest" => spoil(&manifest, |length| 0..length),
            "no manifest" => std::fs::remove_file(&manifest).unwrap(),
            "no current" => std::fs::remove_file(store.join("CURRENT")).unwrap(),
            _ => std::fs::write(store.join("CURRENT"), "").unwrap(),
        }
        let (store, loaded) = open(directory.path());
        assert!(store.report().rebuilt, "{harm}");
        assert_eq!(loaded.sessions.len(), SESSIONS as usize, "{harm}");
        assert_eq!(loaded.retained.len(), 1, "{harm}");
        assert_eq!(messages(&store) as u64, SESSIONS * MESSAGES, "{harm}");
    }
}

#[test]
fn a_rebuilt_list_loses_nothing_of_the_log() {
    let directory = filled();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(50), enqueue(50, 0), dequeue(3, 0)]);
    let image = crash_image(directory.path());
    std::fs::remove_file(image.path().join("store/CURRENT")).unwrap();
    let (copy, loaded) = open(image.path());
    assert_eq!(places(&copy, 50), [0]);
    assert_eq!(places(&copy, 3).len() as u64, MESSAGES - 1);
    assert_eq!(find(&loaded, 3).queue.message_count, MESSAGES - 1);
}

#[test]
fn check_finds_what_repair_mends() {
    let directory = filled();
    assert_eq!(command(&StoreCommand::Check, directory.path()).0, Health::Sound);
    let (_, stats) = command(&StoreCommand::Stats, directory.path());
    assert!(stats.contains(&format!("{} messages", SESSIONS * MESSAGES)), "{stats}");
    spoil(&files(directory.path(), "sst")[0], |length| length / 3..length / 3 + 64);
    let (health, said) = command(&StoreCommand::Check, directory.path());
    assert_eq!(health, Health::Damaged, "{said}");
    let (health, said) = command(&StoreCommand::Repair, directory.path());
    assert_eq!(health, Health::Sound);
    assert!(said.contains("set aside 1 files"), "{said}");
    let (health, said) = command(&StoreCommand::Check, directory.path());
    assert_eq!(health, Health::Sound, "{said}");
}

#[test]
fn maintenance_refuses_a_running_broker() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, _) = open(directory.path());
    let refused = run(&StoreCommand::Check, directory.path(), &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
}

pub(crate) fn command(command: &StoreCommand, directory: &Path) -> (Health, String) {
    let mut output = Vec::new();
    let health = run(command, directory, &mut output).unwrap();
    (health, String::from_utf8(output).unwrap())
}
