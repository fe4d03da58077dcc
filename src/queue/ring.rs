// SPDX-License-Identifier: MIT
//! The bounded queue between dispatch threads and one publisher.

use super::sync::{Arc, ArrayQueue, AtomicBool, AtomicU32, AtomicU64, CachePadded, Ordering};
use crate::event::{Class, EventKind, Record};
use crate::queue::{Account, DropReason};

/// How much a sink may hold in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes that their records hold.
    pub bytes: usize,
    /// What each class may take of both, in percent, dearest class first.
    pub percent: [u8; 3],
    /// Events taken beyond the limit for the publisher to make room for, under `drop-oldest`.
    pub slack_percent: u8,
}

/// An event in the ring.
#[derive(Debug)]
pub struct Slot {
    /// The event.
    pub record: Arc<Record>,
    /// How many events directly before it found no room.
    pub missed: u32,
}

/// Room that was reserved for an event before it was copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// There is room now.
    Open,
    /// There is none: the event is lost, and has been counted.
    Full,
}

/// What was lost since it was last asked for, for a gap record.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Missed {
    /// Lost events per kind.
    pub kinds: Vec<(EventKind, u32)>,
    /// Lost events per reason.
    pub reasons: Vec<(DropReason, u32)>,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    /// How many events were lost before it.
    lost: u64,
}

/// One sink's queue. Any number of threads offer, one publisher takes.
#[derive(Debug)]
pub struct Ring {
    slots: ArrayQueue<Entry>,
    limits: Limits,
    /// Events in the upper 24 bits, bytes in the lower 40.
    held: CachePadded<AtomicU64>,
    /// Events lost so far. Each event that gets in takes the count along, so that its place among
    /// the losses is known however late the publisher looks.
    lost: CachePadded<AtomicU64>,
    taken: CachePadded<Taken>,
    missed_kinds: Box<[AtomicU32]>,
    missed_reasons: [AtomicU32; DropReason::ALL.len()],
    closed: AtomicBool,
    account: Arc<Account>,
}

/// What only the publisher writes: apart from what dispatch threads read.
#[derive(Debug)]
struct Taken {
    /// How many of the losses it has been told of.
    told: AtomicU64,
    /// Bytes that records it has taken hold beyond what they are charged for from then on, and that are not given back yet.
    surplus: AtomicU64,
}

/// The surplus is given back in pieces of at the most this share of the bound, so not for each event.
const SURPLUS_SHARE: u64 = 16;
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;
/// Kinds that are told apart in gap records; both known cores have fewer than 100.
const KINDS: usize = 256;

impl Ring {
    /// Bytes of its memory for each event that it can hold: the event's entry, and the stamp that the array keeps beside it.
    #[cfg(test)]
    pub(crate) const SLOT_BYTES: usize = size_of::<Entry>() + size_of::<usize>();

    /// An empty ring that counts into `account`.
    pub fn new(limits: Limits, account: Arc<Account>) -> Self {
        let slack = limits.events.saturating_mul(usize::from(limits.slack_percent)) / 100;
        Self {
            slots: ArrayQueue::new(limits.events.saturating_add(slack).max(1)),
            limits,
            held: CachePadded::new(AtomicU64::new(0)),
            lost: CachePadded::new(AtomicU64::new(0)),
            taken: CachePadded::new(Taken { told: AtomicU64::new(0), surplus: AtomicU64::new(0) }),
            missed_kinds: std::iter::repeat_with(AtomicU32::default).take(KINDS).collect(),
            missed_reasons: Default::default(),
            closed: AtomicBool::new(false),
            account,
        }
    }

    /// Whether an event of this class has room, asked before it is copied so that a full queue
    /// costs no copy. An event that finds none is counted as lost.
    #[inline]
    pub fn admit(&self, kind: EventKind, class: Class) -> Admission {
        if self.closed.load(Ordering::Relaxed) {
            return self.refuse(kind, DropReason::Closed);
        }
        if self.fits(self.held.load(Ordering::Relaxed), class) {
            Admission::Open
        } else {
            self.refuse(kind, DropReason::QueueFull)
        }
    }

