// SPDX-License-Identifier: MIT
//! The sinks of a configuration, running.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handler::Handler;
use crate::config::amqp::AmqpUrl;
use crate::config::delivery::{Fsync, SpoolMode, WhenFull};
use crate::config::{Config, SinkConfig, SinkKind};
use crate::dead::DeadLetters;
use crate::event::Class;
use crate::pipeline::{
    Dispatch, LATENCY_BELIEVED, Pipeline, Retired, Settings, SinkStatus, StoreSettings, Target,
};
use crate::queue::{Account, Limits, Pool, Ring};
use crate::sink::{Interrupt, Sink};
use crate::spool::SpoolConfig;
use crate::switch::{Core, Directory, memory, thread};

/// How long a sink that a reload replaces may take to deliver what it has.
const SUCCESSION: Duration = Duration::from_secs(5);
/// How long after its deadline a publisher may take to end: librdkafka lets go of its threads
/// within half a second.
const END_TIME: Duration = Duration::from_millis(600);
/// How much earlier than the others the sinks that are being replaced end, at a shutdown: their
/// successors put on disk what they leave.
const HEADSTART: Duration = Duration::from_millis(500);
/// How far `drop-oldest` lets memory go beyond the bound before the publisher makes room.
const SLACK_PERCENT: u8 = 10;

/// The running sinks, and the configuration that they come from.
pub(super) struct SinkSet {
    config: Config,
    node: Arc<str>,
    running: Vec<Running>,
    retired: Vec<Retired>,
    /// The module's own, behind the sinks.
    hidden: Option<Target>,
    /// Told to end: nothing is started any more.
    is_closed: bool,
}

struct Running {
    config: SinkConfig,
    target: Target,
    pipeline: Pipeline,
    dead_letters: Arc<DeadLetters>,
}

/// What a reload did.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    pub(super) kept: usize,
    pub(super) started: Vec<String>,
    pub(super) replaced: Vec<String>,
    pub(super) stopped: Vec<String>,
    /// What is configured about live calls is no longer what is in force.
    pub(super) live_calls: bool,
}

impl SinkSet {
    /// Starts every sink of `config`. None waits for its broker.
    pub(super) fn start(
        config: Config,
        core: &Core,
        pool: &Arc<Pool>,
        hidden: Option<Target>,
    ) -> Result<(Self, Arc<Dispatch>), Box<dyn Error>> {
        let node = node_name(&config, core);
        let mut set = Self {
            node,
            running: Vec::new(),
            retired: Vec::new(),
            config,
            hidden,
            is_closed: false,
        };
        let wanted: Vec<SinkConfig> = set.enabled().cloned().collect();
        for sink in wanted {
            match set.run(sink, None, core, pool) {
                Ok(running) => set.running.push(running),
                Err(error) => {
                    set.stop(Instant::now() + Duration::from_secs(1));
                    return Err(error);
                }
            }
        }
        let dispatch = set.dispatch(core, pool);
        Ok((set, dispatch))
    }

    fn enabled(&self) -> impl Iterator<Item = &SinkConfig> {
        self.config.sinks.iter().filter(|sink| sink.enabled)
    }

    fn dispatch(&self, core: &Core, pool: &Arc<Pool>) -> Arc<Dispatch> {
        let targets = self
            .running
            .iter()
            .map(|sink| sink.target.clone())
            .chain(self.hidden.clone())
            .collect();
        Arc::new(Dispatch::new(
            targets,
            Arc::new(core.names.clone()),
            Arc::clone(pool),
            self.config.max_event_bytes,
        ))
    }

