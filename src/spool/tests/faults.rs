// SPDX-License-Identifier: MIT
//! Any call may fail, once or for a while, with any error: what was accepted is delivered.

use std::time::Duration;

use rustix::io::Errno;

use super::rig::{INTERVAL, Rig, SEGMENT, config, drain, read, seqs};
use super::sim::Fault;
use crate::spool::{DamageKind, Fsync, Heal, MAX_UNDURABLE_BYTES, Spool, SpoolError, SpoolState};

const FAULTS: [Fault; 5] = [
    Fault::Errno(Errno::IO),
    Fault::Errno(Errno::NOSPC),
    Fault::Errno(Errno::INTR),
    Fault::Errno(Errno::DQUOT),
    Fault::Short,
];

/// How a run with failing calls ends.
#[derive(Debug, Clone, Copy)]
enum End {
    GoOn,
    Crash,
    PowerLoss,
}

/// Something of everything, so that every kind of call is made in every kind of state.
fn play(rig: &mut Rig) {
    rig.append(&[(1, 3000), (0, 200), (2, 9000)]);
    rig.commit(200);
    rig.read(2);
    rig.append(&[(2, 8000); 6]);
    rig.ack(1);
    rig.commit(200);
    rig.append(&[(0, 8000), (1, 10)]);
    rig.read(20);
    rig.ack(5);
    rig.commit(200);
    rig.prepend(&[(1, 500), (0, 700)]);
    rig.read(1);
    rig.append(&[(2, 9000); 7]);
    rig.commit(200);
    rig.rewind();
    rig.drop_oldest(30_000, 1);
    rig.append(&[(0, 4000); 3]);
    rig.commit(200);
    rig.read(9);
    rig.ack(6);
    rig.commit(200);
    // A failed close leaves what a crash would.
    drop(rig.spool.take().unwrap().close());
    rig.crash_after_faults();
    rig.append(&[(1, 100); 4]);
    rig.read(3);
    rig.ack(2);
    rig.commit(200);
}

/// Which calls fail in which kind of spool.
#[derive(Debug, Clone, Copy)]
struct Plan {
    fsync: Fsync,
    /// As [`World::background`](super::sim::World::background).
    background: Option<u32>,
    calls: u64,
}

fn fails(plan: Plan, from: u64, fault: Fault, end: End) -> bool {
    let Plan { fsync, background, calls } = plan;
    let mut rig = Rig::new(config(fsync));
    rig.sim.with(|world| world.background = background);
    let base = rig.sim.with(|world| world.calls);
    rig.sim.with(|world| world.failing = Some((base + from, base + from + calls, fault)));
    play(&mut rig);
    let failed = rig.sim.with(|world| {
        world.failing = None;
        world.failed
    });
    match end {
        End::GoOn => {
            rig.heal();
            rig.check();
            rig.append(&[(1, 50); 3]);
            rig.commit(200);
            rig.check();
            rig.spool.take().unwrap().close().unwrap();
            rig.crash_after_faults();
        }
        End::Crash => rig.crash_after_faults(),
        End::PowerLoss => rig.lose_power_and_reopen(|| 0),
    }
    failed > 0
}

fn every_call(fsync: Fsync, background: Option<u32>, calls: u64) {
    let plan = Plan { fsync, background, calls };
    let ends = [End::GoOn, End::Crash, End::PowerLoss];
    for end in ends {
        if matches!((fsync, end), (Fsync::Never, End::PowerLoss)) {
            continue;
        }
        for fault in FAULTS {
            let mut n = 1;
            // A short write passes for a failure only where something is written.
            while fails(plan, n, fault, end) {
                n += 1;
            }
            let most = if fsync == Fsync::Never { 50 } else { 80 };
            assert!(n > most, "the run makes many calls, and each failed in its turn: {n}");
        }
    }
}

#[test]
fn any_single_call_may_fail_with_interval_sync() {
    every_call(INTERVAL, None, 1);
}

#[test]
fn any_single_call_may_fail_with_sync_always() {
    every_call(Fsync::Always, None, 1);
}

#[test]
fn any_single_call_may_fail_without_sync() {
    every_call(Fsync::Never, None, 1);
}

#[test]
fn any_single_call_may_fail_while_a_sync_goes_on_elsewhere() {
    for patience in [0, 1, 3] {
        every_call(INTERVAL, Some(patience), 1);
    }
}

