//! Every transport over real sockets, with an echo in place of MQTT.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a test fails the test")]

mod echo;
mod limits;
mod mqtt;
mod proxy_protocol;
mod sockets;
mod tls;
mod websocket;
