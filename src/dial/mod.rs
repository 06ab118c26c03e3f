//! The client side of connections: addresses of remote brokers, and connecting to them up to the point where MQTT
//! begins.
//!
//! Bridges, `petrel pub` and the other clients, and `petrel bench` connect through this. It does not know their
//! settings: they pass an [`address`], [`tls`] settings and socket options ([`connect`]), and add their own hints to an
//! [`error`].

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod stream;
pub(crate) mod tls;
pub mod websocket;
