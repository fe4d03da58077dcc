// SPDX-License-Identifier: MIT
//! Strings into a buffer, escaped on the way.
//!
//! An event is some hundred short strings of which hardly one needs escaping. So each is copied
//! [`STEP`] bytes at a time, with whatever follows it in the record, and what was copied is looked
//! at in the same step: most strings take one, without a call of the C library and without a
//! branch for each byte. A step that needs care is taken up to the first byte that does.

use crate::event::{Span, known};

/// Bytes copied and looked at together: what compilers make registers of.
const STEP: usize = 32;
/// What a writer always has room for, beside what it has asked room for: a name, a step, and a few
/// bytes of punctuation.
const MARGIN: usize = known::JSON_PADDED + 2 * STEP;
/// Bytes made ready at a time.
const AHEAD: usize = 1024;
/// For each length the bytes of a step that belong to it.
static WITHIN: [[u8; STEP]; STEP + 1] = within();

/// Appends to a buffer, whose bytes are initialized ahead of what is written: so writing is
/// nothing but a copy.
#[derive(Debug)]
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    at: usize,
}

impl<'o> Writer<'o> {
    /// Behind what is in `out`, for `about` so many bytes.
    pub(super) fn new(out: &'o mut Vec<u8>, about: usize) -> Self {
        let at = out.len();
        out.reserve(about + MARGIN + AHEAD);
        Self { out, at }
    }

    /// Leaves in the buffer what was written.
    pub(super) fn end(self) {
        self.out.truncate(self.at);
    }

    /// Room for `len` bytes and the margin.
    #[inline]
    fn reserve(&mut self, len: usize) {
        if self.out.len() < self.at + len + MARGIN {
            self.grow(len);
        }
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.out.resize(self.at + len + MARGIN + AHEAD, 0);
    }

    /// Appends bytes as they are.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.at + bytes.len();
        if let Some(room) = self.out.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
            self.at = end;
        }
    }

    /// Takes back the last `len` bytes.
    pub(super) fn back(&mut self, len: usize) {
        self.at = self.at.saturating_sub(len);
    }

    /// A whole member, when its name has a number and its value is short and needs no care: most
    /// are. False when it is not, and nothing was written.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would be a third of it")]
    pub(super) fn short_member(&mut self, name: u16, bytes: &[u8], value: Span) -> bool {
        self.reserve(0);
        let Some((name, len)) = known::json(name) else { return false };
        let Some(from) = bytes.get(value.start..).and_then(|rest| rest.first_chunk::<STEP>())
        else {
            return false;
        };
        if value.len > STEP || needs_care(from, value.len) {
            return false;
        }
        let room = self.out.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut::<MARGIN>());
        let Some(room) = room else { return false };
        copy_name(name, len, room);
        let behind = room.get_mut(len..).and_then(|rest| rest.first_chunk_mut());
        let Some(behind) = behind else { return false };
        copy_string(from, value.len, behind);
        self.at += len + value.len + 1;
        true
    }

    /// The name with this number, as a member's, and the quote of its value.
    pub(super) fn known_name(&mut self, id: u16) {
        let Some((name, len)) = known::json(id) else { return };
        self.reserve(0);
        if let Some(room) = self.out.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut()) {
            copy_name(name, len, room);
            self.at += len;
        }
    }

    /// Any other name, likewise.
    pub(super) fn name(&mut self, name: &[u8]) {
        self.put(b",\"");
        self.string(name);
        self.put(b":\"");
    }

    /// The same of one that stands in `bytes`.
    pub(super) fn name_in(&mut self, bytes: &[u8], name: Span) {
        self.put(b",\"");
        self.string_in(bytes, name);
        self.put(b":\"");
    }

    /// The rest of a string whose first quote is written.
    pub(super) fn string(&mut self, text: &[u8]) {
        self.string_in(text, Span { start: 0, len: text.len() });
    }

    /// The same of a text that stands in `bytes`.
    pub(super) fn string_in(&mut self, bytes: &[u8], text: Span) {
        self.reserve(text.len);
        let mut done = 0;
        while done < text.len {
            let left = text.len - done;
            let from = bytes.get(text.start + done..).and_then(|rest| rest.first_chunk());
            let (Some(from), Some(to)) = (from, self.out.get_mut(self.at..)) else { break };
            let Some(to) = to.first_chunk_mut() else { break };
            *to = *from;
            done += if needs_care(from, left) {
                let rest = bytes.get(text.start + done..text.start + text.len);
                self.carefully(rest.unwrap_or_default())
            } else {
                self.at += left.min(STEP);
                STEP
            };
        }
        // The last of a buffer: behind it there is not enough for a step.
        while let Some(rest) = bytes.get(text.start + done..text.start + text.len)
            && !rest.is_empty()
        {
            done += self.carefully(rest);
        }
        self.put(b"\"");
    }

    /// What there is of a text up to the first byte or run that JSON does not take as it is, and
    /// that one escaped. Returns how much that is.
    #[inline(never)]
    fn carefully(&mut self, text: &[u8]) -> usize {
        let clean = clean_prefix(text);
        let (plain, tail) = text.split_at_checked(clean).unwrap_or((text, &[]));
        self.put(plain);
        match tail.first() {
            None => clean,
            Some(&byte) if byte < 0x80 => {
                self.escaped(byte);
                clean + 1
            }
            Some(_) => clean + self.wide(tail),
        }
    }

    fn escaped(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => {
                let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
                self.put(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
                return;
            }
        };
        self.put(&[b'\\', short]);
    }

    /// The run of non-ASCII bytes that `text` begins with, repaired; returns how long it is.
    fn wide(&mut self, text: &[u8]) -> usize {
        let run = text.iter().position(u8::is_ascii).unwrap_or(text.len());
        for chunk in text.get(..run).unwrap_or_default().utf8_chunks() {
            self.put(chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.put("\u{fffd}".as_bytes());
            }
        }
        run
    }
}

