// SPDX-License-Identifier: MIT
//! `make run`: the module at work. Calls in a real FreeSWITCH where one is installed, else the recorded calls in the host;
//! each event as it lands, one line; then the account. `BROKERS=1` adds a private RabbitMQ and a private Kafka, `KEEP=1`
//! stays until the input ends or Ctrl-C.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a program for people: it prints, and stops with the reason when it cannot go on"
)]

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use support::clients::{self, Consumer, Message};
use support::freeswitch::FreeSwitch;
use support::host::Host;
use support::kafka::Kafka;
use support::rabbitmq::RabbitMq;
use support::switch::Switch;
use support::{Folder, recorded};

/// Where events land, and how many of them have been shown.
struct Place {
    name: &'static str,
    read: Box<dyn FnMut() -> Vec<Message>>,
    shown: usize,
}

impl Place {
    /// Prints what has landed since the last time; says how many that was.
    fn show(&mut self) -> usize {
        let all = (self.read)();
        for message in all.iter().skip(self.shown) {
            println!("{:<9}{}", self.name, line(&message.json()));
        }
        let fresh = all.len().saturating_sub(self.shown);
        self.shown = all.len();
        fresh
    }
}

/// One event on one line: when, what, who, and what is particular about it.
fn line(event: &Map<String, Value>) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = text("Event-Date-Local").split_whitespace().nth(1).unwrap_or_default();
    let subclass = text("Event-Subclass");
    let name = if subclass.is_empty() { text("Event-Name") } else { subclass };
    let mut line = format!("{time}  {name:<28} {:<9.8}", text("Unique-ID"));
    let (from, to) = (text("Caller-Caller-ID-Number"), text("Caller-Destination-Number"));
    if !to.is_empty() {
        let from = if from.is_empty() { "?" } else { from };
        write!(line, "{from} → {to}  ").expect("a string takes text");
    }
    let particular =
        ["Application", "Answer-State", "Hangup-Cause", "Action", "API-Command", "Job-Command"];
    for name in particular.into_iter().filter(|name| !text(name).is_empty()) {
        write!(line, "{name}={:.40} ", text(name)).expect("a string takes text");
    }
    line
}

fn configuration(journal: &Path, rabbit: Option<&RabbitMq>, kafka: Option<&Kafka>) -> String {
    let sink = |name: &str, kind: &str, parameters: &[(&str, &str)]| {
        let parameters = parameters.iter();
        let parameters =
            parameters.map(|(n, v)| format!("    <param name=\"{n}\" value=\"{v}\"/>\n"));
        let parameters: String = parameters.collect();
        format!("  <sink name=\"{name}\" type=\"{kind}\" events=\"ALL\">\n{parameters}  </sink>\n")
    };
    let mut sinks =
        sink("journal", "file", &[("path", &format!("{}/events.ndjson", journal.display()))]);
    if let Some(rabbit) = rabbit {
        sinks +=
            &sink("rabbit", "amqp", &[("url", &rabbit.url()), ("exchange", "rustbridge.events")]);
    }
    if let Some(kafka) = kafka {
        sinks += &sink(
            "stream",
            "kafka",
            &[("bootstrap-servers", &kafka.bootstrap()), ("topic", "fs.events")],
        );
    }
    format!(
        "<configuration name=\"rustbridge.conf\">\n<sinks>\n{sinks}</sinks>\n</configuration>\n"
    )
}

/// Calls with something to see in them, in a real switch: bridged legs, a tone, a busy line, a conference.
fn make_calls(switch: &mut dyn Switch) {
    for destination in ["tone", "busy", "conf", "echo", "1000"] {
        switch.api(&format!(
            "bgapi originate loopback/{destination}/test &playback(tone_stream://%(500,0,440))"
        ));
    }
}

fn show_all(places: &mut [Place]) -> usize {
    places.iter_mut().map(Place::show).sum()
}

