// SPDX-License-Identifier: MIT
//! The table of live calls, running: a pipeline that no status lists, and a thread that tells the
//! orphans of an earlier boot.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::handler::Handler;
use super::sinks::{node_name, storage_dir};
use crate::calls::{Audience, EVENTS, LiveCallsSink, SUBCLASS, Stats, Table, Teller, Told, shared};
use crate::config::Config;
use crate::config::delivery::{ClassConfig, Fsync, ReconnectConfig, WhenFull};
use crate::event::selection::Selection;
use crate::event::{Class, Record};
use crate::pipeline::{Background, LATENCY_BELIEVED, Pipeline, Settings, SpawnError, Target};
use crate::queue::{Limits, Pool, Ring};
use crate::sink::Interrupt;
use crate::switch::{Core, memory, thread};

/// A name that no sink can have.
const NAME: &str = ":live-calls";
/// What may wait for the table: many seconds of a switch at its limit, should the disk stall.
const LIMITS: Limits =
    Limits { events: 1 << 16, bytes: 512 << 20, percent: [100; 3], slack_percent: 0 };
const LINGER: Duration = Duration::from_millis(5);

/// The running table.
pub(super) struct LiveCalls {
    table: Arc<Mutex<Table>>,
    pipeline: Pipeline,
    target: Target,
    /// The longest that a spool takes to make something durable.
    interval: Duration,
    teller: Option<(Arc<Interrupt>, Background)>,
}

impl LiveCalls {
    /// Starts it when the configuration wants it. What goes wrong is said and costs only itself.
    pub(super) fn start(config: &Config, core: &Core, pool: &Arc<Pool>) -> Option<Self> {
        if !config.live_calls {
            return None;
        }
        let dir = storage_dir(config).join("calls");
        let (table, report) = Table::open(&dir, &core.uuid);
        if report.orphans > 0 {
            log::warn!(
                "{} calls ended when FreeSWITCH did: each is reported as {SUBCLASS}",
                report.orphans
            );
        }
        if report.damaged > 0 {
            log::error!(
                "{} damaged lines in the table of live calls in {}: what was whole is used, the \
                 rest is in live.ndjson.damaged",
                report.damaged,
                dir.display()
            );
        }
        let running = Self::run(table, config, core, pool);
        running
            .inspect_err(|error| {
                log::error!("{error}; calls that a crash ends will not be reported");
            })
            .ok()
    }

    fn run(
        table: Table,
        config: &Config,
        core: &Core,
        pool: &Arc<Pool>,
    ) -> Result<Self, SpawnError> {
        let table = Arc::new(Mutex::new(table));
        let ring = Arc::new(Ring::new(LIMITS, Arc::default()));
        let second = Duration::from_secs(1);
        let settings = Settings {
            name: NAME.into(),
            kind: Target::INTERNAL,
            node: node_name(config, core),
            boot: core.uuid.as_str().into(),
            names: Arc::new(core.names.clone()),
            linger: LINGER,
            reconnect: ReconnectConfig {
                min: second,
                max: second,
                refused: second,
                return_to_primary: Duration::ZERO,
            },
            open_timeout: second,
            latency_believed: LATENCY_BELIEVED,
            when_full: WhenFull::DropNewest,
            max_attempts: 1,
            store: None,
            dead_letters: None,
            dead_letter_destination: None,
            stream_file: None,
            prepare: thread::settle,
            set_patience: memory::set_patience,
        };
        let kept = Arc::clone(&table);
        let pipeline = Pipeline::start(
            settings,
            Arc::clone(&ring),
            Arc::clone(pool),
            None,
            move |interrupt| Box::new(LiveCallsSink::new(kept, interrupt)),
        )?;
        let known: Vec<&str> = core.names.iter().filter(|name| !name.is_empty()).collect();
        let select = |text| Selection::parse(text, &known).0;
        let target = Target {
            name: NAME.into(),
            kind: Target::INTERNAL,
            ring,
            events: select(EVENTS),
            // The lowest class, up to all of the queue: an event is worth what it is worth to the
            // sinks that it is for.
            classes: ClassConfig {
                critical: Selection::default(),
                bulk: select("ALL"),
                critical_percent: 100,
                normal_percent: 100,
                bulk_percent: 100,
            },
        };
        let intervals = config.sinks.iter().filter_map(|sink| match sink.spool.fsync {
            Fsync::Interval(interval) => Some(interval),
            Fsync::Always | Fsync::Never => None,
        });
        let interval = intervals.max().unwrap_or_default();
        Ok(Self { table, pipeline, target, interval, teller: None })
    }

