// SPDX-License-Identifier: MIT
//! From FreeSWITCH's XML to the neutral tree, and from there to a configuration.

use std::path::Path;

use crate::config::section::Section;
use crate::config::{Config, Known};
use crate::switch::Core;
use crate::switch::xml::{Document, Node};

/// The name that the core finds the configuration by.
const NAME: &std::ffi::CStr = c"rustbridge.conf";

/// Reads the configuration that is in force in the core.
///
/// # Errors
///
/// With every problem in it, a line each.
pub(super) fn read(core: &Core) -> Result<Config, String> {
    let document = Document::open_configuration(NAME).ok_or_else(|| {
        "There is no configuration rustbridge.conf: put rustbridge.conf.xml into autoload_configs, where the user that FreeSWITCH \
         runs as can read it"
            .to_owned()
    })?;
    typed(document.root(), core)
}

/// Reads a file that is not in force.
///
/// # Errors
///
/// With every problem in it, a line each.
pub(super) fn read_file(path: &Path, core: &Core) -> Result<Config, String> {
    let document = Document::open_file(path)
        .ok_or_else(|| format!("{} cannot be read as XML", path.display()))?;
    let root = document.root();
    // A file of its own has the configuration as its root; a whole freeswitch.xml has it inside.
    let node = find(root, 0).ok_or_else(|| {
        format!("{} holds no <configuration name=\"rustbridge.conf\">", path.display())
    })?;
    typed(node, core)
}

fn find(node: Node<'_>, depth: usize) -> Option<Node<'_>> {
    let is_ours = node.name() == "configuration"
        && node
            .attributes()
            .iter()
            .any(|(name, value)| name == "name" && value == "rustbridge.conf");
    if is_ours {
        return Some(node);
    }
    (depth < 4).then(|| node.children().find_map(|child| find(child, depth + 1))).flatten()
}

fn typed(node: Node<'_>, core: &Core) -> Result<Config, String> {
    let events: Vec<&str> = core.names.iter().filter(|name| !name.is_empty()).collect();
    let known = Known {
        events: &events,
        #[cfg(feature = "kafka")]
        kafka_problems: crate::sink::kafka::check_properties,
        ..Known::default()
    };
    Config::read(&section(node, 0), &known).map_err(|error| {
        let count = error.problems.len();
        let plural = if count == 1 { "problem" } else { "problems" };
        format!("rustbridge.conf has {count} {plural}:\n{error}")
    })
}

fn section(node: Node<'_>, depth: usize) -> Section {
    let mut section = Section::new(node.name());
    section.attributes = node.attributes();
    if depth < Section::MAX_DEPTH {
        for child in node.children() {
            section.push(self::section(child, depth + 1));
        }
    }
    section
}
