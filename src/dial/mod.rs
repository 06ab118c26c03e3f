//! The client's side of the wire: where a remote broker is, and the way there up to where MQTT begins.
//!
//! Bridges, `petrel pub` and its like, and `petrel bench` connect through this. It knows nothing of their settings: what
//! they offer becomes an [`address`], [`tls`] settings and options of the socket ([`connect`]), and what their users can
//! do about an [`error`] they say themselves.

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod stream;
pub(crate) mod tls;
pub mod websocket;
