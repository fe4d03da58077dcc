// SPDX-License-Identifier: MIT
//! What the event callback costs the dispatch thread, in a real FreeSWITCH.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use crate::Effort;
use crate::load::{Candidate, Case, Numbers, Stand, earlier};
use crate::results::Results;
use crate::rounds::Series;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{skips, target};

/// `inside_p50` and the like, per candidate and round.
#[derive(Default)]
struct Table(BTreeMap<Candidate, Vec<Numbers>>);

impl Table {
    fn series(&self, candidate: Candidate, name: &str) -> Series {
        let mut series = Series::default();
        for numbers in self.0.get(&candidate).into_iter().flatten() {
            series.push(numbers.get(name).copied().unwrap_or(f64::NAN));
        }
        series
    }

    /// What the candidate adds to what is measured with nobody there: of `inside` that is the time that reading the clock
    /// twice takes.
    fn added(&self, candidate: Candidate, name: &str) -> Series {
        let mut series = Series::default();
        let nobody = self.series(Candidate::Nobody, name).median();
        for numbers in self.0.get(&candidate).into_iter().flatten() {
            series.push(numbers.get(name).copied().unwrap_or(f64::NAN) - nobody);
        }
        series
    }
}

fn cases(effort: Effort) -> Vec<Case> {
    // In bursts that the pool has records for, each event made just before: the caches hold
    // nothing but this. Then one at a time, between which whatever else runs takes the caches.
    // Then made long before.
    let base = Case {
        headers: 85,
        threads: 1,
        kind: "real",
        ahead: 1,
        burst: 200,
        rate: 10_000,
        count: 4_000,
    };
    let mut cases = vec![base, Case { headers: 250, ..base }];
    cases.push(Case { burst: 1, ..base });
    cases.push(Case { ahead: 200, ..base });
    cases.push(Case { headers: 250, ahead: 200, ..base });
    // For trying something out: only the first so many.
    if let Some(first) = env::var("BENCH_CASES").ok().and_then(|text| text.parse().ok()) {
        cases.truncate(first);
        return cases;
    }
    if !effort.short {
        cases.push(Case { kind: "plain", ..base });
        cases.push(Case { kind: "plain", headers: 250, ..base });
        cases.push(Case { headers: 40, ..base });
        cases.push(Case { headers: 100, ..base });
        cases.push(Case { threads: 4, rate: 2_500, count: 1_000, ..base });
        cases.push(Case { threads: 4, headers: 250, rate: 2_500, count: 1_000, ..base });
    }
    cases
}

/// Times.
pub fn run(effort: Effort, results: &mut Results) {
    let broker = skips::unless("bench callback, mod_amqp", RabbitMq::start());
    let port = broker.as_ref().map(RabbitMq::port);
    let Some(mut stand) = skips::unless("bench callback", Stand::start(port)) else { return };
    results.fact("switch", stand.version());
    let mut candidates = vec![
        Candidate::Nobody,
        Candidate::Floor,
        Candidate::Json,
        Candidate::Bump,
        Candidate::Dup,
        Candidate::Module(0),
        Candidate::Module(1),
        Candidate::Module(3),
    ];
    if broker.is_some() {
        candidates.push(Candidate::ModAmqp);
    }
    if earlier().is_some() {
        candidates.push(Candidate::Earlier);
    }
    let only: Option<Vec<String>> =
        env::var("BENCH_ONLY").ok().map(|text| text.split(',').map(str::to_owned).collect());
    if let Some(only) = only {
        candidates.retain(|candidate| only.iter().any(|word| candidate.name().contains(word)));
    }
    let cases = cases(effort);
    let mut tables: Vec<Table> = cases.iter().map(|_| Table::default()).collect();
    let mut misses = Series::default();
    for _ in 0..effort.rounds {
        for candidate in &candidates {
            stand.with(*candidate, |stand| {
                for (case, table) in cases.iter().zip(&mut tables) {
                    // mod_amqp takes so much longer that fewer events say as much.
                    let mut case = *case;
                    if *candidate == Candidate::ModAmqp {
                        case.count /= 4;
                        case.rate /= 4;
                    }
                    table.0.entry(*candidate).or_default().push(stand.run(&case));
                }
                if matches!(candidate, Candidate::Module(_)) {
                    let (dropped, from_heap) = stand.losses();
                    assert_eq!(dropped, 0, "a callback that drops is not the one to measure");
                    misses.push(from_heap as f64);
                }
            });
        }
    }
    // Of a pool that a starved publisher does not refill in time: allocations, which cost more.
    results.figure("records not from the pool", "all cases, a module's load", "", &misses);
    for (case, table) in cases.iter().zip(&tables) {
        report(&case.name(), table, &candidates, results);
    }
}

