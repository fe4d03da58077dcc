// SPDX-License-Identifier: MIT
//! From where a message waits, through the sink, to its end.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::{Outgoing, Stamp};
use crate::dead::Letter;
use crate::pipeline::gap::Gap;
use crate::pipeline::item::{Item, Origin};
use crate::pipeline::latency;
use crate::pipeline::publisher::{Publisher, drop_quietly};
use crate::pipeline::store::Store;
use crate::queue::DropReason;
use crate::sink::{Class, Outcome, SinkError};

/// Messages handed over in one round: enough for a large write, few enough that what arrives
/// meanwhile is taken in before a queue fills.
const HAND_OVER_MAX: usize = 256;
/// Messages that a client without a connection is given.
const DEGRADED_WINDOW: usize = 64;
/// How often the log tells of a dead letter; all of them are counted, and listed by `dlq list`.
const TELL_DEAD_EVERY: Duration = Duration::from_secs(10);
/// Dead letters on their way again at a time.
const RETRIES_MAX: usize = 256;
/// Faults in a row over the same message before it is given up.
const FAULTS_MAX: u32 = 3;

impl Publisher {
    /// Whether there is something to send and the sink has room for it.
    pub(super) fn can_send(&mut self) -> bool {
        if self.paused && self.stop.is_none() {
            return false;
        }
        if self.hold_until.is_some() || self.renew {
            return false;
        }
        let has_room = self.window.len() < self.room_in_flight();
        has_room && (self.has_work() || self.is_late_due() || self.owes_gap())
    }

    /// How many messages may be in flight now; none without a connection.
    pub(super) fn room_in_flight(&mut self) -> usize {
        // A client that reaches nobody still gets a few: they are the first to arrive when it
        // does, and tell so.
        let limit = if self.degraded { DEGRADED_WINDOW } else { self.reach.limit() };
        self.link.up().map_or(0, |sink| sink.window().min(limit))
    }

    /// Whether messages wait for nothing but acknowledgements.
    pub(super) fn is_window_full(&mut self) -> bool {
        // What is in the spool is read when there is room for it.
        let waits = !self.head.is_empty() || self.store.as_ref().is_some_and(Store::has_unread);
        let room = self.room_in_flight();
        waits && room > 0 && self.window.len() >= room
    }

    /// The next message: a gap record when numbers are missing in front of it.
    fn next_item(&mut self) -> Option<Item> {
        match self.due_gap() {
            Some(gap) => Some(gap.into_item(&self.settings.names, &self.settings.name)),
            None => self.head.pop_front(),
        }
    }

    /// Hands the sink what its window has room for. False when the sink would not take something
    /// in spite of it, so that trying again at once is in vain.
    // By its symbol `tests/bench_gate.rs` counts what it costs.
    #[inline(never)]
    pub(super) fn hand_over(&mut self) -> bool {
        for _ in 0..HAND_OVER_MAX {
            if !self.can_send() {
                break;
            }
            let Some(mut item) = self.next_item() else { break };
            let tag = self.window.next_tag();
            let Some(sink) = self.link.up() else {
                self.head.push_front(item);
                break;
            };
            // A fault while a message is read or encoded must not take the message with it.
            let sent = panic::catch_unwind(AssertUnwindSafe(|| {
                self.index.read(&item.record);
                if !item.is_stamped {
                    item.stamp_by(&mut self.recent, self.index.sequence());
                }
                let message = Outgoing {
                    stamp: item.stamp,
                    node: &self.settings.node,
                    boot: item.boot.as_deref().unwrap_or(&self.settings.boot),
                    record: &item.record,
                    index: &self.index,
                    names: &self.settings.names,
                };
                sink.send(tag, &message).map(|()| message.timestamp_us())
            }));
            match sent {
                Ok(Ok(made_us)) => {
                    self.faults = 0;
                    self.note_told(&item);
                    if matches!(item.origin, Origin::Gap(_)) {
                        self.ring.account().gap();
                    }
                    self.window.push(item, made_us);
                    self.handed += 1;
                }
                Ok(Err(error)) => {
                    match error.class() {
                        // Its slot in the sink's numbering was not used.
                        Class::Reject => {
                            self.note_told(&item);
                            let mut front = VecDeque::new();
                            self.bury(item, &error.to_string(), &mut front);
                            self.put_in_front(front);
                            continue;
                        }
                        Class::Busy => self.head.push_front(item),
                        Class::Reconnect | Class::Refused => {
                            self.head.push_front(item);
                            self.failed(&error);
                        }
                    }
                    return false;
                }
                Err(payload) => {
                    drop_quietly(payload);
                    self.faulted(item);
                    return false;
                }
            }
        }
        true
    }