    /// Starts one sink, as the successor of `before` when there is one.
    fn run(
        &self,
        config: SinkConfig,
        before: Option<&Running>,
        core: &Core,
        pool: &Arc<Pool>,
    ) -> Result<Running, Box<dyn Error>> {
        let kind = kind_name(&config.kind);
        // A sink's account goes on as long as its name does.
        let account: Arc<Account> =
            before.map(|before| Arc::clone(before.target.ring.account())).unwrap_or_default();
        let classes = &config.classes;
        let limits = Limits {
            events: config.queue.capacity.get(),
            bytes: config.queue.max_bytes,
            percent: Class::ALL.map(|class| classes.percent(class)),
            slack_percent: match config.queue.when_full {
                WhenFull::DropOldest => SLACK_PERCENT,
                WhenFull::DropNewest | WhenFull::Spool => 0,
            },
        };
        let ring = Arc::new(Ring::new(limits, account));
        let storage = storage_dir(&self.config);
        let dead_letters = self.dead_letters(&config, before);
        let settings = Settings {
            name: config.name.clone(),
            kind,
            node: Arc::clone(&self.node),
            boot: core.uuid.as_str().into(),
            names: Arc::new(core.names.clone()),
            linger: config.linger,
            reconnect: config.reconnect.clone(),
            open_timeout: open_timeout(&config.kind),
            latency_believed: LATENCY_BELIEVED,
            when_full: config.queue.when_full,
            max_attempts: config.dead_letters.max_attempts,
            store: store_settings(&config, &storage),
            dead_letters: Some(Arc::clone(&dead_letters)),
            dead_letter_destination: config.dead_letters.exchange_or_topic.clone(),
            stream_file: Some(storage.join("streams").join(&config.name)),
            prepare: thread::settle,
            set_patience: memory::set_patience,
        };
        let node = Arc::clone(&self.node);
        let made = config.clone();
        let pipeline = Pipeline::start(
            settings,
            Arc::clone(&ring),
            Arc::clone(pool),
            before.map(|before| before.pipeline.succession()),
            move |interrupt| make_sink(made, &node, interrupt),
        )?;
        let target = Target {
            name: config.name.clone(),
            kind,
            ring,
            events: config.events.clone(),
            classes: config.classes.clone(),
        };
        Ok(Running { config, target, pipeline, dead_letters })
    }

    /// The dead letters of a sink: those of the one it replaces, unless they move.
    fn dead_letters(&self, config: &SinkConfig, before: Option<&Running>) -> Arc<DeadLetters> {
        let settings = &config.dead_letters;
        let dir = settings
            .dir
            .clone()
            .unwrap_or_else(|| storage_dir(&self.config).join("dead").join(&config.name));
        if let Some(before) = before.filter(|before| before.dead_letters.dir() == dir) {
            before.dead_letters.set_max_bytes(settings.max_bytes);
            return Arc::clone(&before.dead_letters);
        }
        let (dead_letters, report) = DeadLetters::open(&dir, settings.max_bytes);
        if report.letters + report.damaged + report.torn_bytes > 0 {
            log::warn!(
                "[{}] {} dead letters from before ({} damaged lines, {} bytes cut off): rustbridge \
                 dlq list {}",
                config.name,
                report.letters,
                report.damaged,
                report.torn_bytes,
                config.name,
            );
        }
        Arc::new(dead_letters)
    }

