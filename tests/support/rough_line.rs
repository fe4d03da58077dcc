// SPDX-License-Identifier: MIT
//! A line of IP packets between a switch and its broker that does what networks do below TCP: it loses packets, has some
//! overtaken by later ones, and flips bits. `tests/support/rough_line.py` carries them; the switch runs beyond it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::root;
use super::skips::Missing;

/// The status of `rough_line.py` where the machine does not allow what it needs.
const NOT_ALLOWED: i32 = 77;

/// How many of a thousand packets meet which fate.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    pub lost: u64,
    /// Held back until later packets have passed.
    pub held: u64,
    /// One bit flipped.
    pub changed: u64,
}

/// What packets have met so far, in both directions together.
#[derive(Debug, Clone, Copy)]
pub struct Fates {
    pub carried: u64,
    pub lost: u64,
    pub overtaken: u64,
    pub changed: u64,
    /// Segments that the kernel beyond the line threw away for their checksum.
    pub refused: u64,
}

/// A running line; it goes with this value, and with this process however that ends.
#[derive(Debug)]
pub struct RoughLine {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// A process in the namespace beyond it.
    beyond: i32,
}

/// The near address of a network of four that nobody here has, never given twice by this process: out of 198.18.0.0/15, which is
/// set aside for tests of networks (RFC 2544).
pub fn free_network() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    loop {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (1 << 15);
        let near = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number * 4 + 1);
        // An address that can be bound is one of this machine's.
        if TcpListener::bind((near, 0)).is_err() {
            return near;
        }
    }
}

impl RoughLine {
    /// Lays a line whose near end has this address of [`free_network`], or says what is missing.
    pub fn lay(near: Ipv4Addr, shares: Shares) -> Result<Self, Missing> {
        let far = Ipv4Addr::from_bits(near.to_bits() + 1);
        let mut command = Command::new("/usr/bin/python3");
        command.arg(root().join("tests/support/rough_line.py"));
        // Any seed will do, the same in each run.
        command.args([near.to_string(), far.to_string(), "7919".to_owned()]);
        command.args([shares.lost, shares.held, shares.changed].map(|share| share.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python3 can be started");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut said = String::new();
        output.read_line(&mut said).expect("rough_line.py says a process");
        if let Ok(beyond) = said.trim().parse() {
            return Ok(Self { child, input, output, beyond });
        }
        let mut errors = String::new();
        let complaints = child.stderr.take().expect("stderr is piped");
        drop(BufReader::new(complaints).read_to_string(&mut errors));
        let status = child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(NOT_ALLOWED), "rough_line.py: {errors}");
        Err(Missing::new(
            format!("a network of the test's own cannot be made: {}", errors.trim()),
            "run as root where there is /dev/net/tun, in a container with --device /dev/net/tun --privileged",
        ))
    }

    /// The program, with its arguments, that runs another one beyond the line.
    pub fn beyond(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.beyond), "--".to_owned()]
    }

    pub fn fates(&mut self) -> Fates {
        let input = self.input.as_mut().expect("stdin is piped");
        writeln!(input).expect("rough_line.py takes questions");
        let mut said = String::new();
        self.output.read_line(&mut said).expect("rough_line.py answers");
        let fates: Value = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("rough_line.py said {said:?}: {error}"));
        let number = |name: &str| fates[name].as_u64().unwrap_or_else(|| panic!("{name}: {said}"));
        Fates {
            carried: number("carried"),
            lost: number("lost"),
            overtaken: number("overtaken"),
            changed: number("changed"),
            refused: number("refused"),
        }
    }
}

impl Drop for RoughLine {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.wait());
    }
}