    /// A message brought the sink down by a fault of ours: tried a few times, then given up.
    fn faulted(&mut self, item: Item) {
        self.faults += 1;
        if self.faults >= FAULTS_MAX {
            self.faults = 0;
            self.discard(item, DropReason::Panic);
        } else {
            self.head.push_front(item);
        }
        self.recover_from_fault();
    }

    /// After a panic nothing is known of the connection: a new one is made.
    pub(super) fn recover_from_fault(&mut self) {
        self.board.panicked();
        self.outcomes.clear();
        if let Some(store) = self.store.as_mut() {
            store.advance();
        }
        let peer = self.link.peer().unwrap_or_default();
        let reason = "a fault of the module, see the log".into();
        self.failed(&SinkError::Fatal { peer, reason });
    }

    /// Acts on what the sink has reported.
    // By its symbol `tests/bench_gate.rs` counts what it costs.
    #[inline(never)]
    pub(super) fn settle(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut refused = Vec::new();
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Delivered(tag) => self.window.deliver(tag),
                Outcome::DeliveredThrough(tag) => self.window.deliver_through(tag),
                Outcome::Rejected { tag, reason } => {
                    refused.extend(self.window.take(tag).map(|item| (tag, item, reason, true)));
                }
                Outcome::Nacked { tag, reason } => {
                    refused.extend(self.window.take(tag).map(|item| (tag, item, reason, false)));
                }
            }
        }
        self.outcomes = outcomes;
        // In the order in which they were sent, in front of what waits.
        refused.sort_unstable_by_key(|(tag, ..)| *tag);
        let mut front = VecDeque::new();
        for (_, item, reason, is_for_good) in refused {
            if is_for_good {
                self.bury(item, &reason, &mut front);
            } else {
                self.retry(item, &reason, &mut front);
            }
        }
        self.put_in_front(front);
        let mut now_us = None;
        while let Some(settled) = self.window.pop_settled() {
            let Some((item, made_us)) = settled else { continue };
            if let Some(made_us) = made_us {
                let now_us = *now_us.get_or_insert_with(latency::now_us);
                self.board.latency().note(now_us.saturating_sub(made_us));
            }
            self.deliver(item);
        }
    }

    /// Puts these before all that waits. What waits is not moved for it: as a rule there are none.
    fn put_in_front(&mut self, front: VecDeque<Item>) {
        for item in front.into_iter().rev() {
            self.head.push_front(item);
        }
    }

    fn deliver(&mut self, item: Item) {
        self.note_retried(&item);
        if !item.is_own() {
            self.ring.account().delivered(1);
        }
        self.let_go(item);
    }

    /// The broker could not take it this time.
    fn retry(&mut self, mut item: Item, reason: &str, front: &mut VecDeque<Item>) {
        // Who buries it counts this attempt.
        if item.attempts + 1 >= self.settings.max_attempts {
            self.bury(item, reason, front);
            return;
        }
        item.attempts += 1;
        self.board.error(reason);
        let wait = Duration::from_millis(25).saturating_mul(1 << item.attempts.min(6));
        self.hold_until = Some(Instant::now() + wait);
        front.push_back(item);
    }

    /// The broker will never take it: to the dead letters. Those behind it go on. What is sent in its place goes to `front`.
    fn bury(&mut self, item: Item, reason: &str, front: &mut VecDeque<Item>) {
        // Reasons name keys and exchanges, so each may be news: the log gets one in a while.
        let is_news = self.board.error(reason);
        if is_news && self.told_dead.is_none_or(|told| told.elapsed() >= TELL_DEAD_EVERY) {
            self.told_dead = Some(Instant::now());
            log::warn!(
                "[{name}] A message is given up: {reason}; it is counted as dead: rustbridge dlq \
                 list {name}",
                name = self.settings.name
            );
        }
        if item.is_own() {
            // A gap record that nobody takes cannot be told of by another one.
            self.let_go(item);
            return;
        }
        self.note_retried(&item);
        self.ring.account().dead(1);
        let settings = Arc::clone(&self.settings);
        let boot = item.boot.clone().unwrap_or_else(|| Arc::clone(&settings.boot));
        // The hole that it leaves in the stream is told as well.
        let gap = Gap::dead(Arc::clone(&boot), item.stamp.seq, item.record.kind());
        front.push_back(gap.into_item(&settings.names, &settings.name));
        if let Some(dead_letters) = &settings.dead_letters {
            // What is read and encoded here is somebody else's. A fault over it costs the letter, and neither the account, which has
            // the message as dead, nor those behind it.
            let made = panic::catch_unwind(AssertUnwindSafe(|| {
                self.index.read(&item.record);
                let message = Outgoing {
                    stamp: item.stamp,
                    node: &settings.node,
                    boot: &boot,
                    record: &item.record,
                    index: &self.index,
                    names: &settings.names,
                };
                let mut key = Vec::new();
                match self.link.sink() {
                    Some(sink) => sink.write_key(&message, &mut key),
                    // Being opened: what was handed to it has been answered for before.
                    None => message.write_routing_key(&mut key),
                }
                let letter = Letter::of(&message, &key, item.attempts + 1, reason);
                let copy = settings.dead_letter_destination.as_ref().and_then(|destination| {
                    letter.to_publish_record(destination, &settings.node, &settings.names).ok()
                });
                (letter, copy)
            }));
            match made {
                Ok((letter, copy)) => {
                    front.extend(copy.map(|record| Item {
                        stamp: item.stamp,
                        is_stamped: true,
                        record: Arc::new(record),
                        boot: Some(Arc::clone(&boot)),
                        attempts: 0,
                        origin: Origin::Own,
                    }));
                    dead_letters.put(letter);
                }
                Err(payload) => {
                    drop_quietly(payload);
                    self.board.panicked();
                }
            }
        }
        self.buried.push(item);
    }

    /// Makes the dead letters durable, and only then lets go of their messages.
    pub(super) fn close_graves(&mut self) {
        if let Some(dead_letters) = &self.settings.dead_letters {
            dead_letters.flush();
        }
        for item in std::mem::take(&mut self.buried) {
            self.let_go(item);
        }
    }

    /// Takes up dead letters that an operator wants sent again.
    pub(super) fn take_retries(&mut self) {
        let Some(dead_letters) = self.settings.dead_letters.clone() else { return };
        if !self.link.is_up() || self.stop.is_some() || self.paused {
            return;
        }
        for letter in dead_letters.take_retries(RETRIES_MAX) {
            match letter.revive(&self.settings.names) {
                Ok(revived) => self.head.push_back(Item {
                    stamp: Stamp { seq: revived.seq, reuse: revived.reuse },
                    is_stamped: true,
                    boot: Some(revived.boot.into()),
                    record: Arc::new(revived.record),
                    attempts: 0,
                    origin: Origin::Retry(revived.letter),
                }),
                Err(error) => {
                    log::warn!(
                        "[{}] Dead letter {} cannot be sent again: {error}",
                        self.settings.name,
                        letter.id
                    );
                    dead_letters.give_back(letter.id);
                }
            }
        }
    }

    /// A message from the dead letters enters the account again when its second life ends.
    fn note_retried(&self, item: &Item) {
        if matches!(item.origin, Origin::Retry(_)) {
            self.ring.account().recovered(1);
        }
    }

    /// Puts what was in flight back in front of the queue, in order.
    pub(super) fn take_back(&mut self) {
        let mut unanswered = 0;
        let mut front = VecDeque::new();
        let mut delivered = Vec::new();
        for (item, answered) in self.window.restart() {
            if answered {
                delivered.push(item);
            } else {
                unanswered += u64::from(!item.is_own());
                front.push_back(item);
            }
        }
        for item in delivered {
            self.deliver(item);
        }
        if unanswered > 0 {
            self.ring.account().resent(unanswered);
        }
        front.append(&mut self.head);
        self.head = front;
    }
}
