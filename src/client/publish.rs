//! `petrel pub`: sends messages, and succeeds only when the broker has acknowledged the last of them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::event::{Accepted, Event};
use crate::client::input::{PayloadOptions, Source};
use crate::client::message::Outgoing;
use crate::client::options::{
    ConnectionOptions, Settings, Version, check_topic, parse_qos, parse_seconds,
};
use crate::client::runtime::{Console, Interrupt, leave, run, sleep_until};
use crate::packet::QoS;

/// Most messages in flight; the broker may allow fewer.
const WINDOW: u16 = 500;

/// Publish messages to a broker
///
/// The options are those of `mosquitto_pub`. With QoS 1 and 2, exit code 0 means that the broker has acknowledged every
/// message (PUBACK or PUBCOMP). With QoS 0 it means that everything was sent, and that the broker closed the connection
/// after DISCONNECT or had 300 ms to do so.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_long_help = "\
Examples:
  petrel pub -t room/temperature -m 21.5
  petrel pub -t room/temperature -m 21.5 -q 1 -r           retained; exit code 0: acknowledged
  petrel pub -t room/temperature -n -r                     clear the retained message
  petrel pub -t firmware -f image.bin -q 2
  sensor | petrel pub -t readings -q 1 -l                  one message per line
  petrel pub -t a -m x -D publish content-type text/plain -D publish user-property key value
  petrel pub -L mqtts://ann:secret@broker.example/alarm --cafile ca.crt -m fire
  petrel pub -t a -m x --repeat 10 --repeat-delay 0.5

Exit codes:
  0  all sent, and acknowledged if QoS is 1 or 2       5  the broker refused the connection
  1  cannot read a file or standard input              6  the broker rejected a message
  2  wrong command line                                27  -W: timed out
  3  no connection, or it was lost                     130  interrupted
  4  TLS

Not available, because the MQTT library (rumqttc) does not support it: MQTT 3.1, AUTH, properties
of DISCONNECT."
)]
pub struct PublishCommand {
    /// Topic; may also be given in the URL of -L
    #[arg(short, long)]
    topic: Option<String>,
    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Retain the message for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Send the message this many times
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "stdin_line")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Seconds between repetitions
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds)]
    repeat_delay: Duration,
    /// Give up after this many seconds, with exit code 27
    #[arg(short = 'W', long = "timeout", value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    #[command(flatten)]
    payload: PublishPayload,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// The payload, or many of them.
#[derive(Debug, Clone, Args)]
struct PublishPayload {
    #[command(flatten)]
    single: PayloadOptions,
    /// Send each line of standard input as a message; empty lines are skipped
    #[arg(short = 'l', long, group = "payload")]
    stdin_line: bool,
}

/// What is sent, except for the payload.
struct Template {
    topic: String,
    qos: QoS,
    retain: bool,
}

impl PublishCommand {
    /// Publishes.
    ///
    /// # Errors
    /// [`ClientError`] says what was not done, and why.
    pub fn run(self) -> Result<ExitCode, ClientError> {
        run(self.connection.failures(), self.publish())
    }

    async fn publish(self) -> Result<(), ClientError> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let (settings, url_topic) = self.connection.settings(Version::V311)?;
        let topic = self.topic.or(url_topic);
        let topic = topic.ok_or_else(|| ClientError::Usage("-t TOPIC is missing".to_owned()))?;
        check_topic(&topic).map_err(|error| ClientError::Usage(format!("-t: {error}")))?;
        // Signals are noticed from here on: before, nothing is lost by ending at once.
        let interrupt = Interrupt::listen()?;
        let source = if self.payload.stdin_line {
            Source::lines()?
        } else {
            let payload = self.payload.single.read()?;
            Source::repeated(payload, self.repeat, self.repeat_delay)
        };
        let console = Console { failures: self.connection.failures(), notes: settings.is_chatty };
        let publisher = Publisher {
            connection: Connection::open(&settings)?,
            template: Template { topic, qos: self.qos, retain: self.retain },
            settings,
            console,
            source: Some(source),
            window: 0,
            unwritten: 0,
            unacknowledged: 0,
        };
        let patience = self.timeout.unwrap_or_default();
        publisher.run(interrupt, deadline, patience).await
    }
}

struct Publisher {
    connection: Connection,
    settings: Settings,
    template: Template,
    console: Console,
    /// `None` behind its last payload.
    source: Option<Source>,
    /// Zero until the broker has said CONNACK.
    window: u16,
    unwritten: u16,
    unacknowledged: u16,
}

