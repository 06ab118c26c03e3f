//! Backups of a store at rest and of a running one, and the way back.

use petrel::store::maintenance::{StoreCommand, run};
use std::cell::RefCell;

use crate::damage::command;
use crate::harness::*;

#[test]
fn a_running_store_is_backed_up_and_restored_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let backups = tempfile::tempdir().unwrap();
    let target = backups.path().join("monday");
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0), enqueue(1, 1)]);
    let steps = RefCell::new(Vec::new());
    let report =
        store.backup(&target, &|done, total| steps.borrow_mut().push((done, total))).unwrap();
    assert_eq!(
        steps.borrow().last(),
        Some(&(report.bytes, report.bytes)),
        "progress is shown to the end"
    );
    assert!(report.files > 5 && report.bytes > 1000);
    commit(&store, vec![enqueue(1, 2)]);
    assert!(store.backup(&target, &|_, _| ()).is_err(), "a backup is not written over");
    assert_eq!(places(&store, 1), [0, 1, 2]);

    let elsewhere = tempfile::tempdir().unwrap();
    let restore = StoreCommand::Restore { directory: target, force: false };
    command(&restore, elsewhere.path());
    let (copy, loaded) = open(elsewhere.path());
    assert_eq!(places(&copy, 1), [0, 1]);
    assert!(loaded.issuer.epoch() > 1000, "session ids of the original are not given out again");
}

#[test]
fn a_store_that_is_there_is_replaced_only_by_force_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let backups = tempfile::tempdir().unwrap();
    let target = backups.path().join("monday");
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0)]);
    store.close();
    command(&StoreCommand::Backup { directory: target.clone() }, directory.path());
    let (store, _) = open(directory.path());
    commit(&store, vec![enqueue(1, 1)]);
    store.close();

    let restore = StoreCommand::Restore { directory: target.clone(), force: false };
    let refused = run(&restore, directory.path(), &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    let restore = StoreCommand::Restore { directory: target, force: true };
    let (_, said) = command(&restore, directory.path());
    assert!(said.contains("replaced-"), "{said}");
    let (store, _) = open(directory.path());
    assert_eq!(places(&store, 1), [0]);
}

#[test]
fn a_spoilt_backup_is_refused_and_the_store_stays() {
    let directory = tempfile::tempdir().unwrap();
    let backups = tempfile::tempdir().unwrap();
    let target = backups.path().join("monday");
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0)]);
    store.backup(&target, &|_, _| ()).unwrap();
    store.close();
    let files = std::fs::read_dir(target.join("store")).unwrap().flatten();
    let largest = files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let restore = StoreCommand::Restore { directory: target, force: true };
    let refused = run(&restore, directory.path(), &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
    let (store, _) = open(directory.path());
    assert_eq!(places(&store, 1), [0]);
}
