//! Implements [`crate::access`] with files: users, SCRAM-SHA-256, client certificates, and access rules.

pub mod acl_file;
pub mod authority;
mod mosquitto_passwords;
pub mod rules;
pub mod rules_file;
pub mod scram;
pub mod users;
