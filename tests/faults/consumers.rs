// SPDX-License-Identifier: MIT
//! The reference consumers of `examples/`, on streams that faults went through.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::Row;
use crate::broker::Broker;
use crate::support::{Folder, clients, root, skips};

fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// The queue that the reference consumer reads; the oracle empties its own.
fn queue(place: &str) -> String {
    format!("{place}.reference")
}

/// Makes that queue.
pub(crate) fn prepare(row: &Row<'_>) {
    if let Broker::RabbitMq(node, _) = &*row.broker {
        clients::amqp_bind(&node.url(), &row.place, "#", &queue(&row.place));
    }
}

/// Runs the reference consumer over everything that is there. It must have used each event once, and know what is missing.
pub(crate) fn check(row: &Row<'_>, events: usize, told_missing: u64) {
    let mut command = Command::new("/usr/bin/python3");
    // Nothing is left in the sources' folder.
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    let mut reader = None;
    match &*row.broker {
        Broker::RabbitMq(node, _) => {
            let queue = queue(&row.place);
            command.arg(example("consumer_amqp.py")).args([&node.url(), &queue, "--until-empty"]);
        }
        Broker::Kafka(node, _) => {
            let mut kcat = Command::new("kcat");
            kcat.args(["-C", "-q", "-J", "-e", "-o", "beginning", "-b", &node.bootstrap()]);
            let kcat = kcat.args(["-t", &row.place]).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut kcat = kcat.spawn().expect("kcat can be started");
            let records = kcat.stdout.take().expect("stdout is piped");
            command.arg(example("consumer_kafka.py")).stdin(records);
            reader = Some(kcat);
        }
    }
    let done = command.output().expect("a consumer can be started");
    // It ends with what there is to read, or when nobody reads on.
    drop(command);
    if let Some(mut reader) = reader {
        reader.wait().expect("kcat ends");
    }
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let summary = said.lines().last().unwrap_or_default();
    let summary: Value =
        serde_json::from_str(summary).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(summary["events"], events, "{summary}");
    assert_eq!(summary["told_missing"], told_missing, "{summary}");
    assert_eq!(summary["untold_holes"], Value::Array(Vec::new()), "{summary}");
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), events);
}

/// A record as kcat prints it: id, boot, number and payload.
fn record((id, boot, seq, payload): (&str, &str, u64, &str)) -> String {
    let seq = seq.to_string();
    let headers = ["message-id", id, "node", "fs1", "boot", boot, "seq", &seq];
    serde_json::json!({ "headers": headers, "payload": payload }).to_string() + "\n"
}

/// What the reference consumer uses of these records, and its summary.
fn consumed(test: &str, records: &[(&str, &str, u64, &str)]) -> Option<(Vec<String>, Value)> {
    let python = "/usr/bin/python3";
    if !std::path::Path::new(python).exists() {
        skips::note(test, "there is no python3", "apt-get install python3");
        return None;
    }
    let folder = Folder::new("consumer");
    let input = folder.write("records", records.iter().copied().map(record).collect::<String>());
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(example("consumer_kafka.py"));
    command.stdin(std::fs::File::open(&input).unwrap());
    let done = command.output().expect("a consumer can be started");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let used = String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect();
    Some((used, serde_json::from_str(said.lines().last().unwrap()).unwrap()))
}

/// What `rustbridge_publish` sends has any form: it is used as the text that it is.
#[test]
fn a_reference_consumer_takes_what_is_no_event() {
    let test = "a_reference_consumer_takes_what_is_no_event";
    let records = [
        ("1", "B", 1, "plain words"),
        ("2", "B", 2, "[1, 2]"),
        ("3", "B", 3, "null"),
        ("4", "B", 4, r#"{"Event-Name": "DTMF"}"#),
    ];
    let Some((used, _)) = consumed(test, &records) else { return };
    assert_eq!(used, [r#""plain words""#, "[1, 2]", r#""null""#, r#"{"Event-Name": "DTMF"}"#]);
}

/// An orphan that the boot before has told as well: of no use, and yet its number is no hole in the stream of this boot.
#[test]
fn a_reference_consumer_sees_the_number_of_a_repetition() {
    let test = "a_reference_consumer_sees_the_number_of_a_repetition";
    let records = [
        ("orphan", "B", 1, "{}"),
        ("orphan", "C", 1, "{}"),
        ("c-2", "C", 2, "{}"),
        ("c-4", "C", 4, "{}"),
    ];
    let Some((used, summary)) = consumed(test, &records) else { return };
    assert_eq!(used.len(), 3);
    assert_eq!(summary["duplicates"], 1, "{summary}");
    let hole = serde_json::json!([{ "node": "fs1", "boot": "C", "first": 3, "last": 3 }]);
    assert_eq!(summary["untold_holes"], hole, "{summary}");
}
