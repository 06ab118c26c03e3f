//! The implementations of the durable port ([`crate::durable::Store`]): RocksDB, memory, and a double for tests that
//! loses what was not synced.

pub(crate) mod backup;
pub(crate) mod clock;
pub(crate) mod directory_lock;
pub mod disk;
pub mod error;
pub mod family;
pub mod faulty;
pub(crate) mod group;
pub mod image;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod load;
pub(crate) mod log_check;
pub(crate) mod log_format;
pub mod maintenance;
pub mod memory;
pub(crate) mod migration;
pub(crate) mod open;
pub mod operations;
pub mod options;
pub(crate) mod queue_page;
pub(crate) mod reclaim;
pub mod repair;
pub mod rocks;
pub(crate) mod salvage;
pub mod settings;
pub(crate) mod statistics;
pub(crate) mod survey;
pub(crate) mod upkeep;
pub(crate) mod value;
pub(crate) mod writer;
