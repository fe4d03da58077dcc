// SPDX-License-Identifier: MIT
//! Which broker a publisher goes to, and what the log says of those that refuse it.

use super::*;

const ROOM: Limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 0 };

#[test]
fn under_a_steady_flow_it_goes_back_to_the_first_broker() {
    let bench = start_as(LAGS, ROOM, None, None, |settings| {
        settings.name = "returns".into();
        settings.reconnect.return_to_primary = Duration::from_millis(20);
    });
    bench.is_primary.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    let mut offered = 0;
    while !bench.is_primary.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "{:#?}", bench.pipeline.status());
        if bench.pipeline.status().waiting < 600 {
            offered += 1;
            bench.offer(Class::Normal, offered, 10);
        }
    }
    let status = bench.until("all to be delivered", |status| status.waiting == 0);
    assert_balanced(&status);
    assert_eq!((status.account.delivered, status.reconnects), (offered, 0), "{status:#?}");
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    // Everything was answered before the connection ended.
    let once: Vec<u64> = (1..=offered).collect();
    assert_eq!(*bench.order.lock().unwrap(), once);
    bench.stop();
}

#[test]
fn a_refusal_after_a_long_outage_is_in_the_log_once() {
    let bench = start_as(AWAY, ROOM, None, None, |settings| settings.name = "expelled".into());
    bench.attempts(6);
    assert_eq!(lines("expelled", "no connection to"), 1);
    bench.does.store(REFUSES, Ordering::SeqCst);
    bench.until("the refusal", |status| status.state.name() == "refused");
    bench.attempts(6);
    assert_eq!(lines("expelled", "wrong password"), 1);
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("the connection", |status| status.state.name() == "connected");
    bench.stop();
}

#[test]
fn a_broker_that_lets_us_in_and_refuses_what_is_sent_is_in_the_log_once() {
    let bench = start_as(REFUSES_MESSAGES, ROOM, None, None, |settings| {
        settings.name = "muzzled".into();
    });
    bench.offer(Class::Normal, 1, 10);
    bench.until("the refusal", |status| status.state.name() == "refused");
    for _ in 0..5 {
        bench.attempts(1);
        assert_eq!(bench.pipeline.status().state.name(), "refused");
    }
    assert_eq!(lines("muzzled", "no permission to write"), 1);
    assert_eq!(lines("muzzled", "Connected to"), 1);
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("the connection", |status| status.state.name() == "connected");
    assert_balanced(&status);
    assert_eq!(lines("muzzled", "Connected to"), 2);
    bench.stop();
}
