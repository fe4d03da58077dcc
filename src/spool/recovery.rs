// SPDX-License-Identifier: MIT
//! Opening: from the files that are there to a spool that goes on where it stopped.
//!
//! Sealed segments are taken at their footers' word; only the others are scanned. Whatever is found,
//! opening succeeds as long as the folder can be used at all: damage is reported, never a reason to
//! refuse.

use std::path::Path;
use std::sync::Arc;

use super::batch::Pending;
use super::cursor::Cursor;
use super::error::SpoolError;
use super::format::{self, FOOTER, to_u64};
use super::quarantine;
use super::queue::{Clock, Counts, Spool};
use super::reader::Reader;
use super::segment::Segment;
use super::storage::{Lock, Storage, StorageFile, write_all};
use super::survey::Survey;
use super::{Recovery, SpoolConfig};

/// Ordinals start in the middle, so that there is room ahead of the first.
pub(super) const FIRST_ORDINAL: u64 = 1 << 32;
pub(super) const LOCK: &str = "lock";

impl Spool {
    /// Opens the spool in `config.dir`, creating the folder if need be, and finds what is waiting.
    ///
    /// # Errors
    /// The settings contradict each other, the folder cannot be used, or another process has it.
    /// The caller goes on without a spool and tries again later.
    pub fn open(
        config: SpoolConfig,
        storage: Arc<dyn Storage>,
    ) -> Result<(Self, Recovery), SpoolError> {
        Self::open_as(config, storage, false)
    }

    /// The same for when that has failed repeatedly: a segment that its disk does not let us open or read is set aside, like one
    /// without permission, and tried again with the next start.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_without_unreadable(
        config: SpoolConfig,
        storage: Arc<dyn Storage>,
    ) -> Result<(Self, Recovery), SpoolError> {
        Self::open_as(config, storage, true)
    }

    fn open_as(
        config: SpoolConfig,
        storage: Arc<dyn Storage>,
        sets_aside: bool,
    ) -> Result<(Self, Recovery), SpoolError> {
        check(&config)?;
        let lock = take_lock(storage.as_ref(), &config.dir)?;
        let mut found = Survey::default();
        found.quarantine_bytes = quarantine::bound(&config);
        let ordinals = found.list(storage.as_ref(), &config.dir)?;
        for (ordinal, held) in ordinals {
            let examined = found.examine(storage.as_ref(), &config.dir, ordinal, held);
            if let Err(error) = examined {
                if !sets_aside || !error.is_of_file() {
                    return Err(error);
                }
                found.recovery.problems.push(format!("{error}; set aside"));
                found.hold(storage.as_ref(), &config.dir, ordinal, held);
            }
        }
        found.apply_rewrites();
        let (mut cursor, slot) = Cursor::load(storage.as_ref(), &config.dir);
        let slot = slot.unwrap_or_else(|why| {
            found.recovery.cursor_lost = Some(why);
            None
        });
        let acked = found.apply_cursor(slot.as_ref());
        cursor.generation = cursor.generation.max(found.generation);
        let mut spool = Self {
            next_ordinal: found.next_ordinal(slot.as_ref()),
            lowest_ordinal: found.lowest.unwrap_or(FIRST_ORDINAL).min(acked.ordinal),
            segments: found.segments.into(),
            retired: found.retired.into(),
            stuck: Vec::new(),
            active: None,
            pending: Pending::default(),
            underway: None,
            floor: None,
            moves: Vec::new(),
            acked,
            acked_id: slot.map_or(0, |slot| slot.id),
            acked_seq: slot.map(|slot| slot.seq),
            read: acked,
            reader: Reader::default(),
            cursor,
            cursor_dirty: found.cursor_dirty,
            cursor_failing: false,
            clock: Clock::default(),
            counts: Counts {
                quarantined: to_u64(found.recovery.quarantined.len()),
                ..Counts::default()
            },
            damage: Vec::new(),
            trouble: None,
            deadline: None,
            is_closing: false,
            config,
            storage,
            lock,
        };
        let mut recovery = found.recovery;
        spool.seal_leftovers(&found.unsealed, &mut recovery);
        spool.clear_away(&mut recovery);
        Ok((spool, recovery))
    }

    /// Seals what a crash left open, so that the next start need not scan it again, and so that it
    /// is durable before it is read.
    fn seal_leftovers(&mut self, unsealed: &[u64], recovery: &mut Recovery) {
        let (dir, syncs) = (self.config.dir.clone(), self.syncs());
        for segment in &mut self.segments {
            if !unsealed.contains(&segment.ordinal()) || segment.records == 0 {
                continue;
            }
            let path = dir.join(segment.name());
            match seal(self.storage.as_ref(), &path, segment, syncs) {
                Ok(()) => segment.disk = segment.end + FOOTER,
                Err((error, is_fsync)) => {
                    self.counts.fsync_errors += u64::from(is_fsync);
                    recovery.problems.push(format!("{error}; it will be scanned again"));
                }
            }
        }
    }

    /// Sorts out what is acknowledged or empty, and counts the rest.
    fn clear_away(&mut self, recovery: &mut Recovery) {
        self.retire();
        for segment in &self.segments {
            let begin = self.begin_of(segment);
            recovery.records += segment.records.saturating_sub(begin.index);
            recovery.bytes += segment.end.saturating_sub(begin.offset);
        }
        // Files behind the cursor on disk can go at once; for others the cursor is written first.
        if let Err(error) = self.write_cursor() {
            recovery.problems.push(error.to_string());
        }
    }
}

