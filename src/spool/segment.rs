// SPDX-License-Identifier: MIT
//! One segment: what is remembered of it, and how a whole one is built aside and renamed into place.

use std::path::{Path, PathBuf};

use super::error::SpoolError;
use super::format::{
    self, FOOTER, Footer, HEADER, Header, Identity, Link, Mark, RECORD, record_bytes, to_u64,
    to_usize,
};
use super::storage::{Storage, StorageFile, write_all};
use super::{Entry, Position};

/// What is remembered of a segment: the same few words however many records it holds.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) identity: Identity,
    pub(super) link: Link,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// Whole records, as far as known.
    pub(super) records: u64,
    /// Where reading begins: behind the header, or where an earlier reader had got to.
    pub(super) start: Mark,
    /// End of the last record.
    pub(super) end: u64,
    /// Size of the file.
    pub(super) disk: u64,
    pub(super) created_ms: u64,
    /// Its file has the name of one that was set aside unread.
    pub(super) held: bool,
    /// Goes to quarantine instead of being removed.
    pub(super) damaged: bool,
    /// Damage up to this offset has been reported.
    pub(super) reported: u64,
    /// Bytes per class, if every record has been seen.
    pub(super) class_bytes: Option<[u64; 3]>,
}

impl Segment {
    pub(super) fn new(header: &Header) -> Self {
        let ordinal = header.identity.ordinal;
        Self {
            identity: header.identity,
            link: header.link,
            first_seq: header.first_seq,
            last_seq: header.first_seq,
            records: 0,
            start: Mark { ordinal, index: 0, offset: HEADER },
            end: HEADER,
            disk: 0,
            created_ms: header.created_ms,
            held: false,
            damaged: false,
            reported: 0,
            class_bytes: Some([0; 3]),
        }
    }

    pub(super) fn ordinal(&self) -> u64 {
        self.identity.ordinal
    }

    pub(super) fn name(&self) -> String {
        format::file_name(self.ordinal(), self.held)
    }

    /// Notes a record that ends at `end`.
    pub(super) fn note(&mut self, seq: u64, class: u8, end: u64) {
        if self.records == 0 {
            self.first_seq = seq;
        }
        self.records += 1;
        self.last_seq = seq;
        self.count_class(class, end.saturating_sub(self.end));
        self.end = end;
    }

    pub(super) fn count_class(&mut self, class: u8, bytes: u64) {
        let place =
            self.class_bytes.as_mut().and_then(|all| all.get_mut(usize::from(class.min(2))));
        if let Some(place) = place {
            *place += bytes;
        }
    }

    pub(super) fn footer(&self) -> Footer {
        Footer {
            identity: self.identity,
            records: self.records,
            data_end: self.end,
            last_seq: self.last_seq,
        }
    }

    /// Milliseconds since creation at `now`, for a record's age.
    pub(super) fn age(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms.saturating_sub(self.created_ms)).unwrap_or(u32::MAX)
    }

    pub(super) fn position(&self, mark: Mark, seq: u64) -> Position {
        Position {
            segment: self.ordinal(),
            index: mark.index,
            offset: mark.offset,
            id: self.identity.id,
            seq,
        }
    }
}

/// A segment written under a temporary name. Until [`finish`](Builder::finish) it does not exist
/// for anyone else, and dropping it leaves at most a file that the next start removes.
#[derive(Debug)]
pub(super) struct Builder {
    file: Box<dyn StorageFile>,
    aside: PathBuf,
    pub(super) segment: Segment,
    buffer: Vec<u8>,
    written: u64,
}

/// What is written at once.
const FLUSH: usize = 1024 * 1024;

impl Builder {
    pub(super) fn create(
        storage: &dyn Storage,
        dir: &Path,
        header: &Header,
        allocate: u64,
    ) -> Result<Self, SpoolError> {
        let aside = dir.join(format!("{:016x}.tmp", header.identity.ordinal));
        let file = storage
            .create(&aside)
            .map_err(|error| SpoolError::io("create a segment", &aside, error))?;
        let mut segment = Segment::new(header);
        segment.disk = allocate;
        let builder =
            Self { file, aside, segment, buffer: format::encode_header(header), written: 0 };
        if allocate > 0
            && let Err(error) = builder.file.allocate(allocate)
        {
            let aside = builder.aside.clone();
            builder.discard(storage);
            return Err(SpoolError::io("reserve space for a segment", &aside, error));
        }
        Ok(builder)
    }

