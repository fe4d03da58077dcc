// SPDX-License-Identifier: MIT
//! Walks the records of a segment through a small buffer, and finds the way back after damage.
//!
//! Recovery, the reader and the shedding of old records all walk with this, so damage is judged in
//! one place. Every step moves forward or ends: damage can cost time proportional to its size, but
//! never a loop.

use std::io;
use std::ops::Range;

use memchr::memmem;
use rustix::io::Errno;

use super::format::{self, Identity, RECORD, RecordHead, to_u64, to_usize};
use super::storage::{StorageFile, read_full};

/// What is read at once; a larger record is read in one piece.
const CHUNK: u64 = 256 * 1024;
/// What the disk is asked for ahead of that: it is read while what is there already is worked on. A backlog of minutes may well have
/// left the system's memory, and without this each chunk would be waited for.
const AHEAD: u64 = 4 * 1024 * 1024;
/// What is given up at once where the disk cannot read.
const BLOCK: u64 = 4096;

/// What lies at a place.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole record; its payload is at this range of [`Scanner::bytes`].
    Record { head: RecordHead, payload: Range<usize>, end: u64 },
    /// No record, but one begins at `to`.
    Damage { to: u64 },
    /// No record from here to the limit.
    Tail,
    /// The limit itself.
    End,
}

/// A buffer over a part of one file.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    buffer: Vec<u8>,
    /// How much of the buffer is from the file.
    held: usize,
    /// Offset in the file of the buffer's first byte.
    start: u64,
    /// Up to where the disk has been asked to read.
    asked: u64,
    /// Blocks that cannot be read become zeros (and thereby damage) instead of an error.
    pub(super) salvage: bool,
    /// That has happened.
    pub(super) salvaged: bool,
}

impl Scanner {
    /// One that gives up unreadable blocks at once.
    pub(super) fn salvaging() -> Self {
        Self { salvage: true, ..Self::default() }
    }

    /// The bytes that [`Step::Record`] points into.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Looks at offset `at`; nothing at or after `limit` is read.
    pub(super) fn step(
        &mut self,
        file: &dyn StorageFile,
        identity: &Identity,
        at: u64,
        limit: u64,
    ) -> io::Result<Step> {
        if at >= limit {
            return Ok(Step::End);
        }
        if let Some((head, payload)) = self.record_at(file, identity, at, limit)? {
            let end = at + RECORD + u64::from(head.len);
            return Ok(Step::Record { head, payload, end });
        }
        let mut from = at + 1;
        loop {
            let window = self.window(file, from, limit)?;
            let found = memmem::find(window, &identity.id.to_le_bytes());
            let searched = to_u64(window.len());
            if let Some(distance) = found {
                let place = from + to_u64(distance);
                if self.record_at(file, identity, place, limit)?.is_some() {
                    return Ok(Step::Damage { to: place });
                }
                from = place + 1;
            } else if from + searched >= limit || searched < 8 {
                return Ok(Step::Tail);
            } else {
                from += searched - 7;
            }
        }
    }

    /// Finds the identity of a segment whose header is destroyed, from any whole record in it.
    pub(super) fn identify(
        &mut self,
        file: &dyn StorageFile,
        ordinal: u64,
        limit: u64,
    ) -> io::Result<Option<Identity>> {
        let mut at = 0;
        while at + RECORD <= limit {
            let window = self.window(file, at, limit)?;
            if to_u64(window.len()) < RECORD {
                break;
            }
            let candidate = window
                .windows(to_usize(RECORD))
                .enumerate()
                .find_map(|(distance, bytes)| Some((distance, format::decode_head(bytes)?)));
            let Some((distance, head)) = candidate else {
                at += to_u64(window.len()) - (RECORD - 1);
                continue;
            };
            at += to_u64(distance);
            let identity = Identity::new(ordinal, head.id);
            if self.record_at(file, &identity, at, limit)?.is_some() {
                return Ok(Some(identity));
            }
            at += 1;
        }
        Ok(None)
    }

