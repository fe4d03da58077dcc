// SPDX-License-Identifier: MIT
//! RabbitMQ's own load generator, from its Maven artifact, where `bench.mk` could fetch it.

use std::fs;
use std::process::Command;

use crate::plain_amqp::Taken;
use crate::support::{Folder, in_path, target};

/// Times more messages than elsewhere: its time begins in a virtual machine that is cold.
const MORE: u64 = 4;

/// Messages a second that it publishes of this size, persistent, with at most `window` unconfirmed.
pub fn publish(port: u16, exchange: &str, like: &Taken, count: u64, window: u64) -> Option<f64> {
    let jars = target().join("bench/perf-test");
    in_path("java")?;
    if !jars.join(".complete").is_file() {
        return None;
    }
    let folder = Folder::new("perf-test");
    let body = folder.join("body");
    fs::write(&body, &like.body).expect("a file can be written");
    let done = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg("com.rabbitmq.perf.PerfTest")
        .args(["--uri", &format!("amqp://guest:guest@127.0.0.1:{port}/%2f")])
        .args(["--producers", "1", "--consumers", "0", "--flag", "persistent", "--predeclared"])
        .args(["--exchange", exchange, "--type", "topic", "--routing-key", like.key()])
        .args(["--confirm", &window.to_string(), "--pmessages", &(count * MORE).to_string()])
        .arg("--body")
        .arg(&body)
        .args(["--body-content-type", "application/json"])
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // "id: test-…, sending rate avg: 9531 msg/s"
    let account = said.lines().find(|line| line.contains("sending rate avg: "));
    let errors = String::from_utf8_lossy(&done.stderr);
    let account = account.unwrap_or_else(|| panic!("no account: {said}{errors}"));
    account.split("avg: ").nth(1)?.split(' ').next()?.parse().ok()
}
