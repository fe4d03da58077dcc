// SPDX-License-Identifier: MIT
//! A power cut at any moment leaves everything that was durable, whatever else it takes.

use proptest::collection::vec;
use proptest::prelude::*;

use rustix::io::Errno;

use super::model::{Op, op, op_in_trouble, run};
use super::rig::{INTERVAL, Rig, cases, config};
use super::sim::Fault;
use crate::spool::Fsync;

/// What the disk does at the end, or nothing.
fn trouble() -> impl Strategy<Value = Option<Op>> {
    let troubles = [None, Some(Op::ReadOnly(true)), Some(Op::Silent(true))];
    prop::sample::select(troubles.to_vec())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn what_is_durable_survives_any_power_loss(
        always in any::<bool>(),
        background in prop::option::of(0u32..4),
        ops in vec(op(), 1..30),
        seed in any::<u64>(),
        again in vec(op(), 0..10),
    ) {
        let mut rig = Rig::new(config(if always { Fsync::Always } else { INTERVAL }));
        rig.sim.with(|world| world.background = background);
        for op in ops {
            run(&mut rig, op);
        }
        run(&mut rig, Op::PowerLoss(seed));
        for op in again {
            run(&mut rig, op);
        }
        run(&mut rig, Op::PowerLoss(!seed));
    }

    /// What the rig holds against each power cut: `durable_seq` and `undurable_records` of just before it.
    #[test]
    fn what_is_said_to_be_durable_is_there_after_a_power_loss_in_the_middle_of_trouble(
        always in any::<bool>(),
        background in prop::option::of(0u32..4),
        ops in vec(op_in_trouble(), 1..30),
        trouble in trouble(),
        last in vec(op(), 0..6),
        seed in any::<u64>(),
    ) {
        let mut rig = Rig::new(config(if always { Fsync::Always } else { INTERVAL }));
        rig.sim.with(|world| world.background = background);
        let calls = ops.into_iter().chain(trouble);
        calls.chain(last).for_each(|op| run(&mut rig, op));
        run(&mut rig, Op::PowerLoss(seed));
    }
}

/// What is said of the loss window now.
fn window(rig: &mut Rig) -> (Option<u64>, u64) {
    let stats = rig.spool().stats();
    (stats.durable_seq, stats.undurable_records)
}

#[test]
fn the_loss_window_is_what_a_power_loss_takes_at_the_worst_and_no_more() {
    let mut rig = Rig::new(config(Fsync::Always));
    assert_eq!(window(&mut rig), (None, 0));
    rig.append(&[(1, 100); 3]);
    assert_eq!(window(&mut rig), (Some(4), 0));
    rig.lose_power_and_reopen(|| 0);
    assert_eq!(rig.model.len(), 3);

    for background in [None, Some(1)] {
        let mut rig = Rig::new(config(INTERVAL));
        rig.sim.with(|world| world.background = background);
        rig.append(&[(1, 100); 3]);
        assert_eq!(window(&mut rig), (None, 3));
        rig.commit(200);
        // On another thread it is not over yet, and covers none of what comes now.
        assert_eq!(window(&mut rig), if background.is_none() { (Some(4), 0) } else { (None, 3) });
        rig.append(&[(1, 100); 2]);
        rig.commit(1);
        rig.commit(1);
        assert_eq!(window(&mut rig), (Some(4), 2));
        rig.lose_power_and_reopen(|| 0);
        assert_eq!(rig.model.len(), 3);
    }
}

#[test]
fn neither_a_failed_sync_nor_a_deleted_folder_leaves_a_number_as_durable_that_is_not() {
    for heals in [false, true] {
        let mut rig = Rig::new(config(INTERVAL));
        rig.append(&[(1, 100); 3]);
        rig.commit(200);
        rig.append(&[(1, 100); 2]);
        rig.sim.with(|world| world.failing = Some((0, u64::MAX, Fault::Errno(Errno::IO))));
        assert!(!rig.commit(200));
        assert_eq!(window(&mut rig), (Some(4), 2));
        rig.sim.with(|world| world.failing = None);
        rig.heal();
        assert_eq!(window(&mut rig), (Some(6), 0), "they are written anew");
        rig.read(3);
        rig.ack(3);
        rig.append(&[(1, 100)]);
        rig.commit(200);
        assert_eq!(window(&mut rig), (Some(7), 0));
        // What the open file has is in memory alone as long as there can be no folder.
        rig.sim.clear();
        rig.sim.with(|world| world.read_only = true);
        rig.tend(2000);
        rig.tend(2000);
        assert_eq!(window(&mut rig), (None, 3));
        if heals {
            rig.heal_from(|world| world.read_only = false);
            assert_eq!(window(&mut rig), (Some(7), 0));
        }
        rig.sim.with(|world| world.read_only = false);
        rig.lose_power_and_reopen(|| 0);
        assert_eq!(rig.model.len(), if heals { 3 } else { 0 });
    }
}
