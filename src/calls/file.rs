// SPDX-License-Identifier: MIT
//! The file of the table: changes appended, written anew when most of it is past.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lines::{Appended, Files};

/// The file, its folder and what is to be written.
#[derive(Debug)]
pub(super) struct TableFile {
    files: Arc<dyn Files>,
    dir: PathBuf,
    lock: Option<File>,
    loaded: bool,
    /// None: what is on the disk is not what it should be, and must be written anew.
    open: Option<Box<dyn Appended>>,
    pending: Vec<u8>,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    dirty: bool,
}

/// Bytes handed to one write when the file is written anew.
const PIECE: usize = 256 * 1024;

impl TableFile {
    pub(super) fn new(files: Arc<dyn Files>, dir: &Path) -> Self {
        Self {
            files,
            dir: dir.into(),
            lock: None,
            loaded: false,
            open: None,
            pending: Vec::new(),
            lines: 0,
            bytes: 0,
            dirty: false,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join("live.ndjson")
    }

    /// Makes the folder ours. `WouldBlock` when it is another's.
    pub(super) fn claim(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            self.files.create_dir(&self.dir)?;
            self.lock = Some(self.files.lock(&self.dir.join("lock"))?);
        }
        Ok(())
    }

    /// Whether the folder is ours and the file was read.
    pub(super) fn is_claimed(&self) -> bool {
        self.loaded
    }

    /// The file was read: from now on memory says what it should hold.
    pub(super) fn loaded(&mut self) {
        self.loaded = true;
    }

    /// What is in the file has to be written anew.
    pub(super) fn give_up(&mut self) {
        self.open = None;
        self.pending.clear();
    }

    /// What is in the file; nothing when there is none.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match self.files.read(&self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Keeps damaged bytes beside the file, for people.
    pub(super) fn quarantine(&self, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join("live.ndjson.damaged");
        self.files.remove(&path)?;
        self.files.append(&path)?.append(bytes)
    }

    /// A change. Nobody waits for the disk here.
    pub(super) fn push(&mut self, line: impl FnOnce(&mut Vec<u8>)) {
        // Without a file everything is written anew later, from memory.
        if self.open.is_some() {
            line(&mut self.pending);
            self.lines += 1;
        }
    }

    /// Whether the file has to be written anew.
    pub(super) fn is_broken(&self) -> bool {
        self.open.is_none()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Hands what is pending to the system: from then on a crash of the process does not lose it.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = open.append(&self.pending);
        self.bytes += u64::try_from(self.pending.len()).unwrap_or(0);
        self.pending.clear();
        self.dirty = true;
        self.or_broken(written)
    }

    /// Makes it durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| self.dirty) else { return Ok(()) };
        let synced = open.sync();
        self.dirty = false;
        if synced.is_ok() && !self.files.exists(&self.path()) {
            return self.or_broken(Err(io::ErrorKind::NotFound.into()));
        }
        self.or_broken(synced)
    }

    fn or_broken(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            // A descriptor that failed is never trusted again.
            self.give_up();
        }
        result
    }

    /// Writes the file anew, durably and whole or not at all.
    pub(super) fn rewrite(
        &mut self,
        lines: impl Iterator<Item = impl FnOnce(&mut Vec<u8>)>,
    ) -> io::Result<()> {
        self.give_up();
        self.files.create_dir(&self.dir)?;
        let partial = self.dir.join("live.ndjson.tmp");
        self.files.remove(&partial)?;
        let mut file = self.files.append(&partial)?;
        let (mut count, mut bytes) = (0, 0);
        let mut piece = Vec::with_capacity(PIECE + 1024);
        for line in lines {
            line(&mut piece);
            count += 1;
            if piece.len() >= PIECE {
                file.append(&piece)?;
                bytes += piece.len();
                piece.clear();
            }
        }
        file.append(&piece)?;
        bytes += piece.len();
        file.sync()?;
        self.files.rename(&partial, &self.path())?;
        self.files.sync_dir(&self.dir)?;
        self.open = Some(file);
        self.lines = count;
        self.bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.dirty = false;
        Ok(())
    }
}
