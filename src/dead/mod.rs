// SPDX-License-Identifier: MIT
//! The dead letters of a sink: messages that the broker rejects for themselves.
//!
//! One never blocks those behind it. It goes, with the reason, to files that an operator reads with
//! `less` or `jq`, or with `rustbridge dlq`, and can be sent again from there.
//!
//! A folder holds `dead-<first id>.ndjson`, one letter a line, ids ascending, the oldest whole file
//! given up when `dead-letter-max-bytes` is reached. A letter is durable after [`DeadLetters::flush`];
//! until then the publisher must not let go of the message. Files change in two ways only: lines
//! are appended to the last one, and a file without the letters that were removed takes the place
//! of the one that had them. So whoever reads needs no lock.

mod base64;
mod letter;
mod reader;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use letter::{Letter, Revived};

use self::store::Store;
use crate::lines::{Disk, Files};

/// Why there can be no dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// The folder or a file in it cannot be used.
    #[error("dead letters cannot be kept in {}: {source}; FreeSWITCH's user must be able to create and write files there", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another sink, keeps its own there.
    #[error("the folder {} for dead letters is in use by another process or sink; give each sink its own dead-letter-dir", .0.display())]
    Locked(PathBuf),
}

/// What was found when the dead letters were opened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Whole letters.
    pub letters: u64,
    /// Bytes of a line that a crash had cut short; they are gone.
    pub torn_bytes: u64,
    /// Lines that are damaged; they stay where they are and are passed over.
    pub damaged: u64,
    /// Why nothing can be kept at the moment. Tried again with later letters.
    pub problem: Option<String>,
}

/// Dead letters in numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Letters in the files.
    pub letters: u64,
    /// Bytes that the files take.
    pub bytes: u64,
    /// When the oldest was given up, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Letters that gave way to newer ones since the sink started.
    pub evicted: u64,
    /// Letters that could not be kept: none are to be, or the disk failed.
    pub not_kept: u64,
    /// Letters that are on their way to the broker again.
    pub retrying: u64,
    /// Why nothing can be kept at the moment.
    pub problem: Option<String>,
}

/// Which letters are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// Every one that is there now.
    All,
    /// This one.
    One(u64),
}

/// The dead letters of one sink.
///
/// Shared by its publisher, which puts them in, those that replace the publisher on reload, and
/// the threads of commands. Everything takes a lock that may be held during a write to disk, so
/// nothing here is for a thread of FreeSWITCH's that delivers events; [`list`](Self::list) and
/// [`get`](Self::get) read the files beside the writer and take none.
#[derive(Debug)]
pub struct DeadLetters {
    dir: PathBuf,
    state: Mutex<State>,
    /// Something waits for the publisher: a retry or a flush.
    busy: AtomicBool,
    /// Letters in the files, for whoever must not wait for the lock.
    kept: AtomicU64,
}

#[derive(Debug)]
struct State {
    files: Arc<dyn Files>,
    max_bytes: u64,
    store: Option<Store>,
    open_at: Instant,
    problem: Option<String>,
    not_kept: u64,
    /// Letters to be sent again: the next id, and the last.
    wanted: Option<(u64, u64)>,
    /// What was read ahead of these: the rest of a file.
    ahead: VecDeque<Letter>,
    /// Letters sent again and not yet answered for.
    retrying: BTreeSet<u64>,
    /// Letters answered for, to be taken out of the files.
    settled: BTreeSet<u64>,
    removed_at: Instant,
}

/// How soon a folder that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// Taking a letter out writes its file anew, so it is done for many at a time.
const REMOVE_EVERY: Duration = Duration::from_secs(1);

impl DeadLetters {
    /// Opens or creates the folder. Never fails: what goes wrong is in the report, letters are then
    /// only counted, and the folder is tried again later.
    ///
    /// `max_bytes` bounds all files together; with 0 none are kept.
    pub fn open(dir: &Path, max_bytes: u64) -> (Self, Report) {
        Self::open_with(Arc::new(Disk), dir, max_bytes)
    }

    fn open_with(files: Arc<dyn Files>, dir: &Path, max_bytes: u64) -> (Self, Report) {
        let now = Instant::now();
        let mut state = State {
            files,
            max_bytes,
            store: None,
            open_at: now,
            problem: None,
            not_kept: 0,
            wanted: None,
            ahead: VecDeque::new(),
            retrying: BTreeSet::new(),
            settled: BTreeSet::new(),
            removed_at: now,
        };
        let report = state.open(dir, now);
        let dead = Self {
            dir: dir.into(),
            kept: AtomicU64::new(state.kept()),
            state: Mutex::new(state),
            busy: AtomicBool::new(false),
        };
        (dead, report)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is whole between any two statements, whatever a panic cut short.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Goes on under another bound, after a reload.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.state().max_bytes = max_bytes;
    }

