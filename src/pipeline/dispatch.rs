// SPDX-License-Identifier: MIT
//! What happens to an event on the dispatch thread: select, copy once, offer to each sink.
//!
//! Tables made when the configuration is read answer everything that depends on the event's
//! number alone; a header is touched only once some sink has room for the event.

use std::sync::Arc;

use crate::config::delivery::ClassConfig;
use crate::event::names::nearest;
use crate::event::selection::{Coverage, Selection};
use crate::event::{Class, EventKind, EventNames, Record, Uncopied};
use crate::pipeline::subclass::{Remembered, hash};
use crate::queue::{Admission, DropReason, Lane, Pool, Ring};

/// A sink as the dispatch threads see it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its configured name.
    pub name: String,
    /// `file`, `amqp` or `kafka`.
    pub kind: &'static str,
    /// Its queue.
    pub ring: Arc<Ring>,
    /// What it wants.
    pub events: Selection,
    /// What it holds dear.
    pub classes: ClassConfig,
}

/// The sinks and what they want, fixed when the configuration is read.
#[derive(Debug)]
pub struct Dispatch {
    targets: Box<[Target]>,
    /// For each kind, a plan per target.
    plans: Box<[Plan]>,
    /// For each target, what it wants of the subclasses seen so far.
    remembered: Box<[Remembered]>,
    names: Arc<EventNames>,
    pool: Arc<Pool>,
    max_event_bytes: usize,
}

/// What a target does with a kind.
#[derive(Clone, Copy, Debug)]
struct Plan {
    coverage: Coverage,
    /// None when it depends on the subclass.
    class: Option<Class>,
}

impl Target {
    /// The kind of a target that is the module's own, and no sink to those who look.
    pub const INTERNAL: &'static str = "internal";

    /// Whether it is the module's own.
    pub fn is_internal(&self) -> bool {
        self.kind == Self::INTERNAL
    }

    /// Puts a message of the module's own into the queue. False when there is no room, which costs
    /// nothing: it can be tried again. For any thread but a dispatch thread.
    pub fn offer(&self, record: &Arc<Record>, class: Class) -> bool {
        if !self.ring.has_room(class) {
            return false;
        }
        self.ring.account().offered(Lane::ANY);
        self.ring.offer(Arc::clone(record), class).is_ok()
    }
}

/// An event on its way to the sinks. Dropped half way, by a panic, it completes their accounts: each sink is offered each event once, and
/// one that wanted it and did not get it has lost it.
struct Unfinished<'d> {
    dispatch: &'d Dispatch,
    kind: EventKind,
    /// To how many sinks it was offered.
    counted: usize,
    /// Which of those have neither refused it nor got it yet, a bit each.
    wanted: u64,
}

impl Unfinished<'_> {
    #[cold]
    fn complete(&self) {
        for (position, target) in self.dispatch.targets.iter().enumerate() {
            if position >= self.counted {
                target.ring.account().offered(Lane::ANY);
            } else if self.wanted >> position & 1 == 0 {
                continue;
            }
            target.ring.refuse(self.kind, DropReason::Panic);
        }
    }
}

impl Drop for Unfinished<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.wanted != 0 || self.counted < self.dispatch.targets.len() {
            self.complete();
        }
    }
}

impl Dispatch {
    /// The most sinks at a time.
    pub const TARGETS_MAX: usize = 64;

    /// Makes the tables. `targets` beyond [`TARGETS_MAX`](Self::TARGETS_MAX) are left out, which
    /// the configuration refuses before.
    pub fn new(
        targets: Vec<Target>,
        names: Arc<EventNames>,
        pool: Arc<Pool>,
        max_event_bytes: usize,
    ) -> Self {
        let mut targets = targets;
        targets.truncate(Self::TARGETS_MAX);
        let plans = names
            .iter()
            .flat_map(|name| targets.iter().map(move |target| Plan::of(target, name)))
            .collect();
        let remembered = targets.iter().map(|_| Remembered::default()).collect();
        Self { targets: targets.into(), plans, remembered, names, pool, max_event_bytes }
    }

