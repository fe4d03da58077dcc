// SPDX-License-Identifier: MIT
//! The disk behind the queue: the switch is killed, the module is unloaded, the folder goes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, on_disk, size, wait};
use crate::outage::first_ten;
use crate::stream::streams;
use crate::support::oracle;
use crate::support::switch::{Delivered, Load, Switch};

/// F10. The switch is killed at any point while events go to disk. Whatever the module has called durable arrives.
pub(crate) fn switch_killed(row: &mut Row<'_>) {
    row.broker.keep(&row.place, "#");
    row.broker.kill();
    let mut durable: BTreeMap<String, u64> = BTreeMap::new();
    // Any spread will do, the same in each run: a failure can be seen again.
    let mut spread = 0x2545_f491_4f6c_dd1d_u64;
    let (load, kills) = (Load { count: 1_000_000, rate: 3000, ..Load::default() }, size(5, 20));
    for life in 0..=kills {
        if life > 0 {
            row.host.start();
        }
        row.load(&[
            ("spool-mode", "always"),
            ("spool-fsync", "always"),
            ("spool-segment-bytes", "262144"),
            ("queue-capacity", "65536"),
        ]);
        let boot = row.boot();
        if life == kills {
            break;
        }
        spread ^= spread << 13;
        spread ^= spread >> 7;
        spread ^= spread << 17;
        let enough = 1 + spread % size(600, 10_000);
        let _until_killed = row.host.generate_later(&load.line());
        let mut through = 0;
        wait("events to be durable", || {
            // The gauge may still show what an earlier boot left.
            let sink = row.sink();
            let earlier = sink["recovered"].as_u64().unwrap_or(0);
            let held = sink["spool"]["records"].as_u64().unwrap_or(0);
            if held > earlier {
                through = sink["spool"]["durable_seq"].as_u64().unwrap_or(0).min(held - earlier);
            }
            through >= enough
        });
        row.host.kill();
        assert!(
            durable.insert(boot, through).is_none(),
            "each life of the switch is a boot of its own"
        );
    }
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let streams = streams(row.broker.read(&row.place));
    let (mut all, mut duplicates) = (oracle::Verdict::default(), 0);
    for (boot, through) in &durable {
        let stream = streams
            .get(boot)
            .unwrap_or_else(|| panic!("nothing of {boot}, durable up to {through}"));
        let last = stream.last();
        assert!(last >= *through, "{through} events of {boot} were durable, {last} arrived");
        assert!(stream.told.is_empty(), "told as missing: {:?}", stream.told);
        stream.assert_told();
        let sent = Delivered { count: last, first: 1, last, ..Delivered::default() };
        let verdict = oracle::judge(&[sent], &stream.messages);
        verdict.assert_exact();
        all.generated += verdict.generated;
        duplicates += verdict.duplicates;
    }
    row.note(&all, duplicates);
}

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
    let place = row.host.folder().join("obstacle");
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
    fs::remove_dir_all(row.host.folder().join("storage/spool")).unwrap();
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
