// SPDX-License-Identifier: MIT
//! From a publisher to the one that replaces it: what is left in memory, where the stream stands, and what waits on disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::RecentIds;
use crate::config::delivery::SpoolMode;
use crate::pipeline::Predecessor;
use crate::pipeline::gap::{Gap, Losses};
use crate::pipeline::item::Item;
use crate::pipeline::publisher::{Publisher, Settings};
use crate::pipeline::status::SinkState;
use crate::pipeline::store::{Store, StoreSettings};
use crate::pipeline::stream::{Hole, Note, Standing};
use crate::queue::{DropReason, Ring};

/// How long a successor waits for what it takes over, beyond the other's own deadline.
const SUCCESSION: Duration = Duration::from_secs(60);
/// How long the last of several replacements waits beyond its deadline for those before it.
const HANDING_OVER: Duration = Duration::from_secs(1);
/// How long a folder that is no longer used, and empty, may take to be given up.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// What was not delivered when the thread ended, for whoever goes on.
#[derive(Debug)]
pub struct Leftover {
    pub(super) items: VecDeque<Item>,
    pub(super) standing: Standing,
    pub(super) recent: RecentIds,
    pub(super) losses: Losses,
    /// Losses behind what is told, and themselves untold.
    pub(super) late: VecDeque<Gap>,
    pub(super) earlier: Option<(Arc<str>, u64)>,
    pub(super) holes: Vec<Hole>,
    pub(super) last_spooled: u64,
    /// What stays on disk, and where.
    pub(super) spooled: Option<(StoreSettings, u64)>,
}

impl Leftover {
    /// Sizes of the events in it, each charged to the ring they came by.
    pub(super) fn charged(&self) -> impl Iterator<Item = usize> {
        self.items.iter().filter(|item| item.is_in_memory()).map(Item::size)
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.items.iter().filter(|item| !item.is_own()).count()
    }

    /// Whether everything was delivered, or is on disk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says what waits on disk for a sink that opens the folder again.
    pub(super) fn tell_spooled(&self, name: &str) {
        if let Some((store, records)) = self.spooled.as_ref().filter(|(_, records)| *records > 0) {
            log::info!(
                target: "mod_rustbridge::notice",
                "[{name}] {records} events stay in {} and are delivered when a sink has this spool-dir again",
                store.config.dir.display()
            );
        }
    }

    /// Gives up what is left: counted, and its room given back.
    ///
    /// What was sent and never answered for is told as missing too: that it arrived all the same
    /// does no harm, and that it did not must be known.
    pub(super) fn abandon(&mut self, ring: &Ring, settings: &Settings) {
        let (lost, name) = (self.len(), &settings.name);
        if lost > 0 {
            log::error!("[{name}] {lost} events could not be delivered in time and are lost");
        }
        for item in self.items.drain(..).filter(|item| !item.is_own()) {
            item.record.note_lost();
            let (seq, kind) = (item.stamp.seq, item.record.kind());
            Gap::note_late(&mut self.late, &settings.boot, seq, kind, DropReason::Shutdown);
            ring.release(item.size());
            ring.account().dropped(DropReason::Shutdown, 1);
        }
    }
}

impl Leftover {
    /// What the next load has to know, in this boot or another.
    pub(super) fn note(&mut self, boot: &Arc<str>) -> Note {
        let is_spool_empty = self.spooled.as_ref().is_none_or(|(_, records)| *records == 0);
        // What was lost last has nothing behind it that the next boot would find.
        if is_spool_empty || self.last_spooled > 0 {
            let late = self.late.iter().filter(|gap| gap.boot == *boot).map(|gap| gap.last);
            let known = late.fold(self.standing.told.max(self.last_spooled), u64::max);
            if known + 1 < self.standing.next {
                let losses = std::mem::take(&mut self.losses);
                let (first, last) = (known + 1, self.standing.next - 1);
                self.late.push_back(Gap { boot: Arc::clone(boot), first, last, losses });
            }
        }
        Note {
            boot: Arc::clone(boot),
            standing: self.standing,
            is_running: false,
            holes: std::mem::take(&mut self.holes),
            gaps: std::mem::take(&mut self.late).into(),
        }
    }
}

