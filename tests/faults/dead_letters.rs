// SPDX-License-Identifier: MIT
//! What the broker rejects for itself: it never blocks what is behind it, is kept, told as missing, and can be sent again.

use crate::bench::{Row, SINK, assert_balanced, dropped, size, wait};
use crate::outage::first_ten;
use crate::stream::streams;
use crate::support::clients;
use crate::support::oracle;
use crate::support::switch::Event;

/// Events that no queue takes: list, show, purge one, bind a queue, send the others again.
pub(crate) fn unroutable(row: &mut Row<'_>) {
    let url = row.broker.rabbitmq().url();
    let bind = |place: &str, key: &str| clients::amqp_bind(&url, place, key, place);
    bind(&row.place, "event.*.CHANNEL_STATE.#");
    bind(&row.place, "event.*.CUSTOM.#");
    let copies = format!("{}.dead", row.place);
    bind(&copies, "#");
    row.load(&[
        ("mandatory", "true"),
        ("events", "CHANNEL_STATE DTMF"),
        ("routing-key", "event.${node}.${event}.${subclass}.digit-${DTMF-Digit}"),
        ("dead-letter-exchange", &copies),
    ]);
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let before = row.deliver(10);
    for digit in 0..5 {
        row.host.fire(
            &Event::new("DTMF").header("DTMF-Digit", digit.to_string()).header("Unique-ID", "a"),
        );
    }
    row.host.flush();
    let behind = row.deliver(10);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!((sink["dead"].as_u64(), dropped(&sink)), (Some(5), 0), "{sink:#}");
    row.wait_sink("the gap records", |sink| sink["gaps"] == 5 && sink["in_flight"] == 0);
    let boot = row.boot();
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of this boot");
    oracle::judge(&[before, behind], &stream.messages).assert_exact();
    stream.assert_told();
    assert_eq!(stream.told.iter().copied().collect::<Vec<u64>>(), [11, 12, 13, 14, 15]);
    assert_eq!(stream.reasons.get("dead-letter"), Some(&5), "{:?}", stream.reasons);

    // What the broker was given of them, in place of the messages themselves.
    let mut found = row.broker.read(&copies);
    assert_eq!(found.len(), 5);
    // Beside the stream, and so in no order of their own.
    found.sort_by_key(|copy| copy.number("x-original-seq"));
    for (digit, copy) in found.iter().enumerate() {
        let key = copy.key.as_deref().unwrap_or_default();
        assert!(key.ends_with(&format!(".DTMF._.digit-{digit}")), "{key}");
        assert_eq!(copy.json()["DTMF-Digit"], digit.to_string());
        assert_eq!(copy.number("x-original-seq"), Some(11 + u64::try_from(digit).unwrap()));
        let reason = &copy.headers["x-death-reason"];
        assert!(reason.contains("312"), "{reason}");
        assert_eq!(copy.headers["x-original-id"].split('-').count(), 6, "{:?}", copy.headers);
    }

    let list = row.host.json(&format!("rustbridge dlq list {SINK} json"));
    assert_eq!(list["letters"], 5, "{list:#}");
    row.wait_sink("the letters to be counted", |sink| sink["dead_letters"] == 5);
    let table = row.host.api("rustbridge status");
    assert!(table.lines().any(|line| line.contains("letters")), "{table}");
    let first = &list["list"][0];
    assert_eq!(
        (first["event"].as_str(), first["seq"].as_u64()),
        (Some("DTMF"), Some(11)),
        "{list:#}"
    );
    let number = first["id"].as_u64().expect("a letter has a number");
    let shown = row.host.json(&format!("rustbridge dlq show {SINK} {number} json"));
    assert_eq!(shown["body"]["DTMF-Digit"], "0", "{shown:#}");
    let purged = row.host.json(&format!("rustbridge dlq purge {SINK} {number} json"));
    assert_eq!(purged["purged"], 1);
    let sink = row.sink();
    assert_balanced(&sink);
    assert_eq!((dropped(&sink), &sink["dropped"]["purged"]), (1, &1.into()), "{sink:#}");
    assert_eq!(sink["dead_letters"], 4, "{sink:#}");
    bind(&row.place, "event.*.DTMF.#");
    let retried = row.host.json(&format!("rustbridge dlq retry {SINK} all json"));
    assert_eq!(retried["retried"], 4);
    // With the one that was thrown away.
    row.wait_sink("the second delivery", |sink| sink["recovered"] == 5);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let list = row.host.json(&format!("rustbridge dlq list {SINK} json"));
    assert_eq!(list["letters"], 0, "{list:#}");
    let again = row.broker.read(&row.place);
    let digits: Vec<_> =
        again.iter().map(|message| (message.number("seq"), message.json())).collect();
    assert_eq!(digits.len(), 4);
    for (place, (seq, event)) in digits.into_iter().enumerate() {
        assert_eq!(seq, Some(12 + u64::try_from(place).unwrap()), "with its first number");
        assert_eq!(event["DTMF-Digit"], (place + 1).to_string());
    }
    let verdict = oracle::Verdict { generated: 25, lost: vec![11], ..oracle::Verdict::default() };
    row.note(&verdict, 0);
}

