// SPDX-License-Identifier: MIT
//! The writing side: append, the roll to the next segment, and what follows a failed fsync.

use super::batch::Batch;
use super::error::SpoolError;
use super::format::{
    self, FOOTER, HEADER, Header, Identity, Link, MAX_SEGMENT, Mark, RECORD, RecordHead, to_u64,
};
use super::quarantine;
use super::queue::{Active, Spool};
use super::segment::{Builder, Segment};
use super::storage::write_all;
use super::{Appended, Fsync, MAX_UNDURABLE_BYTES, MUCH_UNDURABLE_BYTES};

impl Spool {
    /// An empty batch for the next [`append`](Self::append).
    pub fn batch(&mut self) -> Batch {
        self.pending.batch()
    }

    /// Stores records in order, in one write per segment touched, and returns how many.
    ///
    /// Fewer than all means there is no room or writing failed, as the error says; the rest is
    /// still the caller's, and no part of it is on disk. An error with all accepted means they are
    /// held in memory until [`try_heal`](Self::try_heal) finds a way to make them durable.
    pub fn append(&mut self, batch: impl Into<Batch>) -> Appended {
        // There is none, unless an earlier call came to no end.
        self.pending.give_up_rest();
        self.pending.take_in(batch.into());
        let mut accepted = 0;
        let mut error = None;
        while error.is_none()
            && let Some(first) = self.pending.next()
        {
            let (taken, result) = self.append_some(&first);
            accepted += taken;
            error = result.err();
        }
        self.pending.give_up_rest();
        if error.is_none() && self.config.fsync == Fsync::Always {
            error = self.commit_data().err();
        }
        Appended { accepted, error }
    }

    /// Appends as many as fit into the active segment, making a new one if `first` does not.
    fn append_some(&mut self, first: &RecordHead) -> (usize, Result<(), SpoolError>) {
        if self.trouble.is_some() {
            return (0, Err(self.suspended()));
        }
        let need = RECORD + u64::from(first.len);
        if need > self.payload_limit() + RECORD {
            let (path, len) = (self.config.dir.clone(), u64::from(first.len));
            return (0, Err(SpoolError::TooLarge { path, len, limit: self.payload_limit() }));
        }
        if !self.has_room(need)
            && let Err(error) = self.roll(need, first.seq)
        {
            return (0, Err(error));
        }
        let now_ms = self.storage.unix_ms();
        let (Some(active), Some(segment)) = (self.active.as_mut(), self.segments.back_mut()) else {
            return (0, Err(self.suspended()));
        };
        let (start, age) = (segment.end, segment.age(now_ms));
        let records = self.pending.complete(&segment.identity, start, active.capacity, age);
        let (written, result) = write_all(active.file.as_ref(), records, start);
        // Whole records that did get written count, so that nothing is on disk that does not.
        let mut whole = 0usize;
        while let Some(head) = self.pending.next() {
            let after = segment.end + RECORD + u64::from(head.len);
            if after > start + to_u64(written) {
                break;
            }
            segment.note(head.seq, head.class, after);
            self.counts.appended_seq = Some(head.seq);
            self.pending.wrote(&head);
            whole += 1;
        }
        segment.disk = segment.disk.max(segment.end);
        self.counts.appended += to_u64(whole);
        let name = segment.name();
        if !self.syncs() {
            self.pending.all_durable();
            self.counts.durable_seq = self.counts.appended_seq;
        }
        if let Err(error) = result {
            let error = SpoolError::io("write a segment", &self.path_of(&name), error);
            self.degrade(&error);
            return (whole, Err(error));
        }
        let result = if self.pending.bytes() >= MAX_UNDURABLE_BYTES {
            self.await_sync().and_then(|()| self.begin_commit())
        } else if self.pending.bytes() >= MUCH_UNDURABLE_BYTES {
            let settled = self.settle_sync();
            if settled.is_ok() {
                self.begin_sync();
            }
            settled
        } else {
            Ok(())
        };
        (whole, result)
    }

