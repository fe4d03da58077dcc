// SPDX-License-Identifier: MIT
//! The kinds of values that parameters have: how each is read, described and defaulted.

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use crate::config::{choice::Choice, secret::Secret};

/// What a number counts. Those with a suffix end the names of their parameters with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Hundredths.
    Percent,
    /// Anything else, in the plural.
    Things(&'static str),
}

impl Unit {
    /// Returns the unit's name, in the plural.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Milliseconds => "ms",
            Self::Percent => "percent",
            Self::Things(name) => name,
        }
    }

    /// Returns how the name of a parameter in this unit ends, if that is fixed.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Bytes => Some("-bytes"),
            Self::Milliseconds => Some("-ms"),
            Self::Percent => Some("-percent"),
            Self::Things(_) => None,
        }
    }
}

/// A kind of value.
pub trait Kind: Sync {
    /// The value that it gives.
    type Value;
    /// Whether the parameter must be given. Then `default` stands in only to read on.
    const REQUIRED: bool = false;
    /// Whether the text must not be repeated in a message.
    const SECRET: bool = false;

    /// Reads `text`; `None` if it isn't what [`expected`](Self::expected) says.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// Returns the value of a parameter that isn't given.
    fn default(&self) -> Self::Value;
    /// Returns the text that would give the same value; `None` if no text would.
    fn default_text(&self) -> Option<String>;
    /// Says what is expected, to follow "expected".
    fn expected(&self) -> String;
    /// Returns every text that could have been meant, where there are only a few.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Returns what a number counts.
    fn unit(&self) -> Option<Unit> {
        None
    }
    /// Returns a text that would be read, to show where there is no default.
    fn example(&self) -> &'static str {
        ""
    }
}

/// A whole number.
#[derive(Debug)]
pub struct Number<T> {
    /// What it counts.
    pub unit: Unit,
    /// Smallest.
    pub min: T,
    /// Largest.
    pub max: T,
    /// Without the parameter.
    pub default: T,
}

impl<T: Copy + Display + FromStr + PartialOrd + Sync> Kind for Number<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Option<T> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|_| digits)?;
        (self.min <= value && value <= self.max).then_some(value)
    }

    fn default(&self) -> T {
        self.default
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn expected(&self) -> String {
        format!("{}..={} {}", self.min, self.max, self.unit.name())
    }

    fn unit(&self) -> Option<Unit> {
        Some(self.unit)
    }
}

/// A time, written in milliseconds.
#[derive(Debug)]
pub struct Millis {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Without the parameter.
    pub default: u64,
}

impl Millis {
    fn number(&self) -> Number<u64> {
        let Self { min, max, default } = *self;
        Number { unit: Unit::Milliseconds, min, max, default }
    }
}

impl Kind for Millis {
    type Value = Duration;

    fn parse(&self, text: &str) -> Option<Duration> {
        self.number().parse(text).map(Duration::from_millis)
    }

    fn default(&self) -> Duration {
        Duration::from_millis(self.default)
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn expected(&self) -> String {
        self.number().expected()
    }

    fn unit(&self) -> Option<Unit> {
        Some(Unit::Milliseconds)
    }
}

/// Yes or no, in the words that FreeSWITCH takes elsewhere.
#[derive(Debug)]
pub struct Flag(pub bool);

impl Kind for Flag {
    type Value = bool;

