// SPDX-License-Identifier: MIT
//! What no broker does: hostile events, a clock that jumps, a machine that has no time for us.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use crate::bench::{LIMIT, Row, assert_balanced, dropped, is_large, size};
use crate::broker::{self, Kind};
use crate::outage::first_ten;
use crate::stream::streams;
use crate::support::Folder;
use crate::support::host::HostOptions;
use crate::support::oracle;
use crate::support::process::Leashed;
use crate::support::skips;
use crate::support::switch::Load;
use crate::support::wait_until;

/// F20. Every kind of hostile event there is, again and again: what arrives is sound JSON, what does not is counted and
/// told, and the events around them are not harmed.
pub(crate) fn hostile(row: &mut Row<'_>) {
    let rounds = size(2, 200);
    row.begin(&[("events", "CHANNEL_STATE GENERAL"), ("queue-max-bytes", "268435456")]);
    let mut sent = vec![first_ten()];
    for _ in 0..rounds {
        let answer = row.host.generate("raw all");
        assert!(answer.trim_end().ends_with("+OK n=24"), "{answer}");
        sent.push(row.deliver(50));
        // Each round has 12 MB; what is tried here is what they are, not how many.
        row.wait_all_delivered();
    }
    row.wait_sink("the gap records", |sink| {
        sink["in_flight"] == 0 && sink["gaps"].as_u64().is_some_and(|gaps| gaps >= rounds)
    });
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let lost = dropped(&sink) + sink["dead"].as_u64().unwrap();
    // Ten megabytes are more than `max-event-bytes`, and Kafka takes no record of one.
    let expected = if row.broker.kind() == Kind::Kafka { 2 } else { 1 };
    assert_eq!((sink["dropped"]["oversize"].as_u64(), lost), (Some(rounds), rounds * expected));
    let status = row.host.json("rustbridge status json");
    assert_eq!(status["module"]["faults"], 0, "{status:#}");
    row.took(&sent);
    let boot = row.boot();
    // Reading them is what parses each.
    let stream = streams(row.broker.read(&row.place)).remove(&boot).expect("the stream");
    stream.assert_told();
    assert_eq!(u64::try_from(stream.told.len()).unwrap(), lost);
    let mut verdict = oracle::judge(&sent, &stream.messages);
    verdict.assert_at_least_once();
    let resent = row.resent_max();
    assert!(stream.duplicates <= resent, "{} duplicates, at most {resent}", stream.duplicates);
    verdict.generated = stream.numbers.len() + stream.told.len();
    verdict.lost = stream.told.iter().copied().collect();
    row.note(&verdict, stream.duplicates);
}

/// F21. The wall clock jumps by an hour, to and fro, with the broker there and without: nothing fires early or late, and
/// order goes by numbers.
pub(crate) fn clock_jumps(row: &mut Row<'_>) {
    let folder = Folder::new("clock");
    let clock = folder.write("ahead", 0_i64.to_ne_bytes());
    let jump = |seconds: i64| {
        let file = File::options().write(true).open(&clock).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    };
    row.host_with(HostOptions { clock: Some(clock.clone()), ..HostOptions::default() });
    row.begin(&[]);
    let mut sent = vec![first_ten()];
    let count = size(300, 20_000);
    for seconds in [3600, -3600, 0] {
        jump(seconds);
        sent.push(row.deliver(count));
        row.wait_all_delivered();
    }
    let sink = row.sink();
    assert_eq!((&sink["reconnects"], &sink["state"]), (&0.into(), &"connected".into()), "{sink:#}");
    row.broker.kill();
    for seconds in [-3600, 3600] {
        jump(seconds);
        sent.push(row.deliver(count));
    }
    row.wait_sink("events to be on disk", |sink| {
        sink["spool"]["records"].as_u64().is_some_and(|n| n + 64 >= count * 2)
    });
    jump(0);
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let window = row.broker.kind().window();
    let (_, stream) = row.judge(&sent, 0, window);
    // The jumps did happen: dates in the stream are hours apart.
    let dates = stream.messages.iter().filter_map(|message| {
        message.json().get("Event-Date-Timestamp")?.as_str()?.parse::<u64>().ok()
    });
    let dates: Vec<u64> = dates.collect();
    let (first, last) = (dates.iter().min().unwrap(), dates.iter().max().unwrap());
    assert!(last - first > 7_000_000_000, "{first} to {last}");
}

