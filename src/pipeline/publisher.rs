// SPDX-License-Identifier: MIT
//! The loop of a publisher thread.
//!
//! Each round takes in what dispatch threads have offered, puts it where it has to wait, hands on
//! what the sink's window has room for, and lets the sink wait for acknowledgements for at most
//! one linger, or, under load, rest for a few of them (`pace`). A command or a stop ends either.
//! What a round does stands in three files: `intake` (ring → memory or spool), `delivery`
//! (memory or spool → sink → settled) and `connection`.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::codec::RecentIds;
use crate::config::delivery::{ReconnectConfig, SpoolMode, WhenFull};
use crate::dead::DeadLetters;
use crate::event::{EventNames, Index};
use crate::memory::{self, SetPatience};
use crate::pipeline::backoff::{Backoff, seed};
use crate::pipeline::connection::Told;
use crate::pipeline::gap::{Gap, Losses};
use crate::pipeline::item::Item;
use crate::pipeline::link::Link;
use crate::pipeline::pace::Pace;
use crate::pipeline::reach::Reach;
use crate::pipeline::status::{SinkState, StatusBoard};
use crate::pipeline::store::{Store, StoreSettings};
use crate::pipeline::stream::{Hole, Note, Standing};
use crate::pipeline::succession::{ConfiguredStore, Leftover};
use crate::pipeline::telling::Noted;
use crate::pipeline::thread::Prepare;
use crate::pipeline::window::Window;
use crate::pipeline::{Command, Predecessor};
use crate::queue::{DropReason, Pool, Ring};
use crate::sink::{Interrupt, Outcome, Sink};

/// What a publisher needs to know, fixed for its life.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sink's configured name.
    pub name: String,
    /// `file`, `amqp` or `kafka`.
    pub kind: &'static str,
    /// The configured name of this switch.
    pub node: Arc<str>,
    /// The Core-UUID of this boot.
    pub boot: Arc<str>,
    /// The core's names of its events.
    pub names: Arc<EventNames>,
    /// The longest an event waits for others to be sent with; a few of these under load.
    pub linger: Duration,
    /// How a lost connection is made again.
    pub reconnect: ReconnectConfig,
    /// How long one attempt to connect may take.
    pub open_timeout: Duration,
    /// How long the least latency of a connection is believed before the way is looked at again
    /// ([`LATENCY_BELIEVED`](super::LATENCY_BELIEVED)).
    pub latency_believed: Duration,
    /// Which events give way when memory is full.
    pub when_full: WhenFull,
    /// How often a message is tried that the broker would not have.
    pub max_attempts: u32,
    /// The disk behind the queue.
    pub store: Option<StoreSettings>,
    /// Where messages go that the broker will never take.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// The exchange or topic that gets a copy of them.
    pub dead_letter_destination: Option<String>,
    /// Where it is noted how far the stream got, and what is yet to be told, for a later load.
    pub stream_file: Option<PathBuf>,
    /// What the thread does first.
    pub prepare: Prepare,
    /// Whether it waits for memory.
    pub set_patience: SetPatience,
}

/// What the thread owns from its start.
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) ring: Arc<Ring>,
    pub(super) pool: Arc<Pool>,
    pub(super) board: Arc<StatusBoard>,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) inbox: Receiver<Command>,
    pub(super) sink: Box<dyn Sink>,
}

/// What of a stop's time is kept for putting on disk what could not be delivered.
const SPOOL_TIME: Duration = Duration::from_millis(400);
/// The longest that ending a connection in the protocol's own way may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How often the gauges of the spool are posted.
const POST_EVERY: Duration = Duration::from_millis(200);

