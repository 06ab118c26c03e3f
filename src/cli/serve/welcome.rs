//! The message printed at startup: listeners, durability, and three commands to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use petrel::config::choice::{LogFormat, StoreKind};
use petrel::config::settings::{ListenAddress, Settings, Transport};

use crate::cli::check::{describe_listener, durability};
use crate::cli::say;

/// Prints the message to standard output, or logs one line if the log is JSON. `addresses` are where the listeners
/// actually listen.
pub(crate) fn print(settings: &Settings, addresses: &[ListenAddress]) {
    if settings.file.log.format == LogFormat::Json {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        return;
    }
    // The broker runs even if nobody reads its output.
    if let Err(error) = say(&text(settings, addresses, &program())) {
        tracing::debug!(%error, "standard output is closed");
    }
}

/// This program as it was invoked, which works even if it is not on the path, as after `make run`.
fn program() -> String {
    as_command(std::env::args().next().unwrap_or_default())
}

/// A command that works in any directory: it is probably pasted into another terminal.
fn as_command(called: String) -> String {
    let called = match std::path::absolute(&called) {
        Ok(path) if called.contains('/') => path.display().to_string(),
        Ok(_) | Err(_) => called,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match called.is_empty() {
        true => "petrel".to_owned(),
        false if called.chars().all(is_plain) => called,
        false => format!("'{}'", called.replace('\'', r"'\''")),
    }
}

fn text(settings: &Settings, addresses: &[ListenAddress], program: &str) -> String {
    let mut lines = vec![format!("Petrel {} is ready.", env!("CARGO_PKG_VERSION"))];
    for (listener, address) in settings.listeners.iter().zip(addresses) {
        lines.push(format!("  {}", describe_listener(listener, address)));
    }
    if let Some(address) = settings.http_listen {
        lines.push(format!("  metrics and health: http://{address}/metrics, /live, /ready"));
    }
    if settings.file.persistence.store == StoreKind::RocksDb {
        lines.push(format!("  data: {}", settings.data_dir.display()));
    }
    lines.push(format!("  durability: {}", durability(settings)));
    lines.extend(commands(settings, addresses, program));
    lines.join("\n")
}

/// Three commands for the first listener that they work with.
fn commands(settings: &Settings, addresses: &[ListenAddress], program: &str) -> Vec<String> {
    let tcp = settings.listeners.iter().zip(addresses).find_map(|(listener, address)| {
        let plain = listener.tls.is_none()
            && !listener.proxy_protocol
            && listener.transport == Transport::Mqtt;
        match address {
            ListenAddress::Tcp(address) if plain => Some((reachable(*address), listener)),
            _ => None,
        }
    });
    let Some((address, listener)) = tcp else { return Vec::new() };
    let user = if listener.rules.allow_anonymous { "" } else { " -u NAME -P PASSWORD" };
    let to = format!("-h {} -p {}{user}", address.ip(), address.port());
    vec![
        "Try:".to_owned(),
        format!("  {program} sub {to} -v -t 'hello/#'"),
        format!("  {program} pub {to} -q 1 -t hello/world -m 'good morning'"),
        format!("  mosquitto_sub {to} -v -t '$SYS/#'"),
    ]
}

/// An address to connect to if the listener's own is a wildcard address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use petrel::config::source::Source;

    use super::*;

    fn welcome(text_of_file: &str) -> String {
        let source = Source { text: text_of_file.to_owned(), ..Source::default() };
        let settings = Settings::from_source(&source).unwrap();
        let addresses: Vec<_> =
            settings.listeners.iter().map(|listener| listener.address.clone()).collect();
        text(&settings, &addresses, "bin/petrel")
    }

    #[test]
    fn the_commands_name_an_address_that_answers() {
        let text = welcome("[[listener]]\nlisten = \"0.0.0.0:1884\"\nallow_anonymous = true\n");
        assert!(text.contains("bin/petrel sub -h 127.0.0.1 -p 1884 -v -t 'hello/#'"), "{text}");
        let text = welcome("[auth]\nusers_file = \"u\"\n[[listener]]\nlisten = \"[::]:1883\"\n");
        assert!(text.contains("-h ::1 -p 1883 -u NAME -P PASSWORD"), "{text}");
    }

    #[test]
    fn the_program_is_named_so_that_any_shell_finds_it() {
        let here = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(as_command("petrel".to_owned()), "petrel");
        assert_eq!(as_command("/opt/my petrel".to_owned()), "'/opt/my petrel'");
        let relative = as_command("./it's/petrel".to_owned());
        assert_eq!(relative.replace(&here, ""), r"'/it'\''s/petrel'");
    }

    #[test]
    fn no_commands_are_shown_where_they_would_not_work() {
        let text =
            welcome("[[listener]]\ntransport = \"websocket\"\nlisten = \"127.0.0.1:8083\"\n");
        assert!(text.contains("ws://127.0.0.1:8083/mqtt"), "{text}");
        assert!(!text.contains("Try:"), "{text}");
    }
}
