// SPDX-License-Identifier: MIT
//! A sink of type `file`.

use std::time::Duration;

use crate::config::{
    choice::choice, delivery::Fsync, kind::plain, params::Params, reference::file, template,
};

/// What may stand in a path as `${…}`.
pub(super) const PATH_FIELDS: [&str; 4] = ["date", "hour", "node", "sink"];

choice! {
    /// What is done with a file once it is rotated.
    pub enum Compress {
        /// It stays as it is.
        None = "none",
        /// It becomes `<file>.gz`.
        Gzip = "gzip",
    }
}

/// Where events are written, one JSON object a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileConfig {
    /// Absolute path, in which `${date}`, `${hour}`, `${node}` and `${sink}` are replaced.
    pub path: String,
    /// Size from which a file is rotated; `None`: no size.
    pub rotate_bytes: Option<u64>,
    /// Age from which a file is rotated; `None`: no age.
    pub rotate_interval: Option<Duration>,
    /// What is done with a rotated file.
    pub compress: Compress,
    /// When lines are forced onto the disk.
    pub fsync: Fsync,
    /// Adds `node`, `boot`, `seq` and `id`, which brokers carry as headers, to each line.
    pub identity: bool,
    /// Rotated files that are kept, the newest ones; `None`: all.
    pub keep_files: Option<u32>,
    /// Permission bits of a new file.
    pub mode: u32,
}

impl FileConfig {
    /// Reads the parameters that only files have.
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let rotate_bytes = params.read(&file::ROTATE_BYTES);
        let rotate_interval = params.read(&file::ROTATE_INTERVAL_MS);
        let keep_files = params.read(&file::KEEP_FILES);
        Self {
            path: params.read(&file::PATH).unwrap_or_default(),
            rotate_bytes: (rotate_bytes > 0).then_some(rotate_bytes),
            rotate_interval: (!rotate_interval.is_zero()).then_some(rotate_interval),
            compress: params.read(&file::COMPRESS),
            fsync: Fsync::read(params, &file::FSYNC, &file::FSYNC_INTERVAL_MS),
            identity: params.read(&file::IDENTITY),
            keep_files: (keep_files > 0).then_some(keep_files),
            mode: params.read(&file::MODE),
        }
    }
}

/// Returns whether `text` is a path that [`FileConfig::path`] may hold.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.ends_with('/')
        && plain(text, 4_095)
        && template::fields(text)
            .is_some_and(|fields| fields.iter().all(|field| PATH_FIELDS.contains(field)))
}
