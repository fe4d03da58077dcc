// SPDX-License-Identifier: MIT
//! The spool behind a publisher: messages in and out of it, and its troubles kept to itself.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::Stamp;
use crate::config::delivery::SpoolMode;
use crate::event::{EventKind, EventNames, Record};
use crate::pipeline::item::{Item, Origin};
use crate::pipeline::syncer::SyncThread;
use crate::pipeline::thread::Prepare;
use crate::queue::{Lane, Pool};
use crate::spool::{
    Damage, DamageKind, Disk, Entry, Fsync, Heal, Position, Spool, SpoolConfig, SpoolError,
    SpoolStats, Stored,
};

/// Where a sink's spool is, and when it is used.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The spool's own settings.
    pub config: SpoolConfig,
    /// `Overflow` or `Always`.
    pub mode: SpoolMode,
}

/// How long after a spool could not be opened the next attempt is made.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// Failures to open it after which files are set aside that its disk cannot read.
const OPEN_ATTEMPTS: u32 = 3;
/// Bytes of records handed to the spool in one append.
const APPEND_BYTES: usize = 1 << 20;

/// The spool of a sink, open or not.
#[derive(Debug)]
pub(super) struct Store {
    settings: StoreSettings,
    name: String,
    names: Arc<EventNames>,
    spool: Option<Spool>,
    /// There while the spool is open and syncs on a timer.
    syncing: Option<SyncThread>,
    prepare: Prepare,
    open_at: Instant,
    /// How often in a row it could not be opened.
    failures: u32,
    /// Records in it that are not settled: part of what waits.
    records: u64,
    /// Positions read and not yet passed by the cursor, in order, and whether each is settled.
    reading: VecDeque<(Position, bool)>,
    /// The last of those that were passed since the spool was told.
    passed: Option<Position>,
    said: Option<String>,
    /// Lost by damage, and not taken for a gap record yet.
    untold: u64,
    /// Messages that would have gone through it and went past it.
    bypassed: u64,
}

/// What opening found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records that wait from an earlier life.
    pub(super) records: u64,
    /// Records of which it is known that they are lost.
    pub(super) lost: u64,
}

impl Store {
    pub(super) fn new(
        settings: StoreSettings,
        name: &str,
        names: Arc<EventNames>,
        prepare: Prepare,
    ) -> Self {
        Self {
            settings,
            name: name.to_owned(),
            names,
            spool: None,
            syncing: None,
            prepare,
            open_at: Instant::now(),
            failures: 0,
            records: 0,
            reading: VecDeque::new(),
            passed: None,
            said: None,
            untold: 0,
            bypassed: 0,
        }
    }

    /// Opens the spool when it is not open and another attempt is due.
    pub(super) fn open(&mut self) -> Option<Found> {
        if self.spool.is_some() || Instant::now() < self.open_at {
            return None;
        }
        let disk = self.disk();
        let (config, disk) = (self.settings.config.clone(), Arc::new(disk));
        let opened = if self.failures < OPEN_ATTEMPTS {
            Spool::open(config, disk)
        } else {
            Spool::open_without_unreadable(config, disk)
        };
        match opened {
            Ok((spool, recovery)) => {
                self.failures = 0;
                for line in recovery.lines() {
                    log::warn!("[{}] Spool: {line}", self.name);
                }
                let lost = recovery.damage.iter().filter_map(|damage| damage.records).sum();
                self.untold += recovery.damage.iter().map(Damage::estimate).sum::<u64>();
                if recovery.records > 0 {
                    log::info!(
                        target: "mod_rustbridge::notice",
                        "[{}] {} events wait in the spool and are delivered first",
                        self.name,
                        recovery.records
                    );
                }
                if self.said.take().is_some() {
                    log::info!("[{}] The spool works again", self.name);
                }
                self.records = recovery.records;
                self.spool = Some(spool);
                Some(Found { records: recovery.records, lost })
            }
            Err(error) => {
                self.open_at = Instant::now() + OPEN_AGAIN;
                self.failures = self.failures.saturating_add(1);
                self.complain(&error);
                None
            }
        }
    }

