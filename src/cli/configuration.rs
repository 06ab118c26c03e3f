//! Finds the configuration, for every command that needs it.

use std::path::{Path, PathBuf};

use petrel::config::mistake::ConfigError;
use petrel::config::settings::Settings;

/// Where it is searched, in this order, unless an option or variable names a file.
const PLACES: [&str; 2] = ["config/petrel.toml", "/etc/petrel/petrel.toml"];

/// The option that these commands share.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigurationOptions {
    /// The configuration file [default: ./config/petrel.toml, else /etc/petrel/petrel.toml, else built-in defaults]
    #[arg(short = 'c', long, value_name = "FILE", env = "PETREL_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigurationOptions {
    /// The options as if `--config` named this file.
    #[cfg(test)]
    pub(crate) fn of(file: &Path) -> Self {
        Self { config: Some(file.to_owned()) }
    }

    /// The file to use; `None` means that there is none and the built-in defaults apply.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let found = || PLACES.iter().map(PathBuf::from).find(|place| place.exists());
        self.config.clone().or_else(found)
    }

    /// Reads and checks it.
    pub(crate) fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(self.file().as_deref(), std::env::vars_os())
    }
}

/// The file as shown to people.
pub(crate) fn describe(file: Option<&Path>) -> String {
    match file {
        Some(file) => file.display().to_string(),
        None => format!("built-in defaults (there is no {})", PLACES.join(" and no ")),
    }
}