#[test]
fn what_is_appended_while_a_sync_goes_on_is_written_anew_when_that_fails() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.sim.with(|world| world.background = Some(1));
    rig.append(&[(1, 100); 5]);
    rig.commit(200);
    rig.append(&[(2, 100); 5]);
    assert_eq!(rig.spool().stats().undurable_records, 10, "nobody waits for the disk");
    rig.commit(1);
    let next = rig.sim.with(|world| world.calls) + 1;
    rig.sim.with(|world| world.failing = Some((next, next + 1, Fault::Errno(Errno::IO))));
    rig.commit(1);
    assert_eq!(rig.sim.with(|world| world.failed), 1, "the sync has failed");
    assert_eq!(rig.spool().stats().undurable_records, 0);
    rig.check();
    rig.lose_power_and_reopen(|| 0);
    assert_eq!(rig.model.len(), 10);
}

/// A spool that takes nothing more, because its disk answers no sync; of one large segment, or of small ones.
pub(super) fn silent(large: bool) -> Rig {
    let mut settings = config(Fsync::Interval(Duration::from_secs(3600)));
    if large {
        settings.segment_bytes = 64 << 20;
        settings.max_bytes = 256 << 20;
    }
    let mut rig = Rig::new(settings);
    rig.sim.with(|world| world.background = Some(0));
    let record = if large { (1, 50_000) } else { (1, 20_000) };
    rig.append(&[record; 2]);
    rig.tend(0);
    rig.tend(1);
    rig.sim.with(|world| world.silent = true);
    while rig.append(&[record]) == 1 {}
    rig
}

#[test]
fn a_disk_that_does_not_answer_takes_no_more_than_was_waiting_and_then_all_again() {
    for (large, fails) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut rig = silent(large);
        let undurable = rig.spool().stats().undurable_bytes;
        if large {
            let most = MAX_UNDURABLE_BYTES as u64;
            assert!((most..most + 60_000).contains(&undurable), "{undurable}");
        } else {
            assert!((1..SEGMENT).contains(&undurable), "{undurable}");
        }
        let SpoolState::Degraded(why) = rig.spool().stats().state else { panic!("it is silent") };
        assert!(why.contains("/spool/sink/") && why.contains("its disk does not answer"), "{why}");
        // All can be read, what is not durable from memory, and nothing is tried with the disk meanwhile.
        let durable = rig.model.len() - rig.spool().stats().undurable_records as usize;
        let stored = drain(rig.spool());
        assert_eq!(stored.len(), rig.model.len());
        assert!(durable >= 2);
        rig.spool().advance(stored[1].position);
        rig.model.drain(..2);
        let calls = rig.sim.with(|world| world.calls);
        rig.tend(20_000);
        rig.tend(20_000);
        assert!(!rig.prepend(&[(1, 10)]));
        rig.drop_oldest(1, 0);
        assert_eq!(rig.append(&[(1, 10)]), 0);
        assert_eq!(rig.sim.with(|world| world.calls), calls);
        assert_eq!(rig.spool().stats().undurable_bytes, undurable);
        rig.sim.with(|world| {
            world.silent = false;
            let next = world.calls + 1;
            world.failing = fails.then_some((next, next + 1, Fault::Errno(Errno::IO)));
        });
        // Whatever time it is by then: the answer is what was waited for.
        rig.tend(0);
        assert_eq!(rig.spool().stats().state, SpoolState::Ok);
        assert_eq!(rig.spool().stats().fsync_errors, u64::from(fails));
        assert_eq!(rig.spool().stats().undurable_records, 0);
        assert_eq!(rig.append(&[(1, 100)]), 1);
        rig.check();
        rig.close_and_reopen();
    }
}

#[test]
fn the_end_on_a_disk_that_does_not_answer_says_what_is_not_durable() {
    for large in [true, false] {
        let mut rig = silent(large);
        let undurable = rig.spool().stats().undurable_records;
        let error = rig.spool.take().unwrap().close().unwrap_err();
        assert!(
            matches!(error, SpoolError::Silent { records, .. } if records == undurable),
            "{error}"
        );
        // In memory of the system it is all the same, and comes unless the power goes.
        rig.crash_and_reopen();
    }
    let mut rig = silent(true);
    let undurable = rig.spool().stats().undurable_records as usize;
    let accepted = rig.model.len();
    rig.lose_power_and_reopen(|| 0);
    assert_eq!(rig.model.len(), accepted - undurable);
}

#[test]
fn any_two_calls_in_a_row_may_fail() {
    every_call(INTERVAL, None, 2);
}

#[test]
fn a_failed_fsync_is_not_repeated_and_its_records_come_once() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 5]);
    rig.commit(200);
    rig.append(&[(1, 100); 5]);
    let next = rig.sim.with(|world| world.calls) + 1;
    rig.sim.with(|world| world.failing = Some((next, next + 1, Fault::Errno(Errno::IO))));
    assert!(rig.commit(200), "the records are durable, if elsewhere");
    let stats = rig.spool().stats();
    assert_eq!((stats.fsync_errors, stats.undurable_records, stats.segments), (1, 0, 2));
    rig.check();
    rig.append(&[(1, 100); 2]);
    rig.commit(200);
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 12);
}

