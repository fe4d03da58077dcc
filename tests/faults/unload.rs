// SPDX-License-Identifier: MIT
//! F15. The module is unloaded: with the broker dead and many events waiting, without a spool to put them in, over and over.

use std::fs;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, size, wait};
use crate::outage::first_ten;
use crate::stream::streams;
use crate::support::oracle::Verdict;
use crate::support::proxy::Mode;
use crate::support::switch::Load;

/// An unload while the broker is dead and many events wait: within its time, all on disk, sent after the next load.
pub(crate) fn unloaded(row: &mut Row<'_>) {
    // Room for all of them, however long the machine keeps the publisher waiting.
    row.begin(&[("queue-capacity", "131072")]);
    row.broker.kill();
    row.wait_loss();
    let waiting = row.deliver(size(20_000, 100_000));
    // On its way to disk a message is counted in both places for a moment.
    row.wait_sink("all of them to wait", |sink| sink["waiting"] == waiting.count);
    let before = Instant::now();
    row.host.unload().expect("the module unloads");
    let took = before.elapsed();
    // `shutdown-timeout-ms` is 5000.
    // A busy machine may be late; at the large size it is held to the tenth of a second.
    let late = Duration::from_millis(size(3000, 100));
    assert!(took < Duration::from_secs(5) + late, "the unload took {took:?}");
    row.host.load().expect("the module loads again");
    let sink = row.wait_sink("the spool to be read", |sink| {
        sink["recovered"].as_u64().is_some_and(|n| n > 0)
    });
    assert_eq!(sink["recovered"], waiting.count, "{sink:#}");
    row.broker.start_again();
    let behind = row.deliver(100);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let window = if row.broker.sink_type() == "kafka" { 64 } else { 1024 };
    row.judge(&[first_ten(), waiting, behind], 0, window);
}

/// The same while the spool has no folder: what cannot be kept is counted, and told after the next load.
pub(crate) fn unloaded_without_folder(row: &mut Row<'_>) {
    let place = row.folder.join("obstacle");
    fs::write(&place, "a file where a folder should be").unwrap();
    let folder = place.join("spool").display().to_string();
    let settings = [("spool-dir", folder.as_str())];
    row.begin(&settings);
    row.broker.kill();
    row.wait_loss();
    let lost = row.deliver(1000);
    let before = Instant::now();
    row.host.unload().expect("the module unloads");
    let took = before.elapsed();
    // Nobody takes them, so the whole of `shutdown-timeout-ms` is used, which is 5000, and no more.
    assert!(took < Duration::from_secs(8), "the unload took {took:?}");
    let log = row.host.log();
    let account = log.lines().rfind(|line| line.contains("Final account")).unwrap_or_default();
    assert!(account.contains("dropped 1000"), "{account}");
    row.broker.start_again();
    row.host.load().expect("the module loads again");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let behind = row.deliver(100);
    row.wait_all_delivered();
    row.wait_sink("the gap record", |sink| sink["gaps"] == 1 && sink["in_flight"] == 0);
    row.judge(&[first_ten(), lost.clone(), behind], lost.count, 0);
}

/// Loads and unloads while events come, with the broker there, refusing and silent: nothing that a load has accepted is
/// lost, and nothing stays behind.
pub(crate) fn over_and_over(row: &mut Row<'_>) {
    let proxy = row.broker.proxy();
    row.broker.keep(&row.place, "#");
    row.configure_by(proxy.port(), &[]);
    let cycle = |row: &mut Row<'_>, flowing: bool| {
        row.host.load().expect("the module loads");
        if flowing {
            row.wait_sink("events to come", |sink| {
                sink["offered"].as_u64().is_some_and(|n| n > 50)
            });
        }
        let started = Instant::now();
        row.host.unload().expect("the module unloads");
        let took = started.elapsed();
        // `shutdown-timeout-ms` is 5000; a loaded machine runs us late.
        assert!(took < Duration::from_secs(8), "an unload took {took:?}");
    };
    // The first brings what stays for good.
    cycle(row, false);
    let threads = row.host.threads();
    let descriptors = row.host.descriptors().len();
    let load = Load { count: 10_000_000, rate: 2000, ..Load::default() };
    for mode in [Mode::Pass, Mode::Refuse, Mode::Blackhole] {
        proxy.set(mode);
        let flow = row.flow(&load);
        for _ in 0..size(3, 100) {
            cycle(row, true);
        }
        let sent = row.ended(flow);
        row.took(&[sent]);
    }
    wait("threads and descriptors to be what they were", || {
        row.host.threads() == threads && row.host.descriptors().len() <= descriptors
    });
    proxy.set(Mode::Pass);
    row.host.load().expect("the module loads");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let last = row.deliver(10);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let boot = row.boot();
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of this boot");
    stream.assert_told();
    assert!(stream.told.is_empty(), "told as missing: {:?}", stream.told);
    assert!(u64::try_from(stream.numbers.len()).unwrap() > last.count, "events came meanwhile");
    let verdict = Verdict { generated: stream.numbers.len(), ..Verdict::default() };
    row.note(&verdict, stream.duplicates);
}