fn check(config: &SpoolConfig) -> Result<(), SpoolError> {
    let refuse = |problem: String| {
        let path = config.dir.clone();
        Err(SpoolError::Config { path, problem })
    };
    let (least, most) = (SpoolConfig::MIN_SEGMENT_BYTES, SpoolConfig::MAX_SEGMENT_BYTES);
    if !(least..=most).contains(&config.segment_bytes) {
        let found = config.segment_bytes;
        return refuse(format!("segment-bytes must be from {least} to {most}, found {found}"));
    }
    if config.max_bytes < config.segment_bytes {
        let (max, segment) = (config.max_bytes, config.segment_bytes);
        return refuse(format!("max-bytes ({max}) must be at least segment-bytes ({segment})"));
    }
    if matches!(config.fsync, super::Fsync::Interval(interval) if interval.is_zero()) {
        return refuse(
            "fsync=interval needs fsync-interval-ms above 0; or set fsync=always".to_owned(),
        );
    }
    Ok(())
}

/// Creates the folder and locks it.
pub(super) fn take_lock(
    storage: &dyn Storage,
    dir: &Path,
) -> Result<Box<dyn StorageFile>, SpoolError> {
    storage.create_dir(dir).map_err(|error| SpoolError::io("create the folder", dir, error))?;
    let path = dir.join(LOCK);
    let owner = std::process::id().to_string();
    match storage.lock(&path, &owner) {
        Ok(Lock::Held(file)) => Ok(file),
        Ok(Lock::Busy(holder)) => {
            let owner = if holder == owner {
                "another sink of this process".to_owned()
            } else if holder.is_empty() {
                "another process".to_owned()
            } else {
                format!("process {holder}")
            };
            Err(SpoolError::Locked { path, owner })
        }
        Err(error) => Err(SpoolError::io("create the lock file", &path, error)),
    }
}

fn seal(
    storage: &dyn Storage,
    path: &Path,
    segment: &Segment,
    syncs: bool,
) -> Result<(), (SpoolError, bool)> {
    let failed = |what| move |error| (SpoolError::io(what, path, error), false);
    let file = storage.open(path).map_err(failed("open a segment"))?;
    if syncs {
        let synced = file.sync_data();
        synced.map_err(|error| (SpoolError::io("sync a segment", path, error), true))?;
    }
    // Behind the sync: a footer vouches for what it follows.
    let footer = format::encode_footer(&segment.footer());
    write_all(file.as_ref(), &footer, segment.end).1.map_err(failed("seal a segment"))?;
    file.truncate(segment.end + FOOTER).map_err(failed("seal a segment"))
}
