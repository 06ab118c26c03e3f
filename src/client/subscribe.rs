//! `petrel sub`: prints messages, and acknowledges each one only after it is printed.

mod options;
mod printer;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::event::{Accepted, Event};
use crate::client::message::{Incoming, Outgoing};
use crate::client::options::Settings;
use crate::client::runtime::{Console, Interrupt, leave, run, sleep_until};
use crate::packet::QoS;

pub use options::SubscribeCommand;

pub(super) use options::OutputOptions;
pub(super) use printer::{Printed, Printer};

use options::Subscription;

/// The first pause before reconnecting, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// After a connection that lasted this long, the pauses start over.
const STABLE: Duration = Duration::from_secs(10);

impl SubscribeCommand {
    /// Subscribes and prints.
    ///
    /// # Errors
    /// [`ClientError`] if it ended early.
    pub fn run(self) -> Result<ExitCode, ClientError> {
        run(self.failures(), self.subscribe())
    }

    async fn subscribe(self) -> Result<(), ClientError> {
        let started = Instant::now();
        let failures = self.failures();
        let (settings, subscription) = self.check()?;
        let console = Console { failures, notes: settings.is_chatty };
        let deadline = subscription.timeout.map(|timeout| started + timeout);
        let subscriber = Subscriber {
            printer: Printer::new(subscription.format.clone()),
            settings,
            console,
            deadline,
            unreleased: HashSet::new(),
            left: subscription.count,
            subscription,
            cleanups: 0,
            was_connected: false,
        };
        subscriber.run(Interrupt::listen()?).await
    }
}

struct Subscriber {
    settings: Settings,
    subscription: Subscription,
    printer: Printer,
    console: Console,
    deadline: Option<Instant>,
    /// QoS 2 messages that were printed and not yet released: they are not printed again. [MQTT-4.3.3-10]
    unreleased: HashSet<u16>,
    /// Messages that are still to be printed, with `-C`.
    left: Option<u64>,
    /// Retained messages whose removal is not yet acknowledged.
    cleanups: u32,
    was_connected: bool,
}

/// How a connection ended.
enum End {
    /// Everything requested is done.
    Done,
    /// The time of `-W` is over.
    TimedOut,
    /// It was lost.
    Lost(ClientError),
}