    /// End of the last byte that is not zero, from `at` to `limit`.
    pub(super) fn last_written(
        &mut self,
        file: &dyn StorageFile,
        mut at: u64,
        limit: u64,
    ) -> io::Result<Option<u64>> {
        let mut last = None;
        while at < limit {
            let window = self.window(file, at, limit)?;
            if window.is_empty() {
                break;
            }
            if let Some(place) = window.iter().rposition(|byte| *byte != 0) {
                last = Some(at + to_u64(place) + 1);
            }
            at += to_u64(window.len());
        }
        Ok(last)
    }

    fn record_at(
        &mut self,
        file: &dyn StorageFile,
        identity: &Identity,
        at: u64,
        limit: u64,
    ) -> io::Result<Option<(RecordHead, Range<usize>)>> {
        if limit.saturating_sub(at) < RECORD {
            return Ok(None);
        }
        let Some(head) = format::decode_head(self.fill(file, at, RECORD, limit)?) else {
            return Ok(None);
        };
        let whole = RECORD + u64::from(head.len);
        if head.id != identity.id || whole > limit - at {
            return Ok(None);
        }
        let record = self.fill(file, at, whole, limit)?;
        let payload = record.get(to_usize(RECORD)..to_usize(whole));
        if !payload.is_some_and(|payload| format::is_whole(identity, at, &head, payload)) {
            return Ok(None);
        }
        let begin = to_usize(at + RECORD - self.start);
        Ok(Some((head, begin..begin + to_usize(u64::from(head.len)))))
    }

    /// All that the buffer holds from `at` on, at least the size of a record's head where there is
    /// that much.
    fn window(&mut self, file: &dyn StorageFile, at: u64, limit: u64) -> io::Result<&[u8]> {
        self.fill(file, at, RECORD, limit)?;
        let begin = to_usize(at.saturating_sub(self.start));
        let end = self.held.min(to_usize(limit.saturating_sub(self.start)));
        Ok(self.buffer.get(begin..end).unwrap_or_default())
    }

    /// Bytes from `at` on: `want` of them, or what there is up to `limit` or the end of the file.
    fn fill(
        &mut self,
        file: &dyn StorageFile,
        at: u64,
        want: u64,
        limit: u64,
    ) -> io::Result<&[u8]> {
        let want = want.min(limit.saturating_sub(at));
        let held_to = self.start + to_u64(self.held);
        if at < self.start || at + want > held_to {
            let size = to_usize(want.max(CHUNK).min(limit.saturating_sub(at)));
            // One large record must not leave a large buffer behind.
            let is_oversized = self.buffer.len() > to_usize(4 * CHUNK) && size <= to_usize(CHUNK);
            if self.buffer.len() < size || is_oversized {
                self.buffer = vec![0; size];
            }
            self.ask_ahead(file, at + to_u64(size), limit);
            self.start = at;
            self.held = 0;
            let buffer = self.buffer.get_mut(..size).unwrap_or_default();
            self.held = match read_full(file, buffer, at) {
                Ok(read) => read,
                Err(error) if self.salvage && is_bad_block(&error) => {
                    self.salvaged |= read_blocks(file, buffer, at)?;
                    size
                }
                Err(error) => return Err(error),
            };
        }
        let begin = to_usize(at - self.start);
        let end = self.held.min(begin + to_usize(want));
        Ok(self.buffer.get(begin..end).unwrap_or_default())
    }

    /// Asks for what comes behind `from`, half of [`AHEAD`] at a time.
    fn ask_ahead(&mut self, file: &dyn StorageFile, from: u64, limit: u64) {
        // Far from where it was, it begins anew.
        let asked = if self.asked > from + AHEAD { from } else { self.asked.max(from) };
        if asked < limit && asked < from + AHEAD / 2 {
            let to = limit.min(from + AHEAD);
            self.asked = if file.will_read(asked, to - asked) { to } else { asked };
        }
    }
}

