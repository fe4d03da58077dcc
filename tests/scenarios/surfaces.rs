// SPDX-License-Identifier: MIT
//! What an operator types and a dialplan calls: tables, JSON, words that are not known, reload, publish.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::stage::{
    LIMIT, Stage, holes, is_balanced, number, on_each_switch, sink, status_of, wait_balanced,
    wait_connected,
};
use crate::support::clients::Message;
use crate::support::oracle;
use crate::support::proxy::{Mode, Proxy};
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::wait_until;

/// The words of a table's first line, and its rows by their first word.
fn rows<'t>(table: &'t str, title: &str) -> Vec<Vec<&'t str>> {
    let from = table.lines().skip_while(|line| !line.starts_with(title)).skip(1);
    from.take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn tables_and_json_tell_of_every_sink() {
    on_each_switch("tables_and_json_tell_of_every_sink", |switch, stage| {
        switch.load().expect("the module loads");
        wait_connected(switch);
        switch.deliver(&Load { count: 100, headers: 5, ..Load::default() });
        wait_balanced(switch);
        status(switch, stage);
        sinks(switch, stage);
        events(switch, stage);
        rest(switch, stage);
        completion(switch);
    });
}

fn status(switch: &mut dyn Switch, stage: &Stage) {
    let status = switch.json("rustbridge status json");
    let module = &status["module"];
    assert_eq!(module["node"], "fs1");
    assert_eq!(module["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(module["boot"].as_str().map(str::len), Some(36), "a UUID");
    let version = module["freeswitch"].as_str().expect("a version is text");
    assert!(version.starts_with("1.1"), "{version}");
    assert!(module["uptime_ms"].is_u64());
    let names: Vec<_> = stage.sinks();
    let told = status["sinks"].as_array().expect("an array of sinks");
    assert_eq!(told.len(), names.len());
    for (sink, (name, kind)) in told.iter().zip(&names) {
        assert_eq!((&sink["name"], &sink["type"]), (&json!(name), &json!(kind)));
        assert_eq!(sink["state"], "connected");
        assert!(number(sink, "offered") >= 100, "{sink}");
        for counter in ["filtered", "delivered", "dead", "waiting", "since"] {
            number(sink, counter);
        }
        assert!(sink["dropped"].is_object() && sink.get("last_error").is_some(), "{sink}");
        let took = |name: &str| number(&sink["latency_us"], name);
        assert!((100..=number(sink, "delivered")).contains(&took("count")), "{sink}");
        let rising = [1, took("p50"), took("p99"), took("p999"), took("max")];
        assert!(rising.is_sorted(), "from event to acknowledgement: {sink}");
    }
    let table = switch.api("rustbridge status");
    let rows = rows(&table, "sink ");
    let firsts: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(firsts, names, "{table}");
    assert!(rows.iter().all(|row| row[2] == "connected"), "{table}");
    assert!(table.contains("node fs1"), "{table}");
}

fn sinks(switch: &mut dyn Switch, stage: &Stage) {
    let told = switch.json("rustbridge sinks json");
    let told = told.as_array().expect("an array of sinks");
    let table = switch.api("rustbridge sinks");
    for column in ["broker", "reconnects", "blocked s", "gaps", "p50 ms", "p99 ms"] {
        assert!(table.lines().next().is_some_and(|head| head.contains(column)), "{table}");
    }
    let rows = rows(&table, "sink ");
    for (sink, (name, kind)) in told.iter().zip(stage.sinks()) {
        assert_eq!((&sink["name"], &sink["type"]), (&json!(name), &json!(kind)));
        assert_eq!((&sink["events"], &sink["spool_mode"]), (&json!("ALL"), &json!("overflow")));
        let target = sink["target"].as_str().expect("a target is text");
        let row = rows.iter().find(|row| row[0] == name).expect("each sink has a line");
        assert_eq!((row[1], row[2]), (kind, "connected"), "{table}");
        assert_eq!(sink["peer"], row[3], "the broker in use: {table}");
        assert!(row[4..7].iter().all(|number| number.parse::<f64>().is_ok()), "{table}");
        let there = match kind {
            "file" => target.ends_with("events.ndjson"),
            "amqp" => target.contains(&stage.exchange) && row.contains(&stage.exchange.as_str()),
            _ => target.contains(&stage.topic) && row.contains(&stage.topic.as_str()),
        };
        assert!(there, "{target}: {table}");
    }
    assert!(!table.contains("guest:"), "no secret is shown: {table}");
}

fn events(switch: &mut dyn Switch, stage: &Stage) {
    let told = switch.json("rustbridge events json");
    let told = told.as_object().expect("events by name");
    assert!(told.len() > 85 && told.contains_key("CHANNEL_CREATE"), "{} events", told.len());
    assert!(!told.contains_key("ALL"));
    let wanted: Vec<Value> =
        stage.sinks().iter().map(|(name, _)| json!({ "sink": name, "all": true })).collect();
    assert_eq!(told["CUSTOM"], json!(wanted));
    let table = switch.api("rustbridge events");
    let rows = rows(&table, "event ");
    assert_eq!(rows.len(), told.len());
    assert!(rows.iter().all(|row| row.len() == 1 + wanted.len()), "{table}");
}

fn rest(switch: &mut dyn Switch, stage: &Stage) {
    // Its figures are posted a few times a second.
    wait_until(LIMIT, "the figures of the spool", || {
        switch.json("rustbridge spool json")["journal"]["records"] == 0
    });
    let one = switch.json("rustbridge spool journal json");
    assert_eq!(one.as_object().map(serde_json::Map::len), Some(1));
    let table = switch.api("rustbridge spool");
    assert_eq!(rows(&table, "sink ").len(), stage.sinks().len(), "{table}");
    let version = switch.json("rustbridge version json");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["sinks"].as_array().is_some_and(|kinds| kinds.contains(&json!("file"))));
    assert!(switch.api("rustbridge version").contains(env!("CARGO_PKG_VERSION")));
    let help = switch.api("rustbridge help");
    let words: Vec<&str> = help.lines().filter_map(|l| l.strip_prefix("rustbridge ")).collect();
    for word in ["status", "sinks", "events", "publish", "validate", "reload", "version", "help"] {
        assert!(words.iter().any(|line| line.starts_with(word)), "{word} in {help}");
    }
    assert_eq!(switch.api("rustbridge"), help);
    assert!(switch.api("rustbridge help linger-ms").contains("0..=1000"), "help of a parameter");
    let valid = switch.api("rustbridge validate");
    assert!(valid.starts_with("+OK ") && valid.contains("sinks"), "{valid}");
}

fn completion(switch: &mut dyn Switch) {
    assert!(switch.complete("rustbridg").contains(&"rustbridge".to_owned()));
    let words = switch.complete("rustbridge ");
    for word in ["status", "sinks", "events", "reload", "validate", "version", "help"] {
        assert!(words.contains(&word.to_owned()), "{word} in {words:?}");
    }
    assert_eq!(switch.complete("rustbridge status "), ["json"]);
    assert!(switch.complete("rustbridge pause j").contains(&"journal".to_owned()));
}

#[test]
fn words_that_are_not_known_get_one_line_and_the_nearest() {
    on_each_switch("words_that_are_not_known_get_one_line_and_the_nearest", |switch, _| {
        switch.load().expect("the module loads");
        let long = format!("rustbridge {}", "x".repeat(5000));
        let wrong = [
            ("rustbridge statsu", vec!["\"statsu\"", "did you mean \"status\"?"]),
            ("rustbridge xyzzy", vec!["\"xyzzy\"", "rustbridge help"]),
            (&long, vec!["rustbridge help"]),
            ("rustbridge status jsno", vec!["\"jsno\"", "usage: rustbridge status [json]"]),
            ("rustbridge reload now", vec!["takes no arguments", "\"now\""]),
            ("rustbridge pause", vec!["needs the name of a sink", "journal"]),
            ("rustbridge pause jurnal", vec!["\"jurnal\"", "did you mean \"journal\"?"]),
            ("rustbridge spool jurnal json", vec!["\"jurnal\"", "did you mean \"journal\"?"]),
            ("rustbridge validate /no/such/file", vec!["/no/such/file", "cannot be read"]),
            ("rustbridge dlq lits", vec!["did you mean \"list\"?"]),
            ("rustbridge_publish", vec!["the exchange or topic is missing", "usage:"]),
            ("rustbridge_publish -", vec!["the routing key is missing", "usage:"]),
            ("rustbridge_publish - -", vec!["the payload is missing", "usage:"]),
            ("rustbridge_publish - - 'open", vec!["a quote ' is opened and never closed"]),
            ("rustbridge_publish - - {\"a\": [1}", vec!["never closed"]),
            ("rustbridge_publish - - x nothing", vec!["\"nothing\" is not a header"]),
            ("rustbridge_publish - - x a=b surplus", vec!["one argument too many"]),
            ("rustbridge_publish ^^", vec!["needs a delimiter"]),
            ("rustbridge_publish sink=jurnal - - x", vec!["\"jurnal\""]),
            ("rustbridge_publish - - @var:none", vec!["no channel variable \"none\""]),
        ];
        for (line, expected) in wrong {
            let answer = switch.api(line);
            assert!(answer.starts_with("-ERR "), "{line}: {answer}");
            assert_eq!(answer.trim_end().lines().count(), 1, "{line}: {answer}");
            assert!(answer.len() < 400, "{line}: {answer}");
            for words in expected {
                assert!(answer.contains(words), "{line}: no {words:?} in {answer}");
            }
        }
    });
}

#[test]
fn a_bad_reload_changes_nothing_and_says_every_problem() {
    on_each_switch("a_bad_reload_changes_nothing_and_says_every_problem", |switch, stage| {
        switch.load().expect("the module loads");
        wait_connected(switch);
        let before = switch.json("rustbridge sinks json");
        let wrong = stage.document(
            "<sink name=\"journal\" type=\"file\"><param name=\"pth\" value=\"/tmp/x\"/></sink>\n\
             <sink name=\"two\" type=\"flie\"/>\n\
             <sink name=\"three\" type=\"file\" events=\"CHANEL_CREATE\"><param name=\"path\" value=\"/x\"/>\
             <param name=\"linger-ms\" value=\"soon\"/></sink>\n",
        );
        switch.configure(&wrong);
        let file = stage.folder.write("other.xml", &wrong);
        let expected = [
            ("sink \"journal\"", "did you mean \"path\"?"),
            (
                "sink \"two\"",
                "expected file, amqp or kafka, found \"flie\"; did you mean \"file\"?",
            ),
            ("sink \"three\"", "did you mean \"CHANNEL_CREATE\"?"),
            ("sink \"three\"", "linger-ms"),
        ];
        for line in [
            "rustbridge reload".to_owned(),
            "rustbridge validate".into(),
            format!("rustbridge validate {}", file.display()),
        ] {
            let answer = switch.api(&line);
            assert!(answer.starts_with("-ERR "), "{line}: {answer}");
            for (place, words) in expected {
                let found = answer.lines().any(|one| one.contains(place) && one.contains(words));
                assert!(found, "{line}: no line with {place} and {words}: {answer}");
            }
            let unchanged = answer.contains("Nothing has changed");
            assert_eq!(unchanged, line == "rustbridge reload", "{answer}");
        }
        switch.configure("<configuration name=\"rustbridge.conf\"><sinks>");
        let answer = switch.api("rustbridge reload");
        assert!(answer.starts_with("-ERR ") && answer.contains("Nothing has changed"), "{answer}");
        assert_eq!(switch.json("rustbridge sinks json"), before);
        let sent = switch.deliver(&Load { count: 200, headers: 5, ..Load::default() });
        check_generated(stage, switch, &[sent]);
        // What was wrong does not stay in the way of what is right.
        switch.configure(&stage.configuration());
        assert!(switch.api("rustbridge reload").starts_with("+OK "));
    });
}

/// Every generated event is in every sink once, in order and intact.
fn check_generated(stage: &Stage, switch: &mut dyn Switch, sent: &[Delivered]) {
    for (_, _, messages) in stage.settle(switch) {
        oracle::judge(sent, &messages).assert_exact();
    }
}

#[test]
fn reloads_under_load_lose_nothing() {
    on_each_switch("reloads_under_load_lose_nothing", |switch, stage| {
        switch.load().expect("the module loads");
        wait_connected(switch);
        let load = Load { count: 1_000_000, headers: 5, rate: 1000, ..Load::default() };
        let running = switch.generate_later(&load.line());
        for round in 1..=6 {
            // One sink is replaced, the others stay; in turn.
            let (name, kind) = stage.sinks()[round % stage.sinks().len()];
            let (amqp, kafka) = stage.ports();
            let mut plain = String::new();
            for (_, other) in stage.sinks() {
                stage.parameters.clear();
                if other == kind {
                    stage.parameters.push(("linger-ms", (round + 5).to_string()));
                }
                plain += &stage.sink_at(other, amqp, kafka);
            }
            switch.configure(&stage.document(&plain));
            let before = number(&status_of(switch, name), "delivered");
            let answer = switch.api("rustbridge reload");
            assert!(answer.starts_with("+OK reloaded"), "{answer}");
            let replaced = answer.split(", replaced ").nth(1).unwrap_or_default();
            assert!(replaced.split_whitespace().any(|word| word == name), "{name}: {answer}");
            wait_until(LIMIT, "the replaced sink to deliver again", || {
                let status = status_of(switch, name);
                status["state"] == "connected" && number(&status, "delivered") > before + 150
            });
        }
        switch.generate("stop");
        let sent = Delivered::parse(&running.finish());
        switch.generate("go");
        assert!(sent.count > 600, "{}", sent.count);
        wait_balanced(switch);
        for (kind, all) in stage.settle_by_oracle(std::slice::from_ref(&sent)) {
            let verdict = oracle::judge(std::slice::from_ref(&sent), &all);
            assert!(verdict.lost.is_empty(), "{kind}: lost {}", oracle::ranges(&verdict.lost));
            verdict.assert_exact();
        }
    });
}

#[test]
fn a_spool_that_moves_or_goes_is_delivered_first() {
    on_each_switch("a_spool_that_moves_or_goes_is_delivered_first", |switch, stage| {
        if stage.rabbit.is_none() {
            return;
        }
        let (amqp, _) = stage.ports();
        let proxy = Proxy::to(amqp);
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port());
        let configure = |switch: &mut dyn Switch, parameter: &(&str, String)| {
            let parameters =
                [("url", url.as_str()), ("exchange", &stage.exchange), (parameter.0, &parameter.1)];
            let sink = sink("rabbit", "amqp", "ALL", &parameters, "");
            switch.configure(&stage.document(&sink));
        };
        let folder = |number: u32| format!("{}/spool{number}", stage.folder.path().display());
        let dirs = [1, 2, 3].map(|number| ("spool-dir", folder(number)));
        proxy.set(Mode::Refuse);
        configure(switch, &dirs[0]);
        switch.load().expect("the module loads");
        let mut sent = Vec::new();
        let off = ("spool-mode", "off".to_owned());
        for step in [&dirs[1], &dirs[2], &off] {
            sent.push(switch.deliver(&Load { count: 400, headers: 5, ..Load::default() }));
            wait_until(LIMIT, "events in the spool", || {
                status_of(switch, "rabbit")["spool"]["records"].as_u64().is_some_and(|n| n > 0)
            });
            configure(switch, step);
            let answer = switch.api("rustbridge reload");
            assert!(answer.contains("replaced rabbit"), "{answer}");
            wait_until(LIMIT, "the new sink to have taken over", || {
                let status = status_of(switch, "rabbit");
                status["state"] != "waiting" && is_balanced(&status)
            });
        }
        sent.push(switch.deliver(&Load { count: 400, headers: 5, ..Load::default() }));
        proxy.set(Mode::Pass);
        wait_balanced(switch);
        let arrived = || stage.rabbit.as_ref().expect("it is there").1.messages();
        wait_until(LIMIT, "all of them", || oracle::judge(&sent, &arrived()).lost.is_empty());
        oracle::judge(&sent, &arrived()).assert_exact();
        assert_eq!(holes("amqp", &arrived()), []);
        let gone = |switch: &mut dyn Switch| status_of(switch, "rabbit")["spool"].is_null();
        wait_until(LIMIT, "the old spool to be left", || gone(switch));
    });
}

