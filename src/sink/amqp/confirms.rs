// SPDX-License-Identifier: MIT
//! Which messages wait for the broker's confirm.
//!
//! A broker numbers the messages of a channel from one and confirms by that *delivery tag*: singly
//! or up to one (`multiple`), in any order. What is in flight is a ring of slots in the order of
//! the tags, so a single confirm is one look-up, and a multiple one costs a step per message that
//! it settles: each slot is passed over once in its life.

use std::collections::VecDeque;
use std::time::Instant;

use crate::sink::Outcome;

/// A message-id as far as it is needed to know a returned message again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MessageId(u64);

impl MessageId {
    /// No protection against chosen ids is needed: they are our own.
    pub(super) fn of(text: &[u8]) -> Self {
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waiting,
    /// Reported as delivered.
    Delivered,
    /// Reported as rejected or nacked.
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: MessageId,
    state: State,
}

/// A confirm for what was never published, or a return of what is not in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unknown;

/// The messages of one channel in confirm mode. Counts as the publisher does: from zero.
#[derive(Debug)]
pub(super) struct Confirms {
    slots: VecDeque<Slot>,
    /// Tag of the first slot.
    base: u64,
    waiting: usize,
    /// When the messages before a tag had been handed to the socket, oldest first.
    marks: VecDeque<(u64, Instant)>,
    /// Where the next returned message is looked for first: they come back in order.
    cursor: u64,
}

impl Confirms {
    /// Nothing in flight; room for `window` messages.
    pub(super) fn new(window: usize) -> Self {
        Self {
            // The window comes from a configuration: memory for more is taken when it is needed.
            slots: VecDeque::with_capacity(window.min(4096)),
            base: 0,
            waiting: 0,
            marks: VecDeque::new(),
            cursor: 0,
        }
    }

    /// The tag that the next message gets.
    pub(super) fn next(&self) -> u64 {
        self.base + u64::try_from(self.slots.len()).unwrap_or(u64::MAX)
    }

    /// How many messages wait for their confirm.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many slots are held: those that wait, and those behind the oldest that does.
    pub(super) fn span(&self) -> usize {
        self.slots.len()
    }

    /// Notes that the next message is on its way.
    pub(super) fn push(&mut self, id: MessageId) {
        self.slots.push_back(Slot { id, state: State::Waiting });
        self.waiting += 1;
    }

    /// Notes that by `now` everything pushed so far was handed over.
    pub(super) fn mark(&mut self, now: Instant) {
        let next = self.next();
        if next > self.base && self.marks.back().is_none_or(|(marked, _)| *marked < next) {
            self.marks.push_back((next, now));
        }
    }

    /// Since when the oldest message in flight waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        if self.waiting == 0 { None } else { self.marks.front().map(|(_, at)| *at) }
    }

    /// Lets the waiting begin anew: the broker had asked for a pause.
    pub(super) fn restart(&mut self, now: Instant) {
        self.marks.clear();
        self.mark(now);
    }