#[test]
fn a_disk_that_cannot_sync_holds_records_in_memory_until_it_can() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 5]);
    rig.commit(200);
    rig.append(&[(1, 100); 5]);
    rig.sim.with(|world| world.failing = Some((0, u64::MAX, Fault::Errno(Errno::IO))));
    assert!(!rig.commit(200));
    assert!(
        matches!(rig.spool().stats().state, SpoolState::Degraded(why) if why.contains("/spool/sink"))
    );
    assert_eq!(rig.append(&[(1, 100)]), 0, "nothing more is taken");
    let now = rig.now;
    let Heal::NotYet(retry_at) = rig.spool().try_heal(now) else { panic!("it cannot be well") };
    let calls = rig.sim.with(|world| world.calls);
    assert_eq!(rig.spool().try_heal(now), Heal::NotYet(retry_at));
    assert_eq!(rig.sim.with(|world| world.calls), calls, "nothing is tried before it is time");
    rig.sim.with(|world| world.failing = None);
    assert_eq!(rig.spool().try_heal(retry_at), Heal::Healed);
    rig.now = retry_at;
    assert_eq!(rig.spool().stats().undurable_records, 0);
    rig.check();
    assert_eq!(rig.model.len(), 10);
}

#[test]
fn a_full_disk_is_said_and_passes_when_there_is_room() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.sim.with(|world| world.room = Some(SEGMENT + 5000));
    while rig.append(&[(1, 5000)]) == 1 {}
    let taken = rig.model.len();
    assert!(taken > 10);
    let SpoolState::Degraded(why) = rig.spool().stats().state else { panic!("the disk is full") };
    assert!(why.contains("free space on its disk"), "{why}");
    rig.commit(200);
    rig.read(3);
    rig.ack(3);
    rig.check();
    rig.sim.with(|world| world.room = None);
    rig.heal();
    assert_eq!(rig.append(&[(1, 5000)]), 1);
    rig.commit(200);
    rig.check();
}

#[test]
fn the_bounds_hold_and_acknowledging_makes_room() {
    let mut rig = Rig::new(config(INTERVAL));
    while rig.append(&[(1, 5000), (2, 1000)]) == 2 {}
    let stats = rig.spool().stats();
    assert!(stats.disk_bytes <= 8 * SEGMENT);
    assert_eq!(stats.state, SpoolState::Ok, "full is not broken");
    let entry = super::rig::Rec::new(0, 1, 6000);
    let error = rig.spool().append(&[entry.entry()]).error.unwrap();
    assert!(matches!(error, SpoolError::Full { .. }) && error.is_full(), "{error}");
    rig.commit(200);
    rig.read(40);
    rig.ack(40);
    rig.commit(200);
    assert_eq!(rig.append(&[(1, 5000)]), 1);
    rig.sim.with(|world| world.free = SEGMENT / 2);
    while rig.append(&[(1, 5000)]) == 1 {}
    rig.spool().close_active_for_test();
    let error = rig.spool().append(&[entry.entry()]).error.unwrap();
    assert!(error.is_full(), "{error}");
    let large = super::rig::Rec::new(0, 1, 600_000);
    let error = rig.spool().append(&[large.entry()]).error.unwrap();
    assert!(matches!(error, SpoolError::TooLarge { .. }), "{error}");
}

#[test]
fn a_disk_turned_read_only_is_said_and_heals() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 3]);
    rig.commit(200);
    rig.sim.with(|world| world.read_only = true);
    assert_eq!(rig.append(&[(1, 100)]), 0);
    let SpoolState::Degraded(why) = rig.spool().stats().state else { panic!("it is read-only") };
    assert!(why.contains("mount it read-write"), "{why}");
    rig.read(2);
    rig.sim.with(|world| world.read_only = false);
    rig.heal();
    assert_eq!(rig.append(&[(1, 100)]), 1);
    rig.commit(200);
    rig.check();
}

#[test]
fn a_deleted_folder_is_noticed_counted_and_made_again() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 7]);
    rig.spool().close_active_for_test();
    rig.append(&[(1, 100); 4]);
    rig.commit(2000);
    rig.append(&[(1, 100); 2]);
    rig.sim.clear();
    rig.now += Duration::from_secs(2);
    let now = rig.now;
    assert!(rig.spool().commit(now).is_ok() || rig.spool().stats().state != SpoolState::Ok);
    assert!(matches!(rig.spool().stats().state, SpoolState::Degraded(_)));
    rig.heal();
    let damage = rig.spool().take_damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].kind, DamageKind::Missing);
    let lost = damage[0].records.unwrap() as usize;
    assert_eq!(lost, 7, "what the open file has is not lost with its name");
    rig.model.drain(..lost);
    assert_eq!(rig.append(&[(1, 100); 2]), 2);
    rig.commit(2000);
    rig.check();
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 8);
}