    /// Adds a record that was appended `age_ms` after the segment's creation.
    pub(super) fn add(&mut self, entry: &Entry<'_>, age_ms: u32) -> Result<(), SpoolError> {
        let offset = self.segment.end;
        format::encode_record(&mut self.buffer, &self.segment.identity, offset, entry, age_ms);
        self.segment.note(entry.seq, entry.class, offset + record_bytes(entry.payload));
        if self.buffer.len() >= FLUSH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SpoolError> {
        let (_, result) = write_all(self.file.as_ref(), &self.buffer, self.written);
        result.map_err(|error| SpoolError::io("write a segment", &self.aside, error))?;
        self.written += to_u64(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Completes the segment, with a footer if `seal`, makes it durable if `sync`, and gives it the
    /// name `path`, replacing what has it. On error nothing has been renamed, except where the
    /// error says that the folder could not be synced.
    pub(super) fn finish(
        mut self,
        storage: &dyn Storage,
        dir: &Path,
        seal: bool,
        sync: bool,
    ) -> Result<(Segment, Box<dyn StorageFile>), BuildError> {
        if let Err((error, fsync)) = self.complete(seal, sync) {
            self.discard(storage);
            return Err(BuildError { error, fsync, renamed: None });
        }
        let path = dir.join(self.segment.name());
        if let Err(error) = storage.rename(&self.aside, &path) {
            let error = SpoolError::io("put a segment in place", &path, error);
            self.discard(storage);
            return Err(BuildError { error, fsync: false, renamed: None });
        }
        if sync && let Err(error) = storage.sync_dir(dir) {
            let error = SpoolError::io("sync the folder", dir, error);
            let renamed = Some(Box::new(self.segment));
            return Err(BuildError { error, fsync: true, renamed });
        }
        Ok((self.segment, self.file))
    }

    fn complete(&mut self, seal: bool, sync: bool) -> Result<(), (SpoolError, bool)> {
        if seal {
            self.buffer.extend_from_slice(&format::encode_footer(&self.segment.footer()));
            self.segment.disk = self.segment.end + FOOTER;
        }
        self.flush().map_err(|error| (error, false))?;
        if seal {
            let cut = self.file.truncate(self.segment.disk);
            cut.map_err(|error| (SpoolError::io("cut a segment", &self.aside, error), false))?;
        }
        self.segment.disk = self.segment.disk.max(self.segment.end);
        if sync {
            let synced = self.file.sync_data();
            synced.map_err(|error| (SpoolError::io("sync a segment", &self.aside, error), true))?;
        }
        Ok(())
    }

    /// Removes what was written. That it may fail matters to no one: the next start tries again.
    pub(super) fn discard(self, storage: &dyn Storage) {
        if let Err(error) = storage.unlink(&self.aside) {
            log::debug!("spool {}: left behind: {error}", self.aside.display());
        }
    }
}

/// Why a segment could not be put in place.
#[derive(Debug)]
pub(super) struct BuildError {
    pub(super) error: SpoolError,
    /// It was an fsync that failed.
    pub(super) fsync: bool,
    /// The segment, if it has its name already; a power cut may take that back.
    pub(super) renamed: Option<Box<Segment>>,
}

/// Takes apart records that were encoded one behind another, as they were when written.
pub(super) fn split_records(mut bytes: &[u8]) -> impl Iterator<Item = (Entry<'_>, u32)> {
    std::iter::from_fn(move || {
        let head = format::decode_head(bytes)?;
        let end = RECORD + u64::from(head.len);
        let payload = bytes.get(to_usize(RECORD)..to_usize(end))?;
        bytes = bytes.get(to_usize(end)..)?;
        Some((Entry { seq: head.seq, class: head.class, payload }, head.age_ms))
    })
}
