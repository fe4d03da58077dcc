// SPDX-License-Identifier: MIT
//! Which events are wanted: what stands in `events="CHANNEL_* CUSTOM sofia::register !DTMF"`.
//!
//! A text is a list of words, separated by spaces or commas. Each adds to the set, or takes away
//! from it with `!` or `-` in front. What is taken away is away wherever it stands; a list that
//! only takes away starts from `ALL`.
//!
//! | word | means |
//! | --- | --- |
//! | `ALL` | every event, also those that a later FreeSWITCH may add |
//! | `CHANNEL_CREATE`, `SWITCH_EVENT_CHANNEL_CREATE` | this event; letters' case doesn't count |
//! | `CHANNEL_*`, `RECORD_ST???` | the events that match |
//! | `CUSTOM` | custom events of every subclass, or of those that follow it |
//! | `CUSTOM sofia::register conference::*` | custom events of these subclasses, up to the next event name |
//! | `CUSTOM^x`, `CUSTOM::x`, `SWITCH_EVENT_CUSTOM::x` | custom events of the subclass `x` |
//! | `sofia::register` | the same: only a subclass has `::` |

use std::{collections::BTreeSet, fmt};

use crate::event::names::{self, CUSTOM, SUBCLASSES};

/// Longer texts aren't read: every event by name takes a fiftieth of this.
const MAX_TEXT: usize = 64 * 1024;
/// Longest name of a subclass.
const MAX_SUBCLASS: usize = 255;
/// Problems that are reported one by one; more are the same mistake over and over.
const MAX_PROBLEMS: usize = 20;

/// A set of events and, of the event `CUSTOM`, of subclasses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// Every event but `without`, rather than the events in `names`. Neither holds `CUSTOM`.
    everything: bool,
    names: BTreeSet<String>,
    without: BTreeSet<String>,
    /// Every subclass but `custom_without`, rather than those in `custom` but `custom_without`.
    custom_all: bool,
    custom: Patterns,
    custom_without: Patterns,
}

/// How much of an event's occurrences a [`Selection`] wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coverage {
    /// None of them.
    None,
    /// All of them.
    All,
    /// It depends on the subclass: ask [`Selection::wants`]. Only `CUSTOM` has this.
    BySubclass,
}

/// A word that can't be read, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelectionProblem {
    /// The word.
    pub found: String,
    /// What is wrong, and what to write instead.
    pub message: &'static str,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

impl Selection {
    /// Reads `text`; `known` are the names of the events that there are, `ALL` or not.
    ///
    /// Words that can't be read are reported and otherwise as if they weren't there.
    pub fn parse(text: &str, known: &[&str]) -> (Self, Vec<SelectionProblem>) {
        let mut parser = Parser { known, ..Parser::default() };
        if text.len() > MAX_TEXT {
            parser.problem(
                "",
                "longer than 65536 bytes: use ALL, or a pattern like CHANNEL_*",
                None,
            );
            return (Self::default(), parser.problems);
        }
        for word in text.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
            parser.word(word);
            if parser.problems.len() >= MAX_PROBLEMS {
                parser.problem("", "further words were not read after this many problems", None);
                break;
            }
        }
        parser.finish()
    }

    /// Returns whether an event belongs to the set. `event` is written as FreeSWITCH writes it.
    ///
    /// Any thread; doesn't allocate.
    pub fn wants(&self, event: &str, subclass: Option<&[u8]>) -> bool {
        match self.coverage(event) {
            Coverage::None => false,
            Coverage::All => true,
            Coverage::BySubclass => match subclass {
                None => self.custom_all,
                Some(name) => {
                    (self.custom_all || self.custom.matches(name))
                        && !self.custom_without.matches(name)
                }
            },
        }
    }

    /// Returns how much of `event` belongs to the set, so that most can be decided once.
    pub fn coverage(&self, event: &str) -> Coverage {
        let whole = if event == CUSTOM {
            if self.custom_all && self.custom_without.is_empty() {
                true
            } else if self.custom_all || !self.custom.is_empty() {
                return Coverage::BySubclass;
            } else {
                false
            }
        } else if self.everything {
            !self.without.contains(event)
        } else {
            self.names.contains(event)
        };
        if whole { Coverage::All } else { Coverage::None }
    }

    /// Returns whether nothing belongs to the set.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.names.is_empty() && !self.custom_all && self.custom.is_empty()
    }
}