/// Reads block by block, with zeros for those that cannot be read. Returns whether there were any.
fn read_blocks(file: &dyn StorageFile, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    let (mut offset, mut rest) = (at, buffer);
    let mut salvaged = false;
    while !rest.is_empty() {
        // Along the disk's own borders, or a bad block would take good neighbors with it.
        let size = to_usize(BLOCK - offset % BLOCK).min(rest.len());
        let (block, after) = rest.split_at_mut_checked(size).unwrap_or_default();
        match read_full(file, block, offset) {
            Ok(_) => {}
            Err(error) if is_bad_block(&error) => {
                block.fill(0);
                salvaged = true;
            }
            Err(error) => return Err(error),
        }
        offset += to_u64(size);
        rest = after;
    }
    Ok(salvaged)
}

fn is_bad_block(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A file of zeros that notes what it is asked to read ahead, and takes it or does not.
    #[derive(Debug, Default)]
    struct Zeros {
        asked: Mutex<Vec<(u64, u64)>>,
        is_busy: AtomicBool,
    }

    impl StorageFile for Zeros {
        fn size(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }

        fn read_at(&self, buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }

        fn will_read(&self, offset: u64, len: u64) -> bool {
            self.asked.lock().unwrap().push((offset, offset + len));
            !self.is_busy.load(Ordering::Relaxed)
        }

        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
            unreachable!("a scanner writes nothing")
        }

        fn allocate(&self, _len: u64) -> io::Result<()> {
            unreachable!("a scanner writes nothing")
        }

        fn truncate(&self, _len: u64) -> io::Result<()> {
            unreachable!("a scanner writes nothing")
        }

        fn sync_data(&self) -> io::Result<()> {
            unreachable!("a scanner writes nothing")
        }

        fn is_linked(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    const LIMIT: u64 = 20 * 1024 * 1024 + 777;

    /// Reads from `from` to `to`, a thousand bytes at a time, and returns what was asked for on the way.
    fn asked(scanner: &mut Scanner, file: &Zeros, from: u64, to: u64) -> Vec<(u64, u64)> {
        for at in (from..to).step_by(1000) {
            scanner.fill(file, at, 1000, LIMIT).unwrap();
            for (_, end) in file.asked.lock().unwrap().iter() {
                assert!(*end <= LIMIT && *end <= at + CHUNK + AHEAD, "{end} from {at}");
            }
        }
        std::mem::take(&mut file.asked.lock().unwrap())
    }

    #[test]
    fn what_comes_is_asked_for_once_each_and_no_more_than_there_is() {
        let (mut scanner, file) = (Scanner::default(), Zeros::default());
        let pieces = asked(&mut scanner, &file, 0, LIMIT);
        assert_eq!(pieces.first().map(|(from, _)| *from), Some(CHUNK));
        assert_eq!(pieces.last().map(|(_, to)| *to), Some(LIMIT));
        assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0), "{pieces:?}");
        assert!(pieces.len() < 15, "in large pieces: {pieces:?}");
        // Back at the beginning, as after a rewind, and in the middle, as behind a gap.
        for from in [0, 9 << 20] {
            let pieces = asked(&mut scanner, &file, from, from + 1000);
            assert_eq!(pieces, [(from + CHUNK, from + CHUNK + AHEAD)]);
        }
    }

    #[test]
    fn what_nobody_had_time_for_is_asked_for_again() {
        let (mut scanner, file) = (Scanner::default(), Zeros::default());
        file.is_busy.store(true, Ordering::Relaxed);
        let pieces = asked(&mut scanner, &file, 0, 2 * CHUNK);
        assert!(pieces.len() >= 2 && pieces[0].1 - pieces[0].0 == AHEAD, "{pieces:?}");
        file.is_busy.store(false, Ordering::Relaxed);
        let pieces = asked(&mut scanner, &file, 2 * CHUNK, 4 * CHUNK);
        assert_eq!(pieces.len(), 1, "{pieces:?}");
    }
}