fn report(case: &str, table: &Table, candidates: &[Candidate], results: &mut Results) {
    let one = Candidate::Module(1);
    for candidate in candidates {
        for (name, what) in [("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")] {
            let series = table.series(*candidate, &format!("inside_{name}"));
            results.figure(&format!("{}, {what}", candidate.name()), case, "ns", &series);
        }
    }
    let against = [
        ("copy floor", Candidate::Floor),
        ("mod_amqp", Candidate::ModAmqp),
        ("dup + queue", Candidate::Dup),
        ("earlier", Candidate::Earlier),
    ];
    for (name, other) in against.into_iter().filter(|(_, other)| candidates.contains(other)) {
        for part in ["inside_p50", "inside_trim", "whole_p50"] {
            let what = format!("callback / {name}, {part}");
            results.ratio(&what, case, &table.added(one, part), &table.added(other, part));
        }
    }
    // What else a handler could do, against the same floor.
    for (name, other) in [("JSON at once", Candidate::Json), ("shared slabs", Candidate::Bump)] {
        let (other, floor) =
            (table.added(other, "inside_p50"), table.added(Candidate::Floor, "inside_p50"));
        results.ratio(&format!("{name} / copy floor, inside_p50"), case, &other, &floor);
    }
    for percentile in ["p99", "p999"] {
        let part = format!("inside_{percentile}");
        let (three, one) = (table.series(Candidate::Module(3), &part), table.series(one, &part));
        results.ratio(&format!("3 sinks / 1 sink, {part}"), case, &three, &one);
    }
}

/// Allocations and system calls of a handler. Counts do not depend on how busy the machine is.
pub fn counts(_effort: Effort, results: &mut Results) {
    let counting = target().join("bench/allocations.so");
    if env::var_os("LD_PRELOAD").is_none() && counting.is_file() {
        // The switch inherits the counting library from us.
        let own = env::current_exe().expect("a program knows its own path");
        let done = Command::new(own).arg("calls").env("LD_PRELOAD", counting).status();
        assert!(done.is_ok_and(|status| status.success()), "the counting run fails");
        std::process::exit(0);
    }
    let Some(mut stand) = skips::unless("bench calls", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    for headers in [85, 250] {
        let case = Case {
            headers,
            threads: 1,
            kind: "real",
            ahead: 1,
            burst: 1,
            rate: 2_000,
            count: 5_000,
        };
        for candidate in
            [Candidate::Floor, Candidate::Dup, Candidate::Module(1), Candidate::Module(3)]
        {
            let (run, calls) =
                stand.with(candidate, |stand| (stand.run(&case), stand.calls(&case)));
            for (numbers, name) in [(run, "allocations"), (calls, "calls")] {
                let per_event = numbers.get(name).copied().unwrap_or(f64::NAN) / numbers["n"];
                let mut series = Series::default();
                series.push(f64::NAN);
                series.push(per_event);
                let what = format!("{}, {name} per event", candidate.name());
                results.figure(&what, &case.name(), "", &series);
            }
        }
    }
}
