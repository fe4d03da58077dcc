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
    // Twice and more as many of the usual ones: for their rarest.
    let many = Case { count: if effort.short { base.count } else { 10_000 }, ..base };
    let mut cases = vec![many, Case { headers: 250, ..many }];
    cases.push(Case { burst: 1, ..base });
    cases.push(Case { ahead: 200, ..base });
    cases.push(Case { headers: 250, ahead: 200, ..base });
    if !effort.short {
        cases.push(Case { kind: "plain", ..base });
        cases.push(Case { kind: "plain", headers: 250, ..base });
        cases.push(Case { headers: 40, ..base });
        cases.push(Case { headers: 100, ..base });
        for headers in [40, 85, 100, 250] {
            cases.push(Case { threads: 4, headers, rate: 2_500, count: 1_000, ..base });
        }
    }
    // For trying something out: those whose names have these words.
    if let Ok(words) = env::var("BENCH_CASES") {
        cases.retain(|case| case.name().contains(&words));
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
        Candidate::AsShipped,
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
    let mut misses = Series::default();
    for (number, case) in cases.iter().enumerate() {
        let mut candidates = candidates.clone();
        if number >= ALTERNATIVES {
            candidates.retain(|one| !matches!(one, Candidate::Json | Candidate::Bump));
        }
        let table = in_turn(&mut stand, &candidates, *case, effort.rounds, &mut misses);
        report(&case.name(), &table, &candidates, results);
    }
    // Of a pool that a starved publisher does not refill in time: allocations, which cost more.
    results.figure("records not from the pool", "all cases, a module's load", "", &misses);
}

/// So many cases have the other ways to write a handler too.
const ALTERNATIVES: usize = 2;

/// All of them, round by round: those that are compared are measured moments apart, and none of them is always first.
fn in_turn(
    stand: &mut Stand,
    candidates: &[Candidate],
    case: Case,
    rounds: usize,
    misses: &mut Series,
) -> Table {
    let mut table = Table::default();
    for round in 0..rounds {
        let at = round % candidates.len();
        for candidate in candidates[at..].iter().chain(&candidates[..at]) {
            let (numbers, from_heap) = measured(stand, *candidate, case);
            table.0.entry(*candidate).or_default().push(numbers);
            if let Some(count) = from_heap {
                misses.push(count);
            }
        }
    }
    table
}

/// One candidate's numbers, and of the module how many of its records were not from the pool.
fn measured(stand: &mut Stand, candidate: Candidate, mut case: Case) -> (Numbers, Option<f64>) {
    // mod_amqp takes so much longer that fewer events say as much.
    if candidate == Candidate::ModAmqp {
        case.count /= 4;
        case.rate /= 4;
    }
    let (mut numbers, losses) = stand.with(candidate, |stand| {
        let is_ours = matches!(candidate, Candidate::Module(_) | Candidate::AsShipped);
        (stand.run(&case), is_ours.then(|| stand.losses()))
    });
    let events = f64::from((case.count + case.count.min(1_000)) * case.threads);
    let cpu = numbers["cpu"] / events * 1e9;
    numbers.insert("inside_cpu".into(), cpu);
    let from_heap = losses.map(|(dropped, from_heap)| {
        assert_eq!(dropped, 0, "a callback that drops is not the one to measure");
        from_heap as f64
    });
    (numbers, from_heap)
}

fn report(case: &str, table: &Table, candidates: &[Candidate], results: &mut Results) {
    for candidate in candidates {
        let parts =
            [("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"), ("cpu", "CPU")];
        for (name, what) in parts {
            let series = table.series(*candidate, &format!("inside_{name}"));
            results.figure(&format!("{}, {what}", candidate.name()), case, "ns", &series);
        }
    }
    let mut ratios = |ours: Candidate, name: &str, other: Candidate, parts: &[&str]| {
        if [ours, other].iter().all(|one| candidates.contains(one)) {
            for part in parts {
                let (ours, other) = (table.added(ours, part), table.added(other, part));
                results.ratio(&format!("{name}, {part}"), case, &ours, &other);
            }
        }
    };
    let (ours, bare) = (Candidate::AsShipped, Candidate::Module(1));
    let floor = Candidate::Floor;
    ratios(ours, "callback / copy floor", floor, &["inside_p50", "inside_trim"]);
    ratios(bare, "without the table of calls / copy floor", floor, &["inside_p50"]);
    ratios(ours, "callback / mod_amqp", Candidate::ModAmqp, &["inside_p50", "inside_trim"]);
    ratios(ours, "callback / dup + queue", Candidate::Dup, &["inside_p50", "inside_trim"]);
    ratios(ours, "callback / earlier", Candidate::Earlier, &["inside_p50", "inside_trim"]);
    // What else a handler could do, against the same floor.
    ratios(Candidate::Json, "JSON at once / copy floor", floor, &["inside_p50"]);
    ratios(Candidate::Bump, "shared slabs / copy floor", floor, &["inside_p50"]);
    let tails = ["inside_p50", "inside_p99", "inside_p999"];
    ratios(Candidate::Module(3), "3 sinks / 1 sink", bare, &tails);
}

/// The rarest: with one sink and with three, the usual event, in so many rounds that the interval of a p99.9 becomes narrow.
pub fn tails(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench tails", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let candidates =
        [Candidate::Nobody, Candidate::Floor, Candidate::Module(1), Candidate::Module(3)];
    let rounds = effort.rounds * if effort.short { 1 } else { 6 };
    let [case, ..] = cases(effort)[..] else { return };
    let mut misses = Series::default();
    let table = in_turn(&mut stand, &candidates, case, rounds, &mut misses);
    report(&case.name(), &table, &candidates, results);
    let part = "inside_p999";
    let (one, floor) =
        (table.added(Candidate::Module(1), part), table.added(Candidate::Floor, part));
    results.ratio("1 sink / copy floor, p99.9", &case.name(), &one, &floor);
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
