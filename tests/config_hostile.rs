// SPDX-License-Identifier: MIT
//! Configurations that nobody would write: huge, hostile and random ones.

#![allow(clippy::expect_used, clippy::panic, reason = "a helper of a test fails by panicking")]

#[path = "support/xml.rs"]
mod xml;

use mod_rustbridge::{
    config::{
        Config, Known, Section,
        reference::{self, Entry},
    },
    event::names::EVENTS,
};
use proptest::prelude::*;

const KNOWN: Known<'static> =
    Known { events: EVENTS, amqp: true, kafka: true, kafka_problems: |_| Vec::new() };

/// Returns what is wrong with a file sink that has `params`, as XML, besides its path.
fn lines(params: &str) -> Vec<String> {
    let text = format!(
        "<configuration><sinks><sink name=\"s\" type=\"file\"><param name=\"path\" \
         value=\"/tmp/x\"/>{params}</sink></sinks></configuration>"
    );
    let error = Config::read(&xml::section(&text), &KNOWN).expect_err("it is wrong");
    error.problems.iter().map(ToString::to_string).collect()
}

fn param(name: &str, value: &str) -> String {
    format!("<param name=\"{name}\" value=\"{value}\"/>")
}

#[test]
fn hostile_values_give_short_problems_soon() {
    let huge = "x".repeat(10_000_000);
    for name in ["queue-capacity", "path", "critical-events", "spool-dir", "fsync", "mode", &huge] {
        let mut sink = Section::new("sink").with("name", "s").with("type", "file");
        sink.push(Section::new("param").with("name", name).with("value", huge.as_str()));
        let mut sinks = Section::new("sinks");
        sinks.push(sink);
        let mut root = Section::new("configuration");
        root.push(sinks);
        let text = Config::read(&root, &KNOWN).expect_err("it is wrong").to_string();
        assert!(text.len() < 1_000, "{name}: {} bytes", text.len());
    }
    let text = lines(&param("linger-ms", "\u{fffd}&#10;\u{202e}"));
    assert!(!text[0].contains('\n'), "{text:?}");
    // More parameters than anyone would write.
    let many: String = (0..5_000).map(|n| param(&format!("p{n}"), "v")).collect();
    assert_eq!(lines(&many).len(), 5_000);
    let again = param("linger-ms", "1").repeat(5_000);
    assert_eq!(lines(&again).len(), 4_999);
}

fn name() -> impl Strategy<Value = String> {
    let known = reference::GROUPS
        .iter()
        .flat_map(|group| group.entries().map(|entry| entry.name().to_owned()))
        .collect::<Vec<_>>();
    prop_oneof![4 => proptest::sample::select(known), 1 => any::<String>()]
}

fn value() -> impl Strategy<Value = String> {
    let shown = reference::GROUPS
        .iter()
        .flat_map(|group| group.entries().map(Entry::shown))
        .collect::<Vec<_>>();
    prop_oneof![2 => proptest::sample::select(shown), 1 => any::<String>(), 1 => "[0-9]{0,12}"]
}

fn tree() -> impl Strategy<Value = Section> {
    let tag = || {
        let tags = vec!["settings", "sinks", "sink", "param", "librdkafka", "configuration"];
        prop_oneof![9 => proptest::sample::select(tags).prop_map(str::to_owned), 1 => any::<String>()]
    };
    let attribute = || {
        let names = vec!["name", "type", "events", "value", "x"];
        let values = prop_oneof![
            proptest::sample::select(vec!["file", "amqp", "kafka", "ALL", "s"])
                .prop_map(str::to_owned),
            name(),
            value(),
        ];
        (proptest::sample::select(names).prop_map(str::to_owned), values)
    };
    let pair = (name(), value())
        .prop_map(|(name, value)| Section::new("param").with("name", name).with("value", value));
    let leaf = (tag(), prop::collection::vec(attribute(), 0..4))
        .prop_map(|(tag, attributes)| Section { attributes, ..Section::new(tag) });
    let leaf = prop_oneof![leaf, pair];
    leaf.prop_recursive(4, 60, 8, move |inner| {
        (tag(), prop::collection::vec(attribute(), 0..4), prop::collection::vec(inner, 0..8))
            .prop_map(|(tag, attributes, children)| {
                let mut section = Section { attributes, ..Section::new(tag) };
                for child in children {
                    section.push(child);
                }
                section
            })
    })
}

fn sink_tree() -> impl Strategy<Value = Section> {
    let types = proptest::sample::select(vec!["file", "amqp", "kafka"]);
    let pairs = prop::collection::vec((name(), value()), 0..12);
    let sink = (types, pairs, tree()).prop_map(|(sink_type, pairs, extra)| {
        let mut sink = Section::new("sink").with("name", "s").with("type", sink_type);
        let (name, value) = match sink_type {
            "file" => ("path", "/tmp/x"),
            "amqp" => ("url", "amqp://h"),
            _ => ("bootstrap-servers", "h:1"),
        };
        sink.push(Section::new("param").with("name", name).with("value", value));
        for (name, value) in pairs {
            sink.push(Section::new("param").with("name", name).with("value", value));
        }
        if extra.name == "librdkafka" {
            sink.push(extra);
        }
        sink
    });
    prop::collection::vec(sink, 0..3).prop_map(|found| {
        let mut sinks = Section::new("sinks");
        for sink in found {
            sinks.push(sink);
        }
        let mut root = Section::new("configuration");
        root.push(sinks);
        root
    })
}

proptest! {
    #[test]
    fn any_tree_is_a_configuration_or_has_problems(root in prop_oneof![tree(), sink_tree()]) {
        match Config::read(&root, &KNOWN) {
            Ok(config) => prop_assert!(!config.sinks.is_empty()),
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    let line = problem.to_string();
                    prop_assert!(!line.contains(['\n', '\r', '\0']), "{line:?}");
                    prop_assert!(line.len() < 2_000);
                }
            }
        }
    }
}
