# SPDX-License-Identifier: MIT
"""What a consumer of mod_rustbridge has to know about a stream, without a broker: used by both reference consumers.

Every message has an id, and a place in a stream: the node, the boot of its switch, and a number that counts from one
without a hole. So
  * a message whose id was seen is a repetition, to be left out;
  * a number that is missing is a loss. The module tells it with a gap record in its place, which has the last missing
    number as its own and names the first. A hole without a gap record is one of the broker's or the consumer's making.
"""
import collections
import json
import sys

# How many ids are remembered. A repetition comes at most one window behind the first, after a restart of the switch one
# spool's worth of what was not yet noted as acknowledged: 100 000 is more than either, and about 10 MB.
REMEMBERED = 100_000


class Ranges:
    """Numbers as few ranges: a stream in order is one. A number costs the same in whatever order they come, as when one
    partition is read after another."""

    def __init__(self):
        # Of each range, by its first number the last, and by its last the first.
        self.last_of, self.first_of = {}, {}

    def add(self, first, last):
        if self.last_of.get(first, first - 1) >= last or self.first_of.get(last, last + 1) <= first:
            return
        # What begins or ends where this one does is a part of it.
        if first in self.last_of:
            del self.first_of[self.last_of.pop(first)]
        if last in self.first_of:
            del self.last_of[self.first_of.pop(last)]
        before, after = self.first_of.pop(first - 1, None), self.last_of.pop(last + 1, None)
        if before is not None:
            del self.last_of[before]
            first = before
        if after is not None:
            del self.first_of[after]
            last = after
        self.last_of[first], self.first_of[last] = last, first

    def holes(self):
        """Ranges that are missing, from one to the largest number."""
        expected, found = 1, []
        # A repetition may lie within another range.
        for first, last in sorted(self.last_of.items()):
            if first > expected:
                found.append((expected, first - 1))
            expected = max(expected, last + 1)
        return found


class StreamCheck:
    """Takes every message as it comes; says which are new."""

    def __init__(self):
        self.ids = collections.OrderedDict()
        self.arrived = collections.defaultdict(Ranges)
        self.events = self.duplicates = self.gap_records = self.told_missing = 0

    def take(self, message_id, node, boot, seq, body):
        """The event as a dict when it is to be used (a payload of rustbridge_publish as what it is: text, when it is no JSON);
        None for a repetition and for a gap record."""
        if message_id in self.ids:
            self.duplicates += 1
            # Its number has come all the same: an orphan may be told once more by a later boot, whose number it then has.
            self.arrived[node, boot].add(int(seq), int(seq))
            return None
        self.ids[message_id] = True
        if len(self.ids) > REMEMBERED:
            self.ids.popitem(last=False)
        try:
            event = json.loads(body)
        except ValueError:
            event = None
        if event is None:
            # What rustbridge_publish sends is whatever it was given.
            event = body if isinstance(body, str) else body.decode(errors="replace")
        first = last = int(seq)
        is_gap = isinstance(event, dict) and event.get("Event-Subclass") == "rustbridge::gap"
        if is_gap:
            first, last = int(event["Rustbridge-First-Seq"]), int(event["Rustbridge-Last-Seq"])
            self.gap_records += 1
            self.told_missing += last - first + 1
            reasons, kinds = event.get("Rustbridge-Reasons"), event.get("Rustbridge-Events")
            print(f"gap: {node} {boot} {first}-{last} reasons: {reasons} events: {kinds}", file=sys.stderr)
        self.arrived[node, boot].add(first, last)
        if is_gap:
            return None
        self.events += 1
        return event

    def summary(self):
        """What was seen so far. In a topic of several partitions, or a queue that is still being read, a hole may yet
        be filled: judge holes when what is behind them has been read in every partition."""
        holes = [
            {"node": node, "boot": boot, "first": first, "last": last}
            for (node, boot), ranges in sorted(self.arrived.items())
            for first, last in ranges.holes()
        ]
        return {
            "events": self.events,
            "duplicates": self.duplicates,
            "gap_records": self.gap_records,
            "told_missing": self.told_missing,
            "untold_holes": holes,
        }
