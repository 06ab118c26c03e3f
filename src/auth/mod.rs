//! Answers to the questions of [`crate::access`]: a users file, SCRAM-SHA-256, client certificates.

pub mod authority;
pub mod scram;
pub mod users;
