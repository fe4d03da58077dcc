// SPDX-License-Identifier: MIT
//! What an event costs, counted instead of timed: a later change cannot make it dearer unseen, however busy the machine is.
//!
//! Instructions are counted by valgrind's callgrind in the host, where each event passes two handlers: one that copies its
//! names and values and does nothing else (`copy_only`, tests/host/generate.c), and the module. What is asserted is how many
//! times those of the copy something takes. The limits are generous: a fifth above what is measured and more, for other
//! processors, for which the C library's copying has other instructions. `make bench-gate` runs this alone.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::host::{Host, HostOptions};
use support::kafka::Kafka;
use support::rabbitmq::RabbitMq;
use support::skips::{self, Missing};
use support::switch::{Event, Load, Switch, numbers};
use support::{Folder, in_path, root, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
/// Events of each size.
const EVENTS: usize = 200;
/// Headers that a core gives every event by itself.
const BORN_WITH: usize = 13;

/// Instructions and calls by function.
#[derive(Debug, Default)]
struct Profile {
    inclusive: BTreeMap<String, u64>,
    calls: BTreeMap<String, u64>,
}

impl Profile {
    /// Reads a file of callgrind's, written without compressed names and positions: under each `fn=` its own cost by line,
    /// and for each call out of it a line `calls=` and behind that one with the cost of what was called.
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("callgrind has written its part");
        let mut profile = Self::default();
        let (mut function, mut called) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                name.clone_into(&mut function);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                name.clone_into(&mut called);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count: u64 =
                    calls.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
                *profile.calls.entry(called.clone()).or_default() += count;
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.split(' ').nth(1).and_then(|word| word.parse().ok());
                *profile.inclusive.entry(function.clone()).or_default() += cost.unwrap_or(0);
            }
        }
        profile
    }

    fn sum(map: &BTreeMap<String, u64>, part: &str) -> f64 {
        let all: u64 =
            map.iter().filter(|(name, _)| name.ends_with(part)).map(|(_, count)| count).sum();
        assert!(all > 0, "no function {part} in the profile");
        f64::from(u32::try_from(all).expect("a small run"))
    }

    /// Instructions of the functions whose names end like this, and of what they call.
    fn instructions(&self, of: &str) -> f64 {
        Self::sum(&self.inclusive, of)
    }

    fn calls(&self, of: &str) -> f64 {
        Self::sum(&self.calls, of)
    }
}

/// The headers of a real event.
fn headers() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("tests/bench/event.txt")).expect("it is there");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.into(), value.replace("\\r", "\r").replace("\\n", "\n")))
        .collect()
}

/// A file for the generator: so many events of so many headers.
fn play_file(folder: &Folder, count: usize) -> String {
    let real = headers();
    let mut event = Event::new("CHANNEL_HANGUP_COMPLETE");
    for (name, value) in real.iter().take(count - BORN_WITH) {
        event = event.header(name, value);
    }
    let text = format!("0 {}\n", event.line()).repeat(EVENTS);
    let file = folder.write(&format!("{count}.events"), text);
    file.display().to_string()
}

fn configuration(sink: &str) -> String {
    format!("<configuration name=\"rustbridge.conf\"><sinks>{sink}</sinks></configuration>")
}

fn file_sink(folder: &Folder) -> String {
    format!(
        "<sink name=\"journal\" type=\"file\" events=\"ALL\"><param name=\"path\" value=\"{}/events.ndjson\"/>\
         <param name=\"fsync\" value=\"never\"/></sink>",
        folder.path().display()
    )
}

/// Until the publisher has delivered everything.
fn settled(host: &mut Host) {
    wait_until(LIMIT, "everything to be delivered", || {
        let status = host.json("rustbridge status json");
        status["sinks"][0]["waiting"] == 0
    });
}

/// Until there is a connection: events that came before would go by disk.
fn connected(host: &mut Host) {
    wait_until(LIMIT, "the connection", || {
        host.json("rustbridge status json")["sinks"][0]["state"] == "connected"
    });
}

fn module() -> Result<(), Missing> {
    let built = env::var_os("RUSTBRIDGE_MODULE").map(|_| ());
    built.ok_or_else(|| {
        Missing::new("RUSTBRIDGE_MODULE names no library to count in", "make build, make test")
    })
}

fn valgrind() -> Result<(), Missing> {
    let found = in_path("valgrind").map(|_| ());
    found.ok_or_else(|| Missing::new("no valgrind here", "apt-get install valgrind"))
}

