// SPDX-License-Identifier: MIT
//! FreeSWITCH's C interface as bindgen sees it. Only `switch` and `abi` look in here.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    dead_code,
    improper_ctypes,
    improper_ctypes_definitions,
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::borrow_as_ptr,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::missing_safety_doc,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated code keeps C's names and habits"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