/// F22. More threads that want the processors than there are processors, at the large size also one that comes before all
/// others.
pub(crate) fn starved(row: &mut Row<'_>) {
    row.begin(&[("queue-capacity", "65536")]);
    // Here the system does give the processor to others, for nearly a second at a time to the one that comes before all.
    row.callback_max *= 4;
    // The broker of this row is up; that of another may be about to start.
    let alone = broker::starving();
    let hog = is_large().then(|| {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "10", "sh", "-c", "while :; do :; done"]);
        Leashed::start(&command, &row.folder.join("hog"))
    });
    let idle = AtomicBool::new(false);
    let flow = Load { count: size(5000, 200_000), rate: 2000, threads: 2, ..Load::default() };
    let sent = std::thread::scope(|scope| {
        for _ in 0..8 {
            let spin = || {
                while !idle.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            Builder::new().name("spin".into()).spawn_scoped(scope, spin).unwrap();
        }
        let sent = row.host.deliver(&flow);
        idle.store(true, Ordering::Relaxed);
        sent
    });
    if let Some(mut hog) = hog {
        if !hog.is_running() {
            skips::note(&row.name, "no thread may come before all others", "run as root");
        }
        hog.kill();
    }
    drop(alone);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(&[first_ten(), sent], 0, resent);
}

/// F23. The system has no memory left for what waits: what cannot be copied is counted and told, and the switch goes on.
///
/// The limit is that of the process, so it is lifted before anything else is asked of it: only the callback promises to live
/// without memory.
pub(crate) fn without_memory(row: &mut Row<'_>) {
    row.begin(&[("spool-mode", "off"), ("queue-max-bytes", "4294967296")]);
    row.broker.kill();
    row.wait_loss();
    let pid = row.host.pid();
    limit_memory(pid, Some(used_memory(pid) + (96 << 20)));
    let large = Load { count: size(1000, 20_000), headers: 3000, ..Load::default() };
    let without = row.host.deliver(&large);
    limit_memory(pid, None);
    let sink = row.sink();
    assert_balanced(&sink);
    let lost = sink["dropped"]["no-memory"].as_u64().unwrap();
    assert!(lost > 0 && lost < without.count && lost == dropped(&sink), "{sink:#}");
    assert_eq!(row.host.json("rustbridge status json")["module"]["faults"], 0);
    row.broker.start_again();
    row.wait_all_delivered();
    let behind = row.deliver(200);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    row.wait_sink("the gap record", |sink| sink["gaps"].as_u64().is_some_and(|gaps| gaps > 0));
    let resent = row.resent_max();
    let (_, stream) = row.judge(&[first_ten(), without, behind], lost, resent);
    assert_eq!(stream.reasons.get("no-memory"), Some(&lost), "{:?}", stream.reasons);
}

/// F23. Allocations of the publisher and of the threads beside it fail, now and then, also while the
/// broker goes and comes back, and then all of them for a while: they are waited for, and nothing is lost for it.
pub(crate) fn scarce_memory(row: &mut Row<'_>) {
    let folder = Folder::new("scarce");
    let path = folder.write("scarce", [0_u8; 16]);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let fail_every = |n: u64| file.write_all_at(&n.to_ne_bytes(), 0).unwrap();
    let failed = || {
        let mut count = [0; 8];
        file.read_exact_at(&mut count, 8).unwrap();
        u64::from_ne_bytes(count)
    };
    row.host_with(HostOptions { scarce: Some(path), ..HostOptions::default() });
    row.begin(&[]);
    let mut sent = vec![first_ten()];
    let count = size(500, 20_000);
    for every in [2, 3, 7] {
        fail_every(every);
        let before = failed();
        sent.push(row.deliver(count));
        row.broker.kill();
        row.wait_loss();
        sent.push(row.deliver(count));
        row.broker.start_again();
        row.wait_all_delivered();
        assert!(failed() > before + 10, "{} failed of each {every}", failed() - before);
    }
    // None at all, with a broker that has to be connected to anew. Nothing is asked of the module meanwhile.
    row.broker.kill();
    row.wait_loss();
    let before = failed();
    fail_every(1);
    // Few, as no allocation is waited for longer than ten seconds.
    sent.push(row.deliver(100));
    wait_until(LIMIT, "allocations that fail again and again", || failed() > before + 20);
    fail_every(0);
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let status = row.host.json("rustbridge status json");
    assert_eq!(status["module"]["faults"], 0, "{status:#}");
    assert!(status["module"]["memory_waits"].as_u64() > Some(0), "{status:#}");
    let resent = row.resent_max();
    row.judge(&sent, 0, resent);
}

/// Bytes of address space that a process has in use.
fn used_memory(pid: i32) -> u64 {
    let sizes = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = sizes.split_whitespace().next().unwrap().parse().unwrap();
    pages * 4096
}

fn limit_memory(pid: i32, bytes: Option<u64>) {
    let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    // The soft limit, which can be lifted again.
    let limit = format!("--as={limit}:unlimited");
    let set = Command::new("prlimit").args([&format!("--pid={pid}"), &limit]).status();
    assert!(
        set.is_ok_and(|status| status.success()),
        "prlimit can be run: it comes with util-linux"
    );
}