#[expect(
    clippy::struct_excessive_bools,
    reason = "they vary independently: no enum is hidden in them"
)]
pub(super) struct Publisher {
    pub(super) settings: Arc<Settings>,
    pub(super) ring: Arc<Ring>,
    pub(super) pool: Arc<Pool>,
    pub(super) board: Arc<StatusBoard>,
    pub(super) interrupt: Arc<Interrupt>,
    inbox: Receiver<Command>,
    pub(super) link: Link,
    pub(super) backoff: Backoff,
    /// No attempt to connect before this.
    pub(super) retry_at: Instant,
    /// Since when there is no connection.
    pub(super) down_since: Option<Instant>,
    /// Nothing is sent before this: the broker refused something a moment ago.
    pub(super) hold_until: Option<Instant>,
    /// To be sent next, in order.
    pub(super) head: VecDeque<Item>,
    /// Comes after `head`, when it holds anything.
    pub(super) store: Option<Store>,
    /// Comes after what is in the store: taken in, and not put anywhere yet.
    pub(super) tail: VecDeque<Item>,
    pub(super) window: Window,
    pub(super) reach: Reach,
    pub(super) pace: Pace,
    /// Bytes packed since memory for more was last asked for.
    pub(super) packed: usize,
    /// Events taken in and messages handed over since the pace last learned.
    pub(super) taken: usize,
    pub(super) handed: usize,
    /// Put to the dead letters, and not durable there yet.
    pub(super) buried: Vec<Item>,
    /// When the log last told of a dead letter.
    pub(super) told_dead: Option<Instant>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) index: Index,
    pub(super) standing: Standing,
    /// The stream of an earlier boot that is being sent, and its last number.
    pub(super) earlier: Option<(Arc<str>, u64)>,
    pub(super) losses: Losses,
    /// Lost after they had been sent once, or their records were: no hole in front of a message tells them.
    pub(super) late: VecDeque<Gap>,
    /// What earlier boots had in memory alone when they ended.
    pub(super) holes: Vec<Hole>,
    /// What the note in the file says, if it could be written.
    pub(super) noted: Noted,
    /// When it was looked last whether that holds.
    pub(super) noted_at: Instant,
    /// The last attempt to write it failed, which has been said.
    pub(super) is_note_failing: bool,
    /// The last number of this boot that went to the spool, since the load; zero when none did.
    pub(super) last_spooled: u64,
    /// Records that the predecessor left in the spool: the account that both share has them.
    pub(super) inherited: u64,
    /// A predecessor that was not waited for any longer.
    pub(super) overdue: Option<Predecessor>,
    pub(super) recent: RecentIds,
    pub(super) paused: bool,
    /// What to go over to when the spool in use, a predecessor's, is empty.
    pub(super) configured_store: Option<ConfiguredStore>,
    pub(super) stop: Option<Instant>,
    pub(super) has_heir: bool,
    pub(super) blocked_since: Option<Instant>,
    pub(super) refused: bool,
    /// The broker refused what came over a connection that it had let us make: the next one counts
    /// when it has taken something.
    pub(super) doubted: bool,
    /// Failures that are in the log already.
    pub(super) told: Told,
    /// The client is open and nothing gets through.
    pub(super) degraded: bool,
    /// The connection is to be made anew as soon as nothing is in flight.
    pub(super) renew: bool,
    /// It is to lead to the preferred broker, unless that takes longer than until then.
    pub(super) returning: Option<Instant>,
    /// When the connection to another than the preferred broker was made.
    pub(super) away_from_primary: Option<Instant>,
    pub(super) faults: u32,
    posted: Instant,
}

/// Runs a publisher until it is told to stop. Returns what it could not deliver.
pub(super) fn run(parts: Parts, predecessor: Option<Predecessor>) -> Leftover {
    let mut publisher = Publisher::new(parts);
    match predecessor {
        Some(predecessor) => publisher.succeed(predecessor),
        None => publisher.recall(),
    }
    loop {
        // The state is whole between any two statements that can panic; what a panic leaves
        // undone (a message not yet in the window) is sent again.
        match panic::catch_unwind(AssertUnwindSafe(|| publisher.round())) {
            Ok(true) => {}
            Ok(false) => break,
            Err(payload) => {
                drop_quietly(payload);
                publisher.recover_from_fault();
            }
        }
    }
    publisher.finish()
}

