// SPDX-License-Identifier: MIT
//! What this machine lacks, written down: `make test` prints the list at its end.

use std::fs::OpenOptions;
use std::io::Write;

use super::target;

/// Notes one skipped test: which, why, and how to get what is missing. The file is `<target>/test-skips.txt`.
pub fn note(test: &str, reason: &str, remedy: &str) {
    eprintln!("SKIPPED {test}: {reason} ({remedy})");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(target().join("test-skips.txt"))
        .expect("the target folder can be written");
    // In one write: other test programs append to it at the same time.
    file.write_all(format!("{test}: {reason}; to get it: {remedy}\n").as_bytes())
        .expect("the list of skips can be written");
}

/// `Some`, or a note of what is missing and `None`: `let Some(rabbit) = skips::unless(…) else { return };`
pub fn unless<T>(test: &str, found: Result<T, Missing>) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(missing) => {
            note(test, &missing.what, &missing.remedy);
            None
        }
    }
}

/// Something a test needs that is not here.
#[derive(Debug, Clone)]
pub struct Missing {
    pub what: String,
    pub remedy: String,
}

impl Missing {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}
