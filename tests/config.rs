// SPDX-License-Identifier: MIT
//! Configurations as people write them, rightly and wrongly.

#![allow(clippy::expect_used, clippy::panic, reason = "a helper of a test fails by panicking")]

#[path = "support/xml.rs"]
mod xml;

use std::{path::Path, time::Duration};

use mod_rustbridge::{
    config::{
        Config, Known, Problem, SinkConfig, SinkKind,
        amqp::{AmqpConfig, AmqpUrl, Auth, Declare},
        delivery::{Fsync, SpoolMode, WhenFull},
        kafka::{KafkaConfig, PropertyValue, SecurityProtocol},
        secret::Secret,
    },
    event::{Class, names::EVENTS},
};

const KNOWN: Known<'static> =
    Known { events: EVENTS, amqp: true, kafka: true, kafka_problems: |_| Vec::new() };

const PATH: &str = r#"<param name="path" value="/tmp/events.ndjson"/>"#;
const URL: &str = r#"<param name="url" value="amqp://h"/>"#;
const TLS_URL: &str = r#"<param name="url" value="amqps://h"/>"#;
const SERVERS: &str = r#"<param name="bootstrap-servers" value="h:9092"/>"#;

fn read(text: &str) -> Result<Config, Vec<Problem>> {
    Config::read(&xml::section(text), &KNOWN).map_err(|error| error.problems)
}

fn sink_text(sink_type: &str, params: &str) -> String {
    format!(
        "<configuration><sinks><sink name=\"s\" type=\"{sink_type}\">{params}</sink></sinks></configuration>"
    )
}

fn sink(sink_type: &str, params: &str) -> SinkConfig {
    read(&sink_text(sink_type, params)).expect("it is valid").sinks.remove(0)
}

fn amqp(params: &str) -> AmqpConfig {
    match sink("amqp", params).kind {
        SinkKind::Amqp(amqp) => amqp,
        other => panic!("{other:?}"),
    }
}

fn kafka(params: &str) -> KafkaConfig {
    match sink("kafka", params).kind {
        SinkKind::Kafka(kafka) => kafka,
        other => panic!("{other:?}"),
    }
}

fn param(name: &str, value: &str) -> String {
    format!("<param name=\"{name}\" value=\"{value}\"/>")
}

fn lines(text: &str) -> Vec<String> {
    read(text).expect_err("it is wrong").iter().map(ToString::to_string).collect()
}

/// What is wrong with a sink of this type that has `params`, `name=value` with spaces between.
fn wrong(sink_type: &str, params: &str) -> Vec<String> {
    let required = match sink_type {
        _ if params.contains("path=") || params.contains("url=") => "",
        "amqp" => URL,
        "kafka" => SERVERS,
        _ => PATH,
    };
    let pairs = params.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').expect("name=value");
        param(name, value)
    });
    lines(&sink_text(sink_type, &(required.to_owned() + &pairs.collect::<String>())))
}

#[test]
fn the_example_of_the_documentation_is_read_as_it_is_meant() {
    let config = read(
        r#"<configuration name="rustbridge.conf" description="Events to Kafka, RabbitMQ and files">
          <settings>
            <param name="node-name" value="fs1"/>
            <param name="shutdown-timeout-ms" value="5000"/>
          </settings>
          <sinks>
            <sink name="journal" type="file" events="ALL">
              <param name="path" value="/var/log/freeswitch/rustbridge/events-${date}.ndjson"/>
            </sink>
            <sink name="rabbit" type="amqp" events="CHANNEL_* CUSTOM sofia::register">
              <param name="url" value="amqp://127.0.0.1:5672/%2f"/>
              <param name="username" value="fs1"/>
              <param name="password" value="env:RABBIT_PASSWORD"/>
              <param name="exchange" value="rustbridge.events"/>
            </sink>
            <sink name="stream" type="kafka" events="ALL !RE_SCHEDULE">
              <param name="bootstrap-servers" value="127.0.0.1:9092"/>
              <param name="topic" value="fs.events"/>
              <param name="queue-capacity" value="65536"/>
              <librdkafka><param name="linger.ms" value="5"/></librdkafka>
            </sink>
          </sinks>
        </configuration>"#,
    )
    .expect("it is valid");
    assert_eq!(config.node_name.as_deref(), Some("fs1"));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(5));
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["journal", "rabbit", "stream"]);
    let [_, rabbit, stream] = config.sinks.as_slice() else { panic!() };
    assert!(rabbit.events.wants("CUSTOM", Some(b"sofia::register")));
    assert!(!rabbit.events.wants("DTMF", None));
    let SinkKind::Amqp(amqp) = &rabbit.kind else { panic!() };
    assert_eq!(amqp.brokers[0].peer(), "127.0.0.1:5672");
    assert_eq!(amqp.brokers[0].vhost, "/");
    assert_eq!(amqp.brokers[0].username, "fs1");
    assert_eq!(amqp.brokers[0].password, Secret::Env("RABBIT_PASSWORD".to_owned()));
    assert!(!stream.events.wants("RE_SCHEDULE", None));
    let SinkKind::Kafka(kafka) = &stream.kind else { panic!() };
    assert_eq!(kafka.properties, [("linger.ms".to_owned(), PropertyValue::Plain("5".to_owned()))]);
}