impl Subscriber {
    async fn run(mut self, mut interrupt: Interrupt) -> Result<(), ClientError> {
        let mut pause = PAUSES.0;
        loop {
            let opened = Instant::now();
            let mut connection = Connection::open(&self.settings)?;
            let end = match self.serve(&mut connection, &mut interrupt).await {
                Ok(End::Lost(error)) => error,
                Ok(end) => {
                    leave(connection).await;
                    return match end {
                        End::TimedOut => Err(ClientError::TimedOut(
                            self.subscription.timeout.unwrap_or_default(),
                        )),
                        _ => Ok(()),
                    };
                }
                Err(error) => {
                    leave(connection).await;
                    return Err(error);
                }
            };
            if !self.was_connected || !self.subscription.reconnects || !end.is_passing() {
                return Err(end);
            }
            if opened.elapsed() >= STABLE {
                pause = PAUSES.0;
            }
            let seconds = pause.as_secs();
            self.console.warn(&format!("{end}; retrying in {seconds} s"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = interrupt.wait() => return Ok(()),
                () = sleep_until(self.deadline) => {
                    return Err(ClientError::TimedOut(self.subscription.timeout.unwrap_or_default()));
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Serves one connection until it ends or all is done.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        interrupt: &mut Interrupt,
    ) -> Result<End, ClientError> {
        loop {
            let event = match connection.ready_event() {
                Some(event) => event,
                // Nothing more has arrived: print the collected output before waiting.
                None => {
                    if self.print(connection)? == Printed::NobodyReads {
                        return Ok(End::Done);
                    }
                    tokio::select! {
                        event = connection.event() => event,
                        () = sleep_until(self.deadline) => return Ok(End::TimedOut),
                        () = interrupt.wait() => return Ok(End::Done),
                    }
                }
            };
            if let Event::Lost(error) = event {
                // The broker will send unacknowledged messages again.
                self.printer.flush()?;
                self.printer.forget();
                return Ok(End::Lost(error));
            }
            let is_done = self.handle(event, connection)?;
            let must_print = is_done || self.printer.is_full();
            if must_print && self.print(connection)? == Printed::NobodyReads || is_done {
                return Ok(End::Done);
            }
            // Checked here, too, because an endless stream of messages must not hide them.
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.print(connection)?;
                return Ok(End::TimedOut);
            }
        }
    }

    /// Writes what was collected, then acknowledges it.
    fn print(&mut self, connection: &Connection) -> Result<Printed, ClientError> {
        let printed = self.printer.flush()?;
        if printed == Printed::All {
            for (qos, packet_id) in self.printer.take_acknowledgements() {
                connection.acknowledge(qos, packet_id);
            }
        }
        Ok(printed)
    }

    /// Handles an event; true when all is done.
    fn handle(&mut self, event: Event, connection: &Connection) -> Result<bool, ClientError> {
        match event {
            Event::Connected(accepted) => self.handle_connected(&accepted, connection),
            Event::Message(message) => return Ok(self.handle_message(message, connection)),
            Event::Released(packet_id) => {
                self.unreleased.remove(&packet_id);
            }
            Event::Subscribed(results) => {
                self.handle_subscribed(&results)?;
                return Ok(self.subscription.exits_after_suback);
            }
            Event::Unsubscribed(results) => {
                for reason in results.iter().filter_map(|result| result.as_ref().err()) {
                    self.console.warn(&format!("unsubscribing: {reason}"));
                }
            }
            Event::Acknowledged(_, result) => {
                self.cleanups = self.cleanups.saturating_sub(1);
                if let Err(reason) = result {
                    self.console.warn(&format!("a retained message was not removed: {reason}"));
                }
                return Ok(self.left == Some(0) && self.cleanups == 0);
            }
            Event::Note(text) => self.console.note(|| text),
            _ => {}
        }
        Ok(false)
    }

    fn handle_connected(&mut self, accepted: &Accepted, connection: &Connection) {
        self.was_connected = true;
        let kind = if accepted.session_present { "resumed" } else { "new" };
        self.console.note(|| format!("connected to {}, {kind} session", self.settings.address()));
        if !accepted.session_present {
            self.unreleased.clear();
        }
        let properties = &self.settings.properties;
        for filter in &self.subscription.unsubscribe {
            connection.unsubscribe(filter, properties.unsubscribe.as_ref());
        }
        if !self.subscription.filters.is_empty() {
            connection.subscribe(&self.subscription.filters, properties.subscribe.as_ref());
        }
    }

    fn handle_subscribed(&self, results: &[Result<QoS, String>]) -> Result<(), ClientError> {
        let mut refusals = Vec::new();
        for (filter, result) in self.subscription.filters.iter().zip(results) {
            match result {
                Ok(qos) => {
                    self.console
                        .note(|| format!("subscribed to {}, QoS {}", filter.path, *qos as u8));
                }
                Err(reason) => refusals.push(format!("{}: {reason}", filter.path)),
            }
        }
        if refusals.len() == results.len() && !refusals.is_empty() {
            let address = self.settings.address();
            let text = format!("{address} refused the subscription to {}", refusals.join("; "));
            return Err(ClientError::Rejected(text));
        }
        for refusal in refusals {
            self.console.warn(&format!("the broker refused the subscription to {refusal}"));
        }
        Ok(())
    }

    /// Handles a message; true if it was the last one wanted.
    fn handle_message(&mut self, message: Incoming, connection: &Connection) -> bool {
        // No longer wanted: it stays unacknowledged, and a durable session gets it next time.
        if self.left == Some(0) {
            return false;
        }
        if self.subscription.ends_with(&message) {
            return true;
        }
        let is_new = message.qos != QoS::ExactlyOnce || self.unreleased.insert(message.packet_id);
        if !is_new || !self.subscription.wants(&message) {
            self.printer.acknowledge(&message);
            return false;
        }
        if message.retain && self.subscription.removes_retained {
            self.cleanups += 1;
            connection.publish(Outgoing {
                topic: message.topic.clone(),
                qos: QoS::AtLeastOnce,
                retain: true,
                payload: bytes::Bytes::new(),
                properties: None,
            });
        }
        if self.subscription.prints(&message) {
            self.printer.print(&message);
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        self.printer.acknowledge(&message);
        self.left == Some(0) && self.cleanups == 0
    }
}
