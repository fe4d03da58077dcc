// SPDX-License-Identifier: MIT
//! A FreeSWITCH with `mod_bench` in it, and the handlers that are compared.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::freeswitch::{FreeSwitch, Installation};
use crate::support::skips::Missing;
use crate::support::switch::{Switch, numbers};
use crate::support::{root, target};

/// What is bound while it is measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Candidate {
    /// Nothing but the marks.
    Nobody,
    /// A handler that copies every byte once.
    Floor,
    /// One that makes the JSON instead.
    Json,
    /// One that copies into slabs that many events share.
    Bump,
    /// `switch_event_dup` and a queue, as `mod_event_socket`.
    Dup,
    /// `mod_amqp`.
    ModAmqp,
    /// This module with so many sinks, and nothing else.
    Module(u8),
    /// With one sink, and the table of live calls that it keeps unless told otherwise.
    AsShipped,
    /// With one sink that names so many patterns of subclasses.
    Patterns(u32),
    /// Another build of it, `BENCH_EARLIER`, with one sink: what a change has done.
    Earlier,
}

impl Candidate {
    pub fn name(self) -> String {
        match self {
            Self::Nobody => "nobody".into(),
            Self::Floor => "copy floor".into(),
            Self::Json => "JSON at once".into(),
            Self::Bump => "copy into shared slabs".into(),
            Self::Dup => "switch_event_dup + queue".into(),
            Self::ModAmqp => "mod_amqp".into(),
            Self::Module(sinks) => format!("mod_rustbridge, {sinks} sinks, no table of calls"),
            Self::AsShipped => "mod_rustbridge".into(),
            Self::Patterns(count) => format!("mod_rustbridge, {count} patterns"),
            Self::Earlier => "earlier build".into(),
        }
    }
}

/// One run's numbers, by name.
pub type Numbers = BTreeMap<String, f64>;

/// What each run does, in the words of `mod_bench`.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub headers: u32,
    pub threads: u32,
    pub kind: &'static str,
    /// Events made before they are delivered: 1 is warm in the caches, many are not.
    pub ahead: u32,
    /// Events between two pauses.
    pub burst: u32,
    pub rate: u32,
    pub count: u32,
}

impl Case {
    pub fn name(&self) -> String {
        let way = match (self.burst, self.ahead) {
            (1, 1) => "single",
            (_, 1) => "in bursts",
            _ => "cold",
        };
        format!("{} {} headers, {} threads, {way}", self.kind, self.headers, self.threads)
    }

    fn line(&self) -> String {
        let Self { headers, threads, kind, ahead, burst, rate, count } = self;
        format!(
            "headers={headers} threads={threads} kind={kind} ahead={ahead} burst={burst} rate={rate} n={count} \
             warm={}",
            count.min(&1_000)
        )
    }
}

/// A FreeSWITCH for measuring in.
#[derive(Debug)]
pub struct Stand {
    switch: FreeSwitch,
}

fn sink(number: u8, events: &str, folder: &std::path::Path) -> String {
    format!(
        "<sink name=\"file{number}\" type=\"file\" events=\"{events}\">\
         <param name=\"path\" value=\"{}/file{number}.ndjson\"/>\
         <param name=\"rotate-bytes\" value=\"67108864\"/><param name=\"keep-files\" value=\"1\"/>\
         <param name=\"fsync\" value=\"never\"/>\
         <param name=\"bulk-percent\" value=\"100\"/><param name=\"normal-percent\" value=\"100\"/></sink>",
        folder.display()
    )
}

/// A configuration of the module with `sinks` file sinks.
pub fn configuration(sinks: u8, calls: bool, folder: &std::path::Path) -> String {
    // None at all is refused: then there is one that wants nothing that comes.
    let events = if sinks == 0 { "CALL_DETAIL" } else { "ALL" };
    let mut all = String::new();
    for number in 0..sinks.max(1) {
        write!(all, "{}", sink(number, events, folder)).expect("a string takes text");
    }
    format!(
        "<configuration name=\"rustbridge.conf\"><settings><param name=\"live-calls\" value=\"{calls}\"/></settings>\
         <sinks>{all}</sinks></configuration>"
    )
}

/// With one sink that wants events by so many patterns, the last of which is the one that matches.
fn patterns(count: u32, folder: &std::path::Path) -> String {
    let mut events = "CUSTOM".to_owned();
    for number in 1..count {
        write!(events, " other{number}::*").expect("a string takes text");
    }
    let sink = sink(0, &(events + " bench::*"), folder);
    format!(
        "<configuration name=\"rustbridge.conf\"><settings><param name=\"live-calls\" value=\"false\"/></settings>\
         <sinks>{sink}</sinks></configuration>"
    )
}

