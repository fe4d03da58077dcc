// SPDX-License-Identifier: MIT
//! The few calls to the operating system, behind traits, so that tests can fail the n-th.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Folders and files of lines. Every error goes up as the system gave it.
pub trait Files: fmt::Debug + Send + Sync {
    /// Creates a folder and its parents, for FreeSWITCH's user and group alone.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Locks a file, creating it, until what is returned is dropped. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; else what the system says.
    fn lock(&self, path: &Path) -> io::Result<File>;
    /// Names of the files in a folder, in any order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;
    /// A whole file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Opens a file to append to it, creating it if need be, mode 0640.
    ///
    /// # Errors
    /// What the system says.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Appended>>;
    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; one that isn't there is fine.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file open at its end.
pub trait Appended: fmt::Debug + Send {
    /// Writes all of `bytes` behind what is there. After an error some of them may be there.
    ///
    /// # Errors
    /// What the system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error never called again on this descriptor: the
    /// kernel may have dropped the pages and would say that all is well.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o750).create(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o640).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Appended>> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl Appended for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The real file system in a folder of its own, with calls that fail when told to.

    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;

    /// A folder that goes with the test.
    #[derive(Debug)]
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("rustbridge-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            drop(fs::remove_dir_all(&path));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// Calls that change the disk fail from the n-th on, as many as wished, with ENOSPC after
    /// half of a write.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Faulty(Arc<Plan>);

    #[derive(Debug, Default)]
    struct Plan {
        /// Calls until the first failure.
        until: AtomicI64,
        /// Calls that then fail.
        count: AtomicI64,
        pub(super) calls: AtomicU64,
    }

    impl Faulty {
        pub(crate) fn new() -> Self {
            let files = Self::default();
            files.fail(i64::MAX, 0);
            files
        }

        /// Lets `until` calls pass and fails the `count` after them.
        pub(crate) fn fail(&self, until: i64, count: i64) {
            self.0.until.store(until, Ordering::Relaxed);
            self.0.count.store(count, Ordering::Relaxed);
        }

        pub(crate) fn calls(&self) -> u64 {
            self.0.calls.load(Ordering::Relaxed)
        }

        fn step(&self) -> io::Result<()> {
            self.0.calls.fetch_add(1, Ordering::Relaxed);
            let before = self.0.until.fetch_sub(1, Ordering::Relaxed);
            let fails = before <= 0 && -before < self.0.count.load(Ordering::Relaxed);
            if fails { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
        }
    }

    impl Files for Faulty {
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.step().and_then(|()| Disk.create_dir(dir))
        }
        fn lock(&self, path: &Path) -> io::Result<File> {
            self.step().and_then(|()| Disk.lock(path))
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            Disk.list(dir)
        }
        fn exists(&self, path: &Path) -> bool {
            Disk.exists(path)
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            Disk.read(path)
        }
        fn append(&self, path: &Path) -> io::Result<Box<dyn Appended>> {
            self.step()?;
            Ok(Box::new(FaultyFile(Disk.append(path)?, self.clone())))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step().and_then(|()| Disk.rename(from, to))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step().and_then(|()| Disk.remove(path))
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.step().and_then(|()| Disk.sync_dir(dir))
        }
    }

    #[derive(Debug)]
    struct FaultyFile(Box<dyn Appended>, Faulty);

    impl Appended for FaultyFile {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if let Err(error) = self.1.step() {
                self.0.append(&bytes[..bytes.len() / 2])?;
                return Err(error);
            }
            self.0.append(bytes)
        }
        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.1.step().and_then(|()| self.0.truncate(len))
        }
        fn sync(&mut self) -> io::Result<()> {
            self.1.step().and_then(|()| self.0.sync())
        }
    }
}
