// SPDX-License-Identifier: MIT
//! What the module tells of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::live_calls::LiveCalls;
use super::super::sinks::{describe, destination};
use super::super::{Module, lock};
use super::table;
use crate::config::choice::Choice as _;
use crate::event::EventKind;
use crate::event::selection::Coverage;
use crate::memory;
use crate::pipeline::{LatencyView, SinkStatus, SpoolStatus};
use crate::queue::DropReason;

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn drops(status: &SinkStatus) -> impl Iterator<Item = (&'static str, u64)> {
    DropReason::ALL
        .iter()
        .zip(status.account.dropped)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.name(), count))
}

fn module_json(module: &Module) -> Value {
    let missing: Vec<String> = lock(&module.missing)
        .iter()
        .map(|entry| format!("{}.{}", entry.name.to_string_lossy(), entry.kind))
        .collect();
    let live_calls = lock(&module.live_calls).as_ref().map(LiveCalls::stats).map(|stats| {
        json!({
            "calls": stats.live,
            "orphans_waiting": stats.orphans,
            "orphans_told": stats.told,
            "missed": stats.missed,
            "file_bytes": stats.file_bytes,
            "problem": stats.problem,
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": lock(&module.sinks).node(),
        "boot": module.core.uuid,
        "freeswitch": module.core.version,
        "uptime_ms": u64::try_from(module.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "since_ms": millis(module.since),
        "faults": module.handler.panics(),
        "pool_misses": module.pool.misses(),
        "memory_waits": memory::waits(),
        "not_registered": missing,
        "live_calls": live_calls,
    })
}

fn sink_json(status: &SinkStatus) -> Value {
    let account = &status.account;
    let dropped: serde_json::Map<String, Value> =
        drops(status).map(|(reason, count)| (reason.to_owned(), count.into())).collect();
    json!({
        "name": status.name,
        "type": status.kind,
        "state": status.state.name(),
        "since": millis(status.since),
        "peer": status.peer,
        "last_error": status.last_error,
        "offered": account.offered,
        "filtered": account.filtered,
        "delivered": account.delivered,
        "dropped": dropped,
        "dead": account.dead,
        "dead_letters": status.dead_letters,
        "waiting": status.waiting,
        "recovered": account.recovered,
        "memory_bytes": status.memory_bytes,
        "in_flight": status.in_flight,
        "window": status.window,
        "window_looks": status.window_looks,
        "gaps": account.gaps,
        "resent": account.resent,
        "reconnects": status.reconnects,
        "blocked_ms": u64::try_from(status.blocked.as_millis()).unwrap_or(u64::MAX),
        "faults": status.panics,
        "latency_us": latency_json(&status.latency),
        "spool": status.spool.as_ref().map(spool_json),
    })
}

fn milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

fn seconds(time: Duration) -> String {
    format!("{}.{}", time.as_secs(), time.subsec_millis() / 100)
}

fn latency_json(latency: &LatencyView) -> Value {
    json!({
        "count": latency.count,
        "p50": latency.p50,
        "p99": latency.p99,
        "p999": latency.p999,
        "max": latency.max,
    })
}

fn spool_json(spool: &SpoolStatus) -> Value {
    json!({
        "records": spool.records,
        "bytes": spool.bytes,
        "disk_bytes": spool.disk_bytes,
        "oldest_ms": spool.oldest_ms,
        "durable_seq": spool.durable_seq,
        "loss_window_records": spool.undurable_records,
        "loss_window_bytes": spool.undurable_bytes,
        "quarantined": spool.quarantined,
        "bypassed": spool.bypassed,
        "trouble": spool.trouble,
    })
}

/// `rustbridge spool [sink]`.
pub(super) fn spool_table(module: &Module, only: Option<&str>) -> String {
    let sinks = lock(&module.sinks);
    let all = sinks.status();
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|(status, _)| only.is_none_or(|only| only == status.name))
        .map(|(status, config)| {
            let mut row = vec![status.name.clone(), config.spool.mode.word().to_owned()];
            let Some(spool) = &status.spool else {
                row.resize(9, String::new());
                return row;
            };
            let oldest = spool
                .oldest_ms
                .map_or_else(String::new, |at| ago(UNIX_EPOCH + Duration::from_millis(at)));
            row.extend([
                spool.records.to_string(),
                spool.bytes.to_string(),
                spool.disk_bytes.to_string(),
                oldest,
                spool.durable_seq.map_or_else(String::new, |seq| seq.to_string()),
                spool.undurable_records.map_or_else(|| "?".into(), |count| count.to_string()),
                spool.trouble.clone().unwrap_or_else(|| "ok".into()),
            ]);
            row
        })
        .collect();
    table::render(
        &[
            "sink",
            "mode",
            "records",
            "bytes",
            "on disk",
            "oldest",
            "durable seq",
            "at risk",
            "state",
        ],
        &rows,
    )
}

/// `rustbridge spool [sink] json`.
pub(super) fn spool_json_all(module: &Module, only: Option<&str>) -> String {
    let sinks = lock(&module.sinks);
    let all: serde_json::Map<String, Value> = sinks
        .status()
        .iter()
        .filter(|(status, _)| only.is_none_or(|only| only == status.name))
        .map(|(status, _)| (status.name.clone(), status.spool.as_ref().map(spool_json).into()))
        .collect();
    pretty(&Value::Object(all))
}

pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `rustbridge status json`.
pub(super) fn json(module: &Module) -> String {
    let head = module_json(module);
    let sinks: Vec<Value> =
        lock(&module.sinks).status().iter().map(|(status, _)| sink_json(status)).collect();
    pretty(&json!({ "module": head, "sinks": sinks }))
}

/// `rustbridge status`.
pub(super) fn table(module: &Module) -> String {
    let sinks = lock(&module.sinks);
    let mut out = format!(
        "mod_rustbridge {} on {}, node {}, up {}\nboot {}\n\n",
        env!("CARGO_PKG_VERSION"),
        module.core.version,
        sinks.node(),
        ago(module.since),
        module.core.uuid,
    );
    let all = sinks.status();
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(status, _)| {
            let account = &status.account;
            let mut row = vec![
                status.name.clone(),
                status.kind.to_owned(),
                status.state.name().to_owned(),
                ago(status.since),
            ];
            row.extend(
                [
                    account.offered + account.recovered,
                    account.filtered,
                    account.delivered,
                    account.dropped_total(),
                    account.dead,
                    status.dead_letters,
                    status.waiting,
                ]
                .map(|count| count.to_string()),
            );
            row
        })
        .collect();
    out.push_str(&table::render(
        &[
            "sink",
            "type",
            "state",
            "since",
            "offered",
            "filtered",
            "delivered",
            "dropped",
            "dead",
            "letters",
            "waiting",
        ],
        &rows,
    ));
    let mut lines = Vec::new();
    for (status, _) in &all {
        let lost: Vec<String> =
            drops(status).map(|(reason, count)| format!("{reason} {count}")).collect();
        if !lost.is_empty() {
            lines.push(format!("{}: dropped: {}", status.name, lost.join(", ")));
        }
        if let Some(error) = &status.last_error {
            lines.push(format!("{}: last error: {error}", status.name));
        }
    }
    if let Some(stats) = lock(&module.live_calls).as_ref().map(LiveCalls::stats) {
        if stats.orphans > 0 {
            lines.push(format!("live calls: {} orphans wait to be told", stats.orphans));
        }
        if let Some(problem) = stats.problem {
            lines.push(format!("live calls: {problem}"));
        }
    }
    for entry in lock(&module.missing).iter() {
        lines.push(format!(
            "not registered: the {} {} (interface-allowlist of switch.conf.xml)",
            entry.kind,
            entry.name.to_string_lossy()
        ));
    }
    for line in lines {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// `rustbridge sinks json`.
pub(super) fn sinks_json(module: &Module) -> String {
    let sinks = lock(&module.sinks);
    let all: Vec<Value> = sinks
        .status()
        .iter()
        .map(|(status, config)| {
            json!({
                "name": status.name,
                "type": status.kind,
                "state": status.state.name(),
                "peer": status.peer,
                "target": describe(config),
                "events": config.events.to_string(),
                "queue_capacity": config.queue.capacity.get(),
                "queue_max_bytes": config.queue.max_bytes,
                "queue_when_full": config.queue.when_full.word(),
                "spool_mode": config.spool.mode.word(),
            })
        })
        .collect();
    pretty(&Value::Array(all))
}

/// `rustbridge sinks`.
pub(super) fn sinks_table(module: &Module) -> String {
    let sinks = lock(&module.sinks);
    let rows: Vec<Vec<String>> = sinks
        .status()
        .iter()
        .map(|(status, config)| {
            vec![
                status.name.clone(),
                status.kind.to_owned(),
                status.state.name().to_owned(),
                // The one in use, of the list that is configured.
                status.peer.clone(),
                status.reconnects.to_string(),
                seconds(status.blocked),
                status.account.gaps.to_string(),
                milliseconds(status.latency.p50),
                milliseconds(status.latency.p99),
                destination(config),
                config.events.to_string(),
            ]
        })
        .collect();
    table::render(
        &[
            "sink",
            "type",
            "state",
            "broker",
            "reconnects",
            "blocked s",
            "gaps",
            "p50 ms",
            "p99 ms",
            "to",
            "events",
        ],
        &rows,
    )
}

/// For each event of the core, the sinks that want it: all of it, or some subclasses.
fn wanted(module: &Module) -> Vec<(String, Vec<(String, bool)>)> {
    let Some(dispatch) = module.handler.dispatch() else { return Vec::new() };
    module
        .core
        .names
        .iter()
        .enumerate()
        .filter(|(number, name)| {
            let number = u16::try_from(*number).unwrap_or(u16::MAX);
            !name.is_empty() && EventKind::new(number) != module.core.all
        })
        .map(|(_, name)| {
            let sinks = dispatch
                .targets()
                .iter()
                .filter(|target| !target.is_internal())
                .filter_map(|target| match target.events.coverage(name) {
                    Coverage::None => None,
                    Coverage::All => Some((target.name.clone(), true)),
                    Coverage::BySubclass => Some((target.name.clone(), false)),
                })
                .collect();
            (name.to_owned(), sinks)
        })
        .collect()
}

/// `rustbridge events json`.
pub(super) fn events_json(module: &Module) -> String {
    let events: serde_json::Map<String, Value> = wanted(module)
        .into_iter()
        .map(|(name, sinks)| {
            let sinks = sinks.into_iter().map(|(sink, all)| json!({ "sink": sink, "all": all }));
            (name, Value::Array(sinks.collect()))
        })
        .collect();
    pretty(&Value::Object(events))
}

/// `rustbridge events`.
pub(super) fn events_table(module: &Module) -> String {
    let rows: Vec<Vec<String>> = wanted(module)
        .into_iter()
        .map(|(name, sinks)| {
            let sinks: Vec<String> = sinks
                .into_iter()
                .map(|(sink, all)| if all { sink } else { format!("{sink} (some subclasses)") })
                .collect();
            vec![name, sinks.join(", ")]
        })
        .collect();
    table::render(&["event", "sinks"], &rows)
}

/// `rustbridge version`.
pub(super) fn version(module: &Module) -> String {
    format!(
        "mod_rustbridge {} in FreeSWITCH {}\nbuilt against: {}\nsinks: {}\n",
        env!("CARGO_PKG_VERSION"),
        module.core.version,
        env!("RUSTBRIDGE_HEADERS"),
        super::super::sinks::kinds().join(", "),
    )
}

/// `rustbridge version json`.
pub(super) fn version_json(module: &Module) -> String {
    pretty(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "freeswitch": module.core.version,
        "headers": env!("RUSTBRIDGE_HEADERS"),
        "sinks": super::super::sinks::kinds(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gauge_of_a_spool_has_its_name() {
        let mut spool = SpoolStatus {
            records: 1,
            bytes: 2,
            disk_bytes: 3,
            oldest_ms: Some(4),
            durable_seq: Some(5),
            undurable_records: Some(6),
            undurable_bytes: Some(7),
            quarantined: 8,
            bypassed: 9,
            trouble: Some("a trouble".to_owned()),
        };
        let shown = json!({
            "records": 1,
            "bytes": 2,
            "disk_bytes": 3,
            "oldest_ms": 4,
            "durable_seq": 5,
            "loss_window_records": 6,
            "loss_window_bytes": 7,
            "quarantined": 8,
            "bypassed": 9,
            "trouble": "a trouble",
        });
        assert_eq!(spool_json(&spool), shown);
        // Unknown, which is neither nothing nor left out.
        (spool.oldest_ms, spool.durable_seq) = (None, None);
        let shown = spool_json(&spool);
        assert!(shown["oldest_ms"].is_null() && shown["durable_seq"].is_null(), "{shown}");
        assert_eq!(shown.as_object().map(serde_json::Map::len), Some(10));
    }
}