/// What an event of 85 and of 250 headers takes with this sink.
fn measured(folder: &Folder, sink: &str) -> [Cost; 2] {
    let out = folder.join("profile");
    let under = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--compress-strings=no",
        "--compress-pos=no",
        // Each `floor on` below ends a part.
        "--dump-before=generate_floor",
        &format!("--callgrind-out-file={}", out.display()),
    ];
    let options = HostOptions { under: under.map(Into::into).into(), ..HostOptions::default() };
    let mut host = Host::with(&configuration(sink), options);
    host.load().expect("the module loads");
    connected(&mut host);
    host.command("floor on");
    let played = |host: &mut Host, headers: usize| {
        let file = play_file(folder, headers);
        host.generate(&format!("play {file} 0"));
        settled(host);
        host.command("floor on");
    };
    // What is made once is made now.
    played(&mut host, 250);
    for _ in 0..TURNS {
        played(&mut host, 85);
        played(&mut host, 250);
    }
    host.stop();
    // The first part ends at the first `floor on`, before any event, the second with what is made once.
    let part = |number: u32| {
        let profile = Profile::read(&out.with_extension(number.to_string()));
        Cost::of(&profile)
    };
    [3, 4].map(|first| {
        // Valgrind runs one thread at a time. One that stopped it in the middle of a push to the ring keeps the other
        // waiting for a while, which is no cost of the event's: the least of the turns is without.
        let turns = (0..TURNS).map(|turn| part(first + 2 * turn));
        turns.reduce(Cost::least).expect("there is a turn")
    })
}

/// The most that something may take, in copies.
struct Limit {
    callback: f64,
    encoder: f64,
    publisher: f64,
    /// With a file there is nothing but the round itself in it; with a broker also what comes and goes by the socket.
    idle_round: Option<f64>,
}

/// Says what was found, and holds it against the limits for 85 and for 250 headers.
fn hold(sink: &str, found: [Cost; 2], limits: [Limit; 2]) {
    for ((headers, cost), limit) in [85, 250].into_iter().zip(found).zip(limits) {
        eprintln!("{sink}, {headers} headers, in copies of the event: {cost:.2?}");
        let parts = [
            (cost.callback, limit.callback, "the callback"),
            (cost.encoder, limit.encoder, "the encoder"),
            (cost.publisher, limit.publisher, "the publisher"),
            (cost.idle_round, limit.idle_round.unwrap_or(f64::MAX), "a round without events"),
        ];
        for (found, most, what) in parts {
            assert!(
                found <= most,
                "{sink}, {headers} headers: {what} takes {found:.2} copies, at most {most}"
            );
        }
    }
}

#[test]
fn an_event_to_a_file_takes_no_more_instructions_than_a_few_copies_of_it() {
    let test = "an_event_to_a_file_takes_no_more_instructions_than_a_few_copies_of_it";
    if skips::unless(test, module().and_then(|()| valgrind())).is_none() {
        return;
    }
    let folder = Folder::new("gate");
    let found = measured(&folder, &file_sink(&folder));
    hold(
        "file",
        found,
        [
            Limit { callback: 1.9, encoder: 2.1, publisher: 4.6, idle_round: Some(0.6) },
            Limit { callback: 1.9, encoder: 2.5, publisher: 4.7, idle_round: Some(0.6) },
        ],
    );
}

#[test]
fn an_event_to_rabbitmq_takes_no_more_instructions_than_a_few_copies_of_it() {
    let test = "an_event_to_rabbitmq_takes_no_more_instructions_than_a_few_copies_of_it";
    let tools = module().and_then(|()| valgrind()).and_then(|()| RabbitMq::start());
    let Some(broker) = skips::unless(test, tools) else { return };
    let sink = format!(
        "<sink name=\"out\" type=\"amqp\" events=\"ALL\"><param name=\"url\" value=\"{}\"/></sink>",
        broker.url()
    );
    let found = measured(&Folder::new("gate"), &sink);
    hold(
        "RabbitMQ",
        found,
        [
            Limit { callback: 1.9, encoder: 2.1, publisher: 5.6, idle_round: None },
            Limit { callback: 1.9, encoder: 2.5, publisher: 5.2, idle_round: None },
        ],
    );
}

#[test]
fn an_event_to_kafka_takes_no_more_instructions_than_a_few_copies_of_it() {
    let test = "an_event_to_kafka_takes_no_more_instructions_than_a_few_copies_of_it";
    let tools = module().and_then(|()| valgrind()).and_then(|()| Kafka::start());
    let Some(broker) = skips::unless(test, tools) else { return };
    broker.create_topic("gate", 1, &[]);
    let sink = format!(
        "<sink name=\"out\" type=\"kafka\" events=\"ALL\"><param name=\"bootstrap-servers\" value=\"{}\"/>\
         <param name=\"topic\" value=\"gate\"/></sink>",
        broker.bootstrap()
    );
    let found = measured(&Folder::new("gate"), &sink);
    hold(
        "Kafka",
        found,
        [
            Limit { callback: 1.9, encoder: 2.1, publisher: 5.6, idle_round: None },
            Limit { callback: 1.9, encoder: 2.5, publisher: 5.2, idle_round: None },
        ],
    );
}

/// How often each size is measured.
const TURNS: u32 = 3;

/// Instructions for one event, in those that copying it takes.
#[derive(Clone, Copy, Debug)]
struct Cost {
    callback: f64,
    encoder: f64,
    publisher: f64,
    idle_round: f64,
}

