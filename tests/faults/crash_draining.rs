// SPDX-License-Identifier: MIT
//! F10. The switch is killed while what an outage left on disk goes to a broker that is there again.

use crate::bench::{Row, assert_balanced, dropped, size};
use crate::broker::Kind;
use crate::stream::streams;
use crate::support::oracle;
use crate::support::proxy::Mode;
use crate::support::switch::{Delivered, Load};

/// Bytes a second that the line to the broker lets through: slow, so that a backlog drains for seconds.
const LINE: u64 = 400_000;
/// What the sink has in flight at most.
const WINDOW: u64 = 64;

/// Each life begins with an outage, whose events go to disk behind what the life before has left, and is killed in the middle of
/// the way to the broker, with more events coming. What was durable arrives, in order. What comes twice is what was in flight,
/// and what was delivered since the cursor was last written: ten times a second, here with ten times as much for a slow machine.
pub(crate) fn killed(row: &mut Row<'_>) {
    row.broker.keep(&row.place, "#");
    let proxy = row.broker.proxy();
    let (window, name) = (WINDOW.to_string(), row.broker.window_parameter());
    let kills = size(2, 20);
    let backlog = Load { count: size(1500, 3000), ..Load::default() };
    let mut spread = 0x2545_f491_4f6c_dd1d_u64;
    let mut lives: Vec<(String, u64)> = Vec::new();
    for life in 0..=kills {
        if life > 0 {
            row.host.start();
        }
        proxy.set(if life == kills { Mode::Pass } else { Mode::Refuse });
        let mut parameters = vec![
            ("spool-mode", "overflow"),
            ("spool-fsync", "interval"),
            ("spool-segment-bytes", "262144"),
            ("queue-capacity", "65536"),
            (name, &window),
        ];
        if row.broker.kind() == Kind::Kafka {
            parameters.push(("compression", "none"));
        }
        row.configure_by(proxy.port(), &parameters);
        row.host.load().expect("the module loads");
        let boot = row.boot();
        assert!(lives.iter().all(|(known, _)| *known != boot), "each life is a boot of its own");
        if life == kills {
            lives.push((boot, 0));
            break;
        }
        row.wait_sink("the loss of the broker", |sink| sink["state"] != "connected");
        let waiting = row.host.deliver(&backlog);
        // All of this boot's own, so that the gauge is about it from here on.
        row.wait_sink("the backlog to be durable", |sink| {
            sink["spool"]["durable_seq"].as_u64().is_some_and(|seq| seq + WINDOW >= waiting.count)
                && sink["spool"]["loss_window_records"] == 0
                && sink["memory_bytes"].as_u64().is_some_and(|bytes| bytes < 1 << 20)
        });
        spread ^= spread << 13;
        spread ^= spread >> 7;
        spread ^= spread << 17;
        let enough = 500 + spread % 200;
        proxy.set(Mode::Throttle(LINE));
        let _until_killed = row.flow(&Load { count: 1_000_000, rate: 300, ..Load::default() });
        let sink = row.wait_sink("the backlog to drain", |sink| {
            sink["delivered"].as_u64().is_some_and(|n| n >= enough)
                && sink["spool"]["durable_seq"].as_u64().is_some_and(|seq| seq > waiting.count)
        });
        assert!(sink["waiting"].as_u64().is_some_and(|n| n > 100), "still draining: {sink:#}");
        let through = sink["spool"]["durable_seq"].as_u64().unwrap();
        row.host.kill();
        lives.push((boot, through));
    }
    row.wait_sink("the spool to be read", |sink| sink["recovered"].as_u64().is_some_and(|n| n > 0));
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let messages = row.broker.read(&row.place);
    let smallest = messages.iter().map(|message| message.body.len()).min().expect("many came");
    let a_second = LINE / u64::try_from(smallest).unwrap();
    let twice_max = usize::try_from((a_second + WINDOW) * kills).unwrap();
    let mut streams = streams(messages);
    let (mut all, mut duplicates) = (oracle::Verdict::default(), 0);
    for (boot, through) in lives {
        let stream = streams.remove(&boot).unwrap_or_default();
        let last = stream.last();
        assert!(last >= through, "{through} events of {boot} were durable, {last} arrived");
        assert!(stream.told.is_empty(), "told as missing: {:?}", stream.told);
        stream.assert_told();
        let sent =
            (last > 0).then(|| Delivered { count: last, first: 1, last, ..Delivered::default() });
        // What came last was in memory alone; what is here is a beginning without a hole.
        let verdict = oracle::judge(sent.as_slice(), &stream.messages);
        verdict.assert_at_least_once();
        all.generated += verdict.generated;
        duplicates += stream.duplicates;
    }
    assert!(streams.is_empty(), "streams that nobody has begun: {:?}", streams.keys());
    assert!(duplicates <= twice_max, "{duplicates} duplicates, at most {twice_max}");
    row.note(&all, duplicates);
}
