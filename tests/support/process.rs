// SPDX-License-Identifier: MIT
//! Servers as child processes that cannot outlive the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::{root, wait_until};

/// A server in a process group of its own, on a leash: `tests/support/leash.sh` kills the group when our end of a pipe
/// closes, which the kernel does for us when this process dies in whatever way.
#[derive(Debug)]
pub struct Leashed {
    child: Child,
    leash: Option<ChildStdin>,
    group: i32,
    paused: bool,
}

impl Leashed {
    /// Starts `command` (its program, arguments, environment and folder are taken), its output in `output`, which begins
    /// anew: what an earlier run said must not be taken for this one's.
    pub fn start(command: &Command, output: &Path) -> Self {
        drop(std::fs::remove_file(output));
        let mut leash = Command::new(root().join("tests/support/leash.sh"));
        leash.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leash.env(name, value),
                None => leash.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            leash.current_dir(folder);
        }
        leash.env("LEASH_OUTPUT", output).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = leash.spawn().expect("leash.sh can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("leash.sh says its group");
        let group = line.trim().parse().expect("leash.sh says a number");
        let leash = child.stdin.take();
        Self { child, leash, group, paused: false }
    }

    /// The process group, which is also the number of its first process.
    pub fn group(&self) -> i32 {
        self.group
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.group);
        drop(Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status());
    }

    /// `kill -9` of the whole group, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait(Duration::from_secs(10));
    }

    /// SIGTERM to the group, and waits.
    pub fn terminate(&mut self, limit: Duration) {
        self.resume();
        self.signal("TERM");
        self.wait(limit);
    }

    /// SIGSTOP: connections stay open, nothing answers. Returns when every thread stands still: `kill` returns before,
    /// and a thread that still runs on another processor answers what is sent to it meanwhile.
    pub fn pause(&mut self) {
        self.paused = true;
        self.signal("STOP");
        wait_until(Duration::from_secs(10), "every thread of a server to stop", || {
            let states = states(self.group);
            let is_still = |state: &char| matches!(state, 'T' | 't' | 'Z' | 'X');
            states.contains(&'T') && states.iter().all(is_still)
        });
    }

    pub fn resume(&mut self) {
        if self.paused {
            self.paused = false;
            self.signal("CONT");
        }
    }

    /// Waits for the end that something else brings about.
    pub fn wait(&mut self, limit: Duration) {
        wait_until(limit, "a server to end", || !self.is_running());
    }
}

/// The state of every thread of a process group, as `/proc` names it (proc(5)). Threads that end meanwhile are left out.
fn states(group: i32) -> Vec<char> {
    let mut states = Vec::new();
    let processes = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
    for process in
        processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
    {
        if stat(&process.path()).is_none_or(|(_, its_group)| its_group != group) {
            continue;
        }
        let Ok(threads) = std::fs::read_dir(process.path().join("task")) else { continue };
        states.extend(
            threads.flatten().filter_map(|thread| stat(&thread.path())).map(|(state, _)| state),
        );
    }
    states
}

/// State and process group of the process or thread whose folder in `/proc` this is; none when it has ended.
fn stat(folder: &Path) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // Its name stands in parentheses and may hold some itself.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

impl Drop for Leashed {
    fn drop(&mut self) {
        drop(self.leash.take());
        self.signal("KILL");
        drop(self.child.wait());
    }
}
