// SPDX-License-Identifier: MIT
//! What a spool does when nothing goes wrong, and what it costs.

use std::time::{Duration, Instant};

use super::rig::{INTERVAL, Rec, Rig, SEGMENT, config, drain, read, seqs};
use crate::spool::format::VERSION;
use crate::spool::{Entry, Fsync, MAX_UNDURABLE_BYTES, Spool};

#[test]
fn records_become_readable_when_they_are_durable() {
    for (fsync, at_once) in [(Fsync::Always, true), (Fsync::Never, true), (INTERVAL, false)] {
        let mut rig = Rig::new(config(fsync));
        rig.commit(0);
        rig.append(&[(0, 10), (1, 0)]);
        rig.commit(0);
        rig.append(&[(1, 20)]);
        let first = drain(rig.spool()).len();
        assert_eq!(first, if at_once { 3 } else { 2 }, "{fsync:?}");
        let due = rig.spool().next_commit();
        assert_eq!(due, (!at_once).then(|| rig.now + Duration::from_millis(100)), "{fsync:?}");
        rig.commit(99);
        assert_eq!(drain(rig.spool()).len(), 0, "{fsync:?}");
        rig.commit(1);
        assert_eq!(drain(rig.spool()).len(), 3 - first, "{fsync:?}");
        assert_eq!(rig.spool().stats().undurable_records, 0);
    }
}

#[test]
fn a_read_keeps_to_its_limits_but_gives_at_least_one() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(1, 1000); 6]);
    let mut out = Vec::new();
    read(rig.spool(), (10, 10), &mut out).unwrap();
    assert_eq!(out.len(), 1);
    read(rig.spool(), (10, 2500), &mut out).unwrap();
    assert_eq!(out.len(), 3);
    read(rig.spool(), (2, 1 << 20), &mut out).unwrap();
    assert_eq!(out.len(), 5);
    read(rig.spool(), (0, 1 << 20), &mut out).unwrap();
    assert_eq!(out.len(), 5);
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let mut rig = Rig::new(config(INTERVAL));
    let large = Rec::new(7, 0, 200_000);
    assert_eq!(rig.append(&[(1, 100)]), 1);
    assert_eq!(rig.spool().append(&[large.entry()]).accepted, 1);
    rig.known.insert(7, large.clone());
    rig.model.push_back(large);
    assert_eq!(rig.append(&[(1, 100)]), 1);
    rig.commit(200);
    rig.check();
    rig.close_and_reopen();
    rig.crash_and_reopen();
}

#[test]
fn the_oldest_age_is_that_of_the_first_unacknowledged_record() {
    let mut rig = Rig::new(config(Fsync::Always));
    let start = rig.sim.with(|world| world.unix_ms);
    for step in 0..3 {
        rig.sim.with(|world| world.unix_ms = start + step * 5000);
        rig.append(&[(1, 10)]);
    }
    assert_eq!(rig.spool().stats().oldest_appended_unix_ms, Some(start));
    rig.read(2);
    rig.ack(2);
    assert_eq!(rig.spool().stats().oldest_appended_unix_ms, Some(start + 10_000));
    // A clock that jumps back an hour harms nothing.
    rig.sim.with(|world| world.unix_ms = start - 3_600_000);
    rig.append(&[(1, 10)]);
    rig.check();
    rig.close_and_reopen();
    assert_eq!(rig.spool().stats().oldest_appended_unix_ms, Some(start + 10_000));
    rig.read(2);
    rig.ack(2);
    assert_eq!(rig.spool().stats().oldest_appended_unix_ms, None, "nothing waits");
    rig.close_and_reopen();
    assert_eq!(rig.spool().stats().oldest_appended_unix_ms, None);
}

#[test]
fn a_segment_is_removed_only_when_a_cursor_past_it_is_durable() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(1, 9000); 20]);
    let segments = rig.spool().stats().segments;
    assert!(segments >= 3);
    rig.read(20);
    rig.read(20);
    rig.ack(19);
    assert_eq!(rig.spool().stats().segments, segments);
    rig.commit(1);
    assert_eq!(rig.spool().stats().segments, 1);
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 1);
}

