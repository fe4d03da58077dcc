// SPDX-License-Identifier: MIT
//! XML text to the neutral tree, for tests without a FreeSWITCH to parse it.

use mod_rustbridge::config::Section;

/// Parses `text`, which must be well-formed.
pub(crate) fn section(text: &str) -> Section {
    let document = roxmltree::Document::parse(text).expect("the test's XML is well-formed");
    convert(document.root_element(), 1)
}

fn convert(node: roxmltree::Node<'_, '_>, depth: usize) -> Section {
    let mut section = Section::new(node.tag_name().name());
    for attribute in node.attributes() {
        section = section.with(attribute.name(), attribute.value());
    }
    if depth < Section::MAX_DEPTH {
        for child in node.children().filter(roxmltree::Node::is_element) {
            section.push(convert(child, depth + 1));
        }
    }
    section
}
