// SPDX-License-Identifier: MIT
//! What the files of a spool say, put together: which records are there, which are void, which are
//! acknowledged, and what is damaged.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::error::SpoolError;
use super::format::{self, FOOTER, HEADER, Header, HeaderRead, Identity, Link, Mark, Slot};
use super::quarantine;
use super::recovery::{FIRST_ORDINAL, LOCK};
use super::scan::{Scanner, Step};
use super::segment::Segment;
use super::storage::{Storage, StorageFile, read_full};
use super::{Damage, DamageKind, Recovery};

/// Ending of the name of a segment that an earlier run could not read.
const HELD: &str = ".held";

/// What the files say, before any of it is changed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) segments: Vec<Segment>,
    /// Void or acknowledged.
    pub(super) retired: Vec<Segment>,
    /// Ordinals of segments without a valid footer.
    pub(super) unsealed: Vec<u64>,
    /// Ordinals of segments with a destroyed header, so that links and age are unknown.
    headless: Vec<u64>,
    /// Ordinals of segments that an earlier run could not read and set aside, cursor or not.
    held: Vec<u64>,
    /// Lowest and highest ordinal in use, by whatever.
    pub(super) lowest: Option<u64>,
    highest: u64,
    /// Highest cursor generation that a header mentions.
    pub(super) generation: u64,
    pub(super) cursor_dirty: bool,
    /// The bound on what lies in quarantine.
    pub(super) quarantine_bytes: u64,
    pub(super) recovery: Recovery,
}

impl Survey {
    /// Lists the folder: ordinals of segments, in order. Removes unfinished files of ours.
    pub(super) fn list(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
    ) -> Result<Vec<(u64, bool)>, SpoolError> {
        let mut ordinals = Vec::new();
        let names =
            storage.list(dir).map_err(|error| SpoolError::io("list the folder", dir, error))?;
        for found in names {
            let name = found.name.to_str().unwrap_or_default();
            let ordinal = format::ordinal_of(name, ".seg").map(|ordinal| (ordinal, false));
            let held = || format::ordinal_of(name, HELD).map(|ordinal| (ordinal, true));
            let ordinal = ordinal.or_else(held).filter(|_| !found.is_dir);
            let is_unfinished = format::ordinal_of(name, ".tmp").is_some() || name == "cursor.tmp";
            if let Some((ordinal, is_held)) = ordinal {
                ordinals.push((ordinal, is_held));
                self.highest = self.highest.max(ordinal);
                self.lowest = Some(self.lowest.map_or(ordinal, |lowest| lowest.min(ordinal)));
            } else if is_unfinished && !found.is_dir {
                let path = dir.join(name);
                if let Err(error) = storage.unlink(&path) {
                    let error = SpoolError::io("remove an unfinished file", &path, error);
                    self.recovery.problems.push(error.to_string());
                }
            } else if !(matches!(name, LOCK | "cursor") && !found.is_dir
                || name == quarantine::FOLDER && found.is_dir)
            {
                self.recovery.foreign.push(dir.join(&found.name));
            }
        }
        ordinals.sort_unstable();
        self.recovery.foreign.sort_unstable();
        Ok(ordinals)
    }

