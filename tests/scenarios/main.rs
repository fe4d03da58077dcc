// SPDX-License-Identifier: MIT
//! The built library at work: loaded through its exported symbol into the host, and with the same code into every real
//! FreeSWITCH that is installed, with a file, a real RabbitMQ and a real Apache Kafka behind it at once. What arrived is
//! read by clients that are not ours.

#![cfg(feature = "switch")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::format_collect,
    reason = "a test that cannot go on stops with a panic that says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod bindings;
mod calls;
mod hostile;
mod hot_path;
mod lifecycle;
mod outage;
mod peers;
mod playback;
mod stage;
mod surfaces;