/// Kafka: one record is larger than its topic allows.
pub(crate) fn too_large(row: &mut Row<'_>) {
    row.broker.kafka().create_topic(&row.place, 1, &[("max.message.bytes", "20000")]);
    let copies = format!("{}.dead", row.place);
    row.load(&[
        ("events", "CHANNEL_STATE DTMF"),
        ("compression", "none"),
        ("key", "k-${event}"),
        ("dead-letter-topic", &copies),
    ]);
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let before = row.deliver(10);
    row.wait_all_delivered();
    let long = "x".repeat(30_000);
    row.host.fire(&Event::new("DTMF").header("Long", &long));
    row.host.flush();
    row.wait_sink("the dead letter", |sink| sink["dead"] == 1);
    let behind = row.deliver(10);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!((sink["dead"].as_u64(), dropped(&sink)), (Some(1), 0), "{sink:#}");
    row.wait_sink("the gap record", |sink| sink["gaps"] == 1 && sink["in_flight"] == 0);
    let boot = row.boot();
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of this boot");
    let verdict = oracle::judge(&[before, behind], &stream.messages);
    verdict.assert_exact();
    stream.assert_told();
    assert_eq!(stream.told.iter().copied().collect::<Vec<u64>>(), [11]);
    let mut found = Vec::new();
    wait("the copy", || {
        found = row.broker.read(&copies);
        !found.is_empty()
    });
    let [copy] = &found[..] else { panic!("{} copies of one", found.len()) };
    assert_eq!(copy.key.as_deref(), Some("k-DTMF"));
    assert_eq!(copy.json()["Long"], long);
    assert_eq!(copy.number("x-original-seq"), Some(11));
    let reason = &copy.headers["x-death-reason"];
    assert!(reason.to_lowercase().contains("too large"), "{reason}");
    let list = row.host.json(&format!("rustbridge dlq list {SINK} json"));
    assert_eq!(
        (list["letters"].as_u64(), list["list"][0]["seq"].as_u64()),
        (Some(1), Some(11)),
        "{list:#}"
    );
    let purged = row.host.json(&format!("rustbridge dlq purge {SINK} all json"));
    assert_eq!(purged["purged"], 1);
    row.note(&verdict, 0);
}

/// F8. The exchange is deleted under the module, and with it its bindings. The module makes it anew; what it sends before
/// the queue is bound again is returned, and sent again on request.
pub(crate) fn exchange_deleted(row: &mut Row<'_>) {
    row.begin(&[("mandatory", "true")]);
    let url = row.broker.rabbitmq().url();
    let before = row.deliver(size(500, 25_000));
    clients::amqp_delete(&url, &row.place);
    let behind = row.deliver(size(500, 25_000));
    row.wait_sink("the broker's refusal", |sink| {
        sink["reconnects"].as_u64().is_some_and(|n| n > 0)
    });
    row.broker.keep(&row.place, "#");
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    // Letters of what came while nothing was bound, sent again now.
    row.host.json(&format!("rustbridge dlq retry {SINK} all json"));
    row.wait_sink("the second delivery", |sink| sink["recovered"] == sink["dead"]);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let boot = row.boot();
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of this boot");
    let verdict = oracle::judge(&[first_ten(), before, behind], &stream.messages);
    // Gap records of those letters had no queue either, so here it is their return that fills the holes.
    stream.assert_no_hole();
    // What is sent again comes late: that is the one thing that dead letters cost.
    assert_eq!(
        (verdict.lost.as_slice(), verdict.damaged.as_slice(), verdict.unknown.as_slice()),
        (&[][..], &[][..], &[][..])
    );
    // What was told as missing came after all.
    assert!(stream.told.is_subset(&stream.numbers), "{:?}", stream.told);
    let untold: Vec<u64> =
        (1..=stream.last()).filter(|seq| !stream.numbers.contains(seq)).collect();
    assert!(untold.is_empty(), "missing, and not told: {untold:?}");
    let resent = row.resent_max();
    assert!(stream.duplicates <= resent, "{} duplicates, at most {resent}", stream.duplicates);
    row.note(&verdict, stream.duplicates);
}

