// SPDX-License-Identifier: MIT
//! What can go wrong with a spool, said so that an operator knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A spool that could not be opened, or one operation of it that failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The settings contradict each other.
    #[error("spool {path}: {problem}")]
    Config {
        /// The folder the settings are for.
        path: PathBuf,
        /// Which limits contradict each other, and what to change.
        problem: String,
    },
    /// A call to the operating system failed.
    #[error("spool {path}: cannot {what}: {source}; {remedy}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What the operator can do about it.
        remedy: &'static str,
    },
    /// Another process, or another sink of this one, works in the same folder.
    #[error(
        "spool {path}: in use by {owner}; give every sink of every switch a spool folder of its own"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// `process <pid>` as found in the lock file.
        owner: String,
    },
    /// `max-bytes` is used up.
    #[error(
        "spool {path}: full, {used} of {max} bytes in use; let the broker catch up or raise max-bytes"
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes on disk.
        used: u64,
        /// The bound.
        max: u64,
    },
    /// Writing on would leave less than `min-free-bytes` on the disk.
    #[error(
        "spool {path}: its disk has {free} bytes free and must keep {min}; free space or lower min-free-bytes"
    )]
    LowDisk {
        /// The folder.
        path: PathBuf,
        /// Bytes free on its disk.
        free: u64,
        /// The bound.
        min: u64,
    },
    /// A record that can never fit, however empty the spool is.
    #[error(
        "spool {path}: a record of {len} bytes cannot fit, the limit is {limit}; raise max-bytes"
    )]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Size of the payload.
        len: u64,
        /// The largest payload that fits.
        limit: u64,
    },
    /// A sync has not come to an end.
    #[error(
        "spool {path}: its disk does not answer, {records} records are written and not known to be durable; nothing more is put there until it does; check the disk"
    )]
    Silent {
        /// The segment that is to be durable.
        path: PathBuf,
        /// How many records a power cut would take.
        records: u64,
    },
    /// Writing failed before and has not been healed yet.
    #[error("spool {path}: suspended: {reason}")]
    Suspended {
        /// The folder.
        path: PathBuf,
        /// The failure that suspended it.
        reason: String,
    },
}

impl SpoolError {
    /// Wraps what the system said about `what` on `path`.
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let remedy = remedy(&source);
        Self::Io { what, path: path.to_path_buf(), source, remedy }
    }

    /// True when there is no room, in whatever sense: nothing is broken, and dropping or waiting
    /// helps.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } | Self::LowDisk { .. } => true,
            Self::Io { source, .. } => is_disk_full(source),
            Self::Config { .. }
            | Self::Locked { .. }
            | Self::TooLarge { .. }
            | Self::Silent { .. }
            | Self::Suspended { .. } => false,
        }
    }
}

impl SpoolError {
    /// True when it is the disk under one file that failed, and others may be well.
    pub(super) fn is_of_file(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(
            Errno::from_io_error(source),
            Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::NODATA | Errno::NXIO)
        )
    }
}

/// True for "no space left" and "quota exceeded".
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            "give the user the switch runs as write access to it and to the folder it is in, or name another folder"
        }
        Some(Errno::ROFS) => "mount it read-write, or name another folder",
        Some(Errno::NOSPC) => "free space on its disk, or lower max-bytes",
        Some(Errno::DQUOT) => "raise the quota of the user the switch runs as, or lower max-bytes",
        Some(Errno::NOTDIR | Errno::EXIST) => "a part of the path is not a folder: name another",
        Some(Errno::NOENT) => "it was removed or its disk is not mounted: put it back",
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit of open files",
        Some(Errno::IO) => "check the disk",
        _ => "see the system's log",
    }
}
