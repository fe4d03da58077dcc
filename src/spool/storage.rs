// SPDX-License-Identifier: MIT
//! The few calls to the operating system that a spool makes, behind two traits.
//!
//! They exist so that tests can fail the n-th call and lose power between any two. [`Disk`] is the
//! real one. Nothing here retries or interprets: an error goes up as the system gave it.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::Errno;

use super::ahead::{self, Fetched, Wanted};

/// A name found in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name, without the folder.
    pub name: OsString,
    /// Whether it is a folder itself.
    pub is_dir: bool,
}

/// What became of an attempt to lock.
#[derive(Debug)]
pub enum Lock {
    /// Ours until the file is dropped.
    Held(Box<dyn StorageFile>),
    /// Another holds it; what it wrote into the file.
    Busy(String),
}

/// Files, folders, clock and chance, as a spool needs them.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Creates the folder and its parents with mode 0750; an existing folder is fine.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, in any order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<Found>>;
    /// Creates or empties a file, open for reading and writing, mode 0640.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Locks a file, creating it, and writes `owner` into it. Never waits.
    ///
    /// # Errors
    /// What the system says; that another holds the lock is no error.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Lock>;
    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable, through a descriptor of its own.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes free for an unprivileged user on the disk of `path`.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Milliseconds since 1970. May jump.
    fn unix_ms(&self) -> u64;
    /// A random number that no earlier run has seen.
    fn entropy(&self) -> u64;
}

/// An open file.
pub trait StorageFile: fmt::Debug + Send {
    /// Size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;
    /// Reads at an offset; short at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Has the system begin to read these bytes, which are wanted soon. False where that would have to wait: to be asked again.
    fn will_read(&self, _offset: u64, _len: u64) -> bool {
        true
    }
    /// Writes at an offset; may write less.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reserves blocks for the first `len` bytes and makes the file at least that long. Quietly
    /// does nothing where the file system cannot.
    ///
    /// # Errors
    /// What the system says, above all that there is no space.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error, never call it again on this descriptor: the
    /// kernel may have forgotten the pages and would say that all is well.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&self) -> io::Result<()>;
    /// Begins the same on another thread, for what has been written so far; none where there is no
    /// such thread. Until it is over, nothing else is to be synced on this file.
    fn begin_sync(&self) -> Option<Box<dyn Syncing>> {
        None
    }
    /// False when the file has been deleted under us.
    ///
    /// # Errors
    /// What the system says.
    fn is_linked(&self) -> io::Result<bool>;
}

/// A sync that is under way.
pub trait Syncing: fmt::Debug + Send {
    /// What became of it; none when it still goes on after `patience`. Not to be asked again afterwards.
    fn wait(&mut self, patience: Duration) -> Option<io::Result<()>>;
}

/// A thread that does what a disk may take long for, owned by whoever owns the spool.
pub trait Syncer: fmt::Debug + Send + Sync {
    /// Begins to sync; none when the thread is gone.
    fn begin(&self, file: File) -> Option<Box<dyn Syncing>>;
    /// Has this fetched there, unless the thread has something to do. Returns whether it has not.
    fn read_ahead(&self, wanted: Wanted) -> bool;
}

/// The real file system.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    syncer: Option<Arc<dyn Syncer>>,
}

impl Disk {
    /// One that syncs on this thread what need not be waited for.
    pub fn with(syncer: Arc<dyn Syncer>) -> Self {
        Self { syncer: Some(syncer) }
    }

    fn file(&self, file: File) -> Box<dyn StorageFile> {
        Box::new(DiskFile { file, syncer: self.syncer.clone(), fetched: None })
    }
}

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o750).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            found.push(Found { name: entry.file_name(), is_dir });
        }
        Ok(found)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o640);
        Ok(self.file(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let fetched = self.syncer.is_some().then(|| Arc::new(Fetched::new(path)));
        Ok(Box::new(DiskFile { file, syncer: self.syncer.clone(), fetched }))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Lock> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder's name is a help for the operator, no more: unreadable is unknown.
                if (&mut file).take(64).read_to_string(&mut holder).is_err() {
                    holder.clear();
                }
                return Ok(Lock::Busy(holder.trim().to_owned()));
            }
            Err(errno) => return Err(errno.into()),
        }
        // The lock is held whatever happens to the note; on a full disk it stays empty.
        if file.set_len(0).is_ok() && file.write_at(owner.as_bytes(), 0).is_err() {
            log::debug!("spool {}: the lock file could not be labeled", path.display());
        }
        Ok(Lock::Held(self.file(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn entropy(&self) -> u64 {
        // The keys of a `RandomState` come from the system's random source; the time separates
        // those drawn by one thread.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(self.unix_ms());
        hasher.finish()
    }
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    syncer: Option<Arc<dyn Syncer>>,
    /// What that thread has read ahead, of a file that was there.
    fetched: Option<Arc<Fetched>>,
}

impl DiskFile {
    /// What was fetched of it may not be true any more.
    fn changes(&self) {
        if let Some(fetched) = &self.fetched {
            fetched.end();
        }
    }
}

impl StorageFile for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let fetched = self.fetched.as_ref().and_then(|fetched| fetched.read(buffer, offset));
        fetched.map_or_else(|| self.file.read_at(buffer, offset), Ok)
    }

    fn will_read(&self, offset: u64, len: u64) -> bool {
        let (Some(syncer), Some(fetched)) = (&self.syncer, &self.fetched) else {
            ahead::hint(&self.file, offset, len);
            return true;
        };
        let Ok(file) = self.file.try_clone() else { return false };
        syncer.read_ahead(Wanted { file, offset, len, fetched: Arc::clone(fetched) })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.changes();
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.changes();
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn begin_sync(&self) -> Option<Box<dyn Syncing>> {
        // Another number for the same open file: whoever looks, an error of the disk is told once.
        self.syncer.as_ref()?.begin(self.file.try_clone().ok()?)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }
}

/// How often one call may be interrupted before that counts as its failure.
const MAX_INTERRUPTS: u32 = 64;

/// Writes all of `bytes`, however short the single writes are. Returns how much was written, also
/// with an error.
pub(super) fn write_all(
    file: &dyn StorageFile,
    bytes: &[u8],
    offset: u64,
) -> (usize, io::Result<()>) {
    let mut done = 0;
    let mut interrupts = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(super::format::to_u64(done));
        match file.write_at(rest, at) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n.min(rest.len()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted && interrupts < MAX_INTERRUPTS => {
                interrupts += 1;
            }
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// Reads until `buffer` is full or the file ends. Returns how much was read.
pub(super) fn read_full(
    file: &dyn StorageFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    let mut interrupts = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(super::format::to_u64(done));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted && interrupts < MAX_INTERRUPTS => {
                interrupts += 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
