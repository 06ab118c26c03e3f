//! The options of `petrel sub`, as given and as checked.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rumqttc::v5::mqttbytes::v5::{Filter, RetainForwardRule};

use crate::client::connect::qos_v5;
use crate::client::error::ClientError;
use crate::client::format::{Ending, Format};
use crate::client::message::Incoming;
use crate::client::options::{ConnectionOptions, Settings, Version, parse_qos, parse_seconds};
use crate::client::runtime::Failures;
use crate::packet::QoS;
use crate::topic::filter::TopicFilter;
use crate::topic::name::TopicName;

/// Subscribe and print the messages received
///
/// The options are those of `mosquitto_sub`. Payloads are written raw, each followed by a newline (unless -N is
/// given). A QoS 1 or 2 message is acknowledged only after it is written to standard output. A lost connection is
/// reopened after 1 to 30 seconds, with its subscriptions; SIGINT, SIGTERM and a closed standard output end the
/// command in an orderly way.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, after_long_help = FORMATS)]
pub struct SubscribeCommand {
    /// Topic filter; may be repeated, and may also be given in the URL of -L
    #[arg(short, long, value_name = "FILTER")]
    topic: Vec<String>,
    /// Highest QoS to receive with: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Stop after this many messages
    #[arg(short = 'C', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this many seconds, with exit code 27
    #[arg(short = 'W', long = "timeout", value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Stop when the broker has acknowledged the subscription; with -c and -i this sets up a durable session
    #[arg(short = 'E')]
    exit_after_suback: bool,
    /// Unsubscribe from this filter first, for resumed sessions
    #[arg(short = 'U', long, value_name = "FILTER")]
    unsubscribe: Vec<String>,
    /// Stop when the connection is lost, with exit code 3
    #[arg(long)]
    no_reconnect: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// How messages are printed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(in crate::client) struct OutputOptions {
    /// Print the topic before each payload
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// Print in this format; `json` is short for %j. See below
    #[arg(short = 'F', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print no newline after a message
    #[arg(short = 'N')]
    no_newline: bool,
}

/// Which messages are received and printed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Selection")]
struct SelectionOptions {
    /// Do not print messages whose topic matches this filter; may be repeated
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Do not print messages that the broker had retained before the subscription
    #[arg(short = 'R')]
    no_stale: bool,
    /// Print retained messages only, and stop at the first one that is not
    #[arg(long, conflicts_with = "no_stale")]
    retained_only: bool,
    /// Remove each retained message received, by publishing an empty one
    #[arg(long)]
    remove_retained: bool,
    /// Keep the retain flag as published (5.0)
    #[arg(long)]
    retain_as_published: bool,
    /// When to send retained messages: always, new (only for a new subscription) or never (5.0)
    #[arg(long, value_name = "WHEN")]
    retain_handling: Option<RetainHandling>,
    /// Do not receive messages published by this client (5.0)
    #[arg(long)]
    no_local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RetainHandling {
    Always,
    New,
    Never,
}

/// The subscriptions, and how to handle their messages.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) filters: Vec<Filter>,
    pub(super) unsubscribe: Vec<String>,
    pub(super) format: Format,
    pub(super) count: Option<u64>,
    pub(super) timeout: Option<Duration>,
    pub(super) exits_after_suback: bool,
    pub(super) reconnects: bool,
    pub(super) removes_retained: bool,
    filter_out: Vec<TopicFilter>,
    no_stale: bool,
    retained_only: bool,
}

