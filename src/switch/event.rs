// SPDX-License-Identifier: MIT
//! An event of the core's, lent for the length of a callback.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::copy::{Cursor, is};
use super::text;
use crate::event::{Class, EventKind, Record, Uncopied, known};
use crate::ffi;

/// An event that FreeSWITCH lends. The only place that reads fields of its structs.
#[derive(Debug)]
pub struct EventRef<'e> {
    event: NonNull<ffi::switch_event_t>,
    _lent: PhantomData<&'e ffi::switch_event_t>,
}

impl<'e> EventRef<'e> {
    /// # Safety
    ///
    /// `event` is a live event that nobody changes or frees for as long as `'e`. The core
    /// guarantees that to a callback: it delivers on one thread and destroys afterwards
    /// (`switch_event_deliver`).
    pub(super) unsafe fn from_raw(event: NonNull<ffi::switch_event_t>) -> Self {
        Self { event, _lent: PhantomData }
    }

    fn raw(&self) -> &'e ffi::switch_event_t {
        // SAFETY: `from_raw` promised a live event for 'e.
        unsafe { self.event.as_ref() }
    }

    /// Which event it is. Read first, and often all that is read.
    #[inline]
    pub fn kind(&self) -> EventKind {
        EventKind::new(u16::try_from(self.raw().event_id.0).unwrap_or(EventKind::UNKNOWN.number()))
    }

    /// The subclass of a CUSTOM event.
    #[inline]
    pub fn subclass(&self) -> Option<&'e [u8]> {
        // SAFETY: the core keeps the name as a C string of the event's own until it destroys it.
        unsafe { text::bytes(self.raw().subclass_name) }
    }

    /// Copies the event into `record`, in one pass over its headers.
    ///
    /// No allocation as long as the record's buffer is large enough, no system call, no lock.
    ///
    /// # Errors
    ///
    /// When it would take more than `max` bytes, or the system has no memory for it. What the record holds is then nothing whole.
    #[inline]
    pub fn copy_to(&self, record: &mut Record, class: Class, max: usize) -> Result<(), Uncopied> {
        self.copy_up_to(record, class, max).ok_or(Uncopied::TooLarge)?;
        if record.is_cut() { Err(Uncopied::NoMemory) } else { Ok(()) }
    }

    #[inline]
    fn copy_up_to(&self, record: &mut Record, class: Class, max: usize) -> Option<()> {
        let event = self.raw();
        record.begin_or_cut(self.kind(), class, self.subclass());
        let mut next = event.headers.cast_const();
        loop {
            let left = max.checked_sub(record.size())?;
            let room = record.room();
            let room = if left < room.len() { room.get_mut(..left)? } else { room };
            // SAFETY: headers are the event's own list, live and unchanged as long as it is.
            let filled = unsafe { fill(next, room) };
            record.filled(filled.bytes, filled.headers);
            // SAFETY: null, or a header of that list.
            let Some(header) = (unsafe { filled.stopped_at.as_ref() }) else { break };
            copy_one(header, record, max)?;
            if record.is_cut() {
                return Some(());
            }
            next = header.next;
        }
        // SAFETY: the body is null or a C string of the event's own.
        if let Some(body) = unsafe { text::bytes(event.body) } {
            if record.size() + body.len() > max {
                return None;
            }
            record.body(body);
        }
        Some(())
    }
}

/// What [`fill`] has done.
struct Filled {
    bytes: usize,
    headers: usize,
    /// The header that it left to others; null at the end of the list.
    stopped_at: *const ffi::switch_event_header,
}

/// Copies headers to the start of `room` up to one that has no room or several values.
///
/// # Safety
///
/// `next` is null or a header of a list that nobody changes, whose names and values are C strings.
unsafe fn fill(mut next: *const ffi::switch_event_header, room: &mut [u8]) -> Filled {
    let mut cursor = Cursor::new(room);
    let mut headers = 0;
    // SAFETY: by this function's contract; so is each header that one leads to.
    while let Some(header) = unsafe { next.as_ref() } {
        let start = cursor.mark();
        if header.idx > 0 {
            break;
        }
        // The list is scattered over the heap, and so are its strings: what comes next is asked
        // for while this one is copied.
        // SAFETY: null or a header of the same list.
        if let Some(after) = unsafe { header.next.as_ref() } {
            prefetch(after.next);
            prefetch(after.name);
            prefetch(after.value);
        }
        cursor.prefetch();
        // SAFETY: a header's name is a C string of its own, and so is its value, or null.
        if unsafe { append(header, &mut cursor) }.is_none() {
            cursor.back_to(start);
            break;
        }
        headers += 1;
        next = header.next;
    }
    Filled { bytes: cursor.written(), headers, stopped_at: next }
}

/// Writes a header with one value as [`Record`] has it. None when there is too little room, or
/// the name is longer than a record's can be.
///
/// # Safety
///
/// The name is a C string, and so is the value, or null.
#[inline]
unsafe fn append(header: &ffi::switch_event_header, cursor: &mut Cursor<'_>) -> Option<()> {
    if let Some(known) = known::candidate(u32::try_from(header.hash).unwrap_or(0))
        // SAFETY: by this function's contract.
        && unsafe { is(header.name, known.padded, known.len) }
    {
        let start = cursor.mark();
        let head = cursor.skip::<4>()?;
        // SAFETY: by this function's contract.
        let value = unsafe { cursor.copy(header.value) }?;
        if let Some(short) = Record::known_head(known.id, value) {
            cursor.fill_in(head, short);
            return Some(());
        }
        cursor.back_to(start);
    }
    let head = cursor.skip::<8>()?;
    // SAFETY: by this function's contract.
    let name = unsafe { cursor.copy(header.name) }?;
    // SAFETY: by this function's contract.
    let value = unsafe { cursor.copy(header.value) }?;
    cursor.fill_in(head, Record::head(name, value)?);
    Some(())
}

/// Copies a header that [`fill`] has left: into more room, or element by element.
#[cold]
fn copy_one(header: &ffi::switch_event_header, record: &mut Record, max: usize) -> Option<()> {
    // SAFETY: a header's name is a C string of its own.
    let name = unsafe { text::bytes(header.name) }.unwrap_or_default();
    if header.idx > 0 && !header.array.is_null() {
        let count = usize::try_from(header.idx).unwrap_or(0);
        record.array(name, (0..count).map(|n| element(header, n)));
    } else {
        // SAFETY: so is its value, which may be null.
        let value = unsafe { text::bytes(header.value) }.unwrap_or_default();
        if record.size() + Record::HEAD + name.len() + value.len() > max {
            return None;
        }
        record.header(name, value);
    }
    (record.size() <= max).then_some(())
}

fn element(header: &ffi::switch_event_header, position: usize) -> &[u8] {
    // SAFETY: the core keeps `idx` elements in `array` (switch_event_base_add_header), and the
    // caller counts up to it.
    let slot = unsafe { header.array.add(position) };
    // SAFETY: within the array, as above.
    let element = unsafe { slot.read() };
    // SAFETY: each element is a C string of the header's own, live as long as it is.
    unsafe { text::bytes(element) }.unwrap_or_default()
}

#[inline]
fn prefetch<T>(what: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it reads nothing and faults on nothing, null included.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(what.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}
