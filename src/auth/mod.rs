//! Implements the authentication port of [`crate::access`] with a users file, SCRAM-SHA-256 and client certificates.

pub mod authority;
pub mod scram;
pub mod users;