    /// Looks into one segment file.
    pub(super) fn examine(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        ordinal: u64,
        held: bool,
    ) -> Result<(), SpoolError> {
        let path = dir.join(format::file_name(ordinal, held));
        let failed = |error| SpoolError::io("read a segment", &path, error);
        let file = match storage.open(&path) {
            Ok(file) => file,
            Err(error) if is_denied(&error) => {
                self.recovery.problems.push(failed(error).to_string());
                self.hold(storage, dir, ordinal, held);
                return Ok(());
            }
            // It may open next time, and must not be taken for acknowledged until then: so the
            // opening fails, which the caller repeats, and sets it aside when that does not help.
            Err(error) => return Err(failed(error)),
        };
        let size = file.size().map_err(failed)?;
        let again = |_| Ends::read(file.as_ref(), size);
        let mut ends = Ends::read(file.as_ref(), size).or_else(again).unwrap_or_default();
        self.recovery.bytes_read += HEADER + FOOTER;
        if let HeaderRead::Newer(version) = ends.header {
            let path = self.hold(storage, dir, ordinal, held);
            self.recovery.newer.push((path, version));
            return Ok(());
        }
        if held {
            self.held.push(ordinal);
        }
        if let HeaderRead::Good(header) = ends.header
            && header.identity.ordinal != ordinal
        {
            // A copy or renamed file: its records would pass for no segment of this name.
            self.recovery.foreign.push(path);
            return Ok(());
        }
        let header = ends.header_of(ordinal);
        ends.footer = ends.footer.filter(|footer| {
            footer.identity.ordinal == ordinal
                && footer.data_end.checked_add(FOOTER) == Some(size)
                && header.is_none_or(|header| header.identity == footer.identity)
        });
        if let (Some(header), Some(footer)) = (header, ends.footer) {
            let mut segment = Segment::new(&header);
            segment.records = footer.records;
            segment.end = footer.data_end;
            segment.last_seq = footer.last_seq;
            segment.disk = size;
            segment.class_bytes = (footer.records == 0).then_some([0; 3]);
            self.keep(segment);
            return Ok(());
        }
        let mut scanner = Scanner::salvaging();
        let identity = match (header, &ends.footer) {
            (Some(header), _) => Some(header.identity),
            (None, Some(footer)) => Some(footer.identity),
            (None, None) => scanner.identify(file.as_ref(), ordinal, size).map_err(failed)?,
        };
        let scan = Scan { file: file.as_ref(), scanner, size };
        self.scan(scan, ordinal, header, identity).map_err(failed)?;
        if header.is_none() && self.segments.last().is_none_or(|s| s.ordinal() != ordinal) {
            drop(file);
            self.set_aside(storage, dir, &path, ordinal, size);
        }
        Ok(())
    }

    /// Walks a segment without a trustworthy footer.
    fn scan(
        &mut self,
        mut scan: Scan<'_>,
        ordinal: u64,
        header: Option<Header>,
        identity: Option<Identity>,
    ) -> std::io::Result<()> {
        self.recovery.bytes_read += scan.size;
        let Some(identity) = identity else { return Ok(()) };
        let plain = Header { identity, first_seq: 0, created_ms: 0, link: Link::None };
        let mut segment = Segment::new(&header.unwrap_or(plain));
        segment.disk = scan.size;
        // Without a header its seat is damage like any other; records begin behind it all the same.
        let mut at = HEADER.min(scan.size);
        let mut hurt: Option<(u64, u64)> = None;
        if header.is_none() {
            segment.damaged = true;
            self.headless.push(ordinal);
            self.recovery.corrupt_ranges += 1;
            let range = (0, at, None);
            self.damage(&segment, DamageKind::Corrupt, range, Some(0));
        }
        loop {
            match scan.scanner.step(scan.file, &identity, at, scan.size)? {
                Step::Record { head, end, .. } => {
                    if let Some(range) = hurt.take() {
                        self.close_range(&mut segment, range, head.seq);
                    }
                    // `note` counts from the last end, so jump over damage first.
                    segment.end = at;
                    if segment.records == 0 {
                        segment.start.offset = at;
                    }
                    let declared = segment.first_seq;
                    segment.note(head.seq, head.class, end);
                    if header.is_some() {
                        segment.first_seq = declared;
                    }
                    at = end;
                }
                Step::Damage { to } => {
                    hurt = Some((at, to));
                    at = to;
                }
                Step::Tail | Step::End => break,
            }
        }
        if let Some(written) = scan.scanner.last_written(scan.file, at, scan.size)? {
            let last = (segment.records > 0).then_some(segment.last_seq);
            let from_seq = last.map(|seq| seq.saturating_add(1));
            self.recovery.torn_bytes += written - at;
            let from_seq = from_seq.or(header.map(|header| header.first_seq));
            self.damage(&segment, DamageKind::Torn, (at, written, from_seq), None);
        }
        segment.reported = scan.size;
        if segment.records > 0 || segment.link != Link::None {
            if scan.scanner.salvaged {
                // What cannot be read now may be readable later: the file is kept as it is.
                segment.damaged = true;
            } else {
                self.unsealed.push(ordinal);
            }
            self.keep(segment);
        } else if header.is_some() {
            // Started and never filled; or damaged so that nothing is whole, which was reported, or that cannot be read now.
            segment.damaged = scan.scanner.salvaged;
            self.retired.push(segment);
        }
        Ok(())
    }