/// `mod_amqp` with its defaults, for the broker on this port.
fn mod_amqp(port: u16) -> String {
    format!(
        "<configuration name=\"amqp.conf\"><producers><profile name=\"default\"><connections>\
         <connection name=\"primary\"><param name=\"hostname\" value=\"127.0.0.1\"/>\
         <param name=\"virtualhost\" value=\"/\"/><param name=\"username\" value=\"guest\"/>\
         <param name=\"password\" value=\"guest\"/><param name=\"port\" value=\"{port}\"/>\
         <param name=\"heartbeat\" value=\"0\"/></connection></connections><params>\
         <param name=\"exchange-name\" value=\"TAP.Events\"/><param name=\"exchange-type\" value=\"topic\"/>\
         <param name=\"circuit_breaker_ms\" value=\"10000\"/><param name=\"reconnect_interval_ms\" value=\"1000\"/>\
         <param name=\"send_queue_size\" value=\"100000\"/><param name=\"enable_fallback_format_fields\" value=\"1\"/>\
         <param name=\"format_fields\" value=\"#FreeSWITCH,FreeSWITCH-Hostname,Event-Name,Event-Subclass,Unique-ID\"/>\
         <param name=\"event_filter\" value=\"SWITCH_EVENT_ALL\"/></params></profile></producers></configuration>"
    )
}

/// Where `bench.mk` puts what is written in C.
fn built(name: &str) -> PathBuf {
    let folder = target().join("bench");
    let file = folder.join(name);
    if !file.is_file() {
        let made = Command::new("make")
            .args(["--silent", "bench-modules"])
            .current_dir(root())
            .env("CARGO_TARGET_DIR", target())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "make bench-modules");
    }
    file
}

impl Stand {
    /// Starts one; `broker` is the port of a RabbitMQ for `mod_amqp`.
    pub fn start(broker: Option<u16>) -> Result<Self, Missing> {
        let installation = Installation::find()?;
        let amqp = mod_amqp(broker.unwrap_or(1));
        let more = [("autoload_configs/amqp.conf.xml", amqp.as_str())];
        let nothing = configuration(0, true, std::path::Path::new("/"));
        let mut stand = Self { switch: FreeSwitch::with(installation, &nothing, &more) };
        let place = stand.switch.folder().join("mod/mod_bench.so");
        symlink(built("mod_bench.so"), place).expect("a link can be made");
        stand.expect("load mod_bench");
        // What is said for each event and each start must not be written while we measure.
        stand.expect("fsctl loglevel 3");
        let event = root().join("tests/bench/event.txt");
        stand.expect(&format!("bench event {}", event.display()));
        Ok(stand)
    }

    pub fn version(&self) -> String {
        self.switch.name()
    }

    fn expect(&mut self, line: &str) -> String {
        let answer = self.switch.api(line);
        if answer.contains("-ERR") {
            let log = self.switch.log();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            panic!("{line}: {answer}\nthe log's last lines, newest first: {last:#?}");
        }
        answer
    }

    /// Binds a candidate between the marks, runs what `body` wants, and takes it away.
    pub fn with<T>(&mut self, candidate: Candidate, body: impl FnOnce(&mut Self) -> T) -> T {
        self.expect("bench mark end");
        match candidate {
            Candidate::Nobody => {}
            Candidate::Floor => drop(self.expect("bench handler floor")),
            Candidate::Json => drop(self.expect("bench handler json")),
            Candidate::Bump => drop(self.expect("bench handler bump")),
            Candidate::Dup => drop(self.expect("bench handler dup")),
            Candidate::ModAmqp => drop(self.expect("load mod_amqp")),
            Candidate::Module(_)
            | Candidate::AsShipped
            | Candidate::Patterns(_)
            | Candidate::Earlier => {
                let folder = self.switch.folder().join("run");
                self.switch.configure(&match candidate {
                    Candidate::Module(sinks) => configuration(sinks, false, &folder),
                    Candidate::Patterns(count) => patterns(count, &folder),
                    _ => configuration(1, true, &folder),
                });
                self.expect("reloadxml");
                self.expect(&format!("load {}", library(candidate).display()));
            }
        }
        self.expect("bench mark begin");
        let result = body(self);
        match candidate {
            Candidate::Nobody => {}
            Candidate::Floor | Candidate::Json | Candidate::Bump | Candidate::Dup => {
                drop(self.expect("bench handler off"));
            }
            Candidate::ModAmqp => drop(self.expect("unload mod_amqp")),
            Candidate::Module(_)
            | Candidate::AsShipped
            | Candidate::Patterns(_)
            | Candidate::Earlier => {
                drop(self.expect("unload mod_rustbridge"));
            }
        }
        self.expect("bench mark off");
        result
    }

