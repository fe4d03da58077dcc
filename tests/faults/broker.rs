// SPDX-License-Identifier: MIT
//! RabbitMQ or Kafka, as far as a row does not care which.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use crate::support::certificates::{Authority, Certificate};
use crate::support::clients::{self, Message};
use crate::support::kafka::{Kafka, KafkaOptions};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::rough_line::free_network;
use crate::support::skips::{self, Missing};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RabbitMq,
    Kafka,
}

impl Kind {
    pub(crate) fn named(name: &str) -> Self {
        if name.starts_with("kafka") { Self::Kafka } else { Self::RabbitMq }
    }

    /// What a sink of this kind has in flight at most, here: the bound on what one incident may deliver twice.
    pub(crate) fn window(self) -> usize {
        match self {
            // As the module comes, and never more.
            Self::RabbitMq => 4096,
            // The client library numbers what it sends, and the broker throws a repetition away.
            Self::Kafka => 0,
        }
    }
}

/// A running broker, and who signs its certificate.
#[derive(Debug)]
pub(crate) enum Broker {
    RabbitMq(RabbitMq, Authority),
    Kafka(Kafka, Authority),
}

/// A broker that rows take in turns; it ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Broker>>);

type Place = Mutex<Weak<Mutex<Broker>>>;

/// Held together by all who start a broker, or alone by who takes the processors from everybody. Rows of the two brokers run
/// side by side, and a node that starts without time is not up within its limit.
static PROCESSORS: RwLock<()> = RwLock::new(());

/// While this is held, nobody takes all of the processors: for a start.
pub(crate) fn starting() -> RwLockReadGuard<'static, ()> {
    PROCESSORS.read().unwrap_or_else(PoisonError::into_inner)
}

/// While this is held, no broker starts: for a row that leaves no time to others.
pub(crate) fn starving() -> RwLockWriteGuard<'static, ()> {
    PROCESSORS.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The node, which is started for the first row that wants it; None when the machine lacks it.
    pub(crate) fn of(row: &str, kind: Kind) -> Option<Self> {
        static RABBITMQ: Place = Mutex::new(Weak::new());
        static KAFKA: Place = Mutex::new(Weak::new());
        let place = if kind == Kind::Kafka { &KAFKA } else { &RABBITMQ };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = place.upgrade() {
            return Some(Self(running));
        }
        let started = Arc::new(Mutex::new(skips::unless(row, Broker::start(kind))?));
        *place = Arc::downgrade(&started);
        Some(Self(started))
    }

    /// The node for this row alone, up and running whatever an earlier row left behind.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Broker> {
        match self.0.lock() {
            Ok(broker) => broker,
            Err(poisoned) => {
                self.0.clear_poison();
                let mut broker = poisoned.into_inner();
                *broker = Broker::start(broker.kind()).expect("it could be started before");
                broker
            }
        }
    }
}

impl Broker {
    fn start(kind: Kind) -> Result<Self, Missing> {
        let _time = starting();
        match kind {
            Kind::RabbitMq => {
                clients::pika()?;
                let authority = Authority::new();
                let node = RabbitMq::with_tls(&authority, false)?;
                Ok(Self::RabbitMq(node, authority))
            }
            Kind::Kafka => {
                let authority = Authority::new();
                let node = Kafka::with(&KafkaOptions {
                    secure: Some(&authority),
                    secure_by_proxy: true,
                    ..KafkaOptions::default()
                })?;
                Ok(Self::Kafka(node, authority))
            }
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::RabbitMq(..) => Kind::RabbitMq,
            Self::Kafka(..) => Kind::Kafka,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::RabbitMq(node, _) => node.port(),
            Self::Kafka(node, _) => node.port(),
        }
    }

    /// A network between the sink and the node: to be used by its port.
    pub(crate) fn proxy(&self) -> Proxy {
        match self {
            Self::RabbitMq(node, _) => Proxy::to(node.port()),
            Self::Kafka(node, _) => node.proxy(),
        }
    }

    /// The same to the listener with TLS.
    pub(crate) fn secure_proxy(&self) -> Proxy {
        match self {
            Self::RabbitMq(node, _) => Proxy::to(node.tls_port()),
            Self::Kafka(node, _) => node.secure_proxy(),
        }
    }

    /// The address at the near end of a line of packets between the sink and the node.
    pub(crate) fn near(&self) -> Ipv4Addr {
        match self {
            Self::RabbitMq(..) => free_network(),
            Self::Kafka(node, _) => node.near(),
        }
    }

    /// What the sink beyond that line connects to, at this address; the line is laid.
    pub(crate) fn near_proxy(&self, near: Ipv4Addr) -> Proxy {
        match self {
            Self::RabbitMq(node, _) => Proxy::on(near, 0, node.port()),
            Self::Kafka(node, _) => node.near_proxy(),
        }
    }

