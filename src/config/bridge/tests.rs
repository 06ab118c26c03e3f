//! Bridges as people write them, right and wrong.

use super::*;

#[derive(Deserialize)]
struct Whole {
    bridge: Vec<BridgeFile>,
}

fn check(text: &str) -> Result<BridgeSettings, BridgeError> {
    let file: BridgeFile = toml::from_str(text).unwrap();
    BridgeSettings::check(&file, "host")
}

fn problem(extra: &str) -> (String, String) {
    let text = format!("name = \"b\"\naddresses = [\"h\"]\ntopics = [\"#\"]\n{extra}");
    let error = check(&text).unwrap_err();
    (error.key, error.problem)
}

#[test]
fn name_address_and_topics_are_enough() {
    let settings =
        check("name = \"cloud\"\naddresses = [\"mqtts://a.b\"]\ntopics = [\"s/# out 1\"]").unwrap();
    assert_eq!(settings.client_id, "cloud.host");
    assert_eq!(settings.notification_topic, "$SYS/broker/connection/cloud.host/state");
    assert_eq!(settings.session_expiry_seconds, u32::MAX);
    assert!(!settings.clean_start);
    assert_eq!(settings.tls.verify, Verify::Full);
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(check("").unwrap_err().key, "name");
    assert_eq!(check("name = \"a b\"").unwrap_err().key, "name");
    assert_eq!(check("name = \"b\"").unwrap_err().key, "addresses");
    assert_eq!(check("name = \"b\"\naddresses = [\"h\"]").unwrap_err().key, "topics");
}

#[test]
fn mistakes_name_key_and_cure() {
    for (extra, key, cure) in [
        ("protocol = \"4.0\"", "protocol", "5.0"),
        ("exclude = [\"a#\"]", "exclude[0]", "topic filter"),
        ("keep_alive = 0", "keep_alive", "out of range"),
        ("backoff_min = \"1m\"\nbackoff_max = \"1s\"", "backoff_max", "backoff_min"),
        ("connections = 65", "connections", "1 to 64"),
        ("username = \"u\"\nusername_file = \"f\"", "username", "not both"),
        ("protocol = \"3.1.1\"\npassword = \"p\"", "username", "5.0"),
        ("bind_address = \"eth0\"", "bind_address", "IP address"),
        ("session_expiry = \"soon\"", "session_expiry", "never"),
        ("max_packet = \"10B\"", "max_packet", "1KiB"),
        ("[tls]\nca_file = \"ca.pem\"", "tls", "mqtts://"),
        ("[tls]\ncertificate = \"c.pem\"", "tls.key", "together"),
        ("[tls]\nmin_version = \"1.1\"", "tls.min_version", "1.2"),
        ("[queue]\noverflow = \"burn\"", "queue.overflow", "drop-oldest"),
        ("notification_topic = \"a/#\"", "notification_topic", "topic name"),
        ("protocol = \"3.1\"\nclient_id = \"abcdefghijklmnopqrstuvwxyz\"", "client_id", "23"),
    ] {
        let (found, problem) = problem(extra);
        assert_eq!(found, key, "{extra}: {problem}");
        assert!(problem.contains(cure), "{extra}: {problem}");
    }
}

#[test]
fn a_bad_rule_is_found_by_its_number() {
    let error =
        check("name = \"b\"\naddresses = [\"h\"]\ntopics = [\"a\", \"b out 9\"]").unwrap_err();
    assert_eq!(error.to_string(), "bridge \"b\": topics[1]: \"9\" is not a QoS; write 0, 1 or 2");
}

#[test]
fn unknown_keys_are_errors() {
    assert!(toml::from_str::<BridgeFile>("adress = [\"h\"]").is_err());
    assert!(toml::from_str::<BridgeFile>("[tls]\ncafile = \"x\"").is_err());
}

#[test]
fn two_bridges_need_two_names_and_two_client_ids() {
    let one = "[[bridge]]\nname = \"a\"\naddresses = [\"h\"]\ntopics = [\"#\"]\n";
    let check = |text: String| {
        BridgeSettings::check_all(&toml::from_str::<Whole>(&text).unwrap().bridge, "host")
    };
    assert_eq!(check(format!("{one}{one}")).unwrap_err().key, "name");
    let same_id = one.replace("\"a\"", "\"b\"\nclient_id = \"a.host\"");
    assert_eq!(check(format!("{one}{same_id}")).unwrap_err().key, "client_id");
    let other = one.replace("\"a\"", "\"b\"");
    assert_eq!(check(format!("{one}{other}")).unwrap().len(), 2);
}

#[test]
fn secrets_are_not_shown() {
    let settings = check(
        "name = \"b\"\naddresses = [\"h\"]\ntopics = [\"#\"]\nusername = \"u\"\npassword = \"hunter2\"",
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn every_default_survives_being_written_and_read() {
    let text = toml::to_string(&BridgeFile::default()).unwrap();
    assert_eq!(toml::from_str::<BridgeFile>(&text).unwrap(), BridgeFile::default());
}
