// SPDX-License-Identifier: MIT
//! A FreeSWITCH module that forwards the events of a switch to Kafka, RabbitMQ and files.
//!
//! # What it guarantees
//!
//! * **No call waits for it.** The event callback selects, copies the event once into pooled
//!   memory and pushes it into a bounded ring: no lock that a slower thread holds, no system call,
//!   no allocation while the pool has records, no log line, and nobody is woken.
//! * **Nothing is lost silently.** Each event that the core hands to a sink ends in exactly one
//!   counter of [`queue::Account`], and what a sink had no room for is told in its stream by a gap
//!   record. *Delivered* means acknowledged by the broker, or written, for a file.
//! * **Order.** A sink's stream keeps the order in which its events were taken, through retries
//!   and reconnects; [`codec::Outgoing::partition_key`] keeps a call in one Kafka partition.
//! * **At least once.** A message may come again after a connection broke. It carries the same id
//!   then, and its number in the stream, so that a consumer can tell.
//! * **The switch goes on.** No panic crosses into C. Loading never waits for a broker, and
//!   unloading keeps its deadline.
//!
//! # Threads
//!
//! * FreeSWITCH's dispatch threads run the event callback, several at once.
//! * FreeSWITCH's session and console threads run the API commands and the dialplan application.
//! * `rb-<sink>`, one for each sink, takes from the ring, keeps the spool, encodes, sends and takes
//!   the acknowledgements.
//! * `ro-<sink>` lives while a sink connects, so that the publisher goes on taking events in.
//! * `rs-<sink>` forces the sink's spool onto the disk, where that is done on a timer.
//! * `rb-interfaces` looks, for a moment after load, whether the core registered our commands.
//! * `rb-:live-calls` keeps the table of live calls; `rb-orphans` tells the calls that a crash of the
//!   switch has ended, and lives until every sink has them.
//! * librdkafka has threads of its own; what they report is read on `rb-<sink>`.
//!
//! All of ours are started in `pipeline::thread`, named, and joined before the module is gone.
//!
//! # Lifecycle
//!
//! *Load* tests the layout of the core's structs, reads the configuration, offers the commands,
//! starts the publishers and binds to the events last; a step that fails undoes those before it.
//! *Reload* builds what has changed first, and swaps only when all of it could be built.
//! *Shutdown* has one deadline: it unbinds, refuses new events, waits for commands in progress, lets
//! the publishers deliver or spool what they have, joins them, and logs the final account.
//!
//! # Layers
//!
//! A layer imports those above it that its row names, and nothing else of this crate.
//! `tests/layering.rs` reads this table and holds the sources to it.
//!
//! | layer | imports | `unsafe` | what it is |
//! | --- | --- | --- | --- |
//! | `ffi` | – | yes | FreeSWITCH's C interface, generated |
//! | `memory` | – | no | how a thread of ours waits for memory |
//! | `event` | – | no | an event, owned and inert; which ones a sink wants |
//! | `switch` | `ffi`, `memory`, `event` | yes | what FreeSWITCH lets us do, safely |
//! | `config` | `event` | no | from the text of a configuration to settings that are valid |
//! | `queue` | `event` | no | what dispatch threads and a publisher share |
//! | `spool` | – | no | records on disk |
//! | `codec` | `event`, `config` | no | from an event to what a broker stores |
//! | `lines` | `codec` | no | files of checked lines, for people and for us |
//! | `dead` | `event`, `codec`, `lines` | no | messages that a broker rejects, kept |
//! | `sink` | `event`, `config`, `codec` | no | where messages go |
//! | `calls` | `event`, `codec`, `lines`, `sink` | no | the live calls, for those that a crash ended |
//! | `pipeline` | `memory`, `event`, `config`, `queue`, `spool`, `codec`, `dead`, `sink` | no | one sink's publisher |
//! | `module` | all above but `ffi` | no | the owner of everything |
//! | `abi` | `ffi`, `switch`, `module` | yes | the one exported symbol |
//!
//! `ffi`, `switch`, `module` and `abi` are there with the feature `switch`; everything else builds
//! and tests where no FreeSWITCH is.
#![cfg_attr(not(feature = "switch"), forbid(unsafe_code))]

#[cfg(panic = "abort")]
compile_error!("a panic must never end the switch: build with panic = \"unwind\"");

#[cfg(feature = "switch")]
mod ffi;

pub mod calls;
pub mod codec;
pub mod config;
pub mod dead;
pub mod event;
pub mod lines;
pub mod memory;
pub mod pipeline;
pub mod queue;
pub mod sink;
pub mod spool;
#[cfg(feature = "switch")]
pub mod switch;

#[cfg(feature = "switch")]
#[global_allocator]
static ALLOCATOR: switch::memory::Patient = switch::memory::Patient;

#[cfg(feature = "switch")]
mod abi;
#[cfg(feature = "switch")]
mod module;