    fn has_room(&self, need: u64) -> bool {
        match (&self.active, self.segments.back()) {
            (Some(active), Some(segment)) => segment.end + need + FOOTER <= active.capacity,
            _ => false,
        }
    }

    /// Seals the active segment and starts one that has room for `need` bytes.
    pub(super) fn roll(&mut self, need: u64, first_seq: u64) -> Result<(), SpoolError> {
        self.seal_active()?;
        // Sealing may have ended in a fresh segment, after a failed fsync.
        if self.has_room(need) {
            return Ok(());
        }
        self.seal_active()?;
        let capacity = match self.capacity_for(need) {
            Err(SpoolError::Full { .. }) if !self.retired.is_empty() => {
                self.write_cursor()?;
                self.capacity_for(need)?
            }
            other => other?,
        };
        self.start_segment(capacity, first_seq)
    }

    /// The size a new segment may have, if there is room for one.
    fn capacity_for(&self, need: u64) -> Result<u64, SpoolError> {
        let path = self.config.dir.clone();
        let least = HEADER + need + FOOTER;
        let (used, max) = (self.disk_bytes(), self.config.max_bytes);
        let capacity = self.config.segment_bytes.max(least).min(max.saturating_sub(used));
        if capacity < least {
            return Err(SpoolError::Full { path, used, max });
        }
        // A failure to ask is no reason to refuse: a full disk shows when the segment is reserved.
        let min = self.config.min_free_bytes;
        if let Ok(free) = self.storage.free_bytes(&path)
            && free < min.saturating_add(capacity)
        {
            return Err(SpoolError::LowDisk { path, free, min });
        }
        Ok(capacity.min(MAX_SEGMENT))
    }

    fn start_segment(&mut self, capacity: u64, first_seq: u64) -> Result<(), SpoolError> {
        let header = self.next_header(Link::None, first_seq);
        match self.create_segment(&header, capacity) {
            Ok(file) => {
                let mut segment = Segment::new(&header);
                segment.disk = capacity;
                self.segments.push_back(segment);
                self.active = Some(Active { file, durable_end: HEADER, capacity });
                Ok(())
            }
            Err((error, is_fsync)) => {
                self.counts.fsync_errors += u64::from(is_fsync);
                self.degrade(&error);
                Err(error)
            }
        }
    }

    /// A header for the next ordinal, which is used up by this.
    fn next_header(&mut self, link: Link, first_seq: u64) -> Header {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        Header {
            identity: Identity::new(ordinal, self.storage.entropy().max(1)),
            first_seq,
            created_ms: self.storage.unix_ms(),
            link,
        }
    }

    fn create_segment(
        &self,
        header: &Header,
        capacity: u64,
    ) -> Result<Box<dyn super::StorageFile>, (SpoolError, bool)> {
        let path = self.path_of(&format::segment_name(header.identity.ordinal));
        let file = self
            .storage
            .create(&path)
            .map_err(|error| (SpoolError::io("create a segment", &path, error), false))?;
        let prepared = file
            .allocate(capacity)
            .map_err(|error| (SpoolError::io("reserve space for a segment", &path, error), false))
            .and_then(|()| {
                let (_, written) = write_all(file.as_ref(), &format::encode_header(header), 0);
                written.map_err(|error| (SpoolError::io("write a segment", &path, error), false))
            })
            .and_then(|()| {
                if !self.syncs() {
                    return Ok(());
                }
                let synced = self.storage.sync_dir(&self.config.dir);
                synced.map_err(|error| {
                    (SpoolError::io("sync the folder", &self.config.dir, error), true)
                })
            });
        if let Err(error) = prepared {
            drop(file);
            // If this fails as well, the next start removes the empty segment.
            if let Err(error) = self.storage.unlink(&path) {
                log::debug!("spool {}: left behind: {error}", path.display());
            }
            return Err(error);
        }
        Ok(file)
    }

