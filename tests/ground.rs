// SPDX-License-Identifier: MIT
//! Proves the ground that the other tests stand on, with the host's own probe instead of the module.

mod support;

use std::fs;
use std::time::Duration;

use support::certificates::Authority;
use support::clients::{self, Consumer, Message};
use support::freeswitch::{FreeSwitch, Installation};
use support::host::{Host, HostOptions};
use support::kafka::{Kafka, KafkaOptions};
use support::oracle;
use support::proxy::{Mode, Proxy};
use support::rabbitmq::RabbitMq;
use support::switch::{Event, Load, Switch};
use support::{Folder, recorded, skips, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = r#"<?xml version="1.0"?>
<X-PRE-PROCESS cmd="set" data="greeting=hello there"/>
<configuration name="rustbridge.conf">
  <!-- one comment
       on two lines -->
  <settings a="1 &amp; &lt;2&gt; &#x41;" b="$${greeting}">text &quot;q&quot; <![CDATA[<raw>]]></settings>
  <sinks/>
  <settings c="second"/>
</configuration>
"#;

#[test]
fn a_module_is_loaded_and_unloaded_a_hundred_times_under_events_without_a_leak() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    host.unload().expect("the probe unloads");
    let (threads, descriptors) = (host.threads(), host.descriptors());
    let events =
        host.generate_later(&Load { count: 1_000_000, rate: 500, ..Load::default() }.line());
    for _ in 0..100 {
        host.load().expect("the probe loads");
        host.unload().expect("the probe unloads");
    }
    host.command("stop");
    let answer = events.finish();
    assert!(answer.contains("+OK"), "{answer}");
    assert_eq!(host.threads(), threads);
    assert_eq!(host.descriptors(), descriptors);
    let figures = host.figures();
    assert!((figures["bindings"] - 0.0).abs() < f64::EPSILON, "{figures:?}");
    host.stop();
}

#[test]
fn handlers_see_every_event_of_every_dispatch_thread() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    // The load's own events go through the queue.
    host.flush();
    let before: u64 = host.api("probe count").trim().parse().expect("a number");
    let sent = host.deliver(&Load { count: 20_000, threads: 4, kind: "mixed", ..Load::default() });
    assert_eq!(sent.count, 20_000);
    let after: u64 = host.api("probe count").trim().parse().expect("a number");
    // One more for the event API that the first question fired.
    assert!((20_000..=20_002).contains(&(after - before)), "{before} {after}");
}

#[test]
fn the_configuration_is_preprocessed_and_read_as_the_core_reads_it() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    let expected =
        "<settings a=1 & <2> A b=hello there>text \"q\" <raw>\n<sinks>\n<settings c=second>\n";
    assert_eq!(host.api("probe xml"), expected);
    host.configure("<configuration name=\"rustbridge.conf\"><sinks>");
    let refused = host.reload_xml().expect_err("a broken document is refused");
    assert!(refused.contains("unexpected closing tag </section>"), "{refused}");
    assert_eq!(host.api("probe xml"), expected, "the old tree stays");
    host.configure("<configuration name=\"other.conf\"/>");
    host.reload_xml().expect("a sound document is taken");
    assert_eq!(host.api("probe xml"), "none\n");
}

#[test]
fn a_module_with_a_running_call_is_not_unloaded() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    let held = host.api_later("probe hold");
    wait_until(LIMIT, "the call to run", || host.api("probe holding") == "1\n");
    assert!(host.unload().is_err_and(|error| error.contains("Module in use.")));
    host.api("probe release");
    assert_eq!(held.finish(), "held\n");
    host.unload().expect("nothing runs any more");
}

#[test]
fn allocations_and_system_calls_of_a_handler_are_counted() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    let quiet = host.deliver(&Load { count: 1000, ahead: true, ..Load::default() });
    assert!((quiet.number("allocs") + quiet.number("frees")).abs() < f64::EPSILON);
    assert_eq!(host.system_calls(1000).0, 0);
    host.api("probe be malloc");
    let noisy = host.deliver(&Load { count: 1000, ahead: true, ..Load::default() });
    assert!(noisy.number("allocs") >= 1000.0 && noisy.number("frees") >= 1000.0);
    host.api("probe be syscall");
    assert_eq!(host.system_calls(1000).0, 1000);
    host.api("probe be changing");
    let changed = host.deliver(&Load { count: 10, check: true, ..Load::default() });
    // At least: the core's own event about the command above may still be on its way to the handler.
    assert!(changed.number("mutated") >= 10.0, "{changed:?}");
}

