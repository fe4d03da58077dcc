// SPDX-License-Identifier: MIT
//! The durable place up to which everything is acknowledged.
//!
//! Two copies in one file, written in turn: whichever write is torn, the other copy stands. The one
//! of the higher generation counts.

use std::io;
use std::path::{Path, PathBuf};

use super::error::SpoolError;
use super::format::{self, Mark, SLOT, SLOT_STRIDE, Slot};
use super::storage::{Storage, StorageFile, read_full, write_all};

const NAME: &str = "cursor";
const ASIDE: &str = "cursor.tmp";

/// The cursor file.
#[derive(Debug)]
pub(super) struct Cursor {
    dir: PathBuf,
    /// `None` before the first write and after a failed one, which gets a new file.
    file: Option<Box<dyn StorageFile>>,
    /// Of the last write that was attempted.
    pub(super) generation: u64,
    /// Where the next write goes: not onto the copy that counts.
    place: u64,
    /// What is known to be on disk.
    pub(super) written: Option<Slot>,
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct CursorError {
    pub(super) error: SpoolError,
    /// It was an fsync that failed.
    pub(super) fsync: bool,
}

impl Cursor {
    /// Reads the cursor. `Err` in the second place says why an existing file is of no use.
    pub(super) fn load(storage: &dyn Storage, dir: &Path) -> (Self, Result<Option<Slot>, String>) {
        let mut cursor =
            Self { dir: dir.to_path_buf(), file: None, generation: 0, place: 0, written: None };
        let path = dir.join(NAME);
        let file = match storage.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (cursor, Ok(None)),
            Err(error) => return (cursor, Err(format!("cursor: cannot open: {error}"))),
        };
        let mut best: Option<Slot> = None;
        for place in [0, SLOT_STRIDE] {
            let mut bytes = [0; SLOT];
            let slot = match read_full(file.as_ref(), &mut bytes, place) {
                Ok(_) => format::decode_slot(&bytes),
                Err(error) => {
                    log::warn!("spool {}: cursor: cannot read: {error}", dir.display());
                    None
                }
            };
            if slot.map(|slot| slot.generation) > best.map(|slot| slot.generation) {
                best = slot;
                cursor.place = SLOT_STRIDE - place;
            }
        }
        match best {
            Some(slot) => {
                cursor.generation = slot.generation;
                cursor.written = best;
                cursor.file = Some(file);
                (cursor, Ok(best))
            }
            None => (cursor, Err("cursor: both copies are damaged".to_owned())),
        }
    }

    /// Whether the file says that everything up to `mark` is acknowledged.
    pub(super) fn is_at(&self, mark: Mark, id: u64) -> bool {
        self.written.is_some_and(|slot| slot.mark == mark && slot.id == id)
    }

    /// Writes the next generation, durably if `sync`.
    pub(super) fn write(
        &mut self,
        storage: &dyn Storage,
        mark: Mark,
        id: u64,
        seq: u64,
        sync: bool,
    ) -> Result<(), CursorError> {
        self.generation += 1;
        let slot = Slot { generation: self.generation, mark, id, seq };
        // Taken: on any error the descriptor is closed and never synced again.
        let file = match self.file.take() {
            Some(file) => {
                self.put(file.as_ref(), &slot, sync, NAME)?;
                file
            }
            None => self.replace(storage, &slot, sync)?,
        };
        self.file = Some(file);
        self.place = SLOT_STRIDE - self.place;
        self.written = Some(slot);
        Ok(())
    }

    /// Forgets the descriptor, as its file is not in the folder anymore.
    pub(super) fn forget(&mut self) {
        self.file = None;
        self.written = None;
    }

    fn replace(
        &self,
        storage: &dyn Storage,
        slot: &Slot,
        sync: bool,
    ) -> Result<Box<dyn StorageFile>, CursorError> {
        let plain = |error| CursorError { error, fsync: false };
        let (aside, path) = (self.dir.join(ASIDE), self.dir.join(NAME));
        let file = storage
            .create(&aside)
            .map_err(|error| plain(SpoolError::io("create the cursor", &aside, error)))?;
        self.put(file.as_ref(), slot, sync, ASIDE)?;
        storage
            .rename(&aside, &path)
            .map_err(|error| plain(SpoolError::io("put the cursor in place", &path, error)))?;
        if sync {
            storage.sync_dir(&self.dir).map_err(|error| CursorError {
                error: SpoolError::io("sync the folder", &self.dir, error),
                fsync: true,
            })?;
        }
        Ok(file)
    }

    fn put(
        &self,
        file: &dyn StorageFile,
        slot: &Slot,
        sync: bool,
        name: &str,
    ) -> Result<(), CursorError> {
        let path = self.dir.join(name);
        let (_, written) = write_all(file, &format::encode_slot(slot), self.place);
        written.map_err(|error| CursorError {
            error: SpoolError::io("write the cursor", &path, error),
            fsync: false,
        })?;
        if sync {
            file.sync_data().map_err(|error| CursorError {
                error: SpoolError::io("sync the cursor", &path, error),
                fsync: true,
            })?;
        }
        Ok(())
    }
}
