//! `petrel pub`, `petrel sub` and `petrel request`: clients for any MQTT broker, with the options of the mosquitto
//! tools.
//!
//! They use the `rumqttc` crate, for 3.1.1 and 5.0, and deliberately not this broker's own codec, so that each checks the
//! other. `rumqttc` opens its own connections, because it accepts no existing stream; addresses, TLS settings and the
//! meaning of failures come from [`crate::dial`]. [`connection`] merges `rumqttc`'s two protocols into one stream of
//! events; the commands only decide how to handle them. Features that `rumqttc` lacks are refused with a reason, never
//! silently ignored.

mod address;
mod connect;
mod connection;
mod error;
mod event;
mod format;
mod input;
mod message;
mod options;
mod property;
mod publish;
mod reason;
mod request;
mod runtime;
mod subscribe;
mod timestamp;

pub use error::ClientError;
pub use publish::PublishCommand;
pub use request::RequestCommand;
pub use subscribe::SubscribeCommand;