impl SubscribeCommand {
    pub(super) fn failures(&self) -> Failures {
        self.connection.failures()
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the option.
    pub(super) fn check(self) -> Result<(Settings, Subscription), ClientError> {
        let selection = &self.selection;
        let (settings, url_topic) = self.connection.settings(Version::V311)?;
        let needs_5 = match selection {
            _ if settings.version == Version::V5 => None,
            SelectionOptions { retain_as_published: true, .. } => Some("--retain-as-published"),
            SelectionOptions { retain_handling: Some(_), .. } => Some("--retain-handling"),
            SelectionOptions { no_local: true, .. } => Some("--no-local"),
            _ => None,
        };
        if let Some(option) = needs_5 {
            return Err(ClientError::Usage(format!("{option} needs MQTT 5.0: -V 5")));
        }
        let topics: Vec<String> = self.topic.into_iter().chain(url_topic).collect();
        if topics.is_empty() && self.unsubscribe.is_empty() {
            return Err(ClientError::Usage("-t FILTER is missing".to_owned()));
        }
        let filters: Result<Vec<Filter>, ClientError> =
            topics.into_iter().map(|topic| filter(topic, self.qos, selection)).collect();
        for unsubscribe in &self.unsubscribe {
            check_filter("-U", unsubscribe)?;
        }
        let filter_out: Result<Vec<TopicFilter>, ClientError> =
            selection.filter_out.iter().map(|text| check_filter("-T", text)).collect();
        let subscription = Subscription {
            filters: filters?,
            unsubscribe: self.unsubscribe,
            format: self.output.format()?,
            count: self.count,
            timeout: self.timeout,
            exits_after_suback: self.exit_after_suback,
            reconnects: !self.no_reconnect,
            removes_retained: selection.remove_retained,
            filter_out: filter_out?,
            no_stale: selection.no_stale,
            retained_only: selection.retained_only,
        };
        Ok((settings, subscription))
    }
}

impl OutputOptions {
    /// The format that these options ask for.
    ///
    /// # Errors
    /// [`ClientError::Usage`] says what is wrong with it.
    pub(in crate::client) fn format(&self) -> Result<Format, ClientError> {
        let ending = if self.no_newline { Ending::None } else { Ending::Line };
        match &self.format {
            Some(text) => Format::parse(text, ending)
                .map_err(|error| ClientError::Usage(format!("-F: {error}"))),
            None if self.verbose => Ok(Format::verbose(ending)),
            None => Ok(Format::payload(ending)),
        }
    }
}

impl Subscription {
    /// Whether the message counts.
    pub(super) fn wants(&self, message: &Incoming) -> bool {
        let Ok(topic) = TopicName::parse(&message.topic) else { return true };
        !self.filter_out.iter().any(|filter| filter.matches(&topic))
    }

    /// Whether the message is printed.
    pub(super) fn prints(&self, message: &Incoming) -> bool {
        !(message.retain && self.no_stale)
    }

    /// Whether the message shows that nothing more will come.
    pub(super) fn ends_with(&self, message: &Incoming) -> bool {
        self.retained_only && !message.retain
    }
}

fn filter(path: String, qos: QoS, selection: &SelectionOptions) -> Result<Filter, ClientError> {
    check_filter("-t", &path)?;
    Ok(Filter {
        path,
        qos: qos_v5(qos),
        nolocal: selection.no_local,
        preserve_retain: selection.retain_as_published,
        retain_forward_rule: match selection.retain_handling {
            None | Some(RetainHandling::Always) => RetainForwardRule::OnEverySubscribe,
            Some(RetainHandling::New) => RetainForwardRule::OnNewSubscribe,
            Some(RetainHandling::Never) => RetainForwardRule::Never,
        },
    })
}

/// Checks a topic filter and returns what it matches, without the group of a shared one.
pub(in crate::client) fn check_filter(
    option: &str,
    text: &str,
) -> Result<TopicFilter, ClientError> {
    match TopicFilter::parse(text) {
        Ok(parsed) => Ok(parsed.filter),
        Err(error) => Err(ClientError::Usage(format!("{option} {text}: {error}"))),
    }
}

/// The help after the options of `petrel sub` and `petrel request`.
const FORMATS: &str = "\
Formats (-F), as of mosquitto_sub; a token may have a width: %10t, %-10t, %.20p
  %p payload        %x %X payload in hexadecimal     %l length of the payload
  %t topic          %q QoS     %r retain flag        %m packet identifier
  %j JSON object (json is short for it)              %J the same, the payload being JSON itself
  %I time: 2016-08-10T09:47:38+0000                  %U seconds since 1970 with nanoseconds
  @Y @m @d @H @M @S @N @j @F @T @s @z ...: as strftime; all times are UTC
  MQTT 5.0: %A topic alias  %C content type  %D correlation data  %E message expiry  %F payload format
            %P user properties  %R response topic  %S subscription identifiers
  %% @@ \\\\ \\n \\r \\t \\0 \\a \\e \\v
  JSON: payloads (and correlation data) that are not UTF-8 stand in payload_base64 instead of payload.

Examples:
  petrel sub -t 'room/#' -v
  petrel sub -t '#' -F json | jq .topic
  petrel sub -t 'room/+/temperature' -F '@H:@M:@S %-30t %p'
  petrel sub -t jobs -q 1 -c -i worker-1               a durable session: misses nothing while away
  petrel sub -t '$share/workers/jobs' -q 1             each message to one of the group
  petrel sub -t state -C 1 -W 5                        the retained message, or exit code 27
  petrel sub -t 'old/#' --remove-retained --retained-only -W 5

Exit codes:
  0  done, or ended by a signal or a closed output     4  TLS
  1  standard output cannot be written                 5  the broker refused the connection
  2  the command line is wrong                         6  the broker refused the subscription
  3  no connection at the start, or lost               27  -W: the time is over";