    /// The sinks.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Takes an event in, on a thread in this lane. `copy` writes it to a record, or stops beyond the maximum that it is given; it is
    /// called at most once.
    ///
    /// For dispatch threads: no lock, no system call, no allocation once the pool is warm.
    #[inline]
    pub fn event<'s>(
        &self,
        lane: Lane,
        kind: EventKind,
        subclass: impl FnOnce() -> Option<&'s [u8]>,
        copy: impl FnOnce(&mut Record, Class, usize) -> Result<(), Uncopied>,
    ) {
        let count = self.targets.len();
        let start = usize::from(kind.number()) * count;
        let plans = self.plans.get(start..start + count).unwrap_or_default();
        let mut open = Unfinished { dispatch: self, kind, counted: 0, wanted: 0 };
        let mut dearest = Class::Bulk;
        let mut classes = [Class::Normal; Self::TARGETS_MAX];
        let mut subclass = Lazy::Unread(subclass);
        for (position, target) in self.targets.iter().enumerate() {
            let account = target.ring.account();
            account.offered(lane);
            open.counted = position + 1;
            open.wanted |= 1 << position;
            // A kind without a plan is newer than the tables: it is nobody's.
            let plan = plans.get(position).copied().unwrap_or(Plan::NOTHING);
            let (wants, class) = match (plan.coverage, plan.class) {
                (Coverage::None, _) => (false, Class::Normal),
                (Coverage::All, Some(class)) => (true, class),
                _ => self.by_subclass(position, target, kind, subclass.read()),
            };
            if !wants {
                account.filtered(lane);
                open.wanted &= !(1 << position);
                continue;
            }
            if target.ring.admit(kind, class) == Admission::Open {
                dearest = dearest.min(class);
                if let Some(slot) = classes.get_mut(position) {
                    *slot = class;
                }
            } else {
                open.wanted &= !(1 << position);
            }
        }
        let wanted = open.wanted;
        if wanted == 0 {
            return;
        }
        let mut rest = self.pool.take(lane);
        // The pool gives out records that nobody else holds.
        let record = rest.as_mut().and_then(Arc::get_mut);
        let copied = record.map(|record| {
            record.set_home(lane.number());
            copy(record, dearest, self.max_event_bytes)
        });
        let copied = copied.unwrap_or(Err(Uncopied::NoMemory));
        if let Err(why) = copied {
            let reason = match why {
                Uncopied::TooLarge => DropReason::Oversize,
                Uncopied::NoMemory => DropReason::NoMemory,
            };
            self.each(wanted, |_, ring| {
                ring.refuse(kind, reason);
            });
            open.wanted = 0;
            if let Some(record) = rest {
                self.pool.release(record);
            }
            return;
        }
        self.each(wanted, |position, ring| {
            let class = classes.get(position).copied().unwrap_or(Class::Normal);
            // The last one wanted gets the record itself, the others a reference each.
            let last = wanted >> position == 1;
            let Some(record) = (if last { rest.take() } else { rest.clone() }) else { return };
            open.wanted &= !(1 << position);
            if let Err(record) = ring.offer(record, class) {
                self.pool.release(record);
            }
        });
    }

    /// Puts a message of an application's into the queue of one sink. For any thread.
    ///
    /// # Errors
    ///
    /// When there is no such sink, or it has no room: the message is then counted as dropped.
    pub fn publish(&self, sink: Option<&str>, record: Record) -> Result<&Target, PublishError> {
        let target = match sink {
            Some(name) => self
                .targets
                .iter()
                .find(|target| target.name == name && !target.is_internal())
                .ok_or_else(|| self.no_such_sink(name))?,
            // Brokers before files: publishing is for others to read.
            None => ["amqp", "kafka", "file"]
                .iter()
                .find_map(|kind| self.targets.iter().find(|target| target.kind == *kind))
                .ok_or(PublishError::NoSinks)?,
        };
        let ring = &target.ring;
        ring.account().offered(Lane::ANY);
        let (kind, class) = (record.kind(), record.class());
        if record.size() > self.max_event_bytes {
            ring.refuse(kind, DropReason::Oversize);
            return Err(PublishError::Oversize(target.name.clone(), self.max_event_bytes));
        }
        if ring.admit(kind, class) == Admission::Full {
            return Err(PublishError::Full(target.name.clone()));
        }
        ring.offer(Arc::new(record), class)
            .map(|()| target)
            .map_err(|_| PublishError::Full(target.name.clone()))
    }

    /// Whether a target wants an event of this subclass, and what it is worth to it.
    fn by_subclass(
        &self,
        position: usize,
        target: &Target,
        kind: EventKind,
        subclass: Option<&[u8]>,
    ) -> (bool, Class) {
        let ask = || {
            let name = self.name(kind);
            (target.events.wants(name, subclass), target.classes.class_of(name, subclass))
        };
        match (subclass, self.remembered.get(position)) {
            (Some(subclass), Some(remembered)) => remembered.answer(hash(subclass), ask),
            _ => ask(),
        }
    }

    fn no_such_sink(&self, name: &str) -> PublishError {
        let sinks = self.targets.iter().filter(|target| !target.is_internal());
        let meant = nearest(name, sinks.map(|target| target.name.as_str()), 3);
        let meant = meant.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        PublishError::NoSuchSink(name.to_owned(), meant)
    }

    fn name(&self, kind: EventKind) -> &str {
        self.names.name(kind).unwrap_or_default()
    }

    #[inline]
    fn each(&self, mut mask: u64, mut body: impl FnMut(usize, &Ring)) {
        while mask != 0 {
            let position = usize::try_from(mask.trailing_zeros()).unwrap_or(0);
            mask &= mask - 1;
            if let Some(target) = self.targets.get(position) {
                body(position, &target.ring);
            }
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PublishError {
    /// No sink has this name; and the name that was probably meant, as a half sentence.
    #[error("there is no sink {0:?}{1}; `rustbridge sinks` lists them")]
    NoSuchSink(String, String),
    /// There is no sink at all.
    #[error("no sink is configured")]
    NoSinks,
    /// The queue is full.
    #[error("the queue of sink {0:?} is full: the message is dropped and counted")]
    Full(String),
    /// It is too large.
    #[error(
        "the message for sink {0:?} is larger than max-event-bytes ({1}): it is dropped and counted"
    )]
    Oversize(String, usize),
}

impl Plan {
    const NOTHING: Self = Self { coverage: Coverage::None, class: Some(Class::Normal) };

    fn of(target: &Target, name: &str) -> Self {
        let by_subclass = |selection: &Selection| selection.coverage(name) == Coverage::BySubclass;
        let classes = &target.classes;
        let depends = by_subclass(&classes.critical) || by_subclass(&classes.bulk);
        Self {
            coverage: target.events.coverage(name),
            class: (!depends).then(|| target.classes.class_of(name, None)),
        }
    }
}

/// The subclass, read from the event at most once and only when something depends on it.
enum Lazy<'s, F> {
    Unread(F),
    Read(Option<&'s [u8]>),
}

impl<'s, F: FnOnce() -> Option<&'s [u8]>> Lazy<'s, F> {
    fn read(&mut self) -> Option<&'s [u8]> {
        if let Self::Read(subclass) = self {
            return *subclass;
        }
        let Self::Unread(read) = std::mem::replace(self, Self::Read(None)) else { return None };
        let subclass = read();
        *self = Self::Read(subclass);
        subclass
    }
}
