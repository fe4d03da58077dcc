// SPDX-License-Identifier: MIT
//! Telling orphans to every sink that wants them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::sink::shared;
use super::table::{Orphan, Table};
use crate::event::{EventNames, Record};
use crate::sink::Interrupt;

/// The sinks, as the teller sees them.
pub trait Audience {
    /// Names of the sinks that want orphans now.
    fn wanting(&self) -> Vec<String>;
    /// Puts the message into the queue of a sink. False when it has no room.
    fn offer(&self, sink: &str, record: &Arc<Record>) -> bool;
}

/// How telling ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// Every sink has every orphan for good.
    All,
    /// There was no time; the rest is told at the next start.
    Interrupted,
}

/// Publishes the orphans, each to each sink as a message of its own. No sink waits for another.
///
/// A sink has one for good when its pipeline has let go of the record: it was acknowledged, or it
/// is in the spool or the dead letters, where it becomes durable within their interval. Only after
/// that, and [`Teller::DURABLE_AFTER`] more, the table notes it. One that a sink had to drop is offered
/// to it again. So a crash while telling repeats at most
/// what was let go of since the last note, with the same id.
#[derive(Debug)]
pub struct Teller {
    table: Arc<Mutex<Table>>,
    names: Arc<EventNames>,
    durable_after: Duration,
    sinks: BTreeMap<String, Progress>,
}

/// How far a sink is.
#[derive(Debug, Default)]
struct Progress {
    wants: bool,
    /// The first orphan that it was not offered.
    next: u64,
    /// What its pipeline still holds, and of which orphan.
    held: Vec<(u64, Arc<Record>)>,
    /// What it has let go of, since when, in that order.
    gone: VecDeque<(u64, Instant)>,
    /// Nothing is offered before this: the sink has dropped something.
    not_before: Option<Instant>,
}

/// Messages in a pipeline at a time: a crash with thousands of calls must not push the events of
/// the new ones out.
const HELD_MAX: usize = 256;
/// How often it is looked what became of them.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_LATER: Duration = Duration::from_secs(1);

impl Teller {
    /// How long after a spool's interval a message is noted that its pipeline has let go of: a disk may be slow.
    pub const DURABLE_AFTER: Duration = Duration::from_secs(1);

    /// For the orphans in `table`. No spool takes longer than `interval` to make something durable.
    pub fn new(table: Arc<Mutex<Table>>, names: Arc<EventNames>, interval: Duration) -> Self {
        let durable_after = interval + Self::DURABLE_AFTER;
        Self { table, names, durable_after, sinks: BTreeMap::new() }
    }

    /// Tells them all, or as many as there is time for before `stop` is raised. For a thread of its
    /// own: a broker may be away for hours.
    pub fn run(mut self, audience: &impl Audience, stop: &Interrupt) -> Told {
        loop {
            if stop.is_raised() {
                return Told::Interrupted;
            }
            let moved = self.step(audience, Instant::now());
            if self.is_done() {
                return Told::All;
            }
            if stop.wait(if moved { LOOK_EVERY } else { LOOK_LATER }) {
                return Told::Interrupted;
            }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.sinks.values().all(Progress::is_idle) && shared(&self.table).orphan(0).is_none()
    }

    /// Notes what has arrived and offers what there is room for. True when anything happened.
    pub(super) fn step(&mut self, audience: &impl Audience, now: Instant) -> bool {
        let wanting = audience.wanting();
        let changed = self.meet(&wanting);
        let mut touched = BTreeSet::new();
        let mut moved = false;
        for (name, sink) in &mut self.sinks {
            moved |= sink.settle(name, &self.table, (now, self.durable_after), &mut touched);
            if sink.wants && sink.not_before.is_none_or(|time| now >= time) {
                moved |= sink.offer(name, &self.table, &self.names, audience);
            }
        }
        let mut noted = !touched.is_empty();
        if changed {
            // Whom an orphan waited for may be gone.
            let table = shared(&self.table);
            let mut from = 0;
            while let Some((number, _)) = table.orphan(from) {
                touched.insert(number);
                from = number + 1;
            }
        }
        let mut table = shared(&self.table);
        for number in touched {
            let told = |orphan: &Orphan| {
                let told = |name: &String| orphan.is_told(name);
                wanting.iter().all(told) && !self.sinks.values().any(|sink| sink.has(number))
            };
            if table.orphan(number).is_some_and(|(found, orphan)| found == number && told(orphan)) {
                table.done(number);
                noted = true;
            }
        }
        if noted {
            table.flush();
        }
        moved || noted
    }

    /// Learns who wants to be told. True when that is not as before.
    fn meet(&mut self, wanting: &[String]) -> bool {
        let mut changed = self.sinks.is_empty();
        for (name, sink) in &mut self.sinks {
            let wants = wanting.contains(name);
            changed |= sink.wants != wants;
            sink.wants = wants;
        }
        for name in wanting {
            if !self.sinks.contains_key(name) {
                let progress = Progress { wants: true, ..Progress::default() };
                self.sinks.insert(name.clone(), progress);
                changed = true;
            }
        }
        changed
    }
}

impl Progress {
    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.gone.is_empty()
    }

    /// Whether this orphan is on its way.
    fn has(&self, orphan: u64) -> bool {
        self.held.iter().any(|(held, _)| *held == orphan)
            || self.gone.iter().any(|(gone, _)| *gone == orphan)
    }

    /// Notes messages that the pipeline has let go of long enough ago. True while some are to be
    /// looked at again soon.
    fn settle(
        &mut self,
        name: &str,
        table: &Mutex<Table>,
        (now, durable_after): (Instant, Duration),
        touched: &mut BTreeSet<u64>,
    ) -> bool {
        let (gone, next, not_before) = (&mut self.gone, &mut self.next, &mut self.not_before);
        self.held.retain(|(orphan, record)| {
            let is_held = Arc::strong_count(record) > 1;
            if !is_held && record.is_lost() {
                *next = (*next).min(*orphan);
                *not_before = Some(now + LOOK_LATER);
            } else if !is_held {
                gone.push_back((*orphan, now));
            }
            is_held
        });
        while let Some((orphan, since)) = self.gone.front().copied() {
            if now < since + durable_after {
                break;
            }
            self.gone.pop_front();
            shared(table).told(orphan, name);
            touched.insert(orphan);
        }
        !self.gone.is_empty()
    }

    /// Offers the orphans that come next.
    fn offer(
        &mut self,
        name: &str,
        table: &Mutex<Table>,
        names: &EventNames,
        audience: &impl Audience,
    ) -> bool {
        let mut moved = false;
        while self.held.len() < HELD_MAX {
            let (number, record) = {
                let table = shared(table);
                let Some((number, orphan)) = table.orphan(self.next) else { break };
                if orphan.is_told(name) || self.has(number) {
                    self.next = number + 1;
                    continue;
                }
                let mut record = orphan.record(table.boot(), names);
                record.watch();
                (number, Arc::new(record))
            };
            if !audience.offer(name, &record) {
                break;
            }
            self.next = number + 1;
            self.held.push((number, record));
            moved = true;
        }
        moved
    }
}