/// The canonical text: what [`Selection::parse`] reads to an equal set, patterns of events resolved.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.everything {
            words.push("ALL".to_owned());
            words.extend(self.without.iter().map(|name| format!("!{name}")));
            if !self.custom_all {
                words.push(format!("!{CUSTOM}"));
            }
        } else {
            words.extend(self.names.iter().cloned());
            if self.custom_all {
                words.push(CUSTOM.to_owned());
            }
        }
        words.extend(self.custom.iter().map(|name| format!("{CUSTOM}^{name}")));
        words.extend(self.custom_without.iter().map(|name| format!("!{CUSTOM}^{name}")));
        f.write_str(&words.join(" "))
    }
}

/// Names of subclasses, literal and with wildcards.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Patterns {
    exact: BTreeSet<String>,
    globs: BTreeSet<String>,
}

impl Patterns {
    fn insert(&mut self, pattern: &str) {
        let set = if is_glob(pattern) { &mut self.globs } else { &mut self.exact };
        set.insert(pattern.to_owned());
    }

    fn matches(&self, name: &[u8]) -> bool {
        // A name that isn't UTF-8 can't be one that was written in a configuration.
        str::from_utf8(name).is_ok_and(|name| self.exact.contains(name))
            || self.globs.iter().any(|glob| glob_matches(glob.as_bytes(), name))
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &String> {
        self.exact.iter().chain(&self.globs)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Parser<'a> {
    known: &'a [&'a str],
    added: Selection,
    away: Selection,
    /// Whether any word added something, or meant to.
    adds: bool,
    /// After `CUSTOM`: bare words are subclasses.
    in_custom: bool,
    /// After `CUSTOM`, as long as no subclass followed it.
    custom_alone: bool,
    problems: Vec<SelectionProblem>,
}

impl Parser<'_> {
    fn word(&mut self, word: &str) {
        let (negated, body) = match word.strip_prefix(['!', '-']) {
            Some(body) => (true, body),
            None => (false, word),
        };
        self.adds |= !negated;
        let name = strip_prefix_ignoring_case(body, "SWITCH_EVENT_").unwrap_or(body);
        let subclass = strip_prefix_ignoring_case(name, "CUSTOM^")
            .or_else(|| strip_prefix_ignoring_case(name, "CUSTOM::"));
        if let Some(subclass) = subclass {
            self.subclass(negated, word, subclass);
        } else if body.contains("::") {
            self.custom_alone &= negated;
            self.subclass(negated, word, body);
        } else if name.is_empty() {
            self.problem(word, "expected a name", None);
        } else {
            self.event(negated, word, name);
        }
    }

    fn event(&mut self, negated: bool, word: &str, name: &str) {
        let upper = name.to_ascii_uppercase();
        let known = self.known.iter().copied().filter(|known| *known != "ALL");
        let matching: Vec<&str> = if upper == "ALL" {
            known.collect()
        } else if is_glob(&upper) {
            known.filter(|known| glob_matches(upper.as_bytes(), known.as_bytes())).collect()
        } else {
            known.filter(|known| *known == upper).collect()
        };
        if matching.is_empty() && upper != "ALL" {
            return self.not_an_event(negated, word, name);
        }
        if !negated {
            self.end_custom();
            if upper == CUSTOM {
                self.in_custom = true;
                self.custom_alone = true;
                return;
            }
        }
        let set = if negated { &mut self.away } else { &mut self.added };
        set.everything |= upper == "ALL" || upper == "*";
        set.custom_all |= set.everything || matching.contains(&CUSTOM);
        set.names.extend(matching.into_iter().filter(|name| *name != CUSTOM).map(str::to_owned));
    }