/// The spool that a sink is configured to have, if any, while it still delivers from another.
#[derive(Debug)]
pub(super) struct ConfiguredStore(Option<Store>);

impl Publisher {
    /// Takes over from the sink that this one replaces, before anything is sent: order.
    pub(super) fn succeed(&mut self, predecessor: Predecessor) {
        self.board.state(SinkState::Waiting);
        let patience = Instant::now() + SUCCESSION;
        let leftover = loop {
            if let Some(leftover) = predecessor.take(self.settings.linger, &self.ring) {
                break leftover;
            }
            self.obey();
            // Told to stop meanwhile, it still takes what is left, to put it on disk or to hand it on.
            let until = match self.stop {
                Some(deadline) if self.has_heir => deadline + HANDING_OVER,
                Some(deadline) => deadline,
                None => patience,
            };
            if Instant::now() >= until.min(patience) {
                log::error!(
                    "[{}] The sink it replaces did not end in time: what it has left when it does is dropped",
                    self.settings.name
                );
                // Until then that waits, and is in the account.
                self.overdue = Some(predecessor);
                self.recall();
                return;
            }
        };
        self.tail = leftover.items;
        self.standing = leftover.standing;
        self.recent = leftover.recent;
        self.losses = leftover.losses;
        self.late = leftover.late;
        self.earlier = leftover.earlier;
        self.holes = leftover.holes;
        self.last_spooled = leftover.last_spooled;
        self.inherit(leftover.spooled);
    }

    /// Counts what a predecessor has left that ends late: this one's events are on their way, and its numbers are in use.
    pub(super) fn take_overdue(&mut self) {
        let Some(predecessor) = &self.overdue else { return };
        let Some(mut leftover) = predecessor.take(Duration::ZERO, &self.ring) else { return };
        self.overdue = None;
        leftover.abandon(&self.ring, &self.settings);
        let here = self.store.as_ref().filter(|store| !store.is_open());
        match (&leftover.spooled, here) {
            (Some((settings, records)), Some(store)) if *store.dir() == *settings.config.dir => {
                self.inherited = *records;
            }
            _ => {
                leftover.tell_spooled(&self.settings.name);
                self.board.follow(None);
            }
        }
    }

    /// What the predecessor left on disk comes first, wherever that is: from a folder that is no longer configured it is
    /// delivered too, and only then the spool that is configured now, or none, takes its place.
    fn inherit(&mut self, spooled: Option<(StoreSettings, u64)>) {
        let Some((mut settings, records)) = spooled.filter(|(_, records)| *records > 0) else {
            return self.board.follow(None);
        };
        self.inherited = records;
        let dir = &settings.config.dir;
        if self.store.as_ref().is_some_and(|store| store.dir() == dir) {
            return;
        }
        log::warn!(
            "[{}] {records} events wait in {}, which is no longer its spool-dir: they are delivered first",
            self.settings.name,
            dir.display()
        );
        // With `always` it would never be empty.
        settings.mode = SpoolMode::Overflow;
        let names = Arc::clone(&self.settings.names);
        let before = Store::new(settings, &self.settings.name, names, self.settings.prepare);
        self.configured_store = Some(ConfiguredStore(self.store.replace(before)));
    }

