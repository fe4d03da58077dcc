// SPDX-License-Identifier: MIT
//! The table as text, for people.

use crate::{
    config::{
        error::quotable,
        reference::{Entry, GROUPS, Group},
    },
    event::names,
};

const INTRODUCTION: &str = "\
# Parameters

Every parameter of `rustbridge.conf.xml`. This page is written from the table that the module itself
reads by (`src/config/reference`), and a test fails if it differs. What isn't listed is refused, with
the nearest name that is; so is what contradicts itself. All problems of a file are reported at once.

Values are written as `<param name=\"…\" value=\"…\"/>`. Numbers have the unit that ends their name.
Where a secret is expected, `env:NAME` takes it from the environment and `file:/PATH` from a file, both
read anew with each connection.

Files of TLS are read anew with each connection to RabbitMQ. For Kafka the client library keeps what it has read:
they are read anew with a reload, and before each attempt while a certificate or a login is refused.
";

const END: &str = "
A `<sink type=\"kafka\">` may hold one `<librdkafka>` with `<param>`s of its own: properties of the
client library, as it names them. Those that a parameter above sets are refused there, and those that
weaken order or delivery are refused without `allow-unsafe-delivery`. Properties whose names say that
they hold a password, a key or a token take `env:` and `file:` too.
";

/// Returns the help about a group of parameters, about one parameter, or, without a topic, about
/// what there is.
///
/// # Errors
///
/// When there is nothing of that name: with the one that was probably meant.
pub fn help(topic: Option<&str>) -> Result<String, String> {
    let Some(topic) = topic else { return Ok(overview()) };
    if let Some(group) = GROUPS.iter().find(|group| group.name == topic) {
        let paragraphs: Vec<_> = group.entries().map(paragraph).collect();
        return Ok(format!("Parameters {}:\n\n{}", group.place, paragraphs.join("\n")));
    }
    let found: Vec<_> = GROUPS
        .iter()
        .flat_map(|group| group.entries().map(move |entry| (group, entry)))
        .filter(|(_, entry)| entry.name() == topic)
        .map(|(group, entry)| format!("{}  stands {}\n", paragraph(entry), group.place))
        .collect();
    if !found.is_empty() {
        return Ok(found.join("\n"));
    }
    let topics =
        GROUPS.iter().flat_map(|group| group.entries().map(Entry::name).chain([group.name]));
    let topic = quotable(topic);
    Err(match names::nearest(&topic, topics, 4) {
        Some(near) => format!("no help about \"{topic}\"; did you mean \"{near}\"?"),
        None => format!("no help about \"{topic}\"; `help` without a word lists what there is"),
    })
}

fn overview() -> String {
    let list = |group: &Group| {
        let names: Vec<_> = group.entries().map(|entry| format!("  {}\n", entry.name())).collect();
        format!("\n{}, {}:\n{}", group.name, group.place, names.concat())
    };
    let lists: Vec<_> = GROUPS.iter().map(list).collect();
    format!("Parameters of rustbridge.conf.xml; `help <parameter>` tells more.\n{}", lists.concat())
}

fn paragraph(entry: &dyn Entry) -> String {
    let default = match (entry.default_text(), entry.is_required()) {
        (Some(default), _) if default.is_empty() => "default: empty".to_owned(),
        (Some(default), _) => format!("default: {default}"),
        (None, true) => format!("required, for example {}", entry.shown()),
        (None, false) => format!("no default, for example {}", entry.shown()),
    };
    format!(
        "{}\n  {}\n  expected: {}\n  {default}\n",
        entry.name(),
        entry.about(),
        entry.expected()
    )
}

/// Returns the reference of all parameters, as it stands in `docs/parameters.md`.
pub fn markdown() -> String {
    let sections: Vec<_> = GROUPS.iter().map(section).collect();
    format!("{INTRODUCTION}{}{END}", sections.concat())
}

fn section(group: &Group) -> String {
    let rows: Vec<_> = group.entries().map(row).collect();
    format!(
        "\n## {}: {}\n\n| name | what it does | values | default |\n| --- | --- | --- | --- |\n{}",
        group.name,
        cell(group.place),
        rows.concat()
    )
}

fn row(entry: &dyn Entry) -> String {
    let default = match (entry.default_text(), entry.is_required()) {
        (Some(default), _) if default.is_empty() => "empty".to_owned(),
        (Some(default), _) => code(&default),
        (None, true) => format!("required, e.g. {}", code(&entry.shown())),
        (None, false) => format!("none, e.g. {}", code(&entry.shown())),
    };
    let (about, expected) = (cell(entry.about()), cell(&entry.expected()));
    format!("| {} | {about} | {expected} | {default} |\n", code(entry.name()))
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
