// SPDX-License-Identifier: MIT
//! The `log` facade over FreeSWITCH's log.

use std::ffi::{CString, c_int};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::text::c_string;
use crate::ffi;

struct SwitchLog;

impl Log for SwitchLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong.
        metadata.target().starts_with("mod_rustbridge") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => ffi::switch_log_level_t::SWITCH_LOG_ERROR,
            Level::Warn => ffi::switch_log_level_t::SWITCH_LOG_WARNING,
            // What an operator wants to see on a quiet console: loaded, connected, unloaded.
            Level::Info if record.target().ends_with("notice") => {
                ffi::switch_log_level_t::SWITCH_LOG_NOTICE
            }
            Level::Info => ffi::switch_log_level_t::SWITCH_LOG_INFO,
            Level::Debug | Level::Trace => ffi::switch_log_level_t::SWITCH_LOG_DEBUG,
        };
        let file = record.file().and_then(|path| path.rsplit('/').next()).unwrap_or("rustbridge");
        let file = CString::new(file).unwrap_or_default();
        let line = record.line().and_then(|line| c_int::try_from(line).ok()).unwrap_or(0);
        let text = c_string(&format!("{}", record.args()));
        // SAFETY: the core copies all strings before it returns. The format is a constant with
        // one %s, and one C string stands behind it, so nothing in the text is ever interpreted.
        unsafe {
            ffi::switch_log_printf(
                ffi::switch_text_channel_t::SWITCH_CHANNEL_ID_LOG,
                file.as_ptr(),
                c"mod_rustbridge".as_ptr(),
                line,
                std::ptr::null(),
                level,
                c"%s\n".as_ptr(),
                text.as_ptr(),
            );
        }
    }

    fn flush(&self) {}
}

/// Sends everything logged to FreeSWITCH. Again after a reload, when it is in place already.
pub fn install() {
    // Fails only when a backend is set, which on a second load is this one.
    if log::set_logger(&SwitchLog).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}
