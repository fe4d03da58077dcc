// SPDX-License-Identifier: MIT
//! F24. One fault after another, in any order, for as long as it may take: `SOAK_MINUTES`, at the large size.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, generated, is_large, size};
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

/// What memory was when an incident was over.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    bytes: u64,
}

/// The middle one by bytes, and when it was in the middle of their time.
fn median(samples: &[Sample]) -> Sample {
    let mut bytes: Vec<u64> = samples.iter().map(|sample| sample.bytes).collect();
    bytes.sort_unstable();
    let middle = samples.len() / 2;
    Sample { at: samples[middle].at, bytes: bytes[middle] }
}

/// How many bytes the last third has more than the middle one, by their medians, and how many it may have.
///
/// The goal is one MiB an hour over a day. Two more are for how much a heap is in use at a time: in a run of three minutes a
/// minute lies between the medians, in which 500 leaks of a hundred bytes a second are 2.9 MiB.
fn slope(samples: &[Sample]) -> (u64, u64) {
    let third = samples.len() / 3;
    let (rest, last) = samples.split_at(samples.len() - third);
    let (middle, last) = (median(&rest[rest.len() - third..]), median(last));
    let time = last.at.duration_since(middle.at).as_secs();
    (last.bytes.saturating_sub(middle.bytes), (2 << 20) + (time << 20) / 3600)
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
    let mut sent = vec![first_ten()];
    let mut samples = Vec::new();
    if is_large() {
        // The pool keeps the records of the deepest backlog so far: let that be behind us when memory is looked at.
        proxy.set(Mode::Blackhole);
        sent.push(row.deliver(30_000));
        proxy.set(Mode::Pass);
        row.wait_sink("these to drain", |sink| sink["waiting"].as_u64().is_some_and(|n| n < 200));
    }
    // Any order will do, the same in each run.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut incidents = 0_usize;
    let is_over = |incidents: usize| match end {
        Some(end) => Instant::now() >= end,
        None => incidents >= 4,
    };
    while !is_over(incidents) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let before = generated(&row.sink());
        let pass = |row: &mut Row<'_>| {
            row.wait_sink("events to come meanwhile", |sink| {
                generated(sink) > before + size(200, 2000)
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
        let sink = row.wait_sink("deliveries to go on", |sink| {
            sink["waiting"].as_u64().is_some_and(|n| n < 200)
                && sink["delivered"].as_u64().is_some_and(|now| now > delivered)
        });
        incidents += 1;
        // The host's generator notes in four bytes how long each took.
        let bytes = resident(row) - 4 * generated(&sink);
        samples.push(Sample { at: Instant::now(), bytes });
    }
    let memory: Vec<u64> = samples.iter().map(|sample| sample.bytes).collect();
    assert!(memory.len() > 3, "too short a time for more than {incidents} incidents");
    let grown = memory.last().unwrap().saturating_sub(memory[2]);
    // The pool keeps the records of the deepest backlog so far: at the most 16 384 of 8 KiB, and the last may have been the deepest.
    let bound = (128 + 64) << 20;
    assert!(grown < bound, "{grown} bytes more than after three incidents, now {incidents}");
    if is_large() {
        let (grown, bound) = slope(&samples);
        eprintln!("{}: {grown} bytes more after {incidents} incidents, at most {bound}", row.name);
        assert!(grown < bound, "memory grows: {grown} bytes, at most {bound}: {memory:?}");
    }
    sent.push(row.ended(flow));
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(&sent, 0, resent);
}

/// A leak of a hundred bytes an event shows within minutes, one of two and a half MiB an hour within a day, and a heap that is in use now more
/// and now less is none.
#[test]
fn a_leak_is_told_from_a_heap_in_use() {
    let start = Instant::now();
    let run = |seconds: u64, leaked: u64| {
        let samples: Vec<Sample> = (0..12)
            .map(|at| Sample {
                at: start + Duration::from_secs(seconds * at / 12),
                bytes: (100 << 20) + ((at % 4) << 19) + leaked * at / 12,
            })
            .collect();
        let (grown, bound) = slope(&samples);
        grown < bound
    };
    assert!(run(180, 0) && run(180, 180 * 500 * 20));
    assert!(!run(180, 180 * 500 * 100));
    let day = 86_400;
    assert!(run(day, 12 << 20) && !run(day, 60 << 20));
}
