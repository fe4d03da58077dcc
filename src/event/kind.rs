// SPDX-License-Identifier: MIT
//! Which event it is, and how much it matters.

/// An event's number in the running core, or one of the module's own kinds of message.
///
/// The number of one and the same event differs between FreeSWITCH releases
/// (`SWITCH_EVENT_ALL` is 92 in 1.10.12 and 93 in 1.11.2 while the API version stays 5), so it is
/// only ever turned into a name through [`EventNames`], never compared with a constant.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventKind(u16);

impl EventKind {
    /// A message from `rustbridge_publish`: not an event, and already encoded by its sender.
    pub const PUBLISH: Self = Self(u16::MAX);
    /// An event whose name the running core does not know: spooled by a newer FreeSWITCH.
    pub const UNKNOWN: Self = Self(u16::MAX - 1);

    /// The kind with this number in the running core.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number in the running core.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// How much an event matters when not everything can be kept. Lower is dearer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Class {
    /// Ends a call or bills it: given up last.
    Critical = 0,
    /// Everything that is neither of the others.
    Normal = 1,
    /// Many and soon outdated, such as heartbeats and presence: given up first.
    Bulk = 2,
}

impl Class {
    /// All classes, dearest first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Bulk];

    /// The class with this number, as a spool stores it. What nobody wrote is `Normal`.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Critical,
            2 => Self::Bulk,
            _ => Self::Normal,
        }
    }

    /// The number that [`from_number`](Self::from_number) reads.
    pub const fn number(self) -> u8 {
        match self {
            Self::Critical => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }

    /// The name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

/// The names of the running core's events, by number. Made once at load.
#[derive(Clone, Debug, Default)]
pub struct EventNames {
    names: Vec<Box<str>>,
    /// Their numbers in the order of the names: each record that comes from a disk is looked up.
    sorted: Vec<u16>,
}

impl EventNames {
    /// A table in which the event number `n` has the `n`th name.
    pub fn new<S: Into<Box<str>>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
        let mut sorted: Vec<u16> = (0..=u16::MAX).take(names.len()).collect();
        sorted.sort_by_key(|number| names.get(usize::from(*number)));
        Self { names, sorted }
    }

    /// The name of `kind`, when the core has one for it.
    pub fn name(&self, kind: EventKind) -> Option<&str> {
        self.names.get(usize::from(kind.number())).map(AsRef::as_ref)
    }

    /// The kind with this name.
    pub fn kind(&self, name: &str) -> Option<EventKind> {
        let name_of = |number: &u16| self.names.get(usize::from(*number)).map(AsRef::as_ref);
        let place = self.sorted.binary_search_by_key(&Some(name), name_of).ok()?;
        self.sorted.get(place).copied().map(EventKind)
    }

    /// Every name, in the order of the numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// How many events the core has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the table is empty, as in a test without a core.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