    /// Reports a damaged range before a good record.
    fn close_range(&mut self, segment: &mut Segment, (from, to): (u64, u64), next_seq: u64) {
        segment.damaged = true;
        self.recovery.corrupt_ranges += 1;
        let from_seq = if segment.records > 0 {
            Some(segment.last_seq.saturating_add(1))
        } else {
            (!self.headless.contains(&segment.ordinal())).then_some(segment.first_seq)
        };
        self.damage(segment, DamageKind::Corrupt, (from, to, from_seq), None);
        if let Some(damage) = self.recovery.damage.last_mut() {
            damage.to_seq = Some(next_seq.saturating_sub(1));
        }
    }

    fn damage(
        &mut self,
        segment: &Segment,
        kind: DamageKind,
        (from, to, from_seq): (u64, u64, Option<u64>),
        records: Option<u64>,
    ) {
        self.recovery.damage.push(Damage {
            kind,
            segment: segment.ordinal(),
            offset: from,
            bytes: to.saturating_sub(from),
            from_seq,
            to_seq: None,
            records,
        });
    }

    /// Gives a segment that cannot be read now a name by which a later start knows that its
    /// records are not acknowledged, whatever the cursor says by then.
    pub(super) fn hold(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        ordinal: u64,
        held: bool,
    ) -> PathBuf {
        let (from, to) =
            (dir.join(format::segment_name(ordinal)), dir.join(format::file_name(ordinal, true)));
        if held {
            return to;
        }
        if let Err(error) = storage.rename(&from, &to) {
            self.recovery.problems.push(SpoolError::io("set aside", &from, error).to_string());
            return from;
        }
        to
    }

    fn keep(&mut self, mut segment: Segment) {
        segment.held = self.held.contains(&segment.ordinal());
        if let Link::Ahead { resume, generation, .. } = segment.link {
            // Ordinals up to there are spoken for, even if their files are gone.
            self.highest = self.highest.max(resume.ordinal);
            self.generation = self.generation.max(generation);
        }
        if let Link::Instead { floor } = segment.link {
            // What has a number between those two is void, so nothing is put ahead there.
            self.lowest = self.lowest.map(|lowest| lowest.min(floor.ordinal));
        }
        self.segments.push(segment);
    }

    /// A file of ours in which nothing is whole: removed if it is blank, else quarantined.
    fn set_aside(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        path: &Path,
        ordinal: u64,
        size: u64,
    ) {
        let written = storage
            .open(path)
            .and_then(|file| Scanner::default().last_written(file.as_ref(), 0, size));
        if let Ok(None) = written {
            if let Err(error) = storage.unlink(path) {
                let error = SpoolError::io("remove an empty segment", path, error);
                self.recovery.problems.push(error.to_string());
            }
            return;
        }
        self.recovery.corrupt_ranges += 1;
        self.recovery.damage.push(Damage {
            kind: DamageKind::Corrupt,
            segment: ordinal,
            offset: 0,
            bytes: size,
            from_seq: self.segments.last().map(|segment| segment.last_seq.saturating_add(1)),
            to_seq: None,
            records: None,
        });
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match quarantine::put(storage, dir, self.quarantine_bytes, name, storage.entropy()) {
            Ok(path) => self.recovery.quarantined.push(path),
            Err(error) => self.recovery.problems.push(error.to_string()),
        }
    }

    /// Voids what later segments stand in for.
    pub(super) fn apply_rewrites(&mut self) {
        let floors: Vec<(u64, Mark)> = self
            .segments
            .iter()
            .filter_map(|segment| match segment.link {
                Link::Instead { floor } => Some((segment.ordinal(), floor)),
                Link::None | Link::Ahead { .. } => None,
            })
            .collect();
        for (ordinal, floor) in floors {
            for segment in &mut self.segments {
                let place = segment.ordinal();
                if place == floor.ordinal && segment.end > floor.offset {
                    segment.end = floor.offset;
                    segment.records = floor.index;
                    segment.class_bytes = None;
                } else if place > floor.ordinal && place < ordinal {
                    segment.end = HEADER;
                    segment.records = 0;
                }
            }
        }
    }

