// SPDX-License-Identifier: MIT
//! Commands of the API and applications of the dialplan.

use std::ffi::c_char;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::guard::guard;
use super::interface::Status;
use super::text::{self, c_string};
use crate::ffi;

/// What a command answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer(pub String);

/// A command of the API, such as `rustbridge`. Runs on whatever thread of FreeSWITCH asks: a
/// console, the event socket, a call. Several may run at once.
pub trait ApiHandler {
    /// Carries the command out. `session` is the call that asked, when one did.
    fn call(arguments: &str, session: Option<&Session<'_>>) -> Answer;
}

/// An application of the dialplan. Runs on the thread of the call.
pub trait AppHandler {
    /// Carries it out. Must not wait: media of the call stands still meanwhile.
    fn run(arguments: &str, session: &Session<'_>);
}

/// Words that complete a command line in `fs_cli`.
pub trait Completion {
    /// Every word that may stand in this place.
    fn words() -> Vec<String>;
}

/// A call, lent to an API command or an application.
#[derive(Debug)]
pub struct Session<'s> {
    session: NonNull<ffi::switch_core_session_t>,
    _lent: PhantomData<&'s ()>,
}

impl Session<'_> {
    fn channel(&self) -> Option<NonNull<ffi::switch_channel_t>> {
        // SAFETY: the core lends a live, read-locked session for the call; a session has its
        // channel from birth to death.
        NonNull::new(unsafe { ffi::switch_core_session_get_channel(self.session.as_ptr()) })
    }

    /// A variable of the channel.
    pub fn variable(&self, name: &str) -> Option<String> {
        let name = c_string(name);
        let channel = self.channel()?;
        // SAFETY: the channel is live as above. The value is copied into the session's pool
        // (`dup`), so that it stays while another thread changes the variable.
        let value = unsafe {
            ffi::switch_channel_get_variable_dup(
                channel.as_ptr(),
                name.as_ptr(),
                ffi::switch_bool_t::SWITCH_TRUE,
                -1,
            )
        };
        // SAFETY: null or that copy.
        unsafe { text::lossy(value) }
    }

    /// Sets a variable of the channel.
    pub fn set_variable(&self, name: &str, value: &str) {
        let (name, value) = (c_string(name), c_string(value));
        let Some(channel) = self.channel() else { return };
        // SAFETY: the channel is live as above; the core copies both strings. Without the check
        // for `${` that it would make, since nothing expands what we write.
        unsafe {
            ffi::switch_channel_set_variable_var_check(
                channel.as_ptr(),
                name.as_ptr(),
                value.as_ptr(),
                ffi::switch_bool_t::SWITCH_FALSE,
            )
        };
    }
}

fn session<'s>(session: *mut ffi::switch_core_session_t) -> Option<Session<'s>> {
    NonNull::new(session).map(|session| Session { session, _lent: PhantomData })
}

/// The C side of [`ApiHandler`].
///
/// # Safety
///
/// For the core only: `command` is null or a C string, `caller` null or a live session that the
/// core holds, `stream` a live stream, all for the length of the call.
pub(super) unsafe extern "C" fn call_api<H: ApiHandler>(
    command: *const c_char,
    caller: *mut ffi::switch_core_session_t,
    stream: *mut ffi::switch_stream_handle_t,
) -> Status {
    // SAFETY: by this function's contract.
    let arguments = unsafe { text::lossy(command) }.unwrap_or_default();
    let answer = guard(|| H::call(&arguments, session(caller).as_ref()))
        .unwrap_or_else(|_| Answer("-ERR a fault of mod_rustbridge, see the log\n".into()));
    // SAFETY: by this function's contract.
    unsafe { write(stream, &answer.0) };
    Status::SUCCESS
}

/// # Safety
///
/// `stream` is null or a live stream.
unsafe fn write(stream: *mut ffi::switch_stream_handle_t, text: &str) {
    let Some(handle) = NonNull::new(stream) else { return };
    // SAFETY: by this function's contract.
    let Some(raw_write) = unsafe { handle.as_ref() }.raw_write_function else { return };
    // `write_function` takes a format: never. This one takes bytes, and does not change them.
    let bytes = text.as_ptr().cast_mut();
    // SAFETY: the stream's own function, given the stream and as many bytes as there are.
    unsafe { raw_write(stream, bytes, text.len()) };
}

/// The C side of [`AppHandler`].
///
/// # Safety
///
/// For the core only: `caller` is the live session that runs the application, `data` null or a
/// C string, both for the length of the call.
pub(super) unsafe extern "C" fn run_app<H: AppHandler>(
    caller: *mut ffi::switch_core_session_t,
    data: *const c_char,
) {
    // SAFETY: by this function's contract.
    let arguments = unsafe { text::lossy(data) }.unwrap_or_default();
    let Some(session) = session(caller) else { return };
    // A panic has been logged; the call goes on with its dialplan.
    let _logged = guard(|| H::run(&arguments, &session));
}

/// The C side of [`Completion`].
///
/// # Safety
///
/// For the core only: `matches` is where it expects the list. It has not set it
/// (`switch_console_complete` hands in an uninitialized pointer), and reads it on success only.
pub(super) unsafe extern "C" fn complete<C: Completion>(
    _line: *const c_char,
    _cursor: *const c_char,
    matches: *mut *mut ffi::switch_console_callback_match_t,
) -> ffi::switch_status_t {
    let words = guard(C::words).unwrap_or_default();
    let mut list: *mut ffi::switch_console_callback_match_t = std::ptr::null_mut();
    for word in &words {
        let word = c_string(word);
        // SAFETY: a null list is begun by the core, and then grown; it copies the word.
        unsafe { ffi::switch_console_push_match(&raw mut list, word.as_ptr()) };
    }
    if list.is_null() {
        return ffi::switch_status_t::SWITCH_STATUS_FALSE;
    }
    // SAFETY: `matches` is the core's own place for the list, by this function's contract.
    unsafe { matches.write(list) };
    ffi::switch_status_t::SWITCH_STATUS_SUCCESS
}
