// SPDX-License-Identifier: MIT
//! `rustbridge dlq`: messages that the broker rejected for themselves.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::{Module, lock};
use super::status::{ago, pretty};
use super::{ok, table, words};
use crate::dead::{DeadLetters, Letter, Which};
use crate::event::{EventNames, Index};
use crate::queue::DropReason;

/// What may follow `dlq`.
pub(super) const ACTIONS: &[&str] = &["list", "show", "retry", "purge"];
/// How the command is used.
pub(super) const SYNTAX: &str = "list|show|retry|purge <sink> [id|all] [json]";

/// Letters that one answer lists.
const LISTED: usize = 100;
/// Characters of a cell that someone else chose.
const CELL: usize = 60;

/// Carries out what follows `dlq`.
pub(super) fn run(module: &Module, line: &str) -> Result<String, String> {
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    let json = arguments.last() == Some(&"json");
    if json {
        arguments.pop();
    }
    let mut arguments = arguments.into_iter();
    let action = arguments.next().unwrap_or_default();
    if !ACTIONS.contains(&action) {
        return Err(no_action(action));
    }
    let sink = arguments.next().unwrap_or_default();
    let dead = find(module, action, sink)?;
    let which = arguments.next();
    if let Some(surplus) = arguments.next() {
        return Err(format!("{:?} is one argument too many; {}", words::shown(surplus), usage()));
    }
    let names = &module.core.names;
    match action {
        "list" => Ok(list(&dead, sink, from(which)?, json)),
        "show" => show(&dead, one(which)?, names, json),
        "retry" => {
            let count = dead.ask_retry(some(action, which)?).map_err(|error| error.to_string())?;
            let problem = dead.stats().problem;
            match problem.filter(|_| count == 0) {
                Some(problem) => Err(problem),
                None => {
                    Ok(done(json, "retried", count, &format!("to be sent again through {sink}")))
                }
            }
        }
        _ => {
            let count = dead.purge(some(action, which)?).map_err(|error| error.to_string())?;
            // They enter the account again, and leave it for good.
            if let Some(pipeline) = lock(&module.sinks).find(sink) {
                let account = pipeline.ring().account();
                account.recovered(count);
                account.dropped(DropReason::Purged, count);
            }
            Ok(done(json, "purged", count, &format!("of {sink} thrown away")))
        }
    }
}

fn usage() -> String {
    format!("usage: rustbridge dlq {SYNTAX}")
}

fn no_action(action: &str) -> String {
    if action.is_empty() {
        return usage();
    }
    let meant = words::nearest(action, ACTIONS.iter().copied())
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"));
    format!("dlq has no action {:?}{meant}; {}", words::shown(action), usage())
}

fn find(module: &Module, action: &str, sink: &str) -> Result<Arc<DeadLetters>, String> {
    let sinks = lock(&module.sinks);
    if let Some(dead) = sinks.dead_letters_of(sink) {
        return Ok(dead);
    }
    let names = sinks.names();
    if sink.is_empty() {
        return Err(format!("\"dlq {action}\" needs the name of a sink: {}", names.join(", ")));
    }
    let meant = words::nearest(sink, names.iter().map(String::as_str))
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"));
    Err(format!("there is no sink {:?}{meant}", words::shown(sink)))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| {
        format!("{:?} is not the number of a dead letter; dlq list shows them", words::shown(word))
    })
}

fn from(which: Option<&str>) -> Result<u64, String> {
    which.filter(|word| *word != "all").map_or(Ok(0), number)
}

fn one(which: Option<&str>) -> Result<u64, String> {
    number(which.ok_or_else(|| format!("\"dlq show\" needs the number of a letter; {}", usage()))?)
}

/// Which letters an action that changes something is for: it must be said.
fn some(action: &str, which: Option<&str>) -> Result<Which, String> {
    match which {
        Some("all") => Ok(Which::All),
        Some(word) => number(word).map(Which::One),
        None => Err(format!("\"dlq {action}\" needs the number of a letter, or all; {}", usage())),
    }
}

fn done(json: bool, name: &str, count: u64, what: &str) -> String {
    if json {
        return pretty(&json!({ name: count }));
    }
    let letters = if count == 1 { "letter" } else { "letters" };
    ok(&format!("{count} {letters} {what}"))
}

