//! Users that change while the broker runs, and passwords that many ask about at once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::broker::{Broker, eventually, unique};
use crate::client::Client;
use crate::packet::{ALL, Connect, V5, V311, Version};

/// A broker with a users file.
struct Users {
    broker: Broker,
    file: PathBuf,
}

impl Users {
    /// With these users, whose password is `secret`. `cost` are options of `petrel passwd`.
    fn start(names: &[&str], cost: &[&str], listener: &str) -> Option<Self> {
        if std::env::var_os("PETREL_TEST_BROKER").is_some() {
            return None;
        }
        let directory = std::env::temp_dir().join(unique("petrel-test-users-"));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("users");
        for name in names {
            passwd(&file, name, "secret", cost);
        }
        let extra = format!("auth.users_file = {file:?}\n{listener}");
        Some(Self { broker: Broker::start_closed(&extra), file })
    }

    fn client(&self, version: Version, name: &str) -> Client {
        let connect = Connect::new(version, unique(name)).user(name).password("secret");
        Client::connect_to(&self.broker.address, &connect)
    }

    fn reload(&self) {
        let before = self.broker.log().matches("bridges are up to date").count();
        self.broker.signal("-HUP");
        eventually("the broker has read its users again", || {
            self.broker.log().matches("bridges are up to date").count() > before
        });
    }
}

const CHEAP: [&str; 4] = ["--memory", "64", "--passes", "1"];

fn passwd(file: &Path, name: &str, password: &str, cost: &[&str]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_petrel"))
        .arg("passwd")
        .arg(file)
        .args([name, "--stdin"])
        .args(cost)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn remove(file: &Path, name: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let rest = text.lines().filter(|line| !line.starts_with(&format!("{name}:")));
    std::fs::write(file, rest.collect::<Vec<_>>().join("\n")).unwrap();
}

/// Once a user that was removed stayed connected for as long as it liked.
#[test]
fn users_that_are_removed_or_changed_are_disconnected_on_reload() {
    let Some(users) = Users::start(&["ann", "bob", "cid"], &CHEAP, "") else { return };
    for version in ALL {
        let mut ann = users.client(version, "ann");
        let mut bob = users.client(version, "bob");
        let mut cid = users.client(version, "cid");
        users.reload();
        for client in [&mut ann, &mut bob, &mut cid] {
            client.expect_nothing();
        }
        remove(&users.file, "ann");
        passwd(&users.file, "bob", "other", &CHEAP);
        users.reload();
        ann.expect_error(0x87);
        bob.expect_error(0x87);
        cid.expect_nothing();
        let mut gone = Client::open_to(&users.broker.address, version);
        gone.send(Connect::new(version, unique("c")).user("ann").password("secret").encode());
        assert_ne!(gone.expect_connack().reason, 0);
        passwd(&users.file, "ann", "secret", &CHEAP);
        passwd(&users.file, "bob", "secret", &CHEAP);
        users.reload();
        cid.expect_nothing();
        users.client(version, "ann").settle();
    }
}

/// [MQTT-3.1.4-2] A password without a name is nobody's; an empty name with nothing behind it is none.
#[test]
fn an_empty_name_is_anonymous_and_a_password_needs_a_name() {
    let port = crate::port::free_port();
    let open = format!("127.0.0.1:{port}");
    let listener =
        format!("[[listener]]\nname = \"open\"\nlisten = \"{open}\"\nallow_anonymous = true\n");
    let Some(users) = Users::start(&["ann"], &CHEAP, &listener) else { return };
    let connect = |version| Connect::new(version, unique("c"));
    for version in [V311, V5] {
        Client::connect_to(&open, &connect(version).user("").password("")).settle();
        Client::connect_to(&open, &connect(version).user("")).settle();
        let mut refused = Client::open_to(&users.broker.address, version);
        refused.send(connect(version).user("").encode());
        assert_ne!(refused.expect_connack().reason, 0);
    }
    for refused in [connect(V5).password("secret"), connect(V5).user("").password("secret")] {
        let mut client = Client::open_to(&open, V5);
        client.send(refused.encode());
        client.expect_refusal(0x86);
    }
}

/// Wrong passwords by the hundred, all from one address and each of them costly, do not keep another user waiting until
/// the last of them is answered.
#[test]
fn a_flood_of_wrong_passwords_does_not_delay_another_user() {
    let cost = ["--memory", "4096", "--passes", "8"];
    let Some(users) = Users::start(&["ann", "bob"], &cost, "") else { return };
    let mut flood: Vec<_> = (0..400)
        .map(|number| {
            let mut client = Client::open_to(&users.broker.address, V311);
            let connect = Connect::new(V311, unique("f")).user("ann");
            client.send(connect.password(format!("wrong {number}")).encode());
            client
        })
        .collect();
    users.client(V5, "bob").settle();
    let answered = flood.iter_mut().filter(|client| client.has_input()).count();
    assert!(answered < 200, "{answered} of the flood were answered before another user");
}