    /// Whether an event of this class would have room now, asked without losing it if not. For a
    /// sender that can come again.
    pub fn has_room(&self, class: Class) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.fits(self.held.load(Ordering::Relaxed), class)
    }

    #[inline]
    fn fits(&self, held: u64, class: Class) -> bool {
        let percent =
            u64::from(self.limits.percent.get(usize::from(class.number())).copied().unwrap_or(100))
                + u64::from(self.limits.slack_percent);
        let events = u64::try_from(self.limits.events).unwrap_or(u64::MAX);
        let bytes = u64::try_from(self.limits.bytes).unwrap_or(u64::MAX);
        (held >> BYTES_BITS) * 100 < events.saturating_mul(percent)
            && (held & BYTES_MASK).saturating_mul(100) < bytes.saturating_mul(percent)
    }

    /// Puts an event in, or counts it as lost.
    ///
    /// The bound on events is kept exactly; the one on bytes may be exceeded by one event for
    /// each thread that offers at the same moment, since an event is measured by copying it.
    ///
    /// `class` is what the event is worth to this sink; the record says what it is worth to the
    /// one that values it most.
    ///
    /// # Errors
    ///
    /// Gives the record back when there was no room.
    #[inline]
    pub fn offer(&self, record: Arc<Record>, class: Class) -> Result<(), Arc<Record>> {
        let kind = record.kind();
        // All that it holds, used or not: a publisher that a disk keeps waiting does not pack what lies here.
        let charge = charge(record.capacity());
        let before = self.held.fetch_add(charge, Ordering::Relaxed);
        if !self.fits(before, class) {
            self.held.fetch_sub(charge, Ordering::Relaxed);
            self.refuse(kind, DropReason::QueueFull);
            return Err(record);
        }
        // Mostly a read of a line that nobody writes. Acquire, as in `take_missed`.
        let lost = self.lost.load(Ordering::Acquire);
        self.slots.push(Entry { record, lost }).map_err(|entry| {
            self.held.fetch_sub(charge, Ordering::Relaxed);
            self.refuse(kind, DropReason::QueueFull);
            entry.record
        })
    }

    /// Counts one event of this kind as lost. Never called for what was put in.
    pub fn refuse(&self, kind: EventKind, reason: DropReason) -> Admission {
        self.account.dropped(reason, 1);
        self.note_missed(kind, reason);
        // Release: who knows of the loss finds its kind and reason noted, and in the ring whatever
        // this thread put in before it.
        self.lost.fetch_add(1, Ordering::Release);
        Admission::Full
    }

    /// Enters a loss for the next gap record, whoever found it.
    pub fn note_missed(&self, kind: EventKind, reason: DropReason) {
        let kind = usize::from(kind.number()).min(KINDS - 1);
        if let Some(counter) = self.missed_kinds.get(kind) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(counter) = self.missed_reasons.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next event. For the publisher alone; it owes a [`release`](Self::release) of its size.
    pub fn take(&self) -> Option<Slot> {
        let Some(Entry { record, lost }) = self.slots.pop() else {
            self.give_back_surplus(0);
            return None;
        };
        let beyond = record.capacity().saturating_sub(record.size());
        let beyond = u64::try_from(beyond).unwrap_or(0);
        let surplus = self.taken.surplus.load(Ordering::Relaxed) + beyond;
        self.taken.surplus.store(surplus, Ordering::Relaxed);
        self.give_back_surplus(u64::try_from(self.limits.bytes).unwrap_or(0) / SURPLUS_SHARE);
        Some(Slot { record, missed: self.tell(lost) })
    }

    /// From now on taken records count as what they use, when they hold this much more together.
    fn give_back_surplus(&self, least: u64) {
        let surplus = self.taken.surplus.load(Ordering::Relaxed);
        if surplus > least {
            self.taken.surplus.store(0, Ordering::Relaxed);
            self.held.fetch_sub(surplus, Ordering::Relaxed);
        }
    }

    /// Whether anything lies in it.
    pub fn has_events(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Events lost since the last one that got in, when none has followed them yet. For the
    /// publisher alone.
    pub fn take_missed(&self) -> u32 {
        // Acquire pairs with the Release in `refuse`. It comes before the look at the ring: what
        // lies there may have been put in before these losses.
        let lost = self.lost.load(Ordering::Acquire);
        if lost == self.taken.told.load(Ordering::Relaxed) || !self.slots.is_empty() {
            return 0;
        }
        self.tell(lost)
    }

    /// How many of the first `lost` losses are not told yet. They are from now on.
    fn tell(&self, lost: u64) -> u32 {
        let told = self.taken.told.load(Ordering::Relaxed);
        // Threads that offer at the same moment may get in in another order than they counted.
        let missed = u32::try_from(lost.saturating_sub(told)).unwrap_or(u32::MAX);
        if missed > 0 {
            self.taken.told.store(told + u64::from(missed), Ordering::Relaxed);
        }
        missed
    }

    /// What was lost since this was last asked, for the gap record that tells it.
    pub fn take_missed_detail(&self) -> Missed {
        let drain = |counter: &AtomicU32| match counter.load(Ordering::Relaxed) {
            0 => 0,
            _ => counter.swap(0, Ordering::Relaxed),
        };
        let kinds = self.missed_kinds.iter().enumerate().filter_map(|(number, counter)| {
            let count = drain(counter);
            let kind = EventKind::new(u16::try_from(number).unwrap_or(u16::MAX));
            (count > 0).then_some((kind, count))
        });
        let reasons = DropReason::ALL.iter().zip(&self.missed_reasons);
        let reasons = reasons.filter_map(|(reason, counter)| {
            let count = drain(counter);
            (count > 0).then_some((*reason, count))
        });
        Missed { kinds: kinds.collect(), reasons: reasons.collect() }
    }

    /// Gives back the room of an event of `size` bytes that is out of memory now: delivered,
    /// spooled, or lost.
    pub fn release(&self, size: usize) {
        self.held.fetch_sub(charge(size), Ordering::Relaxed);
    }

    /// Takes room for an event that came another way than by [`offer`](Self::offer), bound or no
    /// bound: it is in memory already.
    pub fn charge(&self, size: usize) {
        self.held.fetch_add(charge(size), Ordering::Relaxed);
    }

    /// Events and bytes in memory.
    pub fn held(&self) -> (u64, u64) {
        let held = self.held.load(Ordering::Relaxed);
        (held >> BYTES_BITS, held & BYTES_MASK)
    }

    /// How far memory is over what the class may take: events, bytes. For `drop-oldest`.
    pub fn excess(&self) -> (u64, u64) {
        let (events, bytes) = self.held();
        let limit = |limit: usize| u64::try_from(limit).unwrap_or(u64::MAX);
        (
            events.saturating_sub(limit(self.limits.events)),
            bytes.saturating_sub(limit(self.limits.bytes)),
        )
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Refuses everything from now on. What is in stays.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The counters.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

fn charge(size: usize) -> u64 {
    (1 << BYTES_BITS) | (u64::try_from(size).unwrap_or(BYTES_MASK) & BYTES_MASK)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ring(events: usize, bytes: usize, percent: [u8; 3]) -> Ring {
        Ring::new(Limits { events, bytes, percent, slack_percent: 0 }, Arc::default())
    }

    fn put(ring: &Ring, class: Class, size: usize) -> Result<(), Arc<Record>> {
        let mut record = Record::default();
        record.begin(EventKind::new(7), class, Some(&vec![b'x'; size]));
        ring.offer(Arc::new(record), class)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_by_the_next_that_does() {
        let ring = ring(2, 1 << 20, [100; 3]);
        for n in 0..5 {
            assert_eq!(put(&ring, Class::Normal, 10).is_ok(), n < 2);
        }
        assert_eq!(ring.account().view().dropped[DropReason::QueueFull.index()], 3);
        let slot = ring.take().unwrap();
        assert_eq!(slot.missed, 0);
        ring.release(slot.record.size());
        put(&ring, Class::Normal, 10).unwrap();
        ring.take().unwrap();
        assert_eq!(ring.take().unwrap().missed, 3);
        let missed = ring.take_missed_detail();
        assert_eq!(missed.kinds, [(EventKind::new(7), 3)]);
        assert_eq!(missed.reasons, [(DropReason::QueueFull, 3)]);
        assert_eq!(ring.take_missed_detail(), Missed::default());
    }

    #[test]
    fn a_loss_that_nothing_follows_is_told_once_the_ring_is_empty() {
        let ring = ring(1, 1 << 20, [100; 3]);
        put(&ring, Class::Normal, 1).unwrap();
        put(&ring, Class::Normal, 1).unwrap_err();
        assert_eq!(ring.take_missed(), 0, "an event lies before the loss");
        ring.take().unwrap();
        assert_eq!(ring.take_missed(), 1);
        assert_eq!(ring.take_missed(), 0);
    }

    #[test]
    fn bulk_is_refused_first_and_critical_last() {
        let ring = ring(100, 1 << 20, [100, 90, 50]);
        let fill = |class| (0..200).filter(|_| put(&ring, class, 1).is_ok()).count();
        assert_eq!([fill(Class::Bulk), fill(Class::Normal), fill(Class::Critical)], [50, 40, 10]);
    }

    #[test]
    fn bytes_bound_memory_as_well_as_events() {
        let ring = ring(1000, 1000, [100; 3]);
        let accepted = (0..100).filter(|_| put(&ring, Class::Normal, 300).is_ok()).count();
        let (events, bytes) = ring.held();
        assert_eq!(events, u64::try_from(accepted).unwrap());
        assert!(
            (1000..1000 + bytes / events).contains(&bytes),
            "the event that crosses it is the last"
        );
        while ring.take().is_some() {}
        assert_eq!(ring.held(), (events, 300 * events), "what is taken counts as what it uses");
    }

    #[test]
    fn a_closed_ring_takes_nothing_and_keeps_what_it_has() {
        let ring = ring(10, 1000, [100; 3]);
        put(&ring, Class::Normal, 1).unwrap();
        ring.close();
        assert_eq!(ring.admit(EventKind::new(1), Class::Critical), Admission::Full);
        assert!(ring.take().is_some());
    }
}
