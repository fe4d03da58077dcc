// SPDX-License-Identifier: MIT
//! Strings across the border.

use std::ffi::{CStr, CString, c_char};

/// The bytes of a C string; none for a null pointer.
///
/// # Safety
///
/// `text` is null or a NUL-terminated string that lives, unchanged, as long as `'a`.
pub(super) unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the rest by this function's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// As [`bytes`], as text: what is not UTF-8 is replaced.
///
/// # Safety
///
/// As for [`bytes`].
pub(super) unsafe fn lossy(text: *const c_char) -> Option<String> {
    // SAFETY: by this function's contract.
    unsafe { bytes(text) }.map(|text| String::from_utf8_lossy(text).into_owned())
}

/// A C string of `text`, in which a NUL would end it early and is replaced.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text)
        .unwrap_or_else(|_| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default())
}
