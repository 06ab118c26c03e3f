//! The implementations of the durable port ([`crate::durable::Store`]): RocksDB, memory, and a double for tests that
//! loses what was not synced.

pub mod backup;
pub mod clock;
pub mod directory_lock;
pub mod disk;
pub mod error;
pub mod family;
pub mod faulty;
pub mod group;
pub mod image;
pub mod index;
pub mod key;
pub mod load;
pub mod log_check;
pub mod log_format;
pub mod maintenance;
pub mod memory;
pub mod migration;
pub mod open;
pub mod operations;
pub mod options;
pub mod queue_page;
pub mod reclaim;
pub mod repair;
pub mod rocks;
pub mod salvage;
pub mod settings;
pub mod statistics;
pub mod survey;
pub mod upkeep;
pub mod value;
pub mod writer;
