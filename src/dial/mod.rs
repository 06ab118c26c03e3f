//! The client's side of the wire: where a remote broker is, and the way there up to where MQTT begins.
//!
//! Bridges, `petrel pub` and its like, and `petrel bench` connect through this. It knows nothing of their settings: what
//! they offer becomes values of this room, and what their users can do about an error they say themselves.

pub mod address;
pub mod websocket;