#[test]
fn a_drained_and_closed_spool_leaves_no_segments() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 9000); 20]);
    rig.commit(200);
    for _ in 0..3 {
        rig.read(10);
        rig.ack(10);
    }
    assert!(rig.spool().is_empty());
    rig.close_and_reopen();
    let segments = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "seg");
    assert_eq!(rig.sim.paths().iter().filter(segments).count(), 0);
}

#[test]
fn what_was_in_flight_at_shutdown_comes_first_after_the_next_start() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 6]);
    rig.commit(200);
    rig.read(4);
    rig.ack(2);
    assert!(rig.prepend(&[(0, 50), (1, 60)]));
    rig.check();
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 6);
    // Again, with the one before partly acknowledged, and with the cursor never written.
    rig.read(1);
    rig.ack(1);
    assert!(rig.prepend(&[(0, 70)]));
    rig.close_and_reopen();
    rig.read(3);
    rig.ack(3);
    rig.commit(200);
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 3);
}

#[test]
fn positions_from_before_a_rewind_or_prepend_acknowledge_nothing_unread() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(1, 100); 4]);
    let stored = drain(rig.spool());
    rig.rewind();
    rig.spool().advance(stored[2].position);
    rig.check();
    assert!(rig.prepend(&[(1, 10)]));
    rig.spool().advance(stored[3].position);
    rig.check();
}

#[test]
fn bulk_is_dropped_before_normal_and_critical_stays_in_order() {
    let mut rig = Rig::new(config(Fsync::Always));
    let shapes: Vec<(u8, u16)> = (0..60).map(|i| (i % 3, 3000)).collect();
    rig.append(&shapes);
    let before = rig.spool().stats().disk_bytes;
    rig.drop_oldest(20_000, 1);
    assert!(rig.spool().stats().disk_bytes + 20_000 <= before);
    assert!(rig.model.iter().filter(|rec| rec.class == 2).count() < 20);
    assert_eq!(rig.model.iter().filter(|rec| rec.class < 2).count(), 40);
    rig.check();
    rig.drop_oldest(u64::MAX, 0);
    assert_eq!(rig.model.iter().filter(|rec| rec.class == 0).count(), 20);
    assert_eq!(rig.model.len(), 20);
    rig.check();
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 20);
}

#[test]
fn a_million_records_take_no_memory_of_their_own() {
    let mut settings = config(Fsync::Never);
    settings.segment_bytes = 8 << 20;
    settings.max_bytes = 1 << 30;
    let mut rig = Rig::new(settings);
    rig.sim.with(|world| world.tracking = false);
    let batch: Vec<Entry<'_>> =
        (0..10_000).map(|seq| Entry { seq, class: 1, payload: b"{}" }).collect();
    for _ in 0..100 {
        assert_eq!(rig.spool().append(&batch).accepted, 10_000);
    }
    let spool = rig.spool();
    assert_eq!(spool.stats().records, 1_000_000);
    assert!(spool.segments.len() <= 6, "one entry for each segment");
    assert!(spool.pending.footprint() <= 2 * MAX_UNDURABLE_BYTES);
    let mut kept = Vec::new();
    let mut last = None;
    for _ in 0..10 {
        kept.clear();
        read(spool, (10_000, usize::MAX), &mut kept).unwrap();
        last = kept.last().map(|stored| stored.position);
    }
    spool.advance(last.unwrap());
    assert_eq!(spool.stats().records, 900_000);
}

#[test]
fn what_waits_for_a_commit_in_memory_is_bounded() {
    let mut settings = config(Fsync::Interval(Duration::from_secs(3600)));
    settings.segment_bytes = 64 << 20;
    settings.max_bytes = 256 << 20;
    let mut rig = Rig::new(settings);
    rig.sim.with(|world| world.tracking = false);
    rig.commit(0);
    let payload = vec![7; 60_000];
    for seq in 0..400 {
        assert_eq!(rig.spool().append(&[Entry { seq, class: 1, payload: &payload }]).accepted, 1);
        let waiting = rig.spool().stats().undurable_bytes;
        assert!(waiting <= MAX_UNDURABLE_BYTES as u64 + 60_032);
    }
    assert!(rig.spool().stats().durable_seq >= Some(200));
}

