//! The command line: the commands of `petrel` and their implementations.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod certs;
mod check;
mod configuration;
mod ctl;
mod logging;
mod passwd;
mod serve;
mod store;

/// The arguments of `petrel`.
#[derive(Debug, Parser)]
#[command(
    name = "petrel",
    version,
    about = "An MQTT broker that acknowledges a message only when it is safe",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Petrel is an MQTT broker (3.1, 3.1.1 and 5.0) in one binary. It sends PUBACK or PUBREC only when every durable recipient's \
copy of the message is on disk.

The same binary contains the client tools: publish, subscribe, create certificates and users, load-test a broker.";

const AFTER_HELP: &str = "\
Examples:
  petrel serve                                  start with ./config/petrel.toml, or the defaults
  petrel sub -v -t 'hello/#'                    print messages; then, in another terminal:
  petrel pub -q 1 -t hello/world -m 'good morning'
  petrel check --print                          check the configuration, print the values in force
  petrel passwd users.txt ann                   add a user, or change a password
  petrel certs --host broker.example.com        create certificates for development

Exit codes:
  0  success; for `serve`: stopped by a signal, everything flushed
  1  failed, or a check found problems; the reason is on standard error
  2  wrong command line
  `pub`, `sub` and `request` have more; see their --help

`petrel COMMAND --help` explains a command with its options, defaults and examples.";

const BENCH_HELP: &str = "\
Examples:
  petrel bench throughput                        ten pairs, QoS 0, on localhost:1883
  petrel bench throughput fan-out --qos 1 --subscribers 50
  petrel bench latency --pid $(pidof petrel)     also measure the broker's CPU time and memory
  petrel bench throughput --json > result.json";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = "Run the broker")]
    Serve(serve::ServeCommand),
    #[command(about = "Check the configuration and explain every mistake")]
    Check(check::CheckCommand),
    #[command(about = "Add, change, remove, list and verify users in a users file")]
    Passwd(passwd::PasswdCommand),
    #[command(about = "Create a certificate authority, server and client certificates")]
    Certs(certs::CertsCommand),
    #[command(about = "Check, repair, inspect, back up and restore the store of a stopped broker")]
    Store(store::StoreArguments),
    #[command(about = "Publish messages to a broker")]
    #[command(name = "pub")]
    Publish(Box<petrel::client::PublishCommand>),
    #[command(about = "Subscribe and print the messages received")]
    #[command(name = "sub")]
    Subscribe(Box<petrel::client::SubscribeCommand>),
    #[command(about = "Send a request and print the response")]
    Request(Box<petrel::client::RequestCommand>),
    #[command(about = "Load-test and measure any MQTT broker")]
    #[command(after_long_help = BENCH_HELP)]
    Bench(Box<petrel::bench::BenchCommand>),
    #[command(about = "Query or control a running broker over its control socket")]
    Ctl(ctl::ControlCommand),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  petrel completions bash > \
        /etc/bash_completion.d/petrel")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Arguments {
    /// Runs the command; errors are printed here, once.
    pub(crate) fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Passwd(command) => command.run(),
            Command::Certs(command) => command.run(),
            Command::Store(command) => command.run(),
            Command::Publish(command) => Ok(told(command.run())),
            Command::Subscribe(command) => Ok(told(command.run())),
            Command::Request(command) => Ok(told(command.run())),
            Command::Bench(command) => command.run().map_err(Into::into),
            Command::Ctl(command) => command.run().map(|()| ExitCode::SUCCESS),
            Command::Completions { shell } => completions(shell),
        };
        match result {
            Ok(code) => code,
            // The reader of our output has closed it, as `head` does.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&explain(&error));
                ExitCode::FAILURE
            }
        }
    }
}

/// Clients have an exit code for each kind of failure.
fn told(result: Result<ExitCode, petrel::client::ClientError>) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(&error.to_string());
        ExitCode::from(error.exit_code())
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The error and its causes in one line. Many errors already contain their cause, which is not repeated.
fn explain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "petrel", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line to standard output.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").map_err(Into::into)
}

/// Prints an error to standard error.
fn complain(line: &str) {
    // If standard error is closed, there is nowhere to report it.
    let _gone = writeln!(io::stderr(), "petrel: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn causes_are_said_once() {
        let cause = || anyhow::anyhow!("no such file");
        assert_eq!(explain(&cause().context("cannot open a")), "cannot open a: no such file");
        assert_eq!(explain(&cause().context("a: no such file")), "a: no such file");
    }

    #[test]
    fn every_command_has_a_long_help_that_says_more() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{name} shows no example:\n{help}");
            let short = command.clone().render_help().to_string();
            assert!(help.len() > short.len() || name == "completions", "{name} explains nothing");
        }
    }
}
