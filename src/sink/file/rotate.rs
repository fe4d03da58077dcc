// SPDX-License-Identifier: MIT
//! Names of files, now and after rotation.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::clock::moment;

/// The configured path with its fields filled in.
pub(super) fn path_now(template: &str, node: &str, sink: &str, now: SystemTime) -> PathBuf {
    let moment = moment(now);
    let date = format!("{:04}-{:02}-{:02}", moment.year, moment.month, moment.day);
    let hour = format!("{:02}", moment.hour);
    // A node name is the operator's text: in a path it is one part of a name and nothing else.
    let node: String = node.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
    template
        .replace("${date}", &date)
        .replace("${hour}", &hour)
        .replace("${node}", &node)
        .replace("${sink}", sink)
        .into()
}

/// A free name for a file that is rotated now: its own, the time, and a number when several are
/// rotated within a second.
pub(super) fn rotated_name(path: &Path, now: SystemTime) -> PathBuf {
    let moment = moment(now);
    let stamp = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
    );
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = |number: u32| {
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        path.with_file_name(format!("{name}.{stamp}{number}"))
    };
    let taken = |path: &PathBuf| path.exists() || compressed_name(path).exists();
    (0..10_000).map(named).find(|path| !taken(path)).unwrap_or_else(|| named(10_000))
}

/// The name of a file once it is compressed.
pub(super) fn compressed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Deletes the oldest rotated files of this sink beyond the newest `keep`.
///
/// Which files are its own is told by the fixed text in front of the first field of the path's
/// last part; nothing else in the folder is touched, nor is the file in use.
pub(super) fn prune(current: &Path, template: &str, node: &str, sink: &str, keep: u32) {
    let last = template.rsplit('/').next().unwrap_or_default();
    let last = last.replace("${node}", node).replace("${sink}", sink);
    let prefix = last.split("${").next().unwrap_or_default();
    let Some(folder) = current.parent().filter(|_| !prefix.is_empty()) else { return };
    let Ok(entries) = fs::read_dir(folder) else { return };
    let in_use = current.file_name().unwrap_or_default();
    let mut rotated: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter(|entry| entry.file_name() != in_use)
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((meta.modified().ok()?, entry.path()))
        })
        .collect();
    rotated.sort();
    let surplus = rotated.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for (_, path) in rotated.into_iter().take(surplus) {
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot delete the old file {}: {error}", path.display());
        }
    }
}
