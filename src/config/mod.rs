//! The configuration: every setting defined once (`table`), read (`source`), checked, and ready to use (`settings`).
//!
//! One TOML file and `PETREL_…` environment variables become a [`table::File`] (`source`), which is checked into
//! [`settings::Settings`] (`check`). All mistakes are collected on the way and reported together (`mistake`).

pub mod bounds;
pub mod bridge;
pub mod check;
pub mod choice;
pub mod conversion;
pub mod description;
pub mod difference;
pub mod document;
pub mod environment;
pub mod mistake;
pub mod setting;
pub mod settings;
#[cfg(test)]
mod shipped;
pub mod source;
pub mod table;
pub mod value;
