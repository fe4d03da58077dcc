// SPDX-License-Identifier: MIT
//! The neutral tree between whatever parsed the text and [`Config::read`](super::Config::read).

use std::fmt;

/// An element of the configuration: its attributes, its `<param>` pairs, its other children.
///
/// `Debug` shows names only, since a value may be a secret.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Section {
    /// Tag.
    pub name: String,
    /// Attributes with their values, in order.
    pub attributes: Vec<(String, String)>,
    /// Its `<param>` elements, in order.
    pub params: Vec<Pair>,
    /// All its other elements, in order.
    pub children: Vec<Section>,
}

/// A `<param name="…" value="…"/>`, either of which may have been forgotten.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Pair {
    /// The attribute `name`.
    pub name: Option<String>,
    /// The attribute `value`.
    pub value: Option<String>,
    /// The first attribute that is neither.
    pub stray: Option<String>,
}

impl Section {
    /// Elements nested deeper than this say nothing, and whoever builds a tree leaves them out:
    /// walking and dropping it takes stack in proportion to its depth.
    pub const MAX_DEPTH: usize = 8;

    /// Returns an element without content.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Adds an element inside of this one; a `<param>` becomes a [`Pair`].
    pub fn push(&mut self, child: Self) {
        if child.name != "param" {
            self.children.push(child);
            return;
        }
        let mut pair = Pair::default();
        for (name, value) in child.attributes {
            match name.as_str() {
                "name" => pair.name = Some(value),
                "value" => pair.value = Some(value),
                _ => pair.stray = pair.stray.or(Some(name)),
            }
        }
        self.params.push(pair);
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attributes: Vec<_> = self.attributes.iter().map(|(name, _)| name).collect();
        f.debug_struct(&self.name)
            .field("attributes", &attributes)
            .field("params", &self.params)
            .field("children", &self.children)
            .finish()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}