#[test]
fn applications_completion_and_variables_work() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    let variables = host.app("probe_app", "data", &[("probe_in", "a b=c%")]);
    assert_eq!(variables["probe_out"], "a b=c%");
    assert_eq!(host.app("probe_app", "data", &[])["probe_out"], "data");
    assert_eq!(host.complete("pro"), ["probe"]);
    assert_eq!(host.complete("probe "), ["be", "count", "hold"]);
    assert_eq!(host.complete("probe be "), ["apple", "zebra"]);
    assert_eq!(host.complete("probe be z"), ["zebra"]);
    host.unload().expect("the probe unloads");
    assert!(host.complete("probe ").is_empty());
}

#[test]
fn the_allowlist_of_1_11_refuses_interfaces_and_1_10_knows_none() {
    for (core, offered) in [("1.11", false), ("1.10", true)] {
        let library = Some(support::host_folder().join("mod_probe.so"));
        let options =
            HostOptions { core, library, module_name: "mod_probe", ..HostOptions::default() };
        let mut host = Host::with(CONFIGURATION, options);
        let list = r#"<configuration name="switch.conf"><interface-allowlist><allow name="mod_probe.probe_app.app"/>
            </interface-allowlist></configuration>"#;
        fs::write(host.folder().join("conf/autoload_configs/switch.conf.xml"), list)
            .expect("the folder can be written");
        host.load().expect("a load succeeds whatever is refused");
        let refused = host
            .log()
            .contains("Skipping API 'probe' from mod_probe: not permitted by interface allowlist");
        assert_eq!(
            (host.api("probe count") == "INVALID COMMAND!\n", refused),
            (!offered, !offered),
            "{core}"
        );
        assert_eq!(host.app("probe_app", "x", &[])["probe_out"], "x");
        let all = if offered { 92.0 } else { 93.0 };
        assert!((host.figures()["event_all"] - all).abs() < f64::EPSILON);
    }
}

#[test]
fn recorded_and_hostile_events_pass_through() {
    let mut host = Host::loaded_probe(CONFIGURATION);
    let events = recorded::all();
    assert_eq!(events.len(), 1103);
    let folder = Folder::new("play");
    let file = recorded::write_play_file(&folder, &events);
    let answer = host.generate(&format!("play {} 0", file.display()));
    assert!(answer.starts_with("+OK n=1103 "), "{answer}");
    assert!(host.generate("raw all").starts_with("+OK n=24"));
    host.fire(
        &Event::new("CHANNEL_CREATE").header("Unique-ID", "abc").item("X", "1").body("text\nmore"),
    );
    host.flush();
    host.kill();
    host.start();
    host.load().expect("the probe loads again");
}

#[test]
fn the_oracle_tells_lost_double_late_and_damaged() {
    let event = |sequence: u64, place: u64| {
        let sum = [
            ("Gen-Seq", sequence.to_string()),
            ("Gen-Key", "k".into()),
            ("Gen-Key-Seq", place.to_string()),
        ];
        let hash = sum.iter().fold(0_u64, |sum, (name, value)| {
            let bytes = name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]);
            let one = bytes.fold(14_695_981_039_346_656_037_u64, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(1_099_511_628_211)
            });
            sum.wrapping_add(one)
        });
        let mut map: serde_json::Map<_, _> =
            sum.into_iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
        map.insert("Gen-Hash".into(), format!("{hash:016x}").into());
        Message {
            body: serde_json::Value::Object(map).to_string().into_bytes(),
            ..Message::default()
        }
    };
    let sent = support::switch::Delivered::parse("unsent 7 8\n+OK n=6 first=1 last=8 wall_ms=1.0");
    let mut damaged = event(5, 5);
    damaged.body = String::from_utf8(damaged.body).unwrap().replace("\"k\"", "\"l\"").into_bytes();
    let received =
        [event(1, 1), event(3, 3), event(2, 2), event(2, 2), damaged, event(99, 9), event(6, 6)];
    let verdict = oracle::judge(&[sent], &received);
    assert_eq!((verdict.generated, verdict.received, verdict.duplicates), (6, 5, 1));
    assert_eq!((verdict.lost, verdict.damaged, verdict.unknown), (vec![4], vec![5], vec![99]));
    assert_eq!(verdict.disordered, ["k"]);
    assert_eq!(oracle::holes(1, [1, 2, 2, 5]), [3, 4]);
    assert_eq!(oracle::ranges(&[1, 2, 3, 9]), "1-3, 9");
}