    /// The disk, with a thread to sync on where that is worth one: else the publisher does it.
    fn disk(&mut self) -> Disk {
        if !matches!(self.settings.config.fsync, Fsync::Interval(_)) {
            return Disk::default();
        }
        if self.syncing.is_none() {
            self.syncing = SyncThread::start(&self.name, self.prepare).ok();
        }
        self.syncing.as_ref().map_or_else(Disk::default, |thread| Disk::with(thread.syncer()))
    }

    /// Says a trouble once, until another one comes or all is well.
    fn complain(&mut self, error: &SpoolError) {
        let words = error.to_string();
        if self.said.as_ref() != Some(&words) {
            log::error!("[{}] Spool: {words}; events are in memory alone meanwhile", self.name);
            self.said = Some(words);
        }
    }

    /// What is wrong with it, if anything is.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Whether it can be used.
    pub(super) fn is_open(&self) -> bool {
        self.spool.is_some()
    }

    /// Whether every message goes through it.
    pub(super) fn is_always(&self) -> bool {
        self.settings.mode == SpoolMode::Always
    }

    /// Whether nothing is in it, so that a message need not queue up behind.
    pub(super) fn is_empty(&self) -> bool {
        self.spool.as_ref().is_none_or(Spool::is_empty)
    }

    /// Whether something is in it that has not been read yet. May miss the last few.
    pub(super) fn has_unread(&self) -> bool {
        self.records > u64::try_from(self.reading.len()).unwrap_or(u64::MAX)
    }

    /// Where it is and when it is used.
    pub(super) fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Its folder.
    pub(super) fn dir(&self) -> &Path {
        &self.settings.config.dir
    }

    /// How much of its bound is taken, in percent.
    pub(super) fn fill_percent(&self) -> Option<u64> {
        let max = self.settings.config.max_bytes.max(1);
        Some(self.spool.as_ref()?.bytes().saturating_mul(100) / max)
    }

