// SPDX-License-Identifier: MIT
//! What no compiler checks: which layer imports which, where `unsafe` and threads may be, what the
//! library exports, and the form of every source file.

#![allow(clippy::expect_used, clippy::panic, reason = "a helper of a test fails by panicking")]

#[path = "support/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::{code, line_of, words};

/// Where threads are started.
const THREADS: &str = "src/pipeline/thread.rs";
const LONGEST_FILE: usize = 600;

/// A row of the table in `src/lib.rs`.
#[derive(Debug)]
struct Layer {
    name: String,
    imports: BTreeSet<String>,
    may_be_unsafe: bool,
}

/// A source file, as written and without comments and texts.
struct File {
    path: String,
    text: String,
    code: String,
}

impl File {
    /// The module of the crate that it is in, and how many modules deep; `None` for `lib.rs`.
    fn place(&self) -> Option<(&str, usize)> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let layer = path.split('/').next().filter(|layer| *layer != "lib")?;
        Some((layer, path.split('/').count()))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source under these folders, and the build script.
fn files(folders: &[&str]) -> Vec<File> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of sources can be read");
            waiting.extend(entries.map(|entry| entry.expect("it has entries").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            let path = path.strip_prefix(root()).expect("it is in the project");
            let path = path.to_str().expect("its name is text").to_owned();
            files.push(File { path, code: code(&text), text });
        }
    }
    assert!(files.len() > folders.len(), "sources were found");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Reads the table of layers.
fn layers() -> Vec<Layer> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs can be read");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let mut layers: Vec<Layer> = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, imports, marker, ..] = cells.as_slice() else { panic!("a short row: {row}") };
        let imports = match *imports {
            "–" => BTreeSet::new(),
            "all above but `ffi`" => {
                layers.iter().map(|above| above.name.clone()).filter(|name| name != "ffi").collect()
            }
            names => {
                names.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
            }
        };
        let name = name.trim_matches('`').to_owned();
        layers.push(Layer { name, imports, may_be_unsafe: *marker == "yes" });
    }
    assert!(layers.len() > 5, "the table is in the documentation of the crate");
    layers
}

