// SPDX-License-Identifier: MIT
//! Copying C strings whose lengths nobody knows, in one pass.
//!
//! A header list is some hundred short strings. Measuring each first and copying it then reads it
//! twice and calls the C library twice; for strings as short as these the calls are most of the
//! work. Here a string is loaded 32 bytes at a time, stored as it is, and searched for its end in
//! the same registers, so most strings take one step and no call.

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64::__m128i};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;

use crate::event::known::PADDED;

/// Where in a buffer the next string goes.
#[derive(Debug)]
pub(super) struct Cursor<'b> {
    start: *mut u8,
    at: *mut u8,
    end: *mut u8,
    _buffer: PhantomData<&'b mut [u8]>,
}

/// A place in a cursor's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(*mut u8);

/// How far ahead of what is written the buffer's lines are asked for: a publisher has read them on
/// another processor since they were last here.
const AHEAD: usize = 256;

impl<'b> Cursor<'b> {
    /// At the start of `buffer`.
    pub(super) fn new(buffer: &'b mut [u8]) -> Self {
        let std::ops::Range { start, end } = buffer.as_mut_ptr_range();
        Self { start, at: start, end, _buffer: PhantomData }
    }

    /// How many bytes lie before it.
    pub(super) fn written(&self) -> usize {
        self.at.addr() - self.start.addr()
    }

    #[inline]
    fn room(&self) -> usize {
        self.end.addr() - self.at.addr()
    }

    /// Where it is now.
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark(self.at)
    }

    /// Takes back what was written since.
    #[inline]
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.at = mark.0;
    }

    /// Leaves out `N` bytes, to be [filled in](Self::fill_in); none when there are fewer.
    #[inline]
    pub(super) fn skip<const N: usize>(&mut self) -> Option<Gap<N>> {
        if self.room() < N {
            return None;
        }
        let gap = Gap(self.at);
        // SAFETY: there is so much room.
        self.at = unsafe { self.at.add(N) };
        Some(gap)
    }

    /// Writes what was left out.
    #[inline]
    #[expect(
        clippy::needless_pass_by_value,
        clippy::unused_self,
        reason = "a gap is filled once, by the cursor that left it"
    )]
    pub(super) fn fill_in<const N: usize>(&mut self, gap: Gap<N>, bytes: [u8; N]) {
        // SAFETY: `skip` left N bytes there, in the buffer that this cursor borrows.
        unsafe { gap.0.cast::<[u8; N]>().write_unaligned(bytes) };
    }

    /// Asks for what will be written to before long.
    #[inline]
    pub(super) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: it faults on nothing, and a processor that does not know it takes it
        // for a NOP.
        unsafe {
            asm!(
                "prefetchw [{} + {ahead}]",
                in(reg) self.at,
                ahead = const AHEAD,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    /// Appends the string at `text`, without its NUL; nothing for a null pointer. Returns its
    /// length, or none when there was too little room: then the cursor is anywhere.
    ///
    /// # Safety
    ///
    /// `text` is null or a NUL-terminated string, which nobody changes meanwhile.
    #[inline]
    pub(super) unsafe fn copy(&mut self, text: *const c_char) -> Option<usize> {
        if text.is_null() {
            return Some(0);
        }
        let start = self.at;
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "one step there"))]
        let mut from = text;
        #[cfg(target_arch = "x86_64")]
        while self.room() >= STEP && from.addr() % PAGE <= PAGE - STEP {
            // SAFETY: the string has a byte at `from`, and the step ends in the same page; there
            // is room for a step.
            let end = unsafe { step(from, self.at) };
            if end < STEP {
                // SAFETY: less than the room.
                self.at = unsafe { self.at.add(end) };
                return Some(self.at.addr() - start.addr());
            }
            // SAFETY: there was room for a step.
            self.at = unsafe { self.at.add(STEP) };
            // SAFETY: the step held no NUL, so the string goes on behind it.
            from = unsafe { from.add(STEP) };
        }
        // SAFETY: the rest of the caller's string.
        unsafe { self.copy_measured(from) }?;
        Some(self.at.addr() - start.addr())
    }

    /// # Safety
    ///
    /// As for [`copy`](Self::copy), and `text` is not null.
    #[cold]
    unsafe fn copy_measured(&mut self, text: *const c_char) -> Option<()> {
        // SAFETY: by this function's contract.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if text.len() > self.room() {
            return None;
        }
        // SAFETY: there is room for it, in a buffer that nobody else has.
        unsafe { text.as_ptr().copy_to_nonoverlapping(self.at, text.len()) };
        // SAFETY: as above.
        self.at = unsafe { self.at.add(text.len()) };
        Some(())
    }
}

/// Bytes that a [`Cursor`] has left out.
#[derive(Debug)]
pub(super) struct Gap<const N: usize>(*mut u8);

/// Whether the string at `text` is the one of `len` bytes in `padded`, which has a zero behind it.
///
/// # Safety
///
/// As for [`Cursor::copy`], and `text` is not null.
#[inline]
pub(super) unsafe fn is(text: *const c_char, padded: &[u8; PADDED], len: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let mut done = 0;
        while let Some(part) = padded.get(done..).and_then(|rest| rest.first_chunk()) {
            // SAFETY: `done` bytes of the string were read and held no NUL, so it goes on here.
            let from = unsafe { text.add(done) };
            if from.addr() % PAGE > PAGE - STEP {
                break;
            }
            // SAFETY: the string has a byte at `from`, and the step ends in the same page.
            let same = unsafe { same(from, part) };
            // Up to and including the NUL; what is behind it in the string is anything.
            if same > len - done {
                return true;
            }
            if same < STEP {
                return false;
            }
            done += STEP;
        }
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_bytes() == padded.get(..len).unwrap_or_default()
}

