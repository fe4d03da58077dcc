// SPDX-License-Identifier: MIT
//! The module as users ship it: FreeSWITCH in a container, real brokers and clients in others, one network between them.
//!
//! `make docker-test` builds the images and runs this; on its own it skips, and says so. What is asked here is what only
//! containers make honest: the image, brokers that are killed, paused or cut off, SIGTERM and SIGKILL of the switch, volumes
//! that outlive it, bounded memory and disk, two nodes. What the module does with an event is tested elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test that cannot go on stops with a panic that says why, and its account is printed"
)]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod calls;
mod clocks;
mod commands;
mod engine;
mod example;
mod faults;
mod gate;
mod ground;
mod image;
mod limits;
mod node;
mod refusals;
mod restarts;
mod shell;
mod stories;