/// The modules of the crate that `file` names, with the line where it does.
fn imports(file: &File) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let words = words(&file.code);
    let text = |at: usize| words.get(at).map_or("", |word| word.text);
    let depth = file.place().map_or(0, |(_, depth)| depth);
    // Modules that are written out in this file, by the depth of braces at which each began.
    let (mut inline, mut braces) = (Vec::new(), 0_usize);
    for (at, word) in words.iter().enumerate() {
        let line = line_of(&file.code, word.start);
        match word.text {
            "{" => {
                if text(at.wrapping_sub(2)) == "mod" {
                    inline.push(braces);
                }
                braces += 1;
            }
            "}" => {
                braces = braces.saturating_sub(1);
                inline.pop_if(|began| *began == braces);
            }
            "crate" if text(at + 1) == "::" => {
                let group = group_heads(at + 2, text);
                found.extend(group.into_iter().map(|name| (name.to_owned(), line)));
            }
            // A chain that climbs out of its layer arrives among the others.
            "super" if text(at + 1) == "::" && text(at.wrapping_sub(2)) != "super" => {
                let mut end = at;
                while text(end + 2) == "super" && text(end + 1) == "::" {
                    end += 2;
                }
                let climbed = (end - at) / 2 + 1;
                if climbed >= depth + inline.len() && file.place().is_some() {
                    let group = group_heads(end + 2, text);
                    found.extend(group.into_iter().map(|name| (name.to_owned(), line)));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names of what is imported at the word `at`: of one path, or of each in the braces.
fn group_heads<'t>(at: usize, text: impl Fn(usize) -> &'t str) -> Vec<&'t str> {
    if text(at) != "{" {
        return vec![text(at)];
    }
    let (mut heads, mut at, mut braces) = (Vec::new(), at + 1, 1);
    let mut is_head = true;
    while braces > 0 && !text(at).is_empty() {
        match text(at) {
            "{" => braces += 1,
            "}" => braces -= 1,
            "," if braces == 1 => is_head = true,
            name if is_head => {
                heads.push(name);
                is_head = false;
            }
            _ => {}
        }
        at += 1;
    }
    heads
}

#[test]
fn each_layer_imports_what_its_row_allows() {
    let layers = layers();
    let allowed: BTreeMap<&str, &Layer> =
        layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for file in files(&["src"]) {
        let Some((own, _)) = file.place() else { continue };
        let Some(layer) = allowed.get(own) else {
            problems.push(format!("{}: {own} has no row in the table of src/lib.rs", file.path));
            continue;
        };
        for (name, line) in imports(&file) {
            // What isn't a layer is an item of the file itself, or a macro of the crate.
            if name == own || !allowed.contains_key(name.as_str()) {
                continue;
            }
            if !layer.imports.contains(&name) {
                problems.push(format!("{}:{line}: {own} must not import {name}", file.path));
            }
            used.insert((own.to_owned(), name));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(used.len() > 10, "imports were found: {used:?}");
}

#[test]
fn a_layer_imports_only_layers_that_are_written_above_it() {
    let mut above = BTreeSet::new();
    for layer in layers() {
        let unknown: Vec<_> = layer.imports.difference(&above).collect();
        assert!(unknown.is_empty(), "{} imports {unknown:?}", layer.name);
        above.insert(layer.name);
    }
}

#[test]
fn a_row_of_the_table_is_a_module_of_the_crate() {
    for Layer { name, .. } in layers() {
        let is_there = |path: String| root().join("src").join(path).is_file();
        assert!(is_there(format!("{name}.rs")) || is_there(format!("{name}/mod.rs")), "{name}");
    }
}

#[test]
fn unsafe_code_is_where_the_table_says() {
    let may: BTreeSet<String> =
        layers().into_iter().filter(|layer| layer.may_be_unsafe).map(|layer| layer.name).collect();
    assert_eq!(may.iter().map(String::as_str).collect::<Vec<_>>(), ["abi", "ffi", "switch"]);
    let mut found = BTreeSet::new();
    for file in files(&["src"]) {
        for word in words(&file.code) {
            if word.text != "unsafe" && word.text != "unsafe_code" {
                continue;
            }
            let line = line_of(&file.code, word.start);
            let Some((layer, _)) = file.place() else {
                // The whole crate may only be stricter.
                assert!(word.text == "unsafe_code" && file.code.contains("forbid(unsafe_code)"));
                continue;
            };
            assert!(may.contains(layer), "{}:{line}: no unsafe in {layer}", file.path);
            found.insert(layer.to_owned());
        }
    }
    assert_eq!(found, may, "a layer that needs no unsafe should not be allowed it");
}

#[test]
fn threads_are_started_in_one_place() {
    let mut problems = Vec::new();
    let mut starts_there = 0;
    // A test may start what it likes.
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for file in files(&["src"]).into_iter().filter(|file| !is_test(&file.path)) {
        let words = words(&file.code);
        let text = |at: usize| words.get(at).map_or("", |word| word.text);
        for (at, word) in words.iter().enumerate() {
            if word.text != "std" || text(at + 1) != "::" {
                continue;
            }
            // `thread::spawn` alone may be ours, so what counts is what is taken from std.
            let used = match (text(at + 2), text(at + 3)) {
                ("thread", "::") => group_heads(at + 4, text),
                ("thread", _) => vec!["the whole of std::thread"],
                ("{", _) if group_heads(at + 2, text).contains(&"thread") => {
                    vec!["std::thread among others"]
                }
                _ => continue,
            };
            for used in used {
                if matches!(
                    used,
                    "current" | "panicking" | "park_timeout" | "JoinHandle" | "Thread"
                ) {
                    continue;
                }
                if file.path == THREADS {
                    starts_there += 1;
                } else {
                    let line = line_of(&file.code, word.start);
                    problems.push(format!("{}:{line}: {used} outside of {THREADS}", file.path));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(starts_there > 0, "{THREADS} starts them");
}

#[test]
fn every_source_names_its_license_and_is_short() {
    let mut problems = Vec::new();
    let mut all = files(&["src", "tests"]);
    let build = fs::read_to_string(root().join("build.rs")).expect("the build script can be read");
    all.push(File { path: "build.rs".into(), code: String::new(), text: build });
    for file in all {
        let first = file.text.lines().next().unwrap_or_default();
        if first != "// SPDX-License-Identifier: MIT" {
            problems.push(format!("{}: begins with {first:?}", file.path));
        }
        let lines = file.text.lines().count();
        if lines > LONGEST_FILE {
            problems.push(format!("{}: {lines} lines, more than {LONGEST_FILE}", file.path));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_library_exports_what_the_loader_looks_for_and_nothing_else() {
    // Tests lie in `<profile>/deps`, the library of the same build beside or above them.
    let test = env::current_exe().expect("a test knows where it is");
    let library = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("libmod_rustbridge.so"))
        .find(|path| path.is_file())
        .expect("building the tests of a package builds its library");
    let output = match Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: nm cannot be run ({error}): install binutils");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).expect("symbols are text");
    let found: Vec<&str> =
        listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let expected: &[&str] =
        if cfg!(feature = "switch") { &["mod_rustbridge_module_interface"] } else { &[] };
    assert_eq!(found, expected, "{}", library.display());
}

/// A check that finds nothing where something is would let everything pass.
#[test]
fn the_checks_see_what_they_look_for() {
    let file =
        |path: &str, text: &str| File { path: path.into(), text: text.into(), code: code(text) };
    let names = |file: &File| imports(file).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let text = "use crate::{a::{b, c}, d};\n// crate::e\nfn f() { crate::g::h(\"crate::i\") }";
    assert_eq!(names(&file("src/x/y.rs", text)), ["a", "d", "g"]);
    assert_eq!(imports(&file("src/x/y.rs", text))[2].1, 3);
    assert_eq!(names(&file("src/x/y.rs", "use super::z; use super::super::{a, b};")), ["a", "b"]);
    let nested =
        "use super::z;\nmod tests {\n use super::super::w;\n use super::super::super::a; }";
    assert_eq!(names(&file("src/x/y.rs", nested)), ["a"]);
    assert_eq!(names(&file("src/x.rs", "mod t { use super::*; } use super::a;")), ["a"]);
}