/// Shows what lands until nothing has for a second, or `limit` has passed.
fn follow(places: &mut [Place], at_least: Duration, limit: Duration) {
    let started = Instant::now();
    let mut last = Instant::now();
    while started.elapsed() < limit {
        if show_all(places) > 0 {
            last = Instant::now();
        }
        if started.elapsed() > at_least && last.elapsed() > Duration::from_secs(1) {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn print_account(status: &Value) {
    println!("\nThe account, from `rustbridge status json`:");
    let columns = ["offered", "filtered", "delivered", "dropped", "dead", "waiting"];
    let titles = columns.map(|name| format!("{name:>10}")).concat();
    println!("  {:<10}{:<7}{:<12}{titles}", "sink", "type", "state");
    for sink in status["sinks"].as_array().into_iter().flatten() {
        let text = |name: &str| sink[name].as_str().unwrap_or("?").to_owned();
        let count = |name: &str| match &sink[name] {
            Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
            other => other.as_u64().unwrap_or_default(),
        };
        let counts = columns.map(|name| format!("{:>10}", count(name))).concat();
        println!("  {:<10}{:<7}{:<12}{counts}", text("name"), text("type"), text("state"));
        if let Some(error) = sink["last_error"].as_str() {
            println!("            {error}");
        }
    }
}

fn wanted(name: &str) -> bool {
    env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// A broker, or a line that says why there is none.
fn broker<T>(started: Result<T, support::skips::Missing>) -> Option<T> {
    started.map_err(|missing| println!("without it: {} ({})", missing.what, missing.remedy)).ok()
}

fn main() -> ExitCode {
    let journal = Folder::new("journal");
    let (mut rabbit, mut kafka) = (None, None);
    if wanted("BROKERS") {
        println!("Starting a private RabbitMQ and a private Apache Kafka …");
        rabbit = broker(clients::pika().and_then(|()| RabbitMq::start()));
        kafka = broker(Kafka::start());
    }
    let xml = configuration(journal.path(), rabbit.as_ref(), kafka.as_ref());
    let mut calls = true;
    let mut switch: Box<dyn Switch> = match FreeSwitch::new(&xml) {
        Ok(switch) => Box::new(switch),
        Err(missing) => {
            println!(
                "{}; the host plays recorded calls instead ({})",
                missing.what, missing.remedy
            );
            calls = false;
            Box::new(Host::new(&xml))
        }
    };
    println!("In {}, pid {}.", switch.name(), switch.pid());

    let folder = journal.path().to_path_buf();
    let lines = move || clients::read_ndjson(&folder);
    let mut places = vec![Place { name: "file", read: Box::new(lines), shown: 0 }];
    if let Some(rabbit) = &rabbit {
        let consumer = Consumer::amqp(&rabbit.url(), "rustbridge.events", "#", None);
        places.push(Place {
            name: "rabbitmq",
            read: Box::new(move || consumer.messages()),
            shown: 0,
        });
    }
    if let Some(kafka) = &kafka {
        kafka.create_topic("fs.events", 3, &[]);
        let consumer = Consumer::kafka(&kafka.bootstrap(), "fs.events", &[]);
        places.push(Place { name: "kafka", read: Box::new(move || consumer.messages()), shown: 0 });
    }
    if let Err(error) = switch.load() {
        for line in
            switch.log().lines().filter(|line| line.contains("rustbridge") || line.contains("CRIT"))
        {
            println!("{line}");
        }
        println!("the module does not load: {error}");
        return ExitCode::FAILURE;
    }

    if calls {
        make_calls(switch.as_mut());
        follow(&mut places, Duration::from_secs(5), Duration::from_secs(20));
    } else {
        let events = recorded::all();
        // Ten seconds, whatever time the recording took.
        let seconds = events.last().map_or(0, |event| event.offset_us) / 1_000_000;
        let scratch = Folder::new("play");
        let file = recorded::write_play_file(&scratch, &events);
        let playing =
            switch.generate_later(&format!("play {} {}", file.display(), (seconds / 10).max(1)));
        follow(&mut places, Duration::from_secs(10), Duration::from_secs(20));
        playing.finish();
        follow(&mut places, Duration::from_secs(1), Duration::from_secs(5));
    }
    print_account(&switch.json("rustbridge status json"));

    if wanted("KEEP") {
        println!(
            "\nStaying (KEEP=1) until the input ends or Ctrl-C. Events land in {}.",
            journal.path().display()
        );
        for url in rabbit.iter().map(RabbitMq::url) {
            println!("RabbitMQ: {url}");
        }
        for bootstrap in kafka.iter().map(Kafka::bootstrap) {
            println!("Kafka: kcat -C -b {bootstrap} -t fs.events");
        }
        let input = std::thread::Builder::new()
            .name("input".into())
            .spawn(|| drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())))
            .expect("a thread can be started");
        while !input.is_finished() {
            follow(&mut places, Duration::from_millis(500), Duration::from_secs(2));
        }
        input.join().expect("it only reads");
    }
    if let Err(error) = switch.unload() {
        println!("unload: {error}");
    }
    switch.stop();
    ExitCode::SUCCESS
}