/// What is to be done next.
enum NextEvent {
    Event(Event),
    Payload(Option<bytes::Bytes>),
    TimedOut,
    Interrupted,
}

impl Publisher {
    async fn run(
        mut self,
        mut interrupt: Interrupt,
        deadline: Option<Instant>,
        patience: Duration,
    ) -> Result<(), ClientError> {
        let result = loop {
            if self.source.is_none() && self.unwritten == 0 && self.unacknowledged == 0 {
                break Ok(());
            }
            match self.step(&mut interrupt, deadline).await {
                Ok(NextEvent::Event(Event::Lost(error))) => return Err(self.lost(error)),
                Ok(NextEvent::Event(event)) => {
                    if let Err(error) = self.handle(event) {
                        break Err(error);
                    }
                }
                Ok(NextEvent::Payload(Some(payload))) => self.send(payload),
                Ok(NextEvent::Payload(None)) => self.source = None,
                Ok(NextEvent::TimedOut) => break Err(ClientError::TimedOut(patience)),
                Ok(NextEvent::Interrupted) => break Err(ClientError::Interrupted),
                Err(error) => break Err(error),
            }
        };
        if self.window > 0 {
            leave(self.connection).await;
        }
        result
    }

    async fn step(
        &mut self,
        interrupt: &mut Interrupt,
        deadline: Option<Instant>,
    ) -> Result<NextEvent, ClientError> {
        let has_room = self.unwritten + self.unacknowledged < self.window;
        let source = self.source.as_mut().filter(|_| has_room);
        let payload = async {
            match source {
                Some(source) => source.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.connection.event() => Ok(NextEvent::Event(event)),
            payload = payload => payload.map(NextEvent::Payload),
            () = sleep_until(deadline) => Ok(NextEvent::TimedOut),
            () = interrupt.wait() => Ok(NextEvent::Interrupted),
        }
    }

    fn send(&mut self, payload: bytes::Bytes) {
        self.unwritten += 1;
        self.connection.publish(Outgoing {
            topic: self.template.topic.clone(),
            qos: self.template.qos,
            retain: self.template.retain,
            payload,
            properties: self.settings.properties.publish.clone(),
        });
    }

    fn handle(&mut self, event: Event) -> Result<(), ClientError> {
        match event {
            Event::Connected(accepted) => {
                self.check(&accepted)?;
                self.window = accepted.receive_maximum.unwrap_or(WINDOW).clamp(1, WINDOW);
                self.console.note(|| format!("connected to {}", self.settings.address()));
            }
            Event::Written(packet_id) => {
                self.unwritten = self.unwritten.saturating_sub(1);
                if self.template.qos > QoS::AtMostOnce {
                    self.unacknowledged += 1;
                }
                self.console.note(|| format!("sent PUBLISH {packet_id}"));
            }
            Event::Acknowledged(packet_id, Ok(())) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                self.console.note(|| format!("message {packet_id} is acknowledged"));
            }
            Event::Acknowledged(_, Err(reason)) => {
                let topic = &self.template.topic;
                let text =
                    format!("{} rejected a message to {topic}: {reason}", self.settings.address());
                return Err(ClientError::Rejected(text));
            }
            Event::Note(text) => self.console.note(|| text),
            _ => {}
        }
        Ok(())
    }

    /// Requesting a feature that the broker does not have would be a protocol error. [MQTT-3.2.2-11] [MQTT-3.2.2-14]
    fn check(&self, accepted: &Accepted) -> Result<(), ClientError> {
        let address = self.settings.address();
        match accepted.max_qos {
            Some(max) if max < self.template.qos => {
                let text = format!("{address} accepts only messages up to QoS {}", max as u8);
                return Err(ClientError::Rejected(text));
            }
            _ => {}
        }
        if self.template.retain && !accepted.retains {
            return Err(ClientError::Rejected(format!(
                "{address} does not support retained messages"
            )));
        }
        Ok(())
    }

    /// Reports the number of unacknowledged messages when the connection is lost.
    fn lost(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Lost { address, reason } => {
                let open = self.unwritten + self.unacknowledged;
                let reason = match open {
                    0 => reason,
                    1 => format!("{reason}; one message is not acknowledged"),
                    open => format!("{reason}; {open} messages are not acknowledged"),
                };
                ClientError::Lost { address, reason }
            }
            other => other,
        }
    }
}