    fn parse(&self, text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    fn default(&self) -> bool {
        self.0
    }

    fn default_text(&self) -> Option<String> {
        Some(self.0.to_string())
    }

    fn expected(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of the words of a [`Choice`].
#[derive(Debug)]
pub struct Word<C>(pub C);

impl<C: Choice + Sync> Kind for Word<C> {
    type Value = C;

    fn parse(&self, text: &str) -> Option<C> {
        C::from_word(text)
    }

    fn default(&self) -> C {
        self.0
    }

    fn default_text(&self) -> Option<String> {
        Some(self.0.word().to_owned())
    }

    fn words(&self) -> Vec<&'static str> {
        C::WORDS.iter().map(|(word, _)| *word).collect()
    }

    fn expected(&self) -> String {
        let words = self.words();
        match words.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

/// A text with rules of its own.
#[derive(Debug)]
pub struct Text {
    /// Without the parameter.
    pub default: &'static str,
    /// The rule, to follow "expected".
    pub expected: &'static str,
    /// The rule, as code.
    pub accepts: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;

    fn parse(&self, text: &str) -> Option<String> {
        (self.accepts)(text).then(|| text.to_owned())
    }

    fn default(&self) -> String {
        self.default.to_owned()
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_owned())
    }

    fn expected(&self) -> String {
        self.expected.to_owned()
    }
}

/// A selection of events. Which events there are is known only where it is used, so the value is
/// the text.
#[derive(Debug)]
pub struct Events(pub &'static str);

impl Kind for Events {
    type Value = String;

    fn parse(&self, text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn default(&self) -> String {
        self.0.to_owned()
    }

    fn default_text(&self) -> Option<String> {
        Some(self.0.to_owned())
    }

    fn expected(&self) -> String {
        "ALL, event names, patterns, CUSTOM with subclasses, and ! before what is not wanted"
            .to_owned()
    }
}

/// An absolute path: the working folder of FreeSWITCH is nobody's choice.
#[derive(Debug)]
pub struct AbsolutePath;

impl Kind for AbsolutePath {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Option<PathBuf> {
        (text.starts_with('/') && plain(text, 4095)).then(|| PathBuf::from(text))
    }

    fn default(&self) -> PathBuf {
        PathBuf::from("/")
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn expected(&self) -> String {
        "an absolute path".to_owned()
    }
}

/// A [`Secret`].
#[derive(Debug)]
pub struct SecretText;

impl Kind for SecretText {
    type Value = Secret;
    const SECRET: bool = true;

    fn parse(&self, text: &str) -> Option<Secret> {
        Secret::parse(text).filter(|_| text.len() <= 64 * 1024)
    }

    fn default(&self) -> Secret {
        Secret::Literal(String::new())
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn expected(&self) -> String {
        "env:NAME, file:/PATH or the secret itself".to_owned()
    }
}

/// Permission bits in octal, like `0640`.
#[derive(Debug)]
pub struct FileMode(pub u32);

impl Kind for FileMode {
    type Value = u32;

    fn parse(&self, text: &str) -> Option<u32> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| digits)?;
        // Whoever wrote them must be able to go on writing.
        (mode <= 0o777 && mode & 0o200 != 0).then_some(mode)
    }

    fn default(&self) -> u32 {
        self.0
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("{:04o}", self.0))
    }

    fn expected(&self) -> String {
        "octal permissions that let the owner write, like 0640".to_owned()
    }
}

/// A value that may be absent, with an example of one.
#[derive(Debug)]
pub struct Optional<K>(pub K, pub &'static str);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;
    const SECRET: bool = K::SECRET;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        self.0.parse(text).map(Some)
    }

    fn default(&self) -> Self::Value {
        None
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn words(&self) -> Vec<&'static str> {
        self.0.words()
    }

    fn unit(&self) -> Option<Unit> {
        self.0.unit()
    }

    fn example(&self) -> &'static str {
        self.1
    }
}

/// A value that nobody can guess, with an example of one.
#[derive(Debug)]
pub struct Required<K>(pub K, pub &'static str);

impl<K: Kind> Kind for Required<K> {
    type Value = Option<K::Value>;
    const REQUIRED: bool = true;
    const SECRET: bool = K::SECRET;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        self.0.parse(text).map(Some)
    }

    fn default(&self) -> Self::Value {
        None
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn words(&self) -> Vec<&'static str> {
        self.0.words()
    }

    fn unit(&self) -> Option<Unit> {
        self.0.unit()
    }

    fn example(&self) -> &'static str {
        self.1
    }
}

/// Returns whether `text` is 1 to `max` bytes and has no control characters.
pub(super) fn plain(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}