    /// Leaves a predecessor's spool for the configured one as soon as everything in it is delivered.
    pub(super) fn change_store(&mut self) {
        let is_done = |store: &Store| store.is_open() && store.records() == 0;
        if self.configured_store.is_none() || !self.store.as_ref().is_some_and(is_done) {
            return;
        }
        if let Some(mut before) = self.store.take() {
            // What was in it is delivered.
            before.close(Instant::now() + CLOSE_TIME);
        }
        self.store = self.configured_store.take().and_then(|ConfiguredStore(store)| store);
        self.board.no_spool();
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::codec::Stamp;
    use crate::config::delivery::{ReconnectConfig, WhenFull};
    use crate::event::{Class, EventNames, Record};
    use crate::pipeline::LATENCY_BELIEVED;
    use crate::pipeline::item::Origin;
    use crate::pipeline::publisher::Parts;
    use crate::pipeline::status::StatusBoard;
    use crate::queue::{Account, Lane, Limits, Pool};
    use crate::sink::{Interrupt, Outcome, Sink, SinkError};

    struct Nowhere;

    impl Sink for Nowhere {
        fn open(&mut self, _: Instant) -> Result<(), SinkError> {
            Ok(())
        }

        fn window(&self) -> usize {
            0
        }

        fn send(&mut self, _: u64, _: &crate::codec::Outgoing<'_>) -> Result<(), SinkError> {
            Ok(())
        }

        fn poll(&mut self, _: Duration, _: &mut Vec<Outcome>) -> Result<(), SinkError> {
            Ok(())
        }

        fn close(&mut self, _: Instant) {}

        fn peer(&self) -> String {
            String::new()
        }
    }

    fn settings() -> Settings {
        let wait = Duration::from_millis(1);
        Settings {
            name: "out".into(),
            kind: "file",
            node: "fs1".into(),
            boot: "B".into(),
            names: Arc::new(EventNames::new(["CUSTOM"])),
            linger: wait,
            reconnect: ReconnectConfig {
                min: wait,
                max: wait,
                refused: wait,
                return_to_primary: Duration::ZERO,
            },
            open_timeout: wait,
            latency_believed: LATENCY_BELIEVED,
            when_full: WhenFull::DropNewest,
            max_attempts: 1,
            store: None,
            dead_letters: None,
            dead_letter_destination: None,
            stream_file: None,
            prepare: || {},
            set_patience: |_| false,
        }
    }

    #[test]
    fn what_a_predecessor_has_left_that_ends_too_late_is_in_the_account() {
        let settings = Arc::new(settings());
        let account = Arc::<Account>::default();
        let limits = Limits { events: 64, bytes: 1 << 20, percent: [100; 3], slack_percent: 0 };
        let [before, ring] = [(); 2].map(|()| Arc::new(Ring::new(limits, Arc::clone(&account))));
        let [board_before, board] = [(); 2].map(|()| Arc::new(StatusBoard::new(&settings)));
        let (report, done) = bounded(1);
        let predecessor =
            Predecessor { done, ring: Arc::clone(&before), board: Arc::clone(&board_before) };
        board.follow(Some((board_before, Arc::clone(&before))));
        account.offered(Lane::ANY);
        before.offer(Arc::new(Record::default()), Class::Normal).unwrap();

        let (_commands, inbox) = unbounded();
        let mut publisher = Publisher::new(Parts {
            settings,
            ring: Arc::clone(&ring),
            pool: Arc::new(Pool::new(1, 1, 64)),
            board: Arc::clone(&board),
            interrupt: Arc::new(Interrupt::new().unwrap()),
            inbox,
            sink: Box::new(Nowhere),
        });
        // It is told to end, and so does not wait.
        publisher.stop = Some(Instant::now());
        publisher.succeed(predecessor);
        publisher.take_overdue();
        let status = board.view(&ring, 0);
        assert_eq!((status.waiting, status.account.dropped_total()), (1, 0));

        let item = Item {
            stamp: Stamp { seq: 1, reuse: 0 },
            is_stamped: true,
            record: before.take().unwrap().record,
            boot: None,
            attempts: 0,
            origin: Origin::Memory,
        };
        let leftover = Leftover {
            items: [item].into(),
            standing: Standing { next: 2, told: 0 },
            recent: RecentIds::new(),
            losses: Losses::default(),
            late: VecDeque::new(),
            earlier: None,
            holes: Vec::new(),
            last_spooled: 0,
            spooled: None,
        };
        report.send(leftover).unwrap();
        publisher.take_overdue();
        let status = board.view(&ring, 0);
        assert_eq!((status.waiting, status.account.dropped_total()), (0, 1));
        assert_eq!((before.held(), ring.held()), ((0, 0), (0, 0)));
    }
}