    /// Goes over to another configuration. Sinks that stay the same are not touched; one that
    /// changes is replaced, and the new one goes on with what the old one has left.
    ///
    /// On an error everything is as before.
    pub(super) fn reload(
        &mut self,
        config: Config,
        core: &Core,
        pool: &Arc<Pool>,
        handler: &Handler,
    ) -> Result<Changes, Box<dyn Error>> {
        if self.is_closed {
            return Err("the module is being unloaded".into());
        }
        self.retired.retain(|retired| !retired.is_finished());
        let node = node_name(&config, core);
        let same_ground = node == self.node && config.storage_dir == self.config.storage_dir;
        let mut next = Self {
            node,
            running: Vec::new(),
            retired: Vec::new(),
            config,
            hidden: self.hidden.clone(),
            is_closed: false,
        };
        let mut changes = Changes {
            live_calls: next.config.live_calls != self.config.live_calls || !same_ground,
            ..Changes::default()
        };
        // First whatever is new is made, while the old goes on.
        let mut kept = Vec::new();
        let wanted: Vec<SinkConfig> = next.enabled().cloned().collect();
        for sink in &wanted {
            let before = self.running.iter().find(|running| running.config.name == sink.name);
            if same_ground && before.is_some_and(|before| before.config == *sink) {
                kept.push(sink.name.clone());
                continue;
            }
            match next.run(sink.clone(), before, core, pool) {
                Ok(running) => next.running.push(running),
                Err(error) => {
                    next.stop(Instant::now() + Duration::from_secs(1));
                    return Err(error);
                }
            }
            let list = if before.is_some() { &mut changes.replaced } else { &mut changes.started };
            list.push(sink.name.clone());
        }
        changes.kept = kept.len();
        // Then the sinks that stay move over, and events go the new way.
        let (stay, go): (Vec<Running>, Vec<Running>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| kept.contains(&running.config.name));
        for sink in stay.iter().filter(|sink| has_certificates(&sink.config.kind)) {
            // Files of the same names may hold other certificates by now.
            sink.pipeline.reconnect();
        }
        next.running.extend(stay);
        next.running
            .sort_by_key(|running| wanted.iter().position(|sink| sink.name == running.config.name));
        let swapped = handler.replace(&next.dispatch(core, pool), core);
        if let Err(error) = swapped {
            // The new tables are in force all the same; only the wait for callbacks failed.
            log::error!("mod_rustbridge: {error}; an event of this moment may be missing");
        }
        // And last the old sinks are told to end; their successors wait for them.
        let deadline = Instant::now() + SUCCESSION;
        next.retired = std::mem::take(&mut self.retired);
        for old in go {
            let has_heir = changes.replaced.contains(&old.config.name);
            if !has_heir {
                changes.stopped.push(old.config.name.clone());
            }
            // Whoever still holds the old tables (a command, never a callback) is told so.
            old.target.ring.close();
            next.retired.push(old.pipeline.retire(deadline, has_heir));
        }
        *self = next;
        Ok(changes)
    }

    /// Ends every sink by `deadline`. False when a thread would not end.
    pub(super) fn stop(&mut self, deadline: Instant) -> bool {
        // A command that is late must not start what nobody stops.
        self.is_closed = true;
        let before = deadline.checked_sub(HEADSTART).unwrap_or(deadline);
        for retired in &mut self.retired {
            retired.hurry(before);
        }
        for sink in &self.running {
            sink.target.ring.close();
            sink.pipeline.stop(deadline);
        }
        let mut all_ended = true;
        for sink in self.running.drain(..) {
            let name = sink.config.name.clone();
            let (board, ring) = (sink.pipeline.board(), Arc::clone(&sink.target.ring));
            let dead_letters = sink.dead_letters;
            let ended = sink.pipeline.finish(deadline + END_TIME);
            if let Err(error) = &ended {
                log::error!("[{name}] {error}");
                all_ended = false;
            }
            let status = board.view(&ring, dead_letters.kept());
            let account = status.account;
            log::info!(
                target: "mod_rustbridge::notice",
                "[{name}] Final account: offered {}, recovered {}, filtered {}, delivered {}, dropped {}, \
                 dead {}, waiting {}",
                account.offered,
                account.recovered,
                account.filtered,
                account.delivered,
                account.dropped_total(),
                account.dead,
                status.waiting,
            );
        }
        for retired in self.retired.drain(..) {
            if let Err(error) = retired.finish() {
                log::error!("{error}");
                all_ended = false;
            }
        }
        all_ended
    }

    /// Every sink as it is now, with its configuration.
    pub(super) fn status(&self) -> Vec<(SinkStatus, &SinkConfig)> {
        self.running.iter().map(|sink| (sink.pipeline.status(), &sink.config)).collect()
    }

    /// The pipeline of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Pipeline> {
        self.running.iter().find(|sink| sink.config.name == name).map(|sink| &sink.pipeline)
    }

    /// The dead letters of the sink of this name.
    pub(super) fn dead_letters_of(&self, name: &str) -> Option<Arc<DeadLetters>> {
        let sink = self.running.iter().find(|sink| sink.config.name == name)?;
        Some(Arc::clone(&sink.dead_letters))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.running.iter().map(|sink| sink.config.name.clone()).collect()
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn shutdown_timeout(&self) -> Duration {
        self.config.shutdown_timeout
    }
}

pub(super) fn node_name(config: &Config, core: &Core) -> Arc<str> {
    config.node_name.as_deref().unwrap_or(&core.switchname).into()
}

