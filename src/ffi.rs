// SPDX-License-Identifier: MIT
//! C interfaces: FreeSWITCH's, generated, and of librdkafka's what its wrapper has no cheap way to.

#[cfg(feature = "switch")]
mod freeswitch;
#[cfg(feature = "kafka")]
pub(crate) mod librdkafka;

#[cfg(feature = "switch")]
pub(crate) use freeswitch::*;
