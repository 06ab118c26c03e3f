//! Finding the configuration, for every command that needs it.

use std::path::{Path, PathBuf};

use petrel::config::mistake::ConfigError;
use petrel::config::settings::Settings;

/// Where it is looked for, in this order, if nothing else is said.
const PLACES: [&str; 2] = ["config/petrel.toml", "/etc/petrel/petrel.toml"];

/// The option that all of them share.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigurationOptions {
    /// The configuration file [default: ./config/petrel.toml, else /etc/petrel/petrel.toml, else built-in defaults]
    #[arg(short = 'c', long, value_name = "FILE", env = "PETREL_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigurationOptions {
    /// As if this file had been named.
    #[cfg(test)]
    pub(crate) fn of(file: &Path) -> Self {
        Self { config: Some(file.to_owned()) }
    }

    /// The file that counts; `None`: there is none, the built-in defaults count.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let found = || PLACES.iter().map(PathBuf::from).find(|place| place.exists());
        self.config.clone().or_else(found)
    }

    /// Reads and checks it.
    pub(crate) fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(self.file().as_deref(), std::env::vars_os())
    }
}

/// The file as people call it.
pub(crate) fn describe(file: Option<&Path>) -> String {
    match file {
        Some(file) => file.display().to_string(),
        None => format!("built-in defaults (there is no {})", PLACES.join(" and no ")),
    }
}
