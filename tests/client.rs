//! `petrel pub`, `petrel sub` and `petrel request` as processes, against `petrel serve` as another one.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::port::free_port;

#[path = "support/port.rs"]
mod port;

const PETREL: &str = env!("CARGO_BIN_EXE_petrel");
/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same for `-W`.
const PATIENCE: &str = "30";

/// Runs the broker until its standard input ends, which also happens when the test dies.
const GUARD: &str =
    r#""$0" serve --config "$1" >"$2" 2>&1 & child=$!; cat >/dev/null; kill -9 $child; wait"#;

/// A broker with a plain, a TLS, a WebSocket and a Unix listener.
struct Broker {
    shell: Child,
    directory: tempfile::TempDir,
    plain: String,
    tls: String,
    websocket: String,
}

impl Broker {
    fn start() -> Self {
        // Another test may take a port that was found free: then other ones are tried.
        (0..5).find_map(|_| Self::try_start()).expect("the broker starts")
    }

    fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let certificates =
            Command::new(PETREL).arg("certs").arg("--out").arg(path("certs")).output();
        assert!(certificates.unwrap().status.success());
        let [plain, tls, websocket] = [(); 3].map(|()| free_port());
        let file = |name: &str| path("certs").join(name);
        let lines = format!(
            "data_dir = {:?}\nhttp.listen = \"\"\n\
             [[listener]]\nname = \"plain\"\nlisten = \"127.0.0.1:{plain}\"\n\
             [[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:{tls}\"\n\
             [listener.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\nclient_certificate = \"optional\"\n\
             [[listener]]\nname = \"ws\"\nlisten = \"127.0.0.1:{websocket}\"\ntransport = \"websocket\"\n\
             [[listener]]\nname = \"unix\"\nlisten = {:?}\n",
            path("data"),
            file("server.crt"),
            file("server.key"),
            file("ca.crt"),
            format!("unix:{}", path("socket").display()),
        );
        fs::write(path("petrel.toml"), lines).unwrap();
        let shell = Command::new("sh")
            .args(["-c", GUARD, PETREL])
            .args([path("petrel.toml"), path("log")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let broker = Self {
            shell,
            directory,
            plain: plain.to_string(),
            tls: tls.to_string(),
            websocket: websocket.to_string(),
        };
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            let log = fs::read_to_string(broker.directory.path().join("log")).unwrap_or_default();
            assert!(!log.contains("mistake"), "{log}");
            if log.contains("in use") {
                return None;
            }
            if [plain, tls, websocket]
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
            {
                return Some(broker);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "the broker does not start: {:?}",
            fs::read_to_string(broker.directory.path().join("log"))
        );
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.directory.path().join("certs").join(name)
    }

    /// A client command, connected to the plain listener.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PETREL);
        command.args(words).args(["-p", &self.plain]);
        command
    }

