// SPDX-License-Identifier: MIT
//! The table of parameters against its own rules, and what is written from it.
//!
//! `UPDATE_DOCS=1 cargo test --test reference` writes `docs/parameters.md` and
//! `conf/rustbridge.conf.xml` anew.

#![allow(clippy::expect_used, clippy::panic, reason = "a helper of a test fails by panicking")]

#[path = "support/xml.rs"]
mod xml;

use std::{collections::BTreeSet, env, fs, path::Path};

use mod_rustbridge::config::{
    Config, Known, Section,
    kind::Unit,
    reference::{self, Entry, GROUPS, Group, help, markdown},
};

const KNOWN: Known<'static> = Known {
    events: mod_rustbridge::event::names::EVENTS,
    amqp: true,
    kafka: true,
    kafka_problems: |_| Vec::new(),
};

fn all() -> impl Iterator<Item = (&'static Group, &'static dyn Entry)> {
    GROUPS.iter().flat_map(|group| group.entries().map(move |entry| (group, entry)))
}

/// Compares a file of the repository with `text`, or writes it.
fn agrees(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder is there");
        fs::write(&path, text).expect("the file can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is out of date: run this test with UPDATE_DOCS=1", path.display());
}

#[test]
fn no_parameter_is_in_the_table_twice() {
    for group in GROUPS {
        let mut names = BTreeSet::new();
        for entry in group.entries() {
            assert!(names.insert(entry.name()), "{}", entry.name());
        }
    }
    // What every sink has can't be what one type has too.
    let common: BTreeSet<_> = reference::SINK.entries().map(Entry::name).collect();
    for group in [reference::FILE, reference::AMQP, reference::KAFKA] {
        assert!(group.entries().all(|entry| !common.contains(entry.name())));
    }
}

#[test]
fn every_name_is_in_kebab_case() {
    for (_, entry) in all() {
        let sound = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        assert!(entry.name().split('-').all(sound), "{}", entry.name());
    }
}

#[test]
fn the_end_of_a_name_tells_its_unit() {
    for (_, entry) in all() {
        let expected = entry.unit().and_then(Unit::suffix);
        for suffix in ["-ms", "-bytes", "-percent"] {
            assert_eq!(
                entry.name().ends_with(suffix),
                expected == Some(suffix),
                "{}",
                entry.name()
            );
        }
    }
}

#[test]
fn every_default_and_every_example_is_a_value_of_its_parameter() {
    for (_, entry) in all() {
        let shown = entry.shown().replace("$${log_dir}", "/var/log/freeswitch");
        assert!(entry.accepts(&shown), "{}: {shown:?}", entry.name());
        assert!(!(entry.is_required() && entry.default_text().is_some()), "{}", entry.name());
    }
}

#[test]
fn every_sentence_is_one() {
    for (_, entry) in all() {
        let about = entry.about();
        assert!(about.ends_with('.'), "{about}");
        assert!(about.starts_with(|c: char| c.is_uppercase()), "{about}");
        assert!(!about.contains(". "), "{about}");
        assert!(!entry.expected().is_empty());
    }
}

#[test]
fn a_wrong_value_of_any_parameter_is_reported_under_its_name() {
    for (group, entry) in all() {
        // No kind of value takes a control character, and events have no such name.
        let wrong = "\u{1}";
        let mut root = Section::new("configuration");
        let mut sinks = Section::new("sinks");
        let param = || Section::new("param").with("name", entry.name()).with("value", wrong);
        let sink_type = if matches!(group.name, "amqp" | "kafka") { group.name } else { "file" };
        let mut sink = Section::new("sink");
        if group.name == "attributes" {
            sink = sink.with(entry.name(), wrong);
        } else if group.name != "settings" {
            sink = sink.with("type", sink_type).with("name", "s");
            sink.push(param());
        }
        sinks.push(sink);
        if group.name == "settings" {
            let mut settings = Section::new("settings");
            settings.push(param());
            root.push(settings);
        }
        root.push(sinks);
        let problems = Config::read(&root, &KNOWN).expect_err("it is wrong").problems;
        let about: Vec<_> =
            problems.iter().filter(|p| p.parameter.as_deref() == Some(entry.name())).collect();
        let takes_anything =
            matches!(entry.name(), "password" | "tls-key-password" | "sasl-password");
        if takes_anything {
            assert!(about.iter().all(|p| !p.message.contains("unknown")), "{about:?}");
        } else {
            assert!(!about.is_empty(), "{} {}: {problems:?}", group.name, entry.name());
        }
    }
}

#[test]
fn the_documented_reference_is_what_the_table_says() {
    agrees("docs/parameters.md", &markdown());
}

#[test]
fn help_tells_about_everything_and_guesses_at_the_rest() {
    let overview = help(None).expect("there is help");
    for (group, entry) in all() {
        assert!(overview.contains(entry.name()));
        assert!(help(Some(entry.name())).unwrap().contains(entry.about()));
        assert!(help(Some(group.name)).unwrap().contains(entry.about()));
    }
    assert!(help(Some("queue-capcity")).unwrap_err().contains("queue-capacity"));
    assert!(help(Some("kafak")).unwrap_err().contains("kafka"));
    assert!(help(Some("")).unwrap_err().contains("no help"));
    assert!(help(Some(&"x".repeat(1_000_000))).unwrap_err().len() < 300);
}

// ---- the shipped configuration

const HEAD: &str = r#"<!--
  mod_rustbridge: events to Kafka, RabbitMQ and files.

  Every parameter is here, commented out, at its default or, where it has none, with an example.
  `rustbridge help <parameter>` in fs_cli and docs/parameters.md tell the same.
  Check a change with `rustbridge validate`, apply it with `rustbridge reload`.
