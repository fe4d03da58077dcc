// SPDX-License-Identifier: MIT
//! What the module costs, as ratios to what it is compared with, measured side by side in one run.
//!
//! `cargo bench --bench bench -- <suite>… [--rounds N] [--short]`; see `docs/performance.md`. Suites interleave their
//! candidates round by round, leave out the first round, and print the median and the worst of each ratio. Where the
//! baseline itself differs too much from round to round, the machine was too busy and the ratio reads *not comparable*.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a program of its own, which measures, and stops with a panic that says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod callback;
mod curve;
mod filling;
mod growth;
mod host;
mod latency;
mod limits;
mod load;
mod memory;
mod outage;
mod perf_test;
mod plain_amqp;
mod plain_kafka;
mod quality;
mod rabbitmq;
mod report;
mod results;
mod rounds;
mod spool;
mod throughput;

use results::Results;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub short: bool,
}

type Suite = fn(Effort, &mut Results);

const SUITES: &[(&str, Suite)] = &[
    ("callback", callback::run),
    ("tails", callback::tails),
    ("host", host::run),
    ("rabbitmq", rabbitmq::run),
    ("latency", latency::run),
    ("limits", limits::run),
    ("kafka", throughput::kafka),
    ("file", throughput::file),
    ("memory", memory::run),
    ("spool", spool::run),
    ("outage", outage::run),
    ("growth", growth::run),
    ("filling", filling::run),
    ("quality", quality::run),
    ("calls", callback::counts),
];

fn main() {
    let mut effort = Effort { rounds: 0, short: false };
    let mut wanted = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo adds it.
            "--bench" => {}
            "--short" => effort.short = true,
            "--rounds" => {
                let number = words.next().and_then(|text| text.parse().ok());
                effort.rounds = number.expect("--rounds takes a number");
            }
            suite => wanted.push(suite.to_owned()),
        }
    }
    if effort.rounds == 0 {
        effort.rounds = if effort.short { 5 } else { 11 };
    }
    if wanted == ["report"] {
        report::write();
        return;
    }
    let known: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
    if let Some(stranger) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("no suite {stranger:?}; there are {}", known.join(", "));
        std::process::exit(2);
    }
    for (name, suite) in SUITES {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            let mut results = Results::new(name);
            suite(effort, &mut results);
            results.write();
        }
    }
}