    /// Runs a client to its end.
    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs `petrel pub`, which must succeed.
    fn publish(&self, words: &[&str]) {
        let output = self.run(&[&["pub"], words].concat());
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A subscriber that has its SUBACK.
struct Subscriber {
    child: Child,
    errors: JoinHandle<String>,
}

impl Subscriber {
    fn start(mut command: Command) -> Self {
        command.args(["-d", "-W", PATIENCE]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("subscribed to") {
            let start = seen.len();
            errors.read_line(&mut seen).unwrap();
            assert!(seen.len() > start, "no subscription: {seen}");
        }
        // Read on, so that its pipe never fills.
        let errors = std::thread::spawn(move || {
            errors.read_to_string(&mut seen).unwrap();
            seen
        });
        Self { child, errors }
    }

    /// Its output and exit code, when it has ended.
    fn finish(mut self) -> (Vec<u8>, i32) {
        let mut output = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let errors = self.errors.join().unwrap();
        assert!(code == 0 || errors.contains("petrel: "), "{code}: {errors}");
        (output, code)
    }

    fn output(self) -> String {
        let (output, code) = self.finish();
        assert_eq!(code, 0, "{}", text(&output));
        text(&output)
    }
}

#[test]
fn messages_arrive_at_each_qos_in_each_version() {
    let broker = Broker::start();
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let words = ["sub", "-V", version, "-q", qos, "-t", "a/#", "-C", "3", "-F", "%t %q %p"];
            let subscriber = Subscriber::start(broker.command(&words));
            broker.publish(&["-V", version, "-q", qos, "-t", "a/b", "-m", "one", "--repeat", "2"]);
            broker.publish(&["-V", version, "-q", qos, "-t", "a", "-n"]);
            assert_eq!(subscriber.output(), format!("a/b {qos} one\na/b {qos} one\na {qos} \n"));
        }
    }
}

#[test]
fn payloads_come_out_as_they_went_in() {
    let broker = Broker::start();
    let file = broker.directory.path().join("payload");
    let payload: Vec<u8> = (0..1_500_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    fs::write(&file, &payload).unwrap();
    for version in ["311", "5"] {
        let words = ["sub", "-V", version, "-q", "1", "-t", "raw", "-C", "1", "-N"];
        let subscriber = Subscriber::start(broker.command(&words));
        broker.publish(&["-V", version, "-q", "1", "-t", "raw", "-f", file.to_str().unwrap()]);
        let (output, code) = subscriber.finish();
        assert!(code == 0 && output == payload, "{code}, {} bytes", output.len());
    }
}

#[test]
fn standard_input_is_one_message_or_many() {
    let broker = Broker::start();
    for (option, count, expected) in
        [("-l", "3", "[one][two][three]"), ("-s", "1", "[one\n\ntwo\nthree]")]
    {
        let words = ["sub", "-q", "2", "-t", "lines", "-C", count, "-N", "-F", "[%p]"];
        let subscriber = Subscriber::start(broker.command(&words));
        let mut command = broker.command(&["pub", "-q", "2", "-t", "lines", option]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"one\n\ntwo\nthree").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(subscriber.output(), expected);
    }
}

#[test]
fn many_lines_keep_their_order() {
    let broker = Broker::start();
    let lines: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let subscriber =
        Subscriber::start(broker.command(&["sub", "-q", "1", "-t", "many", "-C", "5000"]));
    let mut command = broker.command(&["pub", "-q", "1", "-t", "many", "-l"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(subscriber.output(), lines);
}

#[test]
fn retained_messages_are_kept_printed_and_removed() {
    let broker = Broker::start();
    broker.publish(&["-q", "1", "-r", "-t", "state/a", "-m", "kept"]);
    let output = broker.run(&["sub", "-t", "state/#", "-C", "1", "-W", PATIENCE, "-F", "%r %p"]);
    assert_eq!(text(&output.stdout), "1 kept\n");
    let output = broker.run(&["sub", "-t", "state/#", "-R", "-W", "0.5"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(27)));
    let words = ["sub", "-t", "state/#", "--remove-retained", "-C", "1", "-W", PATIENCE];
    assert_eq!(text(&broker.run(&words).stdout), "kept\n");
    let output = broker.run(&["sub", "-t", "state/#", "-W", "0.5"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(27)));
}

#[test]
fn properties_of_5_travel() {
    let broker = Broker::start();
    let words = "sub -V 5 -t p -C 1 -F json -D subscribe subscription-identifier 5";
    let words: Vec<&str> = words.split(' ').collect();
    let subscriber = Subscriber::start(broker.command(&words));
    let words = "-t p -m x -q 1 -D publish content-type text/plain -D publish user-property k v \
                 -D publish user-property k w -D publish message-expiry-interval 100 \
                 -D publish correlation-data id -D publish response-topic r -D connect user-property a b";
    broker.publish(&words.split_whitespace().collect::<Vec<_>>());
    let message: Value = serde_json::from_str(&subscriber.output()).unwrap();
    assert_eq!((&message["topic"], &message["payload"]), (&"p".into(), &"x".into()));
    let properties = &message["properties"];
    assert_eq!(properties["content-type"], "text/plain");
    assert_eq!(properties["user-properties"], serde_json::json!([{"k": "v"}, {"k": "w"}]));
    assert_eq!(properties["correlation-data"], "id");
    assert_eq!(properties["response-topic"], "r");
    assert_eq!(properties["subscription-identifiers"], serde_json::json!([5]));
}

#[test]
fn a_request_gets_its_response() {
    let broker = Broker::start();
    for version in ["311", "5"] {
        let words = ["sub", "-V", version, "-t", "ask", "-C", "1", "-F", "%D"];
        let responder = Subscriber::start(broker.command(&words));
        let words =
            ["request", "-V", version, "-t", "ask", "-e", "reply", "-m", "?", "-W", PATIENCE];
        let mut command = broker.command(&words);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let correlation = responder.output().trim_end().to_owned();
        if version == "5" {
            assert_eq!(correlation.len(), 32);
            let other =
                ["-t", "reply", "-m", "wrong", "-D", "publish", "correlation-data", "other"];
            broker.publish(&other);
            let ours =
                ["-t", "reply", "-m", "right", "-D", "publish", "correlation-data", &correlation];
            broker.publish(&ours);
        } else {
            broker.publish(&["-t", "reply", "-m", "right"]);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("right\n", Some(0)));
    }
    let output = broker.run(&["request", "-t", "ask", "-e", "reply", "-n", "-W", "0.5"]);
    assert_eq!(output.status.code(), Some(27));
    assert!(text(&output.stderr).contains("no response"), "{}", text(&output.stderr));
}

#[test]
fn a_durable_session_misses_nothing() {
    let broker = Broker::start();
    for (version, id) in [("311", "old"), ("5", "new")] {
        let session = ["sub", "-V", version, "-q", "2", "-t", "jobs", "-c", "-i", id];
        let output = broker.run(&[&session[..], &["-E"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        for job in ["a", "b", "c"] {
            broker.publish(&["-q", "2", "-t", "jobs", "-m", job]);
        }
        let output = broker.run(&[&session[..], &["-C", "2", "-W", PATIENCE]].concat());
        assert_eq!(text(&output.stdout), "a\nb\n", "{}", text(&output.stderr));
        let output = broker.run(&[&session[..], &["-C", "1", "-W", PATIENCE]].concat());
        assert_eq!(text(&output.stdout), "c\n", "{}", text(&output.stderr));
    }
}

#[test]
fn tls_is_checked() {
    let broker = Broker::start();
    let authority = broker.certificate("ca.crt");
    let authority = authority.to_str().unwrap();
    let run = |words: &[&str]| {
        let words = [&["pub", "-t", "a", "-m", "x", "-q", "1", "-p", &broker.tls], words].concat();
        Command::new(PETREL).args(words).output().unwrap()
    };
    let (certificate, key) = (broker.certificate("client.crt"), broker.certificate("client.key"));
    let identity = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let trusted = ["--cafile", authority];
    for words in [
        &trusted[..],
        &[&trusted[..], &identity].concat(),
        &[&trusted[..], &["--tls-version", "tlsv1.3"]].concat(),
    ] {
        let output = run(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    }
    let output = run(&["--tls-use-os-certs"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let output = run(&["--cafile", "/nowhere/ca.crt"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("/nowhere/ca.crt"), "{}", text(&output.stderr));
    let output = broker.run(&["pub", "-t", "a", "-m", "x", "--cafile", authority]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let url = format!("mqtts://localhost:{}/a", broker.tls);
    let output =
        Command::new(PETREL).args(["pub", "-L", &url, "-m", "x", "--cafile", authority]).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn websocket_and_unix_socket_carry_it_too() {
    let broker = Broker::start();
    let socket = broker.directory.path().join("socket");
    for version in ["311", "5"] {
        let mut command = Command::new(PETREL);
        let url = format!("ws://127.0.0.1:{}/mqtt", broker.websocket);
        command.args(["sub", "-V", version, "-L", &url, "-q", "1", "-t", "w", "-C", "2"]);
        let subscriber = Subscriber::start(command);
        let ways: [&[&str]; 2] =
            [&["--ws", "-p", &broker.websocket], &["--unix", socket.to_str().unwrap()]];
        for way in ways {
            let words = [&["pub", "-V", version, "-q", "1", "-t", "w", "-m", "x"], way].concat();
            let output = Command::new(PETREL).args(words).output().unwrap();
            assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
        }
        assert_eq!(subscriber.output(), "x\nx\n");
    }
}

#[test]
fn a_subscriber_ends_in_good_order() {
    let broker = Broker::start();
    for signal in ["-TERM", "-INT"] {
        let words =
            ["sub", "-t", "s", "--will-topic", "dead", "--will-payload", "x", "--will-retain"];
        let subscriber = Subscriber::start(broker.command(&words));
        let id = subscriber.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert_eq!(subscriber.finish(), (Vec::new(), 0));
    }
    // Its DISCONNECT came, so no Will Message was published. [MQTT-3.14.4-3]
    let output = broker.run(&["sub", "-t", "dead", "-W", "0.5"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(27)));
}

#[test]
fn a_will_is_published_when_the_client_dies() {
    let broker = Broker::start();
    let watcher = Subscriber::start(broker.command(&["sub", "-t", "dead", "-C", "1"]));
    let words =
        ["sub", "-t", "s", "--will-topic", "dead", "--will-payload", "x", "--will-qos", "1"];
    let mut victim = Subscriber::start(broker.command(&words));
    victim.child.kill().unwrap();
    victim.child.wait().unwrap();
    assert_eq!(watcher.output(), "x\n");
}

#[test]
fn a_closed_output_ends_a_subscriber() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(broker.command(&["sub", "-t", "s", "-q", "1"]));
    drop(subscriber.child.stdout.take());
    broker.publish(&["-t", "s", "-m", "x", "-q", "1"]);
    assert!(subscriber.child.wait().unwrap().success());
}

#[test]
fn failures_have_words_and_codes() {
    let broker = Broker::start();
    let free = free_port().to_string();
    for (words, code, reason) in [
        (vec!["pub", "-t", "a", "-m", "x", "-p", &free], 3, "refused"),
        (vec!["sub", "-t", "a", "-p", &free], 3, "refused"),
        (vec!["pub", "-t", "a", "-m", "x", "-p", &broker.tls, "-W", "20"], 3, "port"),
        (vec!["pub", "-t", "a/#", "-m", "x"], 2, "wildcard"),
        (vec!["sub", "-t", "a/#/b"], 2, "-t a/#/b"),
        (vec!["pub", "-t", "a", "-m", "x", "-V", "mqttv31"], 2, "3.1"),
        (vec!["pub", "-t", "a", "-m", "x", "-V", "311", "-x", "5"], 2, "5.0"),
        (vec!["pub", "-t", "a"], 2, "--message"),
        (vec!["pub", "-t", "a", "-m", "x", "-n"], 2, "cannot be used"),
        (vec!["pub", "-t", "a", "-f", "/nowhere/x"], 1, "/nowhere/x"),
        (vec!["sub", "-t", "a", "-F", "%z"], 2, "%z"),
        (vec!["sub", "-t", "a", "-c"], 2, "--id"),
        (vec!["sub", "-t", "a", "-W", "0.2"], 27, "-W"),
    ] {
        let mut command = Command::new(PETREL);
        command.args(&words);
        if !words.contains(&"-p") {
            command.args(["-p", &broker.plain]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(reason), "{words:?}: {}", text(&output.stderr));
    }
    let output = broker.run(&["sub", "-t", "a", "-W", "0.2", "--quiet"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(27), &b""[..]));
}
