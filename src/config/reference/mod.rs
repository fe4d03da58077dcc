// SPDX-License-Identifier: MIT
//! The one table of every parameter: what it is called, what it may be, what it is without.
//!
//! The parser reads by these entries, and help, documentation and the shipped configuration are
//! written from them, so none of them can know a parameter that another doesn't.

pub mod amqp;
pub mod file;
pub mod kafka;
mod render;
pub mod settings;
pub mod sink;
pub mod tls;

use std::fmt;

use crate::config::kind::{Kind, Unit};
pub use render::{help, markdown};

/// One parameter.
#[derive(Debug)]
pub struct Parameter<K> {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: K,
    /// What it does, in one sentence.
    pub about: &'static str,
}

/// A [`Parameter`] of whatever kind.
pub trait Entry: Sync {
    /// Returns its name.
    fn name(&self) -> &'static str;
    /// Says what it does, in one sentence.
    fn about(&self) -> &'static str;
    /// Says what values it takes.
    fn expected(&self) -> String;
    /// Returns the value that it has without being given, as text.
    fn default_text(&self) -> Option<String>;
    /// Returns a value to show: the default, else an example.
    fn shown(&self) -> String;
    /// Returns whether it must be given.
    fn is_required(&self) -> bool;
    /// Returns what it counts.
    fn unit(&self) -> Option<Unit>;
    /// Returns whether `text` is one of its values.
    fn accepts(&self, text: &str) -> bool;
}

impl<K: Kind> Entry for Parameter<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn expected(&self) -> String {
        self.kind.expected()
    }

    fn default_text(&self) -> Option<String> {
        self.kind.default_text()
    }

    fn shown(&self) -> String {
        self.default_text().unwrap_or_else(|| self.kind.example().to_owned())
    }

    fn is_required(&self) -> bool {
        K::REQUIRED
    }

    fn unit(&self) -> Option<Unit> {
        self.kind.unit()
    }

    fn accepts(&self, text: &str) -> bool {
        self.kind.parse(text).is_some()
    }
}

/// Parameters that stand together.
pub struct Group {
    /// What people call it, `help <this>`.
    pub name: &'static str,
    /// Where in the file its parameters stand.
    pub place: &'static str,
    lists: &'static [&'static [&'static dyn Entry]],
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries().map(Entry::name);
        f.debug_tuple(self.name).field(&names.collect::<Vec<_>>()).finish()
    }
}

impl Group {
    /// Returns the parameters, in the order in which they are shown.
    pub fn entries(&self) -> impl Iterator<Item = &'static dyn Entry> + use<> {
        self.lists.iter().flat_map(|list| list.iter().copied())
    }
}

/// Every parameter there is.
pub const GROUPS: &[Group] = &[SETTINGS, ATTRIBUTES, SINK, FILE, AMQP, KAFKA];

/// Parameters in `<settings>`.
pub const SETTINGS: Group =
    Group { name: "settings", place: "in <settings>", lists: &[settings::ENTRIES] };
/// Attributes of `<sink>`.
pub const ATTRIBUTES: Group = Group {
    name: "attributes",
    place: "among the attributes of <sink>",
    lists: &[sink::ATTRIBUTES],
};
/// Parameters of every sink.
pub const SINK: Group = Group { name: "sink", place: "in every <sink>", lists: &[sink::ENTRIES] };
/// Parameters of files.
pub const FILE: Group =
    Group { name: "file", place: "in <sink type=\"file\">", lists: &[file::ENTRIES] };
/// Parameters of AMQP.
pub const AMQP: Group = Group {
    name: "amqp",
    place: "in <sink type=\"amqp\">",
    lists: &[amqp::ENTRIES, tls::SHARED, tls::AMQP_ONLY],
};
/// Parameters of Kafka.
pub const KAFKA: Group = Group {
    name: "kafka",
    place: "in <sink type=\"kafka\">",
    lists: &[kafka::ENTRIES, tls::SHARED],
};

/// Declares parameters and the list of them in one place, so that none is left out.
macro_rules! parameters {
    ($(#[$list_about:meta])* $list:ident: $($id:ident: $kind:ty = $name:literal, $value:expr, $about:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub const $id: $crate::config::reference::Parameter<$kind> =
                $crate::config::reference::Parameter { name: $name, kind: $value, about: $about };
        )+
        $(#[$list_about])*
        pub const $list: &[&dyn $crate::config::reference::Entry] = &[$(&$id,)+];
    };
}
use parameters;
