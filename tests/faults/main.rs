// SPDX-License-Identifier: MIT
//! What becomes of events when something breaks: the fault matrix.
//!
//! Each row runs against a real RabbitMQ and a real Kafka where it applies to both, in the host and some of them in a real
//! FreeSWITCH too, with events that carry their own number and hash. What arrived is read by clients that are not ours, and the account must be exact:
//! what was generated is what was received once, plus what the module has counted as dropped, and every hole in the
//! numbers of a stream is told by a gap record. `SOAK=1` runs the rows at their large size and prints a table.

#![cfg(all(feature = "switch", feature = "amqp", feature = "kafka"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on stops with a panic that says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod broker;
mod consumers;
mod crash;
mod dead_letters;
mod outage;
mod spool;
mod stream;

/// The rows, once for each broker they apply to.
macro_rules! rows {
    ($($broker:ident: $($row:ident = $run:path),+;)+) => {
        $(mod $broker {
            $(#[test]
            fn $row() {
                super::bench::Row::run(concat!(stringify!($broker), "::", stringify!($row)), stringify!($broker), $run);
            })+
        })+
    };
}

rows! {
    kafka:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_again_and_again,
        f02_events_of_an_outage_wait_on_disk_and_arrive = crate::outage::away_with_spool,
        f03_without_a_spool_what_is_dropped_is_counted_and_told = crate::outage::away_without_spool,
        f04_a_broker_that_answers_nothing_costs_nothing = crate::outage::silent,
        f08_what_the_broker_rejects_becomes_a_dead_letter = crate::dead_letters::too_large,
        f10_what_is_durable_outlives_kills_of_the_switch = crate::crash::switch_killed,
        f13_a_spool_without_a_folder_costs_nothing_and_comes_back = crate::spool::no_folder,
        f13_a_spool_deleted_while_it_is_used_is_accounted_for = crate::spool::deleted,
        f15_an_unload_with_the_broker_dead_keeps_everything = crate::spool::unloaded;
    rabbitmq:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_again_and_again,
        f02_events_of_an_outage_wait_on_disk_and_arrive = crate::outage::away_with_spool,
        f03_without_a_spool_what_is_dropped_is_counted_and_told = crate::outage::away_without_spool,
        f04_a_network_that_swallows_everything_costs_nothing = crate::outage::silent,
        f07_a_broker_that_asks_for_a_pause_costs_nothing = crate::outage::alarm,
        f08_an_exchange_deleted_in_the_middle_costs_nothing = crate::dead_letters::exchange_deleted,
        f08_what_no_queue_takes_becomes_a_dead_letter = crate::dead_letters::unroutable,
        f10_what_is_durable_outlives_kills_of_the_switch = crate::crash::switch_killed,
        f13_a_spool_without_a_folder_costs_nothing_and_comes_back = crate::spool::no_folder,
        f13_a_spool_deleted_while_it_is_used_is_accounted_for = crate::spool::deleted,
        f15_an_unload_with_the_broker_dead_keeps_everything = crate::spool::unloaded;
    kafka_in_freeswitch:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_in_freeswitch,
        f10_what_is_durable_outlives_kills_of_the_switch_and_its_calls_are_told = crate::crash::killed_with_calls;
    rabbitmq_in_freeswitch:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_in_freeswitch,
        f10_what_is_durable_outlives_kills_of_the_switch_and_its_calls_are_told = crate::crash::killed_with_calls;
}
