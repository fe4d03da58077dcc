// SPDX-License-Identifier: MIT
//! While the disk is in trouble: what it holds is delivered all the same, and nothing is given up for it.

use rustix::io::Errno;

use super::faults::silent;
use super::rig::{INTERVAL, Rec, Rig, SEGMENT, config};
use super::sim::Fault;
use crate::spool::{Damage, DamageKind, Fsync, Heal, SpoolState};

/// A spool with five durable records and five that a failed sync has left in memory, on a disk that is read-only now.
fn broken() -> Rig {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 5]);
    rig.commit(200);
    rig.append(&[(1, 100); 5]);
    rig.sim.with(|world| world.read_only = true);
    assert!(!rig.commit(200));
    assert_eq!(rig.spool().stats().undurable_records, 5);
    rig
}

#[test]
fn what_a_broken_disk_does_not_make_durable_is_read_from_memory_and_written_anew_only_if_unacknowledged()
 {
    let mut rig = broken();
    rig.read(3);
    rig.ack(3);
    rig.read(20);
    assert_eq!(rig.flight.len(), 7, "behind the durable ones come the others");
    rig.ack(4);
    assert_eq!(rig.spool().stats().undurable_records, 3, "two of them are delivered");
    rig.check();
    rig.read(2);
    rig.sim.with(|world| world.read_only = false);
    rig.heal();
    assert_eq!(rig.append(&[(1, 100)]), 1);
    rig.commit(200);
    // What was in flight has another place by now, which does not matter to whoever acknowledges it.
    rig.read(20);
    assert_eq!(rig.flight.len(), 4);
    rig.ack(1);
    rig.check();
    rig.read(20);
    rig.ack(1);
    rig.commit(200);
    rig.crash_and_reopen();
    assert_eq!(rig.model.len(), 2, "nothing delivered is there again");
}

#[test]
fn a_failed_sync_makes_nothing_that_waits_older_or_younger() {
    let mut rig = Rig::new(config(INTERVAL));
    let start = rig.sim.with(|world| world.unix_ms);
    for step in 0..4 {
        rig.sim.with(|world| world.unix_ms = start + step * 5000);
        rig.append(&[(1, 100)]);
        if step == 0 {
            rig.commit(200);
        }
    }
    rig.sim.with(|world| world.read_only = true);
    assert!(!rig.commit(200));
    let oldest = |rig: &mut Rig| rig.spool().stats().oldest_appended_unix_ms;
    for step in 0..3 {
        // The first is on disk, the others are in memory.
        assert_eq!(oldest(&mut rig), Some(start + step * 5000));
        rig.read(1);
        rig.ack(1);
    }
    rig.sim.with(|world| world.unix_ms = start + 60_000);
    rig.heal_from(|world| world.read_only = false);
    assert_eq!(oldest(&mut rig), Some(start + 15_000), "written anew it is no younger");
    rig.append(&[(1, 100)]);
    rig.commit(200);
    rig.crash_and_reopen();
    assert_eq!(oldest(&mut rig), Some(start + 15_000));
    rig.read(1);
    rig.ack(1);
    assert_eq!(oldest(&mut rig), Some(start + 60_000));
    rig.read(1);
    rig.ack(1);
    assert_eq!(oldest(&mut rig), None);
}

#[test]
fn what_is_saved_from_a_deleted_folder_is_as_old_as_before() {
    let mut rig = Rig::new(config(INTERVAL));
    let start = rig.sim.with(|world| world.unix_ms);
    for step in 0..3 {
        rig.sim.with(|world| world.unix_ms = start + step * 5000);
        rig.append(&[(1, 100)]);
        rig.commit(200);
    }
    let oldest = |rig: &mut Rig| rig.spool().stats().oldest_appended_unix_ms;
    rig.read(1);
    rig.ack(1);
    rig.sim.clear();
    rig.sim.with(|world| world.read_only = true);
    rig.tend(2000);
    rig.tend(2000);
    assert_eq!(oldest(&mut rig), Some(start + 5000), "in memory");
    rig.sim.with(|world| world.unix_ms = start + 60_000);
    rig.heal_from(|world| world.read_only = false);
    assert_eq!(oldest(&mut rig), Some(start + 5000), "written anew");
    rig.crash_and_reopen();
    assert_eq!(oldest(&mut rig), Some(start + 5000));
}

