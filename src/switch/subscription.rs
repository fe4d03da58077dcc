// SPDX-License-Identifier: MIT
//! Being called for every event.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::guard::guard;
use super::{EventRef, SwitchError};
use crate::event::EventKind;
use crate::ffi;

/// What a subscription does with each event.
///
/// Runs on FreeSWITCH's dispatch threads: several at once, at real-time priority, under the
/// core's event read-lock. So an implementation never waits, never calls FreeSWITCH back, and
/// does no more than copy the event and hand it on.
pub trait EventHandler: Send + Sync + 'static {
    /// Takes what it needs from `event`, which is gone when this returns.
    fn on_event(&self, event: &EventRef<'_>);

    /// Notes that [`on_event`](Self::on_event) panicked and its event is lost. Must not panic.
    fn on_panic(&self, kind: EventKind);
}

/// A binding to one kind of event. Dropping it unbinds, and returns once no callback is running.
#[must_use = "a subscription unbinds as soon as it is dropped"]
#[derive(Debug)]
pub struct Subscription<H: EventHandler> {
    node: NonNull<ffi::switch_event_node_t>,
    /// What the node points at; released only after `Drop` has unbound it.
    _handler: Arc<H>,
    _shared: PhantomData<H>,
}

// SAFETY: the node is touched only by `Drop`, through a call that takes the core's own write-lock
// and so may come from any thread; the handler is `Send + Sync`.
unsafe impl<H: EventHandler> Send for Subscription<H> {}
// SAFETY: a shared subscription can do nothing at all.
unsafe impl<H: EventHandler> Sync for Subscription<H> {}

impl<H: EventHandler> Subscription<H> {
    /// Binds `handler` to every event of `kind`, in the name of `owner`.
    ///
    /// Never call this from a callback: it waits for the lock that the callback holds.
    ///
    /// # Errors
    ///
    /// Returns the core's status when it refuses the binding.
    pub fn bind(owner: &CStr, kind: EventKind, handler: Arc<H>) -> Result<Self, SwitchError> {
        let user_data = Arc::as_ptr(&handler).cast_mut().cast();
        let mut node = ptr::null_mut();
        // SAFETY: the core copies `owner` and writes `node` before it returns. It keeps
        // `user_data` until the node is unbound, which `Drop` does while `_handler` is held.
        let status = unsafe {
            ffi::switch_event_bind_removable(
                owner.as_ptr(),
                ffi::switch_event_types_t(u32::from(kind.number())),
                ptr::null(),
                Some(deliver::<H>),
                user_data,
                &raw mut node,
            )
        };
        // The core clears `node` first and sets it on success alone.
        let node = NonNull::new(node)
            .ok_or(SwitchError::Refused { action: "bind to its events", status: status.0 })?;
        Ok(Self { node, _handler: handler, _shared: PhantomData })
    }
}

impl<H: EventHandler> Drop for Subscription<H> {
    fn drop(&mut self) {
        let mut node = self.node.as_ptr();
        // SAFETY: `node` is bound, and is unbound only here. The core unlinks it under its event
        // write-lock, so afterwards no `deliver::<H>` is running and none can start.
        unsafe { ffi::switch_event_unbind(&raw mut node) };
    }
}

/// The C side of [`EventHandler`].
///
/// # Safety
///
/// For the core only: `event` is live for the call, and its `bind_user_data` is the `H` that the
/// subscription owns (`switch_event_deliver` sets it before each callback).
unsafe extern "C" fn deliver<H: EventHandler>(event: *mut ffi::switch_event_t) {
    let Some(event) = NonNull::new(event) else { return };
    // SAFETY: by this function's contract.
    let user_data = unsafe { event.as_ref() }.bind_user_data;
    let Some(handler) = NonNull::new(user_data.cast::<H>()) else { return };
    // SAFETY: by this function's contract; the subscription outlives every callback.
    let handler = unsafe { handler.as_ref() };
    // SAFETY: by this function's contract; the borrow ends with this call.
    let event = unsafe { EventRef::from_raw(event) };
    if guard(|| handler.on_event(&event)).is_err() {
        handler.on_panic(event.kind());
    }
}
