// SPDX-License-Identifier: MIT
//! What a sink has taken and not yet answered for.

use std::collections::VecDeque;

use crate::pipeline::item::Item;
use crate::pipeline::reach::Traffic;

/// Messages in flight, in the order in which they were handed over.
///
/// Answers come in any order, and one answer may cover many; what leaves does so in order, since
/// a spool's cursor can only pass what is settled without a hole.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The tag of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// Every tag below this is delivered, unless its slot says otherwise.
    through: u64,
}

#[derive(Debug)]
struct Slot {
    item: Option<Item>,
    /// When the event was made, in microseconds since 1970; none when it does not say so.
    made_us: Option<u64>,
    delivered: bool,
}

impl Window {
    /// Empties it and begins again at tag zero, as after each `open`. Returns what was in flight,
    /// in order, and of each whether it was answered already, behind one that was not.
    pub(super) fn restart(&mut self) -> impl Iterator<Item = (Item, bool)> {
        let (base, through) = (self.base, self.through);
        self.base = 0;
        self.through = 0;
        let slots = std::mem::take(&mut self.slots);
        (base..).zip(slots).filter_map(move |(tag, slot)| {
            let delivered = slot.delivered || tag < through;
            slot.item.map(|item| (item, delivered))
        })
    }

    /// The tag for the next message.
    pub(super) fn next_tag(&self) -> u64 {
        self.base + u64::try_from(self.slots.len()).unwrap_or(u64::MAX)
    }

    /// Takes a message that the sink has accepted under [`next_tag`](Self::next_tag).
    pub(super) fn push(&mut self, item: Item, made_us: Option<u64>) {
        self.slots.push_back(Slot { item: Some(item), made_us, delivered: false });
    }

    /// How many are unanswered, including answered ones behind them.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where it stands, for [`Reach`](crate::pipeline::reach::Reach).
    pub(super) fn traffic(&self) -> Traffic {
        Traffic { unsettled: self.base, next: self.next_tag() }
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot> {
        let position = usize::try_from(tag.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(position)
    }

    /// Notes that this one is delivered. An answer for a tag never given out is ignored.
    pub(super) fn deliver(&mut self, tag: u64) {
        if let Some(slot) = self.slot(tag) {
            slot.delivered = true;
        }
    }

    /// Notes that all up to and including `tag` are delivered.
    pub(super) fn deliver_through(&mut self, tag: u64) {
        self.through = self.through.max((tag + 1).min(self.next_tag()));
    }

    /// What is in flight, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.slots.iter().filter_map(|slot| slot.item.as_ref())
    }

    /// Takes out one that the broker would not have. Those around it stay.
    pub(super) fn take(&mut self, tag: u64) -> Option<Item> {
        self.slot(tag)?.item.take()
    }

    /// The next one that is settled, in order: the message when it was delivered, with the time at
    /// which its event was made, and nothing in it when it was taken out before.
    #[expect(clippy::option_option, reason = "none settled, and settled without a message, differ")]
    pub(super) fn pop_settled(&mut self) -> Option<Option<(Item, Option<u64>)>> {
        let front = self.slots.front()?;
        if front.item.is_some() && !front.delivered && self.base >= self.through {
            return None;
        }
        self.base += 1;
        self.slots.pop_front().map(|slot| slot.item.map(|item| (item, slot.made_us)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::Stamp;
    use crate::event::Record;
    use crate::pipeline::item::Origin;

    fn again(seq: u64) -> Item {
        Item {
            stamp: Stamp { seq, reuse: 0 },
            is_stamped: true,
            record: Arc::new(Record::default()),
            boot: None,
            attempts: 0,
            origin: Origin::Memory,
        }
    }

    fn window(count: u64) -> Window {
        let mut window = Window::default();
        for seq in 0..count {
            assert_eq!(window.next_tag(), seq);
            window.push(again(seq), Some(seq));
        }
        window
    }

    fn settled(window: &mut Window) -> Vec<Option<u64>> {
        std::iter::from_fn(|| window.pop_settled())
            .map(|settled| settled.map(|(item, _)| item.stamp.seq))
            .collect()
    }

    #[test]
    fn answers_in_any_order_leave_in_order() {
        let mut window = window(4);
        window.deliver(2);
        window.deliver(1);
        assert_eq!(settled(&mut window), []);
        window.deliver(0);
        assert_eq!(settled(&mut window), [Some(0), Some(1), Some(2)]);
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn one_answer_covers_many_but_not_what_was_refused() {
        let mut window = window(5);
        assert_eq!(window.take(1).unwrap().stamp.seq, 1);
        window.deliver_through(2);
        assert_eq!(settled(&mut window), [Some(0), None, Some(2)]);
        window.deliver_through(99);
        assert_eq!(settled(&mut window), [Some(3), Some(4)]);
        assert!(window.is_empty());
        assert_eq!(window.next_tag(), 5);
    }

    #[test]
    fn a_restart_gives_back_the_unanswered_in_order() {
        let mut window = window(3);
        window.deliver(1);
        window.deliver(0);
        settled(&mut window);
        window.push(again(3), None);
        window.deliver(3);
        let back = window.restart().map(|(item, delivered)| (item.stamp.seq, delivered));
        assert_eq!(back.collect::<Vec<_>>(), [(2, false), (3, true)]);
        assert_eq!(window.next_tag(), 0);
    }
}
