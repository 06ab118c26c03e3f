//! `petrel check`: validates the configuration and prints the values in force.

use std::path::Path;
use std::process::ExitCode;

use petrel::auth::rules::{RuleFormat, RulesFile};
use petrel::auth::users::{UsersFile, UsersFormat};
use petrel::config::choice::StoreKind;
use petrel::config::description::annotated;
use petrel::config::settings::{ListenAddress, ListenerSettings, Settings, Transport};
use petrel::durable::Durability;
use petrel::net::tls::TlsAcceptor;

use crate::cli::configuration::{ConfigurationOptions, describe};
use crate::cli::{complain, say};

/// Checks the configuration.
///
/// Reads the file and the PETREL_… variables and reports every mistake with its file, line, column and key, and how
/// to fix it. Then it checks the files that the configuration names: certificates, keys, users. It changes nothing
/// and opens no port.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel check                              the file that `petrel serve` would use
  petrel check --config petrel.toml
  petrel check --rules                      each access rule in plain words
  petrel check --template > petrel.toml     every key with its default and meaning
  PETREL_LIMITS__MAX_PACKET_SIZE=1MiB petrel check --print

Exit codes: 0 no mistakes, 1 mistakes (listed on standard error), 2 wrong command line.")]
pub(crate) struct CheckCommand {
    #[command(flatten)]
    configuration: ConfigurationOptions,
    /// Print every value in force as TOML, including defaults and environment variables
    #[arg(short, long)]
    print: bool,
    /// Print each access rule in plain words, in the order in which they decide
    #[arg(long, conflicts_with_all = ["print", "template"])]
    rules: bool,
    /// Print a configuration template: every key with its default and a comment. Reads no file
    #[arg(long, conflicts_with = "print")]
    template: bool,
}

