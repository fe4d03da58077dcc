// SPDX-License-Identifier: MIT
//! From the ring to where a message waits: memory, or the spool.

use std::collections::VecDeque;
use std::hint;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::{RecentIds, Stamp};
use crate::config::delivery::WhenFull;
use crate::event::{Class, Record, number};
use crate::memory;
use crate::pipeline::gap::Gap;
use crate::pipeline::item::{Item, Origin};
use crate::pipeline::publisher::Publisher;
use crate::pipeline::store::Store;
use crate::queue::{DropReason, Slot};
use crate::spool::SpoolError;

/// Events taken from the ring in one round, so that sending is never far away.
const INTAKE_MAX: usize = 16 * 1024;
/// Messages that wait in the records they came in; those behind them are packed. What is in flight
/// keeps its records as well: a window, of some thousands over a long way.
const PACK_BEYOND: usize = 1024;
/// The C library gives a thread memory by the page, each with a system call, unless a larger piece
/// was asked for before: so one of this size is, and given back, ahead of as many packed records.
/// Less than what it would hand back to the system at once.
const STRIDE: usize = 96 << 10;
/// Messages that may wait in memory, with a connection, before later ones go to disk.
const SPILL_EVENTS: usize = 8192;
/// Eighths of the memory that may be held, with a connection, before what comes goes to disk: less
/// than the share of any class has by default, so that a small queue is no reason to lose.
const SPILL_EIGHTHS: u64 = 3;
/// How long a connection may be away before what is in memory goes to disk.
const SPILL_AFTER: Duration = Duration::from_millis(200);
/// Bytes that `drop-oldest` frees in a full spool at a time: about one segment.
const FREE_BYTES: u64 = 1 << 20;

impl Publisher {
    /// Numbers what dispatch threads have offered.
    // By its symbol `tests/bench_gate.rs` counts what it costs.
    #[inline(never)]
    pub(super) fn take_in(&mut self) {
        for _ in 0..INTAKE_MAX {
            let Some(slot) = self.ring.take() else {
                let missed = self.ring.take_missed();
                self.note_missed(missed);
                return;
            };
            self.take(slot);
        }
    }

    /// The same for everything there is: the ring is closed.
    pub(super) fn take_in_all(&mut self) {
        while let Some(slot) = self.ring.take() {
            self.take(slot);
        }
        let missed = self.ring.take_missed();
        self.note_missed(missed);
        self.put_away();
    }

    fn take(&mut self, Slot { record, missed }: Slot) {
        self.note_missed(missed);
        let stamp = Stamp { seq: self.standing.next, reuse: 0 };
        self.standing.next += 1;
        self.taken += 1;
        // Of one that is watched it is to be seen when it is let go of, and a copy would hide that.
        let record = if self.head.len() + self.tail.len() < PACK_BEYOND || record.is_watched() {
            record
        } else {
            self.pack(record)
        };
        let origin = Origin::Memory;
        self.tail.push_back(Item {
            stamp,
            is_stamped: false,
            record,
            boot: None,
            attempts: 0,
            origin,
        });
    }

    /// A record's buffer has room for a larger event. Where many wait, that is most of the memory.
    fn pack(&mut self, record: Arc<Record>) -> Arc<Record> {
        let set_patience = self.settings.set_patience;
        match memory::without_waiting(set_patience, || record.packed()) {
            Some(packed) => {
                self.packed += packed.capacity();
                if self.packed >= STRIDE / 2 {
                    self.packed = 0;
                    let mut ahead = Vec::<u8>::new();
                    // Only to have it: without memory there is nothing to have.
                    let had = || ahead.try_reserve_exact(STRIDE);
                    drop(memory::without_waiting(set_patience, had));
                    drop(hint::black_box(ahead));
                }
                self.pool.release(record);
                Arc::new(packed)
            }
            None => record,
        }
    }

