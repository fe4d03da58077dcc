// SPDX-License-Identifier: MIT
//! From the text of `rustbridge.conf.xml` to settings that are valid by construction.
//!
//! Two phases, neither of which does I/O: whoever has the XML turns it into a [`Section`] tree, and
//! [`Config::read`] turns that into a [`Config`] or into every problem at once. What parameters
//! there are stands in one table, [`mod@reference`].

pub mod amqp;
mod amqp_url;
pub mod choice;
pub mod delivery;
pub mod error;
pub mod file;
pub mod kafka;
pub mod kind;
mod librdkafka;
mod params;
mod read;
pub mod reference;
pub mod secret;
pub mod section;
pub mod template;
pub mod tls;

use std::{path::PathBuf, time::Duration};

use crate::{
    config::{
        amqp::AmqpConfig,
        delivery::{ClassConfig, DeadLetterConfig, QueueConfig, ReconnectConfig, SpoolSettings},
        file::FileConfig,
        kafka::KafkaConfig,
    },
    event::{names::EVENTS, selection::Selection},
};
#[cfg(test)]
pub(crate) use delivery::QUEUE_SLOT_BYTES;
pub use error::{ConfigError, Problem};
pub use section::Section;

/// The whole configuration of the module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Name of this switch in every message; `None`: the name that FreeSWITCH has for itself.
    pub node_name: Option<String>,
    /// How long unloading may take, everything included.
    pub shutdown_timeout: Duration,
    /// Larger events aren't captured but counted.
    pub max_event_bytes: usize,
    /// Whether calls that a crash of the switch ended are reported after its restart.
    pub live_calls: bool,
    /// The folder under which spools, dead letters and live calls are kept; `None`: `rustbridge`
    /// in FreeSWITCH's storage folder.
    pub storage_dir: Option<PathBuf>,
    /// Where events go; at least one.
    pub sinks: Vec<SinkConfig>,
}

/// One place that events go to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SinkConfig {
    /// Unique name out of letters, digits, `_` and `-`, at most 32.
    pub name: String,
    /// What it is, with what only that kind has.
    pub kind: SinkKind,
    /// Which events it wants; at least one.
    pub events: Selection,
    /// The queue in memory.
    pub queue: QueueConfig,
    /// The disk behind it.
    pub spool: SpoolSettings,
    /// What is shed first and last.
    pub classes: ClassConfig,
    /// How a lost connection is made again.
    pub reconnect: ReconnectConfig,
    /// How long events may wait for others to be sent with.
    pub linger: Duration,
    /// What becomes of an event that the broker won't take.
    pub dead_letters: DeadLetterConfig,
    /// A sink that isn't enabled is checked and otherwise as if it weren't there.
    pub enabled: bool,
}

/// What a sink writes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SinkKind {
    /// A file.
    File(FileConfig),
    /// A broker for AMQP 0-9-1.
    Amqp(AmqpConfig),
    /// A Kafka cluster.
    Kafka(KafkaConfig),
}

/// What a configuration is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Names of the events that the running FreeSWITCH has, `ALL` or not.
    pub events: &'a [&'a str],
    /// Whether there is a sink for AMQP in this library.
    pub amqp: bool,
    /// Whether there is a sink for Kafka in this library.
    pub kafka: bool,
    /// Says what only the client library knows to be wrong with a Kafka sink's properties, a line
    /// for each problem. Does no I/O.
    pub kafka_problems: fn(&KafkaConfig) -> Vec<String>,
}

/// The events of the newest FreeSWITCH, and what this library was built with.
impl Default for Known<'static> {
    fn default() -> Self {
        Self {
            events: EVENTS,
            amqp: cfg!(feature = "amqp"),
            kafka: cfg!(feature = "kafka"),
            kafka_problems: |_| Vec::new(),
        }
    }
}
