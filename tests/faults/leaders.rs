// SPDX-License-Identifier: MIT
//! F9. A cluster whose partitions change their leaders, and a line of changing length to it. The error codes that brokers
//! give one by one are in `tests/sink_kafka/mock.rs`: no real broker gives them on request.

use std::time::Duration;

use crate::bench::{Row, assert_balanced, dropped, size, wait};
use crate::broker;
use crate::outage::first_ten;
use crate::support::kafka::{Kafka, KafkaOptions};
use crate::support::proxy::Mode;
use crate::support::switch::Load;

/// Two more brokers hold a topic, each a copy of all of it; they stop and are killed in turn, so that leaders move.
pub(crate) fn move_about(row: &mut Row<'_>) {
    let first = row.broker.kafka();
    let join = |number| {
        let options = KafkaOptions { joins: Some((first, number)), ..KafkaOptions::default() };
        let _time = broker::starting();
        Kafka::with(&options).expect("it could be started before")
    };
    let mut others = [join(2), join(3)];
    let proxies = [first.proxy(), others[0].proxy(), others[1].proxy()];
    first.create_topic_on(&row.place, &["2:3", "3:2", "2:3"]);
    row.configure_by(proxies[0].port(), &[]);
    row.host.load().expect("the module loads");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    row.deliver(10);
    row.wait_all_delivered();
    let rate = u32::try_from(size(500, 2000)).unwrap();
    let flow = row.flow(&Load { count: size(100_000, 3_000_000), rate, ..Load::default() });
    for round in 0..size(2, 12) {
        let one = usize::try_from(round % 2).unwrap();
        for proxy in &proxies {
            proxy.set(Mode::Delay(Duration::from_millis(round % 4 * 40)));
        }
        // Orderly, which hands leadership over, and at the large size now and then not, which has it taken.
        if round % 4 == 3 {
            others[one].kill();
        } else {
            others[one].stop();
        }
        let before = row.sink()["delivered"].as_u64().unwrap();
        row.wait_sink("deliveries to the one that is left", |sink| {
            sink["delivered"].as_u64().is_some_and(|now| now > before + 100)
        });
        let time = broker::starting();
        others[one].start_again();
        drop(time);
        for proxy in &proxies {
            proxy.set(Mode::Pass);
        }
        let first = row.broker.kafka();
        wait("the copies to be complete", || first.in_sync(&row.place, "2,3"));
    }
    let sent = [first_ten(), row.ended(flow)];
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    row.judge(&sent, 0, 0);
    // Orderly, so that the cluster knows at once: for some seconds it would give the topic of the next row to a dead broker.
    for other in &mut others {
        other.stop();
    }
}