#[test]
fn an_application_publishes_through_each_sink() {
    on_each_switch("an_application_publishes_through_each_sink", |switch, stage| {
        switch.load().expect("the module loads");
        wait_connected(switch);
        let json = r#"{"to": "a } b", "n": [1, 2]}"#;
        for (name, kind) in stage.sinks() {
            let line = format!("rustbridge_publish sink={name} - call.new {json} x=1;y=two words");
            let answer = switch.api(&line.replace("two words", "two"));
            assert_eq!(answer.trim_end(), format!("+OK queued for {name}"), "{line}");
            let delimited = format!("rustbridge publish ^^|sink={name}|-|call.app|plain text|k=v");
            assert_eq!(switch.api(&delimited).trim_end(), format!("+OK queued for {name}"));
            let variables = switch.app(
                "rustbridge_publish",
                &format!("sink={name} - call.var @var:payload leg=a"),
                &[("payload", "from a variable")],
            );
            let result = &variables["rustbridge_publish_result"];
            assert_eq!(result, &format!("+OK queued for {name}"));
            let bodies = BTreeSet::from([json, "plain text", "from a variable"]);
            wait_until(LIMIT, "the published messages", || {
                let all = stage.arrived(kind);
                let there: BTreeSet<String> =
                    all.iter().filter_map(|message| published(kind, message)).collect();
                bodies.iter().all(|body| there.contains(*body))
            });
            check_published(kind, stage, json);
        }
        let refused = switch.app("rustbridge_publish", "-", &[]);
        assert!(refused["rustbridge_publish_result"].starts_with("-ERR "), "{refused:?}");
    });
}

