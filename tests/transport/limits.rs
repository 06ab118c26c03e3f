//! Too many connections, too few file descriptors, bugs: the listener continues.

use std::process::Command;
use std::time::Duration;

use petrel::config::settings::AcceptLimits;
use petrel::metrics::counter::Counter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;

use crate::echo::{LIMITS, closed, echoes, loopback, start, start_with};

#[tokio::test]
async fn connections_beyond_the_listeners_limit_are_closed() {
    let mut settings = loopback();
    settings.max_connections = Some(2);
    let running = start(&[settings]);
    let mut first = running.connect().await;
    let mut second = running.connect().await;
    echoes(&mut first, b"1").await;
    echoes(&mut second, b"2").await;
    closed(&mut running.connect().await).await;
    running.counted(Counter::TurnedAwayListenerFull, 1).await;
    running.counted(Counter::ConnectionsAccepted, 2).await;
    running.connections(2).await;
    drop(first);
    running.connections(1).await;
    echoes(&mut running.connect().await, b"3").await;
    let text = running.metrics.exposition();
    assert!(text.contains("petrel_listener_connections{listener=\"test\"} "), "{text}");
}

#[tokio::test]
async fn connections_beyond_the_brokers_limit_are_closed() {
    let limits = AcceptLimits { max_connections: Some(1), ..LIMITS };
    let running = start_with(&[loopback(), loopback()], limits).unwrap();
    let mut first = running.connect().await;
    echoes(&mut first, b"1").await;
    closed(&mut running.connect().await).await;
    running.counted(Counter::TurnedAwayBrokerFull, 1).await;
    drop(first);
    running.connections(0).await;
    echoes(&mut running.connect().await, b"2").await;
}

#[tokio::test]
async fn a_bug_ends_one_connection_only() {
    let running = start(&[loopback()]);
    let mut other = running.connect().await;
    echoes(&mut other, b"1").await;
    let mut victim = running.connect().await;
    victim.write_all(b"panic").await.unwrap();
    closed(&mut victim).await;
    running.counted(Counter::TaskPanics, 1).await;
    running.connections(1).await;
    echoes(&mut other, b"2").await;
    echoes(&mut running.connect().await, b"3").await;
}

const CHILD: &str = "PETREL_TEST_FEW_DESCRIPTORS";

/// Runs itself again with the variable set, because the limit of descriptors holds for a whole process.
#[test]
fn running_out_of_descriptors_is_survived() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(run_out_of_descriptors());
    }
    let name = "limits::running_out_of_descriptors_is_survived";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

async fn run_out_of_descriptors() {
    let running = start(&[loopback()]);
    let mut before = running.connect().await;
    echoes(&mut before, b"before").await;
    // Both ends live here: leave room for ten more descriptors, and take them all but one.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(used + 9), maximum }).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    files.pop();
    // The client's end takes the last one: its connection cannot be accepted, and is turned away.
    let mut refused = running.connect().await;
    closed(&mut refused).await;
    running.counted(Counter::TurnedAwayNoDescriptor, 1).await;
    assert!(running.metrics.counters().read(Counter::AcceptErrors) >= 1);
    echoes(&mut before, b"meanwhile").await;
    drop(files);
    drop(refused);
    echoes(&mut running.connect().await, b"after").await;
    running.counted(Counter::ConnectionsAccepted, 2).await;
}

/// One deadline for everything before MQTT, and nobody else waits for it.
#[tokio::test]
async fn silence_before_mqtt_is_cut_and_holds_nobody_up() {
    let mut settings = loopback();
    settings.proxy_protocol = true;
    let limits = AcceptLimits { connect_timeout: Duration::from_millis(300), ..LIMITS };
    let running = start_with(&[settings], limits).unwrap();
    let mut served = running.connect().await;
    served.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    echoes(&mut served, b"hello").await;
    let mut silent = running.connect().await;
    silent.write_all(b"PROXY TCP4 ").await.unwrap();
    let mut other = running.connect().await;
    other.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    echoes(&mut other, b"not held up").await;
    closed(&mut silent).await;
    running.counted(Counter::TurnedAwayTimeout, 1).await;
    // This one came first: its deadline is over as well, and was not for those who are served.
    echoes(&mut served, b"still here").await;
}