#[test]
fn a_sink_has_safe_defaults() {
    let sink = sink("file", PATH);
    assert_eq!(sink.queue.capacity.get(), 65_536);
    assert_eq!(sink.queue.max_bytes, 256 << 20);
    assert_eq!(sink.queue.when_full, WhenFull::Spool);
    assert_eq!(sink.spool.mode, SpoolMode::Overflow);
    assert_eq!(sink.spool.fsync, Fsync::Interval(Duration::from_millis(100)));
    assert_eq!(sink.spool.max_bytes, 1 << 30);
    assert!(sink.enabled);
    let class = |event| sink.classes.class_of(event, None);
    assert_eq!(class("CHANNEL_HANGUP_COMPLETE"), Class::Critical);
    assert_eq!(class("CHANNEL_ANSWER"), Class::Normal);
    assert_eq!(class("HEARTBEAT"), Class::Bulk);
    assert_eq!(sink.classes.class_of("CUSTOM", Some(b"conference::cdr")), Class::Critical);
    assert_eq!(sink.classes.class_of("CUSTOM", Some(b"fifo::info")), Class::Normal);
    let percents = [Class::Critical, Class::Normal, Class::Bulk].map(|c| sink.classes.percent(c));
    assert_eq!(percents, [100, 90, 50]);
    // Or else a broker that is back is not used at once.
    assert!(sink.reconnect.max <= Duration::from_millis(400));
}

#[test]
fn without_a_spool_a_full_queue_drops_the_newest() {
    let sink = sink("file", &(PATH.to_owned() + &param("spool-mode", "off")));
    assert_eq!(sink.queue.when_full, WhenFull::DropNewest);
}

#[test]
fn a_small_spool_has_small_segments_unless_it_is_told_otherwise() {
    let segment = |params: &str| sink("file", &(PATH.to_owned() + params)).spool.segment_bytes;
    assert_eq!(segment(""), 64 << 20);
    let small = param("spool-max-bytes", "4194304");
    assert_eq!(segment(&small), 1 << 19);
    // Without a spool it need not hold an event either.
    let least = param("spool-max-bytes", "65536") + &param("spool-mode", "off");
    assert_eq!(segment(&least), 1 << 16);
    assert_eq!(segment(&(small + &param("spool-segment-bytes", "1048576"))), 1 << 20);
}

#[test]
fn a_class_may_have_no_events() {
    let classes = sink("file", &(PATH.to_owned() + &param("bulk-events", ""))).classes;
    assert!(classes.bulk.is_empty());
    assert_eq!(classes.class_of("HEARTBEAT", None), Class::Normal);
}