fn list(dead: &DeadLetters, sink: &str, from: u64, json: bool) -> String {
    let stats = dead.stats();
    let mut letters = dead.list(from, LISTED + 1);
    let next = if letters.len() > LISTED { letters.pop().map(|letter| letter.id) } else { None };
    if json {
        let letters: Vec<Value> = letters.iter().map(head).collect();
        return pretty(&json!({
            "sink": sink,
            "letters": stats.letters,
            "bytes": stats.bytes,
            "oldest_ms": stats.oldest_ms,
            "evicted": stats.evicted,
            "not_kept": stats.not_kept,
            "retrying": stats.retrying,
            "problem": stats.problem,
            "list": letters,
            "next": next,
        }));
    }
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            vec![
                letter.id.to_string(),
                ago(UNIX_EPOCH + Duration::from_millis(letter.time_ms)),
                letter.attempts.to_string(),
                event(letter),
                cell(&letter.key),
                cell(&letter.reason),
            ]
        })
        .collect();
    let mut out = table::render(&["id", "age", "attempts", "event", "key", "reason"], &rows);
    // Writing to a String cannot fail.
    let _infallible = write!(out, "{} letters, {} bytes", stats.letters, stats.bytes);
    for (count, what) in [
        (stats.retrying, "being sent again"),
        (stats.evicted, "gave way to newer ones"),
        (stats.not_kept, "not kept"),
    ] {
        if count > 0 {
            let _infallible = write!(out, ", {count} {what}");
        }
    }
    out.push('\n');
    if let Some(next) = next {
        let _infallible = writeln!(out, "more: rustbridge dlq list {sink} {next}");
    }
    if let Some(problem) = stats.problem {
        let _infallible = writeln!(out, "{problem}");
    }
    out
}

fn head(letter: &Letter) -> Value {
    json!({
        "id": letter.id,
        "time_ms": letter.time_ms,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "message_id": letter.message_id,
        "seq": letter.seq,
        "event": letter.event,
        "subclass": letter.subclass,
        "key": letter.key,
        "bytes": letter.stored.len(),
    })
}

fn show(dead: &DeadLetters, id: u64, names: &EventNames, json: bool) -> Result<String, String> {
    let letter = dead.get(id).ok_or_else(|| crate::dead::NoLetter(id).to_string())?;
    let revived = letter.revive(names).map_err(|error| error.to_string())?;
    let mut index = Index::default();
    index.read(&revived.record);
    let mut body = Vec::new();
    revived.message("", names, &index).write_body(&mut body);
    // An application's payload may be anything.
    let body: Value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    let mut value = head(&letter);
    if let Some(object) = value.as_object_mut() {
        object.insert("boot".into(), revived.boot.clone().into());
        object.insert("body".into(), body.clone());
    }
    if json {
        return Ok(pretty(&value));
    }
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| *name != "body")
    {
        let value = value.as_str().map_or_else(|| value.to_string(), plain);
        let _infallible = writeln!(out, "{name}: {value}");
    }
    out.push('\n');
    out.push_str(&pretty(&body));
    Ok(out)
}

fn event(letter: &Letter) -> String {
    if letter.subclass.is_empty() { cell(&letter.event) } else { cell(&letter.subclass) }
}

/// Text of others' in one line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cell(text: &str) -> String {
    let mut cell: String = plain(text).chars().take(CELL).collect();
    if text.chars().nth(CELL).is_some() {
        cell.push('…');
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::Letter;
    use crate::event::{Class, EventKind, Record};

    fn with_letter(test: impl FnOnce(&DeadLetters, &EventNames)) {
        let dir = std::env::temp_dir().join(format!("rustbridge-dlq-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        let names = EventNames::new(["CUSTOM", "CHANNEL_CREATE"]);
        let mut record = Record::default();
        record.begin(EventKind::new(1), Class::Critical, None);
        record.header(b"Unique-ID", b"u-1");
        let mut stored = Vec::new();
        record.store(&names, "boot-1", 0, &mut stored);
        let (dead, _) = DeadLetters::open(&dir, 1 << 20);
        dead.put(Letter {
            reason: "too\nlarge".into(),
            event: "CHANNEL_CREATE".into(),
            key: "k".repeat(200),
            stored,
            ..Letter::default()
        });
        dead.flush();
        test(&dead, &names);
        drop(dead);
        drop(std::fs::remove_dir_all(&dir));
    }

    #[test]
    fn a_letter_is_listed_in_one_line_and_shown_with_its_body() {
        with_letter(|dead, names| {
            let table = list(dead, "journal", 0, false);
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(lines.len(), 3, "{table}");
            assert!(lines[1].contains("CHANNEL_CREATE") && lines[1].contains("too large"));
            assert!(lines[1].contains('…'));
            assert!(lines[2].starts_with("1 letters, "));
            let shown = show(dead, 1, names, false).unwrap();
            assert!(shown.contains("boot: boot-1") && shown.contains("\"Unique-ID\": \"u-1\""));
            let shown: Value = serde_json::from_str(&show(dead, 1, names, true).unwrap()).unwrap();
            assert_eq!(shown["body"]["Unique-ID"], "u-1");
            assert!(show(dead, 2, names, true).unwrap_err().contains("no dead letter 2"));
        });
    }

    #[test]
    fn what_to_change_must_be_said() {
        assert_eq!(some("purge", Some("all")), Ok(Which::All));
        assert_eq!(some("retry", Some("7")), Ok(Which::One(7)));
        assert!(some("purge", None).unwrap_err().contains("or all"));
        assert!(some("purge", Some("-1")).unwrap_err().contains("\"-1\""));
        assert!(no_action("lst").contains("did you mean \"list\""));
    }
}
