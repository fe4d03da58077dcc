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
    template
        .replace("${date}", &date)
        .replace("${hour}", &hour)
        .replace("${node}", &in_a_name(node))
        .replace("${sink}", sink)
        .into()
}

/// A node name is the operator's text: in a path it is one part of a name and nothing else.
fn in_a_name(node: &str) -> String {
    node.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect()
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

/// What stands between the name of a file and the end of the name it is rotated to.
const STAMP: &str = ".00000000T000000Z";
/// What a file that is being compressed ends with.
const PARTIAL: &str = ".gz.partial";

/// The names that a sink's files have had and will have: its path's last part, taken apart.
#[derive(Debug)]
pub(super) struct OwnNames<'a> {
    last: &'a str,
    node: String,
    sink: &'a str,
}

impl<'a> OwnNames<'a> {
    pub(super) fn new(template: &'a str, node: &str, sink: &'a str) -> Self {
        let last = template.rsplit('/').next().unwrap_or_default();
        Self { last, node: in_a_name(node), sink }
    }

    /// What is behind the configured part of a name that is this sink's; `None` for any other.
    fn behind<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (mut template, mut name) = (self.last, name);
        while let Some(field) = template.find("${") {
            let (fixed, rest) = template.split_at(field);
            name = name.strip_prefix(fixed)?;
            let (field, rest) = rest.strip_prefix("${")?.split_once('}')?;
            name = match field {
                "date" => after(name, "0000-00-00")?,
                "hour" => after(name, "00")?,
                "node" => name.strip_prefix(self.node.as_str())?,
                "sink" => name.strip_prefix(self.sink)?,
                _ => return None,
            };
            template = rest;
        }
        name.strip_prefix(template)
    }

    /// Whether a file of this name was rotated or was the one of another day, and is whole.
    pub(super) fn is_past(&self, name: &str) -> bool {
        self.behind(name).is_some_and(|behind| {
            let behind = behind.strip_suffix(".gz").unwrap_or(behind);
            behind.is_empty() || is_stamp(behind)
        })
    }

    /// Whether a file of this name is half of one that was being compressed.
    pub(super) fn is_partial(&self, name: &str) -> bool {
        name.strip_suffix(PARTIAL).is_some_and(|whole| self.is_past(whole))
    }
}

/// What follows a text of this form, in which `0` stands for any digit.
fn after<'n>(name: &'n str, form: &str) -> Option<&'n str> {
    let (head, rest) = name.split_at_checked(form.len())?;
    let fits = head.bytes().zip(form.bytes()).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    });
    fits.then_some(rest)
}

/// Whether it is what [`rotated_name`] puts behind a name.
fn is_stamp(behind: &str) -> bool {
    after(behind, STAMP).is_some_and(|number| match number.strip_prefix('-') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => number.is_empty(),
    })
}

/// The files of a sink in the folder of `current`, without that one, oldest first: name and path.
fn others(current: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = current.parent().and_then(|folder| fs::read_dir(folder).ok());
    let in_use = current.file_name().unwrap_or_default();
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() != in_use)
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted))
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((meta.modified().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Deletes the oldest past files of this sink beyond the newest `keep`, in the folder of the one in
/// use. Nothing else in the folder is touched.
pub(super) fn prune(current: &Path, own: &OwnNames<'_>, keep: u32) {
    let past = others(current, |name| own.is_past(name));
    let surplus = past.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for path in past.into_iter().take(surplus) {
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot delete the old file {}: {error}", path.display());
        }
    }
}

/// Takes up what an earlier life left half done: halves of compressed files go, and the rotated files
/// that are not compressed yet are returned.
pub(super) fn left_over(current: &Path, own: &OwnNames<'_>) -> Vec<PathBuf> {
    for path in others(current, |name| own.is_partial(name)) {
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot delete the unfinished {}: {error}", path.display());
        }
    }
    others(current, |name| own.is_past(name) && name.strip_suffix(".gz").is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_knows_its_own_files_and_no_others() {
        let own = OwnNames::new("/log/events-${date}-${node}.ndjson", "fs/1", "journal");
        for name in [
            "events-2026-11-21-fs_1.ndjson",
            "events-2026-11-21-fs_1.ndjson.gz",
            "events-2026-11-21-fs_1.ndjson.20261121T101112Z",
            "events-2026-11-21-fs_1.ndjson.20261121T101112Z-12.gz",
        ] {
            assert!(own.is_past(name), "{name}");
        }
        for name in [
            "events-notes.txt",
            "events-calls-2026-11-21-fs_1.ndjson",
            "events-2026-11-21-fs_2.ndjson",
            "events-2026-11-2a-fs_1.ndjson",
            "events-2026-11-21-fs_1.ndjson.bak",
            "events-2026-11-21-fs_1.ndjson.20261121T101112Z-",
            "events-2026-11-21-fs_1.ndjson.20261121T101112Z.gz.partial",
            "events-2026-11-21-fs_1.ndjson\u{e9}",
            "",
        ] {
            assert!(!own.is_past(name), "{name}");
        }
        let partial = "events-2026-11-21-fs_1.ndjson.20261121T101112Z.gz.partial";
        assert!(own.is_partial(partial) && !own.is_partial("events-notes.gz.partial"));
        let own = OwnNames::new("/log/${date}.${hour}", "fs1", "journal");
        assert!(own.is_past("2026-11-21.07") && !own.is_past("2026-11-21.7"));
    }
}