    /// Before messages are put on disk, with their ids.
    fn stamp_all(recent: &mut RecentIds, items: &mut VecDeque<Item>) {
        for item in items.iter_mut().filter(|item| !item.is_stamped) {
            let sequence = item.record.last_value(b"Event-Sequence").and_then(number);
            item.stamp_by(recent, sequence);
        }
    }

    /// Lost events have their numbers too.
    fn note_missed(&mut self, missed: u32) {
        if missed > 0 {
            self.standing.next += u64::from(missed);
            self.losses.note_missed(&self.ring.take_missed_detail());
        }
    }

    /// Opens the spool, when there is one and it is time to.
    pub(super) fn open_store(&mut self) {
        let Some(found) = self.store.as_mut().and_then(Store::open) else { return };
        let account = self.ring.account();
        // What the sink that this one replaced has left is not new to the account.
        let inherited = std::mem::take(&mut self.inherited);
        let all = found.records + found.lost;
        account.recovered(all.saturating_sub(inherited));
        account.dropped(DropReason::SpoolDamaged, found.lost + inherited.saturating_sub(all));
        self.losses.note_unknown(inherited.saturating_sub(all), DropReason::SpoolDamaged);
        if let Some(store) = &mut self.store {
            self.losses.note_unknown(store.take_untold(), DropReason::SpoolDamaged);
            self.board.spooled(store.records());
        }
        self.board.follow(None);
    }

    /// Puts what was taken in where it waits.
    pub(super) fn put_away(&mut self) {
        let Some(store) = self.store.as_mut().filter(|store| store.is_open()) else {
            self.head.append(&mut self.tail);
            return;
        };
        let is_away = self.down_since.is_some_and(|since| since.elapsed() >= SPILL_AFTER)
            || self.blocked_since.is_some_and(|since| since.elapsed() >= SPILL_AFTER);
        let rests = is_away || self.paused;
        let goes_by_disk = rests || store.is_always() || !store.is_empty();
        if store.is_suspended() && store.is_empty() {
            // There is nothing before these, and nothing will be taken behind it until the disk works again: memory is all there
            // is, as if the spool could not have been opened.
            if goes_by_disk {
                store.pass_by(self.tail.len());
            }
            self.head.append(&mut self.tail);
            return;
        }
        if rests && store.trouble().is_none() {
            // Also when the spool holds something already: what came before that waits in memory alone.
            self.park();
        }
        if goes_by_disk || self.is_filling() {
            self.spill();
        } else if self.head.len() + self.tail.len() > SPILL_EVENTS {
            let room = SPILL_EVENTS.saturating_sub(self.head.len());
            self.head.extend(self.tail.drain(..room.min(self.tail.len())));
            self.spill();
        } else {
            self.head.append(&mut self.tail);
        }
    }

    /// Whether so much of the memory is held that a class of events may soon find no room.
    fn is_filling(&self) -> bool {
        let (events, bytes) = self.ring.held();
        let limits = self.ring.limits();
        let share = |limit: usize| u64::try_from(limit).unwrap_or(u64::MAX) / 8 * SPILL_EIGHTHS;
        events > share(limits.events) || bytes > share(limits.bytes)
    }

    /// Appends the tail to the spool. What does not fit stays in memory, whose bound then sheds. Under
    /// `drop-oldest` what is spooled gives way, if room is what is wanting: not to a disk that is broken.
    fn spill(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        self.shed();
        if let Some(first) = self.tail.front().map(|item| item.stamp.seq)
            && self.store.as_ref().is_some_and(Store::is_empty)
        {
            self.note_before(first);
        }
        let mut tail = std::mem::take(&mut self.tail);
        let left = self.append(&mut tail);
        if let Some(error) = left
            && self.settings.when_full == WhenFull::DropOldest
            && let Some(store) = self.store.as_mut()
        {
            let losses = &mut self.losses;
            let told = |kind| losses.note(kind, DropReason::SpoolFull);
            let dropped = store.drop_oldest(&error, FREE_BYTES, told);
            self.ring.account().dropped(DropReason::SpoolFull, dropped);
            if dropped > 0 {
                self.append(&mut tail);
            }
        }
        self.tail = tail;
    }

