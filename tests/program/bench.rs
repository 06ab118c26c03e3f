//! The load generator against a broker: its results are what they claim to be.

use serde_json::Value;

use crate::port::free_port;
use crate::{Broker, errors, petrel, run, text};

/// The report of a run of `petrel bench` that found nothing wrong.
fn report(directory: &std::path::Path, port: u16, arguments: &[&str]) -> Value {
    let mut command = petrel(directory, &["bench"]);
    command.args(arguments).args(["--json", "--port", &port.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output), errors(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn clients_of_the_generator_resume_tls_with_their_own_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let made = run(directory.path(), &["certs", "--out", "certs"]);
    assert!(made.status.success(), "{}", errors(&made));
    let port = free_port();
    let _broker = Broker::start(
        directory.path(),
        &[
            ("PETREL_LISTENER__1__LISTEN", &format!("127.0.0.1:{port}")),
            ("PETREL_LISTENER__1__TLS__CERTIFICATE", "certs/server.crt"),
            ("PETREL_LISTENER__1__TLS__KEY", "certs/server.key"),
        ],
    );
    let tls = ["--tls", "--cafile", "certs/ca.crt"];
    let cycle = ["connections", "--cycle", "500ms", "--concurrency", "10"];
    let found = report(directory.path(), port, &[&tls[..], &cycle].concat());
    assert!(figure(&found, "resumed_handshakes") > 0.0, "{found}");
    assert_eq!(figure(&found, "full_handshakes"), 10.0, "{found}");
    assert_eq!(figure(&found, "resumed_share_of_reconnects"), 1.0, "{found}");
    let found = report(directory.path(), port, &[&tls[..], &cycle, &["--no-resumption"]].concat());
    assert_eq!(figure(&found, "resumed_handshakes"), 0.0, "{found}");
    let storm = ["connections", "--clients", "20", "--hold", "0s", "--storm"];
    let found = report(directory.path(), port, &[&tls[..], &storm].concat());
    assert_eq!(figure(&found, "storm_resumed_share_of_reconnects"), 1.0, "{found}");
}

#[test]
fn slow_readers_read_in_their_phase_and_in_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path(), &[]);
    let arguments =
        "slow --slow 5 --slow-rate 100 --pairs 2 --rate 200 -q 1 --fill 500ms --duration 500ms";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let found = report(directory.path(), broker.port, &arguments);
    for phase in ["alone", "reading", "filling", "stalled"] {
        assert!(figure(&found, &format!("delivered_{phase}_per_second")) > 0.0, "{found}");
        assert!(found["latency_us"][phase]["count"].as_u64() > Some(0), "{found}");
    }
    assert_eq!(figure(&found, "readers_received_alone_per_second"), 0.0);
    assert!(figure(&found, "readers_received_reading_per_second") > 0.0, "{found}");
    assert_eq!(figure(&found, "readers_received_stalled_per_second"), 0.0);
    assert!(figure(&found, "unread_when_stalled_bytes") > 0.0, "{found}");
    assert!(figure(&found, "throughput_stalled_to_reading_ratio") > 0.0, "{found}");
}