#[test]
fn a_broken_disk_leaves_the_spool_empty_when_all_is_delivered() {
    let mut rig = broken();
    rig.read(20);
    rig.ack(9);
    assert!(!rig.spool().is_empty());
    rig.ack(1);
    assert!(rig.spool().is_empty());
    rig.check();
    rig.heal_from(|world| world.read_only = false);
    assert!(rig.spool().is_empty());
    assert_eq!(rig.append(&[(1, 100); 2]), 2);
    rig.commit(200);
    rig.check();
    rig.lose_power_and_reopen(|| 0);
    assert_eq!(rig.model.len(), 2);
}

#[test]
fn what_a_silent_disk_has_not_answered_for_is_delivered_and_no_cursor_goes_ahead_of_it() {
    for fails in [false, true] {
        let mut rig = silent(true);
        let all = rig.model.len();
        // Two of them are durable.
        for _ in 0..5 {
            rig.read(2);
        }
        rig.ack(7);
        for _ in 0..all {
            rig.read(2);
        }
        assert_eq!(rig.flight.len(), rig.model.len());
        rig.rewind();
        rig.read(2);
        rig.read(2);
        rig.sim.with(|world| {
            world.silent = false;
            let next = world.calls + 1;
            world.failing = fails.then_some((next, next + 1, Fault::Errno(Errno::IO)));
        });
        rig.tend(0);
        rig.sim.with(|world| world.failing = None);
        assert_eq!(rig.spool().stats().state, SpoolState::Ok);
        rig.ack(2);
        rig.commit(200);
        let waits = rig.model.len();
        rig.lose_power_and_reopen(|| 0);
        assert!(rig.model.len() >= waits);
        let mut rig = silent(true);
        for _ in 0..all {
            rig.read(2);
        }
        rig.ack(5);
        rig.tend(20_000);
        // The cursor is not ahead of what the disk has, or it would count for nothing.
        rig.spool = None;
        rig.sim.lose_power(|| 0);
        assert_eq!(rig.open().unwrap().cursor_lost, None);
    }
}

#[test]
fn a_deleted_folder_costs_nothing_of_the_open_file_whatever_is_in_flight() {
    for fsync in [INTERVAL, Fsync::Never] {
        let mut rig = Rig::new(config(fsync));
        rig.append(&[(1, 100); 7]);
        rig.commit(2000);
        rig.append(&[(1, 100); 2]);
        rig.read(5);
        rig.ack(2);
        rig.sim.clear();
        rig.tend(2000);
        rig.heal();
        assert_eq!(rig.spool().take_damage(), [], "{fsync:?}");
        rig.ack(2);
        assert_eq!(rig.append(&[(1, 100); 2]), 2);
        rig.commit(2000);
        rig.read(3);
        rig.check();
        rig.crash_and_reopen();
        assert_eq!(rig.model.len(), 7, "{fsync:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_again_leaves_what_is_in_memory_to_be_read() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 7]);
    rig.commit(2000);
    rig.append(&[(1, 100); 2]);
    rig.commit(200);
    rig.sim.clear();
    rig.sim.with(|world| world.read_only = true);
    rig.tend(2000);
    rig.tend(2000);
    assert!(rig.spool().is_suspended());
    rig.check();
    rig.read(20);
    rig.ack(9);
    assert!(rig.spool().is_empty());
    rig.heal_from(|world| world.read_only = false);
    assert_eq!(rig.append(&[(1, 100); 2]), 2);
    rig.check();
    rig.close_and_reopen();
}

#[test]
fn nothing_is_given_up_to_a_disk_that_is_broken_and_room_is_used_at_once() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 5000); 30]);
    rig.commit(200);
    rig.spool().close_active_for_test();
    rig.sim.with(|world| world.read_only = true);
    let rec = Rec::new(0, 1, 6000);
    let label = |_: &[u8]| 0;
    for _ in 0..2 {
        let error = rig.spool().append(&[rec.entry()]).error.unwrap();
        assert_eq!(rig.spool().room_wanted(&error), None, "{error}");
        assert!(rig.spool().drop_oldest(1, 0, &label, &mut |_, _, _| panic!("dropped")).is_err());
    }
    rig.heal_from(|world| world.read_only = false);
    // A full disk is something else.
    rig.spool().close_active_for_test();
    rig.sim.with(|world| world.room = Some(4 * SEGMENT));
    let error = rig.spool().append(&vec![rec.entry(); 20]).error.unwrap();
    assert!(error.is_full(), "{error}");
    rig.model.clear();
    rig.flight.clear();
    let now = rig.now;
    assert!(matches!(rig.spool().try_heal(now), Heal::NotYet(_)));
    let error = rig.spool().append(&[rec.entry()]).error.unwrap();
    assert_eq!(
        rig.spool().room_wanted(&error),
        Some(SEGMENT),
        "suspended, for want of room: {error}"
    );
    let mut dropped = 0;
    rig.spool().drop_oldest(SEGMENT, 0, &label, &mut |_, _, _| dropped += 1).unwrap();
    assert!(dropped > 0);
    assert_eq!(rig.spool().try_heal(now), Heal::Healed, "before it would have been time");
    assert_eq!(rig.spool().append(&[rec.entry()]).accepted, 1);
}