    /// Gives up what is of a class that may not take more of the spool: bulk first. Critical
    /// messages are taken as long as there is room at all.
    fn shed(&mut self) {
        let Some(fill) = self.store.as_ref().and_then(Store::fill_percent) else { return };
        let percent = self.ring.limits().percent;
        let is_over = |class: Class| {
            let limit = percent.get(usize::from(class.number())).copied().unwrap_or(100);
            class != Class::Critical && fill >= u64::from(limit)
        };
        if !Class::ALL.into_iter().any(is_over) {
            return;
        }
        for item in std::mem::take(&mut self.tail) {
            if item.is_in_memory() && is_over(item.record.class()) {
                self.discard(item, DropReason::SpoolFull);
            } else {
                self.tail.push_back(item);
            }
        }
    }

    /// Appends these. Returns why some are left, if any are.
    fn append(&mut self, items: &mut VecDeque<Item>) -> Option<SpoolError> {
        loop {
            let store = self.store.as_mut()?;
            Self::stamp_all(&mut self.recent, items);
            let (taken, left) = store.append(items, &self.settings.boot);
            self.spooled(taken);
            // It would never fit, and nothing behind it would get by.
            let Some(SpoolError::TooLarge { .. }) = left else { return left };
            let item = items.pop_front()?;
            self.discard(item, DropReason::Oversize);
        }
    }

    /// Those are on disk now: counted there before they stop being counted in memory.
    fn spooled(&mut self, items: Vec<Item>) {
        if let Some(store) = &self.store {
            self.board.spooled(store.records());
        }
        let present = items.iter().filter(|item| item.boot.is_none());
        self.last_spooled = present.map(|item| item.stamp.seq).fold(self.last_spooled, u64::max);
        for item in items {
            self.let_go(item);
        }
    }

    /// Puts what waits in memory alone on disk, ahead of what is there already.
    pub(super) fn park(&mut self) {
        if !self.head.iter().any(Item::is_in_memory) {
            return;
        }
        // To get ahead of what is on disk, that is read again: not while some of it is in flight.
        if self.window.items().any(|item| matches!(item.origin, Origin::Spool(_))) {
            return;
        }
        if let Some(first) = self.head.iter().find(|item| item.is_in_memory()) {
            self.note_before(first.stamp.seq);
        }
        let Some(store) = self.store.as_mut().filter(|store| store.is_open()) else { return };
        // Messages from the spool behind these are read again, and gap records are made again.
        let (mut memory, others): (VecDeque<Item>, VecDeque<Item>) =
            std::mem::take(&mut self.head).into_iter().partition(Item::is_in_memory);
        self.ring.account().recovered(store.rewind());
        Self::stamp_all(&mut self.recent, &mut memory);
        let taken = if store.is_empty() {
            store.append(&mut memory, &self.settings.boot).0
        } else {
            store.prepend(&mut memory, &self.settings.boot)
        };
        self.spooled(taken);
        // What the disk would not take stays in front.
        self.head = memory;
        for item in others {
            match item.origin {
                Origin::Retry(_) | Origin::Own => self.head.push_back(item),
                Origin::Gap(gap) => gap.owe(&mut self.late, &self.settings.boot),
                Origin::Memory | Origin::Spool(_) => self.pool.release(item.record),
            }
        }
    }

    /// At the end: everything that is in memory alone goes to disk. Gaps go to those that are yet to be told.
    pub(super) fn save(&mut self) {
        if self.store.as_ref().is_some_and(Store::is_open) {
            self.park();
            self.spill();
            self.head.retain(|item| !matches!(item.origin, Origin::Spool(_)));
        }
        for item in std::mem::take(&mut self.head) {
            match item.origin {
                Origin::Own => {}
                Origin::Gap(gap) => gap.owe(&mut self.late, &self.settings.boot),
                // Those stay dead letters.
                Origin::Retry(letter) => {
                    if let Some(dead_letters) = &self.settings.dead_letters {
                        dead_letters.give_back(letter);
                    }
                }
                Origin::Memory | Origin::Spool(_) => self.head.push_back(item),
            }
        }
    }

