//! The configuration: every setting, defined once (`table`), read (`source`), and checked (`settings`).
//!
//! One TOML file and `PETREL_…` environment variables become a [`table::File`] (`source`), which is checked into
//! [`settings::Settings`] (`check`). All mistakes are collected on the way and reported together (`mistake`).

pub(crate) mod bounds;
pub(crate) mod bridge;
pub(crate) mod check;
pub mod choice;
pub(crate) mod conversion;
pub mod description;
pub(crate) mod difference;
pub(crate) mod document;
#[cfg(test)]
mod documentation;
pub(crate) mod environment;
pub mod mistake;
pub(crate) mod setting;
pub mod settings;
#[cfg(test)]
mod shipped;
pub mod source;
pub mod table;
pub(crate) mod value;
