//! `petrel store`: look after a store at rest.

use std::path::PathBuf;
use std::process::ExitCode;

use petrel::store::maintenance::{Health, StoreCommand, run};

use crate::cli::configuration::ConfigurationOptions;
use crate::cli::serve::keep_files_private;

/// Checks, repairs, counts, backs up and restores the store.
///
/// The broker must not run on the data directory meanwhile: a second user of it is refused, and the message names the
/// first. A backup is a directory with the files of the store, their checksums and nothing else.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel store check                                 read everything, change nothing
  petrel store repair                                set aside what cannot be read, mend the rest
  petrel store backup /var/backups/petrel/monday     into an empty or missing directory
  petrel store --data-dir ./data restore /var/backups/petrel/monday

Exit codes: 0 sound or done, 1 damaged or failed, 2 wrong command line.")]
pub(crate) struct StoreArguments {
    #[command(flatten)]
    configuration: ConfigurationOptions,
    /// The data directory [default: that of the configuration]
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
