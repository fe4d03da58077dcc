// SPDX-License-Identifier: MIT
//! From one event to the queues of several sinks: each account adds up, also when a fault of ours cuts it short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mod_rustbridge::config::delivery::ClassConfig;
use mod_rustbridge::event::EventNames;
use mod_rustbridge::event::selection::Selection;
use mod_rustbridge::pipeline::{Dispatch, Target};
use mod_rustbridge::queue::{DropReason, Lane, Limits, Pool, Ring};

const NAMES: [&str; 2] = ["CUSTOM", "DTMF"];

fn target(name: &str, events: &str, room: usize) -> Target {
    let limits = Limits { events: room, bytes: 1 << 20, percent: [100; 3], slack_percent: 0 };
    let select = |text| Selection::parse(text, &NAMES).0;
    Target {
        name: name.into(),
        kind: "file",
        ring: Arc::new(Ring::new(limits, Arc::default())),
        events: select(events),
        classes: ClassConfig {
            critical: Selection::default(),
            bulk: Selection::default(),
            critical_percent: 100,
            normal_percent: 100,
            bulk_percent: 100,
        },
    }
}

#[test]
fn a_fault_costs_each_sink_that_wanted_the_event_one_event_and_the_others_none() {
    let targets =
        vec![target("all", "ALL", 8), target("custom", "CUSTOM", 8), target("one", "ALL", 1)];
    let names = Arc::new(EventNames::new(NAMES));
    let dtmf = names.kind("DTMF").expect("it is known");
    let pool = Arc::new(Pool::new(8, 2, 256));
    let dispatch = Dispatch::new(targets, names, pool, 1 << 20);
    // One that arrives, and fills the queue that has room for one.
    dispatch.event(
        Lane::ANY,
        dtmf,
        || None,
        |record, class, _| {
            record.begin(dtmf, class, None);
            record.header(b"a", b"b");
            Ok(())
        },
    );
    let fault = catch_unwind(AssertUnwindSafe(|| {
        dispatch.event(
            Lane::ANY,
            dtmf,
            || None,
            |_, _, _| std::panic::panic_any("a fault on purpose"),
        );
    }));
    assert!(fault.is_err());
    let counts: Vec<_> = dispatch
        .targets()
        .iter()
        .map(|target| {
            let account = target.ring.account().view();
            let dropped = |reason: DropReason| account.dropped.get(reason.index()).copied();
            let waiting = target.ring.held().0;
            assert_eq!(account.offered, account.filtered + account.dropped_total() + waiting);
            (
                account.offered,
                account.filtered,
                dropped(DropReason::Panic),
                dropped(DropReason::QueueFull),
            )
        })
        .collect();
    let (none, one) = (Some(0), Some(1));
    assert_eq!(counts, [(2, 0, one, none), (2, 2, none, none), (2, 0, none, one)]);
    let all = dispatch.targets().first().map(|target| &target.ring).expect("there is one");
    assert!(all.take().is_some() && all.take().is_none());
    assert_eq!(all.take_missed(), 1, "it is told as a gap");
}
