// SPDX-License-Identifier: MIT
//! Under which licenses everything stands that the module is built with.
//!
//! `UPDATE_DOCS=1 cargo test --test licenses` writes `docs/licenses.md` anew.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking, and what isn't in JSON reads as null"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licenses by which a library under the MIT license can be shipped, statically linked.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What a package brings along that isn't Rust, and that its own license says nothing of.
const BUNDLED: &[(&str, &str)] = &[
    ("fswtch-src", "headers of FreeSWITCH: MPL-1.1; read by the build where no others are found"),
    ("libz-sys", "zlib: Zlib; where the system has none"),
    ("rdkafka-sys", "librdkafka: BSD-2-Clause, with the licenses of its LICENSES.txt"),
];

/// Where the list is made for. Other systems take other packages of the same origin.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// What cargo knows of every package, or why that can't be had here.
fn metadata() -> Result<Value, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |more: &[&str]| {
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
            .args(["--filter-platform", PLATFORM])
            .args(more)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .map_err(|error| format!("cargo can't be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    };
    // Mostly everything is there; else cargo gets it.
    ask(&["--offline"]).or_else(|_| ask(&[]))
}

/// Returns whether one of the ways that an SPDX expression leaves is allowed.
fn is_allowed(expression: &str) -> bool {
    // Before expressions, a slash was how packages said "or".
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = either(&mut rest);
    allowed && rest.is_empty()
}

fn either(words: &mut &[&str]) -> bool {
    let mut allowed = both(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        allowed |= both(words);
    }
    allowed
}

fn both(words: &mut &[&str]) -> bool {
    let mut allowed = one(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let allowed = either(words);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            allowed
        }
        [license, "WITH", exception, rest @ ..] => {
            *words = rest;
            ALLOWED.contains(&format!("{license} WITH {exception}").as_str())
        }
        [license, rest @ ..] => {
            *words = rest;
            ALLOWED.contains(license)
        }
        [] => false,
    }
}

/// Every package but our own, with its license.
fn packages(metadata: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let used: BTreeSet<String> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| text(&node["id"]))
        .collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter(|package| !package["source"].is_null() && used.contains(&text(&package["id"])))
        .map(|package| (text(&package["name"]), text(&package["license"])))
        .collect()
}

#[test]
fn every_dependency_has_a_license_that_allows_to_ship_it() {
    let metadata = match metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            eprintln!(
                "SKIPPED: cargo knows not every package here; run cargo fetch with a network\n{error}"
            );
            return;
        }
    };
    let packages = packages(&metadata);
    assert!(packages.len() > 20, "packages were found: {packages:?}");
    let refused: Vec<_> = packages.iter().filter(|(_, license)| !is_allowed(license)).collect();
    assert!(refused.is_empty(), "look at these, then add to ALLOWED or do without: {refused:?}");

    let mut list = String::from(
        "# Licenses\n\n\
         What the module is built and tested with, and under which licenses it stands. Written by\n\
         `UPDATE_DOCS=1 cargo test --test licenses`, which also refuses what could not be shipped.\n\n\
         | package | license | brings along |\n| --- | --- | --- |\n",
    );
    for (name, license) in &packages {
        let bundled = BUNDLED.iter().find(|(owner, _)| owner == name).map_or("", |(_, what)| what);
        writeln!(list, "| `{name}` | {license} | {bundled} |").expect("a text takes more text");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/licenses.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &list).expect("the file can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == list, "docs/licenses.md is out of date: run this test with UPDATE_DOCS=1");
    for (owner, _) in BUNDLED {
        assert!(packages.contains_key(*owner), "{owner} is not used any more");
    }
}

#[test]
fn an_expression_is_allowed_if_one_of_its_ways_is() {
    for allowed in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT)", "GPL-2.0 WITH GCC-exception"]
    {
        assert!(!is_allowed(refused), "{refused}");
    }
}
