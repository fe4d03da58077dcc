// SPDX-License-Identifier: MIT
//! Reading ahead: what a segment's reader wants next is fetched on another thread, while the publisher works on what is there.
//!
//! A backlog of minutes may have left the system's memory. To read it back through the system's cache costs more processor time than the
//! disk costs: a page is to be found for each 4 KiB, and another given up for it. So what is not in the cache is read past it
//! (`O_DIRECT`, open(2)) into a few blocks of ours, and what is there is left to it. Where the file system or the disk does not do
//! that, the system is told what is wanted and reads it as it likes. All of it is a hint: what was not fetched
//! is read when it is wanted, and errors are found then.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::format::{to_u64, to_usize};

/// What is fetched at once.
const BLOCK: u64 = 1024 * 1024;
/// How many blocks may wait to be read: more than a reader asks for ahead, so that none is lost that is wanted.
const MAX_BLOCKS: usize = 6;
/// Offsets, lengths and memory of direct reads are multiples of this, which is what disks ask for as a rule: one that asks for more refuses.
const ALIGN: usize = 4096;

/// What has been fetched of one open file. The thread that fetches fills it, the one that reads empties it.
#[derive(Debug)]
pub(super) struct Fetched {
    path: PathBuf,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    /// In order; there may be gaps between them.
    blocks: VecDeque<Block>,
    /// Memory for more.
    spare: Vec<Buffer>,
    /// Up to where the reader has come.
    passed: u64,
    source: Source,
}

/// Bytes of the file from `start` to `end`.
#[derive(Debug)]
struct Block {
    start: u64,
    end: u64,
    /// Where the first of them is in the buffer.
    skipped: usize,
    buffer: Buffer,
}

/// Memory for one block, some of it unused so that the rest is aligned.
///
/// What is read into are whole pages that hold nothing else, and only the disk writes to them meanwhile. open(2) warns of direct reads
/// beside fork(2), which FreeSWITCH's `system` does: a page that the processor writes to is then replaced by a copy, and what the disk
/// brings goes to the other one.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    aligned: usize,
}

/// The file, opened twice more.
#[derive(Debug, Default)]
enum Source {
    #[default]
    Unopened,
    Open(Sides),
    /// It cannot be read past the cache.
    Refused,
}

#[derive(Debug)]
struct Sides {
    /// To see what is in the cache; the system reads nothing ahead for it.
    cached: File,
    direct: File,
}

/// A part of a file that is wanted soon.
#[derive(Debug)]
pub struct Wanted {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) fetched: Arc<Fetched>,
}

impl Wanted {
    /// Fetches it, or has the system do so. It may wait for the disk, so the publisher does not call it.
    pub fn fetch(self) {
        let end = self.offset.saturating_add(self.len);
        let mut from = self.offset;
        // No more when nobody has the file open any longer: a sync may wait for this thread.
        while from < end && Arc::strong_count(&self.fetched) > 1 {
            // Along the borders of blocks; only a page in which two requests meet is read twice.
            let to = end.min((from / BLOCK + 1) * BLOCK);
            if !self.fetched.fetch(&self.file, from, to, false) {
                hint(&self.file, from, to - from);
            }
            from = to;
        }
    }
}

