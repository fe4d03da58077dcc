// SPDX-License-Identifier: MIT
//! Compressing a rotated file, a piece at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::rotate::compressed_name;

/// Bytes per step: some milliseconds, so that events never wait for it.
const STEP: usize = 256 * 1024;

/// A file on its way to its `.gz`. The original goes only when that is whole; given up half-way,
/// the original stays.
#[derive(Debug)]
pub(super) struct Compression {
    from: PathBuf,
    partial: PathBuf,
    source: File,
    encoder: Option<GzEncoder<File>>,
    chunk: Vec<u8>,
}

impl Compression {
    /// Opens both files.
    pub(super) fn start(from: PathBuf, mode: u32) -> io::Result<Self> {
        let mut partial = compressed_name(&from).into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let source = File::open(&from)?;
        let target =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        let encoder = Some(GzEncoder::new(target, Level::fast()));
        Ok(Self { from, partial, source, encoder, chunk: vec![0; STEP] })
    }

    /// Does one piece. True when that was the last.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        let read = self.source.read(&mut self.chunk)?;
        let Some(encoder) = self.encoder.as_mut() else { return Ok(true) };
        if read > 0 {
            encoder.write_all(self.chunk.get(..read).unwrap_or_default())?;
            return Ok(false);
        }
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?.sync_all()?;
            fs::rename(&self.partial, compressed_name(&self.from))?;
            fs::remove_file(&self.from)?;
        }
        Ok(true)
    }

    /// What a message about it begins with.
    pub(super) fn words(&self) -> String {
        format!("{} stays uncompressed", self.from.display())
    }
}

impl Drop for Compression {
    fn drop(&mut self) {
        if self.encoder.take().is_some() {
            // Given up: the original is whole, half a copy is of no use. Best effort.
            drop(fs::remove_file(&self.partial));
        }
    }
}
