// SPDX-License-Identifier: MIT
//! The one exported symbol.

#![allow(unsafe_code, reason = "an exported symbol is a promise that the compiler cannot check")]

use crate::ffi;
use crate::module::Bridge;
use crate::switch::{load_shim, shutdown_shim};

/// What FreeSWITCH's loader looks for: `<file name>_module_interface`, with the API version that
/// the headers had.
#[unsafe(no_mangle)]
#[allow(
    non_upper_case_globals,
    unreachable_pub,
    reason = "the loader's name for it, which it finds in the library and not by a path of ours"
)]
pub static mut mod_rustbridge_module_interface: ffi::switch_loadable_module_function_table_t =
    ffi::switch_loadable_module_function_table_t {
        switch_api_version: ffi::RUSTBRIDGE_SWITCH_API_VERSION,
        load: Some(load_shim::<Bridge>),
        shutdown: Some(shutdown_shim::<Bridge>),
        runtime: None,
        flags: 0,
    };
