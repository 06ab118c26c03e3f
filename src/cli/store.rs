//! `petrel store`: maintenance of the store of a stopped broker.

use std::path::PathBuf;
use std::process::ExitCode;

use petrel::store::maintenance::{Health, StoreCommand, run};

use crate::cli::configuration::ConfigurationOptions;
use crate::cli::serve::keep_files_private;

/// Checks, repairs, inspects, backs up and restores the store.
///
/// The broker must be stopped: if a process is using the data directory, the command is refused and names that
/// process. A backup is a directory that contains only the files of the store and their checksums.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel store check                                 read everything, change nothing
  petrel store repair                                set unreadable data aside, repair the rest
  petrel store backup /var/backups/petrel/monday     the directory must be empty or missing
  petrel store --data-dir ./data restore /var/backups/petrel/monday

Exit codes: 0 sound or done, 1 damaged or failed, 2 wrong command line.")]
pub(crate) struct StoreArguments {
    #[command(flatten)]
    configuration: ConfigurationOptions,
    /// The data directory [default: from the configuration]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: StoreCommand,
}

impl StoreArguments {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let data_dir = match self.data_dir {
            Some(data_dir) => data_dir,
            None => self.configuration.load()?.data_dir,
        };
        keep_files_private();
        let health = run(&self.command, &data_dir, &mut std::io::stdout().lock())?;
        Ok(match health {
            Health::Sound => ExitCode::SUCCESS,
            Health::Damaged => ExitCode::FAILURE,
        })
    }
}
