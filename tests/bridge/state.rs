//! What bridges of others say about themselves: only they may, and whoever needs it to connect can.

use crate::process::{Broker, Subscriber, eventually, has_mosquitto};

/// mosquitto's bridges publish their state retained, and as their Will, to a topic that is closed to all other Clients: with
/// the bridge bit of 3.x, and without it where they may not try it or speak 5.0.
#[test]
fn mosquittos_bridges_publish_their_state() {
    if !has_mosquitto() {
        return;
    }
    for (version, private) in [("mqttv311", true), ("mqttv311", false), ("mqttv50", false)] {
        let petrel = Broker::petrel("");
        let states = ["-t", "$SYS/broker/connection/+/state", "-q", "1", "-F", "%t %p"];
        let watcher = Subscriber::new(&petrel, &states);
        let mosquitto = Broker::mosquitto(&format!(
            "connection m\nremote_clientid far.m\naddress 127.0.0.1:{}\nbridge_protocol_version {version}\n\
             try_private {private}\ntopic a/# out 1\n",
            petrel.port
        ));
        let topic = "$SYS/broker/connection/far.m/state";
        eventually("the bridge says that it is there", || {
            watcher.lines().contains(&format!("{topic} 1"))
        });
        drop(mosquitto);
        eventually("it is said that the bridge has gone", || {
            watcher.lines().contains(&format!("{topic} 0"))
        });
    }
}