/// A queue that takes no more than its length: what it refuses again and again becomes dead letters, and holds up nothing.
pub(crate) fn refused_by_a_full_queue(row: &mut Row<'_>) {
    let node = row.broker.rabbitmq();
    let bind = |key: &str, place: &str| clients::amqp_bind(&node.url(), &row.place, key, place);
    bind("event.*.CHANNEL_STATE.#", &row.place);
    bind("event.*.CUSTOM.#", &row.place);
    let narrow = format!("{}.narrow", row.place);
    bind("event.*.DTMF.#", &narrow);
    let (pattern, room) = (format!("^{}$", narrow.replace('.', "\\.")), 5);
    let limit = format!("{{\"max-length\":{room},\"overflow\":\"reject-publish\"}}");
    node.ctl(&["set_policy", "--apply-to", "queues", "narrow", &pattern, &limit]);
    row.load(&[("events", "CHANNEL_STATE DTMF"), ("dead-letter-max-attempts", "3")]);
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let before = row.deliver(10);
    let (digits, count) = (12, size(500, 20_000));
    for digit in 0..digits {
        row.host.fire(&Event::new("DTMF").header("DTMF-Digit", digit.to_string()));
    }
    row.host.flush();
    let behind = row.deliver(count);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let dead = digits - room;
    assert_eq!((sink["dead"].as_u64(), dropped(&sink)), (Some(dead), 0), "{sink:#}");
    assert_eq!(sink["delivered"], before.count + room + behind.count, "{sink:#}");
    assert_eq!((&sink["state"], &sink["reconnects"]), (&"connected".into(), &0.into()), "{sink:#}");
    row.wait_sink("the gap records", |sink| sink["gaps"] == dead && sink["in_flight"] == 0);
    let list = row.host.json(&format!("rustbridge dlq list {SINK} json"));
    assert_eq!(list["letters"], dead, "{list:#}");
    assert_eq!(list["list"][0]["event"], "DTMF", "{list:#}");
    assert_eq!(list["list"][0]["attempts"], 3, "{list:#}");
    let reason = list["list"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("basic.nack"), "{reason}");

    // A queue that takes everything again gets the rest when somebody asks for it.
    let node = row.broker.rabbitmq();
    node.ctl(&["clear_policy", "narrow"]);
    row.host.json(&format!("rustbridge dlq retry {SINK} all json"));
    row.wait_sink("the second delivery", |sink| sink["recovered"] == dead);
    assert_balanced(&row.wait_all_delivered());
    let boot = row.boot();
    let narrow = row.broker.read(&narrow);
    let mut seen: Vec<u64> = narrow.iter().filter_map(|message| message.number("seq")).collect();
    assert_eq!(seen[..5], [11, 12, 13, 14, 15]);
    // Then the letters, each once and with its first number; the limit may have gone in the middle of them.
    seen.sort_unstable();
    assert_eq!(seen, (11..11 + digits).collect::<Vec<u64>>());
    let mut messages = row.broker.read(&row.place);
    oracle::judge(&[before, behind], &messages).assert_exact();
    let room = usize::try_from(room).unwrap();
    messages.extend(narrow.into_iter().take(room));
    let stream = streams(messages).remove(&boot).expect("the stream of this boot");
    stream.assert_told();
    assert_eq!(stream.told.iter().copied().collect::<Vec<u64>>(), seen[room..]);
    assert_eq!(stream.reasons.get("dead-letter"), Some(&dead), "{:?}", stream.reasons);
    let verdict = oracle::Verdict {
        generated: stream.numbers.len() + stream.told.len(),
        ..oracle::Verdict::default()
    };
    row.note(&verdict, stream.duplicates);
}
