// SPDX-License-Identifier: MIT
//! The block `<librdkafka>`: properties for the client library, as it names them.
//!
//! Which properties there are and what they may be, the library alone knows; the sink asks it.
//! Here is only what it would accept and what would yet be wrong.

use crate::config::{
    error::Problem, kafka::PropertyValue, params::Params, secret::Secret, section::Section,
};

/// Longest value: certificates in a property are a few kilobytes.
const MAX_VALUE: usize = 64 * 1024;

/// Properties that a parameter sets, with that parameter.
const OWN: &[(&str, &str)] = &[
    ("bootstrap.servers", "bootstrap-servers"),
    ("metadata.broker.list", "bootstrap-servers"),
    ("client.id", "client-id"),
    ("compression.codec", "compression"),
    ("compression.type", "compression"),
    ("delivery.timeout.ms", "message-timeout-ms"),
    ("message.timeout.ms", "message-timeout-ms"),
    ("queue.buffering.max.messages", "in-flight-max"),
    ("security.protocol", "security-protocol"),
    ("sasl.mechanism", "sasl-mechanism"),
    ("sasl.mechanisms", "sasl-mechanism"),
    ("sasl.username", "sasl-username"),
    ("sasl.password", "sasl-password"),
    ("ssl.ca.location", "tls-ca-file"),
    ("ssl.crl.location", "tls-crl-file"),
    ("ssl.certificate.location", "tls-cert-file"),
    ("ssl.key.location", "tls-key-file"),
    ("ssl.key.password", "tls-key-password"),
    ("enable.ssl.certificate.verification", "tls-verify"),
];

/// Properties that can't be used, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("transactional.id", "events are produced outside of transactions"),
    ("log.queue", "the sink sets it, to get the library's log lines"),
];

/// Reads the block of a sink, if it has one.
pub(super) fn read(
    params: &mut Params<'_>,
    block: Option<&Section>,
    allow_unsafe: bool,
) -> Vec<(String, PropertyValue)> {
    let Some(block) = block else { return Vec::new() };
    let place = params.place().inside("librdkafka");
    for (name, _) in &block.attributes {
        params.note(Problem::new(&place, "expected no attributes").found(name));
    }
    for child in &block.children {
        params.note(Problem::new(&place, "expected nothing but <param>").found(&child.name));
    }
    let (pairs, problems) = Params::new(place.clone(), &block.params).into_pairs();
    for problem in problems {
        params.note(problem);
    }
    let mut properties = Vec::new();
    for (name, value) in pairs {
        match property(name, value, allow_unsafe) {
            Ok(value) => properties.push((name.to_owned(), value)),
            Err(why) => params.note(Problem::new(&place, why).parameter(name)),
        }
    }
    properties
}

fn property(name: &str, value: &str, allow_unsafe: bool) -> Result<PropertyValue, String> {
    let name_is_sound = (1..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !name_is_sound {
        return Err("expected the name of a property, like linger.ms".to_owned());
    }
    if let Some((_, parameter)) = OWN.iter().find(|(own, _)| *own == name) {
        return Err(format!("the sink's own parameter {parameter} sets it: use that"));
    }
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("can't be used: {why}"));
    }
    if value.len() > MAX_VALUE || value.contains('\0') {
        return Err(format!("expected at most {MAX_VALUE} bytes without NUL"));
    }
    if let Some(why) = danger(name, value).filter(|_| !allow_unsafe) {
        return Err(format!("{why}: only with allow-unsafe-delivery"));
    }
    if !is_sensitive(name) {
        return Ok(PropertyValue::Plain(value.to_owned()));
    }
    match Secret::parse(value) {
        Some(secret) => Ok(PropertyValue::Secret(secret)),
        None => Err("expected env:NAME, file:/PATH or the secret itself".to_owned()),
    }
}

/// Says what a property would cost, if it weakens what keeps events complete and in order.
fn danger(name: &str, value: &str) -> Option<&'static str> {
    let is_off = !matches!(value, "true" | "t" | "1");
    match name {
        "acks" | "request.required.acks" if !matches!(value, "all" | "-1") => {
            Some("acknowledgements of fewer than all replicas lose events when a broker is lost")
        }
        "enable.idempotence" if is_off => Some("without it a retry can duplicate and reorder"),
        "retries" | "message.send.max.retries" => {
            Some("bounded retries give up events that the cluster would have taken")
        }
        "queuing.strategy" if value != "fifo" => {
            Some("any order but fifo reorders a call's events")
        }
        "partitioner" if value == "random" => Some("a call's events would lose their order"),
        _ => None,
    }
}

/// Returns whether the value of a property must not be shown.
fn is_sensitive(name: &str) -> bool {
    const WORDS: [&str; 5] = ["password", "secret", "key.pem", "token", "oauthbearer.config"];
    WORDS.iter().any(|word| name.contains(word)) && name != "sasl.oauthbearer.token.endpoint.url"
}