    /// Who signs its certificate.
    pub(crate) fn authority(&self) -> &Authority {
        let (Self::RabbitMq(_, authority) | Self::Kafka(_, authority)) = self;
        authority
    }

    /// Gives the broker a certificate for these days, which it reads when it starts; negative ones are over.
    pub(crate) fn certify(&self, days: i32) -> Certificate {
        let name = if self.kind() == Kind::Kafka { "kafka" } else { "rabbitmq" };
        self.authority().sign(name, &["DNS:localhost", "IP:127.0.0.1"], days)
    }

    /// Gives it one for days that are yet to come.
    pub(crate) fn certify_for_later(&self) {
        let name = if self.kind() == Kind::Kafka { "kafka" } else { "rabbitmq" };
        self.authority().sign_for_later(name, &["DNS:localhost", "IP:127.0.0.1"]);
    }

    /// What a sink needs beside [`Broker::parameters`] to come by TLS, whose authority is in `trusted`.
    pub(crate) fn secure_parameters(
        &self,
        port: u16,
        trusted: &Path,
    ) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("tls-ca-file", trusted.display().to_string())];
        match self {
            Self::RabbitMq(..) => {
                parameters.push(("url", format!("amqps://guest:guest@127.0.0.1:{port}/%2f")));
            }
            Self::Kafka(..) => parameters.extend([
                ("security-protocol", "sasl_ssl".to_owned()),
                ("sasl-username", "fs1".to_owned()),
                ("sasl-password", "secret".to_owned()),
            ]),
        }
        parameters
    }

    /// The node, in a row that is for RabbitMQ alone.
    pub(crate) fn rabbitmq(&self) -> &RabbitMq {
        let Self::RabbitMq(node, _) = self else { panic!("the row is for RabbitMQ") };
        node
    }

    /// The node, in a row that is for Kafka alone.
    pub(crate) fn kafka(&self) -> &Kafka {
        let Self::Kafka(node, _) = self else { panic!("the row is for Kafka") };
        node
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::RabbitMq(node, _) => node.kill(),
            Self::Kafka(node, _) => node.kill(),
        }
    }

    pub(crate) fn start_again(&mut self) {
        let _time = starting();
        match self {
            Self::RabbitMq(node, _) => node.start_again(),
            Self::Kafka(node, _) => node.start_again(),
        }
    }

    pub(crate) fn pause(&mut self) {
        match self {
            Self::RabbitMq(node, _) => node.pause(),
            Self::Kafka(node, _) => node.pause(),
        }
    }

    pub(crate) fn resume(&mut self) {
        match self {
            Self::RabbitMq(node, _) => node.resume(),
            Self::Kafka(node, _) => node.resume(),
        }
    }

    /// Makes what keeps everything that is sent to `place` until it is read: a durable queue. A topic makes itself.
    ///
    /// RabbitMQ answers a declaration when another process of its own has been told to write it, and does not wait for that. On a
    /// machine that is short of time, a node that is killed right then comes back without the binding, and confirms what no
    /// queue takes: so what many rows kill early has its log on disk first.
    pub(crate) fn keep(&self, place: &str, key: &str) {
        if let Self::RabbitMq(node, _) = self {
            clients::amqp_bind(&node.url(), place, key, place);
            node.sync_log();
        }
    }

    /// Everything that is there now, in order: taken out of the queue, or read from the topic's beginning.
    pub(crate) fn read(&self, place: &str) -> Vec<Message> {
        match self {
            Self::RabbitMq(node, _) => clients::amqp_drain(&node.url(), place),
            Self::Kafka(node, _) => clients::kafka_read(&node.bootstrap(), place),
        }
    }

    /// The parameter of a sink that says where the node is.
    pub(crate) fn server(&self, address: Ipv4Addr, port: u16) -> (&'static str, String) {
        match self {
            Self::RabbitMq(..) => ("url", format!("amqp://guest:guest@{address}:{port}/%2f")),
            Self::Kafka(..) => ("bootstrap-servers", format!("{address}:{port}")),
        }
    }

    /// The parameters of a sink that lead to `place` here, by way of `port`.
    pub(crate) fn parameters(&self, place: &str, port: u16) -> Vec<(String, String)> {
        let mut pairs = vec![self.server(Ipv4Addr::LOCALHOST, port)];
        match self {
            Self::RabbitMq(..) => pairs.push(("exchange", place.to_owned())),
            Self::Kafka(..) => pairs.push(("topic", place.to_owned())),
        }
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The parameter that says how much may be in flight.
    pub(crate) fn window_parameter(&self) -> &'static str {
        match self {
            Self::RabbitMq(..) => "confirm-window",
            Self::Kafka(..) => "in-flight-max",
        }
    }

    pub(crate) fn sink_type(&self) -> &'static str {
        match self {
            Self::RabbitMq(..) => "amqp",
            Self::Kafka(..) => "kafka",
        }
    }
}
