// SPDX-License-Identifier: MIT
//! Texts like `event.${node}.${event}` that say what a routing key, a record's key or the name of
//! a destination is made of.
//!
//! A field is `${name}`, or `${first|second|#text}`: of several, the first that the event has
//! and that isn't empty; `#text` stands for itself, so it can only be the last. A name is one of
//! [`FIELDS`] or that of a header, as in `${Caller-Context}` or `${variable_account_id}`. A
//! header whose name could be a slip of the pen is written `${header:name}`.
//!
//! A text is taken apart once, when a configuration is read. `codec` fills it in for each event.

use crate::{config::kind::plain, event::names};

/// The fields that are no headers.
pub const FIELDS: [&str; 6] = ["node", "event", "subclass", "uuid", "call", "class"];
/// The most fields that one text may have.
pub const FIELDS_MAX: usize = 16;
/// The routing key of a sink that isn't told another.
pub const STANDARD_ROUTING_KEY: &str = "event.${node}.${event}.${subclass}.${uuid}";
/// The record key of a sink that isn't told another.
pub const STANDARD_RECORD_KEY: &str = "${call}";

/// The room in a routing key that the value of a field has for certain: that of a UUID.
const ROOM: usize = 36;

/// What is made of a template, which decides what may stand in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// An AMQP routing key: words with dots between them, at most 255 bytes.
    RoutingKey,
    /// The name of an AMQP exchange, at most 255 bytes.
    Exchange,
    /// The key of a Kafka record: any bytes.
    RecordKey,
    /// The name of a Kafka topic: at most 249 letters, digits, dots, `_` or `-`.
    Topic,
}

impl Purpose {
    /// Returns how many bytes the result may have, if that is limited.
    pub const fn max(self) -> Option<usize> {
        match self {
            Self::RoutingKey | Self::Exchange => Some(255),
            Self::Topic => Some(249),
            Self::RecordKey => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RoutingKey => "a routing key",
            Self::Exchange => "the name of an exchange",
            Self::RecordKey => "a key",
            Self::Topic => "the name of a topic",
        }
    }
}

/// Where the value of a field comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// `node`: the name of this switch.
    Node,
    /// `event`: the event's name.
    Event,
    /// `subclass`: that of a `CUSTOM` event.
    Subclass,
    /// `uuid`: the `Unique-ID` of the call's leg.
    Uuid,
    /// `call`: what both legs of a call share; for what belongs to no call, a job or the node.
    Call,
    /// `class`: how much the event matters.
    Class,
    /// A header.
    Header(Box<str>),
    /// `#text`: itself.
    Literal(Box<str>),
}

/// A part of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Text without a dot.
    Text(Box<str>),
    /// What stands between the words of a routing key.
    Dot,
    /// A field: the first of these that has a value.
    Field(Box<[Source]>),
}

/// A text that has been taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    pieces: Box<[Piece]>,
    fixed: usize,
    room: usize,
    standard: bool,
}

/// What is wrong with a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TemplateProblem {
    /// What is wrong and what to do.
    pub message: String,
    /// The field it is about; empty if it is about the whole.
    pub found: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

impl TemplateProblem {
    fn new(found: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), found: found.to_owned(), nearest: None }
    }
}

impl Template {
    /// Takes a text apart that a configuration has accepted for this purpose.
    ///
    /// Whatever would be a problem there is made the best of here.
    pub fn new(text: &str, purpose: Purpose) -> Self {
        Self::parse(text, purpose).0
    }

    /// Takes a text apart, and says everything that is wrong with it.
    pub fn parse(text: &str, purpose: Purpose) -> (Self, Vec<TemplateProblem>) {
        let mut parser = Parser { purpose, pieces: Vec::new(), problems: Vec::new() };
        parser.text(text);
        let Parser { pieces, mut problems, .. } = parser;
        let literal = |sources: &[Source]| match sources.last() {
            Some(Source::Literal(text)) => text.len(),
            _ => 0,
        };
        let (mut fixed, mut fields, mut literals) = (0, 0, 0);
        for piece in &pieces {
            match piece {
                Piece::Text(text) => fixed += text.len(),
                Piece::Dot => fixed += 1,
                Piece::Field(sources) => {
                    fields += 1;
                    literals += literal(sources);
                }
            }
        }
        if fields > FIELDS_MAX {
            let message = format!("expected at most {FIELDS_MAX} fields, found {fields}");
            problems.push(TemplateProblem::new("", message));
        }
        let least = fixed + literals + fields;
        if let Some(max) = purpose.max().filter(|max| least > *max) {
            let message = format!(
                "takes at least {least} bytes, more than the {max} of {}: shorten it",
                purpose.name()
            );
            problems.push(TemplateProblem::new("", message));
        }
        let spare = purpose.max().unwrap_or(0).saturating_sub(fixed + literals);
        let room = spare.checked_div(fields).unwrap_or(0).clamp(1, ROOM);
        let standard = match purpose {
            Purpose::RoutingKey => text == STANDARD_ROUTING_KEY,
            Purpose::RecordKey => text == STANDARD_RECORD_KEY,
            Purpose::Exchange | Purpose::Topic => false,
        };
        (Self { pieces: pieces.into(), fixed, room, standard }, problems)
    }