    /// Takes in `basic.ack`.
    ///
    /// # Errors
    ///
    /// When such a message was never published.
    pub(super) fn ack(
        &mut self,
        delivery_tag: u64,
        multiple: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Unknown> {
        if !multiple {
            let tag = self.single(delivery_tag)?;
            if self.settle(tag, State::Delivered) {
                outcomes.push(Outcome::Delivered(tag));
            }
            self.advance();
            return Ok(());
        }
        let Some(last) = self.last_of_multiple(delivery_tag)? else { return Ok(()) };
        let passed = || self.slots.iter().zip(self.base..=last);
        if passed().all(|(slot, _)| slot.state != State::Failed) {
            outcomes.push(Outcome::DeliveredThrough(last));
        } else {
            let waiting = passed().filter(|(slot, _)| slot.state == State::Waiting);
            outcomes.extend(waiting.map(|(_, tag)| Outcome::Delivered(tag)));
        }
        self.drop_through(last);
        Ok(())
    }

    /// Takes in `basic.nack`.
    ///
    /// # Errors
    ///
    /// When such a message was never published.
    pub(super) fn nack(
        &mut self,
        delivery_tag: u64,
        multiple: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Unknown> {
        let reason = || {
            "the broker could not store it (basic.nack): is a queue full that rejects, or down?"
                .to_owned()
        };
        if !multiple {
            let tag = self.single(delivery_tag)?;
            if self.settle(tag, State::Failed) {
                outcomes.push(Outcome::Nacked { tag, reason: reason() });
            }
            self.advance();
            return Ok(());
        }
        let Some(last) = self.last_of_multiple(delivery_tag)? else { return Ok(()) };
        let passed = self.slots.iter().zip(self.base..=last);
        let waiting = passed.filter(|(slot, _)| slot.state == State::Waiting);
        outcomes.extend(waiting.map(|(_, tag)| Outcome::Nacked { tag, reason: reason() }));
        self.drop_through(last);
        Ok(())
    }

    /// Takes in a returned message. The broker confirms it as well, later: that is then no news.
    ///
    /// # Errors
    ///
    /// When no such message is in flight.
    pub(super) fn returned(
        &mut self,
        id: MessageId,
        reason: String,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Unknown> {
        let from = usize::try_from(self.cursor.saturating_sub(self.base)).unwrap_or(0);
        let found = |(_, slot): &(usize, &Slot)| slot.state == State::Waiting && slot.id == id;
        let ahead = self.slots.iter().enumerate().skip(from).find(found);
        let slot = ahead.or_else(|| self.slots.iter().enumerate().take(from).find(found));
        let Some((position, _)) = slot else { return Err(Unknown) };
        let tag = self.base + u64::try_from(position).unwrap_or(0);
        self.cursor = tag + 1;
        self.settle(tag, State::Failed);
        outcomes.push(Outcome::Rejected { tag, reason });
        self.advance();
        Ok(())
    }

    /// The publisher's tag for the delivery tag of one message.
    fn single(&self, delivery_tag: u64) -> Result<u64, Unknown> {
        let tag = delivery_tag.checked_sub(1).ok_or(Unknown)?;
        if tag < self.next() { Ok(tag) } else { Err(Unknown) }
    }

    /// The same for the last of several; `None` when all of them are settled already. Zero stands
    /// for everything so far (specification, `basic.ack`).
    fn last_of_multiple(&self, delivery_tag: u64) -> Result<Option<u64>, Unknown> {
        let last = match delivery_tag {
            0 => self.next().checked_sub(1),
            _ => Some(self.single(delivery_tag)?),
        };
        Ok(last.filter(|last| *last >= self.base))
    }

    /// Settles a message; false when it was settled before.
    fn settle(&mut self, tag: u64, state: State) -> bool {
        let position = tag.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        match position.and_then(|position| self.slots.get_mut(position)) {
            Some(slot) if slot.state == State::Waiting => {
                slot.state = state;
                self.waiting -= 1;
                true
            }
            _ => false,
        }
    }

    /// Gives the slots before the oldest waiting message free.
    fn advance(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state != State::Waiting) {
            self.slots.pop_front();
            self.base += 1;
        }
        self.drop_marks();
    }

    fn drop_through(&mut self, last: u64) {
        while self.base <= last
            && let Some(slot) = self.slots.pop_front()
        {
            self.base += 1;
            self.waiting -= usize::from(slot.state == State::Waiting);
        }
        self.advance();
    }

    fn drop_marks(&mut self) {
        while self.marks.front().is_some_and(|(next, _)| *next <= self.base) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn id(tag: u64) -> MessageId {
        MessageId::of(format!("core-{tag}").as_bytes())
    }

    fn in_flight(count: u64) -> Confirms {
        let mut confirms = Confirms::new(16);
        (0..count).for_each(|tag| confirms.push(id(tag)));
        confirms
    }

    #[test]
    fn one_confirm_settles_everything_before_it() {
        let mut confirms = in_flight(5);
        let mut outcomes = Vec::new();
        confirms.ack(2, false, &mut outcomes).unwrap();
        confirms.ack(4, true, &mut outcomes).unwrap();
        assert_eq!(outcomes, [Outcome::Delivered(1), Outcome::DeliveredThrough(3)]);
        assert_eq!((confirms.waiting(), confirms.span()), (1, 1));
    }

    #[test]
    fn zero_with_multiple_means_all() {
        let mut confirms = in_flight(3);
        let mut outcomes = Vec::new();
        confirms.ack(0, true, &mut outcomes).unwrap();
        confirms.ack(0, true, &mut outcomes).unwrap();
        assert_eq!(outcomes, [Outcome::DeliveredThrough(2)]);
        assert_eq!(confirms.ack(0, false, &mut outcomes), Err(Unknown));
    }

    #[test]
    fn a_returned_message_is_rejected_once_and_its_confirm_says_nothing_more() {
        let mut confirms = in_flight(4);
        let mut outcomes = Vec::new();
        confirms.returned(id(1), "unroutable".into(), &mut outcomes).unwrap();
        confirms.ack(3, true, &mut outcomes).unwrap();
        confirms.ack(2, false, &mut outcomes).unwrap();
        let rejected = Outcome::Rejected { tag: 1, reason: "unroutable".into() };
        assert_eq!(outcomes, [rejected, Outcome::Delivered(0), Outcome::Delivered(2)]);
        assert_eq!(confirms.returned(id(1), String::new(), &mut outcomes), Err(Unknown));
    }

    #[test]
    fn the_oldest_message_in_flight_decides_how_long_the_broker_is_silent() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut confirms = in_flight(2);
        confirms.mark(later(1));
        confirms.mark(later(2));
        confirms.push(id(2));
        confirms.mark(later(3));
        assert_eq!(confirms.oldest(), Some(later(1)));
        confirms.ack(2, true, &mut Vec::new()).unwrap();
        assert_eq!(confirms.oldest(), Some(later(3)));
        confirms.restart(later(9));
        assert_eq!(confirms.oldest(), Some(later(9)));
        confirms.ack(3, true, &mut Vec::new()).unwrap();
        assert_eq!(confirms.oldest(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Ack(u64, bool),
        Nack(u64, bool),
        Return(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            2 => (0_u64..40, any::<bool>()).prop_map(|(tag, multiple)| Step::Ack(tag, multiple)),
            1 => (0_u64..40, any::<bool>()).prop_map(|(tag, multiple)| Step::Nack(tag, multiple)),
            1 => (0_u64..40).prop_map(Step::Return),
        ]
    }

    /// What the ring says, spelled out message by message.
    fn expand(outcomes: Vec<Outcome>, open: &BTreeSet<u64>) -> BTreeMap<u64, &'static str> {
        let mut told = BTreeMap::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Delivered(tag) => assert!(told.insert(tag, "delivered").is_none()),
                Outcome::DeliveredThrough(last) => {
                    told.extend(open.range(..=last).map(|tag| (*tag, "delivered")));
                }
                Outcome::Rejected { tag, .. } => assert!(told.insert(tag, "rejected").is_none()),
                Outcome::Nacked { tag, .. } => assert!(told.insert(tag, "nacked").is_none()),
            }
        }
        told
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn the_ring_tells_what_a_naive_table_of_open_messages_tells(
            steps in prop::collection::vec(step(), 0..80)
        ) {
            let mut confirms = Confirms::new(8);
            let mut open = BTreeSet::new();
            let mut next = 0;
            for step in steps {
                let mut outcomes = Vec::new();
                let (known, hit, word): (bool, Vec<u64>, &str) = match step {
                    Step::Push => {
                        confirms.push(id(next));
                        open.insert(next);
                        next += 1;
                        continue;
                    }
                    Step::Ack(tag, multiple) | Step::Nack(tag, multiple) => {
                        let ack = matches!(step, Step::Ack(..));
                        let answer = if ack {
                            confirms.ack(tag, multiple, &mut outcomes)
                        } else {
                            confirms.nack(tag, multiple, &mut outcomes)
                        };
                        let valid = tag <= next && (tag > 0 || multiple);
                        prop_assert_eq!(answer.is_ok(), valid);
                        let hit = open.iter().copied().filter(|open| match (tag, multiple) {
                            (0, true) => true,
                            (_, true) => *open < tag,
                            (_, false) => *open + 1 == tag,
                        });
                        (valid, hit.collect(), if ack { "delivered" } else { "nacked" })
                    }
                    Step::Return(tag) => {
                        let answer = confirms.returned(id(tag), String::new(), &mut outcomes);
                        prop_assert_eq!(answer.is_ok(), open.contains(&tag));
                        (answer.is_ok(), vec![tag], "rejected")
                    }
                };
                let expected: BTreeMap<u64, &str> =
                    hit.into_iter().filter(|_| known).map(|tag| (tag, word)).collect();
                prop_assert_eq!(expand(outcomes, &open), expected.clone());
                open.retain(|tag| !expected.contains_key(tag));
                prop_assert_eq!(confirms.waiting(), open.len());
                let span = open.first().map_or(0, |first| next - first);
                prop_assert_eq!(confirms.span(), usize::try_from(span).unwrap());
                prop_assert_eq!(confirms.next(), next);
            }
        }
    }
}
