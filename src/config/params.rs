// SPDX-License-Identifier: MIT
//! Reads the pairs of one section by the table, and remembers what was wrong or never read.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{
        error::{Place, Problem},
        kind::{Kind, Text},
        reference::{Entry, GROUPS, Group, Parameter},
        section::Pair,
        template::{Purpose, Template},
    },
    event::selection::Selection,
};

/// The parameters of one section while they are being read.
pub(super) struct Params<'a> {
    place: Place,
    given: BTreeMap<&'a str, &'a str>,
    /// In the order of the file, so that problems are too.
    names: Vec<&'a str>,
    read: BTreeSet<&'static str>,
    broken: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Params<'a> {
    /// Takes the `<param>` pairs of a section that stands at `place`.
    pub(super) fn new(place: Place, pairs: &'a [Pair]) -> Self {
        let mut params = Self::empty(place);
        for pair in pairs {
            let problem = match (&pair.name, &pair.value, &pair.stray) {
                (Some(name), Some(value), None) => {
                    params.add(name, value);
                    continue;
                }
                (Some(name), Some(value), Some(_)) => {
                    params.add(name, value);
                    let message = "expected no attributes of <param> but name and value";
                    Problem::new(&params.place, message).parameter(name)
                }
                (Some(name), None, _) => {
                    Problem::new(&params.place, "<param> without a value").parameter(name)
                }
                (None, _, _) => Problem::new(&params.place, "<param> without a name"),
            };
            params.note(match &pair.stray {
                Some(stray) => problem.found(stray),
                None => problem,
            });
        }
        params
    }

    /// Takes the attributes of an element that stands at `place`.
    pub(super) fn of_attributes(place: Place, attributes: &'a [(String, String)]) -> Self {
        let mut params = Self::empty(place);
        for (name, value) in attributes {
            params.add(name, value);
        }
        params
    }

    fn empty(place: Place) -> Self {
        Self {
            place,
            given: BTreeMap::new(),
            names: Vec::new(),
            read: BTreeSet::new(),
            broken: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    fn add(&mut self, name: &'a str, value: &'a str) {
        if self.given.contains_key(name) {
            let problem = Problem::new(&self.place, "given more than once: keep one of them");
            self.note(problem.parameter(name));
        } else {
            self.given.insert(name, value);
            self.names.push(name);
        }
    }

    /// Reads a parameter. If it isn't there its default is the value; if it is wrong that is
    /// noted, and the default lets the reading go on.
    pub(super) fn read<K: Kind>(&mut self, parameter: &Parameter<K>) -> K::Value {
        self.read.insert(parameter.name);
        let Some(text) = self.given.get(parameter.name).copied() else {
            if K::REQUIRED {
                self.broken.insert(parameter.name);
                let expected = parameter.kind.expected();
                let message = format!("missing: expected {expected}");
                self.note(Problem::new(&self.place, message).parameter(parameter.name));
            }
            return parameter.kind.default();
        };
        parameter.kind.parse(text).unwrap_or_else(|| {
            self.broken.insert(parameter.name);
            let message = format!("expected {}", parameter.kind.expected());
            let problem = Problem::new(&self.place, message).parameter(parameter.name);
            self.note(if K::SECRET {
                problem
            } else {
                problem.found(text).nearest(text, parameter.kind.words())
            });
            parameter.kind.default()
        })
    }

    /// Reads a parameter that selects from the events `known`. The default is read from the
    /// catalog of all events, so that it suits a FreeSWITCH that lacks one of them.
    pub(super) fn events(
        &mut self,
        parameter: &Parameter<super::kind::Events>,
        known: &[&str],
    ) -> Selection {
        let text = self.read(parameter);
        if !self.is_given(parameter) {
            return Selection::parse(&text, crate::event::names::EVENTS).0;
        }
        let (selection, problems) = Selection::parse(&text, known);
        for problem in problems {
            self.broken.insert(parameter.name);
            let mut noted = Problem::new(&self.place, problem.message).parameter(parameter.name);
            if !problem.found.is_empty() {
                noted = noted.found(&problem.found);
            }
            self.note(Problem { nearest: problem.nearest, ..noted });
        }
        selection
    }

    /// Reads a parameter with fields in it, and notes what is wrong with them. Returns it as
    /// written and taken apart.
    pub(super) fn template(
        &mut self,
        parameter: &Parameter<Text>,
        purpose: Purpose,
    ) -> (String, Template) {
        let text = self.read(parameter);
        let (template, problems) = Template::parse(&text, purpose);
        for problem in problems {
            self.broken.insert(parameter.name);
            let mut noted = Problem::new(&self.place, problem.message).parameter(parameter.name);
            if !problem.found.is_empty() {
                noted = noted.found(&problem.found);
            }
            self.note(Problem { nearest: problem.nearest, ..noted });
        }
        (text, template)
    }

    /// Returns whether a parameter was written at all.
    pub(super) fn is_given<K: Kind>(&self, parameter: &Parameter<K>) -> bool {
        self.given.contains_key(parameter.name)
    }

    /// Notes that `message` is wrong about `parameters`, in the name of the first. Keeps quiet if
    /// one of them is wrong already: then the value that contradicts may only be its default.
    pub(super) fn clash(&mut self, parameters: &[&dyn Entry], message: impl Into<String>) {
        if parameters.iter().any(|parameter| self.broken.contains(parameter.name())) {
            return;
        }
        let problem = Problem::new(&self.place, message);
        self.note(match parameters.first() {
            Some(first) => problem.parameter(first.name()),
            None => problem,
        });
    }

    /// Notes that a parameter is sound but can't stand where it does.
    pub(super) fn clash_named(&mut self, name: &str, message: impl Into<String>) {
        self.note(Problem::new(&self.place, message).parameter(name));
    }

    /// Notes a problem with the value of `parameter`.
    pub(super) fn wrong<K: Kind>(&mut self, parameter: &Parameter<K>, message: impl Into<String>) {
        self.broken.insert(parameter.name);
        self.note(Problem::new(&self.place, message).parameter(parameter.name));
    }

    /// Notes any problem.
    pub(super) fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Returns where the section stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns what was given, each name once, for a section whose names are not in the table.
    pub(super) fn into_pairs(self) -> (Vec<(&'a str, &'a str)>, Vec<Problem>) {
        let Self { given, names, problems, .. } = self;
        let pair = |name| Some((name, *given.get(name)?));
        (names.into_iter().filter_map(pair).collect(), problems)
    }

    /// Returns every problem, among them what was given but never read. `groups` hold what could
    /// have been.
    pub(super) fn finish(mut self, groups: &[&Group]) -> Vec<Problem> {
        let unread: Vec<&str> =
            self.names.iter().copied().filter(|name| !self.read.contains(name)).collect();
        for name in unread {
            let elsewhere = GROUPS.iter().find(|group| group.entries().any(|e| e.name() == name));
            let known = || groups.iter().flat_map(|group| group.entries());
            if known().any(|entry| entry.name() == name) {
                continue;
            }
            let problem = match elsewhere {
                Some(group) => {
                    let message = format!("out of place: it belongs {}", group.place);
                    Problem::new(&self.place, message)
                }
                None => Problem::new(&self.place, "unknown parameter")
                    .nearest(name, known().map(Entry::name)),
            };
            self.problems.push(problem.parameter(name));
        }
        self.problems
    }
}
