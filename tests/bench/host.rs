// SPDX-License-Identifier: MIT
//! What the event callback costs where there is no FreeSWITCH: in the host, against the same floor. Its events are the generator's, so
//! the figures stand beside each other and not beside those of a real switch.

use crate::Effort;
use crate::load::configuration;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::host::Host;
use crate::support::switch::{Delivered, Load, Switch};

/// What is bound while it is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Candidate {
    /// No handler: what taking the time costs.
    Nobody,
    /// One that copies each name and value once.
    Floor,
    /// The module with so many sinks that want every event; with none, one that wants nothing that comes.
    Module(u8),
    /// With a sink whose broker is away, so that events go to disk.
    Away,
}

const CANDIDATES: [Candidate; 6] = [
    Candidate::Nobody,
    Candidate::Floor,
    Candidate::Module(0),
    Candidate::Module(1),
    Candidate::Module(3),
    Candidate::Away,
];
const PARTS: [(&str, &str); 4] =
    [("p50_ns", "p50"), ("p99_ns", "p99"), ("p999_ns", "p99.9"), ("max_ns", "max")];

impl Candidate {
    fn name(self) -> String {
        match self {
            Self::Nobody => "nobody".into(),
            Self::Floor => "copy floor".into(),
            Self::Module(sinks) => format!("mod_rustbridge, {sinks} sinks"),
            Self::Away => "mod_rustbridge, broker away".into(),
        }
    }

    fn configuration(self, host: &Host) -> String {
        match self {
            Self::Module(sinks) => configuration(sinks, false, &host.folder().join("run")),
            // Nobody listens at the first port.
            _ => "<configuration name=\"rustbridge.conf\"><settings><param name=\"live-calls\" value=\"false\"/></settings>\
                  <sinks><sink name=\"out\" type=\"amqp\" events=\"ALL\">\
                  <param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:1/%2f\"/></sink></sinks></configuration>"
                .to_owned(),
        }
    }
}

/// Each of 85 and 250 headers, from one thread and from four; together as many a second.
fn cases() -> Vec<(String, Load)> {
    let mut cases = Vec::new();
    for threads in [1, 4] {
        for headers in [85, 250] {
            let load = Load { count: 4_000, headers, threads, rate: 5_000, ..Load::default() };
            cases.push((format!("{headers} headers, {threads} threads, in the host"), load));
        }
    }
    cases
}

fn measured(host: &mut Host, candidate: Candidate, load: &Load) -> Delivered {
    let is_module = matches!(candidate, Candidate::Module(_) | Candidate::Away);
    if candidate == Candidate::Floor {
        host.command("floor on");
    }
    if is_module {
        let configuration = candidate.configuration(host);
        host.configure(&configuration);
        host.load().expect("the module loads");
    }
    host.deliver(&Load { count: load.count / 4, rate: 0, ..load.clone() });
    let delivered = host.deliver(load);
    if is_module {
        host.unload().expect("the module unloads");
    }
    host.command("floor off");
    delivered
}

/// Times.
pub fn run(effort: Effort, results: &mut Results) {
    let mut host = Host::new("<configuration name=\"rustbridge.conf\"/>");
    results.fact("switch", host.name());
    for (case, load) in cases() {
        let mut found: Vec<[Series; PARTS.len()]> =
            CANDIDATES.iter().map(|_| Default::default()).collect();
        for round in 0..effort.rounds {
            // Those that are compared are measured moments apart, and none of them always first.
            for turn in 0..CANDIDATES.len() {
                let at = (round + turn) % CANDIDATES.len();
                let delivered = measured(&mut host, CANDIDATES[at], &load);
                for (series, (name, _)) in found[at].iter_mut().zip(PARTS) {
                    series.push(delivered.number(name));
                }
            }
        }
        report(&case, &found, results);
    }
}

fn report(case: &str, found: &[[Series; PARTS.len()]], results: &mut Results) {
    for (candidate, parts) in CANDIDATES.iter().zip(found) {
        for (series, (_, what)) in parts.iter().zip(PARTS) {
            results.figure(&format!("{}, {what}", candidate.name()), case, "ns", series);
        }
    }
    let of = |candidate: Candidate| CANDIDATES.iter().position(|one| *one == candidate).unwrap();
    // What a candidate adds to what is measured with nobody there.
    let added = |candidate: Candidate, part: usize| {
        let nobody = found[of(Candidate::Nobody)][part].median();
        found[of(candidate)][part].map(|time| time - nobody)
    };
    let mut ratio = |name: &str, ours: Candidate, other: Candidate, part: usize| {
        let what = format!("{name}, {}", PARTS[part].1);
        results.ratio(&what, case, &added(ours, part), &added(other, part));
    };
    ratio("callback / copy floor", Candidate::Module(1), Candidate::Floor, 0);
    ratio("3 sinks / 1 sink", Candidate::Module(3), Candidate::Module(1), 0);
    for part in [0, 2] {
        ratio("broker away / file", Candidate::Away, Candidate::Module(1), part);
    }
}
