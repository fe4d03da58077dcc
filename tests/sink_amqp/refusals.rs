// SPDX-License-Identifier: MIT
//! What an operator has to settle: one clear line each, tried again slowly.

use mod_rustbridge::config::amqp::{AmqpConfig, Auth, Declare};
use mod_rustbridge::config::secret::Secret;
use mod_rustbridge::sink::{Class, Sink, SinkError};

use crate::publisher::{Payload, Publisher, config};
use crate::{pika_does, shared};

/// The error of an open that is refused.
fn refused(config: AmqpConfig) -> SinkError {
    let error = Publisher::new(config).open().unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    error
}

fn assert_says(error: &SinkError, words: &[&str]) {
    let line = error.to_string();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn a_wrong_password_is_refused_without_showing_it() {
    let Some(node) = shared("a_wrong_password_is_refused_without_showing_it") else { return };
    let mut config = config(node.port(), "refused");
    config.brokers[0].password = Secret::Literal("not the one".into());
    let error = refused(config);
    assert_says(&error, &["403", "ACCESS_REFUSED", "\"guest\"", &node.port().to_string()]);
    assert!(!error.to_string().contains("not the one"));
}

#[test]
fn a_password_that_cannot_be_read_is_named_by_its_place() {
    let Some(node) = shared("a_password_that_cannot_be_read_is_named_by_its_place") else { return };
    let mut config = config(node.port(), "refused");
    config.brokers[0].password = Secret::File("/nonexistent/password".into());
    assert_says(&refused(config), &["/nonexistent/password"]);
}

#[test]
fn a_virtual_host_that_is_missing_is_refused() {
    let Some(node) = shared("a_virtual_host_that_is_missing_is_refused") else { return };
    let mut config = config(node.port(), "refused");
    config.brokers[0].vhost = "nowhere".into();
    assert_says(&refused(config), &["530", "nowhere", "virtual host"]);
}

#[test]
fn a_user_without_a_right_to_the_virtual_host_is_refused() {
    let Some(node) = shared("a_user_without_a_right_to_the_virtual_host_is_refused") else {
        return;
    };
    node.ctl(&["add_user", "stranger", "secret"]);
    let mut config = config(node.port(), "refused");
    config.brokers[0].username = "stranger".into();
    config.brokers[0].password = Secret::Literal("secret".into());
    assert_says(&refused(config), &["530", "stranger"]);
}

#[test]
fn a_user_who_may_not_write_is_refused_when_it_publishes() {
    let Some(node) = shared("a_user_who_may_not_write_is_refused_when_it_publishes") else {
        return;
    };
    node.ctl(&["add_user", "reader", "secret"]);
    node.ctl(&["set_permissions", "-p", "/", "reader", ".*", "^$", ".*"]);
    let mut config = config(node.port(), "readonly");
    config.brokers[0].username = "reader".into();
    config.brokers[0].password = Secret::Literal("secret".into());
    let mut publisher = Publisher::connected(config);
    let error = publisher.publish(0..1, |_| Payload::default()).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_says(&error, &["403", "readonly", "permission to write"]);
}

#[test]
fn an_exchange_that_must_be_there_and_is_not_is_refused() {
    let Some(node) = shared("an_exchange_that_must_be_there_and_is_not_is_refused") else { return };
    let mut config = config(node.port(), "missing");
    config.declare = Declare::Passive;
    assert_says(&refused(config), &["404", "missing", "declare to active"]);
}

#[test]
fn an_exchange_of_another_type_is_refused() {
    let Some(node) = shared("an_exchange_of_another_type_is_refused") else { return };
    pika_does(&node, "channel.exchange_declare('other', 'fanout', durable=True)");
    assert_says(&refused(config(node.port(), "other")), &["406", "fanout", "declare to passive"]);
    let mut passive = config(node.port(), "other");
    passive.declare = Declare::Passive;
    Publisher::connected(passive).close();
}

#[test]
fn a_login_that_the_broker_does_not_offer_is_refused() {
    let Some(node) = shared("a_login_that_the_broker_does_not_offer_is_refused") else { return };
    let mut config = config(node.port(), "refused");
    config.auth = Auth::External;
    assert_says(&refused(config), &["EXTERNAL", "rabbitmq_auth_mechanism_ssl", "PLAIN"]);
}

#[test]
fn an_exchange_deleted_meanwhile_is_declared_again() {
    let Some(node) = shared("an_exchange_deleted_meanwhile_is_declared_again") else { return };
    let mut publisher = Publisher::connected(config(node.port(), "deleted"));
    publisher.publish(0..10, |_| Payload::default()).unwrap();
    pika_does(&node, "channel.exchange_delete('deleted')");
    let error = publisher.publish(10..20, |_| Payload::default()).unwrap_err();
    assert_eq!(error.class(), Class::Reconnect);
    assert_says(&error, &["404 NOT_FOUND - no exchange 'deleted' in vhost '/'"]);
    publisher.open().unwrap();
    publisher.publish(10..20, |_| Payload::default()).unwrap();
    assert_eq!(publisher.delivered.len(), 20);
    publisher.close();
}

#[test]
fn an_exchange_that_nobody_declares_is_asked_for_slowly() {
    let Some(node) = shared("an_exchange_that_nobody_declares_is_asked_for_slowly") else { return };
    let mut config = config(node.port(), "undeclared");
    config.declare = Declare::Off;
    let mut publisher = Publisher::connected(config);
    let error = publisher.publish(0..1, |_| Payload::default()).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_says(&error, &["404", "undeclared", "declare to active"]);
}

#[test]
fn only_a_list_that_refuses_as_a_whole_is_refused() {
    let Some(node) = shared("only_a_list_that_refuses_as_a_whole_is_refused") else { return };
    let mut config = config(node.port(), "refused");
    config.brokers[0].vhost = "nowhere".into();
    config.brokers.push(crate::publisher::broker(crate::support::free_port()));
    let mut publisher = Publisher::new(config);
    let error = publisher.open().unwrap_err();
    assert_eq!(error.class(), Class::Reconnect);
    assert_says(&error, &["nowhere", "connection refused"]);
    assert_eq!(publisher.sink.peer(), format!("127.0.0.1:{}", node.port()));
}