    /// Takes a letter in and gives it the next id. It is kept for sure only after the next
    /// [`flush`](Self::flush). For the publisher.
    pub fn put(&self, letter: Letter) {
        self.busy.store(true, Ordering::Release);
        self.state().put(&self.dir, letter);
    }

    /// Makes what was put durable, and takes out what was settled. For the publisher, once per
    /// round and before it lets go of the messages; costs one atomic operation when there is
    /// nothing to do.
    pub fn flush(&self) {
        if !self.busy.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        state.flush(&self.dir, Instant::now());
        self.kept.store(state.kept(), Ordering::Relaxed);
        let idle = state.wanted.is_none() && state.settled.is_empty();
        self.busy.store(!idle, Ordering::Release);
    }

    /// Asks for letters to be sent again by the publisher. Returns how many will be, not counting
    /// those that are on their way already. For any thread of a command's.
    ///
    /// # Errors
    ///
    /// When there is no letter with this number.
    pub fn ask_retry(&self, which: Which) -> Result<u64, NoLetter> {
        let (first, last) = match which {
            Which::One(id) => {
                self.get(id).ok_or(NoLetter(id))?;
                (id, id)
            }
            Which::All => (0, u64::MAX),
        };
        // What is only in memory yet is wanted too.
        let mut state = self.state();
        state.flush(&self.dir, Instant::now());
        self.kept.store(state.kept(), Ordering::Relaxed);
        let last = last.min(state.store.as_ref().map_or(0, Store::last_id));
        let found = reader::ids(&self.dir, first, last);
        let fresh =
            found.filter(|id| !state.retrying.contains(id) && !state.settled.contains(id)).count();
        if fresh > 0 {
            let (from, to) = state.wanted.unwrap_or((first, last));
            state.wanted = Some((from.min(first), to.max(last)));
            state.ahead.clear();
            self.busy.store(true, Ordering::Release);
        }
        Ok(u64::try_from(fresh).unwrap_or(u64::MAX))
    }

    /// Letters to be sent again now, so that up to `max` are on their way. Each stays in the files
    /// until it is [`settle`](Self::settle)d. For the publisher, once per round.
    pub fn take_retries(&self, max: usize) -> Vec<Letter> {
        if !self.busy.load(Ordering::Acquire) || max == 0 {
            return Vec::new();
        }
        let mut state = self.state();
        let mut letters = Vec::new();
        while state.retrying.len() < max
            && let Some(letter) = state.next_retry(&self.dir)
        {
            state.retrying.insert(letter.id);
            letters.push(letter);
        }
        letters
    }

    /// A letter that was sent again is delivered, spooled, or a dead letter once more (then put
    /// that one first): the old one is taken out with one of the next flushes. For the publisher.
    pub fn settle(&self, id: u64) {
        let mut state = self.state();
        state.retrying.remove(&id);
        state.settled.insert(id);
        self.busy.store(true, Ordering::Release);
    }

    /// A letter that was to be sent again will not be after all: it stays. For the publisher.
    pub fn give_back(&self, id: u64) {
        self.state().retrying.remove(&id);
    }

    /// Throws letters away. Returns how many. Those on their way to the broker again stay until
    /// that is decided.
    ///
    /// # Errors
    ///
    /// When there is no such letter, or the disk fails.
    pub fn purge(&self, which: Which) -> Result<u64, PurgeError> {
        if let Which::One(id) = which {
            self.get(id).ok_or(NoLetter(id))?;
        }
        let mut state = self.state();
        state.flush(&self.dir, Instant::now());
        state.ahead.clear();
        let State { store: Some(store), retrying, settled, .. } = &mut *state else {
            return Ok(0);
        };
        let is_busy = |id: &u64| retrying.contains(id) || settled.contains(id);
        let purged = match which {
            Which::One(id) if is_busy(&id) => Ok(0),
            Which::One(id) => store.remove(&BTreeSet::from([id])),
            Which::All if retrying.is_empty() && settled.is_empty() => store.clear(),
            Which::All => {
                let all = reader::ids(&self.dir, 0, store.last_id());
                store.remove(&all.filter(|id| !is_busy(id)).collect())
            }
        };
        self.kept.store(state.kept(), Ordering::Relaxed);
        purged.map_err(|source| PurgeError::Disk { dir: self.dir.clone(), source })
    }

