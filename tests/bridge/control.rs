//! Bridges are changed while the broker runs.

use crate::port::free_port;
use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto};

#[test]
fn bridges_are_added_paused_resumed_changed_and_removed() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let local = Broker::petrel("");
    assert_eq!(local.ctl(&["bridge", "list"]).unwrap(), serde_json::json!([]));
    let file = local.path().join("bridge.toml");
    let add = |topics: &[&str], arguments: &[&str]| {
        let text = bridge(remote.port, "5.0", topics, "").replace("[[bridge]]\n", "");
        std::fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        local.ctl(&[&["bridge", "add", "--file", &path], arguments].concat())
    };
    add(&["one out 1"], &[]).unwrap();
    local.wait_connected("b");
    assert!(add(&["one out 1"], &[]).unwrap_err().contains("--replace"));
    assert!(add(&["one sideways"], &["--replace"]).unwrap_err().contains("topics[0]"));
    let far = Subscriber::new(&remote, &["-t", "+", "-q", "1", "-F", "%t %p"]);
    local.publish(&["-t", "one", "-q", "1", "-m", "a"]);
    far.wait_for(1);
    local.ctl(&["bridge", "pause", "b"]).unwrap();
    eventually("paused", || local.bridge("b", "state") == "paused");
    local.publish(&["-t", "one", "-q", "1", "-m", "b"]);
    assert_eq!(local.bridge("b", "queue_messages"), 1);
    // Changed while paused: it stays paused, and its queue stays.
    add(&["one out 1", "two out 1"], &["--replace"]).unwrap();
    eventually("still paused", || local.bridge("b", "state") == "paused");
    local.publish(&["-t", "two", "-q", "1", "-m", "c"]);
    eventually("both wait", || local.bridge("b", "queue_messages") == 2);
    local.ctl(&["bridge", "resume", "b"]).unwrap();
    assert_eq!(far.wait_for(3), ["one a", "one b", "two c"]);
    // A rule that is gone brings nothing more.
    add(&["two out 1"], &["--replace"]).unwrap();
    local.wait_connected("b");
    local.publish(&["-t", "one", "-q", "1", "-m", "d"]);
    local.publish(&["-t", "two", "-q", "1", "-m", "e"]);
    far.wait_for(4);
    assert_eq!(far.settle().last().unwrap(), "two e");
    local.ctl(&["bridge", "remove", "b"]).unwrap();
    assert!(local.ctl(&["bridge", "show", "b"]).unwrap_err().contains("no bridge"));
    let sessions = local.ctl(&["sessions", "--prefix", "$bridge/"]).unwrap();
    assert_eq!(sessions.as_array().unwrap().len(), 1, "its queue stays");
    add(&["two out 1"], &[]).unwrap();
    local.wait_connected("b");
    local.ctl(&["bridge", "remove", "b", "--purge"]).unwrap();
    let sessions = local.ctl(&["sessions", "--prefix", "$bridge/"]).unwrap();
    assert_eq!(sessions, serde_json::json!([]), "its queue is gone");
    assert!(local.ctl(&["status"]).unwrap()["uptime_seconds"].is_u64());
}

#[test]
fn sighup_changes_bridges_and_leaves_the_others_and_all_clients_alone() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let one = bridge(remote.port, "5.0", &["one out 1"], "");
    let other = |topic: &str| {
        bridge(remote.port, "5.0", &[topic], "client_id = \"other\"").replace("\"b\"", "\"other\"")
    };
    let local = Broker::petrel(&format!("{one}{}", other("two out 1")));
    local.wait_connected("b");
    local.wait_connected("other");
    let client = Subscriber::new(&local, &["-t", "stay", "-F", "%p"]);
    local.configure(&format!("{one}{}", other("three out 1")));
    local.hang_up();
    let far = Subscriber::new(&remote, &["-t", "+", "-q", "1", "-F", "%t"]);
    eventually("the changed bridge has its new rule", || {
        let topics = local.bridge("other", "topics").to_string();
        topics.contains("three") && local.bridge("other", "state") == "connected"
    });
    assert_eq!(local.bridge("b", "connects"), 1, "the other one was not touched");
    local.publish(&["-t", "three", "-q", "1", "-m", "x"]);
    far.wait_for(1);
    local.publish(&["-t", "stay", "-m", "still here"]);
    assert_eq!(client.wait_for(1), ["still here"]);
    local.configure(&one);
    local.hang_up();
    eventually("the removed one is gone", || local.ctl(&["bridge", "show", "other"]).is_err());
}

#[test]
fn nobody_else_takes_over_the_session_of_a_bridge() {
    if !has_mosquitto() {
        return;
    }
    let local = Broker::petrel(&bridge(free_port(), "5.0", &["a out 1"], ""));
    let tried = std::process::Command::new("mosquitto_pub")
        .args(["-p", &local.port.to_string(), "-i", "$bridge/b", "-t", "x", "-m", "y"])
        .output()
        .unwrap();
    assert!(!tried.status.success());
}
