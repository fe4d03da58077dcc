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
use crate::pipeline::publisher::Publisher;
use crate::pipeline::status::SinkState;
use crate::pipeline::store::{Store, StoreSettings};
use crate::pipeline::stream::Standing;
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
    pub(super) late: Vec<Gap>,
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
    pub(super) fn abandon(&mut self, ring: &Ring, name: &str) {
        let lost = self.len();
        let first = self.items.iter().filter(|item| item.is_in_memory()).map(|item| item.stamp.seq);
        let first = first.chain(self.late.iter().map(|gap| gap.first)).min();
        if let Some(first) = first {
            self.standing.told = self.standing.told.min(first.saturating_sub(1));
        }
        if lost > 0 {
            log::error!("[{name}] {lost} events could not be delivered in time and are lost");
        }
        for item in self.items.drain(..).filter(|item| !item.is_own()) {
            self.losses.note(item.record.kind(), DropReason::Shutdown);
            ring.release(item.size());
            ring.account().dropped(DropReason::Shutdown, 1);
        }
    }
}

/// The spool that a sink is configured to have, if any, while it still delivers from another.
#[derive(Debug)]
pub(super) struct ConfiguredStore(Option<Store>);

impl Publisher {
    /// Takes over from the sink that this one replaces, before anything is sent: order.
    pub(super) fn succeed(&mut self, predecessor: &Predecessor) {
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
                    "[{}] The sink it replaces did not end in time: its last events are lost",
                    self.settings.name
                );
                self.board.follow(None);
                return;
            }
        };
        self.tail = leftover.items;
        self.standing = leftover.standing;
        self.recent = leftover.recent;
        self.losses = leftover.losses;
        self.late = leftover.late;
        self.inherit(leftover.spooled);
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