impl Fetched {
    /// Nothing yet, of the file at this path.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stock: Mutex::default() }
    }

    /// Copies from what was fetched: as much as one block has from `offset` on. None when it was not.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        let mut stock = self.stock();
        stock.passed = offset;
        while stock.blocks.front().is_some_and(|block| block.end <= offset) {
            let Some(block) = stock.blocks.pop_front() else { break };
            stock.keep(block.buffer);
        }
        let block = stock.blocks.front().filter(|block| block.start <= offset)?;
        let bytes = block.bytes().get(to_usize(offset - block.start)..)?;
        let len = bytes.len().min(buffer.len());
        buffer.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        Some(len)
    }

    /// Forgets everything, and fetches no more.
    pub(super) fn end(&self) {
        *self.stock() = Stock { source: Source::Refused, ..Stock::default() };
    }

    /// Reads one block past the cache, or finds that nobody wants it. False when the system is to do it.
    fn fetch(&self, file: &File, from: u64, to: u64, even_if_cached: bool) -> bool {
        let (sides, spare) = {
            let mut stock = self.stock();
            if stock.passed >= to {
                return true;
            }
            if matches!(stock.source, Source::Unopened) {
                stock.source = Sides::open(&self.path, file).map_or(Source::Refused, Source::Open);
            }
            let Source::Open(sides) = &stock.source else { return false };
            let Ok(sides) = sides.try_clone() else { return false };
            (sides, stock.spare.pop())
        };
        // Not while the reader may want what is there: memory may be waited for.
        let Some(mut buffer) = spare.or_else(Buffer::new) else { return false };
        // The reader goes on meanwhile.
        let start = from - from % to_u64(ALIGN);
        let is_cached = !even_if_cached && sides.has_cached(from, to);
        let read = if is_cached { Ok(0) } else { sides.read(&mut buffer, start, to) };
        let mut stock = self.stock();
        if matches!(stock.source, Source::Refused) {
            return false;
        }
        let end = match read {
            Ok(read) => to.min(start + to_u64(read)),
            Err(error) => {
                // That it cannot be done here is for good; what else there is, the reader will be told.
                if Errno::from_io_error(&error) == Some(Errno::INVAL) {
                    stock.source = Source::Refused;
                }
                from
            }
        };
        if end <= from {
            stock.keep(buffer);
            return false;
        }
        stock.put(Block { start: from, end, skipped: to_usize(from - start), buffer });
        true
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn put(&mut self, block: Block) {
        // Somebody began to read elsewhere: what is here is of no use to him.
        while self.blocks.back().is_some_and(|last| last.end > block.start)
            || self.blocks.len() >= MAX_BLOCKS
        {
            let Some(old) = self.blocks.pop_front() else { break };
            self.keep(old.buffer);
        }
        self.blocks.push_back(block);
    }

    fn keep(&mut self, buffer: Buffer) {
        // One more may be about to be filled.
        if self.spare.len() + self.blocks.len() + 1 < MAX_BLOCKS {
            self.spare.push(buffer);
        }
    }
}

impl Block {
    fn bytes(&self) -> &[u8] {
        let len = to_usize(self.end - self.start);
        self.buffer.aligned().get(self.skipped..self.skipped + len).unwrap_or_default()
    }
}

impl Buffer {
    /// None where there is no memory.
    fn new() -> Option<Self> {
        // A block may begin and end within a page.
        let len = to_usize(BLOCK) + 2 * ALIGN;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        let aligned = bytes.as_ptr().align_offset(ALIGN);
        (aligned < ALIGN).then_some(Self { bytes, aligned })
    }

    fn aligned(&self) -> &[u8] {
        self.bytes.get(self.aligned..).unwrap_or_default()
    }
}

