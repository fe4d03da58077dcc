// SPDX-License-Identifier: MIT
//! What only an operator can mend: said in one clear line, and over once it is mended.

use std::path::PathBuf;
use std::time::Duration;

use mod_rustbridge::config::kafka::{KafkaConfig, Sasl, SaslMechanism, SecurityProtocol};
use mod_rustbridge::config::secret::Secret;
use mod_rustbridge::sink::{Class, Outcome, Sink, SinkError};

use crate::broker::{Broker, available, wait_for};
use crate::driver::{Driver, config, event, published};

/// The line with which the sink refuses, at `open` or soon after.
fn refusal(config: KafkaConfig) -> String {
    let mut driver = Driver::new(config);
    let error = match driver.open() {
        Err(error) => error,
        Ok(()) => driver.poll_until("a refusal", |_, _| false).unwrap_err(),
    };
    assert_eq!(error.class(), Class::Refused, "{error}");
    // And it is closed: nothing it holds is sent behind the publisher's back.
    let closed = driver.sink.poll(Duration::ZERO, &mut Vec::new()).unwrap_err();
    assert!(matches!(closed, SinkError::Disconnected { .. }), "{closed}");
    error.to_string()
}

fn delivers(config: KafkaConfig) {
    let mut driver = Driver::opened(config);
    let report = driver.publish(&[event(0, "call", 10)], |_| {});
    driver.close();
    assert_eq!((report.delivered.len(), report.reopened.len()), (1, 0), "{report:?}");
}

#[test]
fn a_missing_topic_is_refused_until_somebody_creates_it() {
    if !available() {
        return;
    }
    let broker = Broker::start("topic", "auto.create.topics.enable=false");
    let configured = || config(&broker.plaintext(), "fs.events");
    let line = refusal(configured());
    assert!(line.contains("topic \"fs.events\" does not exist"), "{line}");
    assert!(line.contains(&broker.plaintext()) && line.contains("create it"), "{line}");

    broker.create_topic("fs.events", &[]);
    let mut driver = Driver::opened(configured());
    let records =
        [event(0, "call", 10), published("no.such.topic", "k", &[], "x"), event(1, "call", 10)];
    let report = driver.publish(&records, |_| {});
    driver.close();
    assert_eq!(report.delivered, [0, 2], "{report:?}");
    assert!(report.rejected[0].1.contains("topic \"no.such.topic\" does not exist"), "{report:?}");
    assert_eq!(report.reopened, [""; 0]);
}

#[test]
fn a_topic_that_goes_away_is_refused_while_running_and_nothing_is_lost() {
    if !available() {
        return;
    }
    let broker = Broker::start("gone", "auto.create.topics.enable=false");
    broker.create_topic("fs.events", &[]);
    let config = config(&broker.plaintext(), "fs.events");
    let mut driver = Driver::opened(config);
    let report = driver.publish(&[event(0, "call", 10)], |_| {});
    assert_eq!(report.delivered, [0]);
    broker.delete_topic("fs.events");
    driver.send(1, &event(1, "call", 10), 1).unwrap();
    let error = driver.poll_until("the topic to be missed", |_, _| false).unwrap_err();
    assert_eq!(error.class(), Class::Reconnect, "{error}");
    let error = driver.open().unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(error.to_string().contains("does not exist"), "{error}");

    broker.create_topic("fs.events", &[]);
    wait_for("the topic to be back", || driver.open().is_ok());
    let report = driver.publish(&[event(1, "call", 10)], |_| {});
    driver.close();
    assert_eq!(report.delivered, [0], "{report:?}");
    assert_eq!(broker.read("fs.events").len(), 1);
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_works() {
    if !available() {
        return;
    }
    let broker = Broker::start("login", "");
    let login = |password: &str| {
        let mut config = config(&broker.sasl(), "fs.events");
        config.security_protocol = SecurityProtocol::SaslPlaintext;
        config.sasl = Some(Sasl {
            mechanism: SaslMechanism::Plain,
            username: "fs1".to_owned(),
            password: Secret::Literal(password.to_owned()),
        });
        config
    };
    let line = refusal(login("hunter2"));
    assert!(line.contains("Authentication failed"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    delivers(login("right"));
}

#[test]
fn a_broker_of_another_authority_is_refused_and_the_right_authority_works() {
    if !available() {
        return;
    }
    let broker = Broker::start("tls", "");
    let with_ca = |ca: &str| {
        let mut config = config(&broker.tls(), "fs.events");
        config.security_protocol = SecurityProtocol::Ssl;
        config.tls.ca_file = Some(ca.into());
        config
    };
    let line = refusal(with_ca(&broker.other_ca()));
    assert!(line.contains("certificate verify failed"), "{line}");
    let line = refusal(with_ca("/nonexistent/ca.pem"));
    assert!(line.contains("ssl.ca.location") && line.contains("/nonexistent/ca.pem"), "{line}");
    delivers(with_ca(&broker.ca()));
}

#[test]
fn a_broker_with_a_revoked_certificate_is_refused_and_a_list_without_it_works() {
    if !available() {
        return;
    }
    let broker = Broker::start("revoked", "");
    let with_list = |list: PathBuf| {
        let mut config = config(&broker.tls(), "fs.events");
        config.security_protocol = SecurityProtocol::Ssl;
        config.tls.ca_file = Some(broker.ca().into());
        config.tls.crl_file = Some(list);
        config
    };
    for name in ["revoked", "other"] {
        let line = refusal(with_list(broker.list(name)));
        let file = format!("by tls-crl-file {} it may also be", broker.list(name).display());
        assert!(line.contains("certificate verify failed") && line.contains(&file), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    let line = refusal(with_list("/nonexistent/crl".into()));
    assert!(line.contains("tls-crl-file /nonexistent/crl cannot be read: No such file"), "{line}");
    let line = refusal(with_list(broker.ca().into()));
    assert!(line.contains("ca.pem holds more than lists of revoked certificates"), "{line}");
    delivers(with_list(broker.list("none")));
}

#[test]
fn a_listener_that_does_not_speak_kafka_is_a_state_and_not_a_hang() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut driver = Driver::new(config(&address, "fs.events"));
    let interrupt = driver.interrupt.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                if interrupt.is_raised() {
                    return;
                }
                let _written = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        driver.open().unwrap();
        driver.send(0, &event(0, "call", 10), 0).unwrap();
        let outcomes: Vec<Outcome> = driver
            .poll_until("the state", |_, sink| {
                sink.degraded().is_some_and(|state| state.contains("are down"))
            })
            .unwrap();
        assert_eq!(outcomes, []);
        driver.interrupt.raise();
        driver.close();
        drop(std::net::TcpStream::connect(&address));
    });
}
