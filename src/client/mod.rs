//! `petrel pub`, `petrel sub` and `petrel request`: clients for any MQTT broker, with the options that people know from
//! the mosquitto tools.
//!
//! They speak through the `rumqttc` crate, 3.1.1 and 5.0, on purpose not through this broker's own packets: what one of
//! them says about the other is a second opinion. It connects by itself, since it takes no stream of ours; where the broker
//! is, how TLS is spoken and what its failures mean is the business of [`crate::dial`]. [`connection`] makes one stream of
//! events of `rumqttc`'s two protocols; the commands only decide what to do with them. What `rumqttc` cannot do is refused
//! with its reason, never left out in silence.

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