impl Cost {
    fn of(profile: &Profile) -> Self {
        let floor = profile.instructions("copy_only");
        let copies = |names: &[&str]| {
            names.iter().map(|name| profile.instructions(name)).sum::<f64>() / floor
        };
        let rounds = copies(&["pipeline::publisher::run"]);
        let publisher = copies(&["::take_in", "::hand_over", "Publisher>::settle"]);
        Self {
            callback: copies(&["switch::subscription::deliver"]),
            encoder: copies(&["codec::json::write_event_with"]),
            publisher,
            // What is left of the rounds is what they take with nothing to do.
            idle_round: (rounds - publisher) * profile.calls("copy_only")
                / profile.calls("::take_in"),
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            callback: self.callback.min(other.callback),
            encoder: self.encoder.min(other.encoder),
            publisher: self.publisher.min(other.publisher),
            idle_round: self.idle_round.min(other.idle_round),
        }
    }
}

/// Bytes of the C library's memory that are in use in the host, when so many readings in a row are alike: a publisher puts what
/// waits into blocks of their own size.
fn heap(host: &mut Host, alike: u32) -> f64 {
    let (mut before, mut same) = (f64::NAN, 0);
    wait_until(LIMIT, "the memory to rest", || {
        std::thread::park_timeout(Duration::from_millis(20));
        let now = numbers(&host.command("stat").1)["heap"];
        let is_same = (std::mem::replace(&mut before, now) - now).abs() < 1.0;
        same = if is_same { same + 1 } else { 0 };
        same >= alike
    });
    before
}

/// Events that are made to wait at a time: what waits behind a thousand others is packed, and a queue grows by doubling.
const STEP: u64 = 8_000;
const AT_ONCE: u64 = 1_600;

#[test]
fn an_event_that_waits_takes_less_memory_than_its_json() {
    let test = "an_event_that_waits_takes_less_memory_than_its_json";
    if skips::unless(test, module()).is_none() {
        return;
    }
    for (headers, most) in [(40, 0.7), (85, 0.55), (250, 0.52)] {
        let folder = Folder::new("gate");
        let sink = file_sink(&folder).replace("\"ALL\"", "\"CHANNEL_HANGUP_COMPLETE\"").replace(
            "</sink>",
            "<param name=\"spool-mode\" value=\"off\"/><param name=\"queue-capacity\" value=\"65536\"/><param name=\"queue-max-bytes\" value=\"1073741824\"/>\
             <param name=\"normal-percent\" value=\"100\"/></sink>",
        );
        let mut host = Host::new(&configuration(&sink));
        host.load().expect("the module loads");
        let file = play_file(&folder, headers);
        // Not more at a time than the pool has records ready: those that it would get beside are memory, but none of the events'.
        let play = |host: &mut Host| {
            for _ in 0..STEP / AT_ONCE {
                for _ in 0..AT_ONCE / u64::try_from(EVENTS).expect("a small number") {
                    host.generate(&format!("play {file} 0"));
                }
                heap(host, 3);
            }
            heap(host, 10)
        };
        play(&mut host);
        settled(&mut host);
        let json = fs::metadata(folder.join("events.ndjson")).expect("the sink has written").len();
        host.api("rustbridge pause journal");
        let some = play(&mut host);
        let more = play(&mut host);
        let status = host.json("rustbridge status json");
        assert_eq!(status["sinks"][0]["waiting"], 2 * STEP, "{status:#}");
        let share = (more - some) / f64::from(u32::try_from(json).expect("some megabytes"));
        eprintln!(
            "memory of an event of {headers} headers that waits, in those of its JSON: {share:.2}"
        );
        assert!(share <= most, "{headers} headers: {share:.2} of its JSON, at most {most}");
        host.stop();
    }
}

#[test]
fn events_larger_than_a_new_record_cost_neither_allocation_nor_system_call_once_the_pool_knows_them()
 {
    let test = "events_larger_than_a_new_record_cost_neither_allocation_nor_system_call";
    if skips::unless(test, module()).is_none() {
        return;
    }
    let folder = Folder::new("gate");
    let mut host = Host::new(&configuration(&file_sink(&folder)));
    host.load().expect("the module loads");
    // Some fifteen kilobytes each.
    let load = Load { count: 300, headers: 190, ahead: true, ..Load::default() };
    let burst = |host: &mut Host| {
        let cost = host.deliver(&load);
        settled(host);
        cost.number("allocs")
    };
    wait_until(LIMIT, "the pool to know them", || burst(&mut host) < 1.0);
    // Each of its two thousand records has its turn, so that none is found small later.
    let later: Vec<f64> = (0..20).map(|_| burst(&mut host)).collect();
    assert!(later.iter().sum::<f64>() < 1.0, "allocations in bursts of 300 events: {later:?}");
    let (which, status) = host.command("syscalls n=200 headers=190");
    assert!(status.contains(" syscalls=0 "), "{status} {which}");
    host.stop();
}