/// A panic's payload may panic in its destructor; that must not end the thread.
pub(super) fn drop_quietly(payload: Box<dyn std::any::Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _never_dropped = std::mem::ManuallyDrop::new(again);
    }
}

impl Publisher {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { settings, ring, pool, board, interrupt, inbox, sink } = parts;
        let reconnect = &settings.reconnect;
        let now = Instant::now();
        let store = settings.store.clone().map(|store| {
            Store::new(store, &settings.name, Arc::clone(&settings.names), settings.prepare)
        });
        let by_disk = settings.store.as_ref().is_some_and(|store| store.mode == SpoolMode::Always);
        Self {
            backoff: Backoff::new(reconnect.min, reconnect.max, seed(&settings.name)),
            reach: Reach::default(),
            pace: Pace::new(settings.linger, by_disk, now),
            packed: 0,
            taken: 0,
            handed: 0,
            settings,
            ring,
            pool,
            board,
            interrupt,
            inbox,
            link: Link::Down(sink),
            retry_at: now,
            down_since: Some(now),
            hold_until: None,
            head: VecDeque::new(),
            store,
            tail: VecDeque::new(),
            window: Window::default(),
            buried: Vec::new(),
            told_dead: None,
            outcomes: Vec::new(),
            index: Index::default(),
            standing: Standing::START,
            earlier: None,
            losses: Losses::default(),
            late: VecDeque::new(),
            holes: Vec::new(),
            noted: Noted::default(),
            noted_at: now,
            is_note_failing: false,
            last_spooled: 0,
            inherited: 0,
            overdue: None,
            recent: RecentIds::new(),
            paused: false,
            configured_store: None,
            stop: None,
            has_heir: false,
            blocked_since: None,
            refused: false,
            doubted: false,
            told: Told::default(),
            degraded: false,
            renew: false,
            returning: None,
            away_from_primary: None,
            faults: 0,
            posted: now,
        }
    }

    /// One round. False when it was the last.
    fn round(&mut self) -> bool {
        self.obey();
        self.take_overdue();
        self.change_store();
        self.open_store();
        self.take_in();
        self.put_away();
        self.make_room();
        self.take_retries();
        self.connect();
        let is_taken = self.hand_over();
        // What the sink would not take now it will not take at once either.
        let more = is_taken && self.can_send();
        let is_full = self.is_window_full();
        self.reach.sent(self.window.traffic(), is_full, Instant::now());
        self.wait(if more { Duration::ZERO } else { self.settings.linger });
        self.settle();
        if self.reach.settled(self.window.traffic(), Instant::now()) {
            self.board.looked();
        }
        self.close_graves();
        if let Some(store) = self.store.as_mut() {
            store.advance();
        }
        // Without memory it goes on delivering what it has: that gives some back.
        let set_patience = self.settings.set_patience;
        self.pool.top_up_by(|bytes| memory::without_waiting(set_patience, || Pool::fresh(bytes)));
        self.post();
        self.stop.is_none_or(|deadline| !self.is_done(deadline))
    }

    /// Whether a publisher that was told to stop has nothing left to do.
    fn is_done(&self, deadline: Instant) -> bool {
        if self.ring.has_events() {
            return Instant::now() >= deadline;
        }
        let stored = self.store.as_ref().filter(|store| store.is_open());
        let in_memory = !self.head.is_empty() || !self.tail.is_empty() || !self.window.is_empty();
        match stored {
            // What is on disk stays there; what is not can be put there instead of waiting for a
            // broker that is away.
            Some(_) => {
                !in_memory
                    || !self.link.is_up()
                    || self.degraded
                    || Instant::now() >= deadline.checked_sub(SPOOL_TIME).unwrap_or(deadline)
            }
            None => !in_memory || Instant::now() >= deadline,
        }
    }

    /// Carries out what the module asked for.
    pub(super) fn obey(&mut self) {
        // While an attempt to connect is under way and the module wants us gone, the flag stays
        // up: it is what ends the attempt.
        if self.interrupt.is_raised() && !(self.stop.is_some() && self.link.is_opening()) {
            self.interrupt.clear();
        }
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    // Whoever could tell us to end is gone.
                    self.stop.get_or_insert_with(Instant::now);
                    break;
                }
            };
            match command {
                Command::Pause => self.paused = true,
                Command::Resume => self.paused = false,
                Command::Reconnect => {
                    self.retry_at = Instant::now();
                    self.stay();
                    self.renew = self.link.is_up();
                }
                Command::Stop { deadline, has_heir } => {
                    self.stop = Some(deadline);
                    self.reach = Reach::default();
                    // What it still sends goes over the connection that there is.
                    self.stay();
                    if let Some(store) = self.store.as_mut() {
                        store.hurry(deadline);
                    }
                    self.has_heir = has_heir;
                    self.paused = false;
                    self.board.state(SinkState::Draining);
                    if self.link.is_opening() {
                        self.interrupt.raise();
                    }
                }
            }
        }
        if self.paused && self.stop.is_none() {
            self.board.state(SinkState::Paused);
        }
    }

    /// Posts what others may read.
    fn post(&mut self) {
        let room = self.room_in_flight();
        self.board.in_flight(self.window.len(), room);
        self.tend_note(Instant::now());
        let Some(store) = self.store.as_mut() else { return };
        let lost = store.tend(Instant::now());
        self.losses.note_unknown(store.take_untold(), DropReason::SpoolDamaged);
        self.ring.account().dropped(DropReason::SpoolDamaged, lost);
        self.board.spooled(store.records());
        if self.posted.elapsed() >= POST_EVERY {
            self.posted = Instant::now();
            let trouble = store.trouble().map(str::to_owned);
            self.board.spool(store.stats().as_ref(), store.bypassed(), trouble);
        }
    }

    /// Ends: what is left goes to disk, to the successor, or is counted as lost.
    fn finish(mut self) -> Leftover {
        let deadline = self.stop.unwrap_or_else(Instant::now);
        self.take_overdue();
        if !self.link.await_attempt(deadline) {
            log::error!(
                "[{}] The attempt to connect did not end in time; its thread stays behind",
                self.settings.name
            );
        }
        self.take_in_all();
        let is_healthy = self.link.is_up() && !self.degraded;
        if is_healthy && let Some(sink) = self.link.up() {
            sink.close(deadline.min(Instant::now() + CLOSE_TIME));
            // What the last flush has delivered is told now.
            let told = sink.poll(Duration::ZERO, &mut self.outcomes);
            if told.is_ok() {
                self.settle();
            }
        }
        self.take_back();
        self.close_graves();
        self.save();
        let spooled = self.store.as_mut().filter(|store| store.is_open()).map(|store| {
            self.board.spooled(store.records());
            store.close(deadline);
            (store.settings().clone(), store.records())
        });
        self.board.in_flight(0, 0);
        self.board.state(SinkState::Stopped);
        let mut items = self.head;
        items.append(&mut self.tail);
        let mut leftover = Leftover {
            items,
            standing: self.standing,
            recent: self.recent,
            losses: self.losses,
            late: self.late,
            earlier: self.earlier,
            holes: self.holes,
            last_spooled: self.last_spooled,
            spooled,
        };
        if !self.has_heir {
            leftover.tell_spooled(&self.settings.name);
            leftover.abandon(&self.ring, &self.settings);
            let note: Note = leftover.note(&self.settings.boot);
            if let Some(file) = &self.settings.stream_file
                && let Err(error) = note.save(file, &self.settings.names)
            {
                log::warn!(
                    "[{}] cannot note in {} where the stream stands ({error}): after another load \
                     in this boot its numbers begin at one again",
                    self.settings.name,
                    file.display()
                );
            }
        }
        // Last, when everything is noted and on disk: a client without a broker takes its time.
        if !is_healthy && let Some(sink) = self.link.up() {
            sink.close(Instant::now());
        }
        leftover
    }
}