/// What was published; in a file it stands beside what a broker carries as headers.
fn published(kind: &str, message: &Message) -> Option<String> {
    match kind {
        "file" => message.json().get("_body")?.as_str().map(Into::into),
        _ => String::from_utf8(message.body.clone()).ok(),
    }
}

fn check_published(kind: &str, stage: &Stage, json: &str) {
    let all = stage.arrived(kind);
    let message = all.iter().find(|message| published(kind, message).as_deref() == Some(json));
    let message = message.expect("it has been waited for");
    if kind == "file" {
        let line = message.json();
        let text = |name: &str| line[name].as_str().unwrap_or_default();
        assert_eq!(
            ["Rustbridge-Key", "x", "y", "rb-node"].map(text),
            ["call.new", "1", "two", "fs1"]
        );
        return;
    }
    assert_eq!(message.key.as_deref(), Some("call.new"));
    let header = |name: &str| message.headers.get(name).map(String::as_str);
    assert_eq!((header("x"), header("y"), header("node")), (Some("1"), Some("two"), Some("fs1")));
    if kind == "amqp" {
        assert_eq!(message.properties["content_type"], "application/json");
        assert_eq!(message.place, stage.exchange);
    } else {
        assert_eq!(header("content-type"), Some("application/json"));
    }
}

#[test]
fn publishing_never_waits_for_a_broker() {
    on_each_switch("publishing_never_waits_for_a_broker", |switch, stage| {
        // Nobody listens there.
        let nobody = sink(
            "rabbit",
            "amqp",
            "ALL",
            &[("url", "amqp://guest:guest@127.0.0.1:1/%2f"), ("exchange", "nowhere")],
            "",
        );
        switch.configure(&stage.document(&nobody));
        switch.load().expect("the module loads");
        for _ in 0..20 {
            let answer = switch.api("rustbridge_publish sink=rabbit - key text");
            assert_eq!(answer.trim_end(), "+OK queued for rabbit");
        }
        wait_until(LIMIT, "the publisher to say what is wrong", || {
            let status = status_of(switch, "rabbit");
            let said = status["last_error"].as_str().unwrap_or_default();
            number(&status, "waiting") >= 20 && said.contains("127.0.0.1:1")
        });
        assert_eq!(number(&status_of(switch, "rabbit"), "delivered"), 0);
    });
}
