//! The client's side of the wire: where a remote broker is, and the way there up to where MQTT begins.
//!
//! Bridges, `petrel pub` and its like, and `petrel bench` connect through this. It knows nothing of their settings: what
//! they offer becomes an [`address`], [`tls`] settings and options of the socket ([`connect`]), and what their users can
//! do about an [`error`] they say themselves.

pub mod address;
pub mod connect;
pub mod error;
pub mod stream;
pub mod tls;
pub mod websocket;
