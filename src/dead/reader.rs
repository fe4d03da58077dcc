// SPDX-License-Identifier: MIT
//! Reading letters while the publisher goes on writing.
//!
//! A file that goes away meanwhile held letters that are gone, and half a line at the end is a
//! letter that isn't there yet: both are passed over.

use std::fs;
use std::path::{Path, PathBuf};

use super::letter::{Letter, id_and_time};
use super::store::first_id;
use crate::lines;

/// Whole letters from the id `from` on, in order, a file in memory at a time.
pub(super) fn letters(dir: &Path, from: u64) -> impl Iterator<Item = Letter> {
    files(dir, from).flat_map(move |path| in_file(path, from))
}

/// Those of them that are in the first file that has any.
pub(super) fn first_letters(dir: &Path, from: u64) -> Vec<Letter> {
    let mut files = files(dir, from).map(|path| in_file(path, from));
    files.find(|letters| !letters.is_empty()).unwrap_or_default()
}

fn in_file(path: PathBuf, from: u64) -> Vec<Letter> {
    let bytes = fs::read(path).unwrap_or_default();
    lines::split(&bytes)
        .filter_map(Result::ok)
        .filter(|line| id_and_time(line).is_some_and(|(id, _)| id >= from))
        .filter_map(Letter::read)
        .collect()
}

/// Ids of whole letters from `from` to `to`.
pub(super) fn ids(dir: &Path, from: u64, to: u64) -> impl Iterator<Item = u64> {
    files(dir, from).flat_map(move |path| {
        let bytes = fs::read(path).unwrap_or_default();
        let ids: Vec<u64> = lines::split(&bytes)
            .filter_map(|line| id_and_time(line.ok()?))
            .map(|(id, _)| id)
            .filter(|id| (from..=to).contains(id))
            .collect();
        ids
    })
}

/// The files that may hold letters from `from` on, oldest first.
fn files(dir: &Path, from: u64) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).map(|entries| entries.filter_map(Result::ok).collect());
    let mut files: Vec<(u64, PathBuf)> = entries
        .unwrap_or_else(|_| Vec::new())
        .into_iter()
        .filter_map(|entry| Some((first_id(&entry.file_name().to_string_lossy())?, entry.path())))
        .collect();
    files.sort_unstable();
    let skip = files.partition_point(|(first, _)| *first <= from).saturating_sub(1);
    files.into_iter().skip(skip).map(|(_, path)| path)
}
