// SPDX-License-Identifier: MIT
//! `rustbridge_publish`: a message from the dialplan or from an application.
//!
//! `[^^<delimiter>][sink=<name>] <exchange or topic> <routing key> <payload> [headers]`
//!
//! Arguments are separated by spaces, or by the character after `^^`, as elsewhere in FreeSWITCH.
//! With spaces, quotes keep an argument together, and a payload that begins with `{` or `[` reaches
//! to the bracket that closes it, so that JSON needs no quotes. `-` stands for the configured
//! exchange or topic, or for no key. A payload `@var:name` is the value of that channel variable.
//! Headers are `name=value` pairs with `;` between them.

use crate::codec::Outgoing;
use crate::event::{Class, EventKind, Record};
use crate::switch::Session;

/// How the command is used.
pub(super) const SYNTAX: &std::ffi::CStr =
    c"[sink=<name>] <exchange|topic|-> <routing-key|-> <payload|@var:name> [name=value;...]";

/// A message that was asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Request {
    pub(super) sink: Option<String>,
    destination: String,
    key: String,
    payload: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads the arguments. `variable` looks a channel variable up.
    ///
    /// # Errors
    ///
    /// Says which argument is missing or cannot be read, and how the command is used.
    pub(super) fn parse(
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut arguments = split(text)?.into_iter().peekable();
        let mut request = Self::default();
        if let Some(sink) = arguments.peek().and_then(|word| word.strip_prefix("sink=")) {
            request.sink = Some(sink.to_owned());
            arguments.next();
        }
        let mut next = |what: &str| {
            arguments.next().ok_or_else(|| {
                format!("{what} is missing; usage: rustbridge_publish {}", SYNTAX.to_string_lossy())
            })
        };
        let or_none = |word: String| if word == "-" { String::new() } else { word };
        request.destination = or_none(next("the exchange or topic")?);
        request.key = or_none(next("the routing key")?);
        if request.key.len() > crate::codec::key::KEY_MAX {
            return Err(format!(
                "the routing key has {} bytes, more than the 255 that AMQP carries",
                request.key.len()
            ));
        }
        request.payload = next("the payload")?;
        if let Some(name) = request.payload.strip_prefix("@var:") {
            request.payload = variable(name)
                .ok_or_else(|| format!("the call has no channel variable {name:?} to publish"))?;
        }
        if let Ok(headers) = next("") {
            request.headers = read_headers(&headers)?;
        }
        if let Some(surplus) = arguments.next() {
            return Err(format!(
                "{surplus:?} is one argument too many; quote a payload that has spaces"
            ));
        }
        Ok(request)
    }

    /// The message as a record of its own kind.
    pub(super) fn record(&self) -> Record {
        let mut record = Record::with_capacity(self.payload.len() + 256);
        record.begin(EventKind::PUBLISH, Class::Normal, None);
        for (name, value) in
            [(Outgoing::PUBLISH_DESTINATION, &self.destination), (Outgoing::PUBLISH_KEY, &self.key)]
        {
            record.header(name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.headers {
            record.header(name.as_bytes(), value.as_bytes());
        }
        record.body(self.payload.as_bytes());
        record
    }
}

/// Looks a variable of the call up, when there is a call.
pub(super) fn variable_of(session: Option<&Session<'_>>) -> impl Fn(&str) -> Option<String> {
    move |name| session?.variable(name)
}

fn read_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{pair:?} is not a header: write name=value;name=value")),
        })
        .collect()
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("^^") {
        let Some(delimiter) = rest.chars().next() else {
            return Err("^^ needs a delimiter behind it, such as ^^|".into());
        };
        let rest = rest.strip_prefix(delimiter).unwrap_or_default();
        return Ok(rest.split(delimiter).map(|word| word.trim().to_owned()).collect());
    }
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' | '"' => quoted(rest, first)?,
            '{' | '[' => bracketed(rest)?,
            _ => {
                let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (word.to_owned(), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The text between the quotes that `text` begins with, `\` before a quote or a `\` taken away.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, character)) = chars.next() {
        if character == quote {
            return Ok((word, text.get(at + 1..).unwrap_or_default()));
        }
        if character == '\\' {
            match chars.next() {
                Some((_, escaped)) if escaped == quote || escaped == '\\' => word.push(escaped),
                Some((_, other)) => word.extend(['\\', other]),
                None => break,
            }
        } else {
            word.push(character);
        }
    }
    Err(format!("a quote {quote} is opened and never closed"))
}

/// The JSON value that `text` begins with, to the bracket that closes it.
fn bracketed(text: &str) -> Result<(String, &str), String> {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    let (word, rest) = text.split_at_checked(at + 1).unwrap_or((text, ""));
                    return Ok((word.to_owned(), rest));
                }
            }
            _ => {}
        }
    }
    Err("a bracket of the payload is opened and never closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(text, |name| (name == "json").then(|| "{\"a\": 1}".to_owned()))
    }

    #[test]
    fn json_needs_no_quotes() {
        let request = parse(r#"calls call.new {"to": "a } b", "n": [1, 2]} x=1;y=z"#).unwrap();
        assert_eq!(request.destination, "calls");
        assert_eq!(request.key, "call.new");
        assert_eq!(request.payload, r#"{"to": "a } b", "n": [1, 2]}"#);
        assert_eq!(request.headers, [("x".into(), "1".into()), ("y".into(), "z".into())]);
    }

    #[test]
    fn a_delimiter_of_ones_own_and_quotes_keep_spaces() {
        let expected = parse("sink=a e k 'hello world'").unwrap();
        assert_eq!(parse("^^|sink=a|e|k|hello world").unwrap(), expected);
        assert_eq!(expected.sink.as_deref(), Some("a"));
        assert_eq!(expected.payload, "hello world");
    }

    #[test]
    fn the_payload_may_be_a_channel_variable() {
        assert_eq!(parse("e k @var:json").unwrap().payload, "{\"a\": 1}");
        assert!(parse("e k @var:none").unwrap_err().contains("\"none\""));
    }

    #[test]
    fn what_cannot_be_read_is_said_in_one_line() {
        for (text, word) in [
            ("", "exchange"),
            ("e", "routing key"),
            ("e k", "payload"),
            ("e k 'open", "never closed"),
            ("e k {\"a\": 1", "never closed"),
            ("e k p h", "name=value"),
            ("e k p a=b more", "too many"),
            ("^^", "delimiter"),
        ] {
            let words = parse(text).unwrap_err();
            assert!(words.contains(word) && !words.contains('\n'), "{text:?}: {words}");
        }
        let long = format!("e {} p", "k".repeat(256));
        assert!(parse(&long).unwrap_err().contains("255"));
    }
}
