// SPDX-License-Identifier: MIT
//! TLS: what is accepted, and one clear line for what is not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mod_rustbridge::config::amqp::{AmqpConfig, Auth};
use mod_rustbridge::config::secret::Secret;
use mod_rustbridge::config::tls::ClientCertificate;
use mod_rustbridge::sink::Class;

use crate::own;
use crate::publisher::{PATIENCE, Payload, Publisher, config};
use crate::support::certificates::{Authority, Certificate};
use crate::support::clients::Consumer;
use crate::support::process::Leashed;
use crate::support::rabbitmq::RabbitMqOptions;
use crate::support::{Folder, free_port, wait_until};

fn secured(port: u16, authority: &Authority) -> AmqpConfig {
    let mut config = config(port, "secured");
    config.brokers[0].tls = true;
    config.tls.ca_file = Some(authority.certificate());
    config
}

fn shown(certificate: &Certificate) -> ClientCertificate {
    ClientCertificate {
        cert_file: certificate.file.clone(),
        key_file: certificate.key.clone(),
        key_password: None,
    }
}

/// The line with which an open is refused.
fn refused(config: AmqpConfig) -> String {
    let error = Publisher::new(config).open().unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

fn assert_refused(config: AmqpConfig, words: &[&str]) {
    let line = refused(config);
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[test]
fn messages_go_over_tls_and_what_does_not_fit_is_told() {
    let test = "messages_go_over_tls_and_what_does_not_fit_is_told";
    let authority = Authority::new();
    let server = authority.sign("server", &["DNS:localhost", "IP:127.0.0.1"], 2);
    let options = RabbitMqOptions {
        tls: Some((authority.certificate(), server.clone())),
        ..RabbitMqOptions::default()
    };
    let Some(node) = own(test, &options) else { return };
    let mut consumer = Consumer::amqp(&node.url(), "secured", "#", None);

    for host in ["127.0.0.1", "localhost"] {
        let mut fitting = secured(node.tls_port(), &authority);
        fitting.brokers[0].host = host.into();
        let mut publisher = Publisher::connected(fitting);
        let large = |number: u64| Payload {
            filling: if number == 7 { 400_000 } else { 3000 },
            ..Payload::default()
        };
        publisher.publish(0..3000, large).unwrap();
        assert_eq!(publisher.delivered.len(), 3000);
        publisher.close();
    }
    let messages = consumer.wait_count(6000, PATIENCE);
    assert!(
        (0_u64..6000).zip(&messages).all(|(n, message)| message.number("seq") == Some(n % 3000))
    );

    let stranger = Authority::new();
    assert_refused(secured(node.tls_port(), &stranger), &["no authority", "tls-ca-file"]);

    let mut named = secured(node.tls_port(), &authority);
    named.tls.server_name = Some("broker.example".into());
    assert_refused(named, &["broker.example", "tls-server-name"]);

    let mut unverified = secured(node.tls_port(), &stranger);
    unverified.tls.verify = false;
    Publisher::connected(unverified).close();

    let listed = |file: PathBuf| {
        let mut config = secured(node.tls_port(), &authority);
        config.tls.crl_file = Some(file);
        config
    };
    Publisher::connected(listed(authority.list("none", &[]))).close();
    let other = authority.sign("other", &[], 2);
    Publisher::connected(listed(authority.list("other", &[&other]))).close();
    let revoked = listed(authority.list("revoked", &[&other, &server]));
    assert_refused(revoked, &["is revoked by tls-crl-file", "revoked.crl", "a new one"]);
    // Whether it is revoked, nobody knows.
    let another = Authority::named("another authority");
    let foreign = another.list("foreign", &[]);
    let read = |file: &PathBuf| fs::read_to_string(file).unwrap();
    let mixed = read(&foreign) + &read(&authority.list_that_is_over("over"));
    assert_refused(listed(foreign), &["foreign.crl holds no list of the authority", "add it"]);
    let folder = Folder::new("lists");
    assert_refused(listed(folder.write("mixed.crl", mixed)), &["mixed.crl holds an expired list"]);
    let forged = stranger.list("forged", &[]);
    assert_refused(listed(forged), &["forged.crl holds a list in the name", "not signed by it"]);

    let mut plain = secured(node.port(), &authority);
    plain.brokers[0].port = node.port();
    assert_refused(plain, &["does not answer with TLS", "5671"]);

    let error = Publisher::new(config(node.tls_port(), "secured")).open().unwrap_err();
    assert!(
        error.to_string().contains("amqps://") || error.to_string().contains("closed"),
        "{error}"
    );
}

#[test]
fn files_that_do_not_fit_are_named() {
    let authority = Authority::new();
    // Files are read once there is a connection; nothing has to answer on it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = Folder::new("tls");
    let [one, other] = ["one", "other"].map(|name| authority.sign(name, &[], 2));
    let old = authority.sign("old", &[], -1);

    let mut missing = secured(port, &authority);
    missing.tls.ca_file = Some("/nonexistent/ca.pem".into());
    assert_refused(missing, &["tls-ca-file /nonexistent/ca.pem", "No such file"]);

    let mut empty = secured(port, &authority);
    empty.tls.ca_file = Some(folder.write("empty.pem", ""));
    assert_refused(empty, &["tls-ca-file", "empty.pem", "no certificate"]);

    let listed = |file: PathBuf| {
        let mut config = secured(port, &authority);
        config.tls.crl_file = Some(file);
        config
    };
    assert_refused(
        listed("/nonexistent/crl".into()),
        &["tls-crl-file /nonexistent/crl", "No such"],
    );
    assert_refused(
        listed(folder.write("none.crl", "")),
        &["tls-crl-file", "none.crl holds no list"],
    );
    assert_refused(listed(authority.certificate()), &["tls-crl-file", "ca.pem holds more than"]);
    let over = listed(authority.list_that_is_over("over"));
    assert_refused(over, &["tls-crl-file", "over.crl expired on Feb  1", "newest"]);

    let mut absent = secured(port, &authority);
    absent.tls.client = Some(shown(&one));
    fs::remove_file(&one.key).unwrap();
    assert_refused(absent, &["tls-key-file", "one.key"]);

    let mut mixed = secured(port, &authority);
    mixed.tls.client = Some(shown(&Certificate { key: old.key.clone(), ..other.clone() }));
    assert_refused(mixed, &["old.key", "does not belong", "other.pem"]);

    let mut expired = secured(port, &authority);
    expired.tls.client = Some(shown(&old));
    assert_refused(expired, &["old.pem", "expired"]);

    let locked = folder.join("locked.key");
    let made = Command::new("openssl")
        .args(["rsa", "-aes256", "-passout", "pass:opensesame", "-in"])
        .args([&other.key])
        .arg("-out")
        .arg(&locked)
        .output()
        .unwrap();
    assert!(made.status.success());
    let with_password = |password: Option<&str>| {
        let mut config = secured(port, &authority);
        config.tls.client = Some(ClientCertificate {
            cert_file: other.file.clone(),
            key_file: locked.clone(),
            key_password: password.map(|password| Secret::Literal(password.into())),
        });
        config
    };
    assert_refused(with_password(None), &["locked.key is encrypted", "tls-key-password"]);
    let wrong = refused(with_password(Some("swordfish")));
    assert!(wrong.contains("does not open") && !wrong.contains("swordfish"), "{wrong}");
    let mut right = with_password(Some("opensesame"));
    right.connect_timeout = std::time::Duration::from_millis(200);
    // The files fit, so now it is the silence that counts.
    let error = Publisher::new(right).open().unwrap_err();
    assert!(error.to_string().contains("TLS handshake"), "{error}");
}

#[test]
fn a_certificate_that_has_expired_is_told() {
    let authority = Authority::new();
    let old = authority.sign("expired", &["IP:127.0.0.1"], -1);
    let port = free_port();
    let folder = Folder::new("expired");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &port.to_string(), "-cert"]).arg(&old.file);
    command.arg("-key").arg(&old.key);
    let _server = Leashed::start(&command, &folder.join("out"));
    wait_until(PATIENCE, "openssl s_server", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert_refused(secured(port, &authority), &["expired"]);
}

#[test]
fn a_certificate_of_ours_logs_in() {
    let test = "a_certificate_of_ours_logs_in";
    let authority = Authority::new();
    let server = authority.sign("server", &["IP:127.0.0.1"], 2);
    let options = RabbitMqOptions {
        tls: Some((authority.certificate(), server)),
        require_client: true,
        configuration: "auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nssl_cert_login_from = common_name"
            .into(),
        plugins: vec!["rabbitmq_auth_mechanism_ssl"],
    };
    let Some(node) = own(test, &options) else { return };
    node.add_user("switch", "unused", "/");
    let ours = authority.sign("switch", &[], 2);
    let mut external = secured(node.tls_port(), &authority);
    external.auth = Auth::External;
    external.brokers[0].password = Secret::File("/nonexistent/unused".into());
    external.tls.client = Some(shown(&ours));
    let mut publisher = Publisher::connected(external.clone());
    publisher.publish(0..100, |_| Payload::default()).unwrap();
    let users = node.ctl(&["list_connections", "user", "auth_mechanism"]);
    assert!(users.contains("switch") && users.contains("EXTERNAL"), "{users}");
    publisher.close();

    // Nobody's name.
    let mut unknown = external.clone();
    unknown.tls.client = Some(shown(&authority.sign("nobody", &[], 2)));
    assert_refused(unknown, &["403", "certificate"]);

    // No certificate where one is required.
    assert_refused(secured(node.tls_port(), &authority), &["client certificate"]);

    // One of an authority that the broker does not trust.
    let mut foreign = external;
    let untrusted = Authority::new();
    foreign.tls.client = Some(shown(&untrusted.sign("switch", &[], 2)));
    assert_refused(foreign, &["client certificate"]);
}