    /// Returns the parts, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns whether the result depends on the event.
    pub fn has_fields(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Field(_)))
    }

    /// Returns how many bytes the text around the fields has.
    pub fn fixed(&self) -> usize {
        self.fixed
    }

    /// Returns how many bytes of a value a routing key has room for, whatever the other values.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Returns whether it is the one that a sink has without being told another.
    pub fn is_standard(&self) -> bool {
        self.standard
    }
}

struct Parser {
    purpose: Purpose,
    pieces: Vec<Piece>,
    problems: Vec<TemplateProblem>,
}

impl Parser {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((field, after)) = after.split_once('}') else { break };
            self.literal(before);
            self.field(field);
            rest = after;
        }
        self.literal(rest);
        if self.purpose == Purpose::RoutingKey {
            self.name_empty_words();
        }
    }

    fn literal(&mut self, text: &str) {
        if self.purpose == Purpose::Topic && !text.bytes().all(is_topic_byte) {
            let message = "expected letters, digits, dots, _ or - around the fields";
            self.problems.push(TemplateProblem::new(text, message));
        }
        for (position, part) in text.split('.').enumerate() {
            if position > 0 {
                self.pieces.push(Piece::Dot);
            }
            if !part.is_empty() {
                self.pieces.push(Piece::Text(part.into()));
            }
        }
    }

    /// Puts `_` where two dots follow each other, and at a dot that begins or ends the text: no
    /// word of a routing key may be empty, for some clients count those and some don't.
    fn name_empty_words(&mut self) {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        let mut empty = true;
        for piece in self.pieces.drain(..) {
            let ends = piece == Piece::Dot;
            if ends && empty {
                pieces.push(Piece::Text("_".into()));
            }
            empty = ends;
            pieces.push(piece);
        }
        if empty {
            pieces.push(Piece::Text("_".into()));
        }
        self.pieces = pieces;
    }

    fn field(&mut self, field: &str) {
        let mut sources = Vec::new();
        for name in field.split('|') {
            if matches!(sources.last(), Some(Source::Literal(_))) {
                let message = "is never used: a #text before it always has a value";
                self.problems.push(TemplateProblem::new(name, message));
            }
            match source(name, self.purpose) {
                Ok(source) => sources.push(source),
                Err(problem) => {
                    self.problems.push(problem);
                    sources.push(Source::Header(name.into()));
                }
            }
        }
        self.pieces.push(Piece::Field(sources.into()));
    }
}

/// Reads one of a field's alternatives.
fn source(name: &str, purpose: Purpose) -> Result<Source, TemplateProblem> {
    let problem = |message: &str| Err(TemplateProblem::new(name, message));
    if let Some(text) = name.strip_prefix('#') {
        return match purpose {
            Purpose::RoutingKey if text.contains('.') => {
                problem("holds a dot, by which the number of words would vary")
            }
            Purpose::Topic if !text.bytes().all(is_topic_byte) => {
                problem("expected letters, digits, dots, _ or - in the name of a topic")
            }
            _ => Ok(Source::Literal(text.into())),
        };
    }
    if let Some(header) = name.strip_prefix("header:") {
        return match header {
            "" => problem("expected the name of a header"),
            _ => Ok(Source::Header(header.into())),
        };
    }
    match name {
        "node" => Ok(Source::Node),
        "event" => Ok(Source::Event),
        "subclass" => Ok(Source::Subclass),
        "uuid" => Ok(Source::Uuid),
        "call" => Ok(Source::Call),
        "class" => Ok(Source::Class),
        "" => problem("expected the name of a field between the bars"),
        _ => header(name),
    }
}

/// Takes `name` for a header unless it was probably meant to be something else.
fn header(name: &str) -> Result<Source, TemplateProblem> {
    let is_variable = name.strip_prefix("variable_").is_some_and(|rest| !rest.is_empty());
    if is_variable || names::HEADERS.contains(&name) {
        return Ok(Source::Header(name.into()));
    }
    // Capitals and dashes are what FreeSWITCH's own headers have and our fields don't.
    let looks_like_one = name.contains(['-', '_', ':']) || name.contains(char::is_uppercase);
    let known = || FIELDS.iter().chain(names::HEADERS).copied();
    let nearest = known()
        .find(|known| is_same_but_for_form(known, name))
        .or_else(|| names::nearest(name, names::HEADERS.iter().copied(), 2))
        .or_else(|| names::nearest(name, FIELDS, 2));
    match nearest {
        None if looks_like_one => Ok(Source::Header(name.into())),
        nearest => Err(TemplateProblem {
            message: "unknown field, and a header of this very name is written ${header:…}".into(),
            found: name.to_owned(),
            nearest: nearest.map(str::to_owned),
        }),
    }
}

