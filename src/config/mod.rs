//! The configuration: as written (`file`), and checked and ready to use (`settings`).
//!
//! One TOML file and `PETREL_…` environment variables become a [`file::File`] (`source`), which is checked into
//! [`settings::Settings`] (`check`). All mistakes are collected on the way and reported together (`mistake`).

pub mod bridge;
pub mod check;
pub mod document;
pub mod environment;
pub mod file;
pub mod mistake;
pub mod settings;
#[cfg(test)]
mod shipped;
pub mod source;
pub mod value;
