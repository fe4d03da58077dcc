// SPDX-License-Identifier: MIT
//! What the dispatch threads call.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::event::EventKind;
use crate::pipeline::Dispatch;
use crate::queue::{Lane, Lanes};
use crate::switch::{Core, EventHandler, EventRef, Subscription, SwitchError};

/// Hands each event to the tables that are in force.
///
/// There are two places for tables, of which one is in force. A reload fills the other, points to
/// it, and empties the first only when no callback can be reading it any more. So the lock around
/// a place is never held by a writer while a dispatch thread asks for it: reading is one atomic
/// operation, and nobody ever waits. A place has a lock for each lane, so that threads that read at once do not pull one cache line to
/// and fro.
#[derive(Debug)]
pub(super) struct Handler {
    places: [Place; 2],
    current: AtomicUsize,
    lanes: Lanes,
    panics: AtomicU64,
    custom: EventKind,
    /// Markers that came through the core's queue.
    markers: AtomicUsize,
}

/// One of the places for tables.
#[derive(Debug, Default)]
struct Place([CachePadded<RwLock<Option<Arc<Dispatch>>>>; Lane::COUNT]);

impl Place {
    /// Puts tables there, or takes them away. Waits for whoever reads.
    fn set(&self, dispatch: Option<&Arc<Dispatch>>) {
        for lock in &self.0 {
            *lock.write().unwrap_or_else(PoisonError::into_inner) = dispatch.cloned();
        }
    }

    /// Looks at them, as one of the readers of this lane.
    #[inline]
    fn read(&self, lane: Lane) -> RwLockReadGuard<'_, Option<Arc<Dispatch>>> {
        let lock = lane.pick(&self.0);
        // Always there at once: see the handler.
        match lock.try_read() {
            Ok(place) => place,
            Err(_) => lock.read().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// The subclass of the event that marks the end of the core's queue at shutdown.
const MARKER: &CStr = c"rustbridge::marker";

impl Handler {
    /// A handler with these tables in force.
    pub(super) fn new(dispatch: &Arc<Dispatch>, custom: EventKind) -> Self {
        let places = <[Place; 2]>::default();
        let [first, _] = &places;
        first.set(Some(dispatch));
        Self {
            custom,
            markers: AtomicUsize::new(0),
            places,
            lanes: Lanes::default(),
            current: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
        }
    }

    fn place(&self, number: usize) -> &Place {
        let [even, odd] = &self.places;
        if number.is_multiple_of(2) { even } else { odd }
    }

    /// The tables in force, for anyone but a dispatch thread.
    pub(super) fn dispatch(&self) -> Option<Arc<Dispatch>> {
        let current = self.current.load(Ordering::Acquire);
        self.place(current).read(Lane::ANY).clone()
    }

    /// Puts other tables in force. When it returns, no callback uses the old ones.
    ///
    /// Not for a callback: it waits for them to leave. One caller at a time.
    pub(super) fn replace(&self, dispatch: &Arc<Dispatch>, core: &Core) -> Result<(), SwitchError> {
        let old = self.current.load(Ordering::Acquire);
        self.place(old + 1).set(Some(dispatch));
        // Release: who reads the new number finds the new tables behind it.
        self.current.store((old + 1) % 2, Ordering::Release);
        // Unbinding takes the lock that every callback holds: when it has come and gone, those
        // that began with the old tables have ended.
        drop(Subscription::bind(c"mod_rustbridge", core.all, Arc::new(Barrier))?);
        self.place(old).set(None);
        Ok(())
    }

    /// Waits until every event that was fired before this call has come, or until `deadline`. So
    /// that the last hangup before a shutdown is not left in the core's queue. With several dispatch
    /// threads an event that another one has taken just before may still be on its way; unbinding,
    /// which comes next, waits for that.
    ///
    /// Not for a callback.
    pub(super) fn catch_up(&self, deadline: Instant) {
        let before = self.markers.load(Ordering::Acquire);
        if Core::fire_custom(MARKER).is_err() {
            return;
        }
        while self.markers.load(Ordering::Acquire) == before && Instant::now() < deadline {
            // Callbacks wake nobody; their trace is looked for.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Closes every ring: what still comes is counted as dropped.
    pub(super) fn close(&self) {
        for target in self.dispatch().iter().flat_map(|dispatch| dispatch.targets()) {
            target.ring.close();
        }
    }

    /// Events lost to faults of ours.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    #[inline]
    fn with(&self, lane: Lane, body: impl FnOnce(&Dispatch)) {
        let current = self.current.load(Ordering::Acquire);
        let place = self.place(current).read(lane);
        if let Some(dispatch) = place.as_deref() {
            body(dispatch);
        }
    }
}

impl EventHandler for Handler {
    #[inline]
    fn on_event(&self, event: &EventRef<'_>) {
        if event.kind() == self.custom && event.subclass() == Some(MARKER.to_bytes()) {
            self.markers.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let lane = self.lanes.here();
        self.with(lane, |dispatch| {
            dispatch.event(
                lane,
                event.kind(),
                || event.subclass(),
                |record, class, max| {
                    #[cfg(feature = "fault-injection")]
                    assert_ne!(
                        event.subclass(),
                        Some(b"rustbridge::panic".as_slice()),
                        "asked for"
                    );
                    event.copy_to(record, class, max)
                },
            );
        });
    }

    // What the event was lost to is in the accounts of its sinks already.
    fn on_panic(&self, _kind: EventKind) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bound and unbound to wait for callbacks.
struct Barrier;

impl EventHandler for Barrier {
    fn on_event(&self, _event: &EventRef<'_>) {}

    fn on_panic(&self, _kind: EventKind) {}
}