#[test]
fn a_segment_of_a_newer_format_is_kept_until_a_release_that_knows_it() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(1, 100); 3]);
    rig.close_and_reopen();
    rig.append(&[(1, 100); 2]);
    rig.spool = None;
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "seg");
    let path = rig.sim.paths().into_iter().find(is_segment).unwrap();
    let good = rig.sim.content(&path);
    let mut newer = good.clone();
    let version = VERSION + 1;
    newer[4..6].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    rig.sim.set(&path, newer);
    let recovery = rig.open().unwrap();
    let held = path.with_extension("held");
    assert_eq!(recovery.newer, [(held.clone(), version)]);
    assert!(recovery.lines()[0].contains("newer release"));
    let stored = drain(rig.spool());
    assert_eq!(seqs(&stored), [5, 6]);
    rig.spool().advance(stored[1].position);
    rig.spool.take().unwrap().close().unwrap();
    // The newer release: the cursor is past that segment by now, and yet it was never delivered.
    rig.sim.set(&held, good);
    rig.open().unwrap();
    let stored = drain(rig.spool());
    assert_eq!(seqs(&stored), [2, 3, 4]);
    rig.spool().advance(stored[2].position);
    rig.spool.take().unwrap().close().unwrap();
    rig.open().unwrap();
    assert!(rig.spool().is_empty());
}

#[test]
fn a_segment_of_the_format_before_this_one_is_read() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(1, 100); 3]);
    rig.spool.take().unwrap().close().unwrap();
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "seg");
    let path = rig.sim.paths().into_iter().find(is_segment).unwrap();
    let mut older = rig.sim.content(&path);
    older[4..6].copy_from_slice(&1_u16.to_le_bytes());
    let crc = crc32c::crc32c(&older[..60]);
    older[60..64].copy_from_slice(&crc.to_le_bytes());
    rig.sim.set(&path, older);
    let recovery = rig.open().unwrap();
    assert!(recovery.newer.is_empty() && recovery.damage.is_empty(), "{recovery:?}");
    assert_eq!(drain(rig.spool()).len(), 3);
}

#[test]
fn a_start_reads_only_the_ends_of_sealed_segments() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.config.max_bytes = 64 * SEGMENT;
    rig.spool = None;
    rig.open().unwrap();
    while rig.spool().stats().segments < 40 {
        rig.append(&[(1, 8000)]);
    }
    rig.spool = None;
    rig.sim.with(|world| world.bytes_read = 0);
    let recovery = rig.open().unwrap();
    let read = rig.sim.with(|world| world.bytes_read);
    assert_eq!(recovery.records as usize, rig.model.len());
    // The open one is scanned, its tail twice: for records and for what else is there.
    assert!(read <= 40 * 128 + 3 * SEGMENT, "{read} bytes read");
    assert!(recovery.bytes_read <= 40 * 128 + SEGMENT);
    rig.check();
}

#[test]
fn commit_is_due_at_once_after_a_pause_and_then_at_the_interval() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 1)]);
    assert!(rig.spool().next_commit().is_some_and(|due| due <= Instant::now()));
    rig.commit(0);
    assert_eq!(rig.spool().next_commit(), None);
    rig.append(&[(1, 1)]);
    assert_eq!(rig.spool().next_commit(), Some(rig.now + Duration::from_millis(100)));
}

#[test]
fn a_second_spool_in_the_same_process_is_refused_until_the_first_is_closed() {
    let mut rig = Rig::new(config(INTERVAL));
    assert!(Spool::open(config(INTERVAL), rig.sim.storage()).is_err());
    rig.spool.take().unwrap().close().unwrap();
    assert!(Spool::open(config(INTERVAL), rig.sim.storage()).is_ok());
}