#[test]
fn rabbitmq_starts_stops_dies_and_keeps_what_was_confirmed() {
    let test = "rabbitmq_starts_stops_dies_and_keeps_what_was_confirmed";
    if skips::unless(test, clients::pika()).is_none() {
        return;
    }
    let authority = Authority::new();
    let Some(mut rabbit) = skips::unless(test, RabbitMq::with_tls(&authority, true)) else {
        return;
    };
    let mine = authority.sign("client", &[], 2);
    let query =
        [("cafile", authority.certificate()), ("certfile", mine.file), ("keyfile", mine.key)];
    let query: Vec<String> =
        query.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
    let secure =
        format!("amqps://guest:guest@localhost:{}/%2f?{}", rabbit.tls_port(), query.join("&"));
    let mut consumer = Consumer::amqp(&secure, "test", "#", Some("kept"));
    clients::amqp_publish(&rabbit.url(), "test", "a.b", &["one", "two"]);
    let got = consumer.wait_count(2, LIMIT);
    assert_eq!(
        (got[0].place.as_str(), got[0].key.as_deref(), &got[1].body[..]),
        ("test", Some("a.b"), &b"two"[..])
    );
    drop(consumer);
    clients::amqp_publish(&rabbit.url(), "test", "a.b", &["three"]);
    rabbit.kill();
    rabbit.start_again();
    let mut consumer = Consumer::amqp(&rabbit.url(), "test", "#", Some("kept"));
    let kept =
        consumer.wait_message(LIMIT, "the confirmed message", |message| message.body == b"three");
    assert_eq!(kept.key.as_deref(), Some("a.b"));
    rabbit.pause();
    rabbit.resume();
    rabbit.add_user("fs1", "secret", "calls");
    let url = format!("amqp://fs1:secret@127.0.0.1:{}/calls", rabbit.port());
    clients::amqp_declare(&url, "other", "fanout");
    drop(consumer);
    rabbit.stop();
}

#[test]
fn kafka_starts_dies_and_keeps_what_was_acknowledged() {
    let test = "kafka_starts_dies_and_keeps_what_was_acknowledged";
    let authority = Authority::new();
    let options = KafkaOptions { secure: Some(&authority), ..KafkaOptions::default() };
    let Some(mut kafka) = skips::unless(test, Kafka::with(&options)) else { return };
    kafka.create_topic("events", 2, &[]);
    let mut consumer = Consumer::kafka(&kafka.bootstrap(), "events", &[]);
    clients::kafka_publish(&kafka.bootstrap(), "events", "k1", &["one", "two"], &["acks=all"]);
    let got = consumer.wait_count(2, LIMIT);
    assert_eq!((got[0].key.as_deref(), got[1].offset - got[0].offset), (Some("k1"), 1));
    let location = format!("ssl.ca.location={}", authority.certificate().display());
    let login = [
        "security.protocol=sasl_ssl",
        "sasl.mechanism=PLAIN",
        "sasl.username=fs1",
        "sasl.password=secret",
        &location,
    ];
    clients::kafka_publish(&kafka.secure_bootstrap(), "events", "k2", &["three"], &login);
    kafka.kill();
    kafka.start_again();
    let mut later = Consumer::kafka(&kafka.secure_bootstrap(), "events", &login);
    assert_eq!(later.wait_count(3, LIMIT).len(), 3);
    kafka.stop();
}

#[test]
fn the_proxy_fails_as_it_is_told() {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap().port());
    let connect = || {
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        (client, server)
    };
    let (mut client, mut server) = connect();
    let mut four = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"ping");
    proxy.set(Mode::CorruptToClient(1));
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"p\x7fng");
    proxy.set(Mode::Blackhole);
    client.write_all(b"held").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(server.read(&mut four).is_err(), "nothing passes");
    proxy.set(Mode::Pass);
    server.set_read_timeout(Some(LIMIT)).unwrap();
    server.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"held");
    proxy.set(Mode::Reset);
    assert!(!matches!(client.read(&mut four), Ok(size) if size > 0));
    proxy.set(Mode::Pass);
    let (_client, _server) = connect();
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn a_real_freeswitch_runs_the_generator_and_answers() {
    let test = "a_real_freeswitch_runs_the_generator_and_answers";
    let Some(installations) = skips::unless(test, Installation::all()) else { return };
    for installation in installations {
        let mut switch = FreeSwitch::with(installation, CONFIGURATION, &[]);
        assert!(switch.name().starts_with("FreeSWITCH 1."), "{}", switch.name());
        let sent = switch.deliver(&Load { count: 2000, threads: 2, ..Load::default() });
        assert_eq!((sent.count, sent.first, sent.last), (2000, 1, 2000));
        let folder = Folder::new("play");
        let file = recorded::write_play_file(&folder, &recorded::all());
        let answer = switch.generate(&format!("play {} 0", file.display()));
        assert!(answer.contains("+OK n=1103 "), "{}: {answer}", switch.name());
        assert!(switch.generate("raw all").ends_with("+OK n=24"), "{}", switch.name());
        let variables = switch.app("set", "test_out=42", &[("test_in", "here")]);
        assert_eq!((variables["test_out"].as_str(), variables["test_in"].as_str()), ("42", "here"));
        assert!(switch.complete("generat").contains(&"generate".to_owned()), "{}", switch.name());
        assert!(switch.log().contains("mod_generate"));
        switch.kill();
        switch.start();
        switch.stop();
    }
}
