// SPDX-License-Identifier: MIT
//! `make bench`: what the module's callback costs the switch, against a handler that does the least a handler can do which
//! keeps an event: copy its names and values. Both in turn, several rounds, in the host.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a program for people: it prints, and stops with the reason when it cannot go on"
)]

#[path = "../support/mod.rs"]
mod support;

use support::Folder;
use support::host::Host;
use support::switch::{Delivered, Load, Switch};

const ROUNDS: usize = 5;

fn measure(host: &mut Host) -> Delivered {
    // Below what a sink sustains: the callback is measured, not a full queue.
    host.deliver(&Load { count: 10_000, headers: 80, rate: 4000, ahead: true, ..Load::default() })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let journal = Folder::new("journal");
    let mut host = Host::new(&format!(
        "<configuration name=\"rustbridge.conf\"><sinks><sink name=\"journal\" type=\"file\" events=\"ALL\">\
         <param name=\"path\" value=\"{}/events.ndjson\"/></sink></sinks></configuration>",
        journal.path().display()
    ));
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    println!("{ROUNDS} rounds of 10 000 events of 80 headers each; nanoseconds of one deliver");
    println!("{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "mean", "p50", "p99", "p99.9", "max");
    // The first round warms caches and pools, and does not count.
    for round in 0..=ROUNDS {
        host.command("floor on");
        let copied = measure(&mut host);
        host.command("floor off");
        host.load().expect("the module loads");
        measure(&mut host);
        let captured = measure(&mut host);
        host.unload().expect("the module unloads");
        for (name, figures) in [("floor", &copied), ("module", &captured)] {
            let columns = ["mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns"];
            let columns =
                columns.map(|column| format!("{:>10.0}", figures.number(column))).concat();
            println!("{name:<8}{columns}   allocations {}", figures.number("allocs"));
        }
        if round > 0 {
            floor.push(copied);
            ours.push(captured);
        }
    }
    for column in ["p50_ns", "p999_ns"] {
        let of =
            |all: &[Delivered]| median(all.iter().map(|figures| figures.number(column)).collect());
        println!("{column}: module ÷ floor = {:.2}", of(&ours) / of(&floor));
    }
}