    /// Under `drop-oldest`: takes away the oldest of the cheapest until memory is within bounds.
    pub(super) fn make_room(&mut self) {
        if self.settings.when_full != WhenFull::DropOldest {
            return;
        }
        let (mut events, mut bytes) = self.ring.excess();
        for class in Class::ALL.into_iter().rev() {
            for in_tail in [false, true] {
                if events == 0 && bytes == 0 {
                    return;
                }
                let queue = if in_tail { &mut self.tail } else { &mut self.head };
                for item in std::mem::take(queue) {
                    let surplus = events > 0 || bytes > 0;
                    if surplus && item.is_in_memory() && item.record.class() == class {
                        events = events.saturating_sub(1);
                        let size = u64::try_from(item.size()).unwrap_or(u64::MAX);
                        bytes = bytes.saturating_sub(size);
                        self.discard(item, DropReason::Outdated);
                    } else if in_tail {
                        self.tail.push_back(item);
                    } else {
                        self.head.push_back(item);
                    }
                }
            }
        }
    }

    /// Counts a message as lost; one from the dead letters goes back there.
    pub(super) fn discard(&mut self, item: Item, reason: DropReason) {
        if let Origin::Retry(letter) = item.origin {
            if let Some(dead_letters) = &self.settings.dead_letters {
                dead_letters.give_back(letter);
            }
            self.pool.release(item.record);
            return;
        }
        item.record.note_lost();
        if !item.is_own() {
            self.ring.account().dropped(reason, 1);
            if item.boot.is_none() && item.stamp.seq <= self.standing.told {
                let (seq, kind) = (item.stamp.seq, item.record.kind());
                Gap::note_late(&mut self.late, &self.settings.boot, seq, kind, reason);
            } else {
                self.losses.note(item.record.kind(), reason);
            }
        }
        self.let_go(item);
    }

    /// Ends what is held for a message, wherever it came from.
    pub(super) fn let_go(&mut self, item: Item) {
        match item.origin {
            Origin::Memory => self.ring.release(item.size()),
            Origin::Spool(position) => {
                if let Some(store) = self.store.as_mut() {
                    store.settle(position);
                }
            }
            Origin::Retry(letter) => {
                if let Some(dead_letters) = &self.settings.dead_letters {
                    dead_letters.settle(letter);
                }
            }
            Origin::Own | Origin::Gap(_) => {}
        }
        self.pool.release(item.record);
    }

    /// Fills the head from the spool, when it has run empty.
    pub(super) fn refill(&mut self, want: usize) {
        /// Bytes of records read at a time: few enough to be in the nearer caches still when they are encoded.
        const READ_BYTES: usize = 256 << 10;
        // What is on disk when a stop comes stays there: it is safe, and the next load sends it.
        if !self.head.is_empty() || self.stop.is_some() {
            return;
        }
        let Some(store) = self.store.as_mut().filter(|store| !store.is_empty()) else { return };
        // From its beginning again: it may have been long, and would be walked through from end to end, in memory that no cache holds.
        self.head.clear();
        let boot = &self.settings.boot;
        let lost = store.read(want.max(1), READ_BYTES, boot, &self.pool, &mut self.head);
        self.losses.note_unknown(store.take_untold(), DropReason::SpoolDamaged);
        self.ring.account().dropped(DropReason::SpoolDamaged, lost);
    }

    /// Whether anything waits to be sent. Reads ahead from the spool to know.
    pub(super) fn has_work(&mut self) -> bool {
        let want = self.room_in_flight();
        if want > self.window.len() {
            self.refill(want - self.window.len());
        }
        !self.head.is_empty()
    }

    /// Notes since when there is no connection.
    pub(super) fn note_down(&mut self, is_down: bool) {
        if is_down {
            self.down_since.get_or_insert_with(Instant::now);
        } else {
            self.down_since = None;
        }
    }
}