#[test]
fn defaults_suit_a_freeswitch_that_lacks_some_of_their_events() {
    let known = Known { events: &["CHANNEL_CREATE", "CUSTOM"], ..KNOWN };
    let config = Config::read(&xml::section(&sink_text("file", PATH)), &known);
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn a_failover_list_keeps_its_order_and_each_its_user() {
    let urls = "amqp://a:secret1@h1/v, amqp://b:secret2@[::1]:1234";
    let config = amqp(&param("url", urls));
    let peers: Vec<_> = config.brokers.iter().map(AmqpUrl::peer).collect();
    assert_eq!(peers, ["h1:5672", "[::1]:1234"]);
    assert_eq!(config.brokers[1].username, "b");
    assert_eq!(config.brokers[1].password, Secret::Literal("secret2".to_owned()));
    let shown = format!("{config:?}");
    assert!(shown.contains("h1:5672") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_user_may_stand_in_the_url_and_its_password_elsewhere() {
    let config = amqp(&(param("url", "amqp://fs@h") + &param("password", "file:/run/secrets/p")));
    assert_eq!(config.brokers[0].username, "fs");
    assert_eq!(config.brokers[0].password, Secret::File("/run/secrets/p".into()));
}

#[test]
fn who_names_no_user_is_guest() {
    let config = amqp(URL);
    assert_eq!(config.brokers[0].username, "guest");
    assert_eq!(config.brokers[0].password, Secret::Literal("guest".to_owned()));
}

#[test]
fn a_certificate_can_be_the_login() {
    let tls =
        param("tls-cert-file", "/c") + &param("tls-key-file", "/k") + &param("auth", "external");
    let config = amqp(&(TLS_URL.to_owned() + &tls));
    assert_eq!(config.auth, Auth::External);
    assert!(config.brokers[0].tls && config.brokers[0].port == 5671);
    assert!(config.tls.client.is_some() && config.tls.verify);
}

#[test]
fn the_default_exchange_is_used_without_declaring_it() {
    let config = amqp(&(URL.to_owned() + &param("exchange", "") + &param("declare", "off")));
    assert_eq!((config.exchange.as_str(), config.declare), ("", Declare::Off));
}

#[test]
fn the_message_timeout_fits_the_spool() {
    assert_eq!(kafka(SERVERS).message_timeout, None);
    let off = SERVERS.to_owned() + &param("spool-mode", "off");
    assert_eq!(kafka(&off).message_timeout, Some(Duration::from_secs(300)));
    assert_eq!(kafka(&(off.clone() + &param("message-timeout-ms", "0"))).message_timeout, None);
    let some = Some(Duration::from_secs(9));
    assert_eq!(kafka(&(off + &param("message-timeout-ms", "9000"))).message_timeout, some);
    assert_eq!(
        kafka(&(SERVERS.to_owned() + &param("message-timeout-ms", "0"))).message_timeout,
        None
    );
}

#[test]
fn a_login_over_tls_has_all_it_needs() {
    let text = SERVERS.to_owned()
        + &param("security-protocol", "sasl_ssl")
        + &param("sasl-mechanism", "SCRAM-SHA-512")
        + &param("sasl-username", "u")
        + &param("sasl-password", "hunter2")
        + &param("tls-ca-file", "/ca.pem")
        + &param("tls-crl-file", "/crl.pem");
    let config = kafka(&text);
    assert_eq!(config.tls.crl_file.as_deref(), Some(Path::new("/crl.pem")));
    assert_eq!(config.security_protocol, SecurityProtocol::SaslSsl);
    assert!(config.sasl.is_some());
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn properties_pass_through_and_secret_ones_are_secrets() {
    let block = "<librdkafka>".to_owned()
        + &param("batch.size", "1000000")
        + &param("acks", "all")
        + &param("ssl.key.pem", "file:/run/key")
        + &param("ssl.keystore.password", "hunter2")
        + &param("sasl.oauthbearer.token.endpoint.url", "https://id")
        + "</librdkafka>";
    let config = kafka(&(SERVERS.to_owned() + &block));
    let values: Vec<_> = config.properties.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(
        values,
        [
            PropertyValue::Plain("1000000".to_owned()),
            PropertyValue::Plain("all".to_owned()),
            PropertyValue::Secret(Secret::File("/run/key".into())),
            PropertyValue::Secret(Secret::Literal("hunter2".to_owned())),
            PropertyValue::Plain("https://id".to_owned()),
        ]
    );
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn delivery_can_be_weakened_knowingly() {
    let block = format!("<librdkafka>{}</librdkafka>", param("acks", "1"));
    let knowingly = param("allow-unsafe-delivery", "true");
    let config = kafka(&(SERVERS.to_owned() + &knowingly + &block));
    assert!(config.allow_unsafe_delivery && config.properties.len() == 1);
}

#[test]
fn every_problem_of_a_file_is_reported_at_once_in_its_order() {
    let found = lines(
        r#"<configuration>
          <settings><param name="shutdown-timeout-ms" value="soon"/></settings>
          <sinks>
            <sink name="cdr" type="file" events="CHANEL_HANGUP">
              <param name="queue-capacity" value="10k"/>
              <param name="queue-capcity" value="32"/>
            </sink>
            <sink name="cdr" type="amqp"><param name="url" value="nowhere"/></sink>
            <sink name="x y" type="pulsar"/>
          </sinks>
        </configuration>"#,
    );
    assert_eq!(
        found,
        [
            r#"settings: shutdown-timeout-ms: expected 100..=60000 ms, found "soon""#,
            r#"sink "cdr": events: unknown event, found "CHANEL_HANGUP"; did you mean "CHANNEL_HANGUP"?"#,
            r#"sink "cdr": queue-capacity: expected 16..=1048576 events, found "10k""#,
            r#"sink "cdr": path: missing: expected an absolute path with no fields but ${date}, ${hour}, ${node} and ${sink}"#,
            r#"sink "cdr": queue-capcity: unknown parameter; did you mean "queue-capacity"?"#,
            r#"sink "cdr": url: expected amqp://host:port/vhost or amqps://…"#,
            r#"sink #3: name: expected 1 to 32 letters, digits, _ or -, found "x y""#,
            r#"sink #3: type: expected file, amqp or kafka, found "pulsar""#,
            r#"sink "cdr": name: another sink has this name: give each its own"#,
        ]
    );
}

#[test]
fn a_problem_has_its_parts_for_programs() {
    let problems = read(&sink_text("file", &(PATH.to_owned() + &param("lingr-ms", "1"))));
    let problems = problems.expect_err("it is wrong");
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(problem.sink.as_deref(), Some("s"));
    assert_eq!(problem.parameter.as_deref(), Some("lingr-ms"));
    assert_eq!(problem.nearest.as_deref(), Some("linger-ms"));
}

/// Type of the sink, its parameters, and what the one problem says.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    ("file", "queue-capacity=15", "expected 16..=1048576 events"),
    ("file", "queue-capacity=-1", "expected 16..=1048576 events"),
    ("file", "queue-capacity=+99", "expected 16..=1048576 events"),
    ("file", "queue-max-bytes=100000", "can't hold one event of max-event-bytes"),
    (
        "file",
        "queue-capacity=1048576 queue-max-bytes=4194304",
        "queue-capacity: is 1048576 while queue-max-bytes is 4194304: the empty queue takes",
    ),
    ("file", "queue-when-full=spool spool-mode=off", "spool-mode is off"),
    ("file", "queue-when-full=drop", "expected drop-newest, drop-oldest or spool"),
    (
        "file",
        "spool-max-bytes=65536 spool-segment-bytes=16777216",
        "spool-segment-bytes, which is 16777216",
    ),
    ("file", "spool-max-bytes=65536", "spool-max-bytes: 65536 bytes can't hold one event of"),
    ("file", "spool-fsync-interval-ms=0", "spool-fsync is interval"),
    ("file", "fsync=interval fsync-interval-ms=0", "fsync is interval"),
    ("file", "bulk-percent=95", "normal-percent is 90"),
    ("file", "critical-percent=80", "normal-percent: is 90 while critical-percent is 80"),
    ("file", "bulk-percent=0", "expected 1..=100 percent"),
    ("file", "critical-percent=101", "expected 1..=100 percent"),
    ("file", "critical-events=ALL bulk-events=DTMF", "takes DTMF, which bulk-events takes too"),
    ("file", "critical-events=fifo::* bulk-events=CUSTOM", "takes CUSTOM^fifo::info"),
    ("file", "bulk-events=HEARTBAET", "did you mean \"HEARTBEAT\""),
    ("file", "reconnect-min-ms=500", "reconnect-min-ms is 500"),
    ("file", "path=events.ndjson", "expected an absolute path"),
    ("file", "path=/var/log/", "expected an absolute path"),
    ("file", "path=/var/log/${dat}", "${date}"),
    ("file", "path=$${log_dir}/x", "expected an absolute path"),
    ("file", "path=/a${date", "expected an absolute path"),
    ("file", "mode=0444", "owner write"),
    ("file", "mode=999", "owner write"),
    ("file", "spool-dir=spool", "expected an absolute path"),
    ("file", "enabled=maybe", "expected true or false"),
    ("file", "exchange=x", "out of place: it belongs in <sink type=\"amqp\">"),
    ("file", "node-name=x", "out of place: it belongs in <settings>"),
    ("file", "events=ALL", "out of place: it belongs among the attributes of <sink>"),
    ("file", "linger-ms=1 linger-ms=2", "given more than once"),
    ("amqp", "topic=x", "out of place: it belongs in <sink type=\"kafka\">"),
    ("amqp", "url=amqp://a,amqps://b", "drop the encryption"),
    ("amqp", "url=amqp://a@c username=d password=e", "username: is given here and in the URL"),
    ("amqp", "url=amqp://a:b@c password=e", "password: is given here and in the URL"),
    ("amqp", "url=amqp://a@c", "names a user without a password"),
    ("amqp", "username=a", "without a password"),
    ("amqp", "password=a", "without a user"),
    ("amqp", "tls-ca-file=/ca", "has no effect without TLS: write amqps://"),
    ("amqp", "tls-crl-file=/crl", "has no effect without TLS: write amqps://"),
    ("amqp", "tls-verify=false", "has no effect without TLS"),
    ("amqp", "tls-server-name=x", "has no effect without TLS"),
    ("amqp", "url=amqps://h tls-cert-file=/c", "without tls-key-file"),
    ("amqp", "url=amqps://h tls-key-file=/c", "without tls-cert-file"),
    ("amqp", "url=amqps://h tls-key-password=x", "without tls-key-file"),
    ("amqp", "url=amqps://h tls-ca-file=/c tls-verify=false", "tls-verify is false"),
    ("amqp", "url=amqps://h tls-crl-file=/c tls-verify=false", "tls-verify is false"),
    ("amqp", "url=amqps://h tls-crl-file=crl.pem", "expected an absolute path"),
    ("amqp", "url=amqps://h tls-server-name=x tls-verify=no", "tls-verify is false"),
    ("amqp", "auth=external", "external needs amqps://"),
    ("amqp", "url=amqps://h auth=external", "external needs amqps://"),
    ("amqp", "exchange=", "can't be declared"),
    ("amqp", "exchange-type=topics", "expected topic, direct"),
    ("amqp", "heartbeat-ms=1500", "whole seconds"),
    ("amqp", "frame-max-bytes=4095", "expected 4096..=16777216 bytes"),
    ("amqp", "exchange=fs.${event}", "set declare to off"),
    ("amqp", "exchange=fs.${evnt} declare=off", "found \"evnt\"; did you mean \"event\"?"),
    ("amqp", "routing-key=event.${node", "closed fields"),
    ("amqp", "routing-key=event.${nod}", "found \"nod\"; did you mean \"node\"?"),
    ("amqp", "routing-key=${caller-context|#none}", "did you mean \"Caller-Context\"?"),
    ("amqp", "routing-key=${#a.b}", "holds a dot"),
    ("amqp", "password=env:", "expected env:NAME"),
    ("amqp", "password=file:relative", "expected env:NAME"),
    ("amqp", "password=", "expected env:NAME"),
    ("kafka", "bootstrap-servers=h:9092", "given more than once"),
    ("kafka", "topic=a/b", "expected 1 to 249"),
    ("kafka", "topic=..", "expected 1 to 249"),
    ("kafka", "topic=fs.${event", "with closed fields"),
    ("kafka", "topic=fs/${event}", "around the fields, found \"fs/\""),
    ("kafka", "topic=fs.${evnt}", "did you mean \"event\"?"),
    ("kafka", "key=${cal}", "did you mean \"call\"?"),
    ("kafka", "message-timeout-ms=1000", "spool-mode to off"),
    ("kafka", "sasl-username=u", "set security-protocol"),
    ("kafka", "sasl-mechanism=SCRAM-SHA-256", "set security-protocol"),
    ("kafka", "security-protocol=sasl_plaintext sasl-username=u", "needs sasl-password"),
    ("kafka", "security-protocol=sasl_plaintext sasl-password=p", "needs sasl-username"),
    ("kafka", "tls-ca-file=/ca", "set security-protocol to ssl or sasl_ssl"),
    ("kafka", "tls-crl-file=/crl", "set security-protocol to ssl or sasl_ssl"),
    ("kafka", "tls-server-name=x", "out of place"),
    ("kafka", "compression=zip", "expected none, gzip, snappy or lz4"),
];

#[test]
fn every_contradiction_is_one_clear_problem() {
    for (sink_type, params, expected) in CONTRADICTIONS {
        let found = wrong(sink_type, params);
        assert_eq!(found.len(), 1, "{params}: {found:?}");
        assert!(found.iter().any(|line| line.contains(expected)), "{params}: {found:?}");
        assert!(found.iter().all(|line| line.starts_with("sink \"s\": ")), "{found:?}");
    }
}

#[test]
fn a_wrong_value_is_not_held_against_another_parameter() {
    assert_eq!(wrong("file", "normal-percent=no critical-percent=60").len(), 1);
    assert_eq!(wrong("file", "spool-segment-bytes=no spool-max-bytes=8388608").len(), 1);
}

#[test]
fn every_property_that_would_be_wrong_is_refused() {
    for (params, expected) in [
        (param("bootstrap.servers", "x"), "bootstrap-servers sets it"),
        (param("delivery.timeout.ms", "1"), "message-timeout-ms sets it"),
        (param("sasl.password", "hunter2"), "sasl-password sets it"),
        (param("ssl.crl.location", "/crl"), "tls-crl-file sets it"),
        (param("acks", "1"), "only with allow-unsafe-delivery"),
        (param("acks", "0"), "only with allow-unsafe-delivery"),
        (param("enable.idempotence", "false"), "only with allow-unsafe-delivery"),
        (param("retries", "3"), "only with allow-unsafe-delivery"),
        (param("queuing.strategy", "lifo"), "only with allow-unsafe-delivery"),
        (param("partitioner", "random"), "only with allow-unsafe-delivery"),
        (param("transactional.id", "x"), "can't be used"),
        (param("ssl.keystore.password", "env:"), "expected env:NAME"),
        (param("linger ms", "1"), "expected the name of a property"),
        (param("", "1"), "expected the name of a property"),
        (param("linger.ms", "1") + &param("linger.ms", "2"), "given more than once"),
        ("<param name=\"linger.ms\"/>".to_owned(), "without a value"),
        ("<param value=\"1\"/>".to_owned(), "without a name"),
        ("<parm/>".to_owned(), "expected nothing but <param>, found \"parm\""),
    ] {
        let text = format!("{SERVERS}<librdkafka>{params}</librdkafka>");
        let found = lines(&sink_text("kafka", &text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("sink \"s\": librdkafka: "), "{found:?}");
        assert!(found[0].contains(expected) && !found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn every_malformed_tree_is_one_clear_problem() {
    let with = |sinks: &str| format!("<configuration><sinks>{sinks}</sinks></configuration>");
    let file = |more: &str| with(&format!("<sink name=\"s\" type=\"file\">{PATH}{more}</sink>"));
    for (text, expected) in [
        ("<configuration/>".to_owned(), "configuration: expected <sinks>"),
        (with(""), "sinks: expected at least one <sink>"),
        (with("<snik/>"), "found \"snik\"; did you mean \"sink\"?"),
        (file("<param/>"), "<param> without a name"),
        (file("<param name=\"enabled\"/>"), "enabled: <param> without a value"),
        (file("<param name=\"enabled\" valeu=\"true\"/>"), "enabled: <param> without a value"),
        (
            file("<param name=\"enabled\" value=\"true\" x=\"\"/>"),
            "no attributes of <param> but name and value, found \"x\"",
        ),
        (file("<librdkafka/>"), "unknown element, found \"librdkafka\""),
        (file("<parm name=\"enabled\" value=\"true\"/>"), "did you mean \"param\"?"),
        (file("<param name=\"\" value=\"\"/>"), "unknown parameter"),
        (
            with(&format!("<sink name=\"s\" type=\"file\" event=\"ALL\">{PATH}</sink>")),
            "event: unknown parameter; did you mean \"events\"?",
        ),
        (
            with(&format!("<sink name=\"s\" type=\"file\" events=\"\">{PATH}</sink>")),
            "events: selects no event",
        ),
        (
            with(&format!("<sink name=\"s\" type=\"file\" events=\"DTMF !DTMF\">{PATH}</sink>")),
            "events: selects no event",
        ),
        (with(&format!("<sink type=\"file\">{PATH}</sink>")), "sink #1: name: missing"),
        (with("<sink name=\"s\"/>"), "sink \"s\": type: missing: expected file, amqp or kafka"),
        (with("<sink name=\"s\" type=\"amqp\"/>"), "url: missing"),
        (with("<sink name=\"s\" type=\"kafka\"/>"), "bootstrap-servers: missing"),
        (
            file("").replace("<sinks>", "<sinks x=\"1\">"),
            "sinks: expected no attributes, found \"x\"",
        ),
        (
            file("").replace("<sinks>", "<sinks><param name=\"a\" value=\"b\"/>"),
            "sinks: a: out of place",
        ),
        (
            file("").replace("<sinks>", "<settings/><settings/><sinks>"),
            "element given more than once",
        ),
        (file("").replace("<sinks>", "<seting/><sinks>"), "did you mean \"settings\"?"),
        (
            file("").replace("<sinks>", "<settings x=\"\"/><sinks>"),
            "settings: expected no attributes",
        ),
        (
            file("").replace("<sinks>", "<settings><a/></settings><sinks>"),
            "settings: unknown element",
        ),
        (
            file("").replace("configuration>", "config>"),
            "expected <configuration> as the outermost",
        ),
        (
            file("").replacen("<configuration>", "<configuration nmae=\"\">", 1),
            "nmae: unknown attribute; did you mean \"name\"?",
        ),
        (with(&"<sink/>".repeat(100)), "expected at most 64 sinks"),
    ] {
        let found = lines(&text);
        assert!(found.iter().any(|line| line.contains(expected)), "{expected}: {found:?}");
        assert!(found.len() == 1 || text.len() > 500, "{found:?}");
    }
}

#[test]
fn two_sinks_share_no_file_and_no_folder() {
    let sinks = |params: &str| {
        let sink = |name| format!("<sink name=\"{name}\" type=\"file\">{params}</sink>");
        format!("<configuration><sinks>{}{}</sinks></configuration>", sink("a"), sink("b"))
    };
    let own = param("path", "/tmp/${sink}.ndjson");
    assert!(read(&sinks(&own)).is_ok());
    for (params, parameter) in [
        (PATH.to_owned(), "path"),
        (own.clone() + &param("spool-dir", "/spool"), "spool-dir"),
        (own + &param("dead-letter-dir", "/dead"), "dead-letter-dir"),
    ] {
        assert_eq!(
            lines(&sinks(&params)),
            [format!("sink \"b\": {parameter}: sink \"a\" has the same one: give each its own")]
        );
    }
}

#[test]
fn a_type_that_was_not_built_is_named_with_its_feature() {
    let without = Known { amqp: false, kafka: false, ..KNOWN };
    for (sink_type, params) in [("amqp", URL), ("kafka", SERVERS)] {
        let error = Config::read(&xml::section(&sink_text(sink_type, params)), &without);
        let text = error.expect_err("it is not there").to_string();
        assert!(text.contains(&format!("build it with the feature {sink_type}")), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn no_problem_repeats_a_secret() {
    for (sink_type, params) in [
        ("amqp", param("url", "amqp://u:hunter2@h/a/b")),
        ("amqp", param("url", "u:hunter2@h")),
        ("amqp", param("url", "amqp://u:hunter2/x")),
        ("amqp", param("url", "amqp://u:hunter2,x@h")),
        ("amqp", URL.to_owned() + &param("pasword", "hunter2")),
        ("amqp", URL.to_owned() + &param("username", "u") + &param("password", "file:hunter2")),
        ("amqp", URL.to_owned() + &param("password", "hunter2") + &param("password", "hunter2")),
        ("kafka", SERVERS.to_owned() + &param("sasl-password", "hunter2")),
        ("file", PATH.to_owned() + &param("password", "hunter2")),
    ] {
        let text = sink_text(sink_type, &params);
        for line in lines(&text) {
            assert!(!line.contains("hunter2"), "{line}");
        }
        assert!(!format!("{:?}", xml::section(&text)).contains("hunter2"));
    }
}
