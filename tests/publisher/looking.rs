// SPDX-License-Identifier: MIT
//! The window is let run empty now and then, for a look at the way to the broker alone: whatever else happens at that moment, all
//! arrives, once and in order, and there are more looks after it.

use super::*;

const ROOM: Limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 0 };

/// A publisher that looks every few milliseconds.
fn start_looking(does: u8, change: impl FnOnce(&mut Settings)) -> Bench {
    start_as(does, ROOM, None, None, |settings| {
        settings.latency_believed = Duration::from_millis(5);
        change(settings);
    })
}

/// Offers events, as many as there is room for, until the condition holds. How many in all.
fn flow(bench: &Bench, offered: &mut u64, what: &str, until: impl Fn(&SinkStatus) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = bench.pipeline.status();
        if until(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {status:#?}");
        if status.waiting < 600 {
            *offered += 1;
            bench.offer(Class::Normal, *offered, 10);
        } else {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Everything arrived, the first time in order. How many came.
fn assert_all_came(bench: &Bench, offered: u64) -> usize {
    let status = bench.until("all to be delivered", |status| status.waiting == 0);
    assert_balanced(&status);
    assert_eq!(status.account.delivered, offered, "{status:#?}");
    let order = bench.order.lock().unwrap();
    let mut met = BTreeSet::new();
    let first: Vec<u64> = order.iter().copied().filter(|seq| met.insert(*seq)).collect();
    assert_eq!(first, (1..=offered).collect::<Vec<u64>>());
    order.len()
}

/// And nothing came twice.
fn assert_once(bench: &Bench, offered: u64) {
    assert_eq!(u64::try_from(assert_all_came(bench, offered)), Ok(offered));
}

/// The window runs empty, which with a broker that answers nothing takes until it does.
const fn is_looking(status: &SinkStatus) -> bool {
    status.window == 1
}

#[test]
fn under_a_flow_it_looks_again_and_again() {
    for does in [TAKES, LAGS] {
        let bench = start_looking(does, |_| {});
        let mut offered = 0;
        flow(&bench, &mut offered, "ten looks", |status| status.window_looks >= 10);
        assert_once(&bench, offered);
        bench.stop();
    }
}

#[test]
fn a_pause_in_the_middle_of_a_look_ends_with_the_look_made() {
    let bench = start_looking(LAGS, |_| {});
    let mut offered = 0;
    flow(&bench, &mut offered, "a look", |status| status.window_looks > 0);
    bench.does.store(BLOCKS, Ordering::SeqCst);
    flow(&bench, &mut offered, "a look during the pause", |status| {
        is_looking(status) && status.state.name() == "blocked"
    });
    let before = bench.pipeline.status().window_looks;
    bench.does.store(LAGS, Ordering::SeqCst);
    flow(&bench, &mut offered, "the end of that look and of another", |status| {
        status.window_looks >= before + 2 && status.state.name() == "connected"
    });
    assert_once(&bench, offered);
    bench.stop();
}

#[test]
fn a_connection_lost_in_the_middle_of_a_look_leaves_none_of_it() {
    let bench = start_looking(AWAY, |_| {});
    let mut offered = 0;
    // So the window is full in the round that connects, before any look.
    flow(&bench, &mut offered, "a window full to wait", |status| status.waiting >= 500);
    bench.does.store(HOLDS, Ordering::SeqCst);
    flow(&bench, &mut offered, "a look that nothing answers", |status| {
        is_looking(status) && usize::try_from(status.in_flight) == Ok(WINDOW)
    });
    assert_eq!(bench.pipeline.status().window_looks, 0);
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss", |status| status.reconnects == 1 && status.window == 0);
    bench.does.store(LAGS, Ordering::SeqCst);
    flow(&bench, &mut offered, "looks at the way to the new connection", |status| {
        status.window_looks >= 3
    });
    assert_all_came(&bench, offered);
    bench.stop();
}

#[test]
fn a_return_to_the_first_broker_and_looks_go_together() {
    let bench = start_looking(LAGS, |settings| {
        settings.reconnect.return_to_primary = Duration::from_millis(20);
    });
    bench.is_primary.store(false, Ordering::SeqCst);
    let mut offered = 0;
    flow(&bench, &mut offered, "a look", |status| status.window_looks > 0);
    flow(&bench, &mut offered, "the return", |_| bench.is_primary.load(Ordering::SeqCst));
    let before = bench.pipeline.status().window_looks;
    flow(&bench, &mut offered, "looks there", |status| status.window_looks >= before + 3);
    assert_once(&bench, offered);
    bench.stop();
}

#[test]
fn a_stop_in_the_middle_of_a_look_sends_what_there_is() {
    let bench = start_looking(LAGS, |_| {});
    let mut offered = 0;
    flow(&bench, &mut offered, "a look", |status| status.window_looks > 0);
    bench.does.store(BLOCKS, Ordering::SeqCst);
    flow(&bench, &mut offered, "a look during the pause", is_looking);
    bench.pipeline.stop(Instant::now() + PATIENCE);
    bench.does.store(LAGS, Ordering::SeqCst);
    assert_all_came(&bench, offered);
    bench.pipeline.finish(Instant::now() + PATIENCE).unwrap();
}
