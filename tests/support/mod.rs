// SPDX-License-Identifier: MIT
//! The ground that integration tests stand on: switches to load the module into, real brokers, independent consumers,
//! a network that fails on request, and an oracle that says what was lost.
//!
//! Everything started here is private (temporary folders, free ports) and dies with the test, however the test ends.
//! What the machine lacks is written down by [`skips`], never passed over in silence.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::format_collect,
    reason = "each test uses a part of this, and a test that cannot go on stops with a panic that says why"
)]

pub mod certificates;
pub mod clients;
mod folder;
pub mod freeswitch;
pub mod host;
pub mod kafka;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod rabbitmq;
pub mod recorded;
pub mod rough_line;
pub mod skips;
pub mod stories;
pub mod switch;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use folder::Folder;

/// The folder of the package.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder, found from where this test binary is: `<target>/<profile>/deps/<name>`.
pub fn target() -> PathBuf {
    let exe = env::current_exe().expect("a test knows its own path");
    exe.ancestors().nth(3).expect("a test binary is three folders below the target folder").into()
}

/// The library under test: `RUSTBRIDGE_MODULE`, else what cargo built beside this test.
pub fn module() -> PathBuf {
    if let Some(path) = env::var_os("RUSTBRIDGE_MODULE") {
        return fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("RUSTBRIDGE_MODULE is {}: {error}", path.display()));
    }
    let exe = env::current_exe().expect("a test knows its own path");
    let profile = exe.ancestors().nth(2).expect("a test binary is two folders below its profile");
    profile.join("libmod_rustbridge.so")
}

/// Builds the host and what belongs to it when a source is newer, once per test process, and says where they are.
pub fn host_folder() -> PathBuf {
    static BUILT: std::sync::Once = std::sync::Once::new();
    let target = target();
    BUILT.call_once(|| {
        let made = Command::new("flock")
            .arg(target.join("host-build.lock"))
            .args(["make", "--silent", "host"])
            .current_dir(root())
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .expect("make can be started");
        assert!(made.status.success(), "make host: {}", String::from_utf8_lossy(&made.stderr));
    });
    target.join("host")
}

/// A TCP port that was free a moment ago, never given twice by this process. Below those that the kernel gives to outgoing
/// connections, any of which could take it before the server that it is for is up.
pub fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let start = u64::from(std::process::id()).wrapping_mul(97);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 12_000 + u16::try_from(offset).expect("it is below 20 000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` gives something, or panics with `what` when `limit` has passed. It looks less and less often: a
/// command in a switch is an event as well, and who asks faster than a broker confirms never finds that nothing waits.
pub fn wait_for<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        thread::park_timeout(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(250));
    }
}

/// Waits until `condition` holds, or panics with `what` when `limit` has passed.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(limit, what, || condition().then_some(()));
}

/// The first file of this name in the PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
