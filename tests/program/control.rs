//! `petrel ctl` finds the broker that runs, wherever it is called from, and says where it looked.

use super::{Broker, errors, petrel, text};

#[test]
fn the_socket_is_found_by_variable_by_configuration_and_by_place() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = home.path().join("state");
    let data = data.to_str().unwrap();
    let _broker = Broker::start(home.path(), &[("PETREL_DATA_DIR", data)]);

    let status = ["ctl", "status"];
    let by_variable =
        petrel(elsewhere.path(), &status).env("PETREL_DATA_DIR", data).output().unwrap();
    assert!(text(&by_variable).contains("uptime_seconds"), "{}", errors(&by_variable));

    let file = elsewhere.path().join("petrel.toml");
    std::fs::write(&file, format!("data_dir = \"{data}\"\n")).unwrap();
    let by_file = ["ctl", "--config", file.to_str().unwrap(), "status"];
    let by_file = petrel(elsewhere.path(), &by_file).output().unwrap();
    assert!(text(&by_file).contains("uptime_seconds"), "{}", errors(&by_file));

    // As `petrel serve` would find it, in the directory where both are started.
    std::fs::create_dir(elsewhere.path().join("config")).unwrap();
    std::fs::rename(&file, elsewhere.path().join("config/petrel.toml")).unwrap();
    let by_place = petrel(elsewhere.path(), &status).output().unwrap();
    assert!(text(&by_place).contains("uptime_seconds"), "{}", errors(&by_place));
}

#[test]
fn where_no_broker_answers_every_place_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = petrel(directory.path(), &["ctl", "--socket", "none.sock", "status"]).output();
    let said = errors(&output.unwrap());
    assert!(said.contains("tried:\n  none.sock: does not exist"), "{said}");
    let mut command = petrel(directory.path(), &["ctl", "status"]);
    let said = errors(&command.env("PETREL_CONTROL__SOCKET", "no.sock").output().unwrap());
    assert!(said.contains("./data/no.sock: does not exist"), "{said}");
    assert!(said.contains("/var/lib/petrel/no.sock: "), "{said}");
}
