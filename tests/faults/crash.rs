// SPDX-License-Identifier: MIT
//! The switch is killed, again and again: what was durable arrives, and calls that it took with it are told.

use std::collections::{BTreeMap, BTreeSet};

use crate::bench::{Row, SINK, assert_balanced, dropped, size, wait};
use crate::consumers;
use crate::stream::{Stream, id, streams};
use crate::support::clients::Message;
use crate::support::oracle;
use crate::support::proxy::Mode;
use crate::support::switch::{Delivered, Load};

/// F10. The switch is killed at any point while events go to disk. Whatever the module has called durable arrives.
pub(crate) fn switch_killed(row: &mut Row<'_>) {
    killed(row, size(5, 20), |_, _| {});
}

/// F10 in a FreeSWITCH with a call in each of its lives, which ends with it: a later life tells it, once and for all.
pub(crate) fn killed_with_calls(row: &mut Row<'_>) {
    "<param name=\"live-calls\" value=\"true\"/>".clone_into(&mut row.settings);
    let lives = killed(row, size(2, 20), |row, life| {
        let uuid = uuid(life);
        let call = format!("originate {{origination_uuid={uuid}}}null/test &park()");
        let answer = row.host.api(&call);
        assert!(answer.starts_with("+OK"), "{answer}");
        wait("the call to be noted", || {
            row.host.json("rustbridge status json")["module"]["live_calls"]["calls"] == 1
        });
    });
    let messages = || lives.iter().flat_map(|(_, stream)| &stream.messages);
    let orphans: BTreeMap<String, _> = messages()
        .filter(|message| is_orphan(message))
        .map(|message| (id(message), message.json()))
        .collect();
    // The boots in the order of their lives, the last of which was not killed.
    let mut boots: Vec<&String> = lives.iter().map(|(boot, _)| boot).collect();
    boots.pop();
    // Of each call there is one: had two boots told it by two ids, both would be here.
    let told: BTreeSet<&String> = orphans.keys().collect();
    let expected: Vec<String> =
        (0..).zip(&boots).map(|(life, boot)| format!("{boot}-orphan-{}", uuid(life))).collect();
    assert_eq!(told, expected.iter().collect::<BTreeSet<&String>>());
    for (life, (boot, id)) in (0..).zip(boots.iter().zip(&expected)) {
        let orphan = &orphans[id];
        assert_eq!(orphan["Core-UUID"], boot.as_str(), "{orphan:?}");
        assert_eq!(orphan["Unique-ID"], uuid(life), "{orphan:?}");
    }
    // A life that told some and was killed before it had noted that leaves them to the next, by the same ids.
    let mut live_calls = || row.host.json("rustbridge status json")["module"]["live_calls"].clone();
    wait("the orphans to be noted as told", || live_calls()["orphans_waiting"] == 0);
    // From then on no boot tells any.
    row.host.stop();
    row.host.start();
    row.host.load().expect("the module loads");
    let boot = row.boot();
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    row.deliver(10);
    row.wait_all_delivered();
    let live_calls = row.host.json("rustbridge status json")["module"]["live_calls"].clone();
    let (waiting, told) = (&live_calls["orphans_waiting"], &live_calls["orphans_told"]);
    assert_eq!((waiting, told), (&0.into(), &0.into()), "{live_calls:#}");
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of that boot");
    let tells = stream.messages.iter().filter(|message| is_orphan(message));
    assert_eq!((tells.count(), stream.numbers.len()), (0, 10));
}

/// F10 in mode `overflow`. The switch is killed when events of it are on disk and older ones in memory alone, sent and not
/// acknowledged: those are told as missing by the next boot, in front of the others.
pub(crate) fn killed_in_front_of_the_spool(row: &mut Row<'_>) {
    let proxy = row.broker.proxy();
    row.broker.keep(&row.place, "#");
    row.configure_by(proxy.port(), &[("spool-mode", "overflow"), ("spool-fsync", "always")]);
    row.host.load().expect("the module loads");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let before = row.deliver(10);
    row.wait_all_delivered();
    let boot = row.boot();
    proxy.set(Mode::Blackhole);
    let lost = row.deliver(50);
    row.wait_sink("these to be in flight", |sink| sink["in_flight"] == lost.count);
    row.host.api(&format!("rustbridge pause {SINK}"));
    let kept = row.deliver(size(500, 20_000));
    row.wait_sink("those to be durable", |sink| {
        let spool = &sink["spool"];
        let all = before.count + lost.count + kept.count;
        spool["records"] == kept.count && spool["durable_seq"] == all
    });
    row.host.kill();
    row.host.start();
    proxy.set(Mode::Pass);
    row.host.load().expect("the module loads");
    row.wait_sink("the spool to be read", |sink| sink["recovered"] == kept.count);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    row.wait_sink("the gap record", |sink| sink["gaps"] == 1 && sink["in_flight"] == 0);
    let stream =
        streams(row.broker.read(&row.place)).remove(&boot).expect("the stream of that boot");
    let expected: BTreeSet<u64> = (before.count + 1..=before.count + lost.count).collect();
    assert_eq!(stream.told, expected);
    // What the network had of them arrives when it passes again: they were not acknowledged.
    let known: BTreeSet<u64> = stream.numbers.union(&stream.told).copied().collect();
    assert_eq!(known, (1..=stream.last()).collect::<BTreeSet<u64>>());
    assert_eq!(stream.reasons, BTreeMap::from([("crash".to_owned(), lost.count)]));
    let mut verdict = oracle::judge(&[before, lost, kept], &stream.messages);
    assert!(verdict.lost.len() <= expected.len(), "{:?}", verdict.lost);
    verdict.lost.clear();
    verdict.assert_exact();
    row.note(&verdict, stream.duplicates);
}

