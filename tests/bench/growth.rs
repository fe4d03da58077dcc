// SPDX-License-Identifier: MIT
//! How the callback's time grows with the event, with the sinks and with what waits; and the exponents of that.

use crate::Effort;
use crate::curve::Curve;
use crate::load::{Candidate, Case, Stand};
use crate::results::Results;
use crate::support::free_port;
use crate::support::skips;
use crate::support::switch::Switch;

const BASE: Case =
    Case { headers: 85, threads: 1, kind: "plain", ahead: 1, burst: 1, rate: 2_000, count: 1_000 };

/// Room for a million events, in memory.
const DEEP: &str = "<param name=\"spool-mode\" value=\"off\"/><param name=\"queue-capacity\" value=\"1048576\"/>\
     <param name=\"queue-max-bytes\" value=\"8589934592\"/><param name=\"normal-percent\" value=\"100\"/>";

pub fn run(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench growth", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let mut headers =
        Curve::new("callback", "headers", "ns", &[16, 40, 85, 160, 320, 640, 1_250, 2_500, 5_000]);
    let mut sinks = Curve::new("callback", "sinks", "ns", &[1, 2, 4, 8]);
    let depths = [1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000];
    let depths = if effort.short { &depths[..4] } else { &depths };
    let mut depth = Curve::new("callback", "waiting events", "ns", depths);
    let mut threads = Curve::new("callback", "dispatch threads", "ns", &[1, 2, 4, 8]);
    let mut patterns = Curve::new("callback", "patterns of a sink", "ns", &[1, 10, 50, 200]);
    let mut calls = Curve::new("callback", "live calls", "ns", &[1, 50, 500, 5_000]);
    for _ in 0..effort.rounds.min(6) {
        stand.with(Candidate::Module(1), |stand| {
            for (size, series) in &mut headers.points {
                // As many bytes a second of each size: what the sink takes is not measured here.
                let rate = (85_000.0 / *size).clamp(50.0, 1_000.0) as u32;
                let case = Case { headers: *size as u32, rate, count: rate, ..BASE };
                series.push(stand.run(&case)["inside_p50"]);
            }
        });
        for (size, series) in &mut sinks.points {
            stand.with(Candidate::Module(*size as u8), |stand| {
                series.push(stand.run(&BASE)["inside_p50"]);
            });
        }
        for (count, series) in &mut patterns.points {
            stand.with(Candidate::Patterns(*count as u32), |stand| {
                series.push(stand.run(&Case { kind: "custom", ..BASE })["inside_p50"]);
            });
        }
        stand.with(Candidate::Module(1), |stand| {
            for (size, series) in &mut threads.points {
                // As many events a second in all, and in bursts, so that threads do meet.
                let (many, rate) = (*size as u32, 8_000 / *size as u32);
                let case = Case { threads: many, rate, burst: 50, count: 4_000 / many, ..BASE };
                series.push(stand.run(&case)["inside_p50"]);
            }
        });
        stand.with(Candidate::AsShipped, |stand| {
            let mut live = 0;
            for (size, series) in &mut calls.points {
                stand.switch().api(&format!("bench live n={}", *size as u32 - live));
                live = *size as u32;
                series.push(stand.run(&BASE)["inside_p50"]);
            }
        });
        // Nobody listens there, so what comes stays.
        let away = format!(
            "<sink name=\"out\" type=\"amqp\" events=\"ALL\">{DEEP}\
             <param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:{}/%2f\"/></sink>",
            free_port()
        );
        stand.switch().api("bench mark end");
        stand.with_module(&away, |stand| {
            stand.switch().api("bench mark begin");
            for (size, series) in &mut depth.points {
                let more = (*size as u64).saturating_sub(stand.sink("waiting"));
                stand.deliver(more.max(1), 0);
                series.push(stand.run(&BASE)["inside_p50"]);
            }
        });
        stand.switch().api("bench mark off");
    }
    for curve in [&headers, &sinks, &patterns, &depth, &threads, &calls] {
        curve.report(results);
    }
}