impl CheckCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.template {
            say(annotated().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let settings = self.configuration.load()?;
        let file = self.configuration.file();
        let problems = file_problems(&settings);
        if self.print {
            say(&in_force(&settings, file.as_deref())?)?;
        }
        for problem in &problems {
            complain(problem);
        }
        if !problems.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        if self.rules {
            return say_rules(&settings).map(|()| ExitCode::SUCCESS);
        }
        if !self.print {
            say(&format!("no mistakes in {}", describe(file.as_deref())))?;
            say(&summary(&settings))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Every rule in plain words.
fn say_rules(settings: &Settings) -> anyhow::Result<()> {
    let Some((path, format)) = rules_of(settings) else {
        return say(
            "no access rules: every client may use every topic that is not the broker's own",
        );
    };
    for line in RulesFile::open(path, format)?.rules().current().describe() {
        say(&line)?;
    }
    Ok(())
}

/// The file with access rules, and its format.
fn rules_of(settings: &Settings) -> Option<(&Path, RuleFormat)> {
    let own = settings.rules_file.as_deref().map(|path| (path, RuleFormat::Petrel));
    let mosquitto = settings.acl_file.as_deref().map(|path| (path, RuleFormat::Mosquitto));
    own.or(mosquitto)
}

/// Problems in the files that the configuration names.
fn file_problems(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(path) = &settings.users_file
        && let Err(error) = UsersFile::open(path)
    {
        let cure = format!("`petrel passwd {} NAME` creates it", path.display());
        problems.push(format!("auth.users_file: {error}\n    {cure}"));
    }
    if let Some(path) = &settings.password_file
        && let Err(error) = UsersFile::open_as(UsersFormat::Mosquitto, path)
    {
        let cure = format!("`mosquitto_passwd -c {} NAME` creates it", path.display());
        problems.push(format!("auth.password_file: {error}\n    {cure}"));
    }
    if let Some((path, format)) = rules_of(settings)
        && let Err(error) = RulesFile::open(path, format)
    {
        let key = match format {
            RuleFormat::Petrel => "rules_file",
            RuleFormat::Mosquitto => "acl_file",
        };
        problems.push(format!("auth.{key}: {error}"));
    }
    for listener in &settings.listeners {
        problems.extend(listener_problems(listener));
    }
    if settings.file.persistence.store == StoreKind::RocksDb
        && let Err(problem) = usable_directory(&settings.data_dir)
    {
        problems.push(format!("data_dir: {problem}"));
    }
    problems
}

fn listener_problems(listener: &ListenerSettings) -> Vec<String> {
    let name = &listener.rules.name;
    let mut problems = Vec::new();
    if let Some(tls) = &listener.tls
        && let Err(error) = TlsAcceptor::load(tls.clone(), &listener.transport)
    {
        let cure = "`petrel certs` creates certificates for development";
        problems.push(format!("listener {name}: {error}\n    {cure}"));
    }
    if let ListenAddress::Unix { path, .. } = &listener.address {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if parent.is_some_and(|parent| !parent.is_dir()) {
            let path = path.display();
            problems.push(format!("listener {name}: the directory of {path} does not exist"));
        }
    }
    problems
}

/// Whether the store can be there: the directory, or its nearest existing parent, must be writable.
fn usable_directory(directory: &Path) -> Result<(), String> {
    let mut existing = directory;
    while !existing.exists() {
        existing = match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    if !existing.is_dir() {
        return Err(format!("{} is not a directory", existing.display()));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let result = rustix::fs::access(existing, access);
    result.map_err(|error| format!("{} is not writable: {error}", existing.display()))
}

/// Every value in force, as TOML.
fn in_force(settings: &Settings, file: Option<&Path>) -> anyhow::Result<String> {
    let mut written = settings.file.clone();
    if written.listener.is_empty() {
        written.listener.push(petrel::config::table::Listener::default());
    }
    let head = [
        format!("# In force, from {}", describe(file)),
        format!("# Durability: {}", durability(settings)),
    ];
    Ok(format!("{}\n\n{}", head.join("\n"), toml::to_string(&written)?.trim_end()))
}

/// What an acknowledgement guarantees, in words.
pub(crate) fn durability(settings: &Settings) -> String {
    let limits = &settings.limits;
    let words = match (settings.file.persistence.store, limits.durability) {
        (StoreKind::Memory, _) => {
            "memory: the store is in memory, everything is lost when the process ends"
        }
        (_, Durability::Memory) => "memory: acknowledged at once, lost when the process ends",
        (_, Durability::Os) => "os: acknowledged messages survive kill -9, not a power cut",
        (_, Durability::Fsync) => "fsync: acknowledged messages survive a power cut",
    };
    match limits.topic_durability.len() {
        0 => words.to_owned(),
        count => format!("{words} ({count} exceptions by Topic Filter)"),
    }
}

/// The listeners, and the durability in force.
fn summary(settings: &Settings) -> String {
    let listeners = settings.listeners.iter();
    let mut lines: Vec<String> = listeners
        .map(|listener| format!("  {}", describe_listener(listener, &listener.address)))
        .collect();
    lines.push(format!("  durability: {}", durability(settings)));
    lines.join("\n")
}

/// One listener as a line of text; `address` is where it actually listens.
pub(crate) fn describe_listener(listener: &ListenerSettings, address: &ListenAddress) -> String {
    let (scheme, path) = match (&listener.transport, &listener.tls) {
        (Transport::Mqtt, None) => ("mqtt", ""),
        (Transport::Mqtt, Some(_)) => ("mqtts", ""),
        (Transport::WebSocket { .. }, None) => ("ws", listener.transport.usual_path()),
        (Transport::WebSocket { .. }, Some(_)) => ("wss", listener.transport.usual_path()),
    };
    let address = match address {
        ListenAddress::Tcp(address) => format!("{scheme}://{address}{path}"),
        ListenAddress::Unix { path, .. } => format!("{scheme} on unix:{}", path.display()),
    };
    let access = if listener.rules.allow_anonymous { "anonymous allowed" } else { "users only" };
    format!("{}: {address} ({access})", listener.rules.name)
}

#[cfg(test)]
mod tests {
    use petrel::config::source::Source;

    use super::*;

    #[test]
    fn what_is_printed_is_a_configuration_that_means_the_same() {
        let text = "[limits]\nreceive_maximum = 7\n[[listener]]\nname = \"a\"\n\
                    [listener.tls]\ncertificate = \"a\"\nkey = \"b\"\n\
                    [[overflow]]\nfilter = \"a/#\"\n[log.modules]\n\"petrel::net\" = \"debug\"\n";
        let source = Source { text: text.to_owned(), ..Source::default() };
        let settings = Settings::from_source(&source).unwrap();
        let printed = in_force(&settings, None).unwrap();
        assert!(printed.contains("# Durability: fsync"), "{printed}");
        let again = Source { text: printed, ..Source::default() };
        assert_eq!(Settings::from_source(&again).unwrap().file, settings.file);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_usable_if_it_can_be_made() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(usable_directory(&directory.path().join("a/b")), Ok(()));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(usable_directory(&file.join("a")).is_err());
    }

    #[test]
    fn a_missing_users_file_is_a_problem_with_a_cure() {
        let text = "[auth]\nusers_file = \"/nonexistent/users.txt\"\n";
        let source = Source { text: text.to_owned(), ..Source::default() };
        let problems = file_problems(&Settings::from_source(&source).unwrap());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("petrel passwd /nonexistent/users.txt NAME"), "{problems:?}");
    }
}