const ORPHAN: &str = "rustbridge::orphan";

fn is_orphan(message: &Message) -> bool {
    message.json().get("Event-Subclass").is_some_and(|it| it == ORPHAN)
}

/// The call of a life.
fn uuid(life: u64) -> String {
    format!("6b1d0000-0000-4000-8000-{life:012}")
}

/// Kills the switch so often, each time when some events are durable; `begun` is called in the middle of each life. Gives
/// the streams of all boots, in the order of the boots.
fn killed(
    row: &mut Row<'_>,
    kills: u64,
    mut begun: impl FnMut(&mut Row<'_>, u64),
) -> Vec<(String, Stream)> {
    row.broker.keep(&row.place, "#");
    consumers::prepare(row);
    row.broker.kill();
    let mut lives: Vec<(String, u64)> = Vec::new();
    // Any spread will do, the same in each run: a failure can be seen again.
    let mut spread = 0x2545_f491_4f6c_dd1d_u64;
    let load = Load { count: 1_000_000, rate: 3000, ..Load::default() };
    for life in 0..=kills {
        if life > 0 {
            row.host.start();
        }
        row.load(&[
            ("events", "CHANNEL_STATE CUSTOM rustbridge::orphan"),
            ("spool-mode", "always"),
            ("spool-fsync", "always"),
            ("spool-segment-bytes", "262144"),
            ("queue-capacity", "65536"),
        ]);
        let boot = row.boot();
        if life == kills {
            lives.push((boot, 0));
            break;
        }
        spread ^= spread << 13;
        spread ^= spread >> 7;
        spread ^= spread << 17;
        let enough = 1 + spread % size(600, 10_000);
        let _until_killed = row.flow(&load);
        begun(row, life);
        let mut through = 0;
        wait("events to be durable", || {
            // The gauge may still show what an earlier boot left.
            let sink = row.sink();
            let earlier = sink["recovered"].as_u64().unwrap_or(0);
            let held = sink["spool"]["records"].as_u64().unwrap_or(0);
            if held > earlier {
                through = sink["spool"]["durable_seq"].as_u64().unwrap_or(0).min(held - earlier);
            }
            through >= enough
        });
        row.host.kill();
        assert!(lives.iter().all(|(known, _)| *known != boot), "each life is a boot of its own");
        lives.push((boot, through));
    }
    row.broker.start_again();
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let mut streams = streams(row.broker.read(&row.place));
    let (mut all, mut duplicates) = (oracle::Verdict::default(), 0);
    let mut found = Vec::new();
    // A call may be told once more by a later boot, by the same id.
    let events = streams.values().flat_map(Stream::events).collect::<BTreeSet<String>>().len();
    for (boot, through) in lives {
        let stream = streams.remove(&boot).unwrap_or_default();
        let last = stream.last();
        assert!(last >= through, "{through} events of {boot} were durable, {last} arrived");
        assert!(stream.told.is_empty(), "told as missing: {:?}", stream.told);
        stream.assert_told();
        // What was generated last, and is not here, was in memory alone.
        let generated = stream.messages.iter().filter_map(|message| {
            message.json().get("Gen-Seq").and_then(|it| it.as_str()?.parse::<u64>().ok())
        });
        let sent = generated.max().map(|last| Delivered {
            count: last,
            first: 1,
            last,
            ..Delivered::default()
        });
        let verdict = oracle::judge(sent.as_slice(), &stream.messages);
        verdict.assert_exact();
        all.generated += verdict.generated;
        duplicates += verdict.duplicates;
        found.push((boot, stream));
    }
    assert!(streams.is_empty(), "streams that nobody has begun: {:?}", streams.keys());
    row.note(&all, duplicates);
    consumers::check(row, events, 0);
    found
}
