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

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&mut self) {
        self.paused = true;
        self.signal("STOP");
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

impl Drop for Leashed {
    fn drop(&mut self) {
        drop(self.leash.take());
        self.signal("KILL");
        drop(self.child.wait());
    }
}
