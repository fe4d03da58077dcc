// SPDX-License-Identifier: MIT
//! What a waiting event takes in memory, against its JSON.

use crate::Effort;
use crate::load::Stand;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::{Folder, free_port, skips};
use crate::throughput::ROOM;

pub fn run(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench memory", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let folder = Folder::new("bench-memory");
    let path = folder.join("events.ndjson");
    // Nobody listens there.
    let away = format!(
        "<sink name=\"out\" type=\"amqp\" events=\"CHANNEL_HANGUP_COMPLETE\">{ROOM}\
         <param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:{}/%2f\"/></sink>",
        free_port()
    );
    let file = format!(
        "<sink name=\"out\" type=\"file\" events=\"CHANNEL_HANGUP_COMPLETE\">\
         <param name=\"path\" value=\"{}\"/><param name=\"identity\" value=\"false\"/></sink>",
        path.display()
    );
    for headers in [40, 85, 250] {
        stand.with_module(&file, |stand| {
            stand.deliver_of(headers, 10, 0);
            stand.wait_for("delivered", 10);
        });
        let lines = std::fs::read_to_string(&path).expect("the sink has written");
        let json = lines.lines().last().map_or(0, str::len) as f64;
        let (mut held, mut baseline) = (Series::default(), Series::default());
        for _ in 0..effort.rounds.min(5) {
            stand.with_module(&away, |stand| {
                // What is there in any case is there before.
                stand.deliver_of(headers, 2_000, 4_000);
                let before = stand.memory();
                stand.deliver_of(headers, 20_000, 4_000);
                stand.wait_for("waiting", 22_000);
                held.push((stand.memory() - before) / 20_000.0);
            });
            baseline.push(json);
        }
        let case = format!("{headers} headers");
        results.figure("memory for a waiting event", &case, "bytes", &held);
        results.ratio("memory for a waiting event / its JSON", &case, &held, &baseline);
    }
}