    /// Loads the module with this configuration, runs what `body` wants, and unloads it.
    pub fn with_module<T>(&mut self, sinks: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.switch.configure(&format!(
            "<configuration name=\"rustbridge.conf\"><settings/><sinks>{sinks}</sinks></configuration>"
        ));
        self.expect("reloadxml");
        self.expect("load mod_rustbridge");
        let result = body(self);
        self.expect("unload mod_rustbridge");
        result
    }

    /// The switch itself.
    pub fn switch(&mut self) -> &mut FreeSwitch {
        &mut self.switch
    }

    /// Delivers this many events of 85 headers as fast as it goes, or so many a second.
    pub fn deliver(&mut self, count: u64, rate: u32) -> Numbers {
        self.deliver_of(85, count, rate)
    }

    /// As many a second, one at a time, each with the time of its delivery.
    pub fn paced(&mut self, count: u64, rate: u32) -> Numbers {
        let line = format!("bench run headers=85 kind=real warm=0 stamp=1 rate={rate} n={count}");
        numbers(&self.expect(&line))
    }

    /// The same with other sizes.
    pub fn deliver_of(&mut self, headers: u32, count: u64, rate: u32) -> Numbers {
        let line = format!("bench run headers={headers} kind=real warm=0 rate={rate} n={count}");
        numbers(&self.expect(&line))
    }

    /// Until a number of the first sink's status is this.
    pub fn wait_for(&mut self, name: &str, count: u64) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.sink(name) != count {
            let late = Instant::now() > end;
            assert!(!late, "{name} is not {count}: {}", self.switch.api("rustbridge status json"));
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// A number of the first sink's status.
    pub fn sink(&mut self, name: &str) -> u64 {
        let status = self.switch.json("rustbridge status json");
        status["sinks"][0][name].as_u64().unwrap_or(0)
    }

    /// Seconds of processor time that the switch has used.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.switch.pid()));
        let stat = stat.expect("the switch runs");
        let after = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = after.split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let used: f64 = ticks() + ticks();
        used / 100.0
    }

    /// Bytes of memory that it has.
    pub fn memory(&self) -> f64 {
        let path = format!("/proc/{}/statm", self.switch.pid());
        let statm = std::fs::read_to_string(path).expect("the switch runs");
        let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(f64::NAN);
        pages * 4096.0
    }

    pub fn run(&mut self, case: &Case) -> Numbers {
        let answer = self.expect(&format!("bench run {}", case.line()));
        let numbers = numbers(&answer);
        // A handler that has thrown events away was not measured.
        assert!(numbers["dup_lost"] == 0.0 && numbers["slab_lost"] == 0.0, "{answer}");
        numbers
    }

    pub fn calls(&mut self, case: &Case) -> Numbers {
        let answer = self.expect(&format!("bench calls {}", case.line()));
        numbers(&answer)
    }

    /// How many events a loaded module has lost, and how many records it had to allocate.
    pub fn losses(&mut self) -> (u64, u64) {
        let status = self.switch.json("rustbridge status json");
        let sinks = status.get("sinks").and_then(|sinks| sinks.as_array()).cloned();
        let dropped = sinks.unwrap_or_default().iter().map(|sink| sum(&sink["dropped"])).sum();
        (dropped, status["pool_misses"].as_u64().unwrap_or(0))
    }
}

/// By its full path, under which the core loads it as well: two builds are then two libraries.
fn library(candidate: Candidate) -> PathBuf {
    match candidate {
        Candidate::Earlier => earlier().expect("BENCH_EARLIER is set"),
        _ => "mod_rustbridge".into(),
    }
}

/// The other build to compare with, in a file `mod_rustbridge.so`.
pub fn earlier() -> Option<PathBuf> {
    env::var_os("BENCH_EARLIER").map(PathBuf::from)
}

fn sum(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::Object(map) => map.values().map(sum).sum(),
        value => value.as_u64().unwrap_or(0),
    }
}