    /// Messages in it that are not settled.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Whether it takes nothing until its disk works again.
    pub(super) fn is_suspended(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_suspended)
    }

    /// Puts messages from the front of `items` behind everything that is in it. Returns those it
    /// took, which are out of memory's care then; the rest stays, and why.
    pub(super) fn append(
        &mut self,
        items: &mut VecDeque<Item>,
        boot: &str,
    ) -> (Vec<Item>, Option<SpoolError>) {
        self.advance();
        let mut taken = Vec::new();
        let mut left = None;
        while !items.is_empty() {
            let Some(spool) = self.spool.as_mut() else { break };
            let mut batch = spool.batch();
            for item in items.iter() {
                if batch.size() >= APPEND_BYTES {
                    break;
                }
                let class = item.record.class().number();
                batch.push(item.stamp.seq, class, |out| store(item, &self.names, boot, out));
            }
            let wanted = batch.len();
            let appended = spool.append(batch);
            self.records += u64::try_from(appended.accepted).unwrap_or(0);
            taken.extend(items.drain(..appended.accepted.min(items.len())));
            match &appended.error {
                Some(error) => self.complain(error),
                None if self.said.take().is_some() => {
                    log::info!("[{}] The spool works again", self.name);
                }
                None => {}
            }
            if appended.accepted < wanted {
                left = appended.error;
                break;
            }
        }
        (taken, left)
    }

    /// Puts messages in front of everything that is in it, durable at once, after a [`rewind`](Self::rewind).
    pub(super) fn prepend(&mut self, items: &mut VecDeque<Item>, boot: &str) -> Vec<Item> {
        let Some(spool) = self.spool.as_mut() else { return Vec::new() };
        let mut bytes = Vec::new();
        let ends: Vec<usize> = items
            .iter()
            .map(|item| {
                store(item, &self.names, boot, &mut bytes);
                bytes.len()
            })
            .collect();
        let mut start = 0;
        let entries: Vec<Entry<'_>> = items
            .iter()
            .zip(ends)
            .map(|(item, end)| {
                let payload = bytes.get(std::mem::replace(&mut start, end)..end);
                Entry {
                    seq: item.stamp.seq,
                    class: item.record.class().number(),
                    payload: payload.unwrap_or_default(),
                }
            })
            .collect();
        match spool.prepend(&entries) {
            Ok(()) => {
                self.records += u64::try_from(items.len()).unwrap_or(0);
                items.drain(..).collect()
            }
            Err(error) => {
                self.complain(&error);
                Vec::new()
            }
        }
    }

    /// The next messages that were not read yet, up to `max`, in records from `pool`. Damaged ones
    /// are left out; how many is returned.
    pub(super) fn read(
        &mut self,
        max: usize,
        max_bytes: usize,
        boot: &str,
        pool: &Pool,
        out: &mut VecDeque<Item>,
    ) -> u64 {
        self.advance();
        let Some(spool) = self.spool.as_mut() else { return 0 };
        let (names, reading) = (&self.names, &mut self.reading);
        let mut unreadable = Vec::new();
        let mut last_boot: Option<Arc<str>> = None;
        let result = spool.read(max, max_bytes, &mut |stored: Stored<'_>| {
            let Stored { position, seq, payload, .. } = stored;
            reading.push_back((position, false));
            let mut record = pool.take(Lane::ANY).unwrap_or_default();
            let restored = Arc::get_mut(&mut record).map(|record| record.restore(names, payload));
            let Some(Ok((stored_boot, reuse))) = restored else {
                unreadable.push((position, seq, restored.and_then(Result::err)));
                pool.release(record);
                return;
            };
            let boot = (stored_boot != boot).then(|| match &last_boot {
                Some(before) if **before == *stored_boot => Arc::clone(before),
                _ => {
                    let boot: Arc<str> = stored_boot.into();
                    last_boot = Some(Arc::clone(&boot));
                    boot
                }
            });
            out.push_back(Item {
                stamp: Stamp { seq, reuse },
                is_stamped: true,
                record,
                boot,
                attempts: 0,
                origin: Origin::Spool(position),
            });
        });
        if let Err(error) = result {
            self.complain(&error);
        }
        let mut lost = self.note_damage();
        let first = unreadable.iter().find_map(|(_, seq, error)| Some((seq, (*error)?)));
        if let Some((seq, error)) = first {
            let (name, count) = (&self.name, unreadable.len());
            log::error!("[{name}] Spool: message {seq}: {error}; {count} are counted as damaged");
        }
        for (position, ..) in unreadable {
            lost += 1;
            self.untold += 1;
            self.settle(position);
        }
        self.advance();
        lost
    }

    /// Records that the disk has lost since this was last asked.
    fn note_damage(&mut self) -> u64 {
        let Some(spool) = self.spool.as_mut() else { return 0 };
        let damage = spool.take_damage();
        for damage in &damage {
            log::error!("[{}] Spool: {damage}", self.name);
        }
        let mut lost: u64 = damage.iter().filter_map(|damage| damage.records).sum();
        let uncounted = damage.iter().filter(|damage| damage.records.is_none());
        let uncounted: u64 = uncounted.map(Damage::estimate).sum();
        for damage in damage.iter().filter(|damage| damage.kind == DamageKind::Missing) {
            // What was read of a segment before its file went is in memory, and still delivered.
            let read = self.reading.iter();
            let read = read.filter(|(position, _)| position.segment() == damage.segment).count();
            lost = lost.saturating_sub(u64::try_from(read).unwrap_or(0));
        }
        self.records = self.records.saturating_sub(lost);
        self.untold += lost + uncounted;
        lost
    }

    /// How many messages damage has cost that no gap record tells yet. Taken by this.
    pub(super) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// Counts messages that would have gone through it, were it not suspended.
    pub(super) fn pass_by(&mut self, count: usize) {
        self.bypassed += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// How many went past it.
    pub(super) fn bypassed(&self) -> u64 {
        self.bypassed
    }

    /// Notes that the message at this position needs no keeping any more; [`advance`](Self::advance) has the spool know.
    pub(super) fn settle(&mut self, position: Position) {
        // As a rule it is the first; else a search through what is in flight.
        let is_first = self.reading.front().is_some_and(|(known, _)| *known == position);
        let place = if is_first {
            Ok(0)
        } else {
            self.reading.binary_search_by_key(&position, |(known, _)| *known)
        };
        let Ok(place) = place else { return };
        if let Some((_, settled)) = self.reading.get_mut(place) {
            *settled = true;
            self.records = self.records.saturating_sub(1);
        }
        while let Some((position, true)) = self.reading.front() {
            self.passed = Some(*position);
            self.reading.pop_front();
        }
    }

    /// Tells the spool what has been settled: once for all that a round has settled, as it looks through its segments for it.
    pub(super) fn advance(&mut self) {
        if let (Some(passed), Some(spool)) = (self.passed.take(), self.spool.as_mut()) {
            spool.advance(passed);
        }
    }

    /// Reads again from the first message that is not settled. What was read before is void. Returns how many were settled out
    /// of order: they come once more, wait again, and have to be counted as coming from the disk.
    pub(super) fn rewind(&mut self) -> u64 {
        self.advance();
        let again = self.reading.iter().filter(|(_, settled)| *settled).count();
        let again = u64::try_from(again).unwrap_or(0);
        self.records += again;
        self.reading.clear();
        if let Some(spool) = self.spool.as_mut() {
            spool.rewind();
        }
        again
    }

    /// Makes room by giving up the oldest of the cheapest, at least `least` bytes, if room is what was wanting by this error and can
    /// be had. Returns how many were given up.
    pub(super) fn drop_oldest(
        &mut self,
        error: &SpoolError,
        least: u64,
        mut told: impl FnMut(EventKind),
    ) -> u64 {
        self.advance();
        let Some(spool) = self.spool.as_mut() else { return 0 };
        let Some(bytes) = spool.room_wanted(error).map(|bytes| bytes.max(least)) else { return 0 };
        let mut dropped = 0;
        // Bulk first, then normal; critical ones stay: what is newest then waits in memory.
        for keep in [1_u8, 0] {
            let label = |stored: &[u8]| Record::kind_of_stored(&self.names, stored).number();
            let freed = spool.drop_oldest(bytes, keep, &label, &mut |_seq, _class, kind| {
                dropped += 1;
                told(EventKind::new(kind));
            });
            match freed {
                Ok(freed) if freed >= bytes => break,
                Ok(_) => {}
                Err(error) => {
                    self.complain(&error);
                    break;
                }
            }
        }
        // A full disk suspends it, and need not do so any longer.
        if let Some(spool) = self.spool.as_mut().filter(|_| dropped > 0) {
            spool.try_heal(Instant::now());
        }
        self.records = self.records.saturating_sub(dropped);
        dropped
    }

    /// What is due: commits, and healing after a fault of the disk. Returns how many messages a
    /// fault is now known to have cost.
    pub(super) fn tend(&mut self, now: Instant) -> u64 {
        self.advance();
        let Some(spool) = self.spool.as_mut() else { return 0 };
        let committed = spool.commit(now);
        // Also when there was nothing to commit: a folder can go while everything in it is durable.
        let healed = spool.try_heal(now);
        if let Err(error) = committed {
            self.complain(&error);
        }
        if healed == Heal::Healed {
            self.said = None;
        }
        self.note_damage()
    }

    /// Gauges.
    pub(super) fn stats(&mut self) -> Option<SpoolStats> {
        self.advance();
        self.spool.as_mut().map(Spool::stats)
    }

    /// Does not wait beyond `deadline` for the disk any more.
    pub(super) fn hurry(&mut self, deadline: Instant) {
        if let Some(spool) = self.spool.as_mut() {
            spool.hurry(deadline);
        }
    }

    /// Makes everything durable that can be by `deadline`, and gives the folder up.
    pub(super) fn close(&mut self, deadline: Instant) {
        self.hurry(deadline);
        self.advance();
        if let Some(spool) = self.spool.take()
            && let Err(error) = spool.close()
        {
            log::error!("[{}] Spool: {error}", self.name);
        }
        if let Some(Err(error)) = self.syncing.take().map(|thread| thread.end(deadline)) {
            log::error!("[{}] {error}, and stays behind until the disk answers", self.name);
        }
    }
}

/// Appends the stored form of a message to `out`.
fn store(item: &Item, names: &EventNames, boot: &str, out: &mut Vec<u8>) {
    let boot = item.boot.as_deref().unwrap_or(boot);
    item.record.store(names, boot, item.stamp.reuse, out);
}