    /// A word without `::` that no event has: a subclass if it follows `CUSTOM`, else a mistake.
    fn not_an_event(&mut self, negated: bool, word: &str, name: &str) {
        let events = self.known.iter().copied().chain(["ALL"]);
        if is_glob(name) && !self.in_custom {
            return self.problem(word, "no event matches", None);
        }
        if !self.in_custom {
            let nearest = names::nearest(name, events, 4).map(str::to_owned);
            return self.problem(word, "unknown event", nearest);
        }
        if let Some(near) = names::nearest(name, events, 2).map(str::to_owned) {
            let message = "unknown event (a subclass so similar is written CUSTOM^name)";
            return self.problem(word, message, Some(near));
        }
        self.custom_alone &= negated;
        self.subclass(negated, word, name);
    }

    fn subclass(&mut self, negated: bool, word: &str, name: &str) {
        if name.is_empty() {
            return self.problem(word, "expected a subclass", None);
        }
        if name.len() > MAX_SUBCLASS {
            return self.problem(word, "expected a subclass of at most 255 bytes", None);
        }
        let is_known = is_glob(name) || SUBCLASSES.binary_search(&name).is_ok();
        let near = names::nearest(name, SUBCLASSES.iter().copied(), 2).filter(|_| !is_known);
        if let Some(near) = near {
            let message = "unknown subclass (one of your own that is so similar needs a wildcard, \
                           as in name*)";
            return self.problem(word, message, Some(near.to_owned()));
        }
        let set = if negated { &mut self.away } else { &mut self.added };
        if name == "*" {
            set.custom_all = true;
        } else {
            set.custom.insert(name);
        }
    }

    fn end_custom(&mut self) {
        self.added.custom_all |= self.custom_alone;
        self.in_custom = false;
        self.custom_alone = false;
    }

    fn finish(mut self) -> (Selection, Vec<SelectionProblem>) {
        self.end_custom();
        let Self { known, mut added, away, adds, mut problems, .. } = self;
        if !adds && !away.is_empty() {
            added.everything = true;
            added.custom_all = true;
        }
        if away.custom_all && !added.custom.is_empty() {
            let found = added.custom.iter().next().cloned().unwrap_or_default();
            let message = "adds nothing, since !CUSTOM takes every subclass away (to take one \
                           away write !CUSTOM^name)";
            problems.push(SelectionProblem { found, message, nearest: None });
        }

        let mut selection = Selection { custom_all: added.custom_all, ..Selection::default() };
        let every_other = known.iter().filter(|name| !matches!(**name, "ALL" | CUSTOM));
        if away.everything
            || (added.everything && every_other.clone().all(|n| away.names.contains(*n)))
        {
            // Nothing but, perhaps, custom events is left.
        } else if added.everything {
            selection.everything = true;
            selection.without = away.names;
        } else {
            selection.names = &added.names - &away.names;
        }
        if away.custom_all {
            selection.custom_all = false;
        } else {
            selection.custom_without = away.custom;
            if !added.custom_all {
                selection.custom = added.custom;
                let without = &selection.custom_without;
                selection.custom.exact.retain(|name| !without.matches(name.as_bytes()));
                selection.custom.globs.retain(|glob| !without.globs.contains(glob));
                if selection.custom.is_empty() {
                    selection.custom_without = Patterns::default();
                }
            }
        }
        (selection, problems)
    }

    fn problem(&mut self, found: &str, message: &'static str, nearest: Option<String>) {
        self.problems.push(SelectionProblem { found: found.to_owned(), message, nearest });
    }
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Returns whether `text` matches `glob`, in which `*` is any bytes and `?` any one byte.
///
/// Goes back only to the last `*`, so the time is at most the product of both lengths.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(pos) {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                at += 1;
                pos += 1;
            }
            _ => match star {
                Some((star_at, star_pos)) => {
                    star = Some((star_at, star_pos + 1));
                    at = star_at + 1;
                    pos = star_pos + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests;
