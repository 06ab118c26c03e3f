//! `petrel request`: sends a request and prints the response.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use rand::RngCore as _;
use rumqttc::v5::mqttbytes::v5::{Filter, PublishProperties};
use tokio::time::Instant;

use crate::client::connect::qos_v5;
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::input::PayloadOptions;
use crate::client::message::{Incoming, Outgoing};
use crate::client::options::{
    ConnectionOptions, Settings, Version, check_topic, parse_qos, parse_seconds,
};
use crate::client::runtime::{Console, Interrupt, leave, run, sleep_until};
use crate::client::subscribe::{OutputOptions, Printed, Printer};
use crate::packet::QoS;

/// Send a request and print the response
///
/// The options are those of `mosquitto_rr`. The command subscribes to the response topic, then publishes the request.
/// With MQTT 5.0, the default here, the request contains the response topic and correlation data (random, unless set
/// with -D); messages with different correlation data are ignored, messages without any are accepted. With 3.1.1 the
/// responder must know the response topic, and the first message there is the response. Retained messages are ignored.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_long_help = "\
Examples:
  petrel request -t time/now -e reply/me -n
  petrel request -t sum -e reply/me -m '[1,2]' -F json -W 5
  petrel request -V 311 -t sum -e sum/result -m '[1,2]'

To try it, run `petrel sub -t sum -F '%R' -V 5`, which shows where the response is expected.

Exit codes are those of `petrel pub`; 27: no response within the time of -W. Formats are those of
`petrel sub`."
)]
pub struct RequestCommand {
    /// Topic of the request; may also be given in the URL of -L
    #[arg(short, long)]
    topic: Option<String>,
    /// Topic of the response
    #[arg(short = 'e', long, value_name = "TOPIC")]
    response_topic: String,
    /// QoS of the request and of the subscription: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Retain the request for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Wait for this many responses
    #[arg(short = 'C', value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Give up after this many seconds, with exit code 27
    #[arg(short = 'W', long = "timeout", value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    #[command(flatten)]
    payload: PayloadOptions,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    connection: ConnectionOptions,
}

impl RequestCommand {
    /// Sends the request and waits for the response.
    ///
    /// # Errors
    /// [`ClientError`] says what went wrong.
    pub fn run(self) -> Result<ExitCode, ClientError> {
        run(self.connection.failures(), self.request())
    }

    async fn request(self) -> Result<(), ClientError> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let (settings, url_topic) = self.connection.settings(Version::V5)?;
        let topic = self.topic.or(url_topic);
        let topic = topic.ok_or_else(|| ClientError::Usage("-t TOPIC is missing".to_owned()))?;
        for (option, topic) in [("-t", &topic), ("-e", &self.response_topic)] {
            check_topic(topic).map_err(|error| ClientError::Usage(format!("{option}: {error}")))?;
        }
        let properties = match settings.version {
            Version::V5 => Some(request_properties(&settings, &self.response_topic)?),
            Version::V311 => None,
        };
        let interrupt = Interrupt::listen()?;
        let request = Outgoing {
            topic,
            qos: self.qos,
            retain: self.retain,
            payload: self.payload.read()?,
            properties,
        };
        let requester = Requester {
            correlation: request.properties.as_ref().and_then(|p| p.correlation_data.clone()),
            request: Some(request),
            response_topic: self.response_topic,
            qos: self.qos,
            printer: Printer::new(self.output.format()?),
            left: self.count,
            console: Console { failures: self.connection.failures(), notes: settings.is_chatty },
            settings,
        };
        requester.run(interrupt, deadline, self.timeout.unwrap_or_default()).await
    }
}

fn request_properties(
    settings: &Settings,
    response_topic: &str,
) -> Result<PublishProperties, ClientError> {
    let mut properties = settings.properties.publish.clone().unwrap_or_default();
    if properties.response_topic.is_some() {
        let reason = "-e and -D publish response-topic mean the same; leave out -D";
        return Err(ClientError::Usage(reason.to_owned()));
    }
    properties.response_topic = Some(response_topic.to_owned());
    properties.correlation_data.get_or_insert_with(|| {
        let mut data = [0; 16];
        rand::rng().fill_bytes(&mut data);
        // Hexadecimal, because simple responders treat it as text.
        Bytes::from(crate::client::format::hexadecimal(&data))
    });
    Ok(properties)
}

struct Requester {
    settings: Settings,
    response_topic: String,
    qos: QoS,
    /// `None` when it is sent.
    request: Option<Outgoing>,
    correlation: Option<Bytes>,
    printer: Printer,
    left: u64,
    console: Console,
}

impl Requester {
    async fn run(
        mut self,
        mut interrupt: Interrupt,
        deadline: Option<Instant>,
        patience: Duration,
    ) -> Result<(), ClientError> {
        let mut connection = Connection::open(&self.settings)?;
        let result = loop {
            let event = tokio::select! {
                event = connection.event() => event,
                () = sleep_until(deadline) => break Err(ClientError::NoResponse(patience)),
                () = interrupt.wait() => break Err(ClientError::Interrupted),
            };
            match self.handle(event, &connection) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error @ (ClientError::Lost { .. } | ClientError::Connect { .. })) => {
                    return Err(error);
                }
                Err(error) => break Err(error),
            }
        };
        leave(connection).await;
        result
    }

    /// Handles an event; true when all responses are there.
    fn handle(&mut self, event: Event, connection: &Connection) -> Result<bool, ClientError> {
        match event {
            Event::Connected(_) => {
                let filter = Filter::new(self.response_topic.clone(), qos_v5(self.qos));
                connection.subscribe(&[filter], self.settings.properties.subscribe.as_ref());
            }
            Event::Subscribed(results) => {
                if let Some(reason) = results.into_iter().find_map(Result::err) {
                    let topic = &self.response_topic;
                    return Err(self.rejected(&format!("the subscription to {topic}: {reason}")));
                }
                if let Some(request) = self.request.take() {
                    connection.publish(request);
                }
            }
            Event::Acknowledged(_, Err(reason)) => {
                return Err(self.rejected(&format!("the request: {reason}")));
            }
            Event::Message(message) => return self.handle_message(&message, connection),
            Event::Note(text) => self.console.note(|| text),
            Event::Lost(error) => return Err(error),
            _ => {}
        }
        Ok(false)
    }

    fn handle_message(
        &mut self,
        message: &Incoming,
        connection: &Connection,
    ) -> Result<bool, ClientError> {
        let is_response = self.is_response(message);
        if is_response {
            self.printer.print(message);
        }
        self.printer.acknowledge(message);
        let printed = self.printer.flush()?;
        if printed == Printed::NobodyReads {
            return Ok(true);
        }
        for (qos, packet_id) in self.printer.take_acknowledgements() {
            connection.acknowledge(qos, packet_id);
        }
        self.left -= u64::from(is_response);
        Ok(self.left == 0)
    }

    fn is_response(&self, message: &Incoming) -> bool {
        let is_ours = match (&self.correlation, &message.properties().correlation_data) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.request.is_none() && !message.retain && is_ours && message.topic == self.response_topic
    }

    fn rejected(&self, what: &str) -> ClientError {
        ClientError::Rejected(format!("{} rejected {what}", self.settings.address()))
    }
}