/// The folder for everything that must survive a restart.
pub(super) fn storage_dir(config: &Config) -> PathBuf {
    config.storage_dir.clone().unwrap_or_else(|| {
        Core::directory(Directory::Storage)
            .unwrap_or_else(|| Path::new("/var/lib/freeswitch/storage").into())
            .join("rustbridge")
    })
}

fn store_settings(config: &SinkConfig, storage: &Path) -> Option<StoreSettings> {
    let spool = &config.spool;
    if spool.mode == SpoolMode::Off {
        return None;
    }
    let dir = spool.dir.clone().unwrap_or_else(|| storage.join("spool").join(&config.name));
    Some(StoreSettings {
        mode: spool.mode,
        config: SpoolConfig {
            dir,
            segment_bytes: spool.segment_bytes,
            max_bytes: spool.max_bytes,
            min_free_bytes: spool.min_free_bytes,
            fsync: match spool.fsync {
                Fsync::Always => crate::spool::Fsync::Always,
                Fsync::Interval(every) => crate::spool::Fsync::Interval(every),
                Fsync::Never => crate::spool::Fsync::Never,
            },
        },
    })
}

fn kind_name(kind: &SinkKind) -> &'static str {
    match kind {
        SinkKind::File(_) => "file",
        SinkKind::Amqp(_) => "amqp",
        SinkKind::Kafka(_) => "kafka",
    }
}

fn has_certificates(kind: &SinkKind) -> bool {
    match kind {
        SinkKind::File(_) => false,
        SinkKind::Amqp(amqp) => amqp.brokers.iter().any(|broker| broker.tls),
        SinkKind::Kafka(kafka) => kafka.security_protocol.has_tls(),
    }
}

fn open_timeout(kind: &SinkKind) -> Duration {
    match kind {
        SinkKind::Amqp(amqp) => amqp.connect_timeout,
        SinkKind::File(_) | SinkKind::Kafka(_) => Duration::from_secs(5),
    }
}

fn make_sink(config: SinkConfig, node: &str, interrupt: Arc<Interrupt>) -> Box<dyn Sink> {
    match config.kind {
        SinkKind::File(file) => {
            Box::new(crate::sink::file::FileSink::new(file, config.name, node.into(), interrupt))
        }
        #[cfg(feature = "amqp")]
        SinkKind::Amqp(amqp) => {
            Box::new(crate::sink::amqp::AmqpSink::new(amqp, node, &config.name, interrupt))
        }
        #[cfg(feature = "kafka")]
        SinkKind::Kafka(kafka) => {
            let client_id =
                kafka.client_id.clone().unwrap_or_else(|| format!("{node}-{}", config.name));
            Box::new(crate::sink::kafka::KafkaSink::new(kafka, &client_id, interrupt))
        }
        // The configuration was refused with a kind that is not built in.
        #[cfg(not(all(feature = "amqp", feature = "kafka")))]
        _ => Box::new(crate::sink::Absent),
    }
}

/// The kinds of sink in this library.
pub(super) fn kinds() -> Vec<&'static str> {
    let mut kinds = vec!["file"];
    if cfg!(feature = "amqp") {
        kinds.push("amqp");
    }
    if cfg!(feature = "kafka") {
        kinds.push("kafka");
    }
    kinds
}

/// Where a sink goes, for people. Holds no secret.
pub(super) fn describe(config: &SinkConfig) -> String {
    match &config.kind {
        SinkKind::File(file) => file.path.clone(),
        SinkKind::Amqp(amqp) => {
            let brokers: Vec<String> = amqp.brokers.iter().map(AmqpUrl::peer).collect();
            format!("{} {}", brokers.join(","), destination(config))
        }
        SinkKind::Kafka(kafka) => {
            format!("{} {}", kafka.bootstrap_servers, destination(config))
        }
    }
}

/// Where they go at the broker: nothing for a file, which is a place itself.
pub(super) fn destination(config: &SinkConfig) -> String {
    match &config.kind {
        SinkKind::File(_) => String::new(),
        SinkKind::Amqp(amqp) => format!("exchange {}", amqp.exchange),
        SinkKind::Kafka(kafka) => format!("topic {}", kafka.topic),
    }
}
