// SPDX-License-Identifier: MIT
//! The disk behind the queue: the module is unloaded, the folder goes.

use std::fs;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, on_disk, size};
use crate::outage::first_ten;

/// An unload while the broker is dead and many events wait: within its time, all on disk, sent after the next load.
pub(crate) fn unloaded(row: &mut Row<'_>) {
    row.begin(&[]);
    row.broker.kill();
    row.wait_loss();
    let waiting = row.deliver(size(20_000, 100_000));
    let sink = row.sink();
    assert_eq!(sink["waiting"], waiting.count, "{sink:#}");
    let before = Instant::now();
    row.host.unload().expect("the module unloads");
    let took = before.elapsed();
    // `shutdown-timeout-ms` is 5000.
    assert!(took < Duration::from_millis(5100), "the unload took {took:?}");
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

/// F13. There can be no spool folder: events wait in memory, it is said, and the spool comes when it can.
pub(crate) fn no_folder(row: &mut Row<'_>) {
    let place = row.folder.join("obstacle");
    fs::write(&place, "a file where a folder should be").unwrap();
    let folder = place.join("spool");
    row.begin(&[("spool-dir", &folder.display().to_string())]);
    let sink = row.wait_sink("the trouble to be told", |sink| sink["spool"]["trouble"].is_string());
    let words = sink["spool"]["trouble"].as_str().unwrap();
    assert!(words.contains("obstacle"), "{words}");
    row.broker.kill();
    row.wait_loss();
    let in_memory = row.deliver(1000);
    assert_eq!(row.sink()["waiting"], in_memory.count);
    fs::remove_file(&place).unwrap();
    row.wait_sink("the spool to work", |sink| {
        sink["spool"]["trouble"].is_null() && on_disk(sink, in_memory.count)
    });
    let behind = row.deliver(1000);
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let window = row.broker.kind().window();
    row.judge(&[first_ten(), in_memory, behind], 0, window);
}

/// F13. Someone deletes the folder of a spool in use: what it cost is counted and told, and it goes on.
pub(crate) fn deleted(row: &mut Row<'_>) {
    row.begin(&[]);
    row.broker.kill();
    row.wait_loss();
    let before = row.deliver(1000);
    row.wait_sink("everything to be on disk", |sink| on_disk(sink, before.count));
    fs::remove_dir_all(row.folder.join("storage/spool")).unwrap();
    let after = row.deliver(1000);
    row.broker.start_again();
    row.wait_all_delivered();
    let final_ten = row.deliver(10);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let lost = dropped(&sink);
    let window = row.broker.kind().window();
    row.judge(&[first_ten(), before, after, final_ten], lost, window);
}
