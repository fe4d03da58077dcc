// SPDX-License-Identifier: MIT
//! The files of dead letters, as their one writer sees them.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::letter::{Letter, id_and_time};
use super::{DeadError, Report};
use crate::lines::{self, Appended, Files};

/// Bytes of letters that wait for one write and one sync at most.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes of a file: a part of the whole, so that giving up the oldest doesn't cost much.
const FILE_PARTS: u64 = 8;
const FILE_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

/// Letters that a failing disk cost.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) letters: u64,
    pub(super) source: io::Error,
}

/// What the files hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) letters: u64,
    pub(super) bytes: u64,
    pub(super) oldest_ms: Option<u64>,
    pub(super) evicted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// The name of the file. Letters in it have this id or a higher one, below the next file's.
    first: u64,
    letters: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Store {
    files: Arc<dyn Files>,
    dir: PathBuf,
    _lock: File,
    /// Oldest first; the last one is appended to.
    segments: VecDeque<Segment>,
    current: Option<Box<dyn Appended>>,
    next_id: u64,
    /// Lines for the next write.
    pending: Vec<u8>,
    group: Segment,
    evicted: u64,
    /// Files that a failed write left longer than this.
    repairs: Vec<Segment>,
}

/// The id that a file's name says, when it is one of ours.
pub(super) fn first_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("dead-")?.strip_suffix(".ndjson")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

impl Segment {
    /// Counts the whole letters of `bytes`, and its damaged lines.
    fn count(first: u64, bytes: &[u8], mut each: impl FnMut(u64)) -> (Self, u64) {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut segment = Self { first, bytes: len, ..Self::default() };
        let mut damaged = 0;
        for line in lines::split(bytes) {
            let Some((id, time)) = line.ok().and_then(id_and_time) else {
                damaged += 1;
                continue;
            };
            segment.letters += 1;
            segment.oldest_ms = segment.oldest_ms.or(Some(time));
            each(id);
        }
        (segment, damaged)
    }

    fn add(&mut self, other: &Self) {
        self.letters += other.letters;
        self.bytes += other.bytes;
        self.oldest_ms = self.oldest_ms.or(other.oldest_ms);
    }
}