impl Sides {
    /// None when the file has another name by now, or cannot be read past the cache.
    fn open(path: &Path, file: &File) -> Option<Self> {
        let cached = File::open(path).ok()?;
        let direct = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let direct = OpenOptions::new().read(true).custom_flags(direct).open(path).ok()?;
        let is_same = |other: &File| Some(identity(other).ok()? == identity(file).ok()?);
        if !is_same(&cached)? || !is_same(&direct)? {
            return None;
        }
        // Or a look at one page would bring in those behind it.
        fadvise(&cached, 0, None, Advice::Random).ok()?;
        Some(Self { cached, direct })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { cached: self.cached.try_clone()?, direct: self.direct.try_clone()? })
    }

    /// Whether the first and the last of these bytes are in the cache, or nobody can say.
    fn has_cached(&self, from: u64, to: u64) -> bool {
        [from, to.saturating_sub(1)].into_iter().all(|at| {
            let looked =
                preadv2(&self.cached, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
            looked != Err(Errno::AGAIN)
        })
    }

    /// Reads from `start`, a multiple of [`ALIGN`], up to `to` or what the last page has behind it.
    fn read(&self, buffer: &mut Buffer, start: u64, to: u64) -> io::Result<usize> {
        let len = to_usize(to - start).next_multiple_of(ALIGN);
        let range = buffer.aligned..buffer.aligned + len;
        self.direct.read_at(buffer.bytes.get_mut(range).unwrap_or_default(), start)
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Has the system begin to read this. To make room for it and to ask the disk takes time as well.
pub(super) fn hint(file: &File, offset: u64, len: u64) {
    // Where it is not taken, the bytes are read when they are asked for.
    let _hint = fadvise(file, offset, NonZeroU64::new(len), Advice::WillNeed);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file of its own, of three and a half blocks, whose bytes tell where they are.
    struct Sample {
        path: PathBuf,
        bytes: Vec<u8>,
        file: File,
        fetched: Arc<Fetched>,
    }

    impl Sample {
        fn new(name: &str) -> Self {
            // Where the project is built: temporary files may lie in memory.
            let program = std::env::current_exe().unwrap();
            let path = program.with_file_name(format!("ahead-{name}-{}", std::process::id()));
            let bytes: Vec<u8> = (0..u32::try_from(BLOCK * 7 / 8).unwrap())
                .flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes())
                .collect();
            fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            file.sync_all().unwrap();
            let fetched = Arc::new(Fetched::new(&path));
            Self { path, bytes, file, fetched }
        }

        /// Fetches past the cache. False where this file system cannot.
        fn fetch(&self, from: u64, to: u64) -> bool {
            self.fetched.fetch(&self.file, from, to, true)
        }

        /// Reads what was fetched, as far as there is any.
        fn fetched(&self, mut at: u64, want: usize) -> Vec<u8> {
            let mut read = Vec::new();
            while read.len() < want {
                let mut buffer = vec![0; want - read.len()];
                let Some(len) = self.fetched.read(&mut buffer, at) else { break };
                read.extend_from_slice(&buffer[..len]);
                at += to_u64(len);
            }
            read
        }

        fn is(&self, at: u64, len: usize) -> &[u8] {
            &self.bytes[to_usize(at)..to_usize(at) + len]
        }
    }

    impl Drop for Sample {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.path));
        }
    }

    #[test]
    fn what_is_fetched_is_what_the_file_has() {
        let sample = Sample::new("same");
        let end = to_u64(sample.bytes.len());
        if !sample.fetch(777, BLOCK) {
            return;
        }
        assert!(sample.fetch(BLOCK, 2 * BLOCK) && sample.fetch(2 * BLOCK, 2 * BLOCK + 4097));
        assert_eq!(sample.fetched(776, 1), b"", "in front of it");
        assert_eq!(sample.fetched(777, 300_000), sample.is(777, 300_000));
        assert_eq!(sample.fetched(BLOCK - 5, 10), sample.is(BLOCK - 5, 10), "across two blocks");
        assert_eq!(sample.fetched(BLOCK - 5, 5), b"", "what is passed is given up");
        let last = sample.fetched(2 * BLOCK + 4000, 1000);
        assert_eq!(last, sample.is(2 * BLOCK + 4000, 97), "no more than was asked for");
        // Somewhere else, over the end of the file.
        assert!(sample.fetch(3 * BLOCK + 1, end + 10_000));
        assert_eq!(
            sample.fetched(3 * BLOCK + 1, 1 << 20),
            sample.is(3 * BLOCK + 1, to_usize(end - 3 * BLOCK) - 1)
        );
    }

    #[test]
    fn what_nobody_reads_takes_no_more_memory_than_that() {
        let sample = Sample::new("bound");
        if !sample.fetch(0, 4096) {
            return;
        }
        for page in 1..100 {
            assert!(sample.fetch(page * 4096, page * 4096 + 4096));
            let stock = sample.fetched.stock();
            assert!(stock.blocks.len() + stock.spare.len() <= MAX_BLOCKS);
        }
        // Elsewhere: what lies there is of no use any more, and its memory is.
        assert!(sample.fetch(0, BLOCK));
        let stock = sample.fetched.stock();
        assert_eq!((stock.blocks.len(), stock.spare.len()), (1, MAX_BLOCKS - 1));
    }

    #[test]
    fn a_file_that_has_changed_or_gone_is_read_as_usual() {
        let sample = Sample::new("written");
        if sample.fetch(0, BLOCK) {
            sample.fetched.end();
        }
        assert_eq!(sample.fetched(0, 10), b"");
        assert!(!sample.fetch(0, BLOCK), "it may be written again");
        let sample = Sample::new("replaced");
        fs::remove_file(&sample.path).unwrap();
        assert!(!sample.fetch(0, BLOCK), "it has no name");
        let sample = Sample::new("another");
        let other = sample.path.with_extension("other");
        fs::write(&other, &sample.bytes).unwrap();
        fs::rename(other, &sample.path).unwrap();
        assert!(!sample.fetch(0, BLOCK), "another has its name");
        assert_eq!(sample.fetched(0, 10), b"");
    }

    #[test]
    fn what_is_in_the_cache_is_left_there() {
        let sample = Sample::new("cached");
        fs::read(&sample.path).unwrap();
        let read = sample.fetched.fetch(&sample.file, 0, BLOCK, false);
        assert!(!read && sample.fetched(0, 10).is_empty());
    }
}
