// SPDX-License-Identifier: MIT
//! Any sequence of calls does what a plain queue would.

use proptest::collection::vec;
use proptest::prelude::*;

use super::rig::{INTERVAL, Rig, cases, config};
use crate::spool::Fsync;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Append(Vec<(u8, u16)>),
    Prepend(Vec<(u8, u16)>),
    Commit(u64),
    Read(usize),
    Ack(usize),
    Rewind,
    DropOldest(u64, u8),
    /// From now on the disk answers no sync on another thread, or answers again.
    Silent(bool),
    /// From now on nothing on disk can be changed, or can again.
    ReadOnly(bool),
    Reopen,
    Crash,
    PowerLoss(u64),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let shapes = || vec((0u8..3, prop_oneof![0u16..40, 200u16..9000]), 1..12);
    prop_oneof![
        8 => shapes().prop_map(Op::Append),
        1 => shapes().prop_map(Op::Prepend),
        4 => (0u64..150).prop_map(Op::Commit),
        5 => (1usize..20).prop_map(Op::Read),
        4 => (1usize..20).prop_map(Op::Ack),
        1 => Just(Op::Rewind),
        1 => (1u64..200_000, 0u8..3).prop_map(|(bytes, keep)| Op::DropOldest(bytes, keep)),
        1 => any::<bool>().prop_map(Op::Silent),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

/// With a disk that is read-only at times.
pub(super) fn op_in_trouble() -> impl Strategy<Value = Op> {
    prop_oneof![9 => op(), 1 => any::<bool>().prop_map(Op::ReadOnly)]
}

pub(super) fn policy() -> impl Strategy<Value = Fsync> {
    prop_oneof![Just(Fsync::Always), Just(INTERVAL), Just(Fsync::Never)]
}

pub(super) fn run(rig: &mut Rig, op: Op) {
    if matches!(op, Op::Reopen | Op::Crash | Op::PowerLoss(_)) {
        // Nothing opens on such a disk.
        rig.sim.with(|world| world.read_only = false);
    }
    match op {
        Op::Append(shapes) => {
            rig.append(&shapes);
        }
        Op::Prepend(shapes) => {
            rig.prepend(&shapes);
        }
        Op::Commit(ms) => rig.tend(ms),
        Op::Read(n) => rig.read(n),
        Op::Ack(n) => rig.ack(n),
        Op::Rewind => rig.rewind(),
        // Where no file can be removed, what is given up comes back with the next start.
        Op::DropOldest(..) if rig.sim.with(|world| world.read_only) => {}
        Op::DropOldest(bytes, keep) => rig.drop_oldest(bytes, keep),
        Op::Silent(silent) => rig.sim.with(|world| world.silent = silent),
        Op::ReadOnly(read_only) => rig.sim.with(|world| world.read_only = read_only),
        Op::Reopen => {
            rig.close_and_reopen();
        }
        Op::Crash => rig.crash_and_reopen(),
        Op::PowerLoss(seed) => {
            let mut state = seed | 1;
            rig.lose_power_and_reopen(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            });
        }
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn any_sequence_of_calls_and_crashes_does_what_a_queue_would(
        policy in policy(),
        background in prop::option::of(0u32..4),
        ops in vec(op().prop_filter("no power loss", |op| !matches!(op, Op::PowerLoss(_))), 1..60),
    ) {
        let mut rig = Rig::new(config(policy));
        rig.sim.with(|world| {
            world.tracking = false;
            world.background = background;
        });
        for op in ops {
            run(&mut rig, op);
        }
        rig.check();
        rig.sim.with(|world| world.silent = false);
        rig.heal();
        rig.check();
        rig.close_and_reopen();
    }

    #[test]
    fn a_disk_that_is_read_only_at_times_delivers_what_it_holds_and_loses_nothing(
        always in any::<bool>(),
        background in prop::option::of(0u32..4),
        ops in vec(op_in_trouble(), 1..80),
    ) {
        let mut rig = Rig::new(config(if always { Fsync::Always } else { INTERVAL }));
        rig.sim.with(|world| world.background = background);
        for op in ops {
            run(&mut rig, op);
        }
        rig.check();
        rig.sim.with(|world| {
            world.silent = false;
            world.read_only = false;
        });
        rig.heal();
        rig.check();
        rig.close_and_reopen();
    }
}
