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
mod crash_draining;
mod dead_letters;
mod folder;
mod leaders;
mod mixture;
mod network;
mod outage;
mod rights;
mod strain;
mod stream;
mod unload;

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
        f04_a_network_that_swallows_everything_costs_nothing = crate::network::swallowed,
        f05_a_slow_line_and_a_broker_that_stops_for_a_while_cost_nothing = crate::network::slow,
        f06_a_line_that_breaks_and_changes_bytes_costs_nothing = crate::network::unsound,
        f06_packets_that_are_lost_overtaken_and_changed_cost_nothing = crate::network::rough,
        f08_what_the_broker_rejects_becomes_a_dead_letter = crate::dead_letters::too_large,
        f09_leaders_that_move_and_a_slow_line_to_them_cost_nothing = crate::leaders::move_about,
        f10_what_is_durable_outlives_kills_of_the_switch = crate::crash::switch_killed,
        f10_what_a_kill_takes_from_memory_in_front_of_the_spool_is_told = crate::crash::killed_in_front_of_the_spool,
        f10_a_switch_killed_while_its_backlog_drains_repeats_little = crate::crash_draining::killed,
        f13_a_spool_without_a_folder_costs_nothing_and_comes_back = crate::folder::no_folder,
        f13_a_spool_of_another_owner_costs_nothing_and_comes_back = crate::folder::of_another,
        f13_a_spool_deleted_while_it_is_used_costs_nothing = crate::folder::deleted,
        f13_a_spool_that_another_has_costs_nothing_and_comes_back = crate::folder::locked,
        f13_a_spool_on_a_disk_that_is_read_only_costs_nothing_and_comes_back = crate::folder::read_only,
        f13_a_spool_on_a_full_disk_costs_what_is_counted_and_goes_on = crate::folder::full,
        f15_an_unload_with_the_broker_dead_keeps_everything = crate::unload::unloaded,
        f15_an_unload_without_a_folder_tells_what_it_cost = crate::unload::unloaded_without_folder,
        f15_loads_and_unloads_under_events_leave_nothing_behind = crate::unload::over_and_over,
        f16_certificates_that_are_wrong_are_told_and_cost_nothing = crate::network::certificates,
        f20_hostile_events_become_sound_json_or_are_counted = crate::strain::hostile,
        f21_a_clock_that_jumps_costs_nothing = crate::strain::clock_jumps,
        f22_a_machine_without_time_costs_nothing = crate::strain::starved,
        f23_without_memory_what_is_not_copied_is_counted_and_the_switch_goes_on = crate::strain::without_memory,
        f24_faults_in_any_order_cost_nothing = crate::mixture::faults_in_any_order;
    rabbitmq:
        f23_without_memory_what_is_not_copied_is_counted_and_the_switch_goes_on = crate::strain::without_memory,
        f23_a_publisher_without_memory_waits_for_it = crate::strain::scarce_memory,
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_again_and_again,
        f01_the_first_broker_is_returned_to_while_events_flow = crate::outage::first_returned_to,
        f02_events_of_an_outage_wait_on_disk_and_arrive = crate::outage::away_with_spool,
        f03_without_a_spool_what_is_dropped_is_counted_and_told = crate::outage::away_without_spool,
        f04_a_network_that_swallows_everything_costs_nothing = crate::outage::silent,
        f05_a_slow_line_and_a_broker_that_stops_for_a_while_cost_nothing = crate::network::slow,
        f05_a_far_broker_is_sent_what_the_way_to_it_holds = crate::network::far,
        f06_a_line_that_breaks_and_changes_bytes_costs_nothing = crate::network::unsound,
        f06_packets_that_are_lost_overtaken_and_changed_cost_nothing = crate::network::rough,
        f07_a_broker_that_asks_for_a_pause_costs_nothing = crate::outage::alarm,
        f08_an_exchange_deleted_in_the_middle_costs_nothing = crate::dead_letters::exchange_deleted,
        f08_what_no_queue_takes_becomes_a_dead_letter = crate::dead_letters::unroutable,
        f08_what_a_full_queue_refuses_becomes_a_dead_letter = crate::dead_letters::refused_by_a_full_queue,
        f08_rights_that_are_taken_and_given_back_cost_nothing = crate::rights::revoked,
        f10_what_is_durable_outlives_kills_of_the_switch = crate::crash::switch_killed,
        f10_what_a_kill_takes_from_memory_in_front_of_the_spool_is_told = crate::crash::killed_in_front_of_the_spool,
        f10_a_switch_killed_while_its_backlog_drains_repeats_little = crate::crash_draining::killed,
        f13_a_spool_without_a_folder_costs_nothing_and_comes_back = crate::folder::no_folder,
        f13_a_spool_of_another_owner_costs_nothing_and_comes_back = crate::folder::of_another,
        f13_a_spool_deleted_while_it_is_used_costs_nothing = crate::folder::deleted,
        f13_a_spool_that_another_has_costs_nothing_and_comes_back = crate::folder::locked,
        f13_a_spool_on_a_disk_that_is_read_only_costs_nothing_and_comes_back = crate::folder::read_only,
        f13_a_spool_on_a_full_disk_costs_what_is_counted_and_goes_on = crate::folder::full,
        f15_an_unload_with_the_broker_dead_keeps_everything = crate::unload::unloaded,
        f15_an_unload_without_a_folder_tells_what_it_cost = crate::unload::unloaded_without_folder,
        f15_loads_and_unloads_under_events_leave_nothing_behind = crate::unload::over_and_over,
        f16_certificates_that_are_wrong_are_told_and_cost_nothing = crate::network::certificates,
        f20_hostile_events_become_sound_json_or_are_counted = crate::strain::hostile,
        f21_a_clock_that_jumps_costs_nothing = crate::strain::clock_jumps,
        f22_a_machine_without_time_costs_nothing = crate::strain::starved,
        f24_faults_in_any_order_cost_nothing = crate::mixture::faults_in_any_order;
    kafka_in_freeswitch:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_in_freeswitch,
        f10_what_is_durable_outlives_kills_of_the_switch_and_its_calls_are_told = crate::crash::killed_with_calls;
    rabbitmq_in_freeswitch:
        f01_a_broker_killed_again_and_again_costs_nothing = crate::outage::killed_in_freeswitch,
        f10_what_is_durable_outlives_kills_of_the_switch_and_its_calls_are_told = crate::crash::killed_with_calls;
}
