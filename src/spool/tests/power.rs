// SPDX-License-Identifier: MIT
//! A power cut at any moment leaves everything that was durable, whatever else it takes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{Op, op, run};
use super::rig::{INTERVAL, Rig, cases, config};
use crate::spool::Fsync;

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
}