-->
<configuration name="rustbridge.conf" description="Events to Kafka, RabbitMQ and files">
"#;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn commented(
    entries: impl Iterator<Item = &'static dyn Entry>,
    active: &[&str],
    indent: &str,
) -> String {
    let lines = entries.map(|entry| {
        let (name, value) = (entry.name(), escaped(&entry.shown()));
        let line = format!("<param name=\"{name}\" value=\"{value}\"/>");
        let line = if active.contains(&name) { line } else { format!("<!-- {line} -->") };
        format!("\n{indent}<!-- {} ({}) -->\n{indent}{line}\n", entry.about(), entry.expected())
    });
    lines.collect()
}

/// Writes the configuration that is shipped.
fn conf() -> String {
    let (four, six) = ("    ", "      ");
    let settings = commented(reference::SETTINGS.entries(), &[], four);
    let file = commented(reference::FILE.entries(), &["path"], six);
    let common = commented(reference::SINK.entries(), &[], six);
    let amqp = commented(reference::AMQP.entries(), &[], six);
    let kafka = commented(reference::KAFKA.entries(), &[], six);
    format!(
        r#"{HEAD}  <settings>{settings}  </settings>

  <sinks>
    <!-- A file works before any broker is there. One JSON object a line. -->
    <sink name="journal" type="file" events="ALL">{file}
      <!-- What follows may stand in every sink, whatever its type. -->
{common}    </sink>

    <!-- RabbitMQ, or another broker for AMQP 0-9-1. -->
    <!-- <sink name="rabbit" type="amqp" events="CHANNEL_* CUSTOM sofia::register"> -->{amqp}    <!-- </sink> -->

    <!-- Apache Kafka. -->
    <!-- <sink name="stream" type="kafka" events="ALL !RE_SCHEDULE"> -->{kafka}
      <!-- Further properties of the client library, librdkafka, as it names them. -->
      <!-- <librdkafka><param name="linger.ms" value="5"/></librdkafka> -->
    <!-- </sink> -->
  </sinks>
</configuration>
"#
    )
}

/// Takes the comment off each line that is an element and that `wanted` wants.
fn uncommented(text: &str, wanted: impl Fn(&str) -> bool) -> Section {
    let lines = text.lines().map(|line| {
        let inner = line.trim().strip_prefix("<!-- <").and_then(|rest| rest.strip_suffix("> -->"));
        match inner {
            Some(inner) if wanted(inner) => format!("<{inner}>"),
            _ => line.to_owned(),
        }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    // What FreeSWITCH does to a file before anyone sees it.
    xml::section(&text.replace("$${log_dir}", "/var/log/freeswitch"))
}

#[test]
fn the_shipped_configuration_is_what_the_table_says() {
    agrees("conf/rustbridge.conf.xml", &conf());
}

#[test]
fn the_shipped_configuration_writes_a_journal_with_every_default() {
    let shipped = Config::read(&uncommented(&conf(), |_| false), &KNOWN);
    let shortest = Config::read(
        &xml::section(
            r#"<configuration><sinks><sink name="journal" type="file"><param name="path"
               value="/var/log/freeswitch/rustbridge/events-${date}.ndjson"/></sink></sinks></configuration>"#,
        ),
        &KNOWN,
    );
    assert_eq!(shipped, shortest);
    assert_eq!(shipped.expect("it is valid").sinks.len(), 1);
}

#[test]
fn the_shipped_configuration_shows_every_parameter_once_with_its_default() {
    let root = uncommented(&conf(), |_| true);
    let sinks = &root.children[1].children;
    let of = |section: &Section, groups: &[&Group]| {
        let shown: Vec<_> =
            section.params.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
        let table: Vec<_> = groups
            .iter()
            .flat_map(|group| group.entries())
            .map(|entry| {
                let shown = entry.shown().replace("$${log_dir}", "/var/log/freeswitch");
                (Some(entry.name().to_owned()), Some(shown))
            })
            .collect();
        assert_eq!(shown, table);
    };
    of(&root.children[0], &[&reference::SETTINGS]);
    of(&sinks[0], &[&reference::FILE, &reference::SINK]);
    of(&sinks[1], &[&reference::AMQP]);
    of(&sinks[2], &[&reference::KAFKA]);
    assert_eq!(sinks[2].children[0].name, "librdkafka");
}

#[test]
fn taking_the_comments_off_the_defaults_changes_nothing() {
    let required = ["url", "bootstrap-servers"];
    let defaulted: BTreeSet<_> =
        all().filter(|(_, e)| e.default_text().is_some()).map(|(_, e)| e.name()).collect();
    let named = |line: &str, names: &dyn Fn(&str) -> bool| {
        line.split('"').nth(1).is_some_and(|name| line.starts_with("param ") && names(name))
    };
    let is_sink = |line: &str| line.starts_with("sink ") || line == "/sink";
    let shortest =
        uncommented(&conf(), |line| is_sink(line) || named(line, &|n| required.contains(&n)));
    let longest = uncommented(&conf(), |line| {
        is_sink(line) || named(line, &|n| required.contains(&n) || defaulted.contains(n))
    });
    let shortest = Config::read(&shortest, &KNOWN).expect("it is valid");
    let mut longest = Config::read(&longest, &KNOWN).expect("defaults don't contradict each other");
    assert_eq!(shortest.sinks.len(), 3);
    // Event patterns resolve to the same sets, so even these are equal.
    assert_eq!(longest, shortest);
    longest.sinks.clear();
    assert_ne!(longest, shortest);
}