    /// Letters in the files. Waits for nothing.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Letters from the id `from` on, at most `limit`. For any thread of a command's.
    pub fn list(&self, from: u64, limit: usize) -> Vec<Letter> {
        reader::letters(&self.dir, from).take(limit).collect()
    }

    /// The letter with this id.
    pub fn get(&self, id: u64) -> Option<Letter> {
        reader::letters(&self.dir, id).next().filter(|letter| letter.id == id)
    }

    /// How they stand.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        let store = state.store.as_ref().map(Store::totals).unwrap_or_default();
        Stats {
            letters: store.letters,
            bytes: store.bytes,
            oldest_ms: store.oldest_ms,
            evicted: store.evicted,
            not_kept: state.not_kept,
            retrying: u64::try_from(state.retrying.len()).unwrap_or(u64::MAX),
            problem: state.problem.clone(),
        }
    }
}

/// No letter has this id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no dead letter {0}; it may have been sent, purged or given way to newer ones")]
pub struct NoLetter(pub u64);

/// Why letters could not be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// There are none such.
    #[error(transparent)]
    NoLetter(#[from] NoLetter),
    /// The disk failed.
    #[error("dead letters in {} cannot be removed: {source}", dir.display())]
    Disk {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl State {
    fn kept(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.totals().letters)
    }

    fn open(&mut self, dir: &Path, now: Instant) -> Report {
        self.open_at = now + OPEN_AGAIN;
        if self.max_bytes == 0 {
            return Report::default();
        }
        match Store::open(Arc::clone(&self.files), dir) {
            Ok((store, report)) => {
                self.store = Some(store);
                self.trouble(None);
                report
            }
            Err(error) => {
                self.trouble(Some(error.to_string()));
                Report { problem: self.problem.clone(), ..Report::default() }
            }
        }
    }

    /// Notes how the disk does, and says it when that changes.
    fn trouble(&mut self, problem: Option<String>) {
        match (&self.problem, &problem) {
            (None, Some(words)) => log::error!("{words}; dead letters are only counted meanwhile"),
            (Some(_), None) => log::info!("dead letters are kept again"),
            _ => {}
        }
        self.problem = problem;
    }

    /// The next letter that is wanted and not on its way already. A file is read once for all that is wanted of it.
    fn next_retry(&mut self, dir: &Path) -> Option<Letter> {
        loop {
            let (from, to) = self.wanted?;
            if self.ahead.is_empty() {
                self.ahead = reader::first_letters(dir, from).into();
            }
            let next = self.ahead.pop_front();
            let Some(letter) = next.filter(|letter| letter.id <= to) else {
                self.wanted = None;
                self.ahead = VecDeque::new();
                return None;
            };
            self.wanted = Some((letter.id.saturating_add(1), to)).filter(|(from, to)| from <= to);
            if !self.retrying.contains(&letter.id) && !self.settled.contains(&letter.id) {
                return Some(letter);
            }
        }
    }

    fn put(&mut self, dir: &Path, letter: Letter) {
        if self.max_bytes == 0 {
            self.not_kept += 1;
            return;
        }
        let now = Instant::now();
        if self.store.is_none() && now >= self.open_at {
            self.open(dir, now);
        }
        let Some(store) = self.store.as_mut() else {
            self.not_kept += 1;
            return;
        };
        let (too_large, lost) = store.put(letter, self.max_bytes);
        self.not_kept += u64::from(too_large);
        if let Some(lost) = lost {
            self.failed(dir, &lost);
        }
    }

    fn flush(&mut self, dir: &Path, now: Instant) {
        let Some(store) = self.store.as_mut() else { return };
        let had = store.has_pending();
        match store.flush(self.max_bytes) {
            Ok(()) if had => self.trouble(None),
            Ok(()) => {}
            Err(lost) => return self.failed(dir, &lost),
        }
        let due = self.retrying.is_empty() || now >= self.removed_at + REMOVE_EVERY;
        if due && !self.settled.is_empty() {
            self.removed_at = now;
            let settled = std::mem::take(&mut self.settled);
            let removed = self.store.as_mut().map_or(Ok(0), |store| store.remove(&settled));
            if let Err(source) = removed {
                // Still in the files: they would be sent again by the next retry, no more.
                let error = DeadError::Folder { dir: dir.into(), source };
                self.trouble(Some(error.to_string()));
            }
        }
    }

    fn failed(&mut self, dir: &Path, lost: &store::Lost) {
        self.not_kept += lost.letters;
        self.trouble(Some(format!(
            "dead letters cannot be kept in {}: {}; free some space or mend the folder",
            dir.display(),
            lost.source
        )));
    }
}