    /// Finds where unacknowledged records begin, and sets aside what lies before.
    pub(super) fn apply_cursor(&mut self, slot: Option<&Slot>) -> Mark {
        let resumes: Vec<(u64, Mark, u32)> = self
            .segments
            .iter()
            .filter_map(|segment| match segment.link {
                Link::Ahead { resume, id, .. } => Some((segment.ordinal(), resume, id)),
                Link::None | Link::Instead { .. } => None,
            })
            .collect();
        let mut done: Vec<u64> = Vec::new();
        for (ordinal, resume, id) in resumes {
            for segment in &mut self.segments {
                let place = segment.ordinal();
                if place == resume.ordinal && format::short_id(segment.identity.id) == id {
                    segment.start = segment.start.max(resume);
                } else if place > ordinal && place < resume.ordinal {
                    done.push(place);
                }
            }
        }
        if let Some(slot) = slot {
            self.apply_slot(slot, &mut done);
        }
        let (retired, kept) = std::mem::take(&mut self.segments)
            .into_iter()
            .partition::<Vec<_>, _>(|segment| done.contains(&segment.ordinal()));
        self.retired.extend(retired);
        self.cursor_dirty = slot.is_some();
        self.segments = kept;
        match (self.segments.first(), slot) {
            (Some(first), _) => first.start,
            (None, Some(slot)) => slot.mark,
            (None, None) => Mark { ordinal: FIRST_ORDINAL, index: 0, offset: HEADER },
        }
    }

    fn apply_slot(&mut self, slot: &Slot, done: &mut Vec<u64>) {
        let Some(newest) = self.segments.last() else { return };
        let lost = if slot.mark.ordinal > newest.ordinal() {
            Some(format!("cursor: points to segment {:x}, beyond the last", slot.mark.ordinal))
        } else {
            self.segments
                .iter()
                .find(|segment| segment.ordinal() == slot.mark.ordinal)
                // Another id: the segment was replaced after the cursor was written, by one that
                // holds only what was not acknowledged.
                .filter(|segment| segment.identity.id == slot.id && slot.mark.offset > segment.end)
                .map(|segment| {
                    let (offset, name) = (slot.mark.offset, segment.name());
                    format!("cursor: points to offset {offset} of {name}, beyond its end")
                })
        };
        if lost.is_some() {
            self.recovery.cursor_lost = lost;
            return;
        }
        for segment in &mut self.segments {
            let ordinal = segment.ordinal();
            let is_newer = matches!(segment.link, Link::Ahead { generation, .. } if generation >= slot.generation);
            if ordinal == slot.mark.ordinal && segment.identity.id == slot.id {
                segment.start = segment.start.max(slot.mark);
            } else if ordinal < slot.mark.ordinal
                && !is_newer
                && !segment.held
                && !self.headless.contains(&ordinal)
            {
                done.push(ordinal);
            }
        }
    }

    pub(super) fn next_ordinal(&self, slot: Option<&Slot>) -> u64 {
        let used = self.highest.max(slot.map_or(0, |slot| slot.mark.ordinal));
        used.saturating_add(1).max(FIRST_ORDINAL)
    }
}

/// A file under the scanner.
struct Scan<'a> {
    file: &'a dyn StorageFile,
    scanner: Scanner,
    size: u64,
}

/// The first and last 64 bytes of a file.
#[derive(Debug)]
struct Ends {
    header: HeaderRead,
    footer: Option<format::Footer>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { header: HeaderRead::Damaged, footer: None }
    }
}

impl Ends {
    fn read(file: &dyn StorageFile, size: u64) -> std::io::Result<Self> {
        let mut bytes = [0; 64];
        read_full(file, &mut bytes, 0)?;
        let header = format::decode_header(&bytes);
        bytes.fill(0);
        if let Some(place) = size.checked_sub(FOOTER).filter(|place| *place >= HEADER) {
            read_full(file, &mut bytes, place)?;
        }
        Ok(Self { header, footer: format::decode_footer(&bytes) })
    }

    fn header_of(&self, ordinal: u64) -> Option<Header> {
        match self.header {
            HeaderRead::Good(header) if header.identity.ordinal == ordinal => Some(header),
            HeaderRead::Good(_) | HeaderRead::Newer(_) | HeaderRead::Damaged => None,
        }
    }
}

fn is_denied(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM | Errno::ISDIR))
}