#[test]
fn nothing_is_given_up_where_that_cannot_help() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 5000); 30]);
    rig.spool().close_active_for_test();
    rig.spool().config.min_free_bytes = 100 * SEGMENT;
    rig.sim.with(|world| world.free = 100 * SEGMENT);
    let rec = Rec::new(0, 1, 6000);
    let error = rig.spool().append(&[rec.entry()]).error.unwrap();
    assert_eq!(rig.spool().room_wanted(&error), Some(SEGMENT), "{error}");
    rig.sim.with(|world| world.free = 10 * SEGMENT);
    let error = rig.spool().append(&[rec.entry()]).error.unwrap();
    assert_eq!(rig.spool().room_wanted(&error), None, "others have the disk: {error}");
    let large = Rec::new(0, 1, 600_000);
    let error = rig.spool().append(&[large.entry()]).error.unwrap();
    assert_eq!(rig.spool().room_wanted(&error), None, "{error}");
}

#[test]
fn what_is_put_ahead_of_records_written_anew_is_not_void_with_those_they_stand_in_for() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(0, 10)]);
    rig.sim.with(|world| world.read_only = true);
    // The first attempt to write it anew fails, and its number is not used again.
    rig.tend(0);
    rig.heal_from(|world| world.read_only = false);
    rig.close_and_reopen();
    assert!(rig.prepend(&[(0, 20)]));
    rig.close_and_reopen();
    assert_eq!(rig.model.len(), 2);
}

#[test]
fn damage_between_two_streams_is_no_more_than_there_was_room_for() {
    let mut damage = Damage {
        kind: DamageKind::Corrupt,
        segment: 1,
        offset: 64,
        bytes: 100,
        from_seq: Some(5),
        to_seq: Some(6),
        records: None,
    };
    assert_eq!(damage.estimate(), 2);
    damage.to_seq = Some(90_000);
    assert_eq!(damage.estimate(), 3);
    damage.to_seq = Some(4);
    assert_eq!(damage.estimate(), 0);
    damage.records = Some(7);
    assert_eq!(damage.estimate(), 7);
}

#[test]
fn a_file_that_would_not_go_goes_when_it_can_and_is_not_delivered_again() {
    let mut rig = Rig::new(config(Fsync::Always));
    rig.append(&[(0, 10)]);
    rig.read(1);
    rig.ack(1);
    rig.tend(0);
    rig.sim.with(|world| world.read_only = true);
    assert_eq!(rig.append(&[(0, 10)]), 0);
    rig.tend(0);
    rig.tend(0);
    let disk = rig.spool().stats().disk_bytes;
    assert_eq!(disk, SEGMENT, "it is there, whatever is in it");
    rig.heal_from(|world| world.read_only = false);
    let recovery = rig.close_and_reopen();
    assert_eq!((recovery.records, recovery.cursor_lost), (0, None));
}
