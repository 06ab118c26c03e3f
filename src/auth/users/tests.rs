//! Tests of the users file.

use super::*;

/// The lowest cost that argon2 accepts: these tests are not about strength.
const CHEAP: HashCost = HashCost { memory_kib: 8, passes: 1, scram_iterations: 4096 };

fn users() -> Users {
    let mut users = Users::parse("", Path::new("users.txt")).unwrap();
    assert!(users.set("ann", "secret", CHEAP).unwrap());
    assert!(users.set("spiffe://a/b c", "pass word", CHEAP).unwrap());
    users
}

fn file(users: &Users) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.txt");
    std::fs::write(&path, users.to_text()).unwrap();
    (directory, path)
}

#[test]
fn users_survive_their_text_form() {
    let users = users();
    let text = users.to_text();
    assert!(!text.contains("secret\n") && !text.contains("pass word"), "{text}");
    let read = Users::parse(&text, Path::new("users.txt")).unwrap();
    assert_eq!(read.to_text(), text);
    assert_eq!(read.names().collect::<Vec<_>>(), [("ann", true), ("spiffe://a/b c", true)]);
    assert!(read.verify("ann", b"secret"));
    assert!(read.verify("spiffe://a/b c", b"pass word"));
    assert!(!read.verify("ann", b"pass word"));
    assert!(!read.verify("ann", b""));
    assert!(!read.verify("bob", b"secret"));
}

#[test]
fn a_password_can_be_changed_and_a_user_removed() {
    let mut users = users();
    assert!(!users.set("ann", "new", CHEAP).unwrap());
    assert!(users.verify("ann", b"new") && !users.verify("ann", b"secret"));
    assert!(users.remove("ann") && !users.remove("ann"));
    assert!(!users.verify("ann", b"new"));
}

#[test]
fn names_that_would_break_the_file_are_refused() {
    let mut users = users();
    for name in ["", "#ann", "@secret", "a\nb", "a\tb", &"x".repeat(256)] {
        assert!(matches!(users.set(name, "p", CHEAP), Err(UsersError::Name)), "{name:?}");
    }
}

#[test]
fn mistakes_name_their_line() {
    let ann = users().to_text().lines().nth(2).unwrap().to_owned();
    let cases = [
        ("ann".to_owned(), 2),
        ("ann:secret:".to_owned(), 2),
        (ann.replace("SCRAM", "SCROM"), 2),
        (format!("\n{ann}\n{ann}"), 4),
        ("@secret:AAAA".to_owned(), 2),
    ];
    for (text, expected) in cases {
        let error = Users::parse(&format!("# users\n{text}\n"), Path::new("users.txt"));
        let Err(UsersError::Line { line, .. }) = error else { panic!("{text}: {error:?}") };
        assert_eq!(line, expected, "{text}");
    }
}

/// The full hash runs once for a correct password; a wrong one is never remembered.
#[test]
fn a_right_password_is_quick_the_second_time() {
    let (_directory, path) = file(&users());
    let file = UsersFile::open(&path).unwrap();
    assert!(file.is_slow("ann", b"secret"));
    assert!(!file.verify("ann", b"wrong"));
    assert!(file.is_slow("ann", b"wrong"));
    assert!(file.verify("ann", b"secret"));
    assert!(!file.is_slow("ann", b"secret"));
    assert!(file.is_slow("ann", b"wrong"));
    assert!(!file.verify("ann", b"wrong"));
    assert!(!file.verify("bob", b"secret"));
}

#[test]
fn reloading_takes_changes_and_keeps_the_old_users_on_a_mistake() {
    let mut users = users();
    let (_directory, path) = file(&users);
    let file = UsersFile::open(&path).unwrap();
    assert!(file.verify("ann", b"secret"));

    users.set("ann", "new", CHEAP).unwrap();
    std::fs::write(&path, users.to_text()).unwrap();
    assert_eq!(file.reload().unwrap(), 1);
    assert!(file.is_changed_since("ann", 0) && !file.is_changed_since("spiffe://a/b c", 0));
    assert!(!file.is_changed_since("ann", file.revision()));
    assert!(!file.verify("ann", b"secret"), "what was remembered is forgotten");
    assert!(file.verify("ann", b"new"));

    std::fs::write(&path, "nonsense").unwrap();
    assert!(file.reload().is_err());
    assert!(file.verify("ann", b"new"));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(file.reload(), Err(UsersError::Unreadable { .. })));
}

/// An attacker must not learn names from the time of a refusal: both cases run the same computation.
#[test]
fn an_unknown_user_costs_as_much_as_a_wrong_password() {
    let cost = HashCost { memory_kib: 64, passes: 3, scram_iterations: 4096 };
    let mut users = Users::parse("", Path::new("users.txt")).unwrap();
    let default = params_of(&users.nobodys_hash()).unwrap();
    assert_eq!(default.m_cost(), HashCost::default().memory_kib);
    users.set("ann", "secret", cost).unwrap();
    let (known, unknown) = (users.users["ann"].hash.clone(), users.nobodys_hash());
    let [known, unknown] = [&known, &unknown].map(|hash| PasswordHash::new(hash).unwrap());
    assert_eq!(params_of(&known.to_string()), params_of(&unknown.to_string()));
    assert_eq!(known.algorithm, unknown.algorithm);
    assert_eq!(known.salt.unwrap().as_str().len(), unknown.salt.unwrap().as_str().len());
    assert_eq!(known.hash.unwrap().len(), unknown.hash.unwrap().len());
    for hash in [known, unknown] {
        let refused = Argon2::default().verify_password(b"wrong", &hash).unwrap_err();
        assert_eq!(refused, argon2::password_hash::Error::Password, "computed, and different");
    }
    assert!(!users.verify("bob", b"wrong") && !users.verify("ann", b"wrong"));
    assert!(users.verify("ann", b"secret"));
}

#[test]
fn the_fake_verifier_stays_the_same_across_restarts() {
    let (_directory, path) = file(&users());
    let verifier = || Arc::new(UsersFile::open(&path).unwrap()).verifier("bob");
    assert_eq!(verifier(), verifier());
}

/// Unchanged users are not affected: their passwords are still checked quickly, and they do not count as changed.
#[test]
fn users_that_stay_keep_what_was_learned_of_them() {
    let mut users = users();
    users.set("cid", "secret", CHEAP).unwrap();
    let (_directory, path) = file(&users);
    let file = UsersFile::open(&path).unwrap();
    assert!(file.verify("ann", b"secret") && file.verify("cid", b"secret"));
    users.remove("cid");
    users.set("new", "secret", CHEAP).unwrap();
    std::fs::write(&path, users.to_text()).unwrap();
    assert_eq!(file.reload().unwrap(), 1);
    assert!(!file.is_slow("ann", b"secret"));
    assert!(!file.verify("cid", b"secret"));
    let changed = ["ann", "cid", "new"].map(|name| file.is_changed_since(name, 0));
    assert_eq!(changed, [false, true, false]);
    assert_eq!(file.reload().unwrap(), 0);
}

/// Editors may add these.
#[test]
fn a_byte_order_mark_carriage_returns_and_blanks_are_read_over() {
    let text = users().to_text();
    let edited = format!("\u{feff}{}", text.replace('\n', " \t \r\n"));
    let read = Users::parse(&edited, Path::new("users.txt")).unwrap();
    assert_eq!(read.to_text(), text);
    let blank = Users::parse("\u{feff}\r\n  \r\n# comment  \r\n", Path::new("users.txt"));
    assert_eq!(blank.unwrap().names().count(), 0);
}