/// Returns whether the two differ in nothing but case, dashes and underscores.
fn is_same_but_for_form(left: &str, right: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = char> {
        text.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase())
    }
    letters(left).eq(letters(right))
}

/// Returns whether the name of a Kafka topic may hold `byte`; by its `Topic.validate`.
pub const fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Returns whether every field in `text` is closed and none is a `$${global}`, and whether it is
/// short enough to be looked at.
pub(super) fn is_sound(text: &str) -> bool {
    plain(text, 1_024) && fields(text).is_some()
}

/// Returns the names of the fields in `text`; `None` if one isn't closed, is empty or nested, or
/// is a `$${global}` that FreeSWITCH would have replaced in a file that it read.
pub(super) fn fields(text: &str) -> Option<Vec<&str>> {
    if text.contains("$${") {
        return None;
    }
    text.split("${")
        .skip(1)
        .map(|part| {
            let (name, _) = part.split_once('}')?;
            (!name.is_empty() && !name.contains(['{', '$'])).then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, purpose: Purpose) -> Vec<TemplateProblem> {
        Template::parse(text, purpose).1
    }

    fn pieces(text: &str) -> Vec<Piece> {
        let (template, problems) = Template::parse(text, Purpose::RoutingKey);
        assert_eq!(problems, []);
        template.pieces().to_vec()
    }

    #[test]
    fn whole_fields_are_named_and_broken_ones_are_none() {
        assert_eq!(fields("a.${b}.${c-d}}"), Some(vec!["b", "c-d"]));
        assert_eq!(fields("no field, $5 {}"), Some(vec![]));
        for broken in ["${", "${a", "${}", "${a${b}", "$${log_dir}/x", "${{a}}"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_text_falls_into_words_fields_and_their_alternatives() {
        let header = |name: &str| Source::Header(name.into());
        let field = |sources: &[Source]| Piece::Field(sources.into());
        assert_eq!(
            pieces("a${node}.${Unique-ID|variable_x|#none}.${header:status}"),
            [
                Piece::Text("a".into()),
                field(&[Source::Node]),
                Piece::Dot,
                field(&[header("Unique-ID"), header("variable_x"), Source::Literal("none".into())]),
                Piece::Dot,
                field(&[header("status")]),
            ]
        );
    }

    #[test]
    fn no_word_of_a_routing_key_is_left_empty() {
        let words = |text| -> String {
            let text = pieces(text).into_iter().map(|piece| match piece {
                Piece::Text(text) => text.into_string(),
                Piece::Dot => ".".into(),
                Piece::Field(_) => "$".into(),
            });
            text.collect()
        };
        assert_eq!(words(".a..b."), "_.a._.b._");
        assert_eq!(words("${node}..${event}"), "$._.$");
        assert_eq!(words("."), "_._");
        assert_eq!(words(""), "_");
    }

    #[test]
    fn an_unknown_field_is_a_problem_with_the_nearest_name() {
        for (text, nearest) in [
            ("${nod}", Some("node")),
            ("${evnt}", Some("event")),
            ("${Node}", Some("node")),
            ("${sub-class}", Some("subclass")),
            ("${subclas}", Some("subclass")),
            ("${caller-context}", Some("Caller-Context")),
            ("${Unique_ID}", Some("Unique-ID")),
            ("${Caler-Context}", Some("Caller-Context")),
            ("${banana}", None),
            ("${node|banana}", None),
        ] {
            let found = problems(text, Purpose::RoutingKey);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].nearest.as_deref(), nearest, "{text}");
        }
    }

    #[test]
    fn any_header_can_be_named() {
        for name in ["X-Tenant", "variable_account_id", "from-user", "header:node", "CC-Queue"] {
            assert_eq!(problems(&format!("${{{name}}}"), Purpose::RecordKey), [], "{name}");
        }
    }

    #[test]
    fn what_could_never_be_filled_in_is_a_problem() {
        for (text, purpose, expected) in [
            ("${#a|node}", Purpose::RecordKey, "never used"),
            ("${node||call}", Purpose::RecordKey, "between the bars"),
            ("${header:}", Purpose::RecordKey, "name of a header"),
            ("${node|#a.b}", Purpose::RoutingKey, "holds a dot"),
            ("a b.${event}", Purpose::Topic, "around the fields"),
            ("fs.${event|#a/b}", Purpose::Topic, "in the name of a topic"),
            (&"${node}".repeat(17), Purpose::RecordKey, "at most 16 fields"),
            (&"x".repeat(256), Purpose::RoutingKey, "more than the 255 of a routing key"),
            (&format!("{}${{node}}", "x".repeat(249)), Purpose::Topic, "more than the 249"),
            (&format!("x.${{node|#{}}}", "x".repeat(253)), Purpose::RoutingKey, "at least 256"),
        ] {
            let found = problems(text, purpose);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].message.contains(expected), "{text}: {found:?}");
        }
    }
}
