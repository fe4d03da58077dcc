// SPDX-License-Identifier: MIT
//! What is wrong with a configuration: all of it at once.

use std::fmt;

use crate::event::names;

/// Longest piece of a configuration that is repeated in a message.
const MAX_QUOTE: usize = 60;

/// One thing that is wrong, where, and what it may have been meant to be.
///
/// Holds nothing of a secret: what stands in `found` was not written where a secret belongs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where it stands: `settings`, `sink "rabbit"`, `sink "rabbit": librdkafka`.
    pub place: String,
    /// Name of the sink that it stands in.
    pub sink: Option<String>,
    /// The parameter or attribute.
    pub parameter: Option<String>,
    /// What is wrong or what is expected.
    pub message: String,
    /// What was found instead, shortened and with control characters escaped.
    pub found: Option<String>,
    /// The known name that was probably meant.
    pub nearest: Option<String>,
}

impl Problem {
    /// Returns the problem `message` of `place` as a whole.
    pub(super) fn new(place: &Place, message: impl Into<String>) -> Self {
        Self {
            place: place.text.clone(),
            sink: place.sink.clone(),
            parameter: None,
            message: message.into(),
            found: None,
            nearest: None,
        }
    }

    /// Says which parameter it is about.
    pub(super) fn parameter(self, name: &str) -> Self {
        Self { parameter: Some(quotable(name)), ..self }
    }

    /// Says what was found. Never called with what may be a secret.
    pub(super) fn found(self, text: &str) -> Self {
        Self { found: Some(quotable(text)), ..self }
    }

    /// Looks among `known` for what was probably meant by `word`.
    pub(super) fn nearest<'k>(self, word: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        Self { nearest: names::nearest(word, known, 4).map(str::to_owned), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(parameter) = &self.parameter {
            write!(f, "{parameter}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(found) = &self.found {
            write!(f, ", found \"{found}\"")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean \"{nearest}\"?")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration; never empty. Displayed one problem a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where something stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    text: String,
    sink: Option<String>,
}

impl Place {
    /// A place outside of any sink.
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), sink: None }
    }

    /// The sink `name`, or the `number`-th if it has none.
    pub(super) fn sink(name: Option<&str>, number: usize) -> Self {
        match name {
            Some(name) => {
                let name = quotable(name);
                Self { text: format!("sink \"{name}\""), sink: Some(name) }
            }
            None => Self { text: format!("sink #{number}"), sink: None },
        }
    }

    /// The element `name` inside of this place.
    pub(super) fn inside(&self, name: &str) -> Self {
        Self { text: format!("{}: {name}", self.text), sink: self.sink.clone() }
    }
}

/// Makes `text` fit for a log line: short, and without control characters.
pub(super) fn quotable(text: &str) -> String {
    let mut quote: String = text.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        quote.push('…');
    }
    quote
}
