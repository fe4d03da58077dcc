// SPDX-License-Identifier: MIT
//! From the switch to the broker: how many events arrive in a second, and what processor time they take.
//!
//! Against `mod_amqp` the events are made and delivered while they are sent. Against a plain client, which has its messages
//! ready, the module has its events ready too: its sink is paused, they wait, and the time runs from `resume` on.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Effort;
use crate::load::Stand;
use crate::plain_kafka;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::kafka::Kafka;
use crate::support::switch::Switch;
use crate::support::{Folder, in_path, skips, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
/// What all sinks here have: room for a whole run, in memory.
pub const ROOM: &str = "<param name=\"spool-mode\" value=\"off\"/><param name=\"queue-capacity\" value=\"524288\"/>\
     <param name=\"queue-max-bytes\" value=\"2147483648\"/><param name=\"normal-percent\" value=\"100\"/>";
const EVENTS: &str = "events=\"CHANNEL_HANGUP_COMPLETE\"";
pub const CASE: &str = "85 headers";

pub fn count(effort: Effort) -> u64 {
    if effort.short { 15_000 } else { 30_000 }
}

/// Seconds from `started` until `done` says `goal`. To ask costs whoever is asked, and to ask late falsifies the time: so it
/// is asked when half of what seems to be left has passed.
pub fn until(started: Instant, goal: u64, mut done: impl FnMut() -> u64) -> f64 {
    const STEPS: (f64, f64) = (0.002, 0.1);
    loop {
        let count = done();
        let took = started.elapsed();
        if count >= goal {
            return took.as_secs_f64();
        }
        assert!(took < LIMIT, "{count} of {goal} after {took:?}");
        let left = took.as_secs_f64() * (goal - count) as f64 / count.max(1) as f64;
        std::thread::sleep(Duration::from_secs_f64((left / 2.0).clamp(STEPS.0, STEPS.1)));
    }
}

pub fn connected(stand: &mut Stand) {
    wait_until(LIMIT, "the sink to be connected", || {
        let status = stand.switch().json("rustbridge status json");
        status["sinks"][0]["state"] == "connected"
    });
}

/// Seconds, and seconds of the switch's processor time, to send what waits in the paused sink `out`.
pub fn drain(stand: &mut Stand, count: u64) -> (f64, f64) {
    connected(stand);
    let before = stand.sink("delivered");
    stand.switch().api("rustbridge pause out");
    stand.deliver(count, 0);
    stand.wait_for("waiting", count);
    let (cpu, started) = (stand.cpu(), Instant::now());
    stand.switch().api("rustbridge resume out");
    let took = until(started, count, || stand.sink("delivered") - before);
    (took, stand.cpu() - cpu)
}

/// System calls of the publisher's thread for each event, at a steady rate, or from its queue as fast as it goes.
pub fn publisher_calls(stand: &mut Stand, count: u64, rate: Option<u32>) -> Option<f64> {
    in_path("strace")?;
    let tasks = format!("/proc/{}/task", stand.switch().pid());
    let thread = fs::read_dir(tasks).ok()?.flatten().find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "rb-out")
    })?;
    let folder = Folder::new("strace");
    let out = folder.join("calls");
    let thread = thread.file_name().into_string().ok()?;
    let before = stand.sink("delivered");
    if rate.is_none() {
        // Filled before it is counted: from its queue it is what sending takes.
        stand.switch().api("rustbridge pause out");
        stand.deliver(count, 0);
        stand.wait_for("waiting", count);
    }
    let mut strace = Command::new("strace")
        .args(["-c", "-p", &thread, "-o"])
        .arg(&out)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Attached: the kernel names the tracer.
    let status = format!("/proc/{}/task/{thread}/status", stand.switch().pid());
    wait_until(LIMIT, "strace to attach", || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    });
    if let Some(rate) = rate {
        stand.deliver(count, rate);
    } else {
        stand.switch().api("rustbridge resume out");
    }
    wait_until(LIMIT, "all events to be delivered", || stand.sink("delivered") - before >= count);
    let ended = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    assert!(ended.is_ok_and(|status| status.success()), "strace can be ended");
    strace.wait().ok()?;
    let text = fs::read_to_string(out).ok()?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    let calls: f64 = total.split_whitespace().nth(3)?.parse().ok()?;
    Some(calls / count as f64)
}

/// A sink to the exchange `bench`.
pub fn amqp_sink(port: u16, window: u64) -> String {
    format!(
        "<sink name=\"out\" type=\"amqp\" {EVENTS}>{ROOM}\
         <param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:{port}/%2f\"/>\
         <param name=\"exchange\" value=\"bench\"/><param name=\"confirm-window\" value=\"{window}\"/></sink>"
    )
}

/// A sink to the topic `ours`.
pub fn kafka_sink(bootstrap: &str) -> String {
    format!(
        "<sink name=\"out\" type=\"kafka\" {EVENTS}>{ROOM}\
         <param name=\"bootstrap-servers\" value=\"{bootstrap}\"/><param name=\"topic\" value=\"ours\"/>\
         <param name=\"compression\" value=\"lz4\"/></sink>"
    )
}

/// Seconds, and seconds of processor time, of either.
#[derive(Default)]
pub struct Sides {
    pub ours: Series,
    pub ours_cpu: Series,
    pub theirs: Series,
    pub theirs_cpu: Series,
}