#[test]
fn a_read_that_fails_for_a_while_skips_nothing() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 1000); 5]);
    rig.commit(200);
    rig.sim.with(|world| world.failing = Some((0, u64::MAX, Fault::Errno(Errno::IO))));
    let mut out = Vec::new();
    assert!(read(rig.spool(), (5, 10_000), &mut out).is_err());
    rig.sim.with(|world| world.failing = None);
    assert_eq!(drain(rig.spool()).len(), 5);
}

#[test]
fn a_bad_block_costs_its_records_after_repeated_failures_and_the_file_is_kept() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 3000); 8]);
    rig.commit(200);
    let path = rig.sim.paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    rig.sim.set_bad(&path, Some(8192..12_288));
    let mut out = Vec::new();
    for _ in 0..3 {
        assert!(read(rig.spool(), (10, 100_000), &mut out).is_err());
        assert!(out.is_empty());
    }
    read(rig.spool(), (10, 100_000), &mut out).unwrap();
    let first = rig.model[0].seq;
    let whole = [0, 1, 5, 6, 7].map(|n| first + n);
    assert_eq!(seqs(&out), whole);
    let damage = rig.spool().take_damage();
    assert_eq!((damage[0].from_seq, damage[0].to_seq), (Some(first + 2), Some(first + 4)));
    // A restart finds the same and leaves the file alone, as the disk may think better of it.
    let before = rig.sim.content(&path);
    rig.spool = None;
    let recovery = rig.open().unwrap();
    assert_eq!(recovery.corrupt_ranges, 1);
    let stored = drain(rig.spool());
    assert_eq!(seqs(&stored), whole);
    assert_eq!(rig.sim.content(&path), before);
    rig.spool().advance(stored[4].position);
    rig.spool.take().unwrap().close().unwrap();
    let moved =
        rig.sim.paths().into_iter().find(|path| path.parent().unwrap().ends_with("quarantine"));
    assert_eq!(rig.sim.content(&moved.unwrap()), before);
}

#[test]
fn a_file_that_its_disk_does_not_open_is_set_aside_when_waiting_is_in_vain() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 3]);
    rig.spool().close_active_for_test();
    rig.append(&[(1, 100); 2]);
    rig.commit(200);
    rig.spool.take().unwrap().close().unwrap();
    let path = rig.sim.paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let held = path.with_extension("held");
    rig.sim.with(|world| world.shut.insert(path.clone()));
    let error = rig.open().unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    let (mut spool, recovery) =
        Spool::open_without_unreadable(rig.config.clone(), rig.sim.storage()).unwrap();
    assert_eq!(recovery.records, 2);
    assert!(recovery.lines().iter().any(|line| line.contains("set aside")), "{recovery:?}");
    let stored = drain(&mut spool);
    spool.advance(stored[1].position);
    spool.close().unwrap();
    // The cursor is past it by now, and yet it is read when it can be.
    assert!(rig.sim.paths().contains(&held));
    assert_eq!(rig.open().unwrap().records, 3);
    assert_eq!(seqs(&drain(rig.spool())), [2, 3, 4]);
}

#[test]
fn opening_says_what_is_wrong_and_what_to_do() {
    let rig = Rig::new(config(INTERVAL));
    let error = Spool::open(config(INTERVAL), rig.sim.storage()).unwrap_err().to_string();
    assert!(error.contains("/spool/sink/lock") && error.contains("in use by"), "{error}");
    let fresh = super::sim::Sim::new();
    fresh.with(|world| world.read_only = true);
    let error = Spool::open(config(INTERVAL), fresh.storage()).unwrap_err().to_string();
    assert!(error.contains("/spool/sink") && error.contains("mount it read-write"), "{error}");
    let mut wrong = config(Fsync::Interval(Duration::ZERO));
    let error = Spool::open(wrong.clone(), fresh.storage()).unwrap_err().to_string();
    assert!(error.contains("fsync-interval-ms"), "{error}");
    wrong = config(INTERVAL);
    wrong.max_bytes = SEGMENT - 1;
    let error = Spool::open(wrong.clone(), fresh.storage()).unwrap_err().to_string();
    assert!(error.contains("max-bytes"), "{error}");
    wrong.segment_bytes = 100;
    let error = Spool::open(wrong, fresh.storage()).unwrap_err().to_string();
    assert!(error.contains("segment-bytes"), "{error}");
}