    /// Makes the active segment durable and ends it with a footer. On a disk that does not answer it
    /// stays active.
    pub(super) fn seal_active(&mut self) -> Result<(), SpoolError> {
        if self.active.is_none() {
            return Ok(());
        }
        let before = self.segments.back().map(Segment::ordinal);
        if self.syncs() {
            self.sync_active()?;
        }
        // A failed sync has ended in a fresh segment, which is durable.
        let same = |segment: &&mut Segment| Some(segment.ordinal()) == before;
        let Some(segment) = self.segments.back_mut().filter(same) else { return Ok(()) };
        let Some(active) = self.active.take() else { return Ok(()) };
        // Behind the sync, and not synced itself: a footer vouches for what it follows, and should a power cut take it,
        // the next start scans this segment, no more.
        let footer = format::encode_footer(&segment.footer());
        let (_, written) = write_all(active.file.as_ref(), &footer, segment.end);
        let end = if written.is_ok() { segment.end + FOOTER } else { segment.end };
        if active.file.truncate(end).is_ok() {
            segment.disk = end;
        }
        Ok(())
    }

    /// After a failed sync: the segment is never touched again, and what it may not have is written
    /// anew.
    pub(super) fn abandon_active(&mut self, error: std::io::Error) -> Result<(), SpoolError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        self.counts.fsync_errors += 1;
        // The descriptor goes with `active`, so nothing can sync it again.
        let durable_end = active.durable_end;
        drop(active);
        let path = self.path_of(&segment_name_of(self.segments.back()));
        let error = SpoolError::io("sync a segment", &path, error);
        log::error!("{error}; writing {} records anew", self.pending.records());
        if let Some(segment) = self.segments.back_mut() {
            segment.records = segment.records.saturating_sub(self.pending.records());
            segment.end = durable_end;
            segment.class_bytes = None;
            if let Some(seq) = self.counts.durable_seq.filter(|_| segment.records > 0) {
                segment.last_seq = seq;
            }
            let (ordinal, index) = (segment.ordinal(), segment.records);
            let (id, created_ms) = (segment.identity.id, segment.created_ms);
            self.make_void(Mark { ordinal, index, offset: durable_end }, id, created_ms);
        }
        self.rewrite_pending()
    }

    /// Writes what a failed fsync left in doubt to a fresh segment and makes it durable there.
    pub(super) fn rewrite_pending(&mut self) -> Result<(), SpoolError> {
        let Some(floor) = self.floor else { return Ok(()) };
        let first_seq = self.pending.entries().next().map_or(0, |entry| entry.seq);
        let mut header = self.next_header(Link::Instead { floor: floor.mark }, first_seq);
        // Their ages go on counting from there.
        header.created_ms = floor.created_ms;
        let need = HEADER + to_u64(self.pending.bytes()) + FOOTER;
        // Accepted is accepted: the bound on the folder does not apply to this, but it does not
        // take a full segment's room beyond the bound either.
        let spare = self.config.max_bytes.saturating_sub(self.disk_bytes());
        let capacity = need.max(self.config.segment_bytes.min(spare));
        let created = self.rebuild(&header, capacity);
        let (segment, file) = match created {
            Ok(built) => built,
            Err((error, is_fsync)) => {
                self.counts.fsync_errors += u64::from(is_fsync);
                self.degrade(&error);
                return Err(error);
            }
        };
        self.floor = None;
        self.pending.all_durable();
        self.counts.durable_seq = self.counts.appended_seq;
        self.shrink_abandoned(floor.mark.ordinal);
        self.moved(&floor, &segment);
        self.active = Some(Active { file, durable_end: segment.end, capacity });
        self.segments.push_back(segment);
        self.retire();
        Ok(())
    }

    fn rebuild(
        &self,
        header: &Header,
        capacity: u64,
    ) -> Result<(Segment, Box<dyn super::StorageFile>), (SpoolError, bool)> {
        let (storage, dir) = (self.storage.as_ref(), self.config.dir.as_path());
        let mut builder =
            Builder::create(storage, dir, header, capacity).map_err(|error| (error, false))?;
        for (entry, age_ms) in self.pending.aged() {
            if let Err(error) = builder.add(&entry, age_ms) {
                builder.discard(storage);
                return Err((error, false));
            }
        }
        builder.finish(storage, dir, false, self.syncs()).map_err(|failed| {
            if failed.renamed.is_some() {
                let path = self.path_of(&format::segment_name(header.identity.ordinal));
                // Should it stay, the next attempt's header makes it void.
                if let Err(error) = storage.unlink(&path) {
                    log::debug!("spool {}: left behind: {error}", path.display());
                }
            }
            (failed.error, failed.fsync)
        })
    }

    /// Gives back the space behind the durable end of an abandoned segment. A file of its own
    /// descriptor, and no fsync: the successor's header already makes that part void.
    fn shrink_abandoned(&mut self, ordinal: u64) {
        let dir = self.config.dir.clone();
        let is_it = |segment: &&mut Segment| segment.ordinal() == ordinal;
        let Some(segment) = self.segments.back_mut().filter(is_it) else { return };
        let path = dir.join(segment.name());
        let cut = self.storage.open(&path).and_then(|file| file.truncate(segment.end));
        match cut {
            Ok(()) => segment.disk = segment.end,
            Err(error) => log::debug!("spool {}: not shortened: {error}", path.display()),
        }
    }

    /// Writes the cursor and removes the files of the segments before it.
    pub(super) fn write_cursor(&mut self) -> Result<(), SpoolError> {
        if !self.cursor_dirty && self.retired.is_empty() && self.stuck.is_empty() {
            return Ok(());
        }
        let acked = self.durably_acked();
        if !self.cursor.is_at(acked, self.acked_id) {
            let seq = self.acked_seq.unwrap_or(0);
            let (storage, sync) = (self.storage.as_ref(), self.syncs());
            if let Err(failed) = self.cursor.write(storage, acked, self.acked_id, seq, sync) {
                self.counts.fsync_errors += u64::from(failed.fsync);
                let error = failed.error;
                if !std::mem::replace(&mut self.cursor_failing, true) {
                    log::warn!("{error}; acknowledged records may come twice after a restart");
                }
                return Err(error);
            }
        }
        self.cursor_dirty = acked != self.acked;
        self.cursor_failing = false;
        for segment in std::mem::take(&mut self.stuck) {
            if self.remove(&segment).is_err() {
                self.stuck.push(segment);
            }
        }
        while let Some(segment) = self.retired.pop_front() {
            if let Err(error) = self.remove(&segment) {
                // Should it never go, the cursor is past it, and the next start removes it.
                log::warn!("{error}; it is tried again");
                self.stuck.push(segment);
            }
        }
        Ok(())
    }

    /// Removes a segment's file, or moves it to quarantine if it is damaged.
    pub(super) fn remove(&mut self, segment: &Segment) -> Result<(), SpoolError> {
        let (name, id) = (segment.name(), segment.identity.id);
        let path = self.path_of(&name);
        let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if segment.damaged && !self.storage.open(&path).as_ref().is_err_and(is_gone) {
            return self.quarantine(&name, id);
        }
        match self.storage.unlink(&path) {
            Err(error) if !is_gone(&error) => {
                Err(SpoolError::io("remove an acknowledged segment", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn quarantine(&mut self, name: &str, id: u64) -> Result<(), SpoolError> {
        let (storage, bound) = (self.storage.as_ref(), quarantine::bound(&self.config));
        let path = quarantine::put(storage, &self.config.dir, bound, name, id)?;
        self.counts.quarantined += 1;
        log::warn!("spool {}: damaged, all that was whole is delivered", path.display());
        Ok(())
    }

    pub(super) fn suspended(&self) -> SpoolError {
        let reason = match &self.trouble {
            Some(trouble) => trouble.reason.clone(),
            None => "no segment can be written".to_owned(),
        };
        SpoolError::Suspended { path: self.config.dir.clone(), reason }
    }
}

fn segment_name_of(segment: Option<&Segment>) -> String {
    segment.map(Segment::name).unwrap_or_default()
}
