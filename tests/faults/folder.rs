// SPDX-License-Identifier: MIT
//! F13. The folder of the spool: there is none, it goes, it is full, it cannot be written, another has it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::bench::{Row, assert_balanced, dropped, on_disk, size};
use crate::outage::first_ten;
use crate::support::host::HostOptions;
use crate::support::{Folder, module, skips};

/// F13. There can be no spool folder: events wait in memory, it is said, and the spool comes when it can.
pub(crate) fn no_folder(row: &mut Row<'_>) {
    let place = row.folder.join("obstacle");
    fs::write(&place, "a file where a folder should be").unwrap();
    let folder = place.join("spool");
    unusable(row, &folder, &["obstacle"], || fs::remove_file(&place).unwrap());
}

/// Another process has the folder, and gives it up.
pub(crate) fn locked(row: &mut Row<'_>) {
    let folder = row.folder.join("shared");
    fs::create_dir(&folder).unwrap();
    let held = File::create(folder.join("lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    unusable(row, &folder, &["in use by another"], || drop(held));
}

/// The folder's disk can be read only, until somebody mends that.
pub(crate) fn read_only(row: &mut Row<'_>) {
    let Some(disk) = Disk::mounted(row, "size=1g,ro") else { return };
    let folder = disk.0.join("spool");
    unusable(row, &folder, &["Read-only"], || disk.remount("rw"));
}

/// The folder belongs to somebody else, who lets nobody in, until its owner is set right.
pub(crate) fn of_another(row: &mut Row<'_>) {
    // Not in the host's folder, which goes with the host.
    let place = Folder::new("foreign");
    let folder = place.join("spool");
    fs::create_dir(&folder).unwrap();
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let words = ["Permission denied", "give the user the switch runs as write access"];
    // Any number but our own.
    if chown(&folder, Some(65_534), Some(65_534)).is_err() {
        // Only root gives folders away; to anybody else one that is closed to all is as good as another's.
        mode(0);
        return unusable(row, &folder, &words, || mode(0o750));
    }
    mode(0o750);
    let Some(under) = without_root_rights(row, &folder) else { return };
    row.host_with(HostOptions { under, ..HostOptions::default() });
    unusable(row, &folder, &words, || chown(&folder, Some(0), Some(0)).unwrap());
}

/// What runs a program with no more rights over files than their owner, group and mode give it, which keeps even root out of
/// `closed`. None, and a note, when that cannot be had.
fn without_root_rights(row: &Row<'_>, closed: &Path) -> Option<Vec<String>> {
    let given_up = "-dac_override,-dac_read_search";
    let under = ["setpriv", "--inh-caps", given_up, "--bounding-set", given_up].map(str::to_owned);
    let can = |what: &str, path: &Path| {
        let mut command = Command::new(&under[0]);
        command.args(&under[1..]).args(["test", what]).arg(path);
        command.status().is_ok_and(|status| status.success())
    };
    let missing = if !can("-d", Path::new("/")) || can("-r", closed) {
        ("root's rights over files cannot be given up", "run as root with the capability setpcap")
    } else if !can("-r", &module()) {
        ("only its owner can read the module", "build where others can read, or run as the owner")
    } else {
        return Some(under.to_vec());
    };
    skips::note(&row.name, missing.0, missing.1);
    None
}

/// Events wait in memory while the spool cannot be used, its trouble is told in these words, and it is used when it can be.
fn unusable(row: &mut Row<'_>, folder: &Path, words: &[&str], mend: impl FnOnce()) {
    row.begin(&[("spool-dir", &folder.display().to_string())]);
    let sink = row.wait_sink("the trouble to be told", |sink| sink["spool"]["trouble"].is_string());
    let told = sink["spool"]["trouble"].as_str().unwrap();
    for words in words.iter().copied().chain([folder.to_str().unwrap()]) {
        assert!(told.contains(words), "{words} is not in: {told}");
    }
    assert!(!told.contains('\n'), "one line: {told}");
    row.broker.kill();
    row.wait_loss();
    let in_memory = row.deliver(1000);
    assert_eq!(row.sink()["waiting"], in_memory.count);
    mend();
    row.wait_sink("the spool to work", |sink| {
        sink["spool"]["trouble"].is_null() && on_disk(sink, in_memory.count)
    });
    let behind = row.deliver(1000);
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let window = row.broker.kind().window();
    row.judge(&[first_ten(), in_memory, behind], 0, window);
}

/// The disk is full: what has no room in memory either is dropped, counted and told; it goes on when there is room again.
pub(crate) fn full(row: &mut Row<'_>) {
    let Some(disk) = Disk::mounted(row, "size=8m") else { return };
    let folder = disk.0.join("spool").display().to_string();
    row.begin(&[
        ("spool-dir", &folder),
        ("spool-segment-bytes", "1048576"),
        ("spool-min-free-bytes", "0"),
        ("queue-capacity", "2000"),
    ]);
    row.broker.kill();
    row.wait_loss();
    let flood = row.deliver(size(10_000, 100_000));
    let sink = row.wait_sink("the trouble to be told", |sink| sink["spool"]["trouble"].is_string());
    assert!(dropped(&sink) > 0, "{sink:#}");
    assert_balanced(&sink);
    disk.remount("size=512m");
    row.wait_sink("what is in memory to be on disk", |sink| {
        sink["spool"]["trouble"].is_null() && sink["memory_bytes"].as_u64().unwrap() < 1 << 20
    });
    let lost = dropped(&row.sink());
    let behind = row.deliver(1000);
    row.broker.start_again();
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), lost, "nothing more than while it was full: {sink:#}");
    let window = row.broker.kind().window();
    row.judge(&[first_ten(), flood, behind], lost, window);
}

/// A small disk in memory, gone with this value.
struct Disk(PathBuf);

impl Disk {
    /// None, and a note, when this process may not mount.
    fn mounted(row: &Row<'_>, options: &str) -> Option<Self> {
        let place = row.folder.join("disk");
        fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&place);
        let done = mount.output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(place));
        }
        skips::note(&row.name, "a file system of the test's own cannot be mounted", "run as root");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(done.is_ok_and(|done| done.success()), "remount: {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has files there keeps them; the name goes at once.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// F13. Someone deletes the folder of a spool in use: the file that was being written is still open, and nothing is lost with it.
pub(crate) fn deleted(row: &mut Row<'_>) {
    row.begin(&[]);
    row.broker.kill();
    row.wait_loss();
    let before = row.deliver(1000);
    row.wait_sink("everything to be on disk", |sink| on_disk(sink, before.count));
    fs::remove_dir_all(row.folder.join("storage/spool")).unwrap();
    let after = row.deliver(1000);
    row.broker.start_again();
    row.wait_all_delivered();
    let final_ten = row.deliver(10);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    // The segment that was being written is still open, and held all of it.
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(&[first_ten(), before, after, final_ten], 0, resent);
}