    /// What the dispatch tables take in beside the sinks.
    pub(super) fn target(&self) -> Target {
        self.target.clone()
    }

    /// Starts to tell the orphans, when there are any, through the sinks of `handler`.
    pub(super) fn tell(&mut self, handler: &Arc<Handler>, core: &Core) {
        if shared(&self.table).stats().orphans == 0 {
            return;
        }
        let names = Arc::new(core.names.clone());
        let teller = Teller::new(Arc::clone(&self.table), names, self.interval);
        let sinks = Sinks(Arc::clone(handler));
        let table = Arc::clone(&self.table);
        let started = Interrupt::new().map_err(SpawnError).and_then(|interrupt| {
            let interrupt = Arc::new(interrupt);
            let stop = Arc::clone(&interrupt);
            let thread = Background::start("rb-orphans", thread::settle, move || {
                let ended = teller.run(&sinks, &stop);
                let Stats { told, orphans, .. } = shared(&table).stats();
                match ended {
                    Told::All => log::info!(
                        target: "mod_rustbridge::notice",
                        "{told} calls of an earlier boot are reported"
                    ),
                    Told::Interrupted => log::warn!(
                        "{orphans} calls of an earlier boot are yet to be reported: at the next start"
                    ),
                }
            })?;
            Ok((interrupt, thread))
        });
        match started {
            Ok(teller) => self.teller = Some(teller),
            Err(error) => {
                log::error!("{error}; calls of an earlier boot are reported at the next start");
            }
        }
    }

    /// How it stands.
    pub(super) fn stats(&self) -> Stats {
        shared(&self.table).stats()
    }

    /// Ends both threads by `deadline` and leaves everything on disk. Calls that are still there
    /// stay in the table: the module may be loaded again while they go on. False when a thread
    /// would not end.
    pub(super) fn stop(mut self, deadline: Instant) -> bool {
        if let Some((interrupt, _)) = &self.teller {
            interrupt.raise();
        }
        self.target.ring.close();
        self.pipeline.stop(deadline);
        let told = self.teller.take().is_none_or(|(_, thread)| thread.finish(deadline));
        let ended = self.pipeline.finish(deadline);
        if let Err(error) = &ended {
            log::error!("[live calls] {error}");
        }
        told && ended.is_ok()
    }
}

/// The sinks that are in force.
struct Sinks(Arc<Handler>);

impl Sinks {
    fn each<T>(&self, body: impl Fn(&Target) -> Option<T>) -> Vec<T> {
        let dispatch = self.0.dispatch();
        let targets = dispatch.iter().flat_map(|dispatch| dispatch.targets());
        targets.filter(|target| !target.is_internal()).filter_map(body).collect()
    }
}

impl Audience for Sinks {
    fn wanting(&self) -> Vec<String> {
        self.each(|target| {
            let wants = target.events.wants("CUSTOM", Some(SUBCLASS.as_bytes()));
            wants.then(|| target.name.clone())
        })
    }

    fn offer(&self, sink: &str, record: &Arc<Record>) -> bool {
        let offered = self
            .each(|target| (target.name == sink).then(|| target.offer(record, Class::Critical)));
        offered.contains(&true)
    }
}