/// Times more events than elsewhere, in the shorter and in the longer of two runs: their difference has no start and no end in it.
const MORE: [u64; 2] = [1, 3];

/// Seconds, and seconds of processor time, that `count` events take somebody who is at it already: `run` is given how many, and
/// `rdkafka_performance` for one begins its account before it is connected.
fn without_start(count: u64, mut run: impl FnMut(u64) -> (f64, f64)) -> (f64, f64) {
    let [(short, short_cpu), (long, long_cpu)] = MORE.map(|more| run(count * more));
    let more = (MORE[1] - MORE[0]) as f64;
    ((long - short) / more, (long_cpu - short_cpu) / more)
}

/// Kafka: against a loop over the same client library with the same properties, which has its records ready.
pub fn kafka(effort: Effort, results: &mut Results) {
    let Some(broker) = skips::unless("bench kafka", Kafka::start()) else { return };
    results.fact("kafka", Kafka::version());
    let Some(mut stand) = skips::unless("bench kafka", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    // Three times the window and more, so that it is not the beginning that is measured.
    let count = count(effort) * 5;
    broker.create_topic("ours", 1, &[]);
    broker.create_topic("theirs", 1, &[]);
    let bootstrap = broker.bootstrap();
    let sink = kafka_sink(&bootstrap);
    let (mut sides, mut calls) = (Sides::default(), Series::default());
    let mut program = Series::default();
    let (mut same, mut same_cpu) = (Series::default(), Series::default());
    let mut bodies = Vec::new();
    for _ in 0..effort.rounds {
        stand.with_module(&sink, |stand| {
            // The others begin with a new producer in both of their runs. This one's beginning is in neither.
            drain(stand, count / 10);
            if bodies.is_empty() {
                bodies = plain_kafka::some(&bootstrap, "ours");
            }
            let (took, cpu) = without_start(count, |count| drain(stand, count));
            sides.ours.push(took);
            sides.ours_cpu.push(cpu);
            let (took, cpu) = without_start(count, |count| {
                plain_kafka::produce(&bootstrap, "theirs", &bodies, count)
            });
            sides.theirs.push(took);
            sides.theirs_cpu.push(cpu);
            // It knows one body, over and over, which compresses to next to nothing.
            let one = &bodies[0];
            let (took, cpu) = without_start(count, |count| {
                plain_kafka::produce(&bootstrap, "theirs", std::slice::from_ref(one), count)
            });
            same.push(took);
            same_cpu.push(cpu);
            if plain_kafka::is_there() {
                let (took, _) = without_start(count, |count| {
                    (plain_kafka::performance(&bootstrap, "theirs", one, count), f64::NAN)
                });
                program.push(took);
            }
            if let Some(number) = publisher_calls(stand, count / 10, Some(5_000)) {
                calls.push(number);
            }
        });
    }
    let rate = |series: &Series| series.map(|seconds| count as f64 / seconds);
    results.figure("mod_rustbridge, from its queue", CASE, "events/s", &rate(&sides.ours));
    results.figure("rdkafka_performance", CASE, "events/s", &rate(&program));
    results.ratio("time / rdkafka_performance", CASE, &sides.ours, &program);
    results.figure(
        "loop over librdkafka, one record over and over",
        CASE,
        "events/s",
        &rate(&same),
    );
    results.ratio("loop / the same, one record over and over", CASE, &sides.theirs, &same);
    results.ratio("its CPU / the same", CASE, &sides.theirs_cpu, &same_cpu);
    results.figure("loop over librdkafka, records ready", CASE, "events/s", &rate(&sides.theirs));
    results.ratio("time / loop over librdkafka", CASE, &sides.ours, &sides.theirs);
    results.ratio("CPU / loop over librdkafka", CASE, &sides.ours_cpu, &sides.theirs_cpu);
    results.figure("publisher's system calls at 5000/s", CASE, "per event", &calls);
}

/// The file: against a plain write of the same lines.
pub fn file(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench file", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let count = count(effort);
    let folder = Folder::new("bench-file");
    let path = folder.join("events.ndjson");
    let sink = format!(
        "<sink name=\"out\" type=\"file\" {EVENTS}>{ROOM}<param name=\"path\" value=\"{}\"/>\
         <param name=\"fsync\" value=\"never\"/></sink>",
        path.display()
    );
    let mut sides = Sides::default();
    for _ in 0..effort.rounds {
        drop(fs::remove_file(&path));
        stand.with_module(&sink, |stand| {
            let (took, cpu) = drain(stand, count);
            sides.ours.push(took);
            sides.ours_cpu.push(cpu);
        });
        let bytes = fs::read(&path).expect("the sink has written");
        let started = Instant::now();
        let mut out = fs::File::create(folder.join("plain")).expect("a file can be made");
        for part in bytes.chunks(64 * 1024) {
            out.write_all(part).expect("it can be written");
        }
        sides.theirs.push(started.elapsed().as_secs_f64());
    }
    let rate = |series: &Series| series.map(|seconds| count as f64 / seconds);
    results.figure("mod_rustbridge, from its queue", CASE, "events/s", &rate(&sides.ours));
    results.figure("plain write of the same bytes", CASE, "events/s", &rate(&sides.theirs));
    results.ratio("time / plain write", CASE, &sides.ours, &sides.theirs);
    let each = |series: &Series| series.map(|seconds| seconds / count as f64 * 1e6);
    results.figure("switch CPU, from its queue", CASE, "us/event", &each(&sides.ours_cpu));
}