/// How many leading bytes JSON takes as they are.
#[inline]
fn clean_prefix(text: &[u8]) -> usize {
    let mut clean = 0;
    while let Some(word) = text.get(clean..).and_then(|rest| rest.first_chunk()) {
        let dirty = dirty_bytes(u64::from_le_bytes(*word));
        if dirty != 0 {
            return clean + usize::try_from(dirty.trailing_zeros() / 8).unwrap_or(0);
        }
        clean += 8;
    }
    let rest = text.get(clean..).unwrap_or_default();
    clean + rest.iter().position(|byte| !is_clean(*byte)).unwrap_or(rest.len())
}

/// A bit for each byte that JSON does not take as it is; exact up to and including the first.
#[inline]
fn dirty_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte's high bit is set where it is zero; exact up to and including the first such byte.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    control
        | zeros(word ^ (ONES * u64::from(b'"')))
        | zeros(word ^ (ONES * u64::from(b'\\')))
        | (word & HIGHS)
}

/// Whether JSON takes the byte as it is.
#[inline]
fn is_clean(byte: u8) -> bool {
    // As a signed number: control characters and what is beyond ASCII are below.
    byte.cast_signed() >= 0x20 && byte != b'"' && byte != b'\\'
}

/// Whether JSON does not take one of the first `len` bytes as it is.
#[inline(always)]
#[expect(clippy::inline_always, reason = "so that its constants stay in registers")]
fn needs_care(step: &[u8; STEP], len: usize) -> bool {
    let Some(within) = WITHIN.get(len.min(STEP)) else { return true };
    let mut found = 0;
    for (byte, within) in step.iter().zip(within) {
        found |= u8::from(!is_clean(*byte)) & within;
    }
    found != 0
}

/// The first `len` bytes of a step, a quote, and anything.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a move, as a rule")]
fn copy_string(from: &[u8; STEP], len: usize, room: &mut [u8; STEP + 1]) {
    room.split_at_mut(STEP).0.copy_from_slice(from);
    if let Some(quote) = room.get_mut(len) {
        *quote = b'"';
    }
}

/// The first `len` bytes of `name`, and perhaps more.
#[inline(always)]
#[expect(clippy::inline_always, reason = "two moves, as a rule")]
fn copy_name(name: &[u8; known::JSON_PADDED], len: usize, room: &mut [u8; MARGIN]) {
    let (name, more) = name.split_at(STEP);
    let (room, behind) = room.split_at_mut(STEP);
    room.copy_from_slice(name);
    if len > STEP {
        behind.split_at_mut(more.len()).0.copy_from_slice(more);
    }
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time")]
const fn within() -> [[u8; STEP]; STEP + 1] {
    let mut within = [[0; STEP]; STEP + 1];
    let mut len = 0;
    while len <= STEP {
        let mut at = 0;
        while at < len {
            within[len][at] = 1;
            at += 1;
        }
        len += 1;
    }
    within
}
