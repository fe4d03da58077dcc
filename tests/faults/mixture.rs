// SPDX-License-Identifier: MIT
//! F24. One fault after another, in any order, for as long as it may take: `SOAK_MINUTES`, at the large size.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, is_large, size};
use crate::broker::Kind;
use crate::outage::first_ten;
use crate::support::proxy::Mode;
use crate::support::switch::Load;

/// Bytes of memory that the switch has.
fn resident(row: &Row<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", row.host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Kills, silence, requests for a pause and stops, with events all the time. Nothing is lost, and memory does not grow.
pub(crate) fn faults_in_any_order(row: &mut Row<'_>) {
    let minutes = env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let end = is_large().then(|| Instant::now() + Duration::from_secs(minutes * 60));
    let proxy = row.broker.proxy();
    row.broker.keep(&row.place, "#");
    row.configure_by(proxy.port(), &[]);
    row.host.load().expect("the module loads");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    row.deliver(10);
    let flow = row.flow(&Load { count: 50_000_000, rate: 500, ..Load::default() });
    // Any order will do, the same in each run.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut incidents, mut settled) = (0_usize, 0);
    let is_over = |incidents: usize| match end {
        Some(end) => Instant::now() >= end,
        None => incidents >= 4,
    };
    while !is_over(incidents) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let before = row.sink()["offered"].as_u64().unwrap();
        let pass = |row: &mut Row<'_>| {
            row.wait_sink("events to come meanwhile", |sink| {
                sink["offered"].as_u64().is_some_and(|now| now > before + size(200, 2000))
            });
        };
        match (dice % 4, row.broker.kind()) {
            (0, _) => {
                row.broker.kill();
                pass(row);
                row.broker.start_again();
            }
            (1, _) => {
                proxy.set(Mode::Blackhole);
                pass(row);
                proxy.set(Mode::Pass);
            }
            (2, Kind::RabbitMq) => {
                row.broker.rabbitmq().set_memory_alarm(true);
                pass(row);
                row.broker.rabbitmq().set_memory_alarm(false);
            }
            _ => {
                row.broker.pause();
                pass(row);
                row.broker.resume();
            }
        }
        let delivered = row.sink()["delivered"].as_u64().unwrap();
        row.wait_sink("deliveries to go on", |sink| {
            sink["waiting"].as_u64().is_some_and(|n| n < 200)
                && sink["delivered"].as_u64().is_some_and(|now| now > delivered)
        });
        incidents += 1;
        if incidents == 3 {
            settled = resident(row);
        }
    }
    let grown = resident(row).saturating_sub(settled);
    // The pool keeps the records of the deepest backlog so far: at the most 16 384 of 8 KiB, and the last may have been the deepest.
    let bound = (128 + 64) << 20;
    assert!(grown < bound, "{grown} bytes more than after three incidents, now {incidents}");
    let sent = [first_ten(), row.ended(flow)];
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(&sent, 0, resent);
}
