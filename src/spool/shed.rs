// SPDX-License-Identifier: MIT
//! What changes the front of the queue: records put ahead of it, and old ones given up for room.

use super::error::SpoolError;
use super::format::{FOOTER, HEADER, Header, Identity, Link, Mark, record_bytes, short_id, to_u64};
use super::queue::Spool;
use super::scan::{Scanner, Step};
use super::segment::{BuildError, Builder, Segment};
use super::{Damage, DamageKind, Entry};

impl Spool {
    /// Puts entries, in order, ahead of everything unacknowledged, durable when this returns.
    /// Reading starts over with them, and positions handed out before are void. Meant for shutdown:
    /// what was in flight to the broker precedes what is spooled.
    ///
    /// May exceed `max_bytes` by the entries' size: they were accepted before.
    ///
    /// # Errors
    /// The segment could not be written; nothing has changed, the entries are still the caller's.
    pub fn prepend(&mut self, entries: &[Entry<'_>]) -> Result<(), SpoolError> {
        let Some(first) = entries.first() else { return Ok(()) };
        if self.is_silent() {
            return Err(self.silence());
        }
        self.retire();
        if self.durably_acked() != self.acked {
            // What was lent is acknowledged. The header must not point behind what the files have.
            match self.floor {
                Some(_) => self.rewrite_pending()?,
                None => self.sync_active()?,
            }
        }
        let needed: u64 = entries.iter().map(|entry| record_bytes(entry.payload)).sum();
        if HEADER + needed + FOOTER > super::format::MAX_SEGMENT {
            let (path, limit) = (self.config.dir.clone(), super::format::MAX_SEGMENT);
            return Err(SpoolError::TooLarge { path, len: needed, limit });
        }
        let ordinal = self.lowest_ordinal - 1;
        let header = Header {
            identity: Identity::new(ordinal, self.storage.entropy().max(1)),
            first_seq: first.seq,
            created_ms: self.storage.unix_ms(),
            link: Link::Ahead {
                resume: self.acked,
                id: short_id(self.acked_id),
                generation: self.cursor.generation,
            },
        };
        // Even if this fails, the name may stay behind; it is not used a second time.
        self.lowest_ordinal = ordinal;
        let mut builder = Builder::create(
            self.storage.as_ref(),
            &self.config.dir,
            &header,
            HEADER + needed + FOOTER,
        )?;
        for entry in entries {
            let entry = Entry { class: entry.class.min(2), ..*entry };
            if let Err(error) = builder.add(&entry, 0) {
                builder.discard(self.storage.as_ref());
                return Err(error);
            }
        }
        let segment = self.put_in_place(builder, true)?;
        if let Some(head) = self.segments.front_mut()
            && head.ordinal() == self.acked.ordinal
        {
            head.start = head.start.max(self.acked);
        }
        self.counts.appended += segment.records;
        self.acked = segment.start;
        self.acked_id = segment.identity.id;
        self.read = segment.start;
        self.moves.clear();
        self.segments.push_front(segment);
        self.reader.reset();
        self.cursor_dirty = true;
        // The segment's header already makes an older cursor harmless.
        if let Err(error) = self.write_cursor() {
            log::debug!("spool {}: {error}", self.config.dir.display());
        }
        Ok(())
    }

    /// Frees at least `bytes_needed` bytes of disk, if it can, by giving up the oldest records of a
    /// class above `keep_class`; `dropped` is told the sequence number and class of each, and what `label`
    /// makes of its payload. Records of the other classes stay, in their place and order. Works on whole segments that have not been
    /// read since the last rewind: what is in flight is left alone. Returns the bytes freed.
    ///
    /// In a spool that is suspended for want of room, [`try_heal`](Self::try_heal) is due at once when some was freed.
    ///
    /// # Errors
    /// The disk failed, or had failed before: giving up records mends no disk. What was told to `dropped` until then is gone, everything
    /// else is there.
    pub fn drop_oldest(
        &mut self,
        bytes_needed: u64,
        keep_class: u8,
        label: &dyn Fn(&[u8]) -> u16,
        dropped: &mut dyn FnMut(u64, u8, u16),
    ) -> Result<u64, SpoolError> {
        if self.is_silent() {
            return Err(self.silence());
        }
        if self.trouble.as_ref().is_some_and(|trouble| !trouble.is_full) {
            return Err(self.suspended());
        }
        self.retire();
        let before = self.disk_bytes();
        if !self.retired.is_empty() {
            self.write_cursor()?;
        }
        let freed = |spool: &Self| before.saturating_sub(spool.disk_bytes());
        let mut place = 0;
        while freed(self) < bytes_needed && place < self.segments.len() {
            let is_active = self.active.is_some() && place + 1 == self.segments.len();
            if self.is_victim(place, keep_class) {
                if is_active {
                    self.seal_active()?;
                    if self.floor.is_some() || self.active.is_some() {
                        break;
                    }
                }
                self.thin_out(place, keep_class, label, dropped)?;
            }
            place += 1;
        }
        // From the front, so that an emptied segment does not linger before a kept one.
        self.retire();
        if !self.retired.is_empty() {
            self.write_cursor()?;
        }
        // What was told to be dropped should not come back with a power cut.
        if self.syncs()
            && freed(self) > 0
            && let Err(error) = self.storage.sync_dir(&self.config.dir)
        {
            self.counts.fsync_errors += 1;
            log::debug!("spool {}: cannot sync the folder: {error}", self.config.dir.display());
        }
        if freed(self) > 0
            && let Some(trouble) = self.trouble.as_mut()
        {
            trouble.retry_at = None;
            trouble.gave_way = true;
        }
        Ok(freed(self))
    }

    /// How many bytes to free with [`drop_oldest`](Self::drop_oldest) so that what failed with `error` may go well. None where that is
    /// of no use: something else than room is wanting, or all that is spooled would not be enough, or it was done and did not help.
    pub fn room_wanted(&self, error: &SpoolError) -> Option<u64> {
        let wanted = match error {
            SpoolError::Full { .. } => 1,
            SpoolError::LowDisk { free, min, .. } => {
                min.saturating_add(self.config.segment_bytes).saturating_sub(*free)
            }
            SpoolError::Io { .. } | SpoolError::Suspended { .. } => {
                let trouble = self.trouble.as_ref()?;
                (trouble.is_full && !trouble.gave_way).then_some(self.config.segment_bytes)?
            }
            SpoolError::Config { .. }
            | SpoolError::Locked { .. }
            | SpoolError::TooLarge { .. }
            | SpoolError::Silent { .. } => return None,
        };
        (wanted <= self.disk_bytes()).then_some(wanted)
    }

    /// Whether a segment has not been read and holds something to give up.
    fn is_victim(&self, place: usize, keep_class: u8) -> bool {
        let Some(segment) = self.segments.get(place) else { return false };
        let is_unread = segment.ordinal() > self.read.ordinal
            || (segment.ordinal() == self.read.ordinal && self.read == self.acked);
        let is_floor = self.floor.is_some_and(|floor| floor.mark.ordinal <= segment.ordinal());
        let has_some = self.begin_of(segment).offset < segment.end;
        let has_droppable = segment.class_bytes.is_none_or(|bytes| {
            bytes.iter().skip(usize::from(keep_class) + 1).any(|bytes| *bytes > 0)
        });
        is_unread && !is_floor && !segment.held && has_some && has_droppable
    }

    /// Replaces a segment by one without the records to give up.
    fn thin_out(
        &mut self,
        place: usize,
        keep_class: u8,
        label: &dyn Fn(&[u8]) -> u16,
        dropped: &mut dyn FnMut(u64, u8, u16),
    ) -> Result<(), SpoolError> {
        let Some(mut old) = self.segments.get(place).cloned() else { return Ok(()) };
        let begin = self.begin_of(&old);
        let is_head = old.ordinal() == self.acked.ordinal;
        let header = Header {
            identity: Identity::new(old.ordinal(), self.storage.entropy().max(1)),
            first_seq: old.first_seq,
            created_ms: old.created_ms,
            link: old.link,
        };
        let (storage, dir) = (self.storage.clone(), self.config.dir.clone());
        let mut gone: Vec<(u64, u8, u16)> = Vec::new();
        let mut damage: Vec<Damage> = Vec::new();
        let mut kept: Option<Builder> = None;
        let path = self.path_of(&old.name());
        let failed = |error| SpoolError::io("read a segment", &path, error);
        let file = storage.open(&path).map_err(failed)?;
        let mut scanner = Scanner::default();
        let (mut at, mut last_seq) = (begin.offset, None);
        let mut classes = [0u64; 3];
        let result = loop {
            match scanner.step(file.as_ref(), &old.identity, at, old.end).map_err(failed) {
                Ok(Step::Record { head, payload, end }) => {
                    if let Some(bytes) = classes.get_mut(usize::from(head.class)) {
                        *bytes += end - at;
                    }
                    at = end;
                    last_seq = Some(head.seq);
                    let payload = scanner.bytes(payload);
                    if head.class > keep_class {
                        gone.push((head.seq, head.class, label(payload)));
                        continue;
                    }
                    let entry = Entry { seq: head.seq, class: head.class, payload };
                    if kept.is_none() {
                        match Builder::create(storage.as_ref(), &dir, &header, 0) {
                            Ok(builder) => kept = Some(builder),
                            Err(error) => break Err(error),
                        }
                    }
                    if let Some(builder) = kept.as_mut()
                        && let Err(error) = builder.add(&entry, head.age_ms)
                    {
                        break Err(error);
                    }
                }
                Ok(Step::Damage { to }) => {
                    let from_seq = last_seq.map_or(old.first_seq, |seq: u64| seq.saturating_add(1));
                    damage.push(corrupt(&old, at, to, from_seq));
                    at = to;
                }
                Ok(Step::Tail) => {
                    let from_seq = last_seq.map_or(old.first_seq, |seq| seq.saturating_add(1));
                    damage.push(corrupt(&old, at, old.end, from_seq));
                    break Ok(());
                }
                Ok(Step::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(file);
        // A damaged file is wanted whole in quarantine, which a rename over it would prevent; and
        // without anything to give up there is nothing to gain.
        let is_damaged = old.damaged || !damage.is_empty();
        if result.is_err() || gone.is_empty() || (is_damaged && kept.is_some()) {
            if let Some(builder) = kept {
                builder.discard(storage.as_ref());
            }
            if let Some(segment) = self.segments.get_mut(place).filter(|_| result.is_ok()) {
                segment.class_bytes = Some(if is_damaged { [0; 3] } else { classes });
            }
            return result;
        }
        // An emptied segment with a link keeps the link until it is removed in its turn.
        if kept.is_none() && old.link != Link::None && !is_damaged {
            kept = Some(Builder::create(storage.as_ref(), &dir, &header, 0)?);
        }
        old.damaged = is_damaged;
        let replacement = match kept {
            Some(builder) => Some(self.put_in_place(builder, false)?),
            None => None,
        };
        self.adopt(place, &old, replacement, is_head);
        let mut lost = old.records.saturating_sub(begin.index).saturating_sub(to_u64(gone.len()));
        for mut damage in damage {
            damage.records = Some(std::mem::take(&mut lost));
            damage.to_seq = damage.to_seq.or(Some(old.last_seq));
            if damage.offset >= old.reported {
                self.damage.push(damage);
            }
        }
        for (seq, class, label) in gone {
            dropped(seq, class, label);
        }
        Ok(())
    }

    /// Takes note of what a segment has been replaced by, if by anything.
    fn adopt(&mut self, place: usize, old: &Segment, new: Option<Segment>, is_head: bool) {
        self.reader.reset();
        if let Some(new) = new {
            if is_head {
                self.acked = new.start;
                self.acked_id = new.identity.id;
                self.read = self.acked;
                self.cursor_dirty = true;
            }
            if let Some(seat) = self.segments.get_mut(place) {
                *seat = new;
            }
            return;
        }
        // Nothing is left in it: behind its end lies the next one. Its file goes like any other
        // that is acknowledged if it is the head, and at once if it is not.
        if is_head {
            let mark = Mark { ordinal: old.ordinal(), index: old.records, offset: old.end };
            self.acked = mark;
            self.acked_id = old.identity.id;
            self.read = mark;
            self.cursor_dirty = true;
        } else if let Some(segment) = self.segments.get_mut(place) {
            segment.start =
                Mark { ordinal: old.ordinal(), index: segment.records, offset: segment.end };
            // Should removing fail, which is logged, the records come all the same after a restart.
            segment.damaged = false;
            segment.disk = 0;
            if let Err(error) = self.remove(old) {
                log::warn!("{error}");
            }
        }
    }

    fn put_in_place(&mut self, builder: Builder, is_new: bool) -> Result<Segment, SpoolError> {
        let sync = self.syncs();
        let path = self.path_of(&builder.segment.name());
        match builder.finish(self.storage.as_ref(), &self.config.dir, true, sync) {
            Ok((segment, _)) => Ok(segment),
            Err(BuildError { error, fsync, renamed }) => {
                self.counts.fsync_errors += u64::from(fsync);
                match renamed {
                    // Old or new, what a power cut leaves has every record that is kept.
                    Some(segment) if !is_new => {
                        log::warn!("{error}");
                        return Ok(*segment);
                    }
                    // The caller keeps the entries, so they must not turn up here.
                    Some(_) => {
                        if let Err(error) = self.storage.unlink(&path) {
                            log::warn!("spool {}: cannot remove: {error}", path.display());
                        }
                    }
                    None => {}
                }
                Err(error)
            }
        }
    }
}

fn corrupt(segment: &Segment, from: u64, to: u64, from_seq: u64) -> Damage {
    Damage {
        kind: DamageKind::Corrupt,
        segment: segment.ordinal(),
        offset: from,
        bytes: to.saturating_sub(from),
        from_seq: Some(from_seq),
        to_seq: None,
        records: None,
    }
}