impl Store {
    /// Opens the folder and cuts off what a crash left of a last line.
    pub(super) fn open(files: Arc<dyn Files>, dir: &Path) -> Result<(Self, Report), DeadError> {
        let fail = |source| DeadError::Folder { dir: dir.into(), source };
        files.create_dir(dir).map_err(fail)?;
        let lock = files.lock(&dir.join("lock")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DeadError::Locked(dir.into()),
            _ => fail(source),
        })?;
        let mut firsts = Vec::new();
        for name in files.list(dir).map_err(fail)? {
            if name.strip_suffix(".tmp").and_then(first_id).is_some() {
                files.remove(&dir.join(&name)).map_err(fail)?;
            }
            firsts.extend(first_id(&name));
        }
        firsts.sort_unstable();
        let mut report = Report::default();
        let mut segments = VecDeque::new();
        let mut next_id = firsts.last().copied().unwrap_or(1).max(1);
        for first in firsts {
            let path = path(dir, first);
            let bytes = files.read(&path).map_err(fail)?;
            let whole = lines::terminated(&bytes);
            let torn = u64::try_from(bytes.len() - whole).unwrap_or(0);
            if torn > 0 {
                let keep = u64::try_from(whole).unwrap_or(u64::MAX);
                let mut file = files.append(&path).map_err(fail)?;
                file.truncate(keep).and_then(|()| file.sync()).map_err(fail)?;
                report.torn_bytes += torn;
            }
            let kept = bytes.get(..whole).unwrap_or_default();
            let (segment, damaged) =
                Segment::count(first, kept, |id| next_id = next_id.max(id.saturating_add(1)));
            report.letters += segment.letters;
            report.damaged += damaged;
            segments.push_back(segment);
        }
        let store = Self {
            files,
            dir: dir.into(),
            _lock: lock,
            segments,
            current: None,
            next_id,
            pending: Vec::new(),
            group: Segment::default(),
            evicted: 0,
            repairs: Vec::new(),
        };
        Ok((store, report))
    }

    /// Takes a letter in, unless it is too large to be kept at all: then true. When there are too
    /// many for one write the others are written before, which may fail.
    pub(super) fn put(&mut self, mut letter: Letter, max_bytes: u64) -> (bool, Option<Lost>) {
        letter.id = self.next_id;
        let mut line = Vec::with_capacity(letter.stored.len() * 4 / 3 + 512);
        letter.write(&mut line);
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if len > max_bytes {
            return (true, None);
        }
        let bound = u64::try_from(GROUP_BYTES).unwrap_or(u64::MAX).min(file_bytes(max_bytes));
        let full = self.group.letters > 0 && self.group.bytes + len > bound;
        let lost = full.then(|| self.flush(max_bytes).err()).flatten();
        self.next_id += 1;
        self.pending.extend_from_slice(&line);
        self.group.add(&Segment {
            letters: 1,
            bytes: len,
            oldest_ms: Some(letter.time_ms),
            ..self.group
        });
        (false, lost)
    }

    pub(super) fn has_pending(&self) -> bool {
        self.group.letters > 0
    }

    /// The highest id given out.
    pub(super) fn last_id(&self) -> u64 {
        self.next_id.saturating_sub(1)
    }

    /// Writes what is pending and makes it durable. After an error the
    /// letters are gone; the next ones are tried again.
    pub(super) fn flush(&mut self, max_bytes: u64) -> Result<(), Lost> {
        if !self.has_pending() {
            return Ok(());
        }
        let written = self.write(max_bytes).or_else(|_| {
            // Once more, with another descriptor: one that failed is never trusted again.
            self.abandon();
            self.write(max_bytes)
        });
        let group = std::mem::take(&mut self.group);
        self.pending.clear();
        written.map_err(|source| {
            self.abandon();
            Lost { letters: group.letters, source }
        })
    }

    fn write(&mut self, max_bytes: u64) -> io::Result<()> {
        self.look()?;
        self.repair()?;
        self.make_room(max_bytes)?;
        let fresh = self.current.is_none();
        let mut file = match self.current.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        file.append(&self.pending)?;
        file.sync()?;
        if fresh {
            self.files.sync_dir(&self.dir)?;
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.add(&self.group);
        }
        self.current = Some(file);
        Ok(())
    }

    /// The file to append to: the last one of an earlier run, or a new one.
    fn begin(&mut self) -> io::Result<Box<dyn Appended>> {
        if let Some(last) = self.segments.back() {
            return self.files.append(&path(&self.dir, last.first));
        }
        self.segments.push_back(Segment { first: self.first_pending(), ..Segment::default() });
        self.files.append(&path(&self.dir, self.first_pending()))
    }

    fn first_pending(&self) -> u64 {
        self.next_id.saturating_sub(self.group.letters)
    }

    /// Begins another file when the last one is full, and gives up the oldest ones.
    fn make_room(&mut self, max_bytes: u64) -> io::Result<()> {
        let used = self.segments.back().map_or(0, |last| last.bytes);
        if used > 0 && used + self.group.bytes > file_bytes(max_bytes) {
            self.turn_over();
        }
        while self.totals().bytes + self.group.bytes > max_bytes {
            let Some(oldest) = self.segments.front().copied() else { break };
            if oldest.bytes == 0 {
                break;
            }
            if self.segments.len() == 1 {
                self.current = None;
            }
            self.files.remove(&path(&self.dir, oldest.first))?;
            self.segments.pop_front();
            self.evicted += oldest.letters;
        }
        Ok(())
    }

    fn turn_over(&mut self) {
        self.current = None;
        self.segments.push_back(Segment { first: self.first_pending(), ..Segment::default() });
    }

    /// Has nothing more to do with the descriptor that failed. What it may have left behind what
    /// was durable is cut off before the next write.
    fn abandon(&mut self) {
        self.current = None;
        let Some(last) = self.segments.back().copied() else { return };
        self.repairs.push(last);
        if last.bytes == 0 {
            self.segments.pop_back();
        } else {
            self.turn_over();
        }
    }

    fn repair(&mut self) -> io::Result<()> {
        while let Some(damaged) = self.repairs.last() {
            let path = path(&self.dir, damaged.first);
            if damaged.bytes == 0 {
                self.files.remove(&path)?;
            } else if self.files.exists(&path) {
                let mut file = self.files.append(&path)?;
                file.truncate(damaged.bytes)?;
                file.sync()?;
            }
            self.repairs.pop();
        }
        Ok(())
    }

    /// Begins anew when somebody took the files away.
    fn look(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back().filter(|last| last.bytes > 0) else { return Ok(()) };
        if !self.files.exists(&path(&self.dir, last.first)) {
            log::warn!("dead letters in {} were taken away; new ones go on", self.dir.display());
            self.current = None;
            self.segments.clear();
            self.repairs.clear();
            self.files.create_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Takes letters out. Returns how many were there.
    pub(super) fn remove(&mut self, ids: &BTreeSet<u64>) -> io::Result<u64> {
        let mut removed = 0;
        let mut position = 0;
        while let Some(segment) = self.segments.get(position).copied() {
            let next = self.segments.get(position + 1).map_or(u64::MAX, |next| next.first);
            if segment.letters == 0 || ids.range(segment.first..next).next().is_none() {
                position += 1;
                continue;
            }
            let path = path(&self.dir, segment.first);
            let bytes = self.files.read(&path)?;
            let kept: Vec<u8> = bytes
                .split_inclusive(|byte| *byte == b'\n')
                .filter(|line| !id_and_time(line).is_some_and(|(id, _)| ids.contains(&id)))
                .flatten()
                .copied()
                .collect();
            let (now, _) = Segment::count(segment.first, &kept, |_| {});
            let is_last = position + 1 == self.segments.len();
            if is_last {
                self.current = None;
            }
            if now.letters == 0 && !is_last {
                self.files.remove(&path)?;
                self.segments.remove(position);
            } else {
                // The last file stays, empty or not: its name keeps ids from being used again.
                self.replace(&path, &kept)?;
                if let Some(segment) = self.segments.get_mut(position) {
                    *segment = now;
                }
                position += 1;
            }
            removed += segment.letters - now.letters;
        }
        self.files.sync_dir(&self.dir)?;
        if let [only] = self.segments.make_contiguous()
            && only.letters == 0
        {
            self.rename_empty()?;
        }
        Ok(removed)
    }

    /// Takes all letters out.
    pub(super) fn clear(&mut self) -> io::Result<u64> {
        let mut removed = 0;
        self.current = None;
        while let Some(oldest) = self.segments.front().copied() {
            if self.segments.len() == 1 {
                self.replace(&path(&self.dir, oldest.first), &[])?;
                self.segments = [Segment { first: oldest.first, ..Segment::default() }].into();
                self.rename_empty()?;
                return Ok(removed + oldest.letters);
            }
            self.files.remove(&path(&self.dir, oldest.first))?;
            self.segments.pop_front();
            removed += oldest.letters;
        }
        Ok(removed)
    }

    /// Names the only, empty file by the next id, so that no id is ever given out twice.
    fn rename_empty(&mut self) -> io::Result<()> {
        let next = self.next_id.saturating_sub(self.group.letters);
        let Some(only) = self.segments.back_mut().filter(|only| only.first < next) else {
            return Ok(());
        };
        self.files.rename(&path(&self.dir, only.first), &path(&self.dir, next))?;
        only.first = next;
        self.files.sync_dir(&self.dir)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let partial = PathBuf::from(name);
        self.files.remove(&partial)?;
        let mut file = self.files.append(&partial)?;
        file.append(bytes)?;
        file.sync()?;
        self.files.rename(&partial, path)
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals { evicted: self.evicted, ..Totals::default() };
        for segment in &self.segments {
            totals.letters += segment.letters;
            totals.bytes += segment.bytes;
            totals.oldest_ms = totals.oldest_ms.or(segment.oldest_ms);
        }
        totals
    }
}

fn file_bytes(max_bytes: u64) -> u64 {
    (max_bytes / FILE_PARTS).clamp(*FILE_BYTES.start(), *FILE_BYTES.end()).min(max_bytes.max(1))
}

fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("dead-{first:020}.ndjson"))
}
