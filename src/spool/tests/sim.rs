// SPDX-License-Identifier: MIT
//! A file system in memory that fails the n-th call and loses power.
//!
//! It is stricter than real ones: between two syncs, any 512-byte sector of any write and any change
//! of a name may be lost or kept, independently of all others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use crate::spool::storage::{Found, Lock, Storage, StorageFile, Syncing};

/// What happens to the call that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Errno(Errno),
    /// Half of a write is written; other calls are not affected.
    Short,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What reads see.
    data: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Rename {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Move(PathBuf, PathBuf, u64),
}

#[derive(Debug, Clone, Default)]
pub(super) struct World {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    renames: Vec<Rename>,
    dirs: HashSet<PathBuf>,
    locked: HashSet<u64>,
    next: u64,
    random: u64,
    pub(super) calls: u64,
    /// Calls from the first on, up to but not including the second, fail.
    pub(super) failing: Option<(u64, u64, Fault)>,
    pub(super) failed: u64,
    /// No call may change anything.
    pub(super) read_only: bool,
    /// Bytes that all files together may take.
    pub(super) room: Option<u64>,
    pub(super) free: u64,
    pub(super) unix_ms: u64,
    pub(super) bytes_read: u64,
    /// Places on the platter that cannot be read.
    bad: HashMap<u64, std::ops::Range<u64>>,
    /// Files that cannot even be opened.
    pub(super) shut: HashSet<PathBuf>,
    poisoned: HashSet<u64>,
    /// Breaches of the rules by the code under test.
    pub(super) breaches: Vec<String>,
    /// How often a sync that was begun is asked for before it is over; without, none can be begun.
    pub(super) background: Option<u32>,
    /// No sync that was begun comes to an end, however long it is waited for.
    pub(super) silent: bool,
    /// Files of which a sync goes on.
    syncing: HashSet<u64>,
    /// Without: no record of changes is kept, and power loss is not possible.
    pub(super) tracking: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Sim(pub(super) Arc<Mutex<World>>);

#[derive(Debug)]
struct SimFile {
    world: Sim,
    inode: u64,
    handle: u64,
    holds_lock: bool,
}

impl Sim {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            free: u64::MAX,
            unix_ms: 1_700_000_000_000,
            random: 0x9e37_79b9_7f4a_7c15,
            tracking: true,
            ..World::default()
        })))
    }

    /// One that starts as a copy of another.
    pub(super) fn fork(&self) -> Self {
        let mut world = self.with(|world| world.clone());
        world.locked.clear();
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.with(|world| world.names.keys().cloned().collect())
    }

    pub(super) fn content(&self, path: &Path) -> Vec<u8> {
        self.with(|world| world.inodes[&world.names[path]].data.clone())
    }

    /// Sets a file's content, durably, as damage or an operator would.
    pub(super) fn set(&self, path: &Path, bytes: Vec<u8>) {
        self.with(|world| {
            let inode = world.names.get(path).copied().unwrap_or_else(|| {
                world.next += 1;
                world.names.insert(path.to_path_buf(), world.next);
                world.durable_names.insert(path.to_path_buf(), world.next);
                world.next
            });
            let durable = if world.tracking { bytes.clone() } else { Vec::new() };
            world.inodes.insert(inode, Inode { data: bytes, durable, changes: Vec::new() });
        });
    }

    /// Makes a part of a file unreadable, or readable again.
    pub(super) fn set_bad(&self, path: &Path, range: Option<std::ops::Range<u64>>) {
        self.with(|world| {
            let inode = world.names[path];
            match range {
                Some(range) => world.bad.insert(inode, range),
                None => world.bad.remove(&inode),
            }
        });
    }

    pub(super) fn remove(&self, path: &Path) {
        self.with(|world| {
            world.names.remove(path);
            world.durable_names.remove(path);
        });
    }

    /// Deletes everything, as `rm -r` would.
    pub(super) fn clear(&self) {
        self.with(|world| {
            world.names.clear();
            world.durable_names.clear();
            world.renames.clear();
            world.dirs.clear();
        });
    }

    /// Cuts the power: what was not synced is lost in part, as `dice` has it.
    pub(super) fn lose_power(&self, mut dice: impl FnMut() -> u8) {
        self.with(|world| {
            for inode in world.inodes.values_mut() {
                let mood = dice() % 3;
                let keep = |dice: &mut dyn FnMut() -> u8| match mood {
                    0 => false,
                    1 => true,
                    _ => dice().is_multiple_of(2),
                };
                let mut data = inode.durable.clone();
                for change in inode.changes.drain(..) {
                    match change {
                        Change::Resize(len) if keep(&mut dice) => data.resize(len, 0),
                        Change::Resize(_) => {}
                        Change::Write(offset, bytes) => {
                            let mut at = offset;
                            let mut rest = bytes.as_slice();
                            while !rest.is_empty() {
                                let n = (512 - at % 512).min(rest.len());
                                if keep(&mut dice) {
                                    data.resize(data.len().max(at + n), 0);
                                    data[at..at + n].copy_from_slice(&rest[..n]);
                                }
                                rest = &rest[n..];
                                at += n;
                            }
                        }
                    }
                }
                inode.durable.clone_from(&data);
                inode.data = data;
            }
            let mut names = world.durable_names.clone();
            for rename in std::mem::take(&mut world.renames) {
                if dice().is_multiple_of(2) {
                    apply(&mut names, rename);
                }
            }
            world.durable_names.clone_from(&names);
            world.names = names;
            world.locked.clear();
        });
    }

    /// Counts a call and says whether it is to fail.
    fn call(&self, changes: bool) -> io::Result<Option<Fault>> {
        self.with(|world| {
            world.calls += 1;
            if changes && world.read_only {
                return Err(Errno::ROFS.into());
            }
            let Some((from, to, fault)) = world.failing else { return Ok(None) };
            if world.calls < from || world.calls >= to {
                return Ok(None);
            }
            world.failed += 1;
            Ok(Some(fault))
        })
    }

    fn fallible(&self, changes: bool) -> io::Result<()> {
        match self.call(changes)? {
            Some(Fault::Errno(errno)) => Err(errno.into()),
            Some(Fault::Short) | None => Ok(()),
        }
    }

    fn file(&self, inode: u64) -> SimFile {
        let handle = self.with(|world| {
            world.next += 1;
            world.next
        });
        SimFile { world: self.clone(), inode, handle, holds_lock: false }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, rename: Rename) {
    match rename {
        Rename::Set(path, inode) => {
            names.insert(path, inode);
        }
        Rename::Remove(path) => {
            names.remove(&path);
        }
        Rename::Move(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
    }
}

fn missing() -> io::Error {
    Errno::NOENT.into()
}

impl World {
    fn rename(&mut self, rename: Rename) {
        if self.tracking {
            self.renames.push(rename.clone());
        }
        apply(&mut self.names, rename);
    }

    fn has_dir(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.dirs.contains(parent))
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].data.len() as u64).sum()
    }

    fn change(&mut self, inode: u64, change: Change) -> io::Result<()> {
        let size = self.inodes[&inode].data.len();
        let after = match &change {
            Change::Write(offset, bytes) => size.max(offset + bytes.len()),
            Change::Resize(len) => *len,
        };
        if let Some(room) = self.room
            && after > size
            && self.used() + (after - size) as u64 > room
        {
            return Err(Errno::NOSPC.into());
        }
        let tracking = self.tracking;
        let inode = self.inodes.get_mut(&inode).unwrap();
        inode.data.resize(after, 0);
        if let Change::Write(offset, bytes) = &change {
            inode.data[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        if tracking {
            inode.changes.push(change);
        }
        Ok(())
    }
}

impl Storage for Sim {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.with(|world| world.dirs.contains(path)) {
            return Ok(());
        }
        self.fallible(true)?;
        self.with(|world| world.dirs.insert(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Found>> {
        self.fallible(false)?;
        self.with(|world| {
            if !world.dirs.contains(path) {
                return Err(missing());
            }
            let name = |path: &Path| OsString::from(path.file_name().unwrap());
            let files = world.names.keys().filter(|name| name.parent() == Some(path));
            let dirs = world.dirs.iter().filter(|name| name.parent() == Some(path));
            Ok(files
                .map(|path| Found { name: name(path), is_dir: false })
                .chain(dirs.map(|path| Found { name: name(path), is_dir: true }))
                .collect())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.fallible(true)?;
        let inode = self.with(|world| {
            if !world.has_dir(path) {
                return Err(missing());
            }
            if let Some(inode) = world.names.get(path).copied() {
                world.change(inode, Change::Resize(0))?;
                return Ok(inode);
            }
            world.next += 1;
            let inode = world.next;
            world.inodes.insert(inode, Inode::default());
            world.rename(Rename::Set(path.to_path_buf(), inode));
            Ok(inode)
        })?;
        Ok(Box::new(self.file(inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.fallible(false)?;
        if self.with(|world| world.shut.contains(path)) {
            return Err(Errno::UCLEAN.into());
        }
        let inode = self.with(|world| world.names.get(path).copied()).ok_or_else(missing)?;
        Ok(Box::new(self.file(inode)))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Lock> {
        let known = self.with(|world| world.names.get(path).copied());
        let inode = if let Some(inode) = known {
            inode
        } else {
            self.create(path)?;
            self.with(|world| world.names[path])
        };
        let mut file = self.file(inode);
        if !self.with(|world| world.locked.insert(inode)) {
            return Ok(Lock::Busy(String::from_utf8(self.content(path)).unwrap()));
        }
        file.holds_lock = true;
        self.with(|world| world.inodes.get_mut(&inode).unwrap().data = owner.into());
        Ok(Lock::Held(Box::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fallible(true)?;
        self.with(|world| {
            let inode = world.names.get(from).copied().ok_or_else(missing)?;
            world.rename(Rename::Move(from.to_path_buf(), to.to_path_buf(), inode));
            Ok(())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.fallible(true)?;
        self.with(|world| {
            if !world.names.contains_key(path) {
                return Err(missing());
            }
            world.rename(Rename::Remove(path.to_path_buf()));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fallible(false)?;
        self.with(|world| {
            if !world.dirs.contains(path) {
                return Err(missing());
            }
            let (names, tracking) = (world.names.clone(), world.tracking);
            if tracking {
                world.durable_names = names;
                world.renames.clear();
            }
            Ok(())
        })
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.fallible(false)?;
        Ok(self.with(|world| world.free))
    }

    fn unix_ms(&self) -> u64 {
        self.with(|world| world.unix_ms)
    }

    fn entropy(&self) -> u64 {
        self.with(|world| {
            world.random ^= world.random << 13;
            world.random ^= world.random >> 7;
            world.random ^= world.random << 17;
            world.random
        })
    }
}

impl StorageFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.world.fallible(false)?;
        Ok(self.world.with(|world| world.inodes[&self.inode].data.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.world.fallible(false)?;
        self.world.with(|world| {
            let end = offset + buffer.len() as u64;
            if world.bad.get(&self.inode).is_some_and(|bad| offset < bad.end && bad.start < end) {
                return Err(Errno::IO.into());
            }
            let data = &world.inodes[&self.inode].data;
            let rest = data.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            world.bytes_read += n as u64;
            Ok(n)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let n = match self.world.call(true)? {
            Some(Fault::Errno(errno)) => return Err(errno.into()),
            Some(Fault::Short) => bytes.len().div_ceil(2),
            None => bytes.len(),
        };
        let change = Change::Write(offset as usize, bytes[..n].to_vec());
        self.world.with(|world| world.change(self.inode, change))?;
        Ok(n)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.world.fallible(true)?;
        self.world.with(|world| {
            let size = world.inodes[&self.inode].data.len();
            world.change(self.inode, Change::Resize(size.max(len as usize)))
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.world.fallible(true)?;
        self.world.with(|world| world.change(self.inode, Change::Resize(len as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.world.call(true);
        self.world.with(|world| {
            if world.poisoned.contains(&self.handle) {
                world.breaches.push("fsync again after it failed on this descriptor".to_owned());
            }
            if world.syncing.contains(&self.handle) {
                world.breaches.push("fsync while another goes on".to_owned());
            }
            let inode = world.inodes.get_mut(&self.inode).unwrap();
            if let Err(error) = fault {
                world.poisoned.insert(self.handle);
                return Err(error);
            }
            if let Ok(Some(Fault::Errno(errno))) = fault {
                // The kernel forgets the pages: no later sync will write them.
                inode.changes.clear();
                world.poisoned.insert(self.handle);
                return Err(errno.into());
            }
            inode.changes.clear();
            if world.tracking {
                inode.durable.clone_from(&inode.data);
            }
            Ok(())
        })
    }

    fn begin_sync(&self) -> Option<Box<dyn Syncing>> {
        self.world.with(|world| {
            let patience = world.background?;
            if world.poisoned.contains(&self.handle) {
                world.breaches.push("fsync again after it failed on this descriptor".to_owned());
            }
            if !world.syncing.insert(self.handle) {
                world.breaches.push("two syncs of one file at once".to_owned());
            }
            let (inode, handle) = (self.inode, self.handle);
            let covers = world.inodes[&inode].changes.len();
            let world = self.world.clone();
            let sync: Box<dyn Syncing> =
                Box::new(SimSync { world, inode, handle, covers, patience });
            Some(sync)
        })
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.world.with(|world| world.names.values().any(|inode| *inode == self.inode)))
    }
}

/// A sync on a thread that is not there: it covers what was written when it began, and is over when
/// it was asked for often enough.
#[derive(Debug)]
struct SimSync {
    world: Sim,
    inode: u64,
    handle: u64,
    covers: usize,
    patience: u32,
}

impl Syncing for SimSync {
    fn wait(&mut self, patience: Duration) -> Option<io::Result<()>> {
        if self.world.with(|world| world.silent) {
            return None;
        }
        if patience.is_zero()
            && let Some(less) = self.patience.checked_sub(1)
        {
            self.patience = less;
            return None;
        }
        Some(self.finish())
    }
}

impl SimSync {
    fn finish(&self) -> io::Result<()> {
        let fault = self.world.call(true);
        self.world.with(|world| {
            world.syncing.remove(&self.handle);
            let inode = world.inodes.get_mut(&self.inode).unwrap();
            let error = match fault {
                Err(error) => Some(error),
                Ok(Some(Fault::Errno(errno))) => Some(errno.into()),
                Ok(_) => None,
            };
            if let Some(error) = error {
                // The kernel forgets the pages, also those that came later.
                inode.changes.clear();
                world.poisoned.insert(self.handle);
                return Err(error);
            }
            let covers = self.covers.min(inode.changes.len());
            for change in inode.changes.drain(..covers) {
                match change {
                    Change::Resize(len) => inode.durable.resize(len, 0),
                    Change::Write(offset, bytes) => {
                        let end = inode.durable.len().max(offset + bytes.len());
                        inode.durable.resize(end, 0);
                        inode.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            Ok(())
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if self.holds_lock {
            self.world.with(|world| world.locked.remove(&self.inode));
        }
    }
}
