// SPDX-License-Identifier: MIT
//! Where damaged files go when all that was whole in them is delivered: `quarantine/` in the spool's folder, for whoever wants to look
//! into them. Newer ones push out the oldest, so that a disk that damages file after file is not filled by us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::SpoolConfig;
use super::error::SpoolError;
use super::storage::Storage;

/// The folder's name.
pub(super) const FOLDER: &str = "quarantine";
/// Of the spool's own bound, what lies there is at the most this part, in addition.
const SHARE: u64 = 8;

/// How many bytes may lie there together; one file may, whatever its size.
pub(super) fn bound(config: &SpoolConfig) -> u64 {
    (config.max_bytes / SHARE).max(config.segment_bytes)
}

/// Moves a segment's file of the spool in `dir` there, under a name that is not used there, and removes the oldest until all together
/// are within `bound`.
///
/// # Errors
/// The folder cannot be made, or the file not moved: it is where it was. What cannot be removed is only logged.
pub(super) fn put(
    storage: &dyn Storage,
    dir: &Path,
    bound: u64,
    name: &str,
    id: u64,
) -> Result<PathBuf, SpoolError> {
    let from = dir.join(name);
    let folder = dir.join(FOLDER);
    // By their names they are in the order in which they came.
    let to = folder.join(format!("{:013}-{id:016x}-{name}", storage.unix_ms()));
    let failed = |error| SpoolError::io("move to quarantine", &from, error);
    storage.create_dir(&folder).map_err(failed)?;
    storage.rename(&from, &to).map_err(failed)?;
    if let Err(error) = make_room(storage, &folder, bound, &to) {
        log::warn!("spool {}: cannot remove what is oldest: {error}", folder.display());
    }
    Ok(to)
}

fn make_room(
    storage: &dyn Storage,
    folder: &Path,
    bound: u64,
    newest: &Path,
) -> std::io::Result<()> {
    // What somebody else has put there is not ours to remove.
    let is_ours = |name: &OsString| {
        Path::new(name).extension().is_some_and(|ending| ending == "seg" || ending == "held")
    };
    let files = storage.list(folder)?.into_iter().filter(|found| !found.is_dir);
    let mut names: Vec<OsString> = files.map(|found| found.name).filter(is_ours).collect();
    names.sort_unstable();
    let mut held = 0_u64;
    // From the newest back: what is beyond the bound goes.
    for name in names.iter().rev() {
        let path = folder.join(name);
        held = held.saturating_add(storage.open(&path).and_then(|file| file.size()).unwrap_or(0));
        if held > bound && path != newest {
            storage.unlink(&path)?;
            log::warn!(
                "spool {}: removed: damaged files take {bound} bytes at the most",
                path.display()
            );
        }
    }
    Ok(())
}