#[cfg(target_arch = "x86_64")]
const STEP: usize = 32;
/// The smallest page there is.
#[cfg(target_arch = "x86_64")]
const PAGE: usize = 4096;

/// Copies [`STEP`] bytes, whatever they are, and returns where among them the first NUL is.
///
/// # Safety
///
/// The first byte at `from` may be read, and the step lies within one page. What is behind the
/// string's end is then readable too, as memory is by the page; no value of it is used. The step
/// may be written to `to`.
#[cfg(target_arch = "x86_64")]
// Part of every x86-64, so a caller may inline it.
#[target_feature(enable = "sse2")]
#[inline]
unsafe fn step(from: *const c_char, to: *mut u8) -> usize {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_setzero_si128, _mm_storeu_si128,
    };
    // SAFETY: by this function's contract.
    let (low, high) = unsafe { load(from) };
    // SAFETY: by this function's contract.
    unsafe { _mm_storeu_si128(to.cast(), low) };
    // SAFETY: as above.
    let second = unsafe { to.add(16) };
    // SAFETY: as above.
    unsafe { _mm_storeu_si128(second.cast(), high) };
    let zero = _mm_setzero_si128();
    let low = _mm_movemask_epi8(_mm_cmpeq_epi8(low, zero)).cast_unsigned();
    let high = _mm_movemask_epi8(_mm_cmpeq_epi8(high, zero)).cast_unsigned();
    let ends = low | (high << 16);
    if ends == 0 { STEP } else { usize::try_from(ends.trailing_zeros()).unwrap_or(STEP) }
}

/// # Safety
///
/// As for [`step`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
unsafe fn load(from: *const c_char) -> (__m128i, __m128i) {
    let (low, high);
    // In assembly because it may go beyond the string's own allocation: that is sound for the
    // machine, by page, but nothing the language would let us say.
    //
    // SAFETY: reads 32 bytes of a page that is mapped, by this function's contract.
    unsafe {
        asm!(
            "movdqu {low}, [{from}]",
            "movdqu {high}, [{from} + 16]",
            from = in(reg) from,
            low = out(xmm_reg) low,
            high = lateout(xmm_reg) high,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    (low, high)
}

/// How many of the [`STEP`] bytes at `from` are those in `part`, from the first on.
///
/// # Safety
///
/// As for [`step`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
unsafe fn same(from: *const c_char, part: &[u8; STEP]) -> usize {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
    // SAFETY: by this function's contract.
    let (low, high) = unsafe { load(from) };
    let part = part.as_ptr();
    // SAFETY: `part` holds 32 bytes.
    let first = unsafe { _mm_loadu_si128(part.cast()) };
    // SAFETY: as above.
    let second = unsafe { part.add(16) };
    // SAFETY: as above.
    let second = unsafe { _mm_loadu_si128(second.cast()) };
    let low = _mm_movemask_epi8(_mm_cmpeq_epi8(low, first)).cast_unsigned();
    let high = _mm_movemask_epi8(_mm_cmpeq_epi8(high, second)).cast_unsigned();
    usize::try_from((low | (high << 16)).trailing_ones()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_at_every_place_in_a_page_are_copied_whole() {
        let mut pages = vec![b'x'; 3 * 4096];
        for place in (0..64).chain(4096 - 80..4096 + 16) {
            for len in (0..100).chain([1000, 4096]) {
                pages.fill(b'#');
                let text: Vec<u8> =
                    (0..len).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
                pages[place..place + len].copy_from_slice(&text);
                pages[place + len] = 0;
                let mut room = vec![0; len + STEP];
                let mut cursor = Cursor::new(&mut room);
                // SAFETY: a NUL was just put behind it.
                let copied = unsafe { cursor.copy(pages[place..].as_ptr().cast()) };
                assert_eq!((copied, cursor.written()), (Some(len), len));
                assert_eq!(&room[..len], text);
            }
        }
    }

    #[test]
    fn a_string_is_told_from_one_that_is_longer_shorter_or_different() {
        let name = b"variable_rtp_audio_in_jitter_packet_count";
        for (len, place) in (1..=name.len()).flat_map(|len| [(len, 0), (len, 4096 - len / 2)]) {
            let mut pages = vec![b'#'; 3 * 4096];
            let mut padded = [0; PADDED];
            padded[..len].copy_from_slice(&name[..len]);
            let mut told = |text: &[u8]| {
                pages[place..place + text.len()].copy_from_slice(text);
                pages[place + text.len()] = 0;
                // SAFETY: a NUL was just put behind it.
                unsafe { is(pages[place..].as_ptr().cast(), &padded, len) }
            };
            assert!(told(&name[..len]));
            assert!(!told(&name[..len - 1]));
            assert!(!told(&[&name[..len], b"x"].concat()));
            assert!(!told(&[&name[..len - 1], b"?"].concat()));
            assert!(!told(b""));
        }
    }

    #[test]
    fn a_string_that_just_fits_is_copied_and_a_longer_one_is_not() {
        for len in 0..100_usize {
            let text = std::ffi::CString::new(vec![b'x'; len]).unwrap();
            // SAFETY: a C string.
            assert_eq!(unsafe { Cursor::new(&mut vec![0; len]).copy(text.as_ptr()) }, Some(len));
            if let Some(less) = len.checked_sub(1) {
                // SAFETY: a C string.
                assert_eq!(unsafe { Cursor::new(&mut vec![0; less]).copy(text.as_ptr()) }, None);
            }
        }
    }
}
