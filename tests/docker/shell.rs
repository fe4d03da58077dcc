// SPDX-License-Identifier: MIT
//! A shell in a running container that takes one command after another: each `docker exec` costs more than most of what the
//! tests ask, and they ask until something has happened.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use crate::engine::command;

/// Begins the line that ends an answer; nothing else does.
const END: &str = "\u{1}rustbridge-end ";

/// It ends with this.
#[derive(Debug)]
pub struct Shell {
    container: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    pub fn new(container: &str) -> Self {
        let mut shell = command(&["exec", "-i", container, "sh"]);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = shell.spawn().expect("docker can be started");
        let input = child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { container: container.into(), child, input, output }
    }

    /// Runs a command and gives all that it printed; as an error where it failed, or did not end within `limit`.
    pub fn run(&mut self, words: &[&str], limit: Duration) -> Result<String, String> {
        let mut line = format!("timeout -k 1 {}", limit.as_secs());
        for word in words {
            write!(line, " '{}'", word.replace('\'', "'\\''")).expect("a string takes everything");
        }
        // What it prints may lack the end of its last line.
        writeln!(line, " </dev/null 2>&1; printf '\\n{END}%d\\n' $?").expect("the same");
        let (answer, status) = self.ask(&line).unwrap_or_else(|| {
            panic!("the shell in {} ended before it answered to {words:?}", self.container)
        });
        if status == "0" {
            Ok(answer)
        } else {
            Err(format!("{}: {}: status {status}: {answer}", self.container, words.join(" ")))
        }
    }

    fn ask(&mut self, line: &str) -> Option<(String, String)> {
        self.input.write_all(line.as_bytes()).ok()?;
        let mut answer = Vec::new();
        loop {
            let from = answer.len();
            if self.output.read_until(b'\n', &mut answer).ok()? == 0 {
                return None;
            }
            if let Some(status) = answer[from..].strip_prefix(END.as_bytes()) {
                let status = String::from_utf8_lossy(status).trim().to_owned();
                // Without the line's end that was put in front of it.
                let answer = String::from_utf8_lossy(&answer[..from.saturating_sub(1)]);
                return Some((answer.into_owned(), status));
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
